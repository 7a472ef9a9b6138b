package drain

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"
)

// Nginx reads stub_status. It cannot tell nginx to let connections go without a restart, so a drain only watches until
// they have ended by themselves. Idle keep-alive connections count as open; keepalive_timeout bounds them.
type Nginx struct {
	client *http.Client
	port   string
	path   string
}

// NewNginx makes the method for the port and the path of stub_status, "/nginx_status" by default.
func NewNginx(dial Dialer, port int32, path string) *Nginx {
	// stub_status counts the connection that asks, so each question has one of its own.
	client := Client(dial)
	client.Transport.(*http.Transport).DisableKeepAlives = true
	return &Nginx{client: client, port: strconv.Itoa(int(port)), path: cmp.Or(path, "/nginx_status")}
}

// Read asks for the page. The connection that it asks on is not counted.
func (n *Nginx) Read(ctx context.Context, host string) (Connections, error) {
	body, err := ask(ctx, n.client, http.MethodGet, address(host, n.port, n.path))
	if err != nil {
		return Connections{}, err
	}
	return parseNginx(body)
}

// parseNginx reads
//
//	Active connections: 2
//	server accepts handled requests
//	 7 7 9
//	Reading: 0 Writing: 1 Waiting: 1
func parseNginx(body []byte) (Connections, error) {
	lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	bad := fmt.Errorf("the status page answered %.60q, which is not what stub_status shows", body)
	if len(lines) < 3 {
		return Connections{}, bad
	}
	number, ok := bytes.CutPrefix(lines[0], []byte("Active connections:"))
	if !ok {
		return Connections{}, bad
	}
	open, err := strconv.ParseInt(string(bytes.TrimSpace(number)), 10, 64)
	fields := bytes.Fields(lines[2])
	if err != nil || open < 0 || len(fields) < 3 {
		return Connections{}, bad
	}
	accepted, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil || accepted < 0 {
		return Connections{}, bad
	}
	return Connections{Open: max(open-1, 0), Accepted: accepted}, nil
}

// Drain is ErrCannot.
func (n *Nginx) Drain(context.Context, string) error { return ErrCannot }

// Undrain is ErrCannot.
func (n *Nginx) Undrain(context.Context, string) error { return ErrCannot }

// Reset is ErrCannot.
func (n *Nginx) Reset(context.Context, string) (int64, error) { return 0, ErrCannot }
