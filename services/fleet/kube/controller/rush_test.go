package controller

import (
	"testing"
	"time"
)

func TestTheAftermathOfASwitchWaitsForTheEndOfTheRush(t *testing.T) {
	const ms = time.Millisecond
	const quiet = rushQuiet + 7*rushGap
	var r rush
	if got := r.wait(aftermath{by: 1000*ms + rushLatest}, 1000*ms); got != 0 {
		t.Errorf("before the first switch it waits %v", got)
	}
	r.begin()
	first := r.end(1100*ms, 7)
	if got := r.wait(first, 1150*ms); got != quiet-50*ms {
		t.Errorf("50 ms after the switch it waits %v", got)
	}
	r.begin()
	if got := r.wait(first, 1390*ms); got != quiet {
		t.Errorf("while another selector is written it waits %v, not %v", got, quiet)
	}
	second := r.end(1400*ms, 7)
	if got := r.wait(first, 1400*ms); got != quiet {
		t.Errorf("another switch does not hold up what comes after the first: it waits %v", got)
	}
	if got := r.wait(second, 1400*ms+quiet); got != 0 {
		t.Errorf("after the quiet time it waits %v", got)
	}
	if got := r.wait(first, first.by-10*ms); got != 0 {
		t.Errorf("long after the rush it waits %v", got)
	}
}

func TestAFleetOfItsOwnClusterWaitsForNobody(t *testing.T) {
	var r rush
	r.begin()
	if a := r.end(time.Second, 1); r.wait(a, time.Second) != 0 {
		t.Errorf("its record waits: %+v", a)
	}
}

// They come back one after the other, each rush from its own beginning.
func TestFleetsComeBackInTheirOrder(t *testing.T) {
	var r rush
	for _, at := range []time.Duration{time.Second, time.Minute} {
		for place := range 3 {
			r.begin()
			a := r.end(at, 3)
			if want := rushQuiet + 3*rushGap + time.Duration(place)*rushPace; r.wait(a, at) != want {
				t.Errorf("at %v the one of place %d waits %v, not %v", at, place, r.wait(a, at), want)
			}
		}
	}
}

func TestARushWithoutEndHoldsNothingUpForLong(t *testing.T) {
	var r rush
	r.begin()
	a := r.end(time.Second, 300)
	for now := time.Second; now < 2*rushLatest; now += 10 * time.Millisecond {
		r.begin()
		r.end(now, 300)
		if wait := r.wait(a, now); now >= a.by && wait > 0 || now+wait > max(a.by, now) {
			t.Fatalf("at %v it waits %v, and is due by %v", now, wait, a.by)
		}
	}
}
