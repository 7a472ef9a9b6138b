package openai

import (
	"encoding/base64"
	"strconv"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// audioKept is for how long the vendor knows what it spoke.
const audioKept = time.Hour

// spoken says whether the text of a is spoken: it is then the transcript of a sound.
func (f *chat) spoken(a *llmmock.Answer) bool {
	return f.audio != "" && a.Text != "" && a.Finish != llmmock.Refused
}

// appendAudioID appends the member audio, with nothing but its id.
func (f *chat) appendAudioID(dst []byte, x *llmmock.Exchange, i int) []byte {
	dst = append(append(dst, `"audio":{"id":"audio_`...), x.ID...)
	return append(strconv.AppendInt(dst, int64(i), 10), '"')
}

func appendSilence(dst []byte, format string) []byte {
	_, sound := provider.Silence(format)
	return base64.StdEncoding.AppendEncode(dst, sound)
}

// usage appends the tokens, all of whose output is sound when it is spoken.
func (f *chat) usage(dst []byte, x *llmmock.Exchange) []byte {
	u, sound := usage(x), 0
	if f.spoken(x.Answer) {
		sound = u.Output - u.Reasoning
	}
	return appendUsage(dst, u, sound)
}

// sound sends what was spoken, and until when it is kept: after the transcript.
func (s *chatStream) sound(i, due int) bool {
	s.open(i)
	s.buf = append(s.appendAudioID(s.buf, s.x, i), `,"data":"`...)
	s.buf = append(appendSilence(s.buf, s.audio), `"}`...)
	if !s.close("", due) {
		return false
	}
	s.open(i)
	s.buf = append(s.appendAudioID(s.buf, s.x, i), `,"expires_at":`...)
	s.buf = append(strconv.AppendInt(s.buf, s.x.Created.Add(audioKept).Unix(), 10), '}')
	return s.close("", due)
}
