package serve

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"edgehold.internal/services/llmmock"
)

const (
	// unreadAfter is how long, at least, a client may leave unread what is there for it before that is noted, and patience how long
	// before the connection is cut.
	unreadAfter = 2 * time.Second
	patience    = 10 * time.Minute
)

// stream sends an answer piece by piece. On HTTP/1.1 it takes the connection from net/http: what is flushed is then one write of
// the operating system's and not a way through three buffers, a waiting stream costs a small goroutine and none of net/http's
// buffers, and the connection can be cut where the fault wants it. It is given back when the stream has ended.
func (a *answer) stream() {
	if a.r.ProtoMajor == 1 && a.r.ProtoMinor == 1 {
		if conn, buffered, err := http.NewResponseController(a.w).Hijack(); err == nil {
			var read []byte
			if n := buffered.Reader.Buffered(); n > 0 {
				read, _ = buffered.Reader.Peek(n)
				read = bytes.Clone(read)
			}
			h, keep := a.w.Header(), !a.r.Close
			a.w, a.r = nil, nil
			a.server.streams.Go(func() { a.raw(conn, read, h, keep) })
			return
		}
	}
	a.header(a.w.Header())
	a.w.WriteHeader(http.StatusOK)
	if end := a.pieces(&framed{w: a.w, control: http.NewResponseController(a.w), ctx: a.r.Context()}); end != complete {
		panic(http.ErrAbortHandler)
	}
}

// header is that of every stream.
func (a *answer) header(h http.Header) {
	a.format.Header(h, a.x)
	contentType := a.format.StreamType()
	if a.x.Fault.Kind == llmmock.WrongType {
		contentType = cmp.Or(a.x.Fault.Value, "text/html")
	}
	h["Content-Type"] = []string{contentType}
	h["Cache-Control"] = []string{"no-cache"}
	a.begins(http.StatusOK)
}

// raw streams on a connection of its own.
func (a *answer) raw(conn net.Conn, read []byte, h http.Header, keep bool) {
	a.header(h)
	c := &chunked{conn: conn, stop: a.server.stop, read: read}
	release := context.AfterFunc(a.server.stop, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer release()
	c.unread = func(waited time.Duration) {
		a.server.config.Observe(llmmock.Event{Kind: llmmock.Unread, At: time.Now(), Exchange: a.x, Waited: waited})
	}
	c.head(h, keep)
	end := a.pieces(c)
	switch {
	case end == resetted:
		reset(conn)
	case end != complete || c.end() != nil || !keep || !release() || conn.SetDeadline(time.Time{}) != nil:
		_ = conn.Close()
	default:
		a.server.listener.giveBack(conn, c.read)
	}
}

// ending is how a stream ended.
type ending int

const (
	complete ending = iota
	gone            // the client is, or the server stops
	cut             // by a fault, cleanly
	resetted        // by a fault
)

var ends = map[ending]llmmock.End{complete: llmmock.Complete, gone: llmmock.Left, cut: llmmock.Truncated, resetted: llmmock.Truncated}

// sink is where a stream goes.
type sink interface {
	// write sends p as one flushed piece.
	write(p []byte) error
	// wait until then; false when the client left.
	wait(until time.Time) bool
}

// pieces sends the chunks, each when its token is due. The last one waits until it is known to be the last, so that the end is
// reported before the client can see it.
func (a *answer) pieces(to sink) ending {
	x := a.x
	s := sender{answer: a, to: to, due: a.due(x.Schedule.First), timed: x.Schedule.First > 0 || len(x.Schedule.Gaps) > 0}
	for c := range a.format.Stream(x) {
		if s.end = s.chunk(c); s.end != complete {
			break
		}
	}
	if s.end == complete && s.held != nil {
		s.end = s.send(s.held)
	}
	a.ends(ends[s.end])
	if len(s.last) > 0 && s.end != gone && s.put(s.last) != nil {
		return gone
	}
	return s.end
}

// sender is a stream on its way.
type sender struct {
	*answer
	to    sink
	due   time.Time
	timed bool
	token int
	// last is a piece that is due and not sent yet; held is one that a fault puts behind the next.
	last, held []byte
	hit        bool // the fault was committed
	end        ending
}

func (s *sender) chunk(c llmmock.Chunk) ending {
	x, f := s.x, &s.x.Fault
	for s.token < c.Token {
		s.token++
		s.due = s.due.Add(x.Schedule.Gap(s.token))
	}
	if s.timed {
		if time.Until(s.due) > 0 {
			// What waits must not wait longer for what comes after it.
			if end := s.send(nil); end != complete {
				return end
			}
			if !s.to.wait(s.due) {
				return gone
			}
		}
		s.server.config.Late(time.Since(s.due))
	}
	s.tokens = s.token + 1
	if s.hit || f.Kind == llmmock.NoFault || c.Token < f.AtToken {
		return s.then(c.Data)
	}
	switch f.Kind {
	case llmmock.Stall:
		s.hit = true
		if end := s.send(nil); end != complete {
			return end
		}
		if !s.to.wait(time.Now().Add(f.Wait)) {
			return gone
		}
		s.due = s.due.Add(f.Wait)
		return s.then(c.Data)
	case llmmock.Cut:
		return cut
	case llmmock.ResetMidStream, llmmock.WrongLength:
		if end := s.send(nil); end != complete {
			return end
		}
		return resetted
	case llmmock.CutMidEvent:
		if end := s.send(c.Data[:len(c.Data)/2]); end != complete {
			return end
		}
		return cut
	case llmmock.Malformed:
		s.hit = true
		return s.then(malformed(c.Data))
	case llmmock.Duplicate:
		s.hit = true
		if end := s.send(c.Data); end != complete {
			return end
		}
		return s.then(c.Data)
	case llmmock.Reorder:
		s.hit = true
		s.held = bytes.Clone(c.Data)
		return complete
	case llmmock.FailMidStream:
		if end := s.send(s.format.FailureChunk(nil, &f.Failure, x)); end != complete {
			return end
		}
		return cut
	}
	return s.then(c.Data)
}

// then sends p, and after it what was held back.
func (s *sender) then(p []byte) ending {
	end := s.send(p)
	if end == complete && s.held != nil {
		p, s.held = s.held, nil
		end = s.send(p)
	}
	return end
}

// send keeps p as the last piece, and sends the one before it.
func (s *sender) send(p []byte) ending {
	if len(s.last) > 0 {
		if s.put(s.last) != nil {
			return gone
		}
	}
	s.last = append(s.last[:0], p...)
	return complete
}

// put writes a piece, or drips it.
func (s *sender) put(p []byte) error {
	if s.x.Fault.Kind != llmmock.SlowBody {
		return s.to.write(p)
	}
	for i := range p {
		if err := s.to.write(p[i : i+1]); err != nil {
			return err
		}
		if !s.to.wait(time.Now().Add(s.x.Fault.Wait)) {
			return net.ErrClosed
		}
	}
	return nil
}

// malformed is an event whose JSON does not parse: its last closing bracket is another.
func malformed(p []byte) []byte {
	i := bytes.LastIndexByte(p, '}')
	if i < 0 {
		return append(bytes.Clone(p), '{')
	}
	p = bytes.Clone(p)
	p[i] = ']'
	return p
}

// framed is a stream of net/http's own: HTTP/2, and HTTP/1.0.
type framed struct {
	w       http.ResponseWriter
	control *http.ResponseController
	ctx     context.Context
}

func (f *framed) write(p []byte) error {
	if _, err := f.w.Write(p); err != nil {
		return err
	}
	return f.control.Flush()
}

func (f *framed) wait(until time.Time) bool { return sleep(f.ctx, until) }

// chunked writes the chunks of HTTP/1.1 (RFC 9112 §7.1) to a connection.
type chunked struct {
	conn net.Conn
	stop context.Context
	out  []byte
	// read is what the client sent meanwhile: the beginning of its next request.
	read []byte
	// unread hears how long the client has not read.
	unread func(time.Duration)
	// until when a write may take; it is set anew once a second and not for each.
	until time.Time
}

// head is sent in front of the first piece, as net/http does.
func (c *chunked) head(h http.Header, keep bool) {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\nDate: ")
	b.WriteString(time.Now().UTC().Format(http.TimeFormat))
	b.WriteString("\r\n")
	_ = h.Write(&b)
	if !keep {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	c.out = b.Bytes()
}

func (c *chunked) write(p []byte) error {
	c.out = strconv.AppendUint(c.out, uint64(len(p)), 16)
	c.out = append(c.out, '\r', '\n')
	c.out = append(c.out, p...)
	c.out = append(c.out, '\r', '\n')
	err := c.flush()
	c.out = c.out[:0]
	return err
}

func (c *chunked) end() error {
	c.out = append(c.out, "0\r\n\r\n"...)
	return c.flush()
}

// flush writes out, and notes when the client does not take it.
func (c *chunked) flush() error {
	if now := time.Now(); c.until.Sub(now) < unreadAfter && c.stop.Err() == nil {
		c.until = now.Add(unreadAfter + time.Second)
		if err := c.conn.SetWriteDeadline(c.until); err != nil {
			return err
		}
	}
	n, err := c.conn.Write(c.out)
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return c.slowly(c.out[n:], err)
}

// slowly goes on with a write that ran into its deadline, and notes for how long the client has not read.
func (c *chunked) slowly(rest []byte, err error) error {
	began := time.Now().Add(-unreadAfter)
	for errors.Is(err, os.ErrDeadlineExceeded) && c.stop.Err() == nil && time.Since(began) < patience {
		c.unread(time.Since(began))
		c.until = time.Now().Add(unreadAfter)
		if err := c.conn.SetWriteDeadline(c.until); err != nil {
			return err
		}
		var n int
		n, err = c.conn.Write(rest)
		rest = rest[n:]
	}
	return err
}

// short is a wait at whose end it is soon enough to find that the client has left: the next write tells.
const short = 250 * time.Millisecond

// wait reads until then: a client that leaves is found at once, and one goroutine is enough for both. A short wait only sleeps, for a
// third of the price.
func (c *chunked) wait(until time.Time) bool {
	if d := time.Until(until); d < short {
		time.Sleep(d)
		return c.stop.Err() == nil
	}
	for time.Now().Before(until) {
		if len(c.read) > 0 { // it has sent more, and cannot be watched any longer
			return sleep(c.stop, until)
		}
		if c.conn.SetReadDeadline(until) != nil || c.stop.Err() != nil {
			return false
		}
		var p [1]byte
		n, err := c.conn.Read(p[:])
		c.read = append(c.read, p[:n]...)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || c.stop.Err() != nil {
			return false
		}
	}
	return true
}
