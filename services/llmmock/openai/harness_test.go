package openai_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/openai"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/providertest"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// server is what package serve is, without time and faults: it drives the routes, and says of every request what decide does.
type server struct {
	*httptest.Server
	decide func(x *llmmock.Exchange)
	last   *llmmock.Request
	at     time.Time
	// strict about objects, lenient about the specification.
	strict, lenient bool
}

func start(t *testing.T, decide func(x *llmmock.Exchange)) *server {
	t.Helper()
	s := &server{decide: decide, at: epoch}
	mux := http.NewServeMux()
	for _, api := range openai.New(openai.Config{}) {
		for _, route := range api.Routes {
			mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) { s.exchange(w, r, &api, &route) })
		}
	}
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *server) exchange(w http.ResponseWriter, r *http.Request, api *provider.API, route *provider.Route) {
	body, _ := io.ReadAll(r.Body)
	q := &llmmock.Request{Vendor: api.Vendor, Method: r.Method, Path: r.URL.Path, At: s.at, Hash: llmmock.HashOf(r.Method, r.URL.Path, body), Key: r.Header.Get("Authorization") + r.Header.Get("Api-Key")}
	s.last = q
	format, failure := route.Decode(q, r, body)
	if format == nil {
		status, body := api.Failure(w.Header(), failure, strings.Repeat("0", 32))
		w.WriteHeader(status)
		_, _ = w.Write(body)
		return
	}
	x := &llmmock.Exchange{Request: q, Moment: llmmock.Moment{Seed: 1, Request: q.Hash}, Created: epoch}
	x.ID = llmmock.ID(x.Random(llmmock.ForIDs), 32)
	if s.decide != nil {
		s.decide(x)
	}
	if failure != nil && !s.lenient {
		x.Failure = failure
	}
	if q.Missing != nil && s.strict {
		x.Failure = q.Missing
	}
	format.Header(w.Header(), x)
	switch {
	case x.Failure != nil:
		status, contentType, body := format.Failure(nil, x.Failure, x)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	case q.Stream:
		w.Header().Set("Content-Type", format.StreamType())
		last := 0
		for c := range format.Stream(x) {
			if x.Fault.Kind == llmmock.FailMidStream && c.Token >= x.Fault.AtToken {
				_, _ = w.Write(format.FailureChunk(nil, &x.Fault.Failure, x))
				return
			}
			if c.Token < last {
				panic("tokens go backwards")
			}
			last = c.Token
			_, _ = w.Write(c.Data)
			w.(http.Flusher).Flush()
		}
	default:
		status, contentType, body := format.Whole(nil, x)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// ask sends a body, or none, and returns all of the answer.
func (s *server) ask(t *testing.T, method, path, body string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer key")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

// golden compares got with a file, which is reviewed like code.
func golden(t *testing.T, name, got string) {
	t.Helper()
	providertest.Golden(t, name, []byte(got))
}

// say is an answer that is text.
func say(pieces ...string) *llmmock.Answer {
	return &llmmock.Answer{Text: strings.Join(pieces, ""), Tokens: pieces, Finish: llmmock.Stopped,
		Usage: llmmock.Usage{Input: 11, Cached: 4, Output: len(pieces)}}
}

// with changes an answer.
func with(a *llmmock.Answer, change func(a *llmmock.Answer)) *llmmock.Answer {
	change(a)
	return a
}

// answers are all that a model may come up with.
func answers() map[string]*llmmock.Answer {
	weather := llmmock.Call{ID: "1", Name: "weather", Arguments: `{"city":"Zürich","days":3}`}
	return map[string]*llmmock.Answer{
		"text":     say("Good", " morning", "!"),
		"foreign":  say("„Grüezi“", " 日本", "語 \U0001F600\n\t\"quoted\" \\ \x01</script>"),
		"empty":    say(),
		"long":     say(strings.SplitAfter(strings.Repeat("word ", 300), " ")...),
		"length":   with(say("cut", " off"), func(a *llmmock.Answer) { a.Finish = llmmock.AtLength }),
		"sequence": with(say("up", " to"), func(a *llmmock.Answer) { a.Finish, a.StoppedAt = llmmock.AtStop, "END" }),
		"refused":  with(say("I", " cannot"), func(a *llmmock.Answer) { a.Finish = llmmock.Refused }),
		"filtered": with(say("Well"), func(a *llmmock.Answer) { a.Finish = llmmock.Filtered }),
		"call":     with(say(), func(a *llmmock.Answer) { a.Calls, a.Finish = []llmmock.Call{weather}, llmmock.ToolCalls }),
		"calls": with(say("Let", " me", " see"), func(a *llmmock.Answer) {
			a.Calls = []llmmock.Call{weather, {Name: "time", Arguments: "{}"}, {ID: "call_3", Name: "none"}, weather}
			a.Finish = llmmock.ToolCalls
		}),
		"thought": with(say("Four"), func(a *llmmock.Answer) {
			a.Thinking, a.ThinkingTokens = "Two and two", []string{"Two", " and", " two"}
			a.Usage.Output, a.Usage.Reasoning = 4, 3
		}),
		"unpieced": with(say(), func(a *llmmock.Answer) { a.Text = "in one" }),
	}
}

// events splits a stream.
func events(stream string) []string {
	return strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n")
}

// dataOf an event.
func dataOf(event string) []byte {
	for line := range strings.SplitSeq(event, "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return []byte(data)
		}
	}
	return nil
}
