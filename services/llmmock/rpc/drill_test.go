package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
	"google.golang.org/protobuf/types/known/durationpb"

	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/services/llmmock/run"
)

// assistant is a program as people write it: OpenAI first, and Anthropic when that does not answer. It counts what it does, to be held
// against what the mock makes of it.
type assistant struct {
	primary  openai.Client
	fallback anthropic.Client

	mu sync.Mutex
	tally
}

// tally is what a program counts of itself.
type tally struct {
	sent                    int // requests, the retries of the vendors' clients too
	refused                 int // of them that failed
	asked, served, switched int
	firstRefused, firstElse time.Time
	back                    time.Time           // the primary is
	firstServed             time.Time           // by it, then
	tokens                  map[string][2]int64 // of prompts and answers, by model
}

// sees counts each request that goes out, for that is what a vendor's client hides.
func (a *assistant) sees(fallback bool) func(*http.Request, func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	return func(r *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		a.mu.Lock()
		a.sent++
		if fallback && a.firstElse.IsZero() {
			a.firstElse = time.Now()
		}
		a.mu.Unlock()
		res, err := next(r)
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case err != nil || res.StatusCode >= 400:
			a.refused++
			if a.firstRefused.IsZero() {
				a.firstRefused = time.Now()
			}
		case !fallback && !a.back.IsZero() && a.firstServed.IsZero():
			a.firstServed = time.Now()
		}
		return res, err
	}
}

func newAssistant(s *serving) *assistant {
	a := new(assistant)
	hc := &http.Client{Transport: &http.Transport{}}
	s.Cleanup(hc.CloseIdleConnections)
	a.primary = openai.NewClient(openaioption.WithBaseURL(s.api+"/v1"), openaioption.WithAPIKey("sk-drill"), openaioption.WithHTTPClient(hc),
		openaioption.WithHeader("X-Edgehold-Client", "assistant"), openaioption.WithMaxRetries(1), openaioption.WithMiddleware(a.sees(false)))
	a.fallback = anthropic.NewClient(anthropicoption.WithBaseURL(s.api), anthropicoption.WithAPIKey("sk-drill"), anthropicoption.WithHTTPClient(hc),
		anthropicoption.WithHeader("X-Edgehold-Client", "assistant"), anthropicoption.WithMaxRetries(0), anthropicoption.WithMiddleware(a.sees(true)))
	return a
}

func (a *assistant) used(model string, in, out int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.served++
	if a.tokens != nil {
		t := a.tokens[model]
		a.tokens[model] = [2]int64{t[0] + in, t[1] + out}
	}
}

// ask gets an answer from whoever gives one.
func (a *assistant) ask(ctx context.Context, text string) error {
	a.mu.Lock()
	a.asked++
	a.mu.Unlock()
	c, err := a.primary.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: openai.ChatModelGPT4o, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}})
	if err == nil {
		a.used("gpt-4o", c.Usage.PromptTokens, c.Usage.CompletionTokens)
		return nil
	}
	var refused *openai.Error
	if !errors.As(err, &refused) || refused.StatusCode < 500 {
		return err
	}
	a.mu.Lock()
	a.switched++
	a.mu.Unlock()
	m, err := a.fallback.Messages.New(ctx, anthropic.MessageNewParams{Model: anthropic.ModelClaudeHaiku4_5, MaxTokens: 100, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(text))}})
	if err != nil {
		return err
	}
	a.used("claude-haiku-4-5", m.Usage.InputTokens, m.Usage.OutputTokens)
	return nil
}

// A failover drill from its beginning to its scorecard, with the vendors' own clients: each figure of the card is one that the client
// program counted itself.
func TestFailoverDrill(t *testing.T) {
	dir := t.TempDir()
	scenario := write(t, filepath.Join(dir, "s.yaml"), "name: drilled\nanswers:\n- lorem: 20\n")
	prices := write(t, filepath.Join(dir, "p.yaml"), "source: a list\ndate: 2026-01-31\nmodels:\n- {model: gpt-4o, input: 2.5, output: 10}\n- {model: 'claude-haiku-*', input: 1, output: 5}\n")
	s := serve(t, run.Config{Scenarios: []string{scenario}, Prices: prices})
	m := s.as("automation")
	a := newAssistant(s)
	ask := func(text string) {
		t.Helper()
		if err := a.ask(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	ask("before the drill")
	a.tally = tally{tokens: map[string][2]int64{}}

	began := time.Now()
	if _, err := m.StartDrill(t.Context(), &llmmockv1.StartDrillRequest{Name: "openai-down", Scope: only("drilled"), Reason: "rehearsal of a failover", IdempotencyKey: key(),
		Phase: &llmmockv1.Phase{Name: "down", Kind: llmmockv1.PhaseKind_PHASE_KIND_OUTAGE, Match: &llmmockv1.Match{Vendors: []string{"openai"}}}, Patience: durationpb.New(time.Minute), Cost: &llmmockv1.Cost{RunsPerYear: 12}}); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	// Four at the same time, and three in turn.
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			if err := a.ask(t.Context(), fmt.Sprint("question ", i)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i := range 3 {
		ask(fmt.Sprint("another ", i))
	}
	// One that gives up: it has no fallback, and is lost.
	_, err := a.primary.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{Model: openai.ChatModelGPT4o, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("lost")}})
	if err == nil {
		t.Fatal("OpenAI answers in its outage")
	}
	ended := time.Now()
	if _, err := m.EndDrill(t.Context(), &llmmockv1.EndDrillRequest{Name: "openai-down", Reason: "enough", IdempotencyKey: key()}); err != nil {
		t.Fatal(err)
	}
	over := time.Now()
	a.back = over
	ask("after the outage")
	got, err := m.GetScorecard(t.Context(), &llmmockv1.GetScorecardRequest{Name: "openai-down"})
	if err != nil {
		t.Fatal(err)
	}
	card := got.GetScorecard()
	if got.GetDrill().GetState() != llmmockv1.DrillState_DRILL_STATE_RECOVERY || got.GetDrill().GetPrincipal() != "runbooks" || got.GetDrill().GetReason() != "rehearsal of a failover" {
		t.Errorf("drill %v", got.GetDrill())
	}

	// What was counted.
	asks := a.asked + 1
	for _, c := range []struct {
		what      string
		got, want int64
	}{
		{"requests", card.GetRequests(), int64(a.sent)},
		{"asks", card.GetAsks(), int64(asks)},
		{"failed", card.GetFailed(), int64(a.refused)},
		{"diverted", card.GetDiverted(), int64(a.switched)},
		// Every ask in the outage failed twice at OpenAI, for its client tries again once, and then went elsewhere or was given up.
		{"retried", card.GetRetried(), int64(a.refused/2 + a.switched)},
		{"lost", card.GetLost(), int64(asks - a.served)},
		{"lost, and that is", card.GetLost(), 1},
		{"duplicated", card.GetDuplicated(), 0},
		{"slow", card.GetSlow(), 0},
		{"pending", card.GetPending(), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, and the client counted %d", c.what, c.got, c.want)
		}
	}
	if want := float64(a.sent) / float64(asks); math.Abs(card.GetAmplification()-want) > 1e-9 {
		t.Errorf("amplification %g, and the client's is %g", card.GetAmplification(), want)
	}

	// What was timed: the mock's clock is between the moments that the client saw around it.
	within := func(what string, d *durationpb.Duration, least, most time.Duration) {
		t.Helper()
		if d == nil || d.AsDuration() < least || d.AsDuration() > most {
			t.Errorf("%s %v, and the client saw it between %s and %s", what, d, least, most)
		}
	}
	within("felt", card.GetFelt(), 0, a.firstRefused.Sub(began))
	within("detect", card.GetDetect(), a.firstElse.Sub(started), a.firstElse.Sub(began)+slack)
	// The lost one was the last to wait, and it failed before the end; what came after it was served.
	within("recover", card.GetRecover(), a.firstElse.Sub(started), ended.Sub(began))
	within("return", card.GetReturn(), 0, a.firstServed.Sub(ended))

	// What it would have cost.
	live := int64(0)
	for model, price := range map[string][2]int64{"gpt-4o": {2500, 10000}, "claude-haiku-4-5": {1000, 5000}} { // billionths of a dollar for a token
		live += a.tokens[model][0]*price[0] + a.tokens[model][1]*price[1]
	}
	if v := card.GetSavings(); v.GetLiveNanousd() != live || live == 0 || v.GetSavedNanousd() != live || v.GetYearNanousd() != 12*live || len(v.GetUnpriced()) > 0 {
		t.Errorf("live %d, saved %d, %d in a year; by the client's own counts of tokens it is %d", v.GetLiveNanousd(), v.GetSavedNanousd(), v.GetYearNanousd(), live)
	}

	// Its verdict: the vendors' clients did nothing wrong.
	report, err := m.GetReport(t.Context(), &llmmockv1.GetReportRequest{Client: "assistant"})
	if err != nil || len(report.GetClients()) != 1 || len(report.GetClients()[0].GetFindings()) > 0 {
		t.Errorf("%v, %v", report, err)
	}
}

// slack is between the moment that the client sends and the one in which the mock sees it.
const slack = 5 * time.Second
