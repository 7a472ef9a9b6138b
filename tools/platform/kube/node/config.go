package node

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"edgehold.internal/tools/platform/kube/address"
)

// Config of one node.
type Config struct {
	// Kubeconfig of the cluster, of an administrator.
	Kubeconfig string
	// Dir holds pods' files. Made when it does not exist. One process at a time uses it.
	Dir string
	// Name of the Node.
	Name string
	// Block of addresses that the cluster owns, 10.B.0.0/16.
	Block string
	// Images is the directory of executables: image local/<name> is <Images>/<name>.
	Images string
	// Listen is the host and port of the status page (/healthz, /doors, /metrics), on loopback.
	Listen string
	// CPU, Memory and Pods are what the Node says it has. Nothing enforces requests and limits.
	CPU, Memory string
	Pods        int
	// BackOffBase and BackOffMax bound the pause before a container that keeps failing is started again.
	BackOffBase, BackOffMax time.Duration
	// LogLimit of one run of a container, as a quantity of bytes.
	LogLimit string
	// StopGrace is the most that pods get to end when the node stops.
	StopGrace time.Duration

	block    netip.Prefix
	cpu      resource.Quantity
	memory   resource.Quantity
	logLimit int64
}

// Default is a configuration that lacks Kubeconfig, Dir and Images.
func Default() Config {
	return Config{
		Name: "node-1", Block: "10.20.0.0/16", Listen: "127.0.0.1:0", CPU: "256", Memory: "1Ti", Pods: 2500,
		BackOffBase: 10 * time.Second, BackOffMax: 5 * time.Minute, LogLimit: "20Mi", StopGrace: 3 * time.Second,
	}
}

// Flags binds every field to a flag of fs, with the value that it has as the default.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig, "kubeconfig file of an administrator")
	fs.StringVar(&c.Dir, "dir", c.Dir, "directory for pods' files")
	fs.StringVar(&c.Name, "name", c.Name, "name of the node")
	fs.StringVar(&c.Block, "block", c.Block, "addresses of the cluster, 10.B.0.0/16")
	fs.StringVar(&c.Images, "images", c.Images, "directory of executables: image local/<name> is the file <name>")
	fs.StringVar(&c.Listen, "listen", c.Listen, "loopback address of the status page")
	fs.StringVar(&c.CPU, "cpu", c.CPU, "CPU capacity that the node reports")
	fs.StringVar(&c.Memory, "memory", c.Memory, "memory capacity that the node reports")
	fs.IntVar(&c.Pods, "pods", c.Pods, "how many pods the node takes")
	fs.DurationVar(&c.BackOffBase, "back-off-base", c.BackOffBase, "pause before the second restart of a failing container; doubles")
	fs.DurationVar(&c.BackOffMax, "back-off-max", c.BackOffMax, "longest pause before a restart")
	fs.StringVar(&c.LogLimit, "log-limit", c.LogLimit, "bytes kept of one run of a container")
	fs.DurationVar(&c.StopGrace, "stop-grace", c.StopGrace, "most that pods get to end when the node stops")
}

// maxPods leaves addresses for pods that are on their way out.
const maxPods = 30000

// Validate names the first field that is wrong, with its value and what is allowed.
func (c *Config) Validate() (err error) {
	if info, err := os.Stat(c.Kubeconfig); err != nil || info.IsDir() {
		return fmt.Errorf("--kubeconfig is %q: want the file that edgehold-control-plane wrote", c.Kubeconfig)
	}
	if c.Dir == "" {
		return fmt.Errorf(`--dir is "": a directory for pods' files is required`)
	}
	if problems := validation.IsDNS1123Subdomain(c.Name); len(problems) > 0 {
		return fmt.Errorf("--name is %q: %s", c.Name, problems[0])
	}
	if c.block, err = address.ParseBlock(c.Block); err != nil {
		return fmt.Errorf("--block is %w", err)
	}
	if info, err := os.Stat(c.Images); err != nil || !info.IsDir() {
		return fmt.Errorf("--images is %q: want a directory of executables", c.Images)
	}
	if host, _, err := net.SplitHostPort(c.Listen); err != nil || !isLoopback(host) {
		return fmt.Errorf("--listen is %q: want an address in 127.0.0.0/8 and a port, such as 127.0.0.1:0", c.Listen)
	}
	if c.cpu, err = resource.ParseQuantity(c.CPU); err != nil || c.cpu.Sign() <= 0 {
		return fmt.Errorf("--cpu is %q: want a positive quantity such as 16 or 500m", c.CPU)
	}
	if c.memory, err = resource.ParseQuantity(c.Memory); err != nil || c.memory.Sign() <= 0 {
		return fmt.Errorf("--memory is %q: want a positive quantity such as 64Gi", c.Memory)
	}
	if c.Pods < 1 || c.Pods > maxPods {
		return fmt.Errorf("--pods is %d: want 1 to %d", c.Pods, maxPods)
	}
	if c.BackOffBase < time.Millisecond || c.BackOffBase > time.Hour {
		return fmt.Errorf("--back-off-base is %s: want 1ms to 1h", c.BackOffBase)
	}
	if c.BackOffMax < c.BackOffBase || c.BackOffMax > 24*time.Hour {
		return fmt.Errorf("--back-off-max is %s: want --back-off-base (%s) to 24h", c.BackOffMax, c.BackOffBase)
	}
	limit, err := resource.ParseQuantity(c.LogLimit)
	if c.logLimit = limit.Value(); err != nil || c.logLimit < 64<<10 {
		return fmt.Errorf("--log-limit is %q: want at least 64Ki", c.LogLimit)
	}
	if c.StopGrace < 0 || c.StopGrace > 10*time.Minute {
		return fmt.Errorf("--stop-grace is %s: want 0s to 10m", c.StopGrace)
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	c.Images, err = filepath.Abs(c.Images)
	return err
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
