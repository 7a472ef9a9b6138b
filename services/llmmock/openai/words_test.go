package openai_test

import (
	"net/http"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/openai"
	"edgehold.internal/services/llmmock/provider/providertest"
)

func TestWords(t *testing.T) {
	const (
		guide   = "the vendor's guide to error codes"
		reports = "answers of the API that people quote in public issues"
		none    = "no source for the sentence"
		over    = "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
	)
	r, err := http.NewRequest(http.MethodPost, "http://x/v1/chat/completions", nil)
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"model":"gpt-4o","messages":[{"role":"user","content":"u"}]}`
	q, f, failure := providertest.Decoder(openai.New(openai.Config{Organization: "org-1"})[0])(t, r, body)
	if failure != nil {
		t.Fatal(failure)
	}
	q.Key = "sk-proj-…1f2e"
	said := func(message, kind, code string) []string {
		if code != "null" {
			code = `"` + code + `"`
		}
		return []string{`{"error":{"message":"` + message, `","type":"` + kind + `","param":null,"code":` + code + `}}`}
	}
	const invalid = "invalid_request_error"
	providertest.Said(t, f, providertest.Exchange(q, nil), []providertest.Words{
		{Failure: llmmock.Failure{Reason: llmmock.BadRequest}, Status: 400, Says: said("The request could not be understood.", invalid, "null"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Unauthenticated}, Status: 401, Says: said("Incorrect API key provided: sk-proj-********. You can find your API key at https://platform.openai.com/account/api-keys.", invalid, "invalid_api_key"), Source: guide + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.NoCredit}, Status: 429, Says: said(over, "insufficient_quota", "insufficient_quota"), Source: guide + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.Forbidden}, Status: 403, Says: said("You have insufficient permissions for this operation. Missing scopes: model.request.", invalid, "missing_scope"), Source: reports + ", with 401 and 403"},
		{Failure: llmmock.Failure{Reason: llmmock.NotFound, Field: "model"}, Status: 404, Says: said("The model `gpt-4o` does not exist or you do not have access to it.", invalid, "model_not_found"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.MethodUnknown, Message: "Not allowed to GET on /v1/x."}, Status: 405, Says: said("Not allowed to GET on /v1/x.", invalid, "method_not_supported"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.Conflict}, Status: 409, Says: said("", invalid, "null"), Source: "openai-go has an error of its own for 409; " + none},
		{Failure: llmmock.Failure{Reason: llmmock.TooLarge}, Status: 413, Says: said("", invalid, "null"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Unprocessable}, Status: 422, Says: said("", invalid, "null"), Source: "openai-go has an error of its own for 422; " + none},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: 20 * time.Second, Spent: &llmmock.Spent{PerMinute: 3, Size: 3, Requested: 1}}, Status: 429,
			Says: said("Rate limit reached for gpt-4o in organization org-1 on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more.", "requests", "rate_limit_exceeded"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: 11216 * time.Millisecond, Spent: &llmmock.Spent{Tokens: true, PerMinute: 30000, Size: 30000, Remaining: 6699, Requested: 12307}}, Status: 429,
			Says: said("Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 23301, Requested 12307. Please try again in 11.216s. Visit https://platform.openai.com/account/rate-limits to learn more.", "tokens", "rate_limit_exceeded"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, Spent: &llmmock.Spent{Tokens: true, PerMinute: 30000, Size: 30000, Remaining: 30000, Requested: 34102}}, Status: 429,
			Says: said("Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 34102. The input or output tokens must be reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more.", "tokens", "rate_limit_exceeded"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.QuotaExhausted}, Status: 429, Says: said(over, "insufficient_quota", "insufficient_quota"), Source: guide + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.Broken}, Status: 500, Says: said("The server had an error while processing your request. Sorry about that!", "server_error", "null"), Source: guide + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.Unavailable}, Status: 503, Says: said("The engine is currently overloaded, please try again later", "server_error", "null"), Source: guide},
		{Failure: llmmock.Failure{Reason: llmmock.TimedOut}, Status: 504, Says: said("", "server_error", "null"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Overloaded}, Status: 503, Says: said("Our servers are currently overloaded. Please try again later.", "service_unavailable_error", "server_is_overloaded"), Source: reports},
	})

	r.URL.Path, r.URL.RawQuery = "/openai/deployments/gpt-4o/chat/completions", "api-version=2024-10-21"
	q, f, failure = providertest.Decoder(openai.New(openai.Config{})[1])(t, r, body)
	if failure != nil {
		t.Fatal(failure)
	}
	q.Key = "a…1"
	gateway := func(code, message string) []string {
		return []string{`{"error":{"code":"` + code + `","message":"` + message}
	}
	providertest.Said(t, f, providertest.Exchange(q, nil), []providertest.Words{
		{Failure: llmmock.Failure{Reason: llmmock.BadRequest}, Status: 400, Says: said("", invalid, "null"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Unauthenticated}, Status: 401, Says: gateway("401", "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.NoCredit}, Status: 429, Says: said(over, "insufficient_quota", "insufficient_quota"), Source: "none of Azure's own; as OpenAI"},
		{Failure: llmmock.Failure{Reason: llmmock.Forbidden}, Status: 403, Says: gateway("403", "Access denied due to Virtual Network/Firewall rules."), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.NotFound, Field: "model"}, Status: 404, Says: gateway("DeploymentNotFound", "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again."), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.NotFound}, Status: 404, Says: gateway("404", `Resource not found"`), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.MethodUnknown}, Status: 405, Says: said("", invalid, "method_not_supported"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Conflict}, Status: 409, Says: said("", invalid, "null"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.TooLarge}, Status: 413, Says: said("", invalid, "null"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Unprocessable}, Status: 422, Says: said("", invalid, "null"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: 38 * time.Second}, Status: 429, Says: gateway("429", "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded call rate limit of your current OpenAI S0 pricing tier. "+
			"Please retry after 38 seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, Spent: &llmmock.Spent{Tokens: true, PerMinute: 9, Size: 9, Requested: 10}}, Status: 429, Says: gateway("429", "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please go here: "), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.QuotaExhausted}, Status: 429, Says: said(over, "insufficient_quota", "insufficient_quota"), Source: "none of Azure's own; as OpenAI"},
		{Failure: llmmock.Failure{Reason: llmmock.Broken}, Status: 500, Says: said("The server had an error processing your request. Sorry about that!", "server_error", "InternalServerError"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.Unavailable}, Status: 503, Says: gateway("ServiceUnavailable", "The service is temporarily unable to process your request. Please try again later."), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.TimedOut}, Status: 408, Says: gateway("Timeout", "The operation was timeout."), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.Overloaded}, Status: 503, Says: gateway("ServiceUnavailable", "The service is temporarily unable to process your request. Please try again later."), Source: reports},
	})
}
