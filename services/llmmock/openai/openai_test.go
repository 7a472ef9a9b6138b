package openai_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/openai"
)

// Every parameter that the vendor's own client can send is known, whatever it is set to.
func TestAllParameters(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = say("a")
		x.Answer.Embeddings = [][]float32{{1}}
	})
	for path, body := range map[string]string{
		"responses": `{"access_programs":{"cyber":"standard"},"background":true,"context_management":[{"type":"compaction","compact_threshold":1000}],"conversation":"string","include":["file_search_call.results"],
			"input":"string","instructions":"instructions","max_output_tokens":16,"max_tool_calls":0,"metadata":{"foo":"string"},"model":"gpt-6-astra","moderation":{"model":"model"},"parallel_tool_calls":true,
			"previous_response_id":"previous_response_id","prompt":{"id":"id","variables":{"foo":"string"},"version":"version"},"prompt_cache_key":"k","prompt_cache_options":{"mode":"implicit","ttl":"30m"},"prompt_cache_retention":"in_memory",
			"reasoning":{"context":"auto","effort":"none","generate_summary":"auto","mode":"standard","summary":"auto"},"safety_identifier":"s","service_tier":"auto","store":true,"stream_options":{"include_obfuscation":true},
			"temperature":1,"text":{"format":{"type":"text"},"verbosity":"low"},"tool_choice":"none","tools":[{"type":"function","name":"name","parameters":{"foo":"bar"},"strict":true,"defer_loading":true,"description":"d","output_schema":{"foo":"bar"}}],
			"top_logprobs":0,"top_p":1,"truncation":"auto","user":"user-1234"}`,
		"completions": `{"model":"gpt-3.5-turbo-instruct","prompt":"This is a test.","best_of":0,"echo":true,"frequency_penalty":-2,"logit_bias":{"foo":0},"logprobs":0,"max_tokens":16,"n":1,"presence_penalty":-2,"seed":0,
			"stop":"\n","stream_options":{"include_usage":true},"suffix":"test.","temperature":1,"top_p":1,"user":"user-1234"}`,
		"embeddings":             `{"input":"The quick brown fox","model":"text-embedding-3-small","dimensions":1,"encoding_format":"float","user":"user-1234"}`,
		"responses/input_tokens": `{"conversation":"string","input":"string","instructions":"i","model":"m","parallel_tool_calls":true,"personality":"friendly","previous_response_id":"resp_123","reasoning":{"effort":"none"},"text":{"format":{"type":"text"},"verbosity":"low"},"tool_choice":"none","tools":[],"truncation":"auto"}`,
	} {
		if status, _, answer := s.ask(t, "POST", "/v1/"+path, body); status != 200 || !json.Valid([]byte(answer)) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}

// What the specification forbids is a failure that comes with a format, for those who are lenient.
func TestValidate(t *testing.T) {
	type call struct{ route, body string }
	var calls []call
	apis := openai.New(openai.Config{Validate: func(route string, body []byte) *llmmock.Failure {
		calls = append(calls, call{route, string(body)})
		return &llmmock.Failure{Status: 400, Reason: llmmock.BadRequest, Message: "no"}
	}})
	decode := func(pattern, path, body string) *llmmock.Failure {
		t.Helper()
		for _, api := range apis {
			for _, route := range api.Routes {
				if route.Pattern != pattern {
					continue
				}
				r := httptest.NewRequest(http.MethodPost, path, nil)
				r.SetPathValue("deployment", "d\"1")
				f, failure := route.Decode(&llmmock.Request{}, r, []byte(body))
				if f == nil {
					t.Fatalf("%s: no format", pattern)
				}
				return failure
			}
		}
		t.Fatalf("no route %s", pattern)
		return nil
	}
	const chat, azure = "POST /v1/chat/completions", "POST /openai/deployments/{deployment}/chat/completions"
	const body = `{"messages":[{"role":"user","content":"u"}]}`
	for _, tc := range []struct{ pattern, path, body, want string }{
		{chat, "/", strings.Replace(body, "{", `{"model":"m",`, 1), strings.Replace(body, "{", `{"model":"m",`, 1)},
		{azure, "/?api-version=1", " " + body, strings.Replace(body, "{", `{"model":"d\"1",`, 1)},
	} {
		calls = nil
		if f := decode(tc.pattern, tc.path, tc.body); f == nil || f.Message != "no" || len(calls) != 1 || calls[0] != (call{chat, tc.want}) {
			t.Errorf("%s: %+v %q", tc.pattern, f, calls)
		}
	}
	// What our own rules forbid is not looked at again.
	calls = nil
	if f := decode(chat, "/", strings.Replace(body, "{", `{"model":"m","x":1,`, 1)); f == nil || f.Code != "unknown_parameter" || calls != nil {
		t.Errorf("%+v %q", f, calls)
	}
}

func TestFailuresOutsideOfRoutes(t *testing.T) {
	for i, want := range []string{`{"error":{"message":"Unknown request URL: GET /v1/x","type":"invalid_request_error","param":null,"code":"unknown_url"}}`, `{"error":{"code":"404","message":"Resource not found"}}`} {
		h := http.Header{}
		status, body := openai.New(openai.Config{})[i].Failure(h, &llmmock.Failure{Reason: llmmock.NotFound, Message: "Unknown request URL: GET /v1/x"}, strings.Repeat("a", 32))
		if status != 404 || string(body) != want || h.Get("Content-Type") != "application/json" || h.Get("X-Request-Id") == "" {
			t.Errorf("%d %s %v", status, body, h)
		}
	}
}
