package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/services/llmmock"
)

// mocked is a mock that runs in this process, started as a person does.
type mocked struct {
	*testing.T
	api, operators string
	// stop is Ctrl-C, once.
	stop func() ending
}

// ending is how a command did.
type ending struct {
	exit      int
	out, diag string
}

var address = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

// runMock runs `edgehold mock run` on free ports, until stop or the test's end.
func runMock(t *testing.T, args ...string) *mocked {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	root := Command("test")
	in, out := io.Pipe()
	var diag bytes.Buffer
	root.SetOut(out)
	root.SetErr(&diag)
	root.SetArgs(append([]string{"mock", "run", "--listen", "127.0.0.1:0"}, args...))
	exit := make(chan int, 1)
	go func() { exit <- Main(ctx, root); out.Close() }()
	var seen bytes.Buffer
	lines := bufio.NewReader(io.TeeReader(in, &seen))
	m := &mocked{T: t}
	for m.operators == "" {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("%v: %s%s", err, seen.String(), diag.String())
		}
		if found := address.FindString(line); m.api == "" {
			m.api = found
		} else if strings.Contains(line, "/metrics") {
			m.operators = found
		}
	}
	rest := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, lines); close(rest) }()
	m.stop = sync.OnceValue(func() ending {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		code := <-exit
		<-rest
		return ending{code, seen.String(), diag.String()}
	})
	t.Cleanup(func() { m.stop() })
	return m
}

func (m *mocked) ask(text string, header ...string) int {
	m.Helper()
	r, err := http.NewRequestWithContext(m.Context(), http.MethodPost, m.api+"/v1/chat/completions",
		strings.NewReader(fmt.Sprintf(`{"model":"gpt-4o","messages":[{"role":"user","content":%q}]}`, text)))
	if err != nil {
		m.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		m.Fatal(err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

// runs is a command against the mock.
func (m *mocked) runs(args ...string) (out, diag string, exit int) {
	m.Helper()
	return run(m.T, &fakeRunbooks{}, &fakeFleets{}, append(append([]string{"mock"}, args...), "--address", m.operators)...)
}

func (m *mocked) wants(exit int, says string, args ...string) string {
	m.Helper()
	out, diag, got := m.runs(args...)
	if got != exit || !strings.Contains(out+diag, says) {
		m.Errorf("%v: exit %d, want %d; %q is not in\n%s%s", args, got, exit, says, out, diag)
	}
	return out
}

// hasty is a scenario that tells clients to wait, and a client that does not.
func hasty(t *testing.T) (m *mocked, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte("name: mine\nfaults:\n- {when: {first: 1}, do: {status: 429, retryAfter: 30s}}\ntimeline:\n- {name: later, kind: quota, at: 1h}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m = runMock(t, file)
	for range 2 {
		m.ask("x", "X-Edgehold-Client", "batch", "X-Edgehold-Run", "r1")
	}
	return m, file
}

func TestMockReport(t *testing.T) {
	m, _ := hasty(t)
	out := m.wants(ExitFound, "1 finding on 1 client of 1", "report")
	want := `CLIENT  RUN  REQUESTS  RETRIES  AMPLIFIED  SERVED  FAILED  TRUNCATED  LEFT  VERDICT
batch   r1   2         1        2.00       1       1       0          0     ignored_retry_after ×1

batch in run r1
  ignored_retry_after: It came back 1 time before the time that Retry-After had told it; wait at least that long.
    `
	if !strings.HasPrefix(out, want) || !strings.Contains(out, "after status 429, which told it to wait 30s\n") {
		t.Errorf("got\n%s\nwant\n%s…", out, want)
	}
	m.wants(ExitFound, "ignored_retry_after", "report", "--run", "r1", "--client", "b*", "--fail-on", "retry_storm,ignored_retry_after")
	m.wants(ExitDone, "ignored_retry_after", "report", "--fail-on", "retry_storm")
	m.wants(ExitDone, "ignored_retry_after", "report", "--fail-on", "none")
	m.wants(ExitUsage, `--fail-on: "storm" is no finding; use any, none, or some of ignored_retry_after`, "report", "--fail-on", "storm")
	m.wants(ExitUsage, "no client of run r2 named c* has asked the mock anything", "report", "--run", "r2", "--client", "c*")
	m.wants(ExitDone, "No client has asked anything.", "report", "--run", "r2", "--fail-on", "none")
	m.wants(ExitUsage, `--output: "xml" is not a format; use table, junit or json`, "report", "-o", "xml")
	m.wants(ExitUsage, `--output: "junit" is not a format; use table or json`, "watch", "-o", "junit")

	var message llmmockv1.GetReportResponse
	if err := protojson.Unmarshal([]byte(m.wants(ExitFound, "", "report", "-o", "json")), &message); err != nil || message.GetClients()[0].GetFindings()[0].GetCount() != 1 {
		t.Errorf("%v, %v", err, &message)
	}
	var suites struct {
		Failures int `xml:"failures,attr"`
		Suite    struct {
			Name string `xml:"name,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(m.wants(ExitFound, "", "report", "-o", "junit")), &suites); err != nil || suites.Failures != 1 || suites.Suite.Name != "run r1" {
		t.Errorf("%v, %+v", err, suites)
	}
	if err := xml.Unmarshal([]byte(m.wants(ExitDone, "", "report", "-o", "junit", "--fail-on", "retry_storm")), &suites); err != nil || suites.Failures != 0 {
		t.Errorf("%v, %+v", err, suites)
	}
}

func TestMockOperators(t *testing.T) {
	m, file := hasty(t)
	for _, tc := range []struct {
		exit int
		says string
		args string
	}{
		{ExitDone, "later  mine      quota  in 1h", "phase list"},
		{ExitDone, "down   (all)     outage  on, 1m0s more  for 1m0s, 50 % of requests, vendor openai, region eu-*, status 500, retry after 3s",
			"phase start down --all --kind outage --for 1m --share 0.5 --vendor openai --region eu-* --status 500 --retry-after 3s"},
		{ExitDone, "later  mine      quota  on, until it is ended", "phase start later --scenario mine"},
		{ExitDone, `"scenario": "mine"`, "phase list -o json"},
		{ExitDone, "later has ended.", "phase end later --scenario mine"},
		{ExitDone, "{}", "phase end down --all -o json"},
		{ExitUsage, "name: no phase \"nope\"", "phase end nope --all"},
		{ExitUsage, "--scenario: name a scenario, or say --all, and not both", "phase end nope"},
		{ExitUsage, "--scenario: name a scenario, or say --all, and not both", "phase start x --kind dark --all --scenario mine"},
		{ExitUsage, "--scenario: there is no scenario \"nope\"", "phase start x --kind dark --scenario nope"},
		{ExitUsage, "NAME: is missing", "phase start --all"},
		{ExitUsage, "--kind: \"storm\" is not known", "phase start x --all --kind storm"},
		{ExitUsage, "--slow: 3 is not allowed in outage", "phase start x --all --kind outage --slow 3"},
		{ExitUsage, "--vendor: must be in list", "phase start x --all --kind outage --vendor nobody"},
		{ExitUsage, "--status: must be", "phase start x --all --kind outage --status 200"},
		{ExitUsage, "--kind: is not set, and terms are", "phase start x --all --share 0.5"},
		{ExitUsage, "--for: \"soon\" is not a length of time", "phase start x --all --kind dark --for soon"},

		{ExitDone, "mine     2         0     0s   " + file + ":1", "scenario list --running"},
		{ExitDone, `"origin": "ORIGIN_BUILT_IN"`, "scenario list -o json"},
		{ExitRefused, "is the name of a scenario from the API (" + file + ":1) and of one from " + file + ":1", "scenario put " + file},
		{ExitDone, "Begun anew.", "scenario restart --all"},
		{ExitUsage, "--scenario: name a scenario", "scenario restart"},
		{ExitRefused, "comes from " + file, "scenario delete mine"},
		{ExitUsage, "there is no scenario \"nope\"", "scenario delete nope"},
		{ExitUsage, "FILE: open /nowhere.yaml", "scenario put /nowhere.yaml"},

		{ExitDone, "There were no drills", "drill list"},
		{ExitUsage, "there were no drills", "drill report"},
		{ExitDone, "d      (all)     phase  0s   outage vendor openai", "drill start d --all --kind outage --vendor openai --patience 5s"},
		{ExitRefused, "name: a drill \"d\" is followed since", "drill start d --all --kind dark"},
		{ExitDone, "felt        never    from the phase's beginning", "drill report"},
		{ExitDone, "Live it would have cost $0.00, mocked it cost $0.00", "drill report d"},
		{ExitDone, `"state": "DRILL_STATE_PHASE"`, "drill report d -o json"},
		{ExitDone, "d      (all)     recovery", "drill end d"},
		{ExitDone, "d      (all)     closed", "drill end d --close"},
		{ExitDone, "d      (all)     closed", "drill list"},
		{ExitUsage, "there is no drill \"nope\"", "drill end nope"},

		{ExitDone, "openai  gpt-4o  1 ", "savings --hour-usd 0.5 --runs-per-year 250"},
		{ExitDone, `"formula": "year = runs`, "savings -o json"},
		{ExitUsage, "--hour-usd", "savings --hour-usd -1"},
	} {
		m.wants(tc.exit, tc.says, strings.Fields(tc.args)...)
	}
}

func TestMockScenarioPut(t *testing.T) {
	m, _ := hasty(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two, bad := file("one.yaml", "name: one\n---\nname: one-more\n"), file("two.yaml", "name: two\n"), file("bad.yaml", "name: bad\nlatency:\n  firstTokn: 5ms\n")
	m.wants(ExitDone, "one would be in force.\none-more would be in force.\ntwo would be in force.\n", "scenario", "put", one, two, "--dry-run")
	m.wants(ExitDone, "one is in force.\none-more is in force.\ntwo is in force.\n", "scenario", "put", one, two)
	m.wants(ExitDone, "two goes on as it is.", "scenario", "put", two)
	file("two.yaml", "name: two\nseed: 9\n")
	m.wants(ExitDone, "two is in force, in the place of the one before.", "scenario", "put", two)
	m.wants(ExitUsage, "bad.yaml:3:3: latency.firstTokn: is not known here", "scenario", "put", bad)
	m.wants(ExitDone, one+":3 (api)", "scenario", "list", "--running")
	m.wants(ExitDone, "two is not in force any longer.", "scenario", "delete", "two")
	m.wants(ExitUsage, "is larger than 4194304 bytes", "scenario", "put", file("large.yaml", strings.Repeat("#", 4<<20+1)))
}

func TestMockIsAway(t *testing.T) {
	for _, tc := range []struct {
		exit          int
		says, address string
	}{
		{ExitUnreachable, "mock: http://127.0.0.1:1 cannot be reached", "127.0.0.1:1"},
		{ExitUsage, `--address: "ftp://x" is not allowed: http://HOST:PORT`, "ftp://x"},
	} {
		out, diag, exit := run(t, &fakeRunbooks{}, &fakeFleets{}, "mock", "report", "--address", tc.address)
		if exit != tc.exit || !strings.Contains(diag, tc.says) {
			t.Errorf("exit %d, want %d: %s%s\nwant %s", exit, tc.exit, out, diag, tc.says)
		}
	}
}

// What a mock says when it is stopped, to people and to CI.
func TestMockRunEnds(t *testing.T) {
	dir := t.TempDir()
	scenario, junit, report := filepath.Join(dir, "s.yaml"), filepath.Join(dir, "verdict.xml"), filepath.Join(dir, "verdict.json")
	if err := os.WriteFile(scenario, []byte("name: mine\nfaults:\n- {when: {first: 1}, do: {status: 429, retryAfter: 30s}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		args  []string
		times int
		exit  int
		says  string
	}{
		{"nothing wrong", []string{"--fail-on", "any"}, 1, ExitDone, "Ctrl-C ends it.\n"},
		{"something wrong", nil, 2, ExitDone, "ignored_retry_after: It came back 1 time"},
		{"something that fails", []string{"--fail-on", "any"}, 2, ExitFound, "edgehold: 1 finding on 1 client of 1"},
		{"something else would fail", []string{"--fail-on", "retry_storm"}, 2, ExitDone, "ignored_retry_after ×1"},
		{"nobody came", []string{"--fail-on", "any"}, 0, ExitUsage, "no client has asked the mock anything"},
		{"nobody came, and nobody cares", nil, 0, ExitDone, "Ctrl-C ends it.\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := runMock(t, append(tc.args, scenario, "--junit", junit, "--report", report)...)
			for range tc.times {
				m.ask("x")
			}
			end := m.stop()
			if end.exit != tc.exit || !strings.Contains(end.out+end.diag, tc.says) {
				t.Errorf("exit %d, want %d; %q is not in\n%s%s", end.exit, tc.exit, tc.says, end.out, end.diag)
			}
			b, err := os.ReadFile(junit)
			if err != nil {
				t.Fatal(err)
			}
			var suites struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
			}
			failures := map[bool]int{true: 1}[tc.exit == ExitFound]
			if err := xml.Unmarshal(b, &suites); err != nil || suites.Failures != failures || suites.Tests != len(llmmock.Findings())*min(tc.times, 1) {
				t.Errorf("%v\n%s", err, b)
			}
			if b, err = os.ReadFile(report); err != nil {
				t.Fatal(err)
			}
			var message llmmockv1.GetReportResponse
			if err := protojson.Unmarshal(b, &message); err != nil || len(message.GetClients()) != min(tc.times, 1) {
				t.Errorf("%v\n%s", err, b)
			}
		})
	}
}

func TestMockRunRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"--operators", taken.Addr().String()}, `--operators: "` + taken.Addr().String() + `": listen tcp`},
		{[]string{"--operators", "0.0.0.0:0"}, "beyond loopback"},
		{[]string{"--junit", "/nowhere/x.xml"}, "--junit: open /nowhere/x.xml"},
		{[]string{"--fail-on", "storm"}, "--fail-on"},
		{[]string{"--prices", "/nowhere.yaml"}, "--prices"},
	} {
		out, diag, exit := run(t, &fakeRunbooks{}, &fakeFleets{}, append([]string{"mock", "run", "--listen", "127.0.0.1:0"}, tc.args...)...)
		if exit != ExitUsage || !strings.Contains(diag, tc.says) {
			t.Errorf("%v: exit %d: %s%s\nwant %s", tc.args, exit, out, diag, tc.says)
		}
	}
	for api, want := range map[string]string{"127.0.0.1:7400": "127.0.0.1:7401", "0.0.0.0:80": "127.0.0.1:81", "127.0.0.1:0": "127.0.0.1:0", "127.0.0.1:65535": "127.0.0.1:0", "x": "127.0.0.1:0"} {
		if got := portAfter(api); got != want {
			t.Errorf("beside %s operators are at %s, want %s", api, got, want)
		}
	}
}

func TestMockWatch(t *testing.T) {
	m, _ := hasty(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	root := Command("test")
	in, out := io.Pipe()
	root.SetOut(out)
	root.SetErr(t.Output())
	root.SetArgs([]string{"mock", "watch", "-o", "json", "--address", m.operators})
	exit := make(chan int, 1)
	go func() { exit <- Main(ctx, root); out.Close() }()
	lines := bufio.NewScanner(in)
	for i := range 2 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var s llmmockv1.WatchResponse
		if err := protojson.Unmarshal(lines.Bytes(), &s); err != nil || s.GetTraffic().GetRequests() != 2 || (s.RequestsPerSecond != nil) != (i > 0) || !json.Valid(lines.Bytes()) {
			t.Errorf("%v: %s", err, lines.Text())
		}
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, in) }()
	if got := <-exit; got != ExitDone {
		t.Errorf("exit %d", got)
	}
}

// snapshot is a busy mock.
func snapshot() *llmmockv1.WatchResponse {
	s := &llmmockv1.WatchResponse{At: timestamppb.New(begun.Add(time.Minute)), StartedAt: timestamppb.New(begun), RequestsPerSecond: proto.Float64(412.5), TokensPerSecond: proto.Float64(18204),
		Traffic: &llmmockv1.Traffic{Requests: 30, Open: 7, Faults: []*llmmockv1.FaultCount{{Fault: "cut", Requests: 3}, {Fault: "out", Requests: 2}}}, Clients: 2,
		Lateness: &llmmockv1.Lateness{Pieces: 9, P50: durationpb.New(80 * time.Microsecond), P99: durationpb.New(2 * time.Millisecond)}}
	for _, name := range []string{"quiet", "busy"} {
		s.Scenarios = append(s.Scenarios, &llmmockv1.Scenario{Name: name, Traffic: &llmmockv1.Traffic{}})
	}
	s.Scenarios[1].Traffic = &llmmockv1.Traffic{Requests: 30, Open: 7, InputTokens: 300, OutputTokens: 120, Faults: s.GetTraffic().GetFaults(),
		Statuses: []*llmmockv1.StatusCount{{Status: 0, Requests: 1}, {Status: 200, Requests: 20}, {Status: 429, Requests: 4}, {Status: 503, Requests: 5}}}
	s.Phases = []*llmmockv1.PhaseStatus{{Phase: &llmmockv1.Phase{Name: "down", Kind: llmmockv1.PhaseKind_PHASE_KIND_OUTAGE}, Active: true, EndsAt: timestamppb.New(begun.Add(90 * time.Second))}}
	s.Drills = []*llmmockv1.Drill{{Name: "d", State: llmmockv1.DrillState_DRILL_STATE_PHASE, BeganAt: timestamppb.New(begun)}}
	for i := range 3 {
		s.Findings = append(s.Findings, &llmmockv1.LatestFinding{Client: "batch", Finding: "retry_storm", Evidence: &llmmockv1.Evidence{At: timestamppb.New(begun), Exchange: fmt.Sprint("e", 3-i), Text: "30 requests in 10s"}})
	}
	return s
}

func viewOf(width, height int) *mockView {
	return &mockView{app: &app{now: func() time.Time { return begun.Add(time.Minute) }}, size: func() screen { return screen{width, height} }, live: true}
}

func TestMockView(t *testing.T) {
	v := viewOf(100, 30)
	at := begun.Local().Format("15:04")
	want := strings.ReplaceAll(`@:00  up 1m0s  2 clients  Ctrl-C ends the watching
412.5 requests/s  18204.0 tokens/s  7 open  30 in all  5 faults  late p50 80µs p99 2ms

PHASE  SCENARIO  KIND    WHEN          TERMS
down   (all)     outage  on, 30s more  -

DRILL  STATE  AGE
d      phase  1m

SEEN      CLIENT  FINDING      HOW
@:00  batch   retry_storm  30 requests in 10s
@:00  batch   retry_storm  30 requests in 10s
@:00  batch   retry_storm  30 requests in 10s

SCENARIO  OPEN  OK  4XX  5XX  CUT  FAULTS  INPUT  OUTPUT
busy      7     20  4    5    1    5       300    120
quiet     0     0   0    0    0    0       0      0
`, "@", at)
	// The snapshot is a minute later than what was seen.
	want = strings.Replace(want, at, begun.Add(time.Minute).Local().Format("15:04"), 1)
	if got := strings.Join(v.block(snapshot(), v.size()), "\n") + "\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	// Where it cannot be redrawn it is a line, and a finding is told once.
	s := snapshot()
	if got := v.line(s); !strings.HasSuffix(got, "412.5 requests/s  18204.0 tokens/s  7 open  30 in all  5 faults  late p50 80µs p99 2ms  phase down  retry_storm by batch ×3") {
		t.Error(got)
	}
	if got := v.line(s); strings.Contains(got, "retry_storm") {
		t.Error(got)
	}
	s.Findings = append([]*llmmockv1.LatestFinding{{Client: "web", Finding: "kept_unread", Evidence: &llmmockv1.Evidence{Exchange: "e9"}}}, s.Findings...)
	s.RequestsPerSecond, s.Lateness = nil, nil
	if got := v.line(s); !strings.HasSuffix(got, "nothing timed  phase down  kept_unread by web ×1") || !strings.Contains(got, "– requests/s") {
		t.Error(got)
	}
}

// Whatever the screen, the block is lower than it and no line is wider.
func TestMockViewFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := viewOf(rapid.IntRange(40, 250).Draw(t, "width"), rapid.IntRange(8, 80).Draw(t, "height"))
		s := snapshot()
		for range rapid.IntRange(0, 30).Draw(t, "more") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				s.Scenarios = append(s.Scenarios, s.Scenarios[1])
			case 1:
				s.Phases = append(s.Phases, s.Phases[0])
			case 2:
				s.Drills = append(s.Drills, s.Drills[0])
			case 3:
				s.Findings = append(s.Findings, s.Findings[0])
			}
		}
		lines := v.block(s, v.size())
		if len(lines) >= v.size().height {
			t.Fatalf("%d lines on a screen of %d", len(lines), v.size().height)
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > v.size().width {
				t.Fatalf("%d columns: %q", v.size().width, l)
			}
		}
	})
}
