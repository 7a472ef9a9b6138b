package controller

import (
	"net/http"
	"sync"
	"time"

	"edgehold.internal/services/fleet"
)

// Clock tells the time in two ways that do not depend on each other.
type Clock interface {
	// Now is the wall clock. It may jump.
	Now() time.Time
	// Uptime is the time since the process started, by a clock that only goes forward, always above 0.
	Uptime() time.Duration
}

// SystemClock is the machine's.
func SystemClock() Clock { return systemClock{time.Now()} }

type systemClock struct{ start time.Time }

func (systemClock) Now() time.Time { return time.Now().Round(0) }

func (c systemClock) Uptime() time.Duration { return time.Since(c.start) + 1 }

// timekeeper holds the wall clock against two others: itself at the start of the process plus the time since, which does not
// follow a jump, and the API server's, which runs elsewhere.
type timekeeper struct {
	clock Clock
	start time.Time // the wall clock at uptime 0

	mu sync.Mutex
	// skew is how far the API server's clock is ahead of start plus uptime; 0 when they agree as far as can be told.
	skew   time.Duration
	server bool // the API server has told the time
}

func newTimekeeper(c Clock) *timekeeper {
	return &timekeeper{clock: c, start: c.Now().Add(-c.Uptime())}
}

// now is one look at all clocks.
func (k *timekeeper) now() fleet.Clock {
	k.mu.Lock()
	skew, server := k.skew, k.server
	k.mu.Unlock()
	wall, up := k.clock.Now(), k.clock.Uptime()
	c := fleet.Clock{Now: wall, Earliest: wall, Latest: wall, Uptime: up}
	steady := k.start.Add(up)
	clocks := []time.Time{steady}
	if server {
		c.Server = steady.Add(skew)
		clocks = append(clocks, c.Server)
		if wall.Sub(c.Server).Abs() > fleet.MaxDoubt {
			c.Now = c.Server
		}
	}
	for _, t := range clocks {
		if t.Before(c.Earliest) {
			c.Earliest = t
		}
		if t.After(c.Latest) {
			c.Latest = t
		}
	}
	return c
}

// heard notes the Date of an answer to a request that was sent at an uptime. It has whole seconds, so the server's clock was
// somewhere in the second that follows, at some moment between the sending and now.
func (k *timekeeper) heard(date time.Time, sent time.Duration) {
	lowest := date.Sub(k.start.Add(k.clock.Uptime()))
	highest := date.Add(time.Second).Sub(k.start.Add(sent))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.server = true
	switch {
	case lowest > 0:
		k.skew = lowest
	case highest < 0:
		k.skew = highest
	default:
		k.skew = 0
	}
}

// dated hands the Date header of each answer to the timekeeper.
type dated struct {
	next   http.RoundTripper
	keeper *timekeeper
}

// RoundTrip implements http.RoundTripper.
func (d *dated) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := d.keeper.clock.Uptime()
	res, err := d.next.RoundTrip(r)
	if err == nil {
		if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
			d.keeper.heard(date, sent)
		}
	}
	return res, err
}
