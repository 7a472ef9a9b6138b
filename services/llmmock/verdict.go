package llmmock

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FindingName names what a client did wrong.
type FindingName string

// What a Judge finds.
const (
	// IgnoredRetryAfter: it came back earlier than it was told to.
	IgnoredRetryAfter FindingName = "ignored_retry_after"
	// RetriedHopeless: it sent again what was refused for good: a 4xx but for 408, 409, 425 and 429.
	RetriedHopeless FindingName = "retried_hopeless"
	// RetryStorm: its retries multiplied its traffic.
	RetryStorm FindingName = "retry_storm"
	// TrustedTruncation: it took an answer that was cut off for a whole one.
	TrustedTruncation FindingName = "trusted_truncation"
	// KeptUnread: it kept connections and did not read them.
	KeptUnread FindingName = "kept_unread"
	// DoubleSubmission: it sent the same again while the first was under way or had been given up, without an idempotency key.
	DoubleSubmission FindingName = "double_submission"
	// ReusedKey: it used an idempotency key for another request.
	ReusedKey FindingName = "reused_key"
)

// Findings are all names, in the order of a report.
func Findings() []FindingName {
	return []FindingName{IgnoredRetryAfter, RetriedHopeless, RetryStorm, TrustedTruncation, KeptUnread, DoubleSubmission, ReusedKey}
}

// What a Judge goes by.
const (
	// RetryWindow: a request that comes again later than that after its failure is a new one.
	RetryWindow = 5 * time.Minute
	// RetryGrace is how much too early a retry may come: what clocks and timers are off by.
	RetryGrace = 10 * time.Millisecond
	// A storm is StormRequests in StormWindow that are more than StormFactor times as many as were not retries: twice retried, as
	// vendors' clients do in an outage, is no storm. Or it is StormAttempts of one request.
	StormWindow   = 10 * time.Second
	StormRequests = 20
	StormFactor   = 3
	StormAttempts = 10
)

// Bounds of a Judge.
const (
	// MaxClients that are told apart, by client and run; the one that was quiet for longest is forgotten.
	MaxClients = 1000
	// MaxEvidence of each finding of a client: the first so many.
	MaxEvidence = 10
	// rememberedTracks of requests, of all clients.
	rememberedTracks = 1 << 16
	maxTruncations   = 32  // of a client that it may still trust
	maxOpen          = 16  // equal requests at one time
	maxClientName    = 256 // bytes
)

// Judge tells from events what each client does wrong. It is safe for concurrent use, and bounded.
//
// Whether a request is a retry is what the client says itself (Event.Attempt), or else: an equal request of the same client and
// run, no later than RetryWindow after the one before it failed.
type Judge struct {
	mu      sync.RWMutex
	clients map[clientRun]*client
	made    uint64
	dropped uint64

	tracks *recent[*track]
	keys   *recent[Hash] // that idempotency keys were used for
	latest latestFindings
}

type clientRun struct{ client, run string }

type client struct {
	clientRun
	id   uint64       // that its tracks and keys are found by; never used again once it is forgotten
	last atomic.Int64 // in ns since 1970

	mu                           sync.Mutex
	first                        time.Time
	requests, distinct, retries  int
	served, failed, cutOff, left int
	retriedCuts                  int
	usage                        Usage
	findings                     map[FindingName]*Finding
	truncations                  []truncation
	bins                         [int(StormWindow / time.Second)]bin
	peak                         int
	peakAt                       time.Time
	worst                        float64
	stormUntil                   time.Time
	latest                       *latestFindings
}

// bin is a second's requests.
type bin struct {
	second          int64
	requests, fresh int
}

// track is a request of a client.
type track struct {
	// open are the occurrences under way.
	open     []uint64
	attempts int // at what is asked for now, of which the last
	last     outcome
	status   int
	ended    time.Time
	// back is when it may come again.
	told    time.Duration
	back    time.Time
	stormed bool
}

type outcome uint8

const (
	untold outcome = iota
	wasServed
	hasFailed
	wasCut
	hasLeft
)

// truncation is an answer that was cut off and not asked for again yet.
type truncation struct {
	request Hash
	ask     uint64
	// said is what came of it, and shorter the same without the last token: that the client may not have got whole.
	said, shorter said
}

type said struct {
	hash uint64
	size int
}

func saidOf(s string) said { return said{textHash(s), len(s)} }

// NewJudge makes a Judge that has seen nothing.
func NewJudge() *Judge {
	return &Judge{clients: make(map[clientRun]*client), tracks: newRecent[*track](rememberedTracks), keys: newRecent[Hash](rememberedTracks)}
}

func (j *Judge) client(q *Request, at time.Time) *client {
	key := clientRun{limit(q.Client, maxClientName), limit(q.Run, maxClientName)}
	j.mu.RLock()
	c := j.clients[key]
	j.mu.RUnlock()
	if c == nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		if c = j.clients[key]; c == nil {
			if len(j.clients) >= MaxClients {
				j.forgetQuietest()
			}
			key = clientRun{strings.Clone(key.client), strings.Clone(key.run)}
			j.made++
			c = &client{clientRun: key, id: mix(j.made), first: at, findings: make(map[FindingName]*Finding), latest: &j.latest}
			j.clients[key] = c
		}
	}
	c.last.Store(at.UnixNano())
	return c
}

func (j *Judge) forgetQuietest() {
	var quietest *client
	for _, c := range j.clients {
		if quietest == nil || c.last.Load() < quietest.last.Load() {
			quietest = c
		}
	}
	delete(j.clients, quietest.clientRun)
	j.dropped++
}

func limit(s string, n int) string { return s[:min(len(s), n)] }

// Observe learns from an event.
func (j *Judge) Observe(e Event) {
	q := e.Exchange.Request
	c := j.client(q, e.At)
	c.mu.Lock()
	defer c.mu.Unlock()
	t := j.tracks.update(mix(c.id^uint64(q.Hash)), func(t *track, found bool) *track {
		if !found {
			t = new(track)
		}
		return t
	})
	switch e.Kind {
	case Arrived:
		j.arrived(c, t, &e)
	case Answered:
		c.answered(t, &e)
	case Ended:
		c.ended(t, &e)
	case Unread:
		c.find(KeptUnread, &e, "did not read its answer for %s", e.Waited.Round(time.Millisecond))
	}
}

func (j *Judge) arrived(c *client, t *track, e *Event) {
	q := e.Exchange.Request
	c.requests++
	over := t.last == hasFailed || t.last == wasCut || t.last == hasLeft
	retry := over && e.At.Sub(t.ended) < RetryWindow
	if e.Attempt > 0 {
		retry = e.Attempt > 1
	}
	c.doubled(t, e)
	if retry {
		c.retries++
		t.attempts++
		c.retried(t, e)
	} else {
		c.distinct++
		t.attempts, t.stormed = 1, false
	}
	if len(t.open) < maxOpen {
		t.open = append(t.open, e.Exchange.Occurrence)
	}
	c.rate(e, !retry)
	if t.attempts >= StormAttempts && !t.stormed {
		t.stormed = true
		c.find(RetryStorm, e, "the same request came %d times", t.attempts)
	}
	c.trusted(e)
	if q.IdempotencyKey == "" {
		return
	}
	j.keys.update(mix(c.id)^textHash(q.IdempotencyKey), func(before Hash, found bool) Hash {
		if found && before != q.Hash {
			c.find(ReusedKey, e, "idempotency key %q was used for request %016x before", limit(q.IdempotencyKey, 64), uint64(before))
		}
		return q.Hash
	})
}

// post is the method of what may cost something. The package that has it by name does I/O.
const post = "POST"

// doubled is about a request that may be carried out, and paid for, twice. To count tokens or to read costs nothing.
func (c *client) doubled(t *track, e *Event) {
	q := e.Exchange.Request
	if q.IdempotencyKey != "" || q.Method != post && q.Method != "" || q.Operation == Count {
		return
	}
	switch {
	case len(t.open) > 0:
		c.find(DoubleSubmission, e, "an equal request was under way, and neither has an idempotency key")
	case t.last == hasLeft && e.At.Sub(t.ended) < RetryWindow:
		c.find(DoubleSubmission, e, "it had left an equal request %s before, which may be carried out all the same, and there is no idempotency key", e.At.Sub(t.ended).Round(time.Millisecond))
	}
}

func (c *client) retried(t *track, e *Event) {
	if t.last == hasFailed && e.At.Add(RetryGrace).Before(t.back) {
		c.find(IgnoredRetryAfter, e, "came back %s after status %d, which told it to wait %s", e.At.Sub(t.back.Add(-t.told)).Round(time.Millisecond), t.status, t.told)
	}
	if t.last == hasFailed && hopeless(t.status) {
		c.find(RetriedHopeless, e, "status %d was answered before; it will not change", t.status)
	}
}

// hopeless is a status that says that the request itself is wrong. 408 (too slow), 409 (a lock), 425 (too early) and 429 are about
// the moment.
func hopeless(status int) bool {
	switch status {
	case 408, 409, 425, 429:
		return false
	}
	return status >= 400 && status < 500
}

// rate looks for storms.
func (c *client) rate(e *Event, fresh bool) {
	second := e.At.Unix()
	b := &c.bins[uint64(second)%uint64(len(c.bins))]
	if b.second != second {
		*b = bin{second: second}
	}
	b.requests++
	if fresh {
		b.fresh++
	}
	if b.requests > c.peak {
		c.peak, c.peakAt = b.requests, time.Unix(second, 0).UTC()
	}
	if fresh { // only retries make it worse
		return
	}
	requests, distinct := 0, 0
	for i := range c.bins {
		if b := &c.bins[i]; b.second > second-int64(len(c.bins)) && b.second <= second {
			requests += b.requests
			distinct += b.fresh
		}
	}
	if requests < StormRequests {
		return
	}
	factor := float64(requests) / float64(max(distinct, 1))
	c.worst = max(c.worst, factor)
	if factor > StormFactor && !e.At.Before(c.stormUntil) {
		c.stormUntil = e.At.Add(StormWindow)
		c.find(RetryStorm, e, "%d requests in %s, of which only %d were new", requests, StormWindow, distinct)
	}
}

// trusted looks whether the last turn of the assistant is an answer that was cut off, and was asked for again nowhere.
func (c *client) trusted(e *Event) {
	if len(c.truncations) == 0 {
		return
	}
	q := e.Exchange.Request
	ask := q.Ask()
	before := len(c.truncations)
	c.truncations = slices.DeleteFunc(c.truncations, func(t truncation) bool { return t.request == q.Hash || t.ask == ask })
	c.retriedCuts += before - len(c.truncations)
	last := ""
	for i := len(q.Turns) - 1; i >= 0 && last == ""; i-- {
		if q.Turns[i].Role == Assistant {
			last = strings.TrimSpace(q.Turns[i].Text)
		}
	}
	if last == "" {
		return
	}
	s := saidOf(last)
	c.truncations = slices.DeleteFunc(c.truncations, func(t truncation) bool {
		if t.said != s && t.shorter != s {
			return false
		}
		c.find(TrustedTruncation, e, "went on with the %d bytes of the answer to request %016x that came before it was cut off, and did not ask again", s.size, uint64(t.request))
		return true
	})
}

func (c *client) answered(t *track, e *Event) {
	if e.Status >= 400 {
		c.failing(t, e)
	}
	// What is not streamed goes out at once, and an equal request after it is another one.
	if e.Status < 400 && !e.Exchange.Stream {
		t.last = untold
	}
	if e.Status >= 400 || !e.Exchange.Stream {
		t.close(e.Exchange.Occurrence)
	}
}

func (c *client) failing(t *track, e *Event) {
	t.last, t.status, t.ended, t.told, t.back = hasFailed, e.Status, e.At, e.RetryAfter, time.Time{}
	if e.RetryAfter > 0 {
		t.back = e.At.Add(e.RetryAfter)
	}
}

func (t *track) close(occurrence uint64) (was bool) {
	i := slices.Index(t.open, occurrence)
	if i >= 0 {
		t.open = slices.Delete(t.open, i, i+1)
	}
	return i >= 0
}

func (c *client) ended(t *track, e *Event) {
	x := e.Exchange
	open := t.close(x.Occurrence)
	switch {
	case e.End == Left:
		c.left++
		t.last, t.status, t.ended = hasLeft, e.Status, e.At
	case e.Status >= 400 || e.Status == 0:
		c.failed++
		// When it was answered it was taken note of already, and what came meanwhile must not be forgotten.
		if open {
			c.failing(t, e)
		}
		return
	case e.End == Truncated:
		c.cutOff++
		if slices.ContainsFunc(t.open, func(o uint64) bool { return o > x.Occurrence }) {
			c.retriedCuts++ // the retry was quicker than the report
			return
		}
		t.last, t.status, t.ended = wasCut, e.Status, e.At
		if x.Answer != nil && x.Answer.said(e.Tokens) != "" {
			if len(c.truncations) >= maxTruncations {
				c.truncations = slices.Delete(c.truncations, 0, 1)
			}
			c.truncations = append(c.truncations, truncation{x.Request.Hash, x.Request.Ask(), saidOf(x.Answer.said(e.Tokens)), saidOf(x.Answer.said(e.Tokens - 1))})
		}
	case e.hollow():
		c.failed++
		t.last, t.status, t.ended, t.back = hasFailed, e.Status, e.At, time.Time{}
	default:
		c.served++
		t.last, t.status, t.ended, t.attempts = wasServed, e.Status, e.At, 0
		u := x.Usage()
		c.usage.Input += u.Input
		c.usage.Cached += u.Cached
		c.usage.CacheWrite += u.CacheWrite
		c.usage.Output += u.Output
		c.usage.Reasoning += u.Reasoning
	}
}

// find counts, and keeps what it was found by.
func (c *client) find(name FindingName, e *Event, format string, args ...any) {
	f := c.findings[name]
	if f == nil {
		f = &Finding{Name: name}
		c.findings[name] = f
	}
	f.Count++
	if len(f.Evidence) < MaxEvidence {
		evidence := Evidence{At: e.At, Request: e.Exchange.Request.Hash, Exchange: e.Exchange.ID, Text: fmt.Sprintf(format, args...)}
		f.Evidence = append(f.Evidence, evidence)
		c.latest.add(LatestFinding{c.client, c.run, name, evidence})
	}
}

// MaxLatest findings are told of all clients.
const MaxLatest = 20

// LatestFinding is one of the first MaxEvidence times that a finding of a client was seen.
type LatestFinding struct {
	Client, Run string
	Finding     FindingName
	Evidence    Evidence
}

// latestFindings are the last MaxLatest, oldest first.
type latestFindings struct {
	mu   sync.Mutex
	list []LatestFinding
}

func (l *latestFindings) add(f LatestFinding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= MaxLatest {
		l.list = slices.Delete(l.list, 0, 1)
	}
	l.list = append(l.list, f)
}

// Latest are the findings of all clients that were made last, newest first, MaxLatest at most.
func (j *Judge) Latest() []LatestFinding {
	j.latest.mu.Lock()
	defer j.latest.mu.Unlock()
	list := slices.Clone(j.latest.list)
	slices.Reverse(list)
	return list
}

// Clients is how many are told apart, by client and run.
func (j *Judge) Clients() int {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return len(j.clients)
}

// Finding is something that a client did wrong.
type Finding struct {
	Name  FindingName
	Count int
	// Sentence says what it did and what it should do instead.
	Sentence string
	// Evidence is the first that was seen of it, MaxEvidence at most.
	Evidence []Evidence
}

// Evidence is where a finding was seen.
type Evidence struct {
	At      time.Time
	Request Hash
	// Exchange is its ID.
	Exchange string
	Text     string
}

func (f *Finding) sentence() string {
	switch f.Name {
	case IgnoredRetryAfter:
		return fmt.Sprintf("It came back %s before the time that Retry-After had told it; wait at least that long.", count(f.Count, "time"))
	case RetriedHopeless:
		return fmt.Sprintf("It sent %s again after a status that says that the request itself is wrong; give such a request up and show its error.", count(f.Count, "request"))
	case RetryStorm:
		return fmt.Sprintf("Its retries multiplied its traffic %s; wait longer after each failure, at random, and limit the share of retries.", count(f.Count, "time"))
	case TrustedTruncation:
		return fmt.Sprintf("It took %s that was cut off for a whole one; take an answer without its end (finish reason, [DONE], message_stop) for a failure.", count(f.Count, "answer"))
	case KeptUnread:
		return fmt.Sprintf("It kept %s open without reading it; read answers to the end, or close them.", count(f.Count, "connection"))
	case DoubleSubmission:
		return fmt.Sprintf("It submitted %s twice without an idempotency key, and may pay for both; send one, or wait for the first.", count(f.Count, "request"))
	case ReusedKey:
		return fmt.Sprintf("It used an idempotency key for another request %s; make a new one for each request and keep it for its retries.", count(f.Count, "time"))
	}
	return ""
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Report is a Judge's verdict on clients, by client and run.
type Report struct {
	Clients []ClientReport
	// Forgotten is how many clients were, for there were more than MaxClients, and how many requests.
	Forgotten, ForgottenRequests uint64
}

// ClientReport is the verdict on one client in one run.
type ClientReport struct {
	Client, Run string
	First, Last time.Time
	// Requests are Distinct and Retries. Equal requests after one that was served are distinct.
	Requests, Distinct, Retries int
	// Amplification is Requests ÷ Distinct, and Worst the highest in a StormWindow with at least StormRequests; 0 without one.
	Amplification, Worst float64
	// Peak is the most requests in one second, and when that was.
	Peak   int
	PeakAt time.Time
	// Served, Failed, Truncated and Left are how requests ended. RetriedTruncated were asked for again, as they should be.
	Served, Failed, Truncated, Left, RetriedTruncated int
	// Usage of what was served.
	Usage Usage
	// Findings in the order of Findings(); none when it did everything right.
	Findings []Finding
}

// Good says that nothing was found.
func (c *ClientReport) Good() bool { return len(c.Findings) == 0 }

// Good says that nothing was found of any client.
func (r *Report) Good() bool {
	return !slices.ContainsFunc(r.Clients, func(c ClientReport) bool { return !c.Good() })
}

// Only is the report on the clients whose name fits a pattern with * for any characters.
func (r Report) Only(client string) Report {
	p := newPattern(client)
	r.Clients = slices.DeleteFunc(slices.Clone(r.Clients), func(c ClientReport) bool { return !p.match(c.Client) })
	return r
}

// Report is the verdict so far on a run's clients, or on all when run is empty, sorted by client and run.
func (j *Judge) Report(run string) Report {
	j.mu.RLock()
	clients := make([]*client, 0, len(j.clients))
	for _, c := range j.clients {
		if run == "" || c.run == run {
			clients = append(clients, c)
		}
	}
	r := Report{Forgotten: j.dropped}
	j.mu.RUnlock()
	r.ForgottenRequests = j.tracks.lost()
	slices.SortFunc(clients, func(a, b *client) int { return cmp.Or(cmp.Compare(a.client, b.client), cmp.Compare(a.run, b.run)) })
	for _, c := range clients {
		r.Clients = append(r.Clients, c.report())
	}
	return r
}

func (c *client) report() ClientReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := ClientReport{Client: c.client, Run: c.run, First: c.first, Last: time.Unix(0, c.last.Load()).UTC(), Requests: c.requests, Distinct: c.distinct,
		Retries: c.retries, Worst: c.worst, Peak: c.peak, PeakAt: c.peakAt, Served: c.served, Failed: c.failed, Truncated: c.cutOff, Left: c.left,
		RetriedTruncated: c.retriedCuts, Usage: c.usage}
	if c.distinct > 0 {
		r.Amplification = float64(c.requests) / float64(c.distinct)
	} else if c.requests > 0 {
		r.Amplification = float64(c.requests) // it says that all of them are retries
	}
	for _, name := range Findings() {
		if f := c.findings[name]; f != nil {
			clone := *f
			clone.Evidence = slices.Clone(f.Evidence)
			clone.Sentence = f.sentence()
			r.Findings = append(r.Findings, clone)
		}
	}
	return r
}

// Forget forgets a run's clients, or all when run is empty: what comes next is judged by itself.
func (j *Judge) Forget(run string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for key := range j.clients {
		if run == "" || key.run == run {
			delete(j.clients, key)
		}
	}
	j.latest.mu.Lock()
	defer j.latest.mu.Unlock()
	j.latest.list = slices.DeleteFunc(j.latest.list, func(f LatestFinding) bool { return run == "" || f.Run == run })
}
