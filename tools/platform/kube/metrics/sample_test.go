package metrics

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
		problem    string
	}{
		{"a gauge keeps its name", "# TYPE edge_connections_open gauge\nedge_connections_open 3\n", []string{"edge_connections_open{} 3"}, ""},
		{"a counter becomes a rate", "# TYPE edge_requests_total counter\nedge_requests_total{code=\"200\"} 7\n",
			[]string{"edge_requests_per_second{code=200} 7 counter"}, ""},
		{"a counter without the suffix", "# TYPE hits counter\nhits 7\n", []string{"hits_per_second{} 7 counter"}, ""},
		{"untyped is as it is", "edge_temperature 21.5\n", []string{"edge_temperature{} 21.5"}, ""},
		{"a histogram has a count and a sum", "# TYPE d histogram\nd_bucket{le=\"1\"} 2\nd_bucket{le=\"+Inf\"} 3\nd_sum 4\nd_count 3\n",
			[]string{"d_count_per_second{} 3 counter", "d_sum_per_second{} 4 counter"}, ""},
		{"a summary too", "# TYPE d summary\nd{quantile=\"0.5\"} 2\nd_sum 4\nd_count 3\n",
			[]string{"d_count_per_second{} 3 counter", "d_sum_per_second{} 4 counter"}, ""},
		{"what is not finite is left out", "a NaN\nb +Inf\nc -Inf\nd 1\n", []string{"d{} 1"}, ""},
		{"nothing", "", nil, ""},
		{"another format", "<html></html>\n", nil, "not in the Prometheus text format"},
		{"cut short", "a{b=\"c", nil, "not in the Prometheus text format"},
		{"too many series", "a 1\nb 2\nc 3\nd 4\n", nil, "more than 3 series"},
		{"too large", strings.Repeat("# a comment that is long enough for that\n", 30), nil, "larger than 1000 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			readings, err := parse(strings.NewReader(test.text), 1000, 3)
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("error %v, want %q", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range readings {
				line := fmt.Sprintf("%s{%s} %v", r.metric, r.labels, r.value)
				if r.counter {
					line += " counter"
				}
				got = append(got, line)
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"# TYPE a counter\na_total{b=\"c\"} 1 1700000000000\n", "# HELP a b\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
		"# TYPE a summary\na{quantile=\"0.5\"} 1\n", "a 1e309\n", "{\"a.b\",c=\"d\"} 1\n", "a{", "\x00\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		const maxBytes, maxSeries = 4096, 64
		readings, err := parse(strings.NewReader(string(text)), maxBytes, maxSeries)
		if err != nil {
			return
		}
		if len(text) > maxBytes || len(readings) > maxSeries {
			t.Fatalf("%d series of %d bytes", len(readings), len(text))
		}
		h := history{window: 5 * time.Second}
		start := time.Unix(1_700_000_000, 0)
		h.add(start, readings)
		h.add(start.Add(time.Second), readings)
		for _, name := range h.metrics() {
			v, err := h.value(name, labels.Everything())
			if err != nil || math.IsNaN(v.number) {
				t.Fatalf("%q: %v, %v", name, v, err)
			}
		}
	})
}

func TestRates(t *testing.T) {
	type scrape struct {
		second float64
		series map[string]float64 // by the value of the label code
	}
	one := func(second, value float64) scrape { return scrape{second, map[string]float64{"200": value}} }
	for _, test := range []struct {
		name     string
		scrapes  []scrape
		selector string
		want     float64 // NaN: none
		window   time.Duration
	}{
		{"none before the first", nil, "", math.NaN(), 0},
		{"one sample is no rate, and not zero", []scrape{one(0, 100)}, "", math.NaN(), 0},
		{"two are", []scrape{one(0, 100), one(1, 150)}, "", 50, time.Second},
		{"nothing happened, which is zero", []scrape{one(0, 100), one(1, 100)}, "", 0, time.Second},
		{"over the window only", []scrape{one(0, 0), one(1, 1000), one(2, 1010), one(3, 1020), one(4, 1030), one(5, 1040), one(6, 1050)}, "", 10, 5 * time.Second},
		{"over a gap", []scrape{one(0, 0), one(60, 600)}, "", 10, time.Minute},
		{"a reset loses nothing that was counted since", []scrape{one(0, 1000), one(1, 1010), one(2, 4)}, "", 7, 2 * time.Second},
		{"a reset to zero", []scrape{one(0, 1000), one(1, 0)}, "", 0, time.Second},
		{"the series are summed", []scrape{{0, map[string]float64{"200": 0, "500": 0}}, {1, map[string]float64{"200": 30, "500": 3}}}, "", 33, time.Second},
		{"those that match", []scrape{{0, map[string]float64{"200": 0, "500": 0}}, {1, map[string]float64{"200": 30, "500": 3}}}, "code=500", 3, time.Second},
		{"none matches", []scrape{one(0, 0), one(1, 30)}, "code=500", math.NaN(), 0},
		{"a new series counts from its second sample", []scrape{one(0, 0), {1, map[string]float64{"200": 30, "500": 1000}}}, "", 30, time.Second},
		{"a series that went is forgotten", []scrape{{0, map[string]float64{"200": 0, "500": 0}}, {1, map[string]float64{"200": 30, "500": 3}}, one(2, 60)}, "", 30, 2 * time.Second},
		{"time that stands still or goes back", []scrape{one(5, 0), one(6, 30), one(6, 100), one(2, 200)}, "", 30, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := time.Unix(1_700_000_000, 0)
			h := history{window: 5 * time.Second}
			for _, s := range test.scrapes {
				var readings []reading
				for code, value := range s.series {
					readings = append(readings, reading{metric: "r_per_second", labels: labels.Set{"code": code}, value: value, counter: true})
				}
				h.add(start.Add(time.Duration(s.second*float64(time.Second))), readings)
			}
			selector, err := labels.Parse(test.selector)
			if err != nil {
				t.Fatal(err)
			}
			v, err := h.value("r_per_second", selector)
			if math.IsNaN(test.want) {
				if err == nil {
					t.Fatalf("got %v, want none", v.number)
				}
				return
			}
			if err != nil || math.Abs(v.number-test.want) > 1e-9 || v.window != test.window {
				t.Fatalf("got %v over %s, %v; want %v over %s", v.number, v.window, err, test.want, test.window)
			}
		})
	}
}

func TestGauges(t *testing.T) {
	h := history{window: 5 * time.Second}
	at := time.Unix(1_700_000_000, 0)
	open := func(pool string, value float64) reading {
		return reading{metric: "open", labels: labels.Set{"pool": pool}, value: value}
	}
	h.add(at, []reading{open("a", 1), open("b", 2), {metric: "open", labels: labels.Set{"pool": "c"}, value: 9, counter: true}})
	h.add(at.Add(time.Second), []reading{open("a", 3), open("b", 4), {metric: "open", labels: labels.Set{"pool": "c"}, value: 99, counter: true}})
	v, err := h.value("open", labels.Everything())
	if err != nil || v.number != 7 || v.window != 0 || !v.at.Equal(at.Add(time.Second)) {
		t.Errorf("%+v, %v; want the sum of the last gauges", v, err)
	}
	if len(h.series) != 3 {
		t.Errorf("%d series", len(h.series))
	}
}

// However a counter is reset and however late scrapes are: its rate is never negative, and what is kept is bounded.
func TestRateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := history{window: 5 * time.Second}
		at := time.Unix(1_700_000_000, 0)
		for range rapid.IntRange(0, 40).Draw(t, "scrapes") {
			at = at.Add(time.Duration(rapid.IntRange(-1000, 3000).Draw(t, "ms")) * time.Millisecond)
			h.add(at, []reading{{metric: "r", value: rapid.Float64Range(0, 1e12).Draw(t, "value"), counter: true}})
		}
		for _, s := range h.series {
			oldest := s.points[0].at
			if len(s.points) > 2 && h.last.Sub(oldest) > h.window {
				t.Fatalf("%d points since %s", len(s.points), h.last.Sub(oldest))
			}
		}
		if v, err := h.value("r", labels.Everything()); err == nil && v.number < 0 {
			t.Fatalf("a negative rate: %v", v.number)
		}
	})
}
