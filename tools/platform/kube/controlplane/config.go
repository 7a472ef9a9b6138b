package controlplane

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/pflag"
)

// Config of one control plane.
type Config struct {
	// Dir holds all state: etcd, keys, kubeconfig, port. Made when it does not exist. One process at a time uses it.
	Dir string
	// Name of the cluster, and of the context in its kubeconfig.
	Name string
	// Bind is the loopback address that the API is served on.
	Bind string
	// Port of the API. 0 takes the one of the last start in Dir, or a free one the first time.
	Port int
	// ServiceCIDR is where Services get their addresses.
	ServiceCIDR string
	// Fsync makes etcd wait for the disk on every commit. Without it a kill of the process loses nothing (the kernel holds
	// what was written) but a power failure may.
	Fsync bool
	// HPASync is how often HorizontalPodAutoscalers are evaluated.
	HPASync time.Duration
	// HPADownscaleStabilization is how far back an HPA looks for a higher recommendation before it shrinks.
	HPADownscaleStabilization time.Duration
	// HPAInitialReadiness is how long after its start a pod's changes of readiness count as start-up, not as load.
	HPAInitialReadiness time.Duration
	// StopGrace bounds a graceful stop; past it the process exits with an error.
	StopGrace time.Duration
}

// Default is a configuration that only lacks Dir.
func Default() Config {
	return Config{
		Name: "cluster-1", Bind: "127.0.0.1", ServiceCIDR: "10.96.128.0/17",
		HPASync: 2 * time.Second, HPADownscaleStabilization: 10 * time.Second, HPAInitialReadiness: 5 * time.Second,
		StopGrace: 10 * time.Second,
	}
}

// Flags binds every field to a flag of fs, with the value that it has as the default.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Dir, "dir", c.Dir, "directory for all state")
	fs.StringVar(&c.Name, "name", c.Name, "name of the cluster and of its kubeconfig context")
	fs.StringVar(&c.Bind, "bind", c.Bind, "loopback address to serve the API on")
	fs.IntVar(&c.Port, "port", c.Port, "port of the API; 0: the last one, or a free one")
	fs.StringVar(&c.ServiceCIDR, "service-cidr", c.ServiceCIDR, "addresses of Services")
	fs.BoolVar(&c.Fsync, "fsync", c.Fsync, "survive a power failure too, at the price of a disk flush per write")
	fs.DurationVar(&c.HPASync, "hpa-sync", c.HPASync, "how often HorizontalPodAutoscalers are evaluated")
	fs.DurationVar(&c.HPADownscaleStabilization, "hpa-downscale-stabilization", c.HPADownscaleStabilization, "how far back an HPA looks before it shrinks")
	fs.DurationVar(&c.HPAInitialReadiness, "hpa-initial-readiness-delay", c.HPAInitialReadiness, "time after a pod's start in which its readiness is not judged by the HPA")
	fs.DurationVar(&c.StopGrace, "stop-grace", c.StopGrace, "bound of a graceful stop")
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

// maxSocketPath is what sockaddr_un holds on Linux, less its NUL and the longest file name that is put under Dir.
const maxSocketPath = 107 - len("/etcd-peer.sock")

// Validate names the first field that is wrong, with its value and what is allowed.
func (c *Config) Validate() error {
	if c.Dir == "" {
		return fmt.Errorf(`--dir is "": a directory for the state is required`)
	}
	if dir, err := filepath.Abs(c.Dir); err != nil || len(dir) > maxSocketPath {
		return fmt.Errorf("--dir is %q: its absolute path must be at most %d bytes, because unix sockets live in it", c.Dir, maxSocketPath)
	}
	if !clusterName.MatchString(c.Name) {
		return fmt.Errorf("--name is %q: want at most 63 of a-z, 0-9, '-' and '.', starting and ending with a letter or digit", c.Name)
	}
	if addr, err := netip.ParseAddr(c.Bind); err != nil || !addr.IsLoopback() || !addr.Is4() {
		return fmt.Errorf("--bind is %q: want an address in 127.0.0.0/8; this control plane is for one machine", c.Bind)
	}
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("--port is %d: want 0 to 65535", c.Port)
	}
	if cidr, err := netip.ParsePrefix(c.ServiceCIDR); err != nil || !cidr.Addr().Is4() || cidr.Masked() != cidr || cidr.Bits() < 12 || cidr.Bits() > 28 || cidr.Addr().IsLoopback() {
		return fmt.Errorf("--service-cidr is %q: want an IPv4 network such as 10.20.128.0/17, of /12 to /28 and outside 127.0.0.0/8", c.ServiceCIDR)
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
		least time.Duration
	}{
		{"--hpa-sync", c.HPASync, 100 * time.Millisecond},
		{"--hpa-downscale-stabilization", c.HPADownscaleStabilization, 0},
		{"--hpa-initial-readiness-delay", c.HPAInitialReadiness, 0},
		{"--stop-grace", c.StopGrace, time.Second},
	} {
		if d.value < d.least || d.value > 24*time.Hour {
			return fmt.Errorf("%s is %s: want %s to 24h", d.flag, d.value, d.least)
		}
	}
	return nil
}
