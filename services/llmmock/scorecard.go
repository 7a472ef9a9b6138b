package llmmock

import (
	"sync"
	"time"

	"edgehold.internal/libs/problem"
)

// Bounds of a Drill.
const (
	// MaxAsks that a drill follows; those after them count as requests and in no other way.
	MaxAsks = 1 << 17
	// DefaultPatience is how long an ask may take before its client counts as not served.
	DefaultPatience = 10 * time.Second
)

// DrillConfig says what is rehearsed.
type DrillConfig struct {
	// Name of the drill; the phase's when empty.
	Name string
	// Scenario whose requests count; empty for all.
	Scenario string
	// Phase that begins when the drill does. Its Match and Regions tell which endpoints it reaches.
	Phase Phase
	// Began is when, and Ended is zero until Drill.End.
	Began, Ended time.Time
	// Patience; 0 for DefaultPatience.
	Patience time.Duration
	// Prices for the tokens; nil for none.
	Prices Prices
	// Mocked is what running the mock costs. Its Time is that of the drill when it is 0.
	Mocked Mocked
}

// Drill follows what clients do while a provider has a phase, to score it. What counts as one is an ask: the same conversation,
// whichever vendor it is sent to, so that a failover is seen as one. It is safe for concurrent use, and bounded.
type Drill struct {
	config DrillConfig
	phase  phase

	mu                          sync.Mutex
	requests, retried, untraced int
	failed                      int
	firstFailure                time.Time
	detected, returned          time.Time
	diverted                    int
	asks                        map[uint64]*ask
	clients                     map[clientRun]*drilled
	meter                       Meter
}

// ask is a conversation that waits for its next turn.
type ask struct {
	first time.Time // request
	// served and failedLast are the first success and the last failure; zero for none.
	served, failedLast time.Time
	attempts           int
	underWay           int
	successes          int
	failedInside       bool
	diverted           bool
}

// drilled is what a drill knows of a client.
type drilled struct {
	failedInside, outsideBefore bool
}

// NewDrill begins a drill. Invalid when its phase cannot be, or it has no beginning.
func NewDrill(c DrillConfig) (*Drill, error) {
	c.Phase.At = 0
	if err := c.Phase.Validate(); err != nil {
		return nil, within("phase", err)
	}
	if c.Began.IsZero() {
		return nil, problem.Invalidf("began", "is not set; a drill counts from when its phase begins")
	}
	if !c.Ended.IsZero() && c.Ended.Before(c.Began) {
		return nil, problem.Invalidf("ended", "%s is before it began", c.Ended.Format(time.RFC3339))
	}
	if c.Patience < 0 || c.Patience > Longest {
		return nil, problem.Invalidf("patience", "%s is not allowed; use 0s to %s", c.Patience, Longest)
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	if c.Name == "" {
		c.Name = c.Phase.Name
	}
	if c.Ended.IsZero() && c.Phase.For > 0 && c.Phase.Every == 0 {
		c.Ended = c.Began.Add(c.Phase.For)
	}
	return &Drill{config: c, phase: newPhase(c.Phase), asks: make(map[uint64]*ask), clients: make(map[clientRun]*drilled)}, nil
}

// End is when the phase ended, for one that had no time set or ended early. The drill goes on: clients have yet to come back.
func (d *Drill) End(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config.Ended = at
}

// Observe learns from an event. What came before the drill, or to other scenarios, does not count; but what a client sent elsewhere
// before it failed for the first time tells a failover from what it does anyway.
func (d *Drill) Observe(e Event) {
	x := e.Exchange
	q := x.Request
	if d.config.Scenario != "" && x.Moment.Scenario != d.config.Scenario || e.Kind != Arrived && e.Kind != Ended || q.Operation != Generate && q.Operation != Embed {
		return
	}
	inside, id := d.phase.match(q), q.Ask()
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.At.Before(d.config.Began) {
		if !inside {
			d.client(q).outsideBefore = true
		}
		return
	}
	if e.Kind == Arrived {
		d.arrived(&e, id, inside)
	} else {
		d.ended(&e, id, inside)
	}
}

func (d *Drill) client(q *Request) *drilled {
	key := clientRun{limit(q.Client, maxClientName), limit(q.Run, maxClientName)}
	c := d.clients[key]
	if c == nil {
		c = new(drilled)
		if len(d.clients) < MaxClients {
			d.clients[key] = c
		}
	}
	return c
}

func (d *Drill) arrived(e *Event, id uint64, inside bool) {
	d.requests++
	a := d.asks[id]
	switch {
	case a == nil && len(d.asks) >= MaxAsks:
		d.untraced++
		return
	case a == nil:
		a = &ask{first: e.At}
		d.asks[id] = a
	case a.successes == 0 && !a.failedLast.IsZero():
		d.retried++
	}
	a.attempts++
	a.underWay++
	if inside {
		return
	}
	c := d.client(e.Exchange.Request)
	switch {
	case a.failedInside && a.successes == 0:
		// The very ask that failed there is sent elsewhere.
		if !a.diverted {
			a.diverted = true
			d.diverted++
		}
	case c.failedInside && !c.outsideBefore:
		d.diverted++
	default:
		c.outsideBefore = c.outsideBefore || !c.failedInside
		return
	}
	if d.detected.IsZero() {
		d.detected = e.At
	}
}

func (d *Drill) ended(e *Event, id uint64, inside bool) {
	x := e.Exchange
	q := x.Request
	served := e.served()
	d.meter.Observe(*e)
	a := d.asks[id]
	if a != nil {
		a.underWay = max(a.underWay-1, 0)
	}
	if served {
		if a != nil {
			if a.successes++; a.successes == 1 {
				a.served = e.At
			}
		}
		if ended := d.config.Ended; inside && d.returned.IsZero() && !ended.IsZero() && !q.At.Before(ended) {
			d.returned = e.At
		}
		return
	}
	d.failed++
	if a != nil {
		a.failedLast = e.At
	}
	if !inside {
		return
	}
	if d.firstFailure.IsZero() {
		d.firstFailure = e.At
	}
	d.client(q).failedInside = true
	if a != nil {
		a.failedInside = true
	}
}

// Scorecard is how clients came through a drill.
type Scorecard struct {
	Name         string
	Phase        Phase
	Began, Ended time.Time // Ended is zero while it lasts
	// Requests that came, for so many Asks.
	Requests, Asks int
	// Retried are requests for an ask that had failed before and was not served yet; Diverted those sent to endpoints that the
	// phase does not reach because of it.
	Retried, Diverted int
	// Failed requests, cut off and given up ones too.
	Failed int
	// Lost are asks that failed and were never served, Pending those of which something is still under way.
	Lost, Pending int
	// Duplicated are asks that were served, and paid for, more than once.
	Duplicated int
	// Slow are asks that were served after more than the drill's patience.
	Slow int
	// Amplification is Requests ÷ Asks; 0 without any.
	Amplification float64
	// Felt is from the phase's beginning to the first failure; Detect to the first request that a client sent elsewhere because
	// of it; Recover to when the last ask was served that was lost or took longer than the drill's patience: from then on
	// everybody got what they asked for in time. Return is from the phase's end to the first request that was served where the
	// phase had been. All but Recover, which is 0 when nobody waited, are unknown when it did not happen; Recover is unknown
	// while asks are lost or pending beyond patience and nothing that came after the last of them was served.
	Felt, Detect, Recover, Return Span
	// Uses are the tokens by model, and Savings what they would have cost.
	Uses    []Use
	Savings Savings
	// Untraced are requests beyond MaxAsks.
	Untraced int
}

// Span is a duration that may be unknown.
type Span struct {
	Known bool
	D     time.Duration
}

// String is the duration, or "unknown".
func (s Span) String() string {
	if !s.Known {
		return "unknown"
	}
	return s.D.String()
}

func since(began, at time.Time) Span {
	if at.IsZero() {
		return Span{}
	}
	return Span{true, at.Sub(began)}
}

// Card scores the drill as it stands.
func (d *Drill) Card(now time.Time) Scorecard {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &d.config
	s := Scorecard{Name: c.Name, Phase: c.Phase, Began: c.Began, Requests: d.requests, Asks: len(d.asks), Retried: d.retried, Diverted: d.diverted,
		Failed: d.failed, Untraced: d.untraced, Felt: since(c.Began, d.firstFailure), Detect: since(c.Began, d.detected)}
	if !c.Ended.After(now) {
		s.Ended = c.Ended
	}
	if !d.returned.IsZero() {
		s.Return = since(c.Ended, d.returned)
	}
	if s.Asks > 0 {
		s.Amplification = float64(s.Requests-s.Untraced) / float64(s.Asks)
	}
	// Asks that began before the last bad one was over prove nothing.
	var over, lastServed time.Time
	for _, a := range d.asks {
		bad := time.Time{}
		switch {
		case a.successes > 0:
			if a.served.Sub(a.first) > c.Patience {
				s.Slow++
				bad = a.served
			} else if a.first.After(lastServed) {
				lastServed = a.first
			}
			if a.successes > 1 {
				s.Duplicated++
			}
		case a.underWay > 0:
			s.Pending++
			if now.Sub(a.first) > c.Patience {
				bad = now
			}
		case !a.failedLast.IsZero():
			s.Lost++
			bad = a.failedLast
		}
		if bad.After(over) {
			over = bad
		}
	}
	switch {
	case over.IsZero():
		s.Recover = Span{Known: true}
	case !lastServed.IsZero() && !lastServed.Before(over) || d.servedAt(over):
		s.Recover = since(c.Began, over)
	}
	s.Uses = d.meter.Uses(c.Prices)
	by := c.Mocked
	if by.Time == 0 {
		by.Time = now.Sub(c.Began)
	}
	s.Savings = Save(s.Uses, by)
	return s
}

// servedAt is whether what was over last was a slow ask that was served then: its own success is the proof.
func (d *Drill) servedAt(over time.Time) bool {
	for _, a := range d.asks {
		if a.successes > 0 && a.served.Equal(over) {
			return true
		}
	}
	return false
}
