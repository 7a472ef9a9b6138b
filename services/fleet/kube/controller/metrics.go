package controller

import (
	"errors"

	"edgehold.internal/services/fleet"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by all controllers of a process; the label cluster tells them apart.
type metrics struct {
	cluster     string
	cutovers    *prometheus.CounterVec
	contentions *prometheus.CounterVec
	switching   *prometheus.HistogramVec
	draining    *prometheus.HistogramVec
	parity      *prometheus.GaugeVec
	open        *prometheus.GaugeVec
	ready       *prometheus.GaugeVec
	halted      *prometheus.GaugeVec
	doubt       *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer, cluster string) *metrics {
	fleetLabels := []string{"cluster", "namespace", "fleet"}
	with := func(more ...string) []string { return append(fleetLabels[:3:3], more...) }
	m := &metrics{cluster: cluster,
		cutovers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_fleet_cutovers_total",
			Help: "Cutovers that ended, by outcome: Completed, Reverted, Expired or Superseded."}, with("outcome")),
		contentions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgehold_fleet_contentions_total",
			Help: "Times that another writer set the selector of the Service back."}, with()),
		switching: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "edgehold_fleet_switch_seconds",
			Help: "Time from the declaration of a cutover to the switch of the selector.", Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}}, []string{"cluster"}),
		draining: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "edgehold_fleet_drain_seconds",
			Help: "Time from the switch to the end of the drain.", Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600}}, []string{"cluster"}),
		parity: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_fleet_parity_ratio",
			Help: "Ready pods of the standby over its share of the active's."}, with()),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_fleet_open_connections",
			Help: "Open connections over the pods of a colour; absent while it is unknown."}, with("colour")),
		ready: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_fleet_ready_pods",
			Help: "Ready pods of a colour."}, with("colour", "active")),
		halted: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_fleet_halted",
			Help: "1 while a fleet waits for a person: it switched back by itself, or another writer fights over the selector."}, with()),
		doubt: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "edgehold_fleet_clock_doubt_seconds",
			Help: "How far the wall clock, the process's clock and the API server's are apart."}, []string{"cluster"}),
	}
	if r != nil {
		m.cutovers, m.contentions = register(r, m.cutovers), register(r, m.contentions)
		m.switching, m.draining = register(r, m.switching), register(r, m.draining)
		m.parity, m.open, m.ready, m.halted, m.doubt = register(r, m.parity), register(r, m.open), register(r, m.ready), register(r, m.halted), register(r, m.doubt)
	}
	return m
}

// register returns the collector that another controller of the process has registered already, if one has.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	err := r.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if have, ok := already.ExistingCollector.(C); ok {
			return have
		}
	}
	return c
}

// show sets the gauges of a fleet and counts what ended since the status before.
func (m *metrics) show(namespace, name string, o *fleet.Observation, s *fleet.Status) {
	before := &o.Status
	m.doubt.WithLabelValues(m.cluster).Set(o.Clock.Doubt().Seconds())
	if ratio, known := s.Parity(o.Spec.StandbyPercent); known {
		m.parity.WithLabelValues(m.cluster, namespace, name).Set(ratio)
	} else {
		m.parity.DeleteLabelValues(m.cluster, namespace, name)
	}
	for _, c := range colours {
		st := &s.Blue
		if c == fleet.Green {
			st = &s.Green
		}
		is, not := "false", "true"
		if c == s.Active {
			is, not = not, is
		}
		m.ready.DeleteLabelValues(m.cluster, namespace, name, string(c), not)
		m.ready.WithLabelValues(m.cluster, namespace, name, string(c), is).Set(float64(st.Ready))
		if st.OpenConnections != nil {
			m.open.WithLabelValues(m.cluster, namespace, name, string(c)).Set(float64(*st.OpenConnections))
		} else {
			m.open.DeleteLabelValues(m.cluster, namespace, name, string(c))
		}
	}
	halted := 0.0
	if s.Phase == fleet.Halted {
		halted = 1
	}
	m.halted.WithLabelValues(m.cluster, namespace, name).Set(halted)

	c, was := s.LastCutover, before.LastCutover
	if c == nil {
		return
	}
	fresh := was == nil || was.ID != c.ID
	if fresh && was != nil && was.Outcome == fleet.Running {
		if len(s.History) > 0 && s.History[0].ID == was.ID {
			m.cutovers.WithLabelValues(m.cluster, namespace, name, string(s.History[0].Outcome)).Inc()
		}
	}
	if c.Outcome != fleet.Running && (fresh || was.Outcome != c.Outcome) {
		m.cutovers.WithLabelValues(m.cluster, namespace, name, string(c.Outcome)).Inc()
	}
	if !c.SwitchedAt.IsZero() && (fresh || was.SwitchedAt.IsZero()) {
		m.switching.WithLabelValues(m.cluster).Observe(max(c.SwitchedAt.Sub(c.DeclaredAt).Seconds(), 0))
	}
	if !c.DrainedAt.IsZero() && (fresh || was.DrainedAt.IsZero()) {
		m.draining.WithLabelValues(m.cluster).Observe(max(c.DrainedAt.Sub(c.SwitchedAt).Seconds(), 0))
	}
	counted := int32(0)
	if !fresh {
		counted = was.Contended
	}
	if n := c.Contended - counted; n > 0 {
		m.contentions.WithLabelValues(m.cluster, namespace, name).Add(float64(n))
	}
}

// forget removes the series of a fleet that is gone.
func (m *metrics) forget(namespace, name string) {
	labels := prometheus.Labels{"cluster": m.cluster, "namespace": namespace, "fleet": name}
	for _, v := range []*prometheus.GaugeVec{m.parity, m.open, m.ready, m.halted} {
		v.DeletePartialMatch(labels)
	}
	m.cutovers.DeletePartialMatch(labels)
	m.contentions.DeletePartialMatch(labels)
}
