package llmmock

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Bounds of a Traffic: what is beyond them counts as OtherNames.
const (
	maxSeries     = 5 * MaxScenarios // of scenario and vendor
	maxFaultNames = 200              // of each of them
)

// OtherNames is the name of scenarios and faults that a Traffic does not tell apart.
const OtherNames = "(other)"

// Traffic counts what a mock answers, by scenario and vendor. The zero value is ready; it is safe for concurrent use, and bounded.
type Traffic struct {
	open   atomic.Int64
	mu     sync.RWMutex
	series map[seriesKey]*series
}

type seriesKey struct {
	scenario string
	vendor   Vendor
}

type series struct {
	mu sync.Mutex
	Tally
}

// Tally is what was counted.
type Tally struct {
	// Requests that have ended.
	Requests int
	// InputTokens of prompts and OutputTokens of answers.
	InputTokens, OutputTokens int
	// Statuses that requests ended with; 0 when the connection ended before one.
	Statuses map[int]int
	// Faults committed, by the name of the rule or phase, or its kind.
	Faults map[string]int
	// Ends of answers.
	Complete, Truncated, Left int
}

// Observe counts an event.
func (t *Traffic) Observe(e Event) {
	switch e.Kind {
	case Arrived:
		t.open.Add(1)
	case Ended:
		// In this order, so that whoever finds nothing open finds everything counted.
		t.of(seriesKey{e.Exchange.Moment.Scenario, e.Exchange.Vendor}).ended(&e)
		t.open.Add(-1)
	}
}

// Open is how many requests have not ended.
func (t *Traffic) Open() int { return int(t.open.Load()) }

func (s *series) ended(e *Event) {
	x := e.Exchange
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Requests++
	s.Statuses[e.Status]++
	switch e.End {
	case Truncated:
		s.Truncated++
	case Left:
		s.Left++
	default:
		s.Complete++
	}
	u := x.Usage()
	s.InputTokens += u.Input
	s.OutputTokens += u.Output
	fault := x.Rule
	if fault == "" && (x.Failure != nil || x.Fault.Kind != NoFault) {
		fault = x.Phase
	}
	if fault == "" {
		return
	}
	if _, ok := s.Faults[fault]; !ok && len(s.Faults) >= maxFaultNames {
		fault = OtherNames
	}
	s.Faults[fault]++
}

func (t *Traffic) of(key seriesKey) *series {
	t.mu.RLock()
	s := t.series[key]
	t.mu.RUnlock()
	if s != nil {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.series == nil {
		t.series = make(map[seriesKey]*series)
	}
	if t.series[key] == nil && len(t.series) >= maxSeries {
		key.scenario = OtherNames
	}
	if s = t.series[key]; s == nil {
		s = &series{Tally: Tally{Statuses: make(map[int]int), Faults: make(map[string]int)}}
		t.series[key] = s
	}
	return s
}

// Series is what was counted of one scenario and vendor.
type Series struct {
	Scenario string
	Vendor   Vendor
	Tally
}

// Series are all there are, by scenario and vendor.
func (t *Traffic) Series() []Series {
	t.mu.RLock()
	all := make([]Series, 0, len(t.series))
	for key, s := range t.series {
		s.mu.Lock()
		one := Series{key.scenario, key.vendor, s.Tally}
		one.Statuses, one.Faults = maps.Clone(s.Statuses), maps.Clone(s.Faults)
		s.mu.Unlock()
		all = append(all, one)
	}
	t.mu.RUnlock()
	slices.SortFunc(all, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Scenario, b.Scenario), cmp.Compare(a.Vendor, b.Vendor))
	})
	return all
}

// Add adds what another has counted.
func (t *Tally) Add(o Tally) {
	t.Requests += o.Requests
	t.InputTokens += o.InputTokens
	t.OutputTokens += o.OutputTokens
	t.Complete += o.Complete
	t.Truncated += o.Truncated
	t.Left += o.Left
	t.Statuses, t.Faults = sum(t.Statuses, o.Statuses), sum(t.Faults, o.Faults)
}

// sum adds b to a copy of a.
func sum[K comparable](a, b map[K]int) map[K]int {
	s := make(map[K]int, len(a)+len(b))
	maps.Copy(s, a)
	for k, n := range b {
		s[k] += n
	}
	return s
}
