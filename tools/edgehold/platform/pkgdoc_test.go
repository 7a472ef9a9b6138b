package platform_test

import (
	"testing"

	"edgehold.internal/libs/pkgdoc"
)

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}
