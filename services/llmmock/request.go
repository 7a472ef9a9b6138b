package llmmock

import "time"

// Vendor is whose format a request came in.
type Vendor string

// The vendors.
const (
	OpenAI    Vendor = "openai"
	Azure     Vendor = "azure"
	Anthropic Vendor = "anthropic"
	Gemini    Vendor = "gemini"
	Bedrock   Vendor = "bedrock"
)

// Operation is what a request asks for, in no vendor's words.
type Operation string

// The operations. All but Generate have answers that follow from the request alone; latency, faults, limits and timelines hold
// for every one of them.
const (
	Generate Operation = "generate" // text, tool calls: chat, completions, responses, messages, converse …
	Embed    Operation = "embed"
	Count    Operation = "count" // tokens
	Other    Operation = "other" // objects and all the rest
)

// Role of a turn.
type Role string

// The roles. Developer instructions are System.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
	ToolRole  Role = "tool"
)

// Turn is one message of the conversation so far.
type Turn struct {
	Role Role
	// Text of all its parts, joined by newlines; what is no text counts in Media.
	Text  string
	Media int
	// Calls that the assistant made, Results that tools gave.
	Calls   []Call
	Results []Result
}

// Call of a tool by the model. Arguments is a JSON object.
type Call struct {
	ID, Name  string
	Arguments string
}

// Result of a tool, for the call with that id.
type Result struct {
	CallID, Text string
	Failed       bool
}

// Tool that the model may call. Schema is the JSON schema of its arguments, as it came; empty for none.
type Tool struct {
	Name, Description string
	Schema            []byte
}

// ToolChoice says whether tools are to be called.
type ToolChoice string

// The choices; Named has the tool in Request.NamedTool.
const (
	ToolsAuto     ToolChoice = ""
	ToolsNone     ToolChoice = "none"
	ToolsRequired ToolChoice = "required"
	ToolsNamed    ToolChoice = "named"
)

// Cache is the beginning of a prompt that is to be kept. The zero value is none.
type Cache struct {
	// Tools are kept, and so many Turns after them.
	Tools bool
	Turns int
	// Least is how many tokens it must have; with fewer nothing is kept.
	Least int
}

// Request is what a client asked.
type Request struct {
	Vendor    Vendor
	Operation Operation
	// Method and Path as on the wire, without the query.
	Method, Path string
	Model        string
	// Region of the provider that was asked, where the endpoint names one (Bedrock, a header); empty for none.
	Region string
	// Key is a fingerprint of the credential, never the credential itself; empty for none.
	Key string
	// Scenario asked for by name; empty for whatever matches.
	Scenario string
	// Client and Run tell clients apart in verdicts. Client falls back to the key and the user agent.
	Client, Run string
	// IdempotencyKey as sent; empty for none.
	IdempotencyKey string

	Turns      []Turn
	Tools      []Tool
	ToolChoice ToolChoice
	NamedTool  string
	// ParallelCalls is false when the client forbids more than one call in a turn.
	ParallelCalls bool
	// Schema that the answer's text shall be JSON of; nil for free text. JSON without a schema is an empty, non-nil one.
	Schema []byte
	// MaxTokens of the answer; 0 for no limit.
	MaxTokens int
	// Stop sequences.
	Stop []string
	// Choices wanted, at least 1.
	Choices int
	// Cache is what of the prompt the client wants the vendor to keep for its next requests.
	Cache Cache
	// Stream: the answer in pieces as they come into being.
	Stream bool
	// Thinking is how many tokens the model may think aloud; 0 for none.
	Thinking int

	// Inputs to Embed. An input that came as token ids is these, in decimal and separated by spaces.
	Inputs []string
	// InputTokens is how many token ids Inputs came as, and 0 when they are text, which is counted.
	InputTokens int
	// Dimensions of the embeddings; 0 for the model's own.
	Dimensions int

	// Background: the answer is due at once and says that it is being made; what the Schedule takes goes on after it.
	Background bool
	// Resumes is an answer that this one goes on with: its pieces are due when they are there. Nil for none.
	Resumes *Exchange
	// Missing is what the vendor answers because an object that the request refers to was never made. It is answered where
	// Strict.Objects holds; elsewhere the object is made up. Nil for none.
	Missing *Failure
	// Forged is what the vendor answers because the request's signature does not fit. It is answered where Strict.Signatures holds.
	// Nil for none.
	Forged *Failure

	// Hash of the request as it came, and when that was.
	Hash Hash
	At   time.Time
	// Size of the body in bytes.
	Size int

	// Query, ContentType and Body as they came: what a recorded answer is found by. They are there while the request is decided, and
	// not after it.
	Query, ContentType string
	Body               []byte
}

// Last is the text of the last turn of a user, and empty without one.
func (r *Request) Last() string {
	for i := len(r.Turns) - 1; i >= 0; i-- {
		if r.Turns[i].Role == User {
			return r.Turns[i].Text
		}
	}
	return ""
}

// Turn is the number of the turn that is being answered, from 1: how many there are of the user and of tools.
func (r *Request) Turn() int {
	n := 0
	for _, t := range r.Turns {
		if t.Role == User || t.Role == ToolRole {
			n++
		}
	}
	return n
}
