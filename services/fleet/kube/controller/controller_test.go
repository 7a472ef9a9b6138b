package controller_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/controller"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// run runs a controller for the namespace until the returned function is called or the test ends.
func (c *cluster) run(t *testing.T, with ...func(*controller.Config)) (stop func()) {
	t.Helper()
	config := controller.Config{Cluster: "test", RESTConfig: c.rest, Namespaces: []string{c.namespace}, DialMap: "10.0.0.0/8=127.0.0.0/8"}
	out := &whileRunning{t: t}
	t.Cleanup(func() { out.mu.Lock(); out.over = true; out.mu.Unlock() })
	config.Logger = slog.New(slog.NewTextHandler(out, nil))
	for _, f := range with {
		f(&config)
	}
	ctl, err := controller.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ctl.Run(ctx) }()
	var stopped bool
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-ctl.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the controller was not ready after 30 s")
	}
	return stop
}

// kept is an audit log.
type kept struct {
	mu   sync.Mutex
	acts []service.Act
}

func (k *kept) add(_ context.Context, a service.Act) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.acts = append(k.acts, a)
}

// want checks what was done so far, one line an act.
func (k *kept) want(t *testing.T, lines ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var got []string
	for _, a := range k.acts {
		if a.Principal != "test" || a.Reason == "" || a.Request["cluster"] != "test" || a.Request["fleet"] != "edge" || a.Request["namespace"] == "" {
			t.Errorf("the audit log does not say who, why and where: %+v", a)
		}
		line := fmt.Sprintf("%s for %s force=%t", a.Name, a.IdempotencyKey, a.Request["force"])
		for _, key := range []string{"from", "to", "colour"} {
			if v := a.Request[key]; v != nil {
				line += fmt.Sprintf(" %s=%s", key, v)
			}
		}
		if a.Err != nil {
			line += " failed"
		}
		got = append(got, line)
	}
	if !slices.Equal(got, lines) {
		t.Errorf("audited:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

// whileRunning writes to the test's output for as long as there is one.
type whileRunning struct {
	t  *testing.T
	mu sync.Mutex
	// over is set when the test has ended; the recorder of Events outlives its manager for a moment.
	over bool
}

func (w *whileRunning) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return len(p), nil
	}
	return w.t.Output().Write(p)
}

func ready(blue, green int32) func(*v1alpha1.Fleet) bool {
	return func(f *v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseSteady && f.Status.Blue.Ready == blue && f.Status.Green.Ready == green
	}
}

func completed(id string) func(*v1alpha1.Fleet) bool {
	return func(f *v1alpha1.Fleet) bool {
		return f.Status.LastCutover != nil && f.Status.LastCutover.ID == id && f.Status.LastCutover.Outcome == v1alpha1.OutcomeCompleted
	}
}

// TestController plays what happens to a PoP on a real control plane, a namespace each.
func TestController(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) }) // after everything that newPlane cleans up
	p := newPlane(t)
	// The first one is alone, because it is measured.
	t.Run("cutover", func(t *testing.T) { cutover(t, p.open(t)) })
	t.Run("incidents", func(t *testing.T) {
		for name, f := range map[string]func(*testing.T, *cluster){
			"streams drain and the pods stand by again": streamsDrain, "what is left is reset": leftIsReset, "the standby is not ready": standbyNotReady,
			"the new colour fails": newColourFails, "another writer fights": anotherWriter, "a restart in every phase": restarts,
			"parity while it is scaled": parity, "an autoscaler without metrics": blindAutoscaler, "a ramp": ramp, "a Service that goes missing": missingService,
			"the CRD refuses": refusals, "two replicas elect": election, "a fleet that is made again": madeAgain, "pods without an answer": unreachable, "a pod that appears in a drain": growsInDrain,
			"the clock jumps": clockJumps,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); f(t, p.open(t)) })
		}
	})
}

func cutover(t *testing.T, c *cluster) {
	c.pop(t, 2, nil)
	c.run(t)
	c.await(t, "both colours ready", ready(2, 2))

	began := time.Now()
	c.declare(t, "op-1", v1alpha1.Green)
	f := c.await(t, "op-1 completed", completed("op-1"))
	l := f.Status.LastCutover
	t.Logf("declared→switched %s, switched→settled %s, settled→drained %s, seen after %s", l.SwitchedAt.Sub(l.DeclaredAt.Time), l.SettledAt.Sub(l.SwitchedAt.Time), l.DrainedAt.Sub(l.SettledAt.Time), time.Since(began))
	if f.Status.Active != v1alpha1.Green || f.Status.Version != "v2" || f.Status.StandbyVersion != "v1" || l.From != v1alpha1.Blue || l.Principal != "test" || l.LastNewConnectionAt == nil {
		t.Errorf("status %+v, last %+v", f.Status, l)
	}
	s := c.service(t)
	if s.Spec.Selector[v1alpha1.ColourLabel] != "green" || s.Spec.Selector["app"] != "edge" || s.Annotations[v1alpha1.FenceAnnotation] == "" {
		t.Errorf("selector %v, annotations %v", s.Spec.Selector, s.Annotations)
	}
	c.await(t, "traffic of green", func(f *v1alpha1.Fleet) bool { return f.Status.Traffic != nil && f.Status.Traffic.Requests > 0 })
	awaitObject(t, c, "an Event of the switch", &eventsv1.EventList{}, func(o client.Object) bool {
		e, ok := o.(*eventsv1.Event)
		return ok && e.Reason == "Switched" && e.Regarding.Name == "edge"
	})
	o, _, err := kube.Observe(t.Context(), c, c.namespace, "edge")
	if err != nil {
		t.Fatal(err)
	}
	if plan := fleet.MakePlan(&o, fleet.Change{To: fleet.Blue}); len(plan.Blockers) > 0 || plan.Already || len(plan.Steps) < 3 || plan.From != fleet.Green {
		t.Errorf("the way back: %+v", plan)
	}
	if _, _, err := kube.Observe(t.Context(), c, c.namespace, "edje"); problem.KindOf(err) != problem.NotFound {
		t.Errorf("a fleet that is not there: %v", err)
	}
}

func (c *cluster) service(t *testing.T) *corev1.Service {
	t.Helper()
	var s corev1.Service
	if err := c.Get(t.Context(), types.NamespacedName{Namespace: c.namespace, Name: "edge"}, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func streamsDrain(t *testing.T, c *cluster) {
	c.pop(t, 2, nil)
	c.run(t)
	c.await(t, "both colours ready", ready(2, 2))
	old := c.edges(t, v1alpha1.Blue)
	for _, e := range old {
		e.do(func(e *edge) { e.open, e.keepsAlive = 3, true })
	}
	c.declare(t, "op-1", v1alpha1.Green)
	f := c.await(t, "six connections are followed", func(f *v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseDraining && f.Status.Blue.OpenConnections != nil && *f.Status.Blue.OpenConnections == 6
	})
	if f.Status.LastCutover.Outcome != v1alpha1.OutcomeRunning {
		t.Errorf("outcome %s", f.Status.LastCutover.Outcome)
	}
	for _, e := range old {
		e.do(func(e *edge) { e.open = 0 })
	}
	l := c.await(t, "drained", completed("op-1")).Status.LastCutover
	if *l.ConnectionsAtSwitch != 6 || *l.ConnectionsDrained != 6 || *l.ConnectionsReset != 0 || *l.ConnectionsLeft != 0 {
		t.Errorf("%d at the switch, %d drained, %d reset, %d left", *l.ConnectionsAtSwitch, *l.ConnectionsDrained, *l.ConnectionsReset, *l.ConnectionsLeft)
	}
	for _, e := range old {
		e.until(t, "undrained", func(e *edge) bool { return e.drains == 1 && e.undrains == 1 && !e.draining })
	}
}

// growsInDrain: an autoscaler adds pods to both colours while the old one drains. They drain like the others and stand by
// like the others.
func growsInDrain(t *testing.T, c *cluster) {
	c.pop(t, 1, nil)
	c.run(t)
	c.await(t, "both colours ready", ready(1, 1))
	first := c.edges(t, v1alpha1.Blue)[0]
	first.do(func(e *edge) { e.open, e.keepsAlive = 1, true })
	c.declare(t, "op-1", v1alpha1.Green)
	c.await(t, "it drains", func(f *v1alpha1.Fleet) bool { return f.Status.Phase == v1alpha1.PhaseDraining })
	f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}}
	if err := c.Patch(t.Context(), f, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":2}}`))); err != nil {
		t.Fatal(err)
	}
	c.await(t, "two of each, and it still drains", func(f *v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseDraining && f.Status.Blue.Ready == 2 && f.Status.Green.Ready == 2
	})
	for _, e := range c.edges(t, v1alpha1.Blue) {
		e.until(t, "told to drain", func(e *edge) bool { return e.draining })
	}
	first.do(func(e *edge) { e.open = 0 })
	c.await(t, "drained", completed("op-1"))
	for _, e := range c.edges(t, v1alpha1.Blue) {
		e.until(t, "told to stop", func(e *edge) bool { return !e.draining })
	}
}

func leftIsReset(t *testing.T, c *cluster) {
	var audit kept
	c.pop(t, 1, func(f *v1alpha1.Fleet) {
		f.Spec.Drain.ResetRemaining = true
		f.Spec.Drain.Timeout = &metav1.Duration{Duration: time.Second}
	})
	c.run(t, func(config *controller.Config) { config.Audit = audit.add })
	c.await(t, "both colours ready", ready(1, 1))
	c.edges(t, v1alpha1.Blue)[0].do(func(e *edge) { e.open, e.keepsAlive = 4, true })
	c.declare(t, "op-1", v1alpha1.Green)
	l := c.await(t, "drained", completed("op-1")).Status.LastCutover
	if *l.ConnectionsReset != 4 || *l.ConnectionsDrained != 0 || *l.ConnectionsLeft != 0 {
		t.Errorf("%d drained, %d reset, %d left", *l.ConnectionsDrained, *l.ConnectionsReset, *l.ConnectionsLeft)
	}
	audit.want(t, "fleet-controller/switch for op-1 force=false from=blue to=green", "fleet-controller/reset for op-1 force=false colour=blue")
}

func unreachable(t *testing.T, c *cluster) {
	c.pop(t, 1, func(f *v1alpha1.Fleet) { f.Spec.Drain.Timeout = &metav1.Duration{Duration: 2 * time.Second} })
	c.run(t)
	c.await(t, "both colours ready", ready(1, 1))
	c.edges(t, v1alpha1.Blue)[0].do(func(e *edge) { e.dead = true })
	c.edges(t, v1alpha1.Green)[0].do(func(e *edge) { e.dead = true })
	c.declare(t, "op-1", v1alpha1.Green)
	f := c.await(t, "the deadline", completed("op-1"))
	if l := f.Status.LastCutover; l.ConnectionsLeft != nil || l.ConnectionsDrained != nil || !strings.Contains(l.Message, "unknown") {
		t.Errorf("%+v", l)
	}
	c.await(t, "traffic is unknown, not zero", func(f *v1alpha1.Fleet) bool {
		return f.Status.Traffic == nil && condition(f, "TrafficKnown") == metav1.ConditionUnknown
	})
}

// jumping is a wall clock that can be set.
type jumping struct {
	controller.Clock
	by atomic.Int64
}

func (j *jumping) Now() time.Time { return j.Clock.Now().Add(time.Duration(j.by.Load())) }

// clockJumps by hours, ahead and back, before a cutover and in it. No deadline is missed, and no record is off.
func clockJumps(t *testing.T, c *cluster) {
	c.pop(t, 1, nil)
	clock := &jumping{Clock: controller.SystemClock()}
	c.run(t, func(config *controller.Config) { config.Clock = clock })
	c.await(t, "both colours ready", ready(1, 1))
	old := c.edges(t, v1alpha1.Blue)[0]
	old.do(func(e *edge) { e.open, e.keepsAlive = 1, true })
	began := time.Now()
	clock.by.Store(int64(3 * time.Hour))
	c.declare(t, "op-1", v1alpha1.Green, func(ch *v1alpha1.ChangeSpec) {
		d := metav1.NewMicroTime(ch.At.Add(30 * time.Second))
		ch.Deadline = &d
	})
	c.await(t, "it drains", func(f *v1alpha1.Fleet) bool { return f.Status.Phase == v1alpha1.PhaseDraining })
	clock.by.Store(int64(-5 * time.Hour))
	old.do(func(e *edge) { e.open = 0 })
	f := c.await(t, "it ends", completed("op-1"))
	l := f.Status.LastCutover
	const rounded = 2 * time.Second // the API server tells the time in whole seconds
	for what, at := range map[string]*metav1.MicroTime{"switched": l.SwitchedAt, "settled": l.SettledAt, "drained": l.DrainedAt} {
		if at == nil || at.Sub(began) < -rounded || time.Until(at.Time) > rounded {
			t.Errorf("%s at %v, and it is between %v and %v", what, at, began, time.Now())
		}
	}
	if condition(f, "ClockTrusted") != metav1.ConditionFalse {
		t.Error("nobody says that the clock is wrong")
	}
}

func condition(f *v1alpha1.Fleet, kind string) metav1.ConditionStatus {
	for _, c := range f.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

func standbyNotReady(t *testing.T, c *cluster) {
	c.pop(t, 2, nil)
	c.run(t)
	c.await(t, "both colours ready", ready(2, 2))
	c.setReady(t, v1alpha1.Green, "false")
	c.await(t, "the standby is not ready", func(f *v1alpha1.Fleet) bool { return condition(f, "RollbackReady") == metav1.ConditionFalse })
	c.declare(t, "op-1", v1alpha1.Green, func(ch *v1alpha1.ChangeSpec) { ch.Rollback = true })
	f := c.await(t, "it waits", func(f *v1alpha1.Fleet) bool { return f.Status.Phase == v1alpha1.PhaseBlocked })
	if f.Status.Active != v1alpha1.Blue || !strings.Contains(f.Status.Message, "green has 0 of 2 pods ready") {
		t.Errorf("serves %s: %s", f.Status.Active, f.Status.Message)
	}
	c.setReady(t, v1alpha1.Green, "true")
	if f = c.await(t, "it goes through", completed("op-1")); !f.Status.LastCutover.Rollback {
		t.Error("the record does not say that it was a rollback")
	}

	c.setReady(t, v1alpha1.Blue, "false")
	c.await(t, "the standby is not ready", func(f *v1alpha1.Fleet) bool { return condition(f, "RollbackReady") == metav1.ConditionFalse })
	c.declare(t, "op-2", v1alpha1.Blue, func(ch *v1alpha1.ChangeSpec) {
		d := metav1.NewMicroTime(time.Now().Add(time.Second))
		ch.Deadline = &d
	})
	f = c.await(t, "it expires", func(f *v1alpha1.Fleet) bool {
		return f.Status.LastCutover.ID == "op-2" && f.Status.LastCutover.Outcome == v1alpha1.OutcomeExpired
	})
	if f.Status.Active != v1alpha1.Green || f.Status.Phase != v1alpha1.PhaseHalted {
		t.Errorf("serves %s, %s", f.Status.Active, f.Status.Phase)
	}
}

func newColourFails(t *testing.T, c *cluster) {
	var audit kept
	c.pop(t, 2, nil)
	c.run(t, func(config *controller.Config) { config.Audit = audit.add })
	c.await(t, "both colours ready", ready(2, 2))
	c.declare(t, "op-1", v1alpha1.Green, func(ch *v1alpha1.ChangeSpec) { ch.Force = true })
	c.await(t, "switched", completed("op-1"))
	c.setReady(t, v1alpha1.Green, "false")
	f := c.await(t, "it goes back", func(f *v1alpha1.Fleet) bool { return f.Status.LastCutover.Outcome == v1alpha1.OutcomeReverted })
	if f.Status.Phase != v1alpha1.PhaseHalted || c.service(t).Spec.Selector[v1alpha1.ColourLabel] != "blue" {
		t.Errorf("%s: %s", f.Status.Phase, f.Status.Message)
	}
	if c.service(t).Annotations[v1alpha1.RevertedAnnotation] != "op-1" {
		t.Error("the Service does not say what was reverted")
	}
	audit.want(t, "fleet-controller/switch for op-1 force=true from=blue to=green", "fleet-controller/revert for op-1 force=true from=green to=blue")
}

// anotherWriter is a GitOps tool that has the old selector in its repository.
func anotherWriter(t *testing.T, c *cluster) {
	var audit kept
	c.pop(t, 2, nil)
	c.run(t, func(config *controller.Config) { config.Audit = audit.add })
	c.await(t, "both colours ready", ready(2, 2))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := c.Watch(ctx, &corev1.ServiceList{}, client.InNamespace(c.namespace))
	if err != nil {
		t.Fatal(err)
	}
	fought := make(chan int, 1)
	go func() {
		n := 0
		for e := range w.ResultChan() {
			s, ok := e.Object.(*corev1.Service)
			if !ok || s.Spec.Selector[v1alpha1.ColourLabel] == "blue" {
				continue
			}
			body := []byte(`{"spec":{"selector":{"` + v1alpha1.ColourLabel + `":"blue"}}}`)
			if c.Patch(ctx, s, client.RawPatch(types.MergePatchType, body), client.FieldOwner("argocd")) == nil {
				n++
			}
		}
		fought <- n
	}()
	c.declare(t, "op-1", v1alpha1.Green)
	f := c.await(t, "it stops", func(f *v1alpha1.Fleet) bool { return f.Status.Phase == v1alpha1.PhaseHalted })
	cancel()
	if n := <-fought; n != 4 {
		t.Errorf("the other writer won %d times; it should be the first and three restorations", n)
	}
	if !strings.Contains(f.Status.Message, "argocd") || f.Status.LastCutover.Contended != 3 || f.Status.Active != v1alpha1.Blue || condition(f, "SoleWriter") != metav1.ConditionFalse {
		t.Errorf("%s contended %d times, serves %s: %s", f.Status.Phase, f.Status.LastCutover.Contended, f.Status.Active, f.Status.Message)
	}
	restored := "fleet-controller/restore for op-1 force=false from=blue to=green"
	audit.want(t, "fleet-controller/switch for op-1 force=false from=blue to=green", restored, restored, restored)
}

func restarts(t *testing.T, c *cluster) {
	c.pop(t, 2, nil)
	stop := c.run(t)
	c.await(t, "both colours ready", ready(2, 2))
	old := c.edges(t, v1alpha1.Blue)
	for _, e := range old {
		e.do(func(e *edge) { e.open, e.keepsAlive = 2, true })
	}
	c.setReady(t, v1alpha1.Green, "false")
	c.await(t, "the standby is not ready", func(f *v1alpha1.Fleet) bool { return condition(f, "RollbackReady") == metav1.ConditionFalse })
	c.declare(t, "op-1", v1alpha1.Green)
	c.await(t, "blocked", func(f *v1alpha1.Fleet) bool { return f.Status.Phase == v1alpha1.PhaseBlocked })
	stop()
	c.setReady(t, v1alpha1.Green, "true")
	stop = c.run(t)
	awaitObject(t, c, "switched", &corev1.ServiceList{}, func(o client.Object) bool {
		s, ok := o.(*corev1.Service)
		return ok && s.Name == "edge" && s.Spec.Selector[v1alpha1.ColourLabel] == "green"
	})
	stop() // as soon as it is switched, whatever has been recorded
	stop = c.run(t)
	c.await(t, "draining", func(f *v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseDraining && f.Status.Blue.OpenConnections != nil && *f.Status.Blue.OpenConnections == 4
	})
	stop()
	for _, e := range old {
		e.do(func(e *edge) { e.open = 0 })
	}
	c.run(t)
	l := c.await(t, "completed", completed("op-1")).Status.LastCutover
	if *l.ConnectionsAtSwitch != 4 || *l.ConnectionsDrained != 4 || l.SwitchedAt == nil {
		t.Errorf("%+v", l)
	}
	for _, e := range old {
		e.until(t, "undrained", func(e *edge) bool { return !e.draining && e.undrains > 0 })
	}
}

// parity watches both Deployments while the fleet is scaled up, down, and by somebody who should not.
func parity(t *testing.T, c *cluster) {
	c.pop(t, 2, nil)
	c.run(t)
	c.await(t, "both colours ready", ready(2, 2))
	scale := func(n int32) {
		t.Helper()
		f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}}
		s := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}}
		if err := c.SubResource("scale").Update(t.Context(), f, client.WithSubResourceBody(s)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := c.Watch(ctx, &appsv1.DeploymentList{}, client.InNamespace(c.namespace))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan []string, 1)
	go func() {
		sizes := map[string]int32{}
		var bad []string
		for e := range w.ResultChan() {
			d, ok := e.Object.(*appsv1.Deployment)
			if !ok {
				continue
			}
			if sizes[d.Name] = *d.Spec.Replicas; len(sizes) == 2 && sizes["edge-green"] < sizes["edge-blue"] {
				bad = append(bad, fmt.Sprint(sizes))
			}
		}
		seen <- bad
	}()
	scale(5)
	f := c.await(t, "five of each", ready(5, 5))
	if f.Status.Replicas != 5 || f.Status.Selector == "" {
		t.Errorf("the scale subresource shows %d pods of %q", f.Status.Replicas, f.Status.Selector)
	}
	scale(1)
	c.await(t, "one of each", ready(1, 1))
	cancel()
	if bad := <-seen; len(bad) > 0 {
		t.Errorf("the standby was the smaller one: %v", bad)
	}

	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "edge-blue", Namespace: c.namespace}}
	if err := c.Patch(t.Context(), d, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":4}}`))); err != nil {
		t.Fatal(err)
	}
	awaitObject(t, c, "somebody's size is corrected", &appsv1.DeploymentList{}, func(o client.Object) bool {
		d, ok := o.(*appsv1.Deployment)
		return ok && d.Name == "edge-blue" && *d.Spec.Replicas == 1
	})
}

// blindAutoscaler: the cluster has no metrics, so the real HPA controller says that it cannot scale.
func blindAutoscaler(t *testing.T, c *cluster) {
	c.pop(t, 3, nil)
	one := int32(1)
	c.create(t, &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Fleet", Name: "edge"}, MinReplicas: &one, MaxReplicas: 9,
		Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "edge_requests_per_second"},
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(10, resource.DecimalSI)}}}}}})
	c.run(t)
	c.await(t, "the autoscaler is not trusted", func(f *v1alpha1.Fleet) bool {
		return condition(f, "Autoscaled") == metav1.ConditionFalse && f.Status.Blue.Ready == 3 && f.Status.Green.Ready == 3
	})
	f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}}
	if err := c.Patch(t.Context(), f, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":1}}`))); err != nil {
		t.Fatal(err)
	}
	f = c.await(t, "the smaller size is seen", func(f *v1alpha1.Fleet) bool {
		return f.Status.ObservedGeneration == f.Generation && f.Spec.Replicas == 1
	})
	if f.Status.Size != 3 || f.Status.Blue.Desired != 3 {
		t.Errorf("it shrank to %d", f.Status.Size)
	}
}

func ramp(t *testing.T, c *cluster) {
	c.pop(t, 4, func(f *v1alpha1.Fleet) { half := int32(50); f.Spec.Standby.Percent = &half })
	c.run(t)
	c.await(t, "half a standby", ready(4, 2))
	c.declare(t, "op-1", v1alpha1.Green)
	l := c.await(t, "ramped and switched", completed("op-1")).Status.LastCutover
	if l.Ramp == nil || l.Ramp.Duration <= 0 || l.Required != 4 {
		t.Errorf("%+v", l)
	}
}

func missingService(t *testing.T, c *cluster) {
	c.pop(t, 1, func(f *v1alpha1.Fleet) { f.Spec.Service = "edje" })
	c.run(t)
	f := c.await(t, "it says so", func(f *v1alpha1.Fleet) bool { return f.Status.Phase == v1alpha1.PhaseBlocked })
	if !strings.Contains(f.Status.Message, "spec.service: there is no Service edje") || condition(f, "Configured") != metav1.ConditionFalse {
		t.Errorf("%s", f.Status.Message)
	}
}

// madeAgain: the fence on the Service is of a Fleet that was deleted; its generations say nothing to the one of today.
func madeAgain(t *testing.T, c *cluster) {
	c.pop(t, 1, nil)
	s := c.service(t)
	if err := c.Patch(t.Context(), s, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+v1alpha1.FenceAnnotation+`":"99"}}}`))); err != nil {
		t.Fatal(err)
	}
	c.run(t)
	c.await(t, "both colours ready", ready(1, 1))
	c.declare(t, "op-1", v1alpha1.Green)
	c.await(t, "switched", completed("op-1"))
}

func election(t *testing.T, c *cluster) {
	c.pop(t, 1, nil)
	elect := func(config *controller.Config) { config.LeaderElection, config.LeaderNamespace = true, c.namespace }
	stop := c.run(t, elect)
	c.await(t, "both colours ready", ready(1, 1))
	second := make(chan func(), 1)
	go func() { second <- c.run(t, elect) }()
	c.declare(t, "op-1", v1alpha1.Green)
	c.await(t, "the leader switches", completed("op-1"))
	select {
	case <-second:
		t.Error("two lead at once")
	default:
	}
	stop()
	defer (<-second)()
	c.declare(t, "op-2", v1alpha1.Blue)
	c.await(t, "its successor switches back", completed("op-2"))
}

// refusals: what can never work is refused when it is stored, with a sentence that names the field.
func refusals(t *testing.T, c *cluster) {
	ns := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for want, change := range map[string]func(*v1alpha1.FleetSpec){
		"blue and green name the same Deployment": func(s *v1alpha1.FleetSpec) { s.Green = s.Blue },
		"drain.port is needed":                    func(s *v1alpha1.FleetSpec) { s.Drain.Port = nil },
		"needs a method that can reset":           func(s *v1alpha1.FleetSpec) { s.Drain.Method, s.Drain.ResetRemaining = v1alpha1.DrainNginx, true },
		"spec.active":                             func(s *v1alpha1.FleetSpec) { s.Active = "red" },
		"spec.replicas":                           func(s *v1alpha1.FleetSpec) { s.Replicas = -1 },
		"spec.service":                            func(s *v1alpha1.FleetSpec) { s.Service = "Not A Name" },
		"spec.standby.percent":                    func(s *v1alpha1.FleetSpec) { n := int32(101); s.Standby.Percent = &n },
		"cutover.guard must be between":           func(s *v1alpha1.FleetSpec) { s.Cutover.Guard = ns(2 * time.Hour) },
		"cutover.timeout must be between":         func(s *v1alpha1.FleetSpec) { s.Cutover.Timeout = ns(0) },
		"drain.timeout must be between":           func(s *v1alpha1.FleetSpec) { s.Drain.Timeout = ns(-time.Second) },
		"spec.drain.path":                         func(s *v1alpha1.FleetSpec) { s.Drain.Path = "hooks?x" },
		"spec.metrics.requests":                   func(s *v1alpha1.FleetSpec) { s.Metrics.Requests = "edge requests" },
		"a freeze must end after it begins": func(s *v1alpha1.FleetSpec) {
			n := metav1.Now()
			s.Freezes = []v1alpha1.FreezeSpec{{From: n, Until: n, Reason: "r"}}
		},
		"spec.freezes[0].reason": func(s *v1alpha1.FleetSpec) {
			n := metav1.Now()
			s.Freezes = []v1alpha1.FreezeSpec{{From: n, Until: metav1.NewTime(n.Add(time.Hour))}}
		},
		"change.deadline must be after": func(s *v1alpha1.FleetSpec) {
			n := metav1.NowMicro()
			s.Change = &v1alpha1.ChangeSpec{ID: "x", At: n, Deadline: &n}
		},
		"spec.change.id": func(s *v1alpha1.FleetSpec) { s.Change = &v1alpha1.ChangeSpec{At: metav1.NowMicro()} },
	} {
		port := int32(1)
		f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: c.namespace}, Spec: v1alpha1.FleetSpec{Service: "edge",
			Blue: v1alpha1.ColourSpec{Deployment: "a"}, Green: v1alpha1.ColourSpec{Deployment: "b"}, Active: v1alpha1.Blue, Replicas: 1,
			Drain: v1alpha1.DrainSpec{Method: v1alpha1.DrainHTTP, Port: &port}, Metrics: &v1alpha1.MetricsSpec{Port: 1, Requests: "r", Errors: "e"}}}
		change(&f.Spec)
		if err := c.Create(t.Context(), f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want a refusal with %q, got %v", want, err)
			_ = c.Delete(t.Context(), f) // so that the next one is not refused for its name
		}
	}
}
