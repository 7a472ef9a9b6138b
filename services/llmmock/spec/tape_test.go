package spec

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// value is a tape's value as encoding/json has it.
func value(t *tape, i int) any {
	switch t.nodes[i].kind {
	case form.Null:
		return nil
	case form.Bool:
		return string(t.raw(i)) == "true"
	case form.String:
		return string([]rune(t.string(i)))
	case form.Array:
		l := []any{}
		t.elements(i, func(v int) { l = append(l, value(t, v)) })
		return l
	case form.Object:
		m := map[string]any{}
		t.members(i, func(k, v int) { m[string([]rune(t.string(k)))] = value(t, v) })
		return m
	}
	return json.Number(t.raw(i))
}

var tapeSeeds = []string{
	`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"n":1,"x":-1.5e3,"y":[],"z":{}}`,
	`"\ud83d\ude00 \u00e9 \\ \" \/ \b\f\n\r\t"`, `"\ud83d"`, `"\ude00x"`, `"\ud83d\u0041"`, `[1,2.0,0,-0,1e2,true,false,null]`, ` { "a" : [ ] } `, `{"a":1,"a":2}`,
	``, `{`, `[1,]`, `{"a":}`, `01`, `1.`, `-`, `"\x"`, `"` + "\n" + `"`, `nul`, `[1] 2`, "\xff", `"` + "\xff" + `"`, strings.Repeat("[", 200), `{"a" 1}`, `{1:2}`, `1e999`,
}

func FuzzTape(f *testing.F) {
	for _, s := range tapeSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tp, err := parse(text)
		if errors.Is(err, errDepth) {
			return
		}
		if valid := json.Valid(text); valid != (err == nil) {
			t.Fatalf("%q: %v, and encoding/json says %v", text, err, valid)
		}
		if err != nil {
			return
		}
		defer tp.free()
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if got := value(tp, 0); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %#v, want %#v", text, got, want)
		}
	})
}

func TestTapeDepth(t *testing.T) {
	deep := strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1)
	if _, err := parse([]byte(deep)); !errors.Is(err, errDepth) {
		t.Errorf("a text of depth %d: %v", maxDepth+1, err)
	}
	if tp, err := parse([]byte(deep[5 : len(deep)-1])); err != nil {
		t.Errorf("a text of depth %d: %v", maxDepth, err)
	} else {
		tp.free()
	}
}
