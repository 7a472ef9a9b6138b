package spec

import (
	"maps"
	"slices"
	"strings"
)

// Models are the names that the document lists for the member model of requests, sorted: those that the vendor is known to have,
// although the document takes others too. The first call decodes all requests.
func (d *Document) Models() []string { return slices.Clone(d.models()) }

// Known says whether a name is among Models, or that of one of them that was fine-tuned.
func (d *Document) Known(model string) bool {
	if rest, tuned := strings.CutPrefix(model, "ft:"); tuned {
		model, _, _ = strings.Cut(rest, ":")
	}
	_, found := slices.BinarySearch(d.models(), model)
	return found
}

func (d *Document) listModels() []string {
	names := map[string]bool{}
	for _, op := range d.ops {
		op.ready()
		for _, c := range op.bodies {
			c.schema.each(func(s *Schema) {
				s.propNamed("model").each(func(s *Schema) { maps.Copy(names, s.words) })
			})
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// each visits s and everything that the same value may or has to be as well.
func (s *Schema) each(visit func(s *Schema)) {
	if s == nil {
		return
	}
	visit(s)
	for _, all := range s.all {
		all.each(visit)
	}
	for _, u := range s.unions {
		for _, b := range u.branches {
			b.each(visit)
		}
	}
}
