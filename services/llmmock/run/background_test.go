package run

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
)

// A response that is made in the background can be watched while it is, and a client that left its stream goes on where it was.
func TestBackgroundIsWatched(t *testing.T) {
	const first, gap, words = 100 * time.Millisecond, 5 * time.Millisecond, 30
	a := start(t, Config{Scenarios: []string{write(t, "s.yaml", "name: slow\nanswers:\n- lorem: 30\nlatency: {firstToken: 100ms, interToken: 5ms}\n")}})
	client := openai.NewClient(option.WithBaseURL("http://"+a.API+"/v1"), option.WithAPIKey("k"), option.WithMaxRetries(0))
	streamed := option.WithQuery("stream", "true") // which the client does not say by itself
	ask := func(text string) responses.ResponseNewParams {
		return responses.ResponseNewParams{Model: "gpt-4o", Background: openai.Bool(true), Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(text)}}
	}
	read := func(stream *ssestream.Stream[responses.ResponseStreamEventUnion], most int) (events []string, id string) {
		t.Helper()
		for len(events) < most && stream.Next() {
			e := stream.Current()
			events = append(events, e.Type+e.Delta)
			if e.Type == "response.created" {
				id = e.Response.ID
			}
		}
		if err := stream.Err(); err != nil {
			t.Fatal(err)
		}
		if err := stream.Close(); err != nil {
			t.Fatal(err)
		}
		return events, id
	}

	began := time.Now()
	queued, err := client.Responses.New(context.Background(), ask("one"))
	if err != nil || queued.Status != responses.ResponseStatusQueued {
		t.Fatalf("%v %v", queued.Status, err)
	}
	watched, _ := read(client.Responses.GetStreaming(context.Background(), queued.ID, responses.ResponseGetParams{}, streamed), 1000)
	if took := time.Since(began); took < first+(words-1)*gap || watched[len(watched)-1] != "response.completed" || len(watched) < words {
		t.Errorf("%d events in %s: %q", len(watched), took, watched)
	}
	began = time.Now()
	again, _ := read(client.Responses.GetStreaming(context.Background(), queued.ID, responses.ResponseGetParams{}, streamed), 1000)
	if took := time.Since(began); !slices.Equal(again, watched) || took >= first+(words-1)*gap {
		t.Errorf("once it was complete: %d events in %s", len(again), took)
	}

	left, id := read(client.Responses.NewStreaming(context.Background(), ask("two")), 8)
	rest, _ := read(client.Responses.GetStreaming(context.Background(), id, responses.ResponseGetParams{StartingAfter: openai.Int(int64(len(left) - 1))}, streamed), 1000)
	whole, _ := read(client.Responses.GetStreaming(context.Background(), id, responses.ResponseGetParams{}, streamed), 1000)
	if !slices.Equal(append(left, rest...), whole) || whole[len(whole)-1] != "response.completed" {
		t.Errorf("id %q: %d events, then %d, of %d:\n%q\n%q\n%q", id, len(left), len(rest), len(whole), left, rest, whole)
	}
}
