// Package controlplane runs a whole Kubernetes control plane in this process: etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler, for one machine, without root and without containers. Start reading at [Run].
//
// The components are those of k8s.io/kubernetes, unchanged; this package only gives them their options, certificates and order.
// They share process-wide state (feature gates, klog), so one process runs one control plane.
package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllersoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// Ready says where a control plane serves.
type Ready struct {
	Ready      bool   `json:"ready"`
	API        string `json:"api"`        // https://127.B.0.1:port
	Kubeconfig string `json:"kubeconfig"` // file, for the administrator
}

// Run serves until ctx ends, and calls ready once, when the API answers and the controllers begin. It returns nil after a
// graceful stop, also of a start that was not over, and an error that names the component when one of them fails. The process
// is to end then.
func Run(ctx context.Context, cfg Config, ready func(Ready)) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	// Each component applies its own copy of the same logging options; only the first may.
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	s, err := prepare(cfg)
	if err != nil {
		return err
	}
	defer s.lock.Close()
	// Components are stopped from the top down, because each of them hangs for a while when what it stands on is gone.
	etcd, endpoint, err := startEtcd(ctx, s.dir, cfg.Fsync)
	if err != nil {
		s.listener.Close()
		return unlessAsked(ctx, err)
	}
	apiCtx, stopAPI := context.WithCancel(context.WithoutCancel(ctx))
	started := false
	defer func() {
		// A start that is broken off is left to the end of the process, which both bear: an API server that is stopped before
		// its hooks are through ends the process with an error, and etcd waits seconds for clients that do not go away.
		if started {
			stopAPI()
			etcd.Close()
		}
	}()
	api := make(chan error, 1) // why it ended; closed then
	completed, err := s.apiserverOptions(apiCtx, endpoint)
	if err != nil {
		s.listener.Close()
		return fmt.Errorf("apiserver: %w", err)
	}
	go func() {
		defer close(api)
		api <- apiserver.Run(apiCtx, completed)
	}()
	if err := s.awaitReadyz(ctx, api); err != nil {
		return unlessAsked(ctx, err)
	}
	started = true

	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return component(groupCtx, "controller-manager", s.runControllers(groupCtx)) })
	group.Go(func() error { return component(groupCtx, "scheduler", s.runScheduler(groupCtx)) })
	group.Go(func() error {
		select {
		case err := <-api:
			return component(groupCtx, "apiserver", err)
		case err := <-etcd.Err():
			return component(groupCtx, "etcd", err)
		case <-groupCtx.Done():
			return nil
		}
	})
	go collectIdle(groupCtx)
	ready(Ready{Ready: true, API: s.server, Kubeconfig: s.kubeconfig})

	<-groupCtx.Done()
	return within(cfg.StopGrace, func() error {
		err := group.Wait()
		stopAPI()
		<-api //nolint:errcheck // what it says at the end of a stop that was asked for
		return err
	})
}

// within returns what stop returns, or an error when that takes longer than grace.
func within(grace time.Duration, stop func() error) error {
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(grace):
		return fmt.Errorf("not stopped within --stop-grace %s", grace)
	}
}

// unlessAsked is err, or nil when ctx has ended: what fails because somebody asked for a stop is none.
func unlessAsked(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // see above
	}
	return err
}

// component turns "returned, though nobody asked it to" into an error, and a stop that was asked for into none.
func component(ctx context.Context, name string, err error) error {
	if err == nil {
		err = errors.New("stopped by itself")
	}
	return unlessAsked(ctx, fmt.Errorf("%s: %w", name, err))
}

// state is what every component needs to know of the others.
type state struct {
	cfg        Config
	dir        string // absolute
	lock       *os.File
	listener   net.Listener
	server     string // URL
	kubeconfig string // file of the administrator
	ca, proxy  *pair  // authorities: of everybody, and of the aggregation layer
	serving    *pair
	kubelet    *pair // client of kubelets
	proxied    *pair // client of aggregated APIs
	accounts   string
	admin      *pair
	components map[string]string // kubeconfig file by component
}

// prepare makes everything on disk that the components read, and takes the port.
func prepare(cfg Config) (*state, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	pki := filepath.Join(dir, "pki")
	if err := os.MkdirAll(pki, 0o700); err != nil {
		return nil, err
	}
	s := &state{cfg: cfg, dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig"), components: map[string]string{}}
	if s.lock, err = lock(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		s.lock.Close()
		return nil, err
	}
	if err := s.certify(pki); err != nil {
		s.listener.Close()
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

// lock makes sure that one process uses a directory. The kernel drops it with the process, however that ends.
func lock(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("--dir is in use by another control plane (%s is locked): stop that one or take another directory", file)
	}
	return f, nil
}

// listen takes the port that was asked for, the one of the last start, or a free one, and remembers it: kubeconfigs that were
// handed out stay valid over restarts.
func (s *state) listen() error {
	file, port := filepath.Join(s.dir, "port"), s.cfg.Port
	if data, err := os.ReadFile(file); err == nil && port == 0 {
		if port, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil || port < 1 || port > 65535 {
			return fmt.Errorf("%s holds %q: want a port number; delete the file to take a new one", file, data)
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(s.cfg.Bind, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("the API needs %s port %d: %w (delete %s to take a new port)", s.cfg.Bind, port, err, file)
	}
	port = l.Addr().(*net.TCPAddr).Port
	s.listener, s.server = l, "https://"+l.Addr().String()
	return write(file, []byte(strconv.Itoa(port)+"\n"), 0o644)
}

func (s *state) certify(pki string) (err error) {
	if s.ca, err = authority(pki, "ca"); err != nil {
		return err
	}
	if s.proxy, err = authority(pki, "front-proxy-ca"); err != nil {
		return err
	}
	ips := []net.IP{net.ParseIP(s.cfg.Bind), net.IPv4(127, 0, 0, 1), net.IP(firstAddress(s.cfg.ServiceCIDR).AsSlice())}
	dns := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if s.serving, err = s.ca.issue(pki, "apiserver", pkix.Name{CommonName: "kube-apiserver"}, ips, dns); err != nil {
		return err
	}
	masters := []string{"system:masters"}
	if s.kubelet, err = s.ca.issue(pki, "apiserver-kubelet-client", pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: masters}, nil, nil); err != nil {
		return err
	}
	if s.proxied, err = s.proxy.issue(pki, "front-proxy-client", pkix.Name{CommonName: "front-proxy-client"}, nil, nil); err != nil {
		return err
	}
	s.accounts = filepath.Join(pki, "service-accounts.key")
	if _, _, err := signingKey(s.accounts); err != nil {
		return err
	}
	if s.admin, err = s.ca.issue(pki, "admin", pkix.Name{CommonName: "admin", Organization: masters}, nil, nil); err != nil {
		return err
	}
	if err := s.writeKubeconfig(s.kubeconfig, s.admin); err != nil {
		return err
	}
	// The controllers share one client instead of a service account each, which would cost a token and a connection per
	// controller on every start; that client must be able to do what all of them do.
	for name, user := range map[string]pkix.Name{
		"controller-manager": {CommonName: "system:kube-controller-manager", Organization: masters},
		"scheduler":          {CommonName: "system:kube-scheduler"},
	} {
		client, err := s.ca.issue(pki, name, user, nil, nil)
		if err != nil {
			return err
		}
		s.components[name] = filepath.Join(pki, name+".kubeconfig")
		if err := s.writeKubeconfig(s.components[name], client); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) writeKubeconfig(file string, client *pair) error {
	data, err := kubeconfig(s.cfg.Name, s.server, s.ca, client)
	if err != nil {
		return err
	}
	return write(file, data, 0o600)
}

// firstAddress of a service network is the one of the Service "kubernetes".
func firstAddress(cidr string) netip.Addr { return netip.MustParsePrefix(cidr).Addr().Next() }

func (s *state) apiserverOptions(ctx context.Context, etcd string) (apiserveroptions.CompletedOptions, error) {
	var none apiserveroptions.CompletedOptions
	opts := apiserveroptions.NewServerRunOptions()
	if err := parse("kube-apiserver", opts.Flags(),
		"--etcd-servers="+etcd,
		"--bind-address="+s.cfg.Bind,
		// Not used, because nothing reconciles endpoints of the API, but a loopback address is refused.
		"--advertise-address="+firstAddress(s.cfg.ServiceCIDR).String(),
		"--endpoint-reconciler-type=none",
		"--tls-cert-file="+s.serving.certFile, "--tls-private-key-file="+s.serving.keyFile,
		"--client-ca-file="+s.ca.certFile,
		"--kubelet-client-certificate="+s.kubelet.certFile, "--kubelet-client-key="+s.kubelet.keyFile,
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file="+s.proxy.certFile, "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+s.proxied.certFile, "--proxy-client-key-file="+s.proxied.keyFile,
		"--authorization-mode=Node,RBAC",
		"--anonymous-auth=true", // for /readyz, /livez and /version only; RBAC grants nothing else to anonymous users
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+s.accounts, "--service-account-signing-key-file="+s.accounts,
		"--service-cluster-ip-range="+s.cfg.ServiceCIDR,
		// A machine that was asleep must not lose its pods: one node, so there is nowhere else to run them.
		"--default-not-ready-toleration-seconds=86400", "--default-unreachable-toleration-seconds=86400",
		"--allow-privileged=true",
		"--profiling=false",
	); err != nil {
		return none, err
	}
	opts.SecureServing.Listener = s.listener
	opts.SecureServing.BindPort = s.listener.Addr().(*net.TCPAddr).Port
	opts.SecureServing.ServerCert.CertDirectory = ""
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return none, err
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return none, err
	}
	return completed, utilerrors.NewAggregate(completed.Validate())
}

func (s *state) runControllers(ctx context.Context) error {
	opts, err := controllersoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	kubeconfig := s.components["controller-manager"]
	flags := opts.Flags(controllers.KnownControllers(), controllers.ControllersDisabledByDefault(), controllers.ControllerAliases())
	opts.ParsedFlags = &flags
	if err := parse("kube-controller-manager", flags,
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--leader-elect=false", "--secure-port=0", "--profiling=false",
		"--kube-api-qps=500", "--kube-api-burst=1000",
		// Endpoints were superseded by EndpointSlices, and nothing here reads them: a write less for every change of a Service.
		"--controllers=*,-endpoints-controller,-endpointslice-mirroring-controller",
		"--service-account-private-key-file="+s.accounts, "--root-ca-file="+s.ca.certFile,
		"--cluster-signing-cert-file="+s.ca.certFile, "--cluster-signing-key-file="+s.ca.keyFile,
		"--flex-volume-plugin-dir="+filepath.Join(s.dir, "flexvolume"), // the default is made under /usr
		"--endpoint-updates-batch-period=0s", "--endpointslice-updates-batch-period=0s",
		"--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20", "--concurrent-service-endpoint-syncs=20",
		"--concurrent-endpoint-syncs=20", "--concurrent-horizontal-pod-autoscaler-syncs=20", "--concurrent-serviceaccount-token-syncs=10",
		"--horizontal-pod-autoscaler-sync-period="+s.cfg.HPASync.String(),
		"--horizontal-pod-autoscaler-downscale-stabilization="+s.cfg.HPADownscaleStabilization.String(),
		"--horizontal-pod-autoscaler-initial-readiness-delay="+s.cfg.HPAInitialReadiness.String(),
		"--node-monitor-grace-period=60s",
	); err != nil {
		return err
	}
	cfg, err := opts.Config(ctx, controllers.KnownControllers(), controllers.ControllersDisabledByDefault(), controllers.ControllerAliases())
	if err != nil {
		return err
	}
	return controllers.Run(ctx, cfg.Complete())
}

func (s *state) runScheduler(ctx context.Context) error {
	opts := scheduleroptions.NewOptions()
	kubeconfig := s.components["scheduler"]
	if err := parse("kube-scheduler", *opts.Flags,
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--leader-elect=false", "--secure-port=0", "--profiling=false",
		"--kube-api-qps=500", "--kube-api-burst=1000",
	); err != nil {
		return err
	}
	cfg, sched, err := scheduler.Setup(ctx, opts)
	if err != nil {
		return err
	}
	return scheduler.Run(ctx, cfg, sched)
}

// parse gives a component its flags; what a flag means is then exactly what the component's own documentation says.
func parse(name string, sets cliflag.NamedFlagSets, args ...string) error {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, set := range sets.FlagSets {
		fs.AddFlagSet(set)
	}
	return fs.Parse(args)
}

// awaitReadyz returns when the API says that it is ready, or why it never will be.
func (s *state) awaitReadyz(ctx context.Context, api chan error) error {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: 2 * time.Second, Transport: transport}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-api:
			return component(ctx, "apiserver", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
