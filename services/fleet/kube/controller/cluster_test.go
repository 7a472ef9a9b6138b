package controller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"edgehold.internal/services/fleet/kube/kubetest"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// cluster is a namespace of the control plane.
type cluster struct {
	client.WithWatch
	plane     *plane
	rest      *rest.Config
	namespace string
}

// plane is a real control plane with the Fleet's CRD and a node whose pods are servers of this process: a kubelet that needs
// no images.
type plane struct {
	rest   *rest.Config
	api    client.WithWatch
	prefix string // of the pods' addresses

	mu    sync.Mutex
	pods  map[types.UID]string // address by pod
	edges map[string]*edge     // by address
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	engine := kubetest.Run(t, "test")
	config, err := clientcmd.BuildConfigFromFlags("", engine.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	host, _, err := net.SplitHostPort(engine.Address)
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{rest: config, api: engine.Admin, prefix: strings.TrimSuffix(strings.TrimPrefix(host, "127."), "0.1"), pods: map[types.UID]string{}, edges: map[string]*edge{}}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	t.Cleanup(func() { cancel(); done.Wait(); p.close() })
	if err := p.runNode(ctx, &done); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plane) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.edges {
		e.server.Close()
	}
}

// open gives a namespace.
func (p *plane) open(t *testing.T) *cluster {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "pop-"}}
	if err := p.api.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return &cluster{WithWatch: p.api, plane: p, rest: p.rest, namespace: ns.Name}
}

// runNode plays the kubelet: it keeps a node ready and answers for its pods. A pod with the annotation test/ready=false stays
// unready.
func (p *plane) runNode(ctx context.Context, done *sync.WaitGroup) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	if err := p.api.Create(ctx, node); err != nil {
		return err
	}
	beat := func() error {
		if err := p.api.Get(ctx, types.NamespacedName{Name: "node-1"}, node); err != nil {
			return err
		}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Test", LastHeartbeatTime: metav1.Now()}}
		node.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("1000")}
		node.Status.Allocatable = node.Status.Capacity
		return p.api.Status().Update(ctx, node)
	}
	for { // the node controller writes to a new node as well
		if err := beat(); err == nil {
			break
		} else if !apierrors.IsConflict(err) {
			return err
		}
	}
	done.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
				_ = beat() // the next one counts as well
			}
		}
	})
	w, err := p.api.Watch(ctx, &corev1.PodList{})
	if err != nil {
		return err
	}
	done.Go(func() {
		defer w.Stop()
		for event := range w.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok && event.Type != watch.Deleted {
				p.runPod(ctx, pod)
			}
		}
	})
	return nil
}

func (p *plane) runPod(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		_ = p.api.Delete(ctx, pod, client.GracePeriodSeconds(0)) // gone already is as good
		return
	}
	want := corev1.ConditionTrue
	if pod.Annotations["test/ready"] == "false" {
		want = corev1.ConditionFalse
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == want {
			return
		}
	}
	if pod.Spec.NodeName == "" {
		return
	}
	ip := p.address(pod.UID)
	pod = pod.DeepCopy()
	now := metav1.Now()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP, pod.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: want, LastTransitionTime: now}, {Type: corev1.ContainersReady, Status: want, LastTransitionTime: now}}
	_ = p.api.Status().Update(ctx, pod) // after a conflict the event of the later version follows
}

// address of a pod, with a server on it.
func (p *plane) address(uid types.UID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ip := p.pods[uid]; ip != "" {
		return ip
	}
	n := len(p.pods)
	suffix := fmt.Sprintf("%s%d.%d", p.prefix, n/200+1, n%200+2)
	p.pods[uid] = "10." + suffix
	p.edges["10."+suffix] = startEdge("127." + suffix + ":9901")
	return "10." + suffix
}

// edges of a colour's pods.
func (c *cluster) edges(t *testing.T, colour v1alpha1.Colour) []*edge {
	t.Helper()
	var pods corev1.PodList
	if err := c.List(t.Context(), &pods, client.InNamespace(c.namespace), client.MatchingLabels{v1alpha1.ColourLabel: string(colour)}); err != nil {
		t.Fatal(err)
	}
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	var out []*edge
	for _, p := range pods.Items {
		out = append(out, c.plane.edges[p.Status.PodIP])
	}
	return out
}

// setReady makes all pods of a colour ready or not.
func (c *cluster) setReady(t *testing.T, colour v1alpha1.Colour, ready string) {
	t.Helper()
	var pods corev1.PodList
	if err := c.List(t.Context(), &pods, client.InNamespace(c.namespace), client.MatchingLabels{v1alpha1.ColourLabel: string(colour)}); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		body := fmt.Appendf(nil, `{"metadata":{"annotations":{"test/ready":%q}}}`, ready)
		if err := c.Patch(t.Context(), &pods.Items[i], client.RawPatch(types.MergePatchType, body)); err != nil {
			t.Fatal(err)
		}
	}
}

// edge is the admin server of a pod: the hooks of the drain method http, and counters.
type edge struct {
	mu                         sync.Mutex
	open, requests, errors     int64
	drains, undrains, resets   int
	draining, dead, keepsAlive bool
	lastAccepted               time.Time
	server                     *httptest.Server
}

func (e *edge) do(f func(*edge)) { e.mu.Lock(); defer e.mu.Unlock(); f(e) }

// until waits for what the pod was told. Nothing announces that to a test.
func (e *edge) until(t *testing.T, what string, is func(*edge) bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ok := false
		e.do(func(e *edge) { ok = is(e) })
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the pod was not %s", what)
		}
	}
}

func startEdge(address string) *edge {
	e := &edge{lastAccepted: time.Now()}
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
		if e.dead {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		e.requests += 10
		fmt.Fprintf(w, "edge_requests_total{code=\"200\"} %d\nedge_errors_total %d\n", e.requests, e.errors)
	})
	s := httptest.NewUnstartedServer(mux)
	l, err := net.Listen("tcp", address)
	if err != nil {
		panic(err) // the block of loopback belongs to the test
	}
	s.Listener.Close()
	s.Listener = l
	s.Start()
	e.server = s
	return e
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
