package gemini

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/providertest"
)

var decoding = providertest.Decoder(New(Config{}))

func decode(t testing.TB, method, target, body string) (*llmmock.Request, provider.Format, *llmmock.Failure) {
	t.Helper()
	return decoding(t, httptest.NewRequest(method, target, nil), body)
}

const (
	generate = "/v1beta/models/gemini-2.5-flash:generateContent"
	small    = `{"contents":[{"role":"user","parts":[{"text":"What is the weather in Berlin today?"}]}]}`
)

const conversationBody = `{
 "systemInstruction":{"parts":[{"text":"be brief"},{"text":"be kind"}]},
 "contents":[
  {"role":"user","parts":[{"text":"look"},{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}},{"fileData":{"fileUri":"gs://b/o"}}]},
  {"role":"model","parts":[{"text":"hm","thought":true,"thoughtSignature":"eA=="},{"text":"I ask."},{"functionCall":{"id":"c1","name":"weather","args":{"city":"Berlin"}}},{"functionCall":{"name":"time"}}]},
  {"role":"user","parts":[{"functionResponse":{"id":"c1","name":"weather","response":{"output":"21 °C"}}},{"functionResponse":{"name":"time","response":{"error":"no clock"}}}]}
 ],
 "tools":[{"functionDeclarations":[{"name":"weather","description":"the weather","parameters":{"type":"OBJECT","properties":{"type":{"type" : "STRING"},"n":{"type":"ARRAY","items":{"type":"INTEGER"}}},"required":["type"]}},
   {"name":"time","parametersJsonSchema":{"type":"object"}}]},{"googleSearch":{}}],
 "toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["weather"]}},
 "generationConfig":{"candidateCount":2,"maxOutputTokens":"100","stopSequences":["END"],"temperature":0.5,"topP":0.9,"topK":40,"responseMimeType":"application/json",
  "responseSchema":{"type":"OBJECT"},"thinkingConfig":{"includeThoughts":true,"thinkingBudget":512}},
 "safetySettings":[]
}`

func TestDecode(t *testing.T) {
	q, f, failure := decode(t, "POST", generate, conversationBody)
	if failure != nil || f == nil {
		t.Fatalf("refused: %+v", failure)
	}
	want := []llmmock.Turn{
		{Role: llmmock.System, Text: "be brief\nbe kind"},
		{Role: llmmock.User, Text: "look", Media: 2},
		{Role: llmmock.Assistant, Text: "I ask.", Calls: []llmmock.Call{{ID: "c1", Name: "weather", Arguments: `{"city":"Berlin"}`}, {ID: "time", Name: "time", Arguments: `{}`}}},
		{Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "c1", Text: `{"output":"21 °C"}`}, {CallID: "time", Text: `{"error":"no clock"}`, Failed: true}}},
	}
	if !reflect.DeepEqual(q.Turns, want) {
		t.Errorf("turns %+v", q.Turns)
	}
	if q.Model != "gemini-2.5-flash" || q.Choices != 2 || q.MaxTokens != 100 || !slices.Equal(q.Stop, []string{"END"}) || q.Thinking != 512 || q.ToolChoice != llmmock.ToolsNamed ||
		q.NamedTool != "weather" || string(q.Schema) != `{"type":"object"}` || q.Stream || q.Operation != llmmock.Generate {
		t.Errorf("decoded %+v", q)
	}
	if len(q.Tools) != 2 || string(q.Tools[0].Schema) != `{"type":"object","properties":{"type":{"type" : "string"},"n":{"type":"array","items":{"type":"integer"}}},"required":["type"]}` {
		t.Errorf("tools %s", q.Tools[0].Schema)
	}
}

// The older forms of curl examples: names in snake case, one content without its brackets.
func TestDecodeSnakeCase(t *testing.T) {
	q, _, failure := decode(t, "POST", "/v1beta/models/m:streamGenerateContent?alt=sse", `{"system_instruction":{"parts":{"text":"s"}},"contents":{"parts":{"text":"x"}},
		"generation_config":{"max_output_tokens":5,"response_mime_type":"application/json"},"tool_config":{"function_calling_config":{"mode":"NONE"}},"tools":{"function_declarations":[{"name":"n"}]}}`)
	if failure != nil || len(q.Turns) != 2 || q.Turns[1].Text != "x" || q.MaxTokens != 5 || q.Schema == nil || q.ToolChoice != llmmock.ToolsNone || len(q.Tools) != 1 || !q.Stream {
		t.Errorf("%+v %+v", q, failure)
	}
}

func TestPaths(t *testing.T) {
	for target, want := range map[string]struct {
		model, region string
		vertex        bool
	}{
		"/v1/models/gemini-2.5-pro:generateContent":                                                                  {"gemini-2.5-pro", "", false},
		"/v1beta/tunedModels/mine-1:generateContent":                                                                 {"mine-1", "", false},
		"/v1beta1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-pro:generateContent":         {"gemini-2.5-pro", "europe-west4", true},
		"/v1/projects/p/locations/us-central1/endpoints/123:generateContent":                                         {"123", "us-central1", true},
		"/v1beta1/publishers/google/models/gemini-2.5-pro:generateContent":                                           {"gemini-2.5-pro", "", true},
		"/v1beta1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-pro%3AgenerateContent?a=b:c": {"gemini-2.5-pro", "europe-west4", true},
	} {
		q, f, failure := decode(t, "POST", target, small)
		if failure != nil || q.Model != want.model || q.Region != want.region || f.(*generateFormat).vertex != want.vertex {
			t.Errorf("%s: %+v %+v", target, q, failure)
		}
	}
	for _, target := range []string{"/v1beta/models/m:fly", "/v1beta/models/m"} {
		if _, f, failure := decode(t, "POST", target, small); f != nil || failure == nil || failure.Reason != llmmock.NotFound {
			t.Errorf("%s: %+v", target, failure)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, target, body, message, field string
		lenient                            bool
	}{
		{"empty", "", ``, "Invalid JSON payload received. Unexpected end of string.\n\n^", "", false},
		{"no JSON", "", `{"contents": x}`, "Invalid JSON payload received. Unexpected token.\n{\"contents\": x}\n             ^", "", false},
		{"deep", "", `{"contents":` + strings.Repeat("[", 1000), "", "", false},
		{"unknown at the top", "", `{"contents":[{"parts":[{"text":"x"}]}],"content":1}`, `Invalid JSON payload received. Unknown name "content": Cannot find field.`, "", true},
		{"unknown in a part", "", `{"contents":[{"parts":[{"text":"x"},{"txt":"x"}]}]}`, `Invalid JSON payload received. Unknown name "txt" at 'contents[0].parts[1]': Cannot find field.`, "contents[0].parts[1]", true},
		{"unknown in the config", "", `{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"maxTokens":1}}`, `Invalid JSON payload received. Unknown name "maxTokens" at 'generation_config': Cannot find field.`, "generation_config", true},
		{"text a number", "", `{"contents":[{"parts":[{"text":5}]}]}`, `Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 5`, "contents[0].parts[0].text", false},
		{"contents a string", "", `{"contents":"x"}`, `Invalid value at 'contents' (type.googleapis.com/google.ai.generativelanguage.v1beta.Content), "x"`, "contents", false},
		{"config a list", "", `{"contents":[],"generationConfig":[]}`, `Invalid JSON payload received. Unknown name "generation_config": Proto field is not repeating, cannot start list.`, "generation_config", false},
		{"tokens a word", "", `{"contents":[],"generationConfig":{"maxOutputTokens":"many"}}`, `Invalid value (TYPE_INT32), "many"`, "generation_config.max_output_tokens", false},
		{"no contents", "", `{}`, "* GenerateContentRequest.contents: contents is not specified\n", "", true},
		{"no parts", "", `{"contents":[{"role":"user"}]}`, "* GenerateContentRequest.contents[0].parts: contents.parts must not be empty.\n", "", true},
		{"empty part", "", `{"contents":[{"parts":[{}]}]}`, "* GenerateContentRequest.contents[0].parts[0].data: required oneof field 'data' must have one initialized field\n", "", true},
		{"role", "", `{"contents":[{"role":"assistant","parts":[{"text":"x"}]}]}`, "Please use a valid role: user, model.", "", true},
		{"results too few", "", `{"contents":[{"parts":[{"text":"x"}]},{"role":"model","parts":[{"functionCall":{"name":"a"}},{"functionCall":{"name":"b"}}]},{"parts":[{"functionResponse":{"name":"a","response":{}}}]}]}`,
			"Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.", "", true},
		{"result without a call", "", `{"contents":[{"parts":[{"functionResponse":{"name":"a","response":{}}}]}]}`, "Please ensure that function response turn comes immediately after a function call turn.", "", true},
		{"call first", "", `{"contents":[{"role":"model","parts":[{"functionCall":{"name":"a"}}]}]}`, "Please ensure that function call turn comes immediately after a user turn or after a function response turn.", "", true},
		{"counting nothing", "/v1beta/models/m:countTokens", `{}`, "* CountTokensRequest.contents: contents is not specified\n", "", true},
		{"embedding nothing", "/v1beta/models/m:embedContent", `{}`, "* EmbedContentRequest.content: content is not specified\n", "", true},
		{"embedding too many", "/v1beta/models/m:batchEmbedContents", `{"requests":[` + strings.TrimSuffix(strings.Repeat(`{"content":{"parts":[{"text":"x"}]}},`, 101), ",") + `]}`,
			"* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n", "", true},
		{"function's name", "", `{"contents":[{"parts":[{"text":"x"}]}],"tools":[{"functionDeclarations":[{"name":"1"}]}]}`, "* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name. " +
			"Must start with a letter or an underscore. Must be alphameric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum length of 64.\n", "", true},
		{"temperature", "", `{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"temperature":3}}`, "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0].\n", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := c.target
			if target == "" {
				target = generate
			}
			_, f, failure := decode(t, "POST", target, c.body)
			if failure == nil {
				t.Fatal("taken")
			}
			status, body := New(Config{}).Failure(http.Header{}, failure, "")
			var got struct {
				Error struct {
					Code            int
					Message, Status string
					Details         []struct{ FieldViolations []struct{ Field string } }
				}
			}
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatal(err)
			}
			if status != 400 || got.Error.Code != 400 || got.Error.Status != "INVALID_ARGUMENT" || c.message != "" && got.Error.Message != c.message {
				t.Errorf("%d %s\nwant %s", status, body, c.message)
			}
			if c.field != "" && (len(got.Error.Details) != 1 || got.Error.Details[0].FieldViolations[0].Field != c.field) {
				t.Errorf("details %+v, want %s", got.Error.Details, c.field)
			}
			if (f != nil) != c.lenient {
				t.Errorf("understood: %v, want %v", f != nil, c.lenient)
			}
		})
	}
}

func TestManyContentsAndTools(t *testing.T) {
	q, _, failure := decode(t, "POST", generate, `{"contents":[`+strings.Repeat(`{},`, MaxContents)+`{}]}`)
	if failure == nil || len(q.Turns) != MaxContents {
		t.Errorf("%d turns, %+v", len(q.Turns), failure)
	}
	var b bytes.Buffer
	b.WriteString(`{"contents":[{"parts":[{"text":"x"}]}],"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":[`)
	for i := range 100_000 {
		b.WriteString(`"t` + strconv.Itoa(i) + `",`)
	}
	b.WriteString(`"t0"]}},"tools":[{"functionDeclarations":[`)
	for i := range 100_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"name":"t` + strconv.Itoa(i) + `"}`)
	}
	b.WriteString(`]}]}`)
	q, _, failure = decode(t, "POST", generate, b.String())
	if failure != nil || len(q.Tools) != 100_000 {
		t.Errorf("%d tools, %+v", len(q.Tools), failure)
	}
}

var answers = map[string]*llmmock.Answer{
	"text": {Text: "It is \"fine\" — 21 °C.\n", Tokens: providertest.Tokens("It is \"fine\" — 21 °C.\n"), Usage: llmmock.Usage{Input: 25, Cached: 10, Output: 6}},
	"tools": {Text: "I look.", Tokens: []string{"I look."}, Finish: llmmock.ToolCalls, Calls: []llmmock.Call{{ID: "aa", Name: "weather", Arguments: `{"city":"Zürich"}`}, {ID: "bb", Name: "time", Arguments: `{}`}},
		Usage: llmmock.Usage{Input: 40, Output: 30}},
	"thinking": {Thinking: "Let me think.", ThinkingTokens: providertest.Tokens("Let me think."), Text: "Done.", Tokens: []string{"Done."}, Finish: llmmock.AtLength,
		Usage: llmmock.Usage{Input: 9, Output: 12, Reasoning: 8}},
	"filtered": {Text: "no", Finish: llmmock.Filtered, Usage: llmmock.Usage{Input: 9}},
	"empty":    {Usage: llmmock.Usage{Input: 9}},
}

func TestGolden(t *testing.T) {
	for name, a := range answers {
		body := `{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"thinkingConfig":{"includeThoughts":true}}}`
		for file, target := range map[string]string{name: "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", name + "-array": "/v1beta/models/gemini-2.5-flash:streamGenerateContent"} {
			q, f, failure := decode(t, "POST", target, body)
			if failure != nil {
				t.Fatal(failure)
			}
			x := providertest.Exchange(q, a)
			_, _, whole := f.Whole([]byte("before"), x)
			if !json.Valid(whole[6:]) {
				t.Errorf("%s: %s", name, whole)
			}
			stream := providertest.Stream(t, f, x)
			if strings.HasSuffix(file, "-array") {
				if !json.Valid(stream) {
					t.Errorf("%s", stream)
				}
			} else {
				providertest.Golden(t, file+".json", whole[6:])
			}
			providertest.Golden(t, file+".stream", stream)
		}
	}
	q, f, _ := decode(t, "POST", "/v1beta1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent?alt=sse", small)
	x := providertest.Exchange(q, answers["tools"])
	x.More = []*llmmock.Answer{answers["text"], answers["thinking"]}
	_, _, whole := f.Whole(nil, x)
	if !json.Valid(whole) {
		t.Errorf("%s", whole)
	}
	providertest.Golden(t, "candidates-vertex.json", whole)
	providertest.Golden(t, "candidates-vertex.stream", providertest.Stream(t, f, x))
}

// However early a stream of either form fails, its array is closed.
func TestFailureChunk(t *testing.T) {
	for _, target := range []string{"/v1beta/models/m:streamGenerateContent", "/v1beta/models/m:streamGenerateContent?alt=sse"} {
		for n := range 8 {
			q, f, _ := decode(t, "POST", target, small)
			x := providertest.Exchange(q, answers["text"])
			var all []byte
			i := 0
			for c := range f.Stream(x) {
				if i++; i > n {
					all = f.FailureChunk(all, &llmmock.Failure{Reason: llmmock.Overloaded}, x)
					break
				}
				all = append(all, c.Data...)
			}
			if strings.Contains(target, "sse") {
				if n < 6 && !bytes.HasSuffix(all, []byte("\"status\":\"UNAVAILABLE\"}}\r\n\r\n")) {
					t.Errorf("%s", all)
				}
			} else if !json.Valid(all) {
				t.Errorf("after %d: %s", n, all)
			}
		}
	}
}

func TestFailures(t *testing.T) {
	var out bytes.Buffer
	for _, f := range []llmmock.Failure{
		{Reason: llmmock.BadRequest}, {Reason: llmmock.Unauthenticated}, {Status: 401, Reason: llmmock.Unauthenticated}, {Reason: llmmock.NoCredit}, {Reason: llmmock.Forbidden}, {Reason: llmmock.NotFound},
		{Reason: llmmock.MethodUnknown}, {Reason: llmmock.Conflict}, {Reason: llmmock.TooLarge}, {Reason: llmmock.Unprocessable}, {Reason: llmmock.RateLimited, RetryAfter: 41500 * time.Millisecond},
		{Reason: llmmock.QuotaExhausted, RetryAfter: time.Minute}, {Reason: llmmock.Broken}, {Reason: llmmock.Unavailable}, {Reason: llmmock.TimedOut}, {Reason: llmmock.Overloaded},
		{Status: 529, Reason: llmmock.Overloaded}, {Status: 418}, {Status: 502}, {}, {Status: 400, Reason: llmmock.BadRequest, Message: "a \"quoted\"\nline", Field: "x[3].y"},
	} {
		status, body := New(Config{}).Failure(http.Header{}, &f, "")
		if !json.Valid(body) {
			t.Errorf("%s", body)
		}
		out.WriteString(http.StatusText(status) + " ")
		out.Write(body)
	}
	q, f, _ := decode(t, "POST", generate, small)
	_, _, body := f.Failure(nil, &llmmock.Failure{Reason: llmmock.NotFound}, providertest.Exchange(q, nil))
	out.Write(body)
	providertest.Golden(t, "failures.txt", out.Bytes())
}

func TestModels(t *testing.T) {
	seen := map[string]bool{}
	token := ""
	for range 20 {
		q, f, failure := decode(t, "GET", "/v1beta/models?pageSize=3&pageToken="+token, "")
		if failure != nil {
			t.Fatal(failure)
		}
		_, _, body := f.Whole(nil, providertest.Exchange(q, nil))
		var page struct {
			Models        []struct{ Name string }
			NextPageToken string
		}
		if err := json.Unmarshal(body, &page); err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Models {
			seen[m.Name] = true
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if len(seen) != len(models) || !seen["models/gemini-2.5-flash"] {
		t.Errorf("listed %v", seen)
	}
	for _, target := range []string{"/v1beta/models?pageToken=x", "/v1beta/models?pageToken=99", "/v1beta/models?pageSize=x", "/v1beta/models/none"} {
		if _, _, failure := decode(t, "GET", target, ""); failure == nil {
			t.Errorf("%s is taken", target)
		}
	}
	if !Known("gemini-2.5-flash") || Known("x") {
		t.Error("Known is wrong")
	}
}

func TestClaudeOnVertex(t *testing.T) {
	const place = "/v1/projects/p/locations/europe-west1/publishers/"
	const body = `{"anthropic_version":"vertex-2023-10-16","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`
	q, f, failure := decode(t, "POST", place+"anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict", body)
	if failure != nil || !q.Stream || q.Model != "claude-sonnet-4-5@20250929" || q.Region != "europe-west1" {
		t.Fatalf("%+v %+v", q, failure)
	}
	stream := providertest.Stream(t, f, providertest.Exchange(q, answers["text"]))
	if !bytes.HasPrefix(stream, []byte("event: message_start\n")) || !bytes.Contains(stream, []byte(`"model":"claude-sonnet-4-5-20250929"`)) {
		t.Errorf("%s", stream)
	}
	if _, _, failure = decode(t, "POST", place+"anthropic/models/claude-sonnet-4-5@20250929:rawPredict", `{}`); failure == nil {
		t.Error("an empty message is taken")
	}
	if _, _, failure = decode(t, "POST", place+"google/models/gemini-2.5-pro:rawPredict", body); failure == nil || failure.Reason != llmmock.NotFound {
		t.Errorf("%+v", failure)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(conversationBody))
	f.Add([]byte(`{"requests":[{"model":"models/m","content":{"parts":[{"text":"x"}]},"outputDimensionality":3}]}`))
	f.Add([]byte(`{"instances":[{"content":"x"}],"parameters":{"outputDimensionality":3}}`))
	f.Add([]byte(`{"content":{"parts":[{"text":"x"}]},"generateContentRequest":{"contents":{"parts":{"text":"y"}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range methods {
			q, format, failure := decode(t, "POST", "/v1beta1/publishers/anthropic/models/m:"+m.name, string(body))
			if format == nil {
				if failure == nil || failure.Status != 400 {
					t.Fatalf("neither understood nor refused: %q", body)
				}
				if _, e := New(Config{}).Failure(http.Header{}, failure, ""); !json.Valid(e) {
					t.Fatalf("refused with %q", e)
				}
				continue
			}
			if !json.Valid(body) {
				t.Fatalf("understood what is no JSON: %q", body)
			}
			for _, tool := range q.Tools {
				if len(tool.Schema) > 0 && !json.Valid(tool.Schema) {
					t.Fatalf("schema %q of %q", tool.Schema, body)
				}
			}
			x := providertest.Exchange(q, answers["tools"])
			if _, _, whole := format.Whole(nil, x); !json.Valid(whole) {
				t.Fatalf("answered %q", whole)
			}
			if failure != nil {
				if _, _, e := format.Failure(nil, failure, x); !json.Valid(e) {
					t.Fatalf("refused with %q", e)
				}
			}
		}
	})
}

func BenchmarkDecodeSmall(b *testing.B) {
	r := httptest.NewRequest(http.MethodPost, generate, nil)
	r.SetPathValue("model", "gemini-2.5-flash:generateContent")
	route, body := New(Config{}).Routes[0], []byte(small)
	b.ReportAllocs()
	for b.Loop() {
		q := llmmock.Request{}
		if _, failure := route.Decode(&q, r, body); failure != nil {
			b.Fatal(failure)
		}
	}
}

func BenchmarkWhole(b *testing.B) {
	q, f, _ := decode(b, "POST", generate, small)
	x := providertest.Exchange(q, answers["text"])
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		_, _, dst = f.Whole(dst[:0], x)
	}
}

// One operation is one chunk.
func BenchmarkStreamChunk(b *testing.B) {
	q, f, _ := decode(b, "POST", "/v1beta/models/m:streamGenerateContent?alt=sse", small)
	x := providertest.Exchange(q, &llmmock.Answer{Text: "x", Tokens: slices.Repeat([]string{" weather"}, b.N), Usage: llmmock.Usage{Input: 10, Output: b.N}})
	b.ReportAllocs()
	for range f.Stream(x) {
	}
}
