package run

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What was counted is what operators read.
func TestMetrics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte(`name: mine
answers:
- {lorem: 10}
latency: {firstToken: 1ms, interToken: 1ms}
faults:
- {name: no, match: {contains: fail}, do: {status: 503}}
- {name: half, match: {contains: cut}, do: {kind: cut, atToken: 3}}
timeline:
- {name: dark, kind: dark, match: {contains: dark}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, Config{Scenarios: []string{file}})
	ask := func(text string) {
		r, err := http.Post("http://"+a.API+"/v1/chat/completions", "application/json",
			strings.NewReader(fmt.Sprintf(`{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":%q}]}`, text)))
		if err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
	}
	for _, text := range []string{"a", "a", "fail", "cut", "dark"} {
		ask(text)
	}
	// A connection that was cut may be known as ended here before it is there.
	eventually(t, func() error {
		text := get(t, "http://"+a.Address+"/metrics")
		for _, want := range []string{
			`edgehold_mock_requests_total{scenario="mine",status="200",vendor="openai"} 3`,
			`edgehold_mock_requests_total{scenario="mine",status="503",vendor="openai"} 1`,
			`edgehold_mock_requests_total{scenario="mine",status="0",vendor="openai"} 1`,
			`edgehold_mock_faults_total{fault="dark",scenario="mine",vendor="openai"} 1`,
			`edgehold_mock_faults_total{fault="half",scenario="mine",vendor="openai"} 1`,
			`edgehold_mock_faults_total{fault="no",scenario="mine",vendor="openai"} 1`,
			`edgehold_mock_tokens_total{direction="output",scenario="mine",vendor="openai"} 30`,
			`edgehold_mock_ends_total{end="truncated",scenario="mine",vendor="openai"} 2`,
			`edgehold_mock_exchanges_open 0`,
			`edgehold_mock_late_seconds_count `,
		} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("%s is not in\n%s", want, lines(text, "edgehold_mock"))
			}
		}
		return nil
	})
}

// lines are those that have a word.
func lines(text, word string) string {
	var found []string
	for _, l := range strings.Split(text, "\n") {
		if strings.Contains(l, word) {
			found = append(found, l)
		}
	}
	return strings.Join(found, "\n")
}
