package fleet

import (
	"fmt"
	"slices"
	"time"
)

// The conditions of a fleet. Each is a statement that is True when all is well, and its message says what to do when not.
const (
	// Configured: Service, Deployments and selectors fit together.
	ConditionConfigured = "Configured"
	// RollbackReady: the standby could take the traffic now.
	ConditionRollbackReady = "RollbackReady"
	// Parity: the standby has its share of the active's size.
	ConditionParity = "Parity"
	// SoleWriter: nobody else sets the selector of the Service.
	ConditionSoleWriter = "SoleWriter"
	// Autoscaled: the autoscaler that targets the fleet, if there is one, can be trusted.
	ConditionAutoscaled = "Autoscaled"
	// ClockTrusted: the clocks agree, so that freezes begin and end when they say.
	ConditionClockTrusted = "ClockTrusted"
	// TrafficKnown: the active colour's traffic can be measured.
	ConditionTrafficKnown = "TrafficKnown"
)

// MaxDoubt is how far clocks may be apart before it is said, and before the wall clock is no longer taken for records. NTP
// keeps them within milliseconds, the API server's Date header has whole seconds.
const MaxDoubt = 5 * time.Second

func (d *decider) conditions() {
	o := d.o
	blockers := o.misconfigured()
	if len(blockers) > 0 {
		d.condition(ConditionConfigured, "False", "Misconfigured", "%s", sentences(blockers))
		d.condition(ConditionRollbackReady, "Unknown", "Misconfigured", "see the condition Configured")
		d.drop(ConditionParity, ConditionSoleWriter)
	} else {
		d.condition(ConditionConfigured, "True", "Found", "Service and Deployments fit together")
		d.rollbackReady()
		d.sameSize()
		if w, ok := o.rival(); ok {
			d.condition(ConditionSoleWriter, "False", "Contended", "%s set the selector of Service %s; stop it, or let it leave spec.selector to the manager %s", w.Name, o.Service.Name, OwnManager)
		} else {
			d.condition(ConditionSoleWriter, "True", "NoOtherWriter", "the controller alone sets the selector")
		}
	}
	switch a := o.Autoscaler; {
	case o.StrayAutoscaler != "":
		d.condition(ConditionAutoscaled, "False", "WrongTarget", "HPA %s targets a Deployment of this fleet and takes its parity away; let it target the Fleet", o.StrayAutoscaler)
	case a == nil:
		d.drop(ConditionAutoscaled)
	case a.Problem != "":
		d.condition(ConditionAutoscaled, "False", "Frozen", "HPA %s cannot be trusted, so the fleet does not shrink: %s", a.Name, a.Problem)
	default:
		d.condition(ConditionAutoscaled, "True", "Healthy", "HPA %s is healthy", a.Name)
	}
	if doubt := o.Clock.Doubt(); doubt > MaxDoubt {
		d.condition(ConditionClockTrusted, "False", "Apart", "the wall clock, this process's clock and the API server's are %s apart; a freeze counts by whichever is stricter: set the clock, then restart the controller", doubt.Round(time.Second))
	} else {
		d.condition(ConditionClockTrusted, "True", "Agree", "the clocks agree")
	}
	switch {
	case o.Spec.Metrics == nil:
		d.drop(ConditionTrafficKnown)
	case o.TrafficProblem != "":
		d.condition(ConditionTrafficKnown, "Unknown", "Unreadable", "%s", o.TrafficProblem)
	case o.Traffic != nil:
		d.condition(ConditionTrafficKnown, "True", "Measured", "the pods of %s show their counters", o.Served())
	}
}

func (d *decider) rollbackReady() {
	o := d.o
	standby := o.Served().Other()
	if d.flip != nil {
		standby = d.flip.From // what is written speaks of the time after the switch
	}
	var first *Blocker
	// Freezes and other writers are no fault of the standby.
	for _, b := range Preflight(o, Change{To: standby}) {
		if b.Reason != Frozen && b.Reason != ContendedBy && b.Reason != NoHeadroom && b.Reason != OverQuota {
			first = &b
			break
		}
	}
	to := o.Deployment(standby)
	switch {
	case first != nil:
		d.condition(ConditionRollbackReady, "False", "StandbyNotReady", "%s", first.Message)
	case o.MustRamp(standby):
		d.condition(ConditionRollbackReady, "False", "MustRamp", "%s must be ramped from %d to %s first", standby, to.Current, many(o.Required(standby), "ready pod"))
	default:
		d.condition(ConditionRollbackReady, "True", "StandbyReady", "%s (%s) could take the traffic now", standby, orUnknown(to.Version))
	}
}

func (d *decider) sameSize() {
	active, standby := d.o.Deployment(d.s.Active), d.o.Deployment(d.s.Active.Other())
	want := active.Desired
	if d.scale == nil && d.o.Spec.StandbyPercent < 100 && standby.Desired != want {
		want = standbySize(active.Desired, d.o.Spec.StandbyPercent)
	}
	switch {
	case d.scale != nil || standby.Desired != want:
		d.condition(ConditionParity, "False", "Scaling", "both colours are being given their size")
	case active.Desired != d.o.Spec.Replicas:
		d.condition(ConditionParity, "True", "ScaleDownHeld", "both colours are held at %s although the Fleet declares %d", many(active.Desired, "pod"), d.o.Spec.Replicas)
	default:
		d.condition(ConditionParity, "True", "SameSize", "the standby has %s beside %d", many(standby.Desired, "pod"), active.Desired)
	}
}

func (d *decider) condition(kind, status, reason, format string, args ...any) {
	c := Condition{Type: kind, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...), Since: d.o.Clock.Now}
	i := slices.IndexFunc(d.s.Conditions, func(x Condition) bool { return x.Type == kind })
	if i < 0 {
		d.s.Conditions = append(d.s.Conditions, c)
		return
	}
	if d.s.Conditions[i].Status == status {
		c.Since = d.s.Conditions[i].Since
	}
	d.s.Conditions[i] = c
}

func (d *decider) drop(kinds ...string) {
	d.s.Conditions = slices.DeleteFunc(d.s.Conditions, func(c Condition) bool { return slices.Contains(kinds, c.Type) })
}
