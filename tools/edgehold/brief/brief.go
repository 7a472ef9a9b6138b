// Package brief lets a program that lives for a moment collect garbage late. Import it for that alone. Half of the processor time
// of a command goes into the init functions of its packages, a fifth of it into collections that find next to nothing, and in a
// rollback the moment counts. Packages come up in the order of their paths where their imports allow it, so this one comes
// before those that allocate.
package brief

import (
	"os"
	"runtime/debug"
)

func init() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
