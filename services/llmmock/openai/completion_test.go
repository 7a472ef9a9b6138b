package openai_test

import (
	"context"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"

	"edgehold.internal/services/llmmock"
)

func TestCompletionsOfTheSDK(t *testing.T) {
	for name, a := range answers() {
		if len(a.Calls) > 0 || a.Finish == llmmock.Refused {
			continue // completions have no words for it
		}
		t.Run(name, func(t *testing.T) {
			s := start(t, func(x *llmmock.Exchange) {
				x.Answer = a
				for range x.Choices - 1 {
					x.More = append(x.More, say("another", " one"))
				}
			})
			client := s.client()
			ask := sdk.CompletionNewParams{Model: "gpt-3.5-turbo-instruct", Prompt: sdk.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"Once", "Twice"}},
				Echo: sdk.Bool(true), Logprobs: sdk.Int(2)}
			whole, err := client.Completions.New(context.Background(), ask)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"Once" + a.Text, "Twiceanother one"}
			for i, c := range whole.Choices {
				if c.Text != want[i] || int(c.Index) != i || string(c.FinishReason) != string(told(a).Finish) && i == 0 {
					t.Errorf("%d: %+v", i, c)
				}
				if joined := strings.Join(c.Logprobs.Tokens, ""); !strings.HasSuffix(c.Text, joined) || len(c.Logprobs.TokenLogprobs) != len(c.Logprobs.Tokens) || len(c.Logprobs.TopLogprobs) != len(c.Logprobs.Tokens) {
					t.Errorf("%d: %+v", i, c.Logprobs)
				}
				for j, at := range c.Logprobs.TextOffset {
					if !strings.HasPrefix(c.Text[at:], c.Logprobs.Tokens[j]) {
						t.Errorf("%d: %q is not at %d", i, c.Logprobs.Tokens[j], at)
					}
				}
			}
			ask.StreamOptions.IncludeUsage = sdk.Bool(true)
			stream := client.Completions.NewStreaming(context.Background(), ask)
			got, finish := make([]string, 2), make([]string, 2)
			used := int64(0)
			for stream.Next() {
				c := stream.Current()
				for _, c := range c.Choices {
					if finish[c.Index] != "" {
						t.Errorf("%+v after the end", c)
					}
					got[c.Index] += c.Text
					finish[c.Index] = string(c.FinishReason)
				}
				used += c.Usage.TotalTokens
			}
			if stream.Err() != nil || !slices.Equal(got, want) || finish[0] != string(told(a).Finish) || finish[1] != "stop" || used != whole.Usage.TotalTokens {
				t.Errorf("%v %q %q %d", stream.Err(), got, finish, used)
			}
		})
	}
}

func TestPrompts(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = say("a") })
	for prompt, want := range map[string]llmmock.Request{
		`"p"`:           {Turns: []llmmock.Turn{{Role: llmmock.User, Text: "p"}}, Choices: 1},
		`["p","q"]`:     {Turns: []llmmock.Turn{{Role: llmmock.User, Text: "p\nq"}}, Choices: 2},
		`[1, 22, 333]`:  {Turns: []llmmock.Turn{{Role: llmmock.User, Text: "1 22 333"}}, Choices: 1},
		`[[1,2],[3]]`:   {Turns: []llmmock.Turn{{Role: llmmock.User, Text: "1 2\n3"}}, Choices: 2},
		`"p","n":3`:     {Turns: []llmmock.Turn{{Role: llmmock.User, Text: "p"}}, Choices: 3},
		`"p","n":null `: {Turns: []llmmock.Turn{{Role: llmmock.User, Text: "p"}}, Choices: 1},
	} {
		if status, _, body := s.ask(t, "POST", "/v1/completions", `{"model":"m","prompt":`+prompt+`}`); status != 200 || !reflect.DeepEqual(s.last.Turns, want.Turns) || s.last.Choices != want.Choices || s.last.MaxTokens != 16 {
			t.Errorf("%s: %d %s %+v", prompt, status, body, s.last)
		}
	}
}

func TestEmbeddingsOfTheSDK(t *testing.T) {
	vectors := [][]float32{{0.25, -1.5e-9, 3}, {1, 0, -0.1}}
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = &llmmock.Answer{Embeddings: vectors, Usage: llmmock.Usage{Input: 5}}
	})
	client := s.client()
	for _, format := range []sdk.EmbeddingNewParamsEncodingFormat{"", "float", "base64"} {
		r, err := client.Embeddings.New(context.Background(), sdk.EmbeddingNewParams{Model: "text-embedding-3-small", Dimensions: sdk.Int(3), EncodingFormat: format,
			Input: sdk.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "b"}}})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range vectors {
			got := r.Data[i].Embedding
			for j := range v {
				if len(got) != len(v) || math.Abs(got[j]-float64(v[j])) > 1e-7 {
					t.Fatalf("%s: %v, want %v", format, got, v)
				}
			}
		}
		if r.Usage.TotalTokens != 5 || r.Model != "text-embedding-3-small" || r.Data[1].Index != 1 {
			t.Errorf("%+v", r)
		}
		if q := s.last; q.Operation != llmmock.Embed || q.Dimensions != 3 || !slices.Equal(q.Inputs, []string{"a", "b"}) || q.InputTokens != 0 {
			t.Errorf("%+v", q)
		}
	}
	if _, _, body := s.ask(t, "POST", "/v1/embeddings", `{"model":"text-embedding-3-large","input":[[1,2],[3]],"encoding_format":"base64"}`); !strings.Contains(body, `"embedding":"AACAPo8ozrAAAEBA"`) {
		t.Errorf("%s", body)
	}
	if q := s.last; q.Dimensions != 3072 || q.InputTokens != 3 || !slices.Equal(q.Inputs, []string{"1 2", "3"}) {
		t.Errorf("%+v", q)
	}
}

func TestGoldenCompletions(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		x.ID = "0123456789abcdef0123456789abcdef"
		x.Answer = say("Good", " morning")
		x.Answer.Embeddings = [][]float32{{0.5, -0.25}}
	})
	var b strings.Builder
	for _, tc := range [][2]string{{"completions", `{"model":"m","prompt":"p"}`}, {"completions", `{"model":"m","prompt":"p","stream":true,"logprobs":1,"stream_options":{"include_usage":true}}`},
		{"embeddings", `{"model":"m","input":"p"}`}, {"embeddings", `{"model":"m","input":"p","encoding_format":"base64"}`}} {
		_, _, body := s.ask(t, "POST", "/v1/"+tc[0], tc[1])
		b.WriteString(tc[1] + "\n" + body + "\n\n")
	}
	golden(t, "completions.txt", b.String())
}
