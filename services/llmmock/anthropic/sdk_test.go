package anthropic_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/anthropic"
	"edgehold.internal/services/llmmock/provider/providertest"
)

// client is the vendor's own, which talks to a server that answers as decide says.
func client(t *testing.T, decide func(q *llmmock.Request) *llmmock.Exchange) sdk.Client {
	t.Helper()
	s := providertest.Server(t, anthropic.New(anthropic.Config{}), decide)
	return sdk.NewClient(option.WithBaseURL(s.URL), option.WithAPIKey("k"), option.WithMaxRetries(0))
}

var weather = &llmmock.Answer{Thinking: "Where is it?", ThinkingTokens: providertest.Tokens("Where is it?"), Text: "I look it up.", Tokens: providertest.Tokens("I look it up."),
	Calls:  []llmmock.Call{{ID: "aaaaaaaaaaaaaaaaaaaaaa", Name: "weather", Arguments: `{"city":"Zürich","days":3}`}, {ID: "bbbbbbbbbbbbbbbbbbbbbb", Name: "time", Arguments: ``}},
	Finish: llmmock.ToolCalls, Usage: llmmock.Usage{Input: 50, Cached: 30, CacheWrite: 5, Output: 21, Reasoning: 4}}

func params() sdk.MessageNewParams {
	return sdk.MessageNewParams{
		Model: sdk.ModelClaudeHaiku4_5, MaxTokens: 2000,
		System:   []sdk.TextBlockParam{{Text: "be brief"}},
		Messages: []sdk.MessageParam{sdk.NewUserMessage(sdk.NewTextBlock("weather?"), sdk.NewImageBlockBase64("image/png", "aGVsbG8="))},
		Thinking: sdk.ThinkingConfigParamOfEnabled(1024),
		Tools: []sdk.ToolUnionParam{{OfTool: &sdk.ToolParam{Name: "weather", InputSchema: sdk.ToolInputSchemaParam{Properties: map[string]any{"city": map[string]any{"type": "string"}}}}},
			{OfTool: &sdk.ToolParam{Name: "time", InputSchema: sdk.ToolInputSchemaParam{Properties: map[string]any{}}}}},
	}
}

// The stream says what the message in one piece says, to the vendor's own accumulator.
func TestClientMessages(t *testing.T) {
	var asked *llmmock.Request
	c := client(t, func(q *llmmock.Request) *llmmock.Exchange { asked = q; return providertest.Exchange(q, weather) })
	m, err := c.Messages.New(t.Context(), params())
	if err != nil {
		t.Fatal(err)
	}
	check := func(m *sdk.Message) {
		t.Helper()
		if m.StopReason != sdk.StopReasonToolUse || len(m.Content) != 4 || m.Usage.InputTokens != 15 || m.Usage.CacheReadInputTokens != 30 || m.Usage.CacheCreationInputTokens != 5 ||
			m.Usage.OutputTokens != 21 || m.Usage.OutputTokensDetails.ThinkingTokens != 4 || m.ID != "msg_010123456789abcdef012345" || m.Model != sdk.ModelClaudeHaiku4_5 {
			t.Fatalf("%s", m.RawJSON())
		}
		if b := m.Content[0].AsThinking(); b.Thinking != weather.Thinking || b.Signature == "" {
			t.Errorf("thinking %+v", b)
		}
		if b := m.Content[1].AsText(); b.Text != weather.Text {
			t.Errorf("text %+v", b)
		}
		b := m.Content[2].AsToolUse()
		var in struct {
			City string
			Days int
		}
		if err := json.Unmarshal(b.Input, &in); err != nil || in.City != "Zürich" || in.Days != 3 || b.ID != "toolu_01aaaaaaaaaaaaaaaaaaaaaa" || b.Name != "weather" {
			t.Errorf("call %+v", b)
		}
		if b := m.Content[3].AsToolUse(); string(b.Input) != "{}" {
			t.Errorf("call without arguments %s", b.Input)
		}
	}
	check(m)
	if len(asked.Turns) != 2 || asked.Turns[1].Media != 1 || asked.Turns[1].Text != "weather?" || len(asked.Tools) != 2 || asked.Thinking != 1024 {
		t.Errorf("asked %+v", asked)
	}

	var streamed sdk.Message
	events := c.Messages.NewStreaming(t.Context(), params())
	kinds := map[string]int{}
	for events.Next() {
		kinds[events.Current().Type]++
		if err := streamed.Accumulate(events.Current()); err != nil {
			t.Fatal(err)
		}
	}
	if err := events.Err(); err != nil {
		t.Fatal(err)
	}
	if !asked.Stream || kinds["message_start"] != 1 || kinds["content_block_start"] != 4 || kinds["content_block_stop"] != 4 || kinds["message_delta"] != 1 || kinds["message_stop"] != 1 {
		t.Errorf("%v", kinds)
	}
	check(&streamed)

	// What it said can be said back to it.
	p := params()
	p.Messages = append(p.Messages, streamed.ToParam(), sdk.NewUserMessage(sdk.NewToolResultBlock("toolu_01aaaaaaaaaaaaaaaaaaaaaa", "21 °C", false), sdk.NewToolResultBlock("toolu_01bbbbbbbbbbbbbbbbbbbbbb", "late", true)))
	if _, err := c.Messages.New(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if last := asked.Turns[len(asked.Turns)-1]; last.Role != llmmock.ToolRole || len(last.Results) != 2 || last.Results[0].Text != "21 °C" || !last.Results[1].Failed {
		t.Errorf("results %+v", last)
	}
}

func TestClientBeta(t *testing.T) {
	c := client(t, func(q *llmmock.Request) *llmmock.Exchange { return providertest.Exchange(q, weather) })
	p := sdk.BetaMessageNewParams{Model: sdk.ModelClaudeHaiku4_5, MaxTokens: 2000, Betas: []sdk.AnthropicBeta{"files-api-2025-04-14"},
		Messages: []sdk.BetaMessageParam{sdk.NewBetaUserMessage(sdk.NewBetaTextBlock("weather?"))}}
	m, err := c.Beta.Messages.New(t.Context(), p)
	if err != nil || len(m.Content) != 4 || m.Usage.InputTokens != 15 {
		t.Fatalf("%+v %v", m, err)
	}
	var streamed sdk.BetaMessage
	events := c.Beta.Messages.NewStreaming(t.Context(), p)
	for events.Next() {
		if err := streamed.Accumulate(events.Current()); err != nil {
			t.Fatal(err)
		}
	}
	if events.Err() != nil || len(streamed.Content) != 4 || streamed.StopReason != sdk.BetaStopReasonToolUse {
		t.Errorf("%+v %v", streamed, events.Err())
	}
	n, err := c.Beta.Messages.CountTokens(t.Context(), sdk.BetaMessageCountTokensParams{Model: p.Model, Messages: p.Messages})
	if err != nil || n.InputTokens != 50 {
		t.Errorf("%+v %v", n, err)
	}
}

func TestClientCountsTokens(t *testing.T) {
	c := client(t, func(q *llmmock.Request) *llmmock.Exchange {
		if q.Operation != llmmock.Count {
			t.Errorf("asked for %s", q.Operation)
		}
		return providertest.Exchange(q, &llmmock.Answer{Usage: llmmock.Usage{Input: 2095}})
	})
	n, err := c.Messages.CountTokens(t.Context(), sdk.MessageCountTokensParams{Model: sdk.ModelClaudeHaiku4_5, Messages: []sdk.MessageParam{sdk.NewUserMessage(sdk.NewTextBlock("x"))}})
	if err != nil || n.InputTokens != 2095 {
		t.Errorf("%+v %v", n, err)
	}
}

func TestClientCompletions(t *testing.T) {
	a := &llmmock.Answer{Text: " Hello to you.", Tokens: providertest.Tokens(" Hello to you.")}
	c := client(t, func(q *llmmock.Request) *llmmock.Exchange {
		if len(q.Turns) != 1 || q.Turns[0].Text != "Hello" {
			t.Errorf("asked %+v", q.Turns)
		}
		return providertest.Exchange(q, a)
	})
	p := sdk.CompletionNewParams{Model: "claude-2.1", MaxTokensToSample: 100, Prompt: "\n\nHuman: Hello\n\nAssistant:"}
	m, err := c.Completions.New(t.Context(), p)
	if err != nil || m.Completion != a.Text || m.StopReason != "stop_sequence" {
		t.Fatalf("%+v %v", m, err)
	}
	events := c.Completions.NewStreaming(t.Context(), p)
	text, stop := "", ""
	for events.Next() {
		text += events.Current().Completion
		stop = events.Current().StopReason
	}
	if events.Err() != nil || text != a.Text || stop != "stop_sequence" {
		t.Errorf("%q %q %v", text, stop, events.Err())
	}
}

func TestClientFailures(t *testing.T) {
	for status, f := range map[int]llmmock.Failure{
		400: {Reason: llmmock.BadRequest}, 401: {Reason: llmmock.Unauthenticated}, 402: {Reason: llmmock.NoCredit}, 403: {Reason: llmmock.Forbidden}, 404: {Reason: llmmock.NotFound},
		413: {Reason: llmmock.TooLarge}, 429: {Reason: llmmock.RateLimited, RetryAfter: 3 * time.Second}, 500: {Reason: llmmock.Broken}, 504: {Reason: llmmock.TimedOut}, 529: {Reason: llmmock.Overloaded},
	} {
		c := client(t, func(q *llmmock.Request) *llmmock.Exchange {
			x := providertest.Exchange(q, nil)
			x.Failure = &f
			return x
		})
		_, err := c.Messages.New(t.Context(), params())
		var e *sdk.Error
		if !errors.As(err, &e) || e.StatusCode != status || e.RequestID != "req_010123456789abcdef012345" {
			t.Fatalf("%d: %v", status, err)
		}
		if status == http.StatusTooManyRequests && e.Response.Header.Get("retry-after") != "3" {
			t.Error("no retry-after")
		}
		if e.Type() == "" {
			t.Errorf("%d has no type: %v", status, err)
		}
	}
}

func TestClientFailsMidStream(t *testing.T) {
	c := client(t, func(q *llmmock.Request) *llmmock.Exchange {
		x := providertest.Exchange(q, weather)
		x.Fault = llmmock.Fault{Kind: llmmock.FailMidStream, AtToken: 4, Failure: llmmock.Failure{Reason: llmmock.Overloaded}}
		return x
	})
	events := c.Messages.NewStreaming(t.Context(), params())
	n := 0
	for events.Next() {
		n++
	}
	if err := events.Err(); err == nil || n != 3 { // the client keeps pings for itself
		t.Errorf("%d events, %v", n, err)
	}
}

func TestClientUnknownPath(t *testing.T) {
	c := client(t, nil)
	_, err := c.Models.Get(t.Context(), "claude-haiku-4-5", sdk.ModelGetParams{})
	var e *sdk.Error
	if !errors.As(err, &e) || e.StatusCode != 404 {
		t.Errorf("%v", err)
	}
}
