package service

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the service's own; their labels are bounded by the procedures that are served.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // procedure, code
	seconds  *prometheus.HistogramVec // procedure; unary calls only
	inFlight *prometheus.GaugeVec     // procedure; unary calls only
	streams  *prometheus.GaugeVec     // procedure
	panics   *prometheus.CounterVec   // procedure
	audit    *prometheus.CounterVec   // result
	warning  *prometheus.GaugeVec     // name
}

func newMetrics(cfg Config) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_rpc_requests_total",
			Help: "Calls that have ended, by procedure and Connect code (ok for success)."}, []string{"procedure", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "edgehold_rpc_duration_seconds",
			Help:    "Time from the request's headers to the outcome of unary calls.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"procedure"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_rpc_in_flight",
			Help: "Unary calls under way."}, []string{"procedure"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_rpc_streams_open",
			Help: "Open streams."}, []string{"procedure"}),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_rpc_panics_total",
			Help: "Panics of handlers, each answered with internal."}, []string{"procedure"}),
		audit: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_audit_lines_total",
			Help: "Audit lines, by result: written, or failed (the line is in the log then)."}, []string{"result"}),
		warning: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_warning",
			Help: "1 while the warning of that name is in force; its text is in the log."}, []string{"name"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "edgehold_build_info", Help: "1; what runs is in the labels.",
		ConstLabels: prometheus.Labels{"service": cfg.Name, "version": cfg.Version, "go": runtime.Version()}})
	info.Set(1)
	m.audit.WithLabelValues("written")
	m.audit.WithLabelValues("failed") // a counter that appears with its first failure cannot be alerted on
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info,
		m.requests, m.seconds, m.inFlight, m.streams, m.panics, m.audit, m.warning)
	return m
}
