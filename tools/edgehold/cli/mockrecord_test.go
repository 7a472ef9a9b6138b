package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/record"
)

func TestMockRecord(t *testing.T) {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"path":%q,"key":%q}`, r.URL.Path, r.Header.Get("Authorization"))
	}))
	defer provider.Close()
	file := filepath.Join(t.TempDir(), "session.jsonl")
	for _, output := range []string{"table", "json"} {
		ctx, cancel := context.WithCancel(t.Context())
		root := Command("test")
		in, out := io.Pipe()
		root.SetOut(out)
		root.SetErr(t.Output())
		root.SetArgs([]string{"mock", "record", file, "--to", provider.URL, "--listen", "127.0.0.1:0", "--output", output})
		exit := make(chan int, 1)
		go func() { exit <- Main(ctx, root); out.Close() }()
		text := make([]byte, 4096)
		n, err := in.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		said := string(text[:n])
		_, address, _ := strings.Cut(said, "127.0.0.1:")
		port := address[:strings.IndexAny(address, ":\"/")]
		rest := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(in)
			rest <- string(b)
		}()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer sk-abcdefghijklmnopqrst")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if string(body) != `{"path":"/v1/models","key":"Bearer sk-abcdefghijklmnopqrst"}` || err != nil {
			t.Errorf("%s, %v", body, err)
		}
		cancel()
		if got := <-exit; got != ExitDone {
			t.Errorf("exit %d", got)
		}
		said += <-rest
		for _, want := range map[string][]string{
			"table": {"OPENAI_BASE_URL=http://127.0.0.1:" + port + "/v1", "Ctrl-C ends it.", "GET /v1/models", "1 exchange recorded into " + file},
			"json":  {`"ready":true`, `"before":1`, `"path":"/v1/models"`, `"status":200`, `"redacted":1`},
		}[output] {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not in\n%s", want, said)
			}
		}
	}
	f, err := record.Load(file)
	if err != nil || len(f.Exchanges) != 2 || strings.Contains(string(f.Exchanges[0].Answer.Body()), "abcdef") {
		t.Errorf("%+v, %v", f, err)
	}
	for says, args := range map[string][]string{
		"--to: is missing": {file}, "no vendor": {file, "--to", "opnai=https://x"}, "loopback": {file, "--to", "https://x", "--listen", "0.0.0.0:1"}, "arg": {},
		"--redact": {file, "--to", "https://x", "--redact", "("}, "another redaction": {file, "--to", "https://x", "--redact-bodies=false"}, "leave it out": {file, "--to", "https://x/v1"},
	} {
		_, diag, exit := run(t, &fakeRunbooks{}, &fakeFleets{}, append([]string{"mock", "record"}, args...)...)
		want := ExitUsage
		if says == "another redaction" {
			want = ExitRefused
		}
		if exit != want || !strings.Contains(diag, says) {
			t.Errorf("%v: exit %d, %s; want …%s…", args, exit, diag, says)
		}
	}
}

func TestMockDrift(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.jsonl")
	add := func(body string) {
		t.Helper()
		w, err := record.Append(file, record.Head{At: time.Unix(0, 0), Redacted: true}, record.MaxFile)
		if err != nil {
			t.Fatal(err)
		}
		err = w.Write(&record.Exchange{Vendor: llmmock.OpenAI, Request: record.Request{Method: "GET", Path: "/v1/models"},
			Answer: llmmock.Recording{Status: 200, Header: map[string][]string{"Content-Type": {"application/json"}}, Pieces: []llmmock.RecordedPiece{{Data: []byte(body)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	drift := func(args ...string) (string, string, int) {
		return run(t, &fakeRunbooks{}, &fakeFleets{}, append([]string{"mock", "drift"}, args...)...)
	}
	add(`{"object":"list","data":[]}`)
	if out, diag, exit := drift(file); exit != ExitDone || out != "1 exchange: 0 requests, 1 answer and 0 events were held against the specification.\n" || diag != "" {
		t.Errorf("exit %d\n%s%s", exit, out, diag)
	}
	add(`{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"x","size":3},{"id":"n","object":"model","created":1,"owned_by":"x","size":3}]}`)
	out, diag, exit := drift(file)
	if exit != ExitFound || !strings.Contains(out, "data[].size") || !strings.Contains(out, "is not in the specification") || !strings.Contains(diag, "1 difference from the specification") {
		t.Errorf("exit %d\n%s%s", exit, out, diag)
	}
	out, _, exit = drift(file, "--output", "json")
	var report struct {
		Findings []struct{ Field, What string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || exit != ExitFound || len(report.Findings) != 1 || report.Findings[0].Field != "data[].size" || report.Findings[0].What != "unknown" {
		t.Errorf("exit %d, %v\n%s", exit, err, out)
	}
	if err := os.WriteFile(file, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{file}, {file + "-not"}, {}} {
		if _, diag, exit := drift(args...); exit != ExitUsage {
			t.Errorf("%v: exit %d, %s", args, exit, diag)
		}
	}
}
