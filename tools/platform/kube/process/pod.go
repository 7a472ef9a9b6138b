package process

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"edgehold.internal/tools/platform/kube/environ"
)

// Pod is a pod that runs, or has run. Its methods may be called from several goroutines.
type Pod struct {
	host    *Host
	dir     string
	ip      netip.Addr // in the API: 10.B.x.y
	changed func()

	stopping context.Context // ends when the pod is to stop
	stop     context.CancelFunc
	killed   chan struct{} // closed when the grace period is over
	kill     func()
	done     chan struct{}
	renew    map[string]time.Time // when a token file is to be made anew; of the pod's own goroutine

	mu         sync.Mutex
	pod        *corev1.Pod // the newest one seen; never written to
	killAt     time.Time
	killTimer  *time.Timer
	inits      []*container
	mains      []*container
	prepared   bool // volumes are there
	finished   bool
	failReason string // why the pod as a whole failed, such as DeadlineExceeded
	failText   string
	startTime  metav1.Time
	conditions map[corev1.PodConditionType]corev1.PodCondition
}

// Start runs a pod at an address of the cluster. What its status says of containers that ran before the node was restarted is taken
// up: they are started again in place, as their restart policy allows. changed is called, from any goroutine and without waiting for
// it to look, whenever Status says something new.
func (h *Host) Start(pod *corev1.Pod, ip netip.Addr, changed func()) *Pod {
	p := &Pod{
		host: h, dir: filepath.Join(h.cfg.Dir, string(pod.UID)), ip: ip, changed: changed, pod: pod,
		killed: make(chan struct{}), done: make(chan struct{}), renew: map[string]time.Time{},
		startTime: metav1.Now(), conditions: map[corev1.PodConditionType]corev1.PodCondition{},
	}
	p.stopping, p.stop = context.WithCancel(context.Background())
	p.kill = sync.OnceFunc(func() { close(p.killed) })
	if pod.Status.StartTime != nil {
		p.startTime = *pod.Status.StartTime
	}
	for _, c := range pod.Status.Conditions {
		p.conditions[c.Type] = c
	}
	for i := range pod.Spec.InitContainers {
		p.inits = append(p.inits, newContainer(p, &pod.Spec.InitContainers[i], true, nil)) // a new start begins with them
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		p.mains = append(p.mains, newContainer(p, c, false, statusOf(pod.Status.ContainerStatuses, c.Name)))
	}
	go p.run()
	return p
}

func statusOf(all []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// Update tells the pod what the API says of it now. Only its metadata is followed.
func (p *Pod) Update(pod *corev1.Pod) {
	p.mu.Lock()
	p.pod = pod
	p.mu.Unlock()
	p.changed()
}

// Stop ends the pod: hooks and SIGTERM now, SIGKILL when grace is over. A later call can only make the grace shorter.
func (p *Pod) Stop(grace time.Duration) {
	p.mu.Lock()
	at := time.Now().Add(grace)
	if !p.killAt.IsZero() && !at.Before(p.killAt) {
		p.mu.Unlock()
		return
	}
	p.killAt = at
	if p.killTimer != nil {
		p.killTimer.Stop()
	}
	if grace <= 0 {
		p.kill()
	} else {
		p.killTimer = time.AfterFunc(grace, p.kill)
	}
	p.mu.Unlock()
	p.stop()
	p.changed()
}

// Done is closed when nothing of the pod runs or will run.
func (p *Pod) Done() <-chan struct{} { return p.done }

// IP of the pod in the API.
func (p *Pod) IP() netip.Addr { return p.ip }

// Remove deletes the files of a pod that is done.
func (p *Pod) Remove() error { return os.RemoveAll(p.dir) }

func (p *Pod) spec() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pod
}

func (p *Pod) place() environ.Place {
	return environ.Place{Pod: p.host.cfg.Translate(p.ip), Host: p.host.cfg.HostIP, Allocatable: p.host.cfg.Allocatable}
}

// grace of the pod's own specification.
func grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

func (p *Pod) event(kind, reason, format string, args ...any) {
	p.host.cfg.Cluster.Event(p.spec(), kind, reason, fmt.Sprintf(format, args...))
}

// run is the life of the pod.
func (p *Pod) run() {
	defer func() {
		p.mu.Lock()
		p.finished = true
		if p.killTimer != nil {
			p.killTimer.Stop()
		}
		p.mu.Unlock()
		p.stop()
		p.changed()
		close(p.done)
	}()
	pod := p.spec()
	if pod.Annotations[SimulateAnnotation] == "true" {
		p.simulate()
		return
	}
	defer p.deadline(pod)()
	again, ok := p.prepare()
	if !ok {
		return
	}
	refreshed := p.refresh(again)
	defer refreshed()

	// Sidecars outlive the others, so that what serves until the end has what it needs.
	sidecars, stopSidecars := context.WithCancel(context.Background())
	var group sync.WaitGroup
	defer group.Wait()
	defer stopSidecars()
	if p.startInit(sidecars, &group) {
		var mains sync.WaitGroup
		for _, c := range p.mains {
			mains.Go(func() { c.supervise(p.stopping) })
		}
		mains.Wait()
	}
	p.Stop(grace(pod)) // what is left of a stop that was asked for, or a full one for the sidecars of a pod that is done
}

// startInit runs the init containers one after the other, and starts sidecars among them. It returns whether the pod may go on.
func (p *Pod) startInit(sidecars context.Context, group *sync.WaitGroup) bool {
	for _, c := range p.inits {
		if c.sidecar() {
			group.Go(func() { c.supervise(sidecars) })
			select {
			case <-c.up:
				continue
			case <-p.stopping.Done():
				return false
			}
		}
		c.supervise(p.stopping)
		if p.stopping.Err() != nil || !c.succeeded() {
			return false
		}
	}
	return true
}

// deadline enforces activeDeadlineSeconds; the function that it returns ends that.
func (p *Pod) deadline(pod *corev1.Pod) func() {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return func() {}
	}
	limit := time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second
	t := time.AfterFunc(time.Until(p.startTime.Add(limit)), func() {
		p.mu.Lock()
		p.failReason, p.failText = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
		p.mu.Unlock()
		p.event(corev1.EventTypeNormal, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline of %s", limit)
		p.Stop(grace(pod))
	})
	return func() { t.Stop() }
}

// The first and the longest pause between attempts to make the volumes of a pod. What is missing is often made in the same moment.
const (
	firstVolumeRetry = 50 * time.Millisecond
	lastVolumeRetry  = 5 * time.Second
)

// prepare makes the pod's directory and volumes, and waits for what they need to exist. It returns when the files should be made
// anew, and false when the pod is to stop.
func (p *Pod) prepare() (time.Time, bool) {
	told := ""
	for pause := firstVolumeRetry; ; pause = min(2*pause, lastVolumeRetry) {
		err := os.MkdirAll(p.dir, 0o700)
		var again time.Time
		if err == nil {
			again, err = p.volumes(p.stopping)
		}
		if p.stopping.Err() != nil {
			return time.Time{}, false
		}
		if err == nil {
			p.mu.Lock()
			p.prepared = true
			p.mu.Unlock()
			return again, true
		}
		if told != err.Error() && (pause > 10*firstVolumeRetry || errors.Is(err, errUnsupported)) {
			told = err.Error()
			p.event(corev1.EventTypeWarning, "FailedMount", "%s", err)
		}
		if errors.Is(err, errUnsupported) {
			pause = lastVolumeRetry * 12 // nothing changes but the program
		}
		select {
		case <-p.stopping.Done():
			return time.Time{}, false
		case <-time.After(pause):
		}
	}
}

// refresh keeps the files of volumes new until the function that it returns is called.
func (p *Pod) refresh(again time.Time) (end func()) {
	if again.IsZero() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(again)):
			}
			next, err := p.volumes(ctx)
			if err != nil && ctx.Err() == nil {
				p.event(corev1.EventTypeWarning, "FailedMount", "the files stay as they are: %s", err)
			}
			if again = next; err != nil {
				again = time.Now().Add(refreshEvery)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// simulate is a pod without processes.
func (p *Pod) simulate() {
	set := func(state corev1.ContainerState, up bool) {
		p.mu.Lock()
		p.prepared = true
		for _, c := range p.mains {
			c.state, c.started, c.ready, c.over = state, up, up, !up
		}
		p.mu.Unlock()
		p.changed()
	}
	began := metav1.Now()
	p.mu.Lock()
	p.inits = nil
	p.mu.Unlock()
	set(corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}, true)
	<-p.stopping.Done()
	set(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: began, FinishedAt: metav1.Now()}}, false)
}

// container by name, of any kind.
func (p *Pod) container(name string) (*container, error) {
	for _, c := range append(p.inits[:len(p.inits):len(p.inits)], p.mains...) {
		if c.spec.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s has no container %q", p.spec().Namespace, p.spec().Name, name)
}

// environment of a container.
func (p *Pod) environment(ctx context.Context, c *corev1.Container, terminationLog string) ([]environ.Var, error) {
	pod := p.spec()
	builtin := []environ.Var{
		{Name: "PATH", Value: os.Getenv("PATH")},
		{Name: "HOME", Value: p.dir},
		{Name: "HOSTNAME", Value: pod.Name},
		{Name: "POD_IP", Value: p.place().Pod.String()},
		{Name: "EDGEHOLD_TERMINATION_LOG", Value: terminationLog},
	}
	for _, kv := range p.host.cfg.Env {
		builtin = append(builtin, split(kv))
	}
	builtin = append(builtin, p.mounts(pod, c)...)
	cluster := p.host.cfg.Cluster
	return environ.Resolve(pod, c, p.place(), environ.Sources{
		ConfigMap: func(name string) (*corev1.ConfigMap, error) { return cluster.ConfigMap(ctx, pod.Namespace, name) },
		Secret:    func(name string) (*corev1.Secret, error) { return cluster.Secret(ctx, pod.Namespace, name) },
		Missing:   cluster.Missing,
	}, builtin)
}
