package record

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

// MaxLoaded is how many bytes of files a Player holds.
const MaxLoaded = 1 << 30

// Player gives the answers of recordings again. Its Answer is the say.Recordings of a mock. It is safe for concurrent use.
//
// A request is given the answer of the recorded one that asked the same: method, path, query and body, of JSON its values whatever their
// order. Where that was asked several times, the first occurrence is given the first answer and so on, and what comes after the last one
// is given the last. Secrets are taken out of requests as they were out of the recording before they are compared.
type Player struct {
	loading sync.Mutex
	files   atomic.Pointer[map[string]*tapes]
}

// tapes are a file's exchanges by what was asked.
type tapes struct {
	name     string
	size     int64
	modified time.Time
	redactor *Redactor
	by       map[uint64][]*tape
	order    []*tape
}

// tape is the answers to one request.
type tape struct {
	asked   asked
	number  int // of the first one
	answers []*llmmock.Answer
}

// Names of the recordings that a scenario plays.
func Names(s *llmmock.Scenario) (names []string) {
	for i := range s.Answers {
		if name := s.Answers[i].Play; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Load reads the files of these names that were not read yet, or have changed since; the others stay. Errors are those of the function
// Load, and ResourceExhausted when there are too many; then nothing is changed.
func (p *Player) Load(names []string) error {
	p.loading.Lock()
	defer p.loading.Unlock()
	next, total := map[string]*tapes{}, int64(0)
	if before := p.files.Load(); before != nil {
		for name, t := range *before {
			next[name] = t
		}
	}
	changed := false
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return problem.NotFoundf("play", "the recording %s cannot be read: %w", name, err)
		}
		if t := next[name]; t != nil && t.size == info.Size() && t.modified.Equal(info.ModTime()) {
			continue
		}
		f, err := Load(name)
		if err != nil {
			return err
		}
		t, err := newTapes(name, f)
		if err != nil {
			return err
		}
		t.size, t.modified = info.Size(), info.ModTime()
		next[name], changed = t, true
	}
	for _, t := range next {
		total += t.size
	}
	if total > MaxLoaded {
		return problem.New(problem.ResourceExhausted, "play", "the recordings have %d bytes together; at most %d are allowed", total, MaxLoaded)
	}
	if changed {
		p.files.Store(&next)
	}
	return nil
}

func newTapes(name string, f *File) (*tapes, error) {
	r, err := NewRedactor(f.Head.Redacted, f.Head.Patterns)
	if err != nil {
		return nil, problem.Invalidf("play", "the recording %s: %w", name, err)
	}
	t := &tapes{name: name, redactor: r, by: map[uint64][]*tape{}}
	// They are in the file in the order in which they ended.
	exchanges := slices.SortedStableFunc(slices.Values(f.Exchanges), func(a, b *Exchange) int { return a.At.Compare(b.At) })
	for _, x := range exchanges {
		q := &x.Request
		a := askedOf(q.Method, q.Path, q.Query, first(q.Header["Content-Type"]), q.Body)
		one := t.find(&a)
		if one == nil {
			one = &tape{asked: a, number: x.Number}
			key := a.key()
			t.by[key] = append(t.by[key], one)
			t.order = append(t.order, one)
		}
		one.answers = append(one.answers, &llmmock.Answer{Recorded: &x.Answer, Usage: usageOf(&x.Answer), Finish: llmmock.Stopped})
	}
	return t, nil
}

func (t *tapes) find(a *asked) *tape {
	for _, one := range t.by[a.key()] {
		if one.asked.equal(a) {
			return one
		}
	}
	return nil
}

// Answer is that of the recording of this name to a request, which is the say.Recordings that it implements. When there is none the
// failure has the code llmmock.NotRecorded and says what is nearest to it.
func (p *Player) Answer(name string, q *llmmock.Request, m llmmock.Moment) (*llmmock.Answer, *llmmock.Failure) {
	var t *tapes
	if files := p.files.Load(); files != nil {
		t = (*files)[name]
	}
	if t == nil {
		return nil, &llmmock.Failure{Status: 500, Reason: llmmock.Broken,
			Message: fmt.Sprintf("The scenario %s plays the recording %s, which was not read: only files of scenarios in files are.", m.Scenario, name)}
	}
	x := Exchange{Request: Request{Method: q.Method, Path: q.Path, Query: q.Query, Body: slices.Clone(q.Body)}}
	t.redactor.Exchange(&x, nil)
	a := askedOf(x.Request.Method, x.Request.Path, x.Request.Query, q.ContentType, x.Request.Body)
	one := t.find(&a)
	if one == nil {
		return nil, &llmmock.Failure{Status: 404, Reason: llmmock.NotFound, Code: llmmock.NotRecorded, Message: t.missing(&a)}
	}
	return one.answers[min(m.Occurrence, uint64(len(one.answers)-1))], nil
}

// mostCompared is how many recorded requests are looked at for the nearest.
const mostCompared = 100

// missing says what there is in the place of a.
func (t *tapes) missing(a *asked) string {
	var nearest *tape
	least, compared := 0, 0
	var where string
	for _, one := range t.order {
		if one.asked.method != a.method || one.asked.path != a.path {
			continue
		}
		if compared++; compared > mostCompared {
			break
		}
		if at, n := a.differences(&one.asked); nearest == nil || n < least {
			nearest, where, least = one, at, n
		}
	}
	if nearest != nil {
		return fmt.Sprintf("No recording for this %s %s in %s; nearest is exchange %d, which differs in %s.", a.method, a.path, t.name, nearest.number, where)
	}
	var operations []string
	for _, one := range t.order {
		if op := one.asked.method + " " + one.asked.path; !slices.Contains(operations, op) {
			operations = append(operations, op)
		}
		if len(operations) == 10 {
			operations = append(operations, "…")
			break
		}
	}
	return fmt.Sprintf("No recording for %s %s in %s; it has %s.", a.method, a.path, t.name, cmp.Or(strings.Join(operations, ", "), "nothing"))
}
