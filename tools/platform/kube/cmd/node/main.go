// Command edgehold-node is a Kubernetes node whose pods are processes of this machine; see README.md of this module.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"edgehold.internal/tools/platform/kube/group"
	"edgehold.internal/tools/platform/kube/lifeline"
	"edgehold.internal/tools/platform/kube/node"
)

// guard is the argument by which this program runs itself as the guard of its processes.
const guard = "guard"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "edgehold-node:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == guard {
		return group.Guard(os.Stdin)
	}
	cfg := node.Default()
	flags := pflag.NewFlagSet("edgehold-node", pflag.ContinueOnError)
	cfg.Flags(flags)
	dieWithStdin := flags.Bool("die-with-stdin", false, "stop when standard input ends, as it does when the parent dies")
	verbose := flags.Bool("verbose", false, "log what is done, not only what goes wrong")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	klog.SetSlogLogger(log.With("part", "client"))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *dieWithStdin {
		ctx = lifeline.Context(ctx, os.Stdin)
	}
	return node.Run(ctx, cfg, group.Self(guard), log, func(r node.Ready) {
		_ = json.NewEncoder(os.Stdout).Encode(r) // nobody listens: nothing to tell
	})
}
