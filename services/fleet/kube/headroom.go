package kube

import (
	"context"
	"fmt"

	"edgehold.internal/services/fleet"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// maxPods bounds what Headroom reads of a cluster; beyond it, headroom is unknown.
const maxPods = 50_000

// Headroom counts how many more pods of a colour's template the namespace's quotas and the schedulable nodes have room for.
// It looks at requests, node selectors and taints, and not at affinity, so it is an upper bound. It reads every node and pod of the
// cluster, so it is for cutovers that must scale, which are few.
func Headroom(ctx context.Context, r client.Reader, o *Objects, c fleet.Colour) fleet.Headroom {
	d := o.Blue
	if c == fleet.Green {
		d = o.Green
	}
	if d == nil {
		return fleet.Headroom{Why: "there is no Deployment"}
	}
	template := &d.Spec.Template.Spec
	var h fleet.Headroom
	if n, err := quota(ctx, r, d.Namespace, template); err != nil {
		h.Why = err.Error()
	} else {
		h.Quota = &n
	}
	if n, err := room(ctx, r, template); err != nil {
		h.Why = err.Error()
	} else {
		h.Nodes = &n
	}
	return h
}

// requests of a pod: the sum of its containers, or its largest init container where that is more.
func requests(spec *corev1.PodSpec) corev1.ResourceList {
	sum := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}
	add := func(to corev1.ResourceList, from corev1.ResourceList) {
		for name, q := range from {
			have := to[name]
			have.Add(q)
			to[name] = have
		}
	}
	for i := range spec.Containers {
		add(sum, spec.Containers[i].Resources.Requests)
	}
	for i := range spec.InitContainers {
		for name, q := range spec.InitContainers[i].Resources.Requests {
			if have := sum[name]; q.Cmp(have) > 0 {
				sum[name] = q
			}
		}
	}
	add(sum, spec.Overhead)
	return sum
}

// fits is how often need fits into free, as far as free speaks of it.
func fits(free, need corev1.ResourceList) int32 {
	n := int64(fleet.NoQuota)
	for name, want := range need {
		have, limited := free[name]
		if !limited || want.IsZero() {
			continue
		}
		n = min(n, max(have.MilliValue(), 0)/max(want.MilliValue(), 1))
	}
	return int32(n)
}

func quota(ctx context.Context, r client.Reader, namespace string, template *corev1.PodSpec) (int32, error) {
	var list corev1.ResourceQuotaList
	if err := r.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return 0, fmt.Errorf("listing resource quotas: %w", err)
	}
	need := requests(template)
	for name, q := range need.DeepCopy() { // quotas name requests in two ways
		if name != corev1.ResourcePods {
			need["requests."+name] = q
		}
	}
	for i := range template.Containers {
		for name, q := range template.Containers[i].Resources.Limits {
			have := need["limits."+name]
			have.Add(q)
			need["limits."+name] = have
		}
	}
	need["count/pods"] = resource.MustParse("1")
	n := fleet.NoQuota
	for i := range list.Items {
		q := &list.Items[i]
		if len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil {
			continue // a quota of a class of pods; the API server has the last word on it
		}
		n = min(n, fits(left(q.Status.Hard, q.Status.Used), need))
	}
	return n, nil
}

func left(hard, used corev1.ResourceList) corev1.ResourceList {
	free := corev1.ResourceList{}
	for name, q := range hard {
		q = q.DeepCopy()
		q.Sub(used[name])
		free[name] = q
	}
	return free
}

func room(ctx context.Context, r client.Reader, template *corev1.PodSpec) (int32, error) {
	var nodes corev1.NodeList
	if err := r.List(ctx, &nodes); err != nil {
		return 0, fmt.Errorf("listing nodes: %w", err)
	}
	used := map[string]corev1.ResourceList{}
	var pods corev1.PodList
	for read := 0; ; {
		if err := r.List(ctx, &pods, client.Limit(1000), client.Continue(pods.Continue)); err != nil {
			return 0, fmt.Errorf("listing the pods of the cluster: %w", err)
		}
		for i := range pods.Items {
			p := &pods.Items[i]
			if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
				continue
			}
			sum := used[p.Spec.NodeName]
			if sum == nil {
				sum = corev1.ResourceList{}
				used[p.Spec.NodeName] = sum
			}
			for name, q := range requests(&p.Spec) {
				have := sum[name]
				have.Add(q)
				sum[name] = have
			}
		}
		if read += len(pods.Items); pods.Continue == "" {
			break
		} else if read > maxPods {
			return 0, fmt.Errorf("the cluster has more than %d pods", maxPods)
		}
	}
	need := requests(template)
	var n int64
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if takes(node, template) {
			n += int64(fits(left(node.Status.Allocatable, used[node.Name]), need))
		}
	}
	return int32(min(n, int64(fleet.NoQuota))), nil
}

// takes reports whether the node schedules pods of the template.
func takes(node *corev1.Node, template *corev1.PodSpec) bool {
	if node.Spec.Unschedulable || !labels.SelectorFromSet(template.NodeSelector).Matches(labels.Set(node.Labels)) {
		return false
	}
	ready := false
	for _, c := range node.Status.Conditions {
		ready = ready || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		tolerated := false
		for j := range template.Tolerations {
			tolerated = tolerated || tolerates(&template.Tolerations[j], t)
		}
		if !tolerated {
			return false
		}
	}
	return ready
}

// tolerates is Toleration.ToleratesTaint for the operators Exists and Equal; any other operator does not count as
// tolerated, which errs on the side of less room.
func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key != "" && t.Value == taint.Value
	}
	return false
}
