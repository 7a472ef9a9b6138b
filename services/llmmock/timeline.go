package llmmock

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
)

// MaxPhases is how many phases may have been started at run time and not ended yet.
const MaxPhases = 256

// phase is a Phase that was prepared.
type phase struct {
	Phase
	matcher matcher
	regions patterns
	// salt of what is drawn for Share: two mocks with the same seed hit the same requests.
	salt uint64
}

func newPhase(p Phase) phase {
	return phase{Phase: p, matcher: newMatcher(&p.Match), regions: newPatterns(p.Regions), salt: textHash("phase\x00" + p.Name)}
}

func (p *phase) match(q *Request) bool { return p.matcher.match(q) && p.regions.match(q.Region) }

// window is the occurrence of the phase at a time since its origin: when that began, and whether it lasts.
func (p *phase) window(at time.Duration) (began time.Duration, lasts bool) {
	passed := at - p.At
	if passed < 0 {
		return 0, false
	}
	began = p.At
	if p.Every > 0 {
		began += passed / p.Every * p.Every
	}
	return began, p.For == 0 || at-began < p.For
}

// hits draws whether the request is one of its share.
func (p *phase) hits(m *Moment) bool {
	share := p.Share
	if share == 0 {
		// A brownout slows everybody, and makes fail those that it is told to.
		return p.Kind != Brownout
	}
	return share >= 1 || m.chance(p.salt) < share
}

// failure of those that are hit, and the fault when it is no answer at all.
func (p *phase) failure(q *Request) (Failure, Fault) {
	f := p.Failure
	if p.Kind == Dark {
		return Failure{}, Fault{Kind: ResetBefore}
	}
	if f.Status == 0 {
		usual := Failure{Status: 503, Reason: Unavailable}
		switch {
		case p.Kind == Quota:
			usual = Failure{Status: 429, Reason: QuotaExhausted}
		case q.Vendor == Anthropic:
			usual = Failure{Status: 529, Reason: Overloaded}
		}
		f.Status, f.Reason = usual.Status, cmp.Or(f.Reason, usual.Reason)
	}
	f.Reason = cmp.Or(f.Reason, ReasonOf(f.Status))
	return f, Fault{}
}

// ReasonOf is the usual reason of a status.
func ReasonOf(status int) Reason {
	switch status {
	case 401:
		return Unauthenticated
	case 402:
		return NoCredit
	case 403:
		return Forbidden
	case 404:
		return NotFound
	case 405:
		return MethodUnknown
	case 409:
		return Conflict
	case 413:
		return TooLarge
	case 422, 424: // the latter is Bedrock's
		return Unprocessable
	case 429:
		return RateLimited
	case 503:
		return Unavailable
	case 408, 504:
		return TimedOut
	case 529:
		return Overloaded
	}
	if status >= 400 && status < 500 {
		return BadRequest
	}
	return Broken
}

// weather is what timelines have for one request.
type weather struct {
	phase   string // that makes it fail, or slows it
	slow    float64
	failure *Failure
	fault   Fault
}

// started is a phase that was begun at run time.
type started struct {
	scenario string // empty for all
	phase    phase
	at       time.Time
}

// ended is a phase of a scenario's timeline whose present window was ended early.
type ended struct {
	scenario, name string
	at             time.Time
}

// runtime is what was done to timelines at run time. It is never changed once in force.
type runtime struct {
	started []started
	ended   []ended
}

func (r *runtime) overridden(scenario, name string, began time.Time) bool {
	for i := range r.ended {
		if e := &r.ended[i]; e.name == name && e.scenario == scenario && !began.After(e.at) {
			return true
		}
	}
	return false
}

// weather at the time of a request. Phases hold in the order of the timeline, those started at run time before them; the first
// that hits makes the request fail, and all that slow it multiply.
func (r *running) weather(q *Request, m *Moment, run *runtime) weather {
	w := weather{slow: 1}
	if run != nil {
		for i := range run.started {
			s := &run.started[i]
			if s.scenario != "" && s.scenario != r.scenario.Name {
				continue
			}
			if _, lasts := s.phase.window(q.At.Sub(s.at)); lasts {
				w.add(&s.phase, q, m)
			}
		}
	}
	if len(r.phases) == 0 {
		return w
	}
	at := q.At.Sub(r.start)
	for i := range r.phases {
		p := &r.phases[i]
		began, lasts := p.window(at)
		if lasts && (run == nil || !run.overridden(r.scenario.Name, p.Name, r.start.Add(began))) {
			w.add(p, q, m)
		}
	}
	return w
}

func (w *weather) add(p *phase, q *Request, m *Moment) {
	if !p.match(q) {
		return
	}
	if p.Kind == Brownout && p.Slow > 0 {
		w.slow *= p.Slow
		w.phase = cmp.Or(w.phase, p.Name)
	}
	if w.failure != nil || w.fault.Kind != NoFault || !p.hits(m) {
		return
	}
	w.phase = p.Name
	f, fault := p.failure(q)
	if fault.Kind != NoFault {
		w.fault = fault
		return
	}
	w.failure = &f
}

// PhaseStatus is a phase and where it stands.
type PhaseStatus struct {
	// Scenario it belongs to; empty for one that was started for all of them.
	Scenario string
	Phase    Phase
	// Started at run time, and not by its scenario's timeline.
	Started bool
	// Active now.
	Active bool
	// Began is when the present window did, or the last one; zero when there was none yet.
	Began time.Time
	// Ends is when that one ends or ended; zero for one that lasts until it is ended.
	Ends time.Time
	// Next is when the next window begins; zero for never.
	Next time.Time
}

func (p *phase) status(origin, now time.Time) PhaseStatus {
	st := PhaseStatus{Phase: p.Phase}
	at := now.Sub(origin)
	if at < p.At {
		st.Next = origin.Add(p.At)
		return st
	}
	began, lasts := p.window(at)
	st.Active, st.Began = lasts, origin.Add(began)
	if p.For > 0 {
		st.Ends = st.Began.Add(p.For)
	}
	if p.Every > 0 {
		st.Next = st.Began.Add(p.Every)
	}
	return st
}

// Phases are all that there are: those started at run time, then each scenario's.
func (m *Mock) Phases() []PhaseStatus {
	now, run := m.now(), m.runtime.Load()
	var all []PhaseStatus
	if run == nil {
		run = new(runtime)
	}
	for i := range run.started {
		s := &run.started[i]
		st := s.phase.status(s.at, now)
		st.Scenario, st.Started = s.scenario, true
		all = append(all, st)
	}
	for _, r := range m.set.Load().list {
		for i := range r.phases {
			p := &r.phases[i]
			st := p.status(r.start, now)
			st.Scenario = r.scenario.Name
			if st.Active && run.overridden(st.Scenario, p.Name, st.Began) {
				st.Active = false
			}
			all = append(all, st)
		}
	}
	return all
}

// StartPhase begins a phase now: its At is not waited for. It holds for the named scenario, or for all of them when scenario is
// empty. A phase that has no Kind is the one of that name in the timeline of the scenario, or of the first that has one. To start what lasts already is no error
// and changes nothing, so that whoever starts it may try again.
//
// Errors: Invalid, NotFound for a scenario or a phase that there is not, AlreadyExists when another phase of that name lasts, and
// ResourceExhausted when MaxPhases last.
func (m *Mock) StartPhase(scenario string, p Phase) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.known(scenario); err != nil {
		return err
	}
	if p.Kind == "" {
		declared, err := m.declared(scenario, p.Name)
		if err != nil {
			return err
		}
		p = declared
	}
	p.At = 0
	if err := p.Validate(); err != nil {
		return err
	}
	now := m.now()
	next := m.current(now)
	for i := range next.started {
		if s := &next.started[i]; s.scenario == scenario && s.phase.Name == p.Name {
			if reflect.DeepEqual(s.phase.Phase, p) {
				return nil
			}
			return problem.New(problem.AlreadyExists, "name", "a phase %q with other terms lasts since %s; end it first, or use another name", p.Name, s.at.Format(time.RFC3339))
		}
	}
	if len(next.started) >= MaxPhases {
		return problem.New(problem.ResourceExhausted, "", "%d phases were started and not ended; end one first", MaxPhases)
	}
	next.started = append(next.started, started{scenario: scenario, phase: newPhase(p), at: now})
	m.runtime.Store(next)
	return nil
}

// EndPhase ends a phase now: one that was started, and the present window of one in a timeline. One that is over already is no
// error. NotFound for a name that nothing has.
func (m *Mock) EndPhase(scenario, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.known(scenario); err != nil {
		return err
	}
	now := m.now()
	next := m.current(now)
	before := len(next.started)
	next.started = slices.DeleteFunc(next.started, func(s started) bool { return s.scenario == scenario && s.phase.Name == name })
	found := len(next.started) < before
	for _, r := range m.set.Load().list {
		if scenario != "" && r.scenario.Name != scenario {
			continue
		}
		for i := range r.phases {
			if r.phases[i].Name != name {
				continue
			}
			found = true
			next.ended = slices.DeleteFunc(next.ended, func(e ended) bool { return e.scenario == r.scenario.Name && e.name == name })
			next.ended = append(next.ended, ended{scenario: r.scenario.Name, name: name, at: now})
		}
	}
	if !found && !m.over(scenario, name) {
		return problem.NotFoundf("name", "no phase %q was started%s, and no timeline has one", name, in(scenario))
	}
	m.runtime.Store(next)
	return nil
}

func in(scenario string) string {
	if scenario == "" {
		return ""
	}
	return " in scenario " + scenario
}

// over is whether it was started and has ended by itself.
func (m *Mock) over(scenario, name string) bool {
	run := m.runtime.Load()
	return run != nil && slices.ContainsFunc(run.started, func(s started) bool { return s.scenario == scenario && s.phase.Name == name })
}

// current is a copy of what is in force, without what is over or belongs to nothing any longer.
func (m *Mock) current(now time.Time) *runtime {
	next := new(runtime)
	run := m.runtime.Load()
	if run == nil {
		return next
	}
	set := m.set.Load()
	for i := range run.started {
		s := run.started[i]
		over := s.phase.For > 0 && s.phase.Every == 0 && now.Sub(s.at) >= s.phase.For
		if !over && (s.scenario == "" || set.named[s.scenario] != nil) {
			next.started = append(next.started, s)
		}
	}
	for _, e := range run.ended {
		if set.named[e.scenario] != nil {
			next.ended = append(next.ended, e)
		}
	}
	return next
}

func (m *Mock) known(scenario string) error {
	set := m.set.Load()
	if scenario == "" || set.named[scenario] != nil {
		return nil
	}
	return problem.NotFoundf("scenario", "there is no scenario %q; there is %s", scenario, strings.Join(set.names(), ", "))
}

func (m *Mock) declared(scenario, name string) (Phase, error) {
	var names []string
	for _, r := range m.set.Load().list {
		if scenario != "" && r.scenario.Name != scenario {
			continue
		}
		for i := range r.phases {
			if r.phases[i].Name == name {
				return r.phases[i].Phase, nil
			}
			names = append(names, r.phases[i].Name)
		}
	}
	if len(names) == 0 {
		return Phase{}, problem.NotFoundf("name", "no timeline%s has phases; say what kind %q is", in(scenario), name)
	}
	return Phase{}, problem.NotFoundf("name", "no timeline%s has a phase %q; there is %s", in(scenario), name, strings.Join(names, ", "))
}
