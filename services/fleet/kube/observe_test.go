package kube_test

import (
	"testing"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// TestHeadroom: what a node and a quota leave, in pods of the template.
func TestHeadroom(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range kube.AddTypes {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	list := func(cpu, memory, pods string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse(pods)}
	}
	node := func(name string, change func(*corev1.Node)) client.Object {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Allocatable: list("4", "8Gi", "10"),
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
		if change != nil {
			change(n)
		}
		return n
	}
	pod := func(name, node, cpu string) client.Object {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "other"}, Spec: corev1.PodSpec{NodeName: node,
			Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}}}
	}
	quota := func(hard, used string) client.Object {
		return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "pop"}, Status: corev1.ResourceQuotaStatus{
			Hard: corev1.ResourceList{"requests.cpu": resource.MustParse(hard)}, Used: corev1.ResourceList{"requests.cpu": resource.MustParse(used)}}}
	}
	taint := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule}}
	}
	green := deployment("green")
	green.Namespace = "pop"
	green.Spec.Template.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}}}}
	for name, tc := range map[string]struct {
		objects      []client.Object
		nodes, quota int32
	}{
		"an empty node is limited by its processors": {[]client.Object{node("a", nil)}, 8, fleet.NoQuota},
		"what runs there counts":                     {[]client.Object{node("a", nil), pod("p", "a", "3")}, 2, fleet.NoQuota},
		"the number of pods counts":                  {[]client.Object{node("a", func(n *corev1.Node) { n.Status.Allocatable = list("64", "8Gi", "3") })}, 3, fleet.NoQuota},
		"two nodes":                                  {[]client.Object{node("a", nil), node("b", nil)}, 16, fleet.NoQuota},
		"a cordoned one does not count":              {[]client.Object{node("a", func(n *corev1.Node) { n.Spec.Unschedulable = true })}, 0, fleet.NoQuota},
		"one that is not ready does not count":       {[]client.Object{node("a", func(n *corev1.Node) { n.Status.Conditions = nil })}, 0, fleet.NoQuota},
		"a tainted one does not count":               {[]client.Object{node("a", taint)}, 0, fleet.NoQuota},
		"a quota":                                    {[]client.Object{node("a", nil), quota("4", "3")}, 8, 2},
		"a quota that is used up":                    {[]client.Object{node("a", nil), quota("4", "5")}, 8, 0},
	} {
		t.Run(name, func(t *testing.T) {
			api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(tc.objects...).Build()
			h := kube.Headroom(t.Context(), api, &kube.Objects{Green: green}, fleet.Green)
			if h.Nodes == nil || h.Quota == nil || *h.Nodes != tc.nodes || *h.Quota != tc.quota {
				t.Errorf("%+v, want %d by nodes and %d by quota", h, tc.nodes, tc.quota)
			}
		})
	}
	if h := kube.Headroom(t.Context(), fake.NewClientBuilder().WithScheme(runtime.NewScheme()).Build(), &kube.Objects{Green: green}, fleet.Green); h.Nodes != nil || h.Quota != nil || h.Why == "" {
		t.Errorf("what cannot be read was taken for %+v", h)
	}
}

// TestRollout: in a rollout any of the ready pods may be of the template before.
func TestRollout(t *testing.T) {
	green := deployment("green")
	green.Generation = 2
	for name, tc := range map[string]struct {
		observed                 int64
		replicas, updated, ready int32
		current                  int32
	}{
		"at rest":                         {2, 4, 4, 4, 4},
		"not seen yet":                    {1, 4, 4, 4, 0},
		"none of the new ones":            {2, 4, 0, 4, 0},
		"surging":                         {2, 8, 4, 5, 1},
		"one is not ready, all are new":   {2, 4, 4, 3, 3},
		"an old one goes, three are new":  {2, 4, 3, 4, 3},
		"none is ready, and some are old": {2, 4, 2, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := green.DeepCopy()
			d.Status.ObservedGeneration, d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.ReadyReplicas = tc.observed, tc.replicas, tc.updated, tc.ready
			o := (&kube.Objects{Fleet: &v1alpha1.Fleet{}, Service: service(), Blue: deployment("blue"), Green: d}).Observation(fleet.Clock{})
			if o.Green.Current != tc.current || o.Green.Ready != tc.ready {
				t.Errorf("%d surely current of %d ready, want %d", o.Green.Current, o.Green.Ready, tc.current)
			}
		})
	}
}

// TestAutoscalers: of two for one fleet, which Kubernetes itself distrusts, the one that ails counts in whatever order.
func TestAutoscalers(t *testing.T) {
	hpa := func(name, kind, target string, active corev1.ConditionStatus) autoscalingv2.HorizontalPodAutoscaler {
		return autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: kind, Name: target}},
			Status: autoscalingv2.HorizontalPodAutoscalerStatus{Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{
				{Type: autoscalingv2.AbleToScale, Status: corev1.ConditionTrue}, {Type: autoscalingv2.ScalingActive, Status: active, Reason: "AmbiguousSelector"}}}}
	}
	well, ails := hpa("a", "Fleet", "edge", corev1.ConditionTrue), hpa("b", "Fleet", "edge", corev1.ConditionFalse)
	of := func(list ...autoscalingv2.HorizontalPodAutoscaler) fleet.Observation {
		f := &v1alpha1.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "edge"}, Spec: v1alpha1.FleetSpec{Blue: v1alpha1.ColourSpec{Deployment: "edge-blue"}}}
		return (&kube.Objects{Fleet: f, Autoscalers: list}).Observation(fleet.Clock{})
	}
	if o := of(well); o.Autoscaler == nil || o.Autoscaler.Problem != "" {
		t.Errorf("%+v", o.Autoscaler)
	}
	for _, o := range []fleet.Observation{of(well, ails), of(ails, well)} {
		if o.Autoscaler == nil || o.Autoscaler.Name != "b" || o.Autoscaler.Problem == "" {
			t.Errorf("%+v", o.Autoscaler)
		}
	}
	if o := of(hpa("c", "Fleet", "other", corev1.ConditionTrue), hpa("d", "Deployment", "edge-blue", corev1.ConditionTrue)); o.Autoscaler != nil || o.StrayAutoscaler != "d" {
		t.Errorf("%+v, stray %q", o.Autoscaler, o.StrayAutoscaler)
	}
}
