// Package controller runs the fleets of one cluster: it watches them, asks package fleet what to do, and does it. It needs
// nothing but its cluster's API, so a PoP finishes a cutover with everything else dead. Start at New and Run.
package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"edgehold.internal/libs/service"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/drain"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"edgehold.internal/services/fleet/scrape"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Config of a controller. The zero values of all but RESTConfig are good.
type Config struct {
	// Cluster names the cluster in logs and metrics: the kubeconfig's context.
	Cluster string
	// RESTConfig reaches the cluster. It is copied.
	RESTConfig *rest.Config
	// Namespaces to work in; empty for all.
	Namespaces []string
	// DialMap translates the addresses of pods, "10.0.0.0/8=127.0.0.0/8" on the embedded platform; empty for none.
	DialMap string
	// LeaderElection lets one of several replicas work at a time, by a Lease in LeaderNamespace. A process that was killed is
	// succeeded after 15 s.
	LeaderElection bool
	// LeaderNamespace of the Lease; needed with LeaderElection outside a cluster.
	LeaderNamespace string
	// Parallel is how many fleets are worked on at once; default 32.
	Parallel int
	// Probes is how many pods are asked at once, over all fleets; default 64.
	Probes int
	// Clock is the time; default the system's.
	Clock Clock
	// Logger; default none.
	Logger *slog.Logger
	// Audit keeps what the controller does to traffic by itself: acts "fleet-controller/switch", "…/revert" (the guard's),
	// "…/restore" (after another writer), "…/reset" (of connections that a drain left), and "…/adopt" for a switch that it
	// found and put on record; default a line of Logger.
	Audit func(context.Context, service.Act)
	// Registry for metrics; nil for none.
	Registry prometheus.Registerer
}

// Validate says which field is wrong, its value, and what is allowed.
func (c *Config) Validate() error {
	if c.RESTConfig == nil {
		return errors.New("controller: RESTConfig is nil; give the configuration of the cluster")
	}
	if _, err := drain.ParseDialMap(c.DialMap); err != nil {
		return err
	}
	for _, n := range c.Namespaces {
		if n == "" {
			return errors.New(`controller: Namespaces has an empty name; leave the list empty for all namespaces`)
		}
	}
	if c.Parallel < 0 || c.Probes < 0 {
		return fmt.Errorf("controller: Parallel is %d and Probes %d; they must not be negative", c.Parallel, c.Probes)
	}
	return nil
}

// Controller works on the fleets of one cluster.
type Controller struct {
	config Config
	dial   drain.Dialer
	keeper *timekeeper
	probes chan struct{}
	scrape *scrape.Scraper
	meters *metrics
	ready  chan struct{}
	once   sync.Once
}

// New makes a controller. It does no I/O.
func New(config Config) (*Controller, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Parallel == 0 {
		config.Parallel = 32
	}
	if config.Probes == 0 {
		config.Probes = 64
	}
	if config.Clock == nil {
		config.Clock = SystemClock()
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	// What controller-runtime says outside any manager; without a logger it prints a stack instead.
	sayOnce.Do(func() { ctrllog.SetLogger(logr.FromSlogHandler(quiet{config.Logger.Handler()})) })
	if config.Audit == nil {
		config.Audit = func(ctx context.Context, a service.Act) {
			config.Logger.InfoContext(ctx, a.Name, "principal", a.Principal, "reason", a.Reason, "id", a.IdempotencyKey, "request", a.Request, "error", a.Err)
		}
	}
	dialMap, err := drain.ParseDialMap(config.DialMap)
	if err != nil {
		return nil, err
	}
	c := &Controller{config: config, dial: dialMap.Dialer(), keeper: newTimekeeper(config.Clock), probes: make(chan struct{}, config.Probes),
		meters: newMetrics(config.Registry, config.Cluster), ready: make(chan struct{})}
	c.scrape = scrape.New(c.dial)
	c.config.RESTConfig = rest.CopyConfig(config.RESTConfig)
	// The API server has its own fairness; a limit here would hold up the last PoPs of a rollback.
	c.config.RESTConfig.QPS, c.config.RESTConfig.Burst = -1, 0
	// It is beside the controller, and would compress each event of a watch for each of those who watch.
	c.config.RESTConfig.DisableCompression = true
	c.config.RESTConfig.UserAgent = "edgehold-fleet"
	c.config.RESTConfig.Wrap(func(next http.RoundTripper) http.RoundTripper { return &dated{next: next, keeper: c.keeper} })
	return c, nil
}

var sayOnce sync.Once

// Ready is closed when the caches are filled for the first time and the controller works (as the leader, if there is an
// election).
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Run works until ctx ends, and then returns nil. A cluster that cannot be reached, or an election that is lost, is tried
// again: the other clusters of the process must not care.
func (c *Controller) Run(ctx context.Context) error {
	const longest = 10 * time.Second
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, longest) {
		began := c.config.Clock.Uptime()
		err := c.run(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that ctx ends is no error
		}
		c.config.Logger.Error("the controller stopped and begins again", "cluster", c.config.Cluster, "error", err, "in", wait)
		if c.config.Clock.Uptime()-began > time.Minute {
			wait = 250 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range kube.AddTypes {
		if err := add(s); err != nil {
			panic(err) // types that are compiled in
		}
	}
	return s
}()

func (c *Controller) run(ctx context.Context) error {
	yes := true
	m, err := ctrl.NewManager(c.config.RESTConfig, manager.Options{
		Scheme: scheme, Cache: cacheOptions(c.config.Namespaces), Metrics: metricsserver.Options{BindAddress: "0"},
		Logger:         logr.FromSlogHandler(quiet{c.config.Logger.Handler()}),
		LeaderElection: c.config.LeaderElection, LeaderElectionID: "fleet-controller.edgehold.internal", LeaderElectionNamespace: c.config.LeaderNamespace,
		LeaderElectionReleaseOnCancel: true,
		// One process has a manager per cluster, all with the same controller.
		Controller: config.Controller{SkipNameValidation: &yes, RecoverPanic: &yes},
	})
	if err != nil {
		return fmt.Errorf("the API of the cluster cannot be reached: %w", err)
	}
	r := &reconciler{controller: c, client: m.GetClient(), live: m.GetAPIReader(), events: m.GetEventRecorder("edgehold-fleet"), fleets: map[types.NamespacedName]*entry{},
		nudge: make(chan event.TypedGenericEvent[*v1alpha1.Fleet], 1024), log: c.config.Logger.With("cluster", c.config.Cluster),
		readings: rate.NewLimiter(readingsPerSecond, readingsPerSecond)}
	defer r.stop()
	changed := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	err = ctrl.NewControllerManagedBy(m).Named("fleet").
		For(&v1alpha1.Fleet{}, changed).
		Watches(&corev1.Service{}, r.claims(func(f *v1alpha1.Fleet, o client.Object) bool { return f.Spec.Service == o.GetName() })).
		Watches(&appsv1.Deployment{}, r.claims(func(f *v1alpha1.Fleet, o client.Object) bool {
			return f.Spec.Blue.Deployment == o.GetName() || f.Spec.Green.Deployment == o.GetName()
		})).
		Watches(&discoveryv1.EndpointSlice{}, r.claims(func(f *v1alpha1.Fleet, o client.Object) bool {
			return f.Spec.Service == o.GetLabels()[discoveryv1.LabelServiceName]
		})).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, r.claims(func(*v1alpha1.Fleet, client.Object) bool { return true })).
		// A Fleet may claim what another one has.
		Watches(&v1alpha1.Fleet{}, r.claims(func(f *v1alpha1.Fleet, o client.Object) bool { return f.Name != o.GetName() }), changed).
		WatchesRawSource(source.Channel(r.nudge, later[*v1alpha1.Fleet](func(_ context.Context, f *v1alpha1.Fleet) []reconcile.Request {
			return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(f)}}
		}))).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: c.config.Parallel, ReconciliationTimeout: patience, RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, 2*time.Second)}).
		WithLogConstructor(func(*reconcile.Request) logr.Logger { return m.GetLogger() }).
		Complete(r)
	if err != nil {
		return err
	}
	// Pods are read from the cache for their addresses and colours; nothing waits for their events.
	if _, err := m.GetCache().GetInformer(ctx, &corev1.Pod{}); err != nil {
		return err
	}
	if err := m.Add(manager.RunnableFunc(func(ctx context.Context) error {
		c.once.Do(func() { close(c.ready) })
		<-ctx.Done()
		return nil
	})); err != nil {
		return err
	}
	return m.Start(ctx)
}

// patience is how long one look at a fleet may take. An API that answers nothing must not hold one up for the minute in which
// a dead connection is found, nor a switch be written long after it was decided.
const patience = 15 * time.Second

// claims maps an object to the fleets of its namespace that it concerns.
func (r *reconciler) claims(concerns func(*v1alpha1.Fleet, client.Object) bool) handler.EventHandler {
	return later[client.Object](func(ctx context.Context, o client.Object) []reconcile.Request {
		var fleets v1alpha1.FleetList
		if err := r.client.List(ctx, &fleets, client.InNamespace(o.GetNamespace())); err != nil {
			return nil
		}
		var out []reconcile.Request
		for i := range fleets.Items {
			if concerns(&fleets.Items[i], o) {
				out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&fleets.Items[i])})
			}
		}
		return out
	})
}

// behind is the priority of all that is not a declaration. In a global rollback the selectors of all PoPs are set first, and
// then it is recorded what happened.
const behind = -10

// later enqueues what a function finds, behind declarations.
type later[T any] func(context.Context, T) []reconcile.Request

// Create implements handler.EventHandler, as the methods below.
func (l later[T]) Create(ctx context.Context, e event.TypedCreateEvent[T], q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	l.add(ctx, q, e.Object)
}

// Update looks at the new object alone: neither names nor labels that count here change.
func (l later[T]) Update(ctx context.Context, e event.TypedUpdateEvent[T], q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	l.add(ctx, q, e.ObjectNew)
}

// Delete enqueues as well: something is missing now.
func (l later[T]) Delete(ctx context.Context, e event.TypedDeleteEvent[T], q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	l.add(ctx, q, e.Object)
}

// Generic is for nudges.
func (l later[T]) Generic(ctx context.Context, e event.TypedGenericEvent[T], q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	l.add(ctx, q, e.Object)
}

func (l later[T]) add(ctx context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request], o T) {
	for _, r := range l(ctx, o) {
		if p, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
			p.AddWithOpts(priorityqueue.AddOpts{Priority: new(behind)}, r)
		} else {
			q.Add(r)
		}
	}
}

// quiet lets through what controller-runtime warns of. Its tale of every start and stop is not ours.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

// Handle leaves out what merely says that we are being stopped.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	stopping := false
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		stopping = stopping || ok && (errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "context canceled"))
		return !stopping
	})
	if stopping {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

// colours in the order in which they are shown.
var colours = [...]fleet.Colour{fleet.Blue, fleet.Green}
