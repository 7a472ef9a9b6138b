package cluster

import (
	"fmt"
	"testing"
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestAnticipate(t *testing.T) {
	seen := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	declared := func(last *fleet.Cutover) fleet.Fleet {
		return fleet.Fleet{Name: "edge", Active: fleet.Green, Declared: fleet.Blue, Generation: 4, ObservedGeneration: 3, LastCutover: last,
			Change: &fleet.Change{ID: "op-2", To: fleet.Blue, Principal: "ada", Reason: "x", Rollback: true, At: seen.Add(-time.Second)}, Blue: fleet.ColourState{Version: "v1"}}
	}
	earlier := &fleet.Cutover{ID: "op-1", Outcome: fleet.Running, SwitchedAt: seen.Add(-time.Hour)}
	for name, tc := range map[string]struct {
		served   served
		fleet    fleet.Fleet
		switched bool
		history  int
	}{
		"made for this generation":      {served{fleet.Blue, 4, seen}, declared(nil), true, 0},
		"the one before goes down":      {served{fleet.Blue, 4, seen}, declared(earlier), true, 1},
		"made for a later one":          {served{fleet.Blue, 5, seen}, declared(earlier), true, 1},
		"begun, and not switched yet":   {served{fleet.Blue, 4, seen}, declared(&fleet.Cutover{ID: "op-2", To: fleet.Blue, Outcome: fleet.Running, Required: 3}), true, 0},
		"the colour before":             {served{fleet.Green, 4, seen}, declared(earlier), false, 0},
		"neither colour":                {served{fleet.None, 4, seen}, declared(earlier), false, 0},
		"by hand, or for an older one":  {served{fleet.Blue, 3, seen}, declared(earlier), false, 0},
		"it is recorded already":        {served{fleet.Blue, 4, seen}, declared(&fleet.Cutover{ID: "op-2", Outcome: fleet.Running, SwitchedAt: seen.Add(-time.Minute)}), false, 0},
		"it has expired, and came late": {served{fleet.Blue, 4, seen}, declared(&fleet.Cutover{ID: "op-2", Outcome: fleet.Expired}), false, 0},
		"nothing is declared":           {served{fleet.Blue, 4, seen}, fleet.Fleet{Active: fleet.Green, Declared: fleet.Blue, Generation: 4}, false, 0},
	} {
		f := tc.fleet
		before := fmt.Sprintf("%+v %+v", f, f.LastCutover)
		if got := tc.served.anticipate(&f); got != tc.switched {
			t.Errorf("%s: anticipate says %t", name, got)
		}
		if !tc.switched {
			if after := fmt.Sprintf("%+v %+v", f, f.LastCutover); after != before {
				t.Errorf("%s: it was changed to %s", name, after)
			}
			continue
		}
		c := f.LastCutover
		if c == nil || c.ID != "op-2" || c.To != fleet.Blue || !c.SwitchedAt.Equal(seen) || c.Outcome != fleet.Running || f.Active != fleet.Blue || len(f.History) != tc.history {
			t.Errorf("%s: %+v, %d in the history, %+v", name, f, len(f.History), c)
		}
	}
	begun := &fleet.Cutover{ID: "op-2", To: fleet.Blue, Outcome: fleet.Running, Required: 3}
	f := declared(begun)
	served{fleet.Blue, 4, seen}.anticipate(&f)
	if f.LastCutover.Required != 3 {
		t.Errorf("what was recorded of it is lost: %+v", f.LastCutover)
	}
	if !begun.SwitchedAt.IsZero() {
		t.Error("the record that others read was changed")
	}
}

// The selector is set, and the controller dies before it has recorded that: whoever waits learns it all the same.
func testSwitchBeforeRecord(t *testing.T, r *real) {
	r.addPops(t, "s0", "s1")
	centre, c := r.centre(t, false, "s0", "s1")
	reported := make(chan fleet.CutoverResult, 2)
	done := make(chan error, 1)
	go func() {
		_, err := centre.CutOver(t.Context(), "edge", everywhere, fleet.Change{ID: "op-1", To: fleet.Blue, Reason: "x"}, func(x fleet.CutoverResult) { reported <- x })
		done <- err
	}()
	site := func(pop string) fleet.Cluster {
		return c.Cluster(fleet.Pop{Name: pop, Context: "cluster-1", Namespace: "pop-" + pop})
	}
	// Every PoP is declared by itself; the generation before it is no fence.
	set := func(pop string) {
		t.Helper()
		declared, err := site(pop).Await(t.Context(), fleet.Fleet{Name: "edge"}, func(f *fleet.Fleet) bool { return f.Change != nil && f.Change.ID == "op-1" })
		if err != nil {
			t.Fatal(err)
		}
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "pop-" + pop, Name: "edge"}}
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"%d"}},"spec":{"selector":{%q:%q}}}`, v1alpha1.FenceAnnotation, declared.Generation, v1alpha1.ColourLabel, fleet.Blue)
		if err := r.admin.Patch(t.Context(), s, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	set("s1")
	first := <-reported
	if first.Pop != "s1" || first.Err != nil || first.Already || first.Cutover == nil || first.Cutover.ID != "op-1" || first.Cutover.SwitchedAt.IsZero() {
		t.Errorf("%+v, %+v", first, first.Cutover)
	}
	if status := r.fleet(t, "s1").Status; status.LastCutover != nil {
		t.Errorf("somebody recorded it: %+v", status)
	}
	if _, err := site("s1").Await(t.Context(), fleet.Fleet{Name: "edge"}, func(f *fleet.Fleet) bool { return f.Active == fleet.Blue }); err != nil {
		t.Error(err)
	}
	set("s0")
	if second := <-reported; second.Pop != "s0" || second.Err != nil {
		t.Errorf("%+v", second)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
