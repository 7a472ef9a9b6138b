package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet"
	"github.com/google/go-cmp/cmp"
)

const registryHead = "apiVersion: edgehold.internal/v1alpha1\nkind: PopRegistry\n"

func pop(name, context, namespace string) string {
	return fmt.Sprintf("- {name: %s, region: europe, latitude: 50.1, longitude: -8.7, context: %s, namespace: %s}\n", name, context, namespace)
}

func TestParseRegistry(t *testing.T) {
	r, err := fleet.ParseRegistry([]byte(registryHead+`pops:
- name: fra1
  region: europe
  latitude: 50.1
  longitude: 8
  context: cluster-1
  namespace: pop-fra1
- {"name": "gru1", "region": "south america", "latitude": -23.5, "longitude": -46.6, "context": "cluster-2", "namespace": "pop-gru1"}
`), []string{"cluster-1", "cluster-2"})
	if err != nil {
		t.Fatal(err)
	}
	want := &fleet.Registry{Pops: []fleet.Pop{
		{Name: "fra1", Region: "europe", Latitude: 50.1, Longitude: 8, Context: "cluster-1", Namespace: "pop-fra1"},
		{Name: "gru1", Region: "south america", Latitude: -23.5, Longitude: -46.6, Context: "cluster-2", Namespace: "pop-gru1"},
	}}
	if d := cmp.Diff(want, r); d != "" {
		t.Error(d)
	}
}

func TestParseRegistryRefuses(t *testing.T) {
	good := pop("fra1", "c1", "pop-fra1")
	for _, tc := range []struct{ name, file, field, says string }{
		{"nothing", "", "", "empty"},
		{"a comment", "# later\n", "", "empty"},
		{"no YAML", "pops: [", "", "not YAML"},
		{"two documents", registryHead + "pops:\n" + good + "---\n" + registryHead + "pops:\n" + good, "", "more than one YAML document"},
		{"a list", "- fra1\n", "", "line 1: needs the fields apiVersion, kind, pops"},
		{"another version", "apiVersion: v2\nkind: PopRegistry\npops:\n" + good, "apiVersion", `line 1: "v2" is not known`},
		{"another kind", "apiVersion: edgehold.internal/v1alpha1\nkind: Fleet\npops:\n" + good, "kind", `line 2: "Fleet" is not known`},
		{"an unknown field at the top", registryHead + "popps: []\n", "popps", `line 3: unknown field "popps"`},
		{"no list", registryHead + "pops: fra1\n", "pops", "line 3: needs a list"},
		{"an empty list", registryHead + "pops: []\n", "pops", "line 3: needs a list of at least one PoP"},
		{"no list at all", registryHead, "pops", "is missing"},
		{"an unknown field", registryHead + "pops:\n- {name: fra1, zone: a}\n", "pops[0].zone", `line 4: unknown field "zone"`},
		{"a field twice", registryHead + "pops:\n- {name: fra1, name: fra2}\n", "pops[0].name", "line 4: the field is set twice"},
		{"a missing field", registryHead + "pops:\n- {name: fra1, region: x, latitude: 1, longitude: 1, context: c1}\n", "pops[0].namespace", "line 4: is missing"},
		{"no region", registryHead + "pops:\n- {name: fra1, region: '', latitude: 1, longitude: 1, context: c1, namespace: n}\n", "pops[0].region", "has 0 bytes"},
		{"a name with capitals", registryHead + "pops:\n" + pop("FRA1", "c1", "n"), "pops[0].name", `line 4: "FRA1" is not a DNS label`},
		{"a name that is a number", registryHead + "pops:\n" + pop("0123", "c1", "n"), "pops[0].name", `"0123" is not a string`},
		{"a long name", registryHead + "pops:\n" + pop(strings.Repeat("a", 64), "c1", "n"), "pops[0].name", "is not a DNS label"},
		{"a namespace with dots", registryHead + "pops:\n" + pop("fra1", "c1", "a.b"), "pops[0].namespace", `"a.b" is not a DNS label`},
		{"latitude out of range", registryHead + "pops:\n" + strings.Replace(good, "50.1", "90.5", 1), "pops[0].latitude", `line 4: "90.5" is not a latitude; use degrees from -90 to 90, north positive`},
		{"longitude out of range", registryHead + "pops:\n" + strings.Replace(good, "-8.7", "-181", 1), "pops[0].longitude", `line 4: "-181" is not a longitude; use degrees from -180 to 180, east positive`},
		{"a latitude that is no number", registryHead + "pops:\n" + strings.Replace(good, "50.1", ".nan", 1), "pops[0].latitude", `".nan" is not a latitude`},
		{"a latitude that is text", registryHead + "pops:\n" + strings.Replace(good, "50.1", "'50.1'", 1), "pops[0].latitude", `"50.1" is not a latitude`},
		{"an infinite longitude", registryHead + "pops:\n" + strings.Replace(good, "-8.7", "-.inf", 1), "pops[0].longitude", "is not a longitude"},
		{"a duplicate name", registryHead + "pops:\n" + good + pop("ams1", "c1", "pop-ams1") + pop("fra1", "c2", "x"), "pops[2].name", `line 6: "fra1" is already the name of the PoP on line 4`},
		{"a duplicate place", registryHead + "pops:\n" + good + pop("fra2", "c1", "pop-fra1"), "pops[1].namespace", `line 5: "pop-fra1" in context "c1" is already PoP fra1`},
		{"an unknown context", registryHead + "pops:\n" + pop("fra1", "c9", "n"), "pops[0].context", `line 4: the kubeconfig has no context "c9"; it has c1, c2`},
		{"an alias", registryHead + "pops:\n- &a {name: fra1, region: &r x, latitude: 1, longitude: 1, context: c1, namespace: n}\n- *a\n", "pops[1]", "needs the fields"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := fleet.ParseRegistry([]byte(tc.file), []string{"c2", "c1"})
			refused(t, r == nil, err, problem.Invalid, tc.field, tc.says)
		})
	}
	t.Run("too many bytes", func(t *testing.T) {
		r, err := fleet.ParseRegistry(make([]byte, fleet.MaxRegistryBytes+1), nil)
		refused(t, r == nil, err, problem.ResourceExhausted, "", "at most 1048576")
	})
	t.Run("too many PoPs", func(t *testing.T) {
		var b strings.Builder
		b.WriteString(registryHead + "pops:\n")
		for i := range fleet.MaxPops + 1 {
			b.WriteString(pop(fmt.Sprintf("p%d", i), "c1", fmt.Sprintf("n%d", i)))
		}
		r, err := fleet.ParseRegistry([]byte(b.String()), nil)
		refused(t, r == nil, err, problem.ResourceExhausted, "pops", "at most 1000")
	})
}

func refused(t *testing.T, nothing bool, err error, kind problem.Kind, field, says string) {
	t.Helper()
	if err == nil || !nothing {
		t.Fatalf("it was accepted; want %v", kind)
	}
	if got := problem.KindOf(err); got != kind {
		t.Errorf("kind %v; want %v: %v", got, kind, err)
	}
	if want := field; field != "" && !strings.HasPrefix(err.Error(), want+": ") {
		t.Errorf("%q does not name the field %q", err, want)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("%q does not say %q", err, says)
	}
}

func TestSelect(t *testing.T) {
	r := &fleet.Registry{Pops: []fleet.Pop{{Name: "fra1"}, {Name: "ams1"}, {Name: "gru1"}}}
	names := func(pops []fleet.Pop) (out []string) {
		for _, p := range pops {
			out = append(out, p.Name)
		}
		return out
	}
	for _, tc := range []struct {
		scope fleet.Scope
		want  []string
	}{
		{fleet.Scope{All: true}, []string{"fra1", "ams1", "gru1"}},
		{fleet.Scope{Pops: []string{"gru1", "fra1"}}, []string{"fra1", "gru1"}},
	} {
		pops, err := r.Select(tc.scope)
		if d := cmp.Diff(tc.want, names(pops)); err != nil || d != "" {
			t.Errorf("%+v: %v %s", tc.scope, err, d)
		}
	}
	for _, tc := range []struct {
		scope fleet.Scope
		kind  problem.Kind
		field string
		says  string
	}{
		{fleet.Scope{}, problem.Invalid, "scope", "an empty scope selects nothing"},
		{fleet.Scope{All: true, Pops: []string{"fra1"}}, problem.Invalid, "scope", "not both"},
		{fleet.Scope{Pops: []string{"fra1", "lhr1"}}, problem.NotFound, "scope.pops[1]", `no PoP "lhr1"; it has ams1, fra1, gru1`},
		{fleet.Scope{Pops: []string{"fra1", "fra1"}}, problem.Invalid, "scope.pops[1]", "named twice"},
	} {
		pops, err := r.Select(tc.scope)
		refused(t, pops == nil, err, tc.kind, tc.field, tc.says)
	}
}

func FuzzParseRegistry(f *testing.F) {
	f.Add([]byte(registryHead + "pops:\n" + pop("fra1", "c1", "n") + pop("ams1", "c2", "n")))
	f.Add([]byte("a: &a [*a, *a]\n"))
	f.Add([]byte("{apiVersion: edgehold.internal/v1alpha1, kind: PopRegistry, pops: [{name: x, <<: {name: y}}]}"))
	f.Add([]byte(registryHead + "pops:\n- {name: a, region: b, latitude: 1e308, longitude: 0x1p-2, context: c1, namespace: d}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := fleet.ParseRegistry(data, []string{"c1", "c2"})
		if err != nil {
			if k := problem.KindOf(err); k != problem.Invalid && k != problem.ResourceExhausted {
				t.Fatalf("kind %v: %v", k, err)
			}
			return
		}
		seen := map[string]bool{}
		for _, p := range r.Pops {
			if p.Name == "" || p.Region == "" || p.Namespace == "" || p.Context != "c1" && p.Context != "c2" || seen[p.Name] ||
				!(p.Latitude >= -90 && p.Latitude <= 90 && p.Longitude >= -180 && p.Longitude <= 180) {
				t.Fatalf("accepted %+v", p)
			}
			seen[p.Name] = true
		}
		if len(r.Pops) == 0 || len(r.Pops) > fleet.MaxPops {
			t.Fatalf("accepted %d PoPs", len(r.Pops))
		}
	})
}
