// Package fleet is the domain of blue/green fleets: one Fleet per PoP, whose active colour carries the traffic while the
// other stands by at the same size, so that a global rollback is a change of one label on every PoP.
//
// Start at Fleet, what is known of one; Preflight says whether it may cut over and Decide what its controller does next.
// Centre works on the fleets of many PoPs. The package does no I/O: kube reads and writes clusters, drain talks to pods,
// rpc serves the Connect API.
package fleet

import "time"

// Colour names one of the two Deployments of a fleet.
type Colour string

// The two colours. None is a Service that selects neither, or something that is not known.
const (
	None  Colour = ""
	Blue  Colour = "blue"
	Green Colour = "green"
)

// Other is the standby's colour when c is active, and None for None.
func (c Colour) Other() Colour {
	switch c {
	case Blue:
		return Green
	case Green:
		return Blue
	}
	return None
}

// Phase is where a fleet stands in a cutover.
type Phase string

// The phases.
const (
	Steady    Phase = "Steady"
	Blocked   Phase = "Blocked"   // declared, and preflight holds it back
	Ramping   Phase = "Ramping"   // the standby is brought to the active's size
	Switching Phase = "Switching" // the selector is set, endpoints of the old colour are still served
	Draining  Phase = "Draining"  // only the new colour is served, the old one lets its connections go
	Halted    Phase = "Halted"    // switched back, or fought over: a person is needed
)

// Outcome is how a cutover ended.
type Outcome string

// The outcomes.
const (
	Running    Outcome = "Running"
	Completed  Outcome = "Completed"
	Reverted   Outcome = "Reverted"   // switched back by itself within the guard time
	Expired    Outcome = "Expired"    // not switched before its deadline; nothing was changed
	Superseded Outcome = "Superseded" // replaced by a later declaration before it had switched
)

// Change is a declared cutover: who wants which colour, and why.
type Change struct {
	// ID is the operation id or idempotency key. The same id is the same cutover.
	ID        string
	To        Colour
	Principal string
	Reason    string
	// Version that the target colour must have; empty for any.
	Version string
	// Force goes past blockers that are Overridable.
	Force bool
	// Rollback: it leads back, away from a release. RollbackTarget goes by it.
	Rollback bool
	At       time.Time
	// Deadline after which a cutover that has not switched is abandoned; zero for the fleet's own timeout.
	Deadline time.Time
}

// Freeze is a time in which no cutover begins unless it is forced.
type Freeze struct {
	From, Until time.Time
	Reason      string
	Principal   string
	ID          string
}

// ColourState is one Deployment.
type ColourState struct {
	Deployment string
	// Version of the pod template; empty when it has none.
	Version string
	Desired int32
	Ready   int32
	// OpenConnections over all its pods; nil when nobody can tell.
	OpenConnections *int64
}

// Cutover is the record of one. Zero times are not reached yet; nil counts are unknown.
type Cutover struct {
	ID         string
	Generation int64
	From, To   Colour
	Version    string
	Principal  string
	Reason     string
	Forced     bool
	Rollback   bool
	Outcome    Outcome
	Message    string

	DeclaredAt          time.Time
	SwitchedAt          time.Time // the Service's selector was set
	SettledAt           time.Time // EndpointSlices served the new colour only
	LastNewConnectionAt time.Time // the old colour accepted its last connection
	DrainedAt           time.Time // no open connection on the old colour, or the drain's deadline passed

	ConnectionsAtSwitch *int64
	ConnectionsDrained  *int64
	ConnectionsReset    *int64
	ConnectionsLeft     *int64
	Ramp                time.Duration
	// Contended counts how often another writer set the selector back.
	Contended int32
	// Required is how many ready pods the target needed at the switch; with fewer in the guard time it has failed.
	Required int32
}

// Traffic is the active colour's traffic over a window.
type Traffic struct {
	Requests, Errors  int64
	RequestsPerSecond float64
	ErrorRatio        float64 // 0 to 1
	Window            time.Duration
	At                time.Time
}

// Condition is a named statement on a fleet with text that tells the operator what to do.
type Condition struct {
	Type    string
	Status  string // True, False or Unknown
	Reason  string
	Message string
	Since   time.Time
}

// Fleet is what one PoP's cluster says of one fleet.
type Fleet struct {
	Pop  string // empty in a controller, which knows only its cluster
	Name string
	// Active is the colour that the Service selects, Declared the one in the spec.
	Active, Declared Colour
	Phase            Phase
	Message          string
	Replicas         int32
	Blue, Green      ColourState
	// LastCutover is the one under way or else the last; History the earlier ones, newest first.
	LastCutover *Cutover
	History     []Cutover
	Conditions  []Condition
	Traffic     *Traffic
	Change      *Change
	Freezes     []Freeze
	// Generation of the spec and the one that the status speaks of.
	Generation, ObservedGeneration int64
}

// Colour returns the state of c. It panics for None.
func (f *Fleet) Colour(c Colour) *ColourState {
	switch c {
	case Blue:
		return &f.Blue
	case Green:
		return &f.Green
	}
	panic("fleet: no state for colour " + string(c))
}

// Blocker is a reason why a cutover would be refused.
type Blocker struct {
	// Reason for programs: standby_not_ready, wrong_version, frozen, contended, no_headroom, quota, misconfigured.
	Reason string
	// Message for an operator: what is wrong, and what to do.
	Message string
	// Overridable blockers do not hold back a forced cutover.
	Overridable bool
}

// Plan is what a cutover would do in one PoP.
type Plan struct {
	Pop      string
	From, To Colour
	Version  string
	// Already: the target is served and declared; nothing would be done.
	Already  bool
	Steps    []string
	Blockers []Blocker
	// Err is why the PoP could not be asked.
	Err error
}
