package say

import (
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/tokens"
)

// The sentences of the default answer: an opening, some of the body, a closing. All but the opening begin with a space, so that
// the tokens of an answer are those of its sentences.
var (
	openings = []string{"Here is a short answer.", "In short, it works like this.", "That depends on a few things.", "Good question.", "Let me go through it.",
		"There are two sides to this.", "The short version is simple.", "I would put it like this."}
	bodies = []string{
		" The first thing to look at is what changed, because most surprises come from there.",
		" It helps to start with a small example and to add one thing at a time.",
		" The details matter less than the order in which they are done.",
		" When the numbers disagree, the measurement is usually the better guide.",
		" You can keep the old way running next to the new one until both agree.",
		" A simple rule is easier to follow than a clever one, and easier to check.",
		" The cost is small compared with what a mistake would take to repair.",
		" In most cases the default is fine, and the exceptions are easy to recognise.",
		" If it has to be fast, measure before and after, and change only one thing.",
		" Writing it down in two or three lines makes it easier for others to follow.",
		" There is a limit to how far this goes, so it is worth setting one.",
		" The same steps work for larger cases, only the time they need grows.",
	}
	closings = []string{" Let me know if you would like more detail.", " I can go deeper into any of these points.",
		" That should be enough to get started.", " Tell me which part matters most to you.", " I hope that helps."}
	concluded = []string{" That answers your question.", " Nothing else is needed from my side.", " Let me know if you want me to look further."}
	thoughts  = []string{"The user wants a direct answer.", " First I look at what is given and what is asked.", " Two readings are possible, and the simpler one fits better.",
		" There is no need for anything that was not mentioned.", " A short answer with the main point first is best.", " I check the result once more before answering."}
)

// bank is the sentences in tokens, for each encoding, and the answers that were made of them: there are not many, and most requests
// are answered so.
type bank struct {
	openings, bodies, closings, thoughts []*speech
	answers                              []atomic.Pointer[speech]
}

var banks = map[*tokens.Encoding]func() *bank{
	tokens.O200k:  sync.OnceValue(func() *bank { return newBank(tokens.O200k) }),
	tokens.CL100k: sync.OnceValue(func() *bank { return newBank(tokens.CL100k) }),
}

func newBank(e *tokens.Encoding) *bank {
	all := func(of []string) (out []*speech) {
		for _, s := range of {
			out = append(out, spell(e, s))
		}
		return out
	}
	b := &bank{openings: all(openings), bodies: all(bodies), closings: all(closings), thoughts: all(thoughts)}
	b.answers = make([]atomic.Pointer[speech], len(openings)*len(bodies)*len(closings)*lengths*steps)
	return b
}

// A default answer has two sentences of the body, or three; each is the next or the third from the one before.
const lengths, steps = 2, 2

func (b *bank) answer(r *rand.Rand) *speech {
	opening, body, closing, n, step := r.IntN(len(b.openings)), r.IntN(len(b.bodies)), r.IntN(len(b.closings)), r.IntN(lengths), r.IntN(steps)
	kept := &b.answers[(((opening*len(b.bodies)+body)*len(b.closings)+closing)*lengths+n)*steps+step]
	if s := kept.Load(); s != nil {
		return s
	}
	parts := append(make([]*speech, 0, 5), b.openings[opening])
	for i := range 2 + n {
		parts = append(parts, b.bodies[(body+i*(1+2*step))%len(b.bodies)])
	}
	s := join(append(parts, b.closings[closing]))
	kept.Store(s)
	return s
}

func join(parts []*speech) *speech {
	size, n, count := 0, 0, 0
	for _, p := range parts {
		size, n, count = size+len(p.text), n+len(p.tokens), count+p.count
	}
	var b strings.Builder
	b.Grow(size)
	pieces := make([]string, 0, n)
	for _, p := range parts {
		b.WriteString(p.text)
		pieces = append(pieces, p.tokens...)
	}
	return &speech{b.String(), pieces, count}
}

// prose is the answer to what no rule answers.
func (v *voice) prose() *speech {
	r := v.random()
	if name, result, ok := v.lastResult(); ok {
		text := "The tool answered: "
		if name != "" {
			text = "The tool " + name + " answered: "
		}
		return spell(v.e, text+shorten(result, 200)+"."+concluded[r.IntN(len(concluded))])
	}
	return banks[v.e]().answer(r.Rand)
}

// thought is what is thought when the request wants thinking and the rule says nothing of it.
func (v *voice) thought() *speech {
	b := banks[v.e]()
	n := 2 + v.random().IntN(len(b.thoughts)-1)
	return join(b.thoughts[:n])
}

// lastResult is what the last tool answered, when the conversation ends with that.
func (v *voice) lastResult() (name, text string, ok bool) {
	if len(v.q.Turns) == 0 {
		return "", "", false
	}
	last := &v.q.Turns[len(v.q.Turns)-1]
	if len(last.Results) == 0 {
		return "", last.Text, last.Role == llmmock.ToolRole
	}
	result := last.Results[len(last.Results)-1]
	for i := len(v.q.Turns) - 2; i >= 0; i-- {
		for _, c := range v.q.Turns[i].Calls {
			if c.ID == result.CallID {
				return c.Name, result.Text, true
			}
		}
	}
	return "", result.Text, true
}

// shorten cuts s to n bytes, at a character.
func shorten(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// Each of these is one token in both encodings, starts also without the space before it: so that filler has exactly as many
// tokens as were asked for.
var (
	starts  = []string{" The", " This", " When", " Some", " There", " After", " With", " Many", " Most", " Each", " All", " One"}
	fillers = []string{" time", " people", " water", " way", " day", " world", " work", " place", " case", " point", " number", " part",
		" light", " house", " side", " line", " story", " city", " river", " road", " small", " large", " long", " short", " new", " old",
		" good", " first", " last", " other", " same", " early", " open", " clear", " close", " near", " under", " over", " between",
		" through", " about", " around", " with", " from", " into", " and", " but", " or", " then", " also", " often", " still", " again",
		" makes", " takes", " gives", " keeps", " finds", " shows", " holds", " turns", " moves", " begins", " follows", " remains"}
)

// MaxLorem is the most tokens of filler that an answer has.
const MaxLorem = 100_000

// lorem is exactly n tokens of filler.
func (v *voice) lorem(n int) *speech { return lorem(v.random().Rand, n) }

func lorem(r *rand.Rand, n int) *speech {
	n = min(max(n, 0), MaxLorem)
	pieces := make([]string, 0, n)
	var b strings.Builder
	b.Grow(6 * n)
	add := func(s string) {
		pieces = append(pieces, s)
		b.WriteString(s)
	}
	for left := 0; len(pieces) < n; { // left is how many words the sentence still has
		switch {
		case len(pieces) == 0:
			add(starts[r.IntN(len(starts))][1:])
			left = 5 + r.IntN(9)
		case pieces[len(pieces)-1] == ".":
			add(starts[r.IntN(len(starts))])
			left = 5 + r.IntN(9)
		case len(pieces) == n-1 || left == 0:
			add(".")
		case left == 5 && len(pieces) < n-2:
			add(",")
			add(fillers[r.IntN(len(fillers))])
			left--
		default:
			add(fillers[r.IntN(len(fillers))])
			left--
		}
	}
	return &speech{b.String(), pieces, n}
}
