package serve

import (
	"net/http"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
)

func TestPick(t *testing.T) {
	for _, tc := range []struct {
		path, header, prefix string
		vendor               llmmock.Vendor
	}{
		{"/v1/chat/completions", "Authorization: Bearer k", "", llmmock.OpenAI},
		{"/v1/models", "Authorization: Bearer k", "", llmmock.OpenAI},
		{"/v1/models", "Anthropic-Version: 2023-06-01", "", llmmock.Anthropic},
		{"/v1/files", "X-Api-Key: k", "", llmmock.Anthropic},
		{"/v1/messages", "Authorization: Bearer k", "", llmmock.Anthropic},
		{"/v1/complete", "", "", llmmock.Anthropic},
		{"/v1/models/ft:gpt-4o-mini:a:b:c", "Authorization: Bearer k", "", llmmock.OpenAI},
		{"/v1/projects/p/roles", "Authorization: Bearer k", "", llmmock.OpenAI},
		{"/v1/projects/p/locations/l/publishers/google/models/gemini:generateContent", "Authorization: Bearer k", "", llmmock.Gemini},
		{"/v1/models/gemini-2.5-flash:generateContent", "", "", llmmock.Gemini},
		{"/v1beta/models", "", "", llmmock.Gemini},
		{"/v1/models", "X-Goog-Api-Key: k", "", llmmock.Gemini},
		{"/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse", "", "", llmmock.Bedrock},
		{"/openai/deployments/d/chat/completions", "Api-Key: k", "", llmmock.Azure},
		{"/openai/v1/responses", "Api-Key: k", "", llmmock.Azure},
		{"/openai/responses", "Authorization: Bearer k", "", llmmock.Azure},
		{"/openai/v1/responses", "Authorization: Bearer k", "/openai", llmmock.OpenAI},
		{"/openai/files?api-version=2024-10-21", "Authorization: Bearer k", "", llmmock.Azure},
		{"/openai/v1/files?api-version=preview", "Authorization: Bearer k", "", llmmock.Azure},
		{"/openai/batches/b", "Api-Key: k", "", llmmock.Azure},
		{"/anthropic/v1/messages", "", "/anthropic", llmmock.Anthropic},
		{"/anthropical", "", "", llmmock.OpenAI},
		{"/bedrock/model/x/invoke", "", "/bedrock", llmmock.Bedrock},
	} {
		r, err := http.NewRequest(http.MethodGet, "http://x"+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if name, value, ok := strings.Cut(tc.header, ": "); ok {
			r.Header.Set(name, value)
		}
		if v, prefix := pick(r); v != tc.vendor || prefix != tc.prefix {
			t.Errorf("%s with %q: %s behind %q, want %s behind %q", tc.path, tc.header, v, prefix, tc.vendor, tc.prefix)
		}
	}
}
