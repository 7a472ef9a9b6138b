package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"edgehold.internal/libs/problem"
	"go.yaml.in/yaml/v3"
)

// Bounds of a registry. A scope names as many PoPs as a registry holds at most.
const (
	MaxRegistryBytes = 1 << 20
	MaxPops          = 1000
)

const (
	registryVersion = "edgehold.internal/v1alpha1"
	registryKind    = "PopRegistry"
)

// Pop is one point of presence: a namespace in a Kubernetes cluster.
type Pop struct {
	Name   string
	Region string
	// Degrees; north and east are positive.
	Latitude, Longitude float64
	// Context of the kubeconfig, which stands for the cluster, and the namespace of the PoP's fleets in it.
	Context, Namespace string
}

// Registry is the list of PoPs, in the order of its file. It is never changed once made.
type Registry struct {
	Pops []Pop
}

// Scope selects PoPs of a registry: by name, or all of them. The zero Scope is an error, never all PoPs.
type Scope struct {
	Pops []string
	All  bool
}

// Pop finds a PoP by name. NotFound names field and lists what there is.
func (r *Registry) Pop(field, name string) (Pop, error) {
	for _, p := range r.Pops {
		if p.Name == name {
			return p, nil
		}
	}
	names := make([]string, len(r.Pops))
	for i, p := range r.Pops {
		names[i] = p.Name
	}
	slices.Sort(names)
	return Pop{}, problem.NotFoundf(field, "the registry has no PoP %q; it has %s", name, list(names))
}

// Select resolves a scope, in the registry's order. Invalid when the scope is empty, names a PoP twice or sets both of
// its fields; NotFound for a PoP that is not registered.
func (r *Registry) Select(s Scope) ([]Pop, error) {
	if s.All == (len(s.Pops) > 0) {
		return nil, problem.Invalidf("scope", "name the PoPs or ask for all of them, and not both; an empty scope selects nothing")
	}
	if s.All {
		return r.Pops, nil
	}
	wanted := make(map[string]bool, len(s.Pops))
	for i, name := range s.Pops {
		field := fmt.Sprintf("scope.pops[%d]", i)
		if _, err := r.Pop(field, name); err != nil {
			return nil, err
		}
		if wanted[name] {
			return nil, problem.Invalidf(field, "PoP %q is named twice", name)
		}
		wanted[name] = true
	}
	var pops []Pop
	for _, p := range r.Pops {
		if wanted[p.Name] {
			pops = append(pops, p)
		}
	}
	return pops, nil
}

// list writes names for a sentence, and no more of them than one reads.
func list(names []string) string {
	const most = 30
	switch n := len(names); {
	case n == 0:
		return "none"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

// ParseRegistry decodes and checks a registry file (YAML, and so JSON). Contexts are those of the kubeconfig; nil leaves
// them unchecked. Every error is Invalid, or ResourceExhausted past the bounds, with the path of the field, its line and
// its value, and nothing of a file with an error is used.
func ParseRegistry(data []byte, contexts []string) (*Registry, error) {
	if len(data) > MaxRegistryBytes {
		return nil, problem.New(problem.ResourceExhausted, "", "the registry has %d bytes; at most %d are read", len(data), MaxRegistryBytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, problem.Invalidf("", "the registry is empty; it begins with apiVersion: %s, kind: %s", registryVersion, registryKind)
		}
		return nil, problem.Invalidf("", "the registry is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, problem.Invalidf("", "the registry file holds more than one YAML document; keep one")
	}
	if len(document.Content) != 1 {
		return nil, problem.Invalidf("", "the registry is empty; it begins with apiVersion: %s, kind: %s", registryVersion, registryKind)
	}

	top, err := mapping(document.Content[0], "", "apiVersion", "kind", "pops")
	if err != nil {
		return nil, err
	}
	if err := top.is("apiVersion", registryVersion); err != nil {
		return nil, err
	}
	if err := top.is("kind", registryKind); err != nil {
		return nil, err
	}
	pops, err := top.get("pops")
	if err != nil {
		return nil, err
	}
	if pops.Kind != yaml.SequenceNode || len(pops.Content) == 0 {
		return nil, problem.Invalidf("pops", "line %d: needs a list of at least one PoP", pops.Line)
	}
	if n := len(pops.Content); n > MaxPops {
		return nil, problem.New(problem.ResourceExhausted, "pops", "line %d: %d PoPs; at most %d are allowed", pops.Line, n, MaxPops)
	}

	r := &Registry{Pops: make([]Pop, 0, len(pops.Content))}
	names := make(map[string]int, len(pops.Content))
	places := make(map[[2]string]string, len(pops.Content))
	for i, node := range pops.Content {
		path := fmt.Sprintf("pops[%d]", i)
		p, err := parsePop(node, path, contexts)
		if err != nil {
			return nil, err
		}
		if line, twice := names[p.Name]; twice {
			return nil, problem.Invalidf(path+".name", "line %d: %q is already the name of the PoP on line %d; names are unique", node.Line, p.Name, line)
		}
		names[p.Name] = node.Line
		place := [2]string{p.Context, p.Namespace}
		if other, twice := places[place]; twice {
			return nil, problem.Invalidf(path+".namespace", "line %d: %q in context %q is already PoP %s; each PoP needs a namespace of its own", node.Line, p.Namespace, p.Context, other)
		}
		places[place] = p.Name
		r.Pops = append(r.Pops, p)
	}
	return r, nil
}

// dnsLabel is RFC 1123 §2.1 as Kubernetes narrows it: names of namespaces, and of PoPs, which become parts of names.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func parsePop(node *yaml.Node, path string, contexts []string) (Pop, error) {
	m, err := mapping(node, path, "name", "region", "latitude", "longitude", "context", "namespace")
	if err != nil {
		return Pop{}, err
	}
	var p Pop
	for _, f := range []struct {
		key string
		to  *string
	}{{"name", &p.Name}, {"region", &p.Region}, {"context", &p.Context}, {"namespace", &p.Namespace}} {
		if *f.to, err = m.text(f.key, 253); err != nil {
			return Pop{}, err
		}
	}
	for _, f := range []struct{ key, value string }{{"name", p.Name}, {"namespace", p.Namespace}} {
		if !dnsLabel.MatchString(f.value) {
			return Pop{}, m.invalid(f.key, "%q is not a DNS label: up to 63 of a-z, 0-9 and -, not - at either end", f.value)
		}
	}
	if p.Latitude, err = m.degrees("latitude", 90, "north"); err != nil {
		return Pop{}, err
	}
	if p.Longitude, err = m.degrees("longitude", 180, "east"); err != nil {
		return Pop{}, err
	}
	if contexts != nil && !slices.Contains(contexts, p.Context) {
		have := slices.Clone(contexts)
		slices.Sort(have)
		return Pop{}, m.invalid("context", "the kubeconfig has no context %q; it has %s", p.Context, list(have))
	}
	return p, nil
}

// object is a YAML mapping at a path of the file.
type object struct {
	path string
	node *yaml.Node
	of   map[string]*yaml.Node
}

// mapping takes a node that must be a mapping with no keys but the allowed ones, each at most once.
func mapping(node *yaml.Node, path string, allowed ...string) (object, error) {
	m := object{path: path, node: node, of: make(map[string]*yaml.Node, len(allowed))}
	if node.Kind != yaml.MappingNode {
		return m, problem.Invalidf(path, "line %d: needs the fields %s", node.Line, strings.Join(allowed, ", "))
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(allowed, key.Value):
			return m, problem.Invalidf(m.field(key.Value), "line %d: unknown field %q; allowed are %s", key.Line, key.Value, strings.Join(allowed, ", "))
		case m.of[key.Value] != nil:
			return m, problem.Invalidf(m.field(key.Value), "line %d: the field is set twice", key.Line)
		}
		m.of[key.Value] = node.Content[i+1]
	}
	return m, nil
}

func (m object) field(key string) string {
	if m.path == "" {
		return key
	}
	return m.path + "." + key
}

func (m object) invalid(key, format string, args ...any) error {
	line := m.node.Line
	if n := m.of[key]; n != nil {
		line = n.Line
	}
	return problem.Invalidf(m.field(key), "line %d: %s", line, fmt.Sprintf(format, args...))
}

func (m object) get(key string) (*yaml.Node, error) {
	n := m.of[key]
	if n == nil {
		return nil, m.invalid(key, "is missing")
	}
	return n, nil
}

// text is a string of 1 to most bytes. Anchors and numbers are refused: a name such as 0123 must not depend on YAML's
// rules for numbers.
func (m object) text(key string, most int) (string, error) {
	n, err := m.get(key)
	if err != nil {
		return "", err
	}
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag != "!!str":
		return "", m.invalid(key, "%q is not a string; put it in quotes if it is meant to be one", n.Value)
	case n.Value == "" || len(n.Value) > most:
		return "", m.invalid(key, "has %d bytes; 1 to %d are allowed", len(n.Value), most)
	case strings.ContainsFunc(n.Value, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' }):
		return "", m.invalid(key, "%q has a control character", n.Value)
	}
	return n.Value, nil
}

func (m object) is(key, want string) error {
	got, err := m.text(key, 253)
	if err != nil {
		return err
	}
	if got != want {
		return m.invalid(key, "%q is not known; this program reads %q", got, want)
	}
	return nil
}

func (m object) degrees(key string, most float64, positive string) (float64, error) {
	n, err := m.get(key)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!float" && n.Tag != "!!int" || err != nil || math.IsNaN(v) || math.Abs(v) > most {
		return 0, m.invalid(key, "%q is not a %s; use degrees from -%g to %g, %s positive", n.Value, key, most, most, positive)
	}
	return v, nil
}
