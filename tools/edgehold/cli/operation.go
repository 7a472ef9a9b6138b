package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/proto/edgehold/runbook/v1/runbookv1connect"
)

// request is what rollback and cutover share.
type request struct {
	scope        scopeFlag
	fleet        string
	to           string
	version      string
	reason       string
	firstPop     string
	key          string
	wave         int32
	approveWaves bool
	maxFailed    int32
	maxErrors    float64
	jitter       time.Duration
	deadline     time.Duration
	force        bool
	dryRun       bool
	detach       bool
	direct       bool
	selector     bool
	kubeconfig   string
	registry     string
}

func (r *request) add(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	r.scope.add(cmd)
	f.StringVar(&r.fleet, "fleet", "", "the fleet (default: the only one there is)")
	f.StringVar(&r.to, "to", "", "blue or green")
	f.StringVar(&r.version, "version", "", "refuse PoPs where that colour has another version")
	f.StringVar(&r.reason, "reason", "", "why; kept in every audit record")
	f.StringVar(&r.firstPop, "first-pop", "", "a PoP that goes alone before all others")
	f.Int32Var(&r.wave, "wave", 0, "PoPs per wave (default: all at once)")
	f.BoolVar(&r.approveWaves, "approve-waves", false, "wait for edgehold operation approve between waves")
	f.Int32Var(&r.maxFailed, "max-failed", -1, "stop and ask when more PoPs than this are blocked or failed (default: a third)")
	f.Float64Var(&r.maxErrors, "max-error-ratio", -1, "highest error ratio of the edge that counts as recovered, 0 to 1 (default 0.01)")
	f.DurationVar(&r.jitter, "jitter", -1, "spread the starts of a wave over this time (default 50ms)")
	f.DurationVar(&r.deadline, "deadline", 0, "a PoP that has not switched by then is left as it is (default 60s)")
	f.BoolVar(&r.force, "force", false, "go past blockers that may be overridden; needs the role breakglass")
	f.BoolVar(&r.dryRun, "dry-run", false, "say what would be done and what would block it; change nothing")
	f.BoolVar(&r.detach, "detach", false, "start it, print its id and return")
	f.StringVar(&r.key, "idempotency-key", "", "a repeated call with the same key is the same operation (default: a new one)")
	f.BoolVar(&r.direct, "direct", false, "only kubeconfigs: no Temporal, no fleet service")
	f.BoolVar(&r.selector, "force-selector", false, "with --direct: switch the Services themselves, for when the controllers are dead")
	f.StringVar(&r.kubeconfig, "kubeconfig", "", "for --direct (default: kubeconfig of the config file, else KUBECONFIG)")
	f.StringVar(&r.registry, "registry", "", "PoP registry, for --direct (default: registry of the config file)")
}

const colours = "blue or green"

func (r *request) validate(kind runbookv1.Kind) error {
	switch {
	case r.reason == "" && !r.dryRun:
		return problem.Invalidf("--reason", "say why; it is kept in the audit record of every PoP")
	case r.to != "" && r.to != "blue" && r.to != "green":
		return problem.Invalidf("--to", "%q is not a colour; use %s", r.to, colours)
	case r.to == "" && kind == runbookv1.Kind_KIND_CUTOVER:
		return problem.Invalidf("--to", "name the colour to serve, %s", colours)
	case r.wave < 0:
		return problem.Invalidf("--wave", "%d is not a number of PoPs; use 1 or more, or leave it out for all at once", r.wave)
	case r.maxErrors > 1:
		return problem.Invalidf("--max-error-ratio", "%g is not a ratio; use 0 to 1", r.maxErrors)
	case r.selector && !r.direct:
		return problem.Invalidf("--force-selector", "it goes with --direct only: the services never write a Service's selector")
	case r.direct && (r.wave > 0 || r.approveWaves || r.firstPop != "" || r.detach):
		return problem.Invalidf("--direct", "it switches all PoPs at once and waits: --wave, --approve-waves, --first-pop and --detach need the runbook service")
	}
	return nil
}

func (r *request) colour() fleetv1.Colour {
	switch r.to {
	case "blue":
		return fleetv1.Colour_COLOUR_BLUE
	case "green":
		return fleetv1.Colour_COLOUR_GREEN
	}
	return fleetv1.Colour_COLOUR_UNSPECIFIED
}

func rollbackCommand(a *app) *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:   "rollback --reason TEXT",
		Short: "Send every PoP back to the colour that was active before",
		Long: `Send every PoP back to the colour that was active before, all at once or in waves. PoPs that cannot are reported and
left as they are. Without --to the target is the colour before the last cutover; a fleet that is mixed wants --to.

With --direct only the clusters are needed: it declares the colour in each PoP and its controller switches. With
--force-selector too, it switches the Service itself.

` + exitHelp,
		Example: `  edgehold rollback --reason 'v2 answers 500'
  edgehold rollback --pops fra1,ams1 --reason 'v2 answers 500 in eu' --dry-run
  edgehold rollback --wave 5 --approve-waves --reason 'slow leak in v2'
  edgehold rollback --direct --reason 'Temporal is down too'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cutOver(cmd, runbookv1.Kind_KIND_ROLLBACK, &r) },
	}
	r.add(a, cmd)
	return cmd
}

func cutoverCommand(a *app) *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:     "cutover --to COLOUR --reason TEXT",
		Short:   "Send every PoP to a colour",
		Long:    "Send every PoP to a colour: the forward release. It is the same operation as rollback with the target named.\n\n" + exitHelp,
		Example: "  edgehold cutover --to green --version v2 --reason 'release v2'",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.cutOver(cmd, runbookv1.Kind_KIND_CUTOVER, &r) },
	}
	r.add(a, cmd)
	return cmd
}

func (a *app) cutOver(cmd *cobra.Command, kind runbookv1.Kind, r *request) error {
	begun := a.now()
	if err := r.validate(kind); err != nil {
		return err
	}
	scope, err := r.scope.scope(cmd)
	if err != nil {
		return err
	}
	if r.key == "" {
		r.key = uuid.NewString()
	}
	if r.direct {
		return a.cutOverDirect(cmd.Context(), kind, r, scope, begun)
	}
	if r.fleet == "" {
		if r.fleet, err = a.onlyFleet(cmd.Context(), scope); err != nil {
			return err
		}
	}
	if r.dryRun {
		return a.plan(cmd.Context(), r, scope)
	}
	unary, stream, err := a.runbooks()
	if err != nil {
		return err
	}
	global := &runbookv1.GlobalCutover{Kind: kind, Fleet: r.fleet, Scope: scope, To: r.colour(), Version: r.version, FirstPop: r.firstPop,
		WaveSize: r.wave, ApproveWaves: r.approveWaves, Force: r.force}
	if r.maxFailed >= 0 {
		global.MaxFailedPops = &r.maxFailed
	}
	if r.maxErrors >= 0 {
		global.MaxErrorRatio = &r.maxErrors
	}
	if r.jitter >= 0 {
		global.Jitter = durationpb.New(r.jitter)
	}
	if r.deadline > 0 {
		global.Deadline = durationpb.New(r.deadline)
	}
	started, err := unary.Start(cmd.Context(), &runbookv1.StartRequest{Reason: r.reason, IdempotencyKey: r.key,
		Runbook: &runbookv1.StartRequest_GlobalCutover{GlobalCutover: global}})
	if err != nil {
		return a.hintDirect(err)
	}
	op := started.GetOperation()
	fmt.Fprintf(a.diag, "Operation %s\n", op.GetId())
	if r.detach {
		if a.output == "json" {
			return printJSON(a.out, op)
		}
		fmt.Fprintln(a.out, op.GetId())
		return nil
	}
	return a.follow(cmd.Context(), stream, op.GetId(), begun)
}

// hintDirect adds the way out to an error of a service that does not answer.
func (a *app) hintDirect(err error) error {
	var p *problem.Error
	if errors.As(err, &p) && p.Kind == problem.Unavailable {
		c := *p
		c.Sentence += "; edgehold rollback --direct needs neither Temporal nor our services"
		return &c
	}
	return err
}

// onlyFleet is the name of the fleet when all PoPs in scope have the same one.
func (a *app) onlyFleet(ctx context.Context, scope *fleetv1.Scope) (string, error) {
	service, _, err := a.fleets()
	if err != nil {
		return "", err
	}
	list, err := service.ListFleets(ctx, &fleetv1.ListFleetsRequest{Scope: scope})
	if err != nil {
		return "", a.hintDirect(err)
	}
	only := ""
	for _, f := range list.GetFleets() {
		switch n := f.GetName(); {
		case n == "" || n == only:
		case only == "":
			only = n
		default:
			return "", problem.Invalidf("--fleet", "there is more than one (%s, %s, …); say which", only, n)
		}
	}
	if only == "" {
		return "", problem.NotFoundf("--fleet", "no fleet was found in scope; edgehold fleet list says what each PoP answers")
	}
	return only, nil
}

// plan prints what a cutover would do in each PoP. It is refused when any PoP would be.
func (a *app) plan(ctx context.Context, r *request, scope *fleetv1.Scope) error {
	service, _, err := a.fleets()
	if err != nil {
		return err
	}
	plan, err := service.PlanCutover(ctx, &fleetv1.PlanCutoverRequest{Fleet: r.fleet, Scope: scope, To: r.colour(), Version: r.version, Force: r.force})
	if err != nil {
		return a.hintDirect(err)
	}
	if a.output == "json" {
		if err := printJSON(a.out, plan); err != nil {
			return err
		}
	}
	var rows [][]string
	blocked := 0
	for _, p := range plan.GetPops() {
		verdict, detail := "would switch", ""
		switch {
		case p.GetProblem() != nil:
			verdict, detail = "unreachable", p.GetProblem().GetMessage()
			blocked++
		case p.GetAlready():
			verdict = "already there"
		case len(p.GetBlockers()) > 0:
			verdict, detail = "blocked", p.GetBlockers()[0].GetMessage()
			blocked++
		}
		rows = append(rows, []string{p.GetPop(), colourName(p.GetFrom()), colourName(p.GetTo()), p.GetVersion(), verdict, detail})
	}
	if a.output == "table" {
		table(a.out, "POP FROM TO VERSION VERDICT DETAIL", rows)
		fmt.Fprintln(a.out, "Nothing was changed.")
	}
	if blocked > 0 {
		return &exit{ExitRefused, fmt.Sprintf("%d of %d PoPs would be left as they are", blocked, len(rows))}
	}
	return nil
}

// lostFor is how long follow goes on without an answer of the service.
const lostFor = time.Minute

// follow shows the operation until it ends. The operation does not depend on being watched: when the service goes away
// the watch is taken up again.
func (a *app) follow(ctx context.Context, service runbookv1connect.RunbookServiceClient, id string, begun time.Time) error {
	w := a.out
	if a.output == "json" {
		w = a.diag
	}
	show := newProgress(w, begun)
	var last *runbookv1.Operation
	lost := time.Time{}
	for {
		stream, err := service.WatchOperation(ctx, &runbookv1.WatchOperationRequest{Id: id})
		if err == nil {
			for stream.Receive() {
				lost = time.Time{}
				last = stream.Msg().GetOperation()
				show.show(last)
				if last.GetState() == runbookv1.State_STATE_WAITING && show.width == 0 {
					_ = stream.Close()
					return a.finish(last)
				}
			}
			err = stream.Err()
			_ = stream.Close()
		}
		switch {
		case ctx.Err() != nil:
			fmt.Fprintf(a.diag, "The operation goes on without being watched: edgehold operation watch %s\n", id)
			return &exit{code: ExitFailed}
		case last != nil && ended(last.GetState()):
			return a.finish(last)
		case err != nil && problem.KindOf(err) != problem.Unavailable:
			return err
		case lost.IsZero():
			lost = time.Now()
			fmt.Fprintln(a.diag, "The runbook service does not answer; the operation goes on, watching again …")
		case time.Since(lost) > lostFor:
			return problem.Unavailablef("the runbook service has not answered for %s; the operation goes on: edgehold operation watch %s", lostFor, id)
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func ended(s runbookv1.State) bool {
	switch s {
	case runbookv1.State_STATE_SUCCEEDED, runbookv1.State_STATE_PARTIAL, runbookv1.State_STATE_FAILED, runbookv1.State_STATE_ABORTED:
		return true
	}
	return false
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
	case runbookv1.State_STATE_PARTIAL:
		return &exit{ExitPartial, op.GetMessage()}
	case runbookv1.State_STATE_WAITING:
		return &exit{ExitWaiting, fmt.Sprintf("%s\n  edgehold operation approve %s --reason …\n  edgehold operation abort %s --reason …", op.GetMessage(), op.GetId(), op.GetId())}
	case runbookv1.State_STATE_ABORTED:
		return &exit{ExitPartial, op.GetMessage()}
	}
	return &exit{ExitFailed, op.GetMessage()}
}

func operationCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "operation", Short: "Operations under way and ended"}
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
		Args:  cobra.NoArgs,
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
			var rows [][]string
			for _, o := range list.GetOperations() {
				g := o.GetGlobalCutover()
				rows = append(rows, []string{o.GetId(), name(g.GetKind().String(), "KIND_"), g.GetFleet(), colourName(o.GetTo()), name(o.GetState().String(), "STATE_"),
					a.ago(o.GetStartedAt()), o.GetPrincipal(), o.GetReason()})
			}
			table(a.out, "ID KIND FLEET TO STATE STARTED BY REASON", rows)
			return nil
		},
	}
	cmd.Flags().StringVar(&fleet, "fleet", "", "only those of this fleet")
	cmd.Flags().Int32Var(&size, "limit", 20, "how many, 1 to 200")
	return cmd
}

func operationGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get ID",
		Short: "One operation with the state of each PoP",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, _, err := a.runbooks()
			if err != nil {
				return err
			}
			got, err := service.GetOperation(cmd.Context(), &runbookv1.GetOperationRequest{Id: args[0]})
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

func (a *app) printOperation(op *runbookv1.Operation) {
	fmt.Fprintln(a.out, headline(op))
	if op.GetMessage() != "" {
		fmt.Fprintln(a.out, op.GetMessage())
	}
	fmt.Fprintf(a.out, "Started %s ago by %s: %s\n", a.ago(op.GetStartedAt()), orUnknown(op.GetPrincipal()), op.GetReason())
	var rows [][]string
	for i, w := range op.GetWaves() {
		for _, p := range w.GetPops() {
			switched := ""
			if t := p.GetSwitchedAt(); t != nil {
				switched = fmt.Sprintf("%+.3fs", t.AsTime().Sub(op.GetStartedAt().AsTime()).Seconds())
			}
			drained := ""
			if p.ConnectionsDrained != nil {
				drained = fmt.Sprintf("%s drained, %s reset", count(p.ConnectionsDrained), count(p.ConnectionsReset))
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
		Use:   "watch ID",
		Short: "Follow an operation to its end; the exit code is its outcome",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			unary, stream, err := a.runbooks()
			if err != nil {
				return err
			}
			got, err := unary.GetOperation(cmd.Context(), &runbookv1.GetOperationRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), stream, args[0], got.GetOperation().GetStartedAt().AsTime())
		},
	}
}

// operationActCommand is a decision of a person on an operation.
func operationActCommand(a *app, verb, short string) *cobra.Command {
	var reason, key string
	cmd := &cobra.Command{
		Use:   verb + " ID --reason TEXT",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return problem.Invalidf("--reason", "say why; it is kept with the operation")
			}
			if key == "" {
				key = uuid.NewString()
			}
			service, _, err := a.runbooks()
			if err != nil {
				return err
			}
			op, err := decide(cmd.Context(), service, verb, &runbookv1.Act{Id: args[0], Reason: reason, IdempotencyKey: key})
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
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept with the operation")
	cmd.Flags().StringVar(&key, "idempotency-key", "", "a repeated call with the same key is the same decision (default: a new one)")
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
