package openai

import (
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// entry is a stored response.
type entry struct {
	id       string
	response *response
	exchange *llmmock.Exchange
	// ready is when one that is made in the background is complete, and cancelled that nobody waited for that.
	ready     time.Time
	cancelled atomic.Bool
}

// status of e at that moment.
func (e *entry) status(at time.Time) string {
	switch {
	case e.cancelled.Load():
		return "cancelled"
	case at.Before(e.ready):
		return "in_progress"
	}
	return final(e.exchange)
}

// maxChain is how many responses of a conversation are gone through.
const maxChain = 256

// chain is the conversation up to the response with that id, the oldest first, and whether nothing of it was forgotten.
func chain(s *provider.Store[*entry], id string) (entries []*entry, whole bool) {
	for len(entries) < maxChain {
		e := s.Get(id)
		if e == nil {
			break
		}
		entries = append(entries, e)
		if id = e.response.previous; id == "" {
			whole = e.response.conversation == ""
			break
		}
	}
	slices.Reverse(entries)
	return entries, whole
}

// turns adds those of the conversation up to the response with that id to turns. found says whether it is there, whole whether
// nothing before it was forgotten.
func (w *wire) turns(turns []llmmock.Turn, id string) (all []llmmock.Turn, found, whole bool) {
	entries, whole := chain(w.stored, id)
	for _, e := range entries {
		if e.response.input != "" {
			q := &llmmock.Request{}
			d := decoder{Reader: jsonread.New([]byte(e.response.input)), q: q}
			d.input() // which was understood before
			for i := range q.Turns {
				turns = follow(turns, q.Turns[i])
			}
		}
		a := e.exchange.Answer
		t := llmmock.Turn{Role: llmmock.Assistant, Text: a.Text, Calls: slices.Clone(a.Calls)}
		for i := range t.Calls {
			t.Calls[i].ID = string(callID(nil, e.exchange, &a.Calls[i], 0, i))
		}
		turns = append(turns, t)
	}
	return turns, len(entries) > 0, whole
}

// keep stores the response, unless the request did not want that.
func (f *response) keep(x *llmmock.Exchange) {
	if f.unstored {
		return
	}
	e := &entry{id: string(f.appendID(nil, x)), response: new(response), exchange: kept(x)}
	*e.response = *f
	if f.background {
		e.ready = x.At.Add(whole(x))
		e.exchange.Schedule = x.Schedule // for those who come to see it being made
	}
	size := 2048 + len(f.input) + len(f.tools) + len(f.instructions) + len(f.metadata) + len(f.textFormat) + 3*len(x.Answer.Text) + 3*len(x.Answer.Thinking)
	for _, c := range x.Answer.Calls {
		size += len(c.Arguments) + 64
	}
	f.w.stored.Put(e.id, e, size)
}

// kept is what an answer needs of its exchange, without the conversation.
func kept(x *llmmock.Exchange) *llmmock.Exchange {
	k := *x
	k.Request = &llmmock.Request{Vendor: x.Vendor, Operation: x.Operation, Model: x.Model, Region: x.Region, At: x.At}
	k.Failure, k.Limits, k.More, k.Fault = nil, nil, nil, llmmock.Fault{}
	// Only when it was complete, and not each of its gaps.
	k.Schedule = llmmock.Schedule{First: whole(x)}
	return &k
}

// object is the format of what is not generated.
type object struct{ format }

// Stream implements provider.Format.
func (f *object) Stream(*llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(func(llmmock.Chunk) bool) {}
}

// FailureChunk implements provider.Format.
func (f *object) FailureChunk(dst []byte, failure *llmmock.Failure, x *llmmock.Exchange) []byte {
	return f.failureChunk(dst, failure, x)
}

// retrieved is the format of a response that was asked for again.
type retrieved struct {
	object
	id    string
	entry *entry // nil for one that was never made
	// cancel it first.
	cancel bool
	after  int
}

// find reads which response is meant.
func (w *wire) find(q *llmmock.Request, r *http.Request) retrieved {
	f := retrieved{object: object{w.format(q, r)}, id: r.PathValue("response_id"), after: -1}
	q.Operation = llmmock.Other
	if f.entry = w.stored.Get(f.id); f.entry != nil {
		q.Model = f.entry.exchange.Model
	} else {
		q.Missing = &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Message: "Response with id '" + shorten(f.id) + "' not found."}
	}
	return f
}

// made is the stored response, or one that is made up and the same for the same id.
func (f *retrieved) made(x *llmmock.Exchange) *entry {
	if f.entry != nil {
		return f.entry
	}
	const text = "This response was made up, because none with its id was ever asked for."
	h := llmmock.HashOf("", f.id, nil)
	made := &llmmock.Exchange{Request: &llmmock.Request{Model: defaultModel, Vendor: x.Vendor, At: x.At}, ID: fmt.Sprintf("%016x%016x", uint64(h), uint64(h)*0x9e3779b97f4a7c15),
		Created: x.Created, Answer: &llmmock.Answer{Text: text, Tokens: []string{text}, Finish: llmmock.Stopped, Usage: llmmock.Usage{Input: 8, Output: 15}}}
	e := &entry{id: f.id, exchange: made, response: &response{format: f.format, id: f.id, input: `"Hello"`, background: f.cancel, obfuscate: true}}
	e.cancelled.Store(f.cancel)
	return e
}

func (w *wire) getResponse(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	f := w.find(q, r)
	query := r.URL.Query()
	q.Stream = query.Get("stream") == "true"
	if s := query.Get("starting_after"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, bad("starting_after", typeCode, "Invalid type for 'starting_after': expected an integer, but got '"+shorten(s)+"' instead.")
		}
		f.after = n
	}
	if q.Stream && f.entry != nil && f.entry.status(q.At) == "in_progress" {
		q.Resumes = f.entry.exchange
	}
	return &f, nil
}

// Whole implements provider.Format.
func (f *retrieved) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	e := f.made(x)
	if f.cancel && x.At.Before(e.ready) {
		e.cancelled.Store(true)
	}
	return http.StatusOK, jsonType, e.response.append(dst, e.exchange, e.status(x.At), nil)
}

// Stream implements provider.Format: the events that came after those that the client has, at once as far as they have come. Those of
// a response that is still being made go on as they come.
func (f *retrieved) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		e := f.made(x)
		again := *e.response
		again.events = 0
		status := e.status(x.At)
		s := responseStream{response: &again, x: e.exchange, yield: yield, after: f.after, paced: x.Resumes != nil}
		if s.paced && status == "in_progress" {
			status = final(e.exchange)
		}
		s.run(status)
	}
}

func (w *wire) cancelResponse(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	f := w.find(q, r)
	f.cancel = true
	if f.entry != nil && !f.entry.response.background {
		return &f, bad("", "", "Cannot cancel a synchronous response.")
	}
	return &f, nil
}

// deleted is the format of a response that is to be forgotten.
type deleted struct{ retrieved }

func (w *wire) deleteResponse(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	return &deleted{w.find(q, r)}, nil
}

// Whole implements provider.Format.
func (f *deleted) Whole(dst []byte, _ *llmmock.Exchange) (status int, contentType string, body []byte) {
	f.w.stored.Delete(f.id)
	dst = append(dst, `{"id":`...)
	dst = provider.AppendString(dst, f.id)
	return http.StatusOK, jsonType, append(dst, `,"object":"response","deleted":true}`...)
}

// listed is the format of the items that a response was an answer to.
type listed struct {
	retrieved
	page page
}

func (w *wire) listInputItems(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	f := &listed{retrieved: w.find(q, r)}
	var failure *llmmock.Failure
	if f.page, failure = pageOf(r.URL.Query(), "desc"); failure != nil {
		return nil, failure
	}
	return f, nil
}

// page is which part of a list is wanted.
type page struct {
	limit      int
	descending bool
	behind     string // the element that the page comes after
}

// pageOf reads a page; order is the vendor's usual one.
func pageOf(query url.Values, order string) (p page, failure *llmmock.Failure) {
	if p.limit, failure = limitOf(query); failure != nil {
		return p, failure
	}
	p.behind = query.Get("after")
	if s := query.Get("order"); s != "" {
		order = s
	}
	switch order {
	case "asc":
	case "desc":
		p.descending = true
	default:
		return p, bad("order", valueCode, "Invalid value: '"+shorten(order)+"'. Supported values are: 'asc' and 'desc'.")
	}
	return p, nil
}

// append appends the list object with the page of all, which come with the oldest first.
func (p page) append(dst []byte, all []listedItem) []byte {
	if p.descending {
		slices.Reverse(all)
	}
	if p.behind != "" {
		n := slices.IndexFunc(all, func(i listedItem) bool { return i.id == p.behind })
		all = all[n+1:] // all of them after one that is not there
	}
	more := len(all) > p.limit
	all = all[:min(len(all), p.limit)]
	dst = append(dst, `{"object":"list","data":[`...)
	for i := range all {
		dst = append(comma(dst, i), all[i].raw...)
	}
	first, last := "", ""
	if len(all) > 0 {
		first, last = all[0].id, all[len(all)-1].id
	}
	dst = append(dst, `],"first_id":`...)
	dst = appendOrNull(dst, first)
	dst = append(dst, `,"last_id":`...)
	dst = appendOrNull(dst, last)
	dst = append(dst, `,"has_more":`...)
	return append(strconv.AppendBool(dst, more), '}')
}

// limitOf a page: 20 when the query does not say.
func limitOf(query url.Values) (int, *llmmock.Failure) {
	const usual, most = 20, 100
	s := query.Get("limit")
	if s == "" || s == "0" {
		return usual, nil
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return 0, bad("limit", typeCode, "Invalid type for 'limit': expected an integer, but got '"+shorten(s)+"' instead.")
	case n < 1:
		return 0, bad("limit", "integer_below_min_value", "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got "+s+" instead.")
	case n > most:
		return 0, bad("limit", "integer_above_max_value", "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got "+s+" instead.")
	}
	return n, nil
}

// Whole implements provider.Format.
func (f *listed) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	e := f.made(x)
	var all []listedItem
	entries, _ := chain(f.w.stored, e.id)
	if len(entries) == 0 {
		entries = []*entry{e}
	}
	for i, before := range entries {
		all = before.inputs(all)
		if i < len(entries)-1 { // what it answered was asked with the next one again
			for n := range before.response.items(before.exchange) {
				raw := before.response.item(nil, before.exchange, n, "completed")
				all = append(all, listedItem{idOf(raw), raw})
			}
		}
	}
	return http.StatusOK, jsonType, f.page.append(dst, all)
}

// listedItem is an item with its id.
type listedItem struct {
	id  string
	raw []byte
}

func idOf(raw []byte) (id string) {
	r := jsonread.New(raw)
	r.Object(func(key []byte) {
		if string(key) == "id" && r.Peek() == jsonread.String {
			id = r.String()
		}
	})
	return id
}

// inputs adds the items of the request, each with an id and the members that the vendor adds.
func (e *entry) inputs(all []listedItem) []listedItem {
	if e.response.input == "" {
		return all
	}
	n := 0
	id := func(prefix string) string {
		n++
		h := llmmock.HashOf(e.id, strconv.Itoa(n), nil)
		return fmt.Sprintf("%s%016x%016x", prefix, uint64(h), uint64(h)*0x9e3779b97f4a7c15)
	}
	r := jsonread.New([]byte(e.response.input))
	if r.Peek() == jsonread.String {
		m := id("msg_")
		return append(all, listedItem{m, appendMessage(nil, m, "user", r.String())})
	}
	r.Array(func(int) {
		raw := r.Raw()
		var given, kind, role, text string
		plain, status := false, false
		in := jsonread.New(raw)
		in.Object(func(key []byte) {
			isText := in.Peek() == jsonread.String
			switch {
			case !isText:
			case string(key) == "id":
				given = in.String()
			case string(key) == "type":
				kind = in.String()
			case string(key) == "role":
				role = in.String()
			case string(key) == "content":
				text, plain = in.String(), true
			case string(key) == "status":
				status = true
			}
		})
		prefix := "item_"
		switch kind {
		case "", "message":
			prefix = "msg_"
		case "function_call":
			prefix = "fc_"
		case "function_call_output":
			prefix = "fco_"
		case "reasoning":
			prefix = "rs_"
		case "custom_tool_call":
			prefix = "ctc_"
		}
		made := id(prefix)
		switch {
		case kind == "" && role == "": // a reference
			return
		case plain && (kind == "" || kind == "message"):
			if given == "" {
				given = made
			}
			raw = appendMessage(nil, given, role, text)
		default:
			b := []byte{'{'}
			if given == "" {
				given = made
				b = append(provider.AppendString(append(b, `"id":`...), given), ',')
			}
			if kind == "" {
				b = append(b, `"type":"message",`...)
			}
			if !status {
				b = append(b, `"status":"completed",`...)
			}
			raw = append(b, raw[1:]...) // which has members, and so a comma is right
		}
		all = append(all, listedItem{given, raw})
	})
	return all
}

// appendMessage appends a message that came as a text.
func appendMessage(dst []byte, id, role, text string) []byte {
	dst = append(dst, `{"id":`...)
	dst = provider.AppendString(dst, id)
	dst = append(dst, `,"type":"message","status":"completed","content":[`...)
	if role == "assistant" {
		dst = append(dst, `{"type":"output_text","annotations":[],"logprobs":[],"text":`...)
	} else {
		dst = append(dst, `{"type":"input_text","text":`...)
	}
	dst = provider.AppendString(dst, text)
	dst = append(dst, `}],"role":`...)
	return append(provider.AppendString(dst, role), '}')
}
