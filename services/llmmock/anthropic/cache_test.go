package anthropic

import (
	"testing"

	"edgehold.internal/services/llmmock"
)

func TestCacheControl(t *testing.T) {
	const mark = `,"cache_control":{"type":"ephemeral"}`
	body := func(model, top, tool, system, first, last string) string {
		return `{"model":"` + model + `","max_tokens":9` + top + `,"messages":[{"role":"user","content":[{"type":"text","text":"a"` + first + `}]},{"role":"assistant","content":"b"},` +
			`{"role":"user","content":[{"type":"text","text":"c"},{"type":"text","text":"d"` + last + `}]}],"tools":[{"name":"f","input_schema":{"type":"object"}` + tool + `}]` + system + `}`
	}
	const system = `,"system":[{"type":"text","text":"s"`
	for name, tc := range map[string]struct {
		body string
		want llmmock.Cache
	}{
		"none":                   {body("claude-sonnet-4-5", "", "", "", "", ""), llmmock.Cache{}},
		"null":                   {body("claude-sonnet-4-5", `,"cache_control":null`, `,"cache_control":null`, "", `,"cache_control":null`, ""), llmmock.Cache{}},
		"tools":                  {body("claude-sonnet-4-5", "", mark, "", "", ""), llmmock.Cache{Tools: true, Least: 1024}},
		"system":                 {body("claude-sonnet-4-5", "", "", system+mark+"}]", "", ""), llmmock.Cache{Turns: 1, Least: 1024}},
		"first without a system": {body("claude-haiku-4-5", "", "", "", mark, ""), llmmock.Cache{Turns: 1, Least: 4096}},
		"first":                  {body("claude-haiku-4-5", "", mark, system+"}]", mark, ""), llmmock.Cache{Tools: true, Turns: 2, Least: 4096}},
		"last":                   {body("claude-3-haiku-20240307", "", "", system+mark+"}]", mark, mark), llmmock.Cache{Turns: 4, Least: 2048}},
		"all":                    {body("claude-opus-5", mark, "", system+"}]", "", ""), llmmock.Cache{Turns: 4, Least: 512}},
	} {
		q, _, failure := decode(t, "/v1/messages", tc.body)
		if failure != nil || q.Cache != tc.want {
			t.Errorf("%s: %+v %+v, want %+v", name, q.Cache, failure, tc.want)
		}
	}
}
