package store

import (
	"errors"
	"log/slog"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// BallastName is the file that holds room back.
const BallastName = "BALLAST"

// withBallast gives the ballast up when a write meets a full disk; the write is tried once more by then. It is the second
// line: the first is not to begin an append below a floor of free space. It is made anew at a later start, once there
// is room.
//
// Each write that finds no room waits a moment: Pebble tries a flush that failed again at once, and would be busy with nothing else.
func withBallast(fs vfs.FS, dir string, bytes int64, l *slog.Logger) vfs.FS {
	path := fs.PathJoin(dir, BallastName)
	if bytes > 0 {
		if err := makeBallast(fs, dir, path, bytes); err != nil {
			l.Warn("store: no ballast", "file", path, "error", err)
		}
	}
	return vfs.OnDiskFull(fs, func() {
		if err := fs.Remove(path); err == nil {
			l.Error("store: the disk is full; the ballast is given up", "file", path)
		}
		time.Sleep(fullPause)
	})
}

// fullPause is how long a write that found no room waits before it is tried again.
const fullPause = 50 * time.Millisecond

func makeBallast(fs vfs.FS, dir, path string, bytes int64) error {
	if _, err := fs.Stat(path); err == nil || !oserror.IsNotExist(err) {
		return err
	}
	u, err := fs.GetDiskUsage(dir)
	if errors.Is(err, vfs.ErrUnsupported) || err == nil && u.AvailBytes < 4*uint64(bytes) {
		return nil // no such disk; or what little there is, is of more use to the log
	}
	if err != nil {
		return err
	}
	f, err := fs.Create(path, "remit-ballast")
	if err != nil {
		return err
	}
	return errors.Join(f.Preallocate(0, bytes), f.Close())
}
