package llmmock

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"edgehold.internal/libs/problem"
)

const sec = time.Second

// line is what happens to a request each second.
func line(c *clock, m *Mock, seconds int, q func() *Request) string {
	var got []string
	for range seconds {
		r := q()
		r.At = c.now()
		x := m.Decide(r)
		s := failureOf(x)
		if s == "ok" && x.Schedule.First != 100*ms {
			s = x.Schedule.First.String()
		}
		got = append(got, s)
		m.Done(x)
		c.pass(sec)
	}
	return strings.Join(got, " ")
}

func TestTimeline(t *testing.T) {
	plain := func() *Request { return asked("x") }
	bedrock := func() *Request {
		q := asked("x")
		q.Vendor, q.Region = Bedrock, "eu-west-1"
		return q
	}
	claude := func() *Request { q := asked("x"); q.Vendor = Anthropic; return q }
	for _, tc := range []struct {
		name     string
		timeline []Phase
		q        func() *Request
		want     string
	}{
		{"nothing", nil, plain, "ok ok ok ok ok ok ok ok"},
		{"an outage window", []Phase{{Name: "p", Kind: Outage, At: 2 * sec, For: 3 * sec}}, plain, "ok ok 503 503 503 ok ok ok"},
		{"without an end", []Phase{{Name: "p", Kind: Outage, At: 6 * sec}}, plain, "ok ok ok ok ok ok 503 503"},
		{"flapping", []Phase{{Name: "p", Kind: Outage, At: sec, For: 2 * sec, Every: 3 * sec}}, plain, "ok 503 503 ok 503 503 ok 503"},
		{"in Anthropic's words", []Phase{{Name: "p", Kind: Outage, For: sec}}, claude, "529 ok ok ok ok ok ok ok"},
		{"in one's own words", []Phase{{Name: "p", Kind: Outage, For: sec, Failure: Failure{Status: 500}}}, claude, "500 ok ok ok ok ok ok ok"},
		{"quota", []Phase{{Name: "p", Kind: Quota, At: sec, For: sec}}, plain, "ok 429 ok ok ok ok ok ok"},
		{"dark", []Phase{{Name: "p", Kind: Dark, At: sec, For: sec}}, plain, "ok reset_before ok ok ok ok ok ok"},
		{"a brownout slows", []Phase{{Name: "p", Kind: Brownout, At: sec, For: 2 * sec, Slow: 4}}, plain, "ok 400ms 400ms ok ok ok ok ok"},
		{"and fails", []Phase{{Name: "p", Kind: Brownout, At: sec, For: 2 * sec, Slow: 4, Share: 1}}, plain, "ok 503 503 ok ok ok ok ok"},
		{"two brownouts multiply", []Phase{{Name: "p", Kind: Brownout, For: 2 * sec, Slow: 4}, {Name: "q", Kind: Brownout, At: sec, For: 2 * sec, Slow: 2}}, plain, "400ms 800ms 200ms ok ok ok ok ok"},
		{"a region", []Phase{{Name: "p", Kind: Outage, For: sec, Regions: []string{"eu-*"}}}, bedrock, "503 ok ok ok ok ok ok ok"},
		{"another region", []Phase{{Name: "p", Kind: Outage, For: sec, Regions: []string{"us-*"}}}, bedrock, "ok ok ok ok ok ok ok ok"},
		{"a region, and none is named", []Phase{{Name: "p", Kind: Outage, For: sec, Regions: []string{"us-*"}}}, plain, "ok ok ok ok ok ok ok ok"},
		{"another vendor", []Phase{{Name: "p", Kind: Outage, Match: Match{Vendors: []Vendor{Gemini, Anthropic}}}}, plain, "ok ok ok ok ok ok ok ok"},
		{"several vendors", []Phase{{Name: "p", Kind: Outage, Match: Match{Vendors: []Vendor{OpenAI, Bedrock}}, For: sec}}, bedrock, "503 ok ok ok ok ok ok ok"},
		{"the first of two", []Phase{{Name: "p", Kind: Quota, For: 2 * sec}, {Name: "q", Kind: Outage, For: 3 * sec}}, plain, "429 429 503 ok ok ok ok ok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClock()
			m := mustMock(t, c, Scenario{Name: DefaultScenario, Timeline: tc.timeline, Latency: Latency{FirstToken: Constant(100 * ms)}})
			if got := line(c, m, 8, tc.q); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestShareOfAPhase(t *testing.T) {
	c := newClock()
	phase := Phase{Name: "p", Kind: Outage, Share: .25}
	one, other := mustMock(t, c, Scenario{Name: "a", Seed: 3, Timeline: []Phase{phase}, Match: Match{Keys: []string{"*"}}}), mustMock(t, c, Scenario{Name: "a", Seed: 3, Timeline: []Phase{phase}, Match: Match{Keys: []string{"*"}}})
	hit := 0
	for i := range 8000 {
		x, y := one.Decide(asked(fmt.Sprint(i))), other.Decide(asked(fmt.Sprint(i)))
		if failureOf(x) != failureOf(y) {
			t.Fatal("two mocks of one seed hit different requests")
		}
		if x.Failure != nil {
			hit++
		}
	}
	if hit < 1850 || hit > 2150 {
		t.Errorf("%d of 8,000 were hit; want a quarter", hit)
	}
}

func TestPhasesAtRunTime(t *testing.T) {
	c := newClock()
	m := mustMock(t, c,
		Scenario{Name: "a", Latency: Latency{FirstToken: Constant(100 * ms)}, Timeline: []Phase{{Name: "later", Kind: Quota, At: time.Hour, For: 2 * sec}, {Name: "flap", Kind: Outage, At: 100 * sec, For: 2 * sec, Every: 4 * sec}}},
		Scenario{Name: "b", Latency: Latency{FirstToken: Constant(100 * ms)}},
	)
	of := func(name string) func() *Request {
		return func() *Request { q := asked("x"); q.Scenario = name; return q }
	}
	expect := func(what, name string, seconds int, want string) {
		t.Helper()
		if got := line(c, m, seconds, of(name)); got != want {
			t.Errorf("%s: got %s; want %s", what, got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	refused := func(err error, kind problem.Kind, says string) {
		t.Helper()
		if problem.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v; want %s: %s", err, kind, says)
		}
	}
	expect("before", "a", 1, "ok")
	do(m.StartPhase("a", Phase{Name: "later"}))
	expect("a phase of the timeline by name", "a", 3, "429 429 ok")
	expect("in the other scenario", "b", 1, "ok")

	everywhere := Phase{Name: "down", Kind: Dark}
	do(m.StartPhase("", everywhere))
	do(m.StartPhase("", everywhere))
	expect("everywhere", "a", 1, "reset_before")
	expect("everywhere", "b", 1, "reset_before")
	refused(m.StartPhase("", Phase{Name: "down", Kind: Outage}), problem.AlreadyExists, "end it first")
	do(m.EndPhase("", "down"))
	refused(m.EndPhase("b", "down"), problem.NotFound, "in scenario b")
	expect("ended", "b", 1, "ok")
}

func TestPhasesAtRunTimeRefused(t *testing.T) {
	c := newClock()
	m := mustMock(t, c, Scenario{Name: "a", Timeline: []Phase{{Name: "flap", Kind: Outage, At: 10 * sec, For: 2 * sec, Every: 4 * sec}}})
	for _, tc := range []struct {
		err  error
		kind problem.Kind
		says string
	}{
		{m.StartPhase("c", Phase{Name: "x", Kind: Dark}), problem.NotFound, `no scenario "c"; there is a, default`},
		{m.StartPhase("a", Phase{Name: "x"}), problem.NotFound, `no timeline in scenario a has a phase "x"; there is flap`},
		{m.StartPhase("default", Phase{Name: "x"}), problem.NotFound, `no timeline in scenario default has phases; say what kind "x" is`},
		{m.StartPhase("a", Phase{Name: "x", Kind: "y"}), problem.Invalid, `kind: "y" is not known`},
		{m.StartPhase("a", Phase{Kind: Dark}), problem.Invalid, "name: has 0 bytes"},
		{m.EndPhase("a", "x"), problem.NotFound, `no phase "x" was started in scenario a`},
		{m.EndPhase("c", "x"), problem.NotFound, "scenario"},
	} {
		if problem.KindOf(tc.err) != tc.kind || !strings.Contains(tc.err.Error(), tc.says) {
			t.Errorf("got %v; want %s: %s", tc.err, tc.kind, tc.says)
		}
	}
	for i := range MaxPhases {
		if err := m.StartPhase("a", Phase{Name: fmt.Sprint(i), Kind: Brownout, Slow: 2, For: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.StartPhase("a", Phase{Name: "more", Kind: Dark}); problem.KindOf(err) != problem.ResourceExhausted {
		t.Errorf("%v", err)
	}
	c.pass(time.Minute)
	if err := m.StartPhase("a", Phase{Name: "more", Kind: Dark}); err != nil {
		t.Errorf("those that are over count: %v", err)
	}
}

func TestEndingAWindow(t *testing.T) {
	c := newClock()
	m := mustMock(t, c, Scenario{Name: "a", Match: Match{Models: []string{"*"}}, Latency: Latency{FirstToken: Constant(100 * ms)},
		Timeline: []Phase{{Name: "flap", Kind: Outage, At: sec, For: 3 * sec, Every: 5 * sec}}})
	plain := func() *Request { return asked("x") }
	if got := line(c, m, 2, plain); got != "ok 503" {
		t.Fatal(got)
	}
	for range 2 { // again is no error
		if err := m.EndPhase("", "flap"); err != nil {
			t.Fatal(err)
		}
	}
	// This window is over early, and the next one comes.
	if got, want := line(c, m, 9, plain), "ok ok ok ok 503 503 503 ok ok"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPhaseStatus(t *testing.T) {
	c := newClock()
	began := c.now()
	m := mustMock(t, c, Scenario{Name: "a", Timeline: []Phase{{Name: "flap", Kind: Outage, At: 10 * sec, For: 2 * sec, Every: 4 * sec}}})
	status := func(i int) PhaseStatus { return m.Phases()[i] }
	if s := status(0); s.Active || !s.Began.IsZero() || !s.Next.Equal(began.Add(10*sec)) || s.Scenario != "a" || s.Started {
		t.Errorf("before: %+v", s)
	}
	c.pass(15 * sec)
	if s := status(0); !s.Active || !s.Began.Equal(began.Add(14*sec)) || !s.Ends.Equal(began.Add(16*sec)) || !s.Next.Equal(began.Add(18*sec)) {
		t.Errorf("in the second window: %+v", s)
	}
	if err := m.EndPhase("a", "flap"); err != nil || status(0).Active {
		t.Errorf("ended: %+v, %v", status(0), err)
	}
	if err := m.StartPhase("", Phase{Name: "now", Kind: Dark, For: sec}); err != nil {
		t.Fatal(err)
	}
	if s := status(0); !s.Active || !s.Started || s.Scenario != "" || !s.Ends.Equal(began.Add(16*sec)) || !s.Next.IsZero() {
		t.Errorf("started: %+v", s)
	}
	c.pass(sec)
	if s := status(0); s.Active {
		t.Errorf("over: %+v", s)
	}
	if err := m.EndPhase("", "now"); err != nil {
		t.Errorf("to end what is over is an error: %v", err)
	}
	if len(m.Phases()) != 1 {
		t.Errorf("%d phases", len(m.Phases()))
	}
}

func TestReasonsAndStatuses(t *testing.T) {
	for _, r := range reasons {
		status := StatusOf(r, Anthropic)
		if status < 400 || status > 599 {
			t.Errorf("%s has status %d", r, status)
		}
		if back := ReasonOf(status); back != r && r != QuotaExhausted {
			t.Errorf("%s has status %d, which is %s", r, status, back)
		}
	}
	if ReasonOf(418) != BadRequest || ReasonOf(599) != Broken || StatusOf(Overloaded, OpenAI) != 503 || ReasonOf(408) != TimedOut {
		t.Error("the rest")
	}
}
