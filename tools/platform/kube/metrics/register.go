package metrics

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/options"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// The Service by whose name the API server knows this process.
const (
	serviceNamespace = metav1.NamespaceSystem
	serviceName      = "edgehold-metrics"
	fieldManager     = "edgehold-node"
)

// reregister is how often the registration is written again, in case somebody removed it.
const reregister = 30 * time.Second

// versions of the API, the preferred one first.
var versions = []string{"v1beta2", "v1beta1"}

// authority is a certificate for this run and the one that signed it. Both are made anew at every start and the API server is
// told, so no key is ever on disk.
type authority struct {
	pair   dynamiccertificates.CertKeyContentProvider
	bundle []byte // PEM, what the API server trusts
}

func newAuthority(listen *net.TCPAddr) (authority, error) {
	host := serviceName + "." + serviceNamespace + ".svc"
	bundle, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{listen.IP}, []string{host})
	if err != nil {
		return authority{}, err
	}
	if _, err := tls.X509KeyPair(bundle, key); err != nil {
		return authority{}, err
	}
	pair, err := dynamiccertificates.NewStaticCertKeyContent("self-made", bundle, key)
	return authority{pair: pair, bundle: bundle}, err
}

// newAPI answers on listener. Who may ask is decided by the cluster: it delegates authentication and authorisation.
func newAPI(kubeconfig string, cluster *rest.Config, client kubernetes.Interface, listener net.Listener, authority authority, metrics provider.CustomMetricsProvider) (*server.GenericAPIServer, error) {
	config := server.NewRecommendedConfig(apiserver.Codecs)
	config.ClientConfig = cluster
	config.SharedInformerFactory = informers.NewSharedInformerFactory(client, 0)
	config.EnableProfiling = false
	config.EnableMetrics = false

	serving := options.NewSecureServingOptions().WithLoopback()
	serving.Listener = listener
	serving.BindAddress = listener.Addr().(*net.TCPAddr).IP
	serving.BindPort = listener.Addr().(*net.TCPAddr).Port
	serving.ServerCert.GeneratedCert = authority.pair
	if err := serving.ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return nil, err
	}
	authentication := options.NewDelegatingAuthenticationOptions()
	authentication.RemoteKubeConfigFile = kubeconfig
	if err := authentication.ApplyTo(&config.Authentication, config.SecureServing, nil); err != nil {
		return nil, err
	}
	authorization := options.NewDelegatingAuthorizationOptions()
	authorization.RemoteKubeConfigFile = kubeconfig
	if err := authorization.ApplyTo(&config.Authorization); err != nil {
		return nil, err
	}
	api, err := (&apiserver.Config{GenericConfig: &config.Config}).Complete(config.SharedInformerFactory).New(serviceName, metrics, nil)
	if err != nil {
		return nil, err
	}
	return api.GenericAPIServer, nil
}

// register tells the API server where this process listens, and goes on doing so until ctx ends.
func (s *Server) register(ctx context.Context, listen *net.TCPAddr, bundle []byte) {
	ticker := s.config.Clock.NewTicker(reregister)
	defer ticker.Stop()
	for first := true; ; first = false {
		if !s.retry(ctx, "custom metrics API not registered", func() error { return s.write(ctx, listen, bundle) }) {
			return
		}
		if first {
			s.config.Logger.Info("custom metrics API registered", "service", serviceNamespace+"/"+serviceName, "listen", listen)
			close(s.ready)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// write applies the Service and the APIServices; what is as wanted already is not changed.
func (s *Server) write(ctx context.Context, listen *net.TCPAddr, bundle []byte) error {
	// The API server dials the external name, which may be an address, at the APIService's port.
	service := coreapply.Service(serviceName, serviceNamespace).
		WithSpec(coreapply.ServiceSpec().WithType(corev1.ServiceTypeExternalName).WithExternalName(listen.IP.String()))
	if _, err := s.client.CoreV1().Services(serviceNamespace).Apply(ctx, service, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return fmt.Errorf("service %s/%s: %w", serviceNamespace, serviceName, err)
	}
	for i, version := range versions {
		port := int32(listen.Port)
		name := version + "." + custom_metrics.GroupName
		patch, err := json.Marshal(map[string]any{
			"apiVersion": apiregistrationv1.SchemeGroupVersion.String(),
			"kind":       "APIService",
			"metadata":   map[string]string{"name": name},
			"spec": apiregistrationv1.APIServiceSpec{
				Service:              &apiregistrationv1.ServiceReference{Namespace: serviceNamespace, Name: serviceName, Port: &port},
				Group:                custom_metrics.GroupName,
				Version:              version,
				CABundle:             bundle,
				GroupPriorityMinimum: 100,
				VersionPriority:      int32(100 * (len(versions) - i)),
			},
		})
		if err != nil {
			return err
		}
		if _, err := s.aggregator.ApiregistrationV1().APIServices().Patch(ctx, name, types.ApplyPatchType, patch,
			metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)}); err != nil {
			return fmt.Errorf("APIService %s: %w", name, err)
		}
	}
	return nil
}
