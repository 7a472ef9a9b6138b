package rpc

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/services/llmmock"
)

// watchEvery is between two snapshots. They have the phases that ended in the past before them.
const (
	watchEvery = time.Second
	past       = 5 * time.Minute
)

// Bucket of a histogram of how late pieces were written.
type Bucket struct {
	// Most is how late at most; 0 in the last one, which has them all.
	Most time.Duration
	// Count of pieces that were not later, those of the buckets before it too.
	Count uint64
}

// Watch implements MockService.
func (h *Handler) Watch(ctx context.Context, _ *llmmockv1.WatchRequest, stream *connect.ServerStream[llmmockv1.WatchResponse]) error {
	return h.Follow(ctx, stream.Send)
}

// Follow is Watch for those in the same process: it sends a snapshot at once and then every second, until ctx ends or send fails.
// ResourceExhausted when MaxWatchers are followed already.
func (h *Handler) Follow(ctx context.Context, send func(*llmmockv1.WatchResponse) error) error {
	select {
	case h.watchers <- struct{}{}:
		defer func() { <-h.watchers }()
	default:
		return problem.New(problem.ResourceExhausted, "", "%d watch this mock, the most at one time; end another watch first", MaxWatchers)
	}
	return h.watch(ctx, send)
}

func (h *Handler) watch(ctx context.Context, send func(*llmmockv1.WatchResponse) error) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var before *snapshot
	for {
		now := h.snapshot()
		if err := send(h.response(now, before)); err != nil {
			return err
		}
		before = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// snapshot is what rates are counted from.
type snapshot struct {
	at     time.Time
	series []llmmock.Series
	all    llmmock.Tally
	open   int
	late   []Bucket
}

func (h *Handler) snapshot() *snapshot {
	s := &snapshot{at: time.Now(), series: h.Traffic.Series(), late: h.Late(), open: h.Traffic.Open()}
	for i := range s.series {
		s.all.Add(s.series[i].Tally)
	}
	return s
}

func (h *Handler) response(now, before *snapshot) *llmmockv1.WatchResponse {
	out := &llmmockv1.WatchResponse{At: timestamppb.New(now.at), StartedAt: timestamppb.New(h.Started), Traffic: toTraffic(&now.all, now.open),
		Scenarios: toScenarios(h.Library.Scenarios(), now.series), Clients: int64(h.Judge.Clients())}
	if before != nil {
		seconds := now.at.Sub(before.at).Seconds()
		rate := func(now, before int) *float64 {
			r := float64(now-before) / seconds
			return &r
		}
		out.RequestsPerSecond = rate(now.all.Requests, before.all.Requests)
		out.TokensPerSecond = rate(now.all.InputTokens+now.all.OutputTokens, before.all.InputTokens+before.all.OutputTokens)
		out.Lateness = lateness(now.late, before.late)
	}
	for _, p := range h.Mock.Phases() {
		if p.Active || !p.Next.IsZero() || now.at.Sub(p.Ends) < past {
			out.Phases = append(out.Phases, toPhaseStatus(&p))
		}
	}
	out.Drills = toDrills(slices.DeleteFunc(h.Drills.List(), func(d llmmock.DrillStatus) bool { return d.State == llmmock.DrillClosed }))
	for _, f := range h.Judge.Latest() {
		out.Findings = append(out.Findings, &llmmockv1.LatestFinding{Client: text(f.Client), Run: text(f.Run), Finding: string(f.Finding), Evidence: toEvidence(&f.Evidence)})
	}
	return out
}

// lateness between two looks; nil when no piece was written.
func lateness(now, before []Bucket) *llmmockv1.Lateness {
	between := slices.Clone(now)
	for i := range between {
		if i < len(before) {
			between[i].Count -= before[i].Count
		}
	}
	if len(between) == 0 || between[len(between)-1].Count == 0 {
		return nil
	}
	return &llmmockv1.Lateness{Pieces: int64(between[len(between)-1].Count), P50: durationpb.New(quantile(between, 0.5)),
		P90: durationpb.New(quantile(between, 0.9)), P99: durationpb.New(quantile(between, 0.99))}
}

// quantile is taken to lie in its bucket as if all of that were spread evenly. What is later than the last bound counts as that.
func quantile(buckets []Bucket, q float64) time.Duration {
	wanted := q * float64(buckets[len(buckets)-1].Count)
	low, below := time.Duration(0), 0.0
	for _, b := range buckets {
		if b.Most == 0 {
			break
		}
		if n := float64(b.Count); n >= wanted {
			return low + time.Duration(float64(b.Most-low)*(wanted-below)/(n-below))
		}
		low, below = b.Most, float64(b.Count)
	}
	return low
}
