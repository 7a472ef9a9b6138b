package fleet

import (
	"cmp"
	"time"
)

// Counters of one pod, as they stand since it started.
type Counters struct{ Requests, Errors float64 }

// Meter makes the traffic of one colour from samples of its pods' counters. The zero Meter is ready. It is not safe for
// concurrent use.
type Meter struct {
	colour Colour
	since  time.Duration
	last   map[string]Counters
	// ring of totals, oldest first.
	ring []sample
	sum  Counters
}

type sample struct {
	at time.Duration
	Counters
}

const (
	// meterWindow is how far back the traffic is measured.
	meterWindow = 30 * time.Second
	// meterSamples bounds the ring: a sample a second fills the window.
	meterSamples = 40
)

// Add takes the counters of all pods of the colour that serve, read at an instant (process uptime). A colour or an instant
// since that differ from the ones before begin a new window, so that it holds answers of one colour since one switch
// only. A pod that is new counts from its first sample on, one that restarted from zero.
func (m *Meter) Add(at time.Duration, colour Colour, since time.Duration, pods map[string]Counters) {
	if m.colour != colour || m.since != since {
		*m = Meter{colour: colour, since: since}
	}
	if at < since {
		return
	}
	for name, now := range pods {
		before, known := m.last[name]
		if !known {
			continue
		}
		m.sum.Requests += grown(before.Requests, now.Requests)
		m.sum.Errors += grown(before.Errors, now.Errors)
	}
	m.last = pods
	m.ring = append(m.ring, sample{at, m.sum})
	// The oldest one kept is the last at or before the window's begin, so that the window is never shorter than it could be.
	for len(m.ring) > 2 && (at-m.ring[1].at >= meterWindow || len(m.ring) > meterSamples) {
		m.ring = m.ring[1:]
	}
}

func grown(before, now float64) float64 {
	if now < before {
		return now
	}
	return now - before
}

// Break forgets the samples: a pod could not be read, so what would be counted is not the whole.
func (m *Meter) Break() {
	*m = Meter{colour: m.colour, since: m.since}
}

// Traffic over the window until now, nil with fewer than two samples.
func (m *Meter) Traffic(now time.Time) *Traffic {
	if len(m.ring) < 2 {
		return nil
	}
	first, last := m.ring[0], m.ring[len(m.ring)-1]
	t := Traffic{Requests: int64(last.Requests - first.Requests), Errors: int64(last.Errors - first.Errors), Window: last.at - first.at, At: now}
	if t.Window > 0 {
		t.RequestsPerSecond = float64(t.Requests) / t.Window.Seconds()
	}
	if t.Requests > 0 {
		t.ErrorRatio = min(float64(t.Errors)/float64(t.Requests), 1)
	}
	return &t
}

// Colour is what the samples are of.
func (m *Meter) Colour() Colour { return cmp.Or(m.colour, None) }
