package llmmock

import (
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Event is something that a server saw of an exchange. Judge and Drill learn from them.
//
// For what they conclude to be true, a server reports Answered before the client can see the status, and Ended before it can see
// the end: a client that is quicker than the report would look as if it had not waited for the answer.
type Event struct {
	Kind EventKind
	At   time.Time
	// Exchange is only read, and only during the call.
	Exchange *Exchange
	// Attempt as the client counts it itself, from 1 (x-stainless-retry-count + 1, the attempt of amz-sdk-request); 0 when it does
	// not say. For Arrived.
	Attempt int
	// Status and RetryAfter as they go into the header; Status is 0 when the connection ended before it. For Answered and Ended.
	Status     int
	RetryAfter time.Duration
	// Tokens of the answer that were sent, End is how it ended. For Ended.
	Tokens int
	End    End
	// Waited is for how long the client has not read what is there for it. For Unread.
	Waited time.Duration
}

// EventKind is what was seen.
type EventKind string

// The kinds. Each exchange has one Arrived and one Ended; Answered may be left out, as a whole.
const (
	Arrived  EventKind = "arrived"
	Answered EventKind = "answered" // the header goes out
	Ended    EventKind = "ended"
	Unread   EventKind = "unread" // the client keeps the connection, and does not read
)

// End is how an exchange ended.
type End string

// The ends.
const (
	Complete  End = "complete"
	Truncated End = "truncated" // by a fault, before the end of the answer
	Left      End = "left"      // the client went away before the end
)

// served says that the client got what it asked for.
func (e *Event) served() bool {
	return e.Status > 0 && e.Status < 400 && e.End == Complete && !e.hollow()
}

// hollow is an error in the clothes of an answer: in a body with status 200, or in the middle of a stream.
func (e *Event) hollow() bool {
	k := e.Exchange.Fault.Kind
	return e.Exchange.Failure != nil || k == FailInBody || k == FailMidStream || k == Malformed || k == WrongType
}

// said is the text of an answer up to so many tokens, without space around it.
func (a *Answer) said(tokens int) string {
	tokens = min(tokens-len(a.ThinkingTokens), len(a.Tokens))
	size := 0
	for i := range max(tokens, 0) {
		size += len(a.Tokens[i])
	}
	return strings.TrimSpace(a.Text[:min(size, len(a.Text))])
}

// Ask identifies what was asked whichever vendor it was asked of: equal conversations have equal asks, in all formats. A request
// without a conversation is known by its Hash.
func (q *Request) Ask() uint64 {
	if len(q.Turns) == 0 && len(q.Inputs) == 0 {
		return uint64(q.Hash)
	}
	var d xxhash.Digest
	d.Reset()
	put := func(s string) {
		_, _ = d.WriteString(s)
		_, _ = d.Write([]byte{0})
	}
	put(string(q.Operation))
	for i := range q.Turns {
		t := &q.Turns[i]
		// The system's turns differ in place and number from vendor to vendor, and a switch of vendors may change them.
		if t.Role == System {
			continue
		}
		// A tool's result is a turn of its own here, and a part of the user's there.
		if t.Text != "" {
			put(string(t.Role))
			put(t.Text)
		}
		for _, r := range t.Results {
			put("result")
			put(r.Text)
		}
	}
	for _, in := range q.Inputs {
		put(in)
	}
	return d.Sum64()
}
