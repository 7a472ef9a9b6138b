package temporal

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"edgehold.internal/libs/problem"
	"edgehold.internal/workflows"
)

// fleets is workflows.Fleets by functions; those that are nil do what goes well.
type fleets struct {
	plan    func(workflows.Request) (workflows.Plan, error)
	cutOver func(context.Context, workflows.Change) (workflows.Report, error)
	watch   func(ctx context.Context, pops []string, f func(workflows.Observation) error) error

	mu    sync.Mutex
	asked []string // PoPs, in the order in which they were asked
}

func (f *fleets) Plan(_ context.Context, r workflows.Request) (workflows.Plan, error) {
	if f.plan != nil {
		return f.plan(r)
	}
	p := workflows.Plan{To: workflows.Blue, At: time.Now()}
	for _, pop := range r.Pops {
		p.Pops = append(p.Pops, workflows.PopPlan{Pop: pop, From: workflows.Green, Already: pop[0] == 'a'})
	}
	return p, nil
}

func (f *fleets) CutOver(ctx context.Context, c workflows.Change) (workflows.Report, error) {
	f.mu.Lock()
	f.asked = append(f.asked, c.Pop)
	f.mu.Unlock()
	if f.cutOver != nil {
		return f.cutOver(ctx, c)
	}
	return workflows.Report{Step: workflows.Switched, From: workflows.Green, SwitchedAt: switchedAt}, nil
}

var switchedAt = time.Now().Add(-time.Second)

func (f *fleets) Watch(ctx context.Context, fleet string, pops []string, on func(workflows.Observation) error) error {
	if f.watch != nil {
		return f.watch(ctx, pops, on)
	}
	for _, p := range pops {
		if err := on(drained(p)); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// drained is a PoP without connections and with healthy traffic.
func drained(pop string) workflows.Observation {
	none := int64(0)
	return workflows.Observation{Pop: pop, Green: &none, Traffic: &workflows.Traffic{Requests: 100, At: time.Now(), Window: time.Millisecond},
		Last: &workflows.PopCutover{Key: runID + "/" + pop + "/switch", From: workflows.Green, SwitchedAt: switchedAt, DrainedAt: switchedAt, Ended: true, Drained: &none}}
}

// runID is what the test suite calls every run.
const runID = "default-test-run-id"

// rehearsal is a GlobalCutover in the test suite, on a clock that does not wait.
type rehearsal struct {
	*testsuite.TestWorkflowEnvironment
	t      *testing.T
	fleets *fleets
}

func rehearse(t *testing.T, f *fleets) *rehearsal {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{discard{}})
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	tell := func(_ context.Context, to workflow.Execution, signal string, rep workflows.Report) error {
		return env.SignalWorkflowByID(to.ID, signal, rep)
	}
	registerWorkflows(env)
	registerActivities(env, &Activities{Fleets: f, Tell: tell, Log: slog.New(slog.DiscardHandler)})
	return &rehearsal{env, t, f}
}

type discard struct{}

func (discard) Debug(string, ...any) {}
func (discard) Info(string, ...any)  {}
func (discard) Warn(string, ...any)  {}
func (discard) Error(string, ...any) {}

// asks is a start without jitter.
func asks(r workflows.Request, pops ...string) Input {
	zero := time.Duration(0)
	r.Kind, r.Fleet, r.Pops, r.Jitter = workflows.Rollback, "edge", pops, &zero
	return Input{Start: workflows.Start{Request: r, Principal: "ana", Reason: "v2 answers 500", Key: "k"}}
}

// runs plays it to its end.
func (r *rehearsal) runs(in Input) workflows.Operation {
	r.t.Helper()
	r.ExecuteWorkflow(globalCutover, in)
	if !r.IsWorkflowCompleted() {
		r.t.Fatal("it did not end")
	}
	if err := r.GetWorkflowError(); err != nil {
		r.t.Fatal(err)
	}
	var op workflows.Operation
	if err := r.GetWorkflowResult(&op); err != nil {
		r.t.Fatal(err)
	}
	return op
}

// decides sends an update after a time on the suite's clock, and collects how it was answered.
func (r *rehearsal) decides(after time.Duration, v workflows.Verb) *answer {
	a := &answer{}
	r.RegisterDelayedCallback(func() {
		r.UpdateWorkflow(string(v), "", a, workflows.Decision{Principal: "ben", Reason: "I looked", Key: string(v) + after.String()})
	}, after)
	return a
}

type answer struct {
	accepted bool
	err      error
}

func (a *answer) Accept()                 { a.accepted = true }
func (a *answer) Reject(err error)        { a.err = err }
func (a *answer) Complete(_ any, e error) { a.err = e }

func ended(t *testing.T, op workflows.Operation, state workflows.State, words ...string) {
	t.Helper()
	if op.State != state {
		t.Fatalf("%s: %s", op.State, op.Message)
	}
	for _, w := range words {
		if !strings.Contains(op.Message, w) {
			t.Errorf("message %q lacks %q", op.Message, w)
		}
	}
}

func TestEverythingGoesWell(t *testing.T) {
	r := rehearse(t, &fleets{})
	op := r.runs(asks(workflows.Request{}, "fra1", "gru1", "nrt1", "ams1"))
	ended(t, op, workflows.Succeeded, "4 of 4", "error ratio 0.0000 over 300 requests")
	for _, p := range op.Waves[0][:3] {
		if p.Step != workflows.Done || p.Drained == nil || p.SwitchedAt.IsZero() {
			t.Errorf("%+v", p)
		}
	}
	if op.Waves[0][3].Step != workflows.Already || len(r.fleets.asked) != 3 {
		t.Errorf("%+v, asked %v", op.Waves[0][3], r.fleets.asked)
	}
}

// The PoPs keep which it was, so that what was rolled back is not rolled back again.
func TestPopsAreToldWhetherItIsARollback(t *testing.T) {
	for kind, want := range map[workflows.Kind]bool{workflows.Rollback: true, workflows.Cutover: false} {
		told := !want
		f := &fleets{cutOver: func(_ context.Context, c workflows.Change) (workflows.Report, error) {
			told = c.Rollback
			return workflows.Report{Step: workflows.Switched, SwitchedAt: switchedAt}, nil
		}}
		in := asks(workflows.Request{To: workflows.Blue}, "fra1")
		in.Start.Request.Kind = kind
		ended(t, rehearse(t, f).runs(in), workflows.Succeeded)
		if told != want {
			t.Errorf("%s: rollback=%t", kind, told)
		}
	}
}

func TestFreshPlanOfTheStartIsUsed(t *testing.T) {
	for _, c := range []struct {
		age   time.Duration
		calls int
	}{{0, 0}, {time.Minute, 1}, {-time.Minute, 1}} {
		calls := 0
		f := &fleets{}
		f.plan = func(r workflows.Request) (workflows.Plan, error) {
			calls++
			return (&fleets{}).Plan(t.Context(), r)
		}
		in := asks(workflows.Request{}, "fra1")
		plan, _ := (&fleets{}).Plan(t.Context(), in.Start.Request)
		plan.At = plan.At.Add(-c.age)
		in.Plan = &plan
		ended(t, rehearse(t, f).runs(in), workflows.Succeeded)
		if calls != c.calls {
			t.Errorf("a plan of %v ago: asked %d times for a new one", c.age, calls)
		}
	}
}

func TestJitterSpreadsTheStarts(t *testing.T) {
	in := asks(workflows.Request{}, "fra1", "gru1", "nrt1")
	jitter := 20 * time.Millisecond
	in.Start.Request.Jitter = &jitter
	r := rehearse(t, &fleets{})
	var delays []time.Duration
	r.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, args converter.EncodedValues) {
		if info.ActivityType.Name == waveActivity {
			var in WaveInput
			if err := args.Get(&in); err != nil {
				t.Error(err)
			}
			for _, turn := range in.Turns {
				delays = append(delays, turn.Delay)
			}
		}
	})
	ended(t, r.runs(in), workflows.Succeeded)
	different := map[time.Duration]bool{}
	for _, d := range delays {
		different[d] = true
		if d < 0 || d > jitter {
			t.Errorf("delay %v", d)
		}
	}
	if len(different) < 2 {
		t.Errorf("delays %v", delays)
	}
}

func TestFleetServiceIsDownAndComesUp(t *testing.T) {
	down := 3
	f := &fleets{}
	f.plan = func(r workflows.Request) (workflows.Plan, error) {
		if down--; down > 0 {
			return workflows.Plan{}, problem.Unavailablef("connection refused")
		}
		return (&fleets{}).Plan(t.Context(), r)
	}
	refusals := 4
	f.cutOver = func(context.Context, workflows.Change) (workflows.Report, error) {
		switch refusals--; refusals {
		case 3, 2:
			return workflows.Report{}, problem.Unavailablef("connection refused")
		case 1:
			return workflows.Report{}, problem.New(problem.ResourceExhausted, "", "512 calls under way")
		}
		return workflows.Report{Step: workflows.Switched, From: workflows.Green, SwitchedAt: switchedAt}, nil
	}
	ended(t, rehearse(t, f).runs(asks(workflows.Request{}, "fra1")), workflows.Succeeded)
	if len(f.asked) != 4 {
		t.Errorf("asked %v", f.asked)
	}
}

func TestFleetServiceStaysDown(t *testing.T) {
	f := &fleets{plan: func(workflows.Request) (workflows.Plan, error) {
		return workflows.Plan{}, problem.Unavailablef("connection refused")
	}}
	ended(t, rehearse(t, f).runs(asks(workflows.Request{}, "fra1")), workflows.Failed, "nothing was changed")

	f = &fleets{cutOver: func(context.Context, workflows.Change) (workflows.Report, error) {
		return workflows.Report{}, problem.Unavailablef("connection refused")
	}}
	op := rehearse(t, f).runs(asks(workflows.Request{}, "fra1"))
	ended(t, op, workflows.Failed, "no PoP was changed", "1 failed: fra1")
	if p := op.Waves[0][0]; p.Step != workflows.Broken || !strings.Contains(p.Message, "connection refused") {
		t.Errorf("%+v", p)
	}
	if len(f.asked) < 10 {
		t.Errorf("asked only %d times", len(f.asked))
	}
}

func TestRequestThatCannotWork(t *testing.T) {
	f := &fleets{plan: func(workflows.Request) (workflows.Plan, error) {
		return workflows.Plan{}, problem.NotFoundf("fleet", "no PoP in scope has a fleet %q", "edge")
	}}
	ended(t, rehearse(t, f).runs(asks(workflows.Request{}, "fra1")), workflows.Failed, `fleet: no PoP in scope has a fleet "edge"`)
}

func TestPopsThatDoNotSwitch(t *testing.T) {
	f := &fleets{cutOver: func(_ context.Context, c workflows.Change) (workflows.Report, error) {
		switch c.Pop {
		case "blk1":
			return workflows.Report{}, problem.Preconditionf("", "its standby is not ready")
		case "late1":
			return workflows.Report{}, problem.New(problem.DeadlineExceeded, "", "declared; the PoP goes on by itself")
		case "back1":
			return workflows.Report{Step: workflows.Broken, Message: "blue failed", SwitchedAt: switchedAt}, nil
		case "done1":
			return workflows.Report{Step: workflows.Already}, nil
		}
		return workflows.Report{Step: workflows.Switched, From: workflows.Green, SwitchedAt: switchedAt}, nil
	}}
	op := rehearse(t, f).runs(asks(workflows.Request{}, "fra1", "blk1", "late1", "back1", "done1"))
	ended(t, op, workflows.Partial, "2 of 5", "1 blocked: blk1", "2 failed: late1 back1", "ask again with blue")
	for i, want := range []workflows.Step{workflows.Done, workflows.Blocked, workflows.Broken, workflows.Broken, workflows.Already} {
		if p := op.Waves[0][i]; p.Step != want {
			t.Errorf("%+v, not %s", p, want)
		}
	}
	if len(f.asked) != 5 {
		t.Errorf("what cannot work was tried again: %v", f.asked)
	}
}

// One call is for a whole wave; who does not answer it, or cannot yet, is asked alone and holds nobody up.
func TestWhoDoesNotAnswerWithItsWaveIsAskedAlone(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	alone := map[string]bool{}
	f := &fleets{cutOver: func(ctx context.Context, c workflows.Change) (workflows.Report, error) {
		mu.Lock()
		asked[c.Pop]++
		first := asked[c.Pop] == 1
		if activity.GetInfo(ctx).ActivityType.Name == cutOverActivity {
			alone[c.Pop] = true
		}
		mu.Unlock()
		switch {
		case c.Pop == "slow1" && first:
			<-ctx.Done()
			return workflows.Report{}, ctx.Err()
		case c.Pop == "busy1" && first:
			return workflows.Report{}, problem.New(problem.ResourceExhausted, "", "512 calls under way")
		case c.Pop == "blk1":
			return workflows.Report{}, problem.Preconditionf("", "its standby is not ready")
		}
		return workflows.Report{Step: workflows.Switched, From: workflows.Green, SwitchedAt: switchedAt}, nil
	}}
	op := rehearse(t, f).runs(asks(workflows.Request{}, "fra1", "slow1", "busy1", "blk1"))
	ended(t, op, workflows.Partial, "3 of 4", "1 blocked: blk1")
	want := map[string]int{"fra1": 1, "slow1": 2, "busy1": 2, "blk1": 1}
	if !maps.Equal(asked, want) || !maps.Equal(alone, map[string]bool{"slow1": true, "busy1": true}) {
		t.Errorf("asked %v, alone %v", asked, alone)
	}
	if op.Waves[0][3].Message != "its standby is not ready" {
		t.Errorf("%+v", op.Waves[0][3])
	}
}

// A wave goes on until the turn of the last PoP has come, however long the others have been through.
func TestAWaveWaitsForItsJitter(t *testing.T) {
	f := &fleets{}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{discard{}})
	env := suite.NewTestActivityEnvironment()
	a := &Activities{Fleets: f, Log: slog.New(slog.DiscardHandler)}
	registerActivities(env, a)
	late := waveLull + 200*time.Millisecond
	v, err := env.ExecuteActivity(waveActivity, WaveInput{Change: workflows.Change{Deadline: time.Minute}, Turns: []Turn{{Pop: "fra1"}, {Pop: "gru1", Delay: late}}})
	var reps []workflows.Report
	if err != nil || v.Get(&reps) != nil || len(reps) != 2 || reps[0].Pop != "fra1" || reps[1].Pop != "gru1" {
		t.Errorf("%+v, %v", reps, err)
	}
}

func TestBudgetStopsAndAsks(t *testing.T) {
	refuse := func(_ context.Context, c workflows.Change) (workflows.Report, error) {
		if c.Pop[0] == 'b' {
			return workflows.Report{}, problem.Preconditionf("", "its standby is not ready")
		}
		return workflows.Report{Step: workflows.Switched, From: workflows.Green, SwitchedAt: switchedAt}, nil
	}
	zero := 0
	req := workflows.Request{WaveSize: 1, MaxFailedPops: &zero}
	for verb, want := range map[workflows.Verb]workflows.State{workflows.Approve: workflows.Partial, workflows.Abort: workflows.Aborted} {
		f := &fleets{cutOver: refuse}
		r := rehearse(t, f)
		r.RegisterDelayedCallback(func() {
			var op workflows.Operation
			v, err := r.QueryWorkflow(operationQuery)
			if err != nil || v.Get(&op) != nil {
				t.Error(err)
			}
			if op.State != workflows.Waiting || len(f.asked) != 2 || !strings.Contains(op.Message, "approve") {
				t.Errorf("%s %s, asked %v", op.State, op.Message, f.asked)
			}
		}, time.Hour)
		wrong := r.decides(time.Hour, workflows.Resume)
		right := r.decides(2*time.Hour, verb)
		op := r.runs(asks(req, "fra1", "bom1", "gru1"))
		ended(t, op, want)
		if problem.KindOf(decode(wrong.err)) != problem.FailedPrecondition || wrong.accepted {
			t.Errorf("resume of a waiting operation: %v", wrong.err)
		}
		if !right.accepted || right.err != nil || len(op.Decisions) != 1 {
			t.Errorf("%s: %+v, %v", verb, right, op.Decisions)
		}
		if wantAsked := map[workflows.Verb]int{workflows.Approve: 3, workflows.Abort: 2}[verb]; len(f.asked) != wantAsked {
			t.Errorf("%s: asked %v", verb, f.asked)
		}
	}
}

func TestPauseHoldsTheNextWave(t *testing.T) {
	f := &fleets{}
	r := rehearse(t, f)
	req := workflows.Request{WaveSize: 1, ApproveWaves: true}
	r.decides(time.Hour, workflows.Approve)
	f.cutOver = func(_ context.Context, c workflows.Change) (workflows.Report, error) {
		if c.Pop == "gru1" { // the second wave is under way
			r.UpdateWorkflow(string(workflows.Pause), "", &answer{}, workflows.Decision{Principal: "ben", Reason: "I look", Key: "p"})
		}
		return workflows.Report{Step: workflows.Switched, From: workflows.Green, SwitchedAt: switchedAt}, nil
	}
	r.RegisterDelayedCallback(func() {
		if v, err := r.QueryWorkflow(operationQuery); err == nil {
			var op workflows.Operation
			if _ = v.Get(&op); op.State != workflows.Paused || len(f.asked) != 2 {
				t.Errorf("%s, asked %v", op.State, f.asked)
			}
		}
	}, 2*time.Hour)
	resumed := r.decides(3*time.Hour, workflows.Resume)
	approved := r.decides(4*time.Hour, workflows.Approve)
	op := r.runs(asks(req, "fra1", "gru1", "nrt1"))
	ended(t, op, workflows.Succeeded)
	if resumed.err != nil || approved.err != nil || len(op.Decisions) != 4 {
		t.Errorf("%v %v %v", resumed.err, approved.err, op.Decisions)
	}
}

func TestAbortWhileTheFleetServiceIsDown(t *testing.T) {
	f := &fleets{cutOver: func(context.Context, workflows.Change) (workflows.Report, error) {
		return workflows.Report{}, problem.Unavailablef("connection refused")
	}}
	r := rehearse(t, f)
	a := r.decides(5*time.Second, workflows.Abort)
	op := r.runs(asks(workflows.Request{WaveSize: 1}, "fra1", "gru1"))
	ended(t, op, workflows.Aborted, "aborted by ben: I looked", "1 failed: fra1", "1 skipped")
	if a.err != nil || op.Waves[0][0].Step != workflows.Broken || op.Waves[1][0].Step != workflows.Skipped {
		t.Errorf("%v %+v", a.err, op.Waves)
	}
	if took := op.EndedAt.Sub(op.StartedAt); took > 20*time.Second {
		t.Errorf("it went on for %v", took)
	}
}

func TestCancelInTemporalIsAnAbort(t *testing.T) {
	zero := 0
	r := rehearse(t, &fleets{cutOver: func(context.Context, workflows.Change) (workflows.Report, error) {
		return workflows.Report{}, problem.Preconditionf("", "no")
	}})
	r.RegisterDelayedCallback(r.CancelWorkflow, time.Hour)
	ended(t, r.runs(asks(workflows.Request{WaveSize: 1, MaxFailedPops: &zero}, "fra1", "gru1")), workflows.Aborted, "aborted by temporal")
}

func TestDrainIsFollowed(t *testing.T) {
	f := &fleets{watch: func(ctx context.Context, pops []string, on func(workflows.Observation) error) error {
		o := drained(pops[0])
		last := *o.Last
		stale := last
		stale.Key, stale.DeclaredAt = "earlier", switchedAt.Add(-time.Hour)
		seen := []*workflows.PopCutover{nil, &stale}
		for open := int64(100); open > 0; open-- {
			now := last
			now.Ended, now.DrainedAt = false, time.Time{}
			seen = append(seen, &now)
		}
		for i, l := range append(seen, &last) {
			o := o
			open := int64(102 - i)
			o.Last, o.Green = l, &open
			if err := on(o); err != nil {
				return err
			}
		}
		return errors.New("not reached")
	}}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{discard{}})
	env := suite.NewTestActivityEnvironment()
	a := &Activities{Fleets: f, Log: slog.New(slog.DiscardHandler)}
	env.RegisterActivity(a)
	v, err := env.ExecuteActivity(a.FollowDrain, DrainInput{Change: workflows.Change{Pop: "fra1", Key: runID + "/fra1/switch"},
		Switched: workflows.Report{Pop: "fra1", Step: workflows.Switched, SwitchedAt: switchedAt}})
	if err != nil {
		t.Fatal(err)
	}
	var rep workflows.Report
	if err := v.Get(&rep); err != nil || rep.Step != workflows.Done {
		t.Fatalf("%v %+v", err, rep)
	}
	if *rep.Drained != 0 || rep.DrainedAt.IsZero() {
		t.Errorf("%+v", rep)
	}
}

func TestHalves(t *testing.T) {
	for open, want := range map[string]string{
		"100 90 50 49 25 24 3 2 1 1 0 0":          "100 50 25 3 1 0",
		"0 0 7 0":                                 "0",
		"4096 2048 1024 512 256 128 64 32 16 8 4": "4096 2048 1024 512 256 128 64 32", // and no more than maxTold
	} {
		var h halves
		var told []string
		for _, s := range strings.Fields(open) {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if h.news(&n) {
				told = append(told, s)
			}
		}
		if got := strings.Join(told, " "); got != want || h.news(nil) {
			t.Errorf("of %s it told %s", open, got)
		}
	}
}

func TestDrainOfACutoverThatWasReplaced(t *testing.T) {
	f := &fleets{watch: func(_ context.Context, pops []string, on func(workflows.Observation) error) error {
		o := drained(pops[0])
		o.Last.Key, o.Last.DeclaredAt = "later", switchedAt.Add(time.Second)
		return on(o)
	}}
	// The drain ends; the traffic cannot be told of this way, so the measure waits until its limit.
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{discard{}})
	env := suite.NewTestActivityEnvironment()
	a := &Activities{Fleets: f, Log: slog.New(slog.DiscardHandler)}
	env.RegisterActivity(a)
	v, err := env.ExecuteActivity(a.FollowDrain, DrainInput{Change: workflows.Change{Pop: "fra1", Key: "ours"}, Switched: workflows.Report{SwitchedAt: switchedAt}})
	var rep workflows.Report
	if err != nil || v.Get(&rep) != nil || rep.Step != workflows.Done || !strings.Contains(rep.Message, "replaced") {
		t.Errorf("%v %+v", err, rep)
	}
}

func TestVerifyWaitsForRecoveryAndNotForEver(t *testing.T) {
	ratio := 0.4
	f := &fleets{watch: func(ctx context.Context, pops []string, on func(workflows.Observation) error) error {
		for {
			for _, p := range pops {
				if err := on(workflows.Observation{Pop: p, Traffic: &workflows.Traffic{Requests: 10, ErrorRatio: ratio, At: time.Now()}}); err != nil {
					return err
				}
			}
			if ratio -= 0.1; ratio < 0 {
				ratio = 0
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}}
	verify := func(in VerifyInput) workflows.Verification {
		var suite testsuite.WorkflowTestSuite
		suite.SetLogger(quiet{discard{}})
		env := suite.NewTestActivityEnvironment()
		a := &Activities{Fleets: f, Log: slog.New(slog.DiscardHandler)}
		env.RegisterActivity(a)
		v, err := env.ExecuteActivity(a.Verify, in)
		var out workflows.Verification
		if err != nil || v.Get(&out) != nil {
			t.Fatal(err)
		}
		return out
	}
	in := VerifyInput{Fleet: "edge", Switched: []workflows.SwitchedPop{{Pop: "fra1", At: switchedAt}}, MaxErrorRatio: 0.01, Limit: time.Minute}
	if v := verify(in); !v.Passed || v.Requests != 10 {
		t.Errorf("%+v", v)
	}
	in.Switched[0].At, in.Limit = time.Now().Add(time.Hour), 10*time.Millisecond
	if v := verify(in); v.Passed || len(v.Unknown) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestFailuresSurviveTheWire(t *testing.T) {
	p := problem.New(problem.AlreadyExists, "idempotency_key", "used").With("operation", "edge.1")
	got := decode(encode(p))
	if got.Kind != p.Kind || got.Field != p.Field || got.Sentence != p.Sentence || got.Meta["operation"] != "edge.1" {
		t.Errorf("%+v", got)
	}
	if encode(nil) != nil || decode(nil) != nil {
		t.Error("nil is a failure")
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("edge.01a207ca-d2ca-7b24-8197-782145e3a4ab")
	f.Add("a.b.01a207ca-d2ca-7b24-8197-782145e3a4ab")
	f.Add("fleet/edge")
	f.Fuzz(func(t *testing.T, id string) {
		w, r, err := parseID(id)
		if err != nil {
			if problem.KindOf(err) != problem.NotFound {
				t.Error(err)
			}
			return
		}
		if OperationID(strings.TrimPrefix(w, idPrefix), r) != id || strings.ContainsAny(id, "'/% ") {
			t.Errorf("%q is taken for %q %q", id, w, r)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add("")
	f.Add("bm9uZQ")
	f.Add(makeToken([]byte("page 2")))
	f.Fuzz(func(t *testing.T, token string) {
		if page, ok := parseToken(token); ok && len(page) > 0 {
			if again, ok := parseToken(makeToken(page)); !ok || string(again) != string(page) {
				t.Errorf("%q is taken for %q", token, page)
			}
		}
	})
}
