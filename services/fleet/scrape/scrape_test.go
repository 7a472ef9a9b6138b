package scrape_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/drain"
	"edgehold.internal/services/fleet/scrape"
)

const page = `# HELP edge_requests_total Answers.
# TYPE edge_requests_total counter
edge_requests_total{code="200",path="/}{\"x"} 10
edge_requests_total{code="500"} 2.5e1 1700000000000
edge_requests_total_other 1000
edge_errors_total 3
`

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		page string
		want fleet.Counters
		err  string
	}{
		"labels are summed":      {page, fleet.Counters{Requests: 35, Errors: 3}, ""},
		"no errors yet":          {"edge_requests_total 1\n", fleet.Counters{Requests: 1}, ""},
		"no requests":            {"edge_errors_total 1\n", fleet.Counters{}, "not shown"},
		"not a number":           {"edge_requests_total NaN\n", fleet.Counters{}, "not shown"},
		"no newline at the end":  {"edge_requests_total 7", fleet.Counters{Requests: 7}, ""},
		"a line of a mebibyte":   {strings.Repeat("x", 1<<20) + "\nedge_requests_total 2\n", fleet.Counters{Requests: 2}, ""},
		"labels that do not end": {"edge_requests_total{a=\"} 5\n", fleet.Counters{}, "not shown"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := scrape.Parse(strings.NewReader(tc.page), "edge_requests_total", "edge_errors_total")
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v, %v; want %+v, %q", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestRead(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, page)
	}))
	defer s.Close()
	host, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	n, _ := strconv.ParseInt(port, 10, 32)
	r := scrape.New(drain.DialMap{}.Dialer())
	spec := fleet.MetricsSpec{Port: int32(n), Path: "/metrics", Requests: "edge_requests_total", Errors: "edge_errors_total"}
	if got, err := r.Read(t.Context(), host, &spec); err != nil || got.Requests != 35 {
		t.Errorf("%+v, %v", got, err)
	}
	spec.Path = "/elsewhere"
	if got, err := r.Read(t.Context(), host, &spec); err == nil {
		t.Errorf("a missing page was read as %+v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(page)
	f.Add("edge_requests_total{")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := scrape.Parse(strings.NewReader(text), "edge_requests_total", "edge_errors_total"); err == nil && (c.Requests < 0 || c.Errors < 0) {
			t.Errorf("%q was read as %+v", text, c)
		}
	})
}
