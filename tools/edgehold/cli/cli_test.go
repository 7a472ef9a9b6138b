package cli

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"

	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/proto/edgehold/runbook/v1/runbookv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRunbooks answers with what the test sets.
type fakeRunbooks struct {
	runbookv1connect.UnimplementedRunbookServiceHandler
	start func(*runbookv1.StartRequest) (*runbookv1.Operation, error)
	watch func(send func(*runbookv1.Operation) error) error
	act   func(verb string, act *runbookv1.Act) (*runbookv1.Operation, error)
}

func (f *fakeRunbooks) Start(_ context.Context, r *runbookv1.StartRequest) (*runbookv1.StartResponse, error) {
	op, err := f.start(r)
	return &runbookv1.StartResponse{Operation: op}, err
}

func (f *fakeRunbooks) WatchOperation(_ context.Context, _ *runbookv1.WatchOperationRequest, s *connect.ServerStream[runbookv1.WatchOperationResponse]) error {
	return f.watch(func(op *runbookv1.Operation) error {
		return s.Send(&runbookv1.WatchOperationResponse{Operation: op})
	})
}

func (f *fakeRunbooks) Approve(_ context.Context, r *runbookv1.ApproveRequest) (*runbookv1.ApproveResponse, error) {
	op, err := f.act("approve", r.GetAct())
	return &runbookv1.ApproveResponse{Operation: op}, err
}

// fakeFleets answers with what the test sets.
type fakeFleets struct {
	fleetv1connect.UnimplementedFleetServiceHandler
	list []*fleetv1.Fleet
	plan []*fleetv1.PopPlan
	got  *fleetv1.ListFleetsRequest
}

func (f *fakeFleets) ListFleets(_ context.Context, r *fleetv1.ListFleetsRequest) (*fleetv1.ListFleetsResponse, error) {
	f.got = r
	return &fleetv1.ListFleetsResponse{Fleets: f.list}, nil
}

func (f *fakeFleets) PlanCutover(context.Context, *fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error) {
	return &fleetv1.PlanCutoverResponse{To: fleetv1.Colour_COLOUR_BLUE, Pops: f.plan}, nil
}

// run is the command line against the fakes: what it printed and its exit code.
func run(t *testing.T, runbooks *fakeRunbooks, fleets *fakeFleets, args ...string) (out, diag string, exit int) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(runbookv1connect.NewRunbookServiceHandler(runbooks))
	mux.Handle(fleetv1connect.NewFleetServiceHandler(fleets))
	server := httptest.NewUnstartedServer(mux)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server.Config.Protocols = protocols
	server.Start()
	defer server.Close()
	config, err := yaml.Marshal(Config{Fleet: server.URL, Runbooks: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	root := Command("test")
	var o, d bytes.Buffer
	root.SetOut(&o)
	root.SetErr(&d)
	root.SetArgs(append([]string{"--config", path}, args...))
	exit = Main(t.Context(), root)
	return o.String(), d.String(), exit
}

var begun = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

func operation(state runbookv1.State, steps ...runbookv1.Step) *runbookv1.Operation {
	op := &runbookv1.Operation{Id: "op-1", State: state, StartedAt: timestamppb.New(begun), To: fleetv1.Colour_COLOUR_BLUE,
		GlobalCutover: &runbookv1.GlobalCutover{Kind: runbookv1.Kind_KIND_ROLLBACK, Fleet: "edge"}}
	wave := &runbookv1.Wave{}
	for i, s := range steps {
		wave.Pops = append(wave.Pops, &runbookv1.PopProgress{Pop: []string{"ams1", "fra1", "sin1"}[i], Step: s})
	}
	op.Waves = []*runbookv1.Wave{wave}
	return op
}

func TestRollback(t *testing.T) {
	var asked *runbookv1.StartRequest
	runbooks := &fakeRunbooks{
		start: func(r *runbookv1.StartRequest) (*runbookv1.Operation, error) {
			asked = r
			return operation(runbookv1.State_STATE_RUNNING, runbookv1.Step_STEP_PENDING), nil
		},
		watch: func(send func(*runbookv1.Operation) error) error {
			for _, op := range []*runbookv1.Operation{
				operation(runbookv1.State_STATE_RUNNING, runbookv1.Step_STEP_SWITCHING, runbookv1.Step_STEP_PENDING),
				operation(runbookv1.State_STATE_RUNNING, runbookv1.Step_STEP_SWITCHED, runbookv1.Step_STEP_SWITCHING),
				operation(runbookv1.State_STATE_SUCCEEDED, runbookv1.Step_STEP_DONE, runbookv1.Step_STEP_DONE),
			} {
				if err := send(op); err != nil {
					return err
				}
			}
			return nil
		},
	}
	fleets := &fakeFleets{list: []*fleetv1.Fleet{{Pop: "ams1", Name: "edge"}, {Pop: "fra1", Name: "edge"}}}
	out, diag, exit := run(t, runbooks, fleets, "rollback", "--reason", "v2 answers 500", "--wave", "1", "--max-failed", "0")
	if exit != ExitDone {
		t.Fatalf("exit %d\n%s%s", exit, out, diag)
	}
	var steps []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) >= 3 {
			steps = append(steps, f[1]+" "+f[2])
		}
	}
	got := strings.Join(steps, ", ")
	if want := "ams1 switching, ams1 switched, fra1 switching, ams1 done, fra1 done"; !strings.HasPrefix(strings.ReplaceAll(got, "running: ", ""), want) {
		t.Errorf("piped progress is %q, want %q", got, want)
	}
	g := asked.GetGlobalCutover()
	if !g.GetScope().GetAll() || g.GetFleet() != "edge" || g.GetWaveSize() != 1 || g.GetMaxFailedPops() != 0 || g.MaxFailedPops == nil || g.MaxErrorRatio != nil || asked.GetIdempotencyKey() == "" {
		t.Errorf("asked for %v", asked)
	}
}

// TestExitCodes is the contract that scripts branch on.
func TestExitCodes(t *testing.T) {
	ok := func(*runbookv1.StartRequest) (*runbookv1.Operation, error) {
		return operation(runbookv1.State_STATE_RUNNING), nil
	}
	ends := func(state runbookv1.State) func(func(*runbookv1.Operation) error) error {
		return func(send func(*runbookv1.Operation) error) error {
			return send(operation(state, runbookv1.Step_STEP_FAILED))
		}
	}
	refuse := func(c connect.Code) func(*runbookv1.StartRequest) (*runbookv1.Operation, error) {
		return func(*runbookv1.StartRequest) (*runbookv1.Operation, error) {
			return nil, connect.NewError(c, context.DeadlineExceeded)
		}
	}
	rollback := []string{"rollback", "--fleet", "edge", "--reason", "r"}
	with := func(more ...string) []string { return append(append([]string{}, rollback...), more...) }
	for _, c := range []struct {
		name  string
		start func(*runbookv1.StartRequest) (*runbookv1.Operation, error)
		watch func(func(*runbookv1.Operation) error) error
		args  []string
		exit  int
		says  string
	}{
		{"succeeded", ok, ends(runbookv1.State_STATE_SUCCEEDED), rollback, ExitDone, ""},
		{"partial", ok, ends(runbookv1.State_STATE_PARTIAL), rollback, ExitPartial, ""},
		{"failed", ok, ends(runbookv1.State_STATE_FAILED), rollback, ExitFailed, ""},
		{"aborted", ok, ends(runbookv1.State_STATE_ABORTED), rollback, ExitPartial, ""},
		{"waits for a person", ok, ends(runbookv1.State_STATE_WAITING), rollback, ExitWaiting, "operation approve op-1"},
		{"another is running", refuse(connect.CodeAlreadyExists), nil, rollback, ExitRefused, ""},
		{"not allowed", refuse(connect.CodePermissionDenied), nil, rollback, ExitRefused, ""},
		{"no such PoP", refuse(connect.CodeNotFound), nil, rollback, ExitUsage, ""},
		{"Temporal is down", refuse(connect.CodeUnavailable), nil, rollback, ExitUnreachable, "--direct"},
		{"no reason", ok, nil, []string{"rollback", "--fleet", "edge"}, ExitUsage, "--reason"},
		{"empty scope", ok, nil, with("--pops", ""), ExitUsage, "selects nothing"},
		{"bad colour", ok, nil, with("--to", "red"), ExitUsage, "blue or green"},
		{"cutover without a colour", ok, nil, []string{"cutover", "--fleet", "edge", "--reason", "r"}, ExitUsage, "--to"},
		{"selector without direct", ok, nil, with("--force-selector"), ExitUsage, "--direct"},
		{"waves with direct", ok, nil, with("--direct", "--wave", "2"), ExitUsage, "--wave"},
		{"direct without a registry", ok, nil, with("--direct"), ExitUsage, "--registry"},
		{"ratio out of range", ok, nil, with("--max-error-ratio", "2"), ExitUsage, "0 to 1"},
		{"bad output", ok, nil, with("--output", "xml"), ExitUsage, "table or json"},
		{"unknown flag", ok, nil, with("--nope"), ExitUsage, "--nope"},
		{"unknown command", ok, nil, []string{"rolback"}, ExitUsage, "rolback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, diag, exit := run(t, &fakeRunbooks{start: c.start, watch: c.watch}, &fakeFleets{}, c.args...)
			if exit != c.exit || !strings.Contains(diag, c.says) {
				t.Errorf("exit %d, want %d; said %q, want %q in it\n%s", exit, c.exit, diag, c.says, out)
			}
		})
	}
}

// TestWatchAgain: an operation does not depend on being watched, so a stream that breaks is taken up again.
func TestWatchAgain(t *testing.T) {
	n := 0
	runbooks := &fakeRunbooks{
		start: func(*runbookv1.StartRequest) (*runbookv1.Operation, error) {
			return operation(runbookv1.State_STATE_RUNNING), nil
		},
		watch: func(send func(*runbookv1.Operation) error) error {
			n++
			if n == 1 {
				_ = send(operation(runbookv1.State_STATE_RUNNING, runbookv1.Step_STEP_SWITCHING))
				return connect.NewError(connect.CodeUnavailable, context.Canceled)
			}
			return send(operation(runbookv1.State_STATE_SUCCEEDED, runbookv1.Step_STEP_DONE))
		},
	}
	out, diag, exit := run(t, runbooks, &fakeFleets{}, "rollback", "--fleet", "edge", "--reason", "r")
	if exit != ExitDone || n != 2 {
		t.Errorf("exit %d after %d watches\n%s%s", exit, n, out, diag)
	}
}

func TestDryRun(t *testing.T) {
	fleets := &fakeFleets{plan: []*fleetv1.PopPlan{
		{Pop: "ams1", From: fleetv1.Colour_COLOUR_GREEN, To: fleetv1.Colour_COLOUR_BLUE, Version: "v1"},
		{Pop: "fra1", From: fleetv1.Colour_COLOUR_GREEN, To: fleetv1.Colour_COLOUR_BLUE, Blockers: []*fleetv1.Blocker{{Reason: "standby_not_ready", Message: "blue has 1 of 2 pods ready"}}},
		{Pop: "sin1", Problem: &fleetv1.Problem{Code: "unavailable", Message: "the API does not answer"}},
	}}
	out, diag, exit := run(t, &fakeRunbooks{}, fleets, "rollback", "--fleet", "edge", "--dry-run")
	if exit != ExitRefused || !strings.Contains(diag, "2 of 3") {
		t.Errorf("exit %d, said %q", exit, diag)
	}
	want := `POP   FROM   TO    VERSION  VERDICT       DETAIL
ams1  green  blue  v1       would switch  -
fra1  green  blue  -        blocked       blue has 1 of 2 pods ready
sin1  -      -     -        unreachable   the API does not answer
1 of 3 PoPs would switch to blue, 0 are already there. Nothing was changed.
`
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestFleetList(t *testing.T) {
	blue := &fleetv1.ColourState{Version: "v1", Desired: 2, Ready: 2, OpenConnections: proto.Int64(12)}
	fleets := &fakeFleets{list: []*fleetv1.Fleet{
		{Pop: "ams1", Name: "edge", Active: fleetv1.Colour_COLOUR_BLUE, Phase: fleetv1.Phase_PHASE_STEADY, Blue: blue, Green: &fleetv1.ColourState{Version: "v2", Desired: 2, Ready: 1}},
		{Pop: "fra1", Name: "edge", Problem: &fleetv1.Problem{Code: "unavailable", Message: "the API does not answer"}},
	}}
	out, _, exit := run(t, &fakeRunbooks{}, fleets, "fleet", "list", "edge", "--pops", "ams1,fra1")
	want := `POP   FLEET  ACTIVE  VERSION  READY  STANDBY  READY  PHASE   CONNS  AGE  MESSAGE
ams1  edge   blue    v1       2/2    v2       1/2    steady  12     -    -
fra1  edge   -       -        -      -        -      -       -      -    the API does not answer
`
	if exit != ExitDone || out != want {
		t.Errorf("exit %d, got\n%swant\n%s", exit, out, want)
	}
	if got := fleets.got.GetScope(); got.GetAll() || len(got.GetPops()) != 2 {
		t.Errorf("scope is %v", got)
	}
	if out, _, _ := run(t, &fakeRunbooks{}, fleets, "fleet", "list", "--output", "json"); !strings.HasPrefix(out, "{\n  \"fleets\": [") {
		t.Errorf("JSON begins with %.40q", out)
	}
}

func TestApprove(t *testing.T) {
	runbooks := &fakeRunbooks{act: func(verb string, act *runbookv1.Act) (*runbookv1.Operation, error) {
		if act.GetReason() != "checked" || act.GetIdempotencyKey() == "" || act.GetId() != "op-1" {
			t.Errorf("%s with %v", verb, act)
		}
		return operation(runbookv1.State_STATE_RUNNING, runbookv1.Step_STEP_DONE, runbookv1.Step_STEP_SWITCHING), nil
	}}
	out, diag, exit := run(t, runbooks, &fakeFleets{}, "operation", "approve", "op-1", "--reason", "checked")
	if exit != ExitDone || !strings.Contains(out, "Rollback of edge to blue: 1 of 2 PoPs serve it, running") {
		t.Errorf("exit %d\n%s%s", exit, out, diag)
	}
}
