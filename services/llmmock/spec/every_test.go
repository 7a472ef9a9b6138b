package spec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// asForm writes a JSON object as the form that a client would send, with a file for what is binary.
func asForm(t *testing.T, s *Schema, text []byte) (media string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	tp, err := parseLong(text)
	if err != nil {
		t.Fatal(err)
	}
	var write func(name string, s *Schema, i int)
	write = func(name string, s *Schema, i int) {
		switch tp.nodes[i].kind {
		case form.Null:
		case form.Object:
			tp.members(i, func(k, v int) { write(name+"["+tp.string(k)+"]", nil, v) })
		case form.Array:
			if items := itemsOf(s); tp.nodes[i].n == 0 && items != nil && items.format == "binary" {
				p, err := w.CreateFormFile(name+"[]", "a.bin")
				if err == nil {
					_, err = p.Write([]byte("content"))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			tp.elements(i, func(v int) { write(name+"[]", itemsOf(s), v) })
		default:
			if s != nil && (s.format == "binary" || itemsOf(s) != nil && itemsOf(s).format == "binary") {
				p, err := w.CreateFormFile(name, "a.bin")
				if err == nil {
					_, err = p.Write([]byte("content"))
				}
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			v := string(tp.raw(i))
			if tp.nodes[i].kind == form.String {
				v = tp.string(i)
			}
			if err := w.WriteField(name, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	o := objectOf(s)
	tp.members(0, func(k, v int) { write(tp.string(k), o.propNamed(tp.string(k)), v) })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.Bytes()
}

// Every operation takes a request that its document allows, in every form that it has, and answers as its document says, whatever
// else was done before.
func TestEveryOperation(t *testing.T) {
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		d := document(t, v)
		s := newServer(t, New(Config{Document: d}).API("", nil))
		n := 0
		for round := range uint64(2) {
			for _, op := range d.Operations() {
				op.ready()
				bodies := op.bodies
				if len(bodies) == 0 {
					bodies = []content{{}}
				}
				for _, c := range bodies {
					r := rand.New(rand.NewPCG(round, 3))
					path := op.wire.Path
					for _, p := range op.params() {
						path = strings.Replace(path, "{"+p+"}", fmt.Sprintf("%s_%d", p, round), 1)
					}
					query := url.Values{}
					if op.wire.Beta {
						query.Set("beta", "true")
					}
					if op.query != nil {
						for _, p := range op.query.props {
							if p.required {
								value := strings.Trim(string(p.schema.Synthesize(r, instant)), `"[]`)
								if value == "{}" {
									continue
								}
								query.Set(p.name, value)
							}
						}
					}
					var body []byte
					media := c.media
					switch {
					case c.schema == nil:
					case media == "multipart/form-data":
						media, body = asForm(t, c.schema, c.schema.Synthesize(r, instant))
					case media == "application/json":
						body = c.schema.Synthesize(r, instant)
					default:
						body = []byte("v=0\r\n")
					}
					req := httptest.NewRequest(op.wire.Method, path+"?"+query.Encode(), bytes.NewReader(body))
					if media != "" {
						req.Header.Set("Content-Type", media)
					}
					w := httptest.NewRecorder()
					s.mux.ServeHTTP(w, req)
					if w.Code >= 300 {
						t.Errorf("%s %s?%s %.300s: %d %s", v, op.Pattern(), query.Encode(), body, w.Code, w.Body)
						continue
					}
					n++
					if w.Header().Get("Content-Type") != "application/json" {
						continue
					}
					if vs := op.ValidateAnswer(w.Body.Bytes()); len(vs) > 0 {
						t.Errorf("%s %s answers %.500s: %s (%s)", v, op.Pattern(), w.Body, vs[0], vs[0].Field)
					}
					if w.Code != http.StatusOK && w.Code != http.StatusCreated && w.Code != http.StatusNoContent {
						t.Errorf("%s %s: %d", v, op.Pattern(), w.Code)
					}
				}
			}
		}
		if n < 600 {
			t.Errorf("%s: only %d requests were answered", v, n)
		}
	}
}
