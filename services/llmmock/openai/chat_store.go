package openai

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// storedChat is a chat completion that its request wanted stored.
type storedChat struct {
	id       string
	chat     *chat
	exchange *llmmock.Exchange
	metadata atomic.Pointer[string] // JSON
}

func (f *chat) appendID(dst []byte, x *llmmock.Exchange) []byte {
	if f.id != "" {
		return appendInner(dst, f.id)
	}
	return append(append(dst, "chatcmpl-"...), x.ID...)
}

// appendInner appends a JSON string without its quotes.
func appendInner(dst []byte, s string) []byte {
	quoted := provider.AppendString(nil, s)
	return append(dst, quoted[1:len(quoted)-1]...)
}

// keep stores the completion if the request wanted that.
func (f *chat) keep(x *llmmock.Exchange) {
	if f.messages == "" {
		return
	}
	k := kept(x)
	k.More = x.More
	c := &storedChat{id: string(f.appendID(nil, x)), chat: f, exchange: k}
	c.metadata.Store(&f.metadata)
	size := 2048 + len(f.messages) + len(f.metadata)
	for i := range choices(x) {
		a := choice(x, i)
		size += 3 * len(a.Text)
		for _, call := range a.Calls {
			size += len(call.Arguments) + 64
		}
	}
	f.w.chats.Put(c.id, c, size)
}

func (c *storedChat) append(dst []byte) []byte {
	dst = c.chat.append(dst, c.exchange)
	dst = appendRaw(dst, "metadata", *c.metadata.Load(), "{}")
	return append(dst, '}')
}

// chatObject is the format of a stored completion, which is shown, changed or forgotten.
type chatObject struct {
	object
	id       string
	chat     *storedChat // nil for one that was never made
	metadata *string     // new
	forget   bool
}

func (w *wire) findChat(q *llmmock.Request, r *http.Request) *chatObject {
	f := &chatObject{object: object{w.format(q, r)}, id: r.PathValue("completion_id")}
	q.Operation = llmmock.Other
	if f.chat = w.chats.Get(f.id); f.chat != nil {
		q.Model = f.chat.exchange.Model
	} else {
		q.Missing = &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Message: "Chat completion with id '" + shorten(f.id) + "' not found."}
	}
	return f
}

// made is the stored completion, or one that is made up and the same for the same id.
func (f *chatObject) made(x *llmmock.Exchange) *storedChat {
	if f.chat != nil {
		return f.chat
	}
	const text = "This completion was made up, because none with its id was ever asked for."
	made := &llmmock.Exchange{Request: &llmmock.Request{Model: defaultModel, Vendor: x.Vendor, At: x.At}, ID: f.id, Created: x.Created,
		Answer: &llmmock.Answer{Text: text, Tokens: []string{text}, Finish: llmmock.Stopped, Usage: llmmock.Usage{Input: 8, Output: 15}}}
	c := &storedChat{id: f.id, exchange: made, chat: &chat{format: f.format, id: f.id, messages: `[{"role":"user","content":"Hello"}]`}}
	c.metadata.Store(new(string))
	return c
}

func (w *wire) getChat(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	return w.findChat(q, r), nil
}

func (w *wire) deleteChat(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	f := w.findChat(q, r)
	f.forget = true
	return f, nil
}

func (w *wire) updateChat(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := w.findChat(q, r)
	d := w.decoder(q, r, body)
	d.Object(func(key []byte) {
		if string(key) != "metadata" {
			d.stranger(key)
			return
		}
		if d.Peek() == jsonread.Null || d.is(jsonread.Object, "an object") {
			s := d.raw()
			f.metadata = &s
		}
	})
	if f.metadata == nil && d.Err() == nil {
		d.miss("metadata")
	}
	if failure := d.end(); failure != nil {
		return nil, failure
	}
	return f, w.check(&d, "POST /v1/chat/completions/{completion_id}")
}

// Whole implements provider.Format.
func (f *chatObject) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	if f.forget {
		f.w.chats.Delete(f.id)
		dst = append(dst, `{"object":"chat.completion.deleted","id":`...)
		dst = provider.AppendString(dst, f.id)
		return http.StatusOK, jsonType, append(dst, `,"deleted":true}`...)
	}
	c := f.made(x)
	if f.metadata != nil {
		c.metadata.Store(f.metadata)
	}
	return http.StatusOK, jsonType, c.append(dst)
}

// chatList is the format of the list of what is stored.
type chatList struct {
	object
	page     page
	model    string
	metadata map[string]string // which it must have
}

func (w *wire) listChats(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	f := &chatList{object: object{w.format(q, r)}, metadata: map[string]string{}}
	q.Operation = llmmock.Other
	query := r.URL.Query()
	var failure *llmmock.Failure
	if f.page, failure = pageOf(query, "asc"); failure != nil {
		return nil, failure
	}
	f.model = query.Get("model")
	for key, values := range query {
		if key, ok := strings.CutPrefix(key, "metadata["); ok {
			f.metadata[strings.TrimSuffix(key, "]")] = values[0]
		}
	}
	return f, nil
}

// Whole implements provider.Format.
func (f *chatList) Whole(dst []byte, _ *llmmock.Exchange) (status int, contentType string, body []byte) {
	var found []listedItem
	for _, c := range f.w.chats.All() {
		if (f.model == "" || f.model == c.exchange.Model) && f.has(*c.metadata.Load()) {
			found = append(found, listedItem{c.id, c.append(nil)})
		}
	}
	return http.StatusOK, jsonType, f.page.append(dst, found)
}

// has says whether metadata has all that is wanted of it.
func (f *chatList) has(metadata string) bool {
	n := 0
	r := jsonread.New([]byte(metadata))
	r.Object(func(key []byte) {
		if want, ok := f.metadata[string(key)]; ok && r.Peek() == jsonread.String && r.String() == want {
			n++
		}
	})
	return n == len(f.metadata)
}

// messageList is the format of the messages that a stored completion is an answer to.
type messageList struct {
	*chatObject
	page page
}

func (w *wire) listMessages(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
	f := &messageList{chatObject: w.findChat(q, r)}
	var failure *llmmock.Failure
	if f.page, failure = pageOf(r.URL.Query(), "asc"); failure != nil {
		return nil, failure
	}
	return f, nil
}

// Whole implements provider.Format.
func (f *messageList) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	c := f.made(x)
	var all []listedItem
	r := jsonread.New([]byte(c.chat.messages))
	r.Array(func(i int) {
		id := c.id + "-" + strconv.Itoa(i)
		all = append(all, listedItem{id, appendStored(nil, id, r.Raw())})
	})
	return http.StatusOK, jsonType, f.page.append(dst, all)
}

// appendStored appends a message in the form in which the vendor shows what it stored: parts apart from text.
func appendStored(dst []byte, id string, raw []byte) []byte {
	content, parts, name := "null", "null", "null"
	dst = append(dst, `{"id":`...)
	dst = provider.AppendString(dst, id)
	r := jsonread.New(raw)
	r.Object(func(key []byte) {
		kind := r.Peek()
		value := string(r.Raw())
		switch {
		case string(key) == "content" && kind == jsonread.Array:
			parts = value
		case string(key) == "content":
			content = value
		case string(key) == "name":
			name = value
		case string(key) != "id" && string(key) != "refusal":
			dst = append(dst, ',')
			dst = append(provider.AppendString(dst, key), ':')
			dst = append(dst, value...)
		}
	})
	return fmt.Appendf(dst, `,"content":%s,"content_parts":%s,"name":%s,"refusal":null}`, content, parts, name)
}
