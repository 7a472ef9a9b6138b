package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"slices"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/reload"
)

// openTLS reads the certificate, its key and, when there is one, the authorities of client certificates. They are one
// value, so that a handshake never sees half of a change. Errors are *problem.Error of kind Invalid.
func openTLS(cfg Config) (*reload.Value[*tls.Config], error) {
	paths, flags := []string{cfg.TLSCert, cfg.TLSKey}, map[string]string{cfg.TLSCert: "--tls-cert", cfg.TLSKey: "--tls-key"}
	if cfg.ClientCA != "" {
		paths, flags[cfg.ClientCA] = append(paths, cfg.ClientCA), "--client-ca"
	}
	v, err := reload.Open(func(contents [][]byte) (*tls.Config, error) {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			return nil, problem.Invalidf("--tls-cert", "%q and --tls-key %q are not a PEM certificate and its key: %w", cfg.TLSCert, cfg.TLSKey, err)
		}
		c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
		if cfg.ClientCA != "" {
			c.ClientCAs = x509.NewCertPool()
			if !c.ClientCAs.AppendCertsFromPEM(contents[2]) {
				return nil, problem.Invalidf("--client-ca", "%q has no PEM certificate", cfg.ClientCA)
			}
			// Not required: a probe has no certificate, and a person comes with a token. Who has neither is refused later,
			// with a sentence instead of a broken handshake.
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
		return c, nil
	}, paths...)
	var file *fs.PathError
	if errors.As(err, &file) {
		return nil, problem.Invalidf(flags[file.Path], "%q cannot be read: %w", file.Path, file.Err)
	}
	return v, err
}

// serverTLS returns a configuration that takes each handshake's from v.
func serverTLS(v *reload.Value[*tls.Config]) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: slices.Clone(v.Get().NextProtos),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return v.Get(), nil
		},
	}
}
