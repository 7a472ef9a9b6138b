package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"sync"
	"time"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/cluster"
)

// cutOverDirect does from here what the services would do: the same domain, with nothing between it and the clusters.
func (a *app) cutOverDirect(ctx context.Context, kind runbookv1.Kind, r *request, asked *fleetv1.Scope, begun time.Time) error {
	centre, done, err := a.centre(r)
	if err != nil {
		return err
	}
	defer done()
	scope := fleet.Scope{Pops: asked.GetPops(), All: asked.GetAll()}
	change := fleet.Change{ID: "direct/" + r.key, To: fleet.Colour(r.to), Principal: principal(), Reason: r.reason, Version: r.version, Force: r.force, At: begun}
	if r.deadline > 0 {
		change.Deadline = begun.Add(r.deadline)
	}
	if err := a.resolve(ctx, centre, scope, r, &change); err != nil {
		return err
	}
	if r.dryRun {
		return a.planDirect(ctx, centre, scope, r, change)
	}

	// The intent is on disk before anything is changed.
	audit, err := openAudit(a.auditLog(), change, r)
	if err != nil {
		return err
	}
	defer audit.close()
	var mu sync.Mutex
	report := func(result fleet.CutoverResult) {
		audit.result(result)
		if a.output != "table" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(a.out, "%+8.3fs  %-8s %s\n", time.Since(begun).Seconds(), result.Pop, outcome(result))
	}
	act := centre.CutOver
	if r.selector {
		act = centre.ForceSelector
	}
	results, err := act(ctx, r.fleet, scope, change, report)
	if err != nil {
		audit.end(err)
		return err
	}
	return a.directSummary(kind, r, change, results, begun, audit)
}

// centre opens the registry and the clusters of --direct.
func (a *app) centre(r *request) (*fleet.Centre, func(), error) {
	path := r.registry
	if path == "" {
		path = a.config.Registry
	}
	if path == "" {
		return nil, nil, problem.Invalidf("--registry", "--direct needs the file that lists the PoPs; name it, or set registry in the file of --config")
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, problem.Invalidf("--registry", "cannot read it: %v", err)
	}
	config := cluster.Config{Agent: "edgehold-direct"}
	if r.kubeconfig == "" {
		r.kubeconfig = a.config.Kubeconfig
	}
	if r.kubeconfig != "" {
		config.Kubeconfig = []string{r.kubeconfig}
	}
	connections, err := cluster.Open(config)
	if err != nil {
		return nil, nil, err
	}
	registry, err := fleet.ParseRegistry(body, connections.Contexts())
	if err != nil {
		connections.Close()
		return nil, nil, err
	}
	return fleet.NewCentre(registry, connections.Cluster, fleet.Limits{}), connections.Close, nil
}

// resolve finds what was left out: the fleet's name, and the colour to go back to.
func (a *app) resolve(ctx context.Context, centre *fleet.Centre, scope fleet.Scope, r *request, change *fleet.Change) error {
	if r.fleet != "" && change.To != fleet.None {
		return nil
	}
	pops, err := centre.List(ctx, r.fleet, scope)
	if err != nil {
		return err
	}
	var fleets []fleet.Fleet
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
			fleets = append(fleets, f)
		}
	}
	if r.fleet == "" {
		if unread > 0 {
			return problem.Unavailablef("no fleet could be read: %d of %d PoPs do not answer", unread, len(pops))
		}
		return problem.NotFoundf("--fleet", "no PoP in scope has a fleet")
	}
	if change.To == fleet.None {
		change.To, err = fleet.RollbackTarget(fleets)
	}
	return err
}

// outcome is one PoP's result in words.
func outcome(r fleet.CutoverResult) string {
	switch {
	case r.Err != nil:
		return "left as it is: " + r.Err.Error()
	case r.Already:
		return "already there"
	default:
		return "switched"
	}
}

func (a *app) planDirect(ctx context.Context, centre *fleet.Centre, scope fleet.Scope, r *request, change fleet.Change) error {
	to, plans, err := centre.Plan(ctx, fleet.PlanRequest{Fleet: r.fleet, Scope: scope, To: change.To, Version: r.version, Force: r.force})
	if err != nil {
		return err
	}
	type row struct {
		Pop     string   `json:"pop"`
		From    string   `json:"from"`
		To      string   `json:"to"`
		Verdict string   `json:"verdict"`
		Detail  string   `json:"detail,omitempty"`
		Steps   []string `json:"steps,omitempty"`
	}
	var rows []row
	blocked := 0
	for _, p := range plans {
		line := row{Pop: p.Pop, From: string(p.From), To: string(to), Verdict: "would switch", Steps: p.Steps}
		switch {
		case p.Err != nil:
			line.Verdict, line.Detail = "unreachable", p.Err.Error()
			blocked++
		case p.Already:
			line.Verdict = "already there"
		case len(p.Blockers) > 0:
			line.Verdict, line.Detail = "blocked", p.Blockers[0].Message
			blocked++
		}
		rows = append(rows, line)
	}
	if a.output == "json" {
		if err := a.encode(rows); err != nil {
			return err
		}
	} else {
		var cells [][]string
		for _, l := range rows {
			cells = append(cells, []string{l.Pop, l.From, l.To, l.Verdict, l.Detail})
		}
		table(a.out, "POP FROM TO VERDICT DETAIL", cells)
		fmt.Fprintln(a.out, "Nothing was changed.")
	}
	if blocked > 0 {
		return &exit{ExitRefused, fmt.Sprintf("%d of %d PoPs would be left as they are", blocked, len(rows))}
	}
	return nil
}

func (a *app) encode(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (a *app) directSummary(kind runbookv1.Kind, r *request, change fleet.Change, results []fleet.CutoverResult, begun time.Time, audit *audit) error {
	type row struct {
		Pop        string     `json:"pop"`
		Outcome    string     `json:"outcome"`
		SwitchedAt *time.Time `json:"switched_at,omitempty"`
		Error      string     `json:"error,omitempty"`
	}
	summary := struct {
		ID      string  `json:"id"`
		Fleet   string  `json:"fleet"`
		To      string  `json:"to"`
		Forced  bool    `json:"force_selector"`
		Seconds float64 `json:"seconds"`
		Pops    []row   `json:"pops"`
	}{ID: change.ID, Fleet: r.fleet, To: string(change.To), Forced: r.selector, Seconds: time.Since(begun).Seconds()}
	var kinds []error
	served := 0
	for _, result := range results {
		line := row{Pop: result.Pop, Outcome: "switched"}
		switch {
		case result.Err != nil:
			line.Outcome, line.Error = "failed", result.Err.Error()
			kinds = append(kinds, result.Err)
		case result.Already:
			line.Outcome = "already"
			served++
		default:
			served++
			if c := result.Cutover; c != nil && !c.SwitchedAt.IsZero() {
				line.SwitchedAt = &c.SwitchedAt
			}
		}
		summary.Pops = append(summary.Pops, line)
	}
	verb := "Cutover of"
	if kind == runbookv1.Kind_KIND_ROLLBACK {
		verb = "Rollback of"
	}
	text := fmt.Sprintf("%s %s to %s: %d of %d PoPs serve it after %.3f s", verb, r.fleet, change.To, served, len(results), summary.Seconds)
	if a.output == "json" {
		if err := a.encode(summary); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.out, text+"; they drain by themselves: edgehold fleet list")
	}
	err := directError(kinds, served, len(results))
	audit.end(err)
	return err
}

// directError is nil when every PoP serves the target; else its code says whether anything was changed.
func directError(errs []error, served, all int) error {
	switch {
	case len(errs) == 0:
		return nil
	case served > 0:
		return &exit{ExitPartial, fmt.Sprintf("%d of %d PoPs do not serve the target", len(errs), all)}
	}
	return &exit{code(errs[0]), fmt.Sprintf("no PoP was switched; the first says: %v", errs[0])}
}

// principal is who runs the command, as far as this machine knows.
func principal() string {
	host, _ := os.Hostname()
	if u, err := user.Current(); err == nil {
		return u.Username + "@" + host
	}
	return "unknown@" + host
}

func (a *app) auditLog() string { return a.config.AuditLog }

// audit is the record that --direct leaves on this machine, beside the one in each Fleet: a line for the intent, one for
// each PoP and one for the end. It is a file of JSON lines, or the standard error when none is configured.
type audit struct {
	mu     sync.Mutex
	file   *os.File
	change fleet.Change
	err    error
}

type auditLine struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"`
	ID        string    `json:"id"`
	Principal string    `json:"principal"`
	Fleet     string    `json:"fleet,omitempty"`
	To        string    `json:"to,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Scope     []string  `json:"scope,omitempty"`
	Force     bool      `json:"force,omitempty"`
	Selector  bool      `json:"force_selector,omitempty"`
	Pop       string    `json:"pop,omitempty"`
	Outcome   string    `json:"outcome,omitempty"`
}

func openAudit(path string, change fleet.Change, r *request) (*audit, error) {
	a := &audit{file: os.Stderr, change: change}
	if path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, problem.Preconditionf("auditLog", "cannot write the audit log, and nothing is changed without one: %v", err)
		}
		a.file = f
	}
	scope := r.scope.pops
	if len(scope) == 0 {
		scope = []string{"*"}
	}
	a.write(auditLine{Event: "begin", Fleet: r.fleet, To: string(change.To), Reason: change.Reason, Scope: scope, Force: change.Force, Selector: r.selector})
	if a.err != nil {
		return nil, problem.Preconditionf("auditLog", "cannot write the audit log, and nothing is changed without one: %v", a.err)
	}
	return a, nil
}

func (a *audit) write(l auditLine) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l.Time, l.ID, l.Principal = time.Now(), a.change.ID, a.change.Principal
	body, err := json.Marshal(l)
	if err == nil {
		_, err = a.file.Write(append(body, '\n'))
	}
	a.err = errors.Join(a.err, err)
}

func (a *audit) result(r fleet.CutoverResult) {
	a.write(auditLine{Event: "pop", Pop: r.Pop, Outcome: outcome(r)})
}

func (a *audit) end(err error) {
	text := "done"
	if err != nil {
		text = err.Error()
	}
	a.write(auditLine{Event: "end", Outcome: text})
}

func (a *audit) close() {
	if a.file != os.Stderr {
		_ = a.file.Close()
	}
}
