package fold

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
)

func openTestStore(t testing.TB, fs vfs.FS, partitions int) *Store {
	t.Helper()
	s, err := OpenStore(StoreOptions{Dir: "state", Version: "toy/1", Partitions: partitions, FS: fs, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// write appends events to a log as a life of the toy would, but at once.
func write(t testing.TB, l *memLog, rng *rand.Rand, events int) {
	t.Helper()
	for i := range events {
		p := int32(rng.IntN(l.topics[coreTopic]))
		id := fmt.Sprintf("%08d", i)
		var facts []Fact
		switch rng.IntN(4) {
		case 0:
			facts = []Fact{promised{ID: id, To: 1, N: 3, At: int64(i)}, kept{ID: id}}
		case 1:
			facts = []Fact{promised{ID: id, To: 1, N: 3, At: int64(1_000_000 + i)}}
		case 2:
			facts = []Fact{credited{ID: id, N: 3}}
		default:
			facts = []Fact{added{Name: fmt.Sprint(rng.IntN(50)), N: 1, Tags: []string{strings.Repeat("x", rng.IntN(2000))}}}
		}
		records := make([]log.Record, len(facts))
		for j, f := range facts {
			r, err := Record(Event{Partition: p, ID: fmt.Sprint(id, "/", j), Key: id, Fact: f}, coreTopic)
			if err != nil {
				t.Fatal(err)
			}
			records[j] = r
		}
		l.write(records)
	}
}

// events reads a whole partition.
func events(t testing.TB, l *memLog, p int32) (all []Event) {
	t.Helper()
	for _, r := range l.parts[log.Partition{Topic: coreTopic, Index: p}] {
		e, err := toyFacts().Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// However a log is cut into batches, its fold has the same digest; of a live node too (equalsReplay).
func TestBatchesDoNotMatter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	l := newMemLog(1)
	write(t, l, rng, 400)
	all := events(t, l, 0)
	want := replayed(t, l, 0, 1, log.Offset(len(all)))
	for range 20 {
		s := openTestStore(t, vfs.NewMem(), 1)
		s.writers[0].max = 1 + rng.IntN(100)
		for rest := all; len(rest) > 0; {
			n := 1 + rng.IntN(min(len(rest), 60))
			if at, err := s.fold(0, rest[:n], toy{}.Apply); err != nil || at != rest[n-1].Offset+1 {
				t.Fatal(at, err)
			}
			rest = rest[n:]
		}
		if got, at, err := s.Digest(0); err != nil || got != want || at != log.Offset(len(all)) {
			t.Fatalf("digest %x at %d, not %x: %v", got[:4], at, want[:4], err)
		}
		closeStore(t, s)
	}
}

// A fact from the log may have empty lists where the one that was emitted had none; their rows are equal.
func TestNilAndEmptyAreEqualInRows(t *testing.T) {
	w := newWorld(t, 1).open()
	for _, tags := range [][]string{nil, {}, {"a"}} {
		w.do(0, does(func(t *Turn) (any, error) {
			t.Emit(Event{ID: "x", Key: "x", Fact: added{Name: fmt.Sprint(tags == nil, len(tags)), Tags: tags}})
			return nil, nil
		}))
	}
	w.close() // compares
}

func TestStoreIsMadeAgain(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *world, *StoreOptions){
		"another version":    func(_ *testing.T, _ *world, o *StoreOptions) { o.Version = "toy/2" },
		"more partitions":    func(_ *testing.T, _ *world, o *StoreOptions) { o.Partitions = 3 },
		"marked as in doubt": func(t *testing.T, w *world, _ *StoreOptions) { mustWrite(t, w.fs, "state/DOUBT", "?") },
		"deleted by hand":    func(t *testing.T, w *world, _ *StoreOptions) { must(t, w.fs.RemoveAll("state")) },
		"a table is missing": func(t *testing.T, w *world, _ *StoreOptions) { must(t, w.fs.Remove(fileOf(t, w.fs, ".sst"))) },
		"no MANIFEST":        func(t *testing.T, w *world, _ *StoreOptions) { must(t, w.fs.Remove(fileOf(t, w.fs, "MANIFEST"))) },
		"no marker": func(t *testing.T, w *world, _ *StoreOptions) {
			must(t, w.fs.Remove(fileOf(t, w.fs, "marker.manifest")))
		},
		"no witness": func(t *testing.T, w *world, _ *StoreOptions) { must(t, w.fs.Remove(fileOf(t, w.fs, "WITNESS"))) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			w.options = func(o *Options) { o.Machines[toyByte] = toy{owed: nobody} }
			w.open()
			for i := range 50 {
				w.do(int32(i%2), promise{ID: fmt.Sprint(i), N: i})
			}
			w.close()
			o := w.storeOptions()
			doubts := 0
			o.Doubt = func(string, error) { doubts++ }
			change(t, w, &o)
			s, err := OpenStore(o)
			if err != nil {
				t.Fatal(err)
			}
			if doubts != 1 && name != "deleted by hand" || s.Offset(0) != 0 || s.Offset(1) != 0 {
				t.Errorf("%d doubts, at %v", doubts, s.Position())
			}
			closeStore(t, s)
			w.partitions = o.Partitions
			w.mem.topics[coreTopic] = o.Partitions
			s, err = OpenStore(o) // it is good now
			if err != nil || doubts > 1 {
				t.Fatal(err, doubts)
			}
			closeStore(t, s)
			if name != "another version" { // else the world would make it again
				w.open()
				if w.store.Offset(0) != 25 {
					t.Errorf("folded to %d", w.store.Offset(0))
				}
				w.close()
			}
		})
	}
}

func nobody(string, Look) []Effect { return nil }

// What is wrong beside the store is no reason to delete it.
func TestStoreIsKept(t *testing.T) {
	w := newWorld(t, 1).open()
	w.do(0, add{name: "a", n: 1})
	w.close()
	o := w.storeOptions()
	o.MemTableBytes = 1
	o.Doubt = func(_ string, why error) { t.Error("made again:", why) }
	if _, err := OpenStore(o); err == nil {
		t.Error("opened")
	}
	s, err := OpenStore(w.storeOptions())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(w.storeOptions()); !errors.Is(err, log.ErrLocked) {
		t.Error(err)
	}
	if s.Offset(0) != 1 {
		t.Errorf("at %d", s.Offset(0))
	}
	closeStore(t, s)
}

// A store that has folded what the log does not have is refused, and stays.
func TestAheadOfTheLog(t *testing.T) {
	w := newWorld(t, 1).open()
	for range 3 {
		w.do(0, add{name: "a", n: 1})
	}
	w.close()
	full := w.mem
	w.mem = newMemLog(1)
	w.log = w.mem
	w.mem.write(full.appends[0])
	for range 2 {
		if err := w.tryOpen(); !errors.Is(err, ErrAhead) || !strings.Contains(err.Error(), "offset 3") {
			t.Fatal(err)
		}
	}
	s := openTestStore(t, w.fs, 1)
	defer closeStore(t, s)
	_, err := Follow(t.Context(), FollowOptions{Log: w.log, Topic: coreTopic, Facts: toyFacts(), Views: []Followed{{machineView{toy{}}, s}}, Fatal: func(error) {}})
	if !errors.Is(err, ErrAhead) {
		t.Error(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t testing.TB, fs vfs.FS, name, text string) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = io.WriteString(f, text)
	must(t, errors.Join(err, f.Close()))
}

func mustRead(t testing.TB, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	return string(b)
}

func fileOf(t testing.TB, fs vfs.FS, part string) string {
	t.Helper()
	names, err := fs.List("state")
	must(t, err)
	slices.Sort(names)
	for _, n := range slices.Backward(names) { // the newest; there may be one that nothing depends on any more
		if strings.Contains(n, part) {
			return "state/" + n
		}
	}
	t.Fatalf("no %s in %q", part, names)
	return ""
}

// A closed store with one byte changed, anywhere, is named, made again, or as good as before: never silently different.
func TestFlippedBytes(t *testing.T) {
	const flips = 40 // of a file
	rng := rand.New(rand.NewPCG(5, 5))
	l := newMemLog(1)
	write(t, l, rng, 400) // so that a table has blocks that a start does not read
	all := events(t, l, 0)
	fs := vfs.NewMem()
	s := openTestStore(t, fs, 1)
	for half := range slices.Chunk(all, (len(all)+1)/2) {
		_, err := s.fold(0, half, toy{}.Apply)
		must(t, errors.Join(err, s.Flush()))
	}
	want, _, err := s.Digest(0)
	must(t, err)
	rows := rowsOf(t, s, 0)
	closeStore(t, s)

	files := map[string]string{}
	names, err := fs.List("state")
	must(t, err)
	slices.Sort(names)
	for _, n := range names {
		files[n] = mustRead(t, fs, "state/"+n)
	}
	came := map[string]int{}
	for _, n := range names {
		var places []int
		for at := range len(files[n]) {
			if files[n][at] != 0 || !strings.Contains(n, "WITNESS") { // which is mostly empty
				places = append(places, at)
			}
		}
		step := len(places)/flips + 1
		for i := rng.IntN(step); i < len(places); i += step {
			at := places[i]
			was := files[n]
			flipped := []byte(was)
			flipped[at] ^= 1 << rng.IntN(8)
			files[n] = string(flipped)
			how := reopened(t, files, l, rows, want)
			files[n] = was
			came[kindOf(n)+" "+how]++
			if how == "different" {
				t.Errorf("%s: byte %d: silently different", n, at)
			}
		}
	}
	t.Log(came)
	if came["sst read as refused"] == 0 || came["sst made again"] == 0 {
		t.Error("no flip of a table was seen")
	}
}

func kindOf(file string) string {
	for _, kind := range []string{"sst", "MANIFEST", "OPTIONS", "WITNESS", "marker"} {
		if strings.Contains(file, kind) {
			return kind
		}
	}
	return file
}

// reopened says what became of a store of these files: refused, read as refused, made again, the same or different.
func reopened(t *testing.T, files map[string]string, l *memLog, rows map[string]string, want [32]byte) (how string) {
	t.Helper()
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("state", 0o755))
	for n, b := range files {
		mustWrite(t, fs, "state/"+n, b)
	}
	how = "the same"
	fatal := 0
	end := func(err error) {
		fatal++
		if _, missing := fs.Stat("state/" + doubtFile); missing != nil {
			t.Errorf("the process would end with no mark: %v", err)
		}
	}
	open := func() (*Store, error) {
		return OpenStore(StoreOptions{Dir: "state", Version: "toy/1", Partitions: 1, FS: fs, MemTableBytes: 256 << 10,
			Doubt: func(string, error) { how = "made again" }, Fatal: end})
	}
	s, err := open()
	if err != nil {
		return "refused"
	}
	if err := look(t, s, l, rows, want); err == nil {
		closeStore(t, s)
		if fatal > 0 {
			t.Error("fatal, though it was made again while it was opened")
		}
		return how
	} else if errors.Is(err, errDifferent) {
		return "different"
	}
	_ = s.Close()
	if fatal == 0 {
		t.Error("not fatal")
	}
	// It was refused loudly while it was read: so the next start makes it again.
	how = ""
	if s, err = open(); err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	if err := look(t, s, l, rows, want); err != nil || how != "made again" {
		t.Errorf("after a refusal it was %q: %v", how, err)
	}
	return "read as refused"
}

var errDifferent = errors.New("different")

// look folds what the store lacks, and compares: all rows in order, and each as a machine asks for it.
func look(t *testing.T, s *Store, l *memLog, rows map[string]string, want [32]byte) error {
	t.Helper()
	end := l.ends[log.Partition{Topic: coreTopic}]
	err := Replay(context.Background(), l, coreTopic, toyFacts(), Followed{machineView{toy{}}, s}, 0, end)
	if err != nil {
		return err
	}
	err = s.Read(0, func(r Scanner, at log.Offset) error {
		for key, v := range rows {
			for _, how := range []lookup{anyKey, mostlyAbsent} {
				if got := r.get(key, how); got == nil || string(got.bytes) != v {
					return fmt.Errorf("%w: %q", errDifferent, key)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch got, at, err := s.Digest(0); {
	case err != nil:
		return err
	case got != want || at != end:
		return errDifferent
	}
	return nil
}

var (
	crashes = flag.Int("crashes", 12, "how many power cuts TestPowerCut takes")
	crash   = flag.Uint64("crash", 0, "the one power cut to repeat; 0 takes many")
)

// After any power cut the rows are the fold of the log up to the store's own offset, which is not before what was called
// durable. To repeat a failure:
//
//	go test ./log/fold -run TestPowerCut -crash N
func TestPowerCut(t *testing.T) {
	first, last := *crash, *crash
	if *crash == 0 {
		first, last = 1, uint64(*crashes)
	}
	l := newMemLog(3)
	write(t, l, rand.New(rand.NewPCG(9, 9)), 1500)
	all := make([][]Event, 3)
	for p := range all {
		all[p] = events(t, l, int32(p))
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("crash=", seed), func(t *testing.T) { powerCut(t, l, all, seed) })
	}
}

func powerCut(t *testing.T, l *memLog, all [][]Event, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	fs := vfs.NewCrashableMem()
	s := openTestStore(t, fs, len(all))
	var (
		folds   sync.WaitGroup
		cutAt   = rng.IntN(1500)
		mu      sync.Mutex
		folded  int
		after   *vfs.MemFS
		durable [8]log.Offset
	)
	for p := range all {
		prng := rand.New(rand.NewPCG(seed, uint64(p)))
		folds.Go(func() {
			for rest := all[p]; len(rest) > 0; {
				n := 1 + prng.IntN(min(len(rest), 20))
				if _, err := s.fold(int32(p), rest[:n], toy{}.Apply); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
				if prng.IntN(60) == 0 {
					if _, err := s.db.AsyncFlush(); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				if folded += n; folded > cutAt && after == nil {
					for q := range all {
						var err error
						if durable[q], err = s.Durable(int32(q)); err != nil {
							t.Error(err)
						}
					}
					after = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				}
				mu.Unlock()
			}
		})
	}
	folds.Wait()
	closeStore(t, s)

	s, err := OpenStore(StoreOptions{Dir: "state", Version: "toy/1", Partitions: len(all), FS: after, MemTableBytes: 256 << 10,
		Doubt: func(_ string, why error) { t.Error("in doubt:", why) }})
	must(t, err)
	defer closeStore(t, s)
	for p := range all {
		at, end := s.Offset(int32(p)), log.Offset(len(all[p]))
		if at < durable[p] || at > end {
			t.Fatalf("partition %d: at %d, durable was %d", p, at, durable[p])
		}
		check := func() {
			t.Helper()
			got, at, err := s.Digest(int32(p))
			if want := refolded(t, all[p][:at]); err != nil || got != want {
				t.Fatalf("partition %d at %d: not the fold of the log: %v", p, at, err)
			}
		}
		check()
		if at < end {
			_, err := s.fold(int32(p), all[p][at:], toy{}.Apply)
			must(t, err)
			check()
		}
	}
}

// refolded returns the digest of a fresh fold.
func refolded(t *testing.T, events []Event) [32]byte {
	t.Helper()
	s := openTestStore(t, vfs.NewMem(), 8)
	defer closeStore(t, s)
	var p int32
	if len(events) > 0 {
		p = events[0].Partition
		_, err := s.fold(p, events, toy{}.Apply)
		must(t, err)
	}
	digest, _, err := s.Digest(p)
	must(t, err)
	return digest
}

// Durable says what a power cut leaves.
func TestDurable(t *testing.T) {
	w := newWorld(t, 2).open()
	w.do(1, add{name: "a", n: 1})
	for p, want := range []log.Offset{0, 0} {
		if at, err := w.store.Durable(int32(p)); err != nil || at != want {
			t.Errorf("partition %d: %d, %v", p, at, err)
		}
	}
	must(t, w.store.Flush())
	w.do(1, add{name: "a", n: 1})
	for p, want := range []log.Offset{0, 1} {
		if at, err := w.store.Durable(int32(p)); err != nil || at != want {
			t.Errorf("partition %d: %d, %v", p, at, err)
		}
	}
	w.close()
}

// What Read shows is the fold of exactly the events below its offset, whatever is committed meanwhile.
func TestReadIsASnapshot(t *testing.T) {
	w := newWorld(t, 2).open()
	var readers sync.WaitGroup
	ended := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				err := w.node.Read(1, func(rows Scanner, at log.Offset) error {
					a, _ := counters.Get(rows, "a")
					n := 0
					for _, v := range history.Scan(rows, "a/", "", false) {
						n += v
					}
					if log.Offset(a.Sum) != at || n != a.Sum {
						return fmt.Errorf("sum %d, history %d, at %d", a.Sum, n, at)
					}
					return nil
				})
				err = errors.Join(err, w.store.ReadAll(func(rows func(int32) Scanner, at log.Position) error {
					if a, _ := counters.Get(rows(1), "a"); log.Offset(a.Sum) != at[1] || at[0] != 0 {
						return fmt.Errorf("sum %d at %v", a.Sum, at)
					}
					return nil
				}))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		r, err := w.node.Do(t.Context(), 1, add{name: "a", n: 1})
		must(t, err)
		must(t, w.node.Wait(t.Context(), r.Position()))
	}
	close(ended)
	readers.Wait()
	w.close()
}

// Wait wakes when the rows have come so far, when its context ends, and when the store closes.
func TestWait(t *testing.T) {
	w := newWorld(t, 2).open()
	reached := make(chan error, 20)
	for i := range 20 {
		go func() { reached <- w.node.Wait(context.Background(), log.Position{1: log.Offset(i)}) }()
	}
	for range 20 {
		w.do(1, add{name: "a", n: 1})
	}
	for range 20 {
		must(t, <-reached)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.store.Wait(ctx, log.Position{0: 1}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for range 10 {
		go func() { reached <- w.store.Wait(context.Background(), log.Position{1: 100, 7: 1, -1: 1}) }()
	}
	w.close()
	for range 10 {
		if err := <-reached; !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	}
}

// A store that closes waits for those who read, and turns others away.
func TestReadWhileClosing(t *testing.T) {
	w := newWorld(t, 1).open()
	w.do(0, add{name: "a", n: 1})
	must(t, w.node.Close())
	var readers sync.WaitGroup
	reading := make(chan struct{}, 4)
	for range 4 {
		readers.Go(func() {
			for n := 0; ; n++ {
				_, _, err := w.store.Digest(0)
				if errors.Is(err, ErrStopped) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n == 3 {
					reading <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-reading
	}
	must(t, w.store.Close())
	must(t, w.store.Close())
	readers.Wait()
}

// A record of an unknown type, or one that cannot be read, is refused with its place.
func TestUnknownFact(t *testing.T) {
	l := newMemLog(1)
	write(t, l, rand.New(rand.NewPCG(2, 2)), 3)
	r, err := Record(Event{ID: "x", Key: "x", Fact: newer{}}, coreTopic)
	must(t, err)
	at := l.write([]log.Record{r})[0]
	w := newWorld(t, 1)
	w.log, w.mem = l, l
	err = w.tryOpen()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s/0 offset %d: type \"remit.toy.newer.v1\" is not known", coreTopic, at)) {
		t.Error(err)
	}
}

type newer struct{}

func (newer) EventType() string { return "remit.toy.newer.v1" }
