package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"edgehold.internal/libs/problem"
)

// RollbackTarget is the colour to go back to when nobody named one, from the fleets that could be read. When all of them
// serve one colour it is the other. When they are mixed, something stopped half way, and going back is a guess unless
// every fleet's last cutover came from the same colour. Without such evidence, or when a fleet serves neither colour, it
// is FailedPrecondition, which counts what serves what and asks for a colour; a wrong guess would send half of the
// network onto the release that one flees from.
func RollbackTarget(fleets []Fleet) (Colour, error) {
	if len(fleets) == 0 {
		return None, problem.Unavailablef("no fleet in scope could be read, so what to roll back to is unknown; name the colour with --to")
	}
	serve := map[Colour]int{}
	from := map[Colour]int{}
	for _, f := range fleets {
		serve[f.Active]++
		from[cameFrom(&f)]++
	}
	if serve[None] == 0 && len(serve) == 1 {
		return fleets[0].Active.Other(), nil
	}
	if serve[None] == 0 && len(from) == 1 {
		if colour := cameFrom(&fleets[0]); colour != None {
			return colour, nil
		}
	}
	return None, problem.Preconditionf("to", "the fleet is mixed: %s; say which with --to", tally(serve))
}

// cameFrom is what a fleet's own record says was served before its last cutover, and None when the record does not say. A
// fleet that never had one is where the others came from. One whose last cutover never switched says nothing: what was
// asked for may have been the way back.
func cameFrom(f *Fleet) Colour {
	last := f.LastCutover
	switch {
	case last == nil:
		return f.Active
	case last.SwitchedAt.IsZero():
		return None
	}
	return last.From
}

// tally writes "12 serve blue, 9 green".
func tally(serve map[Colour]int) string {
	colours := []Colour{Blue, Green, None}
	slices.SortStableFunc(colours, func(a, b Colour) int { return cmp.Compare(serve[b], serve[a]) })
	var parts []string
	for _, c := range colours {
		n := serve[c]
		if n == 0 {
			continue
		}
		name := string(c)
		if c == None {
			name = "neither colour"
		}
		verb := ""
		if len(parts) == 0 {
			verb = "serve "
			if n == 1 {
				verb = "serves "
			}
		}
		parts = append(parts, fmt.Sprintf("%d %s%s", n, verb, name))
	}
	return strings.Join(parts, ", ")
}
