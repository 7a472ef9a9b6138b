// Package node is a Kubernetes node whose pods are processes of this machine. It registers itself with virtual-kubelet's node
// controller, runs pods with package process, answers the API server's calls for logs and exec, and hosts the front doors of
// Services and the custom metrics API. Start reading at [Run].
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	vk "github.com/virtual-kubelet/virtual-kubelet/node"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"

	"edgehold.internal/tools/platform/kube/address"
	"edgehold.internal/tools/platform/kube/door"
	"edgehold.internal/tools/platform/kube/group"
	"edgehold.internal/tools/platform/kube/metrics"
	"edgehold.internal/tools/platform/kube/process"
)

// Ready says where a node serves.
type Ready struct {
	Ready  bool   `json:"ready"`
	Status string `json:"status"` // URL of the status page
}

// leaseSeconds is how long the node is trusted without a sign of life.
const leaseSeconds = 40

// Run runs the node until ctx ends, then stops its pods, and returns nil. guardCommand is the command line that calls
// [group.Guard]. ready is called once, when the node is Ready in the API. An error says what the node cannot do without.
func Run(ctx context.Context, cfg Config, guardCommand []string, log *slog.Logger, ready func(Ready)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	lock, err := lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	restConfig, client, err := connect(cfg.Kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig %s: %w", cfg.Kubeconfig, err)
	}
	api, err := url.Parse(restConfig.Host)
	if err != nil {
		return fmt.Errorf("--kubeconfig %s: server: %w", cfg.Kubeconfig, err)
	}
	if err := reach(ctx, client); err != nil {
		return fmt.Errorf("the API server at %s does not answer: %w", restConfig.Host, err)
	}
	spawner, err := group.NewSpawner(guardCommand)
	if err != nil {
		return err
	}
	defer spawner.Close()
	events := record.NewBroadcaster()
	defer events.Shutdown()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	self := address.Loopback(address.Node(cfg.block))
	host, err := process.NewHost(process.Config{
		Dir: filepath.Join(cfg.Dir, "pods"), Images: cfg.Images, HostIP: self, Translate: address.Loopback,
		Env: []string{
			"EDGEHOLD_DIAL_MAP=" + address.DialMap,
			"KUBERNETES_SERVICE_HOST=" + api.Hostname(), "KUBERNETES_SERVICE_PORT=" + api.Port(),
		},
		APIServer: restConfig.Host, Allocatable: capacity(cfg),
		BackOffBase: cfg.BackOffBase, BackOffMax: cfg.BackOffMax, BackOffReset: 10 * time.Minute,
		LogLimit: cfg.logLimit,
		Cluster:  cluster{client, events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: cfg.Name})},
	}, spawner)
	if err != nil {
		return err
	}
	return serve(ctx, cfg, restConfig, client, host, self, log, ready)
}

// serve runs all that is made of goroutines.
func serve(ctx context.Context, cfg Config, restConfig *rest.Config, client kubernetes.Interface, host *process.Host, self netip.Addr, log *slog.Logger, ready func(Ready)) error {
	status, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer status.Close()
	kubeletListener, err := listenTLS(self, restConfig.CAData)
	if err != nil {
		return fmt.Errorf("the node's own API at %s: %w", self, err)
	}
	defer kubeletListener.Close()
	doors, err := door.New(door.Config{Client: client, Block: cfg.block, Logger: log.With("part", "door")})
	if err != nil {
		return err
	}
	custom, err := metrics.New(metrics.Config{Kubeconfig: cfg.Kubeconfig, Listen: "127.0.0.1:0", Logger: log.With("part", "metrics")})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	pods := newKeeper(ctx, client, host, address.NewPool(cfg.block), cfg.StopGrace, log.With("part", "pods"))
	defer pods.stop()

	serveHTTP(ctx, group, kubeletListener, (&kubelet{keeper: pods, log: log}).handler(), log.With("part", "kubelet"))
	serveHTTP(ctx, group, status, statusPage(doors, custom, pods), log.With("part", "status"))

	registration, err := vk.NewNodeController(vk.NewNaiveNodeProvider(), describe(cfg, self, kubeletListener.Addr().(*net.TCPAddr).Port),
		client.CoreV1().Nodes(), vk.WithNodeEnableLeaseV1(client.CoordinationV1().Leases(corev1.NamespaceNodeLease), leaseSeconds))
	if err != nil {
		return err
	}
	group.Go(func() error { return part(ctx, "registration of the node", registration.Run(ctx)) })
	group.Go(func() error { return part(ctx, "doors", doors.Run(ctx)) })
	group.Go(func() error { return part(ctx, "custom metrics", custom.Run(ctx)) })
	group.Go(func() error {
		informer := podInformer(client, cfg.Name)
		var running errgroup.Group
		running.Go(func() error { informer.RunWithContext(ctx); return nil })
		defer func() { _ = running.Wait() }()
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return nil
		}
		if err := pods.begin(informer); err != nil {
			return err
		}
		select {
		case <-registration.Ready():
			ready(Ready{Ready: true, Status: "http://" + status.Addr().String()})
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil
	})
	return group.Wait()
}

// part turns "returned, though nobody asked it to" into an error.
func part(ctx context.Context, name string, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // it was asked to stop
	case err == nil:
		return fmt.Errorf("%s: stopped by itself", name)
	default:
		return fmt.Errorf("%s: %w", name, err)
	}
}

func lock(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("--dir is in use by another node (%s is locked): stop that one or take another directory", file)
	}
	return f, nil
}

// connect makes a client that does not hold itself back: the node is the one busy client of its cluster.
func connect(kubeconfig string) (*rest.Config, kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	cfg.QPS, cfg.Burst = 1000, 2000
	cfg.UserAgent = "edgehold-node"
	typed := rest.CopyConfig(cfg)
	typed.ContentType, typed.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(typed)
	return cfg, client, err
}

// reachFor is how long the API server may take to answer at the start.
const reachFor = 30 * time.Second

func reach(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, reachFor)
	defer cancel()
	for {
		_, err := client.Discovery().ServerVersion()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// podInformer follows the pods of one node.
func podInformer(client kubernetes.Interface, node string) cache.SharedIndexInformer {
	mine := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			mine(&o)
			return client.CoreV1().Pods("").List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			mine(&o)
			return client.CoreV1().Pods("").Watch(ctx, o)
		},
	}
	return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, client), &corev1.Pod{}, 0, cache.Indexers{})
}

// capacity is what the node says that it has.
func capacity(cfg Config) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: cfg.cpu, corev1.ResourceMemory: cfg.memory,
		corev1.ResourcePods: *resource.NewQuantity(int64(cfg.Pods), resource.DecimalSI), corev1.ResourceEphemeralStorage: cfg.memory,
	}
}

// describe is the Node that the API gets.
func describe(cfg Config, self netip.Addr, port int) *corev1.Node {
	has := capacity(cfg)
	now := metav1.Now()
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: cfg.Name, Labels: map[string]string{
			corev1.LabelHostname: cfg.Name, corev1.LabelOSStable: goruntime.GOOS, corev1.LabelArchStable: goruntime.GOARCH,
			"type": "virtual-kubelet",
		}},
		Status: corev1.NodeStatus{
			Capacity: has, Allocatable: has,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: self.String()}, {Type: corev1.NodeHostName, Address: cfg.Name},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
			NodeInfo: corev1.NodeSystemInfo{
				OperatingSystem: goruntime.GOOS, Architecture: goruntime.GOARCH, KubeletVersion: "v1.37.2", ContainerRuntimeVersion: "process://1",
			},
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "NotMeasured"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "NotMeasured"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "NotMeasured"),
			},
		},
	}
}

// serveHTTP serves until ctx ends, and then does not wait for anybody: streams of logs may never end.
func serveHTTP(ctx context.Context, group *errgroup.Group, l net.Listener, h http.Handler, log *slog.Logger) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx }}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
}

// statusPage is for people and for supervisors on this machine.
func statusPage(doors *door.Keeper, custom *metrics.Server, pods *keeper) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(doors, custom, pods, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/doors", doors)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

var podsDesc = prometheus.NewDesc("edgehold_node_pods", "Pods on this node by phase.", []string{"phase"}, nil)

// Describe the metrics of the keeper.
func (k *keeper) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc }

// Collect the metrics of the keeper.
func (k *keeper) Collect(ch chan<- prometheus.Metric) {
	phases := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodRunning: 0, corev1.PodSucceeded: 0, corev1.PodFailed: 0}
	for _, pod := range k.pods() {
		phases[pod.Status.Phase]++
	}
	for phase, n := range phases {
		ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(n), string(phase))
	}
}
