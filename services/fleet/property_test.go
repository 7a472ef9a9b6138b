package fleet_test

import (
	"fmt"
	"testing"
	"time"

	. "edgehold.internal/services/fleet" //nolint:revive // the simulation speaks the domain's language
	"pgregory.net/rapid"
)

// TestEveryInterleavingEnds throws declarations, failing pods, other writers, scalers, crashes and clock jumps at a PoP in any
// order. sim.check holds every single decision against the invariants: parity, never to a colour that is not ready, one
// revert per id, a bounded number of switches, no shrinking in a cutover nor soon after one, the served colour never told to drain. In the end,
// when the world has calmed down, each PoP is fully old or fully new.
func TestEveryInterleavingEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := demoSpec()
		spec.Replicas = rapid.Int32Range(1, 6).Draw(t, "replicas")
		spec.StandbyPercent = rapid.SampledFrom([]int32{100, 100, 100, 50, 1, 0}).Draw(t, "percent")
		spec.Drain.Method = rapid.SampledFrom([]DrainMethod{DrainHTTP, DrainHTTP, DrainNginx, DrainWait}).Draw(t, "method")
		spec.Drain.ResetRemaining = rapid.Bool().Draw(t, "reset")
		s := newSim(spec)
		s.wait(tick)
		colours := rapid.SampledFrom([]Colour{Blue, Green})
		ids := 0
		change := func(t *rapid.T) Change {
			ids++
			c := Change{ID: fmt.Sprint("op-", ids), To: colours.Draw(t, "to"), Principal: "ada", Reason: "r", At: s.now(), Force: rapid.IntRange(0, 4).Draw(t, "force") == 0}
			if rapid.Bool().Draw(t, "has a deadline") {
				c.Deadline = s.now().Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "deadline")) * time.Second)
			}
			return c
		}
		t.Repeat(map[string]func(*rapid.T){
			"":        func(t *rapid.T) { holds(t, s) },
			"wait":    func(t *rapid.T) { s.wait(time.Duration(rapid.IntRange(1, 400).Draw(t, "ticks")) * tick) },
			"declare": func(t *rapid.T) { s.declare(change(t)); s.tick() },
			"declare again": func(t *rapid.T) {
				if s.spec.Change != nil {
					s.declare(*s.spec.Change)
				}
			},
			"declare an old one": func(t *rapid.T) {
				if ids > 0 {
					s.declare(Change{ID: fmt.Sprint("op-", rapid.IntRange(1, ids).Draw(t, "id")), To: colours.Draw(t, "to"), At: s.now()})
				}
			},
			"kubectl patch": func(t *rapid.T) { s.spec.Active = colours.Draw(t, "active"); s.generation++; s.changed = true },
			"sick": func(t *rapid.T) {
				s.deployment[colours.Draw(t, "colour")].sick = rapid.Int32Range(0, 3).Draw(t, "pods")
			},
			"rollout": func(t *rapid.T) {
				s.deployment[colours.Draw(t, "colour")].rollout = rapid.Bool().Draw(t, "under way")
				s.changed = true
			},
			"connections": func(t *rapid.T) {
				d := s.deployment[colours.Draw(t, "colour")]
				d.keepAlive, d.streams = rapid.Int64Range(0, 9).Draw(t, "keep-alive"), rapid.Int64Range(0, 3).Draw(t, "streams")
			},
			"unreachable": func(t *rapid.T) {
				s.deployment[colours.Draw(t, "colour")].unreachable = rapid.Bool().Draw(t, "is")
			},
			"another writer": func(t *rapid.T) {
				s.write("argocd", colours.Draw(t, "selector"))
				if rapid.Bool().Draw(t, "acts first") {
					s.tick()
				}
			},
			"declared size": func(t *rapid.T) {
				s.spec.Replicas = rapid.Int32Range(0, 8).Draw(t, "replicas")
				s.generation++
				s.changed = true
			},
			"scales a deployment": func(t *rapid.T) {
				s.deployment[colours.Draw(t, "colour")].desired = rapid.Int32Range(0, 8).Draw(t, "to")
				s.changed = true
			},
			"autoscaler": func(t *rapid.T) {
				s.hpa = &Autoscaler{Name: "edge", Problem: rapid.SampledFrom([]string{"", "ScalingActive is False"}).Draw(t, "problem")}
				s.changed = true
			},
			"freeze": func(t *rapid.T) {
				s.spec.Freezes = []Freeze{{From: s.now(), Until: s.now().Add(time.Minute), Reason: "r"}}
				s.generation++
				s.changed = true
			},
			"crash": func(t *rapid.T) {
				if s.crash = rapid.SampledFrom([]string{"switch", "status", ""}).Draw(t, "after"); s.crash == "" {
					s.kill("now")
				}
			},
			"restart":       func(*rapid.T) { s.restart() },
			"api fails":     func(t *rapid.T) { s.apiDown = rapid.Bool().Draw(t, "down") },
			"switches fail": func(t *rapid.T) { s.api = rapid.SampledFrom([]string{"", "refuses", "loses"}).Draw(t, "how") },
			"the Service is replaced": func(t *rapid.T) {
				before, served := s.service, s.served
				s.service, s.served = Service{}, None
				s.changed = true
				s.wait(time.Duration(rapid.IntRange(1, 30).Draw(t, "ticks")) * tick)
				s.service, s.served = before, served
				s.point(before.Colour)
				s.write("gitops", before.Colour)
			},
			"a late connection": func(t *rapid.T) {
				d := s.deployment[colours.Draw(t, "colour")]
				if d.accepted = s.since(); !d.draining {
					d.keepAlive++
				}
			},
			"force the selector": func(t *rapid.T) {
				c := change(t)
				s.declare(c)
				s.point(c.To)
				s.service.Fence, s.service.Managers = s.generation, []Writer{{Name: OwnManager, At: s.stamp()}}
				// A person looks first, which Preflight does for the tool; the simulation does not hold them to it.
			},
			"jump": func(t *rapid.T) {
				s.jumped += time.Duration(rapid.IntRange(-100, 100).Draw(t, "hours")) * time.Hour
				s.changed = true
			},
			"the API server's clock jumps": func(t *rapid.T) {
				s.server += time.Duration(rapid.IntRange(-100, 100).Draw(t, "hours")) * time.Hour
				s.changed = true
				clear(s.turned) // how long ago that was, whoever starts now cannot tell
			},
		})

		// The world calms down.
		if s.server != 0 {
			clear(s.turned)
		}
		s.hpa, s.apiDown, s.api, s.jumped, s.server = nil, false, "", 0, 0
		for _, d := range s.deployment {
			d.sick, d.rollout, d.unreachable = 0, false, false
		}
		s.restart()
		s.wait(10 * time.Minute)
		holds(t, s)
		st := &s.persistent
		fail := func(format string, args ...any) {
			t.Fatalf(format+"\n%s\n%s", append(args, s.summary(), s.out.String())...)
		}
		if c := st.LastCutover; c != nil && c.Outcome == Running {
			fail("the cutover %s never ends", c.ID)
		}
		if st.Active != s.service.Colour || s.served != s.service.Colour {
			fail("the PoP serves %s and its status says %s", s.served, st.Active)
		}
		switch st.Phase {
		case Steady:
			if st.Active != s.spec.Active {
				fail("steady, and %s is served where %s is declared", st.Active, s.spec.Active)
			}
		case Halted:
			if st.Active == s.spec.Active {
				fail("halted, and the declared colour is served")
			}
		default:
			fail("still %s after ten quiet minutes", st.Phase)
		}
		active, standby := s.deployment[st.Active], s.deployment[st.Active.Other()]
		if active.desired != s.spec.Replicas || standby.desired != (s.spec.Replicas*spec.StandbyPercent+99)/100 {
			fail("%d active and %d standby pods for %d replicas at %d %%", active.desired, standby.desired, s.spec.Replicas, spec.StandbyPercent)
		}
		if active.draining || standby.draining {
			fail("pods still drain")
		}
	})
}

func holds(t *rapid.T, s *sim) {
	for _, b := range s.broken {
		t.Errorf("%s", b)
	}
	if len(s.broken) > 0 {
		t.Fatalf("%s", s.out.String())
	}
}
