package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is one of our services as a real process, which a scenario may kill and start again.
type Process struct {
	Name string
	// Args start it; a restart uses the same, so they hold a fixed port.
	Args []string
	Env  []string
	// Log is the file that its standard error is appended to.
	Log string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	last error
}

// Start runs the process and returns what it printed when it was ready: {"ready":true,"address":"…"}.
func (p *Process) Start(ctx context.Context) (ready map[string]any, err error) {
	if err := os.MkdirAll(filepath.Dir(p.Log), 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(p.Args[0], p.Args[1:]...) //nolint:noctx // it outlives its start, and Stop or Kill ends it
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := spawn(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()

	line := make(chan map[string]any, 1)
	go func() {
		r := bufio.NewReader(out)
		for {
			text, err := r.ReadBytes('\n')
			var m map[string]any
			if json.Unmarshal(text, &m) == nil && m["ready"] == true {
				line <- m
				break
			}
			if err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, r)
		err := cmd.Wait()
		p.mu.Lock()
		p.last = err
		p.mu.Unlock()
		close(done)
	}()
	select {
	case m := <-line:
		return m, nil
	case <-done:
		return nil, fmt.Errorf("%s ended before it was ready (%w); its log is %s", p.Name, p.last, p.Log)
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("%s was not ready in time; its log is %s", p.Name, p.Log)
	}
}

// Kill is kill -9, and returns when the process is gone.
func (p *Process) Kill() { p.end(syscall.SIGKILL, 0) }

// Stop is SIGTERM, then SIGKILL after grace.
func (p *Process) Stop(grace time.Duration) { p.end(syscall.SIGTERM, grace) }

func (p *Process) end(signal syscall.Signal, grace time.Duration) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = syscall.Kill(-cmd.Process.Pid, signal)
	if grace > 0 {
		select {
		case <-done:
			return
		case <-time.After(grace):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	<-done
}

// PID is the process id, 0 before the start.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Running tells whether the process is alive.
func (p *Process) Running() bool {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done == nil {
		return false
	}
	select {
	case <-done:
		return false
	default:
		return true
	}
}
