package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/controller"
	"edgehold.internal/services/fleet/kube/kubetest"
)

// BenchmarkCutOver is a global cutover of 21 PoPs in three control planes with their real controllers: with the watches of a
// service, and from nothing, as the command line does it with --direct (connections, TLS and all).
func BenchmarkCutOver(b *testing.B) {
	const clusters, each = 3, 7
	registry := &fleet.Registry{}
	var kubeconfigs []string
	var planes []*kubetest.Cluster
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	for i := range clusters {
		name := fmt.Sprintf("cluster-%d", i)
		k := kubetest.Run(b, name)
		planes = append(planes, k)
		text, err := os.ReadFile(k.Kubeconfig)
		if err != nil {
			b.Fatal(err)
		}
		// Names of users and clusters must differ for the files to be merged.
		path := filepath.Join(b.TempDir(), name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "admin", "admin-"+name)), 0o600); err != nil {
			b.Fatal(err)
		}
		kubeconfigs = append(kubeconfigs, path)
		for j := range each {
			pop := fmt.Sprintf("p%d-%d", i, j)
			k.AddPop(b, pop)
			registry.Pops = append(registry.Pops, fleet.Pop{Name: pop, Context: name, Namespace: "pop-" + pop})
		}
	}
	open := func(b *testing.B, follow bool) (*fleet.Centre, func()) {
		b.Helper()
		c, err := Open(Config{Kubeconfig: kubeconfigs, Follow: follow})
		if err != nil {
			b.Fatal(err)
		}
		return fleet.NewCentre(registry, c.Cluster, fleet.Limits{}), c.Close
	}
	service, stop := open(b, true)
	defer stop()
	connections, err := Open(Config{Kubeconfig: kubeconfigs})
	if err != nil {
		b.Fatal(err)
	}
	defer connections.Close()
	for _, name := range connections.Contexts() {
		config, err := connections.RESTConfig(name)
		if err != nil {
			b.Fatal(err)
		}
		one, err := controller.New(controller.Config{Cluster: name, RESTConfig: config})
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() { _ = one.Run(ctx) })
	}
	kubetest.Eventually(b, func() error {
		_, plans, err := service.Plan(b.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere})
		for _, p := range plans {
			if p.Err != nil || len(p.Blockers) > 0 {
				return fmt.Errorf("%+v", p)
			}
		}
		return err
	})

	n, to := 0, fleet.Green
	cutOver := func(b *testing.B, centre *fleet.Centre) {
		n++
		to = to.Other()
		results, err := centre.CutOver(b.Context(), "edge", everywhere, fleet.Change{ID: fmt.Sprint(n), To: to, Reason: "bench"}, nil)
		if err != nil {
			b.Fatal(err)
		}
		for _, x := range results {
			if x.Err != nil {
				b.Fatal(x.Err)
			}
		}
	}
	// used is the processor time of the control planes and of this process, with its controllers.
	used := func(b *testing.B) (sum time.Duration) {
		var own syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
			b.Fatal(err)
		}
		sum = time.Duration(own.Utime.Nano() + own.Stime.Nano())
		for _, k := range planes {
			t, err := k.CPU()
			if err != nil {
				b.Fatal(err)
			}
			sum += t
		}
		return sum
	}
	b.Run("service", func(b *testing.B) {
		before := used(b)
		for b.Loop() {
			cutOver(b, service)
		}
		b.ReportMetric(float64(used(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
	})
	b.Run("direct", func(b *testing.B) {
		before := used(b)
		for b.Loop() {
			centre, stop := open(b, false)
			cutOver(b, centre)
			b.StopTimer()
			stop()
			b.StartTimer()
		}
		b.ReportMetric(float64(used(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
	})
	b.Run("plan", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := service.Plan(b.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
