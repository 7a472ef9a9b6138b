package fleet

import (
	"context"
	"slices"
	"sync"

	"edgehold.internal/libs/problem"
)

// WatchEvent is a fleet as it is now, its end, or the reason why a PoP's fleets are not known.
type WatchEvent struct {
	Pop, Name string
	// Fleet is nil when the fleet is deleted and when the PoP has a problem.
	Fleet   *Fleet
	Deleted bool
	// Err holds for the whole PoP, until its next WatchEvent.
	Err error
}

// Watch sends what List would return, then every change, until ctx ends or send fails, and returns that error. A slow
// send misses states in between, never the last one: what waits is at most one event per fleet. When the registry is
// reloaded the watch follows it.
func (c *Centre) Watch(ctx context.Context, name string, scope Scope, send func(WatchEvent) error) error {
	if _, err := c.Registry().Select(scope); err != nil {
		return err
	}
	box := newMailbox()
	type watch struct {
		pop    Pop
		cancel context.CancelFunc
	}
	var wg sync.WaitGroup
	running := map[string]watch{}
	defer func() {
		for _, w := range running {
			w.cancel()
		}
		wg.Wait()
	}()
	for {
		c.mu.Lock()
		s, changed := c.sites.Load(), c.changed
		c.mu.Unlock()
		wanted := map[string]Pop{}
		for _, p := range s.registry.Pops {
			if scope.All || slices.Contains(scope.Pops, p.Name) {
				wanted[p.Name] = p
			}
		}
		for pop, w := range running {
			if wanted[pop] != w.pop {
				w.cancel()
				delete(running, pop)
				box.forget(pop)
			}
		}
		for _, p := range s.registry.Pops {
			if _, on := running[p.Name]; on || wanted[p.Name] != p {
				continue
			}
			inner, cancel := context.WithCancel(ctx)
			running[p.Name] = watch{p, cancel}
			wg.Go(func() {
				s.clusters[p.Name].Watch(inner, name, func(e WatchEvent) {
					e.Pop = p.Name
					if e.Fleet != nil {
						f := *e.Fleet
						f.Pop = p.Name
						e.Fleet, e.Name = &f, f.Name
					}
					box.put(inner, e)
				})
			})
		}
		for following := true; following; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
				following = false
			case <-box.wake:
				for e, ok := box.take(); ok; e, ok = box.take() {
					if err := send(e); err != nil {
						return err
					}
				}
			}
		}
	}
}

// mailbox keeps the last event of each fleet that was not sent yet.
type mailbox struct {
	wake chan struct{}

	mu      sync.Mutex
	order   []slot
	waiting map[slot]WatchEvent
	// sent are the fleets that the reader has, by PoP.
	sent map[string]map[string]bool
}

// slot is a fleet, or the PoP itself when the name is empty.
type slot struct{ pop, name string }

func newMailbox() *mailbox {
	return &mailbox{wake: make(chan struct{}, 1), waiting: map[slot]WatchEvent{}, sent: map[string]map[string]bool{}}
}

// put replaces what waits for the same fleet. It goes to the end of the queue: a PoP's problem and its recovery must not
// change places. Nothing is put for a watch that has ended.
func (b *mailbox) put(ctx context.Context, e WatchEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	at := slot{e.Pop, e.Name}
	if e.Err != nil {
		at.name = ""
	} else {
		b.drop(slot{e.Pop, ""})
	}
	b.drop(at)
	b.order = append(b.order, at)
	b.waiting[at] = e
	b.ring()
}

func (b *mailbox) take() (WatchEvent, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.order) == 0 {
		return WatchEvent{}, false
	}
	at := b.order[0]
	e := b.waiting[at]
	b.order = b.order[1:]
	delete(b.waiting, at)
	switch {
	case e.Deleted:
		delete(b.sent[e.Pop], e.Name)
	case e.Fleet != nil:
		if b.sent[e.Pop] == nil {
			b.sent[e.Pop] = map[string]bool{}
		}
		b.sent[e.Pop][e.Name] = true
	}
	return e, true
}

// forget drops what waits for a PoP that is registered no longer, or elsewhere, and deletes what the reader has of it.
func (b *mailbox) forget(pop string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.order = slices.DeleteFunc(b.order, func(s slot) bool {
		if s.pop == pop {
			delete(b.waiting, s)
		}
		return s.pop == pop
	})
	for name := range b.sent[pop] {
		at := slot{pop, name}
		b.order = append(b.order, at)
		b.waiting[at] = WatchEvent{Pop: pop, Name: name, Deleted: true}
	}
	if len(b.sent[pop]) == 0 {
		at := slot{pop, ""}
		b.order = append(b.order, at)
		b.waiting[at] = WatchEvent{Pop: pop, Err: problem.NotFoundf("", "PoP %q is registered no longer", pop)}
	}
	b.ring()
}

func (b *mailbox) drop(at slot) {
	if _, is := b.waiting[at]; is {
		delete(b.waiting, at)
		b.order = slices.DeleteFunc(b.order, func(s slot) bool { return s == at })
	}
}

func (b *mailbox) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
