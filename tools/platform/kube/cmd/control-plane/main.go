// Command edgehold-control-plane serves one Kubernetes control plane on a loopback address; see README.md of this module.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"

	"edgehold.internal/tools/platform/kube/controlplane"
	"edgehold.internal/tools/platform/kube/lifeline"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "edgehold-control-plane:", err)
		os.Exit(1)
	}
}

func run() error {
	if os.Getenv("GOGC") == "" {
		// A quarter of an API server's time goes into allocation at the default of 100; a busy machine pays for it in how
		// fast all of a cluster's fleets can switch. While it is idle it is collected sooner.
		debug.SetGCPercent(300)
	}
	cfg := controlplane.Default()
	flags := pflag.NewFlagSet("edgehold-control-plane", pflag.ContinueOnError)
	cfg.Flags(flags)
	dieWithStdin := flags.Bool("die-with-stdin", false, "stop when standard input ends, as it does when the parent dies")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *dieWithStdin {
		ctx = lifeline.Context(ctx, os.Stdin)
	}
	return controlplane.Run(ctx, cfg, func(r controlplane.Ready) {
		_ = json.NewEncoder(os.Stdout).Encode(r) // nobody listens: nothing to tell
	})
}
