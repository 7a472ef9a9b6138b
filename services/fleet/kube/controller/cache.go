package controller

import (
	"strings"

	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// cacheOptions keep of each object only what an observation needs: one process may follow hundreds of PoPs.
func cacheOptions(namespaces []string) cache.Options {
	yes := true
	coloured, err := labels.NewRequirement(v1alpha1.ColourLabel, selection.Exists, nil)
	if err != nil {
		panic(err) // constant arguments
	}
	served, err := labels.NewRequirement(discoveryv1.LabelServiceName, selection.Exists, nil)
	if err != nil {
		panic(err)
	}
	o := cache.Options{
		// Observations read and never write.
		DefaultUnsafeDisableDeepCopy: &yes,
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.Fleet{}:                        {Transform: trimFleet},
			&corev1.Service{}:                        {Transform: trimService},
			&appsv1.Deployment{}:                     {Transform: trimDeployment},
			&discoveryv1.EndpointSlice{}:             {Transform: trimSlice, Label: labels.NewSelector().Add(*served)},
			&corev1.Pod{}:                            {Transform: trimPod, Label: labels.NewSelector().Add(*coloured)},
			&autoscalingv2.HorizontalPodAutoscaler{}: {Transform: trimAutoscaler},
		},
	}
	if len(namespaces) > 0 {
		o.DefaultNamespaces = map[string]cache.Config{}
		for _, n := range namespaces {
			o.DefaultNamespaces[n] = cache.Config{}
		}
	}
	return o
}

// meta is what is needed of any object's metadata.
func meta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
		DeletionTimestamp: m.DeletionTimestamp, Labels: m.Labels}
}

func trimFleet(o any) (any, error) {
	f, ok := o.(*v1alpha1.Fleet)
	if !ok {
		return o, nil
	}
	m := meta(f.ObjectMeta)
	// When the change was stored says how old it is.
	for _, w := range f.ManagedFields {
		if kube.OwnsChange(w) {
			m.ManagedFields = append(m.ManagedFields, w)
		}
	}
	f.ObjectMeta = m
	return f, nil
}

func trimService(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil
	}
	m := meta(s.ObjectMeta)
	m.Labels = nil
	m.Annotations = map[string]string{}
	for _, key := range []string{v1alpha1.FenceAnnotation, v1alpha1.RevertedAnnotation} {
		if v, ok := s.Annotations[key]; ok {
			m.Annotations[key] = v
		}
	}
	// Who set the selector, and when, says whether another writer fights over it.
	for _, f := range s.ManagedFields {
		if f.FieldsV1 != nil && strings.Contains(f.FieldsV1.GetRawString(), `"f:selector"`) {
			m.ManagedFields = append(m.ManagedFields, f)
		}
	}
	s.ObjectMeta = m
	s.Spec = corev1.ServiceSpec{Selector: s.Spec.Selector}
	s.Status = corev1.ServiceStatus{}
	return s, nil
}

func trimDeployment(o any) (any, error) {
	d, ok := o.(*appsv1.Deployment)
	if !ok {
		return o, nil
	}
	d.ObjectMeta = meta(d.ObjectMeta)
	pod := &d.Spec.Template.Spec
	kept := corev1.PodSpec{NodeSelector: pod.NodeSelector, Tolerations: pod.Tolerations, Overhead: pod.Overhead}
	for _, c := range pod.Containers {
		kept.Containers = append(kept.Containers, corev1.Container{Name: c.Name, Resources: c.Resources})
	}
	for _, c := range pod.InitContainers {
		kept.InitContainers = append(kept.InitContainers, corev1.Container{Name: c.Name, Resources: c.Resources})
	}
	d.Spec = appsv1.DeploymentSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector,
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: d.Spec.Template.Labels}, Spec: kept}}
	d.Status.Conditions = nil
	return d, nil
}

func trimSlice(o any) (any, error) {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return o, nil
	}
	s.ObjectMeta = meta(s.ObjectMeta)
	s.Ports = nil
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		*e = discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions, TargetRef: e.TargetRef}
		if e.TargetRef != nil {
			e.TargetRef = &corev1.ObjectReference{Kind: e.TargetRef.Kind, Name: e.TargetRef.Name}
		}
	}
	return s, nil
}

func trimPod(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	p.ObjectMeta = meta(p.ObjectMeta)
	status := corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	p.Spec, p.Status = corev1.PodSpec{}, status
	return p, nil
}

func trimAutoscaler(o any) (any, error) {
	a, ok := o.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return o, nil
	}
	a.ObjectMeta = meta(a.ObjectMeta)
	a.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: a.Spec.ScaleTargetRef}
	a.Status = autoscalingv2.HorizontalPodAutoscalerStatus{Conditions: a.Status.Conditions}
	return a, nil
}
