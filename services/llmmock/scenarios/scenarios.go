// Package scenarios has the scenarios that are ready to use, one a file; each file says at its head what one learns with it. See
// Named.
package scenarios

import (
	"embed"
	"io/fs"
	"strings"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/scenario"
)

//go:embed *.yaml
var files embed.FS

// Names of all of them, sorted.
func Names() []string {
	paths, err := fs.Glob(files, "*.yaml")
	if err != nil {
		panic(err)
	}
	for i := range paths {
		paths[i] = strings.TrimSuffix(paths[i], ".yaml")
	}
	return paths
}

// Text of the file of one, for a person to read or to begin with. The error is a problem of kind NotFound that names those that
// there are.
func Text(name string) ([]byte, error) {
	data, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, problem.NotFoundf("scenario", "%.60q is no scenario that is ready; use %s", name, strings.Join(Names(), ", "))
	}
	return data, nil
}

// Named is the scenario of one, which has its file's name. The error is that of Text.
func Named(name string) (llmmock.Scenario, error) {
	data, err := Text(name)
	if err != nil {
		return llmmock.Scenario{}, err
	}
	all, err := scenario.Read(name+".yaml", data)
	if err != nil {
		return llmmock.Scenario{}, err
	}
	return all[0], nil
}
