package temporal

import "go.temporal.io/server/common/dynamicconfig"

const (
	// mainDatabase and visibilityDatabase are two files, because SQLite has one writer per file and the list of workflows
	// must not wait in front of the workflows themselves.
	mainDatabase       = "temporal.db"
	visibilityDatabase = "visibility.db"
	// historyShards lets that many workflows make progress side by side. More only cost start-up time and idle polls.
	historyShards = 4
)

// pragmas of both databases. With a write-ahead log and synchronous=NORMAL a commit is one write to the page cache: a
// killed process loses nothing, a machine that loses power may lose its last moments and stays consistent.
var pragmas = map[string]string{
	"journal_mode": "WAL",
	"synchronous":  "NORMAL",
	// Moving the log into the database waits for the disk, and SQLite would do it inside the commit that makes the log too
	// long. See checkpoint.go, which does it beside the commits.
	"wal_autocheckpoint": "0",
	// The log's file shrinks when it begins anew, so that its size says how much there is to move.
	"journal_size_limit": "0",
	"busy_timeout":       "10000", // milliseconds
	"temp_store":         "MEMORY",
	"cache_size":         "-65536",    // KiB, as a negative number
	"mmap_size":          "268435456", // bytes
}

// tuning is the dynamic configuration. Its aim is the latency of one burst of child workflows on a small machine.
func tuning() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// One partition: there is one matching host, and a task that lands in another partition than the poll is forwarded.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
		// A shard's queue is read when something was put into it, but at most this often a second. The default of 20 makes
		// each step of a workflow wait up to 50 ms.
		dynamicconfig.TransferProcessorMaxPollRPS.Key(): 500,
		dynamicconfig.TimerProcessorMaxPollRPS.Key():    500,
		// The list of workflows may be some hundred milliseconds behind. One worker a shard keeps its writes from taking the
		// processors from the workflows.
		dynamicconfig.VisibilityProcessorSchedulerWorkerCount.Key(): 1,
		dynamicconfig.VisibilityProcessorMaxPollRPS.Key():           5,
	}
}
