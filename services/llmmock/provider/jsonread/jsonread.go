// Package jsonread reads JSON bodies in one pass over the bytes, for the decoders on the path of every request: the caller pulls
// the values it wants in the order they come, and everything else is checked and passed over. Nothing is kept of what is not
// asked for, depth is bounded, and the first error stops all further reading and knows the path that it was found at.
//
// Start at Reader: hand New the body, read with Object, Array, String and the other methods, and ask Close at the end.
package jsonread

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth of arrays and objects inside one another that is read.
const MaxDepth = 256

// Kind of a JSON value.
type Kind uint8

// The kinds. None is the end of the input, or no JSON at all.
const (
	None Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
	Integer // only as what was wanted
)

var kinds = [...]string{"nothing", "null", "boolean", "number", "string", "array", "object", "integer"}

// String names the kind in the words of JSON Schema.
func (k Kind) String() string { return kinds[k] }

// Step of a path: a member of an object, or an element of an array when Key is empty and Index is not negative.
type Step struct {
	Key   string
	Index int
}

// Error is the first thing that was wrong.
type Error struct {
	// Offset in the body, in bytes.
	Offset int
	// Want is the kind of value that was asked for and Got the one that is there; None and None when it is not about kinds.
	Want, Got Kind
	// Message says what is wrong when it is neither syntax nor kinds: what Fail was given.
	Message string
	// Syntax: the body is no JSON. Deep: it is deeper than MaxDepth.
	Syntax, Deep bool

	steps []Step // innermost first
}

// Path to the value at fault, outermost step first.
func (e *Error) Path() []Step {
	p := make([]Step, len(e.steps))
	for i, s := range e.steps {
		p[len(p)-1-i] = s
	}
	return p
}

// Error implements error.
func (e *Error) Error() string {
	at := " at offset " + strconv.Itoa(e.Offset)
	switch {
	case e.Deep:
		return "nested deeper than " + strconv.Itoa(MaxDepth) + at
	case e.Syntax:
		return "invalid JSON" + at
	case e.Message != "":
		return e.Message + at
	}
	return "want " + e.Want.String() + ", got " + e.Got.String() + at
}

// Reader pulls values from a body. After the first error every method returns the zero value and reads nothing more.
type Reader struct {
	data  []byte
	pos   int
	depth int
	lone  int
	err   *Error
}

// New reads from data, which is not changed and must stay as it is while the reader is in use.
func New(data []byte) Reader { return Reader{data: data} }

// Err is the first error, or nil.
func (r *Reader) Err() *Error { return r.err }

// Close reports the first error, or that something follows the value that was read.
func (r *Reader) Close() *Error {
	if r.err == nil && r.kind() != None || r.err == nil && r.pos < len(r.data) {
		r.syntax()
	}
	return r.err
}

// Peek is the kind of the next value, which stays where it is.
func (r *Reader) Peek() Kind {
	if r.err != nil {
		return None
	}
	return r.kind()
}

// Offset of the next value in the body.
func (r *Reader) Offset() int { return r.pos }

// Fail makes message the error, at the path of the value that is being read.
func (r *Reader) Fail(message string) {
	if r.err == nil {
		r.err = &Error{Offset: r.pos, Message: message}
	}
}

// FailAt is Fail for a member of the value that is being read.
func (r *Reader) FailAt(key, message string) {
	if r.err == nil {
		r.err = &Error{Offset: r.pos, Message: message, steps: []Step{{Key: key, Index: -1}}}
	}
}

// Within puts key before the path of an error that came up inside the value that is being read, as vendors do that name the
// variant of a union in their paths. Without an error it does nothing.
func (r *Reader) Within(key string) {
	if r.err != nil && !r.err.Syntax {
		r.err.steps = append(r.err.steps, Step{Key: key, Index: -1})
	}
}

// Lone is the offset after the first string that String returned with half of a surrogate pair in it, which some vendors refuse;
// 0 for none.
func (r *Reader) Lone() int { return r.lone }

// Null reads null if that is the next value, and says whether it was.
func (r *Reader) Null() bool {
	if r.err != nil || r.kind() != Null {
		return false
	}
	r.literal("null")
	return r.err == nil
}

// Bool reads true or false.
func (r *Reader) Bool() bool {
	if !r.want(Bool) {
		return false
	}
	if r.data[r.pos] == 't' {
		r.literal("true")
		return r.err == nil
	}
	r.literal("false")
	return false
}

// Int reads a whole number, which may be written as 1e3 or 2.0. What has a fraction or does not fit is an error.
func (r *Reader) Int() int {
	if !r.want(Number) {
		if r.err.Want == Number {
			r.err.Want = Integer
		}
		return 0
	}
	start := r.pos
	r.number()
	if r.err != nil {
		return 0
	}
	text := r.data[start:r.pos]
	n, neg, i := 0, text[0] == '-', 0
	if neg {
		i = 1
	}
	for ; i < len(text) && text[i]-'0' <= 9 && n < math.MaxInt/10; i++ {
		n = n*10 + int(text[i]-'0')
	}
	if i == len(text) {
		if neg {
			return -n
		}
		return n
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		r.err = &Error{Offset: start, Want: Integer, Got: Number}
		return 0
	}
	return int(f)
}

// Float reads a number. What is too large for a float64 is an infinity.
func (r *Reader) Float() float64 {
	if !r.want(Number) {
		return 0
	}
	start := r.pos
	r.number()
	if r.err != nil {
		return 0
	}
	f, _ := strconv.ParseFloat(string(r.data[start:r.pos]), 64)
	return f
}

// String reads a string. Bytes that are no UTF-8 and surrogates without their other half become U+FFFD.
func (r *Reader) String() string {
	if !r.want(String) {
		return ""
	}
	raw, plain := r.text()
	if r.err != nil {
		return ""
	}
	if plain {
		return string(raw)
	}
	text, whole := unescape(make([]byte, 0, len(raw)), raw)
	if !whole && r.lone == 0 {
		r.lone = r.pos
	}
	return string(text)
}

// Raw reads any value and returns its bytes, which are part of the body: whoever keeps them, copies them.
func (r *Reader) Raw() []byte {
	if r.err != nil {
		return nil
	}
	r.space()
	start := r.pos
	r.Skip()
	if r.err != nil {
		return nil
	}
	return r.data[start:r.pos]
}

// Skip reads any value and forgets it.
func (r *Reader) Skip() {
	if r.err != nil {
		return
	}
	switch r.kind() {
	case Null:
		r.literal("null")
	case Bool:
		r.Bool()
	case Number:
		r.number()
	case String:
		r.text()
	case Array:
		r.Array(skipElement)
	case Object:
		r.Object(skipMember)
	case None:
		r.syntax()
	}
}

func skipElement(int)   {}
func skipMember([]byte) {}

// Object reads an object and calls member for each of its keys, to read the value; a value that it leaves unread is skipped. The
// key is valid during the call. Of a key that comes twice, both are told.
func (r *Reader) Object(member func(key []byte)) {
	if !r.want(Object) || !r.enter() {
		return
	}
	r.space()
	if r.at('}') {
		r.depth--
		return
	}
	for {
		r.space()
		if r.pos >= len(r.data) || r.data[r.pos] != '"' {
			r.syntax()
			return
		}
		key, plain := r.text()
		if r.err != nil {
			return
		}
		if !plain {
			// Its own memory: a value inside may have an escaped key of its own.
			key, _ = unescape(nil, key)
		}
		r.space()
		if !r.at(':') {
			r.syntax()
			return
		}
		r.space()
		start := r.pos
		member(key)
		if r.err == nil && r.pos == start {
			r.Skip()
		}
		if r.err != nil {
			if !r.err.Syntax {
				r.err.steps = append(r.err.steps, Step{Key: string(key), Index: -1})
			}
			return
		}
		r.space()
		if r.at(',') {
			continue
		}
		if !r.at('}') {
			r.syntax()
			return
		}
		r.depth--
		return
	}
}

// Array reads an array and calls element for each of its elements, from 0, to read it; one that it leaves unread is skipped.
func (r *Reader) Array(element func(i int)) {
	if !r.want(Array) || !r.enter() {
		return
	}
	r.space()
	if r.at(']') {
		r.depth--
		return
	}
	for i := 0; ; i++ {
		r.space()
		start := r.pos
		element(i)
		if r.err == nil && r.pos == start {
			r.Skip()
		}
		if r.err != nil {
			if !r.err.Syntax {
				r.err.steps = append(r.err.steps, Step{Index: i})
			}
			return
		}
		r.space()
		if r.at(',') {
			continue
		}
		if !r.at(']') {
			r.syntax()
			return
		}
		r.depth--
		return
	}
}

func (r *Reader) enter() bool {
	r.pos++
	r.depth++
	if r.depth > MaxDepth {
		r.err = &Error{Offset: r.pos, Syntax: true, Deep: true}
		return false
	}
	return true
}

func (r *Reader) want(k Kind) bool {
	if r.err != nil {
		return false
	}
	got := r.kind()
	if got == k {
		return true
	}
	if got == None {
		r.syntax()
		return false
	}
	r.err = &Error{Offset: r.pos, Want: k, Got: got}
	return false
}

func (r *Reader) syntax() { r.err = &Error{Offset: r.pos, Syntax: true} }

func (r *Reader) space() {
	for r.pos < len(r.data) {
		switch r.data[r.pos] {
		case ' ', '\n', '\r', '\t':
			r.pos++
		default:
			return
		}
	}
}

func (r *Reader) kind() Kind {
	r.space()
	if r.pos >= len(r.data) {
		return None
	}
	switch c := r.data[r.pos]; c {
	case '"':
		return String
	case '{':
		return Object
	case '[':
		return Array
	case 't', 'f':
		return Bool
	case 'n':
		return Null
	default:
		if c == '-' || c-'0' <= 9 {
			return Number
		}
		return None
	}
}

func (r *Reader) at(c byte) bool {
	if r.pos < len(r.data) && r.data[r.pos] == c {
		r.pos++
		return true
	}
	return false
}

func (r *Reader) literal(s string) {
	if len(r.data)-r.pos < len(s) || string(r.data[r.pos:r.pos+len(s)]) != s {
		r.syntax()
		return
	}
	r.pos += len(s)
}

func (r *Reader) digits() bool {
	start := r.pos
	for r.pos < len(r.data) && r.data[r.pos]-'0' <= 9 {
		r.pos++
	}
	return r.pos > start
}

// number passes over a number (RFC 8259 §6).
func (r *Reader) number() {
	r.at('-')
	if !r.at('0') && !r.digits() {
		r.syntax()
		return
	}
	if r.at('.') && !r.digits() {
		r.syntax()
		return
	}
	if r.at('e') || r.at('E') {
		if !r.at('+') {
			r.at('-')
		}
		if !r.digits() {
			r.syntax()
		}
	}
}

// text passes over a string and returns what is between the quotes, and whether that is what it means: no escapes, and UTF-8.
func (r *Reader) text() (raw []byte, plain bool) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	d, i := r.data, r.pos+1
	start := i
	var foreign uint64
	escaped := false
	for {
		// Eight bytes at a time until one of them is a quote, a backslash or a control character. The borrows of the subtractions
		// only spoil bytes after the first one that is found.
		for len(d)-i >= 8 {
			x := binary.LittleEndian.Uint64(d[i:])
			q := x ^ ones*'"'
			b := x ^ ones*'\\'
			found := ((q-ones)&^q | (b-ones)&^b | (x-ones*0x20)&^x) & high
			if found != 0 {
				n := bits.TrailingZeros64(found) / 8
				foreign |= x & (1<<(8*n) - 1)
				i += n
				break
			}
			foreign |= x
			i += 8
		}
		if i >= len(d) {
			r.pos = len(d)
			r.syntax()
			return nil, false
		}
		switch c := d[i]; {
		case c == '"':
			raw = d[start:i]
			r.pos = i + 1
			return raw, !escaped && (foreign&high == 0 || utf8.Valid(raw))
		case c == '\\':
			escaped = true
			n := escape(d[i:])
			if n == 0 {
				r.pos = i
				r.syntax()
				return nil, false
			}
			i += n
		case c < ' ':
			r.pos = i
			r.syntax()
			return nil, false
		default:
			foreign |= uint64(c)
			i++
		}
	}
}

// escape is the length of the escape sequence that b begins with, and 0 if it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b); ok {
			return 6
		}
	}
	return 0
}

// hex4 is the code unit of the escape \uXXXX that b begins with.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var u rune
	for _, c := range b[2:6] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}

// unescape appends what raw, the inside of a string that text has passed over, means, and says whether all surrogates in it were
// pairs.
func unescape(dst, raw []byte) (text []byte, whole bool) {
	whole = true
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '\\' && raw[i+1] == 'u':
			u, _ := hex4(raw[i:])
			i += 6
			if utf16.IsSurrogate(u) {
				low, ok := hex4(raw[i:])
				u = utf16.DecodeRune(u, low)
				if ok && u != utf8.RuneError {
					i += 6
				} else {
					whole = false
				}
			}
			dst = utf8.AppendRune(dst, u)
		case c == '\\':
			c = raw[i+1]
			switch c {
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			}
			dst = append(dst, c)
			i += 2
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			u, size := utf8.DecodeRune(raw[i:])
			dst = utf8.AppendRune(dst, u)
			i += size
		}
	}
	return dst, whole
}
