package anthropic

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"iter"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// messageFormat writes messages.
type messageFormat struct {
	format
	// model that the message says it is of; empty for the one that was asked for.
	model string
	// omitThinking: of what the model thinks, only the signature is told.
	omitThinking bool
	// warmOnly: no tokens at all are wanted, only the prompt in the cache.
	warmOnly bool
	// keepLong: what goes into the cache stays there for an hour and not for five minutes.
	keepLong bool
	// threads hold the conversation when it is to be held, and before is the one that goes on; nil for none.
	threads *threads
	before  *thread
}

// StreamType implements provider.Format.
func (f *messageFormat) StreamType() string { return "text/event-stream; charset=utf-8" }

// Whole implements provider.Format.
func (f *messageFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	a := f.answer(x)
	f.hold(x, a)
	dst = f.appendHead(dst, x)
	first := true
	block := func(kind string) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, `{"type":"`...)
		dst = append(dst, kind...)
	}
	if a.Thinking != "" {
		block(`thinking","thinking":`)
		dst = provider.AppendString(dst, f.thinking(a))
		dst = append(dst, `,"signature":"`...)
		dst = appendSignature(dst, x.ID, a.Thinking)
		dst = append(dst, `"}`...)
	}
	if a.Text != "" {
		block(`text","text":`)
		dst = provider.AppendString(dst, a.Text)
		dst = append(dst, `,"citations":null}`...)
	}
	for i := range a.Calls {
		call := &a.Calls[i]
		block(`tool_use","id":`)
		dst = appendCallID(dst, x, call, i)
		dst = append(dst, `,"name":`...)
		dst = provider.AppendString(dst, call.Name)
		dst = append(dst, `,"input":`...)
		if json.Valid([]byte(call.Arguments)) {
			dst = append(dst, call.Arguments...)
		} else {
			dst = append(dst, `{}`...)
		}
		dst = append(dst, `,"caller":{"type":"direct"},"toolset_name":null}`...)
	}
	dst = append(dst, `],`...)
	dst = appendStop(dst, a, f.warmOnly)
	dst = f.appendTail(dst, &a.Usage, a.Usage.Output)
	return 200, "application/json", dst
}

// answer is x's, or an empty one when no tokens were wanted.
func (f *messageFormat) answer(x *llmmock.Exchange) *llmmock.Answer {
	if !f.warmOnly {
		return x.Answer
	}
	u := x.Answer.Usage
	u.Output, u.Reasoning = 0, 0
	return &llmmock.Answer{Finish: llmmock.AtLength, Usage: u}
}

func (f *messageFormat) thinking(a *llmmock.Answer) string {
	if f.omitThinking {
		return ""
	}
	return a.Thinking
}

// appendHead is a message up to the content, whose list it opens.
func (f *messageFormat) appendHead(dst []byte, x *llmmock.Exchange) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, messageID(x)...)
	dst = append(dst, `","type":"message","role":"assistant","model":`...)
	model := f.model
	if model == "" {
		model = x.Model
	}
	dst = provider.AppendString(dst, model)
	return append(dst, `,"content":[`...)
}

// appendTail is the rest of a message after the reasons for its stop.
func (f *messageFormat) appendTail(dst []byte, u *llmmock.Usage, output int) []byte {
	dst = append(dst, `,"diagnostics":null,`...)
	if f.beta {
		dst = append(dst, `"context_management":null,`...)
	}
	dst = append(dst, `"usage":{"input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(uncached(u)), 10)
	dst = append(dst, `,"cache_creation_input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.CacheWrite), 10)
	dst = append(dst, `,"cache_read_input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Cached), 10)
	short, long := u.CacheWrite, 0
	if f.keepLong {
		short, long = long, short
	}
	dst = append(dst, `,"cache_creation":{"ephemeral_5m_input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(short), 10)
	dst = append(dst, `,"ephemeral_1h_input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(long), 10)
	dst = append(dst, `},"output_tokens":`...)
	dst = strconv.AppendInt(dst, int64(output), 10)
	dst = appendDetails(dst, u, output)
	if f.beta {
		dst = append(dst, `,"iterations":null`...)
	}
	return append(dst, `,"inference_geo":null,"service_tier":"standard","speed":null}}`...)
}

// uncached are the tokens of the prompt that were neither read from a cache nor written to one, which this vendor counts apart.
func uncached(u *llmmock.Usage) int { return max(u.Input-u.Cached-u.CacheWrite, 0) }

func appendDetails(dst []byte, u *llmmock.Usage, output int) []byte {
	dst = append(dst, `,"output_tokens_details":`...)
	if u.Reasoning > 0 && output >= u.Reasoning {
		dst = append(dst, `{"thinking_tokens":`...)
		dst = strconv.AppendInt(dst, int64(u.Reasoning), 10)
		dst = append(dst, '}')
	} else {
		dst = append(dst, `null`...)
	}
	return append(dst, `,"server_tool_use":null`...)
}

// appendStop is why the message ended, as members of an object.
func appendStop(dst []byte, a *llmmock.Answer, warmOnly bool) []byte {
	reason, sequence, refused := "end_turn", "", false
	switch a.Finish {
	case llmmock.AtLength:
		reason = "max_tokens"
	case llmmock.AtStop:
		reason, sequence = "stop_sequence", a.StoppedAt
	case llmmock.ToolCalls:
		reason = "tool_use"
	case llmmock.Refused, llmmock.Filtered:
		reason, refused = "refusal", true
	default:
		if len(a.Calls) > 0 && !warmOnly {
			reason = "tool_use"
		}
	}
	dst = append(dst, `"stop_reason":"`...)
	dst = append(dst, reason...)
	dst = append(dst, `","stop_sequence":`...)
	if reason == "stop_sequence" {
		dst = provider.AppendString(dst, sequence)
	} else {
		dst = append(dst, `null`...)
	}
	dst = append(dst, `,"stop_details":`...)
	if refused {
		dst = append(dst, `{"type":"refusal","category":null,"explanation":null}`...)
	} else {
		dst = append(dst, `null`...)
	}
	return append(dst, `,"container":null`...)
}

// messageID is the vendor's id of the answer.
func messageID(x *llmmock.Exchange) string { return "msg_01" + x.ID[:min(len(x.ID), 22)] }

func appendCallID(dst []byte, x *llmmock.Exchange, c *llmmock.Call, i int) []byte {
	return provider.AppendString(dst, callID(x, c, i))
}

// callID is the vendor's id of the i-th call.
func callID(x *llmmock.Exchange, c *llmmock.Call, i int) string {
	id := c.ID
	if id == "" {
		id = x.ID[:min(len(x.ID), 20)] + strconv.Itoa(10+i)
	}
	return "toolu_01" + id[:min(len(id), 22)]
}

// appendSignature stands for the one by which the vendor knows its own thoughts again.
func appendSignature(dst []byte, id, thinking string) []byte {
	h := sha256.New()
	_, _ = h.Write([]byte(id))
	_, _ = h.Write([]byte(thinking))
	return base64.StdEncoding.AppendEncode(dst, h.Sum(make([]byte, 0, sha256.Size)))
}

// Stream implements provider.Format. Thinking, text and calls are content blocks one after the other; the tokens of all of them
// are numbered in that order.
func (f *messageFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		a := f.answer(x)
		s := stream{yield: yield, buf: make([]byte, 0, 1024)}
		s.begin("message_start")
		s.buf = append(s.buf, `,"message":`...)
		s.buf = f.appendHead(s.buf, x)
		s.buf = append(s.buf, `],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null`...)
		s.buf = append(f.appendTail(s.buf, &a.Usage, min(a.Usage.Output, 1)), '}')
		if !s.end() {
			return
		}
		if a.Thinking != "" {
			s.start(`{"type":"thinking","thinking":"","signature":""}`)
			if f.omitThinking {
				s.token += len(a.ThinkingTokens)
			} else {
				s.deltas(`"thinking_delta","thinking":`, a.ThinkingTokens, a.Thinking)
			}
			s.begin("content_block_delta")
			s.index()
			s.buf = append(s.buf, `,"delta":{"type":"signature_delta","signature":"`...)
			s.buf = appendSignature(s.buf, x.ID, a.Thinking)
			s.buf = append(s.buf, `"}}`...)
			s.end()
			s.stop()
		}
		if a.Text != "" {
			s.start(`{"type":"text","text":"","citations":null}`)
			s.deltas(`"text_delta","text":`, a.Tokens, a.Text)
			s.stop()
		}
		for i := range a.Calls {
			call := &a.Calls[i]
			s.callStart(x, call, i)
			arguments := call.Arguments
			if arguments == "" {
				arguments = "{}"
			}
			s.delta(`"input_json_delta","partial_json":`)
			s.piece("")
			for p := range provider.Pieces(arguments) {
				if s.done {
					return
				}
				s.piece(p)
				s.token++
			}
			s.stop()
		}
		s.begin("message_delta")
		s.buf = append(s.buf, `,"delta":{`...)
		s.buf = appendStop(s.buf, a, f.warmOnly)
		s.buf = append(s.buf, `},"usage":{"input_tokens":`...)
		s.buf = strconv.AppendInt(s.buf, int64(uncached(&a.Usage)), 10)
		s.buf = append(s.buf, `,"cache_creation_input_tokens":`...)
		s.buf = strconv.AppendInt(s.buf, int64(a.Usage.CacheWrite), 10)
		s.buf = append(s.buf, `,"cache_read_input_tokens":`...)
		s.buf = strconv.AppendInt(s.buf, int64(a.Usage.Cached), 10)
		s.buf = append(s.buf, `,"output_tokens":`...)
		s.buf = strconv.AppendInt(s.buf, int64(a.Usage.Output), 10)
		s.buf = appendDetails(s.buf, &a.Usage, a.Usage.Output)
		if f.beta {
			s.buf = append(s.buf, `,"iterations":null`...)
		}
		s.buf = append(s.buf, '}')
		if f.beta {
			s.buf = append(s.buf, `,"context_management":null`...)
		}
		s.buf = append(s.buf, '}')
		s.end()
		if !s.done {
			f.hold(x, a)
		}
		s.begin("message_stop")
		s.buf = append(s.buf, '}')
		s.end()
	}
}

// stream writes server-sent events. After the first one that is not wanted it writes no more.
type stream struct {
	yield func(llmmock.Chunk) bool
	done  bool
	buf   []byte
	// token is the number of the next one.
	token int
	// block is the number of the content block that is open or comes next.
	block int
	// prefix is how long the beginning of buf is that all deltas of a block share.
	prefix int
	// pinged: the vendor sends a ping after the first block's start.
	pinged bool
}

// send flushes buf, due with the token that was written last.
func (s *stream) send(token int) bool {
	if !s.done && !s.yield(llmmock.Chunk{Data: s.buf, Token: max(token, 0)}) {
		s.done = true
	}
	return !s.done
}

// begin opens an event and its object, whose type it writes.
func (s *stream) begin(event string) {
	s.buf = append(s.buf[:0], "event: "...)
	s.buf = append(s.buf, event...)
	s.buf = append(s.buf, "\ndata: {\"type\":\""...)
	s.buf = append(s.buf, event...)
	s.buf = append(s.buf, '"')
}

// end closes an event.
func (s *stream) end() bool {
	s.buf = append(s.buf, "\n\n"...)
	return s.send(s.token - 1)
}

func (s *stream) index() {
	s.buf = append(s.buf, `,"index":`...)
	s.buf = strconv.AppendInt(s.buf, int64(s.block), 10)
}

// start opens a content block.
func (s *stream) start(block string) {
	s.begin("content_block_start")
	s.index()
	s.buf = append(s.buf, `,"content_block":`...)
	s.buf = append(s.buf, block...)
	s.started()
}

func (s *stream) callStart(x *llmmock.Exchange, c *llmmock.Call, i int) {
	s.begin("content_block_start")
	s.index()
	s.buf = append(s.buf, `,"content_block":{"type":"tool_use","id":`...)
	s.buf = appendCallID(s.buf, x, c, i)
	s.buf = append(s.buf, `,"name":`...)
	s.buf = provider.AppendString(s.buf, c.Name)
	s.buf = append(s.buf, `,"input":{},"caller":{"type":"direct"},"toolset_name":null}`...)
	s.started()
}

func (s *stream) started() {
	s.buf = append(s.buf, '}')
	s.end()
	if !s.pinged {
		s.pinged = true
		s.begin("ping")
		s.buf = append(s.buf, '}')
		s.end()
	}
}

// stop closes the content block.
func (s *stream) stop() {
	s.begin("content_block_stop")
	s.index()
	s.buf = append(s.buf, '}')
	s.end()
	s.block++
}

// delta begins what all deltas of the block share.
func (s *stream) delta(kind string) {
	s.begin("content_block_delta")
	s.index()
	s.buf = append(s.buf, `,"delta":{"type":`...)
	s.buf = append(s.buf, kind...)
	s.prefix = len(s.buf)
}

// piece is one delta that carries text, with the token that is next.
func (s *stream) piece(text string) {
	s.buf = provider.AppendString(s.buf[:s.prefix], text)
	s.buf = append(s.buf, "}}\n\n"...)
	s.send(s.token)
}

// deltas are those of all tokens of a block, or of its whole text when it is not cut into tokens.
func (s *stream) deltas(kind string, tokens []string, text string) {
	s.delta(kind)
	if len(tokens) == 0 {
		s.piece(text)
		s.token++
		return
	}
	for _, t := range tokens {
		if s.done {
			return
		}
		s.piece(t)
		s.token++
	}
}
