package edge_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edge"
)

func TestParseFault(t *testing.T) {
	for text, want := range map[string]edge.Fault{
		"":                                   {},
		"ratio=0.3,status=500":               {Ratio: 0.3, Status: 500},
		"ratio=0.3, status=500, after=0s":    {Ratio: 0.3, Status: 500},
		"ratio=1,latency=200ms":              {Ratio: 1, Latency: 200 * time.Millisecond},
		"ratio=0":                            {},
		"status=503,ratio=1,after=1m,seed=9": {Ratio: 1, Status: 503, After: time.Minute, Seed: 9},
	} {
		got, err := edge.ParseFault(text)
		if err != nil || got != want {
			t.Errorf("%q = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, field := range map[string]string{
		"ratio":                       "fault",
		"ratio=2,status=500":          "fault.ratio",
		"ratio=-1,status=500":         "fault.ratio",
		"ratio=NaN,status=500":        "fault.ratio",
		"ratio=0.5":                   "fault.status",
		"ratio=0.5,status=600":        "fault.status",
		"ratio=0.5,status=abc":        "fault.status",
		"status=500":                  "fault.ratio",
		"ratio=1,latency=2h":          "fault.latency",
		"ratio=1,status=500,after=-1": "fault.after",
		"ratio=1,ratio=1,status=500":  "fault.ratio",
		"ratio=1,speed=9":             "fault",
	} {
		_, err := edge.ParseFault(text)
		if problem.KindOf(err) != problem.Invalid || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%q: %v; want an invalid %s", text, err, field)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	f.Add("ratio=0.3,status=500,latency=1ms,after=1s,seed=1")
	f.Add("ratio=1e-3,latency=1h")
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := edge.ParseFault(text)
		if err != nil {
			return
		}
		if again, err := edge.ParseFault(fault.String()); err != nil || again != fault {
			t.Errorf("%q is %+v, and printed as %q it is %+v, %v", text, fault, fault.String(), again, err)
		}
	})
}

// TestFaultRatio: the share that is hit is the ratio, and it depends on the seed and the counter alone.
func TestFaultRatio(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := edge.Fault{Ratio: rapid.Float64Range(0, 1).Draw(t, "ratio"), Status: 500, Seed: rapid.Uint64().Draw(t, "seed")}
		const n = 20_000
		hits := 0
		for i := range uint64(n) {
			hit := f.Hits(i)
			if hit {
				hits++
			}
			if f.Hits(i) != hit {
				t.Fatal("the same request is hit and not hit")
			}
		}
		if got := float64(hits) / n; math.Abs(got-f.Ratio) > 0.02 {
			t.Errorf("%v of the requests were hit, want %v", got, f.Ratio)
		}
	})
}
