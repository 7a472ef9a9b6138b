package run

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A model that its vendor does not have is refused in the vendor's own way where the scenario is strict about it.
func TestStrictModels(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte("name: strict\nstrict: {models: true}\nmatch: {vendors: [openai, azure, anthropic, gemini, bedrock]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, Config{Scenarios: []string{file}})
	const claude = `","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`
	for _, tc := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/v1/chat/completions", `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"x"}]}`, 200, ""},
		{"/v1/chat/completions", `{"model":"ft:gpt-4o-mini:org::1","messages":[{"role":"user","content":"x"}]}`, 200, ""},
		{"/v1/chat/completions", `{"model":"gpt-0","messages":[{"role":"user","content":"x"}]}`, 404, "{\"error\":{\"message\":\"The model `gpt-0` does not exist or you do not have access to it.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}"},
		{"/v1/responses", `{"model":"gpt-0","input":"x"}`, 404, `"code":"model_not_found"`},
		{"/v1/responses", `{"model":"o3-pro","input":"x"}`, 200, ""},
		{"/v1/embeddings", `{"model":"text-embedding-3-small","input":"x"}`, 200, ""},
		{"/v1/embeddings", `{"model":"text-embedding-0","input":"x"}`, 404, `"code":"model_not_found"`},
		{"/openai/deployments/ours/chat/completions?api-version=2024-10-21", `{"messages":[{"role":"user","content":"x"}]}`, 200, ""},
		{"/v1/messages", `{"model":"claude-haiku-4-5` + claude, 200, ""},
		{"/v1/messages", `{"model":"gpt-4o` + claude, 404, `"type":"not_found_error","message":"model: gpt-4o"`},
		{"/v1beta/models/gemini-2.5-flash:generateContent", `{"contents":[{"parts":[{"text":"x"}]}]}`, 200, ""},
		{"/v1beta/models/gemini-0:generateContent", `{"contents":[{"parts":[{"text":"x"}]}]}`, 404, `models/gemini-0 is not found for API version v1beta`},
		{"/model/amazon.nova-lite-v1:0/converse", `{"messages":[{"role":"user","content":[{"text":"x"}]}]}`, 200, ""},
		{"/model/somebody.model-v1:0/converse", `{"messages":[{"role":"user","content":[{"text":"x"}]}]}`, 400, `{"message":"The provided model identifier is invalid."}`},
	} {
		r, err := http.NewRequest(http.MethodPost, "http://"+a.API+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if tc.path == "/v1/messages" {
			r.Header.Set("Anthropic-Version", "2023-06-01")
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != tc.status || !strings.Contains(string(body), tc.says) {
			t.Errorf("%s %s: %d %s %v, want %d %s", tc.path, tc.body, answer.StatusCode, body, err, tc.status, tc.says)
		}
	}
}
