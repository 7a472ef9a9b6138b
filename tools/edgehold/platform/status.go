package platform

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// checkLimit bounds one health check.
const checkLimit = 3 * time.Second

// Report is the state of a platform and the health of each engine at this moment.
type Report struct {
	State
	// Up says that the supervisor runs.
	Up bool `json:"up"`
	// Healthy says that the supervisor runs and every engine is healthy.
	Healthy bool `json:"healthy"`
	// Health by engine, in the order of State.Engines.
	Health []Health `json:"health"`
}

// Health is what an engine answered just now.
type Health struct {
	// Engine is its name.
	Engine string `json:"engine"`
	// OK says that the process runs and its check passed.
	OK bool `json:"ok"`
	// Problem says what is wrong, empty when OK.
	Problem string `json:"problem,omitempty"`
	// Address that was asked.
	Address string `json:"address"`
	// Uptime of the process, in nanoseconds.
	Uptime time.Duration `json:"uptime_ns"`
	// RSS is its resident memory in bytes; the pods of a node are processes of their own and not in it.
	RSS int64 `json:"rss_bytes"`
}

// Status asks every engine of the platform in dir. The errors are those of Load.
func Status(ctx context.Context, dir string) (Report, error) {
	s, err := Load(dir)
	if err != nil {
		return Report{}, err
	}
	r := Report{State: s, Up: s.Running(), Health: make([]Health, len(s.Engines))}
	var checks sync.WaitGroup
	for i, e := range s.Engines {
		checks.Go(func() { r.Health[i] = s.check(ctx, e) })
	}
	checks.Wait()
	r.Healthy = r.Up && s.Phase == Ready
	for _, h := range r.Health {
		r.Healthy = r.Healthy && h.OK
	}
	return r, nil
}

func (s State) check(ctx context.Context, e Engine) Health {
	h := Health{Engine: e.Name, Uptime: e.Process.Age(), RSS: e.Process.RSS()}
	client, url := http.DefaultClient, ""
	var err error
	switch e.Kind {
	case Temporal:
		// The UI asks the frontend for it, so one request checks both.
		h.Address = s.Temporal.Address
		url = s.Temporal.UI + "/api/v1/namespaces/" + s.Temporal.Namespace
	default:
		var c ClusterState
		if c, err = s.Cluster(e.Cluster); err != nil {
			break
		}
		if e.Kind == Node {
			h.Address = c.NodeStatus
			url = c.NodeStatus + "/doors"
			break
		}
		h.Address = c.API
		url = c.API + "/readyz"
		if e.Ready {
			client, err = adminClient(c.Kubeconfig)
		}
	}
	switch {
	case !e.Process.Alive() && e.LastExit != "":
		h.Problem = "does not run: " + e.LastExit
	case !e.Process.Alive():
		h.Problem = "does not run"
	case !e.Ready:
		h.Problem = "starting"
	case err != nil:
		h.Problem = err.Error()
	default:
		if err := get(ctx, client, url); err != nil {
			h.Problem = err.Error()
		}
	}
	h.OK = h.Problem == ""
	return h
}

func adminClient(kubeconfig string) (*http.Client, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	return rest.HTTPClientFor(cfg)
}

func get(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
