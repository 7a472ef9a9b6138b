package llmmock_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
)

// player has the recordings a and b; a has only what is of /v1/a, and b all.
type player struct{}

var taped = &llmmock.Recording{Status: 200, HeaderAt: 10 * time.Millisecond, EndAt: 60 * time.Millisecond,
	Pieces: []llmmock.RecordedPiece{{At: 20 * time.Millisecond, Data: []byte("one")}, {At: 45 * time.Millisecond, Data: []byte("two")}}}

func (player) Answer(_ *llmmock.Scenario, rule *llmmock.AnswerRule, q *llmmock.Request, _ llmmock.Moment) (*llmmock.Answer, *llmmock.Failure) {
	switch {
	case rule == nil:
		return &llmmock.Answer{Text: "made up"}, nil
	case rule.Play == "a" && !strings.HasPrefix(q.Path, "/v1/a"):
		return nil, &llmmock.Failure{Status: 404, Code: llmmock.NotRecorded, Message: "not in a"}
	case rule.Play == "broken":
		return nil, &llmmock.Failure{Status: 500}
	case rule.Play != "":
		rec := *taped
		if strings.HasSuffix(q.Path, "/cut") {
			rec.End = llmmock.CutMidEvent
		}
		return &llmmock.Answer{Text: "from " + rule.Play, Recorded: &rec, Usage: llmmock.Usage{Input: 3, Output: 4}}, nil
	}
	return &llmmock.Answer{Text: rule.Say}, nil
}

func TestPlay(t *testing.T) {
	for _, tc := range []struct {
		rules     string // names of recordings, and words
		path      string
		operation llmmock.Operation
		want      string
	}{
		{"a", "/v1/a", llmmock.Generate, "from a"},
		{"a", "/v1/a", llmmock.Other, "from a"},
		{"a", "/v1/b", llmmock.Generate, "not in a"},
		{"a", "/v1/b", llmmock.Other, "not in a"},
		{"a b", "/v1/b", llmmock.Embed, "from b"},
		{"a hello", "/v1/b", llmmock.Generate, "hello"},
		{"a hello", "/v1/b", llmmock.Other, ""}, // which is the vendor's usual answer
		{"hello a", "/v1/a", llmmock.Generate, "hello"},
		{"a broken", "/v1/b", llmmock.Generate, "500"},
		{"broken a", "/v1/a", llmmock.Generate, "500"},
	} {
		s := llmmock.Scenario{Name: "default"}
		for _, word := range strings.Fields(tc.rules) {
			rule := llmmock.AnswerRule{Play: word}
			if word == "hello" {
				rule = llmmock.AnswerRule{Say: word}
			}
			s.Answers = append(s.Answers, rule)
		}
		m, err := llmmock.NewMock([]llmmock.Scenario{s}, player{}, llmmock.Options{})
		if err != nil {
			t.Fatal(err)
		}
		x := m.Decide(&llmmock.Request{Path: tc.path, Operation: tc.operation, Choices: 3})
		got := ""
		switch {
		case x.Failure != nil && x.Failure.Message != "":
			got = x.Failure.Message
		case x.Failure != nil:
			got = fmt.Sprint(x.Failure.Status)
		case x.Answer != nil:
			got = x.Answer.Text
		}
		if got != tc.want || x.Failure != nil && x.Answer != nil {
			t.Errorf("%s for %s %s: %q, want %q", tc.rules, tc.operation, tc.path, got, tc.want)
		}
		m.Done(x)
	}
}

// A recording has its own times. What slows the provider slows it, and its end gives way to a fault.
func TestPlayedSchedule(t *testing.T) {
	s := llmmock.Scenario{Name: "default", Answers: []llmmock.AnswerRule{{Play: "b"}},
		Latency: llmmock.Latency{FirstToken: llmmock.Constant(time.Second), InterToken: llmmock.Constant(time.Second), Shape: []llmmock.Point{{Factor: 0.5, Step: true}}},
		Faults:  []llmmock.FaultRule{{Match: llmmock.Match{Models: []string{"stall"}}, When: llmmock.When{Always: true}, Fault: llmmock.Fault{Kind: llmmock.Stall, AtToken: 1, Wait: time.Second}}}}
	m, err := llmmock.NewMock([]llmmock.Scenario{s}, player{}, llmmock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	decide := func(path, model string) *llmmock.Exchange {
		x := m.Decide(&llmmock.Request{Path: path, Model: model, Operation: llmmock.Generate, Stream: true, Choices: 1})
		m.Done(x)
		return x
	}
	x := decide("/v1/a", "m")
	if got := fmt.Sprint(x.Schedule.Header, x.Schedule.First, x.Schedule.Gaps, x.Fault.Kind); got != "5ms 10ms [12.5ms 7.5ms]" {
		t.Errorf("twice as fast it is %s", got)
	}
	if u := x.Usage(); u.Total() != 7 || x.Answer.Pieces() != 2 {
		t.Errorf("usage %+v, %d pieces", u, x.Answer.Pieces())
	}
	if x := decide("/v1/cut", "m"); x.Fault.Kind != llmmock.CutMidEvent || x.Fault.AtToken != 2 || x.Rule != "" {
		t.Errorf("the recorded end: %+v by rule %q", x.Fault, x.Rule)
	}
	if x := decide("/v1/cut", "stall"); x.Fault.Kind != llmmock.Stall || x.Rule == "" {
		t.Errorf("a fault on top: %+v", x.Fault)
	}
}
