package gemini

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

const contentType = "application/json; charset=UTF-8"

// kind is one of the codes of google.rpc, with the status of HTTP that goes with it here and its usual words.
type kind struct {
	status        int
	name, message string
}

var kinds = map[llmmock.Reason]kind{
	llmmock.BadRequest:      {400, "INVALID_ARGUMENT", "Request contains an invalid argument."},
	llmmock.Unauthenticated: {400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."},
	llmmock.NoCredit:        {429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing."},
	llmmock.Forbidden:       {403, "PERMISSION_DENIED", "The caller does not have permission"},
	llmmock.NotFound:        {404, "NOT_FOUND", "Method not found."},
	llmmock.MethodUnknown:   {405, "UNIMPLEMENTED", "The method is not allowed for this resource."},
	llmmock.Conflict:        {409, "ABORTED", "The operation was aborted."},
	llmmock.TooLarge:        {413, "INVALID_ARGUMENT", "Request payload size exceeds the limit."},
	llmmock.Unprocessable:   {400, "FAILED_PRECONDITION", "Request cannot be executed in the current state."},
	llmmock.RateLimited:     {429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."},
	llmmock.QuotaExhausted:  {429, "RESOURCE_EXHAUSTED", overQuota},
	llmmock.Broken:          {500, "INTERNAL", "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"},
	llmmock.Unavailable:     {503, "UNAVAILABLE", "The service is currently unavailable."},
	llmmock.TimedOut:        {504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."},
	llmmock.Overloaded:      {503, "UNAVAILABLE", "The model is overloaded. Please try again later."},
}

const overQuota = "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. " +
	"To monitor your current usage, head to: https://ai.dev/rate-limit. "

// quota is one of those that can be used up, by the names of its metric and of itself.
type quota struct{ metric, id string }

var (
	requestsPerDay    = quota{"generate_content_free_tier_requests", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}
	requestsPerMinute = quota{"generate_content_free_tier_requests", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}
	tokensPerMinute   = quota{"generate_content_free_tier_input_token_count", "GenerateContentInputTokensPerModelPerMinute-FreeTier"}
)

// quotaOf a failure, and how much it is; 0 when that is not known. Nil for failures that have nothing to do with one.
func quotaOf(f *llmmock.Failure) (q *quota, limit int) {
	switch {
	case f.Spent != nil && f.Spent.Tokens:
		return &tokensPerMinute, f.Spent.PerMinute
	case f.Spent != nil:
		return &requestsPerMinute, f.Spent.PerMinute
	case f.Reason == llmmock.QuotaExhausted:
		return &requestsPerDay, 0
	}
	return nil, 0
}

func kindOf(f *llmmock.Failure) kind {
	k, ok := kinds[cmp.Or(f.Reason, llmmock.ReasonOf(f.Status))]
	if !ok {
		k = kinds[llmmock.ReasonOf(f.Status)]
	}
	switch f.Status {
	case 0, 529: // the latter is another vendor's
	case http.StatusUnauthorized:
		k.status, k.name = f.Status, "UNAUTHENTICATED"
	default:
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
	return k
}

// unregistered is what those hear who send no key at all.
const unregistered = "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API."

// appendFailure appends google.rpc.Status in its JSON form: an object with the one member error. The request is nil outside of any
// route.
func appendFailure(dst []byte, f *llmmock.Failure, of *llmmock.Request) []byte {
	k := kindOf(f)
	quota, limit := quotaOf(f)
	model := ""
	if of != nil {
		model = of.Model
	}
	if quota != nil && f.Message == "" {
		k.message = overQuota + "\n* Quota exceeded for metric: generativelanguage.googleapis.com/" + quota.metric
		if limit > 0 {
			k.message += ", limit: " + strconv.Itoa(limit)
		}
		if model != "" {
			k.message += ", model: " + model
		}
		if f.RetryAfter > 0 {
			k.message += "\nPlease retry in " + string(appendSeconds(nil, f.RetryAfter)) + "."
		}
	}
	dst = append(dst, `{"error":{"code":`...)
	dst = strconv.AppendInt(dst, int64(k.status), 10)
	dst = append(dst, `,"message":`...)
	dst = provider.AppendString(dst, k.message)
	dst = append(dst, `,"status":"`...)
	dst = append(dst, k.name...)
	dst = append(dst, '"')
	const none = `,"details":[`
	open := none
	if f.Reason == llmmock.Unauthenticated && k.message != unregistered {
		dst = append(dst, open...)
		dst = append(dst, `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com","metadata":{"service":"generativelanguage.googleapis.com"}}`...)
		dst = append(dst, `,{"@type":"type.googleapis.com/google.rpc.LocalizedMessage","locale":"en-US","message":`...)
		dst = append(provider.AppendString(dst, k.message), '}')
		open = ","
	}
	if f.Field != "" {
		dst = append(dst, open...)
		dst = append(dst, `{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":`...)
		dst = provider.AppendString(dst, f.Field)
		dst = append(dst, `,"description":`...)
		dst = provider.AppendString(dst, k.message)
		dst = append(dst, `}]}`...)
		open = ","
	}
	if quota != nil {
		dst = append(dst, open...)
		dst = append(dst, `{"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"Learn more about Gemini API quotas","url":"https://ai.google.dev/gemini-api/docs/rate-limits"}]}`...)
		dst = append(dst, `,{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/`...)
		dst = append(dst, quota.metric...)
		dst = append(dst, `","quotaId":"`...)
		dst = append(dst, quota.id...)
		dst = append(dst, `","quotaDimensions":{"location":"global","model":`...)
		dst = append(provider.AppendString(dst, model), '}')
		if limit > 0 {
			dst = append(dst, `,"quotaValue":"`...)
			dst = append(strconv.AppendInt(dst, int64(limit), 10), '"')
		}
		dst = append(dst, "}]}"...)
		open = ","
	}
	if f.RetryAfter > 0 {
		dst = append(dst, open...)
		dst = append(dst, `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"`...)
		dst = appendSeconds(dst, f.RetryAfter)
		dst = append(dst, `"}`...)
		open = ","
	}
	if open != none {
		dst = append(dst, ']')
	}
	return append(dst, "}}"...)
}

// appendSeconds appends d as protobuf's JSON has durations, such as 1.5s.
func appendSeconds(dst []byte, d time.Duration) []byte {
	dst = strconv.AppendFloat(dst, d.Seconds(), 'f', -1, 64)
	return append(dst, 's')
}

// failure is the vendor's error outside of any route.
func failure(h http.Header, f *llmmock.Failure, _ string) (status int, body []byte) {
	commonHeader(h)
	h["Content-Type"] = []string{contentType}
	return kindOf(f).status, append(appendFailure(nil, f, nil), '\n')
}

// Failure implements provider.Format.
func (f *format) Failure(dst []byte, e *llmmock.Failure, _ *llmmock.Exchange) (status int, _ string, body []byte) {
	said := *e
	switch {
	case e.Message != "":
	case e.Reason == llmmock.NotFound && f.q.Model != "":
		_, method, _ := strings.Cut(f.q.Path[strings.LastIndexByte(f.q.Path, '/')+1:], ":")
		said.Message = "models/" + f.q.Model + " is not found for API version " + f.version + ", or is not supported for " + method +
			". Call ListModels to see the list of available models and their supported methods."
	case e.Reason == llmmock.Unauthenticated && e.Status == 0 && f.q.Key == "":
		said.Status, said.Code, said.Message = http.StatusForbidden, "PERMISSION_DENIED", unregistered
	}
	return kindOf(&said).status, contentType, append(appendFailure(dst, &said, f.q), '\n')
}

// FailureChunk implements provider.Format.
func (f *format) FailureChunk(dst []byte, e *llmmock.Failure, _ *llmmock.Exchange) []byte {
	dst = append(dst, "data: "...)
	dst = appendFailure(dst, e, f.q)
	return append(dst, "\r\n\r\n"...)
}

func invalid(field, message string) *llmmock.Failure {
	return &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Field: field, Message: message}
}

// malformed is the refusal of a body that could not be read, in the words of the vendor's parser.
func malformed(body []byte, e *jsonread.Error) *llmmock.Failure {
	if e.Syntax {
		what := "Unexpected token."
		switch {
		case e.Deep:
			what = "Message too deep. Max recursion depth reached."
		case e.Offset >= len(body):
			what = "Unexpected end of string."
		}
		return invalid("", "Invalid JSON payload received. "+what+"\n"+around(body, e.Offset))
	}
	field := path(e.Path())
	if e.Message != "" {
		return invalid(field, e.Message)
	}
	last := field[strings.LastIndexByte(field, '.')+1:]
	last, _, _ = strings.Cut(last, "[")
	if e.Got == jsonread.Array {
		return invalid(field, "Invalid JSON payload received. Unknown name \""+last+"\""+at(field[:len(field)-len(last)])+": Proto field is not repeating, cannot start list.")
	}
	r := jsonread.New(body[e.Offset:])
	value := r.Raw()
	const most = 100
	want := kindNames[e.Want]
	if e.Want == jsonread.Object || e.Want == jsonread.Array {
		want = messageTypes[last]
		if want == "" {
			want = "google.protobuf.Struct"
		}
		want = "type.googleapis.com/" + want
	}
	where := ""
	if field != "" {
		where = " at '" + field + "'"
	}
	return invalid(field, "Invalid value"+where+" ("+want+"), "+strings.ToValidUTF8(string(value[:min(len(value), most)]), ""))
}

// at names the place of a field whose path ends with a dot; nothing for the body itself.
func at(path string) string {
	if path = strings.TrimSuffix(path, "."); path == "" {
		return ""
	}
	return " at '" + path + "'"
}

var kindNames = map[jsonread.Kind]string{
	jsonread.Bool: "TYPE_BOOL", jsonread.Number: "TYPE_FLOAT", jsonread.Integer: "TYPE_INT32", jsonread.String: "TYPE_STRING",
}

const v1beta = "google.ai.generativelanguage.v1beta."

var messageTypes = map[string]string{
	"contents": v1beta + "Content", "content": v1beta + "Content", "system_instruction": v1beta + "Content", "parts": v1beta + "Part",
	"generation_config": v1beta + "GenerationConfig", "tools": v1beta + "Tool", "tool_config": v1beta + "ToolConfig",
	"function_declarations": v1beta + "FunctionDeclaration", "function_call": v1beta + "FunctionCall", "function_response": v1beta + "FunctionResponse",
	"function_calling_config": v1beta + "FunctionCallingConfig", "thinking_config": v1beta + "ThinkingConfig", "inline_data": v1beta + "Blob", "file_data": v1beta + "FileData",
	"requests": v1beta + "EmbedContentRequest", "generate_content_request": v1beta + "GenerateContentRequest",
}

// around shows the text around an offset, with a mark under it.
func around(body []byte, offset int) string {
	const most = 20
	offset = min(offset, len(body))
	from, to := max(offset-most, 0), min(offset+most, len(body))
	clean := func(b []byte) string { return strings.ReplaceAll(strings.ToValidUTF8(string(b), "?"), "\n", " ") }
	before := clean(body[from:offset])
	return before + clean(body[offset:to]) + "\n" + strings.Repeat(" ", len([]rune(before))) + "^"
}

// path in the form of protobuf: members by their names in snake case, elements in brackets.
func path(steps []jsonread.Step) string {
	var b []byte
	for _, s := range steps {
		if s.Index >= 0 {
			b = append(b, '[')
			b = strconv.AppendInt(b, int64(s.Index), 10)
			b = append(b, ']')
			continue
		}
		if len(b) > 0 {
			b = append(b, '.')
		}
		for i := range len(s.Key) {
			c := s.Key[i]
			if 'A' <= c && c <= 'Z' {
				b = append(b, '_', c|0x20)
			} else {
				b = append(b, c)
			}
		}
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
