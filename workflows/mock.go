package workflows

import (
	"context"
	"time"
)

// Outage is what a stand-in for model providers goes through for a while, so that a drill can switch it.
type Outage struct {
	// Name that it is ended by.
	Name string
	// Scenario of the mock that it holds for, or All of them: exactly one is set.
	Scenario string
	All      bool
	// Kind is outage, brownout, quota or dark; empty for outage.
	Kind string
	// Vendors, Models and Regions that it reaches, with * for any characters in the last two; empty for all.
	Vendors, Models, Regions []string
	// Share of the requests that are hit, 0 to 1, and Slow what a brownout multiplies latency by; 0 for the kind's own.
	Share, Slow float64
	// Status of HTTP that requests fail with; 0 for the kind's own.
	Status int
	// For how long. It is required: an outage ends by itself, whatever becomes of who started it.
	For time.Duration
	// Reason is kept in the mock's audit log.
	Reason string
}

// Mock is a stand-in for model providers. Errors are problems; both calls may be repeated with their key, and are done once.
type Mock interface {
	// StartOutage begins it now. AlreadyExists when one of that name lasts on other terms.
	StartOutage(ctx context.Context, o Outage, key string) error
	// EndOutage ends it early; one that is over is no error.
	EndOutage(ctx context.Context, o Outage, key string) error
}
