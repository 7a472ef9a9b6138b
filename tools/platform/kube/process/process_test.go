package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"edgehold.internal/tools/platform/kube/group"
	"edgehold.internal/tools/platform/kube/logfile"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "guard" {
		if err := group.Guard(os.Stdin); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

var errMissing = errors.New("not found")

// fakeCluster has the objects that a test gives it.
type fakeCluster struct {
	mu         sync.Mutex
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
	tokens     int
	events     []string // "reason message"
	told       chan struct{}
}

func (f *fakeCluster) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cm, ok := f.configMaps[name]; ok {
		return cm, nil
	}
	return nil, fmt.Errorf("configmap %q %w", name, errMissing)
}

func (f *fakeCluster) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.secrets[name]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("secret %q %w", name, errMissing)
}

func (f *fakeCluster) Token(_ context.Context, pod *corev1.Pod, audience string, lifetime time.Duration) (string, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens++
	return fmt.Sprintf("token %d of %s for %q", f.tokens, pod.Name, audience), time.Now().Add(lifetime), nil
}

func (f *fakeCluster) Missing(err error) bool { return errors.Is(err, errMissing) }

func (f *fakeCluster) Event(_ *corev1.Pod, _, reason, message string) {
	f.mu.Lock()
	f.events = append(f.events, reason+" "+message)
	f.mu.Unlock()
	select {
	case f.told <- struct{}{}:
	default:
	}
}

func (f *fakeCluster) event(part string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.events, func(e string) bool { return strings.Contains(e, part) })
}

// world is a host with a cluster, and what a test does with them.
type world struct {
	t       *testing.T
	host    *Host
	cluster *fakeCluster
}

var podNumber atomic.Int32

func newWorld(t *testing.T) *world {
	t.Helper()
	images := t.TempDir()
	for _, name := range []string{"sh", "sleep"} {
		for _, dir := range []string{"/bin/", "/usr/bin/"} {
			if _, err := os.Stat(dir + name); err == nil {
				_ = os.Symlink(dir+name, filepath.Join(images, name))
			}
		}
	}
	spawner, err := group.NewSpawner(group.Self("guard"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(spawner.Close)
	f := &fakeCluster{configMaps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}, told: make(chan struct{}, 1)}
	host, err := NewHost(Config{
		Dir: t.TempDir(), Images: images, HostIP: netip.MustParseAddr("127.0.0.1"),
		Translate: func(netip.Addr) netip.Addr { return netip.MustParseAddr("127.0.0.1") },
		Env:       []string{"EDGEHOLD_DIAL_MAP=x"}, APIServer: "https://127.0.0.1:1",
		BackOffBase: 20 * time.Millisecond, BackOffMax: 100 * time.Millisecond, BackOffReset: time.Hour,
		LogLimit: 1 << 20, Cluster: f,
	}, spawner)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, host: host, cluster: f}
}

// shell is a pod with one container that runs a script.
func shell(script string) *corev1.Pod {
	n := podNumber.Add(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", n), Namespace: "default", UID: types.UID(fmt.Sprintf("uid-%d", n))},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways,
			Containers:    []corev1.Container{container1("main", script)},
		},
	}
}

func container1(name, script string) corev1.Container {
	return corev1.Container{Name: name, Image: "local/sh:v1", Args: []string{"-c", script}}
}

// forever ends at once on SIGTERM, and leaves nobody behind.
const forever = "exec sleep 1000"

// running is a started pod that can be waited for.
type running struct {
	*Pod
	t       *testing.T
	w       *world
	changes chan struct{}
}

func (w *world) start(pod *corev1.Pod) *running {
	w.t.Helper()
	r := &running{t: w.t, w: w, changes: make(chan struct{}, 1)}
	r.Pod = w.host.Start(pod, netip.MustParseAddr("10.20.1.1"), func() {
		select {
		case r.changes <- struct{}{}:
		default:
		}
	})
	w.t.Cleanup(func() { r.Stop(0); <-r.Done() })
	return r
}

const patience = 20 * time.Second

func (r *running) status() corev1.PodStatus { return r.Status(corev1.PodStatus{}) }

func (r *running) main() corev1.ContainerStatus { return r.status().ContainerStatuses[0] }

// await waits until the status, or an event, is as wanted.
func (r *running) await(what string, ok func(corev1.PodStatus) bool) corev1.PodStatus {
	r.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		if s := r.status(); ok(s) {
			return s
		}
		select {
		case <-r.changes:
		case <-r.w.cluster.told:
		case <-limit.C:
			r.t.Fatalf("not %s: %+v; events %q", what, r.status(), r.w.cluster.events)
		}
	}
}

func (r *running) awaitReady() {
	r.t.Helper()
	r.await("ready", ready)
}

func ready(s corev1.PodStatus) bool {
	c, ok := find(s.Conditions, corev1.PodReady)
	return ok && c.Status == corev1.ConditionTrue
}

func (r *running) awaitDone() {
	r.t.Helper()
	select {
	case <-r.Done():
	case <-time.After(patience):
		r.t.Fatalf("the pod does not end: %+v", r.status())
	}
}

func (r *running) logs(previous bool) string {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.Logs(r.t.Context(), "main", previous, &out, logfile.Options{Tail: -1}); err != nil {
		r.t.Fatal(err)
	}
	return out.String()
}

func TestPodRunsWithItsEnvironment(t *testing.T) {
	w := newWorld(t)
	pod := shell("")
	c := &pod.Spec.Containers[0]
	c.Args = []string{"-c", `echo $POD_IP $COLOUR $EDGEHOLD_DIAL_MAP "$(COLOUR)" "$0"; echo oops >&2; exec sleep 1000`, "$(UNKNOWN)"}
	c.Env = []corev1.EnvVar{{Name: "COLOUR", Value: "blue"}}
	r := w.start(pod)
	r.awaitReady()
	s := r.status()
	if s.Phase != corev1.PodRunning || s.PodIP != "10.20.1.1" || s.HostIP != "127.0.0.1" {
		t.Errorf("phase %s, pod IP %s, host IP %s", s.Phase, s.PodIP, s.HostIP)
	}
	r.w.awaitLog(r, "127.0.0.1 blue x blue $(UNKNOWN)\n", "oops\n")
	r.Stop(10 * time.Second)
	r.awaitDone()
	if ready(r.status()) {
		t.Error("a pod that has ended is ready")
	}
	if end := r.main().State.Terminated; end == nil || end.Signal != 15 || end.ExitCode != 143 {
		t.Errorf("ended as %+v, want by SIGTERM", end)
	}
	if err := r.Remove(); err != nil {
		t.Error(err)
	}
}

// awaitLog follows the log until all parts have come.
func (w *world) awaitLog(r *running, parts ...string) {
	w.t.Helper()
	r.await("started", func(s corev1.PodStatus) bool { return s.ContainerStatuses[0].State.Waiting == nil })
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	seen := writerFunc(func(p []byte) (int, error) {
		n, err := out.Write(p)
		for _, part := range parts {
			if !strings.Contains(out.String(), part) {
				return n, err
			}
		}
		cancel()
		return n, err
	})
	_ = r.Logs(ctx, "main", false, seen, logfile.Options{Tail: -1, Follow: true})
	for _, part := range parts {
		if !strings.Contains(out.String(), part) {
			w.t.Errorf("log %q lacks %q", out.String(), part)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRestartPolicies(t *testing.T) {
	for _, tc := range []struct {
		policy corev1.RestartPolicy
		script string
		phase  corev1.PodPhase
		code   int32
	}{
		{corev1.RestartPolicyNever, "exit 0", corev1.PodSucceeded, 0},
		{corev1.RestartPolicyNever, "exit 3", corev1.PodFailed, 3},
		{corev1.RestartPolicyOnFailure, "exit 0", corev1.PodSucceeded, 0},
		{corev1.RestartPolicyNever, "kill -9 $$$$", corev1.PodFailed, 137},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.policy, tc.script), func(t *testing.T) {
			w := newWorld(t)
			pod := shell(tc.script)
			pod.Spec.RestartPolicy = tc.policy
			r := w.start(pod)
			r.awaitDone()
			if s := r.status(); s.Phase != tc.phase || r.main().State.Terminated.ExitCode != tc.code || r.main().RestartCount != 0 {
				t.Errorf("phase %s, container %+v", s.Phase, r.main())
			}
		})
	}
}

func TestCrashLoop(t *testing.T) {
	w := newWorld(t)
	pod := shell("echo run $$$$; exit 7")
	pod.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	r := w.start(pod)
	s := r.await("in CrashLoopBackOff", func(s corev1.PodStatus) bool {
		c := s.ContainerStatuses[0]
		return c.RestartCount >= 2 && c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff"
	})
	last := s.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 7 || last.Reason != "Error" || !strings.HasPrefix(last.Message, "run ") {
		t.Errorf("last state %+v, want exit code 7 and the log", last)
	}
	if s.Phase != corev1.PodRunning || ready(s) {
		t.Errorf("phase %s, ready %v", s.Phase, ready(s))
	}
	if !w.cluster.event("BackOff") {
		t.Errorf("no BackOff in %q", w.cluster.events)
	}
	if before := r.logs(true); !strings.HasPrefix(before, "run ") {
		t.Errorf("previous log %q", before)
	}
}

func TestBackOff(t *testing.T) {
	b := backOff{base: 10 * time.Second, limit: 5 * time.Minute, reset: 10 * time.Minute}
	var got []string
	for range 8 {
		got = append(got, b.next(time.Second).String())
	}
	want := []string{"0s", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"}
	if !slices.Equal(got, want) {
		t.Errorf("back-off %v, want %v", got, want)
	}
	if d := b.next(10 * time.Minute); d != 0 {
		t.Errorf("after a long run %s, want 0s", d)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := backOff{base: time.Second, limit: time.Minute, reset: time.Hour}
		before := time.Duration(0)
		for _, ran := range rapid.SliceOf(rapid.Int64Range(0, int64(2*time.Hour))).Draw(t, "runs") {
			wait := b.next(time.Duration(ran))
			if wait < 0 || wait > b.limit || wait < before && time.Duration(ran) < b.reset {
				t.Fatalf("%s after %s", wait, before)
			}
			before = wait
		}
	})
}

func TestTermination(t *testing.T) {
	const deaf = `trap "echo asked" TERM; echo up; while :; do sleep 0.05; done`
	t.Run("SIGKILL when the grace period is over", func(t *testing.T) {
		w := newWorld(t)
		r := w.start(shell(deaf))
		w.awaitLog(r, "up\n")
		began := time.Now()
		r.Stop(time.Second)
		r.awaitDone()
		if took := time.Since(began); took < time.Second || took > 3*time.Second {
			t.Errorf("took %s, want 1s", took)
		}
		if end := r.main().State.Terminated; end.ExitCode != 137 || end.Signal != 9 {
			t.Errorf("ended as %+v", end)
		}
		if log := r.logs(false); !strings.Contains(log, "asked") {
			t.Errorf("log %q: SIGTERM did not come", log)
		}
	})
	t.Run("a second stop can only be sooner", func(t *testing.T) {
		w := newWorld(t)
		r := w.start(shell(deaf))
		w.awaitLog(r, "up\n")
		r.Stop(time.Hour)
		r.Stop(2 * time.Hour)
		r.Stop(0)
		r.awaitDone()
	})
	t.Run("children end with their container", func(t *testing.T) {
		w := newWorld(t)
		r := w.start(shell(`sh -c 'trap "" TERM; echo $$$$; while :; do sleep 1; done' & wait`))
		w.awaitLog(r, "\n")
		child, err := strconv.Atoi(strings.TrimSpace(r.logs(false)))
		if err != nil {
			t.Fatal(err)
		}
		r.Stop(time.Minute)
		r.awaitDone()
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err == nil && !bytes.Contains(state, []byte(") Z")) {
			t.Errorf("child %d lives: %s", child, state)
		}
	})
}

func TestHooks(t *testing.T) {
	var called atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/drain" {
			called.Add(1)
		}
	}))
	defer server.Close()
	u, _ := url.Parse(server.URL)
	port, _ := strconv.Atoi(u.Port())
	for name, hook := range map[string]corev1.LifecycleHandler{
		"exec":  {Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo hook > hooked"}}},
		"http":  {HTTPGet: &corev1.HTTPGetAction{Path: "/drain", Port: intstr.FromInt32(int32(port))}},
		"sleep": {Sleep: &corev1.SleepAction{Seconds: 1}},
	} {
		t.Run("preStop "+name, func(t *testing.T) {
			w := newWorld(t)
			pod := shell(forever)
			pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &hook}
			r := w.start(pod)
			r.awaitReady()
			began := time.Now()
			r.Stop(time.Minute)
			r.awaitDone()
			switch name {
			case "exec":
				if data, err := os.ReadFile(filepath.Join(r.dir, "hooked")); err != nil || string(data) != "hook\n" {
					t.Errorf("hooked: %q, %v", data, err)
				}
			case "http":
				if called.Load() != 1 {
					t.Errorf("called %d times", called.Load())
				}
			case "sleep":
				if took := time.Since(began); took < time.Second {
					t.Errorf("SIGTERM came after %s", took)
				}
			}
		})
	}
	t.Run("preStop takes the whole grace period", func(t *testing.T) {
		w := newWorld(t)
		pod := shell(forever)
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1000}}}
		r := w.start(pod)
		r.awaitReady()
		r.Stop(100 * time.Millisecond)
		r.awaitDone()
		if end := r.main().State.Terminated; end.Signal != 15 {
			t.Errorf("ended as %+v, want by SIGTERM after the hook", end)
		}
	})
	t.Run("postStart fails", func(t *testing.T) {
		w := newWorld(t)
		pod := shell(forever)
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo why; exit 1"}}}}
		r := w.start(pod)
		r.awaitDone()
		if !w.cluster.event("FailedPostStartHook") || !w.cluster.event("why") {
			t.Errorf("events %q", w.cluster.events)
		}
	})
}

func TestInitContainers(t *testing.T) {
	t.Run("in order, then the others", func(t *testing.T) {
		w := newWorld(t)
		pod := shell("cat order; " + forever)
		pod.Spec.InitContainers = []corev1.Container{container1("one", "echo one >> order"), container1("two", "[ -e tried ] || { touch tried; exit 1; }; echo two >> order")}
		r := w.start(pod)
		r.awaitReady()
		w.awaitLog(r, "one\ntwo\n")
		if s := r.status().InitContainerStatuses; s[1].RestartCount != 1 || !s[1].Ready {
			t.Errorf("init containers %+v", s)
		}
	})
	t.Run("a failure is final when nothing is restarted", func(t *testing.T) {
		w := newWorld(t)
		pod := shell(forever)
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		pod.Spec.InitContainers = []corev1.Container{container1("one", "exit 1")}
		r := w.start(pod)
		r.awaitDone()
		if s := r.status(); s.Phase != corev1.PodFailed || s.ContainerStatuses[0].State.Waiting == nil {
			t.Errorf("status %+v", s)
		}
	})
	t.Run("sidecars run beside and end last", func(t *testing.T) {
		w := newWorld(t)
		always := corev1.ContainerRestartPolicyAlways
		pod := shell("[ -e side ] && echo seen; exit 0")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		side := container1("side", "touch side; "+forever)
		side.RestartPolicy = &always
		side.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "[ -e side ]"}}}}
		pod.Spec.InitContainers = []corev1.Container{side}
		r := w.start(pod)
		r.awaitDone()
		if s := r.status(); s.Phase != corev1.PodSucceeded || s.InitContainerStatuses[0].State.Terminated == nil {
			t.Errorf("status %+v", s)
		}
		if log := r.logs(false); log != "seen\n" {
			t.Errorf("log %q", log)
		}
	})
}

func TestProbes(t *testing.T) {
	file := func(name string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "[ -e " + name + " ]"}}}
	}
	t.Run("readiness follows", func(t *testing.T) {
		w := newWorld(t)
		pod := shell(forever)
		pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: file("ready"), PeriodSeconds: 1, FailureThreshold: 1}
		r := w.start(pod)
		r.await("running", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodRunning })
		if ready(r.status()) {
			t.Error("ready before the probe says so")
		}
		path := filepath.Join(r.dir, "ready")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.awaitReady()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		r.await("not ready", func(s corev1.PodStatus) bool { return !ready(s) })
		if r.main().RestartCount != 0 {
			t.Error("readiness restarts")
		}
	})
	t.Run("readiness goes on while the pod stops", func(t *testing.T) {
		w := newWorld(t)
		pod := shell("touch ready; " + forever)
		c := &pod.Spec.Containers[0]
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: file("ready"), PeriodSeconds: 1, FailureThreshold: 1}
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1000}}}
		r := w.start(pod)
		r.awaitReady()
		r.Stop(time.Hour)
		if !ready(r.status()) {
			t.Error("a pod that stops and still serves is not ready: it gets no connections when all stop at once")
		}
		if err := os.Remove(filepath.Join(r.dir, "ready")); err != nil {
			t.Fatal(err)
		}
		r.await("not ready", func(s corev1.PodStatus) bool { return !ready(s) })
	})
	t.Run("liveness restarts", func(t *testing.T) {
		w := newWorld(t)
		pod := shell("touch alive; " + forever)
		pod.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: file("alive"), PeriodSeconds: 1, FailureThreshold: 1, InitialDelaySeconds: 1}
		pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: file("alive")}
		r := w.start(pod)
		r.awaitReady()
		if err := os.Remove(filepath.Join(r.dir, "alive")); err != nil {
			t.Fatal(err)
		}
		s := r.await("restarted", func(s corev1.PodStatus) bool {
			return s.ContainerStatuses[0].RestartCount == 1 && s.ContainerStatuses[0].State.Running != nil
		})
		if last := s.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.Signal != 15 {
			t.Errorf("last state %+v", last)
		}
		if !w.cluster.event("failed liveness probe") {
			t.Errorf("events %q", w.cluster.events)
		}
	})
	t.Run("startup comes first", func(t *testing.T) {
		w := newWorld(t)
		pod := shell(forever)
		pod.Spec.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: file("started"), PeriodSeconds: 1, FailureThreshold: 100}
		r := w.start(pod)
		s := r.await("running", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodRunning })
		if ready(s) || *s.ContainerStatuses[0].Started {
			t.Errorf("started before the probe says so: %+v", s.ContainerStatuses[0])
		}
		if err := os.WriteFile(filepath.Join(r.dir, "started"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.awaitReady()
	})
}

func TestImages(t *testing.T) {
	w := newWorld(t)
	for _, image := range []string{"nginx:1.29", "local/../sh", "local/nothing", "local/", "local/a/b"} {
		if path, err := w.host.executable(image); err == nil {
			t.Errorf("image %q is %s", image, path)
		}
	}
	pod := shell("")
	pod.Spec.Containers[0].Image = "local/late"
	pod.Spec.Containers[0].Args = []string{"-c", forever}
	r := w.start(pod)
	s := r.await("in ImagePullBackOff", func(s corev1.PodStatus) bool {
		waits := s.ContainerStatuses[0].State.Waiting
		return waits != nil && waits.Reason == "ImagePullBackOff"
	})
	if s.Phase != corev1.PodPending || !strings.Contains(s.ContainerStatuses[0].State.Waiting.Message, `"local/late"`) {
		t.Errorf("status %+v", s)
	}
	if err := os.Symlink("/bin/sh", filepath.Join(w.host.cfg.Images, "late")); err != nil {
		t.Fatal(err)
	}
	r.awaitReady()
}

func TestVolumes(t *testing.T) {
	w := newWorld(t)
	mode := int32(0o400)
	pod := shell(`cat $EDGEHOLD_MOUNT_CONF/b; cat $EDGEHOLD_MOUNT_SEC/pass; cat $EDGEHOLD_MOUNT_DOWN/name; ls $EDGEHOLD_MOUNT_CONF; cat $KUBECONFIG; ` + forever)
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Items: []corev1.KeyToPath{{Key: "a", Path: "b"}}}}},
		{Name: "sec", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: &mode}}},
		{Name: "down", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}},
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "kube-api-access-x", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		}}}},
	}
	for _, v := range pod.Spec.Volumes {
		pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/x/" + v.Name})
	}
	w.cluster.secrets["s"] = &corev1.Secret{Data: map[string][]byte{"pass": []byte("word\n")}}
	r := w.start(pod)
	r.await("told of the missing ConfigMap", func(corev1.PodStatus) bool { return w.cluster.event(`configmap "cm" not found`) })
	if s := r.status(); s.Phase != corev1.PodPending || s.ContainerStatuses[0].State.Waiting.Reason != "ContainerCreating" {
		t.Errorf("status %+v", s)
	}
	w.cluster.mu.Lock()
	w.cluster.configMaps["cm"] = &corev1.ConfigMap{Data: map[string]string{"a": "first\n", "c": "hidden"}}
	w.cluster.mu.Unlock()
	r.awaitReady()
	w.awaitLog(r, "first\nword\n"+pod.Name+"b\n", "server: https://127.0.0.1:1")
	sec := r.volumeDir(pod.Spec.Volumes[1])
	if info, err := os.Stat(filepath.Join(sec, "pass")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode of the secret: %v, %v", info.Mode(), err)
	}

	// What changes in the cluster changes in the files, and a token that is good stays.
	r.Stop(0)
	r.awaitDone()
	w.cluster.secrets["s"] = &corev1.Secret{Data: map[string][]byte{"other": []byte("x")}}
	// A node that was killed in the middle has left half a file, which its owner must not write to.
	if err := os.WriteFile(filepath.Join(sec, "..new-other"), []byte("ha"), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := r.volumes(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(sec)
	if err != nil || len(entries) != 1 || entries[0].Name() != "other" {
		t.Errorf("files %v, %v", entries, err)
	}
	if w.cluster.tokens != 1 {
		t.Errorf("%d tokens were made, want 1", w.cluster.tokens)
	}
}

func TestUnsupportedVolumeIsToldOnce(t *testing.T) {
	w := newWorld(t)
	pod := shell(forever)
	pod.Spec.Volumes = []corev1.Volume{{Name: "disk", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}}}
	r := w.start(pod)
	r.await("told", func(corev1.PodStatus) bool { return w.cluster.event(`volume "disk": not supported`) })
	r.Stop(time.Minute)
	r.awaitDone()
	if len(w.cluster.events) != 1 {
		t.Errorf("events %q", w.cluster.events)
	}
}

func TestConfigError(t *testing.T) {
	w := newWorld(t)
	pod := shell(forever)
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "k"}}}}
	r := w.start(pod)
	r.await("in CreateContainerConfigError", func(s corev1.PodStatus) bool {
		waits := s.ContainerStatuses[0].State.Waiting
		return waits != nil && waits.Reason == "CreateContainerConfigError" && strings.Contains(waits.Message, `env X: secret "none"`)
	})
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	pod := shell(forever)
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "COLOUR", Value: "green"}}
	r := w.start(pod)
	r.awaitReady()
	var out, errOut bytes.Buffer
	code, err := r.Exec(t.Context(), "main", []string{"sh", "-c", "cat; echo $COLOUR; echo bad >&2; exit 4"}, strings.NewReader("in "), &out, &errOut)
	if err != nil || code != 4 || out.String() != "in green\n" || errOut.String() != "bad\n" {
		t.Errorf("code %d, %v, output %q, errors %q", code, err, out.String(), errOut.String())
	}
	if _, err := r.Exec(t.Context(), "nobody", []string{"true"}, nil, &out, &out); err == nil {
		t.Error("an unknown container is accepted")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Exec(ctx, "main", []string{"sleep", "1000"}, nil, &out, &out); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("exec that outlives its context: %v", err)
	}
	r.Stop(0)
	r.awaitDone()
	if _, err := r.Exec(t.Context(), "main", []string{"true"}, nil, &out, &out); !errors.Is(err, ErrNotRunning) {
		t.Errorf("exec in a container that ended: %v", err)
	}
}

// After a restart of the node the API still says what was; the pod goes on from there.
func TestResume(t *testing.T) {
	before := corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		Name: "main", RestartCount: 3, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}}
	t.Run("what ran is started again", func(t *testing.T) {
		w := newWorld(t)
		pod := shell(forever)
		pod.Status = before
		r := w.start(pod)
		r.awaitReady()
		if c := r.main(); c.RestartCount != 4 || c.LastTerminationState.Terminated.Reason != "ContainerStatusUnknown" || c.LastTerminationState.Terminated.ExitCode != 137 {
			t.Errorf("container %+v", c)
		}
	})
	t.Run("what must not be restarted has failed", func(t *testing.T) {
		w := newWorld(t)
		pod := shell(forever)
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		pod.Status = before
		r := w.start(pod)
		r.awaitDone()
		if s := r.status(); s.Phase != corev1.PodFailed {
			t.Errorf("status %+v", s)
		}
	})
	t.Run("what was done stays done", func(t *testing.T) {
		w := newWorld(t)
		pod := shell("exit 9")
		pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}}}
		r := w.start(pod)
		r.awaitDone()
		if s := r.status(); s.Phase != corev1.PodSucceeded {
			t.Errorf("status %+v", s)
		}
	})
}

func TestActiveDeadline(t *testing.T) {
	w := newWorld(t)
	pod := shell(forever)
	one := int64(1)
	pod.Spec.ActiveDeadlineSeconds = &one
	r := w.start(pod)
	r.awaitDone()
	if s := r.status(); s.Phase != corev1.PodFailed || s.Reason != "DeadlineExceeded" {
		t.Errorf("phase %s, reason %s", s.Phase, s.Reason)
	}
}

func TestSimulate(t *testing.T) {
	w := newWorld(t)
	pod := shell("exit 1")
	pod.Annotations = map[string]string{SimulateAnnotation: "true"}
	pod.Spec.Containers[0].Image = "registry.example/none"
	r := w.start(pod)
	r.awaitReady()
	r.Stop(time.Minute)
	r.awaitDone()
	if s := r.status(); s.Phase != corev1.PodSucceeded {
		t.Errorf("phase %s", s.Phase)
	}
}

func TestReadinessGatesAndForeignConditions(t *testing.T) {
	w := newWorld(t)
	pod := shell(forever)
	pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "edgehold.internal/in-rotation"}}
	r := w.start(pod)
	r.await("running", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodRunning })
	if ready(r.status()) {
		t.Error("ready without its gate")
	}
	gate := corev1.PodCondition{Type: "edgehold.internal/in-rotation", Status: corev1.ConditionTrue}
	s := r.Status(corev1.PodStatus{Conditions: []corev1.PodCondition{gate}, QOSClass: corev1.PodQOSBurstable})
	if c, ok := find(s.Conditions, gate.Type); !ready(s) || !ok || c != gate || s.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("status %+v", s)
	}
}

// Stops that come at any moment of a pod's life end it.
func TestStopAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		pod := shell(rapid.SampledFrom([]string{forever, "exit 1", "exit 0", `trap "" TERM; while :; do sleep 0.01; done`}).Draw(t, "script"))
		if rapid.Bool().Draw(t, "init") {
			pod.Spec.InitContainers = []corev1.Container{container1("init", "sleep 0.01")}
		}
		if rapid.Bool().Draw(t, "no image") {
			pod.Spec.Containers[0].Image = "local/none"
		}
		p := w.host.Start(pod, netip.MustParseAddr("10.20.1.1"), func() {})
		time.Sleep(time.Duration(rapid.IntRange(0, 60).Draw(t, "ms")) * time.Millisecond) // the moment is what is tried
		p.Stop(time.Duration(rapid.IntRange(0, 50).Draw(t, "grace")) * time.Millisecond)
		select {
		case <-p.Done():
		case <-time.After(patience):
			t.Fatalf("does not end: %+v", p.Status(corev1.PodStatus{}))
		}
		if phase := p.Status(corev1.PodStatus{}).Phase; phase != corev1.PodFailed && phase != corev1.PodSucceeded {
			t.Fatalf("phase %s after the end", phase)
		}
	})
}

func FuzzImage(f *testing.F) {
	for _, seed := range []string{"local/edge:v1", "local/../x", "edge", "local/a/b", "local/a\n"} {
		f.Add(seed)
	}
	h := &Host{cfg: Config{Images: "/nonexistent/images"}}
	f.Fuzz(func(t *testing.T, image string) {
		if m := localImage.FindStringSubmatch(image); m != nil && filepath.Dir(filepath.Join("/images", m[1])) != "/images" {
			t.Fatalf("image %q leaves the directory", image)
		}
		if _, err := h.executable(image); err == nil {
			t.Fatalf("image %q exists", image)
		}
	})
}
