// Package door is the front door of every Service: a userspace L4 balancer that treats connections as kube-proxy in iptables
// mode does. A ClusterIP Service at 10.B.s.t is served on 127.B.s.t, one listener per TCP port. New connections go to a random
// ready endpoint (to serving, terminating ones when none is ready); connections that exist outlive a change of endpoints; a
// Service without endpoints refuses. What kube-proxy knows and this does not: UDP and SCTP, node ports, session affinity (all
// clients have the loopback address here), and traffic policies (a cluster has one node).
//
// Start at Keeper, which follows the cluster and keeps the doors. The rules are in rules.go and do no I/O; door.go accepts
// connections, and pipe.go carries their bytes.
package door

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

// Config of a Keeper. Client and Block are required; zero values elsewhere mean the default.
type Config struct {
	// Client reads Services, EndpointSlices and Pods of all namespaces, and writes Events.
	Client kubernetes.Interface
	// Block that the cluster owns, such as 10.20.0.0/16. Services outside of it get no door.
	Block netip.Prefix
	// MaxOpen connections of one door; beyond it new ones are refused. Default 20,000.
	MaxOpen int
	// MaxTotal connections of all doors. Default: what the limit of open files leaves after 1,024 for the rest of the
	// process, at two files for a connection.
	MaxTotal int
	// Linger is how long the connections of a Service that vanished are left before they are reset. Default 5 minutes.
	Linger time.Duration
	// DialTimeout of a connection to an endpoint. Default 10 s.
	DialTimeout time.Duration
	// Choose one of n endpoints, 0 ≤ result < n; called from many goroutines. Default: evenly at random.
	Choose func(n int) int
	// Clock for what is recorded, retried and waited for. Default: the real one.
	Clock clock.WithTicker
	// Logger of doors that open, close or cannot be opened. Default: none.
	Logger *slog.Logger
}

// The bounds of what Config leaves open.
const (
	defaultMaxOpen     = 20_000
	defaultLinger      = 5 * time.Minute
	defaultDialTimeout = 10 * time.Second
	reservedFiles      = 1024
	filesPerConnection = 2
)

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Client == nil:
		return errors.New("door: Client is missing: a client of the cluster is needed")
	case !c.Block.IsValid() || !c.Block.Addr().Is4() || c.Block.Bits() < 8 || c.Block.Addr().As4()[0] != 10:
		return fmt.Errorf("door: Block is %q: an IPv4 prefix within 10.0.0.0/8 is needed, such as 10.20.0.0/16", c.Block)
	case c.MaxOpen < 0:
		return fmt.Errorf("door: MaxOpen is %d: a positive number of connections, or 0 for %d", c.MaxOpen, defaultMaxOpen)
	case c.MaxTotal < 0:
		return fmt.Errorf("door: MaxTotal is %d: a positive number of connections, or 0 for what open files allow", c.MaxTotal)
	case c.Linger < 0:
		return fmt.Errorf("door: Linger is %s: a positive duration, or 0 for %s", c.Linger, defaultLinger)
	case c.DialTimeout < 0:
		return fmt.Errorf("door: DialTimeout is %s: a positive duration, or 0 for %s", c.DialTimeout, defaultDialTimeout)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.MaxOpen = cmp.Or(c.MaxOpen, defaultMaxOpen)
	c.MaxTotal = cmp.Or(c.MaxTotal, maxTotal())
	c.Linger = cmp.Or(c.Linger, defaultLinger)
	c.DialTimeout = cmp.Or(c.DialTimeout, defaultDialTimeout)
	if c.Choose == nil {
		c.Choose = rand.IntN
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func maxTotal() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return defaultMaxOpen
	}
	// The limit may be infinite; a million files are more than a node has use for.
	files := int(min(limit.Cur, 1<<20))
	return max(files-reservedFiles, files/2) / filesPerConnection
}

// Keeper opens a door for every Service, keeps its endpoints and closes it. Create it with New and start it with Run.
type Keeper struct {
	config   Config
	services cache.SharedIndexInformer
	slices   cache.SharedIndexInformer
	pods     cache.SharedIndexInformer
	// queue holds the Services to look at again. One worker empties it, so that only sync changes doors.
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]
	events record.EventRecorder
	open   atomic.Int64 // connections of all doors
	synced chan struct{}

	mu    sync.RWMutex
	doors map[types.NamespacedName]map[netip.AddrPort]*door
}

const byService = "service"

// New validates the configuration. Nothing is read or listened on before Run.
func New(config Config) (*Keeper, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	k := &Keeper{
		config: config.withDefaults(),
		synced: make(chan struct{}),
		doors:  map[types.NamespacedName]map[netip.AddrPort]*door{},
	}
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	k.services = coreinformers.NewServiceInformer(config.Client, metav1.NamespaceAll, 0, byNamespace)
	k.slices = discoveryinformers.NewEndpointSliceInformer(config.Client, metav1.NamespaceAll, 0, cache.Indexers{byService: serviceOfSlice})
	k.pods = coreinformers.NewFilteredPodInformer(config.Client, metav1.NamespaceAll, 0, nil, func(o *metav1.ListOptions) {
		o.LabelSelector = ColourLabel // a pod that is not in the cache has no colour
	})
	return k, nil
}

// Synced is closed when every Service that existed at the start of Run has been looked at.
func (k *Keeper) Synced() <-chan struct{} { return k.synced }

// Run keeps the doors until ctx ends, then closes them and resets the connections that are left, and returns nil. It may be
// called once. An error says that the informers could not be set up.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.queue = workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](100*time.Millisecond, time.Minute),
		workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Clock: k.config.Clock})
	defer k.queue.ShutDown()
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.config.Client.CoreV1().Events(metav1.NamespaceAll)})
	k.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "edgehold-door"})

	registered, err := k.follow()
	if err != nil {
		return fmt.Errorf("door: %w", err)
	}
	var group sync.WaitGroup
	defer group.Wait()
	for _, informer := range []cache.SharedIndexInformer{k.pods, k.slices, k.services} {
		group.Go(func() { informer.RunWithContext(ctx) })
	}
	// A Service looked at before its slices are known would refuse connections that it has endpoints for.
	if !cache.WaitFor(ctx, "", registered...) {
		return nil
	}
	for _, key := range k.services.GetIndexer().ListKeys() {
		if name, err := cache.ParseObjectName(key); err == nil {
			k.sync(&group, name.AsNamespacedName())
		}
	}
	close(k.synced)
	defer context.AfterFunc(ctx, k.queue.ShutDown)()
	for {
		key, stopped := k.queue.Get()
		if stopped {
			break
		}
		if ctx.Err() == nil { // a queue that is shut down is emptied first
			k.sync(&group, key)
		}
		k.queue.Done(key)
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, doors := range k.doors {
		for _, d := range doors {
			d.close()
			d.cut()
		}
	}
	return nil
}

// follow makes every change of a Service, its slices or its pods' colours a key in the queue.
func (k *Keeper) follow() ([]cache.DoneChecker, error) {
	service := func(object any) {
		if name, err := cache.DeletionHandlingObjectToName(object); err == nil {
			k.queue.Add(name.AsNamespacedName())
		}
	}
	slice := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		keys, _ := serviceOfSlice(object)
		for _, key := range keys {
			if name, err := cache.ParseObjectName(key); err == nil {
				k.queue.Add(name.AsNamespacedName())
			}
		}
	}
	// A pod does not know its Services, and a namespace has few.
	pod := func(object any) {
		keys, err := k.services.GetIndexer().IndexKeys(cache.NamespaceIndex, object.(*corev1.Pod).Namespace)
		if err != nil {
			return
		}
		for _, key := range keys {
			if name, err := cache.ParseObjectName(key); err == nil {
				k.queue.Add(name.AsNamespacedName())
			}
		}
	}
	var registered []cache.DoneChecker
	for _, source := range []struct {
		informer  cache.SharedIndexInformer
		transform cache.TransformFunc
		handler   cache.ResourceEventHandlerFuncs
	}{
		{k.services, trimMetadata, cache.ResourceEventHandlerFuncs{AddFunc: service, DeleteFunc: service,
			UpdateFunc: func(_, o any) { service(o) }}},
		{k.slices, trimMetadata, cache.ResourceEventHandlerFuncs{AddFunc: slice, DeleteFunc: slice,
			UpdateFunc: func(before, after any) { slice(before); slice(after) }}},
		// A pod that goes changes its slices too, and those are followed.
		{k.pods, trimPod, cache.ResourceEventHandlerFuncs{AddFunc: pod, UpdateFunc: func(before, after any) {
			if colourOf(before) != colourOf(after) {
				pod(after)
			}
		}}},
	} {
		if err := source.informer.SetTransform(source.transform); err != nil {
			return nil, err
		}
		registration, err := source.informer.AddEventHandler(source.handler)
		if err != nil {
			return nil, err
		}
		registered = append(registered, registration.HasSyncedChecker())
	}
	return registered, nil
}

// sync makes the doors of one Service what the cluster says. A door that cannot be opened is tried again later.
func (k *Keeper) sync(group *sync.WaitGroup, key types.NamespacedName) {
	service, err := corelisters.NewServiceLister(k.services.GetIndexer()).Services(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		k.config.Logger.Error("front door not updated", "service", key, "error", err)
		return
	}
	var wanted []front
	if err == nil {
		wanted = fronts(service, k.slicesOf(key))
	}
	failed := false
	now := k.config.Clock.Now()

	k.mu.Lock()
	defer k.mu.Unlock()
	doors := k.doors[key]
	for address, d := range doors {
		if slices.ContainsFunc(wanted, func(f front) bool { return f.address == address }) {
			continue
		}
		if d.close() {
			d.retired.Store(&now)
			k.config.Logger.Info("front door closed", "service", key, "address", address, "open", d.open.Load())
			k.queue.AddAfter(key, k.config.Linger)
		}
		if retired := d.retired.Load(); d.open.Load() == 0 || retired != nil && !now.Before(retired.Add(k.config.Linger)) {
			d.cut()
			delete(doors, address)
		}
	}
	for _, f := range wanted {
		d := doors[f.address]
		if d == nil {
			d = newDoor(k, key, f.address)
			if doors == nil {
				doors = map[netip.AddrPort]*door{}
				k.doors[key] = doors
			}
			doors[f.address] = d
		}
		// The endpoints come first, so that no connection is refused for want of them.
		d.update(f.targets, k.colour, now)
		if err := d.listen(group); err != nil {
			failed = true
			if d.problem.Swap(pointerTo(err.Error())) == nil {
				k.config.Logger.Warn("front door not opened", "service", key, "address", f.address, "error", err)
				k.events.Event(service, corev1.EventTypeWarning, "FrontDoorNotOpened", err.Error())
			}
		}
	}
	if len(doors) == 0 {
		delete(k.doors, key)
	}
	if failed {
		k.queue.AddRateLimited(key)
	} else {
		k.queue.Forget(key)
	}
}

func (k *Keeper) slicesOf(key types.NamespacedName) []*discoveryv1.EndpointSlice {
	objects, _ := k.slices.GetIndexer().ByIndex(byService, key.String())
	found := make([]*discoveryv1.EndpointSlice, 0, len(objects))
	for _, o := range objects {
		found = append(found, o.(*discoveryv1.EndpointSlice))
	}
	return found
}

// colour of a pod, "" for none.
func (k *Keeper) colour(pod types.NamespacedName) string {
	object, exists, err := k.pods.GetIndexer().GetByKey(pod.String())
	if err != nil || !exists {
		return ""
	}
	return colourOf(object)
}

func colourOf(pod any) string { return pod.(*corev1.Pod).Labels[ColourLabel] }

func serviceOfSlice(object any) ([]string, error) {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" {
		return nil, nil
	}
	return []string{slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]}, nil
}

// trimMetadata drops the largest part of most objects, which nothing here reads.
func trimMetadata(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
	}
	return object, nil
}

// trimPod keeps a pod's name and colour.
func trimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		Labels: labels.Set{ColourLabel: pod.Labels[ColourLabel]},
	}}, nil
}

func pointerTo[T any](value T) *T { return &value }
