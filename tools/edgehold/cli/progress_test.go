package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
)

// many is an operation over n PoPs, a third of the way.
func many(n int) *runbookv1.Operation {
	op := &runbookv1.Operation{Id: "edge.1", State: runbookv1.State_STATE_RUNNING, StartedAt: timestamppb.New(begun), To: fleetv1.Colour_COLOUR_BLUE,
		Message:       "1 of 3 PoPs serves blue, 1 switching, 1 failed: sin1",
		GlobalCutover: &runbookv1.GlobalCutover{Kind: runbookv1.Kind_KIND_ROLLBACK, Fleet: "edge"}}
	wave := &runbookv1.Wave{}
	for i := range n {
		p := &runbookv1.PopProgress{Pop: fmt.Sprintf("pop%d", i)}
		switch i % 3 {
		case 0:
			p.Step, p.SwitchedAt = runbookv1.Step_STEP_SWITCHED, timestamppb.New(begun.Add(250*time.Millisecond))
		case 1:
			p.Step = runbookv1.Step_STEP_SWITCHING
		default:
			p.Step, p.Message = runbookv1.Step_STEP_FAILED, "the Kubernetes API cannot be reached: no answer in time"
		}
		wave.Pops = append(wave.Pops, p)
	}
	op.Waves = []*runbookv1.Wave{wave}
	return op
}

func screenOfSize(w *bytes.Buffer, width, height int) *progress {
	return &progress{w: w, size: func() screen { return screen{width, height} }, live: true, begun: begun, now: func() time.Time { return begun.Add(1500 * time.Millisecond) }}
}

func TestBlock(t *testing.T) {
	p := screenOfSize(nil, 60, 24)
	p.op = many(4)
	want := `Rollback of edge to blue: 2 of 4 PoPs serve it, running
███████████████░░░░░░░░░░░░░░░ 1.5s, last switch 0.25s
● pop0 switched 0.25s  ◐ pop1 switching
✗ pop2 failed          ● pop3 switched 0.25s
1 of 3 PoPs serves blue, 1 switching, 1 failed: sin1
pop2: the Kubernetes API cannot be reached: no answer in
  time
`
	if got := strings.Join(p.block(p.size()), "\n") + "\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	p.op.State = runbookv1.State_STATE_WAITING
	if got := strings.Join(p.block(p.size()), "\n"); !strings.Contains(got, "\n  edgehold operation approve --reason TEXT\n") {
		t.Errorf("it does not say what to type:\n%s", got)
	}
	p.colour = true
	if got := strings.Join(p.block(p.size()), "\n"); !strings.Contains(got, "\x1b[32m●\x1b[0m pop0") {
		t.Errorf("no colours:\n%s", got)
	}
}

// TestBlockFits: whatever the screen, the block is lower than it and no line is wider, so that it can be redrawn; and once
// the operation is over, nothing is left out.
func TestBlockFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := screenOfSize(nil, rapid.IntRange(40, 250).Draw(t, "width"), rapid.IntRange(8, 80).Draw(t, "height"))
		n := rapid.IntRange(0, 300).Draw(t, "PoPs")
		p.op = many(n)
		p.op.State = runbookv1.State(rapid.IntRange(1, 7).Draw(t, "state"))
		lines := p.block(p.size())
		for _, l := range lines {
			if utf8.RuneCountInString(l) > p.size().width {
				t.Fatalf("%d columns: %q", p.size().width, l)
			}
		}
		if ended(p.op.GetState()) {
			for i := range n {
				if text := strings.Join(lines, "\n"); !strings.Contains(text, fmt.Sprintf(" pop%d ", i)) {
					t.Fatalf("pop%d is left out:\n%s", i, text)
				}
			}
		} else if len(lines) >= p.size().height {
			t.Fatalf("%d lines on %d rows:\n%s", len(lines), p.size().height, strings.Join(lines, "\n"))
		}
	})
}

// TestRedraw: a drawing goes over the one before, but for one that the terminal has broken or that something was printed
// below of.
func TestRedraw(t *testing.T) {
	var out bytes.Buffer
	p := screenOfSize(&out, 80, 24)
	p.show(many(3))
	height := strings.Count(out.String(), "\n")
	for _, c := range []struct {
		name   string
		before func()
		over   bool
	}{
		{"again", func() {}, true},
		{"after a note", func() { p.note(&out, "the service is away") }, false},
		{"on a screen that became narrower", func() { p.size = func() screen { return screen{60, 24} } }, false},
	} {
		out.Reset()
		c.before()
		p.show(many(3))
		if over := strings.Contains(out.String(), fmt.Sprintf("\x1b[%dA", height)); over != c.over {
			t.Errorf("%s: drawn over is %t, want %t: %q", c.name, over, c.over, out.String())
		}
	}
}

func TestTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := screenOfSize(&out, 80, 24)
		p.now = time.Now
		p.begun = time.Now()
		stop := p.tick()
		p.show(proto.CloneOf(many(3)))
		time.Sleep(2500 * time.Millisecond)
		stop()
		if !strings.Contains(out.String(), " 0.0s") || !strings.Contains(out.String(), " 1.0s") || !strings.Contains(out.String(), " 2.0s") {
			t.Errorf("the time stands still: %q", out.String())
		}
	})
}

// TestAgain: a watch is taken up again for a minute after it was last heard, and not when asking again cannot help.
func TestAgain(t *testing.T) {
	away := problem.Unavailablef("away")
	for _, c := range []struct {
		name    string
		answers func(n int) (heard bool, err error)
		want    error
		asked   int
		lost    int
	}{
		{"ends", func(int) (bool, error) { return true, nil }, nil, 1, 0},
		{"refused", func(int) (bool, error) { return false, problem.NotFoundf("id", "no such") }, problem.NotFoundf("id", "no such"), 1, 0},
		{"comes back", func(n int) (bool, error) {
			if n < 4 {
				return false, away
			}
			return true, nil
		}, nil, 4, 1},
		{"comes and goes for longer than a minute", func(n int) (bool, error) {
			if n < 600 {
				return n%2 == 0, away
			}
			return true, nil
		}, nil, 600, 300},
		{"stays away", func(int) (bool, error) { return false, away }, away, 242, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &app{now: time.Now}
				asked, lost := 0, 0
				err := a.again(t.Context(), func() { lost++ }, func() (bool, error) { asked++; return c.answers(asked) })
				if fmt.Sprint(err) != fmt.Sprint(c.want) || asked != c.asked || lost != c.lost {
					t.Errorf("%v after %d times, said %d times that it is away; want %v, %d, %d", err, asked, lost, c.want, c.asked, c.lost)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&app{now: time.Now}).again(ctx, func() { t.Error("it is not the service that is away") }, func() (bool, error) { return false, ctx.Err() }); err == nil {
		t.Error("interrupted and no error")
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 10, ""},
		{"one two three", 0, "one two three"},
		{"one two three", 7, "one two|  three"},
		{"one twothreefour five", 8, "one|  twothreefour|  five"},
		{"ä ö ü ß", 3, "ä ö|  ü|  ß"},
	} {
		if got := strings.Join(wrap(c.text, c.width, "  "), "|"); got != c.want {
			t.Errorf("wrap(%q, %d) is %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
