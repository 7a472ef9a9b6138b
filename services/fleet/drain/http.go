package drain

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// HTTP drains pods that have hooks of their own: POST drain, undrain and reset, and GET connections, which answers
//
//	{"open":3,"accepted":120,"last_accepted":"2026-01-02T15:04:05.999999999Z","draining":false}
//
// while reset answers {"reset":2}. Hooks answer 2xx when they did it. A pod without reset answers 404 or 405 to it.
type HTTP struct {
	client *http.Client
	port   string
	path   string
}

// NewHTTP makes the method for hooks below a base path, "/" by default.
func NewHTTP(dial Dialer, port int32, path string) *HTTP {
	return &HTTP{client: Client(dial), port: strconv.Itoa(int(port)), path: strings.TrimSuffix(path, "/")}
}

// Read asks GET connections.
func (h *HTTP) Read(ctx context.Context, host string) (Connections, error) {
	body, err := ask(ctx, h.client, http.MethodGet, address(host, h.port, h.path+"/connections"))
	if err != nil {
		return Connections{}, err
	}
	return parseHook(body)
}

func parseHook(body []byte) (Connections, error) {
	var answer struct {
		Open         *int64    `json:"open"`
		Accepted     int64     `json:"accepted"`
		LastAccepted time.Time `json:"last_accepted"`
		Draining     bool      `json:"draining"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Connections{}, fmt.Errorf("the connections hook answered %.60q, which is not the JSON that is expected: %w", body, err)
	}
	if answer.Open == nil || *answer.Open < 0 || answer.Accepted < 0 {
		return Connections{}, fmt.Errorf("the connections hook answered %.60q without a number of open connections", body)
	}
	return Connections{Open: *answer.Open, Accepted: answer.Accepted, LastAccepted: answer.LastAccepted, Draining: answer.Draining}, nil
}

// Drain asks POST drain.
func (h *HTTP) Drain(ctx context.Context, host string) error {
	_, err := ask(ctx, h.client, http.MethodPost, address(host, h.port, h.path+"/drain"))
	return err
}

// Undrain asks POST undrain.
func (h *HTTP) Undrain(ctx context.Context, host string) error {
	_, err := ask(ctx, h.client, http.MethodPost, address(host, h.port, h.path+"/undrain"))
	return err
}

// Reset asks POST reset.
func (h *HTTP) Reset(ctx context.Context, host string) (int64, error) {
	body, err := ask(ctx, h.client, http.MethodPost, address(host, h.port, h.path+"/reset"))
	if err != nil {
		return 0, err
	}
	var answer struct {
		Reset *int64 `json:"reset"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Reset == nil || *answer.Reset < 0 {
		return 0, fmt.Errorf("the reset hook answered %.60q and not how many connections it reset", body)
	}
	return *answer.Reset, nil
}

func address(host, port, path string) string { return "http://" + net.JoinHostPort(host, port) + path }

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// ask sends a request without a body and returns the body of a 2xx answer.
func ask(ctx context.Context, client *http.Client, method, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s %s: the answer broke off: %w", method, target, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s %s answered more than %d bytes", method, target, maxAnswer)
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusMethodNotAllowed:
		return nil, fmt.Errorf("%s %s answered %s; the pod has no such hook: %w", method, target, res.Status, ErrCannot)
	case res.StatusCode/100 != 2:
		return nil, fmt.Errorf("%s %s answered %s", method, target, res.Status)
	}
	return body, nil
}
