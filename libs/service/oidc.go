package service

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"edgehold.internal/libs/problem"
)

const (
	// oidcTimeout bounds one request to the identity provider, and so the call that waits for it.
	oidcTimeout = 5 * time.Second
	// oidcRetry is how long a failed discovery is remembered: a provider that is down is not asked by every call.
	oidcRetry = 10 * time.Second
	// oidcWaiting is how many tokens are checked at one time: whoever sends one is not known yet, and a provider that does
	// not answer makes each of them wait.
	oidcWaiting = 512
)

// provider verifies tokens of an OpenID Connect provider. Discovery waits for the first token: a service must start while
// its identity provider is down, for those who come with a certificate or a token of the file.
type provider struct {
	issuer, audience, rolesClaim, nameClaim string
	now                                     func() time.Time
	client                                  *http.Client
	waiting                                 *slots

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier
	failure  error
	failedAt time.Time
}

func newProvider(cfg Config, now func() time.Time) *provider {
	return &provider{
		issuer: cfg.OIDCIssuer, audience: cfg.OIDCAudience, rolesClaim: cfg.OIDCRolesClaim, nameClaim: cfg.OIDCNameClaim,
		now:     now,
		waiting: newSlots(oidcWaiting, "tokens of the identity provider to check, its limit"),
		client:  &http.Client{Timeout: oidcTimeout, Transport: http.DefaultTransport.(*http.Transport).Clone()},
	}
}

// close lets go of the connections to the identity provider.
func (p *provider) close() { p.client.CloseIdleConnections() }

func (p *provider) discover() (*oidc.IDTokenVerifier, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verifier != nil {
		return p.verifier, nil
	}
	if p.failure == nil || p.now().Sub(p.failedAt) >= oidcRetry {
		// Not the context of the call: the provider keeps it, to fetch the keys again when they are rotated.
		found, err := oidc.NewProvider(oidc.ClientContext(context.Background(), p.client), p.issuer)
		if err == nil {
			p.verifier, p.failure = found.Verifier(&oidc.Config{ClientID: p.audience, Now: p.now}), nil
			return p.verifier, nil
		}
		p.failure, p.failedAt = err, p.now()
	}
	return nil, p.unreachable(p.failure)
}

func (p *provider) unreachable(cause error) error {
	return &problem.Error{Kind: problem.Unavailable, Cause: cause,
		Sentence: "the identity provider " + p.issuer + " cannot be reached, so that its tokens cannot be checked; try again, or use a certificate or a token of the tokens file",
		Meta:     map[string]string{problem.RetryAfter: oidcRetry.String()}}
}

// verify returns the principal of an ID or access token in JWT form. Errors are *problem.Error: Unauthenticated (expired,
// not for us, not signed by the provider), Unavailable (the provider cannot be asked), ResourceExhausted (too many at once).
func (p *provider) verify(ctx context.Context, raw string) (Principal, error) {
	if err := p.waiting.take(); err != nil {
		return Principal{}, err
	}
	defer p.waiting.give()
	verifier, err := p.discover()
	if err != nil {
		return Principal{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, oidcTimeout)
	defer cancel()
	token, err := verifier.Verify(ctx, raw)
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired):
		return Principal{}, &problem.Error{Kind: problem.Unauthenticated, Cause: err, Sentence: "the token expired at " + expired.Expiry.UTC().Format(time.RFC3339) + "; log in again"}
	case err != nil && strings.Contains(err.Error(), "fetching keys"): // the library flattens this error to text
		return Principal{}, p.unreachable(err)
	case err != nil:
		return Principal{}, &problem.Error{Kind: problem.Unauthenticated, Cause: err, Sentence: "the token is not one of " + p.issuer + " for the audience " + p.audience + "; log in again for that audience"}
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return Principal{}, &problem.Error{Kind: problem.Unauthenticated, Cause: err, Sentence: "the token's claims are not a JSON object"}
	}
	name, _ := claims[p.nameClaim].(string)
	if name == "" {
		return Principal{}, problem.New(problem.Unauthenticated, "", "the token has no claim %q with the principal's name; have the identity provider add it, or see --oidc-name-claim", p.nameClaim)
	}
	principal := Principal{Name: name}
	for _, claimed := range list(claims[p.rolesClaim]) {
		// Providers send the roles of every application: those that are not ours are none of our business.
		if role, err := ParseRole(claimed); err == nil && !principal.Has(role) {
			principal.Roles = append(principal.Roles, role)
		}
	}
	return principal, nil
}

// list reads a claim that is a list of strings, or one string with words.
func list(claim any) []string {
	switch v := claim.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var out []string
		for _, item := range v {
			if s, ok := item.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
