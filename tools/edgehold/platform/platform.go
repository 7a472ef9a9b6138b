// Package platform runs the embedded platform: a Kubernetes control plane and a node per cluster and a Temporal, each a
// process, under one supervisor that starts them in order, restarts what dies and stops everything with nothing left
// behind. Start at Up; Supervise is what runs detached.
//
// All it keeps is in one directory, .edgehold of a checkout. Two platforms in two directories share nothing: each cluster
// has an address block of its own, see block.go.
package platform

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edgehold/platform/process"
)

const (
	// supervisorLog is the supervisor's own log in the platform directory.
	supervisorLog = "supervisor.log"
	// MaxClusters bounds what one machine is asked to run.
	MaxClusters = 16
	// stopLimit bounds an ordered stop: the engines' own graces and something on top.
	stopLimit = nodeGrace + engineGrace + 10*time.Second
)

// Config of a platform.
type Config struct {
	// Dir is the .edgehold directory. Default: DefaultDir.
	Dir string
	// Bin holds the engines and the binaries that pods run as images local/NAME. Default: the variable EDGEHOLD_BIN, or
	// Dir/bin.
	Bin string
	// Clusters is how many, 1 to MaxClusters. Default 3.
	Clusters int
	// NoTemporal leaves Temporal out.
	NoTemporal bool
	// Fresh removes what earlier starts left: objects, workflows, logs, addresses. Not the binaries.
	Fresh bool
	// Timeout is how long all engines may take to be ready. Default two minutes.
	Timeout time.Duration
	// Executable is what is started as the supervisor, with the arguments `platform run`. Default: this one.
	Executable string
	// Progress is called for each engine that is ready, from one goroutine. Nil is allowed.
	Progress func(Progress)
}

// Progress is one step of a start.
type Progress struct {
	// Engine that is ready, empty for the last step.
	Engine string `json:"engine,omitempty"`
	// After is how long it took since its own start, in nanoseconds.
	After time.Duration `json:"after_ns,omitempty"`
	// Ready and Total count engines.
	Ready int `json:"ready"`
	Total int `json:"total"`
	// Error ends a start that failed: a sentence that says why.
	Error string `json:"error,omitempty"`
}

// DefaultDir is .edgehold of the checkout that the working directory is in, found by its go.work, or else of the working
// directory.
func DefaultDir() (string, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := cwd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return filepath.Join(dir, ".edgehold"), nil
		}
		if dir == filepath.Dir(dir) {
			return filepath.Join(cwd, ".edgehold"), nil
		}
	}
}

// Validate fills the defaults in; the error names the field, its value and what is allowed. It checks that the engines are
// there.
func (c *Config) Validate() error {
	if err := c.validateDir(); err != nil {
		return err
	}
	if c.Bin == "" {
		c.Bin = os.Getenv("EDGEHOLD_BIN")
	}
	if c.Bin == "" {
		c.Bin = filepath.Join(c.Dir, "bin")
	}
	bin, err := filepath.Abs(c.Bin)
	if err != nil {
		return problem.Invalidf("--bin", "%q: %w", c.Bin, err)
	}
	c.Bin = bin
	if c.Clusters == 0 {
		c.Clusters = 3
	}
	if c.Clusters < 1 || c.Clusters > MaxClusters {
		return problem.Invalidf("--clusters", "%d is not allowed; use 1 to %d", c.Clusters, MaxClusters)
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Minute
	}
	if c.Timeout < time.Second || c.Timeout > time.Hour {
		return problem.Invalidf("--timeout", "%s is not allowed; use 1s to 1h", c.Timeout)
	}
	for _, name := range c.binaries() {
		path := filepath.Join(c.Bin, name)
		if err := unix.Access(path, unix.X_OK); err != nil {
			return problem.Preconditionf("", "%s is missing (%w); build it with `make build`", path, err)
		}
	}
	return nil
}

func (c *Config) validateDir() error {
	if c.Dir == "" {
		dir, err := DefaultDir()
		if err != nil {
			return problem.Invalidf("--dir", "cannot find the checkout: %w", err)
		}
		c.Dir = dir
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return problem.Invalidf("--dir", "%q: %w", c.Dir, err)
	}
	c.Dir = dir
	return nil
}

func (c *Config) binaries() []string {
	names := []string{"edgehold-control-plane", "edgehold-node"}
	if !c.NoTemporal {
		names = append(names, "edgehold-temporal")
	}
	return names
}

// Up starts the platform and returns when all engines are ready. One that runs already is left as it is, if it is the one
// asked for. When ctx ends first, what was started is stopped. Errors are failed_precondition where an operator can do
// something: engines not built, other platform in the way, damaged state, an engine that does not start.
func Up(ctx context.Context, cfg Config) (State, error) {
	if err := cfg.Validate(); err != nil {
		return State{}, err
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Progress) {}
	}
	if s, err := Load(cfg.Dir); err == nil && s.Running() {
		return join(ctx, cfg, s)
	}
	if cfg.Executable == "" {
		self, err := os.Executable()
		if err != nil {
			return State{}, fmt.Errorf("cannot find this program to start the supervisor: %w", err)
		}
		cfg.Executable = self
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "platform"), 0o700); err != nil {
		return State{}, problem.Preconditionf("--dir", "%w", err)
	}
	return spawn(ctx, cfg)
}

// join waits for a platform that somebody else started.
func join(ctx context.Context, cfg Config, s State) (State, error) {
	if cfg.Fresh {
		return State{}, problem.Preconditionf("--fresh", "the platform in %s runs (supervisor %d); stop it first: `edgehold platform down`", cfg.Dir, s.Supervisor.PID)
	}
	if s.Phase == Stopping {
		return State{}, problem.Preconditionf("", "the platform in %s is stopping (supervisor %d); wait for `edgehold platform down`", cfg.Dir, s.Supervisor.PID)
	}
	if len(s.Clusters) != cfg.Clusters || (s.Temporal == nil) != cfg.NoTemporal {
		return State{}, problem.Preconditionf("--clusters", "the platform in %s runs with %d clusters and temporal=%t, not with %d and %t; stop it first: `edgehold platform down`",
			cfg.Dir, len(s.Clusters), s.Temporal != nil, cfg.Clusters, !cfg.NoTemporal)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	err := await(ctx, cfg.Dir, func(now State) (bool, error) {
		s = now
		return now.Phase == Ready, nil
	})
	return s, err
}

// spawn starts the supervisor detached from this session and follows its progress on a pipe.
func spawn(ctx context.Context, cfg Config) (State, error) {
	// Only a crash of the supervisor writes here directly; its own lines go through a bounded file.
	crash, err := os.OpenFile(filepath.Join(cfg.Dir, "platform", "supervisor.crash"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return State{}, problem.Preconditionf("--dir", "%w", err)
	}
	defer func() { _ = crash.Close() }()
	read, write, err := os.Pipe()
	if err != nil {
		return State{}, err
	}
	defer func() { _ = read.Close() }()
	args := []string{"platform", "run", "--dir", cfg.Dir, "--bin", cfg.Bin, "--clusters", strconv.Itoa(cfg.Clusters), "--timeout", cfg.Timeout.String(),
		"--no-temporal=" + strconv.FormatBool(cfg.NoTemporal), "--fresh=" + strconv.FormatBool(cfg.Fresh)}
	cmd := exec.Command(cfg.Executable, args...) //nolint:noctx // it outlives this call
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = cfg.Dir, crash, crash, []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What a shell opened for this process, such as a file that it holds a lock on, is not for the platform to keep open. A
	// kernel before 5.11 cannot say so.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		return State{}, fmt.Errorf("cannot start the supervisor: %w", err)
	}
	_ = write.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()

	failure := ""
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		var p Progress
		if json.Unmarshal(lines.Bytes(), &p) != nil {
			continue
		}
		if p.Error != "" {
			failure = p.Error
			continue
		}
		cfg.Progress(p)
		if p.Engine == "" && p.Ready == p.Total {
			go func() { _ = cmd.Wait() }() // it outlives this call, and this process if it likes
			return Load(cfg.Dir)
		}
	}
	// The pipe ended without the last step: the supervisor is ending or gone.
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return State{}, context.Cause(ctx)
	case failure != "":
		return State{}, problem.Preconditionf("", "%s", failure)
	}
	return State{}, problem.Preconditionf("", "the supervisor ended before the platform was ready (%v); %s", err, tail(crash.Name(), 10))
}

// Down stops the platform in dir and returns when nothing of it runs. Without one it does nothing: ended says how many
// processes it had to wait for. Nothing is signalled that was not started by this platform, however old the state is.
func Down(ctx context.Context, dir string) (ended int, err error) {
	cfg := Config{Dir: dir}
	if err := cfg.validateDir(); err != nil {
		return 0, err
	}
	s, err := Load(cfg.Dir)
	if errors.Is(err, errNoState) {
		return 0, nil
	}
	if err != nil {
		// A damaged file must not leave a platform running for ever: the lock knows its supervisor.
		owner, lockErr := lockOwner(cfg.Dir)
		if lockErr != nil || !owner.Alive() {
			return 0, err
		}
		s = State{Dir: cfg.Dir, Supervisor: owner}
	}
	running := s.processes()
	if s.Supervisor.Alive() {
		if err := end(ctx, s.Supervisor); err != nil {
			return 0, err
		}
	}
	// Only a supervisor that could not do its work leaves something here.
	for _, id := range running {
		if id.Signal(syscall.SIGKILL) == nil {
			if err := id.Await(ctx); err != nil {
				return 0, err
			}
		}
	}
	return len(running), nil
}

// processes are those that run now.
func (s State) processes() []process.ID {
	var ids []process.ID
	if s.Supervisor.Alive() {
		ids = append(ids, s.Supervisor)
	}
	for _, e := range s.Engines {
		if e.Process.Alive() {
			ids = append(ids, e.Process)
		}
	}
	return ids
}

// end asks the supervisor to stop, and kills it when it does not in time: its engines die with it.
func end(ctx context.Context, id process.ID) error {
	if err := id.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, process.ErrGone) {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if err := id.Await(waiting); err == nil || ctx.Err() != nil {
		return err
	}
	if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
		return err
	}
	return id.Await(ctx)
}
