package address

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestLoopback(t *testing.T) {
	for in, want := range map[string]string{"10.20.1.1": "127.20.1.1", "127.0.0.1": "127.0.0.1", "192.0.2.1": "192.0.2.1", "::1": "::1"} {
		if got := Loopback(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("Loopback(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestParseBlock(t *testing.T) {
	for _, bad := range []string{"", "10.20.0.0", "10.20.0.0/17", "10.20.1.0/16", "127.20.0.0/16", "fd00::/16"} {
		if _, err := ParseBlock(bad); err == nil {
			t.Errorf("ParseBlock(%q) is accepted", bad)
		}
	}
	if _, err := ParseBlock("10.20.0.0/16"); err != nil {
		t.Error(err)
	}
}

func TestPoolNeverSharesAnAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		block := netip.MustParsePrefix("10.20.0.0/16")
		half := netip.MustParsePrefix("10.20.0.0/17")
		pool := NewPool(block)
		pool.next = lastPod - 20 // near the end, so that it wraps
		held := map[netip.Addr]bool{}
		var order []netip.Addr
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				addr, ok := pool.Take()
				if !ok || held[addr] || !half.Contains(addr) || addr == Node(block) {
					t.Fatalf("Take() = %s, %v with %d held", addr, ok, len(held))
				}
				held[addr] = true
				order = append(order, addr)
			},
			"reserve": func(t *rapid.T) {
				addr := netip.AddrFrom4([4]byte{10, 20, 127, byte(rapid.IntRange(230, 255).Draw(t, "last"))})
				if ok := pool.Reserve(addr); ok == held[addr] {
					t.Fatalf("Reserve(%s) = %v, held: %v", addr, ok, held[addr])
				}
				if !held[addr] {
					held[addr] = true
					order = append(order, addr)
				}
			},
			"release": func(t *rapid.T) {
				if len(order) == 0 {
					t.Skip("nothing is held")
				}
				addr := order[0]
				order = order[1:]
				delete(held, addr)
				pool.Release(addr)
			},
		})
	})
}

func TestPoolEnds(t *testing.T) {
	pool := NewPool(netip.MustParsePrefix("10.20.0.0/16"))
	n := 0
	for {
		if _, ok := pool.Take(); !ok {
			break
		}
		n++
	}
	if n != 127*254 {
		t.Errorf("%d addresses, want %d", n, 127*254)
	}
	addr := netip.MustParseAddr("10.20.3.4")
	pool.Release(addr)
	if got, ok := pool.Take(); !ok || got != addr {
		t.Errorf("after a release Take() = %s, %v; want %s", got, ok, addr)
	}
}
