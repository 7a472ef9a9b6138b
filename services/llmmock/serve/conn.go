package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"edgehold.internal/services/llmmock/serve/http1"
)

const (
	// idleFor is how long a client may keep a connection without asking for anything, and headFor how long the head of a request may
	// take. Deadlines are set anew when they are less than fresh away from what they should be, and not for every request.
	idleFor = 2 * time.Minute
	headFor = 10 * time.Second
	fresh   = 10 * time.Second

	// mostUnread is how much of a body that nobody wanted is read for the sake of the request after it.
	mostUnread = 256 << 10
	// lingerFor is how long a connection that is closed before all of a body was read goes on reading: a reset would destroy the answer.
	lingerFor = 500 * time.Millisecond
)

// conn is a connection of HTTP/1.1 whose requests are read here: a request costs less than net/http's part of it would, a stream has nothing
// but a small goroutine, what is flushed is one write of the operating system's, and the connection can be cut where the fault wants it.
// As soon as a client sends anything that package http1 calls unusual the connection is net/http's.
//
// It is the http.ResponseWriter of its requests, and the sink of its streams. One goroutine uses it.
type conn struct {
	nc     net.Conn
	server *Server
	*desk  // nil while there is a stream
	// early is what the client sent while it waited for an answer: the beginning of its next request.
	early []byte
	// state is idle, busy or closed; whoever stops the server may only close those that are idle.
	state atomic.Int32
	// readUntil is the deadline that is set.
	readUntil time.Time
	// stream takes the connection when its request has been handled.
	stream *answer
	// frame has the pieces of a stream that go out next, and ends where each of them does.
	frame []byte
	ends  []int
	raw   syscall.RawConn // of nc, once it is wanted
	// unread hears how long the client has not read; nil for nobody.
	unread func(time.Duration)
}

const (
	busy int32 = iota
	idle
	closed
)

// desk is what a connection needs to read a request and to answer it.
type desk struct {
	reader http1.Reader
	in     [4096]byte // of which from … to was not used yet
	from   int
	to     int
	body   body

	header    http.Header
	keys      []string
	status    int
	began     bool   // the head is out
	out, wire []byte // the body, and the head in front of it
	sent      int    // of the body
}

var desks = sync.Pool{New: func() any { return &desk{header: make(http.Header, 16)} }}

// largestDesk is how much a connection may keep for the next answer.
const largestDesk = 64 << 10

// serve answers requests until the connection is closed, or not ours any longer.
func (c *conn) serve() {
	defer c.server.forget(c)
	for c.next() {
		keep := c.handle()
		if a := c.stream; a != nil {
			c.stream = nil
			keep = a.chunks(c, keep)
		}
		if !keep {
			_ = c.nc.Close()
			break
		}
	}
	c.release()
}

// release gives the desk away.
func (c *conn) release() {
	if c.desk == nil {
		return
	}
	if c.from < c.to {
		c.early = bytes.Clone(c.in[c.from:c.to])
	}
	c.from, c.to, c.desk.body = 0, 0, body{}
	desks.Put(c.desk)
	c.desk = nil
}

// next reads up to the end of the head of a request. When it is false the connection was closed or handed over.
func (c *conn) next() bool {
	if c.desk == nil {
		c.desk = desks.Get().(*desk)
	}
	if len(c.early) > 0 { // and then nothing is left of what was read before
		c.from, c.to, c.early = 0, copy(c.in[:], c.early), nil
	}
	for inHead := false; ; {
		if c.from < c.to {
			n, verdict := c.reader.Parse(c.in[c.from:c.to])
			if verdict == http1.Plain && !c.server.strange(&c.reader.Request) {
				c.from += n
				c.body = body{c, c.reader.Request.ContentLength}
				c.reader.Request.Body = http.NoBody
				if c.body.left > 0 {
					c.reader.Request.Body = &c.body
				}
				return true
			}
			if verdict != http1.Incomplete || c.to-c.from == len(c.in) {
				c.handOver()
				return false
			}
		}
		c.from, c.to = 0, copy(c.in[:], c.in[c.from:c.to])
		switch {
		case c.to > 0 && !inHead:
			inHead = true
			c.readUntil = time.Now().Add(headFor)
			_ = c.nc.SetReadDeadline(c.readUntil) // reading says what is wrong with the connection
		case c.to == 0:
			c.patience()
			c.state.Store(idle)
			if c.server.stopping.Load() {
				_ = c.nc.Close()
				return false
			}
		}
		n, err := c.nc.Read(c.in[c.to:])
		if c.to == 0 && !c.state.CompareAndSwap(idle, busy) {
			return false
		}
		c.to += n
		switch {
		case errors.Is(err, io.EOF) && c.to > 0: // it may still listen
			c.handOver()
			return false
		case err != nil:
			_ = c.nc.Close()
			return false
		}
	}
}

// handOver leaves the connection to net/http, with what was read of it and not used.
func (c *conn) handOver() {
	c.server.rest.take(&resumed{c.nc, bytes.Clone(c.in[c.from:c.to])})
}

// patience gives the client its time to send something.
func (c *conn) patience() {
	if now := time.Now(); c.readUntil.Sub(now) < idleFor-fresh || c.readUntil.Sub(now) > idleFor {
		c.readUntil = now.Add(idleFor)
		_ = c.nc.SetReadDeadline(c.readUntil) // reading says what is wrong with the connection
	}
}

// body is that of a request whose length is known.
type body struct {
	c    *conn
	left int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.left)]
	if c := b.c; c.from < c.to {
		n = copy(p, c.in[c.from:c.to])
		c.from += n
	} else {
		c.patience()
		if n, err = c.nc.Read(p); errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	b.left -= int64(n)
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error { return nil }

// handle lets the request be answered, and says whether another may follow.
func (c *conn) handle() (keep bool) {
	clear(c.header)
	c.status, c.began, c.sent, c.out = 0, false, 0, c.out[:0]
	defer func() {
		if v := recover(); v != nil {
			// net/http takes a panic for the wish to end the connection too.
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				c.server.config.Logger.Error("a request made its handler panic", "path", c.reader.Request.URL.Path, "panic", v, "stack", string(debug.Stack()))
			}
			keep, c.stream = false, nil
		}
	}()
	r := &c.reader.Request
	keep = !r.Close
	c.server.ServeHTTP(c, r)
	if c.stream != nil {
		return keep
	}
	if c.body.left > mostUnread {
		c.header["Connection"] = []string{"close"}
		if c.flush(true) == nil {
			c.linger()
		}
		return false
	}
	if c.body.left > 0 {
		if _, err := io.Copy(io.Discard, &c.body); err != nil {
			return false
		}
	}
	if !keep {
		c.header["Connection"] = []string{"close"}
	}
	return c.flush(true) == nil && keep && c.whole()
}

// whole says whether as much was sent as was promised.
func (c *conn) whole() bool {
	if c.status == http.StatusNoContent || c.status == http.StatusNotModified {
		return c.sent == 0
	}
	n, err := strconv.Atoi(c.header["Content-Length"][0])
	return err == nil && n == c.sent
}

// linger reads on for a while after the last of the answer.
func (c *conn) linger() {
	if closeWrite(c.nc) == nil && c.nc.SetReadDeadline(time.Now().Add(lingerFor)) == nil {
		_, _ = io.Copy(io.Discard, c.nc) // until the client is gone or the time is over
	}
}

// Header implements http.ResponseWriter.
func (c *conn) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter.
func (c *conn) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
}

// Write implements http.ResponseWriter. What is written goes out at the end, or when it is flushed.
func (c *conn) Write(p []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	c.out = append(c.out, p...)
	return len(p), nil
}

// FlushError is for http.ResponseController. Without a Content-Length all of the body waits for its end.
func (c *conn) FlushError() error { return c.flush(false) }

func (c *conn) flush(end bool) error {
	c.WriteHeader(http.StatusOK)
	if !c.began {
		if c.header["Content-Length"] == nil {
			if !end {
				return nil
			}
			if c.status != http.StatusNoContent && c.status != http.StatusNotModified {
				c.header["Content-Length"] = []string{strconv.Itoa(len(c.out))}
			}
		}
		c.wire, c.began = c.head(c.wire[:0]), true
	}
	c.wire = append(c.wire, c.out...)
	c.sent += len(c.out)
	err := c.send(c.wire, []int{len(c.wire)})
	c.wire, c.out = c.wire[:0], c.out[:0]
	if cap(c.wire)+cap(c.out) > largestDesk {
		c.wire, c.out = nil, nil
	}
	return err
}

// head appends the head of the answer, its fields by name.
func (c *conn) head(dst []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(c.status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(c.status)...)
	dst = append(dst, "\r\n"...)
	if _, own := c.header["Date"]; !own { // a recorded answer has its own
		dst = append(dst, "Date: "...)
		dst = append(dst, c.server.date.now()...)
		dst = append(dst, "\r\n"...)
	}
	c.keys = c.keys[:0]
	for k := range c.header {
		c.keys = append(c.keys, k)
	}
	slices.Sort(c.keys)
	for _, k := range c.keys {
		for _, v := range c.header[k] {
			dst = append(dst, k...)
			dst = append(dst, ": "...)
			if strings.ContainsAny(v, "\r\n") {
				v = oneLine.Replace(v) // or it would be another field
			}
			dst = append(dst, v...)
			dst = append(dst, "\r\n"...)
		}
	}
	return append(dst, "\r\n"...)
}

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

// date is the value of the field Date, made once a second.
type date struct{ last atomic.Pointer[dated] }

type dated struct {
	second int64
	text   string
}

func (d *date) now() string {
	now := time.Now()
	last := d.last.Load()
	if last == nil || last.second != now.Unix() {
		last = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		d.last.Store(last)
	}
	return last.text
}

// write makes a chunk of p (RFC 9112 §7.1), which goes out by itself, but at the same time as others: when they are enough, when the next one is
// to be waited for, or when it is flushed.
func (c *conn) write(p []byte) error {
	c.frame = strconv.AppendUint(c.frame, uint64(len(p)), 16)
	c.frame = append(c.frame, '\r', '\n')
	c.frame = append(c.frame, p...)
	c.frame = append(c.frame, '\r', '\n')
	c.ends = append(c.ends, len(c.frame))
	if len(c.ends) < together && len(c.frame) < largestDesk {
		return nil
	}
	return c.push()
}

// end is the last chunk, without which a client takes the answer for cut off.
func (c *conn) end() error {
	c.frame = append(c.frame, "0\r\n\r\n"...)
	c.ends = append(c.ends, len(c.frame))
	return c.push()
}

// push sends the chunks that were made. The head of the answer waits for the first of them.
func (c *conn) push() error {
	if len(c.ends) == 0 {
		return nil
	}
	p := c.frame
	err := c.send(p, c.ends)
	c.frame, c.ends = p[:0], c.ends[:0]
	return err
}

// largestTry is how much is copied to the system while the scheduler does not know that it may take a while.
const largestTry = 128 << 10

// send sends the parts of p that end there one by one, and notes when the client does not take them.
func (c *conn) send(p []byte, ends []int) error {
	if c.raw == nil {
		c.raw = rawOf(c.nc)
	}
	if len(p) <= largestTry {
		p = p[sendEach(c.raw, p, ends):]
	}
	if len(p) == 0 {
		return nil
	}
	// There is no room for it, or something is wrong with the connection.
	var err error
	for began := time.Now(); ; {
		if err = c.nc.SetWriteDeadline(time.Now().Add(unreadAfter)); err != nil {
			return err
		}
		var n int
		n, err = c.nc.Write(p)
		p = p[n:]
		waited := time.Since(began)
		if !errors.Is(err, os.ErrDeadlineExceeded) || waited > cutAfter {
			break
		}
		if c.unread != nil {
			c.unread(waited)
		}
	}
	if err != nil {
		return err
	}
	return c.nc.SetWriteDeadline(time.Time{})
}

// A short wait only sleeps, for a third of the price of reading meanwhile: at its end it is soon enough to find that the client has left, for
// the next write tells. The last of every other wait is like one, to end on time.
const (
	short    = time.Second
	lastPart = 5 * time.Millisecond
)

// wait reads until then, and is false when the client left: one goroutine is enough for both.
func (c *conn) wait(until time.Time) bool {
	if c.push() != nil {
		return false
	}
	for time.Until(until) >= short {
		if len(c.early) > 0 || c.desk != nil && c.from < c.to { // it has sent more, and cannot be watched any longer
			break
		}
		c.readUntil = until.Add(-lastPart)
		if c.nc.SetReadDeadline(c.readUntil) != nil {
			return false
		}
		var p [1]byte
		n, err := c.nc.Read(p[:])
		c.early = append(c.early, p[:n]...)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	return c.server.sleep(c.server.stop, until)
}

// sleep waits until then, and is false when ctx ends first.
func (s *Server) sleep(ctx context.Context, until time.Time) bool {
	if d := time.Until(until); d >= short {
		timer := time.NewTimer(d - lastPart)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	s.wheel.sleep(time.Until(until))
	return ctx.Err() == nil
}
