package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/service"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/proto/edgehold/runbook/v1/runbookv1connect"
	"edgehold.internal/workflows/fake"
)

// asRunbooks makes the test binary be the command, so that a test can kill it.
const asRunbooks = "EDGEHOLD_TEST_AS_RUNBOOKS"

func TestMain(m *testing.M) {
	if os.Getenv(asRunbooks) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what must happen.
const patience = 90 * time.Second

// process is a program that says on its first line where it listens.
type process struct {
	cmd     *exec.Cmd
	address string
	api     string // of a mock: where its clients go
	audit   string // of runbooks
}

// begin starts a program that ends with the test.
func begin(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s wrote:\n%s", cmd.Path, tail(string(b), 4000))
		}
	})
	line := make(chan string, 1)
	go func() {
		s := bufio.NewScanner(out)
		if s.Scan() {
			line <- s.Text()
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case l := <-line:
		var ready struct{ Address, API string }
		if err := json.Unmarshal([]byte(l), &ready); err != nil {
			t.Fatalf("%s said %q: %v", cmd.Path, l, err)
		}
		p.address, p.api = ready.Address, ready.API
	case <-time.After(patience):
		t.Fatalf("%s was not ready after %v", cmd.Path, patience)
	}
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// built is the path of a program of ours.
func built(t testing.TB, name string) string {
	t.Helper()
	bin := os.Getenv("EDGEHOLD_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "..", ".edgehold", "bin")
	}
	path, err := filepath.Abs(filepath.Join(bin, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("EDGEHOLD_NO_SKIP") != "" {
			t.Fatalf("%v; run make engines", err)
		}
		t.Skipf("%v; run make engines", err)
	}
	return path
}

// engine starts the embedded server on a directory and port.
func engine(t testing.TB, dir string, port int) *process {
	t.Helper()
	path := built(t, "edgehold-temporal")
	return begin(t, exec.Command(path, "--dir", dir, "--namespace", "default", "--port", fmt.Sprint(port), "--ui-port", "0"))
}

// fleets serves a fake fleet service until the test ends.
func fleets(t testing.TB, s *fake.Service) string {
	t.Helper()
	server, err := service.New(service.Config{Name: "fleet", LogLevel: "error", AuditLog: filepath.Join(t.TempDir(), "audit")})
	if err != nil {
		t.Fatal(err)
	}
	path, h := fleetv1connect.NewFleetServiceHandler(s, server.HandlerOptions()...)
	server.Handle(fleetv1connect.FleetServiceName, path, h)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-server.Ready()
	return "http://" + server.Addr().String()
}

// runbooks starts the command.
func runbooks(t testing.TB, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	audit := filepath.Join(t.TempDir(), "audit")
	cmd := exec.Command(self, append(args, "--log-level", "info", "--audit-log", audit)...)
	cmd.Env = append(os.Environ(), asRunbooks+"=1")
	p := begin(t, cmd)
	p.audit = audit
	return p
}

func (p *process) client(t testing.TB) runbookv1connect.RunbookServiceClient {
	t.Helper()
	c, err := client.New(client.Config{Address: "http://" + p.address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return runbookv1connect.NewRunbookServiceClient(c.Stream(), c.URL(), c.Options()...)
}

// rollback is a request for all PoPs, to be changed by the test.
func rollback(key string) *runbookv1.StartRequest {
	return &runbookv1.StartRequest{Reason: "v2 answers 500", IdempotencyKey: key, Runbook: &runbookv1.StartRequest_GlobalCutover{
		GlobalCutover: &runbookv1.GlobalCutover{Kind: runbookv1.Kind_KIND_ROLLBACK, Fleet: "edge", Scope: &fleetv1.Scope{All: true}}}}
}

// watch follows an operation until f says that it has seen enough, or to its end.
func watch(ctx context.Context, t testing.TB, c runbookv1connect.RunbookServiceClient, id string, f func(*runbookv1.Operation) bool) *runbookv1.Operation {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.WatchOperation(ctx, &runbookv1.WatchOperationRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var last *runbookv1.Operation
	for stream.Receive() {
		last = stream.Msg().GetOperation()
		if f != nil && f(last) {
			return last
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatalf("the watch ended: %v; last %v", err, last)
	}
	return last
}

func steps(op *runbookv1.Operation) map[runbookv1.Step]int {
	n := make(map[runbookv1.Step]int)
	for _, w := range op.GetWaves() {
		for _, p := range w.GetPops() {
			n[p.GetStep()]++
		}
	}
	return n
}

func healthy(string) *float64 { return proto.Float64(0.001) }

// stage is a fake fleet of its own, on an engine, with a runbooks process.
type stage struct {
	testing.TB
	*fake.Service
	engine   *process
	runbooks *process
	fleetURL string
	runbookv1connect.RunbookServiceClient
	ctx context.Context
}

// open makes a stage of n PoPs on the engine. The fleet, and the task queue, have the test's name.
func open(t testing.TB, engine *process, n int) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s := &stage{TB: t, Service: fake.New(fake.Pops(n)...), engine: engine, ctx: ctx}
	s.Fleet = strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	s.SwitchTime, s.DrainTime, s.ErrorRatio = 100*time.Millisecond, 500*time.Millisecond, healthy
	s.fleetURL = fleets(t, s.Service)
	s.start()
	return s
}

// start starts the process, again if it was killed.
func (s *stage) start(more ...string) {
	s.Helper()
	s.runbooks = runbooks(s.TB, append(more, "--temporal", s.engine.address, "--fleet", s.fleetURL, "--task-queue", s.Fleet)...)
	s.RunbookServiceClient = s.runbooks.client(s.TB)
}

// request is a rollback of the stage's fleet.
func (s *stage) request(key string) *runbookv1.StartRequest {
	r := rollback(key)
	r.GetGlobalCutover().Fleet = s.Fleet
	return r
}

// begins starts an operation and returns its id.
func (s *stage) begins(r *runbookv1.StartRequest) string {
	s.Helper()
	res, err := s.Start(s.ctx, r)
	if err != nil {
		s.Fatal(err)
	}
	return res.GetOperation().GetId()
}

// until watches an operation until it is as f says, or has ended.
func (s *stage) until(id string, f func(*runbookv1.Operation) bool) *runbookv1.Operation {
	s.Helper()
	return watch(s.ctx, s.TB, s.RunbookServiceClient, id, f)
}

// ends watches an operation to its end, which must be this one.
func (s *stage) ends(id string, state runbookv1.State) *runbookv1.Operation {
	s.Helper()
	op := s.until(id, nil)
	if op.GetState() != state {
		s.Fatalf("ended as %s: %s", op.GetState(), op.GetMessage())
	}
	return op
}

// eventually tries until f is content: Temporal's index is a moment behind, and does not tell when it has caught up.
func (s *stage) eventually(f func() error) {
	s.Helper()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.ctx.Done():
			s.Fatal(err)
		}
	}
}

// onceEach says whether no PoP was switched twice.
func (s *stage) onceEach() {
	s.Helper()
	for pop, n := range s.Switches() {
		if n > 1 {
			s.Errorf("PoP %s was switched %d times", pop, n)
		}
	}
}

func act(id, key string) *runbookv1.Act {
	return &runbookv1.Act{Id: id, Reason: "I looked", IdempotencyKey: key}
}

// cpu is the processor time that a process has used.
func (p *process) cpu(t testing.TB) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int
	for _, s := range f[11:13] {
		n, _ := strconv.Atoi(s)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// port of an address.
func port(t testing.TB, address string) int {
	t.Helper()
	n, err := strconv.Atoi(address[strings.LastIndexByte(address, ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
