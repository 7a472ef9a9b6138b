package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What this client announces (RFC 9113 §6.5.2): it never wants to hold a server up, so the windows are as large as they can be.
const (
	maxWindow     = 1<<31 - 1
	initialWindow = 1<<16 - 1 // of the connection, by the protocol
	maxFrame      = 1 << 14   // by the protocol, as nothing else is announced
	// maxResent is how often a stream that nobody processed is sent again.
	maxResent = 2
	// lastStreamID leaves room below 2^31; a connection is retired long before.
	lastStreamID = 1 << 30
)

// headerBlock is a GET's, encoded without the dynamic table, so that it is the same bytes for every request.
func headerBlock(authority, path string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: authority, Sensitive: true}, {Name: ":path", Value: path, Sensitive: path != "/"},
		{Name: "user-agent", Value: "edge-load", Sensitive: true},
	} {
		if err := e.WriteField(f); err != nil {
			panic("load: a bytes.Buffer refused to be written: " + err.Error())
		}
	}
	return b.Bytes()
}

// h2pool is the one connection per target that takes HTTP/2 requests, and those that wait for it to be opened.
type h2pool struct {
	mu      sync.Mutex
	conn    *h2conn
	dialing bool
	waiting []call // bounded by MaxInFlight
}

// h2conn is one HTTP/2 connection, by prior knowledge (RFC 9113 §3.3).
type h2conn struct {
	t      *target
	nc     net.Conn
	opened time.Duration

	mu      sync.Mutex // guards the framer's writing side and all below
	framer  *http2.Framer
	streams map[uint32]*h2stream
	next    uint32
	limit   int // of concurrent streams
	served  int64
	// retired connections take no more streams and are closed when the last one ends.
	retired bool
	aborted *abort
}

type h2stream struct {
	call   call
	answer answer
	begun  bool // the answer
	tail   tail
	heard  time.Duration
	// ended is told whether a long stream ended well; nil for a request.
	ended chan<- bool
}

// sendH2 writes over the target's HTTP/2 connection, or waits for a new one.
func (t *target) sendH2(k call) {
	p := &t.h2
	p.mu.Lock()
	if p.conn != nil && !p.dialing {
		if p.conn.send(k, t.h2Request, nil) {
			p.mu.Unlock()
			return
		}
		p.conn = nil
	}
	p.waiting = append(p.waiting, k)
	start := !p.dialing
	p.dialing = true
	p.mu.Unlock()
	if start {
		t.run.spawn(t.serveH2)
	}
}

// serveH2 opens the connection, sends what waits and reads until the connection ends.
func (t *target) serveH2() {
	p := &t.h2
	p.mu.Lock()
	first := p.waiting[0] // its account is closed by dial if that fails
	p.mu.Unlock()
	c := t.openH2(&first)
	p.mu.Lock()
	waiting := p.waiting
	p.waiting, p.dialing = nil, false
	if c == nil {
		p.mu.Unlock()
		for i := range waiting[1:] {
			// Each was to be answered by the connection that could not be opened; the reason is the first one's.
			t.sendH2(waiting[1+i])
		}
		return
	}
	p.conn = c
	p.mu.Unlock()
	for _, k := range waiting {
		if !c.send(k, t.h2Request, nil) {
			t.sendH2(k)
		}
	}
	c.read()
}

func (t *target) openH2(k *call) *h2conn {
	nc, ok := t.dial(k, k.intended+t.run.cfg.Timeout)
	if !ok {
		return nil
	}
	c := &h2conn{t: t, nc: nc, opened: t.run.now(), streams: map[uint32]*h2stream{}, next: 1, limit: 100}
	c.framer = http2.NewFramer(nc, bufio.NewReaderSize(nc, readBuffer))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.MaxHeaderListSize = maxHead
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.SetReuseFrames()
	t.remember(c, c.opened)
	c.mu.Lock()
	defer c.mu.Unlock()
	// One write for the whole preface. An error is seen by the reader as well.
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	_ = f.WriteWindowUpdate(0, maxWindow-initialWindow)
	if _, err := nc.Write(b.Bytes()); err != nil {
		c.abortLocked(&abort{reason: Reset, detail: err.Error()})
	}
	return c
}

// send opens a stream. False: this connection takes no more.
func (c *h2conn) send(k call, block []byte, ended chan<- bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired || c.aborted != nil {
		return false
	}
	if len(c.streams) >= c.limit || c.next > lastStreamID {
		c.retireLocked()
		return false
	}
	now := c.t.run.now()
	k.opened, k.served = c.opened, c.served
	if k.sent == 0 {
		k.sent = max(now, 1)
	}
	c.streams[c.next] = &h2stream{call: k, heard: now, ended: ended}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: block, EndStream: true, EndHeaders: true})
	c.next += 2
	if err != nil {
		reason, detail := reasonOf(err)
		c.abortLocked(&abort{reason, detail})
	}
	return true
}

func (c *h2conn) retireLocked() {
	c.retired = true
	if len(c.streams) == 0 {
		c.abortLocked(overdue) // nothing is lost: there is no stream
	}
}

func (c *h2conn) abortLocked(why *abort) {
	if c.aborted == nil {
		c.aborted = why
	}
	_ = c.nc.Close()
}

// close implements sweeper.
func (c *h2conn) close(why *abort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abortLocked(why)
}

// sweep cancels the streams that are late or silent.
func (c *h2conn) sweep(now time.Duration) {
	type late struct {
		s      *h2stream
		detail string
	}
	var all []late
	cfg := &c.t.run.cfg
	c.mu.Lock()
	for id, s := range c.streams {
		var detail string
		switch {
		case s.ended == nil && now-s.call.intended > cfg.Timeout:
			detail = "no whole answer after " + cfg.Timeout.String()
		case s.ended != nil && now-s.heard > cfg.StreamStall:
			detail = "the stream was silent for " + cfg.StreamStall.String()
		default:
			continue
		}
		all = append(all, late{s, detail})
		delete(c.streams, id)
		_ = c.framer.WriteRSTStream(id, http2.ErrCodeCancel) // an error is the reader's to find
	}
	if c.retired && len(c.streams) == 0 {
		c.abortLocked(overdue)
	}
	c.mu.Unlock()
	for _, l := range all {
		c.finish(l.s, &abort{Timeout, l.detail}, nil)
	}
}

// read is the connection's goroutine.
func (c *h2conn) read() {
	defer c.t.forget(c)
	received := uint32(0)
	for {
		f, err := c.framer.ReadFrame()
		if se, ok := errors.AsType[http2.StreamError](err); ok {
			c.drop(se.StreamID, &abort{Malformed, se.Error()})
			continue
		}
		if err == nil {
			err = c.frame(f, &received)
		}
		if err != nil {
			c.ended(err)
			return
		}
	}
}

// frame handles one frame; an error ends the connection. What it writes may fail because the server has closed its side after an
// answer that is still to be read, so errors of writing are left for the next read to find.
func (c *h2conn) frame(f http2.Frame, received *uint32) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if v, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
			c.limit = int(min(v, 1<<20))
		}
		_ = c.framer.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = c.framer.WritePing(true, f.Data)
	case *http2.MetaHeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		return c.data(f, received)
	case *http2.RSTStreamFrame:
		if f.ErrCode == http2.ErrCodeRefusedStream {
			c.resend(func(id uint32, s *h2stream) bool { return id == f.StreamID && !s.begun })
			return nil
		}
		c.drop(f.StreamID, &abort{Reset, "RST_STREAM " + f.ErrCode.String()})
	case *http2.GoAwayFrame:
		c.mu.Lock()
		c.retired = true
		c.mu.Unlock()
		c.resend(func(id uint32, _ *h2stream) bool { return id > f.LastStreamID })
		if f.ErrCode != http2.ErrCodeNo {
			return fmt.Errorf("GOAWAY %v", f.ErrCode)
		}
	}
	return nil
}

// data notes what a long stream says. Streams have a window that no answer of ours exhausts; the connection's is topped up.
func (c *h2conn) data(f *http2.DataFrame, received *uint32) error {
	c.mu.Lock()
	if *received += f.Length; *received >= 1<<20 {
		_ = c.framer.WriteWindowUpdate(0, *received)
		*received = 0
	}
	s := c.streams[f.StreamID] // nil if this side gave it up
	begun := s == nil || s.begun
	if s != nil {
		s.heard = c.t.run.now()
		s.tail.add(f.Data())
	}
	c.mu.Unlock()
	if !begun {
		return fmt.Errorf("%w: a body before its header", errMalformed)
	}
	if f.StreamEnded() {
		c.drop(f.StreamID, nil)
	}
	return nil
}

// headers notes the head of an answer, or the trailer after it.
func (c *h2conn) headers(f *http2.MetaHeadersFrame) error {
	var a answer
	for _, h := range f.Fields {
		switch h.Name {
		case ":status":
			n, err := digits([]byte(h.Value), 10, 3)
			if err != nil || n < 100 || n > 599 {
				return fmt.Errorf("%w: status %.40q", errMalformed, h.Value)
			}
			a.status = int(n)
		case "edge-version":
			a.version = strings.Clone(h.Value[:min(len(h.Value), 63)])
		case "edge-colour":
			a.colour = strings.Clone(h.Value[:min(len(h.Value), 63)])
		case "edge-fault":
			a.fault = h.Value != ""
		}
	}
	c.mu.Lock()
	s := c.streams[f.StreamID]
	begins := s != nil && !s.begun && a.status >= 200 // below are informational ones, before the answer
	if begins {
		s.answer, s.begun, s.heard = a, true, c.t.run.now()
	}
	c.mu.Unlock()
	if begins && s.ended != nil {
		c.t.streamOpened(&s.call, &a)
	}
	if f.StreamEnded() {
		c.drop(f.StreamID, nil)
	}
	return nil
}

// drop takes a stream from the connection and closes its account; why is nil if its answer is whole.
func (c *h2conn) drop(id uint32, why *abort) {
	c.mu.Lock()
	s := c.streams[id]
	delete(c.streams, id)
	if s != nil && why == nil {
		c.served++
	}
	if c.retired && len(c.streams) == 0 {
		c.abortLocked(overdue)
	}
	c.mu.Unlock()
	if s != nil {
		c.finish(s, why, nil)
	}
}

// finish closes a stream's account. err is set when the connection ended under it.
func (c *h2conn) finish(s *h2stream, why *abort, err error) {
	if s.ended != nil && s.begun {
		s.ended <- c.t.streamEnded(&s.call, &s.answer, &s.tail, why, err)
		return
	}
	switch {
	case why == stopped: // only streams are open when a run stops
	case why != nil:
		c.t.fail(&s.call, &s.answer, why.reason, why.detail)
	case err != nil:
		reason, detail := reasonOf(err)
		if s.begun && reason == EOF {
			reason, detail = CutShort, "closed in the middle of the answer"
		}
		c.t.fail(&s.call, &s.answer, reason, detail)
	default:
		c.t.account(&s.call, &s.answer, c.t.run.now())
	}
	if s.ended != nil {
		s.ended <- false
	}
}

// resend sends the streams again that the server has said it does not process.
func (c *h2conn) resend(which func(uint32, *h2stream) bool) {
	var again []*h2stream
	c.mu.Lock()
	for id, s := range c.streams {
		if which(id, s) {
			again = append(again, s)
			delete(c.streams, id)
		}
	}
	if c.retired && len(c.streams) == 0 {
		c.abortLocked(overdue)
	}
	c.mu.Unlock()
	for _, s := range again {
		if s.call.resent++; s.call.resent > maxResent {
			c.finish(s, &abort{GoAway, "sent three times, processed by nobody"}, nil)
			continue
		}
		c.t.tally.mu.Lock()
		c.t.tally.resent++
		c.t.tally.mu.Unlock()
		if s.ended != nil {
			s.ended <- true // its goroutine opens another one at once
			continue
		}
		c.t.sendH2(s.call)
	}
}

// ended closes the accounts of all streams that were left when the connection ended.
func (c *h2conn) ended(err error) {
	_ = c.nc.Close()
	c.mu.Lock()
	left := c.streams
	c.streams = map[uint32]*h2stream{}
	c.retired = true
	why := c.aborted
	if why == nil && len(left) == 0 {
		c.t.closedAtRest()
	}
	c.mu.Unlock()
	if why == overdue {
		why = nil
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF // in the middle of a frame; whether an answer had begun is the stream's to know
	}
	for _, s := range left {
		c.finish(s, why, err)
	}
}

// streamH2 is one long stream over an HTTP/2 connection of its own; true: it ended well.
func (t *target) streamH2(k *call) bool {
	c := t.openH2(k)
	if c == nil {
		return false
	}
	ended := make(chan bool, 1)
	c.send(*k, t.h2StreamRequest, ended)
	c.mu.Lock()
	c.retireLocked() // after this stream it closes
	c.mu.Unlock()
	c.read()
	select {
	case well := <-ended:
		return well
	default:
		return false
	}
}
