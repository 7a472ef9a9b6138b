package openai

import (
	"net/http"
	"slices"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// response is the format of POST /v1/responses. What a response repeats of its request is kept as compact JSON, and empty for what
// the request did not say.
type response struct {
	format
	// id is that of a response that was made up; else it follows from the exchange.
	id string

	instructions, metadata, tools, toolChoice, textFormat, verbosity, effort, summary, temperature, topP, user, truncation, previous, maxOutput,
	maxCalls, cacheKey, safety, conversation, prompt, input string

	tier                  string
	background, unstored  bool
	encrypted             bool // what was thought goes along in a form for the vendor only
	obfuscate, sequential bool
	logprobs              bool
	top                   int
	custom                []string
	// hosted is the tool that the vendor runs, and query what it is asked; nil for none. results: what came of it is told.
	hosted  *hosted
	query   string
	results bool

	// events that were streamed so far: the next one's number.
	events int
}

// Whole implements provider.Format.
func (f *response) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	f.keep(x)
	if f.background {
		return http.StatusOK, jsonType, f.append(dst, x, "queued", nil)
	}
	return http.StatusOK, jsonType, f.append(dst, x, final(x), nil)
}

// final is the status that the response ends in.
func final(x *llmmock.Exchange) string {
	switch x.Answer.Finish {
	case llmmock.AtLength, llmmock.Filtered:
		return "incomplete"
	}
	return "completed"
}

// appendRaw appends a member that is the request's own, or what the vendor takes for it.
func appendRaw(dst []byte, key, value, otherwise string) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, key...)
	dst = append(dst, `":`...)
	if value == "" {
		value = otherwise
	}
	return append(dst, value...)
}

// append appends the response object as it is in a status; what was put out and used is there once it is final. failure is set for
// one that failed.
func (f *response) append(dst []byte, x *llmmock.Exchange, status string, failure *llmmock.Failure) []byte {
	dst = append(dst, `{"id":"`...)
	dst = f.appendID(dst, x)
	dst = append(dst, `","object":"response","created_at":`...)
	dst = strconv.AppendInt(dst, x.Created.Unix(), 10)
	dst = append(dst, `,"status":"`...)
	dst = append(dst, status...)
	dst = append(dst, `","background":`...)
	dst = strconv.AppendBool(dst, f.background)
	dst = append(dst, `,"completed_at":`...)
	if status == "completed" {
		dst = strconv.AppendInt(dst, x.Created.Add(whole(x)).Unix(), 10)
	} else {
		dst = append(dst, "null"...)
	}
	if failure != nil {
		r := f.w.resolve(failure, x)
		code := "server_error"
		if r.status == http.StatusTooManyRequests {
			code = "rate_limit_exceeded"
		}
		dst = append(dst, `,"error":{"code":"`...)
		dst = append(dst, code...)
		dst = append(dst, `","message":`...)
		dst = append(provider.AppendString(dst, r.message), '}')
	} else {
		dst = append(dst, `,"error":null`...)
	}
	switch {
	case status != "incomplete":
		dst = append(dst, `,"incomplete_details":null`...)
	case x.Answer.Finish == llmmock.Filtered:
		dst = append(dst, `,"incomplete_details":{"reason":"content_filter"}`...)
	default:
		dst = append(dst, `,"incomplete_details":{"reason":"max_output_tokens"}`...)
	}
	dst = appendRaw(dst, "instructions", f.instructions, "null")
	dst = appendRaw(dst, "max_output_tokens", f.maxOutput, "null")
	dst = appendRaw(dst, "max_tool_calls", f.maxCalls, "null")
	dst = append(dst, `,"model":`...)
	dst = provider.AppendString(dst, x.Model)
	dst = append(dst, `,"output":[`...)
	done := status == "completed" || status == "incomplete"
	if done {
		for i := range f.items(x) {
			dst = f.item(comma(dst, i), x, i, status)
		}
	}
	dst = append(dst, `],"parallel_tool_calls":`...)
	dst = strconv.AppendBool(dst, !f.sequential)
	dst = append(dst, `,"previous_response_id":`...)
	dst = appendOrNull(dst, f.previous)
	if f.conversation != "" {
		dst = appendRaw(dst, "conversation", f.conversation, "null")
	}
	if f.prompt != "" {
		dst = appendRaw(dst, "prompt", f.prompt, "null")
	}
	dst = appendRaw(dst, "prompt_cache_key", f.cacheKey, "null")
	dst = append(dst, `,"reasoning":{"effort":`...)
	dst = append(dst, orNull(f.effort)...)
	dst = appendRaw(dst, "summary", f.summary, "null")
	dst = append(dst, '}')
	dst = appendRaw(dst, "safety_identifier", f.safety, "null")
	dst = append(dst, `,"service_tier":"`...)
	dst = append(dst, tierOf(f.tier)...)
	dst = append(dst, `","store":`...)
	dst = strconv.AppendBool(dst, !f.unstored)
	dst = appendRaw(dst, "temperature", f.temperature, "1.0")
	dst = append(dst, `,"text":{"format":`...)
	if f.textFormat == "" {
		dst = append(dst, `{"type":"text"}`...)
	} else {
		dst = append(dst, f.textFormat...)
	}
	dst = appendRaw(dst, "verbosity", f.verbosity, `"medium"`)
	dst = append(dst, '}')
	dst = appendRaw(dst, "tool_choice", f.toolChoice, `"auto"`)
	dst = appendRaw(dst, "tools", f.tools, "[]")
	dst = append(dst, `,"top_logprobs":`...)
	dst = strconv.AppendInt(dst, int64(f.top), 10)
	dst = appendRaw(dst, "top_p", f.topP, "1.0")
	dst = appendRaw(dst, "truncation", f.truncation, `"disabled"`)
	dst = append(dst, `,"usage":`...)
	if done {
		dst = appendResponseUsage(dst, usage(x))
	} else {
		dst = append(dst, "null"...)
	}
	dst = appendRaw(dst, "user", f.user, "null")
	dst = appendRaw(dst, "metadata", f.metadata, "{}")
	return append(dst, '}')
}

func orNull(raw string) string {
	if raw == "" {
		return "null"
	}
	return raw
}

func (f *response) appendID(dst []byte, x *llmmock.Exchange) []byte {
	if f.id != "" {
		return appendInner(dst, f.id)
	}
	return append(append(dst, "resp_"...), x.ID...)
}

// itemID appends the id of the i-th item that is put out.
func (f *response) itemID(dst []byte, x *llmmock.Exchange, prefix string, i int) []byte {
	dst = append(append(dst, prefix...), x.ID...)
	const digits = "0123456789abcdef"
	return append(dst, digits[i>>4&15], digits[i&15])
}

func appendResponseUsage(dst []byte, u llmmock.Usage) []byte {
	dst = append(dst, `{"input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Input), 10)
	dst = append(dst, `,"input_tokens_details":{"cached_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Cached), 10)
	dst = append(dst, `,"cache_write_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.CacheWrite), 10)
	dst = append(dst, `},"output_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Output), 10)
	dst = append(dst, `,"output_tokens_details":{"reasoning_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Reasoning), 10)
	dst = append(dst, `},"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Total()), 10)
	return append(dst, '}')
}

// What is put out, in this order: what was thought, if anything was; the call of a hosted tool; a message, if something is said or
// nothing is called; the calls.
func hasThought(a *llmmock.Answer) bool { return a.Thinking != "" || len(a.ThinkingTokens) > 0 }

func hasMessage(a *llmmock.Answer) bool { return a.Text != "" || len(a.Calls) == 0 }

// items is how many are put out.
func (f *response) items(x *llmmock.Exchange) int {
	a := x.Answer
	n := len(a.Calls)
	if f.hosts(x) {
		n++
	}
	if hasThought(a) {
		n++
	}
	if hasMessage(a) {
		n++
	}
	return n
}

// item appends the i-th item that is put out.
func (f *response) item(dst []byte, x *llmmock.Exchange, i int, status string) []byte {
	a, n := x.Answer, i
	if hasThought(a) {
		if n == 0 {
			return f.reasoning(dst, x, i, true)
		}
		n--
	}
	if f.hosts(x) {
		if n == 0 {
			return f.hostedCall(dst, x, i, status)
		}
		n--
	}
	if hasMessage(a) {
		if n == 0 {
			return f.message(dst, x, i, status, true)
		}
		n--
	}
	return f.toolCall(dst, x, i, n, status, true)
}

// summarised says whether what was thought is shown.
func (f *response) summarised() bool { return f.summary != "" }

func (f *response) reasoning(dst []byte, x *llmmock.Exchange, i int, done bool) []byte {
	dst = append(dst, `{"id":"`...)
	dst = f.itemID(dst, x, "rs_", i)
	dst = append(dst, `","type":"reasoning","summary":[`...)
	if done && f.summarised() {
		dst = appendSummary(dst, x.Answer.Thinking)
	}
	dst = append(dst, ']')
	if f.encrypted {
		dst = append(dst, `,"encrypted_content":"`...)
		dst = append(append(append(dst, "gAAAAA"...), x.ID...), x.ID...)
		dst = append(dst, `=="`...)
	}
	return append(dst, '}')
}

func appendSummary(dst []byte, text string) []byte {
	dst = append(dst, `{"type":"summary_text","text":`...)
	return append(provider.AppendString(dst, text), '}')
}

func (f *response) message(dst []byte, x *llmmock.Exchange, i int, status string, done bool) []byte {
	dst = append(dst, `{"id":"`...)
	dst = f.itemID(dst, x, "msg_", i)
	dst = append(dst, `","type":"message","status":"`...)
	dst = append(dst, status...)
	dst = append(dst, `","content":[`...)
	if done {
		dst = f.part(dst, x, x.Answer.Text, true)
	}
	return append(dst, `],"role":"assistant"}`...)
}

// part appends the content of the message.
func (f *response) part(dst []byte, x *llmmock.Exchange, text string, done bool) []byte {
	if x.Answer.Finish == llmmock.Refused {
		dst = append(dst, `{"type":"refusal","refusal":`...)
		return append(provider.AppendString(dst, text), '}')
	}
	dst = append(dst, `{"type":"output_text","annotations":[`...)
	if done {
		dst = f.annotation(dst, x)
	}
	dst = append(dst, `],"logprobs":[`...)
	if done {
		dst = f.allProbabilities(dst, x)
	}
	dst = append(dst, `],"text":`...)
	return append(provider.AppendString(dst, text), '}')
}

func (f *response) probabilities(x *llmmock.Exchange) probabilities {
	return probabilities{seed: x.Random(forProbabilities).Uint64(), top: f.top}
}

// allProbabilities appends those of the whole text when they were asked for.
func (f *response) allProbabilities(dst []byte, x *llmmock.Exchange) []byte {
	if !f.logprobs {
		return dst
	}
	p := f.probabilities(x)
	for j, t := range tokens(x.Answer) {
		dst = p.entry(comma(dst, j), t, j)
	}
	return dst
}

// toolCall appends the n-th call, which is the i-th item.
func (f *response) toolCall(dst []byte, x *llmmock.Exchange, i, n int, status string, done bool) []byte {
	c := &x.Answer.Calls[n]
	custom := slices.Contains(f.custom, c.Name)
	dst = append(dst, `{"id":"`...)
	if custom {
		dst = f.itemID(dst, x, "ctc_", i)
		dst = append(dst, `","type":"custom_tool_call","status":"`...)
	} else {
		dst = f.itemID(dst, x, "fc_", i)
		dst = append(dst, `","type":"function_call","status":"`...)
	}
	dst = append(dst, status...)
	dst = append(dst, `","call_id":"`...)
	dst = callID(dst, x, c, 0, n)
	dst = append(dst, `","name":`...)
	dst = provider.AppendString(dst, c.Name)
	text := c.Arguments
	if custom {
		dst = append(dst, `,"input":`...)
		text = customInput(text)
	} else {
		dst = append(dst, `,"arguments":`...)
	}
	if !done {
		text = ""
	}
	return append(provider.AppendString(dst, text), '}')
}
