package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"iter"
	"mime"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
)

// Event is one document of a body: the only one of an answer in one piece, each of a stream.
type Event struct {
	// Name that the stream gives it; empty for none.
	Name string
	// Data is JSON where the vendor sends JSON.
	Data []byte
}

// The media types that bodies with several documents have.
const (
	sseType    = "text/event-stream"
	framesType = "application/vnd.amazon.eventstream"
	linesType  = "application/x-jsonl"
)

// Events of a body: of server-sent events, of AWS's binary event stream, of lines and of an array of JSON, or the body as it is. The word
// [DONE] that ends some streams is none. It yields as many as are whole.
func Events(contentType string, body []byte) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		switch media(contentType) {
		case sseType:
			for e := range sentEvents(body) {
				if !yield(e) {
					return
				}
			}
		case framesType:
			for f := range frames(body) {
				data := body[f.payload : f.end-4]
				if inner, ok := bytesOf(data); ok {
					data = inner
				}
				if !yield(Event{f.name(body), data}) {
					return
				}
			}
		case linesType:
			for l := range bytes.Lines(body) {
				if l = bytes.TrimSpace(l); len(l) > 0 && !yield(Event{Data: l}) {
					return
				}
			}
		default:
			// Gemini streams an array.
			var list []json.RawMessage
			if b := bytes.TrimLeft(body, " \t\r\n"); len(b) > 0 && b[0] == '[' && json.Unmarshal(b, &list) == nil {
				for _, one := range list {
					if !yield(Event{Data: one}) {
						return
					}
				}
				return
			}
			if len(body) > 0 {
				yield(Event{Data: body})
			}
		}
	}
}

// media is the media type without its parameters.
func media(contentType string) string {
	m, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		m, _, _ = strings.Cut(strings.ToLower(contentType), ";")
		m = strings.TrimSpace(m)
	}
	return m
}

// sentEvents are those of a text/event-stream that are whole.
func sentEvents(body []byte) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		var e Event
		begun := false
		for l := range bytes.Lines(body) {
			if l[len(l)-1] != '\n' {
				return
			}
			l = bytes.TrimRight(l, "\r\n")
			if len(l) == 0 {
				if begun && string(e.Data) != "[DONE]" && !yield(e) {
					return
				}
				e, begun = Event{}, false
				continue
			}
			name, value, _ := bytes.Cut(l, []byte(":"))
			value = bytes.TrimPrefix(value, []byte(" "))
			switch string(name) {
			case "event":
				e.Name = string(value)
			case "data":
				if begun {
					e.Data = append(append(e.Data, '\n'), value...)
				} else {
					e.Data, begun = bytes.Clone(value), true
				}
			}
		}
	}
}

// frame is where a message of AWS's event stream is in a body, its checksums included.
type frame struct{ begin, headers, payload, end int }

// frames are those at the beginning of body that are whole and right.
func frames(body []byte) iter.Seq[frame] {
	return func(yield func(frame) bool) {
		const prelude, most = 12, 24 << 20
		for at := 0; len(body)-at >= prelude+4; {
			size, headers := binary.BigEndian.Uint32(body[at:]), binary.BigEndian.Uint32(body[at+4:])
			if crc32.ChecksumIEEE(body[at:at+8]) != binary.BigEndian.Uint32(body[at+8:]) || size > most || int(size) > len(body)-at || headers > size || headers+prelude+4 > size {
				return
			}
			f := frame{at, at + prelude, at + prelude + int(headers), at + int(size)}
			if crc32.ChecksumIEEE(body[at:f.end-4]) != binary.BigEndian.Uint32(body[f.end-4:]) || !yield(f) {
				return
			}
			at = f.end
		}
	}
}

// name is what the frame's headers say that it is.
func (f frame) name(body []byte) string {
	for h := body[f.headers:f.payload]; len(h) > 0; {
		n := int(h[0])
		if len(h) < 1+n+3 || h[1+n] != 7 { // a text, which is all that is sent here
			return ""
		}
		name, size := string(h[1:1+n]), int(binary.BigEndian.Uint16(h[2+n:]))
		if len(h) < 4+n+size {
			return ""
		}
		if name == ":event-type" || name == ":exception-type" {
			return string(h[4+n : 4+n+size])
		}
		h = h[4+n+size:]
	}
	return ""
}

// seal makes the checksum fit to what is in the frame now.
func (f frame) seal(body []byte) {
	binary.BigEndian.PutUint32(body[f.end-4:], crc32.ChecksumIEEE(body[f.begin:f.end-4]))
}

// bytesOf is what InvokeModel's frames have inside.
func bytesOf(payload []byte) ([]byte, bool) {
	var p struct {
		Bytes []byte `json:"bytes"`
	}
	if json.Unmarshal(payload, &p) != nil || p.Bytes == nil {
		return nil, false
	}
	return p.Bytes, true
}

// usage is in the words of all vendors together: each has its own, and none uses another's in another sense but for Anthropic's
// input_tokens, which are without those of the cache.
type usage struct {
	PromptTokens     int      `json:"prompt_tokens"`
	CompletionTokens int      `json:"completion_tokens"`
	InputTokens      int      `json:"input_tokens"`
	OutputTokens     int      `json:"output_tokens"`
	PromptDetails    *details `json:"prompt_tokens_details"`
	OutputDetails    *details `json:"completion_tokens_details"`
	InputDetails     *details `json:"input_tokens_details"`
	ReplyDetails     *details `json:"output_tokens_details"`
	CacheRead        int      `json:"cache_read_input_tokens"`
	CacheCreation    int      `json:"cache_creation_input_tokens"`

	BedrockInput  int `json:"inputTokens"`
	BedrockOutput int `json:"outputTokens"`
	BedrockRead   int `json:"cacheReadInputTokens"`
	BedrockWrite  int `json:"cacheWriteInputTokens"`

	GeminiPrompt     int `json:"promptTokenCount"`
	GeminiCandidates int `json:"candidatesTokenCount"`
	GeminiThoughts   int `json:"thoughtsTokenCount"`
	GeminiCached     int `json:"cachedContentTokenCount"`
}

type details struct {
	Cached    int `json:"cached_tokens"`
	Reasoning int `json:"reasoning_tokens"`
	Thinking  int `json:"thinking_tokens"`
}

// usageOf is what an answer says that it took; in a stream the last word on each figure holds. Nothing where it does not say.
func usageOf(a *llmmock.Recording) (total llmmock.Usage) {
	for e := range Events(first(a.Header["Content-Type"]), a.Body()) {
		var doc struct {
			Usage         *usage `json:"usage"`
			UsageMetadata *usage `json:"usageMetadata"`
			Message       struct {
				Usage *usage `json:"usage"`
			} `json:"message"`
			Response struct {
				Usage *usage `json:"usage"`
			} `json:"response"`
		}
		// Other documents have other types under these names, and those that fit are read all the same.
		_ = json.Unmarshal(e.Data, &doc)
		for _, u := range []*usage{doc.Usage, doc.UsageMetadata, doc.Message.Usage, doc.Response.Usage} {
			if u != nil {
				total = latest(total, u.plain())
			}
		}
	}
	// InvokeModel's bodies are the model's own; its headers are not.
	for name, into := range map[string]*int{"X-Amzn-Bedrock-Input-Token-Count": &total.Input, "X-Amzn-Bedrock-Output-Token-Count": &total.Output} {
		if n, err := strconv.Atoi(first(a.Header[name])); err == nil && n > 0 {
			*into = n
		}
	}
	return total
}

func (u *usage) plain() llmmock.Usage {
	sum := llmmock.Usage{Cached: u.CacheRead + u.BedrockRead + u.GeminiCached, CacheWrite: u.CacheCreation + u.BedrockWrite,
		Output: u.CompletionTokens + u.OutputTokens + u.BedrockOutput + u.GeminiCandidates + u.GeminiThoughts, Reasoning: u.GeminiThoughts}
	sum.Input = u.PromptTokens + u.InputTokens + u.CacheRead + u.CacheCreation + u.BedrockInput + u.BedrockRead + u.BedrockWrite + u.GeminiPrompt
	for _, d := range []*details{u.PromptDetails, u.InputDetails, u.OutputDetails, u.ReplyDetails} {
		if d != nil {
			sum.Cached += d.Cached
			sum.Reasoning += d.Reasoning + d.Thinking
		}
	}
	return sum
}

func latest(a, b llmmock.Usage) llmmock.Usage {
	return llmmock.Usage{Input: max(a.Input, b.Input), Cached: max(a.Cached, b.Cached), CacheWrite: max(a.CacheWrite, b.CacheWrite),
		Output: max(a.Output, b.Output), Reasoning: max(a.Reasoning, b.Reasoning)}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
