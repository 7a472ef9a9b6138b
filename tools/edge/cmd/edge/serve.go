package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"

	"edgehold.internal/tools/edge"
	"edgehold.internal/tools/edge/serve"
)

func serveCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	frugal()
	cfg := serve.Default()
	var fault string
	fs := pflag.NewFlagSet("edge serve", pflag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.SortFlags = false
	fs.StringVar(&cfg.Listen, "listen", cfg.Listen, "host:port of the traffic")
	fs.StringVar(&cfg.Admin, "admin", cfg.Admin, "host:port of the hooks, probes and metrics")
	fs.StringVar(&cfg.Version, "version", "dev", "release, in the header Edge-Version")
	fs.StringVar(&cfg.Colour, "colour", "blue", "colour, in the header Edge-Colour")
	fs.StringVar(&cfg.Pop, "pop", "local", "PoP, in the header Edge-Pop")
	fs.StringVar(&fault, "fault", "", "what is wrong with the release, as 'ratio=0.3,status=500,latency=0s,after=0s,seed=0'; empty is nothing")
	fs.StringVar(&cfg.Upstream, "upstream", "", "http://host:port to pass requests on to; empty answers them here")
	fs.DurationVar(&cfg.KeepAlive, "keep-alive", cfg.KeepAlive, "how long a client may let a kept connection rest")
	fs.DurationVar(&cfg.DrainJitter, "drain-jitter", cfg.DrainJitter, "time within which a drain ends the streams")
	fs.DurationVar(&cfg.LameDuck, "lame-duck", cfg.LameDuck, "on SIGTERM, close the listener once no connection has come for this long")
	fs.DurationVar(&cfg.StopGrace, "stop-grace", cfg.StopGrace, "on SIGTERM, time for open connections to end")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	var err error
	if cfg.Fault, err = edge.ParseFault(fault); err != nil {
		fmt.Fprintln(stderr, "edge serve:", err)
		return 2
	}
	server, err := serve.New(cfg, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		fmt.Fprintln(stderr, "edge serve:", err)
		return 2
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	select {
	case err = <-done:
	case <-server.Ready():
		_ = json.NewEncoder(stdout).Encode(struct {
			Ready   bool   `json:"ready"`
			Address string `json:"address"`
			Admin   string `json:"admin"`
		}{true, server.Addr().String(), server.Admin().String()})
		err = <-done
	}
	if err != nil {
		fmt.Fprintln(stderr, "edge serve:", err)
		return 1
	}
	return 0
}

// frugal makes the process fit where dozens of them share a few cores, unless the environment says otherwise: one thread that
// runs Go, and a heap that is collected early, because it holds little more than the connections' buffers.
func frugal() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(64 << 20)
	}
}

// parse reads the flags. When it is not ok, the command ends with the code: 0 for --help, 2 for what cannot be read.
func parse(fs *pflag.FlagSet, args []string, stderr io.Writer) (code int, ok bool) {
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return 0, false
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v; --help lists the flags\n", fs.Name(), err)
		return 2, false
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "%s: it takes flags only, and %q is none\n", fs.Name(), fs.Arg(0))
		return 2, false
	}
	return 0, true
}
