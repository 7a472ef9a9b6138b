// Package demo is the story that `make demo` tells: a fleet under live traffic gets a bad release and is rolled back
// globally, and every figure of the report is measured on the way. Start at Run.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"edgehold.internal/e2e/stage"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"edgehold.internal/tools/edge/load"
	"edgehold.internal/tools/edge/report"
	"edgehold.internal/tools/edgehold/platform"
)

// Config of a demo. Default has the story of the README.
type Config struct {
	// Root is the checkout, Bin its binaries, Out the directory of the report.
	Root, Bin, Out string
	Clusters, Pops int
	// Replicas are the pods per colour and PoP.
	Replicas int
	// Rate is requests per second over all PoPs.
	Rate float64
	// Bad is how long the bad release is left in place before the rollback; After how long traffic goes on once everything
	// is drained.
	Bad, After time.Duration
}

// Default is the story of the README on this checkout.
func Default(root string) Config {
	return Config{Root: root, Bin: filepath.Join(root, ".edgehold", "bin"), Out: filepath.Join(root, "out", "demo"),
		Clusters: 3, Pops: 21, Replicas: 2, Rate: 1500, Bad: 6 * time.Second, After: 4 * time.Second}
}

// badRelease is what v2 does wrong: it is ready and answers, and a quarter of its answers are errors. No readiness probe
// sees that, which is why the fleet does not switch back by itself.
const badRelease = "ratio=0.25,status=500"

// Run tells the story and returns nil only if every PoP is back and every figure was measured. What it starts it stops.
func Run(ctx context.Context, c Config) (err error) {
	t := &teller{begun: time.Now()}
	if err := os.RemoveAll(c.Out); err != nil {
		return err
	}
	dir := filepath.Join(c.Root, ".edgehold", "demo")

	t.chapter("The platform: %d Kubernetes control planes, their nodes, Temporal", c.Clusters)
	up := exec.CommandContext(ctx, filepath.Join(c.Bin, "edgehold"), "platform", "up", "--dir", dir, "--bin", c.Bin, "--fresh", fmt.Sprintf("--clusters=%d", c.Clusters))
	up.Stdout, up.Stderr = os.Stdout, os.Stderr
	defer func() {
		down := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(c.Bin, "edgehold"), "platform", "down", "--dir", dir)
		down.Stdout, down.Stderr = os.Stdout, os.Stderr
		t.chapter("Stopping everything")
		err = errors.Join(err, down.Run())
	}()
	if err := up.Run(); err != nil {
		return fmt.Errorf("the platform did not come up: %w", err)
	}
	state, err := platform.Load(dir)
	if err != nil {
		return err
	}

	t.chapter("The fleet: %d PoPs, blue v1 serves, green v1 stands by", c.Pops)
	set := stage.Embedded(state, c.Root, c.Bin, filepath.Join(dir, "stage"))
	set.Pops, set.Replicas, set.Say = c.Pops, c.Replicas, t.say
	s, err := stage.Set(ctx, set)
	if err != nil {
		return err
	}
	defer s.Close()

	config := load.Default()
	config.Rate = c.Rate / float64(c.Pops)
	traffic, err := s.Load(ctx, config)
	if err != nil {
		return err
	}
	defer traffic.Stop()
	t.say("traffic flows: %.0f requests/s over %d PoPs, keep-alive, new connections, HTTP/2 and streams", c.Rate, c.Pops)

	parity := &stage.Parity{}
	s.Board.Sample(parity.Sample)
	s.SampleNow(parity)

	t.chapter("The release: v2 goes to the standby and is cut over to. It is bad, and no probe can tell")
	if err := s.Ship(ctx, v1alpha1.Green, "v2", badRelease); err != nil {
		return err
	}
	// The release does reach every PoP; that the edge is not well afterwards is what the operation says in the end.
	if err := t.command(s.CLI(ctx, "cutover", "--to", "green", "--version", "v2", "--reason", "release v2"), 5); err != nil {
		return err
	}
	if err := s.AwaitActive(ctx, v1alpha1.Green); err != nil {
		return err
	}
	t.pause(ctx, c.Bad)
	now := traffic.Snapshot()
	t.say("so far %d answers, %d of them errors of v2, %d failed", now.Requests, now.Bad, now.Failed)

	t.chapter("The rollback")
	s.Board.Sample(nil)
	const reason = "v2 answers 500"
	commanded := time.Now()
	if err := t.command(s.CLI(ctx, "rollback", "--reason", reason)); err != nil {
		return err
	}
	if err := s.AwaitSteady(ctx); err != nil {
		return err
	}
	t.pause(ctx, c.After)

	r, err := report.New(report.Input{Reason: reason, Command: commanded, Clusters: c.Clusters, ParityMin: parity.Min(),
		Pops: s.Timelines(v1alpha1.Blue), Load: traffic.Stop()})
	if err != nil {
		return err
	}
	if err := r.Write(c.Out); err != nil {
		return err
	}
	t.chapter("What was measured")
	summary(os.Stdout, &r.Rollback)
	fmt.Printf("\n  Report: %s\n", filepath.Join(c.Out, "rollback.html"))
	return verdict(&r.Rollback)
}

// summary prints the headline figures. A figure that is missing says why.
func summary(w io.Writer, r *report.Rollback) {
	why := map[string]string{}
	for _, m := range r.Missing {
		why[m.Field] = m.Reason
	}
	line := func(label, field, format string, v *float64) {
		if v == nil {
			fmt.Fprintf(w, "  %-44s not measured: %s\n", label, why[field])
			return
		}
		fmt.Fprintf(w, "  %-44s "+format+"\n", label, *v)
	}
	fmt.Fprintf(w, "  %-44s %d of %d, in %d clusters\n", "PoPs rolled back", r.RolledBack, r.Pops, r.Clusters)
	line("command to the last PoP switched", "seconds_to_last_cutover", "%.3f s", r.ToLastCutover)
	line("command to the last bad answer, new connections", "seconds_to_last_bad_response", "%.3f s", r.ToLastBadResponse)
	line("command to the last bad answer, any connection", "seconds_to_last_bad_response_any", "%.3f s", r.ToLastBadResponseAny)
	line("command to the last connection drained", "seconds_to_drained", "%.3f s", r.ToDrained)
	fmt.Fprintf(w, "  %-44s %d, of which bad %d, failed %d\n", "requests", r.Requests, r.BadResponses, r.Failed)
	for reason, n := range r.FailedByReason {
		fmt.Fprintf(w, "  %-44s %d\n", "  failed: "+string(reason), n)
	}
	line("availability", "availability", "%.6f", r.Availability)
	line("standby's size beside the active's, lowest", "parity_min", "%.2f", r.ParityMin)
	line("p99 before the command", "p99_ms_before", "%.1f ms", r.P99Before)
	line("p99 during the rollback", "p99_ms_during", "%.1f ms", r.P99During)
}

// verdict is nil only when every PoP is back, nothing failed and every figure was measured.
func verdict(r *report.Rollback) error {
	var wrong []error
	if r.RolledBack != r.Pops {
		wrong = append(wrong, fmt.Errorf("%d of %d PoPs are not rolled back", r.Pops-r.RolledBack, r.Pops))
	}
	if r.Failed > 0 {
		wrong = append(wrong, fmt.Errorf("%d requests failed", r.Failed))
	}
	for _, m := range r.Missing {
		if !m.Measured {
			wrong = append(wrong, fmt.Errorf("%s was not measured: %s", m.Field, m.Reason))
		}
	}
	return errors.Join(wrong...)
}

// teller prints the story with the time since its begin.
type teller struct{ begun time.Time }

func (t *teller) chapter(format string, args ...any) {
	fmt.Printf("\n%5.1fs  %s\n", time.Since(t.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (t *teller) say(format string, args ...any) {
	fmt.Printf("%5.1fs    %s\n", time.Since(t.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (t *teller) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// command runs a command as an operator would see it. Exit codes in allowed are no error.
func (t *teller) command(cmd *exec.Cmd, allowed ...int) error {
	t.say("$ edgehold %s", strings.Join(cmd.Args[1:], " "))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		for _, code := range allowed {
			if exit.ExitCode() == code {
				return nil
			}
		}
	}
	if err != nil {
		return fmt.Errorf("edgehold %s: %w", cmd.Args[1], err)
	}
	return nil
}
