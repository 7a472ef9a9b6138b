package page

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"edgehold.internal/libs/pkgdoc"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
)

func TestDoc(t *testing.T) { pkgdoc.Check(t, ".") }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// snapshot is the i-th second of an outage under traffic.
func snapshot(i int) *llmmockv1.WatchResponse {
	at := func(s int) *timestamppb.Timestamp { return timestamppb.New(noon.Add(time.Duration(s) * time.Second)) }
	rate, tokens := 40.0, 900.0
	traffic := &llmmockv1.Traffic{Requests: int64(40 * i), Open: 3, InputTokens: 4_000, OutputTokens: 90_000, Truncated: 2, Complete: int64(30 * i),
		Statuses: []*llmmockv1.StatusCount{{Status: 200, Requests: int64(30 * i)}, {Status: 429, Requests: int64(4 * i)}, {Status: 503, Requests: int64(5 * i)}, {Requests: int64(i)}},
		Faults:   []*llmmockv1.FaultCount{{Fault: "us-east-1 is dark", Requests: int64(5 * i)}}}
	return &llmmockv1.WatchResponse{At: at(i), StartedAt: at(-4000), Traffic: traffic, RequestsPerSecond: &rate, TokensPerSecond: &tokens, Clients: 3,
		Lateness:  &llmmockv1.Lateness{Pieces: 1200, P50: durationpb.New(50 * time.Microsecond), P90: durationpb.New(100 * time.Microsecond), P99: durationpb.New(200 * time.Microsecond)},
		Scenarios: []*llmmockv1.Scenario{{Name: "regional-outage", Description: "One region is gone for a minute.", Origin: llmmockv1.Origin_ORIGIN_READY, Source: "regional-outage.yaml:1", Traffic: traffic}},
		Phases: []*llmmockv1.PhaseStatus{{Scenario: "regional-outage", Active: true, BeganAt: at(-20), EndsAt: at(40),
			Phase: &llmmockv1.Phase{Name: "us-east-1 is dark", Kind: llmmockv1.PhaseKind_PHASE_KIND_DARK, Regions: []string{"us-east-1"}, For: durationpb.New(time.Minute)}},
			{Phase: &llmmockv1.Phase{Name: "brownout", Kind: llmmockv1.PhaseKind_PHASE_KIND_BROWNOUT, For: durationpb.New(time.Minute)}, NextAt: at(100)}},
		Drills:   []*llmmockv1.Drill{{Name: "failover", State: llmmockv1.DrillState_DRILL_STATE_PHASE, Phase: &llmmockv1.Phase{Name: "us-east-1 is dark"}, Reason: "quarterly", Principal: "ops", BeganAt: at(-20)}},
		Findings: []*llmmockv1.LatestFinding{{Client: "checkout", Run: "r1", Finding: "ignored_retry_after", Evidence: &llmmockv1.Evidence{At: at(i - 3), Text: `came back after 0.1 s, was told 2 s <script>alert("x")</script>`}}}}
}

// endless sends a snapshot at once and then the next one for each that is taken from tick, and tells left of its end.
func endless(tick <-chan time.Time, left chan<- error) Watch {
	return func(ctx context.Context, send func(*llmmockv1.WatchResponse) error) error {
		for i := 1; ; i++ {
			if err := send(snapshot(i)); err != nil {
				left <- err
				return err
			}
			select {
			case <-ctx.Done():
				left <- ctx.Err()
				return ctx.Err()
			case <-tick:
			}
		}
	}
}

func get(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func TestDocumentAndSnapshots(t *testing.T) {
	left, tick := make(chan error, 1), make(chan time.Time)
	server := httptest.NewServer(New(endless(tick, left), func(token string) bool { return token == "good" }))
	defer server.Close()

	response := get(t, server.URL)
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/html") || !strings.Contains(string(body), "<title>llmmock") {
		t.Errorf("%s %s", response.Status, response.Header)
	}
	if outside := regexp.MustCompile(`https?://`).FindAllString(strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", ""), -1); outside != nil {
		t.Errorf("the document names other hosts: %s", outside)
	}
	for _, token := range []string{"", "Bearer bad", "good"} {
		if response := get(t, server.URL, "Accept", "text/event-stream", "Authorization", token); response.StatusCode != http.StatusUnauthorized || response.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%q: %s", token, response.Status)
		}
	}
	stream := get(t, server.URL, "Accept", "text/event-stream", "Authorization", "Bearer good")
	if stream.StatusCode != http.StatusOK || stream.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(stream.Status, stream.Header)
	}
	lines := bufio.NewScanner(stream.Body)
	for i := 1; i <= 2; i++ {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var got llmmockv1.WatchResponse
		if err := protojson.Unmarshal([]byte(data), &got); !ok || err != nil || got.Traffic.Requests != int64(40*i) {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if !lines.Scan() || lines.Text() != "" {
			t.Fatalf("an event ends with %q", lines.Text())
		}
		if i == 1 {
			tick <- noon
		}
	}
	_ = stream.Body.Close()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("whoever leaves is followed on: %v", err)
	}
}

func TestAWatchThatCannotBegin(t *testing.T) {
	server := httptest.NewServer(New(func(context.Context, func(*llmmockv1.WatchResponse) error) error { return errors.New("too many watch") }, nil))
	defer server.Close()
	response := get(t, server.URL, "Accept", "text/event-stream")
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusServiceUnavailable || string(body) != "too many watch\n" {
		t.Errorf("%s %s", response.Status, body)
	}
}

// A real browser runs the document under its own policy and shows what the snapshots say.
func TestInABrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed; tools/setup-peers installs it")
	}
	// It ends after the third snapshot and has no other for a page that comes back, so that the browser finds the page at rest.
	var watched atomic.Bool
	server := httptest.NewServer(New(func(_ context.Context, send func(*llmmockv1.WatchResponse) error) error {
		if watched.Swap(true) {
			return errors.New("that was all")
		}
		for i := 1; i <= 3; i++ {
			if err := send(snapshot(i)); err != nil {
				return err
			}
		}
		return nil
	}, nil))
	defer server.Close()
	cmd := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--virtual-time-budget=2000", "--dump-dom", server.URL)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dom := string(out)
	for _, want := range []string{
		"regional-outage", "One region is gone for a minute.", "503 × 15", "us-east-1 is dark × 15", // scenarios
		"120 since the start", "late at p99", ">200<", // tiles
		"37 s left", "ignored retry after", "&lt;script&gt;alert", "under way", `fill="var(--limited)"`,
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if t.Failed() {
		t.Log(dom[strings.Index(dom, "<main>"):strings.Index(dom, "<script>")])
	}
}
