package openai

import (
	"iter"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// completion is the format of POST /v1/completions.
type completion struct {
	format
	includeUsage, obfuscate bool
	// echo puts the prompt before the answer.
	echo     bool
	logprobs int // alternatives of each token; -1 for no probabilities
	prompts  []string
	// each prompt has so many answers.
	each int
}

func (w *wire) decodeCompletion(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &completion{format: w.format(q, r), obfuscate: true, logprobs: -1, each: 1}
	d := w.decoder(q, r, body)
	asked := false
	d.Object(func(key []byte) {
		switch string(key) {
		case "prompt":
			asked = true
			f.prompts = d.prompts()
		case "model":
			d.modelName()
		case "stream":
			q.Stream = d.flag(false)
		case "stream_options":
			d.streamOptions(&f.includeUsage, &f.obfuscate)
		case "max_tokens":
			q.MaxTokens = d.number(0, 1<<31-1)
		case "stop":
			d.stops()
		case "n":
			f.each = max(d.number(1, maxChoices), 1)
		case "echo":
			f.echo = d.flag(false)
		case "logprobs":
			if !d.Null() {
				f.logprobs = d.number(0, 5)
			}
		case "best_of", "frequency_penalty", "logit_bias", "presence_penalty", "seed", "suffix", "temperature", "top_p", "user", "metadata", "service_tier":
		default:
			d.stranger(key)
		}
	})
	if failure := d.end(); failure != nil {
		return nil, failure
	}
	if q.Model == "" {
		return nil, bad("", "", "you must provide a model parameter")
	}
	if !asked {
		f.prompts = []string{""} // the vendor's default is the beginning of a new document
		d.rule("prompt", missingCode, "Missing required parameter: 'prompt'.")
	}
	if n := len(f.prompts) * f.each; n > maxChoices {
		return nil, bad("n", "integer_above_max_value", "Invalid 'n': "+strconv.Itoa(n)+" completions were asked for. Expected at most "+strconv.Itoa(maxChoices)+" over all prompts.")
	}
	q.Turns = []llmmock.Turn{{Role: llmmock.User, Text: strings.Join(f.prompts, "\n")}}
	q.Choices = len(f.prompts) * f.each
	if q.MaxTokens == 0 {
		q.MaxTokens = 16 // the vendor's default
	}
	return f, w.check(&d, "POST /v1/completions")
}

// prompts reads a text, the tokens of one, or a list of either. Tokens become their ids in decimal.
func (d *decoder) prompts() []string {
	prompts, _ := d.inputs(maxChoices)
	if len(prompts) == 0 && d.Err() == nil {
		return []string{""}
	}
	return prompts
}

// inputs reads what completions and embeddings take: a text, a list of texts, a list of tokens, or a list of lists of tokens. ids
// is how many tokens there were, and 0 for texts.
func (d *decoder) inputs(limit int) (texts []string, ids int) {
	const wanted = "one of a string, array of strings, array of integers, or array of arrays of integers"
	switch k := d.Peek(); k {
	case jsonread.Null:
		d.Skip()
		return nil, 0
	case jsonread.String:
		return []string{d.String()}, 0
	case jsonread.Array:
	default:
		d.not(k, wanted)
		return nil, 0
	}
	var (
		first jsonread.Kind
		row   []byte
		n     int
	)
	id := func(int) {
		if ids++; ids > maxIDs {
			d.refuse("array_above_max_length", "Invalid '", "': too many tokens. Expected at most "+strconv.Itoa(maxIDs)+".")
			return
		}
		if len(row) > 0 {
			row = append(row, ' ')
		}
		row = strconv.AppendInt(row, int64(d.Int()), 10)
	}
	d.Array(func(i int) {
		k := d.Peek()
		if i == 0 {
			first = k
		}
		switch {
		case k != first:
			d.not(k, wanted)
		case k == jsonread.Number:
			id(i)
		case n >= limit:
			n++
			d.Skip()
		case k == jsonread.String:
			n++
			texts = append(texts, d.String())
		case k == jsonread.Array:
			n++
			row = row[:0]
			d.Array(id)
			texts = append(texts, string(row))
		default:
			d.not(k, wanted)
		}
	})
	if d.Err() == nil && n > limit {
		d.refuse("array_above_max_length", "Invalid '", "': array too long. Expected an array with maximum length "+strconv.Itoa(limit)+", but got an array with length "+strconv.Itoa(n)+" instead.")
	}
	if first == jsonread.Number {
		texts = []string{string(row)}
	}
	return texts, ids
}

// maxIDs is how many tokens the vendor takes in one request.
const maxIDs = 300_000

func (f *completion) head(dst []byte, x *llmmock.Exchange) []byte {
	dst = append(dst, `{"id":"cmpl-`...)
	dst = append(dst, x.ID...)
	dst = append(dst, `","object":"text_completion","created":`...)
	dst = strconv.AppendInt(dst, x.Created.Unix(), 10)
	dst = append(dst, `,"model":`...)
	dst = provider.AppendString(dst, x.Model)
	dst = append(dst, `,"system_fingerprint":"`...)
	dst = fingerprint(dst, x.Model)
	return append(dst, `","choices":[`...)
}

func (f *completion) finish(a *llmmock.Answer) string {
	switch a.Finish {
	case llmmock.AtLength:
		return "length"
	case llmmock.Filtered:
		return "content_filter"
	}
	return "stop"
}

// prompt of the i-th choice, when it is to be said again.
func (f *completion) prompt(i int) string {
	if !f.echo || f.each == 0 || i/f.each >= len(f.prompts) {
		return ""
	}
	return f.prompts[i/f.each]
}

// Whole implements provider.Format.
func (f *completion) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	dst = f.head(dst, x)
	for i := range choices(x) {
		if i > 0 {
			dst = append(dst, ',')
		}
		a, prompt := choice(x, i), f.prompt(i)
		dst = append(dst, `{"text":`...)
		if prompt == "" {
			dst = provider.AppendString(dst, a.Text)
		} else {
			dst = provider.AppendString(dst, prompt+a.Text)
		}
		dst = append(dst, `,"index":`...)
		dst = strconv.AppendInt(dst, int64(i), 10)
		dst = append(dst, `,"logprobs":`...)
		dst = f.probable(dst, x, i, tokens(a), 0, len(prompt))
		dst = append(dst, `,"finish_reason":"`...)
		dst = append(dst, f.finish(a)...)
		dst = append(dst, '"')
		if f.w.azure() {
			dst = append(dst, `,"content_filter_results":`+filtered...)
		}
		dst = append(dst, '}')
	}
	dst = append(dst, `],"usage":`...)
	dst = appendUsage(dst, usage(x), 0)
	if f.w.azure() {
		dst = append(dst, ","+promptFiltered...)
	}
	return http.StatusOK, jsonType, append(dst, '}')
}

// probable appends the probabilities of pieces, the first of which is number from and stands at offset in the text.
func (f *completion) probable(dst []byte, x *llmmock.Exchange, i int, pieces []string, from, offset int) []byte {
	if f.logprobs < 0 {
		return append(dst, "null"...)
	}
	p := probabilities{seed: x.Choice(i).Random(forProbabilities).Uint64(), top: f.logprobs}
	dst = append(dst, `{"tokens":[`...)
	for j, t := range pieces {
		dst = comma(dst, j)
		dst = provider.AppendString(dst, t)
	}
	dst = append(dst, `],"token_logprobs":[`...)
	for j := range pieces {
		dst = comma(dst, j)
		dst = appendLog(dst, p.of(from+j))
	}
	dst = append(dst, `],"top_logprobs":[`...)
	for j, t := range pieces {
		dst = append(comma(dst, j), '{')
		p.alternatives(t, from+j, func(n int, token string, probability float64) {
			dst = comma(dst, n)
			dst = append(provider.AppendString(dst, token), ':')
			dst = appendLog(dst, probability)
		})
		dst = append(dst, '}')
	}
	dst = append(dst, `],"text_offset":[`...)
	for j, t := range pieces {
		dst = comma(dst, j)
		dst = strconv.AppendInt(dst, int64(offset), 10)
		offset += len(t)
	}
	return append(dst, `]}`...)
}

// comma goes before every element but the first.
func comma(dst []byte, i int) []byte {
	if i > 0 {
		return append(dst, ',')
	}
	return dst
}

// Stream implements provider.Format.
func (f *completion) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) { f.stream(x, yield) }
}

func (f *completion) stream(x *llmmock.Exchange, yield func(llmmock.Chunk) bool) {
	buf := f.head(append(make([]byte, 0, 512), "data: "...), x)
	same := len(buf)
	pad := ""
	if f.obfuscate {
		pad = padding(x.ID)
	}
	// send writes a chunk of a choice, whose n-th piece text is; a reason for nothing more makes it the last one.
	send := func(i int, text string, n, offset int, finish string, due int) bool {
		buf = append(buf[:same], `{"text":`...)
		buf = provider.AppendString(buf, text)
		buf = append(buf, `,"index":`...)
		buf = strconv.AppendInt(buf, int64(i), 10)
		buf = append(buf, `,"logprobs":`...)
		if n < 0 || f.logprobs < 0 {
			buf = append(buf, "null"...)
		} else {
			buf = f.probable(buf, x, i, []string{text}, n, offset)
		}
		buf = append(buf, `,"finish_reason":`...)
		buf = appendOrNull(buf, finish)
		buf = append(buf, `}]`...)
		if f.includeUsage {
			buf = append(buf, `,"usage":null`...)
		}
		if pad != "" {
			buf = append(buf, `,"obfuscation":"`...)
			buf = append(buf, padded(pad, text)...)
			buf = append(buf, '"')
		}
		buf = append(buf, "}\n\n"...)
		return yield(llmmock.Chunk{Data: buf, Token: due})
	}
	n, before := choices(x), thought(x)
	offsets := make([]int, n)
	for i := range n {
		if prompt := f.prompt(i); prompt != "" {
			if !send(i, prompt, -1, 0, "", before) {
				return
			}
			offsets[i] = len(prompt)
		}
	}
	last := before
	for step, open := 0, n; open > 0; step++ {
		for i := range n {
			a := choice(x, i)
			pieces := tokens(a)
			switch {
			case step < len(pieces):
				last = before + step
				if !send(i, pieces[step], step, offsets[i], "", last) {
					return
				}
				offsets[i] += len(pieces[step])
			case step == len(pieces):
				open--
				if !send(i, "", -1, 0, f.finish(a), last) {
					return
				}
			}
		}
	}
	if f.includeUsage {
		buf = append(buf[:same], `],"usage":`...)
		buf = append(appendUsage(buf, usage(x), 0), "}\n\n"...)
		if !yield(llmmock.Chunk{Data: buf, Token: last}) {
			return
		}
	}
	yield(llmmock.Chunk{Data: append(buf[:0], "data: [DONE]\n\n"...), Token: last})
}

// FailureChunk implements provider.Format.
func (f *completion) FailureChunk(dst []byte, failure *llmmock.Failure, x *llmmock.Exchange) []byte {
	return f.failureChunk(dst, failure, x)
}
