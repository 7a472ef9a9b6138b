package spec

import (
	"encoding/base64"
	"math"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// layer is a JSON value that a made-up one takes members from.
type layer struct {
	t *tape
	i int
	// firm values are taken as they are if only their type fits: what the server itself decided. Weak ones are examples of a document:
	// what they tell of an object's life is another object's.
	firm, weak bool
}

// maker makes instances of schemas up. The same source of random numbers makes the same instance.
type maker struct {
	r   *rand.Rand
	now time.Time
	// steps left, as schemas refer to each other in circles.
	steps int
	// prefix of identifiers of the outermost object.
	prefix string
	vendor llmmock.Vendor
}

const (
	makerSteps = 40_000
	// makerDepth is where optional members end, and deepest where unions take their shallowest branch.
	makerDepth = 6
	deepest    = 24
	// maxElements of a client's array are kept.
	maxElements = 20_000
)

// Synthesize is a plausible instance of the schema as JSON: required members and those that the document shows by example, of bounded
// depth. The same r makes the same instance.
func (s *Schema) Synthesize(r *rand.Rand, now time.Time) []byte {
	m := &maker{r: r, now: now, steps: makerSteps}
	return m.append(nil, s, "", nil, 0)
}

// append appends an instance of s that has as much of the layers as s allows, the first before the others. name is that of the member
// that it is for.
func (m *maker) append(dst []byte, s *Schema, name string, over []layer, depth int) []byte {
	m.steps--
	if s == nil {
		for _, l := range over {
			if !l.weak {
				return append(dst, l.t.raw(l.i)...)
			}
		}
		return append(dst, `{}`...)
	}
	if len(s.all) > 0 && len(s.unions) == 0 && len(s.props) == 0 {
		return m.append(dst, s.all[0], name, over, depth)
	}
	// A scalar is taken whole.
	hint := ""
	for _, l := range over {
		n := &l.t.nodes[l.i]
		if n.kind&(form.Object|form.Array) != 0 {
			break
		}
		if l.weak && (lifecycle(name) || depth > 0 && isID(name)) {
			if isID(name) && hint == "" {
				hint = idPrefix(l.t.raw(l.i))
			}
			continue
		}
		if l.firm && (s.mask(0)&n.kind != 0 || s.mask(0)&form.String != 0 && n.kind == form.String) || l.t.valid(s, l.i) {
			return append(dst, l.t.raw(l.i)...)
		}
	}
	if s.enum != nil {
		return append(dst, m.pick(s, name)...)
	}
	if len(s.unions) > 0 {
		return m.union(dst, s, name, over, depth)
	}
	types := s.types
	if types == 0 {
		switch {
		case len(s.props) > 0 || s.additional != nil:
			types = form.Object
		case s.items != nil:
			types = form.Array
		}
	}
	for _, l := range over {
		if k := l.t.nodes[l.i].kind; k&types != 0 && k&(form.Object|form.Array) != 0 {
			types = k
			break
		}
	}
	if types&form.Null != 0 && types != form.Null && depth > 0 && !(types&(form.Object|form.Array) != 0 && len(over) > 0) {
		return append(dst, "null"...)
	}
	switch {
	case types&form.Object != 0:
		return m.object(dst, s, over, depth)
	case types&form.Array != 0:
		return m.array(dst, s, name, over, depth)
	case types&form.String != 0:
		return provider.AppendString(dst, m.text(s, name, hint))
	case types&form.Number != 0 && types&form.Int != 0:
		return m.number(dst, s, name, s.format == "unixtime")
	case types&form.Int != 0:
		return m.number(dst, s, name, true)
	case types&form.Bool != 0:
		if s.fallback != nil && kindOf(s.fallback) == form.Bool {
			return append(dst, s.fallback...)
		}
		return strconv.AppendBool(dst, name == "deleted" || name == "success")
	case types == form.Null:
		return append(dst, "null"...)
	}
	// Anything goes.
	for _, l := range over {
		if !l.weak {
			return append(dst, l.t.raw(l.i)...)
		}
	}
	if len(s.examples) > 0 {
		return append(dst, s.examples[0]...)
	}
	return append(dst, `{}`...)
}

// lifecycle members say what has become of an object: an example tells of another object.
func lifecycle(name string) bool {
	if strings.HasSuffix(name, "_at") || strings.HasSuffix(name, "status") || strings.Contains(name, "error") || strings.HasSuffix(name, "_until") {
		return true
	}
	switch name {
	case "incomplete_details", "required_action", "created", "usage", "deleted", "file", "result_files", "fine_tuned_model", "expires_after",
		"has_more", "trained_tokens", "estimated_finish", "first_id", "last_id", "next_page", "prev_page", "request_counts", "file_counts", "archived", "completed_at", "results_url",
		"metadata": // which is what clients say of their own objects
		return true
	}
	return false
}

func isID(name string) bool {
	return name == "id" || strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "_ids")
}

// firstStates are what something new is in, the first of them that exists; the next ones are what it comes to by and by.
var (
	firstStates = []string{"queued", "pending", "validating", "validating_files", "created", "in_progress", "running", "idle", "active", "enabled", "processed",
		"uploaded", "ready", "completed"}
	workStates = []string{"in_progress", "running", "processing"}
	doneStates = []string{"completed", "succeeded", "ended", "ready", "processed"}
)

// pick is a value of an enumeration.
func (m *maker) pick(s *Schema, name string) []byte {
	if name == "role" && s.words["assistant"] {
		return []byte(`"assistant"`)
	}
	if strings.HasSuffix(name, "status") || name == "state" {
		if s.words["incomplete"] && s.words["completed"] && !s.words["requires_action"] {
			return []byte(`"completed"`) // of an output: it is there
		}
		for _, w := range firstStates {
			if s.words[w] {
				return []byte(`"` + w + `"`)
			}
		}
	}
	if s.fallback != nil && slices.ContainsFunc(s.enum, func(e []byte) bool { return string(e) == string(s.fallback) }) {
		return s.fallback
	}
	if len(s.examples) > 0 && slices.ContainsFunc(s.enum, func(e []byte) bool { return string(e) == string(s.examples[0]) }) {
		return s.examples[0]
	}
	if s.enum[0][0] == 'n' && len(s.enum) > 1 {
		return s.enum[1]
	}
	return s.enum[0]
}

// union picks a branch: the one that a layer fits, then the one that a layer's tag names, then the first that is no null.
func (m *maker) union(dst []byte, s *Schema, name string, over []layer, depth int) []byte {
	u := s.unions[0]
	if len(s.props) > 0 {
		// Constraints on members beside the members themselves: make the members, which as a rule meets one of them.
		return m.object(dst, s, over, depth)
	}
	for _, l := range over {
		if l.weak && (lifecycle(name) || depth > 0 && isID(name)) {
			continue
		}
		n := &l.t.nodes[l.i]
		if n.kind&u.kinds == 0 {
			continue
		}
		for _, b := range u.branches {
			if b.mask(0)&n.kind != 0 && l.t.valid(b, l.i) {
				return m.append(dst, b, name, over, depth)
			}
		}
		if n.kind == form.Object && u.tag != "" {
			if tag := l.t.field(l.i, u.tag); tag >= 0 && l.t.nodes[tag].kind == form.String {
				if bs := u.byTag[string(l.t.bytes(tag))]; len(bs) > 0 {
					return m.append(dst, bs[0], name, over, depth)
				}
			}
		}
	}
	// Nothing fits as it is: the branch that has most of it, of what a client sent.
	for _, l := range over {
		n := &l.t.nodes[l.i]
		if l.weak || l.firm || n.kind&u.kinds == 0 {
			continue
		}
		var fit *Schema
		for _, b := range u.byKind[shift(n.kind)] {
			if fit == nil || l.t.validLax(b, l.i) {
				fit = b
			}
		}
		if fit != nil && n.kind&(form.Object|form.Array) != 0 {
			return m.append(dst, fit, name, over, depth)
		}
	}
	if u.kinds&form.Null != 0 && depth > 0 {
		return append(dst, "null"...)
	}
	best := -1
	for i, b := range u.branches {
		if b.mask(0) == form.Null || b.aside&4 != 0 {
			continue
		}
		if best < 0 || depth > deepest && b.simple() && !u.branches[best].simple() || m.steps < 0 && b.simple() {
			best = i
		}
		if depth <= deepest && m.steps >= 0 {
			break
		}
	}
	if best < 0 {
		best = 0
	}
	return m.append(dst, u.branches[best], name, over, depth+1)
}

func shift(kind uint8) int {
	k := 0
	for kind>>k != 1 {
		k++
	}
	return k
}

// simple schemas lead no deeper.
func (s *Schema) simple() bool {
	return s.mask(0)&(form.Object|form.Array) == 0
}

func (m *maker) object(dst []byte, s *Schema, over []layer, depth int) []byte {
	if depth < makerDepth {
		for _, t := range s.samples {
			if t.nodes[0].kind == form.Object {
				over = append(slices.Clip(over), layer{t: t, weak: true})
				break
			}
		}
	}
	if len(s.props) == 0 {
		for _, l := range over {
			if l.t.nodes[l.i].kind == form.Object && (!l.weak || s.additional != nil) && l.t.valid(s, l.i) {
				return append(dst, l.t.raw(l.i)...)
			}
		}
		return append(dst, `{}`...)
	}
	need := s.need()
	dst = append(dst, '{')
	first := true
	var room [4]layer
	for i := range s.props {
		p := s.props[i]
		p.required = p.required || need[p.name]
		sub := room[:0]
		for _, l := range over {
			v := l.t.field(l.i, p.name)
			if v < 0 {
				continue
			}
			if l.weak && !p.required && (lifecycle(p.name) || isID(p.name) || l.t.nodes[v].kind == form.Null) {
				continue
			}
			sub = append(sub, layer{t: l.t, i: v, firm: l.firm, weak: l.weak})
		}
		if !p.required && len(sub) == 0 && !m.shown(&p, depth) {
			continue
		}
		if !p.required && len(sub) > 0 && !m.fits(p.schema, sub) && !m.shown(&p, depth) {
			continue
		}
		if (depth > deepest || m.steps < 0) && !p.required {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = provider.AppendString(dst, p.name)
		dst = append(dst, ':')
		// sub is reused by the next member, and this one is done by then; deeper ones have room of their own.
		dst = m.append(dst, p.schema, p.name, append([]layer(nil), sub...), depth+1)
	}
	return append(dst, '}')
}

// need are the members that the first branch of a union wants beside those that are required anyway: one or the other of two.
func (s *Schema) need() map[string]bool {
	var names map[string]bool
	for _, u := range s.unions {
		for _, p := range u.branches[0].props {
			if p.required {
				if names == nil {
					names = map[string]bool{}
				}
				names[p.name] = true
			}
		}
	}
	return names
}

// fits says whether one of the layers can give the schema something.
func (m *maker) fits(s *Schema, over []layer) bool {
	mask := s.mask(0)
	for _, l := range over {
		k := l.t.nodes[l.i].kind
		if k&mask == 0 {
			continue
		}
		if k&(form.Object|form.Array) != 0 || l.firm || l.t.valid(s, l.i) {
			return true
		}
	}
	return false
}

// shown says whether an optional member is there without anything that asks for it.
func (m *maker) shown(p *prop, depth int) bool {
	if depth > 1 || p.schema.aside&5 != 0 {
		return false
	}
	switch p.name {
	case "id", "object", "data", "created_at", "type", "deleted", "name", "status":
		return true
	}
	return p.schema.fallback != nil && p.schema.fallback[0] != 'n' && p.schema.simple() && !lifecycle(p.name)
}

func (m *maker) array(dst []byte, s *Schema, name string, over []layer, depth int) []byte {
	dst = append(dst, '[')
	for _, l := range over {
		if l.t.nodes[l.i].kind != form.Array {
			continue
		}
		if l.weak && depth > makerDepth {
			continue
		}
		n := 0
		l.t.elements(l.i, func(v int) {
			if n == maxElements || s.maxItems >= 0 && n >= s.maxItems {
				return
			}
			if n > 0 {
				dst = append(dst, ',')
			}
			n++
			dst = m.append(dst, s.items, singular(name), []layer{{t: l.t, i: v, firm: l.firm, weak: l.weak}}, depth+1)
		})
		if n >= s.minItems {
			return append(dst, ']')
		}
	}
	n := s.minItems
	if n == 0 && depth < makerDepth && s.items != nil && (name == "data" || name == "results" || name == "content" || name == "choices" || name == "output") && m.steps > 0 {
		n = 1
	}
	if n > 100 {
		n = 100
	}
	for k := range n {
		if k > 0 {
			dst = append(dst, ',')
		}
		dst = m.append(dst, s.items, singular(name), nil, depth+1)
	}
	return append(dst, ']')
}

func singular(name string) string {
	switch {
	case strings.HasSuffix(name, "ies"):
		return name[:len(name)-3] + "y"
	case strings.HasSuffix(name, "ches"), strings.HasSuffix(name, "sses"):
		return name[:len(name)-2]
	case strings.HasSuffix(name, "s") && !strings.HasSuffix(name, "ss") && !strings.HasSuffix(name, "us"):
		return name[:len(name)-1]
	}
	return name
}

func (m *maker) number(dst []byte, s *Schema, name string, whole bool) []byte {
	lo, hi := math.Inf(-1), math.Inf(1)
	if s.min != nil {
		lo = *s.min
	}
	if s.above != nil {
		lo = math.Max(lo, *s.above+1e-6)
		if whole {
			lo = math.Max(lo, math.Floor(*s.above)+1)
		}
	}
	if s.max != nil {
		hi = *s.max
	}
	if s.below != nil {
		hi = math.Min(hi, *s.below-1e-6)
		if whole {
			hi = math.Min(hi, math.Ceil(*s.below)-1)
		}
	}
	var v float64
	switch {
	case s.format == "unixtime" || whole && (name == "created" || strings.HasSuffix(name, "_at") || strings.HasSuffix(name, "_time")):
		v = float64(m.now.Unix())
		if strings.HasPrefix(name, "expires") {
			v += 7 * 24 * 3600
		}
	case s.fallback != nil && kindOf(s.fallback)&form.Int != 0:
		v, _ = strconv.ParseFloat(string(s.fallback), 64) // it is a number: the generator wrote it
	case len(s.examples) > 0 && kindOf(s.examples[0])&form.Int != 0 && !isCount(name):
		v, _ = strconv.ParseFloat(string(s.examples[0]), 64) // likewise
	case isCount(name):
		v = 0
	case whole:
		v = float64(1 + m.r.IntN(100))
	default:
		v = float64(m.r.IntN(1000)) / 1000
	}
	v = math.Min(math.Max(v, lo), hi)
	if whole {
		return strconv.AppendInt(dst, int64(v), 10)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

// isCount is whether a member counts what has happened, which is nothing yet.
func isCount(name string) bool {
	switch name {
	case "completed", "failed", "cancelled", "canceled", "errored", "expired", "succeeded", "in_progress", "total", "processing", "progress", "usage_bytes", "index",
		"depth":
		return true
	}
	return strings.HasSuffix(name, "_index") || strings.HasSuffix(name, "_count")
}

// png is a picture of one black pixel.
const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB4iG8MwAAAABJRU5ErkJggg=="

var filler = strings.Fields("lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua")

func (m *maker) text(s *Schema, name, hint string) string {
	v := m.plainText(s, name, hint)
	if s.pattern != nil && !s.pattern.MatchString(v) {
		v = m.matching(s.pattern.String())
	}
	if s.maxLen >= 0 && len(v) > s.maxLen {
		v = strings.ToValidUTF8(v[:s.maxLen], "")
	}
	for s.minLen > 0 && len(v) < s.minLen {
		v += filler[m.r.IntN(len(filler))]
		if s.maxLen >= 0 && len(v) > s.maxLen {
			v = v[:s.maxLen]
		}
	}
	return v
}

// plainText is text for a member by its format and name. hint is what an identifier in an example begins with.
func (m *maker) plainText(s *Schema, name, hint string) string {
	switch s.format {
	case "date-time":
		at := m.now
		if strings.HasPrefix(name, "expires") {
			at = at.Add(24 * time.Hour)
		}
		return at.UTC().Format("2006-01-02T15:04:05Z")
	case "date":
		return m.now.UTC().Format(time.DateOnly)
	case "uuid":
		h := llmmock.ID(m.r, 32)
		return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
	case "email":
		return "user@example.com"
	case "uri", "url":
		return "https://example.com/" + llmmock.ID(m.r, 12)
	case "byte":
		return base64.StdEncoding.EncodeToString([]byte(llmmock.ID(m.r, 12)))
	}
	if isID(name) || strings.HasSuffix(name, "token") || strings.HasSuffix(name, "secret") {
		prefix := hint
		for _, x := range s.examples {
			if p := idPrefix(x); p != "" {
				prefix = p
				break
			}
		}
		if name == "id" && m.prefix != "" {
			prefix = m.prefix
		}
		if prefix == "" && name != "id" {
			prefix = strings.TrimSuffix(strings.TrimSuffix(name, "_id"), "_ids") + "_"
		}
		return prefix + llmmock.ID(m.r, 24)
	}
	if s.fallback != nil && s.fallback[0] == '"' {
		return unquote(s.fallback)
	}
	if len(s.examples) > 0 {
		if x := s.examples[m.r.IntN(len(s.examples))]; x[0] == '"' {
			return unquote(x)
		}
	}
	switch name {
	case "model":
		if m.vendor == llmmock.Anthropic {
			return "claude-sonnet-4-5"
		}
		return "gpt-4o"
	case "b64_json":
		return png
	case "currency":
		return "usd"
	case "filename":
		return "document.txt"
	case "mime_type", "content_type", "media_type":
		return "text/plain"
	case "version":
		return "1"
	case "arguments":
		return "{}"
	case "url":
		return "https://example.com/" + llmmock.ID(m.r, 12)
	}
	n := 2
	if name == "text" || name == "content" || name == "description" || name == "message" || name == "summary" {
		n = 8
	}
	var b strings.Builder
	for k := range n {
		if k > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(filler[m.r.IntN(len(filler))])
	}
	return b.String()
}

func unquote(x []byte) string {
	t, err := parseLong(x)
	if err != nil {
		return ""
	}
	return t.string(0)
}

// idPrefix is what an identifier such as file-abc123 begins with.
func idPrefix(x []byte) string {
	if len(x) < 4 || x[0] != '"' {
		return ""
	}
	v := unquote(x)
	i := strings.LastIndexAny(v, "-_")
	if i <= 0 || i > 24 || i == len(v)-1 || strings.ContainsAny(v, " /.{") {
		return ""
	}
	return v[:i+1]
}

// matching is a short text that a pattern takes.
func (m *maker) matching(pattern string) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	var b strings.Builder
	m.generate(&b, re.Simplify(), 0)
	return b.String()
}

func (m *maker) generate(b *strings.Builder, re *syntax.Regexp, depth int) {
	const most = 512
	if depth > 40 || b.Len() > most {
		return
	}
	times := func(lo, hi int) {
		n := lo
		if hi < 0 || hi > lo {
			n++ // one more than must be: nothing is often too little for people
		}
		for range n {
			m.generate(b, re.Sub[0], depth+1)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			b.WriteRune(r)
		}
	case syntax.OpCharClass:
		if len(re.Rune) == 0 {
			return
		}
		// Prefer what is readable.
		for range 40 {
			want := rune("abcdefghijklmnopqrstuvwxyz0123456789"[m.r.IntN(36)])
			for k := 0; k+1 < len(re.Rune); k += 2 {
				if re.Rune[k] <= want && want <= re.Rune[k+1] {
					b.WriteRune(want)
					return
				}
			}
		}
		b.WriteRune(re.Rune[0])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte("abcdefghijklmnopqrstuvwxyz"[m.r.IntN(26)])
	case syntax.OpStar:
		times(0, -1)
	case syntax.OpPlus:
		times(1, -1)
	case syntax.OpQuest:
		// Left out: optional.
	case syntax.OpRepeat:
		times(re.Min, re.Min)
	case syntax.OpConcat:
		for _, s := range re.Sub {
			m.generate(b, s, depth+1)
		}
	case syntax.OpAlternate:
		m.generate(b, re.Sub[m.r.IntN(len(re.Sub))], depth+1)
	case syntax.OpCapture:
		m.generate(b, re.Sub[0], depth+1)
	}
}
