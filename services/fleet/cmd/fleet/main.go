// Command fleet runs the controller of fleets in PoPs' clusters, the centre's FleetService, or both. See
// services/fleet/README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/cluster"
	"edgehold.internal/services/fleet/kube/controller"
	"edgehold.internal/services/fleet/rpc"
)

// Config of the process.
type Config struct {
	Service service.Config
	// Controller runs the controllers, Serve the FleetService; at least one of them.
	Controller, Serve bool
	// Kubeconfig file; empty for $KUBECONFIG, ~/.kube/config or the service account of the pod.
	Kubeconfig string
	// Contexts to control, each with a controller of its own; empty for all of the kubeconfig.
	Contexts []string
	// Namespaces to control; empty for all.
	Namespaces []string
	// Pops is the registry file of FleetService.
	Pops string
	// DialMap translates the addresses of pods; empty for none.
	DialMap string
	// LeaderElection lets one of several controllers in a cluster work at a time.
	LeaderElection bool
	// LeaderNamespace holds the lease.
	LeaderNamespace string
}

// Validate names the field, its value and what is allowed.
func (c *Config) Validate() error {
	if c.Serve && c.Pops == "" {
		return problem.Invalidf("pops", "is empty; name the file that lists the PoPs")
	}
	return c.Service.Validate()
}

// Run works until ctx ends. Once it is ready it prints one line of JSON to out.
func Run(ctx context.Context, c Config, out io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	server, err := service.New(c.Service)
	if err != nil {
		return err
	}
	var files []string
	if c.Kubeconfig != "" {
		files = []string{c.Kubeconfig}
	}
	connections, err := cluster.Open(cluster.Config{Kubeconfig: files, Follow: true, Agent: "edgehold-" + c.Service.Name, Logger: server.Logger()})
	if err != nil {
		return err
	}
	defer connections.Close()
	group, ctx := errgroup.WithContext(ctx)
	if c.Serve {
		centre, err := c.centre(connections)
		if err != nil {
			return err
		}
		rpc.New(centre, time.Now).Mount(server)
		group.Go(func() error { c.follow(ctx, server, connections, centre); return nil })
	}
	if c.Controller {
		if err := c.control(ctx, group, server, connections); err != nil {
			return err
		}
	}
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error {
		select {
		case <-server.Ready():
			return json.NewEncoder(out).Encode(map[string]any{"ready": true, "address": server.Addr().String()})
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

func (c *Config) registry(connections *cluster.Connections) (*fleet.Registry, error) {
	body, err := os.ReadFile(c.Pops)
	if err != nil {
		return nil, problem.Invalidf("pops", "cannot be read: %v", err)
	}
	return fleet.ParseRegistry(body, connections.Contexts())
}

func (c *Config) centre(connections *cluster.Connections) (*fleet.Centre, error) {
	registry, err := c.registry(connections)
	if err != nil {
		return nil, err
	}
	return fleet.NewCentre(registry, connections.Cluster, fleet.Limits{}), nil
}

// followEvery is how often the registry and the kubeconfig are looked at.
const followEvery = 2 * time.Second

// follow puts a changed registry or kubeconfig in force. One that is wrong changes nothing: the last good one stays, and
// health says why.
func (c *Config) follow(ctx context.Context, server *service.Server, connections *cluster.Connections, centre *fleet.Centre) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	last := stamps(c.Pops, c.Kubeconfig)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := stamps(c.Pops, c.Kubeconfig)
		if slices.Equal(now, last) {
			continue
		}
		last = now
		err := connections.Reload()
		if err == nil {
			var registry *fleet.Registry
			if registry, err = c.registry(connections); err == nil {
				centre.Reload(registry)
				server.Logger().Info("the registry was reloaded", "file", c.Pops, "pops", len(registry.Pops))
				server.SetWarning("registry", "")
				continue
			}
		}
		server.Logger().Error("the registry is wrong; the last good one stays in force", "file", c.Pops, "error", err)
		server.SetWarning("registry", fmt.Sprintf("%s is wrong and the last good one stays in force: %v", c.Pops, err))
	}
}

// stamps tells whether files changed: their modification times and sizes.
func stamps(files ...string) []string {
	var out []string
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			out = append(out, fmt.Sprint(info.ModTime().UnixNano(), info.Size()))
		} else {
			out = append(out, "")
		}
	}
	return out
}

// control adds a controller for each context to the group.
func (c *Config) control(ctx context.Context, group *errgroup.Group, server *service.Server, connections *cluster.Connections) error {
	contexts := c.Contexts
	if len(contexts) == 0 {
		contexts = connections.Contexts()
	}
	for _, name := range contexts {
		rest, err := connections.RESTConfig(name)
		if err != nil {
			return err
		}
		one, err := controller.New(controller.Config{Cluster: name, RESTConfig: rest, Namespaces: c.Namespaces, DialMap: c.DialMap,
			LeaderElection: c.LeaderElection, LeaderNamespace: c.LeaderNamespace, Logger: server.Logger(), Registry: server.Registry()})
		if err != nil {
			return err
		}
		group.Go(func() error { return one.Run(ctx) })
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "fleet", Short: "Blue/green fleets: the controller in each PoP's cluster, and the centre's FleetService",
		SilenceUsage: true, SilenceErrors: true}
	for _, mode := range []struct {
		use, short        string
		controller, serve bool
	}{
		{"controller", "Keep the fleets of one or more clusters as they are declared", true, false},
		{"serve", "Serve FleetService for all registered PoPs", false, true},
		{"all", "Both in one process", true, true},
	} {
		c := &Config{Controller: mode.controller, Serve: mode.serve, Service: service.Config{Name: "fleet-" + mode.use, Version: version()}}
		cmd := &cobra.Command{Use: mode.use, Short: mode.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return Run(cmd.Context(), *c, cmd.OutOrStdout()) }}
		fs := cmd.Flags()
		c.Service.Flags(fs)
		fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, ~/.kube/config or the pod's service account)")
		if mode.serve {
			fs.StringVar(&c.Pops, "pops", "", "file that lists the PoPs; it is followed")
		}
		if mode.controller {
			fs.StringSliceVar(&c.Contexts, "context", nil, "contexts to control (default: all of the kubeconfig)")
			fs.StringSliceVar(&c.Namespaces, "namespace", nil, "namespaces to control (default: all)")
			fs.StringVar(&c.DialMap, "dial-map", os.Getenv("EDGEHOLD_DIAL_MAP"), "translate addresses of pods, such as 10.0.0.0/8=127.0.0.0/8 (env EDGEHOLD_DIAL_MAP)")
			fs.BoolVar(&c.LeaderElection, "leader-election", false, "let one of several controllers in a cluster work at a time")
			fs.StringVar(&c.LeaderNamespace, "leader-namespace", leaderNamespace(), "namespace of the lease (env POD_NAMESPACE)")
		}
		root.AddCommand(cmd)
	}
	return root
}

func leaderNamespace() string {
	if ns := strings.TrimSpace(os.Getenv("POD_NAMESPACE")); ns != "" {
		return ns
	}
	return "edgehold-system"
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
