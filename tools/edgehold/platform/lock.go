package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edgehold/platform/process"
)

// lockName is the file in the platform directory that the supervisor holds locked for its life.
const lockName = "lock"

// takeLock makes this process the only supervisor of dir and writes who it is into the lock.
func takeLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, "platform", lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, problem.Preconditionf("--dir", "%w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, problem.Preconditionf("", "another supervisor runs in %s; see `edgehold platform status`, stop it with `edgehold platform down`", dir)
		}
		return nil, problem.Preconditionf("--dir", "cannot lock %s: %w", path, err)
	}
	self, err := process.Identify(os.Getpid())
	if err == nil {
		var data []byte
		if data, err = json.Marshal(self); err == nil {
			_, err = f.WriteAt(data, 0)
			err = errors.Join(f.Truncate(int64(len(data))), err)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, problem.Preconditionf("--dir", "cannot write %s: %w", path, err)
	}
	return f, nil
}

// lockOwner is who last took the lock.
func lockOwner(dir string) (process.ID, error) {
	var id process.ID
	data, err := os.ReadFile(filepath.Join(dir, "platform", lockName))
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(data, &id); err != nil {
		return id, fmt.Errorf("lock: %w", err)
	}
	return id, nil
}
