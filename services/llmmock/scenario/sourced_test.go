package scenario_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/scenario"
)

// Each scenario knows where it was read.
func TestSourced(t *testing.T) {
	text := []byte("# two of them\nname: a\n---\n\nname: b\nseed: 3\n")
	file := filepath.Join(t.TempDir(), "two.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := scenario.LoadSourced(file)
	if err != nil {
		t.Fatal(err)
	}
	read, err := scenario.ReadSourced("request", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		got    []llmmock.Sourced
		origin llmmock.Origin
		name   string
	}{{loaded, llmmock.FromFile, file}, {read, llmmock.FromAPI, "request"}} {
		for i, want := range []string{"a", "b"} {
			s := tc.got[i]
			if s.Scenario.Name != want || s.Origin != tc.origin || s.Source != fmt.Sprintf("%s:%d", tc.name, 2+3*i) {
				t.Errorf("%+v", s)
			}
		}
	}
	if _, err := scenario.ReadSourced("request", []byte("name: a\n---\nname: a\n")); err == nil || err.Error() != `request:3:7: name: "a" is the name of the scenario at request:1 too` {
		t.Errorf("got %v", err)
	}
	if _, err := scenario.LoadSourced(file + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}
