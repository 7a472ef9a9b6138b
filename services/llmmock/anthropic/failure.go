package anthropic

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// kind is one of the vendor's types of error, with its status and its usual words.
type kind struct {
	status        int
	name, message string
}

var kinds = map[llmmock.Reason]kind{
	llmmock.BadRequest:      {400, "invalid_request_error", "Invalid request"},
	llmmock.Unauthenticated: {401, "authentication_error", "invalid x-api-key"},
	llmmock.NoCredit: {402, "billing_error", "Your credit balance is too low to access the Anthropic API. " +
		"Please go to Plans & Billing to upgrade or purchase credits."},
	llmmock.Forbidden:      {403, "permission_error", "Your API key does not have permission to use the specified resource."},
	llmmock.NotFound:       {404, "not_found_error", "Not Found"},
	llmmock.MethodUnknown:  {405, "invalid_request_error", "Method Not Allowed"},
	llmmock.Conflict:       {409, "conflict_error", "The request conflicts with the current state of the resource."},
	llmmock.TooLarge:       {413, "request_too_large", "Request exceeds the maximum size"},
	llmmock.Unprocessable:  {422, "invalid_request_error", "Invalid request"},
	llmmock.RateLimited:    {429, "rate_limit_error", "This request would exceed your account's rate limit. Please try again later."},
	llmmock.QuotaExhausted: {429, "rate_limit_error", "This request would exceed your organization's usage limit for this period."},
	llmmock.Broken:         {500, "api_error", "Internal server error"},
	llmmock.Unavailable:    {503, "api_error", "Service unavailable"},
	llmmock.TimedOut:       {504, "timeout_error", "Request timeout"},
	llmmock.Overloaded:     {529, "overloaded_error", "Overloaded"},
}

// kindOf a failure in the vendor's terms.
func kindOf(f *llmmock.Failure) kind {
	reason := cmp.Or(f.Reason, llmmock.ReasonOf(f.Status))
	k, ok := kinds[reason]
	if !ok {
		k = kinds[llmmock.ReasonOf(f.Status)]
	}
	if f.Status != 0 && !(reason == llmmock.Overloaded && f.Status == http.StatusServiceUnavailable) {
		k.status = f.Status
	}
	for _, own := range kinds {
		if f.Code == own.name {
			k.name = f.Code
		}
	}
	if f.Message != "" {
		k.message = f.Message
	}
	if f.Field != "" && !strings.HasPrefix(k.message, f.Field) {
		k.message = dotted(f.Field) + ": " + k.message
	}
	return k
}

// dotted is a path such as messages[0].content in the vendor's form, messages.0.content.
func dotted(path string) string {
	if !strings.Contains(path, "[") {
		return path
	}
	return strings.NewReplacer("[", ".", "]", "").Replace(path)
}

// Message of a failure in the vendor's words, with the field that it is about.
func Message(f *llmmock.Failure) string { return kindOf(f).message }

// appendFailure appends an error. Those of threads have a code beside their type.
func appendFailure(dst []byte, k kind, code, requestID string) []byte {
	dst = append(dst, `{"type":"error","error":{"type":`...)
	dst = provider.AppendString(dst, k.name)
	dst = append(dst, `,"message":`...)
	dst = provider.AppendString(dst, k.message)
	if strings.HasPrefix(code, "thread_") {
		dst = append(dst, `,"details":{"error_code":`...)
		dst = provider.AppendString(dst, code)
		dst = append(dst, '}')
	}
	dst = append(dst, `},"request_id":`...)
	dst = provider.AppendString(dst, requestID)
	return append(dst, '}')
}

// failure is the vendor's error outside of any route.
func (c *Config) failure(h http.Header, f *llmmock.Failure, id string) (status int, body []byte) {
	k := kindOf(f)
	h["Content-Type"] = []string{"application/json"}
	h["Request-Id"] = []string{requestID(id)}
	h["Anthropic-Organization-Id"] = []string{c.Organization}
	retry(h, f)
	return k.status, appendFailure(nil, k, f.Code, requestID(id))
}

// kindOf a failure of this request: what more the vendor says when it knows whose it is and for which model.
func (f *format) kindOf(e *llmmock.Failure) kind {
	k := kindOf(e)
	switch {
	case e.Message != "":
	case e.Reason == llmmock.NotFound && f.q.Model != "":
		k.message = "model: " + f.q.Model
	case e.Reason == llmmock.Unauthenticated && f.q.Key == "":
		k.message = "x-api-key header is required"
	case e.Spent != nil:
		what := "requests"
		if e.Spent.Tokens {
			what = "input tokens"
		}
		k.message = "This request would exceed your organization's rate limit of " + grouped(e.Spent.PerMinute) + " " + what + " per minute (org: " + f.organization + ", model: " + f.q.Model +
			"). For details, refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage. Please reduce the prompt length or the maximum tokens requested, " +
			"or try again later. You may also contact sales at https://claude.com/contact-sales to discuss your options for a rate limit increase."
	}
	return k
}

// grouped is n with a comma between thousands.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Failure implements provider.Format.
func (f *format) Failure(dst []byte, e *llmmock.Failure, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	k := f.kindOf(e)
	return k.status, "application/json", appendFailure(dst, k, e.Code, f.requestID(x))
}

// FailureChunk implements provider.Format.
func (f *format) FailureChunk(dst []byte, e *llmmock.Failure, x *llmmock.Exchange) []byte {
	dst = append(dst, "event: error\ndata: "...)
	dst = appendFailure(dst, f.kindOf(e), e.Code, f.requestID(x))
	return append(dst, "\n\n"...)
}

// Header implements provider.Format.
func (f *format) Header(h http.Header, x *llmmock.Exchange) {
	h["Request-Id"] = []string{f.requestID(x)}
	if f.organization != "" { // another vendor's platform has none
		h["Anthropic-Organization-Id"] = []string{f.organization}
	}
	if l := x.Limits; l != nil {
		limits(h, x.At, "Requests", l.Requests)
		// Tokens of prompts and of answers count in one bucket here, so that each of the three has all of it left.
		limits(h, x.At, "Tokens", l.Tokens)
		limits(h, x.At, "Input-Tokens", l.Tokens)
		limits(h, x.At, "Output-Tokens", l.Tokens)
	}
	switch {
	case x.Failure != nil:
		retry(h, x.Failure)
	case x.Fault.Kind == llmmock.FailStatus:
		retry(h, &x.Fault.Failure)
	}
}

// limits are the three headers of a bucket. The moment it is full again is told in whole seconds and so never too early.
func limits(h http.Header, at time.Time, name string, l llmmock.Limit) {
	if l.Limit == 0 {
		return
	}
	full := at.Add(l.Reset)
	if whole := full.Truncate(time.Second); whole.Before(full) {
		full = whole.Add(time.Second)
	}
	name = "Anthropic-Ratelimit-" + name
	h[name+"-Limit"] = []string{strconv.Itoa(l.Limit)}
	h[name+"-Remaining"] = []string{strconv.Itoa(max(l.Remaining, 0))}
	h[name+"-Reset"] = []string{full.UTC().Format(time.RFC3339)}
}

// retry sets what the vendor says of trying again: whether, and when.
func retry(h http.Header, f *llmmock.Failure) {
	again := "false"
	if status := kindOf(f).status; status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status == http.StatusConflict {
		again = "true"
	}
	h["X-Should-Retry"] = []string{again}
	if f.RetryAfter > 0 {
		h["Retry-After"] = []string{strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10)}
	}
}

// requestID of an exchange; before there is one it comes from the request alone.
func (f *format) requestID(x *llmmock.Exchange) string {
	if x != nil && x.ID != "" {
		return requestID(x.ID)
	}
	return requestID(strconv.FormatUint(uint64(f.q.Hash), 16))
}

func requestID(id string) string { return "req_01" + id[:min(len(id), 22)] }

// malformed is the refusal of a body that could not be read.
func malformed(body []byte, e *jsonread.Error) *llmmock.Failure {
	f := &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest}
	if e.Syntax {
		what := "unexpected character"
		switch {
		case e.Deep:
			what = "recursion limit exceeded"
		case e.Offset >= len(body):
			what = "unexpected end of data"
		}
		f.Message = notJSON(body, e.Offset, what)
		return f
	}
	var path []byte
	for i, s := range e.Path() {
		if i > 0 {
			path = append(path, '.')
		}
		if s.Index >= 0 {
			path = strconv.AppendInt(path, int64(s.Index), 10)
		} else {
			path = append(path, s.Key...)
		}
	}
	f.Field = string(path)
	f.Message = e.Message
	if e.Message == "" {
		f.Message = wanted[e.Want]
	}
	return f
}

// notJSON says where a body stops being JSON, with lines and columns from 1 and characters, here bytes, from 0.
func notJSON(body []byte, offset int, what string) string {
	line, column := 1, 1
	for _, c := range body[:min(offset, len(body))] {
		if column++; c == '\n' {
			line, column = line+1, 1
		}
	}
	return "The request body is not valid JSON: " + what + ": line " + strconv.Itoa(line) + " column " + strconv.Itoa(column) + " (char " + strconv.Itoa(offset) + ")"
}

var wanted = map[jsonread.Kind]string{
	jsonread.Bool:    "Input should be a valid boolean",
	jsonread.Number:  "Input should be a valid number",
	jsonread.Integer: "Input should be a valid integer",
	jsonread.String:  "Input should be a valid string",
	jsonread.Array:   "Input should be a valid list",
	jsonread.Object:  "Input should be a valid dictionary",
}
