package record

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
	pkgdoc.Forbid(t, "edgehold.internal/services/llmmock/record", "edgehold.internal/services/llmmock/serve", "it is read by whoever plays it, and only record/proxy and serve touch connections")
}

var t0 = time.Date(2026, 5, 4, 3, 2, 1, 999_000, time.UTC)

// drawn is any exchange that can be recorded.
func drawn(t *rapid.T) *Exchange {
	body := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 1, 30), rapid.Map(rapid.StringN(1, 20, 60), func(s string) []byte { return []byte(s) }))
	x := &Exchange{At: t0, Vendor: rapid.SampledFrom([]llmmock.Vendor{llmmock.OpenAI, llmmock.Azure, llmmock.Anthropic, llmmock.Gemini, llmmock.Bedrock}).Draw(t, "vendor"),
		Request: Request{Method: "POST", Path: "/" + rapid.String().Draw(t, "path"), Query: rapid.StringMatching(`[a-z=&%0-9]{0,9}`).Draw(t, "query"),
			Header: http.Header{"Content-Type": {"application/json"}}, Body: rapid.OneOf(rapid.Just([]byte{}), body).Draw(t, "body")},
		Answer: llmmock.Recording{Status: rapid.IntRange(200, 599).Draw(t, "status"), Header: map[string][]string{"X-A": {rapid.StringMatching(`[ -~]{0,9}`).Draw(t, "value"), "b"}},
			End: rapid.SampledFrom([]llmmock.FaultKind{llmmock.NoFault, llmmock.CutMidEvent, llmmock.ResetMidStream}).Draw(t, "end")}}
	at := time.Duration(0)
	next := func() time.Duration {
		at += time.Duration(rapid.IntRange(0, 1e6).Draw(t, "gap")) * time.Microsecond
		return at
	}
	x.Answer.HeaderAt = next()
	for _, data := range rapid.SliceOfN(body, 0, 4).Draw(t, "pieces") {
		x.Answer.Pieces = append(x.Answer.Pieces, llmmock.RecordedPiece{At: next(), Data: data})
	}
	x.Answer.EndAt = next()
	return x
}

func create(t testing.TB, path string, xs ...*Exchange) {
	t.Helper()
	w, err := Append(path, Head{At: t0, Redacted: true}, MaxFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range xs {
		if err := w.Write(x); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is written is read, and of a file that was cut off anywhere everything that was written whole; it can be gone on with.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, fmt.Sprint(time.Now().UnixNano()))
		var xs []*Exchange
		for range rapid.IntRange(0, 3).Draw(t, "exchanges") {
			xs = append(xs, drawn(t))
		}
		w, err := Append(path, Head{At: t0, Redacted: true, Patterns: []string{"a+"}}, MaxFile)
		if err != nil {
			t.Fatal(err)
		}
		ends := []int64{0, w.Size()}
		for _, x := range xs {
			if err := w.Write(x); err != nil {
				t.Fatal(err)
			}
			ends = append(ends, w.Size())
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := rapid.IntRange(0, len(text)).Draw(t, "cut")
		lines := 0
		for lines+1 < len(ends) && ends[lines+1] <= int64(cut) {
			lines++
		}
		f, err := Parse(text[:cut])
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, len(text), err)
		}
		if f.Whole != ends[lines] || f.Dropped != int64(cut)-ends[lines] || len(f.Exchanges) != max(lines-1, 0) {
			t.Fatalf("cut at %d, lines end at %d: whole %d, dropped %d, %d exchanges", cut, ends, f.Whole, f.Dropped, len(f.Exchanges))
		}
		for i, got := range f.Exchanges {
			want := *xs[i]
			want.Number = i + 1
			if !reflect.DeepEqual(got, &want) {
				t.Fatalf("exchange %d is\n%+v\nand was\n%+v", i+1, got, &want)
			}
		}
		if err := os.Truncate(path, int64(cut)); err != nil {
			t.Fatal(err)
		}
		if w, err = Append(path, Head{At: t0, Redacted: true, Patterns: []string{"a+"}}, MaxFile); err != nil {
			t.Fatal(err)
		}
		if w.Before != len(f.Exchanges) || w.Dropped != f.Dropped {
			t.Fatalf("it goes on after %d exchanges and %d dropped bytes", w.Before, w.Dropped)
		}
		x := drawn(t)
		if err := errors.Join(w.Write(x), w.Close()); err != nil {
			t.Fatal(err)
		}
		after, err := Load(path)
		if err != nil || len(after.Exchanges) != len(f.Exchanges)+1 || after.Dropped != 0 {
			t.Fatalf("after going on: %+v, %v", after, err)
		}
	})
}

func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	one := &Exchange{At: t0, Vendor: llmmock.OpenAI, Request: Request{Method: "GET", Path: "/v1/models"}, Answer: llmmock.Recording{Status: 200}}
	create(t, path, one, one, one)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	join := func(lines ...string) string { return strings.Join(lines, "") }
	bad := strings.Replace(lines[2], "models", "modelz", 1)
	for name, tc := range map[string]struct {
		text      string
		exchanges int
		says      string
	}{
		"in the middle":        {join(lines[0], lines[1], bad, lines[3]), 0, "line 3: is damaged"},
		"at the end":           {join(lines[0], lines[1], bad), 1, ""},
		"zeros at the end":     {join(lines[0], lines[1], strings.Repeat("\x00", 4096)), 1, ""},
		"no recording":         {"hello\n", 0, "line 1: is no recording"},
		"begun":                {lines[0][:10], 0, ""},
		"empty":                {"", 0, ""},
		"without the head":     {join(lines[1], lines[2]), 0, "line 1: is no recording"},
		"two heads":            {join(lines[0], lines[0]), 0, "line 2: vendor"},
		"a later version":      {mustLine(headLine{kind, 2, t0, true, nil}), 0, "version 2 is not known; this program reads 1 to 1"},
		"times that go back":   {join(lines[0], mustLine(exchangeLine{Vendor: "openai", Request: requestPart{Method: "GET", Path: "/"}, Answer: answerPart{Status: 200, HeaderAt: 5, EndAt: 4}})), 0, "answer.endAt: 4 µs is not allowed; use 5"},
		"a header in a header": {join(lines[0], mustLine(exchangeLine{Vendor: "openai", Request: requestPart{Method: "GET", Path: "/"}, Answer: answerPart{Status: 200, Header: http.Header{"A": {"b\r\nC: d"}}}})), 0, "header A"},
		"no status":            {join(lines[0], mustLine(exchangeLine{Vendor: "openai", Request: requestPart{Method: "GET", Path: "/"}})), 0, "answer.status: 0"},
	} {
		f, err := Parse([]byte(tc.text))
		if tc.says != "" {
			if problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s: got %v, want …%s…", name, err, tc.says)
			}
		} else if err != nil || len(f.Exchanges) != tc.exchanges {
			t.Errorf("%s: got %+v, %v", name, f, err)
		}
	}
	if _, err := Load(path + "-not"); problem.KindOf(err) != problem.NotFound {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(path, []byte(join(lines[0], bad, lines[1])), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path+":2: is damaged") {
		t.Errorf("got %v", err)
	}
}

func mustLine(v any) string {
	l, err := line(v)
	if err != nil {
		panic(err)
	}
	return string(l)
}

func TestAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	h := Head{At: t0, Redacted: true}
	w, err := Append(path, h, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Append(path, h, 1000); problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v", err)
	}
	x := &Exchange{At: t0, Vendor: llmmock.OpenAI, Request: Request{Method: "GET", Path: "/v1/models"}, Answer: llmmock.Recording{Status: 200}}
	n := 0
	for ; err == nil; n++ {
		err = w.Write(x)
	}
	if !errors.Is(err, ErrFull) || w.Size() > 1000 || n < 3 {
		t.Errorf("after %d: %v with %d bytes", n, err, w.Size())
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if f, err := Load(path); err != nil || len(f.Exchanges) != n-1 || f.Dropped != 0 {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := Append(path, Head{At: t0, Redacted: true, Patterns: []string{"x"}}, MaxFile); problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "another redaction") {
		t.Errorf("other patterns: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v", info.Mode())
	}
	if _, err := Append(t.TempDir(), h, MaxFile); problem.KindOf(err) != problem.Invalid {
		t.Errorf("a folder: %v", err)
	}
}

// Whatever comes is read or refused; what was read is written as it was.
func FuzzParse(f *testing.F) {
	head := mustLine(headLine{kind, 1, t0, true, []string{"a"}})
	one, err := encode(&Exchange{At: t0, Vendor: llmmock.OpenAI, Request: Request{Method: "GET", Path: "/v1/models", Body: []byte("\xff")}, Answer: llmmock.Recording{Status: 200,
		Header: map[string][]string{"Content-Type": {"text/event-stream"}}, Pieces: []llmmock.RecordedPiece{{At: 5 * time.Microsecond, Data: []byte("data: {}\n\n")}}, EndAt: time.Second}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(head+string(one)+string(one)), false)
	f.Add([]byte(head+string(one[:20])), false)
	f.Add([]byte(`{"at":"2026-05-04T03:02:01Z","vendor":"openai","request":{"method":"GET","path":"/"},"answer":{"status":200,"headerAt":-1,"endAt":99999999999999}`), true)
	f.Add([]byte(`{"edgehold":"recording","version":3`), true)
	f.Fuzz(func(t *testing.T, text []byte, sealed bool) {
		if sealed { // what has the right checksum, and may be anything
			if bytes.ContainsRune(text, '\n') {
				return
			}
			var b bytes.Buffer
			fmt.Fprintf(&b, "%s%s%s%08x%s", head, text, crcBefore, checksum(text), crcAfter)
			text = b.Bytes()
		}
		file, err := Parse(text)
		if err != nil {
			if problem.KindOf(err) != problem.Invalid {
				t.Errorf("got %v", err)
			}
			return
		}
		if file.Whole+file.Dropped != int64(len(text)) {
			t.Errorf("%d and %d are not %d", file.Whole, file.Dropped, len(text))
		}
		for _, x := range file.Exchanges {
			l, err := encode(x)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(append([]byte(head), l...))
			if err != nil || len(again.Exchanges) != 1 {
				t.Fatalf("%s: %v", l, err)
			}
			again.Exchanges[0].Number, again.Exchanges[0].At = x.Number, x.At
			if fmt.Sprint(*again.Exchanges[0]) != fmt.Sprint(*x) {
				t.Errorf("%+v became %+v", x, again.Exchanges[0])
			}
		}
	})
}
