package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says what to build and where to report.
type Config struct {
	// Root is the checkout: the directory of go.work. Binaries go to Root/.edgehold/bin.
	Root string
	// Out gets the progress, and what the compiler says when it fails.
	Out io.Writer
}

// coldPackages is from how many packages on a build counts as the first one.
const coldPackages = 1000

// Run builds what changed. The error names what did not build and holds what the compiler said.
func Run(ctx context.Context, cfg Config) error {
	began := time.Now()
	steps, err := find(cfg.Root)
	if err != nil {
		return err
	}
	bin := filepath.Join(cfg.Root, ".edgehold", "bin")
	if err := os.MkdirAll(bin, 0o750); err != nil {
		return err
	}
	lock, err := lockDir(ctx, bin, cfg.Out)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	toolchain, err := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH", "CGO_ENABLED", "GOFLAGS", "GOEXPERIMENT").Output()
	if err != nil {
		return fmt.Errorf("go env: %w; Go must be on the PATH", err)
	}
	var stale []build
	binaries := 0
	for _, s := range steps {
		hash, err := inputs(cfg.Root, s, string(toolchain))
		if err != nil {
			return fmt.Errorf("%s: %w", s.module, err)
		}
		binaries += len(s.commands)
		if !current(bin, s, hash) {
			stale = append(stale, build{step: s, hash: hash})
		}
	}
	if len(stale) == 0 {
		fmt.Fprintf(cfg.Out, "engines: %d binaries in .edgehold/bin are up to date\n", binaries)
		return nil
	}
	// What a build left that was killed; the lock says that none is running.
	left, err := filepath.Glob(filepath.Join(bin, ".build-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp(bin, ".build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()

	show := newDisplay(cfg.Out)
	defer show.end()
	if err := count(ctx, cfg.Root, stale, show); err != nil {
		return err
	}
	if n := show.total.Load(); n >= coldPackages {
		show.say("engines: %d packages to compile. The first build takes about 10 minutes on 2 cores (this machine has %d); later ones take seconds.", n, runtime.NumCPU())
	}
	// Modules outside the workspace share no packages with each other or with it, so each has a lane of its own. Those of
	// the workspace share nearly all of theirs, so one after the other finds them compiled.
	var lanes errgroup.Group
	var shared []build
	for i, b := range stale {
		if !b.alone {
			shared = append(shared, b)
			continue
		}
		lanes.Go(func() error { return b.run(ctx, cfg.Root, bin, filepath.Join(work, fmt.Sprint(i)), show) })
	}
	lanes.Go(func() error {
		var errs []error
		for i, b := range shared {
			errs = append(errs, b.run(ctx, cfg.Root, bin, filepath.Join(work, fmt.Sprint("w", i)), show))
		}
		return errors.Join(errs...)
	})
	stop := show.run()
	err = lanes.Wait()
	stop()
	if ctx.Err() != nil {
		return errors.New("interrupted; what was compiled is kept and the next call goes on from there")
	}
	if err != nil {
		return err
	}
	built := 0
	for _, b := range stale {
		built += len(b.commands)
	}
	show.say("engines: built %d of %d binaries in %s", built, binaries, time.Since(began).Round(100*time.Millisecond))
	return nil
}

// build is a step that has to be run.
type build struct {
	step
	hash string
}

func (b build) goCommand(ctx context.Context, root string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(root, b.module)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	work := filepath.Join(root, "go.work")
	if b.alone {
		work = "off"
	}
	// Everything is built with these flags and everything else of the checkout too, because the build cache tells apart
	// what was built with others.
	cmd.Env = append(os.Environ(), "GOWORK="+work, "GOFLAGS="+goflags())
	return cmd
}

func goflags() string {
	flags := os.Getenv("GOFLAGS")
	for _, f := range []string{"-trimpath", "-buildvcs=false"} {
		if !strings.Contains(flags, f) {
			flags = strings.TrimSpace(flags + " " + f)
		}
	}
	return flags
}

// count asks the toolchain how many packages are not in the build cache.
func count(ctx context.Context, root string, builds []build, show *display) error {
	show.phase.Store("looking at what is compiled already")
	stop := show.run()
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, b := range builds {
		g.Go(func() error {
			args := []string{"list", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}"}
			for _, c := range b.commands {
				args = append(args, c.pkg)
			}
			var said bytes.Buffer
			cmd := b.goCommand(ctx, root, args...)
			cmd.Stderr = show.downloads(&said)
			out, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("%s: go list: %w\n%s", b.module, err, said.String())
			}
			show.total.Add(int64(len(strings.Fields(string(out)))))
			return nil
		})
	}
	return g.Wait()
}

// run builds the step into dir and installs what came out.
func (b build) run(ctx context.Context, root, bin, dir string, show *display) error {
	if err := os.Mkdir(dir, 0o750); err != nil {
		return err
	}
	var names []string
	args := []string{"build", "-v", "-ldflags", b.ldflags, "-o", dir + string(filepath.Separator)}
	for _, c := range b.commands {
		args, names = append(args, c.pkg), append(names, c.binary)
	}
	done := show.building(names)
	defer done()
	cmd := b.goCommand(ctx, root, args...)
	// With -v the toolchain names each package on a line when its turn comes; what the compiler says is anything else.
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var said []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			show.downloaded.Add(1)
		case strings.ContainsAny(line, " \t#:"):
			if len(said) < 200 {
				said = append(said, line)
			}
		default:
			show.compiled.Add(1)
		}
	}
	_, _ = io.Copy(io.Discard, out) // the rest after a line that was too long
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s of %s: go build: %w\n%s", strings.Join(names, ", "), b.module, err, strings.Join(said, "\n"))
	}
	return install(bin, dir, b.step, b.hash)
}

// lockDir waits for another build into the same directory.
func lockDir(ctx context.Context, dir string, out io.Writer) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		fmt.Fprintln(out, "engines: another build is running here; waiting for it")
		got := make(chan error, 1)
		go func() { got <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }()
		select {
		case err = <-got:
		case <-ctx.Done():
			return nil, context.Cause(ctx) // the process ends, and the wait with it
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}
