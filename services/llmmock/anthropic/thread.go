package anthropic

import (
	"bytes"
	"net/http"
	"slices"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// What is held of threads, the vendor's beta message-threads-2026-08-12: each conversation for five minutes after its last answer.
const (
	threadFor   = 5 * time.Minute
	maxThreads  = 10_000
	threadBytes = 64 << 20
)

// thread is a conversation up to an answer, under whose id it is held for a request that brings only what comes after it.
type thread struct {
	turns []llmmock.Turn
	tools []llmmock.Tool
	until time.Time
	size  int
}

type threads = provider.Store[*thread]

// resume finds out whether a body is of a thread, and of which, before the rest of it is read as what comes next there.
func (d *decoder) resume(held *threads, body []byte) {
	if !bytes.Contains(body, []byte(`"thread"`)) {
		return
	}
	kind, previous := "", ""
	r := jsonread.New(body)
	r.Object(func(key []byte) {
		if string(key) != "thread" || r.Peek() != jsonread.Object {
			return
		}
		r.Object(func(key []byte) {
			switch string(key) {
			case "type":
				kind = r.String()
			case "previous_message_id":
				previous = r.String()
			}
		})
	})
	if r.Err() != nil {
		return // which is said when the whole is read
	}
	d.threaded = kind != ""
	if kind != "continue" {
		return
	}
	t := held.Get(previous)
	if t == nil || d.q.At.After(t.until) {
		if d.refusal == nil {
			d.refusal = &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Code: "thread_not_found",
				Message: "thread: no thread is held for the previous_message_id " + previous + ". Send the whole conversation with the type `create`."}
		}
		return
	}
	d.thread = t
	last := &t.turns[len(t.turns)-1]
	d.pair(0, last)
}

// joined puts what was read behind what is held.
func (d *decoder) joined() {
	t := d.thread
	if t == nil {
		return
	}
	for name, seen := range map[string]bool{"system": d.seen.system, "tools": d.seen.tools} {
		if seen {
			d.refuse(name, "is kept by the thread and cannot be sent with the type `continue`")
		}
	}
	if d.q.Cache.Turns > 0 {
		d.q.Cache.Turns += len(t.turns)
	}
	d.q.Turns = append(slices.Clone(t.turns), d.q.Turns...)
	d.q.Tools, d.seen.tools = t.tools, len(t.tools) > 0
}

// hold keeps the conversation with the answer to it.
func (f *messageFormat) hold(x *llmmock.Exchange, a *llmmock.Answer) {
	if f.threads == nil {
		return
	}
	answered := llmmock.Turn{Role: llmmock.Assistant, Text: a.Text}
	t := &thread{tools: f.q.Tools, until: f.q.At.Add(threadFor), size: f.q.Size + len(a.Text)}
	for i, c := range a.Calls {
		c.ID = callID(x, &c, i)
		answered.Calls = append(answered.Calls, c)
		t.size += len(c.Arguments)
	}
	if f.before != nil {
		t.size += f.before.size
	}
	t.turns = append(slices.Clip(f.q.Turns), answered)
	f.threads.Put(messageID(x), t, t.size)
}
