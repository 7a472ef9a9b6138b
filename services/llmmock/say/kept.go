package say

import (
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/tokens"
)

// kept is how many tokens of the prompt are read from the vendor's cache, and how many are written to it. What a request like this
// one left there when it came before is read, and so is what the earlier turns of the conversation must have left; the rest up to the
// client's mark is written. What other conversations left is not looked at, so that usage stays the same whatever else goes on.
func kept(q *llmmock.Request, m llmmock.Moment) (read, written int) {
	all := tokens.Beginning(q, q.Cache.Turns)
	if all < q.Cache.Least {
		return 0, 0
	}
	if m.Occurrence > 0 {
		return all, 0
	}
	for i := len(q.Turns) - 1; i >= 0; i-- {
		if q.Turns[i].Role == llmmock.Assistant {
			if read = tokens.Beginning(q, min(i, q.Cache.Turns)); read < q.Cache.Least {
				read = 0
			}
			break
		}
	}
	return read, all - read
}
