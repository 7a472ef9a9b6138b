package fleet_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	. "edgehold.internal/services/fleet" //nolint:revive // the simulation speaks the domain's language
)

// sim is a PoP that exists in memory: its Service, Deployments, pods, clocks, and the controller. Time moves in ticks of
// 100 ms when it is told to. What a real cluster does by itself happens here by simple rules: a pod is ready 2 s after it
// was made, EndpointSlices follow a tick after the selector, pods that drain end their keep-alive connections at once and
// their streams when told to.
type sim struct {
	out strings.Builder

	uptime time.Duration
	jumped time.Duration // wall clock off the true time
	server time.Duration // the API server's clock off the true time
	stored time.Time     // the API server's stamp on the change

	spec       Spec
	generation int64

	service    Service
	rv         int
	servedAt   time.Duration // when the selector was set last
	served     Colour        // what the slices serve
	deployment map[Colour]*simDeployment
	hpa        *Autoscaler
	rivals     []string
	headroom   Headroom
	persistent Status // in the API server
	apiDown    bool

	// The controller's process.
	up       bool
	memory   Memory
	status   Status
	started  time.Duration // uptime at which the process started
	startJmp time.Duration
	orders   Orders
	decided  bool // pods are asked from the first decision on
	readings map[Colour]Reading
	crash    string // "switch": killed right after it; "status": killed before the status is written
	api      string // "refuses": every switch; "loses": does it, and its answer is lost
	due      time.Duration
	changed  bool

	// For the invariants.
	reverts  map[string]int
	switches map[string]int
	turned   map[string]time.Duration // when the selector was set for a cutover
	broken   []string
	quiet    bool
}

type simDeployment struct {
	desired     int32
	readyAt     []time.Duration // per pod; the simulation's start is long past
	sick        int32           // pods that are not ready whatever happens
	rollout     bool
	version     string
	keepAlive   int64
	streams     int64
	draining    bool
	unreachable bool
	colourLabel string
	missing     bool
	accepted    time.Duration
}

func (d *simDeployment) ready(now time.Duration) int32 {
	n := int32(0)
	for _, at := range d.readyAt {
		if at <= now {
			n++
		}
	}
	return max(min(n, int32(len(d.readyAt))-d.sick), 0)
}

const tick = 100 * time.Millisecond

var epoch = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

func newSim(spec Spec) *sim {
	s := &sim{uptime: time.Hour, spec: spec, generation: 1, up: true, changed: true, reverts: map[string]int{}, switches: map[string]int{}, turned: map[string]time.Duration{}, readings: map[Colour]Reading{}}
	s.started = s.uptime
	s.deployment = map[Colour]*simDeployment{}
	for _, c := range []Colour{Blue, Green} {
		d := &simDeployment{version: map[Colour]string{Blue: "v1", Green: "v2"}[c], colourLabel: string(c)}
		n := spec.Replicas
		if c != spec.Active {
			n = int32((int64(n)*int64(spec.StandbyPercent) + 99) / 100)
		}
		d.desired, d.readyAt = n, make([]time.Duration, n)
		s.deployment[c] = d
	}
	s.service = Service{Name: spec.Service, Managers: []Writer{{Name: "kubectl-client-side-apply", At: epoch}}}
	s.served = spec.Active
	s.point(spec.Active)
	s.servedAt = 0
	room := int32(1000)
	quota := NoQuota
	s.headroom = Headroom{Nodes: &room, Quota: &quota}
	return s
}

func (s *sim) printf(format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(&s.out, format+"\n", args...)
	}
}

func (s *sim) say(format string, args ...any) {
	s.printf("%-7s "+format, append([]any{s.since().String()}, args...)...)
}

// since the simulation began.
func (s *sim) since() time.Duration { return s.uptime - time.Hour }

func (s *sim) now() time.Time { return epoch.Add(s.since()) }

func (s *sim) point(c Colour) {
	s.rv++
	s.service.ResourceVersion = strconv.Itoa(s.rv)
	s.service.Selector = map[string]string{"app": "edge", ColourLabel: string(c)}
	s.service.Colour = c
	if c != Blue && c != Green {
		s.service.Colour = None
	}
	if c == None {
		delete(s.service.Selector, ColourLabel)
	}
	s.servedAt = s.uptime
	s.changed = true
}

// clock is what a controller on this machine sees.
func (s *sim) clock() Clock {
	wall := s.now().Add(s.jumped)
	c := Clock{Now: wall, Server: s.now().Add(s.server), Earliest: wall, Latest: wall, Uptime: s.uptime - s.started + 1}
	if wall.Sub(c.Server).Abs() > MaxDoubt {
		c.Now = c.Server
	}
	for _, t := range []time.Time{s.now().Add(s.startJmp), c.Server} {
		if t.Before(c.Earliest) {
			c.Earliest = t
		}
		if t.After(c.Latest) {
			c.Latest = t
		}
	}
	return c
}

// stamp is what the API server puts on what it stores.
func (s *sim) stamp() time.Time { return s.now().Add(s.server).Truncate(time.Second) }

func (s *sim) observe() Observation {
	o := Observation{Name: "edge", Generation: s.generation, Spec: s.spec, Status: s.status, Stored: s.stored, Autoscaler: s.hpa, Rivals: s.rivals, Headroom: s.headroom,
		Clock: s.clock(), Memory: s.memory, BluePods: s.readings[Blue], GreenPods: s.readings[Green]}
	o.Spec.Freezes = slices.Clone(s.spec.Freezes)
	if s.service.Name != "" {
		service := s.service
		service.Selector = maps.Clone(service.Selector)
		o.Service = &service
	}
	o.Blue, o.Green = s.see(Blue), s.see(Green)
	if d := s.deployment[s.served]; d != nil {
		switch s.served {
		case Blue:
			o.Endpoints.Blue = d.ready(s.uptime)
		case Green:
			o.Endpoints.Green = d.ready(s.uptime)
		}
	}
	return o
}

func (s *sim) see(c Colour) *Deployment {
	d := s.deployment[c]
	if d.missing {
		return nil
	}
	out := &Deployment{Name: s.spec.Deployment(c), Version: d.version, Desired: d.desired, Pods: int32(len(d.readyAt)), Ready: d.ready(s.uptime),
		Labels: map[string]string{"app": "edge", ColourLabel: d.colourLabel}, Selector: map[string]string{"app": "edge", ColourLabel: string(c)}}
	if out.Current = out.Ready; d.rollout {
		out.Current = 0
	}
	return out
}

// tick moves the world by 100 ms.
func (s *sim) tick() {
	before := s.picture()
	s.uptime += tick
	if s.served != s.service.Colour && s.uptime-s.servedAt >= tick {
		s.served = s.service.Colour
	}
	for _, d := range s.deployment {
		for int32(len(d.readyAt)) < d.desired {
			d.readyAt = append(d.readyAt, s.uptime+2*time.Second)
		}
		d.readyAt = d.readyAt[:d.desired]
	}
	if s.picture() != before {
		s.changed = true
	}
	if !s.up {
		return
	}
	s.probe()
	if s.changed || s.due > 0 && s.uptime >= s.due {
		s.reconcile()
	}
}

func (s *sim) picture() string {
	var b strings.Builder
	fmt.Fprint(&b, s.served, s.service.ResourceVersion)
	for _, c := range []Colour{Blue, Green} {
		fmt.Fprint(&b, " ", s.deployment[c].desired, s.deployment[c].ready(s.uptime))
	}
	return b.String()
}

// probe asks the pods and tells them what shall hold, as the controller's follower does.
func (s *sim) probe() {
	if !s.spec.Drain.Method.Counts() || !s.decided {
		return
	}
	for _, c := range []Colour{Blue, Green} {
		d := s.deployment[c]
		r := Reading{At: s.uptime - s.started + 1, Pods: len(d.readyAt)}
		if d.unreachable {
			r.Unknown, r.Problem = r.Pods, "pod "+string(c)+"-1: connection refused"
		} else {
			if want := s.orders.Drain == c; d.draining != want && s.spec.Drain.Method.Tells() {
				d.draining = want
				s.say("pods   %s drain=%t", c, want)
				if want {
					d.keepAlive = 0
				}
			}
			if d.draining {
				r.Draining = r.Pods
			}
			if id := s.orders.ResetID; id != "" && s.orders.Drain == c {
				r.ResetID, r.ResetDone = id, true
				if before := s.readings[c]; before.ResetID == id {
					r.Reset = before.Reset
				} else {
					r.Reset = d.streams + d.keepAlive
					d.streams, d.keepAlive = 0, 0
					s.say("pods   %s reset %d", c, r.Reset)
				}
			}
			r.Open = d.keepAlive + d.streams
			r.LastAccepted = epoch.Add(d.accepted)
		}
		before := s.readings[c]
		s.readings[c] = r
		if before.At = r.At; before != r || s.orders.Fast {
			s.changed = true
		}
	}
}

// reconcile decides and does it, as often as the doing changes something.
func (s *sim) reconcile() {
	for range 10 {
		if !s.up || !s.changed && (s.due == 0 || s.uptime < s.due) {
			return
		}
		s.changed, s.due = false, 0
		s.once()
	}
	s.broken = append(s.broken, "the controller does not come to rest")
}

func (s *sim) once() {
	o := s.observe()
	d := Decide(o)
	s.check(&o, &d)
	if w := d.Switch; w != nil {
		if w.ResourceVersion != s.service.ResourceVersion {
			s.changed = true // lost against another writer
			return
		}
		if s.api == "refuses" {
			s.fails(&d, "the API server refuses")
			return
		}
		s.say("switch %s → %s (%s)", w.From, w.To, w.Why)
		s.count(d.Status.LastCutover.ID, w.Why)
		s.point(w.To)
		s.service.Fence = w.Fence
		if w.Reverts != "" {
			s.service.Reverted = w.Reverts
		}
		s.service.Managers = []Writer{{Name: OwnManager, At: s.stamp()}}
		if s.crash == "switch" {
			s.kill("after the switch")
			return
		}
		if s.api == "loses" {
			s.fails(&d, "the answer was lost")
			return
		}
		d.Switched(s.clock())
	}
	if sc := d.Scale; sc != nil {
		s.say("scale  blue=%d green=%d, %s first", sc.Blue, sc.Green, sc.First)
		for _, c := range []Colour{sc.First, sc.First.Other()} {
			if s.deployment[c].desired != sc.Of(c) {
				s.deployment[c].desired = sc.Of(c)
				s.changed = true
			}
			s.dominance(&o, &d)
		}
	}
	if s.crash == "status" {
		s.kill("before the status is written")
		return
	}
	for _, n := range d.Notices {
		mark := ""
		if n.Warning {
			mark = "! "
		}
		s.say("event  %s%s: %s", mark, n.Reason, n.Message)
	}
	if d.Status.Phase != s.status.Phase {
		s.say("phase  %s: %s", d.Status.Phase, d.Status.Message)
	}
	s.decided = true
	s.memory, s.status, s.orders = d.Memory, d.Status, d.Pods
	if !s.apiDown {
		s.persistent = d.Status
	}
	if d.Requeue > 0 {
		s.due = s.uptime + d.Requeue
	}
}

// count notes that the selector was set: at most once back, and a bounded number of times in all.
func (s *sim) count(id string, why Why) {
	if why == ForCutover {
		s.turned[id] = s.uptime
	}
	if why == ToRevert {
		if s.reverts[id]++; s.reverts[id] > 1 {
			s.broken = append(s.broken, fmt.Sprintf("%s: %s was reverted %d times", s.since(), id, s.reverts[id]))
		}
	}
	if s.switches[id]++; s.switches[id] > 2+MaxContention {
		s.broken = append(s.broken, fmt.Sprintf("%s: %s set the selector %d times", s.since(), id, s.switches[id]))
	}
}

// fails is a switch whose writing failed, as the controller takes it: it tries again in a while.
func (s *sim) fails(d *Decision, why string) {
	if d.Switch.Why == ForCutover {
		s.memory, s.status = d.Memory, d.Status
		s.status.Phase, s.status.Message = Blocked, why
		if !s.apiDown {
			s.persistent = s.status
		}
	}
	s.due = s.uptime + 500*time.Millisecond
}

func (s *sim) kill(when string) {
	s.say("crash  %s", when)
	s.crash, s.up = "", false
}

func (s *sim) restart() {
	s.up, s.memory, s.status, s.orders, s.changed, s.crash = true, Memory{}, s.persistent, Orders{}, true, ""
	s.decided = false
	s.started, s.startJmp, s.readings = s.uptime, s.jumped, map[Colour]Reading{}
	s.say("start  a controller without a memory")
}

// check holds the decision against what must be true of every one of them.
func (s *sim) check(o *Observation, d *Decision) {
	wrong := func(format string, args ...any) {
		s.broken = append(s.broken, fmt.Sprintf("%s: ", s.since())+fmt.Sprintf(format, args...))
	}
	served := o.Served()
	if w := d.Switch; w != nil {
		served = w.To
		to := o.Deployment(w.To)
		forced := d.Status.LastCutover.Forced
		if need := o.Required(w.To); to.Ready < need && !(forced && to.Ready > 0) {
			wrong("switched to %s with %d ready pods of %d required", w.To, to.Ready, need)
		}
	}
	for _, c := range d.Status.Conditions {
		if c.Type == ConditionRollbackReady && c.Status == "True" && served != None && !strings.HasPrefix(c.Message, string(served.Other())) {
			wrong("%s will be served, and the condition %s says: %s", served, c.Type, c.Message)
		}
	}
	if d.Pods.Drain != None && d.Pods.Drain == served {
		wrong("the colour that is served is told to drain")
	}
	if d.Pods.ResetID != "" && !o.Spec.Drain.ResetRemaining {
		wrong("connections are reset that nobody wanted reset")
	}
	if o.Blue == nil || o.Green == nil {
		return
	}
	blue, green := o.Blue.Desired, o.Green.Desired
	if d.Scale != nil {
		blue, green = d.Scale.Blue, d.Scale.Green
	}
	if len(o.Rivals) == 0 && o.Spec.StandbyPercent == 100 && blue != green && (d.Status.Size > 0 || blue > 0) {
		wrong("no parity: %d blue and %d green pods", blue, green)
	}
	c := d.Status.LastCutover
	under := c != nil && c.Outcome == Running && d.Status.Phase != Halted
	if d.Scale != nil && under && o.Status.LastCutover != nil && o.Status.LastCutover.ID == c.ID && o.Status.Size > 0 {
		if low := min(d.Scale.Of(c.To), d.Scale.Of(c.From)); low < min(o.Status.Size, o.Blue.Desired, o.Green.Desired) {
			wrong("shrank to %d in a cutover", low)
		}
	}
	if d.Scale != nil && served != None && d.Scale.Of(served) < o.Status.Size {
		for _, r := range append(last(&o.Status), o.Status.History...) {
			if at, known := s.turned[r.ID]; known && !r.SwitchedAt.IsZero() && s.uptime-at < o.Spec.ScaleDownHold-time.Second { // the API server stamps whole seconds
				wrong("shrank to %d %s after the switch of %s", d.Scale.Of(served), s.uptime-at, r.ID)
			}
		}
		if o.Autoscaler != nil && o.Autoscaler.Problem != "" {
			wrong("shrank to %d on the word of a blind autoscaler", d.Scale.Of(served))
		}
	}
	if d.Scale != nil && served == None && o.Spec.StandbyPercent < 100 {
		wrong("sizes are changed, and nobody knows which colour is served")
	}
	if d.Status.Phase == "" || d.Status.Message == "" {
		wrong("a status without a phase and a message")
	}
}

// dominance: in the middle of scaling, the standby is never the smaller one.
func (s *sim) dominance(o *Observation, d *Decision) {
	active := d.Status.Active
	if active == None || o.Spec.StandbyPercent < 100 || o.Blue.Desired != o.Green.Desired {
		return
	}
	if a, b := s.deployment[active].desired, s.deployment[active.Other()].desired; b < a {
		s.broken = append(s.broken, fmt.Sprintf("%s: the standby is asked for %d pods beside %d", s.since(), b, a))
	}
}

// wait lets time pass.
func (s *sim) wait(d time.Duration) {
	for end := s.uptime + d; s.uptime < end; {
		s.tick()
	}
}

func (s *sim) declare(c Change) {
	s.spec.Active = c.To
	s.spec.Change, s.stored = &c, s.stamp()
	s.generation++
	s.changed = true
}

func (s *sim) write(manager string, c Colour) {
	s.point(c)
	s.service.Managers = []Writer{{Name: manager, At: s.stamp()}}
}

// summary is the status in a few lines.
func (s *sim) summary() string {
	var b strings.Builder
	st := &s.persistent
	fmt.Fprintf(&b, "serves %s (%s), declared %s, %s: %s\n", orNone(st.Active), st.Version, s.spec.Active, st.Phase, st.Message)
	fmt.Fprintf(&b, "size %d: blue %d/%d, green %d/%d\n", st.Size, st.Blue.Ready, s.deployment[Blue].desired, st.Green.Ready, s.deployment[Green].desired)
	for i, c := range append(last(st), st.History...) {
		name := "last   "
		if i > 0 {
			name = "earlier"
		}
		fmt.Fprintf(&b, "%s %s %s→%s %s", name, c.ID, c.From, c.To, c.Outcome)
		if c.Rollback {
			fmt.Fprint(&b, ", a rollback")
		}
		if !c.SwitchedAt.IsZero() {
			fmt.Fprintf(&b, ", switched after %s", c.SwitchedAt.Sub(c.DeclaredAt))
		}
		if !c.DrainedAt.IsZero() {
			fmt.Fprintf(&b, ", drained after %s", c.DrainedAt.Sub(c.SwitchedAt))
		}
		if c.Ramp > 0 {
			fmt.Fprintf(&b, ", ramp %s", c.Ramp)
		}
		if c.Contended > 0 {
			fmt.Fprintf(&b, ", contended %d times", c.Contended)
		}
		if c.ConnectionsAtSwitch != nil {
			fmt.Fprintf(&b, ", connections %s at switch, %s drained, %s reset, %s left", number(c.ConnectionsAtSwitch), number(c.ConnectionsDrained), number(c.ConnectionsReset), number(c.ConnectionsLeft))
		}
		fmt.Fprintln(&b)
	}
	for _, c := range st.Conditions {
		if c.Status != "True" {
			fmt.Fprintf(&b, "%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return b.String()
}

func last(st *Status) []Cutover {
	if st.LastCutover == nil {
		return nil
	}
	return []Cutover{*st.LastCutover}
}

func orNone(c Colour) string {
	if c == None {
		return "nothing"
	}
	return string(c)
}

func number(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return strconv.FormatInt(*n, 10)
}
