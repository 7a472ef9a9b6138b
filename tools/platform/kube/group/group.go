// Package group starts processes in groups of their own and makes sure that none outlives this process, whatever that dies of.
// Start reading at [Spawner].
//
// Two things hold it together. The kernel kills every leader when the thread that started it ends (PR_SET_PDEATHSIG), so leaders are
// started from one locked thread that lives as long as the Spawner. What leaders started in turn is killed by a guard: a second
// process that is told of every group over a pipe and kills those left when the pipe ends. A process that leaves its group
// (setsid, setpgid) is not followed.
package group

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by Start after Close.
var ErrClosed = errors.New("no more processes are started: the node is stopping")

// Spawner starts groups. Its methods may be called from several goroutines.
type Spawner struct {
	guard    *guard
	requests chan request
	closing  chan struct{}
	closed   sync.Once
	ended    chan struct{} // the thread has gone
	running  sync.WaitGroup
}

type request struct {
	cmd   *exec.Cmd
	reply chan error
}

// NewSpawner starts the guard with the given command line, which must call [Guard] on its standard input.
func NewSpawner(guardCommand []string) (*Spawner, error) {
	g, err := startGuard(guardCommand)
	if err != nil {
		return nil, err
	}
	s := &Spawner{guard: g, requests: make(chan request), closing: make(chan struct{}), ended: make(chan struct{})}
	go s.thread()
	return s, nil
}

// thread is where every process is started from; see the package comment.
func (s *Spawner) thread() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.ended)
	for {
		select {
		case r := <-s.requests:
			err := r.cmd.Start()
			if err == nil {
				// Before anybody can close: whoever stops the thread then finds every group that it started.
				s.guard.add(r.cmd.Process.Pid)
				s.running.Add(1)
			}
			r.reply <- err
		case <-s.closing:
			return
		}
	}
}

// Start starts cmd as the leader of a new group, and returns when it runs. Whatever cmd.SysProcAttr says beyond that is kept.
func (s *Spawner) Start(cmd *exec.Cmd) (*Group, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if !cmd.SysProcAttr.Setsid { // a session leader leads a group already
		cmd.SysProcAttr.Setpgid = true
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	r := request{cmd: cmd, reply: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-s.closing:
		return nil, ErrClosed
	}
	if err := <-r.reply; err != nil {
		return nil, err
	}
	g := &Group{cmd: cmd, id: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		defer s.running.Done()
		g.wait(s.guard)
	}()
	return g, nil
}

// Close refuses further starts, kills what still runs, and returns when everything is gone.
func (s *Spawner) Close() {
	s.closed.Do(func() { close(s.closing) })
	<-s.ended
	s.guard.killAll()
	s.running.Wait()
	s.guard.close()
}

// Group is a process and all those that it started.
type Group struct {
	cmd  *exec.Cmd
	id   int
	done chan struct{}

	mu     sync.Mutex
	reaped bool
}

// maxDying bounds the wait for killed processes that nobody reaps.
const maxDying = 100 * time.Millisecond

// wait ends the group when its leader ends, as a container ends with its first process.
func (g *Group) wait(guard *guard) {
	// The leader is left unreaped until its group is dead and forgotten: before that the kernel cannot give its number to
	// somebody else.
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, g.id, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	_ = syscall.Kill(-g.id, syscall.SIGKILL) // ESRCH: nobody is left
	guard.remove(g.id)
	g.mu.Lock()
	_ = g.cmd.Wait() // the exit code is in ProcessState
	g.reaped = true
	g.mu.Unlock()
	// The others take a moment to die. Signal 0 only asks; it does no harm to whoever gets the number next.
	for end := time.Now().Add(maxDying); syscall.Kill(-g.id, 0) == nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	close(g.done)
}

// ID of the group, which is the process id of its leader.
func (g *Group) ID() int { return g.id }

// Done is closed when the leader has ended and no process of the group is left, or will be in a moment.
func (g *Group) Done() <-chan struct{} { return g.done }

// Signal the leader, as a container runtime signals the first process only. A group that ended is left alone.
func (g *Group) Signal(sig syscall.Signal) { g.kill(g.id, sig) }

// Kill every process of the group.
func (g *Group) Kill() { g.kill(-g.id, syscall.SIGKILL) }

func (g *Group) kill(pid int, sig syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.reaped {
		_ = syscall.Kill(pid, sig) // ESRCH: it has just ended
	}
}

// Exit says how the leader ended: its exit code, and the signal that killed it or 0. By convention the code is then 128 + signal.
// It must not be called before Done is closed.
func (g *Group) Exit() (code int, signal syscall.Signal) {
	status, ok := g.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), status.Signal()
	}
	return g.cmd.ProcessState.ExitCode(), 0
}

// selfExecutable re-runs this very program, also when its file was replaced meanwhile.
const selfExecutable = "/proc/self/exe"

// Self is the command line of this program with the given arguments.
func Self(args ...string) []string { return append([]string{selfExecutable}, args...) }
