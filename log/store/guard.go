package store

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardFS lies between Pebble and all other file systems, and keeps from it the errors that it does not survive.
//
//	Pebble ── guard ── witness ── ballast ── Options.FS
//
// A sync that fails while Pebble changes WALs, moves a marker or writes its MANIFEST makes it panic with locks in its hands. Go then ends
// the process with a trace, whatever recovers. A WAL that cannot be made does the same.
//
// So a failed sync, of a file or of a directory, goes to Fatal and does not return to Pebble: the goroutine is held for ever. So does
// whatever else fails of a WAL or MANIFEST. Of a table Pebble is told that it finds no room: it writes it anew when there is some. While the
// store is being opened it is not told, since it would try for ever what its WALs hold, and Open would not return.
type guardFS struct {
	vfs.FS
	stop *stopper
	// open: the store is open. Before that Pebble takes an error well that meets the making of a file that is no table, and Open returns it.
	open atomic.Bool
}

// Unwrap returns the file system below.
func (g *guardFS) Unwrap() vfs.FS { return g.FS }

// Create makes a file.
func (g *guardFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, c)
	return g.made(name, f, err)
}

// ReuseForWrite recycles a file under a new name.
func (g *guardFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.ReuseForWrite(oldname, newname, c)
	return g.made(newname, f, err)
}

// OpenReadWrite opens a file for changes anywhere.
func (g *guardFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.OpenReadWrite(name, c, opts...)
	return g.made(name, f, err)
}

// OpenDir opens a directory, which Pebble does to sync it.
func (g *guardFS) OpenDir(name string) (vfs.File, error) {
	d, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardFile{File: d, name: "the directory " + name, vital: true, guard: g}, nil
}

func (g *guardFS) made(name string, f vfs.File, err error) (vfs.File, error) {
	base := g.PathBase(name)
	vital, table := watched(base), isTable(base)
	if err != nil {
		if open := g.open.Load(); vital && open || table && !open {
			g.stop.hold(fmt.Errorf("store: %s cannot be made: %w", base, err))
		}
		return nil, err
	}
	return &guardFile{File: f, name: base, vital: vital, table: table, guard: g}, nil
}

// isTable reports whether a flush or a compaction makes a file.
func isTable(base string) bool {
	return strings.HasSuffix(base, ".sst") || strings.HasSuffix(base, ".blob")
}

// guardFile is a file that is written, or a directory.
type guardFile struct {
	vfs.File
	name  string
	vital bool // a WAL, a MANIFEST or a directory: Pebble can do without none of them
	table bool
	guard *guardFS
}

// needed reports whether the store cannot go on without the file.
func (f *guardFile) needed() bool { return f.vital || f.table && !f.guard.open.Load() }

// Write appends. What writes a table, a block a time, is a flush or a compaction, behind which nobody waits: it lets others
// run first. Without that it keeps a processor until Go takes it away, 10 ms later, and of two processors that is felt.
func (f *guardFile) Write(p []byte) (int, error) {
	if !f.vital {
		runtime.Gosched()
	}
	n, err := f.File.Write(p)
	if err != nil && f.needed() {
		f.guard.stop.hold(fmt.Errorf("store: write of %s failed: %w", f.name, err))
	}
	return n, err
}

// Sync makes durable what was written.
func (f *guardFile) Sync() error { return f.synced(f.File.Sync()) }

// SyncData is Sync without the file's times.
func (f *guardFile) SyncData() error { return f.synced(f.File.SyncData()) }

// SyncTo begins to write out, and may sync all.
func (f *guardFile) SyncTo(length int64) (full bool, err error) {
	full, err = f.File.SyncTo(length)
	return full, f.synced(err)
}

// Close closes. What a file system had put off may fail here.
func (f *guardFile) Close() error {
	err := f.File.Close()
	if err != nil && f.needed() {
		f.guard.stop.hold(fmt.Errorf("store: close of %s failed: %w", f.name, err))
	}
	return err
}

func (f *guardFile) synced(err error) error {
	if err != nil && (f.needed() || !vfs.IsNoSpaceError(err)) {
		f.guard.stop.hold(fmt.Errorf("store: sync of %s failed: %w", f.name, err))
	}
	return err
}
