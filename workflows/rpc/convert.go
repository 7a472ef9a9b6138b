package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/workflows"
)

var kinds = map[workflows.Kind]runbookv1.Kind{workflows.Rollback: runbookv1.Kind_KIND_ROLLBACK, workflows.Cutover: runbookv1.Kind_KIND_CUTOVER}

var states = map[workflows.State]runbookv1.State{
	workflows.Running: runbookv1.State_STATE_RUNNING, workflows.Paused: runbookv1.State_STATE_PAUSED, workflows.Waiting: runbookv1.State_STATE_WAITING,
	workflows.Succeeded: runbookv1.State_STATE_SUCCEEDED, workflows.Partial: runbookv1.State_STATE_PARTIAL,
	workflows.Failed: runbookv1.State_STATE_FAILED, workflows.Aborted: runbookv1.State_STATE_ABORTED,
}

var steps = map[workflows.Step]runbookv1.Step{
	workflows.Pending: runbookv1.Step_STEP_PENDING, workflows.Switching: runbookv1.Step_STEP_SWITCHING, workflows.Switched: runbookv1.Step_STEP_SWITCHED,
	workflows.Draining: runbookv1.Step_STEP_DRAINING, workflows.Done: runbookv1.Step_STEP_DONE, workflows.Already: runbookv1.Step_STEP_ALREADY,
	workflows.Blocked: runbookv1.Step_STEP_BLOCKED, workflows.Broken: runbookv1.Step_STEP_FAILED, workflows.Skipped: runbookv1.Step_STEP_SKIPPED,
}

func toColour(c workflows.Colour) fleetv1.Colour {
	switch c {
	case workflows.Blue:
		return fleetv1.Colour_COLOUR_BLUE
	case workflows.Green:
		return fleetv1.Colour_COLOUR_GREEN
	}
	return fleetv1.Colour_COLOUR_UNSPECIFIED
}

// fromColour keeps a colour that nobody knows apart from one that was left out: the domain refuses it.
func fromColour(c fleetv1.Colour) workflows.Colour {
	switch c {
	case fleetv1.Colour_COLOUR_UNSPECIFIED:
		return workflows.None
	case fleetv1.Colour_COLOUR_BLUE:
		return workflows.Blue
	case fleetv1.Colour_COLOUR_GREEN:
		return workflows.Green
	}
	return workflows.Colour(c.String())
}

func fromRequest(m *runbookv1.GlobalCutover) workflows.Request {
	r := workflows.Request{
		Fleet: m.GetFleet(), Pops: m.GetScope().GetPops(), All: m.GetScope().GetAll(), To: fromColour(m.GetTo()), Version: m.GetVersion(),
		FirstPop: m.GetFirstPop(), WaveSize: int(m.GetWaveSize()), ApproveWaves: m.GetApproveWaves(), Force: m.GetForce(),
		MaxErrorRatio: m.MaxErrorRatio,
	}
	for k, v := range kinds {
		if v == m.GetKind() {
			r.Kind = k
		}
	}
	if m.Jitter != nil {
		d := m.GetJitter().AsDuration()
		r.Jitter = &d
	}
	if m.Deadline != nil {
		r.Deadline = m.GetDeadline().AsDuration()
	}
	if m.MaxFailedPops != nil {
		n := int(m.GetMaxFailedPops())
		r.MaxFailedPops = &n
	}
	return r
}

func toRequest(r workflows.Request) *runbookv1.GlobalCutover {
	m := &runbookv1.GlobalCutover{
		Kind: kinds[r.Kind], Fleet: r.Fleet, Scope: &fleetv1.Scope{Pops: r.Pops, All: r.All}, To: toColour(r.To), Version: r.Version,
		FirstPop: r.FirstPop, WaveSize: int32(r.WaveSize), ApproveWaves: r.ApproveWaves, Force: r.Force, MaxErrorRatio: r.MaxErrorRatio,
	}
	if r.Jitter != nil {
		m.Jitter = durationpb.New(*r.Jitter)
	}
	if r.Deadline != 0 {
		m.Deadline = durationpb.New(r.Deadline)
	}
	if r.MaxFailedPops != nil {
		n := int32(*r.MaxFailedPops)
		m.MaxFailedPops = &n
	}
	return m
}

func toOperation(op workflows.Operation) *runbookv1.Operation {
	m := &runbookv1.Operation{
		Id: op.ID, State: states[op.State], Message: op.Message, Principal: op.Principal, Reason: op.Reason,
		GlobalCutover: toRequest(op.Request), To: toColour(op.To), StartedAt: toTime(op.StartedAt), EndedAt: toTime(op.EndedAt), Revision: op.Revision,
		Supersedes: op.Supersedes,
	}
	for _, w := range op.Waves {
		wave := &runbookv1.Wave{}
		for _, p := range w {
			wave.Pops = append(wave.Pops, &runbookv1.PopProgress{
				Pop: p.Name, Step: steps[p.Step], Message: p.Message, From: toColour(p.From), To: toColour(p.To),
				StartedAt: toTime(p.StartedAt), SwitchedAt: toTime(p.SwitchedAt), DrainedAt: toTime(p.DrainedAt),
				OpenConnections: p.Open, ConnectionsDrained: p.Drained, ConnectionsReset: p.Reset,
			})
		}
		m.Waves = append(m.Waves, wave)
	}
	if v := op.Verification; v != nil {
		m.Verification = &runbookv1.Verification{ErrorRatio: v.ErrorRatio, MaxErrorRatio: v.MaxErrorRatio, Requests: v.Requests,
			Passed: v.Passed, UnknownPops: v.Unknown, At: toTime(v.At)}
	}
	for _, d := range op.Decisions {
		m.Decisions = append(m.Decisions, &runbookv1.Decision{Verb: string(d.Verb), Principal: d.Principal, Reason: d.Reason, At: toTime(d.At)})
	}
	return m
}

func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func fromTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
