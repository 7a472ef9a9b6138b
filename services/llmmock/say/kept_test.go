package say

import (
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/tokens"
)

func TestKept(t *testing.T) {
	long := strings.Repeat("of the prompt ", 500)
	turns := []llmmock.Turn{{Role: llmmock.System, Text: long}, {Role: llmmock.User, Text: "one"}, {Role: llmmock.Assistant, Text: "two"}, {Role: llmmock.User, Text: long}}
	q := &llmmock.Request{Model: "claude-sonnet-4-5", Turns: turns}
	upTo := func(n int) int { return tokens.Beginning(q, n) }
	for _, tc := range []struct {
		name          string
		turns         int // of the conversation
		cache         llmmock.Cache
		occurrence    uint64
		read, written int
	}{
		{"the first time", 2, llmmock.Cache{Turns: 2, Least: 1024}, 0, 0, upTo(2)},
		{"the second time", 2, llmmock.Cache{Turns: 2, Least: 1024}, 1, upTo(2), 0},
		{"the system alone", 2, llmmock.Cache{Turns: 1, Least: 1024}, 0, 0, upTo(1)},
		{"too short", 2, llmmock.Cache{Turns: 2, Least: 4096}, 1, 0, 0},
		{"the next turn", 4, llmmock.Cache{Turns: 4, Least: 1024}, 0, upTo(2), upTo(4) - upTo(2)},
		{"the next turn, of which only the system is kept", 4, llmmock.Cache{Turns: 1, Least: 1024}, 0, upTo(1), 0},
		{"the next turn, the first of which was too short", 4, llmmock.Cache{Turns: 4, Least: upTo(2) + 1}, 0, 0, upTo(4)},
		{"tools that are none", 2, llmmock.Cache{Tools: true, Least: 1}, 0, 0, 0},
		{"more than there is", 2, llmmock.Cache{Turns: 9, Least: 1024}, 0, 0, upTo(2)},
	} {
		q := &llmmock.Request{Model: q.Model, Turns: turns[:tc.turns], Cache: tc.cache}
		read, written := kept(q, llmmock.Moment{Occurrence: tc.occurrence})
		if read != tc.read || written != tc.written || read+written > tokens.Prompt(q) {
			t.Errorf("%s: %d read and %d written of %d, want %d and %d", tc.name, read, written, tokens.Prompt(q), tc.read, tc.written)
		}
	}
	if upTo(2) <= upTo(1) || upTo(1) < 1024 {
		t.Errorf("%d and %d tokens", upTo(1), upTo(2))
	}
	withTools := &llmmock.Request{Model: q.Model, Tools: []llmmock.Tool{{Name: "f", Description: long}}, Turns: turns[:2], Cache: llmmock.Cache{Tools: true, Least: 1024}}
	if read, written := kept(withTools, llmmock.Moment{}); read != 0 || written != tokens.Beginning(withTools, 0) || written < 1024 {
		t.Errorf("tools: %d and %d", read, written)
	}
}
