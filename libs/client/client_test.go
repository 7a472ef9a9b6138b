package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fleets(t *testing.T, cfg Config) fleetv1connect.FleetServiceClient {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return fleetv1connect.NewFleetServiceClient(c.Stream(), c.URL(), c.Options()...)
}

// serve runs a handler on h2c.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func unavailable(t *testing.T, err error, sentence string) {
	t.Helper()
	var p *problem.Error
	if !errors.As(err, &p) || p.Kind != problem.Unavailable || !strings.Contains(p.Sentence, sentence) {
		t.Errorf("got %v, want unavailable: …%s…", err, sentence)
	}
	var c *connect.Error
	if !errors.As(err, &c) {
		t.Errorf("%v has no Connect error in its chain", err)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c := fleets(t, Config{Address: "http://" + l.Addr().String()})
	_, err = c.CutOver(t.Context(), &fleetv1.CutOverRequest{})
	unavailable(t, err, "http://"+l.Addr().String()+" cannot be reached: connect: connection refused; check the address")
	stream, err := c.WatchFleets(t.Context(), &fleetv1.WatchFleetsRequest{})
	if err == nil {
		stream.Receive()
		err = stream.Err()
		_ = stream.Close()
	}
	unavailable(t, err, "cannot be reached")
}

type service struct {
	fleetv1connect.UnimplementedFleetServiceHandler
	watch func(context.Context, *connect.ServerStream[fleetv1.WatchFleetsResponse]) error
}

func (s service) WatchFleets(ctx context.Context, _ *fleetv1.WatchFleetsRequest, stream *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
	return s.watch(ctx, stream)
}

func (service) ListPops(ctx context.Context, _ *fleetv1.ListPopsRequest) (*fleetv1.ListPopsResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestServerDies cuts the connection below an open stream and a call under way, as a kill -9 does.
func TestServerDies(t *testing.T) {
	entered := make(chan struct{}, 2)
	_, h := fleetv1connect.NewFleetServiceHandler(service{watch: func(ctx context.Context, s *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
		_ = s.Send(&fleetv1.WatchFleetsResponse{})
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}})
	for name, reset := range map[string]bool{"closed": false, "reset": true} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := serve(t, h)
			conns := make(chan net.Conn, 1)
			go func() { // a wire that can be cut
				in, err := l.Accept()
				if err != nil {
					return
				}
				out, err := net.Dial("tcp", s.Listener.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				conns <- in
				go func() { _, _ = out.(*net.TCPConn).ReadFrom(in); _ = out.Close() }()
				_, _ = in.(*net.TCPConn).ReadFrom(out)
			}()
			c := fleets(t, Config{Address: "http://" + l.Addr().String()})
			stream, err := c.WatchFleets(t.Context(), &fleetv1.WatchFleetsRequest{})
			if err != nil || !stream.Receive() {
				t.Fatalf("%v, %v", err, stream.Err())
			}
			<-entered
			conn := <-conns
			if reset {
				_ = conn.(*net.TCPConn).SetLinger(0)
			}
			_ = l.Close()
			_ = conn.Close()
			if stream.Receive() {
				t.Error("the stream goes on")
			}
			unavailable(t, stream.Err(), "ask again with the same idempotency key")
			_ = stream.Close()
		})
	}
}

// TestRetry counts how often a call reaches the transport that never answers.
func TestRetry(t *testing.T) {
	refused := connect.NewError(connect.CodeUnavailable, errors.New("refused"))
	for _, tt := range []struct {
		name  string
		err   error
		level connect.IdempotencyLevel
		calls int
		took  time.Duration
	}{
		{"read", refused, connect.IdempotencyNoSideEffects, 3, 300 * time.Millisecond},
		{"read, connection broken", connect.NewError(connect.CodeCanceled, errors.New("broken pipe")), connect.IdempotencyNoSideEffects, 3, 300 * time.Millisecond},
		{"write", refused, connect.IdempotencyIdempotent, 1, 0},
		{"read, answered", connect.NewWireError(connect.CodeUnavailable, errors.New("stopping")), connect.IdempotencyNoSideEffects, 1, 0},
		{"read, other error", connect.NewError(connect.CodeInternal, errors.New("bug")), connect.IdempotencyNoSideEffects, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, began := 0, time.Now()
				i := interceptor{&Client{url: "http://127.0.0.1:1"}}
				call := connect.NewClient[fleetv1.ListPopsRequest, fleetv1.ListPopsResponse](nobody{}, "http://127.0.0.1:1/edgehold.fleet.v1.FleetService/ListPops",
					connect.WithIdempotency(tt.level), connect.WithInterceptors(i, connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
						return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
							calls++
							return nil, tt.err
						}
					})))
				_, err := call.CallUnary(t.Context(), connect.NewRequest(&fleetv1.ListPopsRequest{}))
				if err == nil || calls != tt.calls || time.Since(began) != tt.took {
					t.Errorf("%d calls in %v, and then %v", calls, time.Since(began), err)
				}
			})
		})
	}
}

type nobody struct{}

func (nobody) Do(*http.Request) (*http.Response, error) { return nil, errors.New("not reached") }

func TestTokenFile(t *testing.T) {
	var got atomic.Value
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization") + " as " + r.UserAgent())
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	file := filepath.Join(t.TempDir(), "token")
	put := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New(Config{Address: s.URL, TokenFile: file}); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "token-file: ") {
		t.Errorf("without the file: %v", err)
	}
	put("two words\n")
	if _, err := New(Config{Address: s.URL, TokenFile: file}); err == nil || !strings.Contains(err.Error(), "one token and nothing else") {
		t.Errorf("with two words: %v", err)
	}
	put("first\n")
	c, err := New(Config{Address: s.URL, TokenFile: file, UserAgent: "test/v1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pops := func() string {
		t.Helper()
		_, err := fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), c.Options()...).ListPops(t.Context(), &fleetv1.ListPopsRequest{})
		if err == nil {
			t.Error("a redirect was followed")
		}
		return got.Load().(string)
	}
	if sent := pops(); !strings.HasPrefix(sent, "Bearer first as test/v1 connect-go/") {
		t.Errorf("sent %q", sent)
	}
	put("second\n")
	if _, err := c.token.Check(); err != nil { // instead of a second that passes
		t.Fatal(err)
	}
	if sent := pops(); !strings.HasPrefix(sent, "Bearer second ") {
		t.Errorf("sent %q", sent)
	}
	put("")
	_, _ = c.token.Check()
	if sent := pops(); !strings.HasPrefix(sent, "Bearer second ") {
		t.Errorf("with an empty file: sent %q", sent)
	}
}

func TestTimeout(t *testing.T) {
	_, h := fleetv1connect.NewFleetServiceHandler(service{})
	s := serve(t, h)
	c, err := New(Config{Address: s.URL, Timeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), c.Options()...).ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	if problem.KindOf(err) != problem.DeadlineExceeded {
		t.Errorf("unary: %v", err)
	}
	if c.Stream().(*http.Client).Timeout != 0 {
		t.Error("streams have a timeout")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), c.Options()...).ListPops(ctx, &fleetv1.ListPopsRequest{})
	if problem.KindOf(err) != problem.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		cfg      Config
		sentence string // of the error; empty for none
	}{
		{Config{Address: "http://127.0.0.1:80"}, ""},
		{Config{Address: "https://[::1]:80/", Timeout: time.Minute, CertFile: "c", KeyFile: "k", CAFile: "a", TokenFile: "t"}, ""},
		{Config{}, `address: "" is not allowed: http://host:port or https://host:port`},
		{Config{Address: "127.0.0.1:80"}, `address: "127.0.0.1:80" is not allowed`},
		{Config{Address: "http://host:80/path"}, `is not allowed`},
		{Config{Address: "http://alice:secret@host:80"}, `is not allowed`},
		{Config{Address: "http://host:80", Token: "a", TokenFile: "b"}, `token-file: "b" together with a token`},
		{Config{Address: "https://host:80", CertFile: "c"}, `cert-file: "c" with key-file "": set both or neither`},
		{Config{Address: "http://host:80", CAFile: "c"}, `is plain text`},
		{Config{Address: "http://host:80", Timeout: -1}, `timeout: -1ns is not allowed`},
	} {
		err := tt.cfg.Validate()
		if tt.sentence == "" && err != nil || tt.sentence != "" && (err == nil || !strings.Contains(err.Error(), tt.sentence)) {
			t.Errorf("%+v: got %v, want %q", tt.cfg, err, tt.sentence)
		}
		if err != nil && problem.KindOf(err) != problem.Invalid {
			t.Errorf("%v is %v", err, problem.KindOf(err))
		}
	}
}

func TestMissingFiles(t *testing.T) {
	for want, cfg := range map[string]Config{
		`ca-file: "no-such-ca" cannot be read: `:     {CAFile: "no-such-ca"},
		`cert-file: "no-such-cert" cannot be read: `: {CertFile: "no-such-cert", KeyFile: "no-such-key"},
	} {
		cfg.Address = "https://127.0.0.1:80"
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestFlags(t *testing.T) {
	cfg := Config{Address: "http://127.0.0.1:80"}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	cfg.Flags(fs, "fleet-")
	if err := fs.Parse([]string{"--fleet-token=t", "--fleet-timeout=1m"}); err != nil {
		t.Fatal(err)
	}
	if want := (Config{Address: "http://127.0.0.1:80", Token: "t", Timeout: time.Minute}); cfg != want {
		t.Errorf("got %+v", cfg)
	}
}

// TestServerGoesSilent is a host that is gone without a word: its connection stays, and nothing comes any more.
func TestServerGoesSilent(t *testing.T) {
	_, h := fleetv1connect.NewFleetServiceHandler(service{watch: func(ctx context.Context, s *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
		_ = s.Send(&fleetv1.WatchFleetsResponse{})
		<-ctx.Done()
		return ctx.Err()
	}})
	s := serve(t, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var silent atomic.Bool
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = out.(*net.TCPConn).ReadFrom(in); _ = out.Close() }()
		buffer := make([]byte, 4096)
		for {
			n, err := out.Read(buffer)
			if err != nil {
				_ = in.Close()
				return
			}
			if !silent.Load() {
				_, _ = in.Write(buffer[:n])
			}
		}
	}()
	c, err := New(Config{Address: "http://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := c.transport.HTTP2; p.SendPingTimeout != pingAfter || p.PingTimeout != pingTimeout {
		t.Errorf("pings after %v, given up after %v", p.SendPingTimeout, p.PingTimeout)
	}
	c.transport.HTTP2.SendPingTimeout, c.transport.HTTP2.PingTimeout = 20*time.Millisecond, 200*time.Millisecond
	stream, err := fleetv1connect.NewFleetServiceClient(c.Stream(), c.URL(), c.Options()...).WatchFleets(t.Context(), &fleetv1.WatchFleetsRequest{})
	if err != nil || !stream.Receive() {
		t.Fatalf("%v, %v", err, stream.Err())
	}
	silent.Store(true)
	if stream.Receive() {
		t.Error("the stream goes on")
	}
	unavailable(t, stream.Err(), "the connection to http://127.0.0.1:")
	_ = stream.Close()
}
