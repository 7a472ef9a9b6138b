package temporal_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
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
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err := temporal.Run(ctx, temporal.Config{Dir: dir, LogLevel: "error"}, func(r temporal.Ready) {
			_ = json.NewEncoder(os.Stdout).Encode(r)
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
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

func noop(context.Context) error { return nil }

func child(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 10 * time.Second})
	return workflow.ExecuteActivity(ctx, noop).Get(ctx, nil)
}

func parent(ctx workflow.Context, children int) (time.Duration, error) {
	var futures []workflow.ChildWorkflowFuture
	for range children {
		futures = append(futures, workflow.ExecuteChildWorkflow(ctx, child))
	}
	for _, f := range futures {
		if err := f.Get(ctx, nil); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// TestBurst measures what a global rollback asks of the engine: one parent, a child per PoP, an activity in each.
func BenchmarkBurst(b *testing.B) {
	p := start(b, b.TempDir())
	c := dial(b, p)
	w := worker.New(c, "burst", worker.Options{})
	w.RegisterWorkflow(parent)
	w.RegisterWorkflow(child)
	w.RegisterActivity(noop)
	if err := w.Start(); err != nil {
		b.Fatal(err)
	}
	defer w.Stop()
	run := func() {
		r, err := c.ExecuteWorkflow(b.Context(), client.StartWorkflowOptions{TaskQueue: "burst"}, parent, 21)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Get(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	begin := time.Now()
	run()
	b.ReportMetric(float64(time.Since(begin).Milliseconds()), "first-ms")
	for b.Loop() {
		run()
	}
}

var _ = enums.INDEXED_VALUE_TYPE_KEYWORD
var _ = operatorservice.AddSearchAttributesRequest{}
