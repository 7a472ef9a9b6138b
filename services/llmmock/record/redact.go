package record

import (
	"bytes"
	"encoding/base64"
	"iter"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock/provider"
)

// MaxPatterns of a Redactor beside its own, and MaxPattern bytes of each.
const (
	MaxPatterns = 100
	MaxPattern  = 1024
)

// Redactor takes secrets out of exchanges. What it takes for one it overwrites with the word REDACTED, filled up to the length that the
// secret had: lengths that a header or a frame tells stay true, and the pieces of a stream keep their borders. Secrets are found by what
// they look like, by the name that they stand under, and those that a request itself brings along by being the same. What a model spells
// out over several events is not found.
type Redactor struct {
	bodies bool
	forms  []form
}

// form is what is found by its looks. Where there is a group it is the secret, else all of it is.
type form struct {
	*regexp.Regexp
	// hints are what one of is in every text that it finds anything in: looking for these is a hundred times as fast. None for a form
	// that is always looked for.
	hints []string
}

var forms = []form{
	looks(`\bsk-[A-Za-z0-9_-]{16,}`, "sk-"),                                          // OpenAI and Anthropic, and many who copied them
	looks(`\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b`, "AKIA", "ASIA", "ABIA", "ACCA"), // AWS access keys
	looks(`\bABSKQmVkcm9ja[A-Za-z0-9+/=]{20,}`, "ABSKQmVkcm9ja"),                     // Bedrock's long-lived keys, which begin with BedrockA… in base64
	looks(`\bbedrock-api-key-[A-Za-z0-9+/=_-]{16,}`, "bedrock-api-key-"),             // and its short-lived ones
	looks(`\bAIza[A-Za-z0-9_-]{35}`, "AIza"),                                         // Google API keys
	looks(`\bya29\.[A-Za-z0-9_-]{20,}`, "ya29."),                                     // Google access tokens
	looks(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`, "eyJ"),        // JWT (RFC 7519)
	looks(`\bgh[pousr]_[A-Za-z0-9]{36,}`, "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),    // GitHub
	looks(`\bgithub_pat_[A-Za-z0-9_]{22,}`, "github_pat_"),
	looks(`\bxox[abeoprs]-[A-Za-z0-9-]{10,}`, "xox"), // Slack
	looks(`\bhf_[A-Za-z0-9]{30,}`, "hf_"),            // Hugging Face
	looks(`-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.+?)-----END [A-Z ]*PRIVATE KEY-----`, "PRIVATE KEY"),
	looks(`\b(?:Bearer|bearer|BEARER)\s+([A-Za-z0-9._~+/=-]{16,})`, "earer", "EARER"),
	looks(`\b(?:X-Amz|x-amz)-(?:Signature|Security-Token|Credential)=([^&\s"\\]+)`, "X-Amz-", "x-amz-"),
}

func looks(pattern string, hints ...string) form { return form{regexp.MustCompile(pattern), hints} }

// possible says whether the form may be in b.
func (f *form) possible(b []byte) bool {
	return len(f.hints) == 0 || slices.ContainsFunc(f.hints, func(h string) bool { return bytes.Contains(b, []byte(h)) })
}

// secretMembers are those of JSON objects whose values are secrets, in lower case and without - and _.
var secretMembers = map[string]bool{"apikey": true, "xapikey": true, "clientsecret": true, "appsecret": true, "secret": true, "secretkey": true, "secretaccesskey": true,
	"awssecretaccesskey": true, "privatekey": true, "password": true, "passwd": true, "passphrase": true, "accesstoken": true, "refreshtoken": true, "idtoken": true,
	"authtoken": true, "sessiontoken": true, "securitytoken": true, "awssessiontoken": true, "authorization": true, "cookie": true, "setcookie": true}

// longestMember is how long a name of those may be.
const longestMember = 40

// secretValues yields where the values of such members are, in JSON and in JSON that is itself a text of JSON, however deep.
func secretValues(b []byte) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		for at := 0; ; at++ {
			colon := bytes.IndexByte(b[at:], ':')
			if colon < 0 {
				return
			}
			at += colon
			end := len(bytes.TrimRight(b[:at], " \t\r\n")) - 1
			if end < 1 || b[end] != '"' {
				continue
			}
			// A quote has as many backslashes before it as its JSON is deep.
			quote := end
			for quote > 0 && b[quote-1] == '\\' {
				quote--
			}
			mark := b[quote : end+1]
			begin := bytes.LastIndexByte(b[max(quote-longestMember-1, 0):quote], '"')
			if begin < 0 {
				continue
			}
			if begin += max(quote-longestMember-1, 0); !secretMember(b[begin+1 : quote]) {
				continue
			}
			from := len(b) - len(bytes.TrimLeft(b[at+1:], " \t\r\n"))
			if !bytes.HasPrefix(b[from:], mark) {
				continue
			}
			from += len(mark)
			if to := closing(b, from, len(mark)-1); to > from && !yield(from, to) {
				return
			}
		}
	}
}

func secretMember(name []byte) bool {
	var plain [longestMember]byte
	n := 0
	for _, c := range name {
		if c != '-' && c != '_' {
			plain[n] = c | 0x20 // which makes letters small
			n++
		}
	}
	return secretMembers[string(plain[:n])]
}

// closing is where the text that begins at from ends: before a quote with as many backslashes as it has itself, or at the end.
func closing(b []byte, from, backslashes int) int {
	run := 0
	for i := from; i < len(b); i++ {
		switch b[i] {
		case '\\':
			run++
			continue
		case '"':
			// What is more are backslashes of the text, each written as twice as many as the quote and its backslashes are.
			if n := run - backslashes; n >= 0 && n%(2*(backslashes+1)) == 0 || run < backslashes {
				return i - min(run, backslashes)
			}
		}
		run = 0
	}
	return len(b)
}

// NewRedactor looks for patterns too, beside its own; with bodies it looks into bodies, else only at paths, queries and headers. Invalid
// for a pattern that is none, or that finds nothing or everything. Where a pattern has a group, that is the secret.
func NewRedactor(bodies bool, patterns []string) (*Redactor, error) {
	if len(patterns) > MaxPatterns {
		return nil, problem.Invalidf("--redact", "%d patterns are too many; at most %d are allowed", len(patterns), MaxPatterns)
	}
	r := &Redactor{bodies: bodies, forms: slices.Clone(forms)}
	for _, p := range patterns {
		if p == "" || len(p) > MaxPattern {
			return nil, problem.Invalidf("--redact", "a pattern has %d bytes; 1 to %d are allowed", len(p), MaxPattern)
		}
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, problem.Invalidf("--redact", "%q is no regular expression (RE2): %v", p, err)
		}
		if re.MatchString("") {
			return nil, problem.Invalidf("--redact", "%q finds nothing as well as something; let it find at least a character", p)
		}
		r.forms = append(r.forms, form{Regexp: re})
	}
	return r, nil
}

// Bodies says whether it looks into bodies.
func (r *Redactor) Bodies() bool { return r.bodies }

// requestHeaders are those that are recorded of a request; whatever else there is may be a credential.
var requestHeaders = []string{"Accept", "Content-Type", "User-Agent", "Anthropic-Version", "Anthropic-Beta", "Openai-Beta", "Idempotency-Key",
	"X-Amzn-Bedrock-Trace", "X-Amzn-Bedrock-Guardrailidentifier", "X-Amzn-Bedrock-Guardrailversion"}

// A header of a request that may be a credential, and a parameter of a query that is one, by their names.
var (
	credentialHeader    = regexp.MustCompile(`(?i)auth|key|token|secret|cookie|signature|credential|password|session`)
	credentialParameter = regexp.MustCompile(`(?i)^(?:key|sig|code|token|signature)$|api[-_]?key|(?:access|auth|id|refresh|security)[-_]?token|secret|password|x-amz-(?:signature|credential)`)
)

// of answers more is wanted, and what is one by its name is less.
var credentialAnswer = regexp.MustCompile(`(?i)cookie|authorization|authenticat|api[-_]?key|secret|password|credential|security-token`)

// Headers of a request that are recorded. It is a copy.
func Headers(h http.Header) http.Header {
	kept := http.Header{}
	for _, name := range requestHeaders {
		if v := h[name]; len(v) > 0 {
			kept[name] = slices.Clone(v)
		}
	}
	return kept
}

// Secrets that a request brings along: credentials in its header and query, wherever its vendor has them.
func Secrets(h http.Header, query string) (found []string) {
	add := func(s string) {
		const least = 8 // what is shorter is no secret, and would be found everywhere
		if len(s) >= least && !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	for name, values := range h {
		if name == "Idempotency-Key" || !credentialHeader.MatchString(name) {
			continue
		}
		for _, v := range values {
			add(v)
			for _, part := range strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ',' || r == ';' }) {
				if part == "AWS4-HMAC-SHA256" || strings.HasPrefix(part, "SignedHeaders=") {
					continue
				}
				add(part)
				if decoded, err := base64.StdEncoding.DecodeString(part); err == nil && strings.HasPrefix(v, "Basic ") {
					_, password, _ := strings.Cut(string(decoded), ":")
					add(string(decoded))
					add(password)
				}
				if _, value, ok := strings.Cut(part, "="); ok {
					add(value)
					id, _, _ := strings.Cut(value, "/")
					add(id)
				}
			}
		}
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value := unescaped(pair)
		if credentialParameter.MatchString(name) {
			add(value)
		}
	}
	// A secret inside of another one must not be overwritten before it.
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	return found
}

func unescaped(pair string) (name, value string) {
	name, value, _ = strings.Cut(pair, "=")
	if s, err := url.QueryUnescape(name); err == nil {
		name = s
	}
	if s, err := url.QueryUnescape(value); err == nil {
		value = s
	}
	return name, value
}

// Exchange takes the secrets out of x, whose bytes it writes over, and those among secrets wherever they are. It says how many it took out,
// in headers that are left out too.
func (r *Redactor) Exchange(x *Exchange, secrets []string) (n int) {
	spelled := spellings(secrets)
	q, a := &x.Request, &x.Answer
	text := func(s string) string {
		b := []byte(s)
		n += r.mask(b, spelled)
		return string(b)
	}
	q.Path = "/" + text(strings.TrimPrefix(q.Path, "/"))
	q.Query = r.query(q.Query, text)
	header := func(h http.Header) {
		for _, values := range h {
			for i := range values {
				values[i] = text(values[i])
			}
		}
	}
	header(q.Header)
	for name := range a.Header {
		if credentialAnswer.MatchString(name) {
			delete(a.Header, name)
			n++
		}
	}
	header(a.Header)
	if r.bodies {
		n += r.body(first(q.Header["Content-Type"]), q.Body, spelled)
		body := a.Body()
		n += r.body(first(a.Header["Content-Type"]), body, spelled)
		for i := range a.Pieces {
			p := a.Pieces[i].Data
			copy(p, body)
			body = body[len(p):]
		}
	}
	return n
}

// query overwrites the values of parameters that are credentials, and what text overwrites in the others.
func (r *Redactor) query(query string, text func(string) string) string {
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, value := unescaped(pair)
		masked := text(value)
		if credentialParameter.MatchString(name) && value != "" {
			masked = mark
		}
		if clean := text(name); clean != name || masked != value {
			pairs[i] = url.QueryEscape(clean) + "=" + url.QueryEscape(masked)
		}
	}
	return strings.Join(pairs, "&")
}

// body is mask for a body of some type. Frames keep fitting checksums.
func (r *Redactor) body(contentType string, body []byte, spelled [][]byte) (n int) {
	if media(contentType) != framesType {
		return r.mask(body, spelled)
	}
	end := 0
	for f := range frames(body) {
		end = f.end
		payload := body[f.payload : f.end-4]
		if inner, ok := bytesOf(payload); ok {
			coded := base64.StdEncoding.EncodeToString(inner)
			if at := bytes.Index(payload, []byte(coded)); at >= 0 && r.mask(inner, spelled) > 0 {
				n++
				base64.StdEncoding.Encode(payload[at:], inner)
			}
		}
		n += r.mask(body[f.headers:f.payload], spelled) + r.mask(payload, spelled)
		f.seal(body)
	}
	return n + r.mask(body[end:], spelled)
}

const mark = "REDACTED"

// mask writes over what is a secret, and says how many there were.
func (r *Redactor) mask(b []byte, spelled [][]byte) (n int) {
	for _, s := range spelled {
		for at := 0; ; {
			i := bytes.Index(b[at:], s)
			if i < 0 {
				break
			}
			over(b[at+i : at+i+len(s)])
			at += i + len(s)
			n++
		}
	}
	found := func(from, to int) {
		if !marked(b[from:to]) {
			over(b[from:to])
			n++
		}
	}
	for i := range r.forms {
		f := &r.forms[i]
		if !f.possible(b) {
			continue
		}
		for _, m := range f.FindAllSubmatchIndex(b, -1) {
			if len(m) > 2 && m[2] >= 0 {
				found(m[2], m[3])
			} else {
				found(m[0], m[1])
			}
		}
	}
	for from, to := range secretValues(b) {
		found(from, to)
	}
	return n
}

// over writes the mark over a secret, of which it has the length.
func over(b []byte) {
	for i := copy(b, mark); i < len(b); i++ {
		b[i] = '-'
	}
}

// marked says that b was written over.
func marked(b []byte) bool {
	n := min(len(b), len(mark))
	return string(b[:n]) == mark[:n] && len(bytes.Trim(b[n:], "-")) == 0
}

// spellings are the secrets in all the ways that they may be written in: as they are, in JSON, in a URL.
func spellings(secrets []string) (all [][]byte) {
	for _, s := range secrets {
		coded := provider.AppendString(nil, s)
		for _, form := range [][]byte{[]byte(s), coded[1 : len(coded)-1], []byte(url.QueryEscape(s)), []byte(url.PathEscape(s)), []byte(strings.ReplaceAll(s, "/", `\/`))} {
			if !slices.ContainsFunc(all, func(b []byte) bool { return bytes.Equal(b, form) }) {
				all = append(all, form)
			}
		}
	}
	// In JSON a quote in a secret has a backslash before it, which goes with it.
	slices.SortStableFunc(all, func(a, b []byte) int { return len(b) - len(a) })
	return all
}
