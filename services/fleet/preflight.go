package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Reasons of blockers.
const (
	StandbyNotReady = "standby_not_ready"
	WrongVersion    = "wrong_version"
	Frozen          = "frozen"
	ContendedBy     = "contended"
	NoHeadroom      = "no_headroom"
	OverQuota       = "quota"
	Misconfigured   = "misconfigured"
)

// ColourLabel is in the selector of the Service and on the pods of both Deployments; its value is a Colour.
const ColourLabel = "edgehold.internal/colour"

// Preflight says what holds back the change, most fundamental first, and nothing when it may go through now. The
// controller asks it before it switches and planning asks it before anyone declares: the answer is the same. A standby that
// is small because the fleet keeps it small is not a blocker, since the cutover ramps it up first (see MustRamp).
func Preflight(o *Observation, change Change) []Blocker {
	if b := o.misconfigured(); len(b) > 0 {
		return b
	}
	var blockers []Blocker
	block := func(reason string, overridable bool, format string, args ...any) {
		blockers = append(blockers, Blocker{Reason: reason, Overridable: overridable, Message: fmt.Sprintf(format, args...)})
	}

	to := o.Deployment(change.To)
	if to == nil {
		block(Misconfigured, false, "%q is no colour; choose blue or green", change.To)
		return blockers
	}
	if change.Version != "" && to.Version != change.Version {
		block(WrongVersion, false, "%s runs version %s and %s was asked for; roll Deployment %s to it or ask for another",
			change.To, orUnknown(to.Version), change.Version, to.Name)
	}

	// Below its resting size a standby is broken; between that and what is required it is small on purpose.
	required := o.Required(change.To)
	resting := min(required, standbySize(required, o.Spec.StandbyPercent))
	if to.Current < resting {
		block(StandbyNotReady, to.Current > 0, "%s has %d of %s ready and needs %d; see why with: kubectl get pods -l %s=%s",
			change.To, to.Current, many(to.Desired, "pod"), resting, ColourLabel, change.To)
	}
	if more := required - to.Desired; more > 0 && o.MustRamp(change.To) {
		pods := many(more, "pod")
		switch h := o.Headroom; {
		case h.Quota == nil:
			block(OverQuota, true, "the standby must grow by %s and the namespace's quota cannot be read (%s)", pods, orUnknown(h.Why))
		case *h.Quota < more:
			block(OverQuota, true, "the standby must grow by %s and the namespace's quota allows %d; raise it", pods, *h.Quota)
		}
		switch h := o.Headroom; {
		case h.Nodes == nil:
			block(NoHeadroom, true, "the standby must grow by %s and the nodes' free capacity cannot be read (%s)", pods, orUnknown(h.Why))
		case *h.Nodes < more:
			block(NoHeadroom, true, "the standby must grow by %s and the nodes have room for %d; add nodes", pods, *h.Nodes)
		}
	}

	for _, f := range o.Spec.Freezes {
		if f.From.After(o.Clock.Latest) || !f.Until.After(o.Clock.Earliest) {
			continue
		}
		doubt := ""
		if !f.Until.After(o.Clock.Now) || f.From.After(o.Clock.Now) {
			doubt = fmt.Sprintf(" (the clocks here are %s apart, so it may still hold)", o.Clock.Doubt().Round(time.Second))
		}
		block(Frozen, true, "frozen until %s by %s: %s%s; wait, unfreeze or force", f.Until.UTC().Format(time.RFC3339), orUnknown(f.Principal), f.Reason, doubt)
		break
	}

	if w, ok := o.rival(); ok {
		block(ContendedBy, true, "%s set the selector of Service %s back to %s after the controller had set it to %s; stop that writer (the manager of spec.selector in metadata.managedFields), then force, or declare again with a new id when it has kept still for %s",
			w.Name, o.Service.Name, o.Served(), o.Served().Other(), contentionMemory)
	}
	return blockers
}

// contentionMemory is how long after its last write another writer of the selector counts as active.
const contentionMemory = 10 * time.Minute

// rival is another writer that set the selector back after the controller had switched it, not long ago.
func (o *Observation) rival() (Writer, bool) {
	w, last := o.Service.writer(), o.Status.LastCutover
	if last == nil || last.SwitchedAt.IsZero() || o.Served() != last.From || w.Name == OwnManager {
		return Writer{}, false
	}
	undone := last.Outcome == Running || last.Outcome == Completed || last.Contended >= MaxContention
	now := o.Clock.Server // whose stamp it is
	if now.IsZero() {
		now = o.Clock.Earliest
	}
	return w, undone && now.Sub(w.At) < contentionMemory
}

// Required is how many ready pods a colour must have before it may be served: as many as the served one has, at least one,
// and never more than the served one is meant to have. So an active that is broken does not hold back the rollback from it,
// and a rollout that surges does not ask for more than the fleet's size.
func (o *Observation) Required(to Colour) int32 {
	active := o.Deployment(to.Other())
	if active == nil {
		return 1
	}
	meant := active.Desired
	if meant == 0 && o.Spec.Replicas > 0 {
		meant = 1 // it is being given its size, or somebody took it away
	}
	return min(meant, max(active.Ready, 1))
}

// MustRamp reports whether a cutover to the colour has to bring its standby to size before it switches.
func (o *Observation) MustRamp(to Colour) bool {
	d := o.Deployment(to)
	return d != nil && o.Spec.StandbyPercent < 100 && d.Current < o.Required(to)
}

// standbySize is percent of n, rounded up: a standby of more than nothing is never nothing.
func standbySize(n, percent int32) int32 {
	return int32((int64(n)*int64(percent) + 99) / 100)
}

// misconfigured says why the fleet cannot be worked on at all. None of it can be forced.
func (o *Observation) misconfigured() []Blocker {
	var out []Blocker
	bad := func(format string, args ...any) {
		out = append(out, Blocker{Reason: Misconfigured, Message: fmt.Sprintf(format, args...)})
	}
	if o.Spec.Active != Blue && o.Spec.Active != Green {
		bad("spec.active: %q is no colour; choose blue or green", o.Spec.Active)
	}
	if o.Spec.Blue == o.Spec.Green {
		bad("spec.green.deployment: blue and green both name Deployment %s; each colour needs its own", o.Spec.Blue)
		return out
	}
	if o.Service == nil {
		bad("spec.service: there is no Service %s in this namespace; create it or correct the name", o.Spec.Service)
	}
	for _, c := range []Colour{Blue, Green} {
		d := o.Deployment(c)
		if d == nil {
			bad("spec.%s.deployment: there is no Deployment %s in this namespace; create it or correct the name", c, o.Spec.Deployment(c))
			continue
		}
		if got := d.Labels[ColourLabel]; got != string(c) {
			bad("spec.%s.deployment: the pod template of Deployment %s has %s=%q; set it to %s", c, d.Name, ColourLabel, got, c)
		}
	}
	for _, r := range o.Rivals {
		bad("Fleet %s claims the same Service or Deployments; delete one of the two", r)
	}
	if len(out) > 0 {
		return out
	}
	rest := selectorWithout(o.Service.Selector)
	switch {
	case len(rest) == 0 && len(o.Service.Selector) == 0:
		bad("spec.service: Service %s has no selector; it selects nothing, and must select the pods of one colour with %s", o.Service.Name, ColourLabel)
	case o.Service.Selector[ColourLabel] == "":
		bad("spec.service: the selector of Service %s has no %s and would match both colours; add it with the colour that is served now", o.Service.Name, ColourLabel)
	case o.Service.Colour == None:
		bad("spec.service: the selector of Service %s has %s=%s, which is neither colour; set it to the colour to be served now", o.Service.Name, ColourLabel, o.Service.Selector[ColourLabel])
	}
	for _, c := range []Colour{Blue, Green} {
		d := o.Deployment(c)
		for k, v := range rest {
			if got, ok := d.Labels[k]; !ok || got != v {
				bad("spec.service: Service %s selects %s=%s, which the pods of Deployment %s do not have (%q); cut over, it would select nothing", o.Service.Name, k, v, d.Name, got)
			}
		}
		// A Deployment that adopts the other's pods would scale them as its own.
		other := o.Deployment(c.Other())
		if len(d.Selector) > 0 && matches(d.Selector, other.Labels) {
			bad("spec.%s.deployment: the selector of Deployment %s matches the pods of %s as well; put %s into it", c, d.Name, other.Name, ColourLabel)
		}
	}
	slices.SortFunc(out, func(a, b Blocker) int { return strings.Compare(a.Message, b.Message) })
	return out
}

func selectorWithout(selector map[string]string) map[string]string {
	rest := make(map[string]string, len(selector))
	for k, v := range selector {
		if k != ColourLabel {
			rest[k] = v
		}
	}
	return rest
}

// matches reports whether labels have all of selector. An empty selector means nothing, never everything.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return len(selector) > 0
}

// held returns the blockers that hold back the change, forced or not.
func held(blockers []Blocker, force bool) []Blocker {
	var out []Blocker
	for _, b := range blockers {
		if !b.Overridable || !force {
			out = append(out, b)
		}
	}
	return out
}

// sentences are what the blockers say.
func sentences(blockers []Blocker) string {
	var texts []string
	for _, b := range blockers {
		texts = append(texts, b.Message)
	}
	return strings.Join(texts, "; ")
}

// MakePlan says what a cutover would do and what would hold it back. It is made by Preflight, so that the plan and the deed
// agree.
func MakePlan(o *Observation, change Change) Plan {
	p := Plan{From: o.Served(), To: change.To}
	if d := o.Deployment(change.To); d != nil {
		p.Version = d.Version
	}
	p.Blockers = Preflight(o, change)
	if len(p.Blockers) > 0 && p.Blockers[0].Reason == Misconfigured {
		return p
	}
	step := func(format string, args ...any) { p.Steps = append(p.Steps, fmt.Sprintf(format, args...)) }
	if p.From == change.To {
		// Nothing holds back what is served, but it may not be the version that was asked for.
		p.Blockers = slices.DeleteFunc(p.Blockers, func(b Blocker) bool { return b.Reason != WrongVersion })
		if p.Already = len(p.Blockers) == 0 && o.Spec.Active == change.To; len(p.Blockers) == 0 && !p.Already {
			step("declare %s, which is served, and so withdraw the change to %s", change.To, o.Spec.Active)
		}
		return p
	}
	to := o.Deployment(change.To)
	if o.MustRamp(change.To) {
		step("scale Deployment %s from %d to %s and wait until %d of them can serve", to.Name, to.Desired, many(max(o.Spec.Replicas, o.Status.Size), "pod"), o.Required(change.To))
	}
	if c := o.Status.LastCutover; c != nil && c.Outcome == Running && !c.SettledAt.IsZero() && c.From == change.To && o.Spec.Drain.Method.Tells() {
		step("tell the pods of %s to stop draining", change.To)
	}
	step("set the selector of Service %s from %s to %s (%s, %s)", o.Service.Name, p.From, p.To, orUnknown(to.Version), many(to.Ready, "ready pod"))
	step("wait until EndpointSlices serve %s only; switch back once if fewer than %d of its pods are ready within %s", p.To, o.Required(change.To), o.Spec.Guard)
	switch m := o.Spec.Drain.Method; {
	case m.Tells() && o.Spec.Drain.ResetRemaining:
		step("drain %s for at most %s by method %s, reset what is left, and keep it as the standby", p.From, o.Spec.Drain.Timeout, m)
	case m.Tells():
		step("drain %s for at most %s by method %s and keep it as the standby", p.From, o.Spec.Drain.Timeout, m)
	default:
		step("wait at most %s for the connections of %s to end and keep it as the standby", o.Spec.Drain.Timeout, p.From)
	}
	return p
}

// many writes "1 pod" and "3 pods".
func many(n int32, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
