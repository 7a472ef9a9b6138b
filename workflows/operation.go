// Package workflows is the domain of global operations: what is done to all PoPs of a fleet, in which order, when it
// stops to ask a person, and how it ended. It is deterministic and does no I/O, so that a workflow engine can replay it:
// time and results are handed in.
//
// Start at Run, which decides; Operation is what one sees of it. Fleets is what an operation needs of the fleet service,
// Operations what a person can ask for. The package temporal runs it, rpc serves it.
package workflows

import (
	"context"
	"time"
)

// Colour names one of the two Deployments of a fleet.
type Colour string

// The colours. None is not known, or to be found out.
const (
	None  Colour = ""
	Blue  Colour = "blue"
	Green Colour = "green"
)

// Kind says why a fleet is cut over; the steps are the same.
type Kind string

// The kinds.
const (
	Rollback Kind = "rollback" // to the colour that was active before
	Cutover  Kind = "cutover"  // to a colour that the caller names
)

// State is where an operation stands.
type State string

// The states. The last four are ends.
const (
	Running   State = "RUNNING"
	Paused    State = "PAUSED"    // starts no further PoPs until it is resumed
	Waiting   State = "WAITING"   // asks a person: approve or abort
	Succeeded State = "SUCCEEDED" // every PoP in scope serves the target
	Partial   State = "PARTIAL"   // some PoPs do not serve the target
	Failed    State = "FAILED"    // no PoP was changed
	Aborted   State = "ABORTED"
)

// Ended tells the ends from the rest.
func (s State) Ended() bool {
	return s == Succeeded || s == Partial || s == Failed || s == Aborted
}

// Step is how far one PoP has come.
type Step string

// The steps. A PoP goes through the first five in this order; the others are ends.
const (
	Pending   Step = "PENDING"
	Switching Step = "SWITCHING"
	Switched  Step = "SWITCHED"
	Draining  Step = "DRAINING"
	Done      Step = "DONE"
	Already   Step = "ALREADY" // served the target before
	Blocked   Step = "BLOCKED" // preflight refused it; it was left as it was
	Broken    Step = "FAILED"  // was asked and did not switch, or switched back
	Skipped   Step = "SKIPPED" // its turn never came
)

// rank orders the steps, so that a late report never takes a PoP back.
func (s Step) rank() int {
	switch s {
	case Pending:
		return 0
	case Switching:
		return 1
	case Switched:
		return 2
	case Draining:
		return 3
	}
	return 4
}

// Serves says whether a PoP at this step serves the target.
func (s Step) Serves() bool {
	return s == Switched || s == Draining || s == Done || s == Already
}

// Request is what a global cutover is asked to do.
type Request struct {
	Kind  Kind   `json:"kind"`
	Fleet string `json:"fleet"`
	// Pops by name, or All of the registry: exactly one of them.
	Pops []string `json:"pops,omitempty"`
	All  bool     `json:"all,omitempty"`
	// To is required for a Cutover. None for a Rollback: the colour that was active before.
	To Colour `json:"to,omitempty"`
	// Version that the target must have; empty for any.
	Version string `json:"version,omitempty"`
	// FirstPop goes alone before all others; empty for none.
	FirstPop string `json:"first_pop,omitempty"`
	// WaveSize in PoPs; 0 for all at once.
	WaveSize int `json:"wave_size,omitempty"`
	// ApproveWaves waits for a person between waves.
	ApproveWaves bool `json:"approve_waves,omitempty"`
	// Jitter spreads the starts within a wave. Nil for DefaultJitter, at most MaxJitter.
	Jitter *time.Duration `json:"jitter,omitempty"`
	// MaxFailedPops may be blocked or failed before the operation stops and asks. Nil for a third of the scope.
	MaxFailedPops *int `json:"max_failed_pops,omitempty"`
	// MaxErrorRatio of the edge that counts as recovered, 0 to 1. Nil for DefaultMaxErrorRatio.
	MaxErrorRatio *float64 `json:"max_error_ratio,omitempty"`
	// Force goes past overridable blockers.
	Force bool `json:"force,omitempty"`
	// Deadline of each PoP's switch. 0 for DefaultDeadline, at most MaxDeadline.
	Deadline time.Duration `json:"deadline,omitempty"`
}

// Start is a request with who asks for it, and why.
type Start struct {
	Request   Request `json:"request"`
	Principal string  `json:"principal"`
	Reason    string  `json:"reason"`
	// Key makes a repeated start the same start.
	Key string `json:"key"`
	// Supersede aborts the operation that the fleet has under way, and begins when that one has ended.
	Supersede bool `json:"supersede,omitempty"`
	// Supersedes is the id of the operation that was aborted. It is found at the start and not asked for.
	Supersedes string `json:"supersedes,omitempty"`
}

// Plan is what preflight found.
type Plan struct {
	// To is the target that was asked for or found.
	To   Colour    `json:"to"`
	At   time.Time `json:"at"`
	Pops []PopPlan `json:"pops"`
}

// PopPlan is one PoP of a Plan.
type PopPlan struct {
	Pop     string `json:"pop"`
	From    Colour `json:"from,omitempty"`
	Already bool   `json:"already,omitempty"`
	// Blocked says why it would be refused; empty when it would go through.
	Blocked string `json:"blocked,omitempty"`
}

// Pop is the progress of one PoP.
type Pop struct {
	Name string `json:"name"`
	Step Step   `json:"step"`
	// Message says why it is blocked or failed, or what it waits for.
	Message    string    `json:"message,omitempty"`
	From       Colour    `json:"from,omitempty"`
	To         Colour    `json:"to,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	SwitchedAt time.Time `json:"switched_at,omitzero"`
	DrainedAt  time.Time `json:"drained_at,omitzero"`
	// Connections of the old colour; nil when nobody can tell.
	Open    *int64 `json:"open,omitempty"`
	Drained *int64 `json:"drained,omitempty"`
	Reset   *int64 `json:"reset,omitempty"`
}

// Report is what is known of a PoP under way. Zero fields say nothing new.
type Report struct {
	Pop        string    `json:"pop"`
	Step       Step      `json:"step"`
	Message    string    `json:"message,omitempty"`
	From       Colour    `json:"from,omitempty"`
	SwitchedAt time.Time `json:"switched_at,omitzero"`
	DrainedAt  time.Time `json:"drained_at,omitzero"`
	Open       *int64    `json:"open,omitempty"`
	Drained    *int64    `json:"drained,omitempty"`
	Reset      *int64    `json:"reset,omitempty"`
}

// Verb is what a person decides.
type Verb string

// The verbs.
const (
	Approve Verb = "approve" // go on with what is asked
	Pause   Verb = "pause"   // start no further PoPs
	Resume  Verb = "resume"
	Abort   Verb = "abort" // start no further PoPs and end
)

// Decision is one act of a person on an operation.
type Decision struct {
	Verb      Verb      `json:"verb"`
	Principal string    `json:"principal"`
	Reason    string    `json:"reason"`
	Key       string    `json:"key"`
	At        time.Time `json:"at,omitzero"`
}

// Operation is what one sees of a Run.
type Operation struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Message is one sentence: where it stands, or what is asked.
	Message      string        `json:"message"`
	Principal    string        `json:"principal"`
	Reason       string        `json:"reason"`
	Request      Request       `json:"request"`
	To           Colour        `json:"to,omitempty"`
	StartedAt    time.Time     `json:"started_at,omitzero"`
	EndedAt      time.Time     `json:"ended_at,omitzero"`
	Waves        [][]Pop       `json:"waves,omitempty"`
	Verification *Verification `json:"verification,omitempty"`
	Decisions    []Decision    `json:"decisions,omitempty"`
	// Revision rises with each change.
	Revision int64 `json:"revision"`
	// Supersedes is the operation that was aborted for this one; empty for none.
	Supersedes string `json:"supersedes,omitempty"`
}

// Change asks one PoP to switch.
type Change struct {
	Pop   string `json:"pop"`
	Fleet string `json:"fleet"`
	To    Colour `json:"to"`
	// Version that the target must have; empty for any.
	Version   string `json:"version,omitempty"`
	Principal string `json:"principal"`
	Reason    string `json:"reason"`
	// Key makes a repeated ask the same ask.
	Key   string `json:"key"`
	Force bool   `json:"force,omitempty"`
	// Rollback is kept in the PoP's record, so that the next rollback knows that it was one.
	Rollback bool          `json:"rollback,omitempty"`
	Deadline time.Duration `json:"deadline"`
}

// Observation is what the fleet service says of one PoP.
type Observation struct {
	Pop string
	// Open connections by colour; nil entries when nobody can tell.
	Blue, Green *int64
	// Last is the PoP's last cutover; nil when there was none.
	Last *PopCutover
	// Traffic of the active colour; nil when it is not measured.
	Traffic *Traffic
	// Problem says why the PoP could not be read; the other fields are zero then.
	Problem string
}

// PopCutover is the record of one PoP's cutover.
type PopCutover struct {
	// Key of the Change.
	Key        string
	From       Colour
	DeclaredAt time.Time
	SwitchedAt time.Time
	DrainedAt  time.Time
	// Ended is not true while it is under way.
	Ended bool
	// Undone by itself, or replaced before it had switched.
	Undone  bool
	Message string
	Drained *int64
	Reset   *int64
	Left    *int64
}

// Fleets is what operations need of the fleet service. Errors are *problem.Error; of kind Unavailable or ResourceExhausted
// when asking again may help.
type Fleets interface {
	// Plan says what a request would do and changes nothing. Invalid, NotFound or FailedPrecondition when the request as
	// a whole cannot work; what stands in the way of one PoP is in its PopPlan.
	Plan(ctx context.Context, r Request) (Plan, error)
	// CutOver switches one PoP and returns when it has switched: the step is Switched, Already, or Broken when it was
	// switched back. FailedPrecondition: preflight refused it and nothing was changed. DeadlineExceeded: it was declared, and
	// the PoP goes on by itself.
	CutOver(ctx context.Context, c Change) (Report, error)
	// Watch calls f with each PoP at once and after each change, until f returns an error, which it returns, or ctx ends.
	Watch(ctx context.Context, fleet string, pops []string, f func(Observation) error) error
}

// Operations is what a person can ask for. Errors are *problem.Error; Unavailable when the engine cannot be reached.
type Operations interface {
	// Start begins an operation. AlreadyExists with Meta["operation"] when the fleet has one under way that is not to be
	// superseded, or when the key was used with another payload. The same key and payload return the first operation.
	Start(ctx context.Context, s Start) (Operation, error)
	// Get returns NotFound for an id that names none.
	Get(ctx context.Context, id string) (Operation, error)
	// List returns operations without waves, newest first, and the token of the next page, empty on the last. An empty fleet
	// is every fleet.
	List(ctx context.Context, fleet string, size int, token string) ([]Operation, string, error)
	// Watch calls f at once and after each change, and returns when the operation has ended, f fails or ctx ends.
	Watch(ctx context.Context, id string, f func(Operation) error) error
	// Decide returns FailedPrecondition when the operation's state does not allow it. A repeated key changes nothing.
	Decide(ctx context.Context, id string, d Decision) (Operation, error)
}
