package spec

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"sort"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// maxParts of a form are read.
const maxParts = 10_000

// upload is a file of a form.
type upload struct {
	field, name, media string
	data               []byte
}

// tree is what a form or a query says, which has only text and names such as tools[0][type].
type tree struct {
	text  []string
	names []string // of sub, in order
	sub   map[string]*tree
	file  bool
}

func (t *tree) child(name string) *tree {
	if t.sub == nil {
		t.sub = map[string]*tree{}
	}
	c := t.sub[name]
	if c == nil {
		c = &tree{}
		t.sub[name] = c
		t.names = append(t.names, name)
	}
	return c
}

// put sets a value under a name with brackets or dots of brackets.
func (t *tree) put(name, value string) *tree {
	at := t
	head, rest, ok := strings.Cut(name, "[")
	at = at.child(head)
	for depth := 0; ok && depth < maxDepth; depth++ {
		var key string
		key, rest, _ = strings.Cut(rest, "]")
		if key != "" {
			at = at.child(key)
		}
		rest, ok = strings.CutPrefix(rest, "[")
	}
	at.text = append(at.text, value)
	return at
}

// append writes the tree as JSON that is as near to s as text can be.
func (t *tree) append(dst []byte, s *Schema, depth int) []byte {
	if depth > maxDepth {
		return append(dst, "null"...)
	}
	mask := form.String
	if s != nil {
		mask = s.mask(0)
	}
	if len(t.sub) > 0 {
		if mask&form.Array != 0 && (mask&form.Object == 0 || numbers(t.names)) {
			if numbers(t.names) {
				sort.SliceStable(t.names, func(i, j int) bool { return less(t.names[i], t.names[j]) })
			}
			dst = append(dst, '[')
			if !numbers(t.names) {
				// name[][key]=value: one object.
				dst = t.members(dst, itemsOf(s), depth)
				return append(dst, ']')
			}
			for i, n := range t.names {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = t.sub[n].append(dst, itemsOf(s), depth+1)
			}
			return append(dst, ']')
		}
		return t.members(dst, objectOf(s), depth)
	}
	if mask&form.Array != 0 && (mask&form.String == 0 || len(t.text) > 1) {
		dst = append(dst, '[')
		for i, v := range t.text {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = scalar(dst, v, itemsOf(s), t.file)
		}
		return append(dst, ']')
	}
	if len(t.text) == 0 {
		return append(dst, "null"...)
	}
	return scalar(dst, t.text[len(t.text)-1], s, t.file)
}

func (t *tree) members(dst []byte, s *Schema, depth int) []byte {
	dst = append(dst, '{')
	for i, n := range t.names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = provider.AppendString(dst, n)
		dst = append(dst, ':')
		var sub *Schema
		if s != nil {
			if sub = s.propNamed(n); sub == nil {
				sub = s.additional
			}
		}
		dst = t.sub[n].append(dst, sub, depth+1)
	}
	return append(dst, '}')
}

func numbers(l []string) bool {
	for _, s := range l {
		if _, err := strconv.Atoi(s); err != nil {
			return false
		}
	}
	return true
}

func less(a, b string) bool {
	x, _ := strconv.Atoi(a) // numbers has looked
	y, _ := strconv.Atoi(b)
	return x < y
}

// itemsOf is the schema of an array's items, in the union's first branch that is one.
func itemsOf(s *Schema) *Schema {
	if s == nil {
		return nil
	}
	if s.items != nil {
		return s.items
	}
	for _, u := range s.unions {
		for _, b := range u.byKind[arrayKind] {
			if i := itemsOf(b); i != nil {
				return i
			}
		}
	}
	return nil
}

// objectOf is the first branch that has members, of a union.
func objectOf(s *Schema) *Schema {
	if s == nil || len(s.props) > 0 || s.additional != nil {
		return s
	}
	for _, u := range s.unions {
		for _, b := range u.byKind[objectKind] {
			if o := objectOf(b); o != nil && (len(o.props) > 0 || o.additional != nil) {
				return o
			}
		}
	}
	return s
}

// scalar writes text as the JSON value that a schema wants.
func scalar(dst []byte, v string, s *Schema, file bool) []byte {
	if s == nil || file {
		return provider.AppendString(dst, v)
	}
	mask := s.mask(0)
	if mask&form.String != 0 && s.words == nil && len(s.unions) == 0 {
		return provider.AppendString(dst, v)
	}
	t, err := parse([]byte(v))
	if err == nil {
		kind := t.nodes[0].kind
		// Objects come as JSON in forms; so do numbers and booleans.
		ok := kind != form.String && kind&mask != 0 && t.valid(s, 0)
		t.free()
		if ok {
			return append(dst, v...)
		}
	}
	if mask&form.String == 0 {
		if err == nil && len(v) > 0 && v[0] != '"' {
			return append(dst, v...) // of another type, which the check will say
		}
		if mask&form.Array != 0 {
			dst = append(dst, '[')
			dst = scalar(dst, v, itemsOf(s), file)
			return append(dst, ']')
		}
	}
	return provider.AppendString(dst, v)
}

// queryJSON is a query as JSON for its schema.
func queryJSON(q url.Values, s *Schema) []byte {
	t := &tree{}
	names := make([]string, 0, len(q))
	for n := range q {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if n == "beta" {
			continue
		}
		for _, v := range q[n] {
			t.put(n, v)
		}
	}
	return t.members(nil, s, 0)
}

var errForm = errors.New("it is no form of multipart/form-data")

// formJSON is a form of multipart/form-data as JSON for its schema, and the files in it, whose names stand in the JSON.
func formJSON(contentType string, body []byte, s *Schema) ([]byte, []upload, error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil || params["boundary"] == "" {
		return nil, nil, errForm
	}
	t := &tree{}
	var files []upload
	r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for n := 0; ; n++ {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || n >= maxParts {
			return nil, nil, errForm
		}
		data, err := io.ReadAll(p) // at most as much as body
		if err != nil {
			return nil, nil, errForm
		}
		name := p.FormName()
		if name == "" {
			continue
		}
		if p.FileName() != "" {
			files = append(files, upload{field: name, name: p.FileName(), media: p.Header.Get("Content-Type"), data: data})
			t.put(name, p.FileName()).file = true
			continue
		}
		// An object that is sent as JSON.
		t.put(name, string(data))
	}
	return t.members(nil, objectOf(s), 0), files, nil
}
