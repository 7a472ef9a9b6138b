package llmmock_test

import (
	"testing"

	"edgehold.internal/libs/pkgdoc"
)

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
	for _, never := range []struct{ pattern, reason string }{
		{"net", "the domain does no I/O, so that all of it can be tested without any"},
		{"net/http", "the domain does no I/O, so that all of it can be tested without any"},
		{"go.yaml.in/yaml/...", "package scenario reads what people write; the domain knows no format"},
		{"connectrpc.com/connect", "rpc translates; the domain knows no transport"},
		{"edgehold.internal/proto/...", "what is sent and what is decided on change for different reasons"},
		{"edgehold.internal/libs/service", "the domain is used by the command line, which serves nothing"},
	} {
		pkgdoc.Forbid(t, "edgehold.internal/services/llmmock", never.pattern, never.reason)
	}
}
