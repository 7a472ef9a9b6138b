package temporal

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"edgehold.internal/libs/problem"
	"edgehold.internal/workflows"
)

// The names by which workflows, activities and messages are known to Temporal. They are in histories: never change one.
const (
	globalCutover = "GlobalCutover"
	popDrain      = "PopDrain"

	preflightActivity = "Preflight"
	cutOverActivity   = "CutOver"
	waveActivity      = "CutOverWave"
	drainActivity     = "FollowDrain"
	verifyActivity    = "Verify"

	operationQuery = "operation"
	progressSignal = "progress"
	summaryMemo    = "operation"
	startMemo      = "start"
)

const (
	// planFresh is how long the plan that came with the start is good for. A worker that comes too late plans again.
	planFresh = 5 * time.Second
	// answerGrace is what a call may take beyond the deadline that the PoP itself keeps.
	answerGrace = 15 * time.Second
	// A worker that died is noticed after this long without a heartbeat.
	heartbeatTimeout = 5 * time.Second
	// calmAfter is how long the PoPs that have switched wait for the others of their wave, before their drains are followed:
	// that is work for the same machines, and nobody hurries.
	calmAfter = 5 * time.Second
	// waveLull is how long a wave's first call waits for one more answer after the last, and waveLongest how long for all: those that
	// have not answered by then are asked alone, and nobody waits for them to see the others go on.
	waveLull    = 500 * time.Millisecond
	waveLongest = 5 * time.Second
	// drainLimit is how long a drain is followed. The PoP's own drain deadline is far below it.
	drainLimit = 2 * time.Hour
	// verifyLimit is how long the edge's measure is waited for.
	verifyLimit = 30 * time.Second
)

// Input starts a GlobalCutover.
type Input struct {
	Start workflows.Start `json:"start"`
	// Plan that the start was checked with; nil when the fleet service could not be asked.
	Plan *workflows.Plan `json:"plan,omitempty"`
	// Attributes says that the search attributes exist.
	Attributes bool `json:"attributes,omitempty"`
}

// SwitchInput is what CutOver needs.
type SwitchInput struct {
	Change workflows.Change `json:"change"`
	// Delay before the first call.
	Delay time.Duration `json:"delay,omitempty"`
	// Operation is the id that people see.
	Operation string `json:"operation"`
}

// WaveInput is what CutOverWave needs. What all PoPs have in common is in it once: a thousand of them must not be more than
// Temporal takes.
type WaveInput struct {
	// Change without the PoP, and with the run's id as its key.
	Change    workflows.Change `json:"change"`
	Operation string           `json:"operation"`
	Turns     []Turn           `json:"turns"`
}

// Turn is when a PoP of a wave is asked.
type Turn struct {
	Pop   string        `json:"pop"`
	Delay time.Duration `json:"delay,omitempty"`
}

// of is what one of the PoPs needs.
func (in *WaveInput) of(t Turn) SwitchInput {
	change := in.Change
	change.Pop, change.Key = t.Pop, in.Change.Key+"/"+t.Pop+"/switch"
	return SwitchInput{Change: change, Delay: t.Delay, Operation: in.Operation}
}

// longestDelay of its turns.
func (in *WaveInput) longestDelay() (longest time.Duration) {
	for _, t := range in.Turns {
		longest = max(longest, t.Delay)
	}
	return longest
}

// DrainInput starts a PopDrain.
type DrainInput struct {
	Change    workflows.Change `json:"change"`
	Operation string           `json:"operation"`
	// Parent is the workflow that is told of the progress.
	Parent workflow.Execution `json:"parent"`
	// Switched is the answer of CutOver.
	Switched   workflows.Report `json:"switched"`
	Attributes bool             `json:"attributes,omitempty"`
}

// VerifyInput is what Verify needs.
type VerifyInput struct {
	Fleet         string                  `json:"fleet"`
	Operation     string                  `json:"operation"`
	Switched      []workflows.SwitchedPop `json:"switched"`
	MaxErrorRatio float64                 `json:"max_error_ratio"`
	Limit         time.Duration           `json:"limit"`
}

// course is one GlobalCutover under way.
type course struct {
	in    Input
	self  workflow.Execution
	run   *workflows.Run
	rand  workflow.WorkflowRandomStream
	pops  workflow.Context // of what is done to PoPs, ended by stop
	stop  workflow.CancelFunc
	state workflows.State // that the search attributes show
}

// GlobalCutover is the workflow of one operation: it does what workflows.Run decides. It always completes; how the
// operation ended is in its result.
func GlobalCutover(ctx workflow.Context, in Input) (workflows.Operation, error) {
	self := workflow.GetInfo(ctx).WorkflowExecution
	// What is asked for in Temporal itself, a cancel, must not end this workflow before those under way have finished.
	loop, _ := workflow.NewDisconnectedContext(ctx)
	c := &course{in: in, self: self, rand: workflow.GetRandomStream(ctx, "jitter"), state: workflows.Running,
		run: workflows.NewRun(OperationID(in.Start.Request.Fleet, self.RunID), in.Start, workflow.GetInfo(ctx).WorkflowStartTime)}
	c.pops, c.stop = workflow.WithCancel(loop)
	if err := c.listen(loop); err != nil {
		return workflows.Operation{}, err
	}
	workflow.Go(loop, func(loop workflow.Context) {
		ctx.Done().Receive(loop, nil)
		_, _ = c.run.Decide(workflows.Decision{Verb: workflows.Abort, Principal: "temporal", Reason: "cancelled in Temporal", Key: "temporal/cancel"}, workflow.Now(loop))
	})
	for {
		move := c.run.Next(workflow.Now(loop))
		switch move.Do {
		case workflows.Preflight:
			c.preflight(loop)
		case workflows.Switch:
			c.begin(loop, move.Pops)
		case workflows.Measure:
			c.verify(loop, move.Switched)
		case workflows.Cancel:
			c.stop()
		case workflows.Wait:
			c.show(loop)
			seen := c.run.Revision()
			if err := workflow.Await(loop, func() bool { return c.run.Revision() != seen }); err != nil {
				return c.run.Operation(), err
			}
		case workflows.End:
			if err := workflow.Await(loop, func() bool { return workflow.AllHandlersFinished(loop) }); err != nil {
				return c.run.Operation(), err
			}
			c.show(loop)
			op := c.run.Operation()
			summary := op
			summary.Waves = nil
			return op, workflow.UpsertMemo(loop, map[string]any{summaryMemo: summary})
		}
	}
}

// listen registers the query, the updates and the signal, before anything blocks.
func (c *course) listen(ctx workflow.Context) error {
	if err := workflow.SetQueryHandlerWithOptions(ctx, operationQuery, func() (workflows.Operation, error) { return c.run.Operation(), nil },
		workflow.QueryHandlerOptions{Description: "The whole progress, with the table of waves."}); err != nil {
		return err
	}
	for _, verb := range []workflows.Verb{workflows.Approve, workflows.Pause, workflows.Resume, workflows.Abort} {
		err := workflow.SetUpdateHandlerWithOptions(ctx, string(verb),
			func(ctx workflow.Context, d workflows.Decision) (workflows.Decision, error) {
				d.Verb = verb
				d, err := c.run.Decide(d, workflow.Now(ctx))
				return d, encode(err)
			},
			workflow.UpdateHandlerOptions{
				Description: fmt.Sprintf("A person's decision to %s: principal, reason and key.", verb),
				Validator: func(d workflows.Decision) error {
					d.Verb = verb
					return encode(c.run.Check(d))
				},
			})
		if err != nil {
			return err
		}
	}
	progress := workflow.GetSignalChannelWithOptions(ctx, progressSignal, workflow.SignalChannelOptions{Description: "The progress of one PoP."})
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var rep workflows.Report
			progress.Receive(ctx, &rep)
			c.run.Reported(rep)
		}
	})
	return nil
}

func (c *course) preflight(ctx workflow.Context) {
	if p := c.in.Plan; p != nil && workflow.Now(ctx).Sub(p.At).Abs() < planFresh {
		c.run.Planned(*p, workflow.Now(ctx))
		return
	}
	req := c.in.Start.Request.WithDefaults()
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: req.Deadline + answerGrace, HeartbeatTimeout: heartbeatTimeout, RetryPolicy: retries(),
		Summary: "what would each PoP of fleet " + req.Fleet + " do",
	})
	f := workflow.ExecuteActivity(ctx, preflightActivity, req)
	workflow.Go(ctx, func(ctx workflow.Context) {
		var plan workflows.Plan
		if err := f.Get(ctx, &plan); err != nil {
			c.run.Refused(decode(err), workflow.Now(ctx))
			return
		}
		c.run.Planned(plan, workflow.Now(ctx))
	})
}

// begin switches the PoPs of a wave. They are asked together by one activity, however many there are: one for each, and the
// transactions of Temporal's that belong to it, keep the machine busy just then. Whoever does not answer it has an activity of
// its own, which asks again with the same key, and once it has switched a workflow of its own.
//
// One coroutine waits for all of them: with one for each, every answer would wake them all, and a thousand PoPs a million
// times.
func (c *course) begin(ctx workflow.Context, pops []string) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		op := c.run.Operation()
		w := &wave{course: c, selector: workflow.NewSelector(ctx), begun: workflow.Now(ctx), switching: len(pops), open: len(pops)}
		in := WaveInput{Operation: op.ID, Turns: make([]Turn, len(pops)), Change: workflows.Change{Fleet: op.Request.Fleet, To: op.To, Version: op.Request.Version,
			Principal: op.Principal, Reason: op.Reason, Key: c.self.RunID, Force: op.Request.Force,
			Rollback: op.Request.Kind == workflows.Rollback, Deadline: op.Request.Deadline}}
		for i, pop := range pops {
			in.Turns[i].Pop = pop
			if j := *op.Request.Jitter; len(pops) > 1 && j > 0 {
				in.Turns[i].Delay = time.Duration(c.rand.Uint64() % uint64(j+1))
			}
		}
		if len(pops) == 1 {
			w.ask(ctx, in.of(in.Turns[0]))
		} else {
			w.askTogether(ctx, in)
		}
		// It ends with c.pops: after an abort nobody waits for the others.
		timer, stopTimer := workflow.WithCancel(c.pops)
		w.stopTimer = stopTimer
		w.selector.AddFuture(workflow.NewTimer(timer, calmAfter), func(workflow.Future) { w.follow(ctx) })
		for w.open > 0 {
			w.selector.Select(ctx)
		}
	})
}

// wave is the PoPs that began together.
type wave struct {
	*course
	selector workflow.Selector
	begun    time.Time
	// switching have not answered, open have not ended.
	switching, open int
	// waiting have switched and wait for the others, before their drains are followed; none does any longer when it is calm.
	waiting []followed
	calm    bool
	// stopTimer ends the timer that ends the wait.
	stopTimer workflow.CancelFunc
}

// followed is a PoP that has switched.
type followed struct {
	change   workflows.Change
	switched workflows.Report
}

// askTogether asks all PoPs at once, and those alone that do not answer.
func (w *wave) askTogether(ctx workflow.Context, in WaveInput) {
	// WaitForCancellation: an answer on its way says whether the PoP has switched.
	f := workflow.ExecuteActivity(workflow.WithActivityOptions(w.pops, workflow.ActivityOptions{
		ScheduleToCloseTimeout: in.longestDelay() + waveLongest + lastWord + answerGrace, HeartbeatTimeout: heartbeatTimeout, WaitForCancellation: true,
		RetryPolicy: &sdk.RetryPolicy{MaximumAttempts: 1},
		Summary:     fmt.Sprintf("switch %d PoPs to %s", len(in.Turns), in.Change.To),
	}), waveActivity, in)
	w.selector.AddFuture(f, func(f workflow.Future) {
		var reps []workflows.Report
		_ = f.Get(ctx, &reps) // without an answer everyone is asked alone
		answers := make(map[string]workflows.Report, len(reps))
		for _, rep := range reps {
			answers[rep.Pop] = rep
		}
		for _, t := range in.Turns {
			t.Delay = 0 // its turn has come
			one := in.of(t)
			if rep, ok := answers[t.Pop]; ok {
				w.answered(ctx, one.Change, rep)
			} else {
				w.ask(ctx, one)
			}
		}
	})
}

// ask asks one PoP.
func (w *wave) ask(ctx workflow.Context, in SwitchInput) {
	once := in.Delay + in.Change.Deadline + answerGrace
	left := max(once+answerGrace-workflow.Now(ctx).Sub(w.begun), answerGrace)
	f := workflow.ExecuteActivity(workflow.WithActivityOptions(w.pops, workflow.ActivityOptions{
		ScheduleToCloseTimeout: left, StartToCloseTimeout: once + heartbeatTimeout,
		HeartbeatTimeout: heartbeatTimeout, WaitForCancellation: true, RetryPolicy: retries(),
		Summary: fmt.Sprintf("switch %s to %s", in.Change.Pop, in.Change.To),
	}), cutOverActivity, in)
	w.selector.AddFuture(f, func(f workflow.Future) { w.answered(ctx, in.Change, switched(ctx, f)) })
}

// answered takes the answer of one PoP's switch.
func (w *wave) answered(ctx workflow.Context, ch workflows.Change, rep workflows.Report) {
	rep.Pop = ch.Pop
	if rep.Step == workflows.Switched {
		w.run.Reported(rep)
		w.waiting = append(w.waiting, followed{ch, rep})
	} else {
		w.ended(rep)
	}
	if w.switching--; w.switching == 0 {
		w.stopTimer()
	}
	if w.switching == 0 || w.calm {
		w.follow(ctx)
	}
}

func (w *wave) ended(rep workflows.Report) {
	w.open--
	w.run.Ended(rep)
}

// follow runs the workflow of each PoP that waits for it.
func (w *wave) follow(ctx workflow.Context) {
	w.calm = true
	for _, p := range w.waiting {
		w.selector.AddFuture(w.drain(p.change, p.switched), func(f workflow.Future) {
			var rep workflows.Report
			if err := f.Get(ctx, &rep); err != nil {
				rep = unfollowed(p.switched, err)
			}
			rep.Pop = p.change.Pop
			w.ended(rep)
		})
	}
	w.waiting = nil
}

// switched is the last report of a PoP that has not switched, or else that it has.
func switched(ctx workflow.Context, f workflow.Future) workflows.Report {
	var rep workflows.Report
	err := f.Get(ctx, &rep)
	var cancelled *sdk.CanceledError
	switch {
	case err == nil:
		return rep
	case errors.As(err, &cancelled):
		return workflows.Report{Step: workflows.Broken, Message: "aborted while the fleet service did not answer; edgehold fleet get shows whether the switch was declared"}
	}
	return refused(decode(err))
}

// refused is the report of a PoP whose cutover was refused for good.
func refused(p *problem.Error) workflows.Report {
	step := workflows.Broken
	if p.Kind == problem.FailedPrecondition {
		step = workflows.Blocked
	}
	return workflows.Report{Step: step, Message: p.Error()}
}

// drain starts the workflow of a PoP that has switched.
func (c *course) drain(ch workflows.Change, switched workflows.Report) workflow.ChildWorkflowFuture {
	o := workflow.ChildWorkflowOptions{
		WorkflowID:        fmt.Sprintf("%s%s/%s/%s", idPrefix, ch.Fleet, c.self.RunID, ch.Pop),
		ParentClosePolicy: enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL, WaitForCancellation: true,
		WorkflowTaskTimeout: taskTimeout,
		StaticSummary:       fmt.Sprintf("drain %s, switched to %s", ch.Pop, ch.To),
	}
	in := DrainInput{Change: ch, Operation: OperationID(ch.Fleet, c.self.RunID), Parent: c.self, Switched: switched, Attributes: c.in.Attributes}
	if c.in.Attributes {
		o.TypedSearchAttributes = sdk.NewSearchAttributes(FleetAttribute.ValueSet(ch.Fleet), PopAttribute.ValueSet(ch.Pop),
			StateAttribute.ValueSet(string(workflows.Draining)), OperationAttribute.ValueSet(in.Operation))
	}
	return workflow.ExecuteChildWorkflow(workflow.WithChildOptions(c.pops, o), popDrain, in)
}

func unfollowed(rep workflows.Report, err error) workflows.Report {
	rep.Step = workflows.Draining
	rep.Message = "its drain was not followed to the end: " + decode(err).Error()
	return rep
}

func (c *course) verify(ctx workflow.Context, switched []workflows.SwitchedPop) {
	req := c.run.Operation().Request
	in := VerifyInput{Fleet: req.Fleet, Operation: c.run.Operation().ID, Switched: switched, MaxErrorRatio: *req.MaxErrorRatio, Limit: verifyLimit}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: 2*verifyLimit + answerGrace, HeartbeatTimeout: heartbeatTimeout, RetryPolicy: retries(),
		Summary: fmt.Sprintf("error ratio of %d PoPs at most %g", len(switched), in.MaxErrorRatio),
	})
	f := workflow.ExecuteActivity(ctx, verifyActivity, in)
	workflow.Go(ctx, func(ctx workflow.Context) {
		var v workflows.Verification
		if err := f.Get(ctx, &v); err != nil {
			v = workflows.Verify(switched, nil, in.MaxErrorRatio, workflow.Now(ctx))
		}
		c.run.Verified(v)
	})
}

// show brings Temporal's own pages up to date.
func (c *course) show(ctx workflow.Context) {
	op := c.run.Operation()
	workflow.SetCurrentDetails(ctx, details(op))
	if c.in.Attributes && op.State != c.state {
		// An error is a value of the wrong type; the attribute is a keyword, and so is the state.
		_ = workflow.UpsertTypedSearchAttributes(ctx, StateAttribute.ValueSet(string(op.State)))
	}
	c.state = op.State
}

// details is the operation in the Markdown of Temporal's UI.
func details(op workflows.Operation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**: %s\n\n%s, asked by %s: %s\n", op.State, op.Message, op.ID, op.Principal, op.Reason)
	for i, w := range op.Waves {
		fmt.Fprintf(&b, "\n| wave %d | step | open | |\n|---|---|---|---|\n", i+1)
		for _, p := range w {
			open := ""
			if p.Open != nil {
				open = fmt.Sprint(*p.Open)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.Name, p.Step, open, strings.NewReplacer("|", "\\|", "\n", " ").Replace(p.Message))
		}
	}
	return b.String()
}

// PopDrain is the workflow of one PoP that has switched: it follows the drain. It always completes; its last report says
// how the drain ended.
func PopDrain(ctx workflow.Context, in DrainInput) (workflows.Report, error) {
	var rep workflows.Report
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: drainLimit, HeartbeatTimeout: 2 * heartbeatTimeout, RetryPolicy: retries(),
		Summary: fmt.Sprintf("follow the drain of %s", in.Change.Pop),
	}), drainActivity, in).Get(ctx, &rep)
	if err != nil {
		rep = unfollowed(in.Switched, err)
	}
	if in.Attributes {
		// An error is a value of the wrong type; the attribute is a keyword, and so is the step.
		_ = workflow.UpsertTypedSearchAttributes(ctx, StateAttribute.ValueSet(string(rep.Step)))
	}
	return rep, nil
}

// retries go on until the activity's own timeout; what asking again cannot mend is not retryable.
func retries() *sdk.RetryPolicy {
	return &sdk.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 3 * time.Second}
}
