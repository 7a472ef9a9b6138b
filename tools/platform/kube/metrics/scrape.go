package metrics

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"edgehold.internal/tools/platform/kube/address"
)

// The annotations by which a pod offers metrics; port and path are optional in the order of the Prometheus convention.
const (
	scrapeAnnotation = "prometheus.io/scrape"
	portAnnotation   = "prometheus.io/port"
	pathAnnotation   = "prometheus.io/path"
	// simulateAnnotation marks pods without a process.
	simulateAnnotation = "edgehold.internal/simulate"
)

// target is where the metrics of a pod are.
type target struct {
	pod types.NamespacedName
	uid types.UID
	url string // with the address in the cluster
}

// targetOf a pod: false when it offers no metrics or is not ready. The error says which annotation cannot work.
func targetOf(pod *corev1.Pod) (target, bool, error) {
	t := target{pod: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID}
	if pod.Annotations[scrapeAnnotation] != "true" || pod.Annotations[simulateAnnotation] == "true" || !ready(pod) {
		return t, false, nil
	}
	ip, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil {
		return t, false, nil //nolint:nilerr // it has no address yet
	}
	text := cmp.Or(pod.Annotations[portAnnotation], "80")
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return t, false, fmt.Errorf("annotation %s is %q: a port between 1 and 65535", portAnnotation, text)
	}
	path := cmp.Or(pod.Annotations[pathAnnotation], "/metrics")
	location, err := url.ParseRequestURI(path)
	if err != nil || path[0] != '/' {
		return t, false, fmt.Errorf("annotation %s is %q: a path that begins with /", pathAnnotation, path)
	}
	location.Scheme, location.Host = "http", netip.AddrPortFrom(ip, uint16(port)).String()
	t.url = location.String()
	return t, true, nil
}

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// store holds the histories of the pods of this node.
type store struct {
	mu   sync.RWMutex
	pods map[types.NamespacedName]*podHistory
}

type podHistory struct {
	history
	uid     types.UID
	problem string // of the last scrape, "" when it went well
}

// keep forgets all pods but these.
func (s *store) keep(targets []target) {
	uids := make(map[types.NamespacedName]types.UID, len(targets))
	for _, t := range targets {
		uids[t.pod] = t.uid
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for pod, h := range s.pods {
		if uid, found := uids[pod]; !found || uid != h.uid {
			delete(s.pods, pod)
		}
	}
}

// add the outcome of a scrape. It returns whether the pod began to fail, or ceased to.
func (s *store) add(t target, window time.Duration, at time.Time, readings []reading, err error) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.pods[t.pod]
	if h == nil {
		h = &podHistory{history: history{window: window}, uid: t.uid}
		s.pods[t.pod] = h
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	} else {
		h.add(at, readings)
	}
	changed = (problem == "") != (h.problem == "")
	h.problem = problem
	return changed
}

// value of a pod's metric that is not older than maxAge.
func (s *store) value(pod types.NamespacedName, metric string, selector labels.Selector, now time.Time, maxAge time.Duration) (value, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.pods[pod]
	if h == nil || now.Sub(h.last) > maxAge {
		return value{}, errNoValue
	}
	return h.value(metric, selector)
}

// metrics are the names that any pod has a fresh value for, and how many pods of each outcome there are.
func (s *store) metrics(now time.Time, maxAge time.Duration) (names []string, healthy, failing int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, h := range s.pods {
		if h.problem == "" {
			healthy++
		} else {
			failing++
		}
		if now.Sub(h.last) <= maxAge {
			names = append(names, h.metrics()...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), healthy, failing
}

// scraper asks the pods of this node for their metrics.
type scraper struct {
	config  Config
	pods    cache.SharedIndexInformer
	store   *store
	client  *http.Client
	refused map[types.UID]string // pods whose annotations cannot work, by what was said of them
}

func newScraper(config Config, pods cache.SharedIndexInformer) *scraper {
	dialer := &net.Dialer{KeepAlive: -1} // on loopback a peer cannot vanish unnoticed
	return &scraper{
		config:  config,
		pods:    pods,
		store:   &store{pods: map[types.NamespacedName]*podHistory{}},
		refused: map[types.UID]string{},
		client: &http.Client{
			Timeout: config.Timeout,
			// A pod must not send this process to another address.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
					cluster, err := netip.ParseAddrPort(to)
					if err != nil {
						return nil, err
					}
					return dialer.DialContext(ctx, network, netip.AddrPortFrom(address.Loopback(cluster.Addr()), cluster.Port()).String())
				},
				MaxIdleConnsPerHost:    1,
				IdleConnTimeout:        time.Minute,
				DisableCompression:     true,
				MaxResponseHeaderBytes: 64 << 10,
			},
		},
	}
}

// run scrapes all targets at every interval until ctx ends. A round that takes longer makes the next one late, not more.
func (s *scraper) run(ctx context.Context) {
	defer s.client.CloseIdleConnections()
	ticker := s.config.Clock.NewTicker(s.config.Interval)
	defer ticker.Stop()
	for {
		s.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

func (s *scraper) round(ctx context.Context) {
	targets := s.targets()
	s.store.keep(targets)
	var group errgroup.Group
	group.SetLimit(s.config.Parallelism)
	for _, t := range targets {
		group.Go(func() error {
			at := s.config.Clock.Now()
			readings, err := s.scrape(ctx, t)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // asked to stop
			}
			if s.store.add(t, s.config.Window, at, readings, err) {
				if err != nil {
					s.config.Logger.Warn("pod not scraped", "pod", t.pod, "url", t.url, "error", err)
				} else {
					s.config.Logger.Info("pod scraped again", "pod", t.pod, "url", t.url)
				}
			}
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
}

func (s *scraper) targets() []target {
	var targets []target
	refused := map[types.UID]string{}
	for _, object := range s.pods.GetIndexer().List() {
		pod := object.(*corev1.Pod)
		t, wanted, err := targetOf(pod)
		if err != nil {
			if s.refused[pod.UID] != err.Error() {
				s.config.Logger.Warn("pod not scraped", "pod", t.pod, "error", err)
			}
			refused[pod.UID] = err.Error()
		}
		if wanted {
			targets = append(targets, t)
		}
	}
	s.refused = refused
	return targets
}

func (s *scraper) scrape(ctx context.Context, t target) ([]reading, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/plain;version=0.0.4")
	request.Header.Set("User-Agent", "edgehold-node")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s, want 200 OK", response.Status)
	}
	return parse(response.Body, s.config.MaxBytes, s.config.MaxSeries)
}

// trimPod keeps what targetOf and label selectors read.
func trimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	trimmed := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, DeletionTimestamp: pod.DeletionTimestamp, Annotations: map[string]string{},
		},
		Status: corev1.PodStatus{PodIP: pod.Status.PodIP},
	}
	for _, name := range []string{scrapeAnnotation, portAnnotation, pathAnnotation, simulateAnnotation} {
		if text, found := pod.Annotations[name]; found {
			trimmed.Annotations[name] = text
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			trimmed.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return trimmed, nil
}
