// Package v1alpha1 is the Kubernetes API of the fleet: the Fleet object as it is stored in a PoP's cluster. Start at
// Fleet. The CustomResourceDefinition in deploy/ and the deep copies are generated from it by `make generate`.
//
// +kubebuilder:object:generate=true
// +groupName=edgehold.internal
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is edgehold.internal/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "edgehold.internal", Version: "v1alpha1"}

// AddToScheme registers the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Fleet{}, &FleetList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

const (
	// ColourLabel is on the pods of both Deployments and in the Service's selector; its value is a Colour.
	ColourLabel = "edgehold.internal/colour"
	// VersionLabel is on the pod template of each Deployment and says which release it runs.
	VersionLabel = "app.kubernetes.io/version"
	// FenceAnnotation is on the Service: the generation of the Fleet whose controller last set the selector. A
	// controller that sees a higher one than its Fleet's has a stale cache and does nothing.
	FenceAnnotation = "edgehold.internal/fleet-generation"
	// RevertedAnnotation is on the Service: the id of the cutover that was last switched back within its guard time.
	RevertedAnnotation = "edgehold.internal/fleet-reverted"
	// FieldManager owns the Service's selector and both Deployments' replicas.
	FieldManager = "edgehold-fleet"
)
