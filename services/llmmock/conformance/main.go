// Command conformance runs the vendors' own test suites, as their modules bring them, against a running llmmock, and fails when fewer
// of their tests pass than the floor says. Only tests that need a server are run. make conformance-llm calls it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"
)

type config struct {
	// URL of a running server; or Binary to start; or Alone for the specifications only, without the adapters.
	url, binary string
	alone, wait bool
	cache       string
	floor       string
	write       bool
	verbose     bool
	only        string
}

func main() {
	var c config
	flag.StringVar(&c.url, "url", "", "root of a running llmmock, such as http://127.0.0.1:4010")
	flag.StringVar(&c.binary, "binary", "", "llmmock program to start instead")
	flag.BoolVar(&c.alone, "alone", false, "serve the specifications alone, in this process, to see what they are worth without the adapters")
	flag.BoolVar(&c.wait, "wait", false, "with --alone: print the address, and serve until interrupted instead of running suites")
	flag.StringVar(&c.cache, "cache", ".edgehold/conformance", "where the built test programs are kept")
	flag.StringVar(&c.floor, "floor", "conformance/floor.json", "file with the least that must pass")
	flag.BoolVar(&c.write, "write-floor", false, "write what passes now as the new floor, instead of comparing")
	flag.BoolVar(&c.verbose, "v", false, "print what the failed tests said")
	flag.StringVar(&c.only, "suite", "", "run the suite of that module only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, c, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config, out io.Writer) error {
	url := c.url
	switch {
	case c.alone:
		server, err := alone()
		if err != nil {
			return err
		}
		defer server.Close()
		url = server.URL
		if c.wait {
			fmt.Fprintln(out, url)
			<-ctx.Done()
			return nil
		}
	case c.binary != "":
		started, stop, err := start(ctx, c.binary)
		if err != nil {
			return err
		}
		defer stop()
		url = started
	case url == "":
		return errors.New("name a server with --url or --binary, or say --alone")
	}
	var results []result
	for _, s := range suites {
		if c.only != "" && c.only != s.module {
			continue
		}
		r, err := s.run(ctx, c, url)
		if err != nil {
			return fmt.Errorf("%s: %w", s.module, err)
		}
		results = append(results, r...)
	}
	table(out, results, c.verbose)
	if c.write {
		return writeFloor(c.floor, results)
	}
	floor, err := readFloor(c.floor)
	if err != nil {
		return err
	}
	return floor.compare(results, c.only)
}

// start runs a llmmock on a free port of loopback. Once it is ready it prints a line of JSON with the address of its APIs.
func start(ctx context.Context, binary string) (url string, stop func(), err error) {
	path, err := filepath.Abs(binary)
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, path, "--api-listen", "127.0.0.1:0", "--log-level", "error")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, out) // what it still has to say is of no interest
		_ = cmd.Wait()                  // it was told to end
	}
	ready := make(chan string, 1)
	go func() {
		defer close(ready)
		var line struct {
			API string `json:"api"`
		}
		if json.NewDecoder(out).Decode(&line) == nil && line.API != "" {
			ready <- line.API
		}
	}()
	select {
	case address, ok := <-ready:
		if ok {
			return "http://" + address, stop, nil
		}
		err = fmt.Errorf("%s ended before it was ready", binary)
	case <-time.After(30 * time.Second):
		err = fmt.Errorf("%s was not ready within 30 seconds", binary)
	case <-ctx.Done():
		err = ctx.Err()
	}
	stop()
	return "", nil, err
}
