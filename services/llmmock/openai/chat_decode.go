package openai

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

func (w *wire) decodeChat(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &chat{format: w.format(q, r), obfuscate: true}
	d := w.decoder(q, r, body)
	var (
		messages, tools, functions, parallel, store, spoken bool
		from, to                                            int // the messages
		format                                              string
	)
	d.Object(func(key []byte) {
		switch string(key) {
		case "messages":
			messages = true
			from = d.begin()
			d.messages()
			to = d.Offset()
		case "model":
			d.modelName()
		case "stream":
			q.Stream = d.flag(false)
		case "stream_options":
			d.streamOptions(&f.includeUsage, &f.obfuscate)
		case "max_tokens", "max_completion_tokens":
			// The newer one wins, wherever it is.
			if n := d.number(0, 1<<31-1); n > 0 && (q.MaxTokens == 0 || len(key) > len("max_tokens")) {
				q.MaxTokens = n
			}
		case "stop":
			d.stops()
		case "n":
			q.Choices = max(d.number(1, maxChoices), 1)
		case "tools":
			tools = true
			d.chatTools()
		case "tool_choice":
			d.chatChoice()
		case "functions":
			functions = true
			d.chatFunctions()
		case "function_call":
			d.functionChoice()
		case "parallel_tool_calls":
			parallel = !d.Null()
			if parallel {
				q.ParallelCalls = d.Bool()
			}
		case "response_format":
			d.responseFormat("json_schema")
		case "reasoning_effort":
			q.Thinking = d.effort()
		case "logprobs":
			f.logprobs = d.flag(false)
		case "top_logprobs":
			f.top = d.number(0, maxTop)
		case "service_tier":
			f.tier = d.text()
		case "store":
			store = d.flag(false)
		case "metadata":
			f.metadata = d.raw()
		case "audio":
			if !d.Null() {
				d.Object(func(key []byte) {
					if string(key) == "format" {
						format = d.text()
					}
				})
			}
		case "modalities":
			d.list(16, "an array of strings", func(int) { spoken = d.String() == "audio" || spoken })
		case "frequency_penalty", "logit_bias", "moderation", "prediction", "presence_penalty", "prompt_cache_key",
			"prompt_cache_options", "prompt_cache_retention", "safety_identifier", "seed", "temperature", "top_p", "user", "verbosity", "web_search_options":
		default:
			d.stranger(key)
		}
	})
	if !messages && d.Err() == nil {
		d.miss("messages")
	}
	if failure := d.end(); failure != nil {
		return nil, failure
	}
	if q.Model == "" {
		return nil, bad("", "", "you must provide a model parameter")
	}
	f.functions, f.custom = functions && !tools, d.custom
	if spoken {
		f.audio = cmp.Or(format, "wav")
	}
	if store {
		f.messages = strings.ToValidUTF8(string(compact(nil, body[from:to])), "\uFFFD")
	}
	if parallel && len(q.Tools) == 0 {
		d.rule("parallel_tool_calls", "", "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified.")
	}
	d.chosen()
	if !f.functions {
		if i, message := paired(q.Turns); message != "" {
			d.rule("messages.["+strconv.Itoa(i)+"].role", "", message)
		}
	}
	if q.Schema != nil && len(q.Schema) == 0 && !saysJSON(q.Turns) {
		d.rule("messages", "", "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.")
	}
	return f, w.check(&d, "POST /v1/chat/completions")
}

// saysJSON: without that word a model that must write JSON may write white space for ever, and so the vendor asks for it.
func saysJSON(turns []llmmock.Turn) bool {
	for i := range turns {
		text := turns[i].Text
		for {
			n := strings.IndexAny(text, "jJ")
			if n < 0 {
				break
			}
			if text = text[n:]; len(text) >= 4 && strings.EqualFold(text[:4], "json") {
				return true
			}
			text = text[1:]
		}
	}
	return false
}

func (d *decoder) modelName() {
	// A model in the body has no say where the path names one.
	if s := d.text(); !d.model {
		d.q.Model = s
	}
}

// stranger notes a parameter that the vendor does not know. Azure has some more.
func (d *decoder) stranger(key []byte) {
	if d.q.Vendor == llmmock.Azure && (string(key) == "data_sources" || string(key) == "user_security_context") {
		return
	}
	name := shorten(strings.ToValidUTF8(string(key), "\uFFFD"))
	d.rule(name, "unknown_parameter", "Unknown parameter: '"+name+"'.")
}

func (d *decoder) streamOptions(usage, obfuscate *bool) {
	if d.Null() || !d.is(jsonread.Object, "an object") {
		return
	}
	d.Object(func(key []byte) {
		switch string(key) {
		case "include_usage":
			if usage != nil {
				*usage = d.flag(false)
			}
		case "include_obfuscation":
			*obfuscate = d.flag(true)
		}
	})
}

func (d *decoder) messages() {
	const wanted = "an array of objects"
	if !d.is(jsonread.Array, wanted) {
		return
	}
	d.q.Turns = make([]llmmock.Turn, 0, 4)
	n := 0
	d.list(maxMessages, wanted, func(int) {
		n++
		if d.is(jsonread.Object, "an object") {
			d.message()
		}
	})
	if n == 0 && d.Err() == nil {
		d.refuse("empty_array", "Invalid '", "': empty array. Expected an array with minimum length 1, but got an empty array instead.")
	}
}

func (d *decoder) message() {
	var (
		t                  llmmock.Turn
		role, name, callID string
		refusal            string
		content            jsonread.Kind
		called             bool
	)
	d.Object(func(key []byte) {
		switch string(key) {
		case "role":
			role = d.word()
		case "content":
			content = d.Peek()
			t.Text, t.Media = d.content(content)
		case "name":
			name = d.text()
		case "tool_call_id":
			callID = d.String()
		case "tool_calls":
			if !d.Null() && d.is(jsonread.Array, "an array of objects") {
				called = true
				t.Calls = d.calls()
			}
		case "function_call":
			if !d.Null() {
				called = true
				c := d.call()
				c.ID = c.Name
				t.Calls = append(t.Calls, c)
			}
		case "refusal":
			refusal = d.text()
		case "audio":
			called = called || !d.Null()
		}
	})
	if d.Err() != nil {
		return
	}
	optional := false
	switch role {
	case "system", "developer":
		t.Role = llmmock.System
	case "user":
		t.Role = llmmock.User
	case "assistant":
		t.Role = llmmock.Assistant
		if t.Text == "" {
			t.Text = refusal
		}
		optional = called || refusal != ""
	case "tool", "function":
		t.Role = llmmock.ToolRole
		if role == "function" {
			callID, optional = name, content == jsonread.Null
		} else if callID == "" {
			d.miss("tool_call_id")
			return
		}
		t.Results = []llmmock.Result{{CallID: callID, Text: t.Text}}
		t.Text = ""
	case "":
		d.miss("role")
		return
	default:
		d.wrong = refusalOf(role)
		d.FailAt("role", "unknown")
		return
	}
	switch {
	case optional:
	case content == jsonread.None:
		d.miss("content")
	case content == jsonread.Null:
		d.wrong = refusalNull
		d.FailAt("content", "null")
	}
	d.q.Turns = append(d.q.Turns, t)
}

var refusalNull = refusal{typeCode, "Invalid value for 'content': expected a string, got null.", ""}

func refusalOf(role string) refusal {
	return refusal{valueCode, "Invalid value: '" + shorten(role) + "'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.", ""}
}

// content reads a text or a list of parts, joins what is text of them and counts what is not.
func (d *decoder) content(k jsonread.Kind) (text string, media int) {
	switch k {
	case jsonread.String:
		return d.String(), 0
	case jsonread.Null:
		d.Skip()
		return "", 0
	case jsonread.Array:
	default:
		d.not(k, "one of a string or array of objects")
		return "", 0
	}
	texts := 0
	d.Array(func(int) {
		if !d.is(jsonread.Object, "an object") {
			return
		}
		kind, part, found := "", "", false
		d.Object(func(key []byte) {
			switch string(key) {
			case "type":
				kind = d.word()
			case "text", "refusal":
				part, found = d.String(), true
			}
		})
		if d.Err() != nil {
			return
		}
		switch kind {
		case "text", "refusal", "input_text", "output_text":
			if !found {
				if kind != "refusal" {
					kind = "text"
				}
				d.miss(kind)
			}
			if texts++; texts == 1 {
				text = part
			} else {
				text += "\n" + part
			}
		case "image_url", "input_audio", "file", "audio", "input_image", "input_file", "image_file", "computer_screenshot", "summary_text", "reasoning_text":
			media++
		case "":
			d.miss("type")
		default:
			d.wrong = refusal{valueCode, "Invalid value: '" + shorten(kind) + "'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', 'audio', and 'file'.", ""}
			d.FailAt("type", "unknown")
		}
	})
	return text, media
}

// calls reads the calls that the assistant is said to have made.
func (d *decoder) calls() []llmmock.Call {
	var calls []llmmock.Call
	d.Array(func(int) {
		if !d.is(jsonread.Object, "an object") {
			return
		}
		var (
			c     llmmock.Call
			found bool
			id    string
		)
		d.Object(func(key []byte) {
			switch string(key) {
			case "id":
				id = d.String()
			case "function":
				c, found = d.call(), true
			case "custom":
				found = true
				if d.is(jsonread.Object, "an object") {
					d.Object(func(key []byte) {
						switch string(key) {
						case "name":
							c.Name = d.String()
						case "input":
							c.Arguments = customArguments(d.String())
						}
					})
				}
			}
		})
		switch c.ID = id; {
		case d.Err() != nil:
		case id == "":
			d.miss("id")
		case !found:
			d.miss("function")
		default:
			calls = append(calls, c)
		}
	})
	return calls
}

// call reads the name and the arguments of a function.
func (d *decoder) call() llmmock.Call {
	var c llmmock.Call
	if !d.is(jsonread.Object, "an object") {
		return c
	}
	d.Object(func(key []byte) {
		switch string(key) {
		case "name":
			c.Name = d.String()
		case "arguments":
			c.Arguments = d.String()
		}
	})
	if c.Name == "" && d.Err() == nil {
		d.miss("name")
	}
	return c
}

func (d *decoder) chatTools() {
	d.q.Tools = nil
	d.list(maxTools, "an array of objects", func(i int) {
		if !d.is(jsonread.Object, "an object") {
			return
		}
		var (
			t    llmmock.Tool
			kind string
			has  string // the member that defines it
		)
		d.Object(func(key []byte) {
			switch string(key) {
			case "type":
				kind = d.word()
			case "function", "custom":
				has = string(key)
				if d.is(jsonread.Object, "an object") {
					d.Object(func(key []byte) { d.function(&t, key) })
				}
			}
		})
		switch {
		case d.Err() != nil:
		case kind == "":
			d.miss("type")
		case kind != "function" && kind != "custom":
			d.wrong = refusal{valueCode, "Invalid value: '" + shorten(kind) + "'. Supported values are: 'function' and 'custom'.", ""}
			d.FailAt("type", "unknown")
		case has != kind:
			d.miss(kind)
		case t.Name == "":
			d.miss(kind + ".name")
		default:
			d.named(t.Name, "tools", i, "."+kind+".name")
			d.tool(t, kind == "custom")
		}
	})
}

func (d *decoder) chatFunctions() {
	d.list(maxTools, "an array of objects", func(i int) {
		if !d.is(jsonread.Object, "an object") {
			return
		}
		var t llmmock.Tool
		d.Object(func(key []byte) { d.function(&t, key) })
		switch {
		case d.Err() != nil:
		case t.Name == "":
			d.miss("name")
		default:
			d.named(t.Name, "functions", i, ".name")
			d.tool(t, false)
		}
	})
}

// chatChoice reads tool_choice: a mode, a tool, or the tools that are allowed.
func (d *decoder) chatChoice() {
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
			case "function", "custom":
				name = d.nameOf()
			case "allowed_tools":
				if d.is(jsonread.Object, "an object") {
					d.Object(func(key []byte) {
						switch string(key) {
						case "mode":
							mode = d.String()
						case "tools":
							d.allow()
						}
					})
				}
			}
		})
		d.chose(kind, name, mode)
	default:
		d.not(k, "one of a string or object")
	}
}

// chose applies a choice that was an object.
func (d *decoder) chose(kind, name, mode string) {
	switch {
	case d.Err() != nil:
	case kind == "":
		d.miss("type")
	case kind == "allowed_tools":
		if mode != "required" {
			mode = "auto"
		}
		d.choose(mode)
	case name == "":
		d.miss(kind + ".name")
	default:
		d.q.ToolChoice, d.q.NamedTool = llmmock.ToolsNamed, name
	}
}

// allow reads the tools that are allowed, in the form of either API.
func (d *decoder) allow() {
	d.allowed = make([]string, 0, 4)
	d.list(maxTools, "an array of objects", func(int) {
		if !d.is(jsonread.Object, "an object") {
			return
		}
		d.Object(func(key []byte) {
			switch string(key) {
			case "function", "custom":
				d.allowed = append(d.allowed, d.nameOf())
			case "name":
				d.allowed = append(d.allowed, d.String())
			}
		})
	})
}

// nameOf is the member name of an object.
func (d *decoder) nameOf() (name string) {
	if !d.is(jsonread.Object, "an object") {
		return ""
	}
	d.Object(func(key []byte) {
		if string(key) == "name" {
			name = d.String()
		}
	})
	return name
}

// functionChoice reads function_call, the choice among functions.
func (d *decoder) functionChoice() {
	switch k := d.Peek(); k {
	case jsonread.Null:
		d.Skip()
	case jsonread.String:
		if mode := d.String(); mode == "none" || mode == "auto" {
			d.choose(mode)
		} else if d.Err() == nil {
			d.unknown(mode, "'none' and 'auto'")
		}
	case jsonread.Object:
		d.q.ToolChoice, d.q.NamedTool = llmmock.ToolsNamed, d.nameOf()
	default:
		d.not(k, "one of a string or object")
	}
}

// responseFormat reads what the text shall be; member holds the schema, and is empty where it is beside the type.
func (d *decoder) responseFormat(member string) {
	if d.Null() || !d.is(jsonread.Object, "an object") {
		return
	}
	var (
		kind, name string
		schema     []byte
	)
	read := func(key []byte) {
		switch string(key) {
		case "name":
			name = d.String()
		case "schema":
			schema = d.schema()
		}
	}
	d.Object(func(key []byte) {
		switch {
		case string(key) == "type":
			kind = d.word()
		case member == "":
			read(key)
		case string(key) == member && d.is(jsonread.Object, "an object"):
			d.Object(read)
		}
	})
	if d.Err() != nil {
		return
	}
	prefix := ""
	if member != "" {
		prefix = member + "."
	}
	switch kind {
	case "text":
		d.q.Schema = nil
	case "json_object":
		d.q.Schema = []byte{}
	case "json_schema":
		switch {
		case name == "":
			d.miss(prefix + "name")
		case schema == nil && member == "":
			d.miss("schema")
		default:
			// Without a schema any JSON will do.
			d.q.Schema = append([]byte{}, schema...)
		}
	case "":
		d.miss("type")
	default:
		d.wrong = refusal{valueCode, "Invalid value: '" + shorten(kind) + "'. Supported values are: 'json_object', 'json_schema', and 'text'.", ""}
		d.FailAt("type", "unknown")
	}
}
