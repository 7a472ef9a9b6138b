package stage

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestOverlays renders what a user applies, and holds it against what a controller needs to work.
func TestOverlays(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range []string{"embedded", "kind", "production"} {
		t.Run(overlay, func(t *testing.T) {
			objects, err := Build(filepath.Join(root, "deploy", "overlays", overlay))
			if err != nil {
				t.Fatal(err)
			}
			kinds := map[string]int{}
			for _, o := range objects {
				kinds[o.GetKind()]++
				if o.GetKind() != "Deployment" {
					continue
				}
				var d appsv1.Deployment
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
					t.Fatal(err)
				}
				args := d.Spec.Template.Spec.Containers[0].Args
				if elects := slices.Contains(args, "--leader-election"); *d.Spec.Replicas > 1 != elects {
					t.Errorf("%d replicas, and leader election is %t", *d.Spec.Replicas, elects)
				}
				local := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--listen=127.0.0.1:") })
				if scraped := d.Spec.Template.Annotations["prometheus.io/scrape"] == "true"; scraped == local {
					t.Errorf("Prometheus is told to scrape (%t) what listens on loopback (%t)", scraped, local)
				}
			}
			for kind, n := range map[string]int{"CustomResourceDefinition": 1, "Namespace": 1, "ServiceAccount": 2, "ClusterRole": 2, "ClusterRoleBinding": 2, "Role": 1, "RoleBinding": 1, "Deployment": 1} {
				if kinds[kind] != n {
					t.Errorf("%d of kind %s, want %d", kinds[kind], kind, n)
				}
			}
		})
	}
}

// TestAlertRules proves when each alert fires.
func TestAlertRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; run: tools/setup-peers")
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	test := exec.CommandContext(t.Context(), promtool, "test", "rules", "rules_test.yaml")
	test.Dir = filepath.Join(root, "deploy", "prometheus")
	if out, err := test.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
