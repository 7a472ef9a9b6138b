// Command demo tells the story of `make demo`: a fleet of 21 PoPs under live traffic gets a bad release and is rolled back.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"edgehold.internal/e2e/demo"
	"edgehold.internal/e2e/stage"
)

func main() {
	// SIGINT and SIGTERM end the story early and still stop everything it started.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	limited, cancel := context.WithTimeout(ctx, 10*time.Minute)
	root, err := stage.Root()
	if err == nil {
		err = demo.Run(limited, demo.Default(root))
	}
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: "+err.Error())
		os.Exit(1)
	}
}
