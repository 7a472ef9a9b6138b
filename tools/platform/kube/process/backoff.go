package process

import "time"

// backOff is the kubelet's: the first restart comes at once, the second after base, and then twice as long each time up to limit.
type backOff struct {
	base, limit, reset time.Duration
	delay              time.Duration
}

// next is how long to wait after a run of a certain length.
func (b *backOff) next(ran time.Duration) time.Duration {
	if ran >= b.reset {
		b.delay = 0
	}
	wait := b.delay
	b.delay = min(max(2*b.delay, b.base), b.limit)
	return wait
}
