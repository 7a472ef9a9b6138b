// Package scenario reads what people write: scenarios in YAML (or JSON, which is YAML), presets of latency, and price tables. What
// is wrong is told with file, line, column, field, value and what is allowed, all of it at once. Start at Read and Load; table.go
// has the fields of a scenario, from which the JSON Schema that is published (Schema) is made too.
package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

// Read reads the documents of one file, each a scenario. The error is a *Problems: every scenario is right, or none is returned.
func Read(file string, data []byte) ([]llmmock.Scenario, error) {
	var all collection
	all.add(file, data)
	return all.done()
}

// Load reads files, and all files named *.yaml, *.yml and *.json in directories (not in those below), in the order of the paths
// and of the names. Names of scenarios must be unique among all of them. The error is a *Problems, or a problem of kind NotFound or
// Internal when a file cannot be read.
func Load(paths ...string) ([]llmmock.Scenario, error) {
	all, err := collect(paths)
	if err != nil {
		return nil, err
	}
	return all.done()
}

// LoadSourced is Load, and says where each scenario was read, as file:line.
func LoadSourced(paths ...string) ([]llmmock.Sourced, error) {
	all, err := collect(paths)
	if err != nil {
		return nil, err
	}
	return all.sourced(llmmock.FromFile)
}

// ReadSourced is Read for what was not read from a file, and says where in it each scenario was, as name:line.
func ReadSourced(name string, data []byte) ([]llmmock.Sourced, error) {
	var all collection
	all.add(name, data)
	return all.sourced(llmmock.FromAPI)
}

func collect(paths []string) (all collection, err error) {
	all.files = true
	for _, path := range paths {
		files := []string{path}
		info, err := os.Stat(path)
		if err != nil {
			return all, unreadable(path, err)
		}
		if info.IsDir() {
			if files, err = documentsIn(path); err != nil {
				return all, err
			}
		}
		for _, file := range files {
			data, err := readFile(file)
			if err != nil {
				return all, unreadable(file, err)
			}
			all.add(file, data)
		}
	}
	return all, nil
}

func documentsIn(dir string) (files []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, unreadable(dir, err)
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	if len(files) == 0 {
		return nil, problem.NotFoundf("", "the directory %s has no file named *.yaml, *.yml or *.json", dir)
	}
	if len(files) > MaxFiles {
		return nil, problem.Invalidf("", "the directory %s has %d files; at most %d are allowed", dir, len(files), MaxFiles)
	}
	return files, nil
}

// readFile reads one byte more than is allowed, so that what is too large is known without reading it.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFile+1))
}

func unreadable(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return problem.NotFoundf("", "%s does not exist", path)
	}
	return problem.Invalidf("", "%s cannot be read: %w", path, err)
}

// collection is the scenarios of several files.
type collection struct {
	// files says that it is read from files, beside which the recordings are that scenarios play.
	files     bool
	scenarios []llmmock.Scenario
	where     map[string]string // of each name
	problems  Problems
}

func (c *collection) add(file string, data []byte) {
	r := &reader{file: file, problems: &c.problems}
	r.documents(data, func(root *yaml.Node) {
		before := r.errors()
		s := scenarioCodec.read(r, "", root)
		if r.errors() > before {
			return
		}
		if err := s.Validate(); err != nil {
			r.refused(root, err)
			return
		}
		if c.files && !r.recordings(root, &s) {
			return
		}
		at := r.place("name", root)
		if len(c.scenarios) >= MaxScenarios {
			r.fail("", root, "is one scenario too many; at most %d are allowed", MaxScenarios)
			return
		}
		if first, ok := c.where[s.Name]; ok {
			r.fail("name", at, "%s is the name of the scenario at %s too", quote(s.Name), first)
			return
		}
		if c.where == nil {
			c.where = make(map[string]string)
		}
		c.where[s.Name] = fmt.Sprintf("%s:%d", file, at.Line)
		c.scenarios = append(c.scenarios, s)
	})
}

// recordings looks for those that s plays, whose names are relative to the file's folder.
func (r *reader) recordings(root *yaml.Node, s *llmmock.Scenario) bool {
	before := r.errors()
	for i := range s.Answers {
		name := &s.Answers[i].Play
		if *name == "" {
			continue
		}
		if !filepath.IsAbs(*name) {
			*name = filepath.Join(filepath.Dir(r.file), *name)
		}
		if info, err := os.Stat(*name); err != nil || !info.Mode().IsRegular() {
			field := fmt.Sprintf("answers[%d].play", i)
			r.fail(field, r.place(field, root), "%s is no file; name a recording, relative to the folder that the scenario is in", quote(*name))
		}
	}
	return r.errors() == before
}

// refused reports what the domain does not take, at the place of the field that it names.
func (r *reader) refused(root *yaml.Node, err error) {
	var e *problem.Error
	if !errors.As(err, &e) {
		r.fail("", root, "%v", err)
		return
	}
	r.fail(e.Field, r.place(e.Field, root), "%s", e.Sentence)
}

func (c *collection) done() ([]llmmock.Scenario, error) {
	if err := c.problems.or(); err != nil {
		return nil, err
	}
	if len(c.scenarios) == 0 {
		return nil, &Problems{List: []Problem{{Sentence: "there is no scenario in what was read"}}}
	}
	return c.scenarios, nil
}

func (c *collection) sourced(origin llmmock.Origin) ([]llmmock.Sourced, error) {
	scenarios, err := c.done()
	if err != nil {
		return nil, err
	}
	all := make([]llmmock.Sourced, len(scenarios))
	for i, s := range scenarios {
		all[i] = llmmock.Sourced{Scenario: s, Origin: origin, Source: c.where[s.Name]}
	}
	return all, nil
}

// Encode writes scenarios as YAML documents that Read reads as the same scenarios. Presets are written as the figures that they
// stand for. The error is a problem of kind Invalid for a distribution that has no form in YAML.
func Encode(scenarios ...llmmock.Scenario) ([]byte, error) {
	var b bytes.Buffer
	for i := range scenarios {
		s := &scenarios[i]
		for _, d := range [...]llmmock.Distribution{s.Latency.FirstToken, s.Latency.InterToken, s.Latency.Total} {
			if d != nil && writeDistribution(d) == nil {
				return nil, problem.Invalidf("latency", "the scenario %s has a distribution of type %T, which has no form in YAML", s.Name, d)
			}
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		enc := yaml.NewEncoder(&b)
		enc.SetIndent(2)
		if err := enc.Encode(scenarioCodec.write(*s)); err != nil {
			return nil, problem.Invalidf("", "the scenario %s cannot be written: %w", s.Name, err)
		}
		if err := enc.Close(); err != nil {
			return nil, problem.Invalidf("", "the scenario %s cannot be written: %w", s.Name, err)
		}
	}
	return b.Bytes(), nil
}

// Schema is the JSON Schema (2020-12) of a document, as it is published in schema.json.
func Schema() []byte {
	s := object{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "Scenario of llmmock",
		"description": "How a stand-in for model providers behaves. A file may hold several, separated by ---.",
	}
	for k, v := range scenarioCodec.schema {
		s[k] = v
	}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // a value in the table that JSON cannot have
	}
	return append(out, '\n')
}

// names of a map, sorted.
func names[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
