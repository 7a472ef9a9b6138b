package clients

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/ai/azopenai"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
)

// Azure's own client in Go, which is none of OpenAI's underneath.
func TestAzopenai(t *testing.T) {
	t.Parallel()
	m := start(t)
	client := func(retries int32) *azopenai.Client {
		t.Helper()
		c, err := azopenai.NewClientWithKeyCredential("http://"+m.API, azcore.NewKeyCredential("any"), &azopenai.ClientOptions{ClientOptions: policy.ClientOptions{
			InsecureAllowCredentialWithHTTP: true, Retry: policy.RetryOptions{MaxRetries: retries, RetryDelay: 10 * time.Millisecond}}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	once := client(-1)
	user := func(text string) []azopenai.ChatRequestMessageClassification {
		return []azopenai.ChatRequestMessageClassification{&azopenai.ChatRequestUserMessage{Content: azopenai.NewChatRequestUserMessageContent(text)}}
	}
	tools := []azopenai.ChatCompletionsToolDefinitionClassification{&azopenai.ChatCompletionsFunctionToolDefinition{Function: &azopenai.ChatCompletionsFunctionToolDefinitionFunction{
		Name: to.Ptr("get_weather"), Parameters: []byte(`{"type":"object","properties":{"city":{"type":"string"}}}`)}}}
	stream := func(t *testing.T, deployment, text string) (string, error) {
		t.Helper()
		r, err := once.GetChatCompletionsStream(t.Context(), azopenai.ChatCompletionsStreamOptions{DeploymentName: &deployment, Messages: user(text)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.ChatCompletionsStream.Close()
		var b strings.Builder
		for {
			c, err := r.ChatCompletionsStream.Read()
			if err != nil {
				return b.String(), err
			}
			for _, choice := range c.Choices {
				if choice.Delta != nil && choice.Delta.Content != nil {
					b.WriteString(*choice.Delta.Content)
				}
			}
		}
	}

	t.Run("chat", func(t *testing.T) {
		r, err := once.GetChatCompletions(t.Context(), azopenai.ChatCompletionsOptions{DeploymentName: to.Ptr("my-echo"), Messages: user("ping")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c := r.Choices[0]; *c.Message.Content != "ping" || *c.FinishReason != azopenai.CompletionsFinishReasonStopped || c.ContentFilterResults == nil || *c.ContentFilterResults.Hate.Filtered {
			t.Errorf("%+v", c)
		}
		if u := r.Usage; *u.TotalTokens != *u.PromptTokens+*u.CompletionTokens {
			t.Errorf("%+v", u)
		}
	})
	t.Run("stream", func(t *testing.T) {
		if text, err := stream(t, "my-echo", "one two three"); text != "one two three" || !errors.Is(err, io.EOF) {
			t.Errorf("%q, %v", text, err)
		}
		if text, err := stream(t, "my-cut", "go"); text == "" || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("half an answer, %q, is taken for a whole one: %v", text, err)
		}
	})
	t.Run("tool calls", func(t *testing.T) {
		messages := user("How is the weather?")
		r, err := once.GetChatCompletions(t.Context(), azopenai.ChatCompletionsOptions{DeploymentName: to.Ptr("my-weather"), Messages: messages, Tools: tools}, nil)
		if err != nil {
			t.Fatal(err)
		}
		call, ok := r.Choices[0].Message.ToolCalls[0].(*azopenai.ChatCompletionsFunctionToolCall)
		if !ok || *call.Function.Name != "get_weather" || *call.Function.Arguments != `{"city":"Oslo"}` {
			t.Fatalf("%+v", r.Choices[0].Message)
		}
		messages = append(messages, &azopenai.ChatRequestAssistantMessage{ToolCalls: r.Choices[0].Message.ToolCalls},
			&azopenai.ChatRequestToolMessage{ToolCallID: call.ID, Content: azopenai.NewChatRequestToolMessageContent("snow")})
		r, err = once.GetChatCompletions(t.Context(), azopenai.ChatCompletionsOptions{DeploymentName: to.Ptr("my-weather"), Messages: messages, Tools: tools}, nil)
		if err != nil || *r.Choices[0].Message.Content != "It is snow." {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("embeddings", func(t *testing.T) {
		r, err := once.GetEmbeddings(t.Context(), azopenai.EmbeddingsOptions{DeploymentName: to.Ptr("my-embedding"), Input: []string{"one", "two"}, Dimensions: to.Ptr[int32](8)}, nil)
		if err != nil || len(r.Data) != 2 || len(r.Data[0].Embedding) != 8 || slices.Equal(r.Data[0].Embedding, r.Data[1].Embedding) {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("errors and retries", func(t *testing.T) {
		ask := func(c *azopenai.Client, deployment, text string) error {
			_, err := c.GetChatCompletions(t.Context(), azopenai.ChatCompletionsOptions{DeploymentName: &deployment, Messages: user(text)}, nil)
			return err
		}
		for word, status := range map[string]int{"be-400": 400, "be-401": 401, "be-404": 404, "be-429": 429, "be-500": 500, "be-503": 503} {
			var e *azcore.ResponseError
			if err := ask(once, "my-refuses", word); !errors.As(err, &e) || e.StatusCode != status {
				t.Errorf("%s: %v", word, err)
			} else if status == 429 && (e.ErrorCode != "429" || e.RawResponse.Header.Get("Retry-After") != "7") {
				t.Errorf("%s %v", e.ErrorCode, e.RawResponse.Header)
			}
		}
		began := time.Now()
		if err := ask(client(2), "my-storm", "ping"); err != nil || time.Since(began) < 4*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
	t.Run("files and batches", func(t *testing.T) {
		lines := `{"custom_id":"x","method":"POST","url":"/chat/completions","body":{"model":"my-echo","messages":[{"role":"user","content":"I am x"}]}}` + "\n"
		file, err := once.UploadFile(t.Context(), streaming.NopCloser(strings.NewReader(lines)), azopenai.FilePurposeBatch, &azopenai.UploadFileOptions{Filename: to.Ptr("batch.jsonl")})
		if err != nil {
			t.Fatal(err)
		}
		batch, err := once.CreateBatch(t.Context(), azopenai.BatchCreateRequest{CompletionWindow: to.Ptr("24h"), Endpoint: to.Ptr("/chat/completions"), InputFileID: file.ID}, nil)
		if err != nil {
			t.Fatal(err)
		}
		done, err := once.GetBatch(t.Context(), *batch.ID, nil)
		for i := 0; i < 100 && err == nil && *done.Status != azopenai.BatchStatusCompleted; i++ {
			done, err = once.GetBatch(t.Context(), *batch.ID, nil)
		}
		if err != nil || *done.Status != azopenai.BatchStatusCompleted {
			t.Fatalf("%+v, %v", done, err)
		}
		// Its GetFileContent takes every file for base64, so this asks as it does.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.API+"/openai/files/"+*done.OutputFileID+"/content?api-version=2025-01-01-preview", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Api-Key", "any")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if out, err := io.ReadAll(answer.Body); err != nil || !bytes.Contains(out, []byte(`"content":"I am x"`)) {
			t.Errorf("%s, %v", out, err)
		}
	})
	t.Run("images and audio", func(t *testing.T) {
		image, err := once.GetImageGenerations(t.Context(), azopenai.ImageGenerationOptions{DeploymentName: to.Ptr("my-images"), Prompt: to.Ptr("a dot")}, nil)
		if err != nil || len(image.Data) != 1 {
			t.Errorf("%+v, %v", image, err)
		}
		speech, err := once.GenerateSpeechFromText(t.Context(), azopenai.SpeechGenerationOptions{DeploymentName: to.Ptr("my-voice"), Input: to.Ptr("hello"), Voice: to.Ptr(azopenai.SpeechVoiceAlloy)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer speech.Body.Close()
		sound, err := io.ReadAll(speech.Body)
		if err != nil || len(sound) == 0 {
			t.Errorf("%d bytes, %v", len(sound), err)
		}
		heard, err := once.GetAudioTranscription(t.Context(), azopenai.AudioTranscriptionOptions{DeploymentName: to.Ptr("my-ears"), File: sound, ResponseFormat: to.Ptr(azopenai.AudioTranscriptionFormatJSON)}, nil)
		if err != nil || heard.Text == nil {
			t.Errorf("%+v, %v", heard, err)
		}
	})
}
