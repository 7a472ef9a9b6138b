package controlplane

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func TestValidateNamesFieldValueAndWhatIsAllowed(t *testing.T) {
	good := Default()
	good.Dir = t.TempDir()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		change func(*Config)
		want   []string
	}{
		{func(c *Config) { c.Dir = "" }, []string{"--dir", "required"}},
		{func(c *Config) { c.Dir = "/" + strings.Repeat("x", 100) }, []string{"--dir", "unix sockets"}},
		{func(c *Config) { c.Name = "My cluster" }, []string{"--name", `"My cluster"`, "a-z"}},
		{func(c *Config) { c.Bind = "0.0.0.0" }, []string{"--bind", `"0.0.0.0"`, "127.0.0.0/8"}},
		{func(c *Config) { c.Port = 65536 }, []string{"--port", "65536", "0 to 65535"}},
		{func(c *Config) { c.ServiceCIDR = "127.0.0.0/16" }, []string{"--service-cidr", `"127.0.0.0/16"`}},
		{func(c *Config) { c.ServiceCIDR = "10.20.1.0/17" }, []string{"--service-cidr"}},
		{func(c *Config) { c.HPASync = 0 }, []string{"--hpa-sync", "0s", "100ms"}},
		{func(c *Config) { c.StopGrace = 0 }, []string{"--stop-grace", "0s", "1s"}},
	} {
		cfg := good
		tc.change(&cfg)
		err := cfg.Validate()
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %s in it", err, want)
			}
		}
	}
}

func TestPreparedStateIsKept(t *testing.T) {
	cfg := Default()
	cfg.Dir = t.TempDir()
	first, err := prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(cfg); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second control plane in the same directory: %v", err)
	}
	first.listener.Close()
	first.lock.Close()
	second, err := prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer second.lock.Close()
	defer second.listener.Close()
	if first.server != second.server {
		t.Errorf("served at %s, then at %s", first.server, second.server)
	}
	if !first.ca.cert.Equal(second.ca.cert) {
		t.Error("the authority is another one: kubeconfigs that were handed out are worthless")
	}
	roots := x509.NewCertPool()
	roots.AddCert(first.ca.cert)
	if _, err := second.serving.cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: cfg.Bind}); err != nil {
		t.Error(err)
	}
	if _, err := second.admin.cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	client, err := clientcmd.BuildConfigFromFlags("", second.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if client.Insecure || len(client.CAData) == 0 || client.Host != second.server {
		t.Errorf("kubeconfig %+v", client)
	}
	if info, err := os.Stat(second.kubeconfig); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig may be read by others: %v, %v", info.Mode(), err)
	}
}

func TestTakenPortSaysWhatToDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := Default()
	cfg.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Dir, "port"), fmt.Appendln(nil, l.Addr().(*net.TCPAddr).Port), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(cfg); err == nil || !strings.Contains(err.Error(), "to take a new port") {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "port"), []byte("http"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(cfg); err == nil || !strings.Contains(err.Error(), `"http"`) {
		t.Errorf("error %v", err)
	}
}

func TestIssuedCertificatesHaveOneUse(t *testing.T) {
	dir := t.TempDir()
	ca, err := authority(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.issue(dir, "client", pkix.Name{CommonName: "c"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	if _, err := client.cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate can serve")
	}
	if left := time.Until(client.cert.NotAfter); left < 365*24*time.Hour {
		t.Errorf("valid for %s only", left)
	}
	if err := os.WriteFile(ca.keyFile, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authority(dir, "ca"); err == nil || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("a damaged key: %v", err)
	}
}
