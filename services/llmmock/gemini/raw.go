package gemini

import (
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/anthropic"
	"edgehold.internal/services/llmmock/provider"
)

// decodeRaw is a message of Anthropic's in one piece. Its failures too are in Anthropic's form.
func decodeRaw(c *call) (provider.Format, *llmmock.Failure) {
	f, refused := anthropic.Hosted(c.q, c.body, strings.ReplaceAll(c.q.Model, "@", "-"))
	if refused != nil {
		said := *refused
		said.Message, said.Field = anthropic.Message(refused), ""
		refused = &said
	}
	return f, refused
}

// decodeStreamRaw is decodeRaw for a stream. The body says so too.
func decodeStreamRaw(c *call) (provider.Format, *llmmock.Failure) {
	f, refused := decodeRaw(c)
	c.q.Stream = true
	return f, refused
}
