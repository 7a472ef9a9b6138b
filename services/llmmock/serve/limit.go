package serve

import (
	"net"
	"sync"
)

// limited accepts no more connections than it has slots for; the next ones wait until one is closed.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func limit(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: conn, slots: l.slots}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// counted gives its slot back when it is closed.
type counted struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}

// reset closes the connection with a TCP reset, where it is one of TCP.
func reset(conn net.Conn) {
	for inner := conn; inner != nil; {
		switch c := inner.(type) {
		case *net.TCPConn:
			_ = c.SetLinger(0)
			inner = nil
		case *counted:
			inner = c.Conn
		case *resumed:
			inner = c.Conn
		case interface{ NetConn() net.Conn }:
			inner = c.NetConn()
		default:
			inner = nil
		}
	}
	_ = conn.Close()
}
