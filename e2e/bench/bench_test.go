package bench

import (
	"errors"
	"strings"
	"testing"
)

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		goal string
		v    float64
		met  bool
	}{
		{"<= 1", 1, true}, {"<= 1", 1.01, false}, {">= 2", 2, true}, {">= 2", 1, false}, {"== 0", 0, true}, {"== 0", 1, false},
		{"", 7, true}, {"<=1", 0, false}, {"< 1", 0, false},
	} {
		if got := meets(c.v, c.goal); got != c.met {
			t.Errorf("%v meets %q: %v, want %v", c.v, c.goal, got, c.met)
		}
	}
}

func TestTable(t *testing.T) {
	var table Table
	table.Add("switch", "s", "<= 1", []float64{0.5, 2, 0.4, 0.6, 0.7}).Against("undo", []float64{6, 12})
	if r := table.Rows[0]; *r.Median != 0.6 || !r.Met || *r.Ratio != 15 {
		t.Errorf("row is %+v: want the median of the runs, met, and the peer's ratio", r)
	}
	table.Missing("memory", "MiB", "<= 150", errors.New("no such process"))
	if table.Met() {
		t.Error("a figure that was not measured counts as met")
	}
	var out strings.Builder
	table.Print(&out)
	if !strings.Contains(out.String(), "no such process") {
		t.Errorf("the table does not say why a figure is missing:\n%s", out.String())
	}
}
