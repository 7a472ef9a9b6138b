// Package rpc serves edgehold.llmmock.v1.MockService: it translates requests, calls the domain and translates back. Errors of the
// domain become Connect codes in libs/service. Start at New.
package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"edgehold.internal/libs/idempotency"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/proto/edgehold/llmmock/v1/llmmockv1connect"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/scenario"
)

// Config is what is shown and changed. All but Late is required.
type Config struct {
	Mock    *llmmock.Mock
	Library *llmmock.Library
	Judge   *llmmock.Judge
	Traffic *llmmock.Traffic
	Meter   *llmmock.Meter
	Drills  *llmmock.Drills
	Prices  llmmock.Prices
	// Started is when the process began.
	Started time.Time
	// Late is how late pieces were written so far; nil when nobody counts.
	Late func() []Bucket
}

// Bounds of a Handler.
const (
	// MaxWatchers at one time.
	MaxWatchers = 100
	// results of mutating calls are remembered by their idempotency key: so many, for so long.
	maxResults = 1000
	resultsFor = time.Hour
)

// Handler serves one mock.
type Handler struct {
	Config
	results  *idempotency.Store[proto.Message]
	watchers chan struct{}
}

var _ llmmockv1connect.MockServiceHandler = (*Handler)(nil)

// New returns a Handler.
func New(c Config) *Handler {
	if c.Late == nil {
		c.Late = func() []Bucket { return nil }
	}
	return &Handler{Config: c, results: idempotency.New[proto.Message](maxResults, resultsFor), watchers: make(chan struct{}, MaxWatchers)}
}

// Mount adds the service to a server.
func (h *Handler) Mount(s *service.Server) {
	path, handler := llmmockv1connect.NewMockServiceHandler(h, s.HandlerOptions()...)
	s.Handle(llmmockv1connect.MockServiceName, path, handler)
}

// keyed is a mutating request.
type keyed interface {
	proto.Message
	GetIdempotencyKey() string
}

// once does what a request asks for; asked again with the same key it has the same result, and does nothing.
func once[T proto.Message](ctx context.Context, h *Handler, r keyed, do func() (T, error)) (T, error) {
	key := idempotency.Key{Principal: service.PrincipalFrom(ctx).Name, Procedure: string(r.ProtoReflect().Descriptor().FullName()), Key: r.GetIdempotencyKey()}
	result, err := h.results.Do(ctx, key, idempotency.Payload(r), func(context.Context) (proto.Message, error) { return do() })
	typed, _ := result.(T)
	return typed, err
}

// inRequest names a field of the domain as it is in requests.
func inRequest(err error) error {
	var p *problem.Error
	if !errors.As(err, &p) {
		return err
	}
	c := *p
	switch p.Field {
	case "scenario":
		c.Field = "scope.scenario"
	case "patience", "name":
	default:
		return err
	}
	return &c
}

// ListScenarios implements MockService.
func (h *Handler) ListScenarios(context.Context, *llmmockv1.ListScenariosRequest) (*llmmockv1.ListScenariosResponse, error) {
	return &llmmockv1.ListScenariosResponse{Scenarios: toScenarios(h.Library.Scenarios(), h.Traffic.Series())}, nil
}

// PutScenario implements MockService.
func (h *Handler) PutScenario(ctx context.Context, r *llmmockv1.PutScenarioRequest) (*llmmockv1.PutScenarioResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.PutScenarioResponse, error) {
		source := r.GetSource()
		if source == "" {
			source = "yaml"
		}
		made, err := scenario.ReadSourced(source, []byte(r.GetYaml()))
		if err != nil {
			return nil, problem.Invalidf("yaml", "%v", err)
		}
		if err := withoutFiles(made); err != nil {
			return nil, err
		}
		results, err := h.Library.Put(made, r.GetDryRun())
		if err != nil {
			return nil, err
		}
		out := &llmmockv1.PutScenarioResponse{}
		for _, p := range results {
			out.Results = append(out.Results, &llmmockv1.PutResult{Name: p.Name, Replaced: p.Replaced, Unchanged: p.Unchanged})
		}
		return out, nil
	})
}

// withoutFiles refuses what would have the mock read files that a caller names.
func withoutFiles(made []llmmock.Sourced) error {
	for _, m := range made {
		for i := range m.Scenario.Answers {
			if m.Scenario.Answers[i].Play != "" {
				return problem.Invalidf("yaml", "%s: answers[%d].play: a recording is a file, and is played only by scenarios that are read from files", m.Source, i)
			}
		}
	}
	return nil
}

// DeleteScenario implements MockService.
func (h *Handler) DeleteScenario(ctx context.Context, r *llmmockv1.DeleteScenarioRequest) (*llmmockv1.DeleteScenarioResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.DeleteScenarioResponse, error) {
		return &llmmockv1.DeleteScenarioResponse{}, h.Library.Delete(r.GetName())
	})
}

// RestartScenario implements MockService.
func (h *Handler) RestartScenario(ctx context.Context, r *llmmockv1.RestartScenarioRequest) (*llmmockv1.RestartScenarioResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.RestartScenarioResponse, error) {
		return &llmmockv1.RestartScenarioResponse{}, inRequest(h.Mock.Restart(r.GetScope().GetScenario()))
	})
}

// ListPhases implements MockService.
func (h *Handler) ListPhases(context.Context, *llmmockv1.ListPhasesRequest) (*llmmockv1.ListPhasesResponse, error) {
	out := &llmmockv1.ListPhasesResponse{}
	for _, p := range h.Mock.Phases() {
		out.Phases = append(out.Phases, toPhaseStatus(&p))
	}
	return out, nil
}

// StartPhase implements MockService.
func (h *Handler) StartPhase(ctx context.Context, r *llmmockv1.StartPhaseRequest) (*llmmockv1.StartPhaseResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.StartPhaseResponse, error) {
		scenario := r.GetScope().GetScenario()
		p, err := fromPhase(r.GetPhase())
		if err != nil {
			return nil, err
		}
		if err := h.Mock.StartPhase(scenario, p); err != nil {
			return nil, inPhase(err)
		}
		out := &llmmockv1.StartPhaseResponse{}
		for _, status := range h.Mock.Phases() {
			if status.Started && status.Scenario == scenario && status.Phase.Name == p.Name {
				out.Phase = toPhaseStatus(&status)
			}
		}
		return out, nil
	})
}

// EndPhase implements MockService.
func (h *Handler) EndPhase(ctx context.Context, r *llmmockv1.EndPhaseRequest) (*llmmockv1.EndPhaseResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.EndPhaseResponse, error) {
		return &llmmockv1.EndPhaseResponse{}, inRequest(h.Drills.EndPhase(r.GetScope().GetScenario(), r.GetName()))
	})
}

// GetReport implements MockService.
func (h *Handler) GetReport(_ context.Context, r *llmmockv1.GetReportRequest) (*llmmockv1.GetReportResponse, error) {
	report := h.Judge.Report(r.GetRun())
	if client := r.GetClient(); client != "" {
		report = report.Only(client)
	}
	return ToReport(&report), nil
}

// ForgetRun implements MockService.
func (h *Handler) ForgetRun(ctx context.Context, r *llmmockv1.ForgetRunRequest) (*llmmockv1.ForgetRunResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.ForgetRunResponse, error) {
		h.Judge.Forget(r.GetRun())
		return &llmmockv1.ForgetRunResponse{}, nil
	})
}

// GetSavings implements MockService.
func (h *Handler) GetSavings(_ context.Context, r *llmmockv1.GetSavingsRequest) (*llmmockv1.GetSavingsResponse, error) {
	by := fromCost(r.GetCost())
	by.Time = time.Since(h.Started)
	uses := h.Meter.Uses(h.Prices)
	savings := llmmock.Save(uses, by)
	return &llmmockv1.GetSavingsResponse{Uses: toUses(uses), Savings: toSavings(&savings)}, nil
}

// StartDrill implements MockService.
func (h *Handler) StartDrill(ctx context.Context, r *llmmockv1.StartDrillRequest) (*llmmockv1.StartDrillResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.StartDrillResponse, error) {
		p, err := fromPhase(r.GetPhase())
		if err != nil {
			return nil, err
		}
		c := llmmock.DrillConfig{Name: r.GetName(), Scenario: r.GetScope().GetScenario(), Phase: p, Patience: r.GetPatience().AsDuration(), Prices: h.Prices, Mocked: fromCost(r.GetCost())}
		drill, err := h.Drills.Start(c, service.PrincipalFrom(ctx).Name, r.GetReason())
		if err != nil {
			return nil, inRequest(err)
		}
		return &llmmockv1.StartDrillResponse{Drill: toDrill(&drill)}, nil
	})
}

// EndDrill implements MockService.
func (h *Handler) EndDrill(ctx context.Context, r *llmmockv1.EndDrillRequest) (*llmmockv1.EndDrillResponse, error) {
	return once(ctx, h, r, func() (*llmmockv1.EndDrillResponse, error) {
		drill, err := h.Drills.End(r.GetName(), r.GetClose())
		if err != nil {
			return nil, err
		}
		return &llmmockv1.EndDrillResponse{Drill: toDrill(&drill)}, nil
	})
}

// ListDrills implements MockService.
func (h *Handler) ListDrills(context.Context, *llmmockv1.ListDrillsRequest) (*llmmockv1.ListDrillsResponse, error) {
	return &llmmockv1.ListDrillsResponse{Drills: toDrills(h.Drills.List())}, nil
}

// GetScorecard implements MockService.
func (h *Handler) GetScorecard(_ context.Context, r *llmmockv1.GetScorecardRequest) (*llmmockv1.GetScorecardResponse, error) {
	drill, card, err := h.Drills.Card(r.GetName())
	if err != nil {
		return nil, err
	}
	return &llmmockv1.GetScorecardResponse{Drill: toDrill(&drill), Scorecard: toScorecard(&card)}, nil
}
