package temporal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string // empty: it is allowed
	}{
		{Config{Dir: "d"}, ""},
		{Config{Dir: "d", Namespace: "edge-1.prod_x", Port: 7233, UIPort: 8233, LogLevel: "debug"}, ""},
		{Config{}, "dir: is empty"},
		{Config{Dir: "a?b"}, "dir:"},
		{Config{Dir: "d", Namespace: "a b"}, "namespace: \"a b\""},
		{Config{Dir: "d", Namespace: "temporal-system"}, "namespace: \"temporal-system\""},
		{Config{Dir: "d", Port: -1}, "port: -1"},
		{Config{Dir: "d", UIPort: 65536}, "ui-port: 65536"},
		{Config{Dir: "d", Port: 7233, UIPort: 7233}, "ui-port: 7233"},
		{Config{Dir: "d", LogLevel: "loud"}, "log-level: \"loud\""},
	} {
		err := tt.cfg.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

func TestPortsAreRememberedAndOutsideTheEphemeralRange(t *testing.T) {
	first, err := choosePorts(t.Context(), "/a", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	low, high := outsideEphemeral()
	seen := map[int]bool{}
	for _, name := range listeners {
		p := first[name]
		if p < low || p > high || seen[p] {
			t.Errorf("%s has port %d of %v, want one of its own in %d to %d", name, p, first, low, high)
		}
		seen[p] = true
	}
	again, err := choosePorts(t.Context(), "/a", map[string]int{"ui": first["frontend"]}, first)
	if err != nil {
		t.Fatal(err)
	}
	if again["ui"] != first["frontend"] || again["frontend"] == first["frontend"] || again["history"] != first["history"] {
		t.Errorf("ports %v, were %v, and %d was asked for the UI", again, first, first["frontend"])
	}
}

func TestStateIsReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	want := &state{Schema: "1", VisibilitySchema: "2", Shards: 4, Ports: map[string]int{"ui": 1}}
	if err := want.write(path); err != nil {
		t.Fatal(err)
	}
	got, err := readState(path)
	if err != nil || got.Schema != want.Schema || got.Shards != 4 || got.Ports["ui"] != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("%d files are left, want one", len(entries))
	}
	if got, err := readState(filepath.Join(t.TempDir(), "none")); got != nil || err != nil {
		t.Errorf("without a file: %v, %v", got, err)
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"schema":"0.11","visibility_schema":"0.1","shards":4,"ports":{"ui":20000}}`))
	f.Add([]byte(`{"shards":0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		if s.Shards < 1 {
			t.Errorf("%d shards", s.Shards)
		}
		for name, p := range s.Ports {
			if p < 1 || p > 65535 {
				t.Errorf("port %d for %s", p, name)
			}
		}
	})
}
