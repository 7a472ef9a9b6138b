package temporal

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatMakesTheConnectionTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		config Config
		tls    bool
		err    string
	}{
		"nothing":        {Config{}, false, ""},
		"a server name":  {Config{ServerName: "temporal.example"}, true, ""},
		"an API key":     {Config{APIKeyFile: file("key", "k")}, true, ""},
		"no such file":   {Config{CAFile: filepath.Join(dir, "none")}, true, "--temporal-ca-file"},
		"no certificate": {Config{CAFile: file("ca", "x")}, true, "has no PEM certificate"},
		"no key pair":    {Config{CertFile: file("crt", "x"), KeyFile: file("pem", "x")}, true, "--temporal-cert-file"},
	} {
		o, err := c.config.options(slog.New(slog.DiscardHandler))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || (o.ConnectionOptions.TLS != nil) != c.tls {
			t.Errorf("%s: TLS is %v, %v", name, o.ConnectionOptions.TLS, err)
			continue
		}
		if c.tls && o.ConnectionOptions.TLS.ServerName != c.config.ServerName {
			t.Errorf("%s: it is checked for %q", name, o.ConnectionOptions.TLS.ServerName)
		}
	}
}
