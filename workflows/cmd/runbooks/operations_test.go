package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	libclient "edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/proto/edgehold/runbook/v1/runbookv1connect"
	"edgehold.internal/workflows/fake"
	"edgehold.internal/workflows/temporal"
)

var record = flag.Bool("record", false, "write the histories of TestRecordedCourses to temporal/testdata")

// TestOperations has one engine for all of its parts, each with a fleet, a task queue and a process of its own.
func TestOperations(t *testing.T) {
	server := engine(t, t.TempDir(), 0)
	for name, part := range map[string]func(*stage){
		"rollback": everyPopRollsBack, "keys": keysAreKept, "two starts": twoStarts, "decisions": decisions, "bad input": badInput,
		"wrong ids": wrongIDs, "two processes": workerAndServiceApart, "watchers": watchersShare, "drain": drainIsShown, "kill": workerIsKilled,
		"supersede": aRollbackSupersedes, "supersede at once": supersedeAtOnce, "abort while switching": abortWhileSwitching,
		"abort while verifying": abortWhileVerifying,
	} {
		t.Run(name, func(t *testing.T) { part(open(t, server, 6)) })
	}
}

func everyPopRollsBack(s *stage) {
	op := s.ends(s.begins(s.request("k")), runbookv1.State_STATE_SUCCEEDED)
	if !op.GetVerification().GetPassed() || steps(op)[runbookv1.Step_STEP_DONE] != 6 || op.GetTo() != fleetv1.Colour_COLOUR_GREEN {
		s.Fatal(op)
	}
	for _, p := range op.GetWaves()[0].GetPops() {
		if p.GetConnectionsDrained() != 100 || p.GetSwitchedAt() == nil || p.GetDrainedAt() == nil || p.GetFrom() != fleetv1.Colour_COLOUR_BLUE {
			s.Errorf("%v", p)
		}
	}
	got, err := s.GetOperation(s.ctx, &runbookv1.GetOperationRequest{Id: op.GetId()})
	if err != nil || !proto.Equal(got.GetOperation(), op) {
		s.Errorf("%v %v", got, err)
	}
	s.eventually(func() error {
		list, err := s.ListOperations(s.ctx, &runbookv1.ListOperationsRequest{Fleet: s.Fleet})
		if err != nil || len(list.GetOperations()) != 1 || list.GetOperations()[0].GetMessage() != op.GetMessage() || len(list.GetOperations()[0].GetWaves()) != 0 {
			return fmt.Errorf("%v %v", list, err)
		}
		return nil
	})
	// And back again, by name this time; the same colour once more changes nothing.
	forward := s.request("forward")
	forward.GetGlobalCutover().Kind, forward.GetGlobalCutover().To = runbookv1.Kind_KIND_CUTOVER, fleetv1.Colour_COLOUR_BLUE
	s.ends(s.begins(forward), runbookv1.State_STATE_SUCCEEDED)
	forward.IdempotencyKey = "once more"
	op = s.ends(s.begins(forward), runbookv1.State_STATE_SUCCEEDED)
	if steps(op)[runbookv1.Step_STEP_ALREADY] != 6 {
		s.Error(op)
	}
	s.eventually(func() error {
		pages := 0
		for token := ""; pages == 0 || token != ""; pages++ {
			list, err := s.ListOperations(s.ctx, &runbookv1.ListOperationsRequest{Fleet: s.Fleet, PageSize: 1, PageToken: token})
			if err != nil {
				return err
			}
			token = list.GetNextPageToken()
		}
		if pages < 3 {
			return fmt.Errorf("%d pages of one operation each, of three", pages)
		}
		return nil
	})
	c, err := client.Dial(client.Options{HostPort: s.engine.address})
	if err != nil {
		s.Fatal(err)
	}
	defer c.Close()
	for query, want := range map[string]int64{
		"EdgeholdFleet = '" + s.Fleet + "' AND WorkflowType = 'GlobalCutover' AND EdgeholdState = 'SUCCEEDED'": 3,
		"EdgeholdKey = 'forward' AND EdgeholdFleet = '" + s.Fleet + "'":                                        1,
		"EdgeholdPop = 'pop003' AND EdgeholdState = 'DONE' AND EdgeholdFleet = '" + s.Fleet + "'":              2,
	} {
		s.eventually(func() error {
			n, err := c.CountWorkflow(s.ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: query})
			if err != nil || n.GetCount() != want {
				return fmt.Errorf("%s: %d of %d, %v", query, n.GetCount(), want, err)
			}
			return nil
		})
	}
}

func keysAreKept(s *stage) {
	first := s.begins(s.request("k"))
	if again := s.begins(s.request("k")); again != first {
		s.Errorf("while it runs the key makes %s", again)
	}
	s.ends(first, runbookv1.State_STATE_SUCCEEDED)
	if again := s.begins(s.request("k")); again != first {
		s.Errorf("after its end the key makes %s", again)
	}
	again := s.request("k2")
	_, err := s.Start(s.ctx, again)
	refused(s, err, problem.FailedPrecondition, "nothing to roll back")
	other := s.request("k3")
	other.GetGlobalCutover().Kind, other.GetGlobalCutover().To = runbookv1.Kind_KIND_CUTOVER, fleetv1.Colour_COLOUR_BLUE
	s.ends(s.begins(other), runbookv1.State_STATE_SUCCEEDED)
	if again := s.begins(s.request("k")); again != first {
		s.Errorf("after another operation the key makes %s", again)
	}
	changed := s.request("k")
	changed.Reason = "something else"
	_, err = s.Start(s.ctx, changed)
	refused(s, err, problem.AlreadyExists, first)
	for pop, n := range s.Switches() {
		if n != 2 {
			s.Errorf("PoP %s was switched %d times by 2 operations", pop, n)
		}
	}
}

func refused(s *stage, err error, kind problem.Kind, says string) {
	s.Helper()
	if problem.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		s.Errorf("refused with %v %v; want %v with %q", problem.KindOf(err), err, kind, says)
	}
}

func twoStarts(s *stage) {
	s.SwitchTime = time.Second
	var wg sync.WaitGroup
	ids, errs := make([]string, 4), make([]error, 4)
	for i := range ids {
		wg.Go(func() {
			res, err := s.Start(s.ctx, s.request([]string{"a", "b", "c", "a"}[i]))
			ids[i], errs[i] = res.GetOperation().GetId(), err
		})
	}
	wg.Wait()
	winner := slices.Max(ids)
	for i, err := range errs {
		if err == nil {
			if ids[i] != winner {
				s.Errorf("two operations at once: %v", ids)
			}
			continue
		}
		refused(s, err, problem.AlreadyExists, winner)
		var p *problem.Error
		if errors.As(err, &p) && p.Meta["operation"] != winner {
			s.Errorf("the error's details name %q", p.Meta["operation"])
		}
	}
	s.ends(winner, runbookv1.State_STATE_SUCCEEDED)
	s.onceEach()
}

func decisions(s *stage) {
	r := s.request("k")
	r.GetGlobalCutover().WaveSize, r.GetGlobalCutover().ApproveWaves = 2, true
	id := s.begins(r)
	waiting := func(op *runbookv1.Operation) bool { return op.GetState() == runbookv1.State_STATE_WAITING }
	if op := s.until(id, waiting); steps(op)[runbookv1.Step_STEP_PENDING] != 4 {
		s.Fatal(op)
	}
	_, err := s.Pause(s.ctx, &runbookv1.PauseRequest{Act: act(id, "p")})
	refused(s, err, problem.FailedPrecondition, "approve or abort")
	_, err = s.Resume(s.ctx, &runbookv1.ResumeRequest{Act: act(id, "p")})
	refused(s, err, problem.FailedPrecondition, "not paused")
	approved, err := s.Approve(s.ctx, &runbookv1.ApproveRequest{Act: act(id, "a")})
	if err != nil || len(approved.GetOperation().GetDecisions()) != 1 || approved.GetOperation().GetDecisions()[0].GetPrincipal() != "local" {
		s.Fatal(approved, err)
	}
	s.until(id, func(op *runbookv1.Operation) bool { return waiting(op) && steps(op)[runbookv1.Step_STEP_PENDING] == 2 })
	again, err := s.Approve(s.ctx, &runbookv1.ApproveRequest{Act: act(id, "a")})
	if err != nil || len(again.GetOperation().GetDecisions()) != 1 || again.GetOperation().GetState() != runbookv1.State_STATE_WAITING {
		s.Errorf("the key once more: %v %v", again, err)
	}
	other := act(id, "a")
	other.Reason = "for another reason"
	_, err = s.Approve(s.ctx, &runbookv1.ApproveRequest{Act: other})
	refused(s, err, problem.AlreadyExists, "another key")
	if _, err := s.Abort(s.ctx, &runbookv1.AbortRequest{Act: act(id, "x")}); err != nil {
		s.Fatal(err)
	}
	op := s.ends(id, runbookv1.State_STATE_ABORTED)
	if n := steps(op); n[runbookv1.Step_STEP_SKIPPED] != 2 || len(s.Switches()) != 4 || len(op.GetDecisions()) != 2 {
		s.Errorf("%v, %v", op, s.Switches())
	}
	if _, err := s.Abort(s.ctx, &runbookv1.AbortRequest{Act: act(id, "x")}); err != nil {
		s.Errorf("the abort once more, after the end: %v", err)
	}
	_, err = s.Abort(s.ctx, &runbookv1.AbortRequest{Act: act(id, "y")})
	refused(s, err, problem.FailedPrecondition, "ended as ABORTED")
}

// forward is a cutover of the stage's fleet to green.
func (s *stage) forward(key string) *runbookv1.StartRequest {
	r := s.request(key)
	r.Reason = "release v2"
	r.GetGlobalCutover().Kind, r.GetGlobalCutover().To = runbookv1.Kind_KIND_CUTOVER, fleetv1.Colour_COLOUR_GREEN
	return r
}

// verifying says whether every PoP has switched, and the operation is still to be waited for.
func verifying(op *runbookv1.Operation) bool {
	return steps(op)[runbookv1.Step_STEP_DRAINING] == 6 && strings.Contains(op.GetMessage(), "measuring")
}

func aRollbackSupersedes(s *stage) {
	s.DrainTime, s.ErrorRatio = time.Hour, nil
	first := s.forward("release")
	first.Supersede = true // where nothing is under way it is a start like any other
	release := s.begins(first)
	s.until(release, verifying)
	_, err := s.Start(s.ctx, s.request("back"))
	refused(s, err, problem.AlreadyExists, "--supersede")
	refused(s, err, problem.AlreadyExists, "edgehold operation abort "+release)
	wrong := s.request("back")
	wrong.Supersede, wrong.GetGlobalCutover().Scope = true, pops("atlantis")
	_, err = s.Start(s.ctx, wrong)
	refused(s, err, problem.NotFound, "atlantis")
	if got, err := s.GetOperation(s.ctx, &runbookv1.GetOperationRequest{Id: release}); err != nil || got.GetOperation().GetState() != runbookv1.State_STATE_RUNNING {
		s.Fatalf("a start that cannot work has ended the one under way: %v %v", got, err)
	}

	back := s.request("back")
	back.Supersede = true
	before := time.Now()
	id := s.begins(back)
	took := time.Since(before)
	if s.Logf("superseded after %v", took); took > 5*time.Second {
		s.Errorf("superseding took %v", took)
	}
	op := s.until(id, verifying)
	if op.GetSupersedes() != release || op.GetTo() != fleetv1.Colour_COLOUR_BLUE {
		s.Errorf("%v", op)
	}
	old := s.ends(release, runbookv1.State_STATE_ABORTED)
	if d := old.GetDecisions(); len(d) != 1 || d[0].GetVerb() != "abort" || d[0].GetReason() != "superseded by a rollback: "+back.GetReason() ||
		!strings.Contains(old.GetMessage(), "6 PoPs finish their drains") {
		s.Errorf("%v", old)
	}
	for pop, colour := range s.Active() {
		if colour != fleetv1.Colour_COLOUR_BLUE {
			s.Errorf("PoP %s serves %v", pop, colour)
		}
	}
	if again := s.begins(back); again != id {
		s.Errorf("the key once more makes %s", again)
	}
	other := s.request("other")
	other.Supersede = true
	_, err = s.Start(s.ctx, other)
	refused(s, err, problem.FailedPrecondition, "say which colour")
	if got, err := s.GetOperation(s.ctx, &runbookv1.GetOperationRequest{Id: id}); err != nil || got.GetOperation().GetState() != runbookv1.State_STATE_RUNNING {
		s.Errorf("%v %v", got, err)
	}
	audit, err := os.ReadFile(s.runbooks.audit)
	for _, said := range []string{`"supersede":true`, `"procedure":"runbooks/abort"`, `"request":{"id":"` + release + `"}`} {
		if err != nil || !strings.Contains(string(audit), said) {
			s.Errorf("the audit does not say %s: %v\n%s", said, err, audit)
		}
	}
}

// supersedeAtOnce has several starts, at two processes, in place of one operation. One wins, and is not superseded by those
// that were asked at the same time.
func supersedeAtOnce(s *stage) {
	s.DrainTime, s.ErrorRatio = time.Hour, nil
	release := s.begins(s.forward("release"))
	s.until(release, verifying)
	first := s.RunbookServiceClient
	s.start("--serve-only")
	var wg sync.WaitGroup
	ids, errs := make([]string, 6), make([]error, 6)
	for i := range ids {
		wg.Go(func() {
			r := s.request([]string{"a", "b", "c", "a", "b", "c"}[i])
			r.Supersede = true
			res, err := []runbookv1connect.RunbookServiceClient{first, s.RunbookServiceClient}[i%2].Start(s.ctx, r)
			ids[i], errs[i] = res.GetOperation().GetId(), err
		})
	}
	wg.Wait()
	winner, won := slices.Max(ids), 0
	for i, err := range errs {
		if err != nil {
			refused(s, err, problem.AlreadyExists, winner)
			continue
		}
		if won++; ids[i] != winner {
			s.Errorf("two operations at once: %v", ids)
		}
	}
	if won != 2 {
		s.Errorf("%d of the two starts with the winner's key have its operation: %v %v", won, ids, errs)
	}
	op := s.until(winner, verifying)
	if op.GetState() != runbookv1.State_STATE_RUNNING || op.GetSupersedes() != release {
		s.Errorf("%v", op)
	}
	if old := s.ends(release, runbookv1.State_STATE_ABORTED); len(old.GetDecisions()) != 1 {
		s.Errorf("%v", old)
	}
	for pop, n := range s.Switches() {
		if n != 2 {
			s.Errorf("PoP %s was switched %d times by 2 operations", pop, n)
		}
	}
}

// abortWhileSwitching has PoPs that do not answer before their deadline of a minute.
func abortWhileSwitching(s *stage) {
	s.SwitchTime = time.Hour
	id := s.begins(s.forward("k"))
	s.eventually(func() error {
		if n := len(s.Switches()); n < 6 {
			return fmt.Errorf("%d PoPs were asked", n)
		}
		return nil
	})
	op := s.aborts(id)
	if n := steps(op)[runbookv1.Step_STEP_FAILED]; n != 6 || !strings.Contains(op.GetWaves()[0].GetPops()[0].GetMessage(), "still switch until its deadline") {
		s.Errorf("%v", op)
	}
	// A start that was cut off after it had aborted another, and comes again, still goes back from where that one went.
	back := s.request("x")
	back.Supersede = true
	again := s.ends(s.begins(back), runbookv1.State_STATE_SUCCEEDED)
	if again.GetSupersedes() != id || again.GetTo() != fleetv1.Colour_COLOUR_BLUE {
		s.Errorf("%v", again)
	}
}

func abortWhileVerifying(s *stage) {
	s.DrainTime, s.ErrorRatio = time.Hour, nil
	id := s.begins(s.forward("k"))
	s.until(id, verifying)
	if op := s.aborts(id); !strings.Contains(op.GetMessage(), "6 PoPs finish their drains") {
		s.Errorf("%v", op)
	}
}

// aborts ends an operation, soon.
func (s *stage) aborts(id string) *runbookv1.Operation {
	s.Helper()
	before := time.Now()
	if _, err := s.Abort(s.ctx, &runbookv1.AbortRequest{Act: act(id, "x")}); err != nil {
		s.Fatal(err)
	}
	op := s.ends(id, runbookv1.State_STATE_ABORTED)
	if took := op.GetEndedAt().AsTime().Sub(before); took > 5*time.Second {
		s.Errorf("it ended %v after the abort", took)
	} else {
		s.Logf("it ended %v after the abort", took)
	}
	return op
}

func badInput(s *stage) {
	for name, c := range map[string]struct {
		change func(*runbookv1.StartRequest, *runbookv1.GlobalCutover)
		kind   problem.Kind
		says   string
	}{
		"unknown fleet":    {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.Fleet = "nowhere" }, problem.NotFound, "nowhere"},
		"unknown PoP":      {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.Scope = pops("atlantis") }, problem.NotFound, "atlantis"},
		"unknown colour":   {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.To = 7 }, problem.Invalid, "to"},
		"no scope":         {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.Scope = nil }, problem.Invalid, "scope"},
		"empty scope":      {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.Scope = pops() }, problem.Invalid, "empty scope"},
		"no reason":        {func(r *runbookv1.StartRequest, _ *runbookv1.GlobalCutover) { r.Reason = "" }, problem.Invalid, "reason"},
		"no key":           {func(r *runbookv1.StartRequest, _ *runbookv1.GlobalCutover) { r.IdempotencyKey = "" }, problem.Invalid, "idempotency_key"},
		"no runbook":       {func(r *runbookv1.StartRequest, _ *runbookv1.GlobalCutover) { r.Runbook = nil }, problem.Invalid, "runbook"},
		"no kind":          {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.Kind = 0 }, problem.Invalid, "kind"},
		"cutover to where": {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.Kind = runbookv1.Kind_KIND_CUTOVER }, problem.Invalid, "blue or green"},
		"unknown first PoP": {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.FirstPop = "nosuch" }, problem.NotFound,
			`global_cutover.first_pop: "nosuch" is not in the scope; there is pop000, pop001`},
		"first PoP outside": {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) {
			g.Scope, g.FirstPop = pops("pop001"), "pop002"
		}, problem.Invalid, "first_pop"},
		"one wave approved": {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.ApproveWaves = true }, problem.Invalid, "approve_waves"},
		"ratio above 1":     {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.MaxErrorRatio = proto.Float64(1.5) }, problem.Invalid, "max_error_ratio"},
		"long jitter":       {func(_ *runbookv1.StartRequest, g *runbookv1.GlobalCutover) { g.Jitter = durationpb.New(time.Hour) }, problem.Invalid, "jitter"},
		"too large":         {func(r *runbookv1.StartRequest, _ *runbookv1.GlobalCutover) { r.Reason = strings.Repeat("x", 5<<20) }, problem.ResourceExhausted, ""},
	} {
		r := s.request("k")
		c.change(r, r.GetGlobalCutover())
		_, err := s.Start(s.ctx, r)
		if problem.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			s.Errorf("%s: %v %v", name, problem.KindOf(err), err)
		}
	}
	if n := len(s.Asked()); n != 0 {
		s.Errorf("%d PoPs were asked", n)
	}
	if list, err := s.ListOperations(s.ctx, &runbookv1.ListOperationsRequest{Fleet: s.Fleet}); err != nil || len(list.GetOperations()) != 0 {
		s.Errorf("%v %v", list, err)
	}
}

func pops(names ...string) *fleetv1.Scope { return &fleetv1.Scope{Pops: names} }

func wrongIDs(s *stage) {
	const nobody = "edge.00000000-0000-4000-8000-000000000000"
	for _, id := range []string{"x", "fleet/edge", nobody, "edge'.00000000-0000-4000-8000-000000000000"} {
		_, err := s.GetOperation(s.ctx, &runbookv1.GetOperationRequest{Id: id})
		refused(s, err, problem.NotFound, "operation list")
		_, err = s.Approve(s.ctx, &runbookv1.ApproveRequest{Act: act(id, "k")})
		refused(s, err, problem.NotFound, "operation list")
		stream, err := s.WatchOperation(s.ctx, &runbookv1.WatchOperationRequest{Id: id})
		if err == nil {
			for stream.Receive() {
			}
			err = stream.Err()
			stream.Close()
		}
		refused(s, err, problem.NotFound, "operation list")
	}
	for _, token := range []string{"!", "bm9uZQ"} {
		_, err := s.ListOperations(s.ctx, &runbookv1.ListOperationsRequest{PageToken: token})
		refused(s, err, problem.Invalid, "page_token")
	}
	if _, err := s.ListOperations(s.ctx, &runbookv1.ListOperationsRequest{Fleet: "x' OR WorkflowId != 'y"}); err != nil {
		s.Error(err)
	}
}

func workerAndServiceApart(s *stage) {
	s.runbooks.kill()
	s.start("--worker-only")
	_, err := s.Start(s.ctx, s.request("k"))
	refused(s, err, problem.Unimplemented, "")
	s.start("--serve-only")
	s.ends(s.begins(s.request("k")), runbookv1.State_STATE_SUCCEEDED)
	s.onceEach()
}

func watchersShare(s *stage) {
	s.SwitchTime = 300 * time.Millisecond
	id := s.begins(s.request("k"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			last := int64(0)
			op := s.until(id, func(op *runbookv1.Operation) bool {
				if op.GetRevision() <= last {
					s.Errorf("revision %d after %d", op.GetRevision(), last)
				}
				last = op.GetRevision()
				return i%2 == 1 && steps(op)[runbookv1.Step_STEP_SWITCHING] > 0 // half of them leave early
			})
			if i%2 == 0 && op.GetState() != runbookv1.State_STATE_SUCCEEDED {
				s.Errorf("ended as %s", op.GetState())
			}
		})
	}
	wg.Wait()
}

func drainIsShown(s *stage) {
	s.DrainTime = 5 * time.Second
	id := s.begins(s.request("k"))
	for _, open := range []int64{100, 40} {
		s.until(id, func(op *runbookv1.Operation) bool {
			for _, w := range op.GetWaves() {
				for _, p := range w.GetPops() {
					if p.GetStep() == runbookv1.Step_STEP_DRAINING && p.GetOpenConnections() == open {
						return true
					}
				}
			}
			if op.GetEndedAt() != nil {
				s.Errorf("no PoP was seen with %d open connections", open)
			}
			return false
		})
	}
}

func workerIsKilled(s *stage) {
	s.SwitchTime = time.Second
	r := s.request("k")
	r.GetGlobalCutover().WaveSize = 3
	id := s.begins(r)
	s.until(id, func(op *runbookv1.Operation) bool { return steps(op)[runbookv1.Step_STEP_SWITCHING] == 3 })
	s.runbooks.kill()
	s.start()
	op := s.ends(id, runbookv1.State_STATE_SUCCEEDED)
	s.Logf("ended %v after its start", op.GetEndedAt().AsTime().Sub(op.GetStartedAt().AsTime()))
	s.onceEach()
}

// TestTemporalIsKilled kills Temporal while PoPs switch, and starts it again where it was.
func TestTemporalIsKilled(t *testing.T) {
	dir := t.TempDir()
	server := engine(t, dir, 0)
	s := open(t, server, 6)
	s.SwitchTime = time.Second
	r := s.request("k")
	r.GetGlobalCutover().WaveSize = 3
	id := s.begins(r)
	s.until(id, func(op *runbookv1.Operation) bool { return steps(op)[runbookv1.Step_STEP_SWITCHING] == 3 })
	server.kill()
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	_, err := s.Start(ctx, s.request("another"))
	refused(s, err, problem.Unavailable, "edgehold rollback --direct")
	s.eventually(func() error {
		if h := s.health(); !strings.Contains(h, "temporal") {
			return fmt.Errorf("no warning: %s", h)
		}
		return nil
	})
	engine(t, dir, port(t, server.address))
	back := time.Now()
	s.ends(id, runbookv1.State_STATE_SUCCEEDED)
	if took := time.Since(back); took > 20*time.Second { // when the worker began without knowing that Temporal knows it, a minute
		s.Errorf("it ended %v after Temporal was back", took)
	} else {
		s.Logf("it ended %v after Temporal was back", took)
	}
	s.onceEach()
	s.eventually(func() error {
		if h := s.health(); strings.Contains(h, "temporal") {
			return fmt.Errorf("the warning stays: %s", h)
		}
		return nil
	})
}

// health is what the process says of itself.
func (s *stage) health() string {
	s.Helper()
	res, err := http.Get("http://" + s.runbooks.address + "/healthz")
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}

// TestRecordedCourses plays courses whose histories are replayed by the tests of package temporal, and with -record
// writes them.
func TestRecordedCourses(t *testing.T) {
	server := engine(t, t.TempDir(), 0)
	c, err := client.Dial(client.Options{HostPort: server.address})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	save := func(t *testing.T, name, workflowID, runID string) {
		t.Helper()
		var h history.History
		events := c.GetWorkflowHistory(t.Context(), workflowID, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			h.Events = append(h.Events, e)
		}
		if !*record {
			return
		}
		b, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("..", "..", "temporal", "testdata", name+".json"), append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, course := range map[string]func(*stage) string{
		"all-at-once": func(s *stage) string {
			id := s.begins(s.request("k"))
			s.ends(id, runbookv1.State_STATE_SUCCEEDED)
			return id
		},
		"first-pop-waves-and-decisions": func(s *stage) string {
			s.Blocker = func(pop string) string {
				if pop == "pop002" {
					return "its standby has 0 of 2 pods ready"
				}
				return ""
			}
			r := s.request("k")
			g := r.GetGlobalCutover()
			g.FirstPop, g.WaveSize, g.ApproveWaves, g.MaxFailedPops = "pop003", 1, true, proto.Int32(0)
			id := s.begins(r)
			asked := func(pending int) func(*runbookv1.Operation) bool {
				return func(op *runbookv1.Operation) bool {
					return op.GetState() == runbookv1.State_STATE_WAITING && steps(op)[runbookv1.Step_STEP_PENDING] == pending
				}
			}
			for pending := 3; pending > 0; pending-- {
				s.until(id, asked(pending))
				if _, err := s.Approve(s.ctx, &runbookv1.ApproveRequest{Act: act(id, string(rune('a'+pending)))}); err != nil {
					s.Fatal(err)
				}
			}
			s.ends(id, runbookv1.State_STATE_PARTIAL)
			return id
		},
		"aborted": func(s *stage) string {
			s.Refuse = func(pop string) error {
				if pop == "pop001" {
					return problem.Unavailablef("its API does not answer")
				}
				return nil
			}
			s.DrainTime = time.Hour
			id := s.begins(s.request("k"))
			s.until(id, func(op *runbookv1.Operation) bool {
				return steps(op)[runbookv1.Step_STEP_DRAINING] == 3
			})
			if _, err := s.Abort(s.ctx, &runbookv1.AbortRequest{Act: act(id, "x")}); err != nil {
				s.Fatal(err)
			}
			s.ends(id, runbookv1.State_STATE_ABORTED)
			return id
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, server, 4)
			id := course(s)
			workflowID, runID := "fleet/"+s.Fleet, id[len(id)-36:]
			save(t, name, workflowID, runID)
			save(t, name+"-drain", workflowID+"/"+runID+"/pop003", "")
		})
	}
}

// TestStopsCleanly has Run in this process, to see that it leaves nothing behind, with an operation under way and without
// Temporal.
func TestStopsCleanly(t *testing.T) {
	server := engine(t, t.TempDir(), 0)
	s := fake.New(fake.Pops(2)...)
	s.SwitchTime = time.Minute
	url := fleets(t, s)
	// An answer proves that the fake's own goroutines run, so that they are not taken for what Run leaves behind.
	if res, err := http.Get(url + "/healthz"); err != nil {
		t.Fatal(err)
	} else {
		_ = res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	for name, address := range map[string]string{"under way": server.address, "no Temporal": "127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			defer goleak.VerifyNone(t, before)
			c := Config{Service: service.Config{Name: "runbooks", LogLevel: "error", AuditLog: filepath.Join(t.TempDir(), "audit"), StopGrace: 2 * time.Second},
				Fleet: libclient.Config{Address: url}, Temporal: temporal.Config{Address: address}}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			out, in := io.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- Run(ctx, c, in) }()
			if address == server.address {
				line, err := bufio.NewReader(out).ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				var ready struct{ Address string }
				if err := json.Unmarshal([]byte(line), &ready); err != nil {
					t.Fatal(err)
				}
				conn, err := libclient.New(libclient.Config{Address: "http://" + ready.Address})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				runbooks := runbookv1connect.NewRunbookServiceClient(conn.Stream(), conn.URL(), conn.Options()...)
				res, err := runbooks.Start(ctx, rollback("k"))
				if err != nil {
					t.Fatal(err)
				}
				watch(ctx, t, runbooks, res.GetOperation().GetId(), func(op *runbookv1.Operation) bool {
					return steps(op)[runbookv1.Step_STEP_SWITCHING] == 2
				})
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConfigsThatCannotBe(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"worker-only":           func(c *Config) { c.WorkerOnly, c.Temporal.ServeOnly = true, true },
		"temporal":              func(c *Config) { c.Temporal.Address = "nowhere" },
		"namespace":             func(c *Config) { c.Temporal.Namespace = "it's" },
		"task-queue":            func(c *Config) { c.Temporal.TaskQueue = "a queue" },
		"temporal-cert-file":    func(c *Config) { c.Temporal.CertFile = "tls.crt" },
		"temporal-api-key-file": func(c *Config) { c.Temporal.CertFile, c.Temporal.KeyFile, c.Temporal.APIKeyFile = "a", "b", "c" },
		"address":               func(c *Config) { c.Fleet.Address = "ftp://fleet" },
		"listen":                func(c *Config) { c.Service.Listen = "0.0.0.0:80" },
	} {
		c := Config{Service: service.Config{Name: "runbooks"}, Fleet: libclient.Config{Address: "http://127.0.0.1:1"}}
		change(&c)
		var p *problem.Error
		if err := c.Validate(); !errors.As(err, &p) || p.Kind != problem.Invalid || !strings.Contains(p.Field, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// BenchmarkRollback is the time from the command to the last PoP's switch, without the time that the fake PoPs take.
func BenchmarkRollback(b *testing.B) {
	server := engine(b, b.TempDir(), 0)
	for _, n := range []int{21, 210} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := open(b, server, n)
			s.SwitchTime = 0
			var all []float64
			cpu := server.cpu(b) + s.runbooks.cpu(b)
			for i := 0; b.Loop(); i++ {
				r := s.request(fmt.Sprint(i))
				r.GetGlobalCutover().Jitter = durationpb.New(0)
				before := time.Now()
				op := s.ends(s.begins(r), runbookv1.State_STATE_SUCCEEDED)
				var last time.Duration
				for _, p := range op.GetWaves()[0].GetPops() {
					last = max(last, p.GetSwitchedAt().AsTime().Sub(before))
				}
				all = append(all, float64(last.Microseconds())/1000)
			}
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], "ms-to-last-switch")
			b.ReportMetric(float64((server.cpu(b)+s.runbooks.cpu(b)-cpu).Milliseconds())/float64(len(all)), "cpu-ms/op")
		})
	}
}
