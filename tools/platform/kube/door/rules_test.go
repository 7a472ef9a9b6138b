package door

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func TestTargetsFollowKubeProxy(t *testing.T) {
	const ready, terminating, starting, gone = "ready", "terminating", "starting", "gone"
	endpoint := func(address, state string) discoveryv1.Endpoint {
		e := discoveryv1.Endpoint{Addresses: []string{address}}
		switch state {
		case terminating:
			e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
		case starting:
			e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(false)}
		case gone:
			e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(true)}
		case ready:
			e.Conditions = discoveryv1.EndpointConditions{Ready: new(true)}
		}
		return e
	}
	slice := func(port int32, name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
			Ports: []discoveryv1.EndpointPort{{Name: new(name), Port: new(port), Protocol: new(corev1.ProtocolTCP)}}}
	}
	ipv6 := slice(80, "", endpoint("fd00::1", ready))
	ipv6.AddressType = discoveryv1.AddressTypeIPv6
	udp := slice(80, "", endpoint("10.1.0.1", ready))
	udp.Ports[0].Protocol = new(corev1.ProtocolUDP)
	anyPort := slice(80, "", endpoint("10.1.0.1", ready))
	anyPort.Ports[0].Port = nil

	for _, test := range []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		port   string
		want   []string
	}{
		{"ready ones only", []*discoveryv1.EndpointSlice{slice(80, "", endpoint("10.1.0.2", ready), endpoint("10.1.0.1", ready),
			endpoint("10.1.0.3", starting), endpoint("10.1.0.4", terminating))}, "", []string{"10.1.0.1:80", "10.1.0.2:80"}},
		{"unknown condition is ready", []*discoveryv1.EndpointSlice{slice(80, "", endpoint("10.1.0.1", ""))}, "", []string{"10.1.0.1:80"}},
		{"serving while terminating when none is ready", []*discoveryv1.EndpointSlice{slice(80, "", endpoint("10.1.0.1", terminating),
			endpoint("10.1.0.2", gone), endpoint("10.1.0.3", starting))}, "", []string{"10.1.0.1:80"}},
		{"the fallback looks at all slices", []*discoveryv1.EndpointSlice{slice(80, "", endpoint("10.1.0.1", terminating)),
			slice(80, "", endpoint("10.1.0.2", ready))}, "", []string{"10.1.0.2:80"}},
		{"none", []*discoveryv1.EndpointSlice{slice(80, "", endpoint("10.1.0.1", gone))}, "", nil},
		{"no slices", nil, "", nil},
		{"by the port's name, each slice its number", []*discoveryv1.EndpointSlice{slice(8080, "http", endpoint("10.1.0.1", ready)),
			slice(9090, "http", endpoint("10.1.0.2", ready)), slice(9901, "admin", endpoint("10.1.0.3", ready))}, "http",
			[]string{"10.1.0.1:8080", "10.1.0.2:9090"}},
		{"in two slices for a moment", []*discoveryv1.EndpointSlice{slice(80, "", endpoint("10.1.0.1", ready)),
			slice(80, "", endpoint("10.1.0.1", ready))}, "", []string{"10.1.0.1:80"}},
		{"IPv4 only", []*discoveryv1.EndpointSlice{ipv6}, "", nil},
		{"TCP only", []*discoveryv1.EndpointSlice{udp}, "", nil},
		{"a slice without a port number", []*discoveryv1.EndpointSlice{anyPort}, "", nil},
		{"what is no address", []*discoveryv1.EndpointSlice{slice(80, "", endpoint("edge", ready), discoveryv1.Endpoint{})}, "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, target := range targets(test.slices, test.port) {
				got = append(got, target.address.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFronts(t *testing.T) {
	service := func(change func(*corev1.Service)) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.1.128.5", Selector: map[string]string{"app": "edge"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 8080, Protocol: corev1.ProtocolTCP}}}}
		change(s)
		return s
	}
	for _, test := range []struct {
		name   string
		change func(*corev1.Service)
		want   []string
	}{
		{"one per port", func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: 9901}) },
			[]string{"10.1.128.5:8080", "10.1.128.5:9901"}},
		{"node ports have a cluster address too", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, []string{"10.1.128.5:8080"}},
		{"UDP", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }, nil},
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }, nil},
		{"no address yet", func(s *corev1.Service) { s.Spec.ClusterIP = "" }, nil},
		{"IPv6", func(s *corev1.Service) { s.Spec.ClusterIP = "fd00::1" }, nil},
		{"external name", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, nil},
		{"no selector", func(s *corev1.Service) { s.Spec.Selector = nil }, nil},
		{"served by another proxy", func(s *corev1.Service) { s.Labels = map[string]string{serviceProxyLabel: "other"} }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, f := range fronts(service(test.change), nil) {
				got = append(got, f.address.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever the slices say: an endpoint that is not ready gets nothing while another is ready, and none is listed twice.
func TestTargetsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		condition := rapid.SampledFrom([]*bool{nil, new(true), new(false)})
		endpoint := rapid.Custom(func(t *rapid.T) discoveryv1.Endpoint {
			return discoveryv1.Endpoint{
				Addresses: []string{rapid.SampledFrom([]string{"10.1.0.1", "10.1.0.2", "10.1.0.3", "nonsense", "::1"}).Draw(t, "address")},
				Conditions: discoveryv1.EndpointConditions{Ready: condition.Draw(t, "ready"), Serving: condition.Draw(t, "serving"),
					Terminating: condition.Draw(t, "terminating")},
			}
		})
		var all []*discoveryv1.EndpointSlice
		ready := map[string]bool{}
		for _, endpoints := range rapid.SliceOfN(rapid.SliceOfN(endpoint, 0, 5), 0, 3).Draw(t, "slices") {
			all = append(all, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, AddressType: discoveryv1.AddressTypeIPv4,
				Endpoints: endpoints, Ports: []discoveryv1.EndpointPort{{Port: new(int32(80))}}})
			for _, e := range endpoints {
				if _, err := netip.ParseAddr(e.Addresses[0]); err == nil && isTrue(e.Conditions.Ready, true) {
					ready[e.Addresses[0]] = true
				}
			}
		}
		got := targets(all, "")
		if !slices.IsSortedFunc(got, func(a, b target) int { return a.address.Compare(b.address) }) {
			t.Fatalf("not sorted: %v", got)
		}
		for i, g := range got {
			if i > 0 && g.address == got[i-1].address {
				t.Fatalf("%s twice", g.address)
			}
			if len(ready) > 0 && !ready[g.address.Addr().String()] {
				t.Fatalf("%s is not ready, %v are", g.address, ready)
			}
		}
		if len(ready) > 0 && len(got) != len(ready) {
			t.Fatalf("got %v, ready are %v", got, ready)
		}
	})
}
