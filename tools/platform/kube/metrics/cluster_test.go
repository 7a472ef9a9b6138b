package metrics

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
)

// patience is for what a cluster does in seconds, on a machine that does much else.
const patience = 90 * time.Second

// TestHorizontalPodAutoscaler has a real control plane scale a Deployment 2 → 5 → 2 on what its pods say, across a restart of
// the server on another port. It needs edgehold-control-plane, which takes minutes to build, and is skipped without it.
func TestHorizontalPodAutoscaler(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a control plane, which -short does not start")
	}
	kubeconfig := startControlPlane(t)
	cluster, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(cluster)
	if err != nil {
		t.Fatal(err)
	}
	pods := startPods(t, client)
	pods.demand(4)
	stop := startServer(t, kubeconfig)
	deployAutoscaled(t, client)
	pods.until("two pods at rest", 2)

	get := func(path string) (string, error) {
		body, err := client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
		return string(body), err
	}
	for _, version := range versions {
		path := "/apis/custom.metrics.k8s.io/" + version + "/namespaces/default/pods/*/edge_requests_per_second"
		var list v1beta2.MetricValueList
		eventually(t, "both pods have a rate in "+version, func() bool {
			body, err := get(path)
			return err == nil && json.Unmarshal([]byte(body), &list) == nil && len(list.Items) == 2
		})
	}

	pods.demand(50)
	pods.until("five pods under load", 5)
	stop()
	startServer(t, kubeconfig) // on another port, with another certificate
	pods.demand(4)
	pods.until("two pods after it", 2)

	// Beside the API server, which proves by its certificate for whom it asks, nobody is let in.
	service, err := client.Discovery().RESTClient().Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var registered struct {
		Spec struct {
			Service struct{ Port int }
		}
	}
	if err := json.Unmarshal(service, &registered); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: insecure()}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(fmt.Sprintf(
		"https://127.0.0.1:%d/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/edge_requests_per_second", registered.Spec.Service.Port))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("a stranger gets %s, want 403", response.Status)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// startControlPlane returns the kubeconfig of a cluster that lives as long as the test.
func startControlPlane(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("EDGEHOLD_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", ".edgehold", "bin")
	}
	binary := filepath.Join(dir, "edgehold-control-plane")
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("no control plane; run `make build` first, or set EDGEHOLD_BIN: %v", err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command := exec.Command(binary, "--dir", t.TempDir(), "--name", "metrics-test", "--bind", "127.79.0.1", "--service-cidr", "10.79.128.0/17",
		"--hpa-sync", "500ms", "--hpa-downscale-stabilization", "0s", "--die-with-stdin")
	command.Stderr = log
	input, err := command.StdinPipe() // its end stops the process, also when this one is killed
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		overdue := time.AfterFunc(patience, func() { _ = command.Process.Signal(syscall.SIGKILL) })
		defer overdue.Stop()
		_ = command.Wait()
	})
	var ready struct{ Kubeconfig string }
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("the control plane is not ready: %v\n%s", err, said)
	}
	return ready.Kubeconfig
}

func startServer(t *testing.T, kubeconfig string) (stop func()) {
	t.Helper()
	server, err := New(Config{Kubeconfig: kubeconfig, Interval: 200 * time.Millisecond, Timeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-server.Ready():
	case <-time.After(patience):
		t.Fatal("not registered")
	}
	return stop
}

func deployAutoscaled(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	labels := map[string]string{"app": "edge"}
	_, err := client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "edge"},
		Spec: appsv1.DeploymentSpec{Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{scrapeAnnotation: "true", portAnnotation: podPort}},
				Spec:       corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "edge", Image: "local/edge"}}},
			}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.AutoscalingV2().HorizontalPodAutoscalers("default").Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "edge"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "edge"},
			MinReplicas:    new(int32(2)), MaxReplicas: 8,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "edge_requests_per_second"},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("10"))},
			}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

const (
	nodeName = "node-1"
	podPort  = "9901"
)

// pods stands in for a node: it makes each pod ready and serves its metrics. The demand is shared evenly, as a balancer would.
type pods struct {
	*testing.T
	client  kubernetes.Interface
	changed chan struct{}

	mu      sync.Mutex
	total   float64 // requests per second of all pods
	at      time.Time
	next    byte
	running map[string]*runningPod
}

type runningPod struct {
	requests float64
	server   *httptest.Server
}

func startPods(t *testing.T, client kubernetes.Interface) *pods {
	t.Helper()
	p := &pods{T: t, client: client, changed: make(chan struct{}, 1), at: time.Now(), running: map[string]*runningPod{}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", "default", fields.Everything())
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: source, ObjectType: &corev1.Pod{}, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { p.run(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { p.run(o.(*corev1.Pod)) },
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { informer.RunWithContext(ctx) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
		for _, pod := range p.running {
			pod.server.Close()
		}
	})
	return p
}

// run a pod that is new, and end one that is asked to.
func (p *pods) run(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	ctx := context.Background()
	known := p.running[pod.Name]
	switch {
	case pod.DeletionTimestamp != nil && known != nil:
		known.server.Close()
		delete(p.running, pod.Name)
		if err := p.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			p.Logf("pod %s: %v", pod.Name, err)
		}
	case pod.DeletionTimestamp == nil && known == nil:
		p.next++
		listener, err := net.Listen("tcp4", netip.AddrFrom4([4]byte{127, 79, 1, p.next}).String()+":"+podPort)
		if err != nil {
			p.Error(err)
			return
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { p.metrics(w, pod.Name) }))
		server.Listener.Close()
		server.Listener = listener
		server.Start()
		p.running[pod.Name] = &runningPod{server: server}
		now := metav1.Now()
		pod = pod.DeepCopy()
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, PodIP: netip.AddrFrom4([4]byte{10, 79, 1, p.next}).String(),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}}
		if _, err := p.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
			p.Errorf("pod %s: %v", pod.Name, err)
		}
	default:
		return
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// advance gives each pod its share of the requests since the last time. Called with mu held.
func (p *pods) advance() {
	now := time.Now()
	for _, pod := range p.running {
		pod.requests += p.total * now.Sub(p.at).Seconds() / float64(len(p.running))
	}
	p.at = now
}

func (p *pods) demand(perSecond float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	p.total = perSecond
}

func (p *pods) metrics(w io.Writer, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	if pod := p.running[name]; pod != nil {
		fmt.Fprintf(w, "# TYPE edge_requests_total counter\nedge_requests_total %v\n", math.Round(pod.requests*1e6)/1e6)
	}
}

// until this many pods run.
func (p *pods) until(what string, want int) {
	p.Helper()
	end := time.After(patience)
	for {
		p.mu.Lock()
		got := len(p.running)
		p.mu.Unlock()
		if got == want {
			p.Logf("%s: %d", what, got)
			return
		}
		select {
		case <-p.changed:
		case <-end:
			hpa, _ := p.client.AutoscalingV2().HorizontalPodAutoscalers("default").Get(p.Context(), "edge", metav1.GetOptions{})
			var said strings.Builder
			for _, c := range hpa.Status.Conditions {
				fmt.Fprintf(&said, "%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
			}
			p.Fatalf("never came true: %s; %d pods, want %d\n%s", what, got, want, said.String())
		}
	}
}

// insecure, because the test asks who is let in and not whom it speaks to.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } //nolint:gosec // see above
