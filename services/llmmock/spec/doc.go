// Package spec knows the vendors' OpenAPI documents: it finds the operation of a request, says what of the request the vendor would
// refuse, and makes up answers that the vendor could have given, over objects that are remembered between requests. All that no
// hand-written adapter serves is served by it.
//
// Start at Load, which reads an embedded Document, at Operation.Validate, and at New, which makes a Service of a document whose API
// the server mounts. The documents are read from a compact form that the command generate makes of the vendors' own; data/README.md
// says where those come from.
package spec

//go:generate go run ./generate
