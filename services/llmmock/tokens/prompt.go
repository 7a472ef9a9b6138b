package tokens

import (
	"strings"

	"github.com/cespare/xxhash/v2"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/say/schema"
)

// What OpenAI's cookbook gives for the frame that chat messages and tools are put into. The image is one in low detail; what other
// media cost depends on their size, which is not looked at.
const (
	perAnswer  = 3 // the answer begins with the assistant's frame
	perTurn    = 3
	perRole    = 1
	perMedium  = 85
	perTool    = 7 // 10 with CL100k
	perTools   = 12
	properties = 3
	property   = 3
	enumStart  = -3
	enumItem   = 3
)

// counted is how many tools are counted to the token; vendors take 128. The rest is taken for a token in four bytes.
const counted = 1000

// PerCall is what the frame of a tool call costs beside its name and arguments. It is published nowhere and an estimate.
const PerCall = 7

// Prompt is how many tokens q's input has: what OpenAI documents for messages and tools, and an estimate for other vendors and for
// what is not documented (calls and results of tools, nested properties, the schema of a structured answer). For Embed it is what
// the inputs have.
func Prompt(q *llmmock.Request) int {
	e := For(q.Model)
	if q.Operation == llmmock.Embed {
		if q.InputTokens > 0 {
			return q.InputTokens
		}
		n := 0
		for _, text := range q.Inputs {
			n += e.Count(text)
		}
		return n
	}
	n := perAnswer
	for i := range q.Turns {
		t := &q.Turns[i]
		n += perTurn + perRole + e.Count(t.Text) + perMedium*t.Media
		for j := range t.Calls {
			n += Call(e, &t.Calls[j])
		}
		for _, r := range t.Results {
			if r.Text != t.Text { // a turn of results may say them as its text too
				n += e.Count(r.Text)
			}
		}
	}
	if len(q.Tools) > 0 {
		n += perTools
		for i := range q.Tools {
			if t := &q.Tools[i]; i < counted {
				n += e.tool(t)
			} else {
				n += perTool + (len(t.Name)+len(t.Description)+len(t.Schema))/4
			}
		}
	}
	return n + e.Count(string(q.Schema))
}

// Beginning is how many tokens the tools and the first so many turns of a prompt have.
func Beginning(q *llmmock.Request, turns int) int {
	return Prompt(&llmmock.Request{Operation: llmmock.Generate, Model: q.Model, Tools: q.Tools, Turns: q.Turns[:min(turns, len(q.Turns))]}) - perAnswer
}

// Call is how many tokens a call of a tool costs.
func Call(e *Encoding, c *llmmock.Call) int {
	return PerCall + e.Count(c.Name) + e.Count(c.Arguments)
}

// tool is what the definition of one tool costs, remembered because clients send the same ones with every request.
func (e *Encoding) tool(t *llmmock.Tool) int {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(t.Name)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(t.Description)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(t.Schema)
	h := d.Sum64()
	if n, ok := e.memo.get(h); ok {
		return n
	}
	n := perTool + e.Count(t.Name+":"+strings.TrimSuffix(t.Description, "."))
	if e == CL100k {
		n += 3
	}
	if len(t.Schema) > 0 {
		v, err := schema.ParseValue(t.Schema)
		if err != nil {
			n += e.Count(string(t.Schema))
		} else {
			n += e.properties(&v)
		}
	}
	n = max(n, 0) // enumerations of nothing count less than nothing
	e.memo.put(h, n)
	return n
}

func (e *Encoding) properties(v *schema.Value) int {
	n := 0
	for name, p := range v.Get("properties").Members() {
		if n == 0 {
			n += properties
		}
		n += property + e.Count(name+":"+typeName(p.Get("type"))+":"+strings.TrimSuffix(p.Get("description").Text, "."))
		if enum := p.Get("enum"); enum.Kind == schema.Array {
			n += enumStart
			for i := range enum.Items {
				item := &enum.Items[i]
				text := item.Text
				if item.Kind != schema.String {
					text = string(item.Raw)
				}
				n += enumItem + e.Count(text)
			}
		}
		n += e.properties(p) + e.properties(p.Get("items"))
	}
	return n
}

func typeName(v *schema.Value) string {
	if v.Kind == schema.Array && len(v.Items) > 0 {
		return v.Items[0].Text
	}
	return v.Text
}
