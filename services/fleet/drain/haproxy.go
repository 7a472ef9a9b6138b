package drain

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// HAProxy drains through the runtime API, which must listen on TCP with level admin ("stats socket ipv4@0.0.0.0:9999 level
// admin"; let a NetworkPolicy allow the controller alone).
//
// What the runtime API offers by itself is either no drain (disable frontend refuses new connections and leaves the old ones)
// or cannot be taken back (shutdown frontend, soft stop). So the configuration holds a switch that can be:
//
//	global
//	  set-var proc.edgehold_draining bool(false)
//	frontend …
//	  http-after-response set-header Connection close if { var(proc.edgehold_draining) -m bool }
//
// Keep-alive connections of HTTP/1 then end with their next answer. HTTP/2 and TCP ones are not told; they end by
// themselves, or are reset. Frontends whose name begins with "admin" are not counted.
type HAProxy struct {
	dial Dialer
	port string
}

// HAProxyVariable is the variable of the configuration that drains when it is true.
const HAProxyVariable = "proc.edgehold_draining"

// NewHAProxy makes the method for the port of the runtime API.
func NewHAProxy(dial Dialer, port int32) *HAProxy {
	return &HAProxy{dial: dial, port: strconv.Itoa(int(port))}
}

// run sends one line of commands and returns the answers, which end when the other side closes.
func (h *HAProxy) run(ctx context.Context, host, commands string) (string, error) {
	conn, err := h.dial(ctx, "tcp", net.JoinHostPort(host, h.port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, commands+"\n"); err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(conn, maxAnswer+1))
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("the runtime API did not answer in time: %w", ctx.Err())
	case err != nil:
		return "", err
	case len(body) > maxAnswer:
		return "", fmt.Errorf("the runtime API answered more than %d bytes", maxAnswer)
	case bytes.HasPrefix(body, []byte("Permission denied")):
		return "", errors.New("the runtime API refused the command; its stats socket needs level admin")
	}
	return string(body), nil
}

// Read sums the connections of all frontends.
func (h *HAProxy) Read(ctx context.Context, host string) (Connections, error) {
	text, err := h.run(ctx, host, "get var "+HAProxyVariable+";show stat -1 1 -1")
	if err != nil {
		return Connections{}, err
	}
	return parseHAProxy(text)
}

var errNoVariable = errors.New("the configuration has no variable " + HAProxyVariable + "; add to its global section: set-var " + HAProxyVariable + " bool(false)")

func parseHAProxy(text string) (Connections, error) {
	var c Connections
	head, table, ok := strings.Cut(text, "# pxname,")
	value, found := strings.CutPrefix(strings.TrimSpace(head), HAProxyVariable+": type=")
	if !ok || !found {
		if strings.Contains(head, "not found") || strings.Contains(head, "Variable") {
			return c, errNoVariable
		}
		return c, fmt.Errorf("the runtime API answered %.60q, which is neither a variable nor statistics", text)
	}
	c.Draining = strings.Contains(value, "value=<1>")

	rows := csv.NewReader(strings.NewReader("pxname," + strings.TrimSpace(table)))
	rows.FieldsPerRecord = -1
	rows.LazyQuotes = true
	header, err := rows.Read()
	if err != nil {
		return c, fmt.Errorf("the runtime API's statistics have no header: %w", err)
	}
	column := map[string]int{}
	for i, name := range header {
		column[name] = i
	}
	number := func(row []string, name string) (int64, error) {
		i, ok := column[name]
		if !ok || i >= len(row) {
			return 0, fmt.Errorf("the runtime API's statistics have no column %s", name)
		}
		n, err := strconv.ParseInt(row[i], 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("the runtime API's statistics have %s=%.20q, which is no count", name, row[i])
		}
		return n, nil
	}
	frontends := 0
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c, fmt.Errorf("the runtime API's statistics cannot be read: %w", err)
		}
		if len(row) < 2 || row[1] != "FRONTEND" || strings.HasPrefix(row[0], "admin") {
			continue
		}
		open, err := number(row, "scur")
		if err != nil {
			return c, err
		}
		accepted, err := number(row, "stot")
		if err != nil {
			return c, err
		}
		c.Open += open
		c.Accepted += accepted
		frontends++
	}
	if frontends == 0 {
		return c, errors.New("the runtime API shows no frontend")
	}
	return c, nil
}

// Drain sets the variable.
func (h *HAProxy) Drain(ctx context.Context, host string) error { return h.set(ctx, host, "true") }

// Undrain clears it.
func (h *HAProxy) Undrain(ctx context.Context, host string) error { return h.set(ctx, host, "false") }

func (h *HAProxy) set(ctx context.Context, host, value string) error {
	// Setting variables counts as experimental and must be allowed on each connection.
	answer, err := h.run(ctx, host, "experimental-mode on;set var "+HAProxyVariable+" bool("+value+")")
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return fmt.Errorf("the runtime API did not set %s: %.120q", HAProxyVariable, answer)
	}
	return nil
}

// maxSessions is how many sessions are closed with one connection.
const maxSessions = 64

// Reset shuts down every session that has a request under way, and counts those. Idle connections have none: nothing is lost
// on them, and they stay.
func (h *HAProxy) Reset(ctx context.Context, host string) (int64, error) {
	text, err := h.run(ctx, host, "show sess")
	if err != nil {
		return 0, err
	}
	ids := parseSessions(text)
	for begin := 0; begin < len(ids); begin += maxSessions {
		var commands []string
		for _, id := range ids[begin:min(begin+maxSessions, len(ids))] {
			commands = append(commands, "shutdown session "+id)
		}
		if _, err := h.run(ctx, host, strings.Join(commands, ";")); err != nil {
			return 0, err
		}
	}
	return int64(len(ids)), nil
}

// parseSessions finds the ids of sessions of counted frontends in lines such as
//
//	0x55de2816bf60: proto=tcpv4 src=127.0.0.1:34456 fe=edge be=edge srv=<none> …
func parseSessions(text string) []string {
	var ids []string
	for line := range strings.Lines(text) {
		id, rest, ok := strings.Cut(line, ": proto=")
		if !ok || !strings.HasPrefix(id, "0x") {
			continue
		}
		if _, err := strconv.ParseUint(id[2:], 16, 64); err != nil {
			continue
		}
		_, fe, ok := strings.Cut(rest, " fe=")
		fe, _, _ = strings.Cut(fe, " ")
		if ok && fe != "GLOBAL" && !strings.HasPrefix(fe, "admin") {
			ids = append(ids, id)
		}
	}
	return ids
}
