package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// server serves an API with nothing around it: each request is a moment of its own.
type server struct {
	t     testing.TB
	mux   *http.ServeMux
	mu    sync.Mutex
	count map[llmmock.Hash]uint64
}

func newServer(t testing.TB, apis ...provider.API) *server {
	t.Helper()
	s := &server{t: t, mux: http.NewServeMux(), count: map[llmmock.Hash]uint64{}}
	for _, api := range apis {
		for _, route := range api.Routes {
			s.mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, api, route) })
		}
	}
	return s
}

func (s *server) answer(w http.ResponseWriter, r *http.Request, api provider.API, route provider.Route) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
		return
	}
	q := &llmmock.Request{Vendor: api.Vendor, Method: r.Method, Path: r.URL.Path, Hash: llmmock.HashOf(r.Method, r.URL.Path, body)}
	format, failure := route.Decode(q, r, body)
	s.mu.Lock()
	m := llmmock.Moment{Request: q.Hash, Occurrence: s.count[q.Hash]}
	s.count[q.Hash]++
	s.mu.Unlock()
	x := &llmmock.Exchange{Request: q, Moment: m, ID: m.ID(), Created: instant}
	status, media, text := http.StatusOK, format.StreamType(), []byte(nil)
	switch {
	case failure != nil:
		status, media, text = format.Failure(nil, failure, x)
	case q.Stream:
		for c := range format.Stream(x) {
			text = append(text, c.Data...)
		}
	default:
		status, media, text = format.Whole(nil, x)
		if _, _, again := format.Whole(nil, x); !bytes.Equal(again, text) {
			s.t.Errorf("%s %s: asked twice for the same answer, gave %s and %s", r.Method, r.URL, text, again)
		}
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// do sends JSON, or a form, and is the status and the answer.
func (s *server) do(method, path string, body any) (int, map[string]any) {
	status, text := s.raw(method, path, body)
	var m map[string]any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &m); err != nil {
			s.t.Fatalf("%s %s answered %q: %v", method, path, text, err)
		}
	}
	return status, m
}

// fileForm is a multipart form with a file in it.
type fileForm struct {
	fields  [][2]string
	field   string
	name    string
	content string
}

func (s *server) raw(method, path string, body any) (int, []byte) {
	s.t.Helper()
	var in io.Reader = http.NoBody
	media := "application/json"
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	case fileForm:
		var buffer bytes.Buffer
		w := multipart.NewWriter(&buffer)
		for _, f := range b.fields {
			if err := w.WriteField(f[0], f[1]); err != nil {
				s.t.Fatal(err)
			}
		}
		p, err := w.CreateFormFile(b.field, b.name)
		if err == nil {
			_, err = io.WriteString(p, b.content)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			s.t.Fatal(err)
		}
		in, media = &buffer, w.FormDataContentType()
	default:
		s.t.Fatalf("%T is no body", body)
	}
	r := httptest.NewRequest(method, path, in)
	r.Header.Set("Content-Type", media)
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	return w.Code, w.Body.Bytes()
}

// must is do that has to succeed.
func (s *server) must(method, path string, body any) map[string]any {
	s.t.Helper()
	status, m := s.do(method, path, body)
	if status >= 300 {
		s.t.Fatalf("%s %s %v: %d %v", method, path, body, status, m)
	}
	return m
}

func service(t testing.TB, v llmmock.Vendor) *Service {
	return New(Config{Document: document(t, v)})
}

func both(t testing.TB) *server {
	return newServer(t, service(t, llmmock.OpenAI).API("", nil))
}

// Every route can be mounted at the same time, as ServeMux panics on those that cannot.
func TestRoutesDoNotConflict(t *testing.T) {
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		s := service(t, v)
		all := s.API("", nil)
		newServer(t, all, s.API("/openai", nil))
		if fewer := s.API("", []string{"POST /v1/chat/completions", "POST /v1/messages"}); len(fewer.Routes) != len(all.Routes)-1 {
			t.Errorf("%s: %d routes without one of %d", v, len(fewer.Routes), len(all.Routes))
		}
	}
}

func TestFind(t *testing.T) {
	d := document(t, llmmock.OpenAI)
	for _, c := range []struct{ method, path, want, values string }{
		{"GET", "/v1/files/file-1", "GET /v1/files/{file_id}", "file-1"},
		{"GET", "/v1/files/file-1/content", "GET /v1/files/{file_id}/content", "file-1"},
		{"GET", "/v1/agents/environments", "GET /v1/agents/environments", ""},
		{"GET", "/v1/agents/a1", "GET /v1/agents/{agent_id}", "a1"},
		{"GET", "/v1/models/ft%2Fx", "GET /v1/models/{model}", "ft/x"},
		{"DELETE", "/v1/vector_stores/v/files/f", "DELETE /v1/vector_stores/{vector_store_id}/files/{file_id}", "v f"},
		{"PUT", "/v1/files", "", ""},
		{"GET", "/v1/nothing", "", ""},
		{"GET", "/", "", ""},
	} {
		op, values := d.Find(c.method, c.path, nil)
		got := ""
		if op != nil {
			got = op.Pattern()
		}
		if got != c.want || strings.Join(values, " ") != c.values {
			t.Errorf("%s %s: %q %v, want %q %q", c.method, c.path, got, values, c.want, c.values)
		}
	}
	if !d.Has("/v1/files") || d.Has("/v1/nothing") {
		t.Error("Has is wrong")
	}
}

func TestFileLifecycle(t *testing.T) {
	s := both(t)
	made := s.must("POST", "/v1/files", fileForm{[][2]string{{"purpose", "batch"}, {"expires_after[anchor]", "created_at"}, {"expires_after[seconds]", "3600"}}, "file", "a.jsonl", "hello\n"})
	id, _ := made["id"].(string)
	if !strings.HasPrefix(id, "file-") || made["bytes"] != 6.0 || made["filename"] != "a.jsonl" || made["purpose"] != "batch" || made["object"] != "file" ||
		made["expires_at"] != made["created_at"].(float64)+3600 {
		t.Fatalf("made %v", made)
	}
	if got := s.must("GET", "/v1/files/"+id, nil); fmt.Sprint(got) != fmt.Sprint(made) {
		t.Errorf("got %v, made %v", got, made)
	}
	if _, content := s.raw("GET", "/v1/files/"+id+"/content", nil); string(content) != "hello\n" {
		t.Errorf("content %q", content)
	}
	if l := s.must("GET", "/v1/files?purpose=batch", nil); len(l["data"].([]any)) != 1 {
		t.Errorf("list %v", l)
	}
	if l := s.must("GET", "/v1/files?purpose=vision", nil); len(l["data"].([]any)) != 0 {
		t.Errorf("list of another purpose %v", l)
	}
	if d := s.must("DELETE", "/v1/files/"+id, nil); d["deleted"] != true || d["id"] != id {
		t.Errorf("deleted %v", d)
	}
	if status, m := s.do("GET", "/v1/files/"+id, nil); status != http.StatusNotFound || !strings.Contains(fmt.Sprint(m), id) {
		t.Errorf("after its end: %d %v", status, m)
	}
	if status, _ := s.raw("GET", "/v1/files/"+id+"/content", nil); status != http.StatusNotFound {
		t.Errorf("content after its end: %d", status)
	}
	if l := s.must("GET", "/v1/files", nil); len(l["data"].([]any)) != 0 {
		t.Errorf("list after its end %v", l)
	}
}

func TestPagination(t *testing.T) {
	s := both(t)
	var ids []string
	for i := range 7 {
		ids = append(ids, s.must("POST", "/v1/vector_stores", fmt.Sprintf(`{"name":"n%d"}`, i))["id"].(string))
	}
	page := func(query string) (got []string, more bool, m map[string]any) {
		m = s.must("GET", "/v1/vector_stores?"+query, nil)
		for _, d := range m["data"].([]any) {
			got = append(got, d.(map[string]any)["name"].(string))
		}
		more, _ = m["has_more"].(bool)
		return got, more, m
	}
	for _, c := range []struct {
		query, want string
		more        bool
	}{
		{"limit=3", "n6 n5 n4", true},
		{"limit=3&after=" + ids[4], "n3 n2 n1", true},
		{"limit=3&after=" + ids[1], "n0", false},
		{"limit=3&order=asc", "n0 n1 n2", true},
		{"limit=3&order=asc&after=" + ids[2], "n3 n4 n5", true},
		{"limit=2&before=" + ids[4], "n6 n5", false},
		{"limit=2&before=" + ids[2], "n4 n3", true},
		{"limit=100", "n6 n5 n4 n3 n2 n1 n0", false},
	} {
		got, more, m := page(c.query)
		if strings.Join(got, " ") != c.want || more != c.more {
			t.Errorf("%s: %v more %v, want %s more %v", c.query, got, more, c.want, c.more)
		}
		if len(got) > 0 && m["first_id"] != m["data"].([]any)[0].(map[string]any)["id"] {
			t.Errorf("%s: first_id %v", c.query, m["first_id"])
		}
	}

	a := newServer(t, service(t, llmmock.Anthropic).API("", nil))
	for i := range 5 {
		a.must("POST", "/v1/vaults?beta=true", fmt.Sprintf(`{"display_name":"n%d"}`, i))
	}
	var got []string
	next := ""
	for range 5 {
		m := a.must("GET", "/v1/vaults?beta=true&limit=2"+next, nil)
		for _, d := range m["data"].([]any) {
			got = append(got, d.(map[string]any)["display_name"].(string))
		}
		cursor, ok := m["next_page"].(string)
		if !ok {
			break
		}
		next = "&page=" + cursor
	}
	if strings.Join(got, " ") != "n4 n3 n2 n1 n0" {
		t.Errorf("pages of Anthropic: %v", got)
	}
}

func TestVectorStore(t *testing.T) {
	s := both(t)
	store := s.must("POST", "/v1/vector_stores", `{"name":"docs","file_ids":["file-a","file-b"],"metadata":{"team":"search"},"expires_after":{"anchor":"last_active_at","days":2}}`)
	id := store["id"].(string)
	if !strings.HasPrefix(id, "vs_") || store["name"] != "docs" || fmt.Sprint(store["metadata"]) != "map[team:search]" || store["file_counts"].(map[string]any)["total"] != 2.0 {
		t.Errorf("made %v", store)
	}
	file := s.must("POST", "/v1/vector_stores/"+id+"/files", `{"file_id":"file-c","attributes":{"a":1}}`)
	if file["id"] != "file-c" || file["vector_store_id"] != id {
		t.Errorf("file %v", file)
	}
	batch := s.must("POST", "/v1/vector_stores/"+id+"/file_batches", `{"file_ids":["file-d"]}`)
	if batch["vector_store_id"] != id {
		t.Errorf("batch %v", batch)
	}
	if l := s.must("GET", "/v1/vector_stores/"+id+"/file_batches/"+batch["id"].(string)+"/files", nil)["data"].([]any); len(l) != 1 || l[0].(map[string]any)["id"] != "file-d" {
		t.Errorf("files of the batch %v", l)
	}
	if l := s.must("GET", "/v1/vector_stores/"+id+"/files", nil); len(l["data"].([]any)) != 4 {
		t.Errorf("files %v", l)
	}
	if got := s.must("GET", "/v1/vector_stores/"+id+"/files/file-c", nil); fmt.Sprint(got["attributes"]) != "map[a:1]" {
		t.Errorf("file %v", got)
	}
	changed := s.must("POST", "/v1/vector_stores/"+id, `{"name":"papers"}`)
	if changed["name"] != "papers" || fmt.Sprint(changed["metadata"]) != "map[team:search]" {
		t.Errorf("changed %v", changed)
	}
	s.must("DELETE", "/v1/vector_stores/"+id, nil)
	if status, _ := s.do("GET", "/v1/vector_stores/"+id+"/files", nil); status != http.StatusNotFound {
		t.Errorf("files of a deleted store: %d", status)
	}
}

func TestUpload(t *testing.T) {
	s := both(t)
	up := s.must("POST", "/v1/uploads", `{"purpose":"batch","filename":"big.txt","bytes":10,"mime_type":"text/plain"}`)
	id := up["id"].(string)
	if up["status"] != "pending" {
		t.Errorf("made %v", up)
	}
	var parts []string
	for _, p := range []string{"hello", "world"} {
		part := s.must("POST", "/v1/uploads/"+id+"/parts", fileForm{nil, "data", "blob", p})
		if part["upload_id"] != id {
			t.Errorf("part %v", part)
		}
		parts = append(parts, part["id"].(string))
	}
	done := s.must("POST", "/v1/uploads/"+id+"/complete", fmt.Sprintf(`{"part_ids":[%q,%q]}`, parts[1], parts[0]))
	file, _ := done["file"].(map[string]any)
	if done["status"] != "completed" || file["filename"] != "big.txt" || file["bytes"] != 10.0 || file["purpose"] != "batch" {
		t.Fatalf("complete %v", done)
	}
	if _, content := s.raw("GET", "/v1/files/"+file["id"].(string)+"/content", nil); string(content) != "worldhello" {
		t.Errorf("content %q", content)
	}
	if status, _ := s.do("POST", "/v1/uploads/"+id+"/cancel", nil); status != http.StatusOK {
		t.Errorf("cancel %d", status)
	}
}

func TestBatch(t *testing.T) {
	var ran []string
	svc := New(Config{Document: document(t, llmmock.OpenAI), Run: func(method, path string, body []byte) (int, []byte) {
		ran = append(ran, method+" "+path+" "+string(body))
		if strings.Contains(string(body), "bad") {
			return http.StatusBadRequest, []byte(`{"error":{"message":"no"}}`)
		}
		return http.StatusOK, []byte("{\"id\":\"x\",\n\"ok\":true}")
	}})
	s := newServer(t, svc.API("", nil))
	lines := `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}` + "\n\n" + `{"custom_id":"b","method":"POST","url":"/v1/chat/completions","body":{"bad":1}}` + "\nnonsense\n"
	input := s.must("POST", "/v1/files", fileForm{[][2]string{{"purpose", "batch"}}, "file", "in.jsonl", lines})["id"].(string)
	batch := s.must("POST", "/v1/batches", `{"input_file_id":"`+input+`","endpoint":"/v1/chat/completions","completion_window":"24h","metadata":{"k":"v"}}`)
	path := "/v1/batches/" + batch["id"].(string)
	if batch["status"] != "validating" || len(ran) != 0 {
		t.Fatalf("made %v after %v", batch, ran)
	}
	if b := s.must("GET", path, nil); b["status"] != "in_progress" || b["request_counts"].(map[string]any)["total"] != 3.0 {
		t.Fatalf("first read %v", b)
	}
	done := s.must("GET", path, nil)
	if done["status"] != "completed" || fmt.Sprint(done["request_counts"]) != "map[completed:1 failed:2 total:3]" || fmt.Sprint(done["metadata"]) != "map[k:v]" {
		t.Fatalf("second read %v", done)
	}
	if again := s.must("GET", path, nil); fmt.Sprint(again) != fmt.Sprint(done) || len(ran) != 2 {
		t.Errorf("third read %v, ran %v", again, ran)
	}
	_, out := s.raw("GET", "/v1/files/"+done["output_file_id"].(string)+"/content", nil)
	var line struct {
		CustomID string `json:"custom_id"`
		Response struct {
			StatusCode int            `json:"status_code"`
			Body       map[string]any `json:"body"`
		} `json:"response"`
	}
	if err := json.Unmarshal(out, &line); err != nil || line.CustomID != "a" || line.Response.StatusCode != 200 || line.Response.Body["ok"] != true {
		t.Errorf("output %s: %v", out, err)
	}
	if _, errs := s.raw("GET", "/v1/files/"+done["error_file_id"].(string)+"/content", nil); strings.Count(string(errs), "\n") != 2 {
		t.Errorf("errors %s", errs)
	}
}

// Without anybody to run its lines a batch is answered as the document says.
func TestBatchAlone(t *testing.T) {
	s := both(t)
	input := s.must("POST", "/v1/files", fileForm{[][2]string{{"purpose", "batch"}}, "file", "in.jsonl",
		`{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"text-embedding-3-small","input":["x","y"],"dimensions":4}}` + "\n" + `{"custom_id":"b","method":"POST","url":"/v1/embeddings","body":{"model":"m"}}`})["id"].(string)
	batch := s.must("POST", "/v1/batches", `{"input_file_id":"`+input+`","endpoint":"/v1/embeddings","completion_window":"24h"}`)
	path := "/v1/batches/" + batch["id"].(string)
	s.must("GET", path, nil)
	done := s.must("GET", path, nil)
	_, out := s.raw("GET", "/v1/files/"+done["output_file_id"].(string)+"/content", nil)
	if strings.Count(string(out), `"object":"embedding"`) != 2 {
		t.Errorf("output %s", out)
	}
	if _, errs := s.raw("GET", "/v1/files/"+done["error_file_id"].(string)+"/content", nil); !strings.Contains(string(errs), "'input'") {
		t.Errorf("errors %s", errs)
	}
}

func TestCancelBatch(t *testing.T) {
	s := both(t)
	batch := s.must("POST", "/v1/batches", `{"input_file_id":"file-none","endpoint":"/v1/embeddings","completion_window":"24h"}`)
	path := "/v1/batches/" + batch["id"].(string)
	if c := s.must("POST", path+"/cancel", nil); c["status"] != "cancelling" || c["cancelling_at"] == nil {
		t.Errorf("cancel %v", c)
	}
	if c := s.must("GET", path, nil); c["status"] != "cancelled" || c["cancelled_at"] == nil {
		t.Errorf("then %v", c)
	}
}

func TestMessageBatch(t *testing.T) {
	s := newServer(t, service(t, llmmock.Anthropic).API("", nil))
	batch := s.must("POST", "/v1/messages/batches", `{"requests":[{"custom_id":"a","params":{"model":"claude-sonnet-4-5","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}},{"custom_id":"b","params":{"model":"claude-sonnet-4-5","max_tokens":6,"messages":[{"role":"user","content":"ho"}]}}]}`)
	path := "/v1/messages/batches/" + batch["id"].(string)
	if !strings.HasPrefix(batch["id"].(string), "msgbatch_") || batch["processing_status"] != "in_progress" || batch["ended_at"] != nil ||
		fmt.Sprint(batch["request_counts"]) != "map[canceled:0 errored:0 expired:0 processing:2 succeeded:0]" {
		t.Fatalf("made %v", batch)
	}
	if status, _ := s.do("GET", path+"/results", nil); status != http.StatusBadRequest {
		t.Errorf("results before the end: %d", status)
	}
	done := s.must("GET", path, nil)
	if done["processing_status"] != "ended" || done["ended_at"] == nil || !strings.HasSuffix(done["results_url"].(string), path+"/results") {
		t.Fatalf("read %v", done)
	}
	_, out := s.raw("GET", path+"/results", nil)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 {
		t.Fatalf("results %s", out)
	}
	for i, l := range lines {
		var r struct {
			CustomID string `json:"custom_id"`
			Result   struct {
				Type    string         `json:"type"`
				Message map[string]any `json:"message"`
			} `json:"result"`
		}
		if err := json.Unmarshal([]byte(l), &r); err != nil || r.CustomID != string(rune('a'+i)) || r.Result.Type != "succeeded" || r.Result.Message["role"] != "assistant" {
			t.Errorf("result %s: %v", l, err)
		}
	}
	if d := s.must("DELETE", path, nil); d["id"] != batch["id"] {
		t.Errorf("deleted %v", d)
	}
}

func TestThreads(t *testing.T) {
	s := both(t)
	thread := s.must("POST", "/v1/threads", `{"messages":[{"role":"user","content":"one"},{"role":"user","content":"two"}],"metadata":{"a":"b"}}`)
	path := "/v1/threads/" + thread["id"].(string)
	l := s.must("GET", path+"/messages?order=asc", nil)["data"].([]any)
	if len(l) != 2 || l[0].(map[string]any)["thread_id"] != thread["id"] {
		t.Fatalf("messages %v", l)
	}
	run := s.must("POST", path+"/runs", `{"assistant_id":"asst_1","model":"gpt-4o","instructions":"be brief"}`)
	if run["status"] != "queued" || run["assistant_id"] != "asst_1" || run["thread_id"] != thread["id"] || run["instructions"] != "be brief" {
		t.Errorf("run %v", run)
	}
	var states []string
	for range 3 {
		states = append(states, s.must("GET", path+"/runs/"+run["id"].(string), nil)["status"].(string))
	}
	if strings.Join(states, " ") != "in_progress completed completed" {
		t.Errorf("states %v", states)
	}
	both := s.must("POST", "/v1/threads/runs", `{"assistant_id":"asst_1","thread":{"messages":[{"role":"user","content":"x"}]}}`)
	if l := s.must("GET", "/v1/threads/"+both["thread_id"].(string)+"/messages", nil)["data"].([]any); len(l) != 1 {
		t.Errorf("messages of a thread that was made with its run: %v", l)
	}
	if got := s.must("GET", "/v1/threads/"+both["thread_id"].(string)+"/runs/"+both["id"].(string), nil); got["id"] != both["id"] {
		t.Errorf("run %v", got)
	}
}

func TestConversation(t *testing.T) {
	s := both(t)
	c := s.must("POST", "/v1/conversations", `{"items":[{"type":"message","role":"user","content":"hi"}],"metadata":{"a":"b"}}`)
	path := "/v1/conversations/" + c["id"].(string)
	added := s.must("POST", path+"/items", `{"items":[{"type":"message","role":"user","content":[{"type":"input_text","text":"second"}]},{"type":"function_call_output","call_id":"call_1","output":"42"}]}`)["data"].([]any)
	if len(added) != 2 || added[1].(map[string]any)["call_id"] != "call_1" {
		t.Fatalf("added %v", added)
	}
	l := s.must("GET", path+"/items?order=asc", nil)["data"].([]any)
	if len(l) != 3 {
		t.Fatalf("items %v", l)
	}
	id := added[0].(map[string]any)["id"].(string)
	if got := s.must("GET", path+"/items/"+id, nil); got["id"] != id || got["role"] != "user" {
		t.Errorf("item %v", got)
	}
	if d := s.must("DELETE", path+"/items/"+id, nil); d["id"] != c["id"] {
		t.Errorf("deleting an item answers %v, want the conversation", d)
	}
	if l := s.must("GET", path+"/items", nil)["data"].([]any); len(l) != 2 {
		t.Errorf("items %v", l)
	}
}

func TestFineTuning(t *testing.T) {
	s := both(t)
	job := s.must("POST", "/v1/fine_tuning/jobs", `{"model":"gpt-4o-mini","training_file":"file-1","suffix":"x","seed":7}`)
	path := "/v1/fine_tuning/jobs/" + job["id"].(string)
	if !strings.HasPrefix(job["id"].(string), "ftjob-") || job["model"] != "gpt-4o-mini" || job["training_file"] != "file-1" || job["fine_tuned_model"] != nil || job["finished_at"] != nil {
		t.Errorf("made %v", job)
	}
	if p := s.must("POST", path+"/resume", nil); p["status"] != "running" {
		t.Errorf("resume %v", p)
	}
	if p := s.must("GET", path, nil); p["status"] != "succeeded" || !strings.HasPrefix(fmt.Sprint(p["fine_tuned_model"]), "ft:gpt-4o-mini:") || p["finished_at"] == nil {
		t.Errorf("done %v", p)
	}
	if l := s.must("GET", path+"/events", nil)["data"].([]any); len(l) == 0 {
		t.Error("a job without events")
	}
}

func TestModels(t *testing.T) {
	s := both(t)
	l := s.must("GET", "/v1/models", nil)["data"].([]any)
	if all := document(t, llmmock.OpenAI).Models(); len(l) != len(all) || len(l) < 100 {
		t.Errorf("%d models, want %d", len(l), len(all))
	}
	if m := s.must("GET", "/v1/models/gpt-4o", nil); m["id"] != "gpt-4o" || m["object"] != "model" {
		t.Errorf("model %v", m)
	}
	a := newServer(t, New(Config{Document: document(t, llmmock.Anthropic), Models: []string{"claude-x"}}).API("", nil))
	if m := a.must("GET", "/v1/models", nil); m["first_id"] != "claude-x" || m["has_more"] != false {
		t.Errorf("models %v", m)
	}
}

// An object that was never made is made up, the same each time, with the id that was asked for.
func TestMadeUp(t *testing.T) {
	s := both(t)
	a, b := s.must("GET", "/v1/evals/eval_1", nil), s.must("GET", "/v1/evals/eval_1", nil)
	if a["id"] != "eval_1" || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%v and %v", a, b)
	}
	if c := s.must("POST", "/v1/evals/eval_1", `{"name":"mine"}`); c["name"] != "mine" || c["id"] != "eval_1" {
		t.Errorf("changed %v", c)
	}
	if c := s.must("GET", "/v1/evals/eval_1", nil); c["name"] != "mine" {
		t.Errorf("then %v", c)
	}
	s.must("DELETE", "/v1/evals/eval_1", nil)
	if c := s.must("GET", "/v1/evals/eval_1", nil); fmt.Sprint(c) != fmt.Sprint(a) {
		t.Errorf("after its end it is %v, want what is made up, %v", c, a)
	}
}

func TestSingle(t *testing.T) {
	s := both(t)
	path := "/v1/organization/spend_limit"
	s.must("POST", path, `{"threshold_amount":2500,"currency":"USD","interval":"month"}`)
	if m := s.must("GET", path, nil); m["threshold_amount"] != 2500.0 {
		t.Errorf("limit %v", m)
	}
	if m := s.must("DELETE", path, nil); m["deleted"] != true {
		t.Errorf("deleted %v", m)
	}
}

func TestBinary(t *testing.T) {
	s := both(t)
	for format, magic := range map[string]string{"wav": "RIFF", "mp3": "\xff\xfb"} {
		if status, b := s.raw("POST", "/v1/audio/speech", `{"model":"tts-1","input":"hi","voice":"alloy","response_format":"`+format+`"}`); status != 200 || !strings.HasPrefix(string(b), magic) {
			t.Errorf("speech in %s: %d %.20q", format, status, b)
		}
	}
	if _, b := s.raw("GET", "/v1/skills/skill_1/content", nil); !strings.HasPrefix(string(b), "PK") {
		t.Errorf("content of a skill: %.20q", b)
	}
	m := s.must("POST", "/v1/images/generations", `{"model":"gpt-image-1","prompt":"a cat","n":3}`)
	if l := m["data"].([]any); len(l) != 3 || l[0].(map[string]any)["b64_json"] == "" {
		t.Errorf("images %v", m)
	}
	if _, b := s.raw("POST", "/v1/audio/transcriptions", fileForm{[][2]string{{"model", "whisper-1"}, {"response_format", "srt"}}, "file", "a.mp3", "x"}); !strings.HasPrefix(string(b), "1\n00:") {
		t.Errorf("transcript %s", b)
	}
	if m := s.must("POST", "/v1/audio/transcriptions", fileForm{[][2]string{{"model", "whisper-1"}, {"timestamp_granularities[]", "word"}}, "file", "a.mp3", "x"}); m["text"] == "" {
		t.Errorf("transcript %v", m)
	}
	if m := s.must("POST", "/v1/moderations", `{"input":["a","b"]}`); len(m["results"].([]any)) != 2 {
		t.Errorf("moderations %v", m)
	}
}

func TestStream(t *testing.T) {
	s := both(t)
	_, b := s.raw("POST", "/v1/images/generations", `{"model":"gpt-image-1","prompt":"a cat","stream":true,"partial_images":1}`)
	text := string(b)
	if !strings.Contains(text, "event: image_generation.partial_image\ndata: {") || !strings.Contains(text, "event: image_generation.completed\n") || !strings.HasSuffix(text, "data: [DONE]\n\n") {
		t.Errorf("stream %s", text)
	}
	for event := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		_, data, ok := strings.Cut(event, "data: ")
		if !ok || data != "[DONE]" && !json.Valid([]byte(data)) {
			t.Errorf("event %q", event)
		}
	}
}

// What was posted is refused when the document does, with the vendor's words.
func TestRefusedRequests(t *testing.T) {
	s := both(t)
	for _, c := range []struct {
		method, path string
		body         any
		want         string
	}{
		{"POST", "/v1/files", fileForm{nil, "file", "a", "x"}, "'purpose'"},
		{"POST", "/v1/files", fileForm{[][2]string{{"purpose", "nonsense"}}, "file", "a", "x"}, "'fine-tune'"},
		{"POST", "/v1/files", `{"purpose":"batch"}`, "Content-Type"},
		{"GET", "/v1/files?order=sideways", nil, "Supported values are: 'asc' and 'desc'"},
		{"GET", "/v1/files?limit=ten", nil, "Invalid type for 'limit'"},
		{"GET", "/v1/organization/usage/completions", nil, "'start_time'"},
		{"POST", "/v1/uploads", nil, "'filename'"},
		{"POST", "/v1/evals", `{"name"`, "could not parse"},
	} {
		status, m := s.do(c.method, c.path, c.body)
		if status != http.StatusBadRequest || !strings.Contains(fmt.Sprint(m), c.want) {
			t.Errorf("%s %s %v: %d %v, want %s", c.method, c.path, c.body, status, m, c.want)
		}
	}
}

// The same requests in the same order get the same bytes from a new service.
func TestDeterminism(t *testing.T) {
	talk := func() string {
		s := both(t)
		var b strings.Builder
		for range 2 {
			for _, r := range [][3]string{{"POST", "/v1/vector_stores", `{"name":"a"}`}, {"GET", "/v1/vector_stores", ""}, {"GET", "/v1/evals/x", ""},
				{"POST", "/v1/moderations", `{"input":"x"}`}, {"GET", "/v1/organization/audit_logs", ""}, {"GET", "/v1/models", ""}} {
				var body any
				if r[2] != "" {
					body = r[2]
				}
				status, text := s.raw(r[0], r[1], body)
				fmt.Fprintf(&b, "%d %s\n", status, text)
			}
		}
		return b.String()
	}
	if a, b := talk(), talk(); a != b {
		t.Errorf("two runs differ:\n%s", difference(a, b))
	}
}

// Many clients at once, for the race detector, and no more objects than are allowed.
func TestConcurrency(t *testing.T) {
	svc := New(Config{Document: document(t, llmmock.OpenAI), Store: NewStore(50, 0)})
	s := newServer(t, svc.API("", nil))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 30 {
				m := s.must("POST", "/v1/vector_stores", fmt.Sprintf(`{"name":"%d-%d"}`, i, n))
				s.do("GET", "/v1/vector_stores/"+m["id"].(string), nil)
				s.must("GET", "/v1/vector_stores?limit=5", nil)
				s.do("DELETE", "/v1/vector_stores/"+m["id"].(string), nil)
			}
		})
	}
	wg.Wait()
	if n := svc.Store.Len(); n > 50 {
		t.Errorf("%d objects are kept, at most 50 are allowed", n)
	}
}

func BenchmarkCreateAndGet(b *testing.B) {
	s := both(b)
	b.ReportAllocs()
	for b.Loop() {
		m := s.must("POST", "/v1/vector_stores", `{"name":"a"}`)
		s.must("GET", "/v1/vector_stores/"+m["id"].(string), nil)
	}
}
