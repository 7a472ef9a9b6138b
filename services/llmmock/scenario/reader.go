package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"edgehold.internal/libs/problem"
)

// Limits of what is read.
const (
	MaxFile      = 4 << 20 // bytes
	MaxFiles     = 1000    // in a directory
	MaxScenarios = 1000    // in all files together
	MaxProblems  = 50      // that are told at once
	maxNodes     = 500_000 // with aliases followed
	maxNesting   = 100
)

// Problem is one thing that is wrong with a document.
type Problem struct {
	// File as it was named, Line and Column from 1; 0 where it concerns all of the file.
	File         string
	Line, Column int
	// Field is the path in the document, such as faults[0].when.per.
	Field string
	// Sentence says what the value is and what is allowed.
	Sentence string
}

// String is in the form that editors jump to: file:line:column: field: sentence.
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	if p.Field != "" {
		s += ": " + p.Field
	}
	return s + ": " + p.Sentence
}

// Problems is the error of whatever reads documents: all that is wrong, up to MaxProblems. For programs it is a problem.Error of
// kind Invalid with the first one's field.
type Problems struct {
	List []Problem
	// More were found and left out, at least.
	More int
}

// Error has a line for each.
func (p *Problems) Error() string {
	lines := make([]string, 0, len(p.List)+1)
	for _, x := range p.List {
		lines = append(lines, x.String())
	}
	if p.More > 0 {
		lines = append(lines, fmt.Sprintf("and at least %d more", p.More))
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the first one to errors.As.
func (p *Problems) Unwrap() error {
	if len(p.List) == 0 {
		return nil
	}
	return &problem.Error{Kind: problem.Invalid, Field: p.List[0].Field, Sentence: p.Error()}
}

func (p *Problems) add(x Problem) {
	if len(p.List) >= MaxProblems {
		p.More++
		return
	}
	p.List = append(p.List, x)
}

// or is nil when there are none.
func (p *Problems) or() error {
	if len(p.List) == 0 {
		return nil
	}
	return p
}

// reader reads the documents of one file.
type reader struct {
	file     string
	problems *Problems
	// places is where each field of the present document is.
	places map[string]*yaml.Node
	nodes  int
	depth  int
}

func (r *reader) errors() int { return len(r.problems.List) + r.problems.More }

// full says that reading on tells nothing new.
func (r *reader) full() bool { return r.problems.More > 0 || r.nodes > maxNodes }

func (r *reader) fail(path string, n *yaml.Node, format string, args ...any) {
	r.problems.add(Problem{r.file, n.Line, n.Column, path, fmt.Sprintf(format, args...)})
}

// place is where a field is, or the nearest one around it.
func (r *reader) place(path string, root *yaml.Node) *yaml.Node {
	for path != "" {
		if n := r.places[path]; n != nil {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return root
}

// follow resolves an alias, and counts: a few lines of aliases of aliases may stand for billions of nodes.
func (r *reader) follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if r.nodes++; r.nodes == maxNodes+1 {
		r.fail("", n, "with its aliases the document has more than %d values", maxNodes)
	}
	return n
}

type entry struct {
	name  string
	key   *yaml.Node
	value *yaml.Node
}

// mapping is the members of a mapping, each once.
func (r *reader) mapping(path string, n *yaml.Node) (members []entry, ok bool) {
	n = r.follow(n)
	if n.Kind != yaml.MappingNode {
		r.fail(path, n, "%s is not allowed; it must be a mapping (name: value)", describe(n))
		return nil, false
	}
	if r.full() {
		return nil, false
	}
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := r.follow(n.Content[i])
		if key.Kind != yaml.ScalarNode {
			r.fail(path, key, "%s cannot be a name", describe(key))
			continue
		}
		if first := seen[key.Value]; first != nil {
			r.fail(join(path, short(key.Value)), key, "is given twice; the first is in line %d", first.Line)
			continue
		}
		seen[key.Value] = key
		members = append(members, entry{key.Value, key, n.Content[i+1]})
	}
	return members, true
}

func (r *reader) unknown(path string, m entry, names []string) {
	if m.name == "<<" {
		r.fail(path, m.key, "merging is not supported; use an alias (*name) for a whole value")
		return
	}
	r.fail(short(path), m.key, "is not known here; use %s%s", alternatives(names), hint(m.name, names))
}

func (r *reader) text(path string, n *yaml.Node) (string, bool) {
	n = r.follow(n)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" && n.ShortTag() != "!!timestamp" && n.ShortTag() != "!!merge" {
		hint := ""
		if n.Kind == yaml.ScalarNode && !isNull(n) {
			hint = "; quote it"
		}
		r.fail(path, n, "%s is not allowed; it must be a text%s", describe(n), hint)
		return "", false
	}
	return n.Value, true
}

func (r *reader) duration(path string, n *yaml.Node) (time.Duration, bool) {
	n = r.follow(n)
	if n.Kind == yaml.ScalarNode {
		if n.ShortTag() == "!!str" && validDuration.MatchString(n.Value) {
			d, err := time.ParseDuration(n.Value)
			if err == nil {
				return d, true
			}
		}
		if tag := n.ShortTag(); tag == "!!int" || tag == "!!float" {
			if n.Value == "0" {
				r.fail(path, n, "0 has no unit; write 0s")
			} else {
				r.fail(path, n, "%s has no unit; write %[1]sms or %[1]ss", short(n.Value))
			}
			return 0, false
		}
	}
	r.fail(path, n, "%s is no duration; write it as 639ms, 2s or 1m30s", describe(n))
	return 0, false
}

var validDuration = regexp.MustCompile(durationPattern)

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// documents calls each with the root of every document of data that has anything in it.
func (r *reader) documents(data []byte, each func(root *yaml.Node)) {
	if len(data) > MaxFile {
		r.problems.add(Problem{File: r.file, Sentence: fmt.Sprintf("has %d bytes; at most %d are allowed", len(data), MaxFile)})
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for !r.full() {
		var doc yaml.Node
		err := decode(dec, &doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p := Problem{File: r.file, Sentence: "is no YAML: " + short(strings.TrimPrefix(err.Error(), "yaml: "))}
			if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
				p.Line, _ = strconv.Atoi(m[1])
				p.Column = 1
				p.Sentence = "is no YAML: " + short(err.Error()[len(m[0]):])
			}
			r.problems.add(p)
			return
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || isNull(doc.Content[0]) {
			continue
		}
		r.places = make(map[string]*yaml.Node)
		if root := doc.Content[0]; r.shallow(root) {
			each(root)
		}
	}
}

// decode turns a panic of the YAML library, which it has had on odd input, into an error.
func decode(dec *yaml.Decoder, doc *yaml.Node) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("yaml: the parser gave up: %v", v)
		}
	}()
	return dec.Decode(doc)
}

// shallow refuses what is nested too deeply, and an alias inside of what it names.
func (r *reader) shallow(n *yaml.Node) bool {
	r.depth, r.nodes = 0, 0
	ok := r.walk(n)
	r.nodes = 0
	return ok
}

func (r *reader) walk(n *yaml.Node) bool {
	if r.depth++; r.depth > maxNesting {
		r.fail("", n, "is nested deeper than %d", maxNesting)
		return false
	}
	defer func() { r.depth-- }()
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if r.nodes++; r.nodes > maxNodes {
		r.fail("", n, "with its aliases the document has more than %d values", maxNodes)
		return false
	}
	for _, c := range n.Content {
		if !r.walk(c) {
			return false
		}
	}
	return true
}
