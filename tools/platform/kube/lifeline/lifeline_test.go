package lifeline

import (
	"context"
	"errors"
	"io"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContextEndsWithItsLine(t *testing.T) {
	read, write := io.Pipe()
	ctx := Context(t.Context(), read)
	if _, err := write.Write([]byte("ignored")); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatal("ended while the line was whole")
	}
	write.Close()
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), ErrCut) {
		t.Errorf("cause %v, want ErrCut", context.Cause(ctx))
	}
}
