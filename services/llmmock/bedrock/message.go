package bedrock

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"iter"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

const (
	jsonType   = "application/json"
	streamType = "application/vnd.amazon.eventstream"
)

// converseFormat writes the answers of Converse.
type converseFormat struct{ format }

// StreamType implements provider.Format.
func (f *converseFormat) StreamType() string { return streamType }

// Whole implements provider.Format.
func (f *converseFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	dst = append(dst, `{"metrics":{"latencyMs":`...)
	dst = strconv.AppendInt(dst, latency(x), 10)
	dst = append(dst, `},`...)
	dst = appendOutput(dst, x)
	dst = append(dst, `,"usage":`...)
	dst = appendUsage(dst, &x.Answer.Usage, "s")
	dst = f.appendTiers(dst)
	return 200, jsonType, append(dst, '}')
}

// latency in milliseconds, as it was scheduled and not as it came out: for the same bytes in every run.
func latency(x *llmmock.Exchange) int64 {
	return x.Schedule.Whole(max(x.Answer.Usage.Output, 1)).Milliseconds()
}

// appendOutput appends the members output and stopReason.
func appendOutput(dst []byte, x *llmmock.Exchange) []byte {
	a := x.Answer
	dst = append(dst, `"output":{"message":{"content":[`...)
	start := len(dst)
	next := func() {
		if len(dst) > start {
			dst = append(dst, ',')
		}
	}
	if a.Thinking != "" {
		dst = append(dst, `{"reasoningContent":{"reasoningText":{"text":`...)
		dst = provider.AppendString(dst, a.Thinking)
		dst = append(dst, `,"signature":"`...)
		dst = appendSignature(dst, x.ID, a.Thinking)
		dst = append(dst, `"}}}`...)
	}
	if a.Text != "" {
		next()
		dst = append(dst, `{"text":`...)
		dst = provider.AppendString(dst, a.Text)
		dst = append(dst, '}')
	}
	for i := range a.Calls {
		c := &a.Calls[i]
		next()
		dst = append(dst, `{"toolUse":{"input":`...)
		if json.Valid([]byte(c.Arguments)) {
			dst = append(dst, c.Arguments...)
		} else {
			dst = append(dst, `{}`...)
		}
		dst = append(dst, `,"name":`...)
		dst = provider.AppendString(dst, c.Name)
		dst = append(dst, `,"toolUseId":`...)
		dst = appendCallID(dst, x, c, i)
		dst = append(dst, `}}`...)
	}
	dst = append(dst, `],"role":"assistant"}},"stopReason":"`...)
	dst = append(dst, stopReason(a)...)
	return append(dst, '"')
}

func stopReason(a *llmmock.Answer) string {
	switch a.Finish {
	case llmmock.AtLength:
		return "max_tokens"
	case llmmock.AtStop:
		return "stop_sequence"
	case llmmock.ToolCalls:
		return "tool_use"
	case llmmock.Refused, llmmock.Filtered:
		return "content_filtered"
	}
	if len(a.Calls) > 0 {
		return "tool_use"
	}
	return "end_turn"
}

func appendCallID(dst []byte, x *llmmock.Exchange, c *llmmock.Call, i int) []byte {
	id := c.ID
	if id == "" {
		id = x.ID[:min(len(x.ID), 20)] + strconv.Itoa(10+i)
	}
	return provider.AppendString(dst, "tooluse_"+id[:min(len(id), 22)])
}

// appendSignature stands for the one by which a model's maker knows its thoughts again.
func appendSignature(dst []byte, id, thinking string) []byte {
	h := sha256.New()
	_, _ = h.Write([]byte(id))
	_, _ = h.Write([]byte(thinking))
	return base64.StdEncoding.AppendEncode(dst, h.Sum(make([]byte, 0, sha256.Size)))
}

// appendUsage appends the tokens, of which those read from a cache or written to one are counted apart. These two members end
// with s in Converse, and with Count in the model's own form.
func appendUsage(dst []byte, u *llmmock.Usage, suffix string) []byte {
	dst = append(dst, `{"cacheReadInputToken`...)
	dst = append(dst, suffix...)
	dst = append(dst, `":`...)
	dst = strconv.AppendInt(dst, int64(u.Cached), 10)
	dst = append(dst, `,"cacheWriteInputToken`...)
	dst = append(dst, suffix...)
	dst = append(dst, `":`...)
	dst = strconv.AppendInt(dst, int64(u.CacheWrite), 10)
	dst = append(dst, `,"inputTokens":`...)
	dst = strconv.AppendInt(dst, int64(uncached(u)), 10)
	dst = append(dst, `,"outputTokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Output), 10)
	dst = append(dst, `,"totalTokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Total()), 10)
	return append(dst, '}')
}

func uncached(u *llmmock.Usage) int { return max(u.Input-u.Cached-u.CacheWrite, 0) }

// appendTiers appends what was asked for of speed and price.
func (f *format) appendTiers(dst []byte) []byte {
	if f.latency != "" {
		dst = append(dst, `,"performanceConfig":{"latency":`...)
		dst = provider.AppendString(dst, f.latency)
		dst = append(dst, '}')
	}
	if f.tier != "" {
		dst = append(dst, `,"serviceTier":{"type":`...)
		dst = provider.AppendString(dst, f.tier)
		dst = append(dst, '}')
	}
	return dst
}

// Stream implements provider.Format. Thoughts, text and calls are content blocks one after the other; the tokens of all of them
// are numbered in that order.
func (f *converseFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		s := stream{yield: yield, frame: framed{}, cacheSuffix: "s", buf: make([]byte, 0, 512)}
		s.converse(&f.format, x)
	}
}

// envelope is how an event of a stream goes on the wire.
type envelope interface {
	// begin sets buf to all that comes before the event's object.
	begin(buf []byte, name string) []byte
	// end is the whole of it; from is where the object begins. The bytes before that stay as they are or are set anew by the next
	// end.
	end(buf []byte, from int) []byte
}

// framed events are those of Converse: their object is the payload of the frame.
type framed struct{}

func (framed) begin(buf []byte, name string) []byte { return beginFrame(buf, "event", name) }
func (framed) end(buf []byte, payload int) []byte   { return endFrame(buf, payload) }

// stream writes events. After the first one that is not wanted it writes no more.
type stream struct {
	yield func(llmmock.Chunk) bool
	done  bool
	frame envelope
	buf   []byte
	// payload is where the object of the event in buf begins.
	payload int
	// token is the number of the next one, and block that of the content block.
	token, block int
	// prefix is how long the beginning of buf is that all deltas of a block share.
	prefix int
	// cacheSuffix is appendUsage's.
	cacheSuffix string
}

func (s *stream) begin(name string) {
	s.buf = s.frame.begin(s.buf, name)
	s.payload = len(s.buf)
}

func (s *stream) send(token int) {
	if s.done {
		return
	}
	s.done = !s.yield(llmmock.Chunk{Data: s.frame.end(s.buf, s.payload), Token: max(token, 0)})
}

func (s *stream) converse(f *format, x *llmmock.Exchange) {
	a := x.Answer
	s.begin("messageStart")
	s.buf = append(s.buf, `{"role":"assistant"}`...)
	s.send(0)
	if a.Thinking != "" {
		s.delta(`{"reasoningContent":{"text":`, `}}`, a.ThinkingTokens, a.Thinking)
		s.begin("contentBlockDelta")
		s.index()
		s.buf = append(s.buf, `,"delta":{"reasoningContent":{"signature":"`...)
		s.buf = appendSignature(s.buf, x.ID, a.Thinking)
		s.buf = append(s.buf, `"}}}`...)
		s.send(s.token - 1)
		s.stop()
	}
	if a.Text != "" {
		s.delta(`{"text":`, `}`, a.Tokens, a.Text)
		s.stop()
	}
	for i := range a.Calls {
		s.call(x, &a.Calls[i], i)
	}
	s.begin("messageStop")
	s.buf = append(s.buf, `{"stopReason":"`...)
	s.buf = append(s.buf, stopReason(a)...)
	s.buf = append(s.buf, `"}`...)
	s.send(s.token - 1)
	s.begin("metadata")
	s.buf = append(s.buf, `{"metrics":{"latencyMs":`...)
	s.buf = strconv.AppendInt(s.buf, latency(x), 10)
	s.buf = append(s.buf, `},"usage":`...)
	s.buf = appendUsage(s.buf, &a.Usage, s.cacheSuffix)
	s.buf = f.appendTiers(s.buf)
	s.buf = append(s.buf, '}')
	s.send(s.token - 1)
}

func (s *stream) index() {
	s.buf = append(s.buf, `{"contentBlockIndex":`...)
	s.buf = strconv.AppendInt(s.buf, int64(s.block), 10)
}

func (s *stream) stop() {
	s.begin("contentBlockStop")
	s.index()
	s.buf = append(s.buf, '}')
	s.send(s.token - 1)
	s.block++
}

// delta writes one delta for each of the tokens, or one for the whole text when it is not cut into tokens.
func (s *stream) delta(before, after string, tokens []string, text string) {
	s.begin("contentBlockDelta")
	s.index()
	s.buf = append(s.buf, `,"delta":`...)
	s.buf = append(s.buf, before...)
	s.prefix = len(s.buf)
	if len(tokens) == 0 {
		tokens = []string{text}
	}
	for _, t := range tokens {
		if s.done {
			return
		}
		s.piece(t, after)
	}
}

func (s *stream) piece(text, after string) {
	s.buf = provider.AppendString(s.buf[:s.prefix], text)
	s.buf = append(s.buf, after...)
	s.buf = append(s.buf, '}')
	s.send(s.token)
	s.token++
}

func (s *stream) call(x *llmmock.Exchange, c *llmmock.Call, i int) {
	s.begin("contentBlockStart")
	s.index()
	s.buf = append(s.buf, `,"start":{"toolUse":{"name":`...)
	s.buf = provider.AppendString(s.buf, c.Name)
	s.buf = append(s.buf, `,"toolUseId":`...)
	s.buf = appendCallID(s.buf, x, c, i)
	s.buf = append(s.buf, `}}}`...)
	s.send(s.token - 1)
	s.begin("contentBlockDelta")
	s.index()
	s.buf = append(s.buf, `,"delta":{"toolUse":{"input":`...)
	s.prefix = len(s.buf)
	arguments := c.Arguments
	if arguments == "" {
		arguments = "{}"
	}
	for p := range provider.Pieces(arguments) {
		if s.done {
			return
		}
		s.piece(p, `}}`)
	}
	s.stop()
}

// countFormat writes how many tokens a prompt has.
type countFormat struct{ format }

// StreamType implements provider.Format.
func (f *countFormat) StreamType() string { return jsonType }

// Whole implements provider.Format.
func (f *countFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	dst = append(dst, `{"inputTokens":`...)
	dst = strconv.AppendInt(dst, int64(x.Answer.Usage.Input), 10)
	return 200, jsonType, append(dst, '}')
}

// Stream implements provider.Format: there is no stream of this, so that it is one piece.
func (f *countFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] { return onePiece(f, x) }

func onePiece(f provider.Format, x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		_, _, body := f.Whole(nil, x)
		yield(llmmock.Chunk{Data: body})
	}
}
