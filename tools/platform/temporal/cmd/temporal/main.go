// Command edgehold-temporal runs Temporal, its SQLite database and its web UI in one process. See the README of the
// module.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"edgehold.internal/tools/platform/temporal"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "edgehold-temporal:", err)
		os.Exit(1)
	}
}

func run() error {
	if os.Getenv("GOGC") == "" {
		// Its garbage is short-lived and much, and a busy machine pays for its collection in how fast an operation begins.
		debug.SetGCPercent(200)
	}
	var cfg temporal.Config
	fs := pflag.NewFlagSet("edgehold-temporal", pflag.ContinueOnError)
	fs.StringVar(&cfg.Dir, "dir", "", "directory of the database and the remembered ports (required)")
	fs.StringVar(&cfg.Namespace, "namespace", "default", "namespace, created if missing")
	fs.IntVar(&cfg.Port, "port", 0, "port of the frontend on 127.0.0.1; 0 = the last one, or a free one")
	fs.IntVar(&cfg.UIPort, "ui-port", 0, "port of the web UI on 127.0.0.1; 0 = the last one, or a free one")
	fs.StringVar(&cfg.LogLevel, "log-level", "warn", "one of "+strings.Join(temporal.LogLevels, ", ")+"; JSON lines on stderr")
	dieWithStdin := fs.Bool("die-with-stdin", false, "exit at once when standard input ends, so that nothing outlives its supervisor")
	if err := fs.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if *dieWithStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			// Not graceful: whoever would have waited for it is dead, and the database bears it.
			os.Exit(1)
		}()
	}
	return temporal.Run(ctx, cfg, func(r temporal.Ready) { _ = json.NewEncoder(os.Stdout).Encode(r) })
}
