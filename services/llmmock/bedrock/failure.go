package bedrock

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// kind is one of the vendor's exceptions, with its status and its usual words.
type kind struct {
	status        int
	name, message string
}

const unknownOperation = "UnknownOperationException"

var kinds = map[llmmock.Reason]kind{
	llmmock.BadRequest:      {400, "ValidationException", "The input fails to satisfy the constraints specified by Amazon Bedrock."},
	llmmock.Unauthenticated: {403, "UnrecognizedClientException", "The security token included in the request is invalid."},
	llmmock.NoCredit:        {403, "AccessDeniedException", "Model access is denied due to INVALID_PAYMENT_INSTRUMENT: A valid payment instrument must be provided."},
	llmmock.Forbidden:       {403, "AccessDeniedException", "You don't have access to the model with the specified model ID."},
	llmmock.NotFound:        {404, "ResourceNotFoundException", "The specified resource ARN was not found."},
	llmmock.MethodUnknown:   {404, unknownOperation, "The operation is not known."},
	llmmock.Conflict:        {400, "ConflictException", "Error occurred because of a conflict while performing an operation."},
	llmmock.TooLarge:        {413, "RequestEntityTooLargeException", "The request body is too large."},
	llmmock.Unprocessable:   {424, "ModelErrorException", "The request failed due to an error while processing the model."},
	llmmock.RateLimited:     {429, "ThrottlingException", "Too many requests, please wait before trying again."},
	llmmock.QuotaExhausted:  {429, "ThrottlingException", "Too many tokens per day, please wait before trying again."},
	llmmock.Broken:          {500, "InternalServerException", "The system encountered an unexpected error during processing. Try your request again."},
	llmmock.Unavailable:     {503, "ServiceUnavailableException", "The service isn't currently available. Try again later."},
	llmmock.TimedOut:        {408, "ModelTimeoutException", "The request took too long to process. Processing time exceeded the model timeout length."},
	llmmock.Overloaded:      {503, "ServiceUnavailableException", "Bedrock is unable to process your request."},
}

// errorType is the header's value. The exceptions of the service's own model come with the name of that; what is in front of the
// service has none.
func (k kind) errorType() []string {
	switch k.name {
	case "AccessDeniedException", "ConflictException", "InternalServerException", "ModelErrorException", "ModelNotReadyException", "ModelStreamErrorException", "ModelTimeoutException",
		"ResourceNotFoundException", "ServiceQuotaExceededException", "ServiceUnavailableException", "ThrottlingException", "ValidationException":
		return []string{k.name + ":http://internal.amazon.com/coral/com.amazon.bedrock/"}
	}
	return []string{k.name}
}

func kindOf(f *llmmock.Failure) kind {
	k, ok := kinds[cmp.Or(f.Reason, llmmock.ReasonOf(f.Status))]
	if !ok {
		k = kinds[llmmock.ReasonOf(f.Status)]
	}
	if f.Status != 0 && f.Status != 529 { // which is another vendor's
		k.status = f.Status
	}
	if strings.HasSuffix(f.Code, "Exception") {
		k.name = f.Code
	}
	if f.Spent != nil && f.Spent.Tokens {
		k.message = "Too many tokens, please wait before trying again."
	}
	if f.Message != "" {
		k.message = f.Message
	}
	if f.Field != "" && !strings.Contains(k.message, f.Field) {
		k.message = f.Field + ": " + k.message
	}
	return k
}

// kindOf a failure of this request: what is not found without further words is its model, which the vendor calls invalid.
func (f *format) kindOf(e *llmmock.Failure) kind {
	if e.Reason == llmmock.NotFound && e.Message == "" && (e.Status == 0 || e.Code == "model_not_found") && f.q.Model != "" {
		e = invalidID()
	}
	return kindOf(e)
}

func appendFailure(dst []byte, k kind) []byte {
	dst = append(dst, `{"message":`...)
	dst = provider.AppendString(dst, k.message)
	return append(dst, '}')
}

// failure is the vendor's error outside of any route. What it has no operation for has a form of its own. (The vendor sends that
// form with a status of 200, which nobody who tests a client wants to see as a success.)
func failure(h http.Header, f *llmmock.Failure, id string) (status int, body []byte) {
	k := kindOf(f)
	unknown := f.Message == "" && (f.Reason == llmmock.NotFound || f.Reason == llmmock.MethodUnknown)
	if unknown {
		k = kinds[llmmock.MethodUnknown]
	}
	h["Content-Type"] = []string{"application/json"}
	h["X-Amzn-Requestid"] = []string{uuid(id)}
	h["X-Amzn-Errortype"] = k.errorType()
	if unknown {
		return k.status, []byte(`{"Output":{"__type":"com.amazon.coral.service#` + k.name + `"},"Version":"1.0"}`)
	}
	return k.status, appendFailure(nil, k)
}

// Failure implements provider.Format.
func (f *format) Failure(dst []byte, e *llmmock.Failure, _ *llmmock.Exchange) (status int, contentType string, body []byte) {
	k := f.kindOf(e)
	return k.status, "application/json", appendFailure(dst, k)
}

// FailureChunk implements provider.Format: an exception, of those that a stream may carry.
func (f *format) FailureChunk(dst []byte, e *llmmock.Failure, _ *llmmock.Exchange) []byte {
	k := kindOf(e)
	name := "modelStreamErrorException"
	switch k.name {
	case "InternalServerException", "ValidationException", "ThrottlingException", "ServiceUnavailableException":
		name = string(k.name[0]|0x20) + k.name[1:]
	case "ModelTimeoutException":
		if f.invoked {
			name = "modelTimeoutException"
		}
	}
	frame := beginFrame(nil, "exception", name)
	payload := len(frame)
	frame = append(frame, `{"message":`...)
	frame = provider.AppendString(frame, k.message)
	if name == "modelStreamErrorException" {
		frame = append(frame, `,"originalStatusCode":`...)
		frame = strconv.AppendInt(frame, int64(k.status), 10)
		frame = append(frame, `,"originalMessage":`...)
		frame = provider.AppendString(frame, k.message)
	}
	frame = append(frame, '}')
	return append(dst, endFrame(frame, payload)...)
}

func invalid(message string) *llmmock.Failure {
	return &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Message: message}
}

// invalidID is the refusal of a model that does not exist, or that does not do what is asked of it.
func invalidID() *llmmock.Failure { return invalid("The provided model identifier is invalid.") }

// unserializable is the refusal of a body of Converse that could not be read.
func unserializable(e *jsonread.Error) *llmmock.Failure {
	f := &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Code: "SerializationException"}
	switch {
	case e.Syntax:
		f.Message = "Unable to parse the request body: unexpected token at byte " + strconv.Itoa(e.Offset) + "."
	case e.Message != "":
		f.Message = e.Message
	case e.Got == jsonread.Array:
		f.Message = "Start of list found where not expected."
	case e.Got == jsonread.Object:
		f.Message = "Start of structure or map found where not expected."
	case e.Want == jsonread.Array || e.Want == jsonread.Object:
		f.Message = "Unexpected field type."
	default:
		want := map[jsonread.Kind]string{jsonread.String: "a String", jsonread.Integer: "an Integer", jsonread.Number: "a Float", jsonread.Bool: "a Boolean"}
		f.Message = strings.ToUpper(e.Got.String()) + "_VALUE can not be converted to " + want[e.Want]
	}
	return f
}

// reformat is the refusal of a body of InvokeModel, which the vendor checks by a schema of the model's.
func reformat(what string) *llmmock.Failure {
	return invalid("Malformed input request: " + what + ", please reformat your input and try again.")
}

// malformed is reformat for a body that could not be read.
func malformed(e *jsonread.Error) *llmmock.Failure {
	if e.Syntax {
		return reformat("#: not a JSON object")
	}
	at := "#"
	for _, s := range e.Path() {
		if s.Index >= 0 {
			at += "/" + strconv.Itoa(s.Index)
		} else {
			at += "/" + strings.ToValidUTF8(s.Key, "\uFFFD")
		}
	}
	if e.Message != "" {
		return reformat(at + ": " + e.Message)
	}
	title := func(k jsonread.Kind) string {
		if k == jsonread.Object {
			return "JSONObject"
		}
		if k == jsonread.Array {
			return "JSONArray"
		}
		s := k.String()
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return reformat(at + ": expected type: " + title(e.Want) + ", found: " + title(e.Got))
}
