package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"edgehold.internal/tools/platform/kube/environ"
	"edgehold.internal/tools/platform/kube/group"
	"edgehold.internal/tools/platform/kube/logfile"
	"edgehold.internal/tools/platform/kube/probe"
)

// container is one container of a pod over all its runs. Its fields are guarded by the pod's mutex, but for those that never change.
type container struct {
	pod  *Pod
	spec *corev1.Container
	init bool
	up   chan struct{} // closed at the first time that it is started and its startup probe has passed
	once sync.Once

	state, last corev1.ContainerState
	restarts    int32
	started     bool
	ready       bool
	over        bool  // it will not be started again
	newest      int32 // number of the last run that was started; -1: none
	run         *run  // the one that goes on, or nil
}

// run is one life of a container.
type run struct {
	group *group.Group
	env   []environ.Var
	dir   string
	log   *logfile.Log
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// newContainer takes up what a status says of the time before the node was restarted, if there is one.
func newContainer(p *Pod, spec *corev1.Container, init bool, before *corev1.ContainerStatus) *container {
	c := &container{pod: p, spec: spec, init: init, up: make(chan struct{}), newest: -1, state: waiting("ContainerCreating", "")}
	if len(p.pod.Spec.InitContainers) > 0 {
		c.state = waiting("PodInitializing", "")
	}
	if before == nil {
		return c
	}
	c.restarts, c.last = before.RestartCount, before.LastTerminationState
	if before.State.Waiting == nil || c.last.Terminated != nil {
		c.newest = c.restarts
	}
	switch s := before.State; {
	case s.Running != nil:
		ended := corev1.ContainerStateTerminated{
			ExitCode: 137, Signal: 9, Reason: "ContainerStatusUnknown", Message: "The container ended with its node.",
			StartedAt: s.Running.StartedAt, FinishedAt: metav1.Now(), ContainerID: before.ContainerID,
		}
		c.ended(&ended)
	case s.Terminated != nil:
		c.ended(s.Terminated)
	}
	return c
}

// ended records a run from before the restart of the node.
func (c *container) ended(t *corev1.ContainerStateTerminated) {
	if !c.restartable(t.ExitCode) {
		c.state, c.over = corev1.ContainerState{Terminated: t}, true
		return
	}
	c.last = corev1.ContainerState{Terminated: t}
	c.restarts++
}

// sidecar is an init container that goes on beside the others.
func (c *container) sidecar() bool {
	return c.init && c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// restartable says whether a container that ended with a code is started again.
func (c *container) restartable(code int32) bool {
	policy := c.pod.spec().Spec.RestartPolicy
	if c.spec.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.spec.RestartPolicy)
	}
	if c.init && !c.sidecar() && policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure // an init container is done when it succeeded
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	default:
		return true
	}
}

func (c *container) succeeded() bool {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

// set changes what the status says.
func (c *container) set(change func()) {
	c.pod.mu.Lock()
	change()
	c.pod.mu.Unlock()
	c.pod.changed()
}

// supervise starts the container and starts it again as its policy says, until it is over or stop ends.
func (c *container) supervise(stop context.Context) {
	cfg := c.pod.host.cfg
	back := backOff{base: cfg.BackOffBase, limit: cfg.BackOffMax, reset: cfg.BackOffReset}
	c.pod.mu.Lock()
	over := c.over
	c.pod.mu.Unlock()
	if over {
		return
	}
	for {
		path, env, ok := c.configure(stop)
		if !ok {
			c.set(func() { c.over = true })
			return
		}
		began := time.Now()
		end := c.live(stop, path, env)
		restart := stop.Err() == nil && c.restartable(end.ExitCode)
		pause := back.next(time.Since(began))
		c.set(func() {
			c.started, c.ready, c.run = false, false, nil
			c.state, c.over = corev1.ContainerState{Terminated: end}, !restart
			if restart && pause > 0 {
				c.last = c.state
				c.state = waiting("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", pause, c.spec.Name, c.pod.pod.Name))
			}
		})
		if !restart {
			return
		}
		if pause > 0 {
			c.pod.event(corev1.EventTypeWarning, "BackOff", "Back-off %s restarting failed container %s (exit code %d)", pause, c.spec.Name, end.ExitCode)
		}
		if !sleep(stop, pause) {
			c.set(func() { c.state, c.over = corev1.ContainerState{Terminated: end}, true })
			return
		}
		c.set(func() {
			c.last = corev1.ContainerState{Terminated: end}
			c.restarts++
		})
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errImagePullFor is how long a status says ErrImagePull before it says ImagePullBackOff.
const errImagePullFor = time.Second

// configure waits until the image and all that the environment refers to exist. It returns false when stop ended first.
func (c *container) configure(stop context.Context) (path string, env []environ.Var, ok bool) {
	cfg := c.pod.host.cfg
	pull := cfg.BackOffBase
	for {
		var err error
		if path, err = c.pod.host.executable(c.spec.Image); err == nil {
			break
		}
		c.set(func() { c.state = waiting("ErrImagePull", err.Error()) })
		c.pod.event(corev1.EventTypeWarning, "Failed", "Failed to pull %s", err)
		if !sleep(stop, min(errImagePullFor, pull)) {
			return "", nil, false
		}
		c.set(func() {
			c.state = waiting("ImagePullBackOff", fmt.Sprintf("Back-off pulling %s", err))
		})
		if !sleep(stop, pull) {
			return "", nil, false
		}
		pull = min(2*pull, cfg.BackOffMax)
	}
	for pause := firstVolumeRetry; ; pause = min(2*pause, lastVolumeRetry) {
		var err error
		if env, err = c.pod.environment(stop, c.spec, c.terminationLog()); err == nil {
			return path, env, true
		}
		if stop.Err() != nil {
			return "", nil, false
		}
		if pause > 10*firstVolumeRetry { // what is made in the same moment is not worth a word
			c.set(func() { c.state = waiting("CreateContainerConfigError", err.Error()) })
			if pause < lastVolumeRetry {
				c.pod.event(corev1.EventTypeWarning, "Failed", "Error: %s", err)
			}
		}
		if !sleep(stop, pause) {
			return "", nil, false
		}
	}
}

// startFailed is the exit code of a container that could not be started, as of the container runtimes.
const startFailed = 128

// live is one run from start to end.
func (c *container) live(stop context.Context, path string, env []environ.Var) *corev1.ContainerStateTerminated {
	began := metav1.Now()
	r, copied, err := c.start(path, env)
	if err != nil {
		c.pod.event(corev1.EventTypeWarning, "Failed", "Error: %s", err)
		return &corev1.ContainerStateTerminated{ExitCode: startFailed, Reason: "StartError", Message: err.Error(), StartedAt: began, FinishedAt: metav1.Now()}
	}
	defer r.log.Close()
	c.pod.mu.Lock()
	c.run, c.newest = r, c.restarts // `kubectl logs` and hooks of the exec kind need it
	c.pod.mu.Unlock()

	// ctx ends with the run, and with it all that looks at the run.
	ctx, cancel := context.WithCancel(context.Background())
	var watchers sync.WaitGroup
	failed := make(chan string, 3) // why the run is to end: two probes and the hook
	if err := c.postStart(stop, r); err != nil && stop.Err() == nil {
		c.pod.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %s", err)
		failed <- "FailedPostStartHook"
	} else {
		noStartup, noReadiness := c.spec.StartupProbe == nil, c.spec.ReadinessProbe == nil
		c.set(func() {
			c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
			c.started, c.ready = noStartup, noStartup && noReadiness
		})
		watchers.Go(func() { c.probe(ctx, r, failed) })
	}

	select {
	case <-r.group.Done():
	case reason := <-failed:
		limit := grace(c.pod.spec())
		if p := c.spec.LivenessProbe; p != nil && p.TerminationGracePeriodSeconds != nil && reason == "liveness" {
			limit = time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
		}
		over, end := context.WithTimeout(context.Background(), limit)
		detach := context.AfterFunc(stop, func() { // a pod that is stopped meanwhile may have less time
			select {
			case <-c.pod.killed:
				end()
			case <-over.Done():
			}
		})
		c.terminate(r, over.Done())
		detach()
		end()
	case <-stop.Done():
		c.terminate(r, c.pod.killed)
	}
	<-r.group.Done()
	cancel()
	watchers.Wait()
	copied()
	return c.exit(r, began)
}

// exit is the end of a run as the API tells it.
func (c *container) exit(r *run, began metav1.Time) *corev1.ContainerStateTerminated {
	code, signal := r.group.Exit()
	end := &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Signal: int32(signal), Reason: "Completed", StartedAt: began, FinishedAt: metav1.Now(), ContainerID: containerID(r),
	}
	if code != 0 {
		end.Reason = "Error"
	}
	end.Message = c.terminationMessage(code)
	return end
}

func containerID(r *run) string { return "process://" + strconv.Itoa(r.group.ID()) }

// The bounds of a termination message, as of the kubelet: of the file, and of the log when there is none.
const (
	maxTerminationMessage = 4096
	maxTerminationLog     = 2048
	terminationLogLines   = 80
)

func (c *container) terminationLog() string {
	return filepath.Join(c.pod.dir, "containers", c.spec.Name, "termination-log")
}

func (c *container) terminationMessage(code int) string {
	if f, err := os.Open(c.terminationLog()); err == nil {
		defer f.Close()
		data, _ := io.ReadAll(io.LimitReader(f, maxTerminationMessage))
		if len(data) > 0 {
			return strings.ToValidUTF8(string(data), "")
		}
	}
	if code == 0 || c.spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
		return ""
	}
	var b strings.Builder
	_ = logfile.Read(context.Background(), &b, c.logPath(c.restartCount()), nil, logfile.Options{Tail: terminationLogLines})
	text := b.String()
	return strings.ToValidUTF8(text[max(0, len(text)-maxTerminationLog):], "")
}

func (c *container) restartCount() int32 {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.restarts
}

// logPath of the run that follows a number of restarts.
func (c *container) logPath(restarts int32) string {
	return filepath.Join(c.pod.dir, "containers", c.spec.Name, strconv.Itoa(int(restarts))+".log")
}

// start starts the process. The function that it returns waits until all output is in the log.
func (c *container) start(path string, env []environ.Var) (*run, func(), error) {
	restarts := c.restartCount()
	if err := os.MkdirAll(filepath.Dir(c.terminationLog()), 0o700); err != nil {
		return nil, nil, err
	}
	_ = os.Remove(c.terminationLog())
	for _, suffix := range []string{"", ".1"} {
		_ = os.Remove(c.logPath(restarts-2) + suffix) // the last run is kept for `kubectl logs --previous`
	}
	get := lookup(env)
	args := make([]string, 0, len(c.spec.Command)+len(c.spec.Args))
	for _, a := range append(c.spec.Command[:len(c.spec.Command):len(c.spec.Command)], c.spec.Args...) {
		args = append(args, environ.Expand(a, get))
	}
	if len(c.spec.Command) > 0 {
		var err error
		if path, err = c.pod.host.program(args[0]); err != nil {
			return nil, nil, err
		}
	} else {
		args = append([]string{filepath.Base(path)}, args...)
	}
	dir := c.spec.WorkingDir
	if dir == "" {
		dir = c.pod.dir
	}
	log, err := logfile.Create(c.logPath(restarts), c.pod.host.cfg.LogLimit)
	if err != nil {
		return nil, nil, err
	}
	cmd := &exec.Cmd{Path: path, Args: args, Dir: dir, Env: environment(env)}
	var copies sync.WaitGroup
	var reads []*os.File
	for name, out := range map[string]*io.Writer{"stdout": &cmd.Stdout, "stderr": &cmd.Stderr} {
		read, write, err := os.Pipe()
		if err != nil {
			log.Close()
			return nil, nil, err
		}
		defer write.Close() // the process has its own
		*out = write
		reads = append(reads, read)
		copies.Go(func() {
			log.Copy(name, read)
			read.Close()
		})
	}
	g, err := c.pod.host.spawner.Start(cmd)
	copied := func() {
		// Somebody who left the group may hold the pipes open for ever.
		for _, read := range reads {
			_ = read.SetReadDeadline(time.Now().Add(time.Second))
		}
		copies.Wait()
	}
	if err != nil {
		for _, read := range reads {
			_ = read.SetReadDeadline(time.Now())
		}
		copies.Wait()
		log.Close()
		return nil, nil, err
	}
	return &run{group: g, env: env, dir: dir, log: log}, copied, nil
}

func lookup(env []environ.Var) func(string) (string, bool) {
	m := make(map[string]string, len(env))
	for _, v := range env {
		m[v.Name] = v.Value
	}
	return func(name string) (string, bool) {
		v, ok := m[name]
		return v, ok
	}
}

func environment(env []environ.Var) []string {
	out := make([]string, len(env))
	for i, v := range env {
		out[i] = v.Name + "=" + v.Value
	}
	return out
}

func split(kv string) environ.Var {
	name, value, _ := strings.Cut(kv, "=")
	return environ.Var{Name: name, Value: value}
}

// probe watches a run until ctx ends: first the startup probe, then readiness and liveness side by side.
func (c *container) probe(ctx context.Context, r *run, failed chan<- string) {
	unhealthy := func(kind string) func(error) {
		return func(err error) { c.pod.event(corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", kind, err) }
	}
	end := func(kind string) func(bool, error) bool {
		return func(ok bool, why error) bool {
			if !ok {
				c.pod.event(corev1.EventTypeNormal, "Killing", "Container %s failed %s probe, will be restarted: %s", c.spec.Name, kind, why)
				failed <- kind
			}
			return ok
		}
	}
	if p := c.spec.StartupProbe; p != nil {
		passed := false
		probe.Of(p).Watch(ctx, false, c.check(p.ProbeHandler, r), func(ok bool, why error) bool {
			passed = ok
			end("startup")(ok, why)
			return false
		}, unhealthy("Startup"))
		if !passed {
			return
		}
		c.set(func() { c.started, c.ready = true, c.spec.ReadinessProbe == nil })
	}
	c.once.Do(func() { close(c.up) })
	var both sync.WaitGroup
	defer both.Wait()
	if p := c.spec.LivenessProbe; p != nil {
		s := probe.Of(p)
		s.Eager = false // a failure at the start is one that counts
		both.Go(func() {
			s.Watch(ctx, true, c.check(p.ProbeHandler, r), end("liveness"), unhealthy("Liveness"))
		})
	}
	if p := c.spec.ReadinessProbe; p != nil {
		both.Go(func() {
			probe.Of(p).Watch(ctx, false, c.check(p.ProbeHandler, r), func(ok bool, _ error) bool {
				c.set(func() { c.ready = ok && c.run == r })
				return true
			}, unhealthy("Readiness"))
		})
	}
}

func (c *container) check(h corev1.ProbeHandler, r *run) probe.Check {
	if h.Exec != nil {
		return func(ctx context.Context) error { return c.exec(ctx, r, h.Exec.Command) }
	}
	check, ok, err := probe.Network(h, c.spec, c.pod.place().Pod, c.pod.host.cfg.Translate)
	if err == nil && !ok {
		err = fmt.Errorf("the probe has no action: want exec, httpGet, tcpSocket or grpc")
	}
	if err != nil {
		return func(context.Context) error { return err }
	}
	return check
}
