package run

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/rpc"
)

// metrics are what operators see of the traffic. Their labels are bounded: scenarios, vendors, statuses and faults. They are counted
// once, in Traffic, and read from there.
type metrics struct {
	traffic                              *llmmock.Traffic
	requests, tokens, faults, ends, open *prometheus.Desc
	lateness                             prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, t *llmmock.Traffic) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("edgehold_mock_"+name, help, labels, nil)
	}
	m := &metrics{
		traffic:  t,
		requests: desc("requests_total", "Requests answered, by scenario, vendor and HTTP status; 0 when the connection ended before one.", "scenario", "vendor", "status"),
		tokens:   desc("tokens_total", "Tokens of prompts (input) and answers (output).", "scenario", "vendor", "direction"),
		faults:   desc("faults_total", "Faults committed, by the name of the rule or phase, or its kind.", "scenario", "vendor", "fault"),
		ends:     desc("ends_total", "How answers ended: complete, truncated by a fault, left by the client.", "scenario", "vendor", "end"),
		open:     desc("exchanges_open", "Requests that are being answered."),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "edgehold_mock_late_seconds", Help: "By how much a piece was written later than its schedule says; never earlier.",
			// The first bucket is for what is too early.
			Buckets: []float64{-1e-9, 50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 700e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.2, 1}}),
	}
	r.MustRegister(m, m.lateness)
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.requests, m.tokens, m.faults, m.ends, m.open} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, s := range m.traffic.Series() {
		count := func(d *prometheus.Desc, n int, label string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), s.Scenario, string(s.Vendor), label)
		}
		for status, n := range s.Statuses {
			count(m.requests, n, strconv.Itoa(status))
		}
		for fault, n := range s.Faults {
			count(m.faults, n, fault)
		}
		count(m.tokens, s.InputTokens, "input")
		count(m.tokens, s.OutputTokens, "output")
		count(m.ends, s.Complete, string(llmmock.Complete))
		count(m.ends, s.Truncated, string(llmmock.Truncated))
		count(m.ends, s.Left, string(llmmock.Left))
	}
	to <- prometheus.MustNewConstMetric(m.open, prometheus.GaugeValue, float64(m.traffic.Open()))
}

func (m *metrics) late(d time.Duration) { m.lateness.Observe(d.Seconds()) }

// buckets are how many pieces were at most so late.
func (m *metrics) buckets() []rpc.Bucket {
	var out dto.Metric
	if m.lateness.Write(&out) != nil {
		return nil // it fails for histograms of another kind
	}
	h := out.GetHistogram()
	buckets := make([]rpc.Bucket, 0, len(h.GetBucket())+1)
	for _, b := range h.GetBucket() {
		buckets = append(buckets, rpc.Bucket{Most: time.Duration(b.GetUpperBound() * float64(time.Second)), Count: b.GetCumulativeCount()})
	}
	return append(buckets, rpc.Bucket{Count: h.GetSampleCount()})
}
