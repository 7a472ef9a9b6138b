package spec

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The store against a plain list: whatever was done to it, a page has what the list has.
func TestStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewStore(0, 0)
		var have []string
		gone := map[string]bool{}
		n := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				n++
				id := fmt.Sprint("o", n)
				s.Put("/c", &Object{ID: id})
				have = append(have, id)
			case 2:
				if len(have) > 0 {
					i := rapid.IntRange(0, len(have)-1).Draw(t, "which")
					s.Delete("/c", have[i])
					gone[have[i]] = true
					have = slices.Delete(have, i, i+1)
				}
			case 3:
				if len(have) > 0 {
					s.Put("/c", &Object{ID: have[rapid.IntRange(0, len(have)-1).Draw(t, "which")], JSON: []byte("{}")})
				}
			}
			if s.Len() != len(have) {
				t.Fatalf("%d objects, want %d", s.Len(), len(have))
			}
		}
		for id := range gone {
			if o, was := s.Get("/c", id); o != nil || !was {
				t.Fatalf("deleted %s is %v, known to be gone %v", id, o, was)
			}
		}
		want := slices.Clone(have)
		ascending := rapid.Bool().Draw(t, "ascending")
		if !ascending {
			slices.Reverse(want)
		}
		limit := rapid.IntRange(1, 7).Draw(t, "limit")
		// Forwards, page by page.
		var got []string
		after := ""
		for {
			p := s.List("/c", Cursor{After: after, Ascending: ascending, Limit: limit})
			for _, o := range p.Objects {
				got = append(got, o.ID)
			}
			if !p.More {
				break
			}
			if len(p.Objects) != limit {
				t.Fatalf("a page of %d with more to come, want %d", len(p.Objects), limit)
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("pages %v, want %v", got, want)
		}
		// And back from the last one.
		if len(want) > 1 {
			i := rapid.IntRange(1, len(want)-1).Draw(t, "before")
			p := s.List("/c", Cursor{Before: want[i], Ascending: ascending, Limit: limit})
			var got []string
			for _, o := range p.Objects {
				got = append(got, o.ID)
			}
			if from := max(0, i-limit); !slices.Equal(got, want[from:i]) || p.More != (from > 0) {
				t.Fatalf("before %s: %v, want %v", want[i], got, want[from:i])
			}
		}
	})
}

func TestStoreIsBounded(t *testing.T) {
	s := NewStore(3, 0)
	for i := range 5 {
		s.Put(fmt.Sprint("/c", i%2), &Object{ID: fmt.Sprint(i)})
	}
	if s.Len() != 3 {
		t.Errorf("%d objects", s.Len())
	}
	if o, _ := s.Get("/c0", "0"); o != nil {
		t.Error("the oldest is still there")
	}
	if o, _ := s.Get("/c0", "4"); o == nil {
		t.Error("the newest is not there")
	}

	s = NewStore(0, 10_000)
	for i := range 20 {
		s.Put("/c", &Object{ID: fmt.Sprint(i), Content: make([]byte, 2_000)})
	}
	if s.bytes > 10_000 || s.Len() == 0 {
		t.Errorf("%d bytes in %d objects", s.bytes, s.Len())
	}
	for i := range maxGone + 5 {
		s.Put("/d", &Object{ID: fmt.Sprint(i)})
		s.Delete("/d", fmt.Sprint(i))
	}
	if n := len(s.collections["/d"].gone); n > maxGone {
		t.Errorf("%d deleted ids are remembered", n)
	}
}

func TestForms(t *testing.T) {
	d := document(t, "openai")
	for _, c := range []struct{ route, query, want string }{
		{"GET /v1/files", "limit=5&order=asc", `{"limit":5,"order":"asc"}`},
		{"GET /v1/organization/usage/completions", "start_time=0&project_ids[]=a&project_ids[]=b&batch=true", `{"batch":true,"project_ids":["a","b"],"start_time":0}`},
		{"GET /v1/organization/usage/completions", "start_time=0&models=a", `{"models":["a"],"start_time":0}`},
		{"GET /v1/fine_tuning/jobs", "metadata[k]=v", `{"metadata":{"k":"v"}}`},
		{"GET /v1/organization/audit_logs", "effective_at[gt]=5&event_types[]=api_key.created", `{"effective_at":{"gt":5},"event_types":["api_key.created"]}`},
	} {
		op := d.Operation(c.route)
		op.ready()
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(queryJSON(q, op.query)); got != c.want {
			t.Errorf("%s?%s: %s, want %s", c.route, c.query, got, c.want)
		}
		if vs := op.query.validate(queryJSON(q, op.query)); len(vs) > 0 {
			t.Errorf("%s?%s: %s", c.route, c.query, vs[0])
		}
	}
}

func FuzzForm(f *testing.F) {
	f.Add("a[b][c]=1&a[b][]=2&[=3&]=4&a=5&x[0][y]=1&x[1][y]=2")
	f.Add("limit=1e3&order=%22asc%22&tools[]=a&tools[]=b")
	f.Add(strings.Repeat("[a]", 300) + "=1")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		for _, route := range []string{"GET /v1/organization/audit_logs", "GET /v1/files"} {
			op := document(t, "openai").Operation(route)
			op.ready()
			text := queryJSON(q, op.query)
			if tp, err := parse(text); err != nil {
				if !errors.Is(err, errDepth) {
					t.Errorf("%q became %s: %v", query, text, err)
				}
			} else {
				tp.free()
			}
			for n, v := range q {
				body := "--x\r\nContent-Disposition: form-data; name=\"" + strings.NewReplacer("\"", "", "\r", "", "\n", "", "\\", "").Replace(n) + "\"\r\n\r\n" + v[0] + "\r\n--x--\r\n"
				create := document(t, "openai").Operation("POST /v1/images/edits")
				if text, _, err := formJSON("multipart/form-data; boundary=x", []byte(body), create.body("multipart/form-data")); err == nil {
					if tp, err := parse(text); err == nil {
						tp.free()
					} else if !errors.Is(err, errDepth) {
						t.Errorf("%q became %s: %v", body, text, err)
					}
				}
			}
		}
	})
}
