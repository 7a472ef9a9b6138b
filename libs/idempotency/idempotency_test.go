package idempotency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	first  = Payload(&fleetv1.CutOverRequest{Pop: "fra1", Reason: "bad release"})
	second = Payload(&fleetv1.CutOverRequest{Pop: "mia1", Reason: "bad release"})
	key    = Key{Principal: "olga", Procedure: "/edgehold.fleet.v1.FleetService/CutOver", Key: "k1"}
)

func answer(value string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return value, nil }
}

func TestSameKey(t *testing.T) {
	s := New[string](10, time.Minute)
	if got, err := s.Do(t.Context(), key, first, answer("one")); got != "one" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := s.Do(t.Context(), key, first, answer("two")); got != "one" || err != nil {
		t.Errorf("the same again: %q, %v", got, err)
	}
	_, err := s.Do(t.Context(), key, second, answer("two"))
	var p *problem.Error
	if !errors.As(err, &p) || p.Kind != problem.AlreadyExists || p.Field != "idempotency_key" {
		t.Errorf("another payload: %v", err)
	}
	for _, other := range []Key{{"vera", key.Procedure, "k1"}, {"olga", "/other", "k1"}, {"olga", key.Procedure, "k2"}} {
		if got, err := s.Do(t.Context(), other, second, answer("two")); got != "two" || err != nil {
			t.Errorf("%v: %q, %v", other, got, err)
		}
	}
	if _, err := s.Do(t.Context(), Key{}, first, answer("x")); problem.KindOf(err) != problem.Invalid {
		t.Errorf("an empty key: %v", err)
	}
}

func TestFailureIsNotRemembered(t *testing.T) {
	s := New[string](10, time.Minute)
	failed := errors.New("the API is away")
	if _, err := s.Do(t.Context(), key, first, func(context.Context) (string, error) { return "", failed }); !errors.Is(err, failed) {
		t.Fatalf("got %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Do(t.Context(), key, first, func(context.Context) (string, error) { panic("x") })
	}()
	if got, err := s.Do(t.Context(), key, second, answer("two")); got != "two" || err != nil {
		t.Errorf("after a failure and a panic: %q, %v", got, err)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[string](10, time.Minute)
		_, _ = s.Do(t.Context(), key, first, answer("one"))
		time.Sleep(time.Minute - 1)
		if got, _ := s.Do(t.Context(), key, first, answer("two")); got != "one" {
			t.Errorf("just before: %q", got)
		}
		time.Sleep(time.Nanosecond)
		if s.Len() != 0 {
			t.Errorf("%d results", s.Len())
		}
		if got, _ := s.Do(t.Context(), key, second, answer("two")); got != "two" {
			t.Errorf("afterwards: %q", got)
		}
	})
}

// TestOneAtATime: of many at once one runs; when it fails the next one does, and the others get that one's result.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[string](10, time.Minute)
		var mu sync.Mutex
		running, runs := 0, 0
		do := func(context.Context) (string, error) {
			mu.Lock()
			running++
			runs++
			n := runs
			if running > 1 {
				t.Error("two at once")
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			running--
			if n == 1 {
				return "", errors.New("the first one fails")
			}
			return fmt.Sprint(n), nil
		}
		var wg sync.WaitGroup
		failures := 0
		for range 20 {
			wg.Go(func() {
				got, err := s.Do(t.Context(), key, first, do)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failures++
				} else if got != "2" {
					t.Errorf("got %q", got)
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		synctest.Wait()
		if _, err := s.Do(ctx, key, first, do); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that does not wait so long: %v", err)
		}
		wg.Wait()
		if runs != 2 || failures != 1 {
			t.Errorf("%d runs and %d failures", runs, failures)
		}
	})
}

func TestFull(t *testing.T) {
	s := New[string](2, time.Minute)
	k := func(n int) Key { return Key{Key: fmt.Sprint(n)} }
	release := make(chan struct{})
	_, err := s.Do(t.Context(), k(1), first, func(ctx context.Context) (string, error) {
		return s.Do(ctx, k(2), first, func(ctx context.Context) (string, error) {
			_, err := s.Do(ctx, k(3), first, answer("x"))
			close(release)
			return "", err
		})
	})
	<-release
	if problem.KindOf(err) != problem.ResourceExhausted {
		t.Errorf("two under way and a third: %v", err)
	}
	for n := range 5 {
		_, _ = s.Do(t.Context(), k(n), first, answer(fmt.Sprint(n)))
	}
	if got, _ := s.Do(t.Context(), k(4), first, answer("again")); got != "4" || s.Len() != 2 {
		t.Errorf("the newest is %q of %d", got, s.Len())
	}
	if got, _ := s.Do(t.Context(), k(0), first, answer("again")); got != "again" {
		t.Errorf("the oldest is still there: %q", got)
	}
}

// TestModel compares the store with a map that forgets nothing, as long as it is not full.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := New[int](100, time.Hour), map[Key][2]int{} // payload and value
		for n := range rapid.IntRange(1, 60).Draw(t, "calls") {
			k := Key{Principal: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "principal"), Key: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "key")}
			payload, fails := rapid.IntRange(0, 1).Draw(t, "payload"), rapid.Bool().Draw(t, "fails")
			got, err := s.Do(context.Background(), k, [32]byte{byte(payload)}, func(context.Context) (int, error) {
				if fails {
					return 0, errors.New("no")
				}
				return n, nil
			})
			known, ok := model[k]
			switch {
			case ok && known[0] != payload:
				if problem.KindOf(err) != problem.AlreadyExists {
					t.Fatalf("another payload: %v", err)
				}
			case ok:
				if err != nil || got != known[1] {
					t.Fatalf("got %d, %v, want %d", got, err, known[1])
				}
			case fails:
				if err == nil {
					t.Fatal("a failure was a success")
				}
			default:
				if err != nil || got != n {
					t.Fatalf("got %d, %v", got, err)
				}
				model[k] = [2]int{payload, n}
			}
		}
		if s.Len() != len(model) {
			t.Fatalf("%d entries, want %d", s.Len(), len(model))
		}
	})
}
