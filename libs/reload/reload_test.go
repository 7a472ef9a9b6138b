package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// joined refuses files that do not belong together: each holds "name:part".
func joined(contents [][]byte) (string, error) {
	var out []string
	for _, c := range contents {
		name, part, ok := strings.Cut(string(c), ":")
		if !ok || len(out) > 0 && !strings.HasPrefix(out[0], name) {
			return "", errors.New("they do not belong together")
		}
		out = append(out, name+part)
	}
	return strings.Join(out, "+"), nil
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	if _, err := Open(joined, a); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without the file: %v", err)
	}
	put(t, a, "one:1")
	put(t, b, "two:2")
	if _, err := Open(joined, a, b); err == nil {
		t.Fatal("files that do not belong together were opened")
	}
	put(t, b, "one:2")
	v, err := Open(joined, a, b)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what string, changed, good bool, value string) {
		t.Helper()
		gotChanged, err := v.Check()
		if gotChanged != changed || (err == nil) != good || v.Get() != value {
			t.Errorf("%s: changed %v, %v, %q", what, gotChanged, err, v.Get())
		}
	}
	expect("nothing happened", false, true, "one1+one2")
	put(t, a, "two:1")
	expect("half of a change", true, false, "one1+one2")
	expect("still half", false, false, "one1+one2")
	put(t, b, "two:2")
	expect("the other half", true, true, "two1+two2")
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	expect("one is away", true, false, "two1+two2")
	expect("still away", false, false, "two1+two2")
	put(t, a, "two:1")
	expect("it is back", true, true, "two1+two2")
	put(t, a, strings.Repeat("x", MaxBytes+1))
	expect("too large", true, false, "two1+two2")
	// A mounted Secret: the path is a link, and the link is swapped.
	put(t, a+".new", "six:1")
	if err := errors.Join(os.Symlink(a+".new", a+".link"), os.Rename(a+".link", a)); err != nil {
		t.Fatal(err)
	}
	put(t, b, "six:2")
	expect("swapped", true, true, "six1+six2")
}

func TestWatchAndFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a")
		put(t, path, "a:1")
		v, err := Open(joined, path)
		if err != nil {
			t.Fatal(err)
		}
		reports := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { v.Watch(ctx, time.Second, func(err error) { reports <- err }); close(done) }()
		time.Sleep(10500 * time.Millisecond) // between two looks
		put(t, path, "bad")
		if err := <-reports; err == nil {
			t.Error("a bad content was not reported")
		}
		time.Sleep(10500 * time.Millisecond)
		put(t, path, "a:2")
		if err := <-reports; err != nil || v.Get() != "a2" {
			t.Errorf("%v, %q", err, v.Get())
		}
		cancel()
		<-done

		put(t, path, "a:3")
		time.Sleep(time.Second)
		if got := v.Fresh(2 * time.Minute); got != "a2" {
			t.Errorf("not old enough, and it is %q", got)
		}
		if got := v.Fresh(time.Second); got != "a3" {
			t.Errorf("old enough, and it is %q", got)
		}
		put(t, path, "bad")
		time.Sleep(time.Second)
		if got := v.Fresh(time.Second); got != "a3" {
			t.Errorf("a bad content: %q", got)
		}
	})
}
