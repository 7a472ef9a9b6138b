package problem

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKinds(t *testing.T) {
	if int(Unimplemented) != len(names)-1 {
		t.Fatalf("%d names for %d kinds", len(names), Unimplemented+1)
	}
	seen := make(map[string]bool)
	for k := Internal; k <= Unimplemented; k++ {
		if ParseKind(k.String()) != k || seen[k.String()] {
			t.Errorf("%d is %q, which is %d", k, k, ParseKind(k.String()))
		}
		seen[k.String()] = true
	}
	if Kind(99).String() != "internal" || Kind(-1).String() != "internal" || ParseKind("nonsense") != Internal {
		t.Error("what is no kind is not internal")
	}
	var zero Error
	if zero.Kind != Internal {
		t.Error("a forgotten kind looks harmless")
	}
}

func TestNew(t *testing.T) {
	err := New(Unavailable, "scope.pops[2]", "%s cannot be read: %w", "fra1", io.ErrUnexpectedEOF)
	if err.Error() != "scope.pops[2]: fra1 cannot be read: unexpected EOF" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if got := NotFoundf("", "nobody").Error(); got != "nobody" {
		t.Errorf("without a field: %q", got)
	}
	wrapped := fmt.Errorf("cutting over: %w", Preconditionf("", "frozen"))
	if KindOf(wrapped) != FailedPrecondition || KindOf(io.EOF) != Internal || KindOf(nil) != Internal {
		t.Error("KindOf")
	}
	if KindOf(Invalidf("f", "x")) != Invalid || KindOf(Unavailablef("x")) != Unavailable {
		t.Error("the short forms have the wrong kinds")
	}
}

// TestWithCopies is a package variable that two calls add to.
func TestWithCopies(t *testing.T) {
	shared := Unavailablef("away").With("cluster", "c1")
	one, two := shared.With("pop", "fra1"), shared.With("pop", "mia1")
	if len(shared.Meta) != 1 || one.Meta["pop"] != "fra1" || two.Meta["pop"] != "mia1" || one.Meta["cluster"] != "c1" {
		t.Errorf("%v, %v, %v", shared.Meta, one.Meta, two.Meta)
	}
}
