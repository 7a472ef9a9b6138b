package metrics

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

func TestMain(m *testing.M) {
	// The API server library logs through one queue for the life of the process.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

const namespace = "pop-fra1"

// node is a scraper and a provider over a fake clock, whose pods are served on loopback.
type node struct {
	*testing.T
	clock    *clocktesting.FakeClock
	scraper  *scraper
	provider *podMetrics
}

func newNode(t *testing.T) *node {
	clock := clocktesting.NewFakeClock(time.Unix(1_700_000_000, 0))
	config := Config{Clock: clock, Timeout: 10 * time.Second, MaxSeries: 10}.withDefaults()
	pods := newPodInformer(fake.NewClientset(), "")
	scraper := newScraper(config, pods)
	t.Cleanup(scraper.client.CloseIdleConnections)
	return &node{t, clock, scraper, &podMetrics{config, scraper.store, corelisters.NewPodLister(pods.GetIndexer())}}
}

func (n *node) set(pod *corev1.Pod) {
	n.Helper()
	trimmed, err := trimPod(pod)
	if err == nil {
		err = n.scraper.pods.GetIndexer().Update(trimmed)
	}
	if err != nil {
		n.Fatal(err)
	}
}

// scrapeAfter lets time pass and then scrapes all pods once.
func (n *node) scrapeAfter(d time.Duration) {
	n.clock.Step(d)
	n.scraper.round(n.Context())
}

func (n *node) get(pod, metric string) string {
	v, err := n.provider.GetMetricByName(n.Context(), types.NamespacedName{Namespace: namespace, Name: pod},
		provider.CustomMetricInfo{GroupResource: podResource, Namespaced: true, Metric: metric}, labels.Everything())
	if apierrors.IsNotFound(err) {
		return "none"
	} else if err != nil {
		n.Fatal(err)
	}
	return v.Value.String()
}

// serve metrics on 127.78.0.last, and return the ready pod at 10.78.0.last that offers them.
func serve(t *testing.T, name string, last byte, handler http.HandlerFunc) *corev1.Pod {
	t.Helper()
	ip := netip.AddrFrom4([4]byte{127, 78, 0, last})
	listener, err := net.Listen("tcp4", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Labels: map[string]string{"app": "edge"},
			Annotations: map[string]string{scrapeAnnotation: "true", portAnnotation: fmt.Sprint(listener.Addr().(*net.TCPAddr).Port), "other": "x"}},
		Status: corev1.PodStatus{PodIP: fmt.Sprintf("10.78.0.%d", last),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func TestScrapedPodsAreServed(t *testing.T) {
	n := newNode(t)
	var requests atomic.Int64
	pod := serve(t, "edge-1", 1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
		}
		fmt.Fprintf(w, "# TYPE edge_requests_total counter\nedge_requests_total %d\n# TYPE edge_connections_open gauge\nedge_connections_open 2.5\n", requests.Load())
	})
	n.set(pod)
	other := pod.DeepCopy()
	other.Name, other.UID, other.Labels = "web-1", "web-1", map[string]string{"app": "web"}
	n.set(other)

	n.scrapeAfter(0)
	if got := n.get("edge-1", "edge_connections_open"); got != "2500m" {
		t.Errorf("gauge after one sample: %s", got)
	}
	if got := n.get("edge-1", "edge_requests_per_second"); got != "none" {
		t.Errorf("rate after one sample: %s, want none", got)
	}
	requests.Store(37)
	n.scrapeAfter(2 * time.Second)
	if got := n.get("edge-1", "edge_requests_per_second"); got != "18500m" {
		t.Errorf("rate: %s, want 18500m", got)
	}

	info := provider.CustomMetricInfo{GroupResource: podResource, Namespaced: true, Metric: "edge_requests_per_second"}
	list, err := n.provider.GetMetricBySelector(t.Context(), namespace, labels.SelectorFromSet(labels.Set{"app": "edge"}), info, labels.Everything())
	if err != nil || len(list.Items) != 1 || list.Items[0].DescribedObject.Name != "edge-1" || *list.Items[0].WindowSeconds != 2 ||
		!list.Items[0].Timestamp.Time.Equal(n.clock.Now()) {
		t.Errorf("by selector: %+v, %v", list, err)
	}
	for name, ask := range map[string]func() error{
		"no pod matches": func() error {
			_, err := n.provider.GetMetricBySelector(t.Context(), namespace, labels.SelectorFromSet(labels.Set{"app": "none"}), info, labels.Everything())
			return err
		},
		"another namespace": func() error {
			_, err := n.provider.GetMetricBySelector(t.Context(), "other", labels.Everything(), info, labels.Everything())
			return err
		},
		"not pods": func() error {
			nodes := provider.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "nodes"}, Metric: info.Metric}
			_, err := n.provider.GetMetricByName(t.Context(), types.NamespacedName{Name: "node-1"}, nodes, labels.Everything())
			return err
		},
	} {
		if err := ask(); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v, want not found", name, err)
		}
	}
	names := map[string]bool{}
	for _, i := range n.provider.ListAllMetrics() {
		names[i.String()] = true
	}
	if len(names) != 2 || !names["pods/edge_requests_per_second(namespaced)"] || !names["pods/edge_connections_open(namespaced)"] {
		t.Errorf("all metrics: %v", names)
	}
}

func TestStaleSamplesVanish(t *testing.T) {
	healthy := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "open 3\n") }
	for _, test := range []struct {
		name string
		harm func(n *node, pod *corev1.Pod)
		want string
	}{
		{"not yet", func(n *node, _ *corev1.Pod) { n.clock.Step(3 * time.Second) }, "3"},
		{"too old", func(n *node, _ *corev1.Pod) { n.clock.Step(3*time.Second + 1) }, "none"},
		{"not ready, at once", func(n *node, pod *corev1.Pod) {
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			n.set(pod)
		}, "none"},
		{"terminating, at once", func(n *node, pod *corev1.Pod) {
			pod.DeletionTimestamp = &metav1.Time{Time: n.clock.Now()}
			n.set(pod)
		}, "none"},
		{"ready again begins anew", func(n *node, pod *corev1.Pod) {
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			n.set(pod)
			n.scraper.round(n.Context())
			pod.Status.Conditions[0].Status = corev1.ConditionTrue
			n.set(pod)
		}, "none"},
		{"another pod of that name", func(n *node, pod *corev1.Pod) {
			pod.UID, pod.Status.PodIP = "another", "10.78.0.99"
			n.set(pod)
			n.scraper.round(n.Context())
		}, "none"},
		{"gone", func(n *node, pod *corev1.Pod) { _ = n.scraper.pods.GetIndexer().Delete(pod) }, "none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			pod := serve(t, "edge-1", 1, healthy)
			n.set(pod)
			n.scrapeAfter(0)
			if got := n.get("edge-1", "open"); got != "3" {
				t.Fatalf("before: %s", got)
			}
			test.harm(n, pod)
			if got := n.get("edge-1", "open"); got != test.want {
				t.Errorf("after: %s, want %s", got, test.want)
			}
		})
	}
}

func TestFailingPodsAreSaidOnce(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) },
		"another place": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"another format":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>\n") },
		"too many series": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("a 1\n", 11)) },
		"an early end":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			var log strings.Builder
			n.scraper.config.Logger = slog.New(slog.NewTextHandler(&log, nil))
			n.set(serve(t, "edge-1", 1, handler))
			n.scrapeAfter(0)
			n.scrapeAfter(time.Second)
			if lines := strings.Count(log.String(), "pod not scraped"); lines != 1 {
				t.Errorf("logged %d times:\n%s", lines, log.String())
			}
			if got := n.get("edge-1", "a"); got != "none" {
				t.Errorf("served %s", got)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*corev1.Pod)
		want    string
		problem string
	}{
		{"defaults", func(p *corev1.Pod) { delete(p.Annotations, portAnnotation) }, "http://10.78.0.1:80/metrics", ""},
		{"as annotated", func(p *corev1.Pod) { p.Annotations[pathAnnotation] = "/stats?format=prometheus" }, "http://10.78.0.1:9901/stats?format=prometheus", ""},
		{"not asked for", func(p *corev1.Pod) { p.Annotations[scrapeAnnotation] = "false" }, "", ""},
		{"no process", func(p *corev1.Pod) { p.Annotations[simulateAnnotation] = "true" }, "", ""},
		{"no address", func(p *corev1.Pod) { p.Status.PodIP = "" }, "", ""},
		{"not ready", func(p *corev1.Pod) { p.Status.Conditions = nil }, "", ""},
		{"no port", func(p *corev1.Pod) { p.Annotations[portAnnotation] = "http" }, "", `prometheus.io/port is "http"`},
		{"port 0", func(p *corev1.Pod) { p.Annotations[portAnnotation] = "0" }, "", `prometheus.io/port is "0"`},
		{"no path", func(p *corev1.Pod) { p.Annotations[pathAnnotation] = "metrics" }, "", `prometheus.io/path is "metrics"`},
		{"another host", func(p *corev1.Pod) { p.Annotations[pathAnnotation] = "http://192.0.2.1/" }, "", "prometheus.io/path is"},
		{"another host without a scheme", func(p *corev1.Pod) { p.Annotations[pathAnnotation] = "//192.0.2.1/" }, "http://10.78.0.1:9901//192.0.2.1/", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{scrapeAnnotation: "true", portAnnotation: "9901"}},
				Status:     corev1.PodStatus{PodIP: "10.78.0.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
			}
			test.change(pod)
			got, wanted, err := targetOf(pod)
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("error %v, want %q", err, test.problem)
				}
				return
			}
			if err != nil || got.url != test.want || wanted != (test.want != "") {
				t.Fatalf("%q, %v, %v; want %q", got.url, wanted, err, test.want)
			}
		})
	}
}

func TestQuantities(t *testing.T) {
	for number, want := range map[float64]string{0: "0", 0.0004: "0", 12.3456: "12346m", -1.5: "-1500m", 3e9: "3G", 1e17: "100P", 1e30: ""} {
		got, fits := quantityOf(number)
		if fits != (want != "") || fits && got.String() != want {
			t.Errorf("%v: %s, %v; want %q", number, got.String(), fits, want)
		}
	}
	if _, fits := quantityOf(math.NaN()); fits {
		t.Error("NaN fits")
	}
}

func TestConfigValidate(t *testing.T) {
	for field, config := range map[string]Config{
		"Kubeconfig":  {},
		"Listen":      {Kubeconfig: "f", Listen: "localhost"},
		"Interval":    {Kubeconfig: "f", Interval: -1},
		"Window":      {Kubeconfig: "f", Window: -1},
		"Timeout":     {Kubeconfig: "f", Timeout: -1},
		"Parallelism": {Kubeconfig: "f", Parallelism: -1},
		"MaxBytes":    {Kubeconfig: "f", MaxBytes: -1},
		"MaxSeries":   {Kubeconfig: "f", MaxSeries: -1},
	} {
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), field+" is ") {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New(Config{Kubeconfig: "/nonexistent/kubeconfig"}); err == nil {
		t.Error("a kubeconfig that does not exist is accepted")
	}
}
