package llmmock

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"edgehold.internal/libs/problem"
)

// drilling is a court whose drill began now: OpenAI is out.
func drilling(t *testing.T, alter func(*DrillConfig)) *court {
	t.Helper()
	c := newCourt()
	config := DrillConfig{Phase: Phase{Name: "out", Kind: Outage, Match: Match{Vendors: []Vendor{OpenAI}}}, Began: c.clock.now(),
		Prices: Prices{{Vendor: OpenAI, Model: "m-*", Input: Dollars(2.5), Output: Dollars(10), Source: "a list", Date: "2026-01-31"}}}
	if alter != nil {
		alter(&config)
	}
	drill, err := NewDrill(config)
	if err != nil {
		t.Fatal(err)
	}
	c.drill = drill
	return c
}

// send is a request to a vendor that ends a moment later.
func (c *court) send(v Vendor, text string, status int) {
	q := streaming(text)
	q.Vendor, q.Hash = v, HashOf("POST", string(v), []byte(text))
	x := c.arrive(q, 0)
	c.clock.pass(100 * ms)
	c.answer(x, status, 0)
}

func TestScorecards(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(c *court)
		want string
	}{
		{"nobody came", func(c *court) {}, "0/0 retried 0 diverted 0 failed 0 lost 0 pending 0 dup 0 slow 0; felt unknown detect unknown recover 0s return unknown"},
		{"nobody felt it", func(c *court) { c.send(Anthropic, "a", 200) },
			"1/1 retried 0 diverted 0 failed 0 lost 0 pending 0 dup 0 slow 0; felt unknown detect unknown recover 0s return unknown"},
		{"failover of the very ask", func(c *court) {
			c.clock.pass(sec)
			c.send(OpenAI, "a", 503)
			c.send(OpenAI, "a", 503)
			c.send(Anthropic, "a", 200)
			c.send(Anthropic, "b", 200)
		}, "4/2 retried 2 diverted 2 failed 2 lost 0 pending 0 dup 0 slow 0; felt 1.1s detect 1.2s recover 0s return unknown"},
		{"failover of the next ask", func(c *court) {
			c.send(OpenAI, "a", 503)
			c.clock.pass(4 * sec)
			c.send(Anthropic, "b", 200)
		}, "2/2 retried 0 diverted 1 failed 1 lost 1 pending 0 dup 0 slow 0; felt 100ms detect 4.1s recover 100ms return unknown"},
		{"what goes elsewhere anyway is no failover", func(c *court) {
			c.send(Anthropic, "x", 200)
			c.send(OpenAI, "a", 503)
			c.send(Anthropic, "y", 200)
		}, "3/3 retried 0 diverted 0 failed 1 lost 1 pending 0 dup 0 slow 0; felt 200ms detect unknown recover 200ms return unknown"},
		{"it waits until the outage is over, and comes back", func(c *court) {
			c.send(OpenAI, "a", 503)
			c.clock.pass(20 * sec)
			c.send(OpenAI, "a", 503)
			c.clock.pass(9800 * ms)
			c.drill.End(c.clock.now()) // after 30 s
			c.clock.pass(2 * sec)
			c.send(OpenAI, "a", 200)
			c.send(OpenAI, "b", 200)
		}, "4/2 retried 2 diverted 0 failed 2 lost 0 pending 0 dup 0 slow 1; felt 100ms detect unknown recover 32.1s return 2.1s"},
		{"paid twice", func(c *court) {
			c.send(OpenAI, "a", 503)
			q := streaming("a")
			q.Vendor, q.Hash = Anthropic, 1
			x := c.arrive(q, 0)
			q2 := streaming("a")
			q2.Vendor, q2.Hash = Gemini, 2
			y := c.arrive(q2, 0)
			c.answer(x, 200, 0)
			c.answer(y, 200, 0)
		}, "3/1 retried 2 diverted 1 failed 1 lost 0 pending 0 dup 1 slow 0; felt 100ms detect 100ms recover 0s return unknown"},
		{"cut off and given up are failures", func(c *court) {
			c.leave(c.arrive(streaming("b"), 0))
			c.clock.pass(sec)
			c.cut(c.arrive(streaming("a"), 0), 2)
			c.send(OpenAI, "b", 200)
		}, "3/2 retried 1 diverted 0 failed 2 lost 1 pending 0 dup 0 slow 0; felt 0s detect unknown recover unknown return unknown"},
		{"one hangs", func(c *court) {
			c.arrive(streaming("a"), 0)
			c.clock.pass(11 * sec)
		}, "1/1 retried 0 diverted 0 failed 0 lost 0 pending 1 dup 0 slow 0; felt unknown detect unknown recover unknown return unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := drilling(t, nil)
			tc.play(c)
			s := c.drill.Card(c.clock.now())
			got := fmt.Sprintf("%d/%d retried %d diverted %d failed %d lost %d pending %d dup %d slow %d; felt %s detect %s recover %s return %s", s.Requests, s.Asks, s.Retried,
				s.Diverted, s.Failed, s.Lost, s.Pending, s.Duplicated, s.Slow, s.Felt, s.Detect, s.Recover, s.Return)
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if s.Asks > 0 && s.Amplification != float64(s.Requests)/float64(s.Asks) || s.Name != "out" {
				t.Errorf("amplification %g, name %q", s.Amplification, s.Name)
			}
		})
	}
}

func TestWhatADrillLeavesOut(t *testing.T) {
	c := drilling(t, func(d *DrillConfig) {
		d.Scenario, d.Name = "s", "named"
		d.Began = d.Began.Add(time.Minute)
	})
	c.send(Anthropic, "habit", 200) // before it began: what this client does anyway
	c.clock.pass(time.Minute)
	c.send(OpenAI, "a", 503)
	c.send(Anthropic, "b", 200)
	q := streaming("other scenario")
	c.drill.Observe(Event{Kind: Arrived, At: c.clock.now(), Exchange: &Exchange{Request: q, Moment: Moment{Scenario: "t"}}})
	q = streaming("")
	q.At, q.Operation = c.clock.now(), Count
	c.drill.Observe(Event{Kind: Arrived, At: c.clock.now(), Exchange: &Exchange{Request: q, Moment: Moment{Scenario: "s"}}})
	if s := c.drill.Card(c.clock.now()); s.Requests != 2 || s.Asks != 2 || s.Diverted != 0 || s.Detect.Known || s.Name != "named" {
		t.Errorf("%+v", s)
	}
}

func TestScorecardMoney(t *testing.T) {
	c := drilling(t, func(d *DrillConfig) { d.Mocked = Mocked{Hour: Dollars(.36), Runs: 1000} })
	for i := range 1000 {
		c.send(OpenAI, fmt.Sprint(i), 200)
	}
	c.send(Anthropic, "x", 200)
	c.cut(c.arrive(streaming("cut"), 0), 1)
	s := c.drill.Card(c.clock.now()) // after 100.1 s
	want := []Use{
		{Vendor: Anthropic, Model: "m-large", Requests: 1, Usage: Usage{Input: 10, Output: 4}},
		{Vendor: OpenAI, Model: "m-large", Requests: 1001, Usage: Usage{Input: 10010, Output: 4001}, Priced: true, Price: c.drill.config.Prices[0], Cost: Dollars(.065035)},
	}
	if !reflect.DeepEqual(s.Uses, want) {
		t.Errorf("got  %+v\nwant %+v", s.Uses, want)
	}
	if v := s.Savings; v.Live != Dollars(.065035) || v.Mocked != Dollars(.01001) || v.Saved != Dollars(.055025) || v.Year != Dollars(55.025) ||
		fmt.Sprint(v.Unpriced) != "[anthropic m-large]" {
		t.Errorf("%+v", v)
	}
}

// Whoever puts the inputs into the formula gets the result.
func TestSavingsFollowFromTheirInputs(t *testing.T) {
	p := Price{Model: "*", Input: Dollars(3), Cached: Dollars(.3), CacheWrite: Dollars(3.75), Output: Dollars(15), Source: "a list", Date: "2026-01-31"}
	u := Usage{Input: 5_000_000, Cached: 1_000_000, CacheWrite: 500_000, Output: 2_000_000}
	s := Save([]Use{{Vendor: Anthropic, Model: "m", Usage: u, Price: p, Cost: p.Cost(u), Priced: true}}, Mocked{Time: 90 * time.Minute, Hour: Dollars(2), Runs: 12})
	live := 3.5*3 + 1*.3 + .5*3.75 + 2*15
	if s.Live != Dollars(live) || s.Mocked != Dollars(3) || s.Year != Dollars(12*(live-3)) {
		t.Errorf("%s − %s, %s a year; want %g", s.Live, s.Mocked, s.Year, live)
	}
	var names []string
	for _, in := range s.Inputs {
		names = append(names, in.Name+"="+in.Value)
		if strings.HasPrefix(in.Name, "price_") && in.Name != "price_hour" && in.Source != "a list, 2026-01-31" {
			t.Errorf("%s is from %q", in.Name, in.Source)
		}
	}
	want := "input[anthropic m]=5000000 price_input[anthropic m]=$3.00 cached[anthropic m]=1000000 price_cached[anthropic m]=$0.30 cache_write[anthropic m]=500000 " +
		"price_cache_write[anthropic m]=$3.75 output[anthropic m]=2000000 price_output[anthropic m]=$15.00 hours=1.5 price_hour=$2.00 runs=12"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, name := range []string{"input", "cached", "cache_write", "output", "price_hour", "hours", "runs"} {
		if !strings.Contains(s.Formula, name) {
			t.Errorf("%s is not in %s", name, s.Formula)
		}
	}
}

func TestMoney(t *testing.T) {
	for m, want := range map[Money]string{
		0: "$0.00", 1: "$0.000000001", Dollar / 10: "$0.10", Dollars(.075): "$0.075", Dollars(1.5): "$1.50", Dollars(500000.999): "$500001.00",
		-Dollars(2.25): "-$2.25", -Dollars(.004): "-$0.004", 1<<63 - 1: "$9223372036.85", -1 << 63: "-$9223372036.85",
	} {
		if got := m.String(); got != want {
			t.Errorf("%d is %s; want %s", int64(m), got, want)
		}
	}
	p := Price{Model: "*", Input: Dollars(.075), Output: MaxPrice}
	if got := p.Cost(Usage{Input: 1}); got != 75 {
		t.Errorf("one token costs %d", got)
	}
	if got := p.Cost(Usage{Output: 1 << 62}); got != 1<<63-1 {
		t.Errorf("the most is %d", got)
	}
	if got := p.Cost(Usage{Input: -5, Output: -5}); got != 0 {
		t.Errorf("less than nothing costs %d", got)
	}
}

func TestPrices(t *testing.T) {
	good := Price{Vendor: OpenAI, Model: "m-*", Input: 1, Source: "s", Date: "2026-01-31"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for says, alter := range map[string]func(*Price){
		`vendor: "acme" is not known`: func(p *Price) { p.Vendor = "acme" }, "model: ": func(p *Price) { p.Model = "" }, "input: -$0.000000001": func(p *Price) { p.Input = -1 },
		"output: ": func(p *Price) { p.Output = MaxPrice + 1 }, "source: ": func(p *Price) { p.Source = "" }, `date: "yesterday" is no date`: func(p *Price) { p.Date = "yesterday" },
	} {
		p := good
		alter(&p)
		if err := p.Validate(); problem.KindOf(err) != problem.Invalid || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("got %v; want %s", err, says)
		}
	}
	ps := Prices{{Vendor: OpenAI, Model: "m-small*", Input: 1}, {Model: "m-*", Input: 2}, {Vendor: Gemini, Model: "*", Input: 3}}
	for _, tc := range []struct {
		v     Vendor
		model string
		want  Money
	}{{OpenAI, "m-small-2", 1}, {Azure, "m-small", 2}, {Gemini, "x", 3}, {OpenAI, "x", 0}} {
		if p, ok := ps.Of(tc.v, tc.model); p.Input != tc.want || ok != (tc.want > 0) {
			t.Errorf("%s %s: %d, %t", tc.v, tc.model, p.Input, ok)
		}
	}
}

func TestMeterIsBounded(t *testing.T) {
	var m Meter
	long := strings.Repeat("x", 200)
	for i := range 2 * MaxModels {
		m.Add(OpenAI, fmt.Sprint("m", i), Usage{Input: 1})
		m.Add(OpenAI, long, Usage{Input: 1})
	}
	uses := m.Uses(nil)
	if len(uses) != MaxModels+1 {
		t.Errorf("%d models", len(uses))
	}
	total := 0
	for _, u := range uses {
		total += u.Requests
	}
	if total != 4*MaxModels || uses[0].Model != OtherModels {
		t.Errorf("%d requests, first %q", total, uses[0].Model)
	}
}

func TestDrillsThatCannotBe(t *testing.T) {
	began := newClock().at
	good := DrillConfig{Phase: Phase{Name: "p", Kind: Dark, For: time.Minute}, Began: began}
	d, err := NewDrill(good)
	if err != nil || !d.Card(began.Add(time.Hour)).Ended.Equal(began.Add(time.Minute)) || !d.Card(began).Ended.IsZero() {
		t.Errorf("a phase that ends by itself: %v", err)
	}
	for says, alter := range map[string]func(*DrillConfig){
		"phase.kind": func(c *DrillConfig) { c.Phase.Kind = "" }, "began: ": func(c *DrillConfig) { c.Began = time.Time{} },
		"ended: ": func(c *DrillConfig) { c.Ended = began.Add(-1) }, "patience: ": func(c *DrillConfig) { c.Patience = -1 },
	} {
		c := good
		alter(&c)
		if _, err := NewDrill(c); problem.KindOf(err) != problem.Invalid || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("got %v; want %s", err, says)
		}
	}
}

func TestAnAskIsTheSameForAllVendors(t *testing.T) {
	openai := &Request{Vendor: OpenAI, Operation: Generate, Turns: []Turn{{Role: System, Text: "be brief"}, {Role: User, Text: "a"}, {Role: Assistant, Calls: []Call{{ID: "1", Name: "f"}}},
		{Role: ToolRole, Results: []Result{{CallID: "1", Text: "r"}}}}}
	anthropic := &Request{Vendor: Anthropic, Operation: Generate, Turns: []Turn{{Role: User, Text: "a"}, {Role: Assistant, Calls: []Call{{ID: "toolu", Name: "f"}}},
		{Role: User, Results: []Result{{CallID: "toolu", Text: "r"}}}}}
	if openai.Ask() != anthropic.Ask() {
		t.Error("a switch of vendors makes another ask")
	}
	other := &Request{Vendor: OpenAI, Operation: Generate, Turns: []Turn{{Role: User, Text: "a"}}}
	if other.Ask() == openai.Ask() {
		t.Error("another turn is the same ask")
	}
	if (&Request{Hash: 5}).Ask() != 5 {
		t.Error("without a conversation the hash counts")
	}
}

func BenchmarkDrill(b *testing.B) {
	d, err := NewDrill(DrillConfig{Phase: Phase{Name: "p", Kind: Outage}, Began: time.Now()})
	if err != nil {
		b.Fatal(err)
	}
	q := asked("what is the capital of France?")
	q.At = time.Now()
	x := &Exchange{Request: q, Answer: &Answer{Usage: Usage{Input: 1, Output: 1}}}
	b.ReportAllocs()
	for b.Loop() {
		d.Observe(Event{Kind: Arrived, At: q.At, Exchange: x})
		d.Observe(Event{Kind: Ended, At: q.At, Exchange: x, Status: 200, End: Complete})
	}
}
