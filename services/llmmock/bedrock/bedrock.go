// Package bedrock speaks the runtime API of Amazon Bedrock: Converse and InvokeModel, each in one piece and as a stream of binary
// event frames, and the counting of tokens. What the body of InvokeModel is depends on whose the model is: those of Anthropic,
// of Amazon (Titan and Nova) and of Meta are here, and the id of the model tells, or the body when the id is an opaque ARN.
// Signatures of requests are verified by Verify; whether one that does not fit is refused is the server's to say.
//
// Start at New.
package bedrock

import (
	"net/http"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// Config of the API. The zero value is good.
type Config struct {
	// Validate checks a body against a full specification after it was decoded; route is the pattern of the route. Nil for none.
	Validate func(route string, body []byte) *llmmock.Failure
	// Secret is the secret access key that belongs to an access key's id, to verify signatures with; see Verify. Nil knows none.
	Secret func(id string) (secret string, ok bool)
	// Now is the clock that signatures are compared with; nil for the request's arrival.
	Now func() time.Time
}

// New is the API. What Decode refuses although it understood it comes with a Format, so that a lenient server can go on with it;
// without a Format there is nothing to go on with.
func New(c Config) provider.API {
	api := provider.API{Vendor: llmmock.Bedrock, Failure: failure}
	for _, route := range []struct {
		name   string
		decode func(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure)
	}{
		{"converse", decodeConverse},
		{"converse-stream", decodeConverseStream},
		{"invoke", decodeInvoke},
		{"invoke-with-response-stream", decodeInvokeStream},
		{"count-tokens", decodeCount},
	} {
		pattern := "POST /model/{modelId}/" + route.name
		api.Routes = append(api.Routes, provider.Route{Pattern: pattern, Decode: func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
			q.Model = r.PathValue("modelId")
			asked := q.Region
			if region := regionOf(r); region != "" {
				q.Region = region
			}
			f, refused := route.decode(format{q: q, latency: r.Header.Get("X-Amzn-Bedrock-Performanceconfig-Latency"), tier: r.Header.Get("X-Amzn-Bedrock-Service-Tier")}, q, body)
			if f != nil && c.Validate != nil {
				if invalid := c.Validate(pattern, body); invalid != nil {
					refused = invalid
				}
			}
			q.Forged = unknownKey
			if c.Secret != nil {
				now := q.At
				if c.Now != nil {
					now = c.Now()
				}
				q.Forged = Verify(r, body, c.Secret, asked, now)
			}
			return f, refused
		}})
	}
	return api
}

// format is what all of the formats share.
type format struct {
	q *llmmock.Request
	// latency and tier that were asked for, and are answered.
	latency, tier string
	// invoked: the answer's headers tell its usage.
	invoked bool
}

// Header implements provider.Format.
func (f *format) Header(h http.Header, x *llmmock.Exchange) {
	h["X-Amzn-Requestid"] = []string{uuid(x.ID)}
	switch {
	case x.Failure != nil:
		h["X-Amzn-Errortype"] = f.kindOf(x.Failure).errorType()
	case x.Fault.Kind == llmmock.FailStatus:
		h["X-Amzn-Errortype"] = f.kindOf(&x.Fault.Failure).errorType()
	case f.invoked && x.Answer != nil:
		f.invokeHeader(h, x)
	}
}

// uuid is an id of 32 characters in groups.
func uuid(id string) string {
	if len(id) != 32 {
		return id
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// family is whose model it is, and so what InvokeModel's body is.
type family int

const (
	unknown family = iota
	anthropicMessages
	titanText
	titanEmbed
	nova
	llama
)

// families by what the id of the model begins with.
var families = []struct {
	prefix string
	family family
}{
	{"anthropic.", anthropicMessages},
	{"amazon.titan-text", titanText},
	{"amazon.titan-tg1", titanText},
	{"amazon.titan-embed", titanEmbed},
	{"amazon.nova", nova},
	{"meta.llama", llama},
}

// baseID is the id of the foundation model in any of the forms of a model's identifier: itself, an inference profile such as
// eu.anthropic.claude-…, or the ARN of one of these. Of an ARN that hides the model it is the last part.
func baseID(id string) string {
	if strings.HasPrefix(id, "arn:") {
		id = id[strings.LastIndexByte(id, '/')+1:]
	}
	for _, region := range [...]string{"us.", "eu.", "apac.", "us-gov.", "global.", "jp.", "au.", "ca.", "sa."} {
		if rest, ok := strings.CutPrefix(id, region); ok {
			return rest
		}
	}
	return id
}

func familyOf(id string) family {
	id = baseID(id)
	for _, f := range families {
		if strings.HasPrefix(id, f.prefix) {
			return f.family
		}
	}
	return unknown
}

// opaque says whether the id is an ARN that does not name a foundation model.
func opaque(id string) bool {
	return strings.HasPrefix(id, "arn:") && (strings.Contains(id, ":provisioned-model/") || strings.Contains(id, ":application-inference-profile/") ||
		strings.Contains(id, ":imported-model/") || strings.Contains(id, ":custom-model-deployment/"))
}

// Known says whether the vendor offers a model of this identifier, as far as its maker and name tell.
func Known(id string) bool {
	if opaque(id) {
		return true
	}
	base := baseID(id)
	for _, maker := range [...]string{"amazon.nova-", "amazon.titan-", "anthropic.claude-", "meta.llama", "mistral.", "cohere.", "ai21.", "deepseek.", "openai.gpt-oss-", "qwen.", "writer."} {
		if strings.HasPrefix(base, maker) {
			return true
		}
	}
	return false
}
