// Package rpc serves edgehold.fleet.v1.FleetService: it translates requests, calls fleet.Centre and translates back. Errors
// of the domain become Connect codes in libs/service. Start at New.
package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	"edgehold.internal/services/fleet"
)

// Handler serves the fleets of a Centre.
type Handler struct {
	centre *fleet.Centre
	now    func() time.Time
}

var _ fleetv1connect.FleetServiceHandler = (*Handler)(nil)

// New returns a Handler; now is the clock that says whether a freeze is in force.
func New(centre *fleet.Centre, now func() time.Time) *Handler {
	return &Handler{centre: centre, now: now}
}

// Mount adds the service to a server.
func (h *Handler) Mount(s *service.Server) {
	path, handler := fleetv1connect.NewFleetServiceHandler(h, s.HandlerOptions()...)
	s.Handle(fleetv1connect.FleetServiceName, path, handler)
}

// ListPops implements FleetService.
func (h *Handler) ListPops(ctx context.Context, _ *fleetv1.ListPopsRequest) (*fleetv1.ListPopsResponse, error) {
	out := &fleetv1.ListPopsResponse{}
	for _, r := range h.centre.Pops(ctx) {
		out.Pops = append(out.Pops, &fleetv1.Pop{
			Name: r.Pop.Name, Region: r.Pop.Region, Latitude: r.Pop.Latitude, Longitude: r.Pop.Longitude,
			Context: r.Pop.Context, Namespace: r.Pop.Namespace, Problem: toProblem(r.Err),
		})
	}
	return out, nil
}

// ListFleets implements FleetService.
func (h *Handler) ListFleets(ctx context.Context, r *fleetv1.ListFleetsRequest) (*fleetv1.ListFleetsResponse, error) {
	results, err := h.centre.List(ctx, r.GetFleet(), fromScope(r.GetScope()))
	if err != nil {
		return nil, err
	}
	return &fleetv1.ListFleetsResponse{Fleets: h.toFleets(r.GetFleet(), results)}, nil
}

// WatchFleets implements FleetService.
func (h *Handler) WatchFleets(ctx context.Context, r *fleetv1.WatchFleetsRequest, stream *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
	return h.centre.Watch(ctx, r.GetFleet(), fromScope(r.GetScope()), func(e fleet.WatchEvent) error {
		out := &fleetv1.WatchFleetsResponse{Deleted: e.Deleted}
		switch {
		case e.Fleet != nil:
			out.Fleet = h.toFleet(e.Fleet)
		case e.Err != nil:
			out.Fleet = &fleetv1.Fleet{Pop: e.Pop, Name: r.GetFleet(), Problem: toProblem(e.Err)}
		default:
			out.Fleet = &fleetv1.Fleet{Pop: e.Pop, Name: e.Name}
		}
		return stream.Send(out)
	})
}

// PlanCutover implements FleetService.
func (h *Handler) PlanCutover(ctx context.Context, r *fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error) {
	to, plans, err := h.centre.Plan(ctx, fleet.PlanRequest{
		Fleet: r.GetFleet(), Scope: fromScope(r.GetScope()), To: fromColour(r.GetTo()), Version: r.GetVersion(), Force: r.GetForce(),
	})
	if err != nil {
		return nil, err
	}
	out := &fleetv1.PlanCutoverResponse{To: toColour(to)}
	for _, p := range plans {
		plan := &fleetv1.PopPlan{Pop: p.Pop, From: toColour(p.From), To: toColour(p.To), Version: p.Version, Already: p.Already, Steps: p.Steps, Problem: toProblem(p.Err)}
		for _, b := range p.Blockers {
			plan.Blockers = append(plan.Blockers, &fleetv1.Blocker{Reason: b.Reason, Message: b.Message, Overridable: b.Overridable})
		}
		out.Pops = append(out.Pops, plan)
	}
	return out, nil
}

// CutOver implements FleetService.
func (h *Handler) CutOver(ctx context.Context, r *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
	if r.GetForce() {
		if err := service.Require(ctx, service.RoleBreakglass); err != nil {
			return nil, err
		}
	}
	principal, err := onBehalfOf(ctx, r.GetOnBehalfOf())
	if err != nil {
		return nil, err
	}
	if _, err := h.centre.Registry().Pop("pop", r.GetPop()); err != nil {
		return nil, err
	}
	change := fleet.Change{
		ID: r.GetIdempotencyKey(), To: fromColour(r.GetTo()), Principal: principal, Reason: r.GetReason(), Version: r.GetVersion(), Force: r.GetForce(),
		Rollback: r.GetRollback(), At: h.now(),
	}
	if d := r.GetDeadline(); d != nil {
		change.Deadline = change.At.Add(d.AsDuration())
	}
	results, err := h.centre.CutOver(ctx, r.GetFleet(), fleet.Scope{Pops: []string{r.GetPop()}}, change, nil)
	if err != nil {
		return nil, err
	}
	result := results[0]
	if result.Err != nil {
		return nil, result.Err
	}
	return &fleetv1.CutOverResponse{Fleet: h.toFleet(&result.Fleet), Cutover: toCutover(result.Cutover), Already: result.Already}, nil
}

// onBehalfOf is whose name a change carries. Only automation acts for others; without authentication configured everybody
// is the machine's own user, who has breakglass and who is the runbooks' worker as well.
func onBehalfOf(ctx context.Context, person string) (string, error) {
	caller := service.PrincipalFrom(ctx)
	if person == "" {
		return caller.Name, nil
	}
	if !caller.Has(service.RoleAutomation, service.RoleBreakglass) {
		return "", problem.New(problem.PermissionDenied, "on_behalf_of", "%q may not act for %q: that needs the role automation; leave the field out", caller.Name, person)
	}
	return person, nil
}

// Freeze implements FleetService.
func (h *Handler) Freeze(ctx context.Context, r *fleetv1.FreezeRequest) (*fleetv1.FreezeResponse, error) {
	results, err := h.centre.Freeze(ctx, r.GetFleet(), fromScope(r.GetScope()), fleet.Freeze{
		From: h.now(), Until: r.GetUntil().AsTime(), Reason: r.GetReason(), Principal: service.PrincipalFrom(ctx).Name, ID: r.GetIdempotencyKey(),
	})
	if err != nil {
		return nil, err
	}
	return &fleetv1.FreezeResponse{Fleets: h.toFleets(r.GetFleet(), results)}, nil
}

// Unfreeze implements FleetService.
func (h *Handler) Unfreeze(ctx context.Context, r *fleetv1.UnfreezeRequest) (*fleetv1.UnfreezeResponse, error) {
	results, err := h.centre.Unfreeze(ctx, r.GetFleet(), fromScope(r.GetScope()), fleet.Unfreeze{
		ID: r.GetIdempotencyKey(), Principal: service.PrincipalFrom(ctx).Name, Reason: r.GetReason(), At: h.now(),
	})
	if err != nil {
		return nil, err
	}
	return &fleetv1.UnfreezeResponse{Fleets: h.toFleets(r.GetFleet(), results)}, nil
}

// ListCutovers implements FleetService.
func (h *Handler) ListCutovers(ctx context.Context, r *fleetv1.ListCutoversRequest) (*fleetv1.ListCutoversResponse, error) {
	results, err := h.centre.List(ctx, r.GetFleet(), fromScope(r.GetScope()))
	if err != nil {
		return nil, err
	}
	out := &fleetv1.ListCutoversResponse{}
	for _, p := range results {
		cutovers := &fleetv1.PopCutovers{Pop: p.Pop.Name, Problem: toProblem(p.Err)}
		for _, f := range p.Fleets {
			if f.LastCutover != nil {
				cutovers.Cutovers = append(cutovers.Cutovers, toCutover(f.LastCutover))
			}
			for i := range f.History {
				cutovers.Cutovers = append(cutovers.Cutovers, toCutover(&f.History[i]))
			}
		}
		out.Pops = append(out.Pops, cutovers)
	}
	return out, nil
}
