package bedrock

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/provider/providertest"
)

var decoding = providertest.Decoder(New(Config{}))

func decode(t testing.TB, model, method, body string) (*llmmock.Request, provider.Format, *llmmock.Failure) {
	t.Helper()
	return decoding(t, httptest.NewRequest(http.MethodPost, "/model/"+url.PathEscape(model)+"/"+method, nil), body)
}

const (
	claude   = "anthropic.claude-sonnet-4-5-20250929-v1:0"
	novaLite = "amazon.nova-lite-v1:0"
	small    = `{"messages":[{"role":"user","content":[{"text":"What is the weather in Berlin today?"}]}]}`
)

const conversationBody = `{
 "system":[{"text":"be brief"},{"cachePoint":{"type":"default"}},{"guardContent":{"text":{"text":"guarded"}}}],
 "messages":[
  {"role":"user","content":[{"text":"look"},{"image":{"format":"png","source":{"bytes":"aGVsbG8="}}},{"document":{"name":"d"}},{"searchResult":{"content":[{"text":"found"}]}}]},
  {"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"hm"}}},{"text":"I ask."},{"toolUse":{"toolUseId":"t1","name":"weather","input":{"city":"Berlin"}}},{"toolUse":{"toolUseId":"t2","name":"time","input":{}}}]},
  {"role":"user","content":[{"toolResult":{"toolUseId":"t1","content":[{"json":{"t":21}},{"text":"warm"}]}},{"toolResult":{"toolUseId":"t2","content":[{"text":"no clock"}],"status":"error"}}]}
 ],
 "inferenceConfig":{"maxTokens":100,"temperature":0.5,"topP":0.9,"stopSequences":["END"]},
 "toolConfig":{"tools":[{"toolSpec":{"name":"weather","description":"the weather","inputSchema":{"json":{"type":"object"}}}},{"cachePoint":{"type":"default"}},{"toolSpec":{"name":"time","inputSchema":{"json":{}}}}],"toolChoice":{"tool":{"name":"time"}}},
 "additionalModelRequestFields":{"thinking":{"type":"enabled","budget_tokens":2000}},
 "outputConfig":{"textFormat":{"type":"json_schema","structure":{"jsonSchema":{"schema":"{\"type\":\"object\"}","name":"n"}}}},
 "performanceConfig":{"latency":"optimized"},"serviceTier":{"type":"priority"}
}`

func TestDecode(t *testing.T) {
	q, f, failure := decode(t, claude, "converse", conversationBody)
	if failure != nil || f == nil {
		t.Fatalf("refused: %+v", failure)
	}
	want := []llmmock.Turn{
		{Role: llmmock.System, Text: "be brief\nguarded"},
		{Role: llmmock.User, Text: "look\nfound", Media: 2},
		{Role: llmmock.Assistant, Text: "I ask.", Calls: []llmmock.Call{{ID: "t1", Name: "weather", Arguments: `{"city":"Berlin"}`}, {ID: "t2", Name: "time", Arguments: `{}`}}},
		{Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "t1", Text: "{\"t\":21}\nwarm"}, {CallID: "t2", Text: "no clock", Failed: true}}},
	}
	if !reflect.DeepEqual(q.Turns, want) {
		t.Errorf("turns %+v", q.Turns)
	}
	if q.Model != claude || q.MaxTokens != 100 || !slices.Equal(q.Stop, []string{"END"}) || q.Thinking != 2000 || q.ToolChoice != llmmock.ToolsNamed || q.NamedTool != "time" ||
		string(q.Schema) != `{"type":"object"}` || len(q.Tools) != 2 || string(q.Tools[0].Schema) != `{"type":"object"}` || q.Choices != 1 {
		t.Errorf("decoded %+v", q)
	}
	_, _, body := f.Whole(nil, providertest.Exchange(q, answers["text"]))
	if !bytes.Contains(body, []byte(`"performanceConfig":{"latency":"optimized"},"serviceTier":{"type":"priority"}`)) {
		t.Errorf("%s", body)
	}
}

func TestModels(t *testing.T) {
	for id, want := range map[string]family{
		claude: anthropicMessages, "eu." + claude: anthropicMessages, "global." + claude: anthropicMessages, novaLite: nova, "amazon.titan-text-express-v1": titanText, "amazon.titan-embed-text-v2:0": titanEmbed,
		"us.meta.llama3-3-70b-instruct-v1:0": llama, "arn:aws:bedrock:us-east-1::foundation-model/" + claude: anthropicMessages,
		"arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu." + novaLite: nova, "cohere.command-r-v1:0": unknown, "gpt-4": unknown,
	} {
		if got := familyOf(id); got != want {
			t.Errorf("%s is of family %d, want %d", id, got, want)
		}
		if Known(id) != (id != "gpt-4") {
			t.Errorf("%s: known %v", id, Known(id))
		}
		q, _, _ := decode(t, id, "converse", small)
		if q.Model != id {
			t.Errorf("model %q, want %q", q.Model, id)
		}
	}
	for body, want := range map[string]family{
		`{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`: anthropicMessages, `{"inputText":"x"}`: titanText,
		`{"schemaVersion":"messages-v1","messages":[{"role":"user","content":[{"text":"x"}]}]}`: nova, `{"prompt":"x","max_gen_len":5}`: llama, `{"prompt":"x"}`: unknown,
	} {
		_, f, failure := decode(t, "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef", "invoke", body)
		if want == unknown {
			if f != nil || failure == nil {
				t.Errorf("%s is taken", body)
			}
		} else if failure != nil || familyOfBody([]byte(body)) != want {
			t.Errorf("%s: %+v", body, failure)
		}
	}
	if hostedModel("us."+claude) != "claude-sonnet-4-5-20250929" {
		t.Error(hostedModel("us." + claude))
	}
}

const hostedHead = `{"anthropic_version":"bedrock-2023-05-31","max_tokens":10,`

func TestRefusals(t *testing.T) {
	const converse = "converse"
	call := `{"role":"user","content":[{"text":"x"}]},{"role":"assistant","content":[{"toolUse":{"toolUseId":"a","name":"n","input":{}}}]}`
	tools := `,"toolConfig":{"tools":[{"toolSpec":{"name":"n","inputSchema":{"json":{}}}}]}`
	for _, c := range []struct {
		name, model, method, body, code, message string
		lenient                                  bool
	}{
		{"no JSON", claude, converse, `{"a`, "SerializationException", "Unable to parse the request body: unexpected token at byte 3.", false},
		{"text a number", claude, converse, `{"messages":[{"role":"user","content":[{"text":5}]}]}`, "SerializationException", "NUMBER_VALUE can not be converted to a String", false},
		{"messages an object", claude, converse, `{"messages":{}}`, "SerializationException", "Start of structure or map found where not expected.", false},
		{"no messages", claude, converse, `{}`, "ValidationException", "A conversation must start with a user message. Try again with a conversation that starts with a user message.", true},
		{"no content", claude, converse, `{"messages":[{"role":"user","content":[]}]}`, "ValidationException", "The content field in the Message object at messages.0 is empty. Add a ContentBlock object to the content field and try again.", true},
		{"blank", claude, converse, `{"messages":[{"role":"user","content":[{"text":" "}]}]}`, "ValidationException", "The text field in the ContentBlock object at messages.0.content.0 is blank. Add text to the text field, and try again.", true},
		{"role", claude, converse, `{"messages":[{"role":"robot","content":[{"text":"x"}]}]}`, "ValidationException", "1 validation error detected: Value 'robot' at 'messages.1.member.role' failed to satisfy constraint: Member must satisfy enum value set: [user, assistant]", true},
		{"twice the user", claude, converse, `{"messages":[{"role":"user","content":[{"text":"x"}]},{"role":"user","content":[{"text":"x"}]}]}`, "ValidationException", "A conversation must alternate between user and assistant roles. Make sure the conversation alternates between user and assistant roles and try again.", true},
		{"no result", claude, converse, `{"messages":[` + call + `,{"role":"user","content":[{"text":"x"}]}]` + tools + `}`, "ValidationException", "Expected toolResult blocks at messages.2.content for the following Ids: a", true},
		{"no tools", claude, converse, `{"messages":[` + call + `,{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":[]}}]}]}`, "ValidationException", "The toolConfig field must be defined when using toolUse and toolResult content blocks.", true},
		{"result without a call", claude, converse, `{"messages":[{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":[]}}]}]` + tools + `}`, "ValidationException", "The number of toolResult blocks at messages.0.content exceeds the number of toolUse blocks of previous turn.", true},
		{"tokens", claude, converse, `{"messages":[{"role":"user","content":[{"text":"x"}]}],"inferenceConfig":{"maxTokens":0}}`, "ValidationException", "1 validation error detected: Value '0' at 'inferenceConfig.maxTokens' failed to satisfy constraint: Member must have value greater than or equal to 1", true},
		{"model of another maker", "cohere.command-r-v1:0", "invoke", `{}`, "ValidationException", "The provided model identifier is invalid.", false},
		{"hosted without a version", claude, "invoke", `{"max_tokens":10,"messages":[{"role":"user","content":"x"}]}`, "ValidationException", "anthropic_version: Field required", true},
		{"hosted with a model", claude, "invoke", hostedHead + `"model":"m","messages":[{"role":"user","content":"x"}]}`, "ValidationException", "model: Extra inputs are not permitted", true},
		{"titan without a text", "amazon.titan-text-express-v1", "invoke", `{}`, "ValidationException", "Malformed input request: #: required key [inputText] not found, please reformat your input and try again.", true},
		{"titan with another's field", "amazon.titan-text-express-v1", "invoke", `{"inputText":"x","prompt":"x"}`, "ValidationException", "Malformed input request: #: extraneous key [prompt] is not permitted, please reformat your input and try again.", true},
		{"titan's tokens a word", "amazon.titan-text-express-v1", "invoke", `{"inputText":"x","textGenerationConfig":{"maxTokenCount":"x"}}`, "ValidationException", "Malformed input request: #/textGenerationConfig/maxTokenCount: expected type: Integer, found: String, please reformat your input and try again.", false},
		{"llama without a prompt", "meta.llama3-8b-instruct-v1:0", "invoke", `{"max_gen_len":0}`, "ValidationException", "Malformed input request: #/max_gen_len: 0 is not greater or equal to 1, please reformat your input and try again.", true},
		{"nova without messages", novaLite, "invoke", `{}`, "ValidationException", "Malformed input request: #: required key [messages] not found, please reformat your input and try again.", true},
		{"embeddings as a stream", "amazon.titan-embed-text-v2:0", "invoke-with-response-stream", `{"inputText":"x"}`, "ValidationException", "The model is unsupported for streaming.", false},
		{"dimensions", "amazon.titan-embed-text-v2:0", "invoke", `{"inputText":"x","dimensions":5}`, "ValidationException", "Malformed input request: #/dimensions: 5 is not a valid enum value, please reformat your input and try again.", true},
		{"counting nothing", claude, "count-tokens", `{}`, "ValidationException", "1 validation error detected: Value at 'input' failed to satisfy constraint: Member must not be null", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, f, failure := decode(t, c.model, c.method, c.body)
			if failure == nil {
				t.Fatal("taken")
			}
			h := http.Header{}
			status, body := New(Config{}).Failure(h, failure, providertest.ID)
			var got struct{ Message string }
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatal(err)
			}
			if name, _, _ := strings.Cut(h.Get("X-Amzn-Errortype"), ":"); status != 400 || name != c.code || got.Message != c.message || h.Get("X-Amzn-Requestid") != "01234567-89ab-cdef-0123-456789abcdef" {
				t.Errorf("%d %s %s\nwant %s", status, h.Get("X-Amzn-Errortype"), body, c.message)
			}
			if (f != nil) != c.lenient {
				t.Errorf("understood: %v, want %v", f != nil, c.lenient)
			}
		})
	}
}

func TestManyMessages(t *testing.T) {
	q, _, failure := decode(t, claude, "converse", `{"messages":[`+strings.Repeat(`{},`, MaxMessages)+`{}]}`)
	if failure == nil || len(q.Turns) != MaxMessages {
		t.Errorf("%d turns, %+v", len(q.Turns), failure)
	}
}

func TestCachePoints(t *testing.T) {
	const point = `,{"cachePoint":{"type":"default"}}`
	body := func(tools, system, last string) string {
		return `{"toolConfig":{"tools":[{"toolSpec":{"name":"f","inputSchema":{"json":{}}}}` + tools + `]},"messages":[{"role":"user","content":[{"text":"a"}` + last + `]}]` + system + `}`
	}
	for name, tc := range map[string]struct {
		model, body string
		want        llmmock.Cache
	}{
		"none":                  {claude, body("", "", ""), llmmock.Cache{}},
		"tools":                 {claude, body(point, "", ""), llmmock.Cache{Tools: true, Least: 1024}},
		"system":                {"amazon.nova-lite-v1:0", body("", `,"system":[{"text":"s"}`+point+`]`, ""), llmmock.Cache{Turns: 1, Least: 1000}},
		"all":                   {"amazon.nova-lite-v1:0", body("", `,"system":[{"text":"s"}]`, point), llmmock.Cache{Turns: 2, Least: 1000}},
		"all, without a system": {"anthropic.claude-haiku-4-5-20251001-v1:0", body("", "", point), llmmock.Cache{Turns: 1, Least: 4096}},
	} {
		q, _, failure := decode(t, tc.model, "converse", tc.body)
		if failure != nil || q.Cache != tc.want {
			t.Errorf("%s: %+v %+v, want %+v", name, q.Cache, failure, tc.want)
		}
	}
}

func TestLlamaTurns(t *testing.T) {
	const template = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
	if got := llamaTurns(template); !reflect.DeepEqual(got, []llmmock.Turn{{Role: llmmock.System, Text: "be brief"}, {Role: llmmock.User, Text: "hello"}}) {
		t.Errorf("%+v", got)
	}
	if got := llamaTurns("hello"); len(got) != 1 || got[0].Text != "hello" {
		t.Errorf("%+v", got)
	}
}

var answers = map[string]*llmmock.Answer{
	"text": {Text: "It is \"fine\" — 21 °C.\n", Tokens: providertest.Tokens("It is \"fine\" — 21 °C.\n"), Usage: llmmock.Usage{Input: 25, Cached: 10, CacheWrite: 5, Output: 6}},
	"tools": {Text: "I look.", Tokens: []string{"I look."}, Finish: llmmock.ToolCalls, Calls: []llmmock.Call{{ID: "00000000000000000000aa", Name: "weather", Arguments: `{"city":"Zürich"}`},
		{Name: "time"}}, Usage: llmmock.Usage{Input: 40, Output: 30}},
	"thinking": {Thinking: "Let me think.", ThinkingTokens: providertest.Tokens("Let me think."), Text: "Done.", Finish: llmmock.AtLength, Usage: llmmock.Usage{Input: 9, Output: 12, Reasoning: 8}},
	"refusal":  {Finish: llmmock.Refused, Usage: llmmock.Usage{Input: 9, Output: 1}},
}

// readable is a stream as the vendor's own decoder reads it, one line a frame: the headers, and the payload with what is in base64
// in it.
func readable(t testing.TB, stream []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	in := bytes.NewReader(stream)
	decoder := eventstream.NewDecoder()
	for in.Len() > 0 {
		m, err := decoder.Decode(in, nil)
		if err != nil {
			t.Fatalf("frame after %q: %v", out.Bytes(), err)
		}
		for _, h := range m.Headers {
			out.WriteString(h.Name + "=" + h.Value.String() + " ")
		}
		if !json.Valid(m.Payload) {
			t.Errorf("payload %q", m.Payload)
		}
		out.Write(m.Payload)
		var chunk struct{ Bytes []byte }
		if json.Unmarshal(m.Payload, &chunk) == nil && chunk.Bytes != nil {
			if !json.Valid(chunk.Bytes) {
				t.Errorf("event %q", chunk.Bytes)
			}
			out.WriteByte(' ')
			out.Write(chunk.Bytes)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func exchange(q *llmmock.Request, a *llmmock.Answer) *llmmock.Exchange {
	x := providertest.Exchange(q, a)
	x.Schedule = llmmock.Schedule{First: 250 * time.Millisecond, Gaps: []time.Duration{10 * time.Millisecond}}
	return x
}

func TestGolden(t *testing.T) {
	for _, c := range []struct{ name, model, method, body string }{
		{"converse", claude, "converse-stream", small},
		{"invoke-anthropic", claude, "invoke-with-response-stream", hostedHead + `"messages":[{"role":"user","content":"x"}]}`},
		{"invoke-titan", "amazon.titan-text-express-v1", "invoke-with-response-stream", `{"inputText":"x"}`},
		{"invoke-llama", "meta.llama3-8b-instruct-v1:0", "invoke-with-response-stream", `{"prompt":"x"}`},
		{"invoke-nova", novaLite, "invoke-with-response-stream", `{"schemaVersion":"messages-v1","messages":[{"role":"user","content":[{"text":"x"}]}],"inferenceConfig":{"max_new_tokens":5}}`},
	} {
		for name, a := range answers {
			q, f, failure := decode(t, c.model, c.method, c.body)
			if failure != nil {
				t.Fatalf("%s: %+v", c.name, failure)
			}
			x := exchange(q, a)
			status, contentType, whole := f.Whole([]byte("before"), x)
			if status != 200 || contentType != "application/json" || !json.Valid(whole[6:]) {
				t.Errorf("%s: %d %s %s", c.name, status, contentType, whole)
			}
			providertest.Golden(t, c.name+"-"+name+".json", append(whole[6:], '\n'))
			providertest.Golden(t, c.name+"-"+name+".stream.txt", readable(t, providertest.Stream(t, f, x)))
		}
	}
	for model, body := range map[string]string{"amazon.titan-embed-text-v2:0": `{"inputText":"x","dimensions":256,"normalize":true}`, "amazon.titan-embed-text-v1": `{"inputText":"x"}`} {
		q, f, failure := decode(t, model, "invoke", body)
		if failure != nil || len(q.Inputs) != 1 || q.Operation != llmmock.Embed {
			t.Fatalf("%+v %+v", q, failure)
		}
		_, _, whole := f.Whole(nil, exchange(q, &llmmock.Answer{Embeddings: [][]float32{{0.5, -1e-7}}, Usage: llmmock.Usage{Input: 3}}))
		providertest.Golden(t, strings.TrimSuffix(model, ":0")+".json", append(whole, '\n'))
	}
}

// Our frames are those of the vendor's own encoder, and a changed bit is found by its decoder.
func TestFrames(t *testing.T) {
	q, f, _ := decode(t, claude, "converse-stream", small)
	for c := range f.Stream(exchange(q, answers["tools"])) {
		m, err := eventstream.NewDecoder().Decode(bytes.NewReader(c.Data), nil)
		if err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := eventstream.NewEncoder().Encode(&again, m); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), c.Data) {
			t.Errorf("our frame %x, theirs %x", c.Data, again.Bytes())
		}
		for i := range c.Data {
			bad := bytes.Clone(c.Data)
			bad[i] ^= 1
			if m, err := eventstream.NewDecoder().Decode(bytes.NewReader(bad), nil); err == nil {
				t.Fatalf("a changed byte %d is not noticed: %v", i, m)
			} else if err == io.EOF && i > 8 {
				t.Fatal(err)
			}
		}
	}
}

func TestStreamStops(t *testing.T) {
	for _, c := range []struct{ model, method, body string }{
		{claude, "converse-stream", small}, {claude, "invoke-with-response-stream", hostedHead + `"messages":[{"role":"user","content":"x"}]}`},
		{"amazon.titan-text-express-v1", "invoke-with-response-stream", `{"inputText":"x"}`},
	} {
		q, f, _ := decode(t, c.model, c.method, c.body)
		for _, a := range answers {
			n := 0
			for range f.Stream(exchange(q, a)) {
				n++
			}
			for stop := range n {
				i := 0
				for range f.Stream(exchange(q, a)) {
					if i++; i > stop {
						break
					}
				}
			}
		}
	}
}

func TestFailures(t *testing.T) {
	var out bytes.Buffer
	q, f, _ := decode(t, claude, "converse-stream", small)
	_, invoke, _ := decode(t, "amazon.titan-text-express-v1", "invoke-with-response-stream", `{"inputText":"x"}`)
	for _, e := range []llmmock.Failure{
		{Reason: llmmock.BadRequest}, {Reason: llmmock.Unauthenticated}, {Reason: llmmock.NoCredit}, {Reason: llmmock.Forbidden}, {Reason: llmmock.NotFound}, {Reason: llmmock.MethodUnknown},
		{Reason: llmmock.Conflict}, {Reason: llmmock.TooLarge}, {Reason: llmmock.Unprocessable}, {Reason: llmmock.RateLimited}, {Reason: llmmock.QuotaExhausted}, {Reason: llmmock.Broken},
		{Reason: llmmock.Unavailable}, {Reason: llmmock.TimedOut}, {Reason: llmmock.Overloaded}, {Status: 529}, {Status: 418}, {Status: 502}, {},
		{Status: 429, Code: "ModelNotReadyException", Message: "a \"quoted\"\nline", Field: "x"},
	} {
		h := http.Header{}
		status, body := New(Config{}).Failure(h, &e, providertest.ID)
		if !json.Valid(body) {
			t.Errorf("%s", body)
		}
		out.WriteString(http.StatusText(status) + " " + h.Get("X-Amzn-Errortype") + " ")
		out.Write(body)
		out.WriteString("\n  ")
		out.Write(readable(t, f.FailureChunk(nil, &e, exchange(q, nil))))
		if e.Reason == llmmock.TimedOut {
			out.WriteString("  ")
			out.Write(readable(t, invoke.FailureChunk(nil, &e, exchange(q, nil))))
		}
	}
	x := exchange(q, nil)
	x.Failure = &llmmock.Failure{Reason: llmmock.NotFound}
	h := http.Header{}
	f.Header(h, x)
	if status, _, body := f.Failure(nil, x.Failure, x); status != 400 || h.Get("X-Amzn-Errortype") != "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/" || string(body) != `{"message":"The provided model identifier is invalid."}` {
		t.Errorf("an unknown model: %d %v %s", status, h, body)
	}
	providertest.Golden(t, "failures.txt", out.Bytes())
}

func TestCount(t *testing.T) {
	inner := base64.StdEncoding.EncodeToString([]byte(hostedHead + `"messages":[{"role":"user","content":"hello"}]}`))
	for _, body := range []string{`{"input":{"converse":{"messages":[{"role":"user","content":[{"text":"hello"}]}]}}}`, `{"input":{"invokeModel":{"body":"` + inner + `"}}}`} {
		q, f, failure := decode(t, claude, "count-tokens", body)
		if failure != nil || q.Operation != llmmock.Count || len(q.Turns) != 1 || q.Turns[0].Text != "hello" || q.Model != claude {
			t.Errorf("%s: %+v %+v", body, q, failure)
		}
		if _, _, whole := f.Whole(nil, exchange(q, &llmmock.Answer{Usage: llmmock.Usage{Input: 7}})); string(whole) != `{"inputTokens":7}` {
			t.Errorf("%s", whole)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(conversationBody))
	f.Add([]byte(hostedHead + `"messages":[{"role":"user","content":"x"}]}`))
	f.Add([]byte(`{"inputText":"x","textGenerationConfig":{"maxTokenCount":5,"stopSequences":["a"]},"dimensions":256}`))
	f.Add([]byte(`{"prompt":"<|start_header_id|>user<|end_header_id|>x<|eot_id|>","max_gen_len":5}`))
	f.Add([]byte(`{"input":{"invokeModel":{"body":"e30="},"converse":{}}}`))
	models := []string{claude, novaLite, "amazon.titan-text-express-v1", "amazon.titan-embed-text-v2:0", "meta.llama3-8b-instruct-v1:0", "arn:aws:bedrock:us-east-1:1:provisioned-model/x"}
	f.Fuzz(func(t *testing.T, body []byte) {
		for i := range 2 + len(models) {
			method, model := "invoke", claude
			switch i {
			case len(models):
				method = "converse"
			case len(models) + 1:
				method = "count-tokens"
			default:
				model = models[i]
			}
			_, format, failure := decode(t, model, method, string(body))
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
			q := &llmmock.Request{Model: model}
			if _, _, whole := format.Whole(nil, exchange(q, answers["tools"])); !json.Valid(whole) {
				t.Fatalf("answered %q", whole)
			}
			if failure != nil {
				if _, _, e := format.Failure(nil, failure, exchange(q, nil)); !json.Valid(e) {
					t.Fatalf("refused with %q", e)
				}
			}
		}
	})
}

func BenchmarkDecodeSmall(b *testing.B) {
	r := httptest.NewRequest(http.MethodPost, "/model/m/converse", nil)
	r.SetPathValue("modelId", claude)
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
	q, f, _ := decode(b, claude, "converse", small)
	x := exchange(q, answers["text"])
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		_, _, dst = f.Whole(dst[:0], x)
	}
}

// One operation is one chunk.
func BenchmarkStreamChunk(b *testing.B) {
	for name, c := range map[string]struct{ model, method, body string }{
		"converse":  {claude, "converse-stream", small},
		"anthropic": {claude, "invoke-with-response-stream", hostedHead + `"messages":[{"role":"user","content":"x"}]}`},
	} {
		b.Run(name, func(b *testing.B) {
			q, f, failure := decode(b, c.model, c.method, c.body)
			if failure != nil {
				b.Fatal(failure)
			}
			x := providertest.Exchange(q, &llmmock.Answer{Text: "x", Tokens: slices.Repeat([]string{" weather"}, b.N)})
			b.ReportAllocs()
			for range f.Stream(x) {
			}
		})
	}
}
