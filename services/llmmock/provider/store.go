package provider

import (
	"container/list"
	"sync"
)

// Store keeps what was made for those who ask for it later, and forgets the oldest. It is safe for concurrent use.
type Store[T any] struct {
	entries, bytes int // at most

	mu    sync.Mutex
	byID  map[string]*list.Element
	order *list.List // of held, the oldest first
	size  int
}

// held is a value with its id and about how many bytes it takes.
type held[T any] struct {
	id    string
	value T
	size  int
}

// NewStore holds at most so many values, and of at most so many bytes.
func NewStore[T any](entries, bytes int) *Store[T] {
	return &Store[T]{entries: entries, bytes: bytes, byID: map[string]*list.Element{}, order: list.New()}
}

// Put keeps a value of about so many bytes under its id. One that is too large by itself is not kept.
func (s *Store[T]) Put(id string, value T, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(id)
	if size > s.bytes {
		return
	}
	s.byID[id] = s.order.PushBack(held[T]{id, value, size})
	s.size += size
	for len(s.byID) > s.entries || s.size > s.bytes {
		s.remove(s.order.Front().Value.(held[T]).id)
	}
}

// remove is called with the lock held.
func (s *Store[T]) remove(id string) {
	if e, ok := s.byID[id]; ok {
		s.order.Remove(e)
		delete(s.byID, id)
		s.size -= e.Value.(held[T]).size
	}
}

// Get returns the zero value for what is not there.
func (s *Store[T]) Get(id string) (value T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.byID[id]; ok {
		value = e.Value.(held[T]).value
	}
	return value
}

// Delete forgets a value.
func (s *Store[T]) Delete(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(id)
}

// All is what there is, the oldest first.
func (s *Store[T]) All() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := make([]T, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		values = append(values, e.Value.(held[T]).value)
	}
	return values
}
