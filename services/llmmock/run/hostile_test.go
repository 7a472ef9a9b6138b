package run

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// An endpoint that takes JSON: a body that is right, and with what between tools may be in it; empty for none.
type endpoint struct {
	name, path string
	right      string
	before     string
	tool       string // with a %d
	after      string
}

const claudeBody = `{"model":"claude-haiku-4-5","max_tokens":5,"messages":[{"role":"user","content":"x"}]`

var endpoints = []endpoint{
	{"openai chat", "/v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`,
		`{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"tools":[`, `{"type":"function","function":{"name":"f%d","parameters":{"type":"object"}}}`, `]}`},
	{"openai responses", "/v1/responses", `{"model":"gpt-4o","input":"x"}`, `{"model":"gpt-4o","input":"x","tools":[`, `{"type":"function","name":"f%d","strict":false,"parameters":{"type":"object"}}`, `]}`},
	{"openai completions", "/v1/completions", `{"model":"gpt-3.5-turbo-instruct","prompt":"x"}`, "", "", ""},
	{"openai embeddings", "/v1/embeddings", `{"model":"text-embedding-3-small","input":"x"}`, "", "", ""},
	{"openai objects", "/v1/vector_stores", `{"name":"x"}`, "", "", ""},
	{"openai assistants", "/v1/assistants", `{"model":"gpt-4o"}`, `{"model":"gpt-4o","tools":[`, `{"type":"function","function":{"name":"f%d","parameters":{"type":"object"}}}`, `]}`},
	{"azure chat", "/openai/deployments/ours/chat/completions?api-version=2024-10-21", `{"messages":[{"role":"user","content":"x"}]}`,
		`{"messages":[{"role":"user","content":"x"}],"tools":[`, `{"type":"function","function":{"name":"f%d","parameters":{"type":"object"}}}`, `]}`},
	{"azure objects", "/openai/v1/vector_stores", `{"name":"x"}`, "", "", ""},
	{"anthropic messages", "/v1/messages", claudeBody + "}", claudeBody + `,"tools":[`, `{"name":"f%d","input_schema":{"type":"object"}}`, "]}"},
	{"anthropic counts", "/v1/messages/count_tokens", `{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"x"}]}`,
		`{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"x"}],"tools":[`, `{"name":"f%d","input_schema":{"type":"object"}}`, "]}"},
	{"anthropic batches", "/v1/messages/batches", `{"requests":[{"custom_id":"1","params":` + claudeBody + `}}]}`, `{"requests":[`, `{"custom_id":"a%d","params":` + claudeBody + `}}`, `]}`},
	{"gemini generate", "/v1beta/models/gemini-2.5-flash:generateContent", `{"contents":[{"parts":[{"text":"x"}]}]}`,
		`{"contents":[{"parts":[{"text":"x"}]}],"tools":[{"functionDeclarations":[`, `{"name":"f%d","parameters":{"type":"OBJECT"}}`, `]}]}`},
	{"gemini counts", "/v1beta/models/gemini-2.5-flash:countTokens", `{"contents":[{"parts":[{"text":"x"}]}]}`, "", "", ""},
	{"gemini embeds", "/v1beta/models/gemini-embedding-001:embedContent", `{"content":{"parts":[{"text":"x"}]}}`, "", "", ""},
	{"bedrock converse", "/model/amazon.nova-lite-v1:0/converse", `{"messages":[{"role":"user","content":[{"text":"x"}]}]}`,
		`{"messages":[{"role":"user","content":[{"text":"x"}]}],"toolConfig":{"tools":[`, `{"toolSpec":{"name":"f%d","inputSchema":{"json":{"type":"object"}}}}`, `]}}`},
	{"bedrock claude", "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke", `{"anthropic_version":"bedrock-2023-05-31","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`,
		`{"anthropic_version":"bedrock-2023-05-31","max_tokens":5,"messages":[{"role":"user","content":"x"}],"tools":[`, `{"name":"f%d","input_schema":{"type":"object"}}`, "]}"},
	{"bedrock nova", "/model/amazon.nova-lite-v1:0/invoke", `{"messages":[{"role":"user","content":[{"text":"x"}]}]}`, "", "", ""},
	{"bedrock titan", "/model/amazon.titan-text-express-v1/invoke", `{"inputText":"x"}`, "", "", ""},
	{"bedrock llama", "/model/meta.llama3-8b-instruct-v1:0/invoke", `{"prompt":"x"}`, "", "", ""},
}

// post sends a body; without a length when it is said to be chunked.
func (e *endpoint) post(t *testing.T, api, body string, chunked bool) (status int, header http.Header, answer []byte) {
	t.Helper()
	var in io.Reader = strings.NewReader(body)
	if chunked {
		in = io.MultiReader(in) // whose length net/http does not know
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+api+e.path, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(e.name, "anthropic") {
		r.Header.Set("Anthropic-Version", "2023-06-01")
	}
	if strings.HasPrefix(e.name, "azure") {
		r.Header.Set("Api-Key", "k")
	}
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	defer got.Body.Close()
	answer, err = io.ReadAll(got.Body)
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	return got.StatusCode, got.Header, answer
}

// isFailure says what is missing for an answer to be the vendor's error with that status.
func (e *endpoint) isFailure(status int, h http.Header, body []byte) error {
	var all struct {
		Type    string
		Message string
		Error   struct {
			Type, Message, Status string
			Code                  any
		}
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	vendor, _, _ := strings.Cut(e.name, " ")
	ok := map[string]bool{
		"openai":    all.Error.Message != "" && all.Error.Type != "" && bytes.Contains(body, []byte(`"param":`)),
		"azure":     all.Error.Message != "" && (all.Error.Type != "" || all.Error.Code != ""),
		"anthropic": all.Type == "error" && all.Error.Type != "" && all.Error.Message != "" && all.RequestID == h.Get("Request-Id"),
		"gemini":    all.Error.Message != "" && all.Error.Status != "" && all.Error.Code == float64(status),
		"bedrock":   all.Message != "" && h.Get("X-Amzn-Errortype") != "",
	}
	if !ok[vendor] {
		return fmt.Errorf("it is not in the form of %s", vendor)
	}
	return nil
}

// Whatever comes in a body is refused in the vendor's own form, or answered, with work in proportion to its size.
func TestHostileBodies(t *testing.T) {
	const most = 16 << 20
	a := start(t, Config{MaxRequestBytes: most})
	for i := range endpoints {
		e := &endpoints[i]
		t.Run(e.name, func(t *testing.T) {
			if status, _, body := e.post(t, a.API, e.right, false); status/100 != 2 {
				t.Fatalf("a good body: %d %s", status, body)
			}
			for _, bad := range []struct {
				name, body string
				status     int // 0 for any from 400 to 422
			}{
				{"nothing", "", 0},
				{"no JSON", "name=value&x", 0},
				{"half of it", e.right[:len(e.right)-1], 0},
				{"two of them", e.right + e.right, 0},
				{"an array", "[" + e.right + "]", 0},
				{"a string", `"x"`, 0},
				{"null", "null", 0},
				{"deep arrays", strings.Repeat("[", 1<<20), 0},
				{"deep objects", strings.Repeat(`{"a":`, 1<<20), 0},
				{"deep where anything goes", e.right[:len(e.right)-1] + `,"metadata":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", 0},
				{"invalid UTF-8", strings.Replace(e.right, "x", "\xff\xfe", 1) + "\xff", 0},
				{"a long number", "{\"a\":" + strings.Repeat("9", 1<<20), 0},
				{"too large", e.right[:len(e.right)-1] + `,"x":"` + strings.Repeat("x", most) + `"}`, 413},
			} {
				if bad.body == "" && strings.HasSuffix(e.name, "objects") {
					continue // nothing of theirs is required
				}
				for _, chunked := range []bool{false, true} {
					status, h, body := e.post(t, a.API, bad.body, chunked)
					err := e.isFailure(status, h, body)
					if err != nil || bad.status != 0 && status != bad.status || bad.status == 0 && (status < 400 || status > 422) {
						t.Errorf("%s, chunked %t: %d %.300s (%v)", bad.name, chunked, status, body, err)
					}
				}
			}
			if e.tool == "" {
				return
			}
			var b strings.Builder
			b.WriteString(e.before)
			for i := range 100_000 {
				if i > 0 {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, e.tool, i)
			}
			b.WriteString(e.after)
			body := b.String()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			status, h, answer := e.post(t, a.API, body, false)
			runtime.ReadMemStats(&after)
			if status != http.StatusOK {
				if err := e.isFailure(status, h, answer); err != nil || status != 400 && status != 413 {
					t.Errorf("100,000 tools: %d %.300s (%v)", status, answer, err)
				}
			}
			allocated := after.TotalAlloc - before.TotalAlloc
			t.Logf("100,000 tools in %d MB: %d, %d MB allocated", len(body)>>20, status, allocated>>20)
			if allocated > 40*uint64(len(body)) {
				t.Errorf("100,000 tools in %d bytes: %d bytes were allocated", len(body), allocated)
			}
		})
	}
	if status, text := chat(t, a, "k", "still there?", false); status != 200 {
		t.Errorf("after all of it: %d %s", status, text)
	}
}

// write makes files in a folder of the test's.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
