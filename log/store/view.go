package store

import (
	"errors"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/remitlog/remit/log"
)

var errReadOnly = errors.New("store: read-only")

// View opens, for reading, what of a refused store comes before the place where it does not hold. It copies, changes and
// deletes nothing. What it shows is old, may have holes, and is for a report, not for use. cause may be nil.
func View(dir string, o Options, cause *log.CorruptError) (*pebble.DB, error) {
	o.EnsureDefaults()
	o.ReadOnly = true
	stop := newStopper(func(error) {})
	po := o.pebble(&viewFS{FS: o.FS, cause: cause}, stop)
	po.DisableConsistencyCheck = true // a table may be missing: it is found when it is read
	return openPebble(dir, po, stop)
}

// viewFS refuses all writing, and shows the file in doubt only up to its first byte in doubt, and no later WALs:
// they may build on what is not there.
type viewFS struct {
	vfs.FS
	cause *log.CorruptError
}

func (v *viewFS) Unwrap() vfs.FS { return v.FS }

func (v *viewFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := v.FS.Open(name, opts...)
	if err != nil || v.cause == nil || v.PathBase(name) != v.cause.File || v.cause.Byte < 0 {
		return f, err
	}
	return &cutFile{File: f, end: v.cause.Byte}, nil
}

func (v *viewFS) List(dir string) ([]string, error) {
	names, err := v.FS.List(dir)
	kept := names[:0]
	for _, n := range names {
		if !v.hidden(n) {
			kept = append(kept, n)
		}
	}
	return kept, err
}

func (v *viewFS) hidden(name string) bool {
	if v.cause == nil {
		return false
	}
	bad, _, isLog := wal.ParseLogFilename(v.cause.File)
	n, _, ok := wal.ParseLogFilename(name)
	return isLog && ok && n > bad
}

func (v *viewFS) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, errReadOnly }
func (v *viewFS) Link(string, string) error                              { return errReadOnly }
func (v *viewFS) Remove(string) error                                    { return errReadOnly }
func (v *viewFS) RemoveAll(string) error                                 { return errReadOnly }
func (v *viewFS) Rename(string, string) error                            { return errReadOnly }
func (v *viewFS) MkdirAll(string, os.FileMode) error                     { return errReadOnly }
func (v *viewFS) Lock(string) (io.Closer, error)                         { return io.NopCloser(nil), nil }
func (v *viewFS) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, errReadOnly
}
func (v *viewFS) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, errReadOnly
}

// cutFile ends before its end.
type cutFile struct {
	vfs.File
	at, end int64
}

func (f *cutFile) Read(p []byte) (int, error) {
	if f.at >= f.end {
		return 0, io.EOF
	}
	n, err := f.File.Read(p[:min(int64(len(p)), f.end-f.at)])
	f.at += int64(n)
	return n, err
}

func (f *cutFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.end {
		return 0, io.EOF
	}
	n, err := f.File.ReadAt(p[:min(int64(len(p)), f.end-off)], off)
	if n < len(p) && err == nil {
		err = io.EOF
	}
	return n, err
}

func (f *cutFile) Fd() uintptr { return vfs.InvalidFd }
