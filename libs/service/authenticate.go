package service

import (
	"net"
	"net/http"
	"strings"

	"connectrpc.com/authn"

	"edgehold.internal/libs/problem"
)

// crossOrigin refuses what a web page of another origin has a browser send: certificates, and loopback, need no secret
// that the page would have to know.
var crossOrigin = http.NewCrossOriginProtection()

// authenticate says who sends a request. Errors are *problem.Error: Unauthenticated, PermissionDenied (a certificate that
// nobody knows, a web page of another origin) or Unavailable (the identity provider).
func (s *Server) authenticate(req *http.Request) (Principal, error) {
	if err := crossOrigin.Check(req); err != nil {
		return Principal{}, problem.New(problem.PermissionDenied, "", "a browser sends this for a page of another origin (%q); call from the service's own origin, or not from a browser", limit(req.Header.Get("Origin"), 128))
	}
	if !s.cfg.authenticates() {
		return local, checkHost(req)
	}
	if req.Header.Get("Authorization") != "" {
		secret, ok := authn.BearerToken(req)
		if !ok {
			return Principal{}, problem.New(problem.Unauthenticated, "", "the Authorization header is not a bearer token; send \"Authorization: Bearer <token>\"")
		}
		return s.byToken(req, secret)
	}
	if req.TLS != nil && len(req.TLS.VerifiedChains) > 0 && s.access != nil {
		return s.access.Get().byCertificate(req.TLS.VerifiedChains[0][0], s.now())
	}
	return Principal{}, problem.New(problem.Unauthenticated, "", "the request has no credentials; send %s", s.accepted())
}

func (s *Server) byToken(req *http.Request, secret string) (Principal, error) {
	if s.access != nil {
		if p, known, err := s.access.Get().byToken(secret, s.now()); known {
			return p, err
		}
	}
	if s.oidc != nil && strings.Count(secret, ".") == 2 { // a JWT
		return s.oidc.verify(req.Context(), secret)
	}
	return Principal{}, problem.New(problem.Unauthenticated, "", "the bearer token is not known here; it may have been replaced: get the current one")
}

// accepted lists the credentials that are configured.
func (s *Server) accepted() string {
	var ways []string
	if s.access != nil {
		ways = append(ways, "a bearer token of the tokens file")
	}
	if s.oidc != nil {
		ways = append(ways, "a token of "+s.cfg.OIDCIssuer)
	}
	if s.cfg.ClientCA != "" {
		ways = append(ways, "a client certificate")
	}
	return strings.Join(ways, " or ")
}

// checkHost refuses requests for another host than this machine, where nobody is authenticated: a web page that has its
// name resolve to 127.0.0.1 (DNS rebinding) would otherwise act as the user whose browser shows it.
func checkHost(req *http.Request) error {
	host, _, err := net.SplitHostPort(req.Host)
	if err != nil {
		host = strings.Trim(req.Host, "[]")
	}
	if loopback(host) {
		return nil
	}
	return problem.New(problem.Unauthenticated, "", "without authentication only requests to a loopback address are taken, and this one is for %q; use the address itself, or configure authentication", limit(req.Host, 128))
}

// onlyFor serves h to principals with a role, or to everybody when nobody is to be checked.
func (s *Server) onlyFor(checked bool, h http.Handler) http.Handler {
	if !checked {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p, err := s.authenticate(req)
		status := http.StatusUnauthorized
		if err == nil && len(p.Roles) == 0 {
			status, err = http.StatusForbidden, require(p, RoleViewer)
		}
		if err != nil {
			if problem.KindOf(err) == problem.PermissionDenied {
				status = http.StatusForbidden
			}
			http.Error(w, err.Error(), status)
			return
		}
		h.ServeHTTP(w, req)
	})
}
