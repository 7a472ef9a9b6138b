// Package drift holds recordings against the vendors' specifications as this program has them: what a provider says, or is asked, that
// its description does not have, no longer has, or has in another form. A finding is a reason to look: the provider may have moved on, or
// its description may never have been right. Start at Check.
package drift

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/bedrock"
	"edgehold.internal/services/llmmock/gemini"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/record"
	"edgehold.internal/services/llmmock/spec"
)

// What is different.
type What string

// The differences.
const (
	Unknown   What = "unknown"   // it is there, and the specification does not have it
	Missing   What = "missing"   // the specification requires it, and it is not there
	Type      What = "type"      // it is of another type
	Value     What = "value"     // it is none of the values that there are
	Form      What = "form"      // it is too long, too many, of another pattern, no JSON …
	Operation What = "operation" // the specification does not have the whole operation
)

// Finding is a difference, in all exchanges together.
type Finding struct {
	Vendor llmmock.Vendor `json:"vendor"`
	// Operation as the specification writes it, such as GET /v1/models/{model}.
	Operation string `json:"operation"`
	// In is request, answer, event NAME, or message for what the events of a stream make together.
	In   string `json:"in"`
	What What   `json:"what"`
	// Field is the path with [] for any element; empty for the whole.
	Field string `json:"field"`
	// Count of the requests, answers or events that have it, Example the number of the first exchange, and Says what is wrong there.
	Count   int    `json:"count"`
	Example int    `json:"example"`
	Says    string `json:"says"`
}

// Report on a recording.
type Report struct {
	Exchanges int `json:"exchanges"`
	// Requests, Answers and Events that were held against a specification.
	Requests int `json:"requests"`
	Answers  int `json:"answers"`
	Events   int `json:"events"`
	// Unchecked says what was not, why, and how often.
	Unchecked []Unchecked `json:"unchecked"`
	// Findings by vendor, operation and where they are.
	Findings []Finding `json:"findings"`
}

// Unchecked is something that nothing is known of.
type Unchecked struct {
	What  string `json:"what"`
	Count int    `json:"count"`
}

// MaxFindings of a Report; what is more is counted as unchecked.
const MaxFindings = 1000

// Check holds what was recorded against the specifications. It fails only when these cannot be read.
func Check(f *record.File) (*Report, error) {
	c := &checker{report: Report{Exchanges: len(f.Exchanges)}, findings: map[Finding]*Finding{}, unchecked: map[string]int{}, documents: map[llmmock.Vendor]*spec.Document{},
		routes: map[llmmock.Vendor]*http.ServeMux{}}
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Azure, llmmock.Anthropic} {
		d, err := spec.Load(v)
		if err != nil {
			return nil, err
		}
		c.documents[v] = d
	}
	for _, api := range []provider.API{gemini.New(gemini.Config{}), bedrock.New(bedrock.Config{})} {
		c.routes[api.Vendor] = routes(api)
	}
	for _, x := range f.Exchanges {
		c.exchange = x
		if d := c.documents[x.Vendor]; d != nil {
			c.described(d)
		} else {
			c.decoded()
		}
	}
	return c.done(), nil
}

type checker struct {
	report    Report
	exchange  *record.Exchange
	findings  map[Finding]*Finding // by what is the same in all exchanges
	unchecked map[string]int
	documents map[llmmock.Vendor]*spec.Document
	routes    map[llmmock.Vendor]*http.ServeMux
}

func (c *checker) done() *Report {
	r := &c.report
	r.Findings, r.Unchecked = []Finding{}, []Unchecked{}
	for _, f := range c.findings {
		r.Findings = append(r.Findings, *f)
	}
	slices.SortFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Vendor, b.Vendor), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.In, b.In), cmp.Compare(a.Field, b.Field), cmp.Compare(a.What, b.What))
	})
	for what, n := range c.unchecked {
		r.Unchecked = append(r.Unchecked, Unchecked{what, n})
	}
	slices.SortFunc(r.Unchecked, func(a, b Unchecked) int { return cmp.Compare(a.What, b.What) })
	return r
}

func (c *checker) find(operation, in string, what What, field, says string) {
	key := Finding{Vendor: c.exchange.Vendor, Operation: operation, In: in, What: what, Field: field}
	f := c.findings[key]
	if f == nil {
		if len(c.findings) >= MaxFindings {
			c.unchecked[fmt.Sprintf("differences beyond the first %d", MaxFindings)]++
			return
		}
		n := key
		n.Example, n.Says = c.exchange.Number, says
		f = &n
		c.findings[key] = f
	}
	f.Count++
}

var index = regexp.MustCompile(`\[\d+\]`)

// tell finds what the specification says is different.
func (c *checker) tell(operation, in string, differences []spec.Violation) {
	seen := map[string]bool{} // once for each document
	for _, v := range differences {
		field, what, says := index.ReplaceAllString(v.Field, "[]"), Form, v.String()
		switch v.Fault {
		case spec.Unknown:
			what, says = Unknown, "is not in the specification"
		case spec.Missing:
			what, says = Missing, "is required by the specification and is not there"
		case spec.WrongType:
			what = Type
		case spec.NotAllowed:
			what = Value
		}
		if c.exchange.Vendor == llmmock.Azure && azures(what, field) || seen[string(what)+field] {
			continue
		}
		seen[string(what)+field] = true
		c.find(operation, in, what, field, says)
	}
}

// azures says that a difference is one of Azure's from OpenAI, whose specification it is held against: a deployment stands for the model,
// and content filters report.
func azures(what What, field string) bool {
	name := field[strings.LastIndexByte(field, '.')+1:]
	return what == Missing && field == "model" ||
		what == Unknown && slices.Contains([]string{"prompt_filter_results", "content_filter_results", "content_filter_result", "content_filter_offsets", "content_filters"}, name)
}

// described holds an exchange against a document.
func (c *checker) described(d *spec.Document) {
	x := c.exchange
	q, a := &x.Request, &x.Answer
	path := q.Path
	if x.Vendor == llmmock.Azure {
		path = openAIs(path)
	}
	query, err := url.ParseQuery(q.Query)
	if err != nil {
		query = nil
	}
	op, _ := d.Find(q.Method, path, query)
	if op == nil {
		c.find(q.Method+" "+path, "request", Operation, "", "the specification has no such operation")
		return
	}
	name := op.Pattern()
	switch media := mediaOf(q.Header); {
	case a.Status >= 400:
		c.unchecked["requests that the provider refused"]++
	case len(q.Body) == 0:
	case media != "" && media != "application/json":
		c.unchecked["requests of type "+media]++
	default:
		if differences, known := op.Drift(spec.OfRequest, q.Body); known {
			c.report.Requests++
			c.tell(name, "request", differences)
		}
	}
	if a.Status >= 300 {
		c.unchecked[fmt.Sprintf("answers with status %d", a.Status)]++
		return
	}
	media := mediaOf(a.Header)
	switch media {
	case "application/json":
		differences, known := op.Drift(spec.OfAnswer, a.Body())
		if !known {
			c.unchecked["answers of operations that have none in the specification"]++
			return
		}
		c.report.Answers++
		c.tell(name, "answer", differences)
	case "text/event-stream":
		if x.Vendor == llmmock.Anthropic {
			c.message(op)
			return
		}
		for e := range record.Events(media, a.Body()) {
			differences, known := op.Drift(spec.OfEvent, e.Data)
			if !known {
				c.unchecked["events of operations that have none in the specification"]++
				continue
			}
			c.report.Events++
			c.tell(name, strings.TrimSpace("event "+eventName(e)), differences)
		}
	default:
		c.unchecked["answers of type "+cmp.Or(media, "unknown")]++
	}
}

// openAIs is the path of OpenAI's that one of Azure's stands for.
func openAIs(path string) string {
	rest, ok := strings.CutPrefix(path, "/openai")
	switch {
	case !ok:
		return path
	case strings.HasPrefix(rest, "/v1/"):
		return rest
	case strings.HasPrefix(rest, "/deployments/"):
		_, rest, _ = strings.Cut(strings.TrimPrefix(rest, "/deployments/"), "/")
		return "/v1/" + rest
	}
	return "/v1" + rest
}

func mediaOf(h http.Header) string {
	m, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return m
}

// eventName is the name of an event, or what it says that it is.
func eventName(e record.Event) string {
	if e.Name != "" {
		return e.Name
	}
	var doc struct {
		Type   string `json:"type"`
		Object string `json:"object"`
	}
	_ = json.Unmarshal(e.Data, &doc) // what is no JSON is found by its schema
	return cmp.Or(doc.Type, doc.Object)
}

// routes decode requests, and give what they refuse to a verdict.
func routes(api provider.API) *http.ServeMux {
	mux := http.NewServeMux()
	for _, route := range api.Routes {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			v := w.(*verdict)
			q := &llmmock.Request{Vendor: api.Vendor, Method: r.Method, Path: r.URL.Path, Choices: 1}
			_, v.refused = route.Decode(q, r, v.body)
			v.operation = route.Pattern
		})
	}
	return mux
}

// verdict is where a route leaves what it found.
type verdict struct {
	http.ResponseWriter
	body      []byte
	operation string
	refused   *llmmock.Failure
}

// Header, Write and WriteHeader are for the mux, which says that it has no such route.
func (v *verdict) Header() http.Header         { return http.Header{} }
func (v *verdict) Write(p []byte) (int, error) { return len(p), nil }
func (v *verdict) WriteHeader(int)             {}

// decoded holds a request against the decoders of this program, where there is no specification.
func (c *checker) decoded() {
	x := c.exchange
	q := &x.Request
	c.unchecked[fmt.Sprintf("answers of %s, which has no specification here", x.Vendor)]++
	if x.Answer.Status >= 400 {
		c.unchecked["requests that the provider refused"]++
		return
	}
	r := &http.Request{Method: q.Method, URL: &url.URL{Path: q.Path, RawQuery: q.Query}, Header: q.Header, Host: "localhost", Body: http.NoBody}
	v := &verdict{body: bytes.Clone(q.Body)}
	c.routes[x.Vendor].ServeHTTP(v, r)
	if v.operation == "" {
		c.find(q.Method+" "+q.Path, "request", Operation, "", "is not known to this program")
		return
	}
	c.report.Requests++
	if v.refused != nil {
		c.find(v.operation, "request", Form, index.ReplaceAllString(v.refused.Field, "[]"), cmp.Or(v.refused.Message, string(v.refused.Reason)))
	}
}
