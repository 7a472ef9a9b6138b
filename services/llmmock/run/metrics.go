package run

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"edgehold.internal/services/llmmock"
)

// metrics are what operators see of the traffic. Their labels are bounded: scenarios, vendors, statuses and faults.
type metrics struct {
	requests *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	faults   *prometheus.CounterVec
	ends     *prometheus.CounterVec
	open     prometheus.Gauge
	lateness prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_mock_requests_total", Help: "Requests answered, by scenario, vendor and HTTP status; 0 when the connection ended before one."}, []string{"scenario", "vendor", "status"}),
		tokens:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_mock_tokens_total", Help: "Tokens of prompts (input) and answers (output)."}, []string{"scenario", "vendor", "direction"}),
		faults:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_mock_faults_total", Help: "Faults committed, by the name of the rule or phase, or its kind."}, []string{"scenario", "fault"}),
		ends:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_mock_ends_total", Help: "How answers ended: complete, truncated by a fault, left by the client."}, []string{"scenario", "end"}),
		open:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "edgehold_mock_exchanges_open", Help: "Requests that are being answered."}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "edgehold_mock_late_seconds", Help: "By how much a piece was written later than its schedule says; never earlier.",
			Buckets: []float64{50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.2, 1}}),
	}
	r.MustRegister(m.requests, m.tokens, m.faults, m.ends, m.open, m.lateness)
	return m
}

func (m *metrics) late(d time.Duration) { m.lateness.Observe(d.Seconds()) }

// observe is called for everything that happens.
func (m *metrics) observe(e llmmock.Event) {
	x := e.Exchange
	scenario, vendor := x.Moment.Scenario, string(x.Vendor)
	switch e.Kind {
	case llmmock.Arrived:
		m.open.Inc()
	case llmmock.Ended:
		m.open.Dec()
		m.requests.WithLabelValues(scenario, vendor, strconv.Itoa(e.Status)).Inc()
		m.ends.WithLabelValues(scenario, string(e.End)).Inc()
		if u := x.Usage(); u.Total() > 0 {
			m.tokens.WithLabelValues(scenario, vendor, "input").Add(float64(u.Input))
			m.tokens.WithLabelValues(scenario, vendor, "output").Add(float64(u.Output))
		}
		switch {
		case x.Rule != "":
			m.faults.WithLabelValues(scenario, x.Rule).Inc()
		case x.Phase != "" && (x.Failure != nil || x.Fault.Kind != llmmock.NoFault):
			m.faults.WithLabelValues(scenario, x.Phase).Inc()
		}
	}
}
