package run

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// streams are requests for a stream, one for each way in which a vendor streams.
var streams = map[string]struct{ path, header, body string }{
	"chat":            {"/v1/chat/completions", "", `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}`},
	"responses":       {"/v1/responses", "", `{"model":"gpt-4o","stream":true,"input":"x"}`},
	"completions":     {"/v1/completions", "", `{"model":"gpt-3.5-turbo-instruct","stream":true,"prompt":"x"}`},
	"azure":           {"/openai/deployments/ours/chat/completions?api-version=2024-10-21", "", `{"stream":true,"messages":[{"role":"user","content":"x"}]}`},
	"messages":        {"/v1/messages", "Anthropic-Version: 2023-06-01\r\n", `{"model":"claude-haiku-4-5","max_tokens":500,"stream":true,"messages":[{"role":"user","content":"x"}]}`},
	"gemini":          {"/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "", `{"contents":[{"parts":[{"text":"x"}]}]}`},
	"gemini array":    {"/v1beta/models/gemini-2.5-flash:streamGenerateContent", "", `{"contents":[{"parts":[{"text":"x"}]}]}`},
	"converse stream": {"/model/amazon.nova-lite-v1:0/converse-stream", "", `{"messages":[{"role":"user","content":[{"text":"x"}]}]}`},
	"invoke stream":   {"/model/amazon.titan-text-express-v1/invoke-with-response-stream", "", `{"inputText":"x"}`},
}

// Each is a scenario of its own: what goes on while the client vanishes. waits says that nothing comes before it does.
var goings = []struct {
	name, yaml string
	waits      bool
}{
	{"between-tokens", "latency: {interToken: 1h}", false},
	{"before-tokens", "latency: {firstToken: 1h}", true},
	{"streaming", "answers:\n- lorem: 20000", false},
	{"stall", "faults:\n- {when: always, do: {kind: stall, atToken: 1, wait: 1h}}", false},
	{"slow-accept", "faults:\n- {when: always, do: {kind: slow_accept, wait: 1h}}", true},
	{"slow-body", "faults:\n- {when: always, do: {kind: slow_body, wait: 20ms}}", false},
	{"reset", "latency: {interToken: 2ms}\nfaults:\n- {when: always, do: {kind: reset_mid_stream, atToken: 5}}", false},
	{"cut", "latency: {interToken: 2ms}\nfaults:\n- {when: always, do: {kind: cut_mid_event, atToken: 5}}", false},
	{"error", "latency: {interToken: 2ms}\nfaults:\n- {when: always, do: {kind: error_mid_stream, atToken: 5, status: 529}}", false},
	{"reorder", "latency: {interToken: 1h}\nfaults:\n- {when: always, do: {kind: reorder, atToken: 0}}", true},
}

// Clients that vanish in the middle, in whatever way and whatever goes on, leave nothing behind: not an exchange, and not a goroutine.
// (goleak looks at the end of all tests too.)
func TestClientsVanish(t *testing.T) {
	var yaml strings.Builder
	for _, g := range goings {
		fmt.Fprintf(&yaml, "name: %s\n%s\n---\n", g.name, g.yaml)
	}
	a := start(t, Config{Scenarios: []string{write(t, "s.yaml", strings.TrimSuffix(yaml.String(), "---\n"))}})
	// What is made at first use is not left behind.
	for name, s := range streams {
		if _, err := vanish(a.API, s.path, s.header, s.body, "", false, "close"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	settled := runtime.NumGoroutine()
	const each = 4 // of each kind of stream, going and vanishing: 1,080 in all
	for _, g := range goings {
		var clients sync.WaitGroup
		for name, s := range streams {
			for i := range each * len(vanishings) {
				how := vanishings[i%len(vanishings)]
				clients.Go(func() {
					if got, err := vanish(a.API, s.path, s.header, s.body, g.name, g.waits, how); err != nil {
						t.Errorf("%s, %s, %s: %q %v", g.name, name, how, got, err)
					}
				})
			}
		}
		clients.Wait()
	}
	eventually(t, func() error {
		for line := range strings.SplitSeq(get(t, "http://"+a.Address+"/metrics"), "\n") {
			if value, ok := strings.CutPrefix(line, "edgehold_mock_exchanges_open "); ok && value != "0" {
				return fmt.Errorf("%s exchanges are open", value)
			}
		}
		if n := runtime.NumGoroutine(); n > settled+3 { // of this look itself
			var stacks [1 << 16]byte
			return fmt.Errorf("%d goroutines, before there were %d:\n%s", n, settled, stacks[:runtime.Stack(stacks[:], true)])
		}
		return nil
	})
	metrics := get(t, "http://"+a.Address+"/metrics")
	served := 0
	for line := range strings.SplitSeq(metrics, "\n") {
		if strings.HasPrefix(line, "edgehold_mock_ends_total{") {
			n, err := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1:])
			if err != nil {
				t.Error(err)
			}
			served += n
		}
	}
	// A reset may overtake a request whose answer nobody waited for.
	most, overtaken := len(streams)*(1+each*len(vanishings)*len(goings)), len(streams)*each*3
	if served > most || served < most-overtaken {
		t.Errorf("%d exchanges ended, want %d or up to %d fewer", served, most, overtaken)
	}
}

// vanishings are the ways to go: with a FIN, with a reset, and with half a connection first.
var vanishings = []string{"close", "reset", "half"}

// vanish asks, reads the beginning of the answer, unless nothing is to come, and goes.
func vanish(api, path, header, body, scenario string, waits bool, how string) (read []byte, err error) {
	conn, err := net.Dial("tcp", api)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if scenario != "" {
		header += "X-Edgehold-Scenario: " + scenario + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", path, header, len(body), body); err != nil {
		return nil, err
	}
	if !waits {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		read = make([]byte, 300)
		n, err := io.ReadAtLeast(conn, read, 40)
		read = read[:n]
		if scenario == "reset" && errors.Is(err, syscall.ECONNRESET) {
			return read, nil
		}
		if err != nil || !bytes.HasPrefix(read, []byte("HTTP/1.1 200 OK\r\n")) {
			return read, fmt.Errorf("no answer: %w", err)
		}
	}
	tcp := conn.(*net.TCPConn)
	switch how {
	case "reset":
		_ = tcp.SetLinger(0)
	case "half":
		_ = tcp.CloseWrite() // when the fault was quicker there is nothing to close
	}
	return read, nil
}
