// Package page is the live page of a mock: its traffic, what goes wrong on schedule, and what its clients do wrong. It is one document
// that loads nothing, and follows snapshots at its own address.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
)

//go:embed page.html
var document []byte

// policy allows the document's own script and styles, and requests to where it came from.
var policy = func() string {
	_, script, _ := bytes.Cut(document, []byte("<script>"))
	script, _, _ = bytes.Cut(script, []byte("</script>"))
	sum := sha256.Sum256(script)
	return fmt.Sprintf("default-src 'none'; script-src 'sha256-%s'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
		base64.StdEncoding.EncodeToString(sum[:]))
}()

// Watch sends snapshots until ctx ends or send fails. An error before the first one is for the person at the browser.
type Watch func(ctx context.Context, send func(*llmmockv1.WatchResponse) error) error

// New returns the page. Whoever asks for text/event-stream gets the snapshots, as events whose data is a WatchResponse in protobuf's JSON
// form; everybody else gets the document, which has nothing of the mock in it. allow is asked for the bearer token of those that
// want snapshots; nil for everybody may.
func New(watch Watch, allow func(token string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Vary", "Accept")
		h.Set("X-Content-Type-Options", "nosniff")
		if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("Content-Security-Policy", policy)
			h.Set("Referrer-Policy", "no-referrer")
			_, _ = w.Write(document)
			return
		}
		if allow != nil {
			token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !bearer || !allow(token) {
				h.Set("WWW-Authenticate", `Bearer realm="llmmock"`)
				http.Error(w, "a token that the mock knows is needed", http.StatusUnauthorized)
				return
			}
		}
		flush := http.NewResponseController(w)
		begun := false
		var event []byte
		err := watch(r.Context(), func(snapshot *llmmockv1.WatchResponse) error {
			if !begun {
				begun = true
				h.Set("Content-Type", "text/event-stream")
			}
			event = append(event[:0], "data: "...)
			var err error
			if event, err = (protojson.MarshalOptions{}).MarshalAppend(event, snapshot); err != nil {
				return err
			}
			if _, err = w.Write(append(event, "\n\n"...)); err != nil {
				return err
			}
			return flush.Flush()
		})
		if err != nil && !begun {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}
