package service

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
)

// issuer is an OpenID Connect provider with one key. While down, it answers 503.
type issuer struct {
	*httptest.Server
	t      *testing.T
	signer jose.Signer
	down   atomic.Bool
	asked  atomic.Int64
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t}
	if i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, nil); err != nil {
		t.Fatal(err)
	}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		if i.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
		case "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: "ES256", Use: "sig"}}})
		}
	}))
	t.Cleanup(i.Close)
	return i
}

// token signs claims over those that a good token has.
func (i *issuer) token(claims map[string]any) string {
	i.t.Helper()
	all := map[string]any{"iss": i.URL, "aud": "edgehold", "sub": "olga", "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range claims {
		all[k] = v
	}
	payload, err := json.Marshal(all)
	if err != nil {
		i.t.Fatal(err)
	}
	signed, err := i.signer.Sign(payload)
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func TestOIDC(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	s := start(t, Config{OIDCIssuer: i.URL, OIDCAudience: "edgehold", TokensFile: tokensFile(t)}, &fleet{})
	forged := stranger.token(map[string]any{"iss": i.URL, "roles": "operator"})
	for _, tt := range []struct {
		name, token string
		kind        problem.Kind // -1 for success
		sentence    string
	}{
		{"operator", i.token(map[string]any{"roles": []string{"billing-admin", "operator"}}), -1, ""},
		{"roles in one string", i.token(map[string]any{"roles": "viewer automation"}), -1, ""},
		{"viewer", i.token(map[string]any{"roles": []string{"viewer"}}), problem.PermissionDenied, `"olga" has viewer`},
		{"no roles", i.token(nil), problem.PermissionDenied, `"olga" has no role`},
		{"roles of another kind", i.token(map[string]any{"roles": 7}), problem.PermissionDenied, "has no role"},
		{"expired", i.token(map[string]any{"roles": "operator", "exp": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix()}), problem.Unauthenticated, "the token expired at 2026-01-01T00:00:00Z; log in again"},
		{"another audience", i.token(map[string]any{"roles": "operator", "aud": "billing"}), problem.Unauthenticated, "for the audience edgehold"},
		{"another issuer", i.token(map[string]any{"roles": "operator", "iss": "https://evil.example"}), problem.Unauthenticated, "is not one of " + i.URL},
		{"no name", i.token(map[string]any{"roles": "operator", "sub": ""}), problem.Unauthenticated, `no claim "sub"`},
		{"forged", forged, problem.Unauthenticated, "is not one of"},
		{"no algorithm", "eyJhbGciOiJub25lIn0.e30.", problem.Unauthenticated, "is not one of"},
		{"rubbish", "a.b.c", problem.Unauthenticated, "is not one of"},
		{"a token of the file", "operator-operator-operator", -1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.client(client.Config{Token: tt.token}).CutOver(t.Context(), cutOver())
			check(t, "cut over", err, tt.kind, tt.sentence)
		})
	}
}

func TestOIDCDown(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	var offset atomic.Int64
	s := start(t, Config{OIDCIssuer: i.URL, OIDCAudience: "edgehold", OIDCNameClaim: "email", OIDCRolesClaim: "groups", TokensFile: tokensFile(t)}, &fleet{},
		func(s *Server) {
			s.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		})
	if i.asked.Load() != 0 {
		t.Error("the provider was asked before anybody came with a token")
	}
	if _, err := s.client(client.Config{Token: "viewer-viewer-viewer"}).ListPops(t.Context(), &fleetv1.ListPopsRequest{}); err != nil {
		t.Errorf("with a token of the file: %v", err)
	}
	c := s.client(client.Config{Token: i.token(map[string]any{"email": "olga@edgehold.example", "groups": "viewer"})})
	_, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	check(t, "down", err, problem.Unavailable, "cannot be reached, so that its tokens cannot be checked")
	asked := i.asked.Load()
	_, err = c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	check(t, "still down", err, problem.Unavailable, "cannot be reached")
	if i.asked.Load() != asked {
		t.Error("a provider that is down is asked by every call")
	}
	i.down.Store(false)
	offset.Store(int64(oidcRetry))
	if _, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{}); err != nil {
		t.Errorf("up again: %v", err)
	}
	s.log.waitFor(t, `"principal":"olga@edgehold.example"`, 1)

	// It goes down after discovery and before it gave its keys.
	again := start(t, Config{OIDCIssuer: i.URL, OIDCAudience: "edgehold"}, &fleet{})
	if _, err := again.oidc.discover(); err != nil {
		t.Fatal(err)
	}
	i.down.Store(true)
	_, err = again.client(client.Config{Token: i.token(map[string]any{"roles": "viewer"})}).ListPops(t.Context(), &fleetv1.ListPopsRequest{})
	check(t, "no keys", err, problem.Unavailable, "cannot be reached")
}

func TestTracing(t *testing.T) {
	got := make(chan string, 8)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Method + " " + r.URL.Path
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	s := start(t, Config{OTLPEndpoint: collector.URL}, &fleet{})
	c := s.client(client.Config{Tracing: s.Tracing()})
	if _, err := c.CutOver(t.Context(), cutOver()); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil { // sends what is left
		t.Fatal(err)
	}
	if request := <-got; request != "POST /v1/traces" {
		t.Errorf("the collector got %s", request)
	}
	if !strings.Contains(s.log.String(), `"trace_id":"`) {
		t.Error("the audit line has no trace")
	}

	// A collector that is down costs traces and nothing else.
	collector.Close()
	s = start(t, Config{OTLPEndpoint: collector.URL}, &fleet{})
	if _, err := s.client(client.Config{}).CutOver(t.Context(), cutOver()); err != nil {
		t.Error(err)
	}
}

// TestTracePassedOn is a caller with a trace and a service without tracing.
func TestTracePassedOn(t *testing.T) {
	s := start(t, Config{}, &fleet{})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("http")+"/edgehold.fleet.v1.FleetService/ListPops", strings.NewReader("{}"))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if len(res.Header.Get("X-Request-Id")) != 26 {
		t.Errorf("request id %q", res.Header.Get("X-Request-Id"))
	}
	s.log.waitFor(t, `"trace_id":"0af7651916cd43dd8448eb211c80319c"`, 1)
}
