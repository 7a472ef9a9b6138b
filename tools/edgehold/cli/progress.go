package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
)

// progress shows an operation as it goes: a block that is redrawn on a terminal, a line per step elsewhere. It is safe for
// concurrent use.
type progress struct {
	w io.Writer
	// size is asked before each drawing, because windows are resized.
	size   func() screen
	live   bool // redraws
	colour bool
	begun  time.Time
	now    func() time.Time

	mu    sync.Mutex
	op    *runbookv1.Operation // shown last
	drawn redrawn
	steps map[string]runbookv1.Step
	state runbookv1.State
	said  string
}

func (a *app) newProgress(w io.Writer, begun time.Time) *progress {
	return &progress{w: w, size: func() screen { return screenOf(w) }, live: screenOf(w).redraws(), colour: colours(), begun: begun, now: a.now,
		steps: map[string]runbookv1.Step{}}
}

// tick keeps the time on the screen going, so that one sees that it lives. The returned function ends it.
func (p *progress) tick() (stop func()) {
	if !p.live {
		return func() {}
	}
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.mu.Lock()
				p.draw()
				p.mu.Unlock()
			case <-done:
				return
			}
		}
	})
	return func() { close(done); ticking.Wait() }
}

// show draws the operation's new state.
func (p *progress) show(op *runbookv1.Operation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.op = op
	if p.live {
		p.draw()
	} else {
		p.say()
	}
}

// note prints a line between; the block is drawn anew below it.
func (p *progress) note(w io.Writer, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(w, text)
	p.drawn.lines = 0
}

// glyph stands for a step. Each also has its word, so that nothing hangs on a colour or a font.
type glyph struct{ colour, sign string }

var glyphs = map[runbookv1.Step]glyph{
	runbookv1.Step_STEP_PENDING:   {"2", "○"},
	runbookv1.Step_STEP_SWITCHING: {"33", "◐"},
	runbookv1.Step_STEP_SWITCHED:  {"32", "●"},
	runbookv1.Step_STEP_DRAINING:  {"36", "●"},
	runbookv1.Step_STEP_DONE:      {"32", "✓"},
	runbookv1.Step_STEP_ALREADY:   {"32", "✓"},
	runbookv1.Step_STEP_BLOCKED:   {"31", "✗"},
	runbookv1.Step_STEP_FAILED:    {"31", "✗"},
	runbookv1.Step_STEP_SKIPPED:   {"2", "–"},
}

// urgency orders the steps by what a person wants to see first when there is no room for all.
var urgency = map[runbookv1.Step]int{
	runbookv1.Step_STEP_FAILED: 1, runbookv1.Step_STEP_BLOCKED: 2, runbookv1.Step_STEP_SWITCHING: 3, runbookv1.Step_STEP_PENDING: 4,
	runbookv1.Step_STEP_DRAINING: 5, runbookv1.Step_STEP_SWITCHED: 6, runbookv1.Step_STEP_SKIPPED: 7, runbookv1.Step_STEP_DONE: 8, runbookv1.Step_STEP_ALREADY: 9,
}

func pops(op *runbookv1.Operation) []*runbookv1.PopProgress {
	var out []*runbookv1.PopProgress
	for _, w := range op.GetWaves() {
		out = append(out, w.GetPops()...)
	}
	return out
}

// serves tells whether the PoP has reached the target.
func serves(s runbookv1.Step) bool {
	switch s {
	case runbookv1.Step_STEP_SWITCHED, runbookv1.Step_STEP_DRAINING, runbookv1.Step_STEP_DONE, runbookv1.Step_STEP_ALREADY:
		return true
	}
	return false
}

func serving(op *runbookv1.Operation) (n, all int) {
	for _, p := range pops(op) {
		all++
		if serves(p.GetStep()) {
			n++
		}
	}
	return n, all
}

// ended tells whether the operation is over.
func ended(s runbookv1.State) bool {
	switch s {
	case runbookv1.State_STATE_SUCCEEDED, runbookv1.State_STATE_PARTIAL, runbookv1.State_STATE_FAILED, runbookv1.State_STATE_ABORTED:
		return true
	}
	return false
}

func stepName(s runbookv1.Step) string { return name(s.String(), "STEP_") }

// headline is the state in one line.
func headline(op *runbookv1.Operation) string {
	n, all := serving(op)
	verb := "Cutover"
	if op.GetGlobalCutover().GetKind() == runbookv1.Kind_KIND_ROLLBACK {
		verb = "Rollback"
	}
	text := verb + " of " + op.GetGlobalCutover().GetFleet()
	if to := colourName(op.GetTo()); to != "" {
		text += " to " + to
	}
	if all > 0 {
		text += fmt.Sprintf(": %d of %d PoPs serve it", n, all)
	}
	return text + ", " + name(op.GetState().String(), "STATE_")
}

// elapsed is how long the operation has been going, or how long it took.
func (p *progress) elapsed() time.Duration {
	if start, end := p.op.GetStartedAt(), p.op.GetEndedAt(); start != nil && end != nil {
		return end.AsTime().Sub(start.AsTime())
	}
	return max(0, p.now().Sub(p.begun)) // the start may be by another clock
}

// after is when something was, counted from the start of the operation.
func (p *progress) after(t *timestamppb.Timestamp) time.Duration {
	return t.AsTime().Sub(p.op.GetStartedAt().AsTime())
}

// say prints what is new, a line each.
func (p *progress) say() {
	all := pops(p.op)
	width := 0
	for _, pop := range all {
		width = max(width, utf8.RuneCountInString(pop.GetPop()))
	}
	for _, pop := range all {
		step := pop.GetStep()
		if p.steps[pop.GetPop()] == step || step == runbookv1.Step_STEP_PENDING {
			continue
		}
		p.steps[pop.GetPop()] = step
		at, detail := p.elapsed(), ""
		switch {
		case step == runbookv1.Step_STEP_SWITCHED && pop.GetSwitchedAt() != nil:
			at = p.after(pop.GetSwitchedAt())
		case step == runbookv1.Step_STEP_DONE && pop.GetDrainedAt() != nil:
			at = p.after(pop.GetDrainedAt())
			detail = fmt.Sprintf(", connections: %s drained, %s reset", count(pop.ConnectionsDrained), count(pop.ConnectionsReset))
		}
		if pop.GetMessage() != "" {
			detail += ": " + pop.GetMessage()
		}
		fmt.Fprintf(p.w, "%+8.3fs  %s  %s%s\n", at.Seconds(), pad(pop.GetPop(), width), stepName(step), detail)
	}
	if state, message := p.op.GetState(), p.op.GetMessage(); message != "" && (state != p.state || message != p.said) {
		p.state, p.said = state, message
		fmt.Fprintf(p.w, "%+8.3fs  %s: %s\n", p.elapsed().Seconds(), name(state.String(), "STATE_"), message)
	}
}

func (p *progress) draw() {
	if p.op != nil {
		size := p.size()
		p.drawn.draw(p.w, size, p.block(size))
	}
}

// block is what the screen shows. While the operation goes on it is lower than the screen: what has scrolled away cannot
// be redrawn.
func (p *progress) block(size screen) []string {
	over := ended(p.op.GetState())
	n, all := serving(p.op)
	lines := []string{clip(headline(p.op), size.width)}
	if all > 0 {
		lines = append(lines, p.bar(n, all, size.width))
	}
	below := p.below(size.width)
	room := max(1, size.height-1-len(lines))
	if !over && len(below) > (room+1)/2 {
		below = append(below[:room/2], "…")
	}
	return append(append(lines, p.grid(size.width, room-len(below), over)...), below...)
}

func (p *progress) bar(n, all, width int) string {
	const most = 40
	width = max(0, min(most, width-30))
	text := strings.Repeat("█", n*width/all) + strings.Repeat("░", width-n*width/all) + fmt.Sprintf(" %.1fs", p.elapsed().Seconds())
	var last time.Duration
	for _, pop := range pops(p.op) {
		if t := pop.GetSwitchedAt(); t != nil && serves(pop.GetStep()) {
			last = max(last, p.after(t))
		}
	}
	if last > 0 {
		text += fmt.Sprintf(", last switch %.2fs", last.Seconds())
	}
	return text
}

// grid is a cell for each PoP, in their order. When there are more than fit, those that need no look are left out.
func (p *progress) grid(width, room int, all bool) []string {
	shown := pops(p.op)
	const detail, gap = 14, 2 // "switched 12.34s" has one more, and its gap is one less
	label := 4
	for _, pop := range shown {
		label = max(label, utf8.RuneCountInString(pop.GetPop()))
	}
	label = min(label, 24)
	cell := 2 + label + 1 + detail + gap
	columns := max(1, (width+gap)/cell)
	left := 0
	if fit := max(1, room) * columns; !all && len(shown) > fit {
		keep := max(0, fit-columns) // the last line says how many are left out
		left = len(shown) - keep
		shown = slices.Clone(shown)
		slices.SortStableFunc(shown, func(a, b *runbookv1.PopProgress) int { return cmp.Compare(urgency[a.GetStep()], urgency[b.GetStep()]) })
		shown = shown[:keep]
	}
	var lines []string
	row := ""
	for i, pop := range shown {
		text := stepName(pop.GetStep())
		if t := pop.GetSwitchedAt(); t != nil && serves(pop.GetStep()) {
			text = fmt.Sprintf("%s %.2fs", text, p.after(t).Seconds())
		}
		if pop.GetStep() == runbookv1.Step_STEP_DRAINING && pop.OpenConnections != nil {
			text = fmt.Sprintf("draining %d", pop.GetOpenConnections())
		}
		row += p.sign(pop.GetStep()) + " " + pad(clip(pad(clip(pop.GetPop(), label), label)+" "+text, cell-3), cell-2)
		if (i+1)%columns == 0 || i == len(shown)-1 {
			lines = append(lines, strings.TrimRight(row, " "))
			row = ""
		}
	}
	if left > 0 {
		lines = append(lines, clip(fmt.Sprintf("… and %d more: %s", left, p.tally()), width))
	}
	return lines
}

// tally counts all PoPs by step.
func (p *progress) tally() string {
	counts := map[runbookv1.Step]int{}
	for _, pop := range pops(p.op) {
		counts[pop.GetStep()]++
	}
	steps := make([]runbookv1.Step, 0, len(counts))
	for s := range counts {
		steps = append(steps, s)
	}
	slices.SortFunc(steps, func(a, b runbookv1.Step) int { return cmp.Compare(urgency[a], urgency[b]) })
	var parts []string
	for _, s := range steps {
		parts = append(parts, fmt.Sprintf("%d %s", counts[s], stepName(s)))
	}
	return strings.Join(parts, ", ")
}

func (p *progress) sign(s runbookv1.Step) string {
	g := glyphs[s]
	if !p.colour || g.sign == "" {
		return cmp.Or(g.sign, " ")
	}
	return "\x1b[" + g.colour + "m" + g.sign + "\x1b[0m"
}

// below are the sentences: where the operation stands, what a person can do, and why PoPs were left behind. What an
// operation that did not succeed says at its end is left to the error that the command ends with.
func (p *progress) below(width int) []string {
	var lines []string
	state := p.op.GetState()
	if !ended(state) || state == runbookv1.State_STATE_SUCCEEDED {
		lines = append(lines, wrap(p.op.GetMessage(), width, "")...)
	}
	if state == runbookv1.State_STATE_WAITING {
		lines = append(lines, "  edgehold operation approve --reason TEXT", "  edgehold operation abort --reason TEXT")
	}
	var messages []string // in the order of their first PoP
	left := map[string][]string{}
	for _, pop := range pops(p.op) {
		if m := pop.GetMessage(); m != "" && !serves(pop.GetStep()) && pop.GetStep() != runbookv1.Step_STEP_PENDING {
			if left[m] == nil {
				messages = append(messages, m)
			}
			left[m] = append(left[m], pop.GetPop())
		}
	}
	for _, m := range messages {
		lines = append(lines, wrap(strings.Join(left[m], ", ")+": "+m, width, "  ")...)
	}
	for i, line := range lines {
		lines[i] = clip(line, width)
	}
	return lines
}
