package openai_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"

	"edgehold.internal/services/llmmock"
)

func (s *server) client(options ...option.RequestOption) sdk.Client {
	return sdk.NewClient(append([]option.RequestOption{option.WithBaseURL(s.URL + "/v1/"), option.WithAPIKey("key"), option.WithMaxRetries(0), option.WithUnsafeAllowHTTP()}, options...)...)
}

// chatOf is what a completion says, as the domain has it.
func chatOf(c *sdk.ChatCompletionChoice) *llmmock.Answer {
	a := &llmmock.Answer{Text: c.Message.Content + c.Message.Refusal, Finish: llmmock.Finish(c.FinishReason)}
	for _, call := range c.Message.ToolCalls {
		a.Calls = append(a.Calls, llmmock.Call{Name: call.Function.Name, Arguments: call.Function.Arguments})
	}
	return a
}

// told is what a client shall be told of an answer.
func told(a *llmmock.Answer) *llmmock.Answer {
	finish := map[llmmock.Finish]llmmock.Finish{llmmock.Stopped: "stop", llmmock.AtLength: "length", llmmock.AtStop: "stop", llmmock.Refused: "stop", llmmock.Filtered: "content_filter", llmmock.ToolCalls: "tool_calls"}
	t := &llmmock.Answer{Text: a.Text, Finish: finish[a.Finish]}
	for _, c := range a.Calls {
		t.Calls = append(t.Calls, llmmock.Call{Name: c.Name, Arguments: c.Arguments})
	}
	return t
}

func question(change ...func(p *sdk.ChatCompletionNewParams)) sdk.ChatCompletionNewParams {
	p := sdk.ChatCompletionNewParams{Model: "gpt-4o", Messages: []sdk.ChatCompletionMessageParamUnion{sdk.SystemMessage("Be brief."), sdk.UserMessage("What is up?")}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func TestChatOfTheSDK(t *testing.T) {
	for name, a := range answers() {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(x *llmmock.Exchange) {
				x.Answer = a
				for range x.Choices - 1 {
					x.More = append(x.More, say("another", " one"))
				}
			})
			client := s.client()
			ctx := context.Background()
			whole, err := client.Chat.Completions.New(ctx, question())
			if err != nil {
				t.Fatal(err)
			}
			if got := chatOf(&whole.Choices[0]); !reflect.DeepEqual(got, told(a)) {
				t.Errorf("whole: got %+v, want %+v", got, told(a))
			}
			if u := whole.Usage; u.PromptTokens != 11 || u.PromptTokensDetails.CachedTokens != 4 || int(u.CompletionTokens) != a.Usage.Output || u.TotalTokens != u.PromptTokens+u.CompletionTokens || int(u.CompletionTokensDetails.ReasoningTokens) != a.Usage.Reasoning {
				t.Errorf("usage %+v of %+v", u, a.Usage)
			}
			if whole.Created != epoch.Unix() || whole.Model != "gpt-4o" || !strings.HasPrefix(whole.ID, "chatcmpl-") {
				t.Errorf("id %q, created %d, model %q", whole.ID, whole.Created, whole.Model)
			}
			if refused := whole.Choices[0].Message.Refusal != ""; refused != (a.Finish == llmmock.Refused) {
				t.Errorf("refusal %q", whole.Choices[0].Message.Refusal)
			}
			for _, n := range []int64{1, 3} {
				stream := client.Chat.Completions.NewStreaming(ctx, question(func(p *sdk.ChatCompletionNewParams) {
					p.N = sdk.Int(n)
					p.StreamOptions.IncludeUsage = sdk.Bool(true)
				}))
				acc := sdk.ChatCompletionAccumulator{}
				finished := 0
				for stream.Next() {
					if !acc.AddChunk(stream.Current()) {
						t.Fatalf("the accumulator refuses %s", stream.Current().RawJSON())
					}
					if _, ok := acc.JustFinishedToolCall(); ok && n == 1 {
						finished++
					}
				}
				if err := stream.Err(); err != nil {
					t.Fatal(err)
				}
				if len(acc.Choices) != int(n) {
					t.Fatalf("%d choices", len(acc.Choices))
				}
				if got := chatOf(&acc.Choices[0]); !reflect.DeepEqual(got, told(a)) {
					t.Errorf("stream of %d: got %+v, want %+v", n, got, told(a))
				}
				if n == 1 && finished != len(a.Calls) {
					t.Errorf("%d calls came to an end, of %d", finished, len(a.Calls))
				}
				for i := 1; i < int(n); i++ {
					if got := chatOf(&acc.Choices[i]); got.Text != "another one" || got.Finish != "stop" {
						t.Errorf("choice %d: %+v", i, got)
					}
				}
				if want := a.Usage.Output + 2*int(n-1); int(acc.Usage.CompletionTokens) != want {
					t.Errorf("usage of %d: %d, want %d", n, acc.Usage.CompletionTokens, want)
				}
			}
		})
	}
}

func TestProbabilitiesAreTheSameInAStream(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = say("The", " answer", " is", " it", ".")
		x.Request.Hash, x.Moment.Request = 0, 0 // whole and streamed are other requests
	})
	client := s.client()
	ask := question(func(p *sdk.ChatCompletionNewParams) { p.Logprobs, p.TopLogprobs = sdk.Bool(true), sdk.Int(3) })
	whole, err := client.Chat.Completions.New(context.Background(), ask)
	if err != nil {
		t.Fatal(err)
	}
	acc := sdk.ChatCompletionAccumulator{}
	stream := client.Chat.Completions.NewStreaming(context.Background(), ask)
	for stream.Next() {
		if !acc.AddChunk(stream.Current()) {
			t.Fatal("the accumulator refuses")
		}
	}
	got, want := acc.Choices[0].Logprobs.Content, whole.Choices[0].Logprobs.Content
	if len(want) != 5 || len(got) != 5 {
		t.Fatalf("%d and %d tokens", len(got), len(want))
	}
	for i := range want {
		w := want[i]
		if got[i].Logprob != w.Logprob || got[i].Token != w.Token || len(w.TopLogprobs) != 3 || w.TopLogprobs[0].Token != w.Token {
			t.Errorf("%d: %+v, want %+v", i, got[i], w)
		}
		seen := map[string]bool{}
		for j, top := range w.TopLogprobs {
			if top.Logprob > 0 || seen[top.Token] || j > 1 && top.Logprob > w.TopLogprobs[j-1].Logprob {
				t.Errorf("%d: alternatives %+v", i, w.TopLogprobs)
			}
			seen[top.Token] = true
		}
	}
}

func TestDecodeChat(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = say("ok") })
	s.lenient = true
	tool := `{"type":"function","function":{"name":"weather","description":"of a city","parameters":{"type":"object"}}}`
	for name, tc := range map[string]struct {
		body string
		want llmmock.Request
	}{
		"roles": {`{"model":"m","messages":[{"role":"developer","content":"d"},{"role":"system","content":[{"type":"text","text":"s"}]},{"role":"user","content":"u","name":"n"},{"role":"assistant","content":null,"refusal":"no"}]}`,
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.System, Text: "d"}, {Role: llmmock.System, Text: "s"}, {Role: llmmock.User, Text: "u"}, {Role: llmmock.Assistant, Text: "no"}}}},
		"parts": {`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"image_url":{"url":"data:","detail":"low"},"type":"image_url"},{"type":"text","text":"b"},{"type":"input_audio","input_audio":{"data":"","format":"wav"}},{"type":"file","file":{"file_id":"f"}}]}]}`,
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.User, Text: "a\nb", Media: 3}}}},
		"calls": {`{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"call_2","type":"custom","custom":{"name":"c","input":"x\"y"}}]},{"role":"tool","tool_call_id":"call_1","content":"r"},{"tool_call_id":"call_2","content":[{"type":"text","text":"q"}],"role":"tool"}]}`,
			llmmock.Request{Turns: []llmmock.Turn{
				{Role: llmmock.Assistant, Calls: []llmmock.Call{{ID: "call_1", Name: "f", Arguments: "{}"}, {ID: "call_2", Name: "c", Arguments: `{"input":"x\"y"}`}}},
				{Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "call_1", Text: "r"}}}, {Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "call_2", Text: "q"}}}}}},
		"functions": {`{"model":"m","functions":[{"name":"f","parameters":{"a":[1, 2]}}],"function_call":{"name":"f"},"messages":[{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}},{"role":"function","name":"f","content":"r"}]}`,
			llmmock.Request{Tools: []llmmock.Tool{{Name: "f", Schema: []byte(`{"a":[1, 2]}`)}}, ToolChoice: llmmock.ToolsNamed, NamedTool: "f",
				Turns: []llmmock.Turn{{Role: llmmock.Assistant, Calls: []llmmock.Call{{ID: "f", Name: "f", Arguments: "{}"}}}, {Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "f", Text: "r"}}}}}},
		"a tool is forced": {`{"model":"m","messages":[{"role":"user","content":"u"}],"tools":[` + tool + `],"tool_choice":{"type":"function","function":{"name":"weather"}},"parallel_tool_calls":false}`,
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.User, Text: "u"}}, Tools: []llmmock.Tool{{Name: "weather", Description: "of a city", Schema: []byte(`{"type":"object"}`)}}, ToolChoice: llmmock.ToolsNamed, NamedTool: "weather", ParallelCalls: false}},
		"tools are allowed": {`{"model":"m","messages":[{"role":"user","content":"u"}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"weather"}}]}},"tools":[` + tool + `,{"type":"function","function":{"name":"other"}}]}`,
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.User, Text: "u"}}, Tools: []llmmock.Tool{{Name: "weather", Description: "of a city", Schema: []byte(`{"type":"object"}`)}}, ToolChoice: llmmock.ToolsRequired}},
		"numbers": {`{"model":"m","messages":[{"role":"user","content":"u"}],"max_completion_tokens":20,"max_tokens":10,"n":2,"stop":["a","","b"],"reasoning_effort":"low","stream":null,"temperature":0.5,"store":true}`,
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.User, Text: "u"}}, MaxTokens: 20, Choices: 2, Stop: []string{"a", "b"}, Thinking: 1024}},
		"json": {`{"model":"m","messages":[{"role":"user","content":"JSON"}],"response_format":{"type":"json_object"},"stop":"x"}`,
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.User, Text: "JSON"}}, Schema: []byte{}, Stop: []string{"x"}}},
		"schema": {`{"model":"m","messages":[{"role":"user","content":"u"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}}}`,
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.User, Text: "u"}}, Schema: []byte(`{"type":"object"}`)}},
		"the last of a key": {"{\"model\":\"x\",\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"1\"}],\n \"messages\" : [ {\"role\":\"user\",\"content\":\"\\u00fc\\ud83d\\ude00\\ud800\xff\"} ] }",
			llmmock.Request{Turns: []llmmock.Turn{{Role: llmmock.User, Text: "ü😀\ufffd\ufffd"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, body := s.ask(t, "POST", "/v1/chat/completions", tc.body)
			if status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			q := s.last
			want := tc.want
			want.Vendor, want.Operation, want.Method, want.Path, want.Model = llmmock.OpenAI, llmmock.Generate, "POST", "/v1/chat/completions", "m"
			want.Hash, want.At, want.Key = q.Hash, q.At, q.Key
			want.Choices = max(want.Choices, 1)
			want.ParallelCalls = name != "a tool is forced"
			if !reflect.DeepEqual(*q, want) {
				t.Errorf("got  %+v\nwant %+v", *q, want)
			}
		})
	}
}

// What OpenAI says, in its four fields.
func TestRefusals(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = say("ok"); x.Answer.Embeddings = [][]float32{{1}} })
	deep := strings.Repeat("[", 100_000)
	many := strings.Repeat(`{"type":"function","function":{"name":"f"}},`, 100_000)
	user := `"messages":[{"role":"user","content":"u"}]`
	for name, tc := range map[string]struct{ path, body, param, code, message string }{
		"no json":             {"chat/completions", `{"model":`, "", "", "We could not parse the JSON body"},
		"nothing":             {"chat/completions", ``, "", "", "We could not parse the JSON body"},
		"more than json":      {"chat/completions", `{"model":"m",` + user + `} x`, "", "", "We could not parse the JSON body"},
		"no object":           {"chat/completions", `[]`, "", "", "expected an object, but got an array"},
		"deep":                {"chat/completions", `{"model":"m","metadata":` + deep, "", "", "nested too deeply"},
		"no messages":         {"chat/completions", `{"model":"m"}`, "messages", "missing_required_parameter", "Missing required parameter: 'messages'."},
		"null messages":       {"chat/completions", `{"model":"m","messages":null}`, "messages", "invalid_type", "Invalid type for 'messages': expected an array of objects, but got null instead."},
		"messages are text":   {"chat/completions", `{"model":"m","messages":"hi"}`, "messages", "invalid_type", "Invalid type for 'messages': expected an array of objects, but got a string instead."},
		"empty messages":      {"chat/completions", `{"model":"m","messages":[]}`, "messages", "empty_array", "empty array"},
		"no model":            {"chat/completions", `{` + user + `}`, "", "", "you must provide a model parameter"},
		"content is a number": {"chat/completions", `{"model":"m","messages":[{"role":"user","content":7}]}`, "messages[0].content", "invalid_type", "Invalid type for 'messages[0].content': expected one of a string or array of objects, but got an integer instead."},
		"content is missing":  {"chat/completions", `{"model":"m","messages":[{"role":"user","content":"u"},{"role":"user"}]}`, "messages[1].content", "missing_required_parameter", "Missing required parameter: 'messages[1].content'."},
		"content is null":     {"chat/completions", `{"model":"m","messages":[{"role":"user","content":null}]}`, "messages[0].content", "invalid_type", "got null"},
		"part of no kind":     {"chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"text":"u"}]}]}`, "messages[0].content[0].type", "missing_required_parameter", ""},
		"part of a new kind":  {"chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"smell"}]}]}`, "messages[0].content[0].type", "invalid_value", "Invalid value: 'smell'."},
		"role":                {"chat/completions", `{"model":"m","messages":[{"role":"boss","content":"u"}]}`, "messages[0].role", "invalid_value", "Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."},
		"decimal":             {"chat/completions", `{"model":"m",` + user + `,"max_tokens":1.5}`, "max_tokens", "invalid_type", "expected an integer, but got a decimal number instead."},
		"not a number":        {"chat/completions", `{"model":"m",` + user + `,"n":"2"}`, "n", "invalid_type", "expected an integer, but got a string instead."},
		"too many choices":    {"chat/completions", `{"model":"m",` + user + `,"n":1000}`, "n", "integer_above_max_value", "Expected a value <= 128, but got 1000 instead."},
		"too few":             {"chat/completions", `{"model":"m",` + user + `,"n":0}`, "n", "integer_below_min_value", "Expected a value >= 1, but got 0 instead."},
		"stops":               {"chat/completions", `{"model":"m",` + user + `,"stop":["1","2","3","4","5"]}`, "stop", "array_above_max_length", "maximum length 4, but got an array with length 5"},
		"100,000 tools":       {"chat/completions", `{"model":"m",` + user + `,"tools":[` + many[:len(many)-1] + `]}`, "tools", "array_above_max_length", "maximum length 128, but got an array with length 100000"},
		"a tool of no name":   {"chat/completions", `{"model":"m",` + user + `,"tools":[{"type":"function","function":{}}]}`, "tools[0].function.name", "missing_required_parameter", ""},
		"a tool's name":       {"chat/completions", `{"model":"m",` + user + `,"tools":[{"type":"function","function":{"name":"a b"}}]}`, "tools[0].function.name", "invalid_value", "pattern"},
		"arguments":           {"chat/completions", `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{}}}]}]}`, "messages[0].tool_calls[0].function.arguments", "invalid_type", "expected a string, but got an object instead."},
		"unanswered call":     {"chat/completions", `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"call_7","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"user","content":"u"}]}`, "messages.[0].role", "", "did not have response messages: call_7"},
		"uncalled answer":     {"chat/completions", `{"model":"m","messages":[{"role":"tool","tool_call_id":"call_7","content":"u"}]}`, "messages.[0].role", "", "must be a response to a preceeding message"},
		"choice of no tools":  {"chat/completions", `{"model":"m",` + user + `,"tool_choice":"required"}`, "tool_choice", "", "only allowed when 'tools' are specified"},
		"format":              {"chat/completions", `{"model":"m",` + user + `,"response_format":{"type":"xml"}}`, "response_format.type", "invalid_value", "'json_object', 'json_schema', and 'text'"},
		"json unsaid":         {"chat/completions", `{"model":"m",` + user + `,"response_format":{"type":"json_object"}}`, "messages", "", "must contain the word 'json'"},
		"unknown parameter":   {"chat/completions", `{"model":"m",` + user + `,"temprature":1}`, "temprature", "unknown_parameter", "Unknown parameter: 'temprature'."},
		"2049 messages":       {"chat/completions", `{"model":"m","messages":[` + strings.Repeat(`{"role":"user","content":"u"},`, 2048) + `{}]}`, "messages", "array_above_max_length", "2049"},
		"prompts":             {"completions", `{"model":"m","prompt":["a",1]}`, "prompt[1]", "invalid_type", "but got an integer instead."},
		"too many prompts":    {"completions", `{"model":"m","prompt":["a","b"],"n":100}`, "n", "integer_above_max_value", "200"},
		"no input":            {"embeddings", `{"model":"m"}`, "input", "missing_required_parameter", ""},
		"empty input":         {"embeddings", `{"model":"m","input":["a",""]}`, "input[1]", "", "cannot be an empty string"},
		"inputs":              {"embeddings", `{"model":"m","input":[` + strings.Repeat(`"a",`, 2048) + `"a"]}`, "input", "array_above_max_length", "2049"},
		"dimensions":          {"embeddings", `{"model":"text-embedding-3-small","input":"a","dimensions":2000}`, "dimensions", "", "Must be less than or equal to 1536."},
		"huge dimensions":     {"embeddings", `{"model":"text-embedding-3-small","input":"a","dimensions":1000000000}`, "dimensions", "integer_above_max_value", ""},
		"encoding":            {"embeddings", `{"model":"m","input":"a","encoding_format":"hex"}`, "encoding_format", "invalid_value", "'float' and 'base64'"},
		"response input":      {"responses", `{"model":"m"}`, "input", "missing_required_parameter", ""},
		"response model":      {"responses", `{"input":"m"}`, "model", "missing_required_parameter", ""},
		"response role":       {"responses", `{"model":"m","input":[{"role":"tool","content":"u"}]}`, "input[0].role", "invalid_value", "'assistant', 'system', 'developer', and 'user'"},
		"response call":       {"responses", `{"model":"m","input":[{"type":"function_call","name":"f"}]}`, "input[0].call_id", "missing_required_parameter", ""},
		"response output":     {"responses", `{"model":"m","input":[{"type":"function_call_output","call_id":"call_1","output":"r"}]}`, "input", "", "No tool call found for function call output with call_id call_1."},
		"unanswered":          {"responses", `{"model":"m","input":[{"type":"function_call","call_id":"call_1","name":"f","arguments":"{}"}]}`, "input", "", "No tool output found for function call call_1."},
		"few tokens":          {"responses", `{"model":"m","input":"u","max_output_tokens":3}`, "max_output_tokens", "integer_below_min_value", ">= 16"},
	} {
		t.Run(name, func(t *testing.T) {
			status, h, body := s.ask(t, "POST", "/v1/"+tc.path, tc.body)
			var e struct {
				Error struct {
					Message, Type string
					Param, Code   *string
				}
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Fatal(err)
			}
			if status != 400 || e.Error.Type != "invalid_request_error" || text(e.Error.Param) != tc.param || text(e.Error.Code) != tc.code || !strings.Contains(e.Error.Message, tc.message) {
				t.Errorf("%d %s", status, body)
			}
			if len(body) > 600 {
				t.Errorf("%d bytes of answer", len(body))
			}
			if !strings.HasPrefix(h.Get("X-Request-Id"), "req_") || h.Get("Content-Type") != "application/json" {
				t.Errorf("%v", h)
			}
		})
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func TestFailures(t *testing.T) {
	var f llmmock.Failure
	s := start(t, func(x *llmmock.Exchange) {
		x.Failure = &f
		x.Limits = &llmmock.Limits{Requests: llmmock.Limit{Limit: 500, Remaining: 0, Reset: 6 * time.Minute}, Tokens: llmmock.Limit{Limit: 30_000, Remaining: 29_000, Reset: 12 * time.Millisecond}}
	})
	reasons := []llmmock.Reason{llmmock.BadRequest, llmmock.Unauthenticated, llmmock.NoCredit, llmmock.Forbidden, llmmock.NotFound, llmmock.Conflict, llmmock.TooLarge,
		llmmock.Unprocessable, llmmock.RateLimited, llmmock.QuotaExhausted, llmmock.Broken, llmmock.Unavailable, llmmock.TimedOut, llmmock.Overloaded, llmmock.MethodUnknown, "new"}
	const body = `{"model":"gpt-4o","messages":[{"role":"user","content":"u"}]}`
	for name, path := range map[string]string{"openai": "/v1/chat/completions", "azure": "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"} {
		var out strings.Builder
		for _, r := range reasons {
			f = llmmock.Failure{Reason: r}
			if r == llmmock.RateLimited || r == llmmock.Unavailable {
				f.RetryAfter = 1500 * time.Millisecond
			}
			status, h, answer := s.ask(t, "POST", path, body)
			out.WriteString(string(r) + ": " + http.StatusText(status) + " " + h.Get("Retry-After") + " " + h.Get("Retry-After-Ms") + "\n" + answer + "\n")
			if !json.Valid([]byte(answer)) {
				t.Errorf("%s: %s", r, answer)
			}
		}
		f = llmmock.Failure{Reason: llmmock.NotFound, Code: "model_not_found"}
		_, h, answer := s.ask(t, "POST", path, body)
		out.WriteString("model:\n" + answer + "\n")
		golden(t, "failures_"+name+".txt", out.String())
		if h.Get("X-Ratelimit-Limit-Requests") != "500" || h.Get("X-Ratelimit-Remaining-Tokens") != "29000" || h.Get("X-Ratelimit-Reset-Requests") != "6m0s" || h.Get("X-Ratelimit-Reset-Tokens") != "12ms" {
			t.Errorf("%v", h)
		}
	}
	f = llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: time.Second}
	client := s.client()
	_, err := client.Chat.Completions.New(context.Background(), question())
	var e *sdk.Error
	if !errors.As(err, &e) || e.StatusCode != 429 || e.Code != "rate_limit_exceeded" || e.Type != "requests" || e.Param != "" {
		t.Errorf("%v", err)
	}
}

func TestHeader(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = say("a", "b", "c")
		x.Schedule = llmmock.Schedule{First: 100 * time.Millisecond, Gaps: []time.Duration{20 * time.Millisecond}}
	})
	const body = `{"model":"gpt-4o","messages":[{"role":"user","content":"u"}]`
	_, h, _ := s.ask(t, "POST", "/v1/chat/completions", body+"}")
	if h.Get("Openai-Processing-Ms") != "140" || h.Get("Openai-Version") == "" || h.Get("Openai-Organization") == "" || h.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Errorf("%v", h)
	}
	_, h, _ = s.ask(t, "POST", "/v1/chat/completions", body+`,"stream":true}`)
	if h.Get("Openai-Processing-Ms") != "100" || h.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("%v", h)
	}
	_, h, _ = s.ask(t, "POST", "/openai/v1/chat/completions", body+"}")
	if h.Get("X-Ms-Region") != "eastus" || len(h.Get("Apim-Request-Id")) != 36 {
		t.Errorf("%v", h)
	}
}

func TestFailsInTheStream(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = say("a", "b", "c")
		x.Fault = llmmock.Fault{Kind: llmmock.FailMidStream, AtToken: 2, Failure: llmmock.Failure{Reason: llmmock.Broken}}
	})
	client := s.client()
	stream := client.Chat.Completions.NewStreaming(context.Background(), question())
	said := ""
	for stream.Next() {
		if c := stream.Current(); len(c.Choices) > 0 {
			said += c.Choices[0].Delta.Content
		}
	}
	if err := stream.Err(); said != "ab" || err == nil || !strings.Contains(err.Error(), "The server had an error while processing your request") {
		t.Errorf("%q, %v", said, err)
	}
}

func TestGoldenChat(t *testing.T) {
	all := answers()
	for name, tc := range map[string]struct{ answer, body string }{
		"text":      {"text", ``},
		"calls":     {"calls", ``},
		"refused":   {"refused", ``},
		"functions": {"call", `,"functions":[{"name":"weather"}]`},
		"custom":    {"custom", `,"tools":[{"type":"custom","custom":{"name":"shell"}}]`},
		"logprobs":  {"text", `,"logprobs":true,"top_logprobs":2`},
		"usage":     {"text", `,"n":2,"stream_options":{"include_usage":true,"include_obfuscation":false},"service_tier":"flex"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(x *llmmock.Exchange) {
				if x.Answer = all[tc.answer]; x.Answer == nil {
					x.Answer = with(say(), func(a *llmmock.Answer) {
						a.Finish, a.Calls = llmmock.ToolCalls, []llmmock.Call{{Name: "shell", Arguments: `{"input":"ls -l \"/\""}`}}
					})
				}
				if x.Choices > 1 {
					x.More = []*llmmock.Answer{say("Another")}
				}
				x.ID = "0123456789abcdef0123456789abcdef"
			})
			body := `{"model":"gpt-4o","messages":[{"role":"user","content":"u"}]` + tc.body
			_, _, whole := s.ask(t, "POST", "/v1/chat/completions", body+"}")
			_, _, stream := s.ask(t, "POST", "/v1/chat/completions", body+`,"stream":true}`)
			_, _, azure := s.ask(t, "POST", "/openai/deployments/dep/chat/completions?api-version=1", body+`,"stream":true}`)
			if name != "text" {
				azure = ""
			}
			golden(t, "chat_"+name+".txt", whole+"\n\n"+stream+azure)
			if !slices.Contains(events(stream), "data: [DONE]") {
				t.Error("it does not end")
			}
		})
	}
}

func TestAzureDeployment(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = say("a", "b") })
	client := sdk.NewClient(option.WithBaseURL(s.URL+"/openai/deployments/my-gpt/"), option.WithAPIKey(""), option.WithHeader("Api-Key", "k"), option.WithQuery("api-version", "2024-10-21"), option.WithUnsafeAllowHTTP(), option.WithMaxRetries(0))
	c, err := client.Chat.Completions.New(context.Background(), question())
	if err != nil || c.Model != "my-gpt" || s.last.Vendor != llmmock.Azure || s.last.Region != "eastus" {
		t.Fatalf("%v %+v", err, c)
	}
	acc := sdk.ChatCompletionAccumulator{}
	stream := client.Chat.Completions.NewStreaming(context.Background(), question())
	for stream.Next() {
		if !acc.AddChunk(stream.Current()) {
			t.Fatalf("the accumulator refuses %s", stream.Current().RawJSON())
		}
	}
	if stream.Err() != nil || acc.Choices[0].Message.Content != "ab" {
		t.Errorf("%v %+v", stream.Err(), acc.Choices)
	}
	if status, _, body := s.ask(t, "POST", "/openai/deployments/d/chat/completions", `{}`); status != 404 || body != `{"error":{"code":"404","message":"Resource not found"}}` {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := s.ask(t, "POST", "/openai/responses?api-version=1", `{"model":"d","input":"x"}`); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// The bodies that the SDK's own tests send have every parameter there is.
func TestAllParametersOfTheSDK(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = say("a") })
	client := s.client()
	_, err := client.Chat.Completions.New(context.Background(), question(func(p *sdk.ChatCompletionNewParams) {
		p.Audio = sdk.ChatCompletionAudioParam{Format: sdk.ChatCompletionAudioParamFormatWAV, Voice: sdk.ChatCompletionAudioParamVoiceUnion{OfChatCompletionAudioVoiceString2: sdk.String("alloy")}}
		p.FrequencyPenalty, p.PresencePenalty, p.Temperature, p.TopP = sdk.Float(-2), sdk.Float(-2), sdk.Float(1), sdk.Float(1)
		p.FunctionCall = sdk.ChatCompletionNewParamsFunctionCallUnion{OfFunctionCallMode: sdk.String("none")}
		p.Functions = []sdk.ChatCompletionNewParamsFunction{{Name: "name", Parameters: shared.FunctionParameters{"foo": "bar"}}}
		p.LogitBias, p.Logprobs, p.TopLogprobs = map[string]int64{"foo": 0}, sdk.Bool(true), sdk.Int(0)
		p.MaxCompletionTokens, p.MaxTokens, p.N, p.Seed = sdk.Int(0), sdk.Int(0), sdk.Int(1), sdk.Int(-9007199254740991)
		p.Metadata, p.Modalities, p.ParallelToolCalls = shared.Metadata{"foo": "string"}, []string{"text"}, sdk.Bool(true)
		p.Prediction = sdk.ChatCompletionPredictionContentParam{Content: sdk.ChatCompletionPredictionContentContentUnionParam{OfString: sdk.String("string")}}
		p.ReasoningEffort, p.Store, p.User, p.Verbosity = shared.ReasoningEffortNone, sdk.Bool(true), sdk.String("user-1234"), sdk.ChatCompletionNewParamsVerbosityLow
		p.ResponseFormat = sdk.ChatCompletionNewParamsResponseFormatUnion{OfText: &shared.ResponseFormatTextParam{}}
		p.Stop = sdk.ChatCompletionNewParamsStopUnion{OfString: sdk.String("\n")}
		p.StreamOptions = sdk.ChatCompletionStreamOptionsParam{IncludeUsage: sdk.Bool(true), IncludeObfuscation: sdk.Bool(true)}
		p.ToolChoice = sdk.ChatCompletionToolChoiceOptionUnionParam{OfAuto: sdk.String("none")}
		p.Tools = []sdk.ChatCompletionToolUnionParam{sdk.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "name", Strict: sdk.Bool(true)})}
		p.WebSearchOptions = sdk.ChatCompletionNewParamsWebSearchOptions{SearchContextSize: "low"}
	}))
	if err != nil {
		t.Error(err)
	}
}

func TestStoredChats(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		if x.Operation == llmmock.Generate {
			x.Answer = say("answer to ", x.Last())
		}
	})
	s.strict = true
	client := s.client()
	ctx := context.Background()
	ask := func(text, kind string, store bool) string {
		t.Helper()
		c, err := client.Chat.Completions.New(ctx, sdk.ChatCompletionNewParams{Model: "m", Store: sdk.Bool(store), Metadata: shared.Metadata{"kind": kind},
			Messages: []sdk.ChatCompletionMessageParamUnion{sdk.SystemMessage("s"), sdk.UserMessage([]sdk.ChatCompletionContentPartUnionParam{sdk.TextContentPart(text)})}})
		if err != nil {
			t.Fatal(err)
		}
		return c.ID
	}
	one, two, three := ask("1", "a", true), ask("2", "b", true), ask("3", "a", true)
	unstored := ask("4", "a", false)
	list := func(p sdk.ChatCompletionListParams) (ids []string) {
		t.Helper()
		pages := client.Chat.Completions.ListAutoPaging(ctx, p)
		for pages.Next() {
			ids = append(ids, pages.Current().ID)
		}
		if pages.Err() != nil {
			t.Fatal(pages.Err())
		}
		return ids
	}
	for _, tc := range []struct {
		p    sdk.ChatCompletionListParams
		want []string
	}{
		{sdk.ChatCompletionListParams{Limit: sdk.Int(2)}, []string{one, two, three}},
		{sdk.ChatCompletionListParams{Limit: sdk.Int(1), Order: sdk.ChatCompletionListParamsOrderDesc}, []string{three, two, one}},
		{sdk.ChatCompletionListParams{Metadata: shared.Metadata{"kind": "a"}}, []string{one, three}},
		{sdk.ChatCompletionListParams{Model: sdk.String("other")}, nil},
		{sdk.ChatCompletionListParams{After: sdk.String(two)}, []string{three}},
	} {
		if got := list(tc.p); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.p, got, tc.want)
		}
	}
	got, err := client.Chat.Completions.Get(ctx, two)
	if err != nil || got.Choices[0].Message.Content != "answer to 2" || got.ID != two {
		t.Errorf("%v %+v", err, got)
	}
	messages, err := client.Chat.Completions.Messages.List(ctx, two, sdk.ChatCompletionMessageListParams{Limit: sdk.Int(0)})
	if err != nil || len(messages.Data) != 2 || messages.Data[0].Content != "s" || messages.Data[1].ContentParts[0].Text != "2" || messages.Data[1].ID != two+"-1" {
		t.Errorf("%v %+v", err, messages)
	}
	if _, err := client.Chat.Completions.Update(ctx, two, sdk.ChatCompletionUpdateParams{Metadata: shared.Metadata{"kind": "c"}}); err != nil {
		t.Error(err)
	}
	if got := list(sdk.ChatCompletionListParams{Metadata: shared.Metadata{"kind": "c"}}); !slices.Equal(got, []string{two}) {
		t.Errorf("%v", got)
	}
	if d, err := client.Chat.Completions.Delete(ctx, two); err != nil || !d.Deleted || d.ID != two {
		t.Errorf("%v %+v", err, d)
	}
	for _, id := range []string{two, unstored} {
		var e *sdk.Error
		if _, err := client.Chat.Completions.Get(ctx, id); !errors.As(err, &e) || e.StatusCode != 404 || e.Message != "Chat completion with id '"+id+"' not found." {
			t.Errorf("%s: %v", id, err)
		}
	}
	s.strict = false
	if got, err := client.Chat.Completions.Get(ctx, "completion_id"); err != nil || got.ID != "completion_id" || got.Choices[0].Message.Content == "" {
		t.Errorf("%v %+v", err, got)
	}
}
