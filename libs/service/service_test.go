package service

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is a FleetService of functions. What is nil answers with nothing.
type fleet struct {
	fleetv1connect.UnimplementedFleetServiceHandler
	listPops func(context.Context) (*fleetv1.ListPopsResponse, error)
	cutOver  func(context.Context, *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error)
	watch    func(context.Context, *connect.ServerStream[fleetv1.WatchFleetsResponse]) error
}

func (f *fleet) ListPops(ctx context.Context, _ *fleetv1.ListPopsRequest) (*fleetv1.ListPopsResponse, error) {
	if f.listPops == nil {
		return &fleetv1.ListPopsResponse{}, nil
	}
	return f.listPops(ctx)
}

func (f *fleet) CutOver(ctx context.Context, req *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
	if f.cutOver == nil {
		return &fleetv1.CutOverResponse{}, nil
	}
	return f.cutOver(ctx, req)
}

func (f *fleet) WatchFleets(ctx context.Context, _ *fleetv1.WatchFleetsRequest, s *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
	return f.watch(ctx, s)
}

// running is a server that runs for a test.
type running struct {
	*Server
	t    *testing.T
	log  *buffer
	stop func() error // ends the context of Run and returns what Run returned
}

// buffer is a log that tests read while it is written, and wait for.
type buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed and replaced with each write
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
	return b.b.Write(p)
}

// waitFor waits until the log has n lines with the text.
func (b *buffer) waitFor(t *testing.T, text string, n int) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		b.mu.Lock()
		count, more := strings.Count(b.b.String(), text), b.more
		b.mu.Unlock()
		if count >= n {
			return
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("waited 20 s for %d times %q in the log, and it has %d", n, text, count)
		}
	}
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a server with the fake service. Whatever the test does, it is stopped at its end.
func start(t *testing.T, cfg Config, f *fleet, prepare ...func(*Server)) *running {
	t.Helper()
	log := &buffer{more: make(chan struct{})}
	cfg.Name, cfg.Version, cfg.LogLevel, cfg.Log = "fleet", "v1", "debug", log
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range prepare {
		p(s)
	}
	path, h := fleetv1connect.NewFleetServiceHandler(f, s.HandlerOptions()...)
	s.Handle(fleetv1connect.FleetServiceName, path, h)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	}
	r := &running{Server: s, t: t, log: log, stop: sync.OnceValue(func() error { cancel(); return <-ended })}
	t.Cleanup(func() {
		_ = r.stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", log)
		}
	})
	return r
}

func (r *running) url(scheme string) string { return scheme + "://" + r.Addr().String() }

// client returns a client of the fake service, for unary calls and streams alike.
func (r *running) client(cfg client.Config, opts ...connect.ClientOption) fleetv1connect.FleetServiceClient {
	r.t.Helper()
	if cfg.Address == "" {
		cfg.Address = r.url("http")
	}
	c, err := client.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return fleetv1connect.NewFleetServiceClient(c.Stream(), c.URL(), append(c.Options(), opts...)...)
}

func cutOver() *fleetv1.CutOverRequest {
	return &fleetv1.CutOverRequest{Pop: "fra1", Fleet: "edge", To: fleetv1.Colour_COLOUR_BLUE, Reason: "bad release", IdempotencyKey: "k1"}
}

func watchAll() *fleetv1.WatchFleetsRequest {
	return &fleetv1.WatchFleetsRequest{Scope: &fleetv1.Scope{All: true}}
}

// asProblem is err as the problem that libs/client promises.
func asProblem(t *testing.T, err error) *problem.Error {
	t.Helper()
	var p *problem.Error
	if !errors.As(err, &p) {
		t.Fatalf("got %v (%T), want a *problem.Error", err, err)
	}
	return p
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited 20 s for %s", what)
	}
}

func get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, body.String()
}

func TestProtocols(t *testing.T) {
	s := start(t, Config{}, &fleet{
		cutOver: func(ctx context.Context, _ *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
			if p := PrincipalFrom(ctx); p.Name != "local" || Require(ctx, RoleBreakglass) != nil || Require(ctx, RoleAutomation) == nil {
				return nil, errors.New("wrong principal " + p.Name)
			}
			return &fleetv1.CutOverResponse{Already: true}, nil
		},
		watch: func(_ context.Context, s *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
			return s.Send(&fleetv1.WatchFleetsResponse{Deleted: true})
		},
	})
	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "connect json": {connect.WithProtoJSON()}, "connect gzip": {connect.WithSendGzip()},
		"grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.client(client.Config{}, opts...)
			res, err := c.CutOver(t.Context(), cutOver())
			if err != nil || !res.GetAlready() {
				t.Fatalf("CutOver: %v, %v", res, err)
			}
			stream, err := c.WatchFleets(t.Context(), watchAll())
			if err != nil {
				t.Fatal(err)
			}
			for n := 0; stream.Receive(); n++ {
				if n > 0 || !stream.Msg().GetDeleted() {
					t.Errorf("message %d is %v", n, stream.Msg())
				}
			}
			if err := stream.Err(); err != nil {
				t.Error(err)
			}
			_ = stream.Close()

			_, err = c.CutOver(t.Context(), &fleetv1.CutOverRequest{Fleet: "edge", To: fleetv1.Colour_COLOUR_BLUE, Reason: "r", IdempotencyKey: "k"})
			if p := asProblem(t, err); p.Kind != problem.Invalid || p.Field != "pop" {
				t.Errorf("without a PoP: %+v", p)
			}
			stream, err = c.WatchFleets(t.Context(), &fleetv1.WatchFleetsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if stream.Receive() {
				t.Error("a stream without a scope sent something")
			}
			if p := asProblem(t, stream.Err()); p.Kind != problem.Invalid || p.Field != "scope" {
				t.Errorf("without a scope: %+v", p)
			}
			_ = stream.Close()
		})
	}
}
