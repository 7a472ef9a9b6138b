package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"edgehold.internal/tools/platform/kube/probe"
)

// afterPreStop is the least that a container gets between SIGTERM and SIGKILL when its hook took all of the grace period, as with
// the kubelet.
const afterPreStop = 2 * time.Second

// terminate ends a run: hook, SIGTERM, and SIGKILL when over is closed. Readiness probes go on meanwhile, as with the kubelet:
// while no other pod is ready, those that stop and still serve get the connections.
func (c *container) terminate(r *run, over <-chan struct{}) {
	if c.preStop(r, over) {
		select {
		case <-over:
			late, cancel := context.WithTimeout(context.Background(), afterPreStop)
			defer cancel()
			over = late.Done()
		default:
		}
	}
	r.group.Signal(terminationSignal)
	select {
	case <-r.group.Done():
	case <-over:
		r.group.Kill()
		<-r.group.Done()
	}
}

// preStop runs the hook before a stop and says whether there was one. No grace, no hook.
func (c *container) preStop(r *run, over <-chan struct{}) bool {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PreStop == nil {
		return false
	}
	select {
	case <-over:
		return false
	case <-r.group.Done():
		return false
	default:
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-over:
		case <-r.group.Done():
		case <-stop:
		}
		cancel()
	}()
	if err := c.hook(ctx, r, c.spec.Lifecycle.PreStop); err != nil {
		c.pod.event(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %s", err)
	}
	return true
}

// postStart runs the hook after a start, until it ends, the run ends or the pod is to stop.
func (c *container) postStart(stop context.Context, r *run) error {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PostStart == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(stop)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-r.group.Done():
			cancel()
		case <-ended:
		}
	}()
	return c.hook(ctx, r, c.spec.Lifecycle.PostStart)
}

func (c *container) hook(ctx context.Context, r *run, h *corev1.LifecycleHandler) error {
	if h.Exec != nil {
		return c.exec(ctx, r, h.Exec.Command)
	}
	if h.Sleep != nil {
		if !sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second) {
			return ctx.Err()
		}
		return nil
	}
	check, ok, err := probe.Network(corev1.ProbeHandler{HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket}, c.spec, c.pod.place().Pod, c.pod.host.cfg.Translate)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("the hook has no action: want exec, httpGet or sleep")
	}
	return check(ctx)
}

// maxExecOutput of a probe or hook that is told to people, in bytes.
const maxExecOutput = 1 << 10

// exec runs a command beside a run; its output is in the error when it fails.
func (c *container) exec(ctx context.Context, r *run, command []string) error {
	var out bytes.Buffer
	code, err := c.command(ctx, r, command, nil, &out, &out)
	if err != nil {
		return err
	}
	if code != 0 {
		text := strings.TrimSpace(out.String())
		return fmt.Errorf("command %q exited with %d: %s", command, code, text[:min(len(text), maxExecOutput)])
	}
	return nil
}

// command runs a command with the environment and directory of a run, in a group of its own that ends with the run or with ctx.
func (c *container) command(ctx context.Context, r *run, command []string, in io.Reader, out, errOut io.Writer) (code int, err error) {
	if len(command) == 0 {
		return 0, errors.New("there is no command")
	}
	path, err := c.pod.host.program(command[0])
	if err != nil {
		return 0, err
	}
	streams, err := newStreams(in, out, errOut)
	if err != nil {
		return 0, err
	}
	cmd := &exec.Cmd{Path: path, Args: command, Dir: r.dir, Env: environment(r.env), Stdin: streams.stdin(), Stdout: streams.out, Stderr: streams.err}
	g, err := c.pod.host.spawner.Start(cmd)
	streams.started()
	if err != nil {
		streams.end()
		return 0, err
	}
	select {
	case <-g.Done():
	case <-ctx.Done():
		g.Kill()
		<-g.Done()
		err = ctx.Err()
	case <-r.group.Done():
		g.Kill()
		<-g.Done()
	}
	streams.end()
	code, _ = g.Exit()
	return code, err
}
