package scenario

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"edgehold.internal/services/llmmock"
)

// The forms of a distribution:
//
//	2s                                            always the same
//	{p50: 639ms, p95: 1144ms, p99: 4517ms}        these quantiles
//	{lognormal: {p50: 20ms, p99: 90ms}}
//	{gamma: {mean: 20ms, shape: 4}}
//	{trace: [180ms, 210ms, 195ms], replay: true}  measured ones, drawn or in their order
//	{preset: gpt-4o}                              the part of a preset that goes with the field

var logNormal = mapping(nil,
	needed(member("p50", "Median.", func(l *llmmock.LogNormal) *time.Duration { return &l.P50 }, positive)),
	needed(member("p99", "99th percentile.", func(l *llmmock.LogNormal) *time.Duration { return &l.P99 }, positive)),
)

var gamma = mapping(nil,
	needed(member("mean", "Mean.", func(g *llmmock.Gamma) *time.Duration { return &g.Mean }, positive)),
	needed(member("shape", "1 is the exponential distribution, more is narrower.", func(g *llmmock.Gamma) *float64 { return &g.Shape },
		number(llmmock.LeastShape, llmmock.LargestShape))),
)

var (
	positive = duration(1, llmmock.Longest)
	// trace cannot be written short: one duration is a constant.
	trace    = list(llmmock.MaxTrace, durationIn(0, llmmock.Longest))
	quantile = regexp.MustCompile(quantileName)
)

// durationIn is duration whose zero is written, too.
func durationIn(low, high time.Duration) codec[time.Duration] {
	c := duration(low, high)
	c.write = func(d time.Duration) *yaml.Node { return str(d.String()) }
	return c
}

const quantileName = `^p([0-9]{1,2})(\.[0-9]{1,6})?$`

// distribution with presets of which part is taken.
func distribution(part func(*Preset) llmmock.Distribution) codec[llmmock.Distribution] {
	only := func(name string, schema object, more object) object {
		properties := object{name: schema}
		for k, v := range more {
			properties[k] = v
		}
		return object{"type": "object", "properties": properties, "required": []string{name}, "additionalProperties": false}
	}
	schema := object{"anyOf": []object{
		durationIn(0, llmmock.Longest).schema,
		{"type": "object", "patternProperties": object{quantileName: positive.schema}, "additionalProperties": false,
			"minProperties": 2, "maxProperties": llmmock.MaxQuantiles},
		only("lognormal", logNormal.schema, nil),
		only("gamma", gamma.schema, nil),
		only("trace", trace.schema, object{"replay": object{"type": "boolean"}}),
		only("preset", object{"type": "string"}, object{"replay": object{"type": "boolean"}}),
	}}
	return codec[llmmock.Distribution]{
		schema: schema,
		read: func(r *reader, path string, n *yaml.Node) llmmock.Distribution {
			n = r.follow(n)
			if n.Kind == yaml.ScalarNode {
				errors := r.errors()
				d := durationIn(0, llmmock.Longest).read(r, path, n)
				if r.errors() > errors {
					return nil
				}
				return llmmock.Constant(d)
			}
			return r.distribution(path, n, part)
		},
		write: writeDistribution,
	}
}

var forms = []string{"p50, p95 …", "lognormal", "gamma", "trace", "preset"}

func (r *reader) distribution(path string, n *yaml.Node, part func(*Preset) llmmock.Distribution) llmmock.Distribution {
	members, ok := r.mapping(path, n)
	if !ok {
		return nil
	}
	errors := r.errors()
	var d llmmock.Distribution
	table := make(map[float64]time.Duration)
	replay, isTrace := (*yaml.Node)(nil), false
	form := "" // that was found first
	for _, m := range members {
		at := join(path, m.name)
		r.places[at] = m.value
		kind := m.name
		if quantile.MatchString(m.name) {
			kind = forms[0]
		}
		if kind != "replay" {
			if form != "" && kind != form {
				r.fail(at, m.key, "does not go with %s; use one of %s", form, strings.Join(forms, ", "))
				continue
			}
			form = kind
		}
		switch kind {
		case forms[0]:
			p, _ := strconv.ParseFloat(m.name[1:]+"e-2", 64) // not a division: 99.9 / 100 is not quite 0.999
			if d := positive.read(r, at, m.value); d > 0 {
				table[p] = d
			}
		case "lognormal":
			d = logNormal.read(r, at, m.value)
		case "gamma":
			d = gamma.read(r, at, m.value)
		case "trace":
			isTrace = true
			if t, err := llmmock.NewTrace(trace.read(r, at, m.value)); err == nil {
				d = t
			} else if r.errors() == errors {
				r.refusedAt(at, m.value, err)
			}
		case "preset":
			d = r.presetPart(at, m.value, part)
			_, isTrace = d.(*llmmock.Trace)
		case "replay":
			if boolean().read(r, at, m.value) {
				replay = m.value
			}
		default:
			r.unknown(at, m, append([]string{"replay"}, forms...))
		}
	}
	if r.errors() > errors {
		return nil
	}
	switch {
	case form == "":
		r.fail(path, n, "says nothing; use one of %s, or one duration", strings.Join(forms, ", "))
		return nil
	case form == forms[0]:
		q, err := llmmock.NewQuantiles(table)
		if err != nil {
			r.refusedAt(path, n, err)
			return nil
		}
		d = q
	}
	if v, ok := d.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			r.refusedAt(join(path, form), n, err)
			return nil
		}
	}
	if replay != nil {
		t, ok := d.(*llmmock.Trace)
		if !ok || !isTrace {
			r.fail(join(path, "replay"), replay, "only goes with a trace")
			return nil
		}
		return t.Replayed()
	}
	return d
}

// refusedAt reports what the domain says of a field within path.
func (r *reader) refusedAt(path string, n *yaml.Node, err error) {
	sub := Problems{}
	inner := &reader{file: r.file, problems: &sub}
	inner.refused(n, err)
	p := sub.List[0]
	switch {
	case p.Field == "":
		p.Field = path
	case p.Field[0] == '[':
		p.Field = path + p.Field
	default:
		p.Field = join(path, p.Field)
	}
	at := r.place(p.Field, n)
	p.Line, p.Column = at.Line, at.Column
	r.problems.add(p)
}

func (r *reader) presetPart(path string, n *yaml.Node, part func(*Preset) llmmock.Distribution) llmmock.Distribution {
	name, ok := r.text(path, n)
	if !ok {
		return nil
	}
	p, ok := r.preset(path, n, name)
	if !ok {
		return nil
	}
	d := part(p)
	if d == nil {
		r.fail(path, n, "the preset %s has no figures for this; use %s", quote(name), alternatives(presetsWith(func(p *Preset) bool { return part(p) != nil })))
	}
	return d
}

func writeDistribution(d llmmock.Distribution) *yaml.Node {
	pairs := func(of ...*yaml.Node) *yaml.Node {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: of, Style: yaml.FlowStyle}
	}
	switch d := d.(type) {
	case llmmock.Constant:
		return str(time.Duration(d).String())
	case llmmock.LogNormal:
		return pairs(str("lognormal"), logNormal.write(d))
	case llmmock.Gamma:
		return pairs(str("gamma"), gamma.write(d))
	case *llmmock.Quantiles:
		n := pairs()
		for _, p := range d.Points() {
			n.Content = append(n.Content, str(llmmock.Percentile(p.P)), str(p.D.String()))
		}
		return n
	case *llmmock.Trace:
		n := pairs(str("trace"), trace.write(d.Durations()))
		if d.Replays() {
			n.Content = append(n.Content, str("replay"), scalar("!!bool", "true"))
		}
		return n
	}
	return nil
}
