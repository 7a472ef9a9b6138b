package llmmock

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"edgehold.internal/libs/problem"
)

// MaxScenarios that may be in force at one time.
const MaxScenarios = 1000

// DefaultEpoch is that of a scenario that has none.
var DefaultEpoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Options of a Mock. The zero value has the defaults.
type Options struct {
	// Now is the clock of timelines and of rate limits; default time.Now. Requests bring their own time, by the same clock.
	Now func() time.Time
	// Remember is how many different requests each scenario counts at least, and what its faults are counted by. Beyond that,
	// those that did not come for longest are forgotten, and are new when they come back. Default 1<<18, some 20 MB a scenario
	// that has seen as many.
	Remember int
	// Default names the scenario that takes what no other matches; empty, or when there is none of that name, DefaultScenario.
	Default string
}

// Mock decides what happens to each request. It is safe for concurrent use.
//
// What it decides is a function of (seed, scenario, request hash, occurrence), so that the same requests get the same exchanges
// whatever the order they come in and however many at a time. Occurrences, and what faults are counted by, are counted apart for
// each Request.Run: a run gets the same beside another and after it. These depend on more, and only scenarios that use them do: a
// timeline and a shape on the clock, a rate limit and a load on what else goes on, and a fault counted per client, key or scenario
// on the order in which requests arrive. Faults counted per request, and by probability, do not.
type Mock struct {
	answerer Answerer
	now      func() time.Time
	remember int
	fallback string

	mu      sync.Mutex // of changes
	set     atomic.Pointer[set]
	runtime atomic.Pointer[runtime] // nil until something was started or ended
}

// set is the scenarios in force. It is never changed once made.
type set struct {
	list      []*running
	named     map[string]*running
	otherwise *running
}

func (s *set) names() []string {
	names := make([]string, len(s.list))
	for i, r := range s.list {
		names[i] = r.scenario.Name
	}
	return names
}

// running is a scenario in force, with all that it counts.
type running struct {
	scenario *Scenario
	start    time.Time
	match    matcher
	answers  []answerMatch
	faults   []faultRule
	phases   []phase
	latency  latency
	limits   *accounts // nil for none
	counts   counts
	underWay atomic.Int64
}

// faultRule is a FaultRule that was prepared.
type faultRule struct {
	FaultRule
	matcher matcher
	salt    uint64
	// own is whether the rule counts for itself the requests that it matches. Where that follows from the request alone it
	// need not: every occurrence of a request matches, or none.
	own bool
}

// NewMock makes a Mock with these scenarios in force. When none of them is named DefaultScenario there is one that answers at once
// and without faults. Errors are those of Replace.
func NewMock(scenarios []Scenario, answerer Answerer, o Options) (*Mock, error) {
	m := &Mock{answerer: answerer, now: o.Now, remember: o.Remember, fallback: cmp.Or(o.Default, DefaultScenario)}
	if m.now == nil {
		m.now = time.Now
	}
	if m.remember <= 0 {
		m.remember = 1 << 18
	}
	m.set.Store(new(set))
	if err := m.Replace(scenarios); err != nil {
		return nil, err
	}
	return m, nil
}

// Replace puts other scenarios in force, all at once. What is under way keeps its own; a scenario that is as it was goes on, with
// its counters, its buckets and its clock; the others begin. Invalid with the field, such as scenarios[1].faults[0].when, when one of
// them cannot be; then nothing is changed.
func (m *Mock) Replace(scenarios []Scenario) error {
	if err := tooMany(len(scenarios)); err != nil {
		return err
	}
	for i := range scenarios {
		if err := scenarios[i].Validate(); err != nil {
			return within(fmt.Sprintf("scenarios[%d]", i), err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before, now := m.set.Load(), m.now()
	next := &set{named: make(map[string]*running, len(scenarios)+1)}
	add := func(s *Scenario) *running {
		r := before.named[s.Name]
		if r == nil || !reflect.DeepEqual(r.scenario, s) {
			r = m.begin(s, now)
		}
		next.list = append(next.list, r)
		next.named[s.Name] = r
		return r
	}
	for i := range scenarios {
		s := scenarios[i]
		if next.named[s.Name] != nil {
			return problem.Invalidf(fmt.Sprintf("scenarios[%d].name", i), "%q is the name of a scenario before it too", s.Name)
		}
		add(&s)
	}
	if next.named[DefaultScenario] == nil {
		add(&Scenario{Name: DefaultScenario})
	}
	next.otherwise = cmp.Or(next.named[m.fallback], next.named[DefaultScenario])
	m.set.Store(next)
	if m.runtime.Load() != nil {
		m.runtime.Store(m.current(now))
	}
	return nil
}

func (m *Mock) begin(s *Scenario, now time.Time) *running {
	r := &running{scenario: s, start: now, match: newMatcher(&s.Match), latency: newLatency(&s.Latency), counts: newCounts(m.remember)}
	for i := range s.Answers {
		r.answers = append(r.answers, newAnswerMatch(&s.Answers[i]))
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		own := f.When.Per != "" && f.When.Per != PerRequest || len(f.Match.Keys)+len(f.Match.Clients) > 0
		r.faults = append(r.faults, faultRule{FaultRule: *f, matcher: newMatcher(&f.Match), own: own,
			salt: textHash("fault\x00" + cmp.Or(f.Name, fmt.Sprint("#", i)))})
	}
	for _, p := range s.Timeline {
		r.phases = append(r.phases, newPhase(p))
	}
	if s.Limits.Any() {
		r.limits = newAccounts(s.Limits)
	}
	return r
}

// Restart begins a scenario anew: its counters, its buckets and its timeline; all of them when the name is empty. NotFound for a
// name that nothing has.
func (m *Mock) Restart(scenario string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.known(scenario); err != nil {
		return err
	}
	before, now := m.set.Load(), m.now()
	next := &set{named: make(map[string]*running, len(before.list))}
	for _, r := range before.list {
		if scenario == "" || r.scenario.Name == scenario {
			r = m.begin(r.scenario, now)
		}
		next.list = append(next.list, r)
		next.named[r.scenario.Name] = r
	}
	next.otherwise = cmp.Or(next.named[m.fallback], next.named[DefaultScenario])
	m.set.Store(next)
	if m.runtime.Load() != nil {
		run := m.current(now)
		run.ended = slices.DeleteFunc(run.ended, func(e ended) bool { return scenario == "" || e.scenario == scenario })
		m.runtime.Store(run)
	}
	return nil
}

// ScenarioStatus is a scenario in force.
type ScenarioStatus struct {
	Scenario *Scenario // must not be changed
	Start    time.Time
	// UnderWay is how many requests are being answered.
	UnderWay int
	// Forgotten is how many requests were, for there were more than Options.Remember.
	Forgotten uint64
}

// Scenarios in force, in the order in which they are looked at.
func (m *Mock) Scenarios() []ScenarioStatus {
	list := m.set.Load().list
	all := make([]ScenarioStatus, len(list))
	for i, r := range list {
		all[i] = ScenarioStatus{Scenario: r.scenario, Start: r.start, UnderWay: int(r.underWay.Load()), Forgotten: r.counts.lost()}
	}
	return all
}

// Scenario is the one that q would be decided by. It must not be changed.
func (m *Mock) Scenario(q *Request) *Scenario {
	r, _ := m.set.Load().choose(q)
	return r.scenario
}

// choose is by name, then the first that matches, then the default. A name that nothing has is never answered by another
// scenario: the test that asked for it would pass for the wrong reason.
func (s *set) choose(q *Request) (*running, *Failure) {
	if q.Scenario != "" {
		if r := s.named[q.Scenario]; r != nil {
			return r, nil
		}
		return s.otherwise, &Failure{Status: 400, Reason: BadRequest, Code: "unknown_scenario",
			Message: fmt.Sprintf("There is no scenario %q in this mock; look at its list for what there is.", cut(q.Scenario))}
	}
	for _, r := range s.list {
		if r.match.set && r.match.match(q) {
			return r, nil
		}
	}
	return s.otherwise, nil
}

// Decide says all that will happen to the request. Done must be called when it has. A request whose At is zero has come now.
func (m *Mock) Decide(q *Request) *Exchange {
	if q.At.IsZero() {
		q.At = m.now()
	}
	r, unknown := m.set.Load().choose(q)
	s := r.scenario
	run := mixText(q.Run)
	x := &Exchange{Request: q, running: r,
		Moment: Moment{Seed: s.Seed, Scenario: s.Name, Request: q.Hash, Occurrence: r.counts.next(uint64(q.Hash) ^ run)}}
	moment := &x.Moment
	x.ID = moment.ID()
	x.Created = created(s.Epoch, moment)
	underWay := r.underWay.Add(1)

	// All faults count, also those that have no say this time.
	var fault *faultRule
	for i := range r.faults {
		f := &r.faults[i]
		if f.matcher.match(q) && f.due(r, q, moment, run) && fault == nil {
			fault = f
		}
	}
	if unknown != nil {
		x.Failure = unknown
		return x
	}
	w := r.weather(q, moment, m.runtime.Load())
	x.Phase = w.phase
	factor := w.slow * s.Latency.Load.factor(underWay) * shapeAt(s.Latency.Shape, q.At.Sub(r.start))
	switch {
	case w.failure != nil:
		x.Failure = w.failure
		if w.slow != 1 {
			x.Schedule.First = r.latency.toFirst(*moment, factor)
		}
		return x
	case w.fault.Kind != NoFault:
		x.Fault = w.fault
		return x
	}
	if r.limits != nil {
		account, tokens := r.limits.of(q, q.At), q.Estimate()
		limits, refused := account.admit(q.At, tokens)
		x.Limits = &limits
		if refused != nil {
			x.Failure = refused
			return x
		}
		x.account, x.reserved = account, tokens
	}
	if fault != nil {
		x.Fault, x.Rule = fault.Fault, fault.label()
		switch fault.Kind {
		case FailStatus:
			f := x.Fault.Failure.complete(q.Vendor)
			x.Fault.Failure, x.Failure = f, &f
			x.Schedule.First = fault.Wait
			return x
		case FailInBody, FailMidStream:
			x.Fault.Failure = x.Fault.Failure.complete(q.Vendor)
		}
	}
	m.answer(x)
	if x.Answer != nil && x.Answer.Recorded != nil {
		x.play(factor)
		return x
	}
	if x.Failure == nil {
		prompt := 0
		if x.Answer != nil {
			prompt = x.Answer.Usage.Input - x.Answer.Usage.Cached
		}
		x.Schedule = r.latency.schedule(*moment, prompt, x.pieces(), factor)
	}
	if before := q.Resumes; before != nil {
		x.Schedule = before.Schedule
		x.Schedule.First += before.At.Sub(q.At)
	}
	return x
}

func (m *Mock) answer(x *Exchange) {
	q, r := x.Request, x.running
	for i := range r.answers {
		rule := &r.scenario.Answers[i]
		if !r.answers[i].match(q) {
			continue
		}
		if rule.Play == "" {
			x.Failure = nil
			m.say(x, rule)
			return
		}
		// What was not recorded is for the rules after it; without any the first one says what is missing.
		answer, failure := m.answerer.Answer(r.scenario, rule, q, x.Moment)
		if failure == nil || failure.Code != NotRecorded {
			x.Answer, x.Failure = answer, failure
			return
		}
		x.Failure = cmp.Or(x.Failure, failure)
	}
	if x.Failure == nil {
		m.say(x, nil)
	}
}

// say asks for the answers of a rule that is not played, or of none.
func (m *Mock) say(x *Exchange, rule *AnswerRule) {
	q, s := x.Request, x.running.scenario
	if q.Operation == Other {
		return
	}
	if x.Answer, x.Failure = m.answerer.Answer(s, rule, q, x.Moment); x.Failure != nil {
		x.Answer = nil
		return
	}
	for i := 1; i < min(q.Choices, MaxChoices); i++ {
		more, failure := m.answerer.Answer(s, rule, q, x.Moment.Choice(i))
		if failure != nil {
			x.Answer, x.More, x.Failure = nil, nil, failure
			return
		}
		x.More = append(x.More, more)
	}
}

// MaxChoices of one request, which is the most that any vendor allows.
const MaxChoices = 128

// Done ends an exchange: it is no load any longer, and the tokens that it did not use go back into the bucket. Only the first call
// for an exchange counts. The scenario need not be in force any longer.
func (m *Mock) Done(x *Exchange) {
	if x.running == nil || !atomic.CompareAndSwapUint32(&x.ended, 0, 1) {
		return
	}
	x.running.underWay.Add(-1)
	if x.account != nil {
		x.account.settle(m.now(), x.reserved, x.Usage().Total())
	}
}

// due counts the request, and says whether this one is hit.
func (f *faultRule) due(r *running, q *Request, m *Moment, run uint64) bool {
	w := &f.When
	if w.Always {
		return true
	}
	if w.Probability > 0 && m.chance(f.salt) < w.Probability {
		// What counts must count, whatever was drawn.
		if w.First > 0 || w.Every > 0 {
			f.number(r, q, m, run)
		}
		return true
	}
	if w.First == 0 && w.Every == 0 {
		return false
	}
	n := f.number(r, q, m, run)
	return n <= uint64(w.First) || w.Every > 0 && n%uint64(w.Every) == 0
}

// number of the request among those that are counted together, from 1.
func (f *faultRule) number(r *running, q *Request, m *Moment, run uint64) uint64 {
	if !f.own {
		return m.Occurrence + 1
	}
	var of uint64
	switch f.When.Per {
	case PerClient:
		of = textHash(q.Client)
	case PerKey:
		of = textHash(q.Key)
	case PerScenario:
	default:
		of = uint64(q.Hash)
	}
	return r.counts.next(mix(of^f.salt)^run) + 1
}

// label is the name, or what went wrong.
func (f *faultRule) label() string { return cmp.Or(f.Name, string(f.Kind)) }

// complete fills in the status or the reason that goes with the other.
func (f Failure) complete(v Vendor) Failure {
	if f.Status == 0 {
		f.Reason = cmp.Or(f.Reason, Broken)
		f.Status = StatusOf(f.Reason, v)
	}
	f.Reason = cmp.Or(f.Reason, ReasonOf(f.Status))
	return f
}

// created is within a day of the epoch, and a second later for each occurrence: lists by time have an order, and it is the same in
// every run.
func created(epoch time.Time, m *Moment) time.Time {
	if epoch.IsZero() {
		epoch = DefaultEpoch
	}
	const day = 24 * 60 * 60
	return epoch.Add(time.Duration(uint64(m.Request)%day+m.Occurrence%day) * time.Second)
}

// chance is in 0 … 1: what is drawn for one thing that may happen, whatever else is drawn.
func (m *Moment) chance(salt uint64) float64 {
	return unit(mix(mix(mix(m.Seed^salt)^uint64(m.Request)) ^ m.Occurrence))
}

// mixText is 0 for no text.
func mixText(s string) uint64 {
	if s == "" {
		return 0
	}
	return mix(textHash(s))
}

// Pieces is how many tokens an answer is streamed in. Tool calls come in tokens too, which only their number in Usage tells.
func (a *Answer) Pieces() int {
	if a.Recorded != nil {
		return len(a.Recorded.Pieces)
	}
	n := len(a.ThinkingTokens) + len(a.Tokens)
	if len(a.Calls) > 0 {
		n = max(n, a.Usage.Output)
	}
	return min(n, MaxPieces)
}

// MaxPieces is how many tokens of an answer have a time of their own.
const MaxPieces = 1 << 20

// pieces of the longest choice: they are streamed side by side.
func (x *Exchange) pieces() int {
	n := 0
	if x.Answer != nil {
		n = x.Answer.Pieces()
	}
	for _, a := range x.More {
		n = max(n, a.Pieces())
	}
	return n
}

// Usage of all choices. The prompt counts once.
func (x *Exchange) Usage() Usage {
	if x.Answer == nil {
		return Usage{}
	}
	u := x.Answer.Usage
	for _, a := range x.More {
		u.Output += a.Usage.Output
		u.Reasoning += a.Usage.Reasoning
	}
	return u
}

// Behaviour is the scenario that the exchange was decided by; nil when it was made otherwise. It must not be changed.
func (x *Exchange) Behaviour() *Scenario {
	if x.running == nil {
		return nil
	}
	return x.running.scenario
}
