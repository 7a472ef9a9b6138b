package spec

import (
	"fmt"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
)

func document(t testing.TB, v llmmock.Vendor) *Document {
	t.Helper()
	d, err := Load(v)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAccepts(t *testing.T) {
	for _, c := range []struct{ route, body string }{
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`},
		{"POST /v1/chat/completions", `{"model":"ft:gpt-4o:acme::abc","messages":[{"role":"developer","content":"be brief"},{"role":"user","content":[{"type":"text","text":"what is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}],"temperature":0,"stream":true,"stream_options":{"include_usage":true},"stop":["a","b"],"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"},"strict":true}}}`},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"call_1","content":"42"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}],"tool_choice":{"type":"function","function":{"name":"f"}}}`},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"tool_choice":"auto","stop":null,"metadata":{"a":"b"}}`},
		{"POST /v1/embeddings", `{"model":"text-embedding-3-small","input":["a","b"],"encoding_format":"base64"}`},
		{"POST /v1/embeddings", `{"model":"text-embedding-3-small","input":[1,2,3]}`},
		{"POST /v1/embeddings", `{"model":"text-embedding-3-small","input":[[1,2],[3]]}`},
		{"POST /v1/responses", `{"model":"gpt-5","input":"hi"}`},
		{"POST /v1/responses", `{"model":"gpt-5","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://example.com/a.png"}]}]}`}, // the AI SDK's
		{"POST /v1/responses", `{"model":"gpt-5","input":[{"role":"user","content":"hi"},{"type":"function_call_output","call_id":"call_1","output":"42"},{"type":"message","role":"user","content":[{"type":"input_text","text":"x"}]}],"tools":[{"type":"function","name":"f","parameters":{},"strict":true},{"type":"web_search"}],"reasoning":{"effort":"low"},"previous_response_id":"resp_1"}`},
		{"POST /v1/batches", `{"input_file_id":"file-1","endpoint":"/v1/chat/completions","completion_window":"24h"}`},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}`},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":100,"system":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}],"thinking":{"type":"enabled","budget_tokens":1024},"tools":[{"name":"f","input_schema":{"type":"object","properties":{"a":{"type":"string"}}}}],"tool_choice":{"type":"tool","name":"f"},"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":"b"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"42"}]}]}`},
		{"POST /v1/messages?beta=true", `{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[{"role":"user","content":"hi"}],"mcp_servers":[{"name":"a","type":"url","url":"https://example.com"}]}`},
		{"POST /v1/messages?beta=true", `{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[{"role":"user","content":"hi"}],"thread":{"type":"create"}}`},
		{"POST /v1/messages?beta=true", `{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[{"role":"user","content":"hi"}],"thread":{"type":"continue","previous_message_id":"msg_01"}}`},
		{"POST /v1/messages/count_tokens", `{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"hi"}]}`},
	} {
		op := document(t, vendorOf(c.route)).Operation(c.route)
		if op == nil {
			t.Errorf("there is no %s", c.route)
			continue
		}
		for _, v := range op.Validate([]byte(c.body)) {
			t.Errorf("%s %s: %s (%s)", c.route, c.body, v, v.Field)
		}
	}
}

func vendorOf(route string) llmmock.Vendor {
	if strings.Contains(route, "/v1/messages") {
		return llmmock.Anthropic
	}
	return llmmock.OpenAI
}

func TestRefuses(t *testing.T) {
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	for _, c := range []struct{ route, body, field, message, code string }{
		{"POST /v1/chat/completions", `{"model":"gpt-4o"}`, "messages", "Missing required parameter: 'messages'.", "missing_required_parameter"},
		{"POST /v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}]}`, "model", "Missing required parameter: 'model'.", "missing_required_parameter"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[]}`, "messages", "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.", "empty_array"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":"hi"}`, "messages", "Invalid type for 'messages': expected an array, but got a string instead.", "invalid_type"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"usr","content":"hi"}]}`, "messages[0].role", "Invalid value: 'usr'. Supported values are: 'assistant', 'developer', 'function', 'system', 'tool', and 'user'.", "invalid_value"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"content":"hi"}]}`, "messages[0].role", "Missing required parameter: 'messages[0].role'.", "missing_required_parameter"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":5}]}`, "messages[0].content", "Invalid type for 'messages[0].content': expected one of a string or array, but got an integer instead.", "invalid_type"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"a"},{"role":"tool","content":"42"}]}`, "messages[1].tool_call_id", "Missing required parameter: 'messages[1].tool_call_id'.", "missing_required_parameter"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, "messages[0].content[0].image_url", "", "missing_required_parameter"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","n":0,"messages":[{"role":"user","content":"hi"}]}`, "n", "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.", "integer_below_min_value"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","temperature":3.5,"messages":[{"role":"user","content":"hi"}]}`, "temperature", "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3.5 instead.", "decimal_above_max_value"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function"}]}`, "tools[0].function", "", "missing_required_parameter"},
		{"POST /v1/chat/completions", `{"model":"gpt-4o"`, "", "We could not parse the JSON body of your request.", ""},
		{"POST /v1/chat/completions", `[]`, "", "", "invalid_type"},
		{"POST /v1/embeddings", `{"model":"text-embedding-3-small"}`, "input", "Missing required parameter: 'input'.", "missing_required_parameter"},
		{"POST /v1/embeddings", `{"model":"m","input":[` + many(2049, `"a"`) + `]}`, "input", "", "array_above_max_length"},
		{"POST /v1/batches", `{"input_file_id":"file-1","endpoint":"/v1/nothing","completion_window":"24h"}`, "endpoint", "", "invalid_value"},
		{"POST /v1/responses", `{"model":"gpt-5","input":[{"type":"nonsense"}]}`, "input[0].type", "", "invalid_value"},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"hi"}]}`, "max_tokens", "max_tokens: Field required", ""},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":"a","messages":[{"role":"user","content":"hi"}]}`, "max_tokens", "max_tokens: Input should be a valid integer", ""},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user","content":[{"type":"txt"}]}]}`, "messages[0].content[0].type", "", ""},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"colour":"red"}`, "colour", "colour: Extra inputs are not permitted", ""},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"temperature":1.5}`, "temperature", "temperature: Input should be less than or equal to 1", ""},
		{"POST /v1/messages", `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user"}]}`, "messages[0].content", "messages.0.content: Field required", ""},
	} {
		vendor := vendorOf(c.route)
		op := document(t, vendor).Operation(c.route)
		vs := op.Validate([]byte(c.body))
		if len(vs) == 0 {
			t.Errorf("%s takes %.200s", c.route, c.body)
			continue
		}
		f := vs[0].Failure(vendor)
		if f.Field != c.field || c.message != "" && f.Message != c.message || c.code != "" && f.Code != c.code {
			t.Errorf("%s %.200s:\n got %q %q %q\nwant %q %q %q", c.route, c.body, f.Field, f.Message, f.Code, c.field, c.message, c.code)
		}
	}
}

// A body may be as large and as twisted as it likes: the work is bounded by its size.
func TestValidateIsBounded(t *testing.T) {
	filter := strings.Repeat(`{"type":"and","filters":[`, 50) + `{"type":"eq","key":"a","value":"b"}` + strings.Repeat("]}", 50)
	search := document(t, llmmock.OpenAI).Operation("POST /v1/vector_stores/{vector_store_id}/search")
	if v := search.Validate([]byte(`{"query":"x","filters":` + filter + `}`)); len(v) > 0 {
		t.Errorf("a filter of depth 50: %s", v[0])
	}
	bad := strings.Replace(filter, `"eq"`, `"no"`, 1)
	if v := search.Validate([]byte(`{"query":"x","filters":` + bad + `}`)); len(v) == 0 {
		t.Error("a filter that is wrong in its depth was taken")
	}
	chat := document(t, llmmock.OpenAI).Operation("POST /v1/chat/completions")
	tool := `{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}`
	tools := strings.TrimSuffix(strings.Repeat(tool+",", 100_000), ",")
	if v := chat.Validate([]byte(`{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[` + tools + `]}`)); len(v) > 0 {
		t.Errorf("100,000 tools: %s", v[0])
	}
}

func TestViolationsAreCounted(t *testing.T) {
	op := document(t, llmmock.OpenAI).Operation("POST /v1/chat/completions")
	body := `{"model":"m","messages":[` + strings.TrimSuffix(strings.Repeat(`{"role":"nobody"},`, 50), ",") + `]}`
	if v := op.Validate([]byte(body)); len(v) != maxViolations {
		t.Errorf("%d violations are told, want %d", len(v), maxViolations)
	}
}

func FuzzValidate(f *testing.F) {
	routes := []string{"POST /v1/chat/completions", "POST /v1/responses", "POST /v1/embeddings", "POST /v1/evals", "POST /v1/messages", "POST /v1/messages/batches", "POST /v1/agents"}
	for i := range routes {
		f.Add(i, []byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"max_tokens":1}`))
		f.Add(i, []byte(`{"input":[{"type":"message","role":"user","content":"x"}],"tools":[{"type":"function"}]}`))
		f.Add(i, []byte(`{"a":[[[{}]]],"metadata":{"a":1}}`))
	}
	f.Fuzz(func(t *testing.T, n int, body []byte) {
		route := routes[((n%len(routes))+len(routes))%len(routes)]
		for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
			op := document(t, v).Operation(route)
			if op == nil {
				continue
			}
			vs := op.Validate(body)
			for _, x := range vs {
				if f := x.Failure(v); f.Message == "" || f.Status != 400 {
					t.Errorf("%v has the failure %+v", x, f)
				}
			}
			if len(vs) == 0 {
				// What is right stays right when it is checked in its parts.
				if again := op.Validate(body); len(again) > 0 {
					t.Errorf("%s: right at first and then %s", body, again[0])
				}
			}
		}
	})
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		l          []string
		and, comma string
	}{
		{nil, "none", "none"},
		{[]string{"a"}, "'a'", "'a'"},
		{[]string{"a", "b"}, "'a' and 'b'", "'a' or 'b'"},
		{[]string{"a", "b", "c"}, "'a', 'b', and 'c'", "'a', 'b' or 'c'"},
	} {
		if got := listed(c.l, "and"); got != c.and {
			t.Errorf("%v: %s", c.l, got)
		}
		if got := listed(c.l, "or"); got != c.comma {
			t.Errorf("%v: %s", c.l, got)
		}
	}
}

func BenchmarkValidateChat(b *testing.B) {
	op := document(b, llmmock.OpenAI).Operation("POST /v1/chat/completions")
	body := []byte(`{"model":"gpt-4o","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"What is the capital of France, and why is it there?"}],"temperature":0.7,"max_tokens":100,"stream":false}`)
	if v := op.Validate(body); len(v) > 0 {
		b.Fatal(v[0])
	}
	b.ReportAllocs()
	for b.Loop() {
		op.Validate(body)
	}
}

func BenchmarkValidateMessages(b *testing.B) {
	op := document(b, llmmock.Anthropic).Operation("POST /v1/messages")
	body := []byte(`{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[{"role":"user","content":"What is the capital of France, and why is it there?"}],"system":"be brief"}`)
	if v := op.Validate(body); len(v) > 0 {
		b.Fatal(v[0])
	}
	b.ReportAllocs()
	for b.Loop() {
		op.Validate(body)
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		b.Run(string(v), func(b *testing.B) {
			for b.Loop() {
				if _, err := embedded(v, fmt.Sprintf("data/%s.spec.gz", v)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPrepare is what the first request to an operation waits for.
func BenchmarkPrepare(b *testing.B) {
	for _, route := range []string{"POST /v1/chat/completions", "POST /v1/responses", "POST /v1/messages"} {
		b.Run(route[len("POST /v1/"):], func(b *testing.B) {
			vendor := vendorOf(route)
			for b.Loop() {
				b.StopTimer()
				d, err := embedded(vendor, fmt.Sprintf("data/%s.spec.gz", vendor))
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				d.Prepare(route)
			}
		})
	}
}
