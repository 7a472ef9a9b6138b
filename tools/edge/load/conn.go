package load

import (
	"bufio"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"edgehold.internal/tools/edge"
)

// The states of a conn. Only resting → asked may be done by whoever sends, and only with CompareAndSwap, because the reader may
// find at the same time that the server has closed it.
const (
	resting int32 = iota
	asked
	gone
)

// conn is one HTTP/1.1 connection. Its goroutine is always reading, so that it learns of a close while nothing is asked; whoever
// has a request writes it from where it is, which saves a hand-over per request.
type conn struct {
	t      *target
	nc     net.Conn
	raw    syscall.RawConn
	opened time.Duration
	state  atomic.Int32
	// call is the sender's until state is asked and the reader's from then on.
	call   call
	served int64
	// lastUsed and keepAlive are the reader's while asked, and the sender's while resting.
	lastUsed  time.Duration
	keepAlive time.Duration
	// aborted is set before this side closes the connection, and says why.
	aborted atomic.Pointer[abort]
	// heard is when a stream last said something, in nanoseconds since the start.
	heard atomic.Int64
	// deadline is the call's, for the sweeper, who must not touch call; 0 while resting and for streams.
	deadline atomic.Int64
	// endedWell is set by the reader when a stream had its last line.
	endedWell bool
	// closedByPeer is peek's answer.
	closedByPeer bool
	peek         func(fd uintptr)
}

// abort is why this side gave up a connection.
type abort struct {
	reason Reason
	detail string
}

// stopped is the abort of a run that ends; nothing is accounted for it.
var stopped = &abort{reason: Other, detail: "the run was stopped"}

// overdue is the abort of a connection that rested for too long to be used again.
var overdue = &abort{reason: Other, detail: "rested longer than the server promises to keep it"}

func newConn(t *target, nc net.Conn) *conn {
	c := &conn{t: t, nc: nc, opened: t.run.now()}
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn() // fails only on a closed one, which the first read will tell
	}
	c.peek = func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		// Nothing to read is what a resting connection should have; an end, an error or unasked bytes are the end of it.
		c.closedByPeer = n >= 0 && err == nil || err != syscall.EAGAIN && err != syscall.EINTR
	}
	return c
}

// closedWhileResting asks the kernel, because the reader may not have been scheduled since the close arrived.
func (c *conn) closedWhileResting() bool {
	if c.raw == nil {
		return false
	}
	return c.raw.Control(c.peek) != nil || c.closedByPeer
}

// send writes the request and leaves its account to the reader. False: the connection had ended before, and nothing was written.
func (c *conn) send(k call, request []byte) bool {
	now := c.t.run.now()
	if c.served > 0 {
		if c.keepAlive > 0 && now-c.lastUsed > c.keepAlive-min(time.Second, c.keepAlive/2) {
			c.close(overdue)
			return false
		}
		if c.aborted.Load() != nil || c.closedWhileResting() {
			_ = c.nc.Close()
			return false
		}
	}
	k.opened, k.served, k.sent = c.opened, c.served, max(now, 1)
	c.call = k
	if k.kind == KindStream {
		c.heard.Store(int64(now))
	} else {
		c.deadline.Store(int64(k.intended + c.t.run.cfg.Timeout))
	}
	if !c.state.CompareAndSwap(resting, asked) {
		return false
	}
	if _, err := c.nc.Write(request); err != nil {
		reason, detail := reasonOf(err)
		c.close(&abort{reason, detail})
	}
	return true
}

// close gives the connection up; the reader will see it. The first reason stays.
func (c *conn) close(why *abort) {
	c.aborted.CompareAndSwap(nil, why)
	_ = c.nc.Close()
}

// sweep gives up a request that is late, or a stream that is silent.
func (c *conn) sweep(now time.Duration) {
	if c.state.Load() != asked {
		return
	}
	if d := c.deadline.Load(); d > 0 && int64(now) > d {
		c.close(&abort{Timeout, "no whole answer after " + c.t.run.cfg.Timeout.String()})
	}
	if h := c.heard.Load(); h > 0 && int64(now)-h > int64(c.t.run.cfg.StreamStall) {
		c.close(&abort{Timeout, "the stream was silent for " + c.t.run.cfg.StreamStall.String()})
	}
}

// read is the connection's goroutine, until it ends. again is asked after each whole answer whether the connection is kept.
func (c *conn) read(again func() bool) {
	defer c.t.forget(c)
	defer func() { _ = c.nc.Close() }()
	r := bufio.NewReaderSize(c.nc, readBuffer)
	var n names
	for {
		_, err := r.Peek(1)
		var h head
		if err == nil && c.state.Load() != asked {
			err = malformed("bytes that nobody asked for") // a server may say 408 before it closes a resting connection
		}
		if err == nil {
			h, err = readHead(r, &n)
		}
		if err != nil {
			c.ended(&h, err)
			return
		}
		if c.call.kind == KindStream {
			c.readStream(r, &h)
			return
		}
		if err = readBody(r, &h, discard); err != nil {
			c.ended(&h, notEOF(err))
			return
		}
		now := c.t.run.now()
		k := c.call
		c.served++
		c.lastUsed, c.keepAlive = now, h.keepAlive
		c.deadline.Store(0)
		keep := !h.close && k.kind == KindKept
		if keep {
			c.state.Store(resting)
		} else {
			c.state.Store(gone)
		}
		c.t.account(&k, &h.answer, now)
		if !keep || !again() {
			return
		}
	}
}

func discard([]byte) {}

// ended accounts for the end of the connection: a failure if something was asked, and else nothing was lost.
func (c *conn) ended(h *head, err error) {
	if c.state.CompareAndSwap(resting, gone) {
		if c.aborted.Load() == nil {
			c.t.closedAtRest()
		}
		return
	}
	k := c.call
	reason, detail := reasonOf(err)
	if why := c.aborted.Load(); why == stopped {
		return
	} else if why != nil {
		reason, detail = why.reason, why.detail
	}
	c.t.fail(&k, &h.answer, reason, detail)
}

func (c *conn) readStream(r *bufio.Reader, h *head) {
	k := c.call
	c.heard.Store(int64(c.t.run.now()))
	c.t.streamOpened(&k, &h.answer)
	var tail tail
	err := readBody(r, h, func(b []byte) {
		c.heard.Store(int64(c.t.run.now()))
		tail.add(b)
	})
	c.endedWell = c.t.streamEnded(&k, &h.answer, &tail, c.aborted.Load(), err)
}

// tail keeps the end of a stream, which says whether the server ended it on purpose.
type tail struct {
	end  [len(edge.EndOfStream)]byte
	size int
}

func (t *tail) add(b []byte) {
	if len(b) >= len(t.end) {
		t.size = copy(t.end[:], b[len(b)-len(t.end):])
		return
	}
	keep := min(t.size, len(t.end)-len(b))
	copy(t.end[:], t.end[t.size-keep:t.size])
	t.size = keep + copy(t.end[keep:], b)
}

func (t *tail) ended() bool { return t.size == len(t.end) && string(t.end[:]) == edge.EndOfStream }
