// Package metrics makes HorizontalPodAutoscalers scale on what the pods of this node say of themselves. It scrapes Ready pods
// annotated prometheus.io/scrape=true and serves their metrics as the custom metrics API (custom.metrics.k8s.io), to which it
// registers itself in the cluster. Gauges keep their name; a counter X_total is served as the rate X_per_second.
//
// Start at Server. Decoding and rates are in sample.go and do no I/O; scrape.go asks the pods, provider.go answers the API, and
// register.go makes the API server find this process.
package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/server"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"k8s.io/utils/clock"
)

// Config of a Server. Kubeconfig is required; zero values elsewhere mean the default.
type Config struct {
	// Kubeconfig file of the cluster. Its user reads Pods and ConfigMaps, creates TokenReviews and SubjectAccessReviews, and
	// writes APIServices and one Service in kube-system.
	Kubeconfig string
	// Listen is the host and port of the API, reached by the API server only. Default 127.0.0.1:0, a free port.
	Listen string
	// Node whose pods are scraped; empty for all. A cluster has one Server, since it has one custom metrics API.
	Node string
	// Interval between scrapes of a pod. Default 1 s.
	Interval time.Duration
	// Window that rates are taken over. Default 5 intervals.
	Window time.Duration
	// Timeout of a scrape. Default 1 interval.
	Timeout time.Duration
	// Parallelism is how many pods are scraped at once. Default 8.
	Parallelism int
	// MaxBytes of an answer; a larger one counts as failed. Default 1 MiB.
	MaxBytes int64
	// MaxSeries of an answer; one with more counts as failed. Default 5,000.
	MaxSeries int
	// Clock for scrapes and ages. Default: the real one.
	Clock clock.WithTicker
	// Logger of pods that cannot be scraped and of the registration. Default: none.
	Logger *slog.Logger
}

// staleIntervals after its scrape a sample is no longer served.
const staleIntervals = 3

func (c Config) maxAge() time.Duration { return staleIntervals * c.Interval }

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	if c.Kubeconfig == "" {
		return errors.New("metrics: Kubeconfig is empty: the file of the cluster is needed")
	}
	if c.Listen != "" {
		if host, _, err := net.SplitHostPort(c.Listen); err != nil || net.ParseIP(host) == nil {
			return fmt.Errorf("metrics: Listen is %q: an IP address and a port, such as 127.0.0.1:0", c.Listen)
		}
	}
	for _, f := range []struct {
		name  string
		value int64
		text  any
	}{
		{"Interval", int64(c.Interval), c.Interval},
		{"Window", int64(c.Window), c.Window},
		{"Timeout", int64(c.Timeout), c.Timeout},
		{"Parallelism", int64(c.Parallelism), c.Parallelism},
		{"MaxBytes", c.MaxBytes, c.MaxBytes},
		{"MaxSeries", int64(c.MaxSeries), c.MaxSeries},
	} {
		if f.value < 0 {
			return fmt.Errorf("metrics: %s is %v: a positive value, or 0 for the default", f.name, f.text)
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:0")
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.Window = cmp.Or(c.Window, 5*c.Interval)
	c.Timeout = cmp.Or(c.Timeout, c.Interval)
	c.Parallelism = cmp.Or(c.Parallelism, 8)
	c.MaxBytes = cmp.Or(c.MaxBytes, 1<<20)
	c.MaxSeries = cmp.Or(c.MaxSeries, 5000)
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Server scrapes pods and serves the custom metrics API. Create it with New and start it with Run.
type Server struct {
	config     Config
	cluster    *rest.Config
	client     kubernetes.Interface
	aggregator clientset.Interface
	pods       cache.SharedIndexInformer
	scraper    *scraper
	ready      chan struct{}
	group      sync.WaitGroup // all goroutines of Run
}

// New validates the configuration and reads the kubeconfig. The cluster is not contacted before Run.
func New(config Config) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	cluster, err := clientcmd.BuildConfigFromFlags("", config.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("metrics: kubeconfig: %w", err)
	}
	// Every change of every pod comes in: as protobuf it costs the API server the encoding that others have asked for already.
	typed := rest.CopyConfig(cluster)
	typed.ContentType, typed.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(typed)
	if err != nil {
		return nil, fmt.Errorf("metrics: kubeconfig %s: %w", config.Kubeconfig, err)
	}
	aggregator, err := clientset.NewForConfig(cluster)
	if err != nil {
		return nil, fmt.Errorf("metrics: kubeconfig %s: %w", config.Kubeconfig, err)
	}
	s := &Server{config: config, cluster: cluster, client: client, aggregator: aggregator, ready: make(chan struct{})}
	s.pods = newPodInformer(client, config.Node)
	s.scraper = newScraper(config, s.pods)
	return s, nil
}

func newPodInformer(client kubernetes.Interface, node string) cache.SharedIndexInformer {
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	return coreinformers.NewFilteredPodInformer(client, metav1.NamespaceAll, 0, byNamespace, func(o *metav1.ListOptions) {
		if node != "" {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
		}
	})
}

// Ready is closed when the API is served and registered; the API server needs a moment more to call it available.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run until ctx ends, then returns nil. It may be called once. An error says what could not be listened on; what the cluster
// cannot do yet is tried again.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.pods.SetTransform(trimPod); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	listener, err := net.Listen("tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	defer listener.Close()
	authority, err := newAuthority(listener.Addr().(*net.TCPAddr))
	if err != nil {
		return fmt.Errorf("metrics: certificate: %w", err)
	}
	defer s.group.Wait()
	defer cancel()
	s.group.Go(func() { s.pods.RunWithContext(ctx) })
	if !cache.WaitFor(ctx, "", s.pods.HasSyncedChecker()) {
		return nil
	}
	s.group.Go(func() { s.scraper.run(ctx) })
	provider := &podMetrics{config: s.config, store: s.scraper.store, pods: corelisters.NewPodLister(s.pods.GetIndexer())}
	var api *server.GenericAPIServer
	served := s.retry(ctx, "custom metrics API not served", func() (err error) {
		api, err = newAPI(s.config.Kubeconfig, s.cluster, s.client, listener, authority, provider)
		return err
	})
	if !served {
		return nil
	}
	s.group.Go(func() { s.register(ctx, listener.Addr().(*net.TCPAddr), authority.bundle) })
	if err := api.PrepareRun().RunWithContext(ctx); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// retry until it works; false when ctx ends before. A control plane that has just started lacks what this needs for a moment.
func (s *Server) retry(ctx context.Context, problem string, try func() error) bool {
	const first, last = 100 * time.Millisecond, 5 * time.Second
	for wait := first; ; wait = min(2*wait, last) {
		err := try()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.config.Logger.Warn(problem, "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return false
		case <-s.config.Clock.After(wait):
		}
	}
}

var (
	podsDesc    = prometheus.NewDesc("edgehold_metrics_scraped_pods", "Pods scraped for the custom metrics API, by the outcome of the last scrape.", []string{"outcome"}, nil)
	metricsDesc = prometheus.NewDesc("edgehold_metrics_served", "Metrics that at least one pod has a fresh value for.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc; ch <- metricsDesc }

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	names, healthy, failing := s.scraper.store.metrics(s.config.Clock.Now(), s.config.maxAge())
	ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(healthy), "ok")
	ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(failing), "failed")
	ch <- prometheus.MustNewConstMetric(metricsDesc, prometheus.GaugeValue, float64(len(names)))
}
