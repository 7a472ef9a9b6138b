package workflows

import (
	"fmt"
	"time"
)

// Traffic is the active colour's over a window.
type Traffic struct {
	Requests int64
	// ErrorRatio is 0 to 1.
	ErrorRatio float64
	Window     time.Duration
	At         time.Time
}

// Verification is the edge's own measure after the switch, over all switched PoPs.
type Verification struct {
	// ErrorRatio is nil until something was measured.
	ErrorRatio    *float64 `json:"error_ratio,omitempty"`
	MaxErrorRatio float64  `json:"max_error_ratio"`
	Requests      int64    `json:"requests"`
	// Passed only when every switched PoP could tell and the ratio is at most MaxErrorRatio.
	Passed bool `json:"passed"`
	// Unknown PoPs could not tell: no traffic, no metrics, or none after the switch.
	Unknown []string  `json:"unknown,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// SwitchedPop is a PoP with the time of its switch.
type SwitchedPop struct {
	Pop string    `json:"pop"`
	At  time.Time `json:"at"`
}

// Verify weighs each PoP's error ratio by its requests. A measure whose window begins before the PoP's switch, or that
// holds no request, says nothing of the new colour: such a PoP is unknown, and unknown never passes.
func Verify(pops []SwitchedPop, traffic map[string]Traffic, maxErrorRatio float64, at time.Time) Verification {
	v := Verification{MaxErrorRatio: maxErrorRatio, At: at}
	var errs float64
	for _, p := range pops {
		t, ok := traffic[p.Pop]
		if !ok || t.Requests <= 0 || t.At.Add(-t.Window).Before(p.At) {
			v.Unknown = append(v.Unknown, p.Pop)
			continue
		}
		v.Requests += t.Requests
		errs += t.ErrorRatio * float64(t.Requests)
	}
	if v.Requests > 0 {
		ratio := errs / float64(v.Requests)
		v.ErrorRatio = &ratio
		v.Passed = ratio <= maxErrorRatio && len(v.Unknown) == 0
	}
	return v
}

// String is the sentence on it.
func (v Verification) String() string {
	unknown := ""
	if n := len(v.Unknown); n > 0 {
		unknown = fmt.Sprintf("; %s could not tell", some(v.Unknown))
	}
	if v.ErrorRatio == nil {
		return "the error ratio could not be measured" + unknown
	}
	verdict := "within"
	if *v.ErrorRatio > v.MaxErrorRatio {
		verdict = "above"
	}
	return fmt.Sprintf("error ratio %.4f over %d requests, %s the limit of %g%s", *v.ErrorRatio, v.Requests, verdict, v.MaxErrorRatio, unknown)
}

// Drained is what an observation says of a drain that rep has told of so far. It is over when the step is no longer
// Draining: Done, or Broken when the PoP has switched back.
func Drained(rep Report, o Observation) Report {
	last := o.Last
	rep.Step, rep.Message = Draining, ""
	rep.Drained, rep.Reset, rep.DrainedAt = last.Drained, last.Reset, last.DrainedAt
	switch last.From {
	case Blue:
		rep.Open = o.Blue
	case Green:
		rep.Open = o.Green
	}
	switch {
	case last.Undone:
		rep.Step, rep.Message = Broken, last.Message
	case last.Ended:
		rep.Step, rep.Open = Done, last.Left
		if last.Left != nil && *last.Left > 0 {
			rep.Message = last.Message
		}
	}
	return rep
}
