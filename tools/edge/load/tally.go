package load

import (
	"slices"
	"sync"
	"time"
)

// call is one request, from when it was to be sent. Times are since the start of the run, so that a clock that is set while it
// lasts moves nothing.
type call struct {
	kind     Kind
	intended time.Duration
	sent     time.Duration // 0: never
	opened   time.Duration // of its connection; 0: never
	served   int64         // by that connection before
	resent   int
}

// answer is what the head of an answer said.
type answer struct {
	status          int
	version, colour string
	fault           bool
}

const (
	// maxColours and maxVersions bound what a target can make us remember.
	maxColours  = 8
	maxVersions = 16
	noColour    = "none"
	moreColours = "other"
)

// tally is the account of one target.
type tally struct {
	mu       sync.Mutex
	width    time.Duration
	colours  []*colourTally
	byReason map[Reason]int64
	byKind   map[Kind]int64
	good     int64
	bad      int64
	failed   int64
	resent   int64
	atRest   int64
	streams  Streams
	conns    int64
	opened   time.Duration
	// failedOver is a series, see colourTally.
	failedOver []uint32
}

type colourTally struct {
	name        string
	versions    []string
	good, bad   int64
	first, last time.Duration
	all, faulty steps
	goodOver    []uint32
	badOver     []uint32
}

// steps answers "when did the last answer come on a connection that was opened at t or later" for every t, exactly and in the
// space of the connections that are open at once: an answer makes every earlier-opened entry pointless, because it is later
// than theirs and its connection is younger. What is left descends in opened and ascends in last.
type steps []step

type step struct{ opened, last time.Duration }

func (s steps) add(opened, last time.Duration) steps {
	if n := len(s); n > 0 {
		last = max(last, s[n-1].last) // two readers may come here in the other order than their clocks were read
	}
	for len(s) > 0 && s[len(s)-1].opened <= opened {
		s = s[:len(s)-1]
	}
	return append(s, step{opened, last})
}

func newTally() *tally {
	return &tally{width: bucketWidth, byReason: map[Reason]int64{}, byKind: map[Kind]int64{}}
}

// begun notes that a stream's answer began: that is when a colour is seen to answer. Requests are noted by done.
func (t *tally) begun(c *call, a *answer, at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.note(c, a, at)
	t.streams.Opened++
}

func (t *tally) stream(change func(*Streams)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.streams)
}

func (t *tally) note(c *call, a *answer, at time.Duration) *colourTally {
	k := t.colour(a)
	k.last = max(k.last, at)
	if k.first == 0 {
		k.first = at
	}
	k.all = k.all.add(c.opened, at)
	if a.fault {
		k.faulty = k.faulty.add(c.opened, at)
	}
	return k
}

func (t *tally) colour(a *answer) *colourTally {
	name := a.colour
	if name == "" {
		name = noColour
	}
	var k *colourTally
	for _, have := range t.colours {
		if have.name == name {
			k = have
			break
		}
	}
	if k == nil {
		if len(t.colours) >= maxColours-1 {
			name = moreColours
			if last := t.colours[len(t.colours)-1]; last.name == name {
				k = last
			}
		}
		if k == nil {
			k = &colourTally{name: name}
			t.colours = append(t.colours, k)
		}
	}
	if a.version != "" && len(k.versions) < maxVersions && !slices.Contains(k.versions, a.version) {
		k.versions = append(k.versions, a.version)
	}
	return k
}

// done closes the account of a call whose answer came whole.
func (t *tally) done(c *call, a *answer, at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var k *colourTally
	if c.kind.isStream() {
		k = t.colour(a) // its answer was noted when it began
	} else {
		k = t.note(c, a, at)
	}
	t.byKind[c.kind]++
	if a.fault {
		k.bad++
		t.bad++
		t.count(&k.badOver, at)
	} else {
		k.good++
		t.good++
		t.count(&k.goodOver, at)
	}
}

func (t *tally) fail(c *call, reason Reason, at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.kind.isStream() {
		t.streams.Failed++
	}
	t.byKind[c.kind]++
	t.byReason[reason]++
	t.failed++
	t.count(&t.failedOver, at)
}

// count adds one to a series and folds all of them when the run got too long for their width.
func (t *tally) count(series *[]uint32, at time.Duration) {
	for int(at/t.width) >= maxBuckets {
		t.fold()
	}
	i := int(at / t.width)
	if n := i + 1 - len(*series); n > 0 {
		*series = slices.Grow(*series, n)[:i+1]
	}
	(*series)[i]++
}

func (t *tally) fold() {
	fold(&t.failedOver)
	for _, k := range t.colours {
		fold(&k.goodOver)
		fold(&k.badOver)
	}
	t.width *= 2
}

func fold(series *[]uint32) {
	s := *series
	half := (len(s) + 1) / 2
	for i := range half {
		n := s[2*i]
		if 2*i+1 < len(s) {
			n += s[2*i+1]
		}
		s[i] = n
	}
	clear(s[half:])
	*series = s[:half]
}

// recent counts the last whole second.
func (t *tally) recent(now time.Duration) Recent {
	r := Recent{Colours: map[string]int64{}}
	n := max(1, int(time.Second/t.width))
	last := int(now/t.width) - 1
	sum := func(series []uint32) (total int64) {
		for i := max(0, last-n+1); i <= last && i < len(series); i++ {
			total += int64(series[i])
		}
		return total
	}
	for _, k := range t.colours {
		good, bad := sum(k.goodOver), sum(k.badOver)
		r.Good += good
		r.Bad += bad
		if good+bad > 0 {
			r.Colours[k.name] = good + bad
		}
	}
	r.Failed = sum(t.failedOver)
	return r
}
