package service

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/problem/wire"
)

// timed gives the body of a request a time by which it has to have arrived, so that nobody holds a slot by sending a byte
// now and then. fail is told when it has not.
func (s *Server) timed(w http.ResponseWriter, req *http.Request, fail func(*problem.Error)) io.ReadCloser {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body
	}
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(s.bodyTime)) != nil {
		return req.Body // a writer of a test
	}
	return &timedBody{ReadCloser: req.Body, control: control, time: s.bodyTime, fail: fail}
}

// timedBody takes the deadline off when the body has ended: on HTTP/1.1 it is the connection's, and would end a long call.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	time    time.Duration
	fail    func(*problem.Error)
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF: //nolint:errorlint // the end itself
		_ = b.control.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded): // and it stays: net/http would wait for the rest before it answers
		late := problem.New(problem.DeadlineExceeded, "", "the request's body did not arrive within %v; nothing was done", b.time)
		b.fail(late)
		err = wire.Encode(late)
	}
	return n, err
}

// limitedBody refuses a request message over the limit with a sentence, in every protocol. Connect's own limit stays on
// behind it, for what grows when it is decompressed.
type limitedBody struct {
	io.ReadCloser
	max, left int64
	enveloped bool // messages have the 5-byte prefix of gRPC: flags and length
	prefix    []byte
	begun     bool
	fail      func(*problem.Error)
}

const envelopePrefix = 5

func enveloped(req *http.Request) bool {
	t := req.Header.Get("Content-Type")
	return strings.HasPrefix(t, "application/grpc") || strings.HasPrefix(t, "application/connect+")
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.enveloped && !b.begun {
		b.begun = true
		head := make([]byte, envelopePrefix)
		n, err := io.ReadFull(b.ReadCloser, head)
		b.prefix = head[:n]
		if err == nil {
			if size := int64(binary.BigEndian.Uint32(head[1:])); size > b.max {
				return 0, b.refuse(size)
			}
		}
		// What follows a message of the right size is its end; leave some room for a second one, and Connect refuses that.
		b.left += envelopePrefix
	}
	if len(b.prefix) > 0 {
		n := copy(p, b.prefix)
		b.prefix = b.prefix[n:]
		return n, nil
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, b.refuse(b.max - b.left)
	}
	return n, err
}

func (b *limitedBody) refuse(size int64) error {
	p := problem.New(problem.ResourceExhausted, "", "the request has at least %d bytes and %d are allowed (--max-request-bytes); ask for less at once", size, b.max)
	b.fail(p)
	return wire.Encode(p)
}
