package jsonread_test

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock/provider/jsonread"
)

// value reads any value as encoding/json would.
func value(r *jsonread.Reader) any {
	switch r.Peek() {
	case jsonread.Null:
		r.Null()
	case jsonread.Bool:
		return r.Bool()
	case jsonread.Number:
		return json.Number(r.Raw())
	case jsonread.String:
		return r.String()
	case jsonread.Array:
		a := []any{}
		r.Array(func(int) { a = append(a, value(r)) })
		return a
	case jsonread.Object:
		o := map[string]any{}
		r.Object(func(key []byte) { k := string(key); o[k] = value(r) })
		return o
	case jsonread.None:
		r.Skip()
	}
	return nil
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.5e3,-0,true,false,null,"x\n\u00e9\ud83d\ude00"],"b":{"c":{}}}`, `"\ud83d"`, `"\ud83dx\ude00"`, "\"\xff\xc3\"", `01`, `1.`, `-`, `{"a":1,}`,
		`[1,]`, `[1 2]`, `{"a" 1}`, `nul`, `tru`, `"`, `"\`, `"\u12`, "\"a\tb\"", ` {} `, `{}{}`, `"0123456789abcdef\"0123456"`, `"ééééééééééé"`, `{"\u0061":1,"a":2}`,
		strings.Repeat("[", 300) + strings.Repeat("]", 300), ``, `1e400`, `{"a":"0123456\\"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := string(body)
		r := jsonread.New(body)
		got := value(&r)
		err := r.Close()

		s := jsonread.New(body)
		s.Skip()
		if skipped := s.Close(); (skipped == nil) != (err == nil) {
			t.Fatalf("Skip says %v and reading %v of %q", skipped, err, body)
		}
		if string(body) != before {
			t.Fatalf("the body was changed")
		}
		valid := json.Valid(body)
		if err != nil {
			if valid && !err.Deep {
				t.Fatalf("%v, but encoding/json reads %q", err, body)
			}
			return
		}
		if !valid {
			t.Fatalf("%q was read, encoding/json does not", body)
		}
		d := json.NewDecoder(strings.NewReader(before))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q read as %#v, want %#v", body, got, want)
		}
	})
}

func TestInt(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int
		ok   bool
	}{
		{"0", 0, true}, {"-7", -7, true}, {"1024", 1024, true}, {"2.0", 2, true}, {"1e3", 1000, true}, {"1.5", 0, false},
		{"123456789012345678901234567890", 0, false}, {"1e300", 0, false}, {`"1"`, 0, false}, {"null", 0, false},
	} {
		r := jsonread.New([]byte(c.in))
		got := r.Int()
		if err := r.Close(); got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %d, %v", c.in, got, err)
		}
	}
}

func TestErrorsKnowWhere(t *testing.T) {
	body := []byte(`{"messages":[{"role":"user"},{"content":[{"text":5}]}]}`)
	r := jsonread.New(body)
	r.Object(func([]byte) {
		r.Array(func(int) {
			r.Object(func(key []byte) {
				if string(key) == "content" {
					r.Array(func(int) {
						r.Object(func([]byte) { _ = r.String() })
					})
				}
			})
		})
	})
	err := r.Close()
	if err == nil || err.Want != jsonread.String || err.Got != jsonread.Number || err.Syntax {
		t.Fatalf("%v", err)
	}
	var at []string
	for _, s := range err.Path() {
		if s.Index >= 0 {
			at = append(at, strconv.Itoa(s.Index))
		} else {
			at = append(at, s.Key)
		}
	}
	if got := strings.Join(at, "."); got != "messages.1.content.0.text" {
		t.Errorf("at %s", got)
	}
	if got := body[err.Offset]; got != '5' {
		t.Errorf("offset at %c", got)
	}
}

func TestFail(t *testing.T) {
	r := jsonread.New([]byte(`{"a":[1]}`))
	r.Object(func([]byte) {
		r.Array(func(int) { r.FailAt("b", "Field required") })
	})
	err := r.Close()
	if err == nil || err.Message != "Field required" || len(err.Path()) != 3 || err.Path()[2].Key != "b" {
		t.Fatalf("%v %v", err, err.Path())
	}
	if r.Int() != 0 || r.String() != "" || r.Bool() || r.Null() || r.Raw() != nil || r.Float() != 0 || r.Peek() != jsonread.None {
		t.Error("something was read after an error")
	}
}

func TestDepth(t *testing.T) {
	for n, ok := range map[int]bool{jsonread.MaxDepth: true, jsonread.MaxDepth + 1: false, 1_000_000: false} {
		r := jsonread.New([]byte(strings.Repeat("[", n) + strings.Repeat("]", n)))
		r.Skip()
		if err := r.Close(); (err == nil) != ok || !ok && !err.Deep {
			t.Errorf("%d deep: %v", n, err)
		}
	}
}

func BenchmarkSkip(b *testing.B) {
	body := []byte(`{"model":"m","max_tokens":1024,"messages":[{"role":"user","content":"` + strings.Repeat("what is the weather today? ", 30) + `"}]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r := jsonread.New(body)
		r.Skip()
		if r.Close() != nil {
			b.Fatal("not read")
		}
	}
}
