package llmmock

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// spending is a request of so many bytes of text, that may be answered with so many tokens.
func spending(key, model string, bytes, most int) *Request {
	q := asked(fmt.Sprintf("%0*d", bytes, 0))
	q.Key, q.Model, q.MaxTokens = key, model, most
	return q
}

func TestRateLimit(t *testing.T) {
	c := newClock()
	m := mustMock(t, c, Scenario{Name: DefaultScenario, Limits: LimitRule{RequestsPerMinute: 60, BurstRequests: 3, TokensPerMinute: 6000, PerModel: true}})
	decide := func(q *Request) *Exchange { q.At = c.now(); return m.Decide(q) }

	var last *Exchange
	for i := range 3 {
		x := decide(spending("k", "m", 400, 900)) // 1,000 tokens
		if x.Failure != nil {
			t.Fatalf("request %d: %+v", i, x.Failure)
		}
		want := Limits{Requests: Limit{3, 2 - i, time.Duration(i+1) * time.Second}, Tokens: Limit{6000, 6000 - 1000*(i+1), time.Duration(i+1) * 10 * time.Second}}
		if *x.Limits != want {
			t.Errorf("request %d: %+v; want %+v", i, *x.Limits, want)
		}
		last = x
	}
	refused := decide(spending("k", "m", 400, 900))
	if f := refused.Failure; f == nil || f.Status != 429 || f.Reason != RateLimited || f.RetryAfter < time.Second || f.RetryAfter > time.Second+2*time.Microsecond || refused.Answer != nil {
		t.Fatalf("the fourth: %+v", f)
	}
	if refused.Limits.Requests.Remaining != 0 || refused.Limits.Tokens.Remaining != 3000 {
		t.Errorf("what is refused takes something: %+v", *refused.Limits)
	}
	// Others have their own.
	if x := decide(spending("k", "n", 400, 900)); x.Failure != nil || x.Limits.Requests.Remaining != 2 {
		t.Errorf("another model: %+v", x.Failure)
	}
	if x := decide(spending("l", "m", 400, 900)); x.Failure != nil {
		t.Errorf("another key: %+v", x.Failure)
	}
	// The time that it was told is honest: just before it is too early, and then it is not.
	c.pass(refused.Failure.RetryAfter - 3*time.Microsecond)
	if x := decide(spending("k", "m", 4, 0)); x.Failure == nil {
		t.Error("let in before the time")
	}
	c.pass(3 * time.Microsecond)
	x := decide(spending("k", "m", 4, 0))
	if x.Failure != nil {
		t.Errorf("not let in at the time: %+v", x.Failure)
	}
	// What was not used comes back: 1,000 were reserved, and the answer took these.
	before := x.Limits.Tokens.Remaining
	m.Done(last)
	c.pass(time.Second)
	x = decide(spending("k", "m", 4, 0))
	if want := min(before+1000-last.Usage().Total()+100-1, 6000); x.Failure != nil || x.Limits.Tokens.Remaining != want {
		t.Errorf("%d tokens remain; want %d", x.Limits.Tokens.Remaining, want)
	}
}

func TestTokenLimit(t *testing.T) {
	c := newClock()
	m, err := NewMock([]Scenario{{Name: DefaultScenario, Limits: LimitRule{TokensPerMinute: 600}}}, &quietAnswerer{Answer{Usage: Usage{Input: 100, Output: 700}}}, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	decide := func(q *Request) *Exchange { q.At = c.now(); return m.Decide(q) }
	if x := decide(spending("k", "m", 4, 600)); x.Failure == nil || x.Failure.RetryAfter != 0 || x.Limits.Tokens.Remaining != 600 || x.Limits.Requests != (Limit{}) {
		t.Errorf("what never fits is told to come again: %+v, %+v", x.Failure, x.Limits)
	}
	x := decide(spending("k", "m", 400, 300))
	if x.Failure != nil || x.Limits.Tokens.Remaining != 200 {
		t.Fatalf("%+v, %+v", x.Failure, x.Limits)
	}
	if y := decide(spending("k", "m", 4, 300)); y.Failure == nil || y.Failure.RetryAfter.Round(time.Millisecond) != 10100*ms {
		t.Errorf("301 of 200: %+v", y.Failure)
	}
	// It took 800 instead of 400: the bucket is in debt, and says that it has nothing.
	m.Done(x)
	y := decide(spending("k", "m", 4, 0))
	if y.Failure == nil || y.Limits.Tokens.Remaining != 0 || y.Limits.Tokens.Reset != 80*time.Second || y.Failure.RetryAfter.Round(time.Millisecond) != 20100*ms {
		t.Errorf("%+v, %+v", y.Failure, y.Limits)
	}
	c.pass(time.Hour)
	if y := decide(spending("k", "m", 4, 0)); y.Limits.Tokens.Remaining != 599 || y.Limits.Tokens.Reset != 100*ms {
		t.Errorf("%+v", y.Limits)
	}
}

// The ledger is compared with one that is kept in rational numbers of a nanosecond.
func TestTheLedgerIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perMinute := rapid.IntRange(1, 100_000).Draw(t, "per minute")
		burst := rapid.IntRange(1, 2*perMinute).Draw(t, "burst")
		now := newClock().at
		b := newBucket(perMinute, burst, now)
		// In parts of which 60e9 are one token, for the full nanosecond.
		size := int64(burst) * int64(time.Minute)
		level := size
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			passed := time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, fmt.Sprint("passed", step)))
			now = now.Add(passed)
			level = min(level+int64(passed)*int64(perMinute), size)
			b.fill(now)
			// The bucket knows full microseconds only, and never more than there is.
			if got := b.level * 1000; got > level || got < level-1000*int64(perMinute) {
				t.Fatalf("the level is %d; want %d", got, level)
			}
			n := rapid.IntRange(0, burst).Draw(t, fmt.Sprint("n", step))
			if w := b.wait(n); w == 0 {
				b.take(n)
				level -= int64(n) * int64(time.Minute)
			} else {
				later := b
				later.fill(now.Add(w))
				if later.wait(n) != 0 {
					t.Fatalf("%d are not there after %s", n, w)
				}
				earlier := b
				earlier.fill(now.Add(w - 3*time.Microsecond))
				if w > 3*time.Microsecond && earlier.wait(n) == 0 {
					t.Fatalf("%d are there before %s", n, w)
				}
			}
			l := b.limit()
			full := b
			full.fill(now.Add(l.Reset + time.Microsecond))
			if l.Limit != burst || l.Remaining != int(b.level/parts) || full.level != full.size {
				t.Fatalf("%+v at %d of %d", l, b.level, b.size)
			}
		}
	})
}

func TestLimitsUnderConcurrency(t *testing.T) {
	c := newClock()
	m := mustMock(t, c, Scenario{Name: DefaultScenario, Limits: LimitRule{RequestsPerMinute: 100}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if x := m.Decide(asked("x")); x.Failure == nil {
					mu.Lock()
					admitted++
					mu.Unlock()
					m.Done(x)
				}
			}
		})
	}
	wg.Wait()
	if admitted != 100 {
		t.Errorf("%d of 400 were let in; want 100", admitted)
	}
}

func TestAClockThatGoesBackFillsNothing(t *testing.T) {
	now := newClock().at
	b := newBucket(60, 10, now)
	b.take(10)
	b.fill(now.Add(-time.Hour))
	if b.level != 0 {
		t.Errorf("level %d", b.level)
	}
	b.fill(now.Add(time.Second))
	if b.level != parts {
		t.Errorf("level %d; want one", b.level)
	}
	b.take(MostPerMinute)
	for range 200 {
		b.take(MostPerMinute) // debts do not overflow
	}
	if b.level >= 0 {
		t.Errorf("level %d", b.level)
	}
}

func TestAccountsAreBounded(t *testing.T) {
	now := newClock().at
	l := newAccounts(LimitRule{RequestsPerMinute: 1})
	q := asked("x")
	for i := range 4 * rememberedAccounts {
		q.Key = fmt.Sprint("k", i)
		if _, refused := l.of(q, now).admit(now, 0); refused != nil {
			t.Fatalf("%s begins without anything", q.Key)
		}
	}
	held := 0
	for i := range l.all.shards {
		held += len(l.all.shards[i].young) + len(l.all.shards[i].old)
	}
	if held > 9*rememberedAccounts/4+4096 || held < rememberedAccounts {
		t.Errorf("%d accounts are kept", held)
	}
	if _, refused := l.of(q, now).admit(now, 0); refused == nil {
		t.Error("the last one was forgotten")
	}
}

func TestEstimate(t *testing.T) {
	for _, tc := range []struct {
		name string
		q    Request
		want int
	}{
		{"nothing", Request{Choices: 1}, 0},
		{"text", Request{Turns: []Turn{{Text: "12345"}, {Results: []Result{{Text: "123"}}}}, MaxTokens: 10, Choices: 2}, 22},
		{"inputs", Request{Inputs: []string{"1234", "1234"}, Choices: 1}, 2},
		{"token ids", Request{Inputs: []string{"1 2 3"}, InputTokens: 3, Choices: 1}, 3},
		{"an absurd maximum", Request{MaxTokens: 1 << 62, Choices: 100}, MostPerMinute},
	} {
		if got := tc.q.Estimate(); got != tc.want {
			t.Errorf("%s: %d; want %d", tc.name, got, tc.want)
		}
	}
}
