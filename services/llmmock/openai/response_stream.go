package openai

import (
	"iter"
	"slices"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// Stream implements provider.Format.
func (f *response) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		if f.background {
			f.keep(x) // whoever leaves this stream may go on with it
		}
		s := responseStream{response: f, x: x, yield: yield, after: -1, paced: true, keeps: !f.background}
		s.run(final(x))
	}
}

// FailureChunk implements provider.Format. It comes instead of the event that was asked for last, and has its number.
func (f *response) FailureChunk(dst []byte, failure *llmmock.Failure, x *llmmock.Exchange) []byte {
	f.events = max(f.events-1, 0)
	r := f.w.resolve(failure, x)
	dst = append(dst, "event: error\ndata: {\"type\":\"error\",\"code\":"...)
	code := r.code
	if code == "" {
		code = r.kind
	}
	dst = appendOrNull(dst, code)
	dst = append(dst, `,"message":`...)
	dst = provider.AppendString(dst, r.message)
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, failure.Field)
	dst = append(dst, `,"sequence_number":`...)
	dst = strconv.AppendInt(dst, int64(f.events), 10)
	dst = append(dst, "}\n\nevent: response.failed\ndata: {\"type\":\"response.failed\",\"response\":"...)
	dst = f.append(dst, x, "failed", failure)
	dst = append(dst, `,"sequence_number":`...)
	dst = strconv.AppendInt(dst, int64(f.events+1), 10)
	f.events += 2
	return append(dst, "}\n\n"...)
}

// responseStream writes the events of one response.
type responseStream struct {
	*response
	x     *llmmock.Exchange
	yield func(llmmock.Chunk) bool
	buf   []byte
	pad   string
	// after is the number of the last event that the client has.
	after int
	// paced: the events are due with their tokens. keeps: the response is stored when it is complete.
	paced, keeps bool
	token        int // the next one's number
	gone         bool
}

func (s *responseStream) run(final string) {
	x, a := s.x, s.x.Answer
	s.buf = make([]byte, 0, 1024)
	if s.obfuscate {
		s.pad = padding(x.ID)
	}
	before := "in_progress"
	if s.background {
		before = "queued"
	}
	s.state("response.created", before)
	if s.background {
		s.state("response.queued", before)
	}
	s.state("response.in_progress", "in_progress")
	if final != "completed" && final != "incomplete" {
		return // it has not come further
	}
	i := 0
	if hasThought(a) {
		s.think(i)
		i++
	}
	if s.hosts(x) {
		s.host(i)
		i++
	}
	if hasMessage(a) {
		s.speak(i, final)
		i++
	}
	for n := range a.Calls {
		s.callTool(i, n, final)
		i++
	}
	if s.gone {
		return
	}
	if s.keeps {
		s.keep(x)
	}
	s.state("response."+final, final)
}

// begin starts an event, up to the members of its own.
func (s *responseStream) begin(event string) {
	s.buf = append(s.buf[:0], "event: "...)
	s.buf = append(s.buf, event...)
	s.buf = append(s.buf, "\ndata: {\"type\":\""...)
	s.buf = append(s.buf, event...)
	s.buf = append(s.buf, '"')
}

// end finishes it and sends it with the token that was said last.
func (s *responseStream) end() {
	s.buf = append(s.buf, `,"sequence_number":`...)
	s.buf = strconv.AppendInt(s.buf, int64(s.events), 10)
	s.buf = append(s.buf, "}\n\n"...)
	s.events++
	if s.gone || s.events-1 <= s.after {
		return
	}
	token := 0
	if s.paced {
		token = max(s.token-1, 0)
	}
	s.gone = !s.yield(llmmock.Chunk{Data: s.buf, Token: token})
}

// state sends the whole response.
func (s *responseStream) state(event, status string) {
	if s.gone {
		return
	}
	s.begin(event)
	s.buf = append(s.buf, `,"response":`...)
	s.buf = s.append(s.buf, s.x, status, nil)
	s.end()
}

// at appends where in the response the event belongs.
func (s *responseStream) at(prefix string, i int, inner string) {
	s.buf = append(s.buf, `,"item_id":"`...)
	s.buf = s.itemID(s.buf, s.x, prefix, i)
	s.buf = append(s.buf, `","output_index":`...)
	s.buf = strconv.AppendInt(s.buf, int64(i), 10)
	s.buf = append(s.buf, inner...)
}

// itemEvent begins an event with a whole item in it.
func (s *responseStream) itemEvent(event string, i int) {
	s.begin(event)
	s.buf = append(s.buf, `,"output_index":`...)
	s.buf = strconv.AppendInt(s.buf, int64(i), 10)
	s.buf = append(s.buf, `,"item":`...)
}

// deltas sends an event for each piece. All begin alike; inner says where in the item they belong.
func (s *responseStream) deltas(event, prefix string, i int, inner string, pieces iter.Seq[string], probable bool) {
	if s.gone {
		return
	}
	s.begin(event)
	s.at(prefix, i, inner)
	s.buf = append(s.buf, `,"delta":`...)
	same := len(s.buf)
	var p probabilities
	if probable && s.logprobs {
		p = s.probabilities(s.x)
	}
	n := 0
	for t := range pieces {
		s.buf = provider.AppendString(s.buf[:same], t)
		if probable {
			s.buf = append(s.buf, `,"logprobs":[`...)
			if s.logprobs {
				s.buf = p.entry(s.buf, t, n)
			}
			s.buf = append(s.buf, ']')
		}
		if s.pad != "" {
			s.buf = append(s.buf, `,"obfuscation":"`...)
			s.buf = append(s.buf, padded(s.pad, t)...)
			s.buf = append(s.buf, '"')
		}
		n++
		s.token++
		s.end()
		if s.gone {
			return
		}
	}
}

func (s *responseStream) think(i int) {
	if s.gone {
		return
	}
	a := s.x.Answer
	s.itemEvent("response.output_item.added", i)
	s.buf = s.reasoning(s.buf, s.x, i, false)
	s.end()
	if s.summarised() {
		const inner = `,"summary_index":0`
		s.begin("response.reasoning_summary_part.added")
		s.at("rs_", i, inner+`,"part":`)
		s.buf = appendSummary(s.buf, "")
		s.end()
		pieces := a.ThinkingTokens
		if len(pieces) == 0 {
			pieces = []string{a.Thinking}
		}
		s.deltas("response.reasoning_summary_text.delta", "rs_", i, inner, slices.Values(pieces), false)
		s.begin("response.reasoning_summary_text.done")
		s.at("rs_", i, inner+`,"text":`)
		s.buf = provider.AppendString(s.buf, a.Thinking)
		s.end()
		s.begin("response.reasoning_summary_part.done")
		s.at("rs_", i, inner+`,"part":`)
		s.buf = appendSummary(s.buf, a.Thinking)
		s.end()
	} else {
		s.token += len(a.ThinkingTokens)
	}
	s.itemEvent("response.output_item.done", i)
	s.buf = s.reasoning(s.buf, s.x, i, true)
	s.end()
}

func (s *responseStream) speak(i int, final string) {
	if s.gone {
		return
	}
	a, x := s.x.Answer, s.x
	const inner = `,"content_index":0`
	s.itemEvent("response.output_item.added", i)
	s.buf = s.message(s.buf, x, i, "in_progress", false)
	s.end()
	s.begin("response.content_part.added")
	s.at("msg_", i, inner+`,"part":`)
	s.buf = s.part(s.buf, x, "", false)
	s.end()
	if a.Finish == llmmock.Refused {
		s.deltas("response.refusal.delta", "msg_", i, inner, slices.Values(tokens(a)), false)
		s.begin("response.refusal.done")
		s.at("msg_", i, inner+`,"refusal":`)
		s.buf = provider.AppendString(s.buf, a.Text)
	} else {
		s.deltas("response.output_text.delta", "msg_", i, inner, slices.Values(tokens(a)), true)
		if cited := s.annotation(nil, x); len(cited) > 0 {
			s.begin("response.output_text.annotation.added")
			s.at("msg_", i, inner+`,"annotation_index":0,"annotation":`)
			s.buf = append(s.buf, cited...)
			s.end()
		}
		s.begin("response.output_text.done")
		s.at("msg_", i, inner+`,"text":`)
		s.buf = provider.AppendString(s.buf, a.Text)
		s.buf = append(s.buf, `,"logprobs":[`...)
		s.buf = append(s.allProbabilities(s.buf, x), ']')
	}
	s.end()
	s.begin("response.content_part.done")
	s.at("msg_", i, inner+`,"part":`)
	s.buf = s.part(s.buf, x, a.Text, true)
	s.end()
	s.itemEvent("response.output_item.done", i)
	s.buf = s.message(s.buf, x, i, final, true)
	s.end()
}

// callTool sends the n-th call, which is the i-th item.
func (s *responseStream) callTool(i, n int, final string) {
	if s.gone {
		return
	}
	c := &s.x.Answer.Calls[n]
	s.itemEvent("response.output_item.added", i)
	s.buf = s.toolCall(s.buf, s.x, i, n, "in_progress", false)
	s.end()
	if slices.Contains(s.custom, c.Name) {
		input := customInput(c.Arguments)
		s.deltas("response.custom_tool_call_input.delta", "ctc_", i, "", provider.Pieces(input), false)
		s.begin("response.custom_tool_call_input.done")
		s.at("ctc_", i, `,"input":`)
		s.buf = provider.AppendString(s.buf, input)
	} else {
		s.deltas("response.function_call_arguments.delta", "fc_", i, "", provider.Pieces(c.Arguments), false)
		s.begin("response.function_call_arguments.done")
		s.at("fc_", i, `,"name":`)
		s.buf = provider.AppendString(s.buf, c.Name)
		s.buf = append(s.buf, `,"arguments":`...)
		s.buf = provider.AppendString(s.buf, c.Arguments)
	}
	s.end()
	s.itemEvent("response.output_item.done", i)
	s.buf = s.toolCall(s.buf, s.x, i, n, final, true)
	s.end()
}
