package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehold.internal/libs/problem"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/services/fleet"
	"edgehold.internal/services/fleet/fake"
)

func direct() (*request, fleet.Change, []fleet.Pop) {
	r := &request{kind: runbookv1.Kind_KIND_ROLLBACK, fleet: "edge", key: "k", reason: "v2 is bad"}
	return r, fleet.Change{ID: "direct/k", To: fleet.Blue, Principal: "me@here", Reason: r.reason, At: begun}, []fleet.Pop{{Name: "ams1"}, {Name: "fra1"}, {Name: "sin1"}}
}

// results are a PoP that switched, one that its controller has yet to switch, and one that could not be reached.
var results = []fleet.CutoverResult{
	{Pop: "ams1", Cutover: &fleet.Cutover{SwitchedAt: begun.Add(120 * time.Millisecond)}},
	{Pop: "fra1", Err: problem.New(problem.DeadlineExceeded, "", "blue is declared in PoP fra1 and had not switched")},
	{Pop: "sin1", Err: problem.Unavailablef("the Kubernetes API cannot be reached")},
}

// TestDirectChange: what a direct call declares says whether it is a rollback, as the services do.
func TestDirectChange(t *testing.T) {
	r, want, _ := direct()
	want.Principal, want.Rollback, want.To = principal(), true, fleet.None
	if got := r.change(begun); got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	r.kind, r.to, r.deadline = runbookv1.Kind_KIND_CUTOVER, "green", time.Minute
	want.Rollback, want.To, want.Deadline = false, fleet.Green, begun.Add(time.Minute)
	if got := r.change(begun); got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// TestDirectResolve: without a name the fleet is the only one, without a colour it is the one to go back to; what was rolled
// back is not rolled back again.
func TestDirectResolve(t *testing.T) {
	edge := fake.New(fake.Steady("edge", fleet.Green))
	centre := fleet.NewCentre(&fleet.Registry{Pops: []fleet.Pop{{Name: "ams1"}}}, func(fleet.Pop) fleet.Cluster { return edge }, fleet.Limits{})
	all := fleet.Scope{All: true}
	r, _, _ := direct()
	r.fleet = ""
	change := r.change(begun)
	if err := resolve(t.Context(), centre, all, r, &change); err != nil || r.fleet != "edge" || change.To != fleet.Blue {
		t.Fatalf("%q, %q, %v", r.fleet, change.To, err)
	}
	change.Deadline = change.At.Add(time.Minute)
	if _, err := centre.CutOver(t.Context(), r.fleet, all, change, nil); err != nil {
		t.Fatal(err)
	}
	r.key = "another"
	change = r.change(begun)
	err := resolve(t.Context(), centre, all, r, &change)
	if code(err) != ExitRefused || !strings.Contains(err.Error(), "nothing to roll back: every PoP in scope serves blue (v1); "+principal()+" rolled back at ") ||
		!strings.Contains(err.Error(), "say --to green, or edgehold cutover --to green") {
		t.Errorf("exit %d: %v", code(err), err)
	}
}

func TestDirectShown(t *testing.T) {
	r, change, pops := direct()
	var out bytes.Buffer
	show := &progress{w: &out, size: func() screen { return screen{} }, begun: begun, now: func() time.Time { return begun.Add(time.Second) }, steps: map[string]runbookv1.Step{}}
	live := newDirectOperation(r, nil, change, pops, false)
	for _, result := range results {
		live.took(result, show)
	}
	live.end(begun.Add(2*time.Second), show)
	want := `  +0.120s  ams1  switched
  +1.000s  fra1  switching: declared and not switched yet; it goes on by itself
  +1.000s  sin1  failed: the Kubernetes API cannot be reached
`
	if out.String() != want || live.op.GetState() != runbookv1.State_STATE_PARTIAL {
		t.Errorf("%s, got\n%swant\n%s", live.op.GetState(), out.String(), want)
	}
}

func TestDirectOutcome(t *testing.T) {
	r, _, _ := direct()
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	const again = "\n  edgehold rollback --direct --to blue --idempotency-key k --reason …"
	for _, c := range []struct {
		name    string
		ctx     context.Context
		results []fleet.CutoverResult
		code    int
		says    string
	}{
		{"all", t.Context(), results[:1], ExitDone, ""},
		{"some", t.Context(), results, ExitPartial, "2 of 3 PoPs do not serve blue; 1 of them go on by themselves, if their controllers live." +
			" With the same reason and key it is taken up again; --force-selector does without the controllers:" + again + "\n  edgehold rollback --direct --to blue --force-selector --reason …"},
		{"none reached", t.Context(), results[2:], ExitUnreachable, "1 of 1 PoPs do not serve blue. With the same reason and key it is taken up again:" + again},
		{"interrupted", interrupted, results[1:2], ExitFailed, "interrupted: 1 of 1 PoPs do not serve blue; 1 of them go on by themselves"},
	} {
		err := directOutcome(c.ctx, r, fleet.Blue, c.results)
		if c.code == ExitDone {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if code(err) != c.code || !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%s: exit %d, %v\nwant %d, %s", c.name, code(err), err, c.code, c.says)
		}
	}
}

// TestAudit: the lines of a direct cutover go to the file that was configured or nothing is done, and else to one in the
// state directory of whoever runs it.
func TestAudit(t *testing.T) {
	r, change, _ := direct()
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	a, err := openAudit("", change, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		a.result(result)
	}
	a.end(directOutcome(t.Context(), r, fleet.Blue, results))
	a.close()
	body, err := os.ReadFile(filepath.Join(state, "edgehold", "audit.log"))
	if err != nil || a.err != nil {
		t.Fatal(err, a.err)
	}
	var got []string
	for line := range strings.Lines(string(body)) {
		var l auditLine
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.ID != "direct/k" || l.Principal != "me@here" || l.Time.IsZero() {
			t.Errorf("%v: %s", err, line)
		}
		got = append(got, strings.Join([]string{l.Event, l.Pop, l.To, l.Reason, strings.Join(l.Scope, ","), l.Outcome}, "|"))
	}
	want := []string{"begin||blue|v2 is bad|*|", "pop|ams1||||switched", "pop|fra1||||declared, not switched yet: blue is declared in PoP fra1 and had not switched",
		"pop|sin1||||left as it is: the Kubernetes API cannot be reached"}
	if len(got) != 5 || strings.Join(got[:4], "\n") != strings.Join(want, "\n") || !strings.HasPrefix(got[4], "end|||||2 of 3 PoPs do not serve blue") {
		t.Errorf("got\n%s\nwant\n%s\nend…", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	if _, err := openAudit(filepath.Join(state, "nowhere", "audit.log"), change, r); problem.KindOf(err) != problem.FailedPrecondition || !strings.Contains(err.Error(), "nothing is changed without one") {
		t.Errorf("a configured file that cannot be opened: %v", err)
	}
	if _, err := openAudit("/dev/full", change, r); problem.KindOf(err) != problem.FailedPrecondition {
		t.Errorf("a configured file that cannot be written: %v", err)
	}
	t.Setenv("XDG_STATE_HOME", "/dev/null/nowhere")
	if f, err := auditLog(""); err != nil || f != os.Stderr {
		t.Errorf("a default file that cannot be made: %v, %v; want the error stream", f, err)
	}
}
