package openai_test

import (
	"encoding/json"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/spec"
)

// All answers are as the vendor's own specification has them.
func TestAnswersFollowTheSpecification(t *testing.T) {
	document, err := spec.Load(llmmock.OpenAI)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, method, path, body string) {
		t.Helper()
		op, _ := document.Find(method, path, nil)
		if op == nil {
			t.Fatalf("no operation %s %s", method, path)
		}
		for _, v := range op.ValidateAnswer([]byte(body)) {
			// The document's own examples have a user of null, and stored messages of others than the assistant.
			if v.Field == "user" || strings.HasSuffix(path, "/messages") && strings.HasSuffix(v.Field, ".role") {
				continue
			}
			t.Errorf("%s %s: %+v\n%s", method, path, v, body)
		}
	}
	for name, a := range answers() {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(x *llmmock.Exchange) {
				if x.Answer = a; x.Operation == llmmock.Embed {
					x.Answer = &llmmock.Answer{Embeddings: [][]float32{{0.5}}, Usage: llmmock.Usage{Input: 3}}
				}
			})
			for path, body := range map[string]string{
				"/v1/chat/completions":       `{"model":"gpt-4o","messages":[{"role":"user","content":"u"}],"logprobs":true,"top_logprobs":1,"store":true,"metadata":{"a":"b"}}`,
				"/v1/completions":            `{"model":"gpt-3.5-turbo-instruct","prompt":"u","logprobs":2}`,
				"/v1/embeddings":             `{"model":"text-embedding-3-small","input":"u"}`,
				"/v1/responses":              `{"model":"gpt-4o","input":"u","tools":[{"type":"function","name":"f","parameters":{},"strict":true}],"reasoning":{"effort":"low","summary":"auto"},"include":["message.output_text.logprobs"],"top_logprobs":1}`,
				"/v1/responses/input_tokens": `{"model":"gpt-4o","input":"u"}`,
			} {
				status, _, whole := s.ask(t, "POST", path, body)
				if status != 200 {
					t.Fatalf("%d %s", status, whole)
				}
				check(t, "POST", path, whole)
				var made struct{ ID string }
				if json.Unmarshal([]byte(whole), &made) != nil || path != "/v1/chat/completions" && path != "/v1/responses" {
					continue
				}
				for _, tail := range []string{"", map[string]string{"/v1/chat/completions": "/messages", "/v1/responses": "/input_items"}[path]} {
					_, _, again := s.ask(t, "GET", path+"/"+made.ID+tail, "")
					check(t, "GET", path+"/"+made.ID+tail, again)
				}
			}
			_, _, list := s.ask(t, "GET", "/v1/chat/completions", "")
			check(t, "GET", "/v1/chat/completions", list)
		})
	}
}
