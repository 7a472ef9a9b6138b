package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// suite is a module whose tests ask for a server at TEST_API_BASE_URL.
type suite struct {
	module, version string
	// base is the path of the API on the server.
	base string
}

var suites = []suite{
	{"github.com/openai/openai-go/v3", "v3.96.0", "/v1"},
	{"github.com/anthropics/anthropic-sdk-go", "v1.84.0", ""},
}

// result is what became of one test.
type result struct {
	suite, area, test string
	// state is pass, fail, skip, or none when the program ended before it.
	state  string
	output string
}

// needed is what the tests that are wanted say somewhere in their code.
const needed = "TEST_API_BASE_URL"

// run builds the suite's test programs, once, and runs those of its tests that need a server.
func (s suite) run(ctx context.Context, c config, url string) ([]result, error) {
	dir, err := s.dir(ctx)
	if err != nil {
		return nil, err
	}
	packages, err := find(dir)
	if err != nil {
		return nil, err
	}
	var all []result
	for _, p := range packages {
		program, err := s.build(ctx, c.cache, dir, p.path)
		if err != nil {
			return nil, err
		}
		r, err := s.test(ctx, program, filepath.Join(dir, p.path), url+s.base, p)
		if err != nil {
			return nil, err
		}
		all = append(all, r...)
	}
	return all, nil
}

// dir is the module's directory in the module cache.
func (s suite) dir(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", s.module+"@"+s.version)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if e := json.Unmarshal(out, &m); e != nil && err == nil {
		err = e
	}
	if err != nil {
		return "", fmt.Errorf("cannot find the module: %w (%s)", err, m.Error)
	}
	return m.Dir, nil
}

// build makes the test program of a package, or takes the one that is there.
func (s suite) build(ctx context.Context, cache, dir, pkg string) (string, error) {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	name := strings.NewReplacer("/", "-", ".", "-").Replace(s.module + " " + s.version)
	if pkg != "." {
		name += " " + strings.ReplaceAll(pkg, "/", "-")
	}
	name = strings.ReplaceAll(name, " ", "-") + ".test"
	program := filepath.Join(cache, name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "conformance: building the tests of %s/%s, which takes minutes the first time\n", s.module, pkg)
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", program+".new", "./"+pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the tests of %s: %w\n%s", pkg, err, out)
	}
	return program, os.Rename(program+".new", program)
}

// suitePackage is a package with tests that need a server.
type suitePackage struct {
	path string
	// tests by area, which is the name of the file they are in.
	tests map[string]string
}

// find reads the test files below dir. A test needs a server when it says so itself or calls a function of its package that does.
func find(dir string) ([]suitePackage, error) {
	found := map[string]*suitePackage{}
	type function struct {
		area  string
		says  bool
		calls map[string]bool
	}
	functions := map[string]map[string]*function{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "vendor") {
			return fs.SkipDir
		}
		if d.IsDir() && path != dir {
			// A module of its own has its own tests.
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return fs.SkipDir
			}
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, filepath.Dir(path))
		if err != nil {
			return err
		}
		area := strings.TrimSuffix(filepath.Base(path), "_test.go")
		if rel != "." {
			area = filepath.ToSlash(rel) + "/" + area
		}
		if functions[rel] == nil {
			functions[rel] = map[string]*function{}
		}
		for _, decl := range f.Decls {
			fd, ok := decl.(*ast.FuncDecl)
			if !ok || fd.Recv != nil || fd.Body == nil {
				continue
			}
			fn := &function{area: area, calls: map[string]bool{}}
			ast.Inspect(fd.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					if v, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && v == needed {
						fn.says = true
					}
				case *ast.CallExpr:
					if id, ok := n.Fun.(*ast.Ident); ok {
						fn.calls[id.Name] = true
					}
				}
				return true
			})
			functions[rel][fd.Name.Name] = fn
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for rel, fns := range functions {
		for changed := true; changed; {
			changed = false
			for _, fn := range fns {
				for name := range fn.calls {
					if other := fns[name]; other != nil && other.says && !fn.says && !strings.HasPrefix(name, "Test") {
						fn.says, changed = true, true
					}
				}
			}
		}
		for name, fn := range fns {
			if !fn.says || !strings.HasPrefix(name, "Test") {
				continue
			}
			if found[rel] == nil {
				found[rel] = &suitePackage{path: rel, tests: map[string]string{}}
			}
			found[rel].tests[name] = fn.area
		}
	}
	l := make([]suitePackage, 0, len(found))
	for _, p := range found {
		l = append(l, *p)
	}
	sort.Slice(l, func(i, j int) bool { return l[i].path < l[j].path })
	return l, nil
}

// test runs the tests of a package. A program that ends early is started again with those tests that it did not come to.
func (s suite) test(ctx context.Context, program, dir, url string, p suitePackage) ([]result, error) {
	left := make([]string, 0, len(p.tests))
	for t := range p.tests {
		left = append(left, t)
	}
	sort.Strings(left)
	var all []result
	for len(left) > 0 {
		cmd := exec.CommandContext(ctx, program, "-test.v", "-test.count=1", "-test.parallel=1", "-test.timeout=10m", "-test.run=^("+strings.Join(left, "|")+")$")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), needed+"="+url)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, err
		}
		seen := outcomes(out.String())
		before := len(left)
		left = slices.DeleteFunc(left, func(t string) bool {
			o, ok := seen[t]
			if !ok {
				return false
			}
			if o.state == "" {
				o.state = "fail" // it was running when the program ended
			}
			all = append(all, result{suite: s.module, area: p.tests[t], test: t, state: o.state, output: o.output})
			return true
		})
		if len(left) == before {
			for _, t := range left {
				all = append(all, result{suite: s.module, area: p.tests[t], test: t, state: "none", output: out.String()})
			}
			break
		}
	}
	return all, nil
}

type outcome struct{ state, output string }

// outcomes reads what a test program prints with -test.v.
func outcomes(text string) map[string]outcome {
	seen := map[string]outcome{}
	current := ""
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "=== RUN   "); ok {
			name = strings.TrimSpace(name)
			if !strings.Contains(name, "/") {
				current = name
				seen[current] = outcome{}
			}
			continue
		}
		state := ""
		for _, w := range []string{"PASS", "FAIL", "SKIP"} {
			if rest, ok := strings.CutPrefix(line, "--- "+w+": "); ok {
				name, _, _ := strings.Cut(rest, " ")
				state = strings.ToLower(w)
				o := seen[name]
				o.state = state
				seen[name] = o
			}
		}
		if state == "" && current != "" {
			o := seen[current]
			if len(o.output) < 8<<10 {
				o.output += line
			}
			seen[current] = o
		}
	}
	return seen
}
