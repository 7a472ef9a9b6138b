package anthropic

import (
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider/providertest"
)

func TestWords(t *testing.T) {
	const (
		page    = "the vendor's page on errors"
		spec    = "the defaults in the specification that anthropic-sdk-go brings along"
		reports = "answers of the API that people quote in public issues"
		none    = "no source for the sentence"
	)
	q, f, _ := decode(t, "/v1/messages", small)
	q.Key = "sk-ant-…1"
	x := providertest.Exchange(q, nil)
	said := func(kind, message string) []string {
		return []string{`{"type":"error","error":{"type":"` + kind + `","message":"` + message, `"request_id":"req_01`}
	}
	providertest.Said(t, f, x, []providertest.Words{
		{Failure: llmmock.Failure{Reason: llmmock.BadRequest}, Status: 400, Says: said("invalid_request_error", `Invalid request"`), Source: spec},
		{Failure: llmmock.Failure{Reason: llmmock.Unauthenticated}, Status: 401, Says: said("authentication_error", `invalid x-api-key"`), Source: page + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.NoCredit}, Status: 402, Says: said("billing_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."), Source: page + "; the sentence is of " + reports + ", there with 400"},
		{Failure: llmmock.Failure{Reason: llmmock.Forbidden}, Status: 403, Says: said("permission_error", "Your API key does not have permission to use the specified resource."), Source: page},
		{Failure: llmmock.Failure{Reason: llmmock.NotFound}, Status: 404, Says: said("not_found_error", "model: "+q.Model+`"`), Source: "anthropics/anthropic-sdk-typescript#690"},
		{Failure: llmmock.Failure{Reason: llmmock.MethodUnknown}, Status: 405, Says: said("invalid_request_error", "Method Not Allowed"), Source: page + " (other 4XX); " + none},
		{Failure: llmmock.Failure{Reason: llmmock.Conflict}, Status: 409, Says: said("conflict_error", "The request conflicts with the current state of the resource."), Source: page},
		{Failure: llmmock.Failure{Reason: llmmock.TooLarge}, Status: 413, Says: said("request_too_large", "Request exceeds the maximum size"), Source: page + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.Unprocessable}, Status: 422, Says: said("invalid_request_error", "Invalid request"), Source: page + " (other 4XX), " + spec},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited}, Status: 429, Says: said("rate_limit_error", "This request would exceed your account's rate limit. Please try again later."), Source: page + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: time.Second, Spent: &llmmock.Spent{Tokens: true, PerMinute: 30000, Size: 30000, Remaining: 10, Requested: 100}}, Status: 429,
			Says: said("rate_limit_error", "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: "+organization+", model: "+q.Model+"). For details, refer to: https://docs.claude.com/en/api/rate-limits."), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, Spent: &llmmock.Spent{PerMinute: 5, Size: 5, Requested: 1}}, Status: 429, Says: said("rate_limit_error", "This request would exceed your organization's rate limit of 5 requests per minute (org: "), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.QuotaExhausted}, Status: 429, Says: said("rate_limit_error", "This request would exceed your organization's usage limit for this period."), Source: page + " (the tier's cap on spending); " + none},
		{Failure: llmmock.Failure{Reason: llmmock.Broken}, Status: 500, Says: said("api_error", `Internal server error"`), Source: page + ", " + spec},
		{Failure: llmmock.Failure{Reason: llmmock.Unavailable}, Status: 503, Says: said("api_error", "Service unavailable"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.TimedOut}, Status: 504, Says: said("timeout_error", `Request timeout"`), Source: page + ", " + spec},
		{Failure: llmmock.Failure{Reason: llmmock.Overloaded}, Status: 529, Says: said("overloaded_error", `Overloaded"`), Source: page + ", " + spec},
	})
	q.Key = ""
	if _, _, body := f.Failure(nil, &llmmock.Failure{Reason: llmmock.Unauthenticated}, x); string(body[:101]) != `{"type":"error","error":{"type":"authentication_error","message":"x-api-key header is required"},"req` {
		t.Errorf("without a key (%s): %s", reports, body)
	}
}
