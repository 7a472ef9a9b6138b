package service

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/client"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
)

// post sends a body to a plain handler, on a connection of its own.
func post(t *testing.T, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer), res.Header
}

func TestPlainHandler(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, Config{TokensFile: tokensFile(t), MaxRequestBytes: 2048, AuditLog: file}, &fleet{}, func(s *Server) {
		s.HandleHTTP("POST /v1/echo", Route{}, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, err := io.ReadAll(req.Body)
			if large := new(http.MaxBytesError); errors.As(err, &large) {
				http.Error(w, "too large", http.StatusRequestEntityTooLarge)
				return
			}
			fmt.Fprintf(w, "%s %s %s", PrincipalFrom(req.Context()).Name, call.From(req.Context()).Request, body)
		}))
		s.HandleHTTP("POST /v1/upload", Route{MaxRequestBytes: 1 << 20}, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			n, _ := io.Copy(io.Discard, req.Body)
			fmt.Fprint(w, n)
		}))
		s.HandleHTTP("POST /v1/purge/{zone}", Route{Mutating: true}, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			http.Error(w, "no zone "+req.PathValue("zone"), http.StatusNotFound)
		}))
		s.HandleHTTP("POST /v1/panic", Route{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("at the disco") }))
		s.HandleHTTP("POST /open", Route{Open: true}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	})
	const vera, olga = "Bearer viewer-viewer-viewer", "Bearer operator-operator-operator"
	for _, tt := range []struct {
		path, body, token string
		status            int
		answer            string
	}{
		{"/v1/echo", "hello", vera, 200, "vera request-1 hello"},
		{"/v1/echo", strings.Repeat("x", 2049), vera, 413, "too large\n"},
		{"/v1/upload", strings.Repeat("x", 2049), vera, 200, "2049"},
		{"/v1/echo", "hello", "", 401, `"code":"unauthenticated"`},
		{"/v1/purge/a", "", vera, 403, "this needs the role operator or automation"},
		{"/v1/purge/a", "", olga, 404, "no zone a\n"},
		{"/v1/panic", "", vera, 500, "internal error; id request-1\n"},
		{"/open", "", "", 204, ""},
	} {
		status, answer, header := post(t, s.url("http")+tt.path, tt.body, "Authorization", tt.token, "Content-Type", "text/plain", call.RequestHeader, "request-1")
		if status != tt.status || !strings.Contains(answer, tt.answer) || header.Get(call.RequestHeader) != "request-1" {
			t.Errorf("%s as %q: %d %q, want %d %q", tt.path, tt.token, status, answer, tt.status, tt.answer)
		}
	}
	_, body := get(t, s.url("http")+"/metrics", "Authorization", vera)
	for _, want := range []string{
		`edgehold_rpc_requests_total{code="ok",procedure="POST /v1/echo"} 1`,
		`edgehold_rpc_requests_total{code="resource_exhausted",procedure="POST /v1/echo"} 1`,
		`edgehold_rpc_requests_total{code="unauthenticated",procedure="POST /v1/echo"} 1`,
		`edgehold_rpc_requests_total{code="not_found",procedure="POST /v1/purge/{zone}"} 1`,
		`edgehold_rpc_panics_total{procedure="POST /v1/panic"} 1`,
		`edgehold_rpc_in_flight{procedure="POST /v1/echo"} 0`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	lines, err := os.ReadFile(file)
	if err != nil || strings.Count(string(lines), "\n") != 2 || !strings.Contains(string(lines), `"principal":"olga","roles":["operator"],"procedure":"POST /v1/purge/{zone}","code":"not_found"`) {
		t.Errorf("audit %v:\n%s", err, lines)
	}
}

// TestPlainStreams has a server-sent stream that ends by itself and one that does not, when the service stops.
func TestPlainStreams(t *testing.T) {
	finish, begun := make(chan struct{}), make(chan struct{}, 2)
	line := func(w http.ResponseWriter, text string) {
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
	}
	s := start(t, Config{}, &fleet{}, func(s *Server) {
		s.HandleHTTP("GET /answer", Route{}, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			line(w, "data: 1\n")
			begun <- struct{}{}
			<-finish
			line(w, "data: 2\n")
		}))
		s.HandleHTTP("GET /events", Route{Streams: true}, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			line(w, "data: 1\n")
			begun <- struct{}{}
			<-req.Context().Done()
			line(w, "data: bye\n")
		}))
	})
	open := func(path string) *bufio.Reader {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("http")+path, nil)
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return bufio.NewReader(res.Body)
	}
	answer, events := open("/answer"), open("/events")
	for _, r := range []*bufio.Reader{answer, events} {
		if text, err := r.ReadString('\n'); err != nil || text != "data: 1\n" {
			t.Fatalf("the first line: %q, %v", text, err)
		}
		wait(t, begun, "a handler")
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	if text, err := events.ReadString('\n'); err != nil || text != "data: bye\n" {
		t.Errorf("the endless stream at the stop: %q, %v", text, err)
	}
	close(finish)
	if text, err := answer.ReadString('\n'); err != nil || text != "data: 2\n" {
		t.Errorf("the answer under way: %q, %v", text, err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
	if log := s.log.String(); !strings.Contains(log, `"procedure":"GET /events","code":"unavailable"`) {
		t.Errorf("the log has no end of the stream")
	}
}

// TestCrossOrigin is a web page that posts a form to a service on the machine of who reads it.
func TestCrossOrigin(t *testing.T) {
	s := start(t, Config{}, &fleet{}, func(s *Server) {
		s.HandleHTTP("POST /v1/purge", Route{Mutating: true}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	})
	status, body, _ := post(t, s.url("http")+"/v1/purge", "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain")
	if status != http.StatusForbidden || !strings.Contains(body, `page of another origin`) {
		t.Errorf("a page of another origin: %d %s", status, body)
	}
	if status, body, _ := post(t, s.url("http")+"/v1/purge", "", "Origin", s.url("http")); status != http.StatusOK {
		t.Errorf("a page of its own: %d %s", status, body)
	}
	if status, body, _ := post(t, s.url("http")+"/v1/purge", ""); status != http.StatusOK {
		t.Errorf("no browser: %d %s", status, body)
	}
}

// TestSlowBody sends the beginning of a body and no more.
func TestSlowBody(t *testing.T) {
	s := start(t, Config{}, &fleet{}, func(s *Server) {
		s.bodyTime = 250 * time.Millisecond
		s.HandleHTTP("POST /plain", Route{}, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, err := io.ReadAll(req.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			select {
			case <-req.Context().Done():
				http.Error(w, "cut off", http.StatusInternalServerError)
			case <-time.After(3 * s.bodyTime): // a call may take longer than its body
			}
		}))
	})
	send := func(path, contentType string, length int, body string) (int, string) {
		t.Helper()
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, contentType, length, body); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text)
	}
	const late = "the request's body did not arrive within 250ms"
	if status, body := send("/edgehold.fleet.v1.FleetService/CutOver", "application/json", 100, "{"); status != http.StatusGatewayTimeout || !strings.Contains(body, late) {
		t.Errorf("a slow call: %d %s", status, body)
	}
	if status, body := send("/plain", "text/plain", 100, "{"); status != http.StatusBadRequest || !strings.Contains(body, late) {
		t.Errorf("a slow request: %d %s", status, body)
	}
	if status, body := send("/plain", "text/plain", 1, "{"); status != http.StatusOK {
		t.Errorf("a long call with a body that was there at once: %d %s", status, body)
	}
	s.log.waitFor(t, `"code":"deadline_exceeded"`, 2)
}

// TestLongStreamOverHTTP1 has a stream that lasts longer than a body may take, where the connection has one deadline for both.
func TestLongStreamOverHTTP1(t *testing.T) {
	s := start(t, Config{}, &fleet{
		watch: func(ctx context.Context, stream *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(750 * time.Millisecond):
				return stream.Send(&fleetv1.WatchFleetsResponse{})
			}
		},
	}, func(s *Server) { s.bodyTime = 250 * time.Millisecond })
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for name, opt := range map[string]connect.ClientOption{"connect": connect.WithClientOptions(), "grpc-web": connect.WithGRPCWeb()} {
		c := fleetv1connect.NewFleetServiceClient(&http.Client{Transport: transport}, s.url("http"), opt)
		stream, err := c.WatchFleets(t.Context(), watchAll())
		if err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() {
			t.Errorf("%s: %v", name, stream.Err())
		}
		_ = stream.Close()
	}
}

// TestHealthWatchesTakeNoStreams has a watcher without credentials beside the streams of those who have some.
func TestHealthWatchesTakeNoStreams(t *testing.T) {
	s := start(t, Config{TokensFile: tokensFile(t), MaxStreams: 1}, &fleet{
		watch: func(_ context.Context, s *connect.ServerStream[fleetv1.WatchFleetsResponse]) error {
			return s.Send(&fleetv1.WatchFleetsResponse{})
		},
	}, func(s *Server) { s.openSlots = newSlots(1, "health watches under way") })
	c, err := client.New(client.Config{Address: s.url("http")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watches := grpchealth.NewClient(c.Stream(), c.URL(), connect.WithGRPC())
	if e := <-watches.Watch(ctx, &grpchealth.CheckRequest{}); e.Err != nil {
		t.Fatal(e.Err)
	}
	if e := <-watches.Watch(ctx, &grpchealth.CheckRequest{}); connect.CodeOf(e.Err) != connect.CodeResourceExhausted {
		t.Errorf("one watch too many: %+v", e)
	}
	stream, err := s.client(client.Config{Token: "viewer-viewer-viewer"}).WatchFleets(t.Context(), watchAll())
	if err != nil || !stream.Receive() {
		t.Errorf("a stream with credentials: %v, %v", err, stream.Err())
	}
	_ = stream.Close()
}

func TestExpiredCertificateOnAnOpenConnection(t *testing.T) {
	access, err := ParseAccess([]byte(tokens))
	if err != nil {
		t.Fatal(err)
	}
	pemCert, _ := newAuthority(t, "ca").issue("laptop")
	block, _ := pem.Decode(pemCert)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := access.byCertificate(leaf, leaf.NotAfter); err != nil || p.Name != "laptop" {
		t.Errorf("on its last second: %v, %v", p, err)
	}
	if _, err := access.byCertificate(leaf, leaf.NotAfter.Add(time.Second)); err == nil || !strings.Contains(err.Error(), `the client certificate of "laptop" expired at`) {
		t.Errorf("a second later: %v", err)
	}
}
