package load

import "time"

// Reason is why a request failed.
type Reason string

// The reasons. All but Overload are what a client of the target would have seen.
const (
	// Refused: nobody listened.
	Refused Reason = "refused"
	// Unreachable: no route to the address.
	Unreachable Reason = "unreachable"
	// Reset: the connection was reset, while dialling or later.
	Reset Reason = "reset"
	// Timeout: no whole answer in time, counted from when the request was to be sent; for a stream, silent for too long.
	Timeout Reason = "timeout"
	// EOF: the connection was closed after the request was written and before the first byte of the answer.
	EOF Reason = "eof"
	// CutShort: the answer began and did not end; a stream that closed without its last line.
	CutShort Reason = "cut_short"
	// Status5xx: an answer of 500 to 599 without the mark of an injected fault.
	Status5xx Reason = "status_5xx"
	// StatusOther: any other status outside of 200 to 299, without that mark.
	StatusOther Reason = "status_other"
	// GoAway: an HTTP/2 stream was sent three times and processed by nobody.
	GoAway Reason = "goaway"
	// Malformed: not HTTP, or over the limits of this client.
	Malformed Reason = "malformed"
	// Overload: the generator did not send it: too many in flight, no port or no file descriptor left. Its own fault, or its machine's.
	Overload Reason = "overload"
	// Other: see the detail.
	Other Reason = "other"
)

// Kind is the kind of connection that a request took.
type Kind string

// The kinds.
const (
	KindKept     Kind = "kept"      // from the pool, HTTP/1.1
	KindNew      Kind = "new"       // opened for this request, HTTP/1.1
	KindH2       Kind = "h2"        // kept, HTTP/2
	KindStream   Kind = "stream"    // a long stream, HTTP/1.1
	KindH2Stream Kind = "h2_stream" // a long stream, HTTP/2
)

func (k Kind) isStream() bool { return k == KindStream || k == KindH2Stream }

// Failure is one failed request, whole.
type Failure struct {
	Pop    string `json:"pop"`
	Kind   Kind   `json:"kind"`
	Reason Reason `json:"reason"`
	// Detail is the system's or the parser's text.
	Detail string `json:"detail,omitempty"`
	// Status, Colour and Version as far as the answer came.
	Status  int    `json:"status,omitempty"`
	Colour  string `json:"colour,omitempty"`
	Version string `json:"version,omitempty"`
	// Intended is when it was to be sent, Sent when it was (zero: never), Failed when it was given up.
	Intended time.Time `json:"intended"`
	Sent     time.Time `json:"sent,omitzero"`
	Failed   time.Time `json:"failed"`
	// Opened is when its connection was; zero: never.
	Opened time.Time `json:"opened,omitzero"`
	// Requests that the connection had answered before.
	Served int64 `json:"served"`
}

// Step says that the last answer on any connection opened at Opened or later came at Last, up to the next Step.
type Step struct {
	Opened time.Time `json:"opened"`
	Last   time.Time `json:"last"`
}

// Colour is what one colour of one target answered.
type Colour struct {
	// Name is the header's value, "none" where there was none.
	Name string `json:"name"`
	// Versions seen, at most 16.
	Versions []string `json:"versions"`
	// Good answers, and Bad ones, which carry an injected fault.
	Good int64 `json:"good"`
	Bad  int64 `json:"bad"`
	// First and Last answer, of either kind; a stream answers when its header comes.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Steps answer LastOpenedAfter exactly, for all answers and for the bad ones; Opened ascends and Last descends.
	Steps    []Step `json:"steps"`
	BadSteps []Step `json:"bad_steps"`
	// GoodOver and BadOver are the same per bucket, by the time of the answer's end. They may be shorter than the run.
	GoodOver []uint32 `json:"good_over"`
	BadOver  []uint32 `json:"bad_over"`
}

// LastOpenedAfter returns the last answer of this colour on a connection that was opened at t or later; false: there was none.
func (c *Colour) LastOpenedAfter(t time.Time) (time.Time, bool) { return lastAfter(c.Steps, t) }

// LastBadOpenedAfter is LastOpenedAfter for answers that carry an injected fault.
func (c *Colour) LastBadOpenedAfter(t time.Time) (time.Time, bool) { return lastAfter(c.BadSteps, t) }

func lastAfter(steps []Step, t time.Time) (time.Time, bool) {
	for _, s := range steps {
		if !s.Opened.Before(t) {
			return s.Last, true
		}
	}
	return time.Time{}, false
}

// TargetResult is one target's account.
type TargetResult struct {
	Target
	// Requests that ended, streams included: Good + Bad + Failed.
	Requests       int64            `json:"requests"`
	Good           int64            `json:"good"`
	Bad            int64            `json:"bad"`
	Failed         int64            `json:"failed"`
	FailedByReason map[Reason]int64 `json:"failed_by_reason"`
	// Colours in the order in which they were first seen.
	Colours []Colour `json:"colours"`
	// FailedOver is per bucket, by the time at which the request was given up.
	FailedOver []uint32 `json:"failed_over"`
	// LastOpened is when the last connection was opened.
	LastOpened time.Time `json:"last_opened"`
}

// Colour returns the colour's account; nil if it never answered.
func (t *TargetResult) Colour(name string) *Colour {
	for i := range t.Colours {
		if t.Colours[i].Name == name {
			return &t.Colours[i]
		}
	}
	return nil
}

// Streams counts the long streams.
type Streams struct {
	// Opened got an answer.
	Opened int64 `json:"opened"`
	// Ended had their last line.
	Ended int64 `json:"ended"`
	// Failed never got an answer, were cut short, or fell silent.
	Failed int64 `json:"failed"`
	// OpenAtStop were closed by the generator and count as good.
	OpenAtStop int64 `json:"open_at_stop"`
}

// Result is the account of a whole run.
type Result struct {
	Config  Config    `json:"config"`
	Started time.Time `json:"started"`
	Stopped time.Time `json:"stopped"`
	// Requests that ended, streams included: Good + Bad + Failed.
	Requests       int64            `json:"requests"`
	Good           int64            `json:"good"`
	Bad            int64            `json:"bad"`
	Failed         int64            `json:"failed"`
	FailedByReason map[Reason]int64 `json:"failed_by_reason"`
	// ByKind counts the requests that ended by their kind of connection.
	ByKind map[Kind]int64 `json:"by_kind"`
	// Failures, the first MaxFailures of them, and how many more there were.
	Failures     []Failure `json:"failures"`
	FailuresLeft int64     `json:"failures_left"`
	// Resent HTTP/2 streams, which the server had said it did not process.
	Resent int64 `json:"resent"`
	// ConnectionsOpened counts all, ClosedAtRest those of the pool that the server closed while nothing was asked on them.
	ConnectionsOpened int64   `json:"connections_opened"`
	ClosedAtRest      int64   `json:"closed_at_rest"`
	Streams           Streams `json:"streams"`
	// Bucket is the width of every "over" series, Slice that of Latencies, in nanoseconds. Series begin at Started.
	Bucket time.Duration `json:"bucket_ns"`
	Slice  time.Duration `json:"slice_ns"`
	// Latencies of all requests but streams, failed ones with the time until they were given up, from when they were to be sent,
	// in the slice of that time.
	Latencies []Histogram `json:"latencies"`
	// Lateness is by how much the generator was late to send, which the latencies contain. High values mean a starved machine.
	Lateness Histogram      `json:"lateness"`
	Targets  []TargetResult `json:"targets"`
}

// Latency is the histogram of the requests that were to be sent in [from, to), to the width of a slice.
func (r *Result) Latency(from, to time.Time) Histogram {
	var h Histogram
	for i := range r.Latencies {
		at := r.Started.Add(time.Duration(i) * r.Slice)
		if !at.Before(from) && at.Before(to) {
			h.Add(&r.Latencies[i])
		}
	}
	return h
}

// Snapshot is where a run stands.
type Snapshot struct {
	At             time.Time        `json:"at"`
	Elapsed        time.Duration    `json:"elapsed_ns"`
	Requests       int64            `json:"requests"`
	Good           int64            `json:"good"`
	Bad            int64            `json:"bad"`
	Failed         int64            `json:"failed"`
	FailedByReason map[Reason]int64 `json:"failed_by_reason"`
	InFlight       int64            `json:"in_flight"`
	OpenStreams    int64            `json:"open_streams"`
	Targets        []TargetSnapshot `json:"targets"`
}

// TargetSnapshot is where one target stands.
type TargetSnapshot struct {
	Pop      string `json:"pop"`
	Requests int64  `json:"requests"`
	Good     int64  `json:"good"`
	Bad      int64  `json:"bad"`
	Failed   int64  `json:"failed"`
	// Recent is the last whole second.
	Recent Recent `json:"recent"`
}

// Recent counts the answers of a second.
type Recent struct {
	Good   int64 `json:"good"`
	Bad    int64 `json:"bad"`
	Failed int64 `json:"failed"`
	// Colours counts the answers of each colour, good and bad.
	Colours map[string]int64 `json:"colours"`
}
