package controlplane

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestHeap(t *testing.T) {
	for _, c := range []struct {
		heap heap
		want bool
	}{
		{heap{live: 100, now: 100}, false},
		{heap{live: 100, now: 150}, false},
		{heap{live: 100, now: 151}, true},
		{heap{live: 100, now: 90}, false},
	} {
		if got := c.heap.grown(); got != c.want {
			t.Errorf("%+v: %v", c.heap, got)
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // only this test collects
	kept := make([]byte, 64<<20)
	runtime.GC()
	if h := readHeap(); h.live < 64<<20 || h.now < 64<<20 || h.grown() {
		t.Errorf("after a collection with 64 MiB alive: %+v", h)
	}
	more := make([]byte, 64<<20)
	if h := readHeap(); !h.grown() {
		t.Errorf("with 64 MiB more: %+v", h)
	}
	runtime.KeepAlive(kept)
	runtime.KeepAlive(more)
	if processorTime() <= 0 {
		t.Error("this process has used no processor time")
	}
}
