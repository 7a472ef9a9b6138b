// Command edgehold is what an operator types: see package cli for the commands and package platform for the embedded
// engines.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "edgehold.internal/tools/edgehold/brief"
	"edgehold.internal/tools/edgehold/cli"
	"edgehold.internal/tools/edgehold/platform"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first signal asks, the second one kills
	root := cli.Command(version)
	root.AddCommand(platform.Command())
	return cli.Main(ctx, root)
}
