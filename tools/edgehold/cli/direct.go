package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/klog/v2"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/cluster"
)

// cutOverDirect does from here what the services would do: the same domain, with nothing between it and the clusters.
func (a *app) cutOverDirect(ctx context.Context, r *request, asked *fleetv1.Scope, begun time.Time) error {
	config, err := a.settings()
	if err != nil {
		return err
	}
	// What the Kubernetes client finds worth a line of its own is in the errors that it returns.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	centre, done, err := openCentre(r, config)
	if err != nil {
		return err
	}
	defer done()
	scope := fleet.Scope{Pops: asked.GetPops(), All: asked.GetAll()}
	change := r.change(begun)
	if err := resolve(ctx, centre, scope, r, &change); err != nil {
		return err
	}
	if r.dryRun {
		return a.planDirect(ctx, centre, scope, r, change)
	}
	pops, err := centre.Registry().Select(scope)
	if err != nil {
		return err
	}

	// The intent is on record before anything is changed.
	audit, err := openAudit(config.AuditLog, change, r)
	if err != nil {
		return err
	}
	defer audit.close()
	w := a.out
	if a.output == "json" {
		w = a.diag
	}
	show := a.newProgress(w, begun)
	live := newDirectOperation(r, asked, change, pops, show.live)
	stop := show.tick()
	if show.live {
		show.show(proto.CloneOf(live.op))
	}
	act := centre.CutOver
	if r.selector {
		act = centre.ForceSelector
	}
	results, err := act(ctx, r.fleet, scope, change, func(result fleet.CutoverResult) {
		audit.result(result)
		live.took(result, show)
	})
	stop()
	if err != nil {
		audit.end(err)
		return err
	}
	live.end(a.now(), show)
	if a.output == "json" {
		if err := printJSON(a.out, live.op); err != nil {
			return err
		}
	}
	err = directOutcome(ctx, r, change.To, results)
	audit.end(err)
	if audit.err != nil {
		fmt.Fprintf(a.diag, "The audit log is not complete: %v\n", audit.err)
	}
	return err
}

// change is what is declared in each PoP; its colour is empty until it is resolved.
func (r *request) change(at time.Time) fleet.Change {
	change := fleet.Change{ID: "direct/" + r.key, To: fleet.Colour(r.to), Principal: principal(), Reason: r.reason, Version: r.version, Force: r.force,
		Rollback: r.kind == runbookv1.Kind_KIND_ROLLBACK, At: at}
	if r.deadline > 0 {
		change.Deadline = at.Add(r.deadline)
	}
	return change
}

// directOperation is a direct cutover in the form that progress shows.
type directOperation struct {
	mu  sync.Mutex
	op  *runbookv1.Operation
	pop map[string]*runbookv1.PopProgress
}

func newDirectOperation(r *request, asked *fleetv1.Scope, change fleet.Change, pops []fleet.Pop, live bool) *directOperation {
	d := &directOperation{pop: map[string]*runbookv1.PopProgress{}}
	wave := &runbookv1.Wave{}
	for _, p := range pops {
		progress := &runbookv1.PopProgress{Pop: p.Name}
		if live {
			progress.Step = runbookv1.Step_STEP_SWITCHING
		}
		d.pop[p.Name] = progress
		wave.Pops = append(wave.Pops, progress)
	}
	d.op = &runbookv1.Operation{Id: change.ID, State: runbookv1.State_STATE_RUNNING, Principal: change.Principal, Reason: change.Reason, To: colour(change.To),
		StartedAt: timestamppb.New(change.At), Waves: []*runbookv1.Wave{wave},
		GlobalCutover: &runbookv1.GlobalCutover{Kind: r.kind, Fleet: r.fleet, Scope: asked, To: r.colour(), Version: r.version, Force: r.force}}
	return d
}

func (d *directOperation) took(r fleet.CutoverResult, show *progress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pop[r.Pop]
	switch {
	case r.Err != nil && goesOn(r.Err):
		p.Step, p.Message = runbookv1.Step_STEP_SWITCHING, "declared and not switched yet; it goes on by itself"
	case r.Err != nil:
		p.Step, p.Message = runbookv1.Step_STEP_FAILED, r.Err.Error()
	case r.Already:
		p.Step = runbookv1.Step_STEP_ALREADY
	default:
		p.Step = runbookv1.Step_STEP_SWITCHED
		if c := r.Cutover; c != nil && !c.SwitchedAt.IsZero() {
			p.SwitchedAt = timestamppb.New(c.SwitchedAt)
		}
	}
	show.show(proto.CloneOf(d.op))
}

func (d *directOperation) end(at time.Time, show *progress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.op.EndedAt = timestamppb.New(at)
	n, all := serving(d.op)
	switch n {
	case all:
		d.op.State, d.op.Message = runbookv1.State_STATE_SUCCEEDED, fmt.Sprintf("%d of %d PoPs serve %s; they drain by themselves", n, all, colourName(d.op.GetTo()))
	case 0:
		d.op.State = runbookv1.State_STATE_FAILED
	default:
		d.op.State = runbookv1.State_STATE_PARTIAL
	}
	show.show(proto.CloneOf(d.op))
}

// goesOn tells of an error that the change is declared and its PoP follows without being watched.
func goesOn(err error) bool { return problem.KindOf(err) == problem.DeadlineExceeded }

// openCentre opens the registry and the clusters of --direct.
func openCentre(r *request, config Config) (*fleet.Centre, func(), error) {
	path := cmp.Or(r.registry, config.Registry)
	if path == "" {
		return nil, nil, problem.Invalidf("--registry", "--direct needs the file that lists the PoPs; name it, or set registry in the file of --config")
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, problem.Invalidf("--registry", "%v; it is named by --registry, or by registry in the file of --config", err)
	}
	open := cluster.Config{Agent: "edgehold-direct"}
	if file := cmp.Or(r.kubeconfig, config.Kubeconfig); file != "" {
		open.Kubeconfig = []string{file}
	}
	connections, err := cluster.Open(open)
	if err != nil {
		return nil, nil, err
	}
	registry, err := fleet.ParseRegistry(body, connections.Contexts())
	if err != nil {
		connections.Close()
		return nil, nil, problem.Invalidf("--registry", "%s: %w", path, err)
	}
	return fleet.NewCentre(registry, connections.Cluster, fleet.Limits{}), connections.Close, nil
}

// resolve finds what was left out: the fleet's name, and the colour to go back to.
func resolve(ctx context.Context, centre *fleet.Centre, scope fleet.Scope, r *request, change *fleet.Change) error {
	if r.fleet != "" && change.To != fleet.None {
		return nil
	}
	pops, err := centre.List(ctx, r.fleet, scope)
	if err != nil {
		return err
	}
	unread := 0
	for _, p := range pops {
		if p.Err != nil {
			unread++
		}
		for _, f := range p.Fleets {
			if r.fleet == "" {
				r.fleet = f.Name
			}
			if f.Name != r.fleet {
				return problem.Invalidf("--fleet", "there is more than one (%s, %s, …); say which", r.fleet, f.Name)
			}
		}
	}
	if r.fleet == "" {
		if unread > 0 {
			return problem.Unavailablef("no fleet could be read: %d of %d PoPs do not answer", unread, len(pops))
		}
		return problem.NotFoundf("--fleet", "no PoP in scope has a fleet")
	}
	if change.To == fleet.None {
		change.To, err = fleet.RollbackTarget(pops)
	}
	return err
}

// outcome is one PoP's result in words.
func outcome(r fleet.CutoverResult) string {
	switch {
	case r.Err != nil && goesOn(r.Err):
		return "declared, not switched yet: " + r.Err.Error()
	case r.Err != nil:
		return "left as it is: " + r.Err.Error()
	case r.Already:
		return "already there"
	default:
		return "switched"
	}
}

func (a *app) planDirect(ctx context.Context, centre *fleet.Centre, scope fleet.Scope, r *request, change fleet.Change) error {
	to, plans, err := centre.Plan(ctx, fleet.PlanRequest{Fleet: r.fleet, Scope: scope, To: change.To, Version: r.version, Force: r.force, Fresh: r.selector})
	if err != nil {
		return err
	}
	out := &fleetv1.PlanCutoverResponse{To: colour(to)}
	for _, p := range plans {
		plan := &fleetv1.PopPlan{Pop: p.Pop, From: colour(p.From), To: colour(to), Version: p.Version, Already: p.Already, Steps: p.Steps}
		if p.Err != nil {
			plan.Problem = &fleetv1.Problem{Code: problem.KindOf(p.Err).String(), Message: p.Err.Error()}
		}
		for _, b := range p.Blockers {
			plan.Blockers = append(plan.Blockers, &fleetv1.Blocker{Reason: b.Reason, Message: b.Message, Overridable: b.Overridable})
		}
		out.Pops = append(out.Pops, plan)
	}
	return a.printPlan(out, r.force)
}

func colour(c fleet.Colour) fleetv1.Colour {
	switch c {
	case fleet.Blue:
		return fleetv1.Colour_COLOUR_BLUE
	case fleet.Green:
		return fleetv1.Colour_COLOUR_GREEN
	}
	return fleetv1.Colour_COLOUR_UNSPECIFIED
}

// directOutcome is nil when every PoP serves the target; else its code says whether anything was changed, and its text
// how to go on.
func directOutcome(ctx context.Context, r *request, to fleet.Colour, results []fleet.CutoverResult) error {
	var first error
	left, going := 0, 0
	for _, result := range results {
		if result.Err == nil {
			continue
		}
		left++
		if goesOn(result.Err) {
			going++
		}
		if first == nil {
			first = result.Err
		}
	}
	if left == 0 {
		return nil
	}
	out := &exit{ExitPartial, fmt.Sprintf("%d of %d PoPs do not serve %s", left, len(results), to)}
	if left == len(results) {
		out.code = code(first)
	}
	if ctx.Err() != nil {
		out.text = "interrupted: " + out.text
	}
	if going > 0 {
		out.text += fmt.Sprintf("; %d of them go on by themselves, if their controllers live", going)
	}
	command := fmt.Sprintf("\n  edgehold %s --direct --to %s ", r.verb(), to)
	if going > 0 && !r.selector {
		out.text += ". With the same reason and key it is taken up again; --force-selector does without the controllers:" + command + "--idempotency-key " + r.key + " --reason …" + command + "--force-selector --reason …"
	} else {
		out.text += ". With the same reason and key it is taken up again:" + command + "--idempotency-key " + r.key + " --reason …"
	}
	return out
}

// principal is who runs the command, as far as this machine knows.
func principal() string {
	host, _ := os.Hostname()
	if u, err := user.Current(); err == nil {
		return u.Username + "@" + host
	}
	return "unknown@" + host
}
