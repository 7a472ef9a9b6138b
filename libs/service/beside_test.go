package service

import (
	"os"
	"path/filepath"
	"testing"

	"edgehold.internal/libs/problem"
)

func TestBeside(t *testing.T) {
	open := Config{Name: "x"}
	guarded := Config{Name: "x", TokensFile: "tokens"}
	certificates := Config{Name: "x", ClientCA: "ca"} // which another protocol may not have
	for _, tc := range []struct {
		config       *Config
		listen       string
		authenticate bool
		fails        bool
	}{
		{&open, "127.0.0.1:0", false, false}, {&open, "[::1]:53", false, false}, {&open, "localhost:53", false, false},
		{&open, ":53", false, true}, {&open, "0.0.0.0:53", false, true}, {&open, "53", false, true}, {&certificates, ":53", false, true},
		{&guarded, "127.0.0.1:0", false, false}, {&guarded, ":53", true, false},
	} {
		got, err := tc.config.ValidateBeside("--dns", tc.listen)
		if got != tc.authenticate || (err != nil) != tc.fails || err != nil && problem.KindOf(err) != problem.Invalid {
			t.Errorf("%q: %t, %v", tc.listen, got, err)
		}
	}
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("tokens: [{name: ci, token: at-least-sixteen-bytes, roles: [viewer]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Name: "x", TokensFile: file})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Token(t.Context(), "at-least-sixteen-bytes"); err != nil || p.Name != "ci" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.Token(t.Context(), "another"); problem.KindOf(err) != problem.Unauthenticated {
		t.Errorf("%v", err)
	}
}
