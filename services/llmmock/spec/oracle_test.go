package spec

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"edgehold.internal/services/llmmock"
)

// oracle is a schema of a document for an independent validator. Formats are left out, as there are as many opinions as validators,
// and oneOf is anyOf: vendors take what fits two branches.
func (d *Document) oracle(t *testing.T) func(n int) *jsonschema.Schema {
	t.Helper()
	ref := func(n int) any { return map[string]any{"$ref": "#/$defs/" + strconv.Itoa(n)} }
	defs := map[string]any{}
	for i := range d.lines {
		w := d.wire(i)
		s := map[string]any{}
		var types []any
		for bit, name := range []string{"null", "boolean", "integer", "number", "string", "array", "object"} {
			if w.Types&(1<<bit) != 0 {
				types = append(types, name)
			}
		}
		if types != nil {
			s["type"] = types
		}
		if w.Enum != nil {
			var l []any
			for _, e := range w.Enum {
				v, err := jsonschema.UnmarshalJSON(bytes.NewReader(e))
				if err != nil {
					t.Fatal(err)
				}
				l = append(l, v)
			}
			s["enum"] = l
		}
		props, required := map[string]any{}, []any{}
		for _, p := range w.Props {
			props[p.Name] = ref(p.Schema)
			if p.Required {
				required = append(required, p.Name)
			}
		}
		s["properties"], s["required"] = props, required
		if w.Closed {
			s["additionalProperties"] = false
		}
		for name, n := range map[string]*int{"additionalProperties": w.Additional, "propertyNames": w.Keys, "items": w.Items, "not": w.Not} {
			if n != nil {
				s[name] = ref(*n)
			}
		}
		var all []any
		for _, n := range w.All {
			all = append(all, ref(n))
		}
		for _, l := range [][]int{w.One, w.Any} {
			var branches []any
			for _, n := range l {
				branches = append(branches, ref(n))
			}
			if branches != nil {
				all = append(all, map[string]any{"anyOf": branches})
			}
		}
		if all != nil {
			s["allOf"] = all
		}
		for name, n := range map[string]*json.Number{"minimum": w.Min, "maximum": w.Max, "exclusiveMinimum": w.Above, "exclusiveMaximum": w.Below} {
			if n != nil {
				s[name] = *n
			}
		}
		for name, n := range map[string]int{"minLength": w.MinLen, "minItems": w.MinItems, "minProperties": w.MinProps} {
			s[name] = json.Number(strconv.Itoa(n))
		}
		for name, n := range map[string]*int{"maxLength": w.MaxLen, "maxItems": w.MaxItems, "maxProperties": w.MaxProps} {
			if n != nil {
				s[name] = json.Number(strconv.Itoa(*n))
			}
		}
		if w.Pattern != "" {
			s["pattern"] = w.Pattern
		}
		defs[strconv.Itoa(i)] = s
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:///d.json", map[string]any{"$defs": defs}); err != nil {
		t.Fatal(err)
	}
	return func(n int) *jsonschema.Schema {
		s, err := c.Compile("mem:///d.json#/$defs/" + strconv.Itoa(n))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// mutate changes one thing somewhere in a value.
func mutate(r *rand.Rand, v any) any {
	odd := []any{nil, true, json.Number("0"), json.Number("-1"), json.Number("1.5"), json.Number("99999999"), "", "x", []any{}, map[string]any{}, []any{"a"}, map[string]any{"type": "text"}}
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 || r.IntN(6) == 0 {
			break
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		k := keys[r.IntN(len(keys))]
		switch r.IntN(8) {
		case 0:
			delete(v, k)
		case 1:
			v["unheard_of"] = odd[r.IntN(len(odd))]
		default:
			v[k] = mutate(r, v[k])
		}
		return v
	case []any:
		if len(v) == 0 || r.IntN(6) == 0 {
			break
		}
		if r.IntN(5) == 0 {
			return append(v, v[0])
		}
		i := r.IntN(len(v))
		v[i] = mutate(r, v[i])
		return v
	}
	return odd[r.IntN(len(odd))]
}

// Made-up bodies and answers, and what becomes of them when things in them are changed, are right or wrong for an independent
// validator just as they are for ours.
func TestOracle(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		d := document(t, v)
		compile := d.oracle(t)
		agreed := map[bool]int{}
		for _, op := range d.Operations() {
			op.ready()
			var schemas []int
			for _, c := range append(slices.Clone(op.wire.Bodies), op.wire.Answers...) {
				if c.Schema >= 0 {
					schemas = append(schemas, c.Schema)
				}
			}
			for _, n := range schemas {
				d.mu.Lock()
				ours := d.schema(n)
				d.mu.Unlock()
				theirs := compile(n)
				r := rand.New(rand.NewPCG(uint64(n), 7))
				for round := range rounds {
					text := ours.Synthesize(r, instant)
					value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
					if err != nil {
						t.Fatal(err)
					}
					for range round {
						value = mutate(r, value)
					}
					if text, err = json.Marshal(value); err != nil {
						t.Fatal(err)
					}
					want := theirs.Validate(value)
					vs := ours.validate(text)
					if len(vs) > 0 && vs[0].Fault == WrongFormat && want == nil {
						continue // a format
					}
					agreed[want == nil]++
					if (want == nil) != (len(vs) == 0) {
						t.Errorf("%s %s, schema %d: we say %v, they say %v of %.500s", v, op.Pattern(), n, vs, want, text)
						break
					}
				}
			}
		}
		if agreed[true] < 100 || agreed[false] < 100 {
			t.Errorf("%s: only %v were tried", v, agreed)
		}
	}
}

// Every schema of every document can be read.
func TestDocuments(t *testing.T) {
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		d := document(t, v)
		for i := range d.lines {
			d.mu.Lock()
			s := d.schema(i)
			d.mu.Unlock()
			if s == nil {
				t.Errorf("%s: schema %d is nil", v, i)
			}
			for _, c := range append(append(slices.Clone(d.wire(i).Any), d.wire(i).One...), d.wire(i).All...) {
				if c < 0 || c >= len(d.lines) {
					t.Errorf("%s: schema %d refers to %d", v, i, c)
				}
			}
		}
		if n := len(d.Operations()); n < 300 {
			t.Errorf("%s has %d operations", v, n)
		}
	}
	if _, err := Load(llmmock.Gemini); err == nil {
		t.Error("there is a document of Gemini")
	}
	if _, err := read(llmmock.OpenAI, []byte("{}")); err == nil {
		t.Error("a document without operations was read")
	}
}
