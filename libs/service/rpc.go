package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/authn"
	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/problem/wire"
)

// method is what the proto says about a procedure.
type method struct {
	// mutating is everything whose idempotency_level is not NO_SIDE_EFFECTS: it takes more than a viewer, and is audited.
	mutating bool
	// streams is true when either side sends more than one message.
	streams bool
	// clientStreams is true when the caller sends more than one message, so that its body has no bound.
	clientStreams bool
	// open needs no authentication: health.
	open bool
}

func methodsOf(service protoreflect.ServiceDescriptor) map[string]method {
	out := make(map[string]method)
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		opts, _ := m.Options().(*descriptorpb.MethodOptions)
		out[fmt.Sprintf("/%s/%s", service.FullName(), m.Name())] = method{
			mutating:      opts.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS,
			streams:       m.IsStreamingServer() || m.IsStreamingClient(),
			clientStreams: m.IsStreamingClient(),
		}
	}
	return out
}

// record follows one call from its headers to its outcome. It begins before authentication and ends exactly once, so that
// refused calls, calls that cannot be decoded and calls that panic are counted, logged and audited like all others.
type record struct {
	server    *Server
	procedure string
	method    method
	start     time.Time
	slots     *slots // that it holds one of, or nil

	mu        sync.Mutex
	principal Principal
	line      auditLine
	described bool
	ended     bool
}

type recordKey struct{}

func recordFrom(ctx context.Context) *record {
	r, _ := ctx.Value(recordKey{}).(*record)
	return r
}

// describe keeps what the audit line needs of the request.
func (r *record) describe(msg any) {
	m := message(msg)
	if m == nil || !r.method.mutating {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.described { // of a client stream, the first message says what it is about
		r.described = true
		r.line.describe(m.ProtoReflect())
	}
}

// end counts, logs and audits the outcome, the first time it is called. p is nil for success.
func (r *record) end(ctx context.Context, p *problem.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	s, took := r.server, r.server.now().Sub(r.start)
	code, sentence := "ok", ""
	if p != nil {
		code, sentence = p.Kind.String(), p.Error()
	}
	s.metrics.requests.WithLabelValues(r.procedure, code).Inc()
	if !r.method.streams {
		s.metrics.seconds.WithLabelValues(r.procedure).Observe(took.Seconds())
	}

	level := slog.LevelDebug
	switch {
	case p != nil && p.Kind == problem.Internal:
		level = slog.LevelError
	case p != nil && (p.Kind == problem.Unauthenticated || p.Kind == problem.PermissionDenied || p.Kind == problem.ResourceExhausted):
		level = slog.LevelWarn
	case r.method.mutating:
		level = slog.LevelInfo
	}
	if s.log.Enabled(ctx, level) {
		attrs := []slog.Attr{slog.String("procedure", r.procedure), slog.String("code", code),
			slog.String("principal", r.principal.Name), slog.Duration("took", took)}
		if p != nil {
			attrs = append(attrs, slog.String("error", sentence))
			if p.Cause != nil {
				attrs = append(attrs, slog.String("cause", p.Cause.Error()))
			}
		}
		s.log.LogAttrs(ctx, level, "call", attrs...)
	}

	if !r.method.mutating {
		return
	}
	id := call.From(ctx)
	l := &r.line
	l.Audit, l.Time, l.Service = true, r.start.UTC(), s.cfg.Name
	l.Principal, l.Roles, l.Procedure = r.principal.Name, append([]Role{}, r.principal.Roles...), r.procedure
	l.Code, l.Error, l.DurationMS = code, truncate(sentence), float64(took.Microseconds())/1000
	l.RequestID, l.Operation, l.TraceID = id.Request, id.Operation, traceID(ctx)
	s.keep(ctx, l)
}

// middleware serves one RPC service: record, authentication, authorisation and limits before anything is decoded.
func (s *Server) middleware(service string, methods map[string]method, h http.Handler) http.Handler {
	admitted := authn.NewMiddleware(s.admit).Wrap(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r := recordFrom(req.Context())
		if !r.method.clientStreams {
			fail := func(p *problem.Error) { r.end(req.Context(), p) }
			req.Body = &limitedBody{ReadCloser: s.timed(w, req, fail), max: s.cfg.MaxRequestBytes, left: s.cfg.MaxRequestBytes,
				enveloped: enveloped(req), fail: fail}
		}
		h.ServeHTTP(w, req)
	}))
	errors := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		m, known := methods[req.URL.Path]
		if !known {
			_ = errors.Write(w, req, wire.Encode(problem.New(problem.Unimplemented, "", "%s has no procedure %q; this is %s %s", service, req.URL.Path, s.cfg.Name, s.cfg.Version)))
			return
		}
		s.follow(w, req, req.URL.Path, m, admitted)
	})
}

// follow serves one call, from its headers to its outcome, with a record and the ids of its headers in the context.
func (s *Server) follow(w http.ResponseWriter, req *http.Request, procedure string, m method, h http.Handler) {
	id := call.Read(req.Header)
	if id.Request == "" {
		id.Request = call.New().Request
	}
	w.Header().Set(call.RequestHeader, id.Request)
	r := &record{server: s, procedure: procedure, method: m, start: s.now()}
	ctx := call.With(req.Context(), id)
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(req.Header))
	ctx = context.WithValue(ctx, recordKey{}, r)

	gauge := s.metrics.inFlight
	if m.streams {
		gauge = s.metrics.streams
	}
	gauge.WithLabelValues(procedure).Inc()
	defer gauge.WithLabelValues(procedure).Dec()
	defer func() {
		if r.slots != nil {
			r.slots.give()
		}
		// Only a request that could not be decoded has not ended yet: Connect answers that one before any interceptor.
		if err := req.Context().Err(); err != nil {
			r.end(ctx, wire.Problem(err))
		}
		r.end(ctx, problem.Invalidf("", "the request could not be read or decoded"))
	}()
	h.ServeHTTP(w, req.WithContext(ctx))
}

// admit is everything that can refuse a call by its headers. It returns the Principal.
func (s *Server) admit(ctx context.Context, req *http.Request) (any, error) {
	r := recordFrom(ctx)
	principal, err := s.decide(req, r)
	if err == nil {
		return principal, nil
	}
	p := wire.Problem(err)
	r.end(ctx, p)
	return nil, wire.Encode(p)
}

// decide authenticates first: whoever has no credentials must not take a slot from those who have.
func (s *Server) decide(req *http.Request, r *record) (Principal, error) {
	var principal Principal
	if !r.method.open {
		var err error
		if principal, err = s.authenticate(req); err != nil {
			return Principal{}, err
		}
		r.mu.Lock()
		r.principal = principal
		r.mu.Unlock()
		if r.method.mutating {
			err = require(principal, RoleOperator, RoleAutomation)
		} else if len(principal.Roles) == 0 {
			err = require(principal, RoleViewer)
		}
		if err != nil {
			return Principal{}, err
		}
		if err := s.rates.allow(principal.Name); err != nil {
			return Principal{}, err
		}
	}
	if taken := s.slotsOf(r.method); taken != nil {
		if err := taken.take(); err != nil {
			return Principal{}, err
		}
		r.slots = taken
	}
	return principal, nil
}

// slotsOf are the slots that a method takes one of, or nil.
func (s *Server) slotsOf(m method) *slots {
	switch {
	case m.open && m.streams:
		return s.openSlots
	case m.open:
		return nil // a service that is busy is not ill
	case m.streams:
		return s.streamSlots
	}
	return s.unarySlots
}

// interceptor validates requests, recovers panics, turns errors into problems and ends streams when the service stops.
type interceptor struct{ server *Server }

func (interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		err = i.serve(ctx, func(ctx context.Context, r *record) error {
			r.describe(req.Any())
			if err := validate(req.Any()); err != nil {
				return err
			}
			res, err = next(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return res, nil
	}
}

func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return i.serve(ctx, func(ctx context.Context, r *record) error {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			defer context.AfterFunc(i.server.stopping, func() { cancel(errStopping) })()
			err := next(ctx, &receiver{StreamingHandlerConn: conn, record: r})
			if i.server.stopping.Err() != nil && errors.Is(context.Cause(ctx), errStopping) {
				// Also when the handler returned nil: to the caller that would be the stream's natural end.
				return errStopping
			}
			return err
		})
	}
}

// errStopping is the cause of the end of contexts when the service stops, and what callers get then.
var errStopping = problem.Unavailablef("the server is stopping; reconnect")

// serve runs one call and returns its error as it is sent.
func (i interceptor) serve(ctx context.Context, do func(context.Context, *record) error) (sent error) {
	s, r := i.server, recordFrom(ctx)
	if r == nil {
		// Without the middleware nobody was authenticated.
		return connect.NewError(connect.CodeInternal, errors.New("the handler is not mounted with Server.Handle"))
	}
	var violations []*errdetails.BadRequest_FieldViolation
	finish := func(err error) error {
		if err == nil {
			r.end(ctx, nil)
			return nil
		}
		p := wire.Problem(err)
		if errors.Is(context.Cause(ctx), errStopping) && (p.Kind == problem.Canceled || p.Kind == problem.Internal) {
			p = problem.Unavailablef("the server stopped before the call was done; ask again with the same idempotency key")
		}
		r.end(ctx, p)
		if p.Kind == problem.Internal {
			// Nothing of it is for the caller, not even its sentence; the id finds it in the log.
			p = &problem.Error{Kind: problem.Internal, Sentence: "internal error; id " + call.From(ctx).Request}
		}
		return wire.Encode(p, violations...)
	}
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
				r.end(ctx, &problem.Error{Kind: problem.Canceled, Sentence: "the handler cut the connection"})
				panic(v)
			}
			sent = finish(s.panicked(ctx, r, v))
		}
	}()
	err := do(ctx, r)
	var invalid *invalidError
	if errors.As(err, &invalid) {
		violations = invalid.violations
	}
	return finish(err)
}

// panicked counts and logs the panic of a handler, and returns it as a problem.
func (s *Server) panicked(ctx context.Context, r *record, v any) *problem.Error {
	s.metrics.panics.WithLabelValues(r.procedure).Inc()
	s.log.ErrorContext(ctx, "panic", "procedure", r.procedure, "value", fmt.Sprint(v), "stack", string(debug.Stack()))
	return &problem.Error{Kind: problem.Internal, Sentence: "panic", Cause: fmt.Errorf("panic: %v", v)}
}

// receiver validates the messages of a stream.
type receiver struct {
	connect.StreamingHandlerConn
	record *record
}

func (c *receiver) Receive(msg any) error {
	if err := c.StreamingHandlerConn.Receive(msg); err != nil {
		return err
	}
	c.record.describe(msg)
	return validate(msg)
}

// invalidError is a problem with all of the violations, where a problem.Error has one field.
type invalidError struct {
	problem    *problem.Error
	violations []*errdetails.BadRequest_FieldViolation
}

func (e *invalidError) Error() string { return e.problem.Error() }
func (e *invalidError) Unwrap() error { return e.problem }

// validate checks msg against the rules in its proto.
func validate(msg any) error {
	m := message(msg)
	if m == nil {
		return nil
	}
	err := protovalidate.Validate(m)
	var failed *protovalidate.ValidationError
	if !errors.As(err, &failed) {
		if err != nil {
			return fmt.Errorf("the rules of %s cannot be checked: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		return nil
	}
	p := &problem.Error{Kind: problem.Invalid}
	out := &invalidError{problem: p}
	var sentences []string
	for n, v := range failed.Violations {
		field := protovalidate.FieldPathString(v.Proto.GetField())
		sentence := v.Proto.GetMessage()
		if sentence == "" {
			sentence = "breaks the rule " + v.Proto.GetRuleId()
		}
		if v.FieldDescriptor != nil && v.FieldValue.IsValid() && !redacted(v.FieldDescriptor) {
			if value := scalar(v.FieldDescriptor, v.FieldValue); value != "" {
				sentence += ", and it is " + value
			}
		}
		out.violations = append(out.violations, &errdetails.BadRequest_FieldViolation{Field: field, Description: sentence, Reason: strings.ToUpper(strings.ReplaceAll(v.Proto.GetRuleId(), ".", "_"))})
		switch {
		case n == 0:
			p.Field = field
		case field != "":
			sentence = field + ": " + sentence
		}
		sentences = append(sentences, sentence)
	}
	p.Sentence = strings.Join(sentences, "; ")
	return out
}

// scalar is a value as a sentence shows it, or empty for messages, lists and maps.
func scalar(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch value := v.Interface().(type) {
	case string:
		if len(value) > 64 {
			return fmt.Sprintf("%q… (%d bytes)", value[:64], len(value))
		}
		return fmt.Sprintf("%q", value)
	case protoreflect.EnumNumber:
		if e := f.Enum().Values().ByNumber(value); e != nil {
			return string(e.Name())
		}
		return fmt.Sprint(value)
	case bool, int32, int64, uint32, uint64, float32, float64:
		return fmt.Sprint(value)
	}
	return ""
}

// warm compiles the rules of a service's requests: the first rollback must not wait for that.
func warm(inputs []proto.Message) {
	for _, m := range inputs {
		_ = protovalidate.Validate(m)
	}
}
