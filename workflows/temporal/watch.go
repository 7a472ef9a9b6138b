package temporal

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"edgehold.internal/libs/problem"
	"edgehold.internal/workflows"
)

const (
	// maxWatches bounds the operations that are followed at one time.
	maxWatches = 200
	// settle is the shortest time between two looks at one operation: changes of one moment are shown together.
	settle = 150 * time.Millisecond
)

// watches shares one follower per operation among all who watch it. It lives as long as there is one.
type watches struct {
	// follow calls publish at once and after each change, and returns nil when the operation has ended.
	follow func(ctx context.Context, id string, publish func(workflows.Operation)) error

	mu  sync.Mutex
	all map[string]*watch
}

type watch struct {
	watchers int
	cancel   context.CancelFunc
	// changed is closed and replaced with each new latest, or when it is over.
	changed chan struct{}
	latest  *workflows.Operation
	over    bool
	err     error
}

// Watch implements workflows.Operations.
func (r *Runbooks) Watch(ctx context.Context, id string, f func(workflows.Operation) error) error {
	if _, _, err := parseID(id); err != nil {
		return err
	}
	return r.watches.watch(ctx, id, f)
}

func (ws *watches) watch(ctx context.Context, id string, f func(workflows.Operation) error) error {
	w, err := ws.join(ctx, id)
	if err != nil {
		return err
	}
	defer ws.leave(id, w)
	var seen *workflows.Operation
	for {
		ws.mu.Lock()
		latest, over, failed, changed := w.latest, w.over, w.err, w.changed
		ws.mu.Unlock()
		if latest != seen {
			seen = latest
			if err := f(*latest); err != nil {
				return err
			}
			continue
		}
		if over {
			return failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (ws *watches) join(ctx context.Context, id string) (*watch, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.all[id]; w != nil && !w.over {
		w.watchers++
		return w, nil
	}
	if len(ws.all) >= maxWatches {
		return nil, problem.New(problem.ResourceExhausted, "", "%d operations are watched already; get this one instead", maxWatches)
	}
	if ws.all == nil {
		ws.all = make(map[string]*watch)
	}
	follow, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &watch{watchers: 1, cancel: cancel, changed: make(chan struct{})}
	ws.all[id] = w
	go func() {
		err := ws.follow(follow, id, func(op workflows.Operation) {
			ws.mu.Lock()
			defer ws.mu.Unlock()
			if w.latest == nil || w.latest.Revision < op.Revision || op.State.Ended() {
				w.latest = &op
				w.wake()
			}
		})
		ws.mu.Lock()
		defer ws.mu.Unlock()
		w.over, w.err = true, err
		w.wake()
		ws.forget(id, w)
	}()
	return w, nil
}

// wake needs the lock.
func (w *watch) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (ws *watches) leave(id string, w *watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.watchers--; w.watchers == 0 {
		w.cancel()
		ws.forget(id, w)
	}
}

func (ws *watches) forget(id string, w *watch) {
	if ws.all[id] == w {
		delete(ws.all, id)
	}
}

// follow waits for the workflow's history to grow, which Temporal tells without being asked again, and then looks at it.
func (r *Runbooks) follow(ctx context.Context, id string, publish func(workflows.Operation)) error {
	workflowID, runID, err := parseID(id)
	if err != nil {
		return err
	}
	op, err := r.Get(ctx, id)
	if err != nil {
		return err
	}
	publish(op)
	if op.State.Ended() {
		return nil
	}
	grown := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() { ended <- r.read(ctx, workflowID, runID, grown) }()
	for {
		select {
		case <-grown:
			call, cancel := context.WithTimeout(ctx, queryTimeout)
			op, err := r.query(call, workflowID, runID)
			cancel()
			if err == nil && !op.State.Ended() { // its end is told when it is in the history
				publish(op)
			}
			select {
			case <-time.After(settle):
			case <-ctx.Done():
			}
		case err := <-ended:
			if err != nil {
				return outage(err)
			}
			op, err := r.Get(ctx, id)
			if err != nil {
				return err
			}
			publish(op)
			return nil
		}
	}
}

// read follows the history and sends to grown after each completed workflow task, in which alone an operation changes.
// It returns nil at the end of the history.
func (r *Runbooks) read(ctx context.Context, workflowID, runID string, grown chan<- struct{}) error {
	lost := time.Time{}
	var seen int64
	for {
		events := r.client.GetWorkflowHistory(ctx, workflowID, runID, true, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				var gone *serviceerror.NotFound
				if errors.As(err, &gone) {
					return err
				}
				// Temporal restarts, perhaps. Who watches is told when it stays away.
				if lost.IsZero() {
					lost = time.Now()
				}
				if time.Since(lost) > 30*time.Second {
					return err
				}
				select {
				case <-time.After(500 * time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
				break
			}
			lost = time.Time{}
			if e.GetEventId() <= seen { // read again after the connection was lost
				continue
			}
			seen = e.GetEventId()
			switch e.GetEventType() {
			case enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
				select {
				case grown <- struct{}{}:
				default: // one look shows it all
				}
			case enums.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
				enums.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
