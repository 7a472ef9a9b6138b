package openai

import (
	"iter"
	"slices"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// Stream implements provider.Format.
func (f *chat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		s := chatStream{chat: f, x: x, yield: yield}
		s.run()
	}
}

// FailureChunk implements provider.Format.
func (f *chat) FailureChunk(dst []byte, failure *llmmock.Failure, x *llmmock.Exchange) []byte {
	return f.failureChunk(dst, failure, x)
}

// chatStream writes one stream. All chunks begin alike, so that only what differs is written for each.
type chatStream struct {
	*chat
	x     *llmmock.Exchange
	yield func(llmmock.Chunk) bool
	buf   []byte
	// same is how much of buf all chunks share.
	same int
	// pad is where the obfuscation is taken from.
	pad string
}

// cursor is how far a choice has come.
type cursor struct {
	answer *llmmock.Answer
	probs  probabilities
	text   []string // that is still to come
	spoken int
	call   int    // the one that is streamed
	rest   string // of its arguments
	opened bool   // it was announced
	done   bool
}

func (s *chatStream) run() {
	x := s.x
	s.buf = append(make([]byte, 0, 640), "data: "...)
	if s.w.azure() {
		s.buf = append(s.buf, `{"choices":[],"created":0,"id":"","model":"","object":"",`+promptFiltered+"}\n\n"...)
		if !s.yield(llmmock.Chunk{Data: s.buf}) {
			return
		}
		s.buf = s.buf[:len("data: ")]
	}
	s.buf = s.head(s.buf, x, "chat.completion.chunk")
	s.same = len(s.buf)
	if s.obfuscate {
		s.pad = padding(x.ID)
	}
	var one [1]cursor
	cs := one[:]
	if n := choices(x); n > 1 {
		cs = make([]cursor, n)
	}
	before := thought(x)
	for i := range cs {
		c := &cs[i]
		c.answer = choice(x, i)
		c.text = tokens(c.answer)
		if s.logprobs {
			c.probs = s.probabilities(x, i)
		}
		if !s.role(i, c, before) {
			return
		}
	}
	last := before
	for step, open := 0, len(cs); open > 0; step++ {
		for i := range cs {
			c := &cs[i]
			if c.done {
				continue
			}
			due := before + step
			piece, ok := s.next(i, c, due)
			if !ok {
				return
			}
			if piece {
				last = due
				continue
			}
			c.done = true
			open--
			if s.spoken(c.answer) && !s.sound(i, last) || !s.end(i, c, last) {
				return
			}
		}
	}
	if s.includeUsage {
		s.buf = append(s.buf[:s.same], `],"usage":`...)
		s.buf = s.usage(s.buf, x)
		if !s.flush("", last) {
			return
		}
	}
	s.keep(x)
	s.yield(llmmock.Chunk{Data: append(s.buf[:0], "data: [DONE]\n\n"...), Token: last})
}

// open begins the chunk of a choice, up to its delta.
func (s *chatStream) open(i int) {
	s.buf = append(s.buf[:s.same], `{"index":`...)
	s.buf = strconv.AppendInt(s.buf, int64(i), 10)
	s.buf = append(s.buf, `,"delta":{`...)
}

// close ends the delta and the chunk. piece is what it carried.
func (s *chatStream) close(piece string, due int) bool {
	s.buf = append(s.buf, `},"logprobs":null,"finish_reason":null`...)
	return s.closed(piece, due)
}

func (s *chatStream) closed(piece string, due int) bool {
	if s.w.azure() {
		s.buf = append(s.buf, `,"content_filter_results":`+filtered...)
	}
	if s.includeUsage {
		s.buf = append(s.buf, `}],"usage":null`...)
	} else {
		s.buf = append(s.buf, `}]`...)
	}
	return s.flush(piece, due)
}

func (s *chatStream) flush(piece string, due int) bool {
	if s.obfuscate {
		s.buf = append(s.buf, `,"obfuscation":"`...)
		s.buf = append(s.buf, padded(s.pad, piece)...)
		s.buf = append(s.buf, '"')
	}
	s.buf = append(s.buf, "}\n\n"...)
	return s.yield(llmmock.Chunk{Data: s.buf, Token: due})
}

// padding is what chunks are filled up with.
func padding(id string) string {
	if len(id) < 16 {
		return "aZ3kP0vQx9LmT2bY"
	}
	return id
}

// padded is so much of pad that pieces of like lengths look alike to who only sees how long they are.
func padded(pad, piece string) string {
	const unit = 16
	return pad[:unit-1-(len(piece)+unit-1)%unit]
}

func (s *chatStream) role(i int, c *cursor, due int) bool {
	s.open(i)
	if len(c.text) == 0 && len(c.answer.Calls) > 0 || c.answer.Finish == llmmock.Refused || s.spoken(c.answer) {
		s.buf = append(s.buf, `"role":"assistant","content":null,"refusal":null`...)
	} else {
		s.buf = append(s.buf, `"role":"assistant","content":"","refusal":null`...)
	}
	return s.close("", due)
}

// next streams the next piece of a choice, and says whether there was one.
func (s *chatStream) next(i int, c *cursor, due int) (piece, ok bool) {
	if len(c.text) > 0 {
		t := c.text[0]
		c.text = c.text[1:]
		return true, s.say(i, c, t, due)
	}
	for c.call < len(c.answer.Calls) {
		if !c.opened {
			c.opened = true
			if !s.announce(i, c, due) {
				return true, false
			}
		}
		if n := provider.Piece(c.rest); n > 0 {
			t := c.rest[:n]
			c.rest = c.rest[n:]
			return true, s.argue(i, c, t, due)
		}
		c.call++
		c.opened = false
		if s.functions {
			break // which knew one call only
		}
	}
	return false, true
}

func (s *chatStream) say(i int, c *cursor, t string, due int) bool {
	s.open(i)
	refused := c.answer.Finish == llmmock.Refused
	switch {
	case refused:
		s.buf = append(s.buf, `"refusal":`...)
	case s.audio != "":
		s.buf = append(s.appendAudioID(s.buf, s.x, i), `,"transcript":`...)
		s.buf = append(provider.AppendString(s.buf, t), '}')
		return s.close(t, due)
	default:
		s.buf = append(s.buf, `"content":`...)
	}
	s.buf = provider.AppendString(s.buf, t)
	if !s.logprobs {
		return s.close(t, due)
	}
	s.buf = append(s.buf, `},"logprobs":`...)
	s.buf = c.probs.open(s.buf, refused)
	s.buf = c.probs.entry(s.buf, t, c.spoken)
	c.spoken++
	s.buf = append(c.probs.close(s.buf, refused), `,"finish_reason":null`...)
	return s.closed(t, due)
}

// announce begins a call.
func (s *chatStream) announce(i int, c *cursor, due int) bool {
	call := &c.answer.Calls[c.call]
	c.rest = call.Arguments
	s.open(i)
	if s.functions {
		s.buf = append(s.buf, `"function_call":{"name":`...)
		s.buf = provider.AppendString(s.buf, call.Name)
		s.buf = append(s.buf, `,"arguments":""}`...)
		return s.close("", due)
	}
	if slices.Contains(s.custom, call.Name) {
		c.rest = customInput(call.Arguments)
	}
	s.buf = append(s.buf, `"tool_calls":[{"index":`...)
	s.buf = strconv.AppendInt(s.buf, int64(c.call), 10)
	s.buf = append(s.buf, ',')
	s.buf = s.call(s.buf, s.x, i, c.call, false)
	s.buf = append(s.buf, `}]`...)
	return s.close("", due)
}

// argue streams a piece of what is called with.
func (s *chatStream) argue(i int, c *cursor, t string, due int) bool {
	s.open(i)
	switch {
	case s.functions:
		s.buf = append(s.buf, `"function_call":{"arguments":`...)
		s.buf = append(provider.AppendString(s.buf, t), '}')
		return s.close(t, due)
	case slices.Contains(s.custom, c.answer.Calls[c.call].Name):
		s.buf = append(s.buf, `"tool_calls":[{"index":`...)
		s.buf = strconv.AppendInt(s.buf, int64(c.call), 10)
		s.buf = append(s.buf, `,"custom":{"input":`...)
	default:
		s.buf = append(s.buf, `"tool_calls":[{"index":`...)
		s.buf = strconv.AppendInt(s.buf, int64(c.call), 10)
		s.buf = append(s.buf, `,"function":{"arguments":`...)
	}
	s.buf = append(provider.AppendString(s.buf, t), `}}]`...)
	return s.close(t, due)
}

func (s *chatStream) end(i int, c *cursor, due int) bool {
	s.open(i)
	s.buf = append(s.buf, `},"logprobs":null,"finish_reason":"`...)
	s.buf = append(s.buf, s.finish(c.answer)...)
	s.buf = append(s.buf, '"')
	return s.closed("", due)
}
