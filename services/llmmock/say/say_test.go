package say

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/say/schema"
	"edgehold.internal/services/llmmock/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sc = &llmmock.Scenario{Name: "test", Seed: 1}

func moment(i uint64) llmmock.Moment {
	return llmmock.Moment{Seed: 1, Scenario: "test", Request: 42, Occurrence: i}
}

// ask is a chat request that says text.
func ask(text string) *llmmock.Request {
	return &llmmock.Request{Vendor: llmmock.OpenAI, Operation: llmmock.Generate, Model: "gpt-4o", Choices: 1, ParallelCalls: true,
		Turns: []llmmock.Turn{{Role: llmmock.User, Text: text}}}
}

const weatherSchema = `{"type":"object","properties":{"city":{"type":"string"},"unit":{"enum":["c","f"]}},"required":["city"],"additionalProperties":false}`

func withTools(q *llmmock.Request) *llmmock.Request {
	q.Tools = []llmmock.Tool{
		{Name: "get_weather", Description: "Weather of a city.", Schema: []byte(weatherSchema)},
		{Name: "get_time", Schema: []byte(`{"type":"object","properties":{"timezone":{"type":"string"}},"required":["timezone"]}`)},
	}
	return q
}

func answer(t testing.TB, rule *llmmock.AnswerRule, q *llmmock.Request, m llmmock.Moment) *llmmock.Answer {
	t.Helper()
	a, f := New(nil).Answer(sc, rule, q, m)
	if f != nil {
		t.Fatalf("failed: %+v", *f)
	}
	consistent(t, q, a)
	return a
}

// consistent is what holds for every answer.
func consistent(t interface {
	Helper()
	Errorf(string, ...any)
}, q *llmmock.Request, a *llmmock.Answer) {
	t.Helper()
	e := tokens.For(q.Model)
	if strings.Join(a.Tokens, "") != a.Text || strings.Join(a.ThinkingTokens, "") != a.Thinking {
		t.Errorf("the tokens are not the text: %q %q", a.Tokens, a.Text)
	}
	if pieces, _ := e.Split(a.Text); len(pieces) != len(a.Tokens) || len(pieces) > 0 && !reflect.DeepEqual(pieces, a.Tokens) {
		t.Errorf("the tokens %q are not those of the text, %q", a.Tokens, pieces)
	}
	if !utf8.ValidString(a.Text) {
		t.Errorf("%q is no UTF-8", a.Text)
	}
	want := e.Count(a.Text) + a.Usage.Reasoning
	for i := range a.Calls {
		want += tokens.Call(e, &a.Calls[i])
		if !json.Valid([]byte(a.Calls[i].Arguments)) || a.Calls[i].Arguments[0] != '{' || len(a.Calls[i].ID) != 24 || a.Calls[i].Name == "" {
			t.Errorf("the call %+v is none", a.Calls[i])
		}
	}
	if a.Usage.Output != want {
		t.Errorf("usage is %d tokens of output, and they are %d", a.Usage.Output, want)
	}
	if q.MaxTokens > 0 && a.Usage.Output > q.MaxTokens {
		t.Errorf("%d tokens, and at most %d were wanted", a.Usage.Output, q.MaxTokens)
	}
	if a.Usage.Input != tokens.Prompt(q) || a.Usage.Cached > a.Usage.Input || a.Usage.Cached < 0 {
		t.Errorf("usage of input is %d, cached %d", a.Usage.Input, a.Usage.Cached)
	}
	if a.Finish == "" {
		t.Errorf("the answer has no finish")
	}
}

func TestDefaultAnswer(t *testing.T) {
	seen := make(map[string]bool)
	for i := range uint64(300) {
		for _, model := range []string{"gpt-4o", "gpt-4"} {
			q := ask("Why is the sky blue?")
			q.Model = model
			a := answer(t, nil, q, moment(i))
			if a.Finish != llmmock.Stopped || a.Usage.Output < 25 || a.Usage.Output > 120 || len(a.Calls) > 0 || a.Thinking != "" {
				t.Fatalf("got %+v", a)
			}
			seen[a.Text] = true
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d different answers", len(seen))
	}
}

func TestAnswerIsAFunctionOfItsArguments(t *testing.T) {
	s := New(nil)
	rules := []*llmmock.AnswerRule{nil, {Lorem: 50}, {Echo: true}, {Calls: []llmmock.ToolScript{{Name: "*"}}}, {Lengths: []int{5, 50, 500}},
		{Say: "{{uuid}} {{random 1 1000}} {{lorem 5}} {{pick `a` `b` `c`}}"}}
	var wg sync.WaitGroup
	for r, rule := range rules {
		want := make([]*llmmock.Answer, 20)
		for i := range want {
			want[i], _ = New(nil).Answer(sc, rule, withTools(ask("hello")), moment(uint64(i)))
		}
		for range 4 {
			wg.Go(func() {
				for i := range want {
					got, f := s.Answer(sc, rule, withTools(ask("hello")), moment(uint64(i)))
					if f != nil || !reflect.DeepEqual(got, want[i]) {
						t.Errorf("rule %d, moment %d: got %+v, want %+v", r, i, got, want[i])
					}
				}
			})
		}
	}
	wg.Wait()
	a := answer(t, rules[1], ask("hello"), moment(0))
	for i := 1; i < 5; i++ {
		b := answer(t, rules[1], ask("hello"), moment(0).Choice(i))
		if a.Text == b.Text {
			t.Errorf("choice %d says the same as the first", i)
		}
	}
	if moment(3).Choice(0) != moment(3) {
		t.Error("choice 0 is another moment")
	}
}

func TestLoremHasThatManyTokens(t *testing.T) {
	for _, model := range []string{"gpt-4o", "gpt-4"} {
		e := tokens.For(model)
		for n := range 300 {
			s := lorem(moment(uint64(n)).Random(llmmock.ForAnswer), n)
			if got := e.Count(s.text); got != n || s.count != n || len(s.tokens) != n {
				t.Fatalf("%s: %d tokens of %d: %q", model, got, n, s.text)
			}
		}
		q := ask("x")
		q.Model = model
		if a := answer(t, &llmmock.AnswerRule{Lorem: 5000}, q, moment(1)); a.Usage.Output != 5000 {
			t.Errorf("got %d tokens", a.Usage.Output)
		}
	}
	if n := lorem(moment(1).Random(llmmock.ForAnswer), math.MaxInt).count; n != MaxLorem {
		t.Errorf("got %d tokens", n)
	}
}

func TestRules(t *testing.T) {
	result := func(id string) llmmock.Turn {
		return llmmock.Turn{Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: id, Text: `{"degrees":21}`}}}
	}
	called := llmmock.Turn{Role: llmmock.Assistant, Calls: []llmmock.Call{{ID: "c1", Name: "get_weather", Arguments: "{}"}}}
	for name, c := range map[string]struct {
		rule   *llmmock.AnswerRule
		change func(*llmmock.Request)
		check  func(*llmmock.Answer) bool
	}{
		"said": {&llmmock.AnswerRule{Say: "Hello."}, nil, func(a *llmmock.Answer) bool {
			return a.Text == "Hello." && a.Usage.Output == 2 && a.Finish == llmmock.Stopped
		}},
		"echoed": {&llmmock.AnswerRule{Echo: true}, nil, func(a *llmmock.Answer) bool { return a.Text == "What is the weather in Paris?" }},
		"template": {&llmmock.AnswerRule{Say: "{{.Model}}|{{upper .Last}}|{{.Turn}}|{{len .Turns}}|{{(index .Turns 0).Role}}"}, nil, func(a *llmmock.Answer) bool {
			return a.Text == "gpt-4o|WHAT IS THE WEATHER IN PARIS?|1|1|user"
		}},
		"thinking of the rule": {&llmmock.AnswerRule{Say: "Yes.", Thinking: "Let me see."}, nil, func(a *llmmock.Answer) bool {
			return a.Thinking == "Let me see." && a.Usage.Reasoning == 4 && a.Usage.Output == 6
		}},
		"thinking of the request": {nil, func(q *llmmock.Request) { q.Thinking = 1024 }, func(a *llmmock.Answer) bool {
			return a.Usage.Reasoning > 10 && a.Text != ""
		}},
		"thinking up to its budget": {nil, func(q *llmmock.Request) { q.Thinking = 5 }, func(a *llmmock.Answer) bool {
			return a.Usage.Reasoning == 5 && a.Finish == llmmock.Stopped
		}},
		"thinking up to all there is": {&llmmock.AnswerRule{Say: "Yes.", Thinking: "Let me see about that one."}, func(q *llmmock.Request) { q.MaxTokens = 4 },
			func(a *llmmock.Answer) bool {
				return a.Usage.Reasoning == 4 && a.Text == "" && a.Finish == llmmock.AtLength
			}},
		"cut": {&llmmock.AnswerRule{Say: "One two three four."}, func(q *llmmock.Request) { q.MaxTokens = 2 }, func(a *llmmock.Answer) bool {
			return a.Text == "One two" && a.Finish == llmmock.AtLength
		}},
		"just long enough": {&llmmock.AnswerRule{Say: "One two three four."}, func(q *llmmock.Request) { q.MaxTokens = 5 }, func(a *llmmock.Answer) bool {
			return a.Text == "One two three four." && a.Finish == llmmock.Stopped
		}},
		"stopped": {&llmmock.AnswerRule{Say: "One two three four."}, func(q *llmmock.Request) { q.Stop = []string{"four", " thr", " three", ""} }, func(a *llmmock.Answer) bool {
			return a.Text == "One two" && a.Finish == llmmock.AtStop && a.StoppedAt == " three"
		}},
		"cut before it stops": {&llmmock.AnswerRule{Say: "One two three four."}, func(q *llmmock.Request) { q.Stop, q.MaxTokens = []string{"four"}, 1 },
			func(a *llmmock.Answer) bool {
				return a.Text == "One" && a.Finish == llmmock.AtLength && a.StoppedAt == ""
			}},
		"finish of the rule": {&llmmock.AnswerRule{Say: "No.", Finish: llmmock.Refused}, nil, func(a *llmmock.Answer) bool { return a.Finish == llmmock.Refused }},
		"cached":             {&llmmock.AnswerRule{Say: "No.", Cached: 5}, nil, func(a *llmmock.Answer) bool { return a.Usage.Cached == 5 && a.Usage.Input > 5 }},
		"more cached than there is": {&llmmock.AnswerRule{Say: "No.", Cached: 1e6}, nil, func(a *llmmock.Answer) bool {
			return a.Usage.Cached == a.Usage.Input
		}},
		"tools are not called by themselves": {nil, func(q *llmmock.Request) { withTools(q) }, func(a *llmmock.Answer) bool { return len(a.Calls) == 0 && a.Text != "" }},
		"tools required": {nil, func(q *llmmock.Request) { withTools(q).ToolChoice = llmmock.ToolsRequired }, func(a *llmmock.Answer) bool {
			return len(a.Calls) == 1 && a.Text == "" && a.Finish == llmmock.ToolCalls
		}},
		"required before filler": {&llmmock.AnswerRule{Lorem: 5}, func(q *llmmock.Request) { withTools(q).ToolChoice = llmmock.ToolsRequired }, func(a *llmmock.Answer) bool {
			return len(a.Calls) == 1
		}},
		"a tool named": {nil, func(q *llmmock.Request) { withTools(q).ToolChoice = llmmock.ToolsNamed; q.NamedTool = "get_time" }, func(a *llmmock.Answer) bool {
			return len(a.Calls) == 1 && a.Calls[0].Name == "get_time" && strings.HasPrefix(a.Calls[0].Arguments, `{"timezone":"`)
		}},
		"a tool named that is not offered": {nil, func(q *llmmock.Request) { q.ToolChoice, q.NamedTool = llmmock.ToolsNamed, "other" }, func(a *llmmock.Answer) bool {
			return len(a.Calls) == 1 && a.Calls[0].Arguments == "{}"
		}},
		"scripted": {&llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: "get_weather", Arguments: `{"city": {{json .Last}}}`}, {Name: "get_time"}}},
			func(q *llmmock.Request) { withTools(q) }, func(a *llmmock.Answer) bool {
				return len(a.Calls) == 2 && a.Calls[0].Arguments == `{"city": "What is the weather in Paris?"}` && a.Calls[0].ID != a.Calls[1].ID
			}},
		"one call at a time": {&llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: "get_weather"}, {Name: "get_time"}}},
			func(q *llmmock.Request) { withTools(q).ParallelCalls = false }, func(a *llmmock.Answer) bool { return len(a.Calls) == 1 }},
		"scripted, one named": {&llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: "get_weather"}, {Name: "get_time"}}},
			func(q *llmmock.Request) { withTools(q).ToolChoice = llmmock.ToolsNamed; q.NamedTool = "get_time" }, func(a *llmmock.Answer) bool {
				return len(a.Calls) == 1 && a.Calls[0].Name == "get_time"
			}},
		"scripted, and forbidden": {&llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: "get_weather"}}},
			func(q *llmmock.Request) { withTools(q).ToolChoice = llmmock.ToolsNone }, func(a *llmmock.Answer) bool { return len(a.Calls) == 0 && a.Text != "" }},
		"any tool, and none is offered": {&llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: AnyTool}}}, nil, func(a *llmmock.Answer) bool {
			return len(a.Calls) == 0 && a.Text != ""
		}},
		"a call that does not fit": {&llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: "get_weather"}, {Name: "get_time"}}},
			func(q *llmmock.Request) { withTools(q).MaxTokens = 25 }, func(a *llmmock.Answer) bool { return len(a.Calls) < 2 && a.Finish == llmmock.AtLength }},
		"after a result": {nil, func(q *llmmock.Request) { q = withTools(q); q.Turns = append(q.Turns, called, result("c1")) }, func(a *llmmock.Answer) bool {
			return strings.HasPrefix(a.Text, `The tool get_weather answered: {"degrees":21}.`) && len(a.Calls) == 0
		}},
		"after a result of nobody's": {nil, func(q *llmmock.Request) { q.Turns = append(q.Turns, result("c2")) }, func(a *llmmock.Answer) bool {
			return strings.HasPrefix(a.Text, `The tool answered: {"degrees":21}.`)
		}},
		"after a result, and calls required": {nil, func(q *llmmock.Request) {
			withTools(q).ToolChoice = llmmock.ToolsRequired
			q.Turns = append(q.Turns, called, result("c1"))
		}, func(a *llmmock.Answer) bool { return len(a.Calls) == 1 }},
		"structured": {nil, func(q *llmmock.Request) { q.Schema = []byte(weatherSchema) }, func(a *llmmock.Answer) bool { return valid(weatherSchema, a.Text) }},
		"structured before filler": {&llmmock.AnswerRule{Echo: true}, func(q *llmmock.Request) { q.Schema = []byte(weatherSchema) }, func(a *llmmock.Answer) bool {
			return valid(weatherSchema, a.Text)
		}},
		"structured, and said": {&llmmock.AnswerRule{Say: "no JSON"}, func(q *llmmock.Request) { q.Schema = []byte(weatherSchema) }, func(a *llmmock.Answer) bool {
			return a.Text == "no JSON"
		}},
		"any JSON":              {nil, func(q *llmmock.Request) { q.Schema = []byte{} }, func(a *llmmock.Answer) bool { return strings.HasPrefix(a.Text, `{"answer":"`) }},
		"a schema that is none": {nil, func(q *llmmock.Request) { q.Schema = []byte(`{"type`) }, func(a *llmmock.Answer) bool { return json.Valid([]byte(a.Text)) }},
		"count": {nil, func(q *llmmock.Request) { q.Operation = llmmock.Count }, func(a *llmmock.Answer) bool {
			return a.Text == "" && a.Usage.Output == 0 && a.Usage.Input == 3+4+7
		}},
	} {
		t.Run(name, func(t *testing.T) {
			q := ask("What is the weather in Paris?")
			if c.change != nil {
				c.change(q)
			}
			for i := range uint64(5) {
				if a := answer(t, c.rule, q, moment(i)); !c.check(a) {
					t.Errorf("got %+v", a)
				}
			}
		})
	}
}

func valid(of, instance string) bool {
	s, err := schema.Parse([]byte(of))
	return err == nil && s.Valid([]byte(instance))
}

func TestAnyRequest(t *testing.T) {
	s := New(nil)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 60, -1)
		q := withTools(ask(text.Draw(t, "last")))
		q.Model = rapid.SampledFrom([]string{"gpt-4o", "gpt-4", "claude-sonnet-4-6"}).Draw(t, "model")
		q.MaxTokens = rapid.IntRange(0, 60).Draw(t, "max")
		q.Thinking = rapid.SampledFrom([]int{0, 0, 3, 1024}).Draw(t, "thinking")
		q.Stop = rapid.SliceOfN(rapid.SampledFrom([]string{".", " the", "", "é", "日"}), 0, 3).Draw(t, "stop")
		q.ParallelCalls = rapid.Bool().Draw(t, "parallel")
		q.ToolChoice = rapid.SampledFrom([]llmmock.ToolChoice{llmmock.ToolsAuto, llmmock.ToolsNone, llmmock.ToolsRequired}).Draw(t, "choice")
		if rapid.Bool().Draw(t, "structured") {
			q.Schema = []byte(weatherSchema)
		}
		rule := rapid.SampledFrom([]*llmmock.AnswerRule{nil, {Echo: true}, {Lorem: 40}, {Say: text.Filter(func(s string) bool { return !IsTemplate(s) }).Draw(t, "say"), Thinking: "日本語で考える。", Cached: 3},
			{Calls: []llmmock.ToolScript{{Name: "get_time"}, {Name: "*"}}}}).Draw(t, "rule")
		a, f := s.Answer(sc, rule, q, moment(rapid.Uint64().Draw(t, "occurrence")))
		if f != nil {
			t.Fatalf("failed: %+v", *f)
		}
		consistent(t, q, a)
	})
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		rule llmmock.AnswerRule
		want string
	}{
		"no recordings":      {llmmock.AnswerRule{Play: "monday"}, `plays the recording "monday"`},
		"broken template":    {llmmock.AnswerRule{Say: "{{.Nothing}}"}, "has no .Nothing"},
		"template fails":     {llmmock.AnswerRule{Say: "{{random 5 1}}"}, "random wants two numbers"},
		"index out of range": {llmmock.AnswerRule{Say: "{{index .Turns 7}}"}, "out of range"},
		"too much filler":    {llmmock.AnswerRule{Say: "{{lorem 60000}}{{lorem 60000}}"}, "lorem gives"},
		"too long":           {llmmock.AnswerRule{Say: strings.Repeat("{{.Last}}", 1200)}, "longer than 1048576 bytes"},
		"no JSON":            {llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: "f", Arguments: `{"a": {{.Last}}}`}}}, "no JSON object"},
		"a JSON list":        {llmmock.AnswerRule{Calls: []llmmock.ToolScript{{Name: "f", Arguments: `[1]`}}}, "no JSON object"},
	} {
		a, f := New(nil).Answer(sc, &c.rule, ask(strings.Repeat("x", 1000)), moment(0))
		if f == nil || a != nil || f.Status != 500 || f.Reason != llmmock.Broken || !strings.Contains(f.Message, c.want) || !strings.Contains(f.Message, "scenario test") {
			t.Errorf("%s: got %+v %+v", name, a, f)
		}
	}
	s := New(func(name string, q *llmmock.Request, m llmmock.Moment) (*llmmock.Answer, *llmmock.Failure) {
		return &llmmock.Answer{Text: name}, nil
	})
	if a, f := s.Answer(sc, &llmmock.AnswerRule{Play: "monday"}, ask("x"), moment(0)); f != nil || a.Text != "monday" {
		t.Errorf("got %+v %+v", a, f)
	}
}

func TestCheckTemplate(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "",
		"{{.Last}} {{if eq .Turn 1}}a{{else}}b{{end}} {{with .Result}}{{.}}{{end}}":           "",
		`{{pick "a" "b"}} {{random 1 6}} {{uuid}} {{trim (lower .Last)}} {{slice .Last 0 0}}`: "",
		"{{$x := .Model}}{{$x}}":                    "",
		"{{":                                        "unclosed action",
		"{{range .Turns}}{{end}}":                   "cannot have {{range",
		"{{range 1000000000}}{{end}}":               "cannot have",
		`{{define "x"}}y{{end}}`:                    "cannot define others",
		`{{define "x"}}y{{end}}{{template "x"}}`:    "cannot define others",
		`{{template "x"}}`:                          "cannot have",
		`{{printf "%1000000000d" 1}}`:               "cannot call printf; it can call and, eq",
		"{{call .Last}}":                            "cannot call call",
		"{{html .Last}}":                            "cannot call html",
		"{{nothing}}":                               `function "nothing" not defined`,
		"{{.Nothing}}":                              "has no .Nothing; it has .Model",
		"{{$x := .Model}}{{$x.Nothing}}":            "has no .Nothing",
		"{{if .Last}}{{else if .Nothing}}{{end}}":   "has no .Nothing",
		"{{(index .Turns 0).Nothing}}":              "has no .Nothing",
		"{{break}}":                                 "",
		strings.Repeat("x", MaxTemplate+1) + "{{}}": "at most 65536",
	} {
		err := CheckTemplate(text)
		switch {
		case text == "{{break}}":
			if err == nil {
				t.Errorf("%q is a template", text)
			}
		case want == "" && err != nil:
			t.Errorf("%.60q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{.Last}}", "{{lorem 5}}", `{{if and .Last (gt .Turn 0)}}{{index .Turns 0}}{{end}}`, "{{with $x := uuid}}{{$x}}{{end}}", "{{slice .Last 1 2}}",
		"{{random 1 9223372036854775807}}", "{{range $i := 5}}{{end}}", "{{- /* c */ -}}", "{{len .Turns}}{{pick}}"} {
		f.Add(s)
	}
	s := New(nil)
	f.Fuzz(func(t *testing.T, text string) {
		a, fail := s.Answer(sc, &llmmock.AnswerRule{Say: "{{/**/}}" + text}, ask("hello"), moment(1))
		if (a == nil) == (fail == nil) {
			t.Fatalf("%q: %v %v", text, a, fail)
		}
		if CheckTemplate("{{/**/}}"+text) != nil && fail == nil {
			t.Fatalf("%q is refused, and was used", text)
		}
	})
}

func TestEmbeddings(t *testing.T) {
	embedding := func(model string, n int, texts ...string) [][]float32 {
		q := &llmmock.Request{Operation: llmmock.Embed, Model: model, Inputs: texts, Dimensions: n}
		return answerEmbed(t, q)
	}
	v := embedding("text-embedding-3-small", 0, "How do I reset my password?", "I want to reset the password", "The weather in Lisbon is fine", "", "how do i reset my password")
	for i := range v {
		if len(v[i]) != 1536 {
			t.Errorf("%d dimensions", len(v[i]))
		}
		if l := dot(v[i], v[i]); math.Abs(l-1) > 1e-4 {
			t.Errorf("the length of %d is %g", i, l)
		}
	}
	if near, far := dot(v[0], v[1]), dot(v[0], v[2]); near < far+0.2 {
		t.Errorf("what is alike is %g, what is not %g", near, far)
	}
	if same := dot(v[0], v[4]); same < 0.9 || same > 0.9999 {
		t.Errorf("the same words are %g", same)
	}
	again := embedding("text-embedding-3-small", 0, "How do I reset my password?")
	if !reflect.DeepEqual(v[0], again[0]) {
		t.Error("the same text has another vector")
	}
	if other := embedding("text-embedding-ada-002", 0, "How do I reset my password?"); dot(v[0], other[0]) > 0.2 {
		t.Error("another model has the same vector")
	}
	short := embedding("text-embedding-3-small", 256, "How do I reset my password?")[0]
	if len(short) != 256 || math.Abs(dot(short, short)-1) > 1e-4 {
		t.Errorf("%d dimensions of length %g", len(short), dot(short, short))
	}
	scale := v[0][0] / short[0]
	for i := range short {
		if math.Abs(float64(short[i]*scale-v[0][i])) > 1e-6 {
			t.Fatal("the shorter vector is not the beginning of the longer one")
		}
	}
	for model, n := range map[string]int{"text-embedding-3-large": 3072, "amazon.titan-embed-text-v2:0": 1024, "text-embedding-004": 768, "x": 1536} {
		if got := len(embedding(model, 0, "x")[0]); got != n {
			t.Errorf("%s: %d dimensions, want %d", model, got, n)
		}
	}
	if got := len(embedding("x", 1<<30, "x")[0]); got != MaxDimensions {
		t.Errorf("%d dimensions", got)
	}
}

func answerEmbed(t *testing.T, q *llmmock.Request) [][]float32 {
	t.Helper()
	a, f := New(nil).Answer(sc, nil, q, moment(0))
	if f != nil || len(a.Embeddings) != len(q.Inputs) || a.Usage.Input != tokens.Prompt(q) || a.Usage.Output != 0 {
		t.Fatalf("got %+v %+v", a, f)
	}
	return a.Embeddings
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestCacheForgets(t *testing.T) {
	var c cache[int, string]
	for i := range 3 * cached {
		if got := c.get(i, func() string { return fmt.Sprint(i) }); got != fmt.Sprint(i) {
			t.Fatalf("%d: got %s", i, got)
		}
		if len(c.m) > cached {
			t.Fatalf("it holds %d", len(c.m))
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	s := New(nil)
	for name, c := range map[string]struct {
		rule   *llmmock.AnswerRule
		change func(*llmmock.Request)
	}{
		"default": {nil, nil}, "said": {&llmmock.AnswerRule{Say: "The sky is blue because of Rayleigh scattering."}, nil},
		"template": {&llmmock.AnswerRule{Say: "You asked {{.Last}} {{uuid}}"}, nil}, "echo": {&llmmock.AnswerRule{Echo: true}, nil},
		"lorem 200": {&llmmock.AnswerRule{Lorem: 200}, nil}, "tool": {nil, func(q *llmmock.Request) { withTools(q).ToolChoice = llmmock.ToolsRequired }},
		"structured": {nil, func(q *llmmock.Request) { q.Schema = []byte(weatherSchema) }},
		"embedding": {nil, func(q *llmmock.Request) {
			q.Operation, q.Model, q.Inputs = llmmock.Embed, "text-embedding-3-small", []string{q.Last()}
		}},
	} {
		b.Run(name, func(b *testing.B) {
			q := ask("Could you explain in two or three sentences why the sky is blue?")
			if c.change != nil {
				c.change(q)
			}
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				if _, f := s.Answer(sc, c.rule, q, moment(i)); f != nil {
					b.Fatal(f)
				}
			}
		})
	}
}
