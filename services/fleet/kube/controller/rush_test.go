package controller

import (
	"testing"
	"time"
)

func TestTheAftermathOfASwitchWaitsForTheEndOfTheRush(t *testing.T) {
	const ms = time.Millisecond
	var r rush
	if got := r.wait(1000*ms+rushLatest, 1000*ms); got != 0 {
		t.Errorf("before the first switch it waits %v", got)
	}
	r.begin()
	if got := r.wait(1000*ms+rushLatest, 1000*ms); got != rushQuiet {
		t.Errorf("while a selector is written it waits %v, not %v", got, rushQuiet)
	}
	first := r.end(1100*ms, false)
	if got := r.wait(first, 1150*ms); got != rushQuiet-50*ms {
		t.Errorf("50 ms after the switch it waits %v", got)
	}
	r.begin()
	second := r.end(1300*ms, false)
	if got := r.wait(first, 1300*ms); got != rushQuiet {
		t.Errorf("another switch does not hold up the first one's record: it waits %v", got)
	}
	if got := r.wait(second, 1300*ms+rushQuiet); got != 0 {
		t.Errorf("after the quiet time it waits %v", got)
	}
	if got := r.wait(first, first-10*ms); got != 0 {
		t.Errorf("long after the rush it waits %v", got)
	}
}

func TestAFleetOfItsOwnClusterWaitsForNobody(t *testing.T) {
	var r rush
	r.begin()
	if by := r.end(time.Second, true); r.wait(by, time.Second) != 0 {
		t.Errorf("its record waits until %v", by)
	}
}

func TestARushWithoutEndHoldsNothingUpForLong(t *testing.T) {
	var r rush
	r.begin()
	by := r.end(time.Second, false)
	for now := time.Second; now < 2*rushLatest; now += 10 * time.Millisecond {
		r.begin()
		r.end(now, false)
		if wait := r.wait(by, now); now >= by && wait > 0 || now < by && now+wait > by {
			t.Fatalf("at %v it waits %v, and is due by %v", now, wait, by)
		}
	}
}
