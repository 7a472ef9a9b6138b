package workflows

import (
	"testing"

	"edgehold.internal/libs/pkgdoc"
)

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
	for _, forbidden := range []string{"go.temporal.io/...", "connectrpc.com/...", "google.golang.org/...", "edgehold.internal/proto/...", "net", "net/http"} {
		pkgdoc.Forbid(t, ".", forbidden, "what decides is replayed from histories and tested without waiting, so it does no I/O")
	}
	pkgdoc.Forbid(t, "./temporal", "edgehold.internal/proto/...", "histories keep the domain's types; the wire's may change")
	pkgdoc.Forbid(t, "./rpc", "go.temporal.io/...", "clients never need Temporal, and neither do their translators")
}
