// Package provider is what the formats of all model providers have in common, so that one server can speak each of them: an API
// is a set of routes, a route makes of an HTTP request a llmmock.Request, and a Format writes what was decided on it. The
// adapters openai, anthropic, gemini and bedrock implement it; serve uses it.
package provider

import (
	"iter"
	"net/http"

	"edgehold.internal/services/llmmock"
)

// API is one vendor's HTTP interface.
type API struct {
	Vendor llmmock.Vendor
	Routes []Route
	// Known says whether the vendor has a model; nil when nobody can say.
	Known func(model string) bool
	// Failure writes an error outside of any route, such as an unknown path or a body over the limit, in the vendor's form.
	Failure func(h http.Header, f *llmmock.Failure, id string) (status int, body []byte)
}

// Route is one endpoint.
type Route struct {
	// Pattern as in http.ServeMux, method and path, such as "POST /v1/chat/completions".
	Pattern string
	// Decode reads a request with its whole body and says in which format it is answered. What the vendor would refuse is a
	// Failure, and the Format may be nil then. It sets of the Request what the body, the path and the vendor's own headers tell;
	// the server has set Method, Path, Key, Scenario, Client, Run, Hash, At and Size before. It must not keep r or body.
	Decode func(q *llmmock.Request, r *http.Request, body []byte) (Format, *llmmock.Failure)
}

// Format writes the answer to one request. It belongs to that request and is used by one goroutine at a time.
type Format interface {
	// Header sets what the vendor sends beside every answer, good or bad: ids, limits, the time it took.
	Header(h http.Header, x *llmmock.Exchange)
	// Whole appends the answer in one piece to dst, with a status of 200 unless it says another.
	Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte)
	// StreamType is the content type of a stream.
	StreamType() string
	// Stream yields the answer in the pieces in which the vendor flushes them.
	Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk]
	// Failure appends the vendor's form of an error to dst.
	Failure(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (status int, contentType string, body []byte)
	// FailureChunk appends how the vendor says in the middle of a stream that it failed, to dst; nothing when it has no words for it.
	FailureChunk(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) []byte
}
