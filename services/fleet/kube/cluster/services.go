package cluster

import (
	"context"
	"strconv"
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// served is the colour that a Service selects, as far as the watch on it tells.
type served struct {
	colour fleet.Colour
	// fence is the generation of the Fleet for which it was set; 0 when nobody said so.
	fence int64
	seen  time.Time
}

// glance is a watch on the Services of one name in a cluster, shared by those that wait for a switch. A controller records its
// switch later than it makes it, the more so in a rush; here the selector itself tells. It is a shortcut: where it fails, for want
// of the right to watch Services or of a connection, the record tells all the same.
type glance struct {
	waiting  int
	stop     context.CancelFunc
	services map[string]served // by namespace
}

// glimpse starts the watch on the Services of that name unless it runs, and returns what ends it for this caller.
func (m *mirror) glimpse(ctx context.Context, service string) (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.glances[service]
	if g == nil {
		g = &glance{services: map[string]served{}}
		m.glances[service] = g
		ctx, g.stop = context.WithCancel(ctx)
		m.tasks.Go(func() { m.watchServices(ctx, service, g) })
	}
	g.waiting++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if g.waiting--; g.waiting == 0 {
			g.stop()
			delete(m.glances, service)
		}
	}
}

// servedBy is what the Service of that name in the namespace was last seen to select.
func (m *mirror) servedBy(namespace, service string) (s served, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g := m.glances[service]; g != nil {
		s, known = g.services[namespace]
	}
	return s, known
}

func (m *mirror) watchServices(ctx context.Context, service string, g *glance) {
	for ctx.Err() == nil {
		// From what the API server remembers, which catches up: "0" spares a read of its store.
		w, err := m.reader.Watch(ctx, &corev1.ServiceList{}, &client.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", service), Raw: &metav1.ListOptions{ResourceVersion: "0"}})
		if err == nil {
			for e := range w.ResultChan() {
				if s, ok := e.Object.(*corev1.Service); ok {
					m.glanced(g, s, e.Type == watch.Deleted)
				}
			}
			w.Stop()
		}
		select {
		case <-ctx.Done():
		case <-time.After(lastRetry):
		}
	}
}

func (m *mirror) glanced(g *glance, s *corev1.Service, deleted bool) {
	// What is no number was not written by us.
	fence, _ := strconv.ParseInt(s.Annotations[v1alpha1.FenceAnnotation], 10, 64)
	m.mu.Lock()
	defer m.mu.Unlock()
	if delete(g.services, s.Namespace); !deleted {
		g.services[s.Namespace] = served{fleet.Colour(s.Spec.Selector[v1alpha1.ColourLabel]), fence, time.Now()}
	}
	m.wake(s.Namespace)
}

// anticipate puts into f what its controller is about to record: that the change it was declared with is made. The Service says
// so, set for this generation or a later one. It reports whether there is anything that is not recorded yet.
func (s served) anticipate(f *fleet.Fleet) bool {
	if f.Change == nil || s.colour != f.Declared || s.fence < f.Generation {
		return false
	}
	made := fleet.Cutover{ID: f.Change.ID, Generation: f.Generation, From: f.Declared.Other(), To: f.Declared, Version: f.Colour(f.Declared).Version,
		Principal: f.Change.Principal, Reason: f.Change.Reason, Forced: f.Change.Force, Rollback: f.Change.Rollback, Outcome: fleet.Running, DeclaredAt: f.Change.At}
	if last := f.LastCutover; last != nil {
		switch {
		case last.ID != made.ID:
			f.History = append([]fleet.Cutover{*last}, f.History...)
		case last.Outcome != fleet.Running || !last.SwitchedAt.IsZero():
			return false // the record is there
		default:
			made = *last
		}
	}
	made.SwitchedAt = s.seen
	f.LastCutover, f.Active = &made, f.Declared
	return true
}
