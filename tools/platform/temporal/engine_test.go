package temporal_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"edgehold.internal/tools/platform/temporal"
)

// The engine under test is this test binary, started again: a real process that can be killed.
const runEngine = "EDGEHOLD_TEST_TEMPORAL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(runEngine); dir != "" {
		if err := engine(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func engine(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return temporal.Run(ctx, temporal.Config{Dir: dir, LogLevel: "error"}, func(r temporal.Ready) {
		_ = json.NewEncoder(os.Stdout).Encode(r)
	})
}

type process struct {
	cmd   *exec.Cmd
	ready temporal.Ready
}

// start runs an engine in dir and returns when it is ready. It is killed at the end of the test.
func start(t testing.TB, dir string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), runEngine+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p := &process{cmd: cmd}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the engine ended before it was ready: %v", err)
	}
	if err := json.Unmarshal(line, &p.ready); err != nil {
		t.Fatalf("ready line %q: %v", line, err)
	}
	return p
}

func (p *process) signal(t testing.TB, s os.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	return p.cmd.Wait()
}

func dial(t testing.TB, p *process) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: p.ready.Address, Namespace: p.ready.Namespace, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// approve waits for a signal, so that it can be caught half way by a kill.
func approve(ctx workflow.Context) (string, error) {
	var by string
	workflow.GetSignalChannel(ctx, "approve").Receive(ctx, &by)
	return by, nil
}

func approver(t *testing.T, c client.Client) {
	t.Helper()
	w := worker.New(c, "approvals", worker.Options{})
	w.RegisterWorkflow(approve)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
}

func TestAWorkflowOutlivesAKill(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	p := start(t, dir)
	c := dial(t, p)
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "half-way", TaskQueue: "approvals"}, approve)
	if err != nil {
		t.Fatal(err)
	}
	// What is acknowledged is kept, so the kill comes right behind the acknowledgement.
	if err := c.SignalWorkflow(ctx, run.GetID(), run.GetRunID(), "approve", "someone"); err != nil {
		t.Fatal(err)
	}
	_ = p.signal(t, syscall.SIGKILL)

	again := start(t, dir)
	if again.ready != p.ready {
		t.Errorf("after the kill the engine is at %+v, was at %+v", again.ready, p.ready)
	}
	c = dial(t, again)
	approver(t, c)
	var by string
	if err := c.GetWorkflow(ctx, run.GetID(), run.GetRunID()).Get(ctx, &by); err != nil || by != "someone" {
		t.Errorf("the workflow ended with %q, %v", by, err)
	}
	began := time.Now()
	if err := again.signal(t, syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the graceful stop took %s", took)
	}
}

func TestSearchAttributesAndUI(t *testing.T) {
	ctx := t.Context()
	p := start(t, t.TempDir())
	c := dial(t, p)
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: p.ready.Namespace})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range temporal.SearchAttributes {
		if got := have.GetCustomAttributes()[name]; got != enums.INDEXED_VALUE_TYPE_KEYWORD {
			t.Errorf("search attribute %s is %s", name, got)
		}
	}
	resp, err := http.Get(p.ready.UI + "/api/v1/namespaces/" + p.ready.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the UI answers %s for the namespace", resp.Status)
	}
}

func TestWorkerVersioning(t *testing.T) {
	ctx := t.Context()
	p := start(t, t.TempDir())
	c := dial(t, p)
	version := worker.WorkerDeploymentVersion{DeploymentName: "runbooks", BuildID: "1"}
	w := worker.New(c, "approvals", worker.Options{DeploymentOptions: worker.DeploymentOptions{
		UseVersioning: true, Version: version, DefaultVersioningBehavior: workflow.VersioningBehaviorPinned}})
	w.RegisterWorkflow(approve)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	// The server makes the deployment when the first poll arrives, and has no event for it.
	h := c.WorkerDeploymentClient().GetHandle(version.DeploymentName)
	var err error
	for range 100 {
		if _, err = h.SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: version.BuildID}); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("set the current version: %v", err)
	}
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "approvals"}, approve)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SignalWorkflow(ctx, run.GetID(), "", "approve", "someone"); err != nil {
		t.Fatal(err)
	}
	if err := run.Get(ctx, nil); err != nil {
		t.Fatal(err)
	}
}

func TestStartsThatCannotWork(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	other, damaged, old := t.TempDir(), t.TempDir(), t.TempDir()
	start(t, other)
	for dir, text := range map[string]string{damaged: "{", old: `{"schema":"0.1","visibility_schema":"0.1","shards":4,"ports":{}}`} {
		if err := os.WriteFile(dir+"/state.json", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		cfg  temporal.Config
		want string
	}{
		{"port", temporal.Config{Dir: t.TempDir(), Port: busy.Addr().(*net.TCPAddr).Port}, "for the frontend is not free"},
		{"directory in use", temporal.Config{Dir: other}, "another edgehold-temporal runs"},
		{"damaged", temporal.Config{Dir: damaged}, "delete " + damaged},
		{"other schema", temporal.Config{Dir: old}, "schema 0.1/0.1"},
		{"no directory", temporal.Config{Dir: "/dev/null/x"}, "dir:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := temporal.Run(t.Context(), tt.cfg, func(temporal.Ready) { t.Error("it is ready") })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}
