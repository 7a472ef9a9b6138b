// Package service is what every Edgehold process serves with: one listener for Connect, gRPC and gRPC-Web with health,
// reflection, metrics, tracing, TLS, authentication, authorisation, audit, limits and a graceful stop. Start at New.
package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"connectrpc.com/otelconnect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"edgehold.internal/libs/reload"
)

const (
	// reloadInterval is how often files are looked at; a new certificate is in force that much later.
	reloadInterval = time.Second
	// readHeaderTimeout is how long a caller may take to say what it wants.
	readHeaderTimeout = 10 * time.Second
	// idleTimeout is how long an HTTP/1.1 connection or an HTTP/2 connection without streams is kept.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes bounds the headers of one request.
	maxHeaderBytes = 64 << 10
	// pingAfter and pingTimeout find HTTP/2 peers that are gone without a word, so that their streams do not stay.
	pingAfter, pingTimeout = 30 * time.Second, 15 * time.Second
	// bodyTime is how long the body of a call may take to arrive, where the caller sends one message.
	bodyTime = time.Minute
	// maxOpenStreams is how many streams that need no credentials (health) are served at one time, in slots of their own.
	maxOpenStreams = 256
	// cutoffWait is how long handlers have to return after their context was cancelled at the end of StopGrace.
	cutoffWait = 2 * time.Second
)

// Server is one listener and all that is behind it. Make it with New, give it services with Handle, and Run it once.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	mux     *http.ServeMux
	health  *grpchealth.StaticChecker
	options []connect.HandlerOption
	tracing *tracing
	now     func() time.Time

	reload   time.Duration // between looks at files
	bodyTime time.Duration

	tls    *reload.Value[*tls.Config] // nil for plain text
	access *reload.Value[*Access]     // nil without a tokens file
	oidc   *provider                  // nil without an issuer
	rates  *rates
	audit  *auditLog

	unarySlots, streamSlots, openSlots *slots

	stopping  context.Context // done when the stop begins
	beginStop context.CancelFunc

	ready    chan struct{}
	listener net.Listener // set before ready is closed

	mu       sync.Mutex
	services []string          // for reflection and health
	warnings map[string]string // name → text
	serving  bool
}

// New returns a server that does not listen yet. It reads the certificate and the tokens file and opens the audit log, so
// that what is wrong with them is known before anything is served. Errors are *problem.Error of kind Invalid that name the
// flag, or those of the file system.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, log: newLogger(cfg), metrics: newMetrics(cfg), mux: http.NewServeMux(), now: time.Now,
		reload: reloadInterval, bodyTime: bodyTime,
		health:      grpchealth.NewStaticChecker(),
		unarySlots:  newSlots(cfg.MaxInFlight, "calls under way, its limit (--max-in-flight)"),
		streamSlots: newSlots(cfg.MaxStreams, "streams under way, its limit (--max-streams)"),
		openSlots:   newSlots(maxOpenStreams, "streams without credentials under way, the most that it serves"),
		ready:       make(chan struct{}), warnings: make(map[string]string),
	}
	s.rates = &rates{limit: cfg.RatePerPrincipal, now: s.clock, per: make(map[string]*rated)}
	s.stopping, s.beginStop = context.WithCancel(context.Background())
	s.health.SetStatus("", grpchealth.StatusNotServing)

	var err error
	if cfg.TLSCert != "" {
		if s.tls, err = openTLS(cfg); err != nil {
			return nil, err
		}
	}
	if cfg.TokensFile != "" {
		s.access, err = reload.Open(func(contents [][]byte) (*Access, error) { return ParseAccess(contents[0]) }, cfg.TokensFile)
		if err != nil {
			return nil, fmt.Errorf("--tokens-file %s: %w", cfg.TokensFile, err)
		}
	}
	if cfg.OIDCIssuer != "" {
		s.oidc = newProvider(cfg, s.clock)
	}
	if s.tracing, err = newTracing(cfg, s.log); err != nil {
		return nil, err
	}
	if s.audit, err = openAudit(cfg); err != nil {
		return nil, fmt.Errorf("--audit-log: %w", err)
	}
	traces, err := otelconnect.NewInterceptor(otelconnect.WithTracerProvider(s.tracing.provider), otelconnect.WithPropagator(propagation.TraceContext{}),
		otelconnect.WithTrustRemote(), otelconnect.WithoutMetrics())
	if err != nil {
		return nil, err
	}
	s.options = []connect.HandlerOption{
		connect.WithInterceptors(traces, interceptor{s}),
		connect.WithReadMaxBytes(int(cfg.MaxRequestBytes)),
		connect.WithCompressMinBytes(1024),
	}
	s.mountOwn()
	return s, nil
}

// clock is time.Now, or a test's.
func (s *Server) clock() time.Time { return s.now() }

// HandlerOptions are for the constructors of Connect handlers: validation, errors, traces, panics and limits. A handler
// that has them and is not mounted with Handle refuses every call.
func (s *Server) HandlerOptions() []connect.HandlerOption { return slices.Clone(s.options) }

// Logger writes to Config.Log; records made with a call's context carry its request, operation and trace id.
func (s *Server) Logger() *slog.Logger { return s.log }

// Registry is what GET /metrics shows. Services add their own metrics to it.
func (s *Server) Registry() *prometheus.Registry { return s.metrics.registry }

// Tracing is the provider of traces, for clients and for spans of one's own. It does nothing without an OTLP endpoint.
func (s *Server) Tracing() trace.TracerProvider { return s.tracing.provider }

// Ready is closed once the server listens.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is the address that the server listens on, nil before Ready.
func (s *Server) Addr() net.Addr {
	select {
	case <-s.ready:
		return s.listener.Addr()
	default:
		return nil
	}
}

// Handle mounts what a generated constructor returns, before Run:
//
//	path, h := fleetv1connect.NewFleetServiceHandler(impl, server.HandlerOptions()...)
//	server.Handle(fleetv1connect.FleetServiceName, path, h)
//
// The service's proto decides who may call what: procedures with idempotency_level NO_SIDE_EFFECTS take any role, all
// others operator or automation, and those are audited. It panics when the proto of serviceName is not linked in.
func (s *Server) Handle(serviceName, path string, h http.Handler) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(serviceName))
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if err != nil || !ok {
		panic(fmt.Sprintf("service %q is not in the protobuf registry; import its generated package (%v)", serviceName, err))
	}
	var inputs []proto.Message
	for i := range sd.Methods().Len() {
		if t, err := protoregistry.GlobalTypes.FindMessageByName(sd.Methods().Get(i).Input().FullName()); err == nil {
			inputs = append(inputs, t.New().Interface())
		}
	}
	warm(inputs)
	s.mount(serviceName, path, methodsOf(sd), h)
}

func (s *Server) mount(serviceName, path string, methods map[string]method, h http.Handler) {
	for procedure, m := range methods {
		s.count(procedure, m)
	}
	s.mux.Handle(path, s.middleware(serviceName, methods, h))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services = append(s.services, serviceName)
	slices.Sort(s.services)
	s.health.SetStatus(serviceName, grpchealth.StatusNotServing)
}

// count makes the series of a procedure, so that one that was never called is seen to be at zero.
func (s *Server) count(procedure string, m method) {
	s.metrics.requests.WithLabelValues(procedure, "ok")
	if m.streams {
		s.metrics.streams.WithLabelValues(procedure)
	} else {
		s.metrics.inFlight.WithLabelValues(procedure)
	}
}

// mountOwn mounts health, reflection and metrics.
func (s *Server) mountOwn() {
	path, h := grpchealth.NewHandler(s.health, s.options...)
	s.mux.Handle(path, s.middleware(grpchealth.HealthV1ServiceName, map[string]method{
		path + "Check": {open: true}, path + "Watch": {open: true, streams: true},
	}, h))
	reflector := grpcreflect.NewReflector(grpcreflect.NamerFunc(s.Services))
	for name, mount := range map[string]func(*grpcreflect.Reflector, ...connect.HandlerOption) (string, http.Handler){
		grpcreflect.ReflectV1ServiceName: grpcreflect.NewHandlerV1, grpcreflect.ReflectV1AlphaServiceName: grpcreflect.NewHandlerV1Alpha,
	} {
		path, h := mount(reflector, s.options...)
		s.mux.Handle(path, s.middleware(name, map[string]method{
			path + "ServerReflectionInfo": {streams: true, clientStreams: true},
		}, h))
	}
	s.mux.HandleFunc("GET /healthz", s.serveHealth)
	s.mux.Handle("GET /metrics", s.onlyFor(!s.cfg.PublicMetrics, promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{
		Registry: s.metrics.registry, MaxRequestsInFlight: 8, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	})))
}

// Services are the names of the mounted services, sorted.
func (s *Server) Services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.services)
}

// Run listens, serves until ctx ends, and then stops gracefully: health says not serving, the listener closes, streams end
// with unavailable, unary calls finish; what is left after StopGrace is cut off. It returns nil after a stop in which
// nothing was cut off. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	base, cutOff := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cutOff(nil)
	background, endBackground := context.WithCancel(base)
	var watchers sync.WaitGroup
	go s.audit.sync()
	defer func() {
		endBackground()
		watchers.Wait()
		s.close()
	}()

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", s.cfg.Listen, err)
	}
	s.watch(background, &watchers)
	s.setServing(true)

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: s.mux, Protocols: protocols, BaseContext: func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: min(s.cfg.MaxInFlight+s.cfg.MaxStreams, 1000), SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what callers' connections die of
	}
	serve := server.Serve
	if s.tls != nil {
		server.TLSConfig = serverTLS(s.tls)
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	s.listener = listener
	close(s.ready)
	s.log.Info("listening", "address", listener.Addr().String(), "version", s.cfg.Version, "tls", s.tls != nil, "authentication", s.cfg.authenticates())
	if s.tls == nil && s.access != nil && !loopback(hostOf(listener.Addr())) {
		s.log.Warn("bearer tokens travel in the clear: set --tls-cert and --tls-key, or let only a proxy with TLS reach this address")
	}

	served := make(chan error, 1)
	go func() { served <- serve(listener) }()
	select {
	case err := <-served:
		_ = server.Close()
		return fmt.Errorf("serving on %s ended: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	return s.stop(server, cutOff)
}

func (s *Server) stop(server *http.Server, cutOff context.CancelCauseFunc) error {
	s.log.Info("stopping", "grace", s.cfg.StopGrace)
	s.setServing(false)
	// Streams end once the listener is closed: who reconnects at once must not come back to the process that stops.
	server.RegisterOnShutdown(s.beginStop)
	grace, cancel := context.WithTimeout(context.Background(), s.cfg.StopGrace)
	defer cancel()
	err := server.Shutdown(grace)
	if err == nil {
		s.log.Info("stopped")
		return nil
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		_ = server.Close()
		return fmt.Errorf("stopping: %w", err)
	}
	cutOff(errStopping) // handlers see the end of their context and answer; then the connections go
	rest, cancel := context.WithTimeout(context.Background(), cutoffWait)
	defer cancel()
	_ = server.Shutdown(rest)
	_ = server.Close()
	return fmt.Errorf("calls were still under way %v after the stop began (--stop-grace) and were cut off", s.cfg.StopGrace)
}

// close lets go of what New opened.
func (s *Server) close() {
	if s.oidc != nil {
		s.oidc.close()
	}
	if err := s.tracing.close(); err != nil {
		s.log.Warn("the last traces were not sent", "error", err)
	}
	if err := s.audit.close(); err != nil {
		s.log.Error("the audit log could not be closed", "error", err)
	}
}

// watch reads the files again when they change, until ctx ends.
func (s *Server) watch(ctx context.Context, wg *sync.WaitGroup) {
	report := func(flag string) func(error) {
		return func(err error) {
			if err != nil {
				s.SetWarning(flag, fmt.Sprintf("the new content of --%s is refused and the last good one stays in force; mend it: %v", flag, err))
				return
			}
			s.SetWarning(flag, "")
			s.log.Info("read again", "file", flag)
		}
	}
	if s.tls != nil {
		wg.Go(func() { s.tls.Watch(ctx, s.reload, report("tls-cert")) })
	}
	if s.access != nil {
		wg.Go(func() { s.access.Watch(ctx, s.reload, report("tokens-file")) })
	}
}

func hostOf(addr net.Addr) string {
	host, _, _ := net.SplitHostPort(addr.String())
	return host
}
