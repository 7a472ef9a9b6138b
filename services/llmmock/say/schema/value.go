package schema

import (
	"iter"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"edgehold.internal/libs/problem"
)

// Kind of a JSON value.
type Kind byte

// The kinds. The zero Kind is of a value that is not there.
const (
	Absent Kind = iota
	Null
	False
	True
	Number
	String
	Array
	Object
)

// Value is a JSON value whose members keep their order, because models write in the order of the schema that they are given. The
// methods may be called on a value of any kind; what is not there is Absent.
type Value struct {
	Kind Kind
	// Raw is the JSON text.
	Raw []byte
	// Text of a String, and the member's name for a value in an Object.
	Text, Name string
	// Items of an Array, and the members of an Object.
	Items []Value
}

// What a schema may be at most: deeper or larger ones are refused, and treated as if there were none.
const (
	maxDepth  = 64
	maxValues = 200_000
)

// ParseValue reads one JSON value (RFC 8259). The result refers to data. The error is a problem of kind Invalid that says at which
// byte.
func ParseValue(data []byte) (Value, error) {
	p := parser{data: data}
	p.blank()
	v := p.value(0)
	p.blank()
	if p.err == nil && p.at < len(data) {
		p.fail("nothing may follow the value")
	}
	return v, p.err
}

// Get is the member of that name, the last one when there are several.
func (v *Value) Get(name string) *Value {
	if v.Kind == Object {
		for i := len(v.Items) - 1; i >= 0; i-- {
			if v.Items[i].Name == name {
				return &v.Items[i]
			}
		}
	}
	return &absent
}

var absent Value

// Members are the names and values of an object.
func (v *Value) Members() iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) {
		if v.Kind != Object {
			return
		}
		for i := range v.Items {
			if !yield(v.Items[i].Name, &v.Items[i]) {
				return
			}
		}
	}
}

// Number is the value of a Number.
func (v *Value) Number() (n float64, ok bool) {
	if v.Kind != Number {
		return 0, false
	}
	n, err := strconv.ParseFloat(string(v.Raw), 64)
	return n, err == nil
}

// Has says whether an array has the string among its items.
func (v *Value) Has(text string) bool {
	if v.Kind == Array {
		for i := range v.Items {
			if v.Items[i].Kind == String && v.Items[i].Text == text {
				return true
			}
		}
	}
	return false
}

type parser struct {
	data   []byte
	at     int
	values int
	err    error
}

func (p *parser) fail(what string) {
	if p.err == nil {
		p.err = problem.Invalidf("", "at byte %d of %d: %s", p.at, len(p.data), what)
	}
	p.at = len(p.data)
}

func (p *parser) blank() {
	for p.at < len(p.data) {
		switch p.data[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.at < len(p.data) {
		return p.data[p.at]
	}
	return 0
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.data) && p.data[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) value(depth int) (v Value) {
	if p.values++; depth > maxDepth || p.values > maxValues {
		p.fail("it is nested deeper than 64 or has more than 200000 values")
		return v
	}
	start := p.at
	switch c := p.peek(); {
	case c == '{':
		v.Kind = Object
		p.list('}', func() {
			if p.peek() != '"' {
				p.fail("a member's name must be a string")
				return
			}
			name := p.text()
			p.blank()
			if !p.take(':') {
				p.fail("a colon must follow the member's name")
				return
			}
			p.blank()
			m := p.value(depth + 1)
			m.Name = name
			v.Items = append(v.Items, m)
		})
	case c == '[':
		v.Kind = Array
		p.list(']', func() { v.Items = append(v.Items, p.value(depth+1)) })
	case c == '"':
		v.Kind, v.Text = String, p.text()
	case c == 't':
		v.Kind = True
		p.word("true")
	case c == 'f':
		v.Kind = False
		p.word("false")
	case c == 'n':
		v.Kind = Null
		p.word("null")
	case c == '-' || c >= '0' && c <= '9':
		v.Kind = Number
		p.number()
	default:
		p.fail("a value must begin here")
	}
	if p.err != nil {
		return Value{}
	}
	v.Raw = p.data[start:p.at]
	return v
}

func (p *parser) list(end byte, item func()) {
	p.at++
	p.blank()
	if p.take(end) {
		return
	}
	for p.err == nil {
		p.blank()
		item()
		p.blank()
		if p.take(end) {
			return
		}
		if !p.take(',') {
			p.fail("a comma or the end of the list must come here")
		}
	}
}

func (p *parser) word(w string) {
	if len(p.data)-p.at < len(w) || string(p.data[p.at:p.at+len(w)]) != w {
		p.fail("only true, false and null may begin with this letter")
		return
	}
	p.at += len(w)
}

func (p *parser) digits() {
	if c := p.peek(); c < '0' || c > '9' {
		p.fail("a digit must come here")
		return
	}
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.at++
	}
}

func (p *parser) number() {
	p.take('-')
	if !p.take('0') {
		p.digits()
	}
	if p.take('.') {
		p.digits()
	}
	if p.take('e') || p.take('E') {
		if !p.take('+') {
			p.take('-')
		}
		p.digits()
	}
}

func (p *parser) text() string {
	p.at++
	start := p.at
	for p.at < len(p.data) {
		switch c := p.data[p.at]; {
		case c == '"':
			s := string(p.data[start:p.at])
			p.at++
			return s
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			p.fail("a control character must be escaped")
			return ""
		default:
			p.at++
		}
	}
	p.fail("the string has no end")
	return ""
}

func (p *parser) escaped(start int) string {
	s := append([]byte(nil), p.data[start:p.at]...)
	for p.at < len(p.data) {
		c := p.data[p.at]
		p.at++
		switch {
		case c == '"':
			return string(s)
		case c < ' ':
			p.fail("a control character must be escaped")
			return ""
		case c != '\\':
			s = append(s, c)
			continue
		}
		c = p.peek()
		p.at++
		switch c {
		case '"', '\\', '/':
			s = append(s, c)
		case 'b':
			s = append(s, '\b')
		case 'f':
			s = append(s, '\f')
		case 'n':
			s = append(s, '\n')
		case 'r':
			s = append(s, '\r')
		case 't':
			s = append(s, '\t')
		case 'u':
			r := p.hex()
			if utf16.IsSurrogate(r) {
				if p.at+1 < len(p.data) && p.data[p.at] == '\\' && p.data[p.at+1] == 'u' {
					at := p.at
					p.at += 2
					if r = utf16.DecodeRune(r, p.hex()); r == utf8.RuneError {
						p.at = at
					}
				} else {
					r = utf8.RuneError
				}
			}
			s = utf8.AppendRune(s, r)
		default:
			p.fail("this character cannot be escaped")
			return ""
		}
	}
	p.fail("the string has no end")
	return ""
}

func (p *parser) hex() rune {
	if p.at+4 <= len(p.data) {
		if n, err := strconv.ParseUint(string(p.data[p.at:p.at+4]), 16, 16); err == nil {
			p.at += 4
			return rune(n)
		}
	}
	p.fail("four hexadecimal digits must come here")
	return utf8.RuneError
}
