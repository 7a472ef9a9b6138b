package openai_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"

	"edgehold.internal/services/llmmock"
)

func input(text string, change ...func(p *responses.ResponseNewParams)) responses.ResponseNewParams {
	p := responses.ResponseNewParams{Model: "gpt-4o", Input: responses.ResponseNewParamsInputUnion{OfString: sdk.String(text)}}
	for _, c := range change {
		c(&p)
	}
	return p
}

// saidBy is what a response says, as the domain has it.
func saidBy(r *responses.Response) *llmmock.Answer {
	a := &llmmock.Answer{Finish: llmmock.Finish(r.Status)}
	for _, o := range r.Output {
		switch o := o.AsAny().(type) {
		case responses.ResponseReasoningItem:
			for _, s := range o.Summary {
				a.Thinking += s.Text
			}
		case responses.ResponseOutputMessage:
			for _, c := range o.Content {
				a.Text += c.Text + c.Refusal
			}
		case responses.ResponseFunctionToolCall:
			a.Calls = append(a.Calls, llmmock.Call{Name: o.Name, Arguments: o.Arguments})
		}
	}
	return a
}

func TestResponsesOfTheSDK(t *testing.T) {
	for name, a := range answers() {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(x *llmmock.Exchange) { x.Answer = a })
			client := s.client()
			ctx := context.Background()
			ask := input("What is up?", func(p *responses.ResponseNewParams) {
				p.Reasoning.Summary = shared.ReasoningSummaryAuto
				p.Instructions = sdk.String("Be brief.")
				p.Metadata = shared.Metadata{"a": "b"}
			})
			want := told(a)
			want.Thinking = a.Thinking
			want.Finish = "completed"
			if a.Finish == llmmock.AtLength || a.Finish == llmmock.Filtered {
				want.Finish = "incomplete"
			}
			whole, err := client.Responses.New(ctx, ask)
			if err != nil {
				t.Fatal(err)
			}
			if got := saidBy(whole); !reflect.DeepEqual(got, want) {
				t.Errorf("whole: got %+v, want %+v", got, want)
			}
			if whole.Usage.InputTokens != 11 || int(whole.Usage.OutputTokens) != a.Usage.Output || whole.Instructions.OfString != "Be brief." || whole.Metadata["a"] != "b" {
				t.Errorf("%s", whole.RawJSON())
			}
			if turns := s.last.Turns; len(turns) != 2 || turns[0].Role != llmmock.System || turns[1].Text != "What is up?" {
				t.Errorf("%+v", turns)
			}
			stream := client.Responses.NewStreaming(ctx, ask)
			var (
				n        int
				streamed = &llmmock.Answer{}
				args     = map[int64]string{}
				names    = map[int64]string{}
				last     responses.Response
			)
			for stream.Next() {
				e := stream.Current()
				if e.AsAny() == nil {
					t.Fatalf("the SDK does not know %s", e.RawJSON())
				}
				if int(e.SequenceNumber) != n {
					t.Fatalf("event %d has number %d", n, e.SequenceNumber)
				}
				n++
				switch e := e.AsAny().(type) {
				case responses.ResponseOutputItemAddedEvent:
					names[e.OutputIndex] = e.Item.Name
				case responses.ResponseTextDeltaEvent:
					streamed.Text += e.Delta
				case responses.ResponseRefusalDeltaEvent:
					streamed.Text += e.Delta
				case responses.ResponseReasoningSummaryTextDeltaEvent:
					streamed.Thinking += e.Delta
				case responses.ResponseFunctionCallArgumentsDeltaEvent:
					args[e.OutputIndex] += e.Delta
				case responses.ResponseFunctionCallArgumentsDoneEvent:
					if args[e.OutputIndex] != e.Arguments {
						t.Errorf("streamed %q of %q", args[e.OutputIndex], e.Arguments)
					}
					streamed.Calls = append(streamed.Calls, llmmock.Call{Name: names[e.OutputIndex], Arguments: e.Arguments})
				case responses.ResponseCompletedEvent:
					last = e.Response
				case responses.ResponseIncompleteEvent:
					last = e.Response
				}
			}
			if stream.Err() != nil {
				t.Fatal(stream.Err())
			}
			if streamed.Finish = want.Finish; !reflect.DeepEqual(streamed, want) {
				t.Errorf("stream: got %+v, want %+v", streamed, want)
			}
			if got := saidBy(&last); !reflect.DeepEqual(got, want) {
				t.Errorf("the stream's end: got %+v, want %+v", got, want)
			}
			again, err := client.Responses.Get(ctx, last.ID, responses.ResponseGetParams{})
			if err != nil || again.RawJSON() != last.RawJSON() {
				t.Errorf("stored: %v\n%s\n%s", err, again.RawJSON(), last.RawJSON())
			}
		})
	}
}

func TestGoldenResponses(t *testing.T) {
	all := answers()
	for name, tc := range map[string]struct{ answer, body string }{
		"text":    {"text", ``},
		"calls":   {"calls", `,"tools":[{"type":"function","name":"weather","parameters":{ "type": "object" },"strict":true},{"type":"web_search"}],"tool_choice":"auto"`},
		"refused": {"refused", ``},
		"thought": {"thought", `,"reasoning":{"effort":"low","summary":"auto"},"include":["reasoning.encrypted_content"]`},
		"silent":  {"thought", `,"store":false,"stream_options":{"include_obfuscation":false}`},
		"length":  {"length", `,"text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}},"verbosity":"low"},"max_output_tokens":16`},
		"custom":  {"custom", `,"tools":[{"type":"custom","name":"shell"}]`},
		"probs":   {"text", `,"include":["message.output_text.logprobs"],"top_logprobs":1`},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(x *llmmock.Exchange) {
				if x.Answer = all[tc.answer]; x.Answer == nil {
					x.Answer = with(say(), func(a *llmmock.Answer) {
						a.Finish, a.Calls = llmmock.ToolCalls, []llmmock.Call{{Name: "shell", Arguments: `{"input":"ls -l \"/\""}`}}
					})
				}
				x.ID = "0123456789abcdef0123456789abcdef"
			})
			body := `{"model":"gpt-4o","input":"hi"` + tc.body
			_, _, whole := s.ask(t, "POST", "/v1/responses", body+"}")
			_, _, stream := s.ask(t, "POST", "/v1/responses", body+`,"stream":true}`)
			golden(t, "response_"+name+".txt", whole+"\n\n"+stream)
		})
	}
}

func TestStoredResponses(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		if x.Operation == llmmock.Generate {
			x.Answer = say("answer ", strconv.Itoa(len(x.Turns)))
			x.Schedule = llmmock.Schedule{First: 3 * time.Second}
		}
	})
	s.strict = true
	post := func(body string) (id string) {
		t.Helper()
		status, _, answer := s.ask(t, "POST", "/v1/responses", body)
		var r struct{ ID string }
		if err := json.Unmarshal([]byte(answer), &r); err != nil || status != 200 {
			t.Fatalf("%d %s", status, answer)
		}
		return r.ID
	}
	get := func(path string) (int, string) {
		t.Helper()
		status, _, answer := s.ask(t, "GET", path, "")
		return status, answer
	}
	first := post(`{"model":"m","instructions":"only once","input":"one"}`)
	second := post(`{"model":"m","previous_response_id":"` + first + `","input":[{"role":"user","content":"two"},{"role":"user","content":[{"type":"input_text","text":"three"}]}]}`)
	want := []llmmock.Turn{{Role: llmmock.User, Text: "one"}, {Role: llmmock.Assistant, Text: "answer 2"}, {Role: llmmock.User, Text: "two"}, {Role: llmmock.User, Text: "three"}}
	if !reflect.DeepEqual(s.last.Turns, want) {
		t.Errorf("%+v", s.last.Turns)
	}
	if status, body := get("/v1/responses/" + second); status != 200 || !strings.Contains(body, `"text":"answer 4"`) || !strings.Contains(body, `"previous_response_id":"`+first+`"`) {
		t.Errorf("%d %s", status, body)
	}

	// Four items; a page of two, and the rest of it.
	type page struct {
		Data []struct {
			ID, Role string
			Content  []struct{ Text string }
		}
		FirstID, LastID string
		HasMore         bool `json:"has_more"`
	}
	var p page
	_, body := get("/v1/responses/" + second + "/input_items?limit=3&order=asc")
	if err := json.Unmarshal([]byte(body), &p); err != nil || len(p.Data) != 3 || !p.HasMore || p.Data[0].Content[0].Text != "one" || p.Data[1].Role != "assistant" || p.Data[2].Content[0].Text != "two" {
		t.Fatalf("%v %s", err, body)
	}
	_, body = get("/v1/responses/" + second + "/input_items?limit=3&order=asc&after=" + p.Data[2].ID)
	p = page{}
	if err := json.Unmarshal([]byte(body), &p); err != nil || len(p.Data) != 1 || p.HasMore || p.Data[0].Content[0].Text != "three" {
		t.Fatalf("%v %s", err, body)
	}
	client := s.client()
	items := client.Responses.InputItems.ListAutoPaging(context.Background(), second, responses.InputItemListParams{Limit: sdk.Int(1)})
	n := 0
	for items.Next() {
		if items.Current().AsAny() == nil {
			t.Errorf("%s", items.Current().RawJSON())
		}
		n++
	}
	if n != 4 || items.Err() != nil {
		t.Errorf("%d items, %v", n, items.Err())
	}

	// A stream can be joined late.
	_, body = get("/v1/responses/" + second + "?stream=true&starting_after=4")
	if e := events(body); !strings.Contains(e[0], `"sequence_number":5}`) || !strings.Contains(e[len(e)-1], "response.completed") {
		t.Errorf("%s", body)
	}

	if status, body := get("/v1/responses/resp_none"); status != 404 || !strings.Contains(body, "Response with id 'resp_none' not found.") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := s.ask(t, "POST", "/v1/responses", `{"model":"m","previous_response_id":"resp_none","input":"x"}`); status != 400 || !strings.Contains(body, "previous_response_not_found") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := s.ask(t, "POST", "/v1/responses/"+second+"/cancel", ""); status != 400 || !strings.Contains(body, "Cannot cancel a synchronous response.") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, body := s.ask(t, "DELETE", "/v1/responses/"+second, ""); status != 200 || body != `{"id":"`+second+`","object":"response","deleted":true}` {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get("/v1/responses/" + second); status != 404 {
		t.Errorf("%d after it was deleted", status)
	}

	// In the background it is queued, under way until its time has come, and can be cancelled meanwhile.
	status := func(id string) (status string) {
		_, body := get("/v1/responses/" + id)
		var r struct{ Status string }
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatalf("%s", body)
		}
		return r.Status
	}
	const background = `{"model":"m","input":"x","background":true}`
	_, _, body = s.ask(t, "POST", "/v1/responses", background)
	if !strings.Contains(body, `"status":"queued","background":true,"completed_at":null`) || !s.last.Background {
		t.Errorf("%s", body)
	}
	id := post(`{"model":"m","input":"y","background":true}`)
	if got := status(id); got != "in_progress" {
		t.Errorf("%s", got)
	}
	s.at = epoch.Add(4 * time.Second)
	if got := status(id); got != "completed" {
		t.Errorf("%s", got)
	}
	id = post(`{"model":"m","input":"z","background":true}`)
	if _, _, body := s.ask(t, "POST", "/v1/responses/"+id+"/cancel", ""); !strings.Contains(body, `"status":"cancelled"`) {
		t.Errorf("%s", body)
	}
	s.at = epoch.Add(time.Hour)
	if got := status(id); got != "cancelled" {
		t.Errorf("%s", got)
	}

	// Where nobody is strict about it, what was never made is made up, and is the same every time.
	s.strict = false
	_, a := get("/v1/responses/resp_1")
	if !strings.Contains(a, `"id":"resp_1"`) || !strings.Contains(a, `"status":"completed"`) {
		t.Errorf("%s", a)
	}
	if _, b := get("/v1/responses/resp_1"); a != b {
		t.Errorf("%s\n%s", a, b)
	}
	if _, err := client.Responses.Cancel(context.Background(), "resp_1"); err != nil {
		t.Error(err)
	}
	if err := client.Responses.Delete(context.Background(), "resp_1"); err != nil {
		t.Error(err)
	}
}

func TestConversationsWithTools(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = with(say(), func(a *llmmock.Answer) {
			a.Calls, a.Finish = []llmmock.Call{{ID: "7", Name: "f", Arguments: "{}"}}, llmmock.ToolCalls
		})
	})
	var r struct {
		ID     string
		Output []struct {
			CallID string `json:"call_id"`
		}
	}
	_, _, body := s.ask(t, "POST", "/v1/responses", `{"model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":null,"strict":null}]}`)
	if err := json.Unmarshal([]byte(body), &r); err != nil || r.Output[0].CallID != "call_7" {
		t.Fatalf("%s", body)
	}
	status, _, body := s.ask(t, "POST", "/v1/responses", `{"model":"m","previous_response_id":"`+r.ID+`","input":[{"type":"function_call_output","call_id":"call_7","output":"done"}]}`)
	want := []llmmock.Turn{{Role: llmmock.User, Text: "x"}, {Role: llmmock.Assistant, Calls: []llmmock.Call{{ID: "call_7", Name: "f", Arguments: "{}"}}}, {Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "call_7", Text: "done"}}}}
	if status != 200 || !reflect.DeepEqual(s.last.Turns, want) {
		t.Errorf("%d %s\n%+v", status, body, s.last.Turns)
	}
	if status, _, body := s.ask(t, "POST", "/v1/responses", `{"model":"m","previous_response_id":"`+r.ID+`","input":"never mind"}`); status != 400 || !strings.Contains(body, "No tool output found for function call call_7.") {
		t.Errorf("%d %s", status, body)
	}
}

func TestDecodeResponse(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = say("ok") })
	s.lenient = true
	status, _, body := s.ask(t, "POST", "/v1/responses", `{"model":"m","input":[
		{"type":"message","role":"developer","content":[{"type":"input_text","text":"d"}]},
		{"role":"user","content":[{"type":"input_text","text":"u"},{"type":"input_image","image_url":"data:","detail":"auto"},{"type":"input_file","file_id":"f"}]},
		{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"x"}]},
		{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"a","annotations":[]}]},
		{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
		{"type":"custom_tool_call","call_id":"c2","name":"g","input":"in"},
		{"type":"function_call_output","call_id":"c1","output":"r1"},
		{"type":"custom_tool_call_output","call_id":"c2","output":[{"type":"input_text","text":"r2"}]},
		{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search","query":"q"}},
		{"id":"msg_1"}],
		"tools":[{"type":"function","name":"f","parameters":{},"strict":false},{"type":"custom","name":"g"},{"type":"file_search","vector_store_ids":["v"]}],
		"tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false,"text":{"format":{"type":"json_object"}},"reasoning":{"effort":"high"}}`)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	q := s.last
	want := []llmmock.Turn{{Role: llmmock.System, Text: "d"}, {Role: llmmock.User, Text: "u", Media: 2},
		{Role: llmmock.Assistant, Text: "a", Calls: []llmmock.Call{{ID: "c1", Name: "f", Arguments: "{}"}, {ID: "c2", Name: "g", Arguments: `{"input":"in"}`}}},
		{Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "c1", Text: "r1"}}}, {Role: llmmock.ToolRole, Results: []llmmock.Result{{CallID: "c2", Text: "r2"}}}}
	if !reflect.DeepEqual(q.Turns, want) {
		t.Errorf("%+v", q.Turns)
	}
	if len(q.Tools) != 2 || q.ToolChoice != llmmock.ToolsNamed || q.NamedTool != "f" || q.ParallelCalls || q.Schema == nil || q.Thinking != 16384 {
		t.Errorf("%+v", q)
	}
	// What is repeated of the request is on one line, as an event needs it.
	if strings.ContainsAny(body, "\n\t") {
		t.Errorf("%s", body)
	}
}

func TestResponseFailsInTheStream(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) {
		x.Answer = say("a", "b")
		x.Fault = llmmock.Fault{Kind: llmmock.FailMidStream, AtToken: 1, Failure: llmmock.Failure{Reason: llmmock.RateLimited}}
	})
	client := s.client()
	stream := client.Responses.NewStreaming(context.Background(), input("x"))
	var types []string
	for stream.Next() {
		if e := stream.Current(); int(e.SequenceNumber) != len(types) {
			t.Errorf("%s has number %d", e.Type, e.SequenceNumber)
		}
		types = append(types, stream.Current().Type)
	}
	want := "response.created response.in_progress response.output_item.added response.content_part.added response.output_text.delta error response.failed"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if r := stream.Current().AsResponseFailed().Response; r.Error.Code != "rate_limit_exceeded" || r.Status != "failed" {
		t.Errorf("%+v", r.Error)
	}
}

func TestInputTokens(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = &llmmock.Answer{Usage: llmmock.Usage{Input: 42}} })
	for _, body := range []string{`{"model":"m","input":"x"}`, `{}`} {
		if status, _, answer := s.ask(t, "POST", "/v1/responses/input_tokens", body); status != http.StatusOK || answer != `{"object":"response.input_tokens","input_tokens":42}` || s.last.Operation != llmmock.Count {
			t.Errorf("%d %s", status, answer)
		}
	}
}

// The store forgets the oldest when there are too many.
func TestStoreIsBounded(t *testing.T) {
	s := start(t, func(x *llmmock.Exchange) { x.Answer = say("a") })
	s.strict = true
	ids := map[int]string{}
	big := strings.Repeat("x", 1<<20)
	for i := range 80 {
		_, _, body := s.ask(t, "POST", "/v1/responses", fmt.Sprintf(`{"model":"m","input":"%d%s"}`, i, big))
		var r struct{ ID string }
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		ids[i] = r.ID
	}
	for i, want := range map[int]int{0: 404, 10: 404, 20: 200, 79: 200} {
		if status, _, _ := s.ask(t, "GET", "/v1/responses/"+ids[i], ""); status != want {
			t.Errorf("response %d: %d, want %d", i, status, want)
		}
	}
}
