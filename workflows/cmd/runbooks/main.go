// Command runbooks runs global operations on Temporal: the worker that does the work, and RunbookService to start, watch
// and decide on it. See workflows/README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	"edgehold.internal/workflows"
	"edgehold.internal/workflows/rpc"
	"edgehold.internal/workflows/temporal"
)

// Config of the process.
type Config struct {
	Service  service.Config
	Temporal temporal.Config
	// Fleet is where FleetService is.
	Fleet client.Config
	// Mock is where the MockService is whose outages workflows switch. An empty Address is none.
	Mock client.Config
	// WorkerOnly does not offer RunbookService; health and metrics are served all the same.
	WorkerOnly bool
}

// Validate names the field, its value and what is allowed.
func (c *Config) Validate() error {
	if c.WorkerOnly && c.Temporal.ServeOnly {
		return problem.Invalidf("worker-only", "together with serve-only there is nothing left to do; set one of them, or none for both")
	}
	if err := c.Fleet.Validate(); err != nil {
		return err
	}
	if c.Mock.Address != "" {
		if err := c.Mock.Validate(); err != nil {
			return err
		}
	}
	if err := c.Temporal.Validate(); err != nil {
		return err
	}
	return c.Service.Validate()
}

// Run works until ctx ends. Once it can start operations it prints one line of JSON to out.
func Run(ctx context.Context, c Config, out io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	server, err := service.New(c.Service)
	if err != nil {
		return err
	}
	c.Fleet.Tracing = server.Tracing()
	fleet, err := client.New(c.Fleet)
	if err != nil {
		return err
	}
	defer fleet.Close()
	var mock workflows.Mock
	if c.Mock.Address != "" {
		c.Mock.Tracing = server.Tracing()
		to, err := client.New(c.Mock)
		if err != nil {
			return err
		}
		defer to.Close()
		mock = rpc.NewMock(to)
	}
	runbooks, err := temporal.Open(c.Temporal, rpc.NewFleets(fleet), mock, server.Logger(), server.SetWarning,
		func(ctx context.Context, operation string, d workflows.Decision, err error) {
			server.Audit(ctx, service.Act{Name: "runbooks/" + string(d.Verb), Principal: d.Principal, Reason: d.Reason, IdempotencyKey: d.Key,
				Request: map[string]any{"id": operation}, Err: err})
		})
	if err != nil {
		return err
	}
	defer runbooks.Close()
	if !c.WorkerOnly {
		rpc.New(runbooks).Mount(server)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error {
		return runbooks.Run(ctx, func() {
			select {
			case <-server.Ready():
				_ = json.NewEncoder(out).Encode(map[string]any{"ready": true, "address": server.Addr().String()})
			case <-ctx.Done():
			}
		})
	})
	return group.Wait()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runbooks:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	c := Config{Service: service.Config{Name: "runbooks", Version: version()}, Fleet: client.Config{Address: "http://127.0.0.1:7301"}}
	cmd := &cobra.Command{
		Use:          "runbooks",
		Short:        "Run global operations on Temporal, and serve RunbookService",
		Args:         cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return Run(cmd.Context(), c, cmd.OutOrStdout()) },
	}
	fs := cmd.Flags()
	c.Service.Flags(fs)
	c.Temporal.Flags(fs)
	c.Fleet.Flags(fs, "fleet-")
	fs.StringVar(&c.Fleet.Address, "fleet", c.Fleet.Address, "http(s)://host:port of the fleet service")
	_ = fs.MarkHidden("fleet-address") // is there, and means the same
	_ = fs.MarkHidden("fleet-timeout") // is there, and means nothing: each step has a deadline of its own
	c.Mock.Flags(fs, "mock-")
	fs.StringVar(&c.Mock.Address, "mock", "", "http(s)://host:port of a mock of model providers, for its operators, whose outages workflows switch; empty for none")
	_ = fs.MarkHidden("mock-address")
	fs.BoolVar(&c.WorkerOnly, "worker-only", false, "run the worker without RunbookService")
	fs.BoolVar(&c.Temporal.ServeOnly, "serve-only", false, "serve RunbookService without a worker")
	return cmd
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
