package temporal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// listeners are the things that need a port each, in the order in which ports are given out.
var listeners = []string{"frontend", "ui", "history", "matching", "worker"}

// state is what a second start needs to know of the first. It is written once the schema is complete, so a database
// without a state is the rest of a start that was killed half way and holds nothing.
type state struct {
	// Schema and VisibilitySchema are the versions of the server's SQLite schema. SQLite has no migrations in the server.
	Schema           string `json:"schema"`
	VisibilitySchema string `json:"visibility_schema"`
	// Shards is the number of history shards. It can never change for a database.
	Shards int32 `json:"shards"`
	// Ports by listener.
	Ports map[string]int `json:"ports"`
}

// readState returns nil and no error where there is none.
func readState(path string) (*state, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseState(data)
}

func parseState(data []byte) (*state, error) {
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if s.Shards < 1 {
		return nil, fmt.Errorf("shards: %d is not a number of shards", s.Shards)
	}
	for name, port := range s.Ports {
		if port < 1 || port > 65535 {
			return nil, fmt.Errorf("ports.%s: %d is not a port", name, port)
		}
	}
	return &s, nil
}

// write replaces the file in one step: a kill leaves the old one or the new one.
func (s *state) write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".state-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := f.Write(append(data, '\n')); err != nil {
		_ = f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// lock holds the directory for the life of the process; the kernel lets go of it however the process ends.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("dir: another edgehold-temporal runs in %s; stop it or choose another directory", dir)
		}
		return nil, fmt.Errorf("dir: cannot lock %s: %w", dir, err)
	}
	return f, nil
}

// choosePorts gives every listener a port: the one asked for, else the one of the last start, else a free one. A port
// that was asked for and is taken is an error; one that was only remembered is replaced.
func choosePorts(ctx context.Context, dir string, asked, remembered map[string]int) (map[string]int, error) {
	first, last := outsideEphemeral()
	taken := map[int]bool{}
	for _, p := range asked {
		taken[p] = true
	}
	// Two directories start to look at two places, so that two platforms that come up at once do not race for a port.
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir))
	next := first + int(h.Sum32()%uint32(last-first+1))
	ports := map[string]int{}
	for _, name := range listeners {
		if p := asked[name]; p != 0 {
			if err := free(ctx, p); err != nil {
				return nil, fmt.Errorf("port %d for the %s is not free (%w); stop what uses it or ask for another", p, name, err)
			}
			ports[name] = p
			continue
		}
		if p := remembered[name]; p != 0 && !taken[p] && free(ctx, p) == nil {
			ports[name], taken[p] = p, true
			continue
		}
		for tries := 0; ports[name] == 0; tries++ {
			if tries > last-first {
				return nil, fmt.Errorf("no free port for the %s between %d and %d on 127.0.0.1", name, first, last)
			}
			if !taken[next] && free(ctx, next) == nil {
				ports[name], taken[next] = next, true
			}
			if next++; next > last {
				next = first
			}
		}
	}
	return ports, nil
}

func free(ctx context.Context, port int) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

// outsideEphemeral is the range that ports are chosen from. The kernel gives ports of its ephemeral range to outgoing
// connections, and while the engine restarts one of those could sit on the port that everyone expects it on.
func outsideEphemeral() (first, last int) {
	first, last = 20000, 32767
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return first, last
	}
	fields := strings.Fields(string(data))
	if len(fields) != 2 {
		return first, last
	}
	low, err1 := strconv.Atoi(fields[0])
	high, err2 := strconv.Atoi(fields[1])
	switch {
	case err1 != nil || err2 != nil:
	case low > 20100:
		last = low - 1
	case high < 65000:
		first, last = high+1, 65535
	default: // The ephemeral range covers nearly everything; there is nothing better.
	}
	return first, last
}
