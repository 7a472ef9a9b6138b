package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// inputs is a hash of everything that decides what a step builds: the sources and the module files of its module and of
// the in-house modules that it stands on, the toolchain, the flags. Modules of others are fixed by go.sum.
func inputs(root string, s step, toolchain string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%t\n%q\n", toolchain, s.ldflags, s.alone, s.commands)
	modules, err := closure(root, s.module)
	if err != nil {
		return "", err
	}
	for _, module := range modules {
		if err := hashTree(h, root, module); err != nil {
			return "", err
		}
	}
	if !s.alone {
		// In a workspace every module has a say in which versions are chosen.
		all, err := workModules(root)
		if err != nil {
			return "", err
		}
		for _, module := range all {
			if err := hashFile(h, root, path.Join(module, "go.mod")); err != nil {
				return "", err
			}
		}
		if err := hashFile(h, root, "go.work"); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

var replaceLine = regexp.MustCompile(`(?m)=>\s*(\.\.?/\S+)\s*$`)

// closure is a module and those that it is given by a path, directly or not, sorted.
func closure(root, module string) ([]string, error) {
	seen := map[string]bool{}
	todo := []string{module}
	for len(todo) > 0 {
		m := todo[0]
		todo = todo[1:]
		if seen[m] {
			continue
		}
		seen[m] = true
		data, err := os.ReadFile(filepath.Join(root, m, "go.mod"))
		if err != nil {
			return nil, err
		}
		for _, r := range replaceLine.FindAllStringSubmatch(string(data), -1) {
			todo = append(todo, path.Join(m, r[1]))
		}
	}
	var all []string
	for m := range seen {
		all = append(all, m)
	}
	slices.Sort(all)
	return all, nil
}

// hashTree adds the files of a module that can be part of a build, embedded ones included. Nested modules are not part of
// it, and neither are tests and documentation.
func hashTree(h io.Writer, root, module string) error {
	return filepath.WalkDir(filepath.Join(root, module), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case d.IsDir() && rel != filepath.FromSlash(module):
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			if err == nil || name == "testdata" || strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
		case !d.Type().IsRegular(), strings.HasSuffix(name, "_test.go"), strings.HasSuffix(name, ".md"), strings.HasPrefix(name, "."):
		default:
			return hashFile(h, root, filepath.ToSlash(rel))
		}
		return nil
	})
}

func hashFile(h io.Writer, root, rel string) error {
	data, err := os.ReadFile(filepath.Join(root, rel))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(h, "%s %d\n%s", rel, len(data), data)
	return err
}

// stamp is the file beside a binary that says what it was built from. It holds the binary's size and time too, so that a
// binary that was replaced by hand is built again.
func stampPath(bin, binary string) string { return filepath.Join(bin, "."+binary+".stamp") }

func stampText(hash string, info fs.FileInfo) string {
	return fmt.Sprintf("%s %d %d\n", hash, info.Size(), info.ModTime().UnixNano())
}

// current says whether every binary of a step is there and was built from these inputs.
func current(bin string, s step, hash string) bool {
	for _, c := range s.commands {
		info, err := os.Stat(filepath.Join(bin, c.binary))
		if err != nil {
			return false
		}
		stamp, err := os.ReadFile(stampPath(bin, c.binary))
		if err != nil || string(stamp) != stampText(hash, info) {
			return false
		}
	}
	return true
}

// install moves what was built into place, each binary in one step, and stamps it. A process that runs the old one keeps it.
func install(bin, built string, s step, hash string) error {
	for _, c := range s.commands {
		from, to := filepath.Join(built, path.Base(c.pkg)), filepath.Join(bin, c.binary)
		if c.pkg == "." {
			from = filepath.Join(built, path.Base(s.module))
		}
		if err := os.Remove(stampPath(bin, c.binary)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
		info, err := os.Stat(to)
		if err != nil {
			return err
		}
		if err := os.WriteFile(stampPath(bin, c.binary), []byte(stampText(hash, info)), 0o600); err != nil {
			return err
		}
	}
	return nil
}
