package llmmock

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
)

// Bounds of a scenario.
const (
	MaxName     = 128
	MaxRules    = 1000 // answers, faults, phases or points, each
	MaxPatterns = 1000 // in one list
	MaxPattern  = 1024 // bytes
)

// Validate says Invalid with the field that cannot be, such as faults[2].when.probability, its value and what is allowed.
func (s *Scenario) Validate() error {
	if s.Name == "" || len(s.Name) > MaxName || strings.TrimSpace(s.Name) != s.Name || strings.ContainsFunc(s.Name, func(r rune) bool { return r < ' ' }) {
		return problem.Invalidf("name", "%q is not allowed; use 1 to %d bytes that can stand in a header", cut(s.Name), MaxName)
	}
	for field, n := range map[string]int{"answers": len(s.Answers), "faults": len(s.Faults), "timeline": len(s.Timeline), "latency.shape": len(s.Latency.Shape)} {
		if n > MaxRules {
			return problem.Invalidf(field, "%d are too many; at most %d are allowed", n, MaxRules)
		}
	}
	if err := s.Match.validate(); err != nil {
		return within("match", err)
	}
	for i := range s.Answers {
		if err := s.Answers[i].Validate(); err != nil {
			return within(fmt.Sprintf("answers[%d]", i), err)
		}
	}
	if err := s.Latency.Validate(); err != nil {
		return within("latency", err)
	}
	names := map[string]bool{}
	for i := range s.Faults {
		if err := s.Faults[i].Validate(); err != nil {
			return within(fmt.Sprintf("faults[%d]", i), err)
		}
		if name := s.Faults[i].Name; name != "" && names[name] {
			return problem.Invalidf(fmt.Sprintf("faults[%d].name", i), "%q is the name of a fault before it too", name)
		}
		names[s.Faults[i].Name] = true
	}
	clear(names)
	for i := range s.Timeline {
		if err := s.Timeline[i].Validate(); err != nil {
			return within(fmt.Sprintf("timeline[%d]", i), err)
		}
		if name := s.Timeline[i].Name; names[name] {
			return problem.Invalidf(fmt.Sprintf("timeline[%d].name", i), "%q is the name of a phase before it too", name)
		}
		names[s.Timeline[i].Name] = true
	}
	return within("limits", s.Limits.Validate())
}

// within puts a path before the field of an error.
func within(path string, err error) error {
	if err == nil {
		return nil
	}
	var e *problem.Error
	if !errors.As(err, &e) {
		return problem.Invalidf(path, "%w", err)
	}
	c := *e
	switch {
	case e.Field == "":
		c.Field = path
	case e.Field[0] == '[':
		c.Field = path + e.Field
	default:
		c.Field = path + "." + e.Field
	}
	return &c
}

// cut shortens what is quoted in an error.
func cut(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

func (m *Match) validate() error {
	for _, l := range []struct {
		field string
		list  []string
	}{{"models", m.Models}, {"keys", m.Keys}, {"clients", m.Clients}, {"paths", m.Paths}, {"contains", m.Contains}} {
		if err := validPatterns(l.field, l.list); err != nil {
			return err
		}
	}
	for i, v := range m.Vendors {
		if err := oneOf(fmt.Sprintf("vendors[%d]", i), v, OpenAI, Azure, Anthropic, Gemini, Bedrock); err != nil {
			return err
		}
	}
	for i, o := range m.Operations {
		if err := oneOf(fmt.Sprintf("operations[%d]", i), o, Generate, Embed, Count, Other); err != nil {
			return err
		}
	}
	return nil
}

func validPatterns(field string, list []string) error {
	if len(list) > MaxPatterns {
		return problem.Invalidf(field, "%d are too many; at most %d are allowed", len(list), MaxPatterns)
	}
	for i, p := range list {
		if p == "" || len(p) > MaxPattern {
			return problem.Invalidf(fmt.Sprintf("%s[%d]", field, i), "%q has %d bytes; 1 to %d are allowed, and * for any characters", cut(p), len(p), MaxPattern)
		}
	}
	return nil
}

func oneOf[T ~string](field string, v T, allowed ...T) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	names := make([]string, 0, len(allowed))
	for _, a := range allowed {
		if a != "" {
			names = append(names, string(a))
		}
	}
	return problem.Invalidf(field, "%q is not known; use %s", cut(string(v)), strings.Join(names, ", "))
}

// Validate says Invalid with the field that cannot be.
func (r *AnswerRule) Validate() error {
	if err := r.Match.validate(); err != nil {
		return within("match", err)
	}
	set := 0
	for _, b := range []bool{r.Say != "", r.Echo, r.Lorem != 0, len(r.Calls) > 0, r.Play != ""} {
		if b {
			set++
		}
	}
	switch {
	case set > 1:
		return problem.Invalidf("", "%d answers are given at once; use one of say, echo, lorem, calls, play", set)
	case r.Turn < 0:
		return problem.Invalidf("turn", "%d is not allowed; the first is 1, and 0 is any", r.Turn)
	case r.Lorem < 0 || r.Lorem > 1_000_000:
		return problem.Invalidf("lorem", "%d tokens are not allowed; use 0 to 1000000", r.Lorem)
	case r.Cached < 0:
		return problem.Invalidf("cached", "%d tokens are not allowed; use 0 or more", r.Cached)
	case len(r.Calls) > MaxRules:
		return problem.Invalidf("calls", "%d are too many; at most %d are allowed", len(r.Calls), MaxRules)
	}
	for i, c := range r.Calls {
		if c.Name == "" {
			return problem.Invalidf(fmt.Sprintf("calls[%d].name", i), "is empty; name the tool")
		}
	}
	return oneOf("finish", r.Finish, "", Stopped, AtLength, AtStop, ToolCalls, Refused, Filtered)
}

// Validate says Invalid with the field that cannot be.
func (l *Latency) Validate() error {
	for _, d := range []struct {
		field string
		d     Distribution
	}{{"firstToken", l.FirstToken}, {"interToken", l.InterToken}, {"total", l.Total}} {
		if v, ok := d.d.(interface{ Validate() error }); ok {
			if err := v.Validate(); err != nil {
				return within(d.field, err)
			}
		}
	}
	if err := inRange("prefill", l.Prefill, 0); err != nil {
		return err
	}
	if err := factor("load.factor", l.Load.Factor); err != nil {
		return err
	}
	if l.Load.Free < 0 || l.Load.Free == 0 && l.Load.Factor > 0 {
		return problem.Invalidf("load.free", "%d is not allowed; use 1 or more, the number of requests that do not slow each other", l.Load.Free)
	}
	for i, p := range l.Shape {
		field := fmt.Sprintf("shape[%d]", i)
		if err := factor(field+".factor", p.Factor); err != nil {
			return err
		}
		if p.At < 0 || i > 0 && p.At < l.Shape[i-1].At {
			return problem.Invalidf(field+".at", "%s is not allowed; points are in the order of time, from 0 on", p.At)
		}
	}
	return nil
}

// mostFactor is beyond any use, and keeps products finite.
const mostFactor = 1e6

func factor(field string, f float64) error {
	if !(f >= 0 && f <= mostFactor) {
		return problem.Invalidf(field, "%g is not allowed; use 0 to %g", f, mostFactor)
	}
	return nil
}

func share(field string, f float64) error {
	if !(f >= 0 && f <= 1) || math.IsNaN(f) {
		return problem.Invalidf(field, "%g is not allowed; use 0 to 1, 0.1 for one in ten", f)
	}
	return nil
}

// faultKinds are all that there are.
var faultKinds = []FaultKind{FailStatus, FailInBody, SlowAccept, ResetBefore, ResetInHeaders, ResetAfterHeader, WrongType, WrongLength, SlowBody, Stall,
	Cut, CutMidEvent, ResetMidStream, Malformed, Duplicate, Reorder, FailMidStream}

// Validate says Invalid with the field that cannot be.
func (r *FaultRule) Validate() error {
	if len(r.Name) > MaxName {
		return problem.Invalidf("name", "has %d bytes; at most %d are allowed", len(r.Name), MaxName)
	}
	if err := r.Match.validate(); err != nil {
		return within("match", err)
	}
	if err := r.When.validate(); err != nil {
		return within("when", err)
	}
	return within("do", r.Fault.Validate())
}

func (w *When) validate() error {
	if err := share("probability", w.Probability); err != nil {
		return err
	}
	switch {
	case w.First < 0:
		return problem.Invalidf("first", "%d is not allowed; use 1 or more", w.First)
	case w.Every < 0:
		return problem.Invalidf("every", "%d is not allowed; use 1 or more", w.Every)
	case w.First == 0 && w.Every == 0 && w.Probability == 0 && !w.Always:
		return problem.Invalidf("", "says nothing, and the fault would never be committed; use first, every, probability or always")
	}
	return oneOf("per", w.Per, "", PerRequest, PerClient, PerKey, PerScenario)
}

// Validate says Invalid with the field that cannot be.
func (f *Fault) Validate() error {
	if err := oneOf("kind", f.Kind, faultKinds...); err != nil {
		return err
	}
	if err := inRange("wait", f.Wait, 0); err != nil {
		return err
	}
	if f.AtToken < 0 {
		return problem.Invalidf("atToken", "%d is not allowed; use 0 or more", f.AtToken)
	}
	if f.Kind == SlowBody && f.Wait == 0 || f.Kind == Stall && f.Wait == 0 || f.Kind == SlowAccept && f.Wait == 0 {
		return problem.Invalidf("wait", "is not set; %s needs to know for how long", f.Kind)
	}
	return f.Failure.validate(f.Kind == FailStatus)
}

func (f *Failure) validate(needed bool) error {
	switch {
	case f.Status == 0 && needed && f.Reason == "":
		return problem.Invalidf("status", "is not set; use the status to fail with, such as 429 or 503")
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return problem.Invalidf("status", "%d is not allowed; use 400 to 599", f.Status)
	}
	if err := inRange("retryAfter", f.RetryAfter, 0); err != nil {
		return err
	}
	return oneOf("reason", f.Reason, append([]Reason{""}, reasons...)...)
}

// reasons are all that there are.
var reasons = []Reason{BadRequest, Unauthenticated, NoCredit, Forbidden, NotFound, Conflict, TooLarge, Unprocessable, RateLimited, QuotaExhausted, Broken,
	Unavailable, TimedOut, Overloaded, MethodUnknown}

// StatusOf is the usual status of a reason.
func StatusOf(r Reason, v Vendor) int {
	switch r {
	case BadRequest:
		return 400
	case Unauthenticated:
		return 401
	case NoCredit:
		return 402
	case Forbidden:
		return 403
	case NotFound:
		return 404
	case MethodUnknown:
		return 405
	case Conflict:
		return 409
	case TooLarge:
		return 413
	case Unprocessable:
		return 422
	case RateLimited, QuotaExhausted:
		return 429
	case Unavailable:
		return 503
	case TimedOut:
		return 504
	case Overloaded:
		if v == Anthropic {
			return 529
		}
		return 503
	}
	return 500
}

// maxTimeline: what is later never comes.
const maxTimeline = 366 * 24 * time.Hour

// Validate says Invalid with the field that cannot be.
func (p *Phase) Validate() error {
	if p.Name == "" || len(p.Name) > MaxName {
		return problem.Invalidf("name", "has %d bytes; 1 to %d are needed, to end it by", len(p.Name), MaxName)
	}
	if err := p.Match.validate(); err != nil {
		return within("match", err)
	}
	if err := validPatterns("regions", p.Regions); err != nil {
		return err
	}
	for _, d := range []struct {
		field string
		d     time.Duration
	}{{"at", p.At}, {"for", p.For}, {"every", p.Every}} {
		if d.d < 0 || d.d > maxTimeline {
			return problem.Invalidf(d.field, "%s is not allowed; use 0s to %s", d.d, maxTimeline)
		}
	}
	if p.Every > 0 && (p.For == 0 || p.For > p.Every) {
		return problem.Invalidf("for", "%s is not allowed in a phase that comes every %s; use more than 0 and at most that", p.For, p.Every)
	}
	if err := oneOf("kind", p.Kind, Outage, Brownout, Quota, Dark); err != nil {
		return err
	}
	if err := share("share", p.Share); err != nil {
		return err
	}
	if err := factor("slow", p.Slow); err != nil {
		return err
	}
	if p.Slow != 0 && p.Kind != Brownout {
		return problem.Invalidf("slow", "%g is not allowed in %s; only a brownout is slow", p.Slow, p.Kind)
	}
	return within("failure", p.Failure.validate(false))
}
