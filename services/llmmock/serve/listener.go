package serve

import (
	"net"
	"net/http"
	"sync"
)

// listener accepts connections twice: when a client opens them, and when a stream that had taken its connection away from
// net/http has ended and the client may ask for more on it.
type listener struct {
	net.Listener
	accepted chan accepted
	closed   chan struct{}
	once     sync.Once

	mu sync.Mutex
	// idle are those that were given back and whose client has not asked for more yet. To net/http they look new, and a stop of it
	// would wait for their first request.
	idle map[net.Conn]bool
}

type accepted struct {
	conn net.Conn
	err  error
}

func newListener(inner net.Listener) *listener {
	l := &listener{Listener: inner, accepted: make(chan accepted), closed: make(chan struct{}), idle: map[net.Conn]bool{}}
	go l.run()
	return l
}

func (l *listener) run() {
	for {
		conn, err := l.Listener.Accept()
		select {
		case l.accepted <- accepted{conn, err}:
		case <-l.closed:
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// giveBack hands a connection to net/http again, with what was read of it already. It is closed when nobody accepts any longer.
func (l *listener) giveBack(conn net.Conn, read []byte) {
	if before, ok := conn.(*resumed); ok {
		read, conn = append(read, before.read...), before.Conn
	}
	if len(read) > 0 {
		conn = &resumed{conn, read}
	}
	l.mu.Lock()
	l.idle[conn] = true
	l.mu.Unlock()
	select {
	case l.accepted <- accepted{conn, nil}:
	case <-l.closed:
		l.state(conn, http.StateClosed)
		_ = conn.Close()
	}
}

// state is for http.Server.ConnState.
func (l *listener) state(conn net.Conn, s http.ConnState) {
	if s == http.StateNew {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.idle, conn)
}

// closeIdle closes the connections that were given back and wait for a request.
func (l *listener) closeIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.idle {
		_ = conn.Close()
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
	})
	return err
}

// resumed is a connection of which something was read before.
type resumed struct {
	net.Conn
	read []byte
}

// Read implements net.Conn.
func (r *resumed) Read(p []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(p, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}
