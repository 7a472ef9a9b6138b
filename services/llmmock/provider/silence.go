package provider

import (
	"bytes"
	"encoding/binary"
)

// Silence is a tenth of a second of it in the format asked for, which players take: what is spoken here.
func Silence(format string) (media string, body []byte) {
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
	case "pcm", "pcm16":
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
