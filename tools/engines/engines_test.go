package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree writes a small checkout: a workspace of two modules, one of which stands on the other, and an engine outside it.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.work":                               "go 1.26.0\n\nuse (\n\t./libs\n\t./services/fleet\n)\n",
		"libs/go.mod":                           "module x.internal/libs\n\ngo 1.26.0\n",
		"libs/libs.go":                          "package libs\n\nconst Greeting = \"hello\"\n",
		"services/fleet/go.mod":                 "module x.internal/fleet\n\ngo 1.26.0\n\nrequire x.internal/libs v0.0.0\n\nreplace x.internal/libs => ../../libs\n",
		"services/fleet/cmd/fleet/main.go":      "package main\n\nimport \"x.internal/libs\"\n\nfunc main() { println(libs.Greeting) }\n",
		"services/fleet/cmd/fleet/main_test.go": "package main\n",
		"tools/platform/kube/go.mod":            "module x.internal/kube\n\ngo 1.26.0\n",
		"tools/platform/kube/ldflags.txt":       "-X main.version=v7\n",
		"tools/platform/kube/cmd/node/main.go":  "package main\n\nvar version string\n\nfunc main() { println(version) }\n",
		"tools/platform/kube/cmd/node/notes.md": "notes\n",
	} {
		write(t, root, name, text)
	}
	return root
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	root := tree(t)
	got, err := find(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{module: "tools/platform/kube", alone: true, ldflags: "-X main.version=v7", commands: []command{{"edgehold-node", "./cmd/node"}}},
		{module: "services/fleet", ldflags: defaultLDFlags, commands: []command{{"fleet", "./cmd/fleet"}}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{}, command{})); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	write(t, root, "libs/cmd/fleet/main.go", "package main\n\nfunc main() {}\n")
	if _, err := find(root); err == nil || !strings.Contains(err.Error(), "both have a command fleet") {
		t.Errorf("two commands of one name: %v", err)
	}
}

func TestInputs(t *testing.T) {
	for _, tt := range []struct {
		change, text string
		fleet, node  bool // whether the binary has to be built again
	}{
		{"libs/libs.go", "package libs\n\nconst Greeting = \"bye\"\n", true, false},
		{"libs/embedded.html", "<p>", true, false},
		{"libs/go.mod", "module x.internal/libs\n\ngo 1.26.1\n", true, false},
		{"services/fleet/cmd/fleet/main_test.go", "package main // changed\n", false, false},
		{"tools/platform/kube/cmd/node/notes.md", "more\n", false, false},
		{"tools/platform/kube/go.sum", "x\n", false, true},
		{"tools/platform/kube/ldflags.txt", "-s\n", false, true},
	} {
		t.Run(tt.change, func(t *testing.T) {
			root := tree(t)
			node, fleet := hashes(t, root)
			write(t, root, tt.change, tt.text)
			node2, fleet2 := hashes(t, root)
			if (fleet != fleet2) != tt.fleet || (node != node2) != tt.node {
				t.Errorf("fleet is built again: %t, node: %t", fleet != fleet2, node != node2)
			}
		})
	}
}

func hashes(t *testing.T, root string) (node, fleet string) {
	t.Helper()
	steps, err := find(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range steps {
		h, err := inputs(root, s, "go1.26")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h)
	}
	return got[0], got[1]
}

func TestRun(t *testing.T) {
	root := tree(t)
	build := func() (string, error) {
		var out bytes.Buffer
		err := Run(t.Context(), Config{Root: root, Out: &out})
		return out.String(), err
	}
	says := func(binary, want string) {
		t.Helper()
		out, err := exec.Command(filepath.Join(root, ".edgehold", "bin", binary)).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s says %q (%v), want %q", binary, got, err, want)
		}
	}
	if out, err := build(); err != nil || !strings.Contains(out, "built 2 of 2") {
		t.Fatalf("%v\n%s", err, out)
	}
	says("fleet", "hello")
	says("edgehold-node", "v7")
	if out, err := build(); err != nil || !strings.Contains(out, "up to date") {
		t.Errorf("nothing changed: %v\n%s", err, out)
	}
	write(t, root, "libs/libs.go", "package libs\n\nconst Greeting = \"bye\"\n")
	if out, err := build(); err != nil || !strings.Contains(out, "built 1 of 2") {
		t.Errorf("a library changed: %v\n%s", err, out)
	}
	says("fleet", "bye")

	// What does not compile leaves what there was, and the compiler is heard.
	write(t, root, "libs/libs.go", "package libs\n\nconst Greeting = bye\n")
	if _, err := build(); err == nil || !strings.Contains(err.Error(), "undefined: bye") || !strings.Contains(err.Error(), "fleet") {
		t.Errorf("a broken library: %v", err)
	}
	says("fleet", "bye")
	write(t, root, "libs/libs.go", "package libs\n\nconst Greeting = \"back\"\n")

	// A binary that was replaced by hand is built again, and what a killed build left is removed.
	write(t, root, ".edgehold/bin/.build-killed/edgehold-node", "")
	write(t, root, ".edgehold/bin/edgehold-node", "#!/bin/sh\n")
	if out, err := build(); err != nil || !strings.Contains(out, "built 2 of 2") {
		t.Errorf("a replaced binary: %v\n%s", err, out)
	}
	says("fleet", "back")
	says("edgehold-node", "v7")
	left, err := filepath.Glob(filepath.Join(root, ".edgehold", "bin", ".build-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestProgressLine(t *testing.T) {
	d := newDisplay(&bytes.Buffer{})
	done := d.building([]string{"edgehold-node"})
	d.total.Store(200)
	d.compiled.Store(50)
	d.downloaded.Store(3)
	if got := d.line(); !strings.Contains(got, "25%") || !strings.Contains(got, "50/200 packages") || !strings.Contains(got, "edgehold-node") || !strings.Contains(got, "3 modules downloaded") {
		t.Errorf("line %q", got)
	}
	done()
	if got := d.line(); strings.Contains(got, "edgehold-node") {
		t.Errorf("line %q after the build ended", got)
	}
}
