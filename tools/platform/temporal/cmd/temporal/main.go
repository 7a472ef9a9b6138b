// Command edgehold-temporal runs Temporal, its SQLite database and its web UI in one process. See the README of the
// module.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"edgehold.internal/tools/platform/temporal"
)

func main() {
	var cfg temporal.Config
	var dieWithStdin bool
	fs := pflag.NewFlagSet("edgehold-temporal", pflag.ExitOnError)
	fs.StringVar(&cfg.Dir, "dir", "", "directory of the database and the remembered ports (required)")
	fs.StringVar(&cfg.Namespace, "namespace", "default", "namespace, created if missing")
	fs.IntVar(&cfg.Port, "port", 0, "port of the frontend on 127.0.0.1; 0 = the last one, or a free one")
	fs.IntVar(&cfg.UIPort, "ui-port", 0, "port of the web UI on 127.0.0.1; 0 = the last one, or a free one")
	fs.StringVar(&cfg.LogLevel, "log-level", "warn", "one of "+strings.Join(temporal.LogLevels, ", ")+"; JSON lines on stderr")
	fs.BoolVar(&dieWithStdin, "die-with-stdin", false, "exit at once when standard input ends, so that nothing outlives its supervisor")
	_ = fs.Parse(os.Args[1:]) // ExitOnError

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if dieWithStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			// Not graceful: whoever would have waited for it is dead, and the database bears it.
			os.Exit(1)
		}()
	}
	err := temporal.Run(ctx, cfg, func(r temporal.Ready) { _ = json.NewEncoder(os.Stdout).Encode(r) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "edgehold-temporal:", err)
		os.Exit(1)
	}
}
