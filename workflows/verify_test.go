package workflows

import (
	"slices"
	"testing"
	"time"
)

func TestVerify(t *testing.T) {
	at := noon.Add(time.Minute)
	pops := []SwitchedPop{{"fra1", noon}, {"gru1", noon}}
	measure := func(requests int64, ratio float64, window time.Duration) Traffic {
		return Traffic{Requests: requests, ErrorRatio: ratio, Window: window, At: at}
	}
	for name, c := range map[string]struct {
		traffic map[string]Traffic
		ratio   float64
		passed  bool
		unknown []string
	}{
		"weighed by requests":          {map[string]Traffic{"fra1": measure(900, 0, time.Second), "gru1": measure(100, 0.05, time.Second)}, 0.005, true, nil},
		"above the limit":              {map[string]Traffic{"fra1": measure(100, 0, time.Second), "gru1": measure(100, 0.05, time.Second)}, 0.025, false, nil},
		"one does not tell":            {map[string]Traffic{"fra1": measure(100, 0, time.Second)}, 0, false, []string{"gru1"}},
		"one has no traffic":           {map[string]Traffic{"fra1": measure(100, 0, time.Second), "gru1": measure(0, 0, time.Second)}, 0, false, []string{"gru1"}},
		"the window is from before it": {map[string]Traffic{"fra1": measure(100, 0, time.Second), "gru1": measure(9, 0, time.Hour)}, 0, false, []string{"gru1"}},
		"nobody tells":                 {nil, -1, false, []string{"fra1", "gru1"}},
	} {
		v := Verify(pops, c.traffic, 0.01, at)
		if (v.ErrorRatio == nil) != (c.ratio < 0) || v.ErrorRatio != nil && *v.ErrorRatio != c.ratio || v.Passed != c.passed || !slices.Equal(v.Unknown, c.unknown) {
			t.Errorf("%s: %v, %+v", name, v, v)
		}
	}
}

func TestDrained(t *testing.T) {
	open, none := int64(40), int64(0)
	running := PopCutover{Key: "k", From: Green, SwitchedAt: noon}
	rep := Drained(Report{Pop: "fra1"}, Observation{Green: &open, Blue: &none, Last: &running})
	if rep.Step != Draining || *rep.Open != 40 {
		t.Errorf("%+v", rep)
	}
	ended := running
	ended.Ended, ended.DrainedAt, ended.Left, ended.Message = true, noon, &open, "the deadline passed"
	if rep := Drained(rep, Observation{Last: &ended}); rep.Step != Done || rep.DrainedAt != noon || *rep.Open != 40 || rep.Message != ended.Message {
		t.Errorf("%+v", rep)
	}
	back := running
	back.Ended, back.Undone, back.Message = true, true, "blue failed"
	if rep := Drained(rep, Observation{Last: &back}); rep.Step != Broken || rep.Message != "blue failed" {
		t.Errorf("%+v", rep)
	}
}
