package serve

import (
	"errors"
	"net"
	"sync"
	"syscall"
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

// CloseWrite is what net/http closes a connection with whose client still sends.
func (c *counted) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(conn net.Conn) error {
	if tcp := tcpOf(conn); tcp != nil {
		return tcp.CloseWrite()
	}
	return errors.ErrUnsupported
}

// tcpOf is the connection of TCP beneath; nil when there is none.
func tcpOf(conn net.Conn) *net.TCPConn {
	for conn != nil {
		switch c := conn.(type) {
		case *net.TCPConn:
			return c
		case *counted:
			conn = c.Conn
		case *resumed:
			conn = c.Conn
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			conn = nil
		}
	}
	return nil
}

// rawOf is for what package net has no words for; it does nothing where there is no TCP beneath.
func rawOf(conn net.Conn) syscall.RawConn {
	if tcp := tcpOf(conn); tcp != nil {
		if raw, err := tcp.SyscallConn(); err == nil {
			return raw
		}
	}
	return noRaw{}
}

type noRaw struct{}

func (noRaw) Control(func(uintptr)) error { return errors.ErrUnsupported }

func (noRaw) Read(func(uintptr) bool) error { return errors.ErrUnsupported }

func (noRaw) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

// reset closes the connection with a TCP reset, where it is one of TCP.
func reset(conn net.Conn) {
	if tcp := tcpOf(conn); tcp != nil {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
