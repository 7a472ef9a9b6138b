package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/fleet/kube/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// translate makes an error of the Kubernetes API one of ours, in terms of the PoP.
func (s *site) translate(err error) error {
	var known *problem.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	sentence := func(kind problem.Kind, format string, args ...any) error {
		e := problem.New(kind, "", "PoP %s (context %s): "+format, append([]any{s.pop.Name, s.pop.Context}, args...)...).With("pop", s.pop.Name)
		e.Cause = err
		return e
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return sentence(problem.Unavailable, "the Kubernetes API cannot be reached: %s", reach(err))
	}
	switch {
	case apierrors.IsNotFound(err) && !hasDetails(err):
		return sentence(problem.FailedPrecondition, "the cluster does not know the kind Fleet; apply the CustomResourceDefinition of deploy/base/crds")
	case apierrors.IsNotFound(err):
		return sentence(problem.NotFound, "%v", err)
	case apierrors.IsUnauthorized(err):
		return sentence(problem.PermissionDenied, "the Kubernetes API refused the credentials of the kubeconfig; renew them")
	case s.asleep(err):
		return sentence(problem.Unavailable, "the Kubernetes API has just come back and does not know its roles yet: %v", err)
	case apierrors.IsForbidden(err):
		return sentence(problem.PermissionDenied, "the credentials of the kubeconfig lack a right: %v", err)
	case overtaken(err), apierrors.IsAlreadyExists(err):
		return sentence(problem.Aborted, "another writer was first; ask again")
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return sentence(problem.FailedPrecondition, "the Kubernetes API refused the object: %v", err)
	}
	// What is left are answers of a server that is starting, stopping, overloaded or broken.
	return sentence(problem.Unavailable, "the Kubernetes API cannot answer now: %v", err)
}

// hasDetails tells "there is no such object" from "there is no such kind", which is a 404 as well.
func hasDetails(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
	return d != nil && d.Name != ""
}

// asleep says that the API refused what it may well allow once it is awake: it was away a moment ago.
func (s *site) asleep(err error) bool {
	if !apierrors.IsForbidden(err) {
		return false
	}
	conn, missing := s.connections.connect(s.pop.Context)
	return missing == nil && conn.mirror.awoke()
}

// overtaken says that another writer was first: the object has another version than was asked for, or a test in a JSON patch did
// not hold, which the API server reports as a request that it cannot process, without a cause, and not as a conflict.
func overtaken(err error) bool {
	if apierrors.IsConflict(err) {
		return true
	}
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
	return d == nil || len(d.Causes) == 0 // a field that is wrong is named there
}

// away says that the API did not answer, or answered that it cannot: it is down, starting, stopping or overloaded.
func away(err error) bool {
	var known *problem.Error
	if errors.As(err, &known) {
		return known.Kind == problem.Unavailable
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		var certificate *tls.CertificateVerificationError
		return !errors.As(err, &certificate)
	}
	return status.Status().Code >= 500 || apierrors.IsTooManyRequests(err)
}

// inDoubt says that a write may have happened although it failed: the connection was there and then was not.
func inDoubt(err error) bool {
	var operation *net.OpError
	if errors.As(err, &operation) && operation.Op == "dial" {
		return false
	}
	return away(err)
}

// reach is the shortest text that still says what is wrong on the way to an API.
func reach(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	var certificate x509.UnknownAuthorityError
	if errors.As(err, &certificate) {
		return "its certificate is not signed by the authority in the kubeconfig"
	}
	var operation *net.OpError
	if errors.As(err, &operation) {
		return operation.Error()
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// record leaves a Kubernetes Event beside the fleet, off the path of the caller. It is a courtesy to those who look with
// kubectl: the fleet itself and the audit log are the record. When too many are under way it is dropped.
func (s *site) record(f *v1alpha1.Fleet, reason, note string) {
	conn, err := s.connections.connect(s.pop.Context)
	if err != nil {
		return
	}
	select {
	case s.connections.events <- struct{}{}:
	default:
		return
	}
	const most = 1000 // of 1024 bytes
	if len(note) > most {
		note = note[:most] + "…"
	}
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: f.Name + "-", Namespace: f.Namespace},
		EventTime:  metav1.NowMicro(), ReportingController: "edgehold.internal/fleet", ReportingInstance: fieldManager,
		Action: reason, Reason: reason, Note: note, Type: corev1.EventTypeNormal,
		Regarding: corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Fleet", Namespace: f.Namespace, Name: f.Name, UID: f.UID, ResourceVersion: f.ResourceVersion},
	}
	s.connections.tasks.Go(func() {
		defer func() { <-s.connections.events }()
		// The next seconds belong to what it tells of: hundreds of Events would compete with the patches of other PoPs.
		select {
		case <-s.connections.closing:
		case <-time.After(5 * time.Second):
		}
		ctx, cancel := context.WithTimeout(s.connections.ctx, 5*time.Second)
		defer cancel()
		if err := conn.client.Create(ctx, event, client.FieldOwner(fieldManager)); err != nil {
			s.connections.config.Logger.Debug("a Kubernetes Event was not recorded", "pop", s.pop.Name, "reason", reason, "error", err)
		}
	})
}
