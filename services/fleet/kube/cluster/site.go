package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// fieldManager owns what the centre declares: spec.active and spec.change. The API server's stamp on it is when that was,
	// which a controller asks, so freezes have a manager of their own.
	fieldManager  = "edgehold-centre"
	freezeManager = "edgehold-centre-freezes"
	// attempts at a write that other writers get in the way of.
	attempts = 6
)

// Annotations that the centre leaves for those who read the objects later.
const (
	// ForcedAnnotation is on a Service whose selector was set without the controller: a JSON object with id, from, to,
	// principal, reason and at.
	ForcedAnnotation = "edgehold.internal/forced-selector"
	// UnfrozenAnnotation is on a Fleet whose freezes were ended early: a JSON object with id, principal, reason and at.
	UnfrozenAnnotation = "edgehold.internal/unfrozen"
)

// site is one PoP. It finds its connection anew for every call, because a reload may replace it.
type site struct {
	connections *Connections
	pop         fleet.Pop
}

var _ fleet.Cluster = (*site)(nil)

// Fleets reads from memory while the watch runs, else from the API.
func (s *site) Fleets(ctx context.Context, name string) ([]fleet.Fleet, error) {
	conn, err := s.connections.connect(s.pop.Context)
	if err != nil {
		return nil, err
	}
	s.connections.follow(conn)
	conn.mirror.settle(ctx)
	if name != "" {
		f, err := s.read(ctx, conn, name)
		if err != nil {
			return nil, err
		}
		return []fleet.Fleet{s.domain(f)}, nil
	}
	found, known, stale := conn.mirror.all(s.pop.Namespace)
	if !known || stale != nil {
		var list v1alpha1.FleetList
		if err := conn.client.List(ctx, &list, client.InNamespace(s.pop.Namespace)); err != nil {
			return nil, s.translate(err)
		}
		found = nil
		for i := range list.Items {
			found = append(found, &list.Items[i])
		}
	}
	slices.SortFunc(found, func(a, b *v1alpha1.Fleet) int { return cmp.Compare(a.Name, b.Name) })
	fleets := make([]fleet.Fleet, len(found))
	for i, f := range found {
		fleets[i] = s.domain(f)
	}
	return fleets, nil
}

// read is one fleet, from memory when that is in step with the API. The first read of a cluster waits for the one list that
// the watch begins with, instead of asking once per PoP.
func (s *site) read(ctx context.Context, conn *connection, name string) (*v1alpha1.Fleet, error) {
	s.connections.follow(conn)
	conn.mirror.settle(ctx)
	if f, known, stale := conn.mirror.get(s.pop.Namespace, name); known && stale == nil && f != nil {
		return f, nil
	}
	return s.readAPI(ctx, conn, name)
}

func (s *site) readAPI(ctx context.Context, conn *connection, name string) (*v1alpha1.Fleet, error) {
	f, err := s.getFleet(ctx, conn, name)
	return f, s.translate(err)
}

// getFleet returns the API's own error, but for a fleet that does not exist.
func (s *site) getFleet(ctx context.Context, conn *connection, name string) (*v1alpha1.Fleet, error) {
	var f v1alpha1.Fleet
	err := conn.client.Get(ctx, types.NamespacedName{Namespace: s.pop.Namespace, Name: name}, &f)
	if err == nil {
		return &f, nil
	}
	if apierrors.IsNotFound(err) && hasDetails(err) {
		return nil, s.noFleet(ctx, conn, name)
	}
	return nil, err
}

// noFleet says which fleets the PoP has instead.
func (s *site) noFleet(ctx context.Context, conn *connection, name string) error {
	var list v1alpha1.FleetList
	if err := conn.client.List(ctx, &list, client.InNamespace(s.pop.Namespace)); err != nil {
		return s.translate(err)
	}
	var names []string
	for _, f := range list.Items {
		names = append(names, f.Name)
	}
	return s.missing(name, names)
}

func (s *site) missing(name string, names []string) error {
	slices.Sort(names)
	have := "no fleet at all"
	if len(names) > 0 {
		have = strings.Join(names[:min(len(names), 10)], ", ")
	}
	if name == "" {
		return problem.NotFoundf("fleet", "PoP %s (namespace %s, context %s) has no fleet at all", s.pop.Name, s.pop.Namespace, s.pop.Context)
	}
	return problem.NotFoundf("fleet", "PoP %s (namespace %s, context %s) has no fleet %q; it has %s", s.pop.Name, s.pop.Namespace, s.pop.Context, name, have)
}

// Watch follows the mirror of the context.
func (s *site) Watch(ctx context.Context, name string, on func(fleet.WatchEvent)) {
	sent := map[string]string{}   // what the reader has: resourceVersion by name
	broken, empty := false, false // what else the reader was told
	s.follow(ctx, func(conn *connection, err error) bool {
		var found []*v1alpha1.Fleet
		known := false
		if err == nil {
			found, known, err = conn.mirror.all(s.pop.Namespace)
		}
		if err != nil {
			if !broken {
				on(fleet.WatchEvent{Err: s.translate(err)})
			}
			broken, empty = true, false
			return false
		}
		if !known {
			return false
		}
		there := map[string]bool{}
		var names []string
		for _, f := range found {
			names = append(names, f.Name)
			if name != "" && f.Name != name {
				continue
			}
			there[f.Name] = true
			if sent[f.Name] == f.ResourceVersion && !broken {
				continue
			}
			sent[f.Name] = f.ResourceVersion
			d := s.domain(f)
			on(fleet.WatchEvent{Name: f.Name, Fleet: &d})
		}
		if len(there)+len(sent) == 0 && !empty {
			on(fleet.WatchEvent{Err: s.missing(name, names)})
		}
		for gone := range sent {
			if !there[gone] {
				delete(sent, gone)
				on(fleet.WatchEvent{Name: gone, Deleted: true})
			}
		}
		broken, empty = false, len(there) == 0
		return false
	})
}

// follow calls look at once and after every change in the PoP until it says true or ctx ends. It survives a reload of the
// kubeconfig; while that has no way to the cluster, look gets the error and no connection.
func (s *site) follow(ctx context.Context, look func(*connection, error) bool) {
	for ctx.Err() == nil {
		conn, err := s.connections.connect(s.pop.Context)
		if err != nil {
			if look(nil, err) {
				return
			}
			select {
			case <-ctx.Done():
			case <-s.connections.ctx.Done():
				return
			case <-time.After(lastRetry):
			}
			continue
		}
		s.connections.follow(conn)
		changes, stop := conn.mirror.changes(s.pop.Namespace)
		for on := true; on; {
			if look(conn, nil) {
				stop()
				return
			}
			select {
			case <-ctx.Done():
				on = false
			case <-conn.ctx.Done():
				on = false
			case <-changes:
			}
		}
		stop()
	}
}

// Await follows the mirror until done says so. A command, whose caller waits at a terminal, looks at the Services meanwhile. A
// service does not: what is done with its answer is compared with other times of the controller's, and so has to be the record.
func (s *site) Await(ctx context.Context, since fleet.Fleet, done func(*fleet.Fleet) bool) (fleet.Fleet, error) {
	last := since
	var end error
	seen := false
	var glimpsed *connection
	unglimpse := func() {}
	defer func() { unglimpse() }()
	s.follow(ctx, func(conn *connection, err error) bool {
		if err != nil {
			return false // a reload may bring it back
		}
		f, known, stale := conn.mirror.get(s.pop.Namespace, since.Name)
		switch {
		case f != nil && f.Generation >= since.Generation:
			seen = true
			if last = s.domain(f); done(&last) {
				return true
			}
			if conn != glimpsed && !s.connections.config.Follow {
				unglimpse()
				glimpsed, unglimpse = conn, conn.mirror.glimpse(conn.ctx, f.Spec.Service)
			}
			v, known := conn.mirror.servedBy(s.pop.Namespace, f.Spec.Service)
			return known && v.anticipate(&last) && done(&last)
		case f == nil && known && seen:
			end = s.noFleet(ctx, conn, since.Name)
			return true
		case stale != nil && (apierrors.IsForbidden(stale) && !s.asleep(stale) || apierrors.IsUnauthorized(stale)):
			end = s.translate(stale)
			return true
		}
		return false
	})
	if end == nil && !done(&last) {
		end = ctx.Err()
		if end == nil {
			end = problem.Unavailablef("the connections are closed")
		}
	}
	return last, end
}

// Plan looks at the fleet alone while its controller reports that all is well: one read, or none while the watch runs, where
// a whole observation is four. It is the difference between a global rollback that first reads for a tenth of a second and
// one that does not. The controller has the last word either way.
func (s *site) Plan(ctx context.Context, name string, change fleet.Change, fresh bool) (fleet.Fleet, fleet.Plan, error) {
	conn, err := s.connections.connect(s.pop.Context)
	if err != nil {
		return fleet.Fleet{}, fleet.Plan{}, err
	}
	if !fresh {
		f, err := s.read(ctx, conn, name)
		if err != nil {
			return fleet.Fleet{}, fleet.Plan{}, err
		}
		if o, ok := reported(f, change.To, time.Now()); ok {
			if plan := fleet.MakePlan(&o, change); len(plan.Blockers) == 0 {
				return s.domain(f), plan, nil
			}
		}
	}
	o, _, err := s.observe(ctx, conn, name)
	if err != nil {
		return fleet.Fleet{}, fleet.Plan{}, err
	}
	return s.observed(&o), fleet.MakePlan(&o, change), nil
}

// observe reads a fleet and what it is about from the cluster itself.
func (s *site) observe(ctx context.Context, conn *connection, name string) (fleet.Observation, *v1alpha1.Fleet, error) {
	o, f, err := kube.Observe(ctx, conn.client, s.pop.Namespace, name)
	if problem.KindOf(err) == problem.NotFound {
		err = s.noFleet(ctx, conn, name)
	}
	return o, f, s.translate(err)
}

// observed is the fleet as its objects themselves have it, which know it better than the last status.
func (s *site) observed(o *fleet.Observation) fleet.Fleet {
	f := s.view(o.Name, o.Generation, o.Spec, o.Status)
	f.Active = o.Served()
	for _, c := range []fleet.Colour{fleet.Blue, fleet.Green} {
		if d := o.Deployment(c); d != nil {
			state := f.Colour(c)
			state.Version, state.Desired, state.Ready = d.Version, d.Desired, d.Ready
		}
	}
	return f
}

// reported is the observation that a controller's report stands for, when it speaks of the present spec and says that
// nothing is wrong.
func reported(f *v1alpha1.Fleet, to fleet.Colour, now time.Time) (fleet.Observation, bool) {
	status := kube.Status(f)
	if status.ObservedGeneration != f.Generation || status.Active == fleet.None {
		return fleet.Observation{}, false
	}
	well := map[string]bool{}
	for _, c := range status.Conditions {
		well[c.Type] = c.Status == "True"
	}
	if !well[fleet.ConditionConfigured] || !well[fleet.ConditionSoleWriter] || to != status.Active && !well[fleet.ConditionRollbackReady] {
		return fleet.Observation{}, false
	}
	deployment := func(c fleet.Colour, s fleet.ColourState) *fleet.Deployment {
		own := map[string]string{fleet.ColourLabel: string(c)}
		return &fleet.Deployment{Name: s.Deployment, Version: s.Version, Labels: own, Selector: own, Desired: s.Desired, Pods: s.Desired, Ready: s.Ready, Current: s.Ready}
	}
	o := fleet.Observation{
		Name: f.Name, Generation: f.Generation, Spec: kube.Spec(f), Status: status,
		Service: &fleet.Service{Name: f.Spec.Service, Colour: status.Active, Selector: map[string]string{fleet.ColourLabel: string(status.Active)},
			Managers: []fleet.Writer{{Name: fleet.OwnManager}}},
		Blue: deployment(fleet.Blue, status.Blue), Green: deployment(fleet.Green, status.Green),
		Clock: fleet.Clock{Now: now, Earliest: now, Latest: now, Uptime: 1},
	}
	// How much room there is for a standby that has to grow first is in no report.
	return o, to != fleet.None && !o.MustRamp(to)
}

// Declare patches spec.active and spec.change together. It leaves no Event: the controller's say the same, and in a rush each is a
// write more.
func (s *site) Declare(ctx context.Context, name string, change fleet.Change) (fleet.Fleet, error) {
	f, err := s.patch(ctx, name, fieldManager, s.declare(change))
	if err != nil {
		return fleet.Fleet{}, err
	}
	return s.domain(f), nil
}

// declare is what the change wants of a fleet that does not know it yet.
func (s *site) declare(change fleet.Change) func(*v1alpha1.Fleet) ([]operation, error) {
	return func(f *v1alpha1.Fleet) ([]operation, error) {
		d := s.domain(f)
		if recorded, err := d.Recorded(change); recorded != nil || err != nil {
			return nil, err
		}
		return declaration(f, change), nil
	}
}

// declaration is made on the spec that was looked at. That the status changes meanwhile is no reason to ask again: a controller
// writes it every other second after a cutover, and in the middle of that the rollback comes.
func declaration(f *v1alpha1.Fleet, change fleet.Change) []operation {
	c := v1alpha1.ChangeSpec{ID: change.ID, Principal: change.Principal, Reason: change.Reason, Version: change.Version, Force: change.Force, Rollback: change.Rollback, At: metav1.NewMicroTime(change.At)}
	if !change.Deadline.IsZero() {
		deadline := metav1.NewMicroTime(change.Deadline)
		c.Deadline = &deadline
	}
	// Whole, and not merged: a version or a force of the change before must not live on in this one.
	return []operation{
		{"test", "/metadata/uid", f.UID}, {"test", "/metadata/generation", f.Generation},
		{"replace", "/spec/active", change.To}, {"add", "/spec/change", c},
	}
}

// Freeze appends to spec.freezes and drops those that are over.
func (s *site) Freeze(ctx context.Context, name string, freeze fleet.Freeze) (fleet.Fleet, error) {
	f, err := s.patch(ctx, name, freezeManager, func(f *v1alpha1.Fleet) ([]operation, error) {
		next := []v1alpha1.FreezeSpec{}
		for _, old := range f.Spec.Freezes {
			if old.ID == freeze.ID {
				if !old.Until.Time.Equal(freeze.Until.Truncate(time.Second)) || old.Reason != freeze.Reason {
					return nil, problem.New(problem.AlreadyExists, "idempotency_key", "%q was used before for a freeze of %s until %s with the reason %q; use a new key for another request",
						freeze.ID, s.pop.Name, old.Until.UTC().Format(time.RFC3339), old.Reason).With("id", freeze.ID)
				}
				return nil, nil
			}
			if old.Until.After(freeze.From) {
				next = append(next, old)
			}
		}
		if len(next) >= 16 {
			return nil, problem.New(problem.ResourceExhausted, "fleet", "PoP %s has %d freezes already; unfreeze it first", s.pop.Name, len(next))
		}
		next = append(next, v1alpha1.FreezeSpec{From: metav1.NewTime(freeze.From), Until: metav1.NewTime(freeze.Until), Reason: freeze.Reason, Principal: freeze.Principal, ID: freeze.ID})
		return []operation{unchanged(f), {"add", "/spec/freezes", next}}, nil
	})
	if err != nil {
		return fleet.Fleet{}, err
	}
	s.record(f, "Frozen", fmt.Sprintf("until %s by %s: %s", freeze.Until.UTC().Format(time.RFC3339), cmp.Or(freeze.Principal, "unknown"), freeze.Reason))
	return s.domain(f), nil
}

// Unfreeze removes spec.freezes and leaves who did it in an annotation, which also makes a repeated call harmless.
func (s *site) Unfreeze(ctx context.Context, name string, by fleet.Unfreeze) (fleet.Fleet, error) {
	mark, err := json.Marshal(unfrozen{by.ID, by.Principal, by.Reason, by.At.UTC().Format(time.RFC3339Nano)})
	if err != nil {
		return fleet.Fleet{}, err
	}
	f, err := s.patch(ctx, name, freezeManager, func(f *v1alpha1.Fleet) ([]operation, error) {
		var last unfrozen
		if text := f.Annotations[UnfrozenAnnotation]; text != "" && json.Unmarshal([]byte(text), &last) == nil && last.ID == by.ID {
			if last.Reason != by.Reason {
				return nil, problem.New(problem.AlreadyExists, "idempotency_key", "%q was used before with the reason %q; use a new key for another request", by.ID, last.Reason).With("id", by.ID)
			}
			return nil, nil
		}
		annotations := map[string]string{}
		for k, v := range f.Annotations {
			annotations[k] = v
		}
		annotations[UnfrozenAnnotation] = string(mark)
		return []operation{unchanged(f), {"add", "/spec/freezes", []v1alpha1.FreezeSpec{}}, {"add", "/metadata/annotations", annotations}}, nil
	})
	if err != nil {
		return fleet.Fleet{}, err
	}
	s.record(f, "Unfrozen", fmt.Sprintf("by %s: %s", cmp.Or(by.Principal, "unknown"), by.Reason))
	return s.domain(f), nil
}

type unfrozen struct {
	ID        string `json:"id"`
	Principal string `json:"principal"`
	Reason    string `json:"reason"`
	At        string `json:"at"`
}

// operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// unchanged makes a patch hold for the whole object as it was looked at.
func unchanged(f *v1alpha1.Fleet) operation {
	return operation{"replace", "/metadata/resourceVersion", f.ResourceVersion}
}

// patch is patchFleet on the fleet of that name as it is.
func (s *site) patch(ctx context.Context, name, manager string, change func(*v1alpha1.Fleet) ([]operation, error)) (*v1alpha1.Fleet, error) {
	conn, err := s.connections.connect(s.pop.Context)
	if err != nil {
		return nil, err
	}
	f, err := s.read(ctx, conn, name)
	if err != nil {
		return nil, err
	}
	return s.patchFleet(ctx, conn, f, manager, change)
}

// patchFleet writes what change wants of a fleet, on the conditions that are among its operations. No operations: it is as it
// should be. When another writer was first, or the API died over the write, it reads anew and asks again.
func (s *site) patchFleet(ctx context.Context, conn *connection, f *v1alpha1.Fleet, manager string, change func(*v1alpha1.Fleet) ([]operation, error)) (*v1alpha1.Fleet, error) {
	name := f.Name
	err := s.write(ctx, "fleet "+name, func(again bool) error {
		if again {
			latest, err := s.getFleet(ctx, conn, name)
			if err != nil {
				return err
			}
			f = latest
		}
		operations, err := change(f)
		if err != nil || len(operations) == 0 {
			return err
		}
		body, err := json.Marshal(operations)
		if err != nil {
			return fmt.Errorf("encode the patch of fleet %s: %w", name, err)
		}
		next := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Namespace: s.pop.Namespace, Name: name}}
		if err := conn.client.Patch(ctx, next, client.RawPatch(types.JSONPatchType, body), client.FieldOwner(manager)); err != nil {
			return err
		}
		conn.mirror.learn(next)
		f = next
		return nil
	})
	return f, err
}

// write tries until one attempt goes through, and tells each but the first to read anew. A conflict is tried again a few
// times. An API that went away while it was asked may have written or not, and the next attempt finds out: in the middle of
// an outage a caller must not be told that nothing happened when it did.
func (s *site) write(ctx context.Context, what string, attempt func(again bool) error) error {
	conflicts := 0
	for again := false; ; again = true {
		err := attempt(again)
		switch {
		case err == nil:
			return nil
		case overtaken(err):
			if conflicts++; conflicts >= attempts {
				return problem.New(problem.Aborted, "", "%s in PoP %s was changed by other writers %d times in a row; find out who they are, and ask again", what, s.pop.Name, attempts)
			}
		case again && !away(err) && !s.asleep(err), !again && !inDoubt(err) && !s.asleep(err):
			return s.translate(err)
		default:
			select {
			case <-ctx.Done():
				return problem.Unavailablef("PoP %s (context %s): the Kubernetes API went away while %s was written, which may have happened or not; ask again with the same key: %s",
					s.pop.Name, s.pop.Context, what, reach(err))
			case <-time.After(2 * firstRetry):
			}
		}
	}
}

// ForceSelector writes the fleet first: a controller that comes back at any moment then wants what the Service has. It leaves no
// Event either: ForcedAnnotation stays on the Service and says more.
func (s *site) ForceSelector(ctx context.Context, name string, change fleet.Change, admit func(fleet.Fleet, fleet.Plan) (bool, error)) (fleet.Fleet, error) {
	conn, err := s.connections.connect(s.pop.Context)
	if err != nil {
		return fleet.Fleet{}, err
	}
	o, f, err := s.observe(ctx, conn, name)
	if err != nil {
		return fleet.Fleet{}, err
	}
	before := s.observed(&o)
	if wanted, err := admit(before, fleet.MakePlan(&o, change)); err != nil || !wanted {
		return before, err
	}
	if f, err = s.patchFleet(ctx, conn, f, fieldManager, s.declare(change)); err != nil {
		return fleet.Fleet{}, err
	}
	declared := s.domain(f)
	if err := s.setSelector(ctx, conn, o.Spec.Service, o.Service, declared, change); err != nil {
		return fleet.Fleet{}, err
	}
	declared.Active = change.To
	return declared, nil
}

// setSelector writes on what was seen of the Service; when another writer was first, or nothing was seen, on what it reads then.
func (s *site) setSelector(ctx context.Context, conn *connection, name string, seen *fleet.Service, declared fleet.Fleet, change fleet.Change) error {
	return s.write(ctx, "Service "+name, func(again bool) error {
		if again || seen == nil {
			var service corev1.Service
			err := conn.client.Get(ctx, types.NamespacedName{Namespace: s.pop.Namespace, Name: name}, &service)
			if apierrors.IsNotFound(err) {
				return problem.Preconditionf("fleet", "fleet %s of PoP %s names the Service %s, which does not exist in namespace %s; create it or correct spec.service", declared.Name, s.pop.Name, name, s.pop.Namespace)
			}
			if err != nil {
				return err
			}
			seen = &fleet.Service{ResourceVersion: service.ResourceVersion, Selector: service.Spec.Selector}
		}
		if len(seen.Selector) == 0 {
			return problem.Preconditionf("fleet", "Service %s of PoP %s has no selector, so its endpoints are somebody else's; the colour alone would select every pod with that label", name, s.pop.Name)
		}
		from := seen.Selector[v1alpha1.ColourLabel]
		if from == string(change.To) {
			return nil
		}
		mark, err := json.Marshal(map[string]string{"id": change.ID, "from": from, "to": string(change.To), "principal": change.Principal,
			"reason": change.Reason, "at": change.At.UTC().Format(time.RFC3339Nano)})
		if err != nil {
			return err
		}
		body, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": seen.ResourceVersion, "annotations": map[string]string{
				ForcedAnnotation:         string(mark),
				v1alpha1.FenceAnnotation: strconv.FormatInt(declared.Generation, 10),
			}},
			"spec": map[string]any{"selector": map[string]string{v1alpha1.ColourLabel: string(change.To)}},
		})
		if err != nil {
			return err
		}
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.pop.Namespace, Name: name}}
		return conn.client.Patch(ctx, service, client.RawPatch(types.MergePatchType, body), client.FieldOwner(v1alpha1.FieldManager))
	})
}
