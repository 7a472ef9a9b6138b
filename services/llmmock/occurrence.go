package llmmock

import (
	"sync"

	"github.com/cespare/xxhash/v2"
)

// recent is a map that is bounded by forgetting what was not used for longest. It is in shards, each with two generations: a shard
// whose young generation is full drops the old one, and the young becomes the old; what is used moves to the young one. So it
// remembers at least as many as it was made for, and never more than that twice, a quarter and some 4,000.
type recent[V any] struct {
	shards [shards]shard[V]
}

type shard[V any] struct {
	mu         sync.Mutex
	young, old map[uint64]V
	most       int
	forgotten  uint64
	_          [24]byte // apart from the next one in the processor's cache
}

const shards = 64

// newRecent remembers at least so many keys, given that these are hashes: a shard has an eighth more than its part, and room for
// the unevenness of few.
func newRecent[V any](remember int) *recent[V] {
	r := new(recent[V])
	for i := range r.shards {
		r.shards[i].most = remember/shards + remember/shards/8 + 32
	}
	return r
}

// update sets the key's value to what f makes of it, and returns that. f is called under a lock and must be short.
func (r *recent[V]) update(key uint64, f func(v V, found bool) V) V {
	s := &r.shards[mix(key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	v, found := s.get(key)
	v = f(v, found)
	s.put(key, v)
	return v
}

func (s *shard[V]) get(key uint64) (v V, found bool) {
	if v, found = s.young[key]; !found {
		v, found = s.old[key]
	}
	return v, found
}

func (s *shard[V]) put(key uint64, v V) {
	if s.young == nil {
		s.young = make(map[uint64]V)
	}
	if _, ok := s.young[key]; !ok {
		delete(s.old, key) // it moves
		if len(s.young) >= s.most {
			s.forgotten += uint64(len(s.old))
			if s.old == nil {
				s.old = make(map[uint64]V)
			}
			clear(s.old)
			s.young, s.old = s.old, s.young
		}
	}
	s.young[key] = v
}

// lost is how many were forgotten.
func (r *recent[V]) lost() (n uint64) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += s.forgotten
		s.mu.Unlock()
	}
	return n
}

// counts counts how often each key came. What it forgot begins again at 0.
type counts struct{ *recent[uint64] }

func newCounts(remember int) counts { return counts{newRecent[uint64](remember)} }

// next is how often the key came before.
func (c counts) next(key uint64) uint64 {
	s := &c.shards[mix(key)%shards]
	s.mu.Lock()
	n, _ := s.get(key)
	s.put(key, n+1)
	s.mu.Unlock()
	return n
}

func textHash(s string) uint64 { return xxhash.Sum64String(s) }
