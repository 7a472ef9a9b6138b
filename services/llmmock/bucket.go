package llmmock

import (
	"sync"
	"time"

	"edgehold.internal/libs/problem"
)

// LimitRule is the vendor's rate limit for each key. The zero value limits nothing.
//
// A limit is a token bucket that fills continuously, as the vendors' do: 60 requests a minute are one a second, and whoever has
// been quiet may send Burst of them at once. A request is let in when both buckets have what it needs, and then takes it: one
// request, and the tokens that it may come to at most as far as can be told beforehand (see Estimate). When it has ended it gives
// back what it did not use, or takes what it used beyond that. A request that is refused takes nothing.
type LimitRule struct {
	// RequestsPerMinute and TokensPerMinute; 0 for no limit.
	RequestsPerMinute, TokensPerMinute int
	// BurstRequests and BurstTokens are the sizes of the buckets; 0 for what comes in a minute, which is what vendors have.
	BurstRequests, BurstTokens int
	// PerModel gives each model of a key buckets of its own; without it a key's models share them.
	PerModel bool
}

// MostPerMinute is the largest limit.
const MostPerMinute = 1_000_000_000

// Any says that something is limited.
func (l *LimitRule) Any() bool { return l.RequestsPerMinute > 0 || l.TokensPerMinute > 0 }

// Validate says Invalid with the field in question.
func (l *LimitRule) Validate() error {
	for _, f := range []struct {
		name  string
		value int
		of    int
	}{
		{"requestsPerMinute", l.RequestsPerMinute, 1}, {"tokensPerMinute", l.TokensPerMinute, 1},
		{"burstRequests", l.BurstRequests, l.RequestsPerMinute}, {"burstTokens", l.BurstTokens, l.TokensPerMinute},
	} {
		if f.value < 0 || f.value > MostPerMinute {
			return problem.Invalidf(f.name, "%d is not allowed; use 0 to %d", f.value, MostPerMinute)
		}
		if f.value > 0 && f.of == 0 {
			return problem.Invalidf(f.name, "is the size of a bucket that nothing fills; set the limit per minute too")
		}
	}
	return nil
}

// Estimate is how many tokens a request is taken for when it arrives: a quarter of the bytes of its text, and all that it lets the
// model say.
func (q *Request) Estimate() int {
	n := 0
	for i := range q.Turns {
		n += len(q.Turns[i].Text)
		for j := range q.Turns[i].Results {
			n += len(q.Turns[i].Results[j].Text)
		}
	}
	for _, in := range q.Inputs {
		n += len(in)
	}
	n = (n + 3) / 4
	if q.InputTokens > 0 {
		n = q.InputTokens
	}
	return min(n+min(q.MaxTokens, MostPerMinute)*max(q.Choices, 1), MostPerMinute)
}

// bucket holds its level in parts of which perMinute × 1 µs makes one: then it fills by a whole number each microsecond, and
// nothing is ever rounded.
type bucket struct {
	perMinute, size int64
	level           int64
	at              time.Time // when the level was that
}

const parts = int64(time.Minute / time.Microsecond)

func newBucket(perMinute, burst int, at time.Time) bucket {
	if burst == 0 {
		burst = perMinute
	}
	return bucket{perMinute: int64(perMinute), size: int64(burst) * parts, level: int64(burst) * parts, at: at}
}

// fill brings the level up to now. A clock that goes back fills nothing.
func (b *bucket) fill(now time.Time) {
	passed := now.Sub(b.at).Microseconds()
	switch {
	case b.perMinute == 0 || now.Before(b.at):
		return
	case b.level == b.size: // what comes meanwhile runs over
		b.at = now
		return
	case passed == 0:
		return
	}
	if passed > (b.size-b.level)/b.perMinute {
		b.level, b.at = b.size, now
		return
	}
	b.level += passed * b.perMinute
	b.at = b.at.Add(time.Duration(passed) * time.Microsecond) // and not now: the rest of a microsecond counts later
}

// wait is how long until it holds n; negative when it never will.
func (b *bucket) wait(n int) time.Duration {
	missing := int64(n)*parts - b.level
	switch {
	case b.perMinute == 0 || missing <= 0:
		return 0
	case int64(n)*parts > b.size:
		return -1
	}
	// One more for the part of a microsecond that fill did not count.
	return time.Duration((missing+b.perMinute-1)/b.perMinute+1) * time.Microsecond
}

// take may leave less than nothing, as a debt. A negative n gives back.
func (b *bucket) take(n int) {
	if b.perMinute > 0 {
		b.level = max(min(b.level-int64(n)*parts, b.size), -mostDebt)
	}
}

// mostDebt is far beyond what any request takes, and far from overflow.
const mostDebt = 1 << 61

func (b *bucket) limit() Limit {
	if b.perMinute == 0 {
		return Limit{}
	}
	return Limit{Limit: int(b.size / parts), Remaining: int(max(b.level, 0) / parts),
		Reset: time.Duration((b.size-b.level+b.perMinute-1)/b.perMinute) * time.Microsecond}
}

// account is one key's, or one key's and model's.
type account struct {
	mu               sync.Mutex
	requests, tokens bucket
}

func (a *account) admit(now time.Time, tokens int) (Limits, *Failure) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests.fill(now)
	a.tokens.fill(now)
	r, t := a.requests.wait(1), a.tokens.wait(tokens)
	if r == 0 && t == 0 {
		a.requests.take(1)
		a.tokens.take(tokens)
		return a.limits(), nil
	}
	l := a.limits()
	f := &Failure{Status: 429, Reason: RateLimited, RetryAfter: max(r, t)}
	if t < 0 {
		f.RetryAfter = 0
	}
	if t != 0 {
		f.Spent = &Spent{Tokens: true, PerMinute: int(a.tokens.perMinute), Size: l.Tokens.Limit, Remaining: l.Tokens.Remaining, Requested: tokens}
	} else {
		f.Spent = &Spent{PerMinute: int(a.requests.perMinute), Size: l.Requests.Limit, Remaining: l.Requests.Remaining, Requested: 1}
	}
	return l, f
}

func (a *account) limits() Limits {
	return Limits{Requests: a.requests.limit(), Tokens: a.tokens.limit()}
}

// settle corrects what was taken for a request to what it used.
func (a *account) settle(now time.Time, taken, used int) {
	if taken == used {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens.fill(now)
	a.tokens.take(min(used, MostPerMinute) - taken)
}

// accounts are those of a scenario. When there are too many, those that were not used for longest are forgotten, and begin with
// full buckets when they come back.
type accounts struct {
	rule LimitRule
	all  *recent[*account]
}

// rememberedAccounts is how many are kept at least.
const rememberedAccounts = 1 << 14

func newAccounts(rule LimitRule) *accounts {
	return &accounts{rule: rule, all: newRecent[*account](rememberedAccounts)}
}

func (l *accounts) of(q *Request, now time.Time) *account {
	key := textHash(q.Key)
	if l.rule.PerModel {
		key = mix(key) ^ textHash(q.Model)
	}
	return l.all.update(key, func(a *account, found bool) *account {
		if found {
			return a
		}
		return &account{requests: newBucket(l.rule.RequestsPerMinute, l.rule.BurstRequests, now),
			tokens: newBucket(l.rule.TokensPerMinute, l.rule.BurstTokens, now)}
	})
}
