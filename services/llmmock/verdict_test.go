package llmmock

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// court plays clients before a judge and a drill, on a clock of its own.
type court struct {
	clock *clock
	judge *Judge
	drill *Drill
	seen  map[string]uint64
}

func newCourt() *court {
	return &court{clock: newClock(), judge: NewJudge(), seen: map[string]uint64{}}
}

func (c *court) observe(e Event) {
	e.At = c.clock.now()
	c.judge.Observe(e)
	if c.drill != nil {
		c.drill.Observe(e)
	}
}

// arrive is a request; alter changes it before it is seen.
func (c *court) arrive(q *Request, attempt int) *Exchange {
	q.At = c.clock.now()
	key := fmt.Sprint(q.Client, q.Run, q.Hash)
	words := []string{"once ", "upon ", "a ", "time"}
	x := &Exchange{Request: q, Moment: Moment{Request: q.Hash, Occurrence: c.seen[key], Scenario: "s"},
		Answer: &Answer{Text: strings.Join(words, ""), Tokens: words, Usage: Usage{Input: 10, Output: 4}}}
	x.ID = fmt.Sprintf("%s-%d", q.Last(), x.Occurrence)
	c.seen[key]++
	c.observe(Event{Kind: Arrived, Exchange: x, Attempt: attempt})
	return x
}

// answer ends it: with a status, and told to wait.
func (c *court) answer(x *Exchange, status int, wait time.Duration) {
	if status >= 400 {
		x.Failure, x.Answer = &Failure{Status: status}, nil
	}
	c.observe(Event{Kind: Answered, Exchange: x, Status: status, RetryAfter: wait})
	c.observe(Event{Kind: Ended, Exchange: x, Status: status, RetryAfter: wait, End: Complete, Tokens: 4})
}

func (c *court) cut(x *Exchange, tokens int) {
	c.observe(Event{Kind: Answered, Exchange: x, Status: 200})
	c.observe(Event{Kind: Ended, Exchange: x, Status: 200, End: Truncated, Tokens: tokens})
}

func (c *court) leave(x *Exchange) { c.observe(Event{Kind: Ended, Exchange: x, Status: 0, End: Left}) }

// ask is a request that is answered 10 ms later.
func (c *court) ask(text string, status int, wait time.Duration) {
	x := c.arrive(streaming(text), 0)
	c.clock.pass(10 * ms)
	c.answer(x, status, wait)
}

func streaming(text string) *Request {
	q := asked(text)
	q.Stream = true
	return q
}

// next is the turn after an answer.
func next(text, answer, then string) *Request {
	q := streaming(text + "\n" + then)
	q.Turns = []Turn{{Role: User, Text: text}, {Role: Assistant, Text: answer}, {Role: User, Text: then}}
	return q
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(c *court)
		want string // findings and how often
		says string // in the first evidence
	}{
		{"a good client", func(c *court) {
			c.ask("a", 429, 2*sec)
			c.clock.pass(2 * sec)
			c.ask("a", 503, 0)
			c.clock.pass(sec)
			c.ask("a", 200, 0)
			c.ask("a", 200, 0)
			c.ask("b", 400, 0)
		}, "", ""},
		{"ignores Retry-After", func(c *court) {
			c.ask("a", 429, 2*sec)
			c.clock.pass(300 * ms)
			c.ask("a", 429, 2*sec)
			c.clock.pass(1995 * ms)
			c.ask("a", 200, 0)
		}, "ignored_retry_after 1", "came back 300ms after status 429, which told it to wait 2s"},
		{"is told nothing and comes at once", func(c *court) { c.ask("a", 503, 0); c.ask("a", 200, 0) }, "", ""},
		{"asks something else meanwhile", func(c *court) { c.ask("a", 429, 2*sec); c.ask("b", 200, 0) }, "", ""},
		{"says itself that it is no retry", func(c *court) {
			c.ask("a", 429, 2*sec)
			c.answer(c.arrive(asked("a"), 1), 200, 0)
		}, "", ""},
		{"says itself that it is one", func(c *court) {
			c.ask("a", 429, 2*sec)
			c.answer(c.arrive(asked("a"), 2), 200, 0)
		}, "ignored_retry_after 1", ""},
		{"retries the hopeless", func(c *court) {
			for _, status := range []int{400, 401, 403, 404, 422} {
				text := fmt.Sprint(status)
				c.ask(text, status, 0)
				c.clock.pass(sec)
				c.ask(text, status, 0)
			}
			for _, status := range []int{408, 409, 429, 500, 503, 529} {
				text := fmt.Sprint(status)
				c.ask(text, status, 0)
				c.clock.pass(sec)
				c.ask(text, 200, 0)
			}
		}, "retried_hopeless 5", "status 400 was answered before"},
		{"tries the refused again much later", func(c *court) { c.ask("a", 400, 0); c.clock.pass(RetryWindow); c.ask("a", 400, 0) }, "", ""},
		{"hammers", func(c *court) {
			for range 40 {
				c.ask("a", 503, 0)
			}
		}, "retry_storm 2", "the same request came 10 times"},
		{"retries twice in an outage", func(c *court) {
			for i := range 40 {
				for range 3 {
					c.ask(fmt.Sprint(i), 503, 0)
				}
			}
		}, "", ""},
		{"retries four times in an outage", func(c *court) {
			for i := range 40 {
				for range 5 {
					c.ask(fmt.Sprint(i), 503, 0)
				}
			}
		}, "retry_storm 1", "of which only"},
		{"the same load over and over", func(c *court) {
			for range 500 {
				c.ask("a", 200, 0)
			}
		}, "", ""},
		{"trusts a truncated stream", func(c *court) {
			c.cut(c.arrive(streaming("a"), 0), 3)
			c.ask("else", 200, 0)
			c.answer(c.arrive(next("a", "once upon a", "go on"), 0), 200, 0)
			c.answer(c.arrive(next("a", "once upon a", "and then?"), 0), 200, 0)
		}, "trusted_truncation 1", "went on with the 11 bytes of the answer to request"},
		{"trusts it without the token in which it was cut", func(c *court) {
			c.cut(c.arrive(streaming("a"), 0), 3)
			c.answer(c.arrive(next("a", "once upon ", "go on"), 0), 200, 0)
		}, "trusted_truncation 1", ""},
		{"asks again for what was truncated", func(c *court) {
			c.cut(c.arrive(streaming("a"), 0), 3)
			c.ask("a", 200, 0)
			c.answer(c.arrive(next("a", "once upon a time", "go on"), 0), 200, 0)
		}, "", ""},
		{"asks again before it is reported", func(c *court) {
			x := c.arrive(streaming("a"), 0)
			c.observe(Event{Kind: Answered, Exchange: x, Status: 200})
			q := streaming("a")
			q.IdempotencyKey = "k"
			y := c.arrive(q, 2)
			c.observe(Event{Kind: Ended, Exchange: x, Status: 200, End: Truncated, Tokens: 4})
			c.answer(y, 200, 0)
			c.answer(c.arrive(next("a", "once upon a time", "go on"), 0), 200, 0)
		}, "", ""},
		{"asks another vendor for what was truncated", func(c *court) {
			c.cut(c.arrive(streaming("a"), 0), 4)
			q := streaming("a")
			q.Vendor, q.Hash = Anthropic, 77
			c.answer(c.arrive(q, 0), 200, 0)
			c.answer(c.arrive(next("a", "once upon a time", "go on"), 0), 200, 0)
		}, "", ""},
		{"forgets what was truncated", func(c *court) {
			c.cut(c.arrive(streaming("a"), 0), 3)
			c.answer(c.arrive(next("a", "(no answer)", "go on"), 0), 200, 0)
		}, "", ""},
		{"keeps connections unread", func(c *court) {
			x := c.arrive(streaming("a"), 0)
			c.clock.pass(30 * sec)
			c.observe(Event{Kind: Unread, Exchange: x, Waited: 30 * sec})
			c.leave(x)
		}, "kept_unread 1", "did not read its answer for 30s"},
		{"submits twice", func(c *court) {
			x := c.arrive(asked("a"), 0)
			y := c.arrive(asked("a"), 0)
			c.answer(x, 200, 0)
			c.answer(y, 200, 0)
		}, "double_submission 1", "an equal request was under way"},
		{"submits again what it left", func(c *court) {
			c.leave(c.arrive(asked("a"), 0))
			c.clock.pass(sec)
			c.ask("a", 200, 0)
		}, "double_submission 1", "it had left an equal request 1s before"},
		{"submits twice with a key", func(c *court) {
			for range 2 {
				q := asked("a")
				q.IdempotencyKey = "k1"
				c.leave(c.arrive(q, 0))
			}
		}, "", ""},
		{"counts tokens twice", func(c *court) {
			for range 2 {
				q := asked("a")
				q.Operation = Count
				c.arrive(q, 0)
			}
		}, "", ""},
		{"uses a key again", func(c *court) {
			for _, text := range []string{"a", "b"} {
				q := asked(text)
				q.IdempotencyKey = "k1"
				c.answer(c.arrive(q, 0), 200, 0)
			}
		}, "reused_key 1", `idempotency key "k1" was used for request`},
		{"takes an error in an answer's clothes for a failure", func(c *court) {
			x := c.arrive(asked("a"), 0)
			x.Fault = Fault{Kind: FailInBody, Failure: Failure{Status: 500}}
			c.answer(x, 200, 0)
			c.ask("a", 200, 0)
		}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCourt()
			tc.play(c)
			r := c.judge.Report("")
			if len(r.Clients) != 1 {
				t.Fatalf("%d clients", len(r.Clients))
			}
			var got []string
			for _, f := range r.Clients[0].Findings {
				got = append(got, fmt.Sprint(f.Name, " ", f.Count))
				if f.Sentence == "" || len(f.Evidence) == 0 || len(f.Evidence) > MaxEvidence || f.Evidence[0].Exchange == "" {
					t.Errorf("%+v", f)
				}
			}
			if strings.Join(got, ", ") != tc.want || r.Good() != (tc.want == "") {
				t.Errorf("got %q, want %q: %+v", strings.Join(got, ", "), tc.want, r.Clients[0].Findings)
			}
			if tc.says != "" && (len(got) == 0 || !strings.Contains(r.Clients[0].Findings[0].Evidence[0].Text, tc.says)) {
				t.Errorf("%+v do not say %q", r.Clients[0].Findings, tc.says)
			}
		})
	}
}

func TestReportCounts(t *testing.T) {
	c := newCourt()
	c.ask("a", 503, 0)
	c.ask("a", 503, 0)
	c.ask("a", 200, 0)
	c.ask("b", 200, 0)
	c.cut(c.arrive(streaming("d"), 0), 2)
	c.ask("d", 200, 0)
	c.leave(c.arrive(streaming("e"), 0))
	x := c.arrive(streaming("f"), 0)
	c.observe(Event{Kind: Ended, Exchange: x, Status: 0, End: Truncated}) // reset before any answer
	got := c.judge.Report("").Clients[0]
	got.Findings, got.First, got.Last, got.PeakAt = nil, time.Time{}, time.Time{}, time.Time{}
	want := ClientReport{Client: "c", Requests: 8, Distinct: 5, Retries: 3, Amplification: 1.6, Peak: 8, Served: 3, Failed: 3, Truncated: 1, Left: 1, RetriedTruncated: 1,
		Usage: Usage{Input: 30, Output: 12}}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestClientsAndRunsAreJudgedApart(t *testing.T) {
	c := newCourt()
	for _, who := range []struct{ client, run string }{{"b", "1"}, {"a", "1"}, {"a", "2"}} {
		q := asked("x")
		q.Client, q.Run = who.client, who.run
		c.answer(c.arrive(q, 0), 429, time.Minute)
	}
	q := asked("x")
	q.Client, q.Run = "a", "2"
	c.answer(c.arrive(q, 0), 200, 0)
	r := c.judge.Report("")
	var got []string
	for _, cl := range r.Clients {
		got = append(got, fmt.Sprintf("%s/%s %t", cl.Client, cl.Run, cl.Good()))
	}
	if strings.Join(got, ", ") != "a/1 true, a/2 false, b/1 true" {
		t.Error(got)
	}
	one := c.judge.Report("1")
	if len(one.Clients) != 2 || !one.Good() {
		t.Errorf("%+v", one)
	}
	// What is forgotten begins anew: the failure before it is no reason.
	c.judge.Forget("2")
	q = asked("x")
	q.Client, q.Run = "a", "2"
	c.answer(c.arrive(q, 0), 429, time.Minute)
	if r := c.judge.Report("2"); len(r.Clients) != 1 || !r.Good() || r.Clients[0].Requests != 1 || r.Clients[0].Retries != 0 {
		t.Errorf("%+v", r)
	}
	c.judge.Forget("")
	if len(c.judge.Report("").Clients) != 0 {
		t.Error("not forgotten")
	}
}

func TestJudgeIsBounded(t *testing.T) {
	c := newCourt()
	for i := range 3 * MaxClients {
		q := asked("x")
		q.Client = strings.Repeat("n", 500) + fmt.Sprint(i)
		if i < 2*MaxClients {
			q.Client = fmt.Sprint(i)
		}
		c.answer(c.arrive(q, 0), 400, 0)
		c.clock.pass(ms)
	}
	r := c.judge.Report("")
	if len(r.Clients) != MaxClients || r.Forgotten != MaxClients+1 {
		// the longest names are the same in their first bytes
		t.Errorf("%d clients, %d forgotten", len(r.Clients), r.Forgotten)
	}
	c = newCourt()
	for i := range 200 {
		c.cut(c.arrive(streaming(fmt.Sprint(i)), 0), 2)
		for range 3 {
			c.arrive(streaming("open"), 0)
		}
	}
	cl := c.judge.clients[clientRun{"c", ""}]
	if len(cl.truncations) > maxTruncations {
		t.Errorf("%d truncations", len(cl.truncations))
	}
	if f := cl.report().Findings; len(f) != 1 || f[0].Count != 599 || len(f[0].Evidence) != MaxEvidence {
		t.Errorf("%+v", f)
	}
}

// Whatever is reported in whatever order, the sums are right and nothing breaks. Run with -race.
func TestAnyEventsAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCourt()
		drill, err := NewDrill(DrillConfig{Phase: Phase{Name: "p", Kind: Outage, Match: Match{Vendors: []Vendor{OpenAI}}}, Began: c.clock.now()})
		if err != nil {
			t.Fatal(err)
		}
		c.drill = drill
		var open []*Exchange
		arrived, ended := 0, 0
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				q := streaming(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "text"))
				q.Client = rapid.SampledFrom([]string{"x", "y"}).Draw(t, "client")
				q.Vendor = rapid.SampledFrom([]Vendor{OpenAI, Anthropic}).Draw(t, "vendor")
				q.IdempotencyKey = rapid.SampledFrom([]string{"", "", "k"}).Draw(t, "key")
				open = append(open, c.arrive(q, rapid.IntRange(0, 3).Draw(t, "attempt")))
				arrived++
			},
			"end": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip("nothing is open")
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				e := Event{Kind: Ended, Exchange: open[i], Status: rapid.SampledFrom([]int{0, 200, 200, 400, 429, 503}).Draw(t, "status"),
					RetryAfter: time.Duration(rapid.IntRange(0, 2).Draw(t, "wait")) * sec, Tokens: rapid.IntRange(-1, 6).Draw(t, "tokens"),
					End: rapid.SampledFrom([]End{Complete, Complete, Truncated, Left}).Draw(t, "end")}
				if rapid.Bool().Draw(t, "answered") {
					a := e
					a.Kind = Answered
					c.observe(a)
				}
				c.observe(e)
				open = append(open[:i], open[i+1:]...)
				ended++
			},
			"time": func(t *rapid.T) { c.clock.pass(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * ms) },
			"": func(t *rapid.T) {
				requests, over := 0, 0
				for _, cl := range c.judge.Report("").Clients {
					requests += cl.Requests
					over += cl.Served + cl.Failed + cl.Truncated + cl.Left
					if cl.Requests != cl.Distinct+cl.Retries || cl.RetriedTruncated > cl.Truncated {
						t.Fatalf("%+v", cl)
					}
				}
				card := drill.Card(c.clock.now())
				if requests != arrived || over != ended || card.Requests != arrived || card.Lost+card.Pending+card.Duplicated > card.Asks+card.Duplicated || card.Asks > 3 {
					t.Fatalf("%d of %d requests, %d of %d ends: %+v", requests, arrived, over, ended, card)
				}
			},
		})
	})
}

func TestJudgeUnderConcurrency(t *testing.T) {
	j := NewJudge()
	at := newClock().at
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				q := asked(fmt.Sprint(w, i%20))
				q.Client = fmt.Sprint("c", i%3)
				x := &Exchange{Request: q, Moment: Moment{Request: q.Hash, Occurrence: uint64(i)}}
				j.Observe(Event{Kind: Arrived, At: at, Exchange: x})
				j.Observe(Event{Kind: Answered, At: at, Exchange: x, Status: 503})
				j.Observe(Event{Kind: Ended, At: at, Exchange: x, Status: 503, End: Complete})
				if i%50 == 0 {
					j.Report("")
				}
			}
		})
	}
	wg.Wait()
	requests := 0
	for _, c := range j.Report("").Clients {
		requests += c.Requests
	}
	if requests != 1600 {
		t.Errorf("%d requests", requests)
	}
}

func BenchmarkJudge(b *testing.B) {
	j := NewJudge()
	q := asked("what is the capital of France?")
	x := &Exchange{Request: q, Answer: &Answer{Text: "x", Tokens: []string{"x"}, Usage: Usage{Input: 1, Output: 1}}}
	at := time.Now()
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		q.Hash, x.Occurrence = Hash(mix(i%20_000)), i
		at = at.Add(time.Microsecond)
		j.Observe(Event{Kind: Arrived, At: at, Exchange: x})
		j.Observe(Event{Kind: Answered, At: at, Exchange: x, Status: 200})
		j.Observe(Event{Kind: Ended, At: at, Exchange: x, Status: 200, End: Complete, Tokens: 1})
	}
}

func TestLatestFindings(t *testing.T) {
	c := newCourt()
	for i := range MaxLatest + 3 {
		q := func() *Request { r := asked(fmt.Sprint(i)); r.Run = fmt.Sprint("run", i%2); return r }
		c.answer(c.arrive(q(), 0), 400, 0)
		c.answer(c.arrive(q(), 0), 400, 0)
		c.clock.pass(sec)
	}
	// Of each run's client the first MaxEvidence are kept, and told of.
	latest := c.judge.Latest()
	if len(latest) != MaxLatest || latest[0].Evidence.At.Before(latest[1].Evidence.At) || latest[0].Finding != RetriedHopeless || latest[0].Client != "c" {
		t.Errorf("%d findings, first %+v", len(latest), latest[0])
	}
	if n := c.judge.Clients(); n != 2 {
		t.Errorf("%d clients", n)
	}
	c.judge.Forget("run0")
	for _, f := range c.judge.Latest() {
		if f.Run != "run1" {
			t.Errorf("a finding of a run that was forgotten: %+v", f)
		}
	}
	if r := c.judge.Report(""); len(r.Only("c*").Clients) != 1 || len(r.Only("d").Clients) != 0 || len(r.Clients) != 1 {
		t.Errorf("%d clients fit c*", len(r.Only("c*").Clients))
	}
}
