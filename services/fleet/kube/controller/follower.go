package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/drain"
	"edgehold.internal/services/fleet/scrape"
	"k8s.io/apimachinery/pkg/types"
)

// How often pods are asked.
const (
	followEvery = 200 * time.Millisecond // the connections of a colour that somebody waits for
	sampleEvery = time.Second            // the traffic, then and shortly after
	idleEvery   = 10 * time.Second       // everything else
	askTimeout  = time.Second
)

// pod is what a follower knows of a pod.
type pod struct {
	name  string
	uid   types.UID
	host  string
	ready bool
}

// target is what a follower shall see to.
type target struct {
	orders  fleet.Orders
	drain   fleet.DrainSpec
	metrics *fleet.MetricsSpec
	pods    map[fleet.Colour][]pod
}

// readings are what a follower found.
type readings struct {
	blue, green    fleet.Reading
	traffic        *fleet.Traffic
	trafficColour  fleet.Colour
	trafficSince   time.Duration
	trafficProblem string
}

// follower asks the pods of one fleet, and tells them, in a goroutine of its own, so that a pod that does not answer never
// holds up a decision. It is level-triggered: what a pod says of itself is compared with what shall hold, every time.
type follower struct {
	now    func() fleet.Clock
	dial   drain.Dialer
	scrape *scrape.Scraper
	slots  chan struct{}
	// changed is called when there is something new to decide on.
	changed func()

	cancel context.CancelFunc
	done   chan struct{}
	kick   chan struct{}

	mu     sync.Mutex
	target target
	found  readings
	// ordered: the target has changed since the last round, so its readings are news whatever they say.
	ordered bool
	// abort ends the round under way: what it asks for is no longer what shall hold.
	abort context.CancelFunc

	// Used by the goroutine alone.
	method    drain.Method
	methodOf  fleet.DrainSpec // without what the method does not ask
	meter     fleet.Meter
	sampledAt time.Duration
	reset     map[types.UID]string // pod → ResetID that it has done
	resets    int64
	resetID   string
}

func newFollower(now func() fleet.Clock, dial drain.Dialer, scrape *scrape.Scraper, slots chan struct{}, changed func()) *follower {
	return &follower{now: now, dial: dial, scrape: scrape, slots: slots, changed: changed, cancel: func() {}, kick: make(chan struct{}, 1),
		// Whoever worked here before may have left pods that drain.
		ordered: true, reset: map[types.UID]string{}}
}

func (f *follower) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.done = cancel, make(chan struct{})
	go f.run(ctx)
}

// stop ends the goroutine and waits for it.
func (f *follower) stop() {
	f.cancel()
	<-f.done
}

// see returns the readings of the last round.
func (f *follower) see() readings {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.found
}

// set says what shall hold from now on. Other orders are followed at once.
func (f *follower) set(t target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.target
	f.target = t
	if reflect.DeepEqual(before, t) {
		return
	}
	f.ordered = true
	if (before.orders.Drain != t.orders.Drain || before.orders.Traffic != t.orders.Traffic) && f.abort != nil {
		f.abort()
	}
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

func (f *follower) run(ctx context.Context) {
	defer close(f.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.kick:
		}
		timer.Reset(f.round(ctx))
	}
}

// round asks the pods that are due and says when the next round is.
func (f *follower) round(ctx context.Context) time.Duration {
	f.mu.Lock()
	t, before, ordered := f.target, f.found, f.ordered
	f.ordered = false
	ctx, cancel := context.WithTimeout(ctx, 4*askTimeout)
	f.abort = cancel
	f.mu.Unlock()
	defer cancel()

	if of := (fleet.DrainSpec{Method: t.drain.Method, Port: t.drain.Port, Path: t.drain.Path}); f.methodOf != of {
		f.release(ctx, &t, &before)
		f.methodOf = of
		// An unknown method cannot be stored: the CRD has them listed.
		f.method, _ = drain.New(of, f.dial)
		before.blue, before.green = fleet.Reading{}, fleet.Reading{}
	}
	found := before
	at := f.now().Uptime
	var wait sync.WaitGroup
	due := func(c fleet.Colour, last *fleet.Reading) bool {
		return ordered || t.orders.Follow == c || t.orders.Drain != c && last.Draining > 0 || at-last.At >= idleEvery*3/4
	}
	if f.method != nil {
		if due(fleet.Blue, &before.blue) {
			wait.Go(func() { found.blue = f.read(ctx, &t, fleet.Blue, at) })
		}
		if due(fleet.Green, &before.green) {
			wait.Go(func() { found.green = f.read(ctx, &t, fleet.Green, at) })
		}
	}
	sample := t.metrics != nil && t.orders.Traffic != fleet.None &&
		(!t.orders.Fast || at-f.sampledAt >= sampleEvery*3/4 || before.trafficColour != t.orders.Traffic || before.trafficSince != t.orders.Since)
	if sample {
		wait.Go(func() { f.sample(ctx, &t, &found, at) })
	}
	wait.Wait()

	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil && !reflect.DeepEqual(f.target.orders, t.orders) {
		return 0 // broken off for other orders, which are followed at once
	}
	f.found = found
	// An instant alone is no news.
	timeless := func(r readings) readings { r.blue.At, r.green.At = 0, 0; return r }
	if ordered || !reflect.DeepEqual(timeless(before), timeless(found)) {
		f.changed()
	}
	switch {
	case t.orders.Follow != fleet.None:
		return followEvery
	case t.orders.Fast, t.orders.Drain != fleet.Blue && found.blue.Draining > 0, t.orders.Drain != fleet.Green && found.green.Draining > 0:
		return spread(sampleEvery)
	}
	return spread(idleEvery)
}

// spread takes up to a fifth off, so that hundreds of fleets do not ask at the same moment.
func spread(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d)/5)) }

// release tells pods by the method that was used until now to stop draining: no other one may speak to them again.
func (f *follower) release(ctx context.Context, t *target, last *readings) {
	var wait sync.WaitGroup
	for c, draining := range map[fleet.Colour]int{fleet.Blue: last.blue.Draining, fleet.Green: last.green.Draining} {
		if draining == 0 {
			continue
		}
		for _, p := range t.pods[c] {
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, askTimeout)
				defer cancel()
				_ = f.method.Undrain(ctx, p.host) // it is gone, or it will be asked again by whoever uses that method
			})
		}
	}
	wait.Wait()
}

// answer of one pod.
type answer struct {
	drain.Connections
	err    error
	missed bool // not reset yet
}

func (f *follower) read(ctx context.Context, t *target, c fleet.Colour, at time.Duration) fleet.Reading {
	pods := t.pods[c]
	shall := t.orders.Drain == c
	resetID := ""
	if shall {
		resetID = t.orders.ResetID
	}
	answers := make([]answer, len(pods))
	var wait sync.WaitGroup
	for i, p := range pods {
		wait.Go(func() {
			if !f.slot(ctx) {
				answers[i].err = ctx.Err()
				return
			}
			defer func() { <-f.slots }()
			answers[i] = f.ask(ctx, p, shall, resetID)
		})
	}
	wait.Wait()
	r := fleet.Reading{At: at, Pods: len(pods)}
	all := true
	for i, a := range answers {
		all = all && !a.missed
		if a.Draining {
			r.Draining++ // also one that said so and then could not be told to stop
		}
		if a.err != nil {
			if r.Unknown++; r.Problem == "" {
				r.Problem = fmt.Sprintf("pod %s: %v", pods[i].name, a.err)
			}
			continue
		}
		r.Open += a.Open
		if a.LastAccepted.After(r.LastAccepted) {
			r.LastAccepted = a.LastAccepted
		}
	}
	if resetID != "" {
		f.mu.Lock()
		if r.ResetID, r.ResetDone = resetID, all; f.resetID == resetID {
			r.Reset = f.resets
		}
		f.mu.Unlock()
	}
	return r
}

func (f *follower) slot(ctx context.Context) bool {
	select {
	case f.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// ask reads one pod, and tells it what shall hold when it does not.
func (f *follower) ask(ctx context.Context, p pod, shall bool, resetID string) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a.missed = resetID != ""
	if a.Connections, a.err = f.method.Read(ctx, p.host); a.err != nil {
		return a
	}
	if a.Draining != shall {
		tell := f.method.Undrain
		if shall {
			tell = f.method.Drain
		}
		if err := tell(ctx, p.host); err == nil {
			a.Draining = shall
		} else if !errors.Is(err, drain.ErrCannot) {
			a.err = err
			return a
		}
	}
	if resetID == "" {
		return a
	}
	if f.hasReset(p.uid, resetID) {
		a.missed = false
		return a
	}
	n, err := f.method.Reset(ctx, p.host)
	if err != nil {
		a.err = err
		return a
	}
	f.noteReset(p.uid, resetID, n)
	a.missed = false
	// What is open now is what the pod could not close.
	a.Connections, a.err = f.method.Read(ctx, p.host)
	return a
}

func (f *follower) hasReset(uid types.UID, id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.resetID != id {
		f.resetID, f.reset, f.resets = id, map[types.UID]string{}, 0
	}
	return f.reset[uid] == id
}

func (f *follower) noteReset(uid types.UID, id string, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reset[uid] = id
	f.resets += n
}

// sample reads the counters of the pods that serve.
func (f *follower) sample(ctx context.Context, t *target, found *readings, at time.Duration) {
	var pods []pod
	for _, p := range t.pods[t.orders.Traffic] {
		if p.ready {
			pods = append(pods, p)
		}
	}
	counters := make([]fleet.Counters, len(pods))
	errs := make([]error, len(pods))
	var wait sync.WaitGroup
	for i, p := range pods {
		wait.Go(func() {
			if !f.slot(ctx) {
				errs[i] = ctx.Err()
				return
			}
			defer func() { <-f.slots }()
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			counters[i], errs[i] = f.scrape.Read(ctx, p.host, t.metrics)
		})
	}
	wait.Wait()
	f.sampledAt = at
	found.trafficColour, found.trafficSince = t.orders.Traffic, t.orders.Since
	byName := make(map[string]fleet.Counters, len(pods))
	found.trafficProblem = ""
	if len(pods) == 0 {
		found.trafficProblem = fmt.Sprintf("%s has no ready pod whose counters could be read", t.orders.Traffic)
	}
	for i, p := range pods {
		if errs[i] != nil {
			found.trafficProblem = fmt.Sprintf("pod %s: %v", p.name, errs[i])
			break
		}
		byName[p.name] = counters[i]
	}
	if found.trafficProblem != "" {
		f.meter.Break()
		found.traffic = nil
		return
	}
	f.meter.Add(at, t.orders.Traffic, t.orders.Since, byName)
	found.traffic = f.meter.Traffic(f.now().Now)
}

// leave ends the goroutine and tells every pod that drains to stop, once, because nobody follows the fleet any longer.
func (f *follower) leave() {
	f.stop()
	f.mu.Lock()
	drained := f.target.orders.Drain != fleet.None || f.found.blue.Draining+f.found.green.Draining > 0
	f.target.orders, f.ordered = fleet.Orders{}, true
	f.mu.Unlock()
	if drained {
		f.round(context.Background())
	}
}
