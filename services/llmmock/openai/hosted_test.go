package openai_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/spec"
)

// The tools that the vendor runs itself are told to have run before what is said, and what is said tells where it is from.
func TestHostedTools(t *testing.T) {
	document, err := spec.Load(llmmock.OpenAI)
	if err != nil {
		t.Fatal(err)
	}
	op, _ := document.Find("POST", "/v1/responses", nil)
	search := responses.ToolUnionParam{OfWebSearch: &responses.WebSearchToolParam{Type: responses.WebSearchToolTypeWebSearch}}
	files := responses.ToolUnionParam{OfFileSearch: &responses.FileSearchToolParam{VectorStoreIDs: []string{"vs_1"}}}
	python := responses.ToolUnionParam{OfCodeInterpreter: &responses.ToolCodeInterpreterParam{Container: responses.ToolCodeInterpreterContainerUnionParam{OfString: sdk.String("cntr_1")}}}
	function := responses.ToolUnionParam{OfFunction: &responses.FunctionToolParam{Name: "get_weather", Strict: sdk.Bool(false), Parameters: map[string]any{"type": "object"}}}
	chosen := func(of responses.ToolChoiceTypesType) func(*responses.ResponseNewParams) {
		return func(p *responses.ResponseNewParams) {
			p.ToolChoice = responses.ResponseNewParamsToolChoiceUnion{OfHostedTool: &responses.ToolChoiceTypesParam{Type: of}}
		}
	}
	for _, tc := range []struct {
		name   string
		answer *llmmock.Answer
		tools  []responses.ToolUnionParam
		change func(*responses.ResponseNewParams)
		items  []string
		events []string // of the call
		cited  string
		result string // in the call
	}{
		{"web search", say("It ", "rains."), []responses.ToolUnionParam{search}, func(p *responses.ResponseNewParams) {
			p.Include = []responses.ResponseIncludable{"web_search_call.action.sources"}
		},
			[]string{"web_search_call", "message"}, []string{"web_search_call.in_progress", "web_search_call.searching", "web_search_call.completed"}, "url_citation", `"sources":[{"type":"url"`},
		{"file search", say("It ", "rains."), []responses.ToolUnionParam{function, files, search}, func(p *responses.ResponseNewParams) {
			p.Include = []responses.ResponseIncludable{"file_search_call.results"}
		},
			[]string{"file_search_call", "message"}, []string{"file_search_call.in_progress", "file_search_call.searching", "file_search_call.completed"}, "file_citation", `"results":[{"file_id":"file-`},
		{"code", say("It ", "rains."), []responses.ToolUnionParam{python}, func(p *responses.ResponseNewParams) {
			p.Include = []responses.ResponseIncludable{"code_interpreter_call.outputs"}
		},
			[]string{"code_interpreter_call", "message"}, []string{"code_interpreter_call.in_progress", "code_interpreter_call_code.delta", "code_interpreter_call_code.done", "code_interpreter_call.interpreting", "code_interpreter_call.completed"},
			"", `"outputs":[{"type":"logs","logs":"Does it rain?\n"}]`},
		{"the one that was chosen", say("It ", "rains."), []responses.ToolUnionParam{search, files}, chosen(responses.ToolChoiceTypesTypeFileSearch), []string{"file_search_call", "message"}, nil, "file_citation", `"results":null`},
		{"none", say("It ", "rains."), []responses.ToolUnionParam{search}, func(p *responses.ResponseNewParams) {
			p.ToolChoice = responses.ResponseNewParamsToolChoiceUnion{OfToolChoiceMode: sdk.Opt(responses.ToolChoiceOptionsNone)}
		}, []string{"message"}, nil, "", ""},
		{"the client's first", &llmmock.Answer{Calls: []llmmock.Call{{Name: "get_weather", Arguments: "{}"}}, Finish: llmmock.ToolCalls}, []responses.ToolUnionParam{search, function}, nil, []string{"function_call"}, nil, "", ""},
		{"after thinking", &llmmock.Answer{Thinking: "Hm, hm.", ThinkingTokens: []string{"Hm, ", "hm."}, Text: "No.", Tokens: []string{"No."}, Finish: llmmock.Stopped}, []responses.ToolUnionParam{python}, nil,
			[]string{"reasoning", "code_interpreter_call", "message"}, nil, "", `"outputs":null`},
		{"cut off", &llmmock.Answer{Text: "It", Tokens: []string{"It"}, Finish: llmmock.AtLength}, []responses.ToolUnionParam{search}, nil, []string{"web_search_call", "message"}, nil, "url_citation", `"status":"completed"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, func(x *llmmock.Exchange) { x.Answer = tc.answer })
			client := s.client()
			ask := input("Does it rain?", func(p *responses.ResponseNewParams) {
				p.Tools = tc.tools
				if tc.change != nil {
					tc.change(p)
				}
			})
			whole, err := client.Responses.New(context.Background(), ask)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range op.ValidateAnswer([]byte(whole.RawJSON())) {
				if v.Field != "user" { // of which the document's own examples have null
					t.Errorf("%+v\n%s", v, whole.RawJSON())
				}
			}
			check := func(r *responses.Response) {
				t.Helper()
				var kinds []string
				for _, i := range r.Output {
					if kinds = append(kinds, i.Type); strings.HasSuffix(i.Type, "_call") && i.Type != "function_call" && (!strings.Contains(i.RawJSON(), tc.result) || i.Status != "completed") {
						t.Errorf("%s, want %s", i.RawJSON(), tc.result)
					}
					if i.Type == "message" {
						cited := ""
						if a := i.Content[0].Annotations; len(a) > 0 {
							cited = a[0].Type
						}
						if cited != tc.cited {
							t.Errorf("cited %q, want %q", cited, tc.cited)
						}
					}
				}
				if !slices.Equal(kinds, tc.items) {
					t.Errorf("items %q, want %q", kinds, tc.items)
				}
			}
			check(whole)
			stream := client.Responses.NewStreaming(context.Background(), ask)
			var events []string
			annotated := false
			var last *responses.Response
			n := 0
			for stream.Next() {
				e := stream.Current()
				if e.AsAny() == nil || int(e.SequenceNumber) != n || !json.Valid([]byte(e.RawJSON())) {
					t.Fatalf("event %d: %s", n, e.RawJSON())
				}
				n++
				if kind := strings.TrimPrefix(e.Type, "response."); strings.Contains(kind, "_call") && !strings.HasPrefix(kind, "function_call") {
					events = append(events, kind)
				}
				switch e := e.AsAny().(type) {
				case responses.ResponseOutputTextAnnotationAddedEvent:
					annotated = true
				case responses.ResponseCompletedEvent:
					last = &e.Response
				case responses.ResponseIncompleteEvent:
					last = &e.Response
				}
			}
			if stream.Err() != nil || last == nil || annotated != (tc.cited != "") || tc.events != nil && !slices.Equal(events, tc.events) {
				t.Fatalf("%v %v, annotated %t, events %q, want %q", stream.Err(), last, annotated, events, tc.events)
			}
			check(last)
			items, err := client.Responses.InputItems.List(context.Background(), last.ID, responses.InputItemListParams{})
			if err != nil || len(items.Data) == 0 {
				t.Errorf("%v %v", items, err)
			}
			if _, err := client.Responses.New(context.Background(), input("And now?", func(p *responses.ResponseNewParams) { p.PreviousResponseID = sdk.String(last.ID); p.Tools = tc.tools })); err != nil && tc.items[0] != "function_call" {
				t.Errorf("going on: %v", err)
			}
		})
	}
}
