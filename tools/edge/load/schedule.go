package load

import (
	"math"
	"math/rand/v2"
	"time"
)

// schedule says when requests are to be sent, as times since the start. It depends on its seed and its rate alone: nothing that
// happens to a request moves a later one.
type schedule struct {
	gap     float64 // mean nanoseconds between two
	poisson bool
	rng     *rand.Rand
	at      float64
}

// never is later than any run lasts.
const never = time.Duration(math.MaxInt64)

func newSchedule(rate float64, arrivals Arrivals, seed uint64) *schedule {
	s := &schedule{poisson: arrivals == Poisson, rng: rand.New(rand.NewPCG(seed, 0x5ced))}
	if rate > 0 {
		s.gap = float64(time.Second) / rate
	}
	// The first one is somewhere in the first gap, so that targets do not march in step.
	s.at = -s.gap * s.rng.Float64()
	return s
}

// next is not earlier than the one before.
func (s *schedule) next() time.Duration {
	if s.gap == 0 {
		return never
	}
	if s.poisson {
		s.at = max(s.at, 0) + s.gap*s.rng.ExpFloat64()
	} else {
		s.at += s.gap
	}
	return time.Duration(s.at)
}
