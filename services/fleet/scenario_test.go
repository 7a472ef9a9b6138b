package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "edgehold.internal/services/fleet" //nolint:revive // the simulation speaks the domain's language
	"github.com/cockroachdb/datadriven"
)

func demoSpec() Spec {
	return Spec{Service: "edge", Blue: "edge-blue", Green: "edge-green", Active: Blue, Replicas: 3, StandbyPercent: 100,
		Guard: 30 * time.Second, ScaleDownHold: 5 * time.Minute, Timeout: time.Minute, Drain: DrainSpec{Method: DrainHTTP, Port: 9901, Path: "/", Timeout: 20 * time.Second}}
}

// TestScenarios plays testdata/cutover/*.txt, each an incident. `go test -run TestScenarios -rewrite` writes what happens into
// them; a changed file is to be read like code.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/cutover", func(t *testing.T, path string) {
		var s *sim
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "pop" {
				spec := demoSpec()
				for _, a := range d.CmdArgs {
					v := strings.Join(a.Vals, ",")
					switch a.Key {
					case "replicas":
						spec.Replicas = int32(number32(t, v))
					case "percent":
						spec.StandbyPercent = int32(number32(t, v))
					case "method":
						spec.Drain.Method = DrainMethod(v)
					case "reset":
						spec.Drain.ResetRemaining = true
					default:
						d.Fatalf(t, "unknown %s", a.Key)
					}
				}
				s = newSim(spec)
				s.wait(tick)
				return flush(t, s)
			}
			s.do(t, d)
			return flush(t, s)
		})
	})
}

func flush(t *testing.T, s *sim) string {
	t.Helper()
	for _, b := range s.broken {
		t.Error(b)
	}
	s.broken = nil
	defer s.out.Reset()
	return s.out.String()
}

func number32(t *testing.T, v string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(v, &n); err != nil {
		t.Fatalf("%q: %v", v, err)
	}
	return n
}

func (s *sim) do(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	text := map[string]string{}
	for _, a := range d.CmdArgs {
		text[a.Key] = strings.Join(a.Vals, ",")
	}
	has := func(k string) bool { _, ok := text[k]; return ok }
	dur := func(k string) time.Duration {
		v, err := time.ParseDuration(text[k])
		if err != nil {
			d.Fatalf(t, "%s: %v", k, err)
		}
		return v
	}
	colour := Colour(text["colour"])
	dep := s.deployment[colour]
	step := func() { s.changed = true; s.tick() }
	switch d.Cmd {
	case "declare":
		c := Change{ID: text["id"], To: Colour(text["to"]), Principal: "ada", Reason: "v2 answers 500", Version: text["version"], Force: has("force"), Rollback: has("rollback"), At: s.now()}
		if has("deadline") {
			c.Deadline = s.now().Add(dur("deadline"))
		}
		if has("at") {
			c.At = s.now().Add(dur("at"))
		}
		s.declare(c)
		step()
	case "kubectl-patch":
		s.spec.Active = Colour(text["active"])
		s.generation++
		step()
	case "wait":
		s.wait(dur("for"))
	case "sick":
		dep.sick = int32(number32(t, text["pods"]))
		step()
	case "rollout":
		dep.rollout = text["state"] == "begins"
		if has("version") {
			dep.version = text["version"]
		}
		step()
	case "connections":
		dep.keepAlive, dep.streams = int64(number32(t, text["keep-alive"])), int64(number32(t, text["streams"]))
		s.wait(tick)
	case "connection":
		// One that comes to a pod by an endpoint that somebody still has.
		dep.accepted = s.since()
		if !dep.draining {
			dep.keepAlive++
		}
		s.wait(tick)
	case "streams-end":
		dep.streams = 0
		s.wait(tick)
	case "unreachable":
		dep.unreachable = !has("over")
		step()
	case "writer":
		s.write(text["name"], Colour(text["selector"]))
		step()
	case "writer-every":
		// A writer that syncs once per period.
		for end := s.uptime + dur("for"); s.uptime < end; {
			if s.service.Colour != Colour(text["selector"]) {
				s.write(text["name"], Colour(text["selector"]))
				s.say("%s sets the selector to %s", text["name"], text["selector"])
			}
			s.wait(dur("period"))
		}
	case "force-selector":
		s.declare(Change{ID: text["id"], To: Colour(text["to"]), Principal: "ada", Reason: "the controller is dead", At: s.now()})
		s.point(Colour(text["to"]))
		s.service.Fence = s.generation
		s.service.Managers = []Writer{{Name: OwnManager, At: s.stamp()}}
		s.tick()
	case "kill":
		s.up = false
		s.say("crash")
		s.tick()
	case "crash-after":
		s.crash = text["what"]
	case "restart":
		s.restart()
		s.tick()
	case "jump":
		s.jumped += dur("by")
		s.say("jump   the wall clock says %s", s.now().Add(s.jumped).Format(time.TimeOnly))
		step()
	case "server-jump":
		s.server += dur("by")
		s.say("jump   the API server's clock says %s", s.now().Add(s.server).Format(time.TimeOnly))
		step()
	case "freeze":
		s.spec.Freezes = append(s.spec.Freezes, Freeze{From: s.now(), Until: s.now().Add(dur("for")), Reason: "black friday", Principal: "grace"})
		s.generation++
		step()
	case "unfreeze":
		s.spec.Freezes = nil
		s.generation++
		step()
	case "replicas":
		s.spec.Replicas = int32(number32(t, text["declared"]))
		s.generation++
		step()
	case "scale-deployment":
		dep.desired = int32(number32(t, text["to"]))
		step()
	case "status-lost":
		s.persistent = Status{}
	case "hpa":
		s.hpa = &Autoscaler{Name: "edge", Problem: strings.ReplaceAll(text["problem"], "_", " ")}
		step()
	case "room":
		n := int32(number32(t, text["nodes"]))
		s.headroom.Nodes = &n
		step()
	case "missing":
		if text["what"] == "service" {
			s.service = Service{}
		} else {
			dep.missing = true
		}
		step()
	case "selector":
		s.point(Colour(text["colour"]))
		step()
	case "plan":
		o := s.observe()
		p := MakePlan(&o, Change{To: Colour(text["to"]), Version: text["version"], Force: has("force")})
		if p.Already {
			s.printf("already served")
		}
		for i, step := range p.Steps {
			s.printf("%d. %s", i+1, step)
		}
		for _, b := range p.Blockers {
			s.printf("blocked by %s (overridable=%t): %s", b.Reason, b.Overridable, b.Message)
		}
	case "status":
		s.out.WriteString(s.summary())
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
}
