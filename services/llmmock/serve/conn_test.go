package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// speaker is a server whose handlers say what they were asked, in every way that a handler can be left.
func speaker(t *testing.T) *Server {
	t.Helper()
	d := &decider{done: make(chan llmmock.Event, 10_000)}
	decode := func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
		if string(body) == "panic" {
			panic("on purpose")
		}
		q.Stream = strings.HasPrefix(string(body), "stream")
		return said{r.Method + " " + r.RequestURI + " " + r.Host + " " + r.Header.Get("X-Say") + " " + string(body)}, nil
	}
	api := provider.API{Vendor: llmmock.OpenAI, Failure: func(_ http.Header, f *llmmock.Failure, _ string) (int, []byte) { return statusOf(f), []byte(f.Reason) }}
	for _, method := range []string{"GET", "POST", "DELETE"} {
		api.Routes = append(api.Routes, provider.Route{Pattern: method + " /v1/say", Decode: decode})
	}
	s, err := New(Config{APIs: []provider.API{api}, Decider: d, MaxRequestBytes: 100_000, Allow: func(key string) bool { return key != "wrong" }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// said is plain, and says something.
type said struct{ text string }

func (said) Header(h http.Header, x *llmmock.Exchange) { plain{}.Header(h, x) }

func (s said) Whole(dst []byte, _ *llmmock.Exchange) (int, string, []byte) {
	return 200, "text/plain", append(dst, s.text...)
}

func (said) StreamType() string { return "text/event-stream" }

func (s said) Stream(*llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		_ = yield(llmmock.Chunk{Data: []byte("data: " + s.text + "\n\n")}) && yield(llmmock.Chunk{Data: []byte("data: [DONE]\n\n")})
	}
}

func (said) Failure(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) (int, string, []byte) {
	return plain{}.Failure(dst, f, x)
}

func (said) FailureChunk(dst []byte, f *llmmock.Failure, x *llmmock.Exchange) []byte {
	return plain{}.FailureChunk(dst, f, x)
}

// listen serves a handler by net/http or a Server by itself until the test ends.
func listen(t *testing.T, s *Server, byNetHTTP bool) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if !byNetHTTP {
			_ = s.Serve(ctx, l, time.Second)
			return
		}
		server := &http.Server{Handler: s, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(io.Discard, "", 0)}
		context.AfterFunc(ctx, func() { _ = server.Close() })
		_ = server.Serve(l)
	}()
	t.Cleanup(func() { cancel(); <-stopped })
	return l.Addr().String()
}

// last is a request that ends a conversation, if not something before it did.
const last = "GET /v1/say HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"

// converse sends bytes and says what comes back until the end: each answer's status, length, body, and what it says about the connection.
func converse(t *testing.T, addr, text string) (answers []string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { _, _ = io.WriteString(conn, text+last) }) // a server may close before it has all
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			return answers
		}
		body, err := io.ReadAll(r.Body)
		answers = append(answers, fmt.Sprintf("%d %s %q close=%t length=%d %v %s %v", r.StatusCode, r.Header.Get("Content-Type"), body, r.Close, r.ContentLength, r.TransferEncoding, r.Header.Get("X-Request-Id"), err))
	}
}

// Whatever a client sends, it gets what net/http would have answered.
func TestSameAsNetHTTP(t *testing.T) {
	ours, theirs := listen(t, speaker(t), false), listen(t, speaker(t), true)
	post := func(body, fields string) string {
		return fmt.Sprintf("POST /v1/say HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", fields, len(body), body)
	}
	chunks := "POST /v1/say HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for name, text := range map[string]string{
		"one":                      post("hello", ""),
		"several":                  post("a", "X-Say: 1\r\n") + post("b", "") + "GET /v1/say?q=1 HTTP/1.1\r\nHost: y\r\n\r\n" + "DELETE /v1/say HTTP/1.1\r\nHost: y\r\n\r\n",
		"a stream among them":      post("a", "") + post("stream", "") + post("b", "") + post("stream", ""),
		"close":                    post("a", "Connection: close\r\n") + post("b", ""),
		"a stream and close":       post("stream", "Connection: close\r\n") + post("b", ""),
		"an empty body":            post("", ""),
		"no length":                "POST /v1/say HTTP/1.1\r\nHost: x\r\n\r\n" + post("b", ""),
		"a large body":             post(strings.Repeat("x", 90_000), "") + post("b", ""),
		"too large":                post(strings.Repeat("x", 100_001), ""),
		"much too large":           post(strings.Repeat("x", 1_000_000), ""),
		"unknown":                  strings.Replace(post("hello", ""), "/v1/say", "/v1/nothing", 1) + post("b", ""),
		"unknown and a large body": strings.Replace(post(strings.Repeat("x", 50_000), ""), "/v1/say", "/v1/nothing", 1) + post("b", ""),
		"another method":           "PATCH /v1/say HTTP/1.1\r\nHost: x\r\n\r\n" + post("b", ""),
		"a path to be cleaned":     "GET /v1//say HTTP/1.1\r\nHost: x\r\n\r\n" + post("b", ""),
		"another vendor":           strings.Replace(post("hello", ""), "/v1/say", "/anthropic/v1/messages", 1) + post("b", ""),
		"refused":                  post("hello", "Authorization: Bearer wrong\r\n") + post("b", ""),
		"panic":                    post("a", "") + post("panic", "") + post("b", ""),
		"chunks":                   chunks + post("b", ""),
		"chunks after others":      post("a", "") + post("stream", "") + chunks + chunks + post("b", ""),
		"smuggled by chunks":       "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + post("b", ""),
		"smuggled by lengths":      "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + post("b", ""),
		"one length twice":         "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde" + post("b", ""),
		"a length with a sign":     "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
		"folded":                   "POST /v1/say HTTP/1.1\r\nHost: x\r\nX-Say: a\r\n b\r\nContent-Length: 1\r\n\r\nc" + post("b", ""),
		"bare line feeds":          "POST /v1/say HTTP/1.1\nHost: x\nContent-Length: 1\n\nc",
		"HTTP/1.0":                 "POST /v1/say HTTP/1.0\r\nHost: x\r\nContent-Length: 1\r\n\r\nc",
		"HTTP/1.0 kept":            "POST /v1/say HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nc" + post("b", ""),
		"HTTP/2 by mistake":        "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
		"no HTTP":                  "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"expecting":                "POST /v1/say HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nc" + post("b", ""),
		"head":                     "HEAD /v1/say HTTP/1.1\r\nHost: x\r\n\r\n",
		"no host":                  "GET /v1/say HTTP/1.1\r\n\r\n",
		"two hosts":                "GET /v1/say HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"absolute":                 "GET http://z/v1/say HTTP/1.1\r\nHost: x\r\n\r\n" + post("b", ""),
		"a long header":            post("a", "X-Say: "+strings.Repeat("y", 10_000)+"\r\n") + post("b", ""),
		"too long a header":        post("a", "X-Say: "+strings.Repeat("y", 100_000)+"\r\n"),
		"more than fits at once":   strings.Repeat(post("ab", ""), 100) + post("stream", ""),
	} {
		t.Run(name, func(t *testing.T) {
			got, want := converse(t, ours, text), converse(t, theirs, text)
			if !slices.Equal(got, want) {
				t.Errorf("%q\n got %s\nwant %s", text[:min(len(text), 300)], strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
		})
	}
}

// A request may come in as many pieces as it has bytes.
func TestByteByByte(t *testing.T) {
	addr := listen(t, speaker(t), false)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []byte(strings.Repeat("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", 2)) {
		if _, err := conn.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
	}
	in := bufio.NewReader(conn)
	for range 2 {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(r.Body); string(body) != "POST /v1/say x  ab" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
}

// alone serves one end of a pipe in a bubble of its own time, and gives the other end.
func alone(t *testing.T, s *Server) net.Conn {
	ours, theirs := net.Pipe()
	s.rest = newHandover(ours.LocalAddr())
	c := &conn{nc: ours, server: s}
	if !s.admit(c) {
		t.Fatal("it stops already")
	}
	go c.serve()
	return theirs
}

func TestPatience(t *testing.T) {
	for name, tc := range map[string]struct {
		sent string
		ends time.Duration
	}{
		"idle":              {"", idleFor},
		"in the head":       {"POST /v1/say HT", headFor},
		"in the body":       {"POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", idleFor},
		"idle after others": {"POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na", idleFor},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := alone(t, speaker(t))
				go func() { _, _ = io.WriteString(client, tc.sent) }()
				began := time.Now()
				_, err := io.Copy(io.Discard, client)
				if took := time.Since(began); err != nil || took > tc.ends || took < tc.ends-fresh {
					t.Errorf("%v after %s, want at %s", err, took, tc.ends)
				}
			})
		})
	}
}

// A head that comes too slowly ends the connection, however often there is a byte of it.
func TestDrippingHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := alone(t, speaker(t))
		began := time.Now()
		for {
			if _, err := client.Write([]byte("G")); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < headFor || took > headFor+time.Second {
			t.Errorf("closed after %s", took)
		}
	})
}

// Nothing that a scenario or a client says gets into the head of an answer as a line of its own.
func TestHeadHasNoOtherLines(t *testing.T) {
	c := &conn{server: speaker(t), desk: &desk{header: http.Header{"X-B": {"1\r\nX-Evil: 2", "\n3"}, "X-A": {"x"}, "Date": nil}, status: 200}}
	if got, want := string(c.head(nil)), "HTTP/1.1 200 OK\r\nX-A: x\r\nX-B: 1  X-Evil: 2\r\nX-B:  3\r\n\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A handler that promises another length than it writes does not spoil the answer after it.
func TestWrongPromise(t *testing.T) {
	for text, keeps := range map[string]bool{"5": true, "4": false, "6": false, "x": false} {
		ours, theirs := net.Pipe()
		s := speaker(t)
		s.apis, s.muxes = nil, nil
		c := &conn{nc: ours, server: s, desk: &desk{header: http.Header{"Content-Length": {text}}, status: 200}}
		_, _ = c.Write([]byte("hello"))
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		if err := c.flush(true); err != nil || c.whole() != keeps {
			t.Errorf("%q: %v, kept %t", text, err, c.whole())
		}
		ours.Close()
	}
}

// The head of a stream comes with the first piece, when that is due, and each piece by itself.
func TestPiecesAsTheyAreDue(t *testing.T) {
	const first, gap = 20 * time.Millisecond, 10 * time.Millisecond
	url, _ := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Schedule = llmmock.Schedule{First: first, Gaps: []time.Duration{gap}}
	}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if _, err := conn.Write([]byte("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nstream")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"HTTP/1.1 200 OK\r\n", "14\r\ndata: {\"t\":\"two \"}"} {
		p := make([]byte, 1000)
		n, err := conn.Read(p)
		took := time.Since(began)
		if err != nil || !strings.HasPrefix(string(p[:n]), want) || !strings.HasSuffix(string(p[:n]), "\"}\n\n\r\n") || took < first+time.Duration(i)*gap {
			t.Errorf("%q after %s; %v", p[:n], took, err)
		}
	}
}

// A stream that nothing waits for comes whole, whatever the client's pace.
func TestLongStream(t *testing.T) {
	var want bytes.Buffer
	tokens := make([]string, 20_000) // more than the buffers of both sides hold
	for i := range tokens {
		tokens[i] = fmt.Sprint("token ", i, strings.Repeat(".", 1000))
		fmt.Fprintf(&want, "data: {\"t\":%q}\n\n", tokens[i])
	}
	want.WriteString("data: [DONE]\n\n")
	url, d := start(t, func(_ *llmmock.Request, x *llmmock.Exchange) { x.Answer.Tokens = tokens }, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nstream")); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(body, want.Bytes()) {
		t.Errorf("%d bytes, want %d; %v", len(body), want.Len(), err)
	}
	if e := <-d.done; e.End != llmmock.Complete || e.Tokens != len(tokens) {
		t.Errorf("%v after %d tokens", e.End, e.Tokens)
	}
}

// A connection ends when its server does, whatever it is at.
func TestStopCutsOff(t *testing.T) {
	d := &decider{done: make(chan llmmock.Event, 10), decide: func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Schedule = llmmock.Schedule{First: time.Hour}
	}}
	s := speaker(t)
	s.config.Decider, s.config.Observe = d, d.observe
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	arrived := make(chan struct{}, 2)
	s.config.Observe = func(e llmmock.Event) {
		if e.Kind == llmmock.Arrived {
			arrived <- struct{}{}
		}
		d.observe(e)
	}
	go func() { stopped <- s.Serve(ctx, l, 10*time.Millisecond) }()
	for _, body := range []string{"stream", "whole!"} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n" + body)); err != nil {
			t.Fatal(err)
		}
		<-arrived
	}
	cancel()
	if err := <-stopped; err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("stopped with %v", err)
	}
	for range 2 {
		if e := <-d.done; e.End != llmmock.Left {
			t.Errorf("%+v", e)
		}
	}
}

// failing is a listener that has no descriptors left at first.
type failing struct {
	net.Listener
	times int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.times > 0 {
		f.times--
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, ctx := speaker(t), t.Context()
	go func() { _ = s.Serve(ctx, &failing{l, 3}, time.Second) }()
	if got := converse(t, l.Addr().String(), ""); len(got) != 1 || !strings.HasPrefix(got[0], "200 ") {
		t.Errorf("after the failures: %q", got)
	}
}
