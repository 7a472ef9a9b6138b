package rpc

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/workflows"
)

// operations is workflows.Operations by functions.
type operations struct {
	workflows.Operations
	start  func(workflows.Start) (workflows.Operation, error)
	decide func(string, workflows.Decision) (workflows.Operation, error)
	list   func(string, int, string) ([]workflows.Operation, string, error)
}

func (o operations) Start(_ context.Context, s workflows.Start) (workflows.Operation, error) {
	return o.start(s)
}

func (o operations) Decide(_ context.Context, id string, d workflows.Decision) (workflows.Operation, error) {
	return o.decide(id, d)
}

func (o operations) List(_ context.Context, fleet string, size int, token string) ([]workflows.Operation, string, error) {
	return o.list(fleet, size, token)
}

func as(name string, roles ...service.Role) context.Context {
	return service.WithPrincipal(context.Background(), service.Principal{Name: name, Roles: roles})
}

func request() *runbookv1.StartRequest {
	return &runbookv1.StartRequest{Reason: "why", IdempotencyKey: "k", Runbook: &runbookv1.StartRequest_GlobalCutover{GlobalCutover: &runbookv1.GlobalCutover{
		Kind: runbookv1.Kind_KIND_ROLLBACK, Fleet: "edge", Scope: &fleetv1.Scope{All: true}}}}
}

func TestThePersonIsTheAuthenticatedPrincipal(t *testing.T) {
	var started workflows.Start
	var decided workflows.Decision
	h := New(operations{
		start: func(s workflows.Start) (workflows.Operation, error) {
			started = s
			return workflows.Operation{ID: "edge.1", Request: s.Request, State: workflows.Running}, nil
		},
		decide: func(id string, d workflows.Decision) (workflows.Operation, error) {
			decided = d
			return workflows.Operation{ID: id, State: workflows.Paused}, nil
		},
	})
	r := request()
	r.Supersede = true
	res, err := h.Start(as("ana", service.RoleOperator), r)
	if err != nil || res.GetOperation().GetId() != "edge.1" || started.Principal != "ana" || started.Key != "k" || started.Reason != "why" || !started.Supersede {
		t.Errorf("%v %v %+v", res, err, started)
	}
	op, err := h.Pause(as("ben", service.RoleOperator), &runbookv1.PauseRequest{Act: &runbookv1.Act{Id: "edge.1", Reason: "r", IdempotencyKey: "p"}})
	if err != nil || op.GetOperation().GetState() != runbookv1.State_STATE_PAUSED || decided != (workflows.Decision{Verb: workflows.Pause, Principal: "ben", Reason: "r", Key: "p"}) {
		t.Errorf("%v %v %+v", op, err, decided)
	}
}

func TestForceNeedsBreakglass(t *testing.T) {
	started := 0
	h := New(operations{start: func(workflows.Start) (workflows.Operation, error) { started++; return workflows.Operation{}, nil }})
	r := request()
	r.GetGlobalCutover().Force = true
	if _, err := h.Start(as("ana", service.RoleOperator), r); problem.KindOf(err) != problem.PermissionDenied || started != 0 {
		t.Errorf("%v", err)
	}
	if _, err := h.Start(as("ana", service.RoleOperator, service.RoleBreakglass), r); err != nil || started != 1 {
		t.Errorf("%v", err)
	}
	if _, err := h.Start(as("ana", service.RoleOperator), &runbookv1.StartRequest{}); problem.KindOf(err) != problem.Invalid {
		t.Errorf("no runbook: %v", err)
	}
}

func TestPagesHaveTwentyUnlessAsked(t *testing.T) {
	var sizes []int
	h := New(operations{list: func(_ string, size int, _ string) ([]workflows.Operation, string, error) {
		sizes = append(sizes, size)
		return make([]workflows.Operation, 1), "next", nil
	}})
	for _, n := range []int32{0, 7} {
		res, err := h.ListOperations(as("eve", service.RoleViewer), &runbookv1.ListOperationsRequest{PageSize: n})
		if err != nil || res.GetNextPageToken() != "next" || len(res.GetOperations()) != 1 {
			t.Errorf("%v %v", res, err)
		}
	}
	if !slices.Equal(sizes, []int{20, 7}) {
		t.Errorf("%v", sizes)
	}
}

// TestRequestsGoThereAndBack also finds a field of the proto that was forgotten: what is drawn sets every one.
func TestRequestsGoThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &runbookv1.GlobalCutover{
			Kind: runbookv1.Kind(rapid.Int32Range(1, 2).Draw(t, "kind")), Fleet: rapid.String().Draw(t, "fleet"),
			Scope:   &fleetv1.Scope{Pops: rapid.SliceOfN(rapid.StringN(1, 9, 9), 1, 4).Draw(t, "pops"), All: rapid.Bool().Draw(t, "all")},
			To:      fleetv1.Colour(rapid.Int32Range(0, 2).Draw(t, "to")),
			Version: rapid.String().Draw(t, "version"), FirstPop: rapid.String().Draw(t, "first"), WaveSize: rapid.Int32Range(0, 1000).Draw(t, "wave"),
			ApproveWaves: rapid.Bool().Draw(t, "approve"), Force: rapid.Bool().Draw(t, "force"),
			Jitter:        durationpb.New(time.Duration(rapid.Int64Range(0, 1e10).Draw(t, "jitter"))),
			MaxFailedPops: proto.Int32(rapid.Int32Range(0, 1000).Draw(t, "failed")),
			MaxErrorRatio: proto.Float64(rapid.Float64Range(0, 1).Draw(t, "ratio")),
			Deadline:      durationpb.New(time.Duration(rapid.Int64Range(1, 1e10).Draw(t, "deadline"))),
		}
		if back := toRequest(fromRequest(m)); !proto.Equal(back, m) {
			t.Fatalf("%v became %v", m, back)
		}
	})
	if n := (&runbookv1.GlobalCutover{}).ProtoReflect().Descriptor().Fields().Len(); n != 13 {
		t.Errorf("GlobalCutover has %d fields; translate the new ones and draw them here", n)
	}
	if r := fromRequest(&runbookv1.GlobalCutover{}); r.Jitter != nil || r.MaxFailedPops != nil || r.MaxErrorRatio != nil || r.Deadline != 0 {
		t.Errorf("what was left out became %+v", r)
	}
}

func TestEveryNameHasANumber(t *testing.T) {
	if len(states) != len(runbookv1.State_name)-1 || len(steps) != len(runbookv1.Step_name)-1 || len(kinds) != len(runbookv1.Kind_name)-1 {
		t.Error("a state, a step or a kind of the proto has no name in the domain")
	}
	for s, n := range states {
		if n.String() != "STATE_"+string(s) {
			t.Errorf("%s is sent as %s", s, n)
		}
	}
	for s, n := range steps {
		if n.String() != "STEP_"+string(s) {
			t.Errorf("%s is sent as %s", s, n)
		}
	}
}

func TestOperationsAreSentWhole(t *testing.T) {
	at, three, ratio := time.Date(2026, 1, 22, 20, 50, 0, 0, time.UTC), int64(3), 0.002
	op := workflows.Operation{ID: "edge.1", State: workflows.Partial, Message: "m", Principal: "ana", Reason: "r", To: workflows.Blue, StartedAt: at, EndedAt: at, Revision: 9, Supersedes: "edge.0",
		Waves: [][]workflows.Pop{{{Name: "fra1", Step: workflows.Done, Message: "m", From: workflows.Green, To: workflows.Blue, StartedAt: at, SwitchedAt: at, DrainedAt: at,
			Open: &three, Drained: &three, Reset: &three}}},
		Verification: &workflows.Verification{ErrorRatio: &ratio, MaxErrorRatio: 0.01, Requests: 7, Passed: true, Unknown: []string{"gru1"}, At: at},
		Decisions:    []workflows.Decision{{Verb: workflows.Approve, Principal: "ben", Reason: "r", At: at}}}
	m := toOperation(op)
	for _, x := range []proto.Message{m, m.GetWaves()[0].GetPops()[0], m.GetVerification(), m.GetDecisions()[0]} {
		fields := x.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if f := fields.Get(i); !x.ProtoReflect().Has(f) {
				t.Errorf("%s is not sent", f.FullName())
			}
		}
	}
}

// fleetService answers by functions.
type fleetService struct {
	fleetv1connect.UnimplementedFleetServiceHandler
	plan    func(*fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error)
	cutOver func(*fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error)
	watch   []*fleetv1.WatchFleetsResponse
}

func (s *fleetService) PlanCutover(_ context.Context, r *fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error) {
	return s.plan(r)
}

func (s *fleetService) CutOver(_ context.Context, r *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
	return s.cutOver(r)
}

func (s *fleetService) WatchFleets(_ context.Context, _ *fleetv1.WatchFleetsRequest, stream *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
	for _, m := range s.watch {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func connected(t *testing.T, s *fleetService) *Fleets {
	_, h := fleetv1connect.NewFleetServiceHandler(s)
	server := httptest.NewUnstartedServer(h)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	c, err := client.New(client.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return NewFleets(c)
}

func TestPlan(t *testing.T) {
	blockers := []*fleetv1.Blocker{{Message: "frozen", Overridable: true}, {Message: "misconfigured"}}
	f := connected(t, &fleetService{plan: func(r *fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error) {
		return &fleetv1.PlanCutoverResponse{To: fleetv1.Colour_COLOUR_GREEN, Pops: []*fleetv1.PopPlan{
			{Pop: "fra1", From: fleetv1.Colour_COLOUR_BLUE}, {Pop: "gru1", Already: true}, {Pop: "nrt1", Blockers: blockers},
			{Pop: "syd1", Problem: &fleetv1.Problem{Code: "unavailable", Message: "its API does not answer"}}, {Pop: "mia1", Blockers: blockers[:1]},
		}}, nil
	}})
	for force, want := range map[bool][]string{false: {"", "", "frozen; misconfigured", "its API does not answer", "frozen"}, true: {"", "", "misconfigured", "its API does not answer", ""}} {
		plan, err := f.Plan(t.Context(), workflows.Request{Fleet: "edge", All: true, Force: force})
		if err != nil || plan.To != workflows.Green || plan.At.IsZero() || !plan.Pops[1].Already {
			t.Fatal(plan, err)
		}
		for i, p := range plan.Pops {
			if p.Blocked != want[i] {
				t.Errorf("force %t: %s is blocked by %q, not %q", force, p.Pop, p.Blocked, want[i])
			}
		}
	}
}

func TestPlanOfTooMany(t *testing.T) {
	f := connected(t, &fleetService{plan: func(*fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error) {
		return &fleetv1.PlanCutoverResponse{Pops: make([]*fleetv1.PopPlan, workflows.MaxPops+1)}, nil
	}})
	if _, err := f.Plan(t.Context(), workflows.Request{}); problem.KindOf(err) != problem.Invalid {
		t.Error(err)
	}
}

func TestCutOver(t *testing.T) {
	at := timestamppb.Now()
	c := workflows.Change{Pop: "fra1", Fleet: "edge", To: workflows.Green, Version: "v2", Principal: "ana", Reason: "r", Key: "k", Force: true, Deadline: time.Minute}
	for _, x := range []struct {
		res  *fleetv1.CutOverResponse
		want workflows.Step
	}{
		{&fleetv1.CutOverResponse{Cutover: &fleetv1.Cutover{From: fleetv1.Colour_COLOUR_BLUE, SwitchedAt: at, Outcome: fleetv1.Outcome_OUTCOME_RUNNING}}, workflows.Switched},
		{&fleetv1.CutOverResponse{Cutover: &fleetv1.Cutover{SwitchedAt: at, Outcome: fleetv1.Outcome_OUTCOME_COMPLETED}}, workflows.Switched},
		{&fleetv1.CutOverResponse{}, workflows.Switched},
		{&fleetv1.CutOverResponse{Already: true}, workflows.Already},
		{&fleetv1.CutOverResponse{Cutover: &fleetv1.Cutover{SwitchedAt: at, Outcome: fleetv1.Outcome_OUTCOME_REVERTED, Message: "m"}}, workflows.Broken},
	} {
		var asked *fleetv1.CutOverRequest
		f := connected(t, &fleetService{cutOver: func(r *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) { asked = r; return x.res, nil }})
		rep, err := f.CutOver(t.Context(), c)
		if err != nil || rep.Step != x.want || rep.Step != workflows.Already && rep.SwitchedAt.IsZero() {
			t.Errorf("%v became %+v, %v", x.res, rep, err)
		}
		want := &fleetv1.CutOverRequest{Pop: "fra1", Fleet: "edge", To: fleetv1.Colour_COLOUR_GREEN, Version: "v2", OnBehalfOf: "ana", Reason: "r", IdempotencyKey: "k",
			Force: true, Deadline: durationpb.New(time.Minute)}
		if !proto.Equal(asked, want) {
			t.Errorf("asked %v", asked)
		}
	}
	f := connected(t, &fleetService{cutOver: func(*fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
		return nil, connect.NewError(connect.CodeFailedPrecondition, context.Canceled)
	}})
	if _, err := f.CutOver(t.Context(), c); problem.KindOf(err) != problem.FailedPrecondition {
		t.Error(err)
	}
}

func TestWatch(t *testing.T) {
	at := timestamppb.Now()
	f := connected(t, &fleetService{watch: []*fleetv1.WatchFleetsResponse{
		{Fleet: &fleetv1.Fleet{Pop: "fra1", Blue: &fleetv1.ColourState{OpenConnections: proto.Int64(4)}, Green: &fleetv1.ColourState{},
			LastCutover: &fleetv1.Cutover{Id: "k", From: fleetv1.Colour_COLOUR_BLUE, Outcome: fleetv1.Outcome_OUTCOME_RUNNING, SwitchedAt: at},
			Traffic:     &fleetv1.Traffic{Requests: 9, ErrorRatio: 0.5, Window: durationpb.New(time.Second), At: at}}},
		{Fleet: &fleetv1.Fleet{Pop: "gru1", LastCutover: &fleetv1.Cutover{Outcome: fleetv1.Outcome_OUTCOME_REVERTED}}},
		{Fleet: &fleetv1.Fleet{Pop: "nrt1", Problem: &fleetv1.Problem{Message: "gone away"}}},
		{Fleet: &fleetv1.Fleet{Pop: "syd1", Name: "edge"}, Deleted: true},
	}})
	var seen []workflows.Observation
	err := f.Watch(t.Context(), "edge", []string{"fra1"}, func(o workflows.Observation) error { seen = append(seen, o); return nil })
	if problem.KindOf(err) != problem.Unavailable || len(seen) != 4 {
		t.Fatalf("%v %v", err, seen)
	}
	first := seen[0]
	if *first.Blue != 4 || first.Green != nil || first.Last.Key != "k" || first.Last.Ended || first.Last.Undone || first.Last.From != workflows.Blue ||
		*first.Traffic != (workflows.Traffic{Requests: 9, ErrorRatio: 0.5, Window: time.Second, At: at.AsTime()}) {
		t.Errorf("%+v", first)
	}
	if !seen[1].Last.Undone || !seen[1].Last.Ended || seen[1].Traffic != nil || seen[2].Problem != "gone away" || seen[3].Problem == "" {
		t.Errorf("%+v", seen[1:])
	}
	stop := context.Canceled
	if err := f.Watch(t.Context(), "edge", nil, func(workflows.Observation) error { return stop }); err != stop {
		t.Error(err)
	}
}
