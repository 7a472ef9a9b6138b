package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/proto/edgehold/llmmock/v1/llmmockv1connect"
	"edgehold.internal/services/llmmock"
)

func mockDrillCommand(a *app) *cobra.Command {
	cmd := noun("drill", "Failover drills: begin a phase, and score how clients come through it")
	cmd.AddCommand(mockDrillListCommand(a), mockDrillStartCommand(a), mockDrillEndCommand(a), mockDrillReportCommand(a))
	return cmd
}

// done prints the answer of a change: the message as JSON, or a sentence.
func (a *app) done(m proto.Message, format string, args ...any) error {
	if a.output == "json" {
		return printJSON(a.out, m)
	}
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}

// costs are the flags of what it costs to run a mock.
type costs struct{ hour, runs float64 }

func (c *costs) flags(cmd *cobra.Command) {
	cmd.Flags().Float64Var(&c.hour, "hour-usd", 0, "what an hour of the mock's machine costs, in US `DOLLARS`")
	cmd.Flags().Float64Var(&c.runs, "runs-per-year", 1, "`N` runs like this one in a year")
}

func (c *costs) cost() *llmmockv1.Cost {
	return &llmmockv1.Cost{HourUsd: c.hour, RunsPerYear: c.runs}
}

func (a *app) printDrills(drills ...*llmmockv1.Drill) {
	rows := make([][]string, len(drills))
	for i, d := range drills {
		scope := d.GetScope().GetScenario()
		if scope == "" {
			scope = "(all)"
		}
		rows[i] = []string{d.GetName(), scope, name(d.GetState().String(), "DRILL_STATE_"), a.ago(d.GetBeganAt()), name(d.GetPhase().GetKind().String(), "PHASE_KIND_") + " " + termsOf(d.GetPhase())}
	}
	table(a.out, "DRILL SCENARIO STATE AGE PHASE", rows)
}

func mockDrillListCommand(a *app) *cobra.Command {
	var from running
	cmd := &cobra.Command{
		Use: "list", Short: "The drills that are remembered, newest first", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, _, err := from.client(a)
			if err != nil {
				return err
			}
			list, err := service.ListDrills(cmd.Context(), &llmmockv1.ListDrillsRequest{})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, list)
			}
			if len(list.GetDrills()) == 0 {
				fmt.Fprintln(a.diag, "There were no drills; edgehold mock drill start begins one.")
				return nil
			}
			a.printDrills(list.GetDrills()...)
			return nil
		},
	}
	from.flag(cmd)
	return cmd
}

func mockDrillStartCommand(a *app) *cobra.Command {
	var by act
	var of scoped
	var t terms
	var c costs
	var phase string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "start NAME --scenario SCENARIO|--all [--kind KIND …]",
		Short: "Begin a drill, and its phase: one of a timeline by its name, or one of your own",
		Example: `  edgehold mock drill start anthropic-down --all --kind outage --vendor anthropic --for 2m
  edgehold mock drill report anthropic-down`,
		Args: one("NAME", "it is what the drill is ended and reported by"),
		RunE: func(cmd *cobra.Command, args []string) error {
			scope, err := of.scope()
			if err != nil {
				return err
			}
			if phase == "" {
				phase = args[0]
			}
			p, err := t.phase(phase)
			if err != nil {
				return err
			}
			service, err := by.client(cmd, a)
			if err != nil {
				return err
			}
			r := &llmmockv1.StartDrillRequest{Name: args[0], Scope: scope, Phase: p, Cost: c.cost(), Reason: by.reason, IdempotencyKey: by.key}
			if patience != 0 {
				r.Patience = durationpb.New(patience)
			}
			got, err := service.StartDrill(cmd.Context(), r)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, got.GetDrill())
			}
			a.printDrills(got.GetDrill())
			return nil
		},
	}
	of.flags(cmd)
	cmd.Flags().StringVar(&phase, "phase-name", "", "`NAME` of the phase (default: the drill's)")
	cmd.Flags().DurationVar(&patience, "patience", 0, "a client that waits longer than this `TIME` was not served (default 10s)")
	t.flags(a, cmd)
	c.flags(cmd)
	by.flags(cmd)
	return cmd
}

func mockDrillEndCommand(a *app) *cobra.Command {
	var by act
	var closed bool
	cmd := &cobra.Command{
		Use:   "end NAME",
		Short: "End a drill's phase now; clients are followed coming back for an hour more",
		Args:  one("NAME", "edgehold mock drill list shows the drills"),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := by.client(cmd, a)
			if err != nil {
				return err
			}
			got, err := service.EndDrill(cmd.Context(), &llmmockv1.EndDrillRequest{Name: args[0], Close: closed, Reason: by.reason, IdempotencyKey: by.key})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, got.GetDrill())
			}
			a.printDrills(got.GetDrill())
			return nil
		},
	}
	cmd.Flags().BoolVar(&closed, "close", false, "do not follow it any longer; its scorecard stays as it is")
	by.flags(cmd)
	return cmd
}

func mockDrillReportCommand(a *app) *cobra.Command {
	var from running
	cmd := &cobra.Command{
		Use:   "report [NAME]",
		Short: "The scorecard of a drill as it stands",
		Long:  "The scorecard of a drill as it stands. Without NAME it is the newest.",
		Args:  atMostOne("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, _, err := from.client(a)
			if err != nil {
				return err
			}
			which, err := newestDrill(cmd, service, args)
			if err != nil {
				return err
			}
			got, err := service.GetScorecard(cmd.Context(), &llmmockv1.GetScorecardRequest{Name: which})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, got)
			}
			a.printDrills(got.GetDrill())
			fmt.Fprintln(a.out)
			printScorecard(a.out, got.GetScorecard())
			return nil
		},
	}
	from.flag(cmd)
	return cmd
}

func newestDrill(cmd *cobra.Command, service llmmockv1connect.MockServiceClient, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	list, err := service.ListDrills(cmd.Context(), &llmmockv1.ListDrillsRequest{})
	if err != nil {
		return "", err
	}
	if len(list.GetDrills()) == 0 {
		return "", problem.NotFoundf("", "there were no drills; edgehold mock drill start begins one")
	}
	return list.GetDrills()[0].GetName(), nil
}

// orNever is a time that may not have come.
func orNever(d *durationpb.Duration, otherwise string) string {
	if d == nil {
		return otherwise
	}
	return span(d.AsDuration())
}

func printScorecard(w io.Writer, s *llmmockv1.Scorecard) {
	amplification := "unknown"
	if s.Amplification != nil {
		amplification = fmt.Sprintf("%.2f", s.GetAmplification())
	}
	table(w, "WHAT VALUE MEANING", [][]string{
		{"felt", orNever(s.GetFelt(), "never"), "from the phase's beginning to the first failure"},
		{"detected", orNever(s.GetDetect(), "never"), "to the first request that was sent elsewhere because of it"},
		{"recovered", orNever(s.GetRecover(), "not yet"), "to when everybody got what they asked for in time again"},
		{"returned", orNever(s.GetReturn(), "not yet"), "from the phase's end to the first request served where it had been"},
		{"requests", fmt.Sprint(s.GetRequests()), fmt.Sprintf("for %d asks; an ask is a conversation that waits for its next turn", s.GetAsks())},
		{"amplified", amplification, "requests ÷ asks"},
		{"retried", fmt.Sprint(s.GetRetried()), "requests for an ask that had failed before"},
		{"diverted", fmt.Sprint(s.GetDiverted()), "requests sent where the phase does not reach, because of it"},
		{"failed", fmt.Sprint(s.GetFailed()), "requests, cut off and given up ones too"},
		{"lost", fmt.Sprint(s.GetLost()), "asks that were never served"},
		{"pending", fmt.Sprint(s.GetPending()), "asks that something is under way for"},
		{"slow", fmt.Sprint(s.GetSlow()), "asks that were served later than the drill's patience"},
		{"duplicated", fmt.Sprint(s.GetDuplicated()), "asks that were served, and paid for, more than once"},
	})
	fmt.Fprintln(w)
	printMoney(w, s.GetUses(), s.GetSavings())
}

// printMoney prints what tokens would have cost.
func printMoney(w io.Writer, uses []*llmmockv1.Use, s *llmmockv1.Savings) {
	var rows [][]string
	for _, u := range uses {
		cost := "no price"
		if u.CostNanousd != nil {
			cost = llmmock.Money(u.GetCostNanousd()).String()
		}
		rows = append(rows, []string{u.GetVendor(), u.GetModel(), fmt.Sprint(u.GetRequests()), fmt.Sprint(u.GetUsage().GetInput()), fmt.Sprint(u.GetUsage().GetOutput()), cost})
	}
	if len(rows) > 0 {
		table(w, "VENDOR MODEL REQUESTS INPUT OUTPUT COST", rows)
	}
	indented(w, "", fmt.Sprintf("Live it would have cost %s, mocked it cost %s: %s saved, %s in a year.", llmmock.Money(s.GetLiveNanousd()),
		llmmock.Money(s.GetMockedNanousd()), llmmock.Money(s.GetSavedNanousd()), llmmock.Money(s.GetYearNanousd())))
	if missing := s.GetUnpriced(); len(missing) > 0 {
		indented(w, "", "Without a price, and counted as nothing: "+strings.Join(missing, ", ")+".")
	}
}

func mockSavingsCommand(a *app) *cobra.Command {
	var from running
	var c costs
	cmd := &cobra.Command{
		Use:   "savings",
		Short: "What the tokens since the mock began would have cost, and what was saved",
		Long:  "What the tokens since the mock began would have cost, and what was saved. With --output json: the formula and each of its inputs, prices\nwith where and when they were read.",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, _, err := from.client(a)
			if err != nil {
				return err
			}
			got, err := service.GetSavings(cmd.Context(), &llmmockv1.GetSavingsRequest{Cost: c.cost()})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, got)
			}
			printMoney(a.out, got.GetUses(), got.GetSavings())
			return nil
		},
	}
	c.flags(cmd)
	from.flag(cmd)
	return cmd
}
