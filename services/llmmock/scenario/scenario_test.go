package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

var update = flag.Bool("update", false, "write the golden files and schema.json anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, text string) []llmmock.Scenario {
	t.Helper()
	all, err := Read("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRead(t *testing.T) {
	all := read(t, `# a comment
name: everything
description: What there is.
seed: 18446744073709551615
epoch: 2025-06-01T12:00:00+02:00
match: {vendors: openai, models: [gpt-4o*, "o3"], keys: sk-test*, clients: ["*"], paths: /v1/*, contains: [weather], operations: [generate, embed]}
answers:
  - {turn: 1, calls: [get_weather, {name: get_time, arguments: {zone: UTC, n: 1.0, deep: [true, null, {a: "b\"c"}]}}, "*"]}
  - {afterTool: get_weather, say: "It is {{.Result}}.", thinking: Hm., finish: stop, cached: 128}
  - {match: {contains: story}, lorem: 200}
  - {lengths: [10, 20]}
  - echo: true
  - {play: monday}
  - {calls: {name: f, arguments: '{"q": {{json .Last}}}'}}
latency:
  firstToken: {p50: 639ms, p95: 1144ms, p99.9: 4517ms}
  interToken: {gamma: {mean: 20ms, shape: 4}}
  prefill: 50us
  total: {lognormal: {p50: 2s, p99: 9s}}
  load: {free: 10, factor: 0.5}
  shape: [{at: 0s, factor: 10}, {at: 1m30s, factor: 1, step: true}]
faults:
  - {name: twice, when: {first: 2, per: key}, do: {status: 429, retryAfter: 2s, message: Slow down., code: slow, field: messages}}
  - {when: always, match: {models: bad}, do: reset_before}
  - {do: {kind: stall, atToken: 5, wait: 2s}}
  - {when: {probability: 0.25}, do: {reason: overloaded}}
  - {when: {every: 3}, do: {kind: wrong_content_type, value: text/plain}}
timeline:
  - {name: down, kind: outage, regions: [eu-*], at: 30s, for: 1m, every: 5m, share: 0.5, failure: {status: 503, retryAfter: 1s}}
  - {name: slow, kind: brownout, match: {vendors: [anthropic]}, slow: 3}
limits: {requestsPerMinute: 60, tokensPerMinute: 10_000, burstRequests: 5, burstTokens: 100, perModel: true}
strict: {lenient: true, models: true, objects: true, keys: true, signatures: true}
`)
	q, err := llmmock.NewQuantiles(map[float64]time.Duration{0.5: 639 * time.Millisecond, 0.95: 1144 * time.Millisecond, 0.999: 4517 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	want := llmmock.Scenario{
		Name: "everything", Description: "What there is.", Seed: 1<<64 - 1, Epoch: time.Date(2025, 6, 1, 10, 0, 0, 0, time.UTC),
		Match: llmmock.Match{Vendors: []llmmock.Vendor{"openai"}, Models: []string{"gpt-4o*", "o3"}, Keys: []string{"sk-test*"}, Clients: []string{"*"},
			Paths: []string{"/v1/*"}, Contains: []string{"weather"}, Operations: []llmmock.Operation{"generate", "embed"}},
		Answers: []llmmock.AnswerRule{
			{Turn: 1, Calls: []llmmock.ToolScript{{Name: "get_weather"}, {Name: "get_time", Arguments: `{"zone":"UTC","n":1.0,"deep":[true,null,{"a":"b\"c"}]}`}, {Name: "*"}}},
			{AfterTool: "get_weather", Say: "It is {{.Result}}.", Thinking: "Hm.", Finish: llmmock.Stopped, Cached: 128},
			{Match: llmmock.Match{Contains: []string{"story"}}, Lorem: 200},
			{Lengths: []int{10, 20}},
			{Echo: true},
			{Play: "monday"},
			{Calls: []llmmock.ToolScript{{Name: "f", Arguments: `{"q": {{json .Last}}}`}}},
		},
		Latency: llmmock.Latency{FirstToken: q, InterToken: llmmock.Gamma{Mean: 20 * time.Millisecond, Shape: 4}, Prefill: 50 * time.Microsecond,
			Total: llmmock.LogNormal{P50: 2 * time.Second, P99: 9 * time.Second}, Load: llmmock.Load{Free: 10, Factor: 0.5},
			Shape: []llmmock.Point{{Factor: 10}, {At: 90 * time.Second, Factor: 1, Step: true}}},
		Faults: []llmmock.FaultRule{
			{Name: "twice", When: llmmock.When{First: 2, Per: llmmock.PerKey}, Fault: llmmock.Fault{Kind: llmmock.FailStatus,
				Failure: llmmock.Failure{Status: 429, RetryAfter: 2 * time.Second, Message: "Slow down.", Code: "slow", Field: "messages"}}},
			{When: llmmock.When{Always: true}, Match: llmmock.Match{Models: []string{"bad"}}, Fault: llmmock.Fault{Kind: llmmock.ResetBefore}},
			{When: llmmock.When{Always: true}, Fault: llmmock.Fault{Kind: llmmock.Stall, AtToken: 5, Wait: 2 * time.Second}},
			{When: llmmock.When{Probability: 0.25}, Fault: llmmock.Fault{Kind: llmmock.FailStatus, Failure: llmmock.Failure{Reason: llmmock.Overloaded}}},
			{When: llmmock.When{Every: 3}, Fault: llmmock.Fault{Kind: llmmock.WrongType, Value: "text/plain"}},
		},
		Timeline: []llmmock.Phase{
			{Name: "down", Kind: llmmock.Outage, Regions: []string{"eu-*"}, At: 30 * time.Second, For: time.Minute, Every: 5 * time.Minute, Share: 0.5,
				Failure: llmmock.Failure{Status: 503, RetryAfter: time.Second}},
			{Name: "slow", Kind: llmmock.Brownout, Match: llmmock.Match{Vendors: []llmmock.Vendor{"anthropic"}}, Slow: 3},
		},
		Limits: llmmock.LimitRule{RequestsPerMinute: 60, TokensPerMinute: 10_000, BurstRequests: 5, BurstTokens: 100, PerModel: true},
		Strict: llmmock.Strict{Lenient: true, Models: true, Objects: true, Keys: true, Signatures: true},
	}
	if len(all) != 1 || !reflect.DeepEqual(all[0], want) {
		t.Errorf("got\n%+v\nwant\n%+v", all[0], want)
	}
}

func TestSeveralDocumentsAndForms(t *testing.T) {
	all := read(t, "---\nname: a\n---\n# nothing\n---\n{\"name\": \"b\", \"latency\": {\"firstToken\": \"2s\"}}\n---\nname: c\nlatency: {firstToken: {trace: [1ms, 0s], replay: true}, interToken: {trace: 3ms}}\n"+
		"---\nname: d\nlatency: &l {preset: gpt-4o, interToken: 0s}\n---\nname: e\nmatch: &m {models: x}\nanswers: [{match: *m, say: y}]\n")
	if len(all) != 5 {
		t.Fatalf("got %d", len(all))
	}
	if all[1].Latency.FirstToken != llmmock.Constant(2*time.Second) {
		t.Errorf("got %v", all[1].Latency.FirstToken)
	}
	trace := all[2].Latency.FirstToken.(*llmmock.Trace)
	if !trace.Replays() || !slices.Equal(trace.Durations(), []time.Duration{time.Millisecond, 0}) {
		t.Errorf("got %v", trace)
	}
	preset, err := PresetNamed("gpt-4o")
	if err != nil || all[3].Latency.FirstToken != preset.FirstToken || all[3].Latency.InterToken != llmmock.Constant(0) {
		t.Errorf("got %v, %v", all[3].Latency, err)
	}
	if got := all[4].Answers[0].Match.Models; !slices.Equal(got, []string{"x"}) {
		t.Errorf("got %v", got)
	}
}

// testdata/errors.txt has documents and what is said of them. Each begins with a line of === and its title, and the errors come after
// a line of ---> .
func TestErrors(t *testing.T) {
	const file = "testdata/errors.txt"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, c := range strings.Split(string(data), "=== ")[1:] {
		title, rest, _ := strings.Cut(c, "\n")
		doc, want, _ := strings.Cut(rest, "--->\n")
		_, err := Read("bad.yaml", []byte(doc))
		got := "it is right"
		if err != nil {
			got = err.Error()
			var p *problem.Error
			if !errors.As(err, &p) || p.Kind != problem.Invalid {
				t.Errorf("%s: the error is none for programs", title)
			}
		}
		fmt.Fprintf(&out, "=== %s\n%s--->\n%s\n\n", title, doc, got)
		if !*update && got != strings.TrimSpace(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", title, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimSuffix(out.String(), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimitsOfFiles(t *testing.T) {
	deep := "name: x\nmatch: " + strings.Repeat("[", 200) + strings.Repeat("]", 200)
	bomb := "name: x\na: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for i := byte('b'); i <= 'j'; i++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", i, i, strings.TrimSuffix(strings.Repeat("*"+string(i-1)+",", 10), ","))
	}
	many := "name: x\nanswers:\n"
	for range 200 {
		many += "  - {sya: x}\n"
	}
	var hundreds strings.Builder
	for i := range MaxScenarios + 2 {
		fmt.Fprintf(&hundreds, "---\nname: s%d\n", i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"large":            {strings.Repeat("#", MaxFile+1), "at most 4194304 are allowed"},
		"deep":             {deep, "deeper than 100"},
		"aliases":          {bomb, "more than 500000 values"},
		"inside itself":    {"name: &x [*x]", "bad.yaml"},
		"many errors":      {many, "and at least 1 more"},
		"nothing":          {"# only a comment\n---\n", "there is no scenario"},
		"many scenarios":   {hundreds.String(), "one scenario too many"},
		"two of a name":    {"name: a\n---\nname: a", "bad.yaml:3:7: name: \"a\" is the name of the scenario at bad.yaml:1 too"},
		"many rules":       {"name: x\nanswers: [" + strings.Repeat("{echo: true},", llmmock.MaxRules+1) + "]", "has 1001 items; at most 1000"},
		"a binary":         {"\x00\x01\x02", "is no YAML"},
		"no UTF-8":         {"name: \"\xff\"", "bad.yaml"},
		"a tag of its own": {"name: !secret x", "bad.yaml:1:7: name"},
	} {
		start := time.Now()
		_, err := Read("bad.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %.300v, want %q", name, err, c.want)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s took %s", name, d)
		}
		var p *Problems
		if errors.As(err, &p) && len(p.List) > MaxProblems {
			t.Errorf("%s: %d problems", name, len(p.List))
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := Load(dir); problem.KindOf(err) != problem.NotFound {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none.yaml")); problem.KindOf(err) != problem.NotFound {
		t.Errorf("no file: %v", err)
	}
	b := write("b.yaml", "name: b")
	write("a.yml", "name: a1\n---\nname: a2")
	write("c.json", `{"name": "c"}`)
	write("notes.txt", "name: no")
	write(".hidden.yaml", "name: no")
	if err := os.Mkdir(filepath.Join(dir, "below.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	all, err := Load(dir)
	var got []string
	for _, s := range all {
		got = append(got, s.Name)
	}
	if err != nil || strings.Join(got, " ") != "a1 a2 b c" {
		t.Errorf("got %v, %v", got, err)
	}
	if all, err := Load(b); err != nil || len(all) != 1 {
		t.Errorf("got %v, %v", all, err)
	}
	write("d.yaml", "name: b")
	write("e.yaml", "name: ok\nsed: 1")
	_, err = Load(dir)
	if err == nil || !strings.Contains(err.Error(), "d.yaml:1:7: name: \"b\" is the name of the scenario at "+b+":1 too") || !strings.Contains(err.Error(), "did you mean seed?") {
		t.Errorf("both errors are wanted, got %v", err)
	}
}

func TestPresets(t *testing.T) {
	ms := time.Millisecond
	for name, want := range map[string]map[float64]time.Duration{
		"gpt-4o":            {0.5: 639 * ms, 0.95: 1144 * ms, 0.99: 4517 * ms},
		"gpt-4o-mini":       {0.5: 645 * ms, 0.95: 1094 * ms},
		"claude-haiku-4.5":  {0.5: 541 * ms, 0.95: 1591 * ms, 0.99: 4117 * ms},
		"claude-sonnet-4.6": {0.5: 941 * ms, 0.95: 2939 * ms, 0.99: 4787 * ms},
		"claude-opus-4.6":   {0.5: 1626 * ms, 0.95: 2420 * ms, 0.99: 3797 * ms},
		"gemini-2.5-flash":  {0.5: 477 * ms, 0.95: 776 * ms, 0.99: 1309 * ms},
	} {
		p, err := PresetNamed(name)
		if err != nil {
			t.Error(err)
			continue
		}
		q, err := llmmock.NewQuantiles(want)
		if err != nil || !reflect.DeepEqual(p.FirstToken, q) || p.InterToken != nil {
			t.Errorf("%s: got %+v, %v", name, p, err)
		}
	}
	// The medians of the raw data, as a spreadsheet has them.
	for name, want := range map[string][2]float64{"llmperf-anyscale-70b": {0.211, 0.01455}, "llmperf-bedrock-70b": {0.388, 0.0462}, "llmperf-groq-70b": {0.2215, 0.00531}} {
		p, err := PresetNamed(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for i, d := range []llmmock.Distribution{p.FirstToken, p.InterToken} {
			durations := slices.Sorted(slices.Values(d.(*llmmock.Trace).Durations()))
			if got := durations[len(durations)/2].Seconds(); got < want[i]*0.98 || got > want[i]*1.02 {
				t.Errorf("%s: the median is %g, want %g", name, got, want[i])
			}
		}
	}
	p, err := PresetNamed("azure-code")
	if err != nil || len(p.Lengths) != 8819 || p.Lengths[0] != 10 || p.Lengths[8818] != 173 {
		t.Errorf("got %d lengths, %v", len(p.Lengths), err)
	}
	if all := read(t, "name: x\nanswers: [{lengths: azure-code}]"); len(all[0].Answers[0].Lengths) != 8819 {
		t.Errorf("got %d lengths", len(all[0].Answers[0].Lengths))
	}
	for _, p := range Presets() {
		if p.Source == "" || p.FirstToken == nil && p.InterToken == nil && p.Lengths == nil {
			t.Errorf("%s has no source or says nothing", p.Name)
		}
	}
	if _, err := PresetNamed("gpt4o"); problem.KindOf(err) != problem.NotFound || !strings.Contains(err.Error(), "did you mean gpt-4o?") {
		t.Errorf("got %v", err)
	}
}

func TestPrices(t *testing.T) {
	prices := Prices()
	for model, want := range map[string]string{"gpt-4o-mini": "$0.15 $0.075 $0.15 $0.60", "gpt-4o-2024-08-06": "$2.50 $1.25 $2.50 $10.00", "text-embedding-3-small": "$0.02 $0.02 $0.02 $0.00"} {
		p, ok := prices.Of(llmmock.OpenAI, model)
		if got := fmt.Sprint(p.Input, p.Cached, p.CacheWrite, p.Output); !ok || got != want {
			t.Errorf("%s: got %s, want %s", model, got, want)
		}
	}
	if p, ok := prices.Of(llmmock.Anthropic, "claude-haiku-4-5-20251001"); !ok || p.CacheWrite != llmmock.Dollars(1.25) || p.Date == "" || p.Source == "" {
		t.Errorf("got %+v", p)
	}
	if _, ok := prices.Of(llmmock.Bedrock, "gpt-4o"); ok {
		t.Error("another vendor has the price")
	}
	for text, want := range map[string]string{
		"source: x\ndate: 2026-01-01\nmodels: []":                                 "bad.yaml:3:9: models: is an empty list",
		"source: x\ndate: 2026-13-01\nmodels: [{model: a, input: 1, output: -1}]": "bad.yaml:2:7: date: \"2026-13-01\" is no date",
		"date: 2026-01-01\nmodels: [{model: a, input: 1}]":                        "bad.yaml:2:10: models[0].output: is missing",
	} {
		if _, err := ReadPrices("bad.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestSchemaIsPublished(t *testing.T) {
	if *update {
		if err := os.WriteFile("schema.json", Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("schema.json")
	if err != nil || !bytes.Equal(data, Schema()) {
		t.Errorf("schema.json is not what the table says; run go test ./scenario -update (%v)", err)
	}
}

var compiled = func() *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("urn:scenario", doc); err != nil {
		panic(err)
	}
	return c.MustCompile("urn:scenario")
}()

// bySchema is what an editor with the published schema says of the first document.
func bySchema(text []byte) error {
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	return compiled.Validate(doc)
}

// What the reader takes, the schema allows; what the schema forbids of the golden errors, the reader has refused.
func TestSchemaAgrees(t *testing.T) {
	files, err := filepath.Glob("../scenarios/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d ready scenarios, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := bySchema(data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	data, err := os.ReadFile("testdata/errors.txt")
	if err != nil {
		t.Fatal(err)
	}
	both := 0
	for _, c := range strings.Split(string(data), "=== ")[1:] {
		_, rest, _ := strings.Cut(c, "\n")
		doc, _, _ := strings.Cut(rest, "--->\n")
		if bySchema([]byte(doc)) != nil {
			both++
		}
	}
	if both < 25 { // the rest are of order, of names used twice and the like, which a schema cannot say
		t.Errorf("the schema refuses only %d of the golden errors", both)
	}
}

// scenarios draws any that is right.
func scenarios(t *rapid.T) llmmock.Scenario {
	texts := rapid.StringN(1, 12, 64)
	duration := rapid.Map(rapid.Int64Range(0, int64(time.Hour)), func(d int64) time.Duration { return time.Duration(d) })
	positive := rapid.Map(rapid.Int64Range(1, int64(time.Hour)), func(d int64) time.Duration { return time.Duration(d) })
	share := rapid.Float64Range(0, 1)
	matches := rapid.Custom(func(t *rapid.T) llmmock.Match {
		some := func(label string) []string {
			l := rapid.SliceOfN(texts, 0, 2).Draw(t, label)
			if len(l) == 0 {
				return nil
			}
			return l
		}
		m := llmmock.Match{Models: some("models"), Keys: some("keys"), Clients: some("clients"), Paths: some("paths"), Contains: some("contains")}
		if rapid.Bool().Draw(t, "vendors") {
			m.Vendors = []llmmock.Vendor{rapid.SampledFrom([]llmmock.Vendor{llmmock.OpenAI, llmmock.Azure, llmmock.Gemini}).Draw(t, "vendor")}
			m.Operations = []llmmock.Operation{llmmock.Embed, llmmock.Other}
		}
		return m
	})
	distributions := rapid.Custom(func(t *rapid.T) llmmock.Distribution {
		switch rapid.IntRange(0, 5).Draw(t, "distribution") {
		case 0:
			return nil
		case 1:
			return llmmock.Constant(duration.Draw(t, "constant"))
		case 2:
			p50 := positive.Draw(t, "p50")
			return llmmock.LogNormal{P50: p50, P99: min(p50*time.Duration(rapid.IntRange(1, 20).Draw(t, "times")), time.Hour)}
		case 3:
			return llmmock.Gamma{Mean: positive.Draw(t, "mean"), Shape: rapid.Float64Range(llmmock.LeastShape, llmmock.LargestShape).Draw(t, "shape")}
		case 4:
			ds := rapid.SliceOfN(positive, 4, 4).Draw(t, "quantiles")
			slices.Sort(ds)
			q, err := llmmock.NewQuantiles(map[float64]time.Duration{0.5: ds[0], 0.9: ds[1], 0.99: ds[2], 0.999: ds[3]})
			if err != nil {
				t.Fatal(err)
			}
			return q
		}
		trace, err := llmmock.NewTrace(rapid.SliceOfN(duration, 1, 5).Draw(t, "trace"))
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "replay") {
			trace = trace.Replayed()
		}
		return trace
	})
	failures := rapid.Custom(func(t *rapid.T) llmmock.Failure {
		f := llmmock.Failure{Status: rapid.IntRange(400, 599).Draw(t, "status"), RetryAfter: duration.Draw(t, "retry")}
		if rapid.Bool().Draw(t, "more") {
			f.Reason, f.Message, f.Field, f.Code = llmmock.Overloaded, texts.Draw(t, "message"), texts.Draw(t, "field"), texts.Draw(t, "code")
		}
		return f
	})
	answers := rapid.Custom(func(t *rapid.T) llmmock.AnswerRule {
		a := llmmock.AnswerRule{Match: matches.Draw(t, "match"), Turn: rapid.IntRange(0, 9).Draw(t, "turn"), Cached: rapid.IntRange(0, 9).Draw(t, "cached")}
		switch rapid.IntRange(0, 6).Draw(t, "answer") {
		case 0:
			a.Say = texts.Draw(t, "say")
			a.Thinking = texts.Draw(t, "thinking")
		case 1:
			a.Echo = true
		case 2:
			a.Lorem = rapid.IntRange(1, 1000).Draw(t, "lorem")
		case 3:
			a.Lengths = rapid.SliceOfN(rapid.IntRange(1, 1000), 1, 4).Draw(t, "lengths")
		case 4:
			a.Calls = []llmmock.ToolScript{{Name: texts.Draw(t, "tool")}, {Name: "f", Arguments: `{"a": "{{.Last}}"}`}, {Name: "*", Arguments: `{"é":[1]}`}}
		case 5:
			a.Play = texts.Draw(t, "play")
			a.AfterTool = texts.Draw(t, "after")
			a.Finish = llmmock.Refused
		}
		return a
	})
	faultRules := rapid.Custom(func(t *rapid.T) llmmock.FaultRule {
		f := llmmock.FaultRule{Match: matches.Draw(t, "match"), When: rapid.OneOf(
			rapid.Just(llmmock.When{Always: true}),
			rapid.Just(llmmock.When{First: 2, Every: 3, Per: llmmock.PerClient}),
			rapid.Custom(func(t *rapid.T) llmmock.When {
				return llmmock.When{Probability: rapid.Float64Range(1e-9, 1).Draw(t, "p")}
			}),
		).Draw(t, "when")}
		f.Fault = llmmock.Fault{Kind: rapid.SampledFrom([]llmmock.FaultKind{llmmock.FailStatus, llmmock.Cut, llmmock.Stall, llmmock.WrongType}).Draw(t, "kind"),
			AtToken: rapid.IntRange(0, 99).Draw(t, "at"), Wait: positive.Draw(t, "wait")}
		if rapid.Bool().Draw(t, "failure") || f.Kind == llmmock.FailStatus {
			f.Failure = failures.Draw(t, "failure")
		}
		return f
	})
	s := llmmock.Scenario{
		Name: rapid.StringMatching(`[a-z][a-z0-9 -]{0,10}[a-z0-9]`).Draw(t, "name"), Description: rapid.StringN(0, 20, 64).Draw(t, "description"),
		Seed: rapid.Uint64().Draw(t, "seed"), Match: matches.Draw(t, "match"),
		Answers: rapid.SliceOfN(answers, 0, 3).Draw(t, "answers"), Faults: rapid.SliceOfN(faultRules, 0, 3).Draw(t, "faults"),
		Latency: llmmock.Latency{FirstToken: distributions.Draw(t, "first"), InterToken: distributions.Draw(t, "inter"), Total: distributions.Draw(t, "total"),
			Prefill: duration.Draw(t, "prefill")},
		Limits: llmmock.LimitRule{RequestsPerMinute: rapid.IntRange(0, 1e6).Draw(t, "rpm"), TokensPerMinute: rapid.IntRange(0, 1e6).Draw(t, "tpm"), PerModel: rapid.Bool().Draw(t, "model")},
		Strict: llmmock.Strict{Lenient: rapid.Bool().Draw(t, "lenient"), Keys: rapid.Bool().Draw(t, "strict keys")},
	}
	if rapid.Bool().Draw(t, "epoch") {
		s.Epoch = time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
	}
	if rapid.Bool().Draw(t, "timeline") {
		every := positive.Draw(t, "every")
		s.Timeline = []llmmock.Phase{
			{Name: "a", Kind: llmmock.Outage, Match: matches.Draw(t, "whom"), At: duration.Draw(t, "at"), For: 1 + every/2, Every: every, Share: share.Draw(t, "share"), Failure: failures.Draw(t, "how")},
			{Name: "b", Kind: llmmock.Brownout, Slow: rapid.Float64Range(0, 100).Draw(t, "slow"), Regions: []string{"eu-*"}},
		}
		s.Latency.Load = llmmock.Load{Free: 1, Factor: share.Draw(t, "factor")}
		s.Latency.Shape = []llmmock.Point{{}, {At: every, Factor: 2.5, Step: true}}
	}
	if len(s.Answers) == 0 {
		s.Answers = nil
	}
	if len(s.Faults) == 0 {
		s.Faults = nil
	}
	return s
}

// YAML has a meaning for << as a key alone.
func TestTextThatYAMLTakesForMore(t *testing.T) {
	for _, text := range []string{"<<", "2026-01-01"} {
		read, err := Read("x.yaml", []byte("name: a\ndescription: "+text+"\n"))
		if err != nil || read[0].Description != text {
			t.Errorf("%s: %+v, %v", text, read, err)
		}
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios(t)
		if err := s.Validate(); err != nil {
			t.Fatalf("the generator is wrong: %v", err)
		}
		text, err := Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Read("x.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if len(got) != 1 || !reflect.DeepEqual(got[0], s) {
			t.Fatalf("got\n%+v\nwant\n%+v\n%s", got[0], s, text)
		}
		if err := bySchema(text); err != nil {
			t.Fatalf("the schema forbids what is right: %v\n%s", err, text)
		}
	})
}

func TestEncodeRefusesForeignDistributions(t *testing.T) {
	_, err := Encode(llmmock.Scenario{Name: "x", Latency: llmmock.Latency{FirstToken: foreign{}}})
	if problem.KindOf(err) != problem.Invalid {
		t.Errorf("got %v", err)
	}
}

type foreign struct{}

func (foreign) Sample(*rand.Rand) time.Duration { return 0 }

func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("../scenarios/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	data, err := os.ReadFile("testdata/errors.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range strings.Split(string(data), "=== ")[1:] {
		_, rest, _ := strings.Cut(c, "\n")
		doc, _, _ := strings.Cut(rest, "--->\n")
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := Read("f.yaml", data)
		if err != nil {
			if all != nil || err.Error() == "" {
				t.Fatalf("an error without words, or with scenarios: %v", err)
			}
			return
		}
		for _, s := range all {
			if err := s.Validate(); err != nil {
				t.Fatalf("%q gave a scenario that is wrong: %v", data, err)
			}
		}
		text, err := Encode(all...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read("f.yaml", text)
		if err != nil {
			t.Fatalf("%q was written as\n%s\nand cannot be read: %v", data, text, err)
		}
		if !reflect.DeepEqual(all, again) {
			t.Fatalf("%q was written as\n%s\nand read as %+v, not %+v", data, text, again, all)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	data, err := os.ReadFile("../scenarios/correlated-failure.yaml")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read("x.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}
