package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"edgehold.internal/e2e/stage"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"edgehold.internal/tools/edge/load"
	"edgehold.internal/tools/edge/report"
	"edgehold.internal/tools/edgehold/platform"
)

// Rollback measures the global rollback: the figures of `make bench-rollback`.
type Rollback struct {
	// Root is the checkout, Bin its binaries.
	Root, Bin string
	// Runs of each figure; their median counts.
	Runs int
	// Say receives a line per step.
	Say func(format string, args ...any)
}

// Parts of the bench, by name.
var Parts = []string{"live", "hpa", "scale"}

// Run measures everything, or one part alone. A part that fails is a row that says why, and the others go on.
func (b *Rollback) Run(ctx context.Context, only string) *Table {
	t := &Table{}
	part := func(part, name string, goals [][3]string, do func(context.Context, *Table) error) {
		if only != "" && only != part {
			return
		}
		b.Say("== %s", name)
		have := len(t.Rows)
		err := do(ctx, t)
		if err == nil {
			return
		}
		b.Say("%s: %v", name, err)
		measured := map[string]bool{}
		for _, r := range t.Rows[have:] {
			measured[r.Name] = true
		}
		for _, g := range goals {
			if !measured[g[0]] {
				t.Missing(g[0], g[1], g[2], err)
			}
		}
	}
	var at21 []float64
	part(Parts[0], "21 PoPs under live traffic", traffic[:], func(ctx context.Context, t *Table) error {
		var err error
		at21, err = b.live(ctx, t)
		return err
	})
	part(Parts[1], "an HPA scales the active 2 to 10 to 2", [][3]string{parity}, b.hpa)
	part(Parts[2], "210 PoPs", scale[:], func(ctx context.Context, t *Table) error { return b.scale(ctx, t, at21) })
	return t
}

// The figures: name, unit, goal.
var (
	traffic = [...][3]string{
		{"command to last PoP switched, 21 PoPs, 3 clusters", "s", "<= 1"},
		{"command to last bad answer on a new connection", "s", "<= 1.5"},
		{"failed requests, keep-alive and streams included", "requests", "== 0"},
		{"requests of those runs", "requests", ">= 100000"},
		{"--direct with all of our services stopped", "s", "<= 0.6"},
		{"--direct --force-selector with the controllers dead too", "s", "<= 0.6"},
	}
	scale = [...][3]string{
		{"switch of 210 PoPs over that of 21", "times", "<= 3"},
		{"fleet controller memory, 210 PoPs", "MiB", "<= 150"},
	}
	parity = [3]string{"standby over active while an HPA scales, lowest", "ratio", ">= 1"}
)

func (t *Table) figure(f [3]string, runs ...float64) *Row { return t.Add(f[0], f[1], f[2], runs) }

// on runs f on a fresh platform of three clusters, which is gone afterwards.
func (b *Rollback) on(ctx context.Context, name string, f func(stage.Config, platform.State) error) (err error) {
	dir := filepath.Join(b.Root, ".edgehold", "bench", name)
	tool := func(ctx context.Context, args ...string) error {
		out, err := exec.CommandContext(ctx, filepath.Join(b.Bin, "edgehold"), append(args, "--dir", dir)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("edgehold %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := tool(ctx, "platform", "up", "--fresh", "--bin", b.Bin); err != nil {
		return err
	}
	// Also after an interrupt: nothing that was started stays.
	defer func() { err = errors.Join(err, tool(context.WithoutCancel(ctx), "platform", "down")) }()
	state, err := platform.Load(dir)
	if err != nil {
		return err
	}
	c := stage.Embedded(state, b.Root, b.Bin, filepath.Join(dir, "stage"))
	c.Say = b.Say
	return f(c, state)
}

// live is 21 PoPs with traffic: rollbacks through the services, then directly, then past dead controllers, and a plain
// kubectl rollout undo over the same PoPs beside them.
func (b *Rollback) live(ctx context.Context, t *Table) (switched []float64, err error) {
	err = b.on(ctx, "live", func(c stage.Config, _ platform.State) error {
		c.Pops, c.Replicas = 21, 2
		s, err := stage.Set(ctx, c)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.Ship(ctx, v1alpha1.Green, "v2", "ratio=0.25,status=500"); err != nil {
			return err
		}
		var bad, failed, requests []float64
		for i := range b.Runs {
			r, err := b.once(ctx, s)
			if err != nil {
				return fmt.Errorf("run %d: %w", i+1, err)
			}
			b.Say("run %d: switched %s s, last bad answer on a new connection %s s, %d requests, %d failed", i+1, show(r.ToLastCutover), show(r.ToLastBadResponse), r.Requests, r.Failed)
			switched = append(switched, *r.ToLastCutover)
			// When no new connection met the bad release after its PoP's switch, new connections were clean from the switch on.
			bad = append(bad, *r.ToClean)
			failed = append(failed, float64(r.Failed))
			requests = append(requests, float64(r.Requests))
		}
		t.figure(traffic[0], switched...)
		t.figure(traffic[1], bad...)
		t.figure(traffic[2], sum(failed))
		t.figure(traffic[3], sum(requests))

		for _, parallel := range []bool{true, false} {
			// One after the other takes minutes; twice is enough to see it.
			name, runs, undo := "kubectl rollout undo, all at once", min(b.Runs, 3), []float64{}
			if !parallel {
				name, runs = "kubectl rollout undo, one PoP after the other", min(b.Runs, 2)
			}
			for range runs {
				seconds, err := b.undo(ctx, s, parallel)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				undo = append(undo, seconds)
			}
			b.Say("%s: %.1f s", name, Median(undo))
			peer := t.Add(traffic[0][0]+" (beside "+name+")", "s", "", switched)
			peer.Against(name, undo)
		}
		return b.direct(ctx, s, t)
	})
	return switched, err
}

// enough requests of one run, half of them before the command: five runs are more than 100,000.
const enough = 22_000

// once cuts over to the bad release and rolls back, under traffic.
func (b *Rollback) once(ctx context.Context, s *stage.Stage) (*report.Rollback, error) {
	config := load.Default()
	// The load is there to find failures, not to fill the machine: on two cores this is half of it.
	config.Rate = 1000.0 / float64(len(s.Pops))
	run, err := s.Load(ctx, config)
	if err != nil {
		return nil, err
	}
	defer run.Stop()
	if _, err := s.Run(ctx, "cutover", "--to", "green", "--max-error-ratio", "1", "--reason", "bench: forward"); err != nil && exitCode(err) != 5 {
		return nil, err
	}
	if err := s.AwaitSteady(ctx); err != nil {
		return nil, err
	}
	if err := await(ctx, run, enough/2); err != nil {
		return nil, err
	}
	command, spent, err := b.switchTo(ctx, s, "rollback", "--reason", "bench: back")
	if err != nil {
		return nil, err
	}
	if err := s.AwaitSteady(ctx); err != nil {
		return nil, err
	}
	if err := await(ctx, run, enough); err != nil {
		return nil, err
	}
	r, err := report.New(report.Input{Command: command, Clusters: len(s.Clusters), Pops: s.Timelines(v1alpha1.Blue), Load: run.Stop()})
	if err != nil {
		return nil, err
	}
	if r.RolledBack != len(s.Pops) || r.ToLastCutover == nil || r.ToClean == nil {
		return nil, fmt.Errorf("%d of %d PoPs rolled back: %+v", r.RolledBack, r.Pops, r.Missing)
	}
	var declared []float64
	for _, p := range s.Timelines(v1alpha1.Blue) {
		declared = append(declared, p.Declared.Sub(command).Seconds())
	}
	b.Say("PoPs declared from %.3f to %.3f s, half of them in %.3f s; until the command was done: %s", slices.Min(declared), slices.Max(declared), Median(declared), spent)
	return &r.Rollback, nil
}

// await returns when a run has n requests.
func await(ctx context.Context, run *load.Run, n int64) error {
	for run.Snapshot().Requests < n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// undo ships v2 to the active colour as a plain Deployment would get it, and undoes it with kubectl. Seconds from the
// command until every roll-out is complete.
func (b *Rollback) undo(ctx context.Context, s *stage.Stage, parallel bool) (float64, error) {
	if err := s.Ship(ctx, v1alpha1.Blue, "v2", "ratio=0.25,status=500"); err != nil {
		return 0, err
	}
	begun := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	if !parallel {
		g.SetLimit(1)
	}
	for _, p := range s.Pops {
		g.Go(func() error {
			for _, args := range [][]string{{"rollout", "undo", "deployment/edge-blue"}, {"rollout", "status", "deployment/edge-blue", "--timeout=2m"}} {
				cmd := exec.CommandContext(gctx, filepath.Join(b.Bin, "edgehold-kubectl"), append([]string{"--kubeconfig=" + s.Kubeconfig, "--context=" + p.Context, "-n", p.Namespace}, args...)...)
				if out, err := cmd.CombinedOutput(); err != nil {
					return fmt.Errorf("kubectl %s in %s: %w: %s", args[1], p.Namespace, err, out)
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return time.Since(begun).Seconds(), err
}

// rest is what follows a switch, or the start of the clusters, before the next one is measured: what endpoints, doors, connections
// and Temporal still do must not be counted for it, and a control plane that has been idle has collected its garbage.
func rest(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(8 * time.Second):
		return nil
	}
}

// direct stops the services of the centre, then the controllers too.
func (b *Rollback) direct(ctx context.Context, s *stage.Stage, t *Table) error {
	s.Runbooks.Stop(5 * time.Second)
	s.Fleet.Stop(5 * time.Second)
	to := "blue" // what is served
	measure := func(flags ...string) ([]float64, error) {
		var seconds []float64
		for range b.Runs {
			to = map[string]string{"blue": "green", "green": "blue"}[to]
			if err := rest(ctx); err != nil {
				return nil, err
			}
			begun := time.Now()
			out, err := s.Run(ctx, append([]string{"cutover", "--direct", "--fleet", stage.FleetName, "--to", to, "--reason", "bench: direct"}, flags...)...)
			if err != nil {
				return nil, fmt.Errorf("%w\n%s", err, out)
			}
			seconds = append(seconds, time.Since(begun).Seconds())
			if len(flags) > 0 {
				continue // no controller is left to say that it is steady
			}
			if err := s.AwaitSteady(ctx); err != nil {
				return nil, err
			}
		}
		return seconds, nil
	}
	seconds, err := measure()
	if err != nil {
		return err
	}
	t.figure(traffic[4], seconds...)
	for _, c := range s.Clusters {
		if err := c.Scale(ctx, "edgehold-system", "fleet-controller", 0); err != nil {
			return err
		}
	}
	if seconds, err = measure("--force-selector", "--force"); err != nil {
		return err
	}
	t.figure(traffic[5], seconds...)
	return nil
}

// hpa scales one PoP's active colour by load and watches the size of both.
func (b *Rollback) hpa(ctx context.Context, t *Table) error {
	return b.on(ctx, "hpa", func(c stage.Config, _ platform.State) error {
		c.Pops, c.Replicas, c.Contexts, c.Temporal = 1, 2, c.Contexts[:1], ""
		s, err := stage.Set(ctx, c)
		if err != nil {
			return err
		}
		defer s.Close()
		p := s.Pops[0]
		if err := s.Autoscale(ctx, p, 2, 10, 40); err != nil {
			return err
		}
		sctx, stop := context.WithCancel(ctx)
		defer stop()
		var samples sync.WaitGroup
		lowest, largest, n := 1.0, int32(0), 0
		samples.Go(func() {
			for sctx.Err() == nil {
				list, err := s.Cluster(p).Kube.AppsV1().Deployments(p.Namespace).List(sctx, metav1.ListOptions{})
				if err == nil && len(list.Items) == 2 {
					// Both come from one list, so this is one moment. Blue is active.
					active, standby := *list.Items[0].Spec.Replicas, *list.Items[1].Spec.Replicas
					if list.Items[0].Name != "edge-blue" {
						active, standby = standby, active
					}
					lowest = min(lowest, float64(standby)/float64(active))
					largest = max(largest, active)
					n++
				}
				select {
				case <-sctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
		config := load.Default()
		config.Rate, config.Streams, config.H2Streams = 400, 0, 0
		run, err := s.Load(ctx, config)
		if err != nil {
			return err
		}
		grown := s.AwaitParity(within(ctx, 3*time.Minute), 10)
		run.Stop()
		if grown != nil {
			return grown
		}
		if err := s.AwaitParity(within(ctx, 5*time.Minute), 2); err != nil {
			return err
		}
		stop()
		samples.Wait()
		b.Say("%d samples, up to %d pods a colour", n, largest)
		t.figure(parity, lowest)
		return nil
	})
}

func within(ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// scale is 210 PoPs, with pods that have no processes and one controller process for all clusters; at21 are the times of 21.
func (b *Rollback) scale(ctx context.Context, t *Table, at21 []float64) error {
	return b.on(ctx, "scale", func(c stage.Config, _ platform.State) error {
		c.Pops, c.Replicas, c.Simulate, c.CentralController = 210, 2, true, true
		s, err := stage.Set(ctx, c)
		if err != nil {
			return err
		}
		defer s.Close()
		var switched []float64
		for i := range b.Runs {
			to := []v1alpha1.Colour{v1alpha1.Green, v1alpha1.Blue}[i%2]
			if err := rest(ctx); err != nil {
				return err
			}
			command, spent, err := b.switchTo(ctx, s, "cutover", "--to", string(to), "--max-error-ratio", "1", "--reason", "bench: scale")
			if err != nil && exitCode(err) != 5 {
				return err
			}
			if err := s.AwaitSteady(ctx); err != nil {
				return err
			}
			declared, last := 0.0, 0.0
			for _, p := range s.Timelines(to) {
				if p.Switched.Before(command) {
					return fmt.Errorf("%s did not switch to %s: %s", p.Name, to, p.Message)
				}
				declared, last = max(declared, p.Declared.Sub(command).Seconds()), max(last, p.Switched.Sub(command).Seconds())
			}
			b.Say("run %d: 210 PoPs declared in %.3f s, switched in %.3f s; until the command was done: %s", i+1, declared, last, spent)
			switched = append(switched, last)
		}
		memory, err := resident(s.Controller.PID())
		if err != nil {
			return err
		}
		t.figure(scale[1], memory)
		return b.floors(ctx, s, t, at21, switched)
	})
}

// seconds of processor time by what used them.
type seconds map[string]float64

// processorTime of every process of the checkout's binaries so far, and of this one, which is the load.
func (b *Rollback) processorTime() seconds {
	spent := seconds{"load": 0}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		name := "load"
		if dir != fmt.Sprintf("/proc/%d", os.Getpid()) {
			exe, err := os.Readlink(dir + "/exe")
			if err != nil || filepath.Dir(exe) != b.Bin {
				continue
			}
			name = strings.TrimPrefix(filepath.Base(exe), "edgehold-")
		}
		body, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // it has just ended
		}
		spent[name] += float64(ticks(body)) / 100
	}
	return spent
}

// ticks of 10 ms that a process has used, of /proc/PID/stat: after the name in parentheses utime and stime are fields 14 and 15 of
// proc(5).
func ticks(stat []byte) int64 {
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return user + system
}

// switchTo runs the command and says when it began, and what processor time went by until it was done.
func (b *Rollback) switchTo(ctx context.Context, s *stage.Stage, args ...string) (command time.Time, spent seconds, err error) {
	err = s.Unwatched(func() error {
		before := b.processorTime()
		command = time.Now()
		_, err := s.Run(ctx, args...)
		spent = b.processorTime().since(before)
		return err
	})
	return command, spent, err
}

func (s seconds) since(before seconds) seconds {
	spent := seconds{}
	for name, v := range s {
		spent[name] = v - before[name]
	}
	return spent
}

// String has the largest first.
func (s seconds) String() string {
	names := slices.SortedFunc(maps.Keys(s), func(a, b string) int { return cmp.Compare(s[b], s[a]) })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %.2f s", name, s[name]))
	}
	return strings.Join(parts, ", ") + " of processor time"
}

// resident is the memory of a process in MiB, the highest it ever had (VmHWM).
func resident(pid int) (float64, error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if rest, is := strings.CutPrefix(line, "VmHWM:"); is {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d shows no VmHWM", pid)
}

func exitCode(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return -1
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

func show(v *float64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprintf("%.3f", *v)
}
