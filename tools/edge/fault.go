package edge

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
)

// Fault is what is wrong with a bad release. The zero Fault is none.
type Fault struct {
	// Ratio of the requests that it hits, 0 to 1.
	Ratio float64
	// Status is the answer to a request that it hits, 200 to 599; 0 leaves the answer as it is, only late and marked.
	Status int
	// Latency is waited before a request that it hits is answered, at most MaxFaultLatency.
	Latency time.Duration
	// After is the time from when the fault was set, in which it hits nothing: a release that goes bad later.
	After time.Duration
	// Seed selects which requests are hit. The same seed hits the same ones.
	Seed uint64
}

// MaxFaultLatency bounds how long a request can be held, and so how many are held at once.
const MaxFaultLatency = time.Minute

// ParseFault reads "ratio=0.3,status=500,latency=200ms,after=10s,seed=7". Every part is optional but for ratio, unless the
// text is empty, which is no fault. Errors are problem.Invalid and name the part.
func ParseFault(text string) (Fault, error) {
	var f Fault
	if strings.TrimSpace(text) == "" {
		return f, nil
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return Fault{}, problem.Invalidf("fault", "%q is not of the form key=value; an example is \"ratio=0.3,status=500\"", part)
		}
		if seen[key] {
			return Fault{}, problem.Invalidf("fault."+key, "is given twice")
		}
		seen[key] = true
		var err error
		switch key {
		case "ratio":
			f.Ratio, err = strconv.ParseFloat(value, 64)
		case "status":
			f.Status, err = strconv.Atoi(value)
		case "latency":
			f.Latency, err = time.ParseDuration(value)
		case "after":
			f.After, err = time.ParseDuration(value)
		case "seed":
			f.Seed, err = strconv.ParseUint(value, 10, 64)
		default:
			return Fault{}, problem.Invalidf("fault", "%q is not known; use ratio, status, latency, after or seed", key)
		}
		if err != nil {
			return Fault{}, problem.Invalidf("fault."+key, "%q cannot be read; an example is \"ratio=0.3,status=500,latency=200ms,after=10s,seed=7\"", value)
		}
	}
	if !seen["ratio"] {
		return Fault{}, problem.Invalidf("fault.ratio", "is missing from %q; give the share of requests to hit, 0 to 1", text)
	}
	return f, f.Validate()
}

// Validate says which part is out of its range.
func (f Fault) Validate() error {
	switch {
	case math.IsNaN(f.Ratio) || f.Ratio < 0 || f.Ratio > 1:
		return problem.Invalidf("fault.ratio", "%v is not allowed; use 0 to 1", f.Ratio)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return problem.Invalidf("fault.status", "%d is not allowed; use 200 to 599, or leave it out", f.Status)
	case f.Latency < 0 || f.Latency > MaxFaultLatency:
		return problem.Invalidf("fault.latency", "%v is not allowed; use 0s to %v", f.Latency, MaxFaultLatency)
	case f.After < 0:
		return problem.Invalidf("fault.after", "%v is not allowed; use 0s or more", f.After)
	case f.Ratio > 0 && f.Status == 0 && f.Latency == 0:
		return problem.Invalidf("fault.status", "is missing: a fault without status and latency changes nothing")
	}
	return nil
}

// Hits says whether the n-th request since the fault came into force is hit. It depends on Ratio, Seed and n alone, so a run
// can be repeated; over many n the share that is hit is Ratio.
func (f Fault) Hits(n uint64) bool {
	if f.Ratio <= 0 {
		return false
	}
	// SplitMix64: neighbouring counters give unrelated numbers, so that hits do not come in a rhythm with the load.
	z := f.Seed + n*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11)/(1<<53) < f.Ratio
}

// String is the form that ParseFault reads.
func (f Fault) String() string {
	if f == (Fault{}) {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ratio=%s", strconv.FormatFloat(f.Ratio, 'g', -1, 64))
	if f.Status != 0 {
		fmt.Fprintf(&b, ",status=%d", f.Status)
	}
	if f.Latency != 0 {
		fmt.Fprintf(&b, ",latency=%v", f.Latency)
	}
	if f.After != 0 {
		fmt.Fprintf(&b, ",after=%v", f.After)
	}
	if f.Seed != 0 {
		fmt.Fprintf(&b, ",seed=%d", f.Seed)
	}
	return b.String()
}
