// Package wire carries a problem.Error over Connect, gRPC and gRPC-Web and back. It is the only place where kinds become
// codes and codes become kinds. Start at Encode and Decode.
package wire

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/problem"
)

// Domain is the domain of the google.rpc.ErrorInfo that carries Meta.
const Domain = "edgehold.internal"

// codes has one code for each kind, in the order of the kinds.
var codes = [...]connect.Code{
	problem.Internal:           connect.CodeInternal,
	problem.Invalid:            connect.CodeInvalidArgument,
	problem.NotFound:           connect.CodeNotFound,
	problem.AlreadyExists:      connect.CodeAlreadyExists,
	problem.FailedPrecondition: connect.CodeFailedPrecondition,
	problem.Aborted:            connect.CodeAborted,
	problem.Unauthenticated:    connect.CodeUnauthenticated,
	problem.PermissionDenied:   connect.CodePermissionDenied,
	problem.ResourceExhausted:  connect.CodeResourceExhausted,
	problem.Unavailable:        connect.CodeUnavailable,
	problem.DeadlineExceeded:   connect.CodeDeadlineExceeded,
	problem.Canceled:           connect.CodeCanceled,
	problem.Unimplemented:      connect.CodeUnimplemented,
}

// Code returns the Connect code of a kind.
func Code(kind problem.Kind) connect.Code {
	if kind < 0 || int(kind) >= len(codes) {
		return connect.CodeInternal
	}
	return codes[kind]
}

// Kind returns the kind of a Connect code. Codes that no kind has (unknown, data_loss) are Internal; out_of_range is
// Invalid.
func Kind(code connect.Code) problem.Kind {
	if code == connect.CodeOutOfRange {
		return problem.Invalid
	}
	for kind, c := range codes {
		if c == code {
			return problem.Kind(kind)
		}
	}
	return problem.Internal
}

// Problem returns err as a *problem.Error: itself when its chain has one, what Decode makes of a Connect error, Canceled
// or DeadlineExceeded for errors of a context, and Internal with err as its cause for all others. It returns nil for nil.
func Problem(err error) *problem.Error {
	var p *problem.Error
	var c *connect.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p):
		return p
	case errors.As(err, &c):
		return decode(c)
	case errors.Is(err, context.Canceled):
		return &problem.Error{Kind: problem.Canceled, Sentence: "the call was cancelled", Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &problem.Error{Kind: problem.DeadlineExceeded, Sentence: "the call did not finish before its deadline; what it began goes on", Cause: err}
	}
	return &problem.Error{Kind: problem.Internal, Sentence: "internal error", Cause: err}
}

// Encode returns the error as it is sent: the code of the kind, the field and the sentence as the message, and as details
// google.rpc.BadRequest for each of violations (or for Field, when there are none), ErrorInfo for Meta and RetryInfo for
// Meta[problem.RetryAfter]. The cause is not sent.
func Encode(p *problem.Error, violations ...*errdetails.BadRequest_FieldViolation) *connect.Error {
	// The cause stays out of the chain: whatever is in it, this is the code.
	out := connect.NewError(Code(p.Kind), errors.New(p.Error()))
	if len(violations) == 0 && p.Field != "" {
		violations = []*errdetails.BadRequest_FieldViolation{{Field: p.Field, Description: p.Sentence}}
	}
	if len(violations) > 0 {
		add(out, &errdetails.BadRequest{FieldViolations: violations})
	}
	if len(p.Meta) > 0 {
		add(out, &errdetails.ErrorInfo{Reason: strings.ToUpper(p.Kind.String()), Domain: Domain, Metadata: p.Meta})
	}
	if d, err := time.ParseDuration(p.Meta[problem.RetryAfter]); err == nil {
		add(out, &errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	}
	return out
}

func add(err *connect.Error, detail proto.Message) {
	d, failed := connect.NewErrorDetail(detail)
	if failed == nil { // it fails only for messages that cannot be marshalled, such as text that is not UTF-8
		err.AddDetail(d)
	}
}

// Decode is the inverse of Encode: a Connect error becomes a *problem.Error with Field and Meta, whose cause is err, so
// that connect.CodeOf still works on it. Other errors are returned as they are.
func Decode(err error) error {
	var p *problem.Error
	var c *connect.Error
	if errors.As(err, &p) || !errors.As(err, &c) {
		return err
	}
	return decode(c)
}

func decode(c *connect.Error) *problem.Error {
	p := &problem.Error{Kind: Kind(c.Code()), Sentence: c.Message(), Cause: c}
	for _, detail := range c.Details() {
		value, err := detail.Value()
		if err != nil {
			continue // a detail that this build does not know
		}
		switch v := value.(type) {
		case *errdetails.BadRequest:
			if fields := v.GetFieldViolations(); len(fields) > 0 && p.Field == "" {
				p.Field = fields[0].GetField()
			}
		case *errdetails.ErrorInfo:
			if v.GetDomain() == Domain {
				p.Meta = maps.Clone(v.GetMetadata())
			}
		}
	}
	if p.Field != "" {
		p.Sentence = strings.TrimPrefix(p.Sentence, p.Field+": ")
	}
	return p
}
