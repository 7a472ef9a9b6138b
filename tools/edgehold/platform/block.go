package platform

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"edgehold.internal/libs/problem"
)

// Blocks are 10.B.0.0/16 with B from firstBlock to lastBlock: clear of the low networks that machines often have and of
// 127.0.0.1 itself.
const (
	firstBlock = 64
	lastBlock  = 250
	// lockPort on the last usable address of a block is held for as long as the block is used.
	lockPort = 61023
)

func block(b int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(b), 0, 0}), 16)
}

// blockNumber is the B of a block, or an error that says what is allowed.
func blockNumber(p netip.Prefix) (int, error) {
	if p.IsValid() && p.Addr().Is4() && p.Bits() == 16 {
		if a := p.Addr().As4(); a[0] == 10 && a[1] >= firstBlock && a[1] <= lastBlock && a[2] == 0 && a[3] == 0 {
			return int(a[1]), nil
		}
	}
	return 0, fmt.Errorf("%s is not a block; use 10.B.0.0/16 with B from %d to %d", p, firstBlock, lastBlock)
}

// serviceCIDR is the upper half of a block; pods have the lower one.
func serviceCIDR(p netip.Prefix) netip.Prefix {
	a := p.Addr().As4()
	a[2] = 128
	return netip.PrefixFrom(netip.AddrFrom4(a), 17)
}

// apiAddress is where the control plane of a block listens.
func apiAddress(p netip.Prefix) string { return fmt.Sprintf("127.%d.0.1", p.Addr().As4()[1]) }

// held is a block that is ours. Whoever connects to its lock is told who holds it.
type held struct {
	net.Listener
	done chan struct{}
}

// hold takes a block. The error is EADDRINUSE where someone has it.
func hold(ctx context.Context, b int, owner string) (*held, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", lockAddress(b))
	if err != nil {
		return nil, err
	}
	h := &held{Listener: l, done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// One line fits the socket's buffer, so a peer that does not read cannot hold this up.
			_, _ = io.WriteString(c, owner+"\n")
			_ = c.Close()
		}
	}()
	return h, nil
}

// Close gives the block back.
func (h *held) Close() error {
	err := h.Listener.Close()
	<-h.done
	return err
}

func lockAddress(b int) string { return fmt.Sprintf("127.%d.255.254:%d", b, lockPort) }

// holder asks who has a block.
func holder(ctx context.Context, b int) string {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", lockAddress(b))
	if err != nil {
		return "a process that does not answer"
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	line, err := io.ReadAll(io.LimitReader(c, 4096))
	if name := strings.TrimSpace(string(line)); err == nil && name != "" {
		return name
	}
	return "a process that does not say who it is"
}

// takeBlocks holds n blocks: exactly those of a former start, or else the first free ones from where the hash of dir
// points, so that two checkouts rarely want the same.
func takeBlocks(ctx context.Context, dir, owner string, n int, former []netip.Prefix) (taken []*held, blocks []netip.Prefix, err error) {
	defer func() {
		if err != nil {
			for _, h := range taken {
				_ = h.Close()
			}
			taken, blocks = nil, nil
		}
	}()
	used := map[int]bool{}
	for _, p := range former[:min(n, len(former))] {
		b, err := blockNumber(p)
		if err != nil {
			return taken, nil, err
		}
		h, err := hold(ctx, b, owner)
		if err != nil {
			return taken, nil, problem.Preconditionf("", "the address block %s of this platform is held by %s (lock %s); stop that one with `edgehold platform down` there, or take other blocks with `edgehold platform up --fresh` here: %w",
				p, holder(ctx, b), lockAddress(b), err)
		}
		used[b], taken, blocks = true, append(taken, h), append(blocks, p)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir))
	const all = lastBlock - firstBlock + 1
	for i := 0; i < all && len(blocks) < n; i++ {
		b := firstBlock + (int(h.Sum32()%all)+i)%all
		if used[b] {
			continue
		}
		l, err := hold(ctx, b, owner)
		switch {
		case err == nil:
			taken, blocks = append(taken, l), append(blocks, block(b))
		case !errors.Is(err, syscall.EADDRINUSE):
			return taken, nil, problem.Preconditionf("", "cannot listen on %s: %w; the platform needs the loopback addresses 127.0.0.0/8", lockAddress(b), err)
		}
	}
	if len(blocks) < n {
		return taken, nil, problem.New(problem.ResourceExhausted, "", "only %d of the %d address blocks 10.%d.0.0/16 to 10.%d.0.0/16 that %d clusters need are free; stop another platform",
			len(blocks), n, firstBlock, lastBlock, n)
	}
	return taken, blocks, nil
}
