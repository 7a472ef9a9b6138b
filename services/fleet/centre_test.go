package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/fake"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is a centre over PoPs in memory.
type network struct {
	*fleet.Centre
	pops map[string]*fake.Cluster
}

// newNetwork has one PoP per cluster, named p0, p1 and so on.
func newNetwork(clusters ...*fake.Cluster) network {
	n := network{pops: map[string]*fake.Cluster{}}
	r := &fleet.Registry{}
	for i, c := range clusters {
		name := fmt.Sprintf("p%d", i)
		n.pops[name] = c
		r.Pops = append(r.Pops, fleet.Pop{Name: name, Context: "c1", Namespace: "pop-" + name})
	}
	n.Centre = fleet.NewCentre(r, func(p fleet.Pop) fleet.Cluster { return n.pops[p.Name] }, fleet.Limits{Timeout: time.Second})
	return n
}

func steady(n int, active fleet.Colour) (out []*fake.Cluster) {
	for range n {
		out = append(out, fake.New(fake.Steady("edge", active)))
	}
	return out
}

var everywhere = fleet.Scope{All: true}

func change(to fleet.Colour) fleet.Change {
	return fleet.Change{ID: "op-1", To: to, Principal: "ada", Reason: "v2 answers 500"}
}

// unreachable blocks as a network without answers does.
func unreachable(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestCutOverEverywhere(t *testing.T) {
	n := newNetwork(steady(21, fleet.Green)...)
	var mu sync.Mutex
	var reported []string
	results, err := n.CutOver(t.Context(), "edge", everywhere, change(fleet.Blue), func(r fleet.CutoverResult) {
		mu.Lock()
		defer mu.Unlock()
		reported = append(reported, r.Pop)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || r.Already || r.Pop != fmt.Sprintf("p%d", i) || r.Fleet.Active != fleet.Blue || r.Fleet.Pop != r.Pop {
			t.Errorf("%+v", r)
		}
		if c := r.Cutover; c == nil || c.ID != "op-1" || c.From != fleet.Green || c.To != fleet.Blue || c.SwitchedAt.IsZero() {
			t.Errorf("%s: cutover %+v", r.Pop, r.Cutover)
		}
	}
	slices.Sort(reported)
	if len(slices.Compact(reported)) != 21 {
		t.Errorf("reported %v", reported)
	}

	// The same key again is the same cutover, and another payload under it is refused.
	again, err := n.CutOver(t.Context(), "edge", everywhere, change(fleet.Blue), nil)
	if err != nil || again[0].Err != nil || again[0].Already || again[0].Cutover == nil || again[0].Cutover.ID != "op-1" {
		t.Errorf("again: %+v, %v", again[0], err)
	}
	other := change(fleet.Green)
	for _, alter := range []func(*fleet.Change){
		func(c *fleet.Change) {},
		func(c *fleet.Change) { c.To, c.Reason = fleet.Blue, "something else" },
		func(c *fleet.Change) { c.To, c.Version = fleet.Blue, "v2" },
		func(c *fleet.Change) { c.To, c.Force = fleet.Blue, true },
	} {
		c := other
		alter(&c)
		r, err := n.CutOver(t.Context(), "edge", everywhere, c, nil)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, true, r[0].Err, problem.AlreadyExists, "idempotency_key", `"op-1" was used before`)
	}
	fresh := change(fleet.Blue)
	fresh.ID = "op-2"
	r, err := n.CutOver(t.Context(), "edge", everywhere, fresh, nil)
	if err != nil || !r[0].Already || r[0].Cutover != nil || r[0].Err != nil {
		t.Errorf("a new key for what is served already: %+v, %v", r[0], err)
	}
	for name, p := range n.pops {
		if p.Writes() != 1 {
			t.Errorf("%s was written %d times; want once", name, p.Writes())
		}
	}
}

// A PoP that serves what is asked for, while something else is declared there and waits for its standby, must not answer that
// all is well: the declaration would fire once the standby is ready.
func TestCutOverWithdrawsWhatWaits(t *testing.T) {
	waits := func(f *fleet.Fleet) {
		f.Declared, f.Phase, f.Change = fleet.Green, fleet.Blocked, &fleet.Change{ID: "op-0", To: fleet.Green, Reason: "v2"}
		f.LastCutover = &fleet.Cutover{ID: "op-0", From: fleet.Blue, To: fleet.Green, Outcome: fleet.Running}
	}
	n := newNetwork(steady(1, fleet.Blue)...)
	n.pops["p0"].Update("edge", waits)
	n.pops["p0"].Controller = func(f *fleet.Fleet) {
		f.LastCutover = &fleet.Cutover{ID: "op-0", From: fleet.Blue, To: fleet.Green, Outcome: fleet.Superseded}
		f.Phase, f.ObservedGeneration = fleet.Steady, f.Generation
	}
	_, plans, err := n.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere, To: fleet.Blue})
	if err != nil || plans[0].Already {
		t.Errorf("the plan says that nothing would be done: %+v, %v", plans, err)
	}
	r, err := n.CutOver(t.Context(), "edge", everywhere, change(fleet.Blue), nil)
	if err != nil || r[0].Err != nil || !r[0].Already || r[0].Cutover != nil || r[0].Fleet.Declared != fleet.Blue || n.pops["p0"].Writes() != 1 {
		t.Errorf("%+v, %v, %d writes", r, err, n.pops["p0"].Writes())
	}
}

func TestOnePopDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(steady(21, fleet.Green)...)
		n.pops["p7"].Before = unreachable
		began := time.Now()
		var others time.Duration
		var mu sync.Mutex
		results, err := n.CutOver(t.Context(), "edge", everywhere, change(fleet.Blue), func(r fleet.CutoverResult) {
			mu.Lock()
			defer mu.Unlock()
			if r.Pop != "p7" {
				others = max(others, time.Since(began))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Pop == "p7" {
				refused(t, r.Cutover == nil, r.Err, problem.Unavailable, "", "PoP p7 (context c1) did not answer within 1s")
			} else if r.Err != nil {
				t.Errorf("%s: %v", r.Pop, r.Err)
			}
		}
		if others != 0 || time.Since(began) != time.Second {
			t.Errorf("the others took %s and the call %s; want 0s and 1s", others, time.Since(began))
		}
		pops := n.Pops(t.Context())
		if pops[7].Err == nil || pops[6].Err != nil {
			t.Errorf("pops: %v, %v", pops[7].Err, pops[6].Err)
		}
	})
}

func TestCutOverIsRefused(t *testing.T) {
	standby := fleet.Blocker{Reason: fleet.StandbyNotReady, Message: "blue has 0 of 4 pods ready"}
	frozen := fleet.Blocker{Reason: fleet.Frozen, Message: "frozen until noon", Overridable: true}
	for _, tc := range []struct {
		name     string
		blockers []fleet.Blocker
		alter    func(*fleet.Change)
		fleet    string
		kind     problem.Kind
		says     string
	}{
		{"by a standby that is not ready", []fleet.Blocker{standby}, nil, "edge", problem.FailedPrecondition, "would not cut over to blue, and nothing was changed: blue has 0 of 4 pods ready"},
		{"by it also when forced", []fleet.Blocker{standby, frozen}, func(c *fleet.Change) { c.Force = true }, "edge", problem.FailedPrecondition, "blue has 0 of 4"},
		{"by a freeze", []fleet.Blocker{frozen}, nil, "edge", problem.FailedPrecondition, "frozen until noon; the role breakglass may force it"},
		{"by the version of the other colour", nil, func(c *fleet.Change) { c.Version = "v2" }, "edge", problem.FailedPrecondition, "another version"},
		{"by an unknown version", nil, func(c *fleet.Change) { c.Version = "v9" }, "edge", problem.NotFound, `version "v9" in either colour; there is v1, v2`},
		{"by an unknown fleet", nil, nil, "api", problem.NotFound, `no fleet "api"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNetwork(steady(1, fleet.Green)...)
			n.pops["p0"].Blockers = tc.blockers
			c := change(fleet.Blue)
			if tc.alter != nil {
				tc.alter(&c)
			}
			for call, do := range map[string]func(context.Context, string, fleet.Scope, fleet.Change, func(fleet.CutoverResult)) ([]fleet.CutoverResult, error){
				"CutOver": n.CutOver, "ForceSelector": n.ForceSelector,
			} {
				r, err := do(t.Context(), tc.fleet, everywhere, c, nil)
				if err != nil {
					t.Fatal(call, err)
				}
				refused(t, r[0].Cutover == nil, r[0].Err, tc.kind, "", tc.says)
			}
			if n.pops["p0"].Writes() != 0 {
				t.Error("something was changed")
			}
		})
	}
	t.Run("not by what may be forced", func(t *testing.T) {
		n := newNetwork(steady(1, fleet.Green)...)
		n.pops["p0"].Blockers = []fleet.Blocker{frozen}
		c := change(fleet.Blue)
		c.Force = true
		r, err := n.CutOver(t.Context(), "edge", everywhere, c, nil)
		if err != nil || r[0].Err != nil || !r[0].Cutover.Forced {
			t.Errorf("%+v, %v", r[0], err)
		}
	})
}

func TestRequestsThatCanNeverWork(t *testing.T) {
	n := newNetwork(steady(2, fleet.Green)...)
	long := strings.Repeat("x", 600)
	for _, tc := range []struct {
		name  string
		scope fleet.Scope
		alter func(*fleet.Change)
		kind  problem.Kind
		field string
	}{
		{"no scope", fleet.Scope{}, func(*fleet.Change) {}, problem.Invalid, "scope"},
		{"an unknown PoP", fleet.Scope{Pops: []string{"p9"}}, func(*fleet.Change) {}, problem.NotFound, "scope.pops[0]"},
		{"no colour", everywhere, func(c *fleet.Change) { c.To = fleet.None }, problem.Invalid, "to"},
		{"an unknown colour", everywhere, func(c *fleet.Change) { c.To = "purple" }, problem.Invalid, "to"},
		{"no reason", everywhere, func(c *fleet.Change) { c.Reason = " " }, problem.Invalid, "reason"},
		{"a long reason", everywhere, func(c *fleet.Change) { c.Reason = long }, problem.Invalid, "reason"},
		{"no key", everywhere, func(c *fleet.Change) { c.ID = "" }, problem.Invalid, "idempotency_key"},
		{"a long version", everywhere, func(c *fleet.Change) { c.Version = long }, problem.Invalid, "version"},
		{"a deadline in the past", everywhere, func(c *fleet.Change) { c.At, c.Deadline = noon, noon }, problem.Invalid, "deadline"},
		{"a deadline far away", everywhere, func(c *fleet.Change) { c.At, c.Deadline = noon, noon.Add(2*time.Hour) }, problem.Invalid, "deadline"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := change(fleet.Blue)
			tc.alter(&c)
			r, err := n.CutOver(t.Context(), "edge", tc.scope, c, nil)
			refused(t, r == nil, err, tc.kind, tc.field, "")
		})
	}
}

func TestCutOverThatDoesNotSwitch(t *testing.T) {
	hold := func(f *fleet.Fleet) { f.Phase, f.Message = fleet.Blocked, "blue has 0 of 4 pods ready" }
	for _, tc := range []struct {
		name string
		then func(*fleet.Fleet) // what happens a second later
		kind problem.Kind
		says string
		took time.Duration
	}{
		{"goes on by itself", nil, problem.DeadlineExceeded, "had not switched when the wait ended (phase Blocked: blue has 0 of 4 pods ready); the PoP goes on by itself", time.Minute + 2*time.Second},
		{"expires", func(f *fleet.Fleet) {
			f.LastCutover = &fleet.Cutover{ID: "op-1", To: fleet.Blue, Reason: f.Change.Reason, Outcome: fleet.Expired, Message: "the standby was not ready"}
		}, problem.FailedPrecondition, "left everything as it was: the standby was not ready", time.Second},
		{"is superseded", func(f *fleet.Fleet) {
			f.LastCutover = &fleet.Cutover{ID: "op-1", To: fleet.Blue, Reason: f.Change.Reason, Outcome: fleet.Superseded}
			f.Change = &fleet.Change{ID: "op-2", Principal: "grace", Reason: "no, wait"}
		}, problem.Aborted, `replaced by "op-2" of grace (no, wait)`, time.Second},
		{"is replaced before the controller looked", func(f *fleet.Fleet) {
			f.Generation++
			f.Change, f.Declared = nil, fleet.Green
		}, problem.Aborted, "replaced by a writer that gave no id", time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(steady(1, fleet.Green)...)
				p := n.pops["p0"]
				p.Controller = hold
				if tc.then != nil {
					time.AfterFunc(time.Second, func() { p.Update("edge", tc.then) })
				}
				began := time.Now()
				r, err := n.CutOver(t.Context(), "edge", everywhere, change(fleet.Blue), nil)
				if err != nil {
					t.Fatal(err)
				}
				refused(t, true, r[0].Err, tc.kind, "", tc.says)
				if took := time.Since(began); took != tc.took {
					t.Errorf("took %s; want %s", took, tc.took)
				}
			})
		})
	}
	t.Run("switches late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(steady(1, fleet.Green)...)
			p := n.pops["p0"]
			p.Controller = hold
			time.AfterFunc(30*time.Second, func() { p.Update("edge", func(f *fleet.Fleet) { fake.Switch(f, time.Now()) }) })
			r, err := n.CutOver(t.Context(), "edge", everywhere, change(fleet.Blue), nil)
			if err != nil || r[0].Err != nil || r[0].Cutover.SwitchedAt.IsZero() {
				t.Errorf("%+v, %v", r[0], err)
			}
		})
	})
	t.Run("is served without a record", func(t *testing.T) {
		n := newNetwork(steady(1, fleet.Green)...)
		p := n.pops["p0"]
		p.Update("edge", func(f *fleet.Fleet) { f.Declared = fleet.Blue }) // declared and held back before
		p.Controller = func(f *fleet.Fleet) { f.ObservedGeneration, f.Phase, f.Active = f.Generation, fleet.Steady, fleet.Blue }
		r, err := n.CutOver(t.Context(), "edge", everywhere, change(fleet.Blue), nil)
		if err != nil || r[0].Err != nil {
			t.Errorf("%+v, %v", r[0], err)
		}
	})
}

func TestPlan(t *testing.T) {
	clusters := append(steady(2, fleet.Green), fake.New(), fake.New(fake.Steady("edge", fleet.Green)))
	clusters[3].Before = func(context.Context, string) error { return problem.Unavailablef("connection refused") }
	n := newNetwork(clusters...)
	to, plans, err := n.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere})
	if err != nil || to != fleet.Blue || len(plans) != 4 {
		t.Fatalf("%q, %d plans, %v", to, len(plans), err)
	}
	if p := plans[1]; p.Pop != "p1" || p.From != fleet.Green || p.To != fleet.Blue || p.Version != "v1" || p.Err != nil {
		t.Errorf("%+v", p)
	}
	if k := problem.KindOf(plans[2].Err); k != problem.NotFound || plans[2].Pop != "p2" {
		t.Errorf("a PoP without the fleet: %+v", plans[2])
	}
	if k := problem.KindOf(plans[3].Err); k != problem.Unavailable {
		t.Errorf("an unreachable PoP: %+v", plans[3])
	}

	_, _, err = n.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere, Version: "v9"})
	refused(t, true, err, problem.NotFound, "version", `no PoP in scope has version "v9" in either colour; there is v1, v2`)
	_, plans, err = n.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere, Version: "v2"})
	if err != nil || len(plans[0].Blockers) != 1 {
		t.Errorf("a version of the other colour: %+v, %v", plans, err)
	}
	_, _, err = n.Plan(t.Context(), fleet.PlanRequest{Fleet: "api", Scope: fleet.Scope{Pops: []string{"p0", "p1"}}, To: fleet.Blue})
	refused(t, true, err, problem.NotFound, "fleet", `no PoP in scope has a fleet "api"`)

	n.pops["p0"].Update("edge", func(f *fleet.Fleet) { *f = serves(fleet.Blue, fleet.Green); f.Name = "edge" })
	n.pops["p1"].Update("edge", func(f *fleet.Fleet) { *f = serves(fleet.Green, fleet.Blue); f.Name = "edge" })
	_, _, err = n.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere})
	refused(t, true, err, problem.FailedPrecondition, "to", "the fleet is mixed: 1 serves blue, 1 green; say which with --to")
	for _, p := range n.pops {
		if p.Writes() != 0 {
			t.Error("a plan changed something")
		}
	}
}

// Two people on call roll the same incident back, one after the other.
func TestRollbackOfARollback(t *testing.T) {
	n := newNetwork(steady(3, fleet.Green)...)
	plan := func() (fleet.Colour, error) {
		to, _, err := n.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere})
		return to, err
	}
	cut := func(to fleet.Colour, id string, rollback bool, want int) {
		t.Helper()
		c := change(to)
		c.ID, c.Rollback = id, rollback
		results, err := n.CutOver(t.Context(), "edge", everywhere, c, nil)
		if err != nil {
			t.Fatal(err)
		}
		switched := 0
		for _, r := range results {
			if r.Err == nil && !r.Already {
				switched++
			}
		}
		if switched != want {
			t.Errorf("%s: %d PoPs switched; want %d", id, switched, want)
		}
	}
	away := n.pops["p1"]
	away.Before = func(context.Context, string) error { return problem.Unavailablef("connection refused") }
	cut(fleet.Blue, "back", true, 2)
	if to, err := plan(); to != fleet.Blue {
		t.Errorf("while one PoP is away: %q, %v", to, err)
	}
	away.Before = nil
	if to, err := plan(); to != fleet.Blue {
		t.Errorf("to take along the one that did not follow: %q, %v", to, err)
	}
	cut(fleet.Blue, "back again", true, 1)
	_, err := plan()
	refused(t, true, err, problem.FailedPrecondition, "to", "there is nothing to roll back: every PoP in scope serves blue (v1); ")
	cut(fleet.Green, "forward", false, 3)
	if to, err := plan(); to != fleet.Blue {
		t.Errorf("after a release: %q, %v", to, err)
	}
}

func TestForceSelector(t *testing.T) {
	n := newNetwork(steady(2, fleet.Green)...)
	n.pops["p0"].Controller = func(*fleet.Fleet) {} // dead
	r, err := n.ForceSelector(t.Context(), "edge", everywhere, change(fleet.Blue), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range r {
		if r.Err != nil || r.Cutover == nil || r.Cutover.From != fleet.Green || r.Cutover.SwitchedAt.IsZero() || r.Fleet.Active != fleet.Blue {
			t.Errorf("%+v", r)
		}
	}
	again := change(fleet.Blue)
	again.ID = "op-2"
	r, err = n.ForceSelector(t.Context(), "edge", everywhere, again, nil)
	if err != nil || !r[0].Already {
		t.Errorf("again: %+v, %v", r[0], err)
	}
}

func TestFreeze(t *testing.T) {
	n := newNetwork(append(steady(1, fleet.Blue), fake.New())...)
	f := fleet.Freeze{ID: "f1", Reason: "the election", Principal: "ada", Until: time.Now().Add(time.Hour)}
	r, err := n.Freeze(t.Context(), "edge", everywhere, f)
	if err != nil || r[0].Err != nil || len(r[0].Fleets) != 1 || len(r[0].Fleets[0].Freezes) != 1 || r[0].Fleets[0].Pop != "p0" {
		t.Fatalf("%+v, %v", r, err)
	}
	if problem.KindOf(r[1].Err) != problem.NotFound {
		t.Errorf("%+v", r[1])
	}
	r, err = n.Unfreeze(t.Context(), "edge", everywhere, fleet.Unfreeze{ID: "u1", Reason: "it is over"})
	if err != nil || r[0].Err != nil || len(r[0].Fleets[0].Freezes) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, tc := range []struct {
		alter func(*fleet.Freeze)
		field string
	}{
		{func(f *fleet.Freeze) { f.Reason = "" }, "reason"},
		{func(f *fleet.Freeze) { f.ID = "" }, "idempotency_key"},
		{func(f *fleet.Freeze) { f.Until = time.Now().Add(-time.Second) }, "until"},
		{func(f *fleet.Freeze) { f.Until = time.Now().Add(91 * 24 * time.Hour) }, "until"},
	} {
		bad := f
		tc.alter(&bad)
		_, err := n.Freeze(t.Context(), "edge", everywhere, bad)
		refused(t, true, err, problem.Invalid, tc.field, "")
	}
}

func TestWatch(t *testing.T) {
	n := newNetwork(append(steady(2, fleet.Green), fake.New())...)
	n.pops["p1"].Fail(problem.Unavailablef("connection refused"))
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan fleet.WatchEvent)
	ended := make(chan error, 1)
	go func() {
		ended <- n.Watch(ctx, "", everywhere, func(e fleet.WatchEvent) error {
			events <- e
			return nil
		})
	}()
	next := func(want string) {
		t.Helper()
		e := <-events
		got := e.Pop + " " + e.Name
		switch {
		case e.Err != nil:
			got += ": " + e.Err.Error()
		case e.Deleted:
			got += " deleted"
		default:
			got += " " + string(e.Fleet.Active)
			if e.Fleet.Pop != e.Pop {
				t.Errorf("the fleet of %s says %q", e.Pop, e.Fleet.Pop)
			}
		}
		if got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
	first := map[string]bool{}
	for range 2 {
		first[(<-events).Pop] = true
	}
	if !first["p0"] || !first["p1"] {
		t.Errorf("first came %v", first)
	}
	n.pops["p1"].Fail(nil)
	next("p1 edge green")
	n.pops["p2"].Update("api", func(f *fleet.Fleet) { *f = fake.Steady("api", fleet.Blue) })
	next("p2 api blue")
	n.pops["p2"].Update("api", nil)
	next("p2 api deleted")

	// A registry without p0: its fleet is gone for the reader, and the others are watched on.
	r := *n.Registry()
	r.Pops = r.Pops[1:]
	n.Reload(&r)
	next("p0 edge deleted")
	n.pops["p0"].Update("edge", func(f *fleet.Fleet) { f.Active = fleet.Blue })
	n.pops["p1"].Update("edge", func(f *fleet.Fleet) { f.Active = fleet.Blue })
	next("p1 edge blue")

	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if err := n.Watch(t.Context(), "", fleet.Scope{}, nil); problem.KindOf(err) != problem.Invalid {
		t.Errorf("an empty scope: %v", err)
	}
}

// A reader that is slow gets the last state of each fleet and not all of them, and what waits for it does not grow.
func TestWatchCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(steady(3, fleet.Green)...)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		read := make(chan struct{})
		var got []fleet.WatchEvent
		go func() {
			_ = n.Watch(ctx, "edge", everywhere, func(e fleet.WatchEvent) error {
				got = append(got, e)
				<-read
				return nil
			})
		}()
		synctest.Wait()
		for i := range 1000 {
			for _, p := range n.pops {
				p.Update("edge", func(f *fleet.Fleet) { f.Generation = int64(i) })
			}
			synctest.Wait()
		}
		close(read)
		synctest.Wait()
		last := map[string]int64{}
		for _, e := range got {
			last[e.Pop] = e.Fleet.Generation
		}
		if len(got) > 6 || last["p0"] != 999 || last["p1"] != 999 || last["p2"] != 999 {
			t.Errorf("%d events, the last of %v", len(got), last)
		}
	})
}
