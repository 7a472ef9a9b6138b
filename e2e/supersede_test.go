package e2e

import (
	"strings"
	"testing"
	"time"

	"edgehold.internal/services/fleet/kube/v1alpha1"
)

// A release turns out to be bad while its operation still measures and drains. The rollback does not wait for it.
func TestRollbackOfAReleaseUnderWay(t *testing.T) {
	s, ctx := scenario(t)
	if out, err := s.rollback(ctx, "before-the-release"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
	out, err := s.Run(ctx, "cutover", "--to", "green", "--reason", "release v2", "--detach")
	if err != nil {
		t.Fatal(err)
	}
	release := strings.TrimSpace(out)
	if err := s.AwaitActive(ctx, v1alpha1.Green); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rollback(ctx, "politely"); exitCode(err) != 3 || !strings.Contains(err.Error(), "--supersede") || !strings.Contains(err.Error(), "operation abort "+release) {
		t.Fatalf("a second operation: %v", err)
	}
	before := time.Now()
	back, err := s.Run(ctx, "rollback", "--reason", "v2 answers 500", "--supersede", "--detach")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitActive(ctx, v1alpha1.Blue); err != nil {
		t.Fatal(err)
	}
	t.Logf("every PoP was back %s after the command", time.Since(before))
	if out, err := s.Run(ctx, "operation", "watch", strings.TrimSpace(back)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.back(t, ctx)
	if out, err := s.Run(ctx, "operation", "get", release); err != nil || !strings.Contains(out, "superseded by a rollback: v2 answers 500") {
		t.Errorf("the release does not say what became of it: %v\n%s", err, out)
	}
}
