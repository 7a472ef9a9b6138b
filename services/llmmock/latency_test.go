package llmmock

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// published are tables as they are found in the world, in milliseconds.
var published = map[string]map[float64]time.Duration{
	"gpt-4o":           {.5: 639 * ms, .95: 1144 * ms, .99: 4517 * ms},
	"haiku-4.5":        {.5: 541 * ms, .95: 1591 * ms, .99: 4117 * ms},
	"gemini-2.5-flash": {.5: 477 * ms, .95: 776 * ms, .99: 1309 * ms},
	"sonnet-4.6":       {.5: 941 * ms, .95: 2939 * ms, .99: 4787 * ms},
	"opus-4.6":         {.5: 1626 * ms, .95: 2420 * ms, .99: 3797 * ms},
	"gpt-4o-mini":      {.5: 645 * ms, .95: 1094 * ms},
	"70b tokens":       {.5: 14600 * time.Microsecond, .99: 38700 * time.Microsecond},
	"very heavy":       {.1: 10 * ms, .5: 100 * ms, .9: 1000 * ms, .95: 3000 * ms, .99: 20000 * ms, .999: 90000 * ms},
	"flat":             {.5: 100 * ms, .9: 100 * ms, .99: 100 * ms},
	"with a step":      {.25: 10 * ms, .5: 10 * ms, .75: 500 * ms, .9: 500 * ms},
}

func mustQuantiles(t testing.TB, table map[float64]time.Duration) *Quantiles {
	t.Helper()
	q, err := NewQuantiles(table)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestQuantilesAreTrueInSamples(t *testing.T) {
	const samples, seeds = 100_000, 4
	for name, table := range published {
		t.Run(name, func(t *testing.T) {
			q := mustQuantiles(t, table)
			drawn := make([]time.Duration, samples)
			for seed := range uint64(seeds) {
				var d Distribution = q
				if seed%2 == 1 {
					d = quick(q) // as a Mock has it
				}
				r := rand.New(rand.NewPCG(seed, 7))
				for i := range drawn {
					drawn[i] = d.Sample(r)
				}
				slices.Sort(drawn)
				for p, want := range table {
					got := drawn[int(p*samples)]
					if off := math.Abs(float64(got)/float64(want) - 1); off > 0.01 {
						t.Errorf("seed %d: %s of %d samples is %s; want %s, off by %.2f%%", seed, Percentile(p), samples, got, want, 100*off)
					}
				}
			}
		})
	}
}

// The promise must not be kept by an atom: samples around a named quantile differ.
func TestQuantilesHaveNoAtoms(t *testing.T) {
	q := mustQuantiles(t, published["gpt-4o"])
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[time.Duration]int{}
	for range 100_000 {
		seen[q.Sample(r)]++
	}
	for d, n := range seen {
		if n > 5 {
			t.Errorf("%s came %d times of 100,000", d, n)
		}
	}
}

func TestQuantilesOutsideOfTheTable(t *testing.T) {
	for name, table := range published {
		t.Run(name, func(t *testing.T) {
			q := mustQuantiles(t, table)
			points := q.Points()
			first, last := points[0], points[len(points)-1]
			if got := q.Quantile(1 - 1e-12); got > 10*last.D+ms || name != "flat" && got < 2*last.D {
				t.Errorf("the tail ends at %s; want more than twice %s and at most ten times", got, last.D)
			}
			if got := q.Quantile(unit(math.MaxUint64)); got > 10*last.D+ms {
				t.Errorf("the longest is %s; want at most %s", got, 10*last.D)
			}
			if got := q.Quantile(1e-5); got < first.D/8 || got > first.D {
				t.Errorf("one in 100,000 is %s; want an eighth of %s at least", got, first.D)
			}
			if got := q.Quantile(unit(0)); got <= 0 {
				t.Errorf("the shortest is %s", got)
			}
		})
	}
	// The heavier the end of the table, the heavier the tail.
	light, heavy := mustQuantiles(t, published["opus-4.6"]), mustQuantiles(t, published["gpt-4o"])
	if l, h := float64(light.Quantile(.999))/3797e6, float64(heavy.Quantile(.999))/4517e6; l < 1.5 || h < 2*l {
		t.Errorf("p99.9 is %.2f and %.2f times p99; want more than 1.5 and much more than that", l, h)
	}
}

func TestQuantilesAreMonotoneAndMeetTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfNDistinct(rapid.Float64Range(0.0001, 0.9999), 2, 12, rapid.ID[float64]).Draw(t, "quantiles")
		slices.Sort(ps)
		table, d := map[float64]time.Duration{}, time.Duration(rapid.Int64Range(1, int64(10*time.Second)).Draw(t, "first"))
		for i, p := range ps {
			table[p] = d
			d = min(time.Duration(float64(d)*rapid.Float64Range(1, 8).Draw(t, fmt.Sprint("step", i))), Longest)
		}
		q, err := NewQuantiles(table)
		if err != nil {
			t.Fatal(err)
		}
		for p, want := range table {
			if got := q.Quantile(p); math.Abs(float64(got-want)) > 2+1e-9*float64(want) {
				t.Errorf("%s is %s; want %s", Percentile(p), got, want)
			}
		}
		us := append(rapid.SliceOfN(rapid.Float64Range(1e-15, 1-1e-15), 20, 60).Draw(t, "u"), ps...)
		slices.Sort(us)
		for i := 1; i < len(us); i++ {
			if a, b := q.Quantile(us[i-1]), q.Quantile(us[i]); a > b+1 {
				t.Errorf("%s at %v, and %s at %v", a, us[i-1], b, us[i])
			}
		}
	})
}

func TestLogNormal(t *testing.T) {
	l := LogNormal{P50: 639 * ms, P99: 4517 * ms}
	if a, b := l.Quantile(.5), l.Quantile(.99); a != l.P50 || (b-l.P99).Abs() > time.Microsecond {
		t.Errorf("p50 %s, p99 %s; want %s and %s", a, b, l.P50, l.P99)
	}
	of := LogNormalOf(math.Log(.1), .5) // median 100 ms
	if (of.P50-100*ms).Abs() > 1 || (of.Quantile(.8413447460685429)-seconds(.1*math.Exp(.5))).Abs() > time.Microsecond {
		t.Errorf("%+v: one standard deviation above is %s", of, of.Quantile(.8413447460685429))
	}
	if got := (LogNormal{P50: ms, P99: ms}).Quantile(.7); got != ms {
		t.Errorf("without a spread: %s", got)
	}
}

func TestGamma(t *testing.T) {
	// Half the quantiles of χ² with twice the degrees of freedom, from tables.
	for _, tc := range []struct{ shape, u, chi2 float64 }{
		{.5, .5, .454936423119573}, {.5, .95, 3.841458820694124}, {2, .95, 9.487729036781154}, {5, .99, 23.209251158954356},
		{5, .01, 2.558212160187206}, {50, .5, 99.33412923598846}, {.5, .001, 1.570797e-06},
	} {
		mean := time.Duration(tc.shape * 1e9) // so that the scale is a second
		got, want := Gamma{Mean: mean, Shape: tc.shape}.Quantile(tc.u).Seconds(), tc.chi2/2
		if math.Abs(got-want) > 1e-6*want+2e-9 {
			t.Errorf("shape %g: the quantile of %g is %.9g; want %.9g", tc.shape, tc.u, got, want)
		}
	}
	for _, u := range []float64{1e-9, .1, .5, .999, 1 - 1e-9} {
		if got, want := (Gamma{Mean: time.Second, Shape: 1}).Quantile(u).Seconds(), -math.Log1p(-u); math.Abs(got-want) > 1e-7*want+1e-9 {
			t.Errorf("exponential: %g is %g; want %g", u, got, want)
		}
	}
	for _, shape := range []float64{LeastShape, .3, 1, 2.5, 20, 300, LargestShape} {
		g := Gamma{Mean: 20 * ms, Shape: shape}
		if err := g.Validate(); err != nil {
			t.Fatal(err)
		}
		tabulated := quick(g)
		r, sum, squares := rand.New(rand.NewPCG(3, uint64(shape*100))), 0., 0.
		const n = 200_000
		for range n {
			x := float64(tabulated.Sample(r)) / float64(20*ms)
			sum, squares = sum+x, squares+x*x
		}
		mean := sum / n
		variance := squares/n - mean*mean
		if math.Abs(mean-1) > 5/math.Sqrt(shape*n) || math.Abs(variance*shape-1) > .1 {
			t.Errorf("shape %g: mean %.4f and variance %.4g of the mean; want 1 and %.4g", shape, mean, variance, 1/shape)
		}
		for i := 1; i < 2000; i++ {
			u := float64(i) / 2000
			exact, quick := float64(g.Quantile(u)), float64(tabulated.(*table).Quantile(u))
			if math.Abs(exact-quick) > .005*exact+2 {
				t.Errorf("shape %g: %g is %v in the table; want %v", shape, u, quick, exact)
			}
		}
	}
}

func TestTrace(t *testing.T) {
	list := []time.Duration{3 * ms, ms, 2 * ms}
	tr, err := NewTrace(list)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[time.Duration]int{}
	r := rand.New(rand.NewPCG(1, 1))
	for range 30_000 {
		seen[tr.Sample(r)]++
	}
	for _, d := range list {
		if seen[d] < 9_500 || seen[d] > 10_500 {
			t.Errorf("%s came %d times of 30,000", d, seen[d])
		}
	}
	if len(seen) != 3 || tr.Replays() || !tr.Replayed().Replays() || tr.at(4) != ms {
		t.Errorf("%v", seen)
	}
}

// What is drawn after a sample must not move when the distribution changes.
func TestEveryDistributionDrawsOneValue(t *testing.T) {
	trace, _ := NewTrace([]time.Duration{ms, 2 * ms})
	for name, d := range map[string]Distribution{
		"constant": Constant(ms), "lognormal": LogNormal{ms, 3 * ms}, "gamma": Gamma{ms, 2}, "table": quick(Gamma{ms, .5}),
		"quantiles": mustQuantiles(t, published["gpt-4o"]), "trace": trace, "replayed": trace.Replayed(), "flat lognormal": LogNormal{ms, ms}, "none": nil,
	} {
		a, b := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(1, 2))
		for range 100 {
			if got := sample(d, a, 0); got < 0 {
				t.Errorf("%s: %s", name, got)
			}
			b.Uint64()
			if x, y := a.Uint64(), b.Uint64(); x != y {
				t.Fatalf("%s does not draw one value", name)
			}
		}
	}
}

func TestUniformExcludesItsEnds(t *testing.T) {
	if a, b := unit(0), unit(math.MaxUint64); a <= 0 || b >= 1 || math.IsInf(probit(a), 0) || math.IsInf(probit(b), 0) || -probit(a) > gammaEnd || probit(b) > gammaEnd {
		t.Errorf("%g … %g are %g … %g", a, b, probit(a), probit(b))
	}
}

func TestDistributionsThatCannotBe(t *testing.T) {
	nan := math.NaN()
	table := func(m map[float64]time.Duration) error { _, err := NewQuantiles(m); return err }
	trace := func(d ...time.Duration) error { _, err := NewTrace(d); return err }
	many := map[float64]time.Duration{}
	for i := range MaxQuantiles + 1 {
		many[float64(i+1)/100] = ms
	}
	for _, tc := range []struct {
		err  error
		says string
	}{
		{Constant(-1).Validate(), "-1ns is not allowed; use 0s to 1h0m0s"},
		{Constant(2 * time.Hour).Validate(), "2h0m0s is not allowed"},
		{LogNormal{0, ms}.Validate(), "p50: 0s is not allowed"},
		{LogNormal{ms, ms / 2}.Validate(), "p99: 500µs is less than p50, 1ms"},
		{LogNormal{ms, 2 * time.Hour}.Validate(), "p99: 2h0m0s"},
		{Gamma{0, 1}.Validate(), "mean: 0s"},
		{Gamma{ms, 0}.Validate(), "shape: 0 is not allowed; use 0.05 to 10000"},
		{Gamma{ms, nan}.Validate(), "shape: NaN"},
		{table(nil), "0 quantiles are not a table"},
		{table(map[float64]time.Duration{.5: ms}), "1 quantiles are not a table; give 2 to 64"},
		{table(many), "65 quantiles"},
		{table(map[float64]time.Duration{0: ms, .5: ms}), "p0 is not a quantile; use more than 0 and less than 1"},
		{table(map[float64]time.Duration{.5: ms, 1: ms}), "p1 is not a quantile"},
		{table(map[float64]time.Duration{.5: ms, nan: ms}), "pNaN is not a quantile"},
		{table(map[float64]time.Duration{.5: ms, 50: ms}), "p50 is not a quantile"},
		{table(map[float64]time.Duration{.5: 0, .99: ms}), "p50: 0s is not allowed; use 1ns to 1h0m0s"},
		{table(map[float64]time.Duration{.5: 2 * ms, .999: ms}), "p99.9: 1ms is less than 2ms at p50"},
		{trace(), "a trace of 0 durations"},
		{trace(ms, -ms), "[1]: -1ms is not allowed"},
	} {
		if tc.err == nil || !strings.Contains(tc.err.Error(), tc.says) {
			t.Errorf("got %v; want %q", tc.err, tc.says)
		}
	}
}

// The form in which a Mock samples is the same distribution.
func TestTablesAreTheirDistributions(t *testing.T) {
	for name, d := range map[string]Quantiler{
		"lognormal": LogNormal{14600 * time.Microsecond, 38700 * time.Microsecond}, "wide": LogNormal{ms, 1000 * ms}, "gpt-4o": mustQuantiles(t, published["gpt-4o"]),
		"step": mustQuantiles(t, published["with a step"]), "flat": mustQuantiles(t, published["flat"]), "nanoseconds": LogNormal{3, 40},
	} {
		quick, exact := quick(d).(*table), 0
		for i := range 20_000 {
			u := (float64(i) + .5) / 20_000
			a, b := float64(d.Quantile(u)), float64(quick.Quantile(u))
			if math.Abs(a-b) > 1.5e-4*a+1.5 {
				t.Fatalf("%s: %g is %v in the table; want %v", name, u, b, a)
			}
		}
		for _, c := range quick.cells {
			if c.exact {
				exact++
			}
		}
		if exact > cells/3 {
			t.Errorf("%s: %d of %d cells are not linear", name, exact, cells)
		}
	}
}

func BenchmarkSample(b *testing.B) {
	trace, _ := NewTrace([]time.Duration{ms, 2 * ms, 3 * ms})
	for _, bc := range []struct {
		name string
		d    Distribution
	}{
		{"constant", Constant(ms)}, {"lognormal", LogNormal{14600 * time.Microsecond, 38700 * time.Microsecond}}, {"gamma", Gamma{20 * ms, 3}},
		{"quantiles", mustQuantiles(b, published["gpt-4o"])}, {"trace", trace},
	} {
		b.Run(bc.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			var sum time.Duration
			d := quick(bc.d)
			for b.Loop() {
				sum += d.Sample(r)
			}
			_ = sum
		})
	}
}

func BenchmarkTabulate(b *testing.B) {
	for _, shape := range []float64{LeastShape, 3, LargestShape} {
		b.Run(fmt.Sprint(shape), func(b *testing.B) {
			for b.Loop() {
				quick(Gamma{20 * ms, shape})
			}
		})
	}
}
