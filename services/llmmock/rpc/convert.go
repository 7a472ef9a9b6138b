package rpc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/services/llmmock"
)

var origins = map[llmmock.Origin]llmmockv1.Origin{
	llmmock.BuiltIn:  llmmockv1.Origin_ORIGIN_BUILT_IN,
	llmmock.Ready:    llmmockv1.Origin_ORIGIN_READY,
	llmmock.FromFile: llmmockv1.Origin_ORIGIN_FILE,
	llmmock.FromAPI:  llmmockv1.Origin_ORIGIN_API,
}

var kinds = map[llmmock.PhaseKind]llmmockv1.PhaseKind{
	llmmock.Outage:   llmmockv1.PhaseKind_PHASE_KIND_OUTAGE,
	llmmock.Brownout: llmmockv1.PhaseKind_PHASE_KIND_BROWNOUT,
	llmmock.Quota:    llmmockv1.PhaseKind_PHASE_KIND_QUOTA,
	llmmock.Dark:     llmmockv1.PhaseKind_PHASE_KIND_DARK,
}

var states = map[llmmock.DrillState]llmmockv1.DrillState{
	llmmock.DrillPhase:    llmmockv1.DrillState_DRILL_STATE_PHASE,
	llmmock.DrillRecovery: llmmockv1.DrillState_DRILL_STATE_RECOVERY,
	llmmock.DrillClosed:   llmmockv1.DrillState_DRILL_STATE_CLOSED,
}

// text is what clients wrote into their headers, which need not be UTF-8 as protobuf wants it.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func fromTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// toDuration is unset for 0.
func toDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func toSpan(s llmmock.Span) *durationpb.Duration {
	if !s.Known {
		return nil
	}
	return durationpb.New(s.D)
}

func toScenarios(list []llmmock.InForce, series []llmmock.Series) []*llmmockv1.Scenario {
	tallies := make(map[string]llmmock.Tally, len(list))
	for i := range series {
		t := tallies[series[i].Scenario]
		t.Add(series[i].Tally)
		tallies[series[i].Scenario] = t
	}
	out := make([]*llmmockv1.Scenario, len(list))
	for i, s := range list {
		tally := tallies[s.Scenario.Name]
		out[i] = &llmmockv1.Scenario{Name: s.Scenario.Name, Description: s.Scenario.Description, Origin: origins[s.Origin], Source: text(s.Source),
			StartedAt: timestamppb.New(s.Start), Traffic: toTraffic(&tally, s.UnderWay), Forgotten: int64(s.Forgotten)}
		for j := range s.Scenario.Timeline {
			out[i].Phases = append(out[i].Phases, s.Scenario.Timeline[j].Name)
		}
	}
	return out
}

func toTraffic(t *llmmock.Tally, open int) *llmmockv1.Traffic {
	out := &llmmockv1.Traffic{Requests: int64(t.Requests), Open: int64(open), InputTokens: int64(t.InputTokens), OutputTokens: int64(t.OutputTokens),
		Complete: int64(t.Complete), Truncated: int64(t.Truncated), Left: int64(t.Left)}
	for _, status := range slices.Sorted(maps.Keys(t.Statuses)) {
		out.Statuses = append(out.Statuses, &llmmockv1.StatusCount{Status: int32(status), Requests: int64(t.Statuses[status])})
	}
	for _, fault := range slices.Sorted(maps.Keys(t.Faults)) {
		out.Faults = append(out.Faults, &llmmockv1.FaultCount{Fault: fault, Requests: int64(t.Faults[fault])})
	}
	return out
}

// fromPhase is a phase to begin. One without a kind stands for a declared one, whose terms are not the request's.
func fromPhase(p *llmmockv1.Phase) (llmmock.Phase, error) {
	out := llmmock.Phase{Name: p.GetName(), Regions: p.GetRegions(), For: p.GetFor().AsDuration(), Every: p.GetEvery().AsDuration(), Share: p.GetShare(), Slow: p.GetSlow()}
	for kind, k := range kinds {
		if k == p.GetKind() {
			out.Kind = kind
		}
	}
	if m := p.GetMatch(); m != nil {
		out.Match = llmmock.Match{Models: m.GetModels(), Keys: m.GetKeys(), Clients: m.GetClients(), Paths: m.GetPaths(), Contains: m.GetContains()}
		for _, v := range m.GetVendors() {
			out.Vendors = append(out.Vendors, llmmock.Vendor(v))
		}
	}
	if f := p.GetFailure(); f != nil {
		out.Failure = llmmock.Failure{Status: int(f.GetStatus()), Message: f.GetMessage(), Code: f.GetCode(), RetryAfter: f.GetRetryAfter().AsDuration()}
	}
	if out.Kind != "" {
		return out, nil
	}
	if p.GetMatch() != nil || p.GetFailure() != nil || len(out.Regions) > 0 || out.For != 0 || out.Every != 0 || out.Share != 0 || out.Slow != 0 {
		return out, problem.Invalidf("phase.kind", "is not set, and terms are; use outage, brownout, quota or dark, or leave all but the name out to begin the phase of that name in a timeline")
	}
	return out, nil
}

// inPhase names a field of a phase as it is in requests.
func inPhase(err error) error {
	var p *problem.Error
	if !errors.As(err, &p) || p.Field == "" || p.Field == "scenario" {
		return inRequest(err)
	}
	c := *p
	c.Field = "phase." + p.Field
	return &c
}

func toPhase(p *llmmock.Phase) *llmmockv1.Phase {
	out := &llmmockv1.Phase{Name: p.Name, Kind: kinds[p.Kind], Regions: p.Regions, For: toDuration(p.For), Every: toDuration(p.Every), Share: p.Share, Slow: p.Slow}
	if m := &p.Match; len(m.Vendors)+len(m.Models)+len(m.Keys)+len(m.Clients)+len(m.Paths)+len(m.Contains) > 0 {
		out.Match = &llmmockv1.Match{Models: m.Models, Keys: m.Keys, Clients: m.Clients, Paths: m.Paths, Contains: m.Contains}
		for _, v := range m.Vendors {
			out.Match.Vendors = append(out.Match.Vendors, string(v))
		}
	}
	if f := &p.Failure; *f != (llmmock.Failure{}) {
		out.Failure = &llmmockv1.Failure{Status: int32(f.Status), Message: f.Message, Code: f.Code, RetryAfter: toDuration(f.RetryAfter)}
	}
	return out
}

func toPhaseStatus(p *llmmock.PhaseStatus) *llmmockv1.PhaseStatus {
	return &llmmockv1.PhaseStatus{Scenario: p.Scenario, Phase: toPhase(&p.Phase), Started: p.Started, Active: p.Active,
		BeganAt: toTime(p.Began), EndsAt: toTime(p.Ends), NextAt: toTime(p.Next)}
}

// ToReport is a verdict as it is sent.
func ToReport(r *llmmock.Report) *llmmockv1.GetReportResponse {
	out := &llmmockv1.GetReportResponse{ForgottenClients: int64(r.Forgotten), ForgottenRequests: int64(r.ForgottenRequests)}
	for i := range r.Clients {
		c := &r.Clients[i]
		one := &llmmockv1.ClientReport{Client: text(c.Client), Run: text(c.Run), FirstAt: toTime(c.First), LastAt: toTime(c.Last), Requests: int64(c.Requests),
			Distinct: int64(c.Distinct), Retries: int64(c.Retries), Amplification: c.Amplification, Peak: int64(c.Peak), PeakAt: toTime(c.PeakAt),
			Served: int64(c.Served), Failed: int64(c.Failed), Truncated: int64(c.Truncated), Left: int64(c.Left), RetriedTruncated: int64(c.RetriedTruncated), Usage: toUsage(c.Usage)}
		if c.Worst > 0 {
			one.WorstAmplification = &c.Worst
		}
		for j := range c.Findings {
			f := &c.Findings[j]
			finding := &llmmockv1.Finding{Name: string(f.Name), Count: int64(f.Count), Sentence: f.Sentence}
			for k := range f.Evidence {
				finding.Evidence = append(finding.Evidence, toEvidence(&f.Evidence[k]))
			}
			one.Findings = append(one.Findings, finding)
		}
		out.Clients = append(out.Clients, one)
	}
	return out
}

// FromReport is the inverse of ToReport.
func FromReport(r *llmmockv1.GetReportResponse) llmmock.Report {
	out := llmmock.Report{Forgotten: uint64(r.GetForgottenClients()), ForgottenRequests: uint64(r.GetForgottenRequests())}
	for _, c := range r.GetClients() {
		u := c.GetUsage()
		one := llmmock.ClientReport{Client: c.GetClient(), Run: c.GetRun(), First: fromTime(c.GetFirstAt()), Last: fromTime(c.GetLastAt()), Requests: int(c.GetRequests()),
			Distinct: int(c.GetDistinct()), Retries: int(c.GetRetries()), Amplification: c.GetAmplification(), Worst: c.GetWorstAmplification(),
			Peak: int(c.GetPeak()), PeakAt: fromTime(c.GetPeakAt()), Served: int(c.GetServed()), Failed: int(c.GetFailed()), Truncated: int(c.GetTruncated()),
			Left: int(c.GetLeft()), RetriedTruncated: int(c.GetRetriedTruncated()),
			Usage: llmmock.Usage{Input: int(u.GetInput()), Cached: int(u.GetCached()), CacheWrite: int(u.GetCacheWrite()), Output: int(u.GetOutput()), Reasoning: int(u.GetReasoning())}}
		for _, f := range c.GetFindings() {
			finding := llmmock.Finding{Name: llmmock.FindingName(f.GetName()), Count: int(f.GetCount()), Sentence: f.GetSentence()}
			for _, e := range f.GetEvidence() {
				var hash llmmock.Hash
				_, _ = fmt.Sscanf(e.GetRequest(), "%x", &hash) // it stays 0 for what no mock of ours sends
				finding.Evidence = append(finding.Evidence, llmmock.Evidence{At: fromTime(e.GetAt()), Request: hash, Exchange: e.GetExchange(), Text: e.GetText()})
			}
			one.Findings = append(one.Findings, finding)
		}
		out.Clients = append(out.Clients, one)
	}
	return out
}

func toEvidence(e *llmmock.Evidence) *llmmockv1.Evidence {
	return &llmmockv1.Evidence{At: toTime(e.At), Request: fmt.Sprintf("%016x", uint64(e.Request)), Exchange: e.Exchange, Text: text(e.Text)}
}

func toUsage(u llmmock.Usage) *llmmockv1.Usage {
	return &llmmockv1.Usage{Input: int64(u.Input), Cached: int64(u.Cached), CacheWrite: int64(u.CacheWrite), Output: int64(u.Output), Reasoning: int64(u.Reasoning)}
}

func fromCost(c *llmmockv1.Cost) llmmock.Mocked {
	return llmmock.Mocked{Hour: llmmock.Dollars(c.GetHourUsd()), Runs: c.GetRunsPerYear()}
}

func toUses(uses []llmmock.Use) []*llmmockv1.Use {
	var out []*llmmockv1.Use
	for i := range uses {
		u := &uses[i]
		one := &llmmockv1.Use{Vendor: string(u.Vendor), Model: text(u.Model), Requests: int64(u.Requests), Usage: toUsage(u.Usage)}
		if u.Priced {
			cost := int64(u.Cost)
			one.CostNanousd = &cost
		}
		out = append(out, one)
	}
	return out
}

func toSavings(s *llmmock.Savings) *llmmockv1.Savings {
	out := &llmmockv1.Savings{LiveNanousd: int64(s.Live), MockedNanousd: int64(s.Mocked), SavedNanousd: int64(s.Saved), YearNanousd: int64(s.Year), Formula: s.Formula}
	for _, in := range s.Inputs {
		out.Inputs = append(out.Inputs, &llmmockv1.Input{Name: text(in.Name), Value: in.Value, Unit: in.Unit, Source: in.Source})
	}
	for _, model := range s.Unpriced {
		out.Unpriced = append(out.Unpriced, text(model))
	}
	return out
}

func toDrill(d *llmmock.DrillStatus) *llmmockv1.Drill {
	return &llmmockv1.Drill{Name: d.Name, State: states[d.State], Scope: &llmmockv1.Scope{Scenario: d.Scenario, All: d.Scenario == ""}, Phase: toPhase(&d.Phase),
		BeganAt: toTime(d.Began), EndedAt: toTime(d.Ended), Principal: d.Principal, Reason: d.Reason}
}

func toDrills(list []llmmock.DrillStatus) []*llmmockv1.Drill {
	var out []*llmmockv1.Drill
	for i := range list {
		out = append(out, toDrill(&list[i]))
	}
	return out
}

func toScorecard(s *llmmock.Scorecard) *llmmockv1.Scorecard {
	out := &llmmockv1.Scorecard{Requests: int64(s.Requests), Asks: int64(s.Asks), Retried: int64(s.Retried), Diverted: int64(s.Diverted), Failed: int64(s.Failed),
		Lost: int64(s.Lost), Pending: int64(s.Pending), Duplicated: int64(s.Duplicated), Slow: int64(s.Slow), Felt: toSpan(s.Felt), Detect: toSpan(s.Detect),
		Recover: toSpan(s.Recover), Return: toSpan(s.Return), Uses: toUses(s.Uses), Savings: toSavings(&s.Savings), Untraced: int64(s.Untraced)}
	if s.Asks > 0 {
		out.Amplification = &s.Amplification
	}
	return out
}
