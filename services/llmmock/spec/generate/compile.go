package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// compiler gives each different schema a number.
type compiler struct {
	doc   *object
	names map[string]int // of named schemas
	same  map[string]int // by content, of nameless ones
	out   []*form.Schema
	queue []string
	// scope is the named schema that is being compiled, which $recursiveRef means.
	scope string
}

func compile(doc *object, base string) ([]byte, error) {
	c := &compiler{doc: doc, names: map[string]int{}, same: map[string]int{}}
	var ops []form.Operation
	for _, path := range doc.obj("paths").keys {
		item := doc.obj("paths").obj(path)
		for _, method := range item.keys {
			switch method {
			case "get", "post", "put", "patch", "delete":
			default:
				continue
			}
			op, err := c.operation(base, path, method, item)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			ops = append(ops, *op)
		}
	}
	for len(c.queue) > 0 {
		name := c.queue[0]
		c.queue = c.queue[1:]
		c.scope = name
		s, err := c.schema(c.doc.obj("components").obj("schemas").get(name))
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
		s.Name = name
		c.out[c.names[name]] = s
	}
	var b bytes.Buffer
	info := doc.obj("info")
	if err := line(&b, form.Header{Title: info.str("title"), Version: info.str("version"), Schemas: len(c.out), Named: c.names}); err != nil {
		return nil, err
	}
	if err := line(&b, ops); err != nil {
		return nil, err
	}
	for _, s := range c.out {
		if err := line(&b, s); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func (c *compiler) operation(base, path, method string, item *object) (*form.Operation, error) {
	o := item.obj(method)
	op := &form.Operation{Method: strings.ToUpper(method), ID: o.str("operationId"), Query: -1}
	bare, beta := strings.CutSuffix(path, "?beta=true")
	op.Path, op.Beta = base+bare, beta

	query := newObject()
	var required []any
	for _, p := range append(slices.Clone(item.list("parameters")), o.list("parameters")...) {
		p := p.(*object)
		if p.str("in") != "query" {
			continue
		}
		// A parameter that is sent as name[] is the list name.
		name := strings.TrimSuffix(p.str("name"), "[]")
		query.set(name, p.get("schema"))
		if p.flag("required") {
			required = append(required, name)
		}
	}
	if len(query.keys) > 0 {
		s := newObject()
		s.set("type", "object")
		s.set("properties", query)
		s.set("required", required)
		n, err := c.id(s)
		if err != nil {
			return nil, err
		}
		op.Query = n
	}

	if r := o.obj("requestBody"); r != nil {
		op.Required = r.flag("required")
		for _, t := range r.obj("content").keys {
			n, err := c.content(r.obj("content").obj(t))
			if err != nil {
				return nil, err
			}
			op.Bodies = append(op.Bodies, form.Content{Type: t, Schema: n})
		}
	}
	responses := o.obj("responses")
	for _, status := range responses.keys {
		code, err := strconv.Atoi(status)
		if err != nil || code >= 400 {
			continue
		}
		r := responses.obj(status)
		content := r.obj("content")
		if content == nil {
			op.Answers = append(op.Answers, form.Content{Status: code, Schema: -1})
			continue
		}
		for _, t := range content.keys {
			n, err := c.content(content.obj(t))
			if err != nil {
				return nil, err
			}
			op.Answers = append(op.Answers, form.Content{Status: code, Type: t, Schema: n})
			if op.Example == nil && t == "application/json" {
				op.Example = example(content.obj(t).get("example"))
			}
		}
	}
	if meta := o.obj("x-oaiMeta"); meta != nil && op.Example == nil {
		op.Example = metaExample(meta.get("examples"))
	}
	return op, nil
}

// metaExample is the first answer that reads as JSON among the examples that documentation shows.
func metaExample(v any) json.RawMessage {
	switch v := v.(type) {
	case *object:
		return example(v.get("response"))
	case []any:
		for _, e := range v {
			if o, ok := e.(*object); ok {
				if x := example(o.get("response")); x != nil {
					return x
				}
			}
		}
	}
	return nil
}

func (c *compiler) content(m *object) (int, error) {
	if m.get("schema") == nil {
		return -1, nil
	}
	return c.id(m.get("schema"))
}

// maxExample keeps the embedded documents small. The longest useful example is a response with a few items.
const maxExample = 6 << 10

var trailingComma = regexp.MustCompile(`,(\s*[}\]])`)

// example is v, or what it says when it is a text of JSON, and nil when that is none.
func example(v any) json.RawMessage {
	var b []byte
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		b = trailingComma.ReplaceAll([]byte(strings.TrimSpace(v)), []byte("$1"))
		if len(b) == 0 || b[0] != '{' && b[0] != '[' {
			return nil
		}
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			return nil
		}
	}
	var out bytes.Buffer
	if json.Compact(&out, b) != nil || out.Len() > maxExample {
		return nil
	}
	return out.Bytes()
}

// annotations do not change what a schema allows.
func annotation(key string) bool {
	switch key {
	case "description", "title", "deprecated", "default", "example", "examples", "readOnly", "writeOnly", "externalDocs", "discriminator",
		"$recursiveAnchor", "optional", "min_items", "max_items":
		return true
	}
	return strings.HasPrefix(key, "x-")
}

// id is the number of a schema.
func (c *compiler) id(v any) (int, error) {
	if o, ok := v.(*object); ok {
		if name, ok := c.alias(o); ok {
			return c.named(name)
		}
	}
	s, err := c.schema(v)
	if err != nil {
		return 0, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	if n, ok := c.same[string(text)]; ok {
		return n, nil
	}
	n := len(c.out)
	c.same[string(text)] = n
	c.out = append(c.out, s)
	return n, nil
}

// alias is the name of the schema that o is nothing but a reference to.
func (c *compiler) alias(o *object) (string, bool) {
	name, ok := c.ref(o)
	if !ok || o.flag("nullable") {
		return "", false
	}
	for _, k := range o.keys {
		if k != "$ref" && k != "$recursiveRef" && !annotation(k) {
			return "", false
		}
	}
	return name, true
}

func (c *compiler) ref(o *object) (string, bool) {
	if r := o.str("$ref"); r != "" {
		return strings.TrimPrefix(r, "#/components/schemas/"), true
	}
	if o.str("$recursiveRef") == "#" {
		return c.scope, true
	}
	return "", false
}

func (c *compiler) named(name string) (int, error) {
	if n, ok := c.names[name]; ok {
		return n, nil
	}
	v := c.doc.obj("components").obj("schemas").get(name)
	if v == nil {
		return 0, fmt.Errorf("there is no schema %s", name)
	}
	if o, ok := v.(*object); ok {
		if other, ok := c.alias(o); ok && other != name {
			return c.named(other)
		}
	}
	n := len(c.out)
	c.names[name] = n
	c.out = append(c.out, nil)
	c.queue = append(c.queue, name)
	return n, nil
}

// flat resolves references, joins allOf and spells nullable out, of the outermost level only.
func (c *compiler) flat(o *object, depth int) (*object, error) {
	if depth > 40 {
		return nil, fmt.Errorf("references go in a circle")
	}
	if name, ok := c.ref(o); ok {
		target, _ := c.doc.obj("components").obj("schemas").get(name).(*object)
		if target == nil {
			return nil, fmt.Errorf("there is no schema %s", name)
		}
		rest := o.without("$ref", "$recursiveRef", "$recursiveAnchor")
		base, err := c.flat(target, depth+1)
		if err != nil {
			return nil, err
		}
		nullable := rest.flag("nullable")
		rest = rest.without("nullable")
		merged := merge(base, rest)
		if nullable {
			merged = orNull(merged)
		}
		return merged, nil
	}
	nullable := o.flag("nullable")
	out := o
	if all := o.list("allOf"); len(all) > 0 {
		var m *object
		for _, e := range all {
			eo, ok := e.(*object)
			if !ok {
				continue
			}
			f, err := c.flat(eo, depth+1)
			if err != nil {
				return nil, err
			}
			if m == nil {
				m = f
			} else {
				m = merge(m, f)
			}
		}
		out = merge(m, o.without("allOf", "nullable"))
	}
	if nullable {
		out = orNull(out.without("nullable"))
	}
	return out, nil
}

func orNull(o *object) *object {
	c := o.clone()
	switch t := o.get("type").(type) {
	case string:
		c.set("type", []any{t, "null"})
	case []any:
		c.set("type", append(slices.Clone(t), "null"))
	default:
		if o.get("anyOf") == nil && o.get("oneOf") == nil {
			break // any type, null among them
		}
		null := newObject()
		null.set("type", "null")
		w := newObject()
		w.set("anyOf", []any{o, null})
		return w
	}
	if e := o.list("enum"); e != nil && !slices.Contains(e, nil) {
		c.set("enum", append(slices.Clone(e), nil))
	}
	return c
}

// merge is what both a and b allow; where that cannot be said in one schema, what b allows.
func merge(a, b *object) *object {
	m := a.clone()
	for _, k := range b.keys {
		have, ok := m.m[k]
		if !ok {
			m.set(k, b.m[k])
			continue
		}
		switch k {
		case "properties":
			p := have.(*object).clone()
			for _, name := range b.obj(k).keys {
				v := b.obj(k).get(name)
				if old := p.get(name); old != nil {
					both := newObject()
					both.set("allOf", []any{old, v})
					v = both
				}
				p.set(name, v)
			}
			m.set(k, p)
		case "required":
			l := slices.Clone(have.([]any))
			for _, name := range b.list(k) {
				if !slices.Contains(l, name) {
					l = append(l, name)
				}
			}
			m.set(k, l)
		case "anyOf", "oneOf", "allOf":
			// Two unions at once hold together.
			wrap := func(v any) *object { w := newObject(); w.set(k, v); return w }
			both := newObject()
			both.set("type", m.get("type"))
			rest := append(slices.Clone(m.list("x-all")), wrap(b.m[k]))
			m.set("x-all", rest)
		case "additionalProperties":
			if have == false && b.m[k] == false {
				continue
			}
			m = m.without(k)
		default:
			m.set(k, b.m[k])
		}
	}
	// A part that is closed knows nothing of the properties of the others.
	if closed := a.get("additionalProperties") == false; closed != (b.get("additionalProperties") == false) {
		if a.obj("properties") != nil && b.obj("properties") != nil {
			m = m.without("additionalProperties")
		}
	}
	return m
}

var typeBits = map[string]uint8{"null": form.Null, "boolean": form.Bool, "integer": form.Int, "number": form.Number | form.Int,
	"string": form.String, "array": form.Array, "object": form.Object}

func (c *compiler) schema(v any) (*form.Schema, error) {
	s := &form.Schema{}
	switch v := v.(type) {
	case nil:
		return s, nil
	case bool:
		if !v {
			n, err := c.id(newObject())
			s.Not = &n
			return s, err
		}
		return s, nil
	case *object:
		o, err := c.flat(v, 0)
		if err != nil {
			return nil, err
		}
		return s, c.fill(s, o)
	}
	return nil, fmt.Errorf("%v is no schema", v)
}

func (c *compiler) fill(s *form.Schema, o *object) error {
	switch t := o.get("type").(type) {
	case string:
		s.Types = typeBits[t]
	case []any:
		for _, t := range t {
			s.Types |= typeBits[t.(string)]
		}
	}
	if o.get("type") != nil && s.Types == 0 {
		return fmt.Errorf("type %v", o.get("type"))
	}
	for _, e := range o.list("enum") {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		s.Enum = append(s.Enum, b)
	}
	if e, ok := o.m["const"]; ok {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		s.Enum = []json.RawMessage{b}
	}
	ref := func(v any) (*int, error) {
		n, err := c.id(v)
		return &n, err
	}
	required := map[string]bool{}
	for _, r := range o.list("required") {
		required[r.(string)] = true
	}
	if p := o.obj("properties"); p != nil {
		if s.Types == 0 && o.get("anyOf") == nil && o.get("oneOf") == nil {
			s.Types = form.Object
		}
		for _, name := range p.keys {
			n, err := c.id(p.get(name))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			s.Props = append(s.Props, form.Prop{Name: name, Schema: n, Required: required[name]})
			delete(required, name)
		}
	}
	names := make([]string, 0, len(required))
	for name := range required {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		n, err := c.id(newObject())
		if err != nil {
			return err
		}
		s.Props = append(s.Props, form.Prop{Name: name, Schema: n, Required: true})
	}
	var err error
	switch a := o.get("additionalProperties").(type) {
	case bool:
		s.Closed = !a
	case *object:
		if len(a.keys) > 0 {
			if s.Additional, err = ref(a); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		key string
		to  **int
	}{{"items", &s.Items}, {"propertyNames", &s.Keys}, {"not", &s.Not}} {
		if v := o.get(f.key); v != nil {
			if *f.to, err = ref(v); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		key string
		to  *[]int
	}{{"oneOf", &s.One}, {"anyOf", &s.Any}, {"x-all", &s.All}} {
		for _, v := range o.list(f.key) {
			n, err := c.id(v)
			if err != nil {
				return err
			}
			*f.to = append(*f.to, n)
		}
	}
	if d := o.obj("discriminator"); d != nil && len(s.One)+len(s.Any) > 0 {
		s.Tag = d.str("propertyName")
		if m := d.obj("mapping"); m != nil {
			s.Tags = map[string]int{}
			for _, value := range m.keys {
				r := newObject()
				r.set("$ref", m.str(value))
				if s.Tags[value], err = c.id(r); err != nil {
					return err
				}
			}
		}
	}
	for _, f := range []struct {
		key string
		to  **json.Number
	}{{"minimum", &s.Min}, {"maximum", &s.Max}, {"exclusiveMinimum", &s.Above}, {"exclusiveMaximum", &s.Below}} {
		switch v := o.get(f.key).(type) {
		case json.Number:
			*f.to = &v
		case bool: // the form of OpenAPI 3.0
			if v && f.key == "exclusiveMinimum" {
				s.Above, s.Min = s.Min, nil
			} else if v {
				s.Below, s.Max = s.Max, nil
			}
		}
	}
	for key, to := range map[string]*int{"minLength": &s.MinLen, "minItems": &s.MinItems, "minProperties": &s.MinProps} {
		if n, ok := number(o.get(key)); ok {
			*to = n
		}
	}
	for key, to := range map[string]**int{"maxLength": &s.MaxLen, "maxItems": &s.MaxItems, "maxProperties": &s.MaxProps} {
		if n, ok := number(o.get(key)); ok {
			*to = &n
		}
	}
	s.Format = o.str("format")
	if p := o.str("pattern"); p != "" {
		// What Go cannot read (a look-ahead) is not checked.
		if _, err := regexp.Compile(p); err == nil {
			s.Pattern = p
		}
	}
	examples := o.list("examples")
	if x, ok := o.m["example"]; ok {
		examples = []any{x}
	} else if meta := o.obj("x-oaiMeta"); meta != nil && len(examples) == 0 {
		examples = []any{meta.get("example")}
	}
	for _, x := range examples {
		text, isText := x.(string)
		if isText && (s.Types&form.String != 0 || s.Types == 0 && len(text) > 0 && text[0] != '{') {
			b, err := json.Marshal(text)
			if err != nil {
				return err
			}
			if len(b) <= maxExample {
				s.Example = append(s.Example, b)
			}
			continue
		}
		if b := example(x); b != nil {
			s.Example = append(s.Example, b)
		}
		if len(s.Example) == 4 {
			break
		}
	}
	if d, ok := o.m["default"]; ok {
		b, err := json.Marshal(d)
		if err != nil {
			return err
		}
		s.Default = b
	}
	if o.flag("writeOnly") {
		s.Aside |= 1
	}
	if o.flag("readOnly") {
		s.Aside |= 2
	}
	if o.flag("deprecated") {
		s.Aside |= 4
	}
	return nil
}

func number(v any) (int, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return int(f), err == nil
}
