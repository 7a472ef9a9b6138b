package platform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edgehold/platform/process"
)

const (
	// nodeGrace is how long a node has to stop its pods, which have terminationGracePeriodSeconds (30 by default) each.
	nodeGrace = 35 * time.Second
	// engineGrace is how long a control plane or Temporal has to stop.
	engineGrace = 15 * time.Second
)

// supervisor owns the state; every change of it goes through update.
type supervisor struct {
	cfg      Config
	log      *slog.Logger
	starter  *process.Starter
	progress io.Writer // JSON lines of Progress, to the one who called Up
	engines  []*engine

	mu    sync.Mutex
	state State
	ready int // engines that were ready once
}

// Supervise runs the platform until ctx ends, which begins the ordered stop: nodes first, so that pods end while their API
// is there. Progress goes to progress as JSON lines until the platform is ready or has failed. It returns nil after a stop
// that was asked for.
func Supervise(ctx context.Context, cfg Config, progress io.WriteCloser) (err error) {
	report := json.NewEncoder(progress)
	defer func() {
		if err != nil {
			_ = report.Encode(Progress{Error: err.Error()})
		}
		_ = progress.Close()
	}()
	if err := cfg.Validate(); err != nil {
		return err
	}
	home := filepath.Join(cfg.Dir, "platform")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return problem.Preconditionf("--dir", "%w", err)
	}
	lock, err := takeLock(cfg.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	former, err := recall(cfg)
	if err != nil {
		return err
	}
	file, err := openLog(filepath.Join(home, supervisorLog), logLimit)
	if err != nil {
		return problem.Preconditionf("--dir", "%w", err)
	}
	defer func() { _ = file.Close() }()
	if err := process.Adopt(); err != nil {
		return err
	}
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return err
	}
	owner := fmt.Sprintf("the platform in %s (supervisor %d)", cfg.Dir, self.PID)
	locks, blocks, err := takeBlocks(ctx, cfg.Dir, owner, cfg.Clusters, former)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range locks {
			_ = l.Close()
		}
	}()
	s := &supervisor{cfg: cfg, log: slog.New(slog.NewTextHandler(file, nil)), starter: process.NewStarter(), progress: progress}
	defer s.starter.Close()
	s.state = State{Version: stateVersion, Dir: cfg.Dir, Phase: Starting, Supervisor: self, StartedAt: time.Now().UTC().Truncate(time.Millisecond),
		Kubeconfig: filepath.Join(cfg.Dir, "kubeconfig")}
	s.plan(blocks)
	if err := s.update(func(*State) {}); err != nil {
		return problem.Preconditionf("--dir", "%w", err)
	}
	s.log.Info("starting", "dir", cfg.Dir, "clusters", cfg.Clusters, "temporal", !cfg.NoTemporal, "blocks", blocks)
	return s.run(ctx)
}

// recall reads what the last start left: the blocks that are to be used again. With Fresh it removes everything instead.
func recall(cfg Config) ([]netip.Prefix, error) {
	if cfg.Fresh {
		return nil, wipe(cfg.Dir)
	}
	former, err := Load(cfg.Dir)
	if errors.Is(err, errNoState) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var blocks []netip.Prefix
	for _, c := range former.Clusters {
		blocks = append(blocks, c.Block)
	}
	return blocks, nil
}

// wipe removes all state but the lock, which is held, and the binaries.
func wipe(dir string) error {
	home := filepath.Join(dir, "platform")
	entries, err := os.ReadDir(home)
	if err != nil {
		return problem.Preconditionf("--fresh", "%w", err)
	}
	for _, e := range entries {
		if e.Name() == lockName || e.Name() == "supervisor.crash" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(home, e.Name())); err != nil {
			return problem.Preconditionf("--fresh", "%w", err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "kubeconfig")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return problem.Preconditionf("--fresh", "%w", err)
	}
	return nil
}

// plan lays out the clusters and their engines.
func (s *supervisor) plan(blocks []netip.Prefix) {
	home := filepath.Join(s.cfg.Dir, "platform")
	for i, b := range blocks {
		name := fmt.Sprintf("cluster-%d", i+1)
		dir := filepath.Join(home, name)
		kubeconfig := filepath.Join(dir, "kubeconfig")
		s.state.Clusters = append(s.state.Clusters, ClusterState{Name: name, Context: name, Block: b, Kubeconfig: kubeconfig})
		plane := s.engine(fmt.Sprintf("control-plane-%d", i+1), ControlPlane, name, engineGrace,
			"--dir", dir, "--name", name, "--bind", apiAddress(b), "--port", "0", "--service-cidr", serviceCIDR(b).String())
		node := s.engine(fmt.Sprintf("node-%d", i+1), Node, name, nodeGrace,
			"--kubeconfig", kubeconfig, "--dir", filepath.Join(home, fmt.Sprintf("node-%d", i+1)), "--name", fmt.Sprintf("node-%d", i+1),
			"--block", b.String(), "--images", s.cfg.Bin, "--listen", "127.0.0.1:0")
		node.after = plane
	}
	if !s.cfg.NoTemporal {
		s.state.Temporal = &TemporalState{Namespace: "default"}
		s.engine("temporal", Temporal, "", engineGrace, "--dir", filepath.Join(home, "temporal"), "--namespace", "default")
	}
}

func (s *supervisor) engine(name, kind, cluster string, grace time.Duration, args ...string) *engine {
	e := &engine{name: name, kind: kind, cluster: cluster, grace: grace, path: filepath.Join(s.cfg.Bin, "edgehold-"+kind),
		args: append(args, "--die-with-stdin"), first: make(chan struct{}), log: filepath.Join(s.cfg.Dir, "platform", name+".log")}
	s.engines = append(s.engines, e)
	s.state.Engines = append(s.state.Engines, Engine{Name: name, Kind: kind, Cluster: cluster, Log: e.log})
	return e
}

// run starts everything, keeps it up and stops it in order.
func (s *supervisor) run(ctx context.Context) error {
	reaped := s.reap()
	defer reaped()
	// Two contexts, because nodes stop first.
	nodes, stopNodes := context.WithCancel(context.Background())
	rest, stopRest := context.WithCancel(context.Background())
	defer stopNodes()
	defer stopRest()
	failed := make(chan error, len(s.engines))
	var nodesDone, restDone sync.WaitGroup
	for _, e := range s.engines {
		group, engines := &restDone, rest
		if e.kind == Node {
			group, engines = &nodesDone, nodes
		}
		group.Go(func() {
			if err := s.supervise(engines, e); err != nil {
				failed <- err
			}
		})
	}
	err := s.start(ctx, failed)
	if err == nil && ctx.Err() == nil {
		_ = json.NewEncoder(s.progress).Encode(Progress{Ready: len(s.engines), Total: len(s.engines)})
		s.log.Info("ready", "after", time.Since(s.state.StartedAt).Round(time.Millisecond).String())
		<-ctx.Done()
	}
	s.log.Info("stopping", "cause", fmt.Sprint(errors.Join(err, context.Cause(ctx))))
	_ = s.update(func(st *State) { st.Phase = Stopping })
	stopNodes()
	nodesDone.Wait()
	stopRest()
	restDone.Wait()
	if n := s.starter.KillOrphans(); n > 0 {
		s.log.Warn("killed processes that engines left behind", "count", n)
	}
	s.log.Info("stopped")
	return errors.Join(err, s.update(func(st *State) { st.Phase, st.Supervisor = Stopped, process.ID{} }))
}

// start waits until each engine was ready once. Ending ctx meanwhile is no error; the stop follows.
func (s *supervisor) start(ctx context.Context, failed <-chan error) error {
	starting, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout, errors.New("too slow"))
	defer cancel()
	for _, e := range s.engines {
		select {
		case <-e.first:
		case err := <-failed:
			return err
		case <-starting.Done():
			if ctx.Err() != nil {
				return nil
			}
			return problem.Preconditionf("", "%s was not ready after %s; see %s or allow more with --timeout\n%s", e.name, s.cfg.Timeout, e.log, tail(e.log, 5))
		}
	}
	s.mu.Lock()
	clusters := slices.Clone(s.state.Clusters) // an engine that is restarted now changes them
	s.mu.Unlock()
	if err := mergeKubeconfigs(clusters, s.state.Kubeconfig); err != nil {
		return problem.Preconditionf("", "%w", err)
	}
	return s.update(func(st *State) { st.Phase = Ready })
}

// update changes the state and writes it.
func (s *supervisor) update(change func(*State)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	for i := range s.state.Clusters {
		c := &s.state.Clusters[i]
		c.PIDs = map[string]int{}
		for _, e := range s.state.Engines {
			if e.Cluster == c.Name && e.Process.PID != 0 {
				c.PIDs[e.Kind] = e.Process.PID
			}
		}
	}
	return s.state.write()
}

// reap collects orphans for as long as the supervisor runs.
func (s *supervisor) reap() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	var g errgroup.Group
	g.Go(func() error {
		for range signals {
			s.starter.Reap()
		}
		return nil
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		_ = g.Wait()
	}
}
