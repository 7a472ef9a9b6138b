package service

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"

	"edgehold.internal/libs/call"
)

// newLogger returns a logger that adds the ids of the context to each record.
func newLogger(cfg Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // Validate has been there
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(cfg.Log, opts)
	if cfg.LogFormat == "text" {
		h = slog.NewTextHandler(cfg.Log, opts)
	}
	return slog.New(contextHandler{h}).With("service", cfg.Name)
}

// contextHandler adds request_id, operation and trace_id.
type contextHandler struct{ slog.Handler }

func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	id := call.From(ctx)
	if id.Request != "" {
		r.AddAttrs(slog.String("request_id", id.Request))
	}
	if id.Operation != "" {
		r.AddAttrs(slog.String("operation", id.Operation))
	}
	if t := traceID(ctx); t != "" {
		r.AddAttrs(slog.String("trace_id", t))
	}
	return h.Handler.Handle(ctx, r)
}

func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(attrs)}
}

func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name)}
}

func traceID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}
