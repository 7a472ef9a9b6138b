package controlplane

import (
	"context"
	"runtime"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"
)

// collectIdle collects garbage while the process has little to do. A collection marks 150 MB and more and takes 0.3 s of
// processor time, and 1.2 s in a rush; several control planes share a machine, and left alone each collects when it allocates most: in the middle of
// a rush. Collected before, there is room for a rush of hundreds of objects.
func collectIdle(ctx context.Context) {
	// A second that has part of a rush in it is not idle.
	const every, idle, rest = time.Second, 60 * time.Millisecond, 5 * time.Second
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	before, last := processorTime(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := processorTime()
		if now-before < idle && time.Since(last) > rest && readHeap().grown() {
			runtime.GC()
			now, last = processorTime(), time.Now()
		}
		before = now
	}
}

// heap in bytes: what the last collection left, and what there is now.
type heap struct{ live, now uint64 }

// grown by half is enough to be worth it.
func (h heap) grown() bool { return h.now > h.live+h.live/2 }

func readHeap() heap {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64()}
}

// processorTime of this process so far, in user and system mode.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
