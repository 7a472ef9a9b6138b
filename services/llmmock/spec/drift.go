package spec

import (
	"slices"

	"edgehold.internal/services/llmmock/spec/internal/form"
)

// Part of an exchange that an operation describes.
type Part int

// The parts. An answer is that of a success in one piece, and an event one of those that it is streamed in.
const (
	OfRequest Part = iota
	OfAnswer
	OfEvent
)

// Drift is in what a JSON text differs from the document: all that Validate would say, and the members that the document does not name
// although it does not forbid them, which vendors add first to their API and later to its description. It is false when the document
// does not say what that part is.
func (o *Operation) Drift(p Part, text []byte) (differences []Violation, known bool) {
	var s *Schema
	switch p {
	case OfRequest:
		s = o.body("application/json")
	case OfAnswer:
		_, s = o.answer()
	case OfEvent:
		c, _ := o.media(func(m string) bool { return m == "text/event-stream" })
		s = c.schema
	}
	if s == nil {
		return nil, false
	}
	t, err := parseLong(text)
	if err != nil {
		return []Violation{broken(err)}, true
	}
	w := &stranger{newChecker(t, maxViolations), 100_000 + 2_000*len(t.nodes)}
	if !t.valid(s, 0) {
		differences = t.account(s)
	}
	w.walk([]*Schema{s}, 0)
	for _, v := range w.out {
		if !slices.ContainsFunc(differences, func(d Violation) bool { return d.Field == v.Field }) {
			differences = append(differences, v)
		}
	}
	return differences, true
}

// stranger looks for members that no schema names. Of a union it takes the branches that fit, and all that may when none does.
type stranger struct {
	*checker
	// budget is how many more schemas are looked at for which branches fit; then it gives up looking.
	budget int
}

// fits says whether the node is an instance of s.
func (w *stranger) fits(s *Schema, i int) bool {
	c := checker{t: w.t, steps: min(w.budget, 20_000)}
	before := c.steps
	ok := c.check(s, i)
	w.budget -= before - c.steps + 1
	return ok
}

// around are the schemas and all that the value has to be by them.
func (w *stranger) around(schemas []*Schema, i int) (all []*Schema) {
	for queue := slices.Clone(schemas); len(queue) > 0 && w.budget > 0; w.budget-- {
		s := queue[0]
		queue = queue[1:]
		if s == nil || slices.Contains(all, s) {
			continue
		}
		all = append(all, s)
		queue = append(queue, s.all...)
		for _, u := range s.unions {
			fit := u.branches
			for _, some := range [][]*Schema{u.branches, u.byTag[w.tagOf(u, i)]} {
				if valid := slices.DeleteFunc(slices.Clone(some), func(b *Schema) bool { return !w.fits(b, i) }); len(valid) > 0 {
					fit = valid
					break
				}
				if len(some) > 0 {
					fit = some
				}
			}
			queue = append(queue, fit...)
		}
	}
	return all
}

// tagOf is the word that tells the branches of u apart.
func (w *stranger) tagOf(u *union, i int) string {
	if u.tag == "" || w.t.nodes[i].kind != form.Object {
		return ""
	}
	return w.t.member(i, u.tag)
}

func (w *stranger) walk(schemas []*Schema, i int) {
	n := &w.t.nodes[i]
	if n.kind != form.Object && n.kind != form.Array || w.full() {
		return
	}
	all := w.around(schemas, i)
	if w.budget <= 0 {
		return
	}
	at := len(w.path)
	if n.kind == form.Array {
		var items []*Schema
		for _, s := range all {
			if s.items != nil {
				items = append(items, s.items)
			}
		}
		k := int32(0)
		for v := i + 1; v < int(n.next) && len(items) > 0; v = int(w.t.nodes[v].next) {
			w.path = append(w.path, ^k)
			w.walk(items, v)
			w.path = w.path[:at]
			k++
		}
		return
	}
	for k := i + 1; k < int(n.next); {
		v := int(w.t.nodes[k].next)
		var values []*Schema
		named, free := false, false
		for _, s := range all {
			if p := s.prop(w.t.bytes(k)); p >= 0 {
				named = true
				values = append(values, s.props[p].schema)
			} else if s.additional != nil {
				named = true
				values = append(values, s.additional)
			}
			free = free || s.free()
		}
		w.path = append(w.path, int32(k))
		switch {
		case free:
		case named:
			w.walk(values, v)
		default:
			w.fail(Violation{Fault: Unknown, kind: w.t.nodes[v].kind})
		}
		w.path = w.path[:at]
		k = int(w.t.nodes[v].next)
	}
}

// free says that an object of the schema may have any members.
func (s *Schema) free() bool {
	return len(s.props) == 0 && !s.closed && len(s.all) == 0 && len(s.unions) == 0 && (s.types == 0 || s.types&form.Object != 0)
}
