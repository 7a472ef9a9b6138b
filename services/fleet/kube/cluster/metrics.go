package cluster

import "github.com/prometheus/client_golang/prometheus"

var reachable = prometheus.NewDesc("edgehold_cluster_reachable",
	"1 while the centre's watch on the cluster of the kubeconfig context runs, 0 while it cannot.", []string{"cluster"}, nil)

// Describe implements prometheus.Collector.
func (c *Connections) Describe(out chan<- *prometheus.Desc) { out <- reachable }

// Collect implements prometheus.Collector. Clusters that nobody has asked for yet are left out: absence is not zero.
func (c *Connections) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, conn := range c.open {
		known, err := conn.mirror.state()
		switch {
		case err != nil:
			out <- prometheus.MustNewConstMetric(reachable, prometheus.GaugeValue, 0, name)
		case known:
			out <- prometheus.MustNewConstMetric(reachable, prometheus.GaugeValue, 1, name)
		}
	}
}
