package anthropic

import (
	"iter"
	"net/http"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// What the turns of a text completion begin with.
const (
	human = "\n\nHuman:"
	bot   = "\n\nAssistant:"
)

// complete decodes POST /v1/complete, whose prompt is the whole conversation in one text.
func (c *Config) complete(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &completeFormat{c.format(q, r)}
	q.Operation = llmmock.Generate
	d := decoder{r: jsonread.New(body), q: q, refusal: versioned(r)}
	var prompt string
	hasPrompt := false
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "model":
			q.Model, d.seen.model = d.r.String(), true
		case "prompt":
			prompt, hasPrompt = d.r.String(), true
		case "max_tokens_to_sample":
			q.MaxTokens, d.hasMaxTokens = d.r.Int(), true
		case "stream":
			q.Stream = d.r.Bool()
		case "stop_sequences":
			if !d.r.Null() {
				d.r.Array(d.stop)
			}
		case "temperature", "top_p":
			if n := d.float(); n < 0 || n > 1 {
				d.refuse(string(key), "range: 0..1")
			}
		case "top_k", "metadata":
		default:
			d.refuse(string(key), "Extra inputs are not permitted")
		}
	})
	if e := d.r.Close(); e != nil {
		return nil, malformed(body, e)
	}
	switch {
	case !d.seen.model:
		d.refuse("model", required)
	case !hasPrompt:
		d.refuse("prompt", required)
	case !d.hasMaxTokens:
		d.refuse("max_tokens_to_sample", required)
	case q.MaxTokens < 1:
		d.refuse("max_tokens_to_sample", "Input should be greater than or equal to 1")
		q.MaxTokens = 0
	}
	q.Turns = conversation(prompt)
	if hasPrompt {
		if !strings.Contains(prompt, human) && !strings.HasPrefix(prompt, human[2:]) {
			d.refuse("", `prompt must start with "\n\nHuman:" turn after an optional system prompt`)
		} else if q.Turns[len(q.Turns)-1].Role != llmmock.Assistant {
			d.refuse("", `prompt must end with "\n\nAssistant:" turn`)
		}
	}
	// The turn that the answer goes on with is no turn yet, unless something is in it.
	if n := len(q.Turns); n > 1 && q.Turns[n-1].Role == llmmock.Assistant && q.Turns[n-1].Text == "" {
		q.Turns = q.Turns[:n-1]
	}
	return f, d.judge(c, "POST /v1/complete", false, body)
}

// conversation takes a prompt apart. What comes before the first turn is the system's; what comes after MaxMessages turns is part
// of the last one.
func conversation(prompt string) []llmmock.Turn {
	var turns []llmmock.Turn
	role, begin, at := llmmock.System, 0, 0
	turn := func(end int) {
		if text := strings.TrimSpace(prompt[begin:end]); text != "" || role != llmmock.System {
			turns = append(turns, llmmock.Turn{Role: role, Text: text})
		}
	}
	if strings.HasPrefix(prompt, human[2:]) {
		role, begin, at = llmmock.User, len(human)-2, len(human)-2
	}
	for len(turns) < MaxMessages-1 {
		n := strings.Index(prompt[at:], "\n\n")
		if n < 0 {
			break
		}
		at += n
		switch {
		case strings.HasPrefix(prompt[at:], human):
			turn(at)
			role, begin = llmmock.User, at+len(human)
			at = begin
		case strings.HasPrefix(prompt[at:], bot):
			turn(at)
			role, begin = llmmock.Assistant, at+len(bot)
			at = begin
		default:
			at++
		}
	}
	turn(len(prompt))
	if len(turns) == 0 {
		turns = []llmmock.Turn{{Role: llmmock.User}}
	}
	return turns
}

// completeFormat writes text completions.
type completeFormat struct{ format }

// StreamType implements provider.Format.
func (f *completeFormat) StreamType() string { return "text/event-stream; charset=utf-8" }

func (f *completeFormat) appendHead(dst []byte, x *llmmock.Exchange) []byte {
	dst = append(dst, `{"type":"completion","id":"compl_01`...)
	dst = append(dst, x.ID[:min(len(x.ID), 22)]...)
	return append(dst, `","completion":`...)
}

func (f *completeFormat) appendTail(dst []byte, x *llmmock.Exchange, ended bool) []byte {
	dst = append(dst, `,"stop_reason":`...)
	stop := `null,"stop":null`
	if ended {
		stop = `"stop_sequence","stop":`
		switch x.Answer.Finish {
		case llmmock.AtLength:
			stop = `"max_tokens","stop":null`
		case llmmock.Refused, llmmock.Filtered:
			stop = `"refusal","stop":null`
		}
	}
	dst = append(dst, stop...)
	if strings.HasSuffix(stop, ":") {
		at := human
		if x.Answer.Finish == llmmock.AtStop {
			at = x.Answer.StoppedAt
		}
		dst = provider.AppendString(dst, at)
	}
	dst = append(dst, `,"model":`...)
	dst = provider.AppendString(dst, x.Model)
	return append(dst, '}')
}

// Whole implements provider.Format.
func (f *completeFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	dst = f.appendHead(dst, x)
	dst = provider.AppendString(dst, x.Answer.Text)
	return 200, "application/json", f.appendTail(dst, x, true)
}

// Stream implements provider.Format.
func (f *completeFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		tokens := x.Answer.Tokens
		if len(tokens) == 0 && x.Answer.Text != "" {
			tokens = []string{x.Answer.Text}
		}
		buf := append([]byte(nil), "event: completion\ndata: "...)
		buf = f.appendHead(buf, x)
		prefix := len(buf)
		tail := f.appendTail(nil, x, false)
		tail = append(tail, "\n\n"...)
		for i, t := range tokens {
			buf = provider.AppendString(buf[:prefix], t)
			buf = append(buf, tail...)
			if !yield(llmmock.Chunk{Data: buf, Token: i}) {
				return
			}
			if i == 0 && !yield(llmmock.Chunk{Data: []byte("event: ping\ndata: {\"type\":\"ping\"}\n\n")}) {
				return
			}
		}
		buf = append(buf[:prefix], `""`...)
		buf = f.appendTail(buf, x, true)
		buf = append(buf, "\n\n"...)
		yield(llmmock.Chunk{Data: buf, Token: max(len(tokens)-1, 0)})
	}
}
