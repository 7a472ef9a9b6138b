package scenario

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// codec is how a part of a document is read, written and described. It is the one table: what the reader refuses, the writer
// writes and the published schema allows follow from the same value.
type codec[T any] struct {
	schema object
	// read gives the zero value for what it reports as wrong.
	read func(r *reader, path string, n *yaml.Node) T
	// write is nil for a value that is left out.
	write func(T) *yaml.Node
}

// object is a JSON object of the schema.
type object map[string]any

// field is one member of a mapping that is read into an S.
type field[S any] struct {
	name, doc string
	required  bool
	schema    object
	read      func(r *reader, path string, n *yaml.Node, into *S)
	write     func(from *S) *yaml.Node
}

// member is a field that lives in a part of an S.
func member[S, T any](name, doc string, part func(*S) *T, c codec[T]) field[S] {
	return field[S]{
		name: name, doc: doc, schema: c.schema,
		read:  func(r *reader, path string, n *yaml.Node, into *S) { *part(into) = c.read(r, path, n) },
		write: func(from *S) *yaml.Node { return c.write(*part(from)) },
	}
}

// needed is a field that must be there.
func needed[S any](f field[S]) field[S] {
	f.required = true
	return f
}

// mapping is an S with these fields and no others. check, if there is one, is called with what was read.
func mapping[S any](check func(r *reader, path string, n *yaml.Node, s *S), fields ...field[S]) codec[S] {
	properties, required, names := object{}, []string{}, []string{}
	for _, f := range fields {
		p := object{"description": f.doc}
		for k, v := range f.schema {
			p[k] = v
		}
		properties[f.name] = p
		names = append(names, f.name)
		if f.required {
			required = append(required, f.name)
		}
	}
	schema := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	return codec[S]{
		schema: schema,
		read: func(r *reader, path string, n *yaml.Node) (s S) {
			members, ok := r.mapping(path, n)
			if !ok {
				return s
			}
			errors := r.errors()
			for _, m := range members {
				at := join(path, m.name)
				i := slices.Index(names, m.name)
				if i < 0 {
					r.unknown(at, m, names)
					continue
				}
				r.places[at] = m.value
				if isNull(m.value) {
					r.fail(at, m.value, "has no value; give it one or leave it out")
					continue
				}
				fields[i].read(r, at, m.value, &s)
			}
			for _, name := range required {
				if !slices.ContainsFunc(members, func(m entry) bool { return m.name == name }) {
					r.fail(join(path, name), n, "is missing")
				}
			}
			if check != nil && r.errors() == errors {
				check(r, path, n, &s)
			}
			return s
		},
		write: func(s S) *yaml.Node {
			n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			for _, f := range fields {
				if v := f.write(&s); v != nil {
					n.Content = append(n.Content, str(f.name), v)
				}
			}
			if len(n.Content) == 0 && len(required) == 0 {
				return nil
			}
			return n
		},
	}
}

// list is up to most of them. One alone may be written without the brackets when it is not itself a list.
func list[T any](most int, c codec[T]) codec[[]T] {
	return codec[[]T]{
		schema: object{"anyOf": []object{c.schema, {"type": "array", "items": c.schema, "maxItems": most, "minItems": 1}}},
		read: func(r *reader, path string, n *yaml.Node) (l []T) {
			n = r.follow(n)
			items := []*yaml.Node{n}
			if n.Kind == yaml.SequenceNode {
				items = n.Content
				switch {
				case len(items) == 0:
					r.fail(path, n, "is an empty list; leave it out, or put something in it")
				case len(items) > most:
					r.fail(path, n, "has %d items; at most %d are allowed", len(items), most)
					return nil
				}
			}
			for i, item := range items {
				at := path + "[" + strconv.Itoa(i) + "]"
				r.places[at] = item
				l = append(l, c.read(r, at, item))
				if r.full() {
					return nil
				}
			}
			return l
		},
		write: func(l []T) *yaml.Node {
			if len(l) == 0 {
				return nil
			}
			n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
			for _, x := range l {
				v := c.write(x)
				if v == nil { // what would be left out in a mapping has to be there in a list
					v = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
				}
				n.Content = append(n.Content, v)
			}
			return n
		},
	}
}

// text of at most so many bytes, and not empty.
func text(most int) codec[string] {
	return codec[string]{
		schema: object{"type": "string", "minLength": 1, "maxLength": most},
		read: func(r *reader, path string, n *yaml.Node) string {
			s, ok := r.text(path, n)
			switch {
			case !ok:
			case s == "":
				r.fail(path, n, "is empty; give it a text or leave it out")
			case len(s) > most:
				r.fail(path, n, "has %d bytes; at most %d are allowed", len(s), most)
			case !utf8.ValidString(s):
				r.fail(path, n, "is no UTF-8")
			default:
				return s
			}
			return ""
		},
		write: func(s string) *yaml.Node {
			if s == "" {
				return nil
			}
			return str(s)
		},
	}
}

// enum is one of the values.
func enum[T ~string](values ...T) codec[T] {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = string(v)
	}
	return codec[T]{
		schema: object{"enum": names},
		read: func(r *reader, path string, n *yaml.Node) T {
			s, ok := r.text(path, n)
			if ok && !slices.Contains(names, s) {
				r.fail(path, n, "%s is not known; use %s%s", quote(s), alternatives(names), hint(s, names))
				return ""
			}
			return T(s)
		},
		write: func(v T) *yaml.Node {
			if v == "" {
				return nil
			}
			return str(string(v))
		},
	}
}

func boolean() codec[bool] {
	return codec[bool]{
		schema: object{"type": "boolean"},
		read: func(r *reader, path string, n *yaml.Node) bool {
			n = r.follow(n)
			if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
				r.fail(path, n, "%s is not allowed; use true or false", describe(n))
				return false
			}
			return strings.EqualFold(n.Value, "true")
		},
		write: func(b bool) *yaml.Node {
			if !b {
				return nil
			}
			return scalar("!!bool", "true")
		},
	}
}

// integer in low … high.
func integer[T int | uint64](low, high T) codec[T] {
	return codec[T]{
		schema: object{"type": "integer", "minimum": low, "maximum": high},
		read: func(r *reader, path string, n *yaml.Node) T {
			n = r.follow(n)
			if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
				r.fail(path, n, "%s is not allowed; use a whole number, %v to %v", describe(n), low, high)
				return 0
			}
			// Both, because a uint64 and a negative number do not fit the same type.
			digits := strings.ReplaceAll(n.Value, "_", "")
			if u, err := strconv.ParseUint(digits, 0, 64); err == nil && u >= uint64(max(low, 0)) && u <= uint64(high) {
				return T(u)
			}
			r.fail(path, n, "%s is not allowed; use a whole number, %v to %v", short(n.Value), low, high)
			return 0
		},
		write: func(i T) *yaml.Node {
			if i == 0 {
				return nil
			}
			return scalar("!!int", strconv.FormatUint(uint64(i), 10))
		},
	}
}

// number in low … high.
func number(low, high float64) codec[float64] {
	return codec[float64]{
		schema: object{"type": "number", "minimum": low, "maximum": high},
		read: func(r *reader, path string, n *yaml.Node) float64 {
			n = r.follow(n)
			if tag := n.ShortTag(); n.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float") {
				f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
				if err == nil && f >= low && f <= high {
					return f + 0 // -0 is 0
				}
			}
			r.fail(path, n, "%s is not allowed; use a number, %g to %g", describe(n), low, high)
			return 0
		},
		write: func(f float64) *yaml.Node {
			if f == 0 {
				return nil
			}
			return scalar("!!float", strconv.FormatFloat(f, 'g', -1, 64))
		},
	}
}

// durationPattern is what time.ParseDuration takes, without a sign and always with a unit.
const durationPattern = `^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`

// duration in low … high.
func duration(low, high time.Duration) codec[time.Duration] {
	return codec[time.Duration]{
		schema: object{"type": "string", "pattern": durationPattern, "examples": []string{"639ms"}},
		read: func(r *reader, path string, n *yaml.Node) time.Duration {
			d, ok := r.duration(path, n)
			if ok && (d < low || d > high) {
				r.fail(path, n, "%s is not allowed; use %s to %s", d, low, high)
				return 0
			}
			return d
		},
		write: func(d time.Duration) *yaml.Node {
			if d == 0 {
				return nil
			}
			return str(d.String())
		},
	}
}

// instant is a point in time (RFC 3339).
func instant() codec[time.Time] {
	return codec[time.Time]{
		schema: object{"type": "string", "format": "date-time"},
		read: func(r *reader, path string, n *yaml.Node) time.Time {
			n = r.follow(n)
			if n.Kind == yaml.ScalarNode {
				if t, err := time.Parse(time.RFC3339Nano, n.Value); err == nil && t.Year() >= 1970 && t.Year() < 10000 {
					return t.UTC()
				}
			}
			r.fail(path, n, "%s is no time; use one such as 2026-01-01T00:00:00Z", describe(n))
			return time.Time{}
		},
		write: func(t time.Time) *yaml.Node {
			if t.IsZero() {
				return nil
			}
			n := str(t.UTC().Format(time.RFC3339Nano))
			n.Style = yaml.DoubleQuotedStyle // else it is read as a timestamp by whoever reads it as any YAML
			return n
		},
	}
}

// shorthand lets a text stand for a mapping.
func shorthand[T any](c codec[T], schema object, read func(r *reader, path string, n *yaml.Node, s string) T) codec[T] {
	return codec[T]{
		schema: object{"anyOf": []object{schema, c.schema}},
		read: func(r *reader, path string, n *yaml.Node) T {
			if n = r.follow(n); n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
				return read(r, path, n, n.Value)
			}
			return c.read(r, path, n)
		},
		write: c.write,
	}
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// str is a text node that reads back as the same text, whatever is in it.
func str(s string) *yaml.Node {
	n := scalar("!!str", s)
	plain := func(r rune) bool {
		return r > ' ' && r < 0x7f || r == ' ' || r > 0xa0 && r != '\ufeff' && r != '\u2028' && r != '\u2029' && r < 0xd800
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) || strings.TrimSpace(s) != s {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe says what a node is, for errors.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!null":
			return "nothing"
		case "!!str", "!!timestamp":
			return quote(n.Value)
		}
		return short(n.Value)
	}
	return "this"
}

func quote(s string) string { return strconv.Quote(short(s)) }

// short is s, cut at a character.
func short(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func alternatives(names []string) string {
	const most = 40
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " …"
	}
	return strings.Join(names, ", ")
}

// hint names the one that was probably meant.
func hint(s string, names []string) string {
	best, least := "", 3
	for _, name := range names {
		if d := distance(strings.ToLower(s), strings.ToLower(name)); d < least && d < len(name) {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is how many characters differ, are missing or too many (Levenshtein); math.MaxInt for texts that are too long to care.
func distance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return math.MaxInt
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			keep := last
			if a[i] != b[j] {
				keep++
			}
			last = row[j+1]
			row[j+1] = min(keep, last+1, row[j]+1)
		}
	}
	return row[len(b)]
}
