package workflows

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
)

var noon = time.Date(2026, 1, 22, 12, 0, 0, 0, time.UTC)

// step is a small script: what happens to a run, and how it stands after that.
type script struct {
	t   *testing.T
	run *Run
	at  time.Time
}

// begin plans pops, whose names say what they are: "b…" is blocked, "a…" serves the target already.
func begin(t *testing.T, req Request, pops ...string) *script {
	t.Helper()
	if req.Kind == "" {
		req.Kind = Rollback
	}
	req.Fleet, req.Pops = "edge", pops
	start := Start{Request: req, Principal: "ana", Reason: "v2 answers 500", Key: "k"}
	if err := start.Validate(); err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, run: NewRun("edge.1", start, noon), at: noon}
	if m := s.run.Next(s.at); m.Do != Preflight {
		t.Fatalf("first move %v", m)
	}
	s.run.Planned(plan(pops...), s.at)
	return s
}

func plan(pops ...string) Plan {
	p := Plan{To: Blue, At: noon}
	for _, name := range pops {
		pp := PopPlan{Pop: name, From: Green}
		switch name[0] {
		case 'b':
			pp.Blocked = "its standby is not ready"
		case 'a':
			pp.Already = true
		}
		p.Pops = append(p.Pops, pp)
	}
	return p
}

// moves checks what Next wants: "switch fra1 gru1", "wait", "measure", "cancel", "end".
func (s *script) moves(want string) *script {
	s.t.Helper()
	s.at = s.at.Add(time.Second)
	m := s.run.Next(s.at)
	got := strings.Join(append([]string{string(m.Do)}, m.Pops...), " ")
	if got != want {
		s.t.Fatalf("wants to %q, not %q; %s: %s", got, want, s.run.op.State, s.run.op.Message)
	}
	return s
}

func (s *script) stands(state State, words ...string) *script {
	s.t.Helper()
	op := s.run.Operation()
	if op.State != state {
		s.t.Fatalf("is %s, not %s: %s", op.State, state, op.Message)
	}
	for _, w := range words {
		if !strings.Contains(op.Message, w) {
			s.t.Fatalf("message %q lacks %q", op.Message, w)
		}
	}
	return s
}

func (s *script) switches(pops ...string) *script {
	for _, p := range pops {
		s.run.Reported(Report{Pop: p, Step: Switched, SwitchedAt: s.at})
	}
	return s
}

func (s *script) ends(step Step, pops ...string) *script {
	for _, p := range pops {
		s.run.Ended(Report{Pop: p, Step: step, Message: "because"})
	}
	return s
}

func (s *script) decides(v Verb) *script {
	s.t.Helper()
	if _, err := s.run.Decide(decision(v, string(v)), s.at); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func decision(v Verb, key string) Decision {
	return Decision{Verb: v, Principal: "ben", Reason: "I looked", Key: key}
}

func (s *script) verified(ratio float64, unknown ...string) *script {
	s.run.Verified(Verification{ErrorRatio: &ratio, MaxErrorRatio: 0.01, Requests: 100, Passed: ratio <= 0.01 && len(unknown) == 0, Unknown: unknown})
	return s
}

func ptr[T any](v T) *T { return &v }

func TestAllAtOnce(t *testing.T) {
	s := begin(t, Request{}, "fra1", "gru1", "nrt1")
	s.moves("switch fra1 gru1 nrt1").moves("wait").stands(Running, "0 of 3 PoPs serve blue", "3 switching")
	s.switches("fra1", "gru1").moves("wait").switches("nrt1").moves("measure").moves("wait").stands(Running, "measuring", "3 draining")
	s.ends(Done, "fra1", "gru1", "nrt1").moves("wait")
	s.verified(0.001).moves("end").stands(Succeeded, "3 of 3 PoPs serve blue", "error ratio 0.0010 over 100 requests").moves("end")
}

func TestEveryPopServesTheTargetAlready(t *testing.T) {
	begin(t, Request{}, "ams1", "arn1").moves("end").stands(Succeeded, "2 of 2 PoPs serve blue")
}

func TestBlockedPopIsLeftAndTheOthersGoOn(t *testing.T) {
	s := begin(t, Request{}, "fra1", "bom1", "gru1")
	s.moves("switch fra1 gru1").switches("fra1", "gru1").moves("measure").verified(0).ends(Done, "fra1", "gru1").moves("end")
	s.stands(Partial, "2 of 3", "1 blocked: bom1", "ask again with blue")
}

func TestNoPopWasChanged(t *testing.T) {
	begin(t, Request{}, "bom1", "ams1").moves("end").stands(Failed, "no PoP was changed", "1 blocked: bom1")
	s := begin(t, Request{}, "fra1", "gru1", "nrt1", "syd1")
	s.moves("switch fra1 gru1 nrt1 syd1").ends(Broken, "fra1").ends(Blocked, "gru1", "nrt1").ends(Already, "syd1")
	s.moves("end").stands(Failed, "1 of 4", "2 blocked: gru1 nrt1, 1 failed: fra1")
}

func TestAsksBeforeItTouchesAnythingWhenTooManyAreBlocked(t *testing.T) {
	s := begin(t, Request{}, "bom1", "bog1", "fra1", "gru1", "nrt1")
	s.moves("wait").stands(Waiting, "2 PoPs are blocked or failed, more than the 1 allowed", "other 3", "approve", "abort")
	s.decides(Approve).moves("switch fra1 gru1 nrt1")

	s = begin(t, Request{}, "bom1", "bog1", "fra1", "gru1", "nrt1")
	s.moves("wait").decides(Abort).moves("end").stands(Aborted, "aborted by ben: I looked", "0 of 5")
}

func TestAsksBetweenWavesWhenTooManyFail(t *testing.T) {
	s := begin(t, Request{WaveSize: 2, MaxFailedPops: ptr(1)}, "fra1", "gru1", "nrt1", "syd1", "mia1", "lhr1", "mad1", "mrs1")
	s.moves("switch fra1 gru1").ends(Broken, "fra1").switches("gru1").moves("switch nrt1 syd1").ends(Broken, "nrt1").switches("syd1")
	s.moves("wait").stands(Waiting, "2 PoPs are", "other 4")
	// An approval forgives what has failed so far, and nothing more.
	s.decides(Approve).moves("switch mia1 lhr1").ends(Broken, "mia1", "lhr1").moves("wait").stands(Waiting, "2 PoPs are")
	s.decides(Abort).moves("cancel").moves("wait").stands(Running, "aborting").ends(Done, "gru1", "syd1").moves("end")
	s.stands(Aborted, "2 of 8", "4 failed", "2 skipped")
}

func TestNothingIsAskedWhenNothingIsLeft(t *testing.T) {
	s := begin(t, Request{MaxFailedPops: ptr(0)}, "fra1", "gru1", "ams1")
	s.moves("switch fra1 gru1").ends(Broken, "fra1").switches("gru1").moves("measure").verified(0).ends(Done, "gru1").moves("end").stands(Partial)
}

func TestFirstPopGoesAlone(t *testing.T) {
	s := begin(t, Request{FirstPop: "nrt1"}, "fra1", "gru1", "nrt1")
	s.moves("switch nrt1").moves("wait").switches("nrt1").moves("switch fra1 gru1")

	s = begin(t, Request{FirstPop: "nrt1"}, "fra1", "gru1", "nrt1")
	s.moves("switch nrt1").ends(Broken, "nrt1").moves("wait").stands(Waiting, "first PoP nrt1 did not switch (because)")
	s.decides(Approve).moves("switch fra1 gru1")

	s = begin(t, Request{FirstPop: "bom1", MaxFailedPops: ptr(0)}, "fra1", "gru1", "bom1")
	s.moves("wait").stands(Waiting, "more than the 0 allowed").decides(Approve).moves("switch fra1 gru1")

	s = begin(t, Request{FirstPop: "bom1"}, "fra1", "gru1", "bom1")
	s.moves("wait").stands(Waiting, "first PoP bom1")
}

func TestWavesCountPopsThatHaveSomethingToDo(t *testing.T) {
	s := begin(t, Request{WaveSize: 2}, "ams1", "fra1", "bom1", "gru1", "nrt1", "arn1", "syd1", "mia1")
	s.moves("switch fra1 gru1").switches("fra1", "gru1").moves("switch nrt1 syd1").switches("nrt1", "syd1").moves("switch mia1")
}

func TestWavesAreApproved(t *testing.T) {
	s := begin(t, Request{WaveSize: 1, ApproveWaves: true}, "fra1", "gru1", "nrt1")
	s.moves("switch fra1").switches("fra1").moves("wait").stands(Waiting, "wave 1 of 3 has switched", "begin with wave 2")
	s.decides(Approve).moves("switch gru1").switches("gru1").moves("wait").stands(Waiting, "wave 2 of 3")
	if _, err := s.run.Decide(decision(Approve, "again"), noon); err != nil {
		t.Fatal(err)
	}
	s.moves("switch nrt1")
}

func TestPauseAndResume(t *testing.T) {
	s := begin(t, Request{WaveSize: 1}, "fra1", "gru1")
	s.moves("switch fra1").decides(Pause).moves("wait").stands(Paused, "resume or abort").switches("fra1").moves("wait").stands(Paused)
	s.decides(Resume).moves("switch gru1").stands(Running)
}

func TestAbortWhileItIsPlanned(t *testing.T) {
	r := NewRun("edge.1", Start{Request: Request{Kind: Rollback, Fleet: "edge", All: true}, Principal: "ana", Reason: "x", Key: "k"}, noon)
	s := &script{t: t, run: r, at: noon}
	s.moves("preflight").decides(Abort).moves("end").stands(Aborted, "no PoP was touched")
	r.Planned(plan("fra1"), noon) // it comes too late
	s.moves("end").stands(Aborted)
}

func TestRefused(t *testing.T) {
	r := NewRun("edge.1", Start{Request: Request{Kind: Rollback, Fleet: "edge", All: true}, Principal: "ana", Reason: "x", Key: "k"}, noon)
	r.Next(noon)
	r.Refused(problem.NotFoundf("fleet", "no PoP has it"), noon)
	(&script{t: t, run: r, at: noon}).stands(Failed, "nothing was changed: fleet: no PoP has it").moves("end")
}

func TestDrainOfAnAbortedOperationGoesOnByItself(t *testing.T) {
	s := begin(t, Request{}, "fra1", "gru1")
	s.moves("switch fra1 gru1").switches("fra1", "gru1").moves("measure").decides(Abort).moves("cancel").ends(Draining, "fra1", "gru1").moves("end")
	s.stands(Aborted, "2 of 2", "2 PoPs finish their drains")
}

func TestSwitchedBackWhileDraining(t *testing.T) {
	s := begin(t, Request{}, "fra1", "gru1")
	s.moves("switch fra1 gru1").switches("fra1", "gru1").moves("measure").verified(0).ends(Broken, "fra1").ends(Done, "gru1").moves("end")
	s.stands(Partial, "1 of 2", "1 failed: fra1")
}

func TestErrorsAfterTheSwitch(t *testing.T) {
	s := begin(t, Request{}, "fra1")
	s.moves("switch fra1").switches("fra1").moves("measure").verified(0.3).ends(Done, "fra1").moves("end")
	// What is served and what is healthy are two questions.
	s.stands(Succeeded, "error ratio 0.3000", "above the limit of 0.01", "look at the edge")
	s = begin(t, Request{}, "fra1")
	s.moves("switch fra1").switches("fra1").moves("measure").verified(0, "fra1").ends(Done, "fra1").moves("end").stands(Succeeded, "fra1 could not tell", "look at the edge")
}

func TestDecisionsThatCannotBe(t *testing.T) {
	waiting := begin(t, Request{}, "bom1", "bog1", "fra1").moves("wait").run
	running := begin(t, Request{WaveSize: 1}, "fra1", "gru1").moves("switch fra1").run
	begun := begin(t, Request{}, "fra1").moves("switch fra1").run
	ended := begin(t, Request{}, "ams1").moves("end").run
	aborting := begin(t, Request{}, "fra1").moves("switch fra1").decides(Abort).run
	for _, c := range []struct {
		run  *Run
		d    Decision
		kind problem.Kind
		says string
	}{
		{running, decision(Approve, "k"), problem.FailedPrecondition, "asks nothing"},
		{running, decision(Resume, "k"), problem.FailedPrecondition, "not paused"},
		{waiting, decision(Pause, "k"), problem.FailedPrecondition, "approve or abort"},
		{waiting, decision(Resume, "k"), problem.FailedPrecondition, "not paused"},
		{begun, decision(Pause, "k"), problem.FailedPrecondition, "every PoP has begun"},
		{ended, decision(Abort, "k"), problem.FailedPrecondition, "ended as SUCCEEDED"},
		{aborting, decision(Abort, "other"), problem.FailedPrecondition, "being aborted"},
		{running, decision("undo", "k"), problem.Invalid, "undo"},
		{running, Decision{Verb: Abort, Principal: "ben", Key: "k"}, problem.Invalid, "reason"},
		{running, Decision{Verb: Abort, Principal: "ben", Reason: "x"}, problem.Invalid, "idempotency_key"},
		{running, Decision{Verb: Abort, Reason: "x", Key: "k"}, problem.Invalid, "principal"},
	} {
		before := c.run.Operation()
		_, err := c.run.Decide(c.d, noon)
		if problem.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s in %s: %v", c.d.Verb, before.State, err)
		}
		if c.run.Revision() != before.Revision {
			t.Errorf("%s in %s changed something", c.d.Verb, before.State)
		}
	}
}

func TestRepeatedKeyIsTheSameDecision(t *testing.T) {
	r := begin(t, Request{WaveSize: 1}, "fra1", "gru1").moves("switch fra1").run
	first, err := r.Decide(decision(Pause, "k"), noon)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Decide(decision(Pause, "k"), noon.Add(time.Hour))
	if err != nil || again != first || len(r.Operation().Decisions) != 1 {
		t.Fatalf("%v %v", again, err)
	}
	if _, err := r.Decide(decision(Resume, "k"), noon); problem.KindOf(err) != problem.AlreadyExists {
		t.Fatalf("another decision under the same key: %v", err)
	}
}

func TestDecisionsAreBounded(t *testing.T) {
	r := begin(t, Request{WaveSize: 1}, "fra1", "gru1").moves("switch fra1").run
	for i := range maxDecisions {
		if _, err := r.Decide(decision([]Verb{Pause, Resume}[i%2], fmt.Sprint(i)), noon); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Decide(decision(Pause, "more"), noon); problem.KindOf(err) != problem.ResourceExhausted {
		t.Fatal(err)
	}
	if _, err := r.Decide(decision(Abort, "stop"), noon); err != nil {
		t.Fatal(err)
	}
}

func TestLateReportsTakeNothingBack(t *testing.T) {
	s := begin(t, Request{}, "fra1", "gru1").moves("switch fra1 gru1").switches("fra1")
	s.run.Reported(Report{Pop: "fra1", Step: Switching})
	s.run.Reported(Report{Pop: "unknown", Step: Done})
	s.ends(Done, "fra1").ends(Broken, "fra1", "unknown")
	if p := s.run.Operation().Waves[0][0]; p.Step != Done {
		t.Fatal(p)
	}
	s.moves("wait") // for gru1
}

func TestRequestsThatCannotBe(t *testing.T) {
	good := func() Start {
		return Start{Principal: "ana", Reason: "x", Key: "k", Request: Request{Kind: Cutover, Fleet: "edge", Pops: []string{"fra1"}, To: Green}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Start){
		"principal":                      func(s *Start) { s.Principal = "" },
		"reason":                         func(s *Start) { s.Reason = "" },
		"idempotency_key":                func(s *Start) { s.Key = strings.Repeat("k", 129) },
		"global_cutover.kind":            func(s *Start) { s.Request.Kind = "sideways" },
		"global_cutover.fleet":           func(s *Start) { s.Request.Fleet = "Edge'" },
		"global_cutover.scope":           func(s *Start) { s.Request.Pops = nil },
		"global_cutover.scope.pops[1]":   func(s *Start) { s.Request.Pops = []string{"fra1", "fra1"} },
		"global_cutover.scope.pops[0]":   func(s *Start) { s.Request.Pops = []string{""} },
		"global_cutover.scope.pops":      func(s *Start) { s.Request.Pops = make([]string, MaxPops+1) },
		"global_cutover.to":              func(s *Start) { s.Request.To = None },
		"global_cutover.version":         func(s *Start) { s.Request.Version = strings.Repeat("v", 129) },
		"global_cutover.first_pop":       func(s *Start) { s.Request.FirstPop = "gru1" },
		"global_cutover.wave_size":       func(s *Start) { s.Request.WaveSize = -1 },
		"global_cutover.approve_waves":   func(s *Start) { s.Request.ApproveWaves = true },
		"global_cutover.jitter":          func(s *Start) { s.Request.Jitter = ptr(2 * time.Minute) },
		"global_cutover.max_failed_pops": func(s *Start) { s.Request.MaxFailedPops = ptr(-1) },
		"global_cutover.max_error_ratio": func(s *Start) { s.Request.MaxErrorRatio = ptr(math.NaN()) },
		"global_cutover.deadline":        func(s *Start) { s.Request.Deadline = -time.Second },
	} {
		s := good()
		change(&s)
		var p *problem.Error
		if err := s.Validate(); !errors.As(err, &p) || p.Kind != problem.Invalid || p.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	both := good()
	both.Request.All = true
	if err := both.Validate(); err == nil {
		t.Error("PoPs and all together")
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	for want, req := range map[string]Request{"no PoP is in the scope": {}, `nothing was changed: global_cutover.first_pop: "nrt1" is not in the scope; there is fra1`: {FirstPop: "nrt1"}} {
		r := NewRun("edge.1", Start{Request: Request{Kind: Rollback, Fleet: "edge", All: true, FirstPop: req.FirstPop}}, noon)
		r.Next(noon)
		p := Plan{To: Blue}
		if req.FirstPop != "" {
			p = plan("fra1")
		}
		r.Planned(p, noon)
		(&script{t: t, run: r, at: noon}).stands(Failed, want).moves("end")
	}
}

// TestAnyCourse plays operations with any plan, any answers and any decisions.
func TestAnyCourse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pops []string
		for i := range rapid.IntRange(1, 24).Draw(t, "pops") {
			pops = append(pops, rapid.SampledFrom([]string{"f", "f", "f", "b", "a"}).Draw(t, "kind")+fmt.Sprint(i))
		}
		req := Request{Kind: Rollback, Fleet: "edge", Pops: pops, WaveSize: rapid.IntRange(0, 8).Draw(t, "wave")}
		if rapid.Bool().Draw(t, "limited") {
			req.MaxFailedPops = ptr(rapid.IntRange(0, len(pops)).Draw(t, "budget"))
		}
		if rapid.Bool().Draw(t, "first") {
			req.FirstPop = rapid.SampledFrom(pops).Draw(t, "first pop")
		}
		req.ApproveWaves = (req.WaveSize > 0 || req.FirstPop != "") && rapid.Bool().Draw(t, "approve waves")
		r := NewRun("edge.1", Start{Request: req, Principal: "ana", Reason: "x", Key: "k"}, noon)

		begun := map[string]bool{}
		var open, draining []string // switching; switched and followed
		aborted, approved, measuring := false, false, false
		key := 0
		for moves := 0; ; moves++ {
			if moves > 2000 {
				t.Fatalf("it does not end: %+v", r.Operation())
			}
			revision := r.Revision()
			m := r.Next(noon)
			if r.Revision() < revision {
				t.Fatal("the revision fell")
			}
			failures := r.failures()
			switch m.Do {
			case Preflight:
				r.Planned(plan(pops...), noon)
				continue
			case Switch:
				if aborted {
					t.Fatal("begins with PoPs after an abort")
				}
				if !approved && failures > r.budget() {
					t.Fatalf("begins with %v although %d have failed, and %d may", m.Pops, failures, r.budget())
				}
				if req.WaveSize > 0 && len(m.Pops) > req.WaveSize {
					t.Fatalf("%d PoPs in a wave of %d", len(m.Pops), req.WaveSize)
				}
				for _, p := range m.Pops {
					if begun[p] || p[0] != 'f' {
						t.Fatalf("begins with %s, which it must not", p)
					}
					begun[p] = true
				}
				open = append(open, m.Pops...)
				continue
			case Measure:
				measuring = true
				continue
			case Cancel:
				if !aborted {
					t.Fatal("cancels without an abort")
				}
				continue
			case End:
				op := r.Operation()
				if !op.State.Ended() || op.EndedAt.IsZero() || len(open)+len(draining) > 0 {
					t.Fatalf("ended with %v %v under way: %+v", open, draining, op)
				}
				serving := 0
				for _, w := range op.Waves {
					for _, p := range w {
						if p.Step == Pending || p.Step == Switching {
							t.Fatalf("ended with %s %s", p.Name, p.Step)
						}
						if p.Step.Serves() {
							serving++
						}
					}
				}
				if (op.State == Succeeded) != (serving == len(pops)) && op.State != Aborted {
					t.Fatalf("%s with %d of %d", op.State, serving, len(pops))
				}
				return
			}
			// Something happens, to a PoP or by a person.
			options := []string{"decide"}
			if len(open) > 0 {
				options = append(options, "switched", "switched", "switched", "failed")
			}
			if len(draining) > 0 {
				options = append(options, "drained", "drained", "reverted")
			}
			if measuring {
				options = append(options, "measured")
			}
			take := func(from *[]string) string {
				i := rapid.IntRange(0, len(*from)-1).Draw(t, "which")
				p := (*from)[i]
				*from = slices.Delete(*from, i, i+1)
				return p
			}
			switch rapid.SampledFrom(options).Draw(t, "event") {
			case "switched":
				p := take(&open)
				r.Reported(Report{Pop: p, Step: Switched, SwitchedAt: noon})
				draining = append(draining, p)
			case "failed":
				r.Ended(Report{Pop: take(&open), Step: rapid.SampledFrom([]Step{Broken, Blocked, Already, Skipped}).Draw(t, "end")})
			case "drained":
				r.Ended(Report{Pop: take(&draining), Step: rapid.SampledFrom([]Step{Done, Draining}).Draw(t, "end")})
			case "reverted":
				r.Ended(Report{Pop: take(&draining), Step: Broken})
			case "measured":
				measuring = false
				r.Verified(Verification{})
			case "decide":
				key++
				v := rapid.SampledFrom([]Verb{Approve, Approve, Approve, Pause, Resume, Resume, Abort}).Draw(t, "verb")
				d := decision(v, fmt.Sprint(key))
				checked := r.Check(d)
				_, err := r.Decide(d, noon)
				if (err == nil) != (checked == nil) {
					t.Fatalf("check says %v and decide %v", checked, err)
				}
				approved = approved || err == nil && v == Approve
				aborted = aborted || err == nil && v == Abort
			}
		}
	})
}

func TestWhatSupersedes(t *testing.T) {
	forward := func(to Colour) Request { return Request{Kind: Cutover, Fleet: "edge", All: true, To: to} }
	back := Request{Kind: Rollback, Fleet: "edge", All: true}
	named := back
	named.To = Green
	for _, c := range []struct {
		name         string
		start, under Request
		want         Colour // None when it is refused
	}{
		{"back from where the cutover goes", back, forward(Green), Blue},
		{"back from where the cutover goes", back, forward(Blue), Green},
		{"a named colour stays", named, forward(Green), Green},
		{"a named colour stays", named, back, Green},
		{"a cutover names its colour", forward(Blue), forward(Blue), Blue},
		{"a rollback from a rollback is a guess", back, back, None},
		{"a rollback from a rollback is a guess", back, named, None},
	} {
		got, err := c.start.Superseding(c.under)
		if c.want == None {
			if problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "global_cutover.to") {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
			continue
		}
		if err != nil || got.To != c.want || got.Kind != c.start.Kind {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestTheSupersedingStartIsADecisionOfItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Start{Request: Request{Kind: Rollback, Fleet: "edge", All: true}, Principal: "ana",
			Reason: rapid.StringN(1, -1, maxReason).Draw(t, "reason"), Key: rapid.StringN(1, -1, maxKey).Draw(t, "key")}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		run := NewRun("edge.1", Start{Request: s.Request, Principal: "ben", Reason: "v2", Key: s.Key}, noon)
		d, err := run.Decide(s.Superseded(), noon)
		if err != nil || !utf8.ValidString(d.Reason) || !strings.HasPrefix(d.Reason, "superseded by a rollback: ") {
			t.Fatalf("%+v, %v", d, err)
		}
		if run.Next(noon).Do != End || run.State() != Aborted {
			t.Fatal(run.Operation())
		}
	})
}
