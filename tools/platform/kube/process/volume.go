package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"edgehold.internal/tools/platform/kube/environ"
)

// refreshEvery is how old the files of a ConfigMap, Secret or downward API volume get, as with the kubelet.
const refreshEvery = time.Minute

// errUnsupported marks a volume that no amount of waiting makes work.
var errUnsupported = errors.New("not supported on this node, which runs pods as processes: use emptyDir, configMap, secret, downwardAPI, projected or hostPath")

// volumes makes the files of all volumes and returns when they should be made anew; zero: never.
func (p *Pod) volumes(ctx context.Context) (again time.Time, err error) {
	pod := p.spec()
	for _, v := range pod.Spec.Volumes {
		next, err := p.volume(ctx, pod, v)
		if err != nil {
			return time.Time{}, fmt.Errorf("volume %q: %w", v.Name, err)
		}
		if !next.IsZero() && (again.IsZero() || next.Before(again)) {
			again = next
		}
	}
	return again, nil
}

// volumeDir is where the files of a volume are.
func (p *Pod) volumeDir(v corev1.Volume) string {
	if v.HostPath != nil {
		return v.HostPath.Path
	}
	return filepath.Join(p.dir, "volumes", v.Name)
}

func (p *Pod) volume(ctx context.Context, pod *corev1.Pod, v corev1.Volume) (time.Time, error) {
	dir := p.volumeDir(v)
	files := map[string]file{}
	again := time.Now().Add(refreshEvery)
	switch {
	case v.HostPath != nil:
		if t := v.HostPath.Type; t != nil && *t == corev1.HostPathDirectoryOrCreate {
			return time.Time{}, os.MkdirAll(dir, 0o755)
		}
		return time.Time{}, nil
	case v.EmptyDir != nil:
		return time.Time{}, os.MkdirAll(dir, 0o777)
	case v.ConfigMap != nil:
		s := v.ConfigMap
		if err := p.configMapFiles(ctx, pod, s.Name, s.Items, s.Optional, s.DefaultMode, files); err != nil {
			return time.Time{}, err
		}
	case v.Secret != nil:
		s := v.Secret
		if err := p.secretFiles(ctx, pod, s.SecretName, s.Items, s.Optional, s.DefaultMode, files); err != nil {
			return time.Time{}, err
		}
	case v.DownwardAPI != nil:
		if err := p.downwardFiles(pod, v.DownwardAPI.Items, v.DownwardAPI.DefaultMode, files); err != nil {
			return time.Time{}, err
		}
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			var err error
			switch {
			case s.ConfigMap != nil:
				err = p.configMapFiles(ctx, pod, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, v.Projected.DefaultMode, files)
			case s.Secret != nil:
				err = p.secretFiles(ctx, pod, s.Secret.Name, s.Secret.Items, s.Secret.Optional, v.Projected.DefaultMode, files)
			case s.DownwardAPI != nil:
				err = p.downwardFiles(pod, s.DownwardAPI.Items, v.Projected.DefaultMode, files)
			case s.ServiceAccountToken != nil:
				err = p.tokenFile(ctx, pod, dir, s.ServiceAccountToken, files)
			default:
				err = fmt.Errorf("projected source: %w", errUnsupported)
			}
			if err != nil {
				return time.Time{}, err
			}
		}
		if _, ok := files["token"]; ok && strings.HasPrefix(v.Name, "kube-api-access-") {
			if err := p.kubeconfig(dir, pod, files); err != nil {
				return time.Time{}, err
			}
		}
	default:
		return time.Time{}, errUnsupported
	}
	return again, replace(dir, files)
}

// file of a volume.
type file struct {
	data []byte
	mode fs.FileMode
}

func modeOf(mode, defaultMode *int32) fs.FileMode {
	for _, m := range []*int32{mode, defaultMode} {
		if m != nil {
			return fs.FileMode(*m) & fs.ModePerm
		}
	}
	return 0o644
}

// pick puts the keys of data into files, or only those that items name.
func pick(kind, name string, data map[string][]byte, items []corev1.KeyToPath, optional bool, defaultMode *int32, files map[string]file) error {
	if len(items) == 0 {
		for k, v := range data {
			files[k] = file{v, modeOf(nil, defaultMode)}
		}
		return nil
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("%s %q has no key %q", kind, name, item.Key)
		}
		files[item.Path] = file{v, modeOf(item.Mode, defaultMode)}
	}
	return nil
}

func (p *Pod) configMapFiles(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, mode *int32, files map[string]file) error {
	may := optional != nil && *optional
	cm, err := p.host.cfg.Cluster.ConfigMap(ctx, pod.Namespace, name)
	if err != nil {
		if may && p.host.cfg.Cluster.Missing(err) {
			return nil
		}
		return err
	}
	data := maps.Clone(cm.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	return pick("ConfigMap", name, data, items, may, mode, files)
}

func (p *Pod) secretFiles(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, mode *int32, files map[string]file) error {
	may := optional != nil && *optional
	secret, err := p.host.cfg.Cluster.Secret(ctx, pod.Namespace, name)
	if err != nil {
		if may && p.host.cfg.Cluster.Missing(err) {
			return nil
		}
		return err
	}
	return pick("Secret", name, secret.Data, items, may, mode, files)
}

func (p *Pod) downwardFiles(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32, files map[string]file) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = environ.Field(pod, item.FieldRef.FieldPath, p.place())
		case item.ResourceFieldRef != nil:
			value, err = environ.Resource(pod, &corev1.Container{}, item.ResourceFieldRef, p.place())
		}
		if err != nil {
			return err
		}
		files[item.Path] = file{[]byte(value), modeOf(item.Mode, mode)}
	}
	return nil
}

// tokenFile keeps a token that is good for some time yet, since making one costs the API server a signature.
func (p *Pod) tokenFile(ctx context.Context, pod *corev1.Pod, dir string, s *corev1.ServiceAccountTokenProjection, files map[string]file) error {
	path := filepath.Join(dir, s.Path)
	lifetime := time.Hour
	if s.ExpirationSeconds != nil {
		lifetime = time.Duration(*s.ExpirationSeconds) * time.Second
	}
	if data, err := os.ReadFile(path); err == nil && time.Now().Before(p.renew[path]) {
		files[s.Path] = file{data, 0o600}
		return nil
	}
	token, expires, err := p.host.cfg.Cluster.Token(ctx, pod, s.Audience, lifetime)
	if err != nil {
		return err
	}
	// Only the pod's own goroutine comes here.
	p.renew[path] = time.Now().Add(time.Until(expires) * 8 / 10)
	files[s.Path] = file{[]byte(token), 0o600}
	return nil
}

// kubeconfig lets clients in the pod find the API, since /var/run/secrets is the same directory for all pods.
func (p *Pod) kubeconfig(dir string, pod *corev1.Pod, files map[string]file) error {
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["cluster"] = &clientcmdapi.Cluster{Server: p.host.cfg.APIServer, CertificateAuthority: filepath.Join(dir, "ca.crt")}
	cfg.AuthInfos["pod"] = &clientcmdapi.AuthInfo{TokenFile: filepath.Join(dir, "token")}
	cfg.Contexts["pod"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: "pod", Namespace: pod.Namespace}
	cfg.CurrentContext = "pod"
	data, err := clientcmd.Write(*cfg)
	files["kubeconfig"] = file{data, 0o600}
	return err
}

// replace makes dir hold exactly these files. Each one is replaced whole; readers never see half of one.
func replace(dir string, files map[string]file) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == string(f.data) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		tmp := filepath.Join(filepath.Dir(path), "..new-"+filepath.Base(path)) // no key starts with ".."
		// One that a killed node left may be write-protected.
		if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(tmp, f.data, f.mode); err != nil {
			return err
		}
		if err := os.Rename(tmp, path); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if _, ok := files[name]; !ok {
			return os.Remove(path)
		}
		return nil
	})
}

// mounts are the variables by which a container finds its volumes: EDGEHOLD_MOUNT_<NAME>, in capitals, '-' as '_'. The mount path
// itself cannot be had without a namespace.
func (p *Pod) mounts(pod *corev1.Pod, c *corev1.Container) []environ.Var {
	var vars []environ.Var
	for _, m := range c.VolumeMounts {
		for _, v := range pod.Spec.Volumes {
			if v.Name != m.Name {
				continue
			}
			dir := p.volumeDir(v)
			if strings.HasPrefix(v.Name, "kube-api-access-") && v.Projected != nil {
				vars = append(vars, environ.Var{Name: "KUBECONFIG", Value: filepath.Join(dir, "kubeconfig")})
				continue
			}
			name := "EDGEHOLD_MOUNT_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(m.Name))
			vars = append(vars, environ.Var{Name: name, Value: filepath.Join(dir, filepath.Clean("/"+m.SubPath))})
		}
	}
	return vars
}
