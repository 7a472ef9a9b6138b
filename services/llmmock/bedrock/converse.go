package bedrock

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/anthropic"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// MaxMessages and MaxBlocks in one request.
const (
	MaxMessages = 100_000
	MaxBlocks   = 1_000_000
)

func decodeConverse(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	q.Operation = llmmock.Generate
	d := newDecoder(q, body)
	d.r.Object(d.member)
	if e := d.r.Close(); e != nil {
		return nil, unserializable(e)
	}
	d.finish()
	if d.latency != "" {
		f.latency = d.latency
	}
	if d.tier != "" {
		f.tier = d.tier
	}
	return &converseFormat{format: f}, d.refusal
}

func decodeConverseStream(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	q.Stream = true
	return decodeConverse(f, q, body)
}

// decodeCount reads a body of Converse or of InvokeModel that is inside of its own.
func decodeCount(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	came := *q
	d := newDecoder(q, body)
	var inner []byte
	asked := 0
	d.r.Object(func(key []byte) {
		if string(key) != "input" || d.r.Null() {
			return
		}
		d.r.Object(func(key []byte) {
			if d.r.Null() {
				return
			}
			switch string(key) {
			case "converse":
				asked++
				d.r.Object(d.member)
			case "invokeModel":
				asked++
				d.r.Object(func(key []byte) {
					if string(key) != "body" || d.r.Null() {
						return
					}
					decoded, err := base64.StdEncoding.DecodeString(d.r.String())
					if err != nil && d.r.Err() == nil {
						d.r.Fail("Invalid base64 in the body of invokeModel.")
					}
					inner = decoded
				})
			}
		})
	})
	if e := d.r.Close(); e != nil {
		return nil, unserializable(e)
	}
	switch {
	case inner != nil:
		*q = came
		if _, refused := decodeInvoke(f, q, inner); refused != nil {
			d.refusal = refused
		}
	case asked != 1:
		d.refuse("1 validation error detected: Value at 'input' failed to satisfy constraint: Member must not be null")
	default:
		d.finish()
	}
	if len(q.Turns) == 0 {
		q.Turns = []llmmock.Turn{{Role: llmmock.User}}
	}
	q.Operation, q.Stream, q.Choices = llmmock.Count, false, 1
	return &countFormat{f}, d.refusal
}

// decoder reads a body of Converse, and what is the same in InvokeModel's body of a Nova model.
type decoder struct {
	r jsonread.Reader
	q *llmmock.Request
	// refusal is the first thing that the vendor does not allow although it can be understood.
	refusal *llmmock.Failure

	system        llmmock.Turn
	hasMessages   bool
	hasTools      bool
	usesTools     bool
	latency, tier string
	messages      int
	blocks        int
	// nova: the names of the fields are those of the model and not of Converse.
	nova bool
}

func newDecoder(q *llmmock.Request, body []byte) decoder {
	q.Choices, q.ParallelCalls = 1, true
	// The first turn is kept for the system's prompt, which may come after the messages.
	q.Turns = append(make([]llmmock.Turn, 0, 4), llmmock.Turn{Role: llmmock.System})
	return decoder{r: jsonread.New(body), q: q}
}

func (d *decoder) refuse(message string) {
	if d.refusal == nil {
		d.refusal = invalid(message)
	}
}

// constraint refuses a value as the vendor's framework does.
func (d *decoder) constraint(value, field, must string) {
	if d.refusal == nil {
		d.refuse("1 validation error detected: Value " + value + " at '" + field + "' failed to satisfy constraint: Member must " + must)
	}
}

func (d *decoder) member(key []byte) {
	r := &d.r
	if r.Null() {
		return
	}
	switch string(key) {
	case "messages":
		d.hasMessages = true
		r.Array(d.message)
	case "system":
		p := parts{turn: &d.system}
		r.Array(func(i int) {
			p.blocks++
			r.Object(func(key []byte) {
				switch string(key) {
				case "text":
					text := r.String()
					if strings.TrimSpace(text) == "" && r.Err() == nil {
						d.refuse("The text field in the SystemContentBlock object at system." + strconv.Itoa(i) + " is blank. Add text to the text field, and try again.")
					}
					p.Add(text)
				case "guardContent":
					d.guarded(&p)
				case "cachePoint":
					d.q.Cache.Turns = max(d.q.Cache.Turns, 1)
				}
			})
		})
		p.turn.Text = p.Text()
		if p.blocks > 0 {
			d.system.Role = llmmock.System
		}
	case "inferenceConfig":
		r.Object(d.inference)
	case "toolConfig":
		d.hasTools = true
		r.Object(d.toolConfig)
	case "additionalModelRequestFields":
		if r.Peek() == jsonread.Object {
			r.Object(d.additional)
		}
	case "performanceConfig":
		r.Object(func(key []byte) {
			if string(key) == "latency" {
				if d.latency = r.String(); d.latency != "standard" && d.latency != "optimized" && r.Err() == nil {
					d.constraint("'"+d.latency+"'", "performanceConfig.latency", "satisfy enum value set: [standard, optimized]")
				}
			}
		})
	case "serviceTier":
		r.Object(func(key []byte) {
			if string(key) == "type" {
				d.tier = r.String()
			}
		})
	case "outputConfig":
		r.Object(d.outputConfig)
	case "guardrailConfig", "promptVariables", "additionalModelResponseFieldPaths", "requestMetadata":
		// They change nothing here.
	case "schemaVersion":
		if !d.nova {
			return
		}
		if v := r.String(); v != "messages-v1" && r.Err() == nil {
			d.refusal = reformat("#/schemaVersion: " + v + " is not a valid enum value")
		}
	default:
		// Unknown members are passed over, as the vendor's framework does.
		if d.nova && d.refusal == nil {
			d.refusal = reformat("#: extraneous key [" + strings.ToValidUTF8(string(key), "\uFFFD") + "] is not permitted")
		}
	}
}

func (d *decoder) inference(key []byte) {
	r, q := &d.r, d.q
	if r.Null() {
		return
	}
	switch string(key) {
	case "maxTokens", "max_new_tokens":
		if q.MaxTokens = r.Int(); q.MaxTokens < 1 && r.Err() == nil {
			d.constraint("'"+strconv.Itoa(q.MaxTokens)+"'", "inferenceConfig.maxTokens", "have value greater than or equal to 1")
			q.MaxTokens = 0
		}
	case "temperature", "topP":
		switch n := r.Float(); {
		case n < 0:
			d.constraint("'"+strconv.FormatFloat(n, 'g', -1, 64)+"'", "inferenceConfig."+string(key), "have value greater than or equal to 0")
		case n > 1:
			d.constraint("'"+strconv.FormatFloat(n, 'g', -1, 64)+"'", "inferenceConfig."+string(key), "have value less than or equal to 1")
		}
	case "stopSequences":
		r.Array(func(i int) {
			if s := r.String(); s == "" {
				d.constraint("''", "inferenceConfig.stopSequences."+strconv.Itoa(i+1)+".member", "have length greater than or equal to 1")
			} else {
				q.Stop = append(q.Stop, s)
			}
		})
	case "topK":
	}
}

// additional are fields of the model's own: those that make it think.
func (d *decoder) additional(key []byte) {
	if k := string(key); k != "thinking" && k != "reasoning_config" && k != "reasoningConfig" || d.r.Peek() != jsonread.Object {
		return
	}
	kind, budget := "", 0
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "type":
			kind = d.r.String()
		case "budget_tokens":
			budget = d.r.Int()
		}
	})
	switch kind {
	case "enabled":
		d.q.Thinking = max(budget, 1024)
	case "adaptive":
		d.q.Thinking = 1024
	}
}

func (d *decoder) outputConfig(key []byte) {
	if string(key) != "textFormat" || d.r.Null() {
		return
	}
	d.r.Object(func(key []byte) {
		if string(key) != "structure" || d.r.Null() {
			return
		}
		d.r.Object(func(key []byte) {
			if string(key) != "jsonSchema" || d.r.Null() {
				return
			}
			d.r.Object(func(key []byte) {
				if string(key) != "schema" {
					return
				}
				schema := []byte(d.r.String())
				in := jsonread.New(schema)
				in.Skip()
				if in.Close() != nil {
					d.refuse("The schema in outputConfig.textFormat.structure.jsonSchema is not valid JSON.")
					schema = []byte{}
				}
				d.q.Schema = schema
			})
		})
	})
}

func (d *decoder) toolConfig(key []byte) {
	r, q := &d.r, d.q
	if r.Null() {
		return
	}
	switch string(key) {
	case "tools":
		r.Array(d.tool)
	case "toolChoice":
		r.Object(func(key []byte) {
			switch string(key) {
			case "auto":
				q.ToolChoice = llmmock.ToolsAuto
			case "any":
				q.ToolChoice = llmmock.ToolsRequired
			case "tool":
				q.ToolChoice = llmmock.ToolsNamed
				r.Object(func(key []byte) {
					if string(key) == "name" {
						q.NamedTool = r.String()
					}
				})
			}
		})
	}
}

func (d *decoder) tool(i int) {
	r := &d.r
	r.Object(func(key []byte) {
		d.q.Cache.Tools = d.q.Cache.Tools || string(key) == "cachePoint"
		if string(key) != "toolSpec" || r.Null() {
			return
		}
		var t llmmock.Tool
		r.Object(func(key []byte) {
			if r.Null() {
				return
			}
			switch string(key) {
			case "name":
				t.Name = r.String()
			case "description":
				t.Description = r.String()
			case "inputSchema":
				r.Object(func(key []byte) {
					if string(key) == "json" {
						t.Schema = bytes.Clone(r.Raw())
					}
				})
			}
		})
		if r.Err() != nil {
			return
		}
		at := "toolConfig.tools." + strconv.Itoa(i+1) + ".member.toolSpec."
		switch {
		case t.Name == "":
			d.constraint("", at+"name", "not be null")
		case t.Schema == nil:
			d.constraint("", at+"inputSchema", "not be null")
		case !toolName(t.Name):
			d.constraint("'"+t.Name+"'", at+"name", "satisfy regular expression pattern: [a-zA-Z0-9_-]+")
		case t.Schema[0] != '{':
			d.refuse("The value at " + at + "inputSchema.json must be an object.")
		default:
			d.q.Tools = append(d.q.Tools, t)
		}
	})
}

func toolName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c-'0' <= 9, c == '_', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// parts gathers the content blocks of one turn.
type parts struct {
	turn   *llmmock.Turn
	blocks int
	provider.Lines
}

func (d *decoder) message(i int) {
	if d.messages++; d.messages > MaxMessages {
		return
	}
	var t llmmock.Turn
	p := parts{turn: &t}
	role := ""
	d.r.Object(func(key []byte) {
		if d.r.Null() {
			return
		}
		switch string(key) {
		case "role":
			role = d.r.String()
		case "content":
			if d.nova && d.r.Peek() == jsonread.String {
				p.blocks++
				p.Add(d.r.String())
				return
			}
			d.r.Array(func(j int) { d.block(&p, i, j) })
		}
	})
	if d.r.Err() != nil {
		return
	}
	p.turn.Text = p.Text()
	switch role {
	case "user":
		t.Role = llmmock.User
	case "assistant":
		t.Role = llmmock.Assistant
	case "system":
		t.Role = llmmock.System
		d.constraint("'system'", "messages."+strconv.Itoa(i+1)+".member.role", "satisfy enum value set: [user, assistant]")
	case "":
		t.Role = llmmock.User
		d.constraint("", "messages."+strconv.Itoa(i+1)+".member.role", "not be null")
	default:
		t.Role = llmmock.User
		d.constraint("'"+role+"'", "messages."+strconv.Itoa(i+1)+".member.role", "satisfy enum value set: [user, assistant]")
	}
	if p.blocks == 0 && d.refusal == nil {
		d.refuse("The content field in the Message object at messages." + strconv.Itoa(i) + " is empty. Add a ContentBlock object to the content field and try again.")
	}
	if i == 0 && t.Role == llmmock.Assistant {
		d.refuse("A conversation must start with a user message. Try again with a conversation that starts with a user message.")
	}
	d.pair(i, &t)
	if len(t.Results) > 0 {
		t.Role = llmmock.ToolRole
	}
	d.q.Turns = append(d.q.Turns, t)
}

// pair holds calls of tools and their results together, and has the roles take turns.
func (d *decoder) pair(i int, t *llmmock.Turn) {
	last := &d.q.Turns[len(d.q.Turns)-1]
	if d.refusal != nil || i == 0 && len(t.Results) == 0 {
		return
	}
	if i > 0 && (last.Role == llmmock.Assistant) == (t.Role == llmmock.Assistant) {
		d.refuse("A conversation must alternate between user and assistant roles. Make sure the conversation alternates between user and assistant roles and try again.")
		return
	}
	if t.Role == llmmock.Assistant || len(last.Calls) == 0 && len(t.Results) == 0 {
		return
	}
	open := make(map[string]bool, len(last.Calls))
	for _, c := range last.Calls {
		open[c.ID] = true
	}
	for _, r := range t.Results {
		if _, ok := open[r.CallID]; !ok {
			d.refuse("The number of toolResult blocks at messages." + strconv.Itoa(i) + ".content exceeds the number of toolUse blocks of previous turn.")
			return
		}
		open[r.CallID] = false
	}
	var missing []string
	for id, is := range open {
		if is {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		const most = 20
		d.refuse("Expected toolResult blocks at messages." + strconv.Itoa(i) + ".content for the following Ids: " + strings.Join(missing[:min(len(missing), most)], ", "))
	}
}

func (d *decoder) block(p *parts, i, j int) {
	p.blocks++
	if d.blocks++; d.blocks > MaxBlocks {
		d.refuse("Too many content blocks.")
		return
	}
	r := &d.r
	members := 0
	r.Object(func(key []byte) {
		if r.Null() {
			return
		}
		members++
		switch string(key) {
		case "text":
			text := r.String()
			if strings.TrimSpace(text) == "" && r.Err() == nil {
				d.refuse("The text field in the ContentBlock object at messages." + strconv.Itoa(i) + ".content." + strconv.Itoa(j) + " is blank. Add text to the text field, and try again.")
			}
			p.Add(text)
		case "image", "document", "video", "audio":
			p.turn.Media++
			r.Object(func([]byte) {})
		case "toolUse":
			d.usesTools = true
			c := llmmock.Call{Arguments: "{}"}
			r.Object(func(key []byte) {
				switch string(key) {
				case "toolUseId":
					c.ID = r.String()
				case "name":
					c.Name = r.String()
				case "input":
					if raw := r.Raw(); len(raw) > 0 && raw[0] == '{' {
						c.Arguments = string(raw)
					} else if r.Err() == nil {
						d.refuse("The format of the value at messages." + strconv.Itoa(i) + ".content." + strconv.Itoa(j) + ".toolUse.input is invalid. Provide a json object for the field and try again.")
					}
				}
			})
			p.turn.Calls = append(p.turn.Calls, c)
		case "toolResult":
			d.usesTools = true
			p.turn.Results = append(p.turn.Results, d.result(p))
		case "guardContent":
			d.guarded(p)
		case "searchResult":
			r.Object(func(key []byte) {
				if string(key) == "content" && r.Peek() == jsonread.Array {
					d.texts(p)
				}
			})
		case "cachePoint":
			d.q.Cache.Turns = len(d.q.Turns) + 1 // with the one that is being read
		case "reasoningContent", "citationsContent", "toolAddition", "toolRemoval":
		default:
			members--
		}
	})
	if members != 1 && r.Err() == nil && d.refusal == nil {
		d.refuse("The ContentBlock object at messages." + strconv.Itoa(i) + ".content." + strconv.Itoa(j) + " must set one of the following keys: text, image, toolUse, toolResult, document, video, cachePoint, reasoningContent.")
	}
}

// guarded reads a text that a guardrail shall look at.
func (d *decoder) guarded(p *parts) {
	d.r.Object(func(key []byte) {
		if string(key) != "text" {
			p.turn.Media++
			return
		}
		d.r.Object(func(key []byte) {
			if string(key) == "text" {
				p.Add(d.r.String())
			}
		})
	})
}

// texts reads a list of objects for their member text.
func (d *decoder) texts(p *parts) {
	d.r.Array(func(int) {
		d.r.Object(func(key []byte) {
			if string(key) == "text" {
				p.Add(d.r.String())
			}
		})
	})
}

func (d *decoder) result(outer *parts) llmmock.Result {
	var res llmmock.Result
	r := &d.r
	r.Object(func(key []byte) {
		if r.Null() {
			return
		}
		switch string(key) {
		case "toolUseId":
			res.CallID = r.String()
		case "status":
			res.Failed = r.String() == "error"
		case "content":
			var t llmmock.Turn
			p := parts{turn: &t}
			r.Array(func(int) {
				r.Object(func(key []byte) {
					switch string(key) {
					case "text":
						p.Add(r.String())
					case "json":
						p.Add(string(r.Raw()))
					case "image", "document", "video":
						outer.turn.Media++
					}
				})
			})
			p.turn.Text = p.Text()
			res.Text = t.Text
		}
	})
	return res
}

// finish judges what can be judged only when all of the body is known.
func (d *decoder) finish() {
	q := d.q
	if d.messages == 0 {
		q.Turns = append(q.Turns, llmmock.Turn{Role: llmmock.User})
		if d.nova {
			d.refuseKey(d.hasMessages)
		} else {
			d.refuse("A conversation must start with a user message. Try again with a conversation that starts with a user message.")
		}
	}
	if d.messages > MaxMessages {
		d.refuse("Too many messages: at most " + strconv.Itoa(MaxMessages) + " are allowed.")
	}
	if d.usesTools && !d.hasTools && !d.nova {
		d.refuse("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
	}
	if d.hasTools && len(q.Tools) == 0 {
		d.constraint("'[]'", "toolConfig.tools", "have length greater than or equal to 1")
	}
	if q.ToolChoice == llmmock.ToolsNamed && !slices.ContainsFunc(q.Tools, func(t llmmock.Tool) bool { return t.Name == q.NamedTool }) {
		d.refuse("The tool in toolConfig.toolChoice is not one of toolConfig.tools.")
	}
	if d.system.Role != "" {
		q.Turns[0] = d.system
	} else {
		q.Turns = q.Turns[1:]
		q.Cache.Turns = max(q.Cache.Turns-1, 0)
	}
	if q.Cache != (llmmock.Cache{}) {
		q.Cache.Least = leastCached
		if familyOf(q.Model) == anthropicMessages {
			q.Cache.Least = anthropic.LeastCached(q.Model)
		}
	}
}

// leastCached is how many tokens the vendor's own models keep at least.
const leastCached = 1000

func (d *decoder) refuseKey(has bool) {
	if d.refusal != nil {
		return
	}
	if has {
		d.refusal = reformat("#/messages: expected minimum item count: 1, found: 0")
	} else {
		d.refusal = reformat("#: required key [messages] not found")
	}
}

// hostedModel is what Anthropic calls a model that this vendor offers: without the maker, and without the version of the offer.
func hostedModel(id string) string {
	id = strings.TrimPrefix(baseID(id), "anthropic.")
	if i := strings.LastIndex(id, "-v"); i > 0 && strings.Contains(id[i:], ":") {
		id = id[:i]
	}
	return id
}

// hosted decodes the body of a model of Anthropic's, with its refusals in this vendor's form.
func hosted(q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f, refused := anthropic.Hosted(q, body, hostedModel(q.Model))
	if refused != nil {
		refused = invalid(anthropic.Message(refused))
	}
	return f, refused
}
