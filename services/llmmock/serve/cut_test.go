package serve

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
)

// A stream that is cut ends as HTTP has it, so that only who looks for the end of the stream itself misses it; one that is cut in the middle
// of an event does not.
func TestCut(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(proto == "HTTP/1.1")
		transport.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0")
		for _, tc := range []struct {
			kind  llmmock.FaultKind
			body  string
			whole bool // to HTTP
		}{
			{llmmock.Cut, whole[:20], true},
			{llmmock.CutMidEvent, whole[:30], false},
		} {
			url, d := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) { x.Fault = llmmock.Fault{Kind: tc.kind, AtToken: 1} }, nil)
			r, err := (&http.Client{Transport: transport}).Post(url+"/v1/say", "", strings.NewReader("stream"))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			if r.Proto != proto || string(body) != tc.body || (err == nil) != tc.whole {
				t.Errorf("%s, %s: %s %q %v", proto, tc.kind, r.Proto, body, err)
			}
			if e := <-d.done; e.End != llmmock.Truncated {
				t.Errorf("%s, %s: %+v", proto, tc.kind, e)
			}
		}
		transport.CloseIdleConnections()
	}
}
