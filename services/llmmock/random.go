package llmmock

import (
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"math/rand/v2"

	"github.com/cespare/xxhash/v2"
)

// Hash identifies what was asked: equal requests have equal hashes, in every process and on every machine.
type Hash uint64

// HashOf is the hash of a request's method, path and body, which is taken as it came.
func HashOf(method, path string, body []byte) Hash {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(method)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(path)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(body)
	return Hash(d.Sum64())
}

// Purpose keeps what is drawn for one thing apart from what is drawn for another: a scenario that gets a fault keeps its
// latencies.
type Purpose string

// The purposes.
const (
	ForAnswer  Purpose = "answer"
	ForLatency Purpose = "latency"
	ForFaults  Purpose = "faults"
	ForIDs     Purpose = "ids"
)

// Moment is one occurrence of one request in one scenario: all that may decide what happens to it, but for the clock of a
// timeline and the ledger of a rate limit.
type Moment struct {
	Seed     uint64
	Scenario string
	Request  Hash
	// Occurrence counts equal requests to the scenario from 0, and those of each Request.Run by themselves.
	Occurrence uint64
}

// Random is the source of what is drawn for a purpose. The same moment and purpose draw the same numbers.
func (m Moment) Random(p Purpose) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(m.Scenario))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(p))
	return rand.New(rand.NewPCG(mix(m.Seed)^h.Sum64(), mix(uint64(m.Request))+mix(m.Occurrence+1)))
}

// mix is the finalizer of SplitMix64: neighbouring numbers become unrelated ones.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}

// ID is 32 characters of [0-9a-f] that are the moment's own.
func (m Moment) ID() string { return ID(m.Random(ForIDs), 32) }

// ID is an identifier of n characters of [0-9a-f], n at most 32, such as vendors put after a prefix.
func ID(r *rand.Rand, n int) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], r.Uint64())
	binary.BigEndian.PutUint64(raw[8:], r.Uint64())
	return hex.EncodeToString(raw[:])[:n]
}
