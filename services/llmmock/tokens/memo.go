package tokens

import "sync/atomic"

// memo remembers counts by the hash of what was counted, in a table of fixed size in which the last one stays. A slot holds 44 bits
// of the hash above 20 of the count, and its place is another 12 bits of it: that a wrong count is found is a matter of once in
// 2⁴⁴ look-ups.
type memo [1 << 12]atomic.Uint64

const countBits = 20

func (m *memo) get(h uint64) (n int, ok bool) {
	slot := m[h%uint64(len(m))].Load()
	if slot == 0 || slot>>countBits != h>>countBits {
		return 0, false
	}
	return int(slot&(1<<countBits-1)) - 1, true
}

func (m *memo) put(h uint64, n int) {
	if n+1 < 1<<countBits {
		m[h%uint64(len(m))].Store(h>>countBits<<countBits | uint64(n+1))
	}
}
