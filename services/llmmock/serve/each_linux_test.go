package serve

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a connection's two ends.
func pair(t *testing.T) (ours *net.TCPConn, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if theirs, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close(); _ = conn.Close() })
	return conn.(*net.TCPConn), theirs
}

func segments(t *testing.T, conn *net.TCPConn) (n uint32) {
	t.Helper()
	raw := rawOf(conn)
	if err := raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		n = info.Data_segs_out
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// Pieces that go to the system together are segments of their own, as those that are written one after the other.
func TestEachIsASegment(t *testing.T) {
	conn, client := pair(t)
	var p []byte
	var ends []int
	for i := range together {
		p = append(p, bytes.Repeat([]byte{byte('a' + i)}, 100+i)...)
		ends = append(ends, len(p))
	}
	for round := range 3 { // few enough for the first window
		before := segments(t, conn)
		if n := sendEach(rawOf(conn), p, ends); n != len(p) {
			t.Fatalf("%d bytes of %d", n, len(p))
		}
		if n := segments(t, conn) - before; n != together {
			t.Errorf("round %d: %d segments for %d pieces", round, n, together)
		}
		got := make([]byte, len(p))
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, p) {
			t.Errorf("round %d: %q, %v", round, got, err)
		}
	}
}

// What does not fit is left, to the byte.
func TestEachIntoAFullBuffer(t *testing.T) {
	conn, client := pair(t)
	p := bytes.Repeat([]byte("0123456789"), 5000)
	ends := []int{10_000, 25_000, 50_000}
	sent := 0
	for {
		n := sendEach(rawOf(conn), p, ends)
		sent += n
		if n < len(p) {
			break
		}
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(client)
	if err != nil || len(got) != sent {
		t.Errorf("%d bytes came of %d; %v", len(got), sent, err)
	}
	for i, b := range got {
		if b != p[i%len(p)] {
			t.Fatalf("byte %d is %q", i, b)
		}
	}
}

func TestEachOnAClosedConnection(t *testing.T) {
	conn, _ := pair(t)
	raw := rawOf(conn)
	conn.Close()
	if n := sendEach(raw, []byte("x"), []int{1}); n != 0 {
		t.Errorf("%d bytes", n)
	}
	if n := sendEach(rawOf(&resumed{}), []byte("x"), []int{1}); n != 0 {
		t.Errorf("%d bytes without a connection", n)
	}
}
