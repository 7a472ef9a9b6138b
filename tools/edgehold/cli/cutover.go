package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
)

// request is what rollback and cutover share. Limits that were not given are left to the service, which has the defaults.
type request struct {
	kind         runbookv1.Kind
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
	supersede    bool
	direct       bool
	selector     bool
	kubeconfig   string
	registry     string
}

func (r *request) add(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	r.scope.add(a, cmd)
	f.StringVar(&r.fleet, "fleet", "", "the `FLEET` (default: the only one there is)")
	f.StringVar(&r.to, "to", "", "the `COLOUR` to serve, blue or green")
	f.StringVar(&r.version, "version", "", "refuse PoPs where that colour has another `VERSION`")
	f.StringVar(&r.reason, "reason", "", "why, a `TEXT` that is kept in every audit record")
	f.BoolVar(&r.dryRun, "dry-run", false, "say what would be done and what would block it; change nothing")
	f.BoolVar(&r.force, "force", false, "go past blockers that may be overridden; needs the role breakglass")
	group(f, "What", "pops", "fleet", "to", "version", "reason", "dry-run", "force")

	f.StringVar(&r.firstPop, "first-pop", "", "a `POP` that goes alone before all others")
	f.Int32Var(&r.wave, "wave", 0, "`N` PoPs per wave (default: all at once)")
	f.BoolVar(&r.approveWaves, "approve-waves", false, "wait for a person's approval between waves: operation approve")
	f.Int32Var(&r.maxFailed, "max-failed", 0, "stop and ask when more than `N` PoPs are blocked or failed (default: a third)")
	f.Float64Var(&r.maxErrors, "max-error-ratio", 0, "highest `RATIO` of errors of the edge that counts as recovered, 0 to 1 (default 0.01)")
	f.DurationVar(&r.jitter, "jitter", 0, "spread the starts of a wave over this `TIME`, at most 1m (default 50ms)")
	f.DurationVar(&r.deadline, "deadline", 0, "a PoP that has not switched after this `TIME` is left as it is, at most 1h (default 1m)")
	f.BoolVar(&r.supersede, "supersede", false, "abort the operation that the fleet has under way, and begin when that one has ended")
	f.BoolVar(&r.detach, "detach", false, "start it, print its id and return")
	f.StringVar(&r.key, "idempotency-key", "", "a repeated call with the same `KEY` is the same operation (default: a new one)")
	group(f, "How", "first-pop", "wave", "approve-waves", "max-failed", "max-error-ratio", "jitter", "deadline", "supersede", "detach", "idempotency-key")

	f.BoolVar(&r.direct, "direct", false, "from here to the clusters: no Temporal, no service of ours")
	f.BoolVar(&r.selector, "force-selector", false, "with --direct: set the selectors of the Services, for when the controllers are dead too")
	f.StringVar(&r.kubeconfig, "kubeconfig", "", "`FILE` for --direct (default: kubeconfig of the config file, else KUBECONFIG)")
	f.StringVar(&r.registry, "registry", "", "`FILE` that lists the PoPs, for --direct (default: registry of the config file)")
	group(f, "When the services are dead", "direct", "force-selector", "kubeconfig", "registry")

	a.completeFlag(cmd, "fleet", a.completeFleets)
	a.completeFlag(cmd, "first-pop", a.completePops)
	a.completeFlag(cmd, "to", oneOf("blue", "green"))
}

func (r *request) validate(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case r.to != "" && r.to != "blue" && r.to != "green":
		return problem.Invalidf("--to", "%q is not a colour; use blue or green", r.to)
	case r.to == "" && r.kind == runbookv1.Kind_KIND_CUTOVER:
		return problem.Invalidf("--to", "name the colour to serve, blue or green")
	case strings.TrimSpace(r.reason) == "" && !r.dryRun:
		return problem.Invalidf("--reason", "say why; it is kept in the audit record of every PoP")
	case r.wave < 0 || given("wave") && r.wave == 0:
		return problem.Invalidf("--wave", "%d is not a number of PoPs; use 1 or more, or leave it out for all at once", r.wave)
	case r.approveWaves && r.wave == 0 && r.firstPop == "":
		return problem.Invalidf("--approve-waves", "there is one wave only; use it with --wave or --first-pop")
	case r.maxFailed < 0:
		return problem.Invalidf("--max-failed", "%d is not a number of PoPs; use 0 or more", r.maxFailed)
	case !(r.maxErrors >= 0 && r.maxErrors <= 1): // written so that NaN fails
		return problem.Invalidf("--max-error-ratio", "%g is not a ratio; use 0 to 1", r.maxErrors)
	case r.jitter < 0:
		return problem.Invalidf("--jitter", "%s is not a length of time; use 0s to 1m", r.jitter)
	case given("deadline") && r.deadline <= 0:
		return problem.Invalidf("--deadline", "%s is not a length of time; use more than 0s and at most 1h", r.deadline)
	case r.firstPop != "" && len(r.scope.pops) > 0 && !slices.Contains(r.scope.pops, r.firstPop):
		return problem.Invalidf("--first-pop", "%q is not one of --pops %s", r.firstPop, strings.Join(r.scope.pops, ","))
	case r.selector && !r.direct:
		return problem.Invalidf("--force-selector", "it goes with --direct only: the services never write a Service's selector")
	}
	for _, flag := range []string{"wave", "approve-waves", "first-pop", "detach", "supersede", "max-failed", "max-error-ratio", "jitter"} {
		if r.direct && given(flag) {
			return problem.Invalidf("--"+flag, "it does not go with --direct, which switches all PoPs at once and waits")
		}
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

// verb is the command's name.
func (r *request) verb() string { return name(r.kind.String(), "KIND_") }

func rollbackCommand(a *app) *cobra.Command {
	return cutOverCommand(a, runbookv1.Kind_KIND_ROLLBACK, &cobra.Command{
		Use:   "rollback --reason TEXT",
		Short: "Send every PoP back to the colour that was active before",
		Long: `Send every PoP back to the colour that was active before, all at once or in
waves. PoPs that cannot are reported and left as they are. Without --to the
target is the other colour when all PoPs serve the same one; a fleet that is
mixed may want --to. --dry-run says which it is. Once all are rolled back,
another rollback is refused unless --to says where; while some are not, it
takes those along.

The operation runs in the centre and does not depend on this command, which
only watches it: Ctrl-C ends the watching and nothing else.

With --direct only the clusters are needed: it declares the colour in each PoP
and its controller switches. With --force-selector too, it sets the selector
of the Service itself.

` + exitHelp,
		Example: `  edgehold rollback --reason 'v2 answers 500'
  edgehold rollback --pops fra1,ams1 --dry-run
  edgehold rollback --wave 5 --approve-waves --reason 'slow leak in v2'
  edgehold rollback --supersede --reason 'stop that release, v2 answers 500'
  edgehold rollback --direct --reason 'v2 answers 500, and Temporal is down too'`,
	})
}

func cutoverCommand(a *app) *cobra.Command {
	return cutOverCommand(a, runbookv1.Kind_KIND_CUTOVER, &cobra.Command{
		Use:   "cutover --to COLOUR --reason TEXT",
		Short: "Send every PoP to a colour: the forward release",
		Long: `Send every PoP to a colour: the forward release. It is the same operation as
rollback, with the target named.

` + exitHelp,
		Example: `  edgehold cutover --to green --version v2 --reason 'release v2'
  edgehold cutover --to green --first-pop fra1 --wave 5 --reason 'release v2'`,
	})
}

func cutOverCommand(a *app, kind runbookv1.Kind, cmd *cobra.Command) *cobra.Command {
	r := &request{kind: kind}
	cmd.Args = none
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.cutOver(cmd, r) }
	r.add(a, cmd)
	return cmd
}

func (a *app) cutOver(cmd *cobra.Command, r *request) error {
	begun := a.now()
	if err := r.validate(cmd); err != nil {
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
		return a.cutOverDirect(cmd.Context(), r, scope, begun)
	}
	if r.fleet == "" {
		if r.fleet, err = a.onlyFleet(cmd.Context(), scope); err != nil {
			return r.wayOut(err)
		}
	}
	if r.dryRun {
		return r.wayOut(a.plan(cmd.Context(), r, scope))
	}
	unary, stream, err := a.runbooks()
	if err != nil {
		return r.wayOut(err)
	}
	given := cmd.Flags().Changed
	global := &runbookv1.GlobalCutover{Kind: r.kind, Fleet: r.fleet, Scope: scope, To: r.colour(), Version: r.version, FirstPop: r.firstPop,
		WaveSize: r.wave, ApproveWaves: r.approveWaves, Force: r.force}
	if given("max-failed") {
		global.MaxFailedPops = &r.maxFailed
	}
	if given("max-error-ratio") {
		global.MaxErrorRatio = &r.maxErrors
	}
	if given("jitter") {
		global.Jitter = durationpb.New(r.jitter)
	}
	if given("deadline") {
		global.Deadline = durationpb.New(r.deadline)
	}
	started, err := unary.Start(cmd.Context(), &runbookv1.StartRequest{Reason: r.reason, IdempotencyKey: r.key, Supersede: r.supersede,
		Runbook: &runbookv1.StartRequest_GlobalCutover{GlobalCutover: global}})
	if err != nil {
		return r.startFailed(cmd.Context(), err)
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

// startFailed says what a person can do about an operation that did not start, or that may have.
func (r *request) startFailed(ctx context.Context, err error) error {
	again := fmt.Sprintf("the same command with --idempotency-key %s finds it or starts it", r.key)
	var p *problem.Error
	switch errors.As(err, &p); {
	case ctx.Err() != nil:
		return &exit{ExitFailed, "interrupted before the service had answered, so the operation may have been started: edgehold operation list shows it, and " + again}
	case p == nil:
		return err
	case p.Kind == problem.Unavailable && !refusedToDial(err), p.Kind == problem.DeadlineExceeded:
		return r.wayOut(&exit{code(err), p.Error() + "; " + again})
	}
	return r.wayOut(err)
}

// refusedToDial tells that nobody was asked, so nothing can have happened.
func refusedToDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// wayOut adds the command that needs no service to the error of a service that is not known or does not answer.
func (r *request) wayOut(err error) error {
	direct := fmt.Sprintf("\n  edgehold %s --direct …   needs neither Temporal nor our services", r.verb())
	var p *problem.Error
	var e *exit
	switch {
	case errors.As(err, &e) && e.code == ExitUnreachable:
		return &exit{e.code, e.text + direct}
	case errors.As(err, &p) && (p.Kind == problem.Unavailable || errors.Is(err, errNoAddress)):
		return &exit{code(err), p.Error() + direct}
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
		return "", err
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
		return err
	}
	return a.printPlan(plan, r.force)
}

func (a *app) printPlan(plan *fleetv1.PlanCutoverResponse, force bool) error {
	var rows [][]string
	switching, already, left := 0, 0, 0
	for _, p := range plan.GetPops() {
		verdict, detail := "would switch", ""
		switch {
		case p.GetProblem() != nil:
			verdict, detail = "unreachable", p.GetProblem().GetMessage()
			left++
		case p.GetAlready():
			verdict = "already there"
			already++
		case len(p.GetBlockers()) > 0:
			var blockers []string
			for _, b := range p.GetBlockers() {
				text := b.GetMessage()
				if b.GetOverridable() && !force {
					text += " (--force goes past it)"
				}
				blockers = append(blockers, text)
			}
			verdict, detail = "blocked", strings.Join(blockers, "; ")
			left++
		default:
			switching++
		}
		rows = append(rows, []string{p.GetPop(), colourName(p.GetFrom()), colourName(p.GetTo()), p.GetVersion(), verdict, detail})
	}
	if a.output == "json" {
		if err := printJSON(a.out, plan); err != nil {
			return err
		}
	} else {
		table(a.out, "POP FROM TO VERSION VERDICT DETAIL", rows)
		fmt.Fprintf(a.out, "%d of %d PoPs would switch to %s, %d are already there. Nothing was changed.\n", switching, len(rows), colourName(plan.GetTo()), already)
	}
	if left > 0 {
		return &exit{ExitRefused, fmt.Sprintf("%d of %d PoPs would be left as they are", left, len(rows))}
	}
	return nil
}
