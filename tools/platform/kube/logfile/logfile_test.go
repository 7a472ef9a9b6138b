package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func create(t *testing.T, limit int64) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	l, err := Create(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, path
}

func read(t *testing.T, path string, opts Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := Read(t.Context(), &out, path, nil, opts); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestOptions(t *testing.T) {
	l, path := create(t, 1<<20)
	l.Copy("stdout", strings.NewReader("one\ntwo\n"))
	middle := time.Now()
	l.Copy("stderr", strings.NewReader("three\nfour"))
	for _, tc := range []struct {
		name string
		opts Options
		want string
	}{
		{"all", Options{Tail: -1}, "one\ntwo\nthree\nfour\n"},
		{"tail", Options{Tail: 1}, "four\n"},
		{"no tail", Options{Tail: 0}, ""},
		{"long tail", Options{Tail: 100}, "one\ntwo\nthree\nfour\n"},
		{"longest tail", Options{Tail: math.MaxInt}, "one\ntwo\nthree\nfour\n"},
		{"since", Options{Tail: -1, Since: middle}, "three\nfour\n"},
		{"limit", Options{Tail: -1, LimitBytes: 6}, "one\ntw"},
	} {
		if got := read(t, path, tc.opts); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	first, _, _ := strings.Cut(read(t, path, Options{Tail: -1, Timestamps: true}), " one\n")
	if _, err := time.Parse(time.RFC3339Nano, first); err != nil {
		t.Error(err)
	}
	if err := Read(t.Context(), io.Discard, path+"x", nil, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a log that does not exist: %v", err)
	}
}

func TestFollowSeesEveryLineOverRotations(t *testing.T) {
	l, path := create(t, 4<<10)
	var out bytes.Buffer
	done := make(chan error, 1)
	pr, pw := io.Pipe()
	go func() {
		err := Read(t.Context(), pw, path, l, Options{Tail: -1, Follow: true})
		pw.Close()
		done <- err
	}()
	var want strings.Builder
	for i := range 500 {
		line := fmt.Sprintf("line %d of many\n", i)
		want.WriteString(line)
		l.Copy("stdout", strings.NewReader(line))
		// The reader has seen it before the next one: only a reader that is two rotations behind may lose lines.
		if _, err := io.CopyN(&out, pr, int64(len(line))); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	if _, err := io.Copy(&out, pr); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if out.String() != want.String() {
		t.Errorf("followed %d bytes, want %d", out.Len(), want.Len())
	}
	var total int64
	for _, f := range []string{path, path + ".1"} {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 4<<10 {
		t.Errorf("%d bytes on disk, want at most %d", total, 4<<10)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	l, path := create(t, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, io.Discard, path, l, Options{Tail: -1, Follow: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v, want context.Canceled", err)
	}
}

// Whatever is written comes back, however it is cut into reads and however long its lines are.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.StringOfN(rapid.RuneFrom([]rune("ab \t")), 0, 3, -1)).Draw(t, "lines")
		if n := rapid.IntRange(0, 3).Draw(t, "long"); n > 0 {
			lines = append(lines, strings.Repeat("x", n*maxLine-1+rapid.IntRange(0, 2).Draw(t, "more")))
		}
		text := strings.Join(lines, "\n") + "\n"
		path := filepath.Join(dir, "r.log")
		l, err := Create(path, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.Copy("stdout", &chunks{r: strings.NewReader(text), n: rapid.IntRange(1, 5000).Draw(t, "chunk")})
		var out bytes.Buffer
		if err := Read(context.Background(), &out, path, nil, Options{Tail: -1}); err != nil {
			t.Fatal(err)
		}
		if out.String() != text {
			t.Fatalf("got %q, want %q", out.String(), text)
		}
	})
}

type chunks struct {
	r io.Reader
	n int
}

func (c *chunks) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.n)]) }

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.6Z stdout F text\n"))
	f.Add([]byte(" stdout P \n"))
	f.Fuzz(func(t *testing.T, record []byte) {
		if _, _, text, ok := parse(record); ok && bytes.HasSuffix(text, []byte("\n")) && !bytes.HasSuffix(record, []byte("\n\n")) {
			t.Fatalf("the newline stays in %q", text)
		}
	})
}
