package door

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// link is a client and its backend. What one does to its connection happens to the other's: an end of data, and a reset.
type link struct {
	client, backend *net.TCPConn
	ended           atomic.Int32 // directions that came to an end of data
}

// carry data both ways until the connection has ended, and count the bytes to and from the backend.
func (l *link) carry(in, out *atomic.Int64) {
	var group sync.WaitGroup
	group.Go(func() { l.direction(l.client, l.backend, out) })
	l.direction(l.backend, l.client, in)
	group.Wait()
}

func (l *link) direction(to, from *net.TCPConn, count *atomic.Int64) {
	source, err := newSource(from)
	if err != nil {
		l.reset()
		return
	}
	if err := source.copyTo(to, count); err != nil {
		l.reset()
		return
	}
	if to.CloseWrite() != nil {
		l.reset()
		return
	}
	if l.ended.Add(1) == 2 {
		_ = l.client.Close()
		_ = l.backend.Close()
		return
	}
	// It has said all that it will, and may still go away before it has heard all.
	if source.awaitReset() {
		l.reset()
	}
}

// reset both connections. What is in flight is lost, as it is when an endpoint resets a client behind kube-proxy.
func (l *link) reset() {
	reset(l.client)
	reset(l.backend)
}

func reset(c *net.TCPConn) {
	// Both fail only on a connection that is closed already.
	_ = c.SetLinger(0)
	_ = c.Close()
}

// source reads a connection with a buffer only while there is something to read. Splicing, which io.Copy does between two
// TCP connections, measured 10 % less CPU on bulk, 14 % more on small requests over 500 connections, and holds two pipes, so
// six files instead of two, for as long as a connection is open; open files are what a node runs out of first.
type source struct {
	raw    syscall.RawConn
	buffer *[bufferSize]byte // nil while waiting
	n      int
	err    error
}

const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func newSource(c *net.TCPConn) (*source, error) {
	raw, err := c.SyscallConn()
	return &source{raw: raw}, err
}

// copyTo writes all that comes until the end of data, then returns nil; any other end is an error.
func (s *source) copyTo(to *net.TCPConn, count *atomic.Int64) error {
	read := s.read // one closure for the life of the connection
	for {
		if err := s.raw.Read(read); err != nil {
			return err
		}
		n, err := s.n, s.err
		if n > 0 {
			n, err = to.Write(s.buffer[:n])
			count.Add(int64(n))
		} else if err == nil {
			err = io.EOF
		}
		buffers.Put(s.buffer)
		s.buffer = nil
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// read is tried when the connection may have something to read; false means to wait until it has.
func (s *source) read(fd uintptr) bool {
	if s.buffer == nil {
		s.buffer = buffers.Get().(*[bufferSize]byte)
	}
	for {
		s.n, s.err = syscall.Read(int(fd), s.buffer[:])
		if !errors.Is(s.err, syscall.EINTR) {
			break
		}
	}
	if errors.Is(s.err, syscall.EAGAIN) {
		buffers.Put(s.buffer)
		s.buffer = nil
		return false
	}
	return true
}

// awaitReset waits after the end of data: true when the peer resets, false when this side has closed the connection.
func (s *source) awaitReset() bool {
	reset := false
	err := s.raw.Read(func(fd uintptr) bool {
		// Reading would go on to say that the data has ended, whatever came after that.
		failure, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		reset = failure != 0 || err != nil
		return reset
	})
	return reset || err != nil && !errors.Is(err, net.ErrClosed)
}
