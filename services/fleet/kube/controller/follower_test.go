package controller

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/drain"
	"edgehold.internal/services/fleet/scrape"
)

// hooks is a pod with the hooks of the drain method http.
type hooks struct {
	port int32

	mu       sync.Mutex
	open     int64
	draining bool
	fails    map[string]bool // by path
	told     []string
}

func newHooks(t *testing.T) *hooks {
	h := &hooks{fails: map[string]bool{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.fails[r.URL.Path] {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answer := map[string]any{"open": h.open, "draining": h.draining}
		switch r.URL.Path {
		case "/drain":
			h.draining = true
		case "/undrain":
			h.draining = false
		case "/reset":
			answer = map[string]any{"reset": h.open}
			h.open = 0
		}
		if r.Method == http.MethodPost {
			h.told = append(h.told, r.URL.Path)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	h.port = int32(n)
	return h
}

func (h *hooks) do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// byHand is a follower whose rounds the test makes, a second apart.
type byHand struct {
	*follower
	uptime time.Duration
	spec   fleet.DrainSpec
}

func newByHand(h *hooks) *byHand {
	b := &byHand{uptime: time.Second, spec: fleet.DrainSpec{Method: fleet.DrainHTTP, Port: h.port, Timeout: time.Minute}}
	dial := drain.DialMap{}.Dialer()
	b.follower = newFollower(func() fleet.Clock { return fleet.Clock{Uptime: b.uptime} }, dial, scrape.New(dial), make(chan struct{}, 4), func() {})
	return b
}

// shall is the target of one pod, which is blue.
func (b *byHand) shall(o fleet.Orders) target {
	return target{orders: o, drain: b.spec, pods: map[fleet.Colour][]pod{fleet.Blue: {{name: "blue-1", uid: "1", host: "127.0.0.1", ready: true}}}}
}

// orders are followed for one round, which says when the next one is.
func (b *byHand) orders(o fleet.Orders) (readings, time.Duration) {
	b.set(b.shall(o))
	next := b.round(context.Background())
	b.uptime += time.Second
	return b.see(), next
}

func TestFollower(t *testing.T) {
	drainBlue := fleet.Orders{Drain: fleet.Blue, Follow: fleet.Blue, Fast: true}
	t.Run("a process that has just started asks at once", func(t *testing.T) {
		h := newHooks(t)
		h.draining = true // its predecessor was killed before it took that back
		b := newByHand(h)
		b.target = b.shall(fleet.Orders{})
		if b.round(context.Background()); b.see().blue.At == 0 || h.draining {
			t.Errorf("%+v, draining %t", b.see().blue, h.draining)
		}
	})
	t.Run("a pod that cannot be told is known to drain, and told again soon", func(t *testing.T) {
		h := newHooks(t)
		b := newByHand(h)
		b.orders(drainBlue)
		h.do(func() { h.fails["/undrain"] = true })
		found, next := b.orders(fleet.Orders{})
		if found.blue.Draining != 1 || found.blue.Unknown != 1 || next > sampleEvery {
			t.Errorf("%+v, and the next round in %s", found.blue, next)
		}
		h.do(func() { h.fails["/undrain"] = false })
		if b.round(context.Background()); h.draining {
			t.Error("it still drains")
		}
	})
	t.Run("a count is of its own resets", func(t *testing.T) {
		h := newHooks(t)
		b := newByHand(h)
		first, second := drainBlue, drainBlue
		first.ResetID, second.ResetID = "op-1", "op-2"
		h.open = 4
		if found, _ := b.orders(first); found.blue.Reset != 4 || !found.blue.ResetDone {
			t.Errorf("%+v", found.blue)
		}
		h.do(func() { h.fails["/connections"] = true })
		if found, _ := b.orders(second); found.blue.Reset != 0 || found.blue.ResetDone {
			t.Errorf("op-2 has what op-1 reset: %+v", found.blue)
		}
	})
	t.Run("another method takes back what the one before told", func(t *testing.T) {
		h := newHooks(t)
		b := newByHand(h)
		b.orders(drainBlue)
		b.spec = fleet.DrainSpec{Method: fleet.DrainWait}
		if b.orders(fleet.Orders{Drain: fleet.Blue}); h.draining {
			t.Error("the pod drains, and nobody will ever tell it to stop")
		}
	})
	t.Run("another deadline is not another method", func(t *testing.T) {
		h := newHooks(t)
		b := newByHand(h)
		b.orders(drainBlue)
		b.spec.Timeout *= 2
		if b.orders(drainBlue); len(h.told) != 1 {
			t.Errorf("told %v", h.told)
		}
	})
	t.Run("whoever leaves takes it back", func(t *testing.T) {
		h := newHooks(t)
		b := newByHand(h)
		b.start()
		b.set(b.shall(drainBlue))
		if b.leave(); h.draining {
			t.Error("it still drains")
		}
	})
}
