package temporal

import (
	"cmp"
	"context"

	"go.temporal.io/sdk/activity"

	"edgehold.internal/libs/problem"
	"edgehold.internal/workflows"
)

// The names of the activities that switch outages of a mock. Workflows call them on the runbooks' task queue.
const (
	StartOutageActivity = "StartOutage"
	EndOutageActivity   = "EndOutage"
)

// OutageInput is what both activities take.
type OutageInput struct {
	Outage workflows.Outage
	// Key of the act: the same key is the same act, and done once. Empty for one of the workflow's run and the activity, which an
	// activity that is tried again keeps.
	Key string
}

// StartOutage begins an outage. It ends by itself, so that a workflow that dies leaves none behind.
func (a *Activities) StartOutage(ctx context.Context, in OutageInput) error {
	return a.switchOutage(ctx, in, workflows.Mock.StartOutage)
}

// EndOutage ends one early.
func (a *Activities) EndOutage(ctx context.Context, in OutageInput) error {
	return a.switchOutage(ctx, in, workflows.Mock.EndOutage)
}

func (a *Activities) switchOutage(ctx context.Context, in OutageInput, do func(workflows.Mock, context.Context, workflows.Outage, string) error) error {
	if a.Mock == nil {
		return a.failed(ctx, problem.Preconditionf("", "this worker knows no mock; start runbooks with --mock URL"))
	}
	info := activity.GetInfo(ctx)
	return a.failed(ctx, do(a.Mock, ctx, in.Outage, cmp.Or(in.Key, info.WorkflowExecution.RunID+"/"+info.ActivityID)))
}
