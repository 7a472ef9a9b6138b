package controller

import (
	"sync"
	"time"
)

const (
	// rushQuiet is how long no fleet of the cluster was switched when a rush is over.
	rushQuiet = 250 * time.Millisecond
	// rushLatest is how long a switch waits at most for the end of the rush that it is part of.
	rushLatest = 5 * time.Second
)

// rush is when the fleets of one cluster are switched close together, as a global rollback does. What comes after a switch waits
// until it is over: the record, which costs the API server more than the switch, and the asking and telling of pods. So the last
// PoP is off the bad release sooner, and the others are recorded and drained on a machine that has time for it.
type rush struct {
	mu    sync.Mutex
	under int           // switches that are being written
	last  time.Duration // when the last one ended, 0 for never
}

// begin and end enclose the write of a selector. end returns the instant by which its aftermath begins; at once for a fleet that
// has the cluster to itself.
func (r *rush) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.under++
}

func (r *rush) end(now time.Duration, alone bool) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.under--
	r.last = now
	if alone {
		return now
	}
	return now + rushLatest
}

// wait is how long it is worth waiting for the end of the rush, for what is due by an instant.
func (r *rush) wait(by, now time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	quiet := r.last + rushQuiet - now
	if r.last == 0 {
		quiet = 0
	}
	if r.under > 0 {
		quiet = rushQuiet
	}
	return max(min(by-now, quiet), 0)
}
