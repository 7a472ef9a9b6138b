package schema

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// schemas are what clients send, and the corners of the drafts.
var schemas = []string{
	`{}`, `true`, `{"type":"object"}`, `{"type":"string"}`, `{"type":"integer"}`, `{"type":"number"}`, `{"type":"boolean"}`, `{"type":"null"}`, `{"type":"array"}`,
	`{"type":["string","null"]}`, `{"const":{"a":[1,2]}}`, `{"enum":[1,"two",null,{"three":3}]}`, `{"type":"string","enum":[1,"two"]}`,
	`{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":120}},"required":["name","age"],"additionalProperties":false}`,
	`{"type":"object","properties":{"steps":{"type":"array","items":{"type":"object","properties":{"explanation":{"type":"string"},"output":{"type":"string"}},
		"required":["explanation","output"],"additionalProperties":false}},"final_answer":{"type":"string"}},"required":["steps","final_answer"],"additionalProperties":false}`,
	`{"$defs":{"node":{"type":"object","properties":{"value":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},
		"required":["value","next"],"additionalProperties":false}},"$ref":"#/$defs/node"}`,
	`{"definitions":{"a/b":{"type":"string","minLength":3}},"properties":{"x":{"$ref":"#/definitions/a~1b"}},"required":["x"]}`,
	`{"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#"}}},"required":["children"],"additionalProperties":false}`,
	`{"$defs":{"x":{"$anchor":"here","type":"integer"}},"type":"array","items":{"$ref":"#here"},"minItems":2}`,
	`{"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"n":{"type":"integer"}},"required":["kind","n"],"additionalProperties":false},
		{"type":"object","properties":{"kind":{"const":"b"},"s":{"type":"string"}},"required":["kind","s"],"additionalProperties":false}]}`,
	`{"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"string"}},"required":["b"]}]}`,
	`{"anyOf":[{"type":"integer","minimum":1000},{"type":"string","maxLength":2}]}`,
	`{"type":"string","minLength":30,"maxLength":32}`, `{"type":"string","maxLength":0}`, `{"type":"string","pattern":"^[A-Z]{2}-\\d{4}$"}`,
	`{"type":"string","pattern":"^(foo|bar)+baz?$","minLength":6}`, `{"type":"string","pattern":"colou?r"}`,
	`{"type":"string","format":"date-time"}`, `{"type":"string","format":"uuid"}`, `{"type":"string","format":"email"}`, `{"type":"string","format":"ipv6"}`,
	`{"type":"string","format":"duration"}`, `{"type":"string","format":"uri"}`, `{"type":"string","format":"hostname"}`, `{"type":"string","format":"time"}`,
	`{"type":"integer","multipleOf":7,"minimum":50}`, `{"type":"number","multipleOf":0.01,"minimum":0,"maximum":1}`, `{"type":"integer","minimum":5,"maximum":5}`,
	`{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1}`, `{"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":2}`, `{"type":"number","minimum":0.001,"maximum":0.002}`,
	`{"type":"integer","minimum":-10,"maximum":-5}`, `{"type":"number","maximum":-1e6}`, `{"type":"integer","multipleOf":2.5}`,
	`{"type":"array","items":{"type":"integer"},"minItems":3,"maxItems":3}`, `{"type":"array","items":{"enum":["a","b","c"]},"uniqueItems":true,"minItems":3}`,
	`{"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":false}`, `{"type":"array","maxItems":0}`,
	`{"type":"array","contains":{"const":"x"},"items":{"type":"string"}}`,
	`{"type":"object","additionalProperties":{"type":"integer"},"minProperties":3}`, `{"type":"object","minProperties":2,"properties":{"a":{"type":"string"},"b":{"type":"string"}}}`,
	`{"type":"object","required":["anything"]}`, `{"type":"object","patternProperties":{"^s_":{"type":"string"}},"properties":{"s_x":{"minLength":2}},"required":["s_x"]}`,
	`{"not":{"type":"string"}}`, `{"type":"object","properties":{"a":{"type":"boolean"}},"if":{"properties":{"a":{"const":true}},"required":["a"]},"then":{"required":["b"]},"properties":{"a":{"type":"boolean"},"b":{"type":"string"}}}`,
	`{"type":"object","properties":{"created_at":{"type":"string","format":"date"},"id":{"type":"string"},"city":{"type":"string"},"email":{"type":"string"},"url":{"type":"string"},"user_id":{"type":"string"}},
		"required":["created_at","id","city","email","url","user_id"]}`,
	`{"type":"string","default":"metric","description":"x"}`, `{"type":"integer","default":7,"minimum":1}`, `{"type":"integer","default":"seven"}`, `{"type":"string","examples":[1,"two"]}`,
}

func TestInstancesAreValid(t *testing.T) {
	for _, raw := range schemas {
		s, err := Parse([]byte(raw))
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		for i := range uint64(100) {
			got := s.Append(nil, rand.New(rand.NewPCG(1, i)))
			if !s.Valid(got) {
				t.Errorf("%s: %s is not valid", raw, got)
				break
			}
			if again := s.Append([]byte("x"), rand.New(rand.NewPCG(1, i))); string(again) != "x"+string(got) {
				t.Errorf("%s: %s and then %s", raw, got, again)
			}
		}
	}
}

// Schemas of vendors that no draft has: an instance is made all the same.
func TestForeignSchemas(t *testing.T) {
	for raw, want := range map[string]func(any) bool{
		`{"type":"OBJECT","properties":{"n":{"type":"INTEGER","nullable":true},"s":{"type":"STRING","enum":["x"]}},"required":["n","s"]}`: func(v any) bool {
			m, ok := v.(map[string]any)
			_, isNumber := m["n"].(float64)
			return ok && isNumber && m["s"] == "x"
		},
		`{"type":"number","minimum":3,"exclusiveMinimum":true,"maximum":4}`: func(v any) bool { f, ok := v.(float64); return ok && f > 3 && f <= 4 },
		`{"$ref":"https://example.com/other.json"}`:                         func(any) bool { return true },
		`{"$ref":"#/nowhere"}`:                                              func(any) bool { return true },
		`{"$ref":"#"}`:                                                      func(any) bool { return true },
		`{"type":"string","pattern":"^(?=x)[a-z]+$"}`:                       func(v any) bool { _, ok := v.(string); return ok },
		`{"type":"array","items":{"type":"string"},"minItems":100000000}`:   func(v any) bool { l, ok := v.([]any); return ok && len(l) <= longest },
		`{"type":"string","minLength":100000000}`:                           func(v any) bool { s, ok := v.(string); return ok && len(s) <= longest },
		`{"type":"object","minProperties":1000000}`:                         func(v any) bool { m, ok := v.(map[string]any); return ok && len(m) <= longest },
		`false`: func(v any) bool { return v == nil },
		`{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}`: func(v any) bool { _, ok := v.(map[string]any); return ok },
	} {
		s, err := Parse([]byte(raw))
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		for i := range uint64(20) {
			got := s.Append(nil, rand.New(rand.NewPCG(1, i)))
			var v any
			if err := json.Unmarshal(got, &v); err != nil || !want(v) {
				t.Errorf("%s: got %.200s (%v)", raw, got, err)
			}
		}
	}
}

// Schemas that are made to take forever, or all memory.
func TestHostileSchemas(t *testing.T) {
	deep := `{"type":"integer"}`
	for range 6 {
		deep = `{"type":"array","minItems":4096,"items":` + deep + `}`
	}
	var props, required []string
	for i := range 200 {
		props, required = append(props, fmt.Sprintf(`"p%d":{"$ref":"#"}`, i)), append(required, fmt.Sprintf(`"p%d"`, i))
	}
	chain := func(keyword string) string {
		defs := []string{`"d40":{"type":"integer"}`}
		for i := range 40 {
			defs = append(defs, fmt.Sprintf(`"d%d":{%q:[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, keyword, i+1, i+1))
		}
		return `{"type":"string","$defs":{` + strings.Join(defs, ",") + `},"$ref":"#/$defs/d0"}`
	}
	for name, raw := range map[string]string{
		"lists of lists": deep,
		"required":       `{"type":"object","properties":{` + strings.Join(props, ",") + `},"required":[` + strings.Join(required, ",") + `]}`,
		"alternatives":   `{"anyOf":[{"type":"object","properties":{` + strings.Join(props, ",") + `},"required":[` + strings.Join(required, ",") + `]},{"$ref":"#"}]}`,
		"allOf":          chain("allOf"), "anyOf": chain("anyOf"), "oneOf": chain("oneOf"),
		"itself": `{"allOf":[{"$ref":"#"},{"$ref":"#"}]}`,
		"stars":  `{"type":"string","pattern":"` + strings.Repeat("(", 400) + strings.Repeat(")*", 400) + `"}`,
	} {
		start := time.Now()
		s, err := Parse([]byte(raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := s.Append(nil, rand.New(rand.NewPCG(1, 1)))
		if !json.Valid(got) || len(got) > 2*lastSize {
			t.Errorf("%s: %d bytes: %.100s", name, len(got), got)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s took %s", name, d)
		}
	}
}

func TestPropertiesKeepTheirOrder(t *testing.T) {
	s, _ := Parse([]byte(`{"properties":{"z":{"type":"integer"},"a":{"type":"integer"},"m":{"type":"integer"}},"required":["m","a","z"]}`))
	got := string(s.Append(nil, rand.New(rand.NewPCG(1, 1))))
	if z, a, m := strings.Index(got, `"z"`), strings.Index(got, `"a"`), strings.Index(got, `"m"`); z > a || a > m {
		t.Errorf("got %s", got)
	}
}

// Trees of schemas that can be fulfilled.
func TestAnySchema(t *testing.T) {
	leaf := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			low := rapid.IntRange(-50, 50).Draw(t, "low")
			return fmt.Sprintf(`{"type":"integer","minimum":%d,"maximum":%d}`, low, low+rapid.IntRange(0, 50).Draw(t, "span"))
		}),
		rapid.Custom(func(t *rapid.T) string {
			low := rapid.IntRange(0, 20).Draw(t, "low")
			return fmt.Sprintf(`{"type":"string","minLength":%d,"maxLength":%d}`, low, low+rapid.IntRange(0, 20).Draw(t, "span"))
		}),
		rapid.SampledFrom([]string{`{"type":"boolean"}`, `{"enum":["a",2,null]}`, `{"type":"number"}`, `{"type":"string","format":"date"}`, `{"const":1}`}),
	)
	var tree func(depth int) *rapid.Generator[string]
	tree = func(depth int) *rapid.Generator[string] {
		if depth == 0 {
			return leaf
		}
		sub := tree(depth - 1)
		return rapid.OneOf(leaf,
			rapid.Custom(func(t *rapid.T) string {
				names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "city", "id", "note"}), 1, 4, rapid.ID).Draw(t, "names")
				var props, required []string
				for _, n := range names {
					props = append(props, fmt.Sprintf("%q:%s", n, sub.Draw(t, n)))
					if rapid.Bool().Draw(t, "required") {
						required = append(required, fmt.Sprintf("%q", n))
					}
				}
				return fmt.Sprintf(`{"type":"object","properties":{%s},"required":[%s],"additionalProperties":%v}`, strings.Join(props, ","), strings.Join(required, ","), rapid.Bool().Draw(t, "more"))
			}),
			rapid.Custom(func(t *rapid.T) string {
				low := rapid.IntRange(0, 3).Draw(t, "low")
				return fmt.Sprintf(`{"type":"array","items":%s,"minItems":%d,"maxItems":%d}`, sub.Draw(t, "items"), low, low+rapid.IntRange(0, 3).Draw(t, "span"))
			}),
			rapid.Custom(func(t *rapid.T) string {
				return fmt.Sprintf(`{"anyOf":[%s,%s]}`, sub.Draw(t, "one"), sub.Draw(t, "other"))
			}))
	}
	rapid.Check(t, func(t *rapid.T) {
		raw := tree(3).Draw(t, "schema")
		s, err := Parse([]byte(raw))
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		got := s.Append(nil, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)))
		if !s.Valid(got) {
			t.Fatalf("%s: %s is not valid", raw, got)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"": "a value must begin here", "{": "member's name", "[1,]": "a value must begin", `"x"`: "a schema is an object or a boolean", "{} {}": "nothing may follow",
		`{"a" 1}`: "colon", `{"a":tru}`: "only true", `{"a":01}`: "comma", `{"a":"\x"}`: "cannot be escaped", "{\"a\":\"\n\"}": "control character", `{"a":"`: "no end",
		strings.Repeat("[", 1000): "nested deeper", "{\"a\":[" + strings.Repeat("1,", 300_000) + "1]}": "more than 200000",
	} {
		if _, err := Parse([]byte(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", raw, err, want)
		}
	}
}

// plain is the value as encoding/json has it.
func (v *Value) plain() any {
	switch v.Kind {
	case True, False:
		return v.Kind == True
	case Number:
		n, _ := v.Number()
		return n
	case String:
		return v.Text
	case Array:
		l := []any{}
		for i := range v.Items {
			l = append(l, v.Items[i].plain())
		}
		return l
	case Object:
		m := map[string]any{}
		for name, x := range v.Members() {
			m[name] = x.plain()
		}
		return m
	}
	return nil
}

func FuzzSchema(f *testing.F) {
	for _, s := range schemas {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"a":"\ud83d\ude00\ud83dx\u0041\/\b","b":-1.5e-3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseValue(data)
		if (err == nil) != json.Valid(data) {
			if !json.Valid(data) || err != nil && !strings.Contains(err.Error(), "nested deeper") {
				t.Fatalf("%q: got %v, and encoding/json says %v", data, err, json.Valid(data))
			}
		}
		if err != nil {
			return
		}
		var want any
		if json.Unmarshal(data, &want) == nil && strings.ToValidUTF8(string(data), "") == string(data) && !reflect.DeepEqual(v.plain(), want) {
			t.Fatalf("%q: got %v, want %v", data, v.plain(), want)
		}
		s, err := Parse(data)
		if err != nil {
			return
		}
		if got := s.Append(nil, rand.New(rand.NewPCG(1, 1))); !json.Valid(got) {
			t.Fatalf("%q: the instance %q is no JSON", data, got)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, i := range []int{13, 14, 15} {
		s, _ := Parse([]byte(schemas[i]))
		b.Run(fmt.Sprint(i), func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			r := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				dst = s.Append(dst[:0], r)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	data := []byte(schemas[14])
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ParseValue(data); err != nil {
			b.Fatal(err)
		}
	}
}
