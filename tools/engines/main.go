// Command engines builds every binary of the checkout into .edgehold/bin: the embedded engines, which are modules of their
// own outside go.work, and the commands of the workspace. What did not change since its last build is left alone, so a
// call with nothing to do takes a fraction of a second; the first one compiles all of Kubernetes and Temporal.
//
// It is run as `go run ./tools/engines` and takes no flags: what there is to build is found, see find.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := checkout(ctx)
	if err != nil {
		return err
	}
	return Run(ctx, Config{Root: root, Out: os.Stderr})
}

// checkout is the directory of go.work.
func checkout(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOWORK: %w; Go must be on the PATH", err)
	}
	work := strings.TrimSpace(string(out))
	if work == "" || work == "off" {
		return "", fmt.Errorf("GOWORK is %q; run this in the checkout, without GOWORK=off", work)
	}
	return filepath.Dir(work), nil
}
