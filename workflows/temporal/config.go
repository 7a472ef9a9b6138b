package temporal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"edgehold.internal/libs/problem"
)

// Config says where Temporal is and what this process does for it.
type Config struct {
	// Address is the host:port of Temporal's frontend. Default 127.0.0.1:7233.
	Address string
	// Namespace must exist. Default "default".
	Namespace string
	// TaskQueue that operations run on. Default "edgehold-runbooks".
	TaskQueue string
	// CAFile, CertFile and KeyFile are PEM files. With any of them, a ServerName or an API key, the connection is TLS.
	CAFile, CertFile, KeyFile string
	// ServerName that the server's certificate is checked against. Empty for the host of Address.
	ServerName string
	// APIKeyFile holds an API key, as Temporal Cloud takes it. It is read for every call.
	APIKeyFile string
	// ServeOnly runs no worker: operations wait until another process has one.
	ServeOnly bool
	// KeepCurrent leaves the current version of the worker deployment as it is. Without it a worker makes its own build the
	// current one, which is what a fresh server needs.
	KeepCurrent bool
}

func (c *Config) withDefaults() Config {
	out := *c
	for _, f := range []struct {
		field    *string
		fallback string
	}{{&out.Address, "127.0.0.1:7233"}, {&out.Namespace, "default"}, {&out.TaskQueue, Deployment}} {
		if *f.field == "" {
			*f.field = f.fallback
		}
	}
	return out
}

// Flags adds one flag per field to fs, but for ServeOnly.
func (c *Config) Flags(fs *pflag.FlagSet) {
	d := c.withDefaults()
	fs.StringVar(&c.Address, "temporal", d.Address, "host:port of Temporal's frontend")
	fs.StringVar(&c.Namespace, "namespace", d.Namespace, "Temporal namespace")
	fs.StringVar(&c.TaskQueue, "task-queue", d.TaskQueue, "Temporal task queue")
	fs.StringVar(&c.CAFile, "temporal-ca-file", d.CAFile, "PEM file with the authorities of Temporal's certificate")
	fs.StringVar(&c.CertFile, "temporal-cert-file", d.CertFile, "PEM file with the client certificate for Temporal")
	fs.StringVar(&c.KeyFile, "temporal-key-file", d.KeyFile, "PEM file with the client certificate's key")
	fs.StringVar(&c.ServerName, "temporal-server-name", d.ServerName, "name in Temporal's certificate; empty for the host of --temporal")
	fs.StringVar(&c.APIKeyFile, "temporal-api-key-file", d.APIKeyFile, "file with an API key for Temporal")
	fs.BoolVar(&c.KeepCurrent, "keep-current", d.KeepCurrent, "do not make this worker's build the current one; a rollout does")
}

// Validate names the field, its value and what is allowed.
func (c *Config) Validate() error {
	d := c.withDefaults()
	if _, port, err := net.SplitHostPort(d.Address); err != nil || port == "" {
		return problem.Invalidf("temporal", "%q is not host:port", c.Address)
	}
	if strings.ContainsAny(d.Namespace, " '\"") {
		return problem.Invalidf("namespace", "%q has spaces or quotes; use the name of a Temporal namespace without them", c.Namespace)
	}
	if strings.ContainsAny(d.TaskQueue, " '\"") {
		return problem.Invalidf("task-queue", "%q has spaces or quotes; use a name without them", c.TaskQueue)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return problem.Invalidf("temporal-cert-file", "%q with temporal-key-file %q: set both or neither", c.CertFile, c.KeyFile)
	}
	if c.APIKeyFile != "" && c.CertFile != "" {
		return problem.Invalidf("temporal-api-key-file", "%q together with a client certificate: set one of them", c.APIKeyFile)
	}
	return nil
}

// options of a client. It reads the files.
func (c Config) options(log *slog.Logger) (client.Options, error) {
	o := client.Options{HostPort: c.Address, Namespace: c.Namespace, Logger: quiet{sdklog.NewStructuredLogger(log)}}
	// Messages are small, and in a rush there are hundreds: compressing them costs more than it saves.
	o.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{}
	// A Temporal that was away is found again within 2 s. The client's own back-off grows to 10 s, in which starts and
	// decisions would be refused.
	o.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: callTimeout,
		Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}})}
	if c.CAFile != "" || c.CertFile != "" || c.ServerName != "" || c.APIKeyFile != "" {
		conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
		if c.CAFile != "" {
			pem, err := os.ReadFile(c.CAFile)
			if err != nil {
				return o, fmt.Errorf("--temporal-ca-file: %w", err)
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return o, problem.Invalidf("temporal-ca-file", "%q has no PEM certificate", c.CAFile)
			}
		}
		if c.CertFile != "" {
			if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
				return o, fmt.Errorf("--temporal-cert-file: %w", err)
			}
			// Read for each connection, so that a renewed certificate needs no restart.
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
				return &pair, err
			}
		}
		o.ConnectionOptions.TLS = conf
	}
	if c.APIKeyFile != "" {
		o.Credentials = client.NewAPIKeyDynamicCredentials(func(context.Context) (string, error) {
			b, err := os.ReadFile(c.APIKeyFile)
			return strings.TrimSpace(string(b)), err
		})
	}
	return o, nil
}

// quiet keeps the SDK's debug and info lines, one per task, out of our log. What it calls an error is mostly an activity
// that will be tried again, or a PoP that said no.
type quiet struct{ sdklog.Logger }

func (q quiet) Error(msg string, keyvals ...any) { q.Logger.Warn(msg, keyvals...) }

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
