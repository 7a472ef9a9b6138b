package run

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"edgehold.internal/libs/problem"
)

// signer signs as the vendor's does, at another time or for another service.
type signer struct {
	*v4.Signer
	later   time.Duration
	service string
}

func (s signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string, at time.Time, options ...func(*v4.SignerOptions)) error {
	if s.service != "" {
		service = s.service
	}
	return s.Signer.SignHTTP(ctx, c, r, hash, service, region, at.Add(s.later), options...)
}

// altering changes a request after it was signed.
type altering func(r *http.Request, body []byte) []byte

func (alter altering) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	// A body of its own, which nobody closes while net/http reads it (aws/aws-sdk-go-v2#2737).
	body = alter(r, body)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return http.DefaultClient.Do(r)
}

// The vendor's own client signs, and what does not fit is refused as the vendor does.
func TestSignatures(t *testing.T) {
	dir := t.TempDir()
	scenario, credentials := filepath.Join(dir, "s.yaml"), filepath.Join(dir, "credentials")
	for name, text := range map[string]string{
		scenario:    "name: strict\nstrict: {signatures: true}\nmatch: {vendors: [bedrock]}\nanswers:\n- say: believed\n",
		credentials: "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = right\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := start(t, Config{Scenarios: []string{scenario}, AWSCredentials: credentials})
	unaltered := altering(func(_ *http.Request, body []byte) []byte { return body })
	for _, tc := range []struct {
		name, id, secret string
		alter            func(o *bedrockruntime.Options)
		code, says       string
	}{
		{name: "right", id: "AKIAEXAMPLE", secret: "right"},
		{name: "another secret", id: "AKIAEXAMPLE", secret: "wrong", code: "InvalidSignatureException", says: "The request signature we calculated does not match the signature you provided."},
		{name: "another key", id: "AKIAOTHER", secret: "right", code: "UnrecognizedClientException", says: "The security token included in the request is invalid."},
		{name: "four minutes late", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) { o.HTTPSignerV4 = signer{v4.NewSigner(), -4 * time.Minute, ""} }},
		{name: "six minutes late", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) { o.HTTPSignerV4 = signer{v4.NewSigner(), -6 * time.Minute, ""} }, code: "InvalidSignatureException", says: "Signature expired: "},
		{name: "six minutes early", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) { o.HTTPSignerV4 = signer{v4.NewSigner(), 6 * time.Minute, ""} }, code: "InvalidSignatureException", says: "Signature not yet current: "},
		{name: "another service", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) { o.HTTPSignerV4 = signer{v4.NewSigner(), 0, "s3"} }, code: "InvalidSignatureException", says: "correct service: 'bedrock'"},
		{name: "another region", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) {
			o.HTTPClient = altering(func(r *http.Request, body []byte) []byte { r.Header.Set("X-Edgehold-Region", "us-east-1"); return body })
		}, code: "InvalidSignatureException", says: "a valid region, not 'eu-central-1'"},
		{name: "the region that was asked", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) {
			o.HTTPClient = altering(func(r *http.Request, body []byte) []byte {
				r.Header.Set("X-Edgehold-Region", "eu-central-1")
				return body
			})
		}},
		{name: "another body", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) {
			o.HTTPClient = altering(func(_ *http.Request, body []byte) []byte {
				return bytes.Replace(body, []byte("hello"), []byte("hullo"), 1)
			})
		}, code: "InvalidSignatureException", says: "does not match"},
		{name: "another header", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) {
			o.HTTPClient = altering(func(r *http.Request, body []byte) []byte {
				r.Header.Set("Content-Type", "application/json; x=y")
				return body
			})
		}, code: "InvalidSignatureException", says: "does not match"},
		{name: "a payload that is not signed", id: "AKIAEXAMPLE", secret: "right", alter: func(o *bedrockruntime.Options) {
			o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware, v4.AddContentSHA256HeaderMiddleware)
			o.HTTPClient = altering(func(_ *http.Request, body []byte) []byte {
				return bytes.Replace(body, []byte("hello"), []byte("hullo"), 1)
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := bedrockruntime.Options{Region: "eu-central-1", BaseEndpoint: aws.String("http://" + a.API), RetryMaxAttempts: 1, HTTPClient: unaltered,
				Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					return aws.Credentials{AccessKeyID: tc.id, SecretAccessKey: tc.secret}, nil
				})}
			if tc.alter != nil {
				tc.alter(&o)
			}
			client := bedrockruntime.New(o)
			messages := []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "hello"}}}}
			out, err := client.Converse(t.Context(), &bedrockruntime.ConverseInput{ModelId: aws.String("arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0"), Messages: messages})
			if tc.code == "" {
				if err != nil || out.Output.(*types.ConverseOutputMemberMessage).Value.Content[0].(*types.ContentBlockMemberText).Value != "believed" {
					t.Errorf("%v %v", out, err)
				}
				return
			}
			var e smithy.APIError
			var response *smithyhttp.ResponseError
			if !errors.As(err, &e) || e.ErrorCode() != tc.code || !strings.Contains(e.ErrorMessage(), tc.says) || !errors.As(err, &response) || response.HTTPStatusCode() != http.StatusForbidden {
				t.Errorf("%v, want 403 %s %s", err, tc.code, tc.says)
			}
			_, err = client.ConverseStream(t.Context(), &bedrockruntime.ConverseStreamInput{ModelId: aws.String("anthropic.claude-3-haiku-20240307-v1:0"), Messages: messages})
			if !errors.As(err, &e) || e.ErrorCode() != tc.code {
				t.Errorf("streamed: %v, want %s", err, tc.code)
			}
		})
	}
	r, err := http.Post("http://"+a.API+"/model/anthropic.claude-3-haiku-20240307-v1:0/converse", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":[{"text":"x"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || r.StatusCode != 403 || r.Header.Get("X-Amzn-Errortype") != "MissingAuthenticationTokenException" {
		t.Errorf("without a signature: %d %v %s %v", r.StatusCode, r.Header, body, err)
	}
	// Nobody else's requests are signed.
	if status, text := chat(t, a, "sk-1", "hello", false); status != 200 {
		t.Errorf("%d %s", status, text)
	}
}

func TestSignaturesNeedCredentials(t *testing.T) {
	dir := t.TempDir()
	strict, bad := filepath.Join(dir, "s.yaml"), filepath.Join(dir, "bad")
	for name, text := range map[string]string{strict: "name: strict\nstrict: {signatures: true}\n", bad: "[a]\naws_access_key_id = x\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for says, c := range map[string]Config{
		`scenario "strict" verifies signatures`: {Scenarios: []string{strict}},
		"line 1: [a] has only one":              {AWSCredentials: bad},
		"no such file":                          {AWSCredentials: filepath.Join(dir, "none")},
	} {
		c.Service.Name, c.API = "llmmock", "127.0.0.1:0"
		if err := Run(t.Context(), c, io.Discard); problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), "--aws-credentials") || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
}
