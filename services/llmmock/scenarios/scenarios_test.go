package scenarios

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/say"
	"edgehold.internal/services/llmmock/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAreReady(t *testing.T) {
	if len(Names()) < 10 {
		t.Errorf("only %v", Names())
	}
	for _, name := range Names() {
		s, err := Named(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if s.Name != name || s.Description == "" || len(s.Match.Models) == 0 {
			t.Errorf("%s: it is named %q, described %q, for the models %q", name, s.Name, s.Description, s.Match.Models)
		}
		text, err := Text(name)
		if err != nil || !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "What one learns: ") {
			t.Errorf("%s does not say what one learns with it", name)
		}
	}
	if _, err := Named("none"); problem.KindOf(err) != problem.NotFound || !strings.Contains(err.Error(), "cold-start, correlated-failure") {
		t.Errorf("got %v", err)
	}
}

func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		if !strings.Contains(string(text), "| `"+name+"` |") {
			t.Errorf("README.md does not list %s", name)
		}
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	example = strings.ReplaceAll(example, "[...]", "[1s]")
	if _, err := scenario.Read("README.md", []byte(example)); err != nil {
		t.Error(err)
	}
	for _, name := range say.Functions() {
		if !strings.Contains(string(text), "`"+name+"`") && !strings.Contains(string(text), "`"+name+" ") {
			t.Errorf("README.md does not list the function %s", name)
		}
	}
}

// run decides requests to one scenario on a clock that the test moves.
type run struct {
	t     *testing.T
	mock  *llmmock.Mock
	now   time.Time
	name  string
	hash  llmmock.Hash
	start time.Time
}

func newRun(t *testing.T, name string) *run {
	t.Helper()
	s, err := Named(name)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, name: name, start: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
	r.now = r.start
	r.mock, err = llmmock.NewMock([]llmmock.Scenario{s}, say.New(nil), llmmock.Options{Now: func() time.Time { return r.now }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask is a request of its own at a time since the start, changed by those given.
func (r *run) ask(at time.Duration, change ...func(*llmmock.Request)) *llmmock.Exchange {
	r.now = r.start.Add(at)
	r.hash++
	q := &llmmock.Request{Vendor: llmmock.OpenAI, Operation: llmmock.Generate, Model: "gpt-4o", Scenario: r.name, Choices: 1, ParallelCalls: true, Stream: true,
		Key: "key", Hash: r.hash, At: r.now, Turns: []llmmock.Turn{{Role: llmmock.User, Text: "Hello"}}}
	for _, c := range change {
		c(q)
	}
	x := r.mock.Decide(q)
	r.mock.Done(x)
	return x
}

func of(v llmmock.Vendor) func(*llmmock.Request) { return func(q *llmmock.Request) { q.Vendor = v } }
func in(region string) func(*llmmock.Request)    { return func(q *llmmock.Request) { q.Region = region } }
func again(q *llmmock.Request)                   { q.Hash = 7 }

func status(x *llmmock.Exchange) int {
	if x.Failure == nil {
		return 200
	}
	return x.Failure.Status
}

func TestColdStart(t *testing.T) {
	r := newRun(t, "cold-start")
	var cold, warm time.Duration
	for range 200 {
		cold += r.ask(time.Second).Schedule.First
		warm += r.ask(time.Minute).Schedule.First
	}
	if cold < 5*warm {
		t.Errorf("cold takes %s, warm %s", cold/200, warm/200)
	}
}

func TestSlowModel(t *testing.T) {
	r := newRun(t, "slow-model")
	x := r.ask(0)
	if n := x.Answer.Usage.Output; n < 300 || x.Schedule.Whole(n) < time.Duration(n)*40*time.Millisecond {
		t.Errorf("%d tokens in %s", n, x.Schedule.Whole(n))
	}
}

func TestRateLimitStorm(t *testing.T) {
	r := newRun(t, "rate-limit-storm")
	for i, want := range []int{429, 429, 200, 200} {
		x := r.ask(time.Duration(i)*time.Second, again)
		if status(x) != want || want == 429 && x.Failure.RetryAfter != 2*time.Second {
			t.Errorf("attempt %d: got %+v", i+1, x.Failure)
		}
		if x.Limits == nil {
			t.Errorf("attempt %d has no limits", i+1)
		}
	}
}

func TestRegionalOutage(t *testing.T) {
	r := newRun(t, "regional-outage")
	bad, dark := 0, 0
	for range 100 {
		if status(r.ask(35*time.Second, in("eu-west-1"))) == 503 {
			bad++
		}
		if r.ask(time.Minute, in("eu-west-1")).Fault.Kind == llmmock.ResetBefore {
			dark++
		}
		for _, at := range []time.Duration{0, 35 * time.Second, time.Minute, 151 * time.Second} {
			if x := r.ask(at, in("us-east-1")); status(x) != 200 || x.Fault.Kind != llmmock.NoFault {
				t.Fatalf("the other region fails at %s", at)
			}
		}
		if status(r.ask(151*time.Second, in("eu-west-1"))) != 200 {
			t.Fatal("it does not come back")
		}
	}
	if bad < 75 || bad > 99 || dark != 100 {
		t.Errorf("%d of 100 failed, %d were dropped", bad, dark)
	}
}

// shares counts the faults of 2,000 different requests.
func shares(r *run) map[llmmock.FaultKind]int {
	n := make(map[llmmock.FaultKind]int)
	for range 2000 {
		x := r.ask(0)
		n[x.Fault.Kind]++
	}
	return n
}

func TestTruncatedStream(t *testing.T) {
	n := shares(newRun(t, "truncated-stream"))
	for kind, want := range map[llmmock.FaultKind]int{llmmock.Cut: 160, llmmock.CutMidEvent: 110, llmmock.ResetMidStream: 69, llmmock.ResetAfterHeader: 33} {
		if n[kind] < want/2 || n[kind] > want*3/2 {
			t.Errorf("%s: %d of 2000, want about %d", kind, n[kind], want)
		}
	}
}

func TestFlappingProvider(t *testing.T) {
	r := newRun(t, "flapping-provider")
	for at, want := range map[time.Duration]int{5: 200, 12: 503, 25: 200, 45: 503, 55: 200, 3615: 503} {
		if got := status(r.ask(at * time.Second)); got != want {
			t.Errorf("at %ds: got %d, want %d", at, got, want)
		}
	}
}

func TestQuotaExhausted(t *testing.T) {
	r := newRun(t, "quota-exhausted")
	if got := status(r.ask(59 * time.Second)); got != 200 {
		t.Errorf("before: got %d", got)
	}
	for _, at := range []time.Duration{time.Minute, time.Hour, 100 * time.Hour} {
		if x := r.ask(at); status(x) != 429 || x.Failure.Code != "insufficient_quota" || x.Failure.RetryAfter != 0 {
			t.Errorf("at %s: got %+v", at, x.Failure)
		}
	}
}

func TestToolLoop(t *testing.T) {
	r := newRun(t, "tool-loop")
	tools := func(q *llmmock.Request) { q.Tools = []llmmock.Tool{{Name: "search"}} }
	var turns []llmmock.Turn
	for round := range 5 {
		x := r.ask(0, tools, func(q *llmmock.Request) { q.Turns = append(q.Turns, turns...) })
		if len(x.Answer.Calls) != 1 || x.Answer.Finish != llmmock.ToolCalls {
			t.Fatalf("round %d: got %+v", round, x.Answer)
		}
		turns = append(turns, llmmock.Turn{Role: llmmock.Assistant, Calls: x.Answer.Calls},
			llmmock.Turn{Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: x.Answer.Calls[0].ID, Text: "nothing found"}}})
	}
	if x := r.ask(0); len(x.Answer.Calls) != 0 || x.Answer.Text == "" {
		t.Errorf("without tools: got %+v", x.Answer)
	}
}

func TestMalformedChunks(t *testing.T) {
	n := shares(newRun(t, "malformed-chunks"))
	for _, kind := range []llmmock.FaultKind{llmmock.Malformed, llmmock.Duplicate, llmmock.Reorder, llmmock.FailMidStream, llmmock.FailInBody, llmmock.WrongType, llmmock.WrongLength} {
		if n[kind] < 25 {
			t.Errorf("%s: %d of 2000", kind, n[kind])
		}
	}
	if n[llmmock.NoFault] < 500 {
		t.Errorf("%d of 2000 are right", n[llmmock.NoFault])
	}
}

func TestCorrelatedFailure(t *testing.T) {
	r := newRun(t, "correlated-failure")
	count := func(at time.Duration, v llmmock.Vendor, want int) (n int) {
		for range 100 {
			if status(r.ask(at, of(v))) == want {
				n++
			}
		}
		return n
	}
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Azure} {
		if before, during, after := count(0, v, 200), count(time.Minute, v, 503), count(301*time.Second, v, 200); before+during+after != 300 {
			t.Errorf("%s: %d before, %d during, %d after", v, before, during, after)
		}
	}
	if early, late := count(time.Minute, llmmock.Anthropic, 200), count(2*time.Minute, llmmock.Anthropic, 529); early != 100 || late < 15 || late > 45 {
		t.Errorf("anthropic: %d before, %d during", early, late)
	}
	if n := count(2*time.Minute, llmmock.Gemini, 200); n != 100 {
		t.Errorf("gemini: %d", n)
	}
}
