// Package problem is the one error type of Edgehold's domains: a kind for programs and a sentence for the operator who
// reads it at night. It knows no RPC; libs/service maps kinds to Connect codes in one place. Start at Error.
package problem

import (
	"errors"
	"fmt"
)

// Kind is what a program decides on.
type Kind int

// The kinds. The zero Kind is Internal, so that a forgotten kind never looks harmless.
const (
	// Internal is a defect or an unexpected answer; its cause is logged and never sent.
	Internal Kind = iota
	// Invalid is input that can never work.
	Invalid
	// NotFound is a name that nothing has.
	NotFound
	// AlreadyExists is a second start, or an idempotency key used with another payload.
	AlreadyExists
	// FailedPrecondition is a request that is right and cannot be done in this state.
	FailedPrecondition
	// Aborted lost a race with another writer; asking again may work.
	Aborted
	// Unauthenticated has no valid credentials.
	Unauthenticated
	// PermissionDenied has credentials whose role does not suffice.
	PermissionDenied
	// ResourceExhausted is over a limit of size, rate or count.
	ResourceExhausted
	// Unavailable cannot be reached now.
	Unavailable
	// DeadlineExceeded did not finish in time; what was begun goes on.
	DeadlineExceeded
	// Canceled was given up by the caller; what was begun may go on.
	Canceled
	// Unimplemented is a request that this version of the service does not know.
	Unimplemented
)

// RetryAfter is the key in Meta for how long to wait before asking again, as a Go duration ("1.5s"). It is also sent as
// google.rpc.RetryInfo.
const RetryAfter = "retry_after"

var names = [...]string{"internal", "invalid_argument", "not_found", "already_exists", "failed_precondition", "aborted",
	"unauthenticated", "permission_denied", "resource_exhausted", "unavailable", "deadline_exceeded", "canceled", "unimplemented"}

// String is the name of the Connect code that the kind is sent as.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(names) {
		return names[Internal]
	}
	return names[k]
}

// ParseKind is the inverse of String. Unknown names are Internal.
func ParseKind(name string) Kind {
	for k, n := range names {
		if n == name {
			return Kind(k)
		}
	}
	return Internal
}

// Error says what is wrong and what to do.
type Error struct {
	Kind Kind
	// Field is the path of the input that is wrong, in the form of the request or the file ("scope.pops[2]"), or empty.
	Field string
	// Sentence names the value, what is allowed and what to do. It is sent to the caller.
	Sentence string
	// Meta is sent to programs beside the sentence, for example the id of the operation that is in the way.
	Meta map[string]string
	// Cause is logged and never sent.
	Cause error
}

// Error is the field and the sentence.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Sentence
	}
	return e.Field + ": " + e.Sentence
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// With returns a copy with one more entry in Meta.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Meta = make(map[string]string, len(e.Meta)+1)
	for k, v := range e.Meta {
		c.Meta[k] = v
	}
	c.Meta[key] = value
	return &c
}

// New returns an error of the kind. A %w in the format becomes its cause, and the text of that a part of the sentence.
func New(kind Kind, field, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Field: field, Sentence: err.Error(), Cause: errors.Unwrap(err)}
}

// Invalidf is New with Invalid.
func Invalidf(field, format string, args ...any) *Error { return New(Invalid, field, format, args...) }

// NotFoundf is New with NotFound.
func NotFoundf(field, format string, args ...any) *Error {
	return New(NotFound, field, format, args...)
}

// Preconditionf is New with FailedPrecondition.
func Preconditionf(field, format string, args ...any) *Error {
	return New(FailedPrecondition, field, format, args...)
}

// Unavailablef is New with Unavailable.
func Unavailablef(format string, args ...any) *Error { return New(Unavailable, "", format, args...) }

// KindOf returns the kind of the first Error in err's chain, and Internal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
