package gemini_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"google.golang.org/genai"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/gemini"
	"edgehold.internal/services/llmmock/provider/providertest"
)

// client is the vendor's own, which talks to a server that answers as decide says.
func client(t *testing.T, vertex bool, decide func(q *llmmock.Request) *llmmock.Exchange) *genai.Client {
	t.Helper()
	s := providertest.Server(t, gemini.New(gemini.Config{}), decide)
	c := &genai.ClientConfig{APIKey: "k", Backend: genai.BackendGeminiAPI, HTTPOptions: genai.HTTPOptions{BaseURL: s.URL}, HTTPClient: s.Client()}
	if vertex {
		c.APIKey, c.Backend, c.Project, c.Location = "", genai.BackendVertexAI, "p", "europe-west4"
		c.HTTPClient = &http.Client{}
	}
	out, err := genai.NewClient(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var weather = &llmmock.Answer{Thinking: "Where is it?", ThinkingTokens: providertest.Tokens("Where is it?"), Text: "I look it up.", Tokens: providertest.Tokens("I look it up."),
	Calls:  []llmmock.Call{{ID: "aa", Name: "weather", Arguments: `{"city":"Zürich","days":3}`}, {ID: "bb", Name: "time"}},
	Finish: llmmock.ToolCalls, Usage: llmmock.Usage{Input: 50, Cached: 30, Output: 21, Reasoning: 4}}

func config() *genai.GenerateContentConfig {
	return &genai.GenerateContentConfig{SystemInstruction: genai.NewContentFromText("be brief", genai.RoleUser), MaxOutputTokens: 500, StopSequences: []string{"END"},
		ThinkingConfig: &genai.ThinkingConfig{IncludeThoughts: true}, Temperature: genai.Ptr[float32](0.5),
		Tools: []*genai.Tool{{FunctionDeclarations: []*genai.FunctionDeclaration{{Name: "weather", Parameters: &genai.Schema{Type: genai.TypeObject, Properties: map[string]*genai.Schema{"city": {Type: genai.TypeString}}}}, {Name: "time"}}}}}
}

func TestClientGenerates(t *testing.T) {
	for _, vertex := range []bool{false, true} {
		var asked *llmmock.Request
		c := client(t, vertex, func(q *llmmock.Request) *llmmock.Exchange { asked = q; return providertest.Exchange(q, weather) })
		contents := []*genai.Content{genai.NewContentFromText("weather?", genai.RoleUser)}
		m, err := c.Models.GenerateContent(t.Context(), "gemini-2.5-flash", contents, config())
		if err != nil {
			t.Fatal(err)
		}
		calls := m.FunctionCalls()
		u := m.UsageMetadata
		if m.Text() != weather.Text || len(calls) != 2 || calls[0].Name != "weather" || calls[0].Args["city"] != "Zürich" || m.Candidates[0].FinishReason != genai.FinishReasonStop ||
			u.PromptTokenCount != 50 || u.CandidatesTokenCount != 17 || u.ThoughtsTokenCount != 4 || u.TotalTokenCount != 71 || u.CachedContentTokenCount != 30 || m.ModelVersion != "gemini-2.5-flash" ||
			!m.Candidates[0].Content.Parts[0].Thought || !vertex && calls[0].ID != "aa" {
			t.Errorf("%+v", m)
		}
		if asked.Model != "gemini-2.5-flash" || len(asked.Turns) != 2 || asked.MaxTokens != 500 || len(asked.Tools) != 2 || string(asked.Tools[0].Schema) != `{"properties":{"city":{"type":"string"}},"type":"object"}` ||
			vertex && asked.Region != "europe-west4" {
			t.Errorf("asked %+v", asked)
		}

		text, streamed, last := "", 0, (*genai.GenerateContentResponse)(nil)
		for m, err := range c.Models.GenerateContentStream(t.Context(), "gemini-2.5-flash", contents, config()) {
			if err != nil {
				t.Fatal(err)
			}
			text += m.Text()
			streamed += len(m.FunctionCalls())
			last = m
		}
		if !asked.Stream || text != weather.Text || streamed != 2 || last.Candidates[0].FinishReason != genai.FinishReasonStop || last.UsageMetadata.TotalTokenCount != 71 {
			t.Errorf("%q %d %+v", text, streamed, last)
		}

		// What it said can be said back to it.
		contents = append(contents, m.Candidates[0].Content, genai.NewContentFromParts([]*genai.Part{
			{FunctionResponse: &genai.FunctionResponse{ID: calls[0].ID, Name: "weather", Response: map[string]any{"output": "21 °C"}}},
			{FunctionResponse: &genai.FunctionResponse{ID: calls[1].ID, Name: "time", Response: map[string]any{"error": "late"}}}}, genai.RoleUser))
		if _, err := c.Models.GenerateContent(t.Context(), "gemini-2.5-flash", contents, config()); err != nil {
			t.Fatal(err)
		}
		if r := asked.Turns[len(asked.Turns)-1].Results; len(r) != 2 || r[0].Failed || !r[1].Failed || r[0].CallID != asked.Turns[len(asked.Turns)-2].Calls[0].ID {
			t.Errorf("results %+v", r)
		}
	}
}

func TestClientCountsAndEmbeds(t *testing.T) {
	for _, vertex := range []bool{false, true} {
		c := client(t, vertex, func(q *llmmock.Request) *llmmock.Exchange {
			a := &llmmock.Answer{Usage: llmmock.Usage{Input: 7}}
			if q.Operation == llmmock.Embed {
				if len(q.Inputs) != 2 || q.Inputs[1] != "b" || q.Dimensions != 3 {
					t.Errorf("asked %+v", q)
				}
				a.Embeddings = [][]float32{{0.5, -0.25, 1e-7}, {1, 0, 0}}
			}
			return providertest.Exchange(q, a)
		})
		n, err := c.Models.CountTokens(t.Context(), "gemini-2.5-flash", genai.Text("x"), nil)
		if err != nil || n.TotalTokens != 7 {
			t.Errorf("%+v %v", n, err)
		}
		e, err := c.Models.EmbedContent(t.Context(), "text-embedding-004", []*genai.Content{genai.NewContentFromText("a", genai.RoleUser), genai.NewContentFromText("b", genai.RoleUser)},
			&genai.EmbedContentConfig{OutputDimensionality: genai.Ptr[int32](3)})
		if err != nil || len(e.Embeddings) != 2 || e.Embeddings[0].Values[2] != 1e-7 || e.Embeddings[1].Values[0] != 1 {
			t.Errorf("%+v %v", e, err)
		}
	}
	c := client(t, true, func(q *llmmock.Request) *llmmock.Exchange {
		return providertest.Exchange(q, &llmmock.Answer{Usage: llmmock.Usage{Input: 7}, Embeddings: [][]float32{{1}}})
	})
	e, err := c.Models.EmbedContent(t.Context(), "gemini-embedding-2", genai.Text("a"), nil)
	if err != nil || len(e.Embeddings) != 1 || e.Embeddings[0].Values[0] != 1 {
		t.Errorf("%+v %v", e, err)
	}
}

func TestClientModels(t *testing.T) {
	for _, vertex := range []bool{false, true} {
		c := client(t, vertex, func(q *llmmock.Request) *llmmock.Exchange { return providertest.Exchange(q, nil) })
		n := 0
		for m, err := range c.Models.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; m.Name == "" {
				t.Errorf("%+v", m)
			}
		}
		if n < 5 {
			t.Errorf("%d models", n)
		}
		if m, err := c.Models.Get(t.Context(), "gemini-2.5-flash", nil); err != nil || m.Name == "" {
			t.Errorf("%+v %v", m, err)
		}
	}
}

func TestClientFailures(t *testing.T) {
	for status, f := range map[int]llmmock.Failure{
		400: {Reason: llmmock.Unauthenticated}, 403: {Reason: llmmock.Forbidden}, 404: {Reason: llmmock.NotFound}, 429: {Reason: llmmock.RateLimited, RetryAfter: 3 * time.Second},
		500: {Reason: llmmock.Broken}, 503: {Reason: llmmock.Overloaded}, 504: {Reason: llmmock.TimedOut},
	} {
		c := client(t, false, func(q *llmmock.Request) *llmmock.Exchange {
			x := providertest.Exchange(q, nil)
			x.Failure, q.Key = &f, "k"
			return x
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := c.Models.GenerateContent(ctx, "m", genai.Text("x"), nil)
		cancel()
		var e genai.APIError
		if !errors.As(err, &e) || e.Code != status || e.Status == "" || e.Message == "" {
			t.Errorf("%d: %v", status, err)
		}
		if status == 429 && (len(e.Details) != 1 || e.Details[0]["retryDelay"] != "3s") {
			t.Errorf("details %v", e.Details)
		}
	}
}

func TestClientFailsMidStream(t *testing.T) {
	c := client(t, false, func(q *llmmock.Request) *llmmock.Exchange {
		x := providertest.Exchange(q, weather)
		x.Fault = llmmock.Fault{Kind: llmmock.FailMidStream, AtToken: 2, Failure: llmmock.Failure{Reason: llmmock.Overloaded}}
		return x
	})
	var failed error
	n := 0
	for _, err := range c.Models.GenerateContentStream(t.Context(), "m", genai.Text("x"), nil) {
		if err != nil {
			failed = err
			break
		}
		n++
	}
	var e genai.APIError
	if n != 2 || !errors.As(failed, &e) || e.Code != 503 {
		t.Errorf("%d, %v", n, failed)
	}
}
