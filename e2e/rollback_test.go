package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"edgehold.internal/e2e/stage"
	"edgehold.internal/services/fleet/kube/v1alpha1"
)

// The good case, which all others are measured against.
func TestRollbackUnderTraffic(t *testing.T) {
	s, ctx := scenario(t)
	out, err := s.rollback(ctx, "good")
	if err != nil {
		t.Fatal(err)
	}
	s.back(t, ctx)
	for _, p := range s.Pops {
		if !strings.Contains(out, p.Name) {
			t.Errorf("the command says nothing of %s:\n%s", p.Name, out)
		}
	}
}

// Something dies with kill -9 at a random moment of the rollback and comes back. The rollback ends all the same.
func TestKilledMidRollback(t *testing.T) {
	for _, victim := range []string{"runbooks", "fleet", "controller", "temporal", "control-plane-2"} {
		t.Run(victim, func(t *testing.T) {
			s, ctx := scenario(t)
			after := time.Duration(rand.IntN(600)) * time.Millisecond
			t.Logf("%s dies %s after the command", victim, after)
			var killer sync.WaitGroup
			killer.Go(func() {
				select {
				case <-ctx.Done():
					return
				case <-time.After(after):
				}
				s.kill(t, ctx, victim)
			})
			out, err := s.rollback(ctx, "killed-"+victim)
			killer.Wait()
			if err != nil && exitCode(err) != 5 {
				t.Fatalf("%v\n%s", err, out)
			}
			if err != nil {
				// A PoP whose API was away may be reported and left; asked again, it follows.
				t.Logf("left PoPs behind, asking again: %v", err)
				if out, err := s.rollback(ctx, "again-"+victim, "--to", "blue"); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			s.back(t, ctx)
		})
	}
}

func (s *scene) kill(t *testing.T, ctx context.Context, victim string) {
	t.Helper()
	switch victim {
	case "runbooks", "fleet":
		p := map[string]*stage.Process{"runbooks": s.Runbooks, "fleet": s.Fleet}[victim]
		p.Kill()
		if _, err := p.Start(ctx); err != nil {
			t.Error(err)
		}
	case "controller":
		s.killController(t, ctx, s.Pops[1])
	default:
		s.killEngine(t, ctx, victim)
	}
}

// One PoP's API is unreachable for the whole rollback: the others roll back, the report says why one did not, and asked
// again that one follows.
func TestPopUnreachable(t *testing.T) {
	s, ctx := scenario(t)
	lost := s.Pops[0]
	lost.Wire.Cut()
	defer lost.Wire.Mend()
	out, err := s.rollback(ctx, "unreachable", "--max-failed", "1", "--deadline", "5s")
	if exitCode(err) != 5 {
		t.Fatalf("want exit code 5 for a partial rollback, got %v\n%s", err, out)
	}
	s.back(t, ctx, s.Pops[1:]...)
	if f, _ := s.Board.Fleet(lost.Namespace); f.Status.Active != v1alpha1.Green {
		t.Errorf("%s serves %s: nobody could have told it", lost.Name, f.Status.Active)
	}
	lost.Wire.Mend()
	if out, err := s.rollback(ctx, "unreachable-again"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
}

// Two people on call roll the same incident back, one after the other: the second does not lead forward again.
func TestRolledBackAlready(t *testing.T) {
	s, ctx := scenario(t)
	if out, err := s.rollback(ctx, "first"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
	before := s.stored(t, ctx)
	for _, way := range [][]string{nil, {"--direct"}} {
		_, err := s.rollback(ctx, "second", way...)
		if exitCode(err) != 3 || !strings.Contains(err.Error(), "nothing to roll back: every PoP in scope serves blue (v1); ") || !strings.Contains(err.Error(), "say --to green") {
			t.Errorf("a second rollback %v: %v", way, err)
		}
	}
	s.unchanged(t, ctx, before)
}

// The standby is not ready in three PoPs. Three of six are more than the budget of a third, so the operation asks before
// it touches anything; a person lets it go on, and three stay where they are.
func TestStandbyNotReady(t *testing.T) {
	s, ctx := scenario(t)
	broken, well := s.Pops[:3], s.Pops[3:]
	s.breakStandby(t, ctx, broken)
	out, err := s.rollback(ctx, "not-ready")
	if exitCode(err) != 6 {
		t.Fatalf("want exit code 6, it waits for a person; got %v\n%s", err, out)
	}
	for _, p := range s.Pops {
		if f, _ := s.Board.Fleet(p.Namespace); f.Status.Active != v1alpha1.Green {
			t.Errorf("%s was touched before anybody approved", p.Name)
		}
	}
	id := s.newest(t, ctx)
	if out, err := s.Run(ctx, "operation", "approve", id, "--reason", "three are better than none"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := s.Run(ctx, "operation", "watch", id); exitCode(err) != 5 {
		t.Fatalf("want exit code 5, got %v\n%s", err, out)
	}
	s.back(t, ctx, well...)
	for _, p := range broken {
		if f, _ := s.Board.Fleet(p.Namespace); f.Status.Active != v1alpha1.Green {
			t.Errorf("%s serves %q without a ready standby", p.Name, f.Status.Active)
		}
	}
	s.mendStandby(t, ctx, broken)
}

// Two people start the rollback at once: one operation runs, the other is refused with its id.
func TestTwoAtOnce(t *testing.T) {
	s, ctx := scenario(t)
	type result struct {
		out string
		err error
	}
	results := make([]result, 2)
	var both sync.WaitGroup
	for i := range results {
		both.Go(func() { results[i].out, results[i].err = s.rollback(ctx, fmt.Sprintf("twin-%d", i)) })
	}
	both.Wait()
	first, second := results[0], results[1]
	if first.err != nil {
		first, second = second, first
	}
	if first.err != nil || exitCode(second.err) != 3 {
		t.Fatalf("want one to succeed and one to be refused:\n%v\n%v", first.err, second.err)
	}
	if id := s.newest(t, ctx); !strings.Contains(second.err.Error(), id) {
		t.Errorf("the refusal does not name the operation %s that runs: %v", id, second.err)
	}
	s.back(t, ctx)
}

// A GitOps-like writer keeps setting the selector of one PoP back. The fleet does not fight for ever: it stops, names the
// writer, and the other PoPs are not held up.
func TestSelectorFought(t *testing.T) {
	s, ctx := scenario(t)
	p := s.Pops[1]
	wctx, stop := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() {
		body := []byte(`{"spec":{"selector":{"edgehold.internal/colour":"green"}}}`)
		for wctx.Err() == nil {
			_, _ = s.Cluster(p).Kube.CoreV1().Services(p.Namespace).Patch(wctx, "edge", types.MergePatchType, body, metav1.PatchOptions{FieldManager: "gitops"})
			select {
			case <-wctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	out, err := s.rollback(ctx, "fought", "--max-failed", "1")
	t.Logf("%v\n%s", err, out)
	others := append([]stage.Pop{s.Pops[0]}, s.Pops[2:]...)
	s.back(t, ctx, others...)
	if err := s.Board.Await(ctx, "it stops and says who writes", s.Namespaces(p), func(f v1alpha1.Fleet) bool {
		for _, c := range f.Status.Conditions {
			if c.Type == "SoleWriter" && c.Status == metav1.ConditionFalse && strings.Contains(c.Message, "gitops") {
				return f.Status.Phase == v1alpha1.PhaseHalted
			}
		}
		return false
	}); err != nil {
		t.Error(err)
	}
	stop()
	writer.Wait()
	if out, err := s.Run(ctx, "rollback", "--direct", "--force", "--fleet", stage.FleetName, "--pops", p.Name, "--to", "blue", "--reason", "the writer is paused"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
}

// The clock of a PoP's controller jumps three hours ahead in the middle of the rollback, and then to five hours ago. No PoP is
// left behind, none is held up, and the report has no minute that never was.
func TestClockJump(t *testing.T) {
	s, ctx := scenario(t)
	p := s.Pops[1]
	clock := s.drillClock(t, ctx, p)
	began := time.Now()
	var jumps sync.WaitGroup
	jumps.Go(func() {
		for _, off := range []string{"3h", "-5h"} {
			time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
			clock(off)
			t.Logf("the clock is wrong by %s after %s", off, time.Since(began))
		}
	})
	out, err := s.rollback(ctx, "clock-jump")
	jumps.Wait()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
	s.timely(t, ctx, began)

	// And one that begins and ends with the wrong clock.
	clock("26h")
	began = time.Now()
	if out, err := s.Run(ctx, "cutover", "--fleet", stage.FleetName, "--to", "green", "--reason", "the bad release once more"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := s.AwaitSteady(ctx); err != nil {
		t.Fatal(err)
	}
	s.timely(t, ctx, began)
	if f, _ := s.Board.Fleet(p.Namespace); !meta.IsStatusConditionFalse(f.Status.Conditions, "ClockTrusted") {
		t.Errorf("%s does not say that its clock is wrong: %v", p.Name, f.Status.Conditions)
	}
}

// timely checks that all that is recorded of the last operation, in the PoPs and in the report, happened after an instant and
// before now, as far as whole seconds tell.
func (s *scene) timely(t *testing.T, ctx context.Context, began time.Time) {
	t.Helper()
	out, err := s.Run(ctx, "operation", "get", s.newest(t, ctx), "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Waves []struct {
			Pops []struct {
				Pop        string    `json:"pop"`
				SwitchedAt time.Time `json:"switched_at"`
			} `json:"pops"`
		} `json:"waves"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const rounded = 2 * time.Second
	check := func(pop, what string, at time.Time) {
		if at.Before(began.Add(-rounded)) || time.Until(at) > rounded {
			t.Errorf("%s %s at %s, and it began at %s", pop, what, at, began)
		}
	}
	reported := 0
	for _, w := range report.Waves {
		for _, p := range w.Pops {
			check(p.Pop, "is reported as switched", p.SwitchedAt)
			reported++
		}
	}
	if reported != len(s.Pops) {
		t.Errorf("%d PoPs in the report of %d: %s", reported, len(s.Pops), out)
	}
	for _, p := range s.Pops {
		f, _ := s.Board.Fleet(p.Namespace)
		for what, at := range map[string]*metav1.MicroTime{"switched": f.Status.LastCutover.SwitchedAt, "settled": f.Status.LastCutover.SettledAt, "drained": f.Status.LastCutover.DrainedAt} {
			if at == nil {
				t.Errorf("%s was never %s", p.Name, what)
			} else {
				check(p.Name, what, at.Time)
			}
		}
	}
}

// drillClock starts the controller of the PoP's cluster with a clock that the returned function sets, until the scenario ends.
func (s *scene) drillClock(t *testing.T, ctx context.Context, p stage.Pop) (wrongBy func(off string)) {
	t.Helper()
	if s.dir == "" {
		t.Skip("needs the embedded platform: a file that the controller's pod and this test both see")
	}
	file := filepath.Join(t.TempDir(), "clock")
	const controller = "fleet-controller"
	deployments := s.Cluster(p).Kube.AppsV1().Deployments("edgehold-system")
	restart := func(ctx context.Context, patch string) error {
		if err := s.Cluster(p).Scale(ctx, "edgehold-system", controller, 0); err != nil {
			return err
		}
		if _, err := deployments.Patch(ctx, controller, types.JSONPatchType, []byte(patch), metav1.PatchOptions{FieldManager: "e2e"}); err != nil {
			return err
		}
		return s.Cluster(p).Scale(ctx, "edgehold-system", controller, 1)
	}
	before, err := deployments.Get(ctx, controller, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const args = "/spec/template/spec/containers/0/args"
	if err := restart(ctx, fmt.Sprintf(`[{"op":"add","path":%q,"value":%q}]`, args+"/-", "--drill-clock="+file)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := restart(ctx, fmt.Sprintf(`[{"op":"remove","path":"%s/%d"}]`, args, len(before.Spec.Template.Spec.Containers[0].Args))); err != nil {
			t.Error(err)
		}
	})
	return func(off string) {
		if err := os.WriteFile(file, []byte(off), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// Everything of ours but the controllers is dead: the direct path needs clusters only, and leaves an audit line.
func TestDirect(t *testing.T) {
	s, ctx := scenario(t)
	s.Fleet.Kill()
	s.Runbooks.Kill()
	if out, err := s.Run(ctx, "rollback", "--direct", "--reason", "Temporal and the centre are dead"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
	s.audited(t, "Temporal and the centre are dead")
}

// The controllers are dead as well: the selector is set from outside, and a controller that comes back agrees.
func TestDirectForceSelector(t *testing.T) {
	s, ctx := scenario(t)
	s.Fleet.Kill()
	s.Runbooks.Kill()
	for _, c := range s.Clusters {
		if err := c.Scale(ctx, "edgehold-system", "fleet-controller", 0); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.Run(ctx, "rollback", "--direct", "--force-selector", "--reason", "everything is dead")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range s.Pops {
		service, err := s.Cluster(p).Kube.CoreV1().Services(p.Namespace).Get(ctx, "edge", metav1.GetOptions{})
		if err != nil || service.Spec.Selector[v1alpha1.ColourLabel] != "blue" {
			t.Errorf("%s selects %q: %v", p.Name, service.Spec.Selector[v1alpha1.ColourLabel], err)
		}
	}
	s.audited(t, "everything is dead")
	for _, c := range s.Clusters {
		if err := c.Scale(ctx, "edgehold-system", "fleet-controller", 1); err != nil {
			t.Fatal(err)
		}
	}
	s.back(t, ctx)
}

// The centre dies right after the colour was declared: each PoP finishes alone.
func TestPopFinishesAlone(t *testing.T) {
	s, ctx := scenario(t)
	for _, p := range s.Pops {
		body := fmt.Appendf(nil, `{"spec":{"active":"blue","change":{"id":"alone-%s","reason":"declared by hand","at":%q}}}`, p.Name, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
		if _, err := s.Cluster(p).Dynamic.Resource(v1alpha1.GroupVersion.WithResource("fleets")).Namespace(p.Namespace).Patch(ctx, stage.FleetName, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "kubectl"}); err != nil {
			t.Fatal(err)
		}
	}
	s.Fleet.Kill()
	s.Runbooks.Kill()
	s.back(t, ctx)
}

// audited checks that the command left its reason in the audit log.
func (s *scene) audited(t *testing.T, reason string) {
	t.Helper()
	body, err := os.ReadFile(s.AuditLog())
	if err != nil || !strings.Contains(string(body), reason) {
		t.Errorf("no audit line with %q: %v", reason, err)
	}
}

// newest is the id of the operation that was started last.
func (s *scene) newest(t *testing.T, ctx context.Context) string {
	t.Helper()
	out, err := s.Run(ctx, "operation", "list", "--limit", "1", "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Operations []struct{ ID string } `json:"operations"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Operations) == 0 {
		t.Fatalf("no operation in %s: %v", out, err)
	}
	return list.Operations[0].ID
}

// breakStandby takes the readiness of the standby's pods away, as a bad node or a broken dependency would.
func (s *scene) breakStandby(t *testing.T, ctx context.Context, pops []stage.Pop) {
	t.Helper()
	s.probeStandby(t, ctx, pops, "/nowhere")
	if err := s.Board.Await(ctx, "the standby is not ready", s.Namespaces(pops...), func(f v1alpha1.Fleet) bool { return f.Status.Blue.Ready == 0 }); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) mendStandby(t *testing.T, ctx context.Context, pops []stage.Pop) {
	t.Helper()
	s.probeStandby(t, ctx, pops, "/readyz")
	if err := s.AwaitParity(ctx, int32(s.Replicas)); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) probeStandby(t *testing.T, ctx context.Context, pops []stage.Pop, path string) {
	t.Helper()
	body := fmt.Appendf(nil, `{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":"100%%"}},"template":{"spec":{"containers":[{"name":"edge","readinessProbe":{"httpGet":{"path":%q,"port":"admin"}}}]}}}}`, path)
	for _, p := range pops {
		if _, err := s.Cluster(p).Kube.AppsV1().Deployments(p.Namespace).Patch(ctx, "edge-blue", types.StrategicMergePatchType, body, metav1.PatchOptions{FieldManager: "e2e"}); err != nil {
			t.Fatal(err)
		}
	}
}
