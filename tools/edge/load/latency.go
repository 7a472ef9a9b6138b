package load

import (
	"encoding/json"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// A Histogram counts latencies in bins whose width is at most 1/32 of their value, from 1 µs to 2 min, so that a quantile is
// right to 1.6 %. It is small because there is one for each slice of time: which slices belong to "before" and "during" is known
// only after the run.
type Histogram struct {
	bins []uint32
}

const (
	subBits = 5
	maxBits = 27 // 2^27 µs are 134 s
	numBins = (maxBits-subBits+1)<<subBits + 1
)

func bin(d time.Duration) int {
	us := uint64(max(d, 0)) / 1000
	if us >= 1<<maxBits {
		return numBins - 1
	}
	if us < 1<<subBits {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return (shift+1)<<subBits + int(us>>shift) - 1<<subBits
}

// value is the middle of a bin.
func value(bin int) time.Duration {
	if bin < 1<<subBits {
		return time.Duration(bin)*time.Microsecond + 500
	}
	shift := bin>>subBits - 1
	low := uint64(bin&(1<<subBits-1)+1<<subBits) << shift
	return time.Duration(low)*time.Microsecond + time.Microsecond<<shift/2
}

func (h *Histogram) record(d time.Duration) {
	if h.bins == nil {
		h.bins = make([]uint32, numBins)
	}
	h.bins[bin(d)]++
}

// Add adds o's counts.
func (h *Histogram) Add(o *Histogram) {
	if o.bins == nil {
		return
	}
	if h.bins == nil {
		h.bins = make([]uint32, numBins)
	}
	for i, n := range o.bins {
		h.bins[i] += n
	}
}

// Count is the number of latencies.
func (h *Histogram) Count() int64 {
	var n int64
	for _, b := range h.bins {
		n += int64(b)
	}
	return n
}

// Quantile returns the latency that the share q (0 to 1) of all does not exceed; false when there is none.
func (h *Histogram) Quantile(q float64) (time.Duration, bool) {
	total := h.Count()
	if total == 0 {
		return 0, false
	}
	rank := max(1, int64(q*float64(total)+0.999999))
	for i, n := range h.bins {
		if rank -= int64(n); rank <= 0 {
			return value(i), true
		}
	}
	return value(numBins - 1), true
}

// MarshalJSON writes the bins that are not empty, as [bin, count] pairs.
func (h Histogram) MarshalJSON() ([]byte, error) {
	pairs := [][2]uint32{}
	for i, n := range h.bins {
		if n > 0 {
			pairs = append(pairs, [2]uint32{uint32(i), n})
		}
	}
	return json.Marshal(pairs)
}

// UnmarshalJSON reads what MarshalJSON wrote; pairs with a bin that does not exist are an error.
func (h *Histogram) UnmarshalJSON(text []byte) error {
	var pairs [][2]uint32
	if err := json.Unmarshal(text, &pairs); err != nil {
		return err
	}
	h.bins = nil
	for _, p := range pairs {
		if p[0] >= numBins {
			return &json.UnmarshalTypeError{Value: "bin number", Type: nil}
		}
		if h.bins == nil {
			h.bins = make([]uint32, numBins)
		}
		h.bins[p[0]] += p[1]
	}
	return nil
}

// maxBuckets bounds every series over time. A series that would get longer is folded: two neighbours become one, and the
// buckets twice as wide. At 100 ms that happens after 10 minutes.
const maxBuckets = 6000

// bucketWidth is the first width.
const bucketWidth = 100 * time.Millisecond

// latencies is a histogram for each slice of the run, by the time at which the request was to be sent.
type latencies struct {
	mu     sync.Mutex
	width  time.Duration
	slices []Histogram
}

func (l *latencies) record(intended, latency time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := int(intended / l.width)
	for i >= maxBuckets {
		l.fold()
		i = int(intended / l.width)
	}
	if i >= len(l.slices) {
		l.slices = slices.Grow(l.slices, i+1-len(l.slices))[:i+1]
	}
	l.slices[i].record(latency)
}

func (l *latencies) fold() {
	half := (len(l.slices) + 1) / 2
	for i := range half {
		h := l.slices[2*i]
		if 2*i+1 < len(l.slices) {
			h.Add(&l.slices[2*i+1])
		}
		l.slices[i] = h
	}
	clear(l.slices[half:])
	l.slices = l.slices[:half]
	l.width *= 2
}
