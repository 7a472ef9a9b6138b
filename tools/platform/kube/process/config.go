// Package process is the kubelet's part for pods that are local processes: it runs the containers of a pod with their probes,
// hooks, restarts, volumes and logs, and says what the pod's status is. It talks to no cluster; what it needs of one comes in by
// [Config]. Start reading at [Host] and [Pod]; the life of one container is in container.go.
//
// There is no isolation: a container is a process group of this user, with this machine's files and network. What is not a
// process's own affair (mount paths, users, limits, network namespaces) does not exist; see the README of the module.
package process

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"edgehold.internal/tools/platform/kube/group"
)

// SimulateAnnotation with the value "true" on a pod makes it Ready at once without any process, for measuring at scale.
const SimulateAnnotation = "edgehold.internal/simulate"

// Cluster is what pods need of the cluster that they are in. Errors for which Missing is true mean that an object does not exist.
type Cluster interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token of the pod's service account, bound to the pod, and when it expires. An empty audience is the API server's own.
	Token(ctx context.Context, pod *corev1.Pod, audience string, lifetime time.Duration) (token string, expires time.Time, err error)
	Missing(err error) bool
	// Event tells people about a pod.
	Event(pod *corev1.Pod, kind, reason, message string)
}

// Config of a Host.
type Config struct {
	// Dir holds a directory per pod.
	Dir string
	// Images is where the executable of image local/<name> is: <Images>/<name>.
	Images string
	// HostIP is the node's own address on this machine.
	HostIP netip.Addr
	// Allocatable is what the node has: the limit of a container that has none of its own.
	Allocatable corev1.ResourceList
	// Translate an address of the cluster to the one that this machine serves it on.
	Translate func(netip.Addr) netip.Addr
	// Env is put into every container's environment, before what the pod declares.
	Env []string
	// APIServer is the URL that the KUBECONFIG of pods points to.
	APIServer string
	// BackOff before a container that keeps failing is started again: Base doubles up to Max; a run of Reset clears it.
	BackOffBase, BackOffMax, BackOffReset time.Duration
	// LogLimit of one run of a container, in bytes.
	LogLimit int64
	// Cluster that the pods belong to.
	Cluster Cluster
}

// Validate names the first field that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Dir == "" || !filepath.IsAbs(c.Dir):
		return fmt.Errorf("process: Dir is %q: want an absolute path", c.Dir)
	case c.Images == "" || !filepath.IsAbs(c.Images):
		return fmt.Errorf("process: Images is %q: want an absolute path", c.Images)
	case !c.HostIP.IsValid():
		return errors.New("process: HostIP is missing")
	case c.Translate == nil:
		return errors.New("process: Translate is missing")
	case c.Cluster == nil:
		return errors.New("process: Cluster is missing")
	case c.BackOffBase <= 0 || c.BackOffMax < c.BackOffBase || c.BackOffReset <= 0:
		return fmt.Errorf("process: BackOffBase is %s, BackOffMax %s, BackOffReset %s: want 0 < base <= max, and 0 < reset", c.BackOffBase, c.BackOffMax, c.BackOffReset)
	case c.LogLimit < 64<<10:
		return fmt.Errorf("process: LogLimit is %d: want at least 65536 bytes", c.LogLimit)
	}
	return nil
}

// Host runs pods.
type Host struct {
	cfg     Config
	spawner *group.Spawner
}

// NewHost checks cfg and makes its directory. Processes are started by spawner, which outlives the pods.
func NewHost(cfg Config, spawner *group.Spawner) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	return &Host{cfg: cfg, spawner: spawner}, nil
}

// Remove the files of a pod that this Host has not started.
func (h *Host) Remove(uid string) error { return os.RemoveAll(filepath.Join(h.cfg.Dir, uid)) }

// Sweep removes what pods left behind that keep does not know by their uid.
func (h *Host) Sweep(keep func(uid string) bool) error {
	entries, err := os.ReadDir(h.cfg.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !keep(e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(h.cfg.Dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
