package service

import (
	"context"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"edgehold.internal/libs/problem"
)

// flushTimeout bounds how long the last traces hold up the end of the process.
const flushTimeout = 3 * time.Second

type tracing struct {
	provider trace.TracerProvider
	shutdown func(context.Context) error // nil when off
}

// newTracing exports spans to cfg.OTLPEndpoint, in batches with a bounded queue. A collector that is down loses traces and
// nothing else.
func newTracing(cfg Config, log *slog.Logger) (*tracing, error) {
	if cfg.OTLPEndpoint == "" {
		return &tracing{provider: noop.NewTracerProvider()}, nil
	}
	u, err := url.Parse(cfg.OTLPEndpoint)
	if err != nil {
		return nil, problem.Invalidf("--otlp-endpoint", "%q is not a URL: %w", cfg.OTLPEndpoint, err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces" // OTLP/HTTP, default URL path
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(u.String()))
	if err != nil {
		return nil, err
	}
	// The SDK has one handler of errors per process; left alone it prints lines that are no log records.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("tracing", "error", err) }))
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", cfg.Name), attribute.String("service.version", cfg.Version))))
	return &tracing{provider: provider, shutdown: provider.Shutdown}, nil
}

func (t *tracing) close() error {
	if t.shutdown == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	return t.shutdown(ctx)
}
