package rpc_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/fake"
	"edgehold.internal/services/fleet/rpc"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tokens are the names of the roles, three times.
const tokens = `
tokens:
- {name: vera, token: viewer-viewer-viewer, roles: [viewer]}
- {name: olga, token: operator-operator-operator, roles: [operator]}
- {name: runbooks, token: automation-automation-automation, roles: [automation]}
- {name: bert, token: breakglass-breakglass-breakglass, roles: [operator, breakglass]}
- {name: elsa, token: expired-expired-expired, roles: [operator], expires: 2026-01-01T00:00:00Z}
`

// serving is the service over PoPs in memory, on a real listener.
type serving struct {
	t       *testing.T
	pops    map[string]*fake.Cluster
	centre  *fleet.Centre
	address string
	audit   string
}

func serve(t *testing.T, clusters ...*fake.Cluster) *serving {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens.yaml")
	if err := os.WriteFile(file, []byte(tokens), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &serving{t: t, pops: map[string]*fake.Cluster{}, audit: filepath.Join(dir, "audit")}
	server, err := service.New(service.Config{Name: "fleet-serve", TokensFile: file, AuditLog: s.audit, Log: io.Discard, MaxRequestBytes: 1 << 12})
	if err != nil {
		t.Fatal(err)
	}
	registry := &fleet.Registry{}
	for i, c := range clusters {
		name := fmt.Sprintf("p%d", i)
		s.pops[name] = c
		registry.Pops = append(registry.Pops, fleet.Pop{Name: name, Region: "europe", Latitude: 50, Longitude: -8, Context: "c1", Namespace: "pop-" + name})
	}
	s.centre = fleet.NewCentre(registry, func(p fleet.Pop) fleet.Cluster { return s.pops[p.Name] }, fleet.Limits{Timeout: 200 * time.Millisecond})
	rpc.New(s.centre, time.Now).Mount(server)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	select {
	case <-server.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	s.address = "http://" + server.Addr().String()
	return s
}

func (s *serving) as(role string) fleetv1connect.FleetServiceClient {
	s.t.Helper()
	return s.with(strings.Join([]string{role, role, role}, "-"), false)
}

func (s *serving) with(token string, stream bool) fleetv1connect.FleetServiceClient {
	s.t.Helper()
	c, err := client.New(client.Config{Address: s.address, Token: token})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	if stream {
		return fleetv1connect.NewFleetServiceClient(c.Stream(), c.URL(), c.Options()...)
	}
	return fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), c.Options()...)
}

func all() *fleetv1.Scope                { return &fleetv1.Scope{All: true} }
func only(pops ...string) *fleetv1.Scope { return &fleetv1.Scope{Pops: pops} }
func green(name string) *fake.Cluster    { return fake.New(fake.Steady(name, fleet.Green)) }
func ptr[T any](v T) *T                  { return &v }
func blue(key string) *fleetv1.CutOverRequest {
	return &fleetv1.CutOverRequest{Pop: "p0", Fleet: "edge", To: fleetv1.Colour_COLOUR_BLUE, Reason: "v2 answers 500", IdempotencyKey: key}
}

func expect(t *testing.T, err error, kind problem.Kind, says string) {
	t.Helper()
	if err == nil || problem.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v: %v\nwant %v: …%s…", problem.KindOf(err), err, kind, says)
	}
}

func TestReads(t *testing.T) {
	away := green("edge")
	away.Before = func(context.Context, string) error { return problem.Unavailablef("connection refused") }
	s := serve(t, fake.New(fake.Steady("api", fleet.Blue), fake.Steady("edge", fleet.Green)), green("edge"), away)
	c := s.as("viewer")

	pops, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	if err != nil || len(pops.GetPops()) != 3 {
		t.Fatal(pops, err)
	}
	if d := cmp.Diff(&fleetv1.Pop{Name: "p1", Region: "europe", Latitude: 50, Longitude: -8, Context: "c1", Namespace: "pop-p1"}, pops.GetPops()[1], protocmp.Transform()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&fleetv1.Problem{Code: "unavailable", Message: "connection refused"}, pops.GetPops()[2].GetProblem(), protocmp.Transform()); d != "" {
		t.Error(d)
	}

	fleets, err := c.ListFleets(t.Context(), &fleetv1.ListFleetsRequest{Scope: all()})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range fleets.GetFleets() {
		got = append(got, fmt.Sprintf("%s/%s %s %s", f.GetPop(), f.GetName(), f.GetActive(), f.GetProblem().GetCode()))
	}
	want := []string{"p0/api COLOUR_BLUE ", "p0/edge COLOUR_GREEN ", "p1/edge COLOUR_GREEN ", "p2/ COLOUR_UNSPECIFIED unavailable"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	plan, err := c.PlanCutover(t.Context(), &fleetv1.PlanCutoverRequest{Fleet: "edge", Scope: all()})
	if err != nil || plan.GetTo() != fleetv1.Colour_COLOUR_BLUE || len(plan.GetPops()) != 3 || plan.GetPops()[0].GetVersion() != "v1" || plan.GetPops()[2].GetProblem() == nil {
		t.Error(plan, err)
	}
}

func TestEveryFieldIsTranslated(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	f := fake.Steady("edge", fleet.Green)
	f.Phase, f.Generation = fleet.Draining, 9
	f.Green.OpenConnections = ptr(int64(7))
	f.LastCutover = &fleet.Cutover{ID: "op", From: fleet.Blue, To: fleet.Green, Version: "v2", Principal: "ada", Reason: "r", Forced: true, Rollback: true, Outcome: fleet.Running, Message: "m",
		DeclaredAt: at, SwitchedAt: at.Add(1), SettledAt: at.Add(2), LastNewConnectionAt: at.Add(3), DrainedAt: at.Add(4),
		ConnectionsDrained: ptr(int64(1)), ConnectionsReset: ptr(int64(2)), ConnectionsLeft: ptr(int64(3)), Ramp: time.Second}
	f.History = []fleet.Cutover{{ID: "before", From: fleet.Green, To: fleet.Blue, Outcome: fleet.Reverted}}
	f.Conditions = []fleet.Condition{{Type: "Parity", Status: "True", Reason: "SameSize", Message: "m", Since: at}}
	f.Traffic = &fleet.Traffic{Requests: 10, Errors: 5, RequestsPerSecond: 2, ErrorRatio: 0.5, Window: 5 * time.Second, At: at}
	now := time.Now()
	f.Freezes = []fleet.Freeze{{From: now.Add(-2 * time.Hour), Until: now.Add(-time.Hour), Reason: "over"}, {From: now.Add(-time.Hour), Until: now.Add(time.Hour).Truncate(time.Second), Reason: "in force", Principal: "ada"},
		{From: now.Add(-time.Hour), Until: now.Add(time.Minute), Reason: "shorter"}, {From: now.Add(time.Hour), Until: now.Add(9 * time.Hour), Reason: "later"}}
	s := serve(t, fake.New(f))
	list, err := s.as("viewer").ListFleets(t.Context(), &fleetv1.ListFleetsRequest{Fleet: "edge", Scope: all()})
	if err != nil {
		t.Fatal(err)
	}
	stamp := func(n time.Duration) *timestamppb.Timestamp { return timestamppb.New(at.Add(n)) }
	last := &fleetv1.Cutover{Id: "op", From: fleetv1.Colour_COLOUR_BLUE, To: fleetv1.Colour_COLOUR_GREEN, Version: "v2", Principal: "ada", Reason: "r", Forced: true, Rollback: true,
		Outcome: fleetv1.Outcome_OUTCOME_RUNNING, Message: "m", DeclaredAt: stamp(0), SwitchedAt: stamp(1), SettledAt: stamp(2), LastNewConnectionAt: stamp(3), DrainedAt: stamp(4),
		ConnectionsDrained: ptr(int64(1)), ConnectionsReset: ptr(int64(2)), ConnectionsLeft: ptr(int64(3)), Ramp: durationpb.New(time.Second)}
	want := &fleetv1.Fleet{Pop: "p0", Name: "edge", Active: fleetv1.Colour_COLOUR_GREEN, Declared: fleetv1.Colour_COLOUR_GREEN, Phase: fleetv1.Phase_PHASE_DRAINING, Replicas: 4,
		Blue:  &fleetv1.ColourState{Deployment: "edge-blue", Version: "v1", Desired: 4, Ready: 4},
		Green: &fleetv1.ColourState{Deployment: "edge-green", Version: "v2", Desired: 4, Ready: 4, OpenConnections: ptr(int64(7))}, LastCutover: last,
		Conditions: []*fleetv1.Condition{{Type: "Parity", Status: "True", Reason: "SameSize", Message: "m", LastTransitionAt: stamp(0)}},
		Traffic:    &fleetv1.Traffic{RequestsPerSecond: 2, ErrorRatio: 0.5, Requests: 10, Window: durationpb.New(5 * time.Second), At: stamp(0)},
		Freeze:     &fleetv1.FreezeWindow{From: timestamppb.New(f.Freezes[1].From), Until: timestamppb.New(f.Freezes[1].Until), Reason: "in force", Principal: "ada"}, Generation: 9}
	if d := cmp.Diff(want, list.GetFleets()[0], protocmp.Transform()); d != "" {
		t.Error(d)
	}
	// What the proto has and this test does not set would be forgotten in silence.
	for _, m := range []proto.Message{list.GetFleets()[0], list.GetFleets()[0].GetLastCutover(), list.GetFleets()[0].GetTraffic(), list.GetFleets()[0].GetFreeze()} {
		for i := range m.ProtoReflect().Descriptor().Fields().Len() {
			if d := m.ProtoReflect().Descriptor().Fields().Get(i); !m.ProtoReflect().Has(d) && d.Name() != "problem" {
				t.Errorf("%s is not set", d.FullName())
			}
		}
	}
	history, err := s.as("viewer").ListCutovers(t.Context(), &fleetv1.ListCutoversRequest{Fleet: "edge", Scope: all()})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]*fleetv1.PopCutovers{{Pop: "p0", Cutovers: []*fleetv1.Cutover{last,
		{Id: "before", From: fleetv1.Colour_COLOUR_GREEN, To: fleetv1.Colour_COLOUR_BLUE, Outcome: fleetv1.Outcome_OUTCOME_REVERTED}}}}, history.GetPops(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestCutOver(t *testing.T) {
	s := serve(t, green("edge"), green("edge"))
	r, err := s.as("operator").CutOver(t.Context(), blue("k1"))
	if err != nil {
		t.Fatal(err)
	}
	if c := r.GetCutover(); r.GetAlready() || c.GetId() != "k1" || c.GetPrincipal() != "olga" || c.GetSwitchedAt() == nil || r.GetFleet().GetActive() != fleetv1.Colour_COLOUR_BLUE {
		t.Error(r)
	}
	again, err := s.as("operator").CutOver(t.Context(), blue("k1"))
	if d := cmp.Diff(r.GetCutover(), again.GetCutover(), protocmp.Transform()); err != nil || d != "" {
		t.Error(err, d)
	}
	r, err = s.as("operator").CutOver(t.Context(), blue("k2"))
	if err != nil || !r.GetAlready() || r.GetCutover() != nil {
		t.Error(r, err)
	}

	// Automation acts for a person, whose name the record carries.
	q := blue("k3")
	q.Pop, q.OnBehalfOf, q.Rollback = "p1", "ada", true
	r, err = s.as("automation").CutOver(t.Context(), q)
	if err != nil || r.GetCutover().GetPrincipal() != "ada" || !r.GetCutover().GetRollback() {
		t.Error(r, err)
	}
	_, err = s.as("viewer").PlanCutover(t.Context(), &fleetv1.PlanCutoverRequest{Fleet: "edge", Scope: only("p1")})
	expect(t, err, problem.FailedPrecondition, "to: there is nothing to roll back: every PoP in scope serves blue (v1); ada rolled back at ")
	audit, err := os.ReadFile(s.audit)
	if err != nil || strings.Count(string(audit), "CutOver") != 4 || !strings.Contains(string(audit), `"principal":"runbooks"`) {
		t.Errorf("audit %s, %v", audit, err)
	}
}

// Every input that is wrong gets its code and a sentence that says what to do, and changes nothing.
func TestBadInput(t *testing.T) {
	frozen := green("edge")
	frozen.Blockers = []fleet.Blocker{{Reason: fleet.Frozen, Message: "frozen until noon by ada: the election; wait, unfreeze or force", Overridable: true}}
	broken := green("edge")
	broken.Blockers = []fleet.Blocker{{Reason: fleet.Misconfigured, Message: "spec.service: there is no Service edge in this namespace; create it or correct the name"}}
	slow := green("edge")
	slow.Before = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	s := serve(t, green("edge"), frozen, broken, slow)
	cut := func(alter func(*fleetv1.CutOverRequest)) func(fleetv1connect.FleetServiceClient) error {
		return func(c fleetv1connect.FleetServiceClient) error {
			r := blue("k1")
			alter(r)
			_, err := c.CutOver(t.Context(), r)
			return err
		}
	}
	plan := func(r *fleetv1.PlanCutoverRequest) func(fleetv1connect.FleetServiceClient) error {
		return func(c fleetv1connect.FleetServiceClient) error {
			_, err := c.PlanCutover(t.Context(), r)
			return err
		}
	}
	freeze := func(alter func(*fleetv1.FreezeRequest)) func(fleetv1connect.FleetServiceClient) error {
		return func(c fleetv1connect.FleetServiceClient) error {
			r := &fleetv1.FreezeRequest{Fleet: "edge", Scope: all(), Until: timestamppb.New(time.Now().Add(time.Hour)), Reason: "r", IdempotencyKey: "f1"}
			alter(r)
			_, err := c.Freeze(t.Context(), r)
			return err
		}
	}
	for _, tc := range []struct {
		name, role string
		call       func(fleetv1connect.FleetServiceClient) error
		kind       problem.Kind
		says       string
	}{
		{"an unknown PoP", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Pop = "lhr1" }), problem.NotFound, `pop: the registry has no PoP "lhr1"; it has p0, p1, p2, p3`},
		{"an unknown fleet", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Fleet = "api" }), problem.NotFound, `no fleet "api"`},
		{"no colour", "operator", cut(func(r *fleetv1.CutOverRequest) { r.To = 0 }), problem.Invalid, "to: "},
		{"an unknown colour", "operator", cut(func(r *fleetv1.CutOverRequest) { r.To = 7 }), problem.Invalid, "to: "},
		{"an unknown version", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Version = "v9" }), problem.NotFound, `version: no Deployment of fleet edge in PoP p0 has version "v9" in either colour; there is v1, v2`},
		{"the version of the other colour", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Version = "v2" }), problem.FailedPrecondition, "nothing was changed"},
		{"no reason", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Reason = "" }), problem.Invalid, "reason: "},
		{"a blank reason", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Reason = "  " }), problem.Invalid, "reason: "},
		{"no key", "operator", cut(func(r *fleetv1.CutOverRequest) { r.IdempotencyKey = "" }), problem.Invalid, "idempotency_key: "},
		{"a long deadline", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Deadline = durationpb.New(2 * time.Hour) }), problem.Invalid, "deadline: "},
		{"a request over the limit", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Reason = strings.Repeat("x", 1<<13) }), problem.ResourceExhausted, "4096"},
		{"a frozen PoP", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Pop = "p1" }), problem.FailedPrecondition, "frozen until noon by ada: the election; wait, unfreeze or force; the role breakglass may force it"},
		{"a Service that is missing", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Pop = "p2" }), problem.FailedPrecondition, "there is no Service edge"},
		{"a PoP without an API", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Pop = "p3" }), problem.Unavailable, "PoP p3 (context c1) did not answer"},
		{"force by an operator", "operator", cut(func(r *fleetv1.CutOverRequest) { r.Force = true }), problem.PermissionDenied, "needs the role breakglass"},
		{"in another's name", "operator", cut(func(r *fleetv1.CutOverRequest) { r.OnBehalfOf = "ada" }), problem.PermissionDenied, "on_behalf_of: "},
		{"a viewer", "viewer", cut(func(*fleetv1.CutOverRequest) {}), problem.PermissionDenied, "needs the role"},
		{"an expired token", "expired", cut(func(*fleetv1.CutOverRequest) {}), problem.Unauthenticated, "expired"},
		{"a wrong token", "wrong", cut(func(*fleetv1.CutOverRequest) {}), problem.Unauthenticated, ""},
		{"an empty scope", "viewer", plan(&fleetv1.PlanCutoverRequest{Fleet: "edge", Scope: &fleetv1.Scope{}}), problem.Invalid, "an empty scope selects nothing"},
		{"no scope", "viewer", plan(&fleetv1.PlanCutoverRequest{Fleet: "edge"}), problem.Invalid, "scope: "},
		{"both scopes", "viewer", plan(&fleetv1.PlanCutoverRequest{Fleet: "edge", Scope: &fleetv1.Scope{All: true, Pops: []string{"p0"}}}), problem.Invalid, "not both"},
		{"an unknown PoP in the scope", "viewer", plan(&fleetv1.PlanCutoverRequest{Fleet: "edge", Scope: only("p0", "lhr1")}), problem.NotFound, `scope.pops[1]: the registry has no PoP "lhr1"`},
		{"a fleet that no PoP has", "viewer", plan(&fleetv1.PlanCutoverRequest{Fleet: "api", Scope: only("p0", "p1")}), problem.NotFound, `fleet: no PoP in scope has a fleet "api"`},
		{"a version that no PoP has", "viewer", plan(&fleetv1.PlanCutoverRequest{Fleet: "edge", Scope: only("p0", "p1"), Version: "v9"}), problem.NotFound, `version: no PoP in scope has version "v9"`},
		{"a freeze that is over", "operator", freeze(func(r *fleetv1.FreezeRequest) { r.Until = timestamppb.New(time.Now().Add(-time.Hour)) }), problem.Invalid, "until: "},
		{"a freeze for ever", "operator", freeze(func(r *fleetv1.FreezeRequest) { r.Until = timestamppb.New(time.Now().Add(1e4 * time.Hour)) }), problem.Invalid, "more than 90 days away"},
		{"a freeze by a viewer", "viewer", freeze(func(*fleetv1.FreezeRequest) {}), problem.PermissionDenied, ""},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, tc.call(s.as(tc.role)), tc.kind, tc.says) })
	}
	for name, p := range s.pops {
		if p.Writes() != 0 {
			t.Errorf("%s was changed", name)
		}
	}

	if err := cut(func(r *fleetv1.CutOverRequest) { r.Pop, r.Force = "p1", true })(s.as("breakglass")); err != nil {
		t.Errorf("breakglass: %v", err)
	}
	if err := cut(func(*fleetv1.CutOverRequest) {})(s.as("operator")); err != nil {
		t.Fatal(err)
	}
	expect(t, cut(func(r *fleetv1.CutOverRequest) { r.Reason = "another" })(s.as("operator")), problem.AlreadyExists, `idempotency_key: "k1" was used before`)
}

func TestFreeze(t *testing.T) {
	away := green("edge")
	away.Before = func(context.Context, string) error { return problem.Unavailablef("connection refused") }
	s := serve(t, green("edge"), away)
	until := timestamppb.New(time.Now().Add(time.Hour))
	r, err := s.as("operator").Freeze(t.Context(), &fleetv1.FreezeRequest{Fleet: "edge", Scope: all(), Until: until, Reason: "the election", IdempotencyKey: "f1"})
	if err != nil || len(r.GetFleets()) != 2 {
		t.Fatal(r, err)
	}
	if z := r.GetFleets()[0].GetFreeze(); z.GetPrincipal() != "olga" || z.GetReason() != "the election" || !proto.Equal(z.GetUntil(), until) {
		t.Error(z)
	}
	if p := r.GetFleets()[1]; p.GetPop() != "p1" || p.GetName() != "edge" || p.GetProblem().GetCode() != "unavailable" {
		t.Error(p)
	}
	u, err := s.as("operator").Unfreeze(t.Context(), &fleetv1.UnfreezeRequest{Fleet: "edge", Scope: only("p0"), Reason: "it is over", IdempotencyKey: "u1"})
	if err != nil || u.GetFleets()[0].GetFreeze() != nil {
		t.Error(u, err)
	}
}

func TestWatchFleets(t *testing.T) {
	s := serve(t, green("edge"), green("edge"))
	s.pops["p1"].Fail(problem.Unavailablef("connection refused"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := s.with("viewer-viewer-viewer", true).WatchFleets(ctx, &fleetv1.WatchFleetsRequest{Fleet: "edge", Scope: all()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	next := func() *fleetv1.WatchFleetsResponse {
		t.Helper()
		if !stream.Receive() {
			t.Fatal(stream.Err())
		}
		return stream.Msg()
	}
	first := map[string]*fleetv1.Fleet{}
	for range 2 {
		f := next().GetFleet()
		first[f.GetPop()] = f
	}
	if first["p0"].GetActive() != fleetv1.Colour_COLOUR_GREEN || first["p1"].GetProblem().GetCode() != "unavailable" || first["p1"].GetName() != "edge" {
		t.Error(first)
	}
	s.pops["p1"].Fail(nil)
	if m := next(); m.GetFleet().GetPop() != "p1" || m.GetFleet().GetProblem() != nil || m.GetFleet().GetActive() != fleetv1.Colour_COLOUR_GREEN {
		t.Error(m)
	}
	s.pops["p0"].Update("edge", nil)
	if m := next(); !m.GetDeleted() || m.GetFleet().GetPop() != "p0" || m.GetFleet().GetName() != "edge" {
		t.Error(m)
	}
	cancel()
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeCanceled {
		t.Error(stream.Err())
	}

	stream, err = s.with("viewer-viewer-viewer", true).WatchFleets(t.Context(), &fleetv1.WatchFleetsRequest{Scope: &fleetv1.Scope{}})
	if err == nil {
		stream.Receive()
		err = stream.Err()
		_ = stream.Close()
	}
	expect(t, err, problem.Invalid, "an empty scope selects nothing")
}
