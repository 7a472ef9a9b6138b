package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
)

// RollbackTarget is the colour to go back to when nobody named one, from what the PoPs in scope have answered.
//
// What was rolled back is not rolled back again, for that would lead forward to the release that one flees from. So when
// all serve one colour, and the last that led there was a rollback, it is FailedPrecondition, which says who did it, when,
// why, and how to go on purpose. A PoP that did not follow then is mixed with those that did, or does not answer, and the
// target is the colour that they serve: a rollback that is repeated takes along who was left behind.
//
// Without a rollback the target is the other colour when all serve the same one; but that one when a release away from it
// is declared and has not switched yet, for the way back is to stay. When they are mixed, something stopped half way, and
// going back is a guess unless every fleet's last cutover came from the same colour. Without such evidence,
// or when a fleet serves neither colour, it is FailedPrecondition, which counts what serves what and asks for a colour; a
// wrong guess would send half of the network onto the bad release.
func RollbackTarget(pops []PopFleets) (Colour, error) {
	var fleets []Fleet
	silent := false
	for _, p := range pops {
		fleets = append(fleets, p.Fleets...)
		silent = silent || p.Err != nil && problem.KindOf(p.Err) != problem.NotFound
	}
	if len(fleets) == 0 {
		return None, problem.Unavailablef("no fleet in scope could be read, so what to roll back to is unknown; name the colour with --to")
	}
	serve := map[Colour]int{}
	from := map[Colour]int{}
	for i := range fleets {
		serve[fleets[i].Active]++
		from[cameFrom(&fleets[i])]++
	}
	mixed := problem.Preconditionf("to", "the fleet is mixed: %s; say which with --to", tally(serve))
	if serve[None] > 0 {
		return None, mixed
	}
	back := map[Colour]*Fleet{Blue: wayBack(fleets, Blue), Green: wayBack(fleets, Green)}
	if len(serve) == 1 {
		switch active := fleets[0].Active; {
		case slices.ContainsFunc(fleets, leaving):
			return active, nil
		case back[active] == nil:
			return active.Other(), nil
		case silent:
			return active, nil
		default:
			return None, rolledBack(fleets, back[active])
		}
	}
	switch {
	case back[Blue] != nil && back[Green] == nil:
		return Blue, nil
	case back[Green] != nil && back[Blue] == nil:
		return Green, nil
	case back[Blue] == nil && len(from) == 1 && from[None] == 0:
		return cameFrom(&fleets[0]), nil
	}
	return None, mixed
}

// wayBack is the fleet that was last switched to the colour of all that serve it, when that was a way back; else nil. Going
// by the last, a PoP that was rolled back alone some day does not speak for a release that brought the others there later.
func wayBack(fleets []Fleet, colour Colour) *Fleet {
	var last *Fleet
	var at time.Time
	back := false
	for i := range fleets {
		f := &fleets[i]
		c, b := led(f)
		if c == nil || f.Active != colour || c.SwitchedAt.Before(at) || c.SwitchedAt.Equal(at) && !b {
			continue
		}
		last, at, back = f, c.SwitchedAt, b
	}
	if !back {
		return nil
	}
	return last
}

// led is the cutover that led to what the fleet serves, and whether it was a way back: a rollback, or a release that its
// guard has switched back. Nil when the record does not say: there never was one, or another hand is on the Service.
func led(f *Fleet) (*Cutover, bool) {
	records := f.History
	if f.LastCutover != nil {
		records = append([]Cutover{*f.LastCutover}, f.History...)
	}
	for i := range records {
		c := &records[i]
		to, back := c.To, c.Rollback
		if c.Outcome == Reverted {
			to, back = c.From, !c.Rollback
		}
		if c.SwitchedAt.IsZero() {
			continue
		}
		if to != f.Active {
			break
		}
		return c, back
	}
	return nil, false
}

// leaving reports whether the fleet has a release declared that has not switched yet.
func leaving(f Fleet) bool {
	if f.Change == nil || f.Change.Rollback || f.Declared != f.Active.Other() {
		return false
	}
	c, err := f.Recorded(*f.Change)
	return err == nil && c.Outcome == Running && c.SwitchedAt.IsZero()
}

// rolledBack refuses to roll back what is rolled back, as last by the given fleet's record.
func rolledBack(fleets []Fleet, last *Fleet) error {
	c, _ := led(last)
	how := fmt.Sprintf("%s rolled back at %s: %s", orUnknown(c.Principal), c.SwitchedAt.UTC().Format(time.RFC3339), orUnknown(c.Reason))
	if c.Outcome == Reverted {
		how = fmt.Sprintf("the cutover to %s of %s at %s was switched back: %s", c.To, orUnknown(c.Principal), c.SwitchedAt.UTC().Format(time.RFC3339), c.Message)
	}
	var versions []string
	for i := range fleets {
		versions = append(versions, orUnknown(fleets[i].Colour(last.Active).Version))
	}
	slices.Sort(versions)
	away := last.Active.Other()
	return problem.Preconditionf("to", "there is nothing to roll back: every PoP in scope serves %s (%s); %s; to leave it on purpose say --to %s, or edgehold cutover --to %s",
		last.Active, list(slices.Compact(versions)), how, away, away)
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
