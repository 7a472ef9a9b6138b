package junit_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/junit"
)

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func report() *llmmock.Report {
	return &llmmock.Report{Clients: []llmmock.ClientReport{
		{Client: "batch", Run: "ci-7", First: began, Last: began.Add(90 * time.Second), Requests: 30, Distinct: 10, Retries: 20, Amplification: 3, Served: 8, Failed: 22,
			Findings: []llmmock.Finding{
				{Name: llmmock.IgnoredRetryAfter, Count: 12, Sentence: "It came back 12 times too early; wait.", Evidence: []llmmock.Evidence{
					{At: began.Add(time.Second), Request: 0xabc, Exchange: "e1", Text: `came back 5ms after status 429, which told it "<2s>"`}}},
				{Name: llmmock.RetryStorm, Count: 1, Sentence: "It stormed.", Evidence: []llmmock.Evidence{{At: began, Exchange: "e2", Text: "30 requests"}}},
			}},
		{Client: "web\x00 & <b>", Run: "ci-7", First: began.Add(-10 * time.Second), Last: began, Requests: 1, Distinct: 1, Amplification: 1, Served: 1},
		{Client: "web", First: began, Last: began, Requests: 1, Distinct: 1, Amplification: 1, Served: 1},
	}}
}

// element is XML as any reader sees it.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []element  `xml:",any"`
	Text     string     `xml:",chardata"`
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (e *element) all(name string) (found []element) {
	for _, c := range e.Children {
		if c.XMLName.Local == name {
			found = append(found, c)
		}
	}
	return found
}

// form is what the schema of Jenkins' xunit plugin (junit-10.xsd) has of the elements that are used: attributes that must be there,
// those that may be, and children.
var form = map[string]struct{ must, may, children []string }{
	"testsuites": {nil, []string{"name", "time", "tests", "failures", "errors"}, []string{"testsuite"}},
	"testsuite": {[]string{"name", "tests", "failures", "errors"}, []string{"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
		[]string{"properties", "testcase", "system-out", "system-err"}},
	"testcase":   {[]string{"name"}, []string{"time", "classname", "group"}, []string{"skipped", "error", "failure", "system-out", "system-err"}},
	"failure":    {nil, []string{"type", "message"}, nil},
	"system-out": {},
}

func check(t *testing.T, e *element) {
	t.Helper()
	f, ok := form[e.XMLName.Local]
	if !ok {
		t.Errorf("<%s> is in no schema", e.XMLName.Local)
	}
	for _, a := range e.Attrs {
		if !slices.Contains(f.must, a.Name.Local) && !slices.Contains(f.may, a.Name.Local) {
			t.Errorf("<%s> has no attribute %s", e.XMLName.Local, a.Name.Local)
		}
		switch a.Name.Local {
		case "time":
			if _, err := strconv.ParseFloat(a.Value, 64); err != nil {
				t.Errorf("time %q: %v", a.Value, err)
			}
		case "timestamp":
			if _, err := time.Parse("2006-01-02T15:04:05", a.Value); err != nil {
				t.Error(err)
			}
		}
	}
	for _, name := range f.must {
		if e.attr(name) == "" {
			t.Errorf("<%s> lacks %s", e.XMLName.Local, name)
		}
	}
	for i := range e.Children {
		if !slices.Contains(f.children, e.Children[i].XMLName.Local) {
			t.Errorf("<%s> in <%s> is not allowed", e.Children[i].XMLName.Local, e.XMLName.Local)
		}
		check(t, &e.Children[i])
	}
}

func parse(t *testing.T, r *llmmock.Report, failing []llmmock.FindingName) element {
	t.Helper()
	var b bytes.Buffer
	if err := junit.Write(&b, r, failing); err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(&b)
	var root element
	if err := dec.Decode(&root); err != nil {
		t.Fatal(err)
	}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if space, ok := token.(xml.CharData); !ok || len(bytes.TrimSpace(space)) > 0 || err != nil {
			t.Fatalf("after the document comes %v, %v", token, err)
		}
	}
	check(t, &root)
	// What readers add up: counts are those of the elements.
	tests, failures := 0, 0
	for _, s := range root.all("testsuite") {
		cases := s.all("testcase")
		failed := 0
		for _, c := range cases {
			failed += len(c.all("failure"))
		}
		if s.attr("tests") != fmt.Sprint(len(cases)) || s.attr("failures") != fmt.Sprint(failed) || s.attr("errors") != "0" {
			t.Errorf("suite %q says tests %s failures %s, and has %d and %d", s.attr("name"), s.attr("tests"), s.attr("failures"), len(cases), failed)
		}
		tests, failures = tests+len(cases), failures+failed
	}
	if root.attr("tests") != fmt.Sprint(tests) || root.attr("failures") != fmt.Sprint(failures) {
		t.Errorf("all say %s and %s, and have %d and %d", root.attr("tests"), root.attr("failures"), tests, failures)
	}
	return root
}

func TestWrite(t *testing.T) {
	root := parse(t, report(), llmmock.Findings())
	all := root.all("testsuite")
	if len(all) != 2 || all[0].attr("name") != "requests of no run" || all[1].attr("name") != "run ci-7" {
		t.Fatalf("suites %v", all)
	}
	run := all[1]
	if run.attr("time") != "100.000" || run.attr("timestamp") != "2026-03-01T11:59:50" {
		t.Errorf("time %s from %s", run.attr("time"), run.attr("timestamp"))
	}
	cases := run.all("testcase")
	if want := 2 * len(llmmock.Findings()); len(cases) != want || run.attr("failures") != "2" {
		t.Errorf("%d cases, want %d; %s failures, want 2", len(cases), want, run.attr("failures"))
	}
	first := cases[0]
	failures := first.all("failure")
	if first.attr("name") != "ignored_retry_after" || first.attr("classname") != "batch" || len(failures) != 1 {
		t.Fatalf("first case %v", first)
	}
	f := failures[0]
	if f.attr("message") != "It came back 12 times too early; wait." || f.attr("type") != "ignored_retry_after" {
		t.Errorf("failure %v", f)
	}
	for _, want := range []string{`12:00:01.000 request 0000000000000abc, exchange e1: came back 5ms after status 429, which told it "<2s>"`, "and 11 times more"} {
		if !strings.Contains(f.Text, want) {
			t.Errorf("%q is not in %q", want, f.Text)
		}
	}
	if odd := cases[len(cases)-1].attr("classname"); odd != "web\uFFFD & <b>" {
		t.Errorf("a client's odd name became %q", odd)
	}
	if out := run.all("system-out"); len(out) != 1 || !strings.Contains(out[0].Text, "batch: 30 requests, 20 retries, amplification 3.00") {
		t.Errorf("output %v", out)
	}
}

func TestWriteOnlySomeFail(t *testing.T) {
	root := parse(t, report(), []llmmock.FindingName{llmmock.RetryStorm})
	if root.attr("failures") != "1" {
		t.Errorf("%s failures, want 1", root.attr("failures"))
	}
	if out := root.all("testsuite")[1].all("system-out"); !strings.Contains(out[0].Text, "It came back 12 times too early") {
		t.Errorf("what does not fail is not told: %v", out)
	}
}

func TestWriteNothing(t *testing.T) {
	if root := parse(t, &llmmock.Report{}, llmmock.Findings()); root.attr("tests") != "0" {
		t.Errorf("%s tests of nobody", root.attr("tests"))
	}
}

func TestWriteFails(t *testing.T) {
	broken := errors.New("disk full")
	if err := junit.Write(failing{broken}, report(), nil); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
