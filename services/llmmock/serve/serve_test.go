package serve

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

// plain is a format that says its tokens as events of one word.
type plain struct{}

func (plain) Header(h http.Header, x *llmmock.Exchange) { h["X-Request-Id"] = []string{x.ID} }

func (plain) Whole(dst []byte, x *llmmock.Exchange) (int, string, []byte) {
	dst = append(dst, `{"text":`...)
	return 200, "application/json", append(provider.AppendString(dst, x.Answer.Text), '}')
}

func (plain) StreamType() string { return "text/event-stream" }

func (plain) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		var b []byte
		for i, token := range x.Answer.Tokens {
			b = append(provider.AppendString(append(b[:0], "data: {\"t\":"...), token), "}\n\n"...)
			if !yield(llmmock.Chunk{Data: b, Token: i}) {
				return
			}
		}
		yield(llmmock.Chunk{Data: []byte("data: [DONE]\n\n"), Token: len(x.Answer.Tokens) - 1})
	}
}

// statusOf a failure whose status is the vendor's to say.
func statusOf(f *llmmock.Failure) int {
	return cmp.Or(f.Status, map[llmmock.Reason]int{llmmock.Unauthenticated: 401, llmmock.NotFound: 404, llmmock.MethodUnknown: 405}[f.Reason], 500)
}

func (plain) Failure(dst []byte, f *llmmock.Failure, _ *llmmock.Exchange) (int, string, []byte) {
	return statusOf(f), "application/json", append(dst, fmt.Sprintf(`{"error":%q}`, f.Reason)...)
}

func (plain) FailureChunk(dst []byte, f *llmmock.Failure, _ *llmmock.Exchange) []byte {
	return append(dst, fmt.Sprintf("data: {\"error\":%q}\n\n", f.Reason)...)
}

// decider decides what the test says, and keeps what was seen.
type decider struct {
	decide func(q *llmmock.Request, x *llmmock.Exchange)
	done   chan llmmock.Event // of the kind Ended
	mu     sync.Mutex
	events []llmmock.EventKind
}

func (d *decider) Decide(q *llmmock.Request) *llmmock.Exchange {
	x := &llmmock.Exchange{Request: q, ID: "id-1", Answer: &llmmock.Answer{Text: "one two three", Tokens: []string{"one ", "two ", "three"}, Usage: llmmock.Usage{Output: 3}}}
	if d.decide != nil {
		d.decide(q, x)
	}
	return x
}

func (d *decider) Done(*llmmock.Exchange) {}

func (d *decider) observe(e llmmock.Event) {
	d.mu.Lock()
	d.events = append(d.events, e.Kind)
	d.mu.Unlock()
	if e.Kind == llmmock.Ended {
		d.done <- e
	}
}

// start serves until the test ends.
func start(t *testing.T, decide func(q *llmmock.Request, x *llmmock.Exchange), alter func(*Config)) (url string, d *decider) {
	t.Helper()
	d = &decider{decide: decide, done: make(chan llmmock.Event, 100)}
	decode := func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
		q.Stream = strings.HasPrefix(string(body), "stream")
		if string(body) == "bad" {
			return plain{}, &llmmock.Failure{Status: 400, Reason: llmmock.BadRequest}
		}
		return plain{}, nil
	}
	api := provider.API{Vendor: llmmock.OpenAI, Routes: []provider.Route{{Pattern: "POST /v1/say", Decode: decode}},
		Failure: func(h http.Header, f *llmmock.Failure, id string) (int, []byte) {
			return statusOf(f), []byte(fmt.Sprintf(`{"error":%q,"id":%q}`, f.Reason, id))
		}}
	c := Config{APIs: []provider.API{api}, Decider: d, Observe: d.observe}
	if alter != nil {
		alter(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Serve(ctx, l, 5*time.Second) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	return "http://" + l.Addr().String(), d
}

func post(t *testing.T, url, body string) (status int, header http.Header, text string, err error) {
	t.Helper()
	r, err := http.Post(url+"/v1/say", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, r.Header, string(b), err
}

const whole = "data: {\"t\":\"one \"}\n\ndata: {\"t\":\"two \"}\n\ndata: {\"t\":\"three\"}\n\ndata: [DONE]\n\n"

func TestAnswers(t *testing.T) {
	url, d := start(t, nil, nil)
	for range 3 { // on one connection
		status, h, text, err := post(t, url, "stream")
		if status != 200 || text != whole || err != nil || h.Get("X-Request-Id") != "id-1" || h.Get("Content-Type") != "text/event-stream" {
			t.Errorf("stream: %d %q %v %v", status, text, h, err)
		}
		if e := <-d.done; e.Tokens != 3 || e.End != llmmock.Complete || e.Status != 200 {
			t.Errorf("event %+v", e)
		}
		status, _, text, err = post(t, url, "x")
		if status != 200 || text != `{"text":"one two three"}` || err != nil {
			t.Errorf("whole: %d %q %v", status, text, err)
		}
		<-d.done
	}
	status, _, text, _ := post(t, url, "bad")
	if status != 400 || text != `{"error":"bad_request"}` {
		t.Errorf("bad: %d %q", status, text)
	}
}

// A stream gives its connection back, with what the client sent of its next request already.
func TestKeepAlive(t *testing.T) {
	url, _ := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Schedule = llmmock.Schedule{First: 20 * time.Millisecond, Gaps: []time.Duration{5 * time.Millisecond}}
	}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	one := "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nstream"
	if _, err := conn.Write([]byte(one + one + one[:30])); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for i := range 3 {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i+1, err)
		}
		body, err := io.ReadAll(r.Body)
		if string(body) != whole || err != nil {
			t.Errorf("answer %d: %q, %v", i+1, body, err)
		}
		if i == 1 {
			if _, err := conn.Write([]byte(one[30:])); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// More requests at once than fit into one buffer, each of whose answers takes the connection and gives it back.
func TestPipelined(t *testing.T) {
	url, _ := start(t, nil, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const n = 90
	if _, err := conn.Write([]byte(strings.Repeat("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nstream", n))); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for i := range n {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i+1, err)
		}
		if body, err := io.ReadAll(r.Body); string(body) != whole || err != nil {
			t.Fatalf("answer %d: %q, %v", i+1, body, err)
		}
	}
}

// A stop does not wait for a client that keeps a connection for its next request.
func TestStopWithIdleConnections(t *testing.T) {
	var conn net.Conn
	t.Run("stop", func(t *testing.T) {
		url, _ := start(t, nil, nil)
		var err error
		if conn, err = net.Dial("tcp", strings.TrimPrefix(url, "http://")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nstream")); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(r.Body); string(body) != whole || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	})
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection is open: %d, %v", n, err)
	}
}

func TestSchedule(t *testing.T) {
	const gap = 4 * time.Millisecond
	var mu sync.Mutex
	var early []time.Duration
	pieces := 0
	for _, scheme := range []string{"HTTP/1.1", "HTTP/2.0"} {
		url, d := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) {
			x.Schedule = llmmock.Schedule{First: 30 * time.Millisecond, Gaps: []time.Duration{gap, 2 * gap}}
		}, func(c *Config) {
			c.Late = func(d time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				if pieces++; d < 0 {
					early = append(early, d)
				}
			}
		})
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(scheme == "HTTP/1.1")
		transport.Protocols.SetUnencryptedHTTP2(scheme != "HTTP/1.1")
		r, err := (&http.Client{Transport: transport}).Post(url+"/v1/say", "", strings.NewReader("stream"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if r.Proto != scheme || string(body) != whole || err != nil {
			t.Errorf("%s: %s %q %v", scheme, r.Proto, body, err)
		}
		if e := <-d.done; e.At.Sub(e.Exchange.At) < 30*time.Millisecond+3*gap {
			t.Errorf("%s: all after %s", scheme, e.At.Sub(e.Exchange.At))
		}
		transport.CloseIdleConnections()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(early) > 0 || pieces != 8 {
		t.Errorf("early %v of %d", early, pieces)
	}
}

func TestFaults(t *testing.T) {
	failure := llmmock.Failure{Status: 503, Reason: llmmock.Unavailable, RetryAfter: time.Second}
	for _, tc := range []struct {
		fault  llmmock.Fault
		body   string
		status int
		text   string // received
		fails  string // the error of the request or of reading; empty for none
		check  func(t *testing.T, h http.Header, e llmmock.Event)
	}{
		{llmmock.Fault{Kind: llmmock.FailStatus, Failure: failure}, "x", 503, `{"error":"unavailable"}`, "", func(t *testing.T, _ http.Header, e llmmock.Event) {
			if e.RetryAfter != time.Second || e.Status != 503 {
				t.Errorf("%+v", e)
			}
		}},
		{llmmock.Fault{Kind: llmmock.FailStatus, Failure: failure}, "stream", 503, `{"error":"unavailable"}`, "", nil},
		{llmmock.Fault{Kind: llmmock.FailInBody, Failure: failure}, "x", 200, `{"error":"unavailable"}`, "", nil},
		{llmmock.Fault{Kind: llmmock.ResetBefore}, "x", 0, "", "reset", nil},
		{llmmock.Fault{Kind: llmmock.ResetBefore}, "stream", 0, "", "reset", nil},
		{llmmock.Fault{Kind: llmmock.ResetInHeaders}, "x", 0, "", "half a header", nil},
		{llmmock.Fault{Kind: llmmock.ResetAfterHeader}, "x", 200, "", "reset", nil},
		{llmmock.Fault{Kind: llmmock.WrongType}, "x", 200, `{"text":"one two three"}`, "", func(t *testing.T, h http.Header, _ llmmock.Event) {
			if h.Get("Content-Type") != "text/html" {
				t.Error(h)
			}
		}},
		{llmmock.Fault{Kind: llmmock.WrongType, Value: "application/xml"}, "stream", 200, whole, "", func(t *testing.T, h http.Header, _ llmmock.Event) {
			if h.Get("Content-Type") != "application/xml" {
				t.Error(h)
			}
		}},
		{llmmock.Fault{Kind: llmmock.WrongLength}, "x", 200, `{"text":"one two three"}`, "unexpected EOF", nil},
		{llmmock.Fault{Kind: llmmock.Cut}, "x", 200, `{"text":"one`, "unexpected EOF", func(t *testing.T, _ http.Header, e llmmock.Event) {
			if e.End != llmmock.Truncated {
				t.Errorf("%+v", e)
			}
		}},
		{llmmock.Fault{Kind: llmmock.ResetMidStream}, "x", 200, "", "reset", nil},
		{llmmock.Fault{Kind: llmmock.Malformed}, "x", 200, `{"text":"one two three"`, "", nil},
		{llmmock.Fault{Kind: llmmock.Stall, Wait: 10 * time.Millisecond}, "x", 200, `{"text":"one two three"}`, "", took(10 * time.Millisecond)},
		{llmmock.Fault{Kind: llmmock.SlowBody, Wait: time.Millisecond}, "x", 200, `{"text":"one two three"}`, "", took(24 * time.Millisecond)},
		{llmmock.Fault{Kind: llmmock.SlowAccept, Wait: 20 * time.Millisecond}, "x", 200, `{"text":"one two three"}`, "", took(20 * time.Millisecond)},
		{llmmock.Fault{Kind: llmmock.SlowBody, Wait: 100 * time.Microsecond}, "stream", 200, whole, "", took(7 * time.Millisecond)},
		{llmmock.Fault{Kind: llmmock.Stall, AtToken: 1, Wait: 20 * time.Millisecond}, "stream", 200, whole, "", took(20 * time.Millisecond)},
		{llmmock.Fault{Kind: llmmock.Cut, AtToken: 1}, "stream", 200, whole[:20], "", func(t *testing.T, _ http.Header, e llmmock.Event) {
			if e.End != llmmock.Truncated || e.Tokens != 2 {
				t.Errorf("%+v", e)
			}
		}},
		{llmmock.Fault{Kind: llmmock.CutMidEvent, AtToken: 1}, "stream", 200, whole[:30], "unexpected EOF", nil},
		{llmmock.Fault{Kind: llmmock.ResetMidStream, AtToken: 2}, "stream", 200, "", "reset", nil},
		{llmmock.Fault{Kind: llmmock.Malformed, AtToken: 1}, "stream", 200, strings.Replace(whole, `"two "}`, `"two "]`, 1), "", nil},
		{llmmock.Fault{Kind: llmmock.Duplicate, AtToken: 1}, "stream", 200, strings.Replace(whole, "data: {\"t\":\"two \"}\n\n", strings.Repeat("data: {\"t\":\"two \"}\n\n", 2), 1), "", nil},
		{llmmock.Fault{Kind: llmmock.Reorder, AtToken: 1}, "stream", 200, "data: {\"t\":\"one \"}\n\ndata: {\"t\":\"three\"}\n\ndata: {\"t\":\"two \"}\n\ndata: [DONE]\n\n", "", nil},
		{llmmock.Fault{Kind: llmmock.FailMidStream, AtToken: 1, Failure: failure}, "stream", 200, whole[:20] + "data: {\"error\":\"unavailable\"}\n\n", "", nil},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.fault.Kind, tc.body), func(t *testing.T) {
			url, d := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) { x.Fault = tc.fault }, nil)
			status, h, text, err := post(t, url, tc.body)
			if status != tc.status || tc.text != "" && text != tc.text {
				t.Errorf("got %d %q (%v), want %d %q", status, text, err, tc.status, tc.text)
			}
			switch {
			case tc.fails == "" && err != nil, tc.fails != "" && err == nil:
				t.Errorf("error %v, want %q", err, tc.fails)
			case tc.fails == "reset" && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
				t.Errorf("error %v, want a reset", err)
			}
			e := <-d.done
			if tc.check != nil {
				tc.check(t, h, e)
			}
		})
	}
}

func took(least time.Duration) func(*testing.T, http.Header, llmmock.Event) {
	return func(t *testing.T, _ http.Header, e llmmock.Event) {
		if d := e.At.Sub(e.Exchange.At); d < least {
			t.Errorf("it took %s, want at least %s", d, least)
		}
	}
}

// A client that leaves is noticed while nothing is written, and nothing of its stream stays: goleak looks at the end.
func TestClientLeaves(t *testing.T) {
	url, d := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Schedule = llmmock.Schedule{Gaps: []time.Duration{time.Hour}}
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/say", strings.NewReader("stream"))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.ReadFull(answer.Body, make([]byte, 20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if e := <-d.done; e.End != llmmock.Left || e.Tokens != 1 {
		t.Errorf("%+v", e)
	}
}

// A client that keeps its connection and does not read is noted, and found when it goes.
func TestUnread(t *testing.T) {
	unread := make(chan llmmock.Event, 100)
	url, d := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Answer.Tokens = slices.Repeat([]string{strings.Repeat("x", 64<<10)}, 200) // more than the buffers of both sides
	}, func(c *Config) {
		observe := c.Observe
		c.Observe = func(e llmmock.Event) {
			if e.Kind == llmmock.Unread {
				unread <- e
			}
			observe(e)
		}
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nstream")); err != nil {
		t.Fatal(err)
	}
	if e := <-unread; e.Waited < unreadAfter || e.Exchange == nil {
		t.Errorf("%+v", e)
	}
	conn.Close()
	if e := <-d.done; e.End != llmmock.Left || e.Tokens == 0 || e.Tokens == 200 {
		t.Errorf("%+v", e)
	}
}

func TestLimit(t *testing.T) {
	url, _ := start(t, nil, func(c *Config) { c.MaxConnections = 1 })
	first, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	request := []byte("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	answered := func(conn net.Conn) {
		t.Helper()
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		if r, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || r.StatusCode != 200 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	answered(first)
	second, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Write(request); err != nil {
		t.Fatal(err)
	}
	_ = second.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the second connection was served beside the first: %v", err)
	}
	first.Close()
	_ = second.SetReadDeadline(time.Time{})
	if r, err := http.ReadResponse(bufio.NewReader(second), nil); err != nil || r.StatusCode != 200 {
		t.Errorf("after the first was closed: %v, %v", r, err)
	}
}

func TestRefusals(t *testing.T) {
	url, _ := start(t, nil, func(c *Config) {
		c.MaxRequestBytes = 100
		c.Allow = func(credential string) bool { return credential == "sk-right" }
	})
	ask := func(method, path, key, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	for _, tc := range []struct {
		method, path, key, body string
		status                  int
		reason                  llmmock.Reason
	}{
		{"POST", "/v1/say", "sk-wrong", "x", 401, llmmock.Unauthenticated},
		{"POST", "/v1/say", "sk-right", strings.Repeat("x", 101), 413, llmmock.TooLarge},
		{"GET", "/v1/say", "sk-right", "", 405, llmmock.MethodUnknown},
		{"POST", "/v1/sing", "sk-right", "", 404, llmmock.NotFound},
		{"POST", "/anthropic/v1/messages", "sk-right", "", 404, ""},
	} {
		status, text := ask(tc.method, tc.path, tc.key, tc.body)
		if status != tc.status || !strings.Contains(text, string(tc.reason)) {
			t.Errorf("%s %s: %d %s, want %d %s", tc.method, tc.path, status, text, tc.status, tc.reason)
		}
	}
}

func TestLine(t *testing.T) {
	d := &decider{done: make(chan llmmock.Event, 10), decide: func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Schedule = llmmock.Schedule{First: time.Hour}
		x.Fault = llmmock.Fault{Kind: llmmock.ResetBefore}
	}}
	decode := func(q *llmmock.Request, _ *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
		q.Stream = true
		if string(body) == "bad" {
			return plain{}, &llmmock.Failure{Status: 400, Reason: llmmock.BadRequest}
		}
		return plain{}, nil
	}
	s, err := New(Config{APIs: []provider.API{{Vendor: llmmock.OpenAI, Routes: []provider.Route{{Pattern: "POST /v1/say", Decode: decode}}}}, Decider: d, Observe: d.observe,
		Allow: func(string) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.end()
	if status, body := s.Line(llmmock.OpenAI, "POST", "/v1/say", []byte("x")); status != 200 || string(body) != `{"text":"one two three"}` {
		t.Errorf("%d %s", status, body)
	}
	if status, body := s.Line(llmmock.OpenAI, "POST", "/v1/say", []byte("bad")); status != 400 || string(body) != `{"error":"bad_request"}` {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := s.Line(llmmock.Gemini, "POST", "/v1/say", nil); status != 400 {
		t.Errorf("a vendor that is not there: %d", status)
	}
}

func TestNewRefusesRoutesThatConflict(t *testing.T) {
	decode := func(*llmmock.Request, *http.Request, []byte) (provider.Format, *llmmock.Failure) { return plain{}, nil }
	_, err := New(Config{APIs: []provider.API{{Vendor: llmmock.OpenAI, Routes: []provider.Route{{Pattern: "GET /a/{x}", Decode: decode}, {Pattern: "GET /a/{y}", Decode: decode}}}}})
	if err == nil || !strings.Contains(err.Error(), "routes") {
		t.Errorf("got %v", err)
	}
}

func TestCredentials(t *testing.T) {
	for header, want := range map[string]string{
		"Authorization: Bearer sk-1": "sk-1", "X-Api-Key: k": "k", "Api-Key: a": "a", "X-Goog-Api-Key: g": "g", "Accept: x": "",
		"Authorization: AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/bedrock/aws4_request, SignedHeaders=host, Signature=0": "AKID",
	} {
		name, value, _ := strings.Cut(header, ": ")
		r, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
		r.Header.Set(name, value)
		if got := credentialOf(r); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	r, _ := http.NewRequest(http.MethodGet, "http://x/?alt=sse&key=q", nil)
	if got := credentialOf(r); got != "q" {
		t.Errorf("query: %q", got)
	}
	for credential, shown := range map[string]string{"sk-proj-abcdefghijklmnopqrstuvwxyz": "sk-proj-…", "ab": "…", "": "…"} {
		if got := fingerprint(credential); !strings.HasPrefix(got, shown) || len(credential) > 2 && strings.Contains(got, credential) {
			t.Errorf("%q: %q", credential, got)
		}
	}
}

// Whoever asks for the schedule is told it, with either kind of answer, and nobody else.
func TestTellsTheSchedule(t *testing.T) {
	url, _ := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Schedule = llmmock.Schedule{First: time.Millisecond, Gaps: []time.Duration{time.Millisecond}}
	}, nil)
	for _, body := range []string{"stream", "x"} {
		for _, asked := range []bool{true, false} {
			r, err := http.NewRequest(http.MethodPost, url+"/v1/say", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if asked {
				r.Header.Set(ScheduleHeader, "wanted")
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				t.Error(err)
			}
			answer.Body.Close()
			if got := answer.Header.Get(ScheduleHeader); strings.HasPrefix(got, "first=1ms; last=3ms; tokens=3; hash=") != asked {
				t.Errorf("%s, asked %t: %q", body, asked, got)
			}
		}
	}
}
