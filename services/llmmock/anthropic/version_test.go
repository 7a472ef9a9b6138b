package anthropic

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The recent version takes less, and its clients tell a beta by a header alone.
// Source: platform.claude.com/docs/en/api/migration-2026-10-21, and @anthropic-ai/sdk 1.12.0.
func TestVersions(t *testing.T) {
	const user = `"messages":[{"role":"user","content":"x"}]`
	for _, tc := range []struct {
		name, body string
		field      string // that the recent version refuses; empty for none
	}{
		{"plain", user, ""},
		{"temperature", `"temperature":1,` + user, "temperature"},
		{"top_p", user + `,"top_p":0.5`, "top_p"},
		{"top_k", user + `,"top_k":5`, "top_k"},
		{"document of the user", `"messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"x"},"citations":{"enabled":true}}]}]`, ""},
		{"document of the assistant", `"messages":[{"role":"user","content":"x"},{"content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"x"}}],"role":"assistant"},{"role":"user","content":"y"}]`, "messages.1.content"},
		{"citations of the user", `"messages":[{"role":"user","content":[{"type":"text","text":"x","citations":[{"type":"char_location"}]}]}]`, "messages.0.content"},
		{"no citations of the user", `"messages":[{"role":"user","content":[{"type":"text","text":"x","citations":[]}]}]`, ""},
		{"citations of the assistant", `"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"text","text":"y","citations":[{"type":"char_location"}]}]},{"role":"user","content":"z"}]`, ""},
	} {
		for _, version := range []string{Version, RecentVersion} {
			r := httptest.NewRequest(http.MethodPost, "/v1/messages", nil)
			r.Header.Set("Anthropic-Version", version)
			_, _, refused := decoding(t, r, `{"model":"claude-haiku-4-5","max_tokens":10,`+tc.body+`}`)
			want := tc.field
			if version == Version {
				want = ""
			}
			switch {
			case refused == nil && want != "":
				t.Errorf("%s takes %s", version, tc.name)
			case refused != nil && (refused.Field != want || refused.Status != 400):
				t.Errorf("%s, %s: %+v; want %q", version, tc.name, refused, want)
			}
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/messages", nil)
	r.Header.Set("Anthropic-Version", RecentVersion)
	r.Header.Set("Anthropic-Beta", "message-threads-2026-08-12")
	_, f, refused := decoding(t, r, strings.Replace(small, "{", `{"thread":{"type":"create"},`, 1))
	if refused != nil || !f.(*messageFormat).beta {
		t.Errorf("a beta by its header: %+v", refused)
	}
}
