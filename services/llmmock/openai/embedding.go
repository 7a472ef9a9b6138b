package openai

import (
	"encoding/base64"
	"encoding/binary"
	"iter"
	"math"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// maxInputs is how many texts the vendor embeds in one request.
const maxInputs = 2048

// embedding is the format of POST /v1/embeddings.
type embedding struct {
	format
	base64 bool
}

func (w *wire) decodeEmbedding(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
	f := &embedding{format: w.format(q, r)}
	q.Operation = llmmock.Embed
	d := w.decoder(q, r, body)
	dimensions := 0
	d.Object(func(key []byte) {
		switch string(key) {
		case "input":
			q.Inputs, q.InputTokens = d.inputs(maxInputs)
			if len(q.Inputs) == 0 && d.Err() == nil {
				d.refuse("empty_array", "Invalid '", "': empty array. Expected an array with minimum length 1, but got an empty array instead.")
			}
		case "model":
			d.modelName()
		case "dimensions":
			dimensions = d.number(1, maxDimensions)
		case "encoding_format":
			switch s := d.text(); s {
			case "", "float":
			case "base64":
				f.base64 = true
			default:
				if d.Err() == nil {
					d.unknown(s, "'float' and 'base64'")
				}
			}
		case "user", "input_type":
		default:
			d.stranger(key)
		}
	})
	if q.Inputs == nil && d.Err() == nil {
		d.miss("input")
	}
	if failure := d.end(); failure != nil {
		return nil, failure
	}
	if q.Model == "" {
		return nil, bad("", "", "you must provide a model parameter")
	}
	own := sizeOf(q.Model)
	q.Dimensions = own
	if dimensions > 0 {
		q.Dimensions = dimensions
		switch {
		case strings.HasPrefix(q.Model, "text-embedding-ada"):
			d.rule("dimensions", "", "This model does not support specifying dimensions.")
		case dimensions > own:
			d.rule("dimensions", "", "Invalid value for 'dimensions' = "+strconv.Itoa(dimensions)+". Must be less than or equal to "+strconv.Itoa(own)+".")
		}
	}
	for i, s := range q.Inputs {
		if s == "" {
			field := "input"
			if len(q.Inputs) > 1 {
				field += "[" + strconv.Itoa(i) + "]"
			}
			d.rule(field, "", "Invalid '"+field+"': input cannot be an empty string.")
			break
		}
	}
	return f, w.check(&d, "POST /v1/embeddings")
}

// maxDimensions of any model's embeddings.
const maxDimensions = 3072

// sizeOf is how many dimensions a model's embeddings have.
func sizeOf(model string) int {
	if strings.HasPrefix(model, "text-embedding-3-large") {
		return maxDimensions
	}
	return 1536
}

// Whole implements provider.Format.
func (f *embedding) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	dst = append(dst, `{"object":"list","data":[`...)
	for i, v := range x.Answer.Embeddings {
		dst = comma(dst, i)
		dst = append(dst, `{"object":"embedding","index":`...)
		dst = strconv.AppendInt(dst, int64(i), 10)
		dst = append(dst, `,"embedding":`...)
		if f.base64 {
			dst = appendBase64(dst, v)
		} else {
			dst = append(dst, '[')
			for j, e := range v {
				dst = comma(dst, j)
				dst = strconv.AppendFloat(dst, float64(e), 'g', -1, 32)
			}
			dst = append(dst, ']')
		}
		dst = append(dst, '}')
	}
	dst = append(dst, `],"model":`...)
	dst = provider.AppendString(dst, x.Model)
	dst = append(dst, `,"usage":{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(x.Answer.Usage.Input), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(x.Answer.Usage.Input), 10)
	return http.StatusOK, jsonType, append(dst, `}}`...)
}

// appendBase64 appends the little-endian float32 of v in base64.
func appendBase64(dst []byte, v []float32) []byte {
	var raw [4 * 192]byte // in whole groups of three bytes
	dst = append(dst, '"')
	for len(v) > 0 {
		n := min(len(v), len(raw)/4)
		for i, e := range v[:n] {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(e))
		}
		dst = base64.StdEncoding.AppendEncode(dst, raw[:4*n])
		v = v[n:]
	}
	return append(dst, '"')
}

// Stream implements provider.Format; embeddings are never streamed.
func (f *embedding) Stream(*llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(func(llmmock.Chunk) bool) {}
}

// FailureChunk implements provider.Format.
func (f *embedding) FailureChunk(dst []byte, _ *llmmock.Failure, _ *llmmock.Exchange) []byte {
	return dst
}
