package gemini

import (
	"iter"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/jsonread"
)

// MaxBatch is how many texts one request may have embedded.
const MaxBatch = 100

// countFormat writes how many tokens contents have.
type countFormat struct{ format }

// StreamType implements provider.Format.
func (f *countFormat) StreamType() string { return contentType }

// Whole implements provider.Format.
func (f *countFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, _ string, body []byte) {
	u := &x.Answer.Usage
	dst = append(dst, `{"totalTokens":`...)
	dst = strconv.AppendInt(dst, int64(u.Input), 10)
	if f.vertex {
		characters := 0
		for i := range x.Turns {
			characters += len([]rune(x.Turns[i].Text))
		}
		dst = append(dst, `,"totalBillableCharacters":`...)
		dst = strconv.AppendInt(dst, int64(characters), 10)
	}
	if u.Cached > 0 {
		dst = append(dst, `,"cachedContentTokenCount":`...)
		dst = strconv.AppendInt(dst, int64(u.Cached), 10)
	}
	dst = appendModality(append(dst, `,"promptTokensDetails":`...), u.Input)
	return 200, contentType, append(dst, "}\n"...)
}

// Stream implements provider.Format: there is no stream of this, so that it is one piece.
func (f *countFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] { return onePiece(f, x) }

func onePiece(f provider.Format, x *llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		_, _, body := f.Whole(nil, x)
		yield(llmmock.Chunk{Data: body})
	}
}

// form of the embeddings in an answer.
type form int

const (
	one     form = iota // embedContent
	batch               // batchEmbedContents
	predict             // Vertex AI's older method
)

// embedFormat writes embeddings.
type embedFormat struct {
	format
	form form
}

// embedding reads what is to be embedded.
type embedding struct {
	decoder
	// text of the contents that were read last, and whether there were some.
	text string
	has  bool
}

func (c *call) embedding() embedding {
	c.q.Operation = llmmock.Embed
	c.q.Choices = 1
	return embedding{decoder: decoder{r: jsonread.New(c.body), q: c.q}}
}

func decodeEmbed(c *call) (provider.Format, *llmmock.Failure) {
	d := c.embedding()
	d.r.Object(func(key []byte) { d.member("", key) })
	if e := d.r.Close(); e != nil {
		return nil, malformed(c.body, e)
	}
	d.take("* EmbedContentRequest.content: content is not specified\n")
	return &embedFormat{format: c.format, form: one}, d.refusal
}

func decodeBatch(c *call) (provider.Format, *llmmock.Failure) {
	d := c.embedding()
	n := 0
	d.r.Object(func(key []byte) {
		if string(key) != "requests" {
			d.unknown("", key)
			return
		}
		d.repeated(func(i int) {
			if n++; n > MaxBatch {
				return
			}
			d.text, d.has = "", false
			d.r.Object(func(key []byte) { d.member("requests["+strconv.Itoa(i)+"]", key) })
			if d.r.Err() == nil {
				d.take("* BatchEmbedContentsRequest.requests[" + strconv.Itoa(i) + "].content: content is not specified\n")
			}
		})
	})
	if e := d.r.Close(); e != nil {
		return nil, malformed(c.body, e)
	}
	switch {
	case n == 0:
		d.refuse("", "* BatchEmbedContentsRequest.requests: requests is not specified\n")
	case n > MaxBatch:
		d.refuse("", "* BatchEmbedContentsRequest.requests: at most "+strconv.Itoa(MaxBatch)+" requests can be in one batch\n")
	}
	return &embedFormat{format: c.format, form: batch}, d.refusal
}

// decodePredict reads instances of text, which is what there is to predict of an embedding model.
func decodePredict(c *call) (provider.Format, *llmmock.Failure) {
	d := c.embedding()
	n := 0
	d.r.Object(func(key []byte) {
		switch string(key) {
		case "instances":
			d.repeated(func(int) {
				if n++; n > MaxBatch {
					return
				}
				d.text, d.has = "", false
				d.r.Object(func(key []byte) {
					if string(key) == "content" && d.r.Peek() == jsonread.String {
						d.text, d.has = d.r.String(), true
					}
				})
				if d.r.Err() == nil {
					d.take("Invalid instance: the field content is required.")
				}
			})
		case "parameters":
			if d.r.Peek() == jsonread.Object {
				d.r.Object(func(key []byte) {
					if string(key) == "outputDimensionality" && !d.r.Null() {
						d.dimensions()
					}
				})
			}
		}
	})
	if e := d.r.Close(); e != nil {
		return nil, malformed(c.body, e)
	}
	switch {
	case n == 0:
		d.refuse("", "Empty instances.")
	case n > MaxBatch:
		d.refuse("", "Too many instances: at most "+strconv.Itoa(MaxBatch)+" are allowed.")
	}
	return &embedFormat{format: c.format, form: predict}, d.refusal
}

func (d *embedding) member(in string, key []byte) {
	if d.r.Null() {
		return
	}
	switch string(key) {
	case "content":
		var t llmmock.Turn
		p := parts{d: &d.decoder, turn: &t, at: "content"}
		d.r.Object(func(key []byte) {
			if string(key) == "parts" {
				d.repeated(p.part)
			}
		})
		p.turn.Text = p.Text()
		d.text, d.has = t.Text, p.parts > 0
	case "outputDimensionality", "output_dimensionality":
		d.dimensions()
	case "embedContentConfig", "embed_content_config":
		d.r.Object(func(key []byte) { d.member(in, key) })
	case "model", "taskType", "task_type", "title", "autoTruncate", "auto_truncate", "documentOcr", "document_ocr", "audioTrackExtraction", "audio_track_extraction":
	default:
		d.unknown(in, key)
	}
}

func (d *embedding) dimensions() {
	n := d.int()
	if n < 1 || n > 1<<14 {
		d.refuse("", "* EmbedContentRequest.output_dimensionality: must be positive and not larger than what the model has.\n")
		return
	}
	d.q.Dimensions = n
}

// take adds what was read to what is to be embedded, or refuses because there is nothing.
func (d *embedding) take(missing string) {
	if !d.has {
		d.refuse("", missing)
	}
	d.q.Inputs = append(d.q.Inputs, d.text)
}

// StreamType implements provider.Format.
func (f *embedFormat) StreamType() string { return contentType }

// Stream implements provider.Format: there is no stream of this, so that it is one piece.
func (f *embedFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] { return onePiece(f, x) }

// Whole implements provider.Format.
func (f *embedFormat) Whole(dst []byte, x *llmmock.Exchange) (status int, _ string, body []byte) {
	vectors, tokens := x.Answer.Embeddings, x.Answer.Usage.Input
	switch f.form {
	case one:
		dst = append(dst, `{"embedding":`...)
		var v []float32
		if len(vectors) > 0 {
			v = vectors[0]
		}
		dst = append(appendValues(dst, v), '}')
		if f.vertex {
			dst = append(dst, `,"truncated":false`...)
		}
		dst = append(dst, `,"usageMetadata":{"promptTokenCount":`...)
		dst = strconv.AppendInt(dst, int64(tokens), 10)
		dst = append(dst, `}`...)
	case batch:
		dst = append(dst, `{"embeddings":[`...)
		for i, v := range vectors {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendValues(dst, v), '}')
		}
		dst = append(dst, ']')
	case predict:
		dst = append(dst, `{"predictions":[`...)
		characters := 0
		for i, v := range vectors {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"embeddings":`...)
			dst = appendValues(dst, v)
			dst = append(dst, `,"statistics":{"truncated":false,"token_count":`...)
			// Only the sum is known; the first has what cannot be divided.
			n := tokens / len(vectors)
			if i == 0 {
				n += tokens % len(vectors)
			}
			dst = strconv.AppendInt(dst, int64(n), 10)
			dst = append(dst, `}}}`...)
		}
		for _, s := range x.Inputs {
			characters += len([]rune(strings.Join(strings.Fields(s), "")))
		}
		dst = append(dst, `],"metadata":{"billableCharacterCount":`...)
		dst = strconv.AppendInt(dst, int64(characters), 10)
		dst = append(dst, '}')
	}
	return 200, contentType, append(dst, "}\n"...)
}

// appendValues appends an object with the values of a vector, and leaves it open.
func appendValues(dst []byte, v []float32) []byte {
	dst = append(dst, `{"values":[`...)
	for i, n := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendFloat(dst, float64(n), 'g', -1, 32)
	}
	return append(dst, ']')
}
