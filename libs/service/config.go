package service

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"edgehold.internal/libs/problem"
)

// Config is all that a service needs to know to serve. The zero value of a field stands for its default, so that a test
// sets Name and nothing else.
type Config struct {
	// Name is the service's name in logs, metrics and traces. Required.
	Name string
	// Version of the binary in metrics, traces and the log. Default "dev".
	Version string

	// Listen is the host:port of the one listener; port 0 takes a free one. Default 127.0.0.1:0. Beyond loopback it needs
	// TokensFile, OIDCIssuer or ClientCA.
	Listen string
	// TLSCert and TLSKey are PEM files, read again when they change. Empty for plain text (HTTP/1.1 and h2c).
	TLSCert, TLSKey string
	// ClientCA is a PEM file, read again when it changes: a caller with a certificate of one of these authorities is the
	// principal that TokensFile gives to the certificate's subject. Needs TLSCert and TokensFile.
	ClientCA string
	// TokensFile is a YAML file of bearer tokens and certificate subjects with their roles, read again when it changes. See
	// ParseAccess.
	TokensFile string
	// OIDCIssuer is the https URL of an OpenID Connect provider whose tokens are accepted, for OIDCAudience. Its discovery
	// document is fetched when the first such token arrives: the service starts without it.
	OIDCIssuer   string
	OIDCAudience string
	// OIDCRolesClaim is the claim with the roles, a string or a list; values that are no role are ignored. Default "roles".
	OIDCRolesClaim string
	// OIDCNameClaim is the claim with the principal's name. Default "sub".
	OIDCNameClaim string
	// PublicMetrics serves GET /metrics without authentication. Without it a principal with any role may read it.
	PublicMetrics bool

	// OTLPEndpoint is the URL of a collector that speaks OTLP over HTTP, such as http://127.0.0.1:4318. Empty switches
	// tracing off; ids in the callers' traceparent headers are logged all the same.
	OTLPEndpoint string
	// AuditLog is where the audit lines go: a file (appended to), "stdout" or "stderr". Default stderr.
	AuditLog string
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string
	// LogFormat is json or text. Default json.
	LogFormat string

	// MaxRequestBytes is the largest message that is accepted, in bytes, before and after decompression. Default 4 MiB.
	MaxRequestBytes int64
	// MaxInFlight is the highest number of unary calls at one time, and MaxStreams that of open streams; further ones are
	// resource_exhausted. Defaults 512 and 1024.
	MaxInFlight, MaxStreams int
	// RatePerPrincipal is the highest sustained number of calls per second of one principal, with a burst of twice that.
	// Default 0: no limit.
	RatePerPrincipal float64
	// StopGrace is how long a stop waits for calls under way. Default 10 s.
	StopGrace time.Duration

	// Log is where the log goes. Default os.Stderr. It has no flag.
	Log io.Writer
}

// The bounds that Validate names.
const (
	maxRequestBytesLimit = 256 << 20
	maxCallsLimit        = 100_000
	maxStopGrace         = 10 * time.Minute
)

// withDefaults returns c with every zero field set to its default.
func (c Config) withDefaults() Config {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&c.Version, "dev")
	set(&c.Listen, "127.0.0.1:0")
	set(&c.OIDCRolesClaim, "roles")
	set(&c.OIDCNameClaim, "sub")
	set(&c.AuditLog, "stderr")
	set(&c.LogLevel, "info")
	set(&c.LogFormat, "json")
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 4 << 20
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 512
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 1024
	}
	if c.StopGrace == 0 {
		c.StopGrace = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = os.Stderr
	}
	return c
}

// Flags adds one flag per field to fs, except for Name and Version. What c holds already is the default.
func (c *Config) Flags(fs *pflag.FlagSet) {
	d := c.withDefaults()
	fs.StringVar(&c.Listen, "listen", d.Listen, "host:port to serve on; beyond loopback it needs authentication")
	fs.StringVar(&c.TLSCert, "tls-cert", d.TLSCert, "PEM file with the certificate chain; empty for plain text")
	fs.StringVar(&c.TLSKey, "tls-key", d.TLSKey, "PEM file with the certificate's key")
	fs.StringVar(&c.ClientCA, "client-ca", d.ClientCA, "PEM file with the authorities of client certificates")
	fs.StringVar(&c.TokensFile, "tokens-file", d.TokensFile, "YAML file with bearer tokens, certificate subjects and their roles")
	fs.StringVar(&c.OIDCIssuer, "oidc-issuer", d.OIDCIssuer, "URL of the OpenID Connect provider whose tokens are accepted")
	fs.StringVar(&c.OIDCAudience, "oidc-audience", d.OIDCAudience, "audience that those tokens are for")
	fs.StringVar(&c.OIDCRolesClaim, "oidc-roles-claim", d.OIDCRolesClaim, "claim with the principal's roles")
	fs.StringVar(&c.OIDCNameClaim, "oidc-name-claim", d.OIDCNameClaim, "claim with the principal's name")
	fs.BoolVar(&c.PublicMetrics, "public-metrics", d.PublicMetrics, "serve /metrics without authentication")
	fs.StringVar(&c.OTLPEndpoint, "otlp-endpoint", d.OTLPEndpoint, "URL of a collector for traces (OTLP over HTTP), such as http://127.0.0.1:4318; empty for none")
	fs.StringVar(&c.AuditLog, "audit-log", d.AuditLog, "file for audit lines, or stdout or stderr")
	fs.StringVar(&c.LogLevel, "log-level", d.LogLevel, "debug, info, warn or error")
	fs.StringVar(&c.LogFormat, "log-format", d.LogFormat, "json or text")
	fs.Int64Var(&c.MaxRequestBytes, "max-request-bytes", d.MaxRequestBytes, "largest request message, in bytes")
	fs.IntVar(&c.MaxInFlight, "max-in-flight", d.MaxInFlight, "highest number of unary calls at one time")
	fs.IntVar(&c.MaxStreams, "max-streams", d.MaxStreams, "highest number of open streams")
	fs.Float64Var(&c.RatePerPrincipal, "rate-per-principal", d.RatePerPrincipal, "calls per second of one principal; 0 for no limit")
	fs.DurationVar(&c.StopGrace, "stop-grace", d.StopGrace, "how long a stop waits for calls under way")
}

// Validate returns a *problem.Error of kind Invalid that names the flag, its value and what is allowed, or nil. It reads
// no file.
func (c *Config) Validate() error {
	d := c.withDefaults()
	if d.Name == "" {
		return problem.Invalidf("name", "the service has no name; set Config.Name")
	}
	host, _, err := net.SplitHostPort(d.Listen)
	if err != nil {
		return problem.Invalidf("--listen", "%q is not host:port, such as 127.0.0.1:8443 or :8443", d.Listen)
	}
	if !loopback(host) && !d.authenticates() {
		return problem.Invalidf("--listen", "%q is beyond loopback and nobody would be authenticated: set --tokens-file, --oidc-issuer or --client-ca, or listen on 127.0.0.1", d.Listen)
	}
	if (d.TLSCert == "") != (d.TLSKey == "") {
		return problem.Invalidf("--tls-cert", "%q with --tls-key %q: set both or neither", d.TLSCert, d.TLSKey)
	}
	if d.ClientCA != "" && d.TLSCert == "" {
		return problem.Invalidf("--client-ca", "%q needs --tls-cert and --tls-key: certificates are only asked for over TLS", d.ClientCA)
	}
	if d.ClientCA != "" && d.TokensFile == "" {
		return problem.Invalidf("--client-ca", "%q needs --tokens-file, whose certificates section says which roles a subject has", d.ClientCA)
	}
	if (d.OIDCIssuer == "") != (d.OIDCAudience == "") {
		return problem.Invalidf("--oidc-issuer", "%q with --oidc-audience %q: set both or neither", d.OIDCIssuer, d.OIDCAudience)
	}
	if d.OIDCIssuer != "" {
		if err := httpURL("--oidc-issuer", d.OIDCIssuer, "https", "http"); err != nil {
			return err
		}
	}
	if d.OTLPEndpoint != "" {
		if err := httpURL("--otlp-endpoint", d.OTLPEndpoint, "https", "http"); err != nil {
			return err
		}
	}
	if err := oneOf("--log-level", d.LogLevel, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	if err := oneOf("--log-format", d.LogFormat, "json", "text"); err != nil {
		return err
	}
	if err := between("--max-request-bytes", d.MaxRequestBytes, 1024, maxRequestBytesLimit); err != nil {
		return err
	}
	if err := between("--max-in-flight", d.MaxInFlight, 1, maxCallsLimit); err != nil {
		return err
	}
	if err := between("--max-streams", d.MaxStreams, 1, maxCallsLimit); err != nil {
		return err
	}
	if !(d.RatePerPrincipal >= 0 && d.RatePerPrincipal <= maxCallsLimit) { // written so that NaN fails
		return problem.Invalidf("--rate-per-principal", "%v is not allowed: 0 (no limit) to %d calls per second", d.RatePerPrincipal, maxCallsLimit)
	}
	return between("--stop-grace", d.StopGrace, time.Millisecond, maxStopGrace)
}

// authenticates says whether callers are asked who they are.
func (c *Config) authenticates() bool {
	return c.TokensFile != "" || c.OIDCIssuer != "" || c.ClientCA != ""
}

// loopback says whether host can only be reached from this machine. An empty host is every address. Names other than
// localhost are not looked up: what they resolve to can change.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func oneOf(field, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return problem.Invalidf(field, "%q is not allowed: %s", value, strings.Join(allowed, ", "))
}

func between[T int | int64 | time.Duration](field string, value, low, high T) error {
	if value >= low && value <= high {
		return nil
	}
	return problem.Invalidf(field, "%v is not allowed: %v to %v", value, low, high)
}

func httpURL(field, value string, schemes ...string) error {
	scheme, rest, _ := strings.Cut(value, "://")
	if slices.Contains(schemes, scheme) && rest != "" && !strings.HasPrefix(rest, "/") {
		return nil
	}
	return problem.Invalidf(field, "%q is not allowed: %s", value, strings.Join(urls(schemes), ", "))
}

func urls(schemes []string) []string {
	out := make([]string, len(schemes))
	for i, s := range schemes {
		out[i] = fmt.Sprintf("%s://host", s)
	}
	return out
}
