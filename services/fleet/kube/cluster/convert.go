package cluster

import (
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/kube"
	"edgehold.internal/services/fleet/kube/v1alpha1"
)

// domain is what the Fleet object says: its spec, and its status as the controller last wrote it.
func (s *site) domain(f *v1alpha1.Fleet) fleet.Fleet {
	return s.view(f.Name, f.Generation, kube.Spec(f), kube.Status(f))
}

func (s *site) view(name string, generation int64, spec fleet.Spec, status fleet.Status) fleet.Fleet {
	return fleet.Fleet{
		Pop: s.pop.Name, Name: name, Active: status.Active, Declared: spec.Active, Phase: status.Phase, Message: status.Message,
		Replicas: spec.Replicas, Blue: status.Blue, Green: status.Green, LastCutover: status.LastCutover, History: status.History,
		Conditions: status.Conditions, Traffic: status.Traffic, Change: spec.Change, Freezes: spec.Freezes,
		Generation: generation, ObservedGeneration: status.ObservedGeneration,
	}
}
