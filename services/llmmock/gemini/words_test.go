package gemini

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider/providertest"
)

func TestWords(t *testing.T) {
	const (
		page    = "the vendor's page on troubleshooting"
		rpc     = "google/rpc/code.proto: the name and the status of HTTP that goes with it"
		reports = "answers of the API that people quote in public issues"
		none    = "no source for the sentence"
		over    = `{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: https://ai.dev/rate-limit. \n* Quota exceeded for metric: generativelanguage.googleapis.com/`
	)
	q, f, _ := decode(t, http.MethodPost, generate, small)
	q.Key = "AIza…1"
	x := providertest.Exchange(q, nil)
	said := func(code, message, status string) []string {
		return []string{`{"error":{"code":` + code + `,"message":"` + message, `"status":"` + status + `"`}
	}
	providertest.Said(t, f, x, []providertest.Words{
		{Failure: llmmock.Failure{Reason: llmmock.BadRequest}, Status: 400, Says: said("400", `Request contains an invalid argument."`, "INVALID_ARGUMENT"), Source: rpc + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.Unauthenticated}, Status: 400, Says: append(said("400", `API key not valid. Please pass a valid API key."`, "INVALID_ARGUMENT"), `"reason":"API_KEY_INVALID","domain":"googleapis.com"`, `google.rpc.LocalizedMessage","locale":"en-US"`), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.NoCredit}, Status: 429, Says: said("429", "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Forbidden}, Status: 403, Says: said("403", `The caller does not have permission"`, "PERMISSION_DENIED"), Source: page + ", " + rpc},
		{Failure: llmmock.Failure{Reason: llmmock.NotFound}, Status: 404, Says: said("404", "models/"+q.Model+" is not found for API version v1beta, or is not supported for generateContent. Call ListModels to see the list of available models and their supported methods.", "NOT_FOUND"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.MethodUnknown}, Status: 405, Says: said("405", "", "UNIMPLEMENTED"), Source: "none: the vendor's front door answers in HTML"},
		{Failure: llmmock.Failure{Reason: llmmock.Conflict}, Status: 409, Says: said("409", "The operation was aborted.", "ABORTED"), Source: rpc + "; " + none},
		{Failure: llmmock.Failure{Reason: llmmock.TooLarge}, Status: 413, Says: said("413", "Request payload size exceeds the limit", "INVALID_ARGUMENT"), Source: reports + ", there with 400 and the limit"},
		{Failure: llmmock.Failure{Reason: llmmock.Unprocessable}, Status: 400, Says: said("400", "", "FAILED_PRECONDITION"), Source: page + ", " + rpc + "; " + none},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: 1500 * time.Millisecond}, Status: 429, Says: append(said("429", `Resource has been exhausted (e.g. check quota)."`, "RESOURCE_EXHAUSTED"), `google.rpc.RetryInfo","retryDelay":"1.5s"`), Source: page + ", " + rpc},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, RetryAfter: 20 * time.Second, Spent: &llmmock.Spent{PerMinute: 5, Size: 5, Requested: 1}}, Status: 429, Says: []string{over + `generate_content_free_tier_requests, limit: 5, model: ` + q.Model + `\nPlease retry in 20s."`,
			`[{"@type":"type.googleapis.com/google.rpc.Help"`, `"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaDimensions":{"location":"global","model":"` + q.Model + `"},"quotaValue":"5"`, `"retryDelay":"20s"`}, Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, Spent: &llmmock.Spent{Tokens: true, PerMinute: 1000, Size: 1000, Requested: 10}}, Status: 429,
			Says: []string{over + "generate_content_free_tier_input_token_count, limit: 1000", `"quotaId":"GenerateContentInputTokensPerModelPerMinute-FreeTier"`}, Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.QuotaExhausted}, Status: 429, Says: []string{over + "generate_content_free_tier_requests, model: " + q.Model, `"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"`, `"model":"` + q.Model + `"}}]}`}, Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.Broken}, Status: 500, Says: said("500", `An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"`, "INTERNAL"), Source: page + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.Unavailable}, Status: 503, Says: said("503", `The service is currently unavailable."`, "UNAVAILABLE"), Source: page + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.TimedOut}, Status: 504, Says: said("504", `Deadline expired before operation could complete."`, "DEADLINE_EXCEEDED"), Source: page + ", " + rpc},
		{Failure: llmmock.Failure{Reason: llmmock.Overloaded}, Status: 503, Says: said("503", `The model is overloaded. Please try again later."`, "UNAVAILABLE"), Source: page + ", " + reports},
	})
	q.Key = ""
	status, _, body := f.Failure(nil, &llmmock.Failure{Reason: llmmock.Unauthenticated}, x)
	if status != 403 || strings.TrimSpace(string(body)) != `{"error":{"code":403,"message":"`+unregistered+`","status":"PERMISSION_DENIED"}}` {
		t.Errorf("without a key (%s): %d %s", reports, status, body)
	}
}
