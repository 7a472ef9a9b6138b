package v1alpha1

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Colour names one of the two Deployments.
// +kubebuilder:validation:Enum=blue;green
type Colour string

// The two colours.
const (
	Blue  Colour = "blue"
	Green Colour = "green"
)

// Fleet is a blue/green pair behind one Service in one PoP: one colour carries the traffic, the other is its warm
// standby of the same size. It has the scale subresource: an HPA targets the Fleet, never a Deployment.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=flt,categories=edgehold
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.replicas`
// +kubebuilder:printcolumn:name="Blue",type=integer,JSONPath=`.status.blue.ready`
// +kubebuilder:printcolumn:name="Green",type=integer,JSONPath=`.status.green.ready`
// +kubebuilder:printcolumn:name="Standby",type=string,JSONPath=`.status.standbyVersion`
// +kubebuilder:printcolumn:name="Last cutover",type=date,JSONPath=`.status.lastCutover.switchedAt`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Fleet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   FleetSpec   `json:"spec"`
	Status FleetStatus `json:"status,omitempty"`
}

// FleetList is a list of Fleets.
// +kubebuilder:object:root=true
type FleetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Fleet `json:"items"`
}

// FleetSpec is what an operator declares.
// +kubebuilder:validation:XValidation:rule="self.blue.deployment != self.green.deployment",message="blue and green name the same Deployment; each colour needs its own"
// +kubebuilder:validation:XValidation:rule="!has(self.drain) || self.drain.method == 'wait' || has(self.drain.port)",message="drain.port is needed by every drain method but wait"
// +kubebuilder:validation:XValidation:rule="!has(self.drain) || !has(self.drain.resetRemaining) || !self.drain.resetRemaining || self.drain.method in ['http', 'haproxy']",message="drain.resetRemaining needs a method that can reset connections: http or haproxy"
type FleetSpec struct {
	// Name of the Service in the same namespace that carries the traffic.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	Service string     `json:"service"`
	Blue    ColourSpec `json:"blue"`
	Green   ColourSpec `json:"green"`
	// The colour that shall carry the traffic. Changing it is the cutover.
	Active Colour `json:"active"`
	// Pods of the active colour; the standby follows. Written by the HPA through the scale subresource.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	Replicas int32 `json:"replicas"`
	// +kubebuilder:default={}
	Standby StandbySpec `json:"standby,omitempty"`
	// +kubebuilder:default={}
	Cutover CutoverSpec `json:"cutover,omitempty"`
	// +kubebuilder:default={method: wait}
	Drain DrainSpec `json:"drain,omitempty"`
	// Where the pods of the active colour show their traffic; without it the error ratio is unknown.
	Metrics *MetricsSpec `json:"metrics,omitempty"`
	// Who changed active last, and why. Written together with active; a cutover without it is recorded as unknown.
	Change *ChangeSpec `json:"change,omitempty"`
	// Times in which no cutover begins unless it is forced.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Freezes []FreezeSpec `json:"freezes,omitempty"`
}

// ColourSpec names the Deployment of a colour.
type ColourSpec struct {
	// Name of the Deployment in the same namespace. Its pods carry the label edgehold.internal/colour.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Deployment string `json:"deployment"`
}

// StandbySpec sizes the standby.
type StandbySpec struct {
	// Size of the standby in percent of the active. Below 100 a cutover first ramps the standby up.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=100
	Percent *int32 `json:"percent,omitempty"`
}

// CutoverSpec sets the times of a cutover.
// +kubebuilder:validation:XValidation:rule="!has(self.guard) || (duration(self.guard) >= duration('0s') && duration(self.guard) <= duration('1h'))",message="cutover.guard must be between 0s and 1h"
// +kubebuilder:validation:XValidation:rule="!has(self.scaleDownHold) || (duration(self.scaleDownHold) >= duration('0s') && duration(self.scaleDownHold) <= duration('24h'))",message="cutover.scaleDownHold must be between 0s and 24h"
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || (duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('1h'))",message="cutover.timeout must be between 1s and 1h"
type CutoverSpec struct {
	// After the switch the new colour must keep its pods ready for so long; else the fleet switches back, once.
	// +kubebuilder:default="30s"
	Guard *metav1.Duration `json:"guard,omitempty"`
	// After the switch the fleet does not shrink for so long: the HPA has no history of the newly active pods yet.
	// +kubebuilder:default="5m"
	ScaleDownHold *metav1.Duration `json:"scaleDownHold,omitempty"`
	// A declared cutover that has not switched after so long is abandoned, unless the change has its own deadline.
	// +kubebuilder:default="60s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// DrainMethod says how old pods are told to let their connections go.
// +kubebuilder:validation:Enum=wait;http;envoy;haproxy;nginx
type DrainMethod string

// The drain methods.
const (
	// DrainWait tells the pods nothing and waits for the timeout.
	DrainWait DrainMethod = "wait"
	// DrainHTTP calls the pod's own hooks: POST drain and undrain, GET connections.
	DrainHTTP DrainMethod = "http"
	// DrainEnvoy uses Envoy's admin interface.
	DrainEnvoy DrainMethod = "envoy"
	// DrainHAProxy uses HAProxy's runtime API over TCP.
	DrainHAProxy DrainMethod = "haproxy"
	// DrainNginx reads nginx's stub_status; nginx cannot be told to drain without a restart.
	DrainNginx DrainMethod = "nginx"
)

// DrainSpec says how the old colour is emptied after the switch. Its pods stay as the next standby.
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || (duration(self.timeout) >= duration('0s') && duration(self.timeout) <= duration('1h'))",message="drain.timeout must be between 0s and 1h"
type DrainSpec struct {
	// +kubebuilder:default=wait
	Method DrainMethod `json:"method,omitempty"`
	// Port of the pod for the hooks, the admin interface or the runtime API.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
	// Base path of the http hooks (drain, undrain and connections below it) or path of nginx's stub_status.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^(/[^ ?#]*)?$`
	Path string `json:"path,omitempty"`
	// Connections that are open after so long are left, or reset if resetRemaining is set.
	// +kubebuilder:default="60s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Close what is still open at the deadline. The method must be able to.
	ResetRemaining bool `json:"resetRemaining,omitempty"`
}

// MetricsSpec names the Prometheus counters that show the traffic of a pod.
type MetricsSpec struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// +kubebuilder:default="/metrics"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^/[^ #]*$`
	Path string `json:"path,omitempty"`
	// Counter of answers, summed over its labels.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[a-zA-Z_:][a-zA-Z0-9_:]*$`
	Requests string `json:"requests"`
	// Counter of answers that were errors, summed over its labels.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[a-zA-Z_:][a-zA-Z0-9_:]*$`
	Errors string `json:"errors"`
}

// ChangeSpec says who changed the active colour, and why. It is replaced as a whole.
// +structType=atomic
// +kubebuilder:validation:XValidation:rule="!has(self.deadline) || timestamp(self.deadline) > timestamp(self.at)",message="change.deadline must be after change.at"
type ChangeSpec struct {
	// Operation id or idempotency key: the same id is the same cutover.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ID string `json:"id"`
	// +kubebuilder:validation:MaxLength=256
	Principal string `json:"principal,omitempty"`
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason,omitempty"`
	// Version that the target colour must have; empty for any.
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`
	// Go past blockers that may be overridden.
	Force bool `json:"force,omitempty"`
	// It leads back, away from a release: a rollback after it needs a colour.
	Rollback bool `json:"rollback,omitempty"`
	// When the change was declared.
	At metav1.MicroTime `json:"at"`
	// The cutover is abandoned if it has not switched by then. What counts is how long after at it is, at most one hour: it
	// runs from when the change was stored, whatever anybody's clock says.
	Deadline *metav1.MicroTime `json:"deadline,omitempty"`
}

// FreezeSpec is a time in which no cutover begins.
// +kubebuilder:validation:XValidation:rule="timestamp(self.until) > timestamp(self.from)",message="a freeze must end after it begins: until must be after from"
type FreezeSpec struct {
	From  metav1.Time `json:"from"`
	Until metav1.Time `json:"until"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason"`
	// +kubebuilder:validation:MaxLength=256
	Principal string `json:"principal,omitempty"`
	// Idempotency key of the request that made it.
	// +kubebuilder:validation:MaxLength=256
	ID string `json:"id,omitempty"`
}

// Phase is where the fleet stands.
type Phase string

// The phases, in the order of a cutover.
const (
	PhaseSteady    Phase = "Steady"
	PhaseBlocked   Phase = "Blocked"
	PhaseRamping   Phase = "Ramping"
	PhaseSwitching Phase = "Switching"
	PhaseDraining  Phase = "Draining"
	PhaseHalted    Phase = "Halted"
)

// Outcome is how a cutover ended.
type Outcome string

// The outcomes.
const (
	OutcomeRunning    Outcome = "Running"
	OutcomeCompleted  Outcome = "Completed"
	OutcomeReverted   Outcome = "Reverted"
	OutcomeExpired    Outcome = "Expired"
	OutcomeSuperseded Outcome = "Superseded"
)

// FleetStatus is what the controller observed. It is written once at the end of a reconciliation, as a whole and by nobody
// else: who owns which field of it is not kept, because that was most of the object's metadata.
// +structType=atomic
type FleetStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// The colour that the Service selects; empty when it selects neither.
	Active Colour `json:"active,omitempty"`
	// Version of the active colour, and of the other one.
	Version        string `json:"version,omitempty"`
	StandbyVersion string `json:"standbyVersion,omitempty"`
	Phase          Phase  `json:"phase,omitempty"`
	// One sentence: what it does, or what holds it up and what to do.
	Message string `json:"message,omitempty"`
	// Pods of the active colour, for the scale subresource.
	Replicas int32 `json:"replicas,omitempty"`
	// Replicas that the active was last given; above spec.replicas while a scale-down is held.
	Size int32 `json:"size,omitempty"`
	// Label selector of the active colour's pods, for the scale subresource.
	Selector string       `json:"selector,omitempty"`
	Blue     ColourStatus `json:"blue,omitempty"`
	Green    ColourStatus `json:"green,omitempty"`
	// The cutover under way or, if none is, the last one.
	LastCutover *CutoverStatus `json:"lastCutover,omitempty"`
	// Earlier cutovers, newest first, each a line of JSON with the fields of lastCutover. What an API server does for an object it
	// does for each field, at every write and for every watcher: ten records with their fields cost more than all the rest.
	// +kubebuilder:validation:MaxItems=10
	// +listType=atomic
	History []PastCutover  `json:"history,omitempty"`
	Traffic *TrafficStatus `json:"traffic,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ColourStatus is one Deployment.
type ColourStatus struct {
	Version string `json:"version,omitempty"`
	Desired int32  `json:"desired,omitempty"`
	Ready   int32  `json:"ready,omitempty"`
	// Open client connections over its pods; absent when the drain method cannot tell.
	OpenConnections *int64 `json:"openConnections,omitempty"`
}

// CutoverStatus is the record of one cutover.
type CutoverStatus struct {
	// Id of the change.
	ID string `json:"id"`
	// Generation of the Fleet that declared it.
	Generation int64   `json:"generation"`
	From       Colour  `json:"from"`
	To         Colour  `json:"to"`
	Version    string  `json:"version,omitempty"`
	Principal  string  `json:"principal,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	Forced     bool    `json:"forced,omitempty"`
	Rollback   bool    `json:"rollback,omitempty"`
	Outcome    Outcome `json:"outcome"`
	Message    string  `json:"message,omitempty"`

	DeclaredAt metav1.MicroTime `json:"declaredAt"`
	// The Service's selector was set.
	SwitchedAt *metav1.MicroTime `json:"switchedAt,omitempty"`
	// EndpointSlices served the new colour only.
	SettledAt *metav1.MicroTime `json:"settledAt,omitempty"`
	// The last connection that the old colour accepted; absent when nobody can tell.
	LastNewConnectionAt *metav1.MicroTime `json:"lastNewConnectionAt,omitempty"`
	// The old colour has had no open connection since, or the drain's deadline passed.
	DrainedAt *metav1.MicroTime `json:"drainedAt,omitempty"`

	// The most connections that were open on the old colour after the switch; the base of the counts below. What is neither
	// reset nor left is drained, also when it went with its pod.
	ConnectionsAtSwitch *int64 `json:"connectionsAtSwitch,omitempty"`
	ConnectionsDrained  *int64 `json:"connectionsDrained,omitempty"`
	ConnectionsReset    *int64 `json:"connectionsReset,omitempty"`
	ConnectionsLeft     *int64 `json:"connectionsLeft,omitempty"`
	// Time that a standby below 100 % took to come to size.
	Ramp *metav1.Duration `json:"ramp,omitempty"`
	// Times that another writer set the selector back.
	Contended int32 `json:"contended,omitempty"`
	// Ready pods that the target needed at the switch; with fewer in the guard time it has failed.
	Required int32 `json:"required,omitempty"`
}

// PastCutover is the record of a cutover as a line of JSON.
// +kubebuilder:validation:Type=string
type PastCutover struct{ CutoverStatus }

// MarshalJSON is a string that holds the record.
func (c PastCutover) MarshalJSON() ([]byte, error) {
	record, err := json.Marshal(c.CutoverStatus)
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(record))
}

// UnmarshalJSON takes the string. What holds no record is empty, and not an error that would hide the Fleet: an API server whose
// definition of a Fleet has changed may have kept anything.
func (c *PastCutover) UnmarshalJSON(data []byte) error {
	var line string
	if json.Unmarshal(data, &line) != nil || json.Unmarshal([]byte(line), &c.CutoverStatus) != nil {
		c.CutoverStatus = CutoverStatus{}
	}
	return nil
}

// TrafficStatus is the active colour's traffic over a window.
type TrafficStatus struct {
	Requests int64 `json:"requests"`
	Errors   int64 `json:"errors"`
	// Quantity with milli precision, because CRDs have no floats.
	RequestsPerSecond resource.Quantity `json:"requestsPerSecond"`
	// Errors over requests, 0 to 1.
	ErrorRatio resource.Quantity `json:"errorRatio"`
	Window     metav1.Duration   `json:"window"`
	At         metav1.MicroTime  `json:"at"`
}
