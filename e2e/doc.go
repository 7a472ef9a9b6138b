// Package e2e holds the scenarios: each is an incident in a few lines, played on real clusters with a real Temporal, real
// services and live traffic. By default they run on an embedded platform that the tests start and stop themselves.
//
// To play them elsewhere, set EDGEHOLD_E2E_KUBECONFIG, EDGEHOLD_E2E_CONTEXTS (separated by commas), EDGEHOLD_E2E_TEMPORAL
// and EDGEHOLD_E2E_OVERLAY (of deploy/overlays, with the images at hand). Scenarios that kill an engine need the embedded
// platform and skip elsewhere. Start at rollback_test.go.
package e2e
