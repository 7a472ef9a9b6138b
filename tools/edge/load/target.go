package load

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// tick is the shortest time between two rounds of sending. It makes a request late by as much, which its latency contains, and
	// saves what costs most at these rates: being woken up for each request alone.
	tick = time.Millisecond
	// sweepEvery is how often late requests are looked for; a timeout is late by this much at most.
	sweepEvery = 50 * time.Millisecond
)

// sweeper is a connection, for timeouts and the stop.
type sweeper interface {
	sweep(now time.Duration)
	close(why *abort)
}

// target sends one target's traffic.
type target struct {
	run   *Run
	cfg   Target
	tally *tally
	// These belong to the goroutine that dispatches.
	schedule *schedule
	next     time.Duration
	rng      *rand.Rand
	lag      Histogram
	swept    []sweeper // of sweep, to save the allocation

	// requests are written as they are.
	keptRequest, newRequest, streamRequest []byte
	h2Request, h2StreamRequest             []byte // header blocks

	pending atomic.Int64 // calls that are not accounted for, streams apart
	streams atomic.Int64 // streams that have an answer and did not end

	mu      sync.Mutex
	all     map[sweeper]struct{}
	pool    int     // kept connections, dialling ones included
	idle    []*conn // the longest at rest first
	waiting []call  // for a kept connection, oldest first; bounded by MaxInFlight

	h2 h2pool
}

func newTarget(r *Run, cfg Target, seed uint64) *target {
	if cfg.URL == "" {
		cfg.URL = "http://" + cfg.Address + "/"
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		panic("load: Validate let a URL pass that cannot be parsed: " + err.Error())
	}
	t := &target{run: r, cfg: cfg, tally: newTally(), rng: rand.New(rand.NewPCG(seed, 0x7a26)), all: map[sweeper]struct{}{},
		schedule: newSchedule(r.cfg.Rate, r.cfg.Arrivals, seed)}
	t.next = t.schedule.next()
	request := func(path, extra string) []byte {
		return []byte("GET " + path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: edge-load\r\n" + extra + "\r\n")
	}
	t.keptRequest = request(u.RequestURI(), "")
	t.newRequest = request(u.RequestURI(), "Connection: close\r\n")
	t.streamRequest = request(r.cfg.StreamPath, "")
	t.h2Request = headerBlock(u.Host, u.RequestURI())
	t.h2StreamRequest = headerBlock(u.Host, r.cfg.StreamPath)
	return t
}

// due sends what is to be sent by now and returns when the next one is.
func (t *target) due(now time.Duration) time.Duration {
	for ; t.next <= now; t.next = t.schedule.next() {
		t.lag.record(now - t.next)
		t.dispatch(t.next)
	}
	return t.next
}

// dispatch sends one request over the kind of connection that the seed draws for it. It does not wait.
func (t *target) dispatch(at time.Duration) {
	k := call{kind: KindKept, intended: at}
	if u := t.rng.Float64(); u < t.run.cfg.NewConnShare {
		k.kind = KindNew
	} else if u < t.run.cfg.NewConnShare+t.run.cfg.H2Share {
		k.kind = KindH2
	}
	if t.pending.Add(1) > int64(t.run.cfg.MaxInFlight) {
		t.fail(&k, &answer{}, Overload, "more requests in flight than the generator may have")
		return
	}
	switch k.kind {
	case KindNew:
		t.run.spawn(func() { t.once(k) })
	case KindH2:
		t.sendH2(k)
	default:
		t.sendKept(k)
	}
}

// sendKept writes over the connection that rested longest, or else opens one, or else waits for one.
func (t *target) sendKept(k call) {
	for {
		t.mu.Lock()
		if len(t.idle) == 0 {
			if t.pool >= t.run.cfg.Pool {
				t.waiting = append(t.waiting, k)
				t.mu.Unlock()
				return
			}
			t.pool++
			t.mu.Unlock()
			t.run.spawn(func() { t.keep(k) })
			return
		}
		c := t.idle[0]
		t.idle = slices.Delete(t.idle, 0, 1)
		t.mu.Unlock()
		if c.send(k, t.keptRequest) {
			return
		}
	}
}

// keep is the life of a connection of the pool.
func (t *target) keep(k call) {
	c := t.open(&k)
	if c == nil {
		t.leavePool()
		return
	}
	c.send(k, t.keptRequest)
	c.read(func() bool { return t.rest(c) })
	t.leavePool()
}

// rest gives a connection that has answered its next request, if one waits, and else puts it into the pool. The reader goes on
// in both cases.
func (t *target) rest(c *conn) bool {
	t.mu.Lock()
	if len(t.waiting) == 0 {
		t.idle = append(t.idle, c)
		t.mu.Unlock()
		return true
	}
	k := t.waiting[0]
	t.waiting = slices.Delete(t.waiting, 0, 1)
	t.mu.Unlock()
	if !c.send(k, t.keptRequest) {
		t.sendKept(k)
	}
	return true
}

// leavePool makes room for another connection, and opens it if a request waits for one.
func (t *target) leavePool() {
	t.mu.Lock()
	t.pool--
	if len(t.waiting) == 0 || t.pool >= t.run.cfg.Pool {
		t.mu.Unlock()
		return
	}
	k := t.waiting[0]
	t.waiting = slices.Delete(t.waiting, 0, 1)
	t.mu.Unlock()
	t.sendKept(k)
}

// once is the life of a connection for one request.
func (t *target) once(k call) {
	if c := t.open(&k); c != nil {
		c.send(k, t.newRequest)
		c.read(nil)
	}
}

// open dials, and accounts for the call when it cannot.
func (t *target) open(k *call) *conn {
	nc, ok := t.dial(k, k.intended+t.run.cfg.Timeout)
	if !ok {
		return nil
	}
	c := newConn(t, nc)
	t.remember(c, c.opened)
	return c
}

func (t *target) dial(k *call, deadline time.Duration) (net.Conn, bool) {
	d := net.Dialer{Deadline: t.run.start.Add(deadline), KeepAlive: -1}
	nc, err := d.DialContext(t.run.life, "tcp", t.cfg.Address)
	if err != nil {
		if t.run.life.Err() == nil { // else it is a stream, and the run is over
			reason, detail := reasonOf(err)
			t.fail(k, &answer{}, reason, detail)
		}
		return nil, false
	}
	return nc, true
}

func (t *target) remember(c sweeper, opened time.Duration) {
	t.mu.Lock()
	t.all[c] = struct{}{}
	t.mu.Unlock()
	if t.run.life.Err() != nil {
		c.close(stopped) // closeAll may have come before
	}
	t.tally.mu.Lock()
	t.tally.conns++
	t.tally.opened = max(t.tally.opened, opened)
	t.tally.mu.Unlock()
}

func (t *target) forget(c sweeper) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, c)
	if h1, ok := c.(*conn); ok {
		if i := slices.Index(t.idle, h1); i >= 0 {
			t.idle = slices.Delete(t.idle, i, i+1)
		}
	}
}

func (t *target) closedAtRest() {
	t.tally.mu.Lock()
	t.tally.atRest++
	t.tally.mu.Unlock()
}

// sweep ends what is late.
func (t *target) sweep(now time.Duration) {
	t.mu.Lock()
	t.swept = t.swept[:0]
	for c := range t.all {
		t.swept = append(t.swept, c)
	}
	late := 0
	for late < len(t.waiting) && now-t.waiting[late].intended > t.run.cfg.Timeout {
		late++
	}
	expired := slices.Clone(t.waiting[:late])
	t.waiting = slices.Delete(t.waiting, 0, late)
	t.mu.Unlock()
	for i := range expired {
		t.fail(&expired[i], &answer{}, Timeout, "all kept connections were busy for "+t.run.cfg.Timeout.String())
	}
	for _, c := range t.swept {
		c.sweep(now)
	}
	clear(t.swept)
}

// closeAll ends every connection, at the end of the run.
func (t *target) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.all {
		c.close(stopped)
	}
}

// account closes the account of an answered request.
func (t *target) account(k *call, a *answer, now time.Duration) {
	switch {
	case a.fault || a.status >= 200 && a.status <= 299:
		t.tally.done(k, a, now)
		t.settle(k, now)
	case a.status >= 500:
		t.failAt(k, a, Status5xx, "", now)
	default:
		t.failAt(k, a, StatusOther, "", now)
	}
}

func (t *target) fail(k *call, a *answer, reason Reason, detail string) {
	t.failAt(k, a, reason, detail, t.run.now())
}

func (t *target) failAt(k *call, a *answer, reason Reason, detail string, now time.Duration) {
	t.tally.fail(k, reason, now)
	t.run.keepFailure(t, k, a, reason, detail, now)
	if reason == Overload {
		now = k.intended // it was never sent: no latency of the target's
	}
	t.settle(k, now)
}

func (t *target) settle(k *call, now time.Duration) {
	if k.kind.isStream() {
		return
	}
	if now > k.intended {
		t.run.latencies.record(k.intended, now-k.intended)
	}
	t.pending.Add(-1)
}

// stream keeps one long stream open until ctx ends.
func (t *target) stream(ctx context.Context, kind Kind) {
	const first, last = 50 * time.Millisecond, time.Second
	back := first
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for ctx.Err() == nil {
		k := call{kind: kind, intended: t.run.now()}
		ended := false
		if kind == KindH2Stream {
			ended = t.streamH2(&k)
		} else if c := t.open(&k); c != nil {
			c.send(k, t.streamRequest)
			c.read(nil)
			ended = c.endedWell
		}
		if ended {
			back = first
			continue // a client that was told to come back does so at once
		}
		timer.Reset(back)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		back = min(2*back, last)
	}
}

func (t *target) streamOpened(k *call, a *answer) {
	t.streams.Add(1)
	t.tally.begun(k, a, t.run.now())
}

// streamEnded closes the account of a stream whose answer had begun, and says whether it ended well. err is how its body ended,
// why is set if this side ended it.
func (t *target) streamEnded(k *call, a *answer, end *tail, why *abort, err error) bool {
	t.streams.Add(-1)
	now := t.run.now()
	switch {
	case why == stopped:
		t.tally.done(k, a, now)
		t.tally.stream(func(s *Streams) { s.OpenAtStop++ })
	case why != nil && why.reason == Timeout:
		t.failAt(k, a, why.reason, why.detail, now)
	case why != nil:
		t.failAt(k, a, CutShort, why.detail, now)
	case err != nil:
		_, detail := reasonOf(notEOF(err))
		t.failAt(k, a, CutShort, detail, now)
	case a.fault || a.status < 200 || a.status > 299:
		t.account(k, a, now) // a whole answer, but no stream
	case !end.ended():
		t.failAt(k, a, CutShort, "the stream ended without its last line", now)
	default:
		t.tally.done(k, a, now)
		t.tally.stream(func(s *Streams) { s.Ended++ })
		return true
	}
	return false
}

// reasonOf classifies what reading, writing or dialling returned.
func reasonOf(err error) (Reason, string) {
	switch {
	case err == nil:
		return Other, ""
	case errors.Is(err, io.EOF):
		return EOF, "closed before the answer began"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return CutShort, "closed in the middle of the answer"
	case errors.Is(err, errMalformed):
		return Malformed, err.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused, err.Error()
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset, err.Error()
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return Unreachable, err.Error()
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS):
		return Overload, err.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout, err.Error()
	}
	return Other, err.Error()
}
