package run

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// child is a mock in a process of its own.
type child struct {
	addresses
	pid int
}

// spawn starts this test's binary as a mock, and stops it with the test.
func spawn(t *testing.T, scenario string) child {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), serveAlone+"="+scenario)
	c.Stderr = t.Output()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Errorf("the mock: %v", err)
		}
	})
	var a addresses
	if err := json.NewDecoder(out).Decode(&a); err != nil {
		t.Fatal(err)
	}
	return child{a, c.Process.Pid}
}

// resident is how many bytes of memory the process has, and files how many it has open.
func (c child) resident(t *testing.T) (bytes int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(status))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func (c child) files(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// metric is the value of one without labels.
func (c child) metric(t *testing.T, name string) int {
	t.Helper()
	for line := range strings.SplitSeq(get(t, "http://"+c.Address+"/metrics"), "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(f)
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// 20,000 connections are opened and left: by clients that say nothing, that stop in the middle of a header, that stay after an
// answer, and that have a stream open. As many of them at a time as the process may have files; meanwhile a fresh client is
// served, and when they have gone nothing of them stays.
func TestTwentyThousandConnections(t *testing.T) {
	const all = 20_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = limit.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // what the Go runtime does too; the child gets it
	at := min(all, int(min(limit.Cur, 1<<20))-250)
	c := spawn(t, write(t, "s.yaml", "name: slow\nlatency: {interToken: 1h}\n"))
	const (
		chat   = `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`
		stream = `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}`
		head   = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	)
	whole := strings.Replace(chat, `"model"`, `"max_tokens":1,"model"`, 1)
	says := []string{"", head + "Conte", head + "Content-Length: " + strconv.Itoa(len(whole)) + "\r\n\r\n" + whole, head + "Content-Length: " + strconv.Itoa(len(stream)) + "\r\n\r\n" + stream}
	// open makes the n-th: from one of several addresses, each of which has ports of its own.
	open := func(n int) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n/4%8))}, Timeout: time.Minute}
		conn, err := d.Dial("tcp", c.API)
		if err != nil {
			return nil, err
		}
		say := says[n%4]
		if _, err := conn.Write([]byte(say)); err != nil {
			return conn, err
		}
		if n%4 > 1 { // it is answered, or its stream has begun
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			answer := make([]byte, len("HTTP/1.1 200"))
			if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 200" {
				return conn, fmt.Errorf("%q: %v", answer, err)
			}
		}
		return conn, nil
	}
	fresh := func() time.Duration {
		t.Helper()
		began := time.Now()
		conn, err := open(2)
		if err != nil {
			t.Fatalf("a fresh client: %v", err)
		}
		conn.Close()
		return time.Since(began)
	}
	fresh()
	goroutines, files, memory := c.metric(t, "go_goroutines"), c.files(t), c.resident(t)

	conns := make([]net.Conn, at)
	var workers sync.WaitGroup
	for w := range 16 {
		workers.Go(func() {
			for n := w; n < at; n += 16 {
				conn, err := open(n)
				if conns[n] = conn; err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
			}
		})
	}
	began := time.Now()
	workers.Wait()
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	if t.Failed() {
		return
	}
	opened, peak := time.Since(began), c.resident(t)
	served := fresh()
	t.Logf("%d connections in %s: %d KiB each; a fresh client took %s", at, opened.Round(time.Millisecond), (peak-memory)/at>>10, served.Round(time.Millisecond))
	if each := (peak - memory) / at; each > 100<<10 {
		t.Errorf("each connection took %d bytes", each)
	}
	if open := c.metric(t, "edgehold_mock_exchanges_open"); open != at/4 {
		t.Errorf("%d streams are open, want %d", open, at/4)
	}
	if served > 5*time.Second {
		t.Errorf("a fresh client waited %s", served)
	}
	for n, conn := range conns {
		if n%2 == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
		conns[n] = nil
	}
	for n := at; n < all; n++ { // what is left of 20,000
		conn, err := open(n)
		if err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		conn.Close()
	}
	eventually(t, func() error {
		if g, f, o := c.metric(t, "go_goroutines"), c.files(t), c.metric(t, "edgehold_mock_exchanges_open"); g > goroutines+8 || f > files+4 || o != 0 {
			return fmt.Errorf("%d goroutines, %d files and %d exchanges; before there were %d, %d and none", g, f, o, goroutines, files)
		}
		return nil
	})
	if took := fresh(); took > 5*time.Second {
		t.Errorf("a fresh client waited %s after all had gone", took)
	}
}
