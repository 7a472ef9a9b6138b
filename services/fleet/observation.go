package fleet

import (
	"slices"
	"time"
)

// Spec is what is declared of one fleet in its PoP's cluster.
type Spec struct {
	Service string
	// Blue and Green name the Deployments.
	Blue, Green string
	Active      Colour
	Replicas    int32
	// StandbyPercent is the standby's size in percent of the active's, 0 to 100.
	StandbyPercent int32
	Guard          time.Duration
	ScaleDownHold  time.Duration
	Timeout        time.Duration
	Drain          DrainSpec
	Metrics        *MetricsSpec
	Change         *Change
	Freezes        []Freeze
}

// Deployment names the Deployment of c, or is empty for None.
func (s *Spec) Deployment(c Colour) string {
	switch c {
	case Blue:
		return s.Blue
	case Green:
		return s.Green
	}
	return ""
}

// DrainMethod says how pods are told to let their connections go.
type DrainMethod string

// The drain methods.
const (
	DrainWait    DrainMethod = "wait"
	DrainHTTP    DrainMethod = "http"
	DrainEnvoy   DrainMethod = "envoy"
	DrainHAProxy DrainMethod = "haproxy"
	DrainNginx   DrainMethod = "nginx"
)

// Tells reports whether pods can be told to drain and to stop draining; those of wait and nginx cannot.
func (m DrainMethod) Tells() bool { return m == DrainHTTP || m == DrainEnvoy || m == DrainHAProxy }

// Counts reports whether open connections can be read.
func (m DrainMethod) Counts() bool { return m != DrainWait && m != "" }

// Resets reports whether what is left open can be closed.
func (m DrainMethod) Resets() bool { return m == DrainHTTP || m == DrainHAProxy }

// DrainSpec says how the old colour is emptied.
type DrainSpec struct {
	Method         DrainMethod
	Port           int32
	Path           string
	Timeout        time.Duration
	ResetRemaining bool
}

// MetricsSpec names the counters that show a pod's traffic.
type MetricsSpec struct {
	Port             int32
	Path             string
	Requests, Errors string
}

// Status is what the controller last wrote of a fleet, and what a decision says it shall write next.
type Status struct {
	ObservedGeneration      int64
	Active                  Colour
	Version, StandbyVersion string
	Phase                   Phase
	Message                 string
	// Replicas counts the pods of the active colour, for the autoscaler.
	Replicas int32
	// Size is the number of replicas that the active was last given. It is above the declared one while a scale-down is held.
	Size int32
	// Selector of the active colour's pods in the form of a label selector, for the autoscaler.
	Selector    string
	Blue, Green ColourState
	LastCutover *Cutover
	// History holds the cutovers before LastCutover, newest first, at most MaxHistory.
	History    []Cutover
	Traffic    *Traffic
	Conditions []Condition
}

// MaxHistory bounds Status.History.
const MaxHistory = 10

// clone copies what Decide changes in place.
func (s Status) clone() Status {
	if s.LastCutover != nil {
		c := *s.LastCutover
		s.LastCutover = &c
	}
	s.History = slices.Clone(s.History)
	s.Conditions = slices.Clone(s.Conditions)
	return s
}

// colour returns the state of c, which is blue or green.
func (s *Status) colour(c Colour) *ColourState {
	if c == Green {
		return &s.Green
	}
	return &s.Blue
}

// record finds a cutover by its id, in LastCutover or in the history.
func (s *Status) record(id string) *Cutover {
	if s.LastCutover != nil && s.LastCutover.ID == id {
		return s.LastCutover
	}
	for i := range s.History {
		if s.History[i].ID == id {
			return &s.History[i]
		}
	}
	return nil
}

// lastSwitch is when the selector was last set for a cutover, whatever was declared since; zero when it never was.
func (s *Status) lastSwitch() time.Time {
	if c := s.LastCutover; c != nil && !c.SwitchedAt.IsZero() {
		return c.SwitchedAt
	}
	for i := range s.History {
		if at := s.History[i].SwitchedAt; !at.IsZero() {
			return at
		}
	}
	return time.Time{}
}

// Parity is the standby's ready pods over its share, in percent, of the active's; false when nothing is active or ready.
func (s *Status) Parity(percent int32) (ratio float64, known bool) {
	if s.Active == None || s.colour(s.Active).Ready == 0 {
		return 0, false
	}
	want := standbySize(s.colour(s.Active).Ready, percent)
	if want == 0 {
		return 1, true
	}
	return float64(s.colour(s.Active.Other()).Ready) / float64(want), true
}

// Service is the part of a Kubernetes Service that a cutover is about.
type Service struct {
	Name            string
	ResourceVersion string
	Selector        map[string]string
	// Colour is the value of the colour label in the selector, None without one or with another value.
	Colour Colour
	// Fence is the generation for which a controller of this very Fleet object last set the selector; 0 for never.
	Fence int64
	// Reverted is the id of the cutover that a controller last switched back. It is written with the selector in one step, so
	// that it is never tried twice, whoever is killed when.
	Reverted string
	// Managers own the selector, the latest writer first. Ours is OwnManager.
	Managers []Writer
}

// Writer is a field manager and when it wrote, by the API server's clock with a resolution of one second.
type Writer struct {
	Name string
	At   time.Time
}

// OwnManager is the field manager under which the controller writes.
const OwnManager = "edgehold-fleet"

// writer is who last set the selector.
func (s *Service) writer() Writer {
	if len(s.Managers) == 0 {
		return Writer{Name: "unknown"}
	}
	return s.Managers[0]
}

// Deployment is one colour as Kubernetes sees it.
type Deployment struct {
	Name string
	// Labels of the pod template, Selector of the Deployment.
	Labels, Selector map[string]string
	// Version of the pod template; empty when it has none.
	Version string
	// Desired is spec.replicas and Pods how many exist.
	Desired, Pods int32
	// Ready counts ready pods of any version, Current those that surely run the pod template as it is now. A rollout
	// under way makes Current the smaller.
	Ready, Current int32
}

// Endpoints counts the ready endpoints in the Service's EndpointSlices. Unknown ones belong to no pod of either colour,
// or to one that is not known yet.
type Endpoints struct{ Blue, Green, Unknown int32 }

// Of returns the count of c.
func (e Endpoints) Of(c Colour) int32 {
	switch c {
	case Blue:
		return e.Blue
	case Green:
		return e.Green
	}
	return e.Unknown
}

// Autoscaler is the HorizontalPodAutoscaler that targets the fleet.
type Autoscaler struct {
	Name string
	// Problem is why its readings cannot be trusted; empty when it is healthy.
	Problem string
}

// Headroom is how many more pods of the standby fit. Nil is unknown.
type Headroom struct {
	// Nodes is what the schedulable nodes can take.
	Nodes *int32
	// Quota is what the namespace's ResourceQuotas allow; NoQuota when none limits it.
	Quota *int32
	// Why says what could not be read.
	Why string
}

// NoQuota is a Headroom.Quota without a limit.
const NoQuota int32 = 1<<31 - 1

// Reading is what the pods of one colour say of their connections, summed over the pods. The zero Reading is none at all.
type Reading struct {
	// At is when the round of questions began, as process uptime; 0 when nobody was asked yet.
	At time.Duration
	// Pods is how many were asked, Unknown how many gave no answer and Draining how many say that they drain.
	Pods, Unknown, Draining int
	// Open connections of the pods that answered.
	Open int64
	// LastAccepted is when the last connection was accepted; zero when the method cannot tell.
	LastAccepted time.Time
	// Reset counts the connections that were closed by order of ResetID; ResetDone when every pod did it.
	Reset     int64
	ResetID   string
	ResetDone bool
	// Problem is what the first unknown pod failed with.
	Problem string
}

// known reports whether every pod answered, and answered after the instant.
func (r *Reading) known(after time.Duration) bool { return r.At > 0 && r.At >= after && r.Unknown == 0 }

// Clock is one look at the time. A wall clock can jump; so what takes time is measured by Uptime, the age of a declaration by
// the API server's clock alone, and what is between two moments of a calendar, a freeze, holds anywhere from Earliest to
// Latest.
type Clock struct {
	// Now is for records: the wall clock, or the API server's when the two disagree.
	Now time.Time
	// Server is the API server's clock, to within two seconds; zero when it is not known.
	Server time.Time
	// Earliest and Latest bound what the time may really be: all of the wall clock, the wall clock at the start of the process
	// plus Uptime, and the API server's clock lie between them.
	Earliest, Latest time.Time
	// Uptime is the monotonic time since the process started, always above 0.
	Uptime time.Duration
}

// Doubt is how far the clocks are apart.
func (c Clock) Doubt() time.Duration { return c.Latest.Sub(c.Earliest) }

// Observation is all that a decision is made from. It is pure data: whoever wants to know what would happen changes a copy.
type Observation struct {
	Name       string
	Generation int64
	Spec       Spec
	// Stored is when Spec.Change was stored, by the API server's clock in whole seconds; zero when it is not known.
	Stored time.Time
	// Status as it was last written.
	Status Status
	// Service, Blue and Green are nil when they do not exist.
	Service     *Service
	Blue, Green *Deployment
	// Rivals are other Fleets of the namespace that claim the same Service or Deployment.
	Rivals     []string
	Endpoints  Endpoints
	Autoscaler *Autoscaler
	// StrayAutoscaler is an HPA that targets one of the Deployments instead of the Fleet; empty when there is none.
	StrayAutoscaler string
	Headroom        Headroom
	// BluePods and GreenPods are what the pods say of their connections.
	BluePods, GreenPods Reading
	// Traffic of the active colour since the last switch; nil when it is unknown, for the reason in TrafficProblem.
	Traffic        *Traffic
	TrafficProblem string
	Clock          Clock
	// Memory is Decision.Memory of the decision before, or zero in a process that has just started.
	Memory Memory
}

// Deployment returns the Deployment of c, nil when it does not exist or c is None.
func (o *Observation) Deployment(c Colour) *Deployment {
	switch c {
	case Blue:
		return o.Blue
	case Green:
		return o.Green
	}
	return nil
}

// Pods returns the reading of c's pods.
func (o *Observation) Pods(c Colour) *Reading {
	if c == Green {
		return &o.GreenPods
	}
	return &o.BluePods
}

// stamped is by how much a time of the API server may be off: both its stamps and its Date have whole seconds.
const stamped = 2 * time.Second

// age is for how long at least the change has been declared. The API server stamped it and tells the time now, so no two
// machines' clocks are compared. Where that is unknown, all that is known is the declarer's own word, which is held against
// the latest of the clocks here.
func (o *Observation) age(ch Change) time.Duration {
	if c := o.Spec.Change; c != nil && c.ID == ch.ID && !o.Stored.IsZero() && !o.Clock.Server.IsZero() {
		return max(o.Clock.Server.Sub(o.Stored)-stamped, 0)
	}
	return max(o.Clock.Latest.Sub(ch.At), 0)
}

// Served is the colour that the Service selects.
func (o *Observation) Served() Colour {
	if o.Service == nil {
		return None
	}
	return o.Service.Colour
}
