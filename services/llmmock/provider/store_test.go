package provider

import (
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is put and deleted, the store stays within its bounds and has what was put last.
func TestStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const entries, bytes = 5, 100
		s := NewStore[int](entries, bytes)
		var order []string
		sizes := map[string]int{}
		forget := func(id string) {
			for i, o := range order {
				if o == id {
					order = append(order[:i:i], order[i+1:]...)
					delete(sizes, id)
					return
				}
			}
		}
		total := func() (n int) {
			for _, size := range sizes {
				n += size
			}
			return n
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "id"))
			if rapid.IntRange(0, 4).Draw(t, "what") == 0 {
				s.Delete(id)
				forget(id)
			} else {
				size := rapid.IntRange(1, bytes+10).Draw(t, "size")
				s.Put(id, i+1, size)
				forget(id)
				if size <= bytes {
					order = append(order, id)
					sizes[id] = size
				}
				for len(order) > entries || total() > bytes {
					forget(order[0])
				}
			}
			if s.size != total() || len(s.byID) != len(order) || s.order.Len() != len(order) || len(s.All()) != len(order) {
				t.Fatalf("%d entries of %d bytes, want %d of %d", len(s.byID), s.size, len(order), total())
			}
			for _, o := range order {
				if s.Get(o) == 0 {
					t.Fatalf("%s was forgotten", o)
				}
			}
		}
	})
}

func TestStoreIsShared(t *testing.T) {
	s := NewStore[int](10, 1000)
	var wait sync.WaitGroup
	for g := range 4 {
		wait.Go(func() {
			for i := range 500 {
				id := fmt.Sprint(g, i%20)
				s.Put(id, i, 60)
				s.Get(id)
				s.All()
				s.Delete(fmt.Sprint(g, (i+3)%20))
			}
		})
	}
	wait.Wait()
	if len(s.byID) > 10 || s.size != 60*len(s.byID) {
		t.Errorf("%d entries, %d bytes", len(s.byID), s.size)
	}
}
