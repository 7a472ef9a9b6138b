package spec

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"strings"

	"edgehold.internal/services/llmmock"
)

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
