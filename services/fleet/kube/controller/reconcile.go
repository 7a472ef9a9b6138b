package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"golang.org/x/time/rate"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// How often a status is written whose counts and readings alone have changed: what somebody waits for, and what nobody does.
const (
	writeFast = 2 * time.Second
	writeIdle = 10 * time.Second
	// readingsPerSecond of one cluster, over all fleets.
	readingsPerSecond = 25
	// writeGap is the least time between two writes of one status. The steps of a cutover without connections take less.
	writeGap = 100 * time.Millisecond
)

// retryConflict is how soon a write is tried again that lost against another writer. The watch brings the news sooner.
const retryConflict = 20 * time.Millisecond

// reconciler does for each fleet, in this order: observe, decide, switch, scale, tell the pods, write the status.
type reconciler struct {
	controller *Controller
	client     client.Client // reads from the cache
	live       client.Reader
	events     events.EventRecorder
	log        *slog.Logger
	nudge      chan event.TypedGenericEvent[*v1alpha1.Fleet]

	// readings bounds the writes of statuses whose readings alone have changed, over all fleets of the cluster.
	readings *rate.Limiter

	rush rush

	mu     sync.Mutex
	fleets map[types.NamespacedName]*entry
}

// entry is what is remembered of one fleet. Reconciliations of one fleet never overlap.
type entry struct {
	uid    types.UID
	memory fleet.Memory
	// status as decided last, which the cache may not show yet. There is one writer.
	status fleet.Status
	// known is the last one that the API server took, and written how it was sent.
	known     fleet.Status
	written   []byte
	writtenAt time.Duration
	// own are our last writes of objects, which the cache may not show yet.
	own      map[string]ownWrite
	follower *follower
	headroom fleet.Headroom
	roomAt   time.Duration
	failing  string // the last error that was told, so that it is told once
	resetID  string // the last round of resets that was kept in the audit log
	// every is a number in [0.75, 1.25) by which the times between two writes of readings are multiplied, another one after each, so
	// that the fleets of a global rollback do not write theirs all at once, two seconds later and so on.
	every float64
	// after is when the last switch is recorded and its pods are asked, and untold what is told with the record.
	after  aftermath
	untold []fleet.Notice
}

// ownWrite replaces an object in the cache for as long as that still shows the version that was written over.
type ownWrite struct {
	over   string
	object client.Object
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	objects, err := kube.Read(ctx, r.client, req.NamespacedName)
	if problem.KindOf(err) == problem.NotFound {
		r.forget(req.NamespacedName)
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	e := r.entry(objects.Fleet)
	o, stale, err := r.observe(ctx, e, objects)
	if err != nil {
		return reconcile.Result{}, err
	}
	if stale {
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	}
	d := fleet.Decide(o)

	if d.Switch != nil {
		way := map[string]any{"from": d.Switch.From, "to": d.Switch.To}
		r.rush.begin()
		err := r.turn(ctx, e, objects, &d)
		after := r.rush.end(r.controller.config.Clock.Uptime(), r.count())
		switch {
		case err == nil:
			e.after = after
			r.audit(ctx, objects, acts[d.Switch.Why], d.Status.LastCutover, nil, way)
		case apierrors.IsConflict(err):
			return reconcile.Result{RequeueAfter: retryConflict}, nil
		default:
			err = fmt.Errorf("the selector of Service %s could not be set to %s: %w", o.Spec.Service, d.Switch.To, err)
			if r.fail(e, objects.Fleet, "SwitchFailed", err) {
				r.audit(ctx, objects, acts[d.Switch.Why], d.Status.LastCutover, err, way)
			}
			if d.Switch.Why == fleet.ForCutover {
				// Declared and not switched: whoever waits for it reads why, and it can still expire.
				e.memory, e.status = d.Memory, d.Status
				e.status.Phase, e.status.Message = fleet.Blocked, err.Error()
				_, _ = r.write(ctx, e, objects.Fleet, true) // it is the lesser of the two errors
			}
			return reconcile.Result{}, err
		}
	}
	if d.Scale != nil {
		if err := r.scale(ctx, e, objects, d.Scale); err != nil {
			// A size that is not given holds up neither the record of a switch nor the drain.
			r.fail(e, objects.Fleet, "ScaleFailed", err)
			if d.Requeue == 0 || d.Requeue > time.Second {
				d.Requeue = time.Second
			}
		}
	}
	if found(&o.Status, &d) {
		way := map[string]any{"from": d.Status.LastCutover.From, "to": d.Status.LastCutover.To}
		if m := o.Service.Managers; len(m) > 0 {
			way["writer"] = m[0].Name
		}
		r.audit(ctx, objects, "adopt", d.Status.LastCutover, nil, way)
	}
	e.memory, e.status = d.Memory, d.Status
	if id := d.Pods.ResetID; id != "" && id != e.resetID {
		e.resetID = id
		r.audit(ctx, objects, "reset", d.Status.LastCutover, nil, map[string]any{"colour": d.Pods.Drain, "open": d.Status.LastCutover.ConnectionsLeft})
	}
	for _, n := range d.Notices {
		r.tell(e, objects.Fleet, n)
	}
	r.controller.meters.show(req.Namespace, req.Name, &o, &d.Status)

	later := r.rush.wait(e.after, r.controller.config.Clock.Uptime())
	if later == 0 {
		r.follow(e, objects, &d, &o.Spec)
		if later, err = r.write(ctx, e, objects.Fleet, d.Pods.Fast); err != nil {
			return reconcile.Result{}, err
		}
	}
	if later > 0 && (d.Requeue == 0 || later < d.Requeue) {
		d.Requeue = later
	}
	if d.Switch == nil && d.Scale == nil {
		e.failing = ""
	}
	return reconcile.Result{RequeueAfter: d.Requeue, Priority: new(behind)}, nil
}

// count is how many fleets the cluster has.
func (r *reconciler) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.fleets)
}

func (r *reconciler) entry(f *v1alpha1.Fleet) *entry {
	key := client.ObjectKeyFromObject(f)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.fleets[key]
	if e != nil && e.uid == f.UID {
		return e
	}
	if e != nil && e.follower != nil {
		e.follower.stop()
	}
	status := kube.Status(f)
	written, _ := json.Marshal(f.Status) // one that cannot be encoded is written anew
	e = &entry{uid: f.UID, status: status, known: status, written: written, every: 1, own: map[string]ownWrite{}}
	r.fleets[key] = e
	return e
}

// forget drops a fleet that is gone. Its pods are not told to drain any longer by anyone, so they are told to stop.
func (r *reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	e := r.fleets[key]
	delete(r.fleets, key)
	r.mu.Unlock()
	if e == nil {
		return
	}
	r.controller.meters.forget(key.Namespace, key.Name)
	if f := e.follower; f != nil {
		f.leave()
	}
}

func (r *reconciler) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.fleets {
		if e.follower != nil {
			e.follower.stop()
		}
	}
	r.fleets = nil
}

// observe makes the observation, with our own writes in it that the cache does not show yet. It reports true when the cache
// is known to be behind.
func (r *reconciler) observe(ctx context.Context, e *entry, objects *kube.Objects) (o fleet.Observation, stale bool, err error) {
	objects.Service = latest(e, objects.Service)
	objects.Blue = latest(e, objects.Blue)
	objects.Green = latest(e, objects.Green)
	o = objects.Observation(r.controller.keeper.now())
	o.Status, o.Memory = e.status, e.memory
	if e.follower != nil {
		found := e.follower.see()
		o.BluePods, o.GreenPods = found.blue, found.green
		if found.trafficColour == o.Served() {
			o.Traffic, o.TrafficProblem = found.traffic, found.trafficProblem
		}
	}
	if o.Service != nil && o.Service.Fence > o.Generation {
		// Either the cache is behind, or the fence is of a Fleet that was deleted and made again.
		var now v1alpha1.Fleet
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(objects.Fleet), &now); err != nil {
			return o, false, client.IgnoreNotFound(err)
		}
		if now.Generation > o.Generation {
			return o, true, nil
		}
		o.Service.Fence = 0
	}
	if o.Served() != o.Spec.Active && o.MustRamp(o.Spec.Active) {
		if e.roomAt == 0 || o.Clock.Uptime-e.roomAt > 2*time.Second {
			e.headroom, e.roomAt = kube.Headroom(ctx, r.live, objects, o.Spec.Active), o.Clock.Uptime
		}
		o.Headroom = e.headroom
	}
	return o, false, nil
}

// object is a pointer to a Kubernetes object.
type object[T any] interface {
	*T
	client.Object
}

// latest is the object in the cache or, while that still shows what we have written over, what we wrote.
func latest[T any, P object[T]](e *entry, cached P) P {
	if cached == nil {
		return nil
	}
	key := fmt.Sprintf("%T/%s", cached, cached.GetName())
	own, ok := e.own[key]
	if !ok {
		return cached
	}
	if own.over == cached.GetResourceVersion() && own.object.GetUID() == cached.GetUID() {
		if p, ok := own.object.(P); ok {
			return p
		}
	}
	delete(e.own, key)
	return cached
}

// wrote remembers a write over the version of an object.
func (e *entry) wrote(over string, o client.Object) {
	if o.GetResourceVersion() != over {
		e.own[fmt.Sprintf("%T/%s", o, o.GetName())] = ownWrite{over, o}
	}
}

// turn sets the selector, on condition that the Service is still the one that was decided on.
func (r *reconciler) turn(ctx context.Context, e *entry, objects *kube.Objects, d *fleet.Decision) error {
	s := d.Switch
	notes := map[string]string{v1alpha1.FenceAnnotation: strconv.FormatInt(s.Fence, 10)}
	if s.Reverts != "" {
		notes[v1alpha1.RevertedAnnotation] = s.Reverts
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": s.ResourceVersion, "annotations": notes},
		"spec":     map[string]any{"selector": map[string]string{v1alpha1.ColourLabel: string(s.To)}},
	})
	if err != nil {
		return err
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: objects.Service.Name, Namespace: objects.Service.Namespace}}
	if err := r.client.Patch(ctx, service, client.RawPatch(types.MergePatchType, body), client.FieldOwner(v1alpha1.FieldManager)); err != nil {
		return err
	}
	d.Switched(r.controller.keeper.now())
	e.wrote(s.ResourceVersion, service)
	return nil
}

// acts are the names of what is done to a selector.
var acts = map[fleet.Why]string{fleet.ForCutover: "switch", fleet.ToRevert: "revert", fleet.ToRestore: "restore"}

// audit keeps what was done for a cutover, and how it went.
func (r *reconciler) audit(ctx context.Context, o *kube.Objects, act string, c *fleet.Cutover, err error, more map[string]any) {
	request := map[string]any{"cluster": r.controller.config.Cluster, "namespace": o.Fleet.Namespace, "fleet": o.Fleet.Name, "service": o.Fleet.Spec.Service,
		"version": c.Version, "force": c.Forced, "rollback": c.Rollback, "generation": o.Fleet.Generation}
	maps.Copy(request, more)
	r.controller.config.Audit(ctx, service.Act{Name: "fleet-controller/" + act, Principal: c.Principal, Reason: c.Reason, IdempotencyKey: c.ID, Request: request, Err: err})
}

// found reports whether a decision puts a switch on record that this process did not make: the one before it was killed, or
// the answer was lost, or a person or another writer made it.
func found(before *fleet.Status, d *fleet.Decision) bool {
	c, was := d.Status.LastCutover, before.LastCutover
	return d.Switch == nil && c != nil && !c.SwitchedAt.IsZero() && (was == nil || was.ID != c.ID || was.SwitchedAt.IsZero())
}

// scale writes both sizes, the one first that keeps the standby from being the smaller.
func (r *reconciler) scale(ctx context.Context, e *entry, objects *kube.Objects, s *fleet.Scale) error {
	for _, c := range []fleet.Colour{s.First, s.First.Other()} {
		d := objects.Blue
		if c == fleet.Green {
			d = objects.Green
		}
		want := s.Of(c)
		if d.Spec.Replicas != nil && *d.Spec.Replicas == want {
			continue
		}
		body := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, want)
		written := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: d.Name, Namespace: d.Namespace}}
		if err := r.client.Patch(ctx, written, client.RawPatch(types.MergePatchType, body), client.FieldOwner(v1alpha1.FieldManager)); err != nil {
			return fmt.Errorf("the replicas of Deployment %s could not be set to %d: %w", d.Name, want, err)
		}
		e.wrote(d.ResourceVersion, written)
	}
	return nil
}

// follow tells the follower what shall hold for the pods.
func (r *reconciler) follow(e *entry, objects *kube.Objects, d *fleet.Decision, spec *fleet.Spec) {
	if !spec.Drain.Method.Counts() && spec.Metrics == nil {
		if e.follower != nil {
			e.follower.leave()
			e.follower = nil
		}
		return
	}
	t := target{orders: d.Pods, drain: spec.Drain, metrics: spec.Metrics, pods: map[fleet.Colour][]pod{}}
	for _, c := range colours {
		for _, p := range objects.PodsOf(c) {
			t.pods[c] = append(t.pods[c], pod{name: p.Name, uid: p.UID, host: p.Status.PodIP, ready: kube.IsReady(p)})
		}
	}
	if e.follower == nil {
		named := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Namespace: objects.Fleet.Namespace, Name: objects.Fleet.Name}}
		c := r.controller
		e.follower = newFollower(c.keeper.now, c.dial, c.scrape, c.probes, func() {
			select {
			case r.nudge <- event.TypedGenericEvent[*v1alpha1.Fleet]{Object: named}:
			default: // the queue is far behind, and the next round nudges again
			}
		})
		e.follower.target = t
		e.follower.start()
		return
	}
	e.follower.set(t)
}

// write stores the status: at once when it says something new, now and then when only its counts and readings differ. It
// returns when to come back for what it left.
func (r *reconciler) write(ctx context.Context, e *entry, f *v1alpha1.Fleet, fast bool) (later time.Duration, err error) {
	status, err := json.Marshal(kube.ToStatus(e.status))
	if err != nil {
		return 0, err
	}
	if bytes.Equal(e.written, status) {
		return 0, nil
	}
	now := r.controller.config.Clock.Uptime()
	if wait := e.writtenAt + writeGap - now; wait > 0 && e.writtenAt > 0 {
		return wait, nil
	}
	if fleet.Alike(&e.known, &e.status) {
		every := writeIdle
		if fast {
			every = writeFast
		}
		every = time.Duration(e.every * float64(every))
		if wait := e.writtenAt + every - now; e.writtenAt > 0 && wait > 0 {
			return wait, nil
		}
		if r.rush.wait(aftermath{by: now + writeFast}, now) > 0 || !r.readings.Allow() {
			return writeFast, nil
		}
	}
	// The whole status in one step, for the very object that it speaks of.
	body, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": e.uid},
		{"op": "add", "path": "/status", "value": json.RawMessage(status)},
	})
	if err != nil {
		return 0, err
	}
	target := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: f.Name, Namespace: f.Namespace}}
	err = r.client.Status().Patch(ctx, target, client.RawPatch(types.JSONPatchType, body), client.FieldOwner(v1alpha1.FieldManager))
	switch {
	case apierrors.IsNotFound(err):
		return 0, nil
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return 0, nil //nolint:nilerr // we are being stopped
	case err != nil:
		r.fail(e, f, "StatusFailed", fmt.Errorf("the status could not be written: %w", err))
		return 0, err
	}
	e.known, e.written, e.writtenAt, e.every = e.status, status, now, 0.75+rand.Float64()/2
	for _, n := range e.untold {
		r.notice(f, n)
	}
	e.untold = nil
	return 0, nil
}

// tell logs a notice now and records it as an Event with the status that it belongs to.
func (r *reconciler) tell(e *entry, f *v1alpha1.Fleet, n fleet.Notice) {
	r.say(f, n)
	const most = 50 // a status that cannot be written must not collect for ever
	if !n.Minor && len(e.untold) < most {
		e.untold = append(e.untold, n)
	}
}

func (r *reconciler) say(f *v1alpha1.Fleet, n fleet.Notice) {
	level := slog.LevelInfo
	if n.Warning {
		level = slog.LevelWarn
	}
	r.log.Log(context.Background(), level, n.Message, "namespace", f.Namespace, "fleet", f.Name, "event", n.Reason)
}

func (r *reconciler) notice(f *v1alpha1.Fleet, n fleet.Notice) {
	kind := corev1.EventTypeNormal
	if n.Warning {
		kind = corev1.EventTypeWarning
	}
	message := n.Message
	const most = 1000 // the API allows 1024 bytes
	if len(message) > most {
		message = message[:most] + "…"
	}
	r.events.Eventf(f, nil, kind, n.Reason, n.Reason, "%s", message)
}

// fail tells of an error once, until another one comes or it is over, and reports whether it did.
func (r *reconciler) fail(e *entry, f *v1alpha1.Fleet, reason string, err error) bool {
	if e.failing == err.Error() {
		return false
	}
	e.failing = err.Error()
	n := fleet.Notice{Warning: true, Reason: reason, Message: err.Error()}
	r.say(f, n)
	r.notice(f, n)
	return true
}
