package llmmock

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"edgehold.internal/libs/problem"
)

// Bounds of Drills.
const (
	// MaxDrills that are followed at one time: each costs every request a look.
	MaxDrills = 8
	// RememberedDrills are those whose scorecards are kept; the oldest that is not followed goes.
	RememberedDrills = 100
	// FollowedAfter is how long a drill is followed after its phase has ended.
	FollowedAfter = time.Hour
)

// DrillState is how far a drill has come.
type DrillState string

// The states.
const (
	DrillPhase    DrillState = "phase"    // it lasts
	DrillRecovery DrillState = "recovery" // it is over, and clients are followed coming back
	DrillClosed   DrillState = "closed"   // not followed any longer
)

// DrillStatus is a drill and where it stands.
type DrillStatus struct {
	Name, Scenario string
	Phase          Phase
	State          DrillState
	// Ended is when the phase did; zero while it lasts.
	Began, Ended time.Time
	// Principal and Reason of whoever started it.
	Principal, Reason string
}

// Drills are those of a Mock: each begins a phase, and scores how clients come through it. It is safe for concurrent use, and bounded.
type Drills struct {
	mock *Mock

	mu       sync.Mutex
	list     []*rehearsal // oldest first
	followed atomic.Pointer[[]*following]
}

// rehearsal is a drill that is remembered.
type rehearsal struct {
	DrillStatus
	*following           // nil when it is closed
	card       Scorecard // when it is
}

// following is a drill that learns from events. They are read without the lock.
type following struct {
	drill *Drill
	// until is when it ends, in ns since 1970; 0 while the phase has no end.
	until atomic.Int64
}

// NewDrills has none yet.
func NewDrills(m *Mock) *Drills { return &Drills{mock: m} }

// Observe learns from an event, for all drills that are followed.
func (d *Drills) Observe(e Event) {
	followed := d.followed.Load()
	if followed == nil {
		return
	}
	for _, f := range *followed {
		if until := f.until.Load(); until == 0 || e.At.UnixNano() < until {
			f.drill.Observe(e)
		}
	}
}

// Start begins a drill, and its phase: it holds for the scenario, or for all when that is empty, and one without a Kind is the one of
// that name in a timeline. Began is now. AlreadyExists when one of that name is followed, ResourceExhausted when MaxDrills are;
// else errors are those of Mock.StartPhase and NewDrill.
func (d *Drills) Start(c DrillConfig, principal, reason string) (DrillStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.mock.now()
	d.close(now)
	if err := d.mock.known(c.Scenario); err != nil {
		return DrillStatus{}, err
	}
	if c.Phase.Kind == "" {
		declared, err := d.mock.declared(c.Scenario, c.Phase.Name)
		if err != nil {
			return DrillStatus{}, within("phase", err)
		}
		c.Phase = declared
	}
	c.Name, c.Began, c.Ended = cmp.Or(c.Name, c.Phase.Name), now, time.Time{}
	open := 0
	for _, r := range d.list {
		if r.following == nil {
			continue
		}
		open++
		if r.Name == c.Name {
			return DrillStatus{}, problem.New(problem.AlreadyExists, "name", "a drill %q is followed since %s; close it first, or use another name", cut(c.Name), r.Began.Format(time.RFC3339))
		}
	}
	if open >= MaxDrills {
		return DrillStatus{}, problem.New(problem.ResourceExhausted, "", "%d drills are followed, the most at one time; close one first", MaxDrills)
	}
	drill, err := NewDrill(c)
	if err != nil {
		return DrillStatus{}, err
	}
	// It is followed before the phase begins: what the phase does first counts.
	r := &rehearsal{DrillStatus: DrillStatus{Name: c.Name, Scenario: c.Scenario, Phase: drill.config.Phase, Began: now, Principal: principal, Reason: reason}, following: &following{drill: drill}}
	r.ends(drill.config.Ended)
	before := d.list
	d.list = append(slices.DeleteFunc(slices.Clone(d.list), func(o *rehearsal) bool { return o.Name == r.Name }), r)
	d.publish()
	if err := d.mock.StartPhase(c.Scenario, c.Phase); err != nil {
		d.list = before
		d.publish()
		return DrillStatus{}, within("phase", err)
	}
	for i := 0; len(d.list) > RememberedDrills && i < len(d.list); {
		if d.list[i].following == nil {
			d.list = slices.Delete(d.list, i, i+1)
		} else {
			i++
		}
	}
	return r.status(now), nil
}

// End ends a drill's phase now, if it lasts. The drill is followed for FollowedAfter, and with close no longer. One that is closed is
// no error. NotFound for a name that no drill has.
func (d *Drills) End(name string, closed bool) (DrillStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.mock.now()
	d.close(now)
	r, err := d.find(name)
	if err != nil {
		return DrillStatus{}, err
	}
	if r.following == nil {
		return r.status(now), nil
	}
	if r.status(now).State == DrillPhase {
		// Somebody may have ended it already, and its scenario may be gone.
		if err := d.mock.EndPhase(r.Scenario, r.Phase.Name); err != nil && problem.KindOf(err) != problem.NotFound {
			return DrillStatus{}, err
		}
		r.ended(now)
	}
	if closed {
		r.close(now)
		d.publish()
	}
	return r.status(now), nil
}

// EndPhase is Mock.EndPhase, and notes it in the drills of that phase.
func (d *Drills) EndPhase(scenario, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.mock.EndPhase(scenario, name); err != nil {
		return err
	}
	now := d.mock.now()
	for _, r := range d.list {
		if r.following != nil && r.Scenario == scenario && r.Phase.Name == name && r.status(now).State == DrillPhase {
			r.ended(now)
		}
	}
	return nil
}

// Card scores a drill as it stands. NotFound for a name that no drill has.
func (d *Drills) Card(name string) (DrillStatus, Scorecard, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.mock.now()
	d.close(now)
	r, err := d.find(name)
	if err != nil {
		return DrillStatus{}, Scorecard{}, err
	}
	if r.following == nil {
		return r.status(now), r.card, nil
	}
	return r.status(now), r.drill.Card(now), nil
}

// List is all that are remembered, newest first.
func (d *Drills) List() []DrillStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.mock.now()
	d.close(now)
	all := make([]DrillStatus, 0, len(d.list))
	for _, r := range slices.Backward(d.list) {
		all = append(all, r.status(now))
	}
	return all
}

func (d *Drills) find(name string) (*rehearsal, error) {
	if i := slices.IndexFunc(d.list, func(r *rehearsal) bool { return r.Name == name }); i >= 0 {
		return d.list[i], nil
	}
	return nil, problem.NotFoundf("name", "there is no drill %q; look at the list of those that are remembered", cut(name))
}

// close closes those whose time is over. Callers hold the lock.
func (d *Drills) close(now time.Time) {
	closed := false
	for _, r := range d.list {
		if r.following == nil {
			continue
		}
		if until := r.until.Load(); until != 0 && now.UnixNano() >= until {
			r.close(time.Unix(0, until))
			closed = true
		}
	}
	if closed {
		d.publish()
	}
}

// publish says which are followed. Callers hold the lock.
func (d *Drills) publish() {
	var followed []*following
	for _, r := range d.list {
		if r.following != nil {
			followed = append(followed, r.following)
		}
	}
	if followed == nil {
		d.followed.Store(nil)
		return
	}
	d.followed.Store(&followed)
}

// ends sets when the phase does; zero for until it is ended.
func (r *rehearsal) ends(at time.Time) {
	r.Ended = at
	if !at.IsZero() {
		r.until.Store(at.Add(FollowedAfter).UnixNano())
	}
}

func (r *rehearsal) ended(at time.Time) {
	r.drill.End(at)
	r.ends(at)
}

func (r *rehearsal) close(at time.Time) {
	r.card, r.following = r.drill.Card(at), nil
}

func (r *rehearsal) status(now time.Time) DrillStatus {
	s := r.DrillStatus
	switch {
	case r.following == nil:
		s.State = DrillClosed
	case s.Ended.IsZero() || s.Ended.After(now):
		s.State, s.Ended = DrillPhase, time.Time{}
	default:
		s.State = DrillRecovery
	}
	return s
}
