package controller_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"edgehold.internal/services/fleet/kube/controller"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// run runs a controller for the namespace until the returned function is called or the test ends.
func (c *cluster) run(t *testing.T, with ...func(*controller.Config)) (stop func()) {
	t.Helper()
	config := controller.Config{Cluster: "test", RESTConfig: c.rest, Namespaces: []string{c.namespace}, DialMap: "10.0.0.0/8=127.0.0.0/8"}
	out := &whileRunning{t: t}
	t.Cleanup(func() { out.mu.Lock(); out.over = true; out.mu.Unlock() })
	config.Logger = slog.New(slog.NewTextHandler(out, nil))
	for _, f := range with {
		f(&config)
	}
	ctl, err := controller.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ctl.Run(ctx) }()
	var stopped bool
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-ctl.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the controller was not ready after 30 s")
	}
	return stop
}

// whileRunning writes to the test's output for as long as there is one.
type whileRunning struct {
	t  *testing.T
	mu sync.Mutex
	// over is set when the test has ended; the recorder of Events outlives its manager for a moment.
	over bool
}

func (w *whileRunning) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return len(p), nil
	}
	return w.t.Output().Write(p)
}

func ready(blue, green int32) func(*v1alpha1.Fleet) bool {
	return func(f *v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseSteady && f.Status.Blue.Ready == blue && f.Status.Green.Ready == green
	}
}

func completed(id string) func(*v1alpha1.Fleet) bool {
	return func(f *v1alpha1.Fleet) bool {
		return f.Status.LastCutover != nil && f.Status.LastCutover.ID == id && f.Status.LastCutover.Outcome == v1alpha1.OutcomeCompleted
	}
}

func TestCutover(t *testing.T) {
	c := open(t)
	c.pop(t, 2, nil)
	c.run(t)
	c.await(t, "both colours ready", ready(2, 2))

	began := time.Now()
	switched := make(chan time.Duration, 1)
	go func() {
		awaitObject(t, c, "the Service on green", &corev1.ServiceList{}, func(o client.Object) bool {
			s, ok := o.(*corev1.Service)
			return ok && s.Name == "edge" && s.Spec.Selector[v1alpha1.ColourLabel] == "green"
		})
		switched <- time.Since(began)
	}()
	time.Sleep(100 * time.Millisecond) // let the watch begin
	began = time.Now()
	c.declare(t, "op-1", v1alpha1.Green)
	t.Logf("declared → Service switched, seen by a watch: %s", <-switched)
	f := c.await(t, "op-1 completed", completed("op-1"))
	t.Logf("done after %s: %s", time.Since(began), f.Status.Message)
	l := f.Status.LastCutover
	t.Logf("declared→switched %s, switched→settled %s, settled→drained %s", l.SwitchedAt.Sub(l.DeclaredAt.Time), l.SettledAt.Sub(l.SwitchedAt.Time), l.DrainedAt.Sub(l.SettledAt.Time))
	if f.Status.Active != v1alpha1.Green || f.Status.Version != "v2" || l.From != v1alpha1.Blue || l.Principal != "test" {
		t.Errorf("status %+v", f.Status)
	}
	c.await(t, "traffic of green", func(f *v1alpha1.Fleet) bool { return f.Status.Traffic != nil && f.Status.Traffic.Requests > 0 })
}
