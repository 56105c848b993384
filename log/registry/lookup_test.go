package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/registry"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A lookup shows what is durable, and nothing before or beside it; Changed is closed by the durable change, and by that alone (R3).
func TestLookupsAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated()
		w := newWorldOn(t, g)
		defer w.end()
		for _, refusal := range []error{log.ErrDiskFull, nil} {
			release, changed := g.hold(), w.Changed()
			answered := make(chan error, 3)
			go func() {
				_, _, err := w.Register(t.Context(), registry.Register{Producer: registry.Producer{Name: "shop"}})
				answered <- err
			}()
			go func() {
				_, _, err := w.Subscribe(t.Context(), registry.Subscribe{Subscription: registry.Subscription{Name: "crm", Topic: "orders"}})
				answered <- err
			}()
			synctest.Wait()
			if _, ok := w.Producer("shop"); ok || len(w.Producers()) > 0 || len(w.Subscriptions()) > 0 || closed(changed) {
				t.Errorf("%v: it shows before it is durable", refusal)
			}
			release(refusal)
			for range 2 {
				if err := <-answered; !errors.Is(err, refusal) {
					t.Errorf("%v: %v", refusal, err)
				}
			}
			_, producer := w.Producer("shop")
			_, subscription := w.Subscription("crm")
			if want := refusal == nil; producer != want || subscription != want || len(w.Producers()) == 1 != want || closed(changed) != want {
				t.Errorf("%v: producer %t, subscription %t, changed %t", refusal, producer, subscription, closed(changed))
			}
		}
		changed := w.Changed()
		if w.register(registry.Producer{Name: "shop"}) || closed(changed) {
			t.Error("what changes nothing is a change")
		}
	})
}

// shown is all that can be looked up.
func (w *world) shown() string {
	s := fmt.Sprintln(w.Producers(), w.Subscriptions())
	for i := range 6 {
		name := fmt.Sprint("p", i)
		p, ok := w.Producer(name)
		s += fmt.Sprintln(name, p, ok, w.Instances(name))
	}
	return s
}

// Whatever is registered and removed in whatever order, lookups show after each step what they show after a restart, which reads the rows, and after the
// rows were made again from the log.
func TestLookupsAreTheRows(t *testing.T) {
	w := newWorld(t)
	defer w.end()
	rng := rand.New(rand.NewPCG(1, 2))
	expected := []error{registry.ErrUnknownProducer, registry.ErrUnknownInstance, registry.ErrUnknownSubscription}
	for range 40 {
		for range 20 {
			ctx, name, some := t.Context(), fmt.Sprint("p", rng.IntN(6)), fmt.Sprint(rng.IntN(3))
			var err error
			switch rng.IntN(7) {
			case 0, 1:
				_, _, err = w.Register(ctx, registry.Register{Producer: registry.Producer{Name: name, Check: registry.Check{URL: some, Secret: registry.Secret{Now: some}}}})
			case 2, 3:
				_, err = w.Enlist(ctx, registry.Instance{Producer: name, Name: fmt.Sprint(rng.IntN(5)), URL: some, Lease: 60_000})
			case 4:
				err = w.Leave(ctx, name, fmt.Sprint(rng.IntN(5)))
			case 5:
				err = w.Remove(ctx, name)
			case 6:
				_, _, err = w.Subscribe(ctx, registry.Subscribe{Subscription: registry.Subscription{Name: name, Topic: "t", Sink: some}})
				if rng.IntN(2) == 0 {
					err = errors.Join(err, w.Unsubscribe(ctx, name))
				}
			}
			if err != nil && !errors.Is(err, expected[0]) && !errors.Is(err, expected[1]) && !errors.Is(err, expected[2]) {
				t.Fatal(err)
			}
		}
		was := w.shown()
		w.close()
		if rng.IntN(2) == 0 {
			if err := w.fs.RemoveAll("state"); err != nil {
				t.Fatal(err)
			}
		}
		w.open()
		if now := w.shown(); now != was {
			t.Fatalf("before the restart\n%safter it\n%s", was, now)
		}
	}
}

// What a lookup has shown is there after a crash at that very moment, whatever the disk has lost of what was not synced (R3).
func TestShownSurvivesCrash(t *testing.T) {
	const writers = 8
	fs := vfs.NewCrashableMem()
	w := newWorldOn(t, openLog(t, fs))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for n := int64(1); ctx.Err() == nil; n++ { // each registers itself anew, again and again
				p := registry.Producer{Name: fmt.Sprint(i), Check: registry.Check{Interval: n}}
				if _, _, err := w.Register(t.Context(), registry.Register{Producer: p}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 8 {
		for range rng.IntN(10) + 1 {
			<-w.Changed()
		}
		shown := w.Producers()
		crashed := newWorldOn(t, openLog(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})))
		for _, was := range shown {
			if now, ok := crashed.Producer(was.Name); !ok || now.Check.Interval < was.Check.Interval {
				t.Errorf("round %d: %s was shown at %d, and is at %d after the crash", round, was.Name, was.Check.Interval, now.Check.Interval)
			}
		}
		crashed.end()
	}
	cancel()
	all.Wait()
	w.end()
}

// BenchmarkLookup is what a prepare, or a check, looks up.
func BenchmarkLookup(b *testing.B) {
	w := newWorldOn(b, newGated())
	defer w.end()
	names := make([]string, registry.ProducersMax)
	for i := range names {
		names[i] = fmt.Sprint("producer-", i)
	}
	var all sync.WaitGroup
	for part := range 50 {
		all.Go(func() {
			for i := part; i < len(names); i += 50 {
				w.register(registry.Producer{Name: names[i], Check: registry.Check{URL: "https://orders.example/check"}})
				for j := range 4 {
					w.enlist(registry.Instance{Producer: names[i], Name: fmt.Sprint(j), URL: "https://orders.example/check", Lease: 60_000})
				}
			}
		})
	}
	all.Wait()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := w.Producer(names[i%len(names)]); !ok || len(w.Instances(names[i%len(names)])) != 4 {
			b.Error(i)
		}
	}
}
