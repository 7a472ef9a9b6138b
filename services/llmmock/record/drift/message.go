package drift

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"edgehold.internal/services/llmmock/record"
	"edgehold.internal/services/llmmock/spec"
)

// members of the events of a stream of messages, which Anthropic's specification does not have: only the message that they make together
// is in it.
var members = map[string][]string{
	"message_start": {"message"}, "content_block_start": {"index", "content_block"}, "content_block_delta": {"index", "delta"}, "content_block_stop": {"index"},
	"message_delta": {"delta", "usage", "context_management"}, "message_stop": nil, "ping": nil, "error": {"error", "request_id"},
}

// deltas are how a block of content grows: the member that is added, and that of the block that it is added to.
var deltas = map[string]struct{ from, to string }{
	"text_delta": {"text", "text"}, "thinking_delta": {"thinking", "thinking"}, "signature_delta": {"signature", "signature"}, "input_json_delta": {"partial_json", "input"},
	"citations_delta": {"citation", "citations"}, "compaction_delta": {"content", "content"},
}

// assembly is a message that is put together from its events.
type assembly struct {
	message map[string]any
	blocks  []map[string]any
	// inputs are the JSON of tools' inputs as far as it has come.
	inputs map[int]string
}

// mostBlocks that a message may have.
const mostBlocks = 10_000

// message holds the events of a stream against what is known of them, and what they make together against the specification.
func (c *checker) message(op *spec.Operation) {
	name, a := op.Pattern(), assembly{inputs: map[int]string{}}
	whole := false
	for e := range record.Events("text/event-stream", c.exchange.Answer.Body()) {
		c.report.Events++
		var doc map[string]any
		if err := json.Unmarshal(e.Data, &doc); err != nil {
			c.find(name, "event "+e.Name, Form, "", "is no JSON object")
			continue
		}
		kind, _ := doc["type"].(string)
		known, ok := members[kind]
		if !ok {
			c.find(name, "event "+kind, Unknown, "", "an event that is not known")
			continue
		}
		for member := range doc {
			if member != "type" && !slices.Contains(known, member) {
				c.find(name, "event "+kind, Unknown, member, "is not known")
			}
		}
		if says := a.add(kind, doc); says != "" {
			field, says, _ := strings.Cut(says, " ")
			what := Form
			if strings.Contains(says, "not known") {
				what = Unknown
			}
			c.find(name, "event "+kind, what, field, says)
		}
		whole = whole || kind == "message_stop"
	}
	if !whole || a.message == nil {
		c.unchecked["messages whose stream did not come to its end"]++
		return
	}
	text, err := json.Marshal(a.done())
	if err != nil {
		c.find(name, "message", Form, "", err.Error())
		return
	}
	differences, known := op.Drift(spec.OfAnswer, text)
	if known {
		c.report.Answers++
		c.tell(name, "message", differences)
	}
}

// add takes an event in. It says what cannot be: a field, a space, and a sentence about it.
func (a *assembly) add(kind string, doc map[string]any) string {
	if kind == "message_start" {
		a.message, _ = doc["message"].(map[string]any)
		if a.message == nil {
			return "message is no object"
		}
		return ""
	}
	at := -1
	if f, ok := doc["index"].(float64); ok && f >= 0 && f < mostBlocks {
		at = int(f)
	}
	delta, _ := doc["delta"].(map[string]any)
	switch kind {
	case "content_block_start":
		block, _ := doc["content_block"].(map[string]any)
		if at != len(a.blocks) || block == nil {
			return "index is not that of the next block"
		}
		a.blocks = append(a.blocks, block)
	case "content_block_delta":
		if at < 0 || at >= len(a.blocks) {
			return "index is that of no block"
		}
		kind, _ := delta["type"].(string)
		d, ok := deltas[kind]
		if !ok {
			return fmt.Sprintf("delta.type is %.40q, which is not known", kind)
		}
		for member := range delta {
			if member != "type" && member != d.from {
				return "delta." + strings.ReplaceAll(member, " ", "_") + " is not known"
			}
		}
		a.grow(at, d.from, d.to, delta[d.from])
	case "message_delta":
		if a.message == nil {
			return "type is message_delta before message_start"
		}
		maps.Copy(a.message, delta)
		usage, _ := a.message["usage"].(map[string]any)
		if more, ok := doc["usage"].(map[string]any); ok && usage != nil {
			maps.Copy(usage, more)
		}
		if m, ok := doc["context_management"]; ok {
			a.message["context_management"] = m
		}
	}
	return ""
}

// grow adds to a block.
func (a *assembly) grow(at int, from, to string, more any) {
	block := a.blocks[at]
	text, isText := more.(string)
	switch {
	case from == "partial_json":
		a.inputs[at] += text
	case from == "citation":
		list, _ := block[to].([]any)
		block[to] = append(list, more)
	case isText:
		before, _ := block[to].(string)
		block[to] = before + text
	default:
		block[to] = more
	}
}

// done is the message.
func (a *assembly) done() map[string]any {
	content := make([]any, len(a.blocks))
	for i, b := range a.blocks {
		content[i] = b
	}
	for at, text := range a.inputs {
		var input any
		if json.Unmarshal([]byte(text), &input) == nil {
			a.blocks[at]["input"] = input
		}
	}
	a.message["content"] = content
	return a.message
}
