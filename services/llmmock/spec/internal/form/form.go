// Package form is the compact form of an OpenAPI document that the generator writes and package spec reads: a header, the
// operations, and then one schema a line, so that a schema is decoded when it is needed and not before. Descriptions are gone,
// references are numbers, and what allOf joins is joined.
package form

import "encoding/json"

// Header is the first line.
type Header struct {
	Title   string `json:"title"`
	Version string `json:"version"`
	Schemas int    `json:"schemas"`
	// Named are the schemas that have a name in the document, for tests and tools.
	Named map[string]int `json:"named"`
}

// Operation is one method of one path. All operations are the second line.
type Operation struct {
	Method string `json:"m"`
	Path   string `json:"p"`
	// Beta is set for the form of the operation that is asked for with beta=true in the query.
	Beta bool   `json:"b,omitempty"`
	ID   string `json:"i,omitempty"`
	// Query is an object schema of all query parameters, or -1.
	Query int `json:"q"`
	// Bodies that the request may have. Required, if there must be one.
	Bodies   []Content `json:"r,omitempty"`
	Required bool      `json:"rr,omitempty"`
	Answers  []Content `json:"a,omitempty"`
	// Example of an answer in JSON.
	Example json.RawMessage `json:"x,omitempty"`
}

// Content is a schema in a media type; Schema is -1 where there is none. Status is an answer's.
type Content struct {
	Status int    `json:"s,omitempty"`
	Type   string `json:"t,omitempty"`
	Schema int    `json:"c"`
}

// Schema is one line after the second. Numbers are those of other schemas.
type Schema struct {
	// Types is a set of the bits below; 0 for any.
	Types uint8 `json:"t,omitempty"`
	// Name in the document, if it has one.
	Name string            `json:"n,omitempty"`
	Enum []json.RawMessage `json:"e,omitempty"`
	// Props in the order of the document.
	Props []Prop `json:"p,omitempty"`
	// Closed forbids properties beside Props; Additional is the schema of those that are allowed.
	Closed     bool `json:"z,omitempty"`
	Additional *int `json:"d,omitempty"`
	// Keys is the schema of property names.
	Keys  *int  `json:"k,omitempty"`
	Items *int  `json:"m,omitempty"`
	One   []int `json:"o,omitempty"`
	Any   []int `json:"y,omitempty"`
	All   []int `json:"l,omitempty"`
	Not   *int  `json:"g,omitempty"`
	// Tag is the discriminator's property, and Tags its values, in pairs with schemas.
	Tag  string         `json:"dp,omitempty"`
	Tags map[string]int `json:"dm,omitempty"`
	Min  *json.Number   `json:"mn,omitempty"`
	Max  *json.Number   `json:"mx,omitempty"`
	// Above and Below are the exclusive bounds.
	Above *json.Number `json:"ab,omitempty"`
	Below *json.Number `json:"be,omitempty"`
	// MinLen and MaxLen hold for the characters of a string, MinItems and MaxItems for an array, MinProps and MaxProps for an object.
	MinLen   int               `json:"ml,omitempty"`
	MaxLen   *int              `json:"xl,omitempty"`
	MinItems int               `json:"mi,omitempty"`
	MaxItems *int              `json:"xi,omitempty"`
	MinProps int               `json:"mp,omitempty"`
	MaxProps *int              `json:"xp,omitempty"`
	Format   string            `json:"f,omitempty"`
	Pattern  string            `json:"r,omitempty"`
	Example  []json.RawMessage `json:"x,omitempty"`
	Default  json.RawMessage   `json:"v,omitempty"`
	// Aside is set for what only requests (1) or only answers (2) have, and 4 for what is deprecated.
	Aside uint8 `json:"s,omitempty"`
}

// The bits of Schema.Types.
const (
	Null uint8 = 1 << iota
	Bool
	Int
	Number
	String
	Array
	Object
)

// Prop is a property of an object.
type Prop struct {
	Name     string
	Schema   int
	Required bool
}

// MarshalJSON writes [name, schema] with a third element 1 when it is required.
func (p Prop) MarshalJSON() ([]byte, error) {
	if p.Required {
		return json.Marshal([]any{p.Name, p.Schema, 1})
	}
	return json.Marshal([]any{p.Name, p.Schema})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Prop) UnmarshalJSON(b []byte) error {
	var req int
	err := json.Unmarshal(b, &[]any{&p.Name, &p.Schema, &req})
	p.Required = req == 1
	return err
}
