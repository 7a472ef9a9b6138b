package controlplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity of every certificate. Leaves are issued anew on each start, so only an authority can grow old.
const validity = 10 * 365 * 24 * time.Hour

// pair is a certificate with its key, in memory and as PEM files.
type pair struct {
	cert              *x509.Certificate
	key               crypto.Signer
	certPEM, keyPEM   []byte
	certFile, keyFile string
}

// authority reads dir/name.crt and .key, and makes them when they do not exist.
func authority(dir, name string) (*pair, error) {
	p := &pair{certFile: filepath.Join(dir, name+".crt"), keyFile: filepath.Join(dir, name+".key")}
	var err error
	if p.key, p.keyPEM, err = signingKey(p.keyFile); err != nil {
		return nil, err
	}
	p.certPEM, err = os.ReadFile(p.certFile)
	if errors.Is(err, fs.ErrNotExist) {
		tmpl := &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
		}
		if err := p.sign(tmpl, nil); err != nil {
			return nil, err
		}
		return p, write(p.certFile, p.certPEM, 0o644)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(p.certPEM)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate: delete the directory to make a new cluster", p.certFile)
	}
	if p.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", p.certFile, err)
	}
	return p, nil
}

// issue makes dir/name.crt and .key, signed by the authority: a server's certificate when it has addresses or names, a client's otherwise.
func (ca *pair) issue(dir, name string, subject pkix.Name, ips []net.IP, dns []string) (*pair, error) {
	p := &pair{certFile: filepath.Join(dir, name+".crt"), keyFile: filepath.Join(dir, name+".key")}
	var err error
	if p.key, p.keyPEM, err = signingKey(p.keyFile); err != nil {
		return nil, err
	}
	usage := x509.ExtKeyUsageClientAuth
	if len(ips)+len(dns) > 0 {
		usage = x509.ExtKeyUsageServerAuth
	}
	tmpl := &x509.Certificate{
		Subject: subject, IPAddresses: ips, DNSNames: dns,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	if err := p.sign(tmpl, ca); err != nil {
		return nil, err
	}
	return p, write(p.certFile, p.certPEM, 0o644)
}

// sign fills p.cert from tmpl; without an authority it signs itself.
func (p *pair) sign(tmpl *x509.Certificate, ca *pair) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	tmpl.SerialNumber = serial
	tmpl.NotBefore = time.Now().Add(-time.Hour) // a clock that jumps back must not lock everybody out
	tmpl.NotAfter = tmpl.NotBefore.Add(validity)
	issuer, signer := tmpl, p.key
	if ca != nil {
		issuer, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, p.key.Public(), signer)
	if err != nil {
		return err
	}
	p.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p.cert, err = x509.ParseCertificate(der)
	return err
}

// signingKey reads a P-256 key, and makes it when the file does not exist.
func signingKey(file string) (crypto.Signer, []byte, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, nil, err
		}
		data = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
		return key, data, write(file, data, 0o600)
	}
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil, fmt.Errorf("%s holds no key: delete the directory to make a new cluster", file)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, data, nil
}

// write replaces a file whole, so that a kill leaves the old one or the new one.
func write(file string, data []byte, mode fs.FileMode) error {
	tmp := file + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
