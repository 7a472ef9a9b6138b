package door

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience  = 20 * time.Second // for what must happen; a test that passes does not wait for it
	namespace = "pop-fra1"
	clusterIP = "10.77.128.5" // of the Service
	front5    = "127.77.128.5"
)

// cluster is a fake API with real sockets: what a pod at 10.77.x.y serves is served on 127.77.x.y.
type cluster struct {
	testing.TB
	client *fake.Clientset
	clock  *clocktesting.FakeClock
	keeper *Keeper
	port   int // of the Service and of every pod
}

func start(t testing.TB, change func(*Config)) *cluster {
	t.Helper()
	c := &cluster{TB: t, client: fake.NewClientset(), clock: clocktesting.NewFakeClock(time.Now()), port: freePort(t, front5)}
	config := Config{Client: c.client, Block: netip.MustParsePrefix("10.77.0.0/16"), Clock: c.clock}
	if change != nil {
		change(&config)
	}
	keeper, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	c.keeper = keeper
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- keeper.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-keeper.Synced():
	case <-time.After(patience):
		t.Fatal("not synced")
	}
	return c
}

func freePort(t testing.TB, host string) int {
	t.Helper()
	l, err := net.Listen("tcp4", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (c *cluster) service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "edge"},
		Spec: corev1.ServiceSpec{ClusterIP: clusterIP, Selector: map[string]string{"app": "edge"},
			Ports: []corev1.ServicePort{{Name: "http", Port: int32(c.port)}}}}
}

func (c *cluster) create() {
	c.Helper()
	if _, err := c.client.CoreV1().Services(namespace).Create(c.Context(), c.service(), metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	c.until("the door is open", func() bool { r := c.report(); return r != nil && r.Problem == "" })
}

// serve makes these pods the ready endpoints of the Service, as a selector flip does.
func (c *cluster) serve(pods ...string) {
	c.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: "edge-1", Labels: map[string]string{discoveryv1.LabelServiceName: "edge"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(c.port))}},
	}
	for _, pod := range pods {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{podAddress(pod, "10")},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: pod},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		})
	}
	api := c.client.DiscoveryV1().EndpointSlices(namespace)
	if _, err := api.Update(c.Context(), slice, metav1.UpdateOptions{}); err != nil {
		if _, err := api.Create(c.Context(), slice, metav1.CreateOptions{}); err != nil {
			c.Fatal(err)
		}
	}
	want := map[string]int{}
	for _, pod := range pods {
		want[colourName(pod)]++
	}
	c.until("the endpoints are in force", func() bool {
		r := c.report()
		if r == nil || r.Endpoints != len(pods) {
			return false
		}
		for colour, n := range want {
			if r.Colours[colour].Endpoints != n {
				return false
			}
		}
		return true
	})
}

// Pods are named colour-number.
func colourName(pod string) string { colour, _, _ := strings.Cut(pod, "-"); return colour }
func podAddress(pod, net string) string {
	_, number, _ := strings.Cut(pod, "-")
	third := map[string]string{"blue": "1", "green": "2"}[colourName(pod)]
	return net + ".77." + third + "." + number
}

// pod runs handle for each of its connections, and exists in the API with its colour.
func (c *cluster) pod(name string, handle func(*net.TCPConn)) *net.TCPListener {
	c.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{ColourLabel: colourName(name)}}}
	if _, err := c.client.CoreV1().Pods(namespace).Create(c.Context(), pod, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(podAddress(name, "127")), Port: c.port})
	if err != nil {
		c.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			group.Go(func() { defer conn.Close(); handle(conn) })
		}
	})
	c.Cleanup(group.Wait)
	c.Cleanup(func() { listener.Close() })
	return listener
}

// echo sends its name and then what it gets.
func echo(name string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		if _, err := io.WriteString(conn, name[:1]); err == nil {
			_, _ = io.Copy(conn, conn)
		}
	}
}

func (c *cluster) report() *Report {
	for _, r := range c.keeper.Reports() {
		if r.Port == c.port {
			return &r
		}
	}
	return nil
}

func (c *cluster) until(what string, holds func() bool) {
	c.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-end:
			c.Fatalf("never came true: %s; doors: %+v", what, c.keeper.Reports())
		}
	}
}

func (c *cluster) dial() *net.TCPConn {
	c.Helper()
	conn, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.ParseIP(front5), Port: c.port})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func (c *cluster) read(conn net.Conn, want string) {
	c.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		c.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func (c *cluster) ask(conn net.Conn, message string) {
	c.Helper()
	if _, err := io.WriteString(conn, message); err != nil {
		c.Fatal(err)
	}
	c.read(conn, message)
}

func (c *cluster) wantReset(conn net.Conn) {
	c.Helper()
	if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		c.Fatalf("the connection ended with %v, want a reset", err)
	}
}

// wantRefused dials and expects what a client of a refusing Service sees: at once, or when it reads.
func (c *cluster) wantRefused() {
	c.Helper()
	conn, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.ParseIP(front5), Port: c.port})
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	c.wantReset(conn)
}

func TestSelectorFlipUnderLoad(t *testing.T) {
	c := start(t, nil)
	for _, pod := range []string{"blue-1", "blue-2", "green-1", "green-2"} {
		c.pod(pod, echo(pod))
	}
	c.create()
	c.serve("blue-1", "blue-2")
	kept := c.dial()
	c.read(kept, "b")

	// Clients that connect, ask and close, again and again, and keep every failure.
	var flipped atomic.Bool
	var late, total atomic.Int64
	stop, failures := make(chan struct{}), make(chan error, 64)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				after := flipped.Load()
				colour, err := oneRequest(front5, c.port)
				total.Add(1)
				if err != nil {
					select {
					case failures <- err:
					default:
					}
				}
				if after && colour == "b" {
					late.Add(1)
				}
			}
		})
	}
	c.until("there is load", func() bool { return total.Load() > 200 })
	c.serve("green-1", "green-2")
	flipped.Store(true)
	before := c.report().Colours["blue"]
	seen := total.Load()
	c.until("there is load after the flip", func() bool { return total.Load() > seen+200 })
	close(stop)
	clients.Wait()
	close(failures)
	for err := range failures {
		t.Errorf("a request failed: %v", err)
	}
	if n := late.Load(); n > 0 {
		t.Errorf("%d connections opened after the flip reached the old colour", n)
	}
	c.ask(kept, "still here")
	r := c.report()
	// Connections that were being dialled at the flip may still be handed over after it.
	if blue := r.Colours["blue"]; blue.Accepted > before.Accepted+8 || blue.Open != 1 || blue.LastAccepted == nil {
		t.Errorf("blue accepted %d connections after the flip and has %d open, want none and the kept one", blue.Accepted-before.Accepted, blue.Open)
	}
	if green := r.Colours["green"]; green.Accepted < 150 || green.BytesIn == 0 || green.BytesOut == 0 {
		t.Errorf("green: %+v, want the load", green)
	}
	if r.Refused != 0 || r.DialFailed != 0 {
		t.Errorf("refused %d, dial failed %d", r.Refused, r.DialFailed)
	}
}

// oneRequest returns the first letter of the colour that answered.
func oneRequest(host string, port int) (string, error) {
	conn, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.ParseIP(host), Port: port})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	answer := make([]byte, 5)
	if _, err := io.WriteString(conn, "ping"); err != nil {
		return "", err
	}
	_, err = io.ReadFull(conn, answer)
	return string(answer[:1]), err
}

func TestConnectionsAreSpread(t *testing.T) {
	c := start(t, func(config *Config) {
		var next atomic.Int64
		config.Choose = func(n int) int { return int(next.Add(1)) % n }
	})
	c.pod("blue-1", echo("blue-1"))
	c.pod("green-1", echo("green-1"))
	c.create()
	c.serve("blue-1", "green-1")
	for _, want := range []string{"g", "b", "g", "b"} {
		c.read(c.dial(), want)
	}
}

func TestHalfClose(t *testing.T) {
	c := start(t, nil)
	c.pod("blue-1", func(conn *net.TCPConn) {
		request, _ := io.ReadAll(conn) // answers only when the client has said all
		_, _ = io.WriteString(conn, strings.ToUpper(string(request)))
	})
	c.create()
	c.serve("blue-1")
	conn := c.dial()
	if _, err := io.WriteString(conn, "all of it"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || string(answer) != "ALL OF IT" {
		t.Fatalf("answer %q, %v", answer, err)
	}
	c.until("the connection has ended", func() bool { return c.report().Open == 0 })
}

func TestResetsAreResets(t *testing.T) {
	c := start(t, nil)
	ended := make(chan error, 1)
	c.pod("blue-1", func(conn *net.TCPConn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(conn, first); err != nil {
			return
		}
		switch first[0] {
		case 'r': // reset the client
			_ = conn.SetLinger(0)
		case 'e': // end first, then reset
			_ = conn.CloseWrite()
			_, _ = io.ReadFull(conn, first)
			_ = conn.SetLinger(0)
		case 'c': // the client resets
			_, _ = io.WriteString(conn, "c")
			_, err := io.Copy(io.Discard, conn)
			ended <- err
		case 'h': // the client half closes, then resets
			_, _ = io.Copy(io.Discard, conn)
			_, _ = io.WriteString(conn, "h")
			_, err := peekReset(conn)
			ended <- err
		}
	})
	c.create()
	c.serve("blue-1")
	send := func(conn *net.TCPConn, s string) {
		t.Helper()
		if _, err := io.WriteString(conn, s); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("by the endpoint", func(t *testing.T) {
		conn := c.dial()
		send(conn, "r")
		c.wantReset(conn)
	})
	t.Run("by the endpoint after its end of data", func(t *testing.T) {
		conn := c.dial()
		send(conn, "e")
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read: %v, want the end of data", err)
		}
		send(conn, "now")
		if _, err := peekReset(conn); err == nil {
			t.Fatal("no reset")
		}
	})
	t.Run("by the client", func(t *testing.T) {
		conn := c.dial()
		send(conn, "c")
		c.read(conn, "c")
		reset(conn)
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the endpoint saw %v, want a reset", err)
		}
	})
	t.Run("by the client after its end of data", func(t *testing.T) {
		conn := c.dial()
		send(conn, "h")
		_ = conn.CloseWrite()
		c.read(conn, "h")
		reset(conn)
		if err := <-ended; err == nil {
			t.Fatal("the endpoint saw no reset")
		}
	})
	c.until("all connections have ended", func() bool { return c.report().Open == 0 })
}

// peekReset waits for a reset of a connection whose data has ended.
func peekReset(conn *net.TCPConn) (bool, error) {
	s, err := newSource(conn)
	if err != nil {
		return false, err
	}
	if s.awaitReset() {
		return true, syscall.ECONNRESET
	}
	return false, nil
}

func TestNoEndpointRefuses(t *testing.T) {
	c := start(t, nil)
	c.create()
	c.wantRefused()
	c.until("it is counted", func() bool { r := c.report(); return r.Refused == 1 && r.Open == 0 })
	c.pod("blue-1", echo("blue-1"))
	c.serve("blue-1")
	c.read(c.dial(), "b")
}

func TestEndpointDialFailure(t *testing.T) {
	c := start(t, nil)
	c.pod("blue-1", echo("blue-1")).Close() // ready in the API, and not listening
	c.create()
	c.serve("blue-1")
	c.wantRefused()
	c.until("it is counted", func() bool {
		r := c.report()
		return r.DialFailed == 1 && r.Colours["blue"].DialFailed == 1 && r.Colours["blue"].Accepted == 0 && r.Open == 0
	})
}

func TestBackendDeath(t *testing.T) {
	c := start(t, nil)
	kill := make(chan struct{})
	c.pod("blue-1", func(conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "b")
		<-kill // the kernel closes what a dead process had open
	})
	c.pod("green-1", echo("green-1"))
	c.create()
	c.serve("blue-1")
	conn := c.dial()
	c.read(conn, "b")
	close(kill)
	if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
		t.Fatalf("the client saw %q, %v; want the end of data", rest, err)
	}
	c.serve("green-1")
	c.read(c.dial(), "g")
	conn.Close()
	c.until("the dead one's connection has ended", func() bool { return c.report().Colours["blue"].Open == 0 })
}

func TestLimits(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"one door":  func(config *Config) { config.MaxOpen = 1 },
		"all doors": func(config *Config) { config.MaxTotal = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, change)
			c.pod("blue-1", echo("blue-1"))
			c.create()
			c.serve("blue-1")
			first := c.dial()
			c.read(first, "b")
			c.wantRefused()
			c.until("it is counted", func() bool { return c.report().Refused == 1 })
			first.Close()
			c.until("there is room", func() bool { return c.report().Open == 0 })
			c.read(c.dial(), "b")
		})
	}
}

func TestServiceRemoval(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(c *cluster, kept *net.TCPConn)
	}{
		{"the connections end", func(_ *cluster, kept *net.TCPConn) { kept.Close() }},
		{"the time ends", func(c *cluster, kept *net.TCPConn) {
			c.clock.Step(defaultLinger - time.Second)
			c.ask(kept, "not yet")
			c.clock.Step(time.Second)
			c.wantReset(kept)
		}},
		{"the Service comes back", func(c *cluster, kept *net.TCPConn) {
			c.create()
			c.until("the door is open again", func() bool { return !c.report().Closing })
			c.clock.Step(2 * defaultLinger)
			c.ask(kept, "stays")
			c.read(c.dial(), "b")
			if accepted := c.report().Colours["blue"].Accepted; accepted != 2 {
				c.Errorf("accepted %d, want both", accepted)
			}
			c.remove()
			kept.Close()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := start(t, nil)
			c.pod("blue-1", echo("blue-1"))
			c.create()
			c.serve("blue-1")
			kept := c.dial()
			c.read(kept, "b")
			c.remove()
			c.until("the door is closing", func() bool { return c.report() != nil && c.report().Closing })
			if _, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr(front5), uint16(c.port)).String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dial: %v, want refused", err)
			}
			c.ask(kept, "still here")
			test.end(c, kept)
			if test.name != "the Service comes back" {
				c.until("the door is gone", func() bool { return c.report() == nil })
			}
		})
	}
}

func (c *cluster) remove() {
	c.Helper()
	if err := c.client.CoreV1().Services(namespace).Delete(c.Context(), "edge", metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
}

func TestPortChange(t *testing.T) {
	c := start(t, nil)
	c.pod("blue-1", echo("blue-1"))
	c.create()
	c.serve("blue-1")
	c.read(c.dial(), "b")
	changed := c.service()
	changed.Spec.Ports[0].Port = int32(freePort(t, front5))
	if _, err := c.client.CoreV1().Services(namespace).Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// Only the Service's port changes, the pods still serve on the old number.
	c.until("the new port answers", func() bool {
		colour, err := oneRequest(front5, int(changed.Spec.Ports[0].Port))
		return err == nil && colour == "b"
	})
	c.until("the old one is closing or gone", func() bool { r := c.report(); return r == nil || r.Closing })
}

func TestUnbindablePort(t *testing.T) {
	c := start(t, nil)
	squatter, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(front5), Port: c.port})
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	c.pod("blue-1", echo("blue-1"))
	if _, err := c.client.CoreV1().Services(namespace).Create(t.Context(), c.service(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until("the problem is reported", func() bool {
		r := c.report()
		return r != nil && strings.Contains(r.Problem, "address already in use")
	})
	c.serve("blue-1")
	c.until("the Service has an event", func() bool {
		events, err := c.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil && len(events.Items) == 1 && events.Items[0].Reason == "FrontDoorNotOpened" && events.Items[0].InvolvedObject.Name == "edge"
	})
	squatter.Close()
	c.clock.Step(time.Minute)
	c.until("it is tried again", func() bool { return c.report().Problem == "" })
	c.read(c.dial(), "b")
}

func TestAddressOutsideTheBlock(t *testing.T) {
	c := start(t, nil)
	service := c.service()
	service.Spec.ClusterIP = "10.78.128.5"
	if _, err := c.client.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until("the problem is reported", func() bool { r := c.report(); return r != nil && strings.Contains(r.Problem, "10.77.0.0/16") })
}

func TestColourFollowsThePod(t *testing.T) {
	c := start(t, nil)
	c.pod("blue-1", echo("blue-1"))
	c.create()
	c.serve("blue-1")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "blue-1", Labels: map[string]string{ColourLabel: "green"}}}
	if _, err := c.client.CoreV1().Pods(namespace).Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until("the endpoint is green", func() bool { return c.report().Colours["green"].Endpoints == 1 })
	c.read(c.dial(), "b")
	if r := c.report(); r.Colours["green"].Accepted != 1 || r.Colours["blue"].Accepted != 0 {
		t.Errorf("%+v", r.Colours)
	}
}

func TestColoursAreBounded(t *testing.T) {
	d := &door{tallies: map[string]*tally{}}
	for i := range 100 {
		d.tally(string(rune('a' + i)))
	}
	if len(d.tallies) != maxColours+1 {
		t.Errorf("%d colours are counted apart, want %d and the others", len(d.tallies), maxColours)
	}
}

func TestReportsOverHTTPAndAsMetrics(t *testing.T) {
	c := start(t, nil)
	c.pod("blue-1", echo("blue-1"))
	c.create()
	c.serve("blue-1")
	c.read(c.dial(), "b")

	get := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		c.keeper.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w
	}
	var doors []map[string]any
	if err := json.Unmarshal(get("GET", "/doors").Body.Bytes(), &doors); err != nil || len(doors) != 1 {
		t.Fatalf("%v, %v", doors, err)
	}
	blue := doors[0]["colours"].(map[string]any)["blue"].(map[string]any)
	last, err := time.Parse(time.RFC3339Nano, blue["last_accepted"].(string))
	if err != nil || !last.Equal(c.clock.Now()) || blue["accepted"] != 1.0 || blue["open"] != 1.0 {
		t.Errorf("blue: %v, %v", blue, err)
	}
	if doors[0]["namespace"] != namespace || doors[0]["service"] != "edge" || doors[0]["address"] != clusterIP || doors[0]["refused"] != 0.0 {
		t.Errorf("door: %v", doors[0])
	}
	if body := get("GET", "/doors?namespace=other").Body.String(); strings.TrimSpace(body) != "[]" {
		t.Errorf("another namespace: %s", body)
	}
	if code := get("DELETE", "/doors").Code; code != 405 {
		t.Errorf("DELETE: %d", code)
	}

	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c.keeper)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			values[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{"edgehold_door_connections_open": 1, "edgehold_door_connections_accepted_total": 1,
		"edgehold_door_endpoints": 1, "edgehold_door_listening": 1, "edgehold_door_refused_total": 0} {
		if got, found := values[name]; !found || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{Client: fake.NewClientset(), Block: netip.MustParsePrefix("10.77.0.0/16")}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Config){
		"Client":      func(c *Config) { c.Client = nil },
		"Block":       func(c *Config) { c.Block = netip.MustParsePrefix("192.0.2.0/24") },
		"MaxOpen":     func(c *Config) { c.MaxOpen = -1 },
		"MaxTotal":    func(c *Config) { c.MaxTotal = -1 },
		"Linger":      func(c *Config) { c.Linger = -1 },
		"DialTimeout": func(c *Config) { c.DialTimeout = -1 },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), field+" is ") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
