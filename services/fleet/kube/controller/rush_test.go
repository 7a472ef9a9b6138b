package controller

import (
	"testing"
	"time"
)

// How long the record of a switch waits, in ms: the switches of other PoPs are seen at the instants given, and the record is asked for
// at the last of them.
func TestRecordsWaitForTheEndOfARush(t *testing.T) {
	for name, tc := range map[string]struct {
		switches []int
		wait     int
	}{
		"the only one":           {[]int{1000}, 0},
		"a quick rush":           {[]int{1000, 1005, 1010}, 20 + 3*8},
		"a slow machine":         {[]int{1000, 1005, 1105}, 2 * 100},
		"the longest gap counts": {[]int{1000, 1090, 1095}, 2 * 90},
		"one after the other":    {[]int{1000, 2000, 3000}, 250},
		"many":                   {[]int{1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007}, 20 + 8*8},
		"another rush, long after the one before": {[]int{1000, 1100, 7000, 7001}, 20 + 2*8},
	} {
		r := &reconciler{}
		var by, now time.Duration
		for _, ms := range tc.switches {
			now = time.Duration(ms) * time.Millisecond
			by = r.turned(now)
		}
		if got := max(r.crowded(by, now), 0); got != time.Duration(tc.wait)*time.Millisecond {
			t.Errorf("%s: the record waits %v, not %d ms", name, got, tc.wait)
		}
	}
	r := &reconciler{}
	var by time.Duration
	for ms := range 6000 {
		now := time.Duration(1000+ms) * time.Millisecond
		if other := r.turned(now); ms == 1 {
			by = other
		}
		if ms > 1 && now > by && r.crowded(by, now) > 0 {
			t.Fatalf("a rush without end holds a record up for longer than %v", recordLatest)
		}
	}
}
