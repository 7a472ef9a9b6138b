package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"edgehold.internal/tools/edge"
)

// Server is one pod's proxy. Make it with New, start it with Run.
type Server struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{}
	// traffic and admin are set before ready is closed.
	traffic, admin net.Listener

	conns    connections
	drain    drain
	serving  atomic.Bool // what /readyz says
	fault    atomic.Pointer[activeFault]
	requests atomic.Int64
	errors   atomic.Int64
	inFlight atomic.Int64

	// Header values are made once: a map entry per request instead of an allocation.
	version, colour, pop, keepAlive, text []string
	body                                  []byte
	proxy                                 http.Handler
}

// activeFault is a fault and since when it is in force. Its counter starts anew with it, so that a run can be repeated.
type activeFault struct {
	edge.Fault
	set time.Time
	n   atomic.Uint64
}

// New checks the configuration; errors are problem.Invalid. A nil log discards.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:       cfg,
		log:       log,
		ready:     make(chan struct{}),
		conns:     connections{open: map[net.Conn]struct{}{}},
		drain:     drain{begun: make(chan struct{})},
		version:   []string{cfg.Version},
		colour:    []string{cfg.Colour},
		pop:       []string{cfg.Pop},
		keepAlive: []string{"timeout=" + strconv.Itoa(int(cfg.KeepAlive/time.Second))},
		text:      []string{"text/plain; charset=utf-8"},
		body:      fmt.Appendf(nil, "edge %s %s %s\n", cfg.Version, cfg.Colour, cfg.Pop),
	}
	s.setFault(cfg.Fault)
	if cfg.Upstream != "" {
		s.proxy = s.newProxy()
	}
	return s, nil
}

// Ready is closed when both listeners are open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is where the traffic goes, Admin where the hooks are. Both are known once Ready is closed.
func (s *Server) Addr() net.Addr { return s.traffic.Addr() }

// Admin is the address of the hooks.
func (s *Server) Admin() net.Addr { return s.admin.Addr() }

// Run serves until ctx ends and then stops without losing a request: it is unready at once, lets its connections go, keeps
// accepting until no new connection has come for LameDuck, and ends when the last one is closed or StopGrace is over.
// It returns nil after such a stop, and else why it could not listen or serve.
func (s *Server) Run(ctx context.Context) error {
	var err error
	var lc net.ListenConfig
	if s.traffic, err = lc.Listen(ctx, "tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("listen for the traffic: %w", err)
	}
	if s.admin, err = lc.Listen(ctx, "tcp", s.cfg.Admin); err != nil {
		return errors.Join(fmt.Errorf("listen for the hooks: %w", err), s.traffic.Close())
	}
	quiet := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug) // net/http's notes on clients that went away
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	traffic := &http.Server{
		Handler:           http.HandlerFunc(s.serveTraffic),
		Protocols:         protocols,
		ConnState:         s.conns.observe,
		ReadHeaderTimeout: s.cfg.KeepAlive + KeepAliveMargin,
		IdleTimeout:       s.cfg.KeepAlive + KeepAliveMargin,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          quiet,
	}
	admin := &http.Server{Handler: s.adminMux(), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10, ErrorLog: quiet}
	ended := make(chan error, 2)
	go func() { ended <- traffic.Serve(s.traffic) }()
	go func() { ended <- admin.Serve(s.admin) }()
	s.serving.Store(true)
	close(s.ready)

	running := 2
	select {
	case <-ctx.Done():
	case err = <-ended:
		running--
	}
	s.serving.Store(false)
	if err == nil {
		s.stop(context.WithoutCancel(ctx), traffic)
	}
	err = errors.Join(err, ignoreClosed(traffic.Close()), ignoreClosed(admin.Close()))
	for range running {
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, ignoreClosed(e))
		}
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// stop returns when no connection is left or the grace is over.
func (s *Server) stop(ctx context.Context, traffic *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StopGrace)
	defer cancel()
	s.drain.set(true)
	since := time.Now()
	for {
		// A listener that is closed too early refuses those who still believe in this endpoint.
		if _, _, last := s.conns.counts(); last.After(since) {
			since = last
		}
		wait := time.Until(since.Add(s.cfg.LameDuck))
		if wait <= 0 {
			break
		}
		select {
		case <-time.After(wait):
			continue
		case <-ctx.Done():
		}
		break
	}
	_ = s.traffic.Close()
	select {
	case <-s.conns.empty():
	case <-ctx.Done():
		open, _, _ := s.conns.counts()
		s.log.Warn("stopping with connections open: raise --stop-grace if their clients should be waited for", "open", open, "grace", s.cfg.StopGrace)
	}
	_ = traffic.Close()
}

// serveTraffic answers every request but those of the admin port.
func (s *Server) serveTraffic(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	h := w.Header()
	h[edge.HeaderVersion], h[edge.HeaderColour], h[edge.HeaderPop] = s.version, s.colour, s.pop
	switch {
	case s.drain.on.Load():
		// HTTP/1: the connection ends with this answer, which no request can race, because the client is waiting for it.
		// HTTP/2: net/http sends GOAWAY, ends the streams there are, and ignores later ones, which the client knows by their number.
		h["Connection"] = closeHeader
	case r.ProtoMajor == 1:
		h["Keep-Alive"] = s.keepAlive
	}
	if s.injected(w, r) {
		return
	}
	switch {
	case s.proxy != nil:
		s.proxy.ServeHTTP(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
	case r.URL.Path == "/":
		h["Content-Type"] = s.text
		_, _ = w.Write(s.body) // a client that went away is no error of ours
	case r.URL.Path == "/stream":
		s.serveStream(w, r)
	case len(r.URL.Path) > len(bytesPath) && r.URL.Path[:len(bytesPath)] == bytesPath:
		serveBytes(w, r)
	default:
		http.Error(w, "not found; use /, /bytes/N or /stream", http.StatusNotFound)
	}
}

var closeHeader = []string{"close"}

func (s *Server) setFault(f edge.Fault) { s.fault.Store(&activeFault{Fault: f, set: time.Now()}) }

// injected counts the request against the fault in force and says whether it has answered it.
func (s *Server) injected(w http.ResponseWriter, r *http.Request) bool {
	f := s.fault.Load()
	if f.Ratio <= 0 || time.Since(f.set) < f.After || !f.Hits(f.n.Add(1)) {
		return false
	}
	w.Header().Set(edge.HeaderFault, edge.FaultInjected)
	if f.Latency > 0 {
		wait := time.NewTimer(f.Latency)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return true
		}
	}
	if f.Status == 0 {
		return false
	}
	if f.Status >= 500 {
		s.errors.Add(1)
	}
	w.Header()["Content-Type"] = s.text
	w.WriteHeader(f.Status)
	if f.Status != http.StatusNoContent && f.Status != http.StatusNotModified {
		_, _ = io.WriteString(w, "injected fault\n")
	}
	return true
}

const (
	bytesPath = "/bytes/"
	// maxBytes bounds one answer of /bytes.
	maxBytes = 64 << 20
)

// filler is what /bytes answers with.
var filler [16 << 10]byte

func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Path[len(bytesPath):])
	if err != nil || n < 0 || n > maxBytes {
		http.Error(w, "the number of bytes must be 0 to "+strconv.Itoa(maxBytes), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	if r.Method == http.MethodHead {
		return
	}
	for n > 0 {
		k, err := w.Write(filler[:min(n, len(filler))])
		if err != nil {
			return
		}
		n -= k
	}
}

// adminMux has the hooks that the fleet's drain calls, the probes and the metrics.
func (s *Server) adminMux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) { s.setDrain(w, true) })
	mux.HandleFunc("POST /undrain", func(w http.ResponseWriter, _ *http.Request) { s.setDrain(w, false) })
	mux.HandleFunc("GET /connections", func(w http.ResponseWriter, _ *http.Request) { s.writeConnections(w) })
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		n := s.conns.reset()
		s.log.Info("connections reset", "count", n)
		writeJSON(w, map[string]int{"reset": n})
	})
	mux.HandleFunc("POST /fault", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
		if err == nil {
			var f edge.Fault
			if f, err = edge.ParseFault(string(body)); err == nil {
				s.setFault(f)
				s.log.Info("fault set", "fault", f.String())
				writeJSON(w, map[string]string{"fault": f.String()})
				return
			}
		}
		http.Error(w, err.Error(), http.StatusBadRequest)
	})
	mux.HandleFunc("GET /fault", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"fault": s.fault.Load().String()})
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.serving.Load() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /metrics", s.writeMetrics)
	return mux
}

func (s *Server) setDrain(w http.ResponseWriter, on bool) {
	s.drain.set(on)
	s.log.Info("drain set", "draining", on)
	s.writeConnections(w)
}

// Connections is the answer of /connections, /drain and /undrain.
type Connections struct {
	// Open client connections on the traffic's port, resting ones included.
	Open int `json:"open"`
	// Accepted since the start.
	Accepted int64 `json:"accepted"`
	// LastAccepted is absent before the first one.
	LastAccepted time.Time `json:"last_accepted,omitzero"`
	Draining     bool      `json:"draining"`
}

func (s *Server) writeConnections(w http.ResponseWriter) {
	var c Connections
	c.Open, c.Accepted, c.LastAccepted = s.conns.counts()
	c.Draining = s.drain.on.Load()
	writeJSON(w, c)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // only the client's going away can fail it
}

// writeMetrics is Prometheus's text format, by hand: the client library would be a third of the process's memory.
func (s *Server) writeMetrics(w http.ResponseWriter, _ *http.Request) {
	open, accepted, _ := s.conns.counts()
	draining := 0
	if s.drain.on.Load() {
		draining = 1
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprintf(w, `# HELP edge_info Which release this is.
# TYPE edge_info gauge
edge_info{version=%q,colour=%q,pop=%q} 1
# HELP edge_requests_total Requests begun.
# TYPE edge_requests_total counter
edge_requests_total %d
# HELP edge_errors_total Answers with status 500 to 599, injected ones included.
# TYPE edge_errors_total counter
edge_errors_total %d
# HELP edge_connections_open Client connections open, resting ones included.
# TYPE edge_connections_open gauge
edge_connections_open %d
# HELP edge_connections_accepted_total Client connections accepted.
# TYPE edge_connections_accepted_total counter
edge_connections_accepted_total %d
# HELP edge_requests_in_flight Requests and streams being answered.
# TYPE edge_requests_in_flight gauge
edge_requests_in_flight %d
# HELP edge_draining Whether the process lets its connections go.
# TYPE edge_draining gauge
edge_draining %d
`, s.cfg.Version, s.cfg.Colour, s.cfg.Pop, s.requests.Load(), s.errors.Load(), open, accepted, s.inFlight.Load(), draining)
}
