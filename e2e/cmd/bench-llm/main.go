// Command bench-llm measures the figures of `make bench-llm`, prints the table and writes out/bench/llm.json.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"edgehold.internal/e2e/bench"
	"edgehold.internal/e2e/stage"
)

func main() {
	runs := flag.Int("runs", 5, "runs of each figure; the median counts")
	only := flag.String("only", "", "parts to measure, separated by commas: "+strings.Join(bench.LLMParts(), ", ")+" (default: all)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *runs, *only, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-llm: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, only string, args []string) error {
	if len(args) == 2 && (args[0] == "bare" || args[0] == "floor") { // the bench starts itself like this
		size, err := strconv.Atoi(args[1])
		if err != nil {
			return fmt.Errorf("%s: %q is not a size in bytes", args[0], args[1])
		}
		return bench.BareLLM(ctx, size, args[0] == "floor", os.Stdout)
	}
	if runs < 1 || len(args) > 0 {
		return fmt.Errorf("-runs: %d is not allowed, use 1 or more; there are no arguments", runs)
	}
	root, err := stage.Root()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	begun := time.Now()
	b := bench.LLM{Cache: filepath.Join(root, ".edgehold"), Bin: cmp.Or(os.Getenv("EDGEHOLD_BIN"), filepath.Join(root, ".edgehold", "bin")), Self: self, Runs: runs, Say: func(format string, args ...any) {
		fmt.Printf("%6.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
	}}
	if only != "" {
		if b.Only = strings.Split(only, ","); !subset(b.Only, bench.LLMParts()) {
			return fmt.Errorf("-only: %q is not allowed, use some of %s", only, strings.Join(bench.LLMParts(), ","))
		}
	}
	table := b.Run(ctx)
	fmt.Println()
	table.Print(os.Stdout)
	if only != "" { // and the file keeps the whole
		return nil
	}
	if err := table.Write(filepath.Join(root, "out", "bench", "llm.json")); err != nil {
		return err
	}
	if !table.Met() {
		return fmt.Errorf("a goal is not met")
	}
	return nil
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
