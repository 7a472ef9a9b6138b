package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/record"
)

// childOf is set in a process of this test that only records, to be killed.
const childOf = "EDGEHOLD_TEST_RECORD"

func TestMain(m *testing.M) {
	if to := os.Getenv(childOf); to != "" {
		child(to)
		return
	}
	goleak.VerifyTestMain(m)
}

func child(to string) {
	t, err := ParseTarget(to)
	if err == nil {
		err = Run(context.Background(), Config{File: os.Args[len(os.Args)-1], To: []Target{t}, Listen: "127.0.0.1:0", Bodies: true}, func(s Started) { fmt.Println(s.Address) })
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

// recorder runs until stop, which gives what was recorded.
type recorder struct {
	t     *testing.T
	url   string
	path  string
	notes chan Note
	end   context.CancelFunc
	ended chan error
}

func start(t *testing.T, alter func(*Config), to ...string) *recorder {
	t.Helper()
	r := &recorder{t: t, path: filepath.Join(t.TempDir(), "recording.jsonl"), notes: make(chan Note, 1000), ended: make(chan error, 1)}
	c := Config{File: r.path, Listen: "127.0.0.1:0", Bodies: true, Observe: func(n Note) { r.notes <- n }}
	for _, s := range to {
		target, err := ParseTarget(s)
		if err != nil {
			t.Fatal(err)
		}
		c.To = append(c.To, target)
	}
	if alter != nil {
		alter(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	started := make(chan Started, 1)
	go func() { r.ended <- Run(ctx, c, func(s Started) { started <- s }) }()
	select {
	case s := <-started:
		r.url = "http://" + s.Address.String()
	case err := <-r.ended:
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *recorder) stop() *record.File {
	r.t.Helper()
	r.end()
	http.DefaultClient.CloseIdleConnections()
	if r.ended != nil {
		if err := <-r.ended; err != nil {
			r.t.Errorf("the recorder: %v", err)
		}
		r.ended = nil
	}
	f, err := record.Load(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// upstream is a provider.
func upstream(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// What came in pieces is recorded in these pieces, with times that lie between those at which the provider sent and the client got them.
func TestPieces(t *testing.T) {
	pieces := []string{"data: {\"a\":\"é\"}\n\n", "data: {\"b\"", ":2}\n\n", "\xc3", "\xa9", "data: [DONE]\n\n"}
	next, sent := make(chan bool), make(chan time.Time, len(pieces))
	s := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"stream":true}` || r.Header.Get("Authorization") != "Bearer sk-0123456789abcdef0123" || r.Header.Get("Accept-Encoding") != "identity" ||
			r.URL.String() != "/base/v1/chat/completions?a=b%20c&key=secret-key" || r.Header.Get("X-Edgehold-Run") != "" {
			t.Errorf("the provider was asked %s with %v: %s", r.URL, r.Header, body)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(http.StatusAccepted)
		_ = http.NewResponseController(w).Flush()
		for _, p := range pieces {
			<-next
			sent <- time.Now()
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
		<-next
	})
	r := start(t, nil, s.URL+"/base/")
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/chat/completions?a=b%20c&key=secret-key", strings.NewReader(`{"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	q.Header = http.Header{"Authorization": {"Bearer sk-0123456789abcdef0123"}, "Content-Type": {"application/json"}, "X-Edgehold-Run": {"x"}, "User-Agent": {"client/1"}}
	before := time.Now()
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusAccepted || res.Header.Get("Set-Cookie") != "a=b" {
		t.Errorf("got %s %v", res.Status, res.Header)
	}
	var got []time.Time
	for _, p := range pieces {
		next <- true
		b := make([]byte, len(p))
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != p {
			t.Fatalf("got %q, %v; want %q", b, err, p)
		}
		got = append(got, time.Now())
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
		t.Fatalf("and then %q, %v", rest, err)
	}
	if n := <-r.notes; n.Pieces != len(pieces) || n.Status != 202 || n.Unrecorded != "" || n.Redacted == 0 || n.Vendor != llmmock.OpenAI {
		t.Errorf("note %+v", n)
	}
	f := r.stop()
	if len(f.Exchanges) != 1 || f.Dropped > 0 {
		t.Fatalf("%+v", f)
	}
	x := f.Exchanges[0]
	if x.Request.Operation() != "POST /v1/chat/completions" || x.Request.Query != "a=b%20c&key=REDACTED" || string(x.Request.Body) != `{"stream":true}` || x.Request.Header.Get("Authorization") != "" || x.Request.Header.Get("User-Agent") != "client/1" {
		t.Errorf("request %+v", x.Request)
	}
	if x.Answer.Status != 202 || x.Answer.Header["Content-Type"][0] != "text/event-stream" || x.Answer.Header["Set-Cookie"] != nil || x.Answer.End != llmmock.NoFault || len(x.Answer.Pieces) != len(pieces) {
		t.Fatalf("answer %+v", x.Answer)
	}
	// The file has the wall clock in the request's time, and times since then by the monotonic one.
	at := before
	for i, p := range x.Answer.Pieces {
		if string(p.Data) != pieces[i] {
			t.Errorf("piece %d is %q, want %q", i, p.Data, pieces[i])
		}
		if begin := got[i].Sub(at); p.At > begin {
			t.Errorf("piece %d came %s after the request, and the client had it after %s", i, p.At, begin)
		}
		if i > 0 {
			if apart, least := p.At-x.Answer.Pieces[0].At, (<-sent).Sub(got[0]); apart < least-time.Microsecond {
				t.Errorf("piece %d came %s after the first one, and was sent %s after that had arrived", i, apart, least)
			}
		} else {
			<-sent
		}
	}
}

func get(t *testing.T, url string) (int, string, error) {
	t.Helper()
	res, err := http.DefaultClient.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// Nothing that a request says makes it go anywhere else.
func TestForwardsToNothingElse(t *testing.T) {
	var strayed atomic.Int32
	other := upstream(t, func(http.ResponseWriter, *http.Request) { strayed.Add(1) })
	var asked atomic.Int32
	s := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if "http://"+r.Host != "http://"+strings.TrimPrefix(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(), "http://") {
			t.Errorf("Host is %s", r.Host)
		}
		if strings.HasPrefix(r.URL.Path, "/v1/away") {
			http.Redirect(w, r, other.URL+"/v1/models", http.StatusTemporaryRedirect)
		}
	})
	r := start(t, nil, s.URL)
	away, err := url.Parse(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	send := func(raw string) *http.Response {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, raw); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		res.Body.Close()
		return res
	}
	for raw, want := range map[string]int{
		"GET /v1/models HTTP/1.1\r\nHost: " + away.Host + "\r\n\r\n":                                          200, // there, and not to the Host
		"GET " + other.URL + "/v1/models HTTP/1.1\r\nHost: " + away.Host + "\r\n\r\n":                         400,
		"CONNECT " + away.Host + " HTTP/1.1\r\nHost: " + away.Host + "\r\n\r\n":                               400,
		"OPTIONS * HTTP/1.1\r\nHost: " + away.Host + "\r\n\r\n":                                               200, // which net/http answers itself
		"GET //" + away.Host + "/v1/models HTTP/1.1\r\nHost: x\r\n\r\n":                                       200,
		"GET /v1/@" + away.Host + "/../.. HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: " + away.Host + "\r\n\r\n": 200,
		"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n":           501,
		"GET /v1/away HTTP/1.1\r\nHost: x\r\n\r\n":                                                            307,
	} {
		if res := send(raw); res.StatusCode != want {
			t.Errorf("%q: %s, want %d", raw, res.Status, want)
		}
	}
	if n := asked.Load(); n != 4 {
		t.Errorf("the provider was asked %d times, want 4", n)
	}
	p := newProxy(Config{To: []Target{{URL: mustParse(t, s.URL)}}}, nil, nil)
	if _, err := p.transport.RoundTrip(httptest.NewRequest(http.MethodGet, other.URL, nil)); err == nil || !strings.Contains(err.Error(), "not among the hosts") {
		t.Errorf("another host was dialled: %v", err)
	}
	t.Setenv("HTTP_PROXY", other.URL)
	t.Setenv("http_proxy", other.URL)
	if p.transport.Proxy != nil {
		t.Error("it does what the environment says")
	}
	if n := strayed.Load(); n != 0 {
		t.Errorf("another host was asked %d times", n)
	}
	if f := r.stop(); len(f.Exchanges) != 4 {
		t.Errorf("%d exchanges", len(f.Exchanges))
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestByVendor(t *testing.T) {
	name := func(s string) *httptest.Server {
		return upstream(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", s, r.URL.Path) })
	}
	r := start(t, nil, "openai="+name("open").URL, "anthropic="+name("claude").URL+"/x")
	for path, want := range map[string]string{"/v1/models": "open /v1/models", "/v1/messages": "claude /x/v1/messages", "/anthropic/v1/models": "claude /x/v1/models", "/openai/v1/models": "open /v1/models"} {
		if status, text, err := get(t, r.url+path); status != 200 || text != want || err != nil {
			t.Errorf("%s: %d %q, %v; want %q", path, status, text, err, want)
		}
	}
	if status, text, _ := get(t, r.url+"/model/m/converse"); status != 404 || !strings.Contains(text, "--to bedrock=") {
		t.Errorf("no target: %d %s", status, text)
	}
	for _, x := range r.stop().Exchanges {
		if !strings.HasPrefix(x.Request.Path, "/v1/") || (x.Vendor == llmmock.Anthropic) != strings.HasPrefix(string(x.Answer.Body()), "claude") {
			t.Errorf("%s %s: %s", x.Vendor, x.Request.Path, x.Answer.Body())
		}
	}
}

// What is not recorded is forwarded, and it is said why.
func TestNotRecorded(t *testing.T) {
	entered := make(chan bool, 1)
	release := make(chan bool)
	big := bytes.Repeat([]byte("x"), 1<<20)
	s := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/big":
			for range MaxExchange>>20 + 1 {
				if _, err := w.Write(big); err != nil {
					return
				}
			}
		case "/v1/took":
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		case "/v1/packed":
			w.Header().Set("Content-Encoding", "br")
			fmt.Fprint(w, "packed")
		case "/v1/wait":
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			entered <- true
			<-r.Context().Done()
			close(release)
		default:
			fmt.Fprint(w, "ok")
		}
	})
	r := start(t, func(c *Config) { c.MaxFile = 2000 }, s.URL)
	note := func(path, why string) {
		t.Helper()
		if n := <-r.notes; n.Path != path || !strings.Contains(n.Unrecorded, why) || why == "" && n.Unrecorded != "" {
			t.Errorf("%s: %+v, want …%s…", path, n, why)
		}
	}
	res, err := http.DefaultClient.Get(r.url + "/v1/big")
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if n != MaxExchange+1<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	note("/v1/big", "more than 32 MiB")
	res, err = http.DefaultClient.Post(r.url+"/v1/took", "text/plain", io.MultiReader(bytes.NewReader(make([]byte, MaxExchange)), strings.NewReader("and more")))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	if string(b) != fmt.Sprint(MaxExchange+8) || err != nil {
		t.Errorf("the provider got %s bytes, %v", b, err)
	}
	note("/v1/took", "more than 32 MiB")
	if _, text, err := get(t, r.url+"/v1/packed"); text != "packed" || err != nil {
		t.Errorf("%q %v", text, err)
	}
	note("/v1/packed", "compressed")
	ctx, cancel := context.WithCancel(t.Context())
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/v1/wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err = http.DefaultClient.Do(q); err != nil {
		t.Fatal(err)
	}
	<-entered
	cancel()
	res.Body.Close()
	<-release // the provider hears of it
	note("/v1/wait", "the client left")
	recorded := 0
	for full := false; !full && recorded < 100; {
		if _, _, err := get(t, r.url+"/v1/models"); err != nil {
			t.Fatal(err)
		}
		n := <-r.notes
		if full = strings.Contains(n.Unrecorded, "--max-file-bytes"); !full {
			recorded++
		}
	}
	if f := r.stop(); len(f.Exchanges) != recorded || recorded < 2 || f.Whole > 2000 {
		t.Errorf("%d exchanges in %d bytes, want %d", len(f.Exchanges), f.Whole, recorded)
	}
}

// A client that leaves at the last event, as clients do that know it for the last, leaves a whole exchange.
func TestLeavesBeforeTheEnd(t *testing.T) {
	left := make(chan bool)
	s := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
		_ = http.NewResponseController(w).Flush()
		<-left
	})
	r := start(t, nil, s.URL)
	res, err := http.DefaultClient.Get(r.url + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 14)); err != nil {
		t.Error(err)
	}
	res.Body.Close()
	close(left)
	if n := <-r.notes; n.Unrecorded != "" {
		t.Errorf("%+v", n)
	}
	if f := r.stop(); len(f.Exchanges) != 1 || f.Exchanges[0].Answer.End != llmmock.NoFault {
		t.Errorf("%+v", f)
	}
}

// A provider that breaks off is recorded as it did, and the client sees it too.
func TestBrokenOff(t *testing.T) {
	got := make(chan bool, 1)
	s := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/long" {
			w.Header().Set("Content-Length", "100")
		}
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if r.URL.Path == "/v1/reset" {
			<-got // a reset may overtake what was sent before it
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	})
	r := start(t, nil, s.URL)
	for _, path := range []string{"/v1/cut", "/v1/long"} {
		if _, text, err := get(t, r.url+path); text != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	res, err := http.DefaultClient.Get(r.url + "/v1/reset")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 4)); err != nil {
		t.Error(err)
	}
	got <- true
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err == nil {
		t.Errorf("after a reset: %q, %v", rest, err)
	}
	res.Body.Close()
	f := r.stop()
	if len(f.Exchanges) != 3 {
		t.Fatalf("%d exchanges", len(f.Exchanges))
	}
	for _, x := range f.Exchanges {
		want := llmmock.CutMidEvent
		if x.Request.Path == "/v1/reset" {
			want = llmmock.ResetMidStream
		}
		if x.Answer.End != want || string(x.Answer.Body()) != "half" {
			t.Errorf("%s: %+v", x.Request.Path, x.Answer)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	r = start(t, nil, gone.URL)
	if status, text, _ := get(t, r.url+"/v1/models"); status != http.StatusBadGateway || !strings.Contains(text, "no answer from 127.0.0.1") {
		t.Errorf("a provider that is not there: %d %s", status, text)
	}
	if n := <-r.notes; !strings.Contains(n.Unrecorded, "no answer") || len(r.stop().Exchanges) > 0 {
		t.Errorf("%+v", n)
	}
}

// A provider that speaks HTTP/2, as the real ones do.
func TestHTTP2(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"proto\":%q}\n\n", r.Proto)
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/v1/broken" {
			panic(http.ErrAbortHandler)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	recorded := make(chan *record.Exchange, 2)
	redactor, err := record.NewRedactor(true, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(Config{To: []Target{{URL: mustParse(t, s.URL)}}}, redactor, func(x *record.Exchange) error { recorded <- x; return nil })
	p.transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	front := httptest.NewServer(p)
	t.Cleanup(func() { front.Close(); p.transport.CloseIdleConnections() })
	if _, text, err := get(t, front.URL+"/v1/whole"); text != "data: {\"proto\":\"HTTP/2.0\"}\n\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if _, _, err := get(t, front.URL+"/v1/broken"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream that was reset: %v", err)
	}
	if whole, broken := <-recorded, <-recorded; whole.Answer.End != llmmock.NoFault || broken.Answer.End != llmmock.ResetMidStream {
		t.Errorf("%+v and %+v", whole, broken)
	}
}

func TestConfig(t *testing.T) {
	for s, says := range map[string]string{
		"api.example": "no address", "ftp://x": "no address", "openia=https://x": "no vendor", "https://me:pw@x": "more than a host", "https://x/v1": "leave it out",
		"gemini=https://x/y/v1beta/": "leave it out", "https://x?a=b": "more than a host", "https://": "no address",
	} {
		if _, err := ParseTarget(s); problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", s, err)
		}
	}
	here, err := ParseTarget("openai=https://x:8443/y/")
	if err != nil || here.Vendor != llmmock.OpenAI || here.URL.String() != "https://x:8443/y" || address(here.URL) != "x:8443" {
		t.Errorf("%+v, %v", here, err)
	}
	for _, tc := range []struct {
		alter func(*Config)
		says  string
	}{
		{func(c *Config) { c.To = nil }, "--to: is missing"},
		{func(c *Config) { c.To = append(c.To, here) }, "given twice"},
		{func(c *Config) { c.Listen = "0.0.0.0:7400" }, "loopback"},
		{func(c *Config) { c.Listen = ":7400" }, "loopback"},
		{func(c *Config) { c.Listen = "7400" }, "no HOST:PORT"},
		{func(c *Config) { c.MaxFile = -1 }, "--max-file-bytes"},
		{func(c *Config) { c.Patterns = []string{"("} }, "no regular expression"},
		{func(c *Config) { c.File = filepath.Join(c.File, "nowhere", "file") }, "cannot be written"},
	} {
		c := Config{File: t.TempDir() + "/x", To: []Target{here}, Listen: "127.0.0.1:0", Bodies: true}
		tc.alter(&c)
		if err := Run(t.Context(), c, func(Started) { t.Error("it started") }); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("got %v, want …%s…", err, tc.says)
		}
	}
}

// Killed in the middle of its work, it leaves every exchange that a client saw the end of.
func TestKilled(t *testing.T) {
	s := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 5 {
			fmt.Fprintf(w, "data: {\"id\":%q,\"text\":%q}\n\n", r.URL.Query().Get("id"), strings.Repeat("word ", 400))
			_ = http.NewResponseController(w).Flush()
		}
	})
	path := filepath.Join(t.TempDir(), "recording.jsonl")
	before := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0], path)
		cmd.Env = append(os.Environ(), childOf+"="+s.URL)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		seen := map[string]bool{}
		enough := make(chan bool)
		var once sync.Once
		var killed atomic.Bool
		var clients sync.WaitGroup
		client := &http.Client{Transport: &http.Transport{}}
		for c := range 8 {
			clients.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, c, i)
					res, err := client.Get("http://" + strings.TrimSpace(address) + "/v1/models?id=" + id)
					if err == nil {
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					if err != nil {
						if !killed.Load() {
							t.Errorf("before it was killed: %v", err)
							once.Do(func() { close(enough) })
						}
						return
					}
					mu.Lock()
					seen[id] = true
					n := len(seen)
					mu.Unlock()
					if n >= 100+37*round {
						once.Do(func() { close(enough) })
					}
				}
			})
		}
		<-enough
		killed.Store(true)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		clients.Wait()
		client.CloseIdleConnections()
		f, err := record.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range f.Exchanges {
			if x.Answer.End != llmmock.NoFault || bytes.Count(x.Answer.Body(), []byte("data: ")) != 5 {
				t.Errorf("exchange %d is not whole: %d bytes", x.Number, len(x.Answer.Body()))
			}
			delete(seen, strings.TrimPrefix(x.Request.Query, "id="))
		}
		if len(seen) > 0 {
			t.Errorf("round %d: clients saw the end of %d exchanges that are not among the %d that were recorded", round, len(seen), len(f.Exchanges))
		}
		t.Logf("round %d: %d exchanges, %d of them new; %d bytes of one that was not whole", round, len(f.Exchanges), len(f.Exchanges)-before, f.Dropped)
		before = len(f.Exchanges)
	}
}
