package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"edgehold.internal/tools/platform/kube/logfile"
)

// ErrNotRunning is returned for a container that does not run at this moment.
var ErrNotRunning = errors.New("the container does not run")

// Logs writes the log of a container's current or last run, or with previous of the run before that one. An unknown container, or
// one that has no such run, is an error for people.
func (p *Pod) Logs(ctx context.Context, name string, previous bool, w io.Writer, opts logfile.Options) error {
	c, err := p.container(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	n := c.newest
	if previous && (c.run != nil || c.over) { // between two runs, the last one is the previous one too
		n--
	}
	var live *logfile.Log
	if c.run != nil && !previous {
		live = c.run.log
	}
	p.mu.Unlock()
	err = logfile.Read(ctx, w, c.logPath(n), live, opts)
	if errors.Is(err, fs.ErrNotExist) {
		if previous {
			return fmt.Errorf("previous terminated container %q in pod %q not found", name, p.spec().Name)
		}
		return fmt.Errorf("container %q in pod %q is waiting to start", name, p.spec().Name)
	}
	return err
}

// Exec runs a command beside a container and returns its exit code. It ends with ctx and with the container.
func (p *Pod) Exec(ctx context.Context, name string, command []string, in io.Reader, out, errOut io.Writer) (int, error) {
	c, err := p.container(name)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	r := c.run
	p.mu.Unlock()
	if r == nil {
		return 0, fmt.Errorf("container %q: %w", name, ErrNotRunning)
	}
	return c.command(ctx, r, command, in, out, errOut)
}
