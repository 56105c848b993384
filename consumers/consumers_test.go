package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/consumerstest"
	"github.com/remitlog/remit/log"
)

var p0 = log.Partition{Topic: "orders", Index: 0}

// record is an event of a key.
func record(p log.Partition, key, id string) log.Record {
	e := log.Event{ID: id, Source: "/shop", Type: "order.placed.v1", Key: key, DataContentType: log.JSONContentType, Data: []byte(`{}`)}
	return e.Record(p)
}

// shop is a service under test: what it handled, and what its Consumer told.
type shop struct {
	t       *testing.T
	broker  *consumerstest.Broker
	options consumers.Options

	mu        sync.Mutex
	handled   []string // event ids, in the order in which they were handled
	started   []string
	parked    []string
	retried   []time.Duration
	uncommits int
	paused    int
	left      int
}

func newShop(t *testing.T, partitions int) *shop {
	s := &shop{t: t, broker: consumerstest.NewBroker(map[string]int{"orders": partitions})}
	s.options = consumers.Options{Group: "shop", Topics: []string{"orders"}, Handler: func(context.Context, consumers.Delivery) error { return nil }}
	s.options.Listener = consumers.Listener{
		Started: func(d consumers.Delivery) { s.note(&s.started, d.Event.ID()) },
		Handled: func(d consumers.Delivery, _ time.Duration) { s.note(&s.handled, d.Event.ID()) },
		Parked:  func(d consumers.Delivery, reason string) { s.note(&s.parked, d.Event.ID()+": "+reason) },
		Retried: func(_ consumers.Delivery, _ error, after time.Duration) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.retried = append(s.retried, after)
		},
		NotCommitted: func(map[log.Partition]log.Offset, error) { s.uncommits++ },
		Paused:       func(log.Partition) { s.paused++ },
		Revoked: func(_ []log.Partition, _ bool, left int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.left += left
		},
	}
	return s
}

func (s *shop) note(to *[]string, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = append(*to, id)
}

// run starts a member; stop ends it in order and returns what Run did.
func (s *shop) run(r *consumerstest.Reader) (stop func() error) {
	s.t.Helper()
	o := s.options
	o.Reader = r
	c, err := consumers.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	synctest.Wait()
	return func() error {
		cancel()
		return <-ended
	}
}

func (s *shop) stopped(stop func() error) {
	s.t.Helper()
	if err := stop(); err != nil {
		s.t.Error(err)
	}
}

func (s *shop) wantHandled(ids ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.handled, ids) {
		s.t.Errorf("handled %q, not %q", s.handled, ids)
	}
}

func (s *shop) wantParked(ids ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.parked)
	if !slices.Equal(s.parked, ids) {
		s.t.Errorf("parked %q, not %q", s.parked, ids)
	}
}

func (s *shop) wantCommitted(next log.Offset) {
	s.t.Helper()
	if at := s.broker.Committed("shop", p0); at != next {
		s.t.Errorf("%d is committed, not %d", at, next)
	}
}

var errFails = errors.New("fails")

// fails makes a handler that fails for a key.
func fails(key string, err error) consumers.Handler {
	return func(_ context.Context, d consumers.Delivery) error {
		if string(d.Record.Key) == key {
			return err
		}
		return nil
	}
}

// TestOrder is U3: one at a time and in order within a key, side by side over keys, never more than WorkersMax.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 2)
		busy, busyMax, byKey := 0, 0, map[string]int{}
		s.options.WorkersMax = 4
		s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
			key := string(d.Record.Key)
			s.mu.Lock()
			busy++
			busyMax = max(busyMax, busy)
			if byKey[key]++; byKey[key] > 1 {
				t.Errorf("two of key %s at once", key)
			}
			s.mu.Unlock()
			time.Sleep(time.Duration(1+len(d.Event.ID())*7%5) * time.Millisecond)
			s.mu.Lock()
			busy--
			byKey[key]--
			s.mu.Unlock()
			return nil
		}
		want := map[string][]string{}
		for i := range 300 {
			key := fmt.Sprint("k", i%9)
			id := key + strings.Repeat("x", i*i%13) + fmt.Sprint("-", i)
			s.broker.Append(record(log.Partition{Topic: "orders", Index: log.KeyPartition(key, 2)}, key, id))
			want[key] = append(want[key], id)
		}
		stop := s.run(s.broker.Reader())
		time.Sleep(time.Minute)
		s.stopped(stop)
		got := map[string][]string{}
		for _, id := range s.handled {
			got[id[:2]] = append(got[id[:2]], id)
		}
		if !maps.EqualFunc(want, got, slices.Equal) {
			t.Errorf("handled %v, not %v", got, want)
		}
		if busyMax != 4 {
			t.Errorf("%d at once at most, not 4", busyMax)
		}
	})
}

// TestKeyless: records without a key wait for nobody.
func TestKeyless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.Handler = func(ctx context.Context, d consumers.Delivery) error {
			if d.Event.ID() == "slow" {
				time.Sleep(5 * time.Second)
			}
			return nil
		}
		s.broker.Append(record(p0, "", "slow"), record(p0, "", "quick"))
		stop := s.run(s.broker.Reader())
		s.wantHandled("quick")
		s.stopped(stop)
	})
}

// TestRetry is U4: a failing key waits, ever longer and with jitter, and nobody waits with it.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.BackoffMin, s.options.BackoffMax = time.Second, 5*time.Second
		s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
			if d.Event.ID() == "a1" && d.Attempt < 6 {
				return errFails
			}
			return nil
		}
		s.broker.Append(record(p0, "a", "a1"), record(p0, "a", "a2"), record(p0, "b", "b1"))
		stop := s.run(s.broker.Reader())
		s.wantHandled("b1")
		time.Sleep(2 * time.Second)
		s.wantCommitted(0) // U1
		time.Sleep(time.Minute)
		s.wantHandled("b1", "a1", "a2")
		s.wantCommitted(3)
		for i, bound := range []time.Duration{1, 2, 4, 5, 5} {
			if bound *= time.Second; s.retried[i] <= bound/2 || s.retried[i] > bound {
				t.Errorf("attempt %d waited %s, not between %s and %s", i+2, s.retried[i], bound/2, bound)
			}
		}
		if len(s.retried) != 5 || s.retried[3] == s.retried[4] {
			t.Errorf("waited %v, without jitter", s.retried)
		}
		s.stopped(stop)
	})
}

// TestParked: what fails too often is set aside as it came, with the reason, and the next of its key goes on (U4).
func TestParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.AttemptsMax = 3
		s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
			if d.Event.ID() == "a1" {
				return errors.New("no such account:\n\t\xff" + strings.Repeat("é", 600))
			}
			return nil
		}
		first := record(p0, "a", "a1")
		first.Headers = append(first.Headers, log.Header{Key: "ce_parkedreason", Value: []byte("an earlier one")}, log.Header{Key: "own", Value: []byte("kept")})
		s.broker.Append(first, record(p0, "a", "a2"))
		stop := s.run(s.broker.Reader())
		time.Sleep(time.Minute)
		s.wantHandled("a2")
		s.wantCommitted(2)
		s.stopped(stop)

		parked := s.broker.Records("orders.parked")
		if len(parked) != 1 {
			t.Fatalf("%d records are parked, not 1", len(parked))
		}
		e, err := log.ParseRecord(parked[0])
		if err != nil {
			t.Fatal(err)
		}
		if e.ID != "a1" || e.Source != "/shop" || e.Key != "a" || string(e.Data) != `{}` || string(parked[0].Key) != "a" {
			t.Errorf("parked as %+v", e)
		}
		reason := e.Extensions[consumers.ParkedReason].(string)
		if !strings.HasPrefix(reason, "no such account:  \ufffdé") || len(reason) > consumers.ReasonMax {
			t.Errorf("reason %q", reason)
		}
		for name, want := range map[string]string{
			consumers.ParkedAttempts: "3", consumers.ParkedGroup: "shop", consumers.ParkedFrom: "orders",
			consumers.ParkedPartition: "0", consumers.ParkedOffset: "0",
		} {
			if got := e.Extensions[name]; got != want {
				t.Errorf("%s is %q, not %q", name, got, want)
			}
		}
		if at, err := time.Parse(time.RFC3339, e.Extensions[consumers.ParkedAt].(string)); err != nil || time.Since(at) > 2*time.Minute {
			t.Errorf("parked at %v, %v", at, err)
		}
		if !slices.ContainsFunc(parked[0].Headers, func(h log.Header) bool { return h.Key == "own" && string(h.Value) == "kept" }) {
			t.Error("a header that is no attribute is gone")
		}
	})
}

// TestParkedAtOnce: what no repetition mends, and a record that is no event.
func TestParkedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.Handler = fails("a", fmt.Errorf("order: %w", consumers.Refuse(errors.New("unknown currency"))))
		s.broker.Append(record(p0, "a", "a1"), log.Record{Partition: p0, Key: []byte("c"), Value: []byte("plain")}, record(p0, "b", "b1"))
		stop := s.run(s.broker.Reader())
		s.wantHandled("b1")
		s.wantParked(": log: not a CloudEvent: attribute \"specversion\": missing; every event has one, and it is 1.0", "a1: unknown currency")
		s.stopped(stop)
		s.wantCommitted(3)
		for _, r := range s.broker.Records("orders.parked") {
			if string(r.Key) == "c" && string(r.Value) != "plain" {
				t.Errorf("parked value %q", r.Value)
			}
		}
	})
}

// TestNotEvent: who takes records that are no events has none parked.
func TestNotEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.NotEvent = func(_ context.Context, d consumers.Delivery) error {
			s.note(&s.started, string(d.Record.Value))
			return nil
		}
		s.broker.Append(log.Record{Partition: p0, Value: []byte("plain")})
		s.stopped(s.run(s.broker.Reader()))
		s.wantCommitted(1)
		if !slices.Contains(s.started, "plain") || len(s.broker.Records("orders.parked")) > 0 {
			t.Errorf("taken %q, parked %v", s.started, s.broker.Records("orders.parked"))
		}
	})
}

// TestPanics: a panic, and a goroutine that ends, are failures of their delivery alone.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.AttemptsMax = 2
		s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
			switch string(d.Record.Key) {
			case "a":
				panic("index out of range")
			case "c":
				runtime.Goexit()
			}
			return nil
		}
		s.broker.Append(record(p0, "a", "a1"), record(p0, "b", "b1"), record(p0, "c", "c1"))
		stop := s.run(s.broker.Reader())
		time.Sleep(time.Minute)
		s.stopped(stop)
		s.wantHandled("b1")
		s.wantParked("a1: consumers: the handler panicked: index out of range", "c1: consumers: the handler ended its goroutine")
	})
}

// TestAttemptMax: the context of an attempt that hangs ends.
func TestAttemptMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.AttemptsMax, s.options.AttemptMax = 1, 5*time.Second
		s.options.Handler = func(ctx context.Context, _ consumers.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		}
		s.broker.Append(record(p0, "a", "a1"))
		stop := s.run(s.broker.Reader())
		time.Sleep(6 * time.Second)
		s.wantParked("a1: context deadline exceeded")
		s.stopped(stop)
	})
}

// TestOutage: nothing is parked because a server is down, however long.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		down := true
		s.options.Outage = func(err error) bool { return errors.Is(err, errFails) }
		s.options.Handler = func(context.Context, consumers.Delivery) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if down {
				return errFails
			}
			return nil
		}
		s.broker.Append(record(p0, "a", "a1"), record(p0, "b", "b1"))
		stop := s.run(s.broker.Reader())
		time.Sleep(24 * time.Hour)
		s.wantParked()
		s.mu.Lock()
		down = false
		s.mu.Unlock()
		time.Sleep(30 * time.Second) // BackoffMax
		s.stopped(stop)
		slices.Sort(s.handled)
		s.wantHandled("a1", "b1")
	})
}

// TestRetryMax: what fails is tried for so long and parked then, however often that is. Outages, and the time in which nobody runs, are not
// counted; kills do not start it anew (U4).
func TestRetryMax(t *testing.T) {
	const patience, attempt = 10 * time.Minute, 2 * time.Second
	for name, c := range map[string]struct {
		outage, killEvery time.Duration
		least, most       time.Duration // until it is parked
	}{
		"fails":  {0, 0, patience, patience + attempt},
		"outage": {24 * time.Hour, 0, 24*time.Hour + patience - 2*time.Minute, 24*time.Hour + patience + 2*time.Minute},
		"killed": {0, 3 * time.Minute, patience, 2 * patience}, // a wait that a kill cuts short does not count
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShop(t, 1)
				s.options.RetryMax, s.options.BackoffMin, s.options.BackoffMax = patience, time.Second, time.Minute
				s.options.Outage = func(err error) bool { return errors.Is(err, errDown) }
				began := time.Now()
				s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
					time.Sleep(attempt)
					if time.Since(began) < c.outage {
						return errDown
					}
					return errFails
				}
				s.broker.Append(record(p0, "a", "a1"))
				var took time.Duration
				s.options.Listener.Parked = func(d consumers.Delivery, _ string) { took = time.Since(began) }
				for took == 0 && time.Since(began) < 48*time.Hour {
					stop := s.run(s.broker.Reader())
					if c.killEvery == 0 {
						time.Sleep(48 * time.Hour)
					} else {
						time.Sleep(c.killEvery)
					}
					s.stopped(stop)
				}
				if took < c.least || took > c.most {
					t.Errorf("it was parked after %s, not between %s and %s", took, c.least, c.most)
				}
			})
		})
	}
}

var errDown = errors.New("down")

// TestReplays: what is sent again reaches the group that has parked it, as it was, in its order, and nobody else; when it fails again, it is parked
// again, as of where it was read first.
func TestReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.AttemptsMax, s.options.Replays = 1, true
		began := types.Timestamp{Time: time.Now().UTC()}
		mended := false
		var seen []consumers.Delivery
		s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			seen = append(seen, d)
			if mended && d.Event.ID() != "a3" {
				return nil
			}
			return errFails
		}
		s.broker.Append(record(p0, "a", "a1"), record(p0, "a", "a2"), record(p0, "a", "a3"))
		stop := s.run(s.broker.Reader())
		time.Sleep(time.Minute)
		s.wantParked("a1: fails", "a2: fails", "a3: fails")
		s.mu.Lock()
		mended, seen = true, nil
		s.mu.Unlock()

		at := time.Now()
		for _, parked := range s.broker.Records("orders.parked") {
			for _, group := range []string{"other", "shop"} {
				own := slices.Clone(parked.Headers)
				for i, h := range own {
					if h.Key == "ce_"+consumers.ParkedGroup {
						own[i].Value = []byte(group)
					}
				}
				parked.Headers = own
				replay, err := consumers.Replay(parked, "carol", "the account is there", at)
				if err != nil {
					t.Fatal(err)
				}
				s.broker.Produce(replay)
			}
		}
		time.Sleep(time.Minute)
		s.stopped(stop)
		s.wantHandled("a1", "a2")
		for i, d := range seen {
			recorded := d.Event.Extensions()["recordedtime"]
			if want := fmt.Sprint("a", i+1); d.Event.ID() != want || d.Attempt != 1 || !d.Replay || len(d.Event.Extensions()) != 2 || recorded != began {
				t.Errorf("delivered again: %+v, %v", d, d.Event)
			}
		}
		if next := s.broker.Committed("shop", log.Partition{Topic: consumers.ReplayTopic("orders")}); next != 6 {
			t.Errorf("%d of the replay topic is committed, not 6", next)
		}
		parked := s.broker.Records("orders.parked")
		again, err := consumers.ParseParked(parked[len(parked)-1])
		if err != nil || len(parked) != 4 || again.From != (consumers.Place{Partition: p0, Offset: 2}) || again.Group != "shop" || again.Reason != "fails" {
			t.Errorf("%d are parked, the last as %+v, %v", len(parked), again, err)
		}
		replayed, err := consumers.ParseReplayed(s.broker.Records("orders.replay")[0])
		if err != nil || replayed.By != "carol" || replayed.Reason != "the account is there" || !replayed.At.Equal(at.Truncate(time.Second)) ||
			replayed.Parked != (consumers.Place{Partition: log.Partition{Topic: "orders.parked"}}) {
			t.Errorf("sent again as %+v, %v", replayed, err)
		}
	})
}

// TestReplayOfOthers: what no consumer has parked is not sent again.
func TestReplayOfOthers(t *testing.T) {
	for name, spoil := range map[string]func(map[string]string){
		"group":  func(h map[string]string) { delete(h, consumers.ParkedGroup) },
		"topic":  func(h map[string]string) { delete(h, consumers.ParkedFrom) },
		"place":  func(h map[string]string) { h[consumers.ParkedOffset] = "-1" },
		"number": func(h map[string]string) { h[consumers.ParkedPartition] = "9999999999" },
	} {
		said := map[string]string{consumers.ParkedGroup: "shop", consumers.ParkedFrom: "orders", consumers.ParkedPartition: "0", consumers.ParkedOffset: "7"}
		if _, err := consumers.Replay(withAttributes(said), "carol", "why", time.Now()); err != nil {
			t.Fatal(err)
		}
		spoil(said)
		if r, err := consumers.Replay(withAttributes(said), "carol", "why", time.Now()); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func withAttributes(all map[string]string) (r log.Record) {
	for name, value := range all {
		r.Headers = append(r.Headers, log.Header{Key: "ce_" + name, Value: []byte(value)})
	}
	return r
}

// TestParkFails: what cannot be parked is not committed, and nobody else waits for it (U1).
func TestParkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.Handler = fails("a", consumers.Refuse(errFails))
		r := s.broker.Reader()
		full := true
		r.ProduceFails = func(log.Record) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if full {
				return errors.New("disk full")
			}
			return nil
		}
		s.broker.Append(record(p0, "b", "b1"), record(p0, "a", "a1"), record(p0, "a", "a2"), record(p0, "b", "b2"))
		stop := s.run(r)
		time.Sleep(time.Hour)
		s.wantHandled("b1", "b2")
		s.wantCommitted(1)
		s.mu.Lock()
		full = false
		s.mu.Unlock()
		time.Sleep(time.Minute)
		s.stopped(stop)
		s.wantCommitted(4)
		s.wantParked("a1: fails", "a2: fails")
	})
}

// TestCommits: never past what is not done, and again when a commit was lost (U1).
func TestCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		gate := make(chan struct{})
		s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
			if d.Event.ID() == "b1" {
				<-gate
			}
			return nil
		}
		r := s.broker.Reader()
		n := 0
		r.CommitFails = func(map[log.Partition]log.Offset) error {
			if n++; n == 1 {
				return errFails
			}
			return nil
		}
		s.broker.Append(record(p0, "a", "a1"), record(p0, "b", "b1"), record(p0, "c", "c1"))
		stop := s.run(r)
		time.Sleep(1500 * time.Millisecond)
		s.wantCommitted(0)
		time.Sleep(time.Second)
		s.wantCommitted(1)
		close(gate)
		time.Sleep(1500 * time.Millisecond)
		s.wantCommitted(3)
		if s.uncommits != 1 || n != 3 {
			t.Errorf("%d commits, %d of them failed", n, s.uncommits)
		}
		s.stopped(stop)
	})
}

// TestRepeated: what a lost commit repeats is delivered again, from there on.
func TestRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.broker.Append(record(p0, "a", "a1"), record(p0, "a", "a2"), record(p0, "a", "a3"))
		s.stopped(s.run(s.broker.Reader()))
		s.wantCommitted(3)
		s.broker.SetCommitted("shop", p0, 1)
		s.stopped(s.run(s.broker.Reader()))
		s.wantHandled("a1", "a2", "a3", "a2", "a3")
	})
}

// TestDrain is U5 at the end of Run: what is under way is finished and committed. The rest is left to the next, who does not do again what
// was done beyond it.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.Handler = func(_ context.Context, d consumers.Delivery) error {
			if string(d.Record.Key) == "d" {
				return errFails
			}
			time.Sleep(3 * time.Second)
			return nil
		}
		s.broker.Append(record(p0, "a", "a1"), record(p0, "a", "a2"), record(p0, "b", "b1"), record(p0, "a", "a3"), record(p0, "d", "d1"))
		began := time.Now()
		s.stopped(s.run(s.broker.Reader()))
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %s", took)
		}
		s.wantCommitted(1)
		slices.Sort(s.handled)
		s.wantHandled("a1", "b1")

		stop := s.run(s.broker.Reader())
		time.Sleep(6 * time.Second)
		s.stopped(stop)
		s.wantCommitted(4)
		s.wantHandled("a1", "b1", "a2", "a3")
	})
}

// TestKilledAgain: a service that is killed again and again comes forward all the same: what was done beyond a failing key is not done again, and the
// key's failures are counted on.
func TestKilledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.options.AttemptsMax, s.options.BackoffMin = 5, 1500*time.Millisecond
		s.options.Handler = fails("a", errFails)
		s.broker.Append(record(p0, "a", "a1"))
		var want []string
		for n := range 5 {
			id := fmt.Sprint("b", n)
			s.broker.Append(record(p0, "b", id))
			want = append(want, id)
			r := s.broker.Reader()
			stop := s.run(r)
			time.Sleep(1100 * time.Millisecond) // one attempt, one commit
			r.Kill()
			if err := stop(); !errors.Is(err, consumerstest.ErrGone) && err != nil {
				t.Error(err)
			}
		}
		s.wantHandled(want...)
		s.wantParked("a1: fails")
	})
}

// TestDrainMax: patience ends, first with the handlers' contexts, then with the handlers.
func TestDrainMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		deaf := make(chan struct{})
		s.options.Handler = func(ctx context.Context, d consumers.Delivery) error {
			if d.Event.ID() == "deaf" {
				<-deaf
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		s.broker.Append(record(p0, "a", "hears"), record(p0, "b", "deaf"))
		stop := s.run(s.broker.Reader())
		began := time.Now()
		s.stopped(stop)
		if took := time.Since(began); took != 11*time.Second {
			t.Errorf("it took %s, not DrainMax and a second", took)
		}
		s.wantHandled()
		s.wantCommitted(0)
		if s.left != 1 || len(s.retried) != 0 {
			t.Errorf("%d left behind, retried after %v", s.left, s.retried)
		}
		close(deaf)
	})
}

// TestRebalance is U5 when a member joins: nothing is handled twice, and nothing left out.
func TestRebalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions, each = 4, 50
		s := newShop(t, partitions)
		s.options.Handler = func(context.Context, consumers.Delivery) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		}
		var want []string
		for i := range partitions * each {
			id := fmt.Sprintf("%03d", i)
			want = append(want, id)
			s.broker.Append(record(log.Partition{Topic: "orders", Index: int32(i % partitions)}, fmt.Sprint(i%20), id))
		}
		first := s.run(s.broker.Reader())
		time.Sleep(350 * time.Millisecond)
		second := s.run(s.broker.Reader())
		time.Sleep(350 * time.Millisecond)
		s.stopped(first)
		time.Sleep(time.Minute)
		s.stopped(second)
		slices.Sort(s.handled)
		s.wantHandled(want...)
	})
}

// TestLost: what was lost is given up at once and not committed; what came of it does not count.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		var ended []string
		s.options.Handler = func(ctx context.Context, d consumers.Delivery) error {
			s.mu.Lock()
			first := s.left == 0
			s.mu.Unlock()
			if first {
				<-ctx.Done()
				s.note(&ended, d.Event.ID())
				return ctx.Err()
			}
			return nil
		}
		s.broker.Append(record(p0, "a", "a1"))
		r := s.broker.Reader()
		commits := 0
		r.CommitFails = func(map[log.Partition]log.Offset) error { commits++; return nil }
		stop := s.run(r)
		r.Lose()
		synctest.Wait()
		if commits != 0 || s.left != 1 || len(ended) != 1 {
			t.Errorf("%d commits, %d left, ended %q", commits, s.left, ended)
		}
		s.wantHandled("a1") // it was given the partition again
		s.stopped(stop)
		s.wantCommitted(1)
	})
}

// TestLimits: a partition at a limit is paused, others are not; it is read again when it is well below, also by its next owner.
func TestLimits(t *testing.T) {
	for name, limit := range map[string]func(*consumers.Options){
		"records": func(o *consumers.Options) { o.HeldMax = 300 },
		"ahead":   func(o *consumers.Options) { o.AheadMax = 300 },
		"bytes":   func(o *consumers.Options) { o.HeldBytesMax = 200 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const records = 2000
				s := newShop(t, 1)
				limit(&s.options)
				gate := make(chan struct{})
				s.options.Handler = func(ctx context.Context, d consumers.Delivery) error {
					if d.Event.ID() == "0" || name != "ahead" {
						select {
						case <-gate:
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					return nil
				}
				for i := range records {
					s.broker.Append(record(p0, fmt.Sprint(i), fmt.Sprint(i)))
				}
				r := s.broker.Reader()
				stop := s.run(r)
				time.Sleep(time.Second)
				if taken := r.Taken(p0); taken < 100 || taken > 300+256 || s.paused != 1 {
					t.Errorf("%d records were taken, %d times paused", taken, s.paused)
				}
				r.Lose() // and given back: it must not be paused for ever
				time.Sleep(time.Second)
				close(gate)
				time.Sleep(time.Minute)
				s.stopped(stop)
				s.wantCommitted(records)
			})
		})
	}
}

// TestReaderFails: Run drains, and returns the Reader's error.
func TestReaderFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, 1)
		s.broker.Append(record(p0, "a", "a1"))
		r := s.broker.Reader()
		s.options.Handler = func(context.Context, consumers.Delivery) error {
			time.Sleep(time.Second)
			return nil
		}
		stop := s.run(r)
		r.Fail(errFails)
		time.Sleep(2 * time.Second)
		s.wantCommitted(1)
		if err := stop(); !errors.Is(err, errFails) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// TestOptions: what is wrong is said before anything is read.
func TestOptions(t *testing.T) {
	good := func() consumers.Options {
		return consumers.Options{Reader: consumerstest.NewBroker(nil).Reader(), Group: "g", Topics: []string{"t"},
			Handler: func(context.Context, consumers.Delivery) error { return nil }}
	}
	if _, err := consumers.New(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*consumers.Options){
		"Reader": func(o *consumers.Options) { o.Reader = nil }, "Group": func(o *consumers.Options) { o.Group = "" },
		"Topics": func(o *consumers.Options) { o.Topics = []string{""} }, "Handler": func(o *consumers.Options) { o.Handler = nil },
		"limit":  func(o *consumers.Options) { o.HeldMax = -1 },
		"times":  func(o *consumers.Options) { o.BackoffMin = time.Hour },
		"longer": func(o *consumers.Options) { o.Topics = []string{strings.Repeat("t", log.TopicNameMax)} },
	} {
		o := good()
		spoil(&o)
		if _, err := consumers.New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
