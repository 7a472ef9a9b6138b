// Package reload keeps the parsed content of files that change under a running process: certificates, tokens, registries.
// A content that does not parse is refused and the last good one stays in force. Start at Open.
package reload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// MaxBytes is the largest file that is read. Larger ones are an error.
const MaxBytes = 16 << 20

// Value is what was last parsed from one or several files that belong together, such as a certificate and its key. It is
// safe for concurrent use.
type Value[T any] struct {
	paths []string
	parse func(contents [][]byte) (T, error)
	good  atomic.Pointer[T]

	mu      sync.Mutex // serialises Check
	seen    [][]byte   // the contents of the last Check, good or not
	refused error      // of the contents in seen
	checked atomic.Int64
}

// Open reads and parses the files, in the order of paths. An error names the file, or is the one of parse.
func Open[T any](parse func(contents [][]byte) (T, error), paths ...string) (*Value[T], error) {
	v := &Value[T]{paths: paths, parse: parse}
	if _, err := v.Check(); err != nil {
		return nil, err
	}
	return v, nil
}

// Get returns the last good value.
func (v *Value[T]) Get() T { return *v.good.Load() }

// Fresh is Get after a Check, unless the last one is younger than age. It is for processes that have no goroutine to
// spare; errors of that Check are dropped.
func (v *Value[T]) Fresh(age time.Duration) T {
	now := time.Now().UnixNano()
	last := v.checked.Load()
	if now-last >= int64(age) && v.checked.CompareAndSwap(last, now) {
		_, _ = v.Check()
	}
	return v.Get()
}

// Check reads the files once. changed says that their contents differ from those of the Check before, accepted or
// refused; err says that they are refused (each time, as long as they are).
func (v *Value[T]) Check() (changed bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.checked.Store(time.Now().UnixNano())
	contents := make([][]byte, len(v.paths))
	for i, path := range v.paths {
		if contents[i], err = read(path); err != nil {
			// A file that is away for a moment, as during a rename, is no new content; but say so once.
			changed = v.refused == nil || v.refused.Error() != err.Error()
			v.refused, v.seen = err, nil
			return changed, err
		}
	}
	if v.seen != nil && equal(v.seen, contents) {
		return false, v.refused
	}
	v.seen = contents
	value, err := v.parse(contents)
	if v.refused = err; err != nil {
		return true, err
	}
	v.good.Store(&value)
	return true, nil
}

// Watch checks the files every interval until ctx ends, and calls report after each change: with nil when the new value
// is in force, with the error when it was refused. Contents are compared, not times: a mounted Secret swaps a symbolic
// link, and some file systems tell nobody.
func (v *Value[T]) Watch(ctx context.Context, every time.Duration, report func(error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if changed, err := v.Check(); changed {
			report(err)
		}
	}
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(content) > MaxBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, MaxBytes)
	}
	return content, nil
}

func equal(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
