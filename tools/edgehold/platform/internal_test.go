package platform

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBackoffIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 1_000_000).Draw(t, "exits")
		now, next := backoff(n), backoff(n+1)
		if now > next || next > 10*time.Second || n == 1 && now != 0 {
			t.Errorf("backoff(%d) = %s, backoff(%d) = %s", n, now, n+1, next)
		}
	})
}

func TestBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.IntRange(0, 255).Draw(t, "b")
		n, err := blockNumber(block(b))
		if allowed := b >= firstBlock && b <= lastBlock; allowed != (err == nil) || allowed && n != b {
			t.Errorf("block %d: %d, %v", b, n, err)
		}
	})
	for _, text := range []string{"10.64.0.0/17", "10.64.1.0/16", "11.64.0.0/16", "::/16"} {
		if _, err := blockNumber(netip.MustParsePrefix(text)); err == nil {
			t.Errorf("%s is taken for a block", text)
		}
	}
	if got := serviceCIDR(block(77)).String(); got != "10.77.128.0/17" {
		t.Errorf("Services are in %s", got)
	}
	if got := apiAddress(block(77)); got != "127.77.0.1" {
		t.Errorf("the API is on %s", got)
	}
}

func TestTakeBlocks(t *testing.T) {
	mine, blocks, err := takeBlocks(t.Context(), "/a", "a", 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release(mine)
	b, err := blockNumber(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	if who := holder(t.Context(), b); who != "a" {
		t.Errorf("the holder is %q", who)
	}
	if _, err := hold(t.Context(), b, "b"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second hold: %v", err)
	}
	// Another one with the same wish takes the next ones.
	theirs, others, err := takeBlocks(t.Context(), "/a", "b", 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release(theirs)
	for _, x := range blocks {
		for _, y := range others {
			if x == y {
				t.Errorf("%s was given twice", x)
			}
		}
	}
	if _, _, err := takeBlocks(t.Context(), "/a", "c", 3, blocks); err == nil || !strings.Contains(err.Error(), "held by a") {
		t.Errorf("blocks of before that are held: %v", err)
	}
	// One more cluster than before: the old blocks and a new one.
	release(mine)
	more, grown, err := takeBlocks(t.Context(), "/a", "a", 4, blocks)
	if err != nil {
		t.Fatal(err)
	}
	defer release(more)
	for i, p := range blocks {
		if grown[i] != p {
			t.Errorf("block %d is %s, was %s", i, grown[i], p)
		}
	}
}

func release(locks []*held) {
	for _, l := range locks {
		_ = l.Close()
	}
}

func TestALogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine.log")
	l, err := openLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 29) + "\n"
	for range 50 {
		if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		if err != nil || info.Size() > 100 || info.Size() == 0 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	if got := tail(path, 1); got != strings.TrimSpace(line) {
		t.Errorf("tail: %q", got)
	}
	if got := tail(path+".none", 1); got != "" {
		t.Errorf("tail of no file: %q", got)
	}
}

func TestTheReadyLineIsFoundInPieces(t *testing.T) {
	l, err := openLog(filepath.Join(t.TempDir(), "engine.log"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	text := "hello\n" + strings.Repeat("y", 2*maxLine) + "\n{\"ready\":false}\n{\"ready\":true,\"api\":\"x\"}\n{\"ready\":true,\"api\":\"y\"}\n"
	rapid.Check(t, func(t *rapid.T) {
		found := make(chan announcement, 1)
		w := &readyLine{log: l, found: found}
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "bytes")
			_, _ = w.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		select {
		case a := <-found:
			if a.API != "x" {
				t.Errorf("found %+v", a)
			}
		default:
			t.Error("not found")
		}
	})
}

func FuzzParseState(f *testing.F) {
	good, err := json.Marshal(State{Version: stateVersion, Dir: "/x/.edgehold", Phase: Ready,
		Clusters: []ClusterState{{Name: "cluster-1", Block: block(64)}}, Engines: []Engine{{Name: "node-1", Kind: Node}}})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := parseState(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"dir":"/x","phase":"ready","supervisor":{"pid":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		// What is accepted must be safe to act on.
		if s.Supervisor.PID < 0 || s.Supervisor.PID == 1 || !filepath.IsAbs(s.Dir) {
			t.Errorf("accepted %+v", s)
		}
		for _, e := range s.Engines {
			if e.Process.PID < 0 || e.Process.PID == 1 {
				t.Errorf("accepted engine %+v", e)
			}
		}
		for _, c := range s.Clusters {
			_ = serviceCIDR(c.Block)
		}
	})
}
