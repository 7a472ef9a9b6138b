package rpc

import (
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/problem/wire"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/services/fleet"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func fromScope(s *fleetv1.Scope) fleet.Scope { return fleet.Scope{Pops: s.GetPops(), All: s.GetAll()} }

func fromColour(c fleetv1.Colour) fleet.Colour {
	switch c {
	case fleetv1.Colour_COLOUR_BLUE:
		return fleet.Blue
	case fleetv1.Colour_COLOUR_GREEN:
		return fleet.Green
	}
	return fleet.None
}

func toColour(c fleet.Colour) fleetv1.Colour {
	switch c {
	case fleet.Blue:
		return fleetv1.Colour_COLOUR_BLUE
	case fleet.Green:
		return fleetv1.Colour_COLOUR_GREEN
	}
	return fleetv1.Colour_COLOUR_UNSPECIFIED
}

var phases = map[fleet.Phase]fleetv1.Phase{
	fleet.Steady:    fleetv1.Phase_PHASE_STEADY,
	fleet.Blocked:   fleetv1.Phase_PHASE_BLOCKED,
	fleet.Ramping:   fleetv1.Phase_PHASE_RAMPING,
	fleet.Switching: fleetv1.Phase_PHASE_SWITCHING,
	fleet.Draining:  fleetv1.Phase_PHASE_DRAINING,
	fleet.Halted:    fleetv1.Phase_PHASE_HALTED,
}

var outcomes = map[fleet.Outcome]fleetv1.Outcome{
	fleet.Running:    fleetv1.Outcome_OUTCOME_RUNNING,
	fleet.Completed:  fleetv1.Outcome_OUTCOME_COMPLETED,
	fleet.Reverted:   fleetv1.Outcome_OUTCOME_REVERTED,
	fleet.Expired:    fleetv1.Outcome_OUTCOME_EXPIRED,
	fleet.Superseded: fleetv1.Outcome_OUTCOME_SUPERSEDED,
}

// toProblem is an error of one PoP. Internal ones say nothing of their cause, as everywhere.
func toProblem(err error) *fleetv1.Problem {
	if err == nil {
		return nil
	}
	p := wire.Problem(err)
	message := p.Error()
	if p.Kind == problem.Internal {
		message = "internal error; see the log of the fleet service"
	}
	return &fleetv1.Problem{Code: p.Kind.String(), Message: message}
}

// toFleets is one entry per fleet, and one with the problem for each PoP that has none to show.
func (h *Handler) toFleets(name string, results []fleet.PopFleets) []*fleetv1.Fleet {
	var out []*fleetv1.Fleet
	for _, r := range results {
		if r.Err != nil {
			out = append(out, &fleetv1.Fleet{Pop: r.Pop.Name, Name: name, Problem: toProblem(r.Err)})
			continue
		}
		for i := range r.Fleets {
			out = append(out, h.toFleet(&r.Fleets[i]))
		}
	}
	return out
}

func (h *Handler) toFleet(f *fleet.Fleet) *fleetv1.Fleet {
	out := &fleetv1.Fleet{
		Pop: f.Pop, Name: f.Name, Active: toColour(f.Active), Declared: toColour(f.Declared), Phase: phases[f.Phase], Replicas: f.Replicas,
		Blue: toColourState(f.Blue), Green: toColourState(f.Green), LastCutover: toCutover(f.LastCutover), Generation: f.Generation,
	}
	for _, c := range f.Conditions {
		out.Conditions = append(out.Conditions, &fleetv1.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message, LastTransitionAt: toTime(c.Since)})
	}
	if t := f.Traffic; t != nil {
		out.Traffic = &fleetv1.Traffic{RequestsPerSecond: t.RequestsPerSecond, ErrorRatio: t.ErrorRatio, Requests: t.Requests, Window: durationpb.New(t.Window), At: toTime(t.At)}
	}
	now := h.now()
	for _, z := range f.Freezes {
		// Of several in force, the one that ends last.
		if !z.From.After(now) && z.Until.After(now) && (out.Freeze == nil || z.Until.After(out.Freeze.GetUntil().AsTime())) {
			out.Freeze = &fleetv1.FreezeWindow{From: toTime(z.From), Until: toTime(z.Until), Reason: z.Reason, Principal: z.Principal}
		}
	}
	return out
}

func toColourState(c fleet.ColourState) *fleetv1.ColourState {
	return &fleetv1.ColourState{Deployment: c.Deployment, Version: c.Version, Desired: c.Desired, Ready: c.Ready, OpenConnections: c.OpenConnections}
}

func toCutover(c *fleet.Cutover) *fleetv1.Cutover {
	if c == nil {
		return nil
	}
	out := &fleetv1.Cutover{
		Id: c.ID, From: toColour(c.From), To: toColour(c.To), Version: c.Version, Principal: c.Principal, Reason: c.Reason, Forced: c.Forced, Rollback: c.Rollback,
		Outcome: outcomes[c.Outcome], Message: c.Message, DeclaredAt: toTime(c.DeclaredAt), SwitchedAt: toTime(c.SwitchedAt), SettledAt: toTime(c.SettledAt),
		LastNewConnectionAt: toTime(c.LastNewConnectionAt), DrainedAt: toTime(c.DrainedAt),
		ConnectionsDrained: c.ConnectionsDrained, ConnectionsReset: c.ConnectionsReset, ConnectionsLeft: c.ConnectionsLeft,
	}
	if c.Ramp > 0 {
		out.Ramp = durationpb.New(c.Ramp)
	}
	return out
}

func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
