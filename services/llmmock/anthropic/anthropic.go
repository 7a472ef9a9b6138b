// Package anthropic speaks Anthropic's HTTP API: messages with their stream, the counting of tokens, and the text completions
// that came before them. It turns their bodies into requests of package llmmock and writes what was decided on them; the beta
// forms are the same paths. Objects such as message batches, models and files are not here but in package spec.
//
// Start at New.
package anthropic

import (
	"cmp"
	"net/http"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// Versions of the API, one of which its clients name in the header anthropic-version; it does not do without. The recent one takes no settings of
// sampling, no documents in what the assistant said and no citations in what the user did, and its betas are told by a header alone.
const (
	Version       = "2023-06-01"
	RecentVersion = "2026-10-21"
)

// MaxMessages in one request.
const MaxMessages = 100_000

// Config of the API. The zero value is good.
type Config struct {
	// Validate checks a body against the vendor's full specification after it was decoded; route is the pattern of the route, with
	// ?beta=true behind it when the request says so. Nil for none.
	Validate func(route string, body []byte) *llmmock.Failure
	// Organization that answers are said to be for, a UUID; empty for a made-up one.
	Organization string

	threads *threads
}

// organization is the made-up one.
const organization = "5d7a1b0e-3f62-4c58-9a41-c0e3b7d2f916"

// New is the API. What Decode refuses although it understood it comes with a Format, so that a lenient server can go on with it;
// without a Format there is nothing to go on with.
func New(c Config) provider.API {
	if c.Organization == "" {
		c.Organization = organization
	}
	c.threads = provider.NewStore[*thread](maxThreads, threadBytes)
	return provider.API{
		Vendor: llmmock.Anthropic,
		Routes: []provider.Route{
			{Pattern: "POST /v1/messages", Decode: c.messages},
			{Pattern: "POST /v1/messages/count_tokens", Decode: c.countTokens},
			{Pattern: "POST /v1/complete", Decode: c.complete},
		},
		Failure: c.failure,
	}
}

// format is what all of the formats share.
type format struct {
	organization string
	q            *llmmock.Request
	beta         bool
}

// Envelope is what is around every answer, for the answers that others write: the form of an error, and the headers.
func Envelope(c Config) (failure func(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (status int, contentType string, body []byte), header func(h http.Header, x *llmmock.Exchange)) {
	of := func(x *llmmock.Exchange) *format {
		return &format{organization: cmp.Or(c.Organization, organization), q: x.Request}
	}
	return func(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (int, string, []byte) {
			return of(x).Failure(dst, f, x)
		},
		func(h http.Header, x *llmmock.Exchange) { of(x).Header(h, x) }
}

func (c *Config) format(q *llmmock.Request, r *http.Request) format {
	return format{organization: c.Organization, q: q, beta: len(r.Header["Anthropic-Beta"]) > 0 || r.URL.RawQuery != "" && r.URL.Query().Get("beta") == "true"}
}

// check is the full validation of what was decoded.
func (c *Config) check(route string, beta bool, body []byte) *llmmock.Failure {
	if c.Validate == nil {
		return nil
	}
	if beta {
		route += "?beta=true"
	}
	return c.Validate(route, body)
}

// recent says whether the request names the recent version of the API.
func recent(r *http.Request) bool {
	v := r.Header["Anthropic-Version"]
	return len(v) > 0 && v[0] == RecentVersion
}

// versioned is the refusal of a request that names no version of the API.
func versioned(r *http.Request) *llmmock.Failure {
	if len(r.Header["Anthropic-Version"]) > 0 {
		return nil
	}
	return &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Field: "anthropic-version", Message: "header is required"}
}

// Known says whether the vendor could have a model of this name.
func Known(model string) bool { return strings.HasPrefix(model, "claude-") }
