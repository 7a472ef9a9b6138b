package spec

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

//go:embed data/*.spec.gz
var data embed.FS

// Document is a vendor's OpenAPI document. Its schemas are decoded when an operation first needs them.
type Document struct {
	vendor  llmmock.Vendor
	title   string
	version string
	named   map[string]int
	ops     []*Operation
	routes  map[string]*Operation // by method, a space, and path; the beta form with ?beta=true
	tree    *segment

	models func() []string

	mu      sync.Mutex // held while schemas are decoded
	lines   [][]byte
	schemas []*Schema
}

// Operation is one method of one path.
type Operation struct {
	doc  *Document
	wire form.Operation
	// Beta is the form of the operation for beta=true, if the document has one; on that one it is nil.
	beta *Operation

	once sync.Once
	// kind of operation, and the template of the path of the collection that it works on.
	kind       shape
	collection string
	query      *Schema
	bodies     []content
	answers    []content
	sample     *tape

	itemOnce sync.Once
	item     item
}

type content struct {
	status int
	media  string
	schema *Schema
}

var loaded = struct {
	openai, anthropic func() (*Document, error)
}{
	sync.OnceValues(func() (*Document, error) { return embedded(llmmock.OpenAI, "data/openai.spec.gz") }),
	sync.OnceValues(func() (*Document, error) { return embedded(llmmock.Anthropic, "data/anthropic.spec.gz") }),
}

// Load is the document of OpenAI (Azure has the same) or Anthropic; it is read once for the whole process. There is none of other
// vendors, and an error then.
func Load(v llmmock.Vendor) (*Document, error) {
	switch v {
	case llmmock.OpenAI, llmmock.Azure:
		return loaded.openai()
	case llmmock.Anthropic:
		return loaded.anthropic()
	}
	return nil, fmt.Errorf("there is no specification of %s", v)
}

func embedded(v llmmock.Vendor, name string) (*Document, error) {
	b, err := data.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	d, err := read(v, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

func read(v llmmock.Vendor, text []byte) (*Document, error) {
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if len(lines) < 2 {
		return nil, fmt.Errorf("the document has %d lines", len(lines))
	}
	var h form.Header
	if err := json.Unmarshal(lines[0], &h); err != nil {
		return nil, err
	}
	var ops []form.Operation
	if err := json.Unmarshal(lines[1], &ops); err != nil {
		return nil, err
	}
	d := &Document{vendor: v, title: h.Title, version: h.Version, named: h.Named, routes: make(map[string]*Operation, 2*len(ops)), tree: &segment{},
		lines: lines[2:], schemas: make([]*Schema, len(lines)-2)}
	d.models = sync.OnceValue(d.listModels)
	for _, w := range ops {
		op := &Operation{doc: d, wire: w}
		d.ops = append(d.ops, op)
		d.routes[op.Pattern()] = op
	}
	for _, op := range d.ops {
		bare := op.wire.Method + " " + op.wire.Path
		if !op.wire.Beta {
			d.tree.add(op)
		} else if main := d.routes[bare]; main != nil {
			main.beta = op
		} else {
			d.tree.add(op)
			d.routes[bare] = op
		}
	}
	return d, nil
}

// Title and version of the document, for reports.
func (d *Document) Title() string { return strings.TrimSpace(d.title + " " + d.version) }

// Operations in the order of the document, beta forms among them.
func (d *Document) Operations() []*Operation { return slices.Clone(d.ops) }

// Operation with that method and path template as the document has it, with its base path, such as "POST /v1/chat/completions";
// with "?beta=true" after it for the beta form. Nil when there is none.
func (d *Document) Operation(route string) *Operation { return d.routes[route] }

// Find is the operation of a request, and the values of its path's parameters in order. Literal segments go before parameters. It is
// nil when there is none.
func (d *Document) Find(method, path string, query url.Values) (*Operation, []string) {
	var values []string
	op := d.tree.find(method, strings.TrimPrefix(path, "/"), &values)
	if op == nil {
		return nil, nil
	}
	return op.form(query), values
}

// Has says whether some method of path is served: a request with another is answered 405 and not 404.
func (d *Document) Has(path string) bool {
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPut, http.MethodPatch} {
		if op, _ := d.Find(m, path, nil); op != nil {
			return true
		}
	}
	return false
}

// Prepare decodes what these operations need, and all of them when none is named, so that the first request does not wait for it.
func (d *Document) Prepare(routes ...string) {
	if len(routes) == 0 {
		for _, op := range d.ops {
			op.ready()
		}
	}
	for _, r := range routes {
		if op := d.routes[r]; op != nil {
			op.ready()
		}
	}
}

// form is the beta form where that is asked for and exists.
func (o *Operation) form(query url.Values) *Operation {
	if o.beta != nil && query.Get("beta") == "true" {
		return o.beta
	}
	return o
}

// Pattern is the method and path, with ?beta=true for a beta form.
func (o *Operation) Pattern() string {
	p := o.wire.Method + " " + o.wire.Path
	if o.wire.Beta {
		p += "?beta=true"
	}
	return p
}

// Name is the operation's id in the document.
func (o *Operation) Name() string { return o.wire.ID }

// params are the names in the path template.
func (o *Operation) params() []string {
	var l []string
	for _, s := range strings.Split(o.wire.Path, "/") {
		if strings.HasPrefix(s, "{") {
			l = append(l, strings.Trim(s, "{}"))
		}
	}
	return l
}

// ready decodes what the operation needs.
func (o *Operation) ready() {
	o.once.Do(func() {
		d := o.doc
		d.mu.Lock()
		defer d.mu.Unlock()
		get := d.schema
		o.kind, o.collection = d.classify(o)
		o.query = get(o.wire.Query)
		for _, c := range o.wire.Bodies {
			o.bodies = append(o.bodies, content{media: c.Type, schema: get(c.Schema)})
		}
		for _, c := range o.wire.Answers {
			o.answers = append(o.answers, content{status: c.Status, media: c.Type, schema: get(c.Schema)})
		}
		if len(o.wire.Example) > 0 {
			if t, err := parseLong(o.wire.Example); err == nil {
				o.sample = t
			}
		}
	})
}

// body is the schema of a body with that media type; nil for anything goes.
func (o *Operation) body(media string) *Schema {
	o.ready()
	for _, c := range o.bodies {
		if c.media == media {
			return c.schema
		}
	}
	return nil
}

// answer is the JSON answer: its status and schema, nil when it has none.
func (o *Operation) answer() (int, *Schema) {
	o.ready()
	status := http.StatusOK
	for _, c := range o.answers {
		if c.media == "application/json" {
			return c.status, c.schema
		}
		status = c.status
	}
	return status, nil
}

// media is the first answer whose type accept takes, and an empty one when the operation answers nothing.
func (o *Operation) media(accept func(media string) bool) (content, bool) {
	o.ready()
	for _, c := range o.answers {
		if accept(c.media) {
			return c, true
		}
	}
	return content{}, false
}

// Validate says what of a JSON body the vendor would refuse; nothing when it is right, or when the operation takes no JSON.
func (o *Operation) Validate(body []byte) []Violation {
	s := o.body("application/json")
	if s == nil {
		return nil
	}
	if len(bytes.TrimSpace(body)) == 0 && !o.wire.Required {
		return nil
	}
	return s.validate(body)
}

// ValidateAnswer says what of a JSON answer is not as the document has it; nothing when it is, or when the operation answers no JSON. A
// recording that has grown old is found by it.
func (o *Operation) ValidateAnswer(body []byte) []Violation {
	_, s := o.answer()
	if s == nil {
		return nil
	}
	return s.validate(body)
}

// validate says what of a JSON text is no instance of the schema.
func (s *Schema) validate(text []byte) []Violation {
	t, err := parse(text)
	if err != nil {
		return []Violation{broken(err)}
	}
	defer t.free()
	// Most requests are right: look silently first, and for words only when they are needed.
	c := checker{t: t, steps: 20_000 + 60*len(t.nodes)}
	if c.check(s, 0) {
		return nil
	}
	return t.account(s)
}

func broken(err error) Violation {
	if errors.Is(err, errDepth) {
		return Violation{Fault: TooDeep}
	}
	return Violation{Fault: NotJSON, Got: err.Error()}
}

// account is what is wrong with the whole of t.
func (t *tape) account(s *Schema) []Violation {
	c := newChecker(t, maxViolations)
	if !c.check(s, 0) && len(c.out) == 0 {
		c.fail(Violation{Fault: Forbidden})
	}
	return c.out
}

// Validator is what an adapter asks about a body: what the vendor would refuse on a route such as "POST /v1/chat/completions", in the
// vendor's words; nil when it is right, or when the document has no such route.
func (d *Document) Validator() func(route string, body []byte) *llmmock.Failure {
	return func(route string, body []byte) *llmmock.Failure {
		op := d.routes[route]
		if op == nil {
			return nil
		}
		v := op.Validate(body)
		if len(v) == 0 {
			return nil
		}
		return v[0].Failure(d.vendor)
	}
}

// wire is a schema as it is written.
func (d *Document) wire(n int) *form.Schema {
	w := &form.Schema{}
	if err := json.Unmarshal(d.lines[n], w); err != nil {
		panic(err) // the text is embedded; a test reads all of it
	}
	return w
}

// segment is a node of the tree of paths.
type segment struct {
	literal map[string]*segment
	param   *segment
	ops     map[string]*Operation
}

func (s *segment) add(op *Operation) {
	at := s
	for _, p := range strings.Split(strings.TrimPrefix(op.wire.Path, "/"), "/") {
		var next *segment
		if strings.HasPrefix(p, "{") {
			if at.param == nil {
				at.param = &segment{}
			}
			next = at.param
		} else {
			if at.literal == nil {
				at.literal = map[string]*segment{}
			}
			if at.literal[p] == nil {
				at.literal[p] = &segment{}
			}
			next = at.literal[p]
		}
		at = next
	}
	if at.ops == nil {
		at.ops = map[string]*Operation{}
	}
	if at.ops[op.wire.Method] == nil {
		at.ops[op.wire.Method] = op
	}
}

func (s *segment) find(method, rest string, values *[]string) *Operation {
	if rest == "" {
		return s.ops[method]
	}
	p, rest, _ := strings.Cut(rest, "/")
	if next := s.literal[p]; next != nil {
		n := len(*values)
		if op := next.find(method, rest, values); op != nil {
			return op
		}
		*values = (*values)[:n]
	}
	if s.param != nil && p != "" {
		n := len(*values)
		v, err := url.PathUnescape(p)
		if err != nil {
			v = p
		}
		*values = append(*values, v)
		if op := s.param.find(method, rest, values); op != nil {
			return op
		}
		*values = (*values)[:n]
	}
	return nil
}
