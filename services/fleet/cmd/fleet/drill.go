package main

import (
	"os"
	"strings"
	"time"

	"edgehold.internal/services/fleet/kube/controller"
)

// drillClock is a wall clock that is wrong by what a file says, so that a drill can let the clock of a running controller
// jump. The file holds a duration, such as 3h or -90m; without it, and with anything else in it, the clock is right. It is
// read anew at each look.
type drillClock struct {
	controller.Clock
	file string
}

// Now implements controller.Clock.
func (d drillClock) Now() time.Time {
	body, err := os.ReadFile(d.file)
	if err != nil {
		return d.Clock.Now()
	}
	off, err := time.ParseDuration(strings.TrimSpace(string(body)))
	if err != nil {
		return d.Clock.Now()
	}
	return d.Clock.Now().Add(off)
}
