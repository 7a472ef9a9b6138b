// Package providertest drives a provider.API in tests: as an HTTP server for the vendors' own clients, and as text for golden
// files. It has none of what package serve is for: no schedule, no faults of the transport.
//
// Start at Server.
package providertest

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them")

// ID of the exchanges that Exchange makes.
const ID = "0123456789abcdef0123456789abcdef"

// Exchange is what was decided on q: the answer, at a fixed time and under a fixed ID.
func Exchange(q *llmmock.Request, a *llmmock.Answer) *llmmock.Exchange {
	return &llmmock.Exchange{Request: q, Moment: llmmock.Moment{Seed: 1, Scenario: "test"}, ID: ID,
		Created: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), Answer: a}
}

// Tokens cuts text behind its spaces.
func Tokens(text string) []string { return strings.SplitAfter(text, " ") }

// Request is what a server makes of r before a route decodes it.
func Request(v llmmock.Vendor, r *http.Request, body []byte) *llmmock.Request {
	return &llmmock.Request{Vendor: v, Method: r.Method, Path: r.URL.Path, Hash: llmmock.HashOf(r.Method, r.URL.Path, body), Size: len(body),
		At: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), Choices: 1}
}

// Decode is what a decoder makes of a body.
type Decode func(t testing.TB, r *http.Request, body string) (*llmmock.Request, provider.Format, *llmmock.Failure)

// Decoder runs the decoder of the route that a server would choose, and spoils the body after it.
func Decoder(api provider.API) Decode {
	mux := http.NewServeMux()
	for _, route := range api.Routes {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			d := w.(*decoded)
			raw := []byte(d.body)
			d.q = Request(api.Vendor, r, raw)
			d.f, d.failure = route.Decode(d.q, r, raw)
			for i := range raw {
				raw[i] = '?'
			}
		})
	}
	return func(t testing.TB, r *http.Request, body string) (*llmmock.Request, provider.Format, *llmmock.Failure) {
		t.Helper()
		d := decoded{ResponseWriter: httptest.NewRecorder(), body: body}
		mux.ServeHTTP(&d, r)
		if d.q == nil {
			t.Fatalf("no route for %s %s", r.Method, r.URL)
		}
		return d.q, d.f, d.failure
	}
}

// decoded is what came of it. It is the writer of the response, because that is how a mux hands things on.
type decoded struct {
	http.ResponseWriter
	body    string
	q       *llmmock.Request
	f       provider.Format
	failure *llmmock.Failure
}

// Server answers as the API does what decide says; a fault FailMidStream ends a stream after as many chunks as its AtToken says.
// It stops with the test.
func Server(t testing.TB, api provider.API, decide func(q *llmmock.Request) *llmmock.Exchange) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fail(w, api, &llmmock.Failure{Reason: llmmock.NotFound}) })
	for _, route := range api.Routes {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			q := Request(api.Vendor, r, body)
			format, failure := route.Decode(q, r, body)
			if failure != nil && format == nil {
				fail(w, api, failure)
				return
			}
			// The body is not the decoder's to keep.
			for i := range body {
				body[i] = '?'
			}
			x := decide(q)
			if failure != nil {
				x.Failure = failure
			}
			respond(w, format, x)
		})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func fail(w http.ResponseWriter, api provider.API, f *llmmock.Failure) {
	status, body := api.Failure(w.Header(), f, ID)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func respond(w http.ResponseWriter, format provider.Format, x *llmmock.Exchange) {
	format.Header(w.Header(), x)
	switch {
	case x.Failure != nil:
		status, contentType, body := format.Failure(nil, x.Failure, x)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	case x.Stream:
		w.Header().Set("Content-Type", format.StreamType())
		n := 0
		for c := range format.Stream(x) {
			if n++; x.Fault.Kind == llmmock.FailMidStream && n > x.Fault.AtToken {
				_, _ = w.Write(format.FailureChunk(nil, &x.Fault.Failure, x))
				return
			}
			_, _ = w.Write(c.Data)
			_ = http.NewResponseController(w).Flush()
		}
	default:
		status, contentType, body := format.Whole(nil, x)
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// Stream is all chunks of a stream as one text. It fails the test when the numbers of tokens go back, or when a chunk's data
// does not last until the next one.
func Stream(t testing.TB, f provider.Format, x *llmmock.Exchange) []byte {
	t.Helper()
	var all []byte
	last := 0
	for c := range f.Stream(x) {
		if c.Token < last {
			t.Errorf("a chunk of token %d follows one of token %d: %s", c.Token, last, c.Data)
		}
		if len(c.Data) == 0 {
			t.Error("a chunk is empty")
		}
		last = c.Token
		all = append(all, c.Data...)
	}
	return all
}

// Golden compares got with testdata/name, or writes it when the tests run with -update.
func Golden(t testing.TB, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is\n%s\nwant\n%s", path, got, want)
	}
}

// Words is how a vendor tells a failure, and where that is known from.
type Words struct {
	Failure llmmock.Failure
	Status  int
	// Says are parts of the body.
	Says []string
	// Source of status and words, or what of them none was found for.
	Source string
}

var reasons = []llmmock.Reason{llmmock.BadRequest, llmmock.Unauthenticated, llmmock.NoCredit, llmmock.Forbidden, llmmock.NotFound, llmmock.Conflict, llmmock.TooLarge, llmmock.Unprocessable,
	llmmock.RateLimited, llmmock.QuotaExhausted, llmmock.Broken, llmmock.Unavailable, llmmock.TimedOut, llmmock.Overloaded, llmmock.MethodUnknown}

// Said compares what f makes of failures with what is known of the vendor: of every reason at least once, each with a source.
func Said(t *testing.T, f provider.Format, x *llmmock.Exchange, rows []Words) {
	t.Helper()
	missing := map[llmmock.Reason]bool{}
	for _, r := range reasons {
		missing[r] = true
	}
	for _, row := range rows {
		delete(missing, row.Failure.Reason)
		status, _, body := f.Failure(nil, &row.Failure, x)
		if status != row.Status || !json.Valid(body) || row.Source == "" {
			t.Errorf("%s: %d %s, want %d; source %q", row.Failure.Reason, status, body, row.Status, row.Source)
		}
		for _, part := range row.Says {
			if !bytes.Contains(body, []byte(part)) {
				t.Errorf("%s: %s does not say %s (%s)", row.Failure.Reason, body, part, row.Source)
			}
		}
	}
	for r := range missing {
		t.Errorf("%s is not in the table", r)
	}
}
