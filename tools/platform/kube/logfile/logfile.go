// Package logfile keeps what a container writes, in files whose size is bounded, in the line format of the Container Runtime
// Interface: RFC 3339 time, stream, F or P (the line goes on in the next record), text. Start reading at [Log].
package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// maxLine is how much of a line is put in one record, in bytes, as containerd does.
const maxLine = 16 << 10

// Log is the file of one run of a container, plus the one before it was rotated (path.1). Its methods may be called from several
// goroutines.
type Log struct {
	path  string
	limit int64 // of each of the two files, in bytes

	mu      sync.Mutex
	file    *os.File
	size    int64
	changed chan struct{} // closed and replaced at each write
	closed  bool
}

// Create starts an empty log whose two files hold limit bytes at most, together.
func Create(path string, limit int64) (*Log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &Log{path: path, limit: limit / 2, file: f, changed: make(chan struct{})}, nil
}

// Copy records what r yields as lines of a stream ("stdout" or "stderr") until r ends. What cannot be written is lost: a full disk
// must not stop the container.
func (l *Log) Copy(stream string, r io.Reader) {
	lines := bufio.NewReaderSize(r, maxLine)
	var batch []byte
	for {
		text, err := lines.ReadSlice('\n')
		tag := byte('F')
		switch {
		case err == nil:
			text = text[:len(text)-1]
		case errors.Is(err, bufio.ErrBufferFull):
			tag = 'P'
		}
		if err == nil || len(text) > 0 {
			batch = time.Now().AppendFormat(batch, time.RFC3339Nano)
			batch = append(batch, ' ')
			batch = append(batch, stream...)
			batch = append(batch, ' ', tag, ' ')
			batch = append(batch, text...)
			batch = append(batch, '\n')
		}
		end := err != nil && tag == 'F'
		// One write for all that has arrived: a process that logs a lot costs a system call per read, not per line.
		if end || lines.Buffered() == 0 || len(batch) >= 4*maxLine || bytes.IndexByte(peek(lines), '\n') < 0 {
			l.write(batch)
			batch = batch[:0]
		}
		if end {
			return
		}
	}
}

func peek(r *bufio.Reader) []byte {
	data, _ := r.Peek(r.Buffered())
	return data
}

func (l *Log) write(records []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(records) == 0 {
		return
	}
	if l.size > 0 && l.size+int64(len(records)) > l.limit {
		l.rotate()
	}
	n, _ := l.file.Write(records)
	l.size += int64(n)
	close(l.changed)
	l.changed = make(chan struct{})
}

// rotate goes on with the old file when there can be no new one.
func (l *Log) rotate() {
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	l.file.Close()
	l.file, l.size = f, 0
}

// Close ends the log, and so every reader that follows it.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.file.Close()
	close(l.changed)
}

// state is a channel that is closed at the next change, and whether there will be none.
func (l *Log) state() (<-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed, l.closed
}

// Options of Read, as of `kubectl logs`.
type Options struct {
	Tail       int       // lines from the end; negative: all
	Since      time.Time // only what was written then or later
	Timestamps bool      // put the time before each line
	LimitBytes int64     // at most this much is written; 0: no limit
	Follow     bool      // go on until the log is closed
}

// Read writes the lines of the log at path to w. live is the open log of that path when the container runs, and is needed to follow.
// It returns fs.ErrNotExist when there is no log, ctx's error when that ends first, and w's error.
func Read(ctx context.Context, w io.Writer, path string, live *Log, opts Options) error {
	out := &output{w: w, opts: opts, left: opts.LimitBytes}
	file, old, err := open(path)
	if err != nil {
		return err
	}
	defer func() { file.Close() }()
	if old != nil {
		defer old.Close()
	}
	if opts.Tail >= 0 {
		if err := out.tail(old, file); err != nil {
			return out.end(err)
		}
	} else {
		if old != nil {
			if err := out.copy(old); err != nil {
				return out.end(err)
			}
		}
		if err := out.copy(file); err != nil {
			return out.end(err)
		}
	}
	if !opts.Follow || live == nil {
		return nil
	}
	for {
		changed, closed := live.state()
		// Looked at before reading: what is written after this is announced by changed.
		if err := out.copy(file); err != nil {
			return out.end(err)
		}
		next, err := successor(path, file)
		if err != nil {
			return err
		}
		if next != nil { // rotated: what was written to the old one until then
			err := out.copy(file)
			file.Close()
			if file = next; err != nil {
				return out.end(err)
			}
			continue
		}
		if closed {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// open returns the current file and the rotated one, which may not exist. A rotation between the two opens is noticed.
func open(path string) (current, old *os.File, err error) {
	for {
		if current, err = os.Open(path); err != nil {
			return nil, nil, err
		}
		old, err = os.Open(path + ".1")
		if errors.Is(err, fs.ErrNotExist) {
			return current, nil, nil
		}
		if err != nil {
			current.Close()
			return nil, nil, err
		}
		if !same(current, old) {
			return current, old, nil
		}
		current.Close()
		old.Close()
	}
}

// successor is the file that took the place of file at path, or nil.
func successor(path string, file *os.File) (*os.File, error) {
	next, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // in the middle of a rotation, or the pod is gone
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if same(next, file) {
		next.Close()
		return nil, nil
	}
	return next, nil
}

func same(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// errLimit ends the output quietly.
var errLimit = errors.New("limit reached")

// output formats records.
type output struct {
	w       io.Writer
	opts    Options
	left    int64
	partial bool   // the last record was part of a line
	rest    []byte // a record whose end is not written yet
}

func (o *output) end(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// copy writes the records from where f is to its end.
func (o *output) copy(f *os.File) error {
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		data, err := r.ReadSlice('\n')
		o.rest = append(o.rest, data...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		record := o.rest
		o.rest = o.rest[:0]
		if err := o.record(record); err != nil {
			return err
		}
	}
}

// tail writes the last lines of both files and leaves current at its end.
func (o *output) tail(old, current *os.File) error {
	var keep [][]byte
	for _, f := range []*os.File{old, current} {
		if f == nil {
			continue
		}
		r := bufio.NewReaderSize(f, 64<<10)
		for {
			data, err := r.ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				// Half a record: it is written whole when the rest of it arrives.
				o.rest = append(o.rest[:0], data...)
				break
			}
			if err != nil {
				return err
			}
			if o.opts.Tail == 0 {
				continue
			}
			keep = append(keep, data)
			if len(keep)-o.opts.Tail > o.opts.Tail { // partial records count as lines here; rare, and only lessens what is shown
				keep = slices.Clone(keep[len(keep)-o.opts.Tail:])
			}
		}
	}
	if n := len(keep) - o.opts.Tail; n > 0 {
		keep = keep[n:]
	}
	for _, record := range keep {
		if err := o.record(record); err != nil {
			return err
		}
	}
	return nil
}

// record writes one record, if it is wanted.
func (o *output) record(record []byte) error {
	at, full, text, ok := parse(record)
	if !ok {
		return nil // not ours: a file that was damaged
	}
	if !o.opts.Since.IsZero() && at.Before(o.opts.Since) {
		return nil
	}
	var line []byte
	if o.opts.Timestamps && !o.partial {
		line = at.AppendFormat(nil, time.RFC3339Nano)
		line = append(line, ' ')
	}
	line = append(line, text...)
	if full {
		line = append(line, '\n')
	}
	o.partial = !full
	if o.opts.LimitBytes > 0 {
		if int64(len(line)) > o.left {
			line = line[:o.left]
		}
		o.left -= int64(len(line))
	}
	if _, err := o.w.Write(line); err != nil {
		return err
	}
	if o.opts.LimitBytes > 0 && o.left == 0 {
		return errLimit
	}
	return nil
}

// parse takes a record apart: time, whether it ends a line, text without the newline.
func parse(record []byte) (at time.Time, full bool, text []byte, ok bool) {
	stamp, rest, _ := bytes.Cut(record, []byte(" "))
	_, rest, _ = bytes.Cut(rest, []byte(" ")) // the stream
	tag, text, found := bytes.Cut(rest, []byte(" "))
	if !found || len(tag) != 1 || tag[0] != 'F' && tag[0] != 'P' {
		return time.Time{}, false, nil, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return time.Time{}, false, nil, false
	}
	return at, tag[0] == 'F', bytes.TrimSuffix(text, []byte("\n")), true
}
