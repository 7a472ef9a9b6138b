package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
)

// audit is the record that --direct leaves on this machine, beside the one in each Fleet: a line for the intent, one for
// each PoP and one for the end, as JSON.
type audit struct {
	mu     sync.Mutex
	file   *os.File
	change fleet.Change
	err    error
}

type auditLine struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"`
	ID        string    `json:"id"`
	Principal string    `json:"principal"`
	Fleet     string    `json:"fleet,omitempty"`
	To        string    `json:"to,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Scope     []string  `json:"scope,omitempty"`
	Force     bool      `json:"force,omitempty"`
	Selector  bool      `json:"force_selector,omitempty"`
	Pop       string    `json:"pop,omitempty"`
	Outcome   string    `json:"outcome,omitempty"`
}

// auditLog opens the file for audit lines. One that was configured must be there; where the default one cannot be made, the
// lines go to the error stream.
func auditLog(configured string) (*os.File, error) {
	const flags = os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if configured != "" {
		f, err := os.OpenFile(configured, flags, 0o600)
		if err != nil {
			return nil, noAudit(err)
		}
		return f, nil
	}
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		home, _ := os.UserHomeDir() // without one the directory is not absolute
		dir = filepath.Join(home, ".local", "state")
	}
	dir = filepath.Join(dir, "edgehold")
	if !filepath.IsAbs(dir) {
		return os.Stderr, nil
	}
	_ = os.MkdirAll(dir, 0o700) // without it the file cannot be opened
	f, err := os.OpenFile(filepath.Join(dir, "audit.log"), flags, 0o600)
	if err != nil {
		return os.Stderr, nil //nolint:nilerr // the lines are not lost, and nobody asked for this file
	}
	return f, nil
}

func noAudit(err error) error {
	return problem.Preconditionf("auditLog", "cannot write the audit log, and nothing is changed without one: %w; mend that, or set auditLog to /dev/stderr in the file of --config", err)
}

func openAudit(path string, change fleet.Change, r *request) (*audit, error) {
	file, err := auditLog(path)
	if err != nil {
		return nil, err
	}
	a := &audit{file: file, change: change}
	scope := r.scope.pops
	if len(scope) == 0 {
		scope = []string{"*"}
	}
	a.write(auditLine{Event: "begin", Fleet: r.fleet, To: string(change.To), Reason: change.Reason, Scope: scope, Force: change.Force, Selector: r.selector})
	if a.err != nil {
		a.close()
		return nil, noAudit(a.err)
	}
	return a, nil
}

func (a *audit) write(l auditLine) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l.Time, l.ID, l.Principal = time.Now(), a.change.ID, a.change.Principal
	body, err := json.Marshal(l)
	if err == nil {
		_, err = a.file.Write(append(body, '\n'))
	}
	a.err = errors.Join(a.err, err)
}

func (a *audit) result(r fleet.CutoverResult) {
	a.write(auditLine{Event: "pop", Pop: r.Pop, Outcome: outcome(r)})
}

func (a *audit) end(err error) {
	text := "done"
	if err != nil {
		text, _, _ = strings.Cut(err.Error(), "\n") // without the commands that help
	}
	a.write(auditLine{Event: "end", Outcome: text})
}

func (a *audit) close() {
	if a.file != os.Stderr {
		_ = a.file.Close()
	}
}
