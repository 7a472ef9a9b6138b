package llmmock

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"edgehold.internal/libs/problem"
)

// Distribution of durations. Sample is never negative and draws a fixed number of values from r, so that what is drawn after it
// stays where it is when the distribution changes. All of this package draw one, and are functions of it: the inverse of the
// cumulative distribution.
type Distribution interface {
	Sample(r *rand.Rand) time.Duration
}

// Quantiler is a Distribution whose quantiles can be told.
type Quantiler interface {
	Distribution
	// Quantile is the duration that a share u of all samples stay below; u is in 0 … 1, both excluded.
	Quantile(u float64) time.Duration
}

// Longest is what no sample exceeds, whatever the distribution's figures are: a mock that is silent for longer is a mock that
// hangs.
const Longest = time.Hour

// Constant is always the same.
type Constant time.Duration

// Sample implements Distribution.
func (c Constant) Sample(r *rand.Rand) time.Duration {
	r.Uint64()
	return time.Duration(c)
}

// Quantile implements Quantiler.
func (c Constant) Quantile(float64) time.Duration { return time.Duration(c) }

// Validate says Invalid when it is negative or over Longest.
func (c Constant) Validate() error { return inRange("", time.Duration(c), 0) }

// LogNormal is given by its median and its 99th percentile: what figures are published of, and what one looks at. See LogNormalOf
// for the parameters of statistics.
type LogNormal struct {
	P50, P99 time.Duration
}

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// LogNormalOf is the distribution whose logarithm, of seconds, is normal with mean mu and standard deviation sigma.
func LogNormalOf(mu, sigma float64) LogNormal {
	return LogNormal{P50: seconds(math.Exp(mu)), P99: seconds(math.Exp(mu + sigma*z99))}
}

// Sample implements Distribution.
func (l LogNormal) Sample(r *rand.Rand) time.Duration { return l.Quantile(uniform(r)) }

// Quantile implements Quantiler.
func (l LogNormal) Quantile(u float64) time.Duration {
	if l.P50 <= 0 || l.P99 <= l.P50 {
		return max(l.P50, 0)
	}
	sigma := math.Log(float64(l.P99)/float64(l.P50)) / z99
	return nanoseconds(float64(l.P50) * math.Exp(sigma*probit(u)))
}

// Validate says Invalid with the field p50 or p99.
func (l LogNormal) Validate() error {
	if err := inRange("p50", l.P50, time.Nanosecond); err != nil {
		return err
	}
	if l.P99 < l.P50 {
		return problem.Invalidf("p99", "%s is less than p50, %s", l.P99, l.P50)
	}
	return inRange("p99", l.P99, time.Nanosecond)
}

// Gamma is given by its mean and its shape: 1 is the exponential distribution, more is narrower, and the coefficient of variation
// is 1/√Shape.
type Gamma struct {
	Mean  time.Duration
	Shape float64
}

// Shapes that a Gamma may have. Below the least, a half of all samples would be nothing at all; over the largest it is as good as
// constant.
const (
	LeastShape   = 0.05
	LargestShape = 10_000
)

// Sample implements Distribution. It costs microseconds; the Mock tabulates it.
func (g Gamma) Sample(r *rand.Rand) time.Duration { return g.Quantile(uniform(r)) }

// Quantile implements Quantiler.
func (g Gamma) Quantile(u float64) time.Duration {
	if g.Mean <= 0 || !(g.Shape > 0) {
		return max(g.Mean, 0)
	}
	return g.at(probit(u))
}

// at is the quantile that lies where z does in the standard normal distribution.
func (g Gamma) at(z float64) time.Duration {
	return nanoseconds(gammaQuantile(z, g.Shape) / g.Shape * float64(g.Mean))
}

// Validate says Invalid with the field mean or shape.
func (g Gamma) Validate() error {
	if err := inRange("mean", g.Mean, time.Nanosecond); err != nil {
		return err
	}
	if !(g.Shape >= LeastShape && g.Shape <= LargestShape) {
		return problem.Invalidf("shape", "%g is not allowed; use %g to %d (1 is exponential, more is narrower)", g.Shape, LeastShape, LargestShape)
	}
	return nil
}

func inRange(field string, d, least time.Duration) error {
	if d < least || d > Longest {
		return problem.Invalidf(field, "%s is not allowed; use %s to %s", d, least, Longest)
	}
	return nil
}

func seconds(s float64) time.Duration { return nanoseconds(s * 1e9) }

// nanoseconds rounds, and cuts off at 0 and at Longest.
func nanoseconds(ns float64) time.Duration {
	if !(ns > 0) {
		return 0
	}
	if ns >= float64(Longest) {
		return Longest
	}
	return time.Duration(ns + 0.5)
}

// uniform is in 0 … 1, both excluded.
func uniform(r *rand.Rand) float64 { return unit(r.Uint64()) }

// unit takes 52 bits: with one more the half would be rounded away, and 1 come out.
func unit(x uint64) float64 { return (float64(x>>12) + 0.5) / (1 << 52) }

// probit is the inverse of the cumulative distribution of the standard normal one.
func probit(u float64) float64 { return math.Sqrt2 * math.Erfinv(2*u-1) }

// density of the standard normal distribution.
func density(z float64) float64 { return math.Exp(-z*z/2) / math.Sqrt(2*math.Pi) }

// Quantiles is a distribution that is known by some of its quantiles, as vendors' status pages and load tests publish them. It is
// made by NewQuantiles.
//
// It is true at each of them: of any 100,000 independent samples, the named quantile is within half a per cent of the named
// duration. A plain interpolation cannot do that where the table is steep. With 1.1 s at p95 and 4.5 s at p99 the 99th percentile
// of as many samples is off by 2.4 % one time in three, only by chance. So there are somewhat more samples close to a named
// duration than between two of them: as many as chance can move the quantile by (five standard errors at 100,000 samples).
//
// Between the named quantiles the logarithm of the duration is linear in the standard normal distribution's quantile: each piece
// is a part of a lognormal distribution, as the tails of real latencies are. Below the first one goes on as the first piece, with a
// standard deviation of the logarithm of at most 0.48: one in 100,000 is earlier than an eighth of it. Above the last one is a
// Pareto tail as heavy as the last piece, with an exponent of 1 … 8, that ends at 10 times the last duration (or at Longest).
type Quantiles struct {
	points []QuantilePoint
	knots  []knot // of the interpolation
	// The tail is begin × (1 − v·cut)^power, v going from 0 to 1 as u goes from tail to 1.
	tail, begin, cut, power float64
}

// QuantilePoint says that a share P of all samples stay below D.
type QuantilePoint struct {
	P float64
	D time.Duration
}

type knot struct {
	// u and z are the share below it and the quantile of the normal distribution for that; log is that of the nanoseconds.
	u, z, log float64
	// slope of log over z up to the next knot.
	slope float64
}

// What Quantiles promises, and what it is made of.
const (
	promisedSamples = 100_000
	promisedErrors  = 5     // standard errors
	promisedWithin  = 0.005 // of the duration
	lowerSlope      = 0.48  // at most so much below the first quantile
	tailEnd         = 10    // times the last duration
	leastExponent   = 1
	largestExponent = 8
	// MaxQuantiles in a table.
	MaxQuantiles = 64
)

// NewQuantiles makes a distribution of a table such as {0.5: 639ms, 0.95: 1144ms, 0.99: 4517ms}. Invalid when there are fewer than
// two quantiles or more than MaxQuantiles, when one is not between 0 and 1, or a duration is none, over Longest, or less than that
// of a lower quantile.
func NewQuantiles(table map[float64]time.Duration) (*Quantiles, error) {
	q := &Quantiles{points: make([]QuantilePoint, 0, min(len(table), MaxQuantiles+1))}
	if len(table) < 2 || len(table) > MaxQuantiles {
		return nil, problem.Invalidf("", "%d quantiles are not a table; give 2 to %d, such as p50 and p99", len(table), MaxQuantiles)
	}
	for p, d := range table {
		q.points = append(q.points, QuantilePoint{p, d})
	}
	// NaN compares with nothing: it is looked for before the order means anything.
	for _, x := range q.points {
		if !(x.P > 0 && x.P < 1) {
			return nil, problem.Invalidf("", "p%g is not a quantile; use more than 0 and less than 1, 0.5 for the median", x.P)
		}
	}
	slices.SortFunc(q.points, func(a, b QuantilePoint) int {
		if a.P < b.P {
			return -1
		}
		return 1
	})
	for i, x := range q.points {
		if err := inRange(Percentile(x.P), x.D, time.Nanosecond); err != nil {
			return nil, err
		}
		if i > 0 && x.D < q.points[i-1].D {
			return nil, problem.Invalidf(Percentile(x.P), "%s is less than %s at %s; quantiles cannot fall", x.D, q.points[i-1].D, Percentile(q.points[i-1].P))
		}
	}
	q.interpolate()
	return q, nil
}

func (q *Quantiles) interpolate() {
	n := len(q.points)
	plain := make([]knot, n)
	for i, p := range q.points {
		plain[i] = knot{u: p.P, z: probit(p.P), log: math.Log(float64(p.D))}
	}
	slopes(plain)
	flat := min(plain[0].slope, lowerSlope)
	end := &plain[n-1]
	end.slope = plain[n-2].slope
	// How the logarithm grows with that of 1/(1−u) at the last quantile is the inverse of the Pareto exponent.
	exponent := float64(largestExponent)
	if s := end.slope * (1 - end.u) / density(end.z); s > 0 {
		exponent = min(max(1/s, leastExponent), largestExponent)
	}

	for i, k := range plain {
		// as far as chance moves this quantile, and half way to where there are no samples or another promise begins
		reach := promisedErrors * math.Sqrt(k.u*(1-k.u)/promisedSamples)
		before, after, slope := k.u, 1-k.u, flat
		if i > 0 {
			before, slope = k.u-plain[i-1].u, plain[i-1].slope
		}
		if i < n-1 {
			after = plain[i+1].u - k.u
		}
		left, right := near(k.u-min(reach, before/2)), near(k.u+min(reach, after/2))
		left.log = k.log - min(slope*(k.z-left.z), promisedWithin)
		right.log = k.log + min(k.slope*(right.z-k.z), promisedWithin)
		q.knots = append(q.knots, left, k, right)
	}
	slopes(q.knots)
	first, last := q.knots[0], &q.knots[len(q.knots)-1]
	q.knots = append([]knot{{u: 0, z: first.z, log: first.log, slope: flat}}, q.knots...)
	q.tail = last.u
	q.begin = math.Exp(last.log)
	q.power = -1 / exponent
	q.cut = 1 - math.Pow(tailEnd*float64(q.points[n-1].D)/q.begin, -exponent)
}

func near(u float64) knot { return knot{u: u, z: probit(u)} }

// slopes sets each knot's but the last one's.
func slopes(knots []knot) {
	for i := range knots[:len(knots)-1] {
		a, b := &knots[i], knots[i+1]
		if b.z > a.z {
			a.slope = (b.log - a.log) / (b.z - a.z)
		}
	}
}

// Sample implements Distribution.
func (q *Quantiles) Sample(r *rand.Rand) time.Duration { return q.Quantile(uniform(r)) }

// Quantile implements Quantiler.
func (q *Quantiles) Quantile(u float64) time.Duration {
	if u >= q.tail {
		v := (u - q.tail) / (1 - q.tail)
		return nanoseconds(q.begin * math.Pow(1-v*q.cut, q.power))
	}
	i := 1
	for i < len(q.knots) && q.knots[i].u <= u {
		i++
	}
	k := &q.knots[i-1]
	return nanoseconds(math.Exp(k.log + k.slope*(probit(u)-k.z)))
}

// Validate says Invalid when it was not made by NewQuantiles.
func (q *Quantiles) Validate() error {
	if q == nil || len(q.knots) == 0 {
		return problem.Invalidf("", "is no table of quantiles")
	}
	return nil
}

// Points is the table that it was made of, by rising P.
func (q *Quantiles) Points() []QuantilePoint { return slices.Clone(q.points) }

// Percentile is how a quantile is written: p50 for 0.5, p99.9 for 0.999.
func Percentile(p float64) string { return "p" + strconv.FormatFloat(p*100, 'g', 10, 64) }

// Trace is a distribution of durations that were measured. It is made by NewTrace.
type Trace struct {
	durations []time.Duration
	replay    bool
}

// MaxTrace is how many durations a Trace may have.
const MaxTrace = 1 << 20

// NewTrace makes a Trace from which each sample is one of the durations, all alike likely. It keeps the slice. Invalid when it is
// empty or longer than MaxTrace, or one of the durations is negative or over Longest.
func NewTrace(durations []time.Duration) (*Trace, error) {
	if len(durations) == 0 || len(durations) > MaxTrace {
		return nil, problem.Invalidf("", "a trace of %d durations is not allowed; give 1 to %d", len(durations), MaxTrace)
	}
	for i, d := range durations {
		if err := inRange("["+strconv.Itoa(i)+"]", d, 0); err != nil {
			return nil, err
		}
	}
	return &Trace{durations: durations}, nil
}

// Replayed is the same Trace played in its order, so that what was slow together stays together. The first token of the n-th equal
// request has the n-th duration; the gaps of an answer begin at a place that is drawn, and go on from there. After the last comes
// the first.
func (t *Trace) Replayed() *Trace { return &Trace{t.durations, true} }

// Replays says that it is played in its order.
func (t *Trace) Replays() bool { return t.replay }

// Durations are what it was made of; they must not be changed.
func (t *Trace) Durations() []time.Duration { return t.durations }

// Validate says Invalid when it was not made by NewTrace.
func (t *Trace) Validate() error {
	if t == nil || len(t.durations) == 0 {
		return problem.Invalidf("", "is no trace")
	}
	return nil
}

// Sample implements Distribution.
func (t *Trace) Sample(r *rand.Rand) time.Duration {
	return t.durations[int(uniform(r)*float64(len(t.durations)))]
}

// at is the i-th, going round.
func (t *Trace) at(i uint64) time.Duration { return t.durations[i%uint64(len(t.durations))] }
