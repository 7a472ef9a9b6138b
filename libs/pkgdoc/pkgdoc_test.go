package pkgdoc

import (
	"fmt"
	"strings"
	"testing"
)

// recorder is a test that keeps its failures.
type recorder struct {
	testing.TB
	errors []string
}

func (*recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.errors = append(r.errors, fmt.Sprint(args...)); panic(r) }

// failures are what do reports.
func failures(t *testing.T, do func(testing.TB)) []string {
	r := &recorder{TB: t}
	func() {
		defer func() {
			if v := recover(); v != nil && v != any(r) {
				panic(v)
			}
		}()
		do(r)
	}()
	return r.errors
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d failures, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("got %q, want …%s…", got[i], want[i])
		}
	}
}

func TestCheck(t *testing.T) {
	expect(t, failures(t, func(t testing.TB) { Check(t, "testdata") }),
		`main.go: the doc comment "Command does something." does not say`,
		"testdata/none: package none has no doc comment",
		"testdata/twice: package twice has 2 doc comments (testdata/twice/a.go, testdata/twice/b.go); keep one",
		`wrong.go: the doc comment must start with "Package wrong "`)
	expect(t, failures(t, func(t testing.TB) { Check(t, "testdata/good") }))
	expect(t, failures(t, func(t testing.TB) { Check(t, "testdata/generated") }), "has no Go packages")
	expect(t, failures(t, func(t testing.TB) { Check(t, "testdata/missing") }), "no such file")
}

func TestExported(t *testing.T) {
	expect(t, failures(t, func(t testing.TB) { Exported(t, "testdata") }),
		"none.go:3:6: Bare has no doc comment", "none.go:5:6: Type has", "none.go:7:17: Method has", "none.go:9:7: Constant has")
	expect(t, failures(t, func(t testing.TB) { Exported(t, "testdata/good") }))
}

func TestForbid(t *testing.T) {
	Forbid(t, ".", "net/http/...", "it reads source, and nothing else")
	Forbid(t, ".", "o", "a prefix of os and no package")
	expect(t, failures(t, func(t testing.TB) { Forbid(t, ".", "os/...", "for a test") }),
		"edgehold.internal/libs/pkgdoc must not import os/...: for a test\n\tedgehold.internal/libs/pkgdoc\n\timports os")
	expect(t, failures(t, func(t testing.TB) { Forbid(t, ".", "io/fs", "for a test") }), "must not import io/fs")
	expect(t, failures(t, func(t testing.TB) { Forbid(t, "./nowhere", "os", "for a test") }), "go list ./nowhere")
}
