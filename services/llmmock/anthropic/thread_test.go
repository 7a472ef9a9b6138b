package anthropic

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider/providertest"
)

// A thread goes on where its last answer ended: with its turns, its tools and its calls, whether that was streamed or not.
func TestThread(t *testing.T) {
	n := 0
	// answered is the answer to a body that comes so long before the next one.
	answered := func(body string, stream bool, ago time.Duration) (q *llmmock.Request, id string, refused *llmmock.Failure) {
		t.Helper()
		q, f, refused := decode(t, "/v1/messages?beta=true", `{"model":"claude-opus-5","max_tokens":100,`+body+`}`)
		if refused != nil {
			return q, "", refused
		}
		a := &llmmock.Answer{Calls: []llmmock.Call{{Name: "weather", Arguments: `{"city":"Oslo"}`}}, Finish: llmmock.ToolCalls}
		if len(q.Turns[len(q.Turns)-1].Results) > 0 {
			a = &llmmock.Answer{Text: "It is snow.", Finish: llmmock.Stopped}
		}
		x := providertest.Exchange(q, a)
		n++
		x.ID = fmt.Sprintf("%022d0000000000", n)
		q.At = q.At.Add(-ago)
		if stream {
			for range f.Stream(x) {
			}
		} else if _, _, body := f.Whole(nil, x); !json.Valid(body) {
			t.Errorf("answered %s", body)
		}
		return q, "msg_01" + x.ID[:22], nil
	}
	create := `"thread":{"type":"create"},"system":"Be brief.","tools":[{"name":"weather","input_schema":{"type":"object"}}],"messages":[{"role":"user","content":"weather?"}]`
	next := func(id, call string) string {
		return `"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"` + call + `","content":"snow"}]}],"thread":{"type":"continue","previous_message_id":"` + id + `"}`
	}
	for _, stream := range []bool{false, true} {
		_, id, refused := answered(create, stream, 4*time.Minute)
		if refused != nil {
			t.Fatal(refused)
		}
		call := "toolu_01" + strings.TrimPrefix(id, "msg_01")[:20] + "10"
		q, last, refused := answered(next(id, call), stream, 0)
		if refused != nil {
			t.Fatal(refused)
		}
		var roles []string
		for _, turn := range q.Turns {
			roles = append(roles, string(turn.Role))
		}
		if got := strings.Join(roles, " "); got != "system user assistant tool" || q.Turns[0].Text != "Be brief." || q.Turns[2].Calls[0].ID != call || len(q.Tools) != 1 || q.Tools[0].Name != "weather" {
			t.Errorf("stream %t: %s %+v", stream, got, q)
		}
		if q, _, refused := answered(`"messages":[{"role":"user","content":"sure?"}],"thread":{"type":"continue","previous_message_id":"`+last+`"}`, stream, 0); refused != nil || len(q.Turns) != 6 || q.Turns[4].Text != "It is snow." {
			t.Errorf("the answer to that is not held: %+v %+v", refused, q.Turns)
		}
		for _, tc := range []struct{ name, body, says string }{
			{"another call", next(id, "toolu_01another"), "unexpected `tool_use_id`"},
			{"a system prompt", `"system":"Be long.",` + next(id, call), "system"},
			{"tools", `"tools":[{"name":"time","input_schema":{"type":"object"}}],` + next(id, call), "tools"},
		} {
			if _, _, refused := answered(tc.body, stream, 0); refused == nil || refused.Status != 400 || !strings.Contains(refused.Field+refused.Message, tc.says) {
				t.Errorf("%s: %+v", tc.name, refused)
			}
		}
		_, id, _ = answered(create, stream, 6*time.Minute)
		if _, _, refused := answered(next(id, "toolu_01"), stream, 0); refused == nil || refused.Status != 404 || refused.Code != "thread_not_found" {
			t.Errorf("after 6 minutes: %+v", refused)
		}
	}
}

// Without the beta there are no threads, and the error of one has a code that clients act on.
func TestThreadRefused(t *testing.T) {
	body := `{"model":"claude-opus-5","max_tokens":1,"messages":[{"role":"user","content":"x"}],"thread":{"type":"continue","previous_message_id":"msg_01"}}`
	if _, _, refused := decode(t, "/v1/messages", body); refused == nil || refused.Status != 400 || refused.Field != "thread" {
		t.Errorf("%+v", refused)
	}
	q, f, refused := decode(t, "/v1/messages?beta=true", body)
	if refused == nil {
		t.Fatal("a thread that was never made")
	}
	status, _, answer := f.Failure(nil, refused, providertest.Exchange(q, nil))
	var e struct {
		Error struct {
			Type    string
			Details struct {
				Code string `json:"error_code"`
			}
		}
	}
	if err := json.Unmarshal(answer, &e); err != nil || status != 404 || e.Error.Type != "not_found_error" || e.Error.Details.Code != "thread_not_found" {
		t.Errorf("%d %s %v", status, answer, err)
	}
}
