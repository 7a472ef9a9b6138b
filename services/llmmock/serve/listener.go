package serve

import (
	"errors"
	"net"
	"sync"
	"time"
)

// accept serves the connections of l until it is closed.
func (s *Server) accept(l net.Listener) error {
	const longest = time.Second
	for wait := time.Duration(0); ; {
		nc, err := l.Accept()
		if err == nil {
			c := &conn{nc: nc, server: s}
			if !s.admit(c) {
				_ = nc.Close()
				return net.ErrClosed
			}
			go c.serve()
			wait = 0
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// No descriptors are left, for example: there will be when connections end.
		wait = min(max(2*wait, 5*time.Millisecond), longest)
		s.config.Logger.Warn("a connection could not be accepted", "error", err, "again_in", wait)
		if !s.sleep(s.stop, time.Now().Add(wait)) {
			return err
		}
	}
}

// admit is false once the server stops.
func (s *Server) admit(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.conns[c] = true
	s.open.Add(1)
	return true
}

// forget is for connections that are closed, or not ours any longer.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.open.Done()
}

// shut closes the connections that wait for a request, and those that will, or all of them.
func (s *Server) shut(all bool) {
	s.stopping.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if all || c.state.CompareAndSwap(idle, closed) {
			_ = c.nc.Close()
		}
	}
}

// handover is where net/http accepts the connections that are not read here.
type handover struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// take hands a connection over. It is closed when nobody accepts any longer.
func (h *handover) take(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.closed:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return h.addr }

// resumed is a connection of which something was read before.
type resumed struct {
	net.Conn
	read []byte
}

// CloseWrite is what net/http closes a connection with whose client still sends.
func (r *resumed) CloseWrite() error { return closeWrite(r.Conn) }

// Read implements net.Conn.
func (r *resumed) Read(p []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(p, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}
