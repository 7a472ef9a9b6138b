package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"edgehold.internal/e2e/stage"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"edgehold.internal/tools/edge/load"
	"edgehold.internal/tools/edgehold/platform"
)

// play is the stage that all scenarios share. Each begins with every PoP on green v2, the bad release, and blue v1 warm.
var play *scene

// scene is a stage and the means to hurt it.
type scene struct {
	*stage.Stage
	// dir is the embedded platform's, empty on other clusters.
	dir string
}

func TestMain(m *testing.M) {
	code, err := playAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: "+err.Error())
		code = 1
	}
	os.Exit(code)
}

func playAll(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	root, err := stage.Root()
	if err != nil {
		return 1, err
	}
	bin := filepath.Join(root, ".edgehold", "bin")
	dir := filepath.Join(root, ".edgehold", "e2e")
	config := stage.Config{Root: root, Bin: bin, Dir: filepath.Join(root, "out", "e2e"), Kubeconfig: os.Getenv("EDGEHOLD_E2E_KUBECONFIG"),
		Contexts: strings.Split(os.Getenv("EDGEHOLD_E2E_CONTEXTS"), ","), Temporal: os.Getenv("EDGEHOLD_E2E_TEMPORAL"), Overlay: os.Getenv("EDGEHOLD_E2E_OVERLAY"),
		Door: func(clusterIP string) string { return clusterIP }}
	if config.Kubeconfig == "" {
		up := exec.CommandContext(ctx, filepath.Join(bin, "edgehold"), "platform", "up", "--dir", dir, "--bin", bin, "--fresh")
		if out, err := up.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("the platform did not come up (`make build` makes the engines): %w\n%s", err, out)
		}
		defer func() {
			out, downErr := exec.Command(filepath.Join(bin, "edgehold"), "platform", "down", "--dir", dir).CombinedOutput()
			if downErr != nil {
				err = errors.Join(err, fmt.Errorf("platform down: %w\n%s", downErr, out))
			}
		}()
		state, err := platform.Load(dir)
		if err != nil {
			return 1, err
		}
		config = stage.Embedded(state, root, bin, filepath.Join(dir, "stage"))
	} else {
		dir = ""
	}
	config.Pops, config.Replicas, config.Wires = 6, 2, 1
	config.Say = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	s, err := stage.Set(ctx, config)
	if err != nil {
		return 1, err
	}
	defer s.Close()
	if err := s.Ship(ctx, v1alpha1.Green, "v2", "ratio=0.25,status=500"); err != nil {
		return 1, err
	}
	play = &scene{Stage: s, dir: dir}
	return m.Run(), nil
}

// scenario begins one: everything runs, every PoP serves green, traffic flows. At its end no request may have failed.
func scenario(t *testing.T) (*scene, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	for _, p := range []*stage.Process{play.Fleet, play.Runbooks} {
		if !p.Running() {
			if _, err := p.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	play.green(t, ctx)
	config := load.Default()
	config.Rate = 50
	run, err := play.Load(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r := run.Stop()
		if r.Failed != 0 {
			t.Errorf("%d of %d requests failed: %v", r.Failed, r.Requests, r.FailedByReason)
			for i, f := range r.Failures {
				if i < 10 {
					t.Logf("failed: %+v", f)
				}
			}
		}
		t.Logf("%d requests, %d of them bad, %d failed", r.Requests, r.Bad, r.Failed)
	})
	return play, ctx
}

// green brings every PoP to the bad release, whatever the scenario before left.
func (s *scene) green(t *testing.T, ctx context.Context) {
	t.Helper()
	if err := s.AwaitSteadyOrHalted(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(ctx, "cutover", "--direct", "--fleet", stage.FleetName, "--to", "green", "--reason", "the bad release"); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitActive(ctx, v1alpha1.Green); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitSteady(ctx); err != nil {
		t.Fatal(err)
	}
}

// AwaitSteadyOrHalted returns when no controller is in the middle of anything.
func (s *scene) AwaitSteadyOrHalted(ctx context.Context) error {
	return s.Board.Await(ctx, "nothing is under way", s.Namespaces(), func(f v1alpha1.Fleet) bool {
		return f.Status.Phase == v1alpha1.PhaseSteady || f.Status.Phase == v1alpha1.PhaseHalted || f.Status.Phase == v1alpha1.PhaseBlocked
	})
}

// rollback runs the command as an operator would: asked again with the same key when the service was not there.
func (s *scene) rollback(ctx context.Context, key string, args ...string) (string, error) {
	for {
		out, err := s.Run(ctx, append([]string{"rollback", "--reason", "v2 answers 500", "--idempotency-key", key}, args...)...)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 4 && ctx.Err() == nil {
			continue
		}
		return out, err
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// back is how nearly every scenario ends: all PoPs serve blue and nothing is under way.
func (s *scene) back(t *testing.T, ctx context.Context, pops ...stage.Pop) {
	t.Helper()
	if err := s.AwaitActive(ctx, v1alpha1.Blue, pops...); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitSteady(ctx, pops...); err != nil {
		t.Fatal(err)
	}
}

// killEngine is kill -9 on an engine of the platform; it returns when the supervisor has it ready again.
func (s *scene) killEngine(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	if s.dir == "" {
		t.Skip("needs the embedded platform: it kills " + name)
	}
	state, err := platform.Load(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := state.Engine(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(engine.Process.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		state, err := platform.Load(s.dir)
		if err == nil {
			if e, err := state.Engine(name); err == nil && e.Ready && e.Restarts > engine.Restarts {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not come back: %v", name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// killController is kill -9 on the controller pod of the PoP's cluster; Kubernetes starts it again.
func (s *scene) killController(t *testing.T, ctx context.Context, p stage.Pop) {
	t.Helper()
	zero := int64(0)
	pods := s.Cluster(p).Kube.CoreV1().Pods("edgehold-system")
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=fleet-controller"}); err != nil {
		t.Fatal(err)
	}
}
