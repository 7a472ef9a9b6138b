package group

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays three parts: the tests, the guard, and a process with children that is killed.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "guard":
		if err := Guard(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case len(os.Args) > 1 && os.Args[1] == "victim":
		victim()
		return
	}
	goleak.VerifyTestMain(m)
}

// victim starts a group with a grandchild, prints the numbers of both, and waits to be killed.
func victim() {
	s, err := NewSpawner(Self("guard"))
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
	cmd.Stdout = os.Stdout
	g, err := s.Start(cmd)
	if err != nil {
		panic(err)
	}
	fmt.Println(g.ID())
	select {}
}

func alive(pid int) bool {
	// A zombie answers to signal 0; the state in /proc tells it apart.
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	after := data[bytes.LastIndexByte(data, ')')+1:]
	return !strings.HasPrefix(strings.TrimSpace(string(after)), "Z")
}

// gone waits for a process that is not our child, for which the kernel offers no event without a pidfd.
func gone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still alive", pid)
		}
		time.Sleep(time.Millisecond)
	}
}

func spawner(t *testing.T) *Spawner {
	t.Helper()
	s, err := NewSpawner(Self("guard"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestNothingOutlivesAKilledParent(t *testing.T) {
	parent := exec.Command(selfExecutable, "victim")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	lines := bufio.NewScanner(out)
	for len(pids) < 2 && lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		if !alive(pid) {
			t.Fatalf("process %d did not live before the kill", pid)
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	for _, pid := range pids {
		gone(t, pid)
	}
}

func TestChildrenEndWithTheirLeader(t *testing.T) {
	s := spawner(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; exit 7")
	cmd.Stdout = write
	g, err := s.Start(cmd)
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	<-g.Done()
	if code, sig := g.Exit(); code != 7 || sig != 0 {
		t.Errorf("exit code %d, signal %d; want 7, 0", code, sig)
	}
	out, _ := io.ReadAll(read) // ends because the child that holds the pipe is dead
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	g.Kill() // after the end: nobody is hit
}

func TestSignalsReachTheLeader(t *testing.T) {
	s := spawner(t)
	for _, tc := range []struct {
		send func(*Group)
		code int
		sig  syscall.Signal
	}{
		{func(g *Group) { g.Signal(syscall.SIGTERM) }, 128 + 15, syscall.SIGTERM},
		{func(g *Group) { g.Kill() }, 128 + 9, syscall.SIGKILL},
	} {
		g, err := s.Start(exec.Command("sleep", "1000"))
		if err != nil {
			t.Fatal(err)
		}
		tc.send(g)
		<-g.Done()
		if code, sig := g.Exit(); code != tc.code || sig != tc.sig {
			t.Errorf("exit code %d, signal %d; want %d, %d", code, sig, tc.code, tc.sig)
		}
	}
}

func TestGuardIsReplaced(t *testing.T) {
	s := spawner(t)
	g, err := s.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	s.guard.mu.Lock()
	first := s.guard.pipe
	first.Close() // the guard believes that we died, and kills
	s.guard.mu.Unlock()
	<-g.Done()
	if _, sig := g.Exit(); sig != syscall.SIGKILL {
		t.Errorf("ended by signal %d, want the guard's SIGKILL", sig)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		s.guard.mu.Lock()
		replaced := s.guard.pipe != first
		s.guard.mu.Unlock()
		if replaced {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the guard was not replaced")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestCloseKillsAndRefuses(t *testing.T) {
	s, err := NewSpawner(Self("guard"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	<-g.Done()
	if _, err := s.Start(exec.Command("true")); err != ErrClosed {
		t.Errorf("Start after Close: %v, want ErrClosed", err)
	}
}

func FuzzReadGroups(f *testing.F) {
	for _, seed := range []string{"", "+12\n-12\n", "+2\n+3\n-2\n", "+1\n", "+0\n", "+-5\n", "-", "x9\n", "+99999999999\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		groups, _ := readGroups(strings.NewReader(in))
		for id := range groups {
			if id < 2 {
				t.Fatalf("group %d of %q would be killed", id, in)
			}
		}
	})
}
