package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// witnessFS notes in a ledger, after each successful sync of a WAL or MANIFEST, how much of it was synced and its
// CRC32C. All else passes through.
//
// What may change or take away a watched file drops its claim first, durably; see ledger. Recycled
// WALs (ReuseForWrite) are such a case: the old name's claim is dropped before the rename, and the new
// name has none until Pebble, after it has synced the directory, has written and synced the file
// from its start; the stale tail lies beyond every claim. Preallocation does not move the end of what
// was written, so zeros at the tail lie beyond every claim too.
//
// What is claimed is in its directory. Of a WAL Pebble sees to it: it syncs the directory before it writes. Of a
// MANIFEST it does not: it makes the MANIFEST, syncs it, makes the marker that names it, and only then syncs the
// directory. A power cut in between may keep the marker and lose the MANIFEST, and Pebble opens no more. So
// the directory is synced with a MANIFEST's first sync.
type witnessFS struct {
	vfs.FS
	ledger *ledger
	held   *removals
	stop   *stopper
}

// watched reports whether a file's loss would be silent.
func watched(base string) bool {
	return strings.HasPrefix(base, "MANIFEST-") || strings.HasSuffix(base, ".log")
}

// Unwrap returns the file system below.
func (w *witnessFS) Unwrap() vfs.FS { return w.FS }

// drop takes back the claims of those names that are watched.
func (w *witnessFS) drop(names ...string) error {
	var bases []string
	for _, n := range names {
		if b := w.PathBase(n); watched(b) {
			bases = append(bases, b)
		}
	}
	if bases == nil {
		return nil
	}
	if err := w.ledger.drop(bases...); err != nil {
		err = fmt.Errorf("store: sync of %s failed: %w", LedgerName, err)
		w.stop.stop(err) // Pebble goes on when it cannot remove a file
		return err
	}
	return nil
}

// Create makes a file anew and watches it.
func (w *witnessFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := w.drop(name); err != nil {
		return nil, err
	}
	w.held.live(name)
	return w.watch(name)(w.FS.Create(name, c))
}

// ReuseForWrite recycles a file under a new name.
func (w *witnessFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := w.drop(oldname, newname); err != nil {
		return nil, err
	}
	w.held.live(newname)
	return w.watch(newname)(w.FS.ReuseForWrite(oldname, newname, c))
}

// OpenReadWrite gives up watching: the file may be changed anywhere.
func (w *witnessFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := w.drop(name); err != nil {
		return nil, err
	}
	return w.FS.OpenReadWrite(name, c, opts...)
}

// Remove drops the claim, then the file; while removals are held, it is done when they are not.
func (w *witnessFS) Remove(name string) error {
	if w.held.hold(name) {
		return nil
	}
	if err := w.drop(name); err != nil {
		return err
	}
	return w.FS.Remove(name)
}

// Rename drops the claims of both names.
func (w *witnessFS) Rename(oldname, newname string) error {
	if err := w.drop(oldname, newname); err != nil {
		return err
	}
	w.held.live(newname)
	return w.FS.Rename(oldname, newname)
}

// Link leaves the old name's bytes as they are. The new name must not exist, so that nothing is claimed of it.
func (w *witnessFS) Link(oldname, newname string) error {
	w.held.live(newname)
	return w.FS.Link(oldname, newname)
}

// trust ends the holding: what was to be removed is.
func (w *witnessFS) trust() error {
	var errs []error
	for _, name := range w.held.end() {
		if err := w.Remove(name); err != nil && !oserror.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removals are those that are held back while a store is opened: a start that is refused has deleted nothing. A nil one holds none.
type removals struct {
	mu    sync.Mutex
	ended bool
	names []string
}

// hold reports whether the removal of a file is held back.
func (r *removals) hold(name string) bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended && !slices.Contains(r.names, name) {
		r.names = append(r.names, name)
	}
	return !r.ended
}

// live forgets a removal: the name stands for another file now.
func (r *removals) live(name string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = slices.DeleteFunc(r.names, func(n string) bool { return n == name })
}

func (r *removals) end() []string {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	names := r.names
	r.names = nil
	return names
}

// Lock passes through; it is here because a lock file may match no pattern of ours, and must not.
func (w *witnessFS) Lock(name string) (io.Closer, error) { return w.FS.Lock(name) }

func (w *witnessFS) watch(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		base := w.PathBase(name)
		if err != nil || !watched(base) {
			return f, err
		}
		wf := &witnessFile{File: f, name: base, ledger: w.ledger}
		if strings.HasPrefix(base, "MANIFEST-") {
			wf.place = func() error { return syncDir(w.FS, w.PathDir(name)) }
		}
		return wf, nil
	}
}

// witnessFile is a watched file, written from its start on.
type witnessFile struct {
	vfs.File
	name   string
	ledger *ledger
	place  func() error // makes its place in the directory durable; nil once it is

	mu     sync.Mutex // a sync may run beside a write
	length int64
	crc    uint32
}

// Write appends, and keeps the checksum. It is taken first: a file may change what it is given.
func (f *witnessFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	crc := crc32.Update(f.crc, castagnoli, p)
	n, err := f.File.Write(p)
	if n == len(p) {
		f.crc, f.length = crc, f.length+int64(n)
		return n, err
	}
	// A short write leaves bytes that nobody knows. Pebble gives the file up; claims stay at what was synced before.
	f.length = -1
	return n, err
}

// Sync, SyncData and a SyncTo that synced all note what was written before they began.
func (f *witnessFile) Sync() error { return f.noting(f.File.Sync) }

// SyncData is Sync without the file's times.
func (f *witnessFile) SyncData() error { return f.noting(f.File.SyncData) }

// SyncTo promises nothing unless it says that it synced all.
func (f *witnessFile) SyncTo(length int64) (full bool, err error) {
	n, crc := f.written()
	if full, err = f.File.SyncTo(length); err == nil && full {
		err = f.note(n, crc)
	}
	return full, err
}

func (f *witnessFile) noting(sync func() error) error {
	n, crc := f.written()
	if err := sync(); err != nil {
		return err
	}
	return f.note(n, crc)
}

func (f *witnessFile) written() (int64, uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.length, f.crc
}

func (f *witnessFile) note(n int64, crc uint32) error {
	if n <= 0 {
		return nil
	}
	if f.place != nil {
		if err := f.place(); err != nil {
			return err
		}
		f.place = nil
	}
	return f.ledger.note(f.name, n, crc)
}
