// Package pkgdoc enforces the house rules that a compiler does not: every package says what it is for, exported names say
// what they mean, and what a package must never import is forbidden with its reason. Each module calls it from one test.
// Start at Check, Exported and Forbid.
package pkgdoc

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Check fails t for each package below the directory root that does not have exactly one doc comment of the form
// "Package name …" (for a command: any text of at least five words). Generated packages, testdata and nested modules are
// left out.
func Check(t testing.TB, root string) {
	t.Helper()
	for _, p := range packages(t, root) {
		var docs []string
		for _, f := range p.files {
			if text := strings.TrimSpace(f.ast.Doc.Text()); text != "" {
				docs = append(docs, f.path)
				if p.name != "main" && !strings.HasPrefix(text, "Package "+p.name+" ") {
					t.Errorf("%s: the doc comment must start with \"Package %s \"", f.path, p.name)
				}
				if len(strings.Fields(text)) < 5 {
					t.Errorf("%s: the doc comment %q does not say what the package is for", f.path, text)
				}
			}
		}
		switch len(docs) {
		case 0:
			t.Errorf("%s: package %s has no doc comment; say in one file what it is for and where to start reading", p.dir, p.name)
		case 1:
		default:
			t.Errorf("%s: package %s has %d doc comments (%s); keep one", p.dir, p.name, len(docs), strings.Join(docs, ", "))
		}
	}
}

// Exported fails t for each exported function, type, method of an exported type, constant and variable below the directory
// root that has no doc comment; for constants and variables, that of their group is enough. Commands, generated packages,
// testdata and nested modules are left out.
func Exported(t testing.TB, root string) {
	t.Helper()
	for _, p := range packages(t, root) {
		if p.name == "main" {
			continue
		}
		for _, f := range p.files {
			for _, name := range undocumented(f.ast) {
				t.Errorf("%s: %s has no doc comment", p.fset.Position(name.Pos()), name.Name)
			}
		}
	}
}

func undocumented(f *ast.File) (names []*ast.Ident) {
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv.List[0].Type)) {
				names = append(names, d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if d.Doc == nil && s.Doc == nil && s.Name.IsExported() {
						names = append(names, s.Name)
					}
				case *ast.ValueSpec:
					for _, name := range s.Names {
						if d.Doc == nil && s.Doc == nil && s.Comment == nil && name.IsExported() {
							names = append(names, name)
						}
					}
				}
			}
		}
	}
	return names
}

func exportedReceiver(expr ast.Expr) bool {
	switch e := expr.(type) {
	case *ast.Ident:
		return e.IsExported()
	case *ast.StarExpr:
		return exportedReceiver(e.X)
	case *ast.IndexExpr: // a receiver with one type parameter
		return exportedReceiver(e.X)
	case *ast.IndexListExpr:
		return exportedReceiver(e.X)
	}
	return false
}

type pkg struct {
	dir, name string
	fset      *token.FileSet
	files     []file
}

type file struct {
	path string
	ast  *ast.File
}

// packages parses what is written by hand below root; a directory may hold several packages.
func packages(t testing.TB, root string) []*pkg {
	t.Helper()
	fset, byName := token.NewFileSet(), make(map[string]*pkg)
	var order []*pkg
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path == root {
				return nil
			}
			_, nested := os.Stat(filepath.Join(path, "go.mod"))
			if name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || nested == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if ast.IsGenerated(f) {
			return nil
		}
		key := filepath.Dir(path) + " " + f.Name.Name
		p := byName[key]
		if p == nil {
			p = &pkg{dir: filepath.Dir(path), name: f.Name.Name, fset: fset}
			byName[key], order = p, append(order, p)
		}
		p.files = append(p.files, file{path, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(order) == 0 {
		t.Fatalf("%s has no Go packages", root)
	}
	return order
}

// Forbid fails t when a package of pkgPattern imports one of importPattern, itself or through others, with the chain of
// imports and the reason. pkgPattern is one of go list in the test's directory (".", "./...", "./kube/..."); importPattern
// is an import path, or one that ends in "/..." for it and all below. Imports of tests do not count.
func Forbid(t testing.TB, pkgPattern, importPattern, reason string) {
	t.Helper()
	g, err := load(pkgPattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range g.roots {
		if chain := g.path(root, importPattern); chain != nil {
			t.Errorf("%s must not import %s: %s\n\t%s", root, importPattern, reason, strings.Join(chain, "\n\timports "))
		}
	}
}

// graph is who imports whom, among the packages of a pattern and all that they need.
type graph struct {
	roots   []string
	imports map[string][]string
}

var loaded sync.Map // directory and pattern → func() (*graph, error): go list is what takes the time

func load(pattern string) (*graph, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	once, _ := loaded.LoadOrStore([2]string{dir, pattern}, sync.OnceValues(func() (*graph, error) { return list(pattern) }))
	return once.(func() (*graph, error))()
}

func list(pattern string) (*graph, error) {
	cmd := exec.CommandContext(context.Background(), "go", "list", "-deps", "-f", `{{.ImportPath}} {{.DepOnly}} {{join .Imports " "}}`, pattern)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w\n%s", pattern, err, stderr.String())
	}
	g := &graph{imports: make(map[string][]string)}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		g.imports[fields[0]] = fields[2:]
		if fields[1] == "false" {
			g.roots = append(g.roots, fields[0])
		}
	}
	if len(g.roots) == 0 {
		return nil, fmt.Errorf("go list %s: no packages", pattern)
	}
	return g, nil
}

// path is the shortest chain of imports from one package to one that matches, or nil.
func (g *graph) path(from, pattern string) []string {
	via := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for _, next := range g.imports[queue[0]] {
			if _, seen := via[next]; seen {
				continue
			}
			via[next] = queue[0]
			if matches(next, pattern) {
				var chain []string
				for p := next; p != ""; p = via[p] {
					chain = append(chain, p)
				}
				slices.Reverse(chain)
				return chain
			}
			queue = append(queue, next)
		}
	}
	return nil
}

func matches(path, pattern string) bool {
	prefix, below := strings.CutSuffix(pattern, "/...")
	return path == prefix || below && strings.HasPrefix(path, prefix+"/")
}
