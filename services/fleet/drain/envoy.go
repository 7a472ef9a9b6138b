package drain

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Envoy drains through the admin interface.
//
// It fails the server's own health check (POST /healthcheck/fail): listeners whose drain_type is DEFAULT then answer HTTP/1
// with Connection: close and send GOAWAY on HTTP/2, and go on accepting. POST /healthcheck/ok takes it back. The endpoint
// /drain_listeners is not used, because what it begins ends only with a restart. While it drains, /ready answers 503, so a
// readiness probe should ask a listener rather than /ready, or the pod counts as not ready until it is undrained. Raw TCP
// listeners are told nothing: their connections end by themselves or stay. Nothing can be reset.
type Envoy struct {
	client *http.Client
	port   string
}

// NewEnvoy makes the method for the admin port.
func NewEnvoy(dial Dialer, port int32) *Envoy {
	return &Envoy{client: Client(dial), port: strconv.Itoa(int(port))}
}

// envoyStats are the statistics that are read, as a query.
var envoyStats = "/stats?" + url.Values{"format": {"json"}, "filter": {`^(server\.state|listener\..*\.downstream_cx_(active|total))$`}}.Encode()

// Read sums the connections of all listeners but the admin's own.
func (e *Envoy) Read(ctx context.Context, host string) (Connections, error) {
	body, err := ask(ctx, e.client, http.MethodGet, address(host, e.port, envoyStats))
	if err != nil {
		return Connections{}, err
	}
	return parseEnvoy(body)
}

// envoyDraining is the value of server.state while the health check fails.
const envoyDraining = 1

func parseEnvoy(body []byte) (Connections, error) {
	var answer struct {
		Stats []struct {
			Name  string   `json:"name"`
			Value *float64 `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Connections{}, fmt.Errorf("the admin interface answered %.60q, which is not its JSON of stats: %w", body, err)
	}
	var c Connections
	state, listeners := false, 0
	for _, s := range answer.Stats {
		if s.Value == nil || *s.Value < 0 || *s.Value > 1<<52 {
			continue // histograms have no value
		}
		v := int64(*s.Value)
		rest, listener := strings.CutPrefix(s.Name, "listener.")
		switch {
		case s.Name == "server.state":
			state, c.Draining = true, v == envoyDraining
		case !listener || strings.HasPrefix(rest, "admin.") || strings.Contains(rest, ".worker_"):
			// The same connections once more by worker thread, and ourselves.
		case strings.HasSuffix(rest, ".downstream_cx_active"):
			c.Open += v
			listeners++
		case strings.HasSuffix(rest, ".downstream_cx_total"):
			c.Accepted += v
		}
	}
	if !state || listeners == 0 {
		return Connections{}, fmt.Errorf("the admin interface shows no server.state or no listener.*.downstream_cx_active; is stats_matcher or stats_config leaving them out?")
	}
	return c, nil
}

// Drain asks POST /healthcheck/fail.
func (e *Envoy) Drain(ctx context.Context, host string) error {
	_, err := ask(ctx, e.client, http.MethodPost, address(host, e.port, "/healthcheck/fail"))
	return err
}

// Undrain asks POST /healthcheck/ok.
func (e *Envoy) Undrain(ctx context.Context, host string) error {
	_, err := ask(ctx, e.client, http.MethodPost, address(host, e.port, "/healthcheck/ok"))
	return err
}

// Reset is ErrCannot.
func (e *Envoy) Reset(context.Context, string) (int64, error) { return 0, ErrCannot }
