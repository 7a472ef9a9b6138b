package spec

import (
	"iter"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// maxEvents of a stream that is made up.
const maxEvents = 64

// events are one of each kind that the document knows for the operation, but for those that say that something failed.
func (e *exchange) events(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		var schema *Schema
		if c, ok := e.op.media(func(m string) bool { return m == "text/event-stream" }); ok {
			schema = c.schema
		} else {
			_, schema = e.op.answer()
		}
		if e.op.kind == doCreate || e.op.kind == doSingle {
			// What was asked for is done, whatever form it is answered in.
			if e.answered == nil {
				e.answered = e.run(x)
			}
		}
		e.now = x.Created
		kinds := []*Schema{schema}
		if schema != nil && len(schema.unions) > 0 {
			kinds = schema.unions[0].branches
		}
		m := e.maker(x)
		done := false
		n := 0
		for _, kind := range kinds {
			if n == maxEvents {
				break
			}
			name := eventName(kind)
			if failing(name) {
				continue
			}
			m.steps = makerSteps
			f := e.placed().int("sequence_number", n)
			var data []byte
			if kind != nil && kind.propNamed("event") != nil && kind.propNamed("data") != nil {
				// The assistants' form: the event's name and its data apart.
				data = m.append(nil, kind.propNamed("data"), "data", []layer{f.layer()}, 0)
				done = done || name == "done"
			} else {
				data = m.append(nil, kind, "", append([]layer{f.layer()}, e.sampleLayer()...), 0)
			}
			var b []byte
			if name != "" {
				b = append(append(append(b, "event: "...), name...), '\n')
			}
			b = append(append(append(b, "data: "...), unquoted(data)...), "\n\n"...)
			if !yield(llmmock.Chunk{Data: b, Token: n}) {
				return
			}
			n++
		}
		if e.Document.vendor == llmmock.OpenAI && !done {
			yield(llmmock.Chunk{Data: []byte("data: [DONE]\n\n"), Token: max(n-1, 0)})
		}
	}
}

// unquoted is the text of data that is only text, such as [DONE].
func unquoted(data []byte) []byte {
	if len(data) > 0 && data[0] == '"' {
		return []byte(unquote(data))
	}
	return data
}

func eventName(s *Schema) string {
	if s == nil {
		return ""
	}
	for _, member := range []string{"event", "type"} {
		if p := s.propNamed(member); p != nil && p.mask(0)&form.String != 0 {
			if l := p.allowed(); len(l) > 0 {
				return l[0]
			}
		}
	}
	return ""
}

func failing(name string) bool {
	for _, w := range []string{"error", "failed", "incomplete", "cancelled", "expired", "terminated"} {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}
