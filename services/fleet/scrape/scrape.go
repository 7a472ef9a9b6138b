// Package scrape reads single counters from what a pod shows to Prometheus. Start at Scraper.
package scrape

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/drain"
)

// maxBody bounds what is read of one pod, in bytes.
const maxBody = 8 << 20

// Scraper reads the counters of pods. It is safe for concurrent use.
type Scraper struct{ client *http.Client }

// New makes a Scraper that reaches pods with dial.
func New(dial drain.Dialer) *Scraper { return &Scraper{client: drain.Client(dial)} }

// Read sums the two counters of a spec over their labels. A pod that does not show the requests has no answer rather than a
// zero; errors without a sample are none, because labelled counters appear with their first error.
func (s *Scraper) Read(ctx context.Context, host string, spec *fleet.MetricsSpec) (fleet.Counters, error) {
	target := "http://" + net.JoinHostPort(host, strconv.Itoa(int(spec.Port))) + spec.Path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fleet.Counters{}, err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	res, err := s.client.Do(req)
	if err != nil {
		return fleet.Counters{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fleet.Counters{}, fmt.Errorf("GET %s answered %s", target, res.Status)
	}
	c, err := Parse(io.LimitReader(res.Body, maxBody), spec.Requests, spec.Errors)
	if err != nil {
		return c, fmt.Errorf("GET %s: %w", target, err)
	}
	return c, nil
}

var errNotShown = errors.New("the counter of requests is not shown")

// Parse reads the Prometheus text format 0.0.4 and OpenMetrics text and sums the samples of the two names.
func Parse(r io.Reader, requests, errs string) (fleet.Counters, error) {
	var c fleet.Counters
	shown := false
	lines := bufio.NewReaderSize(r, 4096)
	for {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		if v, ok := sample(line, requests); ok && !long {
			c.Requests, shown = c.Requests+v, true
		}
		if v, ok := sample(line, errs); ok && !long {
			c.Errors += v
		}
		for errors.Is(err, bufio.ErrBufferFull) { // a line of no sane counter: skip the rest of it
			_, err = lines.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fleet.Counters{}, err
		}
	}
	if !shown {
		return fleet.Counters{}, fmt.Errorf("%s: %w", requests, errNotShown)
	}
	return c, nil
}

// sample is the value of a line `name{labels} value [timestamp]`.
func sample(line []byte, name string) (float64, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(name))
	if !ok || name == "" || len(rest) == 0 {
		return 0, false
	}
	switch rest[0] {
	case '{':
		end := labelsEnd(rest)
		if end < 0 {
			return 0, false
		}
		rest = rest[end+1:]
	case ' ', '\t':
	default:
		return 0, false // a longer name
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(fields[0]), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return 0, false
	}
	return v, true
}

// labelsEnd is the index of the closing brace of {a="b"}, whose values may hold braces and escaped quotes.
func labelsEnd(b []byte) int {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case !quoted && b[i] == '}':
			return i
		}
	}
	return -1
}
