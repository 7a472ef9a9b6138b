package rpc_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/proto/edgehold/llmmock/v1/llmmockv1connect"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/rpc"
	"edgehold.internal/services/llmmock/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

// The tokens are the names of the roles, three times.
const tokens = `
tokens:
- {name: vera, token: viewer-viewer-viewer, roles: [viewer]}
- {name: olga, token: operator-operator-operator, roles: [operator]}
- {name: runbooks, token: automation-automation-automation, roles: [automation]}
`

// serving is a whole mock on real listeners.
type serving struct {
	*testing.T
	operators, api string
	audit          string
	ended          chan llmmock.Report
}

// serve runs a mock until the test ends.
func serve(t *testing.T, c run.Config) *serving {
	t.Helper()
	dir := t.TempDir()
	s := &serving{T: t, audit: filepath.Join(dir, "audit"), ended: make(chan llmmock.Report, 1)}
	c.Service.TokensFile = filepath.Join(dir, "tokens.yaml")
	if err := os.WriteFile(c.Service.TokensFile, []byte(tokens), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Service.Name, c.Service.Log, c.Service.AuditLog, c.API = "llmmock", io.Discard, s.audit, "127.0.0.1:0"
	c.Ended = func(r llmmock.Report) { s.ended <- r }
	ctx, cancel := context.WithCancel(context.Background())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run.Run(ctx, c, out)
		out.CloseWithError(err)
		done <- err
	}()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	line, err := bufio.NewReader(in).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var ready struct{ Address, API string }
	if err := json.Unmarshal(line, &ready); err != nil {
		t.Fatal(err)
	}
	s.operators, s.api = "http://"+ready.Address, "http://"+ready.API
	return s
}

func (s *serving) as(role string) llmmockv1connect.MockServiceClient {
	s.Helper()
	c := s.dial(role)
	return llmmockv1connect.NewMockServiceClient(c.Unary(), c.URL(), c.Options()...)
}

func (s *serving) dial(role string) *client.Client {
	s.Helper()
	c, err := client.New(client.Config{Address: s.operators, Token: strings.Join([]string{role, role, role}, "-")})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(c.Close)
	return c
}

// chat asks once; the status is 0 when the connection was reset.
func (s *serving) chat(text string, header ...string) int {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodPost, s.api+"/v1/chat/completions",
		strings.NewReader(fmt.Sprintf(`{"model":"gpt-4o","messages":[{"role":"user","content":%q}]}`, text)))
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer sk-test")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func expect(t *testing.T, err error, kind problem.Kind, says string) {
	t.Helper()
	if err == nil || problem.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v: %v\nwant %v: …%s…", problem.KindOf(err), err, kind, says)
	}
}

var (
	keys int
	all  = &llmmockv1.Scope{All: true}
)

func only(scenario string) *llmmockv1.Scope { return &llmmockv1.Scope{Scenario: scenario} }

// key is another one each time.
func key() string {
	keys++
	return fmt.Sprint("key-", keys)
}

func put(yaml string) *llmmockv1.PutScenarioRequest {
	return &llmmockv1.PutScenarioRequest{Yaml: yaml, Reason: "a test", IdempotencyKey: key()}
}

func start(scope *llmmockv1.Scope, p *llmmockv1.Phase) *llmmockv1.StartPhaseRequest {
	return &llmmockv1.StartPhaseRequest{Scope: scope, Phase: p, Reason: "a test", IdempotencyKey: key()}
}

func end(scope *llmmockv1.Scope, name string) *llmmockv1.EndPhaseRequest {
	return &llmmockv1.EndPhaseRequest{Scope: scope, Name: name, Reason: "a test", IdempotencyKey: key()}
}

func outage(name string) *llmmockv1.Phase {
	return &llmmockv1.Phase{Name: name, Kind: llmmockv1.PhaseKind_PHASE_KIND_OUTAGE}
}

// names are those in force, in their order, and where they are from.
func names(t *testing.T, m llmmockv1connect.MockServiceClient) string {
	t.Helper()
	list, err := m.ListScenarios(t.Context(), &llmmockv1.ListScenariosRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range list.GetScenarios() {
		out = append(out, fmt.Sprint(s.GetName(), " ", strings.TrimPrefix(s.GetOrigin().String(), "ORIGIN_"), " ", filepath.Base(s.GetSource())))
	}
	return strings.Join(out, ", ")
}

func TestScenarios(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "f.yaml"), "name: filed\nanswers:\n- say: filed\ntimeline:\n- {name: later, kind: outage, at: 1h}\n")
	s := serve(t, run.Config{Scenarios: []string{file}, Ready: []string{"slow-model"}})
	m := s.as("operator")
	if got, want := names(t, m), "slow-model READY ., filed FILE f.yaml:1, default BUILT_IN ."; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	dry := put("name: made\nanswers:\n- say: made\n---\nname: other\n")
	dry.DryRun, dry.Source = true, "mine.yaml"
	if got, err := m.PutScenario(t.Context(), dry); err != nil || len(got.GetResults()) != 2 || strings.Contains(names(t, m), "made") {
		t.Errorf("a dry run: %v, %v; in force are %s", got, err, names(t, m))
	}
	r := put("name: made\nmatch: {models: '*'}\nanswers:\n- say: made\n---\nname: other\n")
	r.Source = "mine.yaml"
	if _, err := m.PutScenario(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := "made API mine.yaml:1, other API mine.yaml:6, slow-model READY ., filed FILE f.yaml:1, default BUILT_IN ."
	if got := names(t, m); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s.chat("x")
	list, err := m.ListScenarios(t.Context(), &llmmockv1.ListScenariosRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if c := list.GetScenarios()[0]; c.GetTraffic().GetRequests() != 1 || c.GetTraffic().GetStatuses()[0].GetStatus() != 200 || c.GetTraffic().GetInputTokens() == 0 {
		t.Errorf("traffic %v", c)
	}
	if phases := list.GetScenarios()[3].GetPhases(); len(phases) != 1 || phases[0] != "later" {
		t.Errorf("phases %v", phases)
	}

	// The same again goes on, and the same call again is not a second one.
	if got, err := m.PutScenario(t.Context(), r); err != nil || got.GetResults()[0].GetUnchanged() {
		t.Errorf("the same key: %v, %v", got, err)
	}
	again := proto.CloneOf(r)
	again.IdempotencyKey = key()
	if got, err := m.PutScenario(t.Context(), again); err != nil || !got.GetResults()[0].GetUnchanged() {
		t.Errorf("another key: %v, %v", got, err)
	}
	again.Yaml = "name: made\n"
	if _, err := m.PutScenario(t.Context(), again); problem.KindOf(err) != problem.AlreadyExists {
		t.Errorf("the key with another payload: %v", err)
	}
	again.IdempotencyKey = key()
	if got, err := m.PutScenario(t.Context(), again); err != nil || !got.GetResults()[0].GetReplaced() {
		t.Errorf("replaced: %v, %v", got, err)
	}

	// A file that is read again takes none of them away, and one that has the name of one of them is refused.
	write(t, file, "name: filed\nanswers:\n- say: again\n")
	eventually(t, func() error {
		list, err := m.ListScenarios(t.Context(), &llmmockv1.ListScenariosRequest{})
		if err != nil || len(list.GetScenarios()[3].GetPhases()) > 0 {
			return fmt.Errorf("the file is not read again: %v, %w", list, err)
		}
		return nil
	})
	if got := names(t, m); got != want {
		t.Errorf("got  %s\nwant %s", got, strings.Replace(want, "mine.yaml:1", "yaml:1", 1))
	}
	write(t, file, "name: other\n")
	eventually(t, func() error {
		if text := s.get("/healthz"); !strings.Contains(text, "scenarios") {
			return fmt.Errorf("health says %q", text)
		}
		return nil
	})
	if got := names(t, m); got != want {
		t.Errorf("after a file that clashes: got  %s\nwant %s", got, want)
	}
	for _, name := range []string{"made", "other"} {
		if _, err := m.DeleteScenario(t.Context(), &llmmockv1.DeleteScenarioRequest{Name: name, Reason: "a test", IdempotencyKey: key()}); err != nil {
			t.Error(err)
		}
	}
	eventually(t, func() error {
		if got := names(t, m); got != "slow-model READY ., other FILE f.yaml:1, default BUILT_IN ." {
			return fmt.Errorf("in force are %s", got)
		}
		return nil
	})
}

// eventually repeats a look at files that are followed by looking at them.
func eventually(t *testing.T, look func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = look(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func (s *serving) get(path string) string {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodGet, s.operators+path, http.NoBody)
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer viewer-viewer-viewer")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}

func TestPhases(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "f.yaml"), "name: filed\ntimeline:\n- {name: later, kind: quota, at: 1h, for: 1m, match: {vendors: openai}, failure: {status: 429, retryAfter: 7s}}\n")
	s := serve(t, run.Config{Scenarios: []string{file}})
	m := s.as("automation")
	phase := &llmmockv1.Phase{Name: "down", Kind: llmmockv1.PhaseKind_PHASE_KIND_OUTAGE, For: durationpb.New(time.Hour), Share: 1,
		Match: &llmmockv1.Match{Vendors: []string{"openai"}, Models: []string{"gpt-*"}}, Failure: &llmmockv1.Failure{Status: 500, Message: "gone", RetryAfter: durationpb.New(3 * time.Second)}}
	r := start(all, phase)
	got, err := m.StartPhase(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	p := got.GetPhase()
	if !proto.Equal(p.GetPhase(), phase) || !p.GetActive() || !p.GetStarted() || p.GetScenario() != "" || p.GetEndsAt().AsTime().Sub(p.GetBeganAt().AsTime()) != time.Hour {
		t.Errorf("%v", p)
	}
	if status := s.chat("a"); status != 500 {
		t.Errorf("status %d in an outage", status)
	}
	if _, err := m.EndPhase(t.Context(), end(all, "down")); err != nil {
		t.Fatal(err)
	}
	if status := s.chat("a"); status != 200 {
		t.Errorf("status %d after it", status)
	}
	// The first call is repeated, by who did not hear its answer: it must not begin again.
	if again, err := m.StartPhase(t.Context(), r); err != nil || !proto.Equal(again, got) {
		t.Errorf("repeated: %v, %v", again, err)
	}
	if status := s.chat("a"); status != 200 {
		t.Errorf("status %d: a call that was repeated began the phase again", status)
	}

	// One that is declared.
	if got, err = m.StartPhase(t.Context(), start(only("filed"), &llmmockv1.Phase{Name: "later"})); err != nil {
		t.Fatal(err)
	}
	if f := got.GetPhase().GetPhase().GetFailure(); f.GetRetryAfter().AsDuration() != 7*time.Second || got.GetPhase().GetPhase().GetKind() != llmmockv1.PhaseKind_PHASE_KIND_QUOTA {
		t.Errorf("%v", got)
	}
	if status := s.chat("a"); status != 429 {
		t.Errorf("status %d in a declared quota", status)
	}
	list, err := m.ListPhases(t.Context(), &llmmockv1.ListPhasesRequest{})
	if err != nil || len(list.GetPhases()) != 2 || !list.GetPhases()[0].GetActive() || list.GetPhases()[1].GetActive() || list.GetPhases()[1].GetNextAt() == nil {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := m.EndPhase(t.Context(), end(only("filed"), "later")); err != nil {
		t.Fatal(err)
	}
	if status := s.chat("a"); status != 200 {
		t.Errorf("status %d after it", status)
	}
}

func TestReport(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "f.yaml"), "name: filed\nfaults:\n- {when: {first: 1}, do: {status: 429, retryAfter: 30s}}\n")
	s := serve(t, run.Config{Scenarios: []string{file}})
	m := s.as("viewer")
	for i := range 3 {
		for range 2 {
			s.chat(fmt.Sprint("x", i), "X-Edgehold-Client", "hasty \xff", "X-Edgehold-Run", "r1")
		}
	}
	s.chat("x", "X-Edgehold-Client", "calm", "X-Edgehold-Run", "r2")
	got, err := m.GetReport(t.Context(), &llmmockv1.GetReportRequest{Run: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.GetClients()) != 1 {
		t.Fatalf("%v", got)
	}
	c := got.GetClients()[0]
	if c.GetClient() != "hasty \uFFFD" || c.GetRequests() != 6 || c.GetRetries() != 3 || c.GetDistinct() != 3 || c.GetAmplification() != 2 || c.GetServed() != 3 || c.GetFailed() != 3 || c.WorstAmplification != nil {
		t.Errorf("%v", c)
	}
	if f := c.GetFindings(); len(f) != 1 || f[0].GetName() != "ignored_retry_after" || f[0].GetCount() != 3 || len(f[0].GetEvidence()) != 3 || !strings.Contains(f[0].GetEvidence()[0].GetText(), "told it to wait 30s") {
		t.Errorf("%v", f)
	}
	// It comes back as it was.
	report := rpc.FromReport(got)
	if back := rpc.ToReport(&report); !proto.Equal(got, back) {
		t.Errorf("got back\n%v\nof\n%v", back, got)
	}
	for _, tc := range []struct {
		r    *llmmockv1.GetReportRequest
		want int
	}{{&llmmockv1.GetReportRequest{}, 2}, {&llmmockv1.GetReportRequest{Client: "c*"}, 1}, {&llmmockv1.GetReportRequest{Client: "c*", Run: "r1"}, 0}, {&llmmockv1.GetReportRequest{Run: "r3"}, 0}} {
		if got, err := m.GetReport(t.Context(), tc.r); err != nil || len(got.GetClients()) != tc.want {
			t.Errorf("%v: %v, %v, want %d", tc.r, got, err, tc.want)
		}
	}
	if _, err := s.as("operator").ForgetRun(t.Context(), &llmmockv1.ForgetRunRequest{Run: "r1", Reason: "a test", IdempotencyKey: key()}); err != nil {
		t.Fatal(err)
	}
	if got, err := m.GetReport(t.Context(), &llmmockv1.GetReportRequest{}); err != nil || len(got.GetClients()) != 1 || got.GetClients()[0].GetClient() != "calm" {
		t.Errorf("after it was forgotten: %v, %v", got, err)
	}
}

func TestSavings(t *testing.T) {
	prices := write(t, filepath.Join(t.TempDir(), "prices.yaml"), "source: a list\ndate: 2026-01-31\nmodels:\n- {model: gpt-4o, input: 1000, output: 2000}\n")
	s := serve(t, run.Config{Prices: prices})
	m := s.as("viewer")
	s.chat("x")
	got, err := m.GetSavings(t.Context(), &llmmockv1.GetSavingsRequest{Cost: &llmmockv1.Cost{RunsPerYear: 250}})
	if err != nil {
		t.Fatal(err)
	}
	u := got.GetUses()[0]
	// A thousand dollars for a million is a million billionths for one.
	want := u.GetUsage().GetInput()*1e6 + u.GetUsage().GetOutput()*2e6
	v := got.GetSavings()
	if u.GetVendor() != "openai" || u.GetModel() != "gpt-4o" || u.GetRequests() != 1 || want == 0 || u.GetCostNanousd() != want || v.GetLiveNanousd() != want || v.GetSavedNanousd() != want || v.GetYearNanousd() != 250*want {
		t.Errorf("want %d, got %v", want, got)
	}
	if len(v.GetInputs()) < 5 || v.GetFormula() == "" || v.GetInputs()[1].GetSource() != "a list, 2026-01-31" {
		t.Errorf("inputs %v", v.GetInputs())
	}
	// A machine that costs more than it saves is told as that.
	if got, err = m.GetSavings(t.Context(), &llmmockv1.GetSavingsRequest{Cost: &llmmockv1.Cost{HourUsd: 1e6}}); err != nil || got.GetSavings().GetSavedNanousd() >= 0 {
		t.Errorf("%v, %v", got.GetSavings(), err)
	}
}

func TestWatchers(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "f.yaml"), "name: filed\ntimeline:\n- {name: later, kind: outage, at: 1h}\n")
	s := serve(t, run.Config{Scenarios: []string{file}})
	c := s.dial("viewer")
	streams := llmmockv1connect.NewMockServiceClient(c.Stream(), c.URL(), c.Options()...)
	watch := func(ctx context.Context) (*llmmockv1.WatchResponse, error, func() (*llmmockv1.WatchResponse, error)) {
		stream, err := streams.Watch(ctx, &llmmockv1.WatchRequest{})
		if err != nil {
			return nil, err, nil
		}
		next := func() (*llmmockv1.WatchResponse, error) {
			if !stream.Receive() {
				return nil, stream.Err()
			}
			return stream.Msg(), nil
		}
		first, err := next()
		return first, err, next
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, err, next := watch(ctx)
	if err != nil || first.RequestsPerSecond != nil || len(first.GetScenarios()) != 2 || len(first.GetPhases()) != 1 {
		t.Fatalf("%v, %v", first, err)
	}
	for range 5 {
		s.chat("x")
	}
	for later := first; later.GetTraffic().GetRequests() < 5; {
		if later, err = next(); err != nil || later.RequestsPerSecond == nil || later.GetClients() != 1 {
			t.Fatalf("%v, %v", later, err)
		}
	}
	for range rpc.MaxWatchers - 1 {
		if _, err, _ := watch(ctx); err != nil {
			t.Fatal(err)
		}
	}
	_, err, _ = watch(ctx)
	expect(t, err, problem.ResourceExhausted, "100 watch this mock")
	cancel()
	eventually(t, func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err, _ := watch(ctx)
		return err
	})
}

func TestWhoMayDoWhat(t *testing.T) {
	s := serve(t, run.Config{})
	viewer, nobody := s.as("viewer"), s.as("nobody")
	_, err := viewer.PutScenario(t.Context(), put("name: x\n"))
	expect(t, err, problem.PermissionDenied, "viewer")
	_, err = viewer.StartDrill(t.Context(), &llmmockv1.StartDrillRequest{Scope: all, Phase: outage("p"), Reason: "x", IdempotencyKey: "k"})
	expect(t, err, problem.PermissionDenied, "viewer")
	_, err = nobody.GetReport(t.Context(), &llmmockv1.GetReportRequest{})
	expect(t, err, problem.Unauthenticated, "")
	if _, err := viewer.ListDrills(t.Context(), &llmmockv1.ListDrillsRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := s.as("operator").StartPhase(t.Context(), start(all, outage("p"))); err != nil {
		t.Error(err)
	}
	// The audit log has what was done, and what was refused.
	lines, err := os.ReadFile(s.audit)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"principal":"olga"`, `"code":"permission_denied"`, `"procedure":"/edgehold.llmmock.v1.MockService/StartPhase"`} {
		if !bytes.Contains(lines, []byte(want)) {
			t.Errorf("%s is not in the audit log\n%s", want, lines)
		}
	}
}

// Each bad input has its code, and a sentence with the field.
func TestBadInput(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "f.yaml"), "name: filed\ntimeline:\n- {name: later, kind: outage, at: 1h}\n")
	s := serve(t, run.Config{Scenarios: []string{file}})
	m := s.as("operator")
	if _, err := m.StartDrill(t.Context(), &llmmockv1.StartDrillRequest{Name: "taken", Scope: all, Phase: outage("taken"), Reason: "x", IdempotencyKey: key()}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2000)
	phase := func(alter func(p *llmmockv1.Phase)) error {
		p := outage("p")
		alter(p)
		_, err := m.StartPhase(t.Context(), start(all, p))
		return err
	}
	scope := func(s *llmmockv1.Scope, name string) error {
		_, err := m.StartPhase(t.Context(), start(s, outage(name)))
		return err
	}
	yaml := func(text string) error {
		_, err := m.PutScenario(t.Context(), put(text))
		return err
	}
	drill := func(alter func(r *llmmockv1.StartDrillRequest)) error {
		r := &llmmockv1.StartDrillRequest{Name: "d", Scope: all, Phase: outage("d"), Reason: "x", IdempotencyKey: key()}
		alter(r)
		_, err := m.StartDrill(t.Context(), r)
		return err
	}
	other := func(call func(ctx context.Context) error) error { return call(t.Context()) }
	for i, tc := range []struct {
		err  error
		kind problem.Kind
		says string
	}{
		{yaml(""), problem.Invalid, "yaml"},
		{yaml("# nothing\n"), problem.Invalid, "there is no scenario in what was read"},
		{yaml("a: [\n"), problem.Invalid, "yaml:1:1: is no YAML"},
		{yaml("name: x\nlatency:\n  firstTokn: 5ms\nanswers: 7\n"), problem.Invalid, "yaml: yaml:3:3: latency.firstTokn: is not known"},
		{yaml("name: x\nlatency:\n  firstTokn: 5ms\nanswers: 7\n"), problem.Invalid, "\nyaml:4:10: answers[0]: 7 is not allowed"},
		{yaml("name: x\nanswers:\n- lorem: 100001\n"), problem.Invalid, "answers[0].lorem"},
		{yaml("name: x\nanswers:\n- say: '{{.Nope}}'\n"), problem.Invalid, "answers[0].say"},
		{yaml("name: x\n---\nname: x\n"), problem.Invalid, "yaml:1"},
		{yaml("name: x\nanswers:\n- echo: true\n- play: /etc/passwd\n"), problem.Invalid, "yaml: yaml:1: answers[1].play: a recording is a file"},
		{yaml("name: filed\n"), problem.AlreadyExists, "f.yaml:1"},
		{yaml("name: " + long + "\n"), problem.Invalid, "name"},
		{other(func(ctx context.Context) error {
			_, err := m.PutScenario(ctx, &llmmockv1.PutScenarioRequest{Yaml: "name: x\n", IdempotencyKey: key()})
			return err
		}), problem.Invalid, "reason"},
		{other(func(ctx context.Context) error {
			_, err := m.PutScenario(ctx, &llmmockv1.PutScenarioRequest{Yaml: "name: x\n", Reason: "x"})
			return err
		}), problem.Invalid, "idempotency_key"},
		{other(func(ctx context.Context) error {
			_, err := m.DeleteScenario(ctx, &llmmockv1.DeleteScenarioRequest{Name: "filed", Reason: "x", IdempotencyKey: key()})
			return err
		}), problem.FailedPrecondition, "f.yaml:1"},
		{other(func(ctx context.Context) error {
			_, err := m.DeleteScenario(ctx, &llmmockv1.DeleteScenarioRequest{Name: "nope", Reason: "x", IdempotencyKey: key()})
			return err
		}), problem.NotFound, "name: there is no scenario"},
		{other(func(ctx context.Context) error {
			_, err := m.RestartScenario(ctx, &llmmockv1.RestartScenarioRequest{Reason: "x", IdempotencyKey: key()})
			return err
		}), problem.Invalid, "scope"},
		{other(func(ctx context.Context) error {
			_, err := m.RestartScenario(ctx, &llmmockv1.RestartScenarioRequest{Scope: only("nope"), Reason: "x", IdempotencyKey: key()})
			return err
		}), problem.NotFound, "scope.scenario: there is no scenario"},
		{scope(nil, "p"), problem.Invalid, "scope"},
		{scope(&llmmockv1.Scope{}, "p"), problem.Invalid, "an empty scope selects nothing"},
		{scope(&llmmockv1.Scope{All: true, Scenario: "filed"}, "p"), problem.Invalid, "not both"},
		{scope(only("nope"), "p"), problem.NotFound, "scope.scenario: there is no scenario"},
		{scope(all, ""), problem.Invalid, "phase.name"},
		{scope(all, long), problem.Invalid, "phase.name"},
		{phase(func(p *llmmockv1.Phase) { p.Kind = 99 }), problem.Invalid, "phase.kind"},
		{phase(func(p *llmmockv1.Phase) { p.Kind = 0 }), problem.NotFound, `phase.name: no timeline has a phase "p"; there is later`},
		{phase(func(p *llmmockv1.Phase) { p.Kind, p.Share = 0, 0.5 }), problem.Invalid, "phase.kind: is not set, and terms are"},
		{phase(func(p *llmmockv1.Phase) { p.Share = 1.5 }), problem.Invalid, "phase.share"},
		{phase(func(p *llmmockv1.Phase) { p.Slow = 3 }), problem.Invalid, "phase.slow: 3 is not allowed in outage"},
		{phase(func(p *llmmockv1.Phase) { p.For = durationpb.New(-1) }), problem.Invalid, "phase.for"},
		{phase(func(p *llmmockv1.Phase) { p.Every = durationpb.New(time.Second) }), problem.Invalid, "phase.for: 0s is not allowed in a phase that comes every 1s"},
		{phase(func(p *llmmockv1.Phase) { p.Failure = &llmmockv1.Failure{Status: 200} }), problem.Invalid, "phase.failure.status"},
		{phase(func(p *llmmockv1.Phase) { p.Match = &llmmockv1.Match{Vendors: []string{"nope"}} }), problem.Invalid, "phase.match.vendors[0]"},
		{phase(func(p *llmmockv1.Phase) { p.Match = &llmmockv1.Match{Models: []string{""}} }), problem.Invalid, "phase.match.models[0]"},
		{phase(func(p *llmmockv1.Phase) { p.Regions = []string{long} }), problem.Invalid, "phase.regions[0]"},
		{phase(func(p *llmmockv1.Phase) { p.Name = "taken"; p.Share = 0.5 }), problem.AlreadyExists, "phase.name: a phase \"taken\" with other terms"},
		{other(func(ctx context.Context) error { _, err := m.EndPhase(ctx, end(all, "nope")); return err }), problem.NotFound, "name: no phase"},
		{other(func(ctx context.Context) error { _, err := m.EndPhase(ctx, end(nil, "nope")); return err }), problem.Invalid, "scope"},
		{other(func(ctx context.Context) error {
			_, err := m.ForgetRun(ctx, &llmmockv1.ForgetRunRequest{Reason: "x", IdempotencyKey: key()})
			return err
		}), problem.Invalid, "an empty run selects nothing"},
		{other(func(ctx context.Context) error {
			_, err := m.GetSavings(ctx, &llmmockv1.GetSavingsRequest{Cost: &llmmockv1.Cost{HourUsd: -1}})
			return err
		}), problem.Invalid, "cost.hour_usd"},
		{drill(func(r *llmmockv1.StartDrillRequest) { r.Name = "taken" }), problem.AlreadyExists, `name: a drill "taken" is followed`},
		{drill(func(r *llmmockv1.StartDrillRequest) { r.Phase = nil }), problem.Invalid, "phase"},
		{drill(func(r *llmmockv1.StartDrillRequest) { r.Scope = only("nope") }), problem.NotFound, "scope.scenario"},
		{drill(func(r *llmmockv1.StartDrillRequest) { r.Patience = durationpb.New(2 * time.Hour) }), problem.Invalid, "patience"},
		{drill(func(r *llmmockv1.StartDrillRequest) { r.Phase.Kind = 0 }), problem.NotFound, "phase.name: no timeline has a phase"},
		{other(func(ctx context.Context) error {
			_, err := m.EndDrill(ctx, &llmmockv1.EndDrillRequest{Name: "nope", Reason: "x", IdempotencyKey: key()})
			return err
		}), problem.NotFound, "name: there is no drill"},
		{other(func(ctx context.Context) error {
			_, err := m.GetScorecard(ctx, &llmmockv1.GetScorecardRequest{Name: "nope"})
			return err
		}), problem.NotFound, "name: there is no drill"},
	} {
		t.Run(fmt.Sprint(i, " ", tc.says), func(t *testing.T) { expect(t, tc.err, tc.kind, tc.says) })
	}
	if list, err := m.ListPhases(t.Context(), &llmmockv1.ListPhasesRequest{}); err != nil || len(list.GetPhases()) != 2 {
		t.Errorf("what was refused left something behind: %v, %v", list, err)
	}
}

// A mock that has ended tells its verdict.
func TestEnded(t *testing.T) {
	var s *serving
	t.Run("", func(t *testing.T) {
		s = serve(t, run.Config{})
		s.chat("x", "X-Edgehold-Client", "last")
	})
	if r := <-s.ended; len(r.Clients) != 1 || r.Clients[0].Client != "last" || r.Clients[0].Served != 1 {
		t.Errorf("%+v", r)
	}
}
