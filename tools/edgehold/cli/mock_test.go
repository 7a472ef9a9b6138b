package cli

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestMockScenarios(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	for file, text := range map[string]string{good: "name: mine\nanswers:\n- echo: true\n", bad: "name: mine\nlatency:\n  firstTokn: 5ms\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args []string
		exit int
		says string // in what is printed, to either stream
	}{
		{[]string{"scenario", "list"}, ExitDone, "regional-outage"},
		{[]string{"scenario", "list", "--output", "json"}, ExitDone, `"name": "slow-model"`},
		{[]string{"scenario", "show", "tool-loop"}, ExitDone, "name: tool-loop"},
		{[]string{"scenario", "show", "nope"}, ExitUsage, "cold-start"},
		{[]string{"scenario", "check", good}, ExitDone, "nothing wrong"},
		{[]string{"scenario", "check", bad}, ExitUsage, "bad.yaml:3:3"},
		{[]string{"scenario", "check"}, ExitUsage, "arg"},
		{[]string{"scenario", "schema"}, ExitDone, `"$schema"`},
		{[]string{"run", "nope"}, ExitUsage, "name of a ready scenario"},
		{[]string{"run", "--listen", "0.0.0.0:0"}, ExitUsage, "beyond loopback"},
	} {
		out, diag, exit := run(t, &fakeRunbooks{}, &fakeFleets{}, append([]string{"mock"}, tc.args...)...)
		if exit != tc.exit || !strings.Contains(out+diag, tc.says) {
			t.Errorf("%v: exit %d, want %d; %q is not in\n%s%s", tc.args, exit, tc.exit, tc.says, out, diag)
		}
	}
}

func TestMockRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	root := Command("test")
	in, out := io.Pipe()
	root.SetOut(out)
	root.SetErr(t.Output())
	root.SetArgs([]string{"mock", "run", "--listen", "127.0.0.1:0"})
	exit := make(chan int, 1)
	go func() { exit <- Main(ctx, root); out.Close() }()
	text := make([]byte, 4096)
	n, err := in.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, in) }() // what else it says
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(string(text[:n]))
	r, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if r.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"chat.completion"`)) {
		t.Errorf("%s %s", r.Status, body)
	}
	cancel()
	if got := <-exit; got != ExitDone {
		t.Errorf("exit %d", got)
	}
}
