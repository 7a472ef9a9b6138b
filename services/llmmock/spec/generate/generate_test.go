package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// What is embedded is made of what is in source, and the same each time.
func TestCurrent(t *testing.T) {
	for _, d := range documents {
		b, err := build("../data", d.base, d.sources)
		if err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(filepath.Join("../data", d.out))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, have) {
			t.Errorf("%s is not what its sources make; run go generate ./spec", d.out)
		}
	}
}

// one compiles a schema of a document with some named ones, and is it with those that it refers to.
func one(t *testing.T, schema string) (*form.Schema, []*form.Schema) {
	t.Helper()
	v, err := decode([]byte(`{"components":{"schemas":{
		"Name":{"type":"string","maxLength":5},
		"Base":{"type":"object","properties":{"id":{"type":"string"},"n":{"type":"integer"}},"required":["id"]},
		"Closed":{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false},
		"Tree":{"type":"object","properties":{"children":{"type":"array","items":{"$recursiveRef":"#"}}}},
		"Alias":{"$ref":"#/components/schemas/Name"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := &compiler{doc: v.(*object), names: map[string]int{}, same: map[string]int{}}
	s, err := decode([]byte(schema))
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.id(s)
	if err != nil {
		t.Fatal(err)
	}
	for len(c.queue) > 0 {
		name := c.queue[0]
		c.queue, c.scope = c.queue[1:], name
		if c.out[c.names[name]], err = c.schema(c.doc.obj("components").obj("schemas").get(name)); err != nil {
			t.Fatal(err)
		}
	}
	return c.out[n], c.out
}

func TestCompile(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{`{"type":"string","nullable":true}`, `{"t":17}`},
		{`{"type":"string","enum":["a"],"nullable":true}`, `{"t":17,"e":["a",null]}`},
		{`{"const":5}`, `{"e":[5]}`},
		{`{"type":"number"}`, `{"t":12}`},
		{`{"type":["integer","null"]}`, `{"t":5}`},
		{`{"$ref":"#/components/schemas/Name","description":"said elsewhere"}`, `{"t":16,"xl":5}`},
		{`{"$ref":"#/components/schemas/Alias"}`, `{"t":16,"xl":5}`},
		{`{"$ref":"#/components/schemas/Name","nullable":true}`, `{"t":17,"xl":5}`},
		{`{"allOf":[{"$ref":"#/components/schemas/Base"},{"properties":{"x":{"type":"boolean"}},"required":["x"]}]}`, `{"t":64,"p":[["id",0,1],["n",1],["x",2,1]]}`},
		{`{"allOf":[{"$ref":"#/components/schemas/Closed"},{"properties":{"b":{"type":"string"}}}]}`, `{"t":64,"p":[["a",0],["b",0]]}`},
		{`{"type":"object","required":["z"]}`, `{"t":64,"p":[["z",0,1]]}`},
		{`{"type":"object","additionalProperties":{"type":"string"}}`, `{"t":64,"d":0}`},
		{`{"type":"integer","minimum":0,"exclusiveMinimum":true}`, `{"t":4,"ab":0}`},
		{`{"type":"string","pattern":"^a(?=b)"}`, `{"t":16}`},
		{`{"type":"string","example":"x","default":"y"}`, `{"t":16,"x":["x"],"v":"y"}`},
		{`{"type":"object","x-oaiMeta":{"example":"{\"a\": 1,}"}}`, `{"t":64,"x":[{"a":1}]}`},
	} {
		s, _ := one(t, c.schema)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != c.want {
			t.Errorf("%s becomes %s, want %s", c.schema, b, c.want)
		}
	}
	tree, all := one(t, `{"$ref":"#/components/schemas/Tree"}`)
	if items := all[tree.Props[0].Schema].Items; items == nil || all[*items] != tree {
		t.Errorf("a tree's children are no trees: %+v", tree)
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{`{"$ref":"#/components/schemas/Nobody"}`, "no schema Nobody"},
		{`{"type":"text"}`, "type text"},
	} {
		v, err := decode([]byte(`{"components":{"schemas":{}}}`))
		if err != nil {
			t.Fatal(err)
		}
		s, err := decode([]byte(c.schema))
		if err != nil {
			t.Fatal(err)
		}
		compiler := &compiler{doc: v.(*object), names: map[string]int{}, same: map[string]int{}}
		if _, err := compiler.id(s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.schema, err, c.want)
		}
	}
	a, _ := decode([]byte(`{"paths":{"/a":{"get":{}}},"components":{"schemas":{"S":{}}}}`))
	for _, text := range []string{`{"paths":{"/a":{"get":{}}}}`, `{"paths":{},"components":{"schemas":{"S":{}}}}`} {
		b, _ := decode([]byte(text))
		if err := join(a.(*object), b.(*object)); err == nil {
			t.Errorf("%s replaced what was there", text)
		}
	}
	b, _ := decode([]byte(`{"x-newer":["S"],"paths":{"/a":{"post":{}}},"components":{"schemas":{"S":{"type":"string"}}}}`))
	if err := join(a.(*object), b.(*object)); err != nil || a.(*object).obj("components").obj("schemas").obj("S").str("type") != "string" {
		t.Errorf("a newer schema was not taken: %v", err)
	}
	const have = `{"paths":{},"components":{"schemas":{"S":{"properties":{"a":{}},"required":["a"]}}}}`
	for _, c := range []struct{ text, want string }{
		{`{"x-more":["S"],"paths":{},"components":{"schemas":{"S":{"properties":{"b":{}},"required":["b"]}}}}`, `{"properties":{"a":{},"b":{}},"required":["b"]}`},
		{`{"x-more":["S"],"paths":{},"components":{"schemas":{"S":{"required":[]}}}}`, `{"properties":{"a":{}},"required":[]}`},
		{`{"x-more":["S"],"paths":{},"components":{"schemas":{"S":{"properties":{"a":{}}}}}}`, ""},
		{`{"x-more":["T"],"paths":{},"components":{"schemas":{"T":{"properties":{"a":{}}}}}}`, ""},
	} {
		a, _ := decode([]byte(have))
		b, _ := decode([]byte(c.text))
		if err := join(a.(*object), b.(*object)); (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", c.text, err)
		} else if err == nil {
			if got, _ := json.Marshal(a.(*object).obj("components").obj("schemas").obj("S")); string(got) != c.want {
				t.Errorf("%s: %s, want %s", c.text, got, c.want)
			}
		}
	}
}

// YAML and JSON are the same document, in the order in which it was written.
func TestDecode(t *testing.T) {
	y, err := decode([]byte("b: {x: 1, a: [true, null, 1.5, 'text', .5e1]}\na: 2026-01-01\n"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(y)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"b":{"x":1,"a":[true,null,1.5,"text",5]},"a":"2026-01-01"}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	j, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, b) {
		t.Errorf("got %s, want %s", again, b)
	}
}
