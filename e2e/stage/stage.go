// Package stage sets up what a scenario plays on: the controller in every cluster, PoPs with a fleet each, the services
// of the centre as real processes, and live traffic. It takes a kubeconfig and a Temporal address, so the same scenarios
// run on the embedded platform and on any other clusters. Start at Set.
package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"edgehold.internal/services/fleet/kube/v1alpha1"
	"edgehold.internal/tools/edge/load"
)

// Config says where the stage is set and how large it is.
type Config struct {
	// Kubeconfig holds the clusters, Contexts which of them are used; PoPs are dealt out over them in turn.
	Kubeconfig string
	Contexts   []string
	// Temporal is the address of its frontend; empty: no runbook service is started.
	Temporal string
	// Root is the checkout: deploy/ is read from it. Bin holds the binaries, Dir what the stage writes.
	Root, Bin, Dir string
	// Overlay of deploy/overlays that is applied to each cluster.
	Overlay string
	// Pops is how many, Replicas the pods per colour in each.
	Pops, Replicas int
	// Wires is how many of the PoPs, from the first on, get a Wire that can be cut.
	Wires int
	// Simulate makes pods without processes: for scale, not for traffic.
	Simulate bool
	// CentralController runs one controller process for all clusters in place of one in each.
	CentralController bool
	// Door turns a Service's cluster IP into an address that this machine can dial.
	Door func(clusterIP string) string
	// Edit changes each PoP's objects before they are applied; may be nil.
	Edit func(pop Pop, object *unstructured.Unstructured)
	// Say receives a line per step; may be nil.
	Say func(format string, args ...any)
}

// Pop is one PoP of the stage.
type Pop struct {
	Name, Namespace, Context, Region string
	Latitude, Longitude              float64
	// Address of the front door.
	Address string
	// Wire, where there is one, is how the centre reaches the PoP's Kubernetes API.
	Wire *Wire
}

// centreContext is the context by which the centre knows the PoP's cluster.
func (p Pop) centreContext() string {
	if p.Wire != nil {
		return p.Context + "-" + p.Name
	}
	return p.Context
}

// Stage is a running one.
type Stage struct {
	Config
	Clusters []*Cluster
	Pops     []Pop
	Board    *Board
	// Fleet and Runbooks are the services of the centre, Controller the central one if there is one.
	Fleet, Runbooks, Controller *Process
	// FleetURL and RunbooksURL are where they listen.
	FleetURL, RunbooksURL string

	// unwatch ends the watches of Board.
	unwatch func()
}

// Fleet of every PoP has this name.
const FleetName = "edge"

// Set brings everything up, in parallel where it can, and returns when every fleet is steady and both colours are ready.
func Set(ctx context.Context, c Config) (*Stage, error) {
	if c.Say == nil {
		c.Say = func(string, ...any) {}
	}
	if c.Door == nil {
		return nil, errors.New("stage: Door is not set: how does this machine reach a Service of the clusters?")
	}
	s := &Stage{Config: c, Board: newBoard(), unwatch: func() {}}
	for _, name := range c.Contexts {
		cluster, err := openCluster(c.Kubeconfig, name)
		if err != nil {
			return nil, err
		}
		s.Clusters = append(s.Clusters, cluster)
	}
	for i := range c.Pops {
		p := placeOf(i)
		s.Pops = append(s.Pops, Pop{Name: p.name, Namespace: "pop-" + p.name, Region: p.region, Latitude: p.latitude, Longitude: p.longitude,
			Context: c.Contexts[i%len(c.Contexts)]})
	}
	for i := range min(c.Wires, len(s.Pops)) {
		u, err := url.Parse(s.cluster(s.Pops[i].Context).config.Host)
		if err != nil {
			return nil, err
		}
		if s.Pops[i].Wire, err = newWire(u.Host); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.set(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) set(ctx context.Context) error {
	if err := s.installControllers(ctx); err != nil {
		return err
	}
	s.watch()
	if err := s.writeRegistry(); err != nil {
		return err
	}
	if err := s.writeKubeconfig(ctx, s.CentreKubeconfig(), "edgehold-system", "centre"); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.applyPops(gctx) })
	g.Go(func() error { return s.startCentre(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	s.Say("waiting until both colours of %d fleets are ready", len(s.Pops))
	return s.AwaitParity(ctx, int32(s.Replicas))
}

func (s *Stage) path(name string) string { return filepath.Join(s.Dir, name) }

// Registry is the path of the PoP registry, Kubeconfig that of the centre's identity.
func (s *Stage) Registry() string { return s.path("pops.yaml") }

// CentreKubeconfig is the path of a kubeconfig that may do what the centre may.
func (s *Stage) CentreKubeconfig() string { return s.path("centre.kubeconfig") }

func (s *Stage) installControllers(ctx context.Context) error {
	s.Say("installing the Fleet CRD and the controller in %d clusters", len(s.Clusters))
	objects, err := Build(filepath.Join(s.Root, "deploy", "overlays", s.Overlay))
	if err != nil {
		return err
	}
	if s.CentralController {
		objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Deployment" })
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, c := range s.Clusters {
		g.Go(func() error {
			if err := c.Apply(gctx, objects...); err != nil {
				return err
			}
			return c.established(gctx)
		})
	}
	return g.Wait()
}

func (s *Stage) applyPops(ctx context.Context) error {
	s.Say("applying %d PoPs with %d pods each", len(s.Pops), 2*s.Replicas)
	template, err := Build(filepath.Join(s.Root, "deploy", "demo"))
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range s.Pops {
		g.Go(func() error {
			p := &s.Pops[i]
			c := s.cluster(p.Context)
			var objects []*unstructured.Unstructured
			for _, o := range template {
				objects = append(objects, s.localise(*p, o.DeepCopy()))
			}
			if err := c.Apply(gctx, objects...); err != nil {
				return err
			}
			service, err := c.Kube.CoreV1().Services(p.Namespace).Get(gctx, "edge", metav1.GetOptions{})
			if err != nil {
				return err
			}
			p.Address = net.JoinHostPort(s.Door(service.Spec.ClusterIP), fmt.Sprint(service.Spec.Ports[0].Port))
			return nil
		})
	}
	return g.Wait()
}

// localise makes an object of the demo's template one of the PoP's.
func (s *Stage) localise(p Pop, o *unstructured.Unstructured) *unstructured.Unstructured {
	switch o.GetKind() {
	case "Namespace":
		o.SetName(p.Namespace)
	default:
		o.SetNamespace(p.Namespace)
	}
	switch o.GetKind() {
	case "Deployment":
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		container := containers[0].(map[string]any)
		if s.Overlay == "embedded" {
			container["image"] = "local/edge"
		}
		_ = unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers")
		if s.Simulate {
			_ = unstructured.SetNestedField(o.Object, "true", "spec", "template", "metadata", "annotations", "edgehold.internal/simulate")
		}
	case "Fleet":
		_ = unstructured.SetNestedField(o.Object, int64(s.Replicas), "spec", "replicas")
		if s.Simulate {
			// Pods without processes have nobody to ask.
			_ = unstructured.SetNestedMap(o.Object, map[string]any{"method": "wait", "timeout": "1s"}, "spec", "drain")
			unstructured.RemoveNestedField(o.Object, "spec", "metrics")
		}
	}
	if s.Edit != nil {
		s.Edit(p, o)
	}
	return o
}

func (s *Stage) writeRegistry() error {
	type pop struct {
		Name      string  `json:"name"`
		Region    string  `json:"region"`
		Latitude  float64 `json:"latitude"`
		Longitude float64 `json:"longitude"`
		Context   string  `json:"context"`
		Namespace string  `json:"namespace"`
	}
	registry := struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Pops       []pop  `json:"pops"`
	}{"edgehold.internal/v1alpha1", "PopRegistry", nil}
	for _, p := range s.Pops {
		registry.Pops = append(registry.Pops, pop{p.Name, p.Region, p.Latitude, p.Longitude, p.centreContext(), p.Namespace})
	}
	body, err := yaml.Marshal(registry)
	if err != nil {
		return err
	}
	return os.WriteFile(s.Registry(), body, 0o644)
}

// startCentre starts the fleet service and, where there is a Temporal, the runbook service.
func (s *Stage) startCentre(ctx context.Context) error {
	if s.CentralController {
		s.Controller = s.process("controller", "fleet", "controller", "--kubeconfig="+s.Kubeconfig, "--context="+strings.Join(s.Contexts, ","), "--listen=127.0.0.1:0", "--leader-election=false")
		s.Controller.Env = []string{"EDGEHOLD_DIAL_MAP=10.0.0.0/8=127.0.0.0/8"}
		if _, err := s.Controller.Start(ctx); err != nil {
			return err
		}
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	s.Fleet = s.process("fleet", "fleet", "serve", "--pops="+s.Registry(), "--kubeconfig="+s.CentreKubeconfig(), "--listen="+address, "--audit-log="+s.path("fleet-audit.log"))
	s.FleetURL = "http://" + address
	if _, err := s.Fleet.Start(ctx); err != nil {
		return err
	}
	if s.Temporal == "" {
		return s.writeConfig()
	}
	if address, err = freeAddress(ctx); err != nil {
		return err
	}
	s.Runbooks = s.process("runbooks", "runbooks", "--temporal="+s.Temporal, "--namespace=default", "--fleet="+s.FleetURL, "--listen="+address, "--audit-log="+s.path("runbooks-audit.log"))
	s.RunbooksURL = "http://" + address
	if _, err = s.Runbooks.Start(ctx); err != nil {
		return err
	}
	return s.writeConfig()
}

// writeConfig writes the file that tells the edgehold command where everything is.
func (s *Stage) writeConfig() error {
	body, err := yaml.Marshal(map[string]string{"fleet": s.FleetURL, "runbooks": s.RunbooksURL,
		"kubeconfig": s.CentreKubeconfig(), "registry": s.Registry(), "auditLog": s.AuditLog()})
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("config.yaml"), body, 0o600)
}

func (s *Stage) process(name, binary string, args ...string) *Process {
	return &Process{Name: name, Args: append([]string{filepath.Join(s.Bin, binary)}, args...), Log: s.path(name + ".log")}
}

// freeAddress is a loopback address with a port that was free a moment ago; a restarted process listens on it again.
func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *Stage) cluster(context string) *Cluster {
	for _, c := range s.Clusters {
		if c.Context == context {
			return c
		}
	}
	panic("stage: no cluster " + context)
}

// Cluster is the one that the PoP is in.
func (s *Stage) Cluster(p Pop) *Cluster { return s.cluster(p.Context) }

// Namespaces of the PoPs, all of them when none is given.
func (s *Stage) Namespaces(pops ...Pop) []string {
	if len(pops) == 0 {
		pops = s.Pops
	}
	var out []string
	for _, p := range pops {
		out = append(out, p.Namespace)
	}
	return out
}

// AwaitParity returns when both colours of every fleet have n ready pods and nothing is under way.
func (s *Stage) AwaitParity(ctx context.Context, n int32) error {
	return s.Board.Await(ctx, fmt.Sprintf("both colours have %d ready pods", n), s.Namespaces(), func(f v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseSteady && f.Status.Blue.Ready == n && f.Status.Green.Ready == n && f.Status.Blue.Desired == n && f.Status.Green.Desired == n
	})
}

// AwaitActive returns when the PoPs, all of them when none is given, serve the colour.
func (s *Stage) AwaitActive(ctx context.Context, colour v1alpha1.Colour, pops ...Pop) error {
	return s.Board.Await(ctx, "they serve "+string(colour), s.Namespaces(pops...), func(f v1alpha1.Fleet) bool { return f.Status.Active == colour })
}

// AwaitSteady returns when nothing is under way in the PoPs, all of them when none is given.
func (s *Stage) AwaitSteady(ctx context.Context, pops ...Pop) error {
	return s.Board.Await(ctx, "nothing is under way", s.Namespaces(pops...), func(f v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseSteady && f.Status.ObservedGeneration == f.Generation
	})
}

// Ship rolls a release out to one colour's Deployment in every PoP, and returns when its pods are ready.
func (s *Stage) Ship(ctx context.Context, colour v1alpha1.Colour, version string, fault string) error {
	arguments := []string{"serve", "--listen=$(POD_IP):8080", "--admin=$(POD_IP):9901", "--pop=$(POP)", "--colour=" + string(colour), "--version=$(VERSION)"}
	if fault != "" {
		arguments = append(arguments, "--fault="+fault)
	}
	patch, err := yaml.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{
		"metadata": map[string]any{"labels": map[string]string{v1alpha1.VersionLabel: version}},
		"spec":     map[string]any{"containers": []map[string]any{{"name": "edge", "args": arguments}}},
	}}})
	if err != nil {
		return err
	}
	if patch, err = yaml.YAMLToJSON(patch); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, p := range s.Pops {
		g.Go(func() error {
			_, err := s.Cluster(p).Kube.AppsV1().Deployments(p.Namespace).Patch(gctx, "edge-"+string(colour), types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("ship %s to %s: %w", version, colour, err)
	}
	// The Fleet counts only pods of the version that the Deployment has now; wait for the roll-out itself.
	g, gctx = errgroup.WithContext(ctx)
	for _, p := range s.Pops {
		g.Go(func() error { return s.rolledOut(gctx, p, "edge-"+string(colour)) })
	}
	return g.Wait()
}

func (s *Stage) rolledOut(ctx context.Context, p Pop, name string) error {
	for {
		d, err := s.Cluster(p).Kube.AppsV1().Deployments(p.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == *d.Spec.Replicas &&
			d.Status.ReadyReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the roll-out of %s in %s did not end: %w", name, p.Namespace, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Load starts live traffic to every PoP.
func (s *Stage) Load(ctx context.Context, c load.Config) (*load.Run, error) {
	for _, p := range s.Pops {
		c.Targets = append(c.Targets, load.Target{Pop: p.Name, Address: p.Address})
	}
	return load.Start(ctx, c)
}

// CLI is the edgehold command against this stage, as an operator would run it.
func (s *Stage) CLI(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, "edgehold"), args...)
	cmd.Env = append(os.Environ(), "EDGEHOLD_CONFIG="+s.path("config.yaml"))
	return cmd
}

// Run runs the command and returns what it printed; the error holds what it said.
func (s *Stage) Run(ctx context.Context, args ...string) (string, error) {
	var out, diag bytes.Buffer
	cmd := s.CLI(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("edgehold %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), diag.String())
	}
	return out.String(), nil
}

// watch keeps Board until unwatch.
func (s *Stage) watch() {
	ctx, stop := context.WithCancel(context.Background())
	var watches sync.WaitGroup
	for _, c := range s.Clusters {
		watches.Go(func() { s.Board.follow(ctx, c) })
	}
	s.unwatch = func() { stop(); watches.Wait() }
}

// Unwatched calls f while Board is not kept: to watch hundreds of Fleets is work for the API servers, and what is measured on them
// must not pay for it. Afterwards Board knows of nothing until it has read everything again.
func (s *Stage) Unwatched(f func() error) error {
	s.unwatch()
	err := f()
	s.Board.clear()
	s.watch()
	return err
}

// Close stops the services that the stage started. The clusters stay as they are.
func (s *Stage) Close() {
	for _, p := range []*Process{s.Runbooks, s.Fleet, s.Controller} {
		if p != nil {
			p.Stop(5 * time.Second)
		}
	}
	for _, p := range s.Pops {
		if p.Wire != nil {
			p.Wire.close()
		}
	}
	s.unwatch()
}

// Remove deletes the PoPs' namespaces from the clusters, and returns when they are gone.
func (s *Stage) Remove(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range s.Pops {
		g.Go(func() error {
			namespaces := s.Cluster(p).Kube.CoreV1().Namespaces()
			if err := namespaces.Delete(gctx, p.Namespace, metav1.DeleteOptions{}); err != nil {
				return err
			}
			for {
				if _, err := namespaces.Get(gctx, p.Namespace, metav1.GetOptions{}); err != nil {
					return gctx.Err()
				}
				select {
				case <-gctx.Done():
					return gctx.Err()
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	return g.Wait()
}

// Autoscale makes an HPA for the PoP's fleet that aims at so many requests per second and pod. It may shrink soon, so that
// a test need not wait for the usual five minutes.
func (s *Stage) Autoscale(ctx context.Context, p Pop, low, high int32, perPod int64) error {
	soon := int32(5)
	target := resource.NewQuantity(perPod, resource.DecimalSI)
	_, err := s.Cluster(p).Kube.AutoscalingV2().HorizontalPodAutoscalers(p.Namespace).Create(ctx, &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: FleetName},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Fleet", Name: FleetName},
			MinReplicas:    &low, MaxReplicas: high,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "edge_requests_per_second"},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: target},
			}}},
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &soon}},
		},
	}, metav1.CreateOptions{FieldManager: fieldManager})
	return err
}

// AuditLog is the file that the edgehold command writes its audit lines to.
func (s *Stage) AuditLog() string { return s.path("cli-audit.log") }
