package anthropic

import (
	"iter"
	"strconv"

	"edgehold.internal/services/llmmock"
)

// countFormat writes how many tokens a prompt has.
type countFormat struct{ format }

// StreamType implements provider.Format.
func (f *countFormat) StreamType() string { return "application/json" }

// Whole implements provider.Format.
func (f *countFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	dst = append(dst, `{"input_tokens":`...)
	dst = strconv.AppendInt(dst, int64(x.Answer.Usage.Input), 10)
	if f.beta {
		dst = append(dst, `,"context_management":null`...)
	}
	return 200, "application/json", append(dst, '}')
}

// Stream implements provider.Format: there is no stream of this, so that it is one piece.
func (f *countFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		_, _, body := f.Whole(nil, x)
		yield(llmmock.Chunk{Data: body})
	}
}
