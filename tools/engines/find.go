package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// step is one `go build`: the commands of one module.
type step struct {
	// module is its directory, relative to the root of the checkout.
	module string
	// alone says that the module is not in go.work.
	alone bool
	// ldflags come from the file ldflags.txt beside go.mod.
	ldflags string
	// commands to build, at least one.
	commands []command
}

type command struct {
	// binary is the file name in the output directory.
	binary string
	// pkg is the package, relative to the module: "." or "./cmd/x".
	pkg string
}

// defaultLDFlags leave the symbol tables out; the binaries are three times as large with them.
const defaultLDFlags = "-s -w"

// find lists the commands of the checkout. A command is a main package at the root of a module, which is named after the
// module's directory, or in its cmd/NAME. Those of tools/platform are called edgehold-NAME. This program is not one.
func find(root string) ([]step, error) {
	modules, err := workModules(root)
	if err != nil {
		return nil, err
	}
	slices.Sort(modules)
	var steps []step
	add := func(module string, alone bool) error {
		s := step{module: module, alone: alone, ldflags: defaultLDFlags}
		if flags, err := os.ReadFile(filepath.Join(root, module, "ldflags.txt")); err == nil {
			s.ldflags = strings.TrimSpace(string(flags))
		}
		dirs, err := filepath.Glob(filepath.Join(root, module, "cmd", "*"))
		if err != nil {
			return err
		}
		for _, dir := range append(dirs, filepath.Join(root, module)) {
			if !isMain(dir) {
				continue
			}
			name, pkg := filepath.Base(dir), "."
			if dir != filepath.Join(root, module) {
				pkg = "./cmd/" + name
			}
			if alone {
				name = "edgehold-" + name
			}
			s.commands = append(s.commands, command{binary: name, pkg: pkg})
		}
		if len(s.commands) > 0 {
			steps = append(steps, s)
		}
		return nil
	}
	platforms, err := filepath.Glob(filepath.Join(root, "tools", "platform", "*", "go.mod"))
	if err != nil {
		return nil, err
	}
	for _, mod := range platforms {
		if err := add(path.Join("tools/platform", filepath.Base(filepath.Dir(mod))), true); err != nil {
			return nil, err
		}
	}
	for _, module := range modules {
		if module == "tools/engines" {
			continue
		}
		if err := add(module, false); err != nil {
			return nil, err
		}
	}
	seen := map[string]string{}
	for _, s := range steps {
		for _, c := range s.commands {
			if other, ok := seen[c.binary]; ok {
				return nil, fmt.Errorf("%s and %s both have a command %s; rename one", other, s.module, c.binary)
			}
			seen[c.binary] = s.module
		}
	}
	return steps, nil
}

var useLine = regexp.MustCompile(`(?m)^\s*(?:use\s+)?\./(\S+)\s*$`)

// workModules are the directories in go.work, relative to it.
func workModules(root string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		return nil, err
	}
	var modules []string
	for _, m := range useLine.FindAllStringSubmatch(string(data), -1) {
		modules = append(modules, path.Clean(m[1]))
	}
	return modules, nil
}

// isMain says whether a directory holds a command.
func isMain(dir string) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return false
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly)
		if err == nil {
			return f.Name.Name == "main"
		}
	}
	return false
}
