package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	edgehold "edgehold.internal/libs/client"
	"edgehold.internal/libs/service"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/cluster"
	"edgehold.internal/services/fleet/kube/controller"
	"edgehold.internal/services/fleet/kube/kubetest"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const pops = `apiVersion: edgehold.internal/v1alpha1
kind: PopRegistry
pops:
- {name: fra1, region: europe, latitude: 50.1, longitude: 8.7, context: cluster-1, namespace: pop-fra1}
- {name: ams1, region: europe, latitude: 52.4, longitude: 4.9, context: cluster-1, namespace: pop-ams1}
`

// run starts the very Run of the command and returns its address.
func run(t *testing.T, c Config) string {
	t.Helper()
	if c.Service.AuditLog == "" {
		c.Service.AuditLog = filepath.Join(t.TempDir(), "audit")
	}
	c.Service.Log = io.Discard
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := Run(ctx, c, in)
		_ = in.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var ready struct {
		Ready   bool
		Address string
	}
	if err := json.NewDecoder(out).Decode(&ready); err != nil || !ready.Ready {
		t.Fatalf("%+v, %v", ready, err)
	}
	return "http://" + ready.Address
}

func dial(t *testing.T, address string) fleetv1connect.FleetServiceClient {
	t.Helper()
	c, err := edgehold.New(edgehold.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), c.Options()...)
}

// The whole command against a real API server: a global cutover there and back, a registry that changes, one that is
// wrong, and a controller that is dead.
func TestRun(t *testing.T) {
	k := kubetest.Run(t, "cluster-1")
	for _, p := range []string{"fra1", "ams1", "gru1"} {
		k.AddPop(t, p)
	}
	force(t, k)

	file := filepath.Join(t.TempDir(), "pops.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(pops)
	audit := filepath.Join(t.TempDir(), "audit")
	address := run(t, Config{Service: service.Config{Name: "fleet-all", AuditLog: audit}, Controller: true, Serve: true, Kubeconfig: k.Kubeconfig, Pops: file})
	c := dial(t, address)

	steady := func(want fleetv1.Colour) {
		t.Helper()
		kubetest.Eventually(t, func() error {
			list, err := c.ListFleets(t.Context(), &fleetv1.ListFleetsRequest{Fleet: "edge", Scope: &fleetv1.Scope{All: true}})
			if err != nil {
				return err
			}
			for _, f := range list.GetFleets() {
				if f.GetProblem() != nil || f.GetActive() != want || f.GetGeneration() == 0 {
					return fmt.Errorf("%v", f)
				}
			}
			return nil
		})
	}
	steady(fleetv1.Colour_COLOUR_GREEN)
	plan, err := c.PlanCutover(t.Context(), &fleetv1.PlanCutoverRequest{Fleet: "edge", Scope: &fleetv1.Scope{All: true}, Version: "v1"})
	if err != nil || plan.GetTo() != fleetv1.Colour_COLOUR_BLUE || len(plan.GetPops()) != 2 || len(plan.GetPops()[1].GetBlockers()) != 0 {
		t.Fatal(plan, err)
	}
	for _, pop := range []string{"fra1", "ams1"} {
		began := time.Now()
		r, err := c.CutOver(t.Context(), &fleetv1.CutOverRequest{Pop: pop, Fleet: "edge", To: plan.GetTo(), Version: "v1", Reason: "v2 answers 500", IdempotencyKey: "op-1/" + pop})
		if err != nil || r.GetCutover().GetSwitchedAt() == nil || r.GetFleet().GetActive() != plan.GetTo() {
			t.Fatal(r, err)
		}
		t.Logf("%s switched in %s", pop, time.Since(began))
	}

	audited(t, audit, "/edgehold.fleet.v1.FleetService/CutOver op-1/fra1", "fleet-controller/switch op-1/fra1", "fleet-controller/switch op-1/ams1")

	write(strings.Replace(pops, "ams1, region", "fra1, region", 1))
	kubetest.Eventually(t, func() error {
		if body := get(t, address+"/healthz"); !strings.Contains(body, "warning: registry") {
			return fmt.Errorf("health: %s", body)
		}
		return nil
	})
	steady(fleetv1.Colour_COLOUR_BLUE) // with the last good one
	write(pops + "- {name: gru1, region: south america, latitude: -23.5, longitude: -46.6, context: cluster-1, namespace: pop-gru1}\n")
	kubetest.Eventually(t, func() error {
		list, err := c.ListPops(t.Context(), &fleetv1.ListPopsRequest{})
		if err != nil || len(list.GetPops()) != 3 || list.GetPops()[2].GetProblem() != nil {
			return fmt.Errorf("%v, %w", list, err)
		}
		return nil
	})
	// The controller came back to a selector that was set in its place: it agrees, and has it on record.
	var service corev1.Service
	if err := k.Admin.Get(t.Context(), types.NamespacedName{Namespace: "pop-gru1", Name: "edge"}, &service); err != nil || service.Spec.Selector[fleet.ColourLabel] != "blue" {
		t.Errorf("after a forced selector: %v, %v", service.Spec.Selector, err)
	}
	history, err := c.ListCutovers(t.Context(), &fleetv1.ListCutoversRequest{Fleet: "edge", Scope: &fleetv1.Scope{Pops: []string{"gru1"}}})
	if err != nil || len(history.GetPops()[0].GetCutovers()) != 1 || history.GetPops()[0].GetCutovers()[0].GetId() != "forced-1" || history.GetPops()[0].GetCutovers()[0].GetSwitchedAt() == nil {
		t.Errorf("after a forced selector: %v, %v", history, err)
	}
	if body, err := os.ReadFile(audit); err != nil || !strings.Contains(string(body), `"procedure":"fleet-controller/adopt","reason":"the controller is dead","idempotency_key":"forced-1"`) {
		t.Errorf("%v; the audit log does not say that a switch was found:\n%s", err, body)
	}
	if body := get(t, address+"/healthz"); strings.Contains(body, "warning") {
		t.Errorf("health: %s", body)
	}
	body := get(t, address+"/metrics")
	for _, want := range []string{`edgehold_cluster_reachable{cluster="cluster-1"} 1`, "edgehold_fleet_switch_seconds_count{"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s at /metrics", want)
		}
	}
}

// audited checks that calls and what the controller did by itself are in one audit log.
func audited(t *testing.T, file string, want ...string) {
	t.Helper()
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(body)) {
		var l struct {
			Audit                              bool
			Procedure, Principal, Reason, Code string
			Key                                string `json:"idempotency_key"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || !l.Audit {
			t.Fatalf("%q: %v", line, err)
		}
		have[l.Procedure+" "+l.Key] = l.Principal == "local" && l.Reason != "" && l.Code == "ok"
	}
	for _, w := range want {
		if !have[w] {
			t.Errorf("no good line of %s in the audit log:\n%s", w, body)
		}
	}
}

// force switches gru1 without a controller, as the command line does when nothing else is left.
func force(t *testing.T, k *kubetest.Cluster) {
	t.Helper()
	// What the controller wrote before it died.
	f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Namespace: "pop-gru1", Name: "edge"}}
	if err := k.Admin.Status().Patch(t.Context(), f, client.RawPatch(types.MergePatchType, []byte(`{"status":{"active":"green","observedGeneration":1}}`))); err != nil {
		t.Fatal(err)
	}
	connections, err := cluster.Open(cluster.Config{Kubeconfig: []string{k.Kubeconfig}})
	if err != nil {
		t.Fatal(err)
	}
	defer connections.Close()
	registry := &fleet.Registry{Pops: []fleet.Pop{{Name: "gru1", Context: "cluster-1", Namespace: "pop-gru1"}}}
	r, err := fleet.NewCentre(registry, connections.Cluster, fleet.Limits{}).ForceSelector(t.Context(), "edge", fleet.Scope{All: true},
		fleet.Change{ID: "forced-1", To: fleet.Blue, Principal: "ada", Reason: "the controller is dead"}, nil)
	if err != nil || r[0].Err != nil {
		t.Fatal(r, err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url) //nolint:noctx // on loopback, in a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	registry := filepath.Join(dir, "pops.yaml")
	for path, text := range map[string]string{
		kubeconfig: `{apiVersion: v1, kind: Config, clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: a, user: {}}], contexts: [{name: cluster-1, context: {cluster: a, user: a}}]}`,
		registry:   strings.Replace(pops, "cluster-1", "cluster-9", 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serve := Config{Service: service.Config{Name: "fleet-serve", AuditLog: filepath.Join(dir, "audit"), Log: io.Discard}, Serve: true, Kubeconfig: kubeconfig, Pops: registry}
	for _, tc := range []struct {
		name  string
		alter func(*Config)
		says  string
	}{
		{"neither part", func(c *Config) { c.Serve = false }, "mode: "},
		{"no registry", func(c *Config) { c.Pops = "" }, "pops: is empty"},
		{"a registry that is missing", func(c *Config) { c.Pops += "x" }, "pops: "},
		{"a registry with an unknown context", func(*Config) {}, `pops[0].context: line 4: the kubeconfig has no context "cluster-9"; it has cluster-1`},
		{"a kubeconfig that is missing", func(c *Config) { c.Kubeconfig += "x" }, "kubeconfig: "},
		{"a context twice", func(c *Config) { c.Contexts = []string{"a", "a"} }, `context: "a" is named twice`},
		{"an unknown context", func(c *Config) { c.Serve, c.Controller, c.Contexts = false, true, []string{"cluster-9"} }, `context: the kubeconfig has no context "cluster-9"`},
		{"a wrong dial map", func(c *Config) { c.Serve, c.Controller, c.DialMap = false, true, "10.0.0.0" }, "10.0.0.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve
			tc.alter(&c)
			var out bytes.Buffer
			err := Run(t.Context(), c, &out)
			if err == nil || !strings.Contains(err.Error(), tc.says) || out.Len() > 0 {
				t.Errorf("%v, %q; want …%s…", err, &out, tc.says)
			}
		})
	}
}

func TestDrillClock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	clock := drillClock{controller.SystemClock(), file}
	for text, want := range map[string]time.Duration{"": 0, "3h\n": 3 * time.Hour, "-90m": -90 * time.Minute, "soon": 0} {
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if off := time.Until(clock.Now()); (off - want).Abs() > time.Minute {
			t.Errorf("%q: off by %s", text, off)
		}
		_ = os.Remove(file)
	}
}

func TestCommand(t *testing.T) {
	for _, tc := range []struct {
		args, says string
	}{
		{"serve --help", "--pops"}, {"controller --help", "--dial-map"}, {"all --help", "--leader-election"},
	} {
		cmd := command()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs(strings.Fields(tc.args))
		if err := cmd.Execute(); err != nil || !strings.Contains(out.String(), tc.says) {
			t.Errorf("%s: %v\n%s", tc.args, err, &out)
		}
	}
	cmd := command()
	cmd.SetArgs([]string{"serve", "somewhere"})
	cmd.SetErr(io.Discard)
	if err := cmd.Execute(); err == nil {
		t.Error("an argument was accepted")
	}
}
