package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCodes(t *testing.T) {
	if len(codes) != int(problem.Unimplemented)+1 {
		t.Fatalf("%d codes for %d kinds", len(codes), problem.Unimplemented+1)
	}
	for kind := problem.Internal; kind <= problem.Unimplemented; kind++ {
		if code := Code(kind); code.String() != kind.String() || Kind(code) != kind {
			t.Errorf("%v is sent as %v and comes back as %v", kind, code, Kind(code))
		}
	}
	for code, want := range map[connect.Code]problem.Kind{connect.CodeOutOfRange: problem.Invalid, connect.CodeUnknown: problem.Internal, connect.CodeDataLoss: problem.Internal, 99: problem.Internal} {
		if got := Kind(code); got != want {
			t.Errorf("%v is %v, want %v", code, got, want)
		}
	}
	if Code(99) != connect.CodeInternal || Code(-1) != connect.CodeInternal {
		t.Error("what is no kind is not internal")
	}
}

// TestRoundTrip: what is encoded is decoded, but for the cause.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := &problem.Error{
			Kind:     problem.Kind(rapid.IntRange(0, int(problem.Unimplemented)).Draw(t, "kind")),
			Field:    rapid.StringMatching(`([a-z_]+(\[[0-9]\])?(\.[a-z]+)?)?`).Draw(t, "field"),
			Sentence: rapid.String().Draw(t, "sentence"),
			Meta:     rapid.MapOf(rapid.StringN(1, 10, -1), rapid.String()).Draw(t, "meta"),
			Cause:    errors.New("hunter2"),
		}
		encoded := Encode(sent)
		var got *problem.Error
		if !errors.As(Decode(fmt.Errorf("calling: %w", encoded)), &got) {
			t.Fatal("not a problem")
		}
		if got.Kind != sent.Kind || got.Field != sent.Field || got.Sentence != sent.Sentence || !maps.Equal(got.Meta, sent.Meta) {
			t.Fatalf("sent %+v, got %+v", sent, got)
		}
		if errors.Is(encoded, sent.Cause) {
			t.Fatal("the cause is in the chain of what is sent")
		}
		if connect.CodeOf(got) != encoded.Code() {
			t.Fatalf("CodeOf is %v", connect.CodeOf(got))
		}
	})
}

func TestDetails(t *testing.T) {
	p := problem.New(problem.ResourceExhausted, "", "slow down").With(problem.RetryAfter, "1.5s")
	var delay time.Duration
	for _, d := range Encode(p).Details() {
		if value, _ := d.Value(); value != nil {
			if retry, ok := value.(*errdetails.RetryInfo); ok {
				delay = retry.GetRetryDelay().AsDuration()
			}
		}
	}
	if delay != 1500*time.Millisecond {
		t.Errorf("retry after %v", delay)
	}
	// Details of others do not become ours.
	foreign := connect.NewError(connect.CodeNotFound, errors.New("x"))
	add(foreign, &errdetails.ErrorInfo{Domain: "example.com", Metadata: map[string]string{"a": "b"}})
	if p := Problem(foreign); p.Meta != nil || p.Kind != problem.NotFound {
		t.Errorf("got %+v", p)
	}
}

func TestProblem(t *testing.T) {
	own := problem.NotFoundf("pop", "nobody")
	for _, tt := range []struct {
		err  error
		kind problem.Kind
	}{
		{fmt.Errorf("x: %w", own), problem.NotFound},
		{connect.NewError(connect.CodeAborted, errors.New("x")), problem.Aborted},
		{connect.NewError(connect.CodeAborted, own), problem.NotFound}, // what was meant, not what it was put into
		{fmt.Errorf("x: %w", context.Canceled), problem.Canceled},
		{context.DeadlineExceeded, problem.DeadlineExceeded},
		{io.EOF, problem.Internal},
	} {
		if p := Problem(tt.err); p.Kind != tt.kind {
			t.Errorf("%v is %v, want %v", tt.err, p.Kind, tt.kind)
		}
	}
	if Problem(nil) != nil || Decode(nil) != nil || !errors.Is(Decode(io.EOF), io.EOF) || Decode(own) != error(own) {
		t.Error("what is no Connect error was changed")
	}
	if p := Problem(io.EOF); p.Sentence != "internal error" || !errors.Is(p, io.EOF) {
		t.Errorf("got %+v", p)
	}
}
