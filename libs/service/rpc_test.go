package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
)

func TestErrors(t *testing.T) {
	var answer error
	s := start(t, Config{}, &fleet{
		cutOver: func(context.Context, *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) { return nil, answer },
		watch:   func(context.Context, *connect.ServerStream[fleetv1.WatchFleetsResponse]) error { return answer },
	})
	c := s.client(client.Config{})
	for _, tt := range []struct {
		err      error
		kind     problem.Kind
		sentence string
	}{
		{problem.NotFoundf("pop", "%q is not in the registry", "fra9"), problem.NotFound, `"fra9" is not in the registry`},
		{fmt.Errorf("wrapped: %w", problem.Preconditionf("", "frozen").With("until", "noon")), problem.FailedPrecondition, "frozen"},
		{problem.Unavailablef("cluster-1 is away"), problem.Unavailable, "cluster-1 is away"},
		{context.DeadlineExceeded, problem.DeadlineExceeded, "before its deadline"},
		{fmt.Errorf("listing: %w", context.Canceled), problem.Canceled, "cancelled"},
		{errors.New("dial 10.1.2.3: the password is hunter2"), problem.Internal, "internal error; id req-1"},
		{problem.New(problem.Internal, "", "the password is %w", errors.New("hunter2")), problem.Internal, "internal error; id req-1"},
		{connect.NewError(connect.CodeUnimplemented, errors.New("not here")), problem.Unimplemented, "not here"},
		{connect.NewError(connect.CodeDataLoss, errors.New("hunter2")), problem.Internal, "internal error; id req-1"},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			answer = tt.err
			ctx := call.With(t.Context(), call.ID{Request: "req-1", Operation: "op-1"})
			var want *problem.Error
			_ = errors.As(tt.err, &want)
			verify := func(err error) {
				t.Helper()
				p := asProblem(t, err)
				if p.Kind != tt.kind || !strings.Contains(p.Sentence, tt.sentence) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("got %v: %s", p.Kind, p.Sentence)
				}
				if want != nil && (p.Field != want.Field || len(p.Meta) != len(want.Meta)) {
					t.Errorf("got field %q and meta %v", p.Field, p.Meta)
				}
			}
			_, err := c.CutOver(ctx, cutOver())
			verify(err)
			stream, err := c.WatchFleets(ctx, watchAll())
			if err != nil {
				t.Fatal(err)
			}
			for stream.Receive() {
			}
			verify(stream.Err())
			_ = stream.Close()
		})
	}
	// The cause of an internal error is in the log, with the ids.
	for _, want := range []string{"hunter2", `"request_id":"req-1"`, `"operation":"op-1"`} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log has no %s", want)
		}
	}
}

func TestViolations(t *testing.T) {
	s := start(t, Config{}, &fleet{})
	_, err := s.client(client.Config{}).CutOver(t.Context(), &fleetv1.CutOverRequest{Fleet: strings.Repeat("x", 64), To: 7, Reason: "r", IdempotencyKey: "k"})
	p := asProblem(t, err)
	want := `must be at least 1 characters, and it is ""; fleet: must be at most 63 characters, and it is "` + strings.Repeat("x", 64) + `"; to: value must be one of the defined enum values, and it is 7`
	if p.Field != "pop" || p.Sentence != want {
		t.Errorf("got %s: %s\nwant %s", p.Field, p.Sentence, want)
	}
	var sent *connect.Error
	if !errors.As(err, &sent) || sent.Code() != connect.CodeInvalidArgument {
		t.Fatalf("got %v", err)
	}
	value, err := sent.Details()[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range value.(*errdetails.BadRequest).GetFieldViolations() {
		got = append(got, v.GetField()+" "+v.GetReason())
	}
	if fmt.Sprint(got) != "[pop STRING_MIN_LEN fleet STRING_MAX_LEN to ENUM_DEFINED_ONLY]" {
		t.Errorf("violations %v", got)
	}

	stream, err := s.client(client.Config{}).WatchFleets(t.Context(), &fleetv1.WatchFleetsRequest{Scope: &fleetv1.Scope{}})
	if err != nil {
		t.Fatal(err)
	}
	stream.Receive()
	if p := asProblem(t, stream.Err()); p.Field != "scope" || !strings.Contains(p.Sentence, "an empty scope selects nothing") {
		t.Errorf("got %s: %s", p.Field, p.Sentence)
	}
	_ = stream.Close()
}

func TestTooLarge(t *testing.T) {
	s := start(t, Config{MaxRequestBytes: 2048}, &fleet{watch: func(context.Context, *connect.ServerStream[fleetv1.WatchFleetsResponse]) error { return nil }})
	big := &fleetv1.Scope{}
	for i := range 500 {
		big.Pops = append(big.Pops, fmt.Sprintf("pop-%d", i))
	}
	small := &fleetv1.Scope{Pops: big.GetPops()[:150]}
	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
		"connect gzip": {connect.WithSendGzip()}, "grpc gzip": {connect.WithSendGzip(), connect.WithGRPC()},
	} {
		t.Run(name, func(t *testing.T) {
			sentence := "bytes and 2048 are allowed (--max-request-bytes)"
			if strings.HasSuffix(name, "gzip") { // 500 names are small until they are decompressed
				sentence = "is larger than configured max 2048"
			}
			c := s.client(client.Config{}, opts...)
			_, err := c.ListFleets(t.Context(), &fleetv1.ListFleetsRequest{Scope: big})
			check(t, "unary", err, problem.ResourceExhausted, sentence)
			stream, err := c.WatchFleets(t.Context(), &fleetv1.WatchFleetsRequest{Scope: big})
			if err != nil {
				t.Fatal(err)
			}
			stream.Receive()
			check(t, "stream", stream.Err(), problem.ResourceExhausted, sentence)
			_ = stream.Close()
			if _, err = c.ListFleets(t.Context(), &fleetv1.ListFleetsRequest{Scope: small}); connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Errorf("a request below the limit: %v", err)
			}
		})
	}
	if _, body := get(t, s.url("http")+"/metrics"); !strings.Contains(body, `edgehold_rpc_requests_total{code="resource_exhausted",procedure="/edgehold.fleet.v1.FleetService/ListFleets"}`) {
		t.Error("no metric counts what was refused")
	}
	// Headers have a limit too.
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("http")+"/healthz", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 2*maxHeaderBytes))
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("long headers: %d", res.StatusCode)
	}
}

func TestTooMany(t *testing.T) {
	entered, release := make(chan struct{}, 8), make(chan struct{})
	s := start(t, Config{MaxInFlight: 1, MaxStreams: 1}, &fleet{
		listPops: func(context.Context) (*fleetv1.ListPopsResponse, error) {
			entered <- struct{}{}
			<-release
			return &fleetv1.ListPopsResponse{}, nil
		},
		watch: func(_ context.Context, s *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
			if err := s.Send(&fleetv1.WatchFleetsResponse{}); err != nil {
				return err
			}
			<-release
			return nil
		},
	})
	c := s.client(client.Config{})
	first := make(chan error, 1)
	go func() {
		_, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
		first <- err
	}()
	wait(t, entered, "the first call")
	_, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	check(t, "second call", err, problem.ResourceExhausted, "1 calls under way, its limit (--max-in-flight)")
	if p := asProblem(t, err); p.Meta[problem.RetryAfter] != "1s" {
		t.Errorf("meta %v", p.Meta)
	}
	stream, err := c.WatchFleets(t.Context(), watchAll())
	if err != nil || !stream.Receive() {
		t.Fatalf("the first stream: %v, %v", err, stream.Err())
	}
	second, err := c.WatchFleets(t.Context(), watchAll())
	if err != nil {
		t.Fatal(err)
	}
	second.Receive()
	check(t, "second stream", second.Err(), problem.ResourceExhausted, "1 streams under way, its limit (--max-streams)")
	_ = second.Close()
	// A busy service is not an ill one.
	if code, _ := get(t, s.url("http")+"/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if _, err := grpchealth.NewClient(http.DefaultClient, s.url("http")).Check(t.Context(), &grpchealth.CheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	for stream.Receive() {
	}
	_ = stream.Close()
	if _, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{}); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

func TestRate(t *testing.T) {
	now := time.Unix(1e9, 0)
	var offset atomic.Int64
	s := start(t, Config{TokensFile: tokensFile(t), RatePerPrincipal: 2}, &fleet{}, func(s *Server) {
		s.now = func() time.Time { return now.Add(time.Duration(offset.Load())) }
	})
	vera, olga := s.client(client.Config{Token: "viewer-viewer-viewer"}), s.client(client.Config{Token: "operator-operator-operator"})
	for range 4 { // the burst
		if _, err := vera.ListPops(t.Context(), &fleetv1.ListPopsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := vera.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	check(t, "the fifth call", err, problem.ResourceExhausted, `"vera" calls more than 2 times per second (--rate-per-principal); wait 500ms`)
	if _, err := olga.ListPops(t.Context(), &fleetv1.ListPopsRequest{}); err != nil {
		t.Errorf("another principal: %v", err)
	}
	offset.Store(int64(500 * time.Millisecond))
	if _, err := vera.ListPops(t.Context(), &fleetv1.ListPopsRequest{}); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	for i := range 2 * maxRated {
		_ = s.rates.allow(fmt.Sprint(i))
	}
	if n := len(s.rates.per); n != maxRated {
		t.Errorf("%d principals are remembered", n)
	}
}

func TestPanic(t *testing.T) {
	s := start(t, Config{}, &fleet{
		cutOver: func(context.Context, *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) { panic("hunter2") },
		watch:   func(context.Context, *connect.ServerStream[fleetv1.WatchFleetsResponse]) error { panic("hunter2") },
	})
	c := s.client(client.Config{})
	_, err := c.CutOver(t.Context(), cutOver())
	check(t, "unary", err, problem.Internal, "internal error; id ")
	stream, err := c.WatchFleets(t.Context(), watchAll())
	if err != nil {
		t.Fatal(err)
	}
	stream.Receive()
	check(t, "stream", stream.Err(), problem.Internal, "internal error; id ")
	_ = stream.Close()
	if log := s.log.String(); strings.Count(log, `"msg":"panic"`) != 2 || !strings.Contains(log, "rpc_test.go") {
		t.Error("the log has not both panics with a stack")
	}
	_, body := get(t, s.url("http")+"/metrics")
	for _, want := range []string{
		`edgehold_rpc_panics_total{procedure="/edgehold.fleet.v1.FleetService/CutOver"} 1`,
		`edgehold_rpc_panics_total{procedure="/edgehold.fleet.v1.FleetService/WatchFleets"} 1`,
		`edgehold_rpc_requests_total{code="internal",procedure="/edgehold.fleet.v1.FleetService/CutOver"} 1`,
		`edgehold_rpc_requests_total{code="ok",procedure="/edgehold.fleet.v1.FleetService/ListCutovers"} 0`,
		`edgehold_rpc_in_flight{procedure="/edgehold.fleet.v1.FleetService/CutOver"} 0`,
		`edgehold_rpc_streams_open{procedure="/edgehold.fleet.v1.FleetService/WatchFleets"} 0`,
		`edgehold_rpc_duration_seconds_count{procedure="/edgehold.fleet.v1.FleetService/CutOver"} 1`,
		`edgehold_audit_lines_total{result="written"} 1`,
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

func TestNotMounted(t *testing.T) {
	s := start(t, Config{}, &fleet{})
	if code, _ := get(t, s.url("http")+"/"); code != 404 {
		t.Errorf("/: %d", code)
	}
	res, err := http.Post(s.url("http")+"/edgehold.fleet.v1.FleetService/Explode", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer func() { _ = res.Body.Close() }()
	var body bytes.Buffer
	_, _ = body.ReadFrom(res.Body)
	if res.StatusCode != http.StatusNotImplemented || !strings.Contains(body.String(), "has no procedure") {
		t.Errorf("unknown procedure: %d %s", res.StatusCode, &body)
	}
	defer func() {
		if recover() == nil {
			t.Error("a service without a proto was mounted")
		}
	}()
	s.Handle("edgehold.nothing.v1.NothingService", "/x/", http.NotFoundHandler())
}

func TestReflection(t *testing.T) {
	s := start(t, Config{TokensFile: tokensFile(t)}, &fleet{})
	list := func(token string, rewrite func(string) string) ([]string, error) {
		c, err := client.New(client.Config{Address: s.url("http"), Token: token})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		stream := grpcreflect.NewClient(rewriting{c.Stream(), rewrite}, c.URL(), connect.WithGRPC()).NewStream(t.Context())
		defer func() { _, _ = stream.Close() }()
		names, err := stream.ListServices()
		if err != nil {
			return nil, err
		}
		files, err := stream.FileContainingSymbol("edgehold.fleet.v1.FleetService")
		if err == nil && len(files) == 0 {
			err = errors.New("no files")
		}
		return []string{fmt.Sprint(names)}, err
	}
	for version, rewrite := range map[string]func(string) string{
		"v1":      func(path string) string { return path },
		"v1alpha": func(path string) string { return strings.Replace(path, ".v1.", ".v1alpha.", 1) },
	} {
		names, err := list("viewer-viewer-viewer", rewrite)
		if err != nil || fmt.Sprint(names) != "[[edgehold.fleet.v1.FleetService]]" {
			t.Errorf("%s: %v, %v", version, names, err)
		}
		if _, err := list("", rewrite); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%s without a token: %v", version, err)
		}
	}
}

type rewriting struct {
	connect.HTTPClient
	path func(string) string
}

func (r rewriting) Do(req *http.Request) (*http.Response, error) {
	req.URL.Path = r.path(req.URL.Path)
	return r.HTTPClient.Do(req)
}

func TestHealth(t *testing.T) {
	const service = "edgehold.fleet.v1.FleetService"
	s := start(t, Config{}, &fleet{})
	c, err := client.New(client.Config{Address: s.url("http")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	health := grpchealth.NewClient(c.Stream(), c.URL(), connect.WithGRPC())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := health.Watch(ctx, &grpchealth.CheckRequest{Service: service})
	next := func() grpchealth.WatchEvent {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(20 * time.Second):
			t.Fatal("waited 20 s for a change of health")
			panic("unreachable")
		}
	}
	expect := func(want grpchealth.Status) {
		t.Helper()
		if e := next(); e.Err != nil || e.Response.Status != want {
			t.Fatalf("got %+v, want %v", e, want)
		}
	}
	expect(grpchealth.StatusServing)
	s.SetServing(service, false)
	expect(grpchealth.StatusNotServing)
	if res, err := health.Check(ctx, &grpchealth.CheckRequest{}); err != nil || res.Status != grpchealth.StatusServing {
		t.Errorf("the process is %v, %v", res, err)
	}
	s.SetServing(service, true)
	expect(grpchealth.StatusServing)
	if _, err := health.Check(ctx, &grpchealth.CheckRequest{Service: "nobody"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("an unknown service: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	// The last thing a watcher hears is one of these: which one depends on what came first.
	if e := next(); e.Err == nil {
		if e.Response.Status != grpchealth.StatusNotServing {
			t.Errorf("at the stop: %+v", e)
		}
		if e := next(); connect.CodeOf(e.Err) != connect.CodeUnavailable {
			t.Errorf("after the stop: %+v", e)
		}
	} else if connect.CodeOf(e.Err) != connect.CodeUnavailable {
		t.Errorf("after the stop: %+v", e)
	}
	s.SetServing(service, true) // too late
	if s.serving {
		t.Error("serving after the stop")
	}
}

func TestStop(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	streaming := func(ctx context.Context, s *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
		if err := s.Send(&fleetv1.WatchFleetsResponse{}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil // as a handler does that thinks its caller went away
	}
	for name, opt := range map[string]connect.ClientOption{"connect": connect.WithClientOptions(), "grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb()} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Config{}, &fleet{watch: streaming, cutOver: func(ctx context.Context, _ *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
				entered <- struct{}{}
				<-release
				return &fleetv1.CutOverResponse{Already: true}, ctx.Err()
			}})
			c := s.client(client.Config{}, opt)
			stream, err := c.WatchFleets(t.Context(), watchAll())
			if err != nil || !stream.Receive() {
				t.Fatalf("the stream: %v, %v", err, stream.Err())
			}
			unary := make(chan error, 1)
			go func() {
				res, err := c.CutOver(t.Context(), cutOver())
				if err == nil && !res.GetAlready() {
					err = errors.New("an empty answer")
				}
				unary <- err
			}()
			wait(t, entered, "the call")
			stopped := make(chan error, 1)
			go func() { stopped <- s.stop() }()
			if stream.Receive() {
				t.Error("the stream goes on")
			}
			check(t, "stream", stream.Err(), problem.Unavailable, "the server is stopping; reconnect")
			_ = stream.Close()
			// The stream has ended and the call has not: the stop is under way and waits for it.
			fresh := s.client(client.Config{}, opt)
			_, err = fresh.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
			check(t, "a new connection", err, problem.Unavailable, "cannot be reached")
			release <- struct{}{}
			if err := <-unary; err != nil {
				t.Errorf("the call under way: %v", err)
			}
			if err := <-stopped; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func TestStopGraceIsOver(t *testing.T) {
	entered := make(chan struct{}, 2)
	hang := func(ctx context.Context) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	s := start(t, Config{StopGrace: 50 * time.Millisecond}, &fleet{
		cutOver: func(ctx context.Context, _ *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
			return nil, hang(ctx)
		},
	})
	call := make(chan error, 1)
	go func() {
		_, err := s.client(client.Config{}).CutOver(t.Context(), cutOver())
		call <- err
	}()
	wait(t, entered, "the call")
	if err := s.stop(); err == nil || !strings.Contains(err.Error(), "--stop-grace") {
		t.Errorf("Run: %v", err)
	}
	check(t, "the call that was cut off", <-call, problem.Unavailable, "ask again with the same idempotency key")
}

func TestListen(t *testing.T) {
	first := start(t, Config{}, &fleet{})
	second, err := New(Config{Name: "fleet", Listen: first.Addr().String(), Log: &buffer{more: make(chan struct{})}})
	if err != nil {
		t.Fatal(err)
	}
	if second.Addr() != nil {
		t.Error("an address before it listens")
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--listen "+first.Addr().String()) {
		t.Errorf("Run: %v", err)
	}
}
