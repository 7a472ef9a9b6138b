package cli

import (
	"context"
	"fmt"
	"slices"
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

func (s *scopeFlag) add(a *app, cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&s.pops, "pops", nil, "only these `POPS`, separated by commas (default: all of the registry)")
	a.completeFlag(cmd, "pops", a.completePopList)
}

func (s *scopeFlag) scope(cmd *cobra.Command) (*fleetv1.Scope, error) {
	if !cmd.Flags().Changed("pops") {
		return &fleetv1.Scope{All: true}, nil
	}
	var pops []string
	for _, p := range s.pops {
		p = strings.TrimSpace(p)
		switch {
		case slices.Contains(pops, p):
			return nil, problem.Invalidf("--pops", "%q is named twice", p)
		case p != "":
			pops = append(pops, p)
		}
	}
	if len(pops) == 0 {
		return nil, problem.Invalidf("--pops", "it is empty, and an empty scope selects nothing; name PoPs, or leave the flag out for all of them")
	}
	return &fleetv1.Scope{Pops: pops}, nil
}

func fleetCommand(a *app) *cobra.Command {
	cmd := noun("fleet", "The blue/green fleets: look at them, freeze them")
	cmd.AddCommand(fleetListCommand(a), fleetGetCommand(a), fleetWatchCommand(a), fleetHistoryCommand(a), fleetFreezeCommand(a), fleetUnfreezeCommand(a))
	return cmd
}

const fleetHead = "POP FLEET ACTIVE VERSION READY STANDBY READY PHASE CONNS AGE MESSAGE"

const fleetColumns = `READY is ready pods of those
wanted, first of the active colour and then of the standby; CONNS the active
colour's open connections; AGE the time since the last switch.`

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
		f.GetPop(), f.GetName(), colourName(f.GetActive()), active.GetVersion(), ready(active), standby.GetVersion(), ready(standby),
		name(f.GetPhase().String(), "PHASE_"), count(active.OpenConnections), a.ago(f.GetLastCutover().GetSwitchedAt()), message,
	}
}

func ready(c *fleetv1.ColourState) string { return fmt.Sprintf("%d/%d", c.GetReady(), c.GetDesired()) }

func fleetListCommand(a *app) *cobra.Command {
	var scope scopeFlag
	cmd := &cobra.Command{
		Use:               "list [FLEET]",
		Short:             "One line per PoP and fleet",
		Long:              "One line per PoP and fleet. " + fleetColumns,
		Example:           "  edgehold fleet list\n  edgehold fleet list edge --pops fra1,ams1",
		Args:              atMostOne("FLEET"),
		ValidArgsFunction: a.completeFleet,
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
	scope.add(a, cmd)
	return cmd
}

func fleetGetCommand(a *app) *cobra.Command {
	var pop string
	cmd := &cobra.Command{
		Use:               "get FLEET --pop POP",
		Short:             "Everything about one fleet in one PoP",
		Example:           "  edgehold fleet get edge --pop fra1",
		Args:              one("FLEET", "edgehold fleet list shows them"),
		ValidArgsFunction: a.completeFleet,
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
			if len(list.GetFleets()) == 0 {
				return problem.NotFoundf("fleet", "PoP %s has no fleet %q; edgehold fleet list --pops %s shows what it has", pop, args[0], pop)
			}
			f := list.GetFleets()[0]
			if p := f.GetProblem(); p != nil {
				return problem.New(problem.ParseKind(p.GetCode()), pop, "%s", p.GetMessage())
			}
			if a.output == "json" {
				return printJSON(a.out, f)
			}
			a.printFleet(f)
			return nil
		},
	}
	cmd.Flags().StringVar(&pop, "pop", "", "the `POP`")
	a.completeFlag(cmd, "pop", a.completePops)
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
	if c.GetRollback() {
		text = "rollback, " + text
	}
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
		Long: "Print each fleet, then every change, until interrupted.\n" + fleetColumns + `

As JSON it is a document per line.`,
		Args:              atMostOne("FLEET"),
		ValidArgsFunction: a.completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, service, err := a.fleets()
			if err != nil {
				return err
			}
			s, err := scope.scope(cmd)
			if err != nil {
				return err
			}
			return a.watchFleets(cmd.Context(), service, &fleetv1.WatchFleetsRequest{Fleet: first(args), Scope: s})
		},
	}
	scope.add(a, cmd)
	return cmd
}

// watchFleets prints what the stream sends, until ctx ends. When a service that has answered goes away, it is watched again
// and sends each fleet anew.
func (a *app) watchFleets(ctx context.Context, service fleetv1connect.FleetServiceClient, r *fleetv1.WatchFleetsRequest) error {
	// In a log the age is that of its line, and sentences need no head.
	const age = 9
	head := slices.Delete(strings.Fields(fleetHead), age, age+1)
	head[len(head)-1] = ""
	lines := columns{w: a.out, head: append([]string{"TIME"}, head...)}
	known := false
	err := a.again(ctx, func() { fmt.Fprintln(a.diag, "The fleet service does not answer; watching again …") }, func() (heard bool, err error) {
		stream, err := service.WatchFleets(ctx, r)
		if err != nil {
			return false, err
		}
		defer func() { _ = stream.Close() }()
		for stream.Receive() {
			known, heard = true, true
			m := stream.Msg()
			if a.output == "json" {
				if err := printJSONLine(a.out, m); err != nil {
					return true, err
				}
				continue
			}
			row := a.fleetRow(m.GetFleet())
			if m.GetDeleted() {
				row = []string{m.GetFleet().GetPop(), m.GetFleet().GetName(), "", "", "", "", "", "", "", "", "deleted"}
			}
			lines.print(append([]string{a.now().Format("15:04:05.0")}, slices.Delete(row, age, age+1)...))
		}
		if err = stream.Err(); err == nil {
			err = problem.Unavailablef("the fleet service ended the watch")
		}
		if !known {
			err = &exit{code(err), err.Error()}
		}
		return heard, err
	})
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a watch ends by being interrupted
	}
	return err
}

func fleetHistoryCommand(a *app) *cobra.Command {
	var scope scopeFlag
	cmd := &cobra.Command{
		Use:               "history FLEET",
		Short:             "The last cutovers of each PoP, newest first",
		Args:              one("FLEET", "edgehold fleet list shows them"),
		ValidArgsFunction: a.completeFleet,
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
					rows = append(rows, []string{p.GetPop(), "", "", "", "", p.GetProblem().GetMessage()})
				}
				for _, c := range p.GetCutovers() {
					rows = append(rows, []string{p.GetPop(), colourName(c.GetFrom()) + ">" + colourName(c.GetTo()), c.GetVersion(), name(c.GetOutcome().String(), "OUTCOME_"),
						a.ago(c.GetSwitchedAt()), fmt.Sprintf("%s: %s", orUnknown(c.GetPrincipal()), c.GetReason())})
				}
			}
			table(a.out, "POP CUTOVER VERSION OUTCOME AGE REASON", rows)
			return nil
		},
	}
	scope.add(a, cmd)
	return cmd
}

func fleetFreezeCommand(a *app) *cobra.Command {
	var scope scopeFlag
	var reason string
	var length time.Duration
	cmd := &cobra.Command{
		Use:               "freeze FLEET --for DURATION --reason TEXT",
		Short:             "Forbid cutovers for a time; it always ends by itself",
		Example:           "  edgehold fleet freeze edge --for 2h --reason 'network maintenance in eu-west'",
		Args:              one("FLEET", "edgehold fleet list shows them"),
		ValidArgsFunction: a.completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			if length <= 0 {
				return problem.Invalidf("--for", "%s is not a length of time to come; use for example 2h", length)
			}
			return a.changeFreeze(cmd, &scope, reason, func(service fleetv1connect.FleetServiceClient, s *fleetv1.Scope) ([]*fleetv1.Fleet, error) {
				r, err := service.Freeze(cmd.Context(), &fleetv1.FreezeRequest{Fleet: args[0], Scope: s, Reason: reason, Until: timestamppb.New(a.now().Add(length)), IdempotencyKey: uuid.NewString()})
				return r.GetFleets(), err
			})
		},
	}
	scope.add(a, cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, a `TEXT` that is kept in every audit record")
	cmd.Flags().DurationVar(&length, "for", 0, "how long, a `TIME` such as 2h, at most 90 days (2160h)")
	return cmd
}

func fleetUnfreezeCommand(a *app) *cobra.Command {
	var scope scopeFlag
	var reason string
	cmd := &cobra.Command{
		Use:               "unfreeze FLEET --reason TEXT",
		Short:             "End a freeze early",
		Args:              one("FLEET", "edgehold fleet list shows them"),
		ValidArgsFunction: a.completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeFreeze(cmd, &scope, reason, func(service fleetv1connect.FleetServiceClient, s *fleetv1.Scope) ([]*fleetv1.Fleet, error) {
				r, err := service.Unfreeze(cmd.Context(), &fleetv1.UnfreezeRequest{Fleet: args[0], Scope: s, Reason: reason, IdempotencyKey: uuid.NewString()})
				return r.GetFleets(), err
			})
		},
	}
	scope.add(a, cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, a `TEXT` that is kept in every audit record")
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

// changeFreeze runs a change on the scope and prints the fleets after it. A PoP that could not be asked makes it partial.
func (a *app) changeFreeze(cmd *cobra.Command, scope *scopeFlag, reason string, change func(fleetv1connect.FleetServiceClient, *fleetv1.Scope) ([]*fleetv1.Fleet, error)) error {
	if strings.TrimSpace(reason) == "" {
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
