package spec

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"edgehold.internal/services/llmmock"
)

// speech is a short silence in the format asked for, which players take.
func speech(format string) (media string, body []byte) {
	const rate, samples = 24_000, 2_400 // a tenth of a second
	switch format {
	case "wav":
		b := []byte("RIFF")
		b = binary.LittleEndian.AppendUint32(b, 36+2*samples)
		b = append(b, "WAVEfmt "...)
		b = binary.LittleEndian.AppendUint32(b, 16)
		b = binary.LittleEndian.AppendUint16(b, 1) // PCM
		b = binary.LittleEndian.AppendUint16(b, 1) // mono
		b = binary.LittleEndian.AppendUint32(b, rate)
		b = binary.LittleEndian.AppendUint32(b, 2*rate)
		b = binary.LittleEndian.AppendUint16(b, 2)
		b = binary.LittleEndian.AppendUint16(b, 16)
		b = append(b, "data"...)
		b = binary.LittleEndian.AppendUint32(b, 2*samples)
		return "audio/wav", append(b, make([]byte, 2*samples)...)
	case "pcm":
		return "audio/pcm", make([]byte, 2*samples)
	case "opus":
		return "audio/opus", silentFrames()
	case "aac":
		return "audio/aac", silentFrames()
	case "flac":
		return "audio/flac", silentFrames()
	}
	return "audio/mpeg", silentFrames()
}

// silentFrames are four frames of MPEG 1 layer III at 128 kbit/s and 44.1 kHz whose side information says that there is nothing.
func silentFrames() []byte {
	frame := make([]byte, 417)
	copy(frame, []byte{0xff, 0xfb, 0x90, 0x64})
	return bytes.Repeat(frame, 4)
}

// sampleOf is a small body of a media type.
func sampleOf(media string, m *maker) []byte {
	switch {
	case media == "application/zip":
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.Create("SKILL.md")
		if err == nil {
			_, err = w.Write([]byte("---\nname: example\ndescription: An example.\n---\n"))
		}
		if err == nil {
			err = z.Close()
		}
		if err != nil {
			return nil // a buffer takes everything
		}
		return b.Bytes()
	case media == "application/sdp":
		return []byte("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n")
	case strings.HasPrefix(media, "image/"):
		b, _ := base64.StdEncoding.DecodeString(png) // a constant
		return b
	case strings.HasPrefix(media, "video/"):
		return append([]byte{0, 0, 0, 24}, "ftypisom\x00\x00\x02\x00isommp41"...)
	case strings.HasPrefix(media, "text/"):
		return []byte(strings.Join(filler, " ") + "\n")
	}
	return []byte(llmmock.ID(m.r, 32) + "\n")
}
