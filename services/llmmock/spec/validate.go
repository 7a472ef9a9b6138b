package spec

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// Fault is what is wrong with a value.
type Fault uint8

// The faults.
const (
	NotJSON Fault = iota + 1
	TooDeep
	TooComplex
	Missing
	WrongType
	NotAllowed // no value of an enumeration
	Unknown    // a property that may not be there
	TooSmall
	TooLarge
	TooShort
	TooLong
	TooFew
	TooMany
	WrongFormat
	Forbidden // what the schema says that it must not be
)

// Violation is one thing that the vendor would refuse.
type Violation struct {
	// Field is the path to it, such as messages[0].content; empty for the whole body.
	Field string
	Fault Fault
	// Types that it may be, when the type is wrong; a set of bits of the wire form.
	types uint8
	// Allowed values, or the limit, pattern or format that does not hold; Got is what was sent instead, in words or as JSON.
	Allowed []string
	Got     string
	// kind of the value, for the words of the message.
	kind uint8
	// tag is set when the value is the word that tells the branches of a union apart.
	tag string
}

// maxViolations is how many are told of one value: a client repairs one after the other, and the first says most.
const maxViolations = 8

// checker walks a tape along a schema.
type checker struct {
	t *tape
	// steps left; unions in unions could otherwise take exponential time.
	steps int
	// max violations to collect; 0 only answers whether there is one.
	max int
	out []Violation
	// path to the value: nodes of keys, or ^index of elements.
	path []int32
	// lax ignores patterns, formats and bounds: what made-up identifiers in a path need not keep.
	lax bool
}

func newChecker(t *tape, max int) *checker {
	return &checker{t: t, steps: 20_000 + 60*len(t.nodes), max: max, path: make([]int32, 0, 16)}
}

// valid says whether the node is an instance of s.
func (t *tape) valid(s *Schema, i int) bool {
	c := checker{t: t, steps: 20_000 + 60*int(t.nodes[i].next-int32(i))}
	return c.check(s, i)
}

func (t *tape) validLax(s *Schema, i int) bool {
	c := checker{t: t, steps: 20_000 + 60*int(t.nodes[i].next-int32(i)), lax: true}
	return c.check(s, i)
}

// quiet is set when nobody asks what is wrong, and no words need to be made.
func (c *checker) quiet() bool { return c.max == 0 }

func (c *checker) fail(v Violation) bool {
	if len(c.out) < c.max {
		if v.Field == "" {
			v.Field = c.field("")
		}
		c.out = append(c.out, v)
	}
	return false
}

// field is the path in words, with one more name after it.
func (c *checker) field(name string) string {
	var b strings.Builder
	for _, p := range c.path {
		if p < 0 {
			b.WriteByte('[')
			b.WriteString(strconv.Itoa(int(^p)))
			b.WriteByte(']')
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(c.t.string(int(p)))
	}
	if name != "" {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	return b.String()
}

// full is whether more need not be looked for.
func (c *checker) full() bool { return len(c.out) >= c.max }

// check says whether node i is an instance of s, and collects what is not right.
func (c *checker) check(s *Schema, i int) bool {
	c.steps--
	if c.steps < 0 {
		return c.fail(Violation{Fault: TooComplex})
	}
	n := &c.t.nodes[i]
	if s.types != 0 && n.kind&s.types == 0 {
		if c.quiet() {
			return false
		}
		return c.fail(Violation{Fault: WrongType, types: s.types, kind: n.kind, Got: c.shown(i)})
	}
	if s.enum != nil && !c.listed(s, i) {
		if c.quiet() {
			return false
		}
		if m := s.mask(0); n.kind&m == 0 {
			return c.fail(Violation{Fault: WrongType, types: m, kind: n.kind, Got: c.shown(i)})
		}
		return c.fail(Violation{Fault: NotAllowed, kind: n.kind, Allowed: s.allowed(), Got: c.shown(i)})
	}
	ok := true
	switch n.kind {
	case form.String:
		ok = c.text(s, i)
	case form.Int, form.Number:
		ok = c.number(s, i)
	case form.Array:
		ok = c.array(s, i)
	case form.Object:
		ok = c.object(s, i)
	}
	if !ok && c.full() {
		return false
	}
	for _, a := range s.all {
		if !c.check(a, i) {
			ok = false
			if c.full() {
				return false
			}
		}
	}
	if s.not != nil && c.silently(s.not, i) {
		return c.fail(Violation{Fault: Forbidden, kind: n.kind})
	}
	for _, u := range s.unions {
		if !c.union(u, i) {
			ok = false
			if c.full() {
				return false
			}
		}
	}
	return ok
}

// silently is check without an account of it.
func (c *checker) silently(s *Schema, i int) bool {
	max, had := c.max, len(c.out)
	c.max = 0
	ok := c.check(s, i)
	c.max, c.out = max, c.out[:had]
	return ok
}

func (c *checker) listed(s *Schema, i int) bool {
	n := &c.t.nodes[i]
	if n.kind == form.String {
		if s.words == nil {
			return false
		}
		return s.words[string(c.t.bytes(i))]
	}
	raw := c.t.raw(i)
	for _, e := range s.enum {
		if bytes.Equal(e, raw) {
			return true
		}
		if n.kind&(form.Int|form.Number) != 0 && kindOf(e)&(form.Int|form.Number) != 0 {
			f, err := strconv.ParseFloat(string(e), 64)
			if err == nil && f == c.t.float(i) {
				return true
			}
		}
	}
	return false
}

// allowed are the values of an enumeration, in words.
func (s *Schema) allowed() []string {
	var l []string
	for _, e := range s.enum {
		if e[0] == '"' {
			t, err := parseLong(e)
			if err == nil {
				l = append(l, t.string(0))
			}
			continue
		}
		if e[0] != 'n' {
			l = append(l, string(e))
		}
	}
	return l
}

// shown is a value for a message, cut when it is long.
func (c *checker) shown(i int) string {
	n := &c.t.nodes[i]
	const most = 60
	switch n.kind {
	case form.Object, form.Array:
		return ""
	case form.String:
		b := c.t.bytes(i)
		if len(b) > most {
			b = b[:most]
			for len(b) > 0 && !utf8.Valid(b) && most-len(b) < utf8.UTFMax {
				b = b[:len(b)-1]
			}
			return string(b) + "…"
		}
		return string(b)
	}
	raw := c.t.raw(i)
	return string(raw[:min(len(raw), most)])
}

func (c *checker) text(s *Schema, i int) bool {
	if c.lax || s.minLen == 0 && s.maxLen < 0 && s.pattern == nil && s.format == "" {
		return true
	}
	b := c.t.bytes(i)
	if s.minLen > 0 || s.maxLen >= 0 {
		// Bytes bound characters from above and, times four, from below.
		if len(b) < s.minLen*utf8.UTFMax || s.maxLen >= 0 && len(b) > s.maxLen {
			n := utf8.RuneCount(b)
			if c.quiet() && (n < s.minLen || s.maxLen >= 0 && n > s.maxLen) {
				return false
			}
			if n < s.minLen {
				return c.fail(Violation{Fault: TooShort, kind: form.String, Allowed: []string{strconv.Itoa(s.minLen)}, Got: strconv.Itoa(n)})
			}
			if s.maxLen >= 0 && n > s.maxLen {
				return c.fail(Violation{Fault: TooLong, kind: form.String, Allowed: []string{strconv.Itoa(s.maxLen)}, Got: strconv.Itoa(n)})
			}
		}
	}
	if s.pattern != nil && !s.pattern.Match(b) {
		if c.quiet() {
			return false
		}
		return c.fail(Violation{Fault: WrongFormat, kind: form.String, Allowed: []string{s.pattern.String()}, Got: c.shown(i)})
	}
	if !formatted(s.format, b) {
		if c.quiet() {
			return false
		}
		return c.fail(Violation{Fault: WrongFormat, kind: form.String, Allowed: []string{s.format}, Got: c.shown(i)})
	}
	return true
}

// formatted checks those formats that vendors check.
func formatted(format string, b []byte) bool {
	switch format {
	case "date-time":
		_, err := time.Parse(time.RFC3339, string(b))
		return err == nil
	case "date":
		_, err := time.Parse(time.DateOnly, string(b))
		return err == nil
	case "uuid":
		if len(b) != 36 {
			return false
		}
		for i, c := range b {
			dash := i == 8 || i == 13 || i == 18 || i == 23
			if dash != (c == '-') || !dash && !isHex([]byte{c}) {
				return false
			}
		}
	case "email":
		at := bytes.IndexByte(b, '@')
		return at > 0 && at < len(b)-1
	case "byte":
		// In lines or not, as encoders do it.
		_, err := base64.StdEncoding.Decode(make([]byte, base64.StdEncoding.DecodedLen(len(b))), b)
		return err == nil
	}
	return true
}

func (c *checker) number(s *Schema, i int) bool {
	if c.lax || s.min == nil && s.max == nil && s.above == nil && s.below == nil {
		return true
	}
	f := c.t.float(i)
	if c.quiet() {
		return (s.min == nil || f >= *s.min) && (s.above == nil || f > *s.above) && (s.max == nil || f <= *s.max) && (s.below == nil || f < *s.below)
	}
	show := func(f float64) []string { return []string{strconv.FormatFloat(f, 'f', -1, 64)} }
	kind := c.t.nodes[i].kind
	switch {
	case s.min != nil && f < *s.min:
		return c.fail(Violation{Fault: TooSmall, kind: kind, Allowed: append(show(*s.min), ">="), Got: c.shown(i)})
	case s.above != nil && f <= *s.above:
		return c.fail(Violation{Fault: TooSmall, kind: kind, Allowed: append(show(*s.above), ">"), Got: c.shown(i)})
	case s.max != nil && f > *s.max:
		return c.fail(Violation{Fault: TooLarge, kind: kind, Allowed: append(show(*s.max), "<="), Got: c.shown(i)})
	case s.below != nil && f >= *s.below:
		return c.fail(Violation{Fault: TooLarge, kind: kind, Allowed: append(show(*s.below), "<"), Got: c.shown(i)})
	}
	return true
}

// counted checks a number of items or properties.
func (c *checker) counted(n, least, most int, kind uint8) bool {
	if c.quiet() {
		return n >= least && (most < 0 || n <= most)
	}
	if n < least {
		return c.fail(Violation{Fault: TooFew, kind: kind, Allowed: []string{strconv.Itoa(least)}, Got: strconv.Itoa(n)})
	}
	if most >= 0 && n > most {
		return c.fail(Violation{Fault: TooMany, kind: kind, Allowed: []string{strconv.Itoa(most)}, Got: strconv.Itoa(n)})
	}
	return true
}

func (c *checker) array(s *Schema, i int) bool {
	n := &c.t.nodes[i]
	ok := c.lax || c.counted(int(n.n), s.minItems, s.maxItems, form.Array)
	if s.items == nil || !ok && c.full() {
		return ok
	}
	at := len(c.path)
	k := int32(0)
	for v := i + 1; v < int(n.next); v = int(c.t.nodes[v].next) {
		c.path = append(c.path, ^k)
		if !c.check(s.items, v) {
			ok = false
		}
		c.path = c.path[:at]
		if !ok && c.full() {
			return false
		}
		k++
	}
	return ok
}

func (c *checker) object(s *Schema, i int) bool {
	n := &c.t.nodes[i]
	ok := c.lax || c.counted(int(n.n), s.minProps, s.maxProps, form.Object)
	if len(s.props) == 0 && s.additional == nil && !s.closed && s.keys == nil || !ok && c.full() {
		return ok
	}
	var few [4]uint64
	seen := few[:]
	if len(s.props) > 256 {
		seen = make([]uint64, len(s.props)/64+1)
	}
	missing := s.required
	at := len(c.path)
	for k := i + 1; k < int(n.next); {
		v := int(c.t.nodes[k].next)
		p := s.prop(c.t.bytes(k))
		var sub *Schema
		if p >= 0 {
			sub = s.props[p].schema
			if seen[p>>6]&(1<<(p&63)) == 0 {
				seen[p>>6] |= 1 << (p & 63)
				if s.props[p].required {
					missing--
				}
			}
		} else {
			sub = s.additional
		}
		c.path = append(c.path, int32(k))
		if sub == nil && s.closed && p < 0 {
			ok = c.fail(Violation{Fault: Unknown, kind: c.t.nodes[v].kind})
		}
		if sub != nil && !c.check(sub, v) {
			ok = false
		}
		if s.keys != nil && !c.check(s.keys, k) {
			ok = false
		}
		c.path = c.path[:at]
		if !ok && c.full() {
			return false
		}
		k = int(c.t.nodes[v].next)
	}
	if missing > 0 {
		ok = false
		for p := range s.props {
			if s.props[p].required && seen[p>>6]&(1<<(p&63)) == 0 {
				if c.quiet() {
					return false
				}
				c.fail(Violation{Field: c.field(s.props[p].name), Fault: Missing, types: s.props[p].schema.mask(0)})
			}
		}
	}
	return ok
}

func (c *checker) union(u *union, i int) bool {
	n := &c.t.nodes[i]
	kind := 0
	for n.kind>>kind != 1 {
		kind++
	}
	candidates := u.byKind[kind]
	if len(candidates) == 0 {
		if c.quiet() {
			return false
		}
		return c.fail(Violation{Fault: WrongType, types: u.kinds, kind: n.kind, Got: c.shown(i)})
	}
	if kind == objectKind && u.tag != "" {
		tag := c.t.field(i, u.tag)
		switch {
		case tag < 0:
			if len(u.untagged) == 0 {
				if c.quiet() {
					return false
				}
				var types uint8 = form.String
				return c.fail(Violation{Field: c.field(u.tag), Fault: Missing, types: types})
			}
			candidates = u.untagged
		case c.t.nodes[tag].kind == form.String:
			l := u.byTag[string(c.t.bytes(tag))]
			if l == nil && u.open {
				for _, o := range u.untagged {
					if o.tagWords(u.tag) == nil {
						l = append(l, o)
					}
				}
			}
			if l == nil {
				if c.quiet() {
					return false
				}
				return c.fail(Violation{Field: c.field(u.tag), Fault: NotAllowed, kind: form.String, Allowed: u.tags, Got: c.shown(tag), tag: u.tag})
			}
			candidates = l
		}
	}
	if len(candidates) == 1 {
		return c.check(candidates[0], i)
	}
	for _, b := range candidates {
		if c.silently(b, i) {
			return true
		}
		if c.steps < 0 {
			return c.fail(Violation{Fault: TooComplex})
		}
	}
	if c.quiet() {
		return false
	}
	// None fits: tell of the one that is nearest, which is where the first thing that is wrong comes deepest or last.
	best, bestScore := candidates[0], -1
	for _, b := range candidates {
		probe := checker{t: c.t, steps: min(c.steps, 5_000), max: maxViolations, path: append([]int32(nil), c.path...)}
		probe.check(b, i)
		score := 0
		if len(probe.out) > 0 {
			score = 1000 - 100*len(probe.out) + 10*strings.Count(probe.out[0].Field, ".") + 10*strings.Count(probe.out[0].Field, "[")
			if probe.out[0].Fault == Missing {
				score -= 5
			}
		}
		if score > bestScore {
			best, bestScore = b, score
		}
	}
	if !c.check(best, i) {
		return false
	}
	return c.fail(Violation{Fault: Forbidden, kind: n.kind})
}
