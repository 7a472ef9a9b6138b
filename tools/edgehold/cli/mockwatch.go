package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
)

func mockWatchCommand(a *app) *cobra.Command {
	var from running
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow a running mock: traffic, phases, drills, findings, once a second",
		Long: `Follow a running mock: traffic, phases, drills, findings, once a second until it is interrupted. On a terminal it is redrawn; piped, a
line a second; with --output json, a message a line.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, service, err := from.client(a)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			show := a.newMockView(a.out)
			err = a.again(ctx, func() { fmt.Fprintln(a.diag, "The mock does not answer. Watching again …"); show.drawn.lines = 0 }, func() (heard bool, err error) {
				stream, err := service.Watch(ctx, &llmmockv1.WatchRequest{})
				if err != nil {
					return false, err
				}
				defer func() { _ = stream.Close() }()
				for stream.Receive() {
					heard = true
					if a.output == "json" {
						err = printJSONLine(a.out, stream.Msg())
					} else {
						err = show.show(stream.Msg())
					}
					if err != nil {
						return true, err
					}
				}
				if err := stream.Err(); err != nil {
					return heard, err
				}
				return heard, problem.Unavailablef("the mock ended the watch")
			})
			if err != nil && ctx.Err() == nil { // an interrupt is how a watch ends
				return err
			}
			return nil
		},
	}
	from.flag(cmd)
	return cmd
}

// mockView shows snapshots of a mock: a block that is redrawn on a terminal, a line for each elsewhere.
type mockView struct {
	*app
	w      io.Writer
	size   func() screen
	live   bool
	drawn  redrawn
	latest *llmmockv1.LatestFinding // that was shown last
}

func (a *app) newMockView(w io.Writer) *mockView {
	return &mockView{app: a, w: w, size: func() screen { return screenOf(w) }, live: screenOf(w).redraws()}
}

func (v *mockView) show(s *llmmockv1.WatchResponse) error {
	if v.live {
		size := v.size()
		v.drawn.draw(v.w, size, v.block(s, size))
		return nil
	}
	_, err := fmt.Fprintln(v.w, v.line(s))
	return err
}

// line is a snapshot in one line. Findings are told once.
func (v *mockView) line(s *llmmockv1.WatchResponse) string {
	words := []string{s.GetAt().AsTime().Local().Format("15:04:05")}
	words = append(words, traffic(s)...)
	for _, p := range s.GetPhases() {
		if p.GetActive() {
			words = append(words, "phase "+p.GetPhase().GetName())
		}
	}
	fresh := s.GetFindings()
	if v.latest != nil {
		after := slices.IndexFunc(fresh, func(f *llmmockv1.LatestFinding) bool {
			return f.GetEvidence().GetExchange() == v.latest.GetEvidence().GetExchange() && f.GetFinding() == v.latest.GetFinding() && f.GetClient() == v.latest.GetClient()
		})
		if after >= 0 {
			fresh = fresh[:after]
		}
	}
	if len(s.GetFindings()) > 0 {
		v.latest = s.GetFindings()[0]
	}
	var news []string
	times := map[string]int{}
	for _, f := range slices.Backward(fresh) {
		what := f.GetFinding() + " by " + f.GetClient()
		if times[what]++; times[what] == 1 {
			news = append(news, what)
		}
	}
	for _, what := range news {
		words = append(words, fmt.Sprintf("%s ×%d", what, times[what]))
	}
	return strings.Join(words, "  ")
}

// traffic is how much there is now. Rates are unknown in the first snapshot.
func traffic(s *llmmockv1.WatchResponse) []string {
	rate := func(r *float64, unit string) string {
		if r == nil {
			return "– " + unit
		}
		return fmt.Sprintf("%.1f %s", *r, unit)
	}
	late := "nothing timed"
	if l := s.GetLateness(); l != nil {
		late = fmt.Sprintf("late p50 %s p99 %s", span(l.GetP50().AsDuration()), span(l.GetP99().AsDuration()))
	}
	faults := int64(0)
	for _, f := range s.GetTraffic().GetFaults() {
		faults += f.GetRequests()
	}
	return []string{rate(s.RequestsPerSecond, "requests/s"), rate(s.TokensPerSecond, "tokens/s"), fmt.Sprintf("%d open", s.GetTraffic().GetOpen()),
		fmt.Sprintf("%d in all", s.GetTraffic().GetRequests()), plural(int(faults), "fault"), late}
}

// block is what the screen shows, lower than the screen: what has scrolled away cannot be redrawn.
func (v *mockView) block(s *llmmockv1.WatchResponse, size screen) []string {
	lines := []string{
		fmt.Sprintf("%s  up %s  %s  Ctrl-C ends the watching", s.GetAt().AsTime().Local().Format("15:04:05"), span(s.GetAt().AsTime().Sub(s.GetStartedAt().AsTime())), plural(int(s.GetClients()), "client")),
		strings.Join(traffic(s), "  "),
	}
	var scenarios, phases, drills, findings [][]string
	busy := slices.Clone(s.GetScenarios())
	slices.SortStableFunc(busy, func(a, b *llmmockv1.Scenario) int {
		return cmp.Compare(b.GetTraffic().GetRequests(), a.GetTraffic().GetRequests())
	})
	for _, c := range busy {
		t := c.GetTraffic()
		var ok, refused, failed, none, faults int64
		for _, st := range t.GetStatuses() {
			switch {
			case st.GetStatus() == 0:
				none += st.GetRequests()
			case st.GetStatus() >= 500:
				failed += st.GetRequests()
			case st.GetStatus() >= 400:
				refused += st.GetRequests()
			default:
				ok += st.GetRequests()
			}
		}
		for _, f := range t.GetFaults() {
			faults += f.GetRequests()
		}
		scenarios = append(scenarios, []string{c.GetName(), fmt.Sprint(t.GetOpen()), fmt.Sprint(ok), fmt.Sprint(refused), fmt.Sprint(failed), fmt.Sprint(none), fmt.Sprint(faults),
			fmt.Sprint(t.GetInputTokens()), fmt.Sprint(t.GetOutputTokens())})
	}
	for _, p := range s.GetPhases() {
		phases = append(phases, v.phaseRow(p))
	}
	for _, d := range s.GetDrills() {
		drills = append(drills, []string{d.GetName(), name(d.GetState().String(), "DRILL_STATE_"), v.ago(d.GetBeganAt())})
	}
	for _, f := range s.GetFindings() {
		findings = append(findings, []string{f.GetEvidence().GetAt().AsTime().Local().Format("15:04:05"), f.GetClient(), f.GetFinding(), f.GetEvidence().GetText()})
	}
	parts := []struct {
		head string
		rows [][]string
	}{{phaseHead, phases}, {"DRILL STATE AGE", drills}, {"SEEN CLIENT FINDING HOW", findings}, {"SCENARIO OPEN OK 4XX 5XX CUT FAULTS INPUT OUTPUT", scenarios}}
	room := size.height - 1 - len(lines)
	left := 0
	for _, p := range parts {
		if len(p.rows) > 0 {
			left++
		}
	}
	for _, p := range parts {
		if len(p.rows) == 0 || room < 3 {
			continue
		}
		// Each has its share of the rows, and the last what is left; a line is for what stands between.
		fit := max(1, room/left-2)
		left--
		rows := p.rows[:min(fit, len(p.rows))]
		lines = append(lines, "")
		lines = append(lines, aligned(p.head, rows)...)
		room -= 2 + len(rows)
		if more := len(p.rows) - len(rows); more > 0 && room > 0 {
			lines = append(lines, fmt.Sprintf("… and %d more", more))
			room--
		}
	}
	for i, l := range lines {
		lines[i] = clip(l, size.width)
	}
	return lines
}

// aligned is rows under a head.
func aligned(head string, rows [][]string) []string {
	var b strings.Builder
	table(&b, head, rows)
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}
