package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/cluster"
	"edgehold.internal/services/fleet/kube/kubetest"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// TestRights: controller and centre do all they ever do with the rights that deploy/ gives them, and there is no right that
// neither of them uses.
func TestRights(t *testing.T) {
	k := kubetest.Run(t, "cluster-1")
	// fra1 serves green. ams1 has a standby of nothing, which must be ramped: that asks nodes and quotas. gru1 has the fence of a
	// Fleet that was deleted, which asks whether the cache is behind.
	for _, p := range []string{"fra1", "ams1", "gru1"} {
		k.AddPop(t, p)
	}
	alter(t, k, &v1alpha1.Fleet{}, "ams1", "edge", `{"spec":{"replicas":2,"standby":{"percent":0}}}`)
	alter(t, k, &appsv1.Deployment{}, "ams1", "edge-green", `{"spec":{"replicas":1}}`)
	alter(t, k, &corev1.Service{}, "gru1", "edge", `{"metadata":{"annotations":{"`+v1alpha1.FenceAnnotation+`":"99"}}}`)
	allowed := applyRights(t, k)

	t.Run("controller", func(t *testing.T) {
		p := newWitness(t, k, "fleet-controller")
		run(t, Config{Service: service.Config{Name: "fleet-controller"}, Controller: true, Kubeconfig: p.kubeconfig, LeaderElection: true, LeaderNamespace: "edgehold-system"})
		alter(t, k, &v1alpha1.Fleet{}, "fra1", "edge", `{"spec":{"active":"blue"}}`)
		alter(t, k, &v1alpha1.Fleet{}, "ams1", "edge", `{"spec":{"active":"blue"}}`)
		kubetest.Eventually(t, func() error {
			if missing := p.missing(allowed["fleet-controller"]); len(missing) > 0 {
				return fmt.Errorf("it has these rights and did not use them: %v", missing)
			}
			return nil
		})
		if len(p.refused) > 0 {
			t.Errorf("refused: %v", p.refused)
		}
	})
	t.Run("centre", func(t *testing.T) {
		p := newWitness(t, k, "centre")
		connections, err := cluster.Open(cluster.Config{Kubeconfig: []string{p.kubeconfig}, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		pops := &fleet.Registry{Pops: []fleet.Pop{{Name: "fra1", Context: "cluster-1", Namespace: "pop-fra1"}, {Name: "ams1", Context: "cluster-1", Namespace: "pop-ams1"}}}
		centre := fleet.NewCentre(pops, connections.Cluster, fleet.Limits{})
		everywhere := fleet.Scope{All: true}
		now := time.Now()
		if _, err := centre.List(t.Context(), "edje", everywhere); problem.KindOf(err) != problem.NotFound {
			t.Error(err)
		}
		if _, _, err := centre.Plan(t.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere, To: fleet.Blue, Fresh: true}); err != nil {
			t.Error(err)
		}
		if _, err := centre.Freeze(t.Context(), "edge", everywhere, fleet.Freeze{ID: "f", Until: now.Add(time.Hour), Reason: "x"}); err != nil {
			t.Error(err)
		}
		if _, err := centre.ForceSelector(t.Context(), "edge", fleet.Scope{Pops: []string{"fra1"}}, fleet.Change{ID: "op-9", To: fleet.Green, Reason: "x", Force: true}, nil); err != nil {
			t.Error(err)
		}
		connections.Close() // which waits for the Events
		// A command that waits for a switch watches the Services.
		command, err := cluster.Open(cluster.Config{Kubeconfig: []string{p.kubeconfig}})
		if err != nil {
			t.Fatal(err)
		}
		defer command.Close()
		if _, err := command.Cluster(pops.Pops[0]).Await(t.Context(), fleet.Fleet{Name: "edge"}, func(*fleet.Fleet) bool {
			return !slices.Contains(p.missing(allowed["centre"]), "watch services")
		}); err != nil {
			t.Error(err)
		}
		if missing := p.missing(allowed["centre"]); len(missing) > 0 {
			t.Errorf("it has these rights and did not use them: %v", missing)
		}
		if len(p.refused) > 0 {
			t.Errorf("refused: %v", p.refused)
		}
	})
}

func alter(t *testing.T, k *kubetest.Cluster, o client.Object, pop, name, patch string) {
	t.Helper()
	o.SetNamespace("pop-" + pop)
	o.SetName(name)
	if err := k.Admin.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

// applyRights stores rbac.yaml and returns its rights by service account, such as "list pods" or "patch fleets/status".
func applyRights(t *testing.T, k *kubetest.Cluster) map[string][]string {
	t.Helper()
	root, err := kubetest.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "base", "controller", "rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "edgehold-system"}}); err != nil {
		t.Fatal(err)
	}
	rules := map[string][]rbacv1.PolicyRule{}
	allowed := map[string][]string{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var o unstructured.Unstructured
		var role struct{ Rules []rbacv1.PolicyRule }
		var binding struct {
			RoleRef  rbacv1.RoleRef
			Subjects []rbacv1.Subject
		}
		for _, into := range []any{&o.Object, &role, &binding} {
			if err := yaml.Unmarshal([]byte(document), into); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.Admin.Create(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
		rules[o.GetName()] = append(rules[o.GetName()], role.Rules...)
		for _, s := range binding.Subjects {
			for _, r := range rules[binding.RoleRef.Name] {
				for _, group := range r.APIGroups {
					for _, resource := range r.Resources {
						for _, verb := range r.Verbs {
							allowed[s.Name] = append(allowed[s.Name], right(verb, group, resource))
						}
					}
				}
			}
		}
	}
	return allowed
}

func right(verb, group, resource string) string {
	if group != "" {
		resource += "." + group
	}
	return verb + " " + resource
}

// witness passes on what a service account asks of the API server, and keeps what that was.
type witness struct {
	kubeconfig string

	mu            sync.Mutex
	used, refused map[string]bool
}

func newWitness(t *testing.T, k *kubetest.Cluster, account string) *witness {
	t.Helper()
	token := &authenticationv1.TokenRequest{}
	if err := k.Admin.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "edgehold-system", Name: account}}, token); err != nil {
		t.Fatal(err)
	}
	admin, err := clientcmd.BuildConfigFromFlags("", k.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(admin.CAData)
	api, err := url.Parse(admin.Host)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), used: map[string]bool{}, refused: map[string]bool{}}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, ErrorLog: nil,
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(api) },
		ModifyResponse: func(r *http.Response) error { w.saw(r); return nil }}
	server := httptest.NewUnstartedServer(proxy)
	server.EnableHTTP2 = true
	server.StartTLS() // over plain HTTP a client would keep its token to itself
	t.Cleanup(func() { server.CloseClientConnections(); server.Close(); transport.CloseIdleConnections() })
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server.URL, CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts[k.Name] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	if err := clientcmd.WriteToFile(*config, w.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return w
}

// saw notes /api/v1/[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]], and the same below /apis/GROUP/VERSION.
func (w *witness) saw(r *http.Response) {
	parts := strings.Split(strings.Trim(r.Request.URL.Path, "/"), "/")
	group := ""
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		group, parts = parts[1], parts[3:]
	default:
		return // discovery
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	resource := parts[0]
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	verb := map[string]string{http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Request.Method]
	switch {
	case verb != "":
	case r.Request.URL.Query().Get("watch") != "":
		verb = "watch"
	case len(parts) > 1:
		verb = "get"
	default:
		verb = "list"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used[right(verb, group, resource)] = true
	if r.StatusCode == http.StatusForbidden {
		w.refused[right(verb, group, resource)] = true
	}
}

// missing are the rights that were not used. An Event that comes again is patched, which no test waits for. What is watched is
// listed as well where an API server cannot begin a watch with all that there is.
func (w *witness) missing(allowed []string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(set(allowed))), func(r string) bool {
		listed, isList := strings.CutPrefix(r, "list ")
		return w.used[r] || strings.HasPrefix(r, "patch events") || isList && w.used["watch "+listed]
	})
}

func set(names []string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}
