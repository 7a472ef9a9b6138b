package v1alpha1_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"edgehold.internal/services/fleet/kube/v1alpha1"
)

// A record is read from its line; what is none says nothing, and hides neither the Fleet nor the other records.
func TestHistory(t *testing.T) {
	zero, at := int64(0), metav1.NewMicroTime(time.Date(2026, 1, 15, 12, 0, 0, 123456000, time.UTC))
	record := v1alpha1.CutoverStatus{ID: "op-1/fra1/switch", Generation: 7, From: "blue", To: "green", Reason: `"quoted", and so on`, Rollback: true,
		Outcome: v1alpha1.OutcomeCompleted, DeclaredAt: at, SwitchedAt: &at, ConnectionsReset: &zero}
	written, err := json.Marshal(v1alpha1.FleetStatus{LastCutover: &record, History: []v1alpha1.PastCutover{{CutoverStatus: record}}})
	if err != nil {
		t.Fatal(err)
	}
	var stored struct {
		LastCutover json.RawMessage `json:"lastCutover"`
		History     []string        `json:"history"`
	}
	if err := json.Unmarshal(written, &stored); err != nil || len(stored.History) != 1 || stored.History[0] != string(stored.LastCutover) {
		t.Fatalf("%v: the history of %s is not a line with the fields of lastCutover", err, written)
	}
	line, err := json.Marshal(stored.History[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		stored string
		want   v1alpha1.CutoverStatus
	}{
		"a line":                {string(line), record},
		"fields, no line":       {string(stored.LastCutover), v1alpha1.CutoverStatus{}},
		"fields that were cut":  {`{}`, v1alpha1.CutoverStatus{}},
		"no JSON in it":         {`"Completed"`, v1alpha1.CutoverStatus{}},
		"fields of other types": {`"{\"id\":\"op-1\",\"generation\":\"seven\"}"`, v1alpha1.CutoverStatus{}},
		"a number":              {`7`, v1alpha1.CutoverStatus{}},
		"null":                  {`null`, v1alpha1.CutoverStatus{}},
	} {
		t.Run(name, func(t *testing.T) {
			var f v1alpha1.Fleet
			if err := json.Unmarshal([]byte(`{"status":{"phase":"Steady","history":[`+tc.stored+`,`+string(line)+`]}}`), &f); err != nil {
				t.Fatal(err)
			}
			want := []v1alpha1.PastCutover{{CutoverStatus: tc.want}, {CutoverStatus: record}}
			if diff := cmp.Diff(want, f.Status.History, cmp.Comparer(func(a, b metav1.MicroTime) bool { return a.Equal(&b) })); diff != "" || f.Status.Phase != v1alpha1.PhaseSteady {
				t.Errorf("phase %q, %s", f.Status.Phase, diff)
			}
		})
	}
}
