package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	if out, err := s.rollback(ctx, "unreachable-again", "--to", "blue"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
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
