package report_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edge/load"
	"edgehold.internal/tools/edge/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

var command = time.Date(2026, 3, 2, 14, 5, 9, 250e6, time.UTC)

func ptr[T any](v T) *T { return &v }

var places = []string{"fra", "ams", "lhr", "cdg", "mad", "waw", "arn", "iad", "ord", "dfw", "sjc", "sea", "gru", "eze", "jnb", "bom", "sin", "hkg", "nrt", "icn", "syd"}

// rollback makes an input as a run of some seconds gives it: green is the bad colour and answers 30 % of its requests badly.
func rollback(pops int) report.Input {
	rng := rand.New(rand.NewPCG(7, 11))
	const bucket, before, after = 100 * time.Millisecond, 12 * time.Second, 9 * time.Second
	started := command.Add(-before)
	in := report.Input{
		Operation: "rollback-edge-7", Principal: "local", Reason: "error rate of v2 in all PoPs", Command: command, Clusters: 3, ParityMin: ptr(1.0),
		Load: load.Result{
			Started: started, Stopped: command.Add(after), Bucket: bucket, Slice: bucket, FailedByReason: map[load.Reason]int64{},
		},
	}
	latencies := func(ms int) load.Histogram {
		var h load.Histogram
		if err := json.Unmarshal(fmt.Appendf(nil, "[[%d,300],[%d,4]]", 180+ms, 260+ms), &h); err != nil {
			panic(err)
		}
		return h
	}
	for i := range int((before + after) / bucket) {
		in.Load.Latencies = append(in.Load.Latencies, latencies(i/120*4))
	}
	for i := range pops {
		switched := time.Duration(180+rng.IntN(420)) * time.Millisecond
		drained := switched + time.Duration(900+rng.IntN(1900))*time.Millisecond
		name := places[i%len(places)] + fmt.Sprint(1+i/len(places))
		in.Pops = append(in.Pops, report.Pop{
			Name: name, Region: []string{"eu", "us", "ap"}[i%3], Cluster: fmt.Sprintf("cluster-%d", 1+i%3), From: "green", To: "blue",
			Declared: command.Add(switched - 90*time.Millisecond), Switched: command.Add(switched),
			Settled: command.Add(switched + 60*time.Millisecond), Drained: command.Add(drained),
			ConnectionsDrained: ptr(int64(8 + rng.IntN(5))), ConnectionsReset: ptr(int64(0)), RolledBack: true, Outcome: "Completed",
		})
		green := load.Colour{Name: "green", Versions: []string{"v2"}, First: started, Last: command.Add(drained - 200*time.Millisecond)}
		blue := load.Colour{Name: "blue", Versions: []string{"v1"}, First: command.Add(switched), Last: in.Load.Stopped}
		if i%5 != 4 {
			green.Steps = []load.Step{{Opened: started, Last: green.Last}, {Opened: command.Add(switched + 20*time.Millisecond), Last: command.Add(switched + time.Duration(40+rng.IntN(90))*time.Millisecond)}}
		} else {
			green.Steps = []load.Step{{Opened: started, Last: green.Last}}
		}
		for k := range int((before + after) / bucket) {
			at := time.Duration(k)*bucket - before
			share := 1.0
			if at >= switched {
				share = max(0, 0.8*(1-float64(at-switched)/float64(drained-switched)))
			}
			g, b := 0, 0
			for range 14 + rng.IntN(8) {
				switch {
				case rng.Float64() >= share:
					blue.Good++
					b++
				default:
					g++
				}
			}
			faulty := 0
			if at > -9*time.Second {
				for range g {
					if rng.Float64() < 0.3 {
						faulty++
					}
				}
			}
			green.Good += int64(g - faulty)
			green.Bad += int64(faulty)
			green.GoodOver = append(green.GoodOver, uint32(g-faulty))
			green.BadOver = append(green.BadOver, uint32(faulty))
			blue.GoodOver = append(blue.GoodOver, uint32(b))
		}
		t := load.TargetResult{
			Target: load.Target{Pop: name, Address: fmt.Sprintf("127.0.0.%d:8080", 1+i%250)}, LastOpened: in.Load.Stopped,
			Good: green.Good + blue.Good, Bad: green.Bad, Requests: green.Good + green.Bad + blue.Good, Colours: []load.Colour{green, blue},
		}
		in.Load.Targets = append(in.Load.Targets, t)
		in.Load.Requests += t.Requests
		in.Load.Good += t.Good
		in.Load.Bad += t.Bad
	}
	return in
}

// troubled is a rollback in which one PoP could not be reached and another failed some requests.
func troubled(pops int) report.Input {
	in := rollback(pops)
	p := &in.Pops[1]
	*p = report.Pop{Name: p.Name, Region: p.Region, Cluster: p.Cluster, From: "green", To: "blue", Outcome: "Unreachable",
		Message: "the API server of cluster-2 did not answer within 5 s; start it and ask again"}
	old := &in.Load.Targets[1].Colours[0]
	blue := &in.Load.Targets[1].Colours[1]
	for i := range old.GoodOver {
		if i < len(blue.GoodOver) {
			old.GoodOver[i] += blue.GoodOver[i]
			blue.GoodOver[i] = 0
		}
	}
	t := &in.Load.Targets[2]
	t.FailedOver = make([]uint32, 128)
	for i, reason := range []load.Reason{load.EOF, load.EOF, load.CutShort} {
		t.FailedOver[123+i]++
		t.Failed++
		t.Requests++
		in.Load.Requests++
		in.Load.Failed++
		in.Load.FailedByReason[reason]++
		in.Load.Failures = append(in.Load.Failures, load.Failure{
			Pop: t.Pop, Kind: load.KindKept, Reason: reason, Detail: "closed before the answer began", Colour: map[bool]string{true: "green"}[reason == load.CutShort],
			Intended: command.Add(300 * time.Millisecond), Sent: command.Add(301 * time.Millisecond), Failed: command.Add(time.Duration(310+100*i) * time.Millisecond),
			Opened: command.Add(-4 * time.Second), Served: 41,
		})
	}
	return in
}

func TestGolden(t *testing.T) {
	for name, in := range map[string]report.Input{"good": rollback(4), "troubled": troubled(4)} {
		t.Run(name, func(t *testing.T) {
			r, err := report.New(in)
			if err != nil {
				t.Fatal(err)
			}
			text, err := r.JSON()
			if err != nil {
				t.Fatal(err)
			}
			html, err := r.HTML()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", text)
			golden(t, name+".html", html)
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s changed; look at it and run with -update (-want +got):\n%s", path, diff)
	}
}

// TestPages writes pages to look at: go test ./report -run Pages -pages DIR.
var pages = flag.String("pages", "", "folder to write pages to, for people to look at")

func TestPages(t *testing.T) {
	if *pages == "" {
		*pages = t.TempDir()
	}
	for name, in := range map[string]report.Input{"good": rollback(21), "troubled": troubled(21), "many": rollback(210)} {
		r, err := report.New(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Write(filepath.Join(*pages, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFigures(t *testing.T) {
	in := rollback(3)
	r, err := report.New(in)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Complete() || len(r.Missing) != 0 {
		t.Errorf("missing = %v, want nothing", r.Missing)
	}
	want := 0.0
	for _, p := range in.Pops {
		want = max(want, p.Switched.Sub(command).Seconds())
	}
	if r.ToLastCutover == nil || math.Abs(*r.ToLastCutover-want) > 1e-9 {
		t.Errorf("seconds_to_last_cutover = %v, want %v", r.ToLastCutover, want)
	}
	if *r.ToLastBadResponseAny < *r.ToLastBadResponse {
		t.Errorf("on any connection the last bad answer came %v s after the command, which is before %v s on new ones", *r.ToLastBadResponseAny, *r.ToLastBadResponse)
	}
	if *r.ToClean < *r.ToLastCutover {
		t.Errorf("clean %v s after the command, before the last switch at %v s", *r.ToClean, *r.ToLastCutover)
	}
}

// TestNeverMadeUp takes one measurement away at a time: its figure must be nil and explained, and no other may change to it.
func TestNeverMadeUp(t *testing.T) {
	for name, c := range map[string]struct {
		take     func(*report.Input)
		field    string
		measured bool
	}{
		"drain":        {func(in *report.Input) { in.Pops[1].Drained = time.Time{} }, "seconds_to_drained", false},
		"counts":       {func(in *report.Input) { in.Pops[1].ConnectionsReset = nil }, "connections_reset", false},
		"parity":       {func(in *report.Input) { in.ParityMin = nil }, "parity_min", false},
		"no load":      {func(in *report.Input) { in.Load = load.Result{} }, "availability", false},
		"no new":       {func(in *report.Input) { in.Load.Targets[0].LastOpened = command }, "seconds_to_last_bad_response", false},
		"no target":    {func(in *report.Input) { in.Load.Targets = in.Load.Targets[1:] }, "seconds_to_clean", false},
		"no colour":    {func(in *report.Input) { in.Pops[0].From = "" }, "seconds_to_last_bad_response_any", false},
		"no before":    {func(in *report.Input) { in.Load.Started = command }, "p99_ms_before", false},
		"not switched": {func(in *report.Input) { in.Pops = in.Pops[:1]; in.Pops[0].Switched = time.Time{} }, "seconds_to_last_cutover", false},
		"none bad": {func(in *report.Input) {
			for i := range in.Load.Targets {
				in.Load.Targets[i].Colours[0].Steps = nil
			}
		}, "seconds_to_last_bad_response", true},
	} {
		t.Run(name, func(t *testing.T) {
			in := rollback(3)
			c.take(&in)
			r, err := report.New(in)
			if err != nil {
				t.Fatal(err)
			}
			text, err := r.JSON()
			if err != nil {
				t.Fatal(err)
			}
			var fields map[string]any
			if err := json.Unmarshal(text, &fields); err != nil {
				t.Fatal(err)
			}
			explained := map[string]report.Missing{}
			for _, m := range r.Missing {
				explained[m.Field] = m
			}
			if v, ok := fields[c.field]; !ok || v != nil {
				t.Errorf("%s = %v, want null", c.field, v)
			}
			if m, ok := explained[c.field]; !ok || m.Measured != c.measured || m.Reason == "" {
				t.Errorf("missing says %+v about %s", m, c.field)
			}
			if r.Complete() != c.measured {
				t.Errorf("complete = %v", r.Complete())
			}
			for field, v := range fields {
				if _, ok := explained[field]; (v == nil) != ok {
					t.Errorf("%s = %v and explained = %v: every null must be explained, and nothing else", field, v, ok)
				}
			}
			if _, err := r.HTML(); err != nil {
				t.Errorf("the page: %v", err)
			}
		})
	}
}

func TestSelfContained(t *testing.T) {
	in := troubled(3)
	in.Reason = `<script>alert(1)</script>`
	in.Pops[0].Name = `"><img src=x>`
	r, err := report.New(in)
	if err != nil {
		t.Fatal(err)
	}
	html, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"<script", "http://", "https://", "<img", "@import", "<link", "url(", "ZgotmplZ"} {
		if bytes.Contains(html, []byte(never)) {
			t.Errorf("the page contains %s", never)
		}
	}
}

func TestValidate(t *testing.T) {
	for field, breakIt := range map[string]func(*report.Input){
		"command":      func(in *report.Input) { in.Command = time.Time{} },
		"pops":         func(in *report.Input) { in.Pops = nil },
		"pops[1].name": func(in *report.Input) { in.Pops[1].Name = in.Pops[0].Name },
	} {
		in := rollback(2)
		breakIt(&in)
		_, err := report.New(in)
		if problem.KindOf(err) != problem.Invalid || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestWrite(t *testing.T) {
	r, err := report.New(rollback(2))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out", "demo")
	for range 2 { // over itself as well
		if err := r.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v; want rollback.html and rollback.json", files, err)
	}
}
