// Package call holds what follows a call through every service it reaches: the request id and the operation id, in the
// context and in HTTP headers. Start at With.
package call

import (
	"context"
	"crypto/rand"
	"net/http"
)

// The headers that carry an ID between processes.
const (
	RequestHeader   = "X-Request-Id"
	OperationHeader = "Edgehold-Operation"
)

// MaxIDLength is the longest id that is taken from a header, in bytes.
const MaxIDLength = 128

// ID names one call. Both parts may be empty.
type ID struct {
	// Request is one per call of a person or a program, and the same in every service that works for it.
	Request string
	// Operation is the id of the long operation that the call is a step of.
	Operation string
}

type key struct{}

// With returns a context that carries id.
func With(ctx context.Context, id ID) context.Context { return context.WithValue(ctx, key{}, id) }

// From returns what With put into ctx, or the zero ID.
func From(ctx context.Context) ID {
	id, _ := ctx.Value(key{}).(ID)
	return id
}

// WithOperation returns a context whose ID has the operation, and the request of ctx.
func WithOperation(ctx context.Context, operation string) context.Context {
	id := From(ctx)
	id.Operation = operation
	return With(ctx, id)
}

// New returns an ID with a fresh random request of 26 characters.
func New() ID { return ID{Request: rand.Text()} }

// Read takes the ID from headers. Ids that are too long, or not made of letters, digits and "-_.:/", are left out: they
// go into logs.
func Read(h http.Header) ID {
	return ID{Request: clean(h.Get(RequestHeader)), Operation: clean(h.Get(OperationHeader))}
}

// Write sets the headers of the parts that are not empty.
func (id ID) Write(h http.Header) {
	if id.Request != "" {
		h.Set(RequestHeader, id.Request)
	}
	if id.Operation != "" {
		h.Set(OperationHeader, id.Operation)
	}
}

func clean(s string) string {
	if len(s) > MaxIDLength {
		return ""
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == ':', c == '/':
		default:
			return ""
		}
	}
	return s
}
