package fold

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
)

// The toy: counters, and transfers between partitions. A transfer leaves its counter where it was promised, is credited
// once where it is owed to, and is kept when its credit is known.

type added struct {
	Name string   `json:"name"`
	N    int      `json:"n"`
	Tags []string `json:"tags"`
	Pad  string   `json:"pad,omitempty"`
}

type promised struct {
	ID string `json:"id"`
	To int32  `json:"to"`
	N  int    `json:"n"`
	At int64  `json:"at"` // ms from which on it is owed
}

type credited struct {
	ID string `json:"id"`
	N  int    `json:"n"`
}

type kept struct {
	ID string `json:"id"`
}

type told struct {
	Topic   string `json:"topic"`
	Missing bool   `json:"missing"`
}

func (added) EventType() string    { return "remit.toy.added.v1" }
func (promised) EventType() string { return "remit.toy.promised.v1" }
func (credited) EventType() string { return "remit.toy.credited.v1" }
func (kept) EventType() string     { return "remit.toy.kept.v1" }
func (told) EventType() string     { return "remit.toy.told.v1" }

func toyFacts() Facts {
	return NewFacts(true, FactOf[added](), FactOf[promised](), FactOf[credited](), FactOf[kept](), FactOf[told]())
}

type counter struct {
	_    struct{} `cbor:",toarray"`
	Sum  int
	Last log.Offset
	Tags []string
}

type transfer struct {
	_    struct{} `cbor:",toarray"`
	To   int32
	N    int
	At   int64
	Kept bool
}

const toyByte = 't'

var (
	counters  = NewTable[counter]('c')
	transfers = NewTable[transfer]('f').Ascending()
	credits   = NewTable[int]('g').MostlyAbsent()
	history   = NewTable[int]('h').WriteOnly()
	toyDue    = DueOf(toyByte)
)

// toy is the machine. owed, if set, stands in for Owed.
type toy struct {
	owed func(id string, look Look) []Effect
}

func (toy) Apply(rows Rows, e *Event) {
	switch f := e.Fact.(type) {
	case added:
		c, _ := counters.Get(rows, f.Name)
		if f.Name == "broken" {
			Broken(e, "told to break")
		}
		counters.Put(rows, f.Name, counter{Sum: c.Sum + f.N, Last: e.Offset, Tags: f.Tags})
		history.Put(rows, fmt.Sprintf("%s/%012d", f.Name, e.Offset), f.N)
	case promised:
		c, _ := counters.Get(rows, "all")
		counters.Put(rows, "all", counter{Sum: c.Sum - f.N, Last: e.Offset})
		if _, ok := transfers.Get(rows, f.ID); ok {
			Broken(e, "transfer %q was promised before", f.ID)
		}
		transfers.Put(rows, f.ID, transfer{To: f.To, N: f.N, At: f.At})
		toyDue.Set(rows, time.UnixMilli(f.At), f.ID)
	case credited:
		if _, ok := credits.Get(rows, f.ID); ok {
			Broken(e, "transfer %q was credited before", f.ID)
		}
		credits.Put(rows, f.ID, f.N)
		c, _ := counters.Get(rows, "all")
		counters.Put(rows, "all", counter{Sum: c.Sum + f.N, Last: e.Offset})
	case kept:
		tr, ok := transfers.Get(rows, f.ID)
		if !ok || tr.Kept {
			Broken(e, "transfer %q is not open", f.ID)
		}
		tr.Kept = true
		transfers.Put(rows, f.ID, tr)
		toyDue.Clear(rows, time.UnixMilli(tr.At), f.ID)
	}
}

func (m toy) Owed(rows Reader, id string, look Look) []Effect {
	if m.owed != nil {
		return m.owed(id, look)
	}
	tr, ok := transfers.Get(rows, id)
	if !ok || tr.Kept {
		return nil
	}
	return []Effect{{To: tr.To, Command: credit{id, tr.N}, Answer: func(r Result) Command {
		if r.Err != nil {
			return nil
		}
		return keep{id}
	}}}
}

var errNo = errors.New("toy: no")

// add adds n to a counter, unless it would be more than most.
type add struct {
	name    string
	n, most int
	pad     string
}

func (c add) Decide(t *Turn) (any, error) {
	was, _ := counters.Get(t.Rows(), c.name)
	if c.most > 0 && was.Sum+c.n > c.most {
		return nil, errNo
	}
	t.Emit(Event{ID: c.name, Key: c.name, Fact: added{Name: c.name, N: c.n, Pad: c.pad}})
	return was.Sum + c.n, nil
}

// sum answers what a counter has.
type sum struct{ name string }

func (c sum) Decide(t *Turn) (any, error) {
	was, _ := counters.Get(t.Rows(), c.name)
	return was.Sum, nil
}

type promise promised

func (c promise) Decide(t *Turn) (any, error) {
	if _, ok := transfers.Get(t.Rows(), c.ID); ok {
		return "again", nil
	}
	if c.At == 0 {
		c.At = t.Now.UnixMilli()
	}
	t.Emit(Event{ID: c.ID, Key: c.ID, Fact: promised(c)})
	return "promised", nil
}

type credit struct {
	id string
	n  int
}

func (c credit) Decide(t *Turn) (any, error) {
	if _, ok := credits.Get(t.Rows(), c.id); !ok {
		t.Emit(Event{ID: c.id + "/credited", Key: c.id, Fact: credited{c.id, c.n}})
	}
	return nil, nil
}

type keep struct{ id string }

func (c keep) Decide(t *Turn) (any, error) {
	if tr, _ := transfers.Get(t.Rows(), c.id); !tr.Kept {
		t.Emit(Event{ID: c.id + "/kept", Key: c.id, Fact: kept{c.id}})
	}
	return nil, nil
}

// tell delivers to a topic.
type tell struct {
	topic   string
	decided *int
}

func (c tell) Decide(t *Turn) (any, error) {
	*c.decided++
	missing := t.Missing(c.topic)
	t.Emit(Event{ID: "told", Key: c.topic, Fact: told{c.topic, missing}})
	if !missing {
		t.Deliver(&log.Event{Data: []byte("hello")}, log.Partition{Topic: c.topic}, "told")
	}
	return missing, nil
}

// does is a command made of a function.
type does func(t *Turn) (any, error)

func (f does) Decide(t *Turn) (any, error) { return f(t) }

const coreTopic = "remit.toy"

// memLog is a log in memory that does what it is told.
type memLog struct {
	log.Log // for what is not asked
	gapless bool

	mu      sync.Mutex
	parts   map[log.Partition][]log.Record
	ends    map[log.Partition]log.Offset
	topics  map[string]int
	appends [][]log.Record
	// before is asked before anything is written, after once it is; what they return is what Append returns.
	before, after func([]log.Record) error
	// gap is how many offsets are left out after an append.
	gap   func() log.Offset
	moved chan struct{}
}

func newMemLog(partitions int) *memLog {
	return &memLog{gapless: true, parts: map[log.Partition][]log.Record{}, ends: map[log.Partition]log.Offset{},
		topics: map[string]int{coreTopic: partitions}, moved: make(chan struct{})}
}

func (l *memLog) told(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *memLog) Append(ctx context.Context, records ...log.Record) ([]log.Offset, error) {
	if err := errors.Join(ctx.Err(), log.CheckRecords(records)); err != nil {
		return nil, err
	}
	l.mu.Lock()
	before, after := l.before, l.after
	l.mu.Unlock()
	for _, r := range records {
		if _, err := l.Topic(ctx, r.Topic); err != nil {
			return nil, err
		}
	}
	if before != nil {
		if err := before(records); err != nil {
			return nil, err
		}
	}
	offsets := l.write(records)
	if after != nil {
		if err := after(records); err != nil {
			return nil, err
		}
	}
	return offsets, nil
}

func (l *memLog) write(records []log.Record) []log.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	offsets, touched := make([]log.Offset, len(records)), map[log.Partition]bool{}
	records = slices.Clone(records)
	for i, r := range records {
		r = r.Clone() // its bytes are the caller's when Append returns
		records[i] = r
		r.Offset = l.ends[r.Partition]
		offsets[i] = r.Offset
		l.parts[r.Partition] = append(l.parts[r.Partition], r)
		l.ends[r.Partition]++
		touched[r.Partition] = true
	}
	if l.gap != nil {
		for p := range touched {
			l.ends[p] += l.gap()
		}
	}
	l.appends = append(l.appends, records)
	close(l.moved)
	l.moved = make(chan struct{})
	return offsets
}

func (l *memLog) Read(ctx context.Context, p log.Partition, from log.Offset, maxBytes int) ([]log.Record, error) {
	for {
		l.mu.Lock()
		all, moved, end := l.parts[p], l.moved, l.ends[p]
		l.mu.Unlock()
		if from > end {
			return nil, &log.RangeError{Partition: p, From: from, End: end}
		}
		i, _ := slices.BinarySearchFunc(all, from, func(r log.Record, at log.Offset) int { return int(r.Offset - at) })
		var got []log.Record
		for bytes := 0; i < len(all) && bytes < maxBytes; i++ {
			bytes += log.RecordLen(&all[i])
			got = append(got, all[i])
		}
		if len(got) > 0 {
			return got, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-moved:
		}
	}
}

// Bounds ends after the last record: what a log with gaps has to say too, or nobody could read to its end.
func (l *memLog) Bounds(_ context.Context, p log.Partition) (first, end log.Offset, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if all := l.parts[p]; len(all) > 0 {
		return all[0].Offset, all[len(all)-1].Offset + 1, nil
	}
	return 0, 0, nil
}

func (l *memLog) Topic(_ context.Context, name string) (log.TopicConfig, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.topics[name]
	if !ok {
		return log.TopicConfig{}, &log.TopicError{Partition: log.Partition{Topic: name}, Err: log.ErrUnknownTopic}
	}
	return log.TopicConfig{Name: name, Partitions: n}, nil
}

func (l *memLog) Features() log.Features { return log.Features{GaplessOffsets: l.gapless} }

// world is a node over a log, with what may be chosen.
type world struct {
	testing.TB
	log        log.Log
	mem        *memLog // the log, if it is in memory
	fs         vfs.FS
	partitions int
	machine    Machine
	options    func(*Options)
	memTable   uint64
	store      *Store
	node       *Node
	fatal      chan error
}

func newWorld(t testing.TB, partitions int) *world {
	l := newMemLog(partitions)
	return &world{TB: t, log: l, mem: l, fs: vfs.NewMem(), partitions: partitions, machine: toy{}}
}

func (w *world) storeOptions() StoreOptions {
	return StoreOptions{Dir: "state", Version: "toy/1", Partitions: w.partitions, FS: w.fs, MemTableBytes: cmp.Or(w.memTable, 256<<10), Fatal: func(err error) { w.Error("store:", err) }}
}

func (w *world) tryOpen() (err error) {
	w.Helper()
	if w.store, err = OpenStore(w.storeOptions()); err != nil {
		return err
	}
	w.fatal = make(chan error, 1)
	fatal := w.fatal
	o := Options{
		Log: w.log, Topic: coreTopic, Owner: All(w.partitions), Store: w.store, Facts: toyFacts(),
		Machines: map[byte]Machine{toyByte: w.machine}, Order: []byte{toyByte}, Fatal: func(err error) { fatal <- err },
	}
	if w.options != nil {
		w.options(&o)
	}
	if w.node, err = Open(context.Background(), o); err != nil {
		return errors.Join(err, w.store.Close())
	}
	return nil
}

func (w *world) open() *world {
	w.Helper()
	if err := w.tryOpen(); err != nil {
		w.Fatal(err)
	}
	return w
}

// close ends the node as it should, and checks that its rows are those of a fresh replay (F2, V1).
func (w *world) close() {
	w.Helper()
	if err := w.node.Close(); err != nil {
		w.Fatal(err)
	}
	w.equalsReplay()
	if err := w.store.Close(); err != nil {
		w.Fatal(err)
	}
}

// kill ends the node without any check.
func (w *world) kill() {
	_ = w.node.Close()
	_ = w.store.Close()
}

func (w *world) do(p int32, c Command) any {
	w.Helper()
	r, err := w.node.Do(context.Background(), p, c)
	if err != nil {
		w.Fatalf("%T: %v", c, err)
	}
	return r.Answer
}

// row reads from what has landed.
func get[V any](w *world, p int32, table Table[V], key string) (v V, ok bool) {
	w.Helper()
	err := w.node.Read(p, func(rows Scanner, _ log.Offset) error {
		v, ok = table.Get(rows, key)
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return v, ok
}

func (w *world) loop(p int32) *loop { return w.node.loops[p] }

// machineView follows with a machine's Apply.
type machineView struct{ Machine }

func (machineView) Name() string { return "machine" }

// replayed folds partition p up to an offset into a new store, and returns its digest.
func replayed(t testing.TB, l log.Log, p int32, partitions int, to log.Offset) (digest [32]byte) {
	t.Helper()
	s, err := OpenStore(StoreOptions{Dir: "replay", Version: "toy/1", Partitions: partitions, FS: vfs.NewMem(), MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := Replay(context.Background(), l, coreTopic, toyFacts(), Followed{machineView{toy{}}, s}, p, to); err != nil {
		t.Fatal(err)
	}
	digest, at, err := s.Digest(p)
	if err != nil || at != to {
		t.Fatalf("replay of partition %d to %d came to %d: %v", p, to, at, err)
	}
	return digest
}

func (w *world) equalsReplay() {
	w.Helper()
	for p := range int32(w.partitions) {
		got, at, err := w.store.Digest(p)
		if err != nil {
			w.Fatal(err)
		}
		if want := replayed(w, w.log, p, w.partitions, at); got != want {
			w.Fatalf("partition %d at %d: digest %x, a fresh replay has %x", p, at, got[:4], want[:4])
		}
	}
}

// hold makes appends wait until release; each that waits is told on arrived.
func (l *memLog) hold() (arrived chan struct{}, release func()) {
	arrived, gate := make(chan struct{}, 1024), make(chan struct{})
	l.told(func() {
		l.before = func([]log.Record) error {
			arrived <- struct{}{}
			<-gate
			return nil
		}
	})
	return arrived, sync.OnceFunc(func() {
		l.told(func() { l.before = nil })
		close(gate)
	})
}

// gather has one turn decide all of the commands: it holds the append of one more, and submits them meanwhile. It returns the
// results, and how often each was answered.
func (w *world) gather(p int32, commands ...Command) []Result {
	w.Helper()
	arrived, release := w.mem.hold()
	first := make(chan Result, 1)
	w.submit(p, add{name: "gather", n: 1}, func(r Result) { first <- r })
	<-arrived
	results := make([]Result, len(commands))
	var all sync.WaitGroup
	for i, c := range commands {
		all.Add(1)
		w.submit(p, c, func(r Result) { results[i] = r; all.Done() })
	}
	release()
	<-first
	all.Wait()
	return results
}

func (w *world) submit(p int32, c Command, done func(Result)) {
	w.Helper()
	if err := w.node.Submit(p, c, done); err != nil {
		w.Fatal(err)
	}
}

// rowsOf returns all rows of a partition as the store has them.
func rowsOf(t testing.TB, s *Store, p int32) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := s.Read(p, func(rows Scanner, _ log.Offset) error {
		maps.Insert(all, func(yield func(string, string) bool) {
			for k, v := range rows.scan("\x01", "\xff", false) {
				if !yield(k, string(v)) {
					return
				}
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
