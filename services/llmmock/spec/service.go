package spec

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// Config of a Service.
type Config struct {
	// Document that is served.
	Document *Document
	// Store of its objects; nil for a new one of the default size.
	Store *Store
	// Failure appends the vendor's form of an error, and Header sets what the vendor sends beside every answer; the vendor's adapter
	// has both. Nil for a plain form of the same, and for no header.
	Failure func(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (status int, contentType string, body []byte)
	Header  func(h http.Header, x *llmmock.Exchange)
	// Models that the vendor lists from the beginning; nil for those of the document.
	Models []string
	// Run answers a line of a batch, as if it had come by itself. Nil makes the answer up.
	Run func(method, path string, body []byte) (status int, answer []byte)
}

// Service serves the operations of a document, over objects that it remembers. It is safe for concurrent use.
type Service struct {
	Config
}

// New makes a Service.
func New(c Config) *Service {
	if c.Store == nil {
		c.Store = NewStore(0, 0)
	}
	if c.Failure == nil {
		c.Failure = plainFailure(c.Document.vendor)
	}
	if c.Header == nil {
		c.Header = func(http.Header, *llmmock.Exchange) {}
	}
	return &Service{c}
}

// API has a route for each operation but those in except, which are written as "POST /v1/chat/completions". prefix goes before each
// path: /openai for Azure's v1 paths, and nothing else.
func (s *Service) API(prefix string, except []string) provider.API {
	api := provider.API{Vendor: s.Document.vendor, Failure: func(h http.Header, f *llmmock.Failure, id string) (int, []byte) {
		status, contentType, body := s.Failure(nil, f, &llmmock.Exchange{Request: &llmmock.Request{}, ID: id})
		h.Set("Content-Type", contentType)
		return status, body
	}}
	seen := map[string]bool{}
	for _, e := range except {
		seen[e] = true
	}
	var mains []*Operation
	for _, op := range s.Document.ops {
		pattern := op.wire.Method + " " + op.wire.Path
		if !seen[pattern] {
			seen[pattern] = true
			mains = append(mains, s.Document.routes[pattern])
		}
	}
	for _, g := range mountable(mains) {
		method, path, _ := strings.Cut(g.pattern, " ")
		api.Routes = append(api.Routes, provider.Route{
			Pattern: method + " " + prefix + path,
			Decode: func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
				op := g.ops[0]
				var params []string
				if len(g.ops) == 1 {
					for _, name := range op.params() {
						params = append(params, r.PathValue(name))
					}
				} else if op, params = s.Document.Find(r.Method, strings.TrimPrefix(r.URL.EscapedPath(), prefix), nil); !slices.Contains(g.ops, op) {
					return nil, &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Message: "Unknown request URL: " + r.Method + " " + r.URL.Path}
				}
				return s.decode(op, params, q, r, body)
			},
		})
	}
	return api
}

// group is what is mounted together, under one pattern.
type group struct {
	pattern  string
	segments []string // of the pattern, the method and its space in front
	ops      []*Operation
}

// mountable puts operations together whose patterns cannot be mounted beside each other: where neither of /videos/{id}/content and
// /videos/characters/{id} goes before the other, both are under /videos/{0}/{1}, and Find tells them apart.
func mountable(ops []*Operation) []*group {
	var l []*group
	// Only patterns of the same method and length overlap.
	alike := map[string][]*group{}
	for _, op := range ops {
		g := &group{pattern: op.wire.Method + " " + op.wire.Path, ops: []*Operation{op}}
		g.segments = strings.Split(g.pattern, "/")
		key := g.segments[0] + strconv.Itoa(len(g.segments))
		alike[key] = append(alike[key], g)
	}
	keys := make([]string, 0, len(alike))
	for key := range alike {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		l = append(l, apart(alike[key])...)
	}
	return l
}

// apart joins groups until none conflicts with another.
func apart(l []*group) []*group {
again:
	for i, a := range l {
		for _, b := range l[i+1:] {
			segments, ok := conflict(a.segments, b.segments)
			if !ok {
				continue
			}
			both := &group{pattern: strings.Join(segments, "/"), segments: segments}
			rest := l[:0:0]
			for _, g := range l {
				if g == a || g == b || g.pattern == both.pattern {
					both.ops = append(both.ops, g.ops...)
				} else {
					rest = append(rest, g)
				}
			}
			rest = append(rest, both)
			l = rest
			goto again
		}
	}
	return l
}

// conflict is the pattern that has what two of them have, when they overlap and neither has all that the other has.
func conflict(a, b []string) ([]string, bool) {
	var more, less bool
	for i := range a {
		switch pa, pb := isParam(a[i]), isParam(b[i]); {
		case pa && !pb:
			less = true
		case pb && !pa:
			more = true
		case !pa && a[i] != b[i]:
			return nil, false
		}
	}
	if !more || !less {
		return nil, false
	}
	joined := slices.Clone(a)
	for i := range joined {
		if isParam(a[i]) || isParam(b[i]) {
			joined[i] = "{p" + strconv.Itoa(i) + "}"
		}
	}
	return joined, true
}

// exchange is one request to an operation, and the format that it is answered in.
type exchange struct {
	*Service
	op     *Operation
	params []string
	query  url.Values
	// body is the request's as JSON, from a form too; nil for none.
	body  *tape
	files []upload
	// accept is the header.
	accept string
	// host is what the client knows the server by, such as http://127.0.0.1:4010.
	host string
	// now is when the answer says that it was made.
	now time.Time
	// answered is set once Whole has carried out what was asked for, which it does once.
	answered *answer
}

type answer struct {
	status int
	media  string
	body   []byte
}

func (s *Service) decode(op *Operation, params []string, q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	query := r.URL.Query()
	op = op.form(query)
	op.ready()
	q.Operation = llmmock.Other
	e := &exchange{Service: s, op: op, params: params, query: query, accept: r.Header.Get("Accept"), host: "http://" + r.Host}
	if r.TLS != nil {
		e.host = "https://" + r.Host
	}
	// A violation comes with a format, so that a lenient server can go on with what was understood.
	violation := e.read(r.Header.Get("Content-Type"), body)
	if e.body != nil {
		q.Model = e.body.member(0, "model")
		if v := e.body.field(0, "stream"); v >= 0 && string(e.body.raw(v)) == "true" {
			q.Stream = true
		}
	}
	_, streams := op.media(func(m string) bool { return m == "text/event-stream" })
	_, whole := op.media(func(m string) bool { return m != "text/event-stream" })
	switch {
	case strings.HasSuffix(op.wire.Path, "/stream"):
		q.Stream = true
	case !streams:
		q.Stream = false
	case !whole, strings.Contains(e.accept, "text/event-stream"):
		q.Stream = true
	}
	if violation == nil && op.query != nil {
		text := queryJSON(query, op.query)
		if v := op.query.validate(text); len(v) > 0 {
			violation = &v[0]
		}
	}
	if violation == nil {
		return e, nil
	}
	f := violation.Failure(s.Document.vendor)
	if violation.Fault == NotJSON || violation.Fault == TooDeep {
		e.body = nil
	}
	return e, f
}

// read takes the body apart and says the first thing that is wrong with it.
func (e *exchange) read(contentType string, body []byte) *Violation {
	op := e.op
	if len(op.bodies) == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = "application/json"
	}
	i := slices.IndexFunc(op.bodies, func(c content) bool { return c.media == media })
	if len(body) == 0 {
		if i < 0 {
			i = 0
		}
		if op.wire.Required && op.bodies[i].schema != nil {
			if v := op.bodies[i].schema.validate([]byte("{}")); len(v) > 0 {
				return &v[0]
			}
		}
		return nil
	}
	if i < 0 {
		i = slices.IndexFunc(op.bodies, func(c content) bool { return c.media == "application/json" })
		if i < 0 {
			return &Violation{Fault: WrongFormat, Field: "Content-Type", Got: media, Allowed: []string{op.bodies[0].media}}
		}
	}
	schema := op.bodies[i].schema
	switch op.bodies[i].media {
	case "application/json":
		e.body, err = parseLong(slices.Clone(body))
	case "multipart/form-data":
		var text []byte
		if text, e.files, err = formJSON(contentType, body, schema); err == nil {
			e.body, err = parseLong(text)
		}
	default:
		e.files = []upload{{name: "body", media: media, data: slices.Clone(body)}}
		return nil
	}
	if err != nil {
		v := broken(err)
		return &v
	}
	if schema == nil {
		return nil
	}
	c := checker{t: e.body, steps: 20_000 + 60*len(e.body.nodes)}
	if c.check(schema, 0) {
		return nil
	}
	return &e.body.account(schema)[0]
}

// Header implements provider.Format.
func (e *exchange) Header(h http.Header, x *llmmock.Exchange) { e.Service.Header(h, x) }

// Failure implements provider.Format.
func (e *exchange) Failure(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (int, string, []byte) {
	return e.Service.Failure(dst, f, x)
}

// FailureChunk implements provider.Format.
func (e *exchange) FailureChunk(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) []byte {
	_, _, body := e.Service.Failure(nil, f, x)
	dst = append(dst, "event: error\ndata: "...)
	dst = append(dst, body...)
	return append(dst, "\n\n"...)
}

// Whole implements provider.Format: it does what was asked for and answers it.
func (e *exchange) Whole(dst []byte, x *llmmock.Exchange) (int, string, []byte) {
	if e.answered == nil {
		e.answered = e.run(x)
	}
	return e.answered.status, e.answered.media, append(dst, e.answered.body...)
}

// StreamType implements provider.Format.
func (e *exchange) StreamType() string { return "text/event-stream; charset=utf-8" }

// Stream implements provider.Format.
func (e *exchange) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] { return e.events(x) }

// strict is the scenario's.
func strict(x *llmmock.Exchange) llmmock.Strict {
	if s := x.Behaviour(); s != nil {
		return s.Strict
	}
	return llmmock.Strict{}
}

func (e *exchange) maker(x *llmmock.Exchange) *maker {
	return &maker{r: x.Random(llmmock.ForAnswer), now: e.now, steps: makerSteps, vendor: e.Document.vendor, prefix: e.op.knows().prefix}
}

// fixed is a maker whose instances depend on what and not on the moment.
func (e *exchange) fixed(x *llmmock.Exchange, what string) *maker {
	m := e.maker(x)
	m.r = seeded(what)
	return m
}

func seeded(what string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(what))
	return rand.New(rand.NewPCG(h.Sum64(), 1))
}

// path is a template with the request's values in it.
func (e *exchange) path(template string) string {
	n := 0
	var b strings.Builder
	for _, s := range strings.Split(template, "/")[1:] {
		b.WriteByte('/')
		if isParam(s) {
			s = e.params[n]
			n++
		}
		b.WriteString(s)
	}
	return b.String()
}

// id is that of the item that the path names, in the operation's collection.
func (e *exchange) id() string {
	n := strings.Count(e.op.collection, "{")
	if n < len(e.params) {
		return e.params[n]
	}
	return ""
}

// item has what is known of the items of a collection.
type item struct {
	param string // in the path, such as file_id
	key   string // the member that holds what the path names an item by
	name  string // for messages
	// schema of an item, as it is read, and what its identifiers begin with, such as file-.
	schema *Schema
	prefix string
	kids   []kid
}

// knows is what is known of the items of the operation's collection.
func (o *Operation) knows() *item {
	o.ready()
	o.itemOnce.Do(func() {
		o.item = o.doc.itemOf(o.collection)
		o.item.prefix = o.prefix()
		if o.kind == doCreate {
			o.item.kids = o.kids()
		}
	})
	return &o.item
}

func (d *Document) itemOf(collection string) item {
	it := item{key: "id"}
	if collection == "" {
		return it
	}
	_, name := last(collection)
	it.name = singular(name)
	op := d.item(collection)
	if op == nil {
		if op = d.has(http.MethodPost, collection); op != nil {
			_, it.schema = op.answer()
		}
		return it
	}
	_, p := last(op.wire.Path)
	it.param = strings.Trim(p, "{}")
	if op.wire.Method != http.MethodGet {
		if made := d.has(http.MethodPost, collection); made != nil {
			op = made
		}
	}
	_, it.schema = op.answer()
	if it.schema != nil {
		if _, items := d.page(op.jsonAnswer()); items >= 0 {
			d.mu.Lock()
			it.schema = d.schema(items)
			d.mu.Unlock()
		}
		if it.schema.propNamed(it.param) != nil {
			it.key = it.param
		}
	}
	return it
}

func (o *Operation) jsonAnswer() int {
	for _, c := range o.wire.Answers {
		if c.Type == "application/json" {
			return c.Schema
		}
	}
	return -1
}

// prefix of the identifiers that the operation's items have, such as file-.
func (o *Operation) prefix() string {
	look := func(op *Operation) string {
		if op == nil {
			return ""
		}
		_, s := op.answer()
		if s != nil {
			if id := s.propNamed("id"); id != nil {
				for _, x := range id.examples {
					if p := idPrefix(x); p != "" {
						return p
					}
				}
			}
			for _, t := range s.samples {
				if v := t.field(0, "id"); v >= 0 {
					if p := idPrefix(t.raw(v)); p != "" {
						return p
					}
				}
			}
		}
		if op.sample != nil {
			if v := op.sample.field(0, "id"); v >= 0 {
				return idPrefix(op.sample.raw(v))
			}
		}
		return ""
	}
	p := look(o)
	if p == "" && o.collection != "" {
		p = look(o.doc.item(o.collection))
	}
	if p == "" && o.collection != "" {
		p = look(o.doc.has(http.MethodPost, o.collection))
		if p == "" {
			_, name := last(o.collection)
			p = singular(name) + "_"
		}
	}
	return p
}

// firm is a layer of what the server itself says.
type firm struct{ text []byte }

func (f *firm) raw(name, value string) *firm {
	if len(f.text) > 0 {
		f.text = append(f.text, ',')
	}
	f.text = provider.AppendString(f.text, name)
	f.text = append(append(f.text, ':'), value...)
	return f
}

func (f *firm) str(name, value string) *firm {
	return f.raw(name, string(provider.AppendString(nil, value)))
}

func (f *firm) int(name string, value int) *firm { return f.raw(name, strconv.Itoa(value)) }

func (f *firm) layer() layer {
	t, err := parseLong([]byte("{" + string(f.text) + "}"))
	if err != nil {
		panic(fmt.Sprintf("spec: %s: %v", f.text, err)) // it was put together here
	}
	return layer{t: t, firm: true}
}

// placed is what the path says of an answer: the members that are named as its parameters.
func (e *exchange) placed() *firm {
	f := &firm{}
	for i, name := range e.op.params() {
		if i < len(e.params) {
			f.str(name, e.params[i])
		}
	}
	return f
}

// stamp sets a time in the form that the schema wants.
func stamp(f *firm, s *Schema, name string, at time.Time) {
	p := s.propNamed(name)
	if p == nil {
		return
	}
	if p.mask(0)&form.String != 0 {
		f.str(name, at.UTC().Format("2006-01-02T15:04:05Z"))
	} else {
		f.int(name, int(at.Unix()))
	}
}

func objectLayer(json []byte) []layer {
	if len(json) == 0 {
		return nil
	}
	t, err := parseLong(json)
	if err != nil {
		return nil
	}
	return []layer{{t: t}}
}

func (e *exchange) bodyLayer() []layer {
	if e.body == nil || e.body.nodes[0].kind != form.Object {
		return nil
	}
	return []layer{{t: e.body}}
}

func (e *exchange) sampleLayer() []layer {
	if e.op.sample == nil {
		return nil
	}
	return []layer{{t: e.op.sample, weak: true}}
}

// fail is the vendor's error as the answer.
func (e *exchange) fail(x *llmmock.Exchange, f *llmmock.Failure) *answer {
	status, media, body := e.Service.Failure(nil, f, x)
	return &answer{status, media, body}
}

// missing is the vendor's 404 for an object.
func (e *exchange) missing(x *llmmock.Exchange, name, id string) *answer {
	f := &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Field: "id"}
	if e.Document.vendor == llmmock.Anthropic {
		f.Field = ""
		words := strings.ReplaceAll(name, "_", " ")
		f.Message = strings.ToUpper(words[:1]) + words[1:] + " not found: " + id
	} else {
		f.Message = fmt.Sprintf("No such %s: '%s'.", strings.ReplaceAll(name, "_", " "), id)
	}
	return e.fail(x, f)
}

// plainFailure is the form of a vendor's errors without anything that only its adapter knows.
func plainFailure(v llmmock.Vendor) func([]byte, *llmmock.Failure, *llmmock.Exchange) (int, string, []byte) {
	return func(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (int, string, []byte) {
		status := cmp.Or(f.Status, http.StatusInternalServerError)
		message := cmp.Or(f.Message, http.StatusText(status))
		if v == llmmock.Anthropic {
			kind := "api_error"
			switch {
			case status == http.StatusNotFound:
				kind = "not_found_error"
			case status == http.StatusUnauthorized:
				kind = "authentication_error"
			case status == http.StatusTooManyRequests:
				kind = "rate_limit_error"
			case status < 500:
				kind = "invalid_request_error"
			}
			dst = append(dst, `{"type":"error","error":{"type":"`+kind+`","message":`...)
			dst = provider.AppendString(dst, message)
			dst = append(dst, `},"request_id":`...)
			dst = provider.AppendString(dst, "req_"+x.ID)
			return status, "application/json", append(dst, '}')
		}
		kind := "invalid_request_error"
		if status >= 500 {
			kind = "server_error"
		}
		dst = append(dst, `{"error":{"message":`...)
		dst = provider.AppendString(dst, message)
		dst = append(dst, `,"type":"`+kind+`","param":`...)
		orNull := func(s string) {
			if s == "" {
				dst = append(dst, "null"...)
			} else {
				dst = provider.AppendString(dst, s)
			}
		}
		orNull(f.Field)
		dst = append(dst, `,"code":`...)
		orNull(f.Code)
		return status, "application/json", append(dst, "}}"...)
	}
}
