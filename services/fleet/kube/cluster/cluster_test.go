package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/kubetest"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// real is a control plane, and what tests read of it.
type real struct {
	*kubetest.Cluster
	admin client.WithWatch
}

func newReal(t testing.TB) *real {
	t.Helper()
	c := kubetest.Run(t, "cluster-1")
	return &real{Cluster: c, admin: c.Admin}
}

func (r *real) addPops(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		r.AddPop(t, name)
	}
}

func (r *real) fleet(t testing.TB, pop string) *v1alpha1.Fleet {
	t.Helper()
	var f v1alpha1.Fleet
	if err := r.admin.Get(t.Context(), types.NamespacedName{Namespace: "pop-" + pop, Name: "edge"}, &f); err != nil {
		t.Fatal(err)
	}
	return &f
}

func (r *real) service(t testing.TB, pop string) *corev1.Service {
	t.Helper()
	var s corev1.Service
	if err := r.admin.Get(t.Context(), types.NamespacedName{Namespace: "pop-" + pop, Name: "edge"}, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// control is the least that a controller does: it sets the selector and says so. It ends with the test.
func (r *real) control(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var list v1alpha1.FleetList
	w, err := r.admin.Watch(ctx, &list)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); w.Stop(); <-ended })
	go func() {
		defer close(ended)
		for e := range w.ResultChan() {
			f, ok := e.Object.(*v1alpha1.Fleet)
			if !ok || e.Type == watch.Deleted || f.Status.ObservedGeneration == f.Generation {
				continue
			}
			from, now := f.Status.Active, metav1.NowMicro()
			if from == "" {
				from = v1alpha1.Green
			}
			if c := f.Spec.Change; c != nil && from != f.Spec.Active {
				s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: f.Spec.Service}}
				patch := fmt.Sprintf(`{"spec":{"selector":{%q:%q}}}`, v1alpha1.ColourLabel, f.Spec.Active)
				if err := r.admin.Patch(ctx, s, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
					continue
				}
				f.Status.LastCutover = &v1alpha1.CutoverStatus{ID: c.ID, Generation: f.Generation, From: from, To: f.Spec.Active, Principal: c.Principal, Reason: c.Reason,
					Forced: c.Force, Rollback: c.Rollback, Outcome: v1alpha1.OutcomeRunning, DeclaredAt: c.At, SwitchedAt: &now}
			}
			f.Status.Conditions = nil
			for _, well := range []string{fleet.ConditionConfigured, fleet.ConditionSoleWriter, fleet.ConditionRollbackReady} {
				f.Status.Conditions = append(f.Status.Conditions, metav1.Condition{Type: well, Status: "True", Reason: "Well", LastTransitionTime: metav1.Now()})
			}
			f.Status.Active, f.Status.Phase, f.Status.ObservedGeneration = f.Spec.Active, v1alpha1.PhaseSteady, f.Generation
			_ = r.admin.Status().Update(ctx, f) // a conflict brings another event
		}
	}()
}

// centre is a Centre over the control plane, whose context has the names of as many clusters as wanted.
func (r *real) centre(t testing.TB, follow bool, pops ...string) (*fleet.Centre, *Connections) {
	t.Helper()
	c, err := Open(Config{Kubeconfig: []string{r.Kubeconfig}, Follow: follow, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	registry := &fleet.Registry{}
	for _, p := range pops {
		registry.Pops = append(registry.Pops, fleet.Pop{Name: p, Context: "cluster-1", Namespace: "pop-" + p})
	}
	return fleet.NewCentre(registry, c.Cluster, fleet.Limits{}), c
}

var everywhere = fleet.Scope{All: true}

func expect(t testing.TB, err error, kind problem.Kind, says string) {
	t.Helper()
	if err == nil || problem.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v: %v; want %v: …%s…", problem.KindOf(err), err, kind, says)
	}
}

// TestCluster shares one control plane, which takes seconds to start. Each part has PoPs of its own.
func TestCluster(t *testing.T) {
	r := newReal(t)
	for name, test := range map[string]func(*testing.T, *real){
		"cut over": testCutOver, "declare wins against other writers": testDeclareWinsAgainstOtherWriters, "force the selector": testForceSelector,
		"declare meets other writers": testDeclareMeetsOtherWriters,
		"freezes":                     testFreezes, "bad input": testBadInput, "reload": testReload, "unreachable": testUnreachable, "least privilege": testLeastPrivilege,
		"lost answers": testLostAnswers, "waking up": testWakingUp, "a switch before its record": testSwitchBeforeRecord,
	} {
		t.Run(name, func(t *testing.T) { test(t, r) })
	}
}

func testCutOver(t *testing.T, r *real) {
	pops := []string{"c0", "c1", "c2", "c3"}
	r.addPops(t, pops...)
	r.control(t)
	for _, follow := range []bool{true, false} {
		t.Run(fmt.Sprintf("follow=%t", follow), func(t *testing.T) {
			centre, _ := r.centre(t, follow, pops...)
			to, from := fleet.Blue, fleet.Green
			if !follow {
				to, from = from, to
			}
			found, plans, err := centre.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere, To: to})
			if err != nil || found != to || len(plans) != 4 || plans[0].Err != nil || plans[0].From != from || len(plans[0].Blockers) != 0 || len(plans[0].Steps) == 0 {
				t.Fatalf("plan: %+v, %v", plans, err)
			}
			change := fleet.Change{ID: "op-" + string(to), To: to, Principal: "ada", Reason: "v2 answers 500"}
			began := time.Now()
			results, err := centre.CutOver(t.Context(), "edge", everywhere, change, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d PoPs in %s", len(results), time.Since(began))
			for _, x := range results {
				if x.Err != nil || x.Cutover == nil || x.Cutover.SwitchedAt.IsZero() || x.Cutover.From != from || x.Fleet.Pop != x.Pop {
					t.Errorf("%s: %+v, %v", x.Pop, x.Cutover, x.Err)
				}
				if got := r.service(t, x.Pop).Spec.Selector[v1alpha1.ColourLabel]; got != string(to) {
					t.Errorf("%s: the Service selects %s", x.Pop, got)
				}
				f := r.fleet(t, x.Pop)
				if c := f.Spec.Change; f.Spec.Active != v1alpha1.Colour(to) || c == nil || c.ID != change.ID || c.Principal != "ada" || c.Deadline == nil {
					t.Errorf("%s: the spec is %+v", x.Pop, f.Spec)
				}
			}
			generation := r.fleet(t, "c0").Generation
			again, err := centre.CutOver(t.Context(), "edge", everywhere, change, nil)
			if err != nil || again[0].Err != nil || again[0].Cutover == nil {
				t.Errorf("again: %+v, %v", again[0], err)
			}
			change.Reason = "another"
			other, err := centre.CutOver(t.Context(), "edge", everywhere, change, nil)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, other[0].Err, problem.AlreadyExists, "was used before")
			if now := r.fleet(t, "c0").Generation; now != generation {
				t.Errorf("a repeated call changed the fleet: generation %d → %d", generation, now)
			}
		})
	}
}

func testDeclareWinsAgainstOtherWriters(t *testing.T, r *real) {
	r.addPops(t, "d0")
	_, connections := r.centre(t, true, "d0")
	site := connections.Cluster(fleet.Pop{Name: "d0", Context: "cluster-1", Namespace: "pop-d0"})
	if _, err := site.Await(t.Context(), fleet.Fleet{Name: "edge"}, func(*fleet.Fleet) bool { return true }); err != nil {
		t.Fatal(err)
	}
	// Memory is now in step; a write behind its back makes it old for a moment.
	f := r.fleet(t, "d0")
	f.Spec.Change = &v1alpha1.ChangeSpec{ID: "before", Version: "v9", Force: true, At: metav1.NowMicro()}
	f.Annotations = map[string]string{"note": "kept"}
	f.Spec.Replicas = 7
	if err := r.admin.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	got, err := site.Declare(t.Context(), "edge", fleet.Change{ID: "op-1", To: fleet.Blue, Reason: "x", Rollback: true, At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	f = r.fleet(t, "d0")
	if c := f.Spec.Change; c.ID != "op-1" || c.Version != "" || c.Force || !c.Rollback || f.Spec.Replicas != 7 || f.Annotations["note"] != "kept" {
		t.Errorf("stored %+v, %+v", f.Spec, c)
	}
	if got.Declared != fleet.Blue || got.Generation != f.Generation {
		t.Errorf("returned %+v", got)
	}
	again, err := site.Declare(t.Context(), "edge", fleet.Change{ID: "op-1", To: fleet.Blue, Reason: "x", At: time.Now()})
	if err != nil || again.Generation != got.Generation {
		t.Errorf("again: %+v, %v", again, err)
	}
	_, err = site.Declare(t.Context(), "edge", fleet.Change{ID: "op-1", To: fleet.Green, Reason: "x", At: time.Now()})
	expect(t, err, problem.AlreadyExists, `"op-1" was used before for a cutover to blue`)
}

// What others write between the look at a fleet and the declaration: a status takes no second attempt, a spec does, and nothing of
// either is lost.
func testDeclareMeetsOtherWriters(t *testing.T, r *real) {
	r.addPops(t, "d1")
	_, connections := r.centre(t, true, "d1")
	site := connections.Cluster(fleet.Pop{Name: "d1", Context: "cluster-1", Namespace: "pop-d1"})
	conn, err := connections.connect("cluster-1")
	if err != nil {
		t.Fatal(err)
	}
	attempts, meanwhile := 0, func(*v1alpha1.Fleet) error { return nil }
	conn.client = interceptor.NewClient(conn.client, interceptor.Funcs{
		Patch: func(ctx context.Context, next client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if attempts++; attempts == 1 {
				if err := meanwhile(r.fleet(t, "d1")); err != nil {
					return err
				}
			}
			return next.Patch(ctx, o, p, opts...)
		},
	})
	for _, tc := range []struct {
		name     string
		write    func(*v1alpha1.Fleet) error
		attempts int
	}{
		{"status", func(f *v1alpha1.Fleet) error {
			f.Status.Message = "read"
			return r.admin.Status().Update(t.Context(), f)
		}, 1},
		{"spec", func(f *v1alpha1.Fleet) error { f.Spec.Replicas = 5; return r.admin.Update(t.Context(), f) }, 2},
	} {
		attempts, meanwhile = 0, tc.write
		if _, err := site.Declare(t.Context(), "edge", fleet.Change{ID: "op-" + tc.name, To: fleet.Green, Reason: "x", At: time.Now()}); err != nil || attempts != tc.attempts {
			t.Errorf("%s: %d attempts, %v; want %d", tc.name, attempts, err, tc.attempts)
		}
	}
	if f := r.fleet(t, "d1"); f.Spec.Change.ID != "op-spec" || f.Spec.Replicas != 5 || f.Status.Message != "read" {
		t.Errorf("stored %+v with the message %q", f.Spec, f.Status.Message)
	}
}

// always admits a forced selector.
func always(fleet.Fleet, fleet.Plan) (bool, error) { return true, nil }

func testForceSelector(t *testing.T, r *real) {
	r.addPops(t, "f0", "f1")
	centre, connections := r.centre(t, false, "f0", "f1")
	change := fleet.Change{ID: "op-1", To: fleet.Blue, Principal: "ada", Reason: "the controller is dead"}
	results, err := centre.ForceSelector(t.Context(), "edge", everywhere, change, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range results {
		if x.Err != nil || x.Cutover.From != fleet.Green || x.Fleet.Active != fleet.Blue {
			t.Fatalf("%+v", x)
		}
	}
	s, f := r.service(t, "f0"), r.fleet(t, "f0")
	if s.Spec.Selector[v1alpha1.ColourLabel] != "blue" || s.Spec.Selector["app"] != "edge" {
		t.Errorf("selector %v", s.Spec.Selector)
	}
	var mark map[string]string
	if err := json.Unmarshal([]byte(s.Annotations[ForcedAnnotation]), &mark); err != nil || mark["id"] != "op-1" || mark["from"] != "green" || mark["principal"] != "ada" {
		t.Errorf("annotation %v, %v", mark, err)
	}
	if f.Spec.Active != v1alpha1.Blue || f.Spec.Change.ID != "op-1" || s.Annotations[v1alpha1.FenceAnnotation] != fmt.Sprint(f.Generation) {
		t.Errorf("fleet %+v, fence %s of %d", f.Spec, s.Annotations[v1alpha1.FenceAnnotation], f.Generation)
	}
	// A controller that comes back finds what was declared, and has nothing to do.
	o, _, err := kube.Observe(t.Context(), r.admin, "pop-f0", "edge")
	if err != nil {
		t.Fatal(err)
	}
	if d := fleet.Decide(o); d.Switch != nil {
		t.Errorf("the controller would switch: %+v", d.Switch)
	}
	// Another writer comes between the look and the write: what it wrote stays, and so does the order.
	between := change
	between.ID, between.To, between.At = "op-3", fleet.Green, time.Now()
	after, err := connections.Cluster(fleet.Pop{Name: "f0", Context: "cluster-1", Namespace: "pop-f0"}).ForceSelector(t.Context(), "edge", between, func(before fleet.Fleet, plan fleet.Plan) (bool, error) {
		if before.Active != fleet.Blue || plan.From != fleet.Blue {
			t.Errorf("asked with %+v, %+v", before, plan)
		}
		s := r.service(t, "f0")
		s.Annotations["example.org/other"] = "writer"
		return true, r.admin.Update(t.Context(), s)
	})
	if s := r.service(t, "f0"); err != nil || after.Active != fleet.Green || s.Spec.Selector[v1alpha1.ColourLabel] != "green" || s.Annotations["example.org/other"] != "writer" {
		t.Errorf("%+v, %v; Service %+v", after, err, s.ObjectMeta)
	}
	rival := r.fleet(t, "f1")
	rival.ObjectMeta = metav1.ObjectMeta{Namespace: rival.Namespace, Name: "other"}
	if err := r.admin.Create(t.Context(), rival); err != nil {
		t.Fatal(err)
	}
	change.ID, change.To, change.Force = "op-2", fleet.Green, true
	results, err = centre.ForceSelector(t.Context(), "edge", fleet.Scope{Pops: []string{"f1"}}, change, nil)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results[0].Err, problem.FailedPrecondition, "Fleet other claims the same Service")
}

func testFreezes(t *testing.T, r *real) {
	r.addPops(t, "z0")
	centre, _ := r.centre(t, true, "z0")
	until := time.Now().Add(time.Hour)
	freeze := fleet.Freeze{ID: "f1", Reason: "the election", Principal: "ada", Until: until}
	for range 2 {
		results, err := centre.Freeze(t.Context(), "edge", everywhere, freeze)
		if err != nil || results[0].Err != nil || len(results[0].Fleets[0].Freezes) != 1 {
			t.Fatalf("%+v, %v", results, err)
		}
	}
	kubetest.Eventually(t, func() error {
		var events eventsv1.EventList
		if err := r.admin.List(t.Context(), &events, client.InNamespace("pop-z0")); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Reason == "Frozen" && e.Note == fmt.Sprintf("until %s by ada: the election", until.UTC().Format(time.RFC3339)) && e.Regarding.Name == "edge" {
				return nil
			}
		}
		return fmt.Errorf("no event of the freeze in %d", len(events.Items))
	})
	freeze.Reason = "another"
	results, err := centre.Freeze(t.Context(), "edge", everywhere, freeze)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results[0].Err, problem.AlreadyExists, `"f1" was used before for a freeze`)

	_, plans, err := centre.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere, To: fleet.Blue})
	if err != nil || len(plans[0].Blockers) != 1 || plans[0].Blockers[0].Reason != fleet.Frozen {
		t.Errorf("plan %+v, %v", plans, err)
	}
	for range 15 {
		freeze.ID += "x"
		if results, err = centre.Freeze(t.Context(), "edge", everywhere, freeze); err != nil || results[0].Err != nil {
			t.Fatalf("%+v, %v", results, err)
		}
	}
	freeze.ID += "x"
	if results, err = centre.Freeze(t.Context(), "edge", everywhere, freeze); err != nil {
		t.Fatal(err)
	}
	expect(t, results[0].Err, problem.ResourceExhausted, "has 16 freezes already")

	by := fleet.Unfreeze{ID: "u1", Principal: "ada", Reason: "it is over"}
	if results, err = centre.Unfreeze(t.Context(), "edge", everywhere, by); err != nil || len(results[0].Fleets[0].Freezes) != 0 {
		t.Fatalf("%+v, %v", results, err)
	}
	if results, err = centre.Freeze(t.Context(), "edge", everywhere, freeze); err != nil || len(results[0].Fleets[0].Freezes) != 1 {
		t.Fatalf("%+v, %v", results, err)
	}
	// The same call again, late: it must not end a freeze that it never knew.
	if results, err = centre.Unfreeze(t.Context(), "edge", everywhere, by); err != nil || len(results[0].Fleets[0].Freezes) != 1 {
		t.Errorf("%+v, %v", results, err)
	}
}

func testBadInput(t *testing.T, r *real) {
	r.addPops(t, "b0")
	for _, follow := range []bool{true, false} {
		c, err := Open(Config{Kubeconfig: []string{r.Kubeconfig}, Follow: follow})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		here := c.Cluster(fleet.Pop{Name: "b0", Context: "cluster-1", Namespace: "pop-b0"})
		change := fleet.Change{ID: "op-1", To: fleet.Blue, Reason: "x", At: time.Now()}
		_, err = here.Fleets(t.Context(), "api")
		expect(t, err, problem.NotFound, `PoP b0 (namespace pop-b0, context cluster-1) has no fleet "api"; it has edge`)
		_, _, err = here.Plan(t.Context(), "api", change, false)
		expect(t, err, problem.NotFound, `has no fleet "api"; it has edge`)
		_, err = here.Declare(t.Context(), "api", change)
		expect(t, err, problem.NotFound, `has no fleet "api"; it has edge`)
		_, err = here.ForceSelector(t.Context(), "api", change, always)
		expect(t, err, problem.NotFound, `has no fleet "api"; it has edge`)
		nowhere := c.Cluster(fleet.Pop{Name: "p09", Context: "cluster-1", Namespace: "pop-p09"})
		_, err = nowhere.Fleets(t.Context(), "edge")
		expect(t, err, problem.NotFound, "it has no fleet at all")
		ctx, cancel := context.WithCancel(t.Context())
		nowhere.Watch(ctx, "", func(e fleet.WatchEvent) {
			expect(t, e.Err, problem.NotFound, "PoP p09 (namespace pop-p09, context cluster-1) has no fleet at all")
			cancel()
		})
		elsewhere := c.Cluster(fleet.Pop{Name: "p10", Context: "cluster-9", Namespace: "pop-p10"})
		_, err = elsewhere.Fleets(t.Context(), "edge")
		expect(t, err, problem.Unavailable, `the kubeconfig has no context "cluster-9"`)
		ctx, cancel = context.WithCancel(t.Context())
		elsewhere.Watch(ctx, "", func(e fleet.WatchEvent) {
			expect(t, e.Err, problem.Unavailable, `the kubeconfig has no context "cluster-9"`)
			cancel()
		})
	}
	c, err := Open(Config{Kubeconfig: []string{r.Kubeconfig}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	here := c.Cluster(fleet.Pop{Name: "b0", Context: "cluster-1", Namespace: "pop-b0"})
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.Fleet)
		says   string
	}{
		{"a Service that is missing", func(f *v1alpha1.Fleet) { f.Spec.Service = "none" }, "there is no Service none"},
		{"a Deployment that is missing", func(f *v1alpha1.Fleet) { f.Spec.Service, f.Spec.Blue.Deployment = "edge", "none" }, "there is no Deployment none"},
	} {
		f := r.fleet(t, "b0")
		tc.change(f)
		if err := r.admin.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		_, plan, err := here.Plan(t.Context(), "edge", fleet.Change{To: fleet.Blue}, false)
		if err != nil || len(plan.Blockers) != 1 || plan.Blockers[0].Overridable || !strings.Contains(plan.Blockers[0].Message, tc.says) {
			t.Errorf("%s: %+v, %v", tc.name, plan, err)
		}
	}
	f := r.fleet(t, "b0")
	f.Spec.Blue.Deployment = f.Spec.Green.Deployment
	if err := r.admin.Update(t.Context(), f); !apierrors.IsInvalid(err) {
		t.Errorf("two colours in one Deployment: %v", err)
	}
	f = r.fleet(t, "b0")
	f.Spec.Blue.Deployment = "edge-blue"
	if err := r.admin.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	s := r.service(t, "b0")
	s.Spec.Selector = map[string]string{"app": "edge"}
	if err := r.admin.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	_, plan, err := here.Plan(t.Context(), "edge", fleet.Change{To: fleet.Blue}, false)
	if err != nil || len(plan.Blockers) != 1 || !strings.Contains(plan.Blockers[0].Message, "would match both colours") {
		t.Errorf("a selector of both colours: %+v, %v", plan, err)
	}
}

// The API server dies in the middle of a cutover and comes back: the call goes on by itself, watches say that it was away,
// and nothing was waited for longer than a second after it was back.
func TestOutage(t *testing.T) {
	r := newReal(t)
	r.addPops(t, "p00")
	centre, _ := r.centre(t, true, "p00")
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan fleet.WatchEvent, 16)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = centre.Watch(ctx, "", everywhere, func(e fleet.WatchEvent) error { events <- e; return nil })
	}()
	defer func() { cancel(); <-ended }()
	if e := <-events; e.Fleet == nil || e.Fleet.Name != "edge" {
		t.Fatalf("%+v", e)
	}
	cut := make(chan fleet.CutoverResult, 1)
	go func() {
		for {
			results, err := centre.CutOver(t.Context(), "edge", everywhere, fleet.Change{ID: "op-1", To: fleet.Blue, Reason: "x"}, nil)
			if err != nil {
				t.Error(err)
			} else if problem.KindOf(results[0].Err) == problem.Unavailable {
				continue // the API died over the answer; its sentence says to ask again with the same key
			}
			cut <- results[0]
			return
		}
	}()
	if e := <-events; e.Fleet == nil || e.Fleet.Declared != fleet.Blue {
		t.Fatalf("%+v", e)
	}
	r.Kill()
	if e := <-events; problem.KindOf(e.Err) != problem.Unavailable || !strings.Contains(e.Err.Error(), "connection refused") {
		t.Fatalf("%+v", e)
	}
	if pops := centre.Pops(t.Context()); problem.KindOf(pops[0].Err) != problem.Unavailable {
		t.Errorf("pops: %+v", pops[0])
	}
	results, err := centre.CutOver(t.Context(), "edge", everywhere, fleet.Change{ID: "op-2", To: fleet.Green, Reason: "x"}, nil)
	if err != nil || problem.KindOf(results[0].Err) != problem.Unavailable {
		t.Errorf("a cutover while the API is away: %+v, %v", results[0].Err, err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	if e := <-events; e.Fleet == nil || e.Fleet.Declared != fleet.Blue {
		t.Fatalf("%+v", e)
	}
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("it took %s to see that the API was back", took)
	}
	r.control(t)
	if x := <-cut; x.Err != nil || x.Cutover == nil || x.Cutover.SwitchedAt.IsZero() {
		t.Errorf("%+v", x)
	}
}

func testReload(t *testing.T, r *real) {
	r.addPops(t, "r0")
	text, err := os.ReadFile(r.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(text))
	c, err := Open(Config{Kubeconfig: []string{path}, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	here := c.Cluster(fleet.Pop{Name: "r0", Context: "cluster-1", Namespace: "pop-r0"})
	await := make(chan error, 1)
	seen := make(chan struct{}, 16)
	go func() {
		_, err := here.Await(t.Context(), fleet.Fleet{Name: "edge"}, func(f *fleet.Fleet) bool {
			seen <- struct{}{}
			return f.Replicas == 5
		})
		await <- err
	}()
	<-seen

	accept := func([]string) error { return nil }
	write("{}")
	if err := c.Reload(accept); problem.KindOf(err) != problem.Invalid {
		t.Errorf("an empty kubeconfig: %v", err)
	}
	if got := c.Contexts(); !slices.Equal(got, []string{"cluster-1"}) {
		t.Errorf("contexts %v", got)
	}
	write(strings.ReplaceAll(string(text), r.Address, "127.0.0.1:1"))
	if err := c.Reload(func([]string) error { return problem.Invalidf("pops", "wrong") }); problem.KindOf(err) != problem.Invalid {
		t.Errorf("a registry that does not fit: %v", err)
	}
	if _, err := here.Fleets(t.Context(), "edge"); err != nil {
		t.Errorf("after a kubeconfig that was not accepted: %v", err)
	}
	if err := c.Reload(accept); err != nil {
		t.Fatal(err)
	}
	_, err = here.Fleets(t.Context(), "edge")
	expect(t, err, problem.Unavailable, "connection refused")
	write(string(text))
	if err := c.Reload(accept); err != nil {
		t.Fatal(err)
	}
	f := r.fleet(t, "r0")
	f.Spec.Replicas = 5
	if err := r.admin.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if err := <-await; err != nil {
		t.Errorf("a call that waits does not survive two reloads: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	_, err := Open(Config{Kubeconfig: []string{filepath.Join(t.TempDir(), "none")}})
	expect(t, err, problem.Invalid, "no such file or directory")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte("clusters: 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Kubeconfig: []string{path}})
	expect(t, err, problem.Invalid, "kubeconfig: is not a kubeconfig")
}

// Another authority signed the certificate, the token is wrong, nobody is there: each is told apart.
func testUnreachable(t *testing.T, r *real) {
	r.addPops(t, "u0")
	for _, tc := range []struct {
		name  string
		alter func(map[string]any, map[string]any)
		kind  problem.Kind
		says  string
	}{
		{"refused", func(c, _ map[string]any) { c["server"] = "https://127.0.0.1:1" }, problem.Unavailable, "connection refused"},
		{"another authority", func(c, _ map[string]any) { delete(c, "certificate-authority-data"); delete(c, "certificate-authority") }, problem.Unavailable, "is not signed by the authority in the kubeconfig"},
		{"a wrong token", func(_, u map[string]any) {
			for k := range u {
				delete(u, k)
			}
			u["token"] = "wrong"
		}, problem.PermissionDenied, "refused the credentials"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text, err := os.ReadFile(r.Kubeconfig)
			if err != nil {
				t.Fatal(err)
			}
			var file map[string]any
			if err := yaml.Unmarshal(text, &file); err != nil {
				t.Fatal(err)
			}
			entry := func(list, key string) map[string]any {
				return file[list].([]any)[0].(map[string]any)[key].(map[string]any)
			}
			tc.alter(entry("clusters", "cluster"), entry("users", "user"))
			if text, err = yaml.Marshal(file); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "kubeconfig")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Open(Config{Kubeconfig: []string{path}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			here := c.Cluster(fleet.Pop{Name: "u0", Context: "cluster-1", Namespace: "pop-u0"})
			_, err = here.Fleets(t.Context(), "edge")
			expect(t, err, tc.kind, tc.says)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			here.Watch(ctx, "", func(e fleet.WatchEvent) {
				expect(t, e.Err, tc.kind, tc.says)
				cancel()
			})
		})
	}
}

// The role that deploy/ gives to the centre is enough for all it does, and takes in nothing of the controller's.
func testLeastPrivilege(t *testing.T, r *real) {
	r.addPops(t, "l0")
	root, err := kubetest.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "base", "controller", "rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "edgehold-system"}}}
	for _, document := range strings.Split(string(text), "\n---\n") {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, &o)
	}
	for _, o := range objects {
		if err := r.admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "edgehold-system", Name: "centre"}}
	token := &authenticationv1.TokenRequest{}
	if err := r.admin.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(r.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		*user = clientcmdapi.AuthInfo{Token: token.Status.Token}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{Kubeconfig: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	here := c.Cluster(fleet.Pop{Name: "l0", Context: "cluster-1", Namespace: "pop-l0"})
	// A role that was just made is known to the API server a moment later.
	kubetest.Eventually(t, func() error {
		_, err := here.Fleets(t.Context(), "")
		return err
	})
	change := fleet.Change{ID: "op-1", To: fleet.Blue, Reason: "x", At: time.Now()}
	if _, _, err := here.Plan(t.Context(), "edge", change, true); err != nil {
		t.Errorf("plan: %v", err)
	}
	if _, err := here.ForceSelector(t.Context(), "edge", change, always); err != nil {
		t.Errorf("force the selector: %v", err)
	}
	if _, err := here.Freeze(t.Context(), "edge", fleet.Freeze{ID: "f1", From: time.Now(), Until: time.Now().Add(time.Hour), Reason: "x"}); err != nil {
		t.Errorf("freeze: %v", err)
	}
	if _, err := here.Unfreeze(t.Context(), "edge", fleet.Unfreeze{ID: "u1", Reason: "x", At: time.Now()}); err != nil {
		t.Errorf("unfreeze: %v", err)
	}
	if _, err := here.Await(t.Context(), fleet.Fleet{Name: "edge"}, func(f *fleet.Fleet) bool { return f.Declared == fleet.Blue }); err != nil {
		t.Errorf("await: %v", err)
	}
	own, err := c.connect("cluster-1")
	if err != nil {
		t.Fatal(err)
	}
	status := client.RawPatch(types.MergePatchType, []byte(`{"status":{"active":"blue"}}`))
	if err := own.client.Status().Patch(t.Context(), r.fleet(t, "l0"), status); !apierrors.IsForbidden(err) {
		t.Errorf("the status is the controller's: %v", err)
	}
	scale := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
	if err := own.client.Patch(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "pop-l0", Name: "edge-blue"}}, scale); !apierrors.IsForbidden(err) {
		t.Errorf("the Deployments are the controller's: %v", err)
	}
}

// The API dies over a patch: the caller learns what became of it, and it is never done twice.
func testLostAnswers(t *testing.T, r *real) {
	r.addPops(t, "a0")
	cut := &url.Error{Op: "Patch", URL: "https://api", Err: io.ErrUnexpectedEOF}
	for i, tc := range []struct {
		name                string
		written, lost, dead bool
	}{
		{name: "written, and the answer lost", written: true, lost: true},
		{name: "lost before it was written", lost: true},
		{name: "lost, and nobody there after it", lost: true, dead: true},
	} {
		_, c := r.centre(t, true)
		here := c.Cluster(fleet.Pop{Name: "a0", Context: "cluster-1", Namespace: "pop-a0"})
		conn, err := c.connect("cluster-1")
		if err != nil {
			t.Fatal(err)
		}
		lost := tc.lost
		conn.client = interceptor.NewClient(conn.client, interceptor.Funcs{
			Patch: func(ctx context.Context, next client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				if lost {
					lost = false
					if tc.written {
						if err := next.Patch(ctx, o, p, opts...); err != nil {
							return err
						}
					}
					return cut
				}
				return next.Patch(ctx, o, p, opts...)
			},
			Get: func(ctx context.Context, next client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if tc.dead {
					return &url.Error{Op: "Get", URL: "https://api", Err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}}
				}
				return next.Get(ctx, key, o, opts...)
			},
		})
		before := r.fleet(t, "a0").Generation
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		f, err := here.Declare(ctx, "edge", fleet.Change{ID: fmt.Sprintf("op-%d", i), To: fleet.Blue, Reason: "x", At: time.Now()})
		cancel()
		if tc.dead {
			expect(t, err, problem.Unavailable, "went away while fleet edge was written, which may have happened or not; ask again with the same key")
			continue
		}
		if after := r.fleet(t, "a0").Generation; err != nil || after != before+1 || f.Generation != after {
			t.Errorf("%s: generation %d → %d, returned %d, %v", tc.name, before, after, f.Generation, err)
		}
	}
}

// An API that has just come back refuses everybody until it has read its roles. That is an outage that is not over, and
// not a lack of rights; but only after an outage.
func testWakingUp(t *testing.T, r *real) {
	r.addPops(t, "w0")
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "fleets"}, "edge", errors.New("RBAC: role not found"))
	for _, awoke := range []bool{true, false} {
		_, c := r.centre(t, true)
		here := c.Cluster(fleet.Pop{Name: "w0", Context: "cluster-1", Namespace: "pop-w0"})
		conn, err := c.connect("cluster-1")
		if err != nil {
			t.Fatal(err)
		}
		refuse := true
		conn.client = interceptor.NewClient(conn.client, interceptor.Funcs{
			Patch: func(ctx context.Context, next client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				if refuse {
					refuse = false
					return forbidden
				}
				return next.Patch(ctx, o, p, opts...)
			},
		})
		if awoke {
			conn.mirror.failed(&net.OpError{Op: "dial", Err: errors.New("connection refused")})
		}
		_, err = here.Declare(t.Context(), "edge", fleet.Change{ID: fmt.Sprintf("op-%t", awoke), To: fleet.Blue, Reason: "x", At: time.Now()})
		if awoke && err != nil {
			t.Errorf("a moment after an outage: %v", err)
		}
		if !awoke {
			expect(t, err, problem.PermissionDenied, "lack a right")
		}
	}
}
