package edge_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"edgehold.internal/tools/edge/load"
)

// BenchmarkRequest is the CPU time of one request on each side, kernel included: the generator in this process, the proxy in one
// of its own, at a rate as the demo's per PoP. -benchtime=5000x is about five seconds.
//
// Beside it, the proxy's resident memory after the run, the program's own pages included, which all proxies share.
func BenchmarkRequest(b *testing.B) {
	binary := b.TempDir() + "/edge"
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/edge").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for name, change := range map[string]func(*load.Config){
		"kept": func(*load.Config) {},
		"new":  func(c *load.Config) { c.NewConnShare = 1 },
		"h2":   func(c *load.Config) { c.H2Share = 1 },
	} {
		b.Run(name, func(b *testing.B) {
			proxy := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lame-duck", "0s", "--stop-grace", "1s")
			out, err := proxy.StdoutPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := proxy.Start(); err != nil {
				b.Fatal(err)
			}
			defer func() { _ = proxy.Wait() }()
			defer func() { _ = proxy.Process.Signal(syscall.SIGTERM) }()
			var ready struct{ Address string }
			line, err := bufio.NewReader(out).ReadBytes('\n')
			if err == nil {
				err = json.Unmarshal(line, &ready)
			}
			if err != nil {
				b.Fatal(err)
			}
			cfg := load.Default()
			cfg.Targets = []load.Target{{Pop: "bench", Address: ready.Address}}
			cfg.Rate, cfg.Streams, cfg.H2Streams, cfg.H2Share, cfg.NewConnShare = 1000, 0, 0, 0, 0
			change(&cfg)
			before := cpu(b)
			ctx, cancel := context.WithTimeout(b.Context(), time.Duration(b.N)*time.Second/1000)
			defer cancel()
			run, err := load.Start(ctx, cfg)
			if err != nil {
				b.Fatal(err)
			}
			<-ctx.Done()
			result := run.Stop()
			used := cpu(b) - before
			if result.Failed > 0 {
				b.Fatalf("failed: %v", result.FailedByReason)
			}
			resident := residentMiB(b, proxy.Process.Pid)
			_ = proxy.Process.Signal(syscall.SIGTERM)
			_ = proxy.Wait() // its state is what counts
			n := float64(max(result.Requests, 1))
			b.ReportMetric(float64(used.Microseconds())/n, "load-µs/req")
			b.ReportMetric(float64((proxy.ProcessState.UserTime()+proxy.ProcessState.SystemTime()).Microseconds())/n, "serve-µs/req")
			b.ReportMetric(resident, "serve-MiB")
			b.ReportMetric(0, "ns/op") // the schedule decides it
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(os.NewSyscallError("getrusage", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentMiB reads VmRSS. The usage that Wait reports would be the peak of this process, before it became the other.
func residentMiB(b *testing.B, pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
