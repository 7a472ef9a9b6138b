package llmmock

import "time"

// Scenario is how the provider behaves towards the requests that it is chosen for. Package scenario reads it from YAML; once in
// force it is never changed.
type Scenario struct {
	// Name is unique; a request may ask for it by name. The one named DefaultScenario takes what no other matches.
	Name        string
	Description string
	// Seed of everything that is drawn.
	Seed uint64
	// Epoch is the time that answers say they were made at.
	Epoch time.Time
	// Match chooses requests that do not name a scenario. The zero value matches none.
	Match Match
	// Answers in order; the first whose When matches is given. Without one the answer is DefaultAnswer.
	Answers []AnswerRule
	Latency Latency
	// Faults in order; the first that is due is committed.
	Faults []FaultRule
	// Timeline of what happens to the whole provider, on the clock since the scenario's start.
	Timeline []Phase
	Limits   LimitRule
	// Strict says how much of the vendor's own rules hold.
	Strict Strict
}

// DefaultScenario is the name of the scenario that always exists.
const DefaultScenario = "default"

// Match is a conjunction of what is set; each list holds alternatives. Patterns have * for any characters.
type Match struct {
	Vendors  []Vendor
	Models   []string // patterns
	Keys     []string // fingerprints, or patterns of what the key began with before it was reduced to one
	Clients  []string // patterns
	Paths    []string // patterns
	Contains []string // in the last turn of the user
	// Operations; empty for all.
	Operations []Operation
}

// AnswerRule is what to say, and when.
type AnswerRule struct {
	Match
	// Turn of the conversation that is answered, from 1; 0 for any.
	Turn int
	// AfterTool: the last turn is a tool's result of this name; empty for any.
	AfterTool string

	// One of these is set.
	Say     string       // fixed, or a template when it has {{
	Echo    bool         // what the user said last
	Lorem   int          // that many tokens of filler
	Lengths []int        // one of these numbers of tokens of filler, drawn
	Calls   []ToolScript // tools that are to be called
	Play    string       // the name of a recording

	// Thinking that goes before it, text; empty for none.
	Thinking string
	// Finish overrides what follows from the answer; empty for that.
	Finish Finish
	// Cached is how many of the prompt's tokens count as read from a cache.
	Cached int
}

// ToolScript is a call that the model makes. Arguments is a template of a JSON object; empty for arguments that the tool's schema
// allows.
type ToolScript struct {
	Name      string
	Arguments string
}

// Latency of answers. A nil distribution takes no time.
type Latency struct {
	// FirstToken from the arrival of the request to the first token.
	FirstToken Distribution
	// InterToken from one token to the next.
	InterToken Distribution
	// Prefill is added to FirstToken for every token of the prompt that is not cached.
	Prefill time.Duration
	// Total, when set, is the time to the last token: gaps are stretched to it.
	Total Distribution
	// Load stretches everything with the number of requests that are answered at the same time; the zero value never does.
	// With it a schedule depends on what else goes on.
	Load Load
	// Shape stretches everything with the time since the scenario's start, linear from one point to the next.
	Shape []Point
}

// Load multiplies latency by 1 + Factor × (requests under way − Free) / Free, once there are more than Free.
type Load struct {
	Free   int
	Factor float64
}

// Point of a shape: from At on, latency is multiplied by Factor.
type Point struct {
	At     time.Duration
	Factor float64
	// Step keeps the factor of the point before until At; without it the factor moves there in a line.
	Step bool
}

// Strict says which of the vendor's rules hold.
type Strict struct {
	// Lenient takes requests that the vendor's specification forbids.
	Lenient bool
	// Models refuses a model that the vendor does not list.
	Models bool
	// Objects answers 404 to an id that was never made; otherwise such an object is made up, as its specification says.
	Objects bool
	// Keys refuses a request without a credential, and Signatures one whose AWS signature does not fit.
	Keys, Signatures bool
}
