package serve

import (
	"cmp"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// answer carries out one exchange.
type answer struct {
	server *Server
	w      http.ResponseWriter
	r      *http.Request
	c      *conn // that w is; nil for net/http's
	x      *llmmock.Exchange
	format provider.Format
	// status as sent, tokens of the answer that were sent so far.
	status, tokens int
	retryAfter     time.Duration
}

// due is the moment at which something is to be written that is due after d.
func (a *answer) due(d time.Duration) time.Time { return a.x.At.Add(d) }

// sleep waits until then, and is false when the client left or the server stops first.
func (a *answer) sleep(until time.Time) bool {
	if a.c != nil {
		return a.c.wait(until)
	}
	return a.server.sleep(a.r.Context(), until)
}

// begins is called before the header goes out, and ends before the client can see the end, once for every exchange.
func (a *answer) begins(status int) {
	a.status = status
	a.server.config.Observe(llmmock.Event{Kind: llmmock.Answered, At: time.Now(), Exchange: a.x, Status: status, RetryAfter: a.retryAfter})
}

func (a *answer) ends(end llmmock.End) {
	a.server.config.Decider.Done(a.x)
	a.server.config.Observe(llmmock.Event{Kind: llmmock.Ended, At: time.Now(), Exchange: a.x, Status: a.status, RetryAfter: a.retryAfter, Tokens: a.tokens, End: end})
}

// inline takes away what only a client at the other end of a connection can have.
func (a *answer) inline() {
	a.x.Schedule, a.x.Stream = llmmock.Schedule{}, false
	if k := a.x.Fault.Kind; k != llmmock.FailStatus && k != llmmock.FailInBody {
		a.x.Fault = llmmock.Fault{}
	}
}

// run returns before the exchange has ended when a stream took the connection.
func (a *answer) run() {
	x, f := a.x, &a.x.Fault
	if f.Kind == llmmock.SlowAccept && !a.sleep(a.due(f.Wait)) {
		a.ends(llmmock.Left)
		return
	}
	switch {
	case f.Kind == llmmock.ResetBefore, f.Kind == llmmock.ResetInHeaders, f.Kind == llmmock.ResetAfterHeader:
		if !a.sleep(a.due(x.Schedule.First)) {
			a.ends(llmmock.Left)
			return
		}
		a.resetEarly(f.Kind)
	case x.Failure != nil:
		a.fail(x.Failure, 0)
	case f.Kind == llmmock.FailStatus:
		a.fail(&f.Failure, 0)
	case f.Kind == llmmock.FailInBody:
		a.fail(&f.Failure, http.StatusOK)
	case recorded(x) != nil:
		a.play(recorded(x))
	case x.Stream:
		a.stream()
	default:
		a.whole()
	}
}

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

func (a *answer) fail(f *llmmock.Failure, instead int) {
	if !a.sleep(a.due(a.x.Schedule.First)) {
		a.ends(llmmock.Left)
		return
	}
	status, contentType, body := a.format.Failure(nil, f, a.x)
	a.retryAfter = f.RetryAfter
	a.write(cmp.Or(instead, status), contentType, body)
}

// whole is an answer in one piece, when all of it is due.
func (a *answer) whole() {
	tokens, until := 0, a.x.At
	if a.x.Answer != nil {
		tokens = a.x.Answer.Pieces()
	}
	if !a.x.Background {
		until = a.due(a.x.Schedule.Whole(tokens))
	}
	timed := time.Until(until) > 0
	if !a.sleep(until) {
		a.ends(llmmock.Left)
		return
	}
	if timed {
		a.server.config.Late(time.Since(until))
	}
	buffer := scratch.Get().(*[]byte)
	status, contentType, body := a.format.Whole((*buffer)[:0], a.x)
	a.tokens = tokens
	a.write(status, contentType, body)
	if cap(body) <= largestKept {
		*buffer = body[:0]
		scratch.Put(buffer)
	}
}

// write sends a body with its length, or spoils it.
func (a *answer) write(status int, contentType string, body []byte) {
	h := a.w.Header()
	a.format.Header(h, a.x)
	f := &a.x.Fault
	if f.Kind == llmmock.WrongType {
		contentType = cmp.Or(f.Value, "text/html")
	}
	if contentType != "" {
		h["Content-Type"] = []string{contentType}
	}
	a.begins(status)
	switch f.Kind {
	case llmmock.WrongLength, llmmock.Cut, llmmock.CutMidEvent, llmmock.ResetMidStream, llmmock.SlowBody, llmmock.Stall, llmmock.Malformed:
		if len(body) > 0 {
			a.spoil(body)
			return
		}
	}
	a.ends(llmmock.Complete)
	if status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	a.w.WriteHeader(status)
	_, _ = a.w.Write(body)
}

// spoil sends a body that is not streamed, with what the faults of streams mean for it.
func (a *answer) spoil(body []byte) {
	f, h := &a.x.Fault, a.w.Header()
	control := http.NewResponseController(a.w)
	write := func(p []byte) bool {
		_, err := a.w.Write(p)
		return err == nil && control.Flush() == nil
	}
	begin := func(length int) {
		h["Content-Length"] = []string{strconv.Itoa(length)}
		a.w.WriteHeader(a.status)
	}
	half := len(body) / 2
	switch f.Kind {
	case llmmock.Malformed:
		// The last byte closes the outermost object.
		a.ends(llmmock.Complete)
		begin(len(body) - 1)
		write(body[:len(body)-1])
	case llmmock.Stall:
		begin(len(body))
		if !write(body[:half]) || !a.sleep(time.Now().Add(f.Wait)) {
			a.ends(llmmock.Left)
			return
		}
		a.ends(llmmock.Complete)
		write(body[half:])
	case llmmock.SlowBody:
		begin(len(body))
		for i := range body {
			if i == len(body)-1 {
				a.ends(llmmock.Complete)
			}
			if !write(body[i : i+1]) {
				if i < len(body)-1 {
					a.ends(llmmock.Left)
				}
				return
			}
			if i < len(body)-1 && !a.sleep(time.Now().Add(f.Wait)) {
				a.ends(llmmock.Left)
				return
			}
		}
	default:
		a.ends(llmmock.Truncated)
		length, sent := len(body), half
		if f.Kind == llmmock.WrongLength {
			length, sent = len(body)+64, len(body)
			if n, err := strconv.Atoi(f.Value); err == nil && n > 0 {
				length, sent = n, min(n, sent)
			}
		}
		begin(length)
		write(body[:sent])
		if f.Kind == llmmock.ResetMidStream {
			a.reset()
		}
		panic(http.ErrAbortHandler) // which net/http takes for the wish to end the connection here
	}
}

// resetEarly ends the connection before there is a body.
func (a *answer) resetEarly(kind llmmock.FaultKind) {
	if kind == llmmock.ResetAfterHeader {
		a.begins(http.StatusOK)
	}
	a.ends(llmmock.Truncated)
	conn := a.connection()
	switch {
	case kind == llmmock.ResetBefore:
	case conn == nil: // HTTP/2 has no connection for one request, but its stream is reset
		if kind == llmmock.ResetAfterHeader {
			a.w.Header().Set("Content-Type", "application/json")
			a.w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(a.w).Flush()
		}
	case kind == llmmock.ResetInHeaders:
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Ty"))
	case kind == llmmock.ResetAfterHeader:
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"))
	}
	if conn != nil {
		reset(conn)
	}
	panic(http.ErrAbortHandler)
}

// connection is the one that the request came on, for whoever ends it; nil where it is not the request's alone.
func (a *answer) connection() net.Conn {
	if a.c != nil {
		return a.c.nc
	}
	conn, _, err := http.NewResponseController(a.w).Hijack()
	if err != nil {
		return nil
	}
	return conn
}

// reset cuts the connection off where there is one. The handler must end with http.ErrAbortHandler then.
func (a *answer) reset() {
	if conn := a.connection(); conn != nil {
		reset(conn)
	}
}
