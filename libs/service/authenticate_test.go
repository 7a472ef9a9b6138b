package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
)

// tokens is a tokens file with one token per role, named after it, and one that has expired.
const tokens = `
tokens:
- {name: vera, token: viewer-viewer-viewer, roles: [viewer]}
- {name: olga, token: operator-operator-operator, roles: [operator]}
- {name: auto, token: automation-automation, roles: [automation]}
- {name: bert, token: breakglass-breakglass, roles: [breakglass]}
# sha256 of hashed-hashed-hashed
- {name: hans, sha256: 1eeafac3bdb82e0d88395b756c6ded0a957bc3a924b582749469808acbb23225, roles: [operator, breakglass]}
- {name: elsa, token: expired-expired-expired, roles: [operator], expires: 2026-01-01T00:00:00Z}
certificates:
- {subject: "spiffe://edgehold.internal/runbooks", name: runbooks, roles: [automation]}
- {subject: laptop, roles: [viewer]}
`

func tokensFile(t *testing.T) string { return write(t, []byte(tokens))[0] }

func TestRoles(t *testing.T) {
	s := start(t, Config{TokensFile: tokensFile(t)}, &fleet{watch: func(context.Context, *connect.ServerStream[fleetv1.WatchFleetsResponse]) error { return nil }})
	for _, tt := range []struct {
		token         string
		read, cutOver problem.Kind // -1 for success
		sentence      string
	}{
		{"", problem.Unauthenticated, problem.Unauthenticated, "no credentials"},
		{"nobody-nobody-nobody", problem.Unauthenticated, problem.Unauthenticated, "not known here"},
		{"expired-expired-expired", problem.Unauthenticated, problem.Unauthenticated, `the token of "elsa" expired at 2026-01-01T00:00:00Z`},
		{"viewer-viewer-viewer", -1, problem.PermissionDenied, `needs the role operator or automation, and "vera" has viewer`},
		{"operator-operator-operator", -1, -1, ""},
		{"automation-automation", -1, -1, ""},
		{"breakglass-breakglass", -1, problem.PermissionDenied, `"bert" has breakglass`},
		{"hashed-hashed-hashed", -1, -1, ""},
	} {
		t.Run(tt.token, func(t *testing.T) {
			for name, opt := range map[string]connect.ClientOption{"connect": connect.WithClientOptions(), "grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb()} {
				c := s.client(client.Config{Token: tt.token}, opt)
				_, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
				check(t, name+" read", err, tt.read, tt.sentence)
				_, err = c.CutOver(t.Context(), cutOver())
				check(t, name+" cut over", err, tt.cutOver, tt.sentence)
				stream, err := c.WatchFleets(t.Context(), watchAll())
				if err != nil {
					t.Fatal(err)
				}
				for stream.Receive() {
				}
				check(t, name+" stream", stream.Err(), tt.read, tt.sentence)
				_ = stream.Close()
			}
		})
	}
}

func check(t *testing.T, what string, err error, want problem.Kind, sentence string) {
	t.Helper()
	if want < 0 {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if p := asProblem(t, err); p.Kind != want || !strings.Contains(p.Sentence, sentence) {
		t.Errorf("%s: %v: %s; want %v: …%s…", what, p.Kind, p.Sentence, want, sentence)
	}
}

// TestNotDecodedBeforeAuthentication sends a body that no decoder takes: who has no credentials must not learn that.
func TestNotDecodedBeforeAuthentication(t *testing.T) {
	s := start(t, Config{TokensFile: tokensFile(t)}, &fleet{})
	for token, want := range map[string]int{"": 401, "viewer-viewer-viewer": 403, "operator-operator-operator": 400} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("http")+"/edgehold.fleet.v1.FleetService/CutOver", strings.NewReader("{not json"))
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("with token %q: %d, want %d", token, res.StatusCode, want)
		}
	}
	s.log.waitFor(t, `"code":"invalid_argument"`, 1)
}

func TestPlainEndpoints(t *testing.T) {
	s := start(t, Config{TokensFile: tokensFile(t)}, &fleet{})
	if code, body := get(t, s.url("http")+"/healthz"); code != 200 || body != "serving\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if code, body := get(t, s.url("http")+"/metrics"); code != 401 || !strings.Contains(body, "no credentials") {
		t.Errorf("/metrics without a token: %d %q", code, body)
	}
	if code, body := get(t, s.url("http")+"/metrics", "Authorization", "Bearer viewer-viewer-viewer"); code != 200 || !strings.Contains(body, "edgehold_build_info") {
		t.Errorf("/metrics with a token: %d %q", code, body)
	}
	if code, body := get(t, s.url("http")+"/metrics", "Authorization", "Basic dmVyYQ=="); code != 401 || !strings.Contains(body, "not a bearer token") {
		t.Errorf("/metrics with a password: %d %q", code, body)
	}
	// Health is for everybody.
	c, err := client.New(client.Config{Address: s.url("http")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := grpchealth.NewClient(c.Unary(), c.URL(), c.Options()...).Check(t.Context(), &grpchealth.CheckRequest{Service: "edgehold.fleet.v1.FleetService"})
	if err != nil || res.Status != grpchealth.StatusServing {
		t.Errorf("health: %v, %v", res, err)
	}
	public := start(t, Config{TokensFile: tokensFile(t), PublicMetrics: true}, &fleet{})
	if code, _ := get(t, public.url("http")+"/metrics"); code != 200 {
		t.Errorf("public /metrics: %d", code)
	}
}

// TestForeignHost is DNS rebinding: a page of evil.example whose name now resolves to 127.0.0.1.
func TestForeignHost(t *testing.T) {
	s := start(t, Config{}, &fleet{})
	post := func(host string) int {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("http")+"/edgehold.fleet.v1.FleetService/ListPops", strings.NewReader("{}"))
		req.Header.Set("Content-Type", "application/json")
		req.Host = host
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for host, want := range map[string]int{"": 200, "localhost:80": 200, "127.4.0.1": 200, "[::1]:80": 200, "[::1]": 200, "evil.example": 401, "10.4.0.1:80": 401} {
		if got := post(host); got != want {
			t.Errorf("host %q: %d, want %d", host, got, want)
		}
	}
}

func TestTokensReload(t *testing.T) {
	file := tokensFile(t)
	s := start(t, Config{TokensFile: file}, &fleet{}, func(s *Server) { s.reload = time.Millisecond })
	c := s.client(client.Config{Token: "newcomer-newcomer-newcomer"})
	_, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	check(t, "before", err, problem.Unauthenticated, "not known here")

	put(t, file, []byte("tokens: [oops"))
	s.log.waitFor(t, "is refused and the last good one stays in force", 1)
	if _, body := get(t, s.url("http")+"/healthz"); !strings.Contains(body, "warning: tokens-file") {
		t.Errorf("/healthz is %q", body)
	}
	if _, body := get(t, s.url("http")+"/metrics", "Authorization", "Bearer viewer-viewer-viewer"); !strings.Contains(body, `edgehold_warning{name="tokens-file"} 1`) {
		t.Error("no metric of the warning, or the last good tokens are gone")
	}

	put(t, file, []byte("tokens: [{name: nina, token: newcomer-newcomer-newcomer, roles: [viewer]}]"))
	s.log.waitFor(t, "warning over", 1)
	if _, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{}); err != nil {
		t.Errorf("after: %v", err)
	}
	if code, _ := get(t, s.url("http")+"/metrics", "Authorization", "Bearer viewer-viewer-viewer"); code != 401 {
		t.Errorf("the token that was taken out gets %d", code)
	}
}

func TestClientCertificates(t *testing.T) {
	ca, stranger := newAuthority(t, "ours"), newAuthority(t, "theirs")
	cert, key := ca.issue("server")
	files := write(t, cert, key, ca.pem)
	s := start(t, Config{TLSCert: files[0], TLSKey: files[1], ClientCA: files[2], TokensFile: tokensFile(t)}, &fleet{
		cutOver: func(ctx context.Context, _ *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
			return nil, problem.NotFoundf("", "%s", PrincipalFrom(ctx).Name)
		},
	})
	for _, tt := range []struct {
		name     string
		by       *authority
		cn       string
		uris     []string
		token    string
		kind     problem.Kind
		sentence string
	}{
		{"spiffe", ca, "laptop", []string{"spiffe://edgehold.internal/runbooks"}, "", problem.NotFound, "runbooks"},
		{"common name", ca, "laptop", nil, "", problem.PermissionDenied, `"laptop" has viewer`},
		{"unknown subject", ca, "desktop", nil, "", problem.PermissionDenied, `the client certificate of "desktop" is valid and has no roles here`},
		{"unknown spiffe id, known name", ca, "laptop", []string{"spiffe://edgehold.internal/other"}, "", problem.PermissionDenied, "spiffe://edgehold.internal/other"},
		{"two ids", ca, "laptop", []string{"spiffe://edgehold.internal/runbooks", "spiffe://edgehold.internal/other"}, "", problem.Unauthenticated, "2 URIs"},
		{"https id", ca, "laptop", []string{"https://edgehold.internal/runbooks"}, "", problem.Unauthenticated, "must have one spiffe:// URI"},
		{"no subject", ca, "", nil, "", problem.Unauthenticated, "neither"},
		{"no certificate", nil, "", nil, "", problem.Unauthenticated, "send a bearer token of the tokens file or a client certificate"},
		{"token beside certificate", ca, "laptop", nil, "operator-operator-operator", problem.NotFound, "olga"},
		{"other authority", stranger, "laptop", nil, "", problem.Unavailable, "the connection to https://127.0.0.1:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := client.Config{Address: s.url("https"), CAFile: files[2], Token: tt.token}
			if tt.by != nil {
				cert, key := tt.by.issue(tt.cn, tt.uris...)
				pair := write(t, cert, key)
				cfg.CertFile, cfg.KeyFile = pair[0], pair[1]
			}
			_, err := s.client(cfg).CutOver(t.Context(), cutOver())
			check(t, "cut over", err, tt.kind, tt.sentence)
		})
	}
	t.Run("plain text", func(t *testing.T) {
		_, err := s.client(client.Config{}).CutOver(t.Context(), cutOver())
		check(t, "cut over", err, problem.Unavailable, "the connection to http://127.0.0.1:")
	})
}

// TestTLSReload renews the certificate, one file after the other, while callers connect anew with each call.
func TestTLSReload(t *testing.T) {
	ca := newAuthority(t, "ours")
	cert, key := ca.issue("first")
	files := write(t, cert, key, ca.pem)
	s := start(t, Config{TLSCert: files[0], TLSKey: files[1]}, &fleet{}, func(s *Server) { s.reload = time.Millisecond })

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.pem)
	names := make(chan string, 1024)
	var calls atomic.Int64
	var load sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true, ForceAttemptHTTP2: true}
				req, _ := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, s.url("https")+"/healthz", nil)
				res, err := transport.RoundTrip(req)
				if err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				_ = res.Body.Close()
				calls.Add(1)
				select {
				case names <- res.TLS.PeerCertificates[0].Subject.CommonName:
				default: // the test is looking at a file
				}
			}
		})
	}
	seen := func(name string) {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case got := <-names:
				if got == name {
					return
				}
			case <-deadline:
				t.Fatalf("waited 20 s for the certificate %q", name)
			}
		}
	}
	seen("first")
	for n, name := range []string{"second", "third", "fourth"} {
		cert, key := ca.issue(name)
		put(t, files[0], cert) // the old key is beside it now
		s.log.waitFor(t, "are not a PEM certificate and its key", n+1)
		put(t, files[1], key)
		seen(name)
	}
	put(t, files[1], nil)
	s.log.waitFor(t, "are not a PEM certificate and its key", 4)
	seen("fourth")
	cancel()
	load.Wait()
	t.Logf("%d calls", calls.Load())
}

func TestParseAccess(t *testing.T) {
	for _, tt := range []struct{ name, content, field, sentence string }{
		{"empty", "", "tokens", "0 entries"},
		{"not yaml", "tokens: [oops", "tokens", "not YAML"},
		{"unknown key", "tokens: [{name: a, token: 0123456789abcdef, role: viewer}]", "tokens", "not YAML with the keys"},
		{"no name", "tokens: [{token: 0123456789abcdef, roles: [viewer]}]", "tokens[0].name", "not a principal's name"},
		{"no roles", "tokens: [{name: a, token: 0123456789abcdef}]", "tokens[0].roles", `"a" has no role`},
		{"unknown role", "tokens: [{name: a, token: 0123456789abcdef, roles: [viewer, root]}]", "tokens[0].roles[1]", `"root" is not a role: viewer, operator, automation, breakglass`},
		{"no token", "tokens: [{name: a, roles: [viewer]}]", "tokens[0]", "one of token and sha256"},
		{"token and digest", "tokens: [{name: a, token: 0123456789abcdef, sha256: ab, roles: [viewer]}]", "tokens[0]", "one of token and sha256"},
		{"short token", "tokens: [{name: a, token: secret, roles: [viewer]}]", "tokens[0].token", "at least 16"},
		{"short digest", "tokens: [{name: a, sha256: abcd, roles: [viewer]}]", "tokens[0].sha256", "not 64 hex digits"},
		{"no digest", "tokens: [{name: a, sha256: " + strings.Repeat("z", 64) + ", roles: [viewer]}]", "tokens[0].sha256", "not 64 hex digits"},
		{"same token", "tokens: [{name: a, token: 0123456789abcdef, roles: [viewer]}, {name: b, token: 0123456789abcdef, roles: [operator]}]", "tokens[1]", "same token as tokens[0]"},
		{"no time", "tokens: [{name: a, token: 0123456789abcdef, roles: [viewer], expires: tomorrow}]", "tokens", "RFC 3339"},
		{"no subject", "certificates: [{roles: [viewer]}]", "certificates[0].subject", "empty"},
		{"same subject", "certificates: [{subject: a, roles: [viewer]}, {subject: a, roles: [operator]}]", "certificates[1].subject", "twice"},
		{"too many", "tokens:\n" + strings.Repeat("- {name: a}\n", 1001), "tokens", "1 to 1000"},
		{"too long", strings.Repeat("#", 1<<20+1), "tokens", "at most 1048576"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseAccess([]byte(tt.content))
			p := asProblem(t, err)
			if p.Kind != problem.Invalid || p.Field != tt.field || !strings.Contains(p.Sentence, tt.sentence) {
				t.Errorf("got %v %q: %s", p.Kind, p.Field, p.Sentence)
			}
			for _, secret := range []string{"0123456789abcdef", "secret"} {
				if strings.Contains(fmt.Sprintf("%v %v", err, p.Cause), secret) {
					t.Errorf("the error shows a token: %v", err)
				}
			}
		})
	}
}

func FuzzParseAccess(f *testing.F) {
	f.Add([]byte(tokens))
	f.Add([]byte(`{"tokens":[{"name":"a","sha256":"","roles":[]}]}`))
	f.Add([]byte("certificates:\n- &a {subject: x, roles: [viewer]}\n- *a\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		a, err := ParseAccess(content)
		if err != nil {
			if p := asProblem(t, err); p.Kind != problem.Invalid || p.Field == "" {
				t.Fatalf("%+v", p)
			}
			return
		}
		if len(a.tokens)+len(a.certificates) == 0 {
			t.Fatal("a file that lets nobody in was accepted")
		}
		for _, token := range a.tokens {
			for _, role := range token.principal.Roles {
				if !slices.Contains(roles, role) {
					t.Fatalf("role %q", role)
				}
			}
		}
		for _, p := range a.certificates {
			if p.Name == "" || len(p.Roles) == 0 {
				t.Fatalf("principal %+v", p)
			}
		}
	})
}
