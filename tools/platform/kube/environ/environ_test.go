package environ

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var errMissing = errors.New("not found")

func sources() Sources {
	return Sources{
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, errMissing
			}
			return &corev1.ConfigMap{Data: map[string]string{"b": "2", "a": "1", "not a name=": "x"}}, nil
		},
		Secret: func(name string) (*corev1.Secret, error) {
			if name != "s" {
				return nil, errMissing
			}
			return &corev1.Secret{Data: map[string][]byte{"p": []byte("word")}}, nil
		},
		Missing: func(err error) bool { return errors.Is(err, errMissing) },
	}
}

var at = Place{
	Pod: netip.MustParseAddr("127.20.1.1"), Host: netip.MustParseAddr("127.20.0.2"),
	Allocatable: corev1.ResourceList{"cpu": resource.MustParse("16"), "memory": resource.MustParse("64Gi")},
}

func TestResolve(t *testing.T) {
	yes := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "edge-1", Namespace: "pop-fra1", Labels: map[string]string{"edgehold.internal/colour": "blue"}},
		Spec:       corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "other"}}},
	}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	c := &corev1.Container{
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("3Mi")}},
		EnvFrom: []corev1.EnvFromSource{
			{Prefix: "C_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &yes}},
		},
		Env: []corev1.EnvVar{
			{Name: "POD_IP", ValueFrom: field("status.podIP")},
			{Name: "LISTEN", Value: "$(POD_IP):8080"},
			{Name: "LATER", Value: "$(NOT_YET) $$(POD_IP)"},
			{Name: "NOT_YET", Value: "x"},
			{Name: "C_a", Value: "mine"},
			{Name: "COLOUR", ValueFrom: field("metadata.labels['edgehold.internal/colour']")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")},
			{Name: "PASS", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "p"}}},
			{Name: "OPTIONAL", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "none", Optional: &yes}}},
			{Name: "CPUS", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "MIB", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			{Name: "UNLIMITED", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", ContainerName: "other", Divisor: resource.MustParse("1Gi")}}},
			{Name: "UNASKED", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "requests.cpu", ContainerName: "other"}}},
		},
	}
	got, err := Resolve(pod, c, at, sources(), []Var{{"HOSTNAME", "edge-1"}, {"C_b", "builtin"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Var{
		{"HOSTNAME", "edge-1"}, {"C_b", "2"}, {"C_a", "mine"}, {"POD_IP", "127.20.1.1"}, {"LISTEN", "127.20.1.1:8080"},
		{"LATER", "$(NOT_YET) $(POD_IP)"}, {"NOT_YET", "x"}, {"COLOUR", "blue"}, {"NODE", "node-1"}, {"PASS", "word"}, {"CPUS", "2"}, {"MIB", "3"}, {"UNLIMITED", "64"}, {"UNASKED", "0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestResolveSaysWhatIsMissing(t *testing.T) {
	for _, tc := range []struct {
		c    corev1.Container
		want string
	}{
		{corev1.Container{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}}}}}, "not found"},
		{corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k"}}}}}, `env X: Secret "s" has no key "k"`},
		{corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.secret"}}}}}, `field "spec.secret"`},
	} {
		_, err := Resolve(&corev1.Pod{}, &tc.c, at, sources(), nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want %q in it", err, tc.want)
		}
	}
}

func TestExpand(t *testing.T) {
	get := func(name string) (string, bool) { return "<" + name + ">", name == "A" || name == "" }
	for in, want := range map[string]string{
		"": "", "plain": "plain", "$(A)$(A)": "<A><A>", "$$(A)": "$(A)", "$$$(A)": "$<A>", "$(B)": "$(B)", "$A": "$A", "$": "$",
		"$(A": "$(A", "a$(": "a$(", "$()": "<>", "100$": "100$",
	} {
		if got := Expand(in, get); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"$(A)", "$$", "$(", "x$(B)y$", "$)("} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// Nothing is known: every reference stays, so the only change is that of $$ to $.
		got := Expand(s, func(string) (string, bool) { return "", false })
		if !strings.Contains(s, "$$") && got != s {
			t.Fatalf("Expand(%q) = %q", s, got)
		}
		if len(got) > len(s) {
			t.Fatalf("Expand(%q) = %q grew", s, got)
		}
	})
}
