package anthropic

import (
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// parts gathers the content blocks of one turn.
type parts struct {
	d    *decoder
	turn *llmmock.Turn
	// message is its number, and negative for the system's prompt.
	message int
	blocks  int
	// document: one of the blocks is one; cited: a text has citations.
	document, cited bool
	provider.Lines
}

// blocks reads a list of content blocks.
func (d *decoder) blocks(p *parts) {
	d.r.Array(func(i int) {
		p.blocks++
		d.block(p, i)
	})
}

// block is what the variants of a content block have between them; which one it is may be told last.
type block struct {
	kind            string
	text, id, name  string
	toolUseID       string
	input           string
	content         string
	media           int
	hasText, hasID  bool
	hasInput, isErr bool
	hasSource       bool
	// data of a source, as it came, until it is known whether it is plain text.
	data  []byte
	plain bool
	keep  bool
	cited bool
}

func (d *decoder) block(p *parts, i int) {
	var b block
	d.r.Object(func(key []byte) { d.blockMember(&b, key) })
	if e := d.r.Err(); e != nil {
		if b.kind != "" && len(e.Path()) > 0 {
			d.r.Within(b.kind)
		}
		return
	}
	if b.keep {
		turns := 1
		if p.message >= 0 {
			turns = len(d.q.Turns) + 1 // with the one that is being read
		}
		d.q.Cache.Turns = max(d.q.Cache.Turns, turns)
	}
	switch b.kind {
	case "text":
		if !b.hasText {
			d.refuseBlock(p, i, ".text.text", required)
		} else if b.text == "" {
			at := "messages"
			if p.message < 0 {
				at = "system"
			}
			d.refuse(at, "text content blocks must be non-empty")
		}
		p.Add(b.text)
		p.cited = p.cited || b.cited
	case "image", "document", "container_upload", "browser_state":
		if b.content == "" {
			p.turn.Media += max(b.media, 1)
		} else {
			p.turn.Media += b.media
			p.Add(b.content)
		}
		p.document = p.document || b.kind == "document"
		if !b.hasSource && (b.kind == "image" || b.kind == "document") {
			d.refuseBlock(p, i, "."+b.kind+".source", required)
		}
	case "search_result":
		p.Add(b.content)
	case "tool_use":
		switch {
		case !b.hasID:
			d.refuseBlock(p, i, ".tool_use.id", required)
		case b.name == "":
			d.refuseBlock(p, i, ".tool_use.name", required)
		case !b.hasInput:
			d.refuseBlock(p, i, ".tool_use.input", required)
		case b.input[0] != '{':
			d.refuseBlock(p, i, ".tool_use.input", "Input should be a valid dictionary")
			b.input = "{}"
		}
		p.turn.Calls = append(p.turn.Calls, llmmock.Call{ID: b.id, Name: b.name, Arguments: b.input})
	case "tool_result":
		if b.toolUseID == "" {
			d.refuseBlock(p, i, ".tool_result.tool_use_id", required)
		}
		p.turn.Results = append(p.turn.Results, llmmock.Result{CallID: b.toolUseID, Text: b.content, Failed: b.isErr})
		p.turn.Media += b.media
	case "thinking", "redacted_thinking", "server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
		"bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result", "mcp_tool_use",
		"mcp_tool_result", "mcp_tool_listing", "advisor_tool_result", "compaction", "fallback", "tool_addition", "tool_removal", "tool_reference":
		// What the vendor's own machinery said in earlier turns.
	case "":
		d.refuseBlock(p, i, "", "Unable to extract tag using discriminator 'type'")
	default:
		d.refuseBlock(p, i, "", "Input tag '"+b.kind+"' found using 'type' does not match any of the expected tags: "+blockKinds)
	}
}

// blockKinds are the tags in the vendor's refusal of another one.
const blockKinds = "'bash_code_execution_tool_result', 'code_execution_tool_result', 'container_upload', 'document', 'image', 'redacted_thinking', 'search_result', " +
	"'server_tool_use', 'text', 'text_editor_code_execution_tool_result', 'thinking', 'tool_result', 'tool_search_tool_result', 'tool_use', " +
	"'web_fetch_tool_result', 'web_search_tool_result'"

func (d *decoder) refuseBlock(p *parts, i int, member, message string) {
	if d.refusal != nil {
		return
	}
	at := "messages." + strconv.Itoa(p.message) + ".content."
	if p.message < 0 {
		at = "system."
	}
	d.refuse(at+strconv.Itoa(i)+member, message)
}

func (d *decoder) blockMember(b *block, key []byte) {
	r := &d.r
	switch string(key) {
	case "type":
		b.kind = r.String()
	case "text":
		b.text, b.hasText = r.String(), true
	case "id":
		b.id, b.hasID = r.String(), true
	case "name":
		b.name = r.String()
	case "tool_use_id":
		b.toolUseID = r.String()
	case "input":
		b.input, b.hasInput = string(r.Raw()), true
	case "is_error":
		b.isErr = !r.Null() && r.Bool()
	case "cache_control":
		b.keep = d.cacheControl()
	case "citations":
		if r.Peek() == jsonread.Array { // a document's are an object
			r.Array(func(int) { b.cited = true })
		}
	case "source":
		b.hasSource = true
		// That of a search result is a string, and of all others an object.
		if r.Peek() == jsonread.Object {
			r.Object(func(key []byte) { d.source(b, key) })
		}
	case "content":
		switch r.Peek() {
		case jsonread.String:
			b.content = r.String()
		case jsonread.Array:
			d.inner(b)
		}
	}
}

// source of a document may be text or blocks, and these are words of the prompt.
func (d *decoder) source(b *block, key []byte) {
	switch string(key) {
	case "data":
		// Of a picture it is large and of no use; of a text it is told by media_type, which comes before or after.
		if d.r.Peek() == jsonread.String {
			raw := d.r.Raw()
			if len(raw) > 2 && b.plain {
				b.content = unquoted(raw)
			} else {
				b.data = raw
			}
		}
	case "media_type":
		if d.r.Peek() == jsonread.String && d.r.String() == "text/plain" {
			b.plain = true
			if b.data != nil {
				b.content = unquoted(b.data)
			}
		}
	case "content":
		switch d.r.Peek() {
		case jsonread.String:
			b.content = d.r.String()
		case jsonread.Array:
			d.inner(b)
		}
	}
}

func unquoted(raw []byte) string {
	r := jsonread.New(raw)
	return r.String()
}

// inner reads the blocks inside a block: of a tool's result, of a document, of a search result.
func (d *decoder) inner(b *block) {
	var t llmmock.Turn
	p := parts{d: d, turn: &t}
	d.r.Array(func(int) {
		var in block
		d.r.Object(func(key []byte) {
			// Blocks do not go deeper than one into another, but documents have blocks in their source.
			d.blockMember(&in, key)
		})
		switch in.kind {
		case "text":
			p.Add(in.text)
		case "image", "browser_state":
			t.Media++
		case "document", "search_result":
			if in.content != "" {
				p.Add(in.content)
			} else {
				t.Media++
			}
			t.Media += in.media
		}
	})
	p.turn.Text = p.Text()
	b.content = t.Text
	b.media += t.Media
}
