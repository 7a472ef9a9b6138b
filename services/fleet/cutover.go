package fleet

import (
	"fmt"
	"strings"
	"time"
)

// cutover compares the colour that is served with the one that is declared, and takes the next step.
func (d *decider) cutover() {
	ch := d.declaration()
	if d.m.ID != ch.ID {
		d.m = Memory{ID: ch.ID, switched: d.m.switched, turned: d.m.turned, undrain: d.m.undrain}
	}
	if d.o.Served() == ch.To {
		d.arrived(ch)
	} else {
		d.away(ch)
	}
}

// declaration is who wants which colour. A colour that was changed without a change of the ChangeSpec, with kubectl say, is
// a cutover of its own, named after the generation in which it was first seen.
func (d *decider) declaration() Change {
	o, last := d.o, d.s.LastCutover
	anonymous := Change{ID: fmt.Sprintf("generation-%d", o.Generation), To: o.Spec.Active, At: o.Clock.Now}
	if last != nil && last.To == o.Spec.Active {
		anonymous.At = last.DeclaredAt
		if ch := o.Spec.Change; ch != nil && ch.ID == last.ID {
			c := *ch
			c.To = o.Spec.Active
			return c
		}
		// The same declaration, seen again under a later generation: an autoscaler changes the spec all the time.
		if o.Spec.Change == nil || d.s.record(o.Spec.Change.ID) != nil {
			if last.Outcome == Running || last.Outcome == Completed || d.s.Phase == Halted {
				anonymous.ID, anonymous.Principal, anonymous.Reason, anonymous.Force, anonymous.Rollback = last.ID, last.Principal, last.Reason, last.Forced, last.Rollback
				return anonymous
			}
			anonymous.At = o.Clock.Now
			return anonymous
		}
	}
	if ch := o.Spec.Change; ch != nil && d.s.record(ch.ID) == nil {
		c := *ch
		c.To = o.Spec.Active
		return c
	}
	anonymous.At = o.Clock.Now
	return anonymous
}

// arrived: the declared colour is served.
func (d *decider) arrived(ch Change) {
	o, c := d.o, d.s.LastCutover
	before := o.Status.Active
	waits := c != nil && c.Outcome == Running && c.SwitchedAt.IsZero()
	switch {
	case waits && c.To == ch.To && c.ID == ch.ID:
		d.adopt(c)
	case waits && c.To != ch.To && (before == None || before == ch.To):
		d.finish(c, Superseded, "withdrawn before it had switched: %s is declared again (%s, %s)", ch.To, orUnknown(ch.Principal), ch.ID)
	case waits, before != None && before != ch.To, c != nil && c.Outcome == Running && c.To != ch.To:
		// Served, and not by any cutover that is on record.
		id := ch.ID
		if d.s.record(id) != nil {
			id = fmt.Sprintf("generation-%d-%s", o.Generation, o.Service.ResourceVersion)
		}
		d.begin(ch, id)
		c = d.s.LastCutover
		d.adopt(c)
	}

	if c != nil && c.To == o.Served() && !c.SwitchedAt.IsZero() && (c.Outcome == Running || c.Outcome == Completed) {
		if d.guard(c) {
			return
		}
		if c.Outcome == Running {
			d.empty(c)
			return
		}
	}
	message := fmt.Sprintf("%s is served by %s", ch.To, many(o.Deployment(ch.To).Ready, "pod"))
	if c != nil && c.Outcome == Completed && c.To == ch.To && c.Message != "" {
		message = c.Message
	}
	d.phase(Steady, "%s", message)
}

// adopt takes over a switch that this process did not see: it was made by a controller that was killed before it could say so,
// or by a person in its place.
func (d *decider) adopt(c *Cutover) {
	c.SwitchedAt, d.m.turned = d.switchTime(c.DeclaredAt), 0
	c.Required = min(d.o.Required(c.To), d.o.Deployment(c.To).Ready)
	c.Message = ""
	d.event(false, "Switched", "Service %s serves %s; its selector was set by %s", d.o.Service.Name, c.To, d.o.Service.writer().Name)
}

// switchTime is when the selector was set, as far as the API server tells, for a switch that was not seen.
func (d *decider) switchTime(declared time.Time) time.Time {
	at := d.o.Service.writer().At
	if at.IsZero() || at.After(d.o.Clock.Now) {
		at = d.o.Clock.Now
	}
	// The API server's stamp has whole seconds.
	if !declared.After(d.o.Clock.Now) && at.Before(declared) {
		at = declared
	}
	return at
}

// away: another colour is served than is declared.
func (d *decider) away(ch Change) {
	c := d.s.LastCutover
	if r := d.s.record(ch.ID); r != nil && r != c {
		d.phase(Halted, "the change %q was %s before; declare %s with a new id", ch.ID, strings.ToLower(string(r.Outcome)), ch.To)
		return
	}
	switch {
	case c == nil || c.ID != ch.ID:
		d.begin(ch, ch.ID)
		d.attempt(d.s.LastCutover, ch)
	case c.Outcome == Running && c.SwitchedAt.IsZero():
		d.attempt(c, ch)
	case c.Outcome == Running || c.Outcome == Completed:
		d.undone(c, ch)
	default:
		// Whoever looks sees the message of how it ended.
		d.phase(Halted, "%s", c.Message)
	}
}

// begin makes a new record and closes the one before.
func (d *decider) begin(ch Change, id string) {
	if c := d.s.LastCutover; c != nil {
		if c.Outcome == Running {
			if c.SwitchedAt.IsZero() {
				d.finish(c, Superseded, "replaced by %q (%s) before it had switched", id, orUnknown(ch.Principal))
			} else {
				d.finish(c, Completed, "served %s until %q began, before its drain had ended", c.To, id)
			}
		}
		d.s.History = append([]Cutover{*c}, d.s.History...)
		if len(d.s.History) > MaxHistory {
			d.s.History = d.s.History[:MaxHistory]
		}
	}
	c := &Cutover{ID: id, Generation: d.o.Generation, From: ch.To.Other(), To: ch.To, Version: d.o.Deployment(ch.To).Version,
		Principal: ch.Principal, Reason: ch.Reason, Forced: ch.Force, Rollback: ch.Rollback, Outcome: Running, DeclaredAt: ch.At}
	d.s.LastCutover = c
	d.m = Memory{ID: ch.ID, turned: d.m.turned, undrain: d.m.undrain}
	d.minor("Declared", "%s is to be served in place of %s: %s (%s, %s)", c.To, c.From, orUnknown(c.Reason), orUnknown(c.Principal), id)
}

func (d *decider) finish(c *Cutover, outcome Outcome, format string, args ...any) {
	c.Outcome, c.Message = outcome, fmt.Sprintf(format, args...)
	warning := outcome == Reverted || outcome == Expired
	d.event(warning, string(outcome), "cutover %s to %s: %s", c.ID, c.To, c.Message)
}

// expired ends a cutover whose time is up, and says so. What the declarer gave it is a length of time: the distance from
// Change.At to Change.Deadline, which are of one clock. It counts from when the change was stored, on the API server's clock
// until this process first sees it and on the monotonic clock from then on. So no clock that jumps or is set wrong makes a
// cutover expire early, nor a stale one fire.
func (d *decider) expired(c *Cutover, ch Change, why string) bool {
	o := d.o
	if d.m.declared == 0 {
		d.m.declared = o.Clock.Uptime
		d.m.budget = o.Spec.Timeout
		if !ch.Deadline.IsZero() {
			d.m.budget = min(ch.Deadline.Sub(ch.At), MaxDeadline) // a person may write anything
		}
		d.m.budget -= o.age(ch)
	}
	left := d.m.budget - (o.Clock.Uptime - d.m.declared)
	if left > 0 {
		d.requeue(left)
		return false
	}
	if why == "" {
		why = "it was seen too late"
	}
	d.finish(c, Expired, "did not switch before its deadline and nothing was changed: %s; declare %s again with a new id", why, c.To)
	d.phase(Halted, "%s", c.Message)
	return true
}

// attempt switches as soon as nothing holds it back.
func (d *decider) attempt(c *Cutover, ch Change) {
	o := d.o
	blockers := held(Preflight(o, ch), ch.Force)
	why := sentences(blockers)
	if why == "" && o.MustRamp(c.To) {
		why = fmt.Sprintf("the standby was not brought to %s in time", many(o.Required(c.To), "ready pod"))
	}
	if d.expired(c, ch, why) {
		return
	}
	d.keep = true
	if len(blockers) > 0 {
		// What holds it back may end without any event that is watched: a freeze, free nodes.
		d.requeue(time.Second)
		if d.s.Phase != Blocked || d.o.Status.LastCutover == nil || d.o.Status.LastCutover.ID != c.ID {
			d.event(true, "Blocked", "cutover %s to %s waits: %s", c.ID, c.To, why)
		}
		d.phase(Blocked, "%s", why)
		c.Message = why
		// A standby does not grow for a cutover that may never come, and one that has grown does not shrink.
		size := max(o.Spec.Replicas, d.s.Size)
		d.full = o.Deployment(c.To).Desired > standbySize(size, o.Spec.StandbyPercent)
		return
	}
	d.full = true
	required := o.Required(c.To)
	if o.MustRamp(c.To) { // forced or not: a standby of no pods serves nobody
		d.since(&d.m.ramping, time.Time{})
		if d.s.Phase != Ramping {
			d.event(false, "Ramping", "%s is brought from %d to %s before the switch", c.To, o.Deployment(c.To).Ready, many(required, "ready pod"))
		}
		d.phase(Ramping, "%s has %d of %s ready that the switch needs", c.To, o.Deployment(c.To).Current, many(required, "pod"))
		return
	}
	switch {
	case c.Ramp > 0:
	case d.m.ramping > 0:
		c.Ramp = o.Clock.Uptime - d.m.ramping
	case d.s.Phase == Ramping: // begun before a restart, at the earliest when it was declared
		c.Ramp = max(o.Clock.Earliest.Sub(c.DeclaredAt), 0)
	}
	// Pods that still let their connections go from a cutover before are told to stop first: traffic that comes back to them
	// would be sent away again. But a pod that does not answer does not hold up a rollback.
	if r := o.Pods(c.To); o.Spec.Drain.Method.Tells() && d.draining(c.To) {
		if d.since(&d.m.undrain, time.Time{}) < undrainPatience && !(r.known(d.m.undrain) && r.Draining == 0) {
			d.phase(Switching, "the pods of %s are told to stop draining before the switch", c.To)
			d.pods.Fast = true
			d.requeue(undrainPatience)
			return
		}
	}
	d.m.undrain = 0
	c.Required = min(required, o.Deployment(c.To).Current)
	c.Version = o.Deployment(c.To).Version
	c.Message = ""
	d.turn(c.To, ForCutover)
	d.phase(Switching, "the selector of Service %s is set to %s", o.Service.Name, c.To)
	d.event(false, "Switched", "Service %s serves %s in place of %s: %s (%s, %s)", o.Service.Name, c.To, c.From, orUnknown(c.Reason), orUnknown(c.Principal), c.ID)
}

// undrainPatience is how long a cutover back waits for pods to say that they stopped draining.
const undrainPatience = time.Second

// draining reports whether pods of c may still drain: they say so, or an unfinished cutover told them to.
func (d *decider) draining(c Colour) bool {
	if d.m.undrain > 0 || d.o.Pods(c).Draining > 0 {
		return true
	}
	for _, r := range d.s.History[:min(1, len(d.s.History))] {
		if r.From == c && !r.SettledAt.IsZero() && r.DrainedAt.IsZero() {
			return true
		}
	}
	return false
}

// turn orders the switch.
func (d *decider) turn(to Colour, why Why) {
	if why != ToRevert {
		d.pods.Follow = d.o.Served()
	}
	target := d.o.Deployment(to)
	d.flip = &Switch{From: d.o.Served(), To: to, ResourceVersion: d.o.Service.ResourceVersion, Fence: d.o.Generation, Why: why,
		pods: target.Pods, selector: selectorText(target.Selector)}
}

// undone: it was switched, and the selector is back.
func (d *decider) undone(c *Cutover, ch Change) {
	o := d.o
	w := o.Service.writer()
	if w.Name == OwnManager || o.Service.Reverted == c.ID {
		// We did it ourselves: the guard switched back, and the process was killed before it could say so.
		d.finish(c, Reverted, "%s failed within the guard time of %s and %s is served again; repair it and declare it again with a new id", c.To, o.Spec.Guard, c.From)
		d.phase(Halted, "%s", c.Message)
		return
	}
	if c.Contended < MaxContention {
		// What holds back a cutover holds back its restoration; but for the contention itself, which is counted here.
		var texts []string
		for _, b := range held(Preflight(o, ch), ch.Force) {
			if b.Reason != ContendedBy {
				texts = append(texts, b.Message)
			}
		}
		if o.MustRamp(c.To) {
			texts = append(texts, fmt.Sprintf("%s has %s of the %d required", c.To, many(o.Deployment(c.To).Current, "ready pod"), o.Required(c.To)))
		}
		if len(texts) == 0 {
			c.Contended++
			c.Outcome, c.SettledAt, c.DrainedAt = Running, time.Time{}, time.Time{}
			d.m.settled, d.m.reset = 0, 0
			d.turn(c.To, ToRestore)
			d.phase(Switching, "%s set the selector of Service %s back to %s; it is set to %s again (%d of %d)", w.Name, o.Service.Name, c.From, c.To, c.Contended, MaxContention)
			d.event(true, "Contended", "%s", d.s.Message)
			return
		}
		d.finish(c, Reverted, "%s set the selector of Service %s back to %s, and it cannot be restored: %s; stop that writer and declare %s again with a new id", w.Name, o.Service.Name, c.From, strings.Join(texts, "; "), c.To)
		d.phase(Halted, "%s", c.Message)
		return
	}
	d.finish(c, Reverted, "%s keeps setting the selector of Service %s back to %s; it was restored %d times and %s is served now: stop that writer, or let it leave spec.selector to the manager %s, then declare %s again with a new id",
		w.Name, o.Service.Name, c.From, c.Contended, c.From, OwnManager, c.To)
	d.phase(Halted, "%s", c.Message)
	d.event(true, "Contended", "%s", c.Message)
}

// guard switches back once when the new colour fails soon after the switch, and reports whether it did.
func (d *decider) guard(c *Cutover) bool {
	o := d.o
	left := o.Spec.Guard - d.since(&d.m.switched, c.SwitchedAt)
	if left <= 0 {
		return false
	}
	d.requeue(left)
	to, from := o.Deployment(c.To), o.Deployment(c.From)
	if to.Ready >= c.Required || o.Service.Reverted == c.ID {
		return false // well, or switched back once already and set again by somebody else
	}
	// Going back must be better than staying.
	if from.Ready <= to.Ready || from.Ready < o.Required(c.From) {
		return false
	}
	d.turn(c.From, ToRevert)
	d.flip.Reverts = c.ID
	d.finish(c, Reverted, "%s had %s of the %d required within the guard time of %s, so %s is served again; it is not tried again: repair %s and declare it with a new id",
		c.To, many(to.Ready, "ready pod"), c.Required, o.Spec.Guard, c.From, c.To)
	d.phase(Halted, "%s", c.Message)
	return true
}

// empty follows the old colour until it has no connections left, or until the deadline.
func (d *decider) empty(c *Cutover) {
	o, spec := d.o, &d.o.Spec.Drain
	r := o.Pods(c.From)
	d.pods.Follow = c.From
	d.since(&d.m.switched, c.SwitchedAt)
	if spec.Method.Counts() && r.known(d.m.switched) {
		if c.ConnectionsAtSwitch == nil || *c.ConnectionsAtSwitch < r.Open && c.ConnectionsReset == nil {
			c.ConnectionsAtSwitch = count(r.Open)
		}
	}
	if r.ResetID == resetID(c) {
		c.ConnectionsReset = count(d.m.resetBefore + r.Reset)
	}
	if r.LastAccepted.After(c.LastNewConnectionAt) {
		c.LastNewConnectionAt, d.m.accepted, d.m.emptied = r.LastAccepted, o.Clock.Uptime, 0
	}

	if c.SettledAt.IsZero() {
		if e := o.Endpoints; e.Of(c.From) > 0 || e.Unknown > 0 || e.Of(c.To) == 0 && o.Deployment(c.To).Ready > 0 {
			d.phase(Switching, "the selector of Service %s is set to %s; EndpointSlices serve %s of %s and %d of %s", o.Service.Name, c.To, many(e.Of(c.To), "pod"), c.To, e.Of(c.From), c.From)
			d.requeue(time.Second) // a pod that is not known yet becomes known without any event that is watched
			return
		}
		c.SettledAt = o.Clock.Now
		d.minor("Settled", "EndpointSlices serve %s only", c.To)
	}
	// A restart gives the connections their whole time again: the record may be from a clock that has jumped.
	waited := d.since(&d.m.settled, time.Time{})
	d.pods.Drain, d.pods.Fast = c.From, true

	told := !spec.Method.Tells() || r.Draining == r.Pods
	if spec.Method.Counts() && told && r.known(d.m.settled) && r.Open == 0 {
		empty := d.since(&d.m.emptied, time.Time{})
		quiet := min(waited, o.Clock.Uptime-d.m.accepted)
		if quiet >= quietTime {
			d.drained(c, r, o.Clock.Now.Add(-empty))
			return
		}
		d.requeue(quietTime - quiet)
	} else {
		d.m.emptied = 0
	}
	open := "an unknown number of"
	if r.known(d.m.settled) && spec.Method.Counts() {
		open = fmt.Sprint(r.Open)
		c.ConnectionsLeft = count(r.Open)
		if c.ConnectionsAtSwitch != nil {
			c.ConnectionsDrained = count(max(*c.ConnectionsAtSwitch-r.Open-or(c.ConnectionsReset), 0))
		}
	} else {
		c.ConnectionsLeft, c.ConnectionsDrained = nil, nil
	}
	d.phase(Draining, "%s is served; %s has %s connections open", c.To, c.From, open)
	if waited < spec.Timeout {
		d.requeue(spec.Timeout - waited)
		return
	}
	if spec.ResetRemaining && spec.Method.Resets() {
		d.pods.ResetID = resetID(c)
		if d.m.reset == 0 {
			d.m.resetBefore = or(c.ConnectionsReset) // by a process before this one, or before a restoration
		}
		sent := d.since(&d.m.reset, time.Time{})
		done := r.ResetID == d.pods.ResetID && r.ResetDone && r.known(d.m.reset)
		if !done && sent < resetPatience {
			d.requeue(resetPatience - sent)
			return
		}
	}
	d.drained(c, r, o.Clock.Now)
}

// quietTime is how long no new connection must reach the old colour before its pods are told to take them again: whatever
// spreads endpoints, kube-proxy by default once a second, may be behind the EndpointSlices, and who comes late must find a pod
// that sends them away and not one that keeps them.
const quietTime = 2 * time.Second

// resetID names one round of resets: a selector that was fought over and restored has a drain of its own.
func resetID(c *Cutover) string { return fmt.Sprintf("%s#%d", c.ID, c.Contended) }

// resetPatience is how long pods may take to close what is left.
const resetPatience = 5 * time.Second

// drained ends the drain; the pods are undrained and stand by.
func (d *decider) drained(c *Cutover, r *Reading, at time.Time) {
	c.DrainedAt = at
	d.pods.Drain, d.pods.Follow, d.pods.ResetID = None, None, ""
	took := ""
	if c.Ramp > 0 {
		took = fmt.Sprintf(" after a ramp of %s", c.Ramp.Round(time.Millisecond))
	}
	switch {
	case !d.o.Spec.Drain.Method.Counts():
		d.finish(c, Completed, "%s is served%s; the drain method %s cannot count connections, %s was given %s", c.To, took, d.o.Spec.Drain.Method, c.From, d.o.Spec.Drain.Timeout)
	case !r.known(d.m.settled) || c.ConnectionsAtSwitch == nil:
		c.ConnectionsLeft, c.ConnectionsDrained = nil, nil
		d.finish(c, Completed, "%s is served%s; what is left open on %s is unknown: %s", c.To, took, c.From, orUnknown(r.Problem))
	default:
		c.ConnectionsLeft = count(r.Open)
		c.ConnectionsDrained = count(max(*c.ConnectionsAtSwitch-r.Open-or(c.ConnectionsReset), 0))
		if c.ConnectionsReset == nil {
			c.ConnectionsReset = count(0)
		}
		d.finish(c, Completed, "%s is served%s; of %d connections on %s %d drained, %d were reset and %d are left open", c.To, took,
			*c.ConnectionsAtSwitch, c.From, *c.ConnectionsDrained, *c.ConnectionsReset, *c.ConnectionsLeft)
	}
	d.phase(Steady, "%s", c.Message)
}

func count(n int64) *int64 { return &n }

func or(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
