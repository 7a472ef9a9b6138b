package service

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/authn"
	"go.opentelemetry.io/otel/trace"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/problem/wire"
)

// Route says what a plain HTTP handler does, as the proto does for an RPC.
type Route struct {
	// Mutating takes the role operator or automation, and is audited. Otherwise any role will do.
	Mutating bool
	// Streams counts and limits the calls as streams, and ends their context when the service begins to stop. Their bodies
	// may take as long as they like. Answers that stream for a moment and end by themselves are none: a stop waits for them.
	Streams bool
	// Open needs no credentials, and is then neither Mutating nor, unless it Streams, limited in number: the handler answers
	// for that.
	Open bool
	// MaxRequestBytes is the largest body, in bytes; reading beyond it is a *http.MaxBytesError. Default
	// Config.MaxRequestBytes.
	MaxRequestBytes int64
}

// HandleHTTP mounts a handler that is no RPC, before Run, with what an RPC has around it: request id, trace, authentication,
// roles, limits, metrics, audit, panics, stop. The pattern is one of http.ServeMux, such as "POST /v1/completions", and is
// the name of the procedure in metrics, log and audit. What is refused before the handler gets an error in Connect's JSON
// form; the handler answers in its own. Its audit lines have no reason and no request.
func (s *Server) HandleHTTP(pattern string, route Route, h http.Handler) {
	m := method{mutating: route.Mutating && !route.Open, streams: route.Streams, open: route.Open}
	if route.MaxRequestBytes == 0 {
		route.MaxRequestBytes = s.cfg.MaxRequestBytes
	}
	s.count(pattern, m)
	admitted := authn.NewMiddleware(s.admit).Wrap(s.plain(route, h))
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		s.follow(w, req, pattern, m, admitted)
	})
}

// plain is what the interceptor is for RPCs.
func (s *Server) plain(route Route, h http.Handler) http.Handler {
	tracer := s.tracing.provider.Tracer("edgehold.internal/libs/service")
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r := recordFrom(req.Context())
		ctx, span := tracer.Start(req.Context(), r.procedure, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		if route.Streams {
			var cancel context.CancelCauseFunc
			ctx, cancel = context.WithCancelCause(ctx)
			defer cancel(nil)
			defer context.AfterFunc(s.stopping, func() { cancel(errStopping) })()
		} else {
			req.Body = s.timed(w, req, func(p *problem.Error) { r.end(ctx, p) })
		}
		req.Body = http.MaxBytesReader(w, req.Body, route.MaxRequestBytes)
		out := &answer{ResponseWriter: w}
		defer func() {
			switch v := recover(); {
			case v == nil:
				r.end(ctx, out.outcome(ctx))
			case v == http.ErrAbortHandler: //nolint:errorlint // net/http compares it like this too
				r.end(ctx, &problem.Error{Kind: problem.Canceled, Sentence: "the handler cut the connection"})
				panic(v)
			default:
				r.end(ctx, s.panicked(ctx, r, v))
				if out.status != 0 { // the caller must not take half an answer for a whole one
					panic(http.ErrAbortHandler)
				}
				http.Error(w, "internal error; id "+call.From(ctx).Request, http.StatusInternalServerError)
			}
		}()
		h.ServeHTTP(out, req.WithContext(ctx))
	})
}

// answer remembers the status of a response.
type answer struct {
	http.ResponseWriter
	status int // 0 before there is one
}

// WriteHeader keeps the first final status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write makes the status 200 when there is none.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Flush is for handlers that look for an http.Flusher; what they write must not wait.
func (a *answer) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// outcome of a call whose handler has returned, nil for success.
func (a *answer) outcome(ctx context.Context) *problem.Error {
	if err := ctx.Err(); err != nil && a.status < 400 {
		if errors.Is(context.Cause(ctx), errStopping) {
			return errStopping
		}
		return wire.Problem(err)
	}
	if a.status < 400 {
		return nil
	}
	return &problem.Error{Kind: kindOf(a.status), Sentence: http.StatusText(a.status)}
}

// kindOf an HTTP status from 400 on, for metrics and logs.
func kindOf(status int) problem.Kind {
	switch status {
	case http.StatusUnauthorized:
		return problem.Unauthenticated
	case http.StatusForbidden:
		return problem.PermissionDenied
	case http.StatusNotFound:
		return problem.NotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return problem.Unimplemented
	case http.StatusConflict:
		return problem.Aborted
	case http.StatusPreconditionFailed:
		return problem.FailedPrecondition
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return problem.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return problem.Unavailable
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return problem.DeadlineExceeded
	}
	if status < 500 {
		return problem.Invalid
	}
	return problem.Internal
}
