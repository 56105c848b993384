package store

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/remitlog/remit/log/logtest"
)

// ended is how a store came to its end.
type ended struct {
	opened error // what Open returned
	fatal  []error
	closed error
	synced int // so many rows were acknowledged
}

// rowsUntil is enough for several WALs, tables and MANIFEST edits.
const rowsUntil = 40

// live opens a store, writes rows until that is done or the store has stopped, and closes it.
func live(t *testing.T, fs vfs.FS) (e ended) {
	t.Helper()
	o := testOptions(t, fs)
	fatal := make(chan error, 100)
	o.Fatal = func(err error) { fatal <- err }
	stopped := func() (some bool) {
		for len(fatal) > 0 {
			e.fatal = append(e.fatal, <-fatal)
		}
		return len(e.fatal) > 0
	}
	s, err := Open("s", o)
	if e.opened = err; err != nil {
		stopped()
		return e
	}
	var synced atomic.Int64
	var quit atomic.Bool
	written := make(chan error, 1)
	go func() {
		rng := rand.NewChaCha8([32]byte{})
		for i := 0; i < rowsUntil && !quit.Load(); i++ {
			value := make([]byte, 40<<10)
			_, _ = rng.Read(value)
			// Most syncs of a WAL that a writer does not wait for are those that end it.
			how := pebble.NoSync
			if i%9 == 0 {
				how = pebble.Sync
			}
			if err := s.Set(key(i), value, how); err != nil {
				written <- err
				return
			}
			if how.Sync {
				synced.Store(int64(i + 1))
			}
		}
		written <- s.Flush()
	}()
	select {
	case err := <-written:
		if err != nil && !stopped() {
			t.Fatal(err)
		}
	case err := <-fatal:
		e.fatal = append(e.fatal, err)
		quit.Store(true)
		select { // the writer may be held itself
		case <-written:
		case <-s.stop.held:
		}
	}
	e.synced = int(synced.Load())
	e.closed = s.Close()
	stopped()
	return e
}

// S2: whichever sync fails, of a file or of a directory, Fatal is told once, Pebble never hears of it, Close returns, and what was
// acknowledged is there.
func TestFailedSyncAtEveryStep(t *testing.T) {
	steps := 0
	for more := true; more; {
		steps++
		disk, mem := &logtest.Disk{}, vfs.NewCrashableMem()
		disk.FailSync(steps)
		e := live(t, disk.FS(mem))
		if more = disk.Failed(); !more {
			if e.opened != nil || e.closed != nil || e.fatal != nil {
				t.Fatal(e)
			}
			break
		}
		err := errors.Join(e.opened, e.closed)
		if err == nil || !strings.Contains(err.Error(), logtest.ErrInjected.Error()) {
			t.Fatalf("sync %d: %v", steps, err)
		}
		if len(e.fatal) > 1 {
			t.Fatalf("sync %d: Fatal was told %d times: %v", steps, len(e.fatal), e.fatal)
		}
		if len(e.fatal) == 0 && e.opened == nil {
			t.Fatalf("sync %d: Fatal was not told", steps)
		}
		s := mustOpen(t, "s", testOptions(t, mem.CrashClone(vfs.CrashCloneCfg{})))
		if n := count(t, s); n < e.synced {
			t.Fatalf("sync %d: %d of %d rows", steps, n, e.synced)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if steps < 60 {
		t.Fatal("hardly a sync:", steps)
	}
}

// S2: no room for what Pebble cannot do without stops the store, too.
func TestNoRoomStops(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  errorfs.OpKind
		file  string
		start int64 // so many of these the start does itself
	}{
		{"making a WAL", errorfs.OpCreate, ".log", 1},
		{"using a WAL again", errorfs.OpReuseForWrite, ".log", 0},
		{"writing a WAL", errorfs.OpFileWrite, ".log", 1},
		{"writing a MANIFEST", errorfs.OpFileWrite, "MANIFEST-", 3},
	} {
		mem := vfs.NewCrashableMem()
		if err := mustOpen(t, "s", testOptions(t, mem)).Close(); err != nil {
			t.Fatal(err)
		}
		var seen atomic.Int64
		e := live(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == c.kind && strings.Contains(op.Path, c.file) && seen.Add(1) > c.start {
				return syscall.ENOSPC
			}
			return nil
		})))
		if e.opened != nil || len(e.fatal) != 1 || !errors.Is(e.fatal[0], syscall.ENOSPC) || e.closed == nil {
			t.Errorf("%s: %+v", c.name, e)
			continue
		}
		s := mustOpen(t, "s", testOptions(t, mem.CrashClone(vfs.CrashCloneCfg{})))
		if n := count(t, s); n < e.synced {
			t.Errorf("%s: %d of %d rows", c.name, n, e.synced)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A file that cannot be made while a store is being opened is an error of Open, and no more: the next try may go well.
func TestNoRoomWhileOpening(t *testing.T) {
	mem := vfs.NewCrashableMem()
	if err := mustOpen(t, "s", testOptions(t, mem)).Close(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{".log", ".dbtmp"} {
		o := testOptions(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpCreate && strings.Contains(op.Path, kind) {
				return syscall.EACCES
			}
			return nil
		})))
		if _, err := Open("s", o); !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: %v", kind, err)
		}
		if err := mustOpen(t, "s", testOptions(t, mem)).Close(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
