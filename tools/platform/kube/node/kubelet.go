package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"edgehold.internal/tools/platform/kube/logfile"
	"edgehold.internal/tools/platform/kube/process"
)

// kubelet is the part of the kubelet's HTTP API that the API server calls for `kubectl logs` and `kubectl exec`.
type kubelet struct {
	keeper *keeper
	log    *slog.Logger
}

func (k *kubelet) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.logs)
	mux.HandleFunc("GET /exec/{namespace}/{pod}/{container}", k.exec) // a websocket
	mux.HandleFunc("POST /exec/{namespace}/{pod}/{container}", k.exec)
	mux.HandleFunc("GET /pods", k.pods)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	for _, unknown := range []string{"/attach/", "/portForward/"} {
		mux.HandleFunc(unknown, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not supported by this node: its pods are processes of the machine; reach their addresses with 127 in place of 10", http.StatusNotImplemented)
		})
	}
	return mux
}

func (k *kubelet) find(w http.ResponseWriter, r *http.Request) *process.Pod {
	pod := k.keeper.find(r.PathValue("namespace"), r.PathValue("pod"))
	if pod == nil {
		http.Error(w, fmt.Sprintf("pod %s/%s is not on this node", r.PathValue("namespace"), r.PathValue("pod")), http.StatusNotFound)
	}
	return pod
}

func (k *kubelet) logs(w http.ResponseWriter, r *http.Request) {
	pod := k.find(w, r)
	if pod == nil {
		return
	}
	opts, previous, err := logOptions(r, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	out := &flusher{w: w}
	err = pod.Logs(r.Context(), r.PathValue("container"), previous, out, opts)
	if err != nil && !out.written && r.Context().Err() == nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// flusher passes every line on at once.
type flusher struct {
	w       http.ResponseWriter
	written bool
}

func (f *flusher) Write(p []byte) (int, error) {
	f.written = true
	n, err := f.w.Write(p)
	if flush, ok := f.w.(http.Flusher); ok {
		flush.Flush()
	}
	return n, err
}

// logOptions reads the query of a request for logs, as the API server sends it.
func logOptions(r *http.Request, now time.Time) (opts logfile.Options, previous bool, err error) {
	query := r.URL.Query()
	flag := func(name string) bool {
		v, parseErr := strconv.ParseBool(query.Get(name))
		if query.Get(name) != "" && parseErr != nil {
			err = fmt.Errorf("%s is %q: want true or false", name, query.Get(name))
		}
		return v
	}
	number := func(name string, unset int64) int64 {
		if !query.Has(name) {
			return unset
		}
		v, parseErr := strconv.ParseInt(query.Get(name), 10, 64)
		if parseErr != nil || v < 0 {
			err = fmt.Errorf("%s is %q: want a number, 0 or more", name, query.Get(name))
		}
		return v
	}
	opts = logfile.Options{
		Tail: int(number("tailLines", -1)), LimitBytes: number("limitBytes", 0),
		Follow: flag("follow"), Timestamps: flag("timestamps"),
	}
	previous = flag("previous")
	if query.Has("sinceSeconds") {
		opts.Since = now.Add(-time.Duration(min(number("sinceSeconds", 0), math.MaxInt64/int64(time.Second))) * time.Second)
	}
	if since := query.Get("sinceTime"); since != "" {
		at, parseErr := time.Parse(time.RFC3339, since)
		if parseErr != nil {
			err = fmt.Errorf("sinceTime is %q: want RFC 3339", since)
		}
		opts.Since = at
	}
	return opts, previous, err
}

// The bounds of a session of exec that nobody uses.
const (
	execIdle   = 4 * time.Hour
	execCreate = 30 * time.Second
)

func (k *kubelet) exec(w http.ResponseWriter, r *http.Request) {
	pod := k.find(w, r)
	if pod == nil {
		return
	}
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{pod}, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"], opts,
		execIdle, execCreate, remotecommand.SupportedStreamingProtocols)
}

// executor runs commands of exec sessions.
type executor struct{ pod *process.Pod }

// ExecInContainer of a session. There are no terminals: one that is asked for gets pipes.
func (e executor) ExecInContainer(ctx context.Context, _, _, container string, command []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	var stdout, stderr io.Writer
	if out != nil {
		stdout = out
	}
	if stderr = stdout; errOut != nil {
		stderr = errOut
	}
	code, err := e.pod.Exec(ctx, container, command, in, stdout, stderr)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

func (k *kubelet) pods(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: k.keeper.pods()})
}

// listenTLS listens at an address of this machine for clients that the cluster's authority has made administrators of nodes. The
// certificate is our own: API servers do not verify those of kubelets unless they are told to.
func listenTLS(at netip.Addr, authority []byte) (net.Listener, error) {
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(authority) {
		return nil, errors.New("the kubeconfig has no certificate-authority-data: it is needed to know the API server by")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "edgehold-node"}, IPAddresses: []net.IP{at.AsSlice()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return tls.Listen("tcp", netip.AddrPortFrom(at, 0).String(), &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clients,
		NextProtos: []string{"http/1.1"}, // exec takes connections over
		VerifyConnection: func(state tls.ConnectionState) error {
			// Pods have tokens, not certificates; still, the authority may sign others.
			if who := state.PeerCertificates[0].Subject; !slices.Contains(who.Organization, "system:masters") {
				return fmt.Errorf("client %q may not use this node: want one of group system:masters", who.CommonName)
			}
			return nil
		},
	})
}
