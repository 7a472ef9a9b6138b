// Package serve is the edge proxy of the demo: HTTP/1.1 and HTTP/2 without TLS on one port, an answer that says which
// release gave it, a fault on demand, and hooks by which a live process lets its connections go and takes new ones again.
//
// Start at Server. Listener and readiness are the process's; who is sent here is decided by whoever selects its endpoint, so
// draining changes neither: the old colour stays ready, as the next standby.
package serve

import (
	"net"
	"net/url"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edge"
)

// Config of a Server. Default returns one that needs only Version, Colour and Pop.
type Config struct {
	// Listen is the host:port of the traffic. Port 0 takes a free one.
	Listen string
	// Admin is the host:port of the hooks, the probes and the metrics; never the traffic's.
	Admin string
	// Version, Colour and Pop are on every answer.
	Version, Colour, Pop string
	// Fault that the release starts with; zero is none.
	Fault edge.Fault
	// Upstream is the http URL that requests are passed on to; empty answers them here.
	Upstream string
	// KeepAlive is how long a client may let a kept HTTP/1.1 connection rest before it reuses it, 1 s to 1 h, whole seconds. It
	// is promised on every answer (Keep-Alive: timeout), and the server closes one that rests for KeepAliveMargin longer.
	KeepAlive time.Duration
	// DrainJitter bounds the random time after which a drained server ends each of its streams, so that not all clients come
	// back at once. 0 to 1 min.
	DrainJitter time.Duration
	// LameDuck is how long no new connection must have come before a server that was told to stop closes its listener: the
	// time that the endpoints need to forget it. 0 to 1 min.
	LameDuck time.Duration
	// StopGrace bounds the whole stop; connections that are open then are closed. 0 to 10 min.
	StopGrace time.Duration
}

// KeepAliveMargin is the time between the end of the promise in Keep-Alive and the close. A request that was sent within the
// promise has arrived by then, so no close of a resting connection races a request.
const KeepAliveMargin = 2 * time.Second

// Default is the configuration that the flags start from.
func Default() Config {
	return Config{
		Listen:      "127.0.0.1:8080",
		Admin:       "127.0.0.1:9901",
		KeepAlive:   10 * time.Second,
		DrainJitter: time.Second,
		LameDuck:    time.Second,
		StopGrace:   20 * time.Second,
	}
}

// Validate names the first field that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	for _, f := range []struct{ name, value string }{{"listen", c.Listen}, {"admin", c.Admin}} {
		if _, _, err := net.SplitHostPort(f.value); err != nil {
			return problem.Invalidf(f.name, "%q is not host:port; an example is 127.0.0.1:8080", f.value)
		}
	}
	for _, f := range []struct{ name, value string }{{"version", c.Version}, {"colour", c.Colour}, {"pop", c.Pop}} {
		if !isToken(f.value) {
			return problem.Invalidf(f.name, "%q is not allowed; use 1 to 63 letters, digits, '.', '-' or '_'", f.value)
		}
	}
	if err := c.Fault.Validate(); err != nil {
		return err
	}
	if c.Upstream != "" {
		u, err := url.Parse(c.Upstream)
		if err != nil || u.Scheme != "http" || u.Host == "" {
			return problem.Invalidf("upstream", "%q is not allowed; use http://host:port", c.Upstream)
		}
	}
	for _, f := range []struct {
		name             string
		value, low, high time.Duration
	}{
		{"keep-alive", c.KeepAlive, time.Second, time.Hour},
		{"drain-jitter", c.DrainJitter, 0, time.Minute},
		{"lame-duck", c.LameDuck, 0, time.Minute},
		{"stop-grace", c.StopGrace, 0, 10 * time.Minute},
	} {
		if f.value < f.low || f.value > f.high {
			return problem.Invalidf(f.name, "%v is not allowed; use %v to %v", f.value, f.low, f.high)
		}
	}
	if c.KeepAlive%time.Second != 0 {
		return problem.Invalidf("keep-alive", "%v is not allowed; use whole seconds, which is what the header can say", c.KeepAlive)
	}
	return nil
}

// isToken keeps the values fit for a header and for a label.
func isToken(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
