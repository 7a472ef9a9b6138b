package openai_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/openai"
	"edgehold.internal/services/llmmock/provider"
)

// routeOf finds a route by its pattern, for who needs no server.
func routeOf(tb testing.TB, pattern string) *provider.Route {
	tb.Helper()
	for _, api := range openai.New(openai.Config{}) {
		for i := range api.Routes {
			if api.Routes[i].Pattern == pattern {
				return &api.Routes[i]
			}
		}
	}
	tb.Fatalf("no route %s", pattern)
	return nil
}

// fuzzed decodes and, when that went well, writes every form of the answer: what is no JSON is refused, and all that is written is
// JSON.
func fuzzed(t *testing.T, route *provider.Route, body []byte) (*llmmock.Request, provider.Format) {
	before := bytes.Clone(body)
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	q := &llmmock.Request{Choices: 1, At: epoch}
	f, failure := route.Decode(q, r, body)
	if !bytes.Equal(before, body) {
		t.Fatal("the body was changed")
	}
	if f == nil {
		if failure == nil || failure.Status != 400 || failure.Message == "" {
			t.Fatalf("%+v", failure)
		}
		return nil, nil
	}
	if !json.Valid(body) {
		t.Fatalf("%q was understood", body)
	}
	// The body's memory belongs to the server again.
	for i := range body {
		body[i] = '#'
	}
	if q.Choices < 1 || q.Choices > 128 || len(q.Tools) > 128 || len(q.Stop) > 4 || q.Dimensions > 3072 || len(q.Turns) > 2049 {
		t.Fatalf("out of bounds: %+v", q)
	}
	all := answers()
	for _, name := range []string{"calls", "foreign", "refused"} {
		x := &llmmock.Exchange{Request: q, ID: strings.Repeat("f", 32), Created: epoch, Answer: all[name]}
		for range q.Choices - 1 {
			x.More = append(x.More, say("b"))
		}
		x.Answer.Embeddings = [][]float32{{1}}
		h := http.Header{}
		f.Header(h, x)
		if _, _, whole := f.Whole(nil, x); !json.Valid(whole) || !utf8.Valid(whole) {
			t.Fatalf("%q", whole)
		}
		for c := range f.Stream(x) {
			data := dataOf(string(c.Data))
			if !bytes.HasSuffix(c.Data, []byte("\n\n")) || bytes.Contains(c.Data[:len(c.Data)-2], []byte("\n\n")) || string(data) != "[DONE]" && !json.Valid(data) || !utf8.Valid(data) {
				t.Fatalf("%q", c.Data)
			}
		}
		if _, _, fail := f.Failure(nil, &llmmock.Failure{Reason: llmmock.RateLimited}, x); !json.Valid(fail) {
			t.Fatalf("%q", fail)
		}
	}
	if failure != nil && !utf8.ValidString(failure.Message) {
		t.Fatalf("%+v", failure)
	}
	return q, f
}

func FuzzChat(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}]}`,
		`{"messages":[{"role":"developer","content":[{"type":"text","text":"\u00fc"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"r"}],"model":"m","n":3,"stop":["a"],"tools":[{"type":"function","function":{"name":"f","parameters":{}}},{"type":"custom","custom":{"name":"c"}}],"tool_choice":{"type":"function","function":{"name":"f"}},"logprobs":true,"top_logprobs":2,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}],"functions":[{"name":"weather"}],"function_call":"auto","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}},"reasoning_effort":"high"}`,
		`[`, `{"a":1e9999}`, "{\"\xff\":0}", `{"model":"\ud800","messages":[{"role":"user","content":""}]}`,
	} {
		f.Add([]byte(s))
	}
	route := routeOf(f, "POST /v1/chat/completions")
	f.Fuzz(func(t *testing.T, body []byte) {
		var want struct {
			model, stream json.RawMessage
			messages      []json.RawMessage
		}
		var members map[string]json.RawMessage
		if json.Unmarshal(body, &members) == nil {
			want.model, want.stream = members["model"], members["stream"]
			_ = json.Unmarshal(members["messages"], &want.messages)
		}
		q, format := fuzzed(t, route, body)
		if format == nil {
			return
		}
		var model string
		var stream bool
		if json.Unmarshal(want.model, &model) != nil || model != q.Model || len(want.messages) != len(q.Turns) {
			t.Errorf("model %q of %q, %d turns of %d", q.Model, want.model, len(q.Turns), len(want.messages))
		}
		if want.stream != nil && (json.Unmarshal(want.stream, &stream) != nil || stream != q.Stream) {
			t.Errorf("stream %v of %s", q.Stream, want.stream)
		}
	})
}

func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","input":"hi"}`,
		`{"model":"m","instructions":"i","input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":"r"},{"type":"reasoning","id":"r","summary":[]}],"tools":[{"type":"function","name":"f","parameters":{"a" : 1}},{"type":"custom","name":"weather"},{"type":"mcp"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]},"metadata":{"a": "b"},"temperature":0.5,"text":{"format":{"type":"json_object"},"verbosity":"low"}}`,
		`{"model":"m","previous_response_id":"x","conversation":{"id":"c"},"prompt":{"id":"p"},"background":true,"reasoning":{"effort":"low","summary":"auto"},"include":["message.output_text.logprobs","reasoning.encrypted_content"],"top_logprobs":3,"stream":true}`,
		"{\"model\":\"m\",\"input\":\"a\xffb\",\"user\":\"\xff\",\"tools\" : null}", `{"input":[{}]}`,
	} {
		f.Add([]byte(s))
	}
	route := routeOf(f, "POST /v1/responses")
	f.Fuzz(func(t *testing.T, body []byte) { fuzzed(t, route, body) })
}

func FuzzCompletion(f *testing.F) {
	for _, s := range []string{`{"model":"m","prompt":"hi"}`, `{"model":"m","prompt":[[1,2],[3]],"echo":true,"logprobs":2,"n":2}`, `{"model":"m","prompt":[1,2]}`, `{"model":"m","prompt":["a","b"],"max_tokens":1}`} {
		f.Add([]byte(s))
	}
	route := routeOf(f, "POST /v1/completions")
	f.Fuzz(func(t *testing.T, body []byte) { fuzzed(t, route, body) })
}

func FuzzEmbedding(f *testing.F) {
	for _, s := range []string{`{"model":"m","input":"hi"}`, `{"model":"m","input":[[1,2],[3]],"encoding_format":"base64"}`, `{"model":"text-embedding-ada-002","input":["a"],"dimensions":5}`} {
		f.Add([]byte(s))
	}
	route := routeOf(f, "POST /v1/embeddings")
	f.Fuzz(func(t *testing.T, body []byte) { fuzzed(t, route, body) })
}
