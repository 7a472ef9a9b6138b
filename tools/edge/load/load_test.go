package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"edgehold.internal/libs/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server hands each of its connections to a function that answers as badly as the test wants.
func server(t *testing.T, serve func(n int, c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() { serve(n, c.(*net.TCPConn)); _ = c.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// request reads one request's head; false when the connection ended.
func request(r *bufio.Reader) (string, bool) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", false
		}
		if line == "\r\n" {
			return head.String(), true
		}
		head.WriteString(line)
	}
}

const ok = "HTTP/1.1 200 OK\r\nEdge-Colour: blue\r\nEdge-Version: v1\r\nContent-Length: 2\r\n\r\nhi"

// answering answers every request with the same bytes.
func answering(text string) func(int, *net.TCPConn) {
	return func(_ int, c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			if _, ok := request(r); !ok {
				return
			}
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

func run(t *testing.T, address string, change func(*Config)) *Run {
	t.Helper()
	cfg := Default()
	cfg.Targets = []Target{{Pop: "fra1", Address: address}}
	cfg.Rate, cfg.Arrivals, cfg.NewConnShare, cfg.H2Share, cfg.Streams, cfg.H2Streams = 500, Constant, 0, 0, 0, 0
	if change != nil {
		change(&cfg)
	}
	r, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	return r
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func ended(r *Run, n int64) func() bool { return func() bool { return r.Snapshot().Requests >= n } }

func TestKeptConnections(t *testing.T) {
	var conns atomic.Int64
	address := server(t, func(n int, c *net.TCPConn) { conns.Add(1); answering(ok)(n, c) })
	r := run(t, address, func(c *Config) { c.Pool = 3 })
	until(t, "answers", ended(r, 200))
	res := r.Stop()
	if res.Failed != 0 || res.Good != res.Requests || res.ByKind[KindKept] != res.Requests || conns.Load() > 3 || res.ConnectionsOpened != conns.Load() {
		t.Errorf("%d connections, %+v", conns.Load(), res)
	}
	blue := res.Targets[0].Colour("blue")
	if blue == nil || blue.Good != res.Good || len(blue.Versions) != 1 || blue.Versions[0] != "v1" {
		t.Errorf("blue: %+v", blue)
	}
	if again := r.Stop(); again.Requests != res.Requests {
		t.Error("a second Stop gives another account")
	}
}

// TestMix: each kind of connection gets its share, and the shares do not depend on the answers.
func TestMix(t *testing.T) {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Edge-Colour", "blue")
		if r.Header.Get("User-Agent") != "edge-load" || r.Host != "edge.example" || r.URL.Path != "/x" || r.URL.RawQuery != "y=1" {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, "hi")
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	r := run(t, l.Addr().String(), func(c *Config) {
		c.Targets[0].URL = "http://edge.example/x?y=1"
		c.NewConnShare, c.H2Share, c.Rate = 0.2, 0.3, 400
	})
	until(t, "answers", ended(r, 600))
	res := r.Stop()
	if res.Failed != 0 {
		t.Fatalf("%v %+v", res.FailedByReason, res.Failures[0])
	}
	for kind, share := range map[Kind]float64{KindNew: 0.2, KindH2: 0.3, KindKept: 0.5} {
		if got := float64(res.ByKind[kind]) / float64(res.Requests); got < share-0.06 || got > share+0.06 {
			t.Errorf("%v of the requests were %s, want %v", got, kind, share)
		}
	}
}

// TestReasons is what each way to go wrong is called.
func TestReasons(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	read := func(then func(*net.TCPConn)) func(int, *net.TCPConn) {
		return func(_ int, c *net.TCPConn) {
			if _, ok := request(bufio.NewReader(c)); ok {
				then(c)
			}
		}
	}
	silent := func(_ int, c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
	for name, c := range map[string]struct {
		serve func(int, *net.TCPConn)
		want  Reason
	}{
		"refused":     {nil, Refused},
		"eof":         {read(func(*net.TCPConn) {}), EOF},
		"reset":       {read(func(c *net.TCPConn) { _ = c.SetLinger(0) }), Reset},
		"cut in head": {read(func(c *net.TCPConn) { _, _ = io.WriteString(c, ok[:30]) }), CutShort},
		"cut in body": {read(func(c *net.TCPConn) { _, _ = io.WriteString(c, ok[:len(ok)-1]) }), CutShort},
		"cut in chunk": {read(func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
		}), CutShort},
		"cut after one": {read(func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
		}), CutShort},
		"timeout":        {silent, Timeout},
		"slow body":      {read(func(c *net.TCPConn) { _, _ = io.WriteString(c, ok[:len(ok)-1]); silent(0, c) }), Timeout},
		"status 5xx":     {answering("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), Status5xx},
		"status other":   {answering("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), StatusOther},
		"not HTTP":       {read(func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n\r\n") }), Malformed},
		"switched":       {read(func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 101 Up\r\n\r\n") }), Malformed},
		"huge head":      {read(func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)) }), Malformed},
		"two lengths":    {answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi"), Malformed},
		"smuggled":       {answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Malformed},
		"HTTP/2 preface": {read(func(c *net.TCPConn) { _, _ = io.WriteString(c, "\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n") }), Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := nobody
			if c.serve != nil {
				address = server(t, c.serve)
			}
			r := run(t, address, func(cfg *Config) { cfg.Rate, cfg.Timeout, cfg.NewConnShare = 50, 300*time.Millisecond, 0.5 })
			until(t, "an end", ended(r, 10))
			res := r.Stop()
			if res.Good+res.Bad != 0 || res.FailedByReason[c.want] != res.Failed {
				t.Errorf("%d good, %d bad, failed: %v; want only %s. The first: %+v", res.Good, res.Bad, res.FailedByReason, c.want, res.Failures[0])
			}
			for _, f := range res.Failures {
				if f.Pop != "fra1" || f.Intended.IsZero() || f.Failed.Before(f.Intended) || c.want != Refused && (f.Sent.IsZero() || f.Opened.IsZero()) {
					t.Fatalf("not whole: %+v", f)
				}
			}
		})
	}
}

func TestBadIsNotFailed(t *testing.T) {
	address := server(t, answering("HTTP/1.1 500 No\r\nEdge-Fault: injected\r\nEdge-Colour: green\r\nContent-Length: 0\r\n\r\n"))
	r := run(t, address, nil)
	until(t, "answers", ended(r, 50))
	res := r.Stop()
	if res.Bad != res.Requests || res.Failed != 0 || res.Targets[0].Colour("green").Bad != res.Bad {
		t.Errorf("%+v", res)
	}
	if last, ok := res.Targets[0].Colour("green").LastBadOpenedAfter(res.Started); !ok || last.After(res.Stopped) {
		t.Errorf("last bad answer at %v, %v", last, ok)
	}
}

// TestNothingIsRetried: a kept connection that the server closes instead of answering is a failed request, though a GET may be
// repeated. The server must not have got it twice.
func TestNothingIsRetried(t *testing.T) {
	var got atomic.Int64
	address := server(t, func(_ int, c *net.TCPConn) {
		r := bufio.NewReader(c)
		for n := 0; ; n++ {
			if _, ok := request(r); !ok {
				return
			}
			got.Add(1)
			if n == 3 {
				return
			}
			_, _ = io.WriteString(c, ok)
		}
	})
	r := run(t, address, func(c *Config) { c.Pool = 1 })
	until(t, "failures", func() bool { return r.Snapshot().Failed >= 5 })
	res := r.Stop()
	if res.FailedByReason[EOF]+res.FailedByReason[Reset] != res.Failed || got.Load() != res.Requests {
		t.Errorf("the server got %d requests, the account has %d, failed: %v", got.Load(), res.Requests, res.FailedByReason)
	}
	for _, f := range res.Failures {
		if f.Served != 3 || f.Kind != KindKept {
			t.Fatalf("%+v, want one on a connection that had answered 3", f)
		}
	}
}

// TestClosedAtRest: a connection that the server closes while nothing is asked costs no request.
func TestClosedAtRest(t *testing.T) {
	address := server(t, func(_ int, c *net.TCPConn) {
		if _, more := request(bufio.NewReader(c)); more {
			_, _ = io.WriteString(c, ok)
		}
	})
	r := run(t, address, func(c *Config) { c.Pool, c.Rate = 1, 20 })
	until(t, "answers", ended(r, 20))
	res := r.Stop()
	if res.Failed != 0 || res.ClosedAtRest < 15 {
		t.Errorf("failed %v, closed at rest %d", res.FailedByReason, res.ClosedAtRest)
	}
}

// TestKeepAlivePromise: a connection is not used near the end of the time for which the server promised to keep it.
func TestKeepAlivePromise(t *testing.T) {
	var conns atomic.Int64
	address := server(t, func(n int, c *net.TCPConn) {
		conns.Add(1)
		answering(strings.Replace(ok, "Content-", "Keep-Alive: timeout=1, max=100\r\nContent-", 1))(n, c)
	})
	r := run(t, address, func(c *Config) { c.Rate = 1.5 }) // rests 0.67 s, half a second is allowed
	until(t, "answers", ended(r, 3))
	res := r.Stop()
	if res.Failed != 0 || conns.Load() != res.Requests || res.ClosedAtRest != 0 {
		t.Errorf("%d connections for %d requests, failed %v, closed by the server %d", conns.Load(), res.Requests, res.FailedByReason, res.ClosedAtRest)
	}
}

// TestOpenLoop: a server that stalls for a moment is seen to stall by every request that was due in that moment, though only one
// of them could be sent. A closed loop would have seen a single slow answer.
func TestOpenLoop(t *testing.T) {
	const stall = 500 * time.Millisecond
	var n atomic.Int64
	address := server(t, func(_ int, c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			if _, more := request(r); !more {
				return
			}
			if n.Add(1) == 40 {
				time.Sleep(stall) // the server's, not the test's: this is what is measured
			}
			_, _ = io.WriteString(c, ok)
		}
	})
	r := run(t, address, func(c *Config) { c.Rate, c.Pool = 200, 1 })
	until(t, "answers", ended(r, 240))
	res := r.Stop()
	all := res.Latency(res.Started, res.Stopped)
	slow := int64(0)
	for i, count := range all.bins {
		if value(i) > stall/2 {
			slow += int64(count)
		}
	}
	// 200/s for the half of the stall in which the wait that is left is longer than half of it: 50.
	if slow < 40 {
		t.Errorf("%d requests waited for more than %v, want about 50: the stall is hidden", slow, stall/2)
	}
	if res.Failed != 0 {
		t.Errorf("failed: %v", res.FailedByReason)
	}
}

// TestOverload: a generator that cannot keep up says that it is to blame, and stays within its bounds.
func TestOverload(t *testing.T) {
	address := server(t, func(_ int, c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	r := run(t, address, func(c *Config) { c.MaxInFlight, c.MaxFailures, c.Timeout = 10, 7, time.Second })
	until(t, "overload", func() bool { return r.Snapshot().FailedByReason[Overload] > 20 })
	if s := r.Snapshot(); s.InFlight > 11 {
		t.Errorf("%d in flight", s.InFlight)
	}
	res := r.Stop()
	if len(res.Failures) != 7 || res.FailuresLeft != res.Failed-7 {
		t.Errorf("%d failures kept, %d left, %d in all", len(res.Failures), res.FailuresLeft, res.Failed)
	}
	all := res.Latency(res.Started, res.Stopped)
	if all.Count() > res.FailedByReason[Timeout] {
		t.Error("requests that were never sent have a latency")
	}
}

func TestStreams(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nEdge-Colour: blue\r\nTransfer-Encoding: chunked\r\n\r\n"
	serve := func(text string, then func(*net.TCPConn)) func(int, *net.TCPConn) {
		return func(_ int, c *net.TCPConn) {
			if _, more := request(bufio.NewReader(c)); more {
				_, _ = io.WriteString(c, text)
				then(c)
			}
		}
	}
	leave := func(*net.TCPConn) {}
	stay := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
	reset := func(c *net.TCPConn) { _ = c.SetLinger(0) }
	for name, c := range map[string]struct {
		serve func(int, *net.TCPConn)
		want  Reason // empty: ends well
	}{
		"end":            {serve(head+"5\r\none\nx\r\n5\r\n\nend\n\r\n0\r\n\r\n", leave), ""},
		"end in pieces":  {serve(head+"1\r\ne\r\n1\r\nn\r\n2\r\nd\n\r\n0\r\n\r\n", leave), ""},
		"no end":         {serve(head+"4\r\none\n\r\n0\r\n\r\n", leave), CutShort},
		"nearly":         {serve(head+"5\r\nend\nx\r\n0\r\n\r\n", leave), CutShort},
		"end, no chunk":  {serve(head+"4\r\nend\n\r\n", leave), CutShort},
		"closed":         {serve(head+"4\r\none\n\r\n", leave), CutShort},
		"reset":          {serve(head+"4\r\none\n\r\n", reset), CutShort},
		"empty":          {serve(head+"0\r\n\r\n", leave), CutShort},
		"silent":         {serve(head+"4\r\none\n\r\n", stay), Timeout},
		"never answered": {serve("", stay), Timeout},
		"closed at once": {serve("", leave), EOF},
		"unavailable":    {serve("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", leave), Status5xx},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, server(t, c.serve), func(cfg *Config) { cfg.Rate, cfg.Streams, cfg.StreamStall = 0, 1, 200*time.Millisecond })
			until(t, "two streams", ended(r, 2))
			res := r.Stop()
			if c.want == "" && (res.Failed != 0 || res.Streams.Ended < 2) || c.want != "" && (res.FailedByReason[c.want] != res.Failed || res.Streams.Failed != res.Failed || res.Streams.Ended != 0) {
				t.Errorf("%+v %v", res.Streams, res.FailedByReason)
			}
		})
	}
}

// h2server speaks frames: serve is called for each request's header.
func h2server(t *testing.T, serve func(n int, id uint32, f *http2.Framer, c *net.TCPConn) bool) string {
	return server(t, func(n int, c *net.TCPConn) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
			return
		}
		f := http2.NewFramer(c, c)
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
		_ = f.WritePing(false, [8]byte{1})
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, isHeader := frame.(*http2.MetaHeadersFrame); isHeader && !serve(n, h.StreamID, f, c) {
				_ = c.CloseWrite() // an end; closing with unread bytes would be a reset
				_, _ = io.Copy(io.Discard, c)
				return
			}
		}
	})
}

func h2answer(f *http2.Framer, id uint32, end bool) {
	var b strings.Builder
	e := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "edge-colour", Value: "blue"}, {Name: "edge-version", Value: "v1"}} {
		_ = e.WriteField(h)
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(b.String()), EndHeaders: true, EndStream: end})
}

func TestH2(t *testing.T) {
	for name, c := range map[string]struct {
		serve  func(n int, id uint32, f *http2.Framer, c *net.TCPConn) bool
		want   Reason // empty: all good
		resent bool
	}{
		"good": {func(_ int, id uint32, f *http2.Framer, _ *net.TCPConn) bool { h2answer(f, id, true); return true }, "", false},
		"goaway, then not processed": {func(n int, id uint32, f *http2.Framer, _ *net.TCPConn) bool {
			if n%2 == 0 && id > 5 {
				_ = f.WriteGoAway(5, http2.ErrCodeNo, nil)
				return true
			}
			h2answer(f, id, true)
			return true
		}, "", true},
		"refused stream": {func(n int, id uint32, f *http2.Framer, _ *net.TCPConn) bool {
			if id == 5 {
				_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				return true
			}
			h2answer(f, id, true)
			return true
		}, "", true},
		"nobody processes it": {func(_ int, id uint32, f *http2.Framer, _ *net.TCPConn) bool {
			_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			return true
		}, GoAway, true},
		"reset stream": {func(_ int, id uint32, f *http2.Framer, _ *net.TCPConn) bool {
			_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
			return true
		}, Reset, false},
		"closed":       {func(_ int, _ uint32, _ *http2.Framer, _ *net.TCPConn) bool { return false }, EOF, false},
		"closed later": {func(_ int, id uint32, f *http2.Framer, _ *net.TCPConn) bool { h2answer(f, id, false); return false }, CutShort, false},
		"silent":       {func(int, uint32, *http2.Framer, *net.TCPConn) bool { return true }, Timeout, false},
		"not HTTP/2": {func(_ int, _ uint32, _ *http2.Framer, c *net.TCPConn) bool {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return true
		}, Other, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, h2server(t, c.serve), func(cfg *Config) { cfg.Rate, cfg.H2Share, cfg.Timeout = 100, 1, 400*time.Millisecond })
			until(t, "an end", ended(r, 20))
			res := r.Stop()
			as := res.FailedByReason[c.want]
			if c.want == CutShort {
				as += res.FailedByReason[EOF] // of a second stream, when the machine is slow enough for one to be open beside the first
			}
			if c.want == "" && res.Failed != 0 || c.want != "" && as != res.Failed || (res.Resent > 0) != c.resent {
				t.Errorf("%d requests, %d good, failed %v, resent %d; the first failure: %+v", res.Requests, res.Good, res.FailedByReason, res.Resent, append(res.Failures, Failure{})[0])
			}
			if c.want != "" && res.Good != 0 || res.ByKind[KindH2] != res.Requests {
				t.Errorf("good %d, kinds %v", res.Good, res.ByKind)
			}
		})
	}
}

func TestH2Streams(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		then func(id uint32, f *http2.Framer) bool
		want Reason
	}{
		"end":    {"one\nend\n", func(id uint32, f *http2.Framer) bool { _ = f.WriteData(id, true, nil); return true }, ""},
		"no end": {"one\n", func(id uint32, f *http2.Framer) bool { _ = f.WriteData(id, true, nil); return true }, CutShort},
		"reset":  {"one\n", func(id uint32, f *http2.Framer) bool { _ = f.WriteRSTStream(id, http2.ErrCodeCancel); return true }, CutShort},
		"closed": {"one\n", func(uint32, *http2.Framer) bool { return false }, CutShort},
		"silent": {"one\n", func(uint32, *http2.Framer) bool { return true }, Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := h2server(t, func(_ int, id uint32, f *http2.Framer, _ *net.TCPConn) bool {
				h2answer(f, id, false)
				_ = f.WriteData(id, false, []byte(c.data))
				return c.then(id, f)
			})
			r := run(t, address, func(cfg *Config) { cfg.Rate, cfg.H2Streams, cfg.StreamStall = 0, 1, 200*time.Millisecond })
			until(t, "two streams", ended(r, 2))
			res := r.Stop()
			if c.want == "" && (res.Failed != 0 || res.Streams.Ended < 2) || c.want != "" && (res.FailedByReason[c.want] != res.Failed || res.Streams.Ended != 0) {
				t.Errorf("%+v %v", res.Streams, res.FailedByReason)
			}
		})
	}
}

// TestStopWhileDialling: nothing is left behind when a run ends while its streams find nobody. goleak is the judge.
func TestStopWhileDialling(t *testing.T) {
	for range 20 {
		address := server(t, func(_ int, c *net.TCPConn) { _ = c.SetLinger(0) })
		r := run(t, address, func(c *Config) { c.Rate, c.Streams, c.H2Streams, c.Timeout = 100, 5, 5, 100*time.Millisecond })
		until(t, "a failure", func() bool { return r.Snapshot().Failed > 0 })
		r.Stop()
	}
}

func TestResultSurvivesJSON(t *testing.T) {
	r := run(t, server(t, answering(ok)), nil)
	until(t, "answers", ended(r, 50))
	res := r.Stop()
	text, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	a, b := res.Latency(res.Started, res.Stopped), back.Latency(back.Started, back.Stopped)
	if a.Count() != res.Requests || b.Count() != a.Count() || back.Good != res.Good || !back.Targets[0].Colours[0].Last.Equal(res.Targets[0].Colours[0].Last) {
		t.Errorf("%d latencies of %d requests, %d after JSON", a.Count(), res.Requests, b.Count())
	}
}

func TestContextEndsTheSending(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cfg := Default()
	cfg.Targets = []Target{{Pop: "fra1", Address: server(t, answering(ok))}}
	cfg.Streams, cfg.H2Streams, cfg.H2Share = 0, 0, 0
	r, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "answers", ended(r, 10))
	cancel()
	if res := r.Stop(); res.Failed != 0 {
		t.Errorf("failed: %v", res.FailedByReason)
	}
}

func TestValidate(t *testing.T) {
	for field, breakIt := range map[string]func(*Config){
		"targets":                   func(c *Config) { c.Targets = nil },
		"targets[1].pop":            func(c *Config) { c.Targets = append(c.Targets, c.Targets[0]) },
		"targets[0].address":        func(c *Config) { c.Targets[0].Address = "fra1" },
		"targets[0].url":            func(c *Config) { c.Targets[0].URL = "https://x/" },
		"rate":                      func(c *Config) { c.Rate = -1 },
		"arrivals":                  func(c *Config) { c.Arrivals = "sometimes" },
		"new_conn_share":            func(c *Config) { c.NewConnShare = 1.5 },
		"h2_share":                  func(c *Config) { c.H2Share = -1 },
		"new_conn_share + h2_share": func(c *Config) { c.NewConnShare, c.H2Share = 0.6, 0.6 },
		"pool":                      func(c *Config) { c.Pool = 0 },
		"streams":                   func(c *Config) { c.Streams = -1 },
		"h2_streams":                func(c *Config) { c.H2Streams = 1001 },
		"stream_path":               func(c *Config) { c.StreamPath = "stream" },
		"timeout":                   func(c *Config) { c.Timeout = 0 },
		"stream_stall":              func(c *Config) { c.StreamStall = time.Hour },
		"max_in_flight":             func(c *Config) { c.MaxInFlight = 0 },
		"max_failures":              func(c *Config) { c.MaxFailures = -1 },
	} {
		cfg := Default()
		cfg.Targets = []Target{{Pop: "fra1", Address: "127.0.0.1:80"}}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		breakIt(&cfg)
		_, err := Start(t.Context(), cfg)
		if problem.KindOf(err) != problem.Invalid || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
	cfg := Default()
	cfg.Targets = []Target{{Pop: "fra1", Address: "127.0.0.1:80"}}
	cfg.Rate, cfg.Streams, cfg.H2Streams = 0, 0, 0
	if err := cfg.Validate(); err == nil {
		t.Error("a run that sends nothing is allowed")
	}
}

func ExampleStart() {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") })}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()

	cfg := Default()
	cfg.Targets = []Target{{Pop: "fra1", Address: l.Addr().String()}}
	cfg.Streams, cfg.H2Streams, cfg.H2Share = 0, 0, 0
	run, err := Start(context.Background(), cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	for run.Snapshot().Good < 10 {
		time.Sleep(time.Millisecond)
	}
	result := run.Stop()
	fmt.Println(result.Failed)
	_ = s.Close()
	<-done
	// Output: 0
}
