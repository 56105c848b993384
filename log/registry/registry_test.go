package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

func openLog(t testing.TB, fs vfs.FS) *embedded.Log {
	t.Helper()
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs, BallastBytes: -1, FreeFloorBytes: -1, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The first record fixes the number of partitions; another one is refused with the number to use (R1).
func TestPartitions(t *testing.T) {
	fs := vfs.NewMem()
	l := openLog(t, fs)
	for _, n := range []int{-1, 0, 3, 2048} {
		if _, err := registry.Create(t.Context(), l, n, time.Now()); !errors.Is(err, log.ErrInvalid) {
			t.Errorf("%d: %v", n, err)
		}
	}
	made, err := registry.Create(t.Context(), l, 8, time.Now()) // what was refused has left nothing
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, fs)
	defer l.Close()
	again, err := registry.Create(t.Context(), l, 8, time.Now())
	if err != nil || again != made {
		t.Errorf("%+v %v, made was %+v", again, err, made)
	}
	for _, n := range []int{4, 16} {
		if _, err := registry.Create(t.Context(), l, n, time.Now()); !errors.Is(err, registry.ErrPartitions) || !strings.Contains(err.Error(), "--partitions 8") {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// A start that died after any of its writes is taken up by the next (R1).
func TestCreateTakenUp(t *testing.T) {
	for died := 0; ; died++ {
		fs := vfs.NewCrashableMem()
		l := openLog(t, fs)
		_, err := registry.Create(t.Context(), &dying{l, died}, 4, time.Now())
		clone := fs.CrashClone(vfs.CrashCloneCfg{})
		if cerr := l.Close(); cerr != nil {
			t.Fatal(cerr)
		}
		if err == nil {
			if died < 4 {
				t.Errorf("a log is made in %d writes", died)
			}
			return
		}
		if !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		l = openLog(t, clone)
		if c, err := registry.Create(t.Context(), l, 4, time.Now()); err != nil || c.Partitions != 4 {
			t.Errorf("after %d writes: %+v %v", died, c, err)
		}
		if _, end, err := l.Bounds(t.Context(), log.Partition{Topic: log.RegistryTopic}); err != nil || end != 1 {
			t.Errorf("after %d writes the registry has %d records, %v", died, end, err)
		}
		_ = l.Close()
	}
}

var errDied = errors.New("died")

// dying is a log whose process dies before its next write but so many.
type dying struct {
	*embedded.Log
	left int
}

func (l *dying) dies() bool { l.left--; return l.left < 0 }

func (l *dying) CreateTopic(ctx context.Context, c log.TopicConfig) error {
	if l.dies() {
		return errDied
	}
	return l.Log.CreateTopic(ctx, c)
}

func (l *dying) Append(ctx context.Context, records ...log.Record) ([]log.Offset, error) {
	if l.dies() {
		return nil, errDied
	}
	return l.Log.Append(ctx, records...)
}

// world is a registry, with its rows on a disk in memory.
type world struct {
	*registry.Registry
	t     testing.TB
	fs    vfs.FS
	log   log.Log
	store *fold.Store
}

// newWorld is a registry on an embedded log.
func newWorld(t testing.TB) *world { return newWorldOn(t, openLog(t, vfs.NewMem())) }

func newWorldOn(t testing.TB, l log.Log) *world {
	t.Helper()
	if _, err := registry.Create(t.Context(), l, 4, time.Now()); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, fs: vfs.NewMem(), log: l}
	return w.open()
}

func (w *world) open() *world {
	w.t.Helper()
	fatal := func(err error) { w.t.Errorf("fatal: %v", err) }
	var err error
	if w.store, err = fold.OpenStore(fold.StoreOptions{Dir: "state", Version: "registry", Partitions: 1, FS: w.fs, Fatal: fatal}); err != nil {
		w.t.Fatal(err)
	}
	if w.Registry, err = registry.Open(w.t.Context(), fold.Options{Log: w.log, Store: w.store, Fatal: fatal}); err != nil {
		w.t.Fatal(err)
	}
	return w
}

// close ends the registry, and leaves the log open.
func (w *world) close() {
	if err := errors.Join(w.Registry.Close(), w.store.Close()); err != nil {
		w.t.Error(err)
	}
}

func (w *world) end() {
	w.close()
	if err := w.log.Close(); err != nil {
		w.t.Error(err)
	}
}

// register registers a producer, and returns whether it is new.
func (w *world) register(p registry.Producer) bool {
	w.t.Helper()
	_, added, err := w.Register(w.t.Context(), registry.Register{Producer: p})
	if err != nil {
		w.t.Error(err)
	}
	return added
}

// Producers are registered, repeated, changed and removed, each as an event with an id of its own (R2).
func TestProducers(t *testing.T) {
	w := newWorld(t)
	defer w.end()
	for i, want := range []bool{true, false, false} {
		p := registry.Producer{Name: "shop", Check: registry.Check{Interval: int64(i / 2)}}
		if added := w.register(p); added != want {
			t.Errorf("%d: %t", i, added)
		}
	}
	if err := w.Remove(t.Context(), "nobody"); !errors.Is(err, registry.ErrUnknownProducer) {
		t.Error(err)
	}
	var wait sync.WaitGroup
	for i := range 64 { // many in one turn, and so in one millisecond
		wait.Go(func() {
			w.register(registry.Producer{Name: "busy", Check: registry.Check{Interval: int64(i % 2)}})
			if err := w.Remove(t.Context(), "busy"); err != nil && !errors.Is(err, registry.ErrUnknownProducer) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	w.close()
	w.open()
	if all := w.Producers(); fmt.Sprint(all) != fmt.Sprint([]registry.Producer{{Name: "shop", Check: registry.Check{Interval: 1}}}) {
		t.Errorf("%+v", all)
	}
	ids, count := map[string]bool{}, 0
	_, end, err := w.log.Bounds(t.Context(), log.Partition{Topic: log.RegistryTopic})
	for at := log.Offset(0); at < end && err == nil; {
		var records []log.Record
		records, err = w.log.Read(t.Context(), log.Partition{Topic: log.RegistryTopic}, at, 1<<20)
		for _, rec := range records {
			e, _ := log.ParseRecord(rec)
			ids[e.ID] = true
			count, at = count+1, rec.Offset+1
		}
	}
	if err != nil || len(ids) != count {
		t.Errorf("%d events have %d ids, %v", count, len(ids), err)
	}
}

// There is a bound to everything that is registered; past it nothing new is taken, and what is there may still be changed.
func TestBounds(t *testing.T) {
	w := newWorldOn(t, newGated())
	defer w.end()
	full := func(what string, n int, add func(i int) error, remove func() error) {
		t.Helper()
		var all sync.WaitGroup
		for part := range 50 {
			all.Go(func() {
				for i := part; i < n; i += 50 {
					if err := add(i); err != nil {
						t.Errorf("%s %d: %v", what, i, err)
					}
				}
			})
		}
		all.Wait()
		if err := add(n); !errors.Is(err, registry.ErrFull) {
			t.Errorf("%s: one more is answered %v", what, err)
		}
		if err := add(n / 2); err != nil {
			t.Errorf("%s: one that is there: %v", what, err)
		}
		if err := errors.Join(remove(), add(n)); err != nil {
			t.Errorf("%s: after one was removed: %v", what, err)
		}
		if err := add(n + 1); !errors.Is(err, registry.ErrFull) {
			t.Errorf("%s: then one more is answered %v", what, err)
		}
	}
	ctx := t.Context()
	full("producer", registry.ProducersMax, func(i int) error {
		_, _, err := w.Register(ctx, registry.Register{Producer: registry.Producer{Name: fmt.Sprint(i)}})
		return err
	}, func() error { return w.Remove(ctx, "0") })
	full("subscription", registry.SubscriptionsMax, func(i int) error {
		_, _, err := w.Subscribe(ctx, registry.Subscribe{Subscription: registry.Subscription{Name: fmt.Sprint(i), Topic: "t"}})
		return err
	}, func() error { return w.Unsubscribe(ctx, "0") })
	full("instance", registry.InstancesMax, func(i int) error {
		_, err := w.Enlist(ctx, registry.Instance{Producer: "1", Name: fmt.Sprint(i), URL: "http://a", Lease: 60_000})
		return err
	}, func() error { return w.Leave(ctx, "1", "0") })
	if n := len(w.Producers()); n != registry.ProducersMax {
		t.Errorf("%d producers", n)
	}
}

// A subscription begins where it was first registered, or at the beginning. Its topic and its beginning never change; one of the same name that was
// removed is another one.
func TestSubscriptions(t *testing.T) {
	w := newWorld(t)
	defer w.end()
	put := func(topic, sink string, start registry.Start) (registry.Subscription, bool, error) {
		return w.Subscribe(t.Context(), registry.Subscribe{Subscription: registry.Subscription{Name: "crm", Topic: topic, Sink: sink}, Start: start})
	}
	before := time.Now().UnixMilli()
	first, added, err := put("orders", "a", registry.StartGiven)
	if err != nil || !added || first.From < before || first.From != first.Registered || first.Start() != registry.StartLatest {
		t.Errorf("%+v %t %v", first, added, err)
	}
	for _, start := range []registry.Start{registry.StartGiven, registry.StartLatest} {
		again, added, err := put("orders", "b", start)
		want := first
		want.Sink = "b"
		if err != nil || added || again != want {
			t.Errorf("%q: %+v %t %v", start, again, added, err)
		}
	}
	for _, c := range []struct {
		topic    string
		start    registry.Start
		field    string
		recorded string
	}{{"other", "", "topic", "orders"}, {"other", "earliest", "topic", "orders"}, {"orders", "earliest", "from", "latest"}} {
		var fixed *registry.FixedError
		if _, _, err := put(c.topic, "c", c.start); !errors.As(err, &fixed) || fixed.Field != c.field || fixed.Recorded != c.recorded || fixed.Name != "crm" {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if s, _ := w.Subscription("crm"); s.Sink != "b" {
		t.Errorf("%+v", s)
	}
	if err := errors.Join(w.Unsubscribe(t.Context(), "crm")); err != nil {
		t.Error(err)
	}
	if err := w.Unsubscribe(t.Context(), "crm"); !errors.Is(err, registry.ErrUnknownSubscription) {
		t.Error(err)
	}
	second, added, err := put("other", "a", registry.StartEarliest)
	if err != nil || !added || second.From != 0 || second.Start() != registry.StartEarliest || second.Registered < first.Registered {
		t.Errorf("%+v %t %v", second, added, err)
	}
	if _, _, err := put("other", "a", registry.StartEarliest); err != nil {
		t.Error(err)
	}
}
