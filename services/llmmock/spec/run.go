package spec

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// run does what the request asks for.
func (e *exchange) run(x *llmmock.Exchange) *answer {
	e.now = x.Created
	if e.now.IsZero() {
		e.now = time.Unix(0, 0)
	}
	switch e.op.kind {
	case doCreate:
		return e.create(x)
	case doMany:
		return e.createMany(x)
	case doGet, doUpdate, doAct, doRemove:
		return e.onItem(x)
	case doList:
		return e.list(x)
	case doBlob:
		return e.blob(x)
	case doSingle, doClear:
		return e.single(x)
	}
	return e.call(x)
}

// made is an answer of the operation's JSON schema.
func (e *exchange) made(m *maker, over []layer) *answer {
	status, schema := e.op.answer()
	if schema == nil {
		return e.blank(m, status)
	}
	return &answer{status, "application/json", m.append(nil, schema, "", over, 0)}
}

// blank is the answer of an operation that answers no JSON.
func (e *exchange) blank(m *maker, status int) *answer {
	c, ok := e.op.media(func(media string) bool { return media != "" && media != "text/event-stream" })
	if !ok {
		return &answer{status: status}
	}
	media := c.media
	if e.op.wire.Path == "/v1/audio/speech" && e.body != nil {
		media, body := provider.Silence(e.body.member(0, "response_format"))
		return &answer{c.status, media, body}
	}
	return &answer{c.status, media, sampleOf(media, m)}
}

func (e *exchange) call(x *llmmock.Exchange) *answer {
	m := e.maker(x)
	f := e.placed()
	var then func(*answer) *answer
	if special := called(e.op.wire.Path); special != nil {
		then = special(e, x, f)
	}
	over := []layer{f.layer()}
	over = append(over, e.bodyLayer()...)
	over = append(over, e.sampleLayer()...)
	a := e.made(m, over)
	if then != nil {
		a = then(a)
	}
	return a
}

// create makes an item of the collection.
func (e *exchange) create(x *llmmock.Exchange) *answer {
	if lost := e.lostParent(strict(x)); lost != "" {
		return e.missing(x, "object", lost)
	}
	m := e.maker(x)
	it := e.op.knows()
	collection := e.path(e.op.collection)
	status, schema := e.op.answer()
	f, id := e.identity(x, it, collection, e.body, 0)
	e.arrival(f, schema)
	o := &Object{ID: id}
	if e.body != nil {
		o.Body = e.body.src
	}
	if len(e.files) > 0 {
		file := e.files[0]
		o.Content, o.Media = file.data, file.media
		f.str("filename", file.name).int("bytes", len(file.data)).int("size_bytes", len(file.data)).str("mime_type", file.media)
	}
	if special := birth(e.op.collection); special != nil {
		special(e, x, o, f)
	}
	over := []layer{f.layer()}
	over = append(over, e.bodyLayer()...)
	over = append(over, e.sampleLayer()...)
	if schema == nil {
		e.Store.Put(collection, o)
		return e.blank(m, status)
	}
	o.JSON = m.append(nil, schema, "", over, 0)
	if e.kept() {
		e.Store.Put(collection, o)
		e.children(x, collection+"/"+id)
	}
	return &answer{status, "application/json", o.JSON}
}

// kept is whether what is made is remembered: what has a member store says so itself.
func (e *exchange) kept() bool {
	s := e.op.body("application/json")
	if s == nil {
		return true
	}
	p := s.propNamed("store")
	if p == nil || p.mask(0)&form.Bool == 0 {
		return true
	}
	if e.body != nil {
		if v := e.body.field(0, "store"); v >= 0 && e.body.nodes[v].kind == form.Bool {
			return string(e.body.raw(v)) == "true"
		}
	}
	for _, d := range append([]*Schema{p}, branches(p)...) {
		if d.fallback != nil {
			return string(d.fallback) == "true"
		}
	}
	return false
}

// identity is the id of a new item, and what follows from it. A client that names what it puts in, names the item.
func (e *exchange) identity(x *llmmock.Exchange, it *item, collection string, body *tape, at int) (*firm, string) {
	f := e.placed()
	id := ""
	if body != nil && it.param != "" {
		id = body.member(at, it.param)
		if id == "" && it.key != "id" {
			id = body.member(at, it.key)
		}
	}
	if id == "" {
		id = it.prefix + x.ID[:24]
		if it.key == "version" {
			id = strconv.Itoa(e.Store.count(collection) + 1)
		}
	}
	if it.key != "id" {
		f.str(it.key, id)
		f.str("id", it.prefix+x.ID[:24])
	} else {
		f.str("id", id)
	}
	return f, id
}

// arrival sets the times of something new.
func (e *exchange) arrival(f *firm, s *Schema) {
	if s == nil || e.body == nil {
		return
	}
	if v := e.body.field(0, "expires_after"); v >= 0 {
		// {"anchor":"created_at","seconds":3600} or days.
		seconds := 0.0
		if n := e.body.field(v, "seconds"); n >= 0 {
			seconds = e.body.float(n)
		}
		for name, unit := range map[string]float64{"days": 86400, "minutes": 60} {
			if n := e.body.field(v, name); n >= 0 {
				seconds = e.body.float(n) * unit
			}
		}
		if seconds > 0 && seconds < 1e10 {
			stamp(f, s, "expires_at", e.now.Add(time.Duration(seconds*float64(time.Second))))
		}
	}
}

// children makes items of the collections below a new object, of the lists of the same name that it was made with: the messages
// of a thread, the items of a conversation.
func (e *exchange) children(x *llmmock.Exchange, path string) {
	if e.body == nil {
		return
	}
	for _, k := range e.op.knows().kids {
		v := e.body.field(0, k.name)
		if v < 0 || e.body.nodes[v].kind != form.Array {
			continue
		}
		sub := &exchange{Service: e.Service, op: k.op, params: append(append([]string(nil), e.params...), path[strings.LastIndexByte(path, '/')+1:]), now: e.now}
		sub.makeEach(x, e.body, v)
	}
}

// kid is an operation that puts something into a collection below an item, such as messages.
type kid struct {
	name string
	op   *Operation
}

// kids are those of the items of the operation's collection.
func (o *Operation) kids() []kid {
	var l []kid
	for _, op := range o.doc.ops {
		rest, ok := strings.CutPrefix(op.wire.Path, o.collection+"/{")
		if !ok || o.collection == "" || op.wire.Method != http.MethodPost || op.wire.Beta != o.wire.Beta {
			continue
		}
		_, name, ok := strings.Cut(rest, "}/")
		if !ok || strings.Contains(name, "/") {
			continue
		}
		op.ready()
		if op.kind == doCreate || op.kind == doMany {
			l = append(l, kid{name, op})
		}
	}
	return l
}

// makeEach makes an item of each element of an array.
func (e *exchange) makeEach(x *llmmock.Exchange, body *tape, array int) []*Object {
	it := e.op.knows()
	collection := e.path(e.op.collection)
	m := e.maker(x)
	m.prefix = it.prefix
	var made []*Object
	n := 0
	body.elements(array, func(v int) {
		if n >= maxElements {
			return
		}
		m.steps = makerSteps
		one := *x
		one.ID = nth(x.ID, n)
		n++
		f, id := e.identity(&one, it, collection, body, v)
		over := []layer{}
		if body.nodes[v].kind == form.Object {
			over = append(over, layer{t: body, i: v})
		} else if body.nodes[v].kind == form.String {
			// A list of names: project_ids makes things with a project_id.
			f.raw(singular(e.listName(body, array)), string(body.raw(v)))
		}
		over = append([]layer{f.layer()}, over...)
		o := &Object{ID: id, JSON: m.append(nil, it.schema, "", over, 0), Body: body.raw(v)}
		e.Store.Put(collection, o)
		made = append(made, o)
	})
	return made
}

// listName is the member of the body that an array is.
func (e *exchange) listName(body *tape, array int) string {
	name := ""
	body.members(0, func(k, v int) {
		if v == array {
			name = strings.TrimSuffix(body.string(k), "_ids")
			if name != body.string(k) {
				name += "_id"
			}
		}
	})
	return name
}

// nth is another id for each number, of the one that the moment has.
func nth(id string, n int) string {
	if n == 0 {
		return id
	}
	return llmmock.ID(seeded(id+strconv.Itoa(n)), 32)
}

// createMany makes several items at once and answers them as a list.
func (e *exchange) createMany(x *llmmock.Exchange) *answer {
	if lost := e.lostParent(strict(x)); lost != "" {
		return e.missing(x, "object", lost)
	}
	var made []*Object
	if e.body != nil {
		array := -1
		e.body.members(0, func(_, v int) {
			if array < 0 && e.body.nodes[v].kind == form.Array {
				array = v
			}
		})
		if array >= 0 {
			made = e.makeEach(x, e.body, array)
		}
	}
	return e.pageOf(x, Page{Objects: made})
}

// onItem reads, changes or deletes an item.
func (e *exchange) onItem(x *llmmock.Exchange) *answer {
	it, id := e.op.knows(), e.id()
	collection := e.path(e.op.collection)
	e.fill(x, collection)
	o, gone := e.Store.Get(collection, id)
	rules := strict(x)
	if gone || o == nil && rules.Objects {
		return e.missing(x, it.name, id)
	}
	if lost := e.lostParent(rules); lost != "" {
		return e.missing(x, "object", lost)
	}
	f := e.placed()
	if _, s := e.op.answer(); s == nil || s.propNamed(it.param) == nil || it.key == "id" {
		f.str("id", id)
	}
	if o == nil {
		// Made up, the same whenever it is asked for.
		m := e.fixed(x, collection+"/"+id)
		over := []layer{f.layer()}
		if e.op.kind == doGet || e.op.kind == doRemove {
			if e.op.kind == doRemove {
				over = append([]layer{removed(id).layer()}, over...)
			}
			return e.made(m, append(over, e.sampleLayer()...))
		}
		o = &Object{ID: id, JSON: m.append(nil, it.schema, "", over, 0), madeUp: true}
		e.Store.Put(collection, o)
	}
	m := e.maker(x)
	switch e.op.kind {
	case doGet:
		o = e.advance(x, collection, o)
		return e.made(m, append([]layer{f.layer()}, objectLayer(o.JSON)...))
	case doRemove:
		e.Store.Delete(collection, id)
		over := []layer{removed(id).layer(), f.layer()}
		_, name := last(above(e.op.collection))
		if isParam(name) {
			// Some answer what the item was in.
			parent := e.path(above(e.op.collection))
			at := strings.LastIndexByte(parent, '/')
			if p, _ := e.Store.Get(parent[:at], parent[at+1:]); p != nil {
				over[0] = (&firm{}).str("id", p.ID).layer()
				if _, s := e.op.answer(); s != nil && s.propNamed("deleted") == nil {
					return e.made(m, append(over[:1:1], objectLayer(p.JSON)...))
				}
				over[0] = removed(id).layer()
			}
		}
		return e.made(m, append(over, objectLayer(o.JSON)...))
	case doAct:
		_, verb := last(e.op.wire.Path)
		e.acted(f, it.schema, verb)
		if special := deed(e.op.wire.Path); special != nil {
			if a := special(e, x, o, f); a != nil {
				return a
			}
		}
	}
	next := *o
	over := append([]layer{f.layer()}, e.bodyLayer()...)
	if it.schema != nil && it.schema.propNamed("updated_at") != nil {
		stamp(f, it.schema, "updated_at", m.now)
		over[0] = f.layer()
	}
	if e.op.kind == doAct {
		over = over[:1] // the body of an action is about the action
	}
	if _, schema := e.op.answer(); schema == nil {
		return e.blank(m, http.StatusOK)
	}
	a := e.made(m, append(over, objectLayer(o.JSON)...))
	next.JSON = a.body
	e.Store.Put(collection, &next)
	return a
}

func removed(id string) *firm { return (&firm{}).str("id", id).raw("deleted", "true") }

// lostParent is the id of something in the path above the collection that is known to be gone, or that never was where that counts.
func (e *exchange) lostParent(rules llmmock.Strict) string {
	segments := strings.Split(e.op.collection, "/")
	n := 0
	var at, template strings.Builder
	for _, s := range segments[1:] {
		if isParam(s) {
			id := e.params[n]
			n++
			path := at.String()
			o, gone := e.Store.Get(path, id)
			if gone || o == nil && rules.Objects && e.Document.has(http.MethodPost, template.String()) != nil {
				return id
			}
			template.WriteString("/" + s)
			at.WriteString("/" + id)
			continue
		}
		template.WriteString("/" + s)
		at.WriteString("/" + s)
	}
	return ""
}

// acted sets what an action such as cancel does: the state that is named after it, and its time.
func (e *exchange) acted(f *firm, s *Schema, verb string) {
	if s == nil {
		return
	}
	stem := strings.TrimSuffix(verb, "e")
	words := map[string][]string{"resume": {"running", "in_progress", "active", "queued"}, "unpause": {"active", "running", "enabled"},
		"cancel": {"cancelling", "canceling", "cancelled", "canceled"}, "submit_tool_outputs": {"queued", "in_progress"}}[verb]
	for i := range s.props {
		p := &s.props[i]
		switch {
		case strings.HasSuffix(p.name, "_at") && strings.HasPrefix(p.name, stem):
			if len(words) == 0 || !strings.HasPrefix(p.name, "cancelled") || !hasWord(s, "cancelling") {
				stamp(f, s, p.name, e.now)
			}
		case strings.HasSuffix(p.name, "status") || p.name == "state":
			if w := oneOf(p.schema, words); w != "" {
				f.str(p.name, w)
				continue
			}
			for _, w := range p.schema.wordList() {
				if len(words) == 0 && strings.HasPrefix(w, stem) {
					f.str(p.name, w)
					break
				}
			}
		}
	}
}

func hasWord(s *Schema, word string) bool {
	for i := range s.props {
		if strings.HasSuffix(s.props[i].name, "status") && oneOf(s.props[i].schema, []string{word}) != "" {
			return true
		}
	}
	return false
}

// wordList are the words of an enumeration or of a union of them.
func (s *Schema) wordList() []string {
	l := s.allowed()
	for _, u := range s.unions {
		for _, b := range u.branches {
			l = append(l, b.allowed()...)
		}
	}
	return l
}

func oneOf(s *Schema, words []string) string {
	have := s.wordList()
	for _, w := range words {
		for _, h := range have {
			if h == w {
				return w
			}
		}
	}
	return ""
}

// advance lets the state of an object go on by a step each time that it is read: what waits begins, what goes on is done. It goes by
// reads and not by the clock, so that a client that polls sees the same states in every run.
func (e *exchange) advance(x *llmmock.Exchange, collection string, o *Object) *Object {
	it := e.op.knows()
	if it.schema == nil || e.Document.has(http.MethodPost, e.op.collection+"/{"+it.param+"}/complete") != nil {
		return o
	}
	t, err := parse(o.JSON)
	if err != nil {
		return o
	}
	defer t.free()
	for i := range it.schema.props {
		p := &it.schema.props[i]
		if !strings.HasSuffix(p.name, "status") {
			continue
		}
		now := t.member(0, p.name)
		next := ""
		switch now {
		case "queued", "pending", "validating", "validating_files", "created":
			if next = oneOf(p.schema, workStates); next == "" {
				next = oneOf(p.schema, doneStates)
			}
		case "in_progress", "running", "processing", "finalizing":
			next = oneOf(p.schema, doneStates)
		case "cancelling", "canceling":
			next = oneOf(p.schema, []string{"cancelled", "canceled", "ended"})
		}
		if next == "" || next == now {
			continue
		}
		f := (&firm{}).str(p.name, next)
		stem := strings.TrimSuffix(next, "ed")
		for j := range it.schema.props {
			name := it.schema.props[j].name
			switch {
			case strings.HasSuffix(name, "_at") && (strings.HasPrefix(name, stem) || (name == "finished_at" || name == "completed_at") && oneOf(p.schema, doneStates) == next):
				stamp(f, it.schema, name, e.now)
			case name == "progress" && oneOf(p.schema, doneStates) == next:
				f.int(name, 100)
			}
		}
		changed := *o
		if step := progress(e.op.collection); step != nil {
			step(e, x, &changed, now, next, f)
		}
		m := e.maker(x)
		changed.JSON = m.append(nil, it.schema, "", append([]layer{f.layer()}, objectLayer(o.JSON)...), 0)
		e.Store.Put(collection, &changed)
		return &changed
	}
	return o
}

// fill gives a collection that nothing can be put into what a vendor would have in it.
func (e *exchange) fill(x *llmmock.Exchange, collection string) {
	it := e.op.knows()
	if _, name := last(e.op.collection); name == "models" {
		e.Store.Fill(collection, func() []*Object {
			var l []*Object
			models := e.Models
			if models == nil {
				models = e.Document.Models()
			}
			for _, id := range models {
				f := (&firm{}).str("id", id)
				switch e.Document.vendor {
				case llmmock.Anthropic:
					f.str("display_name", id)
				default:
					f.str("owned_by", "system").raw("shutdown_date", "null")
				}
				l = append(l, &Object{ID: id, JSON: e.fixed(x, id).append(nil, it.schema, "", []layer{f.layer()}, 0)})
			}
			return l
		})
		return
	}
	if it.param == "" || it.schema == nil || e.Document.has(http.MethodPost, e.op.collection) != nil {
		return
	}
	if strict(x).Objects {
		return
	}
	e.Store.Fill(collection, func() []*Object {
		m := e.fixed(x, collection)
		m.prefix = it.prefix
		var l []*Object
		for range 2 {
			m.steps = makerSteps
			id := it.prefix + llmmock.ID(m.r, 24)
			f := e.placed().str(it.key, id)
			l = append(l, &Object{ID: id, JSON: m.append(nil, it.schema, "", []layer{f.layer()}, 0)})
		}
		return l
	})
}

// defaultLimit is how many items a page has when neither the client nor the document says.
const defaultLimit = 20

// list is a page of a collection.
func (e *exchange) list(x *llmmock.Exchange) *answer {
	it := e.op.knows()
	collection := e.path(e.op.collection)
	if lost := e.lostParent(strict(x)); lost != "" {
		return e.missing(x, "object", lost)
	}
	e.fill(x, collection)
	c := Cursor{Limit: defaultLimit, Ascending: e.query.Get("order") == "asc"}
	max := maxElements
	if s := e.op.query; s == nil || s.propNamed("limit") == nil {
		c.Limit = max // it has no pages
	}
	if s := e.op.query; s != nil {
		if p := s.propNamed("limit"); p != nil {
			for _, b := range append([]*Schema{p}, branches(p)...) {
				if b.fallback != nil {
					if n, err := strconv.Atoi(string(b.fallback)); err == nil && n > 0 {
						c.Limit = n
					}
				}
				if b.max != nil {
					max = int(*b.max)
				}
			}
		}
		if p := s.propNamed("order"); p != nil && e.query.Get("order") == "" && string(p.fallback) == `"asc"` {
			c.Ascending = true
		}
	}
	if n, err := strconv.Atoi(e.query.Get("limit")); err == nil && n > 0 {
		c.Limit = min(n, max)
	}
	for name, to := range map[string]*string{"after": &c.After, "after_id": &c.After, "before": &c.Before, "before_id": &c.Before} {
		if v := e.query.Get(name); v != "" {
			*to = v
		}
	}
	if p := e.query.Get("page"); p != "" {
		if id, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(p, "page_")); err == nil {
			c.After = string(id)
		}
	}
	c.Keep = e.filter(it)
	if ids := slices.Concat(e.query["ids"], e.query["ids[]"]); len(ids) > 0 {
		wanted := map[string]bool{}
		for _, id := range ids {
			wanted[id] = true
		}
		c.Keep = func(o *Object) bool { return wanted[o.ID] }
		c.Limit = max
	}
	p := e.Store.List(collection, c)
	if len(p.Objects) == 0 && it.param == "" && e.Document.has(http.MethodPost, e.op.collection) == nil {
		// A report: what it tells of was not made by requests.
		m := e.fixed(x, e.path(e.op.collection))
		return e.made(m, []layer{(&firm{}).raw("has_more", "false").raw("next_page", "null").layer()})
	}
	return e.pageOf(x, p)
}

func branches(s *Schema) []*Schema {
	var l []*Schema
	for _, u := range s.unions {
		l = append(l, u.branches...)
	}
	return l
}

// filter keeps the items whose members are what the query says, of those members that both have.
func (e *exchange) filter(it *item) func(*Object) bool {
	type pair struct{ name, value string }
	var want []pair
	if it.schema == nil {
		return nil
	}
	for name, values := range e.query {
		switch name {
		case "after", "before", "after_id", "before_id", "limit", "order", "page", "beta":
			continue
		}
		p := it.schema.propNamed(name)
		if p == nil || !p.simple() || len(values) != 1 || values[0] == "" {
			continue
		}
		want = append(want, pair{name, values[0]})
	}
	if len(want) == 0 {
		return nil
	}
	return func(o *Object) bool {
		t, err := parse(o.JSON)
		if err != nil {
			return true
		}
		defer t.free()
		for _, w := range want {
			v := t.field(0, w.name)
			if v < 0 {
				continue
			}
			got := string(t.raw(v))
			if t.nodes[v].kind == form.String {
				got = t.string(v)
			}
			if got != w.value {
				return false
			}
		}
		return true
	}
}

// pageOf is a list's answer with these items in it.
func (e *exchange) pageOf(x *llmmock.Exchange, p Page) *answer {
	it := e.op.knows()
	_, n := e.op.wireAnswer()
	member, items := e.Document.page(n)
	d := e.Document
	d.mu.Lock()
	schema := d.schema(items)
	d.mu.Unlock()
	m := e.maker(x)
	text := []byte{'['}
	for i, o := range p.Objects {
		if i > 0 {
			text = append(text, ',')
		}
		m.steps = makerSteps
		named := (&firm{}).str(it.key, o.ID).layer()
		text = m.append(text, schema, "", append([]layer{named}, objectLayer(o.JSON)...), 0)
	}
	text = append(text, ']')
	f := (&firm{}).raw("has_more", strconv.FormatBool(p.More))
	first, last, next := "null", "null", "null"
	if len(p.Objects) > 0 {
		end := p.Objects[len(p.Objects)-1].ID
		first = string(provider.AppendString(nil, p.Objects[0].ID))
		last = string(provider.AppendString(nil, end))
		if p.More {
			next = `"page_` + base64.RawURLEncoding.EncodeToString([]byte(end)) + `"`
		}
	} else if s := e.answerProp("first_id"); s != nil && s.mask(0)&form.Null == 0 {
		first, last = `""`, `""`
	}
	f.raw("first_id", first).raw("last_id", last).raw("next_page", next).raw("total", strconv.Itoa(len(p.Objects)))
	if next != "null" {
		f.raw("next", next)
	}
	status, answerSchema := e.op.answer()
	m.steps = makerSteps
	// The items have been made to their schema already, and are put in as they are.
	body := m.append(nil, answerSchema, "", []layer{f.raw(member, "[]").layer()}, 0)
	body = put(body, member, text)
	return &answer{status, "application/json", body}
}

// put replaces the value of an object's member.
func put(object []byte, member string, value []byte) []byte {
	t, err := parse(object)
	if err != nil {
		return object
	}
	defer t.free()
	v := t.field(0, member)
	if v < 0 {
		return object
	}
	n := t.nodes[v]
	out := append([]byte(nil), object[:n.start]...)
	out = append(out, value...)
	return append(out, object[n.end:]...)
}

func (e *exchange) answerProp(name string) *Schema {
	_, s := e.op.answer()
	if s == nil {
		return nil
	}
	return s.propNamed(name)
}

// single is an object without an id, of which there is one for each path.
func (e *exchange) single(x *llmmock.Exchange) *answer {
	m := e.maker(x)
	path := e.path(e.op.wire.Path)
	o := e.Store.Single(path)
	over := []layer{e.placed().layer()}
	if e.op.kind == doClear {
		e.Store.SetSingle(path, nil)
		over = append([]layer{(&firm{}).raw("deleted", "true").layer()}, over...)
		return e.made(m, over)
	}
	if e.op.wire.Method != http.MethodGet {
		over = append(over, e.bodyLayer()...)
	} else {
		m = e.fixed(x, path)
	}
	if o != nil {
		over = append(over, objectLayer(o.JSON)...)
	}
	a := e.made(m, append(over, e.sampleLayer()...))
	if e.op.wire.Method != http.MethodGet && len(a.body) > 0 {
		e.Store.SetSingle(path, &Object{JSON: a.body})
	}
	return a
}

// blob is the content of an item.
func (e *exchange) blob(x *llmmock.Exchange) *answer {
	it, id := e.op.knows(), e.id()
	if lost := e.lostParent(strict(x)); lost != "" {
		return e.missing(x, "object", lost)
	}
	collection := e.path(e.op.collection)
	o, gone := e.Store.Get(collection, id)
	if gone || o == nil && strict(x).Objects {
		return e.missing(x, it.name, id)
	}
	if o != nil && o.Content != nil {
		return &answer{http.StatusOK, orDefault(o.Media, "application/octet-stream"), o.Content}
	}
	if special := contents(e.op.wire.Path); special != nil {
		if a := special(e, x, o); a != nil {
			return a
		}
	}
	m := e.fixed(x, collection+"/"+id)
	c, ok := e.op.media(func(media string) bool { return e.accept == "" || strings.Contains(e.accept, media) })
	if !ok {
		c, ok = e.op.media(func(string) bool { return true })
	}
	if !ok || c.media == "" || c.media == "application/json" && (c.schema == nil || c.schema.types == form.String) {
		return &answer{http.StatusOK, "application/octet-stream", []byte(fmt.Sprintf("content of %s\n", id))}
	}
	if c.media == "application/json" {
		return &answer{c.status, c.media, m.append(nil, c.schema, "", []layer{e.placed().layer()}, 0)}
	}
	if c.media == "application/x-jsonl" {
		return &answer{c.status, c.media, append(m.append(nil, c.schema, "", nil, 0), '\n')}
	}
	return &answer{c.status, c.media, sampleOf(c.media, m)}
}

func orDefault(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
