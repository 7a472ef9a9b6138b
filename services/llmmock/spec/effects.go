package spec

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// What the shape of a path does not tell is told here, by the path or by the template of the collection. Each of these is nil for
// nothing special.

// birth happens when an item is made: it sets members of it.
func birth(collection string) func(e *exchange, x *llmmock.Exchange, o *Object, f *firm) {
	switch collection {
	case "/v1/vector_stores":
		return func(e *exchange, x *llmmock.Exchange, o *Object, f *firm) { e.vectorFiles(x, o.ID, "", f) }
	case "/v1/vector_stores/{vector_store_id}/file_batches":
		return func(e *exchange, x *llmmock.Exchange, o *Object, f *firm) { e.vectorFiles(x, e.params[0], o.ID, f) }
	case "/v1/messages/batches":
		return messageBatch
	}
	return nil
}

// deed happens when something is done to an item. An answer that is not nil is given instead.
func deed(path string) func(e *exchange, x *llmmock.Exchange, o *Object, f *firm) *answer {
	if path == "/v1/uploads/{upload_id}/complete" {
		return completeUpload
	}
	return nil
}

// progress happens when the state of an item has gone on from now to next.
func progress(collection string) func(e *exchange, x *llmmock.Exchange, o *Object, now, next string, f *firm) {
	switch collection {
	case "/v1/batches":
		return batchProgress
	case "/v1/messages/batches":
		return messageBatchProgress
	case "/v1/fine_tuning/jobs":
		return fineTuned
	}
	return nil
}

// contents are those that are not kept with the item.
func contents(path string) func(e *exchange, x *llmmock.Exchange, o *Object) *answer {
	if path == "/v1/messages/batches/{message_batch_id}/results" {
		return messageBatchResults
	}
	return nil
}

// called sets members of an answer, and may do something with it afterwards.
func called(path string) func(e *exchange, x *llmmock.Exchange, f *firm) func(*answer) *answer {
	switch path {
	case "/v1/threads/runs":
		return threadRun
	case "/v1/moderations":
		return moderation
	case "/v1/images/generations", "/v1/images/edits", "/v1/images/variations":
		return pictures
	case "/v1/embeddings":
		return embeddings
	case "/v1/audio/transcriptions", "/v1/audio/translations":
		return transcript
	}
	return nil
}

func fineTuned(_ *exchange, _ *llmmock.Exchange, o *Object, _, next string, f *firm) {
	if t, err := parse(o.JSON); err == nil && next == "succeeded" {
		f.str("fine_tuned_model", "ft:"+t.member(0, "model")+":edgehold::"+o.ID[max(0, len(o.ID)-8):]).int("trained_tokens", 5768)
		t.free()
	}
}

// other is an exchange of another operation in the same service, for what an operation does beside its own.
func (e *exchange) other(route string, params ...string) *exchange {
	op := e.Document.routes[route]
	if op == nil {
		return nil
	}
	op.ready()
	return &exchange{Service: e.Service, op: op, params: params, now: e.now, host: e.host}
}

// bear makes and keeps an item of another collection.
func (e *exchange) bear(x *llmmock.Exchange, id string, over []layer) *Object {
	it := e.op.knows()
	f := e.placed().str("id", id)
	m := e.maker(x)
	o := &Object{ID: id, JSON: m.append(nil, it.schema, "", append([]layer{f.layer()}, over...), 0)}
	e.Store.Put(e.path(e.op.collection), o)
	return o
}

// vectorFiles puts the files that the body names into a vector store, and into the batch of them if there is one, and counts them.
func (e *exchange) vectorFiles(x *llmmock.Exchange, id, batch string, f *firm) {
	sub := e.other("POST /v1/vector_stores/{vector_store_id}/files", id)
	if sub == nil || e.body == nil {
		return
	}
	n := 0
	put := func(file string, over []layer) {
		if file != "" && n < maxElements {
			n++
			o := sub.bear(x, file, append([]layer{(&firm{}).str("status", "completed").layer()}, over...))
			if batch != "" {
				e.Store.Put("/v1/vector_stores/"+id+"/file_batches/"+batch+"/files", o)
			}
		}
	}
	if v := e.body.field(0, "file_ids"); v >= 0 {
		e.body.elements(v, func(i int) {
			if e.body.nodes[i].kind == form.String {
				put(e.body.string(i), nil)
			}
		})
	}
	if v := e.body.field(0, "files"); v >= 0 {
		e.body.elements(v, func(i int) { put(e.body.member(i, "file_id"), []layer{{t: e.body, i: i}}) })
	}
	total := strconv.Itoa(n)
	f.raw("file_counts", `{"in_progress":0,"completed":`+total+`,"failed":0,"cancelled":0,"total":`+total+`}`)
}

// completeUpload makes a file of the parts, in the order that the client says.
func completeUpload(e *exchange, x *llmmock.Exchange, o *Object, f *firm) *answer {
	sub := e.other("POST /v1/files")
	if sub == nil || e.body == nil {
		return nil
	}
	var content []byte
	lost := ""
	if v := e.body.field(0, "part_ids"); v >= 0 {
		e.body.elements(v, func(i int) {
			if e.body.nodes[i].kind != form.String {
				return
			}
			part, _ := e.Store.Get("/v1/uploads/"+o.ID+"/parts", e.body.string(i))
			if part == nil {
				lost = e.body.string(i)
				return
			}
			content = append(content, part.Content...)
		})
	}
	if lost != "" && strict(x).Objects {
		return e.missing(x, "part", lost)
	}
	t, err := parseLong(o.JSON)
	if err != nil {
		return nil
	}
	made := (&firm{}).int("bytes", len(content)).str("filename", t.member(0, "filename")).str("purpose", t.member(0, "purpose")).str("status", "processed")
	file := sub.bear(x, "file-"+x.ID[:24], []layer{made.layer()})
	next := *file
	next.Content, next.Media = content, t.member(0, "mime_type")
	e.Store.Put("/v1/files", &next)
	f.raw("file", string(file.JSON))
	return nil
}

// threadRun makes a thread and a run in it.
func threadRun(e *exchange, x *llmmock.Exchange, f *firm) func(*answer) *answer {
	threads := e.other("POST /v1/threads")
	if threads == nil {
		return nil
	}
	id := "thread_" + x.ID[:24]
	over := []layer{}
	if e.body != nil {
		if v := e.body.field(0, "thread"); v >= 0 && e.body.nodes[v].kind == form.Object {
			over = append(over, layer{t: e.body, i: v})
		}
	}
	threads.bear(x, id, over)
	if len(over) > 0 {
		if v := e.body.field(over[0].i, "messages"); v >= 0 && e.body.nodes[v].kind == form.Array {
			if messages := e.other("POST /v1/threads/{thread_id}/messages", id); messages != nil {
				messages.makeEach(x, e.body, v)
			}
		}
	}
	run := "run_" + x.ID[:24]
	f.str("id", run).str("thread_id", id)
	return func(a *answer) *answer {
		e.Store.Put("/v1/threads/"+id+"/runs", &Object{ID: run, JSON: a.body})
		return a
	}
}

// empties is an array of n objects that are made up.
func empties(n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat("{},", n), ",") + "]"
}

// inputs is how many things a request is about.
func (e *exchange) inputs() int {
	const most = 2048
	if e.body == nil {
		return 1
	}
	v := e.body.field(0, "input")
	if v < 0 || e.body.nodes[v].kind != form.Array || e.body.nodes[v].n == 0 {
		return 1
	}
	if first := e.body.nodes[v+1].kind; first == form.Int {
		return 1 // one text, as tokens
	}
	return min(int(e.body.nodes[v].n), most)
}

func moderation(e *exchange, x *llmmock.Exchange, f *firm) func(*answer) *answer {
	f.str("id", "modr-"+x.ID[:24]).raw("results", empties(e.inputs()))
	return nil
}

func embeddings(e *exchange, x *llmmock.Exchange, f *firm) func(*answer) *answer {
	size := 1536
	if e.body != nil {
		if v := e.body.field(0, "dimensions"); v >= 0 {
			size = min(max(int(e.body.float(v)), 1), 4096)
		}
	}
	r := x.Random(llmmock.ForAnswer)
	var b []byte
	b = append(b, '[')
	for i := range e.inputs() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"object":"embedding","index":`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, `,"embedding":[`...)
		for k := range size {
			if k > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendFloat(b, float64(r.IntN(2001)-1000)/20000, 'f', -1, 64)
		}
		b = append(b, "]}"...)
	}
	f.raw("data", string(append(b, ']')))
	return nil
}

func pictures(e *exchange, x *llmmock.Exchange, f *firm) func(*answer) *answer {
	n, one := 1, `{"b64_json":"`+png+`"}`
	if e.body != nil {
		if v := e.body.field(0, "n"); v >= 0 {
			n = min(max(int(e.body.float(v)), 1), 10)
		}
		model := e.body.member(0, "model")
		if want := e.body.member(0, "response_format"); want == "url" || want == "" && strings.HasPrefix(model, "dall-e") {
			one = `{"url":"` + e.host + `/files/img-` + x.ID[:24] + `.png"}`
		}
	}
	f.raw("data", "["+strings.TrimSuffix(strings.Repeat(one+",", n), ",")+"]")
	return nil
}

func transcript(e *exchange, x *llmmock.Exchange, f *firm) func(*answer) *answer {
	text := "Lorem ipsum dolor sit amet, consectetur adipiscing elit."
	f.str("text", text)
	if e.body == nil {
		return nil
	}
	reply := func(media, body string) func(*answer) *answer {
		return func(a *answer) *answer { return &answer{http.StatusOK, media, []byte(body)} }
	}
	switch e.body.member(0, "response_format") {
	case "text":
		return reply("text/plain; charset=utf-8", text+"\n")
	case "srt":
		return reply("text/plain; charset=utf-8", "1\n00:00:00,000 --> 00:00:03,000\n"+text+"\n\n")
	case "vtt":
		return reply("text/vtt; charset=utf-8", "WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n"+text+"\n\n")
	case "verbose_json":
		f.str("language", "english").raw("duration", "3").str("task", "transcribe")
	}
	return nil
}

// maxLines of a batch are carried out, which is what the vendor takes.
const maxLines = 50_000

// carry answers a request of a batch.
func (e *exchange) carry(x *llmmock.Exchange, n int, method, path string, body []byte) (int, []byte) {
	if e.Run != nil {
		return e.Run(method, path, body)
	}
	op, params := e.Document.Find(method, path, nil)
	if op == nil {
		return http.StatusNotFound, []byte(`{"error":{"message":"Unknown request URL: ` + method + `","type":"invalid_request_error","param":null,"code":"unknown_url"}}`)
	}
	op.ready()
	one := *x
	one.ID = nth(x.ID, n+1)
	one.Moment.Occurrence += uint64(n) << 32
	sub := &exchange{Service: e.Service, op: op, params: params, now: e.now, host: e.host}
	if v := sub.read("application/json", body); v != nil {
		status, _, text := e.Service.Failure(nil, v.Failure(e.Document.vendor), &one)
		return status, text
	}
	a := sub.run(&one)
	return a.status, a.body
}

// batchProgress counts the lines of a batch when it begins, and carries them out when it is done.
func batchProgress(e *exchange, x *llmmock.Exchange, o *Object, now, next string, f *firm) {
	t, err := parse(o.JSON)
	if err != nil {
		return
	}
	defer t.free()
	input, _ := e.Store.Get("/v1/files", t.member(0, "input_file_id"))
	var lines [][]byte
	if input != nil {
		for line := range bytes.SplitSeq(input.Content, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 && len(lines) < maxLines {
				lines = append(lines, line)
			}
		}
	}
	counts := func(completed, failed int) {
		f.raw("request_counts", `{"total":`+strconv.Itoa(len(lines))+`,"completed":`+strconv.Itoa(completed)+`,"failed":`+strconv.Itoa(failed)+`}`)
	}
	if next != "completed" {
		counts(0, 0)
		return
	}
	var out, errs []byte
	completed, failed := 0, 0
	endpoint := t.member(0, "endpoint")
	for n, line := range lines {
		id := "batch_req_" + nth(x.ID, n)[:24]
		custom, status, body := "", http.StatusBadRequest, []byte(`{"error":{"message":"This line is not parseable as valid JSON.","type":"invalid_request_error","param":null,"code":"invalid_json_line"}}`)
		if l, err := parse(line); err == nil {
			custom = l.member(0, "custom_id")
			method, url := l.member(0, "method"), l.member(0, "url")
			if method == "" {
				method = http.MethodPost
			}
			if url == "" {
				url = endpoint
			}
			if v := l.field(0, "body"); v >= 0 {
				status, body = e.carry(x, n, method, url, bytes.Clone(l.raw(v)))
			}
			l.free()
		}
		to := &out
		if status >= 400 {
			to = &errs
			failed++
		} else {
			completed++
		}
		*to = append(*to, `{"id":`...)
		*to = provider.AppendString(*to, id)
		*to = append(*to, `,"custom_id":`...)
		*to = provider.AppendString(*to, custom)
		*to = append(*to, `,"response":{"status_code":`...)
		*to = strconv.AppendInt(*to, int64(status), 10)
		*to = append(*to, `,"request_id":"req_`+nth(x.ID, n)[:24]+`","body":`...)
		*to = append(*to, oneLine(body)...)
		*to = append(*to, "},\"error\":null}\n"...)
	}
	counts(completed, failed)
	keep := func(member, id string, content []byte) {
		if len(content) == 0 {
			return
		}
		sub := e.other("POST /v1/files")
		if sub == nil {
			return
		}
		made := (&firm{}).int("bytes", len(content)).str("filename", o.ID+"_"+member+".jsonl").str("purpose", "batch_output").str("status", "processed")
		file := *sub.bear(x, id, []layer{made.layer()})
		file.Content, file.Media = content, "application/jsonl"
		e.Store.Put("/v1/files", &file)
		f.str(member, id)
	}
	keep("output_file_id", "file-"+nth(x.ID, 1<<20)[:24], out)
	keep("error_file_id", "file-"+nth(x.ID, 1<<21)[:24], errs)
}

// oneLine is JSON without line ends between its parts, as a line of a file wants it.
func oneLine(b []byte) []byte {
	if bytes.IndexByte(b, '\n') < 0 {
		return b
	}
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r"), nil), []byte("\n"), []byte(" "))
}

// messageBatch counts the requests of a new batch, which brings them with it.
func messageBatch(e *exchange, _ *llmmock.Exchange, _ *Object, f *firm) {
	n := 0
	if e.body != nil {
		if v := e.body.field(0, "requests"); v >= 0 {
			n = int(e.body.nodes[v].n)
		}
	}
	f.raw("request_counts", `{"processing":`+strconv.Itoa(n)+`,"succeeded":0,"errored":0,"canceled":0,"expired":0}`)
	f.raw("results_url", "null").str("processing_status", "in_progress")
}

// messageBatchProgress carries the requests out when the batch ends.
func messageBatchProgress(e *exchange, x *llmmock.Exchange, o *Object, now, next string, f *firm) {
	if next != "ended" {
		return
	}
	t, err := parse(o.Body)
	if err != nil {
		return
	}
	defer t.free()
	var out []byte
	succeeded, errored, canceled := 0, 0, 0
	if v := t.field(0, "requests"); v >= 0 {
		n := 0
		t.elements(v, func(i int) {
			if n >= 2*maxLines {
				return
			}
			out = append(out, `{"custom_id":`...)
			out = provider.AppendString(out, t.member(i, "custom_id"))
			params := t.field(i, "params")
			switch {
			case now == "canceling":
				canceled++
				out = append(out, `,"result":{"type":"canceled"}}`...)
			case params < 0:
				errored++
				out = append(out, `,"result":{"type":"errored","error":{"type":"error","error":{"type":"invalid_request_error","message":"params: Field required"}}}}`...)
			default:
				status, body := e.carry(x, n, http.MethodPost, "/v1/messages", bytes.Clone(t.raw(params)))
				if status >= 400 {
					errored++
					out = append(out, `,"result":{"type":"errored","error":`...)
				} else {
					succeeded++
					out = append(out, `,"result":{"type":"succeeded","message":`...)
				}
				out = append(append(out, oneLine(body)...), "}}"...)
			}
			out = append(out, '\n')
			n++
		})
	}
	o.Content, o.Media = out, "application/x-jsonl"
	f.raw("request_counts", `{"processing":0,"succeeded":`+strconv.Itoa(succeeded)+`,"errored":`+strconv.Itoa(errored)+`,"canceled":`+strconv.Itoa(canceled)+`,"expired":0}`)
	f.str("results_url", e.host+"/v1/messages/batches/"+o.ID+"/results")
	f.str("ended_at", e.now.UTC().Format("2006-01-02T15:04:05Z"))
}

// messageBatchResults are there once the batch has ended.
func messageBatchResults(e *exchange, x *llmmock.Exchange, o *Object) *answer {
	if o == nil || o.Body == nil {
		return nil
	}
	return e.fail(x, &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest,
		Message: "Batch " + o.ID + " has no results yet: its processing has not ended."})
}
