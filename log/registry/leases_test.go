package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/registry"
)

const (
	lease = 30 * time.Second
	slack = 100 * time.Millisecond // what is due is looked at within it
)

func instance(producer, name string) registry.Instance {
	return registry.Instance{Producer: producer, Name: name, URL: "http://10.0.0.1/" + name, Lease: lease.Milliseconds()}
}

// enlist registers an instance, or renews it, and returns whether it is new.
func (w *world) enlist(i registry.Instance) bool {
	w.t.Helper()
	added, err := w.Enlist(context.Background(), i)
	if err != nil {
		w.t.Errorf("%+v: %v", i, err)
	}
	return added
}

// live is the names of a producer's instances.
func (w *world) live(producer string) string {
	var names []string
	for _, i := range w.Instances(producer) {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

func (w *world) expect(what, producer, names string) {
	w.t.Helper()
	if got := w.live(producer); got != names {
		w.t.Errorf("%s: %q live, want %q", what, got, names)
	}
}

// types are the types of all events that were written since an offset, without what they have in common.
func (l *gated) types(from log.Offset) string {
	var types []string
	if from == l.end() {
		return ""
	}
	records, err := l.Read(context.Background(), ownPartition, from, 1<<30)
	if err != nil {
		panic(err)
	}
	for _, r := range records {
		e, _ := log.ParseRecord(r)
		types = append(types, strings.TrimSuffix(strings.TrimPrefix(e.Type, "remit."), ".v1")+" "+e.Key)
	}
	return strings.Join(types, ", ")
}

// A lease that is renewed goes on and nothing of it is written; one that is not ends once, at its time, as an event (R5).
func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated()
		w := newWorldOn(t, g)
		defer w.end()
		if _, err := w.Enlist(t.Context(), instance("shop", "a")); !errors.Is(err, registry.ErrUnknownProducer) {
			t.Error(err)
		}
		w.register(registry.Producer{Name: "shop"})
		from := g.end()
		if !w.enlist(instance("shop", "b")) || !w.enlist(instance("shop", "a")) || w.enlist(instance("shop", "a")) {
			t.Error("an instance is new once")
		}
		w.expect("registered", "shop", "a b")
		for range 360 {
			time.Sleep(10 * time.Second)
			if w.enlist(instance("shop", "a")) {
				t.Error("a renewed lease has ended")
			}
			if n := len(w.Instances("shop")); n > 2 || n < 1 {
				t.Errorf("%d live", n)
			}
		}
		const hour = "instance.registered shop/b, instance.registered shop/a, instance.expired shop/b"
		if got := g.types(from); got != hour {
			t.Errorf("written: %s; want %s", got, hour)
		}
		changed := w.Changed()
		time.Sleep(lease - slack)
		w.expect("just before its end", "shop", "a")
		time.Sleep(2 * slack)
		w.expect("just after its end", "shop", "")
		if got := g.types(from); got != hour+", instance.expired shop/a" || !closed(changed) {
			t.Errorf("written: %s; changed %t", got, closed(changed))
		}
		if n := w.Known(); n != 0 {
			t.Errorf("something is known of %d leases that have ended", n)
		}
		if !w.enlist(instance("shop", "a")) || w.enlist(instance("shop", "a")) {
			t.Error("after its end it is new, once")
		}
		time.Sleep(lease / 2)
		w.enlist(instance("shop", "a"))
		time.Sleep(lease / 2) // its end is looked at, and was put off meanwhile
		was := g.end()
		if err := w.Expire(t.Context(), "shop", "a"); !errors.Is(err, registry.ErrHeard) || g.end() != was {
			t.Errorf("the end of a lease that was renewed: %v", err)
		}
		if err := w.Expire(t.Context(), "shop", "gone"); err != nil || g.end() != was {
			t.Errorf("the end of a lease that is gone: %v", err)
		}
	})
}

// What is registered anew has another URL or lease, and its lease begins anew. What leaves is gone at once, and what its producer takes with it is not
// ended one by one.
func TestLeaseChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated()
		w := newWorldOn(t, g)
		defer w.end()
		w.register(registry.Producer{Name: "shop"})
		from := g.end()
		i := instance("shop", "a")
		w.enlist(i)
		time.Sleep(lease - time.Second)
		i.URL = "http://10.0.0.2/a"
		if w.enlist(i) {
			t.Error("it was there")
		}
		time.Sleep(lease - time.Second)
		if got, ok := w.Instance("shop", "a"); !ok || got != i {
			t.Errorf("%+v %t", got, ok)
		}
		i.Lease *= 2
		w.enlist(i)
		time.Sleep(2*lease - time.Second)
		w.expect("with a longer lease", "shop", "a")
		i.Lease = 1000
		w.enlist(i)
		time.Sleep(time.Second + slack)
		w.expect("with a short one", "shop", "")
		w.enlist(instance("shop", "b"))
		w.enlist(instance("shop", "c"))
		w.enlist(instance("shop", "b")) // renewed, so that something is known of them
		w.enlist(instance("shop", "c"))
		if err := w.Leave(t.Context(), "shop", "b"); err != nil {
			t.Error(err)
		}
		w.expect("after one left", "shop", "c")
		for _, of := range []string{"shop", "nobody"} {
			if err := w.Leave(t.Context(), of, "b"); !errors.Is(err, registry.ErrUnknownInstance) {
				t.Error(err)
			}
		}
		if err := w.Remove(t.Context(), "shop"); err != nil {
			t.Error(err)
		}
		w.expect("without its producer", "shop", "")
		w.register(registry.Producer{Name: "shop"})
		w.expect("with its producer again", "shop", "")
		time.Sleep(time.Hour)
		if n := w.Known(); n != 0 {
			t.Errorf("something is known of %d leases that are gone", n)
		}
		const want = "instance.registered shop/a, instance.registered shop/a, instance.registered shop/a, instance.registered shop/a, instance.expired shop/a, " +
			"instance.registered shop/b, instance.registered shop/c, instance.left shop/b, producer.removed shop, producer.registered shop"
		if got := g.types(from); got != want {
			t.Errorf("written: %s\nwant %s", got, want)
		}
	})
}

// After a restart, however long remit was down, every lease gets one full term, and then ends (R5).
func TestLeasesAfterRestart(t *testing.T) {
	for _, c := range []struct{ before, down time.Duration }{{lease - time.Second, 0}, {time.Second, time.Hour}, {0, lease}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorldOn(t, newGated())
			defer func() { w.end() }()
			w.register(registry.Producer{Name: "shop"})
			w.enlist(instance("shop", "a"))
			w.enlist(instance("shop", "b"))
			time.Sleep(c.before)
			w.close()
			time.Sleep(c.down)
			w.open()
			time.Sleep(lease - slack)
			w.expect("within the term", "shop", "a b")
			w.enlist(instance("shop", "b"))
			time.Sleep(2 * slack)
			w.expect("after it", "shop", "b")
			time.Sleep(lease)
			w.expect("after two", "shop", "")
		})
	}
}

// Ten thousand instances renew every ten seconds: nothing is written, none is lost, and none that has gone silent stays (R5).
func TestRenewalStorm(t *testing.T) {
	const of, each = 200, 50
	synctest.Test(t, func(t *testing.T) {
		g := newGated()
		w := newWorldOn(t, g)
		defer w.end()
		storm := func(each int) {
			var all sync.WaitGroup
			for p := range of {
				all.Go(func() {
					for i := range each {
						w.enlist(instance(fmt.Sprint("p", p), fmt.Sprint(i)))
					}
				})
			}
			all.Wait()
		}
		live := func() (n int) {
			for p := range of {
				n += len(w.Instances(fmt.Sprint("p", p)))
			}
			return n
		}
		for p := range of {
			w.register(registry.Producer{Name: fmt.Sprint("p", p)})
		}
		storm(each)
		end := g.end()
		for range 18 {
			time.Sleep(10 * time.Second)
			storm(each)
		}
		if now := g.end(); now != end || live() != of*each {
			t.Errorf("%d records, then %d; %d live", end, now, live())
		}
		for range 4 {
			time.Sleep(10 * time.Second)
			storm(each / 2)
		}
		if now := g.end(); now != end+of*each/2 || live() != of*each/2 {
			t.Errorf("half went silent: %d records more, %d live", now-end, live())
		}
	})
}

// A renewal that crosses the end of its lease is not lost: who was told that it is renewed is registered, whichever came first.
func TestRenewalAtTheEnd(t *testing.T) {
	for _, refusal := range []error{nil, log.ErrDiskFull} {
		synctest.Test(t, func(t *testing.T) {
			g := newGated()
			w := newWorldOn(t, g)
			defer w.end()
			w.register(registry.Producer{Name: "shop"})
			w.enlist(instance("shop", "a"))
			from, release := g.end(), g.hold()
			time.Sleep(lease + slack) // its end waits at the log
			answered := make(chan bool, 1)
			go func() { answered <- w.enlist(instance("shop", "a")) }()
			synctest.Wait()
			if len(answered) > 0 {
				t.Error("it was renewed although its end is on its way")
			}
			release(refusal)
			if added := <-answered; added != (refusal == nil) {
				t.Errorf("%v: new %t", refusal, added)
			}
			w.expect("then", "shop", "a")
			g.set(nil, nil)
			time.Sleep(lease - slack)
			w.expect("a term later", "shop", "a")
			want := ""
			if refusal == nil {
				want = "instance.expired shop/a, instance.registered shop/a"
			}
			if got := g.types(from); got != want {
				t.Errorf("%v: written: %s", refusal, got)
			}
			time.Sleep(2 * slack)
			w.expect("and then", "shop", "")
		})
	}
}

// Leases renewed and left alone at random, with restarts: an instance is live if it was heard of within its term, and never without.
func TestLeasesAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOn(t, newGated())
		defer func() { w.end() }()
		w.register(registry.Producer{Name: "shop"})
		const instances = 20
		heard, started := make([]time.Time, instances), time.Now()
		for step := range 2000 {
			i := step * 7 % instances
			if step%(3+i) == 0 { // each at a distance of its own
				w.enlist(instance("shop", fmt.Sprint(i)))
				heard[i] = time.Now()
			}
			if step%331 == 330 {
				w.close()
				w.open()
				started = time.Now()
			}
			time.Sleep(500 * time.Millisecond)
			for i, at := range heard {
				if at.IsZero() {
					continue
				}
				_, live := w.Instance("shop", fmt.Sprint(i))
				silent := time.Since(at)
				if at.Before(started) && time.Since(started) <= lease+slack {
					continue // it may have had its end before the restart, or has its full term
				}
				if silent < lease-slack && !live || silent > lease+slack && live {
					t.Fatalf("step %d: instance %d, silent for %s, live %t", step, i, silent, live)
				}
			}
		}
	})
}

// What has gone leaves no row behind, no due row either: the state is that of as many events about nothing.
func TestNothingStays(t *testing.T) {
	digest := func(steps ...func(w *world) error) string {
		w := newWorldOn(t, newGated())
		defer w.end()
		for i, step := range steps {
			if err := step(w); err != nil {
				t.Errorf("step %d: %v", i, err)
			}
		}
		sum, at, err := w.store.Digest(0)
		return fmt.Sprintf("%d %x %v", at, sum, err)
	}
	ctx := t.Context()
	producer := func(interval int64) func(*world) error {
		return func(w *world) error {
			w.register(registry.Producer{Name: "shop", Check: registry.Check{Interval: interval}})
			return nil
		}
	}
	enlist := func(name string, lease int64) func(*world) error {
		return func(w *world) error {
			_, err := w.Enlist(ctx, registry.Instance{Producer: "shop", Name: name, URL: "http://a", Lease: lease})
			return err
		}
	}
	leave := func(w *world) error { return w.Leave(ctx, "shop", "a") }
	remove := func(w *world) error { return w.Remove(ctx, "shop") }
	want := digest(producer(1), producer(2), producer(3), producer(4), producer(5), remove)
	for what, got := range map[string]string{
		"left":            digest(producer(1), enlist("a", 60_000), enlist("a", 70_000), leave, producer(2), remove),
		"with a producer": digest(producer(1), enlist("b", 60_000), enlist("a", 60_000), enlist("b", 70_000), enlist("a", 70_000), remove),
	} {
		if got != want {
			t.Errorf("%s: %s\nwant %s", what, got, want)
		}
	}
}
