package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// asked is what a request is known by: equal ones are given the same recorded answers. JSON is known by its values and not by how it is
// written, a form not by the boundary that its client drew, a query not by its order or credentials.
type asked struct {
	method, path, query, body string
	json                      bool // that the body is
}

// askedOf a request. The body must have been redacted as the recording's were.
func askedOf(method, path, query, contentType string, body []byte) asked {
	a := asked{method: method, path: path}
	if values, err := url.ParseQuery(query); err == nil {
		maps.DeleteFunc(values, func(name string, _ []string) bool { return credentialParameter.MatchString(name) })
		a.query = values.Encode()
	} else {
		a.query = query
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var value any
	if len(body) > 0 && d.Decode(&value) == nil && !d.More() {
		if canonical, err := json.Marshal(value); err == nil {
			a.body, a.json = string(canonical), true
			return a
		}
	}
	if _, parameters, err := mime.ParseMediaType(contentType); err == nil && parameters["boundary"] != "" {
		body = bytes.ReplaceAll(body, []byte(parameters["boundary"]), []byte("boundary"))
	}
	a.body = string(body)
	return a
}

func (a *asked) key() uint64 {
	var d xxhash.Digest
	d.Reset()
	for _, s := range []string{a.method, a.path, a.query, a.body} {
		_, _ = d.WriteString(strconv.Itoa(len(s)))
		_, _ = d.WriteString(":" + s)
	}
	return d.Sum64()
}

func (a *asked) equal(b *asked) bool {
	return a.method == b.method && a.path == b.path && a.query == b.query && a.body == b.body
}

// mostLeaves of a body that are compared.
const mostLeaves = 10_000

// leaves are the values of a body that hold no others, by their paths.
func (a *asked) leaves() map[string]string {
	var v any
	into := map[string]string{}
	if json.Unmarshal([]byte(a.body), &v) == nil {
		leaves(into, "", v)
	}
	return into
}

func leaves(into map[string]string, path string, v any) {
	if len(into) >= mostLeaves {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			next := name
			if path != "" {
				next = path + "." + name
			}
			leaves(into, next, value)
		}
	case []any:
		for i, value := range v {
			leaves(into, fmt.Sprintf("%s[%d]", path, i), value)
		}
	default:
		into[path] = fmt.Sprintf("%T %v", v, v)
	}
}

// differences between two requests to the same method and path, in words: the first ones, and how many there are.
func (a *asked) differences(b *asked) (first string, n int) {
	var where []string
	if a.query != b.query {
		where = append(where, "the query")
	}
	switch {
	case a.body == b.body:
	case !a.json || !b.json:
		where = append(where, "the body")
	default:
		mine, others := a.leaves(), b.leaves()
		var fields []string
		for path, value := range mine {
			if other, ok := others[path]; !ok || other != value {
				fields = append(fields, path)
			}
		}
		for path := range others {
			if _, ok := mine[path]; !ok {
				fields = append(fields, path)
			}
		}
		slices.Sort(fields)
		where = append(where, fields...)
		if len(fields) == 0 {
			where = append(where, "the body")
		}
	}
	const told = 3
	n = len(where)
	first = strings.Join(where[:min(n, told)], ", ")
	if n > told {
		first += fmt.Sprintf(" and %d more", n-told)
	}
	return first, n
}
