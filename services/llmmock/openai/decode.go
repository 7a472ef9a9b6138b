package openai

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// The vendor's bounds, which are ours too: they hold whatever a scenario says.
const (
	maxMessages = 2048
	maxTools    = 128
	maxChoices  = 128
	maxStops    = 4
	maxTop      = 20 // alternatives of a token
)

// decoder reads one body. The first thing that is hopelessly wrong ends it; of what is only against the rules the first is kept.
type decoder struct {
	jsonread.Reader
	body  []byte
	q     *llmmock.Request
	wrong refusal
	doubt *llmmock.Failure
	// model was set by the path.
	model bool
	// custom tools, which take text instead of a JSON object.
	custom []string
	// allowed are the only tools that may be called; nil for all of them.
	allowed []string
	// hosted is the first tool that the vendor runs itself, and hostedChoice the one that was chosen; nil for none.
	hosted, hostedChoice *hosted
}

func (w *wire) decoder(q *llmmock.Request, r *http.Request, body []byte) decoder {
	d := decoder{Reader: jsonread.New(body), body: body, q: q}
	if w.azure() {
		if m := r.PathValue("deployment"); m != "" {
			q.Model, d.model = m, true
		}
	}
	return d
}

// refusal is an error in the vendor's words, which have the path of the field in their middle, unless nothing comes after.
type refusal struct{ code, before, after string }

func (d *decoder) refuse(code, before, after string) {
	d.wrong = refusal{code, before, after}
	d.Fail("refused")
}

// rule notes that the request is understood but forbidden.
func (d *decoder) rule(field, code, message string) {
	if d.doubt == nil {
		d.doubt = &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Field: field, Code: code, Message: message}
	}
}

const (
	missingCode = "missing_required_parameter"
	typeCode    = "invalid_type"
	valueCode   = "invalid_value"
)

func bad(field, code, message string) *llmmock.Failure {
	return &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Field: field, Code: code, Message: message}
}

func missing(field string) *llmmock.Failure {
	return bad(field, missingCode, "Missing required parameter: '"+field+"'.")
}

// miss refuses the value that is being read because it has no such member.
func (d *decoder) miss(key string) {
	d.wrong = refusal{missingCode, "Missing required parameter: '", "'."}
	d.FailAt(key, "missing")
}

// end is what is hopeless about the body, and nil when it was understood.
func (d *decoder) end() *llmmock.Failure {
	err := d.Close()
	if err == nil {
		return nil
	}
	switch {
	case err.Deep:
		return bad("", "", "The JSON body of your request is nested too deeply: more than "+strconv.Itoa(jsonread.MaxDepth)+" levels.")
	case err.Syntax:
		return bad("", "", "We could not parse the JSON body of your request. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.")
	}
	field := path(err.Path())
	switch {
	case d.wrong.code != "" && d.wrong.after == "":
		return bad(field, d.wrong.code, d.wrong.before)
	case d.wrong.code != "":
		return bad(field, d.wrong.code, d.wrong.before+field+d.wrong.after)
	case field == "":
		return bad("", "", "Invalid body: expected "+article(err.Want.String())+", but got "+d.what(err)+" instead.")
	case err.Message != "": // of a number
		return bad(field, typeCode, "Invalid type for '"+field+"': expected an integer, but got "+d.what(err)+" instead.")
	}
	want := err.Want.String()
	if err.Want == jsonread.Number {
		want = "integer"
	}
	return bad(field, typeCode, "Invalid type for '"+field+"': expected "+article(want)+", but got "+d.what(err)+" instead.")
}

// what is there instead of what was expected.
func (d *decoder) what(err *jsonread.Error) string {
	switch err.Got {
	case jsonread.Null:
		return "null"
	case jsonread.Number, jsonread.None:
		i := min(err.Offset, len(d.body))
		n := 0
		for n < len(d.body)-i && strings.IndexByte("+-0123456789", d.body[i+n]) >= 0 {
			n++
		}
		if i+n < len(d.body) && strings.IndexByte(".eE", d.body[i+n]) >= 0 {
			return "a decimal number"
		}
		return "an integer"
	}
	return article(err.Got.String())
}

func article(noun string) string {
	if strings.IndexByte("aeiou", noun[0]) >= 0 {
		return "an " + noun
	}
	return "a " + noun
}

// path as the vendor writes it, such as messages[0].content.
func path(steps []jsonread.Step) string {
	var b strings.Builder
	for _, s := range steps {
		switch {
		case s.Index >= 0 && s.Key == "":
			b.WriteByte('[')
			b.WriteString(strconv.Itoa(s.Index))
			b.WriteByte(']')
		case b.Len() > 0:
			b.WriteByte('.')
			fallthrough
		default:
			b.WriteString(s.Key)
		}
	}
	return b.String()
}

// is says whether the next value is of kind k, and refuses it as not what was wanted when it is not.
func (d *decoder) is(k jsonread.Kind, wanted string) bool {
	got := d.Peek()
	if got == k {
		return true
	}
	d.not(got, wanted)
	return false
}

// not refuses the next value, which is of kind got.
func (d *decoder) not(got jsonread.Kind, wanted string) {
	if got == jsonread.None {
		d.Skip() // which finds the syntax error
		return
	}
	d.refuse(typeCode, "Invalid type for '", "': expected "+wanted+", but got "+d.what(&jsonread.Error{Offset: d.Offset(), Got: got})+" instead.")
}

// text reads a string, or null as none.
func (d *decoder) text() string {
	if d.Null() {
		return ""
	}
	return d.String()
}

// word reads a string that is one of a few in most requests, which then costs no memory.
func (d *decoder) word() string {
	if d.Peek() != jsonread.String {
		return d.String()
	}
	raw := d.Raw()
	switch string(raw) {
	case `"user"`:
		return "user"
	case `"assistant"`:
		return "assistant"
	case `"system"`:
		return "system"
	case `"developer"`:
		return "developer"
	case `"tool"`:
		return "tool"
	case `"text"`:
		return "text"
	case `"function"`:
		return "function"
	case `"message"`:
		return "message"
	case `"input_text"`:
		return "input_text"
	}
	r := jsonread.New(raw)
	return r.String()
}

// flag reads a boolean, or null as otherwise.
func (d *decoder) flag(otherwise bool) bool {
	if d.Null() {
		return otherwise
	}
	return d.Bool()
}

// number reads an integer within bounds, or null as 0.
func (d *decoder) number(low, high int) int {
	if d.Null() {
		return 0
	}
	n := d.Int()
	switch {
	case d.Err() != nil:
	case n < low:
		d.refuse("integer_below_min_value", "Invalid '", "': integer below minimum value. Expected a value >= "+strconv.Itoa(low)+", but got "+strconv.Itoa(n)+" instead.")
	case n > high:
		d.refuse("integer_above_max_value", "Invalid '", "': integer above maximum value. Expected a value <= "+strconv.Itoa(high)+", but got "+strconv.Itoa(n)+" instead.")
	}
	return n
}

// raw reads any value and keeps a copy of it without the space between its tokens, which an event of a stream has no room for.
func (d *decoder) raw() string {
	if d.Null() {
		return ""
	}
	return strings.ToValidUTF8(string(compact(nil, d.Raw())), "\uFFFD")
}

// begin is where the next value begins, and since what of the body was read from there on, as raw has it.
func (d *decoder) begin() int {
	d.Peek() // passes over space
	return d.Offset()
}

func (d *decoder) since(begin int) string {
	if d.Err() != nil {
		return ""
	}
	s := strings.ToValidUTF8(string(compact(nil, d.body[begin:d.Offset()])), "\uFFFD")
	if s == "null" {
		return ""
	}
	return s
}

// list reads an array of at most limit elements. More are counted and refused, and not read.
func (d *decoder) list(limit int, wanted string, element func(i int)) {
	if d.Null() || !d.is(jsonread.Array, wanted) {
		return
	}
	n := 0
	d.Array(func(i int) {
		n++
		if i < limit {
			element(i)
		}
	})
	if d.Err() == nil && n > limit {
		d.refuse("array_above_max_length", "Invalid '", "': array too long. Expected an array with maximum length "+strconv.Itoa(limit)+", but got an array with length "+strconv.Itoa(n)+" instead.")
	}
}

func (d *decoder) unknown(value, supported string) {
	d.refuse(valueCode, "Invalid value: '"+shorten(value)+"'. Supported values are: "+supported+".", "")
}

// shorten keeps a client's own words out of an answer when they are long.
func shorten(s string) string {
	const most = 100
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// compact appends JSON that is valid without the space between its tokens.
func compact(dst, src []byte) []byte {
	inside := false
	start := 0
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case !inside && (c == ' ' || c == '\n' || c == '\t' || c == '\r'):
			dst = append(dst, src[start:i]...)
			start = i + 1
		}
	}
	return append(dst, src[start:]...)
}

// effort is about how many tokens a model thinks.
func (d *decoder) effort() int {
	switch e := d.text(); e {
	case "", "none":
		return 0
	case "minimal":
		return 128
	case "low":
		return 1024
	case "medium":
		return 4096
	case "high":
		return 16384
	case "xhigh", "max":
		return 32768
	default:
		if d.Err() == nil {
			d.unknown(e, "'none', 'minimal', 'low', 'medium', 'high', and 'xhigh'")
		}
		return 0
	}
}

// stops reads a sequence or several.
func (d *decoder) stops() {
	d.q.Stop = nil
	switch k := d.Peek(); k {
	case jsonread.Null:
		d.Skip()
	case jsonread.String:
		d.q.Stop = []string{d.String()}
	case jsonread.Array:
		d.list(maxStops, "", func(int) { d.q.Stop = append(d.q.Stop, d.String()) })
	default:
		d.not(k, "one of an array of strings or string")
	}
	// A sequence that is empty would stop everything.
	d.q.Stop = slices.DeleteFunc(d.q.Stop, func(s string) bool { return s == "" })
}

// schema reads the schema of a structured answer.
func (d *decoder) schema() []byte {
	if !d.is(jsonread.Object, "an object") {
		return nil
	}
	return append([]byte{}, d.Raw()...)
}

// tool adds one that the model may call.
func (d *decoder) tool(t llmmock.Tool, custom bool) {
	if custom {
		d.custom = append(d.custom, t.Name)
		t.Schema = []byte(customSchema)
	}
	d.q.Tools = append(d.q.Tools, t)
}

// customSchema is what a tool that takes text has for the domain, which knows tools that take an object only.
const customSchema = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}`

// customArguments wraps the text that a custom tool was called with, and customInput unwraps it.
func customArguments(input string) string {
	return string(append(provider.AppendString([]byte(`{"input":`), input), '}'))
}

func customInput(arguments string) string {
	input, found := "", false
	r := jsonread.New([]byte(arguments))
	r.Object(func(key []byte) {
		if string(key) == "input" && r.Peek() == jsonread.String {
			input, found = r.String(), true
		}
	})
	if !found || r.Close() != nil {
		return arguments
	}
	return input
}

// function reads the definition of a function: what chat completions have in the member function and responses beside the type.
// strict and all else is left to the specification.
func (d *decoder) function(t *llmmock.Tool, key []byte) bool {
	switch string(key) {
	case "name":
		t.Name = d.String()
	case "description":
		t.Description = d.text()
	case "parameters":
		if !d.Null() && d.is(jsonread.Object, "an object") {
			t.Schema = append([]byte{}, d.Raw()...)
		}
	default:
		return false
	}
	return true
}

// named checks the name of a tool.
func (d *decoder) named(name, list string, i int, member string) {
	const longest = 64
	for _, c := range []byte(name) {
		if c-'a' > 25 && c-'A' > 25 && c-'0' > 9 && c != '_' && c != '-' {
			field := list + "[" + strconv.Itoa(i) + "]" + member
			d.rule(field, valueCode, "Invalid '"+field+"': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.")
			return
		}
	}
	if len(name) > longest {
		field := list + "[" + strconv.Itoa(i) + "]" + member
		d.rule(field, "string_above_max_length", "Invalid '"+field+"': string too long. Expected a string with maximum length 64, but got a string with length "+strconv.Itoa(len(name))+" instead.")
	}
}

// chosen applies what was said about tools, once all of it is read.
func (d *decoder) chosen() {
	q := d.q
	if d.allowed != nil {
		q.Tools = slices.DeleteFunc(q.Tools, func(t llmmock.Tool) bool { return !slices.Contains(d.allowed, t.Name) })
	}
	switch q.ToolChoice {
	case llmmock.ToolsRequired:
		if len(q.Tools) == 0 {
			d.rule("tool_choice", "", "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.")
		}
	case llmmock.ToolsNamed:
		if !slices.ContainsFunc(q.Tools, func(t llmmock.Tool) bool { return t.Name == q.NamedTool }) {
			d.rule("tool_choice", "", "Invalid value for 'tool_choice': tool '"+shorten(q.NamedTool)+"' not found in 'tools' parameter.")
		}
	}
}

// choose reads one of the modes of tool_choice.
func (d *decoder) choose(mode string) {
	switch mode {
	case "auto":
		d.q.ToolChoice = llmmock.ToolsAuto
	case "none":
		d.q.ToolChoice = llmmock.ToolsNone
	case "required":
		d.q.ToolChoice = llmmock.ToolsRequired
	default:
		d.unknown(mode, "'none', 'auto', and 'required'")
	}
}

// paired says which rule of tool calls a conversation breaks: every call is answered by the turns that follow it, and only calls are.
func paired(turns []llmmock.Turn) (index int, message string) {
	const most = 128 // calls in a turn; more are not looked at
	for i := 0; i < len(turns); {
		t := &turns[i]
		i++
		if t.Role == llmmock.ToolRole {
			return i - 1, "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
		}
		if len(t.Calls) == 0 {
			continue
		}
		if len(t.Calls) > most {
			return 0, ""
		}
		var answered [most]bool
		for ; i < len(turns) && turns[i].Role == llmmock.ToolRole; i++ {
			for _, r := range turns[i].Results {
				n := slices.IndexFunc(t.Calls, func(c llmmock.Call) bool { return c.ID == r.CallID })
				if n < 0 {
					return i, "Invalid parameter: 'tool_call_id' of '" + shorten(r.CallID) + "' not found in 'tool_calls' of previous message."
				}
				answered[n] = true
			}
		}
		for n := range t.Calls {
			if !answered[n] {
				return i - 1, "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: " + shorten(t.Calls[n].ID)
			}
		}
	}
	return 0, ""
}

// check ends the decoding of what was understood: the first rule it breaks, and then the specification.
func (w *wire) check(d *decoder, route string) *llmmock.Failure {
	if d.doubt != nil || w.Validate == nil {
		return d.doubt
	}
	body := d.body
	if d.model {
		// The specification wants the model in the body, where Azure has it in the path.
		if i := slices.Index(body, '{'); i >= 0 {
			b := append(make([]byte, 0, len(body)+len(d.q.Model)+16), `{"model":`...)
			b = provider.AppendString(b, d.q.Model)
			if rest := body[i+1:]; !empty(rest) {
				b = append(append(b, ','), rest...)
			} else {
				b = append(b, '}')
			}
			body = b
		}
	}
	return w.Validate(route, body)
}

// empty says whether nothing comes before the end of an object.
func empty(rest []byte) bool {
	for _, c := range rest {
		if c == '}' {
			return true
		}
		if c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}
