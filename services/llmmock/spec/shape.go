package spec

import (
	"net/http"
	"slices"
	"strings"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// shape is what an operation does with objects, as the shape of its path and answer says: vendors name collections, items and
// actions alike.
type shape uint8

const (
	doCall   shape = iota // a function of the request
	doCreate              // POST /files
	doList                // GET /files
	doGet                 // GET /files/{id}
	doUpdate              // POST /files/{id}
	doRemove              // DELETE /files/{id}
	doAct                 // POST /batches/{id}/cancel: changes the item and answers it
	doBlob                // GET /files/{id}/content
	doSingle              // GET, POST /organization/data_retention: one object without an id
	doClear               // DELETE of a single
	doMany                // POST of several items at once, answered as a list
)

func (d *Document) has(method, path string) *Operation {
	if op := d.routes[method+" "+path]; op != nil {
		return op
	}
	return d.routes[method+" "+path+"?beta=true"]
}

// item is the operation that answers an item of a collection, and nil when there is none.
func (d *Document) item(collection string) *Operation {
	n := strings.Count(collection, "/")
	var found *Operation
	for _, op := range d.ops {
		p := op.wire.Path
		if strings.HasPrefix(p, collection+"/{") && strings.Count(p, "/") == n+1 {
			if op.wire.Method == http.MethodGet {
				return op
			}
			if found == nil {
				found = op
			}
		}
	}
	return found
}

func (o *Operation) wireAnswer() (media string, schema int) {
	schema = -1
	for i, c := range o.wire.Answers {
		if i == 0 || c.Type == "application/json" {
			media, schema = c.Type, c.Schema
		}
	}
	return media, schema
}

func last(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i], path[i+1:]
}

func isParam(name string) bool { return strings.HasPrefix(name, "{") }

// page is the member of a list's answer that holds its items, and the schema of one; "" when the answer is no list.
func (d *Document) page(schema int) (member string, item int) {
	if schema < 0 {
		return "", -1
	}
	s := d.wire(schema)
	named := map[string]int{}
	for _, p := range s.Props {
		named[p.Name] = p.Schema
	}
	_, more := named["has_more"]
	_, next := named["next_page"]
	_, first := named["first_id"]
	for _, p := range s.Props {
		if p.Name != "data" && !more && !next && !first {
			continue
		}
		w := d.wire(p.Schema)
		if w.Items != nil && len(w.Props) == 0 {
			return p.Name, *w.Items
		}
		// A list that may be null.
		for _, b := range append(append([]int(nil), w.Any...), w.One...) {
			if bw := d.wire(b); bw.Items != nil {
				return p.Name, *bw.Items
			}
		}
	}
	return "", -1
}

// classify is the shape of an operation, and the template of the collection that it works on.
func (d *Document) classify(o *Operation) (shape, string) {
	parent, name := last(o.wire.Path)
	media, schema := o.wireAnswer()
	member, _ := d.page(schema)
	switch o.wire.Method {
	case http.MethodGet:
		switch {
		case isParam(name):
			return doGet, parent
		case member != "":
			return doList, o.wire.Path
		case name == "content" || name == "results" || media != "application/json" && media != "":
			return doBlob, above(parent)
		}
		return doSingle, o.wire.Path
	case http.MethodDelete:
		if isParam(name) {
			return doRemove, parent
		}
		return doClear, o.wire.Path
	}
	if isParam(name) {
		return doUpdate, parent
	}
	if read := d.has(http.MethodGet, o.wire.Path); read != nil {
		k, _ := d.classify(read)
		switch {
		case k == doList && member != "":
			return doMany, o.wire.Path
		case k == doList:
			return doCreate, o.wire.Path
		}
		return doSingle, o.wire.Path
	}
	if member != "" {
		return doCall, ""
	}
	if _, id := last(parent); isParam(id) {
		// An action answers the item that it is done to.
		collection := above(parent)
		item := d.item(collection)
		if item == nil || item.wire.Method != http.MethodGet {
			item = d.has(http.MethodPost, collection)
		}
		if item != nil {
			_, s := item.wireAnswer()
			switch {
			case name == "remix":
				return doCreate, collection
			case s == schema && schema >= 0, name == "cancel", name == "complete", name == "archive":
				return doAct, collection
			}
		}
	} else if item := d.item(parent); item != nil && item.wire.Method == http.MethodGet {
		// Another way to make an item: /videos/edits.
		if _, s := item.wireAnswer(); s == schema && schema >= 0 {
			return doCreate, parent
		}
	}
	if _, id := last(parent); isParam(id) && strings.HasSuffix(name, "s") && schema >= 0 && d.hasID(schema) {
		return doCreate, o.wire.Path // part of an item, that has an id: /uploads/{id}/parts
	}
	if d.item(o.wire.Path) != nil {
		return doCreate, o.wire.Path
	}
	for _, other := range d.ops {
		// What can be acted on later has been made: uploads, and their parts.
		if strings.HasPrefix(other.wire.Path, o.wire.Path+"/{") && other.wire.Method == http.MethodPost {
			return doCreate, o.wire.Path
		}
	}
	return doCall, ""
}

func (d *Document) hasID(schema int) bool {
	return slices.ContainsFunc(d.wire(schema).Props, func(p form.Prop) bool { return p.Name == "id" })
}

// above is the path of the collection that an item is in.
func above(item string) string {
	parent, _ := last(item)
	return parent
}
