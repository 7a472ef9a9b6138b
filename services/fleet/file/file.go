// Package file follows the file of the registry of PoPs, and the files that it is checked against. A content that is wrong
// changes nothing: the last good one stays in force. Start at Open.
package file

import (
	"context"
	"fmt"
	"os"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/reload"
	"edgehold.internal/services/fleet"
)

// Source is a registry file.
type Source struct {
	path  string
	value *reload.Value[*fleet.Registry]
}

// Open reads the registry. Parse gets its content, also when only one of the files beside it has changed: those that parse
// reads by itself, such as kubeconfigs. Invalid names the field "pops" and the file, or is the error of parse.
func Open(path string, beside []string, parse func([]byte) (*fleet.Registry, error)) (*Source, error) {
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return nil, problem.Invalidf("pops", "%q is not a file that can be read; name the file that lists the PoPs", path)
	}
	value, err := reload.Open(func(contents [][]byte) (*fleet.Registry, error) { return parse(contents[0]) }, append([]string{path}, beside...)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Source{path: path, value: value}, nil
}

// Registry is the last good one.
func (s *Source) Registry() *fleet.Registry { return s.value.Get() }

// Follow looks at the files every so often until ctx ends. Apply gets each new registry; warn gets what is wrong and what
// to do about it when a content is refused, and an empty text when one is accepted again.
func (s *Source) Follow(ctx context.Context, every time.Duration, apply func(*fleet.Registry), warn func(text string)) {
	s.value.Watch(ctx, every, func(err error) {
		if err != nil {
			warn(fmt.Sprintf("the new registry %s is refused and the last good one, of %d PoPs, stays in force; correct it: %v", s.path, len(s.Registry().Pops), err))
			return
		}
		warn("")
		apply(s.Registry())
	})
}
