// Package kubetest starts a real Kubernetes control plane for tests: the API server, etcd and the controllers of the
// embedded platform, in a process of their own. Start at Run.
package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// Cluster is a control plane without nodes: what is stored is real, and no pod ever runs.
type Cluster struct {
	// Kubeconfig is the path of a file whose one context, Name, is the cluster's administrator.
	Kubeconfig, Name string
	// Address of the API server, host:port.
	Address string
	// Admin is the administrator's client.
	Admin client.WithWatch

	command *exec.Cmd
	stdin   io.Closer
	exited  chan struct{}
	output  *tail
	args    []string
}

var started atomic.Int32

// Root is the directory of the repository, found from the working directory of the test.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the test does not run inside the repository")
		}
	}
}

// Run starts a control plane that knows the kind Fleet and ends with the test. Without the binary it skips the test and says what to do; with
// testing.Short it skips as well.
func Run(t testing.TB, name string) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("a control plane takes seconds; run without -short")
	}
	dir := os.Getenv("EDGEHOLD_BIN")
	if dir == "" {
		root, err := Root()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(root, ".edgehold", "bin")
	}
	binary := filepath.Join(dir, "edgehold-control-plane")
	if _, err := os.Stat(binary); err != nil {
		t.Skip("the control plane is not built; run: make engines")
	}
	// Blocks of its own, so that packages and clusters that test at the same time do not meet.
	block := 100 + (os.Getpid()*7+int(started.Add(1)))%100
	c := &Cluster{Name: name, args: []string{binary, "--dir", t.TempDir(), "--name", name, "--bind", fmt.Sprintf("127.%d.0.1", block),
		"--port", "0", "--service-cidr", fmt.Sprintf("10.%d.128.0/17", block), "--die-with-stdin"}}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	c.applyKind(t)
	return c
}

func (c *Cluster) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	kinds := runtime.NewScheme()
	for _, add := range append([]func(*runtime.Scheme) error{eventsv1.AddToScheme, authenticationv1.AddToScheme}, kube.AddTypes...) {
		if err := add(kinds); err != nil {
			return err
		}
	}
	c.Admin, err = client.NewWithWatch(config, client.Options{Scheme: kinds, Log: logr.FromSlogHandler(slog.DiscardHandler)})
	return err
}

func (c *Cluster) applyKind(t testing.TB) {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "base", "crds", "edgehold.internal_fleets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd unstructured.Unstructured
	if err := yaml.Unmarshal(text, &crd.Object); err != nil {
		t.Fatal(err)
	}
	if err := c.Admin.Create(t.Context(), &crd); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() error { return c.Admin.List(t.Context(), &v1alpha1.FleetList{}) })
}

// Eventually is for what Kubernetes does in its own time and tells nobody: it tries for 20 s until there is no error.
func Eventually(t testing.TB, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// AddPop makes the namespace pop-NAME with a fleet "edge" that serves green: v1 in blue and v2 in green, each with no pods,
// which no node would run.
func (c *Cluster) AddPop(t testing.TB, name string) {
	t.Helper()
	ns := "pop-" + name
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "edge"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "edge", v1alpha1.ColourLabel: "green"}, Ports: []corev1.ServicePort{{Port: 8080}}}},
		&v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "edge"}, Spec: v1alpha1.FleetSpec{
			Service: "edge", Blue: v1alpha1.ColourSpec{Deployment: "edge-blue"}, Green: v1alpha1.ColourSpec{Deployment: "edge-green"}, Active: v1alpha1.Green,
			Drain: v1alpha1.DrainSpec{Method: v1alpha1.DrainWait}}},
	}
	for colour, release := range map[string]string{"blue": "v1", "green": "v2"} {
		none := int32(0)
		labels := map[string]string{"app": "edge", v1alpha1.ColourLabel: colour, v1alpha1.VersionLabel: release}
		objects = append(objects, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "edge-" + colour}, Spec: appsv1.DeploymentSpec{
			Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{v1alpha1.ColourLabel: colour}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "edge", Image: "local/edge"}}}}}})
	}
	for _, o := range objects {
		if err := c.Admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// Start starts it, or starts it again after Kill on the same state and port, and returns when it is ready.
func (c *Cluster) Start(ctx context.Context) error {
	// It outlives the context of the start; Kill ends it.
	c.command = exec.CommandContext(context.WithoutCancel(ctx), c.args[0], c.args[1:]...)
	c.output = &tail{}
	c.command.Stderr = c.output
	stdin, err := c.command.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := c.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.command.Start(); err != nil {
		return err
	}
	c.stdin, c.exited = stdin, make(chan struct{})
	lines := make(chan string, 1)
	go func() {
		defer close(c.exited)
		scanner := bufio.NewScanner(stdout)
		if scanner.Scan() {
			lines <- scanner.Text()
		}
		close(lines)
		_, _ = io.Copy(io.Discard, stdout)
		_ = c.command.Wait()
	}()
	patience, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	select {
	case line := <-lines:
		var ready struct {
			API        string `json:"api"`
			Kubeconfig string `json:"kubeconfig"`
		}
		if err := json.Unmarshal([]byte(line), &ready); err != nil {
			c.Kill()
			return fmt.Errorf("the control plane said %q, and then: %s", line, c.output)
		}
		c.Kubeconfig = ready.Kubeconfig
		c.Address = ready.API[len("https://"):]
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			return err
		}
		return nil
	case <-patience.Done():
		c.Kill()
		return fmt.Errorf("the control plane was not ready in time: %s", c.output)
	}
}

// Kill ends it as SIGKILL does and waits until it is gone.
func (c *Cluster) Kill() {
	_ = c.command.Process.Kill()
	_ = c.stdin.Close()
	<-c.exited
}

// tail keeps the end of what was written.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > 1<<16 {
		t.buf.Next(t.buf.Len() / 2)
	}
	return t.buf.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// CPU is the processor time that the control plane has used. On a machine with other work it says more than the clock.
func (c *Cluster) CPU() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	// proc_pid_stat(5): after the name in parentheses, fields 14 and 15 are user and system time in ticks of 10 ms.
	_, rest, _ := strings.Cut(string(text), ") ")
	var ticks int64
	for _, f := range strings.Fields(rest)[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
