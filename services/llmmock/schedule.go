package llmmock

import (
	"math/rand/v2"
	"time"
)

// longestSchedule is for how many tokens gaps are drawn; the last one goes on for all that follow.
const longestSchedule = 1 << 16

// latency is a Latency that was prepared.
type latency struct {
	of                *Latency
	first, gap, total Distribution
	// same is the one gap of a scenario that has only one.
	same []time.Duration
}

func newLatency(l *Latency) latency {
	p := latency{of: l, first: quick(l.FirstToken), gap: quick(l.InterToken), total: quick(l.Total)}
	if c, ok := l.InterToken.(Constant); ok && c > 0 {
		p.same = []time.Duration{time.Duration(c)}
	}
	return p
}

// none says that everything is due at once.
func (l *latency) none() bool {
	return l.first == nil && l.gap == nil && l.total == nil && l.of.Prefill == 0
}

// schedule draws when n tokens are due after a prompt of so many that are not cached. Everything takes factor times as long.
func (l *latency) schedule(m Moment, prompt, n int, factor float64) Schedule {
	if l.none() {
		return Schedule{}
	}
	r := m.Random(ForLatency)
	first := scale(sample(l.first, r, m.Occurrence)+times(l.of.Prefill, prompt), factor)
	if l.total == nil {
		r.Uint64() // a scenario that gets a total keeps its gaps' proportions
		return Schedule{First: first, Gaps: l.gaps(r, n-1, factor)}
	}
	total := scale(sample(l.total, r, m.Occurrence), factor)
	if n < 2 || first >= total {
		return Schedule{First: total}
	}
	return Schedule{First: first, Gaps: stretch(l.gaps(r, n-1, 1), n-1, total-first)}
}

// toFirst is when what has no tokens is due: a failure of a provider that is slow.
func (l *latency) toFirst(m Moment, factor float64) time.Duration {
	return scale(sample(l.first, m.Random(ForLatency), m.Occurrence), factor)
}

func (l *latency) gaps(r *rand.Rand, n int, factor float64) []time.Duration {
	n = min(n, longestSchedule)
	if l.gap == nil || n <= 0 {
		return nil
	}
	if l.same != nil && factor == 1 {
		return l.same
	}
	if l.same != nil {
		return []time.Duration{scale(l.same[0], factor)}
	}
	gaps := make([]time.Duration, n)
	if t, ok := l.gap.(*Trace); ok && t.replay {
		at := r.Uint64() % uint64(len(t.durations))
		for i := range gaps {
			gaps[i] = scale(t.at(at+uint64(i)), factor)
		}
		return gaps
	}
	for i := range gaps {
		gaps[i] = scale(l.gap.Sample(r), factor)
	}
	return gaps
}

// stretch makes of gaps n whose sum is exactly total, in the same proportions. What lies beyond the longest schedule counts as
// the last one, as in Schedule.
func stretch(gaps []time.Duration, n int, total time.Duration) []time.Duration {
	schedule := Schedule{Gaps: gaps}
	sum := schedule.Whole(n + 1)
	out := make([]time.Duration, min(n, longestSchedule))
	// Rounded sums and not rounded gaps: errors do not add up.
	var passed, due time.Duration
	for i := range out {
		var share float64
		if sum > 0 {
			passed += schedule.Gap(i + 1)
			share = float64(passed) / float64(sum)
		} else {
			share = float64(i+1) / float64(n)
		}
		next := time.Duration(share * float64(total))
		if i == n-1 {
			next = total
		}
		out[i] = next - due
		due = next
	}
	return out
}

// sample of nothing takes no time, and draws as much.
func sample(d Distribution, r *rand.Rand, occurrence uint64) time.Duration {
	if d == nil {
		r.Uint64()
		return 0
	}
	if t, ok := d.(*Trace); ok && t.replay {
		r.Uint64()
		return t.at(occurrence)
	}
	return d.Sample(r)
}

func times(d time.Duration, n int) time.Duration {
	return nanoseconds(float64(d) * float64(max(n, 0)))
}

func scale(d time.Duration, factor float64) time.Duration {
	if factor == 1 {
		return d
	}
	return nanoseconds(float64(d) * factor)
}

// factor of a load of so many requests.
func (l Load) factor(underWay int64) float64 {
	if l.Factor == 0 || l.Free <= 0 || underWay <= int64(l.Free) {
		return 1
	}
	return 1 + l.Factor*float64(underWay-int64(l.Free))/float64(l.Free)
}

// shapeAt is the factor of a shape at a time since the start. Before the first point the line comes from 1 at the start.
func shapeAt(points []Point, at time.Duration) float64 {
	before := Point{Factor: 1}
	at = max(at, 0)
	for _, p := range points {
		if at < p.At {
			if p.Step || p.At <= before.At {
				return before.Factor
			}
			return before.Factor + (p.Factor-before.Factor)*float64(at-before.At)/float64(p.At-before.At)
		}
		before = p
	}
	return before.Factor
}
