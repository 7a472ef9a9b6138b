package bedrock

import (
	"encoding/binary"
	"hash/crc32"
)

// Frames of the AWS event stream encoding: the length of the whole and of the headers, a checksum of these two, the headers, the
// payload, and a checksum of all that went before. Numbers are big-endian; checksums are CRC-32 as in IEEE 802.3.
const (
	preludeSize  = 12
	checksumSize = 4
	stringHeader = 7 // the type of a header's value
)

// beginFrame sets buf to a frame up to the payload. Its headers say what kind of message it is (event or exception), and which.
func beginFrame(buf []byte, message, name string) []byte {
	buf = append(buf[:0], make([]byte, preludeSize)...)
	buf = appendHeader(buf, ":"+message+"-type", name)
	buf = appendHeader(buf, ":content-type", "application/json")
	return appendHeader(buf, ":message-type", message)
}

func appendHeader(buf []byte, name, value string) []byte {
	buf = append(buf, byte(len(name)))
	buf = append(buf, name...)
	buf = append(buf, stringHeader)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(value)))
	return append(buf, value...)
}

// endFrame completes a frame whose payload begins at buf[payload:].
func endFrame(buf []byte, payload int) []byte {
	binary.BigEndian.PutUint32(buf, uint32(len(buf)+checksumSize))
	binary.BigEndian.PutUint32(buf[4:], uint32(payload-preludeSize))
	binary.BigEndian.PutUint32(buf[8:], crc32.ChecksumIEEE(buf[:8]))
	return binary.BigEndian.AppendUint32(buf, crc32.ChecksumIEEE(buf))
}
