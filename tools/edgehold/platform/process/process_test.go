package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sleeper(t *testing.T, s *Starter, script string) (*exec.Cmd, ID) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	id, err := s.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, id
}

func TestAnIDIsOneProcessAndNoOther(t *testing.T) {
	s := NewStarter()
	defer s.Close()
	cmd, id := sleeper(t, s, "exec sleep 60")
	if !id.Alive() || id.RSS() == 0 {
		t.Errorf("%v: alive %t, %d bytes", id, id.Alive(), id.RSS())
	}
	reused := ID{PID: id.PID, Start: id.Start - 1}
	if err := reused.Signal(syscall.SIGKILL); !errors.Is(err, ErrGone) || reused.Alive() {
		t.Errorf("a reused number: %v, alive %t", err, reused.Alive())
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := id.Await(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("await: %v", err)
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := id.Await(t.Context()); err != nil {
		t.Error(err)
	}
	if id.Alive() {
		t.Error("alive although it has ended and only waits to be reaped")
	}
	if err := s.Wait(cmd); err == nil || err.Error() != "signal: killed" {
		t.Errorf("wait: %v", err)
	}
	if err := id.Signal(syscall.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("signal to one that was reaped: %v", err)
	}
	if err := id.Await(t.Context()); err != nil {
		t.Errorf("await one that was reaped: %v", err)
	}
	if none := (ID{}); none.Alive() || none.RSS() != 0 || none.Age() != 0 {
		t.Error("no process is alive")
	}
}

func TestChildrenDieWithTheStarter(t *testing.T) {
	s := NewStarter()
	cmd, id := sleeper(t, s, "exec sleep 60")
	s.Close()
	if err := id.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func TestOrphansAreKilled(t *testing.T) {
	if err := Adopt(); err != nil {
		t.Fatal(err)
	}
	s := NewStarter()
	defer s.Close()
	// The first orphan stays in the session of its parent, the second leaves it.
	cmd, id := sleeper(t, s, "sleep 60 & setsid sleep 60 & sleep 0.1")
	if err := id.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(cmd); err != nil {
		t.Errorf("wait: %v", err)
	}
	if n := s.KillOrphans(); n != 1 {
		t.Errorf("%d orphans were left, want the one that left the session", n)
	}
	if left, err := children(os.Getpid()); err != nil || len(left) != 0 {
		t.Errorf("children %+v, %v", left, err)
	}
}

func TestParseStat(t *testing.T) {
	const fields = " S 7 70 700 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 987654 1 2"
	for _, tt := range []struct {
		line string
		ok   bool
	}{
		{"12 (sh)" + fields, true},
		{"12 (a b) c)" + fields, true},
		{"12 (sh) S 7", false},
		{"12 sh S 7 70", false},
		{"12 (sh) S x 70 700 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 987654", false},
		{"12 (sh) S 7 70 700 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 -5", false},
	} {
		s, err := parseStat([]byte(tt.line))
		if (err == nil) != tt.ok || tt.ok && s != (stat{parent: 7, session: 700, start: 987654}) {
			t.Errorf("%q: %+v, %v", tt.line, s, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (sh) S 7 70 700 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 987654 1 2"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseStat(data) })
}
