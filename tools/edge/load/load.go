package load

import (
	"context"
	"sync"
	"time"
)

// Run is traffic under way.
type Run struct {
	cfg   Config
	start time.Time
	// life ends when everything in flight is accounted for; the context given to Start ends the sending.
	life      context.Context
	end       context.CancelFunc
	stop      context.CancelFunc
	sent      chan struct{}  // closed when nothing more is sent and all is accounted for but streams
	wg        sync.WaitGroup // connections and streams
	targets   []*target
	latencies latencies

	once   sync.Once
	result Result

	failures struct {
		mu   sync.Mutex
		kept []Failure
		left int64
	}
}

// Start begins to send; errors are problem.Invalid. The end of ctx stops the sending, as Stop does; Stop must be called in any case.
func Start(ctx context.Context, cfg Config) (*Run, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Run{cfg: cfg, start: time.Now(), latencies: latencies{width: bucketWidth}}
	r.life, r.end = context.WithCancel(context.WithoutCancel(ctx))
	ctx, r.stop = context.WithCancel(ctx)
	for i, cfg := range cfg.Targets {
		t := newTarget(r, cfg, r.cfg.Seed+uint64(i)*0x9e3779b97f4a7c15)
		r.targets = append(r.targets, t)
		for range r.cfg.Streams {
			r.spawn(func() { t.stream(ctx, KindStream) })
		}
		for range r.cfg.H2Streams {
			r.spawn(func() { t.stream(ctx, KindH2Stream) })
		}
	}
	r.sent = make(chan struct{})
	go r.send(ctx)
	return r, nil
}

// send sends what the schedules say until ctx ends, then waits for what is in flight. One goroutine does it for all targets,
// because that wakes the process up the least.
func (r *Run) send(ctx context.Context) {
	defer close(r.sent)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var swept time.Duration
	for ctx.Err() == nil {
		now := r.now()
		next := now + sweepEvery
		for _, t := range r.targets {
			next = min(next, t.due(now))
		}
		if now-swept >= sweepEvery {
			swept = now
			r.sweep(now)
		}
		timer.Reset(max(next-r.now(), tick))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	for r.pending() > 0 { // ends by the timeouts
		timer.Reset(sweepEvery / 10)
		<-timer.C
		r.sweep(r.now())
	}
}

func (r *Run) sweep(now time.Duration) {
	for _, t := range r.targets {
		t.sweep(now)
	}
}

func (r *Run) pending() (n int64) {
	for _, t := range r.targets {
		n += t.pending.Load()
	}
	return n
}

func (r *Run) now() time.Duration { return time.Since(r.start) }

func (r *Run) at(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return r.start.Add(d).Round(0)
}

func (r *Run) spawn(f func()) { r.wg.Go(f) }

func (r *Run) keepFailure(t *target, k *call, a *answer, reason Reason, detail string, now time.Duration) {
	f := &r.failures
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.kept) >= r.cfg.MaxFailures {
		f.left++
		return
	}
	f.kept = append(f.kept, Failure{
		Pop: t.cfg.Pop, Kind: k.kind, Reason: reason, Detail: detail,
		Status: a.status, Colour: a.colour, Version: a.version,
		Intended: r.start.Add(k.intended).Round(0), Sent: r.at(k.sent), Failed: r.at(now), Opened: r.at(k.opened), Served: k.served,
	})
}

// Snapshot is where the run stands now. It is cheap enough to be asked ten times a second.
func (r *Run) Snapshot() Snapshot {
	now := r.now()
	s := Snapshot{At: r.at(now), Elapsed: now, FailedByReason: map[Reason]int64{}}
	for _, t := range r.targets {
		t.tally.mu.Lock()
		one := TargetSnapshot{Pop: t.cfg.Pop, Good: t.tally.good, Bad: t.tally.bad, Failed: t.tally.failed, Recent: t.tally.recent(now)}
		for reason, n := range t.tally.byReason {
			s.FailedByReason[reason] += n
		}
		t.tally.mu.Unlock()
		one.Requests = one.Good + one.Bad + one.Failed
		s.Requests += one.Requests
		s.Good += one.Good
		s.Bad += one.Bad
		s.Failed += one.Failed
		s.InFlight += t.pending.Load()
		s.OpenStreams += t.streams.Load()
		s.Targets = append(s.Targets, one)
	}
	return s
}

// Stop ends the sending, waits for what is in flight (at most Config.Timeout), closes the streams and returns the account.
// Every call returns the same one.
func (r *Run) Stop() Result {
	r.once.Do(func() {
		r.stop()
		<-r.sent
		stopped := r.now()
		r.end()
		for _, t := range r.targets {
			t.closeAll()
		}
		r.wg.Wait()
		r.result = r.collect(stopped)
	})
	return r.result
}

// collect runs when no goroutine of the run is left.
func (r *Run) collect(stopped time.Duration) Result {
	out := Result{
		Config: r.cfg, Started: r.start.Round(0), Stopped: r.at(stopped),
		FailedByReason: map[Reason]int64{}, ByKind: map[Kind]int64{},
		Failures: r.failures.kept, FailuresLeft: r.failures.left,
		Slice: r.latencies.width, Latencies: r.latencies.slices,
		Bucket: bucketWidth,
	}
	if out.Failures == nil {
		out.Failures = []Failure{}
	}
	for _, t := range r.targets {
		out.Bucket = max(out.Bucket, t.tally.width)
	}
	for _, t := range r.targets {
		y := t.tally
		for y.width < out.Bucket {
			y.fold()
		}
		one := TargetResult{
			Target: t.cfg, Good: y.good, Bad: y.bad, Failed: y.failed, Requests: y.good + y.bad + y.failed,
			FailedByReason: y.byReason, FailedOver: y.failedOver, LastOpened: r.at(y.opened), Colours: []Colour{},
		}
		for _, k := range y.colours {
			one.Colours = append(one.Colours, Colour{
				Name: k.name, Versions: k.versions, Good: k.good, Bad: k.bad, First: r.at(k.first), Last: r.at(k.last),
				Steps: r.steps(k.all), BadSteps: r.steps(k.faulty), GoodOver: k.goodOver, BadOver: k.badOver,
			})
		}
		out.Targets = append(out.Targets, one)
		out.Requests += one.Requests
		out.Good += one.Good
		out.Bad += one.Bad
		out.Failed += one.Failed
		out.Resent += y.resent
		out.ConnectionsOpened += y.conns
		out.ClosedAtRest += y.atRest
		out.Streams.Opened += y.streams.Opened
		out.Streams.Ended += y.streams.Ended
		out.Streams.Failed += y.streams.Failed
		out.Streams.OpenAtStop += y.streams.OpenAtStop
		out.Lateness.Add(&t.lag)
		for reason, n := range y.byReason {
			out.FailedByReason[reason] += n
		}
		for kind, n := range y.byKind {
			out.ByKind[kind] += n
		}
	}
	return out
}

// steps turns the stack around: the result ascends in Opened.
func (r *Run) steps(s steps) []Step {
	out := make([]Step, 0, len(s))
	for i := len(s) - 1; i >= 0; i-- {
		out = append(out, Step{r.at(s[i].opened), r.at(s[i].last)})
	}
	return out
}
