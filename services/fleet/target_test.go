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

// led is a fleet that was led to the colour, a rollback or not, so long after noon.
func led(to fleet.Colour, rollback bool, after time.Duration) fleet.Fleet {
	f := fleet.Fleet{Active: to, Declared: to, Blue: fleet.ColourState{Version: "v1"}, Green: fleet.ColourState{Version: "v2"}}
	f.LastCutover = &fleet.Cutover{From: to.Other(), To: to, Rollback: rollback, Outcome: fleet.Completed, SwitchedAt: noon.Add(after), Principal: "ada", Reason: "v2 answers 500"}
	return f
}

// then is the fleet with a further record.
func then(f fleet.Fleet, c fleet.Cutover) fleet.Fleet {
	f.History = append([]fleet.Cutover{*f.LastCutover}, f.History...)
	f.LastCutover = &c
	return f
}

// declared is the fleet with the other colour declared and not switched.
func declared(f fleet.Fleet, rollback bool) fleet.Fleet {
	f.Declared = f.Active.Other()
	f.Change = &fleet.Change{ID: "next", To: f.Declared, Rollback: rollback}
	return then(f, fleet.Cutover{ID: "next", From: f.Active, To: f.Declared, Rollback: rollback, Outcome: fleet.Running})
}

// answers are what PoPs say that have a fleet each, and nil errors.
func answers(fleets []fleet.Fleet, errs ...error) []fleet.PopFleets {
	var pops []fleet.PopFleets
	for _, f := range fleets {
		pops = append(pops, fleet.PopFleets{Fleets: []fleet.Fleet{f}})
	}
	for _, err := range errs {
		pops = append(pops, fleet.PopFleets{Err: err})
	}
	return pops
}

func TestRollbackTarget(t *testing.T) {
	const blue, green, none = fleet.Blue, fleet.Green, fleet.None
	const nothing = "there is nothing to roll back: every PoP in scope serves "
	const minute, hour, week = time.Minute, time.Hour, 7 * 24 * time.Hour
	down := problem.Unavailablef("connection refused")
	fought := fleet.Cutover{From: blue, To: green, Outcome: fleet.Reverted, SwitchedAt: noon.Add(hour), Principal: "ada", Message: "green failed within the guard time"}
	failed := fleet.Cutover{From: green, To: blue, Rollback: true, Outcome: fleet.Reverted, SwitchedAt: noon.Add(hour)}
	for _, tc := range []struct {
		name string
		pops []fleet.PopFleets
		want fleet.Colour
		says string
	}{
		{"a release that went everywhere", answers([]fleet.Fleet{serves(green, blue), serves(green, blue)}), blue, ""},
		{"fleets that never had a cutover", answers([]fleet.Fleet{serves(green), serves(green)}), blue, ""},
		{"a first release that stopped half way", answers([]fleet.Fleet{serves(green, blue), serves(green, blue), serves(blue)}), blue, ""},
		{"a release that a guard switched back in one PoP", answers([]fleet.Fleet{serves(green, blue), serves(blue, blue)}), blue, ""},
		{"two halves of which nothing says that one went back", answers([]fleet.Fleet{serves(blue, green), serves(green, blue)}), none, "mixed: 1 serves blue, 1 green; say which with --to"},
		{"a cutover that expired in one PoP may have been the way back", answers([]fleet.Fleet{serves(blue, green), serves(blue, green), expired(green)}), none, "mixed: 2 serve blue, 1 green"},
		{"one that serves neither", answers([]fleet.Fleet{serves(blue), serves(none)}), none, "1 serves blue, 1 neither colour"},
		{"only one that serves neither", answers([]fleet.Fleet{serves(none)}), none, "1 serves neither colour"},

		{"rolled back", answers([]fleet.Fleet{led(blue, true, 0), led(blue, true, 2*time.Second)}), none,
			nothing + "blue (v1); ada rolled back at 2026-06-01T12:00:02Z: v2 answers 500; to leave it on purpose say --to green, or edgehold cutover --to green"},
		{"rolled back and still draining", answers([]fleet.Fleet{{Active: blue, LastCutover: &fleet.Cutover{From: green, To: blue, Rollback: true, Outcome: fleet.Running, SwitchedAt: noon}}}), none,
			nothing + "blue (unknown); unknown rolled back"},
		{"rolled back, and one PoP does not answer", answers([]fleet.Fleet{led(blue, true, 0)}, down), blue, ""},
		{"rolled back, and one PoP has no such fleet", answers([]fleet.Fleet{led(blue, true, 0)}, problem.NotFoundf("fleet", "none")), none, nothing},
		{"rolled back, but one did not follow", answers([]fleet.Fleet{led(blue, true, minute), led(green, false, 0)}), blue, ""},
		{"rolled back, but in one it expired", answers([]fleet.Fleet{led(blue, true, minute), then(led(green, false, 0), fleet.Cutover{From: green, To: blue, Rollback: true, Outcome: fleet.Expired})}), blue, ""},
		{"rolled back, but one switched back by itself", answers([]fleet.Fleet{led(blue, true, minute), then(led(green, false, 0), failed)}), blue, ""},
		{"rolled back, and one was there before", answers([]fleet.Fleet{led(blue, true, minute), serves(blue)}), none, nothing},
		{"rolled back both ways", answers([]fleet.Fleet{led(blue, true, 0), led(green, true, minute)}), none, "mixed: 1 serves blue, 1 green"},
		{"rolled back, then released", answers([]fleet.Fleet{led(green, false, hour), then(led(blue, true, 0), *led(green, false, hour).LastCutover)}), blue, ""},
		{"rolled back, then released in the first PoP", answers([]fleet.Fleet{led(green, false, hour), led(blue, true, 0)}), blue, ""},
		{"rolled back, then a release waits in one PoP", answers([]fleet.Fleet{declared(led(blue, true, 0), false), led(blue, true, 0)}), blue, ""},
		{"rolled back, then a release expired", answers([]fleet.Fleet{then(led(blue, true, 0), *expired(blue).LastCutover)}), none, nothing},
		{"a release that waits everywhere", answers([]fleet.Fleet{declared(led(blue, false, 0), false)}), blue, ""},
		{"a rollback that waits everywhere", answers([]fleet.Fleet{declared(led(green, false, 0), true)}), blue, ""},
		{"a release after one PoP was rolled back alone", answers([]fleet.Fleet{led(blue, true, 0), led(blue, false, week)}), green, ""},
		{"a release that begins where one PoP was rolled back alone", answers([]fleet.Fleet{led(blue, true, 0), led(blue, false, week), led(green, false, 0)}), none, "mixed: 2 serve blue, 1 green"},
		{"a release that its guards switched back", answers([]fleet.Fleet{then(led(blue, false, 0), fought)}), none,
			nothing + "blue (v1); the cutover to green of ada at 2026-06-01T13:00:00Z was switched back: green failed within the guard time; to leave"},
		{"a rollback that its guards switched back", answers([]fleet.Fleet{then(led(green, false, 0), failed)}), blue, ""},
		{"rolled back, and then somebody's hand on the Services", answers([]fleet.Fleet{{Active: green, LastCutover: led(blue, true, 0).LastCutover}}), blue, ""},
		{"nobody answered", answers(nil, down), none, "no fleet in scope could be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := fleet.RollbackTarget(tc.pops)
			if got != tc.want {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
			if tc.want == none {
				kind := problem.FailedPrecondition
				if tc.pops[0].Err != nil {
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
			from := colour.Draw(t, "from")
			f.LastCutover = &fleet.Cutover{From: from, To: from.Other(), Rollback: rapid.Bool().Draw(t, "rollback")}
			if rapid.Bool().Draw(t, "switched") {
				f.LastCutover.SwitchedAt = noon.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Hour)
			}
		}
		return f
	})
	rapid.Check(t, func(t *rapid.T) {
		fleets := rapid.SliceOfN(one, 1, 25).Draw(t, "fleets")
		got, err := fleet.RollbackTarget(answers(fleets))
		if (got == fleet.None) != (err != nil) {
			t.Fatalf("%q and %v", got, err)
		}
		uniform, forward, rolled := true, true, true
		for _, f := range fleets {
			uniform = uniform && f.Active == fleets[0].Active
			back := f.LastCutover != nil && f.LastCutover.Rollback && !f.LastCutover.SwitchedAt.IsZero() && f.LastCutover.To == f.Active
			forward, rolled = forward && !back, rolled && back
		}
		active := fleets[0].Active
		switch {
		case uniform && forward && got != active.Other():
			t.Fatalf("all serve %s and none was rolled back: %q, %v", active, got, err)
		case uniform && rolled && got != fleet.None:
			t.Fatalf("all were rolled back to %s: %q", active, got)
		case uniform && got == active:
			t.Fatalf("all serve %s, and it says to go there", active)
		}
		// The order of PoPs in the registry has no say.
		again, _ := fleet.RollbackTarget(answers(rapid.Permutation(fleets).Draw(t, "permuted")))
		if again != got {
			t.Fatalf("%q, and in another order %q", got, again)
		}
		// One more PoP that goes against a mixed fleet's evidence never turns the answer round.
		if !uniform && got != fleet.None {
			against, _ := fleet.RollbackTarget(answers(append(fleets, serves(got, got.Other()))))
			if against == got.Other() {
				t.Fatalf("%q, and with evidence against it %q", got, against)
			}
		}
		// Once every PoP has followed a rollback, another one does not lead away from there.
		if got != fleet.None {
			for i := range fleets {
				if fleets[i].Active != got {
					fleets[i] = led(got, true, 4*time.Hour)
				}
			}
			if next, _ := fleet.RollbackTarget(answers(fleets)); next != fleet.None {
				t.Fatalf("rolled back to %s, and again to %q", got, next)
			}
		}
	})
}
