package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// floor is the least that must pass: by suite and area, and of each suite in all.
type floor map[string]suiteFloor

type suiteFloor struct {
	Passed int `json:"passed"`
	// Tests that there are; those that the suite itself skips are not counted.
	Tests int            `json:"tests"`
	Areas map[string]int `json:"areas"`
}

func readFloor(path string) (floor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := floor{}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// count is what passed.
func count(results []result) floor {
	f := floor{}
	for _, r := range results {
		s, ok := f[r.suite]
		if !ok {
			s.Areas = map[string]int{}
		}
		if r.state != "skip" {
			s.Tests++
		}
		if r.state == "pass" {
			s.Passed++
			s.Areas[r.area]++
		}
		f[r.suite] = s
	}
	return f
}

func writeFloor(path string, results []result) error {
	b, err := json.MarshalIndent(count(results), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// compare says where less passed than must.
func (f floor) compare(results []result, only string) error {
	if len(f) == 0 {
		return errors.New("the floor is empty, and an empty floor would let everything pass")
	}
	have := count(results)
	var short []string
	for name, want := range f {
		if only != "" && only != name {
			continue
		}
		got := have[name]
		if got.Passed < want.Passed {
			short = append(short, fmt.Sprintf("%s: %d of %d passed, at least %d must", name, got.Passed, got.Tests, want.Passed))
		}
		for area, n := range want.Areas {
			if got.Areas[area] < n {
				short = append(short, fmt.Sprintf("%s, %s: %d passed, at least %d must", name, area, got.Areas[area], n))
			}
		}
	}
	if len(short) == 0 {
		return nil
	}
	sort.Strings(short)
	return fmt.Errorf("under the floor:\n  %s", strings.Join(short, "\n  "))
}

// table prints passed and total by area, and the tests that failed.
func table(out io.Writer, results []result, verbose bool) {
	type row struct{ passed, failed, skipped int }
	areas := map[string]map[string]*row{}
	for _, r := range results {
		if areas[r.suite] == nil {
			areas[r.suite] = map[string]*row{}
		}
		a := areas[r.suite][r.area]
		if a == nil {
			a = &row{}
			areas[r.suite][r.area] = a
		}
		switch r.state {
		case "pass":
			a.passed++
		case "skip":
			a.skipped++
		default:
			a.failed++
		}
	}
	suites := make([]string, 0, len(areas))
	for s := range areas {
		suites = append(suites, s)
	}
	sort.Strings(suites)
	for _, s := range suites {
		fmt.Fprintf(out, "%s\n", s)
		names := make([]string, 0, len(areas[s]))
		for n := range areas[s] {
			names = append(names, n)
		}
		sort.Strings(names)
		var all row
		for _, n := range names {
			a := areas[s][n]
			all.passed, all.failed, all.skipped = all.passed+a.passed, all.failed+a.failed, all.skipped+a.skipped
			note := ""
			if a.skipped > 0 {
				note = fmt.Sprintf("  (%d that the suite skips)", a.skipped)
			}
			fmt.Fprintf(out, "  %-62s %3d / %3d%s\n", n, a.passed, a.passed+a.failed, note)
		}
		fmt.Fprintf(out, "  %-62s %3d / %3d\n", "all", all.passed, all.passed+all.failed)
	}
	for _, r := range results {
		if r.state == "pass" || r.state == "skip" {
			continue
		}
		fmt.Fprintf(out, "FAILED %s %s %s\n", r.suite, r.area, r.test)
		if verbose {
			fmt.Fprintf(out, "%s\n", r.output)
		}
	}
}
