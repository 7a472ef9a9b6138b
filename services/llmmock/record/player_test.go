package record

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

// told is an exchange that answers a text.
func told(at time.Duration, method, path, query, body, answer string) *Exchange {
	return &Exchange{At: t0.Add(at), Vendor: llmmock.OpenAI, Request: Request{Method: method, Path: path, Query: query, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)},
		Answer: llmmock.Recording{Status: 200, Header: map[string][]string{"Content-Type": {"application/json"}}, Pieces: []llmmock.RecordedPiece{{Data: []byte(answer)}}}}
}

func asking(method, path, query, contentType, body string) *llmmock.Request {
	return &llmmock.Request{Method: method, Path: path, Query: query, ContentType: contentType, Body: []byte(body)}
}

func TestPlayer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	form := "--%s\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--%[1]s--\r\n"
	upload := told(0, "POST", "/v1/files", "", fmt.Sprintf(form, "xyz"), "file")
	upload.Request.Header = http.Header{"Content-Type": {"multipart/form-data; boundary=xyz"}}
	create(t, path,
		// They are asked in the order of their times, and end in another.
		told(2*time.Second, "POST", "/v1/chat/completions", "", `{"model":"m","n":1,"deep":{"b":[1,2],"a":null}}`, "second"),
		told(time.Second, "POST", "/v1/chat/completions", "", `{"n":1,"model":"m","deep":{"a":null,"b":[1,2]}}`, "first"),
		told(0, "POST", "/v1/chat/completions", "", `{"model":"m","n":2,"user":"sk-REDACTED"}`, "two"),
		told(0, "GET", "/v1/models", "", "", "models"),
		told(0, "POST", "/v1/messages", "beta=true&a=1", `{"x":"REDACTED----------------"}`, "beta"),
		upload)
	p := new(Player)
	if err := p.Load([]string{path}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		q          *llmmock.Request
		occurrence uint64
		want       string
	}{
		{asking("POST", "/v1/chat/completions", "", "application/json", ` { "deep": {"b":[1, 2],"a":null}, "model": "\u006d", "n": 1}`), 0, "first"},
		{asking("POST", "/v1/chat/completions", "", "application/json", `{"model":"m","n":1,"deep":{"b":[1,2],"a":null}}`), 1, "second"},
		{asking("POST", "/v1/chat/completions", "", "application/json", `{"model":"m","n":1,"deep":{"b":[1,2],"a":null}}`), 9, "second"},
		{asking("GET", "/v1/models", "key=another", "", ""), 0, "models"},
		{asking("POST", "/v1/messages", "a=1&beta=true", "application/json", `{"x":"sk-abcdefghijklmnopqrstu"}`), 0, "beta"},
		{asking("POST", "/v1/files", "", "multipart/form-data; boundary=another", fmt.Sprintf(form, "another")), 0, "file"},
	} {
		sent := string(tc.q.Body)
		a, f := p.Answer(path, tc.q, llmmock.Moment{Occurrence: tc.occurrence})
		if f != nil || string(a.Recorded.Body()) != tc.want {
			t.Errorf("%s %s: got %+v, %+v; want %s", tc.q.Path, sent, a, f, tc.want)
		}
		if string(tc.q.Body) != sent {
			t.Errorf("the request was changed: %s", tc.q.Body)
		}
	}
	for _, tc := range []struct {
		q    *llmmock.Request
		says string
	}{
		{asking("POST", "/v1/chat/completions", "", "application/json", `{"model":"m","n":3,"user":"sk-REDACTED"}`), "nearest is exchange 3, which differs in n."},
		{asking("POST", "/v1/chat/completions", "", "application/json", `{"model":"m","n":1,"deep":{"b":[1,3],"a":null,"c":1},"z":2,"y":[1]}`), "differs in deep.b[1], deep.c, y[0] and 1 more"},
		{asking("POST", "/v1/chat/completions", "", "application/json", `{`), "differs in the body"},
		{asking("GET", "/v1/models", "after=x", "", ""), "differs in the query"},
		{asking("GET", "/v1/files", "", "", ""), "No recording for GET /v1/files in " + path + "; it has"},
	} {
		a, f := p.Answer(path, tc.q, llmmock.Moment{})
		if a != nil || f == nil || f.Code != llmmock.NotRecorded || f.Status != 404 || !strings.Contains(f.Message, tc.says) {
			t.Errorf("%s: got %+v, want …%s…", tc.q.Body, f, tc.says)
		}
	}
	if _, f := p.Answer("other", asking("GET", "/", "", "", ""), llmmock.Moment{Scenario: "s"}); f == nil || f.Status != 500 {
		t.Errorf("a recording that was not read: %+v", f)
	}
	if err := p.Load([]string{path + "-not"}); problem.KindOf(err) != problem.NotFound {
		t.Errorf("a file that is not there: %v", err)
	}
	// A file that has changed is read again, and one that is damaged is not taken.
	create(t, path, told(3*time.Second, "GET", "/v1/new", "", "", "new"))
	if err := p.Load([]string{path}); err != nil {
		t.Fatal(err)
	}
	if _, f := p.Answer(path, asking("GET", "/v1/new", "", "", ""), llmmock.Moment{}); f != nil {
		t.Errorf("the new one: %+v", f)
	}
	if err := os.WriteFile(path, []byte("hello\nworld\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Load([]string{path}); problem.KindOf(err) != problem.Invalid {
		t.Errorf("got %v", err)
	}
	if _, f := p.Answer(path, asking("GET", "/v1/models", "", "", ""), llmmock.Moment{}); f != nil {
		t.Errorf("the last good one: %+v", f)
	}
}

func TestUsage(t *testing.T) {
	for name, tc := range map[string]struct {
		contentType, body string
		want              llmmock.Usage
	}{
		"chat": {"application/json", `{"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":3}}}`,
			llmmock.Usage{Input: 19, Cached: 4, Output: 10, Reasoning: 3}},
		"responses stream": {"text/event-stream; charset=utf-8", "event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":5,\"input_tokens_details\":{\"cached_tokens\":1},\"output_tokens\":7,\"output_tokens_details\":{\"reasoning_tokens\":2}}}}\n\n",
			llmmock.Usage{Input: 5, Cached: 1, Output: 7, Reasoning: 2}},
		"messages stream": {"text/event-stream", "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":15,\"cache_read_input_tokens\":30,\"cache_creation_input_tokens\":5,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":21,\"output_tokens_details\":{\"thinking_tokens\":4}}}\n\n",
			llmmock.Usage{Input: 50, Cached: 30, CacheWrite: 5, Output: 21, Reasoning: 4}},
		"gemini array": {"application/json", `[{"usageMetadata":{"promptTokenCount":8}},{"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":6,"thoughtsTokenCount":2,"cachedContentTokenCount":3}}]`,
			llmmock.Usage{Input: 8, Cached: 3, Output: 8, Reasoning: 2}},
		"converse": {framesType, string(frameOf([]byte(`{"delta":{"text":"a"}}`))) + string(frameOf([]byte(`{"usage":{"inputTokens":3,"outputTokens":4,"cacheReadInputTokens":2,"cacheWriteInputTokens":1,"totalTokens":10}}`))),
			llmmock.Usage{Input: 6, Cached: 2, CacheWrite: 1, Output: 4}},
		"nothing": {"application/json", `{"usage":"none"}`, llmmock.Usage{}},
	} {
		a := &llmmock.Recording{Header: map[string][]string{"Content-Type": {tc.contentType}}, Pieces: []llmmock.RecordedPiece{{Data: []byte(tc.body)}}}
		if got := usageOf(a); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
	if got := usageOf(&llmmock.Recording{Header: map[string][]string{"X-Amzn-Bedrock-Input-Token-Count": {"11"}, "X-Amzn-Bedrock-Output-Token-Count": {"12"}}}); got.Input != 11 || got.Output != 12 {
		t.Errorf("from headers: %+v", got)
	}
}
