package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/remitlog/remit/log"
)

// doubtSuffix is what a file is renamed to that is set aside by Adopt. Pebble does not look at such files.
const doubtSuffix = ".doubt"

// setAside makes a WAL end before its first byte in doubt, and sets it and all later ones aside as they are. Of other files
// Pebble knows itself what it cannot do without.
func setAside(fs vfs.FS, dir string, c *log.CorruptError) error {
	bad, _, ok := wal.ParseLogFilename(c.File)
	if !ok {
		return nil
	}
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if num, _, ok := wal.ParseLogFilename(n); ok && num > bad {
			path := fs.PathJoin(dir, n)
			err = errors.Join(err, fs.Rename(path, path+doubtSuffix))
		}
	}
	if err := errors.Join(err, cut(fs, fs.PathJoin(dir, c.File), c.Byte), syncDir(fs, dir)); err != nil {
		return fmt.Errorf("store: set %s aside: %w", c.File, err)
	}
	return nil
}

// cut leaves the first n bytes of a file under its name, and all of it under another.
func cut(fs vfs.FS, path string, n int64) error {
	b, err := readAll(fs, path)
	if err != nil || n <= 0 { // missing, or nothing of it holds
		return errors.Join(ignoreMissing(err), ignoreMissing(fs.Rename(path, path+doubtSuffix)))
	}
	f, err := fs.Create(path+".cut", "remit-adopt")
	if err != nil {
		return err
	}
	_, err = f.Write(b[:min(n, int64(len(b)))])
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(fs.Rename(path, path+doubtSuffix), fs.Rename(path+".cut", path))
}

func ignoreMissing(err error) error {
	if oserror.IsNotExist(err) {
		return nil
	}
	return err
}
