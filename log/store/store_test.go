package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/remitlog/remit/log"
)

func testOptions(t *testing.T, fs vfs.FS) Options {
	return Options{FS: fs, MemTableBytes: MemTableBytesMin, CacheBytes: 1 << 20,
		Fatal: func(err error) { t.Helper(); t.Errorf("fatal: %v", err) }}
}

func mustOpen(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func put(t *testing.T, s *Store, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Set(key(i), []byte(strings.Repeat(fmt.Sprint(i), 50)), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
}

func count(t *testing.T, s *Store) (n int) {
	t.Helper()
	it, err := s.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for it.First(); it.Valid(); it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOpenTwiceAndAgain(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	s := mustOpen(t, "a/b/c", o)
	if s.FormatMajorVersion() != Format {
		t.Fatal(s.FormatMajorVersion())
	}
	put(t, s, 0, 3000) // some memtables, so that WALs rotate and are recycled
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, "a/b/c", o)
	defer func() { _ = s.Close() }()
	if n := count(t, s); n != 3000 {
		t.Fatal(n)
	}
}

// What a store makes is readable by its user alone, the directories above it too; one that was there stays as it is.
func TestDirIsPrivate(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	if err := os.Mkdir(there, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(there, "data", "log")
	if err := mustOpen(t, dir, testOptions(t, vfs.Default)).Close(); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[string]os.FileMode{there: 0o755, filepath.Dir(dir): 0o700, dir: 0o700} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", d, info.Mode().Perm(), err, want)
		}
	}
}

// S3.
func TestLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "disk": vfs.Default} {
		dir := filepath.Join(t.TempDir(), "s")
		s := mustOpen(t, dir, testOptions(t, fs))
		_, err := Open(dir, testOptions(t, fs))
		if !errors.Is(err, log.ErrLocked) || !strings.Contains(err.Error(), dir) {
			t.Fatal(name, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := mustOpen(t, dir, testOptions(t, fs)).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{MemTableBytes: 1}, {BlockBytes: 1}, {BallastBytes: -1}, {ReadOnly: true, Adopt: true}} {
		if _, err := Open(t.TempDir(), o); err == nil || !strings.HasPrefix(err.Error(), "store: ") {
			t.Error(o.String(), err)
		}
	}
}

// Bloom filters answer for keys that are not there also in the last level.
func TestFiltersOfTheLastLevel(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	o.Filters, o.DisableWAL = true, true
	s := mustOpen(t, "s", o)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		if err := s.Set(binary.BigEndian.AppendUint64(nil, rng.Uint64()), make([]byte, 60), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Flush(), s.Compact(t.Context(), []byte{0}, []byte{255, 255}, false)); err != nil {
		t.Fatal(err)
	}
	if s.Metrics().Levels[6].TablesCount == 0 {
		t.Fatal("nothing in the last level")
	}
	before := s.Metrics().Filter.Hits
	for range 1000 {
		it, err := s.NewIter(&pebble.IterOptions{UseL6Filters: true})
		if err != nil {
			t.Fatal(err)
		}
		it.SeekPrefixGE(binary.BigEndian.AppendUint64(nil, rng.Uint64()))
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if hits := s.Metrics().Filter.Hits - before; hits < 900 {
		t.Fatalf("the filter answered %d of 1000", hits)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Filters = false
	if _, err := Open("s", o); err == nil {
		t.Fatal("opened under another comparer")
	}
}

// kill is what a kill -9 leaves: all that was written, synced or not.
func kill(fs *vfs.MemFS) *vfs.MemFS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// snapshot is the content of every file.
func snapshot(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, n := range names {
		if n == "LOCK" {
			continue
		}
		b, err := readAll(fs, fs.PathJoin(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		m[n] = string(b)
	}
	return m
}

func restore(t *testing.T, dir string, m map[string]string) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n, b := range m {
		f, err := fs.Create(fs.PathJoin(dir, n), "test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(b)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// S1: every flipped bit of the synced bytes of WALs and MANIFEST is named, with file and a byte that is not after it;
// the failed start changes nothing, and a view opens.
func TestFlippedBitsAreNamed(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, "s", testOptions(t, fs))
	put(t, s, 0, 2500)
	killed := snapshot(t, kill(fs), "s")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	desc, err := pebble.Peek("s", restore(t, "s", killed))
	if err != nil {
		t.Fatal(err)
	}
	current := filepath.Base(desc.ManifestFilename)
	state, ok, _, _ := readLedger(restore(t, "s", killed), "s/"+LedgerName)
	if !ok || !state.born {
		t.Fatal(state)
	}
	flips := 0
	for _, c := range state.claims {
		if strings.HasPrefix(c.name, "MANIFEST") && c.name != current {
			continue
		}
		if c.length == 0 || c.length > int64(len(killed[c.name])) {
			t.Fatal(c, len(killed[c.name]))
		}
		for at := int64(0); at < c.length; at += max(1, c.length/16) {
			testFlip(t, killed, c.name, at)
			flips++
		}
	}
	if flips < 30 {
		t.Fatal("hardly a flip", flips)
	}
}

func testFlip(t *testing.T, killed map[string]string, name string, at int64) {
	t.Helper()
	b := []byte(killed[name])
	b[at] ^= 1 << (at % 8)
	m := map[string]string{}
	for n, v := range killed {
		m[n] = v
	}
	m[name] = string(b)
	fs := restore(t, "s", m)
	before := snapshot(t, fs, "s")
	_, err := Open("s", testOptions(t, fs))
	var c *log.CorruptError
	if !errors.As(err, &c) || c.File != name || c.Byte > at || c.Byte < 0 {
		t.Fatalf("%s flipped at %d: %v", name, at, err)
	}
	after := snapshot(t, fs, "s")
	if len(after) != len(before) {
		t.Fatal("files came or went", len(before), len(after))
	}
	for n := range before {
		if before[n] != after[n] {
			t.Fatal("changed:", n)
		}
	}
	if db, err := View("s", testOptions(t, fs), c); err == nil {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMissingFiles(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, "s", testOptions(t, fs))
	put(t, s, 0, 100)
	killed := snapshot(t, kill(fs), "s")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	gone := 0
	for name := range killed {
		m := map[string]string{}
		for n, v := range killed {
			if n != name {
				m[n] = v
			}
		}
		o := testOptions(t, restore(t, "s", m))
		s, err := Open("s", o)
		if err == nil { // it did not matter, then
			if n := count(t, s); n != 100 {
				t.Fatalf("without %s: %d of 100, in silence", name, n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		gone++
		if name == LedgerName {
			o.Adopt = true
			s := mustOpen(t, "s", o)
			if n := count(t, s); n != 100 {
				t.Fatal("adopted", n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if gone < 3 {
		t.Fatal("the loss of a WAL, a MANIFEST, its marker and the witness is noticed; noticed", gone)
	}
}

// Power cuts at any time, with any part of what was not synced: what was acknowledged is there, and a start
// is never refused. The witness must not claim more than what the disk kept.
func TestPowerCuts(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 7))
		fs := vfs.NewCrashableMem()
		acked := 0
		for round := range 3 {
			o := testOptions(t, fs)
			o.DisableWAL = false
			s := mustOpen(t, "s", o)
			if n := count(t, s); n < acked {
				t.Fatalf("seed %d round %d: %d of %d", seed, round, n, acked)
			}
			n := acked + rng.IntN(900)
			for i := acked; i < n; i++ {
				put(t, s, i, i+1)
				if rng.IntN(100) == 0 {
					s.flushWitness()
				}
			}
			acked = n
			if rng.IntN(3) == 0 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			next := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			fs = next
		}
	}
}

// Power cuts ahead of each change of a directory and each sync, while a store is made, written and flushed: a start is
// never refused, and what was acknowledged is there.
func TestPowerCutAtEveryStep(t *testing.T) {
	for step, more := 1, true; more; step++ {
		rng := rand.New(rand.NewPCG(uint64(step), 9))
		fs := vfs.NewCrashableMem()
		var cuts []*vfs.MemFS
		var acked, atCut, steps atomic.Int32
		o := testOptions(t, &cutFS{FS: fs, before: func() {
			if steps.Add(1) == int32(step) {
				atCut.Store(acked.Load())
				for range 3 { // that the disk kept this half, or that
					cuts = append(cuts, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
				}
			}
		}})
		s := mustOpen(t, "x/s", o)
		for i := range 6 {
			put(t, s, i, i+1)
			acked.Store(int32(i + 1))
			if i%3 == 2 {
				s.flushWitness()
			}
			if i == 3 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		more = cuts != nil
		for _, cut := range cuts {
			reopenCut(t, cut, step, int(atCut.Load()))
		}
	}
}

func reopenCut(t *testing.T, cut *vfs.MemFS, step, acked int) {
	t.Helper()
	s, err := Open("x/s", testOptions(t, cut))
	if err != nil {
		t.Fatalf("step %d: %v", step, err)
	}
	if n := count(t, s); n < acked {
		t.Fatalf("step %d: %d of %d", step, n, acked)
	}
	put(t, s, 100, 105)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// cutFS calls before ahead of everything that changes a directory, and of every sync.
type cutFS struct {
	vfs.FS
	before func()
}

func (c *cutFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return f, err
	}
	return &cutSync{f, c.before}, nil
}

func (c *cutFS) Create(n string, k vfs.DiskWriteCategory) (vfs.File, error) {
	c.before()
	return c.wrap(c.FS.Create(n, k))
}
func (c *cutFS) ReuseForWrite(a, b string, k vfs.DiskWriteCategory) (vfs.File, error) {
	c.before()
	return c.wrap(c.FS.ReuseForWrite(a, b, k))
}
func (c *cutFS) OpenReadWrite(n string, k vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return c.wrap(c.FS.OpenReadWrite(n, k, o...))
}
func (c *cutFS) OpenDir(n string) (vfs.File, error) { return c.wrap(c.FS.OpenDir(n)) }
func (c *cutFS) Rename(a, b string) error           { c.before(); return c.FS.Rename(a, b) }
func (c *cutFS) Remove(a string) error              { c.before(); return c.FS.Remove(a) }

type cutSync struct {
	vfs.File
	before func()
}

func (c *cutSync) Sync() error     { c.before(); return c.File.Sync() }
func (c *cutSync) SyncData() error { c.before(); return c.File.SyncData() }

// INVARIANT (one is whole): torn slots are older claims, whichever they are.
func TestLedgerTorn(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l, err := openLedger(fs, "", ledgerState{}, true)
	if err != nil {
		t.Fatal(err)
	}
	flushed := int64(0)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := int64(1); i < 500; i++ {
		if err := l.note("000001.log", i, uint32(i)); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(5) == 0 {
			if err := l.flush(); err != nil {
				t.Fatal(err)
			}
			flushed = i
		}
		cut := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		b, err := readAll(cut, LedgerName)
		if err != nil {
			t.Fatal(err)
		}
		for j := range 100 { // tear what is being written
			b[l.slot*ledgerSlotBytes+j] ^= byte(rng.Uint32()) & byte(rng.IntN(2)*255)
		}
		s, ok, _, err := readLedger(restore(t, "", map[string]string{LedgerName: string(b)}), LedgerName)
		if err != nil || !ok && flushed > 0 {
			t.Fatal(i, err, ok)
		}
		if got := int64(len(s.claims)); flushed > 0 && (got != 1 || s.claims[0].length < flushed || s.claims[0].length > i) {
			t.Fatalf("noted %d, flushed %d, claims %v", i, flushed, s.claims)
		}
	}
}

// S2: a failed sync reaches Fatal, and Open returns.
func TestFailedSyncWhileOpening(t *testing.T) {
	boom := errors.New("boom")
	fatal := make(chan error, 1)
	o := testOptions(t, &badSyncFS{vfs.NewMem(), boom})
	o.Fatal = func(err error) { fatal <- err }
	if _, err := Open("s", o); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Fatal(err)
	}
	if err := <-fatal; !strings.Contains(err.Error(), "boom") {
		t.Fatal(err)
	}
}

type badSyncFS struct {
	vfs.FS
	err error
}

func (b *badSyncFS) Create(n string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := b.FS.Create(n, c)
	if err == nil && strings.HasPrefix(b.PathBase(n), "MANIFEST") {
		return &badSync{f, b.err}, nil
	}
	return f, err
}

type badSync struct {
	vfs.File
	err error
}

func (b *badSync) Sync() error { return b.err }

// A write that meets a full disk gives the ballast up, and goes on.
func TestBallast(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, BallastName)
	var full atomic.Bool
	o := testOptions(t, errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && full.Load() {
			if _, err := os.Stat(path); err == nil {
				return syscall.ENOSPC // as long as the ballast takes the room
			}
		}
		return nil
	})))
	o.BallastBytes = 1 << 20
	s := mustOpen(t, dir, o)
	defer func() { _ = s.Close() }()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := st.Sys().(*syscall.Stat_t).Blocks * 512; blocks < 1<<20 {
		t.Skip("this file system does not reserve room:", blocks)
	}
	full.Store(true)
	put(t, s, 0, 10)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("the ballast is still there", err)
	}
}
