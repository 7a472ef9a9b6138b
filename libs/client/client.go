// Package client is how Edgehold's programs call its services: HTTP clients for unary calls and for streams, credentials
// that are read again when they change, and errors that come back as *problem.Error. Start at New.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/problem/wire"
	"edgehold.internal/libs/reload"
)

// Config says where a service is and who calls it.
type Config struct {
	// Address is http://host:port or https://host:port. Required. http is HTTP/2 without TLS (h2c), which all our services
	// speak; https speaks what the server offers.
	Address string
	// Token is a bearer token. It is visible to who can see the process's arguments; TokenFile is not.
	Token string
	// TokenFile holds the bearer token, read again when it changes. Not together with Token.
	TokenFile string
	// CAFile is a PEM file with the authorities of the server's certificate. Empty for the system's.
	CAFile string
	// CertFile and KeyFile are the PEM files of a client certificate, read again when they change.
	CertFile, KeyFile string
	// Timeout bounds a unary call whose context has no earlier deadline. Default 30 s. Streams have no timeout.
	Timeout time.Duration

	// UserAgent names the program in the server's logs. Default its main module and version. It has no flag.
	UserAgent string
	// Tracing makes a span of each call. Default none; the trace of the context is passed on all the same. It has no flag.
	Tracing trace.TracerProvider
}

const (
	defaultTimeout = 30 * time.Second
	maxTimeout     = time.Hour
	dialTimeout    = 5 * time.Second
	// pingAfter and pingTimeout find a server that is gone without a word, below a stream that nothing is sent on.
	pingAfter, pingTimeout = 10 * time.Second, 5 * time.Second
	// fresh is how old credentials of a file may be.
	fresh = time.Second
	// maxResponseBytes bounds one message of an answer.
	maxResponseBytes = 64 << 20
)

// retryWaits are the pauses before a read is tried again that no server has answered.
var retryWaits = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond}

// Flags adds one flag per field to fs, with the prefix in front ("fleet-" makes --fleet-address). What c holds already is
// the default.
func (c *Config) Flags(fs *pflag.FlagSet, prefix string) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	fs.StringVar(&c.Address, prefix+"address", c.Address, "http(s)://host:port of the service")
	fs.StringVar(&c.Token, prefix+"token", c.Token, "bearer token; better in a file")
	fs.StringVar(&c.TokenFile, prefix+"token-file", c.TokenFile, "file with the bearer token")
	fs.StringVar(&c.CAFile, prefix+"ca-file", c.CAFile, "PEM file with the authorities of the server's certificate; empty for the system's")
	fs.StringVar(&c.CertFile, prefix+"cert-file", c.CertFile, "PEM file with the client certificate")
	fs.StringVar(&c.KeyFile, prefix+"key-file", c.KeyFile, "PEM file with the client certificate's key")
	fs.DurationVar(&c.Timeout, prefix+"timeout", timeout, "longest time for a unary call")
}

// Validate returns a *problem.Error of kind Invalid that names the field as its flag without prefix, its value and what is
// allowed, or nil. It reads no file.
func (c *Config) Validate() error {
	u, err := url.Parse(c.Address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		address := c.Address
		if err == nil {
			address = u.Redacted()
		}
		return problem.Invalidf("address", "%q is not allowed: http://host:port or https://host:port", address)
	}
	if c.Token != "" && c.TokenFile != "" {
		return problem.Invalidf("token-file", "%q together with a token: set one of them", c.TokenFile)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return problem.Invalidf("cert-file", "%q with key-file %q: set both or neither", c.CertFile, c.KeyFile)
	}
	if u.Scheme == "http" && (c.CAFile != "" || c.CertFile != "") {
		return problem.Invalidf("address", "%q is plain text, and ca-file or cert-file is set; use https", c.Address)
	}
	if c.Timeout < 0 || c.Timeout > maxTimeout {
		return problem.Invalidf("timeout", "%v is not allowed: more than 0 and at most %v, or 0 for %v", c.Timeout, maxTimeout, defaultTimeout)
	}
	return nil
}

// Client holds the connections to one service. It is safe for concurrent use.
type Client struct {
	cfg       Config
	url       string
	transport *http.Transport
	token     *reload.Value[string] // nil without TokenFile
	options   []connect.ClientOption
}

// New returns a client; it connects with the first call. Errors are *problem.Error of kind Invalid.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = userAgent()
	}
	c := &Client{cfg: cfg, url: strings.TrimRight(cfg.Address, "/")}
	protocols := new(http.Protocols)
	if strings.HasPrefix(cfg.Address, "http:") {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	}
	config, err := clientTLS(cfg)
	if err != nil {
		return nil, err
	}
	c.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
		Protocols:           protocols,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	if cfg.TokenFile != "" {
		if c.token, err = reload.Open(parseToken, cfg.TokenFile); err != nil {
			return nil, unreadable(err, map[string]string{cfg.TokenFile: "token-file"})
		}
	}
	interceptors := []connect.Interceptor{interceptor{c}}
	if cfg.Tracing != nil {
		traces, err := otelconnect.NewInterceptor(otelconnect.WithTracerProvider(cfg.Tracing), otelconnect.WithPropagator(propagation.TraceContext{}), otelconnect.WithoutMetrics())
		if err != nil {
			return nil, err
		}
		interceptors = append(interceptors, traces)
	}
	c.options = []connect.ClientOption{connect.WithInterceptors(interceptors...), connect.WithReadMaxBytes(maxResponseBytes)}
	return c, nil
}

// URL is the base URL for the constructors of Connect clients.
func (c *Client) URL() string { return c.url }

// Options are for the constructors of Connect clients: errors as *problem.Error, ids and traces passed on, reads tried
// again.
func (c *Client) Options() []connect.ClientOption {
	return append([]connect.ClientOption(nil), c.options...)
}

// Unary is the HTTP client for unary calls; each ends after Config.Timeout at the latest.
func (c *Client) Unary() connect.HTTPClient {
	return &http.Client{Transport: roundTripper{c}, Timeout: c.cfg.Timeout, CheckRedirect: noRedirect}
}

// Stream is the HTTP client for streams. It has no timeout: a stream ends with its context, or when the server does not
// answer pings.
func (c *Client) Stream() connect.HTTPClient {
	return &http.Client{Transport: roundTripper{c}, CheckRedirect: noRedirect}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// noRedirect keeps credentials from following a redirect to somebody else.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// roundTripper adds the credentials.
type roundTripper struct{ client *Client }

func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	c := t.client
	token := c.cfg.Token
	if c.token != nil {
		token = c.token.Fresh(fresh)
	}
	req = req.Clone(req.Context()) // a RoundTripper must not change its request
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent+" "+req.Header.Get("User-Agent"))
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body = body{res.Body}
	return res, nil
}

// body marks the errors of the transport below an answer. Connect reads them as errors of the protocol (internal, unknown,
// canceled), after which they cannot be told from those that the server makes.
type body struct{ io.ReadCloser }

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // the end itself, not an error that has it as its cause
		err = &brokenError{err}
	}
	return n, err
}

type brokenError struct{ cause error }

func (e *brokenError) Error() string { return e.cause.Error() }
func (e *brokenError) Unwrap() error { return e.cause }

func parseToken(contents [][]byte) (string, error) {
	token := strings.TrimSpace(string(contents[0]))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", problem.Invalidf("token-file", "it does not hold one token and nothing else")
	}
	return token, nil
}

func clientTLS(cfg Config) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		roots, err := reload.Open(func(contents [][]byte) (*x509.CertPool, error) {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(contents[0]) {
				return nil, problem.Invalidf("ca-file", "%q has no PEM certificate", cfg.CAFile)
			}
			return pool, nil
		}, cfg.CAFile)
		if err != nil {
			return nil, unreadable(err, map[string]string{cfg.CAFile: "ca-file"})
		}
		out.RootCAs = roots.Get()
	}
	if cfg.CertFile != "" {
		pair, err := reload.Open(func(contents [][]byte) (*tls.Certificate, error) {
			pair, err := tls.X509KeyPair(contents[0], contents[1])
			if err != nil {
				return nil, problem.Invalidf("cert-file", "%q and key-file %q are not a PEM certificate and its key: %w", cfg.CertFile, cfg.KeyFile, err)
			}
			return &pair, nil
		}, cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, unreadable(err, map[string]string{cfg.CertFile: "cert-file", cfg.KeyFile: "key-file"})
		}
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.Fresh(fresh), nil }
	}
	return out, nil
}

// unreadable names the field of a file that cannot be read.
func unreadable(err error, fields map[string]string) error {
	var file *fs.PathError
	if errors.As(err, &file) {
		return problem.Invalidf(fields[file.Path], "%q cannot be read: %w", file.Path, file.Err)
	}
	return err
}

func userAgent() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Path == "" {
		return "edgehold"
	}
	name := info.Path[strings.LastIndexByte(info.Path, '/')+1:]
	version := info.Main.Version
	if version == "" || version == "(devel)" {
		version = "dev"
	}
	return name + "/" + version
}

// interceptor passes ids and traces on, tries reads again and turns errors into problems.
type interceptor struct{ client *Client }

func (interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		pass(ctx, req.Header())
		res, err := next(ctx, req)
		for _, wait := range retryWaits {
			if !unanswered(ctx, err) || req.Spec().IdempotencyLevel != connect.IdempotencyNoSideEffects {
				break
			}
			select {
			case <-ctx.Done():
				return nil, i.problem(ctx, err)
			case <-time.After(wait):
			}
			res, err = next(ctx, req)
		}
		if err != nil {
			return nil, i.problem(ctx, err)
		}
		return res, nil
	}
}

func (i interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		pass(ctx, conn.RequestHeader())
		return &stream{StreamingClientConn: conn, interceptor: i, done: ctx}
	}
}

// stream turns the errors of a stream into problems; io.EOF, its natural end, stays.
type stream struct {
	connect.StreamingClientConn
	interceptor interceptor
	done        context.Context // the stream's
}

func (s *stream) Receive(msg any) error { return s.problem(s.StreamingClientConn.Receive(msg)) }
func (s *stream) Send(msg any) error    { return s.problem(s.StreamingClientConn.Send(msg)) }
func (s *stream) problem(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return s.interceptor.problem(s.done, err)
}

func pass(ctx context.Context, h http.Header) {
	call.From(ctx).Write(h)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}

// unanswered says whether a call failed without an answer of any server: nobody listens, or the connection broke. Connect
// takes a broken connection for a caller that went away (canceled), which on this side it is not.
func unanswered(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || connect.IsWireError(err) {
		return false
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeCanceled:
		return true
	case connect.CodeInternal, connect.CodeUnknown:
		var broken *brokenError
		return errors.As(err, &broken)
	}
	return false // deadline_exceeded, and what the reset of a stream says
}

// problem is wire.Decode, with a sentence of our own where no server answered.
func (i interceptor) problem(ctx context.Context, err error) error {
	var c *connect.Error
	if !errors.As(err, &c) || !unanswered(ctx, err) {
		return wire.Decode(err)
	}
	p := &problem.Error{Kind: problem.Unavailable, Cause: c}
	reason := c.Message()
	var broken *brokenError
	if errors.As(err, &broken) {
		reason = broken.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		reason = op.Err.Error()
	}
	if op != nil && op.Op == "dial" {
		p.Sentence = fmt.Sprintf("%s cannot be reached: %s; check the address and whether the service runs", i.client.url, reason)
	} else {
		p.Sentence = fmt.Sprintf("the connection to %s failed: %s; what was asked for may have been done: ask again with the same idempotency key", i.client.url, reason)
	}
	return p
}
