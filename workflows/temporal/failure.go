package temporal

import (
	"context"
	"errors"

	"go.temporal.io/api/serviceerror"
	sdk "go.temporal.io/sdk/temporal"

	"edgehold.internal/libs/problem"
)

// encode makes a failure of a problem that decode can read again. What cannot be reached, or has too much to do, is worth
// a retry.
func encode(err error) error {
	if err == nil {
		return nil
	}
	var p *problem.Error
	if !errors.As(err, &p) {
		return err
	}
	return sdk.NewApplicationErrorWithOptions(p.Sentence, p.Kind.String(), sdk.ApplicationErrorOptions{
		NonRetryable: !worthAnother(p), Details: []any{p.Field, p.Meta}})
}

func worthAnother(p *problem.Error) bool {
	return p.Kind == problem.Unavailable || p.Kind == problem.ResourceExhausted
}

// decode is the inverse of encode. Other failures become problems with a sentence of their own.
func decode(err error) *problem.Error {
	if err == nil {
		return nil
	}
	var p *problem.Error
	if errors.As(err, &p) {
		return p
	}
	var app *sdk.ApplicationError
	if errors.As(err, &app) {
		p := &problem.Error{Kind: problem.ParseKind(app.Type()), Sentence: app.Message(), Cause: err}
		if app.HasDetails() {
			_ = app.Details(&p.Field, &p.Meta) // of somebody else's failure they may be anything
		}
		return p
	}
	var timeout *sdk.TimeoutError
	if errors.As(err, &timeout) {
		return &problem.Error{Kind: problem.DeadlineExceeded, Sentence: "no worker has finished this step in time; what was declared goes on in the PoP: edgehold fleet get shows it", Cause: err}
	}
	var cancelled *sdk.CanceledError
	if errors.As(err, &cancelled) {
		return &problem.Error{Kind: problem.Aborted, Sentence: "the operation was aborted", Cause: err}
	}
	return &problem.Error{Kind: problem.Internal, Sentence: "internal error; the worker's log has the cause", Cause: err}
}

// unreachable is what a person can do when Temporal is gone.
const unreachable = "Temporal cannot be reached; operations that run go on when it is back, and edgehold rollback --direct works without it"

// outage turns errors of Temporal's API into problems.
func outage(err error) error {
	if err == nil {
		return nil
	}
	var p *problem.Error
	if errors.As(err, &p) {
		return p
	}
	var app *sdk.ApplicationError
	if errors.As(err, &app) {
		return decode(err)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	var (
		notFound  *serviceerror.NotFound
		invalid   *serviceerror.InvalidArgument
		exhausted *serviceerror.ResourceExhausted
		denied    *serviceerror.PermissionDenied
		namespace *serviceerror.NamespaceNotFound
	)
	p = &problem.Error{Kind: problem.Unavailable, Sentence: unreachable, Cause: err}
	switch {
	case errors.As(err, &namespace):
		p.Sentence = "Temporal has no namespace of the name that runbooks was started with; check its --namespace"
	case errors.As(err, &notFound):
		p.Kind, p.Sentence = problem.NotFound, "Temporal knows no such operation; it keeps ended ones only for the retention of its namespace; edgehold operation list shows those there are"
	case errors.As(err, &exhausted):
		p.Kind, p.Sentence = problem.ResourceExhausted, "Temporal is over a limit; try again in a moment"
	case errors.As(err, &denied):
		p.Sentence = "Temporal refuses the credentials of runbooks; edgehold rollback --direct works without it"
	case errors.As(err, &invalid):
		p.Kind, p.Sentence = problem.Internal, "internal error; the log of runbooks has the cause"
	}
	return p
}
