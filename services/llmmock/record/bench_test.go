package record

import (
	"bytes"
	"testing"
)

// Redaction stands between a provider's last byte and the client's.
func BenchmarkRedaction(b *testing.B) {
	r, err := NewRedactor(true, nil)
	if err != nil {
		b.Fatal(err)
	}
	body := bytes.Repeat([]byte("data: {\"id\":\"chatcmpl-75336e6120932943589967208d95bd21\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" umbrella\"},\"finish_reason\":null}]}\n\n"), 100)
	spelled := spellings([]string{"a-credential-of-the-client"})
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if r.mask(body, spelled) > 0 {
			b.Fatal("found something")
		}
	}
}
