package anthropic

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/providertest"
)

var decoding = providertest.Decoder(New(Config{}))

func decode(t testing.TB, path, body string) (*llmmock.Request, provider.Format, *llmmock.Failure) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, nil)
	r.Header.Set("anthropic-version", Version)
	return decoding(t, r, body)
}

const small = `{"model":"claude-haiku-4-5","max_tokens":1024,"messages":[{"role":"user","content":"What is the weather in Berlin today?"}]}`

const conversationBody = `{
 "model":"claude-opus-5-5","max_tokens":4096,"stream":true,
 "messages":[
  {"role":"user","content":[{"type":"text","text":"look at this"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGVsbG8="}},
   {"type":"document","source":{"type":"text","media_type":"text/plain","data":"plain\nwords"}},
   {"type":"document","source":{"type":"content","content":[{"type":"text","text":"inner"},{"type":"image","source":{"type":"url","url":"x"}}]}},
   {"content":[{"type":"text","text":"found"}],"source":"https://example.org","title":"t","type":"search_result"}]},
  {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"I ask."},
   {"type":"tool_use","id":"toolu_01a","name":"weather","input":{"city":"Berlin \"x\"","n":[1, 2]}},{"type":"tool_use","id":"toolu_01b","name":"time","input":{}}]},
  {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01a","content":"21 °C"},
   {"type":"tool_result","tool_use_id":"toolu_01b","is_error":true,"content":[{"type":"text","text":"no"},{"type":"text","text":"clock"}]},{"type":"text","text":"and so?"}]}
 ],
 "tools":[{"name":"weather","description":"the weather","input_schema":{"type":"object","properties":{"city":{"type":"string"}}}},
  {"type":"custom","name":"time","input_schema":{"type":"object"}},{"type":"web_search_20250305","name":"web_search"},{"type":"bash_20250124","name":"bash"}],
 "tool_choice":{"type":"auto","disable_parallel_tool_use":true},
 "thinking":{"type":"enabled","budget_tokens":2048},
 "stop_sequences":["END","\u00fc"],
 "output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}},
 "metadata":{"user_id":"u"},"temperature":1,
 "system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}},{"type":"text","text":"be kind"}]
}`

func TestDecode(t *testing.T) {
	q, f, failure := decode(t, "/v1/messages", conversationBody)
	if failure != nil || f == nil {
		t.Fatalf("refused: %+v", failure)
	}
	want := []llmmock.Turn{
		{Role: llmmock.System, Text: "be brief\nbe kind"},
		{Role: llmmock.User, Text: "look at this\nplain\nwords\ninner\nfound", Media: 2},
		{Role: llmmock.Assistant, Text: "I ask.", Calls: []llmmock.Call{{ID: "toolu_01a", Name: "weather", Arguments: `{"city":"Berlin \"x\"","n":[1, 2]}`},
			{ID: "toolu_01b", Name: "time", Arguments: `{}`}}},
		{Role: llmmock.ToolRole, Text: "and so?", Results: []llmmock.Result{{CallID: "toolu_01a", Text: "21 °C"}, {CallID: "toolu_01b", Text: "no\nclock", Failed: true}}},
	}
	for i := range want {
		if i >= len(q.Turns) || !reflect.DeepEqual(q.Turns[i], want[i]) {
			t.Errorf("turn %d is %+v, want %+v", i, q.Turns[min(i, len(q.Turns)-1)], want[i])
		}
	}
	if len(q.Turns) != len(want) {
		t.Errorf("%d turns, want %d", len(q.Turns), len(want))
	}
	if q.Model != "claude-opus-5-5" || q.MaxTokens != 4096 || !q.Stream || q.ParallelCalls || q.Thinking != 2048 || q.ToolChoice != llmmock.ToolsAuto ||
		q.Operation != llmmock.Generate || q.Choices != 1 || !slices.Equal(q.Stop, []string{"END", "ü"}) || string(q.Schema) != `{"type":"object"}` {
		t.Errorf("decoded %+v", q)
	}
	var names []string
	for _, tool := range q.Tools {
		names = append(names, tool.Name)
	}
	if !slices.Equal(names, []string{"weather", "time", "bash"}) || !json.Valid(q.Tools[0].Schema) || q.Tools[0].Description != "the weather" {
		t.Errorf("tools %+v", q.Tools)
	}
}

func TestToolChoices(t *testing.T) {
	for in, want := range map[string]struct {
		choice   llmmock.ToolChoice
		named    string
		parallel bool
	}{
		`{"type":"auto"}`: {llmmock.ToolsAuto, "", true},
		`{"type":"any"}`:  {llmmock.ToolsRequired, "", true},
		`{"type":"none"}`: {llmmock.ToolsNone, "", true},
		`{"type":"tool","name":"a","disable_parallel_tool_use":true}`: {llmmock.ToolsNamed, "a", false},
	} {
		q, _, failure := decode(t, "/v1/messages", `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"name":"a","input_schema":{}}],"tool_choice":`+in+`}`)
		if failure != nil || q.ToolChoice != want.choice || q.NamedTool != want.named || q.ParallelCalls != want.parallel {
			t.Errorf("%s: %+v %q %q %v", in, failure, q.ToolChoice, q.NamedTool, q.ParallelCalls)
		}
	}
}

// Each body is refused with these words, and understood all the same when lenient says so.
func TestRefusals(t *testing.T) {
	const head = `{"model":"m","max_tokens":10,"messages":`
	for _, c := range []struct {
		name, path, body, message string
		lenient                   bool
	}{
		{"empty body", "", ``, "The request body is not valid JSON: unexpected end of data: line 1 column 1 (char 0)", false},
		{"cut body", "", "{\"model\":\n \"m", "The request body is not valid JSON: unexpected end of data: line 2 column 4 (char 13)", false},
		{"trailing garbage", "", small + `x`, "The request body is not valid JSON: unexpected character: line 1 column 125 (char 124)", false},
		{"deep", "", `{"metadata":` + strings.Repeat("[", 1000), "The request body is not valid JSON: recursion limit exceeded: line 1 column 269 (char 268)", false},
		{"half a surrogate pair", "", head + `[{"role":"user","content":"\ud83d"}]}`, "The request body is not valid JSON: no low surrogate in string: line 1 column 75 (char 74)", true},
		{"no object", "", `[]`, "Input should be a valid dictionary", false},
		{"no model", "", `{"max_tokens":10,"messages":[{"role":"user","content":"x"}]}`, "model: Field required", true},
		{"no max_tokens", "", `{"model":"m","messages":[{"role":"user","content":"x"}]}`, "max_tokens: Field required", true},
		{"max_tokens of the wrong kind", "", `{"model":"m","max_tokens":"10","messages":[]}`, "max_tokens: Input should be a valid integer", false},
		{"max_tokens with a fraction", "", `{"model":"m","max_tokens":10.5,"messages":[]}`, "max_tokens: Input should be a valid integer", false},
		{"no messages", "", `{"model":"m","max_tokens":10}`, "messages: Field required", true},
		{"messages empty", "", head + `[]}`, "messages: at least one message is required", true},
		{"messages no list", "", head + `"x"}`, "messages: Input should be a valid list", false},
		{"content of the wrong kind", "", head + `[{"role":"user","content":5}]}`, "messages.0.content: Input should be a valid list", false},
		{"content missing", "", head + `[{"role":"user"}]}`, "messages.0.content: Field required", true},
		{"role unknown", "", head + `[{"role":"robot","content":"x"}]}`, "messages.0.role: Input should be 'user', 'assistant' or 'system'", true},
		{"assistant first", "", head + `[{"role":"assistant","content":"x"}]}`, `messages: first message must use the "user" role`, true},
		{"empty text", "", head + `[{"role":"user","content":[{"type":"text","text":""}]}]}`, "messages: text content blocks must be non-empty", true},
		{"empty message", "", head + `[{"role":"user","content":""},{"role":"user","content":"x"}]}`, "messages.0: all messages must have non-empty content except for the optional final assistant message", true},
		{"trailing white space", "", head + `[{"role":"user","content":"x"},{"role":"assistant","content":"y "}]}`, "messages: final assistant content cannot end with trailing whitespace", true},
		{"text of the wrong kind", "", head + `[{"role":"user","content":[{"type":"text","text":5}]}]}`, "messages.0.content.0.text.text: Input should be a valid string", false},
		{"text missing", "", head + `[{"role":"user","content":[{"type":"text"}]}]}`, "messages.0.content.0.text.text: Field required", true},
		{"block without a type", "", head + `[{"role":"user","content":[{}]}]}`, "messages.0.content.0: Unable to extract tag using discriminator 'type'", true},
		{"block unknown", "", head + `[{"role":"user","content":[{"type":"x"}]}]}`, "messages.0.content.0: Input tag 'x' found using 'type' does not match any of the expected tags: " + blockKinds, true},
		{"system block unknown", "", `{"system":[{"type":"y"}],"model":"m","max_tokens":10,"messages":[{"role":"user","content":"x"}]}`,
			"system.0: Input tag 'y' found using 'type' does not match any of the expected tags: " + blockKinds, true},
		{"call without a result", "", head + `[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"n","input":{}}]},{"role":"user","content":"y"}]}`,
			"messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: a. Each `tool_use` block must have a corresponding `tool_result` block in the next message.", true},
		{"result without a call", "", head + `[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a"}]}]}`,
			"messages.0: unexpected `tool_use_id` found in `tool_result` blocks: a. Each `tool_result` block must have a corresponding `tool_use` block in the previous message.", true},
		{"input no object", "", head + `[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"n","input":[]}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a"}]}]}`,
			"messages.1.content.0.tool_use.input: Input should be a valid dictionary", true},
		{"tool without a schema", "", head + `[{"role":"user","content":"x"}],"tools":[{"name":"n"}]}`, "tools.0.custom.input_schema: Field required", true},
		{"tools twice", "", head + `[{"role":"user","content":"x"}],"tools":[{"name":"n","input_schema":{}},{"name":"n","input_schema":{}}]}`, "tools: Tool names must be unique.", true},
		{"choice without tools", "", head + `[{"role":"user","content":"x"}],"tool_choice":{"type":"any"}}`, "tool_choice: may only be specified while providing tools", true},
		{"named tool unknown", "", head + `[{"role":"user","content":"x"}],"tools":[{"name":"n","input_schema":{}}],"tool_choice":{"type":"tool","name":"o"}}`, "Tool 'o' not found in provided tools", true},
		{"budget too small", "", head + `[{"role":"user","content":"x"}],"thinking":{"type":"enabled","budget_tokens":5}}`, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024", true},
		{"temperature", "", head + `[{"role":"user","content":"x"}],"temperature":1.5}`, "temperature: range: 0..1", true},
		{"unknown field", "", head + `[{"role":"user","content":"x"}],"max_token":5}`, "max_token: Extra inputs are not permitted", true},
		{"stop of blanks", "", head + `[{"role":"user","content":"x"}],"stop_sequences":[" "]}`, "stop_sequences: each stop sequence must contain non-whitespace", true},
		{"prompt without turns", "/v1/complete", `{"model":"m","max_tokens_to_sample":5,"prompt":"hello"}`, `prompt must start with "\n\nHuman:" turn after an optional system prompt`, true},
		{"prompt without the last turn", "/v1/complete", `{"model":"m","max_tokens_to_sample":5,"prompt":"\n\nHuman: hello"}`, `prompt must end with "\n\nAssistant:" turn`, true},
		{"counting without messages", "/v1/messages/count_tokens", `{"model":"m"}`, "messages: Field required", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := c.path
			if path == "" {
				path = "/v1/messages"
			}
			_, f, failure := decode(t, path, c.body)
			if failure == nil {
				t.Fatal("taken")
			}
			status, body := New(Config{}).Failure(http.Header{}, failure, providertest.ID)
			var got struct {
				Type  string
				Error struct{ Type, Message string }
			}
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatal(err)
			}
			if status != 400 || got.Type != "error" || got.Error.Type != "invalid_request_error" || got.Error.Message != c.message {
				t.Errorf("%d %s\nwant %s", status, body, c.message)
			}
			if (f != nil) != c.lenient {
				t.Errorf("understood: %v, want %v", f != nil, c.lenient)
			}
		})
	}
}

func TestVersionIsRequired(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/v1/messages", nil)
	f, failure := New(Config{}).Routes[0].Decode(providertest.Request(llmmock.Anthropic, r, nil), r, []byte(small))
	if f == nil || failure == nil || kindOf(failure).message != "anthropic-version: header is required" {
		t.Errorf("%+v", failure)
	}
}

func TestValidateHears(t *testing.T) {
	var heard []string
	api := New(Config{Validate: func(route string, body []byte) *llmmock.Failure {
		heard = append(heard, route)
		return &llmmock.Failure{Status: 400, Reason: llmmock.BadRequest, Field: "messages[0].content[1]", Message: "is wrong"}
	}})
	for _, target := range []string{"/v1/messages", "/v1/messages?beta=true"} {
		r := httptest.NewRequest(http.MethodPost, target, nil)
		_, failure := api.Routes[0].Decode(providertest.Request(llmmock.Anthropic, r, nil), r, []byte(small))
		if failure == nil || kindOf(failure).message != "messages.0.content.1: is wrong" {
			t.Errorf("%+v", failure)
		}
	}
	if !slices.Equal(heard, []string{"POST /v1/messages", "POST /v1/messages?beta=true"}) {
		t.Errorf("heard %q", heard)
	}
}

func TestConversation(t *testing.T) {
	for in, want := range map[string][]llmmock.Turn{
		"\n\nHuman: Hello\n\nAssistant:":                         {{Role: llmmock.User, Text: "Hello"}, {Role: llmmock.Assistant}},
		"Human: a\n\nb\n\nAssistant: c\n\nHuman:d\n\nAssistant:": {{Role: llmmock.User, Text: "a\n\nb"}, {Role: llmmock.Assistant, Text: "c"}, {Role: llmmock.User, Text: "d"}, {Role: llmmock.Assistant}},
		"Be brief.\n\nHuman: x\n\n\n\nAssistant: The":            {{Role: llmmock.System, Text: "Be brief."}, {Role: llmmock.User, Text: "x"}, {Role: llmmock.Assistant, Text: "The"}},
		"": {{Role: llmmock.User}},
	} {
		if got := conversation(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", in, got)
		}
	}
	if n := len(conversation(strings.Repeat(human, 3*MaxMessages))); n != MaxMessages {
		t.Errorf("%d turns", n)
	}
}

func TestManyMessagesAndTools(t *testing.T) {
	q, _, failure := decode(t, "/v1/messages", `{"model":"m","max_tokens":1,"messages":[`+strings.Repeat(`{"role":"user","content":"x"},`, MaxMessages)+`{"role":"user","content":"x"}]}`)
	if failure == nil || len(q.Turns) != MaxMessages || kindOf(failure).message != "messages: List should have at most 100000 items after validation, not 100001" {
		t.Errorf("%d turns, %+v", len(q.Turns), failure)
	}
	var b bytes.Buffer
	b.WriteString(`{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[`)
	for i := range 100_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"name":"t`)
		b.WriteString(strings.Repeat("i", i%100))
		b.WriteString(`","input_schema":{}}`)
	}
	b.WriteString(`]}`)
	if _, _, failure = decode(t, "/v1/messages", b.String()); failure == nil || failure.Message != "Tool names must be unique." {
		t.Errorf("%+v", failure)
	}
}

// answers by name: what the golden files and the vendor's client are shown.
var answers = map[string]*llmmock.Answer{
	"text": {Text: "It is \"fine\" — 21 °C.\n", Tokens: providertest.Tokens("It is \"fine\" — 21 °C.\n"), Usage: llmmock.Usage{Input: 25, Cached: 10, CacheWrite: 5, Output: 6}},
	"tools": {Text: "I look.", Tokens: []string{"I look."}, Finish: llmmock.ToolCalls, Calls: []llmmock.Call{{ID: "00000000000000000000aa", Name: "weather", Arguments: `{"city":"Zürich"}`},
		{ID: "00000000000000000000bb", Name: "time", Arguments: `{}`}}, Usage: llmmock.Usage{Input: 40, Output: 30}},
	"thinking": {Thinking: "Let me think.", ThinkingTokens: providertest.Tokens("Let me think."), Text: "Done.", Tokens: []string{"Done."}, Finish: llmmock.AtStop, StoppedAt: "END",
		Usage: llmmock.Usage{Input: 9, Output: 12, Reasoning: 8}},
	"refusal": {Finish: llmmock.Refused, Usage: llmmock.Usage{Input: 9, Output: 1}},
}

func TestGolden(t *testing.T) {
	for name, a := range answers {
		for _, target := range []string{"/v1/messages", "/v1/messages?beta=true"} {
			q, f, failure := decode(t, target, small)
			if failure != nil {
				t.Fatal(failure)
			}
			x := providertest.Exchange(q, a)
			file := name
			if strings.Contains(target, "beta") {
				file += "-beta"
			}
			status, contentType, body := f.Whole([]byte("before"), x)
			if status != 200 || contentType != "application/json" || !json.Valid(body[6:]) {
				t.Errorf("%s: %d %s %s", name, status, contentType, body)
			}
			providertest.Golden(t, file+".json", append(body[6:], '\n'))
			stream := providertest.Stream(t, f, x)
			for line := range bytes.Lines(stream) {
				if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok && !json.Valid(data) {
					t.Errorf("%s: %s", file, data)
				}
			}
			providertest.Golden(t, file+".sse", stream)
		}
	}
	q, f, _ := decode(t, "/v1/complete", `{"model":"claude-2.1","max_tokens_to_sample":5,"prompt":"\n\nHuman: hello\n\nAssistant:"}`)
	x := providertest.Exchange(q, answers["text"])
	_, _, body := f.Whole(nil, x)
	providertest.Golden(t, "complete.json", append(body, '\n'))
	providertest.Golden(t, "complete.sse", providertest.Stream(t, f, x))
}

// A stream that nobody reads on is not written on.
func TestStreamStops(t *testing.T) {
	q, f, _ := decode(t, "/v1/messages", small)
	for _, a := range answers {
		n := 0
		for range f.Stream(providertest.Exchange(q, a)) {
			n++
		}
		for stop := range n {
			i := 0
			for range f.Stream(providertest.Exchange(q, a)) {
				if i++; i > stop {
					break
				}
			}
		}
	}
}

func TestWarmOnly(t *testing.T) {
	q, f, failure := decode(t, "/v1/messages", `{"model":"m","max_tokens":0,"messages":[{"role":"user","content":"x"}]}`)
	if failure != nil {
		t.Fatal(failure)
	}
	_, _, body := f.Whole(nil, providertest.Exchange(q, answers["tools"]))
	if !bytes.Contains(body, []byte(`"content":[],"stop_reason":"max_tokens"`)) || !bytes.Contains(body, []byte(`"output_tokens":0`)) {
		t.Errorf("%s", body)
	}
}

func TestFailures(t *testing.T) {
	var out bytes.Buffer
	for _, f := range []llmmock.Failure{
		{Reason: llmmock.BadRequest}, {Reason: llmmock.Unauthenticated}, {Reason: llmmock.NoCredit}, {Reason: llmmock.Forbidden}, {Reason: llmmock.NotFound, Message: "model: claude-1"},
		{Reason: llmmock.MethodUnknown}, {Reason: llmmock.Conflict}, {Reason: llmmock.TooLarge}, {Reason: llmmock.Unprocessable}, {Reason: llmmock.RateLimited},
		{Reason: llmmock.QuotaExhausted}, {Reason: llmmock.Broken}, {Reason: llmmock.Unavailable}, {Reason: llmmock.TimedOut}, {Reason: llmmock.Overloaded},
		{Status: 503, Reason: llmmock.Overloaded}, {Status: 529}, {Status: 418}, {Status: 502}, {}, {Status: 500, Reason: llmmock.Broken, Message: "a \"quoted\"\nline", Field: "x[3].y"},
	} {
		h := http.Header{}
		status, body := New(Config{}).Failure(h, &f, providertest.ID)
		if !json.Valid(body) || h.Get("Request-Id") == "" {
			t.Errorf("%+v: %s %v", f, body, h)
		}
		out.WriteString(http.StatusText(status) + " ")
		out.Write(body)
		out.WriteByte('\n')
	}
	q, f, _ := decode(t, "/v1/messages", small)
	out.Write(f.FailureChunk(nil, &llmmock.Failure{Reason: llmmock.Overloaded}, providertest.Exchange(q, nil)))
	providertest.Golden(t, "failures.txt", out.Bytes())
}

func TestHeader(t *testing.T) {
	q, f, _ := decode(t, "/v1/messages", small)
	q.At = time.Date(2026, 11, 26, 12, 0, 0, 500, time.FixedZone("CET", 3600))
	x := providertest.Exchange(q, nil)
	x.Failure = &llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: 1200 * time.Millisecond}
	x.Limits = &llmmock.Limits{Requests: llmmock.Limit{Limit: 50, Remaining: 0, Reset: 1200 * time.Millisecond}, Tokens: llmmock.Limit{Limit: 40000, Remaining: 39000, Reset: 90 * time.Second}}
	h := http.Header{}
	f.Header(h, x)
	for name, want := range map[string]string{
		"request-id": "req_010123456789abcdef012345", "retry-after": "2", "x-should-retry": "true", "anthropic-organization-id": "5d7a1b0e-3f62-4c58-9a41-c0e3b7d2f916",
		"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2026-11-26T11:00:02Z",
		"anthropic-ratelimit-tokens-limit": "40000", "anthropic-ratelimit-input-tokens-remaining": "39000", "anthropic-ratelimit-output-tokens-reset": "2026-11-26T11:01:31Z",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestKnown(t *testing.T) {
	if !Known("claude-haiku-4-5") || Known("gpt-4") {
		t.Error("Known is wrong")
	}
}

// What another vendor's platform is asked: no model, and the version in the body.
func TestHosted(t *testing.T) {
	for body, want := range map[string]string{
		`{"anthropic_version":"vertex-2023-10-16","max_tokens":5,"messages":[{"role":"user","content":"x"}],"stream":true}`: "",
		`{"max_tokens":5,"messages":[{"role":"user","content":"x"}]}`:                                                       "anthropic_version: Field required",
		`{"anthropic_version":"v","model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`:                   "model: Extra inputs are not permitted",
		`{"anthropic_version":"v","messages":[{"role":"user","content":"x"}]}`:                                              "max_tokens: Field required",
		`{`: "The request body is not valid JSON: unexpected end of data: line 1 column 2 (char 1)",
	} {
		q := &llmmock.Request{Model: "theirs"}
		f, failure := Hosted(q, []byte(body), "claude-x")
		if failure != nil && Message(failure) != want || failure == nil && want != "" {
			t.Errorf("%s: %+v", body, failure)
		}
		if failure == nil {
			if _, _, whole := f.Whole(nil, providertest.Exchange(q, answers["text"])); !bytes.Contains(whole, []byte(`"model":"claude-x"`)) || q.Model != "theirs" || !q.Stream {
				t.Errorf("%s", whole)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(conversationBody))
	f.Add([]byte(`{"model":"m","max_tokens_to_sample":5,"prompt":"\n\nHuman: hello\n\nAssistant:"}`))
	f.Add([]byte(`{"system":"s","messages":[{"content":[{"source":{"data":"x","media_type":"text/plain"},"type":"document"}],"role":"user"}],"thinking":{"type":"adaptive","display":"omitted"}}`))
	f.Add([]byte(`{"model":"m","thread":{"type":"continue","previous_message_id":"msg_01"},"max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"x","citations":[{}]}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens", "/v1/complete"} {
			q, format, failure := decode(t, path, string(body))
			valid := json.Valid(body)
			if !valid && format != nil {
				t.Fatalf("understood what is no JSON: %q", body)
			}
			if format == nil {
				if failure == nil || failure.Status != 400 {
					t.Fatalf("neither understood nor refused: %q", body)
				}
				continue
			}
			if len(q.Turns) == 0 && failure == nil {
				t.Fatalf("taken without a turn: %q", body)
			}
			for _, tool := range q.Tools {
				if len(tool.Schema) > 0 && !json.Valid(tool.Schema) {
					t.Fatalf("schema %q of %q", tool.Schema, body)
				}
			}
			x := providertest.Exchange(q, answers["tools"])
			if _, _, whole := format.Whole(nil, x); !json.Valid(whole) {
				t.Fatalf("answered %q", whole)
			}
			if failure != nil {
				if _, _, e := format.Failure(nil, failure, x); !json.Valid(e) {
					t.Fatalf("refused with %q", e)
				}
			}
		}
	})
}

func BenchmarkDecodeSmall(b *testing.B) {
	r := httptest.NewRequest(http.MethodPost, "/v1/messages", nil)
	r.Header.Set("anthropic-version", Version)
	route, body := New(Config{}).Routes[0], []byte(small)
	b.ReportAllocs()
	for b.Loop() {
		q := llmmock.Request{}
		if _, failure := route.Decode(&q, r, body); failure != nil {
			b.Fatal(failure)
		}
	}
}

func BenchmarkDecodeConversation(b *testing.B) {
	r := httptest.NewRequest(http.MethodPost, "/v1/messages", nil)
	r.Header.Set("anthropic-version", Version)
	route, body := New(Config{}).Routes[0], []byte(conversationBody)
	b.ReportAllocs()
	for b.Loop() {
		q := llmmock.Request{}
		if _, failure := route.Decode(&q, r, body); failure != nil {
			b.Fatal(failure)
		}
	}
}

func BenchmarkWhole(b *testing.B) {
	q, f, _ := decode(b, "/v1/messages", small)
	x := providertest.Exchange(q, answers["text"])
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		_, _, dst = f.Whole(dst[:0], x)
	}
}

// One operation is one chunk.
func BenchmarkStreamChunk(b *testing.B) {
	q, f, _ := decode(b, "/v1/messages", small)
	x := providertest.Exchange(q, &llmmock.Answer{Text: "x", Tokens: slices.Repeat([]string{" weather"}, b.N)})
	b.ReportAllocs()
	for range f.Stream(x) {
	}
}
