package llmmock

import (
	"fmt"
	"strings"
	"testing"

	"edgehold.internal/libs/problem"
)

// rehearsing is a mock with drills, on a clock of its own.
type rehearsing struct {
	*testing.T
	clock  *clock
	mock   *Mock
	drills *Drills
}

func newRehearsing(t *testing.T, scenarios ...Scenario) *rehearsing {
	c := newClock()
	m := mustMock(t, c, scenarios...)
	return &rehearsing{t, c, m, NewDrills(m)}
}

// ask is a request of some vendor that ends 10 ms later as the mock decides.
func (r *rehearsing) ask(v Vendor, text string) int {
	q := asked(text)
	q.Vendor, q.Hash, q.At = v, HashOf("POST", string(v), []byte(text)), r.clock.now()
	x := r.mock.Decide(q)
	status := 200
	if x.Failure != nil {
		status = x.Failure.Status
	}
	r.drills.Observe(Event{Kind: Arrived, At: r.clock.now(), Exchange: x})
	r.clock.pass(10 * ms)
	r.drills.Observe(Event{Kind: Answered, At: r.clock.now(), Exchange: x, Status: status})
	r.drills.Observe(Event{Kind: Ended, At: r.clock.now(), Exchange: x, Status: status, End: Complete, Tokens: 100})
	r.mock.Done(x)
	return status
}

func (r *rehearsing) start(name string, p Phase) DrillStatus {
	r.Helper()
	st, err := r.drills.Start(DrillConfig{Name: name, Phase: p}, "olga", "rehearsal")
	if err != nil {
		r.Fatal(err)
	}
	return st
}

func (r *rehearsing) card(name string) (DrillState, string) {
	r.Helper()
	st, c, err := r.drills.Card(name)
	if err != nil {
		r.Fatal(err)
	}
	return st.State, fmt.Sprintf("%d/%d failed %d diverted %d lost %d; felt %s detect %s recover %s return %s", c.Requests, c.Asks, c.Failed, c.Diverted, c.Lost, c.Felt, c.Detect, c.Recover, c.Return)
}

func TestDrill(t *testing.T) {
	r := newRehearsing(t)
	r.ask(OpenAI, "before")
	st := r.start("", Phase{Name: "out", Kind: Outage, Match: Match{Vendors: []Vendor{OpenAI}}, For: 10 * sec})
	if st.Name != "out" || st.State != DrillPhase || st.Principal != "olga" || st.Reason != "rehearsal" || !st.Ended.IsZero() || !st.Began.Equal(r.clock.now()) {
		t.Errorf("%+v", st)
	}
	r.clock.pass(sec)
	if status := r.ask(OpenAI, "a"); status != 503 {
		t.Errorf("status %d; the drill's phase should be in force", status)
	}
	r.ask(Anthropic, "a")
	r.ask(Anthropic, "b")
	if state, card := r.card("out"); state != DrillPhase || card != "3/2 failed 1 diverted 2 lost 0; felt 1.01s detect 1.01s recover 0s return unknown" {
		t.Errorf("%s: %s", state, card)
	}
	r.clock.pass(9 * sec)
	if status := r.ask(OpenAI, "c"); status != 200 {
		t.Errorf("status %d after the phase", status)
	}
	want := "4/3 failed 1 diverted 2 lost 0; felt 1.01s detect 1.01s recover 0s return 40ms"
	if state, card := r.card("out"); state != DrillRecovery || card != want {
		t.Errorf("%s: %s, want %s", state, card, want)
	}

	// It is followed for a while, and then no longer.
	r.clock.pass(FollowedAfter)
	r.ask(OpenAI, "much later")
	if state, card := r.card("out"); state != DrillClosed || card != want {
		t.Errorf("%s: %s, want %s", state, card, want)
	}
	if r.drills.followed.Load() != nil {
		t.Error("a drill that is closed still costs every request")
	}
}

func TestDrillEndsEarly(t *testing.T) {
	r := newRehearsing(t, Scenario{Name: DefaultScenario, Timeline: []Phase{{Name: "declared", Kind: Quota, At: 1000 * sec, For: sec}}})
	r.start("d", Phase{Name: "declared"})
	if status := r.ask(OpenAI, "a"); status != 429 {
		t.Errorf("status %d in a declared phase", status)
	}
	st, err := r.drills.End("d", false)
	if err != nil || st.State != DrillRecovery || !st.Ended.Equal(r.clock.now()) || st.Phase.Kind != Quota {
		t.Errorf("%+v, %v", st, err)
	}
	if status := r.ask(OpenAI, "a"); status != 200 {
		t.Errorf("status %d after its end", status)
	}
	// Again is no error, and does not move the end.
	r.clock.pass(sec)
	if again, err := r.drills.End("d", true); err != nil || !again.Ended.Equal(st.Ended) || again.State != DrillClosed {
		t.Errorf("%+v, %v", again, err)
	}
	_, card := r.card("d")
	r.ask(OpenAI, "a")
	if _, after := r.card("d"); after != card || !strings.Contains(card, "return 10ms") {
		t.Errorf("the card of a closed drill went on from\n%s\nto\n%s", card, after)
	}

	// Who ends the phase by itself ends it for the drill too.
	r.start("e", Phase{Name: "p", Kind: Dark})
	if err := r.drills.EndPhase("", "p"); err != nil {
		t.Fatal(err)
	}
	if state, _ := r.card("e"); state != DrillRecovery {
		t.Errorf("state %s after its phase was ended", state)
	}
	// Its phase is gone with its scenario, and the drill can be ended all the same.
	l := NewLibrary(r.mock)
	if _, err := l.Put([]Sourced{from(FromAPI, "", "s", 1)}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.drills.Start(DrillConfig{Name: "f", Scenario: "s", Phase: Phase{Name: "q", Kind: Dark}}, "", ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete("s"); err != nil {
		t.Fatal(err)
	}
	if st, err := r.drills.End("f", false); err != nil || st.State != DrillRecovery {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestDrillRefusals(t *testing.T) {
	r := newRehearsing(t)
	r.start("d", Phase{Name: "p", Kind: Outage})
	try := func(c DrillConfig) error { return second(r.drills.Start(c, "", "")) }
	for _, tc := range []struct {
		err  error
		kind problem.Kind
		says string
	}{
		{try(DrillConfig{Name: "d", Phase: Phase{Name: "q", Kind: Dark}}), problem.AlreadyExists, `name: a drill "d" is followed since`},
		{try(DrillConfig{Name: "e", Phase: Phase{Name: "p", Kind: Dark}}), problem.AlreadyExists, `phase.name: a phase "p" with other terms`},
		{try(DrillConfig{Name: "e", Scenario: "nope", Phase: Phase{Name: "q", Kind: Dark}}), problem.NotFound, `scenario: there is no scenario "nope"`},
		{try(DrillConfig{Name: "e", Phase: Phase{Name: "q"}}), problem.NotFound, "phase.name: no timeline has phases"},
		{try(DrillConfig{Name: "e", Phase: Phase{Name: "q", Kind: "x"}}), problem.Invalid, `phase.kind: "x" is not known`},
		{try(DrillConfig{Name: "e", Phase: Phase{Name: "q", Kind: Dark}, Patience: -1}), problem.Invalid, "patience"},
		{second(r.drills.End("nope", false)), problem.NotFound, `name: there is no drill "nope"`},
		{r.drills.EndPhase("", "nope"), problem.NotFound, "nope"},
	} {
		if problem.KindOf(tc.err) != tc.kind || !strings.Contains(fmt.Sprint(tc.err), tc.says) {
			t.Errorf("got %v: %v\nwant %v: …%s…", problem.KindOf(tc.err), tc.err, tc.kind, tc.says)
		}
	}
	// What was refused left nothing behind.
	if list := r.drills.List(); len(list) != 1 || len(r.mock.Phases()) != 1 || len(*r.drills.followed.Load()) != 1 {
		t.Errorf("%d drills, %d phases", len(list), len(r.mock.Phases()))
	}
}

func TestDrillsAreBounded(t *testing.T) {
	r := newRehearsing(t)
	for i := range RememberedDrills + 5 {
		name := fmt.Sprint("d", i)
		r.start(name, Phase{Name: name, Kind: Brownout, Slow: 2})
		if i < RememberedDrills {
			if _, err := r.drills.End(name, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	list := r.drills.List()
	if len(list) != RememberedDrills || list[0].Name != fmt.Sprint("d", RememberedDrills+4) || list[len(list)-1].Name != "d5" {
		t.Errorf("%d drills from %s to %s", len(list), list[len(list)-1].Name, list[0].Name)
	}
	for i := range MaxDrills - 5 {
		r.start(fmt.Sprint("e", i), Phase{Name: fmt.Sprint("e", i), Kind: Brownout, Slow: 2})
	}
	if _, err := r.drills.Start(DrillConfig{Phase: Phase{Name: "more", Kind: Dark}}, "", ""); problem.KindOf(err) != problem.ResourceExhausted {
		t.Errorf("one drill too many: %v", err)
	}
	// The name of one that is closed is free again.
	if _, err := r.drills.End("e0", true); err != nil {
		t.Fatal(err)
	}
	r.start("e0", Phase{Name: "e0", Kind: Brownout, Slow: 3})
	if st, _, err := r.drills.Card("e0"); err != nil || st.State != DrillPhase || st.Phase.Slow != 3 {
		t.Errorf("%+v, %v", st, err)
	}
}
