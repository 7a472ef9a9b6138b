package temporal

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdk "go.temporal.io/sdk/temporal"
	sdkworkflow "go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	"edgehold.internal/libs/problem"
	"edgehold.internal/workflows"
)

const (
	// callTimeout of a call to Temporal, retries included: a Temporal that restarts is back within it.
	callTimeout = 5 * time.Second
	// queryTimeout of a question to a workflow, which a worker answers.
	queryTimeout = 3 * time.Second
	// planTimeout of the plan that a start is checked with: a little longer than the fleet service waits for a PoP.
	planTimeout = 6 * time.Second
	// decideTimeout until a worker has taken a decision.
	decideTimeout = 10 * time.Second
	// endTimeout until an operation that was aborted has ended: lastWord, the heartbeat that brings word of it, and a worker
	// that died meanwhile.
	endTimeout = 10 * time.Second
	// takeOverTimeout until the server hands out tasks to this worker's version. It is a matter of 0.3 s, and of seconds for
	// a server that has just begun.
	takeOverTimeout = 20 * time.Second
	// healthInterval is how often Temporal is asked whether it is there, for the warning when it is not.
	healthInterval = 5 * time.Second
	// idPrefix of the workflow of a fleet's operation. There is one per fleet, so that Temporal refuses a second.
	idPrefix = "fleet/"
)

// Runbooks is workflows.Operations on Temporal.
type Runbooks struct {
	cfg        Config
	client     client.Client
	fleets     workflows.Fleets
	mock       workflows.Mock // nil for none
	log        *slog.Logger
	warn       func(name, text string)
	audit      func(ctx context.Context, operation string, d workflows.Decision, err error)
	attributes atomic.Bool // the search attributes can be used
	starting   chan struct{}
	watches    watches
}

var _ workflows.Operations = (*Runbooks)(nil)

// Open returns Runbooks that connect with the first call. mock may be nil. warn raises a named warning for the operator, and takes it
// back when the text is empty. audit keeps decisions that are not calls of their own: the abort of an operation that is
// superseded, and why it was not aborted. Close them.
func Open(cfg Config, fleets workflows.Fleets, mock workflows.Mock, log *slog.Logger, warn func(name, text string),
	audit func(ctx context.Context, operation string, d workflows.Decision, err error)) (*Runbooks, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	options, err := cfg.options(log)
	if err != nil {
		return nil, err
	}
	c, err := client.NewLazyClient(options)
	if err != nil {
		return nil, err
	}
	r := &Runbooks{cfg: cfg, client: c, fleets: fleets, mock: mock, log: log, warn: warn, audit: audit, starting: make(chan struct{}, 1)}
	r.watches.follow = r.follow
	return r, nil
}

// Close ends the connection.
func (r *Runbooks) Close() { r.client.Close() }

// Run connects, creates what is missing, calls ready, and works until ctx ends. Until Temporal can be reached it raises
// a warning and tries on. An error is what trying again cannot mend.
func (r *Runbooks) Run(ctx context.Context, ready func()) error {
	if !r.connect(ctx) {
		return nil
	}
	background, cancel := context.WithCancel(ctx)
	defer cancel()
	attributes := make(chan struct{})
	go func() {
		defer close(attributes)
		limit, cancel := context.WithTimeout(background, 30*time.Second)
		defer cancel()
		if err := ensureAttributes(limit, r.client, r.cfg.Namespace); err != nil {
			if background.Err() == nil {
				r.warn("search-attributes", fmt.Sprintf("operations cannot be searched for in Temporal: %v", err))
			}
			return
		}
		r.attributes.Store(true)
	}()
	defer func() { cancel(); <-attributes }()
	fatal := make(chan error, 1)
	if !r.cfg.ServeOnly {
		w := newWorker(r.client, r.cfg.TaskQueue, &Activities{Fleets: r.fleets, Mock: r.mock, Tell: r.tell, Log: r.log}, func(err error) {
			select {
			case fatal <- err:
			default:
			}
		})
		if err := w.Start(); err != nil {
			if ctx.Err() == nil {
				return fmt.Errorf("the worker did not start: %w", err)
			}
			return nil // it was stopped before
		}
		defer w.Stop()
		r.log.InfoContext(ctx, "worker started", "deployment", Deployment, "build", Build(), "task_queue", r.cfg.TaskQueue)
		if !r.cfg.KeepCurrent {
			r.takeOver(background)
		}
	}
	ready()
	for {
		select {
		case err := <-fatal:
			return fmt.Errorf("the worker cannot go on: %w", err)
		case <-ctx.Done():
			return nil
		case <-time.After(healthInterval):
			r.answers(ctx)
		}
	}
}

// takeOver makes this worker the one that new operations run on, and returns when it is or cannot be.
func (r *Runbooks) takeOver(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	err := makeCurrent(limit, r.client)
	if err == nil {
		err = routed(limit, r.client, r.cfg.Namespace, r.cfg.TaskQueue)
	}
	if err != nil && ctx.Err() == nil {
		r.warn("worker-version", fmt.Sprintf("new operations may not run on this worker: %v; look at it with temporal worker deployment describe --name %s, and make it current with temporal worker deployment set-current-version --deployment-name %s --build-id %s",
			err, Deployment, Deployment, Build()))
	}
}

// connect says whether Temporal has answered before ctx ended.
func (r *Runbooks) connect(ctx context.Context) bool {
	for !r.answers(ctx) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
	return true
}

// answers says whether Temporal does, and raises a warning or takes it back.
func (r *Runbooks) answers(ctx context.Context) bool {
	attempt, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := r.client.CheckHealth(attempt, &client.CheckHealthRequest{})
	if err == nil {
		r.warn("temporal", "")
		return true
	}
	if ctx.Err() == nil {
		r.log.DebugContext(ctx, "Temporal does not answer", "error", err)
		r.warn("temporal", fmt.Sprintf("%s; start it, or check --temporal %s", unreachable, r.cfg.Address))
	}
	return false
}

func (r *Runbooks) tell(ctx context.Context, to sdkworkflow.Execution, signal string, rep workflows.Report) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := r.client.SignalWorkflow(ctx, to.ID, to.RunID, signal, rep)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) { // the operation has ended, and nobody wants to know
		return nil
	}
	return err
}

// OperationID is the id that people see: the fleet and the run.
func OperationID(fleet, runID string) string { return fleet + "." + runID }

var operationID = regexp.MustCompile(`^([a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?)\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)

// parseID is the inverse of OperationID.
func parseID(id string) (workflowID, runID string, err error) {
	m := operationID.FindStringSubmatch(id)
	if m == nil {
		return "", "", problem.NotFoundf("id", "%q is no operation; edgehold operation list shows those there are", id)
	}
	return idPrefix + m[1], m[2], nil
}

// digest tells one payload from another.
func digest(s workflows.Start) (string, error) {
	b, err := json.Marshal(struct {
		Request   workflows.Request
		Reason    string
		Supersede bool `json:",omitempty"`
	}{s.Request.WithDefaults(), s.Reason, s.Supersede})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// started is the memo of an operation: what it was started with.
type started struct {
	Start  workflows.Start `json:"start"`
	Digest string          `json:"digest"`
}

// Start implements workflows.Operations. Of two starts at once Temporal lets one through, by the id of the workflow.
func (r *Runbooks) Start(ctx context.Context, s workflows.Start) (workflows.Operation, error) {
	if err := s.Validate(); err != nil {
		return workflows.Operation{}, err
	}
	sum, err := digest(s)
	if err != nil {
		return workflows.Operation{}, err
	}
	workflowID := idPrefix + s.Request.Fleet
	last, err := r.last(ctx, workflowID)
	if err != nil {
		return workflows.Operation{}, err
	}
	if id, err := r.earlier(ctx, last, started{s, sum}); err != nil {
		return workflows.Operation{}, err
	} else if id != "" {
		return r.Get(ctx, id)
	}
	if !s.Supersede && last.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		// Before the plan, which would speak of PoPs that change while it is made.
		return r.collided(ctx, workflowID, last.GetExecution().GetRunId(), started{s, sum})
	}
	supersedes := s.Supersede && givesWay(last, s.Key)
	if supersedes {
		if s.Request, err = s.Request.Superseding(startOf(last).Start.Request); err != nil {
			return workflows.Operation{}, err
		}
	}
	plan, err := r.plan(ctx, s.Request)
	if err != nil {
		return workflows.Operation{}, err
	}
	if supersedes {
		plan = nil // it was made while the other one changed PoPs
		if s.Supersedes, err = r.replace(ctx, s, last.GetExecution()); err != nil {
			return workflows.Operation{}, err
		}
	}
	return r.begin(ctx, workflowID, started{s, sum}, plan)
}

// givesWay says whether an operation gives way to a start that supersedes: it runs, or it was aborted for this very start,
// which was cut off then and comes again.
func givesWay(last *workflow.WorkflowExecutionInfo, key string) bool {
	return last.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING ||
		slices.ContainsFunc(brief(last).Decisions, func(d workflows.Decision) bool { return d.Verb == workflows.Abort && d.Key == key })
}

// replace aborts an operation and returns its id when it has ended, or nothing when it ended otherwise. One that began
// meanwhile is left alone: somebody else has decided on it just now.
func (r *Runbooks) replace(ctx context.Context, s workflows.Start, e *common.WorkflowExecution) (string, error) {
	id := OperationID(s.Request.Fleet, e.GetRunId())
	d := s.Superseded()
	_, err := r.Decide(ctx, id, d)
	r.audit(ctx, id, d, err)
	if err != nil {
		switch problem.KindOf(err) {
		case problem.FailedPrecondition, problem.AlreadyExists: // it has ended, or somebody else has aborted it
		default:
			return "", err
		}
	}
	limit, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	var op workflows.Operation
	err = r.client.GetWorkflow(limit, e.GetWorkflowId(), e.GetRunId()).Get(limit, &op)
	var closed *sdk.WorkflowExecutionError // by hand, in Temporal
	switch {
	case errors.As(err, &closed):
		return "", nil
	case err != nil && limit.Err() != nil && ctx.Err() == nil:
		return "", problem.Unavailablef("operation %s was told to end and has not within %s; ask again with the same key, or see what it waits for with edgehold operation get %s", id, endTimeout, id)
	case err != nil:
		return "", outage(err)
	case op.State != workflows.Aborted:
		return "", nil
	}
	return id, nil
}

// begin starts the workflow. There is one start at a time, so that a key that comes twice at once finds the first one
// even when that has ended already.
func (r *Runbooks) begin(ctx context.Context, workflowID string, memo started, plan *workflows.Plan) (workflows.Operation, error) {
	select {
	case r.starting <- struct{}{}:
		defer func() { <-r.starting }()
	case <-ctx.Done():
		return workflows.Operation{}, ctx.Err()
	}
	last, err := r.last(ctx, workflowID)
	if err != nil {
		return workflows.Operation{}, err
	}
	if id, err := same(memo, last); err != nil {
		return workflows.Operation{}, err
	} else if id != "" {
		return r.Get(ctx, id)
	}
	run, err := r.execute(ctx, workflowID, memo, plan)
	var running *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &running) {
		return r.collided(ctx, workflowID, running.RunId, memo)
	}
	if err != nil {
		return workflows.Operation{}, outage(err)
	}
	id := OperationID(memo.Start.Request.Fleet, run.GetRunID())
	r.log.InfoContext(ctx, "operation started", "operation", id, "principal", memo.Start.Principal, "reason", memo.Start.Reason, "supersedes", memo.Start.Supersedes)
	// What it looks like at its very beginning; to ask the workflow would cost a round trip.
	return workflows.NewRun(id, memo.Start, time.Now()).Operation(), nil
}

// plan checks a request with the fleet service. A service that does not answer is no reason to refuse: the operation
// waits for it.
func (r *Runbooks) plan(ctx context.Context, req workflows.Request) (*workflows.Plan, error) {
	limit, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	plan, err := r.fleets.Plan(limit, req)
	if err == nil {
		return &plan, req.Fits(plan)
	}
	switch problem.KindOf(err) {
	case problem.Invalid, problem.NotFound, problem.FailedPrecondition, problem.PermissionDenied, problem.Unauthenticated, problem.ResourceExhausted:
		return nil, err
	}
	r.log.WarnContext(ctx, "the start was not checked; the operation asks again", "error", err)
	return nil, nil
}

func (r *Runbooks) execute(ctx context.Context, workflowID string, memo started, plan *workflows.Plan) (client.WorkflowRun, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s := memo.Start
	o := client.StartWorkflowOptions{
		ID: workflowID, TaskQueue: r.cfg.TaskQueue,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL, WorkflowExecutionErrorWhenAlreadyStarted: true,
		WorkflowTaskTimeout: taskTimeout,
		Memo:                map[string]any{startMemo: memo},
		StaticSummary:       summary(s),
		StaticDetails:       fmt.Sprintf("%s asks: %s", s.Principal, s.Reason),
		EnableEagerStart:    !r.cfg.ServeOnly,
	}
	in := Input{Start: s, Plan: plan, Attributes: r.attributes.Load()}
	if in.Attributes {
		o.TypedSearchAttributes = sdk.NewSearchAttributes(FleetAttribute.ValueSet(s.Request.Fleet),
			StateAttribute.ValueSet(string(workflows.Running)), KeyAttribute.ValueSet(s.Key))
	}
	run, err := r.client.ExecuteWorkflow(ctx, o, globalCutover, in)
	var invalid *serviceerror.InvalidArgument
	if in.Attributes && errors.As(err, &invalid) { // somebody has removed an attribute; a rollback must not fail on that
		r.attributes.Store(false)
		r.warn("search-attributes", "operations cannot be searched for in Temporal: it refuses the search attributes; create them again and restart runbooks")
		in.Attributes, o.TypedSearchAttributes = false, sdk.SearchAttributes{}
		run, err = r.client.ExecuteWorkflow(ctx, o, globalCutover, in)
	}
	return run, err
}

func summary(s workflows.Start) string {
	to, scope := "the colour before", "all PoPs"
	if s.Request.To != workflows.None {
		to = string(s.Request.To)
	}
	if !s.Request.All {
		scope = fmt.Sprintf("%d PoPs", len(s.Request.Pops))
	}
	return fmt.Sprintf("%s of fleet %s to %s, %s", s.Request.Kind, s.Request.Fleet, to, scope)
}

// last describes the newest operation of a fleet, or returns nil when there is none.
func (r *Runbooks) last(ctx context.Context, workflowID string) (*workflow.WorkflowExecutionInfo, error) {
	info, err := r.describe(ctx, workflowID, "")
	if problem.KindOf(err) == problem.NotFound {
		info, err = nil, nil
	}
	return info, err
}

func (r *Runbooks) describe(ctx context.Context, workflowID, runID string) (*workflow.WorkflowExecutionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d, err := r.client.DescribeWorkflowExecution(ctx, workflowID, runID)
	return d.GetWorkflowExecutionInfo(), outage(err)
}

// earlier is the id of the operation that was started with the same key, or empty. The fleet's last one was asked
// directly, for the index is behind by a moment; those before it are looked up in the index.
func (r *Runbooks) earlier(ctx context.Context, last *workflow.WorkflowExecutionInfo, memo started) (string, error) {
	if last == nil {
		return "", nil
	}
	if id, err := same(memo, last); id != "" || err != nil {
		return id, err
	}
	query := fmt.Sprintf("WorkflowType = '%s' AND WorkflowId = '%s'", globalCutover, last.GetExecution().GetWorkflowId())
	if r.attributes.Load() { // which those that began before it was there do not have
		query += fmt.Sprintf(" AND (%[1]s = '%[2]s' OR %[1]s IS NULL)", KeyAttribute.GetName(), strings.ReplaceAll(memo.Start.Key, "'", "''"))
	}
	// Of those without the attribute the newest page has to do.
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := r.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: r.cfg.Namespace, Query: query, PageSize: 200})
	if err != nil {
		r.log.WarnContext(ctx, "earlier operations cannot be looked up; only the last one is compared", "error", err)
	}
	return same(memo, list.GetExecutions()...)
}

// same is the id of the operation with the same key, or empty. AlreadyExists when that has another payload.
func same(memo started, infos ...*workflow.WorkflowExecutionInfo) (string, error) {
	for _, info := range infos {
		m := startOf(info)
		if m.Start.Key != memo.Start.Key {
			continue
		}
		id := OperationID(memo.Start.Request.Fleet, info.GetExecution().GetRunId())
		if m.Digest != memo.Digest {
			return "", problem.New(problem.AlreadyExists, "idempotency_key", "%q was used with another request by %s, for operation %s; take another key",
				m.Start.Key, m.Start.Principal, id).With("operation", id)
		}
		return id, nil
	}
	return "", nil
}

// startOf is what an operation was started with.
func startOf(info *workflow.WorkflowExecutionInfo) started {
	var m started
	fromMemo(info.GetMemo(), startMemo, &m)
	return m
}

// collided is a start that met a running operation: the same one, or another.
func (r *Runbooks) collided(ctx context.Context, workflowID, runID string, memo started) (workflows.Operation, error) {
	info, err := r.describe(ctx, workflowID, runID)
	if err != nil {
		return workflows.Operation{}, err
	}
	if id, err := same(memo, info); err != nil {
		return workflows.Operation{}, err
	} else if id != "" {
		return r.Get(ctx, id)
	}
	fleet, under := memo.Start.Request.Fleet, startOf(info).Start
	id := OperationID(fleet, runID)
	return workflows.Operation{}, problem.New(problem.AlreadyExists, "", "fleet %s has an operation under way: %s, by %s (%s); follow it with edgehold operation watch %s, or take its place: ask again with --supersede, or first edgehold operation abort %s",
		fleet, id, under.Principal, under.Reason, id, id).With("operation", id)
}

// Get implements workflows.Operations.
func (r *Runbooks) Get(ctx context.Context, id string) (workflows.Operation, error) {
	workflowID, runID, err := parseID(id)
	if err != nil {
		return workflows.Operation{}, err
	}
	info, err := r.describe(ctx, workflowID, runID)
	if err != nil {
		return workflows.Operation{}, err
	}
	return r.load(ctx, info), nil
}

// load reads the whole of an operation: from its result when it has ended, else from the worker, else from its memo.
func (r *Runbooks) load(ctx context.Context, info *workflow.WorkflowExecutionInfo) workflows.Operation {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var op workflows.Operation
	e := info.GetExecution()
	switch info.GetStatus() {
	case enums.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		if err := r.client.GetWorkflow(ctx, e.GetWorkflowId(), e.GetRunId()).Get(ctx, &op); err == nil {
			return op
		}
	case enums.WORKFLOW_EXECUTION_STATUS_RUNNING:
		op, err := r.query(ctx, e.GetWorkflowId(), e.GetRunId())
		if err == nil {
			return op
		}
		r.log.WarnContext(ctx, "no worker tells how the operation stands", "workflow", e.GetWorkflowId(), "error", err)
	}
	return brief(info)
}

func (r *Runbooks) query(ctx context.Context, workflowID, runID string) (workflows.Operation, error) {
	var op workflows.Operation
	v, err := r.client.QueryWorkflow(ctx, workflowID, runID, operationQuery)
	if err != nil {
		return op, err
	}
	return op, v.Get(&op)
}

// brief is what Temporal itself knows of an operation, without waves.
func brief(info *workflow.WorkflowExecutionInfo) workflows.Operation {
	var op workflows.Operation
	if fromMemo(info.GetMemo(), summaryMemo, &op) {
		return op
	}
	e := info.GetExecution()
	op = workflows.NewRun(OperationID(strings.TrimPrefix(e.GetWorkflowId(), idPrefix), e.GetRunId()), startOf(info).Start, info.GetStartTime().AsTime()).Operation()
	op.Message = "under way; no worker tells how it stands: check that runbooks runs, with the build that it began with"
	if p := info.GetSearchAttributes().GetIndexedFields()[StateAttribute.GetName()]; p != nil {
		var s string
		if converter.GetDefaultDataConverter().FromPayload(p, &s) == nil && s != "" {
			op.State = workflows.State(s)
		}
	}
	if t := info.GetCloseTime(); t != nil {
		op.State, op.EndedAt = workflows.Aborted, t.AsTime()
		op.Message = fmt.Sprintf("ended in Temporal as %s; edgehold fleet list shows what each PoP serves", info.GetStatus())
	}
	return op
}

func fromMemo(m *common.Memo, key string, to any) bool {
	p := m.GetFields()[key]
	return p != nil && converter.GetDefaultDataConverter().FromPayload(p, to) == nil
}

// List implements workflows.Operations.
func (r *Runbooks) List(ctx context.Context, fleet string, size int, token string) ([]workflows.Operation, string, error) {
	page, ok := parseToken(token)
	if !ok {
		return nil, "", problem.Invalidf("page_token", "it is none that ListOperations has given out; begin without one")
	}
	query := fmt.Sprintf("WorkflowType = '%s'", globalCutover)
	if fleet != "" {
		query += fmt.Sprintf(" AND WorkflowId = '%s%s'", idPrefix, strings.ReplaceAll(fleet, "'", "''"))
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := r.client.ListWorkflow(call, &workflowservice.ListWorkflowExecutionsRequest{Namespace: r.cfg.Namespace, Query: query, PageSize: int32(size), NextPageToken: page})
	if err != nil {
		return nil, "", outage(err)
	}
	ops := make([]workflows.Operation, len(list.GetExecutions()))
	var g errgroup.Group
	g.SetLimit(32) // questions to a worker at one time; one that is not there does not answer any
	for i, info := range list.GetExecutions() {
		if info.GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			ops[i] = brief(info)
			continue
		}
		g.Go(func() error {
			ops[i] = r.load(ctx, info)
			ops[i].Waves = nil
			return nil
		})
	}
	_ = g.Wait() // none fails
	slices.SortStableFunc(ops, func(a, b workflows.Operation) int { return b.StartedAt.Compare(a.StartedAt) })
	return ops, makeToken(list.GetNextPageToken()), nil
}

// makeToken is a page token of ours around Temporal's, with a checksum: Temporal takes a token that it has not given out
// for a failure of its own.
func makeToken(page []byte) string {
	if len(page) == 0 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(slices.Clone(page), crc32.ChecksumIEEE(page)))
}

// parseToken is the inverse of makeToken.
func parseToken(token string) (page []byte, ok bool) {
	if token == "" {
		return nil, true
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) <= 4 {
		return nil, false
	}
	page, sum := b[:len(b)-4], b[len(b)-4:]
	return page, binary.BigEndian.Uint32(sum) == crc32.ChecksumIEEE(page)
}

// Decide implements workflows.Operations.
func (r *Runbooks) Decide(ctx context.Context, id string, d workflows.Decision) (workflows.Operation, error) {
	workflowID, runID, err := parseID(id)
	if err != nil {
		return workflows.Operation{}, err
	}
	// The same decision is the same update, which Temporal itself hands out again.
	b, err := json.Marshal(d)
	if err != nil {
		return workflows.Operation{}, err
	}
	sum := sha256.Sum256(b)
	call, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	h, err := r.client.UpdateWorkflow(call, client.UpdateWorkflowOptions{WorkflowID: workflowID, RunID: runID, UpdateName: string(d.Verb),
		UpdateID: hex.EncodeToString(sum[:]), Args: []any{d}, WaitForStage: client.WorkflowUpdateStageCompleted})
	if err == nil {
		err = h.Get(call, nil)
	}
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) { // it has ended, or never was
		op, err := r.Get(ctx, id)
		if err != nil {
			return workflows.Operation{}, err
		}
		if slices.ContainsFunc(op.Decisions, func(o workflows.Decision) bool { o.At = d.At; return o == d }) {
			return op, nil
		}
		return workflows.Operation{}, workflows.Over(op, d.Verb)
	}
	if err != nil && call.Err() != nil && ctx.Err() == nil {
		return workflows.Operation{}, problem.Unavailablef("no worker has taken the decision; check that runbooks runs, and decide again with the same key")
	}
	if err != nil {
		return workflows.Operation{}, outage(err)
	}
	return r.Get(ctx, id)
}
