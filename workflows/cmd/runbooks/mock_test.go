package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"edgehold.internal/libs/problem"
	"edgehold.internal/workflows"
	ours "edgehold.internal/workflows/temporal"
)

// switching is a workflow that is not ours: it calls one of the activities on the runbooks' queue.
func switching(ctx workflow.Context, queue, name string, in ours.OutageInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: queue, StartToCloseTimeout: 10 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, MaximumInterval: 500 * time.Millisecond}})
	return workflow.ExecuteActivity(ctx, name, in).Get(ctx, nil)
}

// Workflows switch outages of a real mock through a real Temporal.
func TestOutages(t *testing.T) {
	path := built(t, "llmmock")
	server := engine(t, t.TempDir(), 0)
	listen := free(t)
	mock := func() *process {
		return begin(t, exec.Command(path, "--listen", listen, "--api-listen", "127.0.0.1:0", "--audit-log", "stderr"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := &stage{TB: t, ctx: ctx}
	runbooks(t, "--temporal", server.address, "--fleet", "http://127.0.0.1:1", "--mock", "http://"+listen)
	const another = "without-a-mock"
	runbooks(t, "--temporal", server.address, "--fleet", "http://127.0.0.1:1", "--task-queue", another)

	c, err := client.Dial(client.Options{HostPort: server.address, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := worker.New(c, "drills", worker.Options{})
	w.RegisterWorkflow(switching)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	begins := func(queue, name string, in ours.OutageInput) client.WorkflowRun {
		t.Helper()
		run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "drills"}, switching, queue, name, in)
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	does := func(name string, in ours.OutageInput) error {
		t.Helper()
		return begins(ours.Deployment, name, in).Get(ctx, nil)
	}
	outage := workflows.Outage{Name: "down", All: true, Vendors: []string{"openai"}, For: time.Hour, Reason: "a drill"}
	in := ours.OutageInput{Outage: outage, Key: "drill-1/start"}

	// The mock is not there yet: the activity is tried again until it is.
	first := begins(ours.Deployment, ours.StartOutageActivity, in)
	s.eventually(func() error {
		d, err := c.DescribeWorkflowExecution(ctx, first.GetID(), first.GetRunID())
		if err == nil && (len(d.GetPendingActivities()) == 0 || d.GetPendingActivities()[0].GetAttempt() < 2) {
			return errors.New("the activity is not tried again")
		}
		return err
	})
	p := mock()
	if err := first.Get(ctx, nil); err != nil {
		t.Fatal(err)
	}
	api := "http://" + p.api
	if got := asks(t, api+"/v1/chat/completions"); got != 503 {
		t.Errorf("OpenAI answers %d in its outage", got)
	}
	if got := asks(t, api+"/v1/messages"); got != 200 {
		t.Errorf("Anthropic answers %d", got)
	}
	if err := does(ours.EndOutageActivity, ours.OutageInput{Outage: outage}); err != nil {
		t.Error(err)
	}
	if got := asks(t, api+"/v1/chat/completions"); got != 200 {
		t.Errorf("OpenAI answers %d after its outage", got)
	}
	// The act with this key was done, and is not done again.
	if err := does(ours.StartOutageActivity, in); err != nil {
		t.Error(err)
	}
	if got := asks(t, api+"/v1/chat/completions"); got != 200 {
		t.Errorf("OpenAI answers %d: an act that was repeated began the outage again", got)
	}
	// Without a key each workflow is an act of its own.
	in.Key = ""
	in.Outage.Status = 500
	if err := does(ours.StartOutageActivity, in); err != nil {
		t.Error(err)
	}
	if got := asks(t, api+"/v1/chat/completions"); got != 500 {
		t.Errorf("OpenAI answers %d", got)
	}

	for _, tc := range []struct {
		alter func(*workflows.Outage)
		kind  problem.Kind
		says  string
	}{
		{func(o *workflows.Outage) { o.For = 0 }, problem.Invalid, "say for how long"},
		{func(o *workflows.Outage) { o.Kind = "storm" }, problem.Invalid, `"storm" is not known`},
		{func(o *workflows.Outage) { o.All = false }, problem.Invalid, "an empty scope selects nothing"},
		{func(o *workflows.Outage) { o.Vendors = []string{"nobody"} }, problem.Invalid, "openai"},
		{func(o *workflows.Outage) { o.Status = 429 }, problem.AlreadyExists, "end it first"},
		{func(o *workflows.Outage) { o.All, o.Scenario = false, "nope" }, problem.NotFound, "nope"},
		{func(o *workflows.Outage) { o.Reason = "" }, problem.Invalid, "must"},
	} {
		bad := in
		tc.alter(&bad.Outage)
		err := does(ours.StartOutageActivity, bad)
		var app *temporal.ApplicationError
		if !errors.As(err, &app) || app.Type() != tc.kind.String() || !app.NonRetryable() || !strings.Contains(app.Message(), tc.says) {
			t.Errorf("got %v, want %v: …%s…", err, tc.kind, tc.says)
		}
	}
	if err := begins(another, ours.EndOutageActivity, in).Get(ctx, nil); err == nil || !strings.Contains(err.Error(), "start runbooks with --mock URL") {
		t.Errorf("a worker that knows no mock says %v", err)
	}
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// asks is the status of an answer of either vendor.
func asks(t *testing.T, url string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if strings.HasSuffix(url, "/messages") {
		r.Header.Set("Anthropic-Version", "2023-06-01")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}
