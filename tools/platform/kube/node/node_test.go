package node

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"edgehold.internal/tools/platform/kube/logfile"
)

func TestValidateNamesFieldValueAndWhatIsAllowed(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := Default()
	good.Kubeconfig, good.Dir, good.Images = kubeconfig, dir, dir
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		change func(*Config)
		want   []string
	}{
		{func(c *Config) { c.Kubeconfig = "none" }, []string{"--kubeconfig", `"none"`}},
		{func(c *Config) { c.Dir = "" }, []string{"--dir"}},
		{func(c *Config) { c.Name = "Node" }, []string{"--name", `"Node"`, "lower case"}},
		{func(c *Config) { c.Block = "10.20.0.0/24" }, []string{"--block", `"10.20.0.0/24"`, "10.B.0.0/16"}},
		{func(c *Config) { c.Images = kubeconfig }, []string{"--images", "directory"}},
		{func(c *Config) { c.Listen = "0.0.0.0:80" }, []string{"--listen", `"0.0.0.0:80"`, "127.0.0.0/8"}},
		{func(c *Config) { c.CPU = "many" }, []string{"--cpu", `"many"`}},
		{func(c *Config) { c.Memory = "-1" }, []string{"--memory", `"-1"`}},
		{func(c *Config) { c.Pods = 40000 }, []string{"--pods", "40000", "30000"}},
		{func(c *Config) { c.BackOffBase = 0 }, []string{"--back-off-base", "1ms"}},
		{func(c *Config) { c.BackOffMax = time.Second }, []string{"--back-off-max", "1s", "10s"}},
		{func(c *Config) { c.LogLimit = "1" }, []string{"--log-limit", "64Ki"}},
		{func(c *Config) { c.StopGrace = -1 }, []string{"--stop-grace", "0s"}},
	} {
		cfg := good
		tc.change(&cfg)
		err := cfg.Validate()
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %s in it", err, want)
			}
		}
	}
}

// A status patch has only what is different, leaves the conditions of others alone, and fits one pod only.
func TestStatusPatch(t *testing.T) {
	base := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u", Labels: map[string]string{"a": "b"}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBurstable, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionFalse},
		}},
	}
	status := *base.Status.DeepCopy()
	if patch, err := statusPatch(base, status); err != nil || patch != nil {
		t.Errorf("nothing has changed: %s, %v", patch, err)
	}
	status.Phase = corev1.PodRunning
	status.Conditions[1].Status = corev1.ConditionTrue
	patch, err := statusPatch(base, status)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(patch, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"metadata": map[string]any{"uid": "u"},
		"status": map[string]any{
			"phase":      "Running",
			"conditions": []any{map[string]any{"type": "Ready", "status": "True"}},
			"$setElementOrder/conditions": []any{
				map[string]any{"type": "PodScheduled"}, map[string]any{"type": "Ready"},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLogOptions(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for query, want := range map[string]logfile.Options{
		"":                                 {Tail: -1},
		"tailLines=0":                      {Tail: 0},
		"tailLines=5&follow=true":          {Tail: 5, Follow: true},
		"sinceSeconds=60&timestamps=true":  {Tail: -1, Timestamps: true, Since: now.Add(-time.Minute)},
		"sinceSeconds=9223372036854775807": {Tail: -1, Since: now.Add(-math.MaxInt64 / time.Second * time.Second)},
		"sinceTime=2026-01-01T00:00:00Z":   {Tail: -1, Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		"limitBytes=10":                    {Tail: -1, LimitBytes: 10},
	} {
		got, _, err := logOptions(httptest.NewRequest(http.MethodGet, "/?"+query, nil), now)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", query, err, diff)
		}
	}
	for _, query := range []string{"tailLines=-1", "tailLines=x", "follow=maybe", "sinceTime=yesterday", "limitBytes=-2"} {
		name, _, _ := strings.Cut(query, "=")
		if _, _, err := logOptions(httptest.NewRequest(http.MethodGet, "/?"+query, nil), now); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", query, err)
		}
	}
}

func FuzzLogOptions(f *testing.F) {
	f.Add("tailLines=5&follow=true&previous=1")
	f.Add("sinceTime=2026-01-01T00:00:00Z&limitBytes=9223372036854775807")
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{URL: httptest.NewRequest(http.MethodGet, "/", nil).URL}
		r.URL.RawQuery = query
		if opts, _, err := logOptions(r, time.Unix(0, 0)); err == nil && (opts.Tail < -1 || opts.LimitBytes < 0) {
			t.Fatalf("%q: %+v", query, opts)
		}
	})
}
