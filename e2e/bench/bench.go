// Package bench holds what the benchmarks of `make bench-*` share: rows with a goal, medians, and the file that they are
// written to. Start at Table.
package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is one figure. Its JSON form is that of out/bench/*.json.
type Row struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Median, Min and Max over Runs; nil when it could not be measured, and then Why says the reason.
	Median *float64 `json:"median"`
	Min    *float64 `json:"min"`
	Max    *float64 `json:"max"`
	Runs   int      `json:"runs"`
	// Goal is "<= 5", ">= 1" or "== 0"; empty for a figure without one.
	Goal string `json:"goal"`
	Met  bool   `json:"met"`
	Why  string `json:"why,omitempty"`
	// Peer is what else was measured in the same run, PeerMedian its median in the same unit, Ratio peer over ours.
	Peer       *string  `json:"peer"`
	PeerMedian *float64 `json:"peer_median"`
	Ratio      *float64 `json:"ratio"`
}

// Table is the result of one benchmark.
type Table struct{ Rows []Row }

// Add appends a figure with its runs. It is met when the median meets the goal.
func (t *Table) Add(name, unit, goal string, runs []float64) *Row {
	r := Row{Name: name, Unit: unit, Goal: goal, Runs: len(runs)}
	if len(runs) == 0 {
		r.Why = "it was not measured"
	} else {
		median, low, high := Median(runs), slices.Min(runs), slices.Max(runs)
		r.Median, r.Min, r.Max = &median, &low, &high
		r.Met = meets(median, goal)
	}
	t.Rows = append(t.Rows, r)
	return &t.Rows[len(t.Rows)-1]
}

// Missing appends a figure that could not be measured.
func (t *Table) Missing(name, unit, goal string, why error) {
	t.Rows = append(t.Rows, Row{Name: name, Unit: unit, Goal: goal, Why: why.Error()})
}

// Against sets the peer of a row.
func (r *Row) Against(peer string, runs []float64) {
	if len(runs) == 0 || r.Median == nil {
		return
	}
	median := Median(runs)
	r.Peer, r.PeerMedian = &peer, &median
	if *r.Median > 0 {
		ratio := median / *r.Median
		r.Ratio = &ratio
	}
}

// Median of at least one value; of an even number the mean of the middle two.
func Median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// meets compares with a goal. A goal that cannot be read is never met: a typo must not look like success.
func meets(v float64, goal string) bool {
	if goal == "" {
		return true
	}
	op, text, _ := strings.Cut(goal, " ")
	limit, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return false
	}
	switch op {
	case "<=":
		return cmp.Compare(v, limit) <= 0
	case ">=":
		return cmp.Compare(v, limit) >= 0
	case "==":
		return v == limit
	}
	return false
}

// Print writes the table for people.
func (t *Table) Print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "WHAT\tMEDIAN\tMIN\tMAX\tRUNS\tGOAL\tMET\tPEER")
	for _, r := range t.Rows {
		met := "no"
		switch {
		case r.Goal == "":
			met = "-"
		case r.Met:
			met = "yes"
		}
		peer := "-"
		if r.Peer != nil {
			peer = fmt.Sprintf("%s: %s", *r.Peer, number(r.PeerMedian, r.Unit))
			if r.Ratio != nil {
				peer += fmt.Sprintf(" (%.3g times ours)", *r.Ratio)
			}
		}
		if r.Why != "" {
			peer = r.Why
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.Name, number(r.Median, r.Unit), number(r.Min, r.Unit), number(r.Max, r.Unit), r.Runs, r.Goal, met, peer)
	}
	_ = tw.Flush()
}

func number(v *float64, unit string) string {
	if v == nil {
		return "-"
	}
	digits := 3
	if *v >= 100 {
		digits = 0
	}
	return strings.TrimSpace(strconv.FormatFloat(*v, 'f', digits, 64) + " " + unit)
}

// Write stores the rows as JSON.
func (t *Table) Write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	body, err := json.MarshalIndent(t.Rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o644)
}

// Met tells whether every row with a goal meets it.
func (t *Table) Met() bool {
	return !slices.ContainsFunc(t.Rows, func(r Row) bool { return !r.Met })
}
