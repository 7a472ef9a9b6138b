package temporal

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/problem"
	"edgehold.internal/workflows"
)

const (
	// beatInterval is how often an activity says that it lives, and hears of an abort. Each time is a transaction of Temporal's,
	// and a switch, which mostly takes less, ends without one.
	beatInterval = 2 * time.Second
	// lastWord is how long a PoP that was asked may still answer when the operation is aborted. Most switch in less, and who
	// aborts does not wait for the deadline of one that is stuck.
	lastWord = 2 * time.Second
)

// Activities are the steps of the workflows. Each may be repeated: the fleet service takes the same key for the same
// cutover, a mock for the same outage, and the others only read.
type Activities struct {
	Fleets workflows.Fleets
	// Mock is nil where there is none.
	Mock workflows.Mock
	// Tell sends a signal to the workflow that follows the PoPs.
	Tell func(ctx context.Context, to workflow.Execution, signal string, rep workflows.Report) error
	Log  *slog.Logger
}

// Preflight finds out what each PoP would do.
func (a *Activities) Preflight(ctx context.Context, r workflows.Request) (workflows.Plan, error) {
	defer beat(func() { activity.RecordHeartbeat(ctx) })()
	plan, err := a.Fleets.Plan(ctx, r)
	return plan, a.failed(ctx, err)
}

// CutOver switches one PoP. A cancel keeps it from asking; when it has asked, the answer is heard if it comes within
// lastWord.
func (a *Activities) CutOver(ctx context.Context, in SwitchInput) (workflows.Report, error) {
	defer beat(func() { activity.RecordHeartbeat(ctx) })()
	if activity.GetInfo(ctx).Attempt > 1 {
		in.Delay = 0
	}
	rep, err := a.cutOver(ctx, context.WithoutCancel(ctx), in)
	return rep, a.failed(ctx, err)
}

// CutOverWave asks many PoPs at once and returns the reports of those that have answered when all have, or none has for
// waveLull, or waveLongest is over. A PoP without a report is to be asked again; what it began goes on by itself.
func (a *Activities) CutOverWave(ctx context.Context, in WaveInput) ([]workflows.Report, error) {
	defer beat(func() { activity.RecordHeartbeat(ctx) })()
	patient, leave := context.WithCancel(context.WithoutCancel(ctx))
	answers := make(chan *workflows.Report, len(in.Turns)) // nil for one that is to be asked again
	var asking sync.WaitGroup
	defer asking.Wait()
	defer leave()
	for _, t := range in.Turns {
		asking.Go(func() {
			rep, err := a.cutOver(ctx, patient, in.of(t))
			var p *problem.Error
			switch {
			case err == nil:
				answers <- &rep
			case errors.As(err, &p) && !worthAnother(p):
				_ = a.failed(ctx, err) // it is logged
				rep = refused(p)
				rep.Pop = t.Pop
				answers <- &rep
			default:
				answers <- nil
			}
		})
	}
	begun, last := time.Now(), in.longestDelay()
	longest := time.NewTimer(last + waveLongest)
	defer longest.Stop()
	var lull <-chan time.Time
	reps := make([]workflows.Report, 0, len(in.Turns))
	for range in.Turns {
		select {
		case rep := <-answers:
			if rep != nil {
				reps = append(reps, *rep)
			}
			lull = time.After(max(last-time.Since(begun), 0) + waveLull) // nobody has gone by whose turn had not come
		case <-lull:
			return reps, nil
		case <-longest.C:
			return reps, nil
		}
	}
	return reps, nil
}

// cutOver asks one PoP and waits for its answer until within ends, or ctx does, which is an abort.
func (a *Activities) cutOver(ctx, within context.Context, in SwitchInput) (workflows.Report, error) {
	if in.Delay > 0 {
		timer := time.NewTimer(in.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-within.Done():
		}
	}
	if ctx.Err() != nil {
		return workflows.Report{Pop: in.Change.Pop, Step: workflows.Skipped, Message: "the operation was aborted before its turn"}, nil
	}
	asked, cancel := context.WithTimeout(within, in.Change.Deadline+answerGrace)
	defer cancel()
	defer stopWith(ctx, cancel)()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWord, cancel) })()
	rep, err := a.Fleets.CutOver(call.WithOperation(asked, in.Operation), in.Change)
	if err != nil {
		if stopping(ctx) { // another worker asks again, with the same key
			err = problem.Unavailablef("the worker stops")
		} else if asked.Err() != nil {
			why := "no answer within " + (in.Change.Deadline + answerGrace).String()
			if ctx.Err() != nil {
				why = "aborted before it had answered"
			}
			return workflows.Report{Pop: in.Change.Pop, Step: workflows.Broken, Message: why + "; it may be declared and still switch until its deadline: edgehold fleet get shows it"}, nil
		}
		return workflows.Report{}, err
	}
	rep.Pop = in.Change.Pop
	return rep, nil
}

// FollowDrain returns when the PoP has drained. With its heartbeats it tells of the open connections, each time they have
// halved: a short drain costs its history nothing, and a long one a few reports however many connections there were.
func (a *Activities) FollowDrain(ctx context.Context, in DrainInput) (workflows.Report, error) {
	var mu sync.Mutex
	rep := in.Switched
	rep.Step = workflows.Draining
	var told halves
	defer beat(func() {
		mu.Lock()
		now := rep
		mu.Unlock()
		activity.RecordHeartbeat(ctx, now.Open)
		if told.news(now.Open) {
			a.tell(ctx, in.Parent, now)
		}
	})()
	drained := errors.New("drained")
	seen := false
	err := a.Fleets.Watch(call.WithOperation(ctx, in.Operation), in.Change.Fleet, []string{in.Change.Pop}, func(o workflows.Observation) error {
		mu.Lock()
		defer mu.Unlock()
		if o.Problem != "" || o.Last == nil {
			return nil // the PoP goes on by itself, and is seen again when it can be read
		}
		if o.Last.Key != in.Change.Key {
			if !seen && !o.Last.DeclaredAt.After(in.Switched.SwitchedAt) {
				return nil // the service has not caught up with what it answered itself
			}
			rep.Step, rep.Message = workflows.Done, "a later cutover replaced this one before it was seen to have drained"
			return drained
		}
		seen = true
		if rep = workflows.Drained(rep, o); rep.Step != workflows.Draining {
			return drained
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	if errors.Is(err, drained) {
		return rep, nil
	}
	if err == nil {
		err = problem.Unavailablef("the fleet service ended its stream")
	}
	if ctx.Err() != nil || stopping(ctx) {
		err = again(ctx)
	}
	return rep, a.failed(ctx, err)
}

// Verify waits until every switched PoP has a measure from after its switch and the error ratio is back under the
// limit, or in.Limit has passed.
func (a *Activities) Verify(ctx context.Context, in VerifyInput) (workflows.Verification, error) {
	defer beat(func() { activity.RecordHeartbeat(ctx) })()
	enough := errors.New("enough")
	pops := make([]string, len(in.Switched))
	for i, p := range in.Switched {
		pops[i] = p.Pop
	}
	limit, cancel := context.WithTimeout(ctx, in.Limit)
	defer cancel()
	traffic := make(map[string]workflows.Traffic, len(pops))
	var v workflows.Verification
	for {
		err := a.Fleets.Watch(call.WithOperation(limit, in.Operation), in.Fleet, pops, func(o workflows.Observation) error {
			if o.Problem != "" || o.Traffic == nil {
				return nil
			}
			traffic[o.Pop] = *o.Traffic
			if v = workflows.Verify(in.Switched, traffic, in.MaxErrorRatio, time.Now()); v.Passed {
				return enough
			}
			return nil
		})
		if errors.Is(err, enough) {
			return v, nil
		}
		if ctx.Err() != nil || stopping(ctx) {
			return v, again(ctx)
		}
		select {
		case <-limit.Done():
			return workflows.Verify(in.Switched, traffic, in.MaxErrorRatio, time.Now()), nil
		case <-time.After(beatInterval): // the stream broke; what was measured so far is kept
			a.Log.WarnContext(ctx, "the fleet service's stream broke; watching again", "error", err)
		}
	}
}

// tell is worth a try and no more: the result of the PoP's workflow says the same later.
func (a *Activities) tell(ctx context.Context, to workflow.Execution, rep workflows.Report) {
	if err := a.Tell(ctx, to, progressSignal, rep); err != nil && ctx.Err() == nil {
		a.Log.WarnContext(ctx, "the operation was not told of the progress", "pop", rep.Pop, "step", rep.Step, "error", err)
	}
}

// failed logs what is not sent and says whether asking again may help.
func (a *Activities) failed(ctx context.Context, err error) error {
	var p *problem.Error
	if errors.As(err, &p) && p.Cause != nil && p.Kind != problem.Unavailable {
		a.Log.ErrorContext(ctx, p.Error(), "cause", p.Cause, "activity", activity.GetInfo(ctx).ActivityType.Name)
	}
	return encode(err)
}

// again is the error of an activity that was cancelled, or whose worker stops.
func again(ctx context.Context) error {
	if stopping(ctx) {
		return encode(problem.Unavailablef("the worker stops"))
	}
	return sdk.NewCanceledError()
}

func stopping(ctx context.Context) bool {
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return true
	default:
		return false
	}
}

// maxTold is how often an operation is told of one PoP's drain: enough for a hundredth of what it began with, and for a
// thousand PoPs still fewer than the ten thousand signals that a workflow may get. The end of a drain is told otherwise.
const maxTold = 8

// halves picks the numbers worth telling of: the first, and those at most half of the one told before.
type halves struct {
	times int
	told  int64
}

func (h *halves) news(open *int64) bool {
	if open == nil || h.times == maxTold || h.times > 0 && (*open > h.told/2 || *open == h.told) {
		return false
	}
	h.times, h.told = h.times+1, *open
	return true
}

// beat calls alive, which sends a heartbeat, at intervals until it is told to stop. Heartbeats also bring word of a
// cancel.
func beat(alive func()) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(beatInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				alive()
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// stopWith cancels when the worker stops.
func stopWith(ctx context.Context, cancel context.CancelFunc) (release func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-activity.GetWorkerStopChannel(ctx):
			cancel()
		case <-done:
		}
	}()
	return func() { close(done); <-ended }
}
