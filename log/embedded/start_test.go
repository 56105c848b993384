package embedded_test

import (
	"errors"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/logtest"
)

// stopped is a log with one record, as a stop or a kill leaves it.
func stopped(t *testing.T, kill bool) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewCrashableMem()
	l := open(t, options(t, mem))
	withTopic(t, l, 1)
	_, err := l.Append(ctx, rec(0, "v"))
	must(t, err)
	left := mem.CrashClone(vfs.CrashCloneCfg{})
	must(t, l.Close())
	if !kill {
		left = mem.CrashClone(vfs.CrashCloneCfg{})
	}
	return left
}

// started opens the log of stopped on a bad disk, and then on a good one, which must have all of it. It returns what the bad start said.
func started(t *testing.T, disk *logtest.Disk, mem *vfs.MemFS) (fatal int, opened error) {
	t.Helper()
	told := make(chan error, 100)
	o := options(t, disk.FS(mem))
	o.Fatal = func(err error) { told <- err }
	l, opened := embedded.Open(o)
	if opened == nil {
		err := l.Close()
		if fatal = len(told); (err != nil) != (fatal > 0) {
			t.Errorf("closed: %v; Fatal was told %d times", err, fatal)
		}
	} else if fatal = len(told); fatal > 0 {
		t.Errorf("Open returned %v, and Fatal was told %v", opened, <-told)
	}
	l = open(t, options(t, mem.CrashClone(vfs.CrashCloneCfg{})))
	if _, vs := readAll(t, l, part(0)); len(vs) != 1 {
		t.Error(vs)
	}
	must(t, l.Close())
	return fatal, opened
}

// E6 at the start: whichever sync fails, Open returns and says which, or Fatal is told of what came after.
func TestFailedSyncAtStart(t *testing.T) {
	for _, kill := range []bool{false, true} {
		n, refused, disk := 0, 0, &logtest.Disk{}
		for more := true; more; more = disk.Failed() {
			n++
			mem := stopped(t, kill)
			disk = &logtest.Disk{}
			disk.FailSync(n)
			fatal, opened := started(t, disk, mem)
			switch {
			case opened != nil && !strings.Contains(opened.Error(), logtest.ErrInjected.Error()):
				t.Errorf("sync %d: %v", n, opened)
			case opened != nil:
				refused++
			case fatal > 1 || fatal == 0 && disk.Failed():
				t.Errorf("sync %d: Fatal was told %d times", n, fatal)
			}
		}
		if refused < 5 {
			t.Error("hardly a sync of the start:", refused)
		}
	}
}

// A start that finds no room at all is refused, and the next is not. It never hangs.
func TestNoRoomAtStart(t *testing.T) {
	refused, came := 0, 0
	for n := range int64(40) {
		mem := stopped(t, true)
		disk := &logtest.Disk{}
		disk.FillUp(n + 1)
		switch _, opened := started(t, disk, mem); {
		case opened == nil:
			came++
		case strings.Contains(opened.Error(), syscall.ENOSPC.Error()): // Pebble wraps some of it as text
			refused++
		default:
			t.Errorf("write %d: %v", n+1, opened)
		}
	}
	if refused == 0 || came == 0 {
		t.Error(refused, came)
	}
}

// E7 at the start: a log on a full disk is opened and read. Its epoch goes with the first append that has room.
func TestStartOnFullDisk(t *testing.T) {
	for name, first := range map[string]func(*embedded.Log) error{
		"append": func(l *embedded.Log) error { _, err := l.Append(ctx, rec(0, "v")); return err },
		"raw":    func(l *embedded.Log) error { _, err := sent(l, wire(7, 0, 0, "v")); return err },
		"notes":  func(l *embedded.Log) error { return l.PutNotes(ctx, note("k", "v")) },
		"epoch":  func(l *embedded.Log) error { _, err := l.OwnEpoch(); return err },
	} {
		t.Run(name, func(t *testing.T) { startOnFullDisk(t, first) })
	}
}

func startOnFullDisk(t *testing.T, first func(*embedded.Log) error) {
	disk, mem, clock := &logtest.Disk{}, vfs.NewCrashableMem(), logtest.NewClock(time.Now())
	var free uint64 = 1 << 40
	o := options(t, disk.FS(mem))
	o.Clock, o.Free = clock.Now, func() (uint64, error) { return free, nil }
	l := open(t, o)
	withTopic(t, l, 1)
	_, err := l.Append(ctx, rec(0, "before"))
	must(t, err)
	before := l.Epoch()
	must(t, l.Close())

	free = 1
	clock.Advance(time.Hour)
	l = open(t, o)
	if _, vs := readAll(t, l, part(0)); len(vs) != 1 {
		t.Error(vs)
	}
	if err := first(l); !errors.Is(err, log.ErrDiskFull) {
		t.Error(err)
	}
	if _, err := l.OwnEpoch(); !errors.Is(err, log.ErrDiskFull) || l.Epoch() != before {
		t.Fatal(err, l.Epoch(), before)
	}
	free = 1 << 40
	clock.Advance(time.Second)
	arrived, release := disk.HoldSyncs()
	done := make(chan error, 1)
	go func() { done <- first(l) }()
	<-arrived
	if l.Epoch() != before {
		t.Error("an epoch is told that is not durable")
	}
	release()
	must(t, <-done)
	own := l.Epoch()
	if again, err := l.OwnEpoch(); err != nil || again != own || own <= before {
		t.Error(again, err, own, before)
	}
	cut := mem.CrashClone(vfs.CrashCloneCfg{})
	_, err = l.Append(ctx, rec(0, "after"))
	must(t, err)
	rows, err := l.ReadBatches(ctx, part(0), 1, math.MaxInt)
	must(t, err)
	if b, _, err := log.ParseBatch(rows); err != nil || b.Epoch() != own {
		t.Error(err, b.Epoch(), own)
	}
	if e, end, err := l.EpochEnd(ctx, part(0), before); err != nil || e != before || end != 1 {
		t.Error(e, end, err)
	}
	must(t, l.Close())

	clock.Advance(-24 * time.Hour)
	o.FS = cut
	l = open(t, o)
	if l.Epoch() <= own {
		t.Errorf("epoch %d after %d", l.Epoch(), own)
	}
	must(t, l.Close())
}
