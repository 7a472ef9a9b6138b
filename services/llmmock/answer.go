package llmmock

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Finish is why an answer ended.
type Finish string

// The ends.
const (
	Stopped   Finish = "stop"     // it was complete
	AtLength  Finish = "length"   // Request.MaxTokens was reached
	AtStop    Finish = "sequence" // one of Request.Stop came up; it is in Answer.StoppedAt
	ToolCalls Finish = "tools"    // it wants tools called
	Refused   Finish = "refused"
	Filtered  Finish = "filtered" // by the provider's content filter
)

// Answer is what the model says, in no vendor's format. Tokens are the pieces of Text in which it is streamed; joined they are
// Text.
type Answer struct {
	Text     string
	Tokens   []string
	Thinking string
	// ThinkingTokens are the pieces of Thinking.
	ThinkingTokens []string
	Calls          []Call
	Finish         Finish
	StoppedAt      string
	Usage          Usage
	// Embeddings for Embed, one for each input.
	Embeddings [][]float32
	// Recorded is sent as it is, in the place of what a Format writes; nil for none.
	Recorded *Recording
}

// Usage in tokens. Input includes Cached and CacheWrite; Output includes Reasoning.
type Usage struct {
	Input, Cached, CacheWrite int
	Output, Reasoning         int
}

// Total is Input and Output.
func (u Usage) Total() int { return u.Input + u.Output }

// Exchange is everything that will happen to one request.
type Exchange struct {
	*Request
	Moment
	// ID is unique to the moment: 32 characters of [0-9a-f], of which vendors' ids are made.
	ID string
	// Created is the time that the answer says it was made at: of the scenario's epoch and not of the clock, for the same bytes
	// in every run.
	Created time.Time
	// Answer to what was asked; nil for Other, and when Failure is set.
	Answer *Answer
	// Choices beyond the first, when the request wants more than one.
	More []*Answer
	// Failure that is answered instead, in the vendor's own form.
	Failure *Failure
	// Faults that the transport shall commit on the way. None is the zero value.
	Fault Fault
	// Schedule of the pieces of the answer.
	Schedule Schedule
	// Limits for the vendor's headers; nil when the scenario has none.
	Limits *Limits
	// Rule is the name of the fault rule that is committed, or its kind when it has none; Phase is that of the timeline's phase
	// that fails or slows the request. Empty for none.
	Rule, Phase string

	running  *running // that decided
	account  *account // that tokens were reserved in; nil for none
	reserved int
	ended    uint32 // 1 once Done
}

// Schedule says when the pieces of an answer are due, counted from the request's arrival.
type Schedule struct {
	// Header is when the header of a recorded answer is due. All others send it with their first piece.
	Header time.Duration
	// First is when the first token is due, or the whole of an answer that is not streamed less its tokens.
	First time.Duration
	// Gaps between a token and the one before it; the last one goes on for all that follow.
	Gaps []time.Duration
}

// Whole is when an answer of n tokens is complete.
func (s *Schedule) Whole(n int) time.Duration {
	d := s.First
	for i := 1; i < n; i++ {
		d += s.Gap(i)
	}
	return d
}

// Describe says when the first and the last of n tokens are due, and has a hash of when each of them is: equal schedules, and only these, are
// described alike.
func (s *Schedule) Describe(n int) string {
	var d xxhash.Digest
	d.Reset()
	at := s.First
	for i := range n {
		if i > 0 {
			at += s.Gap(i)
		}
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(at))
		_, _ = d.Write(b[:])
	}
	return fmt.Sprintf("first=%s; last=%s; tokens=%d; hash=%016x", s.First, at, n, d.Sum64())
}

// Gap between token i, from 1, and the one before it.
func (s *Schedule) Gap(i int) time.Duration {
	if len(s.Gaps) == 0 {
		return 0
	}
	return s.Gaps[min(i-1, len(s.Gaps)-1)]
}

// Failure is an answer that is an error, in no vendor's format.
type Failure struct {
	// Status of HTTP.
	Status int
	// Reason in the words of all vendors: what kind of error it is.
	Reason Reason
	// Message for the developer at the other end; empty for the vendor's usual one.
	Message string
	// Field of the request that is at fault, such as messages[0].content; empty for none.
	Field string
	// Code of the vendor, such as context_length_exceeded; empty for the usual one.
	Code string
	// RetryAfter for the header; 0 for none.
	RetryAfter time.Duration
	// Spent is the limit that was reached, for the vendor's sentence about it; nil for none.
	Spent *Spent
}

// Spent is a limit that a request did not fit into.
type Spent struct {
	// Tokens, or else requests.
	Tokens bool
	// PerMinute is the limit, Remaining what there was of it, Requested what was asked for. Size is the most there can be at once: a
	// request beyond that never fits.
	PerMinute, Size, Remaining, Requested int
}

// Never says that the request will not fit later either.
func (s *Spent) Never() bool { return s.Requested > s.Size }

// Reason is a kind of failure.
type Reason string

// The reasons, and the status that goes with each unless another is set.
const (
	BadRequest      Reason = "bad_request"        // 400
	Unauthenticated Reason = "unauthenticated"    // 401
	NoCredit        Reason = "billing"            // 402 or 429, as the vendor has it
	Forbidden       Reason = "forbidden"          // 403
	NotFound        Reason = "not_found"          // 404
	Conflict        Reason = "conflict"           // 409
	TooLarge        Reason = "request_too_large"  // 413
	Unprocessable   Reason = "unprocessable"      // 422
	RateLimited     Reason = "rate_limited"       // 429
	QuotaExhausted  Reason = "quota_exhausted"    // 429
	Broken          Reason = "internal"           // 500
	Unavailable     Reason = "unavailable"        // 503
	TimedOut        Reason = "timeout"            // 504
	Overloaded      Reason = "overloaded"         // 529 at Anthropic, 503 elsewhere
	MethodUnknown   Reason = "method_not_allowed" // 405
)

// Chunk is a piece of a streamed answer as it goes on the wire, flushed on its own.
type Chunk struct {
	// Data is valid until the next chunk is asked for.
	Data []byte
	// Token that it carries the last part of, from 0: it is due when that is. What comes before or after all tokens has the
	// first one's or the last one's number.
	Token int
}

// Limits are the vendor's rate limits for a key and model as they stand after this request.
type Limits struct {
	Requests, Tokens Limit
}

// Limit is one bucket.
type Limit struct {
	Limit, Remaining int
	// Reset is how long until it is full again.
	Reset time.Duration
}
