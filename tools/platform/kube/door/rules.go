package door

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ColourLabel of a pod is the colour that its connections are counted under.
const ColourLabel = "edgehold.internal/colour"

// serviceProxyLabel marks a Service that another proxy serves; kube-proxy leaves those alone too.
const serviceProxyLabel = "service.kubernetes.io/service-proxy-name"

// front is one port of a Service and where its connections go.
type front struct {
	address netip.AddrPort // in the cluster: 10.B.s.t
	name    string         // of the port, may be empty
	targets []target
}

// target is an endpoint that may get connections.
type target struct {
	address netip.AddrPort // in the cluster
	pod     types.NamespacedName
}

// fronts are the doors that a Service needs: none unless it has a selector and an IPv4 cluster address.
func fronts(service *corev1.Service, endpoints []*discoveryv1.EndpointSlice) []front {
	if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if _, other := service.Labels[serviceProxyLabel]; other {
		return nil
	}
	address, err := netip.ParseAddr(service.Spec.ClusterIP) // "None" of a headless Service is no address
	if err != nil || !address.Is4() {
		return nil
	}
	var wanted []front
	for _, port := range service.Spec.Ports {
		if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP || port.Port < 1 || port.Port > 65535 {
			continue
		}
		wanted = append(wanted, front{
			address: netip.AddrPortFrom(address, uint16(port.Port)),
			name:    port.Name,
			targets: targets(endpoints, port.Name),
		})
	}
	return wanted
}

// targets are the endpoints of a port that get new connections: the ready ones, or, when there is none, those that still
// serve while they terminate. Sorted and without duplicates.
func targets(endpoints []*discoveryv1.EndpointSlice, port string) []target {
	var ready, terminating []target
	for _, slice := range endpoints {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		number, found := portOf(slice, port)
		if !found {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if len(endpoint.Addresses) == 0 {
				continue
			}
			address, err := netip.ParseAddr(endpoint.Addresses[0]) // as kube-proxy: the others are never used
			if err != nil {
				continue
			}
			t := target{address: netip.AddrPortFrom(address, number)}
			if ref := endpoint.TargetRef; ref != nil && ref.Kind == "Pod" {
				t.pod = types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
			}
			isReady := isTrue(endpoint.Conditions.Ready, true)
			switch {
			case isReady:
				ready = append(ready, t)
			case isTrue(endpoint.Conditions.Serving, isReady) && isTrue(endpoint.Conditions.Terminating, false):
				terminating = append(terminating, t)
			}
		}
	}
	if len(ready) == 0 {
		ready = terminating
	}
	slices.SortFunc(ready, func(a, b target) int {
		return cmp.Or(a.address.Compare(b.address), cmp.Compare(a.pod.String(), b.pod.String()))
	})
	// An endpoint is in two slices for a moment when the controller moves it.
	return slices.CompactFunc(ready, func(a, b target) bool { return a.address == b.address })
}

// portOf finds the number that a slice gives to the Service's port of this name; named target ports differ between slices.
func portOf(slice *discoveryv1.EndpointSlice, name string) (uint16, bool) {
	for _, port := range slice.Ports {
		if port.Name != nil && *port.Name != name || port.Name == nil && name != "" {
			continue
		}
		if port.Protocol != nil && *port.Protocol != corev1.ProtocolTCP {
			continue
		}
		if port.Port != nil && *port.Port > 0 && *port.Port <= 65535 {
			return uint16(*port.Port), true
		}
	}
	return 0, false
}

func isTrue(condition *bool, unknown bool) bool {
	if condition == nil {
		return unknown
	}
	return *condition
}
