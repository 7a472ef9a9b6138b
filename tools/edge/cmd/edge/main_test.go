package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"edgehold.internal/tools/edge/load"
)

// TestServeAndLoad runs both commands as main does and reads what they print.
func TestServeAndLoad(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lame-duck", "0s", "--drain-jitter", "0s", "--fault", "ratio=0.5,status=500"}, in, io.Discard)
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var ready struct {
		Ready          bool
		Address, Admin string
	}
	if err := json.Unmarshal(line, &ready); err != nil || !ready.Ready || ready.Admin == "" {
		t.Fatalf("%s: %v", line, err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"load", "--target", "fra1=http://" + ready.Address + "/bytes/10", "--rate", "200", "--duration", "300ms"}, &stdout, &stderr); code != 0 {
		t.Errorf("load exits with %d: %s", code, &stderr)
	}
	var result load.Result
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil || result.Requests == 0 || result.Bad == 0 || result.Failed != 0 {
		t.Errorf("%v: %+v", err, result)
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("serve exits with %d", got)
	}
	if code := run(t.Context(), []string{"load", "--target", "fra1=" + ready.Address, "--duration", "100ms"}, io.Discard, io.Discard); code != 3 {
		t.Errorf("a load whose requests fail exits with %d, want 3", code)
	}
}

func TestExitCodes(t *testing.T) {
	for args, want := range map[string]int{
		"":                            2,
		"--help":                      0,
		"nope":                        2,
		"serve --help":                0,
		"serve --nope":                2,
		"serve --fault ratio=2":       2,
		"serve --pop a/b":             2,
		"serve now":                   2,
		"serve --listen 192.0.2.1:80": 1,
		"load":                        2,
		"load --target x":             2,
		"load --target a=b --rate -1": 2,
		"load --target a=127.0.0.1:1 --duration -1s": 2,
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), io.Discard, &stderr); code != want {
			t.Errorf("edge %s exits with %d, want %d: %s", args, code, want, &stderr)
		}
	}
}
