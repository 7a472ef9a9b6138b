package bedrock

import (
	"net/http"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider/providertest"
)

func TestWords(t *testing.T) {
	const (
		model   = "the exceptions of the service's model in aws-sdk-go-v2, and its API reference for their statuses"
		page    = "the vendor's page on error codes of this service"
		reports = "answers of the API that people quote in public issues"
		none    = "no source for the sentence"
	)
	q, f, _ := decode(t, claude, "converse", small)
	q.Model = ""
	x := providertest.Exchange(q, nil)
	says := func(message string) []string { return []string{`{"message":"` + message} }
	rows := []providertest.Words{
		{Failure: llmmock.Failure{Reason: llmmock.BadRequest}, Status: 400, Says: says(`The input fails to satisfy the constraints specified by Amazon Bedrock."}`), Source: model},
		{Failure: llmmock.Failure{Reason: llmmock.Unauthenticated}, Status: 403, Says: says(`The security token included in the request is invalid."}`), Source: page + ", " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.NoCredit}, Status: 403, Says: says("Model access is denied due to INVALID_PAYMENT_INSTRUMENT: A valid payment instrument must be provided"), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.Forbidden}, Status: 403, Says: says(`You don't have access to the model with the specified model ID."}`), Source: model + "; the sentence is of " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.NotFound}, Status: 404, Says: says(`The specified resource ARN was not found."}`), Source: model},
		{Failure: llmmock.Failure{Reason: llmmock.MethodUnknown}, Status: 404, Says: says("The operation is not known"), Source: none + " inside of an operation"},
		{Failure: llmmock.Failure{Reason: llmmock.Conflict}, Status: 400, Says: says(`Error occurred because of a conflict while performing an operation."}`), Source: model},
		{Failure: llmmock.Failure{Reason: llmmock.TooLarge}, Status: 413, Says: says("The request body is too large."), Source: none},
		{Failure: llmmock.Failure{Reason: llmmock.Unprocessable}, Status: 424, Says: says(`The request failed due to an error while processing the model."}`), Source: model},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited}, Status: 429, Says: says(`Too many requests, please wait before trying again."}`), Source: model + "; the sentence is of " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.RateLimited, Spent: &llmmock.Spent{Tokens: true, PerMinute: 10, Size: 10, Requested: 11}}, Status: 429, Says: says(`Too many tokens, please wait before trying again."}`), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.QuotaExhausted}, Status: 429, Says: says(`Too many tokens per day, please wait before trying again."}`), Source: reports},
		{Failure: llmmock.Failure{Reason: llmmock.Broken}, Status: 500, Says: says(`The system encountered an unexpected error during processing. Try your request again."}`), Source: model + "; the sentence is of " + reports},
		{Failure: llmmock.Failure{Reason: llmmock.Unavailable}, Status: 503, Says: says("The service isn't currently available."), Source: model},
		{Failure: llmmock.Failure{Reason: llmmock.TimedOut}, Status: 408, Says: says(`The request took too long to process. Processing time exceeded the model timeout length."}`), Source: model},
		{Failure: llmmock.Failure{Reason: llmmock.Overloaded}, Status: 503, Says: says(`Bedrock is unable to process your request."}`), Source: model + "; the sentence is of " + reports},
	}
	providertest.Said(t, f, x, rows)

	const suffix = ":http://internal.amazon.com/coral/com.amazon.bedrock/" // as recorded answers have it in tests of others
	names := map[llmmock.Reason]string{llmmock.BadRequest: "ValidationException" + suffix, llmmock.Unauthenticated: "UnrecognizedClientException", llmmock.NoCredit: "AccessDeniedException" + suffix,
		llmmock.Forbidden: "AccessDeniedException" + suffix, llmmock.NotFound: "ResourceNotFoundException" + suffix, llmmock.MethodUnknown: "UnknownOperationException", llmmock.Conflict: "ConflictException" + suffix,
		llmmock.TooLarge: "RequestEntityTooLargeException", llmmock.Unprocessable: "ModelErrorException" + suffix, llmmock.RateLimited: "ThrottlingException" + suffix, llmmock.QuotaExhausted: "ThrottlingException" + suffix,
		llmmock.Broken: "InternalServerException" + suffix, llmmock.Unavailable: "ServiceUnavailableException" + suffix, llmmock.TimedOut: "ModelTimeoutException" + suffix, llmmock.Overloaded: "ServiceUnavailableException" + suffix}
	for _, row := range rows {
		h := http.Header{}
		x.Failure = &row.Failure
		if f.Header(h, x); h.Get("X-Amzn-Errortype") != names[row.Failure.Reason] {
			t.Errorf("%s: %s, want %s", row.Failure.Reason, h.Get("X-Amzn-Errortype"), names[row.Failure.Reason])
		}
	}
	for _, r := range []llmmock.Reason{llmmock.NotFound, llmmock.MethodUnknown} {
		h := http.Header{}
		if status, body := failure(h, &llmmock.Failure{Reason: r}, ""); status != 404 || string(body) != `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}` {
			t.Errorf("no operation (%s, there with 200): %d %s", reports, status, body)
		}
	}
}
