package openai_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/spec"
)

// An answer that is to be spoken is a sound with its transcript, in one piece and in a stream.
func TestSpokenChat(t *testing.T) {
	document, err := spec.Load(llmmock.OpenAI)
	if err != nil {
		t.Fatal(err)
	}
	op, _ := document.Find("POST", "/v1/chat/completions", nil)
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = say("It ", "rains.")
		x.Answer.Usage = llmmock.Usage{Input: 3, Output: 2}
	})
	client := s.client()
	ask := question(func(p *sdk.ChatCompletionNewParams) {
		p.Modalities = []string{"text", "audio"}
		p.Audio = sdk.ChatCompletionAudioParam{Format: sdk.ChatCompletionAudioParamFormatWAV, Voice: sdk.ChatCompletionAudioParamVoiceUnion{OfString: sdk.String("alloy")}}
	})
	whole, err := client.Chat.Completions.New(context.Background(), ask)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range op.ValidateAnswer([]byte(whole.RawJSON())) {
		t.Errorf("%+v\n%s", v, whole.RawJSON())
	}
	m := whole.Choices[0].Message
	sound, err := base64.StdEncoding.DecodeString(m.Audio.Data)
	if err != nil || !strings.HasPrefix(string(sound), "RIFF") || m.Content != "" || m.Audio.Transcript != "It rains." || m.Audio.ExpiresAt != whole.Created+3600 || m.Audio.ID == "" {
		t.Errorf("%v %s", err, m.RawJSON())
	}
	if u := whole.Usage; u.CompletionTokens != 2 || u.CompletionTokensDetails.AudioTokens != 2 {
		t.Errorf("%s", u.RawJSON())
	}
	stream := client.Chat.Completions.NewStreaming(context.Background(), ask)
	var transcript, data string
	var expires int64
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			var delta struct {
				Content *string
				Audio   struct {
					ID, Transcript, Data string
					ExpiresAt            int64 `json:"expires_at"`
				}
			}
			if err := json.Unmarshal([]byte(c.Delta.RawJSON()), &delta); err != nil || delta.Content != nil {
				t.Errorf("%v %s", err, c.Delta.RawJSON())
			}
			transcript += delta.Audio.Transcript
			data += delta.Audio.Data
			expires = max(expires, delta.Audio.ExpiresAt)
			if a := delta.Audio; a.Transcript+a.Data != "" && !strings.HasPrefix(a.ID, "audio_") {
				t.Errorf("%s", c.Delta.RawJSON())
			}
		}
	}
	if again, err := base64.StdEncoding.DecodeString(data); stream.Err() != nil || err != nil || string(again) != string(sound) || transcript != "It rains." || expires == 0 {
		t.Errorf("%v %v %q %d", stream.Err(), err, transcript, expires)
	}
}
