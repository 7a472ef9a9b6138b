package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
)

// scopeFlag is --pops: names separated by commas; without it the scope is every PoP of the registry.
type scopeFlag struct{ pops []string }

func (s *scopeFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&s.pops, "pops", nil, "only these PoPs, separated by commas (default: all of the registry)")
}

func (s *scopeFlag) scope(cmd *cobra.Command) (*fleetv1.Scope, error) {
	if !cmd.Flags().Changed("pops") {
		return &fleetv1.Scope{All: true}, nil
	}
	var pops []string
	for _, p := range s.pops {
		if p = strings.TrimSpace(p); p != "" {
			pops = append(pops, p)
		}
	}
	if len(pops) == 0 {
		return nil, problem.Invalidf("--pops", "it is empty, and an empty scope selects nothing; name PoPs, or leave the flag out for all of them")
	}
	return &fleetv1.Scope{Pops: pops}, nil
}

func fleetCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "fleet", Short: "The blue/green fleets"}
	cmd.AddCommand(fleetListCommand(a), fleetGetCommand(a), fleetWatchCommand(a), fleetHistoryCommand(a), fleetFreezeCommand(a), fleetUnfreezeCommand(a))
	return cmd
}

const fleetHead = "POP FLEET ACTIVE VERSION STANDBY PHASE READY STANDBY-READY CONNECTIONS CUTOVER MESSAGE"

func (a *app) fleetRow(f *fleetv1.Fleet) []string {
	if p := f.GetProblem(); p != nil {
		return []string{f.GetPop(), f.GetName(), "", "", "", "", "", "", "", "", p.GetMessage()}
	}
	active, standby := f.GetBlue(), f.GetGreen()
	if f.GetActive() == fleetv1.Colour_COLOUR_GREEN {
		active, standby = standby, active
	}
	message := ""
	for _, c := range f.GetConditions() {
		// Every condition of a fleet is good when true; the text of one that is not says what to do.
		if c.GetStatus() != "True" {
			message = c.GetMessage()
			break
		}
	}
	return []string{
		f.GetPop(), f.GetName(), colourName(f.GetActive()), active.GetVersion(), standby.GetVersion(), name(f.GetPhase().String(), "PHASE_"),
		fmt.Sprintf("%d/%d", active.GetReady(), active.GetDesired()), fmt.Sprintf("%d/%d", standby.GetReady(), standby.GetDesired()),
		count(active.OpenConnections), a.ago(f.GetLastCutover().GetSwitchedAt()), message,
	}
}

func fleetListCommand(a *app) *cobra.Command {
	var scope scopeFlag
	cmd := &cobra.Command{
		Use:     "list [FLEET]",
		Short:   "One line per PoP and fleet",
		Example: "  edgehold fleet list\n  edgehold fleet list edge --pops fra1,ams1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, _, err := a.fleets()
			if err != nil {
				return err
			}
			s, err := scope.scope(cmd)
			if err != nil {
				return err
			}
			list, err := service.ListFleets(cmd.Context(), &fleetv1.ListFleetsRequest{Fleet: first(args), Scope: s})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, list)
			}
			var rows [][]string
			for _, f := range list.GetFleets() {
				rows = append(rows, a.fleetRow(f))
			}
			table(a.out, fleetHead, rows)
			return nil
		},
	}
	scope.add(cmd)
	return cmd
}

func fleetGetCommand(a *app) *cobra.Command {
	var pop string
	cmd := &cobra.Command{
		Use:     "get FLEET --pop POP",
		Short:   "Everything about one fleet in one PoP",
		Example: "  edgehold fleet get edge --pop fra1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if pop == "" {
				return problem.Invalidf("--pop", "name the PoP; edgehold pop list shows them")
			}
			service, _, err := a.fleets()
			if err != nil {
				return err
			}
			list, err := service.ListFleets(cmd.Context(), &fleetv1.ListFleetsRequest{Fleet: args[0], Scope: &fleetv1.Scope{Pops: []string{pop}}})
			if err != nil {
				return err
			}
			for _, f := range list.GetFleets() {
				if p := f.GetProblem(); p != nil {
					return problem.New(problem.ParseKind(p.GetCode()), pop, "%s", p.GetMessage())
				}
				if a.output == "json" {
					return printJSON(a.out, f)
				}
				a.printFleet(f)
				return nil
			}
			return problem.NotFoundf("fleet", "PoP %s has no fleet %q; edgehold fleet list --pops %s shows what it has", pop, args[0], pop)
		},
	}
	cmd.Flags().StringVar(&pop, "pop", "", "the PoP")
	return cmd
}

func (a *app) printFleet(f *fleetv1.Fleet) {
	fmt.Fprintf(a.out, "Fleet %s in %s: %s, %s carries the traffic\n", f.GetName(), f.GetPop(), name(f.GetPhase().String(), "PHASE_"), orUnknown(colourName(f.GetActive())))
	var rows [][]string
	for _, c := range []struct {
		name  string
		state *fleetv1.ColourState
	}{{"blue", f.GetBlue()}, {"green", f.GetGreen()}} {
		rows = append(rows, []string{c.name, c.state.GetDeployment(), c.state.GetVersion(), fmt.Sprint(c.state.GetDesired()), fmt.Sprint(c.state.GetReady()), count(c.state.OpenConnections)})
	}
	table(a.out, "COLOUR DEPLOYMENT VERSION DESIRED READY CONNECTIONS", rows)
	if t := f.GetTraffic(); t != nil {
		fmt.Fprintf(a.out, "Traffic: %.1f requests/s, %.2f %% errors over %s\n", t.GetRequestsPerSecond(), 100*t.GetErrorRatio(), t.GetWindow().AsDuration().Round(time.Second))
	}
	if z := f.GetFreeze(); z != nil {
		fmt.Fprintf(a.out, "Frozen until %s by %s: %s\n", z.GetUntil().AsTime().Format(time.RFC3339), orUnknown(z.GetPrincipal()), z.GetReason())
	}
	if c := f.GetLastCutover(); c != nil {
		fmt.Fprintf(a.out, "Last cutover: %s\n", a.cutoverLine(c))
	}
	for _, c := range f.GetConditions() {
		fmt.Fprintf(a.out, "%s=%s (%s): %s\n", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage())
	}
}

func (a *app) cutoverLine(c *fleetv1.Cutover) string {
	text := fmt.Sprintf("%s to %s, %s", orUnknown(colourName(c.GetFrom())), colourName(c.GetTo()), name(c.GetOutcome().String(), "OUTCOME_"))
	if t := c.GetSwitchedAt(); t != nil {
		text += ", switched " + a.ago(t) + " ago"
	}
	text += fmt.Sprintf(", by %s (%s)", orUnknown(c.GetPrincipal()), c.GetReason())
	if c.ConnectionsDrained != nil {
		text += fmt.Sprintf(", connections drained %s, reset %s, left %s", count(c.ConnectionsDrained), count(c.ConnectionsReset), count(c.ConnectionsLeft))
	}
	return text
}

func fleetWatchCommand(a *app) *cobra.Command {
	var scope scopeFlag
	cmd := &cobra.Command{
		Use:   "watch [FLEET]",
		Short: "Print each fleet, then every change, until interrupted",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, service, err := a.fleets()
			if err != nil {
				return err
			}
			s, err := scope.scope(cmd)
			if err != nil {
				return err
			}
			stream, err := service.WatchFleets(cmd.Context(), &fleetv1.WatchFleetsRequest{Fleet: first(args), Scope: s})
			if err != nil {
				return err
			}
			defer stream.Close()
			for stream.Receive() {
				m := stream.Msg()
				if a.output == "json" {
					if err := printJSON(a.out, m); err != nil {
						return err
					}
					continue
				}
				f := m.GetFleet()
				if m.GetDeleted() {
					fmt.Fprintf(a.out, "%s %s/%s deleted\n", a.now().Format("15:04:05.000"), f.GetPop(), f.GetName())
					continue
				}
				fmt.Fprintf(a.out, "%s %s\n", a.now().Format("15:04:05.000"), strings.Join(dashes(a.fleetRow(f)), "  "))
			}
			if cmd.Context().Err() != nil {
				return nil
			}
			return stream.Err()
		},
	}
	scope.add(cmd)
	return cmd
}

func fleetHistoryCommand(a *app) *cobra.Command {
	var scope scopeFlag
	cmd := &cobra.Command{
		Use:   "history FLEET",
		Short: "The last cutovers of each PoP, newest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, _, err := a.fleets()
			if err != nil {
				return err
			}
			s, err := scope.scope(cmd)
			if err != nil {
				return err
			}
			list, err := service.ListCutovers(cmd.Context(), &fleetv1.ListCutoversRequest{Fleet: args[0], Scope: s})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, list)
			}
			var rows [][]string
			for _, p := range list.GetPops() {
				if p.GetProblem() != nil {
					rows = append(rows, []string{p.GetPop(), "", "", "", "", "", p.GetProblem().GetMessage()})
				}
				for _, c := range p.GetCutovers() {
					rows = append(rows, []string{p.GetPop(), colourName(c.GetFrom()) + ">" + colourName(c.GetTo()), c.GetVersion(), name(c.GetOutcome().String(), "OUTCOME_"),
						a.ago(c.GetSwitchedAt()), c.GetPrincipal(), c.GetReason()})
				}
			}
			table(a.out, "POP CUTOVER VERSION OUTCOME SWITCHED BY REASON", rows)
			return nil
		},
	}
	scope.add(cmd)
	return cmd
}

func fleetFreezeCommand(a *app) *cobra.Command {
	var scope scopeFlag
	var reason string
	var length time.Duration
	cmd := &cobra.Command{
		Use:     "freeze FLEET --for DURATION --reason TEXT",
		Short:   "Forbid cutovers for a time; it always ends by itself",
		Example: "  edgehold fleet freeze edge --for 2h --reason 'network maintenance in eu-west'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if length <= 0 {
				return problem.Invalidf("--for", "%s is not a length of time to come; use for example 2h", length)
			}
			return a.changeFreeze(cmd, &scope, reason, func(service freezer, s *fleetv1.Scope) ([]*fleetv1.Fleet, error) {
				r, err := service.Freeze(cmd.Context(), &fleetv1.FreezeRequest{Fleet: args[0], Scope: s, Reason: reason, Until: timestamppb.New(a.now().Add(length)), IdempotencyKey: uuid.NewString()})
				return r.GetFleets(), err
			})
		},
	}
	scope.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept in every audit record")
	cmd.Flags().DurationVar(&length, "for", 0, "how long, for example 2h")
	return cmd
}

func fleetUnfreezeCommand(a *app) *cobra.Command {
	var scope scopeFlag
	var reason string
	cmd := &cobra.Command{
		Use:   "unfreeze FLEET --reason TEXT",
		Short: "End a freeze early",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeFreeze(cmd, &scope, reason, func(service freezer, s *fleetv1.Scope) ([]*fleetv1.Fleet, error) {
				r, err := service.Unfreeze(cmd.Context(), &fleetv1.UnfreezeRequest{Fleet: args[0], Scope: s, Reason: reason, IdempotencyKey: uuid.NewString()})
				return r.GetFleets(), err
			})
		},
	}
	scope.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept in every audit record")
	return cmd
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func dashes(row []string) []string {
	for i := range row {
		if row[i] == "" {
			row[i] = "-"
		}
	}
	return row
}

// freezer is the part of the FleetService that freezes.
type freezer = fleetv1connect.FleetServiceClient

// changeFreeze runs a change on the scope and prints the fleets after it. A PoP that could not be asked makes it partial.
func (a *app) changeFreeze(cmd *cobra.Command, scope *scopeFlag, reason string, change func(freezer, *fleetv1.Scope) ([]*fleetv1.Fleet, error)) error {
	if reason == "" {
		return problem.Invalidf("--reason", "say why; it is kept in the audit record")
	}
	service, _, err := a.fleets()
	if err != nil {
		return err
	}
	s, err := scope.scope(cmd)
	if err != nil {
		return err
	}
	fleets, err := change(service, s)
	if err != nil {
		return err
	}
	if a.output == "json" {
		if err := printJSON(a.out, &fleetv1.ListFleetsResponse{Fleets: fleets}); err != nil {
			return err
		}
	}
	var rows [][]string
	failed := 0
	for _, f := range fleets {
		state := "not frozen"
		if z := f.GetFreeze(); z != nil {
			state = "frozen until " + z.GetUntil().AsTime().Format(time.RFC3339)
		}
		if p := f.GetProblem(); p != nil {
			failed++
			state = p.GetMessage()
		}
		rows = append(rows, []string{f.GetPop(), f.GetName(), state})
	}
	if a.output == "table" {
		table(a.out, "POP FLEET STATE", rows)
	}
	if failed > 0 {
		return &exit{ExitPartial, fmt.Sprintf("%d of %d PoPs could not be changed", failed, len(fleets))}
	}
	return nil
}
