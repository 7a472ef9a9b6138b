package process

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Starter starts processes that the kernel kills when this process dies, of whatever cause. It adopts their orphans too
// (see Adopt) and reaps them.
//
// The kernel ties such a child to the thread that forked it and not to the process, and the Go runtime ends threads as
// it likes; so one thread does nothing else, for as long as the Starter lives.
type Starter struct {
	work chan func()
	done chan struct{}
	once sync.Once
	// own are the pids of children that someone waits for. Only the one goroutine touches it.
	own map[int]bool
}

// NewStarter starts the thread. Close ends it.
func NewStarter() *Starter {
	s := &Starter{work: make(chan func()), done: make(chan struct{}), own: map[int]bool{}}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range s.work {
			f()
		}
	}()
	return s
}

// Close kills every child that still runs and ends the thread. The end of the thread alone would not always do: if it is
// the first of the process, the Go runtime keeps it.
func (s *Starter) Close() {
	s.once.Do(func() {
		s.do(func() {
			found, _ := children(os.Getpid())
			for _, c := range found {
				if s.own[c.id.PID] {
					_ = c.id.Signal(syscall.SIGKILL)
				}
			}
		})
		close(s.work)
	})
	<-s.done
}

func (s *Starter) do(f func()) {
	done := make(chan struct{})
	s.work <- func() { defer close(done); f() }
	<-done
}

// Start starts cmd in a session of its own, by which its descendants are known when it has ended. It must be waited for
// with Wait.
func (s *Starter) Start(cmd *exec.Cmd) (ID, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	var id ID
	var err error
	s.do(func() {
		if err = cmd.Start(); err != nil {
			return
		}
		s.own[cmd.Process.Pid] = true
		// It is our child and not waited for, so it has a stat even if it has ended already.
		id, err = Identify(cmd.Process.Pid)
	})
	return id, err
}

// Wait waits for a process that Start started and kills what it left behind in its session. The error is that of
// exec.Cmd.Wait.
func (s *Starter) Wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	s.do(func() {
		delete(s.own, cmd.Process.Pid)
		s.sweep(func(c child) bool { return c.session == cmd.Process.Pid })
	})
	return err
}

// Reap collects the orphans that have ended. It is to be called on SIGCHLD.
func (s *Starter) Reap() { s.do(func() { s.sweep(func(child) bool { return false }) }) }

// KillOrphans kills all orphans, and those that this makes orphans, until there are none, and returns how many there
// were. What this process cannot see in /proc it cannot kill.
func (s *Starter) KillOrphans() int {
	killed := 0
	s.do(func() {
		for {
			n := s.sweep(func(child) bool { return true })
			if n == 0 {
				return
			}
			killed += n
		}
	})
	return killed
}

// sweep reaps adopted children that have ended and kills and reaps those that doomed asks for. It returns how many it
// killed. A killed one may leave children of its own, which are adopted in turn.
func (s *Starter) sweep(doomed func(child) bool) (killed int) {
	found, err := children(os.Getpid())
	if err != nil {
		return 0
	}
	for _, c := range found {
		switch {
		case s.own[c.id.PID]:
		case c.zombie:
			_, _ = syscall.Wait4(c.id.PID, nil, syscall.WNOHANG, nil)
		case doomed(c):
			if c.id.Signal(syscall.SIGKILL) == nil {
				killed++
				_, _ = syscall.Wait4(c.id.PID, nil, 0, nil) // it ends now: nothing survives SIGKILL for long
			}
		}
	}
	return killed
}
