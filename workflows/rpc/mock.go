package rpc

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/proto/edgehold/llmmock/v1/llmmockv1connect"
	"edgehold.internal/workflows"
)

// Mock is workflows.Mock over MockService.
type Mock struct {
	client llmmockv1connect.MockServiceClient
}

var _ workflows.Mock = (*Mock)(nil)

// NewMock calls the service that c connects to.
func NewMock(c *client.Client) *Mock {
	return &Mock{client: llmmockv1connect.NewMockServiceClient(c.Unary(), c.URL(), c.Options()...)}
}

var outages = map[string]llmmockv1.PhaseKind{
	"outage":   llmmockv1.PhaseKind_PHASE_KIND_OUTAGE,
	"brownout": llmmockv1.PhaseKind_PHASE_KIND_BROWNOUT,
	"quota":    llmmockv1.PhaseKind_PHASE_KIND_QUOTA,
	"dark":     llmmockv1.PhaseKind_PHASE_KIND_DARK,
}

// StartOutage implements workflows.Mock.
func (m *Mock) StartOutage(ctx context.Context, o workflows.Outage, key string) error {
	kind, ok := outages[cmp.Or(o.Kind, "outage")]
	if !ok {
		return problem.Invalidf("kind", "%q is not known; use outage, brownout, quota or dark", o.Kind)
	}
	if o.For <= 0 {
		return problem.Invalidf("for", "%s is not allowed; say for how long, so that it ends whatever becomes of the drill", o.For)
	}
	p := &llmmockv1.Phase{Name: o.Name, Kind: kind, Regions: o.Regions, For: durationpb.New(o.For), Share: o.Share, Slow: o.Slow}
	if len(o.Vendors)+len(o.Models) > 0 {
		p.Match = &llmmockv1.Match{Vendors: o.Vendors, Models: o.Models}
	}
	if o.Status != 0 {
		p.Failure = &llmmockv1.Failure{Status: int32(o.Status)}
	}
	_, err := m.client.StartPhase(ctx, &llmmockv1.StartPhaseRequest{Scope: &llmmockv1.Scope{Scenario: o.Scenario, All: o.All}, Phase: p, Reason: o.Reason, IdempotencyKey: key})
	return err
}

// EndOutage implements workflows.Mock.
func (m *Mock) EndOutage(ctx context.Context, o workflows.Outage, key string) error {
	_, err := m.client.EndPhase(ctx, &llmmockv1.EndPhaseRequest{Scope: &llmmockv1.Scope{Scenario: o.Scenario, All: o.All}, Name: o.Name, Reason: o.Reason, IdempotencyKey: key})
	return err
}
