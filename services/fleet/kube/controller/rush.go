package controller

import (
	"sync"
	"time"
)

const (
	// rushQuiet, and rushGap for each fleet of the cluster, is how long none of them was switched when a rush is over: the more there
	// are, the longer are the gaps between two of them.
	rushQuiet = 250 * time.Millisecond
	rushGap   = 5 * time.Millisecond
	// rushPace is the distance of the fleets when they come back after a rush, about what the API server takes for a record.
	rushPace = 10 * time.Millisecond
	// rushLatest is how long a switch waits at most for the end of the rush that it is part of.
	rushLatest = 5 * time.Second
)

// rush is when the fleets of one cluster are switched close together, as a global rollback does. What comes after a switch waits
// until it is over: the record, which costs the API server more than the switch, and the asking and telling of pods. So the last
// PoP is off the bad release sooner, and the others are recorded and drained on a machine that has time for it.
type rush struct {
	mu     sync.Mutex
	under  int           // switches that are being written
	last   time.Duration // when the last one ended, 0 for never
	quiet  time.Duration
	places int // given to the switches of this rush
}

// aftermath is what comes after one switch.
type aftermath struct {
	by    time.Duration // it begins at this instant at the latest
	place int           // in its rush
}

// begin and end enclose the write of a selector, in a cluster of so many fleets. A fleet that has the cluster to itself waits for
// nobody.
func (r *rush) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.under++
}

func (r *rush) end(now time.Duration, fleets int) aftermath {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.under--
	if now-r.last >= r.quiet {
		r.places = 0
	}
	r.last, r.quiet = now, rushQuiet+time.Duration(fleets)*rushGap
	if fleets == 1 {
		return aftermath{by: now}
	}
	r.places++
	return aftermath{by: now + rushLatest, place: r.places - 1}
}

// wait is how long it is worth waiting before one looks again whether the rush is over; 0 when it is, or the time is up.
func (r *rush) wait(a aftermath, now time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	quiet := r.quiet
	if r.under == 0 {
		quiet = r.last + r.quiet - now
	}
	if quiet <= 0 || a.by <= now {
		return 0
	}
	return min(a.by-now, quiet+time.Duration(a.place)*rushPace)
}
