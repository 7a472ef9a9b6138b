package temporal

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Config is what an operator may set. Everything else is decided here, because every deployment of this engine is the
// same: one process, one machine, loopback only.
type Config struct {
	// Dir holds the database, the ports and the lock. It is created if missing. One engine per directory.
	Dir string
	// Namespace is created if missing, with the search attributes of SearchAttributes. Default "default".
	Namespace string
	// Port of the frontend on 127.0.0.1. 0 means the port of the last start in Dir, or a free one.
	Port int
	// UIPort of the web UI on 127.0.0.1. 0 means the port of the last start in Dir, or a free one.
	UIPort int
	// LogLevel is one of LogLevels; logs are JSON lines on stderr. Default "warn".
	LogLevel string
}

// LogLevels are the values that Config.LogLevel may have.
var LogLevels = []string{"debug", "info", "warn", "error"}

// Temporal's own rule for namespace names is wider; this is the part of it that needs no quoting anywhere.
var namespaceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// Validate fills the defaults in and says which field is wrong, what it is and what is allowed.
func (c *Config) Validate() error {
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	if c.LogLevel == "" {
		c.LogLevel = "warn"
	}
	switch {
	case c.Dir == "":
		return fmt.Errorf("dir: is empty; name the directory that holds the database")
	// The path becomes part of an SQLite URI, where these characters begin something else.
	case strings.ContainsAny(c.Dir, "?#%"):
		return fmt.Errorf("dir: %q holds one of ? # %%, which SQLite reads as the end of the path; choose another directory", c.Dir)
	case !namespaceName.MatchString(c.Namespace):
		return fmt.Errorf("namespace: %q is not allowed; use 1 to 63 letters, digits, '_', '.' or '-', beginning with a letter or digit", c.Namespace)
	case c.Namespace == "temporal-system":
		return fmt.Errorf("namespace: %q is Temporal's own; choose another", c.Namespace)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("port: %d is out of range; use 1 to 65535, or 0 for a free one", c.Port)
	case c.UIPort < 0 || c.UIPort > 65535:
		return fmt.Errorf("ui-port: %d is out of range; use 1 to 65535, or 0 for a free one", c.UIPort)
	case c.Port != 0 && c.Port == c.UIPort:
		return fmt.Errorf("ui-port: %d is also the frontend's port; use two different ones", c.UIPort)
	case !slices.Contains(LogLevels, c.LogLevel):
		return fmt.Errorf("log-level: %q is not one of %s", c.LogLevel, strings.Join(LogLevels, ", "))
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("dir: %q: %w", c.Dir, err)
	}
	c.Dir = dir
	return nil
}
