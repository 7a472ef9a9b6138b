//go:build !linux

package serve

import "time"

// wheel is of use on Linux only.
type wheel struct{}

func newWheel() (*wheel, error) { return &wheel{}, nil }

func (*wheel) sleep(d time.Duration) { time.Sleep(d) }

func (*wheel) close() {}
