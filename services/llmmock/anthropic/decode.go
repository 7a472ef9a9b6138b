package anthropic

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// adaptiveThinking is how many tokens the model may think when it decides that for itself.
const adaptiveThinking = 1024

// What the vendor says of a member that is missing, and of one that should not be there.
const (
	required = "Field required"
	extra    = "Extra inputs are not permitted"
)

// messages decodes POST /v1/messages.
func (c *Config) messages(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &messageFormat{format: c.format(q, r)}
	q.Operation = llmmock.Generate
	d := decoder{r: jsonread.New(body), q: q, refusal: versioned(r), recent: recent(r)}
	if f.beta {
		d.resume(c.threads, body)
	}
	if e := d.request(); e != nil {
		return nil, malformed(body, e)
	}
	d.finish(true)
	if d.threaded {
		f.threads, f.before = c.threads, d.thread
	}
	f.omitThinking, f.warmOnly, f.keepLong = d.omitThinking, d.hasMaxTokens && q.MaxTokens == 0, d.keepLong
	return f, d.judge(c, "POST /v1/messages", f.beta, body)
}

// countTokens decodes POST /v1/messages/count_tokens, whose body is that of a message without what it takes to make one.
func (c *Config) countTokens(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &countFormat{c.format(q, r)}
	q.Operation = llmmock.Count
	d := decoder{r: jsonread.New(body), q: q, refusal: versioned(r), recent: recent(r)}
	if e := d.request(); e != nil {
		return nil, malformed(body, e)
	}
	d.finish(false)
	q.Stream = false
	return f, d.judge(c, "POST /v1/messages/count_tokens", f.beta, body)
}

// Hosted decodes a message as the platforms of other vendors take it that offer these models: the model, and whether the answer
// is streamed, are said outside of the body and set in q before; the body names the version. The Format writes Anthropic's own
// bodies and events, and calls the model by the given name. Message has the words of a refusal.
func Hosted(q *llmmock.Request, body []byte, model string) (provider.Format, *llmmock.Failure) {
	f := &messageFormat{format: format{q: q}, model: model}
	q.Operation = llmmock.Generate
	d := decoder{r: jsonread.New(body), q: q, hosted: true}
	if e := d.request(); e != nil {
		return nil, malformed(body, e)
	}
	if !d.seen.version {
		d.refuse("anthropic_version", required)
	}
	d.finish(true)
	f.omitThinking, f.warmOnly, f.keepLong = d.omitThinking, d.hasMaxTokens && q.MaxTokens == 0, d.keepLong
	return f, d.judge(nil, "", false, body)
}

// decoder reads one body.
type decoder struct {
	r jsonread.Reader
	q *llmmock.Request
	// hosted: by another vendor, whose platform says more than the body.
	hosted bool
	// recent: by the rules of RecentVersion.
	recent bool
	// refusal is the first thing that the vendor does not allow although it can be understood.
	refusal *llmmock.Failure

	seen         seen
	hasMaxTokens bool
	omitThinking bool
	budget       int
	betweenTools bool
	// calls of the assistant's last turn, and how many of them have no result yet.
	calls    map[string]bool
	open     int
	openAt   int
	lastRole llmmock.Role
	messages int
	// lastEmpty is the number, from 1, of the last message when it has no content.
	lastEmpty int
	// threaded: the conversation is to be held; thread is the one that goes on, nil for a new one.
	threaded bool
	thread   *thread
	// keepAll: the whole prompt is to be kept; keepLong: for an hour.
	keepAll, keepLong bool
}

type seen struct{ model, messages, system, toolChoice, tools, version bool }

// refuse keeps the first refusal. at is where, in the vendor's form; empty for the whole body.
func (d *decoder) refuse(at, message string) {
	if d.refusal == nil {
		d.refusal = &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Field: at, Message: message}
	}
}

// judge is the verdict on a body that was understood: the specification's, which knows more fields, before the rules that no
// schema can tell.
func (d *decoder) judge(c *Config, route string, beta bool, body []byte) *llmmock.Failure {
	if c != nil {
		if f := c.check(route, beta, body); f != nil {
			return f
		}
	}
	if at := d.r.Lone(); at > 0 && d.refusal == nil {
		d.refuse("", notJSON(body, at, "no low surrogate in string"))
	}
	return d.refusal
}

// request reads the whole body into d.q.
func (d *decoder) request() *jsonread.Error {
	// The first turn is kept for the system's prompt, which may come after the messages.
	d.q.Turns = append(make([]llmmock.Turn, 0, 4), llmmock.Turn{Role: llmmock.System})
	d.q.Choices, d.q.ParallelCalls = 1, true
	d.r.Object(d.member)
	if e := d.r.Close(); e != nil {
		return e
	}
	if !d.seen.system {
		d.q.Turns = d.q.Turns[1:]
		d.q.Cache.Turns = max(d.q.Cache.Turns-1, 0)
	}
	d.joined()
	if d.keepAll {
		d.q.Cache.Turns = len(d.q.Turns)
	}
	if d.q.Cache.Turns > 0 || d.q.Cache.Tools {
		d.q.Cache.Least = LeastCached(d.q.Model)
	}
	return nil
}

func (d *decoder) member(key []byte) {
	r, q := &d.r, d.q
	switch string(key) {
	case "temperature", "top_p", "top_k":
		d.sampling(string(key))
	case "model":
		if d.hosted {
			r.Skip()
			d.refuse("model", extra)
			return
		}
		q.Model, d.seen.model = r.String(), true
	case "messages":
		d.seen.messages = true
		r.Array(d.message)
	case "system":
		if r.Peek() == jsonread.String {
			q.Turns[0].Text = r.String()
			d.seen.system = q.Turns[0].Text != ""
		} else if !r.Null() {
			p := parts{d: d, turn: &q.Turns[0], message: -1}
			d.blocks(&p)
			p.turn.Text = p.Text()
			d.seen.system = p.blocks > 0
		}
	case "max_tokens":
		q.MaxTokens, d.hasMaxTokens = r.Int(), true
		if q.MaxTokens < 0 {
			d.refuse("max_tokens", "Input should be greater than or equal to 0")
			q.MaxTokens = 0
		}
	case "stream":
		q.Stream = r.Bool()
	case "stop_sequences":
		if !r.Null() {
			r.Array(d.stop)
		}
	case "tools":
		d.seen.tools = true
		r.Array(d.tool)
	case "tool_choice":
		d.seen.toolChoice = true
		r.Object(d.toolChoice)
	case "thinking":
		d.thinking()
	case "output_config":
		r.Object(func(key []byte) {
			if string(key) == "format" {
				d.outputFormat()
			}
		})
	case "output_format":
		d.outputFormat()
	case "cache_control":
		d.keepAll = d.cacheControl()
	case "metadata", "container", "service_tier", "speed", "diagnostics", "inference_geo", "context_management",
		"mcp_servers", "compaction", "fallbacks", "fallback_credit_token":
		// They change nothing here; the specification checks them.
	case "thread":
		if !d.threaded && !r.Null() {
			d.refuse("thread", extra)
		}
	case "anthropic_version", "anthropic_beta":
		d.seen.version = d.seen.version || string(key) == "anthropic_version"
		if !d.hosted {
			d.refuse(string(key), extra)
		}
	default:
		d.refuse(string(key), extra)
	}
}

// sampling reads one of its settings.
func (d *decoder) sampling(key string) {
	switch n := d.float(); {
	case d.recent:
		d.refuse(key, extra)
	case key == "top_k":
		if n < 0 {
			d.refuse(key, "Input should be greater than or equal to 0")
		}
	case n < 0 || n > 1:
		d.refuse(key, "range: 0..1")
	}
}

func (d *decoder) float() float64 {
	if d.r.Null() {
		return 0
	}
	return d.r.Float()
}

func (d *decoder) stop(i int) {
	s := d.r.String()
	if strings.TrimSpace(s) == "" && d.r.Err() == nil {
		d.refuse("stop_sequences", "each stop sequence must contain non-whitespace")
		return
	}
	d.q.Stop = append(d.q.Stop, s)
}

// cacheControl reads a mark behind what is to be kept, and is false for null.
func (d *decoder) cacheControl() bool {
	if d.r.Null() {
		return false
	}
	d.r.Object(func(key []byte) {
		if string(key) == "ttl" && !d.r.Null() {
			d.keepLong = d.r.String() == "1h"
		}
	})
	return true
}

// LeastCached is how many tokens the beginning of a prompt must have for the vendor to keep it.
func LeastCached(model string) int {
	for _, m := range []struct {
		name  string
		least int
	}{{"opus-4-5", 4096}, {"opus-4-6", 4096}, {"haiku-4-5", 4096}, {"opus-4-7", 2048}, {"3-haiku", 2048}, {"3-5-haiku", 2048}, {"opus-5", 512}} {
		if strings.Contains(model, m.name) {
			return m.least
		}
	}
	return 1024
}

func (d *decoder) outputFormat() {
	if d.r.Null() {
		return
	}
	d.r.Object(func(key []byte) {
		if string(key) == "schema" {
			d.q.Schema = bytes.Clone(d.r.Raw())
		}
	})
}

func (d *decoder) thinking() {
	var kind, display string
	budget, budgeted := 0, false
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "type":
			kind = d.r.String()
		case "budget_tokens":
			budget, budgeted = d.r.Int(), true
		case "display":
			if !d.r.Null() {
				display = d.r.String()
			}
		}
	})
	if d.r.Err() != nil {
		return
	}
	switch kind {
	case "enabled":
		switch {
		case !budgeted:
			d.refuse("thinking.enabled.budget_tokens", required)
		case budget < 1024:
			d.refuse("thinking.enabled.budget_tokens", "Input should be greater than or equal to 1024")
		}
		d.budget, d.q.Thinking = budget, max(budget, 0)
	case "adaptive":
		d.q.Thinking = adaptiveThinking
	case "between_tools":
		d.betweenTools = true
	case "disabled":
	case "":
		d.refuse("thinking", "Unable to extract tag using discriminator 'type'")
	default:
		d.refuse("thinking", "Input tag '"+kind+"' found using 'type' does not match any of the expected tags: 'adaptive', 'between_tools', 'disabled', 'enabled'")
	}
	d.omitThinking = display == "omitted"
}

// tool reads one definition. Those that the vendor runs itself are no tools that a client is asked to call.
func (d *decoder) tool(i int) {
	var t llmmock.Tool
	kind, hasSchema := "", false
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "name":
			t.Name = d.r.String()
		case "description":
			if !d.r.Null() {
				t.Description = d.r.String()
			}
		case "input_schema":
			hasSchema = true
			if d.r.Peek() == jsonread.Object {
				t.Schema = bytes.Clone(d.r.Raw())
			} else {
				d.r.Object(nil) // the error, with its path
			}
		case "type":
			if !d.r.Null() {
				kind = d.r.String()
			}
		case "cache_control":
			d.q.Cache.Tools = d.cacheControl() || d.q.Cache.Tools
		}
	})
	if d.r.Err() != nil {
		return
	}
	if kind == "" || kind == "custom" {
		at := ""
		if d.refusal == nil {
			at = "tools." + strconv.Itoa(i) + ".custom"
		}
		switch {
		case t.Name == "":
			d.refuse(at+".name", required)
		case !hasSchema:
			d.refuse(at+".input_schema", required)
		case !toolName(t.Name):
			d.refuse(at+".name", `String should match pattern '^[a-zA-Z0-9_-]{1,128}$'`)
		default:
			d.q.Tools = append(d.q.Tools, t)
		}
		return
	}
	for _, run := range [...]string{"bash_", "text_editor_", "computer_", "memory_"} {
		if strings.HasPrefix(kind, run) && t.Name != "" {
			d.q.Tools = append(d.q.Tools, t)
			return
		}
	}
}

func toolName(s string) bool {
	if len(s) > 128 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c-'0' <= 9, c == '_', c == '-':
		default:
			return false
		}
	}
	return s != ""
}

func (d *decoder) toolChoice(key []byte) {
	switch string(key) {
	case "type":
		switch kind := d.r.String(); kind {
		case "auto":
			d.q.ToolChoice = llmmock.ToolsAuto
		case "any":
			d.q.ToolChoice = llmmock.ToolsRequired
		case "tool":
			d.q.ToolChoice = llmmock.ToolsNamed
		case "none":
			d.q.ToolChoice = llmmock.ToolsNone
		default:
			if d.r.Err() == nil {
				d.refuse("tool_choice", "Input tag '"+kind+"' found using 'type' does not match any of the expected tags: 'any', 'auto', 'none', 'tool'")
			}
		}
	case "name":
		d.q.NamedTool = d.r.String()
	case "disable_parallel_tool_use":
		d.q.ParallelCalls = !d.r.Bool()
	}
}

// message reads one of the messages, as one turn: whoever gives results of tools along with words is a tool here.
func (d *decoder) message(i int) {
	if d.messages++; d.messages > MaxMessages {
		return
	}
	t := llmmock.Turn{}
	p := parts{d: d, turn: &t, message: i}
	hasRole, hasContent := false, false
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "role":
			hasRole = true
			switch role := d.r.String(); role {
			case "user":
				t.Role = llmmock.User
			case "assistant":
				t.Role = llmmock.Assistant
			case "system":
				t.Role = llmmock.System
			default:
				if d.r.Err() == nil {
					d.refuse("messages."+strconv.Itoa(i)+".role", "Input should be 'user', 'assistant' or 'system'")
					t.Role = llmmock.User
				}
			}
		case "content":
			hasContent = true
			if d.r.Peek() == jsonread.String {
				t.Text = d.r.String()
				if t.Text != "" {
					p.blocks = 1
				}
				return
			}
			d.blocks(&p)
			p.turn.Text = p.Text()
		}
	})
	if d.r.Err() != nil {
		return
	}
	if !hasRole || !hasContent {
		at := "messages." + strconv.Itoa(i)
		if !hasContent {
			d.refuse(at+".content", required)
		}
		if !hasRole {
			d.refuse(at+".role", required)
			t.Role = llmmock.User
		}
	}
	if d.recent {
		switch at := "messages." + strconv.Itoa(i) + ".content"; {
		case t.Role == llmmock.Assistant && p.document:
			d.refuse(at, "document blocks are not permitted in assistant messages")
		case t.Role == llmmock.User && p.cited:
			d.refuse(at, "citations are not permitted on text blocks in user messages")
		}
	}
	if i == 0 && t.Role == llmmock.Assistant {
		d.refuse("messages", `first message must use the "user" role`)
	}
	d.emptyMessage()
	d.pair(i, &t)
	if p.blocks == 0 && hasContent {
		d.lastEmpty = i + 1
	}
	if len(t.Results) > 0 {
		t.Role = llmmock.ToolRole
	}
	d.q.Turns = append(d.q.Turns, t)
}

// emptyMessage refuses the message before the one that was read now if it had no content, which only the last of the assistant may.
func (d *decoder) emptyMessage() {
	if d.lastEmpty > 0 {
		d.refuse("messages."+strconv.Itoa(d.lastEmpty-1), "all messages must have non-empty content except for the optional final assistant message")
		d.lastEmpty = 0
	}
}

// pair holds calls of tools and their results together: each result belongs to a call of the turn before, each call has one.
// Messages of the same role in a row are one turn.
func (d *decoder) pair(i int, t *llmmock.Turn) {
	switch t.Role {
	case llmmock.Assistant:
		if d.lastRole == llmmock.User {
			d.unanswered()
			clear(d.calls)
			d.open = 0
		}
		for _, c := range t.Calls {
			if d.calls == nil {
				d.calls = make(map[string]bool, len(t.Calls))
			}
			if _, twice := d.calls[c.ID]; twice {
				d.refuse("messages."+strconv.Itoa(i), "`tool_use` ids must be unique")
				continue
			}
			d.calls[c.ID] = false
			d.open++
			d.openAt = i
		}
	case llmmock.User:
		for _, r := range t.Results {
			answered, known := d.calls[r.CallID]
			if !known {
				d.refuse("messages."+strconv.Itoa(i), "unexpected `tool_use_id` found in `tool_result` blocks: "+r.CallID+
					". Each `tool_result` block must have a corresponding `tool_use` block in the previous message.")
				continue
			}
			if answered {
				d.refuse("messages."+strconv.Itoa(i), "each tool_use must have a single result. Found multiple `tool_result` blocks with id: "+r.CallID)
				continue
			}
			d.calls[r.CallID] = true
			d.open--
		}
	default:
		return
	}
	d.lastRole = t.Role
}

func (d *decoder) unanswered() {
	if d.open == 0 {
		return
	}
	var ids []string
	for id, answered := range d.calls {
		if !answered {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	const most = 20
	d.refuse("messages."+strconv.Itoa(d.openAt), "`tool_use` ids were found without `tool_result` blocks immediately after: "+
		strings.Join(ids[:min(len(ids), most)], ", ")+". Each `tool_use` block must have a corresponding `tool_result` block in the next message.")
}

// finish judges what can be judged only when all of the body is known.
func (d *decoder) finish(generate bool) {
	q := d.q
	switch {
	case d.hosted: // the model is named elsewhere
	case !d.seen.model:
		d.refuse("model", required)
	case q.Model == "":
		d.refuse("model", "String should have at least 1 character")
	}
	if generate && !d.hasMaxTokens {
		d.refuse("max_tokens", required)
	}
	if !d.seen.messages {
		d.refuse("messages", required)
		return
	}
	if d.messages == 0 {
		d.refuse("messages", "at least one message is required")
		return
	}
	if d.messages > MaxMessages {
		d.refuse("messages", "List should have at most "+strconv.Itoa(MaxMessages)+" items after validation, not "+strconv.Itoa(d.messages))
	}
	last := &q.Turns[len(q.Turns)-1]
	if d.lastEmpty > 0 && last.Role != llmmock.Assistant {
		d.emptyMessage()
	}
	if last.Role == llmmock.Assistant && strings.TrimRight(last.Text, " \t\r\n") != last.Text {
		d.refuse("messages", "final assistant content cannot end with trailing whitespace")
	}
	d.unanswered()
	if d.betweenTools && last.Role == llmmock.ToolRole {
		q.Thinking = adaptiveThinking
	}
	if d.budget > 0 && generate && d.hasMaxTokens && q.MaxTokens <= d.budget {
		d.refuse("", "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking#max-tokens-and-context-window-size")
	}
	d.finishTools()
}

func (d *decoder) finishTools() {
	q := d.q
	if d.seen.toolChoice && !d.seen.tools {
		d.refuse("", "tool_choice: may only be specified while providing tools")
	}
	if q.ToolChoice == llmmock.ToolsNamed {
		if q.NamedTool == "" {
			d.refuse("tool_choice.tool.name", required)
		} else if !slices.ContainsFunc(q.Tools, func(t llmmock.Tool) bool { return t.Name == q.NamedTool }) {
			d.refuse("", "Tool '"+q.NamedTool+"' not found in provided tools")
		}
	}
	if d.budget > 0 && (q.ToolChoice == llmmock.ToolsNamed || q.ToolChoice == llmmock.ToolsRequired) {
		d.refuse("", "Thinking may not be enabled when tool_choice forces tool use.")
	}
	if repeated(q.Tools) {
		d.refuse("tools", "Tool names must be unique.")
	}
}

// repeated says whether two tools have one name. Few are compared with each other, which is cheaper than a map.
func repeated(tools []llmmock.Tool) bool {
	if len(tools) <= 16 {
		for i := range tools {
			for j := range i {
				if tools[i].Name == tools[j].Name {
					return true
				}
			}
		}
		return false
	}
	names := make(map[string]struct{}, len(tools))
	for _, t := range tools {
		names[t.Name] = struct{}{}
	}
	return len(names) < len(tools)
}
