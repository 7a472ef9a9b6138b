package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"edgehold.internal/services/fleet/kube/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// mirror keeps all Fleets of one cluster over one watch, whatever the number of PoPs in it and of calls that wait. It is
// not an informer of client-go because a rollback wants to know at once when an API is away and when it is back: an
// informer hides the first and waits up to 30 s for the second.
type mirror struct {
	reader client.WithWatch
	tasks  *sync.WaitGroup // of the connections

	mu     sync.Mutex
	fleets map[types.NamespacedName]*v1alpha1.Fleet // never changed once stored
	synced bool
	err    error     // why fleets may be out of date; nil while the watch runs
	away   time.Time // when the API was last found away
	// Those that wait for a change, by namespace.
	waiting map[string]map[chan struct{}]bool
	glances map[string]*glance // by the name of the Services

	// answered is closed when the API gave its first answer, good or bad.
	answered chan struct{}
	first    sync.Once
}

// The wait between two attempts to reach an API, doubled from the first to the last with a jitter of half. The last is
// short: an API that comes back in the middle of a rollback must not be waited for.
const (
	firstRetry  = 50 * time.Millisecond
	lastRetry   = time.Second
	answerLimit = 10 * time.Second
	// waking is how long an API that was away may answer without knowing its own roles yet: it serves before it has read
	// them, and refuses everybody until then.
	waking = 10 * time.Second
)

// errEndedAtOnce is a watch that a dying server or a proxy ended as soon as it began. The next attempt will tell what is
// wrong, if anything is; it must not be made in a tight loop.
var errEndedAtOnce = errors.New("the API ended the watch at once")

func newMirror(reader client.WithWatch, tasks *sync.WaitGroup) *mirror {
	return &mirror{reader: reader, tasks: tasks, fleets: map[types.NamespacedName]*v1alpha1.Fleet{}, waiting: map[string]map[chan struct{}]bool{},
		glances: map[string]*glance{}, answered: make(chan struct{})}
}

// run follows the cluster until ctx ends.
func (m *mirror) run(ctx context.Context) {
	version := "" // empty: list first
	retry := firstRetry
	for ctx.Err() == nil {
		var err error
		if version == "" {
			version, err = m.list(ctx)
		}
		if err == nil {
			began := time.Now()
			version, err = m.watch(ctx, version)
			if time.Since(began) > lastRetry {
				retry = firstRetry
			} else if err == nil && version != "" {
				err = errEndedAtOnce
			}
		}
		if err == nil || ctx.Err() != nil {
			continue // the server ends watches now and then
		}
		if err != errEndedAtOnce { //nolint:errorlint // made here, never wrapped
			m.failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry/2)):
		}
		retry = min(2*retry, lastRetry)
	}
}

func (m *mirror) list(ctx context.Context) (version string, err error) {
	bounded, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var list v1alpha1.FleetList
	if err := m.reader.List(bounded, &list); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	there := make(map[types.NamespacedName]bool, len(list.Items))
	for i := range list.Items {
		f := &list.Items[i]
		there[client.ObjectKeyFromObject(f)] = true
		m.store(f)
	}
	for key := range m.fleets {
		if !there[key] {
			delete(m.fleets, key)
			m.wake(key.Namespace)
		}
	}
	m.healthy()
	return list.ResourceVersion, nil
}

// watch follows from a version and returns the one it came to; empty when it is too old and a list is needed.
func (m *mirror) watch(ctx context.Context, version string) (string, error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	slow := time.AfterFunc(answerLimit, cancel)
	w, err := m.reader.Watch(inner, &v1alpha1.FleetList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true}})
	if !slow.Stop() && err == nil {
		w.Stop()
		err = fmt.Errorf("no answer within %s", answerLimit)
	}
	if err != nil {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return "", nil
		}
		return version, err
	}
	defer w.Stop()
	m.mu.Lock()
	m.healthy()
	m.mu.Unlock()
	for e := range w.ResultChan() {
		switch e.Type {
		case watch.Error:
			err := apierrors.FromObject(e.Object)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				return "", nil
			}
			return version, err
		case watch.Bookmark, watch.Added, watch.Modified, watch.Deleted:
			f, ok := e.Object.(*v1alpha1.Fleet)
			if !ok {
				continue
			}
			version = f.ResourceVersion
			m.mu.Lock()
			switch e.Type {
			case watch.Deleted:
				delete(m.fleets, client.ObjectKeyFromObject(f))
				m.wake(f.Namespace)
			case watch.Added, watch.Modified:
				m.store(f)
			}
			m.mu.Unlock()
		}
	}
	return version, nil
}

// store keeps the newer one: what a write returned may be ahead of the watch. The lock is held.
func (m *mirror) store(f *v1alpha1.Fleet) {
	key := client.ObjectKeyFromObject(f)
	if old := m.fleets[key]; old != nil && old.UID == f.UID {
		if order, err := resourceversion.CompareResourceVersion(f.ResourceVersion, old.ResourceVersion); err == nil && order <= 0 {
			return
		}
	}
	f.ManagedFields = nil // most of an object's bytes, and nobody here reads them
	m.fleets[key] = f
	m.wake(key.Namespace)
}

// learn takes in what a write returned, so that the writer reads it at once.
func (m *mirror) learn(f *v1alpha1.Fleet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fleets[client.ObjectKeyFromObject(f)] != nil {
		m.store(f.DeepCopy())
	}
}

// healthy and failed tell those that wait when the API's state changes. For healthy the lock is held.
func (m *mirror) healthy() {
	if m.synced && m.err == nil {
		return
	}
	m.synced, m.err = true, nil
	m.first.Do(func() { close(m.answered) })
	m.wakeAll()
}

func (m *mirror) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.err == nil
	m.err = err
	if away(err) {
		m.away = time.Now()
	}
	m.first.Do(func() { close(m.answered) })
	if first {
		m.wakeAll()
	}
}

func (m *mirror) wakeAll() {
	for namespace := range m.waiting {
		m.wake(namespace)
	}
}

func (m *mirror) wake(namespace string) {
	for c := range m.waiting[namespace] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// changes returns a channel that has an element after every change in the namespace, and a function that ends it.
func (m *mirror) changes(namespace string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[namespace] == nil {
		m.waiting[namespace] = map[chan struct{}]bool{}
	}
	m.waiting[namespace][c] = true
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting[namespace], c)
		if len(m.waiting[namespace]) == 0 {
			delete(m.waiting, namespace)
		}
	}
}

// get returns one fleet, nil when there is none. known is false before the first answer of the API, and err is why the
// rest may be out of date.
func (m *mirror) get(namespace, name string) (f *v1alpha1.Fleet, known bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fleets[types.NamespacedName{Namespace: namespace, Name: name}], m.synced, m.err
}

// all is get for every fleet of a namespace.
func (m *mirror) all(namespace string) (fleets []*v1alpha1.Fleet, known bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, f := range m.fleets {
		if key.Namespace == namespace {
			fleets = append(fleets, f)
		}
	}
	return fleets, m.synced, m.err
}

// settle waits for the first answer, which is then good for all PoPs of the cluster; or until ctx ends.
func (m *mirror) settle(ctx context.Context) {
	select {
	case <-m.answered:
	case <-ctx.Done():
	}
}

// awoke tells whether the API was away a moment ago.
func (m *mirror) awoke() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.away.IsZero() && time.Since(m.away) < waking
}

// state is whether anything is known, and why it may be out of date.
func (m *mirror) state() (known bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced, m.err
}
