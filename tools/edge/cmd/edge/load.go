package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"edgehold.internal/tools/edge/load"
)

// loadCommand exits with 3 when a request failed.
func loadCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg := load.Default()
	var targets []string
	var arrivals, output string
	duration := 10 * time.Second
	fs := pflag.NewFlagSet("edge load", pflag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.SortFlags = false
	fs.StringArrayVar(&targets, "target", nil, "pop=host:port of a front door, or pop=http://host:port/path; repeatable")
	fs.DurationVar(&duration, "duration", duration, "how long to send; 0s is until SIGINT")
	fs.Float64Var(&cfg.Rate, "rate", cfg.Rate, "requests per second and target")
	fs.StringVar(&arrivals, "arrivals", string(cfg.Arrivals), "poisson or constant")
	fs.Float64Var(&cfg.NewConnShare, "new", cfg.NewConnShare, "share of requests on a connection of their own, 0 to 1")
	fs.Float64Var(&cfg.H2Share, "h2", cfg.H2Share, "share of requests over HTTP/2, 0 to 1")
	fs.IntVar(&cfg.Pool, "pool", cfg.Pool, "kept HTTP/1.1 connections per target")
	fs.IntVar(&cfg.Streams, "streams", cfg.Streams, "long HTTP/1.1 streams per target")
	fs.IntVar(&cfg.H2Streams, "h2-streams", cfg.H2Streams, "long HTTP/2 streams per target")
	fs.StringVar(&cfg.StreamPath, "stream-path", cfg.StreamPath, "what the streams ask for")
	fs.DurationVar(&cfg.Timeout, "timeout", cfg.Timeout, "of a request, from when it was to be sent")
	fs.DurationVar(&cfg.StreamStall, "stream-stall", cfg.StreamStall, "silence after which a stream has failed")
	fs.IntVar(&cfg.MaxInFlight, "max-in-flight", cfg.MaxInFlight, "unanswered requests per target")
	fs.IntVar(&cfg.MaxFailures, "max-failures", cfg.MaxFailures, "failures to keep whole")
	fs.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "of the schedule and the mix")
	fs.StringVar(&output, "output", "-", "file for the result as JSON; - is standard output")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	if duration < 0 {
		fmt.Fprintf(stderr, "edge load: --duration: %v is not allowed; use more than 0s, or 0s to send until SIGINT\n", duration)
		return 2
	}
	cfg.Arrivals = load.Arrivals(arrivals)
	for _, text := range targets {
		t, err := parseTarget(text)
		if err != nil {
			fmt.Fprintln(stderr, "edge load:", err)
			return 2
		}
		cfg.Targets = append(cfg.Targets, t)
	}
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	run, err := load.Start(ctx, cfg)
	if err != nil {
		fmt.Fprintln(stderr, "edge load:", err)
		return 2
	}
	progress(ctx, run, stderr)
	result := run.Stop()
	if err := writeResult(&result, output, stdout); err != nil {
		fmt.Fprintln(stderr, "edge load:", err)
		return 1
	}
	summary(&result, stderr)
	if result.Failed > 0 {
		return 3
	}
	return 0
}

// parseTarget reads pop=host:port or pop=http://host:port/path.
func parseTarget(text string) (load.Target, error) {
	pop, address, ok := strings.Cut(text, "=")
	if !ok || pop == "" || address == "" {
		return load.Target{}, fmt.Errorf("--target %q is not pop=host:port", text)
	}
	t := load.Target{Pop: pop, Address: address}
	if rest, ok := strings.CutPrefix(address, "http://"); ok {
		t.URL = address
		t.Address, _, _ = strings.Cut(rest, "/")
	}
	return t, nil
}

// progress prints a line each second until ctx ends.
func progress(ctx context.Context, run *load.Run, w io.Writer) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s := run.Snapshot()
			fmt.Fprintf(w, "%4.0fs  requests %d  bad %d  failed %d %v  in flight %d  streams %d\n",
				s.Elapsed.Seconds(), s.Requests, s.Bad, s.Failed, s.FailedByReason, s.InFlight, s.OpenStreams)
		}
	}
}

func writeResult(r *load.Result, output string, stdout io.Writer) error {
	if output == "-" {
		return json.NewEncoder(stdout).Encode(r)
	}
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(f).Encode(r), f.Close())
}

func summary(r *load.Result, w io.Writer) {
	all := r.Latency(r.Started, r.Stopped.Add(time.Hour))
	p50, _ := all.Quantile(0.5)
	p99, _ := all.Quantile(0.99)
	late, _ := r.Lateness.Quantile(0.99)
	fmt.Fprintf(w, "%d requests in %.1f s: %d good, %d bad, %d failed %v\nlatency p50 %v p99 %v (of that, sent late by p99 %v); connections opened %d; streams %+v; resent %d\n",
		r.Requests, r.Stopped.Sub(r.Started).Seconds(), r.Good, r.Bad, r.Failed, r.FailedByReason, p50, p99, late, r.ConnectionsOpened, r.Streams, r.Resent)
}
