package bedrock

import (
	"bytes"
	"encoding/base64"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// defaultMaxTokens is how long answers of Titan and Llama are without a wish.
const defaultMaxTokens = 512

func decodeInvoke(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f.invoked = true
	kind := familyOf(q.Model)
	if kind == unknown && opaque(q.Model) {
		kind = familyOfBody(body)
	}
	switch kind {
	case anthropicMessages:
		inner, refused := hosted(q, body)
		if inner == nil {
			return nil, refused
		}
		return &hostedFormat{format: f, inner: inner}, refused
	case titanText:
		return decodeTitan(f, q, body)
	case titanEmbed:
		return decodeTitanEmbed(f, q, body)
	case nova:
		return decodeNova(f, q, body)
	case llama:
		return decodeLlama(f, q, body)
	}
	return nil, invalidID()
}

func decodeInvokeStream(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	q.Stream = true
	out, refused := decodeInvoke(f, q, body)
	if _, ok := out.(*embedFormat); ok {
		return nil, invalid("The model is unsupported for streaming.")
	}
	return out, refused
}

// familyOfBody tells by its members whose model a body is for.
func familyOfBody(body []byte) family {
	found := unknown
	r := jsonread.New(body)
	r.Object(func(key []byte) {
		switch string(key) {
		case "anthropic_version":
			found = anthropicMessages
		case "inputText", "textGenerationConfig":
			found = titanText
		case "schemaVersion", "inferenceConfig":
			found = nova
		case "max_gen_len":
			found = llama
		}
	})
	return found
}

// invokeHeader is where InvokeModel says what the call has cost.
func (f *format) invokeHeader(h http.Header, x *llmmock.Exchange) {
	speed := f.latency
	if speed == "" {
		speed = "standard"
	}
	h["X-Amzn-Bedrock-Performanceconfig-Latency"] = []string{speed}
	if f.tier != "" {
		h["X-Amzn-Bedrock-Service-Tier"] = []string{f.tier}
	}
	if x.Stream {
		h["X-Amzn-Bedrock-Content-Type"] = []string{jsonType}
		return
	}
	u := &x.Answer.Usage
	set := func(name string, n int64) { h[name] = []string{strconv.FormatInt(n, 10)} }
	set("X-Amzn-Bedrock-Input-Token-Count", int64(uncached(u)))
	set("X-Amzn-Bedrock-Output-Token-Count", int64(u.Output))
	set("X-Amzn-Bedrock-Invocation-Latency", latency(x))
	if u.Cached > 0 || u.CacheWrite > 0 {
		set("X-Amzn-Bedrock-Cache-Read-Input-Token-Count", int64(u.Cached))
		set("X-Amzn-Bedrock-Cache-Write-Input-Token-Count", int64(u.CacheWrite))
	}
}

// appendMetrics appends the member that the vendor puts into the last event of a stream, whosever model it is.
func appendMetrics(dst []byte, x *llmmock.Exchange) []byte {
	u := &x.Answer.Usage
	dst = append(dst, `,"amazon-bedrock-invocationMetrics":{"inputTokenCount":`...)
	dst = strconv.AppendInt(dst, int64(uncached(u)), 10)
	dst = append(dst, `,"outputTokenCount":`...)
	dst = strconv.AppendInt(dst, int64(u.Output), 10)
	dst = append(dst, `,"invocationLatency":`...)
	dst = strconv.AppendInt(dst, latency(x), 10)
	dst = append(dst, `,"firstByteLatency":`...)
	dst = strconv.AppendInt(dst, x.Schedule.First.Milliseconds(), 10)
	if u.Cached > 0 || u.CacheWrite > 0 {
		dst = append(dst, `,"cacheReadInputTokenCount":`...)
		dst = strconv.AppendInt(dst, int64(u.Cached), 10)
		dst = append(dst, `,"cacheWriteInputTokenCount":`...)
		dst = strconv.AppendInt(dst, int64(u.CacheWrite), 10)
	}
	return append(dst, '}')
}

// chunks writes the events of InvokeModel's stream: frames whose payload has the model's own event in base64.
type chunks struct {
	buf []byte
	// payload is where the frame's begins, behind headers that are always the same.
	payload int
}

func (c *chunks) frame(event []byte) []byte {
	if c.payload == 0 {
		c.buf = beginFrame(make([]byte, 0, 512), "event", "chunk")
		c.payload = len(c.buf)
	}
	c.buf = append(c.buf[:c.payload], `{"bytes":"`...)
	c.buf = base64.StdEncoding.AppendEncode(c.buf, event)
	c.buf = append(c.buf, `"}`...)
	c.buf = endFrame(c.buf, c.payload)
	return c.buf
}

// hostedFormat puts the bodies and events of Anthropic's own API into this vendor's.
type hostedFormat struct {
	format
	inner provider.Format
}

// StreamType implements provider.Format.
func (f *hostedFormat) StreamType() string { return streamType }

// Whole implements provider.Format.
func (f *hostedFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	return f.inner.Whole(dst, x)
}

// Stream implements provider.Format. The pings that keep other connections open are not sent here.
func (f *hostedFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		var c chunks
		for event := range f.inner.Stream(x) {
			name, data, ok := bytes.Cut(event.Data, []byte("\ndata: "))
			if !ok || bytes.HasSuffix(name, []byte("event: ping")) {
				continue
			}
			data = bytes.TrimRight(data, "\n")
			if bytes.HasSuffix(name, []byte("event: message_stop")) {
				data = append(appendMetrics(data[:len(data)-1:len(data)-1], x), '}')
			}
			if !yield(llmmock.Chunk{Data: c.frame(data), Token: event.Token}) {
				return
			}
		}
	}
}

// bodyDecoder reads the flat bodies of Titan and Llama, of which every member is known.
type bodyDecoder struct {
	r       jsonread.Reader
	q       *llmmock.Request
	refusal *llmmock.Failure
}

func (d *bodyDecoder) refuse(what string) {
	if d.refusal == nil {
		d.refusal = reformat(what)
	}
}

func (d *bodyDecoder) extraneous(at string, key []byte) {
	d.refuse(at + ": extraneous key [" + strings.ToValidUTF8(string(key), "\uFFFD") + "] is not permitted")
}

// atLeast refuses a number that is less than it may be.
func (d *bodyDecoder) atLeast(at string, n, least int) int {
	if n < least && d.r.Err() == nil {
		d.refuse(at + ": " + strconv.Itoa(n) + " is not greater or equal to " + strconv.Itoa(least))
		return least
	}
	return n
}

// share refuses a number that is not within 0 and 1.
func (d *bodyDecoder) share(at string) {
	n := d.r.Float()
	text := strconv.FormatFloat(n, 'g', -1, 64)
	if n < 0 {
		d.refuse(at + ": " + text + " is not greater or equal to 0")
	} else if n > 1 {
		d.refuse(at + ": " + text + " is not less or equal to 1")
	}
}

func decodeTitan(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	q.Operation, q.Choices, q.MaxTokens = llmmock.Generate, 1, defaultMaxTokens
	d := bodyDecoder{r: jsonread.New(body), q: q}
	text, has := "", false
	const config = "#/textGenerationConfig"
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "inputText":
			text, has = d.r.String(), true
		case "textGenerationConfig":
			d.r.Object(func(key []byte) {
				if d.r.Null() {
					return
				}
				switch string(key) {
				case "maxTokenCount":
					q.MaxTokens = d.atLeast(config+"/maxTokenCount", d.r.Int(), 1)
				case "stopSequences":
					d.r.Array(func(int) { q.Stop = append(q.Stop, d.r.String()) })
				case "temperature", "topP":
					d.share(config + "/" + string(key))
				default:
					d.extraneous(config, key)
				}
			})
		default:
			d.extraneous("#", key)
		}
	})
	if e := d.r.Close(); e != nil {
		return nil, malformed(e)
	}
	switch {
	case !has:
		d.refuse("#: required key [inputText] not found")
	case text == "":
		d.refuse("#/inputText: expected minLength: 1, actual: 0")
	}
	q.Turns = []llmmock.Turn{{Role: llmmock.User, Text: text}}
	return &titanFormat{f}, d.refusal
}

// titanFormat writes the texts of Titan.
type titanFormat struct{ format }

// StreamType implements provider.Format.
func (f *titanFormat) StreamType() string { return streamType }

func titanReason(a *llmmock.Answer) string {
	switch a.Finish {
	case llmmock.AtLength:
		return "LENGTH"
	case llmmock.Filtered, llmmock.Refused:
		return "CONTENT_FILTERED"
	case llmmock.AtStop:
		return "STOP_CRITERIA_MET"
	}
	return "FINISH"
}

// Whole implements provider.Format.
func (f *titanFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	a := x.Answer
	dst = append(dst, `{"inputTextTokenCount":`...)
	dst = strconv.AppendInt(dst, int64(a.Usage.Input), 10)
	dst = append(dst, `,"results":[{"tokenCount":`...)
	dst = strconv.AppendInt(dst, int64(a.Usage.Output), 10)
	dst = append(dst, `,"outputText":`...)
	dst = provider.AppendString(dst, a.Text)
	dst = append(dst, `,"completionReason":"`...)
	dst = append(dst, titanReason(a)...)
	return 200, jsonType, append(dst, `"}]}`...)
}

// Stream implements provider.Format.
func (f *titanFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return textStream(x, func(event []byte, text string, _ int, last bool) []byte {
		event = append(event, `{"outputText":`...)
		event = provider.AppendString(event, text)
		event = append(event, `,"index":0,"totalOutputTextTokenCount":`...)
		if !last {
			event = append(event, `null,"completionReason":null`...)
		} else {
			event = strconv.AppendInt(event, int64(x.Answer.Usage.Output), 10)
			event = append(event, `,"completionReason":"`...)
			event = append(event, titanReason(x.Answer)...)
			event = append(event, '"')
		}
		event = append(event, `,"inputTextTokenCount":`...)
		return strconv.AppendInt(event, int64(x.Answer.Usage.Input), 10)
	})
}

// textStream streams an answer that is nothing but text. write appends the event of the n-th piece, from 0, and leaves its object
// open.
func textStream(x *llmmock.Exchange, write func(event []byte, text string, n int, last bool) []byte) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		var c chunks
		tokens := x.Answer.Tokens
		if len(tokens) == 0 {
			tokens = []string{x.Answer.Text}
		}
		event := make([]byte, 0, 256)
		for i, t := range tokens {
			last := i == len(tokens)-1
			event = write(event[:0], t, i, last)
			if last {
				event = appendMetrics(event, x)
			}
			event = append(event, '}')
			if !yield(llmmock.Chunk{Data: c.frame(event), Token: i}) {
				return
			}
		}
	}
}

func decodeLlama(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	q.Operation, q.Choices, q.MaxTokens = llmmock.Generate, 1, defaultMaxTokens
	d := bodyDecoder{r: jsonread.New(body), q: q}
	prompt, has, media := "", false, 0
	d.r.Object(func(key []byte) {
		if d.r.Null() {
			return
		}
		switch string(key) {
		case "prompt":
			prompt, has = d.r.String(), true
		case "max_gen_len":
			q.MaxTokens = d.atLeast("#/max_gen_len", d.r.Int(), 1)
		case "temperature", "top_p":
			d.share("#/" + string(key))
		case "images":
			d.r.Array(func(int) { media++ })
		default:
			d.extraneous("#", key)
		}
	})
	if e := d.r.Close(); e != nil {
		return nil, malformed(e)
	}
	if !has {
		d.refuse("#: required key [prompt] not found")
	}
	q.Turns = llamaTurns(prompt)
	q.Turns[len(q.Turns)-1].Media = media
	return &llamaFormat{f}, d.refusal
}

// llamaTurns takes a prompt apart that is written in the model's own template: headers with the role, and a mark at the end of
// each turn. Anything else is one turn of the user.
func llamaTurns(prompt string) []llmmock.Turn {
	const header, headerEnd, end = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
	var turns []llmmock.Turn
	rest := prompt
	for len(turns) < MaxMessages {
		_, after, ok := strings.Cut(rest, header)
		if !ok {
			break
		}
		name, text, ok := strings.Cut(after, headerEnd)
		if !ok {
			break
		}
		text, rest, _ = strings.Cut(text, end)
		role := llmmock.User
		switch strings.TrimSpace(name) {
		case "system":
			role = llmmock.System
		case "assistant":
			role = llmmock.Assistant
		case "ipython", "tool":
			role = llmmock.ToolRole
		}
		if text = strings.TrimSpace(text); role != llmmock.Assistant || text != "" {
			turns = append(turns, llmmock.Turn{Role: role, Text: text})
		}
	}
	if len(turns) == 0 {
		return []llmmock.Turn{{Role: llmmock.User, Text: prompt}}
	}
	return turns
}

// llamaFormat writes the texts of Llama.
type llamaFormat struct{ format }

// StreamType implements provider.Format.
func (f *llamaFormat) StreamType() string { return streamType }

func llamaReason(a *llmmock.Answer) string {
	if a.Finish == llmmock.AtLength {
		return "length"
	}
	return "stop"
}

// Whole implements provider.Format.
func (f *llamaFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	a := x.Answer
	dst = append(dst, `{"generation":`...)
	dst = provider.AppendString(dst, a.Text)
	dst = append(dst, `,"prompt_token_count":`...)
	dst = strconv.AppendInt(dst, int64(a.Usage.Input), 10)
	dst = append(dst, `,"generation_token_count":`...)
	dst = strconv.AppendInt(dst, int64(a.Usage.Output), 10)
	dst = append(dst, `,"stop_reason":"`...)
	dst = append(dst, llamaReason(a)...)
	return 200, jsonType, append(dst, `"}`...)
}

// Stream implements provider.Format.
func (f *llamaFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return textStream(x, func(event []byte, text string, n int, last bool) []byte {
		event = append(event, `{"generation":`...)
		event = provider.AppendString(event, text)
		event = append(event, `,"prompt_token_count":`...)
		if n == 0 {
			event = strconv.AppendInt(event, int64(x.Answer.Usage.Input), 10)
		} else {
			event = append(event, `null`...)
		}
		event = append(event, `,"generation_token_count":`...)
		if last {
			event = strconv.AppendInt(event, int64(x.Answer.Usage.Output), 10)
			event = append(event, `,"stop_reason":"`...)
			event = append(event, llamaReason(x.Answer)...)
			return append(event, '"')
		}
		event = strconv.AppendInt(event, int64(n+1), 10)
		return append(event, `,"stop_reason":null`...)
	})
}

func decodeNova(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	q.Operation = llmmock.Generate
	d := newDecoder(q, body)
	d.nova = true
	d.r.Object(d.member)
	if e := d.r.Close(); e != nil {
		return nil, malformed(e)
	}
	d.finish()
	return &novaFormat{f}, d.refusal
}

// novaFormat writes the answers of Nova, which are those of Converse in InvokeModel's body.
type novaFormat struct{ format }

// StreamType implements provider.Format.
func (f *novaFormat) StreamType() string { return streamType }

// Whole implements provider.Format.
func (f *novaFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	dst = append(dst, '{')
	dst = appendOutput(dst, x)
	dst = append(dst, `,"usage":`...)
	dst = appendUsage(dst, &x.Answer.Usage, "Count")
	return 200, jsonType, append(dst, '}')
}

// Stream implements provider.Format.
func (f *novaFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		s := stream{yield: yield, frame: &novaEvents{x: x}, cacheSuffix: "Count"}
		s.converse(&f.format, x)
	}
}

// novaEvents are named by the one member of their object.
type novaEvents struct {
	chunks
	x    *llmmock.Exchange
	last bool
}

func (n *novaEvents) begin(buf []byte, name string) []byte {
	n.last = name == "metadata"
	buf = append(buf[:0], `{"`...)
	buf = append(buf, name...)
	return append(buf, `":`...)
}

func (n *novaEvents) end(buf []byte, _ int) []byte {
	if n.last {
		buf = appendMetrics(buf, n.x)
	}
	return n.frame(append(buf, '}'))
}

func decodeTitanEmbed(f format, q *llmmock.Request, body []byte) (provider.Format, *llmmock.Failure) {
	q.Operation, q.Choices = llmmock.Embed, 1
	out := &embedFormat{format: f}
	image := false
	switch base := baseID(q.Model); {
	case strings.HasPrefix(base, "amazon.titan-embed-text-v1"), strings.HasPrefix(base, "amazon.titan-embed-g1"):
		q.Dimensions = 1536
	case strings.HasPrefix(base, "amazon.titan-embed-image"):
		q.Dimensions, image = 1024, true
	default:
		q.Dimensions, out.byType = 1024, true
	}
	d := bodyDecoder{r: jsonread.New(body), q: q}
	text, has := "", false
	size := func(at string) {
		switch n := d.r.Int(); {
		case n == 1024, n == 512 && !image, n == 384 && image, n == 256:
			q.Dimensions = n
		default:
			if d.r.Err() == nil {
				d.refuse(at + ": " + strconv.Itoa(n) + " is not a valid enum value")
			}
		}
	}
	d.r.Object(func(key []byte) {
		if d.r.Null() {
			return
		}
		switch k := string(key); {
		case k == "inputText":
			text, has = d.r.String(), true
		case k == "dimensions" && out.byType:
			size("#/dimensions")
		case k == "inputImage" && image:
			has = true
		case k == "embeddingConfig" && image:
			d.r.Object(func(key []byte) {
				if string(key) == "outputEmbeddingLength" {
					size("#/embeddingConfig/outputEmbeddingLength")
				}
			})
		case k == "normalize" && out.byType:
			_ = d.r.Bool()
		case k == "embeddingTypes" && out.byType:
		default:
			d.extraneous("#", key)
		}
	})
	if e := d.r.Close(); e != nil {
		return nil, malformed(e)
	}
	if !has {
		d.refuse("#: required key [inputText] not found")
	}
	q.Inputs = []string{text}
	return out, d.refusal
}

// embedFormat writes the embeddings of Titan.
type embedFormat struct {
	format
	byType bool
}

// StreamType implements provider.Format.
func (f *embedFormat) StreamType() string { return jsonType }

// Stream implements provider.Format: there is no stream of this, so that it is one piece.
func (f *embedFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] { return onePiece(f, x) }

// Whole implements provider.Format.
func (f *embedFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	var v []float32
	if len(x.Answer.Embeddings) > 0 {
		v = x.Answer.Embeddings[0]
	}
	dst = append(dst, `{"embedding":`...)
	from := len(dst)
	dst = append(dst, '[')
	for i, n := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendFloat(dst, float64(n), 'g', -1, 32)
	}
	dst = append(dst, ']')
	if f.byType {
		to := len(dst)
		dst = append(dst, `,"embeddingsByType":{"float":`...)
		dst = append(dst, dst[from:to]...)
		dst = append(dst, '}')
	}
	dst = append(dst, `,"inputTextTokenCount":`...)
	dst = strconv.AppendInt(dst, int64(x.Answer.Usage.Input), 10)
	return 200, jsonType, append(dst, '}')
}
