package platform

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// mergeKubeconfigs writes one file with a context for each cluster; the first is the current one. Entries are renamed
// after the cluster, so that equal names in two files do not become one.
func mergeKubeconfigs(clusters []ClusterState, path string) error {
	merged := api.NewConfig()
	for _, c := range clusters {
		one, err := clientcmd.LoadFromFile(c.Kubeconfig)
		if err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", c.Name, err)
		}
		if err := clientcmd.ResolveLocalPaths(one); err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", c.Name, err)
		}
		ctx, ok := one.Contexts[one.CurrentContext]
		if !ok || one.Clusters[ctx.Cluster] == nil || one.AuthInfos[ctx.AuthInfo] == nil {
			return fmt.Errorf("kubeconfig of %s: %s has no complete current context", c.Name, c.Kubeconfig)
		}
		user := c.Name + "-admin"
		merged.Clusters[c.Name], merged.AuthInfos[user] = one.Clusters[ctx.Cluster], one.AuthInfos[ctx.AuthInfo]
		merged.Contexts[c.Name] = &api.Context{Cluster: c.Name, AuthInfo: user}
		if merged.CurrentContext == "" {
			merged.CurrentContext = c.Name
		}
	}
	data, err := clientcmd.Write(*merged)
	if err != nil {
		return err
	}
	return replaceFile(path, data)
}
