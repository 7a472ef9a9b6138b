package serve_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edge"
	"edgehold.internal/tools/edge/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type pod struct {
	t *testing.T
	*serve.Server
	stop func() error
}

func start(t testing.TB, change func(*serve.Config)) *pod {
	t.Helper()
	cfg := serve.Default()
	cfg.Listen, cfg.Admin = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Version, cfg.Colour, cfg.Pop = "v1", "blue", "fra1"
	cfg.DrainJitter, cfg.LameDuck = 20*time.Millisecond, 0
	if change != nil {
		change(&cfg)
	}
	s, err := serve.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	p := &pod{Server: s, stop: stop}
	p.t, _ = t.(*testing.T)
	return p
}

// admin calls a hook over a connection of its own.
func (p *pod) admin(method, path, body string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequest(method, "http://"+p.Admin().String()+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (p *pod) connections() (c serve.Connections) {
	p.t.Helper()
	_, text := p.admin("GET", "/connections", "")
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// client speaks one protocol over kept connections.
func client(t *testing.T, h2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	tr := &http.Transport{Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestAnswers(t *testing.T) {
	p := start(t, nil)
	url := "http://" + p.Addr().String()
	for _, h2 := range []bool{false, true} {
		c := client(t, h2)
		resp, body := get(t, c, url)
		if resp.ProtoMajor != map[bool]int{false: 1, true: 2}[h2] || resp.StatusCode != 200 || body != "edge v1 blue fra1\n" {
			t.Errorf("h2=%v: %v %q", h2, resp, body)
		}
		for header, want := range map[string]string{edge.HeaderVersion: "v1", edge.HeaderColour: "blue", edge.HeaderPop: "fra1", edge.HeaderFault: ""} {
			if got := resp.Header.Get(header); got != want {
				t.Errorf("h2=%v: %s = %q, want %q", h2, header, got, want)
			}
		}
		if got, want := resp.Header.Get("Keep-Alive"), map[bool]string{false: "timeout=10"}[h2]; got != want {
			t.Errorf("h2=%v: Keep-Alive = %q, want %q", h2, got, want)
		}
		if _, body := get(t, c, url+"/bytes/100000"); len(body) != 100000 {
			t.Errorf("h2=%v: %d bytes", h2, len(body))
		}
		resp, body = get(t, c, url+"/stream?interval=1ms&for=20ms")
		if !strings.HasPrefix(body, "v1 blue 1\nv1 blue 2\n") || !strings.HasSuffix(body, "\n"+edge.EndOfStream) {
			t.Errorf("h2=%v: stream %q", h2, body)
		}
		if resp.Close == h2 {
			t.Errorf("h2=%v: the stream's connection is kept = %v", h2, !resp.Close)
		}
		for path, want := range map[string]int{"/nowhere": 404, "/bytes/-1": 400, "/bytes/x": 400, "/bytes/99999999999": 400, "/stream?interval=0s": 400, "/stream?for=99h": 400} {
			if resp, _ := get(t, c, url+path); resp.StatusCode != want {
				t.Errorf("h2=%v: %s gives %d, want %d", h2, path, resp.StatusCode, want)
			}
		}
		resp, err := c.Post(url, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 405 {
			t.Errorf("h2=%v: POST gives %d", h2, resp.StatusCode)
		}
	}
}

// TestDrain: while draining every answer ends its connection, streams get their last line, and after undrain all is as before.
func TestDrain(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			p := start(t, nil)
			url := "http://" + p.Addr().String()
			c := client(t, h2)
			get(t, c, url)
			get(t, c, url)
			if got := p.connections(); got.Open != 1 || got.Accepted != 1 || got.LastAccepted.IsZero() || got.Draining {
				t.Errorf("before: %+v", got)
			}
			stream, err := client(t, h2).Get(url + "/stream?interval=1ms")
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stream.Body)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}

			if status, text := p.admin("POST", "/drain", ""); status != 200 || !strings.Contains(text, `"draining":true`) {
				t.Errorf("drain: %d %s", status, text)
			}
			rest, err := io.ReadAll(lines)
			if err != nil || !strings.HasSuffix(string(rest), edge.EndOfStream) {
				t.Errorf("the stream ended with %v after %q", err, rest)
			}
			_ = stream.Body.Close()
			if resp, _ := get(t, c, url); !h2 && !resp.Close {
				t.Error("an answer while draining keeps its connection")
			}
			get(t, c, url)
			if got := p.connections(); got.Accepted < 3 || !got.Draining {
				t.Errorf("while draining: %+v; each request should have needed a connection", got)
			}
			if status, _ := p.admin("GET", "/readyz", ""); status != 200 {
				t.Errorf("a draining server answers %d to the readiness probe; it is the next standby and stays ready", status)
			}

			p.admin("POST", "/undrain", "")
			get(t, c, url)
			before := p.connections().Accepted
			get(t, c, url)
			if got := p.connections(); got.Accepted != before || got.Draining {
				t.Errorf("after undrain: %+v, %d accepted before", got, before)
			}
		})
	}
}

func TestReset(t *testing.T) {
	p := start(t, nil)
	resp, err := client(t, false).Get("http://" + p.Addr().String() + "/stream?interval=1ms")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, text := p.admin("POST", "/reset", ""); text != "{\"reset\":1}\n" {
		t.Errorf("reset: %s", text)
	}
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want a reset", err)
	}
}

func TestFault(t *testing.T) {
	p := start(t, func(c *serve.Config) { c.Fault = edge.Fault{Ratio: 0.25, Status: 503, Seed: 3} })
	url := "http://" + p.Addr().String()
	c := client(t, false)
	bad := 0
	for i := range 200 {
		resp, body := get(t, c, url)
		marked := resp.Header.Get(edge.HeaderFault) == edge.FaultInjected
		want := edge.Fault{Ratio: 0.25, Status: 503, Seed: 3}.Hits(uint64(i + 1))
		if marked != want || marked != (resp.StatusCode == 503) || marked && body != "injected fault\n" {
			t.Fatalf("request %d: marked %v, status %d, want hit = %v", i+1, marked, resp.StatusCode, want)
		}
		if marked {
			bad++
		}
	}
	if _, text := p.admin("GET", "/metrics", ""); !strings.Contains(text, "\nedge_requests_total 200\n") || !strings.Contains(text, fmt.Sprintf("\nedge_errors_total %d\n", bad)) {
		t.Errorf("200 requests, %d errors, and the metrics say:\n%s", bad, text)
	}
	if status, text := p.admin("POST", "/fault", "ratio=7"); status != 400 || !strings.Contains(text, "fault.ratio: 7 is not allowed") {
		t.Errorf("%d %s", status, text)
	}
	if status, text := p.admin("GET", "/fault", ""); status != 200 || !strings.Contains(text, "ratio=0.25,status=503,seed=3") {
		t.Errorf("after a refused one: %d %s", status, text)
	}
	p.admin("POST", "/fault", "ratio=1,status=200,latency=1ms")
	if resp, _ := get(t, c, url); resp.StatusCode != 200 || resp.Header.Get(edge.HeaderFault) == "" {
		t.Errorf("a slow answer: %v", resp)
	}
	p.admin("POST", "/fault", "ratio=1,status=500,after=1h")
	if resp, _ := get(t, c, url); resp.StatusCode != 200 {
		t.Errorf("a fault in an hour: %v", resp)
	}
	p.admin("POST", "/fault", "")
	if resp, _ := get(t, c, url); resp.StatusCode != 200 {
		t.Errorf("no fault: %v", resp)
	}
}

func TestUpstream(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusBadGateway)
		}
		_, _ = io.WriteString(w, "from upstream "+r.URL.Path)
	}))
	defer upstream.Close()
	p := start(t, func(c *serve.Config) { c.Upstream = upstream.URL })
	url := "http://" + p.Addr().String()
	c := client(t, false)
	if resp, body := get(t, c, url+"/a"); resp.StatusCode != 200 || body != "from upstream /a" || resp.Header.Get(edge.HeaderColour) != "blue" {
		t.Errorf("%v %q", resp, body)
	}
	if resp, _ := get(t, c, url+"/broken"); resp.StatusCode != 502 {
		t.Errorf("%v", resp)
	}
	p.admin("POST", "/drain", "")
	if resp, _ := get(t, c, url+"/a"); !resp.Close {
		t.Error("a passed on answer keeps its connection while draining")
	}
	upstream.Close()
	if resp, _ := get(t, c, url+"/a"); resp.StatusCode != 502 {
		t.Errorf("without upstream: %v", resp)
	}
	if _, text := p.admin("GET", "/metrics", ""); !strings.Contains(text, "\nedge_errors_total 2\n") {
		t.Errorf("two 502, and the metrics say:\n%s", text)
	}
}

// TestStop: it is unready at once, still answers, closes what rests when it gets its next request, and ends when all are gone.
func TestStop(t *testing.T) {
	p := start(t, func(c *serve.Config) { c.LameDuck = 50 * time.Millisecond })
	url := "http://" + p.Addr().String()
	c := client(t, false)
	get(t, c, url)
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop() }()
	for {
		if status, _ := p.admin("GET", "/readyz", ""); status == http.StatusServiceUnavailable {
			break
		}
	}
	if resp, _ := get(t, c, url); !resp.Close {
		t.Error("a stopping server keeps a connection")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", p.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}

// TestStopGrace: a client that does not go is not waited for beyond the grace.
func TestStopGrace(t *testing.T) {
	p := start(t, func(c *serve.Config) { c.StopGrace, c.DrainJitter = 50*time.Millisecond, time.Minute })
	resp, err := client(t, false).Get("http://" + p.Addr().String() + "/stream?interval=1ms")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(resp.Body); err == nil || strings.HasSuffix(string(rest), edge.EndOfStream) {
		t.Error("a stream that was cut looks as if it had ended")
	}
}

func TestAddressInUse(t *testing.T) {
	p := start(t, nil)
	cfg := serve.Default()
	cfg.Listen, cfg.Admin, cfg.Version, cfg.Colour, cfg.Pop = p.Addr().String(), "127.0.0.1:0", "v1", "blue", "fra1"
	s, err := serve.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v, want address in use", err)
	}
	cfg.Listen, cfg.Admin = "127.0.0.1:0", p.Admin().String()
	if s, err = serve.New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v, want address in use", err)
	}
}

func TestValidate(t *testing.T) {
	good := serve.Default()
	good.Version, good.Colour, good.Pop = "v1", "blue", "fra1"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, breakIt := range map[string]func(*serve.Config){
		"listen":       func(c *serve.Config) { c.Listen = "8080" },
		"admin":        func(c *serve.Config) { c.Admin = "" },
		"version":      func(c *serve.Config) { c.Version = "v 1" },
		"colour":       func(c *serve.Config) { c.Colour = "" },
		"pop":          func(c *serve.Config) { c.Pop = strings.Repeat("x", 64) },
		"fault.ratio":  func(c *serve.Config) { c.Fault.Ratio = 2 },
		"upstream":     func(c *serve.Config) { c.Upstream = "https://x" },
		"keep-alive":   func(c *serve.Config) { c.KeepAlive = 1500 * time.Millisecond },
		"drain-jitter": func(c *serve.Config) { c.DrainJitter = -1 },
		"lame-duck":    func(c *serve.Config) { c.LameDuck = time.Hour },
		"stop-grace":   func(c *serve.Config) { c.StopGrace = time.Hour },
	} {
		cfg := good
		breakIt(&cfg)
		_, err := serve.New(cfg, nil)
		if problem.KindOf(err) != problem.Invalid || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
