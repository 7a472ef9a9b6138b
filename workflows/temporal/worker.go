package temporal

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"edgehold.internal/workflows"
)

// Deployment is the name that Temporal knows the workers' versions under.
const Deployment = "edgehold-runbooks"

// taskTimeout is how long a worker may keep a workflow task. One that died with a task is noticed after it.
const taskTimeout = 5 * time.Second

//go:embed workflow.go failure.go
var source embed.FS

// Build identifies the code that histories are replayed with: a digest of its source. It is the version of the worker, so
// that an operation is never taken on by a worker that would decide otherwise, and that a release which does not change
// this code can take it on.
func Build() string {
	h := sha256.New()
	for _, files := range []embed.FS{source, workflows.Source} {
		// The walk is in lexical order, and an embedded file can be read.
		_ = fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := files.ReadFile(path)
			fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
			return err
		})
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// registerWorkflows is for workers and for what replays histories.
func registerWorkflows(r worker.WorkflowRegistry) {
	pinned := func(name string) workflow.RegisterOptions {
		return workflow.RegisterOptions{Name: name, VersioningBehavior: workflow.VersioningBehaviorPinned}
	}
	r.RegisterWorkflowWithOptions(GlobalCutover, pinned(globalCutover))
	r.RegisterWorkflowWithOptions(PopDrain, pinned(popDrain))
}

func registerActivities(r worker.ActivityRegistry, a *Activities) {
	r.RegisterActivityWithOptions(a.Preflight, activity.RegisterOptions{Name: preflightActivity})
	r.RegisterActivityWithOptions(a.CutOver, activity.RegisterOptions{Name: cutOverActivity})
	r.RegisterActivityWithOptions(a.CutOverWave, activity.RegisterOptions{Name: waveActivity})
	r.RegisterActivityWithOptions(a.FollowDrain, activity.RegisterOptions{Name: drainActivity})
	r.RegisterActivityWithOptions(a.Verify, activity.RegisterOptions{Name: verifyActivity})
	r.RegisterActivityWithOptions(a.StartOutage, activity.RegisterOptions{Name: StartOutageActivity})
	r.RegisterActivityWithOptions(a.EndOutage, activity.RegisterOptions{Name: EndOutageActivity})
}

// newWorker returns a worker for both workflows and the activities. fatal is called when it cannot go on.
func newWorker(c client.Client, taskQueue string, a *Activities, fatal func(error)) worker.Worker {
	eager := workflows.MaxPops
	w := worker.New(c, taskQueue, worker.Options{
		DeploymentOptions: worker.DeploymentOptions{UseVersioning: true,
			Version: worker.WorkerDeploymentVersion{DeploymentName: Deployment, BuildID: Build()}},
		// A start of many PoPs is a burst of short tasks: with few pollers they queue up behind one another.
		MaxConcurrentWorkflowTaskPollers: 8, MaxConcurrentActivityTaskPollers: 8,
		// One per PoP, switching or draining, of a few operations.
		MaxConcurrentActivityExecutionSize: 4 * workflows.MaxPops,
		// All PoPs of a wave that are asked alone come with the answer to one workflow task.
		MaxEagerActivityReservationsPerWorkflowTask: &eager,
		StickyScheduleToStartTimeout:                2 * time.Second,
		MaxHeartbeatThrottleInterval:                beatInterval, DefaultHeartbeatThrottleInterval: beatInterval,
		WorkerStopTimeout: 5 * time.Second,
		OnFatalError:      fatal,
	})
	registerWorkflows(w)
	registerActivities(w, a)
	return w
}

// makeCurrent makes this build the one that new operations run on. It waits until the server can.
func makeCurrent(ctx context.Context, c client.Client) error {
	return persist(ctx, func() error {
		_, err := c.WorkerDeploymentClient().GetHandle(Deployment).SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{
			BuildID: Build(), IgnoreMissingTaskQueues: true, AllowNoPollers: true})
		return err
	})
}

// routed returns when the server hands out the tasks of both queues by the current version, this build. It takes a moment
// to tell its queues. Until then it keeps back what it does not hand out at once, such as a second attempt, and a server
// that is killed in that moment tells them only a minute after it is back.
func routed(ctx context.Context, c client.Client, namespace, taskQueue string) error {
	return persist(ctx, func() error {
		for _, kind := range []enums.TaskQueueType{enums.TASK_QUEUE_TYPE_WORKFLOW, enums.TASK_QUEUE_TYPE_ACTIVITY} {
			q, err := c.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{Namespace: namespace,
				TaskQueue: &taskqueue.TaskQueue{Name: taskQueue}, TaskQueueType: kind})
			if err != nil {
				return err
			}
			if build := q.GetVersioningInfo().GetCurrentDeploymentVersion().GetBuildId(); build != Build() {
				return fmt.Errorf("task queue %s goes to build %q and not to %s", taskQueue, build, Build())
			}
		}
		return nil
	})
}

// persist tries until f succeeds, ctx ends or trying again cannot help.
func persist(ctx context.Context, f func() error) error {
	for {
		err := f()
		var denied *serviceerror.PermissionDenied
		var unimplemented *serviceerror.Unimplemented
		if err == nil || errors.As(err, &denied) || errors.As(err, &unimplemented) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
