package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"edgehold.internal/e2e/stage"
	"edgehold.internal/services/fleet/kube/v1alpha1"
)

// TestBadInput: what is wrong is refused with the right code, in a sentence that names it and says what is allowed, and
// nothing is changed.
func TestBadInput(t *testing.T) {
	s, ctx := scenario(t)
	gate := s.strict(t, ctx)
	long := strings.Repeat("x", 5000)
	before := s.stored(t, ctx)

	// As a person types it; the exit codes are those of edgehold --help.
	for _, c := range []struct {
		name string
		args string
		exit int
		says string
	}{
		{"unknown PoP", "rollback --reason r --pops ams1,nowhere1", 2, `--pops: the registry has no PoP "nowhere1"; it has ams1, `},
		{"unknown PoP, direct", "rollback --direct --reason r --pops nowhere1", 2, `--pops: the registry has no PoP "nowhere1"; it has ams1, `},
		{"a PoP twice", "rollback --reason r --pops ams1,ams1", 2, `--pops: "ams1" is named twice`},
		{"unknown first PoP", "rollback --reason r --first-pop nowhere1", 2, `--first-pop: "nowhere1" is not in the scope; there is ams1, `},
		{"unknown fleet", "rollback --reason r --fleet nothing", 2, `has no fleet "nothing"; it has edge`},
		{"unknown fleet, direct", "rollback --direct --to blue --reason r --fleet nothing", 2, `has no fleet "nothing"; it has edge`},
		{"unknown colour", "rollback --reason r --to red", 2, `--to: "red" is not a colour; use blue or green`},
		{"unknown version", "rollback --reason r --version v9", 2, `--version: no PoP in scope has version "v9" in either colour; there is v1, v2`},
		{"unknown version, direct", "rollback --direct --reason r --version v9", 2, `"v9"`},
		{"another version", "cutover --to blue --reason r --version v2 --dry-run", 3, "blue runs version v1 and v2 was asked for"},
		{"empty scope", "rollback --reason r --pops=", 2, "--pops: it is empty, and an empty scope selects nothing"},
		{"no reason", "rollback", 2, "--reason: say why"},
		{"deadline too long", "rollback --reason r --deadline 9h", 2, "--deadline 9h0m0s: must be greater than 0s and less than or equal to 3600s"},
		{"freeze too long", "fleet freeze edge --reason r --for 9999h", 2, "more than 90 days away; freeze for less"},
		{"unknown operation", "operation abort edge.none --reason r", 2, `"edge.none" is no operation; edgehold operation list shows those there are`},
		{"unknown command", "operation stop", 2, `"stop" is not a command of edgehold operation; use list, get, `},
		{"no token", "fleet freeze edge --reason r --for 1h --config " + gate.config(t, ""), 3, "a bearer token"},
		{"wrong token", "fleet freeze edge --reason r --for 1h --config " + gate.config(t, "wrong-wrong-wrong-wrong"), 3, "the bearer token is not known here; it may have been replaced: get the current one"},
		{"expired token", "fleet freeze edge --reason r --for 1h --config " + gate.config(t, "past-past-past-past"), 3, `the token of "past" expired at 2001-01-01T00:00:00Z; get a new one`},
		{"token without the role", "fleet freeze edge --reason r --for 1h --config " + gate.config(t, "look-look-look-look"), 3, "operator"},
		{"over the size limit", "fleet freeze edge --for 1h --reason " + long + " --config " + gate.config(t, "work-work-work-work"), 3, "and 4096 are allowed (--max-request-bytes)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := s.Run(ctx, strings.Fields(c.args)...)
			if exitCode(err) != c.exit || !strings.Contains(err.Error(), c.says) {
				t.Errorf("want exit code %d and %q, got %v\n%s", c.exit, c.says, err, out)
			}
			s.unchanged(t, ctx, before)
		})
	}

	// As a program sends it, with what the command would not let through. The codes are those of Connect.
	fleetService, runbookService := "/edgehold.fleet.v1.FleetService/", "/edgehold.runbook.v1.RunbookService/"
	cutOver := `{"pop": "odd1", "fleet": %q, "to": "COLOUR_GREEN", "reason": "r", "idempotency_key": "k"}`
	for _, c := range []struct {
		name, url, body string
		code, says      string
	}{
		{"empty scope", s.FleetURL + fleetService + "PlanCutover", `{"fleet": "edge", "scope": {}}`, "invalid_argument", "scope"},
		{"no scope", s.FleetURL + fleetService + "ListFleets", `{}`, "invalid_argument", "scope"},
		{"all and some", s.RunbooksURL + runbookService + "Start",
			`{"reason": "r", "idempotency_key": "k", "global_cutover": {"kind": "KIND_ROLLBACK", "fleet": "edge", "scope": {"all": true, "pops": ["ams1"]}}}`, "invalid_argument", "scope"},
		{"unknown colour", s.FleetURL + fleetService + "CutOver", `{"pop": "ams1", "fleet": "edge", "to": 7, "reason": "r", "idempotency_key": "k"}`, "invalid_argument", "to"},
		{"no key", s.FleetURL + fleetService + "CutOver", `{"pop": "ams1", "fleet": "edge", "to": "COLOUR_BLUE", "reason": "r"}`, "invalid_argument", "idempotency_key"},
		{"a fleet without its Service", gate.url + fleetService + "CutOver", fmt.Sprintf(cutOver, "no-service"), "failed_precondition",
			"spec.service: there is no Service nowhere in this namespace; create it or correct the name"},
		{"a fleet without a Deployment", gate.url + fleetService + "CutOver", fmt.Sprintf(cutOver, "no-deployment"), "failed_precondition",
			"spec.green.deployment: there is no Deployment nowhere in this namespace; create it or correct the name"},
		{"a selector that matches both colours", gate.url + fleetService + "CutOver", fmt.Sprintf(cutOver, "both"), "failed_precondition",
			"spec.service: the selector of Service both has no edgehold.internal/colour and would match both colours; add it with the colour that is served now"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, message := ask(t, ctx, c.url, c.body)
			if code != c.code || !strings.Contains(message, c.says) {
				t.Errorf("want %s and %q, got %s: %s", c.code, c.says, code, message)
			}
			s.unchanged(t, ctx, before)
		})
	}

	t.Run("a fleet whose colours are the same", func(t *testing.T) {
		_, err := s.Cluster(gate.pop).Dynamic.Resource(v1alpha1.GroupVersion.WithResource("fleets")).Namespace(gate.pop.Namespace).Create(ctx, oddFleet("same", "edge", "edge-blue", "edge-blue"), metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "blue and green name the same Deployment; each colour needs its own") {
			t.Errorf("the API server says %v", err)
		}
		s.unchanged(t, ctx, before)
	})

	// The registry is followed: a wrong one is not put in force, and the service says so until it is right again.
	right, err := os.ReadFile(gate.registry)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, says string }{
		"a registry with a duplicate":          {"name: odd1", "name: ams1", `\"ams1\" is already the name of the PoP on line`},
		"a registry with an unknown context":   {"context: " + gate.pop.Context + "\n  latitude: 1\n", "context: nowhere\n  latitude: 1\n", `the kubeconfig has no context \"nowhere\"; it has `},
		"a registry with an unknown field":     {"name: odd1", "nam: odd1", `unknown field \"nam\"; allowed are name, `},
		"a registry that is not YAML any more": {"kind: PopRegistry", "kind: [", "the registry is not YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := bytes.Replace(right, []byte(c.from), []byte(c.to), 1)
			if bytes.Equal(wrong, right) {
				t.Fatalf("%q is not in\n%s", c.from, right)
			}
			gate.write(t, wrong)
			gate.awaitWarning(t, ctx, true)
			log, err := os.ReadFile(gate.process.Log)
			if err != nil || !strings.Contains(string(log), c.says) || !strings.Contains(string(log), "the last good one, of 7 PoPs, stays in force; correct it") {
				t.Errorf("the log does not say %q: %v", c.says, err)
			}
			if out, err := s.Run(ctx, "pop", "list", "--config", gate.config(t, "look-look-look-look")); err != nil || !strings.Contains(out, "\nodd1 ") {
				t.Errorf("the last good registry is not in force: %v\n%s", err, out)
			}
			gate.write(t, right)
			gate.awaitWarning(t, ctx, false)
			s.unchanged(t, ctx, before)
		})
	}

	// The same call a second time is the same operation; the same key for something else is refused.
	again := []string{"cutover", "--to", "green", "--reason", "again", "--idempotency-key", "again", "--detach"}
	first, err := s.Run(ctx, again...)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := s.Run(ctx, again...); err != nil || second != first {
		t.Errorf("the second call is %q and the first %q: %v", second, first, err)
	}
	if out, err := s.Run(ctx, "cutover", "--to", "blue", "--reason", "again", "--idempotency-key", "again"); exitCode(err) != 3 || !strings.Contains(err.Error(), "--idempotency-key: ") {
		t.Errorf("want exit code 3 for a key that was used for something else, got %v\n%s", err, out)
	}
	if out, err := s.Run(ctx, "operation", "watch", strings.TrimSpace(first)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	s.unchanged(t, ctx, before)
}

// strict is a fleet service that asks who one is, and that knows one more PoP, whose fleets are wrong.
type strict struct {
	process       *stage.Process
	url, registry string
	pop           stage.Pop
	dir           string
}

func (s *scene) strict(t *testing.T, ctx context.Context) *strict {
	t.Helper()
	g := &strict{dir: t.TempDir(), pop: stage.Pop{Name: "odd1", Namespace: "pop-odd1", Context: s.Clusters[0].Context}}
	g.registry = filepath.Join(g.dir, "pops.yaml")
	s.applyOdd(t, ctx, g.pop)
	body, err := os.ReadFile(s.Registry())
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, fmt.Appendf(body, "- context: %s\n  latitude: 1\n  longitude: 1\n  name: %s\n  namespace: %s\n  region: nowhere\n", g.pop.Context, g.pop.Name, g.pop.Namespace))
	tokens := filepath.Join(g.dir, "tokens.yaml")
	if err := os.WriteFile(tokens, []byte(`tokens:
- {name: work, token: work-work-work-work, roles: [operator]}
- {name: look, token: look-look-look-look, roles: [viewer]}
- {name: past, token: past-past-past-past, roles: [operator], expires: 2001-01-01T00:00:00Z}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	g.process = &stage.Process{Name: "strict", Log: filepath.Join(g.dir, "strict.log"), Args: []string{filepath.Join(s.Bin, "fleet"), "serve", "--pops=" + g.registry,
		"--kubeconfig=" + s.CentreKubeconfig(), "--listen=127.0.0.1:0", "--tokens-file=" + tokens, "--max-request-bytes=4096", "--audit-log=" + filepath.Join(g.dir, "audit.log")}}
	ready, err := g.process.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.process.Stop(5 * time.Second) })
	g.url = fmt.Sprint("http://", ready["address"])
	return g
}

// applyOdd makes a PoP of which each fleet is wrong in its own way.
func (s *scene) applyOdd(t *testing.T, ctx context.Context, p stage.Pop) {
	t.Helper()
	template, err := stage.Build(filepath.Join(s.Root, "deploy", "demo"))
	if err != nil {
		t.Fatal(err)
	}
	apply := func(o *unstructured.Unstructured) {
		if err := s.Cluster(p).Apply(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range template {
		if o.GetKind() == "Namespace" {
			o.SetName(p.Namespace)
			apply(o)
		}
	}
	for _, f := range []*unstructured.Unstructured{
		oddFleet("no-service", "nowhere", "no-service-blue", "no-service-green"),
		oddFleet("no-deployment", "no-deployment", "no-deployment-blue", "nowhere"),
		oddFleet("both", "both", "both-blue", "both-green"),
	} {
		for _, o := range template {
			o := o.DeepCopy()
			switch o.GetKind() {
			case "Service":
				o.SetName(f.GetName())
				if f.GetName() == "both" {
					unstructured.RemoveNestedField(o.Object, "spec", "selector", v1alpha1.ColourLabel)
				}
			case "Deployment":
				o.SetName(strings.Replace(o.GetName(), "edge", f.GetName(), 1))
				_ = unstructured.SetNestedField(o.Object, int64(0), "spec", "replicas")
			default:
				continue
			}
			o.SetNamespace(p.Namespace)
			apply(o)
		}
		f.SetNamespace(p.Namespace)
		apply(f)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := s.Cluster(p).Kube.CoreV1().Namespaces().Delete(ctx, p.Namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func oddFleet(name, service, blue, green string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "Fleet", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"service": service, "blue": map[string]any{"deployment": blue}, "green": map[string]any{"deployment": green}, "active": "blue", "replicas": int64(0)},
	}}
}

// config is a file for the edgehold command that reaches the strict service with the token, or with none.
func (g *strict) config(t *testing.T, token string) string {
	t.Helper()
	name := filepath.Join(g.dir, "config-"+token)
	lines := "fleet: " + g.url + "\n"
	if token != "" {
		lines += "tokenFile: " + name + ".token\n"
		if err := os.WriteFile(name+".token", []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(name, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// write replaces the registry in one step, as an editor does.
func (g *strict) write(t *testing.T, registry []byte) {
	t.Helper()
	if err := os.WriteFile(g.registry+".new", registry, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(g.registry+".new", g.registry); err != nil {
		t.Fatal(err)
	}
}

// awaitWarning returns when the service raises the warning about its registry, or has taken it back.
func (g *strict) awaitWarning(t *testing.T, ctx context.Context, raised bool) {
	t.Helper()
	for {
		_, body := get(t, ctx, http.MethodGet, g.url+"/healthz", "")
		if strings.Contains(body, "warning: registry") == raised {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the warning is not raised=%t: %v\n%s", raised, ctx.Err(), body)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func get(t *testing.T, ctx context.Context, method, url, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer work-work-work-work")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// ask calls a procedure as JSON over HTTP and returns the code and the message of its error.
func ask(t *testing.T, ctx context.Context, url, body string) (code, message string) {
	t.Helper()
	status, answer := get(t, ctx, http.MethodPost, url, body)
	if status == http.StatusOK {
		return "ok", answer
	}
	var e struct{ Code, Message string }
	if err := json.Unmarshal([]byte(answer), &e); err != nil {
		t.Fatalf("%s answers %d: %s", url, status, answer)
	}
	return e.Code, e.Message
}

// stored is what a request could have changed: each Fleet as it is declared, and each Service.
func (s *scene) stored(t *testing.T, ctx context.Context) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, c := range s.Clusters {
		fleets, err := c.Dynamic.Resource(v1alpha1.GroupVersion.WithResource("fleets")).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fleets.Items {
			spec, err := yaml.Marshal(f.Object["spec"])
			if err != nil {
				t.Fatal(err)
			}
			found[c.Context+" Fleet "+f.GetNamespace()+"/"+f.GetName()] = fmt.Sprintf("generation %d\n%s", f.GetGeneration(), spec)
		}
		services, err := c.Kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range services.Items {
			found[c.Context+" Service "+o.Namespace+"/"+o.Name] = fmt.Sprintf("resourceVersion %s, selector %v", o.ResourceVersion, o.Spec.Selector)
		}
	}
	return found
}

func (s *scene) unchanged(t *testing.T, ctx context.Context, before map[string]string) {
	t.Helper()
	after := s.stored(t, ctx)
	for name := range after {
		if after[name] != before[name] {
			t.Errorf("%s was\n%s\nand is\n%s", name, before[name], after[name])
		}
	}
	if len(after) < len(before) {
		t.Errorf("%d objects are left of %d", len(after), len(before))
	}
}
