package llmmock

import (
	"math"
	"math/rand/v2"
	"time"
)

// table is a distribution in the form in which it is sampled for every token: its quantiles are linear in each of its cells but for
// those where that would be off by more than a ten-thousandth (or by a nanosecond), in the tails and at the knots of a table.
type table struct {
	of    Quantiler
	cells [cells]cell
}

// cell is from + rise × u in ns.
type cell struct {
	from, rise float64
	exact      bool // is asked of the distribution itself
}

const cells = 512

func tabulate(of Quantiler) *table {
	t := &table{of: of}
	const inside = 8 // places in a cell that are looked at
	for i := range t.cells {
		c := &t.cells[i]
		left, right := float64(i)/cells, float64(i+1)/cells
		if i == 0 || i == cells-1 {
			c.exact = true
			continue
		}
		a, b := float64(of.Quantile(left)), float64(of.Quantile(right))
		c.rise = (b - a) * cells
		c.from = a - c.rise*left
		for j := 1; j < inside && !c.exact; j++ {
			u := left + (right-left)*float64(j)/inside
			want := float64(of.Quantile(u))
			c.exact = math.Abs(c.from+c.rise*u-want) > max(want*1e-4, 1)
		}
	}
	return t
}

// Sample implements Distribution.
func (t *table) Sample(r *rand.Rand) time.Duration { return t.Quantile(uniform(r)) }

// Quantile implements Quantiler.
func (t *table) Quantile(u float64) time.Duration {
	c := &t.cells[int(u*cells)]
	if c.exact {
		return t.of.Quantile(u)
	}
	return max(time.Duration(c.from+c.rise*u+0.5), 0)
}

// quick is the distribution in the form in which a Mock samples it. Its quantiles are the same but for a ten-thousandth.
func quick(d Distribution) Distribution {
	switch d := d.(type) {
	case Gamma:
		return tabulate(newGammaTable(d))
	case LogNormal:
		return tabulate(d)
	case *Quantiles:
		return tabulate(d)
	}
	return d
}
