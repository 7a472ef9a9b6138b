// Package cluster is the way of fleet.Centre into the Kubernetes clusters of the PoPs: one connection and one watch per
// kubeconfig context, shared by all PoPs in it and by all calls. It needs no service of ours, so the command line uses it
// as it is when nothing else is left. Start at Open.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// InCluster is the name of the only context when there is no kubeconfig and the process runs in a pod.
const InCluster = "in-cluster"

// Config of Connections.
type Config struct {
	// Kubeconfig files, the first that has an entry wins. Empty: the files in $KUBECONFIG, or ~/.kube/config, or the
	// service account of the pod.
	Kubeconfig []string
	// Follow begins the watch on a cluster when one of its PoPs is registered, as a service does, and not when the first of
	// its PoPs is asked for something. Without it, who waits for a switch learns of it before it is recorded, with a time of this
	// machine's.
	Follow bool
	// Agent is sent as the User-Agent, for the audit logs of the clusters.
	Agent string
	// Logger; nil for none.
	Logger *slog.Logger
}

// Connections are the clusters of a kubeconfig.
type Connections struct {
	config Config
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // mirrors and events
	events chan struct{}  // bounds the events under way
	// closing is closed when Close begins.
	closing chan struct{}

	mu   sync.Mutex
	file *clientcmdapi.Config
	open map[string]*connection // by context
}

// connection is one context. Its client and its watch share one HTTP/2 connection.
type connection struct {
	client client.WithWatch
	mirror *mirror
	start  sync.Once // of the mirror
	ctx    context.Context
	stop   context.CancelFunc
}

// Open reads the kubeconfig; nothing is connected before it is used. Invalid when a file is missing or wrong.
func Open(config Config) (*Connections, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Agent == "" {
		config.Agent = "edgehold-fleet"
	}
	file, err := load(config.Kubeconfig)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Connections{config: config, ctx: ctx, cancel: cancel, events: make(chan struct{}, 1024), closing: make(chan struct{}), file: file, open: map[string]*connection{}}, nil
}

func load(files []string) (*clientcmdapi.Config, error) {
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return nil, problem.Invalidf("kubeconfig", "%s cannot be read (%v); name a file that exists, or several separated by %q", file, cause(err), os.PathListSeparator)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if len(files) > 0 {
		rules = &clientcmd.ClientConfigLoadingRules{Precedence: files}
	}
	loaded, err := rules.Load()
	if err != nil {
		return nil, problem.Invalidf("kubeconfig", "is not a kubeconfig: %v", err)
	}
	if len(loaded.Contexts) > 0 {
		return loaded, nil
	}
	if len(files) == 0 {
		if _, err := rest.InClusterConfig(); err == nil {
			return &clientcmdapi.Config{Contexts: map[string]*clientcmdapi.Context{InCluster: {}}}, nil
		}
	}
	return nil, problem.Invalidf("kubeconfig", "has no context; set KUBECONFIG or name a file with --kubeconfig")
}

// cause is the reason alone: the path is in the sentence already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Contexts of the kubeconfig, sorted.
func (c *Connections) Contexts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.file.Contexts))
}

// Files are those that the kubeconfig was read from and that exist.
func (c *Connections) Files() []string {
	files := c.config.Kubeconfig
	if len(files) == 0 {
		files = clientcmd.NewDefaultClientConfigLoadingRules().Precedence
	}
	return slices.DeleteFunc(slices.Clone(files), func(file string) bool {
		_, err := os.Stat(file)
		return err != nil
	})
}

// Reload reads the kubeconfig again and puts it in force if accept, which gets its contexts, returns no error. Contexts
// that changed are connected anew, and calls that wait on them go on there. On an error everything stays as it is.
func (c *Connections) Reload(accept func(contexts []string) error) error {
	next, err := load(c.config.Kubeconfig)
	if err != nil {
		return err
	}
	if err := accept(slices.Sorted(maps.Keys(next.Contexts))); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, conn := range c.open {
		if !sameContext(c.file, next, name) {
			conn.stop()
			delete(c.open, name)
		}
	}
	c.file = next
	return nil
}

func sameContext(a, b *clientcmdapi.Config, name string) bool {
	x, y := a.Contexts[name], b.Contexts[name]
	if x == nil || y == nil {
		return x == y
	}
	return reflect.DeepEqual(x, y) && reflect.DeepEqual(a.Clusters[x.Cluster], b.Clusters[y.Cluster]) &&
		reflect.DeepEqual(a.AuthInfos[x.AuthInfo], b.AuthInfos[y.AuthInfo])
}

// Close ends all watches, and waits up to 2 s for events that are still to be recorded. It is called once, after the last
// use.
func (c *Connections) Close() {
	close(c.closing)
	timer := time.AfterFunc(2*time.Second, c.cancel)
	defer timer.Stop()
	for range cap(c.events) {
		c.events <- struct{}{}
	}
	c.cancel()
	c.tasks.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.stop()
	}
}

// Cluster is the argument of fleet.NewCentre. A context that the kubeconfig does not have is an error of every call.
func (c *Connections) Cluster(p fleet.Pop) fleet.Cluster {
	site := &site{connections: c, pop: p}
	if c.config.Follow {
		if conn, err := c.connect(p.Context); err == nil {
			c.follow(conn)
		}
	}
	return site
}

// scheme and mapper are static: asking each API for its resources would cost two round trips per cluster.
var scheme, mapper = func() (*runtime.Scheme, meta.RESTMapper) {
	s := runtime.NewScheme()
	for _, add := range append([]func(*runtime.Scheme) error{eventsv1.AddToScheme}, kube.AddTypes...) {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"Service", "Pod", "ResourceQuota"} {
		m.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	m.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	m.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
	m.Add(autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), meta.RESTScopeNamespace)
	m.Add(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), meta.RESTScopeNamespace)
	m.Add(eventsv1.SchemeGroupVersion.WithKind("Event"), meta.RESTScopeNamespace)
	m.Add(v1alpha1.GroupVersion.WithKind("Fleet"), meta.RESTScopeNamespace)
	return s, m
}()

func (c *Connections) connect(name string) (*connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.open[name]; conn != nil {
		return conn, nil
	}
	if c.file.Contexts[name] == nil {
		return nil, problem.Unavailablef("the kubeconfig has no context %q", name)
	}
	if c.ctx.Err() != nil {
		return nil, problem.Unavailablef("the connections are closed")
	}
	config, err := c.restConfig(name)
	if err != nil {
		return nil, err
	}
	// A rollback of hundreds of PoPs in one cluster is a burst by nature; client-go's 5 per second would be its longest
	// part. The server's own fairness stays in force.
	config.QPS, config.Burst = 1000, 2000
	config.UserAgent = c.config.Agent
	config.WarningHandlerWithContext = rest.NoWarnings{}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, problem.Unavailablef("the context %q of the kubeconfig cannot be used: %w", name, err)
	}
	api, err := client.NewWithWatch(config, client.Options{HTTPClient: httpClient, Scheme: scheme, Mapper: mapper, FieldOwner: fieldManager, Log: logr.FromSlogHandler(c.config.Logger.Handler())})
	if err != nil {
		return nil, fmt.Errorf("connect context %q: %w", name, err)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	conn := &connection{client: api, mirror: newMirror(api, &c.tasks), ctx: ctx, stop: func() { cancel(); httpClient.CloseIdleConnections() }}
	c.open[name] = conn
	return conn, nil
}

// RESTConfig is how to reach the cluster of a context, for a controller in it. Invalid when there is no such context.
func (c *Connections) RESTConfig(name string) (*rest.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file.Contexts[name] == nil {
		return nil, problem.Invalidf("context", "the kubeconfig has no context %q", name)
	}
	return c.restConfig(name)
}

func (c *Connections) restConfig(name string) (config *rest.Config, err error) {
	if name == InCluster && c.file.Contexts[name].Cluster == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.NewNonInteractiveClientConfig(*c.file, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	}
	if err != nil {
		return nil, problem.Unavailablef("the context %q of the kubeconfig cannot be used: %w", name, err)
	}
	return config, nil
}

// follow starts the watch of a connection, once.
func (c *Connections) follow(conn *connection) {
	conn.start.Do(func() { c.tasks.Go(func() { conn.mirror.run(conn.ctx) }) })
}
