package record

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"edgehold.internal/libs/problem"
)

// Writer appends exchanges to a file. Each is one write of the operating system's, so what Write has returned from is there whatever
// happens to this process; it is brought to the disk at Close, and by the operating system before that: a machine that loses its power may
// lose the last ones, which the reader finds out. It is safe for concurrent use.
type Writer struct {
	// Before is how many exchanges the file had, and Dropped how many bytes of one that was not whole, which are taken away.
	Before  int
	Dropped int64

	mu    sync.Mutex
	file  *os.File
	size  int64
	limit int64
}

// ErrFull is the cause when an exchange does not fit into the file any longer.
var ErrFull = errors.New("the recording is full")

// Append opens a file to be written to, or makes it; what is in it stays. limit is how many bytes it may have, at most MaxFile. Errors are
// problems: those of Parse for what is there, FailedPrecondition when another process records into it or when it was begun with another
// redaction, Invalid when it cannot be written.
func Append(path string, h Head, limit int64) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, problem.Invalidf("recording", "%s cannot be written: %w", path, err)
	}
	w := &Writer{file: f, limit: limit}
	if err := w.open(path, h); err != nil {
		_ = f.Close()
		return nil, err
	}
	return w, nil
}

func (w *Writer) open(path string, h Head) error {
	if err := syscall.Flock(int(w.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return problem.Preconditionf("recording", "another process records into %s; use another file", path)
	}
	before, err := Load(path)
	if err != nil {
		return err
	}
	w.Before, w.Dropped, w.size = len(before.Exchanges), before.Dropped, before.Whole
	if before.Dropped > 0 {
		if err := w.file.Truncate(before.Whole); err != nil {
			return problem.Invalidf("recording", "%s cannot be written: %w", path, err)
		}
	}
	if b := before.Head; b.Version > 0 {
		if b.Redacted != h.Redacted || !slices.Equal(b.Patterns, h.Patterns) {
			return problem.Preconditionf("recording", "%s was begun with another redaction (of bodies: %t; patterns: %q); use the same, or another file", path, b.Redacted, b.Patterns)
		}
		return nil
	}
	l, err := line(headLine{kind, Version, h.At.UTC(), h.Redacted, h.Patterns})
	if err != nil {
		return problem.Invalidf("recording", "%s cannot be begun: %w", path, err)
	}
	return w.append(l)
}

// Write appends an exchange; its Number is not written. ErrFull when it does not fit. After another error the file is as it was before.
func (w *Writer) Write(x *Exchange) error {
	l, err := encode(x)
	if err != nil {
		return fmt.Errorf("writing an exchange: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.append(l)
}

func (w *Writer) append(l []byte) error {
	if w.size+int64(len(l)) > w.limit {
		return ErrFull
	}
	n, err := w.file.Write(l)
	if err != nil {
		if n > 0 { // a half line in front of a whole one would be damage
			err = errors.Join(err, w.file.Truncate(w.size))
		}
		return fmt.Errorf("writing an exchange: %w", err)
	}
	w.size += int64(n)
	return nil
}

// Size of the file in bytes.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// Close brings everything to the disk. Nothing may be written after it.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.file.Sync(), w.file.Close())
}
