package call

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContext(t *testing.T) {
	ctx := t.Context()
	if From(ctx) != (ID{}) {
		t.Error("an id out of nothing")
	}
	ctx = WithOperation(With(ctx, ID{Request: "r"}), "o")
	if From(ctx) != (ID{Request: "r", Operation: "o"}) {
		t.Errorf("got %+v", From(ctx))
	}
	if a, b := New(), New(); a == b || len(a.Request) != 26 {
		t.Errorf("new ids %v and %v", a, b)
	}
}

func TestHeaders(t *testing.T) {
	for given, want := range map[string]string{
		"rollback-edge/2026-01-22T20:25:00Z": "rollback-edge/2026-01-22T20:25:00Z", "": "", "a b": "", "a\nb": "", `a"b`: "", "é": "",
		strings.Repeat("x", MaxIDLength): strings.Repeat("x", MaxIDLength), strings.Repeat("x", MaxIDLength+1): "",
	} {
		h := http.Header{}
		ID{Request: given, Operation: given}.Write(h)
		if got := Read(h); got != (ID{Request: want, Operation: want}) {
			t.Errorf("%q is read as %+v", given, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("rollback-edge")
	f.Fuzz(func(t *testing.T, s string) {
		id := Read(http.Header{RequestHeader: {s}})
		if len(id.Request) > MaxIDLength || strings.ContainsAny(id.Request, "\r\n\" {}") {
			t.Fatalf("%q", id.Request)
		}
	})
}
