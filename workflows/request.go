package workflows

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
)

// Defaults and limits of a Request.
const (
	DefaultJitter        = 50 * time.Millisecond
	MaxJitter            = time.Minute
	DefaultDeadline      = time.Minute
	MaxDeadline          = time.Hour
	DefaultMaxErrorRatio = 0.01
	// maxReason and maxKey are in bytes.
	maxReason, maxKey = 512, 128
	// MaxPops bounds the histories: even an operation over that many, each step of each PoP in a task of its own, stays below
	// the 51,200 events that an engine allows.
	MaxPops = 1000
)

// name is a DNS label or subdomain, which PoPs and fleets are named by.
var name = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

// WithDefaults fills what was left out, but for MaxFailedPops, which depends on the scope.
func (r Request) WithDefaults() Request {
	if r.Jitter == nil {
		d := DefaultJitter
		r.Jitter = &d
	}
	if r.MaxErrorRatio == nil {
		f := DefaultMaxErrorRatio
		r.MaxErrorRatio = &f
	}
	if r.Deadline == 0 {
		r.Deadline = DefaultDeadline
	}
	return r
}

// Validate returns Invalid with the field of the request that is wrong.
func (r Request) Validate() error {
	const at = "global_cutover."
	switch r.Kind {
	case Rollback, Cutover:
	default:
		return problem.Invalidf(at+"kind", "%q is neither %q nor %q", string(r.Kind), Rollback, Cutover)
	}
	if !name.MatchString(r.Fleet) {
		return problem.Invalidf(at+"fleet", "%q is not the name of a fleet: lower-case letters, digits, '-' and '.', at most 63", r.Fleet)
	}
	if r.All == (len(r.Pops) > 0) {
		return problem.Invalidf(at+"scope", "name the PoPs or set all, and not both; an empty scope selects nothing")
	}
	if len(r.Pops) > MaxPops {
		return problem.Invalidf(at+"scope.pops", "%d PoPs are more than the %d of one operation; split them", len(r.Pops), MaxPops)
	}
	seen := make(map[string]bool, len(r.Pops))
	for i, p := range r.Pops {
		if !name.MatchString(p) {
			return problem.Invalidf(index(at+"scope.pops", i), "%q is not the name of a PoP: lower-case letters, digits, '-' and '.', at most 63", p)
		}
		if seen[p] {
			return problem.Invalidf(index(at+"scope.pops", i), "%q is named twice", p)
		}
		seen[p] = true
	}
	switch r.To {
	case Blue, Green:
	case None:
		if r.Kind == Cutover {
			return problem.Invalidf(at+"to", "a cutover names the colour to serve, %q or %q", Blue, Green)
		}
	default:
		return problem.Invalidf(at+"to", "%q is neither %q nor %q", string(r.To), Blue, Green)
	}
	if len(r.Version) > 128 {
		return problem.Invalidf(at+"version", "it has %d bytes; at most 128 are allowed", len(r.Version))
	}
	if r.FirstPop != "" && !r.All && !slices.Contains(r.Pops, r.FirstPop) {
		return problem.Invalidf(at+"first_pop", "%q is not in the scope; add it there or leave it out here", r.FirstPop)
	}
	if r.WaveSize < 0 || r.WaveSize > MaxPops {
		return problem.Invalidf(at+"wave_size", "%d is not from 0 (all at once) to %d", r.WaveSize, MaxPops)
	}
	if r.ApproveWaves && r.WaveSize == 0 && r.FirstPop == "" {
		return problem.Invalidf(at+"approve_waves", "there is one wave only; set wave_size or first_pop, or leave this out")
	}
	if r.Jitter != nil && (*r.Jitter < 0 || *r.Jitter > MaxJitter) {
		return problem.Invalidf(at+"jitter", "%s is not from 0s to %s", *r.Jitter, MaxJitter)
	}
	if r.MaxFailedPops != nil && *r.MaxFailedPops < 0 {
		return problem.Invalidf(at+"max_failed_pops", "%d is negative; 0 stops at the first failure", *r.MaxFailedPops)
	}
	// Written so that NaN is refused too.
	if r.MaxErrorRatio != nil && !(*r.MaxErrorRatio >= 0 && *r.MaxErrorRatio <= 1) {
		return problem.Invalidf(at+"max_error_ratio", "%g is not from 0 to 1", *r.MaxErrorRatio)
	}
	if r.Deadline < 0 || r.Deadline > MaxDeadline {
		return problem.Invalidf(at+"deadline", "%s is not above 0s and up to %s", r.Deadline, MaxDeadline)
	}
	return nil
}

// Fits returns NotFound, with the PoPs that there are, when the one that is to go first is not in the plan.
func (r Request) Fits(p Plan) error {
	if r.FirstPop == "" || slices.ContainsFunc(p.Pops, func(pop PopPlan) bool { return pop.Pop == r.FirstPop }) {
		return nil
	}
	const most = 30
	var names []string
	for _, pop := range p.Pops[:min(len(p.Pops), most)] {
		names = append(names, pop.Pop)
	}
	there := strings.Join(names, ", ")
	if n := len(p.Pops) - most; n > 0 {
		there += fmt.Sprintf(" and %d more", n)
	}
	return problem.NotFoundf("global_cutover.first_pop", "%q is not in the scope; there is %s", r.FirstPop, there)
}

// Superseding is the request that takes the place of one under way. A rollback that names no colour goes back to where that
// cutover came from: what the PoPs serve while it is half done says little. FailedPrecondition when that one is a rollback
// itself, since the colour before it may be the one that both flee from.
func (r Request) Superseding(under Request) (Request, error) {
	if r.Kind != Rollback || r.To != None {
		return r, nil
	}
	switch {
	case under.Kind == Cutover && under.To == Blue:
		r.To = Green
	case under.Kind == Cutover && under.To == Green:
		r.To = Blue
	default:
		return r, problem.Preconditionf("global_cutover.to", "the operation to be superseded is a rollback itself; say which colour to serve, %q or %q", Blue, Green)
	}
	return r, nil
}

// Superseded is the decision that aborts an operation for the sake of this start.
func (s Start) Superseded() Decision {
	reason := fmt.Sprintf("superseded by a %s: %s", s.Request.Kind, s.Reason)
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "") // it may be cut within a character
	return Decision{Verb: Abort, Principal: s.Principal, Reason: reason, Key: s.Key}
}

// Validate returns Invalid with the field that is wrong.
func (s Start) Validate() error {
	if s.Principal == "" {
		return problem.Invalidf("principal", "nobody asks for it; authenticate")
	}
	if err := said(s.Reason, s.Key); err != nil {
		return err
	}
	return s.Request.Validate()
}

// said checks what every act carries.
func said(reason, key string) error {
	if reason == "" || len(reason) > maxReason {
		return problem.Invalidf("reason", "say why, in 1 to %d bytes; it has %d", maxReason, len(reason))
	}
	if key == "" || len(key) > maxKey {
		return problem.Invalidf("idempotency_key", "it has %d bytes; 1 to %d are allowed", len(key), maxKey)
	}
	return nil
}
