// Command edge is the demo's workload: `edge serve` is the proxy in the pods, `edge load` the traffic from outside.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: edge <command> [flags]

  serve   answer traffic as one pod of a PoP
  load    send open-loop traffic and report every answer

edge <command> --help lists the flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 done, 1 failed while running, 2 a flag or value that cannot work.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return serveCommand(ctx, args[1:], stdout, stderr)
		case "load":
			return loadCommand(ctx, args[1:], stdout, stderr)
		case "help", "-h", "--help":
			_, _ = io.WriteString(stdout, usage)
			return 0
		}
		fmt.Fprintf(stderr, "edge: there is no command %q\n", args[0])
	}
	_, _ = io.WriteString(stderr, usage)
	return 2
}
