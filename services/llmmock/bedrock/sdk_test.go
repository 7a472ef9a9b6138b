package bedrock_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/document"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	"github.com/aws/smithy-go"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/bedrock"
	"edgehold.internal/services/llmmock/provider/providertest"
)

const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

// client is the vendor's own, which talks to a server that answers as decide says and verifies its signatures.
func client(t *testing.T, key string, decide func(q *llmmock.Request) *llmmock.Exchange) *bedrockruntime.Client {
	t.Helper()
	api := bedrock.New(bedrock.Config{Now: time.Now, Secret: func(id string) (string, bool) { return secret, id == "AKIAEXAMPLE" }})
	s := providertest.Server(t, api, func(q *llmmock.Request) *llmmock.Exchange {
		x := decide(q)
		if q.Forged != nil {
			x.Failure = q.Forged
		}
		return x
	})
	return bedrockruntime.New(bedrockruntime.Options{Region: "eu-central-1", BaseEndpoint: aws.String(s.URL), RetryMaxAttempts: 1, HTTPClient: unclosed{s.Client()},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: key, SessionToken: "a token"}, nil
		})})
}

// unclosed keeps the body of a request from being closed before net/http has done with it. The client closes it as soon as there is
// an answer, and its body then answers net/http's look for what is beyond the stated length with io.EOF as an error: for which the
// connection is closed, in the middle of the answer when that came quickly enough (aws/aws-sdk-go-v2#2737).
type unclosed struct{ *http.Client }

func (c unclosed) Do(r *http.Request) (*http.Response, error) {
	r.Body = io.NopCloser(r.Body)
	return c.Client.Do(r)
}

var weather = &llmmock.Answer{Thinking: "Where is it?", ThinkingTokens: providertest.Tokens("Where is it?"), Text: "I look it up.", Tokens: providertest.Tokens("I look it up."),
	Calls:  []llmmock.Call{{ID: "aaaaaaaaaaaaaaaaaaaaaa", Name: "weather", Arguments: `{"city":"Zürich","days":3}`}},
	Finish: llmmock.ToolCalls, Usage: llmmock.Usage{Input: 50, Cached: 30, CacheWrite: 5, Output: 21}}

const model = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0"

func tools() *types.ToolConfiguration {
	return &types.ToolConfiguration{Tools: []types.Tool{&types.ToolMemberToolSpec{Value: types.ToolSpecification{Name: aws.String("weather"),
		InputSchema: &types.ToolInputSchemaMemberJson{Value: document.NewLazyDocument(map[string]any{"type": "object"})}}}}}
}

func user(content ...types.ContentBlock) types.Message {
	return types.Message{Role: types.ConversationRoleUser, Content: content}
}

func TestClientConverses(t *testing.T) {
	var asked *llmmock.Request
	c := client(t, secret, func(q *llmmock.Request) *llmmock.Exchange { asked = q; return providertest.Exchange(q, weather) })
	messages := []types.Message{user(&types.ContentBlockMemberText{Value: "weather?"}, &types.ContentBlockMemberImage{Value: types.ImageBlock{Format: types.ImageFormatPng, Source: &types.ImageSourceMemberBytes{Value: []byte("x")}}})}
	out, err := c.Converse(t.Context(), &bedrockruntime.ConverseInput{ModelId: aws.String(model), Messages: messages, ToolConfig: tools(),
		System: []types.SystemContentBlock{&types.SystemContentBlockMemberText{Value: "be brief"}}, InferenceConfig: &types.InferenceConfiguration{MaxTokens: aws.Int32(100)}})
	if err != nil {
		t.Fatal(err)
	}
	m := out.Output.(*types.ConverseOutputMemberMessage).Value
	if out.StopReason != types.StopReasonToolUse || len(m.Content) != 3 || *out.Usage.InputTokens != 15 || *out.Usage.CacheReadInputTokens != 30 || *out.Usage.TotalTokens != 71 || *out.Usage.OutputTokens != 21 {
		t.Errorf("%+v %+v", out, m)
	}
	if text := m.Content[1].(*types.ContentBlockMemberText).Value; text != weather.Text {
		t.Error(text)
	}
	call := m.Content[2].(*types.ContentBlockMemberToolUse).Value
	var in struct {
		City string
		Days int
	}
	if err := call.Input.UnmarshalSmithyDocument(&in); err != nil || in.City != "Zürich" || in.Days != 3 {
		t.Errorf("%+v %v", in, err)
	}
	if asked.Model != model || asked.Region != "eu-central-1" || len(asked.Turns) != 2 || asked.Turns[1].Media != 1 || asked.MaxTokens != 100 {
		t.Errorf("asked %+v", asked)
	}

	// What it said can be said back to it.
	messages = append(messages, m, user(&types.ContentBlockMemberToolResult{Value: types.ToolResultBlock{ToolUseId: call.ToolUseId,
		Content: []types.ToolResultContentBlock{&types.ToolResultContentBlockMemberText{Value: "21 °C"}}}}))
	if _, err := c.Converse(t.Context(), &bedrockruntime.ConverseInput{ModelId: aws.String(model), Messages: messages, ToolConfig: tools()}); err != nil {
		t.Fatal(err)
	}
	if r := asked.Turns[2].Results; len(r) != 1 || r[0].Text != "21 °C" || r[0].CallID != asked.Turns[1].Calls[0].ID {
		t.Errorf("results %+v", asked.Turns)
	}
}

func TestClientConversesInAStream(t *testing.T) {
	c := client(t, secret, func(q *llmmock.Request) *llmmock.Exchange { return providertest.Exchange(q, weather) })
	out, err := c.ConverseStream(t.Context(), &bedrockruntime.ConverseStreamInput{ModelId: aws.String("anthropic.claude-sonnet-4-5-20250929-v1:0"),
		Messages: []types.Message{user(&types.ContentBlockMemberText{Value: "weather?"})}})
	if err != nil {
		t.Fatal(err)
	}
	s := out.GetStream()
	defer s.Close()
	var text, thinking, input, signature string
	var stop types.StopReason
	var usage *types.TokenUsage
	for event := range s.Events() {
		switch e := event.(type) {
		case *types.ConverseStreamOutputMemberContentBlockDelta:
			switch d := e.Value.Delta.(type) {
			case *types.ContentBlockDeltaMemberText:
				text += d.Value
			case *types.ContentBlockDeltaMemberToolUse:
				input += *d.Value.Input
			case *types.ContentBlockDeltaMemberReasoningContent:
				switch r := d.Value.(type) {
				case *types.ReasoningContentBlockDeltaMemberText:
					thinking += r.Value
				case *types.ReasoningContentBlockDeltaMemberSignature:
					signature += r.Value
				}
			}
		case *types.ConverseStreamOutputMemberMessageStop:
			stop = e.Value.StopReason
		case *types.ConverseStreamOutputMemberMetadata:
			usage = e.Value.Usage
		}
	}
	if s.Err() != nil || text != weather.Text || thinking != weather.Thinking || input != weather.Calls[0].Arguments || signature == "" || stop != types.StopReasonToolUse || usage == nil || *usage.TotalTokens != 71 {
		t.Errorf("%v %q %q %q %q %q %+v", s.Err(), text, thinking, input, signature, stop, usage)
	}
}

func TestClientInvokes(t *testing.T) {
	c := client(t, secret, func(q *llmmock.Request) *llmmock.Exchange { return providertest.Exchange(q, weather) })
	const body = `{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"weather?"}]}`
	out, err := c.InvokeModel(t.Context(), &bedrockruntime.InvokeModelInput{ModelId: aws.String(model), Body: []byte(body), ContentType: aws.String("application/json")})
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Model      string
		StopReason string `json:"stop_reason"`
		Content    []struct{ Type string }
	}
	if err := json.Unmarshal(out.Body, &m); err != nil || m.StopReason != "tool_use" || len(m.Content) != 3 || m.Model != "claude-sonnet-4-5-20250929" || *out.ContentType != "application/json" {
		t.Errorf("%s %v", out.Body, err)
	}
	streamed, err := c.InvokeModelWithResponseStream(t.Context(), &bedrockruntime.InvokeModelWithResponseStreamInput{ModelId: aws.String(model), Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	s := streamed.GetStream()
	defer s.Close()
	var kinds []string
	for event := range s.Events() {
		var e struct {
			Type    string
			Metrics struct{ OutputTokenCount int } `json:"amazon-bedrock-invocationMetrics"`
		}
		if err := json.Unmarshal(event.(*types.ResponseStreamMemberChunk).Value.Bytes, &e); err != nil {
			t.Fatal(err)
		}
		if kinds = append(kinds, e.Type); e.Type == "message_stop" && e.Metrics.OutputTokenCount != 21 {
			t.Errorf("metrics %+v", e)
		}
	}
	if s.Err() != nil || len(kinds) < 10 || kinds[0] != "message_start" || kinds[len(kinds)-1] != "message_stop" || *streamed.ContentType != "application/json" {
		t.Errorf("%v %v", kinds, s.Err())
	}
}

func TestClientCounts(t *testing.T) {
	c := client(t, secret, func(q *llmmock.Request) *llmmock.Exchange {
		return providertest.Exchange(q, &llmmock.Answer{Usage: llmmock.Usage{Input: 7}})
	})
	out, err := c.CountTokens(t.Context(), &bedrockruntime.CountTokensInput{ModelId: aws.String("anthropic.claude-sonnet-4-5-20250929-v1:0"),
		Input: &types.CountTokensInputMemberConverse{Value: types.ConverseTokensRequest{Messages: []types.Message{user(&types.ContentBlockMemberText{Value: "x"})}}}})
	if err != nil || *out.InputTokens != 7 {
		t.Errorf("%+v %v", out, err)
	}
}

func TestClientFailures(t *testing.T) {
	for code, f := range map[string]llmmock.Failure{
		"ValidationException": {Reason: llmmock.BadRequest}, "AccessDeniedException": {Reason: llmmock.Forbidden}, "ResourceNotFoundException": {Status: 404, Reason: llmmock.NotFound}, "ThrottlingException": {Reason: llmmock.RateLimited},
		"InternalServerException": {Reason: llmmock.Broken}, "ServiceUnavailableException": {Reason: llmmock.Overloaded}, "ModelTimeoutException": {Reason: llmmock.TimedOut}, "ModelErrorException": {Reason: llmmock.Unprocessable},
	} {
		c := client(t, secret, func(q *llmmock.Request) *llmmock.Exchange {
			x := providertest.Exchange(q, nil)
			x.Failure = &f
			return x
		})
		_, err := c.Converse(t.Context(), &bedrockruntime.ConverseInput{ModelId: aws.String(model), Messages: []types.Message{user(&types.ContentBlockMemberText{Value: "x"})}})
		var e smithy.APIError
		if !errors.As(err, &e) || e.ErrorCode() != code || e.ErrorMessage() == "" {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func TestClientFailsMidStream(t *testing.T) {
	for _, f := range []llmmock.Failure{{Reason: llmmock.RateLimited}, {Reason: llmmock.Unprocessable}} {
		c := client(t, secret, func(q *llmmock.Request) *llmmock.Exchange {
			x := providertest.Exchange(q, weather)
			x.Fault = llmmock.Fault{Kind: llmmock.FailMidStream, AtToken: 3, Failure: f}
			return x
		})
		out, err := c.ConverseStream(t.Context(), &bedrockruntime.ConverseStreamInput{ModelId: aws.String(model), Messages: []types.Message{user(&types.ContentBlockMemberText{Value: "x"})}})
		if err != nil {
			t.Fatal(err)
		}
		s := out.GetStream()
		n := 0
		for range s.Events() {
			n++
		}
		var throttled *types.ThrottlingException
		var broken *types.ModelStreamErrorException
		if err := s.Err(); n != 3 || !errors.As(err, &throttled) && !errors.As(err, &broken) || (f.Reason == llmmock.RateLimited) != (throttled != nil) {
			t.Errorf("%d events, %v", n, err)
		}
		s.Close()
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/r/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "a=b&c", "20261126T120000Z")
	f.Add("Bearer x", "%zz=%", "")
	f.Add("AWS4-HMAC-SHA256,,,Credential=/////, Signature=", "", "x")
	f.Fuzz(func(t *testing.T, authorization, query, date string) {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/model/m/converse", RawQuery: query}, Header: http.Header{"Authorization": {authorization}, "X-Amz-Date": {date}}}
		known := func(string) (string, bool) { return secret, true }
		if f := bedrock.Verify(r, nil, known, "", time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)); f == nil && !strings.HasPrefix(authorization, "Bearer ") {
			t.Fatalf("%q is believed", authorization)
		}
	})
}

func TestSignatures(t *testing.T) {
	ask := func(c *bedrockruntime.Client) string {
		_, err := c.Converse(t.Context(), &bedrockruntime.ConverseInput{ModelId: aws.String(model), Messages: []types.Message{user(&types.ContentBlockMemberText{Value: "x"})}})
		var e smithy.APIError
		if errors.As(err, &e) {
			return e.ErrorCode()
		}
		if err != nil {
			return err.Error()
		}
		return ""
	}
	answer := func(q *llmmock.Request) *llmmock.Exchange { return providertest.Exchange(q, weather) }
	if code := ask(client(t, secret, answer)); code != "" {
		t.Errorf("a good signature: %s", code)
	}
	if code := ask(client(t, "another secret", answer)); code != "InvalidSignatureException" {
		t.Errorf("a bad signature: %s", code)
	}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	known := func(id string) (string, bool) { return secret, id == "AKIAEXAMPLE" }
	for _, c := range []struct{ name, authorization, date, code string }{
		{"none", "", "", "MissingAuthenticationTokenException"},
		{"no signature", "Basic x", "", "IncompleteSignatureException"},
		{"half of one", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/r/bedrock/aws4_request", "", "IncompleteSignatureException"},
		{"another's key", "AWS4-HMAC-SHA256 Credential=AKIAOTHER/20261126/r/bedrock/aws4_request, SignedHeaders=host, Signature=00", "20261126T120000Z", "UnrecognizedClientException"},
		{"no date", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/r/bedrock/aws4_request, SignedHeaders=host, Signature=00", "", "IncompleteSignatureException"},
		{"another day", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261125/r/bedrock/aws4_request, SignedHeaders=host, Signature=00", "20261126T120000Z", "InvalidSignatureException"},
		{"old", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/r/bedrock/aws4_request, SignedHeaders=host, Signature=00", "20261126T115459Z", "InvalidSignatureException"},
		{"early", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/r/bedrock/aws4_request, SignedHeaders=host, Signature=00", "20261126T120501Z", "InvalidSignatureException"},
		{"another region", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/elsewhere/bedrock/aws4_request, SignedHeaders=host, Signature=00", "20261126T120000Z", "InvalidSignatureException"},
		{"another service", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/r/s3/aws4_request, SignedHeaders=host, Signature=00", "20261126T120000Z", "InvalidSignatureException"},
		{"wrong", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261126/r/bedrock/aws4_request, SignedHeaders=host, Signature=00", "20261126T120000Z", "InvalidSignatureException"},
		{"bearer", "Bearer AKIAEXAMPLE", "", ""},
		{"another's bearer", "Bearer x", "", "AccessDeniedException"},
	} {
		r, _ := http.NewRequest(http.MethodPost, "http://h/model/m/converse?b=2&a=1%202", strings.NewReader("{}"))
		r.Header.Set("Authorization", c.authorization)
		if c.authorization == "" {
			r.Header.Del("Authorization")
		}
		r.Header.Set("X-Amz-Date", c.date)
		f := bedrock.Verify(r, []byte("{}"), known, "r", now)
		if (f == nil) != (c.code == "") || f != nil && f.Code != c.code {
			t.Errorf("%s: %+v, want %s", c.name, f, c.code)
		}
	}
}
