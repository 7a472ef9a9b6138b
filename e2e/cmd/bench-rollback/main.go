// Command bench-rollback measures the figures of `make bench-rollback`, prints the table and writes out/bench/rollback.json.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"edgehold.internal/e2e/bench"
	"edgehold.internal/e2e/stage"
)

func main() {
	runs := flag.Int("runs", 5, "runs of each figure; the median counts")
	only := flag.String("only", "", "a part to measure alone, for work on it: "+strings.Join(bench.Parts, ", ")+"; writes no file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *runs, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-rollback: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, only string) error {
	if runs < 1 {
		return fmt.Errorf("-runs: %d is not allowed; use 1 or more", runs)
	}
	if only != "" && !slices.Contains(bench.Parts, only) {
		return fmt.Errorf("-only: there is no part %q; there are %s", only, strings.Join(bench.Parts, ", "))
	}
	root, err := stage.Root()
	if err != nil {
		return err
	}
	begun := time.Now()
	b := bench.Rollback{Root: root, Bin: filepath.Join(root, ".edgehold", "bin"), Runs: runs, Say: func(format string, args ...any) {
		fmt.Printf("%6.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
	}}
	table := b.Run(ctx, only)
	fmt.Println()
	table.Print(os.Stdout)
	if only != "" {
		return nil
	}
	if err := table.Write(filepath.Join(root, "out", "bench", "rollback.json")); err != nil {
		return err
	}
	if !table.Met() {
		return fmt.Errorf("a goal is not met")
	}
	return nil
}
