package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
)

// maxDecisions bounds what an operation keeps of its decisions. Aborting is always possible.
const maxDecisions = 500

// Do is what a Run wants done.
type Do string

// What a Run wants done. Each but Wait and End is wanted once.
const (
	Wait      Do = "wait"      // for a report, a result or a decision
	Preflight Do = "preflight" // find out the Plan, then call Planned or Refused
	Switch    Do = "switch"    // begin with Move.Pops at once; for each, Reported any times and Ended once
	Measure   Do = "measure"   // the switched PoPs' error ratio, then call Verified
	Cancel    Do = "cancel"    // those under way: nothing may be asked any more, and answers come soon or not at all
	End       Do = "end"       // the operation has ended
)

// Move is what to do next.
type Move struct {
	Do   Do
	Pops []string
	// Switched with Measure.
	Switched []SwitchedPop
}

// Run decides the course of one operation. It is not safe for concurrent use.
//
// PoPs go in waves. Before each wave it asks a person, when more PoPs have failed than the budget allows, when the first
// PoP did not switch, or when every wave is to be approved. It never takes a PoP back or forward by itself, and it begins
// with each PoP at most once.
type Run struct {
	op   Operation
	pops map[string]*Pop // into op.Waves

	begun, planned bool
	verify         bool // is wanted or under way
	verified       bool
	next           int // the wave that goes next
	approved       int // waves below it need no further approval
	forgiven       int // failures that a person has approved
	open           int // PoPs that have begun and not Ended
	aborted        bool
	cancelled      bool
}

// NewRun is an operation that has not begun. s must be valid.
func NewRun(id string, s Start, at time.Time) *Run {
	return &Run{op: Operation{ID: id, State: Running, Message: "finding out what each PoP would do", Principal: s.Principal, Reason: s.Reason,
		Request: s.Request.WithDefaults(), To: s.Request.To, StartedAt: at, Supersedes: s.Supersedes, Revision: 1}}
}

// Operation is what one sees now. The caller may keep it.
func (r *Run) Operation() Operation {
	op := r.op
	op.Waves = make([][]Pop, len(r.op.Waves))
	for i, w := range r.op.Waves {
		op.Waves[i] = slices.Clone(w)
	}
	op.Decisions = slices.Clone(r.op.Decisions)
	return op
}

// Revision rises with each change.
func (r *Run) Revision() int64 { return r.op.Revision }

// State is where the operation stands.
func (r *Run) State() State { return r.op.State }

// Planned takes what preflight found and lays out the waves: the first PoP alone, then WaveSize at a time of those that
// have something to do.
func (r *Run) Planned(p Plan, at time.Time) {
	if r.planned || r.op.State.Ended() {
		return
	}
	r.planned = true
	r.op.To = p.To
	if len(p.Pops) == 0 { // the fleet service refuses an empty scope; this is the second lock on the same door
		r.end(Failed, "no PoP is in the scope; nothing was changed", at)
		return
	}
	req := r.op.Request
	if err := req.Fits(p); err != nil {
		r.end(Failed, fmt.Sprintf("nothing was changed: %v", err), at)
		return
	}
	first := slices.IndexFunc(p.Pops, func(pp PopPlan) bool { return pp.Pop == req.FirstPop })
	if first >= 0 {
		r.op.Waves = append(r.op.Waves, []Pop{planned(p.Pops[first], p.To)})
	}
	var wave []Pop
	busy := 0
	for i, pp := range p.Pops {
		if i == first {
			continue
		}
		pop := planned(pp, p.To)
		if pop.Step == Pending {
			if req.WaveSize > 0 && busy == req.WaveSize {
				r.op.Waves = append(r.op.Waves, wave)
				wave, busy = nil, 0
			}
			busy++
		}
		wave = append(wave, pop)
	}
	if len(wave) > 0 {
		r.op.Waves = append(r.op.Waves, wave)
	}
	r.pops = make(map[string]*Pop, len(p.Pops))
	for i := range r.op.Waves {
		for j := range r.op.Waves[i] {
			r.pops[r.op.Waves[i][j].Name] = &r.op.Waves[i][j]
		}
	}
	if r.aborted {
		r.skipPending()
	}
	r.changed()
}

func planned(p PopPlan, to Colour) Pop {
	pop := Pop{Name: p.Pop, Step: Pending, From: p.From, To: to}
	switch {
	case p.Already:
		pop.Step = Already
	case p.Blocked != "":
		pop.Step, pop.Message = Blocked, p.Blocked
	}
	return pop
}

// Refused ends an operation that could not be planned.
func (r *Run) Refused(why error, at time.Time) {
	if r.planned || r.op.State.Ended() {
		return
	}
	r.end(Failed, fmt.Sprintf("nothing was changed: %v", why), at)
}

// Reported takes the progress of a PoP under way.
func (r *Run) Reported(rep Report) {
	p := r.pops[rep.Pop]
	if p == nil || p.Step.rank() > Draining.rank() || p.Step == Pending {
		return
	}
	if rep.Step.rank() > p.Step.rank() {
		p.Step = rep.Step
	}
	p.Message = rep.Message
	if rep.From != None {
		p.From = rep.From
	}
	if !rep.SwitchedAt.IsZero() {
		p.SwitchedAt = rep.SwitchedAt
	}
	if !rep.DrainedAt.IsZero() {
		p.DrainedAt = rep.DrainedAt
	}
	for _, c := range []struct{ to, from **int64 }{{&p.Open, &rep.Open}, {&p.Drained, &rep.Drained}, {&p.Reset, &rep.Reset}} {
		if *c.from != nil {
			*c.to = *c.from
		}
	}
	r.changed()
}

// Ended takes the last report of a PoP. It stays Draining when the drain was not followed to its end.
func (r *Run) Ended(rep Report) {
	p := r.pops[rep.Pop]
	if p == nil || p.Step == Pending || r.open == 0 {
		return
	}
	r.open--
	if rep.Step == Switching || rep.Step == Pending { // it ended and nobody knows how
		rep.Step = Broken
	}
	r.Reported(rep)
	r.changed()
}

// Verified takes the measure that was asked for.
func (r *Run) Verified(v Verification) {
	if !r.verify || r.verified {
		return
	}
	r.verified = true
	r.op.Verification = &v
	r.changed()
}

// Check says whether a decision can be taken now; nil also for one that was taken already, under the same key.
func (r *Run) Check(d Decision) error {
	if d.Principal == "" {
		return problem.Invalidf("principal", "nobody decides; authenticate")
	}
	if err := said(d.Reason, d.Key); err != nil {
		return err
	}
	if before := r.decision(d.Key); before != nil {
		if before.Verb != d.Verb || before.Reason != d.Reason || before.Principal != d.Principal {
			return problem.New(problem.AlreadyExists, "idempotency_key", "%q was used by %s to %s; take another key", d.Key, before.Principal, before.Verb)
		}
		return nil
	}
	if len(r.op.Decisions) >= maxDecisions && d.Verb != Abort {
		return problem.New(problem.ResourceExhausted, "", "%d decisions were taken on this operation, and no more than that; abort still works", maxDecisions)
	}
	state := r.op.State
	if state.Ended() {
		return Over(r.op, d.Verb)
	}
	if r.aborted {
		return problem.Preconditionf("", "the operation is being aborted; watch it until it has ended")
	}
	switch d.Verb {
	case Approve:
		if state != Waiting {
			return problem.Preconditionf("", "the operation is %s and asks nothing; there is nothing to approve", state)
		}
	case Pause:
		if state != Running {
			return problem.Preconditionf("", "the operation is %s and starts no PoP now; resume, approve or abort it", state)
		}
		if r.planned && r.count(Pending) == 0 {
			return problem.Preconditionf("", "every PoP has begun already, so a pause would change nothing; abort ends the operation")
		}
	case Resume:
		if state != Paused {
			return problem.Preconditionf("", "the operation is %s and not paused; there is nothing to resume", state)
		}
	case Abort:
	default:
		return problem.Invalidf("verb", "%q is none of %s, %s, %s, %s", string(d.Verb), Approve, Pause, Resume, Abort)
	}
	return nil
}

// Over is the refusal of a decision on an operation that has ended.
func Over(op Operation, v Verb) error {
	return problem.Preconditionf("", "the operation has ended as %s; there is nothing to %s; start another one if the fleet is not as it should be", op.State, v)
}

// Decide takes a decision that Check allows, and returns it as it was recorded first.
func (r *Run) Decide(d Decision, at time.Time) (Decision, error) {
	if err := r.Check(d); err != nil {
		return Decision{}, err
	}
	if before := r.decision(d.Key); before != nil {
		return *before, nil
	}
	d.At = at
	switch d.Verb {
	case Approve:
		r.op.State = Running
		r.approved = r.next + 1
		r.forgiven = r.failures()
	case Pause:
		r.op.State = Paused
	case Resume:
		r.op.State = Running
	case Abort:
		r.op.State = Running
		r.aborted = true
		r.skipPending()
	}
	r.op.Decisions = append(r.op.Decisions, d)
	r.changed()
	return d, nil
}

func (r *Run) decision(key string) *Decision {
	i := slices.IndexFunc(r.op.Decisions, func(d Decision) bool { return d.Key == key })
	if i < 0 {
		return nil
	}
	return &r.op.Decisions[i]
}

// Next says what to do now. Call it after each change until it says Wait or End.
func (r *Run) Next(at time.Time) Move {
	if r.op.State.Ended() {
		return Move{Do: End}
	}
	if r.aborted {
		return r.wind(at)
	}
	if r.op.State != Running {
		r.say()
		return Move{Do: Wait}
	}
	if !r.planned {
		if r.begun {
			return Move{Do: Wait}
		}
		r.begun = true
		return Move{Do: Preflight}
	}
	for r.count(Switching) == 0 && r.next < len(r.op.Waves) {
		wave := r.op.Waves[r.next]
		if !slices.ContainsFunc(wave, func(p Pop) bool { return p.Step == Pending }) {
			r.next++
			continue
		}
		if q := r.question(); q != "" {
			r.op.State, r.op.Message = Waiting, q
			r.op.Revision++
			return Move{Do: Wait}
		}
		m := Move{Do: Switch}
		for i := range wave {
			if wave[i].Step == Pending {
				wave[i].Step, wave[i].StartedAt = Switching, at
				m.Pops = append(m.Pops, wave[i].Name)
			}
		}
		r.open += len(m.Pops)
		r.next++
		r.changed()
		return m
	}
	if r.count(Switching) > 0 {
		r.say()
		return Move{Do: Wait}
	}
	if !r.verify {
		r.verify = true
		if s := r.switched(); len(s) > 0 {
			r.say()
			return Move{Do: Measure, Switched: s}
		}
		r.verified = true
	}
	if r.open > 0 || !r.verified {
		r.say()
		return Move{Do: Wait}
	}
	r.finish(at)
	return Move{Do: End}
}

// wind ends an operation that was aborted as soon as nothing is under way.
func (r *Run) wind(at time.Time) Move {
	if r.open > 0 {
		r.say()
		if !r.cancelled {
			r.cancelled = true
			return Move{Do: Cancel}
		}
		return Move{Do: Wait}
	}
	d := r.op.Decisions[len(r.op.Decisions)-1]
	msg := fmt.Sprintf("aborted by %s: %s; %s", d.Principal, strings.TrimRight(d.Reason, "."), r.tally())
	if n := r.count(Draining) + r.count(Switched); n > 0 {
		msg += fmt.Sprintf("; %s by itself", countOf(n, "PoP finishes its drain", "PoPs finish their drains, each"))
	}
	r.end(Aborted, msg, at)
	return Move{Do: End}
}

// question is what a person must answer before the next wave, or empty.
func (r *Run) question() string {
	if r.next < r.approved {
		return ""
	}
	rest := fmt.Sprintf("approve to go on with the other %d, or abort to stop here", r.count(Pending))
	if fresh := r.failures() - r.forgiven; fresh > r.budget() {
		return fmt.Sprintf("%s blocked or failed, more than the %d allowed (%s); %s",
			countOf(fresh, "PoP is", "PoPs are"), r.budget(), r.failed(), rest)
	}
	if r.op.Request.FirstPop != "" && r.next > 0 {
		if p := r.op.Waves[0][0]; !p.Step.Serves() && r.approved < 2 {
			return fmt.Sprintf("first PoP %s did not switch (%s); %s", p.Name, p.Message, rest)
		}
	}
	if r.op.Request.ApproveWaves && r.begunBefore() {
		return fmt.Sprintf("wave %d of %d has switched, %s; approve to begin with wave %d, or abort to stop here", r.next, len(r.op.Waves), r.tally(), r.next+1)
	}
	return ""
}

// begunBefore says whether any wave had something to do before the next one.
func (r *Run) begunBefore() bool {
	for _, w := range r.op.Waves[:r.next] {
		if slices.ContainsFunc(w, func(p Pop) bool { return !p.StartedAt.IsZero() }) {
			return true
		}
	}
	return false
}

// budget is the highest number of failures that does not stop the operation.
func (r *Run) budget() int {
	if n := r.op.Request.MaxFailedPops; n != nil {
		return *n
	}
	return len(r.pops) / 3
}

func (r *Run) failures() int { return r.count(Blocked) + r.count(Broken) }

func (r *Run) count(s Step) int {
	n := 0
	for _, w := range r.op.Waves {
		for i := range w {
			if w[i].Step == s {
				n++
			}
		}
	}
	return n
}

func (r *Run) switched() []SwitchedPop {
	var out []SwitchedPop
	for _, w := range r.op.Waves {
		for _, p := range w {
			if p.Step.Serves() && p.Step != Already {
				out = append(out, SwitchedPop{Pop: p.Name, At: p.SwitchedAt})
			}
		}
	}
	return out
}

func (r *Run) skipPending() {
	for _, w := range r.op.Waves {
		for i := range w {
			if w[i].Step == Pending {
				w[i].Step, w[i].Message = Skipped, "the operation was aborted before its turn"
			}
		}
	}
}

// finish ends an operation that has nothing left to do.
func (r *Run) finish(at time.Time) {
	serving, changed, all := 0, false, 0
	for _, w := range r.op.Waves {
		for _, p := range w {
			all++
			if p.Step.Serves() {
				serving++
			}
			changed = changed || !p.SwitchedAt.IsZero()
		}
	}
	state, msg := Partial, r.tally()
	switch {
	case serving == all:
		state = Succeeded
	case !changed:
		state, msg = Failed, "no PoP was changed: "+msg
	}
	if serving < all {
		msg += fmt.Sprintf("; mend them and ask again with %s, which leaves the others as they are", r.op.To)
	}
	if v := r.op.Verification; v != nil {
		msg += "; " + v.String()
		if !v.Passed {
			msg += "; look at the edge before you call this over"
		}
	}
	r.end(state, msg, at)
}

func (r *Run) end(s State, msg string, at time.Time) {
	r.op.State, r.op.Message, r.op.EndedAt = s, msg, at
	r.op.Revision++
}

func (r *Run) changed() {
	r.op.Revision++
	if !r.op.State.Ended() && r.op.State != Waiting {
		r.say()
	}
}

// say puts where it stands into words.
func (r *Run) say() {
	msg := r.tally()
	switch {
	case r.op.State == Waiting || r.op.State.Ended():
		return
	case r.aborted:
		msg = "aborting: those under way get a moment to answer; " + msg
	case r.op.State == Paused:
		msg = "paused: resume or abort; " + msg
	case !r.planned:
		msg = "finding out what each PoP would do"
	case r.verify && !r.verified:
		msg += "; measuring the error ratio"
	}
	if msg != r.op.Message {
		r.op.Message = msg
		r.op.Revision++
	}
}

// tally counts the PoPs: "18 of 21 PoPs serve blue, 2 failed (fra1, gru1), 1 under way".
func (r *Run) tally() string {
	if !r.planned {
		return "no PoP was touched"
	}
	serving, all, draining := 0, 0, 0
	for _, w := range r.op.Waves {
		for _, p := range w {
			all++
			if p.Step.Serves() {
				serving++
			}
			if p.Step == Switched || p.Step == Draining {
				draining++
			}
		}
	}
	parts := []string{fmt.Sprintf("%d of %s %s", serving, countOf(all, "PoP serves", "PoPs serve"), r.op.To)}
	if f := r.failed(); f != "" {
		parts = append(parts, f)
	}
	for _, c := range []struct {
		n    int
		what string
	}{{r.count(Switching), "switching"}, {r.count(Pending), "to go"}, {r.count(Skipped), "skipped"}, {draining, "draining"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

// failed names the PoPs that are blocked or failed.
func (r *Run) failed() string {
	var parts []string
	for _, s := range []struct {
		step Step
		what string
	}{{Blocked, "blocked"}, {Broken, "failed"}} {
		var names []string
		for _, w := range r.op.Waves {
			for _, p := range w {
				if p.Step == s.step {
					names = append(names, p.Name)
				}
			}
		}
		if len(names) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s: %s", len(names), s.what, some(names)))
		}
	}
	return strings.Join(parts, ", ")
}

// some names up to five.
func some(names []string) string {
	if n := len(names); n > 5 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:5], " "), n-5)
	}
	return strings.Join(names, " ")
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
