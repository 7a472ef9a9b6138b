package llmmock

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSchedule(t *testing.T) {
	trace, err := NewTrace([]time.Duration{ms, 2 * ms, 3 * ms, 4 * ms})
	if err != nil {
		t.Fatal(err)
	}
	at := func(occurrence uint64) Moment {
		return Moment{Seed: 1, Scenario: "s", Request: 7, Occurrence: occurrence}
	}
	schedule := func(l Latency, m Moment, prompt, n int, factor float64) Schedule {
		p := newLatency(&l)
		return p.schedule(m, prompt, n, factor)
	}
	t.Run("nothing takes no time", func(t *testing.T) {
		if s := schedule(Latency{}, at(0), 1000, 50, 3); s.First != 0 || s.Whole(50) != 0 || s.Gaps != nil {
			t.Errorf("%+v", s)
		}
	})
	t.Run("prefill counts the prompt", func(t *testing.T) {
		s := schedule(Latency{FirstToken: Constant(100 * ms), Prefill: ms / 10, InterToken: Constant(10 * ms)}, at(0), 2000, 11, 1)
		if s.First != 300*ms || s.Whole(11) != 400*ms || s.Whole(1) != 300*ms || len(s.Gaps) != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a factor stretches everything", func(t *testing.T) {
		s := schedule(Latency{FirstToken: Constant(100 * ms), Prefill: ms, InterToken: Constant(10 * ms)}, at(0), 20, 11, 2.5)
		if s.First != 300*ms || s.Whole(11) != 550*ms {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a total is met exactly", func(t *testing.T) {
		l := Latency{FirstToken: Constant(100 * ms), InterToken: LogNormal{10 * ms, 90 * ms}, Total: Constant(777777777)}
		s := schedule(l, at(0), 0, 123, 1)
		if s.First != 100*ms || s.Whole(123) != 777777777 || len(s.Gaps) != 122 {
			t.Errorf("first %s, whole %s of %d gaps", s.First, s.Whole(123), len(s.Gaps))
		}
		free := schedule(Latency{FirstToken: l.FirstToken, InterToken: l.InterToken}, at(0), 0, 123, 1)
		share := float64(777777777-100*ms) / float64(free.Whole(123)-100*ms)
		for i, g := range s.Gaps {
			if off := float64(g) - share*float64(free.Gaps[i]); off > 2 || off < -2 {
				t.Errorf("gap %d is %s; want %g of %s", i, g, share, free.Gaps[i])
			}
		}
	})
	t.Run("a total without gaps is even", func(t *testing.T) {
		s := schedule(Latency{Total: Constant(100 * ms)}, at(0), 0, 5, 1)
		if s.First != 0 || fmt.Sprint(s.Gaps) != "[25ms 25ms 25ms 25ms]" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a total shorter than the first token holds", func(t *testing.T) {
		if s := schedule(Latency{FirstToken: Constant(time.Second), Total: Constant(ms)}, at(0), 0, 5, 1); s.First != ms || s.Whole(5) != ms {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a total is that of one token too", func(t *testing.T) {
		if s := schedule(Latency{FirstToken: Constant(ms), Total: Constant(time.Second)}, at(0), 0, 1, 1); s.First != time.Second {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a replayed trace keeps its order", func(t *testing.T) {
		l := Latency{FirstToken: trace.Replayed(), InterToken: trace.Replayed()}
		for i := range uint64(6) {
			s := schedule(l, at(i), 0, 9, 1)
			if s.First != trace.at(i) {
				t.Errorf("occurrence %d comes after %s; want %s", i, s.First, trace.at(i))
			}
			for j := 1; j < len(s.Gaps); j++ {
				if want := s.Gaps[j-1]%(4*ms) + ms; s.Gaps[j] != want {
					t.Errorf("%v is not the trace's order", s.Gaps)
					break
				}
			}
		}
	})
	t.Run("more tokens than are drawn", func(t *testing.T) {
		s := schedule(Latency{InterToken: LogNormal{ms, 2 * ms}}, at(0), 0, MaxPieces, 1)
		if len(s.Gaps) != longestSchedule || s.Whole(MaxPieces) < time.Duration(MaxPieces)*ms/4 {
			t.Errorf("%d gaps, whole after %s", len(s.Gaps), s.Whole(MaxPieces))
		}
	})
	t.Run("longer answers begin like shorter ones", func(t *testing.T) {
		l := Latency{FirstToken: LogNormal{100 * ms, 900 * ms}, InterToken: LogNormal{10 * ms, 90 * ms}}
		short, long := schedule(l, at(0), 0, 10, 1), schedule(l, at(0), 0, 100, 1)
		if short.First != long.First || fmt.Sprint(short.Gaps) != fmt.Sprint(long.Gaps[:9]) {
			t.Errorf("%+v and %+v", short, long)
		}
	})
}

func TestTotalsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gaps := make([]time.Duration, rapid.IntRange(0, 40).Draw(t, "gaps"))
		for i := range gaps {
			gaps[i] = time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, fmt.Sprint(i)))
		}
		n, total := rapid.IntRange(1, 60).Draw(t, "n"), time.Duration(rapid.Int64Range(0, int64(Longest)).Draw(t, "total"))
		s := Schedule{Gaps: stretch(gaps, n, total)}
		if got := s.Whole(n + 1); got != total {
			t.Errorf("%s; want %s", got, total)
		}
		for _, g := range s.Gaps {
			if g < 0 {
				t.Errorf("a gap of %s", g)
			}
		}
	})
}

func TestLoadAndShape(t *testing.T) {
	load := Load{Free: 10, Factor: 0.5}
	for underWay, want := range map[int64]float64{0: 1, 10: 1, 11: 1.05, 20: 1.5, 40: 2.5} {
		if got := load.factor(underWay); got != want {
			t.Errorf("%d under way: %g; want %g", underWay, got, want)
		}
	}
	if (Load{}).factor(1_000_000) != 1 {
		t.Error("no load slows")
	}
	shape := []Point{{At: 10 * time.Second, Factor: 3}, {At: 20 * time.Second, Factor: 3}, {At: 30 * time.Second, Factor: 1, Step: true}, {At: 40 * time.Second, Factor: 5}}
	for at, want := range map[time.Duration]float64{-time.Second: 1, 0: 1, 5 * time.Second: 2, 10 * time.Second: 3, 15 * time.Second: 3, 29 * time.Second: 3,
		30 * time.Second: 1, 35 * time.Second: 3, 40 * time.Second: 5, time.Hour: 5} {
		if got := shapeAt(shape, at); got != want {
			t.Errorf("at %s: %g; want %g", at, got, want)
		}
	}
	if shapeAt(nil, time.Hour) != 1 || shapeAt([]Point{{Factor: 4}}, 0) != 4 {
		t.Error("without points, or with one at the start")
	}
}

// Equal times are described alike, however they are written, and others are not.
func TestDescribe(t *testing.T) {
	one := Schedule{First: 5 * ms, Gaps: []time.Duration{ms, 2 * ms}}
	if got, want := one.Describe(4), "first=5ms; last=10ms; tokens=4; hash="; !strings.HasPrefix(got, want) || len(got) != len(want)+16 {
		t.Errorf("%q, want %q and a hash", got, want)
	}
	if same := (&Schedule{First: 5 * ms, Gaps: []time.Duration{ms, 2 * ms, 2 * ms, 9 * ms}}); same.Describe(4) != one.Describe(4) {
		t.Errorf("%q and %q", same.Describe(4), one.Describe(4))
	}
	// The first and the last are the same, and what is between is not.
	if other := (&Schedule{First: 5 * ms, Gaps: []time.Duration{2 * ms, ms, 2 * ms}}); other.Describe(4) == one.Describe(4) {
		t.Errorf("both are %q", other.Describe(4))
	}
}
