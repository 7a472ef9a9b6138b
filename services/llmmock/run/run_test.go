package run

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
)

func TestMain(m *testing.M) {
	if scenario := os.Getenv(serveAlone); scenario != "" {
		os.Exit(alone(scenario))
	}
	goleak.VerifyTestMain(m)
}

// serveAlone names the variable that makes of the test's binary a mock with that scenario, in a process that can be counted.
const serveAlone = "EDGEHOLD_TEST_SERVE"

func alone(scenario string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := Config{Service: service.Config{Name: "llmmock", LogLevel: "error"}, API: "127.0.0.1:0", Scenarios: []string{scenario}}
	if err := Run(ctx, c, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

// addresses are what a run prints when it is ready.
type addresses struct{ Address, API string }

// start runs it until the test ends.
func start(t testing.TB, c Config) addresses {
	t.Helper()
	c.Service.Name, c.Service.Log = "llmmock", t.Output()
	if c.API == "" {
		c.API = "127.0.0.1:0"
	}
	ctx, cancel := context.WithCancel(context.Background())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Run(ctx, c, out)
		out.CloseWithError(err)
		done <- err
	}()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	line, err := bufio.NewReader(in).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var a addresses
	if err := json.Unmarshal(line, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func chat(t *testing.T, a addresses, key, text string, stream bool) (int, string) {
	t.Helper()
	body := fmt.Sprintf(`{"model":"gpt-4o","stream":%t,"messages":[{"role":"user","content":%q}]}`, stream, text)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.API+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// Two processes answer the same, and a process answers the same request the second time as every other does.
func TestSameInEveryProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte("name: half\nseed: 3\nfaults:\n- {when: {probability: 0.5}, do: {status: 503}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var first []string
	for range 2 {
		a := start(t, Config{Scenarios: []string{file}})
		var got []string
		failed := 0
		for i := range 40 {
			status, text := chat(t, a, "sk-test", fmt.Sprintf("question %d", i/2), i%3 == 0)
			got = append(got, fmt.Sprint(status, text))
			if status != 200 {
				failed++
			}
		}
		if failed < 8 || failed > 32 {
			t.Errorf("%d of 40 failed; half of them should", failed)
		}
		if first == nil {
			first = got
		} else if strings.Join(first, "\n") != strings.Join(got, "\n") {
			t.Errorf("the first process answered\n%s\nand the second\n%s", strings.Join(first, "\n"), strings.Join(got, "\n"))
		}
	}
}

func TestScenariosAreFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("name: mine\nanswers:\n- say: one\n")
	a := start(t, Config{Scenarios: []string{file}})
	says := func(want string) error {
		if status, text := chat(t, a, "k", "hello", false); status != 200 || !strings.Contains(text, `"content":"`+want+`"`) {
			return fmt.Errorf("%d %s; want %q", status, text, want)
		}
		return nil
	}
	if err := says("one"); err != nil {
		t.Error(err)
	}
	write("name: mine\nanswers:\n- say: two\n")
	eventually(t, func() error { return says("two") })
	write("name: mine\nanswers:\n- sayy: three\n")
	eventually(t, func() error {
		text := get(t, "http://"+a.Address+"/healthz")
		if !strings.Contains(text, "scenarios") {
			return fmt.Errorf("health says %q", text)
		}
		return nil
	})
	if err := says("two"); err != nil {
		t.Errorf("after a file that was refused: %v", err)
	}
	if metrics := get(t, "http://"+a.Address+"/metrics"); !strings.Contains(metrics, `edgehold_mock_requests_total{scenario="mine",status="200",vendor="openai"}`) {
		t.Errorf("no metrics of the scenario:\n%s", metrics)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually repeats a look at files that are followed by looking at them.
func eventually(t *testing.T, look func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = look(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func TestBeyondLoopback(t *testing.T) {
	c := Config{Service: service.Config{Name: "llmmock"}, API: "0.0.0.0:0"}
	if err := c.Validate(); problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), "--api-listen") {
		t.Errorf("without authentication: %v", err)
	}
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("tokens: [{name: ci, token: at-least-sixteen-bytes, roles: [viewer]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, Config{Service: service.Config{TokensFile: tokens}, API: "0.0.0.0:0"})
	a.API = "127.0.0.1" + a.API[strings.LastIndex(a.API, ":"):]
	if status, text := chat(t, a, "at-least-sixteen-bytes", "hello", false); status != 200 {
		t.Errorf("a token of the file: %d %s", status, text)
	}
	if status, text := chat(t, a, "sk-another", "hello", false); status != 401 || !strings.Contains(text, "invalid_api_key") {
		t.Errorf("another key: %d %s", status, text)
	}
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		alter func(*Config)
		says  string
	}{
		{func(c *Config) { c.API = "7400" }, "--api-listen"},
		{func(c *Config) { c.MaxRequestBytes = -1 }, "--api-max-request-bytes"},
		{func(c *Config) { c.Ready = []string{"nope"} }, "cold-start"},
		{func(c *Config) { c.Default = "nope"; c.Ready = []string{"slow-model"} }, "--default"},
		{func(c *Config) { c.Scenarios = []string{"/nowhere.yaml"} }, "/nowhere.yaml"},
		{func(c *Config) { c.Service.LogLevel = "loud" }, "--log-level"},
	} {
		c := Config{Service: service.Config{Name: "llmmock", Log: io.Discard, AuditLog: filepath.Join(t.TempDir(), "audit")}, API: "127.0.0.1:0"}
		tc.alter(&c)
		if err := Run(t.Context(), c, io.Discard); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("got %v, want …%s…", err, tc.says)
		}
	}
}
