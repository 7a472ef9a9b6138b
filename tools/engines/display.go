package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// display shows how far the build is: one line that is redrawn on a terminal, a line now and then elsewhere.
type display struct {
	out      io.Writer
	terminal bool
	began    time.Time
	phase    atomic.Value // string
	// total are packages that have to be compiled or linked, compiled those whose turn has come, downloaded are modules.
	total, compiled, downloaded atomic.Int64

	mu    sync.Mutex
	names []string // binaries being built
	drawn bool
}

const (
	redraw = 200 * time.Millisecond
	// plainEvery is the time between two lines where nothing can be redrawn.
	plainEvery = 10 * time.Second
)

func newDisplay(out io.Writer) *display {
	d := &display{out: out, began: time.Now()}
	d.phase.Store("")
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		d.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return d
}

// run shows progress until the returned function is called.
func (d *display) run() (stop func()) {
	every := plainEvery
	if d.terminal {
		every = redraw
	}
	quit := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.draw()
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		running.Wait()
	}
}

// line is what there is to say now.
func (d *display) line() string {
	d.mu.Lock()
	names := strings.Join(d.names, " ")
	d.mu.Unlock()
	parts := []string{"engines: " + time.Since(d.began).Round(time.Second).String()}
	if total := d.total.Load(); names != "" && total > 0 {
		done := min(d.compiled.Load(), total)
		parts = append(parts, fmt.Sprintf("%3d%%  %d/%d packages  %s", 100*done/total, done, total, names))
	} else if phase, _ := d.phase.Load().(string); phase != "" {
		parts = append(parts, phase)
	}
	if n := d.downloaded.Load(); n > 0 {
		parts = append(parts, fmt.Sprintf("(%d modules downloaded)", n))
	}
	return strings.Join(parts, "  ")
}

func (d *display) draw() {
	line := d.line()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.terminal {
		fmt.Fprintln(d.out, line)
		return
	}
	fmt.Fprint(d.out, "\r\x1b[K"+line)
	d.drawn = true
}

// say prints a line of its own.
func (d *display) say(format string, args ...any) {
	d.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, format+"\n", args...)
}

// end clears the line that was drawn.
func (d *display) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.drawn {
		fmt.Fprint(d.out, "\r\x1b[K")
		d.drawn = false
	}
}

// building adds binaries to the line until the returned function is called.
func (d *display) building(names []string) (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names = append(d.names, names...)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.names = slices.DeleteFunc(d.names, func(n string) bool { return slices.Contains(names, n) })
	}
}

// downloads counts the modules that a toolchain says it downloads and passes the rest on.
func (d *display) downloads(rest *bytes.Buffer) io.Writer { return &downloadWriter{d: d, rest: rest} }

type downloadWriter struct {
	d    *display
	rest *bytes.Buffer
}

// Write never fails.
func (w *downloadWriter) Write(p []byte) (int, error) {
	n := bytes.Count(p, []byte("go: downloading "))
	w.d.downloaded.Add(int64(n))
	if n == 0 {
		w.rest.Write(p)
	}
	return len(p), nil
}
