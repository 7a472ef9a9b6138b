package service

import (
	"context"
	"net"
	"net/http"

	"edgehold.internal/libs/problem"
)

// ValidateBeside holds a listener that is not this package's, such as one of DNS or of another vendor's HTTP, to the rule of
// --listen: beyond loopback there must be authentication. It returns whether callers have to be authenticated, or a
// *problem.Error of kind Invalid that names the flag.
func (c *Config) ValidateBeside(flag, listen string) (authenticate bool, err error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false, problem.Invalidf(flag, "%q is not host:port, such as 127.0.0.1:8080 or :8080", listen)
	}
	if loopback(host) {
		return false, nil
	}
	if c.TokensFile == "" && c.OIDCIssuer == "" {
		return false, problem.Invalidf(flag, "%q is beyond loopback and nobody would be authenticated: set --tokens-file or --oidc-issuer, or listen on 127.0.0.1", listen)
	}
	return true, nil
}

// Token says whose bearer token this is, for such a listener. Errors are *problem.Error of kind Unauthenticated, or Unavailable (the
// identity provider).
func (s *Server) Token(ctx context.Context, secret string) (Principal, error) {
	return s.byToken((&http.Request{}).WithContext(ctx), secret)
}
