package openai

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// words are what the vendor says of a reason when the failure does not say it itself.
type words struct {
	status              int
	kind, code, message string
}

const (
	invalid   = "invalid_request_error"
	overQuota = "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
	findKey   = " You can find your API key at https://platform.openai.com/account/api-keys."
)

var said = map[llmmock.Reason]words{
	llmmock.BadRequest:      {400, invalid, "", "The request could not be understood."},
	llmmock.Unauthenticated: {401, invalid, "invalid_api_key", "Incorrect API key provided." + findKey},
	llmmock.NoCredit:        {429, "insufficient_quota", "insufficient_quota", overQuota},
	llmmock.Forbidden:       {403, invalid, "missing_scope", "You have insufficient permissions for this operation. Missing scopes: model.request."},
	llmmock.NotFound:        {404, invalid, "", "The requested resource was not found."},
	llmmock.Conflict:        {409, invalid, "", "The request conflicts with another one that was made at the same time."},
	llmmock.TooLarge:        {413, invalid, "", "The request body is too large."},
	llmmock.Unprocessable:   {422, invalid, "", "The request was understood but cannot be processed."},
	llmmock.RateLimited:     {429, "requests", "rate_limit_exceeded", ""},
	llmmock.QuotaExhausted:  {429, "insufficient_quota", "insufficient_quota", overQuota},
	llmmock.Broken:          {500, "server_error", "", "The server had an error while processing your request. Sorry about that!"},
	llmmock.Unavailable:     {503, "server_error", "", "The engine is currently overloaded, please try again later."},
	llmmock.TimedOut:        {504, "server_error", "", "The request timed out."},
	llmmock.Overloaded:      {503, "service_unavailable_error", "server_is_overloaded", "Our servers are currently overloaded. Please try again later."},
	llmmock.MethodUnknown:   {405, invalid, "method_not_supported", "Not allowed to use this method here. (HINT: Perhaps you meant to use a different HTTP method?)"},
}

// azures are where Azure differs: its gateway answers before the model's server does, with the status as the code.
var azures = map[llmmock.Reason]words{
	llmmock.Unauthenticated: {401, "", "401", "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."},
	llmmock.Forbidden:       {403, "", "403", "Access denied due to Virtual Network/Firewall rules."},
	llmmock.NotFound:        {404, "", "404", "Resource not found"},
	llmmock.RateLimited:     {429, "", "429", ""},
	llmmock.Broken:          {500, "server_error", "InternalServerError", "The server had an error processing your request. Sorry about that!"},
	llmmock.Unavailable:     {503, "", "ServiceUnavailable", "The service is temporarily unable to process your request. Please try again later."},
	llmmock.Overloaded:      {503, "", "ServiceUnavailable", "The service is temporarily unable to process your request. Please try again later."},
	llmmock.TimedOut:        {408, "", "Timeout", "The operation was timeout."},
}

// noModel is the code of a model that does not exist, which both vendors have words of their own for.
const noModel = "model_not_found"

// resolve is a failure in the vendor's words. x may be nil.
func (w *wire) resolve(f *llmmock.Failure, x *llmmock.Exchange) words {
	r, ok := said[f.Reason]
	if !ok {
		r = said[llmmock.Broken]
	}
	special, azure := azures[f.Reason]
	if azure = azure && w.azure(); azure {
		r = special
	}
	model, key := "", ""
	if x != nil {
		model, key = x.Model, x.Key
	}
	switch {
	case f.Reason == llmmock.NotFound && (f.Code == noModel || f.Field == "model"):
		r.code, r.message = noModel, "The model `"+shorten(model)+"` does not exist or you do not have access to it."
		if azure {
			r.code, r.message = "DeploymentNotFound", "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again."
		}
	case f.Reason == llmmock.Unauthenticated && key == "" && !azure && x != nil:
		r.code, r.message = "", "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), "+
			"or as the password field (with blank username) if you're accessing the API from your browser and are prompted for a username and password."+
			" You can obtain an API key from https://platform.openai.com/account/api-keys."
	case f.Reason == llmmock.Unauthenticated && key != "" && !azure:
		shown, _, fingerprint := strings.Cut(key, "…")
		if !fingerprint {
			shown = ""
		}
		r.message = "Incorrect API key provided: " + shown + "********." + findKey
	case f.Reason == llmmock.RateLimited:
		r = w.limited(r, f, x, azure)
	}
	if f.Status != 0 {
		r.status = f.Status
	}
	if f.Message != "" {
		r.message = f.Message
	}
	if f.Code != "" && (!azure || f.Code != noModel) {
		r.code = f.Code
	}
	if azure && f.Field != "" && f.Field != "model" {
		r.kind = invalid // of the model's server behind the gateway
	}
	return r
}

// limited tells which of the limits it was.
func (w *wire) limited(r words, f *llmmock.Failure, x *llmmock.Exchange, azure bool) words {
	spent := llmmock.Spent{}
	if f.Spent != nil {
		spent = *f.Spent
	}
	if azure {
		r.message = "Requests to the " + operation(x) + " have exceeded call rate limit of your current OpenAI S0 pricing tier."
		if spent.Tokens {
			r.message = strings.Replace(r.message, " call ", " token ", 1)
		}
		if f.RetryAfter > 0 {
			r.message += " Please retry after " + strconv.Itoa(seconds(f.RetryAfter)) + " seconds."
		}
		r.message += " Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."
		return r
	}
	r.kind = "requests"
	on := " on requests per min (RPM)"
	if spent.Tokens {
		r.kind, on = "tokens", " on tokens per min (TPM)"
	}
	if x != nil {
		on = " for " + shorten(x.Model) + " in organization " + w.Organization + on
	}
	limit, requested := ": Limit "+strconv.Itoa(spent.PerMinute), ", Requested "+strconv.Itoa(spent.Requested)+"."
	switch {
	case f.Spent == nil:
		r.message = "Rate limit reached" + on + "."
	case spent.Never():
		r.message = "Request too large" + on + limit + requested + " The input or output tokens must be reduced in order to run successfully."
	default:
		r.message = "Rate limit reached" + on + limit + ", Used " + strconv.Itoa(max(spent.PerMinute-spent.Remaining, 0)) + requested
	}
	if f.RetryAfter > 0 {
		r.message += " Please try again in " + reset(f.RetryAfter) + "."
	}
	r.message += " Visit https://platform.openai.com/account/rate-limits to learn more."
	return r
}

// operation is what Azure calls what was asked for.
func operation(x *llmmock.Exchange) string {
	name := "Responses_Create"
	switch {
	case x == nil:
		return azureOperation
	case strings.Contains(x.Path, "/chat/completions"):
		name = "ChatCompletions_Create"
	case strings.Contains(x.Path, "/completions"):
		name = "Completions_Create"
	case strings.Contains(x.Path, "/embeddings"):
		name = "Embeddings_Create"
	}
	return name + " " + azureOperation
}

const azureOperation = "Operation under Azure OpenAI API"

// appendError appends {"error":…}.
func (w *wire) appendError(dst []byte, r words, f *llmmock.Failure) []byte {
	if w.azure() && r.kind == "" {
		dst = append(dst, `{"error":{"code":`...)
		dst = provider.AppendString(dst, r.code)
		dst = append(dst, `,"message":`...)
		dst = provider.AppendString(dst, r.message)
		return append(dst, `}}`...)
	}
	dst = append(dst, `{"error":{"message":`...)
	dst = provider.AppendString(dst, r.message)
	dst = append(dst, `,"type":`...)
	dst = provider.AppendString(dst, r.kind)
	dst = append(dst, `,"param":`...)
	field := f.Field
	if r.code == noModel {
		field = ""
	}
	dst = appendOrNull(dst, field)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, r.code)
	if f.Code == "content_filter" && w.azure() {
		dst = append(dst, `,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":`+filtered+`}`...)
	}
	return append(dst, `}}`...)
}

// appendOrNull appends a string, and null when it is empty.
func appendOrNull(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return provider.AppendString(dst, s)
}

// failure is the API's, outside of any route.
func (w *wire) failure(h http.Header, f *llmmock.Failure, id string) (status int, body []byte) {
	w.identify(h, id)
	retry(h, f)
	h["Content-Type"] = []string{jsonType}
	r := w.resolve(f, nil)
	if f.Reason == llmmock.NotFound && f.Code == "" { // a path that there is not
		if w.azure() {
			r.message = azures[f.Reason].message
		} else {
			r.code = "unknown_url"
		}
	}
	return r.status, w.appendError(nil, r, f)
}

// Failure implements provider.Format.
func (f *format) Failure(dst []byte, failure *llmmock.Failure, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	r := f.w.resolve(failure, x)
	if f.version != "" {
		r.message = strings.Replace(r.message, azureOperation, azureOperation+" version "+f.version, 1)
	}
	return r.status, jsonType, f.w.appendError(dst, r, failure)
}

// failureChunk is how completions fail in the middle of a stream.
func (f *format) failureChunk(dst []byte, failure *llmmock.Failure, x *llmmock.Exchange) []byte {
	dst = append(dst, "data: "...)
	dst = f.w.appendError(dst, f.w.resolve(failure, x), failure)
	return append(dst, "\n\n"...)
}

var apiVersion = []string{"2020-10-01"}

// identify sets whose answer this is.
func (w *wire) identify(h http.Header, id string) {
	if w.azure() {
		h["Apim-Request-Id"] = []string{uuid(id)}
		h["X-Request-Id"] = []string{uuid(id)}
		return
	}
	h["X-Request-Id"] = []string{"req_" + id}
	h["Openai-Version"] = apiVersion
	h["Openai-Organization"] = w.organization
}

// uuid is an id in the form of RFC 9562 §4.
func uuid(id string) string {
	if len(id) != 32 {
		return id
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// Header implements provider.Format.
func (f *format) Header(h http.Header, x *llmmock.Exchange) {
	f.w.identify(h, x.ID)
	if f.w.azure() {
		h["X-Ms-Region"] = []string{x.Region}
		if f.version != "" {
			h["Api-Supported-Versions"] = []string{f.version}
		}
	} else {
		h["Openai-Processing-Ms"] = []string{strconv.FormatInt(max(took(x).Milliseconds(), 0), 10)}
	}
	if l := x.Limits; l != nil {
		limits(h, "Requests", l.Requests)
		limits(h, "Tokens", l.Tokens)
	}
	switch {
	case x.Failure != nil:
		retry(h, x.Failure)
	case x.Fault.Kind == llmmock.FailStatus || x.Fault.Kind == llmmock.FailInBody:
		retry(h, &x.Fault.Failure)
	}
}

// limits sets the three headers of one bucket; a bucket without a limit has none.
func limits(h http.Header, of string, l llmmock.Limit) {
	if l.Limit <= 0 {
		return
	}
	h["X-Ratelimit-Limit-"+of] = []string{strconv.Itoa(l.Limit)}
	h["X-Ratelimit-Remaining-"+of] = []string{strconv.Itoa(max(l.Remaining, 0))}
	h["X-Ratelimit-Reset-"+of] = []string{reset(l.Reset)}
}

// reset is a duration as the vendor writes it, such as 6m0s or 12ms: never shorter than d.
func reset(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	return ((d + time.Millisecond - 1) / time.Millisecond * time.Millisecond).String()
}

// retry says when to come back, in two units.
func retry(h http.Header, f *llmmock.Failure) {
	if f.RetryAfter <= 0 {
		return
	}
	h["Retry-After"] = []string{strconv.Itoa(seconds(f.RetryAfter))}
	h["Retry-After-Ms"] = []string{strconv.FormatInt(int64((f.RetryAfter+time.Millisecond-1)/time.Millisecond), 10)}
}

func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
