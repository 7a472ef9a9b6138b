// Package serve carries out what the domain decided: it answers the vendors' HTTP APIs, piece by piece and each when it is due,
// and commits the faults. It has a listener of its own, because some of these faults are of the connection itself. Start at New.
package serve

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// Headers of the requests that are for the mock and not for the vendor. They are never part of what a request is known by.
const (
	ScenarioHeader = "X-Edgehold-Scenario"
	ClientHeader   = "X-Edgehold-Client"
	RunHeader      = "X-Edgehold-Run"
	RegionHeader   = "X-Edgehold-Region"
	// ScheduleHeader, with any value, asks for the header of the same name in the answer: when its pieces are due.
	ScheduleHeader = "X-Edgehold-Schedule"
)

// Decider is what serve asks of the domain. It is safe for concurrent use.
type Decider interface {
	// Decide says everything that will happen to the request.
	Decide(q *llmmock.Request) *llmmock.Exchange
	// Done is called once for every exchange, when it has ended.
	Done(x *llmmock.Exchange)
}

// Observer hears of every exchange, in the order that llmmock.Event asks for. It must not block.
type Observer func(llmmock.Event)

// Config of a Server.
type Config struct {
	// APIs by vendor; Azure falls back to OpenAI's.
	APIs []provider.API
	// Decider is asked what to do.
	Decider Decider
	// Observe may be nil.
	Observe Observer
	// Allow is asked for each credential when it is set, as it has to be beyond loopback: whoever it refuses gets the vendor's 401.
	Allow func(credential string) bool
	// MaxRequestBytes of a body; 0 for 32 MiB, which is what the largest vendor takes in JSON.
	MaxRequestBytes int64
	// MaxConnections at one time; 0 for 50,000. The next ones wait in the kernel's queue.
	MaxConnections int
	// Late hears how late a piece was written, of everything that had a time to be written at.
	Late func(time.Duration)
	// Home answers GET /; nil for the vendor's 404.
	Home http.Handler
	// Logger; nil for none.
	Logger *slog.Logger
}

// Server answers the vendors' APIs.
type Server struct {
	config Config
	muxes  map[llmmock.Vendor]*http.ServeMux
	apis   map[llmmock.Vendor]*provider.API
	// stop cuts off what is under way.
	stop context.Context
	end  context.CancelFunc

	// conns are the connections that are read here; rest gets the others.
	mu       sync.Mutex
	conns    map[*conn]bool
	open     sync.WaitGroup
	stopping atomic.Bool
	rest     *handover
	date     date
	wheel    *wheel
}

// New returns a server that does not listen yet. Invalid when two routes of a vendor are the same.
func New(c Config) (s *Server, err error) {
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 32 << 20
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 50_000
	}
	if c.Late == nil {
		c.Late = func(time.Duration) {}
	}
	if c.Observe == nil {
		c.Observe = func(llmmock.Event) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s = &Server{config: c, muxes: map[llmmock.Vendor]*http.ServeMux{}, apis: map[llmmock.Vendor]*provider.API{}, conns: map[*conn]bool{}}
	s.stop, s.end = context.WithCancel(context.Background())
	// ServeMux panics on patterns that conflict.
	defer func() {
		if v := recover(); v != nil {
			err = problem.Invalidf("routes", "%v", v)
		}
	}()
	for i := range c.APIs {
		api := &c.APIs[i]
		mux := s.muxes[api.Vendor]
		if mux == nil {
			mux = http.NewServeMux()
			s.muxes[api.Vendor], s.apis[api.Vendor] = mux, api
			mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.unknown(w, r, api, mux) })
		}
		for j := range api.Routes {
			route := &api.Routes[j]
			mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) { s.exchange(w, r, api, route) })
		}
	}
	return s, nil
}

// strange says whether a request is better left to net/http: the home page is anybody's handler and may want all of a ResponseWriter, and what
// is over the limit is refused while it is still being sent.
func (s *Server) strange(r *http.Request) bool {
	return r.ContentLength > s.config.MaxRequestBytes || s.home(r)
}

func (s *Server) home(r *http.Request) bool {
	return s.config.Home != nil && r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.home(r) {
		s.config.Home.ServeHTTP(w, r)
		return
	}
	v, prefix := pick(r)
	mux := s.muxes[v]
	if mux == nil && v == llmmock.Azure {
		mux = s.muxes[llmmock.OpenAI]
	}
	if mux == nil {
		http.Error(w, "this mock does not speak for "+string(v), http.StatusNotFound)
		return
	}
	if prefix != "" {
		http.StripPrefix(prefix, mux).ServeHTTP(w, r)
		return
	}
	mux.ServeHTTP(w, r)
}

// unknown answers what no route has, as the vendor does: 405 where another method would be right.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request, api *provider.API, mux *http.ServeMux) {
	// Only OpenAI says which; the others have a sentence of their own.
	f := &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound}
	if api.Vendor == llmmock.OpenAI {
		f.Message = fmt.Sprintf("Unknown request URL: %s %s. Please check the URL for typos, or see the docs at https://platform.openai.com/docs/api-reference/.", r.Method, r.URL.Path)
	}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := &http.Request{Method: method, Host: r.Host, URL: r.URL}
		if _, pattern := mux.Handler(other); pattern != "/" && pattern != "" {
			f = &llmmock.Failure{Reason: llmmock.MethodUnknown}
			if api.Vendor == llmmock.OpenAI {
				f.Message = fmt.Sprintf("Not allowed to %s on %s. (HINT: Perhaps you meant to use a different HTTP method?)", r.Method, r.URL.Path)
			}
			break
		}
	}
	s.fail(w, api, f)
}

// fail answers outside of any exchange.
func (s *Server) fail(w http.ResponseWriter, api *provider.API, f *llmmock.Failure) {
	status, body := api.Failure(w.Header(), f, llmmock.Moment{Request: llmmock.HashOf("", "", []byte(f.Message))}.ID())
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// largestKept is how large a buffer may have grown to be used again.
const largestKept = 1 << 20

// exchange is one request from its arrival to the end of its answer.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request, api *provider.API, route *provider.Route) {
	at := time.Now()
	credential := credentialOf(r)
	inline := r.Context().Value(inlineKey{}) != nil
	if s.config.Allow != nil && !inline && !s.config.Allow(credential) {
		s.fail(w, api, &llmmock.Failure{Reason: llmmock.Unauthenticated})
		return
	}
	c, _ := w.(*conn)
	buffer := bodies.Get().(*bytes.Buffer)
	buffer.Reset()
	defer func() {
		if buffer.Cap() <= largestKept {
			bodies.Put(buffer)
		}
	}()
	if r.Body != nil && r.Body != http.NoBody {
		if r.ContentLength > 0 && r.ContentLength <= min(s.config.MaxRequestBytes, largestKept) {
			buffer.Grow(int(r.ContentLength) + bytes.MinRead)
		}
		body := r.Body
		if c == nil {
			body = http.MaxBytesReader(w, body, s.config.MaxRequestBytes)
		}
		if _, err := buffer.ReadFrom(body); err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				s.fail(w, api, &llmmock.Failure{Status: http.StatusRequestEntityTooLarge, Reason: llmmock.TooLarge})
				return
			}
			panic(http.ErrAbortHandler) // the client left while it spoke
		}
	}
	q := s.request(r, api.Vendor, credential, buffer.Bytes(), at)
	format, failure := route.Decode(q, r, buffer.Bytes())
	if format == nil {
		if failure == nil {
			failure = &llmmock.Failure{Status: http.StatusInternalServerError, Reason: llmmock.Broken}
		}
		s.fail(w, api, failure)
		return
	}
	q.Query, q.ContentType, q.Body = r.URL.RawQuery, first(r, "Content-Type"), buffer.Bytes()
	x := s.config.Decider.Decide(q)
	q.Body = nil
	if x.Failure == nil {
		x.Failure = refused(x, api, failure)
	}
	if has(r, ScheduleHeader) && x.Answer != nil {
		w.Header()[ScheduleHeader] = []string{x.Schedule.Describe(x.Answer.Pieces())}
	}
	s.config.Observe(llmmock.Event{Kind: llmmock.Arrived, At: at, Exchange: x, Attempt: attempt(r)})
	a := &answer{server: s, w: w, r: r, c: c, x: x, format: format}
	if inline {
		a.inline()
	}
	a.run()
}

// inlineKey marks requests that no client waits for.
type inlineKey struct{}

// Line answers a request that came inside of another, such as a line of a batch: as scenarios say, but at once and without the faults
// of connections. Streams are not streamed.
func (s *Server) Line(v llmmock.Vendor, method, path string, body []byte) (status int, answer []byte) {
	r, err := http.NewRequestWithContext(context.WithValue(s.stop, inlineKey{}, true), method, path, bytes.NewReader(body))
	if err != nil || s.muxes[v] == nil {
		return http.StatusBadRequest, nil
	}
	r.Header["X-Api-Key"] = []string{"batch"}
	r.Header["Anthropic-Version"] = []string{anthropicVersion}
	w := &line{header: http.Header{}, status: http.StatusOK}
	s.muxes[v].ServeHTTP(w, r)
	return w.status, w.body
}

// anthropicVersion is one that takes all that a line may say.
const anthropicVersion = "2023-06-01"

// line is where the answer to a Line goes.
type line struct {
	header http.Header
	status int
	body   []byte
}

func (l *line) Header() http.Header { return l.header }

func (l *line) WriteHeader(status int) { l.status = status }

// Flush implements http.Flusher.
func (l *line) Flush() {}

func (l *line) Write(p []byte) (int, error) {
	l.body = append(l.body, p...)
	return len(p), nil
}

// refused is what the vendor would say of the request, as far as the scenario holds to the vendor's rules.
func refused(x *llmmock.Exchange, api *provider.API, wrong *llmmock.Failure) *llmmock.Failure {
	var rules llmmock.Strict
	if b := x.Behaviour(); b != nil {
		rules = b.Strict
	}
	switch {
	case rules.Signatures && x.Forged != nil:
		return x.Forged
	case rules.Keys && x.Key == "":
		return &llmmock.Failure{Reason: llmmock.Unauthenticated}
	case recorded(x) != nil:
		return nil // it says what the vendor said
	case wrong != nil && !rules.Lenient:
		return wrong
	case rules.Models && x.Model != "" && api.Known != nil && !api.Known(x.Model):
		return &llmmock.Failure{Reason: llmmock.NotFound, Field: "model"}
	case rules.Objects:
		return x.Missing
	}
	return nil
}

// attempt is how often the client says that it has asked, from 1; 0 when it does not.
func attempt(r *http.Request) int {
	if v := first(r, "X-Stainless-Retry-Count"); v != "" {
		if n, err := strconv.Atoi(v); err == nil && n >= 0 {
			return n + 1
		}
	}
	if v, ok := strings.CutPrefix(first(r, "Amz-Sdk-Request"), "attempt="); ok {
		v, _, _ = strings.Cut(v, ";")
		if n, err := strconv.Atoi(v); err == nil && n > 0 {
			return n
		}
	}
	return 0
}

// request has what the headers say that are the same for all vendors.
func (s *Server) request(r *http.Request, v llmmock.Vendor, credential string, body []byte, at time.Time) *llmmock.Request {
	q := &llmmock.Request{Vendor: v, Method: r.Method, Path: r.URL.Path, At: at, Size: len(body), Choices: 1,
		Scenario: first(r, ScenarioHeader), Client: first(r, ClientHeader), Run: first(r, RunHeader), Region: first(r, RegionHeader),
		IdempotencyKey: first(r, "Idempotency-Key"), Hash: llmmock.HashOf(r.Method, r.URL.Path, body)}
	if credential != "" {
		q.Key = fingerprint(credential)
	}
	if q.Client == "" {
		q.Client = q.Key
		if agent := first(r, "User-Agent"); agent != "" {
			q.Client += " " + agent
		}
	}
	return q
}

func first(r *http.Request, name string) string {
	if v := r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// credentialOf a request, wherever its vendor has it; empty for none.
func credentialOf(r *http.Request) string {
	if v := first(r, "Authorization"); v != "" {
		if token, ok := strings.CutPrefix(v, "Bearer "); ok {
			return token
		}
		// AWS: the access key's id.
		if _, rest, ok := strings.Cut(v, "Credential="); ok {
			id, _, _ := strings.Cut(rest, "/")
			return id
		}
		return v
	}
	for _, name := range []string{"X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		if v := first(r, name); v != "" {
			return v
		}
	}
	if strings.Contains(r.URL.RawQuery, "key=") {
		return r.URL.Query().Get("key")
	}
	return ""
}

// fingerprint shows which key it was and does not give it away: how it begins, which vendors show too, and a hash.
func fingerprint(credential string) string {
	shown := min(len(credential)/4, 8)
	return credential[:shown] + "…" + strconv.FormatUint(xxhash.Sum64String(credential)&0xffffffff, 16)
}

// Serve answers on the listener until ctx ends, and then stops: the listener closes, what is under way has grace to end, and is
// cut off after that.
func (s *Server) Serve(ctx context.Context, inner net.Listener, grace time.Duration) error {
	var err error
	if s.wheel, err = newWheel(); err != nil {
		return err
	}
	s.rest = newHandover(inner.Addr())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: s, Protocols: protocols, ReadHeaderTimeout: headFor, IdleTimeout: idleFor, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return s.stop },
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: 1000},
		ErrorLog:    slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug)}
	var accepting errgroup.Group
	accepting.Go(func() error { return server.Serve(s.rest) })
	l, ended := limit(inner, s.config.MaxConnections), make(chan error, 1)
	accepting.Go(func() error {
		err := s.accept(l)
		ended <- err
		return err
	})
	var failed error
	select {
	case err := <-ended:
		failed, grace = fmt.Errorf("serving on %s ended: %w", inner.Addr(), err), 0
	case <-ctx.Done():
	}
	_ = l.Close()
	s.shut(false)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err = server.Shutdown(bounded)
	if cut := s.wait(bounded); err == nil {
		err = cut
	}
	s.end()
	s.wheel.close() // which wakes those who sleep
	s.shut(true)
	s.open.Wait()
	_ = server.Close()
	_ = accepting.Wait() // for nothing else than their being over
	if failed == nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("answers were still under way %s after the stop began and were cut off", grace)
	}
	return cmp.Or(failed, err)
}

// wait for the connections to end.
func (s *Server) wait(ctx context.Context) error {
	all := make(chan struct{})
	go func() { s.open.Wait(); close(all) }()
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
