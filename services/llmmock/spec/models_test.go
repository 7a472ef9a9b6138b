package spec

import (
	"slices"
	"testing"

	"edgehold.internal/services/llmmock"
)

func TestModelsOfTheDocument(t *testing.T) {
	for vendor, some := range map[llmmock.Vendor][]string{
		llmmock.OpenAI: {"gpt-4o", "gpt-4o-mini-2024-07-18", "gpt-5", "o3", "o1-pro", "text-embedding-3-small", "whisper-1", "gpt-4o-transcribe", "dall-e-3", "gpt-image-1", "tts-1", "omni-moderation-latest",
			"gpt-3.5-turbo-instruct", "babbage-002", "gpt-realtime"},
		llmmock.Anthropic: {"claude-opus-4-6", "claude-sonnet-4-5-20250929", "claude-haiku-4-5"},
	} {
		d, err := Load(vendor)
		if err != nil {
			t.Fatal(err)
		}
		got := d.Models()
		for _, name := range some {
			if !slices.Contains(got, name) {
				t.Errorf("%s: %s is not in %q", vendor, name, got)
			}
		}
		if !d.Known(some[0]) || !d.Known("ft:"+some[0]+":org::1") || d.Known("gpt-0") || d.Known("ft:gpt-0:org::1") {
			t.Errorf("%s: Known is wrong", vendor)
		}
		for _, name := range got {
			if name == "" || name == "gpt-0" || len(name) > 60 {
				t.Errorf("%s has %q", vendor, name)
			}
		}
	}
}
