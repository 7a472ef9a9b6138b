// Package rpc translates between Connect and the domain, in both directions: Handler serves
// edgehold.runbook.v1.RunbookService, Fleets calls edgehold.fleet.v1.FleetService. Errors of the domain become Connect
// codes, and back, in libs/service and libs/client.
package rpc

import (
	"context"

	"connectrpc.com/connect"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/proto/edgehold/runbook/v1/runbookv1connect"
	"edgehold.internal/workflows"
)

// defaultPage is the page size of a list that asks for none.
const defaultPage = 20

// Handler serves operations.
type Handler struct {
	operations workflows.Operations
}

var _ runbookv1connect.RunbookServiceHandler = (*Handler)(nil)

// New returns a Handler.
func New(operations workflows.Operations) *Handler { return &Handler{operations: operations} }

// Mount adds the service to a server.
func (h *Handler) Mount(s *service.Server) {
	path, handler := runbookv1connect.NewRunbookServiceHandler(h, s.HandlerOptions()...)
	s.Handle(runbookv1connect.RunbookServiceName, path, handler)
}

// Start implements RunbookService. The person is the authenticated principal.
func (h *Handler) Start(ctx context.Context, r *runbookv1.StartRequest) (*runbookv1.StartResponse, error) {
	gc := r.GetGlobalCutover()
	if gc == nil {
		return nil, problem.Invalidf("runbook", "name one: global_cutover")
	}
	if gc.GetForce() {
		if err := service.Require(ctx, service.RoleBreakglass); err != nil {
			return nil, err
		}
	}
	op, err := h.operations.Start(ctx, workflows.Start{Request: fromRequest(gc), Principal: service.PrincipalFrom(ctx).Name,
		Reason: r.GetReason(), Key: r.GetIdempotencyKey(), Supersede: r.GetSupersede()})
	if err != nil {
		return nil, err
	}
	return &runbookv1.StartResponse{Operation: toOperation(op)}, nil
}

// GetOperation implements RunbookService.
func (h *Handler) GetOperation(ctx context.Context, r *runbookv1.GetOperationRequest) (*runbookv1.GetOperationResponse, error) {
	op, err := h.operations.Get(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return &runbookv1.GetOperationResponse{Operation: toOperation(op)}, nil
}

// ListOperations implements RunbookService.
func (h *Handler) ListOperations(ctx context.Context, r *runbookv1.ListOperationsRequest) (*runbookv1.ListOperationsResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	ops, next, err := h.operations.List(ctx, r.GetFleet(), size, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &runbookv1.ListOperationsResponse{NextPageToken: next}
	for _, op := range ops {
		out.Operations = append(out.Operations, toOperation(op))
	}
	return out, nil
}

// WatchOperation implements RunbookService.
func (h *Handler) WatchOperation(ctx context.Context, r *runbookv1.WatchOperationRequest, stream *connect.ServerStream[runbookv1.WatchOperationResponse]) error {
	return h.operations.Watch(ctx, r.GetId(), func(op workflows.Operation) error {
		return stream.Send(&runbookv1.WatchOperationResponse{Operation: toOperation(op)})
	})
}

// Approve implements RunbookService.
func (h *Handler) Approve(ctx context.Context, r *runbookv1.ApproveRequest) (*runbookv1.ApproveResponse, error) {
	op, err := h.decide(ctx, workflows.Approve, r.GetAct())
	return &runbookv1.ApproveResponse{Operation: op}, err
}

// Pause implements RunbookService.
func (h *Handler) Pause(ctx context.Context, r *runbookv1.PauseRequest) (*runbookv1.PauseResponse, error) {
	op, err := h.decide(ctx, workflows.Pause, r.GetAct())
	return &runbookv1.PauseResponse{Operation: op}, err
}

// Resume implements RunbookService.
func (h *Handler) Resume(ctx context.Context, r *runbookv1.ResumeRequest) (*runbookv1.ResumeResponse, error) {
	op, err := h.decide(ctx, workflows.Resume, r.GetAct())
	return &runbookv1.ResumeResponse{Operation: op}, err
}

// Abort implements RunbookService.
func (h *Handler) Abort(ctx context.Context, r *runbookv1.AbortRequest) (*runbookv1.AbortResponse, error) {
	op, err := h.decide(ctx, workflows.Abort, r.GetAct())
	return &runbookv1.AbortResponse{Operation: op}, err
}

func (h *Handler) decide(ctx context.Context, v workflows.Verb, act *runbookv1.Act) (*runbookv1.Operation, error) {
	op, err := h.operations.Decide(ctx, act.GetId(), workflows.Decision{Verb: v, Principal: service.PrincipalFrom(ctx).Name,
		Reason: act.GetReason(), Key: act.GetIdempotencyKey()})
	if err != nil {
		return nil, err
	}
	return toOperation(op), nil
}
