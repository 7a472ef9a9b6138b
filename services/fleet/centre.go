package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"edgehold.internal/libs/problem"
)

// Cluster is what Centre asks of one PoP's Kubernetes cluster. Its methods are safe for concurrent use and return errors
// of package problem: Unavailable when the API cannot be reached, PermissionDenied when it refuses, NotFound when the PoP
// has no such fleet (the sentence lists those it has).
type Cluster interface {
	// Fleets returns the named fleet, or every fleet of the PoP when the name is empty.
	Fleets(ctx context.Context, name string) ([]Fleet, error)
	// Watch hands on what Fleets would return, then every change, until ctx ends. While the API cannot be reached it hands
	// on one WatchEvent with Err, and all fleets again once it answers. The function must not block.
	Watch(ctx context.Context, name string, on func(WatchEvent))
	// Plan says what the change would do, and changes nothing. When the controller reports that all is well its report will
	// do; what holds the change back, and everything when fresh is set, is read from the cluster itself.
	Plan(ctx context.Context, name string, change Change, fresh bool) (Fleet, Plan, error)
	// Declare writes the colour and the change into the fleet's spec and returns it as stored. A change whose id the spec
	// has already is not written again; the same id with another payload is AlreadyExists. Aborted when other writers won
	// again and again.
	Declare(ctx context.Context, name string, change Change) (Fleet, error)
	// Await calls done with the fleet as it is and after every change, and returns it once done says so. It goes on over
	// outages of the API until ctx ends, and then returns ctx's error with the fleet as it was last seen. It never sees an
	// older fleet than since. LastCutover may have a switch that its controller has yet to record, seen on the Service.
	Await(ctx context.Context, since Fleet, done func(*Fleet) bool) (Fleet, error)
	// ForceSelector plans anew, as Plan does, and gives what it found to admit. If that wants it, it declares the change and
	// then sets the selector of the Service itself, for a PoP whose controller does not; a controller that comes back finds the
	// change and agrees. It returns the fleet as it is then, and an error of admit as it is.
	ForceSelector(ctx context.Context, name string, change Change, admit func(Fleet, Plan) (bool, error)) (Fleet, error)
	// Freeze adds a freeze; its id makes it idempotent as in Declare.
	Freeze(ctx context.Context, name string, freeze Freeze) (Fleet, error)
	// Unfreeze ends all freezes. The same id again changes nothing, even when there are new freezes by then.
	Unfreeze(ctx context.Context, name string, by Unfreeze) (Fleet, error)
}

// Unfreeze says who ends the freezes of a fleet early, and why.
type Unfreeze struct {
	ID, Principal, Reason string
	At                    time.Time
}

// Bounds of what Centre accepts.
const (
	// DefaultDeadline of a cutover whose request has none, and the longest one that may be asked for.
	DefaultDeadline = time.Minute
	MaxDeadline     = time.Hour
	// MaxFreeze: a freeze that outlives its reason is an outage of its own.
	MaxFreeze = 90 * 24 * time.Hour
)

// grace after a cutover's deadline, in which its PoP records that it expired.
const grace = 2 * time.Second

// Limits of a Centre. The zero value has the defaults.
type Limits struct {
	// Parallel is how many PoPs are read or written at once; waiting for a switch does not count. Default 256.
	Parallel int
	// Timeout of one reading or writing step in one PoP. Default 5 s.
	Timeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Centre works on the fleets of all registered PoPs. What goes wrong in one PoP is that PoP's result; a method returns an
// error only when the request itself cannot be served for any PoP. It keeps nothing but the registry.
type Centre struct {
	limits Limits
	open   func(Pop) Cluster
	slots  chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed when sites is replaced
	sites   atomic.Pointer[sites]
}

// sites is the registry in force with its clusters. It is never changed once made.
type sites struct {
	registry *Registry
	clusters map[string]Cluster
}

// NewCentre makes a Centre. It opens each PoP once, without I/O; the connections belong to whoever made open.
func NewCentre(registry *Registry, open func(Pop) Cluster, limits Limits) *Centre {
	if limits.Parallel <= 0 {
		limits.Parallel = 256
	}
	if limits.Timeout <= 0 {
		limits.Timeout = 5 * time.Second
	}
	if limits.Now == nil {
		limits.Now = time.Now
	}
	c := &Centre{limits: limits, open: open, slots: make(chan struct{}, limits.Parallel), changed: make(chan struct{})}
	c.Reload(registry)
	return c
}

// Reload puts another registry in force. Calls under way finish with the one they began with, but for watches: they
// follow.
func (c *Centre) Reload(registry *Registry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := &sites{registry: registry, clusters: make(map[string]Cluster, len(registry.Pops))}
	for _, p := range registry.Pops {
		next.clusters[p.Name] = c.open(p)
	}
	c.sites.Store(next)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Registry is the one in force.
func (c *Centre) Registry() *Registry { return c.sites.Load().registry }

// PopFleets is what one PoP answered.
type PopFleets struct {
	Pop    Pop
	Fleets []Fleet
	Err    error
}

// Pops asks every registered PoP whether its API answers.
func (c *Centre) Pops(ctx context.Context) []PopFleets {
	s := c.sites.Load()
	return c.list(ctx, s, s.registry.Pops, "")
}

// List returns one entry per PoP in scope, in the registry's order, with the named fleet or, for an empty name, with all
// of its fleets. NotFound when every PoP says that it has no such fleet.
func (c *Centre) List(ctx context.Context, name string, scope Scope) ([]PopFleets, error) {
	s := c.sites.Load()
	pops, err := s.registry.Select(scope)
	if err != nil {
		return nil, err
	}
	results := c.list(ctx, s, pops, name)
	errs := make([]error, len(results))
	for i, r := range results {
		errs[i] = r.Err
	}
	return results, nowhere(name, errs)
}

func (c *Centre) list(ctx context.Context, s *sites, pops []Pop, name string) []PopFleets {
	return each(pops, func(p Pop) PopFleets {
		r := PopFleets{Pop: p}
		r.Err = c.step(ctx, p, func(ctx context.Context) (err error) {
			r.Fleets, err = s.clusters[p.Name].Fleets(ctx, name)
			return err
		})
		for i := range r.Fleets {
			r.Fleets[i].Pop = p.Name
		}
		return r
	})
}

// nowhere is the error of a call when all of its PoPs say that they have no such fleet: then the name is wrong, and
// twenty-one times the same problem would hide it.
func nowhere(name string, errs []error) error {
	for _, err := range errs {
		if problem.KindOf(err) != problem.NotFound {
			return nil
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return problem.NotFoundf("fleet", "no PoP in scope has a fleet %q; the first says: %v", name, errs[0])
}

// PlanRequest asks what a cutover would do.
type PlanRequest struct {
	Fleet string
	Scope Scope
	// To is the colour to serve; None for the one that RollbackTarget finds.
	To Colour
	// Version that the target must have; empty for any.
	Version string
	// Force plans as if forced.
	Force bool
	// Fresh believes no controller, as ForceSelector does.
	Fresh bool
}

// Plan says what CutOver would do in each PoP in scope, in the registry's order, and returns the colour that was asked
// for or found. A fleet or a version that no PoP has is NotFound; no colour to be found is FailedPrecondition.
func (c *Centre) Plan(ctx context.Context, r PlanRequest) (Colour, []Plan, error) {
	s := c.sites.Load()
	pops, err := s.registry.Select(r.Scope)
	if err != nil {
		return None, nil, err
	}
	if r.To == None {
		results, err := c.List(ctx, r.Fleet, r.Scope)
		if err != nil {
			return None, nil, err
		}
		if r.To, err = RollbackTarget(results); err != nil {
			return None, nil, err
		}
	}
	change := Change{To: r.To, Version: r.Version, Force: r.Force, At: c.limits.Now()}
	fleets := make([]Fleet, len(pops))
	plans := eachIndex(pops, func(i int, p Pop) Plan {
		plan := Plan{To: r.To}
		plan.Err = c.step(ctx, p, func(ctx context.Context) error {
			f, found, err := s.clusters[p.Name].Plan(ctx, r.Fleet, change, r.Fresh)
			if err == nil {
				fleets[i], plan = f, found
			}
			return err
		})
		plan.Pop = p.Name
		return plan
	})
	errs := make([]error, len(plans))
	versions := map[string]bool{}
	for i, p := range plans {
		errs[i] = p.Err
		if p.Err == nil {
			versions[fleets[i].Blue.Version], versions[fleets[i].Green.Version] = true, true
		}
	}
	if err := nowhere(r.Fleet, errs); err != nil {
		return None, nil, err
	}
	if r.Version != "" && len(versions) > 0 && !versions[r.Version] {
		return None, nil, noVersion("no PoP in scope", r.Version, versions)
	}
	return r.To, plans, nil
}

func noVersion(where, version string, have map[string]bool) error {
	var names []string
	for v := range have {
		if v != "" {
			names = append(names, v)
		}
	}
	slices.Sort(names)
	return problem.NotFoundf("version", "%s has version %q in either colour; there is %s", where, version, list(names))
}

// CutoverResult is how far a cutover came in one PoP.
type CutoverResult struct {
	Pop   string
	Fleet Fleet
	// Cutover is nil when nothing had to be done, and when the PoP could not be reached.
	Cutover *Cutover
	// Already: the colour was served before the call. What else was declared there is withdrawn.
	Already bool
	// Err: FailedPrecondition, preflight refused it and nothing was changed, or it expired; DeadlineExceeded, it is
	// declared and the PoP goes on by itself; Aborted, a later declaration replaced it.
	Err error
}

// CutOver declares the change in every PoP in scope at once and waits until each of their Services has switched. Report,
// if not nil, gets each result as it comes, from several goroutines. The results are in the registry's order. A change
// whose id a PoP knows already goes on waiting for that one.
func (c *Centre) CutOver(ctx context.Context, name string, scope Scope, change Change, report func(CutoverResult)) ([]CutoverResult, error) {
	return c.change(ctx, scope, change, report, func(ctx context.Context, p Pop, cluster Cluster, change Change) CutoverResult {
		return c.cutOver(ctx, p, cluster, name, change)
	})
}

// ForceSelector is CutOver past controllers that are dead: it declares the change and sets each Service's selector
// itself. Preflight reads the cluster anew and holds it back, unless the change is forced.
func (c *Centre) ForceSelector(ctx context.Context, name string, scope Scope, change Change, report func(CutoverResult)) ([]CutoverResult, error) {
	return c.change(ctx, scope, change, report, func(ctx context.Context, p Pop, cluster Cluster, change Change) CutoverResult {
		return c.forceSelector(ctx, p, cluster, name, change)
	})
}

func (c *Centre) change(ctx context.Context, scope Scope, change Change, report func(CutoverResult),
	in func(context.Context, Pop, Cluster, Change) CutoverResult) ([]CutoverResult, error) {
	s := c.sites.Load()
	pops, err := s.registry.Select(scope)
	if err != nil {
		return nil, err
	}
	if change.At.IsZero() {
		change.At = c.limits.Now()
	}
	if change.Deadline.IsZero() {
		change.Deadline = change.At.Add(DefaultDeadline)
	}
	if err := change.Validate(); err != nil {
		return nil, err
	}
	return each(pops, func(p Pop) CutoverResult {
		r := in(ctx, p, s.clusters[p.Name], change)
		r.Pop, r.Fleet.Pop = p.Name, p.Name
		if report != nil {
			report(r)
		}
		return r
	}), nil
}

// Validate says Invalid with the field of the request that cannot be.
func (c *Change) Validate() error {
	switch {
	case c.To != Blue && c.To != Green:
		return problem.Invalidf("to", "%q is not a colour; use %s or %s", c.To, Blue, Green)
	case c.ID == "" || len(c.ID) > 256:
		return problem.Invalidf("idempotency_key", "has %d bytes; 1 to 256 are needed", len(c.ID))
	case strings.TrimSpace(c.Reason) == "" || len(c.Reason) > 512:
		return problem.Invalidf("reason", "has %d bytes; say why in 1 to 512", len(c.Reason))
	case len(c.Version) > 128:
		return problem.Invalidf("version", "has %d bytes; at most 128 are allowed", len(c.Version))
	case c.Deadline.Sub(c.At) <= 0 || c.Deadline.Sub(c.At) > MaxDeadline:
		return problem.Invalidf("deadline", "%s is not allowed; use more than 0 and at most %s", c.Deadline.Sub(c.At), MaxDeadline)
	}
	return nil
}

// Recorded finds what the fleet knows of the change's id: nil when nothing, AlreadyExists when it belongs to another
// payload. A change that is declared and not yet taken up by the controller has a record without times.
func (f *Fleet) Recorded(change Change) (*Cutover, error) {
	records := f.History
	if f.LastCutover != nil {
		records = append([]Cutover{*f.LastCutover}, f.History...)
	}
	for _, r := range records {
		if r.ID == change.ID {
			return &r, same(change, r.To, r.Version, r.Reason, r.Forced)
		}
	}
	if d := f.Change; d != nil && d.ID == change.ID {
		return &Cutover{ID: d.ID, From: f.Active, To: f.Declared, Version: d.Version, Principal: d.Principal, Reason: d.Reason,
			Forced: d.Force, Rollback: d.Rollback, Outcome: Running, DeclaredAt: d.At}, same(change, f.Declared, d.Version, d.Reason, d.Force)
	}
	return nil, nil
}

func same(c Change, to Colour, version, reason string, forced bool) error {
	var what string
	switch {
	case c.To != to:
		what = fmt.Sprintf("to %s", to)
	case c.Version != version && c.Version != "":
		what = fmt.Sprintf("for version %q", version)
	case c.Reason != reason:
		what = fmt.Sprintf("with the reason %q", reason)
	case c.Force != forced:
		what = fmt.Sprintf("with force=%t", forced)
	default:
		return nil
	}
	return problem.New(problem.AlreadyExists, "idempotency_key", "%q was used before for a cutover %s; use a new key for another request", c.ID, what).With("id", c.ID)
}

func (c *Centre) cutOver(ctx context.Context, p Pop, cluster Cluster, name string, change Change) (r CutoverResult) {
	var plan Plan
	r.Err = c.step(ctx, p, func(ctx context.Context) (err error) {
		r.Fleet, plan, err = cluster.Plan(ctx, name, change, false)
		if err != nil {
			return err
		}
		if r.Cutover, err = r.Fleet.Recorded(change); r.Cutover != nil || err != nil {
			return err
		}
		if plan.Already {
			r.Already = true
			return nil
		}
		if err := refused(p.Name, &r.Fleet, plan, change); err != nil {
			return err
		}
		r.Fleet, err = cluster.Declare(ctx, name, change)
		return err
	})
	if r.Err != nil || r.Already {
		return r
	}

	declared := r.Fleet
	// In terms of the time left and not of the clock, which may jump.
	wait, cancel := context.WithTimeout(ctx, change.Deadline.Sub(c.limits.Now())+grace)
	defer cancel()
	r.Fleet, r.Err = cluster.Await(wait, declared, func(f *Fleet) bool {
		done, _ := switched(p.Name, f, &declared, change)
		return done
	})
	done, err := switched(p.Name, &r.Fleet, &declared, change)
	r.Cutover, _ = r.Fleet.Recorded(change)
	if done {
		if r.Err = err; err == nil && (r.Cutover == nil || r.Cutover.SwitchedAt.IsZero()) {
			r.Already, r.Cutover = true, nil
		}
		return r
	}
	if errors.Is(r.Err, context.DeadlineExceeded) || errors.Is(r.Err, context.Canceled) {
		r.Err = problem.New(problem.DeadlineExceeded, "", "%s is declared in PoP %s and had not switched when the wait ended (phase %s%s); the PoP goes on by itself until %s: ask again with the same key, and if its controller is dead force the selector",
			change.To, p.Name, cmp.Or(string(r.Fleet.Phase), "unknown"), detail(r.Fleet.Message), change.Deadline.UTC().Format(time.RFC3339)).With("pop", p.Name)
	}
	return r
}

func detail(message string) string {
	if message == "" {
		return ""
	}
	return ": " + message
}

// switched says whether the change is through or never will be, and then why not.
func switched(pop string, f, declared *Fleet, change Change) (bool, error) {
	if r, err := f.Recorded(change); r != nil && err == nil {
		switch {
		case r.Outcome == Expired:
			return true, problem.Preconditionf("", "PoP %s did not switch to %s before the deadline and left everything as it was%s", pop, change.To, detail(r.Message)).With("pop", pop)
		case r.Outcome == Superseded:
			return true, superseded(pop, f, change)
		case !r.SwitchedAt.IsZero() || r.Outcome == Completed || r.Outcome == Reverted:
			return true, nil
		}
	}
	switch {
	case f.Generation < declared.Generation:
		return false, nil // older than what was declared
	case f.Change == nil || f.Change.ID != change.ID:
		return true, superseded(pop, f, change)
	case f.ObservedGeneration >= declared.Generation && f.Phase == Steady && f.Active == change.To:
		return true, nil // it was served by the time that the controller looked
	}
	return false, nil
}

func superseded(pop string, f *Fleet, change Change) error {
	by := "a writer that gave no id"
	if f.Change != nil {
		by = fmt.Sprintf("%q of %s (%s)", f.Change.ID, cmp.Or(f.Change.Principal, "unknown"), f.Change.Reason)
	}
	return problem.New(problem.Aborted, "", "in PoP %s the cutover to %s was replaced by %s before it had switched", pop, change.To, by).With("pop", pop)
}

func (c *Centre) forceSelector(ctx context.Context, p Pop, cluster Cluster, name string, change Change) (r CutoverResult) {
	r.Err = c.step(ctx, p, func(ctx context.Context) error {
		made := Cutover{ID: change.ID, To: change.To, Principal: change.Principal, Reason: change.Reason, Forced: change.Force, Rollback: change.Rollback,
			Outcome: Running, Message: "the selector was set without the controller", DeclaredAt: change.At}
		after, err := cluster.ForceSelector(ctx, name, change, func(before Fleet, plan Plan) (bool, error) {
			r.Fleet = before
			made.From, made.Version = before.Active, plan.Version
			if _, err := before.Recorded(change); err != nil {
				return false, err
			}
			if r.Already = before.Active == change.To && before.Declared == change.To; r.Already {
				return false, nil
			}
			return true, refused(p.Name, &before, plan, change)
		})
		if err != nil || r.Already {
			return err
		}
		made.Generation, made.SwitchedAt = after.Generation, c.limits.Now()
		r.Fleet, r.Cutover = after, &made
		return nil
	})
	return r
}

// refused is FailedPrecondition when a blocker holds the change back.
func refused(pop string, f *Fleet, plan Plan, change Change) error {
	if have := map[string]bool{f.Blue.Version: true, f.Green.Version: true}; change.Version != "" && !have[change.Version] {
		return noVersion("no Deployment of fleet "+f.Name+" in PoP "+pop, change.Version, have)
	}
	var reasons, sentences []string
	overridable := true
	for _, b := range plan.Blockers {
		if b.Overridable && change.Force {
			continue
		}
		overridable = overridable && b.Overridable
		reasons = append(reasons, b.Reason)
		sentences = append(sentences, b.Message)
	}
	if len(reasons) == 0 {
		return nil
	}
	hint := ""
	if overridable {
		hint = "; the role breakglass may force it"
	}
	return problem.Preconditionf("", "PoP %s would not cut over to %s, and nothing was changed: %s%s", pop, change.To, strings.Join(sentences, "; "), hint).
		With("pop", pop).With("blockers", strings.Join(reasons, ","))
}

// Freeze forbids cutovers of the fleet in every PoP in scope until freeze.Until.
func (c *Centre) Freeze(ctx context.Context, name string, scope Scope, freeze Freeze) ([]PopFleets, error) {
	now := c.limits.Now()
	if freeze.From.IsZero() {
		freeze.From = now
	}
	switch {
	case strings.TrimSpace(freeze.Reason) == "" || len(freeze.Reason) > 512:
		return nil, problem.Invalidf("reason", "has %d bytes; say why in 1 to 512", len(freeze.Reason))
	case freeze.ID == "" || len(freeze.ID) > 256:
		return nil, problem.Invalidf("idempotency_key", "has %d bytes; 1 to 256 are needed", len(freeze.ID))
	case !freeze.Until.After(now) || !freeze.Until.After(freeze.From):
		return nil, problem.Invalidf("until", "%s is not in the future", freeze.Until.UTC().Format(time.RFC3339))
	case freeze.Until.Sub(now) > MaxFreeze:
		return nil, problem.Invalidf("until", "%s is more than %d days away; freeze for less and renew it while the reason holds", freeze.Until.UTC().Format(time.RFC3339), int(MaxFreeze.Hours()/24))
	}
	return c.write(ctx, name, scope, func(ctx context.Context, cluster Cluster) (Fleet, error) { return cluster.Freeze(ctx, name, freeze) })
}

// Unfreeze ends the freezes of the fleet in every PoP in scope.
func (c *Centre) Unfreeze(ctx context.Context, name string, scope Scope, by Unfreeze) ([]PopFleets, error) {
	if by.At.IsZero() {
		by.At = c.limits.Now()
	}
	switch {
	case strings.TrimSpace(by.Reason) == "" || len(by.Reason) > 512:
		return nil, problem.Invalidf("reason", "has %d bytes; say why in 1 to 512", len(by.Reason))
	case by.ID == "" || len(by.ID) > 256:
		return nil, problem.Invalidf("idempotency_key", "has %d bytes; 1 to 256 are needed", len(by.ID))
	}
	return c.write(ctx, name, scope, func(ctx context.Context, cluster Cluster) (Fleet, error) { return cluster.Unfreeze(ctx, name, by) })
}

func (c *Centre) write(ctx context.Context, name string, scope Scope, do func(context.Context, Cluster) (Fleet, error)) ([]PopFleets, error) {
	s := c.sites.Load()
	pops, err := s.registry.Select(scope)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(pops))
	results := eachIndex(pops, func(i int, p Pop) PopFleets {
		r := PopFleets{Pop: p}
		r.Err = c.step(ctx, p, func(ctx context.Context) error {
			f, err := do(ctx, s.clusters[p.Name])
			if err == nil {
				f.Pop = p.Name
				r.Fleets = []Fleet{f}
			}
			return err
		})
		errs[i] = r.Err
		return r
	})
	return results, nowhere(name, errs)
}

// step runs one reading or writing step in a PoP, with a slot and a timeout of its own.
func (c *Centre) step(ctx context.Context, p Pop, do func(context.Context) error) error {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return problem.New(problem.DeadlineExceeded, "", "PoP %s was not asked before the call ended", p.Name)
	}
	bounded, cancel := context.WithTimeout(ctx, c.limits.Timeout)
	defer cancel()
	err := do(bounded)
	var said *problem.Error
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && !errors.As(err, &said) {
		return problem.Unavailablef("the Kubernetes API of PoP %s (context %s) did not answer within %s; check the network to it", p.Name, p.Context, c.limits.Timeout)
	}
	return err
}

// each runs do for all of them at once, and keeps their order.
func each[R any](pops []Pop, do func(Pop) R) []R {
	return eachIndex(pops, func(_ int, p Pop) R { return do(p) })
}

func eachIndex[R any](pops []Pop, do func(int, Pop) R) []R {
	results := make([]R, len(pops))
	var wg sync.WaitGroup
	for i, p := range pops {
		wg.Go(func() { results[i] = do(i, p) })
	}
	wg.Wait()
	return results
}
