package edge_test

import (
	"testing"

	"edgehold.internal/libs/pkgdoc"
)

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
	pkgdoc.Forbid(t, ".", "net/http", "the workload's domain is what an answer says, not how it travels")
}
