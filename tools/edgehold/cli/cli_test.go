package cli

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
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
	list  []*runbookv1.Operation
}

func (f *fakeRunbooks) ListOperations(context.Context, *runbookv1.ListOperationsRequest) (*runbookv1.ListOperationsResponse, error) {
	return &runbookv1.ListOperationsResponse{Operations: f.list}, nil
}

func (f *fakeRunbooks) GetOperation(_ context.Context, r *runbookv1.GetOperationRequest) (*runbookv1.GetOperationResponse, error) {
	for _, op := range f.list {
		if op.GetId() == r.GetId() {
			return &runbookv1.GetOperationResponse{Operation: op}, nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, errors.New("no such operation"))
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

func (f *fakeFleets) ListPops(context.Context, *fleetv1.ListPopsRequest) (*fleetv1.ListPopsResponse, error) {
	return &fleetv1.ListPopsResponse{Pops: []*fleetv1.Pop{{Name: "ams1", Region: "eu-west"}, {Name: "fra1", Region: "eu-central"}}}, nil
}

func (f *fakeFleets) PlanCutover(context.Context, *fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error) {
	return &fleetv1.PlanCutoverResponse{To: fleetv1.Colour_COLOUR_BLUE, Pops: f.plan}, nil
}

// run is the command line against the fakes: what it printed and its exit code.
func run(t *testing.T, runbooks *fakeRunbooks, fleets *fakeFleets, args ...string) (out, diag string, exit int) {
	t.Helper()
	return runIn(t.Context(), t, runbooks, fleets, args...)
}

func runIn(ctx context.Context, t *testing.T, runbooks *fakeRunbooks, fleets *fakeFleets, args ...string) (out, diag string, exit int) {
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
	if args[0] == "__complete" {
		args = append([]string{"__complete", "--config", path}, args[1:]...)
	} else {
		args = append([]string{"--config", path}, args...)
	}
	root.SetArgs(args)
	exit = Main(ctx, root)
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

// TestSentences: what a person typed is named as it was typed, with what is allowed and what to do.
func TestSentences(t *testing.T) {
	ops := []*runbookv1.Operation{operation(runbookv1.State_STATE_RUNNING), operation(runbookv1.State_STATE_SUCCEEDED)}
	for args, want := range map[string]string{
		"rollback --reason r --wave x":                    `edgehold: --wave: "x" is not a whole number`,
		"rollback --reason r --deadline 5":                `edgehold: --deadline: "5" is not a length of time such as 30s or 5m`,
		"rollback --reason r --wave":                      `edgehold: flag needs an argument: --wave; edgehold rollback --help shows the flags`,
		"rollback --reason r --max-failed -1":             `edgehold: --max-failed: -1 is not a number of PoPs; use 0 or more`,
		"rollback --reason r --max-error-ratio NaN":       `edgehold: --max-error-ratio: NaN is not a ratio; use 0 to 1`,
		"rollback --reason r --approve-waves":             `edgehold: --approve-waves: there is one wave only; use it with --wave or --first-pop`,
		"rollback --reason r --pops a,b --first-pop c":    `edgehold: --first-pop: "c" is not one of --pops a,b`,
		"rollback --reason r --pops a,a":                  `edgehold: --pops: "a" is named twice`,
		"rollback v2 is bad":                              `edgehold: edgehold rollback takes flags only, and "v2" is none; quote texts with spaces`,
		"rolback":                                         `edgehold: "rolback" is not a command of edgehold; use rollback`,
		"fleet lst":                                       `edgehold: "lst" is not a command of edgehold fleet; use list, get`,
		"fleet get":                                       `edgehold: FLEET: is missing: edgehold fleet get FLEET --pop POP [flags]; edgehold fleet list shows them`,
		"fleet get edge":                                  `edgehold: --pop: name the PoP; edgehold pop list shows them`,
		"fleet list a b":                                  `edgehold: FLEET: "b" is one too many; there is one FLEET, and texts with spaces need quotes`,
		"fleet freeze edge --reason r":                    `edgehold: --for: 0s is not a length of time to come; use for example 2h`,
		"operation approve --reason":                      `edgehold: flag needs an argument: --reason; edgehold operation approve --help shows the flags`,
		"operation approve":                               `edgehold: --reason: say why; it is kept with the operation`,
		"operation get none":                              `edgehold: no such operation`,
		"operation approve --reason r":                    `edgehold: --reason: too short`, // the service's field, as the flag
		"operation approve op-1 --reason r --output yaml": `edgehold: --output: "yaml" is not a format; use table or json`,
	} {
		t.Run(args, func(t *testing.T) {
			runbooks := &fakeRunbooks{list: ops, act: func(string, *runbookv1.Act) (*runbookv1.Operation, error) {
				return nil, violation(t, "act.reason", "too short")
			}}
			out, diag, exit := run(t, runbooks, &fakeFleets{}, strings.Fields(args)...)
			if exit != ExitUsage || strings.TrimSpace(diag) != want {
				t.Errorf("exit %d, said\n%swant\n%s\n%s", exit, diag, want, out)
			}
		})
	}
}

// violation is what libs/service sends for a field that is wrong.
func violation(t *testing.T, field, sentence string) error {
	t.Helper()
	err := connect.NewError(connect.CodeInvalidArgument, errors.New(field+": "+sentence))
	detail, detailErr := connect.NewErrorDetail(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: sentence}}})
	if detailErr != nil {
		t.Fatal(detailErr)
	}
	err.AddDetail(detail)
	return err
}

// TestConfigFile: what is wrong in it is named with its path, and a command that does not need it does not read it.
func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("EDGEHOLD_CONFIG", "")
	path := filepath.Join(dir, "edgehold", "config.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	const allowed = "; allowed are fleet, runbooks, mock, tokenFile, caFile, certFile, keyFile, kubeconfig, registry, auditLog, each a text"
	for content, want := range map[string]string{
		"":                                     `fleet: the address of this service is not known; write "fleet: http://HOST:PORT" into ` + path,
		"fleets: http://x":                     "--config: " + path + `: unknown field "fleets"` + allowed,
		"fleet: [1]":                           "--config: " + path + ": cannot unmarshal array as fleet" + allowed,
		"[fleet]":                              "--config: " + path + ": cannot unmarshal array" + allowed,
		"fleet: 127.0.0.1:7300":                path + `: fleet: "127.0.0.1:7300" is not allowed: http://host:port or https://host:port`,
		"fleet: http://x\ntokenFile: /nowhere": path + ": fleet: token-file: \"/nowhere\" cannot be read: no such file or directory",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"pop", "list"}, {"rollback", "--dry-run"}} {
			root := Command("test")
			var out, diag bytes.Buffer
			root.SetOut(&out)
			root.SetErr(&diag)
			root.SetArgs(args)
			exit := Main(t.Context(), root)
			line, rest, _ := strings.Cut(diag.String(), "\n")
			if exit != ExitUsage || line != "edgehold: "+want {
				t.Errorf("%q: exit %d, said\n%swant\nedgehold: %s", content, exit, diag.String(), want)
			}
			if hint := strings.Contains(rest, "edgehold rollback --direct"); hint != (content == "" && args[0] == "rollback") {
				t.Errorf("%q, %v: hint at --direct is %t", content, args, hint)
			}
		}
		root := Command("test")
		root.SetOut(&bytes.Buffer{})
		root.SetArgs([]string{"completion", "bash"})
		if exit := Main(t.Context(), root); exit != ExitDone {
			t.Errorf("%q: completion needs the config file: exit %d", content, exit)
		}
	}
}

// TestWhichOperation: at night nobody wants to copy an id when there is only one that can be meant.
func TestWhichOperation(t *testing.T) {
	op := func(id string, state runbookv1.State) *runbookv1.Operation {
		o := operation(state, runbookv1.Step_STEP_DONE)
		o.Id = id
		return o
	}
	open, waiting := op("open", runbookv1.State_STATE_RUNNING), op("waits", runbookv1.State_STATE_WAITING)
	old, older := op("old", runbookv1.State_STATE_SUCCEEDED), op("older", runbookv1.State_STATE_PARTIAL)
	for _, c := range []struct {
		name          string
		list          []*runbookv1.Operation
		watch, decide string // the id, or what is said
	}{
		{"one under way", []*runbookv1.Operation{old, waiting, older}, "waits", "waits"},
		{"none under way", []*runbookv1.Operation{old, older}, "old", "no operation is under way"},
		{"two under way", []*runbookv1.Operation{open, waiting, old}, "2 operations are under way; name one:\n  open\n  waits", "2 operations are under way"},
		{"none at all", nil, "there are no operations yet", "no operation is under way"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var decided string
			runbooks := &fakeRunbooks{list: c.list, act: func(_ string, act *runbookv1.Act) (*runbookv1.Operation, error) {
				decided = act.GetId()
				return old, nil
			}}
			out, diag, _ := run(t, runbooks, &fakeFleets{}, "operation", "get")
			if !strings.Contains(out, "Operation "+c.watch+",") && !strings.Contains(diag, c.watch) {
				t.Errorf("get: %s%s, want %s", out, diag, c.watch)
			}
			_, diag, _ = run(t, runbooks, &fakeFleets{}, "operation", "approve", "--reason", "r")
			if decided != c.decide && !strings.Contains(diag, c.decide) {
				t.Errorf("approve: %q, %s, want %s", decided, diag, c.decide)
			}
		})
	}
}

// TestInterrupted: a person who gives up is told what goes on and how to find it again.
func TestInterrupted(t *testing.T) {
	t.Run("while it is watched", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		runbooks := &fakeRunbooks{
			start: func(*runbookv1.StartRequest) (*runbookv1.Operation, error) {
				return operation(runbookv1.State_STATE_RUNNING), nil
			},
			watch: func(send func(*runbookv1.Operation) error) error {
				err := send(operation(runbookv1.State_STATE_RUNNING, runbookv1.Step_STEP_SWITCHING))
				cancel()
				return err
			},
		}
		_, diag, exit := runIn(ctx, t, runbooks, &fakeFleets{}, "rollback", "--fleet", "edge", "--reason", "r")
		if exit != ExitFailed || !strings.HasSuffix(diag, "edgehold: interrupted; the operation goes on without being watched\n  edgehold operation watch op-1\n") {
			t.Errorf("exit %d, said %s", exit, diag)
		}
	})
	t.Run("before it is known to run", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		runbooks := &fakeRunbooks{start: func(*runbookv1.StartRequest) (*runbookv1.Operation, error) {
			cancel()
			return nil, connect.NewError(connect.CodeCanceled, context.Canceled)
		}}
		_, diag, exit := runIn(ctx, t, runbooks, &fakeFleets{}, "rollback", "--fleet", "edge", "--reason", "r", "--idempotency-key", "mine")
		if exit != ExitFailed || !strings.Contains(diag, "may have been started: edgehold operation list shows it, and the same command with --idempotency-key mine finds it or starts it") {
			t.Errorf("exit %d, said %s", exit, diag)
		}
	})
}

func TestCompletion(t *testing.T) {
	fleets := &fakeFleets{list: []*fleetv1.Fleet{{Pop: "ams1", Name: "edge"}, {Pop: "fra1", Name: "edge"}, {Pop: "fra1", Name: "dns"}}}
	runbooks := &fakeRunbooks{list: []*runbookv1.Operation{operation(runbookv1.State_STATE_SUCCEEDED)}}
	for _, c := range []struct {
		typed []string
		want  string
	}{
		{[]string{"rollback", "--pops", ""}, "ams1\teu-west|fra1\teu-central"},
		{[]string{"rollback", "--pops", "fra1,"}, "fra1,ams1"},
		{[]string{"rollback", "--first-pop", ""}, "ams1\teu-west|fra1\teu-central"},
		{[]string{"rollback", "--to", ""}, "blue|green"},
		{[]string{"cutover", "--fleet", ""}, "edge|dns"},
		{[]string{"fleet", "get", ""}, "edge|dns"},
		{[]string{"fleet", "get", "edge", ""}, ""},
		{[]string{"pop", "list", "--output", ""}, "table|json"},
		{[]string{"operation", "watch", ""}, "op-1\tRollback of edge to blue, succeeded"},
		{[]string{"operation", "abort", ""}, ""},
	} {
		out, _, _ := run(t, runbooks, fleets, append([]string{"__complete"}, c.typed...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if got := strings.Join(lines[:len(lines)-1], "|"); got != c.want {
			t.Errorf("%q gives %q, want %q", c.typed, got, c.want)
		}
	}
}

// TestHelp: every flag is shown, and nothing is wider than a small terminal takes.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"rollback", "--help"}, {"operation", "--help"}, {"fleet", "watch", "--help"}, {"operation", "approve", "--help"}} {
		out, _, exit := run(t, &fakeRunbooks{}, &fakeFleets{}, args...)
		if exit != ExitDone {
			t.Errorf("%v: exit %d", args, exit)
		}
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 || n > 80 && !strings.HasPrefix(line, "  ") {
				t.Errorf("%v: %d columns: %s", args, n, line)
			}
		}
	}
}
