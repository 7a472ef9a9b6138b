package serve

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func turning(t *testing.T) *wheel {
	t.Helper()
	w, err := newWheel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// Whoever sleeps is woken, and never too early, also when the wheel has stood still in between.
func TestWheel(t *testing.T) {
	w := turning(t)
	for round := range 3 {
		random := rand.New(rand.NewPCG(uint64(round), 1))
		var all sync.WaitGroup
		for range 2000 {
			d := time.Duration(random.Int64N(int64(short)))
			all.Go(func() {
				for _, d := range []time.Duration{d, d / 7, 1, 0, -1} {
					began := time.Now()
					w.sleep(d)
					if took := time.Since(began); took < d {
						t.Errorf("it slept %s instead of %s", took, d)
					}
				}
			})
		}
		all.Wait()
		w.mu.Lock()
		for i, one := range w.slots {
			if one != nil {
				t.Errorf("round %d: slot %d has somebody", round, i)
			}
		}
		if w.waiting != 0 {
			t.Errorf("round %d: %d wait", round, w.waiting)
		}
		w.mu.Unlock()
	}
}

// A wheel that is turned too late, when a slot has those of the next round too, wakes only those whose time has come.
func TestWheelTurnsLate(t *testing.T) {
	w := turning(t)
	w.mu.Lock()
	w.start = w.start.Add(-grid * 3 * slots / 2) // so many slots are past, and none was woken
	now := int64(time.Since(w.start) / grid)
	past, later, far := &waiter{woken: make(chan struct{}, 1), slot: now - slots - 7}, &waiter{woken: make(chan struct{}, 1), slot: now - 7}, &waiter{woken: make(chan struct{}, 1), slot: now - 7 + slots}
	far.after, later.after = later, past
	w.slots[far.slot%slots], w.waiting = far, 3
	w.mu.Unlock()
	w.turn()
	for _, one := range []*waiter{past, later} {
		select {
		case <-one.woken:
		default:
			t.Errorf("slot %d was not woken at %d", one.slot, now)
		}
	}
	w.mu.Lock()
	if len(far.woken) > 0 || w.slots[far.slot%slots] != far || far.after != nil || w.waiting != 1 || w.next != far.slot {
		t.Errorf("%d wait, the next at slot %d, want the one at %d", w.waiting, w.next, far.slot)
	}
	w.slots[far.slot%slots], w.waiting = nil, 0
	w.mu.Unlock()
}

// Nobody sleeps on when it is closed, and nobody sleeps on a closed one.
func TestWheelIsClosed(t *testing.T) {
	w, err := newWheel()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { w.sleep(time.Hour) })
	}
	for {
		w.mu.Lock()
		n := w.waiting
		w.mu.Unlock()
		if n == 100 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.close()
	all.Wait()
	w.sleep(time.Hour)
	var none *wheel
	none.sleep(time.Microsecond)
}

func BenchmarkWheel(b *testing.B) {
	w, err := newWheel()
	if err != nil {
		b.Fatal(err)
	}
	defer w.close()
	b.SetParallelism(2500)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			w.sleep(100 * time.Millisecond)
		}
	})
}
