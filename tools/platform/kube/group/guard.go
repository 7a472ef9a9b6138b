package group

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Guard is the body of the guard process. It reads lines "+group" and "-group" and, when they end, kills the groups that were
// added and not removed. It returns an error for a line that is neither, after killing too.
func Guard(in io.Reader) error {
	// It must outlive the signals that are sent to everything at once, such as by a terminal.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	groups, err := readGroups(in)
	for id := range groups {
		_ = syscall.Kill(-id, syscall.SIGKILL) // ESRCH: already gone
	}
	return err
}

// readGroups returns the groups that are live at the end of in. Only numbers above 1 are accepted: kill(-1) and kill(0) mean
// everybody and oneself.
func readGroups(in io.Reader) (map[int]struct{}, error) {
	groups := map[int]struct{}{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if len(line) < 2 {
			return groups, fmt.Errorf("guard: line %q: want +group or -group", line)
		}
		id, err := strconv.ParseUint(line[1:], 10, 31)
		if err != nil || id < 2 {
			return groups, fmt.Errorf("guard: line %q: want the number of a process group", line)
		}
		switch line[0] {
		case '+':
			groups[int(id)] = struct{}{}
		case '-':
			delete(groups, int(id))
		default:
			return groups, fmt.Errorf("guard: line %q: want +group or -group", line)
		}
	}
	return groups, lines.Err()
}

// guard is the guarded side: it tells the guard process what lives, and starts another when that one dies.
type guard struct {
	command []string

	mu      sync.Mutex
	pipe    *os.File
	live    map[int]struct{}
	closing bool
	ended   chan struct{}
}

// guardRestartDelay keeps a guard that cannot live from taking a core.
const guardRestartDelay = 200 * time.Millisecond

func startGuard(command []string) (*guard, error) {
	g := &guard{command: command, live: map[int]struct{}{}, ended: make(chan struct{})}
	cmd, err := g.start()
	if err != nil {
		return nil, fmt.Errorf("start the guard %q: %w", command, err)
	}
	go g.keep(cmd)
	return g, nil
}

// start must not be called twice at the same time.
func (g *guard) start() (*exec.Cmd, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(g.command[0], g.command[1:]...) //nolint:noctx // it lives as long as its standard input
	cmd.Stdin, cmd.Stderr = read, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of reach of what is sent to our own group
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		write.Close()
		return nil, ErrClosed
	}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, err
	}
	g.pipe = write
	for id := range g.live {
		fmt.Fprintf(write, "+%d\n", id)
	}
	return cmd, nil
}

// keep replaces the guard process for as long as there is something to guard.
func (g *guard) keep(cmd *exec.Cmd) {
	defer close(g.ended)
	for {
		if cmd != nil {
			_ = cmd.Wait()
		}
		g.mu.Lock()
		closing := g.closing
		g.mu.Unlock()
		if closing {
			return
		}
		time.Sleep(guardRestartDelay)
		cmd, _ = g.start() // tried again after the delay
	}
}

func (g *guard) add(id int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live[id] = struct{}{}
	fmt.Fprintf(g.pipe, "+%d\n", id) // a guard that just died gets it from live when it is replaced
}

func (g *guard) remove(id int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.live, id)
	fmt.Fprintf(g.pipe, "-%d\n", id)
}

func (g *guard) killAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.live {
		_ = syscall.Kill(-id, syscall.SIGKILL)
	}
}

// close ends the guard process. All groups must be gone.
func (g *guard) close() {
	g.mu.Lock()
	g.closing = true
	g.pipe.Close()
	g.mu.Unlock()
	<-g.ended
}
