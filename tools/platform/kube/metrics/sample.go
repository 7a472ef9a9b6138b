package metrics

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/labels"
)

// rateSuffix is what the name of a counter gets in place of counterSuffix when it is served as a rate.
const (
	counterSuffix = "_total"
	rateSuffix    = "_per_second"
)

// reading is the value of one series in one scrape.
type reading struct {
	metric  string // the name that it is served under
	labels  labels.Set
	value   float64
	counter bool
}

// id tells the series of a pod apart.
func (r reading) id() string {
	names := make([]string, 0, len(r.labels))
	for name := range r.labels {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(r.metric)
	for _, name := range names {
		// Neither byte is valid in UTF-8, so no name or value can hold it.
		b.WriteString("\xff" + name + "\xfe" + r.labels[name])
	}
	return b.String()
}

// parse reads the Prometheus text format, at most maxBytes of it and maxSeries readings. Gauges and untyped series keep their
// name. A counter X_total is named X_per_second; a histogram or a summary X gives the counters X_count_per_second and
// X_sum_per_second. Values that are not finite are left out, since no quantity can hold them.
func parse(r io.Reader, maxBytes int64, maxSeries int) ([]reading, error) {
	limited := &io.LimitedReader{R: r, N: maxBytes + 1}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(limited)
	if limited.N <= 0 {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("the answer is not in the Prometheus text format: %w", err)
	}
	var readings []reading
	for name, family := range families {
		for _, m := range family.GetMetric() {
			set := make(labels.Set, len(m.GetLabel()))
			for _, pair := range m.GetLabel() {
				set[pair.GetName()] = pair.GetValue()
			}
			for _, r := range readingsOf(name, family.GetType(), m) {
				if math.IsNaN(r.value) || math.IsInf(r.value, 0) {
					continue
				}
				r.labels = set
				readings = append(readings, r)
			}
			if len(readings) > maxSeries {
				return nil, fmt.Errorf("the answer has more than %d series", maxSeries)
			}
		}
	}
	return readings, nil
}

func readingsOf(name string, kind dto.MetricType, m *dto.Metric) []reading {
	counter := func(name string, value float64) reading {
		return reading{metric: strings.TrimSuffix(name, counterSuffix) + rateSuffix, value: value, counter: true}
	}
	switch kind {
	case dto.MetricType_COUNTER:
		return []reading{counter(name, m.GetCounter().GetValue())}
	case dto.MetricType_HISTOGRAM:
		return []reading{counter(name+"_count", float64(m.GetHistogram().GetSampleCount())), counter(name+"_sum", m.GetHistogram().GetSampleSum())}
	case dto.MetricType_SUMMARY:
		return []reading{counter(name+"_count", float64(m.GetSummary().GetSampleCount())), counter(name+"_sum", m.GetSummary().GetSampleSum())}
	case dto.MetricType_GAUGE:
		return []reading{{metric: name, value: m.GetGauge().GetValue()}}
	default:
		return []reading{{metric: name, value: m.GetUntyped().GetValue()}}
	}
}

// history is what is known of the series of one pod, for at most window.
type history struct {
	window time.Duration
	series map[string]*series
	last   time.Time // of the last scrape
}

type series struct {
	reading
	points []point
}

// point is the value of a gauge, or the increase of a counter since its series was first seen.
type point struct {
	at    time.Time
	value float64
}

// add a scrape. A counter that went down was reset, so all that it has now is increase. Series that are no longer there are
// forgotten.
func (h *history) add(at time.Time, readings []reading) {
	if !at.After(h.last) && !h.last.IsZero() {
		return // a rate over no time is none
	}
	seen := make(map[string]*series, len(readings))
	for _, r := range readings {
		id := r.id()
		s := h.series[id]
		if s == nil || s.counter != r.counter {
			s = &series{}
		}
		value := r.value
		if r.counter && len(s.points) > 0 {
			increase := r.value - s.value
			if increase < 0 {
				increase = r.value
			}
			value = s.points[len(s.points)-1].value + max(increase, 0)
		} else if r.counter {
			value = 0
		}
		s.reading = r
		s.points = append(s.points, point{at, value})
		keep := 0
		if !r.counter {
			keep = len(s.points) - 1
		}
		for len(s.points)-keep > 2 && at.Sub(s.points[keep].at) > h.window {
			keep++
		}
		s.points = slices.Delete(s.points, 0, keep)
		seen[id] = s
	}
	h.series, h.last = seen, at
}

// value is a metric of a pod.
type value struct {
	number float64
	at     time.Time
	window time.Duration // of a rate, 0 for a gauge
}

var errNoValue = errors.New("no value yet")

// value sums a metric over the series that match. A counter has none before its second sample. Where a gauge and the rate of a
// counter have one name, the gauge is meant.
func (h *history) value(metric string, selector labels.Selector) (value, error) {
	var gauge, rate value
	gauges, rates := 0, 0
	for _, s := range h.series {
		if s.metric != metric || !selector.Matches(s.labels) {
			continue
		}
		first, last := s.points[0], s.points[len(s.points)-1]
		if !s.counter {
			gauge.number += last.value
			gauges++
			continue
		}
		if window := last.at.Sub(first.at); window > 0 {
			rate.number += (last.value - first.value) / window.Seconds()
			rate.window = max(rate.window, window)
			rates++
		}
	}
	gauge.at, rate.at = h.last, h.last
	switch {
	case gauges > 0:
		return gauge, nil
	case rates > 0:
		return rate, nil
	}
	return value{}, errNoValue
}

// metrics are the names that have a value.
func (h *history) metrics() []string {
	var names []string
	for _, s := range h.series {
		if !s.counter || len(s.points) > 1 {
			names = append(names, s.metric)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
