// Package load sends open-loop traffic to many targets and accounts for every answer.
//
// Open loop: when a request is to be sent is decided by a schedule that nothing can hold up, and its latency is counted from
// then. A target that stalls is seen to stall; a generator that waits for the answer before it asks again would hide it
// (coordinated omission).
//
// # What a fair client does, and what is counted
//
// Nothing is retried and nothing is left out. A request that was written and did not get its whole answer is failed, with a
// reason. That is stricter than RFC 9112 §9.3.1, which lets a client repeat a GET when a kept connection turns out to be
// closed, and than Go's and the browsers' clients, which do so unseen. The choices that are left:
//
//   - A kept connection is looked at before it is used. If the server has closed it by then, no request was lost: another
//     connection is taken (RFC 9112 §9.6 asks clients to watch for that).
//   - "Connection: close" and "Keep-Alive: timeout" are obeyed: a connection is not used again after the first, nor when it has
//     rested until a second before the second.
//   - The pool is first in, first out, so that every kept connection is used as often as any other and none rests unseen.
//   - HTTP/2 streams above the last one that a GOAWAY names, and those refused with REFUSED_STREAM, were never processed, which
//     the protocol says so that they are sent again (RFC 9113 §6.8, §8.7). They are, at most twice, on another connection. Their
//     latency runs on from the first time and their number is Result.Resent.
//
// Start at Start.
package load

import (
	"math"
	"net"
	"net/url"
	"strconv"
	"time"

	"edgehold.internal/libs/problem"
)

// Target is one PoP's front door.
type Target struct {
	// Pop is the name in the result; unique.
	Pop string `json:"pop"`
	// Address is the host:port that is dialled.
	Address string `json:"address"`
	// URL gives the Host and the path of the requests; empty is http://Address/. It is never dialled.
	URL string `json:"url"`
}

// Arrivals is how requests are spread over time.
type Arrivals string

// The arrivals.
const (
	// Poisson arrivals are independent of each other, as those of many users are.
	Poisson Arrivals = "poisson"
	// Constant arrivals are evenly spaced.
	Constant Arrivals = "constant"
)

// Config of a run. Default returns one that needs only Targets.
type Config struct {
	// Targets, 1 to MaxTargets.
	Targets []Target `json:"targets"`
	// Rate of requests per second and target, 0 to 50,000; streams are extra.
	Rate float64 `json:"rate"`
	// Arrivals around that rate.
	Arrivals Arrivals `json:"arrivals"`
	// NewConnShare of the requests go over an HTTP/1.1 connection of their own, which is opened and closed for them. 0 to 1.
	NewConnShare float64 `json:"new_conn_share"`
	// H2Share of the requests go over a kept HTTP/2 connection. 0 to 1, and no more than 1 with NewConnShare; the rest use the pool.
	H2Share float64 `json:"h2_share"`
	// Pool is the number of kept HTTP/1.1 connections per target, 1 to 1,000. Requests that find none at rest wait.
	Pool int `json:"pool"`
	// Streams and H2Streams are the long streams per target over HTTP/1.1 and HTTP/2, each over a connection of its own, 0 to 1,000.
	Streams   int `json:"streams"`
	H2Streams int `json:"h2_streams"`
	// StreamPath is asked for by the streams.
	StreamPath string `json:"stream_path"`
	// Timeout of a request, counted from when it was to be sent. 1 ms to 10 min.
	Timeout time.Duration `json:"timeout_ns"`
	// StreamStall is how long a stream may stay silent before it counts as failed. 1 ms to 10 min.
	StreamStall time.Duration `json:"stream_stall_ns"`
	// MaxInFlight bounds the unanswered requests per target; those above fail as Overload and are the generator's. 1 to 100,000.
	MaxInFlight int `json:"max_in_flight"`
	// MaxFailures is how many failures are kept whole; the rest are counted. 0 to 1,000,000.
	MaxFailures int `json:"max_failures"`
	// Seed decides the schedule and which request takes which kind of connection.
	Seed uint64 `json:"seed"`
}

// MaxTargets bounds the goroutines and the result.
const MaxTargets = 1000

// Default is a mix of all kinds of connections.
func Default() Config {
	return Config{
		Rate:         100,
		Arrivals:     Poisson,
		NewConnShare: 0.1,
		H2Share:      0.1,
		Pool:         8,
		Streams:      2,
		H2Streams:    1,
		StreamPath:   "/stream?interval=500ms&for=1h",
		Timeout:      10 * time.Second,
		StreamStall:  10 * time.Second,
		MaxInFlight:  2000,
		MaxFailures:  10_000,
		Seed:         1,
	}
}

// Validate names the first field that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	if n := len(c.Targets); n < 1 || n > MaxTargets {
		return problem.Invalidf("targets", "%d of them is not allowed; use 1 to %d", n, MaxTargets)
	}
	seen := make(map[string]bool, len(c.Targets))
	for i, t := range c.Targets {
		field := "targets[" + strconv.Itoa(i) + "]"
		if t.Pop == "" || seen[t.Pop] {
			return problem.Invalidf(field+".pop", "%q is empty or used twice; each target needs a name of its own", t.Pop)
		}
		seen[t.Pop] = true
		if _, port, err := net.SplitHostPort(t.Address); err != nil || port == "" {
			return problem.Invalidf(field+".address", "%q is not host:port", t.Address)
		}
		if t.URL == "" {
			continue
		}
		if u, err := url.Parse(t.URL); err != nil || u.Scheme != "http" || u.Host == "" {
			return problem.Invalidf(field+".url", "%q is not allowed; use http://host/path", t.URL)
		}
	}
	if c.Arrivals != Poisson && c.Arrivals != Constant {
		return problem.Invalidf("arrivals", "%q is not allowed; use %q or %q", c.Arrivals, Poisson, Constant)
	}
	for _, f := range []struct {
		name             string
		value, low, high float64
	}{
		{"rate", c.Rate, 0, 50_000},
		{"new_conn_share", c.NewConnShare, 0, 1},
		{"h2_share", c.H2Share, 0, 1},
		{"new_conn_share + h2_share", c.NewConnShare + c.H2Share, 0, 1},
		{"pool", float64(c.Pool), 1, 1000},
		{"streams", float64(c.Streams), 0, 1000},
		{"h2_streams", float64(c.H2Streams), 0, 1000},
		{"timeout", c.Timeout.Seconds(), 0.001, 600},
		{"stream_stall", c.StreamStall.Seconds(), 0.001, 600},
		{"max_in_flight", float64(c.MaxInFlight), 1, 100_000},
		{"max_failures", float64(c.MaxFailures), 0, 1_000_000},
	} {
		if math.IsNaN(f.value) || f.value < f.low || f.value > f.high {
			return problem.Invalidf(f.name, "%v is not allowed; use %v to %v", f.value, f.low, f.high)
		}
	}
	if c.Rate == 0 && c.Streams == 0 && c.H2Streams == 0 {
		return problem.Invalidf("rate", "is 0 and there are no streams, so nothing would be sent")
	}
	if u, err := url.ParseRequestURI(c.StreamPath); err != nil || u.Host != "" || u.Path == "" || u.Path[0] != '/' {
		return problem.Invalidf("stream_path", "%q is not allowed; use a path such as /stream?interval=500ms", c.StreamPath)
	}
	return nil
}
