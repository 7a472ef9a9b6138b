package provider_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"edgehold.internal/services/llmmock/provider"
)

func TestPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "arguments")
		var all strings.Builder
		for p := range provider.Pieces(s) {
			if p == "" || len(p) > 4+utf8.UTFMax-1 || !utf8.ValidString(p) {
				t.Fatalf("piece %q of %q", p, s)
			}
			all.WriteString(p)
		}
		if all.String() != s {
			t.Fatalf("%q became %q", s, all.String())
		}
	})
}
