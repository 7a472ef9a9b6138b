package kube_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// FuzzFleet decodes whatever an API server might hand out as a Fleet. Deciding on it never panics, a status survives being
// written and read, and a fleet without its Service and Deployments is never acted on.
func FuzzFleet(f *testing.F) {
	if text, err := os.ReadFile("../../../deploy/demo/fleet.yaml"); err == nil {
		if object, err := yaml.YAMLToJSON(text); err == nil {
			f.Add(object)
		}
	}
	f.Add([]byte(`{"metadata":{"generation":3},"spec":{"service":"edge","blue":{"deployment":"a"},"green":{"deployment":"b"},"active":"green","replicas":-5,"standby":{"percent":-1},
		"change":{"id":"x","at":"2026-01-15T12:00:00.000000Z","deadline":"0001-01-01T00:00:00.000000Z"},"freezes":[{"from":"2026-01-15T12:00:00Z","until":"2020-01-15T12:00:00Z","reason":""}]},
		"status":{"active":"blue","phase":"Draining","lastCutover":{"id":"x","from":"blue","to":"green","outcome":"Running","declaredAt":"2026-01-15T12:00:00.000000Z","switchedAt":"2026-01-15T12:00:00.000000Z"},
		"history":["{\"id\":\"w\",\"from\":\"green\",\"to\":\"blue\",\"outcome\":\"Completed\"}",{"id":"v","from":"blue","to":"green"},"{",7],
		"traffic":{"requests":1,"errors":2,"requestsPerSecond":"1k","errorRatio":"500m","window":"1s","at":null},"conditions":[{"type":"Parity","status":"True","lastTransitionTime":null,"reason":"","message":""}]}}`))
	now := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	clock := fleet.Clock{Now: now, Earliest: now, Latest: now, Uptime: time.Second}
	f.Fuzz(func(t *testing.T, data []byte) {
		var object v1alpha1.Fleet
		if json.Unmarshal(data, &object) != nil {
			return
		}
		alone := kube.Objects{Fleet: &object}
		if d := fleet.Decide(alone.Observation(clock)); d.Switch != nil || d.Scale != nil {
			t.Errorf("acted on a fleet that has nothing: %+v", d)
		}
		whole := kube.Objects{Fleet: &object, Fleets: []v1alpha1.Fleet{object}, Service: service(), Blue: deployment("blue"), Green: deployment("green")}
		o := whole.Observation(clock)
		d := fleet.Decide(o)
		fleet.MakePlan(&o, fleet.Change{To: fleet.Green})
		once := kube.ToStatus(d.Status)
		twice := kube.ToStatus(kube.Status(&v1alpha1.Fleet{Spec: object.Spec, Status: once}))
		a, _ := json.Marshal(once)
		b, _ := json.Marshal(twice)
		if diff := cmp.Diff(string(a), string(b)); diff != "" && len(data) < 4096 {
			t.Errorf("a status is not what was written: %s", diff)
		}
	})
}

func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "edge", ResourceVersion: "1"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "edge", v1alpha1.ColourLabel: "blue"}}}
}

func deployment(colour string) *appsv1.Deployment {
	labels := map[string]string{"app": "edge", v1alpha1.ColourLabel: colour}
	n := int32(2)
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "edge-" + colour},
		Spec:   appsv1.DeploymentSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}},
		Status: appsv1.DeploymentStatus{Replicas: 2, ReadyReplicas: 2, UpdatedReplicas: 2}}
}
