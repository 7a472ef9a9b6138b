package service

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"connectrpc.com/grpchealth"
)

// SetServing sets the health of one mounted service, which Handle and Run have set to serving. It is for a service that
// cannot do its work for now, and it takes nothing away: calls are still served. After the stop began it does nothing.
func (s *Server) SetServing(serviceName string, serving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving && slices.Contains(s.services, serviceName) {
		s.health.SetStatus(serviceName, status(serving))
	}
}

func (s *Server) setServing(serving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = serving
	for _, name := range s.services {
		s.health.SetStatus(name, status(serving))
	}
	s.health.SetStatus("", status(serving))
}

func status(serving bool) grpchealth.Status {
	if serving {
		return grpchealth.StatusServing
	}
	return grpchealth.StatusNotServing
}

// SetWarning raises the warning of that name with a text that tells the operator what to do, or takes it back when text
// is empty. It is logged when it changes, shown as edgehold_warning{name} and by name at /healthz. Names are constants of
// the program: each makes a time series.
func (s *Server) SetWarning(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, was := s.warnings[name]
	switch {
	case text == "" && was:
		delete(s.warnings, name)
		s.log.Info("warning over", "warning", name)
	case text != "" && text != before:
		s.warnings[name] = text
		s.log.Warn(text, "warning", name)
	}
	value := 0.
	if text != "" {
		value = 1
	}
	s.metrics.warning.WithLabelValues(name).Set(value)
}

// serveHealth answers probes: 200 while the process serves, 503 before and when it stops. Warnings are no reason to take
// it out of service; their texts are not for everybody.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	serving, names := s.serving, slices.Sorted(maps.Keys(s.warnings))
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !serving {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, "not serving")
		return
	}
	_, _ = fmt.Fprintln(w, "serving")
	for _, name := range names {
		_, _ = fmt.Fprintln(w, "warning:", name)
	}
}
