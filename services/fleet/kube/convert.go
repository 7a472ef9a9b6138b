package kube

import (
	"time"

	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The defaults of the CRD, for objects that were stored without them.
const (
	defaultGuard         = 30 * time.Second
	defaultScaleDownHold = 5 * time.Minute
	defaultTimeout       = time.Minute
	defaultDrain         = time.Minute
)

// Spec is the declared part of a Fleet object.
func Spec(f *v1alpha1.Fleet) fleet.Spec {
	s := f.Spec
	d := fleet.Spec{
		Service: s.Service, Blue: s.Blue.Deployment, Green: s.Green.Deployment, Active: fleet.Colour(s.Active), Replicas: s.Replicas, StandbyPercent: 100,
		Guard: duration(s.Cutover.Guard, defaultGuard), ScaleDownHold: duration(s.Cutover.ScaleDownHold, defaultScaleDownHold), Timeout: duration(s.Cutover.Timeout, defaultTimeout),
		Drain: fleet.DrainSpec{Method: fleet.DrainMethod(s.Drain.Method), Path: s.Drain.Path, Timeout: duration(s.Drain.Timeout, defaultDrain), ResetRemaining: s.Drain.ResetRemaining},
	}
	if d.Drain.Method == "" {
		d.Drain.Method = fleet.DrainWait
	}
	if s.Standby.Percent != nil {
		d.StandbyPercent = *s.Standby.Percent
	}
	if s.Drain.Port != nil {
		d.Drain.Port = *s.Drain.Port
	}
	if m := s.Metrics; m != nil {
		d.Metrics = &fleet.MetricsSpec{Port: m.Port, Path: m.Path, Requests: m.Requests, Errors: m.Errors}
		if m.Path == "" {
			d.Metrics.Path = "/metrics"
		}
	}
	if c := s.Change; c != nil {
		d.Change = &fleet.Change{ID: c.ID, To: d.Active, Principal: c.Principal, Reason: c.Reason, Version: c.Version, Force: c.Force, Rollback: c.Rollback, At: c.At.Time, Deadline: moment(c.Deadline)}
	}
	for _, z := range s.Freezes {
		d.Freezes = append(d.Freezes, fleet.Freeze{From: z.From.Time, Until: z.Until.Time, Reason: z.Reason, Principal: z.Principal, ID: z.ID})
	}
	return d
}

func duration(d *metav1.Duration, fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return max(d.Duration, 0)
}

// Status is the observed part of a Fleet object.
func Status(f *v1alpha1.Fleet) fleet.Status {
	s := f.Status
	d := fleet.Status{
		ObservedGeneration: s.ObservedGeneration, Active: fleet.Colour(s.Active), Version: s.Version, StandbyVersion: s.StandbyVersion,
		Phase: fleet.Phase(s.Phase), Message: s.Message, Replicas: s.Replicas, Size: s.Size, Selector: s.Selector,
		Blue:  colourState(f.Spec.Blue.Deployment, s.Blue),
		Green: colourState(f.Spec.Green.Deployment, s.Green),
	}
	// A record of no two colours was not written by a controller, and says nothing.
	if c := s.LastCutover; c != nil && isCutover(*c) {
		last := cutover(*c)
		d.LastCutover = &last
	}
	for _, c := range s.History {
		if isCutover(c.CutoverStatus) {
			d.History = append(d.History, cutover(c.CutoverStatus))
		}
	}
	for _, c := range s.Conditions {
		d.Conditions = append(d.Conditions, fleet.Condition{Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message, Since: c.LastTransitionTime.Time})
	}
	if t := s.Traffic; t != nil {
		d.Traffic = &fleet.Traffic{Requests: t.Requests, Errors: t.Errors, RequestsPerSecond: t.RequestsPerSecond.AsApproximateFloat64(),
			ErrorRatio: t.ErrorRatio.AsApproximateFloat64(), Window: t.Window.Duration, At: t.At.Time}
	}
	return d
}

func colourState(deployment string, s v1alpha1.ColourStatus) fleet.ColourState {
	return fleet.ColourState{Deployment: deployment, Version: s.Version, Desired: s.Desired, Ready: s.Ready, OpenConnections: s.OpenConnections}
}

func isCutover(c v1alpha1.CutoverStatus) bool {
	to := fleet.Colour(c.To)
	return to.Other() != fleet.None && fleet.Colour(c.From) == to.Other()
}

func cutover(c v1alpha1.CutoverStatus) fleet.Cutover {
	d := fleet.Cutover{
		ID: c.ID, Generation: c.Generation, From: fleet.Colour(c.From), To: fleet.Colour(c.To), Version: c.Version, Principal: c.Principal,
		Reason: c.Reason, Forced: c.Forced, Rollback: c.Rollback, Outcome: fleet.Outcome(c.Outcome), Message: c.Message,
		DeclaredAt: c.DeclaredAt.Time, SwitchedAt: moment(c.SwitchedAt), SettledAt: moment(c.SettledAt),
		LastNewConnectionAt: moment(c.LastNewConnectionAt), DrainedAt: moment(c.DrainedAt),
		ConnectionsAtSwitch: c.ConnectionsAtSwitch, ConnectionsDrained: c.ConnectionsDrained, ConnectionsReset: c.ConnectionsReset,
		ConnectionsLeft: c.ConnectionsLeft, Contended: c.Contended, Required: c.Required,
	}
	if c.Ramp != nil {
		d.Ramp = c.Ramp.Duration
	}
	return d
}

func moment(t *metav1.MicroTime) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

// ToStatus is the inverse of Status.
func ToStatus(s fleet.Status) v1alpha1.FleetStatus {
	d := v1alpha1.FleetStatus{
		ObservedGeneration: s.ObservedGeneration, Active: v1alpha1.Colour(s.Active), Version: s.Version, StandbyVersion: s.StandbyVersion,
		Phase: v1alpha1.Phase(s.Phase), Message: s.Message, Replicas: s.Replicas, Size: s.Size, Selector: s.Selector,
		Blue:  v1alpha1.ColourStatus{Version: s.Blue.Version, Desired: s.Blue.Desired, Ready: s.Blue.Ready, OpenConnections: s.Blue.OpenConnections},
		Green: v1alpha1.ColourStatus{Version: s.Green.Version, Desired: s.Green.Desired, Ready: s.Green.Ready, OpenConnections: s.Green.OpenConnections},
	}
	if s.LastCutover != nil {
		last := toCutover(*s.LastCutover)
		d.LastCutover = &last
	}
	for _, c := range s.History {
		d.History = append(d.History, v1alpha1.PastCutover{CutoverStatus: toCutover(c)})
	}
	for _, c := range s.Conditions {
		// Always the spec's generation that the whole status speaks of.
		d.Conditions = append(d.Conditions, metav1.Condition{Type: c.Type, Status: metav1.ConditionStatus(c.Status), Reason: c.Reason,
			Message: clip(c.Message, maxMessage), LastTransitionTime: metav1.NewTime(c.Since), ObservedGeneration: s.ObservedGeneration})
	}
	if t := s.Traffic; t != nil {
		d.Traffic = &v1alpha1.TrafficStatus{Requests: t.Requests, Errors: t.Errors, RequestsPerSecond: milli(t.RequestsPerSecond), ErrorRatio: milli(t.ErrorRatio),
			Window: metav1.Duration{Duration: t.Window.Round(time.Millisecond)}, At: metav1.NewMicroTime(t.At)}
	}
	return d
}

// maxMessage is the longest message of a metav1.Condition, in bytes.
const maxMessage = 32768

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}

func milli(f float64) resource.Quantity {
	return *resource.NewMilliQuantity(int64(f*1000+0.5), resource.DecimalSI)
}

func toCutover(c fleet.Cutover) v1alpha1.CutoverStatus {
	d := v1alpha1.CutoverStatus{
		ID: c.ID, Generation: c.Generation, From: v1alpha1.Colour(c.From), To: v1alpha1.Colour(c.To), Version: c.Version, Principal: c.Principal,
		Reason: c.Reason, Forced: c.Forced, Rollback: c.Rollback, Outcome: v1alpha1.Outcome(c.Outcome), Message: c.Message,
		DeclaredAt: metav1.NewMicroTime(c.DeclaredAt), SwitchedAt: toMoment(c.SwitchedAt), SettledAt: toMoment(c.SettledAt),
		LastNewConnectionAt: toMoment(c.LastNewConnectionAt), DrainedAt: toMoment(c.DrainedAt),
		ConnectionsAtSwitch: c.ConnectionsAtSwitch, ConnectionsDrained: c.ConnectionsDrained, ConnectionsReset: c.ConnectionsReset,
		ConnectionsLeft: c.ConnectionsLeft, Contended: c.Contended, Required: c.Required,
	}
	if c.Ramp > 0 {
		d.Ramp = &metav1.Duration{Duration: c.Ramp.Round(time.Millisecond)}
	}
	return d
}

func toMoment(t time.Time) *metav1.MicroTime {
	if t.IsZero() {
		return nil
	}
	m := metav1.NewMicroTime(t)
	return &m
}
