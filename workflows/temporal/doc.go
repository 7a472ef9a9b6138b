// Package temporal runs operations on Temporal: workflows that do what workflows.Run decides, activities that call the
// fleet service, and a client that starts, shows and decides.
//
// Start at GlobalCutover, the workflow of an operation, and at Runbooks, the client. Worker runs both workflows and the
// activities. What is in workflow.go, and in the root package, is replayed from histories: it must be deterministic, and
// Build changes with it.
package temporal
