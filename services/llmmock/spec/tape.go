package spec

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// tape is a JSON text taken apart into nodes in the order in which they stand: a container is followed by what is in it, an object by
// keys and values in turn. It costs no allocation for each value, and is reused.
type tape struct {
	src   []byte
	nodes []node
}

// node is one value or key. A string's span has its quotes.
type node struct {
	kind uint8 // one bit of form's types
	// escaped is set for a string with a backslash in it, and whole for an integer that is written as one.
	escaped, whole bool
	start, end     int32
	// next is the index after all that is in it, n how many values or members are.
	next, n int32
}

// Limits of what is read at all.
const (
	maxDepth = 128
	maxSize  = math.MaxInt32
)

var tapes = sync.Pool{New: func() any { return new(tape) }}

// maxPooled is the most nodes that a reused tape keeps memory for.
const maxPooled = 1 << 14

func (t *tape) free() {
	t.src = nil
	if cap(t.nodes) <= maxPooled {
		tapes.Put(t)
	}
}

// parse is the tape of src, which it keeps. Call free when it is done with.
func parse(src []byte) (*tape, error) {
	t := tapes.Get().(*tape)
	if err := t.read(src); err != nil {
		t.free()
		return nil, err
	}
	return t, nil
}

// parseLong is a tape that is kept, and freed by the garbage collector.
func parseLong(src []byte) (*tape, error) {
	t := &tape{}
	if err := t.read(src); err != nil {
		return nil, err
	}
	return t, nil
}

var errDepth = errors.New("it is nested too deeply")

func (t *tape) read(src []byte) error {
	if len(src) > maxSize {
		return errors.New("it is too long")
	}
	t.src, t.nodes = src, t.nodes[:0]
	i, err := t.value(skip(src, 0), 0)
	if err != nil {
		return err
	}
	if i = skip(src, i); i != len(src) {
		return malformed(i)
	}
	return nil
}

func malformed(i int) error { return fmt.Errorf("no JSON from byte %d on", i) }

func skip(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func (t *tape) value(i, depth int) (int, error) {
	b := t.src
	if i >= len(b) {
		return i, malformed(i)
	}
	at := len(t.nodes)
	switch c := b[i]; c {
	case '{', '[':
		if depth >= maxDepth {
			return i, errDepth
		}
		kind, end := form.Object, byte('}')
		if c == '[' {
			kind, end = form.Array, ']'
		}
		t.nodes = append(t.nodes, node{kind: kind, start: int32(i)})
		n := int32(0)
		i = skip(b, i+1)
		if i < len(b) && b[i] == end {
			i++
		} else {
			for {
				var err error
				if kind == form.Object {
					if i >= len(b) || b[i] != '"' {
						return i, malformed(i)
					}
					if i, err = t.text(i); err != nil {
						return i, err
					}
					if i = skip(b, i); i >= len(b) || b[i] != ':' {
						return i, malformed(i)
					}
					i = skip(b, i+1)
				}
				if i, err = t.value(i, depth+1); err != nil {
					return i, err
				}
				n++
				i = skip(b, i)
				if i >= len(b) {
					return i, malformed(i)
				}
				if b[i] == end {
					i++
					break
				}
				if b[i] != ',' {
					return i, malformed(i)
				}
				i = skip(b, i+1)
			}
		}
		nd := &t.nodes[at]
		nd.end, nd.n, nd.next = int32(i), n, int32(len(t.nodes))
		return i, nil
	case '"':
		return t.text(i)
	case 't':
		return t.word(i, "true", form.Bool)
	case 'f':
		return t.word(i, "false", form.Bool)
	case 'n':
		return t.word(i, "null", form.Null)
	default:
		return t.number(i)
	}
}

func (t *tape) word(i int, w string, kind uint8) (int, error) {
	if !bytes.HasPrefix(t.src[i:], []byte(w)) {
		return i, malformed(i)
	}
	t.nodes = append(t.nodes, node{kind: kind, start: int32(i), end: int32(i + len(w)), next: int32(len(t.nodes) + 1)})
	return i + len(w), nil
}

func (t *tape) text(start int) (int, error) {
	b := t.src
	escaped := false
	for i := start + 1; i < len(b); {
		switch c := b[i]; {
		case c == '"':
			i++
			t.nodes = append(t.nodes, node{kind: form.String, escaped: escaped, start: int32(start), end: int32(i), next: int32(len(t.nodes) + 1)})
			return i, nil
		case c == '\\':
			escaped = true
			if i+1 >= len(b) {
				return i, malformed(i)
			}
			switch b[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if i+6 > len(b) || !isHex(b[i+2:i+6]) {
					return i, malformed(i)
				}
				i += 6
			default:
				return i, malformed(i)
			}
		case c < ' ':
			return i, malformed(i)
		default:
			i++
		}
	}
	return len(b), malformed(len(b))
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

func (t *tape) number(start int) (int, error) {
	b, i := t.src, start
	digits := func() bool {
		from := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > from
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return i, malformed(i)
	}
	kind, whole := form.Int, true
	if i < len(b) && b[i] == '.' {
		i++
		whole = false
		if !digits() {
			return i, malformed(i)
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		whole = false
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return i, malformed(i)
		}
	}
	if !whole {
		// 1.0 is an integer too.
		if f, err := strconv.ParseFloat(string(b[start:i]), 64); err != nil || f != math.Trunc(f) {
			kind = form.Number
		}
	}
	t.nodes = append(t.nodes, node{kind: kind, whole: whole, start: int32(start), end: int32(i), next: int32(len(t.nodes) + 1)})
	return i, nil
}

// raw is the text of a node.
func (t *tape) raw(i int) []byte { n := &t.nodes[i]; return t.src[n.start:n.end] }

// bytes is the content of a string node; valid as long as the tape's source is.
func (t *tape) bytes(i int) []byte {
	n := &t.nodes[i]
	in := t.src[n.start+1 : n.end-1]
	if !n.escaped {
		return in
	}
	return unescape(in)
}

func (t *tape) string(i int) string { return string(t.bytes(i)) }

func unescape(in []byte) []byte {
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); {
		c := in[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		i++
		switch c = in[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hexRune(in[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				r2 := rune(-1)
				if i+6 < len(in) && in[i+1] == '\\' && in[i+2] == 'u' {
					r2 = hexRune(in[i+3:])
				}
				if d := utf16.DecodeRune(r, r2); d != utf8.RuneError {
					r = d
					i += 6
				} else {
					r = utf8.RuneError
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
		i++
	}
	return out
}

func hexRune(b []byte) rune {
	v, err := strconv.ParseUint(string(b[:4]), 16, 32)
	if err != nil {
		return utf8.RuneError
	}
	return rune(v)
}

// field is the node of an object's member, the last one of that name, or -1.
func (t *tape) field(i int, name string) int {
	found := -1
	if i < 0 || t.nodes[i].kind != form.Object {
		return found
	}
	for k := i + 1; k < int(t.nodes[i].next); {
		v := int(t.nodes[k].next)
		if string(t.bytes(k)) == name {
			found = v
		}
		k = int(t.nodes[v].next)
	}
	return found
}

// text is the string in an object's member, and "" when there is none.
func (t *tape) member(i int, name string) string {
	if v := t.field(i, name); v >= 0 && t.nodes[v].kind == form.String {
		return t.string(v)
	}
	return ""
}

// members calls f for each member of an object with the nodes of its key and value.
func (t *tape) members(i int, f func(key, value int)) {
	if t.nodes[i].kind != form.Object {
		return
	}
	for k := i + 1; k < int(t.nodes[i].next); {
		v := int(t.nodes[k].next)
		f(k, v)
		k = int(t.nodes[v].next)
	}
}

// elements calls f for each element of an array.
func (t *tape) elements(i int, f func(value int)) {
	if t.nodes[i].kind != form.Array {
		return
	}
	for v := i + 1; v < int(t.nodes[i].next); v = int(t.nodes[v].next) {
		f(v)
	}
}

func (t *tape) float(i int) float64 {
	f, _ := strconv.ParseFloat(string(t.raw(i)), 64) // out of range is infinite, which is compared as such
	return f
}
