package temporal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"
)

const (
	// checkpointEvery is how often the logs are looked at.
	checkpointEvery = time.Second
	// checkpointBytes is from which size on a log is moved into its database.
	checkpointBytes = 16 << 20
)

// checkpoint moves the write-ahead logs into the databases until ctx ends, on connections of its own, so that no commit
// waits for the disk. The logs stay bounded: SQLite begins them anew when all of one was moved.
func checkpoint(ctx context.Context, dir string, logger log.Logger) error {
	var dbs []*sql.DB
	var paths []string
	defer func() {
		for _, db := range dbs {
			_ = db.Close()
		}
	}()
	for _, name := range []string{mainDatabase, visibilityDatabase} {
		path := filepath.Join(dir, name)
		q := url.Values{"_pragma": {"wal_autocheckpoint=0", "busy_timeout=1000"}, "mode": {"rw"}}
		db, err := sql.Open("sqlite", "file:"+path+"?"+q.Encode())
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		dbs, paths = append(dbs, db), append(paths, path)
	}
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for i, db := range dbs {
			info, err := os.Stat(paths[i] + "-wal")
			if err != nil || info.Size() < checkpointBytes {
				continue
			}
			// PASSIVE waits for nobody and nobody waits for it. The file shrinks at the next commit.
			if _, err := db.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)"); err != nil && !errors.Is(err, context.Canceled) {
				logger.Warn("cannot move the write-ahead log into the database", tag.Error(err), tag.NewStringTag("database", paths[i]))
			}
		}
	}
}
