package process

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status of the pod, whole. What others are responsible for, such as conditions of their own, is taken from base, the status that
// the API has.
func (p *Pod) Status(base corev1.PodStatus) corev1.PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := *base.DeepCopy()
	status.ObservedGeneration = p.pod.Generation
	status.Phase = p.phase()
	status.Reason, status.Message = p.failReason, p.failText
	host := p.host.cfg.HostIP.String()
	status.HostIP, status.HostIPs = host, []corev1.HostIP{{IP: host}}
	status.PodIP, status.PodIPs = p.ip.String(), []corev1.PodIP{{IP: p.ip.String()}}
	status.StartTime = p.startTime.DeepCopy()
	status.InitContainerStatuses, status.ContainerStatuses = p.statuses(p.inits), p.statuses(p.mains)
	p.judge(&status)
	return status
}

func (p *Pod) statuses(containers []*container) []corev1.ContainerStatus {
	out := make([]corev1.ContainerStatus, 0, len(containers))
	for _, c := range containers {
		started := c.started
		s := corev1.ContainerStatus{
			Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, RestartCount: c.restarts, Started: &started,
			Ready: c.ready && p.failReason == "", State: *c.state.DeepCopy(), LastTerminationState: *c.last.DeepCopy(),
		}
		if c.init && !c.sidecar() { // such a container is ready when it is done
			s.Ready = c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
		}
		if c.run != nil {
			s.ContainerID = containerID(c.run)
		} else if c.state.Terminated != nil {
			s.ContainerID = c.state.Terminated.ContainerID
		}
		out = append(out, s)
	}
	return out
}

// phase follows the kubelet: what it says of a pod is decided by which containers run, wait for the first time, or have ended.
func (p *Pod) phase() corev1.PodPhase {
	if p.failReason != "" && p.finished {
		return corev1.PodFailed
	}
	for _, c := range p.inits {
		if c.sidecar() {
			continue
		}
		switch t := c.state.Terminated; {
		case t == nil && p.finished:
			return corev1.PodFailed
		case t == nil:
			return corev1.PodPending
		case t.ExitCode != 0 && c.over:
			return corev1.PodFailed
		case t.ExitCode != 0:
			return corev1.PodPending
		}
	}
	var running, fresh, failed int
	for _, c := range p.mains {
		switch {
		case c.state.Running != nil:
			running++
		case c.state.Terminated != nil && c.over:
			if c.state.Terminated.ExitCode != 0 {
				failed++
			}
		case c.state.Waiting != nil && c.last.Terminated == nil:
			fresh++
		default: // between two runs
			running++
		}
	}
	switch {
	case p.finished && (failed > 0 || fresh > 0 || running > 0):
		return corev1.PodFailed
	case p.finished:
		return corev1.PodSucceeded
	case fresh > 0:
		return corev1.PodPending
	default:
		return corev1.PodRunning // also for the moment between the end of the last container and that of the pod
	}
}

// judge sets the conditions that the node is responsible for.
func (p *Pod) judge(status *corev1.PodStatus) {
	initialized := true
	for i, c := range p.inits {
		s := status.InitContainerStatuses[i]
		if c.sidecar() && !c.started || !c.sidecar() && !s.Ready {
			initialized = false
		}
	}
	ready, reason, message := true, "", ""
	var unready []string
	for i, c := range p.inits {
		if c.sidecar() && !status.InitContainerStatuses[i].Ready {
			unready = append(unready, c.spec.Name)
		}
	}
	for _, s := range status.ContainerStatuses {
		if !s.Ready {
			unready = append(unready, s.Name)
		}
	}
	if len(unready) > 0 {
		ready, reason, message = false, "ContainersNotReady", "containers with unready status: ["+strings.Join(unready, " ")+"]"
	}
	done := status.Phase == corev1.PodSucceeded
	if done {
		initialized = true
		reason, message = "PodCompleted", ""
	}
	p.condition(status, corev1.PodReadyToStartContainers, p.prepared && !p.finished, "", "")
	p.condition(status, corev1.PodInitialized, initialized, "", "")
	p.condition(status, corev1.ContainersReady, ready, reason, message)
	for _, gate := range p.pod.Spec.ReadinessGates {
		if c, ok := find(status.Conditions, gate.ConditionType); !ok || c.Status != corev1.ConditionTrue {
			if ready {
				reason, message = "ReadinessGatesNotReady", "condition "+string(gate.ConditionType)+" is not True"
			}
			ready = false
		}
	}
	p.condition(status, corev1.PodReady, ready, reason, message)
	if _, ok := find(status.Conditions, corev1.PodScheduled); !ok { // a pod that was given to this node by its author
		p.condition(status, corev1.PodScheduled, true, "", "")
	}
}

func find(conditions []corev1.PodCondition, kind corev1.PodConditionType) (corev1.PodCondition, bool) {
	for _, c := range conditions {
		if c.Type == kind {
			return c, true
		}
	}
	return corev1.PodCondition{}, false
}

// condition keeps the time of the last transition.
func (p *Pod) condition(status *corev1.PodStatus, kind corev1.PodConditionType, holds bool, reason, message string) {
	c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: p.pod.Generation}
	if holds {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "", ""
	}
	before, ok := p.conditions[kind]
	if c.LastTransitionTime = before.LastTransitionTime; !ok || before.Status != c.Status || c.LastTransitionTime.IsZero() {
		c.LastTransitionTime = metav1.Now()
	}
	p.conditions[kind] = c
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			status.Conditions[i] = c
			return
		}
	}
	status.Conditions = append(status.Conditions, c)
}
