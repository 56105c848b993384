package store

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/remitlog/remit/log"
)

// tables makes a store with several tables, and returns its files and the names of the tables.
func tables(t *testing.T) (files map[string]string, names []string) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, "s", testOptions(t, fs))
	for i := range 3 {
		put(t, s, 100*i, 100*i+100)
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	files = snapshot(t, kill(fs), "s")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(n, ".sst") {
			names = append(names, n)
		}
	}
	if len(names) < 3 {
		t.Fatal("too few tables:", names)
	}
	return files, names
}

// refusedFor opens a store that must be refused for one file, and must not change by it.
func refusedFor(t *testing.T, fs vfs.FS, file string) *log.CorruptError {
	t.Helper()
	before := snapshot(t, fs, "s")
	_, err := Open("s", testOptions(t, fs))
	c := (*log.CorruptError)(nil)
	if !errors.As(err, &c) || c.File != file || !strings.Contains(c.Detail, "restore a copy") {
		t.Fatalf("without %s: %v", file, err)
	}
	after := snapshot(t, fs, "s")
	delete(before, LedgerName) // it was written anew, and says the same
	delete(after, LedgerName)
	if !maps.Equal(before, after) {
		t.Fatalf("without %s: the refused start has changed files: %v, %v", file, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	}
	return c
}

// A table that is missing or short is named at the start. Put back, it is all there.
func TestLostTables(t *testing.T) {
	files, names := tables(t)
	for _, name := range names {
		without := maps.Clone(files)
		delete(without, name)
		fs := restore(t, "s", without)
		if c := refusedFor(t, fs, name); c.Byte != -1 || !strings.HasPrefix(c.Detail, "missing;") {
			t.Error(c)
		}
		whole := snapshot(t, fs, "s")
		whole[name] = files[name]
		s := mustOpen(t, "s", testOptions(t, restore(t, "s", whole)))
		if n := count(t, s); n != 300 {
			t.Error("put back:", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}

		short := maps.Clone(files)
		short[name] = short[name][:len(short[name])-1]
		if c := refusedFor(t, restore(t, "s", short), name); c.Byte != int64(len(short[name])) {
			t.Error(c)
		}
	}
	none := maps.Clone(files)
	for _, name := range names {
		delete(none, name)
	}
	c := refusedFor(t, restore(t, "s", none), names[0])
	if !strings.Contains(c.Detail, "2 other tables") {
		t.Error(c)
	}
}

// A view of a store without a table shows what lies before it.
func TestViewWithoutTable(t *testing.T) {
	files, names := tables(t)
	delete(files, names[1])
	db, err := View("s", testOptions(t, restore(t, "s", files)), &log.CorruptError{File: names[1], Byte: -1})
	if err != nil {
		t.Fatal(err)
	}
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for it.First(); it.Valid(); it.Next() {
		n++
	}
	c := (*log.CorruptError)(nil)
	if err := AsCorrupt(it.Close()); n != 100 || !errors.As(err, &c) || c.File != names[1] {
		t.Error(n, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// The markers say which MANIFEST is current, and in which format the store is.
func TestLostMarkers(t *testing.T) {
	files, _ := tables(t)
	for _, marker := range []string{"marker.manifest", "marker.format-version"} {
		without := maps.Clone(files)
		maps.DeleteFunc(without, func(n, _ string) bool { return strings.HasPrefix(n, marker+".") })
		refusedFor(t, restore(t, "s", without), marker)
	}
}

// An OPTIONS file that was cut off is named too; one that is gone holds nothing that a start needs.
func TestBadOptions(t *testing.T) {
	files, _ := tables(t)
	all := slices.Sorted(maps.Keys(files))
	i := slices.IndexFunc(all, func(n string) bool { return strings.HasPrefix(n, "OPTIONS-") })
	for ; i < len(all) && strings.HasPrefix(all[i], "OPTIONS-"); i++ { // the newest is read
	}
	name := all[i-1]
	short := maps.Clone(files)
	short[name] = short[name][:strings.Index(short[name], "block_restart_interval")+5]
	refusedFor(t, restore(t, "s", short), name)

	gone := maps.Clone(files)
	delete(gone, name)
	s := mustOpen(t, "s", testOptions(t, restore(t, "s", gone)))
	if n := count(t, s); n != 300 {
		t.Error(n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A table that goes missing after the start is named to Fatal, and to who reads.
func TestTableLostLater(t *testing.T) {
	files, names := tables(t)
	fatal := make(chan error, 10)
	o := testOptions(t, errorfs.Wrap(restore(t, "s", files), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpOpen && filepath.Base(op.Path) == names[1] {
			return os.ErrNotExist
		}
		return nil
	})))
	o.Fatal = func(err error) { fatal <- err }
	s := mustOpen(t, "s", o)
	_, closer, err := s.Get(key(150))
	if err == nil {
		_ = closer.Close()
	}
	for _, err := range []error{AsCorrupt(err), <-fatal} {
		c := (*log.CorruptError)(nil)
		if !errors.As(err, &c) || c.File != names[1] || c.Detail != "missing; put it back, or restore a copy" {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
