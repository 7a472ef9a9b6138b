package platform_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edgehold/platform"
	"edgehold.internal/tools/edgehold/platform/process"
)

// fakes is a directory of binaries that are this test binary, and a platform directory, with a platform brought down at
// the end of the test.
func fakes(t *testing.T) platform.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), ".edgehold")
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"edgehold-control-plane", "edgehold-node", "edgehold-temporal", "pod"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := platform.Down(context.Background(), dir); err != nil {
			t.Errorf("down: %v", err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "platform", "supervisor.log"))
			t.Logf("supervisor:\n%s", log)
		}
	})
	return platform.Config{Dir: dir, Bin: bin, Clusters: 2, Timeout: 20 * time.Second}
}

func up(t *testing.T, cfg platform.Config) platform.State {
	t.Helper()
	s, err := platform.Up(limit(t), cfg)
	if err != nil {
		t.Fatalf("up: %v", err)
	}
	return s
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// everything is each process of a platform, pods included.
func everything(t *testing.T, s platform.State) []process.ID {
	t.Helper()
	ids := []process.ID{s.Supervisor}
	for _, e := range s.Engines {
		ids = append(ids, e.Process)
		if e.Kind != platform.Node {
			continue
		}
		data, err := os.ReadFile(filepath.Join(s.Dir, "platform", e.Name, "pods"))
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range strings.Fields(string(data)) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			id, err := process.Identify(n)
			if err != nil {
				t.Fatalf("pod %d of %s does not run", n, e.Name)
			}
			ids = append(ids, id)
		}
	}
	return ids
}

func TestUpIsReadyAndDownLeavesNothing(t *testing.T) {
	cfg := fakes(t)
	var steps []string
	cfg.Progress = func(p platform.Progress) { steps = append(steps, p.Engine) }
	// A file that the caller has open, as a shell's lock, which is inherited.
	lent := filepath.Join(t.TempDir(), "lock")
	fd, err := syscall.Open(lent, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	s := up(t, cfg)
	ids := everything(t, s)
	for _, id := range ids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", id.PID))
		for _, f := range files {
			if to, _ := os.Readlink(f); to == lent {
				t.Errorf("process %d keeps a file of the caller's open", id.PID)
			}
		}
	}

	slices.Sort(steps)
	if diff := cmp.Diff([]string{"", "control-plane-1", "control-plane-2", "node-1", "node-2", "temporal"}, steps); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if len(s.Clusters) != 2 || s.Clusters[0].Block == s.Clusters[1].Block || s.Temporal == nil || s.Temporal.Address == "" {
		t.Errorf("state: %+v", s)
	}
	for _, c := range s.Clusters {
		b := c.Block.Addr().As4()[1]
		if !strings.HasPrefix(c.API, "http://127."+strconv.Itoa(int(b))+".0.1:") {
			t.Errorf("%s: API %s is not in block %s", c.Name, c.API, c.Block)
		}
	}
	kube, err := clientcmd.LoadFromFile(s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if kube.CurrentContext != "cluster-1" || kube.Contexts["cluster-2"] == nil || kube.Clusters["cluster-2"].Server != s.Clusters[1].API {
		t.Errorf("kubeconfig: %+v", kube)
	}
	r, err := platform.Status(limit(t), cfg.Dir)
	if err != nil || !r.Healthy {
		t.Errorf("status: healthy %t, health %+v, %v", r.Healthy, r.Health, err)
	}
	for _, h := range r.Health {
		if h.RSS == 0 || h.Uptime <= 0 || h.Address == "" {
			t.Errorf("health: %+v", h)
		}
	}

	n, err := platform.Down(limit(t), cfg.Dir)
	if err != nil || n != 6 {
		t.Errorf("down ended %d processes (%v), want the supervisor and 5 engines", n, err)
	}
	for _, id := range ids {
		if id.Alive() {
			t.Errorf("process %d outlives the platform", id.PID)
		}
	}
	order, err := os.ReadFile(filepath.Join(cfg.Dir, "stopped"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(order)); len(got) != 5 || got[0] != platform.Node || got[1] != platform.Node {
		t.Errorf("stopped in the order %v, want the nodes first", got)
	}
	if n, err := platform.Down(limit(t), cfg.Dir); n != 0 || err != nil {
		t.Errorf("a second down: %d, %v", n, err)
	}
	if r, err := platform.Status(limit(t), cfg.Dir); err != nil || r.Up || r.Healthy || r.Phase != platform.Stopped {
		t.Errorf("status after down: %+v, %v", r, err)
	}
}

func TestSecondUp(t *testing.T) {
	cfg := fakes(t)
	first := up(t, cfg)
	again := up(t, cfg)
	if again.Supervisor != first.Supervisor {
		t.Errorf("up beside a running platform started supervisor %v, there was %v", again.Supervisor, first.Supervisor)
	}
	other := cfg
	other.Clusters = 1
	if _, err := platform.Up(limit(t), other); problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "platform down") {
		t.Errorf("up with other clusters: %v", err)
	}
	other = cfg
	other.Fresh = true
	if _, err := platform.Up(limit(t), other); problem.KindOf(err) != problem.FailedPrecondition {
		t.Errorf("up --fresh beside a running platform: %v", err)
	}
	if _, err := platform.Down(limit(t), cfg.Dir); err != nil {
		t.Fatal(err)
	}
	second := up(t, cfg)
	for i, c := range second.Clusters {
		if c.Block != first.Clusters[i].Block || c.API != first.Clusters[i].API {
			t.Errorf("after down and up %s has %s %s, had %s %s", c.Name, c.Block, c.API, first.Clusters[i].Block, first.Clusters[i].API)
		}
	}
	if _, err := platform.Down(limit(t), cfg.Dir); err != nil {
		t.Fatal(err)
	}
	cfg.Fresh = true
	marker := filepath.Join(cfg.Dir, "platform", "cluster-1", "marker")
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	up(t, cfg)
	if _, err := os.Stat(marker); err == nil {
		t.Error("--fresh left state of the former platform")
	}
}

func TestTwoCheckoutsSideBySide(t *testing.T) {
	a, b := fakes(t), fakes(t)
	sa, sb := up(t, a), up(t, b)
	for _, x := range sa.Clusters {
		for _, y := range sb.Clusters {
			if x.Block == y.Block {
				t.Errorf("both have block %s", x.Block)
			}
		}
	}
	for _, dir := range []string{a.Dir, b.Dir} {
		if r, err := platform.Status(limit(t), dir); err != nil || !r.Healthy {
			t.Errorf("%s: healthy %t, %v", dir, r.Healthy, err)
		}
	}
	if _, err := platform.Down(limit(t), a.Dir); err != nil {
		t.Fatal(err)
	}
	if r, err := platform.Status(limit(t), b.Dir); err != nil || !r.Healthy {
		t.Errorf("after the other's down: healthy %t, %v", r.Healthy, err)
	}

	// a comes back and finds its block taken.
	thief := fakes(t)
	thief.Clusters = 1
	taken, err := os.ReadFile(filepath.Join(a.Dir, "platform", "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	stolen := strings.ReplaceAll(string(taken), a.Dir, thief.Dir)
	if err := os.MkdirAll(filepath.Join(thief.Dir, "platform"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(thief.Dir, "platform", "state.json"), []byte(stolen), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := up(t, thief); got.Clusters[0].Block != sa.Clusters[0].Block {
		t.Fatalf("the remembered block %s was not used but %s", sa.Clusters[0].Block, got.Clusters[0].Block)
	}
	_, err = platform.Up(limit(t), a)
	if problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), thief.Dir) || !strings.Contains(err.Error(), "platform down") {
		t.Errorf("up with a block that %s holds: %v", thief.Dir, err)
	}
}

func TestAKilledEngineComesBack(t *testing.T) {
	cfg := fakes(t)
	s := up(t, cfg)
	for _, name := range []string{"control-plane-1", "node-2", "temporal"} {
		old, err := s.Engine(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := old.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		now, err := platform.AwaitReplaced(limit(t), cfg.Dir, old)
		if err != nil {
			t.Fatal(err)
		}
		if now.Restarts != 1 || now.LastExit != "signal: killed" || now.Process == old.Process {
			t.Errorf("%s after the kill: %+v", name, now)
		}
	}
	after, err := platform.Load(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if after.Clusters[0].API != s.Clusters[0].API || after.Temporal.Address != s.Temporal.Address {
		t.Errorf("addresses changed: %+v, were %+v", after, s)
	}
	if after.Clusters[0].PIDs[platform.ControlPlane] == s.Clusters[0].PIDs[platform.ControlPlane] {
		t.Error("the cluster still names the killed process")
	}
}

func TestNothingOutlivesAKilledSupervisor(t *testing.T) {
	cfg := fakes(t)
	s := up(t, cfg)
	ids := everything(t, s)
	if err := s.Supervisor.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	escaped := 0
	for _, id := range ids {
		if err := id.Await(ctx); err != nil {
			// What left its session and lost its parent before cannot be found by the kernel's rule.
			escaped++
			_ = id.Signal(syscall.SIGKILL)
		}
	}
	if escaped > len(s.Clusters) {
		t.Errorf("%d processes outlive the supervisor by a second", escaped)
	}
	r, err := platform.Status(limit(t), cfg.Dir)
	if err != nil || r.Up || r.Healthy {
		t.Errorf("status: %+v, %v", r, err)
	}
	if again := up(t, cfg); again.Clusters[0].Block != s.Clusters[0].Block {
		t.Errorf("the next up has block %s, had %s", again.Clusters[0].Block, s.Clusters[0].Block)
	}
}

func TestAnEngineThatDoesNotStart(t *testing.T) {
	cfg := fakes(t)
	t.Setenv(misbehave, "node-2=fail")
	_, err := platform.Up(limit(t), cfg)
	if problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "node-2") || !strings.Contains(err.Error(), "no space left on the moon") {
		t.Errorf("up: %v", err)
	}
	assertStopped(t, cfg.Dir)

	t.Setenv(misbehave, "temporal=mute")
	cfg.Timeout = time.Second
	_, err = platform.Up(limit(t), cfg)
	if problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "temporal was not ready after 1s") {
		t.Errorf("up: %v", err)
	}
	assertStopped(t, cfg.Dir)
}

func TestUpThatIsInterruptedStopsWhatItStarted(t *testing.T) {
	cfg := fakes(t)
	t.Setenv(misbehave, "temporal=mute")
	ctx, cancel := context.WithCancel(limit(t))
	cfg.Progress = func(p platform.Progress) { cancel() }
	if _, err := platform.Up(ctx, cfg); err == nil {
		t.Error("up succeeded although it was interrupted")
	}
	assertStopped(t, cfg.Dir)
}

func assertStopped(t *testing.T, dir string) {
	t.Helper()
	s, err := platform.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Phase != platform.Stopped || s.Running() {
		t.Errorf("phase %s, supervisor runs: %t", s.Phase, s.Running())
	}
	for _, e := range s.Engines {
		if e.Process.PID != 0 {
			t.Errorf("%s has pid %d", e.Name, e.Process.PID)
		}
	}
}

func TestDamagedState(t *testing.T) {
	cfg := fakes(t)
	s := up(t, cfg)
	path := filepath.Join(cfg.Dir, "platform", "state.json")
	if err := os.WriteFile(path, []byte(`{"version":1,"supervisor":{"pid":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.Load(cfg.Dir); problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "--fresh") {
		t.Errorf("load: %v", err)
	}
	// The running platform is found by its lock.
	if _, err := platform.Up(limit(t), cfg); problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "platform down") {
		t.Errorf("up beside a running platform whose state is damaged: %v", err)
	}
	if _, err := platform.Down(limit(t), cfg.Dir); err != nil || s.Supervisor.Alive() {
		t.Errorf("down: %v, supervisor runs: %t", err, s.Supervisor.Alive())
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.Up(limit(t), cfg); problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "--fresh") {
		t.Errorf("up with damaged state: %v", err)
	}
	cfg.Fresh = true
	up(t, cfg)
}

func TestDownSignalsNobodyElse(t *testing.T) {
	cfg := fakes(t)
	s := up(t, cfg)
	if _, err := platform.Down(limit(t), cfg.Dir); err != nil {
		t.Fatal(err)
	}
	// As after a reboot: the state names processes that were never stopped, and their numbers belong to others now.
	s.Supervisor = process.ID{PID: os.Getpid(), Start: 12345}
	for i := range s.Engines {
		s.Engines[i].Process = process.ID{PID: os.Getpid(), Start: 12345}
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "platform", "state.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := platform.Down(limit(t), cfg.Dir); n != 0 || err != nil {
		t.Errorf("down: %d, %v", n, err)
	}
}

func TestConfigErrors(t *testing.T) {
	missing := fakes(t)
	if err := os.Remove(filepath.Join(missing.Bin, "edgehold-node")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*platform.Config)
		want   string
	}{
		{"clusters", func(c *platform.Config) { c.Clusters = 17 }, "--clusters: 17"},
		{"negative", func(c *platform.Config) { c.Clusters = -1 }, "--clusters: -1"},
		{"timeout", func(c *platform.Config) { c.Timeout = time.Millisecond }, "--timeout: 1ms"},
		{"binaries", func(c *platform.Config) { c.Bin = missing.Bin }, "make build"},
		{"directory", func(c *platform.Config) { c.Dir = "/dev/null/x" }, "--dir"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := fakes(t)
			dir := cfg.Dir
			tt.change(&cfg)
			if _, err := platform.Up(limit(t), cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("up: %v, want %q in it", err, tt.want)
			}
			if _, err := platform.Load(dir); problem.KindOf(err) != problem.NotFound {
				t.Errorf("something was started: %v", err)
			}
		})
	}
}

func TestCommand(t *testing.T) {
	cfg := fakes(t)
	t.Setenv("EDGEHOLD_BIN", cfg.Bin)
	run := func(args ...string) (string, string, error) {
		var out, diag bytes.Buffer
		cmd := platform.Command()
		cmd.SetOut(&out)
		cmd.SetErr(&diag)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(append(args, "--dir", cfg.Dir))
		err := cmd.ExecuteContext(limit(t))
		return out.String(), diag.String(), err
	}
	if _, _, err := run("status"); problem.KindOf(err) != problem.NotFound {
		t.Errorf("status before up: %v", err)
	}
	out, diag, err := run("up", "--clusters", "1", "--no-temporal")
	if err != nil || !strings.Contains(out, "platform ready in") || !strings.Contains(out, "cluster-1") || !strings.Contains(diag, "2/2") {
		t.Errorf("up: %v\n%s\n%s", err, out, diag)
	}
	out, _, err = run("status")
	if err != nil || !strings.Contains(out, "control-plane-1") || strings.Contains(out, "temporal") {
		t.Errorf("status: %v\n%s", err, out)
	}
	out, _, err = run("status", "-o", "json")
	var r platform.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || !r.Healthy || len(r.Clusters) != 1 {
		t.Errorf("status as JSON: %v\n%s", err, out)
	}
	if err != nil {
		t.Error(err)
	}
	if _, _, err = run("status", "-o", "yaml"); problem.KindOf(err) != problem.Invalid {
		t.Errorf("status as YAML: %v", err)
	}
	if out, _, err = run("down"); err != nil || !strings.Contains(out, "3 processes") {
		t.Errorf("down: %v\n%s", err, out)
	}
	if out, _, err = run("status"); problem.KindOf(err) != problem.Unavailable || !strings.Contains(out, "stopped") {
		t.Errorf("status after down: %v\n%s", err, out)
	}
}
