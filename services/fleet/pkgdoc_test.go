package fleet_test

import (
	"testing"

	"edgehold.internal/libs/pkgdoc"
)

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
	for _, never := range []struct{ pattern, reason string }{
		{"k8s.io/...", "the domain decides from plain values; adapters read and write clusters"},
		{"sigs.k8s.io/...", "the domain decides from plain values; adapters read and write clusters"},
		{"connectrpc.com/connect", "rpc translates; the domain knows no transport"},
		{"edgehold.internal/proto/...", "what is sent and what is decided on change for different reasons"},
		{"edgehold.internal/libs/service", "the domain is used by the command line, which serves nothing"},
		{"net", "the domain does no I/O, so that all of it can be tested without any"},
		{"net/http", "the domain does no I/O, so that all of it can be tested without any"},
	} {
		pkgdoc.Forbid(t, "edgehold.internal/services/fleet", never.pattern, never.reason)
	}
}
