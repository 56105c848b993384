package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/logtest"
)

var seeds = flag.Int("seeds", 12, "power cuts to try")

var ctx = context.Background()

func options(t *testing.T, fs vfs.FS) embedded.Options {
	return embedded.Options{Dir: "log", FS: fs, MemTableBytes: 256 << 10, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
}

func open(t *testing.T, o embedded.Options) *embedded.Log {
	t.Helper()
	l, err := embedded.Open(o)
	must(t, err)
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func part(i int) log.Partition { return log.Partition{Topic: "t", Index: int32(i)} }

func rec(p int, v string) log.Record { return log.Record{Partition: part(p), Value: []byte(v)} }

func withTopic(t *testing.T, l *embedded.Log, partitions int) {
	t.Helper()
	must(t, l.CreateTopic(ctx, log.TopicConfig{Name: "t", Partitions: partitions}))
}

// readAll returns the values of a partition, and fails unless offsets run without a gap (E4).
func readAll(t *testing.T, l *embedded.Log, p log.Partition) (first log.Offset, values []string) {
	t.Helper()
	first, end, err := l.Bounds(ctx, p)
	must(t, err)
	for at := first; at < end; {
		rs, err := l.Read(ctx, p, at, 64<<10)
		must(t, err)
		for _, r := range rs {
			if r.Offset != at {
				t.Fatalf("%v: offset %d, want %d", p, r.Offset, at)
			}
			values = append(values, string(r.Value))
			at++
		}
	}
	return first, values
}

// E2: while a sync is under way nobody sees its record. Pebble alone shows it.
func TestReadableIsDurable(t *testing.T) {
	disk, mem := &logtest.Disk{}, vfs.NewCrashableMem()
	l := open(t, options(t, disk.FS(mem)))
	withTopic(t, l, 1)
	_, err := l.Append(ctx, rec(0, "before"))
	must(t, err)
	read := make(chan string, 1)
	go func() {
		rs, err := l.Read(ctx, part(0), 1, 100)
		if err != nil || len(rs) != 1 {
			read <- fmt.Sprint(rs, err)
			return
		}
		read <- string(rs[0].Value)
	}()

	arrived, release := disk.HoldSyncs()
	done := make(chan error, 1)
	go func() {
		_, err := l.Append(ctx, rec(0, "paid"))
		done <- err
	}()
	<-arrived // Pebble has the row, and the disk does not
	if _, end, err := l.Bounds(ctx, part(0)); err != nil || end != 1 {
		t.Fatal("the end moved before the sync:", end, err)
	}
	if rs, err := l.Read(ctx, part(0), 0, 1<<20); err != nil || len(rs) != 1 {
		t.Fatal("read before the sync:", rs, err)
	}
	cut := mem.CrashClone(vfs.CrashCloneCfg{})
	select {
	case v := <-read:
		t.Fatal("a waiting reader got", v)
	case err := <-done:
		t.Fatal("acknowledged before the sync", err)
	default:
	}
	release()
	must(t, <-done)
	if v := <-read; v != "paid" {
		t.Fatal(v)
	}
	must(t, l.Close())

	l = open(t, options(t, cut))
	if _, vs := readAll(t, l, part(0)); !slices.Equal(vs, []string{"before"}) {
		t.Fatal(vs)
	}
	must(t, l.Close())
}

// world is what a run of appends knows for sure.
type world struct {
	mu    sync.Mutex
	acked map[string]log.Offset // "partition value" -> offset
	seen  map[string]log.Offset // what readers saw
	begun map[string][]int      // value -> its partitions
}

// E1, E2, E3, E4 under power cuts at any moment, with whatever part of the unsynced data the disk kept.
func TestPowerCuts(t *testing.T) {
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { powerCut(t, seed) })
	}
}

func powerCut(t *testing.T, seed uint64) {
	const partitions = 4
	rng := rand.New(rand.NewPCG(seed, 11))
	w := &world{acked: map[string]log.Offset{}, seen: map[string]log.Offset{}, begun: map[string][]int{}}
	fs := vfs.NewCrashableMem()
	trimmed := make([]log.Offset, partitions)
	for round := range 3 {
		l := open(t, options(t, fs))
		withTopic(t, l, partitions)
		w.check(t, l, partitions, trimmed)
		stop, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() { w.write(stop, l, seed, round, i, partitions) })
		}
		for p := range partitions {
			wg.Go(func() { w.read(stop, l, p) })
		}
		enough := 20 + rng.IntN(250)
		w.until(enough)
		if p := rng.IntN(partitions); rng.IntN(2) == 0 {
			first, end, err := l.Bounds(ctx, part(p))
			must(t, err)
			to := first + log.Offset(rng.Int64N(int64(end-first)+1))
			must(t, l.Trim(ctx, part(p), to))
			trimmed[p] = to
		}
		// INVARIANT of the test: what is known for sure is looked at before the cut, and more may be true by then.
		w.mu.Lock()
		acked, seen := maps.Clone(w.acked), maps.Clone(w.seen)
		cut := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		w.mu.Unlock()
		cancel()
		wg.Wait()
		must(t, l.Close())
		w.acked, w.seen = acked, seen
		fs = cut
	}
	l := open(t, options(t, fs))
	w.check(t, l, partitions, trimmed)
	must(t, l.Close())
}

func (w *world) until(n int) {
	for start := -1; ; {
		w.mu.Lock()
		have := len(w.acked)
		w.mu.Unlock()
		if start < 0 {
			start = have
		}
		if have >= start+n {
			return
		}
		time.Sleep(50 * time.Microsecond) // it waits for work to be done, not for time to pass
	}
}

func (w *world) write(stop context.Context, l *embedded.Log, seed uint64, round, id, partitions int) {
	rng := rand.New(rand.NewPCG(seed, uint64(round*100+id)))
	for i := 0; stop.Err() == nil; i++ {
		v := fmt.Sprintf("%d.%d.%d.%s", round, id, i, strings.Repeat("x", rng.IntN(400)))
		ps := rng.Perm(partitions)[:1+rng.IntN(partitions)]
		rs := make([]log.Record, len(ps))
		for j, p := range ps {
			rs[j] = rec(p, v)
		}
		w.mu.Lock()
		w.begun[v] = ps
		w.mu.Unlock()
		offsets, err := l.Append(ctx, rs...)
		if err != nil {
			return
		}
		w.mu.Lock()
		for j, p := range ps {
			w.acked[fmt.Sprint(p, " ", v)] = offsets[j]
		}
		w.mu.Unlock()
	}
}

func (w *world) read(stop context.Context, l *embedded.Log, p int) {
	at, _, err := l.Bounds(stop, part(p))
	for err == nil {
		var rs []log.Record
		rs, err = l.Read(stop, part(p), at, 4096)
		var r *log.RangeError
		if errors.As(err, &r) {
			at, err = r.First, nil
			continue
		}
		w.mu.Lock()
		for _, r := range rs {
			w.seen[fmt.Sprint(p, " ", string(r.Value))] = r.Offset
			at = r.Offset + 1
		}
		w.mu.Unlock()
	}
}

func (w *world) check(t *testing.T, l *embedded.Log, partitions int, trimmed []log.Offset) {
	t.Helper()
	found := map[string]log.Offset{}
	firsts := make([]log.Offset, partitions)
	for p := range partitions {
		first, vs := readAll(t, l, part(p))
		firsts[p] = first
		if first < trimmed[p] {
			t.Fatalf("partition %d begins at %d, was trimmed to %d", p, first, trimmed[p])
		}
		for i, v := range vs {
			k := fmt.Sprint(p, " ", v)
			if _, twice := found[k]; twice {
				t.Fatal("twice:", k)
			}
			found[k] = first + log.Offset(i)
		}
	}
	for name, m := range map[string]map[string]log.Offset{"acknowledged": w.acked, "read": w.seen} {
		for k, o := range m {
			p := int(k[0] - '0')
			if at, ok := found[k]; o >= firsts[p] && (!ok || at != o) {
				t.Fatalf("%s at %d, found %t at %d: %.40s", name, o, ok, at, k)
			}
		}
	}
	for k := range found { // all or none
		v := k[2:]
		for _, p := range w.begun[v] {
			_, ok := found[fmt.Sprint(p, " ", v)]
			if !ok && firsts[p] == 0 {
				t.Fatalf("%.30s is in partition %c and not in %d", v, k[0], p)
			}
		}
	}
}

// E4: offsets go on after a trim to empty and a kill.
func TestTrimToEmptyAndKill(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, options(t, fs))
	withTopic(t, l, 1)
	for range 5 {
		_, err := l.Append(ctx, rec(0, "x"), rec(0, "y"))
		must(t, err)
	}
	must(t, l.Trim(ctx, part(0), 10))
	cut := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, l.Close())
	l = open(t, options(t, cut))
	if first, end, err := l.Bounds(ctx, part(0)); err != nil || first != 10 || end != 10 {
		t.Fatal(first, end, err)
	}
	if o, err := l.Append(ctx, rec(0, "z")); err != nil || o[0] != 10 {
		t.Fatal(o, err)
	}
	must(t, l.Close())
}

// failing opens a log on a disk that ruin will ruin, and appends records of a size from several goroutines until the log has failed, or until
// all is written. Appends under way then never return: their goroutines are left. It returns how often Fatal was told, and how much was
// acknowledged of each partition.
func failing(t *testing.T, disk *logtest.Disk, mem *vfs.MemFS, size int, ruin func()) (fatal int, acked []int) {
	t.Helper()
	const appenders, appends = 3, 24
	told := make(chan error, 100)
	var known atomic.Bool // the log knows: between the sync that fails and its return a sync of another file may still do well
	o := options(t, disk.FS(mem))
	o.Fatal = func(err error) { known.Store(true); told <- err }
	l := open(t, o)
	withTopic(t, l, appenders)
	ruin()
	var mu sync.Mutex
	acked = make([]int, appenders)
	written := make(chan struct{})
	var all sync.WaitGroup
	for p := range appenders {
		all.Go(func() {
			for i := range appends {
				late := known.Load()
				_, err := l.Append(ctx, log.Record{Partition: part(p), Value: value(p, i, size)})
				switch {
				case errors.Is(err, log.ErrClosed), errors.Is(err, log.ErrUnknown):
					return
				case err != nil:
					t.Error(err)
				case late:
					t.Error("acknowledged after a failed sync")
				}
				mu.Lock()
				acked[p]++
				mu.Unlock()
			}
		})
	}
	go func() {
		all.Wait()
		close(written)
	}()
	select {
	case <-written:
		if len(told) == 0 {
			if err := l.Close(); (err != nil) != disk.Failed() { // the last sync of all may fail
				t.Error(err)
			}
			return len(told), acked
		}
	case err := <-told:
		fatal++
		if !errors.Is(err, logtest.ErrInjected) && !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
	}
	for range 3 {
		if _, err := l.Append(ctx, rec(0, "late")); !errors.Is(err, log.ErrClosed) {
			t.Error(err)
		}
	}
	if err := l.CreateTopic(ctx, log.TopicConfig{Name: "late", Partitions: 1}); !errors.Is(err, log.ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Read(ctx, part(0), 0, 1); !errors.Is(err, log.ErrClosed) {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, log.ErrClosed) {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return fatal + len(told), slices.Clone(acked)
}

// value is that of the i-th record of partition p.
func value(p, i, size int) []byte {
	return bytes.Repeat([]byte{byte(p), byte(i)}, size/2)
}

// keptAll holds a log after a power cut against what was acknowledged.
func keptAll(t *testing.T, mem *vfs.MemFS, acked []int) {
	t.Helper()
	l := open(t, options(t, mem.CrashClone(vfs.CrashCloneCfg{})))
	for p, n := range acked {
		_, vs := readAll(t, l, part(p))
		if len(vs) < n {
			t.Errorf("partition %d: %d of %d", p, len(vs), n)
		}
		for i, v := range vs {
			if v != string(value(p, i, len(v))) {
				t.Errorf("partition %d offset %d is another", p, i)
			}
		}
	}
	must(t, l.Close())
}

// E6: after the first failed sync nothing is acknowledged, nothing unsynced is read, and Fatal is called once; whichever sync it is, of
// an append, or while WALs change, tables are written or the MANIFEST is.
func TestFailedSync(t *testing.T) {
	n, disk := 0, &logtest.Disk{}
	for more := true; more; more = disk.Failed() {
		n++
		mem := vfs.NewCrashableMem()
		disk = &logtest.Disk{}
		fatal, acked := failing(t, disk, mem, 24<<10, func() { disk.FailSync(n) }) // about as many bytes as fill six WALs
		if want := map[bool]int{true: 1}[disk.Failed()]; fatal != want {
			t.Fatalf("sync %d: Fatal was told %d times", n, fatal)
		}
		keptAll(t, mem, acked)
	}
	if n < 40 {
		t.Fatal("hardly a sync:", n)
	}
}

// A sync that fails once Close has begun does not keep it: of an append that Close waits for, and of what Close itself syncs.
func TestCloseWhileSyncFails(t *testing.T) {
	for name, begin := range map[string]func(*embedded.Log){
		"append": func(l *embedded.Log) { _, _ = l.Append(ctx, rec(0, "v")) },
		"raw":    func(l *embedded.Log) { _, _ = sent(l, wire(-1, -1, -1, "v")) },
		"notes":  func(l *embedded.Log) { _ = l.PutNotes(ctx, note("k", "v")) },
		"topic":  func(l *embedded.Log) { _ = l.CreateTopic(ctx, log.TopicConfig{Name: "other", Partitions: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			disk, told := &logtest.Disk{}, make(chan error, 10)
			o := options(t, disk.FS(vfs.NewMem()))
			o.Fatal = func(err error) { told <- err }
			l := open(t, o)
			withTopic(t, l, 1)
			arrived, release := disk.HoldSyncs()
			go begin(l)
			<-arrived
			closed, waiting := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := l.Read(ctx, part(0), 0, 1)
				waiting <- err
			}()
			go func() { closed <- l.Close() }()
			<-waiting // Close has begun
			disk.FailSync(1)
			release()
			if err := <-closed; !errors.Is(err, log.ErrClosed) || !strings.Contains(err.Error(), logtest.ErrInjected.Error()) {
				t.Error(err)
			}
			if err := <-told; !errors.Is(err, logtest.ErrInjected) {
				t.Error(err)
			}
			if _, _, err := l.Bounds(ctx, part(0)); !errors.Is(err, log.ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// E7.
func TestDiskFull(t *testing.T) {
	clock := logtest.NewClock(time.UnixMilli(1_700_000_000_000))
	var free uint64 = 10 << 20
	asked, told := 0, uint64(0)
	o := options(t, vfs.NewMem())
	o.Clock, o.FreeFloorBytes = clock.Now, 1<<20
	o.Free = func() (uint64, error) { asked++; return free, nil }
	o.Listener.DiskFull = func(f uint64) { told = f }
	var said bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&said, nil))
	l := open(t, o)
	defer func() { must(t, l.Close()) }()
	withTopic(t, l, 1)
	wantSaid := func(full, room int) {
		t.Helper()
		if got := [2]int{strings.Count(said.String(), "the disk is full"), strings.Count(said.String(), "room on the disk again")}; got != [2]int{full, room} {
			t.Fatalf("said full, and room again, %d times, want %d and %d: %s", got, full, room, said.String())
		}
	}
	put := func(n int) error {
		_, err := l.Append(ctx, log.Record{Partition: part(0), Value: make([]byte, n)})
		return err
	}
	must(t, put(100))
	must(t, put(100))
	if asked != 1 {
		t.Fatal("asked", asked, "times within 100 ms")
	}
	free = 2 << 20
	must(t, put(1<<20)) // what was left by the last answer suffices
	free = 1<<20 - 1
	clock.Advance(time.Second)
	if err := put(100); !errors.Is(err, log.ErrDiskFull) || !log.IsRetryable(err) || !strings.Contains(err.Error(), "log has") {
		t.Fatal(err)
	}
	if told != free {
		t.Fatal("the listener was told", told)
	}
	if _, vs := readAll(t, l, part(0)); len(vs) != 3 {
		t.Fatal("reads go on, and what was refused is not there:", len(vs))
	}
	before := asked
	if err := put(100); !errors.Is(err, log.ErrDiskFull) || asked != before {
		t.Fatal(err, asked-before)
	}
	wantSaid(1, 0) // once, however many are refused
	free = 4 << 20
	clock.Advance(time.Second)
	must(t, put(100))
	must(t, put(100))
	wantSaid(1, 1)
	for _, after := range []time.Duration{time.Second, time.Minute} { // and again, but not too often
		free = 0
		clock.Advance(after)
		if err := put(100); !errors.Is(err, log.ErrDiskFull) {
			t.Fatal(err)
		}
		free = 4 << 20
		clock.Advance(time.Second)
		must(t, put(100))
	}
	wantSaid(2, 2)
	free, before = 1<<20+1000, asked
	for range 10 { // uses up 3 MiB, by and by: asked before the time
		if err := put(400 << 10); errors.Is(err, log.ErrDiskFull) {
			break
		}
	}
	if asked == before {
		t.Fatal("not asked though the answer was used up")
	}
}

// E7 on a real disk that is really full, with the process that meets it: it must refuse, not die, and go on when there is room.
func TestDiskFullForReal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skip("no tmpfs here:", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	clock := logtest.NewClock(time.Now())
	o := embedded.Options{Dir: filepath.Join(dir, "log"), MemTableBytes: 512 << 10, FreeFloorBytes: 6 << 20, Clock: clock.Now, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	l := open(t, o)
	withTopic(t, l, 1)
	rng := rand.NewChaCha8([32]byte{})
	n := 0
	for {
		v := make([]byte, 4096)
		_, _ = rng.Read(v)
		_, err := l.Append(ctx, log.Record{Partition: part(0), Value: v})
		if errors.Is(err, log.ErrDiskFull) {
			break
		}
		must(t, err)
		n++
	}
	if _, vs := readAll(t, l, part(0)); len(vs) != n || n < 1000 {
		t.Fatal(len(vs), n)
	}
	before := l.Epoch()
	must(t, l.Close())

	l = open(t, o) // on the full disk
	if _, vs := readAll(t, l, part(0)); len(vs) != n {
		t.Fatal(len(vs), n)
	}
	if _, err := l.Append(ctx, rec(0, "no room")); !errors.Is(err, log.ErrDiskFull) {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Second)
	if _, err := l.Append(ctx, rec(0, "room again")); err != nil {
		t.Fatal(err)
	}
	if l.Epoch() <= before {
		t.Errorf("epoch %d after %d", l.Epoch(), before)
	}
	must(t, l.Close())
	l = open(t, o)
	if _, vs := readAll(t, l, part(0)); len(vs) != n+1 {
		t.Fatal(len(vs), n)
	}
	must(t, l.Close())
}

// E7, second line: a write that meets ENOSPC all the same stops the log; what was acknowledged is kept.
func TestNoSpaceAllTheSame(t *testing.T) {
	for n := int64(1); n < 20; n += 6 {
		disk, mem := &logtest.Disk{}, vfs.NewCrashableMem()
		fatal, acked := failing(t, disk, mem, 10, func() { disk.FillUp(n) })
		if fatal != 1 {
			t.Fatalf("write %d: Fatal was told %d times", n, fatal)
		}
		keptAll(t, mem, acked)
	}
}

// E8: also against another process.
func TestLocked(t *testing.T) {
	if dir := os.Getenv("REMIT_TEST_LOCKED"); dir != "" {
		_, err := embedded.Open(embedded.Options{Dir: dir})
		if errors.Is(err, log.ErrLocked) && strings.Contains(err.Error(), dir) {
			os.Exit(7)
		}
		fmt.Println(err)
		os.Exit(1)
	}
	dir := t.TempDir()
	o := options(t, vfs.Default)
	o.Dir = dir
	l := open(t, o)
	defer func() { must(t, l.Close()) }()
	if _, err := embedded.Open(o); !errors.Is(err, log.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatal(err)
	}
	other := exec.Command(os.Args[0], "-test.run", "^TestLocked$")
	other.Env = append(os.Environ(), "REMIT_TEST_LOCKED="+dir)
	out, err := other.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("%v: %s", err, out)
	}
}
