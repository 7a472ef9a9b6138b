package platform_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"edgehold.internal/tools/edgehold/platform"
)

// This test binary is also the supervisor, the engines and their pods: what it is depends on how it is called. So these
// tests kill real processes and need no engine built.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); {
	case len(os.Args) > 2 && os.Args[1] == "platform":
		cmd := platform.Command()
		cmd.SetArgs(os.Args[2:])
		if err := cmd.Execute(); err != nil {
			os.Exit(1)
		}
	case strings.HasPrefix(name, "edgehold-"):
		if err := fakeEngine(strings.TrimPrefix(name, "edgehold-")); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
	case name == "pod":
		select {} // until killed
	default:
		goleak.VerifyTestMain(m)
	}
}

// What a fake engine is to do wrong: "NAME=fail" ends it before it is ready, "NAME=mute" never lets it be ready.
const misbehave = "EDGEHOLD_TEST_MISBEHAVE"

// fakeEngine prints and serves what the real one would.
func fakeEngine(kind string) error {
	fs := pflag.NewFlagSet(kind, pflag.ContinueOnError)
	dir := fs.String("dir", "", "")
	name := fs.String("name", kind, "")
	bind := fs.String("bind", "127.0.0.1", "")
	kubeconfig := fs.String("kubeconfig", "", "")
	images := fs.String("images", "", "")
	dieWithStdin := fs.Bool("die-with-stdin", false, "")
	for _, ignored := range []string{"port", "service-cidr", "block", "listen", "namespace"} {
		fs.String(ignored, "", "")
	}
	if err := fs.Parse(os.Args[1:]); err != nil {
		return err
	}
	if !*dieWithStdin {
		return errors.New("started without --die-with-stdin")
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	switch os.Getenv(misbehave) {
	case *name + "=fail":
		return errors.New("no space left on the moon")
	case *name + "=mute":
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); stop() }()

	// The same port at every start, as the real ones do.
	portFile := filepath.Join(*dir, "port")
	port, _ := os.ReadFile(portFile)
	l, err := net.Listen("tcp", net.JoinHostPort(*bind, "0"+string(port)))
	if err != nil {
		return err
	}
	if err := os.WriteFile(portFile, []byte(strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), 0o600); err != nil {
		return err
	}
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }))
	}()
	url := "http://" + l.Addr().String()
	switch kind {
	case platform.ControlPlane:
		file := filepath.Join(*dir, "kubeconfig")
		text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u, user: {token: t}}]\n", url)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		fmt.Printf("{\"ready\":true,\"api\":%q,\"kubeconfig\":%q}\n", url, file)
	case platform.Node:
		if _, err := os.Stat(*kubeconfig); err != nil {
			return err
		}
		if err := startPods(*dir, *images); err != nil {
			return err
		}
		// Half a line first: a ready line may arrive in pieces.
		fmt.Print("starting\n{\"ready\":tr")
		fmt.Printf("ue,\"status\":%q}\n", url)
	default:
		fmt.Printf("{\"ready\":true,\"address\":%q,\"ui\":%q}\n", l.Addr(), url)
	}
	<-ctx.Done()
	// Who stopped when is in the order of these lines.
	f, err := os.OpenFile(filepath.Join(filepath.Dir(*dir), "..", "stopped"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, kind)
	return errors.Join(err, f.Close())
}

// startPods starts one pod that dies with the node, and one process that does what a pod should not: it leaves the
// node's session and is orphaned.
func startPods(dir, images string) error {
	pod := exec.Command(filepath.Join(images, "pod"))
	pod.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := pod.Start(); err != nil {
		return err
	}
	shell := exec.Command("sh", "-c", `setsid "$0" >/dev/null 2>&1 </dev/null & echo $!`, filepath.Join(images, "pod"))
	escaped, err := shell.Output()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pods"), fmt.Appendf(nil, "%d %s", pod.Process.Pid, escaped), 0o600)
}
