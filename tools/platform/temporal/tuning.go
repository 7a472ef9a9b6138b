package temporal

import (
	"go.temporal.io/server/common/dynamicconfig"
)

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
	"busy_timeout": "10000", // milliseconds
	"temp_store":   "MEMORY",
	"cache_size":   "-65536",    // KiB, as a negative number
	"mmap_size":    "268435456", // bytes
}

// tuning is the dynamic configuration.
func tuning() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// One partition: there is one matching host, and a task that lands in another partition than the poll is forwarded.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
	}
}
