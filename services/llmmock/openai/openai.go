// Package openai speaks OpenAI's HTTP API and Azure's version of it: chat completions and responses with what is stored of them,
// completions and embeddings, each in one piece and as the vendor streams it. It turns their bodies into requests of package llmmock and
// writes what was decided on them. All other objects are package spec's.
//
// Start at New.
package openai

import (
	"net/http"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// Config of the APIs. The zero value is good.
type Config struct {
	// Validate checks a body against the vendor's full specification after it was decoded; route is OpenAI's, such as
	// "POST /v1/chat/completions", for Azure's paths too. Nil for none.
	Validate func(route string, body []byte) *llmmock.Failure
	// Organization that answers are said to be for; empty for a made-up one.
	Organization string
	// Region that Azure's answers are said to be from when the request names none; empty for eastus.
	Region string
	// Stored is how many responses, and as many chat completions, are kept for those who ask for them later, and StoredBytes how
	// many bytes of either and of what they answer; the oldest are forgotten. 0 for 10,000 and 64 MiB.
	Stored      int
	StoredBytes int
}

// New is OpenAI's API and Azure's. They share what is stored.
//
// What Decode refuses although it understood it comes with a Format, so that a lenient server can go on with it; without a Format
// there is nothing to go on with. Answers of exchanges are kept for stored responses and must not be changed after they were made.
func New(c Config) []provider.API {
	c = c.complete()
	open := &wire{Config: c, vendor: llmmock.OpenAI, organization: []string{c.Organization},
		stored: provider.NewStore[*entry](c.Stored, c.StoredBytes), chats: provider.NewStore[*storedChat](c.Stored, c.StoredBytes)}
	azure := new(wire)
	*azure = *open
	azure.vendor = llmmock.Azure
	return []provider.API{
		{Vendor: llmmock.OpenAI, Routes: open.routes("/v1"), Failure: open.failure},
		{Vendor: llmmock.Azure, Routes: append(azure.routes("/openai/v1"), azure.deployments()...), Failure: azure.failure},
	}
}

// Envelope is what is around every answer of OpenAI or Azure, for the answers that others write: the form of an error, and the
// headers.
func Envelope(c Config, v llmmock.Vendor) (failure func(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (status int, contentType string, body []byte), header func(h http.Header, x *llmmock.Exchange)) {
	c = c.complete()
	f := &format{w: &wire{Config: c, vendor: v, organization: []string{c.Organization}}}
	return f.Failure, f.Header
}

// complete is c with what it does not say.
func (c Config) complete() Config {
	if c.Organization == "" {
		c.Organization = "org-edgehold-mock"
	}
	if c.Region == "" {
		c.Region = "eastus"
	}
	if c.Stored <= 0 {
		c.Stored = 10_000
	}
	if c.StoredBytes <= 0 {
		c.StoredBytes = 64 << 20
	}
	return c
}

// wire is one of the two APIs.
type wire struct {
	Config
	vendor       llmmock.Vendor
	stored       *provider.Store[*entry]
	chats        *provider.Store[*storedChat]
	organization []string // as a header's value
}

func (w *wire) azure() bool { return w.vendor == llmmock.Azure }

func (w *wire) routes(base string) []provider.Route {
	chats := base + "/chat/completions"
	return append([]provider.Route{
		{Pattern: "POST " + chats, Decode: w.decodeChat},
		{Pattern: "GET " + chats, Decode: w.listChats},
		{Pattern: "GET " + chats + "/{completion_id}", Decode: w.getChat},
		{Pattern: "POST " + chats + "/{completion_id}", Decode: w.updateChat},
		{Pattern: "DELETE " + chats + "/{completion_id}", Decode: w.deleteChat},
		{Pattern: "GET " + chats + "/{completion_id}/messages", Decode: w.listMessages},
		{Pattern: "POST " + base + "/completions", Decode: w.decodeCompletion},
		{Pattern: "POST " + base + "/embeddings", Decode: w.decodeEmbedding},
	}, w.responses(base)...)
}

func (w *wire) responses(base string) []provider.Route {
	base += "/responses"
	return []provider.Route{
		{Pattern: "POST " + base, Decode: w.decodeResponse},
		{Pattern: "POST " + base + "/input_tokens", Decode: w.decodeInputTokens},
		{Pattern: "GET " + base + "/{response_id}", Decode: w.getResponse},
		{Pattern: "DELETE " + base + "/{response_id}", Decode: w.deleteResponse},
		{Pattern: "POST " + base + "/{response_id}/cancel", Decode: w.cancelResponse},
		{Pattern: "GET " + base + "/{response_id}/input_items", Decode: w.listInputItems},
	}
}

// deployments are Azure's older paths, which name a version of the API; the model of a request is its deployment.
func (w *wire) deployments() []provider.Route {
	const base = "/openai/deployments/{deployment}"
	routes := append([]provider.Route{
		{Pattern: "POST " + base + "/chat/completions", Decode: w.decodeChat},
		{Pattern: "POST " + base + "/completions", Decode: w.decodeCompletion},
		{Pattern: "POST " + base + "/embeddings", Decode: w.decodeEmbedding},
	}, w.responses("/openai")...)
	for i := range routes {
		routes[i].Decode = dated(routes[i].Decode)
	}
	return routes
}

// format is what the formats of all routes share.
type format struct {
	w *wire
	// version of Azure's API that was asked for; empty for none.
	version string
}

func (w *wire) format(q *llmmock.Request, r *http.Request) format {
	q.Vendor, q.Operation, q.ParallelCalls, q.Choices = w.vendor, llmmock.Generate, true, 1
	f := format{w: w}
	if w.azure() {
		f.version = r.URL.Query().Get("api-version")
		if q.Region == "" {
			q.Region = w.Region
		}
	}
	return f
}

// StreamType implements provider.Format.
func (f *format) StreamType() string { return "text/event-stream; charset=utf-8" }

const jsonType = "application/json"

// usage of all choices: what was asked counts once.
func usage(x *llmmock.Exchange) llmmock.Usage {
	if x.Answer == nil {
		return llmmock.Usage{}
	}
	u := x.Answer.Usage
	for _, a := range x.More {
		u.Output += a.Usage.Output
		u.Reasoning += a.Usage.Reasoning
	}
	return u
}

// choice is the i-th answer.
func choice(x *llmmock.Exchange, i int) *llmmock.Answer {
	if i == 0 {
		return x.Answer
	}
	return x.More[i-1]
}

// choices is how many answers there are.
func choices(x *llmmock.Exchange) int { return 1 + len(x.More) }

// tokens are the pieces in which the text of a is streamed.
func tokens(a *llmmock.Answer) []string {
	if len(a.Tokens) == 0 && a.Text != "" {
		return []string{a.Text}
	}
	return a.Tokens
}

// thought is how many pieces were thought before the first one of the text or of a call; all choices think at the same time.
func thought(x *llmmock.Exchange) int {
	n := len(x.Answer.ThinkingTokens)
	for _, a := range x.More {
		n = max(n, len(a.ThinkingTokens))
	}
	return n
}

// took is how long the answer took by its schedule: to its first piece when it is streamed, else to its end.
func took(x *llmmock.Exchange) time.Duration {
	if x.Stream || x.Answer == nil {
		return x.Schedule.First
	}
	return whole(x)
}

// whole is when the answer is complete.
func whole(x *llmmock.Exchange) time.Duration {
	if x.Answer == nil {
		return x.Schedule.First
	}
	return x.Schedule.Whole(len(x.Answer.ThinkingTokens) + max(len(x.Answer.Tokens), x.Answer.Usage.Output))
}
