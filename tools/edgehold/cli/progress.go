package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
)

// progress shows an operation as it goes: a block that is redrawn on a terminal, a line per step when piped.
type progress struct {
	w     io.Writer
	width int // columns of the terminal, 0 when piped
	begun time.Time
	lines int // of the block that is on the screen
	steps map[string]runbookv1.Step
	state runbookv1.State
	said  string
}

func newProgress(w io.Writer, begun time.Time) *progress {
	p := &progress{w: w, begun: begun, steps: map[string]runbookv1.Step{}}
	if f, is := w.(*os.File); is && term.IsTerminal(int(f.Fd())) {
		p.width = 80
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = width
		}
	}
	return p
}

// glyphs stand for the steps; each step also has its word, so that nothing hangs on a colour or a font.
var glyphs = map[runbookv1.Step]string{
	runbookv1.Step_STEP_PENDING:   "\x1b[2m○\x1b[0m",
	runbookv1.Step_STEP_SWITCHING: "\x1b[33m◐\x1b[0m",
	runbookv1.Step_STEP_SWITCHED:  "\x1b[32m●\x1b[0m",
	runbookv1.Step_STEP_DRAINING:  "\x1b[36m●\x1b[0m",
	runbookv1.Step_STEP_DONE:      "\x1b[32m✓\x1b[0m",
	runbookv1.Step_STEP_ALREADY:   "\x1b[32m✓\x1b[0m",
	runbookv1.Step_STEP_BLOCKED:   "\x1b[31m✗\x1b[0m",
	runbookv1.Step_STEP_FAILED:    "\x1b[31m✗\x1b[0m",
	runbookv1.Step_STEP_SKIPPED:   "\x1b[2m–\x1b[0m",
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

func stepName(s runbookv1.Step) string { return name(s.String(), "STEP_") }

// headline is the state in one line.
func headline(op *runbookv1.Operation) string {
	all := pops(op)
	n := 0
	for _, p := range all {
		if serves(p.GetStep()) {
			n++
		}
	}
	verb := "Cutover of"
	if op.GetGlobalCutover().GetKind() == runbookv1.Kind_KIND_ROLLBACK {
		verb = "Rollback of"
	}
	return fmt.Sprintf("%s %s to %s: %d of %d PoPs serve it, %s", verb, op.GetGlobalCutover().GetFleet(), orUnknown(colourName(op.GetTo())), n, len(all), name(op.GetState().String(), "STATE_"))
}

// show draws the operation's new state.
func (p *progress) show(op *runbookv1.Operation) {
	if p.width > 0 {
		p.redraw(op)
		return
	}
	for _, pop := range pops(op) {
		if p.steps[pop.GetPop()] == pop.GetStep() || pop.GetStep() == runbookv1.Step_STEP_PENDING {
			continue
		}
		p.steps[pop.GetPop()] = pop.GetStep()
		at := time.Now()
		if pop.GetStep() == runbookv1.Step_STEP_SWITCHED && pop.GetSwitchedAt() != nil {
			at = pop.GetSwitchedAt().AsTime()
		}
		line := fmt.Sprintf("%+8.3fs  %-8s %s", at.Sub(p.begun).Seconds(), pop.GetPop(), stepName(pop.GetStep()))
		if pop.GetMessage() != "" {
			line += ": " + pop.GetMessage()
		}
		fmt.Fprintln(p.w, line)
	}
	if op.GetState() != p.state || op.GetMessage() != p.said {
		p.state, p.said = op.GetState(), op.GetMessage()
		fmt.Fprintf(p.w, "%+8.3fs  %s: %s\n", time.Since(p.begun).Seconds(), name(op.GetState().String(), "STATE_"), op.GetMessage())
	}
}

func (p *progress) redraw(op *runbookv1.Operation) {
	var b strings.Builder
	if p.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", p.lines)
	}
	all := pops(op)
	done := 0
	for _, pop := range all {
		if serves(pop.GetStep()) {
			done++
		}
	}
	lines := []string{clip(headline(op), p.width), bar(done, len(all), min(40, p.width-12)) + fmt.Sprintf(" %6.1fs", time.Since(p.begun).Seconds())}
	const cell = 26
	perLine := max(1, p.width/cell)
	row := ""
	for i, pop := range all {
		detail := stepName(pop.GetStep())
		if t := pop.GetSwitchedAt(); t != nil && serves(pop.GetStep()) {
			detail = fmt.Sprintf("%s %.2fs", detail, t.AsTime().Sub(p.begun).Seconds())
		}
		if pop.OpenConnections != nil && pop.GetStep() == runbookv1.Step_STEP_DRAINING {
			detail = fmt.Sprintf("draining %d", pop.GetOpenConnections())
		}
		text := clip(fmt.Sprintf("%-7s %s", pop.GetPop(), detail), cell-3)
		row += glyphs[pop.GetStep()] + " " + text + strings.Repeat(" ", cell-2-len([]rune(text)))
		if (i+1)%perLine == 0 || i == len(all)-1 {
			lines = append(lines, row)
			row = ""
		}
	}
	for _, pop := range all {
		if pop.GetMessage() != "" && (pop.GetStep() == runbookv1.Step_STEP_BLOCKED || pop.GetStep() == runbookv1.Step_STEP_FAILED) {
			lines = append(lines, clip(pop.GetPop()+": "+pop.GetMessage(), p.width))
		}
	}
	if op.GetMessage() != "" {
		lines = append(lines, clip(op.GetMessage(), p.width))
	}
	p.lines = len(lines)
	b.WriteString(strings.Join(lines, "\n") + "\n")
	_, _ = io.WriteString(p.w, b.String())
}

func bar(n, of, width int) string {
	if of == 0 || width <= 0 {
		return ""
	}
	full := n * width / of
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// clip cuts a line to the width; the last column shows that something was cut.
func clip(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:max(0, width-1)]) + "…"
}
