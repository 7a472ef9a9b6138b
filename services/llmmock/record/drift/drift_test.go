package drift

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/record"
	"edgehold.internal/services/llmmock/record/proxy"
	"edgehold.internal/services/llmmock/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

// requests of all vendors, in one piece and streamed.
var requests = []struct{ method, path, body string }{
	{"POST", "/v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":2}`},
	{"POST", "/v1/chat/completions", `{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"x":{"type":"integer"}}}}}],"tool_choice":"required"}`},
	{"POST", "/v1/responses", `{"model":"gpt-4o","input":"hi"}`},
	{"POST", "/v1/responses", `{"model":"o3","input":"hi","stream":true,"reasoning":{"effort":"low","summary":"auto"}}`},
	{"POST", "/v1/embeddings", `{"model":"text-embedding-3-small","input":["hi"]}`},
	{"GET", "/v1/models", ``},
	{"POST", "/v1/moderations", `{"input":"hi"}`},
	{"POST", "/v1/completions", `{"model":"gpt-3.5-turbo-instruct","prompt":"hi"}`},
	{"POST", "/openai/deployments/mine/chat/completions?api-version=2024-10-21", `{"messages":[{"role":"user","content":"hi"}]}`},
	{"POST", "/openai/v1/responses", `{"model":"mine","input":"hi","stream":true}`},
	{"POST", "/v1/messages", `{"model":"claude-haiku-4-5","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}`},
	{"POST", "/v1/messages", `{"model":"claude-haiku-4-5","max_tokens":2000,"stream":true,"thinking":{"type":"enabled","budget_tokens":1024},"messages":[{"role":"user","content":"hi"}]}`},
	{"POST", "/v1/messages?beta=true", `{"model":"claude-haiku-4-5","max_tokens":50,"stream":true,"messages":[{"role":"user","content":"hi"}],"tools":[{"name":"f","input_schema":{"type":"object","properties":{"x":{"type":"integer"}}}}],"tool_choice":{"type":"any"}}`},
	{"POST", "/v1/messages/count_tokens", `{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"hi"}]}`},
	{"POST", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", `{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}`},
	{"POST", "/v1beta/models/gemini-2.5-flash:generateContent", `{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}`},
	{"POST", "/model/amazon.nova-lite-v1:0/converse-stream", `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`},
}

// recorded is what a mock says to all of them.
func recorded(t *testing.T) *record.File {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in, out := io.Pipe()
	ended := make(chan error, 2)
	go func() {
		err := run.Run(ctx, run.Config{Service: service.Config{Name: "llmmock", Log: t.Output()}, API: "127.0.0.1:0"}, out)
		out.CloseWithError(err)
		ended <- err
	}()
	var ready struct{ API string }
	if err := json.NewDecoder(in).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	target, err := proxy.ParseTarget("http://" + ready.API)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "r.jsonl")
	recording, stop := context.WithCancel(context.Background())
	started := make(chan proxy.Started, 1)
	over := make(chan error, 1)
	go func() {
		over <- proxy.Run(recording, proxy.Config{File: path, To: []proxy.Target{target}, Listen: "127.0.0.1:0", Bodies: true}, func(s proxy.Started) { started <- s })
	}()
	base := "http://" + (<-started).Address.String()
	for _, q := range requests {
		r, err := http.NewRequestWithContext(t.Context(), q.method, base+q.path, strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		switch {
		case strings.HasPrefix(q.path, "/v1/messages"):
			r.Header["Anthropic-Version"] = []string{"2023-06-01"}
		case strings.HasPrefix(q.path, "/openai"):
			r.Header["Api-Key"] = []string{"an-azure-key"}
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || err != nil {
			t.Fatalf("%s: %s %s, %v", q.path, res.Status, b, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	f, err := record.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func lines(r *Report) (l []string) {
	for _, f := range r.Findings {
		l = append(l, fmt.Sprintf("%s | %s | %s | %s | %s | %d | %d | %s", f.Vendor, f.Operation, f.In, f.What, f.Field, f.Count, f.Example, f.Says))
	}
	return l
}

func TestDrift(t *testing.T) {
	f := recorded(t)
	r, err := Check(f)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range lines(r) {
		// These are what the vendors send, and not what they say that they do. Of fallback_credit the specification's text says that it
		// is absent without a token, and its schema that it is required.
		own := []string{"response.store", "response.user", "response.usage", "store", "user", "obfuscation", "usage.fallback_credit"}
		if f := r.Findings[i]; f.In == "request" || !slices.Contains(own, f.Field) {
			t.Errorf("what this program itself says drifts: %s", l)
		}
	}
	if r.Exchanges != len(requests) || r.Requests < 16 || r.Answers < 9 || r.Events < 30 {
		t.Errorf("%+v", r)
	}
	if !slices.ContainsFunc(r.Unchecked, func(u Unchecked) bool { return strings.Contains(u.What, "gemini") && u.Count == 2 }) {
		t.Errorf("unchecked: %+v", r.Unchecked)
	}
	for _, tc := range []struct {
		path      string
		nth       int // of the exchanges of that path
		old, new  string
		inRequest bool
		want      string
	}{
		{"/v1/chat/completions", 0, `"choices":[{`, `"choices":[{"mood":1,`, false, "openai | POST /v1/chat/completions | answer | unknown | choices[].mood | 1 | 1 | is not in the specification"},
		{"/v1/chat/completions", 0, `"created":`, `"createt":`, false, "openai | POST /v1/chat/completions | answer | missing | created | 1 | 1 | is required by the specification and is not there"},
		{"/v1/chat/completions", 0, `"prompt_tokens":`, `"prompt_tokens":"x","old":`, false, "openai | POST /v1/chat/completions | answer | type | usage.prompt_tokens | 1 | 1 | "},
		{"/v1/chat/completions", 0, `"finish_reason":"stop"`, `"finish_reason":"bored"`, false, "openai | POST /v1/chat/completions | answer | value | choices[].finish_reason | 1 | 1 | "},
		{"/v1/chat/completions", 1, `"object":"chat.completion.chunk"`, `"object":"chat.completion.chunk","x":1`, false, "openai | POST /v1/chat/completions | event chat.completion.chunk | unknown | x | "},
		{"/v1/chat/completions", 0, `"model":`, `"magic":true,"model":`, true, "openai | POST /v1/chat/completions | request | unknown | magic | 1 | 1 | "},
		{"/v1/responses", 0, `"type":"output_text"`, `"type":"output_text","y":[]`, false, "openai | POST /v1/responses | answer | unknown | output[].content[].y | 1 | 3 | "},
		{"/v1/responses", 1, `"type":"response.created"`, `"type":"response.creatod"`, false, "openai | POST /v1/responses | event "},
		{"/v1/responses", 1, `"type":"response.output_text.delta"`, `"type":"response.output_text.delta","z":0`, false, "openai | POST /v1/responses | event response.output_text.delta | unknown | z | "},
		{"/v1/models", 0, `"object":"model"`, `"object":"model","size":7`, false, "openai | GET /v1/models | answer | unknown | data[].size | 1 | 6 | "},
		{"/v1/messages", 0, `"stop_reason":"`, `"stop_reason":"un`, false, "anthropic | POST /v1/messages | answer | value | stop_reason | 1 | 11 | "},
		{"/v1/messages", 1, `"type":"thinking_delta"`, `"type":"dreaming_delta"`, false, "anthropic | POST /v1/messages | event content_block_delta | unknown | delta.type | "},
		{"/v1/messages", 1, `{"type":"message_stop"`, `{"type":"message_stop","q":1`, false, "anthropic | POST /v1/messages | event message_stop | unknown | q | 1 | 12 | "},
		{"/v1/messages", 1, `{"type":"content_block_stop"`, `{"type":"content_block_halt"`, false, "anthropic | POST /v1/messages | event content_block_halt | unknown |  | 2 | 12 | an event that is not known"},
		{"/v1/messages", 1, `"role":"assistant"`, `"role":"assistant","age":3`, false, "anthropic | POST /v1/messages | message | unknown | age | 1 | 12 | "},
		{"/v1/messages", 2, `"name":"f"`, `"name":5`, false, "anthropic | POST /v1/messages?beta=true | message | type | content[].name | 1 | 13 | "},
		{"/v1beta/models/gemini-2.5-flash:generateContent", 0, `"contents"`, `"inhalt":1,"contents"`, true, "gemini | POST /v1beta/models/"},
		{"/openai/deployments/mine/chat/completions", 0, `"choices":[{`, `"choices":[{"content_filter_results":{},"moood":1,`, false, "azure | POST /v1/chat/completions | answer | unknown | choices[].moood | 1 | 9 | "},
	} {
		changed := &record.File{Head: f.Head}
		n, done := 0, 0
		for _, x := range f.Exchanges {
			y := *x
			if x.Request.Path == tc.path {
				if n == tc.nth {
					if tc.inRequest {
						y.Request.Body = bytes.ReplaceAll(x.Request.Body, []byte(tc.old), []byte(tc.new))
						done = bytes.Count(x.Request.Body, []byte(tc.old))
					} else {
						body := x.Answer.Body()
						done = bytes.Count(body, []byte(tc.old))
						y.Answer.Pieces = []llmmock.RecordedPiece{{Data: bytes.ReplaceAll(body, []byte(tc.old), []byte(tc.new))}}
					}
				}
				n++
			}
			changed.Exchanges = append(changed.Exchanges, &y)
		}
		if done == 0 {
			t.Fatalf("%s is not in exchange %d of %s", tc.old, tc.nth, tc.path)
		}
		r, err := Check(changed)
		if err != nil {
			t.Fatal(err)
		}
		if got := lines(r); !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, tc.want) }) {
			t.Errorf("with %s in %s:\ngot\n%s\nwant %s…", tc.new, tc.path, strings.Join(got, "\n"), tc.want)
		}
	}
	moved := *f.Exchanges[0]
	moved.Request.Path = "/v1/chat/incantations"
	if r, err := Check(&record.File{Exchanges: []*record.Exchange{&moved}}); err != nil || len(r.Findings) != 1 || r.Findings[0].What != Operation {
		t.Errorf("another operation: %+v, %v", r, err)
	}
}

// Whatever was recorded is held against the specifications without harm.
func FuzzCheck(f *testing.F) {
	f.Add("/v1/messages", "text/event-stream", []byte("data: {\"type\":\"message_start\",\"message\":{}}\n\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{}}\n\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n"))
	f.Add("/v1/messages", "text/event-stream", []byte("data: {\"type\":\"content_block_delta\",\"index\":1e300}\n\ndata: {\"type\":\"message_delta\",\"delta\":{\"usage\":[]},\"usage\":{}}\n\ndata: {\"type\":\"message_stop\"}\n\n"))
	f.Add("/v1/chat/completions", "text/event-stream", []byte("data: {\"choices\":[{}]}\n\n"))
	f.Add("/v1/responses", "application/json", []byte(`{"output":[{"type":"message"}]}`))
	f.Add("/model/x/converse", "application/vnd.amazon.eventstream", []byte("\x00\x00\x00\x10\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, path, media string, body []byte) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Azure, llmmock.Anthropic, llmmock.Gemini, llmmock.Bedrock} {
			x := &record.Exchange{Number: 1, Vendor: v, Request: record.Request{Method: "POST", Path: path, Query: "api-version=x&%zz", Header: http.Header{"Content-Type": {"application/json"}}, Body: body},
				Answer: llmmock.Recording{Status: 200, Header: map[string][]string{"Content-Type": {media}}, Pieces: []llmmock.RecordedPiece{{Data: body}}}}
			r, err := Check(&record.File{Exchanges: []*record.Exchange{x}})
			if err != nil || r.Exchanges != 1 {
				t.Fatalf("%+v, %v", r, err)
			}
		}
	})
}
