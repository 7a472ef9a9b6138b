package llmmock

import (
	"reflect"
	"slices"
	"strings"
	"sync"

	"edgehold.internal/libs/problem"
)

// Origin is where a scenario comes from.
type Origin string

// The origins.
const (
	BuiltIn  Origin = "built in" // what is answered where none is named DefaultScenario
	Ready    Origin = "ready"    // one of those that come with the mock
	FromFile Origin = "file"
	FromAPI  Origin = "api"
)

// Sourced is a scenario and where it comes from.
type Sourced struct {
	Scenario Scenario
	Origin   Origin
	// Source is where it was read, such as drill.yaml:12.
	Source string
}

// String is where it comes from, for a sentence.
func (s *Sourced) String() string {
	switch s.Origin {
	case Ready:
		return "those that come with the mock"
	case FromAPI:
		return "the API (" + s.Source + ")"
	}
	return s.Source
}

// Library holds a Mock's scenarios by where they come from: those that were read, which are replaced as a whole whenever they are
// read again, and those made at run time, which stay until they are deleted. The latter are looked at first. It is safe for
// concurrent use, and the only one to call the Mock's Replace.
type Library struct {
	mock *Mock

	mu         sync.Mutex
	read, made []Sourced
}

// NewLibrary holds no scenarios yet.
func NewLibrary(m *Mock) *Library { return &Library{mock: m} }

// Read puts in force what was read, in the place of what was before. Errors are those of Mock.Replace, and AlreadyExists that names
// both places when two scenarios have one name; then nothing is changed.
func (l *Library) Read(read []Sourced) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replace(read, l.made, false)
}

// Put is what became of a scenario that was put.
type Put struct {
	Name string
	// Replaced one of the name that was put before and was another; Unchanged is one that went on.
	Replaced, Unchanged bool
}

// Put puts scenarios in force that were made at run time, all of them or none. With dry it says what it would do, and changes
// nothing. Errors are those of Read.
func (l *Library) Put(made []Sourced, dry bool) ([]Put, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, results := slices.Clone(l.made), make([]Put, len(made))
	for i, s := range made {
		p := &results[i]
		p.Name = s.Scenario.Name
		at := slices.IndexFunc(next, func(b Sourced) bool { return b.Scenario.Name == p.Name })
		if at < 0 {
			next = append(next, s)
			continue
		}
		p.Unchanged = reflect.DeepEqual(&next[at].Scenario, &s.Scenario)
		p.Replaced = !p.Unchanged
		next[at] = s
	}
	return results, l.replace(l.read, next, dry)
}

// Delete takes a scenario out of force that was made at run time. NotFound for a name that nothing has, and FailedPrecondition for
// one that was made otherwise.
func (l *Library) Delete(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	named := func(s Sourced) bool { return s.Scenario.Name == name }
	if at := slices.IndexFunc(l.made, named); at >= 0 {
		return l.replace(l.read, slices.Delete(slices.Clone(l.made), at, at+1), false)
	}
	if set := l.mock.set.Load(); set.named[name] == nil {
		return problem.NotFoundf("name", "there is no scenario %q; there is %s", cut(name), strings.Join(set.names(), ", "))
	}
	if at := slices.IndexFunc(l.read, named); at >= 0 {
		return problem.Preconditionf("name", "%q comes from %s and cannot be deleted here; take it out there", name, &l.read[at])
	}
	return problem.Preconditionf("name", "%q is what is answered where no scenario is; put one of that name in its place", name)
}

// replace puts both in force. Callers hold the lock.
func (l *Library) replace(read, made []Sourced, dry bool) error {
	all := make([]Scenario, 0, len(made)+len(read))
	places := make(map[string]*Sourced, cap(all))
	for _, list := range [][]Sourced{made, read} {
		for i := range list {
			s := &list[i]
			if first := places[s.Scenario.Name]; first != nil {
				return problem.New(problem.AlreadyExists, "name", "%q is the name of a scenario from %s and of one from %s; rename one, or take it away", s.Scenario.Name, first, s)
			}
			places[s.Scenario.Name] = s
			all = append(all, s.Scenario)
		}
	}
	if dry {
		return tooMany(len(all))
	}
	if err := l.mock.Replace(all); err != nil {
		return err
	}
	l.read, l.made = read, made
	return nil
}

func tooMany(scenarios int) error {
	if scenarios > MaxScenarios {
		return problem.Invalidf("scenarios", "%d are too many; at most %d are allowed", scenarios, MaxScenarios)
	}
	return nil
}

// InForce is a scenario in force and where it comes from.
type InForce struct {
	ScenarioStatus
	Origin Origin
	Source string
}

// Scenarios in force, in the order in which they are looked at.
func (l *Library) Scenarios() []InForce {
	l.mu.Lock()
	defer l.mu.Unlock()
	places := make(map[string]*Sourced, len(l.made)+len(l.read))
	for _, list := range [][]Sourced{l.made, l.read} {
		for i := range list {
			places[list[i].Scenario.Name] = &list[i]
		}
	}
	statuses := l.mock.Scenarios()
	all := make([]InForce, len(statuses))
	for i, st := range statuses {
		all[i] = InForce{ScenarioStatus: st, Origin: BuiltIn}
		if s := places[st.Scenario.Name]; s != nil {
			all[i].Origin, all[i].Source = s.Origin, s.Source
		}
	}
	return all
}
