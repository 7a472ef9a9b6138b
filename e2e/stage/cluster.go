package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"edgehold.internal/services/fleet/kube/v1alpha1"
)

// fieldManager owns what the stage applies.
const fieldManager = "edgehold-e2e"

var fleets = v1alpha1.GroupVersion.WithResource("fleets")

// resources maps the kinds of deploy/ to their API resources, so that nothing has to be discovered.
var resources = map[schema.GroupKind]schema.GroupVersionResource{
	{Kind: "Namespace"}:                                               {Version: "v1", Resource: "namespaces"},
	{Kind: "ServiceAccount"}:                                          {Version: "v1", Resource: "serviceaccounts"},
	{Kind: "Service"}:                                                 {Version: "v1", Resource: "services"},
	{Group: "apps", Kind: "Deployment"}:                               {Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "rbac.authorization.k8s.io", Kind: "Role"}:                {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:         {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}:         {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}:  {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: {Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}:           {Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
	{Group: v1alpha1.GroupVersion.Group, Kind: "Fleet"}:               fleets,
}

// Cluster is one Kubernetes cluster of the stage.
type Cluster struct {
	Context string
	Kube    kubernetes.Interface
	Dynamic dynamic.Interface
	fleets  client.WithWatch
	config  *rest.Config
}

func openCluster(kubeconfig, context string) (*Cluster, error) {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s, context %s: %w", kubeconfig, context, err)
	}
	config.QPS, config.Burst = 400, 800
	c := &Cluster{Context: context, config: config}
	if c.Kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if c.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	known := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(known); err != nil {
		return nil, err
	}
	// The kind may not be there yet, so nothing is discovered.
	kinds := meta.NewDefaultRESTMapper(nil)
	kinds.Add(v1alpha1.GroupVersion.WithKind("Fleet"), meta.RESTScopeNamespace)
	c.fleets, err = client.NewWithWatch(config, client.Options{Scheme: known, Mapper: kinds, Log: logr.Discard()})
	return c, err
}

// Build renders a kustomization of deploy/.
func Build(dir string) ([]*unstructured.Unstructured, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("kustomize build %s: %w", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, r := range built.Resources() {
		// By way of JSON, because kustomize's own numbers are not those of unstructured objects.
		body, err := r.MarshalJSON()
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(body); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// Apply writes the objects in order, by server-side apply.
func (c *Cluster) Apply(ctx context.Context, objects ...*unstructured.Unstructured) error {
	for _, o := range objects {
		gvr, known := resources[o.GroupVersionKind().GroupKind()]
		if !known {
			return fmt.Errorf("apply: kind %s is not one that deploy/ uses", o.GroupVersionKind())
		}
		body, err := json.Marshal(o)
		if err != nil {
			return err
		}
		force := true
		if _, err := c.Dynamic.Resource(gvr).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.ApplyPatchType, body,
			metav1.PatchOptions{FieldManager: fieldManager, Force: &force}); err != nil {
			return fmt.Errorf("apply %s %s/%s in %s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), c.Context, err)
		}
	}
	return nil
}

// established waits until the API server serves fleets.
func (c *Cluster) established(ctx context.Context) error {
	for {
		_, err := c.Dynamic.Resource(fleets).List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Fleet CRD was not established in %s: %w", c.Context, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// writeKubeconfig writes one that acts as the given service account: a context per cluster, and one per PoP whose API is
// reached over a wire of its own.
func (s *Stage) writeKubeconfig(ctx context.Context, path, namespace, account string) error {
	out := clientcmdapi.NewConfig()
	expiry := int64((12 * time.Hour).Seconds())
	for _, c := range s.Clusters {
		token, err := c.Kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account,
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &expiry}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("token of %s/%s in %s: %w", namespace, account, c.Context, err)
		}
		out.Clusters[c.Context] = &clientcmdapi.Cluster{Server: c.config.Host, CertificateAuthorityData: c.config.CAData, CertificateAuthority: c.config.CAFile, DisableCompression: c.config.DisableCompression}
		out.AuthInfos[c.Context] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
		out.Contexts[c.Context] = &clientcmdapi.Context{Cluster: c.Context, AuthInfo: c.Context}
		out.CurrentContext = c.Context
	}
	for _, p := range s.Pops {
		if p.Wire == nil {
			continue
		}
		over, err := p.Wire.through(out.Clusters[p.Context])
		if err != nil {
			return err
		}
		out.Clusters[p.centreContext()] = over
		out.Contexts[p.centreContext()] = &clientcmdapi.Context{Cluster: p.centreContext(), AuthInfo: p.Context}
	}
	body, err := clientcmd.Write(*out)
	if err != nil {
		return err
	}
	return os.WriteFile(path, body, 0o600)
}

// Board is the live state of every Fleet of the stage, kept by watches.
type Board struct {
	mu      sync.Mutex
	fleets  map[string]v1alpha1.Fleet // by PoP namespace
	changed chan struct{}
	// Sample, when set, sees every state that a watch delivers, in order.
	sample func(v1alpha1.Fleet)
}

func newBoard() *Board {
	return &Board{fleets: map[string]v1alpha1.Fleet{}, changed: make(chan struct{})}
}

// follow watches the fleets of one cluster until ctx ends.
func (b *Board) follow(ctx context.Context, c *Cluster) {
	list := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			found := &v1alpha1.FleetList{}
			return found, c.fleets.List(ctx, found, &client.ListOptions{Raw: &o})
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.fleets.Watch(ctx, &v1alpha1.FleetList{}, &client.ListOptions{Raw: &o})
		},
	}
	informer := cache.NewSharedInformer(list, &v1alpha1.Fleet{}, 0)
	set := func(o any) {
		f, is := o.(*v1alpha1.Fleet)
		if !is {
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.fleets[f.Namespace] = *f
		if b.sample != nil {
			b.sample(*f)
		}
		close(b.changed)
		b.changed = make(chan struct{})
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: set, UpdateFunc: func(_, o any) { set(o) },
		DeleteFunc: func(o any) {
			if m, err := meta.Accessor(o); err == nil {
				b.mu.Lock()
				delete(b.fleets, m.GetNamespace())
				b.mu.Unlock()
			}
		},
	})
	informer.Run(ctx.Done())
}

func (b *Board) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.fleets)
}

// Sample calls f with every state of every fleet from now on, one at a time; nil ends it.
func (b *Board) Sample(f func(v1alpha1.Fleet)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sample = f
}

// Fleet returns the fleet in the namespace as it was last seen.
func (b *Board) Fleet(namespace string) (v1alpha1.Fleet, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.fleets[namespace]
	return f, ok
}

// Await returns when ok holds for the fleet of every namespace, or says for which it does not.
func (b *Board) Await(ctx context.Context, what string, namespaces []string, ok func(v1alpha1.Fleet) bool) error {
	for {
		b.mu.Lock()
		held := !slices.ContainsFunc(namespaces, func(ns string) bool { f, seen := b.fleets[ns]; return !seen || !ok(f) })
		changed := b.changed
		b.mu.Unlock()
		if held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w; not yet: %s", what, ctx.Err(), b.without(namespaces, ok))
		}
	}
}

// without names the first fleets for which ok does not hold.
func (b *Board) without(namespaces []string, ok func(v1alpha1.Fleet) bool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var missing []string
	for _, ns := range namespaces {
		if f, seen := b.fleets[ns]; !seen {
			missing = append(missing, ns+" (no Fleet)")
		} else if !ok(f) {
			missing = append(missing, fmt.Sprintf("%s (phase %s, active %s, blue %d/%d, green %d/%d: %s)", ns, f.Status.Phase, f.Status.Active,
				f.Status.Blue.Ready, f.Status.Blue.Desired, f.Status.Green.Ready, f.Status.Green.Desired, f.Status.Message))
		}
	}
	if len(missing) > 5 {
		missing = append(missing[:5], fmt.Sprintf("and %d more", len(missing)-5))
	}
	return strings.Join(missing, "; ")
}

// Scale sets the replicas of a Deployment and returns when it has as many.
func (c *Cluster) Scale(ctx context.Context, namespace, name string, replicas int32) error {
	deployments := c.Kube.AppsV1().Deployments(namespace)
	body := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	if _, err := deployments.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
		return fmt.Errorf("scale %s/%s in %s: %w", namespace, name, c.Context, err)
	}
	for {
		d, err := deployments.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if d.Status.ObservedGeneration >= d.Generation && d.Status.Replicas == replicas && d.Status.ReadyReplicas == replicas {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s/%s in %s has %d of %d replicas: %w", namespace, name, c.Context, d.Status.ReadyReplicas, replicas, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
