package drain

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Dialer opens a TCP connection, as net.Dialer.DialContext does.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// DialMap says which addresses are reached under which others, as prefixes of the same length. The embedded platform needs
// it: its pods are processes that listen on 127.x.y.z for the pod address 10.x.y.z. The zero DialMap translates nothing.
type DialMap struct {
	rules []rule
}

type rule struct{ from, to netip.Prefix }

// ParseDialMap reads rules such as "10.0.0.0/8=127.0.0.0/8", separated by commas.
func ParseDialMap(text string) (DialMap, error) {
	var m DialMap
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		left, right, ok := strings.Cut(part, "=")
		from, err := netip.ParsePrefix(left)
		to, err2 := netip.ParsePrefix(right)
		switch {
		case !ok || err != nil || err2 != nil:
			return DialMap{}, fmt.Errorf("dial map: %q is not of the form 10.0.0.0/8=127.0.0.0/8", part)
		case from.Bits() != to.Bits() || from.Addr().BitLen() != to.Addr().BitLen():
			return DialMap{}, fmt.Errorf("dial map: %q has prefixes of different lengths; both must be of one length and family", part)
		}
		m.rules = append(m.rules, rule{from.Masked(), to.Masked()})
	}
	return m, nil
}

// Translate returns the address under which addr is reached: by the first rule that has it, or as it is.
func (m DialMap) Translate(addr netip.Addr) netip.Addr {
	for _, r := range m.rules {
		if !r.from.Contains(addr) {
			continue
		}
		a, to := addr.AsSlice(), r.to.Addr().AsSlice()
		for i := range a {
			keep := byte(0xff)
			if n := r.from.Bits() - 8*i; n >= 8 {
				keep = 0
			} else if n > 0 {
				keep = 0xff >> n
			}
			a[i] = a[i]&keep | to[i]
		}
		out, _ := netip.AddrFromSlice(a)
		return out
	}
	return addr
}

// Dialer dials the translated addresses.
func (m DialMap) Dialer() Dialer {
	d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: -1}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if ap, err := netip.ParseAddrPort(address); err == nil {
			address = netip.AddrPortFrom(m.Translate(ap.Addr()), ap.Port()).String()
		}
		return d.DialContext(ctx, network, address)
	}
}

// Client is an HTTP client for pods. There may be thousands, so its connections are small, one per pod, and do not outlive
// the time in which a pod is asked often.
func Client(dial Dialer) *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: 3 * time.Second, ReadBufferSize: 2048, WriteBufferSize: 1024,
			DisableCompression: true, MaxResponseHeaderBytes: 16 << 10},
		// A pod that sends us elsewhere is not the one that we asked.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
