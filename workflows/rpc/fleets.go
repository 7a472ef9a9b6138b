package rpc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	"edgehold.internal/workflows"
)

// Fleets is workflows.Fleets over FleetService.
type Fleets struct {
	client fleetv1connect.FleetServiceClient
	// now is time.Now, or a test's.
	now func() time.Time
}

var _ workflows.Fleets = (*Fleets)(nil)

// NewFleets calls the service that c connects to. Its calls have the contexts' deadlines only: a cutover takes as long as
// it is allowed to.
func NewFleets(c *client.Client) *Fleets {
	return &Fleets{client: fleetv1connect.NewFleetServiceClient(c.Stream(), c.URL(), c.Options()...), now: time.Now}
}

// Plan implements workflows.Fleets.
func (f *Fleets) Plan(ctx context.Context, r workflows.Request) (workflows.Plan, error) {
	res, err := f.client.PlanCutover(ctx, &fleetv1.PlanCutoverRequest{Fleet: r.Fleet, Scope: &fleetv1.Scope{Pops: r.Pops, All: r.All},
		To: toColour(r.To), Version: r.Version, Force: r.Force})
	if err != nil {
		return workflows.Plan{}, err
	}
	if len(res.GetPops()) > workflows.MaxPops {
		return workflows.Plan{}, problem.Invalidf("global_cutover.scope", "%d PoPs are more than the %d of one operation; name fewer", len(res.GetPops()), workflows.MaxPops)
	}
	plan := workflows.Plan{To: fromColour(res.GetTo()), At: f.now()}
	for _, p := range res.GetPops() {
		plan.Pops = append(plan.Pops, workflows.PopPlan{Pop: p.GetPop(), From: fromColour(p.GetFrom()), Already: p.GetAlready(), Blocked: blocked(p, r.Force)})
	}
	return plan, nil
}

// blocked is what stands in the way, in a sentence, or empty.
func blocked(p *fleetv1.PopPlan, force bool) string {
	if pr := p.GetProblem(); pr != nil {
		return pr.GetMessage()
	}
	var why []string
	for _, b := range p.GetBlockers() {
		if !force || !b.GetOverridable() {
			why = append(why, b.GetMessage())
		}
	}
	return strings.Join(why, "; ")
}

// CutOver implements workflows.Fleets.
func (f *Fleets) CutOver(ctx context.Context, c workflows.Change) (workflows.Report, error) {
	res, err := f.client.CutOver(ctx, &fleetv1.CutOverRequest{Pop: c.Pop, Fleet: c.Fleet, To: toColour(c.To), Version: c.Version, Reason: c.Reason,
		IdempotencyKey: c.Key, Force: c.Force, Rollback: c.Rollback, OnBehalfOf: c.Principal, Deadline: durationpb.New(c.Deadline)})
	if err != nil {
		return workflows.Report{}, err
	}
	rep := workflows.Report{Pop: c.Pop, Step: workflows.Switched, From: fromColour(res.GetCutover().GetFrom()), SwitchedAt: fromTime(res.GetCutover().GetSwitchedAt())}
	if res.GetAlready() {
		return workflows.Report{Pop: c.Pop, Step: workflows.Already}, nil
	}
	if undone(res.GetCutover().GetOutcome()) {
		rep.Step, rep.Message = workflows.Broken, res.GetCutover().GetMessage()
	} else if rep.SwitchedAt.IsZero() {
		rep.SwitchedAt = f.now() // an answer without a record all the same says that it has switched
	}
	return rep, nil
}

func undone(o fleetv1.Outcome) bool {
	return o == fleetv1.Outcome_OUTCOME_REVERTED || o == fleetv1.Outcome_OUTCOME_EXPIRED || o == fleetv1.Outcome_OUTCOME_SUPERSEDED
}

// Watch implements workflows.Fleets.
func (f *Fleets) Watch(ctx context.Context, fleet string, pops []string, on func(workflows.Observation) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := f.client.WatchFleets(ctx, &fleetv1.WatchFleetsRequest{Fleet: fleet, Scope: &fleetv1.Scope{Pops: pops}})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // what it says, Err has said before
	for stream.Receive() {
		if err := on(observation(stream.Msg())); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	return problem.Unavailablef("the fleet service ended its stream")
}

func observation(m *fleetv1.WatchFleetsResponse) workflows.Observation {
	fl := m.GetFleet()
	o := workflows.Observation{Pop: fl.GetPop()}
	switch {
	case m.GetDeleted():
		return workflows.Observation{Pop: fl.GetPop(), Problem: fmt.Sprintf("fleet %s is gone", fl.GetName())}
	case fl.GetProblem() != nil:
		return workflows.Observation{Pop: fl.GetPop(), Problem: fl.GetProblem().GetMessage()}
	}
	if fl.Blue != nil {
		o.Blue = fl.Blue.OpenConnections
	}
	if fl.Green != nil {
		o.Green = fl.Green.OpenConnections
	}
	if c := fl.GetLastCutover(); c != nil {
		o.Last = &workflows.PopCutover{Key: c.GetId(), From: fromColour(c.GetFrom()), DeclaredAt: fromTime(c.GetDeclaredAt()), SwitchedAt: fromTime(c.GetSwitchedAt()), DrainedAt: fromTime(c.GetDrainedAt()),
			Ended:  c.GetOutcome() != fleetv1.Outcome_OUTCOME_RUNNING && c.GetOutcome() != fleetv1.Outcome_OUTCOME_UNSPECIFIED,
			Undone: undone(c.GetOutcome()), Message: c.GetMessage(), Drained: c.ConnectionsDrained, Reset: c.ConnectionsReset, Left: c.ConnectionsLeft}
	}
	if t := fl.GetTraffic(); t != nil {
		o.Traffic = &workflows.Traffic{Requests: t.GetRequests(), ErrorRatio: t.GetErrorRatio(), Window: t.GetWindow().AsDuration(), At: fromTime(t.GetAt())}
	}
	return o
}
