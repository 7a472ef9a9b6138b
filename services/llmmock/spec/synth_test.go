package spec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
)

var instant = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Whatever is made up of a schema is an instance of it, and the same each time.
func TestSynthesize(t *testing.T) {
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		d := document(t, v)
		for _, op := range d.Operations() {
			op.ready()
			for _, c := range op.answers {
				if c.schema == nil {
					continue
				}
				for seed := range uint64(5) {
					text := c.schema.Synthesize(rand.New(rand.NewPCG(seed, 1)), instant)
					if vs := c.schema.validate(text); len(vs) > 0 {
						t.Errorf("%s %s: %s (%s) in %.600s", v, op.Pattern(), vs[0], vs[0].Field, text)
						break
					}
					if again := c.schema.Synthesize(rand.New(rand.NewPCG(seed, 1)), instant); !bytes.Equal(text, again) {
						t.Errorf("%s %s: the same seed made %.300s and %.300s", v, op.Pattern(), text, again)
					}
				}
			}
		}
	}
}

// A request that is made up is one that the vendor takes, which shows unions that nothing fits.
func TestSynthesizedRequests(t *testing.T) {
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		for _, op := range document(t, v).Operations() {
			op.ready()
			for _, c := range append([]content{{schema: op.query}}, op.bodies...) {
				if c.schema == nil {
					continue
				}
				text := c.schema.Synthesize(rand.New(rand.NewPCG(1, 1)), instant)
				if vs := c.schema.validate(text); len(vs) > 0 {
					t.Errorf("%s %s: %s (%s) in %.600s", v, op.Pattern(), vs[0], vs[0].Field, text)
				}
			}
		}
	}
}

// What each operation does with objects follows from shapes of paths; the list says what came out, and is reviewed when it changes.
func TestShapes(t *testing.T) {
	names := map[shape]string{doCall: "call", doCreate: "create", doList: "list", doGet: "get", doUpdate: "update", doRemove: "remove", doAct: "act", doBlob: "blob",
		doSingle: "single", doClear: "clear", doMany: "many"}
	var b strings.Builder
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		for _, op := range document(t, v).Operations() {
			it := op.knows()
			fmt.Fprintf(&b, "%-9s %-8s %s", v, names[op.kind], op.Pattern())
			if op.kind == doCreate || op.kind == doMany {
				fmt.Fprintf(&b, "  %s by %s, %s…", it.name, it.key, it.prefix)
			}
			b.WriteByte('\n')
		}
	}
	golden(t, "testdata/shapes.golden", b.String())
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what it was; UPDATE_GOLDEN=1 writes what it is now:\n%s", path, difference(string(want), got))
	}
}

// difference is the first lines that differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var b strings.Builder
	n := 0
	for i := range max(len(w), len(g)) {
		a, z := "", ""
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			z = g[i]
		}
		if a != z && n < 10 {
			n++
			fmt.Fprintf(&b, "line %d\n- %s\n+ %s\n", i+1, a, z)
		}
	}
	return b.String()
}

func TestMatching(t *testing.T) {
	m := &maker{r: rand.New(rand.NewPCG(1, 1))}
	for _, p := range []string{`^[a-zA-Z0-9_-]{1,64}$`, `^file-[a-z0-9]{6}$`, `^(a|b)+c?$`, `^\d{4}-\d{2}$`, `^[^\s]+@x\.y$`, `^wrkspc_.+$`} {
		text := m.matching(p)
		if !regexp.MustCompile(p).MatchString(text) {
			t.Errorf("%s: %q", p, text)
		}
	}
}
