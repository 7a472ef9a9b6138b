package openai

import (
	"cmp"
	"net/http"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// item is one of a conversation, as it comes.
type item struct {
	kind, role, callID, name, arguments, input, id string
	text                                           string
	media                                          int
	content, output                                jsonread.Kind
}

func (w *wire) decodeResponse(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &response{format: w.format(q, r), obfuscate: true}
	d := w.decoder(q, r, body)
	turns, failure := f.decode(&d)
	if failure != nil {
		return nil, failure
	}
	f.join(&d, turns)
	q.Background = f.background && !q.Stream
	return f, w.check(&d, "POST /v1/responses")
}

// decode reads the body and returns the turns that the instructions and the input are.
func (f *response) decode(d *decoder) ([]llmmock.Turn, *llmmock.Failure) {
	var (
		q            = d.q
		instructions string
		asked        bool
	)
	d.Object(func(key []byte) {
		switch string(key) {
		case "input":
			asked = !d.Null()
			if asked {
				start := d.begin()
				d.input()
				f.input = d.since(start)
			}
		case "model":
			d.modelName()
		case "instructions":
			if !d.Null() {
				instructions = d.String()
				f.instructions = quote(instructions)
			}
		case "stream":
			q.Stream = d.flag(false)
		case "stream_options":
			d.streamOptions(nil, &f.obfuscate)
		case "background":
			f.background = d.flag(false)
		case "store":
			f.unstored = !d.flag(true)
		case "previous_response_id":
			f.previous = d.text()
		case "conversation":
			switch d.Peek() {
			case jsonread.String:
				f.conversation = `{"id":` + quote(d.String()) + `}`
			default:
				f.conversation = d.raw()
			}
		case "tools":
			start := d.begin()
			d.responseTools()
			f.tools = d.since(start)
		case "tool_choice":
			start := d.begin()
			d.responseChoice()
			f.toolChoice = d.since(start)
		case "parallel_tool_calls":
			q.ParallelCalls = d.flag(true)
			f.sequential = !q.ParallelCalls
		case "text":
			if d.Null() || !d.is(jsonread.Object, "an object") {
				return
			}
			d.Object(func(key []byte) {
				switch string(key) {
				case "format":
					start := d.begin()
					d.responseFormat("")
					f.textFormat = d.since(start)
				case "verbosity":
					f.verbosity = d.raw()
				}
			})
		case "reasoning":
			if d.Null() || !d.is(jsonread.Object, "an object") {
				return
			}
			d.Object(func(key []byte) {
				switch string(key) {
				case "effort":
					start := d.begin()
					q.Thinking = d.effort()
					f.effort = d.since(start)
				case "summary":
					f.summary = d.raw()
				case "generate_summary":
					if s := d.raw(); f.summary == "" {
						f.summary = s
					}
				}
			})
		case "include":
			d.list(64, "an array of strings", func(int) {
				switch d.String() {
				case "message.output_text.logprobs":
					f.logprobs = true
				case "reasoning.encrypted_content":
					f.encrypted = true
				case webSearch.include, fileSearch.include, codeInterpreter.include:
					f.results = true
				}
			})
		case "top_logprobs":
			f.top = d.number(0, maxTop)
		case "max_output_tokens":
			if q.MaxTokens = d.number(0, 1<<31-1); q.MaxTokens > 0 {
				f.maxOutput = strconv.Itoa(q.MaxTokens)
			}
		case "max_tool_calls":
			f.maxCalls = d.raw()
		case "metadata":
			f.metadata = d.raw()
		case "temperature":
			f.temperature = d.raw()
		case "top_p":
			f.topP = d.raw()
		case "truncation":
			f.truncation = d.raw()
		case "user":
			f.user = d.raw()
		case "prompt_cache_key":
			f.cacheKey = d.raw()
		case "safety_identifier":
			f.safety = d.raw()
		case "prompt":
			f.prompt = d.raw()
		case "service_tier":
			f.tier = d.text()
		case "access_programs", "context_management", "moderation", "multi_agent", "personality", "prompt_cache_options", "prompt_cache_retention":
		default:
			d.stranger(key)
		}
	})
	if !asked && f.previous == "" && f.prompt == "" && f.conversation == "" && d.Err() == nil {
		d.miss("input")
	}
	if failure := d.end(); failure != nil {
		return nil, failure
	}
	if q.Model == "" {
		if f.prompt == "" {
			return nil, missing("model")
		}
		q.Model = defaultModel // which the prompt that is stored with the vendor would name
	}
	f.custom = d.custom
	if d.chosen(); q.ToolChoice != llmmock.ToolsNone {
		f.hosted, f.query = cmp.Or(d.hostedChoice, d.hosted), shorten(q.Last())
	}
	if least := 16; q.MaxTokens > 0 && q.MaxTokens < least {
		d.rule("max_output_tokens", "integer_below_min_value", "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got "+strconv.Itoa(q.MaxTokens)+" instead.")
	}
	turns := q.Turns
	if instructions != "" {
		q.Turns = []llmmock.Turn{{Role: llmmock.System, Text: instructions}}
	} else {
		q.Turns = nil
	}
	return turns, nil
}

const defaultModel = "gpt-4.1"

func quote(s string) string { return string(provider.AppendString(nil, s)) }

// join puts the conversation before the input, and says what is wrong about the calls in it.
func (f *response) join(d *decoder, turns []llmmock.Turn) {
	q := d.q
	whole := true
	if f.previous != "" {
		var found bool
		if q.Turns, found, whole = f.w.turns(q.Turns, f.previous); !found {
			q.Missing = bad("previous_response_id", "previous_response_not_found", "Previous response with id '"+shorten(f.previous)+"' not found.")
		}
	}
	if q.Turns == nil {
		q.Turns = turns
	} else {
		for i := range turns {
			q.Turns = follow(q.Turns, turns[i])
		}
	}
	if whole && f.conversation == "" {
		if message := answered(q.Turns); message != "" {
			d.rule("input", "", message)
		}
	}
}

// answered says which call has no result, or which result no call.
func answered(turns []llmmock.Turn) string {
	var open map[string]bool
	for i := range turns {
		for _, c := range turns[i].Calls {
			if open == nil {
				open = map[string]bool{}
			}
			open[c.ID] = true
		}
		for _, r := range turns[i].Results {
			if _, ok := open[r.CallID]; !ok {
				return "No tool call found for function call output with call_id " + shorten(r.CallID) + "."
			}
			open[r.CallID] = false
		}
	}
	if len(open) > 0 {
		for i := range turns {
			for _, c := range turns[i].Calls {
				if open[c.ID] {
					return "No tool output found for function call " + shorten(c.ID) + "."
				}
			}
		}
	}
	return ""
}

// follow adds a turn. What the assistant did in several items is one turn, and so are the results that come together.
func follow(turns []llmmock.Turn, t llmmock.Turn) []llmmock.Turn {
	if n := len(turns); n > 0 && len(t.Calls) > 0 && t.Text == "" && turns[n-1].Role == llmmock.Assistant {
		last := &turns[n-1]
		last.Calls = append(last.Calls[:len(last.Calls):len(last.Calls)], t.Calls...)
		return turns
	}
	return append(turns, t)
}

// input reads a text of the user, or items.
func (d *decoder) input() {
	d.q.Turns = nil
	switch k := d.Peek(); k {
	case jsonread.String:
		d.q.Turns = []llmmock.Turn{{Role: llmmock.User, Text: d.String()}}
	case jsonread.Array:
		d.q.Turns = make([]llmmock.Turn, 0, 4)
		d.list(maxMessages, "", func(int) {
			if d.is(jsonread.Object, "an object") {
				d.item()
			}
		})
	default:
		d.not(k, "one of a string or array of input items")
	}
}

func (d *decoder) item() {
	var i item
	d.Object(func(key []byte) {
		switch string(key) {
		case "type":
			if !d.Null() {
				i.kind = d.word()
			}
		case "role":
			i.role = d.word()
		case "content":
			if i.kind == "reasoning" {
				return
			}
			i.content = d.Peek()
			i.text, i.media = d.content(i.content)
		case "call_id":
			i.callID = d.text()
		case "name":
			i.name = d.text()
		case "arguments":
			if d.Peek() == jsonread.String {
				i.arguments = d.String()
			}
		case "input":
			if d.Peek() == jsonread.String {
				i.input = d.String()
			}
		case "output":
			if i.output = d.Peek(); i.output == jsonread.String {
				i.text = d.String()
			} else if i.output == jsonread.Array && i.kind != "function_shell_call_output" && i.kind != "shell_call_output" {
				i.text, i.media = d.content(i.output)
			}
		case "id":
			i.id = d.text()
		}
	})
	if d.Err() != nil {
		return
	}
	t := llmmock.Turn{Text: i.text, Media: i.media}
	switch i.kind {
	case "", "message":
		switch i.role {
		case "user":
			t.Role = llmmock.User
		case "assistant":
			t.Role = llmmock.Assistant
		case "system", "developer":
			t.Role = llmmock.System
		case "":
			if i.kind != "" || i.id == "" { // an id alone refers to an item of before
				d.miss("role")
			}
			return
		default:
			d.wrong = refusal{valueCode, "Invalid value: '" + shorten(i.role) + "'. Supported values are: 'assistant', 'system', 'developer', and 'user'.", ""}
			d.FailAt("role", "unknown")
			return
		}
		if i.content == jsonread.None || i.content == jsonread.Null {
			d.miss("content")
			return
		}
	case "function_call", "custom_tool_call":
		switch {
		case i.callID == "":
			d.miss("call_id")
			return
		case i.name == "":
			d.miss("name")
			return
		}
		if i.kind == "custom_tool_call" {
			i.arguments = customArguments(i.input)
		}
		t = llmmock.Turn{Role: llmmock.Assistant, Calls: []llmmock.Call{{ID: i.callID, Name: i.name, Arguments: i.arguments}}}
	case "function_call_output", "custom_tool_call_output":
		if i.callID == "" {
			d.miss("call_id")
			return
		}
		if i.output == jsonread.None || i.output == jsonread.Null {
			d.miss("output")
			return
		}
		t.Role, t.Text = llmmock.ToolRole, ""
		t.Results = []llmmock.Result{{CallID: i.callID, Text: i.text}}
	default:
		// Tools that the vendor runs itself, and what was thought: the model's own affairs.
		return
	}
	d.q.Turns = follow(d.q.Turns, t)
}

func (d *decoder) responseTools() {
	d.q.Tools = nil
	d.list(maxTools, "an array of objects", func(i int) {
		if !d.is(jsonread.Object, "an object") {
			return
		}
		var (
			t    llmmock.Tool
			kind string
		)
		d.Object(func(key []byte) {
			switch string(key) {
			case "type":
				kind = d.word()
			case "name", "description":
				if d.Peek() == jsonread.String {
					d.function(&t, key)
				}
			case "parameters":
				if d.Peek() == jsonread.Object {
					d.function(&t, key)
				}
			}
		})
		switch {
		case d.Err() != nil:
		case kind == "":
			d.miss("type")
		case kind != "function" && kind != "custom": // one that the vendor runs itself
			if d.hosted == nil {
				d.hosted = hostedTool(kind)
			}
		case t.Name == "":
			d.miss("name")
		default:
			d.named(t.Name, "tools", i, ".name")
			d.tool(t, kind == "custom")
		}
	})
}

func (d *decoder) responseChoice() {
	switch k := d.Peek(); k {
	case jsonread.Null:
		d.Skip()
	case jsonread.String:
		d.choose(d.String())
	case jsonread.Object:
		var kind, name, mode string
		d.Object(func(key []byte) {
			switch string(key) {
			case "type":
				kind = d.word()
			case "name":
				name = d.text()
			case "mode":
				mode = d.text()
			case "tools":
				d.allow()
			}
		})
		switch kind {
		case "function", "custom", "allowed_tools", "":
			d.chose(kind, name, mode)
		default:
			d.hostedChoice = hostedTool(kind)
		}
	default:
		d.not(k, "one of a string or object")
	}
}

// counted is the format of POST /v1/responses/input_tokens.
type counted struct{ object }

func (w *wire) decodeInputTokens(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &response{format: w.format(q, r)}
	q.Operation = llmmock.Count
	d := w.decoder(q, r, body)
	turns, failure := f.decode(&d)
	if failure != nil && (failure.Field == "model" || failure.Field == "input") && failure.Code == missingCode {
		failure = nil // all of it is optional here
		turns = q.Turns
		if q.Model == "" {
			q.Model = defaultModel
		}
	}
	if failure != nil {
		return nil, failure
	}
	q.Stream = false
	f.join(&d, turns)
	return &counted{object{format: f.format}}, w.check(&d, "POST /v1/responses/input_tokens")
}

// Whole implements provider.Format.
func (f *counted) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	n := 0
	if x.Answer != nil {
		n = x.Answer.Usage.Input
	}
	dst = append(dst, `{"object":"response.input_tokens","input_tokens":`...)
	return http.StatusOK, jsonType, append(strconv.AppendInt(dst, int64(n), 10), '}')
}
