package temporal

import (
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/worker"
)

// TestHistoriesReplay replays what real servers have recorded: a change of the workflows that decides otherwise than
// before fails here. When that is what was wanted, record them anew:
//
//	go test ./workflows/cmd/runbooks -run TestRecordedCourses -record
//
// Operations under way are not harmed by it, because they stay with the build that they began with.
func TestHistoriesReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			r := worker.NewWorkflowReplayer()
			registerWorkflows(r)
			if err := r.ReplayWorkflowHistoryFromJSONFile(quiet{discard{}}, f); err != nil {
				t.Fatal(err)
			}
		})
	}
}
