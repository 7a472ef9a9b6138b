package scenario

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/say"
	"edgehold.internal/services/llmmock/say/schema"
)

const (
	maxText    = 1 << 20 // bytes of what is said
	maxMessage = 4096
	maxFactor  = 1e6
	year       = 366 * 24 * time.Hour
)

var (
	vendors    = enum(llmmock.OpenAI, llmmock.Azure, llmmock.Anthropic, llmmock.Gemini, llmmock.Bedrock)
	operations = enum(llmmock.Generate, llmmock.Embed, llmmock.Count, llmmock.Other)
	patterns   = list(llmmock.MaxPatterns, text(llmmock.MaxPattern))
	reasons    = enum(llmmock.BadRequest, llmmock.Unauthenticated, llmmock.NoCredit, llmmock.Forbidden, llmmock.NotFound, llmmock.Conflict,
		llmmock.TooLarge, llmmock.Unprocessable, llmmock.RateLimited, llmmock.QuotaExhausted, llmmock.Broken, llmmock.Unavailable,
		llmmock.TimedOut, llmmock.Overloaded, llmmock.MethodUnknown)
	finishes = enum(llmmock.Stopped, llmmock.AtLength, llmmock.AtStop, llmmock.ToolCalls, llmmock.Refused, llmmock.Filtered)
	faults   = enum(llmmock.FailStatus, llmmock.FailInBody, llmmock.SlowAccept, llmmock.ResetBefore, llmmock.ResetInHeaders,
		llmmock.ResetAfterHeader, llmmock.WrongType, llmmock.WrongLength, llmmock.SlowBody, llmmock.Stall, llmmock.Cut, llmmock.CutMidEvent,
		llmmock.ResetMidStream, llmmock.Malformed, llmmock.Duplicate, llmmock.Reorder, llmmock.FailMidStream)
	phases = enum(llmmock.Outage, llmmock.Brownout, llmmock.Quota, llmmock.Dark)
	pers   = enum(llmmock.PerRequest, llmmock.PerClient, llmmock.PerKey, llmmock.PerScenario)
	short0 = duration(0, llmmock.Longest)
	long0  = duration(0, year)
	factor = number(0, maxFactor)
	whole  = integer(0, math.MaxInt32)
)

// scenarioCodec is a document.
var scenarioCodec = mapping(nil,
	needed(member("name", "Name that a request may ask for. The scenario named default takes what no other matches.",
		func(s *llmmock.Scenario) *string { return &s.Name }, text(llmmock.MaxName))),
	member("description", "What it is for.", func(s *llmmock.Scenario) *string { return &s.Description }, text(maxMessage)),
	member("seed", "Seed of everything that is drawn.", func(s *llmmock.Scenario) *uint64 { return &s.Seed }, integer[uint64](0, math.MaxUint64)),
	member("epoch", "The time that answers say they were made at; 2026-01-01T00:00:00Z if it is left out.",
		func(s *llmmock.Scenario) *time.Time { return &s.Epoch }, instant()),
	member("match", "Which requests it is chosen for that do not name a scenario; none if it is left out.",
		func(s *llmmock.Scenario) *llmmock.Match { return &s.Match }, match),
	member("answers", "What is said: the first that matches. If none does, a sensible answer is made up.",
		func(s *llmmock.Scenario) *[]llmmock.AnswerRule { return &s.Answers }, list(llmmock.MaxRules, answer)),
	member("latency", "How long answers take; no time if it is left out.",
		func(s *llmmock.Scenario) *llmmock.Latency { return &s.Latency }, latency),
	member("faults", "What goes wrong with some of the requests: the first that is due is committed.",
		func(s *llmmock.Scenario) *[]llmmock.FaultRule { return &s.Faults }, list(llmmock.MaxRules, faultRule)),
	member("timeline", "What happens to the whole provider, on the clock since the scenario's start.",
		func(s *llmmock.Scenario) *[]llmmock.Phase { return &s.Timeline }, list(llmmock.MaxRules, phase)),
	member("limits", "Rate limits of each key.", func(s *llmmock.Scenario) *llmmock.LimitRule { return &s.Limits }, limits),
	member("strict", "Which of the vendor's own rules hold.", func(s *llmmock.Scenario) *llmmock.Strict { return &s.Strict }, strict),
)

var match = mapping(nil,
	member("vendors", "Any of these vendors.", func(m *llmmock.Match) *[]llmmock.Vendor { return &m.Vendors }, list(16, vendors)),
	member("models", "Models, * for any characters.", func(m *llmmock.Match) *[]string { return &m.Models }, patterns),
	member("keys", "Fingerprints of API keys, or what the keys begin with and *.", func(m *llmmock.Match) *[]string { return &m.Keys }, patterns),
	member("clients", "Clients, * for any characters.", func(m *llmmock.Match) *[]string { return &m.Clients }, patterns),
	member("paths", "Paths of the URL, * for any characters.", func(m *llmmock.Match) *[]string { return &m.Paths }, patterns),
	member("contains", "Texts of which one is in what the user said last.", func(m *llmmock.Match) *[]string { return &m.Contains }, patterns),
	member("operations", "What is asked for.", func(m *llmmock.Match) *[]llmmock.Operation { return &m.Operations }, list(16, operations)),
)

var answer = mapping(checkAnswer,
	member("match", "Which requests; all if it is left out.", func(a *llmmock.AnswerRule) *llmmock.Match { return &a.Match }, match),
	member("turn", "The turn of the conversation that is answered, from 1.", func(a *llmmock.AnswerRule) *int { return &a.Turn }, whole),
	member("afterTool", "Only after a result of the tool of this name.", func(a *llmmock.AnswerRule) *string { return &a.AfterTool }, text(llmmock.MaxPattern)),
	member("say", "Text, or a template if it has {{.", func(a *llmmock.AnswerRule) *string { return &a.Say }, template(text(maxText))),
	member("echo", "What the user said last.", func(a *llmmock.AnswerRule) *bool { return &a.Echo }, boolean()),
	member("lorem", "That many tokens of filler.", func(a *llmmock.AnswerRule) *int { return &a.Lorem }, integer(0, say.MaxLorem)),
	member("lengths", "Numbers of tokens of filler, of which one is drawn: a list, or the name of a preset that has them.",
		func(a *llmmock.AnswerRule) *[]int { return &a.Lengths }, lengths),
	member("calls", "Tools that are called: their names, * for any that is offered, or name and arguments.",
		func(a *llmmock.AnswerRule) *[]llmmock.ToolScript { return &a.Calls }, list(llmmock.MaxRules, call)),
	member("play", "The file of a recording, relative to the scenario's. What was not recorded goes to the next answer that matches.",
		func(a *llmmock.AnswerRule) *string { return &a.Play }, text(llmmock.MaxPattern)),
	member("thinking", "What is thought before it, text or a template.", func(a *llmmock.AnswerRule) *string { return &a.Thinking }, template(text(maxText))),
	member("finish", "Why the answer ends, if not as follows from it.", func(a *llmmock.AnswerRule) *llmmock.Finish { return &a.Finish }, finishes),
	member("cached", "How many of the prompt's tokens count as read from a cache.", func(a *llmmock.AnswerRule) *int { return &a.Cached }, whole),
)

func checkAnswer(r *reader, path string, n *yaml.Node, a *llmmock.AnswerRule) {
	if len(a.Lengths) > 0 && (a.Say != "" || a.Echo || a.Lorem > 0 || len(a.Calls) > 0 || a.Play != "") {
		r.fail(path, n, "several answers are given at once; use one of say, echo, lorem, lengths, calls, play")
	}
}

// template refuses what is meant as a template and is none that can be used.
func template(c codec[string]) codec[string] {
	read := c.read
	c.read = func(r *reader, path string, n *yaml.Node) string {
		s := read(r, path, n)
		if say.IsTemplate(s) {
			if err := say.CheckTemplate(s); err != nil {
				r.fail(path, n, "is no template: %v", err)
			}
		}
		return s
	}
	return c
}

var lengths = shorthand(
	list(1<<20, integer(1, say.MaxLorem)),
	object{"type": "string"},
	func(r *reader, path string, n *yaml.Node, name string) []int {
		p, ok := r.preset(path, n, name)
		if ok && len(p.Lengths) == 0 {
			r.fail(path, n, "the preset %s has no lengths; use %s", quote(name), alternatives(presetsWith(func(p *Preset) bool { return len(p.Lengths) > 0 })))
		}
		return p.Lengths
	})

var call = shorthand(
	mapping(nil,
		needed(member("name", "The tool, or * for any that is offered.", func(t *llmmock.ToolScript) *string { return &t.Name }, text(llmmock.MaxName))),
		member("arguments", "Its arguments: a mapping, or a text or template of a JSON object. Made up from the tool's schema if they are left out.",
			func(t *llmmock.ToolScript) *string { return &t.Arguments }, arguments),
	),
	object{"type": "string", "minLength": 1, "maxLength": llmmock.MaxName},
	func(r *reader, path string, n *yaml.Node, name string) llmmock.ToolScript {
		return llmmock.ToolScript{Name: text(llmmock.MaxName).read(r, path, n)}
	})

// arguments are JSON in a text, or YAML that is turned into JSON.
var arguments = codec[string]{
	schema: object{"anyOf": []object{{"type": "string", "minLength": 1, "maxLength": maxText}, {"type": "object"}}},
	read: func(r *reader, path string, n *yaml.Node) string {
		n = r.follow(n)
		if n.Kind == yaml.MappingNode {
			return string(r.json(nil, path, n))
		}
		s := template(text(maxText)).read(r, path, n)
		if s != "" && !say.IsTemplate(s) {
			if v, err := schema.ParseValue([]byte(s)); err != nil || v.Kind != schema.Object {
				r.fail(path, n, "%s is no JSON object", quote(s))
			}
		}
		return s
	},
	write: func(s string) *yaml.Node {
		if s == "" {
			return nil
		}
		return str(s)
	},
}

// json appends a node as JSON.
func (r *reader) json(dst []byte, path string, n *yaml.Node) []byte {
	n = r.follow(n)
	switch n.Kind {
	case yaml.MappingNode:
		members, _ := r.mapping(path, n)
		dst = append(dst, '{')
		for i, m := range members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = provider.AppendString(dst, m.name)
			dst = append(dst, ':')
			dst = r.json(dst, join(path, m.name), m.value)
		}
		return append(dst, '}')
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = r.json(dst, path+"["+strconv.Itoa(i)+"]", item)
		}
		return append(dst, ']')
	}
	switch n.ShortTag() {
	case "!!null":
		return append(dst, "null"...)
	case "!!bool":
		return append(dst, strings.ToLower(n.Value)...)
	case "!!int", "!!float":
		// As it is written, so that 1.0 stays what it is; what only YAML has (0x10, .inf, 1_000) is refused.
		if !json.Valid([]byte(n.Value)) {
			r.fail(path, n, "%s is no number in JSON", short(n.Value))
		}
		return append(dst, n.Value...)
	}
	if say.IsTemplate(n.Value) {
		r.fail(path, n, "%s is a template inside of a mapping; write the arguments as one text and use json, as in '{\"city\": {{json .Last}}}'", quote(n.Value))
	}
	return provider.AppendString(dst, n.Value)
}

var load = mapping(nil,
	member("free", "How many requests at a time do not slow each other.", func(l *llmmock.Load) *int { return &l.Free }, whole),
	member("factor", "By how much latency grows for each as many more.", func(l *llmmock.Load) *float64 { return &l.Factor }, factor),
)

var point = mapping(nil,
	member("at", "Since the scenario's start.", func(p *llmmock.Point) *time.Duration { return &p.At }, long0),
	member("factor", "What latency is multiplied by.", func(p *llmmock.Point) *float64 { return &p.Factor }, factor),
	member("step", "Jump there, and do not move there in a line.", func(p *llmmock.Point) *bool { return &p.Step }, boolean()),
)

// latencyDoc is a Latency and the preset that fills what it leaves out.
type latencyDoc struct {
	llmmock.Latency
	preset *Preset
}

var latencyCodec = mapping(nil,
	field[latencyDoc]{
		name: "preset", doc: "The name of a preset, for firstToken and interToken if they are left out.", schema: object{"type": "string"},
		read: func(r *reader, path string, n *yaml.Node, into *latencyDoc) {
			if name, ok := r.text(path, n); ok {
				if p, ok := r.preset(path, n, name); ok {
					into.preset = p
					if p.FirstToken == nil && p.InterToken == nil {
						r.fail(path, n, "the preset %s has no latency", quote(name))
					}
				}
			}
		},
		write: func(*latencyDoc) *yaml.Node { return nil },
	},
	member("firstToken", "From the arrival of the request to the first token.",
		func(l *latencyDoc) *llmmock.Distribution { return &l.FirstToken }, distribution(func(p *Preset) llmmock.Distribution { return p.FirstToken })),
	member("interToken", "From one token to the next.",
		func(l *latencyDoc) *llmmock.Distribution { return &l.InterToken }, distribution(func(p *Preset) llmmock.Distribution { return p.InterToken })),
	member("prefill", "Added to firstToken for every token of the prompt that is not cached.",
		func(l *latencyDoc) *time.Duration { return &l.Prefill }, short0),
	member("total", "From the arrival of the request to the last token: gaps are stretched to it.",
		func(l *latencyDoc) *llmmock.Distribution { return &l.Total }, distribution(func(p *Preset) llmmock.Distribution { return p.Total })),
	member("load", "Slower with the number of requests that are answered at the same time.", func(l *latencyDoc) *llmmock.Load { return &l.Load }, load),
	member("shape", "Slower or faster with the time since the scenario's start: ramps, steps, spikes.",
		func(l *latencyDoc) *[]llmmock.Point { return &l.Shape }, list(llmmock.MaxRules, point)),
)

var latency = codec[llmmock.Latency]{
	schema: latencyCodec.schema,
	read: func(r *reader, path string, n *yaml.Node) llmmock.Latency {
		d := latencyCodec.read(r, path, n)
		if p := d.preset; p != nil {
			for _, part := range [...]struct {
				of   *llmmock.Distribution
				from llmmock.Distribution
			}{{&d.FirstToken, p.FirstToken}, {&d.InterToken, p.InterToken}} { // its total is that of answers of its lengths
				if *part.of == nil {
					*part.of = part.from
				}
			}
		}
		return d.Latency
	},
	write: func(l llmmock.Latency) *yaml.Node { return latencyCodec.write(latencyDoc{Latency: l}) },
}

var when = shorthand(
	mapping(nil,
		member("first", "The first so many.", func(w *llmmock.When) *int { return &w.First }, whole),
		member("every", "Every so-many-th.", func(w *llmmock.When) *int { return &w.Every }, whole),
		member("probability", "Each with this probability, the same ones in every run.", func(w *llmmock.When) *float64 { return &w.Probability }, number(0, 1)),
		member("always", "Every one.", func(w *llmmock.When) *bool { return &w.Always }, boolean()),
		member("per", "What first and every are counted by: each equal request by itself (the default), client, key, or all together.",
			func(w *llmmock.When) *llmmock.Per { return &w.Per }, pers),
	),
	object{"const": "always"},
	func(r *reader, path string, n *yaml.Node, s string) (w llmmock.When) {
		if s != "always" {
			r.fail(path, n, "%s is not allowed; use always, or a mapping such as {first: 2}", quote(s))
		}
		w.Always = true
		return w
	})

// failureFields are the fields of a Failure that is a part of an S.
func failureFields[S any](of func(*S) *llmmock.Failure) []field[S] {
	return []field[S]{
		member("status", "The HTTP status, 400 to 599.", func(s *S) *int { return &of(s).Status }, integer(400, 599)),
		member("reason", "What kind of error it is, if not the status's usual one.", func(s *S) *llmmock.Reason { return &of(s).Reason }, reasons),
		member("message", "Text for the developer; the vendor's usual one if it is left out.", func(s *S) *string { return &of(s).Message }, text(maxMessage)),
		member("field", "The field of the request that is at fault.", func(s *S) *string { return &of(s).Field }, text(llmmock.MaxPattern)),
		member("code", "The vendor's code, such as context_length_exceeded.", func(s *S) *string { return &of(s).Code }, text(llmmock.MaxPattern)),
		member("retryAfter", "How long the client is told to wait.", func(s *S) *time.Duration { return &of(s).RetryAfter }, short0),
	}
}

var failure = mapping(nil, failureFields(func(f *llmmock.Failure) *llmmock.Failure { return f })...)

var fault = shorthand(
	mapping(func(r *reader, path string, n *yaml.Node, f *llmmock.Fault) {
		if f.Kind == "" && (f.Failure.Status != 0 || f.Failure.Reason != "") {
			f.Kind = llmmock.FailStatus
		}
		if f.Kind == "" {
			r.fail(join(path, "kind"), n, "is missing; say what goes wrong, or the status to fail with")
		}
	}, append([]field[llmmock.Fault]{
		member("kind", "What goes wrong; status if a status is given.", func(f *llmmock.Fault) *llmmock.FaultKind { return &f.Kind }, faults),
		member("atToken", "After so many tokens of a stream.", func(f *llmmock.Fault) *int { return &f.AtToken }, whole),
		member("wait", "For how long: of a stall, between bytes, before the request is read.", func(f *llmmock.Fault) *time.Duration { return &f.Wait }, short0),
		member("value", "The wrong header's value; a usual one if it is left out.", func(f *llmmock.Fault) *string { return &f.Value }, text(llmmock.MaxPattern)),
	}, failureFields(func(f *llmmock.Fault) *llmmock.Failure { return &f.Failure })...)...),
	faults.schema,
	func(r *reader, path string, n *yaml.Node, _ string) llmmock.Fault {
		return llmmock.Fault{Kind: faults.read(r, path, n)}
	})

var faultRule = mapping(
	func(_ *reader, _ string, _ *yaml.Node, f *llmmock.FaultRule) {
		if f.When == (llmmock.When{}) {
			f.When.Always = true
		}
	},
	member("name", "Name in reports.", func(f *llmmock.FaultRule) *string { return &f.Name }, text(llmmock.MaxName)),
	member("match", "Which requests; all if it is left out.", func(f *llmmock.FaultRule) *llmmock.Match { return &f.Match }, match),
	member("when", "Which of those; always if it is left out.", func(f *llmmock.FaultRule) *llmmock.When { return &f.When }, when),
	needed(member("do", "What goes wrong.", func(f *llmmock.FaultRule) *llmmock.Fault { return &f.Fault }, fault)),
)

var phase = mapping(nil,
	needed(member("name", "Name to start and end it by.", func(p *llmmock.Phase) *string { return &p.Name }, text(llmmock.MaxName))),
	needed(member("kind", "What the provider goes through.", func(p *llmmock.Phase) *llmmock.PhaseKind { return &p.Kind }, phases)),
	member("match", "Whom it concerns; everybody if it is left out.", func(p *llmmock.Phase) *llmmock.Match { return &p.Match }, match),
	member("regions", "The provider's regions that it concerns, * for any characters.", func(p *llmmock.Phase) *[]string { return &p.Regions }, patterns),
	member("at", "When it begins, since the scenario's start.", func(p *llmmock.Phase) *time.Duration { return &p.At }, long0),
	member("for", "How long it lasts; until it is ended if it is left out.", func(p *llmmock.Phase) *time.Duration { return &p.For }, long0),
	member("every", "At what distance it comes again.", func(p *llmmock.Phase) *time.Duration { return &p.Every }, long0),
	member("share", "Share of the requests that are hit, 0 to 1.", func(p *llmmock.Phase) *float64 { return &p.Share }, number(0, 1)),
	member("slow", "What a brownout multiplies latency by.", func(p *llmmock.Phase) *float64 { return &p.Slow }, factor),
	member("failure", "How those fail that are hit; as is usual for the kind if it is left out.",
		func(p *llmmock.Phase) *llmmock.Failure { return &p.Failure }, failure),
)

var perMinute = integer(0, llmmock.MostPerMinute)

var limits = mapping(nil,
	member("requestsPerMinute", "Requests a minute.", func(l *llmmock.LimitRule) *int { return &l.RequestsPerMinute }, perMinute),
	member("tokensPerMinute", "Tokens a minute.", func(l *llmmock.LimitRule) *int { return &l.TokensPerMinute }, perMinute),
	member("burstRequests", "Requests at once after a pause; as many as in a minute if it is left out.", func(l *llmmock.LimitRule) *int { return &l.BurstRequests }, perMinute),
	member("burstTokens", "Tokens at once after a pause; as many as in a minute if it is left out.", func(l *llmmock.LimitRule) *int { return &l.BurstTokens }, perMinute),
	member("perModel", "Each model by itself.", func(l *llmmock.LimitRule) *bool { return &l.PerModel }, boolean()),
)

var strict = mapping(nil,
	member("lenient", "Take requests that the vendor's specification forbids.", func(s *llmmock.Strict) *bool { return &s.Lenient }, boolean()),
	member("models", "Refuse models that the vendor does not list.", func(s *llmmock.Strict) *bool { return &s.Models }, boolean()),
	member("objects", "Answer 404 to an id that was never made.", func(s *llmmock.Strict) *bool { return &s.Objects }, boolean()),
	member("keys", "Refuse requests without a credential.", func(s *llmmock.Strict) *bool { return &s.Keys }, boolean()),
	member("signatures", "Refuse requests whose AWS signature does not fit.", func(s *llmmock.Strict) *bool { return &s.Signatures }, boolean()),
)
