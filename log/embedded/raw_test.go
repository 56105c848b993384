package embedded_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/logtest"
)

// wire is a batch as a client sends it. A producer of -1 is none.
func wire(producer int64, epoch int16, sequence int32, values ...string) []byte {
	rs := make([]log.Record, len(values))
	for i, v := range values {
		rs[i] = log.Record{Key: []byte("k"), Value: []byte(v)}
	}
	return produced(log.AppendBatch(nil, time.Now(), rs), producer, epoch, sequence)
}

// produced says of a batch who made it.
func produced(b []byte, producer int64, epoch int16, sequence int32) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint64(b[43:], uint64(producer))
	binary.BigEndian.PutUint16(b[51:], uint16(epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(sequence))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func sent(l *embedded.Log, b []byte) (log.Offset, error) {
	batch, _, err := log.ParseBatch(b)
	if err != nil {
		return 0, err
	}
	return l.AppendRaw(part(0), batch).Wait()
}

// Searching a time makes no records of what it passes.
func TestOffsetAtOfMany(t *testing.T) {
	l := open(t, options(t, vfs.NewMem()))
	withTopic(t, l, 1)
	const many, bytesMax = 200_000, 16 << 20 // each search copies the batch, 2 MiB
	now := time.Now().Truncate(time.Millisecond)
	rs := make([]log.Record, many)
	for i := range rs {
		rs[i].Time = now.Add(time.Duration(i) * time.Millisecond)
	}
	_, err := sent(l, log.AppendBatch(nil, now, rs))
	must(t, err)
	rs = nil
	// Pebble flushes and compacts beside it, and what that allocates counts too; what the searches allocate is in every try.
	var least uint64 = math.MaxUint64
	for try := 0; try < 100 && least > bytesMax; try++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, want := range []log.Offset{0, many - 1, many} {
			if o, err := l.OffsetAt(ctx, part(0), now.Add(time.Duration(want)*time.Millisecond)); err != nil || o != want {
				t.Error(o, err, want)
			}
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	if least > bytesMax {
		t.Errorf("allocated %d bytes", least)
	}
	must(t, l.Close())
}

// What was sent is what is read, but for its place.
func TestRaw(t *testing.T) {
	l := open(t, options(t, vfs.NewMem()))
	withTopic(t, l, 1)
	var want []byte
	next := log.Offset(0)
	for i := range 5 {
		b := wire(-1, -1, -1, strings.Split(strings.Repeat("v ", i)+"last", " ")...)
		at, err := sent(l, b)
		must(t, err)
		if at != next {
			t.Fatalf("offset %d, want %d", at, next)
		}
		log.Batch(b).SetBase(next)
		log.Batch(b).SetEpoch(l.Epoch())
		want, next = append(want, b...), next+log.Batch(b).Last()-log.Batch(b).Base()+1
	}
	got, end, err := l.ReadRaw([]byte("before"), part(0), 0, 1<<20, true)
	must(t, err)
	if !bytes.Equal(got, append([]byte("before"), want...)) || end != next {
		t.Fatalf("to %d: %x\nwant %x", end, got, want)
	}
	if got, end, err = l.ReadRaw(nil, part(0), next, 1<<20, true); err != nil || got != nil || end != next {
		t.Error(got, end, err)
	}
	if got, end, err = l.ReadRaw(nil, part(0), 0, 10, false); err != nil || got != nil || end != 0 {
		t.Error(got, end, err)
	}
	// In the middle of a batch it is the whole batch, and never less than one if so asked.
	if got, end, err = l.ReadRaw(nil, part(0), 2, 1, true); err != nil || log.Batch(got).Base() != 1 || end != 3 {
		t.Error(got, end, err)
	}
	if _, vs := readAll(t, l, part(0)); len(vs) != int(next) {
		t.Error(vs)
	}
	for _, from := range []log.Offset{-1, next + 1} {
		if _, _, err := l.ReadRaw(nil, part(0), from, 1<<20, true); !errors.Is(err, log.ErrOffsetOutOfRange) {
			t.Error(from, err)
		}
	}
	must(t, l.Close())
}

func TestRawRefuses(t *testing.T) {
	l := open(t, options(t, vfs.NewMem()))
	withTopic(t, l, 1)
	good := wire(-1, -1, -1, "v")
	control := bytes.Clone(good)
	control[22] |= 0x20
	for name, c := range map[string]struct {
		at   int
		b    log.Batch
		want error
	}{
		"control":   {0, control, log.ErrBadBatch},
		"cut":       {0, good[:len(good)-1], log.ErrBadBatch},
		"large":     {0, make([]byte, embedded.RawMax+1), log.ErrTooLarge},
		"partition": {1, good, log.ErrUnknownPartition},
	} {
		if _, err := l.AppendRaw(part(c.at), c.b).Wait(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, l.DeleteTopic(ctx, "t"))
	if _, err := sent(l, good); !errors.Is(err, log.ErrUnknownTopic) {
		t.Error(err)
	}
	must(t, l.Close())
	if _, err := sent(l, good); !errors.Is(err, log.ErrClosed) {
		t.Error(err)
	}
}

// The rules of idempotent producers, before and after a power cut that keeps what was synced.
func TestProducerSequences(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l := open(t, options(t, mem))
	withTopic(t, l, 1)
	restart := func() {
		t.Helper()
		cut := mem.CrashClone(vfs.CrashCloneCfg{})
		must(t, l.Close())
		mem = cut
		l = open(t, options(t, mem))
	}
	const w = math.MaxInt32
	for i, c := range []struct {
		producer int64
		epoch    int16
		sequence int32
		records  int
		at       log.Offset
		err      error
	}{
		{7, 0, 0, 2, 0, nil},
		{7, 0, 0, 2, 0, nil}, // repeated
		{7, 0, 3, 1, 0, embedded.ErrOutOfOrderSequence},
		{7, 0, 0, 1, 0, embedded.ErrOutOfOrderSequence}, // not what was sent
		{7, 0, 2, 1, 2, nil},
		{8, 3, 40, 1, 3, nil}, // not known: any sequence
		{7, 0, 3, 1, 4, nil},
		{7, 0, 4, 1, 5, nil},
		{7, 0, 5, 1, 6, nil},
		{7, 0, 2, 1, 2, nil}, // the oldest of five
		{7, 0, 6, 1, 7, nil},
		{7, 0, 0, 2, 0, embedded.ErrOutOfOrderSequence}, // six ago
		{8, 2, 41, 1, 0, embedded.ErrProducerFenced},
		{8, 4, 41, 1, 0, embedded.ErrOutOfOrderSequence},
		{8, 4, 0, 1, 8, nil}, // a new epoch begins with 0
		{8, 3, 41, 1, 0, embedded.ErrProducerFenced},
		{9, 0, w - 1, 2, 9, nil}, // sequences wrap
		{9, 0, 0, 1, 11, nil},
		{10, 0, w, 3, 12, nil},
		{10, 0, 2, 1, 15, nil},
		{10, 0, w, 3, 12, nil},
	} {
		for range 2 {
			at, err := sent(l, wire(c.producer, c.epoch, c.sequence, make([]string, c.records)...))
			if !errors.Is(err, c.err) || err == nil && at != c.at {
				t.Fatalf("step %d: %d %v, want %d %v", i, at, err, c.at, c.err)
			}
			restart() // and the same again, which is then a repeat of what was taken
		}
	}
	if _, vs := readAll(t, l, part(0)); len(vs) != 16 {
		t.Errorf("%d records", len(vs))
	}
	must(t, l.Close())
}

// A batch that is sent again while it is being written is answered when it is durable, and not before: never, if the sync fails.
func TestRepeatedWaitsForSync(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint(fails), func(t *testing.T) { repeatedWaits(t, fails) })
	}
}

func repeatedWaits(t *testing.T, fails bool) {
	disk, told := &logtest.Disk{}, make(chan error, 1)
	o := options(t, disk.FS(vfs.NewMem()))
	o.Fatal = func(err error) { told <- err }
	l := open(t, o)
	withTopic(t, l, 1)
	arrived, release := disk.HoldSyncs()
	b := wire(1, 0, 0, "v")
	first := l.AppendRaw(part(0), b)
	<-arrived
	second := l.AppendRaw(part(0), b)
	// What is refused needs no sync. It is behind the second in line: once it is answered, so is known what becomes of the second.
	if _, err := sent(l, wire(1, 0, 7, "v")); !errors.Is(err, embedded.ErrOutOfOrderSequence) {
		t.Fatal(err)
	}
	if fails {
		disk.FailSync(1)
		release()
		if err := <-told; !errors.Is(err, logtest.ErrInjected) {
			t.Error(err)
		}
		if at, err := second.Wait(); !errors.Is(err, log.ErrUnknown) {
			t.Error("answered, and not durable:", at, err)
		}
		return
	}
	release()
	for _, a := range []*embedded.RawAppend{second, first} {
		if at, err := a.Wait(); at != 0 || err != nil {
			t.Error(at, err)
		}
	}
	if _, vs := readAll(t, l, part(0)); len(vs) != 1 {
		t.Error(vs)
	}
	must(t, l.Close())
}

// Calls of one goroutine keep their order, however many are on their way.
func TestRawKeepsOrder(t *testing.T) {
	l := open(t, options(t, vfs.NewMem()))
	withTopic(t, l, 1)
	var tasks sync.WaitGroup
	for p := range 4 {
		tasks.Go(func() {
			var pending []*embedded.RawAppend
			for i := range 200 {
				pending = append(pending, l.AppendRaw(part(0), wire(int64(p), 0, int32(i), "v")))
			}
			last := log.Offset(-1)
			for _, a := range pending {
				at, err := a.Wait()
				if err != nil || at <= last {
					t.Error(at, last, err)
				}
				last = at
			}
		})
	}
	tasks.Wait()
	must(t, l.Close())
}

// Idempotent producers under power cuts: they send again what was not answered, and nothing is lost or doubled.
func TestProducersPowerCuts(t *testing.T) {
	for seed := range uint64(*seeds) {
		rng := rand.New(rand.NewPCG(seed, 9))
		mem := vfs.NewCrashableMem()
		const producers, rounds = 3, 3
		next := make([]int32, producers) // sequence that was not acknowledged yet
		for range rounds {
			l := open(t, options(t, mem))
			withTopic(t, l, 1)
			stop, enough, many := make(chan struct{}), make(chan struct{}), rng.IntN(60)
			var mu sync.Mutex
			var tasks sync.WaitGroup
			for p := range producers {
				tasks.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						n := 1 + i%3
						values := make([]string, n)
						for j := range values {
							values[j] = fmt.Sprintf("%d.%d", p, int(next[p])+j)
						}
						// One record a batch of its own, so that after a cut the same batch is sent again.
						for _, v := range values {
							if _, err := sent(l, wire(int64(p), 0, next[p], v)); err != nil {
								t.Error(p, next[p], err)
								return
							}
							mu.Lock()
							next[p]++
							mu.Unlock()
						}
						if p == 0 && i == many {
							close(enough)
						}
					}
				})
			}
			<-enough
			mu.Lock()
			acked := append([]int32(nil), next...)
			cut := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			mu.Unlock()
			close(stop)
			tasks.Wait()
			must(t, l.Close())
			mem, next = cut, acked
		}
		l := open(t, options(t, mem))
		_, vs := readAll(t, l, part(0))
		found := map[string]bool{}
		for _, v := range vs {
			if found[v] {
				t.Errorf("seed %d: %s is there twice", seed, v)
			}
			found[v] = true
		}
		for p, n := range next {
			for i := range n {
				if !found[fmt.Sprintf("%d.%d", p, i)] {
					t.Errorf("seed %d: %d.%d was acknowledged and is gone", seed, p, i)
				}
			}
		}
		must(t, l.Close())
	}
}

// A topic that is made again knows no producer of the one before.
func TestProducersOfDeletedTopic(t *testing.T) {
	mem := vfs.NewMem()
	l := open(t, options(t, mem))
	withTopic(t, l, 1)
	_, err := sent(l, wire(1, 5, 0, "v"))
	must(t, err)
	must(t, l.DeleteTopic(ctx, "t"))
	must(t, l.Close())
	l = open(t, options(t, mem))
	withTopic(t, l, 1)
	_, err = sent(l, wire(1, 0, 0, "v"))
	must(t, err)
	must(t, l.Close())
}

// Every start has a higher epoch, and each offset is known to be of one; also in a log that was restored from a copy.
func TestEpochs(t *testing.T) {
	mem, clock := vfs.NewCrashableMem(), logtest.NewClock(time.Now())
	o := options(t, mem)
	o.Clock = clock.Now
	var epochs []int32
	start := func() *embedded.Log {
		t.Helper()
		l := open(t, o)
		if n := len(epochs); n > 0 && l.Epoch() <= epochs[n-1] {
			t.Fatalf("epoch %d after %d", l.Epoch(), epochs[n-1])
		}
		epochs = append(epochs, l.Epoch())
		return l
	}
	check := func(l *embedded.Log, epoch, want int32, end log.Offset) {
		t.Helper()
		got, at, err := l.EpochEnd(ctx, part(0), epoch)
		if err != nil || got != want || at != end {
			t.Errorf("epoch %d: %d ends at %d, %v; want %d at %d", epoch, got, at, err, want, end)
		}
	}
	l := start()
	withTopic(t, l, 1)
	for range 3 {
		_, err := l.Append(ctx, rec(0, "v"))
		must(t, err)
	}
	must(t, l.Close())
	copied := mem.CrashClone(vfs.CrashCloneCfg{})
	l = start() // in the same second, and nothing is written
	must(t, l.Close())
	l = start()
	_, err := sent(l, wire(-1, -1, -1, "v", "v"))
	must(t, err)
	e := epochs
	check(l, e[2], e[2], 5)
	check(l, e[1], e[0], 3)
	check(l, e[0], e[0], 3)
	check(l, e[0]-1, e[0]-1, 0)
	check(l, e[2]+1, embedded.NoEpoch, embedded.NoEpoch)
	check(l, embedded.NoEpoch, embedded.NoEpoch, embedded.NoEpoch)
	must(t, l.Trim(ctx, part(0), 5))
	check(l, e[1], e[1], 5)
	must(t, l.Close())

	clock.Advance(time.Hour) // from the copy: offsets 3 and 4, read in the epoch before, are not there
	o.FS = copied
	l = start()
	check(l, e[2], e[0], 3)
	must(t, l.Close())

	clock.Advance(-24 * time.Hour) // whatever the clock says
	l = start()
	must(t, l.Close())
}

func TestWatch(t *testing.T) {
	l := open(t, options(t, vfs.NewMem()))
	withTopic(t, l, 3)
	w := l.Watch([]log.Partition{part(0), part(2), {Topic: "not there"}})
	other := l.Watch([]log.Partition{part(1)})
	for _, p := range []int{0, 2} {
		_, err := l.Append(ctx, rec(p, "v"))
		must(t, err)
		<-w.C
	}
	select {
	case <-other.C:
		t.Error("partition 1 did not move")
	default:
	}
	must(t, l.DeleteTopic(ctx, "t"))
	<-w.C
	<-other.C
	w.Close()
	w.Close()
	other.Close()
	must(t, l.Close())
}
