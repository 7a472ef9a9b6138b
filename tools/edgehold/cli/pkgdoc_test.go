package cli_test

import (
	"testing"

	"edgehold.internal/libs/pkgdoc"
)

func TestPackages(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}
