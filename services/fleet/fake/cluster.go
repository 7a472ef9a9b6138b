// Package fake has a fleet.Cluster in memory, for tests of what stands on fleet.Centre. Start at Cluster.
package fake

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
)

// Cluster is one PoP with a controller that switches as soon as a change is declared, unless its fields say otherwise. Set
// them before it is used. It is safe for concurrent use.
type Cluster struct {
	// Before is called at the start of every method but Watch with its name; an error is the method's.
	Before func(ctx context.Context, method string) error
	// Blockers of every plan.
	Blockers []fleet.Blocker
	// Controller acts on a fleet whose change was declared. Nil switches at once.
	Controller func(*fleet.Fleet)
	// Now is the clock of the default Controller; nil for time.Now.
	Now func() time.Time

	mu      sync.Mutex
	fleets  map[string]fleet.Fleet
	changed chan struct{}
	err     error
	writes  int
}

var _ fleet.Cluster = (*Cluster)(nil)

// New returns a PoP with these fleets.
func New(fleets ...fleet.Fleet) *Cluster {
	c := &Cluster{fleets: map[string]fleet.Fleet{}, changed: make(chan struct{})}
	for _, f := range fleets {
		c.fleets[f.Name] = f
	}
	return c
}

// Steady is a fleet that serves the colour, with v1 in blue, v2 in green and four pods ready in each.
func Steady(name string, active fleet.Colour) fleet.Fleet {
	return fleet.Fleet{
		Name: name, Active: active, Declared: active, Phase: fleet.Steady, Replicas: 4,
		Blue:       fleet.ColourState{Deployment: name + "-blue", Version: "v1", Desired: 4, Ready: 4},
		Green:      fleet.ColourState{Deployment: name + "-green", Version: "v2", Desired: 4, Ready: 4},
		Generation: 1, ObservedGeneration: 1,
	}
}

// Writes counts what was changed.
func (c *Cluster) Writes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// Update changes a fleet, as a controller or another writer would; a nil function deletes it.
func (c *Cluster) Update(name string, change func(*fleet.Fleet)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fleets[name]
	if change == nil {
		delete(c.fleets, name)
	} else {
		change(&f)
		c.fleets[name] = f
	}
	c.tell()
}

// Fail makes watches report the error, and nil lets them go on.
func (c *Cluster) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.tell()
}

func (c *Cluster) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Cluster) before(ctx context.Context, method string) error {
	if c.Before == nil {
		return nil
	}
	return c.Before(ctx, method)
}

func (c *Cluster) get(name string) (fleet.Fleet, error) {
	f, ok := c.fleets[name]
	if !ok {
		return f, problem.NotFoundf("fleet", "there is no fleet %q", name)
	}
	return f, nil
}

// Fleets implements fleet.Cluster.
func (c *Cluster) Fleets(ctx context.Context, name string) ([]fleet.Fleet, error) {
	if err := c.before(ctx, "Fleets"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if name != "" {
		f, err := c.get(name)
		if err != nil {
			return nil, err
		}
		return []fleet.Fleet{f}, nil
	}
	var out []fleet.Fleet
	for _, name := range slices.Sorted(maps.Keys(c.fleets)) {
		out = append(out, c.fleets[name])
	}
	return out, nil
}

// Watch implements fleet.Cluster.
func (c *Cluster) Watch(ctx context.Context, name string, on func(fleet.WatchEvent)) {
	sent := map[string]bool{}
	for ctx.Err() == nil {
		c.mu.Lock()
		changed, err := c.changed, c.err
		fleets := maps.Clone(c.fleets)
		c.mu.Unlock()
		if err != nil {
			on(fleet.WatchEvent{Err: err})
		} else {
			for n := range sent {
				if _, is := fleets[n]; !is {
					delete(sent, n)
					on(fleet.WatchEvent{Name: n, Deleted: true})
				}
			}
			for n, f := range fleets {
				if name == "" || n == name {
					sent[n] = true
					on(fleet.WatchEvent{Name: n, Fleet: &f})
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// Plan implements fleet.Cluster.
func (c *Cluster) Plan(ctx context.Context, name string, change fleet.Change, _ bool) (fleet.Fleet, fleet.Plan, error) {
	if err := c.before(ctx, "Plan"); err != nil {
		return fleet.Fleet{}, fleet.Plan{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.get(name)
	if err != nil {
		return f, fleet.Plan{}, err
	}
	return f, c.plan(&f, change), nil
}

func (c *Cluster) plan(f *fleet.Fleet, change fleet.Change) fleet.Plan {
	p := fleet.Plan{From: f.Active, To: change.To, Version: f.Colour(change.To).Version, Already: f.Active == change.To && f.Declared == change.To, Blockers: c.Blockers}
	if change.Version != "" && change.Version != p.Version {
		p.Blockers = append([]fleet.Blocker{{Reason: fleet.WrongVersion, Message: "another version"}}, p.Blockers...)
	}
	return p
}

// Declare implements fleet.Cluster.
func (c *Cluster) Declare(ctx context.Context, name string, change fleet.Change) (fleet.Fleet, error) {
	return c.write(ctx, "Declare", name, func(f *fleet.Fleet) (bool, error) {
		if recorded, err := f.Recorded(change); recorded != nil || err != nil {
			return false, err
		}
		f.Declared, f.Change = change.To, &change
		return true, nil
	}, true)
}

// ForceSelector implements fleet.Cluster.
func (c *Cluster) ForceSelector(ctx context.Context, name string, change fleet.Change, admit func(fleet.Fleet, fleet.Plan) (bool, error)) (fleet.Fleet, error) {
	return c.write(ctx, "ForceSelector", name, func(f *fleet.Fleet) (bool, error) {
		if wanted, err := admit(*f, c.plan(f, change)); err != nil || !wanted {
			return false, err
		}
		f.Declared, f.Change, f.Active = change.To, &change, change.To
		return true, nil
	}, false)
}

// Freeze implements fleet.Cluster.
func (c *Cluster) Freeze(ctx context.Context, name string, freeze fleet.Freeze) (fleet.Fleet, error) {
	return c.write(ctx, "Freeze", name, func(f *fleet.Fleet) (bool, error) {
		f.Freezes = append(slices.Clone(f.Freezes), freeze)
		return true, nil
	}, false)
}

// Unfreeze implements fleet.Cluster.
func (c *Cluster) Unfreeze(ctx context.Context, name string, _ fleet.Unfreeze) (fleet.Fleet, error) {
	return c.write(ctx, "Unfreeze", name, func(f *fleet.Fleet) (bool, error) {
		f.Freezes = nil
		return true, nil
	}, false)
}

func (c *Cluster) write(ctx context.Context, method, name string, change func(*fleet.Fleet) (bool, error), control bool) (fleet.Fleet, error) {
	if err := c.before(ctx, method); err != nil {
		return fleet.Fleet{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.get(name)
	if err != nil {
		return f, err
	}
	wrote, err := change(&f)
	if err != nil || !wrote {
		return f, err
	}
	f.Generation++
	c.writes++
	stored := f
	if control {
		c.control(&stored)
	}
	c.fleets[name] = stored
	c.tell()
	return f, nil
}

func (c *Cluster) control(f *fleet.Fleet) {
	if c.Controller != nil {
		c.Controller(f)
		return
	}
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	Switch(f, now())
}

// Switch does what a controller does with a declared change when nothing holds it back.
func Switch(f *fleet.Fleet, at time.Time) {
	if f.LastCutover != nil {
		f.History = append([]fleet.Cutover{*f.LastCutover}, f.History...)
	}
	f.LastCutover = &fleet.Cutover{
		ID: f.Change.ID, Generation: f.Generation, From: f.Active, To: f.Declared, Version: f.Colour(f.Declared).Version, Principal: f.Change.Principal,
		Reason: f.Change.Reason, Forced: f.Change.Force, Rollback: f.Change.Rollback, Outcome: fleet.Running, DeclaredAt: f.Change.At, SwitchedAt: at,
	}
	f.Active, f.Phase, f.ObservedGeneration = f.Declared, fleet.Draining, f.Generation
}

// Await implements fleet.Cluster.
func (c *Cluster) Await(ctx context.Context, since fleet.Fleet, done func(*fleet.Fleet) bool) (fleet.Fleet, error) {
	last := since
	for {
		c.mu.Lock()
		changed := c.changed
		f, err := c.get(since.Name)
		c.mu.Unlock()
		if err != nil {
			return last, err
		}
		if f.Generation >= since.Generation {
			if last = f; done(&last) {
				return last, nil
			}
		}
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-changed:
		}
	}
}
