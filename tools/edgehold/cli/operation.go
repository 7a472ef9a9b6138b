package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"edgehold.internal/libs/problem"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/proto/edgehold/runbook/v1/runbookv1connect"
)

func operationCommand(a *app) *cobra.Command {
	cmd := noun("operation", "Rollbacks and cutovers, under way and ended: list, watch, decide")
	cmd.AddCommand(operationListCommand(a), operationGetCommand(a), operationWatchCommand(a),
		operationActCommand(a, "approve", "Let an operation go on that waits for a person"),
		operationActCommand(a, "pause", "Start no further PoPs; those under way finish"),
		operationActCommand(a, "resume", "Go on with a paused operation"),
		operationActCommand(a, "abort", "Start no further PoPs and end; nothing is switched back"))
	return cmd
}

func operationListCommand(a *app) *cobra.Command {
	var fleet string
	var size int32
	cmd := &cobra.Command{
		Use:   "list",
		Short: "The newest operations",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, _, err := a.runbooks()
			if err != nil {
				return err
			}
			list, err := service.ListOperations(cmd.Context(), &runbookv1.ListOperationsRequest{Fleet: fleet, PageSize: size})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, list)
			}
			if len(list.GetOperations()) == 0 {
				fmt.Fprintln(a.diag, "There are no operations.")
				return nil
			}
			var rows [][]string
			for _, o := range list.GetOperations() {
				rows = append(rows, []string{o.GetId(), name(o.GetGlobalCutover().GetKind().String(), "KIND_"), colourName(o.GetTo()), name(o.GetState().String(), "STATE_"),
					a.ago(o.GetStartedAt()), fmt.Sprintf("%s: %s", orUnknown(o.GetPrincipal()), o.GetReason())})
			}
			table(a.out, "ID KIND TO STATE AGE REASON", rows)
			return nil
		},
	}
	cmd.Flags().StringVar(&fleet, "fleet", "", "only those of this `FLEET`")
	cmd.Flags().Int32Var(&size, "limit", 20, "how many, `N` from 1 to 200")
	a.completeFlag(cmd, "fleet", a.completeFleets)
	return cmd
}

func operationGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "get [ID]",
		Short:             "One operation with the state of each PoP",
		Long:              "One operation with the state of each PoP. " + whichOperation,
		Args:              atMostOne("ID"),
		ValidArgsFunction: a.completeOperations(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, _, err := a.runbooks()
			if err != nil {
				return err
			}
			id, err := a.operation(cmd.Context(), service, args, false)
			if err != nil {
				return err
			}
			got, err := service.GetOperation(cmd.Context(), &runbookv1.GetOperationRequest{Id: id})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, got.GetOperation())
			}
			a.printOperation(got.GetOperation())
			return nil
		},
	}
}

const whichOperation = "Without ID it is the one\nunder way, else the newest."

// operation is the id that was given, else that of the only one under way. When there is none, the newest is good enough
// to look at, and nothing is to decide on.
func (a *app) operation(ctx context.Context, service runbookv1connect.RunbookServiceClient, args []string, decide bool) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	list, err := service.ListOperations(ctx, &runbookv1.ListOperationsRequest{})
	if err != nil {
		return "", err
	}
	var open []string
	for _, o := range list.GetOperations() {
		if !ended(o.GetState()) {
			open = append(open, o.GetId())
		}
	}
	switch {
	case len(open) == 1:
		return open[0], nil
	case len(open) > 1:
		return "", problem.Invalidf("ID", "%d operations are under way; name one:\n  %s", len(open), strings.Join(open, "\n  "))
	case decide:
		return "", problem.NotFoundf("", "no operation is under way; edgehold operation list shows those that were")
	case len(list.GetOperations()) == 0:
		return "", problem.NotFoundf("", "there are no operations yet; edgehold rollback and edgehold cutover start one")
	}
	return list.GetOperations()[0].GetId(), nil
}

func (a *app) printOperation(op *runbookv1.Operation) {
	fmt.Fprintln(a.out, headline(op))
	if op.GetMessage() != "" {
		fmt.Fprintln(a.out, op.GetMessage())
	}
	fmt.Fprintf(a.out, "Operation %s, started %s ago by %s: %s\n", op.GetId(), a.ago(op.GetStartedAt()), orUnknown(op.GetPrincipal()), op.GetReason())
	if op.GetSupersedes() != "" {
		fmt.Fprintf(a.out, "It took the place of %s\n", op.GetSupersedes())
	}
	var rows [][]string
	for i, w := range op.GetWaves() {
		for _, p := range w.GetPops() {
			switched := ""
			if t := p.GetSwitchedAt(); t != nil {
				switched = fmt.Sprintf("%+.3fs", t.AsTime().Sub(op.GetStartedAt().AsTime()).Seconds())
			}
			drained := ""
			if p.ConnectionsDrained != nil {
				drained = fmt.Sprintf("%d drained", p.GetConnectionsDrained())
			}
			if p.ConnectionsReset != nil {
				drained += fmt.Sprintf(", %d reset", p.GetConnectionsReset())
			}
			rows = append(rows, []string{fmt.Sprint(i + 1), p.GetPop(), stepName(p.GetStep()), switched, drained, p.GetMessage()})
		}
	}
	table(a.out, "WAVE POP STEP SWITCHED CONNECTIONS MESSAGE", rows)
	if v := op.GetVerification(); v != nil {
		ratio := "not measured"
		if v.ErrorRatio != nil {
			ratio = fmt.Sprintf("%.2f %% errors in %d answers (allowed %.2f %%)", 100*v.GetErrorRatio(), v.GetRequests(), 100*v.GetMaxErrorRatio())
		}
		fmt.Fprintf(a.out, "Verification: %s\n", ratio)
	}
	for _, d := range op.GetDecisions() {
		fmt.Fprintf(a.out, "%s by %s %s ago: %s\n", d.GetVerb(), d.GetPrincipal(), a.ago(d.GetAt()), d.GetReason())
	}
}

func operationWatchCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "watch [ID]",
		Short: "Follow an operation to its end; the exit code is its outcome",
		Long: "Follow an operation to its end; the exit code is its outcome. " + whichOperation + `
Ctrl-C ends the watching and not the operation.`,
		Args:              atMostOne("ID"),
		ValidArgsFunction: a.completeOperations(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			unary, stream, err := a.runbooks()
			if err != nil {
				return err
			}
			id, err := a.operation(cmd.Context(), unary, args, false)
			if err != nil {
				return err
			}
			got, err := unary.GetOperation(cmd.Context(), &runbookv1.GetOperationRequest{Id: id})
			if err != nil {
				return err
			}
			if len(args) == 0 {
				fmt.Fprintf(a.diag, "Operation %s\n", id)
			}
			return a.follow(cmd.Context(), stream, id, got.GetOperation().GetStartedAt().AsTime())
		},
	}
}

// lostFor is how long a watch goes on without an answer of its service.
const lostFor = time.Minute

// again calls watch until it succeeds. A watch that breaks because its service is away is taken up again, for lostFor at
// most since it was last heard. The error is that of watch.
func (a *app) again(ctx context.Context, lost func(), watch func() (heard bool, err error)) error {
	var since time.Time
	for {
		heard, err := watch()
		if heard {
			since = time.Time{}
		}
		switch {
		case err == nil || ctx.Err() != nil || problem.KindOf(err) != problem.Unavailable:
			return err
		case since.IsZero():
			since = a.now()
			lost()
		case a.now().Sub(since) > lostFor:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// follow shows the operation until it ends. The operation does not depend on being watched. Where nobody looks on, it is
// not waited for when it waits for a person.
func (a *app) follow(ctx context.Context, service runbookv1connect.RunbookServiceClient, id string, begun time.Time) error {
	w := a.out
	if a.output == "json" {
		w = a.diag
	}
	show := a.newProgress(w, begun)
	stop := show.tick()
	var last *runbookv1.Operation
	err := a.again(ctx, func() {
		show.note(a.diag, "The runbook service does not answer; the operation goes on. Watching again …")
	}, func() (heard bool, err error) {
		stream, err := service.WatchOperation(ctx, &runbookv1.WatchOperationRequest{Id: id})
		if err != nil {
			return false, err
		}
		defer func() { _ = stream.Close() }()
		for stream.Receive() {
			heard, last = true, stream.Msg().GetOperation()
			show.show(last)
			if !show.live && last.GetState() == runbookv1.State_STATE_WAITING {
				return true, nil
			}
		}
		if err := stream.Err(); err != nil || last != nil && ended(last.GetState()) {
			return heard, err
		}
		return heard, problem.Unavailablef("the runbook service ended the watch before the operation had ended")
	})
	stop()
	watch := "edgehold operation watch " + id
	switch {
	case err == nil, last != nil && ended(last.GetState()), ctx.Err() != nil && last.GetState() == runbookv1.State_STATE_WAITING:
		return a.finish(last)
	case ctx.Err() != nil:
		return &exit{ExitFailed, "interrupted; the operation goes on without being watched\n  " + watch}
	case problem.KindOf(err) == problem.Unavailable:
		return &exit{ExitUnreachable, fmt.Sprintf("the runbook service has not answered for %s; the operation goes on\n  %s", lostFor, watch)}
	}
	return err
}

// finish prints the outcome and picks the exit code.
func (a *app) finish(op *runbookv1.Operation) error {
	if a.output == "json" {
		if err := printJSON(a.out, op); err != nil {
			return err
		}
	}
	switch op.GetState() {
	case runbookv1.State_STATE_SUCCEEDED:
		return nil
	case runbookv1.State_STATE_PARTIAL, runbookv1.State_STATE_ABORTED:
		return &exit{ExitPartial, op.GetMessage()}
	case runbookv1.State_STATE_WAITING:
		return &exit{ExitWaiting, fmt.Sprintf("%s\n  edgehold operation approve %s --reason TEXT\n  edgehold operation abort %s --reason TEXT", op.GetMessage(), op.GetId(), op.GetId())}
	}
	return &exit{ExitFailed, op.GetMessage()}
}

// operationActCommand is a decision of a person on an operation.
func operationActCommand(a *app, verb, short string) *cobra.Command {
	var reason, key string
	cmd := &cobra.Command{
		Use:               verb + " [ID] --reason TEXT",
		Short:             short,
		Long:              short + ".\nWithout ID it is the one under way.",
		Args:              atMostOne("ID"),
		ValidArgsFunction: a.completeOperations(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return problem.Invalidf("--reason", "say why; it is kept with the operation")
			}
			if key == "" {
				key = uuid.NewString()
			}
			service, _, err := a.runbooks()
			if err != nil {
				return err
			}
			id, err := a.operation(cmd.Context(), service, args, true)
			if err != nil {
				return err
			}
			op, err := decide(cmd.Context(), service, verb, &runbookv1.Act{Id: id, Reason: reason, IdempotencyKey: key})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, op)
			}
			a.printOperation(op)
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, a `TEXT` that is kept with the operation")
	cmd.Flags().StringVar(&key, "idempotency-key", "", "a repeated call with the same `KEY` is the same decision (default: a new one)")
	return cmd
}

func decide(ctx context.Context, service runbookv1connect.RunbookServiceClient, verb string, act *runbookv1.Act) (*runbookv1.Operation, error) {
	switch verb {
	case "approve":
		r, err := service.Approve(ctx, &runbookv1.ApproveRequest{Act: act})
		return r.GetOperation(), err
	case "pause":
		r, err := service.Pause(ctx, &runbookv1.PauseRequest{Act: act})
		return r.GetOperation(), err
	case "resume":
		r, err := service.Resume(ctx, &runbookv1.ResumeRequest{Act: act})
		return r.GetOperation(), err
	default:
		r, err := service.Abort(ctx, &runbookv1.AbortRequest{Act: act})
		return r.GetOperation(), err
	}
}
