package metrics

import (
	"context"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

var podResource = schema.GroupResource{Resource: "pods"}

// podMetrics serves what the scraper has stored; it implements provider.CustomMetricsProvider.
type podMetrics struct {
	config Config
	store  *store
	pods   corelisters.PodLister
}

// GetMetricByName of a pod. Not found when the pod is unknown or has no fresh value.
func (p *podMetrics) GetMetricByName(_ context.Context, name types.NamespacedName, info provider.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	if info.GroupResource != podResource || !info.Namespaced {
		return nil, provider.NewMetricNotFoundError(info.GroupResource, info.Metric)
	}
	v, found := p.value(name, info.Metric, selector)
	if !found {
		return nil, provider.NewMetricNotFoundForError(info.GroupResource, info.Metric, name.Name)
	}
	return &v, nil
}

// GetMetricBySelector of all pods that match and have a fresh value; those that have none are absent, not zero. Not found when
// no pod has one.
func (p *podMetrics) GetMetricBySelector(_ context.Context, namespace string, pods labels.Selector, info provider.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValueList, error) {
	if info.GroupResource != podResource || !info.Namespaced {
		return nil, provider.NewMetricNotFoundError(info.GroupResource, info.Metric)
	}
	matching, err := p.pods.Pods(namespace).List(pods)
	if err != nil {
		return nil, err
	}
	list := &custom_metrics.MetricValueList{}
	for _, pod := range matching {
		if v, found := p.value(types.NamespacedName{Namespace: namespace, Name: pod.Name}, info.Metric, selector); found {
			list.Items = append(list.Items, v)
		}
	}
	if len(list.Items) == 0 {
		return nil, provider.NewMetricNotFoundForSelectorError(info.GroupResource, info.Metric, "", pods)
	}
	return list, nil
}

// ListAllMetrics that any pod has a fresh value for.
func (p *podMetrics) ListAllMetrics() []provider.CustomMetricInfo {
	names, _, _ := p.store.metrics(p.config.Clock.Now(), p.config.maxAge())
	infos := make([]provider.CustomMetricInfo, 0, len(names))
	for _, name := range names {
		infos = append(infos, provider.CustomMetricInfo{GroupResource: podResource, Namespaced: true, Metric: name})
	}
	return infos
}

func (p *podMetrics) value(name types.NamespacedName, metric string, selector labels.Selector) (custom_metrics.MetricValue, bool) {
	// The store is a round behind: a pod that has ceased to be ready since has no value either.
	pod, err := p.pods.Pods(name.Namespace).Get(name.Name)
	if err != nil || !ready(pod) {
		return custom_metrics.MetricValue{}, false
	}
	v, err := p.store.value(name, metric, selector, p.config.Clock.Now(), p.config.maxAge())
	if err != nil {
		return custom_metrics.MetricValue{}, false
	}
	quantity, fits := quantityOf(v.number)
	if !fits {
		return custom_metrics.MetricValue{}, false
	}
	result := custom_metrics.MetricValue{
		DescribedObject: custom_metrics.ObjectReference{APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Pod", Namespace: name.Namespace, Name: name.Name},
		Metric:          custom_metrics.MetricIdentifier{Name: metric},
		Timestamp:       metav1.NewTime(v.at),
		Value:           quantity,
	}
	if v.window > 0 {
		seconds := int64(max(v.window.Round(time.Second), time.Second) / time.Second)
		result.WindowSeconds = &seconds
	}
	return result, true
}

// quantityOf a number in thousandths, or in units where thousandths overflow; false when it fits neither.
func quantityOf(number float64) (resource.Quantity, bool) {
	const limit = float64(math.MaxInt64 / 2) // far from where rounding decides
	switch {
	case math.Abs(number)*1000 < limit:
		return *resource.NewMilliQuantity(int64(math.Round(number*1000)), resource.DecimalSI), true
	case math.Abs(number) < limit:
		return *resource.NewQuantity(int64(math.Round(number)), resource.DecimalSI), true
	}
	return resource.Quantity{}, false
}
