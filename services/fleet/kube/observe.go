// Package kube makes observations of a fleet from Kubernetes objects. Observe is where to start; controller acts on what is
// observed, and cluster asks the clusters of many PoPs.
package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// AddTypes lists what a scheme needs for Observe: core, apps, autoscaling/v2, discovery and v1alpha1.
var AddTypes = []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, discoveryv1.AddToScheme, v1alpha1.AddToScheme}

// Objects are what an observation is made from. The controller has them in its caches.
type Objects struct {
	Fleet *v1alpha1.Fleet
	// Fleets of the namespace, to find those that claim the same things.
	Fleets      []v1alpha1.Fleet
	Service     *corev1.Service
	Blue, Green *appsv1.Deployment
	Slices      []discoveryv1.EndpointSlice
	// Pods of the namespace that have the colour label.
	Pods        []corev1.Pod
	Autoscalers []autoscalingv2.HorizontalPodAutoscaler
}

// Observe reads a fleet and what preflight and planning want, from a cache or live: in the rush of a forced selector every read
// counts. Endpoints, autoscalers and what the pods say of their connections are not in it. The Fleet itself is returned beside
// it. The fleet that does not exist is problem.NotFound; other errors are those of the reader.
func Observe(ctx context.Context, r client.Reader, namespace, name string) (fleet.Observation, *v1alpha1.Fleet, error) {
	objects, err := readFleet(ctx, r, types.NamespacedName{Namespace: namespace, Name: name})
	if err != nil {
		return fleet.Observation{}, nil, err
	}
	now := time.Now()
	o := objects.Observation(fleet.Clock{Now: now, Earliest: now, Latest: now, Uptime: 1})
	// A fence above a generation that was read just now belongs to a Fleet that was deleted and made again.
	if o.Service != nil && o.Service.Fence > o.Generation {
		o.Service.Fence = 0
	}
	for _, c := range []fleet.Colour{fleet.Blue, fleet.Green} {
		if o.MustRamp(c) {
			o.Headroom = Headroom(ctx, r, objects, c)
		}
	}
	return o, objects.Fleet, nil
}

// Read reads the objects of one fleet, errors as in Observe.
func Read(ctx context.Context, r client.Reader, key types.NamespacedName) (*Objects, error) {
	o, err := readFleet(ctx, r, key)
	if err != nil {
		return nil, err
	}
	var slices discoveryv1.EndpointSliceList
	if err := r.List(ctx, &slices, client.InNamespace(key.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: o.Fleet.Spec.Service}); err != nil {
		return nil, err
	}
	o.Slices = slices.Items
	var pods corev1.PodList
	if err := r.List(ctx, &pods, client.InNamespace(key.Namespace), client.HasLabels{v1alpha1.ColourLabel}); err != nil {
		return nil, err
	}
	o.Pods = pods.Items
	var autoscalers autoscalingv2.HorizontalPodAutoscalerList
	if err := r.List(ctx, &autoscalers, client.InNamespace(key.Namespace)); err != nil {
		return nil, err
	}
	o.Autoscalers = autoscalers.Items
	return o, nil
}

// readFleet reads the Fleets of the namespace, and the Service and the Deployments that the one of that name is about.
func readFleet(ctx context.Context, r client.Reader, key types.NamespacedName) (*Objects, error) {
	var o Objects
	var fleets v1alpha1.FleetList
	if err := r.List(ctx, &fleets, client.InNamespace(key.Namespace)); err != nil {
		return nil, err
	}
	for i := range fleets.Items {
		if fleets.Items[i].Name == key.Name {
			o.Fleet = &fleets.Items[i]
		}
	}
	if o.Fleet == nil {
		return nil, problem.NotFoundf("fleet", "there is no Fleet %q in namespace %s", key.Name, key.Namespace)
	}
	o.Fleets = fleets.Items
	spec := &o.Fleet.Spec
	var service corev1.Service
	var blue, green appsv1.Deployment
	for _, want := range []struct {
		name   string
		object client.Object
		found  func()
	}{
		{spec.Service, &service, func() { o.Service = &service }},
		{spec.Blue.Deployment, &blue, func() { o.Blue = &blue }},
		{spec.Green.Deployment, &green, func() { o.Green = &green }},
	} {
		err := r.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: want.name}, want.object)
		if err == nil {
			want.found()
		} else if !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return &o, nil
}

// Observation is what the objects say at a time.
func (o *Objects) Observation(clock fleet.Clock) fleet.Observation {
	f := o.Fleet
	d := fleet.Observation{Name: f.Name, Generation: f.Generation, Spec: Spec(f), Status: Status(f), Clock: clock,
		Blue: deployment(o.Blue), Green: deployment(o.Green), Service: service(o.Service), Endpoints: o.endpoints()}
	if f.Spec.Change != nil {
		d.Stored = stored(f.ManagedFields)
	}
	for i := range o.Fleets {
		other := &o.Fleets[i]
		if other.Name == f.Name || other.Namespace != f.Namespace {
			continue
		}
		mine := []string{f.Spec.Blue.Deployment, f.Spec.Green.Deployment}
		if other.Spec.Service == f.Spec.Service || slices.Contains(mine, other.Spec.Blue.Deployment) || slices.Contains(mine, other.Spec.Green.Deployment) {
			d.Rivals = append(d.Rivals, other.Name)
		}
	}
	slices.Sort(d.Rivals)
	for i := range o.Autoscalers {
		a := &o.Autoscalers[i]
		switch t := a.Spec.ScaleTargetRef; {
		case t.Kind == "Fleet" && t.Name == f.Name && (d.Autoscaler == nil || d.Autoscaler.Problem == ""): // of two, the one that ails
			d.Autoscaler = &fleet.Autoscaler{Name: a.Name, Problem: ailing(a)}
		case t.Kind == "Deployment" && (t.Name == f.Spec.Blue.Deployment || t.Name == f.Spec.Green.Deployment):
			d.StrayAutoscaler = a.Name
		}
	}
	return d
}

// ailing is why an autoscaler's wish to shrink is not to be followed. One that has not looked yet is no reason to.
func ailing(a *autoscalingv2.HorizontalPodAutoscaler) string {
	var why []string
	for _, want := range []autoscalingv2.HorizontalPodAutoscalerConditionType{autoscalingv2.AbleToScale, autoscalingv2.ScalingActive} {
		i := slices.IndexFunc(a.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == want })
		if i < 0 {
			why = append(why, string(want)+" is not known yet")
		} else if c := a.Status.Conditions[i]; c.Status != corev1.ConditionTrue {
			why = append(why, fmt.Sprintf("%s is %s (%s: %s)", want, c.Status, c.Reason, c.Message))
		}
	}
	return strings.Join(why, "; ")
}

func service(s *corev1.Service) *fleet.Service {
	if s == nil {
		return nil
	}
	d := &fleet.Service{Name: s.Name, ResourceVersion: s.ResourceVersion, Selector: s.Spec.Selector}
	switch c := fleet.Colour(s.Spec.Selector[v1alpha1.ColourLabel]); c {
	case fleet.Blue, fleet.Green:
		d.Colour = c
	}
	d.Reverted = s.Annotations[v1alpha1.RevertedAnnotation]
	// A fence that is not a number was not set by us.
	d.Fence, _ = strconv.ParseInt(s.Annotations[v1alpha1.FenceAnnotation], 10, 64)
	for _, m := range s.ManagedFields {
		if !ownsSelector(m) {
			continue
		}
		w := fleet.Writer{Name: m.Manager}
		if m.Time != nil {
			w.At = m.Time.Time
		}
		d.Managers = append(d.Managers, w)
	}
	slices.SortStableFunc(d.Managers, func(a, b fleet.Writer) int { return b.At.Compare(a.At) })
	return d
}

func ownsSelector(m metav1.ManagedFieldsEntry) bool {
	// The set is JSON such as {"f:spec":{"f:selector":{}}}; the key occurs nowhere else in a Service.
	return m.FieldsV1 != nil && m.Subresource == "" && strings.Contains(m.FieldsV1.GetRawString(), `"f:selector"`)
}

// stored is when spec.change was written, by the API server's clock; zero when it does not say. Of several writers of the same
// change the first one declared it.
func stored(managers []metav1.ManagedFieldsEntry) (at time.Time) {
	for _, m := range managers {
		if m.Time != nil && OwnsChange(m) && (at.IsZero() || m.Time.Time.Before(at)) {
			at = m.Time.Time
		}
	}
	return at
}

// OwnsChange reports whether a manager of a Fleet wrote spec.change.
func OwnsChange(m metav1.ManagedFieldsEntry) bool {
	// {"f:spec":{"f:change":{}}}; the key occurs nowhere else in a Fleet.
	return m.FieldsV1 != nil && m.Subresource == "" && strings.Contains(m.FieldsV1.GetRawString(), `"f:change"`)
}

func deployment(d *appsv1.Deployment) *fleet.Deployment {
	if d == nil {
		return nil
	}
	out := &fleet.Deployment{Name: d.Name, Labels: d.Spec.Template.Labels, Version: d.Spec.Template.Labels[v1alpha1.VersionLabel], Desired: 1,
		Pods: d.Status.Replicas, Ready: d.Status.ReadyReplicas}
	if d.Spec.Selector != nil {
		out.Selector = d.Spec.Selector.MatchLabels
	}
	if d.Spec.Replicas != nil {
		out.Desired = *d.Spec.Replicas
	}
	// In a rollout every pod of an older template may be one of those that are ready.
	if d.Status.ObservedGeneration >= d.Generation {
		out.Current = max(d.Status.ReadyReplicas-(d.Status.Replicas-d.Status.UpdatedReplicas), 0)
	}
	return out
}

// endpoints counts what the Service's slices serve, by the colour of the pods behind them.
func (o *Objects) endpoints() fleet.Endpoints {
	colours := make(map[string]fleet.Colour, len(o.Pods))
	for i := range o.Pods {
		colours[o.Pods[i].Name] = fleet.Colour(o.Pods[i].Labels[v1alpha1.ColourLabel])
	}
	seen := map[string]bool{}
	var e fleet.Endpoints
	for i := range o.Slices {
		for _, p := range o.Slices[i].Endpoints {
			if c := p.Conditions; c.Ready != nil && !*c.Ready {
				continue
			}
			key := strings.Join(p.Addresses, ",")
			colour := fleet.None
			if p.TargetRef != nil && p.TargetRef.Kind == "Pod" {
				key, colour = p.TargetRef.Name, colours[p.TargetRef.Name]
			}
			if seen[key] { // a dual-stack Service has a slice per address family
				continue
			}
			seen[key] = true
			switch colour {
			case fleet.Blue:
				e.Blue++
			case fleet.Green:
				e.Green++
			default:
				e.Unknown++
			}
		}
	}
	return e
}

// PodsOf returns the pods of a colour that are not on their way out, in the order of their names.
func (o *Objects) PodsOf(c fleet.Colour) []*corev1.Pod {
	d := o.Blue
	if c == fleet.Green {
		d = o.Green
	}
	if d == nil || d.Spec.Selector == nil {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || selector.Empty() {
		return nil
	}
	var pods []*corev1.Pod
	for i := range o.Pods {
		p := &o.Pods[i]
		if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && p.Status.PodIP != "" &&
			p.Labels[v1alpha1.ColourLabel] == string(c) && selector.Matches(labels.Set(p.Labels)) {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods
}

// IsReady reports whether the pod's Ready condition is true.
func IsReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
