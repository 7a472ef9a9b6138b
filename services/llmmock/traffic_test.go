package llmmock

import (
	"fmt"
	"sync"
	"testing"
)

// exchange is one that a scenario decided.
func exchange(scenario string, v Vendor, alter func(*Exchange)) *Exchange {
	q := asked("x")
	q.Vendor = v
	x := &Exchange{Request: q, Moment: Moment{Scenario: scenario}, Answer: &Answer{Usage: Usage{Input: 10, Output: 4}}}
	if alter != nil {
		alter(x)
	}
	return x
}

func TestTraffic(t *testing.T) {
	var tr Traffic
	see := func(x *Exchange, status int, end End) {
		tr.Observe(Event{Kind: Arrived, Exchange: x})
		tr.Observe(Event{Kind: Answered, Exchange: x, Status: status})
		tr.Observe(Event{Kind: Ended, Exchange: x, Status: status, End: end})
	}
	see(exchange("b", OpenAI, nil), 200, Complete)
	see(exchange("a", OpenAI, nil), 200, Truncated)
	see(exchange("a", OpenAI, func(x *Exchange) { x.Rule, x.Phase = "cut", "slow" }), 200, Truncated)
	see(exchange("a", OpenAI, func(x *Exchange) { x.Phase = "slow" }), 200, Complete)
	see(exchange("a", OpenAI, func(x *Exchange) { x.Phase, x.Failure, x.Answer = "out", &Failure{Status: 503}, nil }), 503, Complete)
	see(exchange("a", Anthropic, func(x *Exchange) { x.Phase, x.Fault.Kind, x.Answer = "dark", ResetBefore, nil }), 0, Left)
	tr.Observe(Event{Kind: Arrived, Exchange: exchange("a", Anthropic, nil)})
	got := ""
	for _, s := range tr.Series() {
		got += fmt.Sprintf("%s %s: %+v\n", s.Scenario, s.Vendor, s.Tally)
	}
	want := `a anthropic: {Requests:1 InputTokens:0 OutputTokens:0 Statuses:map[0:1] Faults:map[dark:1] Complete:0 Truncated:0 Left:1}
a openai: {Requests:4 InputTokens:30 OutputTokens:12 Statuses:map[200:3 503:1] Faults:map[cut:1 out:1] Complete:2 Truncated:2 Left:0}
b openai: {Requests:1 InputTokens:10 OutputTokens:4 Statuses:map[200:1] Faults:map[] Complete:1 Truncated:0 Left:0}
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	var all Tally
	for _, s := range tr.Series() {
		all.Add(s.Tally)
	}
	if sum := fmt.Sprintf("%+v", all); sum != "{Requests:6 InputTokens:40 OutputTokens:16 Statuses:map[0:1 200:4 503:1] Faults:map[cut:1 dark:1 out:1] Complete:3 Truncated:2 Left:1}" {
		t.Errorf("in all %s", sum)
	}
	if tr.Open() != 1 {
		t.Errorf("%d are open, want 1", tr.Open())
	}
	// What was handed out is not counted on.
	before := tr.Series()
	see(exchange("a", OpenAI, nil), 200, Complete)
	if before[1].Statuses[200] != 3 {
		t.Error("a series changed after it was read")
	}
}

func TestTrafficIsBounded(t *testing.T) {
	var tr Traffic
	for i := range maxSeries + 10 {
		tr.Observe(Event{Kind: Ended, Exchange: exchange(fmt.Sprint("s", i), OpenAI, nil)})
	}
	for i := range maxFaultNames + 10 {
		tr.Observe(Event{Kind: Ended, Exchange: exchange("s1", OpenAI, func(x *Exchange) { x.Rule = fmt.Sprint("r", i) })})
	}
	series := tr.Series()
	if len(series) != maxSeries+1 {
		t.Errorf("%d series, want %d and one for the others", len(series), maxSeries)
	}
	for _, s := range series {
		switch s.Scenario {
		case OtherNames:
			if s.Requests != 10 {
				t.Errorf("%d others, want 10", s.Requests)
			}
		case "s1":
			if len(s.Faults) != maxFaultNames+1 || s.Faults[OtherNames] != 10 {
				t.Errorf("%d faults, %d others", len(s.Faults), s.Faults[OtherNames])
			}
		}
	}
}

func TestTrafficAtTheSameTime(t *testing.T) {
	var tr Traffic
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 500 {
				x := exchange(fmt.Sprint((i+j)%3), OpenAI, nil)
				tr.Observe(Event{Kind: Arrived, Exchange: x})
				tr.Observe(Event{Kind: Ended, Exchange: x, Status: 200, End: Complete})
				if j%100 == 0 {
					tr.Series()
				}
			}
		})
	}
	group.Wait()
	var all Tally
	for _, s := range tr.Series() {
		all.Add(s.Tally)
	}
	if all.Requests != 4000 || tr.Open() != 0 || all.InputTokens != 40000 {
		t.Errorf("%+v", all)
	}
}

func BenchmarkTraffic(b *testing.B) {
	var tr Traffic
	x := exchange("scenario", OpenAI, nil)
	for b.Loop() {
		tr.Observe(Event{Kind: Arrived, Exchange: x})
		tr.Observe(Event{Kind: Ended, Exchange: x, Status: 200, End: Complete})
	}
}
