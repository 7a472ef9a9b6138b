// Package lifeline ties the life of this process to that of the one that started it, by a pipe that the kernel closes whatever
// the other one dies of.
package lifeline

import (
	"context"
	"errors"
	"io"
)

// ErrCut is the cause of the context when the line ended.
var ErrCut = errors.New("standard input ended: the parent process is gone")

// Context ends when parent does or when line reaches its end. What is read from line is thrown away. The goroutine that reads
// lives as long as line is open.
func Context(parent context.Context, line io.Reader) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		_, _ = io.Copy(io.Discard, line) // an error is an end too
		cancel(ErrCut)
	}()
	return ctx
}
