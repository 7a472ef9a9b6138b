package stage

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Wire is the line between the centre and one PoP's Kubernetes API. A scenario can cut it: connections that exist break
// and new ones are refused, while the PoP itself lives on.
type Wire struct {
	target   string
	listener net.Listener

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
	wait  sync.WaitGroup
}

// newWire listens on loopback and passes on to the host:port.
func newWire(target string) (*Wire, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Wire{target: target, listener: l, conns: map[net.Conn]struct{}{}}
	w.wait.Go(w.serve)
	return w, nil
}

func (w *Wire) serve() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.wait.Go(func() { w.pass(near) })
	}
}

func (w *Wire) pass(near net.Conn) {
	defer near.Close()
	if !w.hold(near) {
		return
	}
	defer w.release(near)
	far, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", w.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !w.hold(far) {
		return
	}
	defer w.release(far)
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(far, near)
		_ = far.Close()
		close(done)
	}()
	_, _ = io.Copy(near, far)
	_ = near.Close()
	<-done
}

func (w *Wire) hold(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return false
	}
	w.conns[c] = struct{}{}
	return true
}

func (w *Wire) release(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// Cut breaks the line until Mend.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Close()
	}
}

// Mend makes new connections possible again.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

func (w *Wire) close() {
	_ = w.listener.Close()
	w.Cut()
	w.wait.Wait()
}

// through makes a kubeconfig cluster go over the wire, with the certificate still checked against the real name.
func (w *Wire) through(c *clientcmdapi.Cluster) (*clientcmdapi.Cluster, error) {
	u, err := url.Parse(c.Server)
	if err != nil {
		return nil, err
	}
	out := c.DeepCopy()
	out.TLSServerName = u.Hostname()
	u.Host = w.listener.Addr().String()
	out.Server = u.String()
	return out, nil
}
