// Package schema makes plausible instances of JSON Schemas: what a model writes when it calls a tool or has to answer in a given
// structure. The same schema and the same source of randomness give the same text. Start at Parse and Schema.Append; Value is the
// JSON reader below it.
package schema

import (
	"bytes"
	"math"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock/provider"
)

// Schema is a JSON schema (draft 4 to 2020-12 as models' vendors take them, OpenAPI's nullable and Gemini's capital types too) that
// instances can be made of. It may be used by many at the same time.
type Schema struct {
	root Value
	// lucky schemas have keywords that an instance follows only by luck: then several are made, until one holds.
	lucky bool
	// check is nil when the validator does not take the schema.
	check func() *jsonschema.Schema
}

// attempts is how many instances are made of a schema that needs luck.
const attempts = 32

// Parse reads a schema. The error is a problem of kind Invalid: no JSON, no object and no boolean, nested too deeply, too large.
func Parse(data []byte) (*Schema, error) {
	root, err := ParseValue(bytes.Clone(data))
	if err != nil {
		return nil, err
	}
	if root.Kind != Object && root.Kind != True && root.Kind != False {
		return nil, problem.Invalidf("", "a schema is an object or a boolean, not %.40q", root.Raw)
	}
	check := sync.OnceValue(func() *jsonschema.Schema { return compile(&root) })
	return &Schema{root: root, lucky: lucky(&root), check: check}, nil
}

// Root is the schema itself.
func (s *Schema) Root() *Value { return &s.root }

// lucky says whether v has a keyword, at any depth, that making does not follow of itself.
func lucky(v *Value) bool {
	for i := range v.Items {
		m := &v.Items[i]
		switch m.Name {
		case "oneOf", "not", "if", "dependentSchemas", "dependentRequired", "dependencies", "patternProperties", "propertyNames",
			"contains", "unevaluatedProperties", "unevaluatedItems", "uniqueItems", "allOf", "anyOf", "pattern", "$ref", "multipleOf":
			return true
		}
		if lucky(m) {
			return true
		}
	}
	return false
}

type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, problem.Invalidf("$ref", "%q is another document; only references into the schema itself work", url)
}

// compile is nil for a schema that the validator does not take, which then is followed as well as it goes. So is one whose alternatives
// refer to each other in so many ways that trying all of them would take too long: forty lines are enough for 2⁴⁰ of them.
func compile(root *Value) *jsonschema.Schema {
	if (&ways{root: root, known: make(map[*Value]int)}).any(root) > mostWays {
		return nil
	}
	raw := root.Raw
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	const name = "urn:schema"
	if err := c.AddResource(name, doc); err != nil {
		return nil
	}
	s, err := c.Compile(name)
	if err != nil {
		return nil
	}
	return s
}

// ways counts in how many ways a schema is applied to one place of an instance.
type ways struct {
	root  *Value
	known map[*Value]int
}

const mostWays = 2000

// any is the most of all schemas in v.
func (w *ways) any(v *Value) int {
	most := w.of(v)
	for i := range v.Items {
		most = max(most, w.any(&v.Items[i]))
	}
	return most
}

func (w *ways) of(v *Value) int {
	if n, ok := w.known[v]; ok {
		return n
	}
	w.known[v] = 1 // what comes back to itself is no further way
	n := 1
	for i := range v.Items {
		k := &v.Items[i]
		switch k.Name {
		case "$ref", "$dynamicRef":
			n += w.of(resolve(w.root, k.Text))
		case "not", "if", "then", "else":
			n += w.of(k)
		case "allOf", "anyOf", "oneOf", "dependentSchemas", "dependencies":
			for j := range k.Items {
				n += w.of(&k.Items[j])
			}
		}
		n = min(n, mostWays+1)
	}
	w.known[v] = n
	return n
}

// Append appends an instance in compact JSON to dst. It is valid, except for a schema that nothing or hardly anything is valid
// against, or that is in no draft: then it is near.
func (s *Schema) Append(dst []byte, r *rand.Rand) []byte {
	start := len(dst)
	for range attempts {
		m := maker{root: &s.root, r: r, start: start, left: mostSteps}
		dst = m.value(dst[:start], 0, "", &s.root)
		if !s.lucky || m.left <= 0 || len(dst)-start > lastSize/4 || s.check() == nil || s.Valid(dst[start:]) {
			break
		}
	}
	return dst
}

// Bounds of an instance. Beyond the roomy ones only what is required is written, and beyond the last ones nothing is: null stands
// where more would be.
const (
	roomyDepth = 5
	lastDepth  = 40
	roomySize  = 16 << 10
	lastSize   = 256 << 10
	longest    = 4096 // characters and items, whatever minLength and minItems say
	mostSteps  = 100_000
)

// maker makes one instance.
type maker struct {
	root  *Value
	r     *rand.Rand
	start int
	left  int // schemas that may still be looked at
}

func (m *maker) full(dst []byte) bool { return len(dst)-m.start > lastSize || m.left <= 0 }

// types as a set.
type types uint8

const (
	null types = 1 << iota
	boolean
	integer
	number
	text
	array
	object
	anyType = null | boolean | integer | number | text | array | object
)

var typeNames = map[string]types{
	"null": null, "boolean": boolean, "integer": integer, "number": number | integer, "string": text, "array": array, "object": object,
}

// spec is what all schemas that hold for one value say together.
type spec struct {
	types            types
	enums            []*Value // each is an array
	consts           []*Value
	examples         []*Value
	props            []property
	required         []string
	closed           bool
	more             []*Value // additionalProperties that are a schema
	items            []*Value
	prefix           []*Value
	min, max         float64
	minOpen, maxOpen bool
	multiple         float64
	minLen, maxLen   int
	minItems         int
	maxItems         int
	minProps         int
	pattern, format  string
	unique           bool
	contains         *Value
	never            bool
}

type property struct {
	name    string
	schemas []*Value
}

func (p *spec) property(name string) *property {
	for i := range p.props {
		if p.props[i].name == name {
			return &p.props[i]
		}
	}
	p.props = append(p.props, property{name: name})
	return &p.props[len(p.props)-1]
}

func (m *maker) value(dst []byte, depth int, name string, schemas ...*Value) []byte {
	if depth > lastDepth || m.full(dst) {
		return append(dst, "null"...)
	}
	s := spec{types: anyType, min: math.Inf(-1), max: math.Inf(1), maxLen: longest, maxItems: longest}
	for _, v := range schemas {
		m.collect(&s, v, depth, 0)
	}
	if s.never {
		return append(dst, "null"...)
	}
	if len(s.consts) > 0 {
		return append(dst, s.consts[0].Raw...)
	}
	if len(s.enums) > 0 {
		if v := m.enum(&s); v != nil {
			return append(dst, v.Raw...)
		}
	}
	tight := depth >= roomyDepth || len(dst)-m.start > roomySize
	switch t := m.choose(&s, tight); t {
	case object:
		return m.object(dst, depth, &s, tight)
	case array:
		return m.array(dst, depth, name, &s, tight)
	case integer, number:
		return m.number(dst, name, &s, t == integer)
	case boolean:
		return strconv.AppendBool(dst, m.r.Uint64()&1 == 0)
	case text:
		return provider.AppendString(dst, m.text(name, &s))
	}
	return append(dst, "null"...)
}

// collect adds what v says to s.
func (m *maker) collect(s *spec, v *Value, depth, hops int) {
	if m.left--; hops > lastDepth || m.left <= 0 {
		return
	}
	switch v.Kind {
	case Object:
	case False:
		s.never = true
		return
	default:
		return
	}
	allowed := types(0)
	for j := range v.Items {
		k := &v.Items[j]
		n, isNumber := k.Number()
		switch k.Name {
		case "$ref", "$dynamicRef":
			m.collect(s, resolve(m.root, k.Text), depth, hops+1)
		case "allOf":
			for i := range k.Items {
				m.collect(s, &k.Items[i], depth, hops+1)
			}
		case "anyOf", "oneOf":
			if k.Kind == Array && len(k.Items) > 0 {
				m.collect(s, m.branch(k.Items, depth), depth, hops+1)
			}
		case "type":
			if k.Kind == String {
				allowed |= typeNames[strings.ToLower(k.Text)]
			}
			if k.Kind == Array {
				for i := range k.Items {
					allowed |= typeNames[strings.ToLower(k.Items[i].Text)]
				}
			}
		case "not": // a type only; what else is not allowed is left to luck
			if t := k.Get("type"); t.Kind == String && len(k.Items) == 1 {
				s.types &^= typeNames[t.Text]
			}
		case "nullable": // a hint: null is one of several plausible values, and hardly ever what is wanted
		case "const":
			s.consts = append(s.consts, k)
		case "enum":
			if k.Kind == Array && len(k.Items) > 0 {
				s.enums = append(s.enums, k)
			}
		case "examples":
			for i := range k.Items {
				s.examples = append(s.examples, &k.Items[i])
			}
		case "example", "default":
			s.examples = append(s.examples, k)
		case "properties":
			for name, sub := range k.Members() {
				p := s.property(name)
				p.schemas = append(p.schemas, sub)
			}
		case "required":
			for i := range k.Items {
				if name := k.Items[i].Text; k.Items[i].Kind == String && !slices.Contains(s.required, name) {
					s.required = append(s.required, name)
				}
			}
		case "additionalProperties":
			s.closed = s.closed || k.Kind == False
			if k.Kind == Object {
				s.more = append(s.more, k)
			}
		case "items":
			if k.Kind == Array {
				for i := range k.Items {
					s.prefix = append(s.prefix, &k.Items[i])
				}
			} else {
				s.items = append(s.items, k)
			}
		case "prefixItems":
			for i := range k.Items {
				s.prefix = append(s.prefix, &k.Items[i])
			}
		case "contains":
			s.contains = k
		case "uniqueItems":
			s.unique = s.unique || k.Kind == True
		case "pattern":
			s.pattern = k.Text
		case "format":
			s.format = k.Text
		case "minimum":
			if isNumber && n > s.min {
				s.min, s.minOpen = n, v.Get("exclusiveMinimum").Kind == True
			}
		case "maximum":
			if isNumber && n < s.max {
				s.max, s.maxOpen = n, v.Get("exclusiveMaximum").Kind == True
			}
		case "exclusiveMinimum":
			if isNumber && n >= s.min {
				s.min, s.minOpen = n, true
			}
		case "exclusiveMaximum":
			if isNumber && n <= s.max {
				s.max, s.maxOpen = n, true
			}
		case "multipleOf":
			if isNumber && n > 0 {
				s.multiple = max(s.multiple, n)
			}
		case "minLength":
			s.minLen = max(s.minLen, bound(n))
		case "maxLength":
			s.maxLen = min(s.maxLen, bound(n))
		case "minItems":
			s.minItems = max(s.minItems, bound(n))
		case "maxItems":
			s.maxItems = min(s.maxItems, bound(n))
		case "minProperties":
			s.minProps = max(s.minProps, bound(n))
		}
	}
	if allowed != 0 {
		s.types &= allowed
	}
}

func bound(n float64) int { return int(min(max(n, 0), longest)) }

// resolve finds what a reference into the schema itself names.
func resolve(root *Value, ref string) *Value {
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return &absent
	}
	v := root
	if path == "" {
		return v
	}
	if path[0] != '/' {
		return anchor(root, path)
	}
	for part := range strings.SplitSeq(path[1:], "/") {
		part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		if v.Kind == Array {
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(v.Items) {
				return &absent
			}
			v = &v.Items[i]
			continue
		}
		v = v.Get(part)
	}
	return v
}

func anchor(v *Value, name string) *Value {
	if a := v.Get("$anchor"); a.Kind == String && a.Text == name {
		return v
	}
	for i := range v.Items {
		if found := anchor(&v.Items[i], name); found != &absent {
			return found
		}
	}
	return &absent
}

// branch chooses an alternative: any one where there is room, else one that ends soon. Null is chosen only when there is nothing
// else or no room, because a model that is asked something rarely answers with nothing.
func (m *maker) branch(of []Value, depth int) *Value {
	start := m.r.IntN(len(of))
	best, cost := &of[start], math.MaxInt
	for i := range of {
		v := &of[(start+i)%len(of)]
		c := 0
		if depth >= roomyDepth {
			c = m.cost(v, 0)
		} else if t := v.Get("type"); t.Kind == String && t.Text == "null" || v.Kind == False {
			c = 1
		}
		if c < cost {
			best, cost = v, c
		}
	}
	return best
}

// cost is how deep an instance goes at least, about.
func (m *maker) cost(v *Value, hops int) int {
	if m.left--; hops > 6 || m.left <= 0 {
		return 100
	}
	c := 0
	if ref := v.Get("$ref"); ref.Kind == String {
		c = max(c, 1+m.cost(resolve(m.root, ref.Text), hops+1))
	}
	required := v.Get("required")
	for name, p := range v.Get("properties").Members() {
		if required.Has(name) {
			c = max(c, 1+m.cost(p, hops+1))
		}
	}
	if n, ok := v.Get("minItems").Number(); ok && n > 0 {
		c = max(c, 1+m.cost(v.Get("items"), hops+1))
	}
	for _, of := range [2]string{"anyOf", "oneOf"} {
		list := v.Get(of)
		least := 0
		for i := range list.Items {
			if x := m.cost(&list.Items[i], hops+1); i == 0 || x < least {
				least = x
			}
		}
		c = max(c, least)
	}
	return c
}

// enum draws a value that all the lists have and whose type is allowed.
func (m *maker) enum(s *spec) *Value {
	first := s.enums[0]
	start := m.r.IntN(len(first.Items))
	var fallback *Value
	for i := range first.Items {
		v := &first.Items[(start+i)%len(first.Items)]
		if typeOf(v)&s.types == 0 {
			continue
		}
		ok := true
		for _, other := range s.enums[1:] {
			ok = ok && slices.ContainsFunc(other.Items, func(x Value) bool { return bytes.Equal(x.Raw, v.Raw) })
		}
		if ok && v.Kind != Null {
			return v
		}
		if ok && fallback == nil {
			fallback = v
		}
	}
	return fallback
}

func typeOf(v *Value) types {
	switch v.Kind {
	case Null:
		return null
	case True, False:
		return boolean
	case Number:
		if n, ok := v.Number(); ok && n == math.Trunc(n) {
			return integer | number
		}
		return number
	case String:
		return text
	case Array:
		return array
	case Object:
		return object
	}
	return 0
}

// choose is the type of the value: of those that are allowed the one that the other keywords speak of.
func (m *maker) choose(s *spec, tight bool) types {
	hint := types(0)
	if len(s.props) > 0 || len(s.required) > 0 || len(s.more) > 0 || s.minProps > 0 || s.closed {
		hint |= object
	}
	if len(s.items) > 0 || len(s.prefix) > 0 || s.minItems > 0 || s.contains != nil {
		hint |= array
	}
	if s.pattern != "" || s.format != "" || s.minLen > 0 {
		hint |= text
	}
	if !math.IsInf(s.min, 0) || !math.IsInf(s.max, 0) || s.multiple > 0 {
		hint |= number | integer
	}
	if tight && s.types&null != 0 && s.types != anyType {
		return null
	}
	for _, t := range [...]types{s.types & hint, s.types} {
		for _, one := range [...]types{object, array, text, integer, number, boolean, null} {
			if t == anyType {
				return text
			}
			if t&one != 0 {
				if one == integer && t&number != 0 {
					return number
				}
				return one
			}
		}
	}
	return 0
}

func (m *maker) object(dst []byte, depth int, s *spec, tight bool) []byte {
	dst = append(dst, '{')
	n := 0
	var written []string
	write := func(name string, schemas ...*Value) {
		if n++; n > 1 {
			dst = append(dst, ',')
		}
		dst = provider.AppendString(dst, name)
		dst = append(dst, ':')
		dst = m.value(dst, depth+1, name, schemas...)
		written = append(written, name)
	}
	for _, name := range s.required {
		s.property(name) // what is required and not described gets a place of its own
	}
	for i := range s.props {
		p := &s.props[i]
		schemas := p.schemas
		if len(schemas) == 0 {
			schemas = s.more
		}
		if slices.Contains(s.required, p.name) || !tight && m.r.Uint64()&1 == 0 && !never(schemas) {
			write(p.name, schemas...)
		}
	}
	for i := range s.props {
		if n >= s.minProps {
			break
		}
		if p := &s.props[i]; !slices.Contains(written, p.name) {
			write(p.name, p.schemas...)
		}
	}
	if !s.closed {
		want := s.minProps
		if len(s.more) > 0 && len(s.props) == 0 && !tight {
			want = max(want, 2)
		}
		for i := 0; n < want; i++ {
			name := words[i%len(words)]
			if i >= len(words) {
				name += strconv.Itoa(i)
			}
			if !slices.Contains(written, name) {
				write(name, s.more...)
			}
		}
	}
	return append(dst, '}')
}

func never(schemas []*Value) bool {
	return slices.ContainsFunc(schemas, func(v *Value) bool { return v.Kind == False })
}

func (m *maker) array(dst []byte, depth int, name string, s *spec, tight bool) []byte {
	want := 1 + m.r.IntN(3)
	if tight {
		want = 0
	}
	want = max(want, len(s.prefix))
	if s.contains != nil {
		want = max(want, 1)
	}
	if never(s.items) {
		want = min(want, len(s.prefix))
	}
	want = max(min(want, s.maxItems), s.minItems)
	dst = append(dst, '[')
	var seen [][]byte
	for i, misses := 0, 0; i < want && !m.full(dst); {
		start := len(dst)
		if i > 0 {
			dst = append(dst, ',')
		}
		from := len(dst)
		switch {
		case i < len(s.prefix):
			dst = m.value(dst, depth+1, name, s.prefix[i])
		case s.contains != nil && i == len(s.prefix):
			dst = m.value(dst, depth+1, name, append([]*Value{s.contains}, s.items...)...)
		default:
			dst = m.value(dst, depth+1, name, s.items...)
		}
		if s.unique {
			if slices.ContainsFunc(seen, func(x []byte) bool { return bytes.Equal(x, dst[from:]) }) {
				dst = dst[:start]
				if misses++; misses > 64 {
					break
				}
				continue
			}
			seen = append(seen, bytes.Clone(dst[from:]))
		}
		i++
	}
	return append(dst, ']')
}

func (m *maker) number(dst []byte, name string, s *spec, whole bool) []byte {
	for _, v := range s.examples {
		if n, ok := v.Number(); ok && s.multiple == 0 && inside(s, n) && (!whole || n == math.Trunc(n)) {
			return append(dst, v.Raw...)
		}
	}
	low, high := s.min, s.max
	switch { // where nothing is said, numbers are between 1 and 100
	case math.IsInf(low, -1) && math.IsInf(high, 1):
		low, high = 1, 100
		if s.multiple > 0 {
			high = s.multiple * 100
		}
	case math.IsInf(low, -1):
		low = high - 100
	case math.IsInf(high, 1):
		high = low + 100
	}
	step := 0.01
	if whole {
		step = 1
	}
	if s.multiple > 0 {
		step = s.multiple
		if whole && step != math.Trunc(step) {
			for k := 2.0; k <= 1000; k++ { // the multiple that is whole
				if x := step * k; x == math.Trunc(x) {
					step = x
					break
				}
			}
		}
		high = min(high, low+200*step)
	} else if high-low < 2*step {
		if step = (high - low) / 4; step == 0 || whole {
			step = 1
		}
	}
	first, last := math.Ceil(low/step), math.Floor(high/step)
	if s.minOpen && first*step <= s.min {
		first++
	}
	if s.maxOpen && last*step >= s.max {
		last--
	}
	n := first
	if span := last - first; span > 0 {
		n += float64(m.r.Uint64N(uint64(min(span, 1<<50)) + 1))
	} else {
		m.r.Uint64()
	}
	// As many places as the step has, for 57 × 0.01 is no multiple of 0.01 in binary.
	places := 0
	if _, fraction, ok := strings.Cut(strconv.FormatFloat(step, 'f', -1, 64), "."); ok {
		places = len(fraction)
	}
	return strconv.AppendFloat(dst, n*step, 'f', places, 64)
}

func inside(s *spec, n float64) bool {
	return (n > s.min || n == s.min && !s.minOpen) && (n < s.max || n == s.max && !s.maxOpen)
}

// text is a string that the schema allows, and one that goes with the property's name where that is known.
func (m *maker) text(name string, s *spec) string {
	fits := func(x string) bool {
		n := utf8.RuneCountInString(x)
		return n >= s.minLen && n <= s.maxLen
	}
	if s.pattern != "" {
		if re, err := syntax.Parse(s.pattern, syntax.Perl); err == nil {
			re = re.Simplify()
			for range 16 {
				if x := pattern(m.r, re); fits(x) {
					return x
				}
			}
		}
	}
	if x := m.formatted(s.format); x != "" && fits(x) {
		return x
	}
	for _, v := range s.examples {
		if v.Kind == String && s.pattern == "" && s.format == "" && fits(v.Text) {
			return v.Text
		}
	}
	if x := m.named(name); x != "" && fits(x) {
		return x
	}
	var b strings.Builder
	n := 0
	for i := 2 + m.r.IntN(4); i > 0 || n < s.minLen; i-- {
		if n > 0 {
			b.WriteByte(' ')
			n++
		}
		w := words[m.r.IntN(len(words))]
		b.WriteString(w)
		n += len(w)
	}
	x := b.String()
	return x[:min(len(x), s.maxLen)] // ASCII: bytes are characters
}

// Valid says whether instance is valid against the schema; false also when that cannot be told because the schema is in no draft.
func (s *Schema) Valid(instance []byte) bool {
	check := s.check()
	if check == nil {
		return false
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(instance))
	return err == nil && check.Validate(v) == nil
}
