package gemini

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// dynamicThinking is how many tokens the model may think when it decides that for itself.
const dynamicThinking = 1024

// MaxContents in one request, and MaxParts in all of them.
const (
	MaxContents = 100_000
	MaxParts    = 1_000_000
)

func decodeGenerate(c *call) (provider.Format, *llmmock.Failure) {
	return c.generate(&generateFormat{format: c.format})
}

// decodeStream is generateContent answered as a stream: of server-sent events when alt=sse says so, else of one array.
func decodeStream(c *call) (provider.Format, *llmmock.Failure) {
	c.q.Stream = true
	return c.generate(&generateFormat{format: c.format, array: c.r.URL.Query().Get("alt") != "sse"})
}

func (c *call) generate(f *generateFormat) (provider.Format, *llmmock.Failure) {
	c.q.Operation = llmmock.Generate
	d := newDecoder(c)
	d.r.Object(d.request)
	if e := d.r.Close(); e != nil {
		return nil, malformed(c.body, e)
	}
	d.finish("GenerateContentRequest")
	f.showThoughts = d.showThoughts
	return f, d.refusal
}

// decodeCount reads contents, or a whole request for content inside.
func decodeCount(c *call) (provider.Format, *llmmock.Failure) {
	c.q.Operation = llmmock.Count
	d := newDecoder(c)
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "generateContentRequest", "generate_content_request":
			d.r.Object(d.request)
		default:
			d.request(key)
		}
	})
	if e := d.r.Close(); e != nil {
		return nil, malformed(c.body, e)
	}
	d.finish("CountTokensRequest")
	c.q.Stream = false
	return &countFormat{c.format}, d.refusal
}

// decoder reads one body of the methods that take contents.
type decoder struct {
	r jsonread.Reader
	q *llmmock.Request
	// refusal is the first thing that the vendor does not allow although it can be understood.
	refusal *llmmock.Failure

	system       llmmock.Turn
	hasContents  bool
	showThoughts bool
	jsonAnswer   bool
	allowed      []string
	contents     int
	parts        int
}

func newDecoder(c *call) decoder {
	c.q.Choices, c.q.ParallelCalls = 1, true
	// The first turn is kept for the system's instruction, which may come after the contents.
	c.q.Turns = append(make([]llmmock.Turn, 0, 4), llmmock.Turn{Role: llmmock.System})
	return decoder{r: jsonread.New(c.body), q: c.q}
}

func (d *decoder) refuse(field, message string) {
	if d.refusal == nil {
		d.refusal = invalid(field, message)
	}
}

// unknown refuses a member that the message at that place does not have. in is the place in the form of protobuf, empty for the
// body itself.
func (d *decoder) unknown(in string, key []byte) {
	if d.refusal == nil {
		d.refuse(in, `Invalid JSON payload received. Unknown name "`+strings.ToValidUTF8(string(key), "\uFFFD")+`"`+at(in)+`: Cannot find field.`)
	}
}

// repeated reads a list, or the one element of it without the brackets, which protobuf's parser here takes as well.
func (d *decoder) repeated(element func(i int)) {
	if d.r.Peek() == jsonread.Object {
		element(0)
		return
	}
	d.r.Array(element)
}

// int reads a number, which protobuf's JSON form has in quotes too.
func (d *decoder) int() int {
	if d.r.Peek() != jsonread.String {
		return d.r.Int()
	}
	text := d.r.String()
	n, err := strconv.Atoi(text)
	if err != nil && d.r.Err() == nil {
		d.r.Fail(`Invalid value (TYPE_INT32), "` + text + `"`)
	}
	return n
}

func (d *decoder) request(key []byte) {
	r := &d.r
	if r.Null() {
		return
	}
	switch string(key) {
	case "contents":
		d.hasContents = true
		d.repeated(d.content)
	case "systemInstruction", "system_instruction":
		d.system.Role = llmmock.System
		if r.Peek() == jsonread.String {
			d.system.Text = r.String()
			return
		}
		p := parts{d: d, turn: &d.system, at: "system_instruction"}
		r.Object(func(key []byte) {
			if string(key) == "parts" {
				d.repeated(p.part)
			}
		})
		p.turn.Text = p.Text()
	case "tools":
		d.repeated(d.tool)
	case "toolConfig", "tool_config":
		r.Object(func(key []byte) {
			if k := string(key); k == "functionCallingConfig" || k == "function_calling_config" {
				r.Object(d.calling)
			}
		})
	case "generationConfig", "generation_config":
		r.Object(d.config)
	case "safetySettings", "safety_settings", "cachedContent", "cached_content", "labels", "model", "serviceTier", "service_tier", "modelArmorConfig", "model_armor_config", "store",
		"instances":
		// They change nothing here.
	default:
		d.unknown("", key)
	}
}

func (d *decoder) content(i int) {
	if d.contents++; d.contents > MaxContents {
		return
	}
	var t llmmock.Turn
	role := ""
	p := parts{d: d, turn: &t, content: i}
	d.r.Object(func(key []byte) {
		if d.r.Null() {
			return
		}
		switch string(key) {
		case "role":
			role = d.r.String()
		case "parts":
			d.repeated(p.part)
		default:
			if d.refusal == nil {
				d.unknown("contents["+strconv.Itoa(i)+"]", key)
			}
		}
	})
	p.turn.Text = p.Text()
	switch role {
	case "", "user", "function", "tool":
		t.Role = llmmock.User
	case "model":
		t.Role = llmmock.Assistant
	case "system":
		t.Role = llmmock.System
		d.refuse("", "Please use a valid role: user, model.")
	default:
		t.Role = llmmock.User
		d.refuse("", "Please use a valid role: user, model.")
	}
	if p.parts == 0 && d.refusal == nil {
		at := "contents[" + strconv.Itoa(i) + "].parts"
		d.refuse("", "* GenerateContentRequest."+at+": contents.parts must not be empty.\n")
	}
	if len(t.Results) > 0 {
		t.Role = llmmock.ToolRole
	}
	d.turns(&t)
	d.q.Turns = append(d.q.Turns, t)
}

// turns holds calls and results together: a turn with results answers all calls of the one before it.
func (d *decoder) turns(t *llmmock.Turn) {
	last := &d.q.Turns[len(d.q.Turns)-1]
	switch {
	case t.Role == llmmock.ToolRole && last.Role == llmmock.Assistant && len(last.Calls) > 0:
		if len(last.Calls) != len(t.Results) {
			d.refuse("", "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.")
		}
	case t.Role == llmmock.ToolRole && last.Role != llmmock.ToolRole:
		d.refuse("", "Please ensure that function response turn comes immediately after a function call turn.")
	case len(t.Calls) > 0 && last.Role != llmmock.User && last.Role != llmmock.ToolRole:
		d.refuse("", "Please ensure that function call turn comes immediately after a user turn or after a function response turn.")
	}
}

// parts gathers those of one content.
type parts struct {
	d       *decoder
	turn    *llmmock.Turn
	content int
	// at is the place of the content when it is none of the contents.
	at    string
	parts int
	provider.Lines
}

func (p *parts) place(i int) string {
	if p.at != "" {
		return p.at + ".parts[" + strconv.Itoa(i) + "]"
	}
	return "contents[" + strconv.Itoa(p.content) + "].parts[" + strconv.Itoa(i) + "]"
}

func (p *parts) part(i int) {
	p.parts++
	d := p.d
	if d.parts++; d.parts > MaxParts {
		d.refuse("", "Request contains too many parts.")
		return
	}
	text, hasText, thought, hasData := "", false, false, false
	r := &d.r
	r.Object(func(key []byte) {
		if r.Null() {
			return
		}
		switch string(key) {
		case "text":
			text, hasText = r.String(), true
		case "thought":
			thought = r.Bool()
		case "inlineData", "inline_data", "fileData", "file_data":
			hasData = true
			p.turn.Media++
			r.Object(func([]byte) {})
		case "functionCall", "function_call":
			hasData = true
			var c llmmock.Call
			r.Object(func(key []byte) {
				if r.Null() {
					return
				}
				switch string(key) {
				case "id":
					c.ID = r.String()
				case "name":
					c.Name = r.String()
				case "args":
					if r.Peek() == jsonread.Object {
						c.Arguments = string(r.Raw())
					} else {
						r.Object(nil) // the error, with its path
					}
				}
			})
			if c.Arguments == "" {
				c.Arguments = "{}"
			}
			c.ID = orName(c.ID, c.Name)
			p.turn.Calls = append(p.turn.Calls, c)
		case "functionResponse", "function_response":
			hasData = true
			p.turn.Results = append(p.turn.Results, d.result())
		case "executableCode", "executable_code", "codeExecutionResult", "code_execution_result", "toolCall", "tool_call", "toolResponse", "tool_response":
			hasData = true
		case "thoughtSignature", "thought_signature", "videoMetadata", "video_metadata", "mediaResolution", "media_resolution", "partMetadata", "part_metadata",
			"mediaProcessing", "media_processing", "audioTranscription", "audio_transcription", "speechMetadata", "speech_metadata":
		default:
			if d.refusal == nil {
				d.unknown(p.place(i), key)
			}
		}
	})
	if !hasText && !hasData && d.refusal == nil && r.Err() == nil {
		d.refuse("", "* GenerateContentRequest."+p.place(i)+".data: required oneof field 'data' must have one initialized field\n")
	}
	if hasText && !thought {
		p.Add(text)
	}
}

// orName is what a call is known by: its id, or its name when the client does not use ids.
func orName(id, name string) string {
	if id == "" {
		return name
	}
	return id
}

func (d *decoder) result() llmmock.Result {
	var res llmmock.Result
	name := ""
	r := &d.r
	r.Object(func(key []byte) {
		if r.Null() {
			return
		}
		switch string(key) {
		case "id":
			res.CallID = r.String()
		case "name":
			name = r.String()
		case "response":
			if r.Peek() != jsonread.Object {
				r.Object(nil) // the error, with its path
				return
			}
			raw := r.Raw()
			res.Text = string(raw)
			in := jsonread.New(raw)
			in.Object(func(key []byte) { res.Failed = res.Failed || string(key) == "error" })
		}
	})
	res.CallID = orName(res.CallID, name)
	return res
}

func (d *decoder) tool(i int) {
	d.r.Object(func(key []byte) {
		if d.r.Null() {
			return
		}
		switch string(key) {
		case "functionDeclarations", "function_declarations":
			d.repeated(func(j int) { d.function(i, j) })
		case "retrieval", "computerUse", "computer_use", "fileSearch", "file_search", "googleSearch", "google_search", "googleMaps", "google_maps", "codeExecution", "code_execution",
			"enterpriseWebSearch", "enterprise_web_search", "googleSearchRetrieval", "google_search_retrieval", "parallelAiSearch", "parallel_ai_search", "urlContext", "url_context",
			"mcpServers", "mcp_servers", "exaAiSearch", "exa_ai_search":
			// The vendor runs these itself.
		default:
			if d.refusal == nil {
				d.unknown("tools["+strconv.Itoa(i)+"]", key)
			}
		}
	})
}

func (d *decoder) function(i, j int) {
	var t llmmock.Tool
	r := &d.r
	r.Object(func(key []byte) {
		if r.Null() {
			return
		}
		switch string(key) {
		case "name":
			t.Name = r.String()
		case "description":
			t.Description = r.String()
		case "parameters":
			if raw := d.object(); raw != nil {
				t.Schema = jsonSchema(raw)
			}
		case "parametersJsonSchema", "parameters_json_schema":
			t.Schema = bytes.Clone(r.Raw())
		case "response", "responseJsonSchema", "response_json_schema", "behavior":
		default:
			if d.refusal == nil {
				d.unknown("tools["+strconv.Itoa(i)+"].function_declarations["+strconv.Itoa(j)+"]", key)
			}
		}
	})
	if r.Err() != nil {
		return
	}
	if !functionName(t.Name) {
		if d.refusal == nil {
			d.refuse("", "* GenerateContentRequest.tools["+strconv.Itoa(i)+"].function_declarations["+strconv.Itoa(j)+"].name: Invalid function name. "+
				"Must start with a letter or an underscore. Must be alphameric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum length of 64.\n")
		}
		return
	}
	d.q.Tools = append(d.q.Tools, t)
}

// object is the bytes of an object; nil, and an error with its path, for anything else.
func (d *decoder) object() []byte {
	if d.r.Peek() != jsonread.Object {
		d.r.Object(nil)
		return nil
	}
	return d.r.Raw()
}

func functionName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c == '_':
		case i > 0 && (c-'0' <= 9 || c == '.' || c == ':' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// jsonSchema is a copy of a schema in the vendor's dialect, which names types in capitals, as JSON Schema.
func jsonSchema(raw []byte) []byte {
	s := bytes.Clone(raw)
	const name = `"type"`
	for i := 0; ; {
		n := bytes.Index(s[i:], []byte(name))
		if n < 0 {
			return s
		}
		i += n + len(name)
		rest := bytes.TrimLeft(s[i:], " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		for _, t := range []string{`"STRING"`, `"NUMBER"`, `"INTEGER"`, `"BOOLEAN"`, `"ARRAY"`, `"OBJECT"`, `"NULL"`} {
			if bytes.HasPrefix(rest, []byte(t)) {
				copy(rest, strings.ToLower(t))
			}
		}
	}
}

func (d *decoder) calling(key []byte) {
	r := &d.r
	if r.Null() {
		return
	}
	switch string(key) {
	case "mode":
		switch mode := r.String(); mode {
		case "ANY":
			d.q.ToolChoice = llmmock.ToolsRequired
		case "NONE":
			d.q.ToolChoice = llmmock.ToolsNone
		case "", "AUTO", "VALIDATED", "MODE_UNSPECIFIED":
		default:
			if r.Err() == nil {
				d.refuse("tool_config.function_calling_config.mode", "Invalid value at 'tool_config.function_calling_config.mode' (type.googleapis.com/"+v1beta+`FunctionCallingConfig.Mode), "`+mode+`"`)
			}
		}
	case "allowedFunctionNames", "allowed_function_names":
		r.Array(func(int) { d.allowed = append(d.allowed, r.String()) })
	}
}

func (d *decoder) config(key []byte) {
	r, q := &d.r, d.q
	if r.Null() {
		return
	}
	switch string(key) {
	case "candidateCount", "candidate_count":
		if q.Choices = d.int(); q.Choices < 1 || q.Choices > 8 {
			d.refuse("", "Unable to submit request because it has a candidateCount value of "+strconv.Itoa(q.Choices)+" but the supported range is from 1 (inclusive) to 9 (exclusive). Update the value and try again.")
			q.Choices = 1
		}
	case "maxOutputTokens", "max_output_tokens":
		if q.MaxTokens = d.int(); q.MaxTokens < 1 {
			d.refuse("", "* GenerateContentRequest.generation_config.max_output_tokens: max_output_tokens must be positive.\n")
			q.MaxTokens = 0
		}
	case "stopSequences", "stop_sequences":
		r.Array(func(i int) {
			if s := r.String(); s == "" {
				d.refuse("", "* GenerateContentRequest.generation_config.stop_sequences["+strconv.Itoa(i)+"]: stop sequences must not be empty.\n")
			} else {
				q.Stop = append(q.Stop, s)
			}
		})
		if len(q.Stop) > 5 {
			d.refuse("", "* GenerateContentRequest.generation_config.stop_sequences: at most 5 stop sequences are allowed.\n")
		}
	case "responseMimeType", "response_mime_type":
		switch mime := r.String(); mime {
		case "application/json", "text/x.enum":
			d.jsonAnswer = true
		case "", "text/plain", "application/xml", "application/yaml":
		default:
			d.refuse("", "* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are `text/plain`, `application/json`, `application/xml`, `application/yaml` and `text/x.enum`.\n")
		}
	case "responseSchema", "response_schema":
		if raw := d.object(); raw != nil {
			q.Schema = jsonSchema(raw)
		}
	case "responseJsonSchema", "response_json_schema", "_responseJsonSchema":
		q.Schema = bytes.Clone(r.Raw())
	case "temperature":
		if t := r.Float(); t < 0 || t > 2 {
			d.refuse("", "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0].\n")
		}
	case "topP", "top_p":
		if p := r.Float(); p < 0 || p > 1 {
			d.refuse("", "* GenerateContentRequest.generation_config.top_p: top_p must be in the range [0.0, 1.0].\n")
		}
	case "thinkingConfig", "thinking_config":
		r.Object(d.thinking)
	case "topK", "top_k", "seed", "presencePenalty", "presence_penalty", "frequencyPenalty", "frequency_penalty", "responseLogprobs", "response_logprobs", "logprobs", "responseModalities",
		"response_modalities", "speechConfig", "speech_config", "mediaResolution", "media_resolution", "audioTimestamp", "audio_timestamp", "enableEnhancedCivicAnswers", "enable_enhanced_civic_answers",
		"imageConfig", "image_config", "routingConfig", "routing_config", "modelSelectionConfig", "model_selection_config", "enableAffectiveDialog", "enable_affective_dialog", "modelConfig",
		"responseFormat", "response_format", "translationConfig", "translation_config", "audioTranscriptionConfig", "audio_transcription_config":
	default:
		d.unknown("generation_config", key)
	}
}

func (d *decoder) thinking(key []byte) {
	r := &d.r
	if r.Null() {
		return
	}
	switch string(key) {
	case "includeThoughts", "include_thoughts":
		if d.showThoughts = r.Bool(); d.showThoughts && d.q.Thinking == 0 {
			d.q.Thinking = dynamicThinking
		}
	case "thinkingBudget", "thinking_budget":
		switch n := d.int(); {
		case n == -1:
			d.q.Thinking = dynamicThinking
		case n < -1:
			d.refuse("", "* GenerateContentRequest.generation_config.thinking_config.thinking_budget: the thinking budget must not be negative.\n")
		default:
			d.q.Thinking = n
		}
	case "thinkingLevel", "thinking_level":
		if level := strings.ToUpper(r.String()); level != "" && level != "THINKING_LEVEL_UNSPECIFIED" {
			d.q.Thinking = dynamicThinking
		}
	default:
		d.unknown("generation_config.thinking_config", key)
	}
}

// finish judges what can be judged only when all of the body is known.
func (d *decoder) finish(message string) {
	q := d.q
	if d.contents == 0 {
		d.refuse("", "* "+message+".contents: contents is not specified\n")
		q.Turns = append(q.Turns, llmmock.Turn{Role: llmmock.User})
	}
	if d.contents > MaxContents {
		d.refuse("", "* "+message+".contents: at most "+strconv.Itoa(MaxContents)+" contents are allowed.\n")
	}
	if d.system.Role != "" {
		q.Turns[0] = d.system
	} else {
		q.Turns = q.Turns[1:]
	}
	if d.jsonAnswer && q.Schema == nil {
		q.Schema = []byte{}
	}
	if !d.jsonAnswer && q.Schema != nil {
		d.refuse("", "* "+message+".generation_config.response_schema: only allowed when response_mime_type is `application/json` or `text/x.enum`.\n")
	}
	if len(d.allowed) > 0 && q.ToolChoice == llmmock.ToolsRequired {
		d.onlyAllowed(message)
	}
}

// onlyAllowed leaves of the tools those that are allowed, all of which have to be declared.
func (d *decoder) onlyAllowed(message string) {
	q := d.q
	declared := make(map[string]bool, len(q.Tools))
	for _, t := range q.Tools {
		declared[t.Name] = false
	}
	for _, name := range d.allowed {
		if _, ok := declared[name]; !ok {
			d.refuse("", "* "+message+".tool_config.function_calling_config.allowed_function_names: function "+name+" is not declared.\n")
			return
		}
		declared[name] = true
	}
	if len(d.allowed) == 1 {
		q.ToolChoice, q.NamedTool = llmmock.ToolsNamed, d.allowed[0]
		return
	}
	q.Tools = slices.DeleteFunc(q.Tools, func(t llmmock.Tool) bool { return !declared[t.Name] })
}
