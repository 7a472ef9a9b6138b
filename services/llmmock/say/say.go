// Package say is what models say: the answers of llmmock, made of a scenario's rule, the request and the moment, and of nothing
// else. Start at Speaker. The prose of it is in prose.go, templates.go has what a scenario's text may draw, calls.go how tools are
// called, embed.go vectors.
package say

import (
	"strings"
	"sync"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/say/schema"
	"edgehold.internal/services/llmmock/tokens"
)

// Recordings gives the answer of a recording by name. It is asked for rules with Play.
type Recordings func(name string, q *llmmock.Request, m llmmock.Moment) (*llmmock.Answer, *llmmock.Failure)

// Speaker is the llmmock.Answerer that is used.
//
// A rule's Say and Play are given as they are. Its Echo, Lorem and Lengths, and the answer without a rule, give way to what the
// vendor promises the client: a call when the request requires one, and JSON of its schema. Calls are made unless the request
// forbids tools, and then of the named tool if it names one; without any call there is an answer as without a rule.
//
// Request.MaxTokens holds for thinking, text and calls in this order; a call that does not fit is left out whole. Stop sequences
// hold for the text.
type Speaker struct {
	recordings Recordings
	texts      cache[textKey, *speech]
	schemas    cache[string, *schema.Schema]
	templates  cache[string, parsed]
}

// New returns a Speaker. Without recordings a rule with Play fails.
func New(recordings Recordings) *Speaker { return &Speaker{recordings: recordings} }

var _ llmmock.Answerer = (*Speaker)(nil)

// speech is a text as it is streamed. It is shared and never changed.
type speech struct {
	text   string
	tokens []string
	count  int // of tokens; len(tokens) is less when some are no whole characters
}

type textKey struct {
	e    *tokens.Encoding
	text string
}

func spell(e *tokens.Encoding, text string) *speech {
	pieces, n := e.Split(text)
	return &speech{text, pieces, n}
}

// fixed is spell for a text that comes again: a scenario's.
func (s *Speaker) fixed(e *tokens.Encoding, text string) *speech {
	return s.texts.get(textKey{e, text}, func() *speech { return spell(e, text) })
}

// Answer implements llmmock.Answerer.
func (s *Speaker) Answer(sc *llmmock.Scenario, rule *llmmock.AnswerRule, q *llmmock.Request, m llmmock.Moment) (*llmmock.Answer, *llmmock.Failure) {
	if rule != nil && rule.Play != "" {
		if s.recordings == nil {
			return nil, broken("the scenario %s plays the recording %q, and there are no recordings", sc.Name, rule.Play)
		}
		return s.recordings(rule.Play, q, m)
	}
	a := &llmmock.Answer{Finish: llmmock.Stopped}
	a.Usage.Input = tokens.Prompt(q)
	switch {
	case rule != nil && rule.Cached > 0:
		a.Usage.Cached = min(rule.Cached, a.Usage.Input)
	case q.Cache != llmmock.Cache{}:
		a.Usage.Cached, a.Usage.CacheWrite = kept(q, m)
	}
	switch q.Operation {
	case llmmock.Count:
		return a, nil
	case llmmock.Embed:
		a.Embeddings = embed(q)
		return a, nil
	}
	v := voice{Speaker: s, sc: sc, rule: rule, q: q, m: m, e: tokens.For(q.Model), a: a}
	if f := v.speak(); f != nil {
		return nil, f
	}
	return a, nil
}

// voice makes one answer.
type voice struct {
	*Speaker
	sc   *llmmock.Scenario
	rule *llmmock.AnswerRule
	q    *llmmock.Request
	m    llmmock.Moment
	e    *tokens.Encoding
	a    *llmmock.Answer

	drawn *source
}

func (v *voice) speak() *llmmock.Failure {
	text, calls, f := v.content()
	if f != nil {
		return f
	}
	thinking, f := v.thinking()
	if f != nil {
		return f
	}
	room := v.q.MaxTokens
	if room <= 0 {
		room = 1 << 30
	}
	if thinking != nil {
		if limit := v.q.Thinking; limit > 0 && thinking.count > limit {
			thinking = cut(v.e, thinking, limit)
		}
		if thinking.count > room {
			thinking = cut(v.e, thinking, room)
			v.a.Finish = llmmock.AtLength
		}
		room -= thinking.count
		v.a.Thinking, v.a.ThinkingTokens, v.a.Usage.Reasoning = thinking.text, thinking.tokens, thinking.count
		v.a.Usage.Output += thinking.count
	}
	if text != nil {
		if len(v.q.Stop) > 0 {
			text = v.stop(text)
		}
		if text.count > room {
			text = cut(v.e, text, room)
			v.a.Finish, v.a.StoppedAt = llmmock.AtLength, ""
		}
		room -= text.count
		v.a.Text, v.a.Tokens = text.text, text.tokens
		v.a.Usage.Output += text.count
	}
	for i := range calls {
		n := tokens.Call(v.e, &calls[i])
		if n > room {
			v.a.Finish = llmmock.AtLength
			break
		}
		room -= n
		v.a.Usage.Output += n
		v.a.Calls = calls[:i+1]
		v.a.Finish = llmmock.ToolCalls
	}
	if v.rule != nil && v.rule.Finish != "" {
		v.a.Finish = v.rule.Finish
	}
	return nil
}

// content is what is said or called.
func (v *voice) content() (*speech, []llmmock.Call, *llmmock.Failure) {
	rule, q := v.rule, v.q
	if rule != nil {
		if rule.Say != "" {
			if !IsTemplate(rule.Say) {
				return v.fixed(v.e, rule.Say), nil, nil
			}
			text, f := v.render(rule.Say)
			return spell(v.e, text), nil, f
		}
		if len(rule.Calls) > 0 && q.ToolChoice != llmmock.ToolsNone {
			calls, f := v.script(rule.Calls)
			if f != nil || len(calls) > 0 {
				return nil, calls, f
			}
		}
	}
	if name, ok := v.mustCall(); ok {
		return nil, []llmmock.Call{v.call(name)}, nil
	}
	if q.Schema != nil {
		return spell(v.e, v.structured()), nil, nil
	}
	if rule != nil {
		switch {
		case rule.Echo:
			return spell(v.e, q.Last()), nil, nil
		case rule.Lorem > 0:
			return v.lorem(rule.Lorem), nil, nil
		case len(rule.Lengths) > 0:
			return v.lorem(rule.Lengths[v.random().IntN(len(rule.Lengths))]), nil, nil
		}
	}
	return v.prose(), nil, nil
}

// structured is JSON of the schema that the request has, and of any object without one.
func (v *voice) structured() string {
	if len(v.q.Schema) > 0 {
		if sc := v.schemaOf(v.q.Schema); sc != nil {
			return string(sc.Append(nil, v.random().Rand))
		}
	}
	return string(anyObject.Append(nil, v.random().Rand))
}

var anyObject = func() *schema.Schema {
	s, err := schema.Parse([]byte(`{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}`))
	if err != nil {
		panic(err)
	}
	return s
}()

// schemaOf is nil for what is no schema. Clients send the same few again and again; large ones are not kept for them.
func (s *Speaker) schemaOf(raw []byte) *schema.Schema {
	parse := func() *schema.Schema {
		sc, err := schema.Parse(raw)
		if err != nil {
			return nil
		}
		return sc
	}
	if len(raw) > maxKept {
		return parse()
	}
	return s.schemas.get(string(raw), parse)
}

const maxKept = 16 << 10

func (v *voice) thinking() (*speech, *llmmock.Failure) {
	switch {
	case v.rule != nil && v.rule.Thinking != "":
		if !IsTemplate(v.rule.Thinking) {
			return v.fixed(v.e, v.rule.Thinking), nil
		}
		text, f := v.render(v.rule.Thinking)
		return spell(v.e, text), f
	case v.q.Thinking > 0:
		return v.thought(), nil
	}
	return nil, nil
}

// stop ends the text before the stop sequence that comes up first, and of those that begin together before the longest.
func (v *voice) stop(text *speech) *speech {
	end, found := -1, ""
	for _, seq := range v.q.Stop {
		if seq == "" {
			continue
		}
		if at := strings.Index(text.text, seq); at >= 0 && (end < 0 || at < end || at == end && len(seq) > len(found)) {
			end, found = at, seq
		}
	}
	if end < 0 {
		return text
	}
	v.a.Finish, v.a.StoppedAt = llmmock.AtStop, found
	return spell(v.e, text.text[:end])
}

// cut is the beginning of a text that has at most n tokens, and is counted as what it then is: cut inside of a word, the part may
// be other tokens than it was in the whole.
func cut(e *tokens.Encoding, text *speech, n int) *speech {
	for limit := n; ; limit-- {
		head, _ := e.Cut(text.text, limit)
		if short := spell(e, head); short.count <= n {
			return short
		}
	}
}

// broken is a failure of the scenario and not of the client.
func broken(format string, args ...any) *llmmock.Failure {
	return &llmmock.Failure{Status: 500, Reason: llmmock.Broken, Message: sprintf(format, args...)}
}

// cache holds what was made of keys that come again. When it is full all of it is forgotten: a set of scenarios in force has far
// fewer texts than it holds, and what clients send fills it only by being new every time, when remembering is of no use.
type cache[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
}

const cached = 512

func (c *cache[K, V]) get(key K, make_ func() V) V {
	c.mu.RLock()
	v, ok := c.m[key]
	c.mu.RUnlock()
	if ok {
		return v
	}
	v = make_()
	c.mu.Lock()
	if c.m == nil || len(c.m) >= cached {
		c.m = make(map[K]V)
	}
	c.m[key] = v
	c.mu.Unlock()
	return v
}
