package service

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"edgehold.internal/libs/problem"
)

// slots bound how many calls of a kind there are at one time.
type slots struct {
	taken chan struct{}
	what  string // that is under way, with the flag that bounds it
}

func newSlots(n int, what string) *slots { return &slots{taken: make(chan struct{}, n), what: what} }

// take one, or return a *problem.Error of kind ResourceExhausted.
func (s *slots) take() error {
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
		return problem.New(problem.ResourceExhausted, "", "the service has %d %s; try again soon", cap(s.taken), s.what).With(problem.RetryAfter, "1s")
	}
}

func (s *slots) give() { <-s.taken }

// maxRated is how many principals have a rate at one time. Beyond, the one that has not called for longest starts anew.
const maxRated = 1024

// rates limits calls per principal. The zero limit allows everything.
type rates struct {
	limit float64 // calls per second
	now   func() time.Time

	mu  sync.Mutex
	per map[string]*rated
}

type rated struct {
	bucket *rate.Limiter
	last   time.Time
}

// allow takes one call out of the principal's budget. The error is a *problem.Error of kind ResourceExhausted.
func (r *rates) allow(principal string) error {
	if r.limit == 0 {
		return nil
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	one, ok := r.per[principal]
	if !ok {
		if len(r.per) >= maxRated {
			oldest := ""
			for name, other := range r.per {
				if oldest == "" || other.last.Before(r.per[oldest].last) {
					oldest = name
				}
			}
			delete(r.per, oldest)
		}
		one = &rated{bucket: rate.NewLimiter(rate.Limit(r.limit), max(1, int(2*r.limit)))}
		r.per[principal] = one
	}
	one.last = now
	if one.bucket.AllowN(now, 1) {
		return nil
	}
	wait := time.Duration((1 - one.bucket.TokensAt(now)) / r.limit * float64(time.Second)).Round(time.Millisecond)
	return problem.New(problem.ResourceExhausted, "", "%q calls more than %v times per second (--rate-per-principal); wait %v", principal, r.limit, wait).With(problem.RetryAfter, wait.String())
}
