package drain_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/drain"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var direct = drain.DialMap{}.Dialer()

func TestDialMap(t *testing.T) {
	m, err := drain.ParseDialMap("10.0.0.0/8=127.0.0.0/8,192.168.16.0/20=172.16.0.0/20")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"10.3.4.5": "127.3.4.5", "192.168.17.9": "172.16.1.9", "192.168.32.1": "192.168.32.1", "8.8.8.8": "8.8.8.8", "fd00::1": "fd00::1"} {
		if got := m.Translate(netip.MustParseAddr(from)); got.String() != to {
			t.Errorf("%s is dialled at %s, want %s", from, got, to)
		}
	}
	for _, bad := range []string{"10.0.0.0/8", "10.0.0.0/8=127.0.0.0/16", "10.0.0.0/8=fd00::/8", "a=b"} {
		if _, err := drain.ParseDialMap(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestNew(t *testing.T) {
	for _, m := range []fleet.DrainMethod{fleet.DrainWait, fleet.DrainHTTP, fleet.DrainEnvoy, fleet.DrainHAProxy, fleet.DrainNginx} {
		method, err := drain.New(fleet.DrainSpec{Method: m, Port: 1}, direct)
		if err != nil || (method == nil) != (m == fleet.DrainWait) {
			t.Errorf("%s: %v, %v", m, method, err)
		}
	}
	if _, err := drain.New(fleet.DrainSpec{Method: "pray"}, direct); err == nil {
		t.Error("an unknown method was accepted")
	}
}

// serve returns the host and the port of a server with the handler.
func serve(t *testing.T, h http.Handler) (string, int32) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return split(t, s.Listener.Addr().String())
}

func split(t *testing.T, address string) (string, int32) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return host, int32(n)
}

func TestHTTP(t *testing.T) {
	var mu sync.Mutex
	open, draining := 3, false
	at := time.Date(2026, 1, 2, 15, 4, 5, 6, time.UTC)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hooks/connections", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"open": open, "accepted": 9, "last_accepted": at, "draining": draining})
	})
	set := func(to bool) http.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) { mu.Lock(); draining = to; mu.Unlock() }
	}
	mux.HandleFunc("POST /hooks/drain", set(true))
	mux.HandleFunc("POST /hooks/undrain", set(false))
	mux.HandleFunc("POST /hooks/reset", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, `{"reset":%d}`, open)
		open = 0
	})
	host, port := serve(t, mux)
	m := drain.NewHTTP(direct, port, "/hooks/")
	ctx := t.Context()
	want := drain.Connections{Open: 3, Accepted: 9, LastAccepted: at}
	check := func(what string) {
		t.Helper()
		if got, err := m.Read(ctx, host); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	check("at first")
	must(t, m.Drain(ctx, host))
	want.Draining = true
	check("draining")
	if n, err := m.Reset(ctx, host); n != 3 || err != nil {
		t.Errorf("reset %d, %v", n, err)
	}
	must(t, m.Undrain(ctx, host))
	want.Draining, want.Open = false, 0
	check("undrained")

	if err := drain.NewHTTP(direct, port, "/elsewhere").Drain(ctx, host); err == nil || !strings.Contains(err.Error(), "no such hook") {
		t.Errorf("a missing hook: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A pod that lies, stalls, floods or redirects is an error in time, and never a number.
func TestHTTPOfABrokenPod(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"not JSON":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no number":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"draining":true}`) },
		"negative":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"open":-1}`) },
		"an error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) },
		"a flood": func(w http.ResponseWriter, _ *http.Request) {
			for range 3 << 10 {
				_, _ = w.Write(make([]byte, 1<<10))
			}
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			host, port := serve(t, h)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if c, err := drain.NewHTTP(direct, port, "/").Read(ctx, host); err == nil {
				t.Errorf("it was read as %+v", c)
			}
		})
	}
}

// The answers are those of Envoy 1.31's admin interface for one HTTP listener and a drain by the health check.
func TestEnvoy(t *testing.T) {
	var mu sync.Mutex
	state := 0
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("format") != "json" || !strings.Contains(r.FormValue("filter"), "downstream_cx_") {
			t.Errorf("asked for %s", r.URL)
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, `{"stats":[{"name":"listener.0.0.0.0_8080.downstream_cx_active","value":4},{"name":"listener.0.0.0.0_8080.downstream_cx_total","value":61},
			{"name":"listener.0.0.0.0_8080.worker_0.downstream_cx_active","value":4},{"name":"listener.0.0.0.0_8080.worker_0.downstream_cx_total","value":61},
			{"name":"listener.admin.downstream_cx_active","value":1},{"name":"listener.admin.downstream_cx_total","value":7},{"name":"server.state","value":%d}]}`, state)
	})
	set := func(to int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			state = to
			mu.Unlock()
			_, _ = io.WriteString(w, "OK\n")
		}
	}
	mux.HandleFunc("POST /healthcheck/fail", set(1))
	mux.HandleFunc("POST /healthcheck/ok", set(0))
	host, port := serve(t, mux)
	m := drain.NewEnvoy(direct, port)
	for _, draining := range []bool{false, true, false} {
		if draining {
			must(t, m.Drain(t.Context(), host))
		} else {
			must(t, m.Undrain(t.Context(), host))
		}
		want := drain.Connections{Open: 4, Accepted: 61, Draining: draining}
		if got, err := m.Read(t.Context(), host); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := m.Reset(t.Context(), host); err != drain.ErrCannot { //nolint:errorlint // the very value is the contract
		t.Errorf("reset: %v", err)
	}
}

// daemon runs a real server until the test ends, and skips where it is not installed.
func daemon(t *testing.T, name, config string, args ...string) {
	t.Helper()
	binary, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin/", "/usr/local/sbin/"} {
			if _, statErr := os.Stat(dir + name); statErr == nil {
				binary, err = dir+name, nil
			}
		}
	}
	if err != nil {
		t.Skipf("needs %s on PATH (Debian package %s)", name, name)
	}
	file := filepath.Join(t.TempDir(), name+".conf")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	var output strings.Builder
	cmd := exec.Command(binary, append(args, file)...)
	cmd.Stdout, cmd.Stderr = &output, &output
	// A process group, because these daemons have workers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s wrote: %s", name, output.String())
		}
	})
}

// free returns a port of loopback that nothing listens on.
func free(t *testing.T) int32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	_, port := split(t, l.Addr().String())
	return port
}

// eventually repeats a look at a real daemon, which has no event to wait for.
func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = look(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// keepAlive opens n connections that stay open, by one request each.
func keepAlive(t *testing.T, n int, url string) []*http.Client {
	t.Helper()
	var clients []*http.Client
	for range n {
		c := &http.Client{Transport: &http.Transport{}}
		t.Cleanup(c.CloseIdleConnections)
		get(t, c, url)
		clients = append(clients, c)
	}
	return clients
}

func get(t *testing.T, c *http.Client, url string) {
	t.Helper()
	res, err := c.Get(url)
	must(t, err)
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("GET %s: %s", url, res.Status)
	}
}

func reads(m drain.Method, open int64, draining bool) func() error {
	return func() error {
		c, err := m.Read(context.Background(), "127.0.0.1")
		if err == nil && (c.Open != open || c.Draining != draining) {
			err = fmt.Errorf("%d connections are open and draining is %t; want %d and %t", c.Open, c.Draining, open, draining)
		}
		return err
	}
}

func TestHAProxy(t *testing.T) {
	api, front, backend := free(t), free(t), make(chan struct{})
	asked := make(chan struct{}, 1)
	slow, slowPort := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		asked <- struct{}{}
		select {
		case <-backend:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(backend) })
	daemon(t, "haproxy", fmt.Sprintf(`
global
  stats socket ipv4@127.0.0.1:%d level admin
  set-var proc.edgehold_draining bool(false)
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 2s
frontend admin-health
  bind 127.0.0.1:%d
frontend edge
  bind 127.0.0.1:%d
  http-after-response set-header Connection close if { var(proc.edgehold_draining) -m bool }
  use_backend slow if { path /slow }
  http-request return status 200 content-type text/plain string "ok" if !{ path /slow }
backend slow
  server s %s:%d
`, api, free(t), front, slow, slowPort), "-db", "-f")
	m := drain.NewHAProxy(direct, api)
	eventually(t, "haproxy answers", reads(m, 0, false))
	url := fmt.Sprintf("http://127.0.0.1:%d/", front)

	clients := keepAlive(t, 3, url)
	eventually(t, "three keep-alive connections", reads(m, 3, false))
	must(t, m.Drain(t.Context(), "127.0.0.1"))
	for _, c := range clients { // each learns with its next answer that the connection ends
		get(t, c, url)
	}
	eventually(t, "drained without one failed request", reads(m, 0, true))
	must(t, m.Undrain(t.Context(), "127.0.0.1"))
	keepAlive(t, 2, url)
	eventually(t, "a standby that keeps connections again", reads(m, 2, false))

	broken := make(chan error, 1)
	go func() {
		res, err := http.Get(url + "slow")
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		broken <- err
	}()
	<-asked // a connection alone is no session yet: that begins with its request
	eventually(t, "a request under way", reads(m, 3, false))
	if n, err := m.Reset(t.Context(), "127.0.0.1"); n != 1 || err != nil {
		t.Errorf("reset %d sessions, %v; want the one under way", n, err)
	}
	<-broken
	eventually(t, "idle connections are left", reads(m, 2, false))
}

func TestHAProxyWithoutTheVariable(t *testing.T) {
	api := free(t)
	daemon(t, "haproxy", fmt.Sprintf("global\n  stats socket ipv4@127.0.0.1:%d level admin\ndefaults\n  mode http\n  timeout client 1s\n  timeout server 1s\n  timeout connect 1s\nfrontend edge\n  bind 127.0.0.1:%d\n", api, free(t)), "-db", "-f")
	m := drain.NewHAProxy(direct, api)
	eventually(t, "it says what is missing", func() error {
		_, err := m.Read(t.Context(), "127.0.0.1")
		if err != nil && strings.Contains(err.Error(), "set-var proc.edgehold_draining") {
			return nil
		}
		return fmt.Errorf("got %w", err)
	})
}

func TestNginx(t *testing.T) {
	status, front := free(t), free(t)
	dir := t.TempDir()
	daemon(t, "nginx", fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log %[1]s/error;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  keepalive_timeout 60s;
  server { listen 127.0.0.1:%[2]d; location / { return 200 "ok"; } }
  server { listen 127.0.0.1:%[3]d; location = /nginx_status { stub_status; } }
}
`, dir, front, status), "-p", dir, "-c")
	m := drain.NewNginx(direct, status, "")
	eventually(t, "nginx answers", reads(m, 0, false))
	clients := keepAlive(t, 4, fmt.Sprintf("http://127.0.0.1:%d/", front))
	eventually(t, "four connections besides the one that asks", reads(m, 4, false))
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	eventually(t, "none", reads(m, 0, false))
}
