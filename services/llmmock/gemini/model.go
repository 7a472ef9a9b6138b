package gemini

import (
	"iter"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// model is one that the vendor lists.
type model struct {
	id, name      string
	input, output int
	embeds        bool
	thinks        bool
}

var models = []model{
	{id: "gemini-2.0-flash", name: "Gemini 2.0 Flash", input: 1_048_576, output: 8_192},
	{id: "gemini-2.0-flash-lite", name: "Gemini 2.0 Flash-Lite", input: 1_048_576, output: 8_192},
	{id: "gemini-2.5-flash", name: "Gemini 2.5 Flash", input: 1_048_576, output: 65_536, thinks: true},
	{id: "gemini-2.5-flash-lite", name: "Gemini 2.5 Flash-Lite", input: 1_048_576, output: 65_536, thinks: true},
	{id: "gemini-2.5-pro", name: "Gemini 2.5 Pro", input: 1_048_576, output: 65_536, thinks: true},
	{id: "gemini-3-pro-preview", name: "Gemini 3 Pro Preview", input: 1_048_576, output: 65_536, thinks: true},
	{id: "gemini-embedding-001", name: "Gemini Embedding 001", input: 2_048, output: 1, embeds: true},
	{id: "text-embedding-004", name: "Text Embedding 004", input: 2_048, output: 1, embeds: true},
}

// Known says whether the vendor lists the model.
func Known(id string) bool {
	_, ok := find(id)
	return ok
}

func find(id string) (*model, bool) {
	for i := range models {
		if models[i].id == id {
			return &models[i], true
		}
	}
	return nil, false
}

// modelFormat writes a page of models, or one.
type modelFormat struct {
	format
	models []model
	page   bool
	next   string
}

// decodeModels is a page of the list of models. The page token is the number of the first one on it.
func decodeModels(q *llmmock.Request, r *http.Request, f format) (provider.Format, *llmmock.Failure) {
	q.Operation = llmmock.Other
	v := r.URL.Query()
	size, from := 50, 0
	if s := v.Get("pageSize"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, invalid("page_size", "Invalid value at 'page_size' (TYPE_INT32), \""+s+"\"")
		}
		if n > 0 {
			size = min(n, 1000)
		}
	}
	if s := v.Get("pageToken"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > len(models) {
			return nil, invalid("", "Invalid page token.")
		}
		from = n
	}
	out := &modelFormat{format: f, page: true}
	to := min(from+size, len(models))
	out.models = models[from:to]
	if to < len(models) {
		out.next = strconv.Itoa(to)
	}
	return out, nil
}

func decodeModel(q *llmmock.Request, r *http.Request, f format) (provider.Format, *llmmock.Failure) {
	q.Operation = llmmock.Other
	q.Model = r.PathValue("model")
	m, ok := find(q.Model)
	if !ok {
		return nil, &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Message: "Model is not found: models/" + q.Model + " for api version " + f.version}
	}
	return &modelFormat{format: f, models: []model{*m}}, nil
}

// StreamType implements provider.Format.
func (f *modelFormat) StreamType() string { return contentType }

// Stream implements provider.Format: there is no stream of this, so that it is one piece.
func (f *modelFormat) Stream(x *llmmock.Exchange) iter.Seq[llmmock.Chunk] { return onePiece(f, x) }

// Whole implements provider.Format.
func (f *modelFormat) Whole(dst []byte, _ *llmmock.Exchange) (status int, _ string, body []byte) {
	if !f.page {
		return 200, contentType, append(f.appendModel(dst, &f.models[0]), '\n')
	}
	list := "models"
	if f.vertex {
		list = "publisherModels"
	}
	dst = append(dst, `{"`+list+`":[`...)
	for i := range f.models {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = f.appendModel(dst, &f.models[i])
	}
	dst = append(dst, ']')
	if f.next != "" {
		dst = append(dst, `,"nextPageToken":`...)
		dst = provider.AppendString(dst, f.next)
	}
	return 200, contentType, append(dst, "}\n"...)
}

func (f *modelFormat) appendModel(dst []byte, m *model) []byte {
	if f.vertex {
		dst = append(dst, `{"name":`...)
		dst = provider.AppendString(dst, "publishers/google/models/"+m.id)
		return append(dst, `,"versionId":"default","openSourceCategory":"PROPRIETARY","launchStage":"GA"}`...)
	}
	dst = append(dst, `{"name":`...)
	dst = provider.AppendString(dst, "models/"+m.id)
	dst = append(dst, `,"version":"001","displayName":`...)
	dst = provider.AppendString(dst, m.name)
	dst = append(dst, `,"inputTokenLimit":`...)
	dst = strconv.AppendInt(dst, int64(m.input), 10)
	dst = append(dst, `,"outputTokenLimit":`...)
	dst = strconv.AppendInt(dst, int64(m.output), 10)
	actions := []string{"generateContent", "countTokens", "createCachedContent", "batchGenerateContent"}
	if m.embeds {
		actions = []string{"embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent"}
	}
	dst = append(dst, `,"supportedGenerationMethods":["`...)
	dst = append(dst, strings.Join(actions, `","`)...)
	dst = append(dst, `"]`...)
	if !m.embeds {
		dst = append(dst, `,"temperature":1,"topP":0.95,"topK":64,"maxTemperature":2`...)
		if m.thinks {
			dst = append(dst, `,"thinking":true`...)
		}
	}
	return append(dst, '}')
}
