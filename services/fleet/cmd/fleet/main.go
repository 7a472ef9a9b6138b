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
	"path/filepath"
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
	"edgehold.internal/services/fleet/file"
	"edgehold.internal/services/fleet/kube/cluster"
	"edgehold.internal/services/fleet/kube/controller"
	"edgehold.internal/services/fleet/rpc"
)

// Config of the process.
type Config struct {
	Service service.Config
	// Controller runs the controllers, Serve the FleetService; at least one of them.
	Controller, Serve bool
	// Kubeconfig files, separated as in $PATH; empty for $KUBECONFIG, ~/.kube/config or the service account of the pod.
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
	// DrillClock is for drills alone: a file that says by how much the controllers' wall clock is wrong (see drillClock); empty
	// for the machine's own.
	DrillClock string
}

// Validate names the field, its value and what is allowed.
func (c *Config) Validate() error {
	switch {
	case !c.Controller && !c.Serve:
		return problem.Invalidf("mode", "neither the controller nor the service is asked for; use controller, serve or all")
	case c.Serve && c.Pops == "":
		return problem.Invalidf("pops", "is empty; name the file that lists the PoPs")
	}
	if twice := duplicate(c.Contexts); twice != "" {
		return problem.Invalidf("context", "%q is named twice; two controllers of one process would do the same work", twice)
	}
	return c.Service.Validate()
}

func duplicate(names []string) string {
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return n
		}
	}
	return ""
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
	connections, err := cluster.Open(cluster.Config{Kubeconfig: filepath.SplitList(c.Kubeconfig), Follow: true, Agent: "edgehold-" + c.Service.Name, Logger: server.Logger()})
	if err != nil {
		return err
	}
	defer connections.Close()
	var source *file.Source
	var centre *fleet.Centre
	if c.Serve {
		if source, err = c.source(connections); err != nil {
			return err
		}
		centre = fleet.NewCentre(source.Registry(), connections.Cluster, fleet.Limits{})
		rpc.New(centre, time.Now).Mount(server)
		server.Registry().MustRegister(connections)
	}
	controllers, err := c.controllers(server, connections)
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	if c.Serve {
		group.Go(func() error {
			source.Follow(ctx, followEvery, func(r *fleet.Registry) {
				centre.Reload(r)
				server.Logger().Info("the registry was read again", "file", c.Pops, "pops", len(r.Pops))
			}, func(text string) { server.SetWarning("registry", text) })
			return nil
		})
	}
	for _, one := range controllers {
		group.Go(func() error { return one.Run(ctx) })
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

// followEvery is how often the registry and the kubeconfig are looked at.
const followEvery = time.Second

// source follows the registry, checked against the kubeconfig of the same moment: both are put in force, or neither.
func (c *Config) source(connections *cluster.Connections) (*file.Source, error) {
	return file.Open(c.Pops, connections.Files(), func(body []byte) (registry *fleet.Registry, err error) {
		err = connections.Reload(func(contexts []string) error {
			registry, err = fleet.ParseRegistry(body, contexts)
			return err
		})
		return registry, err
	})
}

// controllers has one for each context.
func (c *Config) controllers(server *service.Server, connections *cluster.Connections) ([]*controller.Controller, error) {
	if !c.Controller {
		return nil, nil
	}
	contexts := c.Contexts
	if len(contexts) == 0 {
		contexts = connections.Contexts()
	}
	clock := controller.SystemClock()
	if c.DrillClock != "" {
		clock = drillClock{clock, c.DrillClock}
		server.SetWarning("drill-clock", "the controller's clock is what "+c.DrillClock+" says: this is a drill; start it without --drill-clock when that is over")
	}
	var all []*controller.Controller
	for _, name := range contexts {
		rest, err := connections.RESTConfig(name)
		if err != nil {
			return nil, err
		}
		one, err := controller.New(controller.Config{Cluster: name, RESTConfig: rest, Namespaces: c.Namespaces, DialMap: c.DialMap, Clock: clock,
			LeaderElection: c.LeaderElection, LeaderNamespace: c.LeaderNamespace, Logger: server.Logger(), Audit: server.Audit, Registry: server.Registry()})
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
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
		fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig file, or several separated by : (default: $KUBECONFIG, ~/.kube/config or the pod's service account)")
		if mode.serve {
			fs.StringVar(&c.Pops, "pops", "", "file that lists the PoPs; it is followed")
		}
		if mode.controller {
			fs.StringSliceVar(&c.Contexts, "context", nil, "contexts to control (default: all of the kubeconfig)")
			fs.StringSliceVar(&c.Namespaces, "namespace", nil, "namespaces to control (default: all)")
			fs.StringVar(&c.DialMap, "dial-map", os.Getenv("EDGEHOLD_DIAL_MAP"), "translate addresses of pods, such as 10.0.0.0/8=127.0.0.0/8 (env EDGEHOLD_DIAL_MAP)")
			fs.BoolVar(&c.LeaderElection, "leader-election", false, "let one of several controllers in a cluster work at a time")
			fs.StringVar(&c.LeaderNamespace, "leader-namespace", leaderNamespace(), "namespace of the lease (env POD_NAMESPACE)")
			fs.StringVar(&c.DrillClock, "drill-clock", "", "for drills: file that says by how much the wall clock is wrong, such as 3h")
			_ = fs.MarkHidden("drill-clock") // it is there
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
