// Package idempotency remembers the results of calls by their idempotency key for a while, so that a call that is sent
// again gets the first one's answer and does nothing twice. It is a convenience of one process: it forgets when that ends,
// and the truth is in what the call has declared (a Kubernetes object, a workflow). Start at Store.
package idempotency

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"edgehold.internal/libs/problem"
)

// Key says whose call it is. The same key of two principals, or of two procedures, is two keys.
type Key struct{ Principal, Procedure, Key string }

// Payload is the digest of a request. Messages that are equal have the same digest within one build of the program.
func Payload(m proto.Message) [sha256.Size]byte {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // text that is not UTF-8, which no decoder lets in
		panic(err)
	}
	return sha256.Sum256(content)
}

// Store holds results of type T. It is safe for concurrent use.
type Store[T any] struct {
	max int
	ttl time.Duration

	mu      sync.Mutex
	entries map[Key]*entry[T]
	order   []Key // of the finished ones, oldest first: they all live equally long
}

type entry[T any] struct {
	payload  [sha256.Size]byte
	done     chan struct{} // closed when the call has finished
	value    T
	finished time.Time // zero while it runs
}

// New returns a store that keeps at most max results, each for ttl after its call finished; beyond max, the oldest goes.
func New[T any](max int, ttl time.Duration) *Store[T] {
	return &Store[T]{max: max, ttl: ttl, entries: make(map[Key]*entry[T])}
}

// Do returns do's result, or that of an earlier call with the same key and payload; while one runs, further ones wait for
// it. Errors of do are returned and not remembered: the next call with the key tries again.
//
// Its own errors are *problem.Error: Invalid for an empty key, AlreadyExists for a key that was used with another payload,
// ResourceExhausted when max calls are under way, Canceled or DeadlineExceeded when ctx ends first.
func (s *Store[T]) Do(ctx context.Context, key Key, payload [sha256.Size]byte, do func(context.Context) (T, error)) (T, error) {
	var none T
	if key.Key == "" {
		return none, problem.Invalidf("idempotency_key", "it is empty; set it to a value of your own, such as a UUID, and to the same one when you ask again")
	}
	for {
		e, mine, err := s.begin(key, payload)
		if err != nil {
			return none, err
		}
		if mine {
			return s.run(ctx, key, e, do)
		}
		select {
		case <-e.done:
			if !e.finished.IsZero() {
				return e.value, nil
			}
			// The first call failed, and this one has its turn.
		case <-ctx.Done():
			return none, gaveUp(ctx)
		}
	}
}

// gaveUp is the end of a context as a problem.
func gaveUp(ctx context.Context) error {
	p := problem.New(problem.Canceled, "", "the call was given up while it waited for an earlier one with its idempotency key: %w", ctx.Err())
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		p.Kind = problem.DeadlineExceeded
	}
	return p
}

// begin returns the entry of the key, and whether the caller is to run it.
func (s *Store[T]) begin(key Key, payload [sha256.Size]byte) (e *entry[T], mine bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(time.Now())
	if e, ok := s.entries[key]; ok {
		if e.payload != payload {
			return nil, false, problem.New(problem.AlreadyExists, "idempotency_key", "%q was used for another request; use a new key for a new request", key.Key)
		}
		return e, false, nil
	}
	if len(s.entries) >= s.max {
		if len(s.order) == 0 {
			return nil, false, problem.New(problem.ResourceExhausted, "", "%d calls are under way, the most that are followed at one time; try again soon", s.max).With(problem.RetryAfter, "1s")
		}
		s.forgetOldest()
	}
	e = &entry[T]{payload: payload, done: make(chan struct{})}
	s.entries[key] = e
	return e, true, nil
}

func (s *Store[T]) run(ctx context.Context, key Key, e *entry[T], do func(context.Context) (T, error)) (value T, err error) {
	succeeded := false
	defer func() { // also when do panics: those who wait must not wait for ever
		s.mu.Lock()
		defer s.mu.Unlock()
		if succeeded {
			e.value, e.finished = value, time.Now()
			s.order = append(s.order, key)
		} else {
			delete(s.entries, key)
		}
		close(e.done)
	}()
	value, err = do(ctx)
	succeeded = err == nil
	return value, err
}

func (s *Store[T]) expire(now time.Time) {
	for len(s.order) > 0 && now.Sub(s.entries[s.order[0]].finished) >= s.ttl {
		s.forgetOldest()
	}
}

func (s *Store[T]) forgetOldest() {
	delete(s.entries, s.order[0])
	s.order = s.order[1:]
}

// Len is the number of results and of calls under way.
func (s *Store[T]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(time.Now())
	return len(s.entries)
}
