package node_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	watchtools "k8s.io/client-go/tools/watch"

	"edgehold.internal/tools/platform/kube/address"
)

// These tests start the real binaries and use them as anybody would: through the API.

const patience = 60 * time.Second

// serverAddress is the variable that makes this program an HTTP server, for pods of tests.
const serverAddress = "EDGEHOLD_TEST_SERVER"

func TestMain(m *testing.M) {
	if at := os.Getenv(serverAddress); at != "" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(at, http.NotFoundHandler()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// binaries returns the directory of the engines, or skips.
func binaries(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("EDGEHOLD_BIN")
	if dir == "" {
		dir, _ = filepath.Abs("../../../../.edgehold/bin")
	}
	for _, name := range []string{"edgehold-control-plane", "edgehold-node"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Skipf("%s is not in %s: run `make build` first, or set EDGEHOLD_BIN", name, dir)
		}
	}
	return dir
}

// engine is a process that has printed that it is ready.
type engine struct {
	t   *testing.T
	cmd *exec.Cmd
	log *bytes.Buffer
}

// launch starts a binary and decodes its first line into ready.
func launch(t *testing.T, ready any, path string, args ...string) *engine {
	t.Helper()
	e := &engine{t: t, cmd: exec.Command(path, args...), log: &bytes.Buffer{}}
	e.cmd.Stderr = e.log
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.end(syscall.SIGKILL) })
	timer := time.AfterFunc(patience, func() { _ = e.cmd.Process.Kill() })
	defer timer.Stop()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		e.end(syscall.SIGKILL)
		t.Fatalf("%s says %q: %v\n%s", path, line, err, e.log)
	}
	if err := json.Unmarshal(line, ready); err != nil {
		t.Fatalf("%s says %q: %v", path, line, err)
	}
	return e
}

// end sends a signal and waits; it may be called twice.
func (e *engine) end(sig syscall.Signal) error {
	if e.cmd.ProcessState != nil {
		return nil
	}
	_ = e.cmd.Process.Signal(sig)
	return e.cmd.Wait()
}

// platform is a cluster of one node.
type platform struct {
	t          *testing.T
	bin, dir   string
	images     string
	block      netip.Prefix
	kubeconfig string
	control    *engine
	node       *engine
	config     *rest.Config
	client     kubernetes.Interface
	status     string
}

// freeBlock is one whose node address nobody listens on the first port of; tests run beside other platforms.
func freeBlock(t *testing.T) netip.Prefix {
	t.Helper()
	for b := 2 + os.Getpid()%60; b < 100; b++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.3:7", b))
		if err != nil {
			continue
		}
		t.Cleanup(func() { l.Close() }) // held, so that a test beside this one takes another
		return netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", b))
	}
	t.Fatal("no block of addresses is free")
	return netip.Prefix{}
}

func start(t *testing.T) *platform {
	t.Helper()
	p := &platform{t: t, bin: binaries(t), images: t.TempDir(), block: freeBlock(t)}
	var err error
	if p.dir, err = os.MkdirTemp("", "edgehold-"); err != nil { // short: unix sockets
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(p.dir) })
	for _, name := range []string{"/bin/sh"} {
		if err := os.Symlink(name, filepath.Join(p.images, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	p.startControlPlane()
	p.startNode()
	return p
}

func (p *platform) startControlPlane() {
	p.t.Helper()
	base := p.block.Addr().As4()
	var ready struct{ API, Kubeconfig string }
	p.control = launch(p.t, &ready, filepath.Join(p.bin, "edgehold-control-plane"), "--dir", filepath.Join(p.dir, "cp"), "--name", "test",
		"--bind", fmt.Sprintf("127.%d.0.1", base[1]), "--service-cidr", fmt.Sprintf("10.%d.128.0/17", base[1]))
	p.kubeconfig = ready.Kubeconfig
	var err error
	if p.config, err = clientcmd.BuildConfigFromFlags("", ready.Kubeconfig); err != nil {
		p.t.Fatal(err)
	}
	p.config.QPS, p.config.Burst = 500, 500
	if p.client, err = kubernetes.NewForConfig(p.config); err != nil {
		p.t.Fatal(err)
	}
}

func (p *platform) startNode() {
	p.t.Helper()
	var ready struct{ Status string }
	p.node = launch(p.t, &ready, filepath.Join(p.bin, "edgehold-node"), "--kubeconfig", p.kubeconfig, "--dir", filepath.Join(p.dir, "node"),
		"--block", p.block.String(), "--images", p.images, "--back-off-base", "200ms", "--back-off-max", "1s")
	p.status = ready.Status
}

// awaitPods waits until the pods of the namespace are as wanted.
func (p *platform) awaitPods(what string, ok func([]corev1.Pod) bool) []corev1.Pod {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	pods := p.client.CoreV1().Pods("default")
	store := map[types.UID]corev1.Pod{}
	var got []corev1.Pod
	lw := &cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return pods.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return pods.Watch(ctx, o) },
	}
	seen := func(event watch.Event) (bool, error) {
		if pod, is := event.Object.(*corev1.Pod); is {
			if store[pod.UID] = *pod; event.Type == watch.Deleted {
				delete(store, pod.UID)
			}
		}
		got = got[:0]
		for _, pod := range store {
			got = append(got, pod)
		}
		return ok(got), nil
	}
	none := func(s cache.Store) (bool, error) {
		got = got[:0]
		for _, obj := range s.List() {
			got = append(got, *obj.(*corev1.Pod))
		}
		return ok(got), nil
	}
	if _, err := watchtools.UntilWithSync(ctx, lw, &corev1.Pod{}, none, seen); err != nil {
		var states []string
		for _, pod := range got {
			states = append(states, fmt.Sprintf("%s %s %+v", pod.Name, pod.Status.Phase, pod.Status.ContainerStatuses))
		}
		p.t.Fatalf("not %s: %v: %s\n%s", what, err, strings.Join(states, "\n"), p.node.log)
	}
	return slices.Clone(got)
}

func isReady(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func allReady(n int) func([]corev1.Pod) bool {
	return func(pods []corev1.Pod) bool {
		return len(pods) == n && !slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return !isReady(pod) })
	}
}

func shell(script string) corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "local/sh", Args: []string{"-c", script}}}}
}

func (p *platform) deploy(name string, replicas int32, spec corev1.PodSpec) {
	p.t.Helper()
	labels := map[string]string{"app": name}
	_, err := p.client.AppsV1().Deployments("default").Create(p.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *platform) create(name string, spec corev1.PodSpec) *corev1.Pod {
	p.t.Helper()
	pod, err := p.client.CoreV1().Pods("default").Create(p.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return pod
}

// processes that have a pod's directory as their own, so all of this platform and of no other.
func (p *platform) processes() []int {
	p.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		p.t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if dir, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")); err == nil && strings.HasPrefix(dir, p.dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A platform that is stopped while it starts has not failed, and a later start goes on from there.
func TestStopWhileItStarts(t *testing.T) {
	bin := binaries(t)
	dir, err := os.MkdirTemp("", "edgehold-") // short: unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := func() string {
		data, _ := os.ReadFile(filepath.Join(dir, "port"))
		return strings.TrimSpace(string(data))
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	args := []string{"--dir", dir, "--name", "test", "--bind", "127.0.0.1", "--service-cidr", "10.96.128.0/17"}
	for _, moment := range []struct {
		name string
		come func() bool
	}{
		{"it has a port", func() bool { return port() != "" }},
		{"the API answers", func() bool {
			resp, err := client.Get("https://127.0.0.1:" + port() + "/readyz")
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		}},
	} {
		cmd := exec.Command(filepath.Join(bin, "edgehold-control-plane"), args...)
		var log bytes.Buffer
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); !moment.come() && time.Now().Before(deadline); time.Sleep(time.Millisecond) { // none of it is an event
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		began := time.Now()
		if err := cmd.Wait(); err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("stopped when %s: %v after %s\n%s", moment.name, err, time.Since(began), &log)
		}
	}
	var ready struct{ API string }
	e := launch(t, &ready, filepath.Join(bin, "edgehold-control-plane"), args...)
	if err := e.end(syscall.SIGTERM); err != nil {
		t.Errorf("the control plane: %v\n%s", err, e.log)
	}
}

func TestDeployment(t *testing.T) {
	p := start(t)
	script := `echo "pod $HOSTNAME at $POD_IP"; trap "exit 0" TERM; while :; do sleep 0.05; done`
	p.deploy("web", 30, shell(script))
	pods := p.awaitPods("ready", allReady(30))

	addresses := map[string]bool{}
	for _, pod := range pods {
		addresses[pod.Status.PodIP] = true
		if addr, err := netip.ParseAddr(pod.Status.PodIP); err != nil || !p.block.Contains(addr) {
			t.Errorf("address %q of %s", pod.Status.PodIP, pod.Name)
		}
	}
	if len(addresses) != 30 {
		t.Errorf("%d addresses for 30 pods", len(addresses))
	}

	t.Run("logs", func(t *testing.T) {
		pod := pods[0]
		stream, err := p.client.CoreV1().Pods("default").GetLogs(pod.Name, &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		line, err := bufio.NewReader(stream).ReadString('\n')
		local := address.Loopback(netip.MustParseAddr(pod.Status.PodIP))
		if want := fmt.Sprintf("pod %s at %s\n", pod.Name, local); err != nil || line != want {
			t.Errorf("log %q, %v; want %q", line, err, want)
		}
	})
	t.Run("exec", func(t *testing.T) {
		req := p.client.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name(pods[0].Name).SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{Container: "main", Command: []string{"sh", "-c", "cat; exit 3"}, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
		for name, make := range map[string]func() (remotecommand.Executor, error){
			"spdy": func() (remotecommand.Executor, error) {
				return remotecommand.NewSPDYExecutor(p.config, "POST", req.URL())
			},
			"websocket": func() (remotecommand.Executor, error) {
				return remotecommand.NewWebSocketExecutor(p.config, "GET", req.URL().String())
			},
		} {
			executor, err := make()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err = executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: io.Discard})
			if out.String() != "hello" || err == nil || !strings.Contains(err.Error(), "exit code 3") {
				t.Errorf("%s: output %q, %v", name, out.String(), err)
			}
		}
	})
	t.Run("the status page", func(t *testing.T) {
		for path, want := range map[string]string{"/healthz": "ok", "/doors": "[", "/metrics": `edgehold_node_pods{phase="Running"} 30`} {
			resp, err := http.Get(p.status + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
				t.Errorf("%s: %s, want %q in the answer", path, resp.Status, want)
			}
		}
	})
	t.Run("the API survives a kill", func(t *testing.T) {
		before := p.processes()
		_ = p.control.end(syscall.SIGKILL)
		p.startControlPlane()
		p.awaitPods("ready as before", allReady(30))
		after := p.processes()
		// Each pod is a shell, and a sleep that comes and goes.
		lasting := slices.DeleteFunc(slices.Clone(before), func(pid int) bool { return !slices.Contains(after, pid) })
		if len(lasting) < 30 {
			t.Errorf("%d processes before, %d after, and only %d of them the same", len(before), len(after), len(lasting))
		}
	})
	t.Run("nothing outlives a killed node, and its pods come back in place", func(t *testing.T) {
		_ = p.node.end(syscall.SIGKILL)
		deadline := time.Now().Add(5 * time.Second)
		for len(p.processes()) > 0 { // no event tells of processes that are not our children
			if time.Now().After(deadline) {
				t.Fatalf("processes %v are left", p.processes())
			}
			time.Sleep(10 * time.Millisecond)
		}
		p.startNode()
		again := p.awaitPods("ready again", func(now []corev1.Pod) bool {
			return allReady(30)(now) && !slices.ContainsFunc(now, func(pod corev1.Pod) bool { return pod.Status.ContainerStatuses[0].RestartCount == 0 })
		})
		for _, pod := range again {
			c := pod.Status.ContainerStatuses[0]
			if !addresses[pod.Status.PodIP] || c.RestartCount != 1 || c.LastTerminationState.Terminated == nil {
				t.Errorf("pod %s at %s: %+v", pod.Name, pod.Status.PodIP, c)
			}
		}
	})
	t.Run("scaled down at once", func(t *testing.T) {
		if _, err := p.client.AppsV1().Deployments("default").Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		p.awaitPods("gone", func(pods []corev1.Pod) bool { return len(pods) == 0 })
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %s: pods whose processes ended stay in the API", took)
		}
	})
	t.Run("a graceful stop leaves nothing", func(t *testing.T) {
		p.create("last", shell("exec sleep 1000"))
		p.awaitPods("ready", allReady(1))
		if err := p.node.end(syscall.SIGTERM); err != nil {
			t.Errorf("the node: %v\n%s", err, p.node.log)
		}
		if left := p.processes(); len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
		if err := p.control.end(syscall.SIGTERM); err != nil {
			t.Errorf("the control plane: %v\n%s", err, p.control.log)
		}
	})
}

func TestPodLives(t *testing.T) {
	p := start(t)
	t.Run("a crash shows its exit code", func(t *testing.T) {
		p.create("crash", shell("exit 7"))
		pods := p.awaitPods("crashed twice", func(pods []corev1.Pod) bool {
			return len(pods) == 1 && len(pods[0].Status.ContainerStatuses) == 1 && pods[0].Status.ContainerStatuses[0].RestartCount >= 2 &&
				pods[0].Status.ContainerStatuses[0].State.Waiting != nil
		})
		c := pods[0].Status.ContainerStatuses[0]
		if c.State.Waiting.Reason != "CrashLoopBackOff" || c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.ExitCode != 7 {
			t.Errorf("container %+v", c)
		}
		p.remove("crash", 0)
	})
	t.Run("SIGTERM and SIGKILL keep to the grace period", func(t *testing.T) {
		two := int64(2)
		spec := shell(`trap "" TERM; touch up; while :; do sleep 0.05; done`)
		spec.TerminationGracePeriodSeconds = &two
		spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "[ -e up ]"}}}}
		p.create("deaf", spec)
		p.awaitPods("ready", allReady(1))
		if took := p.remove("deaf", -1); took < 2*time.Second || took > 4*time.Second {
			t.Errorf("a pod that ignores SIGTERM was gone after %s, want 2s", took)
		}
		p.create("polite", shell("exec sleep 1000"))
		p.awaitPods("ready", allReady(1))
		if took := p.remove("polite", -1); took > 2*time.Second {
			t.Errorf("a pod that heeds SIGTERM was gone after %s", took)
		}
	})
	t.Run("an image that is not here", func(t *testing.T) {
		p.create("image", corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "nginx:1.29"}}})
		pods := p.awaitPods("in ImagePullBackOff", func(pods []corev1.Pod) bool {
			return len(pods) == 1 && len(pods[0].Status.ContainerStatuses) == 1 && pods[0].Status.ContainerStatuses[0].State.Waiting != nil &&
				pods[0].Status.ContainerStatuses[0].State.Waiting.Reason == "ImagePullBackOff"
		})
		if message := pods[0].Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(message, "local/<name>") {
			t.Errorf("message %q does not say what to do", message)
		}
		p.remove("image", -1)
	})
	t.Run("a name that is used again at once", func(t *testing.T) {
		for range 3 {
			p.create("again", shell("exec sleep 1000"))
			p.awaitPods("ready", allReady(1))
			p.remove("again", -1)
		}
	})
	t.Run("a job", func(t *testing.T) {
		limit := int32(2)
		spec := shell("[ $(ls | grep -c x) ] && exit 0")
		spec.RestartPolicy = corev1.RestartPolicyNever
		_, err := p.client.BatchV1().Jobs("default").Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "job"}, Spec: batchv1.JobSpec{BackoffLimit: &limit, Template: corev1.PodTemplateSpec{Spec: spec}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.awaitPods("done", func(pods []corev1.Pod) bool { return len(pods) == 1 && pods[0].Status.Phase == corev1.PodSucceeded })
		background := metav1.DeletePropagationBackground
		if err := p.client.BatchV1().Jobs("default").Delete(t.Context(), "job", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			t.Fatal(err)
		}
		p.awaitPods("gone", func(pods []corev1.Pod) bool { return len(pods) == 0 })
	})
	t.Run("a token of its own", func(t *testing.T) {
		p.create("token", shell(`grep -c token "$KUBECONFIG"; exec sleep 1000`))
		p.awaitPods("ready", allReady(1))
		matches, err := filepath.Glob(filepath.Join(p.dir, "node", "pods", "*", "volumes", "kube-api-access-*", "kubeconfig"))
		if err != nil || len(matches) != 1 {
			t.Fatalf("kubeconfigs %v, %v", matches, err)
		}
		config, err := clientcmd.BuildConfigFromFlags("", matches[0])
		if err != nil {
			t.Fatal(err)
		}
		pod, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pod.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:default:default") {
			t.Errorf("what may the default service account do? %v", err)
		}
		p.remove("token", -1)
	})
	t.Run("a door in front of ready pods", func(t *testing.T) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(self, filepath.Join(p.images, "server")); err != nil {
			t.Fatal(err)
		}
		spec := shell("")
		spec.Containers[0] = corev1.Container{Name: "main", Image: "local/server", Env: []corev1.EnvVar{{Name: serverAddress, Value: "$(POD_IP):8080"}}}
		spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
		p.create("server", spec)
		service, err := p.client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "server"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "server"}, Ports: []corev1.ServicePort{{Port: 8080}},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.awaitPods("ready", allReady(1))
		at := address.Loopback(netip.MustParseAddr(service.Spec.ClusterIP))
		deadline := time.Now().Add(patience)
		for {
			resp, err := http.Get(fmt.Sprintf("http://%s:8080/", at))
			if err == nil {
				resp.Body.Close()
				break
			}
			if time.Now().After(deadline) { // what is waited for is the door's, which has no event here
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		p.remove("server", -1)
	})
	t.Run("simulated pods are ready without processes", func(t *testing.T) {
		before := len(p.processes())
		labels := map[string]string{"app": "many"}
		n := int32(200)
		_, err := p.client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "many"}, Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"edgehold.internal/simulate": "true"}}, Spec: shell("exit 1")},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.awaitPods("ready", allReady(200))
		if after := len(p.processes()); after != before {
			t.Errorf("%d processes more", after-before)
		}
	})
}

// remove deletes a pod and returns how long it took to be gone. A negative grace is the pod's own.
func (p *platform) remove(name string, grace int64) time.Duration {
	p.t.Helper()
	opts := metav1.DeleteOptions{}
	if grace >= 0 {
		opts.GracePeriodSeconds = &grace
	}
	began := time.Now()
	if err := p.client.CoreV1().Pods("default").Delete(p.t.Context(), name, opts); err != nil {
		p.t.Fatal(err)
	}
	p.awaitPods(name+" gone", func(pods []corev1.Pod) bool {
		return !slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.Name == name })
	})
	return time.Since(began)
}
