// Package fake is a fleet service without fleets: a FleetService whose PoPs are entries of a map, which switch, drain and
// fail as a test tells them to. Start at New.
package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
)

// Service is FleetService over PoPs that are all served blue at first. Its exported fields are set before it is used.
type Service struct {
	fleetv1connect.UnimplementedFleetServiceHandler

	// Fleet is the name of the one fleet. Default "edge".
	Fleet string
	// SwitchTime is how long a PoP takes to switch, DrainTime how long to let go of 100 connections.
	SwitchTime, DrainTime time.Duration
	// ErrorRatio of each PoP's traffic, nil for PoPs without any.
	ErrorRatio func(pop string) *float64
	// Blocker of a PoP, empty for none, in plans and at the switch.
	Blocker func(pop string) string
	// Refuse is asked before each switch; its error is the answer.
	Refuse func(pop string) error

	mu      sync.Mutex
	order   []string
	pops    map[string]*fleetv1.Fleet
	keys    map[string]string // of each PoP's cutover
	asked   map[string]int    // calls of CutOver by PoP
	began   map[string]int    // switches begun by PoP
	changed chan struct{}
}

// New returns a service with the PoPs.
func New(pops ...string) *Service {
	s := &Service{Fleet: "edge", order: pops, pops: map[string]*fleetv1.Fleet{}, keys: map[string]string{}, asked: map[string]int{},
		began: map[string]int{}, changed: make(chan struct{})}
	for _, p := range pops {
		s.pops[p] = &fleetv1.Fleet{Pop: p, Name: s.Fleet, Active: fleetv1.Colour_COLOUR_BLUE, Declared: fleetv1.Colour_COLOUR_BLUE,
			Phase: fleetv1.Phase_PHASE_STEADY, Blue: &fleetv1.ColourState{Version: "v1"}, Green: &fleetv1.ColourState{Version: "v2"}}
	}
	return s
}

// Pops returns n names.
func Pops(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("pop%03d", i)
	}
	return names
}

// Active is the colour that each PoP serves.
func (s *Service) Active() map[string]fleetv1.Colour {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]fleetv1.Colour{}
	for name, f := range s.pops {
		out[name] = f.Active
	}
	return out
}

// Switches is how often each PoP began to switch, Asked how often CutOver was called for it.
func (s *Service) Switches() map[string]int { return s.copy(s.began) }

// Asked is how often CutOver was called for each PoP.
func (s *Service) Asked() map[string]int { return s.copy(s.asked) }

func (s *Service) copy(m map[string]int) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// change calls f with the lock held and wakes who watches.
func (s *Service) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Service) scope(fleet string, sc *fleetv1.Scope) ([]string, error) {
	if fleet != s.Fleet {
		return nil, problem.NotFoundf("fleet", "no PoP in scope has a fleet %q", fleet)
	}
	if sc.GetAll() {
		return s.order, nil
	}
	for _, p := range sc.GetPops() {
		if !slices.Contains(s.order, p) {
			return nil, problem.NotFoundf("scope.pops", "the registry has no PoP %q", p)
		}
	}
	return sc.GetPops(), nil
}

// PlanCutover implements FleetService.
func (s *Service) PlanCutover(_ context.Context, r *fleetv1.PlanCutoverRequest) (*fleetv1.PlanCutoverResponse, error) {
	pops, err := s.scope(r.GetFleet(), r.GetScope())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to := r.GetTo()
	if to == fleetv1.Colour_COLOUR_UNSPECIFIED {
		if !slices.ContainsFunc(pops, func(p string) bool { return !s.rolledBack(p) }) {
			return nil, problem.Preconditionf("to", "there is nothing to roll back")
		}
		to = other(s.pops[pops[0]].GetActive())
	}
	out := &fleetv1.PlanCutoverResponse{To: to}
	for _, p := range pops {
		plan := &fleetv1.PopPlan{Pop: p, From: s.pops[p].GetActive(), To: to, Already: s.pops[p].GetActive() == to}
		if b := s.blocker(p); b != "" {
			plan.Blockers = []*fleetv1.Blocker{{Reason: "standby_not_ready", Message: b, Overridable: true}}
		}
		out.Pops = append(out.Pops, plan)
	}
	return out, nil
}

func (s *Service) blocker(pop string) string {
	if s.Blocker == nil {
		return ""
	}
	return s.Blocker(pop)
}

func (s *Service) rolledBack(pop string) bool {
	c := s.pops[pop].GetLastCutover()
	return c.GetRollback() && c.GetSwitchedAt() != nil
}

func other(c fleetv1.Colour) fleetv1.Colour {
	if c == fleetv1.Colour_COLOUR_BLUE {
		return fleetv1.Colour_COLOUR_GREEN
	}
	return fleetv1.Colour_COLOUR_BLUE
}

// CutOver implements FleetService.
func (s *Service) CutOver(ctx context.Context, r *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
	pop := r.GetPop()
	if _, err := s.scope(r.GetFleet(), &fleetv1.Scope{Pops: []string{pop}}); err != nil {
		return nil, err
	}
	s.change(func() { s.asked[pop]++ })
	if s.Refuse != nil {
		if err := s.Refuse(pop); err != nil {
			return nil, err
		}
	}
	already := false
	var blocked string
	s.change(func() {
		f := s.pops[pop]
		if s.keys[pop] == r.GetIdempotencyKey() {
			return
		}
		if already = f.GetActive() == r.GetTo(); already {
			return
		}
		if blocked = s.blocker(pop); blocked != "" && !r.GetForce() {
			return
		}
		s.keys[pop] = r.GetIdempotencyKey()
		s.began[pop]++
		now := timestamppb.Now()
		f.LastCutover = &fleetv1.Cutover{Id: r.GetIdempotencyKey(), From: f.GetActive(), To: r.GetTo(), Principal: r.GetOnBehalfOf(), Reason: r.GetReason(),
			Rollback: r.GetRollback(), Outcome: fleetv1.Outcome_OUTCOME_RUNNING, DeclaredAt: now}
		f.Declared, f.Phase = r.GetTo(), fleetv1.Phase_PHASE_SWITCHING
		time.AfterFunc(s.SwitchTime, func() { s.switched(pop, r.GetTo()) })
	})
	if already {
		return &fleetv1.CutOverResponse{Already: true}, nil
	}
	if blocked != "" && !r.GetForce() {
		return nil, problem.Preconditionf("", "%s", blocked)
	}
	for {
		s.mu.Lock()
		f, changed := proto.CloneOf(s.pops[pop]), s.changed
		s.mu.Unlock()
		if f.GetLastCutover().GetSwitchedAt() != nil {
			return &fleetv1.CutOverResponse{Fleet: f, Cutover: f.GetLastCutover()}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, problem.New(problem.DeadlineExceeded, "", "declared; the PoP goes on by itself")
		}
	}
}

func (s *Service) switched(pop string, to fleetv1.Colour) {
	s.change(func() {
		f := s.pops[pop]
		f.Active, f.Phase, f.LastCutover.SwitchedAt = to, fleetv1.Phase_PHASE_DRAINING, timestamppb.Now()
		s.open(f, 100)
	})
	time.AfterFunc(s.DrainTime/2, func() { s.change(func() { s.open(s.pops[pop], 40) }) })
	time.AfterFunc(s.DrainTime, func() {
		s.change(func() {
			f := s.pops[pop]
			s.open(f, 0)
			c := f.LastCutover
			c.Outcome, c.DrainedAt = fleetv1.Outcome_OUTCOME_COMPLETED, timestamppb.Now()
			c.ConnectionsDrained, c.ConnectionsReset, c.ConnectionsLeft = proto.Int64(100), proto.Int64(0), proto.Int64(0)
			f.Phase = fleetv1.Phase_PHASE_STEADY
		})
	})
}

// open sets the open connections of the colour that does not carry the traffic.
func (s *Service) open(f *fleetv1.Fleet, n int64) {
	old := f.GetBlue()
	if f.GetActive() == fleetv1.Colour_COLOUR_BLUE {
		old = f.GetGreen()
	}
	old.OpenConnections = &n
}

// WatchFleets implements FleetService. Traffic is measured ten times a second, over the last tenth.
func (s *Service) WatchFleets(ctx context.Context, r *fleetv1.WatchFleetsRequest, stream *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
	pops, err := s.scope(r.GetFleet(), r.GetScope())
	if err != nil {
		return err
	}
	const window = 100 * time.Millisecond
	ticker := time.NewTicker(window)
	defer ticker.Stop()
	sent := make(map[string]*fleetv1.Fleet)
	for {
		s.mu.Lock()
		changed := s.changed
		var news []*fleetv1.Fleet
		for _, p := range pops {
			f := proto.CloneOf(s.pops[p])
			if s.ErrorRatio != nil {
				if ratio := s.ErrorRatio(p); ratio != nil {
					at := time.Now().Truncate(window)
					f.Traffic = &fleetv1.Traffic{RequestsPerSecond: 1000, Requests: 100, ErrorRatio: *ratio, Window: durationpb.New(window), At: timestamppb.New(at)}
				}
			}
			if !proto.Equal(sent[p], f) {
				sent[p] = f
				news = append(news, f)
			}
		}
		s.mu.Unlock()
		for _, f := range news {
			if err := stream.Send(&fleetv1.WatchFleetsResponse{Fleet: f}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
