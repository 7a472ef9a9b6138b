package platform

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edgehold/platform/process"
)

const (
	// startAttempts is how often an engine may end before it was ever ready; then the start has failed.
	startAttempts = 3
	// steadyAfter is how long an engine must have been ready for its earlier exits to be forgiven.
	steadyAfter = 30 * time.Second
)

// backoff is how long to wait before the next start, after that many exits in a row. The first restart is at once: it is
// the one after a kill, and others wait for it.
func backoff(exits int) time.Duration {
	const least, most = 100 * time.Millisecond, 10 * time.Second
	if exits <= 1 {
		return 0
	}
	return min(most, least<<min(exits-2, 10))
}

// engine is one process to keep up.
type engine struct {
	name, kind, cluster string
	path                string
	args                []string
	log                 string
	grace               time.Duration // from SIGTERM to SIGKILL
	after               *engine       // has to be ready once before the first start, may be nil
	first               chan struct{} // closed at the first readiness
}

// announcement is the union of the ready lines of all engines.
type announcement struct {
	Ready      bool   `json:"ready"`
	API        string `json:"api"`
	Kubeconfig string `json:"kubeconfig"`
	Status     string `json:"status"`
	Address    string `json:"address"`
	UI         string `json:"ui"`
	Namespace  string `json:"namespace"`
}

// supervise keeps an engine up until ctx ends, then stops it. An error means that it never came up.
func (s *supervisor) supervise(ctx context.Context, e *engine) error {
	out, err := openLog(e.log, logLimit)
	if err != nil {
		return problem.Preconditionf("--dir", "%w", err)
	}
	defer func() { _ = out.Close() }()
	if e.after != nil {
		select {
		case <-e.after.first:
		case <-ctx.Done():
			return nil
		}
	}
	once := sync.OnceFunc(func() { close(e.first) })
	for exits := 0; ; {
		readyFor, exit, err := s.once(ctx, e, out, once)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if readyFor >= steadyAfter {
			exits = 0
		}
		exits++
		select {
		case <-e.first:
		default:
			if exits >= startAttempts {
				return problem.Preconditionf("", "%s ended %d times before it was ready (%s); see %s\n%s", e.name, exits, exit, e.log, tail(e.log, 5))
			}
		}
		s.log.Warn("engine ended", "engine", e.name, "exit", exit, "ready_for", readyFor.Round(time.Millisecond).String(), "restart_in", backoff(exits).String())
		select {
		case <-time.After(backoff(exits)):
		case <-ctx.Done():
			return nil
		}
	}
}

// once runs one process of the engine, until it ends or, when ctx ends, is stopped.
func (s *supervisor) once(ctx context.Context, e *engine, out *logFile, onReady func()) (readyFor time.Duration, exit string, err error) {
	cmd := exec.Command(e.path, e.args...) //nolint:noctx // a context would kill it; it is asked to stop first
	cmd.Dir = s.cfg.Dir
	announced := make(chan announcement, 1)
	cmd.Stdout, cmd.Stderr = &readyLine{log: out, found: announced}, out
	cmd.WaitDelay = 2 * time.Second // what it left behind may hold its output open
	// The pipe is never written to. Its end tells an engine that this process is gone.
	line, err := cmd.StdinPipe()
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = line.Close() }()
	began := time.Now()
	id, err := s.starter.Start(cmd)
	if err != nil {
		return 0, "", problem.Preconditionf("", "cannot start %s: %w", e.path, err)
	}
	s.change(e, func(_ *State, now *Engine) {
		if !now.StartedAt.IsZero() {
			now.Restarts++
		}
		now.Process, now.Ready, now.StartedAt, now.ReadyAfter = id, false, began.UTC().Truncate(time.Millisecond), 0
	})
	ended := make(chan string, 1)
	go func() {
		err := s.starter.Wait(cmd)
		if err == nil {
			ended <- "exit status 0"
		} else {
			ended <- err.Error()
		}
	}()
	var ready time.Time
	stopping := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case a := <-announced:
			ready = time.Now()
			s.announce(e, a, ready.Sub(began))
			onReady()
		case <-stopping:
			stopping = nil
			_ = id.Signal(syscall.SIGTERM)
			timer := time.NewTimer(e.grace)
			defer timer.Stop()
			kill = timer.C
		case <-kill:
			kill = nil
			s.log.Warn("engine did not stop in time and is killed", "engine", e.name, "grace", e.grace.String())
			_ = id.Signal(syscall.SIGKILL)
		case exit := <-ended:
			s.change(e, func(_ *State, now *Engine) {
				now.Process, now.Ready = process.ID{}, false
				now.LastExit, now.LastExitAt = exit, time.Now().UTC().Truncate(time.Millisecond)
			})
			if !ready.IsZero() {
				readyFor = time.Since(ready)
			}
			return readyFor, exit, nil
		}
	}
}

// announce records what the engine said of itself.
func (s *supervisor) announce(e *engine, a announcement, after time.Duration) {
	var p Progress
	s.change(e, func(st *State, now *Engine) {
		first := true
		select {
		case <-e.first:
			first = false
		default:
			s.ready++
		}
		now.Ready, now.ReadyAfter = true, after.Truncate(time.Millisecond)
		for i := range st.Clusters {
			if c := &st.Clusters[i]; c.Name == e.cluster {
				if e.kind == ControlPlane {
					c.API = a.API
				} else {
					c.NodeStatus = a.Status
				}
			}
		}
		if e.kind == Temporal {
			*st.Temporal = TemporalState{Address: a.Address, UI: a.UI, Namespace: cmp.Or(a.Namespace, st.Temporal.Namespace)}
		}
		if first {
			p = Progress{Engine: e.name, After: now.ReadyAfter, Ready: s.ready, Total: len(s.engines)}
		}
	})
	s.log.Info("engine ready", "engine", e.name, "after", after.Round(time.Millisecond).String())
	if p.Engine != "" {
		_ = json.NewEncoder(s.progress).Encode(p)
	}
}

// change updates what the state says of an engine. That the state cannot be written must not take the engine down.
func (s *supervisor) change(e *engine, f func(*State, *Engine)) {
	err := s.update(func(st *State) {
		for i := range st.Engines {
			if st.Engines[i].Name == e.name {
				f(st, &st.Engines[i])
			}
		}
	})
	if err != nil {
		s.log.Error("cannot write the state", "error", err)
	}
}

// readyLine copies what an engine prints to its log and finds the line that says it is ready.
type readyLine struct {
	log   *logFile
	found chan<- announcement
	line  bytes.Buffer
	done  bool
}

// maxLine bounds what is kept of a line that does not end, in bytes.
const maxLine = 64 << 10

// Write never fails.
func (r *readyLine) Write(p []byte) (int, error) {
	_, _ = r.log.Write(p)
	for rest := p; !r.done && len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte("\n"))
		if r.line.Len()+len(part) <= maxLine {
			r.line.Write(part)
		}
		rest = after
		if !whole {
			break
		}
		var a announcement
		if json.Unmarshal(r.line.Bytes(), &a) == nil && a.Ready {
			r.done = true
			r.found <- a // buffered, and sent once
		}
		r.line.Reset()
	}
	return len(p), nil
}
