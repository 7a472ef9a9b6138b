package edge_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehold.internal/tools/edge"
	"edgehold.internal/tools/edge/load"
	"edgehold.internal/tools/edge/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pod is a running proxy.
type pod struct {
	*serve.Server
	stop func() error // as SIGTERM does
}

func start(t *testing.T, colour string, change func(*serve.Config)) *pod {
	t.Helper()
	cfg := serve.Default()
	cfg.Listen, cfg.Admin = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Version, cfg.Colour, cfg.Pop = "v1", colour, "fra1"
	cfg.DrainJitter, cfg.LameDuck = 200*time.Millisecond, 200*time.Millisecond
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
	return &pod{s, stop}
}

// hook calls an admin hook and decodes its answer.
func (p *pod) hook(t *testing.T, method, path string) (c serve.Connections) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.Admin().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// door sends new connections to one of its backends and leaves the old ones where they are, as the front door of a PoP does.
type door struct {
	listener net.Listener
	backend  atomic.Pointer[string]
	wg       sync.WaitGroup
}

func newDoor(t *testing.T, to *pod) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{listener: l}
	d.sendTo(to)
	d.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			d.wg.Go(func() { d.pass(client) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); d.wg.Wait() })
	return d
}

func (d *door) sendTo(p *pod) {
	address := p.Addr().String()
	d.backend.Store(&address)
}

func (d *door) pass(client net.Conn) {
	server, err := net.Dial("tcp", *d.backend.Load())
	if err != nil {
		_ = client.Close()
		return
	}
	var wg sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.(*net.TCPConn).CloseWrite()
	}
	wg.Go(func() { one(server, client) })
	one(client, server)
	wg.Wait()
	_ = client.Close()
	_ = server.Close()
}

func traffic(t *testing.T, address string, change func(*load.Config)) *load.Run {
	t.Helper()
	cfg := load.Default()
	cfg.Targets = []load.Target{{Pop: "fra1", Address: address}}
	cfg.Rate, cfg.Pool, cfg.Streams, cfg.H2Streams = 400, 4, 3, 2
	cfg.StreamPath = "/stream?interval=5ms&for=1h"
	if change != nil {
		change(&cfg)
	}
	run, err := load.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Stop() })
	return run
}

// eventually asks until it is true. The machines that this runs on are slow, so the deadline is far.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func answered(run *load.Run, n int64) func() bool {
	from := run.Snapshot().Requests
	return func() bool { return run.Snapshot().Requests >= from+n }
}

func noFailure(t *testing.T, r load.Result) {
	t.Helper()
	if r.Failed != 0 {
		t.Errorf("%d of %d requests failed: %v; the first: %+v", r.Failed, r.Requests, r.FailedByReason, r.Failures[0])
	}
}

// TestRollback is the thing itself in one PoP: traffic of all kinds, the door switches, the old colour is drained, and comes back
// as the standby. Nothing fails, and when the last answer of the old colour came is known.
func TestRollback(t *testing.T) {
	green := start(t, "green", func(c *serve.Config) { c.Fault = edge.Fault{Ratio: 0.3, Status: 500} })
	blue := start(t, "blue", nil)
	d := newDoor(t, green)
	run := traffic(t, d.listener.Addr().String(), nil)
	eventually(t, "answers", answered(run, 300))
	eventually(t, "streams", func() bool { return run.Snapshot().OpenStreams == 5 })

	d.sendTo(blue)
	switched := time.Now()
	green.hook(t, "POST", "/drain")
	eventually(t, "no connection on the old colour", func() bool { return green.hook(t, "GET", "/connections").Open == 0 })
	drained := time.Now()
	if c := green.hook(t, "POST", "/undrain"); c.Draining || c.Open != 0 || c.Accepted == 0 {
		t.Errorf("after undrain: %+v", c)
	}
	eventually(t, "answers of the new colour", answered(run, 300))
	eventually(t, "streams", func() bool { return run.Snapshot().OpenStreams == 5 })
	r := run.Stop()
	noFailure(t, r)
	target := &r.Targets[0]
	old, now := target.Colour("green"), target.Colour("blue")
	if old == nil || now == nil {
		t.Fatalf("colours: %+v", target.Colours)
	}
	if r.Bad == 0 || old.Bad != r.Bad || now.Bad != 0 {
		t.Errorf("bad answers: %d in all, %d of green, %d of blue", r.Bad, old.Bad, now.Bad)
	}
	if old.Last.After(drained) {
		t.Errorf("green answered %v after it was drained", old.Last.Sub(drained))
	}
	// The door may have chosen green for a connection that the client saw open a moment later, and for none after that.
	if last, ok := old.LastOpenedAfter(switched.Add(time.Second)); ok {
		t.Errorf("green answered at %v on a connection opened a second after the switch at %v", last, switched)
	}
	if r.Streams.Ended < 5 {
		t.Errorf("streams: %+v; the five that were open on green should have ended well", r.Streams)
	}
}

// TestDrainAlone drains the only server there is, twice: its clients come back to it, and none loses a request.
func TestDrainAlone(t *testing.T) {
	s := start(t, "blue", nil)
	run := traffic(t, s.Addr().String(), nil)
	for range 2 {
		eventually(t, "answers", answered(run, 200))
		s.hook(t, "POST", "/drain")
		eventually(t, "answers while draining", answered(run, 200))
		s.hook(t, "POST", "/undrain")
	}
	eventually(t, "answers", answered(run, 200))
	noFailure(t, run.Stop())
}

// TestStopUnderLoad stops a server as a scale-down does: its endpoint is taken away a moment after it was told, and it loses nothing.
func TestStopUnderLoad(t *testing.T) {
	one, two := start(t, "blue", nil), start(t, "blue", nil)
	d := newDoor(t, one)
	run := traffic(t, d.listener.Addr().String(), nil)
	eventually(t, "answers", answered(run, 300))
	stopped := make(chan error, 1)
	go func() { stopped <- one.stop() }()
	eventually(t, "not ready", func() bool {
		resp, err := http.Get("http://" + one.Admin().String() + "/readyz")
		if err != nil {
			return true
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	d.sendTo(two)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	eventually(t, "answers of the other", answered(run, 300))
	noFailure(t, run.Stop())
	http.DefaultClient.CloseIdleConnections()
}

// TestResetIsSeen: what the drain's last resort does to clients is counted as what it is.
func TestResetIsSeen(t *testing.T) {
	s := start(t, "blue", nil)
	run := traffic(t, s.Addr().String(), func(c *load.Config) { c.Rate = 50 })
	eventually(t, "streams", func() bool { return run.Snapshot().OpenStreams == 5 })
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(must(http.NewRequest("POST", "http://"+s.Admin().String()+"/reset", nil)))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	var got struct{ Reset int }
	if err := json.Unmarshal(body, &got); err != nil || got.Reset < 5 {
		t.Errorf("reset says %s, %v; there were 5 streams", body, err)
	}
	eventually(t, "cut streams", func() bool { return run.Snapshot().FailedByReason[load.CutShort] >= 5 })
	r := run.Stop()
	if r.Streams.Failed != 5 {
		t.Errorf("streams: %+v, want 5 failed", r.Streams)
	}
	for _, f := range r.Failures {
		if f.Kind == load.KindStream && (f.Reason != load.CutShort || f.Colour != "blue" || f.Opened.IsZero() || !strings.Contains(f.Detail, "reset")) {
			t.Errorf("failure of a reset stream: %+v", f)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
