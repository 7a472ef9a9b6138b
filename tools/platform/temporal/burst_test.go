package temporal_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

func noop(context.Context) error { return nil }

func child(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 10 * time.Second})
	return workflow.ExecuteActivity(ctx, noop).Get(ctx, nil)
}

// parent starts the children at once and returns when all have ended.
func parent(ctx workflow.Context, children int) error {
	var running []workflow.ChildWorkflowFuture
	for range children {
		running = append(running, workflow.ExecuteChildWorkflow(ctx, child))
	}
	for _, c := range running {
		if err := c.Get(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkBurst measures what a global rollback asks of the engine: one parent, a child for each of 21 PoPs, one activity
// in each. Beside the wall time it reports the CPU time of the engine, which other load on the machine disturbs less.
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
	run := func() time.Duration {
		begin := time.Now()
		r, err := c.ExecuteWorkflow(b.Context(), client.StartWorkflowOptions{TaskQueue: "burst"}, parent, 21)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Get(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	first := run()
	cpu := p.cpu(b)
	var took []time.Duration
	for b.Loop() {
		took = append(took, run())
		// A rollback comes alone: what the one before left to do in the background is not part of the next.
		b.StopTimer()
		time.Sleep(pause)
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(first.Milliseconds()), "first-ms")
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "median-ms")
	b.ReportMetric(float64((p.cpu(b)-cpu).Milliseconds())/float64(len(took)), "engine-cpu-ms/op")
	b.ReportMetric(0, "ns/op")
}

const pause = 300 * time.Millisecond

// cpu is the CPU time that the process used so far.
func (p *process) cpu(t testing.TB) time.Duration {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
