package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	health "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play runs a schedule for a time against answers that change at given moments, and returns what was reported when.
func play(t *testing.T, s Schedule, initial bool, length time.Duration, works func(at time.Duration) bool) []string {
	t.Helper()
	var log []string
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		s.Watch(ctx, initial, func(context.Context) error {
			if works(time.Since(start)) {
				return nil
			}
			return errors.New("no")
		}, func(ok bool, _ error) bool {
			log = append(log, fmt.Sprintf("%s %v", time.Since(start), ok))
			return true
		}, nil)
	})
	return log
}

func TestSchedule(t *testing.T) {
	after := func(d time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at >= d }
	}
	base := Schedule{Period: 10 * time.Second, Timeout: time.Second, FailureThreshold: 3, SuccessThreshold: 1}
	eager, delayed, twice := base, base, base
	eager.Eager = true
	delayed.InitialDelay = 5 * time.Second
	twice.SuccessThreshold = 2
	for _, tc := range []struct {
		name    string
		s       Schedule
		initial bool
		works   func(time.Duration) bool
		want    []string
	}{
		{"works at once", base, false, after(0), []string{"0s true"}},
		{"a check comes at once, then each period", base, false, after(time.Second), []string{"10s true"}},
		{"eager sees a fast start", eager, false, after(100 * time.Millisecond), []string{"140ms true"}},
		{"eager failures count once a period", eager, true, after(time.Hour), []string{"20s false"}},
		{"delayed", delayed, false, after(0), []string{"5s true"}},
		{"two successes", twice, false, after(0), []string{"10s true"}},
		{"three failures", base, true, func(at time.Duration) bool { return at < 15*time.Second || at > 55*time.Second }, []string{"0s true", "40s false", "1m0s true"}},
		{"two failures are forgiven", base, true, func(at time.Duration) bool { return at < 15*time.Second || at > 35*time.Second }, []string{"0s true"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, play(t, tc.s, tc.initial, 2*time.Minute, tc.works)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTimeoutIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Schedule{Period: 10 * time.Second, Timeout: 2 * time.Second, FailureThreshold: 1, SuccessThreshold: 1}
		start := time.Now()
		s.Watch(t.Context(), true, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, func(ok bool, why error) bool {
			if ok || !errors.Is(why, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
				t.Errorf("reported %v, %v after %s", ok, why, time.Since(start))
			}
			return false
		}, nil)
	})
}

func TestChecks(t *testing.T) {
	var status int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/ready?full=1" || r.Host != "edge" || r.Header.Get("X-Probe") != "yes" {
			t.Errorf("asked for %s of %s", r.URL, r.Host)
		}
		w.Header().Set("Location", "http://192.0.2.1/")
		w.WriteHeader(status)
		fmt.Fprint(w, "because")
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	addr := netip.MustParseAddr(u.Hostname())
	same := func(a netip.Addr) netip.Addr { return a }
	c := &corev1.Container{Name: "edge", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(port)}}}
	get := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready?full=1", Port: intstr.FromString("http"), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "edge"}, {Name: "X-Probe", Value: "yes"}}}}
	check, ok, err := Network(get, c, addr, same)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for code, works := range map[int]bool{200: true, 302: true, 399: true, 404: false, 503: false} {
		status = code
		err := check(t.Context())
		if (err == nil) != works {
			t.Errorf("status %d: %v", code, err)
		}
		if err != nil && !strings.Contains(err.Error(), "because") {
			t.Errorf("%v does not tell what the server said", err)
		}
	}
	tcp, _, err := Network(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}, c, addr, same)
	if err != nil {
		t.Fatal(err)
	}
	if err := tcp(t.Context()); err != nil {
		t.Error(err)
	}
	server.Close()
	if err := tcp(t.Context()); err == nil {
		t.Error("a closed port is taken for an open one")
	}
	if _, _, err := Network(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("nope")}}, c, addr, same); err == nil || !strings.Contains(err.Error(), `"nope"`) {
		t.Errorf("an unknown port name: %v", err)
	}
	if _, ok, _ := Network(corev1.ProbeHandler{Exec: &corev1.ExecAction{}}, c, addr, same); ok {
		t.Error("exec is taken for a check over the network")
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, hs := grpc.NewServer(), grpchealth.NewServer()
	health.RegisterHealthServer(server, hs)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	defer func() { server.Stop(); <-served }()
	check := GRPC(l.Addr().String(), "")
	if err := check(t.Context()); err != nil {
		t.Error(err)
	}
	hs.SetServingStatus("", health.HealthCheckResponse_NOT_SERVING)
	if err := check(t.Context()); err == nil {
		t.Error("NOT_SERVING passes")
	}
}
