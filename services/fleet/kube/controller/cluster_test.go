package controller_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// The tests of this file run against one real control plane (etcd, API server, controller manager, scheduler). Its pods are
// servers of this process: a kubelet that needs no images.
var shared struct {
	once sync.Once
	err  error
	rest *rest.Config
	stop func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.stop != nil {
		shared.stop()
	}
	os.Exit(code)
}

// cluster is a namespace of the control plane.
type cluster struct {
	client.WithWatch
	rest      *rest.Config
	namespace string
}

// open gives a namespace with a fleet's CRD, and skips where there is no control plane to be had.
func open(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: starts a control plane")
	}
	binary := os.Getenv("EDGEHOLD_BIN")
	if binary == "" {
		binary = "../../../../.edgehold/bin"
	}
	binary = filepath.Join(binary, "edgehold-control-plane")
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("needs a Kubernetes control plane: make engines (%v)", err)
	}
	shared.once.Do(func() { shared.err = start(binary) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	scheme := k8sruntime.NewScheme()
	for _, add := range kube.AddTypes {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	api, err := client.NewWithWatch(shared.rest, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{WithWatch: api, rest: shared.rest}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "pop-"}}
	if err := api.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	c.namespace = ns.Name
	return c
}

func start(binary string) error {
	dir, err := os.MkdirTemp("", "edgehold-fleet-test-")
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	// The engine ends with the thread that started it, so that thread must stay.
	ready := make(chan error, 1)
	var kubeconfig string
	quit := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		cmd := exec.Command(binary, "--dir", filepath.Join(dir, "state"), "--name", "test", "--bind", "127.99.0.1", "--port", "0", "--service-cidr", "10.99.128.0/17")
		cmd.Stderr = log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			ready <- err
			return
		}
		go func() {
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				var line struct {
					Ready      bool
					Kubeconfig string
				}
				if json.Unmarshal(lines.Bytes(), &line) == nil && line.Ready {
					kubeconfig = line.Kubeconfig
					ready <- nil
				}
			}
			ready <- fmt.Errorf("the control plane ended before it was ready; its log is %s", log.Name())
		}()
		<-quit
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
	}()
	shared.stop = func() { close(quit); <-ended; _ = os.RemoveAll(dir) }
	select {
	case err = <-ready:
	case <-time.After(90 * time.Second):
		err = fmt.Errorf("the control plane was not ready after 90 s; its log is %s", log.Name())
	}
	if err != nil {
		return err
	}
	if shared.rest, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return err
	}
	shared.rest.QPS = -1
	api, err := client.New(shared.rest, client.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	_ = cancel // ends with the process
	if err := applyCRD(ctx, api); err != nil {
		return err
	}
	return runNode(shared.rest)
}

func applyCRD(ctx context.Context, api client.Client) error {
	text, err := os.ReadFile("../../../../deploy/base/crds/edgehold.internal_fleets.yaml")
	if err != nil {
		return err
	}
	var crd unstructured.Unstructured
	if err := yaml.Unmarshal(text, &crd.Object); err != nil {
		return err
	}
	if err := api.Create(ctx, &crd); err != nil {
		return err
	}
	key := types.NamespacedName{Name: crd.GetName()}
	for {
		if err := api.Get(ctx, key, &crd); err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
		for _, c := range conditions {
			if c := c.(map[string]any); c["type"] == "Established" && c["status"] == "True" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// runNode plays the kubelet: it keeps a node ready and answers for its pods. A pod with the annotation test/ready=false stays
// unready.
func runNode(config *rest.Config) error {
	scheme := k8sruntime.NewScheme()
	_ = corev1.AddToScheme(scheme)
	api, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	ctx := context.Background()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	if err := api.Create(ctx, node); err != nil {
		return err
	}
	beat := func() error {
		if err := api.Get(ctx, types.NamespacedName{Name: "node-1"}, node); err != nil {
			return err
		}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Test", LastHeartbeatTime: metav1.Now()}}
		node.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("200")}
		node.Status.Allocatable = node.Status.Capacity
		return api.Status().Update(ctx, node)
	}
	if err := beat(); err != nil {
		return err
	}
	go func() {
		for {
			time.Sleep(5 * time.Second)
			_ = beat() // fails when the control plane is stopped, and then nobody needs it
		}
	}()
	go func() {
		for {
			var pods corev1.PodList
			if err := api.List(ctx, &pods); err == nil {
				if w, err := api.Watch(ctx, &corev1.PodList{}); err == nil {
					for i := range pods.Items {
						runPod(ctx, api, &pods.Items[i])
					}
					for event := range w.ResultChan() {
						if p, ok := event.Object.(*corev1.Pod); ok && event.Type != "DELETED" {
							runPod(ctx, api, p)
						}
					}
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return nil
}

var podSeries struct {
	sync.Mutex
	n   int
	ips map[types.UID]string
}

func runPod(ctx context.Context, api client.Client, p *corev1.Pod) {
	if p.DeletionTimestamp != nil {
		_ = api.Delete(ctx, p, client.GracePeriodSeconds(0))
		return
	}
	want := corev1.ConditionTrue
	if p.Annotations["test/ready"] == "false" {
		want = corev1.ConditionFalse
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == want {
			return
		}
	}
	if p.Spec.NodeName == "" {
		return
	}
	podSeries.Lock()
	if podSeries.ips == nil {
		podSeries.ips = map[types.UID]string{}
	}
	ip := podSeries.ips[p.UID]
	if ip == "" {
		podSeries.n++
		ip = fmt.Sprintf("10.99.%d.%d", podSeries.n/200, podSeries.n%200+2)
		podSeries.ips[p.UID] = ip
	}
	podSeries.Unlock()
	startEdge(ip)
	p = p.DeepCopy()
	now := metav1.Now()
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: want, LastTransitionTime: now}, {Type: corev1.ContainersReady, Status: want, LastTransitionTime: now}}
	if err := api.Status().Update(ctx, p); apierrors.IsConflict(err) {
		return // the event of the later version follows
	}
}

// edge is the admin server of a pod: the hooks of the drain method http, and counters.
type edge struct {
	mu                         sync.Mutex
	open, requests, errors     int64
	drains, undrains, resets   int
	draining, dead, keepsAlive bool
	lastAccepted               time.Time
}

var edges sync.Map // pod IP → *edge

func edgeOf(ip string) *edge {
	e, _ := edges.Load(ip)
	return e.(*edge)
}

func (e *edge) do(f func(*edge)) { e.mu.Lock(); defer e.mu.Unlock(); f(e) }

func startEdge(ip string) {
	e := &edge{lastAccepted: time.Now()}
	if _, there := edges.LoadOrStore(ip, e); there {
		return
	}
	mux := http.NewServeMux()
	hook := func(pattern string, f func() any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.dead {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_ = json.NewEncoder(w).Encode(f())
		})
	}
	hook("GET /connections", func() any {
		return map[string]any{"open": e.open, "accepted": 100, "last_accepted": e.lastAccepted, "draining": e.draining}
	})
	hook("POST /drain", func() any {
		e.draining = true
		e.drains++
		if !e.keepsAlive {
			e.open = 0
		}
		return nil
	})
	hook("POST /undrain", func() any { e.draining = false; e.undrains++; return nil })
	hook("POST /reset", func() any { n := e.open; e.open = 0; e.resets++; return map[string]int64{"reset": n} })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.requests += 10
		fmt.Fprintf(w, "edge_requests_total{code=\"200\"} %d\nedge_errors_total %d\n", e.requests, e.errors)
	})
	s := httptest.NewUnstartedServer(mux)
	l, err := net.Listen("tcp", "127"+ip[2:]+":9901")
	if err != nil {
		panic(err)
	}
	s.Listener.Close()
	s.Listener = l
	s.Start()
}

// pop makes a Service, two Deployments and a Fleet, as deploy/demo has them.
func (c *cluster) pop(t *testing.T, replicas int32, with func(*v1alpha1.Fleet)) *v1alpha1.Fleet {
	t.Helper()
	for _, colour := range []string{"blue", "green"} {
		labels := map[string]string{"app": "edge", v1alpha1.ColourLabel: colour}
		version := map[string]string{"app": "edge", v1alpha1.ColourLabel: colour, v1alpha1.VersionLabel: map[string]string{"blue": "v1", "green": "v2"}[colour]}
		c.create(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "edge-" + colour, Namespace: c.namespace}, Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: version}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "edge", Image: "local/edge"}}}}}})
	}
	c.create(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "edge", v1alpha1.ColourLabel: "blue"}, Ports: []corev1.ServicePort{{Port: 8080}}}})
	port := int32(9901)
	f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}, Spec: v1alpha1.FleetSpec{
		Service: "edge", Blue: v1alpha1.ColourSpec{Deployment: "edge-blue"}, Green: v1alpha1.ColourSpec{Deployment: "edge-green"}, Active: v1alpha1.Blue, Replicas: replicas,
		Drain:   v1alpha1.DrainSpec{Method: v1alpha1.DrainHTTP, Port: &port, Timeout: &metav1.Duration{Duration: 20 * time.Second}},
		Metrics: &v1alpha1.MetricsSpec{Port: 9901, Requests: "edge_requests_total", Errors: "edge_errors_total"}}}
	if with != nil {
		with(f)
	}
	c.create(t, f)
	return f
}

func (c *cluster) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// await watches the fleet until the function says so.
func (c *cluster) await(t *testing.T, what string, done func(*v1alpha1.Fleet) bool) *v1alpha1.Fleet {
	t.Helper()
	return awaitObject(t, c, what, &v1alpha1.FleetList{}, func(o client.Object) bool {
		f, ok := o.(*v1alpha1.Fleet)
		return ok && done(f)
	}).(*v1alpha1.Fleet)
}

func awaitObject(t *testing.T, c *cluster, what string, list client.ObjectList, done func(client.Object) bool) client.Object {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	w, err := c.Watch(ctx, list, client.InNamespace(c.namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var last client.Object
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				t.Fatalf("the watch ended before: %s", what)
			}
			if o, is := e.Object.(client.Object); is {
				if last = o; done(o) {
					return o
				}
			}
		case <-ctx.Done():
			text, _ := yaml.Marshal(last)
			t.Fatalf("did not happen: %s; last seen:\n%s", what, text)
		}
	}
}

// declare changes the active colour, as an operator's tool does.
func (c *cluster) declare(t *testing.T, id string, to v1alpha1.Colour, more ...func(*v1alpha1.ChangeSpec)) {
	t.Helper()
	change := v1alpha1.ChangeSpec{ID: id, Principal: "test", Reason: t.Name(), At: metav1.NowMicro()}
	for _, f := range more {
		f(&change)
	}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{"active": to, "change": change}})
	if err != nil {
		t.Fatal(err)
	}
	f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}}
	if err := c.Patch(t.Context(), f, client.RawPatch(types.MergePatchType, body)); err != nil {
		t.Fatal(err)
	}
}
