// Package process knows what Linux knows of processes: who one is beyond its reused number, when it has ended, who its
// orphans are, and that children die with their parent. It decides nothing. Start at ID and Starter.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ID is one process and no other. A pid alone is reused; with the time of its start it is not.
type ID struct {
	// PID is the process id. 0 is no process.
	PID int `json:"pid"`
	// Start is the time of the start in clock ticks since boot: field 22 of /proc/PID/stat, see proc(5).
	Start uint64 `json:"start_ticks"`
}

// ErrGone says that the process has ended.
var ErrGone = errors.New("the process has ended")

// stat is what of /proc/PID/stat is needed.
type stat struct {
	parent  int
	session int
	zombie  bool
	start   uint64
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, ErrGone
	}
	return parseStat(data)
}

// parseStat reads the fields behind the command, which may itself hold spaces and brackets.
func parseStat(data []byte) (stat, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("/proc/PID/stat: no command in %q", data)
	}
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/PID/stat: %d fields behind the command, want at least 20", len(fields))
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, fmt.Errorf("/proc/PID/stat: parent %q: %w", fields[1], err)
	}
	session, err := strconv.Atoi(fields[3])
	if err != nil {
		return stat{}, fmt.Errorf("/proc/PID/stat: session %q: %w", fields[3], err)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("/proc/PID/stat: start %q: %w", fields[19], err)
	}
	return stat{parent: parent, session: session, zombie: fields[0] == "Z" || fields[0] == "X", start: start}, nil
}

// Identify returns the ID of a running process, or ErrGone.
func Identify(pid int) (ID, error) {
	s, err := readStat(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, Start: s.start}, nil
}

// Alive says whether this very process runs. One that has ended and was not waited for does not.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	s, err := readStat(id.PID)
	return err == nil && s.start == id.Start && !s.zombie
}

// open returns a handle that stays with this process when its number is reused. The order matters: first the handle,
// then the check, so that what was checked is what is held.
func (id ID) open() (int, error) {
	if id.PID <= 0 {
		return -1, ErrGone
	}
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return -1, ErrGone
		}
		return -1, fmt.Errorf("pidfd_open(%d): %w", id.PID, err)
	}
	if !id.Alive() {
		_ = unix.Close(fd)
		return -1, ErrGone
	}
	return fd, nil
}

// Signal sends a signal to this very process. ErrGone when it has ended, whoever has its number now.
func (id ID) Signal(sig syscall.Signal) error {
	fd, err := id.open()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return ErrGone
		}
		return fmt.Errorf("signal %s to %d: %w", sig, id.PID, err)
	}
	return nil
}

// Await returns nil when the process has ended, and the cause of ctx when that ends first.
func (id ID) Await(ctx context.Context) error {
	fd, err := id.open()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer func() { _ = unix.Close(wake[0]) }()
	awake := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = unix.Close(wake[1]); close(awake) })
	defer func() {
		if stop() {
			_ = unix.Close(wake[1])
		} else {
			<-awake
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}}
		switch _, err := unix.Poll(fds, -1); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case fds[0].Revents != 0:
			return nil
		default:
			return context.Cause(ctx)
		}
	}
}

// RSS is the resident memory of the process in bytes, 0 when it has ended.
func (id ID) RSS() int64 {
	if !id.Alive() {
		return 0
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", id.PID))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// Adopt makes this process the parent of every orphan among its descendants (PR_SET_CHILD_SUBREAPER), so that none can
// escape from it by the death of the one that started it.
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_CHILD_SUBREAPER): %w", err)
	}
	return nil
}

// child is a child of this process.
type child struct {
	id ID
	stat
}

func children(parent int) ([]child, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []child
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil && s.parent == parent {
			found = append(found, child{id: ID{PID: pid, Start: s.start}, stat: s})
		}
	}
	return found, nil
}

// Age is how long the process has been running, 0 when it has ended.
func (id ID) Age() time.Duration {
	var now unix.Timespec
	if !id.Alive() || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	const ticks = 100 // USER_HZ is 100 on every architecture that Go knows.
	return time.Duration(now.Nano()) - time.Duration(id.Start)*(time.Second/ticks)
}
