package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
)

// userAgent by which servers and drain logic tell probes from traffic.
const userAgent = "kube-probe/1.37"

// maxBody is how much of an answer is read, in bytes: enough for the message of a failure.
const maxBody = 10 << 10

// The transport of all HTTP checks. Connections are not kept, so that a check says whether a new client gets in. Certificates are
// not verified, as the kubelet does not: a probe asks whether the server answers, and its own address is in no certificate.
var transport = &http.Transport{
	DisableKeepAlives:   true,
	TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	TLSHandshakeTimeout: 10 * time.Second,
}

// HTTP checks that a GET of u is answered with 200 to 399. Redirects are not followed.
func HTTP(u string, headers []corev1.HTTPHeader) Check {
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", userAgent)
		req.Header.Set("Accept", "*/*")
		for _, h := range headers {
			if strings.EqualFold(h.Name, "Host") {
				req.Host = h.Value
				continue
			}
			req.Header.Set(h.Name, h.Value)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // what came is enough for the message
		if resp.StatusCode < 200 || resp.StatusCode >= 400 {
			return fmt.Errorf("HTTP probe failed with statuscode: %d %s", resp.StatusCode, strings.TrimSpace(string(body[:min(len(body), 200)])))
		}
		return nil
	}
}

// TCP checks that a connection to address can be opened.
func TCP(address string) Check {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// GRPC checks that the health service at address says SERVING for a service ("" is the whole server).
func GRPC(address, service string) Check {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(userAgent))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		resp, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		if resp.Status != health.HealthCheckResponse_SERVING {
			return fmt.Errorf("service %q is %s", service, resp.Status)
		}
		return nil
	}
}

// Network makes the check of a probe or hook that goes over the network; false when it is of another kind. Without a host it goes
// to the pod's own address; named ports are those of the container.
func Network(h corev1.ProbeHandler, c *corev1.Container, pod netip.Addr, translate func(netip.Addr) netip.Addr) (Check, bool, error) {
	switch {
	case h.HTTPGet != nil:
		port, err := number(h.HTTPGet.Port.IntValue(), h.HTTPGet.Port.String(), c)
		if err != nil {
			return nil, true, err
		}
		scheme := strings.ToLower(string(h.HTTPGet.Scheme))
		if scheme == "" {
			scheme = "http"
		}
		u, err := url.Parse(h.HTTPGet.Path)
		if err != nil {
			return nil, true, fmt.Errorf("path %q: %w", h.HTTPGet.Path, err)
		}
		u.Scheme, u.Host = scheme, net.JoinHostPort(host(h.HTTPGet.Host, pod, translate), strconv.Itoa(port))
		return HTTP(u.String(), h.HTTPGet.HTTPHeaders), true, nil
	case h.TCPSocket != nil:
		port, err := number(h.TCPSocket.Port.IntValue(), h.TCPSocket.Port.String(), c)
		if err != nil {
			return nil, true, err
		}
		return TCP(net.JoinHostPort(host(h.TCPSocket.Host, pod, translate), strconv.Itoa(port))), true, nil
	case h.GRPC != nil:
		service := ""
		if h.GRPC.Service != nil {
			service = *h.GRPC.Service
		}
		return GRPC(net.JoinHostPort(pod.String(), strconv.Itoa(int(h.GRPC.Port))), service), true, nil
	}
	return nil, false, nil
}

func host(name string, pod netip.Addr, translate func(netip.Addr) netip.Addr) string {
	if name == "" {
		return pod.String()
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return translate(addr).String()
	}
	return name
}

// number of a port that is given as one or by a name of the container's ports.
func number(n int, name string, c *corev1.Container) (int, error) {
	if n == 0 {
		for _, p := range c.Ports {
			if p.Name == name {
				n = int(p.ContainerPort)
			}
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %q: want a number, or the name of a port of container %q", name, c.Name)
	}
	return n, nil
}
