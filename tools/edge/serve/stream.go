package serve

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"edgehold.internal/tools/edge"
)

// The bounds of a stream's parameters, and what they are when they are left out.
const (
	minInterval, defaultInterval = time.Millisecond, 100 * time.Millisecond
	maxFor, defaultFor           = 24 * time.Hour, time.Hour
)

// serveStream writes a line each interval and edge.EndOfStream at the end, which is when its time is over or, within
// DrainJitter, when the server drains. HTTP/1 cannot say "close" after the header is sent, so there a stream has its
// connection to itself and both end together.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) {
	interval, ok := duration(w, r, "interval", defaultInterval, minInterval, maxFor)
	if !ok {
		return
	}
	length, ok := duration(w, r, "for", defaultFor, 0, maxFor)
	if !ok {
		return
	}
	w.Header()["Content-Type"] = s.text
	if r.ProtoMajor == 1 {
		w.Header()["Connection"] = closeHeader
	}
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	if out.Flush() != nil { // the header first: the client knows now who answers
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	end := time.NewTimer(length)
	defer end.Stop()
	draining := s.drain.channel()
	line := make([]byte, 0, 160)
	for n := int64(1); ; {
		select {
		case <-r.Context().Done():
			return
		case <-draining:
			draining = nil
			end.Reset(rand.N(s.cfg.DrainJitter + 1))
		case <-end.C:
			_, _ = w.Write([]byte(edge.EndOfStream))
			return
		case <-tick.C:
			line = append(append(append(line[:0], s.cfg.Version...), ' '), s.cfg.Colour...)
			line = append(strconv.AppendInt(append(line, ' '), n, 10), '\n')
			if _, err := w.Write(line); err != nil || out.Flush() != nil {
				return
			}
			n++
		}
	}
}

// duration reads a parameter; when it cannot it has answered the request.
func duration(w http.ResponseWriter, r *http.Request, name string, otherwise, low, high time.Duration) (time.Duration, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < low || d > high {
		http.Error(w, name+" must be a duration of "+low.String()+" to "+high.String(), http.StatusBadRequest)
		return 0, false
	}
	return d, true
}
