package serve

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// grid is what times are rounded up to: those who wait for about the same time are woken together, which is cheaper.
	grid = 250 * time.Microsecond
	// slots cover more than the longest sleep, which is short.
	slots = 1 << 12
)

// wheel is a timer that is exact enough for tokens. Go's own are up to 1 ms late on Linux where nothing else happens: the runtime waits for
// them in epoll_wait(2), which counts in milliseconds. A timer of the kernel's, which the runtime polls like a connection, is not.
type wheel struct {
	file  *os.File
	raw   syscall.RawConn
	start time.Time

	mu sync.Mutex
	// slots have those who wait, by number modulo their count. The time of slot n is n grids after the start. All up to done were woken.
	slots [slots]*waiter
	done  int64
	// next is the slot that the kernel's timer is set to, while somebody waits.
	next    int64
	waiting int
	closed  bool
}

type waiter struct {
	woken chan struct{}
	slot  int64
	after *waiter
}

var waiters = sync.Pool{New: func() any { return &waiter{woken: make(chan struct{}, 1)} }}

func newWheel() (*wheel, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create a timer: %w", err)
	}
	w := &wheel{file: os.NewFile(uintptr(fd), "timer"), start: time.Now()}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("create a timer: %w", err)
	}
	go w.run()
	return w, nil
}

// run turns the wheel until it is closed. The timer is not read: to set it anew makes it ready anew.
func (w *wheel) run() {
	_ = w.raw.Read(func(uintptr) bool { w.turn(); return false })
	w.mu.Lock()
	w.closed = true
	var due *waiter
	for i := range w.slots {
		due = join(due, w.slots[i])
		w.slots[i] = nil
	}
	w.mu.Unlock()
	wake(due)
}

// turn wakes those whose time has come.
func (w *wheel) turn() {
	w.mu.Lock()
	now := int64(time.Since(w.start) / grid)
	var due *waiter
	for s := max(w.done, now-slots) + 1; s <= now; s++ {
		at := &w.slots[s%slots]
		for list := *at; list != nil; {
			one := list
			list = one.after
			if one.slot > now { // it is for the next round
				at = &one.after
				continue
			}
			*at, one.after, due = one.after, due, one
			w.waiting--
		}
	}
	w.done = now
	if w.waiting > 0 {
		for s := now + 1; s <= now+slots; s++ {
			if w.slots[s%slots] != nil {
				w.set(s)
				break
			}
		}
	}
	w.mu.Unlock()
	wake(due)
}

// set sets the kernel's timer.
func (w *wheel) set(slot int64) {
	w.next = slot
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(time.Duration(slot)*grid-time.Since(w.start), 1)))}
	// It fails when the wheel is closed, and then all are woken.
	_ = w.raw.Control(func(fd uintptr) { _ = unix.TimerfdSettime(int(fd), 0, &spec, nil) })
}

// sleep waits for d, which is at most short, and is never too early but when the wheel is closed. A nil wheel is time.Sleep.
func (w *wheel) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	if w == nil {
		time.Sleep(d)
		return
	}
	one := waiters.Get().(*waiter)
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		waiters.Put(one)
		return
	}
	now := time.Since(w.start)
	one.slot = int64((now + d + grid - 1) / grid)
	if w.waiting == 0 {
		w.done = int64(now / grid)
	}
	w.waiting++
	at := &w.slots[one.slot%slots]
	one.after, *at = *at, one
	if w.waiting == 1 || one.slot < w.next {
		w.set(one.slot)
	}
	w.mu.Unlock()
	<-one.woken
	waiters.Put(one)
}

func (w *wheel) close() { _ = w.file.Close() }

func wake(due *waiter) {
	for due != nil {
		one := due
		due, one.after = one.after, nil
		one.woken <- struct{}{}
	}
}

// join puts a list in front of another.
func join(a, b *waiter) *waiter {
	for b != nil {
		one := b
		b, one.after, a = one.after, a, one
	}
	return a
}
