package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"edgehold.internal/tools/platform/kube/address"
)

// maxColours bounds what one door counts apart; connections of further colours are counted under otherColours.
const (
	maxColours   = 16
	otherColours = "other"
)

// door serves one port of one Service. Only Keeper.sync opens, changes and closes it.
type door struct {
	keeper  *Keeper
	service types.NamespacedName
	address netip.AddrPort // in the cluster
	// table is swapped whole, so that a connection sees the endpoints of one moment.
	table   atomic.Pointer[table]
	retired atomic.Pointer[time.Time] // since when the Service no longer has this port
	problem atomic.Pointer[string]    // why it does not listen
	// life ends when the connections that are left are cut.
	life context.Context
	cut  context.CancelFunc

	open       atomic.Int64 // accepted and not yet ended, those being dialled included
	noEndpoint atomic.Int64
	overLimit  atomic.Int64

	mu       sync.Mutex
	listener *net.TCPListener // nil while closed
	tallies  map[string]*tally
}

// table is where new connections go. It never changes once it is in force.
type table struct {
	endpoints []endpoint
	changed   time.Time
}

type endpoint struct {
	address netip.AddrPort // on this machine
	tally   *tally
}

// tally counts the connections of one colour of a door.
type tally struct {
	open, accepted, dialFailed atomic.Int64
	lastAccepted               atomic.Int64 // ns since 1970, 0 for never
	in, out                    atomic.Int64 // bytes to and from the endpoints
}

func newDoor(k *Keeper, service types.NamespacedName, served netip.AddrPort) *door {
	d := &door{keeper: k, service: service, address: served, tallies: map[string]*tally{}}
	d.life, d.cut = context.WithCancel(context.Background())
	d.table.Store(&table{changed: k.config.Clock.Now()})
	return d
}

// update puts other endpoints in force for new connections, if they differ.
func (d *door) update(targets []target, colour func(types.NamespacedName) string, now time.Time) {
	endpoints := make([]endpoint, 0, len(targets))
	for _, t := range targets {
		endpoints = append(endpoints, endpoint{
			address: netip.AddrPortFrom(address.Loopback(t.address.Addr()), t.address.Port()),
			tally:   d.tally(colour(t.pod)),
		})
	}
	if !slices.Equal(endpoints, d.table.Load().endpoints) {
		d.table.Store(&table{endpoints: endpoints, changed: now})
	}
}

func (d *door) tally(colour string) *tally {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tallies[colour] == nil && len(d.tallies) >= maxColours {
		colour = otherColours
	}
	if d.tallies[colour] == nil {
		d.tallies[colour] = &tally{}
	}
	return d.tallies[colour]
}

// listen opens the door unless it is open.
func (d *door) listen(group *sync.WaitGroup) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		return nil
	}
	local := netip.AddrPortFrom(address.Loopback(d.address.Addr()), d.address.Port())
	if !d.keeper.config.Block.Contains(d.address.Addr()) {
		return fmt.Errorf("no front door: cluster address %s is outside of the cluster's block %s; create the Service again to get another",
			d.address.Addr(), d.keeper.config.Block)
	}
	// On loopback a peer cannot vanish unnoticed, so keep-alives would only cost; multipath TCP has no second path.
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(d.life, "tcp4", local.String())
	if err != nil {
		return fmt.Errorf("no front door: %w; its process listens on the Service's own port, so use one that is free and, without root, above 1023", err)
	}
	d.listener = listener.(*net.TCPListener)
	d.problem.Store(nil)
	d.retired.Store(nil)
	d.keeper.config.Logger.Info("front door opened", "service", d.service, "address", d.address, "listen", local)
	group.Go(func() { d.accept(group, listener.(*net.TCPListener)) })
	return nil
}

// close stops accepting and reports whether the door was open. Connections go on.
func (d *door) close() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener == nil {
		return false
	}
	d.listener.Close()
	d.listener = nil
	return true
}

func (d *door) accept(group *sync.WaitGroup, listener *net.TCPListener) {
	for {
		client, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of files or memory: wait for connections to end, as net/http does.
			d.keeper.config.Logger.Warn("front door cannot accept", "service", d.service, "address", d.address, "error", err)
			select {
			case <-d.keeper.config.Clock.After(100 * time.Millisecond):
				continue
			case <-d.life.Done():
				return
			}
		}
		group.Go(func() { d.serve(client) })
	}
}

// serve one connection until it has ended.
func (d *door) serve(client *net.TCPConn) {
	k := d.keeper
	defer func() {
		k.open.Add(-1)
		if d.open.Add(-1); d.retired.Load() != nil {
			k.queue.Add(d.service) // it may have been the last one
		}
	}()
	// Both are counted, whether or not they are over the limit: the deferred call takes both back.
	total, open := k.open.Add(1), d.open.Add(1)
	if total > int64(k.config.MaxTotal) || open > int64(k.config.MaxOpen) {
		d.overLimit.Add(1)
		reset(client)
		return
	}
	endpoints := d.table.Load().endpoints
	if len(endpoints) == 0 {
		d.noEndpoint.Add(1)
		reset(client)
		return
	}
	to := endpoints[k.config.Choose(len(endpoints))]
	dialer := net.Dialer{Timeout: k.config.DialTimeout, KeepAlive: -1}
	backend, err := dialer.DialContext(d.life, "tcp4", to.address.String())
	if err != nil {
		// kube-proxy does not try another endpoint either: its choice is made before the handshake.
		to.tally.dialFailed.Add(1)
		reset(client)
		return
	}
	to.tally.lastAccepted.Store(k.config.Clock.Now().UnixNano())
	to.tally.accepted.Add(1)
	to.tally.open.Add(1)
	defer to.tally.open.Add(-1)
	link := link{client: client, backend: backend.(*net.TCPConn)}
	stop := context.AfterFunc(d.life, link.reset)
	defer stop()
	link.carry(&to.tally.in, &to.tally.out)
}
