// Package address is the arithmetic of a cluster's block of addresses. A cluster owns one block 10.B.0.0/16: the lower half is for
// pods, the upper half for Services. What has the address 10.B.x.y in the API is served by this machine on 127.B.x.y, because
// EndpointSlices refuse loopback addresses. Start reading at [Loopback] and [Pool].
package address

import (
	"fmt"
	"net/netip"
	"sync"
)

// DialMap is the translation in the form that pods get in EDGEHOLD_DIAL_MAP.
const DialMap = "10.0.0.0/8=127.0.0.0/8"

// Loopback is the address that this machine serves 10.B.x.y on: 127.B.x.y. Any other address is returned as it is.
func Loopback(a netip.Addr) netip.Addr {
	if !a.Is4() || a.As4()[0] != 10 {
		return a
	}
	octets := a.As4()
	octets[0] = 127
	return netip.AddrFrom4(octets)
}

// ParseBlock reads a block such as 10.20.0.0/16. The error says what is allowed.
func ParseBlock(s string) (netip.Prefix, error) {
	block, err := netip.ParsePrefix(s)
	if err != nil || !block.Addr().Is4() || block.Bits() != 16 || block.Masked() != block || block.Addr().As4()[0] != 10 {
		return netip.Prefix{}, fmt.Errorf("%q: want a block 10.B.0.0/16, such as 10.20.0.0/16", s)
	}
	return block, nil
}

// Node is the address of the block's node, 10.B.0.2; 10.B.0.1 is the API server's.
func Node(block netip.Prefix) netip.Addr { return block.Addr().Next().Next() }

// firstPod of a block: its first 256 addresses are for what is not a pod.
const firstPod = 256

// lastPod is the last address of the lower half.
const lastPod = 1<<15 - 1

// Pool hands out the addresses of pods. An address that came back is handed out again as late as possible, so that whoever still
// dials the old pod gets a refusal and not another pod. Its methods may be called from several goroutines.
type Pool struct {
	base netip.Addr

	mu    sync.Mutex
	next  int
	taken map[netip.Addr]struct{}
}

// NewPool of the pods' half of a block.
func NewPool(block netip.Prefix) *Pool {
	return &Pool{base: block.Addr(), next: firstPod, taken: map[netip.Addr]struct{}{}}
}

// Take returns a free address; false when all 32,258 are taken.
func (p *Pool) Take() (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range lastPod - firstPod + 1 {
		n := p.next
		if p.next++; p.next > lastPod {
			p.next = firstPod
		}
		if last := n & 0xff; last == 0 || last == 0xff {
			continue // they look like a network and its broadcast address, and some clients refuse them
		}
		octets := p.base.As4()
		octets[2], octets[3] = byte(n>>8), byte(n)
		addr := netip.AddrFrom4(octets)
		if _, taken := p.taken[addr]; !taken {
			p.taken[addr] = struct{}{}
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// Reserve takes a certain address, for a pod that had it before the node was restarted; false when it is taken or not of a pod.
func (p *Pool) Reserve(addr netip.Addr) bool {
	if !addr.Is4() {
		return false
	}
	base, octets := p.base.As4(), addr.As4()
	n := int(octets[2])<<8 | int(octets[3])
	if octets[0] != base[0] || octets[1] != base[1] || n < firstPod || n > lastPod {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.taken[addr]; taken {
		return false
	}
	p.taken[addr] = struct{}{}
	return true
}

// Release gives an address back.
func (p *Pool) Release(addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, addr)
}
