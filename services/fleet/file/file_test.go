package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/file"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func registry(names ...string) string {
	var b strings.Builder
	b.WriteString("apiVersion: edgehold.internal/v1alpha1\nkind: PopRegistry\npops:\n")
	for _, n := range names {
		fmt.Fprintf(&b, "- {name: %s, region: europe, latitude: 1, longitude: 2, context: c1, namespace: pop-%s}\n", n, n)
	}
	return b.String()
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path, beside := filepath.Join(dir, "pops.yaml"), filepath.Join(dir, "contexts")
	write := func(path, text string) {
		t.Helper()
		// As an editor or a mounted ConfigMap does it: a new file in the place of the old one.
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(path, registry("fra1"))
	write(beside, "c1")
	parse := func(data []byte) (*fleet.Registry, error) {
		contexts, err := os.ReadFile(beside)
		if err != nil {
			return nil, err
		}
		return fleet.ParseRegistry(data, strings.Fields(string(contexts)))
	}
	synctest.Test(t, func(t *testing.T) {
		source, err := file.Open(path, []string{beside}, parse)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		applied, warning := 0, "none"
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			source.Follow(ctx, time.Second, func(r *fleet.Registry) { applied = len(r.Pops) }, func(text string) { warning = text })
		}()
		step := func(name, path, text string, pops int, says string) {
			t.Helper()
			write(path, text)
			time.Sleep(time.Second)
			synctest.Wait()
			if applied != pops || !strings.Contains(warning, says) || says == "" && warning != "" {
				t.Errorf("%s: %d PoPs applied, want %d; warning %q, want %q", name, applied, pops, warning, says)
			}
		}
		step("two PoPs", path, registry("fra1", "ams1"), 2, "")
		step("a duplicate", path, registry("fra1", "fra1"), 2, "the last good one, of 2 PoPs, stays in force; correct it: pops[1].name: line 5")
		if n := len(source.Registry().Pops); n != 2 {
			t.Errorf("%d PoPs are in force", n)
		}
		step("mended", path, registry("fra1", "ams1", "gru1"), 3, "")
		step("a context is gone", beside, "c2", 3, `no context "c1"; it has c2`)
		step("it is back", beside, "c1 c2", 3, "")
		cancel()
		<-ended
	})
}

func TestOpenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pops.yaml")
	parse := func(data []byte) (*fleet.Registry, error) { return fleet.ParseRegistry(data, nil) }
	if _, err := file.Open(path, nil, parse); problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), "pops.yaml") {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("pops: 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Open(path, nil, parse); problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), "apiVersion") {
		t.Errorf("a wrong file: %v", err)
	}
}
