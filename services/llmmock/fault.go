package llmmock

import "time"

// Fault is one thing that goes wrong. The zero value is none.
type Fault struct {
	Kind FaultKind
	// Failure for FailStatus and FailInBody, FailMidStream.
	Failure Failure
	// AtToken is after how many tokens of a stream it happens: for the faults of streams.
	AtToken int
	// Wait is for how long: of a stall, between bytes of a slow answer, before a slow accept goes on.
	Wait time.Duration
	// Value is the wrong header's; empty for the usual one.
	Value string
}

// FaultKind names what goes wrong.
type FaultKind string

// The kinds. All but the first seven happen in the middle of a body, streamed or not.
const (
	NoFault          FaultKind = ""
	FailStatus       FaultKind = "status"             // the vendor's error instead of an answer
	FailInBody       FaultKind = "error_in_200"       // status 200, and the vendor's error as the body
	SlowAccept       FaultKind = "slow_accept"        // nothing is read for Wait
	ResetBefore      FaultKind = "reset_before"       // the connection is reset without an answer
	ResetInHeaders   FaultKind = "reset_in_headers"   // in the middle of the header
	ResetAfterHeader FaultKind = "reset_after_header" // before any byte of the body
	WrongType        FaultKind = "wrong_content_type"
	WrongLength      FaultKind = "wrong_content_length" // longer than the body
	SlowBody         FaultKind = "slow_body"            // a byte every Wait
	Stall            FaultKind = "stall"                // silence for Wait after AtToken, then it goes on
	Cut              FaultKind = "cut"                  // the answer ends between two events, in the order that HTTP has and without the end that a stream has
	CutMidEvent      FaultKind = "cut_mid_event"        // in the middle of an event
	ResetMidStream   FaultKind = "reset_mid_stream"     // a TCP reset between two events
	Malformed        FaultKind = "malformed"            // the event's JSON is broken
	Duplicate        FaultKind = "duplicate"            // an event comes twice
	Reorder          FaultKind = "reorder"              // an event comes before the one it follows
	FailMidStream    FaultKind = "error_mid_stream"     // the vendor's error as an event, and the end
)

// FaultRule commits a fault on some of the requests that match.
type FaultRule struct {
	Name string
	Match
	When When
	Fault
}

// When says which of the matching requests. They are counted as Per says; the first is number 1.
type When struct {
	// First so many of them.
	First int
	// Every so-many-th of them.
	Every int
	// Probability in 0 … 1, drawn anew for every occurrence of a request, and the same in every run.
	Probability float64
	// Always is every one of them.
	Always bool
	// Per is what is counted apart for First and Every: each key's requests, each equal request's, or all together.
	Per Per
}

// Per is what requests are counted by.
type Per string

// What is counted apart. PerRequest makes "fail the first two, then succeed" hold for every request by itself, whatever the order
// they come in; it is the default.
const (
	PerRequest  Per = "request"
	PerClient   Per = "client"
	PerKey      Per = "key"
	PerScenario Per = "scenario"
)

// Phase is what the whole provider, or a part of it, goes through.
type Phase struct {
	Name string
	// Match chooses whom it concerns: vendors, models, keys. Regions too; empty for everybody.
	Match
	Regions []string
	// At is when it begins, and For how long it lasts; 0 for until it is ended.
	At, For time.Duration
	// Every repeats it at that distance; 0 for once.
	Every time.Duration
	Kind  PhaseKind
	// Share of the requests that are hit, in 0 … 1; 0 for all of them. In a brownout it is the share that fails, and 0 for none.
	Share float64
	// Failure of those that are hit; the kind's usual one when its Status is 0.
	Failure Failure
	// Slow multiplies latency in a brownout; 0 for 1.
	Slow float64
}

// PhaseKind names a phase.
type PhaseKind string

// The kinds.
const (
	Outage   PhaseKind = "outage"   // requests fail: 503, or 529
	Brownout PhaseKind = "brownout" // slower by Slow, and Share of them fail
	Quota    PhaseKind = "quota"    // 429 until it ends
	Dark     PhaseKind = "dark"     // connections are reset
)
