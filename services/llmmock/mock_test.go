package llmmock

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// speaker says words that are drawn from the moment, as many as the request allows and at most 40, and counts a token for each.
type speaker struct {
	calls func(s *Scenario, rule *AnswerRule, q *Request, m Moment) (*Answer, *Failure)
}

func (sp speaker) Answer(s *Scenario, rule *AnswerRule, q *Request, m Moment) (*Answer, *Failure) {
	if sp.calls != nil {
		return sp.calls(s, rule, q, m)
	}
	r := m.Random(ForAnswer)
	n := 2 + r.IntN(39)
	if q.MaxTokens > 0 {
		n = min(n, q.MaxTokens)
	}
	a := &Answer{Finish: Stopped, Usage: Usage{Input: len(q.Last()), Output: n}}
	for range n {
		a.Tokens = append(a.Tokens, fmt.Sprintf("w%d ", r.IntN(1000)))
	}
	a.Text = strings.Join(a.Tokens, "")
	return a, nil
}

// clock is set by the test.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func mustMock(t testing.TB, c *clock, scenarios ...Scenario) *Mock {
	t.Helper()
	m, err := NewMock(scenarios, speaker{}, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// asked is a request that says something.
func asked(text string) *Request {
	return &Request{Vendor: OpenAI, Operation: Generate, Method: "POST", Path: "/v1/chat/completions", Model: "m-large", Key: "sk-1", Client: "c", Choices: 1,
		Turns: []Turn{{Role: User, Text: text}}, Hash: HashOf("POST", "/v1/chat/completions", []byte(text))}
}

func failureOf(x *Exchange) string {
	switch {
	case x.Failure != nil:
		return fmt.Sprint(x.Failure.Status)
	case x.Fault.Kind != NoFault:
		return string(x.Fault.Kind)
	}
	return "ok"
}

func TestChoosingAScenario(t *testing.T) {
	c := newClock()
	m := mustMock(t, c,
		Scenario{Name: "slow", Match: Match{Models: []string{"m-slow*"}}},
		Scenario{Name: "never"},
		Scenario{Name: "keyed", Match: Match{Keys: []string{"sk-test*"}, Vendors: []Vendor{OpenAI, Azure}}},
		Scenario{Name: "says", Match: Match{Contains: []string{"please fail", "break"}, Operations: []Operation{Generate}}},
		Scenario{Name: "path", Match: Match{Paths: []string{"/v1/*s"}, Clients: []string{"ci-*-linux"}}},
	)
	for _, tc := range []struct {
		name  string
		alter func(*Request)
		want  string
	}{
		{"nothing matches", func(*Request) {}, DefaultScenario},
		{"by name", func(q *Request) { q.Scenario, q.Model = "never", "m-slow" }, "never"},
		{"the default by name", func(q *Request) { q.Scenario, q.Model = DefaultScenario, "m-slow" }, DefaultScenario},
		{"a model", func(q *Request) { q.Model = "m-slow-2" }, "slow"},
		{"the first of two", func(q *Request) { q.Model, q.Key = "m-slow", "sk-test" }, "slow"},
		{"key and vendor", func(q *Request) { q.Key = "sk-test-7…ab" }, "keyed"},
		{"the key of another vendor", func(q *Request) { q.Key, q.Vendor = "sk-test-7…ab", Gemini }, DefaultScenario},
		{"what is said", func(q *Request) { q.Turns[0].Text = "now break, will you" }, "says"},
		{"what was said before", func(q *Request) {
			q.Turns = append(q.Turns, Turn{Role: User, Text: "thanks"})
			q.Turns[0].Text = "break"
		}, DefaultScenario},
		{"what is said to another operation", func(q *Request) { q.Turns[0].Text, q.Operation = "break", Count }, DefaultScenario},
		{"path and client", func(q *Request) { q.Client = "ci-7-linux" }, "path"},
		{"path and half of the client", func(q *Request) { q.Client = "ci-linux" }, DefaultScenario},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := asked("hello")
			tc.alter(q)
			x := m.Decide(q)
			defer m.Done(x)
			if x.Moment.Scenario != tc.want || x.Failure != nil || m.Scenario(q).Name != tc.want || x.Behaviour().Name != tc.want {
				t.Errorf("scenario %q, failure %v; want %q", x.Moment.Scenario, x.Failure, tc.want)
			}
		})
	}
	q := asked("hello")
	q.Scenario = "nevr"
	if x := m.Decide(q); x.Failure == nil || x.Failure.Status != 400 || !strings.Contains(x.Failure.Message, `no scenario "nevr"`) || x.Answer != nil {
		t.Errorf("an unknown scenario: %+v", x.Failure)
	}
}

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, yes, no string
	}{
		{"gpt-4o", "gpt-4o", "gpt-4o-mini"}, {"gpt-*", "gpt-", "xgpt-4"}, {"*-mini", "a-mini", "a-mini2"}, {"*", "", "\x00never"},
		{"a*b*c", "a-b-b-c", "a-c-b"}, {"a*a", "aa", "a"}, {"*4*", "gpt-4o", "gpt"}, {"a**b", "ab", "a"}, {"ab*bc", "abbc", "abc"},
	} {
		p := newPattern(tc.pattern)
		if !p.match(tc.yes) || p.match(tc.no) && tc.no != "\x00never" {
			t.Errorf("%q: %q is %t, %q is %t", tc.pattern, tc.yes, p.match(tc.yes), tc.no, p.match(tc.no))
		}
	}
}

// A pattern matches as the naive search does that tries everything.
func TestPatternsMatchLikeTheNaiveSearch(t *testing.T) {
	var naive func(p, s string) bool
	naive = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return naive(p[1:], s) || s != "" && naive(p, s[1:])
		}
		return s != "" && s[0] == p[0] && naive(p[1:], s[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern, s := rapid.StringMatching(`[ab*]{1,8}`).Draw(t, "pattern"), rapid.StringMatching(`[ab]{0,12}`).Draw(t, "s")
		if p := newPattern(pattern); p.match(s) != naive(pattern, s) {
			t.Errorf("%q on %q: %t", pattern, s, p.match(s))
		}
	})
}

func TestAnswerRules(t *testing.T) {
	c := newClock()
	var rules []*AnswerRule
	m, err := NewMock([]Scenario{{Name: DefaultScenario, Answers: []AnswerRule{
		{AfterTool: "get_*", Say: "after the tool"},
		{Turn: 2, Say: "second"},
		{Match: Match{Contains: []string{"hello"}}, Say: "greeting"},
		{Match: Match{Models: []string{"fail"}}, Say: "{{"},
		{Say: "anything"},
	}}}, speaker{func(s *Scenario, rule *AnswerRule, q *Request, mo Moment) (*Answer, *Failure) {
		rules = append(rules, rule)
		if q.Model == "fail" {
			return nil, &Failure{Status: 500, Reason: Broken}
		}
		return &Answer{Text: rule.Say, Tokens: []string{rule.Say}, Usage: Usage{Input: 3, Output: 1}}, nil
	}}, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	called := Turn{Role: Assistant, Calls: []Call{{ID: "call_1", Name: "get_weather"}}}
	for _, tc := range []struct {
		name  string
		turns []Turn
		want  string
	}{
		{"a match", []Turn{{Role: User, Text: "well hello"}}, "greeting"},
		{"none but the last", []Turn{{Role: User, Text: "?"}}, "anything"},
		{"the second turn", []Turn{{Role: User, Text: "hello"}, {Role: Assistant, Text: "x"}, {Role: User, Text: "hello"}}, "second"},
		{"after a tool", []Turn{{Role: User, Text: "hello"}, called, {Role: ToolRole, Results: []Result{{CallID: "call_1", Text: "sun"}}}}, "after the tool"},
		{"after another tool", []Turn{called, {Role: ToolRole, Results: []Result{{CallID: "call_2", Text: "sun"}}}}, "anything"},
		{"after a tool of an earlier turn", []Turn{called, {Role: ToolRole, Results: []Result{{CallID: "call_1"}}}, {Role: User, Text: "?"}}, "second"},
		{"no turns", nil, "anything"},
	} {
		q := asked("")
		q.Turns = tc.turns
		if x := m.Decide(q); x.Answer == nil || x.Answer.Text != tc.want {
			t.Errorf("%s: %+v; want %q", tc.name, x.Answer, tc.want)
		}
	}
	q := asked("hello you")
	q.Choices = 3
	if x := m.Decide(q); len(x.More) != 2 || x.Usage() != (Usage{Input: 3, Output: 3}) {
		t.Errorf("three choices: %d more, %+v", len(x.More), x.Usage())
	}
	q = asked("?")
	q.Model, q.Choices = "fail", 2
	if x := m.Decide(q); x.Failure == nil || x.Answer != nil || x.Usage().Total() != 0 {
		t.Errorf("no answer: %+v", x)
	}
	rules = nil
	q = asked("?")
	q.Operation = Other
	if x := m.Decide(q); x.Answer != nil || len(rules) != 0 {
		t.Error("an answer was made for what wants none")
	}
}

func TestFaultsAreDue(t *testing.T) {
	refusal := Fault{Kind: FailStatus, Failure: Failure{Status: 429, RetryAfter: 2 * time.Second}}
	ids := []string{"a", "a", "b", "a", "b", "b", "a"}
	for _, tc := range []struct {
		name string
		rule FaultRule
		want string // for the requests of ids in turn
	}{
		{"the first two of each", FaultRule{When: When{First: 2}}, "429 429 429 ok 429 ok ok"},
		{"the first two of all", FaultRule{When: When{First: 2, Per: PerScenario}}, "429 429 ok ok ok ok ok"},
		{"every second of each", FaultRule{When: When{Every: 2}}, "ok 429 ok ok 429 ok 429"},
		{"every third of all", FaultRule{When: When{Every: 3, Per: PerScenario}}, "ok ok 429 ok ok 429 ok"},
		{"the first of each client", FaultRule{When: When{First: 1, Per: PerClient}}, "429 ok 429 ok ok ok ok"},
		{"the first three of a key", FaultRule{When: When{First: 3, Per: PerKey}}, "429 429 429 ok ok ok ok"},
		{"always", FaultRule{When: When{Always: true}}, "429 429 429 429 429 429 429"},
		{"certainly", FaultRule{When: When{Probability: 1}}, "429 429 429 429 429 429 429"},
		{"always for one client", FaultRule{When: When{Always: true}, Match: Match{Clients: []string{"b"}}}, "ok ok 429 ok 429 429 ok"},
		{"the first of each, of one client", FaultRule{When: When{First: 1}, Match: Match{Clients: []string{"b"}}}, "ok ok 429 ok ok ok ok"},
		{"the first of each, and hardly any other", FaultRule{When: When{First: 1, Probability: 1e-15, Per: PerClient}}, "429 ok 429 ok ok ok ok"},
		{"the first of each, and all others", FaultRule{When: When{First: 1, Probability: 1, Per: PerClient}}, "429 429 429 429 429 429 429"},
		{"the first of each and every third", FaultRule{When: When{First: 1, Every: 3}}, "429 ok 429 429 ok 429 ok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.rule.Fault = refusal
			m := mustMock(t, newClock(), Scenario{Name: DefaultScenario, Faults: []FaultRule{tc.rule}})
			var got []string
			for _, id := range ids {
				q := asked(id)
				q.Client = id
				x := m.Decide(q)
				got = append(got, failureOf(x))
				if x.Failure != nil && (x.Failure.Reason != RateLimited || x.Failure.RetryAfter != 2*time.Second || x.Answer != nil || x.Rule != "status") {
					t.Errorf("%+v, rule %q", x.Failure, x.Rule)
				}
				m.Done(x)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), tc.want)
			}
		})
	}
}

func TestFaultsCountWhateverElseHappens(t *testing.T) {
	c := newClock()
	m := mustMock(t, c, Scenario{Name: DefaultScenario,
		Faults: []FaultRule{
			{Name: "one", When: When{First: 1}, Fault: Fault{Kind: Cut, AtToken: 3}},
			{Name: "two", When: When{First: 2, Per: PerScenario}, Fault: Fault{Kind: FailMidStream, Failure: Failure{Reason: Overloaded}}},
		},
		Timeline: []Phase{{Name: "down", Kind: Outage, For: time.Second}},
	})
	var got []string
	for range 4 {
		x := m.Decide(asked("x"))
		got = append(got, failureOf(x)+"/"+x.Phase+x.Rule)
		c.pass(400 * ms)
	}
	if want := "503/down 503/down 503/down ok/"; strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	// Another request: the first rule holds, and of the second the two have passed.
	if x := m.Decide(asked("y")); x.Rule != "one" || x.Answer == nil {
		t.Errorf("rule %q", x.Rule)
	}
	m = mustMock(t, c, Scenario{Name: DefaultScenario, Faults: []FaultRule{{When: When{Always: true}, Fault: Fault{Kind: FailMidStream, Failure: Failure{Reason: Overloaded}}}}})
	q := asked("x")
	q.Vendor = Anthropic
	if x := m.Decide(q); x.Fault.Failure.Status != 529 || x.Failure != nil || x.Answer == nil {
		t.Errorf("%+v", x.Fault)
	}
}

func TestProbabilityIsWhatItSays(t *testing.T) {
	m := mustMock(t, newClock(), Scenario{Name: DefaultScenario, Seed: 9, Faults: []FaultRule{
		{Name: "a", When: When{Probability: .1}, Fault: Fault{Kind: Cut}},
		{Name: "b", When: When{Probability: .5}, Fault: Fault{Kind: Stall, Wait: ms}},
	}})
	seen := map[string]int{}
	const n = 20_000
	for i := range n {
		x := m.Decide(asked(fmt.Sprint(i % 5000)))
		seen[failureOf(x)]++
		m.Done(x)
	}
	for kind, want := range map[string]float64{"cut": .1, "stall": .45, "ok": .45} {
		if got := float64(seen[kind]) / n; got < want-.015 || got > want+.015 {
			t.Errorf("%s: %.3f; want %.3f", kind, got, want)
		}
	}
}

// full has everything that is a function of the moment alone.
func full(seed uint64) Scenario {
	q, err := NewQuantiles(map[float64]time.Duration{.5: 639 * ms, .95: 1144 * ms, .99: 4517 * ms})
	if err != nil {
		panic(err)
	}
	return Scenario{Name: DefaultScenario, Seed: seed,
		Latency: Latency{FirstToken: q, InterToken: Gamma{20 * ms, 2}, Prefill: time.Microsecond, Total: LogNormal{2 * time.Second, 9 * time.Second}},
		Faults: []FaultRule{
			{Name: "first", Match: Match{Contains: []string{"7"}}, When: When{First: 2}, Fault: Fault{Kind: FailStatus, Failure: Failure{Status: 429}}},
			{Name: "some", When: When{Probability: .2}, Fault: Fault{Kind: Cut, AtToken: 4}},
			{Name: "third", When: When{Every: 3}, Fault: Fault{Kind: Stall, Wait: time.Second}},
		},
		Timeline: []Phase{{Name: "half", Kind: Outage, Share: .3, Match: Match{Models: []string{"m-*"}}}, {Name: "slow", Kind: Brownout, Slow: 1.5}},
	}
}

// outcomeOf is all that a client can see of an exchange.
func outcomeOf(x *Exchange) string {
	text := ""
	if x.Answer != nil {
		text = x.Answer.Text
	}
	for _, a := range x.More {
		text += "|" + a.Text
	}
	failure := "-"
	if x.Failure != nil {
		failure = fmt.Sprintf("%+v", *x.Failure)
	}
	return fmt.Sprintf("%x/%d %s %s rule=%s phase=%s %v failure=%s fault=%+v %q", uint64(x.Moment.Request), x.Occurrence, x.ID, x.Created.Format(time.RFC3339), x.Rule, x.Phase, x.Schedule, failure, x.Fault, text)
}

func TestTheSameRequestsGetTheSameWhateverTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		ids := rapid.SliceOfN(rapid.IntRange(0, 12), 1, 60).Draw(t, "requests")
		run := func(order []int, workers int) []string {
			m, err := NewMock([]Scenario{full(seed)}, speaker{}, Options{Now: newClock().now})
			if err != nil {
				t.Fatal(err)
			}
			work := make(chan int)
			results := make([]string, len(order))
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for i := range work {
						q := asked(fmt.Sprint("ask ", order[i]))
						q.Choices = 1 + order[i]%3
						q.Stream = order[i]%2 == 0
						x := m.Decide(q)
						results[i] = outcomeOf(x)
						m.Done(x)
					}
				})
			}
			for i := range order {
				work <- i
			}
			close(work)
			wg.Wait()
			slices.Sort(results)
			return results
		}
		first := run(ids, 1)
		shuffled := slices.Clone(ids)
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(ids), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for workers := range 3 {
			if got := run(shuffled, 1+3*workers); !reflect.DeepEqual(got, first) {
				t.Fatalf("with %d workers and in another order:\n%s\nwant\n%s", 1+3*workers, strings.Join(got, "\n"), strings.Join(first, "\n"))
			}
		}
		if other := run(ids, 1); !reflect.DeepEqual(other, first) {
			t.Fatal("another mock of the same seed differs")
		}
	})
}

func TestWhatChangesAndWhatDoesNot(t *testing.T) {
	decide := func(s Scenario, q *Request) *Exchange { return mustMock(t, newClock(), s).Decide(q) }
	plain := Scenario{Name: DefaultScenario, Seed: 5, Latency: Latency{FirstToken: LogNormal{100 * ms, 400 * ms}, InterToken: LogNormal{10 * ms, 40 * ms}}}
	base := decide(plain, asked("x"))
	if len(base.Schedule.Gaps) < 1 || len(base.ID) != 32 {
		t.Fatalf("%+v", base.Schedule)
	}
	faulty := plain
	faulty.Faults = []FaultRule{{When: When{Always: true}, Fault: Fault{Kind: Cut}}}
	if x := decide(faulty, asked("x")); !reflect.DeepEqual(x.Schedule, base.Schedule) || x.Answer.Text != base.Answer.Text || x.ID != base.ID {
		t.Error("a scenario that gets a fault gets other latencies or answers")
	}
	gaps := plain
	gaps.Latency.FirstToken = Constant(ms)
	if x := decide(gaps, asked("x")); !reflect.DeepEqual(x.Schedule.Gaps, base.Schedule.Gaps) {
		t.Error("another time to the first token changes the gaps")
	}
	seeded := plain
	seeded.Seed++
	if x := decide(seeded, asked("x")); x.ID == base.ID || x.Schedule.First == base.Schedule.First || x.Answer.Text == base.Answer.Text {
		t.Error("another seed changes nothing")
	}
	m := mustMock(t, newClock(), plain)
	a, b := m.Decide(asked("x")), m.Decide(asked("x"))
	if a.ID != base.ID || b.ID == a.ID || b.Schedule.First == a.Schedule.First || !b.Created.After(a.Created) || b.Occurrence != 1 {
		t.Error("occurrences do not differ as they should")
	}
	q := asked("x")
	q.Run = "another"
	if x := m.Decide(q); x.Occurrence != 0 || x.ID != base.ID {
		t.Errorf("a run begins with occurrence %d", x.Occurrence)
	}
}

func TestReplace(t *testing.T) {
	c := newClock()
	one := Scenario{Name: "one", Faults: []FaultRule{{When: When{First: 2, Per: PerScenario}, Fault: Fault{Kind: Cut}}}, Latency: full(1).Latency, Limits: LimitRule{RequestsPerMinute: 10}}
	two := Scenario{Name: "two", Latency: Latency{Load: Load{Free: 1, Factor: 1}, FirstToken: Constant(ms)}}
	m := mustMock(t, c, one, two)
	named := func(name string) *Request { q := asked("x"); q.Scenario = name; return q }
	old := m.Decide(named("one"))
	under := m.Decide(named("two"))

	c.pass(time.Minute)
	other := one
	other.Description = "changed"
	for _, step := range []struct {
		name       string
		set        []Scenario
		occurrence uint64
		fails      string
	}{
		{"an equal set changes nothing", []Scenario{{Name: "one", Faults: slices.Clone(one.Faults), Latency: full(1).Latency, Limits: one.Limits}, two}, 1, "cut"},
		{"another order changes nothing", []Scenario{two, one}, 2, "ok"},
		{"what changed begins", []Scenario{other, two}, 0, "cut"},
	} {
		if err := m.Replace(step.set); err != nil {
			t.Fatal(step.name, err)
		}
		if x := m.Decide(named("one")); x.Occurrence != step.occurrence || failureOf(x) != step.fails {
			t.Errorf("%s: occurrence %d is %s; want %d and %s", step.name, x.Occurrence, failureOf(x), step.occurrence, step.fails)
		}
	}
	// What is under way belongs to what it began in.
	if old.Behaviour().Description != "" {
		t.Error("the exchange under way has another scenario")
	}
	if x := m.Decide(named("two")); x.Schedule.First != 2*ms {
		t.Errorf("two under way take %s; want 2ms", x.Schedule.First)
	}
	m.Done(under)
	m.Done(under)
	m.Done(old)
	if x := m.Decide(named("two")); x.Schedule.First != 2*ms || m.Scenarios()[1].UnderWay != 2 {
		t.Errorf("one ended and one more: %s, %d under way", x.Schedule.First, m.Scenarios()[1].UnderWay)
	}

	// A set that cannot be changes nothing.
	err := m.Replace([]Scenario{two, {Name: "two"}})
	if problem.KindOf(err) != problem.Invalid || err.Error() != `scenarios[1].name: "two" is the name of a scenario before it too` {
		t.Errorf("%v", err)
	}
	if err := m.Replace([]Scenario{{Name: "new"}, {Name: "bad", Faults: []FaultRule{{When: When{First: 1}}}}}); err == nil || m.Decide(named("new")).Failure == nil {
		t.Errorf("a bad set is in force: %v", err)
	}
	if err := m.Replace(nil); err != nil || m.Decide(asked("x")).Moment.Scenario != DefaultScenario || len(m.Scenarios()) != 1 {
		t.Errorf("without any there is no default: %v", err)
	}
}

// Replacing while requests come: run with -race.
func TestReplaceWhileRequestsCome(t *testing.T) {
	c := newClock()
	a, b := full(1), full(2)
	b.Limits = LimitRule{RequestsPerMinute: 100, TokensPerMinute: 1000, PerModel: true}
	m := mustMock(t, c, a)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 300 {
				q := asked(fmt.Sprint(w, i%10))
				x := m.Decide(q)
				if x.Failure == nil && x.Fault.Kind != ResetBefore && x.Answer == nil {
					t.Error("neither answer nor failure")
				}
				c.pass(ms)
				m.Done(x)
			}
		})
	}
	for i := range 100 {
		set := []Scenario{a}
		if i%2 == 1 {
			set = []Scenario{b}
		}
		if err := m.Replace(set); err != nil {
			t.Error(err)
		}
		if i%7 == 0 {
			_ = m.StartPhase("", Phase{Name: "p", Kind: Quota, For: 50 * ms})
			_ = m.EndPhase(DefaultScenario, "half")
		}
		_ = m.Restart("")
		m.Phases()
	}
	wg.Wait()
}

func TestRestart(t *testing.T) {
	c := newClock()
	m := mustMock(t, c, Scenario{Name: "a", Timeline: []Phase{{Name: "down", Kind: Outage, For: time.Minute}}, Limits: LimitRule{RequestsPerMinute: 2}})
	ask := func() string { q := asked("x"); q.Scenario = "a"; return failureOf(m.Decide(q)) }
	if got := ask(); got != "503" {
		t.Fatal(got)
	}
	if err := m.EndPhase("a", "down"); err != nil || ask() != "ok" || ask() != "ok" || ask() != "429" {
		t.Fatal(err)
	}
	if err := m.Restart("a"); err != nil || ask() != "503" {
		t.Error("the timeline did not begin anew", err)
	}
	c.pass(time.Minute)
	if got := ask(); got != "ok" {
		t.Errorf("the buckets did not begin anew: %s", got)
	}
	if err := m.Restart("b"); problem.KindOf(err) != problem.NotFound || !strings.Contains(err.Error(), `no scenario "b"; there is a, default`) {
		t.Error(err)
	}
}

func TestOccurrencesAreBounded(t *testing.T) {
	const remember = 1000
	n := newCounts(remember)
	for i := range uint64(remember) {
		n.next(i)
	}
	for i := range uint64(remember) {
		if got := n.next(i); got != 1 {
			t.Fatalf("%d of %d was forgotten", i, remember)
		}
	}
	// Ten times as many: the first are forgotten, the last and what was used all the time are not.
	for i := range uint64(10 * remember) {
		n.next(1<<40 + i)
		n.next(7)
	}
	held := 0
	for i := range n.shards {
		held += len(n.shards[i].young) + len(n.shards[i].old)
	}
	if held > 9*remember/4+2*64*32 {
		t.Errorf("%d are kept", held)
	}
	if got := n.next(7); got != 10*remember+2 {
		t.Errorf("what is used all the time was forgotten: %d", got)
	}
	if n.next(3) != 0 || n.next(1<<40+10*remember-1) != 1 || n.lost() < 4*remember {
		t.Errorf("the oldest is remembered, or the newest is not; %d lost", n.lost())
	}
}

func TestOccurrencesUnderConcurrency(t *testing.T) {
	n := newCounts(100)
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				o := n.next(1)
				mu.Lock()
				if seen[o] {
					t.Errorf("%d twice", o)
				}
				seen[o] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 4000 || !seen[0] || !seen[3999] {
		t.Errorf("%d numbers", len(seen))
	}
}

func TestScenariosThatCannotBe(t *testing.T) {
	fault := func(r FaultRule) Scenario {
		return Scenario{Name: "s", Faults: []FaultRule{{When: When{First: 1}, Fault: Fault{Kind: Cut}}, r}}
	}
	phase := func(p Phase) Scenario { return Scenario{Name: "s", Timeline: []Phase{p}} }
	cutting := Fault{Kind: Cut}
	for _, tc := range []struct {
		s    Scenario
		says string
	}{
		{Scenario{}, `name: "" is not allowed`},
		{Scenario{Name: "a\nb"}, "name: "},
		{Scenario{Name: "s", Match: Match{Vendors: []Vendor{"acme"}}}, `match.vendors[0]: "acme" is not known; use openai, azure, anthropic, gemini, bedrock`},
		{Scenario{Name: "s", Match: Match{Models: []string{"a", ""}}}, "match.models[1]: "},
		{Scenario{Name: "s", Match: Match{Operations: []Operation{"x"}}}, "match.operations[0]: "},
		{Scenario{Name: "s", Match: Match{Contains: make([]string, MaxPatterns+1)}}, "match.contains: 1001 are too many"},
		{Scenario{Name: "s", Faults: make([]FaultRule, MaxRules+1)}, "faults: 1001 are too many"},
		{Scenario{Name: "s", Answers: []AnswerRule{{Say: "a", Echo: true}}}, "answers[0]: 2 answers are given at once"},
		{Scenario{Name: "s", Answers: []AnswerRule{{Say: "a"}, {Turn: -1}}}, "answers[1].turn: -1"},
		{Scenario{Name: "s", Answers: []AnswerRule{{Finish: "x"}}}, `answers[0].finish: "x" is not known; use stop, length`},
		{Scenario{Name: "s", Answers: []AnswerRule{{Lorem: -1}}}, "answers[0].lorem"},
		{Scenario{Name: "s", Answers: []AnswerRule{{Cached: -1}}}, "answers[0].cached"},
		{Scenario{Name: "s", Answers: []AnswerRule{{Calls: []ToolScript{{}}}}}, "answers[0].calls[0].name"},
		{Scenario{Name: "s", Latency: Latency{FirstToken: Gamma{ms, -1}}}, "latency.firstToken.shape: -1 is not allowed"},
		{Scenario{Name: "s", Latency: Latency{FirstToken: new(Quantiles)}}, "latency.firstToken: is no table"},
		{Scenario{Name: "s", Latency: Latency{InterToken: (*Trace)(nil)}}, "latency.interToken: is no trace"},
		{Scenario{Name: "s", Latency: Latency{Total: Constant(-1)}}, "latency.total: -1ns"},
		{Scenario{Name: "s", Latency: Latency{Prefill: -1}}, "latency.prefill: "},
		{Scenario{Name: "s", Latency: Latency{Load: Load{Factor: 1}}}, "latency.load.free: 0 is not allowed"},
		{Scenario{Name: "s", Latency: Latency{Load: Load{Free: 1, Factor: -1}}}, "latency.load.factor: -1"},
		{Scenario{Name: "s", Latency: Latency{Shape: []Point{{At: 2}, {At: 1}}}}, "latency.shape[1].at: 1ns is not allowed"},
		{Scenario{Name: "s", Limits: LimitRule{RequestsPerMinute: -1}}, "limits.requestsPerMinute: -1 is not allowed"},
		{Scenario{Name: "s", Limits: LimitRule{BurstTokens: 5}}, "limits.burstTokens: is the size of a bucket that nothing fills"},
		{fault(FaultRule{Fault: cutting}), "faults[1].when: says nothing"},
		{fault(FaultRule{When: When{First: -1}, Fault: cutting}), "faults[1].when.first: -1"},
		{fault(FaultRule{When: When{Every: -1}, Fault: cutting}), "faults[1].when.every: -1"},
		{fault(FaultRule{When: When{Probability: 1.5}, Fault: cutting}), "faults[1].when.probability: 1.5 is not allowed; use 0 to 1"},
		{fault(FaultRule{When: When{Always: true, Per: "x"}, Fault: cutting}), `faults[1].when.per: "x" is not known; use request, client, key, scenario`},
		{fault(FaultRule{When: When{Always: true}}), `faults[1].do.kind: "" is not known; use status`},
		{fault(FaultRule{When: When{Always: true}, Fault: Fault{Kind: FailStatus}}), "faults[1].do.status: is not set"},
		{fault(FaultRule{When: When{Always: true}, Fault: Fault{Kind: FailStatus, Failure: Failure{Status: 200}}}), "faults[1].do.status: 200 is not allowed; use 400 to 599"},
		{fault(FaultRule{When: When{Always: true}, Fault: Fault{Kind: Stall}}), "faults[1].do.wait: is not set"},
		{fault(FaultRule{When: When{Always: true}, Fault: Fault{Kind: Cut, AtToken: -1}}), "faults[1].do.atToken"},
		{fault(FaultRule{When: When{Always: true}, Fault: Fault{Kind: Cut, Failure: Failure{Reason: "x"}}}), "faults[1].do.reason"},
		{Scenario{Name: "s", Faults: []FaultRule{{Name: "n", When: When{Always: true}, Fault: cutting}, {Name: "n", When: When{Always: true}, Fault: cutting}}}, "faults[1].name"},
		{phase(Phase{Kind: Outage}), "timeline[0].name: has 0 bytes"},
		{phase(Phase{Name: "p"}), `timeline[0].kind: "" is not known; use outage, brownout, quota, dark`},
		{phase(Phase{Name: "p", Kind: Outage, At: -1}), "timeline[0].at"},
		{phase(Phase{Name: "p", Kind: Outage, Every: time.Second}), "timeline[0].for: 0s is not allowed in a phase that comes every 1s"},
		{phase(Phase{Name: "p", Kind: Outage, Every: time.Second, For: time.Minute}), "timeline[0].for: 1m0s"},
		{phase(Phase{Name: "p", Kind: Outage, Share: 2}), "timeline[0].share: 2"},
		{phase(Phase{Name: "p", Kind: Outage, Slow: 2}), "timeline[0].slow: 2 is not allowed in outage"},
		{phase(Phase{Name: "p", Kind: Outage, Regions: []string{""}}), "timeline[0].regions[0]"},
		{phase(Phase{Name: "p", Kind: Outage, Failure: Failure{Status: 1}}), "timeline[0].failure.status: 1"},
		{Scenario{Name: "s", Timeline: []Phase{{Name: "p", Kind: Dark}, {Name: "p", Kind: Dark}}}, "timeline[1].name"},
	} {
		err := tc.s.Validate()
		if problem.KindOf(err) != problem.Invalid || !strings.HasPrefix(err.Error(), tc.says) {
			t.Errorf("got  %v\nwant %s", err, tc.says)
		}
	}
	many := make([]Scenario, MaxScenarios+1)
	if _, err := NewMock(many, speaker{}, Options{}); problem.KindOf(err) != problem.Invalid {
		t.Errorf("too many scenarios: %v", err)
	}
}

// quietAnswerer answers the same, for what the domain costs by itself.
type quietAnswerer struct{ a Answer }

func (q *quietAnswerer) Answer(*Scenario, *AnswerRule, *Request, Moment) (*Answer, *Failure) {
	return &q.a, nil
}

func BenchmarkDecide(b *testing.B) {
	a := &quietAnswerer{Answer{Text: "hello", Tokens: make([]string, 50), Usage: Usage{Input: 20, Output: 50}}}
	everything := full(3)
	everything.Faults[1].When.Probability, everything.Timeline[0].Share = 1e-9, 1e-9
	everything.Limits = LimitRule{RequestsPerMinute: MostPerMinute, TokensPerMinute: MostPerMinute}
	everything.Answers = []AnswerRule{{Match: Match{Contains: []string{"weather"}}, Say: "sun"}, {AfterTool: "x", Say: "y"}}
	for _, bc := range []struct {
		name string
		s    Scenario
	}{{"default", Scenario{Name: DefaultScenario}}, {"everything", everything}} {
		b.Run(bc.name, func(b *testing.B) {
			m, err := NewMock([]Scenario{bc.s}, a, Options{})
			if err != nil {
				b.Fatal(err)
			}
			q := asked("what is the capital of France?")
			q.At = time.Now()
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i++
				q.Hash = Hash(mix(i % 100_000))
				m.Done(m.Decide(q))
			}
		})
	}
}

func TestPieces(t *testing.T) {
	words := make([]string, 5)
	for _, tc := range []struct {
		name string
		a    Answer
		want int
	}{
		{"text", Answer{Tokens: words, Usage: Usage{Output: 9}}, 5},
		{"text and thinking", Answer{Tokens: words, ThinkingTokens: words}, 10},
		{"calls are only counted", Answer{Calls: []Call{{Name: "f"}}, Usage: Usage{Output: 9}}, 9},
		{"nothing", Answer{Usage: Usage{Input: 7}}, 0},
		{"an absurd number", Answer{Calls: []Call{{}}, Usage: Usage{Output: 1 << 40}}, MaxPieces},
	} {
		if got := tc.a.Pieces(); got != tc.want {
			t.Errorf("%s: %d; want %d", tc.name, got, tc.want)
		}
	}
	x := &Exchange{Answer: &Answer{Tokens: words[:2]}, More: []*Answer{{Tokens: words}}}
	if x.pieces() != 5 || (&Exchange{}).pieces() != 0 || (&Exchange{}).Behaviour() != nil {
		t.Error("the longest choice does not count")
	}
}

var update = flag.Bool("update", false, "write testdata/decisions.txt anew")

// TestDecisionsStay holds what was decided to what is decided: whoever has recorded a run against one version must get the same
// from the next. A change of this file is a change for every user, and belongs into the release notes.
func TestDecisionsStay(t *testing.T) {
	c := newClock()
	s := full(2026)
	s.Epoch = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)
	s.Limits = LimitRule{RequestsPerMinute: 30, BurstRequests: 14}
	m := mustMock(t, c, s)
	var b strings.Builder
	for i := range 16 {
		q := asked(fmt.Sprint("ask ", i%8))
		q.MaxTokens, q.Choices, q.Vendor = 3+i%4, 1+i%2, []Vendor{OpenAI, Anthropic}[i%2]
		x := m.Decide(q)
		fmt.Fprintln(&b, outcomeOf(x))
		m.Done(x)
		c.pass(100 * ms)
	}
	const name = "testdata/decisions.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
