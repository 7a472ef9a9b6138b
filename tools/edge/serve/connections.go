package serve

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connections counts what the traffic's listener accepted. The counts are exact: net/http reports every connection's first and
// last state, HTTP/2 included. A connection that the kernel holds in its backlog is not accepted yet.
type connections struct {
	mu       sync.Mutex
	open     map[net.Conn]struct{} // bounded by the process's file descriptors
	accepted int64
	last     time.Time
	none     chan struct{} // closed when open becomes empty; nil while nobody waits
}

func (c *connections) observe(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.mu.Lock()
		c.open[conn] = struct{}{}
		c.accepted++
		c.last = time.Now()
		c.mu.Unlock()
	case http.StateClosed, http.StateHijacked:
		c.mu.Lock()
		delete(c.open, conn)
		if len(c.open) == 0 && c.none != nil {
			close(c.none)
			c.none = nil
		}
		c.mu.Unlock()
	}
}

func (c *connections) counts() (open int, accepted int64, last time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open), c.accepted, c.last
}

// empty is closed once no connection is open; more may come afterwards.
func (c *connections) empty() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if c.none == nil {
		c.none = make(chan struct{})
	}
	return c.none
}

// reset closes every open connection with a TCP reset, so that the client knows at once and this end keeps no TIME_WAIT.
func (c *connections) reset() int {
	c.mu.Lock()
	conns := make([]net.Conn, 0, len(c.open))
	for conn := range c.open {
		conns = append(conns, conn)
	}
	c.mu.Unlock()
	for _, conn := range conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // fails only on a connection that is closed already
		}
		_ = conn.Close()
	}
	return len(conns)
}

// drain is whether the server lets its connections go, as a flag for every request and a channel for the streams.
type drain struct {
	on    atomic.Bool
	mu    sync.Mutex
	begun chan struct{} // closed while draining
}

func (d *drain) set(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on.CompareAndSwap(!on, on) {
		return
	}
	if on {
		close(d.begun)
	} else {
		d.begun = make(chan struct{})
	}
}

// channel returns one that is closed when the drain begins, or is already.
func (d *drain) channel() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun
}
