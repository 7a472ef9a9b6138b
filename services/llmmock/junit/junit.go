// Package junit writes verdicts on clients as the XML that CI systems read test results from: a suite for each run, and in it a test
// for each client and each thing that it may do wrong. Start at Write.
package junit

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"edgehold.internal/services/llmmock"
)

type suites struct {
	XMLName  xml.Name `xml:"testsuites"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Errors   int      `xml:"errors,attr"`
	Time     seconds  `xml:"time,attr"`
	Suites   []*suite
}

type suite struct {
	XMLName   xml.Name `xml:"testsuite"`
	Name      string   `xml:"name,attr"`
	Tests     int      `xml:"tests,attr"`
	Failures  int      `xml:"failures,attr"`
	Errors    int      `xml:"errors,attr"`
	Skipped   int      `xml:"skipped,attr"`
	Time      seconds  `xml:"time,attr"`
	Timestamp string   `xml:"timestamp,attr"`
	Cases     []testcase
	Out       string `xml:"system-out,omitempty"`

	first, last time.Time
}

type testcase struct {
	XMLName xml.Name `xml:"testcase"`
	Name    string   `xml:"name,attr"`
	Class   string   `xml:"classname,attr"`
	Time    seconds  `xml:"time,attr"`
	Failure *failure
}

type failure struct {
	XMLName xml.Name `xml:"failure"`
	Message string   `xml:"message,attr"`
	Type    string   `xml:"type,attr"`
	Text    string   `xml:",chardata"`
}

// seconds are written with three decimals, which every reader takes.
type seconds time.Duration

// MarshalText implements encoding.TextMarshaler.
func (s seconds) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(s).Seconds()), nil
}

// Write writes a report. A finding that is not one of failing is a passed test, and stands in the output of its suite. The error is
// that of w.
func Write(w io.Writer, r *llmmock.Report, failing []llmmock.FindingName) error {
	all := suites{Name: "edgehold mock"}
	runs := map[string]*suite{}
	for i := range r.Clients {
		c := &r.Clients[i]
		s := runs[c.Run]
		if s == nil {
			name := "run " + c.Run
			if c.Run == "" {
				name = "requests of no run"
			}
			s = &suite{Name: name, first: c.First, last: c.Last}
			runs[c.Run] = s
			all.Suites = append(all.Suites, s)
		}
		s.add(c, failing)
	}
	slices.SortStableFunc(all.Suites, func(a, b *suite) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range all.Suites {
		s.Time = seconds(s.last.Sub(s.first))
		s.Timestamp = s.first.UTC().Format("2006-01-02T15:04:05")
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Time += s.Time
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *suite) add(c *llmmock.ClientReport, failing []llmmock.FindingName) {
	if c.First.Before(s.first) {
		s.first = c.First
	}
	if c.Last.After(s.last) {
		s.last = c.Last
	}
	s.Out += fmt.Sprintf("%s: %d requests, %d retries, amplification %.2f; %d served, %d failed, %d truncated, %d left\n",
		c.Client, c.Requests, c.Retries, c.Amplification, c.Served, c.Failed, c.Truncated, c.Left)
	for _, name := range llmmock.Findings() {
		// The client's time is that of the suite: it is not spent on one of the tests.
		t := testcase{Name: string(name), Class: c.Client}
		if i := slices.IndexFunc(c.Findings, func(f llmmock.Finding) bool { return f.Name == name }); i >= 0 {
			f := &c.Findings[i]
			if slices.Contains(failing, name) {
				t.Failure = &failure{Message: f.Sentence, Type: string(name), Text: evidence(f)}
				s.Failures++
			} else {
				s.Out += fmt.Sprintf("%s: %s\n", c.Client, f.Sentence)
			}
		}
		s.Cases = append(s.Cases, t)
		s.Tests++
	}
}

// evidence is a line for each time that a finding was seen, as far as they are kept.
func evidence(f *llmmock.Finding) string {
	var b strings.Builder
	for _, e := range f.Evidence {
		fmt.Fprintf(&b, "\n%s request %016x, exchange %s: %s", e.At.UTC().Format("15:04:05.000"), uint64(e.Request), e.Exchange, e.Text)
	}
	if more := f.Count - len(f.Evidence); more > 0 {
		fmt.Fprintf(&b, "\nand %d times more", more)
	}
	b.WriteByte('\n')
	return b.String()
}
