package serve

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// together is how many pieces that are due at the same time are handed to the system in one call. Each is a message of its own there, and is
// pushed as if it had been written alone: that is what a flush is. Only the way into the system is shared, and often the waking of the
// reader, which is most of a write's price.
const together = 16

// batch is what sendmmsg(2) takes, and what came of it.
type batch struct {
	messages [together]message
	parts    [together]unix.Iovec
	n, sent  int
	send     func(fd uintptr) bool
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

var batches = sync.Pool{New: func() any {
	b := new(batch)
	for i := range b.messages {
		b.messages[i].header.Iov = &b.parts[i]
		b.messages[i].header.SetIovlen(1)
	}
	b.send = b.do
	return b
}}

// do never blocks, so that the scheduler need not know of it.
func (b *batch) do(fd uintptr) bool {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.messages[0])), uintptr(b.n), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno == 0 {
		for i := range int(n) {
			b.sent += int(b.messages[i].length)
		}
	}
	return true
}

// sendEach sends the pieces of p that end there, one by one, and says how many bytes were taken. What was not is for an ordinary write, which waits
// or says what is wrong.
func sendEach(conn syscall.RawConn, p []byte, ends []int) int {
	if len(p) == 0 {
		return 0
	}
	b := batches.Get().(*batch)
	defer batches.Put(b)
	b.n, b.sent = len(ends), 0
	from := 0
	for i, end := range ends {
		b.parts[i].Base = &p[from]
		b.parts[i].SetLen(end - from)
		from = end
	}
	_ = conn.Write(b.send)
	clear(b.parts[:b.n])
	return b.sent
}
