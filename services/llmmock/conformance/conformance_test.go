package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a_test.go": `package p
import ("os"; "testing")
func TestDirect(t *testing.T) { _ = os.Getenv("TEST_API_BASE_URL") }
func TestNone(t *testing.T) {}
func TestByHelper(t *testing.T) { client() }
func client() { helper() }
func helper() { _, _ = os.LookupEnv("TEST_API_BASE_URL") }
`,
		"sub/b_test.go":       "package sub\nimport (\"os\"; \"testing\")\nfunc TestB(t *testing.T) { _ = os.Getenv(`TEST_API_BASE_URL`) }\n",
		"sub/testdata/x.go":   "no Go at all",
		"other/go.mod":        "module other\n",
		"other/c_test.go":     "package c\nimport (\"os\"; \"testing\")\nfunc TestC(t *testing.T) { _ = os.Getenv(\"TEST_API_BASE_URL\") }\n",
		"plain/plain_test.go": "package plain\nimport \"testing\"\nfunc TestPlain(t *testing.T) {}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := find(dir)
	if err != nil {
		t.Fatal(err)
	}
	var l []string
	for _, p := range got {
		for test, area := range p.tests {
			l = append(l, p.path+" "+area+" "+test)
		}
	}
	slices.Sort(l)
	want := []string{". a TestByHelper", ". a TestDirect", "sub sub/b TestB"}
	if !slices.Equal(l, want) {
		t.Errorf("found %q, want %q", l, want)
	}
}

func TestOutcomes(t *testing.T) {
	got := outcomes("=== RUN   TestA\n    a_test.go:1: why\n--- FAIL: TestA (0.00s)\n=== RUN   TestB\n=== RUN   TestB/sub\n--- PASS: TestB (0.00s)\n    --- PASS: TestB/sub (0.00s)\n=== RUN   TestC\n--- SKIP: TestC (0.00s)\n=== RUN   TestD\npanic: no\n")
	for name, want := range map[string]string{"TestA": "fail", "TestB": "pass", "TestC": "skip", "TestD": ""} {
		if o, ok := got[name]; !ok || o.state != want {
			t.Errorf("%s: %q, want %q", name, o.state, want)
		}
	}
	if !strings.Contains(got["TestA"].output, "why") || !strings.Contains(got["TestD"].output, "panic") {
		t.Errorf("output %v", got)
	}
}

func TestFloor(t *testing.T) {
	results := []result{{suite: "s", area: "a", test: "1", state: "pass"}, {suite: "s", area: "a", test: "2", state: "fail"}, {suite: "s", area: "b", test: "3", state: "pass"}, {suite: "s", area: "b", test: "4", state: "skip"}}
	path := filepath.Join(t.TempDir(), "floor.json")
	if err := writeFloor(path, results); err != nil {
		t.Fatal(err)
	}
	f, err := readFloor(path)
	if err != nil {
		t.Fatal(err)
	}
	if f["s"].Passed != 2 || f["s"].Tests != 3 || f["s"].Areas["a"] != 1 {
		t.Errorf("floor %+v", f)
	}
	if err := f.compare(results, ""); err != nil {
		t.Errorf("the floor against itself: %v", err)
	}
	results[2].state = "fail"
	results[1].state = "pass"
	if err := f.compare(results, ""); err == nil || !strings.Contains(err.Error(), "s, b: 0 passed, at least 1 must") {
		t.Errorf("as many in all but fewer of an area: %v", err)
	}
	if err := (floor{}).compare(results, ""); err == nil {
		t.Error("an empty floor let everything pass")
	}
	if err := f.compare(nil, ""); err == nil {
		t.Error("nothing at all passed the floor")
	}
}

func TestNoServer(t *testing.T) {
	if err := run(context.Background(), config{}, os.Stdout); err == nil {
		t.Error("it ran without a server")
	}
}
