package run

import (
	"context"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
)

// What a client marks to be cached is written the first time, and read when the same prompt or the next turn comes; and what is
// read, written and neither adds up to what the prompt has.
func TestCachedPrompts(t *testing.T) {
	a := start(t, Config{})
	client := anthropic.NewClient(option.WithBaseURL("http://"+a.API), option.WithAPIKey("k"))
	kept := anthropic.TextBlockParam{Text: strings.Repeat("Answer every question of the customer in one sentence. ", 200), CacheControl: anthropic.NewCacheControlEphemeralParam()}
	ask := func(system anthropic.TextBlockParam, messages ...anthropic.MessageParam) anthropic.Usage {
		t.Helper()
		const model = "claude-sonnet-4-5"
		count, err := client.Messages.CountTokens(context.Background(), anthropic.MessageCountTokensParams{Model: model, Messages: messages,
			System: anthropic.MessageCountTokensParamsSystemUnion{OfTextBlockArray: []anthropic.TextBlockParam{system}}})
		if err != nil {
			t.Fatal(err)
		}
		p := anthropic.MessageNewParams{Model: model, MaxTokens: 50, Messages: messages, System: []anthropic.TextBlockParam{system}}
		m, err := client.Messages.New(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		if u := m.Usage; u.InputTokens+u.CacheReadInputTokens+u.CacheCreationInputTokens != count.InputTokens ||
			u.CacheCreation.Ephemeral1hInputTokens+u.CacheCreation.Ephemeral5mInputTokens != u.CacheCreationInputTokens {
			t.Errorf("%d tokens do not come of %s", count.InputTokens, u.RawJSON())
		}
		return m.Usage
	}
	user := func(text string) anthropic.MessageParam {
		return anthropic.NewUserMessage(anthropic.NewTextBlock(text))
	}
	first := ask(kept, user("one"))
	if first.CacheCreationInputTokens < 1024 || first.CacheReadInputTokens != 0 || first.InputTokens <= 0 {
		t.Errorf("the first time: %s", first.RawJSON())
	}
	if again := ask(kept, user("one")); again.CacheReadInputTokens != first.CacheCreationInputTokens || again.CacheCreationInputTokens != 0 {
		t.Errorf("again: %s", again.RawJSON())
	}
	answer := anthropic.NewAssistantMessage(anthropic.NewTextBlock("two"))
	if next := ask(kept, user("one"), answer, user("three")); next.CacheReadInputTokens != first.CacheCreationInputTokens || next.CacheCreationInputTokens != 0 {
		t.Errorf("the next turn: %s", next.RawJSON())
	}
	long := kept
	long.CacheControl.TTL = anthropic.CacheControlEphemeralTTLTTL1h
	if hour := ask(long, user("one")); hour.CacheCreation.Ephemeral1hInputTokens != first.CacheCreationInputTokens || hour.CacheCreation.Ephemeral5mInputTokens != 0 {
		t.Errorf("for an hour: %s", hour.RawJSON())
	}
	short := anthropic.TextBlockParam{Text: "Be brief.", CacheControl: anthropic.NewCacheControlEphemeralParam()}
	if none := ask(short, user("one")); none.CacheCreationInputTokens != 0 || none.CacheReadInputTokens != 0 {
		t.Errorf("too short: %s", none.RawJSON())
	}
}
