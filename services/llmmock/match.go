package llmmock

import (
	"slices"
	"strings"
)

// pattern has * for any characters, none too.
type pattern struct {
	text string
	// parts between the stars; nil when there is no star.
	parts []string
}

func newPattern(s string) pattern {
	p := pattern{text: s}
	if strings.Contains(s, "*") {
		p.parts = strings.Split(s, "*")
	}
	return p
}

// match looks for the parts between the stars from left to right, each as early as it can be: that never misses a match, and is
// linear.
func (p *pattern) match(s string) bool {
	if p.parts == nil {
		return s == p.text
	}
	last := len(p.parts) - 1
	rest, ok := strings.CutPrefix(s, p.parts[0])
	if !ok {
		return false
	}
	for _, part := range p.parts[1:last] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, p.parts[last])
}

type patterns []pattern

func newPatterns(list []string) patterns {
	var ps patterns
	for _, s := range list {
		ps = append(ps, newPattern(s))
	}
	return ps
}

// match is true without any pattern.
func (ps patterns) match(s string) bool {
	for i := range ps {
		if ps[i].match(s) {
			return true
		}
	}
	return len(ps) == 0
}

// matcher is a Match that was prepared.
type matcher struct {
	// set is false for the zero Match, which chooses every request for a rule and none for a scenario.
	set                          bool
	vendors                      []Vendor
	operations                   []Operation
	models, keys, clients, paths patterns
	contains                     []string
}

func newMatcher(m *Match) matcher {
	return matcher{set: m.set(), vendors: m.Vendors, operations: m.Operations, models: newPatterns(m.Models), keys: newPatterns(m.Keys),
		clients: newPatterns(m.Clients), paths: newPatterns(m.Paths), contains: m.Contains}
}

func (m *Match) set() bool {
	return len(m.Vendors)+len(m.Models)+len(m.Keys)+len(m.Clients)+len(m.Paths)+len(m.Contains)+len(m.Operations) > 0
}

func (m *matcher) match(q *Request) bool {
	if !m.set {
		return true
	}
	return (len(m.vendors) == 0 || slices.Contains(m.vendors, q.Vendor)) &&
		(len(m.operations) == 0 || slices.Contains(m.operations, q.Operation)) &&
		m.models.match(q.Model) && m.keys.match(q.Key) && m.clients.match(q.Client) && m.paths.match(q.Path) && m.in(q)
}

func (m *matcher) in(q *Request) bool {
	if len(m.contains) == 0 {
		return true
	}
	last := q.Last()
	return slices.ContainsFunc(m.contains, func(s string) bool { return strings.Contains(last, s) })
}

// answerMatch is when an AnswerRule holds.
type answerMatch struct {
	matcher
	turn      int
	afterTool *pattern
}

func newAnswerMatch(r *AnswerRule) answerMatch {
	a := answerMatch{matcher: newMatcher(&r.Match), turn: r.Turn}
	if r.AfterTool != "" {
		p := newPattern(r.AfterTool)
		a.afterTool = &p
	}
	return a
}

func (a *answerMatch) match(q *Request) bool {
	return a.matcher.match(q) && (a.turn == 0 || a.turn == q.Turn()) && (a.afterTool == nil || q.after(a.afterTool))
}

// after is whether the last turn has the result of a tool of such a name.
func (q *Request) after(tool *pattern) bool {
	if len(q.Turns) == 0 {
		return false
	}
	for _, r := range q.Turns[len(q.Turns)-1].Results {
		if tool.match(q.toolOf(r.CallID)) {
			return true
		}
	}
	return false
}

// toolOf is the name of the tool that was called with that id, latest first: ids of short conversations repeat.
func (q *Request) toolOf(id string) string {
	for i := len(q.Turns) - 1; i >= 0; i-- {
		for _, c := range q.Turns[i].Calls {
			if c.ID == id {
				return c.Name
			}
		}
	}
	return ""
}
