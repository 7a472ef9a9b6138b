package scenario

import (
	"bytes"
	"embed"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

//go:embed presets/*.yaml presets/*.json presets/*.csv
var presetFiles embed.FS

// Preset is latency, or lengths of answers, that somebody measured and published. It is shared and never changed.
type Preset struct {
	Name string
	// Source says who measured what and when, Licence under which terms the data came; empty for figures, which have none.
	Source, Licence string
	// Note says what was done with it here.
	Note                          string
	FirstToken, InterToken, Total llmmock.Distribution
	// Lengths of answers in tokens.
	Lengths []int
}

// Presets are all that there are, by name.
func Presets() []*Preset {
	all := make([]*Preset, 0, len(loadPresets()))
	for _, name := range names(loadPresets()) {
		p, err := PresetNamed(name)
		if err != nil {
			panic(err)
		}
		all = append(all, p)
	}
	return all
}

// PresetNamed is one of Presets. The error is a problem of kind NotFound that names those that there are.
func PresetNamed(name string) (*Preset, error) {
	load := loadPresets()[name]
	if load == nil {
		all := names(loadPresets())
		return nil, problem.NotFoundf("preset", "%s is no preset; use %s%s", quote(name), alternatives(all), hint(name, all))
	}
	return load(), nil
}

// loadPresets are functions that read a preset when it is asked for the first time: the traces are long, and hardly anybody uses
// them all. A preset's name is that of its file.
func loadPresets() map[string]func() *Preset {
	presets.Do(func() {
		files, err := fs.Glob(presetFiles, "presets/*.yaml")
		if err != nil {
			panic(err)
		}
		presets.all = make(map[string]func() *Preset, len(files))
		for _, file := range files {
			presets.all[strings.TrimSuffix(path.Base(file), ".yaml")] = sync.OnceValue(func() *Preset {
				data, err := presetFiles.ReadFile(file)
				if err == nil {
					var p *Preset
					if p, err = readPreset(file, data); err == nil {
						return p
					}
				}
				panic(fmt.Sprintf("a preset that is compiled in is wrong: %v", err))
			})
		}
	})
	return presets.all
}

var presets struct {
	sync.Once
	all map[string]func() *Preset
}

func presetsWith(has func(*Preset) bool) (with []string) {
	for _, p := range Presets() {
		if has(p) {
			with = append(with, p.Name)
		}
	}
	return with
}

// preset is PresetNamed for a reader.
func (r *reader) preset(path string, n *yaml.Node, name string) (*Preset, bool) {
	p, err := PresetNamed(name)
	if err != nil {
		all := names(loadPresets())
		r.fail(path, n, "%s is no preset; use %s%s", quote(name), alternatives(all), hint(name, all))
		return new(Preset), false
	}
	return p, true
}

// presetDoc is the file of a preset.
type presetDoc struct {
	Preset
	trace, lengths string
}

// presetCodec is a function because a variable of it would refer to itself: scenarios read presets, and both read distributions.
func presetCodec() codec[presetDoc] {
	return mapping(nil,
		needed(member("source", "Who measured what, and when.", func(p *presetDoc) *string { return &p.Source }, text(maxMessage))),
		member("licence", "The terms of the data.", func(p *presetDoc) *string { return &p.Licence }, text(maxMessage)),
		member("note", "What was done with it.", func(p *presetDoc) *string { return &p.Note }, text(maxMessage)),
		member("firstToken", "Time to the first token.", func(p *presetDoc) *llmmock.Distribution { return &p.FirstToken }, distribution(noPart)),
		member("interToken", "Time from token to token.", func(p *presetDoc) *llmmock.Distribution { return &p.InterToken }, distribution(noPart)),
		member("total", "Time to the last token.", func(p *presetDoc) *llmmock.Distribution { return &p.Total }, distribution(noPart)),
		member("llmperf", "A file of LLMPerf's raw results beside it.", func(p *presetDoc) *string { return &p.trace }, text(llmmock.MaxName)),
		member("lengthsOf", "A file of Azure's traces beside it.", func(p *presetDoc) *string { return &p.lengths }, text(llmmock.MaxName)),
	)
}

func noPart(*Preset) llmmock.Distribution { return nil }

func readPreset(file string, data []byte) (*Preset, error) {
	var problems Problems
	r := &reader{file: file, problems: &problems}
	var doc presetDoc
	r.documents(data, func(root *yaml.Node) { doc = presetCodec().read(r, "", root) })
	if err := problems.or(); err != nil {
		return nil, err
	}
	p := &doc.Preset
	p.Name = strings.TrimSuffix(path.Base(file), ".yaml")
	var err error
	if doc.trace != "" {
		p.FirstToken, p.InterToken, p.Total, err = readLLMPerf(doc.trace)
	}
	if doc.lengths != "" && err == nil {
		p.Lengths, err = readLengths(doc.lengths)
	}
	return p, err
}

// readLLMPerf reads the raw results of LLMPerf: a JSON list of requests, of which those count that did not fail.
func readLLMPerf(name string) (first, inter, total llmmock.Distribution, err error) {
	data, err := presetFiles.ReadFile("presets/" + name)
	if err != nil {
		return nil, nil, nil, err
	}
	var rows []struct {
		Error *int    `json:"error_code"`
		First float64 `json:"ttft_s"`
		Inter float64 `json:"inter_token_latency_s"`
		Total float64 `json:"end_to_end_latency_s"`
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, nil, nil, err
	}
	var traces [3][]time.Duration
	for _, row := range rows {
		if row.Error == nil {
			for i, s := range [...]float64{row.First, row.Inter, row.Total} {
				traces[i] = append(traces[i], time.Duration(s*1e9).Round(time.Microsecond))
			}
		}
	}
	var made [3]llmmock.Distribution
	for i := range traces {
		if made[i], err = llmmock.NewTrace(traces[i]); err != nil {
			return nil, nil, nil, err
		}
	}
	return made[0], made[1], made[2], nil
}

// readLengths reads the numbers of generated tokens of a trace of Azure's: the third column, under a heading.
func readLengths(name string) ([]int, error) {
	data, err := presetFiles.ReadFile("presets/" + name)
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		return nil, err
	}
	lengths := make([]int, 0, len(rows))
	for _, row := range rows[min(1, len(rows)):] {
		n, err := strconv.Atoi(row[2])
		if err != nil {
			return nil, err
		}
		lengths = append(lengths, max(n, 1))
	}
	return lengths, nil
}
