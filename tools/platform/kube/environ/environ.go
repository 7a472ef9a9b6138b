// Package environ works out what a container gets to see: its environment, its command line with $(VAR) references, and the fields
// of its pod (the downward API). It does no I/O of its own. Start reading at [Resolve].
package environ

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Sources of values that are outside of the pod. A missing object is an error of its own kind, IsNotFound of apimachinery, only if
// Missing says so.
type Sources struct {
	ConfigMap func(name string) (*corev1.ConfigMap, error)
	Secret    func(name string) (*corev1.Secret, error)
	Missing   func(error) bool
}

// Place is where a pod runs.
type Place struct {
	// Pod and Host are the addresses that processes bind and dial: those of this machine, not those of the API.
	Pod, Host netip.Addr
	// Allocatable of the node is the limit of a container that has none.
	Allocatable corev1.ResourceList
}

// Var is one variable.
type Var struct{ Name, Value string }

// Resolve returns the environment of a container in the order that it is declared in: first builtin, then envFrom, then env. A later
// variable replaces an earlier one of its name. The error says which reference cannot be resolved.
func Resolve(pod *corev1.Pod, c *corev1.Container, at Place, src Sources, builtin []Var) ([]Var, error) {
	env := set{index: map[string]int{}}
	for _, v := range builtin {
		env.put(v.Name, v.Value)
	}
	for _, from := range c.EnvFrom {
		if err := env.from(from, src); err != nil {
			return nil, err
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env.put(v.Name, Expand(v.Value, env.get))
			continue
		}
		value, ok, err := valueFrom(pod, c, v.ValueFrom, at, src)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", v.Name, err)
		}
		if ok {
			env.put(v.Name, value)
		}
	}
	return env.vars, nil
}

type set struct {
	vars  []Var
	index map[string]int
}

func (s *set) put(name, value string) {
	if i, ok := s.index[name]; ok {
		s.vars[i].Value = value
		return
	}
	s.index[name] = len(s.vars)
	s.vars = append(s.vars, Var{name, value})
}

func (s *set) get(name string) (string, bool) {
	i, ok := s.index[name]
	if !ok {
		return "", false
	}
	return s.vars[i].Value, true
}

func (s *set) from(from corev1.EnvFromSource, src Sources) error {
	data := map[string]string{}
	var optional *bool
	var err error
	switch {
	case from.ConfigMapRef != nil:
		optional = from.ConfigMapRef.Optional
		var cm *corev1.ConfigMap
		if cm, err = src.ConfigMap(from.ConfigMapRef.Name); err == nil {
			data = cm.Data
		}
	case from.SecretRef != nil:
		optional = from.SecretRef.Optional
		var secret *corev1.Secret
		if secret, err = src.Secret(from.SecretRef.Name); err == nil {
			for k, v := range secret.Data {
				data[k] = string(v)
			}
		}
	}
	if err != nil {
		if isTrue(optional) && src.Missing(err) {
			return nil
		}
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(data)) {
		if len(validation.IsEnvVarName(from.Prefix+k)) == 0 { // the kubelet leaves the others out too
			s.put(from.Prefix+k, data[k])
		}
	}
	return nil
}

// valueFrom returns false for an optional reference to what does not exist.
func valueFrom(pod *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource, at Place, src Sources) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		value, err := Field(pod, from.FieldRef.FieldPath, at)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := Resource(pod, c, from.ResourceFieldRef, at)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := src.ConfigMap(ref.Name)
		if err != nil {
			return "", false, unless(isTrue(ref.Optional) && src.Missing(err), err)
		}
		if value, ok := cm.Data[ref.Key]; ok {
			return value, true, nil
		}
		return "", false, unless(isTrue(ref.Optional), fmt.Errorf("ConfigMap %q has no key %q", ref.Name, ref.Key))
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := src.Secret(ref.Name)
		if err != nil {
			return "", false, unless(isTrue(ref.Optional) && src.Missing(err), err)
		}
		if value, ok := secret.Data[ref.Key]; ok {
			return string(value), true, nil
		}
		return "", false, unless(isTrue(ref.Optional), fmt.Errorf("Secret %q has no key %q", ref.Name, ref.Key))
	default:
		return "", false, fmt.Errorf("its source is not supported on this node: use fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef")
	}
}

func unless(tolerated bool, err error) error {
	if tolerated {
		return nil
	}
	return err
}

func isTrue(b *bool) bool { return b != nil && *b }

// Field is the value of a downward API path.
func Field(pod *corev1.Pod, path string, at Place) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return list(pod.Labels), nil
	case "metadata.annotations":
		return list(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return at.Pod.String(), nil
	case "status.hostIP", "status.hostIPs":
		return at.Host.String(), nil
	}
	return "", fmt.Errorf("field %q is not one that a pod can refer to", path)
}

// subscript takes "metadata.labels['key']" apart.
func subscript(path string) (name, key string, ok bool) {
	name, rest, ok := strings.Cut(path, "['")
	if !ok || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

// list is the form of labels and annotations in downward API files.
func list(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strconv.Quote(m[k]))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Resource is the value of a container's request or limit, in units of the divisor, rounded up. What is not limited may have
// all that the node has; a request that is not made is 0.
func Resource(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, at Place) (string, error) {
	if ref.ContainerName != "" {
		i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == ref.ContainerName })
		if i < 0 {
			return "", fmt.Errorf("the pod has no container %q", ref.ContainerName)
		}
		c = &pod.Spec.Containers[i]
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	var quantities corev1.ResourceList
	switch kind {
	case "limits":
		quantities = c.Resources.Limits
	case "requests":
		quantities = c.Resources.Requests
	default:
		return "", fmt.Errorf("resource %q: want limits.* or requests.*", ref.Resource)
	}
	value, ok := quantities[corev1.ResourceName(name)]
	if !ok && kind == "limits" {
		value = at.Allocatable[corev1.ResourceName(name)]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(ceil(value.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceil(value.Value(), divisor.Value()), 10), nil
}

func ceil(a, b int64) int64 {
	if b <= 0 {
		return a
	}
	n := a / b
	if a%b > 0 {
		n++
	}
	return n
}

// Expand replaces $(NAME) by what get returns for NAME. $$ is a dollar sign; a reference that get does not know stays as it is.
func Expand(s string, get func(string) (string, bool)) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			b.WriteByte('$')
			s = s[1:]
		case '(':
			end := strings.IndexByte(s, ')')
			if end < 0 {
				b.WriteString("$" + s)
				return b.String()
			}
			if value, ok := get(s[1:end]); ok {
				b.WriteString(value)
			} else {
				b.WriteString("$" + s[:end+1])
			}
			s = s[end+1:]
		default:
			b.WriteByte('$')
		}
	}
}
