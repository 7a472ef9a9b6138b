package llmmock

import (
	"math"
	"math/rand/v2"
	"time"
)

// gammaQuantile is the quantile of the gamma distribution of that shape and scale 1, at the place that z has in the standard
// normal distribution. Taking z and not a probability keeps both tails exact.
func gammaQuantile(z, shape float64) float64 {
	upper := z > 0
	p := math.Erfc(math.Abs(z)/math.Sqrt2) / 2 // of what lies beyond, which is the smaller part
	logGamma, _ := math.Lgamma(shape)

	// Wilson and Hilferty's approximation, and where that fails the first term of the series.
	w := 1 - 1/(9*shape) + z/(3*math.Sqrt(shape))
	y := math.Log(shape) + 3*math.Log(max(w, 1e-300))
	if w < 0.2 {
		lower := p
		if upper {
			lower = 1 - p
		}
		y = (math.Log(lower) + logGamma + math.Log(shape)) / shape
	}

	// Newton's method on log x, kept between bounds that close in, for the shares are steep at one end and flat at the other.
	low, high := math.Inf(-1), math.Inf(1)
	for range 100 {
		if y < -690 { // less than any duration
			return 0
		}
		x := math.Exp(y)
		lower, above := incompleteGamma(shape, x, logGamma)
		var miss float64 // relative to p, positive when x is too large
		if upper {
			miss = (p - above) / p
		} else {
			miss = (lower - p) / p
		}
		if miss > 0 {
			high = min(high, y)
		} else {
			low = max(low, y)
		}
		slope := math.Exp(shape*y-x-logGamma) / p
		next := y - miss/slope
		if !(next > low && next < high) {
			switch {
			case math.IsInf(low, -1):
				next = y - 1
			case math.IsInf(high, 1):
				next = y + 1
			default:
				next = (low + high) / 2
			}
		}
		if math.Abs(next-y) < 1e-12*max(1, math.Abs(y)) {
			return math.Exp(next)
		}
		y = next
	}
	return math.Exp(y)
}

// incompleteGamma is the regularised incomplete gamma function: the share of the gamma distribution below x, and that above
// (Abramowitz and Stegun, 6.5.29 and 6.5.31).
func incompleteGamma(shape, x, logGamma float64) (lower, upper float64) {
	if x <= 0 {
		return 0, 1
	}
	const terms, enough = 100_000, 1e-16
	front := math.Exp(shape*math.Log(x) - x - logGamma)
	if x < shape+1 {
		term := 1 / shape
		sum := term
		for n := 1.; n < terms && term > sum*enough; n++ {
			term *= x / (shape + n)
			sum += term
		}
		lower = min(front*sum, 1)
		return lower, 1 - lower
	}
	// The continued fraction, evaluated from the front (Lentz).
	const tiny = 1e-300
	b := x + 1 - shape
	c, d := 1/tiny, 1/b
	h := d
	for n := 1.; n < terms; n++ {
		a := -n * (n - shape)
		b += 2
		d = a*d + b
		if math.Abs(d) < tiny {
			d = tiny
		}
		c = b + a/c
		if math.Abs(c) < tiny {
			c = tiny
		}
		d = 1 / d
		h *= d * c
		if math.Abs(d*c-1) < enough {
			break
		}
	}
	upper = min(front*h, 1)
	return 1 - upper, upper
}

// gammaTable is a Gamma whose quantiles were computed beforehand, at even distances of the normal distribution's; between them the
// logarithm is linear.
type gammaTable [gammaSize + 1]float64

// The table reaches as far as uniform does.
const (
	gammaSize = 512
	gammaEnd  = 8.3
	gammaStep = 2 * gammaEnd / gammaSize
)

func newGammaTable(g Gamma) *gammaTable {
	t := new(gammaTable)
	for i := range t {
		x := gammaQuantile(float64(i)*gammaStep-gammaEnd, g.Shape) / g.Shape * float64(g.Mean)
		t[i] = math.Log(max(x, 1e-3)) // a thousandth of a nanosecond is none
	}
	return t
}

// Sample implements Distribution.
func (t *gammaTable) Sample(r *rand.Rand) time.Duration { return t.Quantile(uniform(r)) }

// Quantile implements Quantiler.
func (t *gammaTable) Quantile(u float64) time.Duration {
	at := (min(max(probit(u), -gammaEnd), gammaEnd) + gammaEnd) / gammaStep
	i := min(int(at), gammaSize-1)
	return nanoseconds(math.Exp(t[i] + (at-float64(i))*(t[i+1]-t[i])))
}
