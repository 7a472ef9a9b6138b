package service

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"sigs.k8s.io/yaml"

	"edgehold.internal/libs/problem"
)

// Bounds of the tokens file.
const (
	maxAccessBytes   = 1 << 20
	maxAccessEntries = 1000
	minTokenLength   = 16
)

// Access is a parsed tokens file: who has which roles.
type Access struct {
	tokens       []token
	certificates map[string]Principal
}

type token struct {
	digest    [sha256.Size]byte
	principal Principal
	expires   time.Time // zero for never
}

// ParseAccess reads a tokens file, YAML or JSON:
//
//	tokens:
//	- name: alice                   # the principal; several tokens may share one, so that they can be rotated
//	  sha256: 9f86d081884c7d65…     # of the token, in hex: printf %s "$TOKEN" | sha256sum
//	  roles: [operator, breakglass]
//	  expires: 2026-12-31T00:00:00Z # RFC 3339, optional
//	- name: ci
//	  token: the-token-itself-16-bytes-at-least # instead of sha256
//	  roles: [automation]
//	certificates:
//	- subject: spiffe://edgehold.internal/runbooks # the SPIFFE URI of the certificate or, if it has none, its common name
//	  name: runbooks                # the principal, optional; default the subject
//	  roles: [automation]
//
// Unknown keys, unknown roles, no roles, a token or subject that appears twice and a file that lets nobody in are errors:
// *problem.Error of kind Invalid with the path of the entry as the field. Neither tokens nor digests appear in errors.
func ParseAccess(content []byte) (*Access, error) {
	if len(content) > maxAccessBytes {
		return nil, problem.Invalidf("tokens", "the file has %d bytes; at most %d are read", len(content), maxAccessBytes)
	}
	var file struct {
		Tokens []struct {
			Name    string     `json:"name"`
			Token   string     `json:"token"`
			SHA256  string     `json:"sha256"`
			Roles   []string   `json:"roles"`
			Expires *time.Time `json:"expires"`
		} `json:"tokens"`
		Certificates []struct {
			Subject string   `json:"subject"`
			Name    string   `json:"name"`
			Roles   []string `json:"roles"`
		} `json:"certificates"`
	}
	if err := yaml.UnmarshalStrict(content, &file); err != nil {
		// The decoder's message can quote the file, and so a token.
		return nil, &problem.Error{Kind: problem.Invalid, Field: "tokens", Sentence: "the file is not YAML with the keys tokens (name, token or sha256, roles, expires) and certificates (subject, name, roles), or a time is not RFC 3339"}
	}
	n := len(file.Tokens) + len(file.Certificates)
	if n == 0 || n > maxAccessEntries {
		return nil, problem.Invalidf("tokens", "the file has %d entries under tokens and certificates: 1 to %d are allowed; to let nobody in, stop the service", n, maxAccessEntries)
	}

	a := &Access{certificates: make(map[string]Principal, len(file.Certificates))}
	seen := make(map[[sha256.Size]byte]int, len(file.Tokens))
	for i, t := range file.Tokens {
		field := fmt.Sprintf("tokens[%d]", i)
		principal, err := newPrincipal(field, t.Name, t.Roles)
		if err != nil {
			return nil, err
		}
		entry := token{principal: principal}
		switch {
		case (t.Token == "") == (t.SHA256 == ""):
			return nil, problem.Invalidf(field, "the entry of %q has to have one of token and sha256", t.Name)
		case t.SHA256 != "":
			if n, err := hex.Decode(entry.digest[:], limit(t.SHA256, 2*sha256.Size)); err != nil || n != sha256.Size || len(t.SHA256) != 2*sha256.Size {
				return nil, problem.Invalidf(field+".sha256", "the digest of %q is not %d hex digits", t.Name, 2*sha256.Size)
			}
		case len(t.Token) < minTokenLength:
			return nil, problem.Invalidf(field+".token", "the token of %q has %d bytes: at least %d are needed, so that it cannot be guessed", t.Name, len(t.Token), minTokenLength)
		default:
			entry.digest = sha256.Sum256([]byte(t.Token))
		}
		if first, twice := seen[entry.digest]; twice {
			return nil, problem.Invalidf(field, "the entry of %q has the same token as tokens[%d]", t.Name, first)
		}
		seen[entry.digest] = i
		if t.Expires != nil {
			entry.expires = *t.Expires
		}
		a.tokens = append(a.tokens, entry)
	}
	for i, c := range file.Certificates {
		field := fmt.Sprintf("certificates[%d]", i)
		if c.Subject == "" {
			return nil, problem.Invalidf(field+".subject", "it is empty: set it to the certificate's SPIFFE URI or common name")
		}
		if c.Name == "" {
			c.Name = c.Subject
		}
		principal, err := newPrincipal(field, c.Name, c.Roles)
		if err != nil {
			return nil, err
		}
		if _, twice := a.certificates[c.Subject]; twice {
			return nil, problem.Invalidf(field+".subject", "%q appears twice", c.Subject)
		}
		a.certificates[c.Subject] = principal
	}
	return a, nil
}

func newPrincipal(field, name string, names []string) (Principal, error) {
	if name == "" || len(name) > 128 {
		return Principal{}, problem.Invalidf(field+".name", "%q is not a principal's name: 1 to 128 bytes", limit(name, 128))
	}
	if len(names) == 0 {
		return Principal{}, problem.Invalidf(field+".roles", "%q has no role: give it one of %s, or leave the entry out", name, join(roles))
	}
	p := Principal{Name: name}
	for i, n := range names {
		role, err := ParseRole(n)
		if err != nil {
			return Principal{}, problem.Invalidf(fmt.Sprintf("%s.roles[%d]", field, i), "%q is not a role: %s", limit(n, 64), join(roles))
		}
		if !p.Has(role) {
			p.Roles = append(p.Roles, role)
		}
	}
	return p, nil
}

func limit(s string, n int) []byte { return []byte(s[:min(len(s), n)]) }

// byToken returns the principal of a bearer token; ok is false when the token is not in the file. The error is a
// *problem.Error of kind Unauthenticated: the token has expired.
func (a *Access) byToken(secret string, now time.Time) (p Principal, ok bool, err error) {
	digest := sha256.Sum256([]byte(secret))
	var found *token
	for i := range a.tokens { // all of them, whatever matches, so that the time it takes tells nothing
		if subtle.ConstantTimeCompare(a.tokens[i].digest[:], digest[:]) == 1 {
			found = &a.tokens[i]
		}
	}
	switch {
	case found == nil:
		return Principal{}, false, nil
	case !found.expires.IsZero() && !now.Before(found.expires):
		return Principal{}, true, problem.New(problem.Unauthenticated, "", "the token of %q expired at %s; get a new one and have it put into the tokens file", found.principal.Name, found.expires.UTC().Format(time.RFC3339))
	}
	return found.principal, true, nil
}

// byCertificate returns the principal of a client certificate that was verified when its connection began, which may be
// long ago. The error is a *problem.Error of kind PermissionDenied (the subject has no entry) or Unauthenticated (there is
// no subject, or the certificate has expired since).
func (a *Access) byCertificate(cert *x509.Certificate, now time.Time) (Principal, error) {
	subject := cert.Subject.CommonName
	if len(cert.URIs) > 0 {
		// An X.509-SVID has exactly one URI (SPIFFE X509-SVID §2); which of two is meant, nobody can say.
		if len(cert.URIs) > 1 || cert.URIs[0].Scheme != "spiffe" {
			return Principal{}, problem.New(problem.Unauthenticated, "", "the client certificate has %d URIs, the first one %q; it must have one spiffe:// URI, or none and a common name", len(cert.URIs), cert.URIs[0])
		}
		subject = cert.URIs[0].String()
	}
	if subject == "" {
		return Principal{}, problem.New(problem.Unauthenticated, "", "the client certificate has neither a spiffe:// URI nor a common name")
	}
	if now.After(cert.NotAfter) {
		return Principal{}, problem.New(problem.Unauthenticated, "", "the client certificate of %q expired at %s; connect again with the current one", subject, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if p, ok := a.certificates[subject]; ok {
		return p, nil
	}
	return Principal{}, problem.New(problem.PermissionDenied, "", "the client certificate of %q is valid and has no roles here; have its subject added under certificates in the tokens file", subject)
}
