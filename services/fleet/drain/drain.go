// Package drain talks to pods that shall let their connections go, and take new ones again later: a drain here is always
// reversible, because the drained pods are the next standby. Start at Method, of which there is one adapter per
// technology; New picks it.
package drain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"edgehold.internal/services/fleet"
)

// Method speaks to one pod at a time, by its address without a port. It is safe for concurrent use. Its errors are
// sentences on what the pod did not do; ErrCannot when the technology has no way to do it.
type Method interface {
	// Read says what the pod has open.
	Read(ctx context.Context, host string) (Connections, error)
	// Drain tells the pod to let its connections go, and Undrain that it is a standby again. Both may be repeated.
	Drain(ctx context.Context, host string) error
	Undrain(ctx context.Context, host string) error
	// Reset closes what is open and says how many connections that were.
	Reset(ctx context.Context, host string) (int64, error)
}

// Connections of one pod.
type Connections struct {
	// Open now, and Accepted since the pod started.
	Open, Accepted int64
	// LastAccepted is when the last one was accepted; zero when the pod does not say.
	LastAccepted time.Time
	// Draining: the pod was told, and has not been told otherwise.
	Draining bool
}

// ErrCannot is returned for what a technology has no way to do.
var ErrCannot = errors.New("this drain method cannot do that")

// New picks the method of a spec; nil for wait, which speaks to nobody.
func New(spec fleet.DrainSpec, dial Dialer) (Method, error) {
	switch spec.Method {
	case fleet.DrainWait, "":
		return nil, nil
	case fleet.DrainHTTP:
		return NewHTTP(dial, spec.Port, spec.Path), nil
	case fleet.DrainEnvoy:
		return NewEnvoy(dial, spec.Port), nil
	case fleet.DrainHAProxy:
		return NewHAProxy(dial, spec.Port), nil
	case fleet.DrainNginx:
		return NewNginx(dial, spec.Port, spec.Path), nil
	}
	return nil, fmt.Errorf("drain.method: %q is not one of wait, http, envoy, haproxy, nginx", spec.Method)
}
