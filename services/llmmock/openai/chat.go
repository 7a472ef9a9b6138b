package openai

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// chat is the format of POST /v1/chat/completions.
type chat struct {
	format
	tier string // of service
	// includeUsage adds a chunk with it, and null to all others.
	includeUsage, obfuscate bool
	// functions are what tools were called before; calls have their form when no tools came.
	functions bool
	logprobs  bool
	top       int // alternatives of each token
	custom    []string
	// audio is the format in which the answer is spoken; empty for an answer in writing.
	audio string
	// messages and metadata as they came, of a completion that is to be stored.
	messages, metadata string
	// id of a completion that was made up; else it follows from the exchange.
	id string
}

// tierOf is the service tier that an answer names.
func tierOf(asked string) string {
	switch asked {
	case "flex", "priority", "scale":
		return asked
	}
	return "default"
}

// fingerprint of the system that answered: one for each model.
func fingerprint(dst []byte, model string) []byte {
	const digits = "0123456789abcdef"
	h := uint64(llmmock.HashOf("", model, nil))
	dst = append(dst, "fp_"...)
	for range 10 {
		dst = append(dst, digits[h&15])
		h >>= 4
	}
	return dst
}

// prefixed is an id with the vendor's prefix, which it may have already.
func prefixed(dst []byte, prefix, id string) []byte {
	if !strings.HasPrefix(id, prefix) {
		dst = append(dst, prefix...)
	}
	return append(dst, id...)
}

// Azure says of everything what its filters think of it.
const (
	filtered       = `{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}`
	promptFiltered = `"prompt_filter_results":[{"prompt_index":0,"content_filter_results":` + filtered + `}]`
)

// head appends what a completion and its chunks begin with.
func (f *chat) head(dst []byte, x *llmmock.Exchange, object string) []byte {
	dst = append(dst, `{"id":"`...)
	dst = f.appendID(dst, x)
	dst = append(dst, `","object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, x.Created.Unix(), 10)
	dst = append(dst, `,"model":`...)
	dst = provider.AppendString(dst, x.Model)
	dst = append(dst, `,"service_tier":"`...)
	dst = append(dst, tierOf(f.tier)...)
	dst = append(dst, `","system_fingerprint":"`...)
	dst = fingerprint(dst, x.Model)
	return append(dst, `","choices":[`...)
}

func (f *chat) finish(a *llmmock.Answer) string {
	switch a.Finish {
	case llmmock.AtLength:
		return "length"
	case llmmock.ToolCalls:
		if f.functions {
			return "function_call"
		}
		return "tool_calls"
	case llmmock.Filtered:
		return "content_filter"
	}
	return "stop"
}

// Whole implements provider.Format.
func (f *chat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	f.keep(x)
	return http.StatusOK, jsonType, append(f.append(dst, x), '}')
}

// append appends the completion, but for its end.
func (f *chat) append(dst []byte, x *llmmock.Exchange) []byte {
	dst = f.head(dst, x, "chat.completion")
	for i := range choices(x) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = f.choice(dst, x, i)
	}
	dst = append(dst, `],"usage":`...)
	dst = f.usage(dst, x)
	if f.w.azure() {
		dst = append(dst, ","+promptFiltered...)
	}
	return dst
}

func (f *chat) choice(dst []byte, x *llmmock.Exchange, i int) []byte {
	a := choice(x, i)
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(i), 10)
	dst = append(dst, `,"message":{"role":"assistant","content":`...)
	refused := a.Finish == llmmock.Refused
	if refused || a.Text == "" && len(a.Calls) > 0 || f.spoken(a) {
		dst = append(dst, "null"...)
	} else {
		dst = provider.AppendString(dst, a.Text)
	}
	dst = append(dst, `,"refusal":`...)
	if refused {
		dst = provider.AppendString(dst, a.Text)
	} else {
		dst = append(dst, "null"...)
	}
	switch {
	case len(a.Calls) == 0:
	case f.functions:
		dst = append(dst, `,"function_call":{"name":`...)
		dst = provider.AppendString(dst, a.Calls[0].Name)
		dst = append(dst, `,"arguments":`...)
		dst = provider.AppendString(dst, a.Calls[0].Arguments)
		dst = append(dst, '}')
	default:
		dst = append(dst, `,"tool_calls":[`...)
		for j := range a.Calls {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, '{')
			dst = f.call(dst, x, i, j, true)
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	if f.spoken(a) {
		dst = append(f.appendAudioID(append(dst, ','), x, i), `,"data":"`...)
		dst = append(appendSilence(dst, f.audio), `","transcript":`...)
		dst = append(provider.AppendString(dst, a.Text), `,"expires_at":`...)
		dst = append(strconv.AppendInt(dst, x.Created.Add(audioKept).Unix(), 10), '}')
	}
	dst = append(dst, `,"annotations":[]},"logprobs":`...)
	if f.logprobs {
		l := f.probabilities(x, i)
		dst = l.open(dst, refused)
		for j, t := range tokens(a) {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = l.entry(dst, t, j)
		}
		dst = l.close(dst, refused)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":"`...)
	dst = append(dst, f.finish(a)...)
	dst = append(dst, '"')
	if f.w.azure() {
		dst = append(dst, `,"content_filter_results":`+filtered...)
	}
	return append(dst, '}')
}

// call appends the members of the j-th call of a choice, without what it is called with when it is streamed.
func (f *chat) call(dst []byte, x *llmmock.Exchange, i, j int, whole bool) []byte {
	c := &choice(x, i).Calls[j]
	dst = append(dst, `"id":"`...)
	dst = callID(dst, x, c, i, j)
	kind, argument, text := "function", `,"arguments":`, c.Arguments
	if slices.Contains(f.custom, c.Name) {
		kind, argument, text = "custom", `,"input":`, customInput(c.Arguments)
	}
	dst = append(dst, `","type":"`...)
	dst = append(dst, kind...)
	dst = append(dst, `","`...)
	dst = append(dst, kind...)
	dst = append(dst, `":{"name":`...)
	dst = provider.AppendString(dst, c.Name)
	dst = append(dst, argument...)
	if !whole {
		text = ""
	}
	dst = provider.AppendString(dst, text)
	return append(dst, '}')
}

// callID appends the id of a call, made of the exchange's for a call that has none.
func callID(dst []byte, x *llmmock.Exchange, c *llmmock.Call, i, j int) []byte {
	if c.ID != "" {
		return prefixed(dst, "call_", c.ID)
	}
	dst = append(append(dst, "call_"...), x.ID[:min(20, len(x.ID))]...)
	dst = append(dst, 'a'+byte(i%26))
	return strconv.AppendInt(dst, int64(j), 10)
}

func appendUsage(dst []byte, u llmmock.Usage, spoken int) []byte {
	dst = append(dst, `{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Input), 10)
	dst = append(dst, `,"completion_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Output), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Total()), 10)
	dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Cached), 10)
	dst = append(dst, `,"audio_tokens":0,"cache_write_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.CacheWrite), 10)
	dst = append(dst, `},"completion_tokens_details":{"reasoning_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Reasoning), 10)
	dst = append(dst, `,"audio_tokens":`...)
	dst = strconv.AppendInt(dst, int64(spoken), 10)
	return append(dst, `,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`...)
}
