package spec

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

type nobody struct{}

func (nobody) Answer(*llmmock.Scenario, *llmmock.AnswerRule, *llmmock.Request, llmmock.Moment) (*llmmock.Answer, *llmmock.Failure) {
	return nil, nil
}

// ask sends a request in a scenario, and goes on with it although the document forbids it, where the scenario says so.
func ask(t testing.TB, mock *llmmock.Mock, api provider.API, method, path, media string, body []byte) (int, []byte) {
	t.Helper()
	mux := http.NewServeMux()
	status, text := 0, []byte(nil)
	for _, route := range api.Routes {
		mux.HandleFunc(route.Pattern, func(_ http.ResponseWriter, r *http.Request) {
			q := &llmmock.Request{Vendor: api.Vendor, Method: method, Path: r.URL.Path, Hash: llmmock.HashOf(method, path, body), Choices: 1}
			format, failure := route.Decode(q, r, body)
			if format == nil {
				status = failure.Status
				return
			}
			x := mock.Decide(q)
			defer mock.Done(x)
			if s := x.Behaviour(); failure != nil && !s.Strict.Lenient {
				status, _, text = format.Failure(nil, failure, x)
				return
			}
			if q.Stream {
				status = http.StatusOK
				for c := range format.Stream(x) {
					text = append(text, c.Data...)
				}
				return
			}
			status, _, text = format.Whole(nil, x)
		})
	}
	r := httptest.NewRequest(method, path, strings.NewReader(string(body)))
	r.Header.Set("Content-Type", media)
	mux.ServeHTTP(httptest.NewRecorder(), r)
	return status, text
}

func mockWith(t testing.TB, s llmmock.Strict) *llmmock.Mock {
	t.Helper()
	m, err := llmmock.NewMock([]llmmock.Scenario{{Name: llmmock.DefaultScenario, Strict: s}}, nobody{}, llmmock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestStrictObjects(t *testing.T) {
	mock := mockWith(t, llmmock.Strict{Objects: true})
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		api := service(t, v).API("", nil)
		for _, c := range []struct {
			vendor       llmmock.Vendor
			method, path string
			body, want   string
			status       int
		}{
			{llmmock.OpenAI, "GET", "/v1/files/file-1", "", "No such file: 'file-1'.", 404},
			{llmmock.OpenAI, "GET", "/v1/files/file-1/content", "", "No such file", 404},
			{llmmock.OpenAI, "DELETE", "/v1/vector_stores/vs_1", "", "No such vector store: 'vs_1'.", 404},
			{llmmock.OpenAI, "GET", "/v1/vector_stores/vs_1/files", "", "'vs_1'", 404},
			{llmmock.OpenAI, "POST", "/v1/threads/thread_1/messages", `{"role":"user","content":"hi"}`, "'thread_1'", 404},
			{llmmock.OpenAI, "GET", "/v1/files", "", `"data":[]`, 200},
			{llmmock.OpenAI, "GET", "/v1/models/gpt-4o", "", `"gpt-4o"`, 200},
			{llmmock.OpenAI, "GET", "/v1/models/gpt-0", "", "'gpt-0'", 404},
			{llmmock.Anthropic, "GET", "/v1/messages/batches/b", "", `"type":"not_found_error","message":"Batch not found: b"`, 404},
			{llmmock.Anthropic, "GET", "/v1/files", "", `"data":[]`, 200},
		} {
			if c.vendor != v {
				continue
			}
			status, text := ask(t, mock, api, c.method, c.path, "application/json", []byte(c.body))
			if status != c.status || !strings.Contains(string(text), c.want) {
				t.Errorf("%s %s %s: %d %s, want %d with %s", v, c.method, c.path, status, text, c.status, c.want)
			}
		}
	}
}

func TestLenient(t *testing.T) {
	api := service(t, llmmock.OpenAI).API("", nil)
	body := []byte(`{"name":5,"expires_after":"never","metadata":{"a":"b"}}`)
	if status, text := ask(t, mockWith(t, llmmock.Strict{}), api, "POST", "/v1/vector_stores", "application/json", body); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, text)
	}
	status, text := ask(t, mockWith(t, llmmock.Strict{Lenient: true}), api, "POST", "/v1/vector_stores", "application/json", body)
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil || status != http.StatusOK || fmt.Sprint(m["metadata"]) != "map[a:b]" || fmt.Sprint(m["name"]) == "5" {
		t.Errorf("%d %s: %v", status, text, err)
	}
}

// Whatever comes, every operation answers something that is JSON where it says so, and an instance of its schema.
func FuzzService(f *testing.F) {
	f.Add(0, "", "", []byte(`{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}`))
	f.Add(40, "limit=1&after=x&order=asc", "multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--x--\r\n"))
	f.Add(400, "beta=true&page=page_eA", "application/json", []byte(`{"requests":[{"custom_id":"a","params":{}}],"items":[1,{}],"file_ids":["a"],"part_ids":["p"]}`))
	f.Add(77, "ids[]=a", "", []byte(`[]`))
	f.Add(5, "", "application/json", []byte(`{"expires_after":{"seconds":1e300,"days":-1},"id":{"a":1},"metadata":null,"n":99999}`))
	mock := mockWith(f, llmmock.Strict{Lenient: true})
	type target struct {
		op  *Operation
		api provider.API
		pat string
	}
	var targets []target
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		s := New(Config{Document: document(f, v), Store: NewStore(100, 1<<20)})
		api := s.API("", nil)
		for _, op := range s.Document.Operations() {
			targets = append(targets, target{op, provider.API{Vendor: v, Routes: api.Routes}, op.wire.Path})
		}
	}
	f.Fuzz(func(t *testing.T, n int, query, media string, body []byte) {
		c := targets[((n%len(targets))+len(targets))%len(targets)]
		path := c.pat
		for _, p := range c.op.params() {
			path = strings.Replace(path, "{"+p+"}", "x1", 1)
		}
		q := strings.NewReplacer(" ", "", "#", "", "\n", "", "\r", "").Replace(query)
		if strings.ContainsFunc(q, func(r rune) bool { return r < '!' || r > '~' }) {
			return
		}
		var route provider.Route
		for _, r := range c.api.Routes {
			if r.Pattern == c.op.wire.Method+" "+c.op.wire.Path {
				route = r
			}
		}
		if route.Decode == nil {
			return // mounted with others
		}
		status, text := ask(t, mock, provider.API{Vendor: c.api.Vendor, Routes: []provider.Route{route}}, c.op.wire.Method, path+"?"+q, media, body)
		if status == 0 {
			t.Fatalf("%s %s?%s was not answered", c.op.wire.Method, path, q)
		}
		if status == http.StatusOK && len(text) > 0 && text[0] == '{' && !json.Valid(text) {
			t.Errorf("%s answered %s", c.op.Pattern(), text)
		}
	})
}
