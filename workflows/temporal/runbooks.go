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
	// idPrefix of the workflow of a fleet's operation. There is one per fleet, so that Temporal refuses a second.
	idPrefix = "fleet/"
)

// Runbooks is workflows.Operations on Temporal.
type Runbooks struct {
	cfg        Config
	client     client.Client
	fleets     workflows.Fleets
	log        *slog.Logger
	warn       func(name, text string)
	attributes atomic.Bool // the search attributes can be used
	starting   chan struct{}
	watches    watches
}

var _ workflows.Operations = (*Runbooks)(nil)

// Open returns Runbooks that connect with the first call. warn raises a named warning for the operator, and takes it
// back when the text is empty. Close them.
func Open(cfg Config, fleets workflows.Fleets, log *slog.Logger, warn func(name, text string)) (*Runbooks, error) {
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
	r := &Runbooks{cfg: cfg, client: c, fleets: fleets, log: log, warn: warn, starting: make(chan struct{}, 1)}
	r.watches.follow = r.follow
	return r, nil
}

// Close ends the connection.
func (r *Runbooks) Close() { r.client.Close() }

// Run connects, creates what is missing, calls ready, and works until ctx ends. Until Temporal can be reached it raises
// a warning and tries on. An error is what trying again cannot mend.
func (r *Runbooks) Run(ctx context.Context, ready func()) error {
	if err := r.connect(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	background, cancel := context.WithCancel(ctx)
	defer cancel()
	fatal := make(chan error, 1)
	if !r.cfg.ServeOnly {
		w := newWorker(r.client, r.cfg.TaskQueue, &Activities{Fleets: r.fleets, Tell: r.tell, Log: r.log}, func(err error) {
			select {
			case fatal <- err:
			default:
			}
		})
		if err := w.Start(); err != nil {
			return ignoreEnd(ctx, fmt.Errorf("the worker did not start: %w", err))
		}
		defer w.Stop()
		if !r.cfg.KeepCurrent {
			if err := makeCurrent(background, r.client); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				r.warn("worker-version", fmt.Sprintf("new operations may not run on this worker; make its version the current one: %v", err))
			}
		}
	}
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
	ready()
	select {
	case err := <-fatal:
		return fmt.Errorf("the worker cannot go on: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// connect returns when Temporal answers.
func (r *Runbooks) connect(ctx context.Context) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := r.client.CheckHealth(attempt, &client.CheckHealthRequest{})
		cancel()
		if err == nil {
			r.warn("temporal", "")
			return nil
		}
		r.log.Debug("Temporal does not answer", "error", err)
		r.warn("temporal", fmt.Sprintf("%s; start it, or check --temporal %s", unreachable, r.cfg.Address))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
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
		Request workflows.Request
		Reason  string
	}{s.Request.WithDefaults(), s.Reason})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// started is the memo of an operation: what it was started with.
type started struct {
	Start  workflows.Start `json:"start"`
	Digest string          `json:"digest"`
}

// Start implements workflows.Operations.
func (r *Runbooks) Start(ctx context.Context, s workflows.Start) (workflows.Operation, error) {
	if err := s.Validate(); err != nil {
		return workflows.Operation{}, err
	}
	sum, err := digest(s)
	if err != nil {
		return workflows.Operation{}, err
	}
	memo := started{Start: s, Digest: sum}
	// One at a time: between the look for an earlier start and the start itself there must be no other.
	select {
	case r.starting <- struct{}{}:
		defer func() { <-r.starting }()
	case <-ctx.Done():
		return workflows.Operation{}, ctx.Err()
	}
	workflowID := idPrefix + s.Request.Fleet
	if id, found, err := r.earlier(ctx, workflowID, memo); err != nil {
		return workflows.Operation{}, err
	} else if found {
		return r.Get(ctx, id)
	}
	plan, err := r.plan(ctx, s.Request)
	if err != nil {
		return workflows.Operation{}, err
	}
	run, err := r.execute(ctx, workflowID, memo, plan)
	var running *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &running) {
		return r.collided(ctx, workflowID, running.RunId, memo)
	}
	if err != nil {
		return workflows.Operation{}, outage(err)
	}
	r.log.InfoContext(ctx, "operation started", "operation", OperationID(s.Request.Fleet, run.GetRunID()), "principal", s.Principal, "reason", s.Reason)
	// What it looks like at its very beginning; to ask the workflow would cost a round trip.
	return workflows.NewRun(OperationID(s.Request.Fleet, run.GetRunID()), s, time.Now()).Operation(), nil
}

// plan checks a request with the fleet service. A service that does not answer is no reason to refuse: the operation
// waits for it.
func (r *Runbooks) plan(ctx context.Context, req workflows.Request) (*workflows.Plan, error) {
	limit, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	plan, err := r.fleets.Plan(limit, req)
	if err == nil {
		return &plan, nil
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

// earlier finds the operation that was started with the same key. The fleet's last run is asked directly, for the index
// is behind by a moment; earlier ones are looked up in it.
func (r *Runbooks) earlier(ctx context.Context, workflowID string, memo started) (id string, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	last, err := r.client.DescribeWorkflowExecution(ctx, workflowID, "")
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return "", false, nil
	}
	if err != nil {
		return "", false, outage(err)
	}
	infos := []*workflow.WorkflowExecutionInfo{last.GetWorkflowExecutionInfo()}
	query := fmt.Sprintf("WorkflowType = '%s' AND WorkflowId = '%s'", globalCutover, workflowID)
	if r.attributes.Load() {
		query += fmt.Sprintf(" AND %s = '%s'", KeyAttribute.GetName(), strings.ReplaceAll(memo.Start.Key, "'", "''"))
	}
	// Without the attribute the newest page has to do.
	list, err := r.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: r.cfg.Namespace, Query: query, PageSize: 200})
	if err != nil {
		r.log.WarnContext(ctx, "earlier operations cannot be looked up; only the last one is compared", "error", err)
	}
	for _, info := range append(infos, list.GetExecutions()...) {
		var m started
		if !fromMemo(info.GetMemo(), startMemo, &m) || m.Start.Key != memo.Start.Key {
			continue
		}
		id := OperationID(memo.Start.Request.Fleet, info.GetExecution().GetRunId())
		if m.Digest != memo.Digest {
			return "", false, usedKey(id, m)
		}
		return id, true, nil
	}
	return "", false, nil
}

func usedKey(id string, m started) error {
	return problem.New(problem.AlreadyExists, "idempotency_key", "%q was used with another request by %s, for operation %s; take another key",
		m.Start.Key, m.Start.Principal, id).With("operation", id)
}

// collided is a start that met a running operation: the same one, or another.
func (r *Runbooks) collided(ctx context.Context, workflowID, runID string, memo started) (workflows.Operation, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d, err := r.client.DescribeWorkflowExecution(call, workflowID, runID)
	if err != nil {
		return workflows.Operation{}, outage(err)
	}
	fleet := memo.Start.Request.Fleet
	id := OperationID(fleet, runID)
	var m started
	if fromMemo(d.GetWorkflowExecutionInfo().GetMemo(), startMemo, &m) && m.Start.Key == memo.Start.Key {
		if m.Digest != memo.Digest {
			return workflows.Operation{}, usedKey(id, m)
		}
		return r.Get(ctx, id)
	}
	return workflows.Operation{}, problem.New(problem.AlreadyExists, "", "fleet %s has an operation under way: %s, by %s (%s); watch, approve or abort that one first",
		fleet, id, m.Start.Principal, m.Start.Reason).With("operation", id)
}

// Get implements workflows.Operations.
func (r *Runbooks) Get(ctx context.Context, id string) (workflows.Operation, error) {
	workflowID, runID, err := parseID(id)
	if err != nil {
		return workflows.Operation{}, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d, err := r.client.DescribeWorkflowExecution(call, workflowID, runID)
	if err != nil {
		return workflows.Operation{}, outage(err)
	}
	return r.load(ctx, d.GetWorkflowExecutionInfo()), nil
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
	var m started
	fromMemo(info.GetMemo(), startMemo, &m)
	e := info.GetExecution()
	op = workflows.NewRun(OperationID(strings.TrimPrefix(e.GetWorkflowId(), idPrefix), e.GetRunId()), m.Start, info.GetStartTime().AsTime()).Operation()
	op.Message = "under way; no worker tells how it stands"
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
	for i, info := range list.GetExecutions() {
		if info.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING { // one per fleet at the most
			ops[i] = r.load(ctx, info)
			ops[i].Waves = nil
		} else {
			ops[i] = brief(info)
		}
	}
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
