// Command llmmock stands in for model providers. See services/llmmock/README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"edgehold.internal/libs/service"
	"edgehold.internal/services/llmmock/run"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "llmmock:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	c := &run.Config{Service: service.Config{Name: "llmmock", Version: version()}}
	cmd := &cobra.Command{Use: "llmmock", Short: "A deterministic stand-in for model providers", Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return run.Run(cmd.Context(), *c, cmd.OutOrStdout()) }}
	c.Flags(cmd.Flags())
	return cmd
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
