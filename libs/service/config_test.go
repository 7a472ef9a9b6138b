package service

import (
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/libs/problem"
)

func TestValidate(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := Config{Name: "fleet"}
		change(&c)
		return c
	}
	for _, tt := range []struct {
		cfg  Config
		want string // of the error; empty for none
	}{
		{Config{Name: "fleet"}, ""},
		{Config{}, "name: the service has no name"},
		{with(func(c *Config) { c.Listen = "localhost:0" }), ""},
		{with(func(c *Config) { c.Listen = "127.3.0.1:8443" }), ""},
		{with(func(c *Config) { c.Listen = "[::1]:8443" }), ""},
		{with(func(c *Config) { c.Listen = "[::ffff:127.0.0.1]:8443" }), ""},
		{with(func(c *Config) { c.Listen = "8443" }), `--listen: "8443" is not host:port`},
		{with(func(c *Config) { c.Listen = ":8443" }), `--listen: ":8443" is beyond loopback and nobody would be authenticated: set --tokens-file, --oidc-issuer or --client-ca`},
		{with(func(c *Config) { c.Listen = "0.0.0.0:8443" }), "beyond loopback"},
		{with(func(c *Config) { c.Listen = "[::]:8443" }), "beyond loopback"},
		{with(func(c *Config) { c.Listen = "edge.example:8443" }), "beyond loopback"},
		{with(func(c *Config) { c.Listen, c.TokensFile = ":8443", "tokens.yaml" }), ""},
		{with(func(c *Config) { c.Listen, c.OIDCIssuer, c.OIDCAudience = ":8443", "https://id.example", "edgehold" }), ""},
		{with(func(c *Config) { c.TLSCert = "c" }), `--tls-cert: "c" with --tls-key "": set both or neither`},
		{with(func(c *Config) { c.ClientCA = "ca" }), `--client-ca: "ca" needs --tls-cert`},
		{with(func(c *Config) { c.ClientCA, c.TLSCert, c.TLSKey = "ca", "c", "k" }), `--client-ca: "ca" needs --tokens-file`},
		{with(func(c *Config) { c.OIDCIssuer = "https://id.example" }), `--oidc-issuer: "https://id.example" with --oidc-audience ""`},
		{with(func(c *Config) { c.OIDCIssuer, c.OIDCAudience = "id.example", "a" }), `--oidc-issuer: "id.example" is not allowed: https://host, http://host`},
		{with(func(c *Config) { c.OTLPEndpoint = "127.0.0.1:4318" }), `--otlp-endpoint: "127.0.0.1:4318" is not allowed`},
		{with(func(c *Config) { c.LogLevel = "loud" }), `--log-level: "loud" is not allowed: debug, info, warn, error`},
		{with(func(c *Config) { c.LogFormat = "xml" }), `--log-format: "xml" is not allowed: json, text`},
		{with(func(c *Config) { c.MaxRequestBytes = 1 }), `--max-request-bytes: 1 is not allowed: 1024 to 268435456`},
		{with(func(c *Config) { c.MaxInFlight = -1 }), `--max-in-flight: -1 is not allowed: 1 to 100000`},
		{with(func(c *Config) { c.MaxStreams = 1e6 }), `--max-streams: 1000000 is not allowed`},
		{with(func(c *Config) { c.RatePerPrincipal = -1 }), `--rate-per-principal: -1 is not allowed: 0 (no limit) to 100000`},
		{with(func(c *Config) { c.RatePerPrincipal = math.NaN() }), `--rate-per-principal: NaN is not allowed`},
		{with(func(c *Config) { c.StopGrace = time.Hour }), `--stop-grace: 1h0m0s is not allowed: 1ms to 10m0s`},
	} {
		err := tt.cfg.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: got %v, want %q", tt.cfg, err, tt.want)
		}
		if err != nil && problem.KindOf(err) != problem.Invalid {
			t.Errorf("%v is %v", err, problem.KindOf(err))
		}
		if _, newErr := New(tt.cfg); err != nil && newErr == nil {
			t.Errorf("%+v: New takes what Validate refuses", tt.cfg)
		}
	}
}

func TestFlags(t *testing.T) {
	cfg := Config{Name: "fleet", Listen: "127.0.0.1:9999"}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse([]string{"--log-level=warn", "--max-request-bytes=4096"}); err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:9999" || cfg.LogLevel != "warn" || cfg.MaxRequestBytes != 4096 || cfg.StopGrace != 10*time.Second {
		t.Errorf("got %+v", cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
	for _, flag := range []string{"tls-cert", "client-ca", "tokens-file"} {
		if fs.Lookup(flag).DefValue != "" {
			t.Errorf("--%s has a default", flag)
		}
	}
}

// TestMissingFiles is a service that is told of files that are not there: it must not start without them.
func TestMissingFiles(t *testing.T) {
	there := write(t, []byte(tokens))[0]
	for want, cfg := range map[string]Config{
		"--tokens-file no-such-tokens: ":              {TokensFile: "no-such-tokens"},
		`--tls-cert: "no-such-cert" cannot be read: `: {TLSCert: "no-such-cert", TLSKey: "no-such-key"},
		`--tls-key: "no-such-key" cannot be read: `:   {TLSCert: there, TLSKey: "no-such-key"},
		`--client-ca: "no-such-ca" cannot be read: `:  {TLSCert: there, TLSKey: there, ClientCA: "no-such-ca", TokensFile: there},
	} {
		cfg.Name = "fleet"
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, "..")
	pkgdoc.Exported(t, "..")
	pkgdoc.Forbid(t, "../problem", "connectrpc.com/...", "the domains return problems, and know no RPC")
	pkgdoc.Forbid(t, "../problem", "google.golang.org/...", "the domains return problems, and know no RPC")
	pkgdoc.Forbid(t, "../client", "edgehold.internal/libs/service", "whoever calls a service does not serve")
	pkgdoc.Forbid(t, "./...", "k8s.io/...", "libs is what every service shares, and not every service knows Kubernetes")
}

// TestReadme: each flag is in the README, and the README has no other.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	section, _, _ := strings.Cut(string(readme), "## client")
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	new(Config).Flags(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(section, "`--"+f.Name+"`") {
			t.Errorf("--%s is not in the README", f.Name)
		}
	})
	for _, name := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(section, -1) {
		if fs.Lookup(name[1]) == nil {
			t.Errorf("the README has --%s, and there is no such flag", name[1])
		}
	}
}
