package say

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/say/schema"
)

// Bounds of templates. Without loops and definitions what one costs is bounded by its own length and by what its functions may
// give; so the length of the result and the sum of filler are all that is left to count.
const (
	MaxTemplate = 64 << 10
	maxRendered = 1 << 20
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// IsTemplate says whether a scenario's text is a template.
func IsTemplate(text string) bool { return strings.Contains(text, "{{") }

// source is what is drawn for one answer.
type source struct {
	*rand.Rand
	filler int // tokens that were given so far
}

func (v *voice) random() *source {
	if v.drawn == nil {
		v.drawn = &source{Rand: v.m.Random(llmmock.ForAnswer)}
	}
	return v.drawn
}

// view is what a template sees.
type view struct {
	// Model and Vendor that were asked, and the name of the Scenario.
	Model, Vendor, Scenario string
	// Last is what the user said last, Result what the last tool answered, and Tool its name.
	Last, Result, Tool string
	// Turn that is answered, from 1, and Occurrence of the request, from 1.
	Turn       int
	Occurrence uint64
	// Turns of the conversation, with Role and Text.
	Turns []turn
}

type turn struct{ Role, Text string }

// bound is a template that draws from the voice whose turn it is. It serves one at a time.
type bound struct {
	*template.Template
	v *voice
}

func (b *bound) functions() template.FuncMap {
	return template.FuncMap{
		"random": func(low, high int) (int, error) {
			if high < low || uint64(high-low) > 1<<62 {
				return 0, fmt.Errorf("random wants two numbers, the lower first, not %d and %d", low, high)
			}
			return low + int(b.v.random().Uint64N(uint64(high-low)+1)), nil
		},
		"pick": func(of ...string) (string, error) {
			if len(of) == 0 {
				return "", fmt.Errorf("pick wants texts to pick one of")
			}
			return of[b.v.random().IntN(len(of))], nil
		},
		"uuid": func() string { return schema.UUID(b.v.random().Rand) },
		"lorem": func(n int) (string, error) {
			s := b.v.random()
			if n < 0 || n > MaxLorem-s.filler {
				return "", fmt.Errorf("lorem gives 0 to %d tokens in one text", MaxLorem)
			}
			s.filler += n
			return lorem(s.Rand, n).text, nil
		},
		"json":  func(s string) string { return string(provider.AppendString(nil, s)) },
		"upper": strings.ToUpper,
		"lower": strings.ToLower,
		"trim":  strings.TrimSpace,
	}
}

// Functions are the names that a template may call.
func Functions() []string {
	names := slices.Clone(builtins)
	for name := range new(bound).functions() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// builtins are those of text/template whose result is not larger than what they are given: printf could be asked for a gigabyte of
// spaces.
var builtins = []string{"and", "eq", "ge", "gt", "index", "le", "len", "lt", "ne", "not", "or", "slice"}

// parsed is a template, ready for as many voices as speak at the same time, or why it is none.
type parsed struct {
	ready *sync.Pool // of *bound
	err   error
}

// CheckTemplate says whether text is a template that can be used: it has at most MaxTemplate bytes, only Functions, and neither
// loops nor definitions of other templates. It refuses fields that do not exist. The error is a problem of kind Invalid.
func CheckTemplate(text string) error {
	p := parseTemplate(text)
	return p.err
}

func parseTemplate(text string) parsed {
	fail := func(format string, args ...any) parsed {
		return parsed{err: problem.Invalidf("", format, args...)}
	}
	if len(text) > MaxTemplate {
		return fail("the template has %d bytes, at most %d are allowed", len(text), MaxTemplate)
	}
	t, err := template.New("").Option("missingkey=error").Funcs(new(bound).functions()).Parse(text)
	if err != nil {
		return fail("%s", strings.Replace(err.Error(), "template: :", "line ", 1))
	}
	if t.Tree == nil || slices.ContainsFunc(t.Templates(), func(t *template.Template) bool { return t.Name() != "" }) {
		return fail("a template cannot define others")
	}
	c := checker{allowed: Functions()}
	c.list(t.Root)
	if c.err != nil {
		return parsed{err: c.err}
	}
	return parsed{ready: &sync.Pool{New: func() any {
		b := &bound{Template: template.Must(t.Clone())}
		b.Funcs(b.functions())
		return b
	}}}
}

// checker walks a template for what it must not have.
type checker struct {
	allowed []string
	err     error
}

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = problem.Invalidf("", format, args...)
	}
}

var fields = []string{"Model", "Vendor", "Scenario", "Last", "Result", "Tool", "Turn", "Occurrence", "Turns", "Role", "Text"}

func (c *checker) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		c.node(n)
	}
}

func (c *checker) branch(b *parse.BranchNode) {
	c.pipe(b.Pipe)
	c.list(b.List)
	c.list(b.ElseList)
}

func (c *checker) pipe(p *parse.PipeNode) {
	if p == nil {
		return
	}
	for _, cmd := range p.Cmds {
		for _, arg := range cmd.Args {
			c.node(arg)
		}
	}
}

func (c *checker) names(of []string) {
	for _, name := range of {
		if !slices.Contains(fields, name) {
			c.fail("a template has no .%s; it has .%s", name, strings.Join(fields, ", ."))
		}
	}
}

func (c *checker) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.ActionNode:
		c.pipe(n.Pipe)
	case *parse.PipeNode:
		c.pipe(n)
	case *parse.IfNode:
		c.branch(&n.BranchNode)
	case *parse.WithNode:
		c.branch(&n.BranchNode)
	case *parse.FieldNode:
		c.names(n.Ident)
	case *parse.ChainNode:
		c.node(n.Node)
		c.names(n.Field)
	case *parse.VariableNode:
		c.names(n.Ident[1:])
	case *parse.IdentifierNode:
		if !slices.Contains(c.allowed, n.Ident) {
			c.fail("a template cannot call %s; it can call %s", n.Ident, strings.Join(c.allowed, ", "))
		}
	case *parse.TextNode, *parse.CommentNode, *parse.DotNode, *parse.NilNode, *parse.BoolNode, *parse.NumberNode, *parse.StringNode:
	default:
		c.fail("a template cannot have %.40s; it can have if, with and values", n.String())
	}
}

// maybe renders what is a template, and gives back what is none.
func (v *voice) maybe(text string) (string, *llmmock.Failure) {
	if !IsTemplate(text) {
		return text, nil
	}
	return v.render(text)
}

func (v *voice) render(text string) (string, *llmmock.Failure) {
	p := v.templates.get(text, func() parsed { return parseTemplate(text) })
	if p.err != nil {
		return "", broken("a template of the scenario %s cannot be used: %v", v.sc.Name, p.err)
	}
	b := p.ready.Get().(*bound)
	b.v = v
	w := limited{}
	err := b.Execute(&w, v.view())
	b.v = nil
	p.ready.Put(b)
	if err != nil {
		return "", broken("a template of the scenario %s failed: %v", v.sc.Name, err)
	}
	return w.b.String(), nil
}

func (v *voice) view() *view {
	w := &view{
		Model: v.q.Model, Vendor: string(v.q.Vendor), Scenario: v.sc.Name, Last: v.q.Last(),
		Turn: v.q.Turn(), Occurrence: v.m.Occurrence + 1,
	}
	w.Tool, w.Result, _ = v.lastResult()
	w.Turns = make([]turn, len(v.q.Turns))
	for i := range v.q.Turns {
		w.Turns[i] = turn{string(v.q.Turns[i].Role), v.q.Turns[i].Text}
	}
	return w
}

// limited keeps up to maxRendered bytes.
type limited struct{ b strings.Builder }

func (w *limited) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > maxRendered {
		return 0, fmt.Errorf("it is longer than %d bytes", maxRendered)
	}
	return w.b.Write(p)
}
