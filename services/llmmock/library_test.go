package llmmock

import (
	"fmt"
	"strings"
	"testing"

	"edgehold.internal/libs/problem"
)

// from is a scenario with a place.
func from(origin Origin, source, name string, seed uint64) Sourced {
	return Sourced{Scenario: Scenario{Name: name, Seed: seed, Match: Match{Models: []string{"m-*"}}}, Origin: origin, Source: source}
}

func inForce(l *Library) string {
	var names []string
	for _, s := range l.Scenarios() {
		names = append(names, fmt.Sprintf("%s (%s %s)", s.Scenario.Name, s.Origin, s.Source))
	}
	return strings.Join(names, ", ")
}

func TestLibrary(t *testing.T) {
	m := mustMock(t, newClock())
	l := NewLibrary(m)
	puts := func(dry bool, made ...Sourced) string {
		t.Helper()
		results, err := l.Put(made, dry)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(results)
	}
	wants := func(want string) {
		t.Helper()
		if got := inForce(l); got != want {
			t.Errorf("in force are\n%s\nwant\n%s", got, want)
		}
	}
	wants("default (built in )")
	if err := l.Read([]Sourced{from(Ready, "", "r", 1), from(FromFile, "f.yaml:1", "f", 1)}); err != nil {
		t.Fatal(err)
	}
	puts(true, from(FromAPI, "yaml:1", "a", 1))
	wants("r (ready ), f (file f.yaml:1), default (built in )")
	if got := puts(false, from(FromAPI, "yaml:1", "a", 1), from(FromAPI, "yaml:9", "b", 1)); got != "[{a false false} {b false false}]" {
		t.Error(got)
	}
	wants("a (api yaml:1), b (api yaml:9), r (ready ), f (file f.yaml:1), default (built in )")
	if got := m.Scenario(asked("x")).Name; got != "a" {
		t.Errorf("%q is looked at first; what was made at run time goes before files", got)
	}
	if got := puts(false, from(FromAPI, "yaml:3", "b", 2), from(FromAPI, "yaml:1", "a", 1)); got != "[{b true false} {a false true}]" {
		t.Error(got)
	}

	// Files that are read again leave the others as they are.
	before := m.Scenarios()[0]
	if err := l.Read([]Sourced{from(FromFile, "f.yaml:7", "g", 1)}); err != nil {
		t.Fatal(err)
	}
	wants("a (api yaml:1), b (api yaml:3), g (file f.yaml:7), default (built in )")
	if after := m.Scenarios()[0]; after.Scenario != before.Scenario || after.Start != before.Start {
		t.Error("a scenario of the API began anew when files were read")
	}

	for _, tc := range []struct {
		err  error
		kind problem.Kind
		says string
	}{
		{l.Read([]Sourced{from(FromFile, "f.yaml:2", "b", 1)}), problem.AlreadyExists, `name: "b" is the name of a scenario from the API (yaml:3) and of one from f.yaml:2`},
		{l.Read([]Sourced{from(Ready, "", "x", 1), from(FromFile, "f.yaml:2", "x", 1)}), problem.AlreadyExists, `from those that come with the mock and of one from f.yaml:2`},
		{second(l.Put([]Sourced{from(FromAPI, "yaml:1", "g", 1)}, true)), problem.AlreadyExists, "f.yaml:7"},
		{second(l.Put([]Sourced{from(FromAPI, "yaml:1", "g", 1)}, false)), problem.AlreadyExists, "f.yaml:7"},
		{second(l.Put([]Sourced{from(FromAPI, "yaml:1", "", 1)}, false)), problem.Invalid, "name"},
		{second(l.Put(many(MaxScenarios), true)), problem.Invalid, fmt.Sprintf("%d are too many", MaxScenarios+3)},
		{l.Delete("g"), problem.FailedPrecondition, "f.yaml:7"},
		{l.Delete("default"), problem.FailedPrecondition, "no scenario is"},
		{l.Delete("nope"), problem.NotFound, "there is a, b, g, default"},
	} {
		if problem.KindOf(tc.err) != tc.kind || !strings.Contains(fmt.Sprint(tc.err), tc.says) {
			t.Errorf("got %v: %v\nwant %v: …%s…", problem.KindOf(tc.err), tc.err, tc.kind, tc.says)
		}
	}
	wants("a (api yaml:1), b (api yaml:3), g (file f.yaml:7), default (built in )")
	if err := l.Delete("a"); err != nil {
		t.Error(err)
	}
	wants("b (api yaml:3), g (file f.yaml:7), default (built in )")
}

func second[T any](_ T, err error) error { return err }

func many(n int) (made []Sourced) {
	for i := range n {
		made = append(made, from(FromAPI, "yaml:1", fmt.Sprint("many", i), 1))
	}
	return made
}
