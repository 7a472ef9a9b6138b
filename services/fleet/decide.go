package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxContention is how often a cutover is restored when another writer sets the selector back. Then a person is needed.
const MaxContention = 3

// Decision is what the controller shall do now. Whatever of it fails, the next observation leads to the decision that is
// right then: nothing in it has to be remembered to be resumed.
type Decision struct {
	// Switch sets the selector of the Service; nil leaves it. The controller calls Switched once it is done, and throws the
	// whole decision away when the Service was changed meanwhile.
	Switch *Switch
	// Scale gives both Deployments their size; nil when they have it.
	Scale *Scale
	// Pods is what shall hold for the pods until the next decision.
	Pods Orders
	// Status to be written.
	Status Status
	// Soft: the status differs from the one before in counts and readings only, which need not be written at once.
	Soft    bool
	Notices []Notice
	// Requeue after so long when nothing else happens; 0 for never.
	Requeue time.Duration
	Memory  Memory
}

// Why a selector is set.
type Why string

// The reasons.
const (
	ForCutover Why = "cutover"
	// ToRevert: the new colour failed within the guard time.
	ToRevert Why = "revert"
	// ToRestore: another writer set it back.
	ToRestore Why = "contended"
)

// Switch sets the colour in the selector of the Service.
type Switch struct {
	From, To Colour
	// ResourceVersion that the Service must still have.
	ResourceVersion string
	// Fence is the generation to be noted on the Service.
	Fence int64
	Why   Why
	// Reverts is the id of the cutover that is switched back, to be noted on the Service in the same step; else empty.
	Reverts string

	pods     int32
	selector string
}

// Scale is the size of both Deployments. First is to be written first, so that the standby is never the smaller one.
type Scale struct {
	Blue, Green int32
	First       Colour
}

// Of returns the size of c, which is blue or green.
func (s *Scale) Of(c Colour) int32 {
	if c == Green {
		return s.Green
	}
	return s.Blue
}

// Orders are what shall hold for the pods. Pods that are not named by Drain shall not drain.
type Orders struct {
	// Drain is the colour whose pods shall drain.
	Drain Colour
	// ResetID is set when what the draining pods have open shall be closed, once per id.
	ResetID string
	// Follow is the colour whose connections somebody waits for, None for most of the time.
	Follow Colour
	// Fast: a cutover is under way or was a moment ago, and somebody looks at the traffic.
	Fast bool
	// Traffic is the colour whose traffic shall be measured, from the instant Since (process uptime) on.
	Traffic Colour
	Since   time.Duration
}

// Notice is a step worth a Kubernetes Event.
type Notice struct {
	Warning bool
	// Minor ones are for the log alone: in a global rollback each write to the API server is one of hundreds.
	Minor bool
	// Reason in CamelCase.
	Reason, Message string
}

// Memory is what one process remembers between decisions: instants of its monotonic clock. A process that starts has none
// and takes what the status says, so that a restart makes times longer and never shorter.
type Memory struct {
	// ID of the cutover that the instants belong to.
	ID                      string
	declared, budget        time.Duration
	ramping, switched       time.Duration
	settled, reset, undrain time.Duration
	// turned is when the selector was last set, for whatever cutover.
	turned time.Duration
	// accepted is when the old colour was last seen to take a new connection, emptied since when it is seen to have none open.
	accepted, emptied time.Duration
	// resetBefore counts connections that were reset before this round of resets.
	resetBefore int64
}

// Switched notes that the switch was done at the time and uptime of the clock.
func (d *Decision) Switched(c Clock) {
	if d.Switch == nil {
		return
	}
	s := &d.Status
	s.Active = d.Switch.To
	s.Version, s.StandbyVersion = s.StandbyVersion, s.Version
	s.Replicas, s.Selector = d.Switch.pods, d.Switch.selector
	d.Memory.turned = c.Uptime
	if r := s.LastCutover; r != nil && d.Switch.Why != ToRevert {
		r.SwitchedAt = c.Now
		d.Memory.switched = c.Uptime
		d.Pods.Since = c.Uptime
	}
}

// Decide looks at a fleet and says what to do next. It is level-triggered: it knows nothing of what changed, and a process
// that begins with any observation goes on where another one was killed.
func Decide(o Observation) Decision {
	d := decider{o: &o, s: o.Status.clone(), m: o.Memory}
	d.observe()
	switch blockers := o.misconfigured(); {
	case len(blockers) > 0:
		d.misconfigured(blockers)
	case o.Service.Fence > o.Generation:
		// Another controller, or this one before it restarted, knew a later Fleet. Deciding on this one would undo it.
		d.requeue(time.Second)
		return Decision{Status: o.Status, Memory: d.m, Requeue: d.wait, Pods: Orders{Traffic: o.Served()}}
	default:
		d.cutover()
	}
	d.parity()
	d.follow()
	d.conditions()
	return Decision{Switch: d.flip, Scale: d.scale, Pods: d.pods, Status: d.s, Notices: d.notices, Requeue: d.wait, Memory: d.m}
}

// decider works on a copy of the last status and collects what is to be done.
type decider struct {
	o *Observation
	s Status
	m Memory

	flip    *Switch
	scale   *Scale
	pods    Orders
	notices []Notice
	wait    time.Duration
	// keep: nothing shrinks. full: the standby has the active's whole size whatever its percentage.
	keep, full bool
}

func (d *decider) event(warning bool, reason, format string, args ...any) {
	d.notices = append(d.notices, Notice{Warning: warning, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// minor is an event for the log alone.
func (d *decider) minor(reason, format string, args ...any) {
	d.event(false, reason, format, args...)
	d.notices[len(d.notices)-1].Minor = true
}

func (d *decider) requeue(after time.Duration) {
	after = max(after, time.Millisecond)
	if d.wait == 0 || after < d.wait {
		d.wait = after
	}
}

func (d *decider) phase(p Phase, format string, args ...any) {
	d.s.Phase, d.s.Message = p, fmt.Sprintf(format, args...)
}

// since is the time that has passed since an instant of this process. An instant that is not known yet is taken from the
// record, by the clock that has seen the least of it.
func (d *decider) since(instant *time.Duration, recorded time.Time) time.Duration {
	c := d.o.Clock
	if *instant == 0 {
		*instant = c.Uptime
		if !recorded.IsZero() {
			*instant -= max(c.Earliest.Sub(recorded), 0)
		}
		if *instant == 0 {
			*instant = 1
		}
	}
	return c.Uptime - *instant
}

// observe writes what is seen into the status.
func (d *decider) observe() {
	o, s := d.o, &d.s
	s.ObservedGeneration = o.Generation
	for _, c := range []Colour{Blue, Green} {
		st := s.colour(c)
		*st = ColourState{Deployment: o.Spec.Deployment(c)}
		if dep := o.Deployment(c); dep != nil {
			st.Version, st.Desired, st.Ready = dep.Version, dep.Desired, dep.Ready
		}
		if r := o.Pods(c); r.known(0) && o.Spec.Drain.Method.Counts() {
			st.OpenConnections = &r.Open
		}
	}
	s.Active, s.Version, s.StandbyVersion, s.Replicas, s.Selector = o.Served(), "", "", 0, ""
	if s.Active == None {
		return
	}
	s.Version, s.StandbyVersion = s.colour(s.Active).Version, s.colour(s.Active.Other()).Version
	if dep := o.Deployment(s.Active); dep != nil {
		s.Replicas = dep.Pods
		s.Selector = selectorText(dep.Selector)
	}
}

func selectorText(selector map[string]string) string {
	parts := make([]string, 0, len(selector))
	for k, v := range selector {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func (d *decider) misconfigured(blockers []Blocker) {
	message := sentences(blockers)
	if d.s.Phase != Blocked || d.s.Message != message {
		d.event(true, "Misconfigured", "%s", message)
	}
	d.phase(Blocked, "%s", message)
	// A cutover that waits still expires, so that a repair next week does not fire it.
	if c := d.s.LastCutover; c != nil && c.Outcome == Running && c.SwitchedAt.IsZero() {
		d.keep = true
		if ch := d.declaration(); ch.ID == c.ID {
			d.expired(c, ch, message)
		}
	}
}

// parity decides the size of both Deployments: one number, and the standby's share of it.
func (d *decider) parity() {
	o := d.o
	if o.Blue == nil || o.Green == nil || o.Spec.Blue == o.Spec.Green || len(o.Rivals) > 0 {
		return
	}
	active := d.s.Active
	if active == None {
		if o.Spec.StandbyPercent < 100 {
			return // which of the two is the standby that may be smaller, nobody knows
		}
		active = o.Spec.Active
	}
	if d.flip != nil {
		active = d.flip.To
	}
	size, percent := o.Spec.Replicas, o.Spec.StandbyPercent
	if d.holding() {
		d.keep, d.full = true, true
	}
	if d.full {
		percent = 100
	}
	if d.keep || o.Autoscaler != nil && o.Autoscaler.Problem != "" {
		size = max(size, cmp.Or(d.s.Size, o.Deployment(active).Desired))
	}
	want := Scale{Blue: size, Green: size, First: active.Other()}
	if percent < 100 {
		if active == Blue {
			want.Green = standbySize(size, percent)
		} else {
			want.Blue = standbySize(size, percent)
		}
	}
	before := d.s.Size
	d.s.Size = size
	if o.Blue.Desired == want.Blue && o.Green.Desired == want.Green {
		return
	}
	if want.Of(active) < o.Deployment(active).Desired {
		want.First = active
	}
	d.scale = &want
	if before == size && before != 0 && d.o.Status.ObservedGeneration == o.Generation && percent == 100 && o.Spec.StandbyPercent == 100 {
		d.event(true, "ParityRestored", "somebody set the Deployments to %d blue and %d green pods; both are %d again: scale the Fleet, not its Deployments",
			o.Blue.Desired, o.Green.Desired, size)
	}
}

// holding reports whether the fleet must not shrink: a cutover is under way, or the newly active pods have no load history yet
// from which an autoscaler could tell that they are too many.
func (d *decider) holding() bool {
	if c := d.s.LastCutover; d.flip != nil || c != nil && c.Outcome == Running && !c.SwitchedAt.IsZero() {
		return true
	}
	at := d.s.lastSwitch()
	if at.IsZero() {
		return false
	}
	left := d.o.Spec.ScaleDownHold - d.since(&d.m.turned, at)
	if left > 0 {
		d.requeue(left)
	}
	return left > 0
}

// follow decides what shall be measured.
func (d *decider) follow() {
	d.pods.Traffic = cmp.Or(d.s.Active, None)
	if d.flip != nil {
		d.pods.Traffic = d.flip.To
	}
	if c := d.s.LastCutover; c != nil && !c.SwitchedAt.IsZero() && c.To == d.pods.Traffic {
		d.pods.Since = d.m.switched
		// Just after a switch somebody asks whether it helped.
		if d.since(&d.m.switched, c.SwitchedAt) < fastAfterSwitch {
			d.pods.Fast = true
		}
	}
	if c := d.s.LastCutover; c != nil && c.Outcome == Running {
		d.pods.Fast = true
	}
	d.s.Traffic = d.o.Traffic
	if d.flip != nil || (d.o.Traffic != nil && d.o.Status.Active != None && d.o.Status.Active != d.s.Active) {
		d.s.Traffic = nil // it speaks of the colour before
	}
}

// fastAfterSwitch is how long after a switch its traffic is looked at often: not longer, because every look is a write of the
// status, and all fleets of a cluster share its API server.
const fastAfterSwitch = 15 * time.Second

// Alike reports whether b says the same as a but for counts, readings and wording, so that it need not be written at once.
func Alike(a, b *Status) bool {
	return hard(a) == hard(b) && slices.EqualFunc(a.Conditions, b.Conditions, func(x, y Condition) bool {
		return x.Type == y.Type && x.Status == y.Status && x.Reason == y.Reason
	})
}

func hard(s *Status) string {
	var b strings.Builder
	fmt.Fprint(&b, s.ObservedGeneration, s.Active, s.Version, s.StandbyVersion, s.Phase, s.Replicas, s.Size, s.Selector,
		s.Blue.Version, s.Blue.Desired, s.Blue.Ready, s.Green.Version, s.Green.Desired, s.Green.Ready, len(s.History))
	if c := s.LastCutover; c != nil {
		fmt.Fprint(&b, c.ID, c.Outcome, c.SwitchedAt.UnixMicro(), c.SettledAt.UnixMicro(), c.DrainedAt.UnixMicro(), c.Contended, c.ConnectionsReset != nil, c.Ramp)
	}
	return b.String()
}
