package gemini

import (
	"encoding/json"
	"iter"
	"strconv"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// generateFormat writes generated content.
type generateFormat struct {
	format
	// array: a stream is one JSON array instead of server-sent events.
	array bool
	// showThoughts: what the model thinks is part of the content.
	showThoughts bool
	// begun: a piece of the stream was sent, and its array is open.
	begun bool
}

// StreamType implements provider.Format.
func (f *generateFormat) StreamType() string {
	if f.array {
		return contentType
	}
	return "text/event-stream"
}

// Whole implements provider.Format.
func (f *generateFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, _ string, body []byte) {
	dst = append(dst, `{"candidates":[`...)
	for i := range 1 + len(x.More) {
		a := candidate(x, i)
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		if a.Finish != llmmock.Filtered {
			dst = f.appendContent(dst, x, a)
			dst = append(dst, ',')
		}
		dst = appendFinish(dst, a, i)
		dst = append(dst, '}')
	}
	dst = append(dst, `],`...)
	dst = f.appendTail(dst, x)
	return 200, contentType, append(dst, '\n')
}

// candidate is the i-th answer.
func candidate(x *llmmock.Exchange, i int) *llmmock.Answer {
	if i == 0 {
		return x.Answer
	}
	return x.More[i-1]
}

// appendContent appends the member content with all parts.
func (f *generateFormat) appendContent(dst []byte, x *llmmock.Exchange, a *llmmock.Answer) []byte {
	dst = append(dst, `"content":{"parts":[`...)
	start := len(dst)
	part := func() {
		if len(dst) > start {
			dst = append(dst, ',')
		}
	}
	if a.Thinking != "" && f.showThoughts {
		dst = append(dst, `{"text":`...)
		dst = provider.AppendString(dst, a.Thinking)
		dst = append(dst, `,"thought":true}`...)
	}
	if a.Text != "" || len(a.Calls) == 0 {
		part()
		dst = append(dst, `{"text":`...)
		dst = provider.AppendString(dst, a.Text)
		dst = append(dst, '}')
	}
	for i := range a.Calls {
		part()
		dst = f.appendCall(dst, x, &a.Calls[i])
	}
	return append(dst, `],"role":"model"}`...)
}

// appendCall appends the part that is one call. Vertex AI has no ids for them.
func (f *generateFormat) appendCall(dst []byte, x *llmmock.Exchange, c *llmmock.Call) []byte {
	dst = append(dst, `{"functionCall":{"name":`...)
	dst = provider.AppendString(dst, c.Name)
	dst = append(dst, `,"args":`...)
	if json.Valid([]byte(c.Arguments)) {
		dst = append(dst, c.Arguments...)
	} else {
		dst = append(dst, `{}`...)
	}
	if !f.vertex && c.ID != "" {
		dst = append(dst, `,"id":`...)
		dst = provider.AppendString(dst, c.ID)
	}
	return append(dst, `}}`...)
}

// appendFinish appends why a candidate ended and which one it is.
func appendFinish(dst []byte, a *llmmock.Answer, i int) []byte {
	reason := "STOP"
	switch a.Finish {
	case llmmock.AtLength:
		reason = "MAX_TOKENS"
	case llmmock.Filtered:
		reason = "SAFETY"
	case llmmock.Refused:
		reason = "PROHIBITED_CONTENT"
	}
	dst = append(dst, `"finishReason":"`...)
	dst = append(dst, reason...)
	dst = append(dst, `","index":`...)
	dst = strconv.AppendInt(dst, int64(i), 10)
	if reason == "SAFETY" {
		dst = append(dst, `,"safetyRatings":[{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","probability":"HIGH","blocked":true}]`...)
	}
	return dst
}

// usage of all candidates together. What is thought counts apart here.
type usage struct{ prompt, cached, candidates, thoughts int }

func usageOf(x *llmmock.Exchange) usage {
	u := usage{prompt: x.Answer.Usage.Input, cached: x.Answer.Usage.Cached}
	for i := range 1 + len(x.More) {
		a := candidate(x, i)
		u.thoughts += a.Usage.Reasoning
		u.candidates += max(a.Usage.Output-a.Usage.Reasoning, 0)
	}
	return u
}

// appendTail appends the members behind the candidates and closes the response.
func (f *generateFormat) appendTail(dst []byte, x *llmmock.Exchange) []byte {
	u := usageOf(x)
	dst = append(dst, `"usageMetadata":{"promptTokenCount":`...)
	dst = strconv.AppendInt(dst, int64(u.prompt), 10)
	dst = append(dst, `,"candidatesTokenCount":`...)
	dst = strconv.AppendInt(dst, int64(u.candidates), 10)
	dst = append(dst, `,"totalTokenCount":`...)
	dst = strconv.AppendInt(dst, int64(u.prompt+u.candidates+u.thoughts), 10)
	return f.appendIdentity(appendDetails(dst, u), x)
}

// appendDetails appends what of the usage is the same in every piece of a stream, and closes it.
func appendDetails(dst []byte, u usage) []byte {
	dst = appendModality(append(dst, `,"promptTokensDetails":`...), u.prompt)
	if u.cached > 0 {
		dst = append(dst, `,"cachedContentTokenCount":`...)
		dst = strconv.AppendInt(dst, int64(u.cached), 10)
		dst = appendModality(append(dst, `,"cacheTokensDetails":`...), u.cached)
	}
	if u.thoughts > 0 {
		dst = append(dst, `,"thoughtsTokenCount":`...)
		dst = strconv.AppendInt(dst, int64(u.thoughts), 10)
	}
	return append(dst, `},`...)
}

func appendModality(dst []byte, n int) []byte {
	dst = append(dst, `[{"modality":"TEXT","tokenCount":`...)
	dst = strconv.AppendInt(dst, int64(n), 10)
	return append(dst, `}]`...)
}

// appendIdentity appends the model and the id, and closes the response.
func (f *generateFormat) appendIdentity(dst []byte, x *llmmock.Exchange) []byte {
	dst = append(dst, `"modelVersion":`...)
	dst = provider.AppendString(dst, x.Model)
	if f.vertex {
		dst = append(dst, `,"createTime":"`...)
		dst = x.Created.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"responseId":"`...)
	dst = append(dst, responseID(x)...)
	return append(dst, `"}`...)
}

// speaker is a candidate on its way through a stream.
type speaker struct {
	a *llmmock.Answer
	// tokens are numbered through thoughts, text and calls; next is the number of the next one.
	next    int
	thought int
	text    int
	call    int
	done    bool
}

// Stream implements provider.Format. Candidates come side by side, each token when the candidate has come so far; a call of a tool
// is one piece, due with the last of its tokens.
func (f *generateFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		f.begun = false
		s := streamer{f: f, x: x, yield: yield, usage: usageOf(x)}
		s.tail = f.appendIdentity(appendDetails(nil, s.usage), x)
		s.speakers = make([]speaker, 1+len(x.More))
		for i := range s.speakers {
			s.speakers[i].a = candidate(x, i)
		}
		for !s.stopped {
			// The one that is behind the others speaks.
			now := -1
			for i := range s.speakers {
				if !s.speakers[i].done && (now < 0 || s.speakers[i].next < s.speakers[now].next) {
					now = i
				}
			}
			if now < 0 {
				break
			}
			s.speak(now)
		}
		if f.array && !s.stopped {
			yield(llmmock.Chunk{Data: []byte("]"), Token: s.last})
		}
	}
}

type streamer struct {
	f        *generateFormat
	x        *llmmock.Exchange
	yield    func(llmmock.Chunk) bool
	usage    usage
	tail     []byte
	buf      []byte
	speakers []speaker
	// spoken tokens of candidates, without thoughts.
	spoken  int
	last    int
	stopped bool
}

// speak writes the next piece of a candidate.
func (s *streamer) speak(i int) {
	p := &s.speakers[i]
	a := p.a
	thoughts, tokens := len(a.ThinkingTokens), len(a.Tokens)
	if thoughts == 0 && a.Thinking != "" {
		thoughts = 1
	}
	if tokens == 0 && a.Text != "" {
		tokens = 1
	}
	switch {
	case p.thought < thoughts:
		if !s.f.showThoughts {
			p.thought, p.next = thoughts, p.next+thoughts
			return
		}
		text := a.Thinking
		if len(a.ThinkingTokens) > 0 {
			text = a.ThinkingTokens[p.thought]
		}
		s.open()
		s.buf = append(s.buf, `"content":{"parts":[{"text":`...)
		s.buf = provider.AppendString(s.buf, text)
		s.buf = append(s.buf, `,"thought":true}],"role":"model"},`...)
		p.thought++
		s.close(i, p.next, false)
		p.next++
	case p.text < tokens && a.Finish != llmmock.Filtered:
		text := a.Text
		if len(a.Tokens) > 0 {
			text = a.Tokens[p.text]
		}
		s.open()
		s.buf = append(s.buf, `"content":{"parts":[{"text":`...)
		s.buf = provider.AppendString(s.buf, text)
		s.buf = append(s.buf, `}],"role":"model"},`...)
		p.text++
		s.spoken++
		p.done = p.text == tokens && len(a.Calls) == 0
		s.close(i, p.next, p.done)
		p.next++
	case p.call < len(a.Calls) && a.Finish != llmmock.Filtered:
		c := &a.Calls[p.call]
		n := 0
		for range provider.Pieces(c.Arguments) {
			n++
		}
		n = max(n, 1)
		s.open()
		s.buf = append(s.buf, `"content":{"parts":[`...)
		s.buf = s.f.appendCall(s.buf, s.x, c)
		s.buf = append(s.buf, `],"role":"model"},`...)
		p.call++
		s.spoken += n
		p.next += n
		p.done = p.call == len(a.Calls)
		s.close(i, p.next-1, p.done)
	default:
		// It has nothing to say, and says that it has ended.
		s.open()
		if a.Finish != llmmock.Filtered {
			s.buf = append(s.buf, `"content":{"parts":[{"text":""}],"role":"model"},`...)
		}
		p.done = true
		s.close(i, max(p.next-1, 0), true)
	}
}

// open begins a piece, up to the members of its candidate.
func (s *streamer) open() {
	switch {
	case !s.f.array:
		s.buf = append(s.buf[:0], `data: {"candidates":[{`...)
	case !s.f.begun:
		s.buf = append(s.buf[:0], `[{"candidates":[{`...)
	default:
		s.buf = append(s.buf[:0], ",\r\n{\"candidates\":[{"...)
	}
}

// close ends a piece and sends it. The last one of a candidate says why it ended, and the last one of all has the whole usage.
func (s *streamer) close(i, token int, finished bool) {
	if finished {
		s.buf = appendFinish(s.buf, s.speakers[i].a, i)
	} else {
		s.buf = append(s.buf, `"index":`...)
		s.buf = strconv.AppendInt(s.buf, int64(i), 10)
	}
	spoken := min(s.spoken, s.usage.candidates)
	if finished && s.over() {
		spoken = s.usage.candidates
	}
	s.buf = append(s.buf, `}],"usageMetadata":{"promptTokenCount":`...)
	s.buf = strconv.AppendInt(s.buf, int64(s.usage.prompt), 10)
	s.buf = append(s.buf, `,"candidatesTokenCount":`...)
	s.buf = strconv.AppendInt(s.buf, int64(spoken), 10)
	s.buf = append(s.buf, `,"totalTokenCount":`...)
	s.buf = strconv.AppendInt(s.buf, int64(s.usage.prompt+spoken+s.usage.thoughts), 10)
	s.buf = append(s.buf, s.tail...)
	if !s.f.array {
		s.buf = append(s.buf, "\r\n\r\n"...)
	}
	s.last = max(token, s.last)
	s.stopped = !s.yield(llmmock.Chunk{Data: s.buf, Token: s.last})
	s.f.begun = true
}

func (s *streamer) over() bool {
	for i := range s.speakers {
		if !s.speakers[i].done {
			return false
		}
	}
	return true
}

// FailureChunk implements provider.Format. It comes in place of the piece that was yielded last, and closes the array.
func (f *generateFormat) FailureChunk(dst []byte, e *llmmock.Failure, x *llmmock.Exchange) []byte {
	if !f.array {
		return f.format.FailureChunk(dst, e, x)
	}
	if f.begun {
		dst = append(dst, ",\r\n"...)
	} else {
		dst = append(dst, '[')
	}
	return append(appendFailure(dst, e, f.q), ']')
}
