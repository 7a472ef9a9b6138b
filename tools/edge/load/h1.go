package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Limits of an answer's head. Ours are a few hundred bytes.
const (
	readBuffer = 4 << 10
	maxHead    = 64 << 10
)

// errMalformed is wrapped by every error about bytes that are not HTTP/1.1.
var errMalformed = errors.New("not an HTTP/1.1 answer")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// head is the part of an HTTP/1.1 answer before its body (RFC 9112 §4 and §6), as far as this client needs it.
type head struct {
	answer
	// length of the body; -1 is until the connection closes, unless it is chunked.
	length  int64
	chunked bool
	// close says that the connection carries no further request.
	close bool
	// keepAlive is how long the server promises to keep a resting connection; 0 is no promise.
	keepAlive time.Duration
}

// names holds one string for each version and colour seen, so that an answer allocates nothing.
type names struct{ known []string }

func (n *names) of(b []byte) string {
	for _, s := range n.known {
		if s == string(b) {
			return s
		}
	}
	s := string(b[:min(len(b), 63)])
	if len(n.known) < maxVersions+maxColours {
		n.known = append(n.known, s)
	}
	return s
}

// readHead reads one final answer's head; informational ones before it are skipped (RFC 9110 §15.2). It returns io.EOF when the
// connection ended before the first byte and io.ErrUnexpectedEOF when it ended later.
func readHead(r *bufio.Reader, n *names) (head, error) {
	for budget := maxHead; ; {
		h, err := readOneHead(r, n, &budget)
		if err != nil || h.status >= 200 {
			return h, err
		}
		if h.status == 101 {
			return h, malformed("the server switched protocols unasked")
		}
	}
}

func readOneHead(r *bufio.Reader, n *names, budget *int) (head, error) {
	h := head{length: -1}
	line, err := readLine(r, budget)
	if err != nil {
		return h, err
	}
	// "HTTP/1.1 200 OK", where the phrase may be empty and its space missing.
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return h, malformed("status line %.40q", line)
	}
	switch line[7] {
	case '0':
		h.close = true
	case '1':
	default:
		return h, malformed("version in %.40q", line)
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return h, malformed("status in %.40q", line)
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 || h.status > 599 {
		return h, malformed("status %d", h.status)
	}
	for {
		line, err = readLine(r, budget)
		if err != nil {
			return h, notEOF(err)
		}
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isFieldName(line[:colon]) {
			return h, malformed("header line %.40q", line)
		}
		if err := h.field(line[:colon], trim(line[colon+1:]), n); err != nil {
			return h, err
		}
	}
	if h.chunked && h.length >= 0 {
		return h, malformed("both Content-Length and Transfer-Encoding")
	}
	if h.status < 200 || h.status == 204 || h.status == 304 {
		h.length, h.chunked = 0, false // no body, whatever the header says
	}
	if h.length < 0 && !h.chunked {
		h.close = true
	}
	return h, nil
}

// field takes what one header line says. The switch on the length keeps the comparison to the few that can match.
func (h *head) field(name, value []byte, n *names) error {
	switch len(name) {
	case 10:
		switch {
		case is(name, "connection"):
			for token := range bytes.SplitSeq(value, []byte{','}) {
				if is(trim(token), "close") {
					h.close = true
				}
			}
		case is(name, "keep-alive"):
			for token := range bytes.SplitSeq(value, []byte{','}) {
				if token = trim(token); len(token) > 8 && is(token[:8], "timeout=") {
					if s, err := strconv.Atoi(string(token[8:])); err == nil && s > 0 && s < 1<<20 {
						h.keepAlive = time.Duration(s) * time.Second
					}
				}
			}
		case is(name, "edge-fault"):
			h.fault = len(value) > 0
		}
	case 11:
		if is(name, "edge-colour") {
			h.colour = n.of(value)
		}
	case 12:
		if is(name, "edge-version") {
			h.version = n.of(value)
		}
	case 14:
		if is(name, "content-length") {
			length, err := digits(value, 10, 18)
			if err != nil || h.length >= 0 && h.length != length {
				return malformed("Content-Length %.40q", value)
			}
			h.length = length
		}
	case 17:
		if is(name, "transfer-encoding") {
			if h.chunked || !is(value, "chunked") {
				return malformed("Transfer-Encoding %.40q", value)
			}
			h.chunked = true
		}
	}
	return nil
}

// readBody reads the body that h announces and gives it to sink in pieces, which it must not keep. It returns
// io.ErrUnexpectedEOF when the connection ended first.
func readBody(r *bufio.Reader, h *head, sink func([]byte)) error {
	switch {
	case h.chunked:
		return readChunks(r, sink)
	case h.length >= 0:
		return readN(r, h.length, sink)
	}
	for {
		_, err := r.Peek(1)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		piece, _ := r.Peek(r.Buffered())
		sink(piece)
		_, _ = r.Discard(len(piece))
	}
}

func readN(r *bufio.Reader, n int64, sink func([]byte)) error {
	for n > 0 {
		if _, err := r.Peek(1); err != nil {
			return notEOF(err)
		}
		piece, _ := r.Peek(int(min(int64(r.Buffered()), n)))
		sink(piece)
		n -= int64(len(piece))
		_, _ = r.Discard(len(piece))
	}
	return nil
}

// readChunks reads a chunked body and its trailer (RFC 9112 §7.1).
func readChunks(r *bufio.Reader, sink func([]byte)) error {
	for {
		budget := readBuffer
		line, err := readLine(r, &budget)
		if err != nil {
			return notEOF(err)
		}
		if i := bytes.IndexByte(line, ';'); i >= 0 {
			line = line[:i]
		}
		size, err := digits(trim(line), 16, 15)
		if err != nil {
			return malformed("chunk size %.40q", line)
		}
		if size == 0 {
			break
		}
		if err := readN(r, size, sink); err != nil {
			return err
		}
		line, err = readLine(r, &budget)
		if err != nil {
			return notEOF(err)
		}
		if len(line) != 0 {
			return malformed("a chunk is longer than its size")
		}
	}
	for budget := maxHead; ; {
		line, err := readLine(r, &budget)
		if err != nil {
			return notEOF(err)
		}
		if len(line) == 0 {
			return nil
		}
	}
}

// readLine returns a line without its end, valid until the next read. budget is what the lines may still take together.
func readLine(r *bufio.Reader, budget *int) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	*budget -= len(line)
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || *budget < 0:
		return nil, malformed("a line or a head is longer than allowed")
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// digits reads a number that is nothing but digits, at most max of them; base is 10 or 16.
func digits(b []byte, base int64, max int) (int64, error) {
	if len(b) == 0 || len(b) > max {
		return 0, errMalformed
	}
	var n int64
	for _, c := range b {
		d := int64(99)
		switch {
		case '0' <= c && c <= '9':
			d = int64(c - '0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			d = int64(c|0x20-'a') + 10
		}
		if d >= base {
			return 0, errMalformed
		}
		n = n*base + d
	}
	return n, nil
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func trim(b []byte) []byte { return bytes.Trim(b, " \t") }

// is compares without regard to case; lower is in lower case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(lower) {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func isFieldName(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return true
}
