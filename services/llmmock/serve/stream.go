package serve

import (
	"bytes"
	"cmp"
	"net"
	"net/http"
	"time"

	"edgehold.internal/services/llmmock"
)

const (
	// unreadAfter is how long, at least, a client may leave unread what is there for it before that is noted, and cutAfter how long
	// before the connection is cut.
	unreadAfter = 2 * time.Second
	cutAfter    = 10 * time.Minute
)

// stream sends an answer piece by piece. On a connection that is read here it is left to conn.serve, which goes on with it when all that
// the request needed is given back.
func (a *answer) stream() {
	if a.c != nil {
		a.c.stream = a
		a.w, a.r = nil, nil
		return
	}
	a.header(a.w.Header())
	a.w.WriteHeader(http.StatusOK)
	end := a.pieces(&framed{answer: a, control: http.NewResponseController(a.w)})
	if end == resetted {
		a.reset()
	}
	if end != complete && end != cut {
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

// chunks streams on a connection of its own, and says whether another request may follow.
func (a *answer) chunks(c *conn, keep bool) bool {
	h, rec := c.header, recorded(a.x)
	if rec == nil {
		a.header(h)
	}
	h["Transfer-Encoding"] = chunked
	if !keep {
		h["Connection"] = []string{"close"}
	}
	c.status = a.status
	c.frame = c.head(c.frame[:0]) // which goes out with the first piece, as net/http has it
	c.release()
	if rec != nil && headFirst(rec) {
		c.ends = append(c.ends, len(c.frame))
		if c.push() != nil {
			a.ends(llmmock.Left)
			return false
		}
	}
	c.unread = func(waited time.Duration) {
		a.server.config.Observe(llmmock.Event{Kind: llmmock.Unread, At: time.Now(), Exchange: a.x, Waited: waited})
	}
	end := a.pieces(c)
	var err error
	switch end {
	case complete, cut:
		err = c.end()
	case torn, resetted:
		err = c.push()
	}
	if end == resetted {
		reset(c.nc)
	}
	c.unread, c.frame, c.ends = nil, nil, nil
	return keep && (end == complete || end == cut) && err == nil
}

var chunked = []string{"chunked"}

// ending is how a stream ended.
type ending int

const (
	complete ending = iota
	gone            // the client is, or the server stops
	cut             // by a fault: too early, and to HTTP all the same an end
	torn            // by a fault, without the end that HTTP has
	resetted        // by a fault
)

var ends = map[ending]llmmock.End{complete: llmmock.Complete, gone: llmmock.Left, cut: llmmock.Truncated, torn: llmmock.Truncated, resetted: llmmock.Truncated}

// sink is where a stream goes.
type sink interface {
	// write sends p as one piece, at the latest before the next wait. push sends it now.
	write(p []byte) error
	push() error
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
	if s.end != gone && s.put() != nil {
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
	// last is a piece that is due and not sent yet, and since when; held is one that a fault puts behind the next.
	last, held []byte
	lastDue    time.Time
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
		return torn
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
	if s.put() != nil {
		return gone
	}
	s.last, s.lastDue = append(s.last[:0], p...), s.due
	return complete
}

// put sends the last piece, if there is one, and notes how late it was when it was out.
func (s *sender) put() error {
	if len(s.last) == 0 {
		return nil
	}
	if err := s.drip(s.last); err != nil || !s.timed {
		return err
	}
	err := s.to.push()
	s.server.config.Late(time.Since(s.lastDue))
	return err
}

// drip writes a piece, byte by byte when the fault is that.
func (s *sender) drip(p []byte) error {
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
	*answer
	control *http.ResponseController
}

func (f *framed) write(p []byte) error {
	if _, err := f.w.Write(p); err != nil {
		return err
	}
	return f.control.Flush()
}

func (f *framed) push() error { return nil }

func (f *framed) wait(until time.Time) bool { return f.sleep(until) }
