package spec

import (
	"encoding/json"
	"regexp"
	"slices"
	"sort"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// Schema says what a JSON value may be. It is read only.
type Schema struct {
	name  string
	types uint8 // of form; 0 for any
	// enum are JSON texts; words are those of them that are strings, unquoted.
	enum  [][]byte
	words map[string]bool

	props      []prop
	byName     map[string]int // for more than a few
	required   int
	closed     bool
	additional *Schema
	keys       *Schema
	items      *Schema
	all        []*Schema
	not        *Schema
	unions     []*union

	min, max, above, below *float64
	minLen, maxLen         int // a maximum of -1 is none
	minItems, maxItems     int
	minProps, maxProps     int
	format                 string
	pattern                *regexp.Regexp

	examples [][]byte
	// tapes of those examples that are containers.
	samples  []*tape
	fallback []byte // the default
	aside    uint8

	// wire is what it is made of, until it is planned.
	wire *form.Schema
}

type prop struct {
	name     string
	schema   *Schema
	required bool
}

// few is how many properties are found faster by looking at each.
const few = 6

func (s *Schema) prop(name []byte) int {
	if s.byName != nil {
		if i, ok := s.byName[string(name)]; ok {
			return i
		}
		return -1
	}
	for i := range s.props {
		if s.props[i].name == string(name) {
			return i
		}
	}
	return -1
}

func (s *Schema) propNamed(name string) *Schema {
	for i := range s.props {
		if s.props[i].name == name {
			return s.props[i].schema
		}
	}
	return nil
}

// union is a oneOf or anyOf. Which branches may hold a value follows from its kind and, for objects, from the word in a member that
// tells the branches apart; so that as a rule one branch is looked at, and can say what is wrong.
type union struct {
	branches []*Schema
	kinds    uint8 // of all branches
	byKind   [7][]*Schema
	// tag is the member that tells objects apart; empty for none.
	tag      string
	byTag    map[string][]*Schema
	untagged []*Schema // objects that may lack the tag
	tags     []string  // what it may be, sorted
	// open is set when an object's tag may be a word that is not in tags.
	open bool
}

// schema is the schema with that number with all that it refers to. The document's lock is held.
func (d *Document) schema(n int) *Schema {
	if n < 0 {
		return nil
	}
	if s := d.schemas[n]; s != nil {
		return s
	}
	var fresh []*Schema
	get := func(n int) *Schema {
		s := d.schemas[n]
		if s == nil {
			s = &Schema{wire: d.wire(n)}
			d.schemas[n] = s
			fresh = append(fresh, s)
		}
		return s
	}
	get(n)
	for i := 0; i < len(fresh); i++ {
		fresh[i].link(get)
	}
	for _, s := range fresh {
		s.plan()
	}
	for _, s := range fresh {
		s.wire = nil
	}
	return d.schemas[n]
}

func (s *Schema) link(get func(int) *Schema) {
	w := s.wire
	s.name, s.types, s.closed, s.format, s.aside = w.Name, w.Types, w.Closed, w.Format, w.Aside
	for _, e := range w.Enum {
		s.enum = append(s.enum, e)
		var word string
		if json.Unmarshal(e, &word) == nil && e[0] == '"' {
			if s.words == nil {
				s.words = make(map[string]bool, len(w.Enum))
			}
			s.words[word] = true
		}
	}
	for i, p := range w.Props {
		s.props = append(s.props, prop{p.Name, get(p.Schema), p.Required})
		if p.Required {
			s.required++
		}
		if len(w.Props) > few {
			if s.byName == nil {
				s.byName = make(map[string]int, len(w.Props))
			}
			s.byName[p.Name] = i
		}
	}
	one := func(n *int) *Schema {
		if n == nil {
			return nil
		}
		return get(*n)
	}
	s.additional, s.keys, s.items, s.not = one(w.Additional), one(w.Keys), one(w.Items), one(w.Not)
	for _, n := range w.All {
		s.all = append(s.all, get(n))
	}
	for _, branches := range [][]int{w.One, w.Any} {
		if len(branches) == 0 {
			continue
		}
		u := &union{}
		for _, n := range branches {
			u.branches = append(u.branches, get(n))
		}
		s.unions = append(s.unions, u)
	}
	bound := func(n *json.Number) *float64 {
		if n == nil {
			return nil
		}
		f, err := n.Float64()
		if err != nil {
			return nil
		}
		return &f
	}
	s.min, s.max, s.above, s.below = bound(w.Min), bound(w.Max), bound(w.Above), bound(w.Below)
	most := func(n *int) int {
		if n == nil {
			return -1
		}
		return *n
	}
	s.minLen, s.maxLen = w.MinLen, most(w.MaxLen)
	s.minItems, s.maxItems = w.MinItems, most(w.MaxItems)
	s.minProps, s.maxProps = w.MinProps, most(w.MaxProps)
	if w.Pattern != "" {
		s.pattern = regexp.MustCompile(w.Pattern) // the generator has left out what cannot be compiled
	}
	for _, x := range w.Example {
		s.examples = append(s.examples, x)
		if x[0] == '{' || x[0] == '[' {
			if t, err := parseLong(x); err == nil {
				s.samples = append(s.samples, t)
			}
		}
	}
	s.fallback = w.Default
}

// plan prepares the unions, once all that is reached is linked.
func (s *Schema) plan() {
	for _, u := range s.unions {
		u.plan(s)
	}
}

// mask is which kinds of values the schema may hold, as far as that shows at first sight.
func (s *Schema) mask(depth int) uint8 {
	const all = form.Null | form.Bool | form.Int | form.Number | form.String | form.Array | form.Object
	m := all
	if s.types != 0 {
		m = s.types
	}
	if depth > 6 {
		return m
	}
	for _, u := range s.unions {
		var um uint8
		for _, b := range u.branches {
			um |= b.mask(depth + 1)
		}
		m &= um
	}
	if s.enum != nil {
		var em uint8
		for _, e := range s.enum {
			em |= kindOf(e)
		}
		m &= em
	}
	return m
}

func kindOf(raw []byte) uint8 {
	switch raw[0] {
	case '{':
		return form.Object
	case '[':
		return form.Array
	case '"':
		return form.String
	case 't', 'f':
		return form.Bool
	case 'n':
		return form.Null
	}
	return form.Int | form.Number
}

// leaves replaces branches that are nothing but unions by their branches.
func leaves(branches []*Schema, depth int) []*Schema {
	var out []*Schema
	for _, b := range branches {
		bare := len(b.unions) == 1 && len(b.props) == 0 && b.enum == nil && len(b.all) == 0 && b.not == nil && !b.closed && b.additional == nil &&
			b.items == nil && b.minLen == 0 && b.pattern == nil
		if bare && depth < 6 && (b.types == 0 || b.types == form.Object) {
			out = append(out, leaves(b.unions[0].branches, depth+1)...)
		} else {
			out = append(out, b)
		}
	}
	return out
}

func (u *union) plan(owner *Schema) {
	u.branches = leaves(u.branches, 0)
	for _, b := range u.branches {
		m := b.mask(0)
		u.kinds |= m
		for k := range u.byKind {
			if m&(1<<k) != 0 {
				u.byKind[k] = append(u.byKind[k], b)
			}
		}
	}
	// What takes any text goes before enumerations of some.
	slices.SortStableFunc(u.byKind[stringKind], func(a, b *Schema) int { return min(len(a.enum), 1) - min(len(b.enum), 1) })
	objects := u.byKind[objectKind]
	if len(objects) < 2 {
		return
	}
	// The member with the most different words tells them apart; the document's own discriminator, when the words agree.
	best, bestScore := "", 0
	seen := map[string]bool{}
	for _, o := range objects {
		for _, p := range o.props {
			if seen[p.name] || p.schema.words == nil {
				continue
			}
			seen[p.name] = true
			words, members := map[string]bool{}, 0
			for _, o := range objects {
				if w := o.tagWords(p.name); w != nil {
					members++
					for word := range w {
						words[word] = true
					}
				}
			}
			score := len(words)*2 + members*3
			if owner.wire != nil && owner.wire.Tag == p.name {
				score += 1000
			}
			if members > 1 && score > bestScore {
				best, bestScore = p.name, score
			}
		}
	}
	if best == "" {
		return
	}
	u.tag, u.byTag = best, map[string][]*Schema{}
	for _, o := range objects {
		words := o.tagWords(best)
		if words == nil {
			u.untagged = append(u.untagged, o)
			if i := o.prop([]byte(best)); i >= 0 || !o.closed {
				u.open = true
			}
			continue
		}
		for w := range words {
			u.byTag[w] = append(u.byTag[w], o)
		}
		if !o.props[o.prop([]byte(best))].required {
			u.untagged = append(u.untagged, o)
		}
	}
	for w := range u.byTag {
		u.tags = append(u.tags, w)
	}
	sort.Strings(u.tags)
	if u.open {
		// A branch without the tag takes any word.
		for w, l := range u.byTag {
			for _, o := range u.untagged {
				if !slices.Contains(l, o) && o.tagWords(best) == nil {
					u.byTag[w] = append(u.byTag[w], o)
				}
			}
		}
	}
}

const (
	nullKind = iota
	boolKind
	intKind
	numberKind
	stringKind
	arrayKind
	objectKind
)

// tagWords are the words that a property may be, and nil when it may be anything else.
func (s *Schema) tagWords(name string) map[string]bool {
	p := s.propNamed(name)
	if p == nil || p.words == nil || len(p.words) != len(p.enum) {
		return nil
	}
	return p.words
}
