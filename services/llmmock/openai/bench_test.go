package openai_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

const smallChat = `{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"What is the capital of Switzerland, and why is it not Zurich?"}],"temperature":0.7,"max_tokens":256,"stream":false}`

func decoded(tb testing.TB, pattern, body string) (*llmmock.Exchange, provider.Format) {
	tb.Helper()
	q := &llmmock.Request{Choices: 1, At: epoch}
	f, failure := routeOf(tb, pattern).Decode(q, httptest.NewRequest(http.MethodPost, "/", nil), []byte(body))
	if failure != nil {
		tb.Fatal(failure.Message)
	}
	x := &llmmock.Exchange{Request: q, ID: "0123456789abcdef0123456789abcdef", Created: epoch}
	x.Answer = say("The", " federal", " city", " is", " Bern", ",", " as", " its", " founders", " did", " not", " want", " one", " city", " to", " have", " it", " all", ".")
	return x, f
}

func BenchmarkDecodeChat(b *testing.B) {
	route := routeOf(b, "POST /v1/chat/completions")
	r, body := httptest.NewRequest(http.MethodPost, "/", nil), []byte(smallChat)
	b.ReportAllocs()
	for b.Loop() {
		q := llmmock.Request{Choices: 1}
		if _, failure := route.Decode(&q, r, body); failure != nil {
			b.Fatal(failure.Message)
		}
	}
}

// The same by encoding/json, as a measure.
func BenchmarkDecodeChatByEncodingJSON(b *testing.B) {
	body := []byte(smallChat)
	b.ReportAllocs()
	for b.Loop() {
		var q struct {
			Model    string
			Messages []struct {
				Role    string
				Content json.RawMessage
			}
			Stream    bool
			MaxTokens int `json:"max_tokens"`
		}
		if err := json.Unmarshal(body, &q); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWholeChat(b *testing.B) {
	x, f := decoded(b, "POST /v1/chat/completions", smallChat)
	dst := make([]byte, 0, 4096)
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		clear(h)
		f.Header(h, x)
		_, _, _ = f.Whole(dst, x)
	}
}

// stream reports the cost of one chunk, with what it takes to begin a stream shared out among them.
func stream(b *testing.B, x *llmmock.Exchange, f provider.Format) {
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for c := range f.Stream(x) {
			n += min(len(c.Data), 1)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chunk")
}

func BenchmarkStreamChat(b *testing.B) {
	x, f := decoded(b, "POST /v1/chat/completions", smallChat)
	stream(b, x, f)
}

func BenchmarkStreamResponse(b *testing.B) {
	x, f := decoded(b, "POST /v1/responses", `{"model":"gpt-4o","input":"What is it?","store":false}`)
	stream(b, x, f)
}

func BenchmarkDecodeResponse(b *testing.B) {
	route := routeOf(b, "POST /v1/responses")
	r, body := httptest.NewRequest(http.MethodPost, "/", nil), []byte(`{"model":"gpt-4o","instructions":"You are a helpful assistant.","input":"What is the capital of Switzerland, and why is it not Zurich?","temperature":0.7,"max_output_tokens":256}`)
	b.ReportAllocs()
	for b.Loop() {
		q := llmmock.Request{Choices: 1}
		if _, failure := route.Decode(&q, r, body); failure != nil {
			b.Fatal(failure.Message)
		}
	}
}

func BenchmarkWholeResponse(b *testing.B) {
	x, f := decoded(b, "POST /v1/responses", `{"model":"gpt-4o","input":"What is it?"}`)
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = f.Whole(dst, x)
	}
}
