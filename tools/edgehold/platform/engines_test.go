package platform_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"edgehold.internal/tools/edgehold/platform"
)

// TestRealEngines does with the built engines what the other tests do with fakes.
func TestRealEngines(t *testing.T) {
	bin := os.Getenv("EDGEHOLD_BIN")
	if bin == "" {
		dir, err := platform.DefaultDir()
		if err != nil {
			t.Fatal(err)
		}
		bin = filepath.Join(dir, "bin")
	}
	for _, name := range []string{"edgehold-control-plane", "edgehold-node", "edgehold-temporal"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Skipf("needs the engines: %v; run `make build`", err)
		}
	}
	// The path is short because the control plane puts unix sockets into it.
	root, err := os.MkdirTemp("", "eh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	cfg := platform.Config{Dir: filepath.Join(root, ".edgehold"), Bin: bin, Clusters: 1, Timeout: 5 * time.Minute}
	t.Cleanup(func() { _, _ = platform.Down(context.Background(), cfg.Dir) })
	s, err := platform.Up(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	healthy := func() {
		t.Helper()
		if r, err := platform.Status(t.Context(), cfg.Dir); err != nil || !r.Healthy {
			t.Fatalf("healthy %t: %+v, %v", r.Healthy, r.Health, err)
		}
	}
	healthy()
	for _, e := range s.Engines {
		if err := e.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := platform.AwaitReplaced(t.Context(), cfg.Dir, e); err != nil {
			t.Fatal(err)
		}
		healthy()
	}
	now, err := platform.Load(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if now.Clusters[0].API != s.Clusters[0].API || *now.Temporal != *s.Temporal {
		t.Errorf("after the kills the platform is at %+v %+v, was at %+v %+v", now.Clusters, now.Temporal, s.Clusters, s.Temporal)
	}
	if _, err := platform.Down(t.Context(), cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if left := namedAfter(t, root); len(left) > 0 {
		t.Errorf("processes outlive the platform: %v", left)
	}
}

// namedAfter finds the processes that have the text in their command line.
func namedAfter(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), text) {
			found = append(found, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return found
}
