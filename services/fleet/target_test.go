package fleet_test

import (
	"testing"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func serves(active fleet.Colour, from ...fleet.Colour) fleet.Fleet {
	f := fleet.Fleet{Active: active}
	for _, c := range from {
		f.LastCutover = &fleet.Cutover{From: c, To: c.Other(), Outcome: fleet.Completed, SwitchedAt: noon}
	}
	return f
}

func expired(active fleet.Colour) fleet.Fleet {
	return fleet.Fleet{Active: active, LastCutover: &fleet.Cutover{From: active, To: active.Other(), Outcome: fleet.Expired}}
}

func TestRollbackTarget(t *testing.T) {
	const blue, green, none = fleet.Blue, fleet.Green, fleet.None
	for _, tc := range []struct {
		name   string
		fleets []fleet.Fleet
		want   fleet.Colour
		says   string
	}{
		{"a release that went everywhere", []fleet.Fleet{serves(green, blue), serves(green, blue)}, blue, ""},
		{"fleets that never had a cutover", []fleet.Fleet{serves(green), serves(green)}, blue, ""},
		{"a first release that stopped half way", []fleet.Fleet{serves(green, blue), serves(green, blue), serves(blue)}, blue, ""},
		{"a release that a guard switched back in one PoP", []fleet.Fleet{serves(green, blue), serves(blue, blue)}, blue, ""},
		{"a rollback that stopped half way", []fleet.Fleet{serves(blue, green), serves(green, blue)}, none, "mixed: 1 serves blue, 1 green; say which with --to"},
		{"a cutover that expired in one PoP may have been the way back", []fleet.Fleet{serves(blue, green), serves(blue, green), expired(green)}, none, "mixed: 2 serve blue, 1 green"},
		{"one that serves neither", []fleet.Fleet{serves(blue), serves(none)}, none, "1 serves blue, 1 neither colour"},
		{"only one that serves neither", []fleet.Fleet{serves(none)}, none, "1 serves neither colour"},
		{"nobody answered", nil, none, "no fleet in scope could be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := fleet.RollbackTarget(tc.fleets)
			if got != tc.want {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
			if tc.want == none {
				kind := problem.FailedPrecondition
				if tc.fleets == nil {
					kind = problem.Unavailable
				}
				refused(t, got == none, err, kind, "", tc.says)
			}
		})
	}
}

func TestRollbackTargetProperties(t *testing.T) {
	colour := rapid.SampledFrom([]fleet.Colour{fleet.Blue, fleet.Green})
	one := rapid.Custom(func(t *rapid.T) fleet.Fleet {
		f := fleet.Fleet{Active: colour.Draw(t, "active")}
		if rapid.Bool().Draw(t, "had one") {
			f.LastCutover = &fleet.Cutover{From: colour.Draw(t, "from")}
			if rapid.Bool().Draw(t, "switched") {
				f.LastCutover.SwitchedAt = noon
			}
		}
		return f
	})
	rapid.Check(t, func(t *rapid.T) {
		fleets := rapid.SliceOfN(one, 1, 25).Draw(t, "fleets")
		got, err := fleet.RollbackTarget(fleets)
		if (got == fleet.None) != (err != nil) {
			t.Fatalf("%q and %v", got, err)
		}
		uniform := true
		for _, f := range fleets {
			uniform = uniform && f.Active == fleets[0].Active
		}
		if uniform && got != fleets[0].Active.Other() {
			t.Fatalf("all serve %s: %q, %v", fleets[0].Active, got, err)
		}
		// The order of PoPs in the registry has no say.
		again, _ := fleet.RollbackTarget(rapid.Permutation(fleets).Draw(t, "permuted"))
		if again != got {
			t.Fatalf("%q, and in another order %q", got, again)
		}
		// One more PoP that goes against a mixed fleet's evidence never turns the answer round.
		if !uniform && got != fleet.None {
			against, _ := fleet.RollbackTarget(append(fleets, serves(got, got.Other())))
			if against != fleet.None {
				t.Fatalf("%q, and with evidence against it %q", got, against)
			}
		}
	})
}
