package platform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edgehold/platform/process"
)

// Phase is where a platform is in its life.
type Phase string

// The phases, in their order.
const (
	// Starting has engines that were never ready.
	Starting Phase = "starting"
	// Ready has had every engine ready once. An engine that died since is being restarted: see Engine.Ready.
	Ready Phase = "ready"
	// Stopping stops the engines in order.
	Stopping Phase = "stopping"
	// Stopped keeps the address blocks and all state for the next up.
	Stopped Phase = "stopped"
)

// The kinds of engines.
const (
	ControlPlane = "control-plane"
	Node         = "node"
	Temporal     = "temporal"
)

const stateVersion = 1

// State is the content of state.json, which the supervisor alone writes.
type State struct {
	// Version of this format.
	Version int `json:"version"`
	// Dir is the .edgehold directory that this is the state of, absolute.
	Dir string `json:"dir"`
	// Phase as the supervisor last wrote it. A supervisor that was killed writes nothing: ask Running too.
	Phase Phase `json:"phase"`
	// Supervisor is the process that holds everything together.
	Supervisor process.ID `json:"supervisor"`
	// StartedAt is when the supervisor started.
	StartedAt time.Time `json:"started_at"`
	// Clusters by number: cluster-1 first.
	Clusters []ClusterState `json:"clusters"`
	// Kubeconfig is the file with a context for each cluster.
	Kubeconfig string `json:"kubeconfig"`
	// Temporal is nil on a platform without it.
	Temporal *TemporalState `json:"temporal,omitempty"`
	// Engines are the supervised processes.
	Engines []Engine `json:"engines"`
}

// ClusterState is one Kubernetes cluster.
type ClusterState struct {
	// Name is also the name of the context in the kubeconfig.
	Name    string `json:"name"`
	Context string `json:"context"`
	// API is the URL of the API server, empty before its first readiness.
	API string `json:"api"`
	// Block holds the addresses of pods (lower half) and Services (upper half), such as 10.64.0.0/16. Its processes bind
	// the same addresses in 127.0.0.0/8.
	Block netip.Prefix `json:"block"`
	// Kubeconfig is the file with this cluster only.
	Kubeconfig string `json:"kubeconfig"`
	// NodeStatus is the base URL of the node's /doors and /metrics.
	NodeStatus string `json:"node_status"`
	// PIDs by kind of engine; only engines that run.
	PIDs map[string]int `json:"pids"`
}

// TemporalState says where Temporal is.
type TemporalState struct {
	// Address is host:port of the frontend.
	Address string `json:"address"`
	// UI is the URL of the web UI.
	UI string `json:"ui"`
	// Namespace for clients and workers.
	Namespace string `json:"namespace"`
}

// Engine is one supervised process.
type Engine struct {
	// Name such as control-plane-1, node-1 or temporal.
	Name string `json:"name"`
	// Kind is ControlPlane, Node or Temporal.
	Kind string `json:"kind"`
	// Cluster is its cluster's name, empty for Temporal.
	Cluster string `json:"cluster,omitempty"`
	// Process is the running one; PID 0 while there is none.
	Process process.ID `json:"process"`
	// Ready says that this process has said so.
	Ready bool `json:"ready"`
	// StartedAt is when this process was started, ReadyAfter how long it took to be ready, in nanoseconds.
	StartedAt  time.Time     `json:"started_at,omitzero"`
	ReadyAfter time.Duration `json:"ready_after_ns,omitempty"`
	// Restarts counts the starts after the first one of this supervisor.
	Restarts int `json:"restarts"`
	// LastExit is how the last process ended ("signal: killed"), empty when none did.
	LastExit   string    `json:"last_exit,omitempty"`
	LastExitAt time.Time `json:"last_exit_at,omitzero"`
	// Log is the file with what it prints.
	Log string `json:"log"`
}

// Engine returns the engine of that name; the error is not_found and names those that exist.
func (s State) Engine(name string) (Engine, error) {
	var names []string
	for _, e := range s.Engines {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return Engine{}, problem.NotFoundf("engine", "there is no engine %q; this platform has %q", name, names)
}

// Cluster returns the cluster of that name; the error is not_found and names those that exist.
func (s State) Cluster(name string) (ClusterState, error) {
	var names []string
	for _, c := range s.Clusters {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return ClusterState{}, problem.NotFoundf("cluster", "there is no cluster %q; this platform has %q", name, names)
}

// Running says whether the supervisor of this state runs.
func (s State) Running() bool { return s.Supervisor.Alive() }

// AwaitReplaced waits until another process has taken the place of old and is ready: what a test waits for after it
// killed old. It reads the state whenever the supervisor writes it. The error is failed_precondition when the platform
// stops meanwhile, else the cause of ctx.
func AwaitReplaced(ctx context.Context, dir string, old Engine) (Engine, error) {
	var now Engine
	err := await(ctx, dir, func(s State) (bool, error) {
		e, err := s.Engine(old.Name)
		if err != nil {
			return false, err
		}
		now = e
		return e.Ready && e.Process != old.Process && e.Process.Alive(), nil
	})
	return now, err
}

// statePath is where the state of a platform is.
func statePath(dir string) string { return filepath.Join(dir, "platform", "state.json") }

// errNoState is a directory that never had a platform.
var errNoState = errors.New("no platform was started here")

// Load reads the state of the platform in dir, a .edgehold directory. The errors are not_found where there never was a
// platform, and failed_precondition where its file is damaged or belongs to another directory.
func Load(dir string) (State, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return State{}, problem.Invalidf("dir", "%q: %w", dir, err)
	}
	data, err := os.ReadFile(statePath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return State{}, problem.NotFoundf("", "%w: %s does not exist; start one with `edgehold platform up`", errNoState, statePath(dir))
	}
	if err != nil {
		return State{}, problem.Preconditionf("", "cannot read the platform's state: %w", err)
	}
	s, err := parseState(data)
	if err != nil {
		return State{}, problem.Preconditionf("", "%s is damaged (%w); `edgehold platform up --fresh` starts anew without it", statePath(dir), err)
	}
	if s.Dir != dir && !sameFile(s.Dir, dir) {
		return State{}, problem.Preconditionf("", "%s belongs to the platform in %s, so this directory was copied or moved; `edgehold platform up --fresh` starts anew here",
			statePath(dir), s.Dir)
	}
	return s, nil
}

func sameFile(a, b string) bool {
	fa, err := os.Stat(a)
	if err != nil {
		return false
	}
	fb, err := os.Stat(b)
	return err == nil && os.SameFile(fa, fb)
}

// parseState decodes and checks; whoever signals processes or binds addresses by this file must not be misled by it.
func parseState(data []byte) (State, error) {
	var s State
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return State{}, err
	}
	if s.Version != stateVersion {
		return State{}, fmt.Errorf("version: %d is not %d", s.Version, stateVersion)
	}
	if !filepath.IsAbs(s.Dir) {
		return State{}, fmt.Errorf("dir: %q is not an absolute path", s.Dir)
	}
	if !slices.Contains([]Phase{Starting, Ready, Stopping, Stopped}, s.Phase) {
		return State{}, fmt.Errorf("phase: %q is not one of starting, ready, stopping, stopped", s.Phase)
	}
	for i, c := range s.Clusters {
		if _, err := blockNumber(c.Block); err != nil {
			return State{}, fmt.Errorf("clusters[%d].block: %w", i, err)
		}
	}
	for i, e := range s.Engines {
		if e.Process.PID < 0 || e.Process.PID == 1 {
			return State{}, fmt.Errorf("engines[%d].process.pid: %d is not an engine", i, e.Process.PID)
		}
	}
	if s.Supervisor.PID < 0 || s.Supervisor.PID == 1 {
		return State{}, fmt.Errorf("supervisor.pid: %d is not a supervisor", s.Supervisor.PID)
	}
	return s, nil
}

// write replaces the file in one step, so that a reader sees the old one or the new one.
func (s State) write() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(statePath(s.Dir), append(data, '\n'))
}

// replaceFile writes a file that only the owner can read, in one step.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// await calls done with the state now and after each write, until done says so or fails, the platform stops or ctx ends. A
// supervisor that dies writes nothing, so its end is an event too.
func await(ctx context.Context, dir string, done func(State) (bool, error)) error {
	changes, err := watch(filepath.Dir(statePath(dir)))
	if err != nil {
		return err
	}
	defer func() { _ = changes.Close() }()
	for {
		s, err := Load(dir)
		if err != nil {
			return err
		}
		if ok, err := done(s); ok || err != nil {
			return err
		}
		if !s.Running() || s.Phase == Stopping {
			return problem.Preconditionf("", "the platform in %s stopped; see %s", dir, filepath.Join(dir, "platform", supervisorLog))
		}
		waiting, cancel := context.WithCancel(ctx)
		died := make(chan struct{})
		go func() {
			defer close(died)
			if s.Supervisor.Await(waiting) == nil {
				cancel()
			}
		}()
		stop := context.AfterFunc(waiting, func() { _ = changes.SetReadDeadline(time.Unix(1, 0)) })
		_, err = changes.Read(make([]byte, 4096))
		stop()
		cancel()
		<-died
		_ = changes.SetReadDeadline(time.Time{})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("watch %s: %w", filepath.Dir(statePath(dir)), err)
		}
	}
}

// watch returns a file that can be read once whenever a file in dir was replaced.
func watch(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}
