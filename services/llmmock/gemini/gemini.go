// Package gemini speaks Google's HTTP API of its Gemini models: the generation of content in one piece and as a stream (of
// server-sent events, or of the elements of one JSON array), the counting of tokens, embeddings and the list of models. The paths
// of the Gemini API and those of Vertex AI, which name a project and a region before the model, are both served.
//
// Vertex AI also has Claude, with Anthropic's own bodies; package anthropic reads and writes them.
//
// Start at New.
package gemini

import (
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// Config of the API. The zero value is good.
type Config struct {
	// Validate checks a body against a full specification after it was decoded; route is the pattern of the route, with a colon and
	// the method behind it. Nil for none.
	Validate func(route string, body []byte) *llmmock.Failure
}

// method is one that a model has, after the colon of its path.
type method struct {
	name   string
	decode func(c *call) (provider.Format, *llmmock.Failure)
}

var methods = []method{
	{"generateContent", decodeGenerate},
	{"streamGenerateContent", decodeStream},
	{"countTokens", decodeCount},
	{"embedContent", decodeEmbed},
	{"batchEmbedContents", decodeBatch},
	{"predict", decodePredict},
	{"rawPredict", decodeRaw},
	{"streamRawPredict", decodeStreamRaw},
}

// call is a request of one method of a model.
type call struct {
	q    *llmmock.Request
	r    *http.Request
	body []byte
	format
}

// format is what all of the formats share.
type format struct {
	q *llmmock.Request
	// version of the API in the path, and whether the path is Vertex AI's.
	version string
	vertex  bool
}

// New is the API. What Decode refuses although it understood it comes with a Format, so that a lenient server can go on with it;
// without a Format there is nothing to go on with.
func New(c Config) provider.API {
	api := provider.API{Vendor: llmmock.Gemini, Failure: failure}
	add := func(pattern string, decode func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure)) {
		api.Routes = append(api.Routes, provider.Route{Pattern: pattern, Decode: decode})
	}
	for _, v := range []string{"v1", "v1alpha", "v1beta"} {
		for _, models := range []string{"models", "tunedModels"} {
			add("POST /"+v+"/"+models+"/{model}", c.method("POST /"+v+"/"+models+"/{model}", v, false))
		}
		add("GET /"+v+"/models", func(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
			return decodeModels(q, r, format{q: q, version: v})
		})
		add("GET /"+v+"/models/{model}", func(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
			return decodeModel(q, r, format{q: q, version: v})
		})
	}
	for _, v := range []string{"v1", "v1beta1"} {
		place := "/" + v + "/projects/{project}/locations/{location}"
		for _, models := range []string{place + "/publishers/{publisher}/models/{model}", place + "/endpoints/{model}", "/" + v + "/publishers/{publisher}/models/{model}"} {
			add("POST "+models, c.method("POST "+models, v, true))
		}
		for _, models := range []string{"/" + v + "/publishers/{publisher}/models", place + "/publishers/{publisher}/models"} {
			add("GET "+models, func(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
				return decodeModels(q, r, format{q: q, version: v, vertex: true})
			})
			add("GET "+models+"/{model}", func(q *llmmock.Request, r *http.Request, _ []byte) (provider.Format, *llmmock.Failure) {
				return decodeModel(q, r, format{q: q, version: v, vertex: true})
			})
		}
	}
	return api
}

// method serves all methods of a model: a pattern cannot tell them apart, because they stand in the same segment of the path.
func (c *Config) method(pattern, version string, vertex bool) func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	return func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
		model, name, _ := strings.Cut(r.PathValue("model"), ":")
		q.Model = model
		if vertex {
			q.Region = r.PathValue("location")
		}
		for i := range methods {
			if methods[i].name != name || strings.HasSuffix(strings.ToLower(name), "rawpredict") && r.PathValue("publisher") != "anthropic" {
				continue
			}
			f, refused := methods[i].decode(&call{q: q, r: r, body: body, format: format{q: q, version: version, vertex: vertex}})
			if f != nil && c.Validate != nil {
				if invalid := c.Validate(pattern+":"+name, body); invalid != nil {
					refused = invalid
				}
			}
			return f, refused
		}
		return nil, &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound}
	}
}

// Header implements provider.Format.
func (f *format) Header(h http.Header, x *llmmock.Exchange) {
	commonHeader(h)
	h["Server-Timing"] = []string{"gfet4t7; dur=" + strconv.FormatInt(x.Schedule.First.Milliseconds(), 10)}
}

var vary = []string{"Origin", "X-Origin", "Referer"}

func commonHeader(h http.Header) {
	h["Vary"] = vary
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["X-Frame-Options"] = []string{"SAMEORIGIN"}
	h["X-Xss-Protection"] = []string{"0"}
}

// responseID is the vendor's short form of an id.
func responseID(x *llmmock.Exchange) string { return x.ID[:min(len(x.ID), 22)] }
