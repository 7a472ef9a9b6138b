package bedrock

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
)

// MaxSkew is how far the clock of a signature may be from that of the vendor.
const MaxSkew = 5 * time.Minute

const algorithm = "AWS4-HMAC-SHA256"

// signature is what the header Authorization says of one (Signature Version 4).
type signature struct {
	id, date, region, service string
	headers                   []string
	value                     string
}

// parse reads the header Authorization. It is false when that is no signature.
func parse(authorization string) (s signature, ok bool) {
	rest, ok := strings.CutPrefix(authorization, algorithm)
	if !ok || rest == "" || rest[0] != ' ' && rest[0] != ',' {
		return s, false
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			// An id may have slashes, what comes after it never has.
			n := len(scope)
			if n < 5 || scope[n-1] != "aws4_request" {
				return s, false
			}
			s.id, s.date, s.region, s.service = strings.Join(scope[:n-4], "/"), scope[n-4], scope[n-3], scope[n-2]
		case "SignedHeaders":
			s.headers = strings.Split(value, ";")
		case "Signature":
			s.value = value
		}
	}
	return s, s.id != "" && len(s.headers) > 0 && s.value != ""
}

// regionOf a request, which its signature names; empty for none.
func regionOf(r *http.Request) string {
	if a := r.Header["Authorization"]; len(a) > 0 {
		s, _ := parse(a[0])
		return s.region
	}
	return ""
}

var unknownKey = forged("UnrecognizedClientException", "The security token included in the request is invalid.")

// Verify says why the vendor would not believe a request, and nil when it would: it is to be signed with Signature Version 4 for the
// service bedrock and the region, with a key that secret knows, within MaxSkew of now; an empty region is any. A bearer token is
// believed when secret knows it as an id. The body has to be the one that r came with, and r's Host, URL and RequestURI as they came.
func Verify(r *http.Request, body []byte, secret func(id string) (string, bool), region string, now time.Time) *llmmock.Failure {
	authorization := r.Header.Get("Authorization")
	if token, ok := strings.CutPrefix(authorization, "Bearer "); ok {
		if _, known := secret(token); !known {
			return forged("AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")
		}
		return nil
	}
	if authorization == "" {
		return forged("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	s, ok := parse(authorization)
	if !ok {
		return forged("IncompleteSignatureException", "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter.")
	}
	key, known := secret(s.id)
	if !known {
		return unknownKey
	}
	switch {
	case s.service != "bedrock":
		return forged("InvalidSignatureException", "Credential should be scoped to correct service: 'bedrock'. ")
	case region != "" && s.region != region:
		return forged("InvalidSignatureException", "Credential should be scoped to a valid region, not '"+s.region+"'. ")
	}
	const layout = "20060102T150405Z"
	stamp := r.Header.Get("X-Amz-Date")
	at, err := time.Parse(layout, stamp)
	earliest, latest, now := now.Add(-MaxSkew).UTC().Format(layout), now.Add(MaxSkew).UTC().Format(layout), now.UTC()
	switch {
	case err != nil:
		return forged("IncompleteSignatureException", "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	case !strings.HasPrefix(stamp, s.date):
		return forged("InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	case at.Before(now.Add(-MaxSkew)):
		return forged("InvalidSignatureException", "Signature expired: "+stamp+" is now earlier than "+earliest+" ("+now.Format(layout)+" - 5 min.)")
	case at.After(now.Add(MaxSkew)):
		return forged("InvalidSignatureException", "Signature not yet current: "+stamp+" is still later than "+latest+" ("+now.Format(layout)+" + 5 min.)")
	}
	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	if said := r.Header.Get("X-Amz-Content-Sha256"); said != "" {
		if said != "UNSIGNED-PAYLOAD" && said != payload {
			return forged("InvalidSignatureException", "The provided 'x-amz-content-sha256' header does not match what was computed.")
		}
		payload = said
	}
	request := sha256.Sum256([]byte(canonical(r, s.headers, payload)))
	scope := s.date + "/" + s.region + "/" + s.service + "/aws4_request"
	mac := []byte("AWS4" + key)
	for _, part := range []string{s.date, s.region, s.service, "aws4_request", algorithm + "\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(request[:])} {
		h := hmac.New(sha256.New, mac)
		_, _ = h.Write([]byte(part))
		mac = h.Sum(nil)
	}
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(mac)), []byte(s.value)) != 1 {
		return forged("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

func forged(code, message string) *llmmock.Failure {
	status := http.StatusForbidden
	if code == "IncompleteSignatureException" {
		status = http.StatusBadRequest
	}
	return &llmmock.Failure{Status: status, Reason: llmmock.Unauthenticated, Code: code, Message: message}
}

// canonical is the form of a request that is signed.
func canonical(r *http.Request, headers []string, payload string) string {
	path, query := r.URL.EscapedPath(), r.URL.RawQuery
	if r.RequestURI != "" && r.RequestURI[0] == '/' {
		path, query, _ = strings.Cut(r.RequestURI, "?")
	}
	var b strings.Builder
	b.WriteString(r.Method)
	b.WriteByte('\n')
	// The path is encoded twice: as it goes on the wire, and that once more.
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(encode(segment))
	}
	b.WriteByte('\n')
	b.WriteString(canonicalQuery(query))
	b.WriteByte('\n')
	for _, name := range headers {
		b.WriteString(name)
		b.WriteByte(':')
		b.WriteString(headerValue(r, name))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(strings.Join(headers, ";"))
	b.WriteByte('\n')
	b.WriteString(payload)
	return b.String()
}

// headerValue is that of a header by its name in small letters, with those that net/http keeps elsewhere.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		if v := r.Header.Get(name); v != "" {
			return v
		}
		return strconv.FormatInt(r.ContentLength, 10)
	}
	values := slices.Clone(r.Header.Values(name))
	for i, v := range values {
		values[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(values, ",")
}

func canonicalQuery(query string) string {
	if query == "" {
		return ""
	}
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if n, err := url.QueryUnescape(name); err == nil {
			name = n
		}
		if v, err := url.QueryUnescape(value); err == nil {
			value = v
		}
		pairs = append(pairs, encode(name)+"="+encode(value))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// encode escapes all but the unreserved characters (RFC 3986 §2.3).
func encode(s string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c-'0' <= 9, c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}
